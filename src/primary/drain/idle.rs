//! Closing a worker's idle connections from outside, as its own keep-alive timeout would: a client that gets the end of the
//! stream between two requests opens another connection, which goes to another worker.
//!
//! A connection is idle when the last thing on it was an answer. The kernel's times say so where they differ. It counts
//! them in ticks, and a client without a thought sends its next request in the tick of the last answer: times that are the
//! same say nothing, and closing then is to take a request from a worker that is at it. What helps is that the other end
//! confirmed something after its last data: that can only be an answer. A connection that shows neither has to be silent
//! for longer than most answers take. None of it proves that an answer is complete: a stream may pause for a second.

use super::census::{Own, Socket};
use crate::protocol::diag::{Connection, State, Traffic};
use crate::sys::{pidfd, socket, tcp};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Idle for so long, and no request is about to come, as far as one can say.
const IDLE: Duration = Duration::from_secs(1);
/// The same, where it cannot be known whether the request or the answer came last.
const SILENT: Duration = Duration::from_secs(5);
/// No client has had an answer for so short a time and sends the next request already: the other safe moment.
const JUST: Duration = Duration::from_millis(4);

/// Which connections to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Which {
    /// Those that are idle for a while.
    Idle,
    /// Those too that have just been answered.
    JustAnswered,
}

/// What came of it.
#[derive(Debug, Default)]
pub(in super::super) struct Closed {
    /// How many were closed.
    pub(in super::super) count: usize,
    /// Why one of the others could not be: `EPERM` for a process that we may not look into.
    pub(in super::super) failed: Option<io::Error>,
}

/// Closes those of a worker's connections that may be closed now. The worker reads the end of the stream, as if the client
/// had gone, and so does the client.
pub(in super::super) fn close(own: &Own, which: Which) -> Closed {
    let mut closed = Closed::default();
    let mut processes: BTreeMap<i32, OwnedFd> = BTreeMap::new();
    for (connection, socket) in &own.tcp {
        if !may_close(connection, which) {
            continue;
        }
        match close_one(&mut processes, connection, *socket, which) {
            Ok(is_closed) => closed.count += usize::from(is_closed),
            Err(e) => drop(closed.failed.get_or_insert(e)),
        }
    }
    closed
}

/// Returns whether it was closed; if not, then something has happened since it was looked at.
fn close_one(
    processes: &mut BTreeMap<i32, OwnedFd>,
    connection: &Connection,
    at: Socket,
    which: Which,
) -> io::Result<bool> {
    let copy = match copy(processes, at) {
        // Closed since then, or the process is gone.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EBADF | libc::ESRCH)) => return Ok(false),
        copy => copy?,
    };
    // The number may be another file's by now.
    if socket::inode(&copy)? != at.inode {
        return Ok(false);
    }
    let info = tcp::tcp_info(&copy)?;
    let now = Connection {
        state: State::of(info.first().copied().unwrap_or_default()),
        unread: tcp::unread(&copy)?,
        traffic: Traffic::read(&info),
        ..*connection
    };
    if !may_close(&now, which) {
        return Ok(false);
    }
    match socket::close_down(&copy) {
        // The client was faster.
        Err(e) if e.raw_os_error() == Some(libc::ENOTCONN) => Ok(false),
        done => done.map(|()| true),
    }
}

fn copy(processes: &mut BTreeMap<i32, OwnedFd>, at: Socket) -> io::Result<OwnedFd> {
    let pidfd = match processes.entry(at.pid) {
        std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
        std::collections::btree_map::Entry::Vacant(new) => {
            new.insert(pidfd::open(Pid::from_raw(at.pid))?)
        }
    };
    pidfd::descriptor(&*pidfd, at.number)
}

fn may_close(connection: &Connection, which: Which) -> bool {
    let Some(traffic) = connection.traffic else { return false };
    // What is sent and not confirmed is no reason to wait: a confirmation may take 40 ms, and a closed socket goes on
    // sending.
    let unsent = traffic.unsent.unwrap_or(connection.unconfirmed);
    if connection.state != State::Established || connection.unread > 0 || unsent > 0 {
        return false;
    }
    let quiet = connection.quiet();
    // The last time is the shortest.
    let ends_with_answer = traffic.last_sent < traffic.last_received;
    let is_confirmed = traffic.last_sent == traffic.last_received
        && traffic.last_confirmed < traffic.last_received;
    if !ends_with_answer && !is_confirmed {
        return traffic.last_sent == traffic.last_received && quiet >= SILENT;
    }
    quiet >= IDLE || which == Which::JustAnswered && traffic.both_spoke && traffic.last_sent <= JUST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(sent: u64, received: u64, confirmed: u64) -> Connection {
        let ms = Duration::from_millis;
        let traffic = Traffic {
            last_sent: ms(sent),
            last_received: ms(received),
            last_confirmed: ms(confirmed),
            unsent: Some(0),
            both_spoke: true,
        };
        Connection {
            inode: 7,
            state: State::Established,
            own: ([127, 0, 0, 1], 80).into(),
            peer: ([127, 0, 0, 1], 4711).into(),
            unread: 0,
            unconfirmed: 90,
            traffic: Some(traffic),
        }
    }

    fn may(connection: Connection) -> (bool, bool) {
        (may_close(&connection, Which::Idle), may_close(&connection, Which::JustAnswered))
    }

    #[test]
    fn what_came_last_decides() {
        for (sent, received, confirmed, idle, just) in [
            // Answered long ago, some time ago, just now.
            (1000, 1004, 1000, true, true),
            (996, 1004, 996, false, false),
            (4, 8, 8, false, true),
            (0, 20, 20, false, true),
            (8, 20, 8, false, false),
            // A request came last, and is being worked at.
            (1008, 1004, 1004, false, false),
            (90_000, 80_000, 80_000, false, false),
            (8, 0, 0, false, false),
            // Nobody knows which …
            (4000, 4000, 4000, false, false),
            (0, 0, 0, false, false),
            // … but the client has had something since it spoke last.
            (1000, 1000, 960, true, true),
            (4, 4, 0, false, true),
            // Silent for very long.
            (5000, 5000, 5000, true, true),
        ] {
            let found = may(connection(sent, received, confirmed));
            assert_eq!(found, (idle, just), "{sent} {received} {confirmed}");
        }
    }

    #[test]
    fn nothing_may_be_on_its_way() {
        let idle = connection(2000, 2400, 2000);
        let traffic = idle.traffic.unwrap();
        let none = (false, false);
        assert_eq!(may(idle), (true, true));
        assert_eq!(may(Connection { unread: 1, ..idle }), none);
        assert_eq!(may(Connection { state: State::CloseWait, ..idle }), none);
        assert_eq!(may(Connection { traffic: None, ..idle }), none);
        let unsent = |unsent| Some(Traffic { unsent, ..traffic });
        assert_eq!(may(Connection { traffic: unsent(Some(1)), ..idle }), none);
        // An older kernel does not tell what is not sent: then all is to be confirmed.
        assert_eq!(may(Connection { traffic: unsent(None), ..idle }), none);
        let confirmed = Connection { traffic: unsent(None), unconfirmed: 0, ..idle };
        assert_eq!(may(confirmed), (true, true));
    }

    #[test]
    fn who_was_never_asked_has_not_just_answered() {
        let fresh = connection(0, 4, 0);
        let traffic = fresh.traffic.map(|traffic| Traffic { both_spoke: false, ..traffic });
        assert_eq!(may(Connection { traffic, ..fresh }), (false, false));
    }
}
