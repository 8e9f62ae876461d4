//! Which of our listeners a program means that calls `listen()`: pure, but for
//! asking a socket where it is. The port decides; the address chooses among
//! listeners of one port. Where a listener serves is the administrator's choice, so a program that asks for one address is
//! given a listener on all of them, never one on another single address.

use crate::protocol::node::Place;
use crate::sys::socket;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Where a listener of ours is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Local {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    Unix(PathBuf),
    /// Nothing that `listen()` can name, but by its descriptor.
    Other,
}

impl Local {
    /// Returns where a socket is.
    ///
    /// # Errors
    /// As getsockname(2) and getsockopt(2).
    pub(in super::super) fn of(fd: &impl AsFd) -> io::Result<Self> {
        let is_datagram = socket::is_datagram(fd)?;
        Ok(match (socket::own_address(fd)?, socket::own_path(fd)) {
            (Some(address), _) if is_datagram => Self::Udp(address),
            (Some(address), _) => Self::Tcp(address),
            (None, Some(path)) if !is_datagram => Self::Unix(path),
            (None, _) => Self::Other,
        })
    }
}

/// The first descriptor of a passed socket (`sd_listen_fds(3)`).
const FIRST_FD: i32 = 3;

/// Returns which listener a program means.
pub(super) fn find(listeners: &[Local], place: &Place) -> Option<usize> {
    match place {
        Place::Fd(fd) => {
            let at = usize::try_from(fd.checked_sub(FIRST_FD)?).ok()?;
            (at < listeners.len()).then_some(at)
        }
        Place::Path(path) => listeners
            .iter()
            .position(|local| matches!(local, Local::Unix(known) if known == Path::new(path))),
        Place::Tcp { address, port } => best(listeners, |local| match local {
            Local::Tcp(known) if known.port() == *port => fit(known.ip(), *address),
            Local::Tcp(_) | Local::Udp(_) | Local::Unix(_) | Local::Other => None,
        }),
        Place::Udp { address, port } => best(listeners, |local| match local {
            Local::Udp(known) if known.port() == *port => fit(known.ip(), Some(*address)),
            Local::Tcp(_) | Local::Udp(_) | Local::Unix(_) | Local::Other => None,
        }),
    }
}

/// The first of those that fit best.
fn best(listeners: &[Local], fit: impl Fn(&Local) -> Option<u8>) -> Option<usize> {
    let fitting = listeners.iter().enumerate().filter_map(|(at, local)| Some((fit(local)?, at)));
    fitting.min().map(|(_, at)| at)
}

/// How well a listener's address fits the one that is asked for; 0 is best.
fn fit(known: IpAddr, asked: Option<IpAddr>) -> Option<u8> {
    match asked {
        Some(asked) if known == asked => Some(0),
        // Whoever asks for all addresses is content with those that there are.
        None => Some(rank(known)),
        Some(asked) if asked.is_unspecified() => Some(rank(known)),
        Some(asked) if known.is_unspecified() => {
            Some(if asked.is_ipv4() == known.is_ipv4() { 1 } else { 2 })
        }
        // 'localhost' is one of the two, and who knows which.
        Some(asked) if asked.is_loopback() && known.is_loopback() => Some(3),
        Some(_) => None,
    }
}

fn rank(known: IpAddr) -> u8 {
    match (known.is_unspecified(), known.is_ipv6()) {
        (true, true) => 1,
        (true, false) => 2,
        (false, _) => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str, port: u16) -> Place {
        Place::Tcp { address: address.parse().ok(), port }
    }

    fn local(text: &str) -> Local {
        match text.split_once(' ') {
            Some(("udp", address)) => Local::Udp(address.parse().unwrap()),
            Some(("unix", path)) => Local::Unix(path.into()),
            _ => Local::Tcp(text.parse().unwrap()),
        }
    }

    #[test]
    fn the_port_decides_and_the_address_chooses() {
        let all: Vec<Local> =
            ["[::]:80", "0.0.0.0:81", "127.0.0.1:81", "10.0.0.5:82", "[::1]:83", "udp [::]:80"]
                .map(local)
                .into();
        for (asked, port, expected) in [
            ("", 80, Some(0)),
            ("0.0.0.0", 80, Some(0)),
            ("127.0.0.1", 80, Some(0)),
            ("", 81, Some(1)),
            ("::", 81, Some(1)),
            ("127.0.0.1", 81, Some(2)),
            ("192.168.0.1", 81, Some(1)),
            ("", 82, Some(3)),
            ("127.0.0.1", 82, None),
            ("10.0.0.6", 82, None),
            ("127.0.0.1", 83, Some(4)),
            ("", 84, None),
        ] {
            assert_eq!(find(&all, &tcp(asked, port)), expected, "{asked}:{port}");
        }
        let udp = Place::Udp { address: "127.0.0.1".parse().unwrap(), port: 80 };
        assert_eq!(find(&all, &udp), Some(5));
    }

    #[test]
    fn descriptors_count_from_three_and_paths_are_whole() {
        let all = [local("[::]:80"), local("unix /run/a.sock"), Local::Other];
        assert_eq!(find(&all, &Place::Fd(3)), Some(0));
        assert_eq!(find(&all, &Place::Fd(5)), Some(2));
        for fd in [-1, 0, 2, 6, i32::MIN, i32::MAX] {
            assert_eq!(find(&all, &Place::Fd(fd)), None);
        }
        assert_eq!(find(&all, &Place::Path("/run/a.sock".to_owned())), Some(1));
        assert_eq!(find(&all, &Place::Path("/run/b.sock".to_owned())), None);
    }
}
