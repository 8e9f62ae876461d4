//! What all channels share: the sockets, who takes turns at them, and the links to the workers; and what each message of a
//! worker does.

use super::super::carry::{Notebook, crash};
use super::super::listeners::Listeners;
use super::super::{News, clock};
use super::link::{Handle, Link, Server, Stage};
use super::memory::KnownLink;
use super::place::Local;
use super::rota::{Dealt, Rota, mix};
use super::talk;
use crate::config::values::Balance;
use crate::core::{Event, WorkerId};
use crate::protocol::lines::{Line, Lines};
use crate::protocol::node::{self, Heard, Place};
use crate::sys::socket::{self, Datagram};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// So many complaints about one worker are logged.
const MAX_COMPLAINTS: u32 = 8;
/// So much is read at a time, and so many lines of it are acted on before others have their turn.
const BUFFER: usize = 64 * 1024;
const LINES: usize = 64;
/// As much as a socket's buffer holds is read of a worker that is gone.
const LAST_READS: usize = 16;

pub(super) type Connection = Arc<OwnedFd>;

/// A socket that workers serve.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) local: Local,
    pub(super) is_datagram: bool,
    /// What it was opened for, if that was on a program's demand: the place, and which one of several there.
    pub(super) asked: Option<(Place, u32)>,
    pub(super) rota: Rota<Connection>,
    /// Wakes the task that accepts here; there is one once somebody takes turns.
    pub(super) changed: Arc<Notify>,
    pub(super) is_accepting: bool,
    /// The task, once it has begun.
    pub(super) task: Option<AbortHandle>,
    /// Nobody was free when the task looked.
    pub(super) is_waiting: bool,
    /// What the first server said that all are to have in common.
    pub(super) data: Option<serde_json::Value>,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd, asked: Option<(Place, u32)>) -> io::Result<Self> {
        let is_datagram = socket::is_datagram(&fd)?;
        let local = Local::of(&fd)?;
        Ok(Self::of(fd, local, is_datagram, asked))
    }

    fn of(fd: OwnedFd, local: Local, is_datagram: bool, asked: Option<(Place, u32)>) -> Self {
        Self {
            fd: Arc::new(fd),
            local,
            is_datagram,
            asked,
            rota: Rota::default(),
            changed: Arc::new(Notify::new()),
            is_accepting: false,
            task: None,
            is_waiting: false,
            data: None,
        }
    }

    /// Whether it was not closed down.
    pub(super) fn is_open(&self) -> bool {
        self.is_datagram || socket::is_listening(&self.fd).unwrap_or(false)
    }

    /// A place in the list of sockets where none is.
    ///
    /// # Errors
    /// As open(2).
    pub(super) fn closed() -> io::Result<Self> {
        let nothing = std::fs::File::open("/dev/null")?.into();
        Ok(Self::of(nothing, Local::Other, false, None))
    }

    /// A worker takes no more turns here.
    pub(super) fn leave(&mut self, worker: WorkerId) {
        self.rota.leave(worker);
        self.changed.notify_one();
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.iter().for_each(AbortHandle::abort);
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) links: BTreeMap<WorkerId, Link>,
    pub(super) sockets: Vec<Socket>,
    /// How many of the sockets are the app's listeners; the others were opened because a program asked for them.
    pub(super) managed: usize,
    /// What the loop is to hear.
    pub(super) outbox: Vec<News>,
    /// Somebody follows the programs' messages.
    pub(super) is_followed: bool,
    /// Sockets that have their first worker that takes turns, and need a task.
    pub(super) to_accept: Vec<usize>,
    /// Where all this is written down.
    pub(super) notebook: Option<Notebook>,
    /// There is something to write.
    pub(super) changed: bool,
    /// And so are the beginnings of lines.
    pub(super) keeps_rest: bool,
    /// What the last primary knew of channels that were not taken back yet.
    pub(super) known: BTreeMap<WorkerId, KnownLink>,
    /// The first number of messages.
    pub(super) numbers: u64,
    /// The last remedy that was told.
    hinted: Option<String>,
    buffer: Vec<u8>,
}

