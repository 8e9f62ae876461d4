//! A load client of one thread that keeps many connections busy, times every answer and counts who gave it.

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::sockopt::{IpBindAddressNoPort, SocketError};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, bind, connect, getsockopt, recv, send,
    setsockopt, socket,
};
use nix::unistd::Pid;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// From how many addresses it asks: 127.1.0.1 and so on.
const ADDRESSES: usize = 1000;
/// What is not answered by so long after the end is a failure.
const PATIENCE: Duration = Duration::from_secs(3);
/// Before a client that has failed tries again.
const PAUSE: Duration = Duration::from_millis(2);

/// How a client asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Each time on a connection of its own.
    Anew,
    /// Again and again on one.
    Kept,
    /// Once, and keeps the connection open.
    Held,
}

/// When it is over.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    Time(Duration),
    Connections(usize),
}

/// Now and then somebody is sent SIGUSR1, but not in the last of the time.
#[derive(Clone)]
pub(crate) struct Stalls {
    pub(crate) every: Duration,
    pub(crate) pids: Vec<i32>,
    /// Who it is follows from this number.
    pub(crate) seed: u64,
}

#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) clients: usize,
    pub(crate) ask: Ask,
    pub(crate) until: Until,
    pub(crate) think: Duration,
    pub(crate) stalls: Option<Stalls>,
}

/// What was counted.
#[derive(Default)]
pub(crate) struct Counted {
    /// In seconds, in their order.
    pub(crate) latencies: Vec<f64>,
    /// The answers of each worker by its pid.
    pub(crate) spread: BTreeMap<i32, u64>,
    pub(crate) failures: u64,
    /// Answers a second.
    pub(crate) rate: f64,
}

#[derive(Default)]
struct Client {
    socket: Option<OwnedFd>,
    began: Option<Instant>,
    buffer: Vec<u8>,
    is_connected: bool,
}

struct Load {
    plan: Plan,
    port: u16,
    set: Epoll,
    clients: Vec<Client>,
    /// Who thinks, and how long.
    later: BinaryHeap<Reverse<(Instant, usize)>>,
    connections: usize,
    /// How many have asked and have no answer.
    busy: usize,
    is_over: bool,
    counted: Counted,
}

/// Asks as the plan says.
pub(crate) fn ask(port: u16, plan: &Plan) -> Counted {
    let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let clients = (0..plan.clients).map(|_| Client::default()).collect();
    let began = Instant::now();
    let mut load = Load {
        plan: plan.clone(),
        port,
        set,
        clients,
        later: (0..plan.clients).map(|at| Reverse((began, at))).collect(),
        connections: 0,
        busy: 0,
        is_over: false,
        counted: Counted::default(),
    };
    load.run(began);
    let mut counted = load.counted;
    counted.latencies.sort_by(f64::total_cmp);
    counted
}

