//! What all channels share: the sockets, who takes turns at them, and the links to the workers.

use super::super::listeners::{Listeners, open_place};
use super::super::{News, clock};
use super::link::{Link, Server, Stage};
use super::place::{self, Local};
use super::rota::{Dealt, Rota, mix};
use super::talk;
use crate::config::values::{Balance, ReadyWhen};
use crate::core::{Event, Evidence, WorkerId};
use crate::protocol::lines::{Line, Lines};
use crate::protocol::node::{self, Given, Heard, Place, Query};
use crate::sys::socket;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::sync::Notify;

/// So many servers may one worker have.
const MAX_SERVERS: usize = 256;
/// So many sockets are opened for programs that ask for them.
const MAX_OPENED: usize = 64;
/// So many complaints about one worker are logged.
const MAX_COMPLAINTS: u32 = 8;
/// So much is read at a time.
const BUFFER: usize = 64 * 1024;

pub(super) type Connection = Arc<OwnedFd>;

/// A socket that workers serve.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) fd: Arc<OwnedFd>,
    local: Local,
    is_datagram: bool,
    /// What it was opened for, if that was on a program's demand.
    asked: Option<Place>,
    pub(super) rota: Rota<Connection>,
    /// Wakes the task that accepts here; there is one once somebody takes turns.
    pub(super) changed: Arc<Notify>,
    pub(super) is_accepting: bool,
    /// Nobody was free when the task looked.
    pub(super) is_waiting: bool,
    /// What the first server said that all are to have in common.
    data: Option<serde_json::Value>,
}

impl Socket {
    /// A worker takes no more turns here.
    fn leave(&mut self, worker: WorkerId) {
        self.rota.leave(worker);
        self.changed.notify_one();
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) links: BTreeMap<WorkerId, Link>,
    pub(super) sockets: Vec<Socket>,
    /// How many of the sockets are the app's listeners.
    managed: usize,
    /// Programs may have whatever they ask for: nobody has named a listener.
    on_demand: bool,
    /// What the loop is to hear.
    pub(super) outbox: Vec<News>,
    /// Somebody follows the programs' messages.
    pub(super) is_followed: bool,
    /// Sockets that have their first worker that takes turns, and need a task.
    pub(super) to_accept: Vec<usize>,
    buffer: Vec<u8>,
}

/// How a look at a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// There may be more.
    More,
    /// Nothing now.
    Wait,
    /// It was closed.
    Ended,
}

impl Hub {
    pub(super) fn new(listeners: &Listeners) -> io::Result<Self> {
        let mut hub = Self {
            links: BTreeMap::new(),
            sockets: vec![],
            managed: listeners.all.len(),
            on_demand: listeners.all.is_empty(),
            outbox: vec![],
            is_followed: false,
            to_accept: vec![],
            buffer: vec![0; BUFFER],
        };
        for listener in &listeners.all {
            hub.add(listener.fd.try_clone()?, None)?;
        }
        Ok(hub)
    }

    fn add(&mut self, fd: OwnedFd, asked: Option<Place>) -> io::Result<usize> {
        let is_datagram = socket::is_datagram(&fd)?;
        let local = match (socket::own_address(&fd)?, socket::own_path(&fd)) {
            (Some(address), _) if is_datagram => Local::Udp(address),
            (Some(address), _) => Local::Tcp(address),
            (None, Some(path)) if !is_datagram => Local::Unix(path),
            (None, _) => Local::Other,
        };
        self.sockets.push(Socket {
            fd: Arc::new(fd),
            local,
            is_datagram,
            asked,
            rota: Rota::default(),
            changed: Arc::new(Notify::new()),
            is_accepting: false,
            is_waiting: false,
            data: None,
        });
        Ok(self.sockets.len() - 1)
    }

