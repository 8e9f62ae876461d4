//! Clients, one connection each.

use crate::support::PATIENCE;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, listen, setsockopt,
    socket, sockopt,
};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Who has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) slot: u16,
    pub(crate) pid: i32,
    pub(crate) generation: u32,
}

impl Answer {
    pub(crate) fn of(text: &str) -> Self {
        let words: Vec<&str> = text.split('/').collect();
        let [slot, pid, generation] = words[..] else { panic!("no answer: '{text}'") };
        Self {
            slot: slot.parse().unwrap(),
            pid: pid.parse().unwrap(),
            generation: generation.parse().unwrap(),
        }
    }
}

/// A connection that is kept.
pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).unwrap())
    }

    /// One whose own address is this.
    pub(crate) fn from(own: IpAddr, address: SocketAddr) -> Self {
        let family = if own.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(own, 0))).unwrap();
        connect(fd.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
        Self::of(fd.into())
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Sends a request, and does not wait for the answer.
    pub(crate) fn send(&mut self, connection: &str) {
        let request = format!("GET / HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n");
        self.0.write_all(request.as_bytes()).unwrap();
    }

    /// Reads one answer.
    pub(crate) fn hear(&mut self) -> Answer {
        let mut bytes = vec![];
        let mut buffer = [0; 1024];
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                if body.len() == length.unwrap().parse::<usize>().unwrap() {
                    return Answer::of(body);
                }
            }
            let length = self.0.read(&mut buffer).unwrap();
            assert!(length > 0, "the end of the stream instead of an answer");
            bytes.extend_from_slice(&buffer[..length]);
        }
    }

    /// Asks, and keeps the connection.
    pub(crate) fn ask(&mut self) -> Answer {
        self.send("keep-alive");
        self.hear()
    }

    /// Asks for the last time.
    pub(crate) fn ask_once(mut self) -> Answer {
        self.send("close");
        self.hear()
    }
}

/// Asks on a connection of its own.
pub(crate) fn ask(address: SocketAddr) -> Answer {
    Client::new(address).ask_once()
}

/// Asks from this of the machine's own addresses, 127.0.x.y.
pub(crate) fn ask_from(own: u16, address: SocketAddr) -> Answer {
    let [high, low] = own.to_be_bytes();
    Client::from(Ipv4Addr::new(127, 0, high, low).into(), address).ask_once()
}

/// So many connections that have been answered once.
pub(crate) fn held(address: SocketAddr, count: usize) -> Vec<(Client, Answer)> {
    let one = |_| {
        let mut client = Client::new(address);
        let answer = client.ask();
        (client, answer)
    };
    (0..count).map(one).collect()
}

/// A listening socket at an address that others share.
pub(crate) fn listening(address: SocketAddr) -> OwnedFd {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&fd, sockopt::ReusePort, &true).unwrap();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
    listen(&fd, Backlog::new(4096).unwrap()).unwrap();
    fd
}
