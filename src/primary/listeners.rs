//! The listeners: adopted from systemd, taken back from the last primary or opened here, and never closed while the app
//! lives. Where workers are steered, a listener has a socket for each lane; else one that all share.

use super::channel::Local;
use crate::config::Settings;
use crate::config::values::{Address, Handoff};
use crate::core::{Lane, MAX_LANES};
use crate::protocol::node::Place;
use crate::protocol::store::Name;
use crate::sys::socket::{self, Port};
use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// One socket of a listener.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    pub(super) fd: Arc<OwnedFd>,
    /// By which procfs knows it.
    pub(super) inode: u64,
    /// We have opened it: it is not systemd that passes it to the next primary.
    pub(super) is_own: bool,
    /// Its number in the FD store, where it comes from there.
    number: Option<u16>,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd, is_own: bool) -> io::Result<Self> {
        let inode = socket::inode(&fd)?;
        Ok(Self { fd: Arc::new(fd), inode, is_own, number: None })
    }

    /// Has it listen again, if it was shut down.
    pub(super) fn wake(&self) -> io::Result<()> {
        if socket::is_listening(&self.fd)? { Ok(()) } else { socket::listen_again(&self.fd) }
    }

    /// One that the last primary had opened.
    pub(super) fn stored(fd: OwnedFd, number: u16) -> io::Result<Self> {
        Ok(Self { number: Some(number), ..Self::new(fd, true)? })
    }
}

/// A listening socket with its name in `LISTEN_FDNAMES`, or several of one address.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) name: String,
    /// The one that all workers share, or one for each lane.
    pub(super) sockets: Vec<Socket>,
    /// The file of a unix socket that we made, and remove at the end. What was passed to us is never unlinked.
    pub(super) own_path: Option<PathBuf>,
}

impl Listener {
    pub(super) fn new(name: String, socket: Socket, own_path: Option<PathBuf>) -> Self {
        Self { name, sockets: vec![socket], own_path }
    }

    /// Whether they share a name and an address, so that they are lanes of one.
    fn is_beside(&self, other: &Self) -> bool {
        let (own, others) = (&self.sockets[0].fd, &other.sockets[0].fd);
        let address = |fd| socket::own_address(fd).ok().flatten();
        self.name == other.name
            && address(own).is_some()
            && address(own) == address(others)
            && socket::is_datagram(own).ok() == socket::is_datagram(others).ok()
    }

    /// Whether each lane has a socket of its own.
    pub(super) fn has_lanes(&self) -> bool {
        self.sockets.len() > 1
    }

    /// Returns the socket of a lane, or the one that all share.
    pub(super) fn on(&self, lane: Option<Lane>) -> &Socket {
        let own = lane.and_then(|lane| self.sockets.get(usize::from(lane.0)));
        own.unwrap_or(&self.sockets[0])
    }

    /// Whether it is a unix socket.
    pub(super) fn is_local(&self) -> bool {
        socket::is_local(&self.sockets[0].fd)
    }

    pub(super) fn address(&self) -> String {
        socket::local_address(&self.sockets[0].fd)
    }
}

/// The listeners of an app.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) all: Vec<Listener>,
    /// They were passed to us; `listen` in the file means nothing then.
    pub(super) adopted: bool,
}

/// What came of obtaining them.
#[derive(Debug)]
pub(super) struct Obtained {
    pub(super) listeners: Listeners,
    /// The names of those whose blocking mode had to be mended.
    pub(super) mended: Vec<String>,
}

impl Listeners {
    /// Returns the sockets that systemd passed, else those that the last primary had opened, else opens the addresses; there
    /// may be none for workers on a channel. Equal ones are the lanes of one listener, whatever is wanted now. Sets `O_NONBLOCK` as the workers want it, once: systemd sets or clears it at
    /// each start of the service, and live workers share it.
    ///
    /// # Errors
    /// One line: which listener, why, and what to do.
    pub(super) fn obtain(
        settings: &Settings,
        passed: Vec<Listener>,
        carried: Vec<Listener>,
    ) -> Result<Obtained, String> {
        let adopted = !passed.is_empty();
        let all = in_lanes(match (adopted, carried.is_empty()) {
            // Lanes that were passed, and more of the same addresses that the last primary made.
            (true, _) => {
                let is_more = |own: &Listener| passed.iter().any(|passed| passed.is_beside(own));
                let more: Vec<_> = carried.into_iter().filter(is_more).collect();
                passed.into_iter().chain(more).collect()
            }
            (false, false) => carried,
            (false, true) => open(&settings.listen, settings.balance.is_steered())?,
        });
        // Over the channel, programs ask for what they need.
        if all.is_empty() && settings.handoff == Handoff::Fd {
            return Err("no listener: no socket was passed and no address is named".to_owned());
        }
        let mut mended = vec![];
        for listener in &all {
            // Others of its sockets may have been shut down too, and that is for those who steer them.
            listener.sockets[0].wake().map_err(|e| {
                format!("cannot have listener '{}' listen again: {e}", listener.name)
            })?;
            for one in &listener.sockets {
                let set = socket::set_nonblocking(&one.fd, !settings.blocking);
                let changed = set.map_err(|e| {
                    format!("cannot set the blocking mode of listener '{}': {e}", listener.name)
                })?;
                if changed && !mended.contains(&listener.name) {
                    mended.push(listener.name.clone());
                }
            }
        }
        Ok(Obtained { listeners: Self { adopted, all }, mended })
    }

