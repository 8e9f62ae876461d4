//! The notify socket of one worker: who speaks on it is that worker, or something that it started, whatever its pid.
//! So `systemd-notify --ready` in a shell script counts, which systemd itself refuses under `NotifyAccess=main`.

use super::News;
use crate::config::values::ReadyWhen;
use crate::core::{Event, WorkerId};
use crate::protocol::notify::{MAX_DATAGRAM, Notice, parse};
use crate::sys::socket;
use std::io;
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::Path;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, oneshot};

/// So many datagrams are read before the rest of the primary has its turn.
const BATCH: usize = 64;

/// Opens the socket; only processes of our own user and root can reach it.
///
/// # Errors
/// As socket(2) and bind(2).
pub(super) fn open(path: &Path) -> io::Result<UnixDatagram> {
    let socket = StdDatagram::bind(path)?;
    socket.set_nonblocking(true)?;
    socket::pass_credentials(&socket)?;
    UnixDatagram::from_std(socket)
}

/// Turns what the worker says into events, for as long as it lives. `READY=1` counts where `when` says so.
pub(super) async fn listen(
    socket: UnixDatagram,
    worker: WorkerId,
    when: ReadyWhen,
    news: mpsc::Sender<News>,
) {
    let counts = |notice: &Notice| {
        *notice != Notice::Ready || matches!(when, ReadyWhen::Auto | ReadyWhen::Notify)
    };
    let mut garbage = 0u64;
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        let (notices, refused, ready_is_next) = read_batch(&socket);
        for notice in notices.into_iter().filter(counts) {
            if news.send(to_news(worker, notice)).await.is_err() {
                return;
            }
        }
        if ready_is_next {
            // It is said once. Should we die with it in hand nobody would know, so it is taken when it is written down.
            let (kept, is_kept) = oneshot::channel();
            if news.send(News::Keep(kept)).await.is_err() || is_kept.await.is_err() {
                return;
            }
            let _ = receive(&socket, &mut [0; MAX_DATAGRAM], Take::Yes);
        }
        let before = garbage;
        garbage += refused;
        // Said at once, then at every tenfold: a flood is not answered by a flood.
        let order = |n: u64| n.checked_ilog10();
        if order(garbage) > order(before)
            && news.send(News::Garbage { worker, garbage }).await.is_err()
        {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Reads what is there, up to a limit. The same thing said many times counts once. A `READY=1` is left where it is, and ends
/// the reading; whether it has is returned.
fn read_batch(socket: &UnixDatagram) -> (Vec<Notice>, u64, bool) {
    let mut notices: Vec<Notice> = Vec::new();
    let mut refused = 0;
    let mut buffer = [0; MAX_DATAGRAM];
    for _ in 0..BATCH {
        let seen = socket.try_io(Interest::READABLE, || receive(socket, &mut buffer, Take::No));
        let is_ready = matches!(&seen, Ok(Some(heard)) if heard.contains(&Notice::Ready));
        if !is_ready && seen.is_ok() {
            let _ = receive(socket, &mut buffer, Take::Yes);
        }
        match seen {
            Ok(Some(heard)) => {
                for notice in heard {
                    if !notices.contains(&notice) {
                        notices.push(notice);
                    }
                }
                if is_ready {
                    return (notices, refused, true);
                }
            }
            Ok(None) => refused += 1,
            Err(_) => break,
        }
    }
    (notices, refused, false)
}

/// Whether a datagram is taken from its socket.
#[derive(Clone, Copy, Debug)]
enum Take {
    Yes,
    No,
}

/// Receives one datagram; `None` if it is nothing that we listen to.
fn receive(
    socket: &UnixDatagram,
    buffer: &mut [u8],
    take: Take,
) -> io::Result<Option<Vec<Notice>>> {
    let datagram = match take {
        Take::Yes => socket::receive(socket, buffer)?,
        Take::No => socket::look(socket, buffer)?,
    };
    let own = nix::unistd::geteuid().as_raw();
    let trusted = datagram.uid.is_some_and(|uid| uid == own || uid == 0);
    if !trusted || datagram.truncated {
        return Ok(None);
    }
    Ok(parse(&buffer[..datagram.length]))
}

fn to_news(worker: WorkerId, notice: Notice) -> News {
    use crate::core::Evidence::Notify;
    match notice {
        Notice::Ready => News::Event(Event::Ready { worker, evidence: Notify }),
        Notice::Stopping => News::Event(Event::Leaving(worker)),
        Notice::Heartbeat => News::Event(Event::Heartbeat(worker)),
        Notice::MoreTime(time) => News::Event(Event::MoreTime { worker, time }),
        Notice::Status(text) => News::Says { worker, text },
    }
}