impl Load {
    fn run(&mut self, began: Instant) {
        let time = match self.plan.until {
            Until::Time(time) => time,
            Until::Connections(_) => Duration::from_secs(20),
        };
        let end = began + time;
        let mut stalls = self.plan.stalls.clone().map(|stalls| (began + stalls.every / 2, stalls));
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let now = Instant::now();
            if now >= end && !self.is_over {
                self.finish(now - began);
            }
            if let Some((at, stalls)) = stalls.as_mut().filter(|(at, _)| *at <= now) {
                stalls.strike();
                *at += stalls.every;
            }
            stalls = stalls.filter(|(at, _)| *at + Duration::from_millis(300) < end);
            self.wake(now);
            if self.busy == 0 && (self.is_over || self.later.is_empty()) {
                break;
            }
            if now > end + PATIENCE {
                self.counted.failures += self.busy as u64;
                break;
            }
            let count = self.set.wait(&mut events, EpollTimeout::from(1u8)).unwrap_or(0);
            for event in &events[..count] {
                let at = usize::try_from(event.data()).unwrap();
                self.serve(at, event.events());
            }
        }
        if !self.is_over {
            self.finish(began.elapsed());
        }
    }

    fn finish(&mut self, took: Duration) {
        self.is_over = true;
        self.counted.rate = self.counted.latencies.len() as f64 / took.as_secs_f64();
    }

    /// Lets those go on who have thought enough.
    fn wake(&mut self, now: Instant) {
        while self.later.peek().is_some_and(|Reverse((time, _))| *time <= now) {
            let Some(Reverse((_, at))) = self.later.pop() else { return };
            if self.is_over {
                continue;
            }
            if self.clients[at].socket.is_some() { self.request(at) } else { self.open(at) }
        }
    }

    fn open(&mut self, at: usize) {
        if matches!(self.plan.until, Until::Connections(all) if self.connections >= all) {
            return;
        }
        let number = self.connections % ADDRESSES;
        self.connections += 1;
        self.busy += 1;
        let began = Instant::now();
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
        setsockopt(&fd, IpBindAddressNoPort, &true).unwrap();
        let part = |number| u8::try_from(number).unwrap();
        let own = SockaddrIn::new(127, 1, part(number / 250), part(number % 250 + 1), 0);
        bind(fd.as_raw_fd(), &own).unwrap();
        let peer = SockaddrIn::new(127, 0, 0, 1, self.port);
        let client = &mut self.clients[at];
        client.began = Some(began);
        client.is_connected = false;
        client.buffer.clear();
        let connected = connect(fd.as_raw_fd(), &peer);
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        self.set.add(&fd, EpollEvent::new(flags, at as u64)).unwrap();
        client.socket = Some(fd);
        if connected.is_err_and(|e| e != Errno::EINPROGRESS) {
            self.fail(at);
        }
    }

    /// Asks on a connection that is there.
    fn request(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(fd) = &client.socket else { return };
        if client.began.is_none() {
            client.began = Some(Instant::now());
            self.busy += 1;
        }
        let text: &[u8] = match self.plan.ask {
            Ask::Anew => b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            Ask::Kept | Ask::Held => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        };
        if send(fd.as_raw_fd(), text, MsgFlags::MSG_NOSIGNAL) != Ok(text.len()) {
            self.fail(at);
        }
    }

    fn fail(&mut self, at: usize) {
        self.counted.failures += 1;
        let client = &mut self.clients[at];
        client.socket = None;
        if client.began.take().is_some() {
            self.busy -= 1;
        }
        self.later.push(Reverse((Instant::now() + PAUSE, at)));
    }

    fn serve(&mut self, at: usize, events: EpollFlags) {
        let Some(fd) = &self.clients[at].socket else { return };
        if !self.clients[at].is_connected {
            if getsockopt(fd, SocketError) != Ok(0) {
                return self.fail(at);
            }
            if !events.contains(EpollFlags::EPOLLOUT) {
                return;
            }
            self.clients[at].is_connected = true;
            return self.request(at);
        }
        if !events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            return;
        }
        let mut piece = [0; 1024];
        match recv(fd.as_raw_fd(), &mut piece, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => {}
            Err(_) | Ok(0) => self.fail(at),
            Ok(count) => {
                self.clients[at].buffer.extend_from_slice(&piece[..count]);
                if let Some(pid) = answer(&self.clients[at].buffer) {
                    self.is_answered(at, pid);
                }
            }
        }
    }

    fn is_answered(&mut self, at: usize, pid: i32) {
        let client = &mut self.clients[at];
        let Some(began) = client.began.take() else { return };
        let now = Instant::now();
        self.busy -= 1;
        client.buffer.clear();
        self.counted.latencies.push((now - began).as_secs_f64());
        *self.counted.spread.entry(pid).or_default() += 1;
        if self.plan.ask == Ask::Held {
            return;
        }
        if self.plan.ask == Ask::Anew {
            client.socket = None;
        }
        if self.is_over {
            return;
        }
        if !self.plan.think.is_zero() {
            self.later.push(Reverse((now + self.plan.think, at)));
        } else if self.plan.ask == Ask::Anew {
            self.open(at);
        } else {
            self.request(at);
        }
    }
}

/// Returns the pid that a whole answer tells.
fn answer(bytes: &[u8]) -> Option<i32> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&bytes[end + 4..]).ok()?;
    text.strip_suffix('\n')?.parse().ok()
}

impl Stalls {
    fn strike(&mut self) {
        // The numbers of Knuth's MMIX.
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(self.seed >> 33).unwrap() % self.pids.len();
        let _ = kill(Pid::from_raw(self.pids[at]), Signal::SIGUSR1);
    }
}