    /// Reads a piece of what a worker says, and acts on it.
    pub(super) fn read(&mut self, worker: WorkerId) -> Flow {
        let Some(link) = self.links.get_mut(&worker) else {
            return Flow::Ended;
        };
        let (stream, buffer) = (&link.socket, &mut self.buffer);
        let mut length = 0;
        let received = stream.try_io(Interest::READABLE, |stream| {
            let piece = socket::receive(stream, buffer)?;
            length = piece.length;
            // There was room for more, so there is no more now: that is not asked again.
            let is_last = (1..buffer.len()).contains(&length) && !piece.had_descriptors;
            if is_last { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        let flow = match received {
            Ok(()) if length > 0 => Flow::More,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Flow::Wait,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Flow::More,
            Ok(()) | Err(_) => {
                self.closed(worker);
                return Flow::Ended;
            }
        };
        link.lines.push(&buffer[..length]);
        let mut lines = std::mem::replace(&mut link.lines, Lines::new(node::MAX_LINE));
        let before = link.garbage;
        while let Some(line) = lines.next_line() {
            match line {
                Line::Whole(bytes) => match node::parse(bytes) {
                    Ok(heard) => {
                        self.note_mark(worker, bytes);
                        self.hear(worker, heard);
                    }
                    Err(node::Garbage) => self.count_garbage(worker),
                },
                Line::TooLong => self.count_garbage(worker),
            }
        }
        if let Some(link) = self.links.get_mut(&worker) {
            link.lines = lines;
            let garbage = link.garbage;
            // Said at once, then at every tenfold.
            if garbage.checked_ilog10() > before.checked_ilog10() {
                let lines = if garbage == 1 { "a line" } else { "lines" };
                let text = format!(
                    "worker {worker} sent {lines} on its channel that make no sense ({garbage} so far); ignoring them"
                );
                self.outbox.push(News::Trouble { text, hint: None });
            }
        }
        flow
    }

    fn note_mark(&mut self, worker: WorkerId, bytes: &[u8]) {
        if bytes.first() == Some(&node::BUNS_MARK)
            && let Some(link) = self.links.get_mut(&worker)
        {
            link.is_marked = true;
        }
    }

    fn count_garbage(&mut self, worker: WorkerId) {
        if let Some(link) = self.links.get_mut(&worker) {
            link.garbage += 1;
        }
    }

    fn hear(&mut self, worker: WorkerId, heard: Heard<'_>) {
        match heard {
            Heard::Answer { ack, accepted } => self.on_answer(worker, ack, accepted),
            Heard::HandleAck | Heard::Other => {}
            Heard::Online => {
                if let Some(link) = self.links.get_mut(&worker)
                    && link.stage == Stage::Silent
                {
                    link.stage = Stage::Online;
                }
            }
            Heard::Query(query) => self.on_query(worker, &query),
            Heard::Listening(place) => self.on_listening(worker, &place),
            Heard::Close { key } => self.on_close(worker, &key),
            Heard::Leaving { seq } => {
                self.leave_all(worker);
                if let Some(link) = self.links.get_mut(&worker) {
                    let number = link.number();
                    link.say(node::acknowledge(number, seq), None);
                    link.stage = Stage::Leaving;
                    self.outbox.push(News::Event(Event::Leaving(worker)));
                }
            }
            Heard::Message(text) => talk::on_message(self, worker, &text),
            Heard::WithHandle(text) => {
                if let Some(link) = self.links.get_mut(&worker) {
                    // Else it would be sent again, and again.
                    link.say(node::HANDLE_ACK.to_owned(), None);
                }
                self.complain(
                    worker,
                    "sent a handle with a message, which goes nowhere; closing it",
                    None,
                );
                talk::on_message(self, worker, &text);
            }
        }
    }

    fn on_answer(&mut self, worker: WorkerId, ack: u64, accepted: bool) {
        let Some(link) = self.links.get_mut(&worker) else { return };
        let Some(at) = link.given.iter().position(|(number, _)| *number == ack) else { return };
        let Some((_, at)) = link.given.remove(at) else { return };
        if accepted {
            link.counters.taken += 1;
        } else {
            link.counters.refused += 1;
        }
        self.sockets[at].rota.answered(worker, ack, accepted, clock::now());
        self.deal(at);
    }

    /// A program calls `listen()`: it is given a listener of ours, or an errno.
    fn on_query(&mut self, worker: WorkerId, query: &Query) {
        let servers = self.links.get(&worker).map_or(0, |link| link.servers.len());
        let answer = match &query.place {
            _ if servers >= MAX_SERVERS => {
                Err(Refused::new(libc::EMFILE, &format!("it has {MAX_SERVERS} servers already")))
            }
            Some(place) => self.socket_for(place, query),
            None => Err(Refused::new(libc::EINVAL, "the question makes no sense")),
        };
        let Some(link) = self.links.get_mut(&worker) else { return };
        let number = link.number();
        let at = match answer {
            Ok(at) => at,
            Err(refused) => {
                link.say(node::refuse(number, query.seq, refused.errno), None);
                let place = query.place.as_ref().map_or("somewhere".to_owned(), Place::to_string);
                let text = format!(
                    "cannot give worker {worker} a listener on '{place}': {}; it is told so",
                    refused.why
                );
                return self.tell_trouble(worker, text, refused.hint);
            }
        };
        let socket = &mut self.sockets[at];
        let key = format!("{at}:{}", query.seq);
        // TLS sessions begun with one worker are resumed with another, now and after reloads.
        let data = match &query.data {
            Some(own) if node::is_ticket_keys(own) => {
                Some(&*socket.data.get_or_insert_with(|| own.clone()))
            }
            own => own.as_ref(),
        };
        let is_dealt = !socket.is_datagram && link.terms.balance != Balance::Shared;
        let (given, with) = match (&socket.local, is_dealt) {
            (Local::Tcp(address), true) => (Given::Connections(Some(*address)), None),
            (_, true) => (Given::Connections(None), None),
            (_, false) if socket.is_datagram => (Given::Datagram, Some(socket.fd.clone())),
            (_, false) => (Given::Stream, Some(socket.fd.clone())),
        };
        if let Some(fd) = &with {
            // Node does not set it, and hangs in accept without.
            let _ = socket::set_nonblocking(fd, true);
        }
        link.say(node::give(number, query.seq, &key, data, given), with);
        let Some(place) = query.place.clone() else { return };
        link.servers.push(Server { key, socket: at, place, is_dealt, is_listening: false });
    }

    fn socket_for(&mut self, place: &Place, query: &Query) -> Result<usize, Refused> {
        if query.index > 0 {
            return Err(Refused::new(libc::EADDRINUSE, "another server of the same worker has it"));
        }
        let any_port = matches!(place, Place::Tcp { port: 0, .. } | Place::Udp { port: 0, .. });
        let is_fd = matches!(place, Place::Fd(_));
        let known = if is_fd { &self.sockets[..self.managed] } else { &self.sockets[..] };
        let known: Vec<Local> = known.iter().map(|socket| socket.local.clone()).collect();
        let is_asked = |socket: &Socket| socket.asked.as_ref() == Some(place);
        let found = place::find(&known, place).or_else(|| self.sockets.iter().position(is_asked));
        if let Some(at) = found {
            return Ok(at);
        }
        if is_fd {
            let text = format!(
                "it means the sockets that are passed, of which there are {}",
                self.managed
            );
            return Err(Refused::new(libc::EBADF, &text));
        }
        if !any_port && !self.on_demand {
            return Err(Refused::unknown(place));
        }
        if self.sockets.len() - self.managed >= MAX_OPENED {
            return Err(Refused::new(libc::EMFILE, &format!("{MAX_OPENED} were opened already")));
        }
        let asked = Some(place.clone());
        let opened = open_place(place, query.only_v6).and_then(|fd| self.add(fd, asked));
        opened.map_err(|e| Refused::new(e.raw_os_error().unwrap_or(libc::EINVAL), &e.to_string()))
    }

    fn on_listening(&mut self, worker: WorkerId, place: &Place) {
        let Some(link) = self.links.get_mut(&worker) else { return };
        let asked = |s: &&mut Server| !s.is_listening && place.answers(&s.place);
        let Some(server) = link.servers.iter_mut().find(asked) else { return };
        server.is_listening = true;
        let at = server.socket;
        if matches!(link.terms.ready, ReadyWhen::Listening | ReadyWhen::Auto) {
            let event = Event::Ready { worker, evidence: Evidence::Listening };
            self.outbox.push(News::Event(event));
        }
        self.join(worker, at);
    }

    fn on_close(&mut self, worker: WorkerId, key: &str) {
        let Some(link) = self.links.get_mut(&worker) else { return };
        let Some(at) = link.servers.iter().position(|server| server.key == key) else { return };
        let server = link.servers.remove(at);
        if link.serves(server.socket).is_none() {
            self.sockets[server.socket].leave(worker);
        }
    }

    /// A worker takes its turns at a socket, if it may and wants to.
    pub(super) fn join(&mut self, worker: WorkerId, at: usize) {
        let Some(link) = self.links.get(&worker) else { return };
        if !link.admitted || !link.is_open() || link.serves(at).is_none() {
            return;
        }
        let socket = &mut self.sockets[at];
        socket.rota.sticky = link.terms.balance == Balance::RoundRobin { sticky: true };
        socket.rota.join(worker, link.slot());
        if !std::mem::replace(&mut socket.is_accepting, true) {
            self.to_accept.push(at);
        }
        self.deal(at);
    }

    /// Where the sockets are whose connections a worker is dealt; none if it has a listening socket itself, at which it
    /// goes on accepting until it is told to disconnect.
    pub(super) fn only_dealt(&self, worker: WorkerId) -> Vec<Local> {
        let servers = self.links.get(&worker).map_or(&[][..], |link| &link.servers);
        let mut sockets: Vec<usize> = servers.iter().map(|server| server.socket).collect();
        sockets.dedup();
        if servers.iter().any(|server| !server.is_dealt && !self.sockets[server.socket].is_datagram)
        {
            return vec![];
        }
        sockets.into_iter().map(|at| self.sockets[at].local.clone()).collect()
    }

    /// A worker takes no more turns anywhere.
    pub(super) fn leave_all(&mut self, worker: WorkerId) {
        for socket in &mut self.sockets {
            socket.leave(worker);
        }
    }

    /// A worker can be told nothing any more: what it had not taken goes to others.
    pub(super) fn closed(&mut self, worker: WorkerId) {
        if let Some(link) = self.links.get_mut(&worker) {
            link.stage = Stage::Closed;
            link.servers.clear();
            link.given.clear();
            link.discard();
        }
        for at in 0..self.sockets.len() {
            self.sockets[at].rota.remove(worker);
            self.sockets[at].changed.notify_one();
            self.deal(at);
        }
    }

    /// Gives what waits at a socket to those who are free, and wakes its task where that changes what it can do.
    pub(super) fn deal(&mut self, at: usize) {
        let now = clock::now();
        let Socket { rota, changed, is_waiting, .. } = &mut self.sockets[at];
        while let Some((worker, dealt)) = rota.deal(now) {
            let connection = dealt.connection.clone();
            let Some((link, key)) = self.links.get_mut(&worker).and_then(|link| {
                let key = link.serves(at)?.key.clone();
                Some((link, key))
            }) else {
                rota.remove(worker);
                continue;
            };
            let number = link.number();
            link.given.push_back((number, at));
            link.say(node::connection(number, &key), Some(connection));
            rota.give(worker, number);
        }
        if std::mem::take(is_waiting) {
            changed.notify_one();
        }
    }

    /// Takes a connection that was accepted at a socket.
    pub(super) fn take(&mut self, at: usize, connection: OwnedFd) {
        let rota = &mut self.sockets[at].rota;
        let client = rota.sticky.then(|| socket::peer_address(&connection)).flatten();
        let client = client.map(|address| client_number(address.ip()));
        rota.take(Dealt { connection: Arc::new(connection), client });
        self.deal(at);
    }

    /// Logs what is wrong with a worker, up to a limit.
    pub(super) fn complain(&mut self, worker: WorkerId, what: &str, hint: Option<String>) {
        self.tell_trouble(worker, format!("worker {worker} {what}"), hint);
    }

    fn tell_trouble(&mut self, worker: WorkerId, text: String, hint: Option<String>) {
        let Some(link) = self.links.get_mut(&worker) else { return };
        link.complaints += 1;
        match link.complaints {
            ..MAX_COMPLAINTS => self.outbox.push(News::Trouble { text, hint }),
            MAX_COMPLAINTS => {
                let text = format!("{text}; no more of worker {worker} is told");
                self.outbox.push(News::Trouble { text, hint });
            }
            _ => {}
        }
    }

    /// The addresses of the sockets that were opened on demand.
    pub(super) fn opened(&self) -> impl Iterator<Item = String> {
        self.sockets[self.managed..].iter().map(|socket| socket::local_address(&socket.fd))
    }

    /// Removes the files of the unix sockets that were opened on demand.
    pub(super) fn remove_own_files(&self) {
        for socket in &self.sockets[self.managed..] {
            if let Local::Unix(path) = &socket.local {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// Why a program is not given a listener.
struct Refused {
    errno: i32,
    why: String,
    hint: Option<String>,
}

impl Refused {
    fn new(errno: i32, why: &str) -> Self {
        Self { errno, why: why.to_owned(), hint: None }
    }

    fn unknown(place: &Place) -> Self {
        let hint = match place {
            Place::Tcp { port, .. } => format!(
                "let it listen where the app does (PORT=… if it reads that), or add \"{port}\" to listen, or ListenStream={port} to the socket unit"
            ),
            Place::Udp { port, .. } => {
                format!("add \"udp:{port}\" to listen, or ListenDatagram={port} to the socket unit")
            }
            Place::Path(_) | Place::Fd(_) => format!(
                "add \"unix:{place}\" to listen, or ListenStream={place} to the socket unit"
            ),
        };
        Self {
            hint: Some(hint),
            ..Self::new(libc::EADDRNOTAVAIL, "it is none of the app's listeners")
        }
    }
}

/// A client by its address; an IPv4 client is the same on an IPv6 socket.
fn client_number(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => mix(u64::from(u32::from(v4))),
        IpAddr::V6(v6) => {
            let [a, b] = [v6.to_bits() >> 64, v6.to_bits() & u128::from(u64::MAX)];
            let half = |n: u128| u64::try_from(n).unwrap_or(0);
            mix(half(a) ^ mix(half(b)))
        }
    }
}
