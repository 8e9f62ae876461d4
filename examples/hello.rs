//! A Rust web server under systemd's socket activation: take the passed socket, finish what is begun at SIGTERM.
//!
//! How no client notices its end: it accepts no more, says `Connection: close` in each answer, and closes the connections on
//! which nobody asks only after a while, for a request may be on its way.

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use listenfd::ListenFd;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

static STOPPING: AtomicBool = AtomicBool::new(false);

/// Connections are closed when nobody has asked on them for so long after the stop signal.
const IDLE: Duration = Duration::from_secs(1);

async fn hello() -> Result<Response<Full<Bytes>>, Infallible> {
    let text = format!("hello from pid {}\n", std::process::id());
    let mut answer = Response::new(Full::from(text));
    if STOPPING.load(Ordering::Relaxed) {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let passed =
        ListenFd::from_env().take_tcp_listener(0)?.expect("systemd, or dogwatch, passes a socket");
    passed.set_nonblocking(true)?;
    let listener = TcpListener::from_std(passed)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (mut connections, graceful) = (JoinSet::new(), GracefulShutdown::new());
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            Some(_) = connections.join_next() => {}
            Ok((stream, _)) = listener.accept() => {
                let http = http1::Builder::new();
                let connection = http.serve_connection(TokioIo::new(stream), service_fn(|_| hello()));
                connections.spawn(graceful.watch(connection));
            }
        }
    }
    drop(listener);
    STOPPING.store(true, Ordering::Relaxed);
    let all_done = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(IDLE, all_done).await;
    // After a stall a request may have come that nobody has read yet: whoever has one is first.
    tokio::task::yield_now().await;
    graceful.shutdown().await;
    Ok(())
}
