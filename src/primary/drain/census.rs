//! Who has which connections. The kernel tells of every connection at a port with its socket's inode, and procfs which
//! process has a descriptor of that inode. Neither needs a privilege, but for a process that we may not look into.

use super::super::channel::Local;
use super::super::ready::{MAX_PROCESSES, family_of};
use crate::protocol::diag::{Connection, Family, Next, State, read, request};
use crate::protocol::procfs;
use crate::sys::diag;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// The connections at some sockets, whoever has them.
#[derive(Debug, Default)]
pub(in super::super) struct Rows {
    /// All of TCP, handshakes too if they were asked for.
    pub(in super::super) tcp: Vec<Connection>,
    /// The inodes of those at unix sockets; 0 for one that nobody has accepted.
    pub(in super::super) unix: Vec<u64>,
}

/// Returns the connections at these sockets in these states, by one look at each port. A look takes the kernel through all
/// connections of the machine.
///
/// # Errors
/// As socket(2) and recv(2), and what the kernel answers: `ENOENT` without the module `tcp_diag`.
pub(in super::super) fn rows(locals: &[Local], states: &[State]) -> io::Result<Rows> {
    let (mut ports, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for local in locals {
        match local {
            Local::Tcp(address) => drop(ports.insert((Family::of(address), address.port()))),
            Local::Unix(path) => drop(path.to_str().map(|path| paths.insert(path))),
            // There are no connections.
            Local::Udp(_) | Local::Other => {}
        }
    }
    let mut rows = Rows::default();
    for (family, port) in ports {
        let mut next = Next::More;
        diag::ask(&request(family, port, states), |piece| {
            next = read(piece, &mut rows.tcp);
            next != Next::More
        })?;
        if let Next::Failed(errno) = next {
            return Err(io::Error::from_raw_os_error(errno));
        }
    }
    if !paths.is_empty() {
        let table = std::fs::read("/proc/self/net/unix")?;
        let table = String::from_utf8_lossy(&table);
        rows.unix = procfs::connected(&table, |path| paths.contains(path));
    }
    Ok(rows)
}

/// A descriptor of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Socket {
    /// The process that has it.
    pub(in super::super) pid: i32,
    /// Its number there.
    pub(in super::super) number: i32,
    pub(in super::super) inode: u64,
}

/// The sockets of a process and its descendants.
#[derive(Debug, Default)]
pub(in super::super) struct Sockets {
    pub(in super::super) found: Vec<Socket>,
    /// Why those of one of the processes cannot be seen: `EACCES` for one that is another user's, or not dumpable.
    pub(in super::super) hidden: Option<io::Error>,
}

/// Returns the sockets that a process and its descendants have; none of a process that is gone.
pub(in super::super) fn sockets_of(pid: i32) -> Sockets {
    let mut sockets = Sockets::default();
    let family = family_of(pid);
    if family.len() >= MAX_PROCESSES {
        sockets.hidden =
            Some(io::Error::other(format!("it has {MAX_PROCESSES} processes or more")));
    }
    for pid in family {
        if let Err(e) = add_sockets(pid, &mut sockets.found)
            && !is_gone(&e)
        {
            sockets.hidden.get_or_insert(e);
        }
    }
    sockets
}

fn add_sockets(pid: i32, found: &mut Vec<Socket>) -> io::Result<()> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // One may list the numbers of a process that has more capabilities than we, and not read what they are.
        let link = match std::fs::read_link(entry.path()) {
            Err(e) if is_gone(&e) => continue,
            link => link?,
        };
        let number = entry.file_name().to_string_lossy().parse();
        if let (Some(inode), Ok(number)) = (procfs::socket_inode(&link.to_string_lossy()), number) {
            found.push(Socket { pid, number, inode });
        }
    }
    Ok(())
}

/// Whether a process has ended, or closed a descriptor, while it was looked at.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// What connections one worker has.
#[derive(Debug, Default)]
pub(in super::super) struct Own {
    /// Each once, with a descriptor of it.
    pub(in super::super) tcp: Vec<(Connection, Socket)>,
    /// How many at unix sockets.
    pub(in super::super) unix: usize,
    /// Why not all of them can be known.
    pub(in super::super) hidden: Option<io::Error>,
}

impl Own {
    /// Returns how many there are.
    pub(in super::super) fn len(&self) -> usize {
        self.tcp.len() + self.unix
    }
}

impl Rows {
    /// Returns which of these a process and its descendants have. What was accepted before these rows were read is seen;
    /// so the processes are to be looked at after, as here, not before.
    pub(in super::super) fn of(&self, pid: i32) -> Own {
        if self.tcp.is_empty() && self.unix.is_empty() {
            return Own::default();
        }
        let Sockets { found, hidden } = sockets_of(pid);
        let mut held: BTreeMap<u64, Socket> =
            found.into_iter().map(|socket| (socket.inode, socket)).collect();
        // Nobody's.
        held.remove(&0);
        let tcp = self.tcp.iter().filter_map(|row| Some((*row, *held.get(&row.inode)?)));
        let unix = self.unix.iter().filter(|inode| held.contains_key(inode));
        Own { tcp: tcp.collect(), unix: unix.count(), hidden }
    }
}
