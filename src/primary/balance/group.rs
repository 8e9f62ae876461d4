//! The sockets of one listener, a lane each, and what makes the kernel pick among them: a program with a table in memory
//! that both of us see; where we may not load one, a classic program that is attached anew at each change.

use super::super::listeners::{Listener, Socket};
use crate::config::values::Steer;
use crate::core::{Lane, MAX_LANES};
use crate::protocol::diag::{self, Family, State};
use crate::protocol::steering::{
    self, BLOCK, ClassicPick, Pick, STILL, UNSTEERED, classic, connections, program, stores,
};
use crate::sys::bpf::{self, Maps};
use crate::sys::{diag as netlink, socket, tcp};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

/// One listener whose connections are steered.
#[derive(Debug)]
pub(super) struct Group {
    /// Its position among the listeners.
    pub(super) at: usize,
    /// Its number in the FD store.
    pub(super) key: u16,
    pub(super) is_datagram: bool,
    pub(super) sockets: Vec<Socket>,
    means: Means,
}

/// What steers.
#[derive(Debug)]
enum Means {
    Program(Maps),
    Classic,
}

/// Why the best means is not used, and what to do about it.
#[derive(Debug)]
pub(super) struct Lesser {
    pub(super) why: String,
    pub(super) hint: Option<&'static str>,
}

/// Makes the kernel steer the connections of a listener, with what the last primary used for that. Says why it is not the
/// program if it is not. `is_first` says that there is no primary before this one.
///
/// # Errors
/// Why it cannot at all.
pub(super) fn begin(
    (at, key): (usize, u16),
    listener: &Listener,
    carried: Option<(OwnedFd, OwnedFd)>,
    is_first: bool,
) -> Result<(Group, Option<Lesser>), Lesser> {
    let sockets = listener.sockets.clone();
    let is_datagram = socket::is_datagram(&sockets[0].fd).unwrap_or(false);
    let group = |means| Group { at, key, is_datagram, sockets: sockets.clone(), means };
    if let Some(maps) = carried.and_then(|carried| resumed(carried, &sockets)) {
        return Ok((group(Means::Program(maps)), None));
    }
    let lesser = match with_program(&sockets) {
        Ok(maps) => return Ok((group(Means::Program(maps)), None)),
        Err(lesser) => lesser,
    };
    // What steered for the last primary goes on: where its workers are is not known yet.
    if !is_first {
        return Ok((group(Means::Classic), Some(lesser)));
    }
    // The members are told apart by the order in which they were bound, and somebody else's may be among them.
    let strangers = strangers(&sockets).unwrap_or(0);
    if strangers > 0 {
        let why = format!(
            "{}; without it the sockets at an address are told apart by their order, and {strangers} there are not ours",
            lesser.why
        );
        return Err(Lesser { why, ..lesser });
    }
    // All on one lane, and on one where the first worker will be looked for.
    let waits = |socket: &Socket| tcp::queue_length(&socket.fd).is_ok_and(|length| length > 0);
    let lane = sockets.iter().position(waits).and_then(|at| u8::try_from(at).ok());
    let first = classic(ClassicPick::Random, &[lane.unwrap_or(0)]);
    match put_in_order(&sockets).and_then(|()| bpf::attach_classic(&sockets[0].fd, &first)) {
        Ok(()) => Ok((group(Means::Classic), Some(lesser))),
        Err(e) => {
            Err(Lesser { why: format!("{}; attaching a classic one: {e}", lesser.why), ..lesser })
        }
    }
}

/// Goes on with the maps of the last primary, if these are their sockets.
fn resumed((lanes, table): (OwnedFd, OwnedFd), sockets: &[Socket]) -> Option<Maps> {
    let maps = Maps::resume(lanes, table, steering::MAX_LANES, BLOCK).ok()?;
    for (lane, socket) in (0..).zip(sockets) {
        match maps.holds(lane, &socket.fd) {
            Ok(true) => {}
            // It was shut down, or made after this was last written.
            Ok(false) => socket.wake().and_then(|()| maps.put(lane, &socket.fd)).ok()?,
            Err(_) => return None,
        }
    }
    Some(maps)
}

