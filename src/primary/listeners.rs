//! The listeners: adopted from systemd or opened here, and never closed while the app lives.
//!
//! libsystemd reads their names and listenfd takes the descriptors; each looks at the kind of the socket, so that a
//! stray descriptor is refused by name instead of being given to every worker.

use crate::config::Settings;
use crate::config::values::{Address, Handoff};
use crate::protocol::node::Place;
use crate::sys::socket;
use libsystemd::activation;
use listenfd::ListenFd;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// A listening socket with its name in `LISTEN_FDNAMES`.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) fd: OwnedFd,
    /// By which procfs knows it.
    pub(super) inode: u64,
    /// The file of a unix socket that we made, and remove at the end. What was passed to us is never unlinked.
    pub(super) own_path: Option<PathBuf>,
}

/// The listeners of an app.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) all: Vec<Listener>,
    /// They were passed to us; `listen` in the file means nothing then.
    pub(super) adopted: bool,
}

impl Listeners {
    /// Returns the sockets that systemd passed, else opens the addresses; there may be none for workers on a channel. Sets `O_NONBLOCK` as the workers want it,
    /// once: systemd sets or clears it at each start of the service, and live workers share it.
    ///
    /// # Errors
    /// One line: which listener, why, and what to do.
    pub(super) fn obtain(settings: &Settings) -> Result<Self, String> {
        let (addresses, blocking) = (&settings.listen, settings.blocking);
        let adopted = adopt()?;
        let listeners = Self {
            adopted: !adopted.is_empty(),
            all: if adopted.is_empty() { open(addresses)? } else { adopted },
        };
        // Over the channel, programs ask for what they need.
        if listeners.all.is_empty() && settings.handoff == Handoff::Fd {
            return Err("no listener: no socket was passed and no address is named".to_owned());
        }
        for listener in &listeners.all {
            let set = socket::set_nonblocking(&listener.fd, !blocking);
            set.map_err(|e| {
                format!("cannot set the blocking mode of listener '{}': {e}", listener.name)
            })?;
        }
        Ok(listeners)
    }

    /// Returns the names, in the order of the descriptors.
    pub(super) fn names(&self) -> Vec<&str> {
        self.all.iter().map(|listener| listener.name.as_str()).collect()
    }

    /// Returns names and addresses for people.
    pub(super) fn describe(&self) -> String {
        if self.all.is_empty() {
            return "what the workers ask for".to_owned();
        }
        let one = |(name, address)| format!("'{name}' {address}");
        self.addresses().map(one).collect::<Vec<_>>().join(", ")
    }

    /// Returns the names, each with its address as people write it.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&str, String)> {
        self.all.iter().map(|l| (l.name.as_str(), socket::local_address(&l.fd)))
    }

    /// Removes the files of the unix sockets that we made.
    pub(super) fn remove_own_files(&self) {
        for path in self.all.iter().filter_map(|listener| listener.own_path.as_ref()) {
            let _ = std::fs::remove_file(path);
        }
    }
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
            socket::listen_tcp(SocketAddr::new(address, *port), dual)
        }
        Place::Udp { address, port } => UdpSocket::bind((*address, *port)).map(OwnedFd::from),
        Place::Path(path) => socket::listen_unix(path.as_ref()),
        Place::Fd(_) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn adopt() -> Result<Vec<Listener>, String> {
    let unnamed = std::env::var_os("LISTEN_FDNAMES").is_none();
    let named = activation::receive_descriptors_with_names(false)
        .map_err(|e| format!("cannot adopt the passed sockets: {e}"))?;
    let mut passed = ListenFd::from_env();
    if passed.len() != named.len() && !(unnamed && named.is_empty()) {
        return Err(format!(
            "cannot adopt the passed sockets: {} descriptors with {} names",
            passed.len(),
            named.len()
        ));
    }
    let mut listeners = Vec::new();
    for at in 0..passed.len() {
        // As sd_listen_fds_with_names(3) names what has no name.
        let name = named.get(at).map_or_else(|| "unknown".to_owned(), |(_, name)| name.clone());
        let cannot = |why: &dyn std::fmt::Display| format!("cannot adopt listener '{name}': {why}");
        let fd = take(&mut passed, at)
            .map_err(|e| cannot(&format!("file descriptor {}: {e}", at + 3)))?;
        if !socket::is_listening(&fd).map_err(|e| cannot(&e))? {
            return Err(cannot(&format!("file descriptor {} is not a listening socket", at + 3)));
        }
        let inode = socket::inode(&fd).map_err(|e| cannot(&e))?;
        listeners.push(Listener { name, fd, inode, own_path: None });
    }
    Ok(listeners)
}

/// Takes a TCP or unix stream listener, or a UDP or unix datagram socket. listenfd refuses what is of another kind and
/// keeps it for the next question.
fn take(passed: &mut ListenFd, at: usize) -> io::Result<OwnedFd> {
    if let Ok(Some(socket)) = passed.take_tcp_listener(at) {
        return Ok(socket.into());
    }
    if let Ok(Some(socket)) = passed.take_unix_listener(at) {
        return Ok(socket.into());
    }
    if let Ok(Some(socket)) = passed.take_udp_socket(at) {
        return Ok(socket.into());
    }
    match passed.take_unix_datagram(at)? {
        Some(socket) => Ok(socket.into()),
        None => Err(io::Error::other("nothing there")),
    }
}

fn open(addresses: &[Address]) -> Result<Vec<Listener>, String> {
    let mut listeners: Vec<Listener> = Vec::new();
    for address in addresses {
        let cannot = |e: io::Error| format!("cannot listen on '{address}': {e}");
        let fd = match address {
            Address::Port(_) | Address::Tcp(_) => {
                let tcp = address.tcp().expect("these two are TCP addresses");
                socket::listen_tcp(tcp, matches!(address, Address::Port(_)))
            }
            Address::Udp(udp) => UdpSocket::bind(udp).map(OwnedFd::from),
            Address::Unix(path) => socket::listen_unix(path),
        };
        let own_path = match address {
            Address::Unix(path) => Some(path.clone()),
            Address::Port(_) | Address::Tcp(_) | Address::Udp(_) => None,
        };
        let fd = fd.map_err(cannot)?;
        let inode = socket::inode(&fd).map_err(cannot)?;
        listeners.push(Listener { name: address.name(), fd, inode, own_path });
    }
    Ok(listeners)
}
