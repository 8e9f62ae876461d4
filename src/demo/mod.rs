//! The built-in worker: a small HTTP server that takes its sockets as any program under systemd does, and stops as
//! a good one does. `dogwatch demo` runs it, and so do the tests, with its ways to misbehave.
//!
//! How it stops without losing a request: at SIGTERM it accepts no more, answers what it has, says
//! `Connection: close` in each answer, and closes idle connections only after a while, so that a client that is
//! just about to speak is still heard.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use listenfd::ListenFd;
use std::convert::Infallible;
use std::io;
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Idle connections are closed this long after the stop signal.
const IDLE: Duration = Duration::from_secs(1);

/// How the worker is to behave; without any of these, well.
#[derive(Clone, Debug, clap::Args)]
pub struct WorkerArguments {
    /// Exit with this status instead of serving
    #[arg(long, value_name = "STATUS")]
    exit: Option<u8>,
    /// Never listen
    #[arg(long)]
    mute: bool,
    /// Wait before listening
    #[arg(long, value_name = "TIME")]
    start_delay: Option<crate::config::values::Time>,
    /// Exit with status 1 this long after the start; what it was just asked it answers first
    #[arg(long, value_name = "TIME")]
    die_after: Option<crate::config::values::Time>,
    /// Do not end at the stop signal
    #[arg(long)]
    deaf: bool,
    /// Say READY=1 when listening
    #[arg(long)]
    notify: bool,
    /// Give so many heartbeats, then no more
    #[arg(long, value_name = "N")]
    heartbeats: Option<u32>,
    /// Write this many lines to standard output
    #[arg(long, value_name = "N")]
    lines: Option<u64>,
    /// What `/` answers with
    #[arg(long, default_value = "hello")]
    greeting: String,
}

/// Serves until the stop signal; returns success once all connections are done.
#[must_use]
pub fn serve(arguments: &WorkerArguments) -> ExitCode {
    print_lines(arguments.lines.unwrap_or(0));
    if let Some(status) = arguments.exit {
        return ExitCode::from(status);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(work(arguments))) {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

#[expect(clippy::print_stderr, reason = "a worker's standard error is its log")]
fn fail(error: &io::Error) -> ExitCode {
    eprintln!("cannot serve: {error}");
    ExitCode::FAILURE
}

async fn work(arguments: &WorkerArguments) -> io::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    if let Some(delay) = arguments.start_delay {
        tokio::time::sleep(delay.0).await;
    }
    let (stop, stopping) = watch::channel(false);
    let mut servers = JoinSet::new();
    if !arguments.mute {
        listen(arguments, &stopping, &mut servers)?;
    }
    if arguments.notify {
        sd_notify::notify(&[
            sd_notify::NotifyState::Ready,
            sd_notify::NotifyState::Status("serving"),
        ])?;
    }
    let die = async {
        match arguments.die_after {
            Some(time) => tokio::time::sleep(time.0).await,
            None => std::future::pending().await,
        }
    };
    let stopped = async {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        if arguments.deaf {
            std::future::pending::<()>().await;
        }
    };
    let code = tokio::select! {
        () = die => ExitCode::FAILURE,
        () = beat(arguments.heartbeats) => ExitCode::SUCCESS,
        () = stopped => ExitCode::SUCCESS,
    };
    let _ = stop.send(true);
    while servers.join_next().await.is_some() {}
    Ok(code)
}

#[expect(clippy::print_stdout, reason = "output for the journal to take")]
fn print_lines(lines: u64) {
    for line in 1..=lines {
        println!("line {line}");
    }
}

/// Gives heartbeats at half the interval that was asked for; never ends.
async fn beat(times: Option<u32>) {
    if let Some(interval) = sd_notify::watchdog_enabled() {
        for _ in 0..times.unwrap_or(u32::MAX) {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            tokio::time::sleep(interval / 2).await;
        }
    }
    std::future::pending::<()>().await;
}

fn listen(
    arguments: &WorkerArguments,
    stopping: &watch::Receiver<bool>,
    servers: &mut JoinSet<()>,
) -> io::Result<()> {
    let mut passed = ListenFd::from_env();
    if passed.len() == 0 {
        return Err(io::Error::other("no socket was passed (LISTEN_FDS)"));
    }
    for at in 0..passed.len() {
        if let Some(listener) = take(&mut passed, at)? {
            servers.spawn(accept(listener, arguments.greeting.clone(), stopping.clone()));
        }
    }
    Ok(())
}

/// A listener of either kind.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// Takes a passed stream listener; datagram sockets are left alone, for HTTP does not run on them.
fn take(passed: &mut ListenFd, at: usize) -> io::Result<Option<Listener>> {
    if let Ok(Some(listener)) = passed.take_tcp_listener(at) {
        listener.set_nonblocking(true)?;
        return TcpListener::from_std(listener).map(Listener::Tcp).map(Some);
    }
    if let Ok(Some(listener)) = passed.take_unix_listener(at) {
        listener.set_nonblocking(true)?;
        return UnixListener::from_std(listener).map(Listener::Unix).map(Some);
    }
    Ok(None)
}

impl Listener {
    async fn next(&self) -> io::Result<Box<dyn Connection>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// Accepts until the stop signal, then waits for the connections that it has.
async fn accept(listener: Listener, greeting: String, mut stopping: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let told = stopping.clone();
    loop {
        tokio::select! {
            biased;
            () = told_to_stop(&mut stopping) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.next() => match accepted {
                Ok(stream) => { connections.spawn(converse(stream, greeting.clone(), told.clone())); }
                // Out of descriptors, or the client has gone: wait a little rather than spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn converse(
    stream: Box<dyn Connection>,
    greeting: String,
    mut stopping: watch::Receiver<bool>,
) {
    let told = stopping.clone();
    let service = service_fn(move |request| {
        let (greeting, told) = (greeting.clone(), told.clone());
        async move {
            let mut response = answer(&request, &greeting).await;
            if *told.borrow() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = http1::Builder::new();
    let connection = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let idle_too_long = async {
        told_to_stop(&mut stopping).await;
        tokio::time::sleep(IDLE).await;
    };
    tokio::select! {
        // A request that has arrived is read before its connection is taken for idle.
        biased;
        _ = connection.as_mut() => {}
        () = idle_too_long => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// `/` greets, `/pid` tells the pid, `/slow?ms=` takes its time, `/env?NAME` tells a variable.
async fn answer(request: &Request<Incoming>, greeting: &str) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    let variable = |name| std::env::var(name).unwrap_or_default();
    let (status, text) = match request.uri().path() {
        "/" => (
            StatusCode::OK,
            format!(
                "{greeting} from worker {} in slot {}, generation {}, pid {}\n",
                variable("DOGWATCH_WORKER"),
                variable("DOGWATCH_SLOT"),
                variable("DOGWATCH_GENERATION"),
                std::process::id()
            ),
        ),
        "/pid" => (StatusCode::OK, format!("{}\n", std::process::id())),
        "/env" => (StatusCode::OK, format!("{}\n", variable(query))),
        "/slow" => {
            let ms = query.strip_prefix("ms=").and_then(|ms| ms.parse().ok()).unwrap_or(1000);
            tokio::time::sleep(Duration::from_millis(ms)).await;
            (StatusCode::OK, format!("waited {ms} ms\n"))
        }
        _ => (StatusCode::NOT_FOUND, "there is /, /pid, /slow?ms=N and /env?NAME\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