/// How a look at a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// There may be more.
    More,
    /// Nothing now.
    Wait,
    /// So many bytes were acted on, and are to be taken once that is written down.
    Heard(usize),
    /// It was closed.
    Ended,
}

impl Hub {
    pub(super) fn new(listeners: &Listeners) -> io::Result<Self> {
        let sockets: io::Result<Vec<Socket>> = listeners
            .all
            .iter()
            .map(|listener| Socket::new(listener.on(None).fd.try_clone()?, None))
            .collect();
        Ok(Self {
            links: BTreeMap::new(),
            sockets: sockets?,
            managed: listeners.all.len(),
            outbox: vec![],
            is_followed: false,
            to_accept: vec![],
            notebook: None,
            changed: false,
            keeps_rest: false,
            known: BTreeMap::new(),
            numbers: 0,
            hinted: None,
            buffer: vec![0; BUFFER],
        })
    }

    /// Acts on what a worker has said, and reads a piece more of it.
    pub(super) fn read(&mut self, worker: WorkerId) -> Flow {
        let flow = self.read_on(worker);
        self.keep();
        flow
    }

    fn read_on(&mut self, worker: WorkerId) -> Flow {
        if self.hear_lines(worker, LINES) {
            return Flow::More;
        }
        if let Some(flow) = self.read_carefully(worker) {
            return flow;
        }
        let Some(link) = self.links.get_mut(&worker) else {
            return Flow::Ended;
        };
        let buffer = &mut self.buffer;
        let mut length = 0;
        let received = link.socket.try_io(Interest::READABLE, |stream| {
            let piece = socket::receive(stream, buffer)?;
            length = piece.length;
            // There was room for more, so there is no more now: that is not asked again.
            if is_last(&piece, buffer) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match received {
            Ok(()) if length > 0 => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && length == 0 => return Flow::Wait,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Flow::More,
            Ok(()) | Err(_) => {
                self.closed(worker);
                return Flow::Ended;
            }
        }
        link.lines.push(&buffer[..length]);
        self.hear_lines(worker, LINES);
        Flow::More
    }

    /// A worker that is not admitted yet asks for its sockets and says that it listens, once. Should we die with that in
    /// hand it would wait for ever, so it is left in the channel until it was acted on and all of that is written down;
    /// [`Self::take_heard`] takes it then. `None` where it is to be read as usual.
    fn read_carefully(&mut self, worker: WorkerId) -> Option<Flow> {
        let link = self.links.get_mut(&worker).filter(|l| !l.admitted && l.is_caught_up())?;
        let buffer = &mut self.buffer;
        let mut seen = 0;
        let peeked = link.socket.try_io(Interest::READABLE, |stream| {
            seen = socket::peek(stream, buffer)?;
            let whole = buffer[..seen].contains(&b'\n');
            // The rest of the line is waited for, unless there will be none.
            if seen == 0 || whole || seen == buffer.len() || socket::is_hung_up(stream) {
                Ok(())
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            }
        });
        match peeked {
            Ok(()) if seen > 0 => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Some(Flow::Wait),
            Ok(()) | Err(_) => return None,
        }
        let whole = buffer[..seen].iter().rposition(|byte| *byte == b'\n')? + 1;
        link.lines.push(&buffer[..whole]);
        while self.hear_lines(worker, LINES) {}
        crash::point("heard");
        self.keep();
        crash::point("kept");
        Some(Flow::Heard(whole))
    }

    /// Takes from the channel what was heard and left there.
    pub(super) fn take_heard(&mut self, worker: WorkerId, length: usize) {
        if let Some(link) = self.links.get_mut(&worker) {
            let _ = socket::receive(link.socket.get_ref(), &mut self.buffer[..length]);
        }
    }

    /// A worker's process has ended: all that it said is heard.
    pub(super) fn read_last(&mut self, worker: WorkerId) {
        // What it had started may hold the channel, and go on talking.
        for _ in 0..LAST_READS {
            let Some(link) = self.links.get_mut(&worker) else { return };
            // The kernel is asked, not what it had told before.
            match socket::receive(link.socket.get_ref(), &mut self.buffer) {
                Ok(piece) if piece.length > 0 => link.lines.push(&self.buffer[..piece.length]),
                Ok(_) | Err(_) => break,
            }
            while self.hear_lines(worker, LINES) {}
        }
        while self.hear_lines(worker, LINES) {}
        self.closed(worker);
    }

    /// Acts on the lines that are complete, so many at most; returns whether there may be more of them.
    fn hear_lines(&mut self, worker: WorkerId, most: usize) -> bool {
        let Some(link) = self.links.get_mut(&worker) else { return false };
        let mut lines = std::mem::replace(&mut link.lines, Lines::new(node::MAX_LINE));
        let mut garbage = 0;
        let mut count = 0;
        while count < most
            && let Some(line) = lines.next_line()
        {
            count += 1;
            let Line::Whole(bytes) = line else {
                garbage += 1;
                continue;
            };
            match node::parse(bytes) {
                Ok(heard) => {
                    self.note_mark(worker, bytes);
                    self.hear(worker, heard);
                }
                Err(node::Garbage) => garbage += 1,
            }
        }
        if let Some(link) = self.links.get_mut(&worker) {
            link.lines = lines;
        }
        self.count_garbage(worker, garbage);
        count == most
    }

    fn note_mark(&mut self, worker: WorkerId, bytes: &[u8]) {
        if bytes.first() == Some(&node::BUNS_MARK)
            && let Some(link) = self.links.get_mut(&worker)
        {
            link.is_marked = true;
            self.changed = true;
        }
    }

    fn count_garbage(&mut self, worker: WorkerId, more: u64) {
        let Some(link) = self.links.get_mut(&worker) else { return };
        let before = link.garbage;
        link.garbage += more;
        let garbage = link.garbage;
        // Said at once, then at every tenfold.
        if garbage.checked_ilog10() > before.checked_ilog10() {
            let text = format!(
                "worker {worker} sent lines on its channel that make no sense ({garbage} so far); ignoring them"
            );
            self.outbox.push(News::Trouble { text, hint: None });
        }
    }

    fn hear(&mut self, worker: WorkerId, heard: Heard<'_>) {
        match heard {
            Heard::Answer { ack, accepted } => self.on_answer(worker, ack, accepted),
            Heard::HandleAck => self.on_handle(worker, true),
            Heard::HandleNack => self.on_handle(worker, false),
            Heard::Other => {}
            Heard::Online => {
                if let Some(link) = self.links.get_mut(&worker)
                    && link.stage == Stage::Silent
                {
                    link.stage = Stage::Online;
                    self.changed = true;
                }
            }
            Heard::Query(query) => self.on_query(worker, &query),
            Heard::Listening(place) => self.on_listening(worker, &place),
            Heard::Close { key } => self.on_close(worker, &key),
            Heard::Leaving { seq } => self.on_leaving(worker, seq),
            Heard::Message(text) => talk::on_message(self, worker, &text),
            Heard::WithHandle(text) => {
                if let Some(link) = self.links.get_mut(&worker) {
                    // Else it would be sent again, and again.
                    link.say(node::HANDLE_ACK.into(), None);
                }
                let what = "sent a handle with a message, which goes nowhere; closing it";
                self.complain(worker, what, None);
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
        if !accepted {
            // The end of the pause is to be waited for.
            self.sockets[at].changed.notify_one();
        }
        self.deal(at);
    }

    /// The next descriptor of those that were sent has reached a worker, or has not, for its table is full.
    fn on_handle(&mut self, worker: WorkerId, has_come: bool) {
        let Some(link) = self.links.get_mut(&worker) else { return };
        match link.handles.pop_front() {
            Some(Handle::Connection(number)) if !has_come => {
                self.complain(
                    worker,
                    "has no room for another file descriptor; its connections go to others",
                    None,
                );
                self.on_answer(worker, number, false);
            }
            Some(Handle::Listener { query, .. }) if !has_come => {
                let number = link.number();
                link.say(node::refuse(number, query, libc::EMFILE).into(), None);
            }
            Some(Handle::Connection(_) | Handle::Listener { .. }) | None => {}
        }
    }

    fn on_leaving(&mut self, worker: WorkerId, seq: u64) {
        self.leave_all(worker);
        if let Some(link) = self.links.get_mut(&worker) {
            let number = link.number();
            link.say(node::acknowledge(number, seq).into(), None);
            link.stage = Stage::Leaving;
            self.changed = true;
            self.outbox.push(News::Event(Event::Leaving(worker)));
        }
    }

    /// A worker takes its turns at a socket, if it may and wants to.
    pub(super) fn join(&mut self, worker: WorkerId, at: usize) {
        let Some(link) = self.links.get(&worker) else { return };
        if !link.admitted || !link.is_open() || link.serves(at).is_none() {
            return;
        }
        let socket = &mut self.sockets[at];
        let sticky = link.terms.balance == Balance::RoundRobin { sticky: true };
        socket.rota.join(worker, link.slot(), sticky);
        if !std::mem::replace(&mut socket.is_accepting, true) {
            self.to_accept.push(at);
        }
        self.deal(at);
    }

    /// Where the sockets are whose connections a worker is dealt; none if it has a listening socket itself, at which it
    /// goes on accepting until it is told to disconnect.
    pub(super) fn only_dealt(&self, worker: WorkerId) -> Vec<Local> {
        let accepts =
            |server: &&Server| !server.is_dealt && !self.sockets[server.socket].is_datagram;
        let servers = self.links.get(&worker).map_or(&[][..], |link| &link.servers);
        if servers.iter().any(|server| accepts(&server)) { vec![] } else { self.served(worker) }
    }

    /// Where the sockets are that a worker serves connections of.
    pub(super) fn served(&self, worker: WorkerId) -> Vec<Local> {
        let servers = self.links.get(&worker).map_or(&[][..], |link| &link.servers);
        let sockets: BTreeSet<usize> = servers.iter().map(|server| server.socket).collect();
        let streams = sockets.into_iter().map(|at| &self.sockets[at]).filter(|s| !s.is_datagram);
        streams.map(|socket| socket.local.clone()).collect()
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
            self.changed = true;
            link.servers.clear();
            link.given.clear();
            link.handles.clear();
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
                debug_assert!(false, "worker {worker} takes turns and serves nothing");
                rota.leave(worker);
                continue;
            };
            let number = link.number();
            link.given.push_back((number, at));
            link.handles.push_back(Handle::Connection(number));
            link.say(node::connection(number, &key).into(), Some(connection));
            crash::point("dealt");
            rota.give(worker, number);
        }
        if std::mem::take(is_waiting) {
            changed.notify_one();
        }
    }

    /// Takes a connection that was accepted at a socket.
    pub(super) fn take(&mut self, at: usize, connection: OwnedFd) {
        let rota = &mut self.sockets[at].rota;
        let client = rota.is_sticky().then(|| socket::peer_address(&connection)).flatten();
        let client = client.map(|address| client_number(address.ip()));
        rota.take(Dealt { connection: Arc::new(connection), client });
        self.deal(at);
    }

    /// Logs what is wrong with a worker, up to a limit.
    pub(super) fn complain(&mut self, worker: WorkerId, what: &str, hint: Option<String>) {
        self.tell_trouble(worker, format!("worker {worker} {what}"), hint);
    }

    pub(super) fn tell_trouble(&mut self, worker: WorkerId, text: String, hint: Option<String>) {
        let Some(link) = self.links.get_mut(&worker) else { return };
        link.complaints += 1;
        // The same remedy is not said for every worker.
        let hint = hint.filter(|hint| self.hinted.as_ref() != Some(hint));
        if hint.is_some() {
            self.hinted.clone_from(&hint);
        }
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
        let opened = self.sockets[self.managed..].iter().filter(|socket| socket.asked.is_some());
        opened.map(|socket| socket::local_address(&socket.fd))
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

/// Whether a piece that was read was the last for now: a stream is read no further than behind descriptors.
fn is_last(piece: &Datagram, buffer: &[u8]) -> bool {
    (1..buffer.len()).contains(&piece.length) && !piece.had_descriptors
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