    /// Returns the names, in the order of the descriptors.
    pub(super) fn names(&self) -> Vec<&str> {
        self.all.iter().map(|listener| listener.name.as_str()).collect()
    }

    /// Returns the sockets that a worker on this lane serves, in the order of the names.
    pub(super) fn on(&self, lane: Option<Lane>) -> impl Iterator<Item = &Socket> {
        self.all.iter().map(move |listener| listener.on(lane))
    }

    /// Returns the socket of a lane for each listener that has lanes.
    pub(super) fn lanes_on(&self, lane: Option<Lane>) -> Vec<Option<Arc<OwnedFd>>> {
        let own = |listener: &Listener| listener.has_lanes().then(|| listener.on(lane).fd.clone());
        self.all.iter().map(own).collect()
    }

    /// Returns their inodes, by which procfs knows them.
    pub(super) fn inodes(&self, lane: Option<Lane>) -> BTreeSet<u64> {
        self.on(lane).map(|socket| socket.inode).collect()
    }

    /// Returns where connections come to.
    pub(super) fn locals(&self) -> Vec<Local> {
        self.all.iter().filter_map(|listener| Local::of(&listener.on(None).fd).ok()).collect()
    }

    /// Returns the lane of whoever has these sockets.
    pub(super) fn lane_of(&self, inodes: &BTreeSet<u64>) -> Option<Lane> {
        let steered = self.all.iter().filter(|listener| listener.has_lanes());
        let found = steered.flat_map(|listener| (0..).map(Lane).zip(&listener.sockets));
        let mut found = found.filter(|(_, socket)| inodes.contains(&socket.inode));
        found.next().map(|(lane, _)| lane)
    }

    /// Returns the sockets that were passed to us, with their names.
    pub(super) fn passed(&self) -> impl Iterator<Item = (&str, &Arc<OwnedFd>)> {
        let each = self.all.iter().flat_map(|l| l.sockets.iter().map(move |one| (l, one)));
        each.filter(|(_, one)| !one.is_own).map(|(listener, one)| (listener.name.as_str(), &one.fd))
    }

    /// Returns the sockets that we have opened, with their names in the FD store: by lanes, so that more of these change no
    /// name, sorted by them they are in the order in which they were bound, and [`fill_gaps`] knows which is lost.
    pub(super) fn own(&self) -> impl Iterator<Item = (Name, &Arc<OwnedFd>)> {
        let each = self.all.iter().enumerate().flat_map(|(at, listener)| {
            listener
                .sockets
                .iter()
                .enumerate()
                .map(move |(lane, socket)| (at, listener, lane, socket))
        });
        each.filter(|(.., socket)| socket.is_own).map(|(at, listener, lane, socket)| {
            let number = u16::try_from(lane * self.all.len() + at).unwrap_or(u16::MAX);
            (Name::Listener(number, listener.name.clone()), &socket.fd)
        })
    }

    /// Returns names and addresses for people.
    pub(super) fn describe(&self) -> String {
        if self.all.is_empty() {
            return "what the workers ask for".to_owned();
        }
        let one = |listener: &Listener| {
            let times = match listener.sockets.len() {
                1 => String::new(),
                lanes => format!(" ({lanes} lanes)"),
            };
            format!("'{}' {}{times}", listener.name, listener.address())
        };
        self.all.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// Returns the names, each with its address as people write it.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&str, String)> {
        self.all.iter().map(|listener| (listener.name.as_str(), listener.address()))
    }