fn with_program(sockets: &[Socket]) -> Result<Maps, Lesser> {
    let step = |what: &'static str| {
        move |e: io::Error| Lesser { why: format!("{what}: {e}"), hint: hint(&e) }
    };
    let maps = Maps::new(steering::MAX_LANES, BLOCK).map_err(step("making a map"))?;
    let words = program(maps.sockets().as_raw_fd(), maps.control().as_raw_fd());
    let loaded = bpf::load(&words, "dogwatch").map_err(step("loading a program"))?;
    // Before the sockets are put: those that lie in another map of ours leave it with the program before this one.
    bpf::attach(&sockets[0].fd, &loaded).map_err(step("attaching a program"))?;
    for (lane, socket) in (0..).zip(sockets) {
        let put = socket.wake().and_then(|()| put_patiently(&maps, lane, socket));
        put.map_err(step("putting a socket into a map"))?;
    }
    Ok(maps)
}

/// The kernel counts them in the order in which they began to listen. Where one was shut down meanwhile, all but the first
/// begin anew.
fn put_in_order(sockets: &[Socket]) -> io::Result<()> {
    let mut each = sockets.iter().map(|socket| socket::is_listening(&socket.fd));
    if each.all(|listens| listens.unwrap_or(false)) {
        return Ok(());
    }
    let mut others = sockets.iter().skip(1);
    others.clone().for_each(|socket| drop(socket::close_down(&socket.fd)));
    others.try_for_each(|socket| socket::listen_again(&socket.fd))
}

/// The maps of a program that was replaced are gone a moment later.
fn put_patiently(maps: &Maps, lane: u32, socket: &Socket) -> io::Result<()> {
    const TRIES: u32 = 200;
    const A_MOMENT: Duration = Duration::from_millis(1);
    for _ in 0..TRIES {
        match maps.put(lane, &socket.fd) {
            #[expect(
                clippy::disallowed_methods,
                reason = "nobody serves yet, and nothing tells when"
            )]
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(A_MOMENT),
            done => return done,
        }
    }
    maps.put(lane, &socket.fd)
}

fn hint(error: &io::Error) -> Option<&'static str> {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)).then_some(
        "say AmbientCapabilities=CAP_BPF, CapabilityBoundingSet=CAP_BPF and SystemCallFilter=bpf in the unit; it is dropped \
         as soon as the program is loaded",
    )
}

/// Counts the listening sockets at our address that are not ours.
fn strangers(sockets: &[Socket]) -> io::Result<usize> {
    let Some(own) = socket::own_address(&sockets[0].fd)? else { return Ok(0) };
    let ours: BTreeSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
    let listening = listening_at(own)?;
    Ok(listening.iter().filter(|inode| !ours.contains(inode)).count())
}

/// The inodes of the sockets that listen at an address.
fn listening_at(address: SocketAddr) -> io::Result<Vec<u64>> {
    let mut found = vec![];
    let question = diag::request(Family::of(&address), address.port(), &[State::Listening]);
    netlink::ask(&question, |piece| diag::read(piece, &mut found) != diag::Next::More)?;
    let here = found.iter().filter(|listener| listener.own == address);
    Ok(here.map(|listener| listener.inode).collect())
}

impl Group {
    /// Whether a change is a store, and queues can be moved.
    pub(super) fn has_program(&self) -> bool {
        matches!(self.means, Means::Program(_))
    }

    /// Counts the listening sockets at our address that are not ours; those of streams.
    pub(super) fn strangers(&self) -> usize {
        if self.is_datagram { 0 } else { strangers(&self.sockets).unwrap_or(0) }
    }

    /// Returns the maps, for the next primary.
    pub(super) fn maps(&self) -> Option<&Maps> {
        match &self.means {
            Means::Program(maps) => Some(maps),
            Means::Classic => None,
        }
    }

    /// A lane more.
    ///
    /// # Errors
    /// As bpf(2).
    pub(super) fn add(&mut self, socket: Socket) -> io::Result<()> {
        if let Means::Program(maps) = &self.means {
            maps.put(u32::try_from(self.sockets.len()).unwrap_or(u32::MAX), &socket.fd)?;
        }
        self.sockets.push(socket);
        Ok(())
    }

