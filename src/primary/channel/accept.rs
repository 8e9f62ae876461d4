//! Accepting for workers that take turns: a connection stays in the kernel's queue until somebody is free for it, so that
//! a primary that dies has none in its hands.

use super::super::carry::crash;
use super::super::clock;
use super::Shared;
use crate::core::Time;
use crate::sys::socket;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// When accept fails for the machine's sake (no descriptor left), it is tried again after this long.
const PAUSE: Duration = Duration::from_millis(100);

/// What can be done at a socket.
enum Turn {
    Accept,
    /// Nobody is free; somebody's pause may end.
    Wait(Option<Time>),
}

/// Accepts at socket `at`, for as long as the primary lives.
pub(super) async fn accept(shared: Shared, at: usize) {
    let mut is_told = false;
    let (listener, changed) = loop {
        match open(&shared, at) {
            Ok(opened) => break opened,
            Err(e) => {
                if !std::mem::replace(&mut is_told, true) {
                    shared.complain(cannot_accept(&e));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    loop {
        match turn(&shared, at) {
            Turn::Wait(until) => tokio::select! {
                () = changed.notified() => {}
                () = clock::sleep_until(until) => {}
            },
            Turn::Accept => tokio::select! {
                biased;
                // Whoever was free may have left.
                () = changed.notified() => {}
                ready = listener.readable() => {
                    let Ok(mut ready) = ready else { return };
                    let Ok(accepted) = ready.try_io(socket::accept) else {
                        continue;
                    };
                    match accepted {
                        Ok(connection) => {
                            is_told = false;
                            crash::point("accepted");
                            shared.lock().take(at, connection);
                        }
                        Err(e) if is_clients_fault(&e) => {}
                        Err(e) => {
                            if !std::mem::replace(&mut is_told, true) {
                                shared.complain(cannot_accept(&e));
                            }
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                }
            },
        }
    }
}

fn cannot_accept(e: &io::Error) -> String {
    format!("cannot accept a connection: {e}; trying again, connections wait")
}

fn open(shared: &Shared, at: usize) -> io::Result<(AsyncFd<OwnedFd>, Arc<Notify>)> {
    let (fd, changed) = {
        let hub = shared.lock();
        (hub.sockets[at].fd.try_clone()?, hub.sockets[at].changed.clone())
    };
    socket::set_nonblocking(&fd, true)?;
    Ok((socket::watch(fd, Interest::READABLE)?, changed))
}

fn turn(shared: &Shared, at: usize) -> Turn {
    let mut hub = shared.lock();
    hub.sockets[at].is_waiting = false;
    hub.deal(at);
    let socket = &mut hub.sockets[at];
    let may = !socket.rota.has_waiting() && socket.rota.has_free(clock::now());
    socket.is_waiting = !may;
    if may { Turn::Accept } else { Turn::Wait(socket.rota.wake()) }
}

/// The client has given up already (`accept(2)`).
fn is_clients_fault(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
        || e.raw_os_error() == Some(libc::EPROTO)
}
