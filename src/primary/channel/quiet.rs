//! When a withdrawn worker may be told to disconnect. Node closes at once what it takes for idle, and a request that is
//! on its way on such a connection is lost with it. So a worker that gets no more connections goes on serving those that
//! it has, until they have gone or are quiet.

use super::place::Local;
use crate::protocol::diag::{Connection, Family, read, request};
use crate::protocol::procfs;
use crate::sys::diag;
use std::collections::BTreeSet;
use std::time::Duration;

/// A connection on which nothing moved for so long is idle, or waits for an answer that takes its time.
const QUIET: Duration = Duration::from_millis(500);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);

/// And no more often than its connections are so many times this.
const EACH: Duration = Duration::from_micros(50);

/// Waits until all connections of a process at these sockets are quiet, or have gone; no longer than `most`.
pub(super) async fn wait(pid: i32, sockets: Vec<Local>, most: Duration) {
    let quiet = async {
        let mut pause = LOOK;
        loop {
            tokio::time::sleep(pause).await;
            match connections(pid, &sockets) {
                Some(connections) if connections.iter().all(|c| c.quiet >= QUIET) => return,
                // Looking at very many takes time that others wait for.
                Some(connections) => {
                    let count = u32::try_from(connections.len()).unwrap_or(u32::MAX);
                    pause = LOOK.max(EACH * count);
                }
                // Nothing is known of them: some time to speak is all that can be given.
                None => return tokio::time::sleep(QUIET).await,
            }
        }
    };
    let _ = tokio::time::timeout(most, quiet).await;
}

/// Returns the TCP connections that a process has at these sockets; `None` if that cannot be known.
fn connections(pid: i32, sockets: &[Local]) -> Option<Vec<Connection>> {
    let mut found = vec![];
    for local in sockets {
        let Local::Tcp(address) = local else { return None };
        let family = if address.is_ipv6() { Family::V6 } else { Family::V4 };
        diag::ask(&request(family, address.port()), |piece| read(piece, &mut found)).ok()?;
    }
    if found.is_empty() {
        return Some(found);
    }
    let mut inodes = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        if let Ok(link) = std::fs::read_link(entry.path()) {
            inodes.extend(procfs::socket_inode(&link.to_string_lossy()));
        }
    }
    found.retain(|connection| inodes.contains(&connection.inode));
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn own_connections_are_seen_and_that_they_speak() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let local = [Local::Tcp(listener.local_addr().unwrap())];
            let pid = i32::try_from(std::process::id()).unwrap();
            assert_eq!(connections(pid, &local), Some(vec![]));
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            // Not accepted yet: nobody's.
            assert_eq!(connections(pid, &local), Some(vec![]));
            let (_server, _) = listener.accept().unwrap();
            client.write_all(b"x").unwrap();
            let found = connections(pid, &local).unwrap();
            assert_eq!(found.len(), 1);
            assert!(found[0].quiet < Duration::from_secs(30));
        }
        assert_eq!(connections(1, &[Local::Other]), None);
    }
}
