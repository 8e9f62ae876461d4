//! The listeners: adopted from systemd, taken back from the last primary or opened here, and never closed while the app
//! lives.

use crate::config::Settings;
use crate::config::values::{Address, Handoff};
use crate::protocol::node::Place;
use crate::sys::socket;
use std::collections::BTreeSet;
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
    /// Returns the sockets that systemd passed, else those that the last primary had opened, else opens the addresses; there
    /// may be none for workers on a channel. Sets `O_NONBLOCK` as the workers want it, once: systemd sets or clears it at
    /// each start of the service, and live workers share it. The names of those where it was otherwise are returned.
    ///
    /// # Errors
    /// One line: which listener, why, and what to do.
    pub(super) fn obtain(
        settings: &Settings,
        passed: Vec<Listener>,
        carried: Vec<Listener>,
    ) -> Result<(Self, Vec<String>), String> {
        let adopted = !passed.is_empty();
        let all = match (adopted, carried.is_empty()) {
            (true, _) => passed,
            (false, false) => carried,
            (false, true) => open(&settings.listen)?,
        };
        // Over the channel, programs ask for what they need.
        if all.is_empty() && settings.handoff == Handoff::Fd {
            return Err("no listener: no socket was passed and no address is named".to_owned());
        }
        let mut mended = vec![];
        for listener in &all {
            let set = socket::set_nonblocking(&listener.fd, !settings.blocking);
            let changed = set.map_err(|e| {
                format!("cannot set the blocking mode of listener '{}': {e}", listener.name)
            })?;
            if changed {
                mended.push(listener.name.clone());
            }
        }
        Ok((Self { adopted, all }, mended))
    }

    /// Returns the names, in the order of the descriptors.
    pub(super) fn names(&self) -> Vec<&str> {
        self.all.iter().map(|listener| listener.name.as_str()).collect()
    }

    /// Returns the inodes, by which procfs knows them.
    pub(super) fn inodes(&self) -> BTreeSet<u64> {
        self.all.iter().map(|listener| listener.inode).collect()
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