    /// Removes the files of the unix sockets that we made.
    pub(super) fn remove_own_files(&self) {
        for path in self.all.iter().filter_map(|listener| listener.own_path.as_ref()) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What can be had of sockets at one address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// As many as are wanted.
    Enough,
    /// It cannot share its address, for this reason.
    None(&'static str),
    /// There are some, and no more can be opened, for this reason.
    Short(String),
}

impl Listener {
    /// Opens more sockets at the same address until there are so many.
    pub(super) fn grow(&mut self, wanted: u16, blocking: bool) -> Growth {
        let first = &self.sockets[0].fd;
        if self.is_local() {
            return Growth::None("it is a unix socket, which cannot share its address");
        }
        if socket::port(first).ok() != Some(Port::Reused) {
            return Growth::None("it does not share its address (SO_REUSEPORT)");
        }
        while self.sockets.len() < usize::from(wanted) {
            let joined = socket::join(&self.sockets[0].fd).and_then(|fd| {
                socket::set_nonblocking(&fd, !blocking)?;
                Socket::new(fd, true)
            });
            match joined {
                Ok(socket) => self.sockets.push(socket),
                Err(e) => return Growth::Short(e.to_string()),
            }
        }
        Growth::Enough
    }

    /// All workers share its first socket. The others would be given connections that nobody takes.
    pub(super) fn give_up_lanes(&mut self) {
        for socket in self.sockets.drain(1..) {
            let _ = socket::close_down(&socket.fd);
        }
    }
}

/// Puts together what shares a name and an address.
fn in_lanes(all: Vec<Listener>) -> Vec<Listener> {
    let mut grouped: Vec<Listener> = Vec::new();
    for listener in all {
        let shares = socket::port(&listener.sockets[0].fd).ok() == Some(Port::Reused);
        let same = grouped.iter_mut().find(|known| shares && known.is_beside(&listener));
        match same {
            Some(known) => known.sockets.extend(listener.sockets),
            None => grouped.push(listener),
        }
    }
    let count = grouped.len();
    grouped.iter_mut().for_each(|listener| fill_gaps(listener, count));
    grouped
}

/// Opens a lane anew that the FD store has lost, so that those after it keep their numbers, by which others know them.
fn fill_gaps(listener: &mut Listener, listeners: usize) {
    let mut whole: Vec<Socket> = vec![];
    for socket in std::mem::take(&mut listener.sockets) {
        let lane = socket.number.map_or(0, |number| usize::from(number) / listeners);
        while whole.len() < lane.min(MAX_LANES.into()) {
            let opened = socket::join(&socket.fd).and_then(|fd| Socket::new(fd, true));
            let Ok(opened) = opened else { break };
            whole.push(opened);
        }
        whole.push(socket);
    }
    listener.sockets = whole;
}

/// What to do about an address that is in use.
pub(super) fn who_has_it() -> &'static str {
    "'ss -ltnp' shows which program has it; an app that is still under PM2 gives it back with 'pm2 delete APP'"
}

/// Opens a socket that a program asks for over its channel, as Node's own primary would.
///
/// # Errors
/// As socket(2), bind(2) and listen(2).
pub(super) fn open_place(place: &Place, only_v6: bool) -> io::Result<OwnedFd> {
    match place {
        Place::Tcp { address, port } => {
            let address = address.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
            let dual = address == Ipv6Addr::UNSPECIFIED && !only_v6;
            socket::listen_tcp(SocketAddr::new(address, *port), dual, Port::Own)
        }
        Place::Udp { address, port } => {
            socket::bind_udp(SocketAddr::new(*address, *port), Port::Own)
        }
        Place::Path(path) => socket::listen_unix(path.as_ref()),
        Place::Fd(_) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn open(addresses: &[Address], is_steered: bool) -> Result<Vec<Listener>, String> {
    let port = if is_steered { Port::Reused } else { Port::Own };
    let mut listeners: Vec<Listener> = Vec::new();
    for address in addresses {
        let cannot = |e: io::Error| format!("cannot listen on '{address}': {e}");
        let fd = match address {
            Address::Port(_) | Address::Tcp(_) => {
                let tcp = address.tcp().expect("these two are TCP addresses");
                refuse_taken(tcp, is_steered, true).and_then(|()| {
                    socket::listen_tcp(tcp, matches!(address, Address::Port(_)), port)
                })
            }
            Address::Udp(udp) => {
                refuse_taken(*udp, is_steered, false).and_then(|()| socket::bind_udp(*udp, port))
            }
            Address::Unix(path) => socket::listen_unix(path),
        };
        let own_path = match address {
            Address::Unix(path) => Some(path.clone()),
            Address::Port(_) | Address::Tcp(_) | Address::Udp(_) => None,
        };
        let socket = fd.and_then(|fd| Socket::new(fd, true)).map_err(cannot)?;
        listeners.push(Listener::new(address.name(), socket, own_path));
    }
    Ok(listeners)
}

/// Where addresses are shared, another app of the same user would not be noticed, and each would take connections of the
/// other.
fn refuse_taken(address: SocketAddr, is_steered: bool, is_stream: bool) -> io::Result<()> {
    if !is_steered || address.port() == 0 {
        return Ok(());
    }
    socket::refuse_taken(address, is_stream)
}