    /// Puts a table in force: one of turns, or one of clients, as the policy and the kind of socket want it.
    ///
    /// # Errors
    /// As setsockopt(2), for a classic program.
    pub(super) fn write(
        &self,
        steer: Steer,
        in_turn: &[Lane],
        by_client: &[Lane],
    ) -> io::Result<()> {
        let bytes = |table: &[Lane]| -> Vec<u8> {
            table.iter().map(|lane| u8::try_from(lane.0).unwrap_or(u8::MAX)).collect()
        };
        // The datagrams of one client are one conversation.
        let is_turn = steer != Steer::ClientIp && !self.is_datagram;
        let table = bytes(if is_turn { in_turn } else { by_client });
        match &self.means {
            Means::Program(maps) => {
                let pick = match steer {
                    Steer::ClientIp => Pick::ClientIp,
                    Steer::RoundRobin | Steer::LeastConnections if self.is_datagram => Pick::Flow,
                    Steer::RoundRobin => Pick::RoundRobin,
                    Steer::LeastConnections => Pick::LeastConnections,
                };
                for (offset, word) in stores(pick, &table) {
                    maps.store_u32(offset, word);
                }
                Ok(())
            }
            Means::Classic => {
                let pick = if is_turn { ClassicPick::Random } else { ClassicPick::ClientIp };
                bpf::attach_classic(&self.sockets[0].fd, &classic(pick, &table))
            }
        }
    }

    /// Returns how many connections wait on a lane.
    pub(super) fn queue(&self, lane: Lane) -> u32 {
        let socket = self.sockets.get(usize::from(lane.0)).filter(|_| !self.is_datagram);
        socket.and_then(|socket| tcp::queue_length(&socket.fd).ok()).unwrap_or(0)
    }

    /// Returns how many connections a lane was given, ever.
    pub(super) fn taken(&self, lane: Lane) -> Option<u64> {
        self.maps()?.load_u64(steering::taken(byte(lane)))
    }

    /// Returns how many connections found no lane in the table, and went anywhere.
    pub(super) fn unsteered(&self) -> Option<u64> {
        self.maps()?.load_u64(UNSTEERED)
    }

    /// Tells the program how many connections a lane has.
    pub(super) fn count(&self, lane: Lane, open: u32) {
        if let Some(maps) = self.maps() {
            maps.store_u32(connections(byte(lane)), open);
        }
    }

    /// Moves what waits on a lane to the lanes of the table, of which it is to be none: a listener that is shut down gives
    /// its queue to the one that the program picks (`BPF_SK_REUSEPORT_SELECT_OR_MIGRATE`), and then it listens again.
    /// Whoever is in accept(2) meanwhile gets EINVAL.
    ///
    /// # Errors
    /// As shutdown(2), listen(2) and bpf(2).
    pub(super) fn move_queue(&self, lane: Lane) -> io::Result<()> {
        let (Means::Program(maps), false) = (&self.means, self.is_datagram) else { return Ok(()) };
        let Some(socket) = self.sockets.get(usize::from(lane.0)) else { return Ok(()) };
        // Before Linux 5.19 whoever has given up the right may not put it back.
        if maps.holds(lane.0.into(), &socket.fd).is_err() {
            return Ok(());
        }
        socket::close_down(&socket.fd)?;
        self.listen(lane)
    }

    /// A lane that was shut down listens again.
    ///
    /// # Errors
    /// As listen(2) and bpf(2).
    pub(super) fn listen(&self, lane: Lane) -> io::Result<()> {
        let (Means::Program(maps), false) = (&self.means, self.is_datagram) else { return Ok(()) };
        let Some(socket) = self.sockets.get(usize::from(lane.0)) else { return Ok(()) };
        socket::listen_again(&socket.fd)?;
        if maps.holds(lane.0.into(), &socket.fd)? {
            return Ok(());
        }
        maps.put(lane.0.into(), &socket.fd)
    }

    /// Notes whom we hold still; 0 for nobody.
    pub(super) fn note_still(&self, pid: i32) {
        if let Some(maps) = self.maps() {
            maps.store_u32(STILL, pid.cast_unsigned());
        }
    }

    pub(super) fn held_still(&self) -> Option<i32> {
        let pid = self.maps()?.load_u32(STILL)?.cast_signed();
        (pid > 1).then_some(pid)
    }
}

fn byte(lane: Lane) -> u8 {
    const _: () = assert!(MAX_LANES as u32 == steering::MAX_LANES);
    u8::try_from(lane.0).unwrap_or(u8::MAX)
}
