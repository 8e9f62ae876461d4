//! When a withdrawn worker may be told to disconnect. Node closes at once what it takes for idle, and a request that is
//! on its way on such a connection is lost with it. So a worker that gets no more connections goes on serving those that
//! it has, until they have gone or are quiet.

use super::super::drain::census;
use super::super::worker::CHANNEL;
use super::place::Local;
use crate::protocol::diag::{Connection, State};
use crate::protocol::procfs;
use std::time::Duration;

/// Connections on which the other end may wait for something.
const OPEN: [State; 2] = [State::Established, State::CloseWait];

/// A connection on which nothing moved for so long is idle, or waits for an answer that takes its time.
const QUIET: Duration = Duration::from_millis(500);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);
/// So many times in a row all must be quiet. After a pause of the whole machine everybody is, and about to go on.
const LOOKS: u32 = 2;

/// And less often where there are many connections at these ports: each look takes the kernel through all of them.
const EACH: Duration = Duration::from_micros(200);

/// Waits until all connections of a process at these sockets are quiet, or have gone; no longer than `most`.
pub(super) async fn wait(pid: i32, sockets: Vec<Local>, most: Duration) {
    let quiet = async {
        let mut pause = LOOK;
        let mut looks = 0;
        while looks < LOOKS {
            tokio::time::sleep(pause).await;
            // Nothing is known: some time to speak is all that can be given.
            let Some(look) = look(pid, &sockets) else {
                tokio::time::sleep(QUIET).await;
                break;
            };
            looks = if look.own.iter().all(is_quiet) { looks + 1 } else { 0 };
            pause = LOOK.max(EACH * u32::try_from(look.all).unwrap_or(u32::MAX));
        }
        // Of connections on unix sockets the kernel does not tell how quiet they are.
        if sockets.iter().any(|local| !matches!(local, Local::Tcp(_))) {
            tokio::time::sleep(QUIET).await;
        }
    };
    let _ = tokio::time::timeout(most, quiet).await;
}

/// Whether nothing moves on a connection. What nobody has read yet is a request that the worker has not come to.
fn is_quiet(connection: &Connection) -> bool {
    connection.unread == 0 && connection.quiet() >= QUIET
}

/// Whether a process holds the worker's end of a channel, which is the socket of this inode.
pub(super) fn holds_channel(pid: i32, inode: u64) -> bool {
    let link = std::fs::read_link(format!("/proc/{pid}/fd/{CHANNEL}"));
    link.is_ok_and(|link| procfs::socket_inode(&link.to_string_lossy()) == Some(inode))
}

/// Waits until a process has let go of its end of the channel.
pub(super) async fn until_let_go(pid: i32, inode: u64) {
    while holds_channel(pid, inode) {
        tokio::time::sleep(LOOK).await;
    }
}

/// The TCP connections at some sockets.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    /// Those of one worker.
    own: Vec<Connection>,
    /// How many there are in all.
    all: usize,
}

/// Looks at the connections that a process and what it has started have at these sockets; `None` if it cannot be known.
fn look(pid: i32, sockets: &[Local]) -> Option<Look> {
    let rows = census::rows(sockets, &OPEN).ok()?;
    let own = rows.of(pid).tcp.into_iter().map(|(connection, _)| connection).collect();
    Some(Look { own, all: rows.tcp.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::diag::Traffic;
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn own_connections_are_seen_and_that_they_speak() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let local = [Local::Tcp(listener.local_addr().unwrap())];
            let pid = i32::try_from(std::process::id()).unwrap();
            assert_eq!(look(pid, &local).map(|look| look.own), Some(vec![]));
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            // Not accepted yet: nobody's.
            assert_eq!(look(pid, &local).map(|look| look.own), Some(vec![]));
            let (_server, _) = listener.accept().unwrap();
            client.write_all(b"x").unwrap();
            let found = look(pid, &local).unwrap().own;
            assert_eq!(found.len(), 1);
            assert!(found[0].quiet() < Duration::from_secs(30));
            // Nobody has read it: it is not quiet, however long ago it came.
            let traffic = found[0].traffic.map(|traffic| Traffic {
                last_sent: 2 * QUIET,
                last_received: QUIET,
                ..traffic
            });
            let later = Connection { traffic, ..found[0] };
            assert_eq!((later.unread, is_quiet(&later)), (1, false));
            assert!(is_quiet(&Connection { unread: 0, ..later }));
        }
    }
}
