//! A Rust web server under systemd's socket activation: take the passed socket, finish what is begun at SIGTERM.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use listenfd::ListenFd;
use std::convert::Infallible;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from(format!("hello from pid {}\n", std::process::id()))))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let passed =
        ListenFd::from_env().take_tcp_listener(0)?.expect("systemd, or dogwatch, passes a socket");
    passed.set_nonblocking(true)?;
    let listener = TcpListener::from_std(passed)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let graceful = GracefulShutdown::new();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            Ok((stream, _)) = listener.accept() => {
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(hello));
                let connection = graceful.watch(connection);
                tokio::spawn(async move { drop(connection.await) });
            }
        }
    }
    drop(listener);
    // A client whose connection was accepted a moment ago has yet to speak; to close it now would be rude.
    tokio::time::sleep(Duration::from_millis(100)).await;
    graceful.shutdown().await;
    Ok(())
}
