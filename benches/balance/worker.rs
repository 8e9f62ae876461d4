//! A worker that does as little as a web server can: one thread, one epoll set; its answer is its pid.

use listenfd::ListenFd;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, recv, send};
use sd_notify::NotifyState;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

/// What events are told by; all others are connections by their numbers.
const STALL: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;

/// How long it sleeps when it is sent SIGUSR1.
const STALLED: Duration = Duration::from_millis(200);

/// A request is shorter than this.
const REQUEST: usize = 512;

#[derive(Default)]
struct Connection {
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

struct Worker {
    set: Epoll,
    listener: TcpListener,
    /// By their descriptors' numbers.
    connections: Vec<Connection>,
    answers: [String; 2],
    at_once: usize,
}

/// Serves for ever. Accepts so many connections each time that it looks.
pub(crate) fn serve(at_once: usize) {
    let mask = SigSet::from(Signal::SIGUSR1);
    mask.thread_block().unwrap();
    let stall = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK).unwrap();
    let listener = ListenFd::from_env().take_tcp_listener(0).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    set.add(&stall, EpollEvent::new(EpollFlags::EPOLLIN, STALL)).unwrap();
    set.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER)).unwrap();
    sd_notify::notify(&[NotifyState::Ready]).unwrap();
    let answer = |header: &str| {
        let text = format!("{}\n", std::process::id());
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{header}\r\n{text}", text.len())
    };
    let answers = [answer(""), answer("Connection: close\r\n")];
    let mut worker = Worker { set, listener, connections: vec![], answers, at_once };
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let count = worker.set.wait(&mut events, EpollTimeout::NONE).unwrap_or(0);
        let events = &events[..count];
        if events.iter().any(|event| event.data() == STALL) {
            while let Ok(Some(_)) = stall.read_signal() {}
            std::thread::sleep(STALLED);
        }
        for event in events {
            match event.data() {
                STALL => {}
                LISTENER => worker.accept(),
                number => worker.answer(usize::try_from(number).unwrap()),
            }
        }
    }
}

impl Worker {
    fn accept(&mut self) {
        for _ in 0..self.at_once {
            let Ok((stream, _)) = self.listener.accept() else { return };
            let number = usize::try_from(stream.as_raw_fd()).unwrap();
            if self.connections.len() <= number {
                self.connections.resize_with(number + 1, Connection::default);
            }
            let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
            self.set.add(stream.as_fd(), event).unwrap();
            let connection = &mut self.connections[number];
            connection.buffer.clear();
            connection.stream = Some(stream);
        }
    }

    fn answer(&mut self, number: usize) {
        let Connection { stream, buffer } = &mut self.connections[number];
        let Some(fd) = stream.as_ref().map(|stream| stream.as_raw_fd()) else { return };
        let mut piece = [0; REQUEST];
        let count = match recv(fd, &mut piece, MsgFlags::MSG_DONTWAIT) {
            Err(nix::errno::Errno::EAGAIN) => return,
            told => told.unwrap_or(0),
        };
        buffer.extend_from_slice(&piece[..count]);
        let is_over = count == 0 || buffer.len() > REQUEST;
        if !is_over && !buffer.ends_with(b"\r\n\r\n") {
            return;
        }
        let closes = buffer.windows(17).any(|window| window == b"Connection: close");
        buffer.clear();
        let answer = self.answers[usize::from(closes)].as_bytes();
        if is_over || send(fd, answer, MsgFlags::MSG_NOSIGNAL).is_err() || closes {
            *stream = None;
        }
    }
}
