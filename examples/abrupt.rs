//! A server as many are: it takes the sockets that it is given, keeps connections open as long as the client wants, and
//! has no code for its end. SIGTERM kills it, whatever it is doing. Each answer says `SLOT/PID/GENERATION`.
//!
//! `abrupt` waits with epoll(7); `abrupt --threads` waits in accept(2), with a thread for each connection. SIGUSR1 makes the
//! former sleep for 200 ms. Anything but a connection from accept(2) is a panic, as in servers that end then.
#![expect(clippy::unwrap_used, reason = "it has no error that it could do anything about")]
#![expect(clippy::disallowed_methods, reason = "a server may have threads and sleep")]

use listenfd::ListenFd;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

const STALL: Duration = Duration::from_millis(200);
/// In what epoll tells: below are doors, from here on connections.
const CONNECTIONS: u64 = 1 << 32;
const SIGNALS: u64 = u64::MAX;

/// What it was given.
enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
    Udp(UdpSocket),
}

impl Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(door) => door.as_fd(),
            Self::Unix(door) => door.as_fd(),
            Self::Udp(door) => door.as_fd(),
        }
    }

    /// Takes what is next; `None` for a datagram, which is answered at once.
    fn take(&self, text: &str) -> io::Result<Option<File>> {
        let stream: OwnedFd = match self {
            Self::Tcp(door) => door.accept()?.0.into(),
            Self::Unix(door) => door.accept()?.0.into(),
            Self::Udp(door) => {
                let (_, from) = door.recv_from(&mut [0; 512])?;
                door.send_to(text.as_bytes(), from)?;
                return Ok(None);
            }
        };
        Ok(Some(stream.into()))
    }
}

fn main() {
    let mut passed = ListenFd::from_env();
    let doors: Vec<Door> = (0..passed.len()).map(|at| door(&mut passed, at)).collect();
    let variable = |name| std::env::var(name).unwrap_or_default();
    let (slot, generation) = (variable("DOGWATCH_SLOT"), variable("DOGWATCH_GENERATION"));
    let text = format!("{slot}/{}/{generation}", std::process::id());
    if std::env::args().any(|argument| argument == "--threads") {
        in_threads(&doors, &text);
    } else {
        with_epoll(&doors, &text);
    }
}

fn door(passed: &mut ListenFd, at: usize) -> Door {
    if let Ok(Some(door)) = passed.take_tcp_listener(at) {
        return Door::Tcp(door);
    }
    if let Ok(Some(door)) = passed.take_unix_listener(at) {
        return Door::Unix(door);
    }
    Door::Udp(passed.take_udp_socket(at).unwrap().unwrap())
}

/// Answers the requests that are whole; returns whether the connection goes on.
fn answer(stream: &mut File, request: &mut Vec<u8>, text: &str) -> bool {
    while let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
        let head: Vec<u8> = request.drain(..end + 4).collect();
        let closes =
            String::from_utf8_lossy(&head).to_ascii_lowercase().contains("connection: close");
        let word = if closes { "close" } else { "keep-alive" };
        let length = text.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: {word}\r\n\r\n{text}"
        );
        if stream.write_all(answer.as_bytes()).is_err() || closes {
            return false;
        }
    }
    true
}

/// Reads once; returns whether the connection goes on.
fn read(stream: &mut File, request: &mut Vec<u8>, text: &str) -> bool {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer) {
        Ok(0) => false,
        Ok(length) => {
            request.extend_from_slice(&buffer[..length]);
            answer(stream, request, text)
        }
        Err(e) => e.kind() == ErrorKind::Interrupted,
    }
}

fn in_threads(doors: &[Door], text: &str) {
    std::thread::scope(|scope| {
        for door in doors {
            scope.spawn(move || {
                loop {
                    let taken = door.take(text).unwrap_or_else(|e| fails(&e));
                    let Some(mut stream) = taken else { continue };
                    scope.spawn(move || {
                        let mut request = vec![];
                        while read(&mut stream, &mut request, text) {}
                    });
                }
            });
        }
    });
}

fn fails<T>(error: &io::Error) -> T {
    // All of it, not the thread alone.
    end(&format!("accept: {error}"))
}

#[expect(clippy::print_stderr, clippy::exit, reason = "all of it ends")]
fn end(text: &str) -> ! {
    eprintln!("{text}");
    std::process::exit(70)
}

fn with_epoll(doors: &[Door], text: &str) {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGUSR1);
    mask.thread_block().unwrap();
    let signals =
        SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).unwrap();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let watch = |fd: BorrowedFd<'_>, token| {
        epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token)).unwrap();
    };
    watch(signals.as_fd(), SIGNALS);
    (0..).zip(doors).for_each(|(token, door)| watch(door.as_fd(), token));
    let mut connections: BTreeMap<u64, (File, Vec<u8>)> = BTreeMap::new();
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let found = epoll.wait(&mut events, EpollTimeout::NONE).unwrap_or(0);
        for event in &events[..found] {
            let token = event.data();
            if token == SIGNALS {
                while let Ok(Some(_)) = signals.read_signal() {
                    std::thread::sleep(STALL);
                }
            } else if let Some((stream, request)) = connections.get_mut(&token) {
                if !read(stream, request, text) {
                    connections.remove(&token);
                }
            } else if let Some(door) = usize::try_from(token).ok().and_then(|at| doors.get(at)) {
                match door.take(text) {
                    Ok(Some(stream)) => {
                        let token = CONNECTIONS + u64::from(stream.as_raw_fd().unsigned_abs());
                        watch(stream.as_fd(), token);
                        connections.insert(token, (stream, vec![]));
                    }
                    Ok(None) => {}
                    Err(e)
                        if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                    Err(e) => fails(&e),
                }
            }
        }
    }
}
