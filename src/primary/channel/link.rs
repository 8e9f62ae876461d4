//! One worker's end of the channel: what is to be said, in order and never without a bound, and what was heard.

use super::super::worker::Identity;
use super::Terms;
use crate::core::{Evidence, Slot};
use crate::protocol::lines::Lines;
use crate::protocol::node::{self, Place};
use crate::sys::socket;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// A worker that does not read is told no more than this, and not listened to either.
const MAX_UNREAD: usize = 4 * 1024 * 1024;
/// So much is sent at a time: more does not fit into a socket's buffer.
const PIECE: usize = 64 * 1024;

/// What a worker is told, with the descriptor that goes with it.
#[derive(Debug)]
struct Outgoing {
    line: Arc<str>,
    sent: usize,
    with: Option<Arc<OwnedFd>>,
}

/// A server of the program's, by what `listen()` was called with.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Server {
    pub(super) key: String,
    /// Which of the sockets it serves.
    pub(super) socket: usize,
    pub(super) place: Place,
    /// It gets connections and not the socket.
    pub(super) is_dealt: bool,
    pub(super) is_listening: bool,
}

/// A descriptor that was sent, whose arrival is not known yet: it is told in the order of the lines.
#[derive(Clone, Copy, Debug)]
pub(super) enum Handle {
    /// A connection, by the number of its message.
    Connection(u64),
    /// A listening socket, by the number of the query.
    Listener { query: u64 },
}

/// How far the channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// Nothing was heard yet: perhaps no program of Node's.
    Silent,
    Online,
    /// It was told to disconnect.
    Leaving,
    /// It has closed the channel.
    Closed,
}

/// What `show` tells of a channel.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Counters {
    /// Connections that it took.
    pub(in super::super) taken: u64,
    /// Connections that it refused.
    pub(in super::super) refused: u64,
    /// Messages from the program.
    pub(in super::super) heard: u64,
    /// Messages to the program.
    pub(in super::super) told: u64,
    /// Messages that were not carried, for it does not read.
    pub(in super::super) dropped: u64,
    /// Bytes that it has not read.
    pub(in super::super) unread: usize,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) who: Identity,
    pub(super) terms: Terms,
    /// What it is given instead of the app's listeners, by their positions: the sockets of its lane.
    pub(super) sockets: Vec<Option<Arc<OwnedFd>>>,
    pub(super) stage: Stage,
    /// That of the worker's end.
    pub(super) inode: u64,
    pub(super) admitted: bool,
    /// We have told it to leave.
    pub(super) is_withdrawn: bool,
    /// What has shown that it is ready.
    pub(super) evidence: Option<Evidence>,
    /// It has been sent the message that says so.
    pub(super) is_told: bool,
    pub(super) servers: Vec<Server>,
    /// Which message brought a connection of which socket.
    pub(super) given: VecDeque<(u64, usize)>,
    pub(super) handles: VecDeque<Handle>,
    pub(super) counters: Counters,
    pub(super) garbage: u64,
    /// Complaints that were logged.
    pub(super) complaints: u32,
    /// The system could not send just now, though there is room.
    pub(super) is_stuck: bool,
    /// It is Bun, whose lines begin with a mark.
    pub(super) is_marked: bool,
    /// Watched for reading alone: it has room again after each message that the worker reads, which is a wake-up for every
    /// connection that nobody wants.
    pub(super) socket: Arc<AsyncFd<OwnedFd>>,
    /// Wakes the task that moves this channel: there is something to send again.
    pub(super) wake: Arc<Notify>,
    pub(super) lines: Lines,
    out: VecDeque<Outgoing>,
    next: u64,
}

impl Link {
    pub(super) fn new(
        who: Identity,
        terms: Terms,
        socket: AsyncFd<OwnedFd>,
        inode: u64,
        numbers: u64,
    ) -> Self {
        Self {
            who,
            terms,
            sockets: vec![],
            stage: Stage::Silent,
            inode,
            admitted: false,
            is_withdrawn: false,
            evidence: None,
            is_told: false,
            servers: vec![],
            given: VecDeque::new(),
            handles: VecDeque::new(),
            is_stuck: false,
            counters: Counters::default(),
            garbage: 0,
            complaints: 0,
            is_marked: false,
            socket: Arc::new(socket),
            wake: Arc::new(Notify::new()),
            lines: Lines::new(node::MAX_LINE),
            out: VecDeque::new(),
            next: numbers,
        }
    }

    pub(super) fn slot(&self) -> Slot {
        self.who.slot
    }

    /// Whether nothing is left of what was read.
    pub(super) fn is_caught_up(&self) -> bool {
        self.lines.is_empty()
    }

    /// Returns the number of the next message of ours.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Whether the worker serves and can be talked to.
    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Online
    }

    /// Says something of the channel's own, as soon as the worker reads.
    pub(super) fn say(&mut self, line: Arc<str>, with: Option<Arc<OwnedFd>>) {
        let mark = char::from(node::BUNS_MARK);
        self.queue(if self.is_marked { format!("{mark}{line}").into() } else { line }, with);
    }

    fn queue(&mut self, line: Arc<str>, with: Option<Arc<OwnedFd>>) {
        if self.stage == Stage::Closed {
            return;
        }
        let was_empty = self.out.is_empty();
        self.counters.unread += line.len();
        self.out.push_back(Outgoing { line, sent: 0, with });
        if was_empty {
            self.flush();
            if self.has_unsent() {
                self.wake.notify_one();
            }
        }
    }

    /// Sends the program a message, given as a line of JSON; returns whether there was room.
    pub(super) fn tell(&mut self, line: Arc<str>) -> bool {
        if self.counters.unread > 0 && self.counters.unread + line.len() > MAX_UNREAD {
            self.counters.dropped += 1;
            return false;
        }
        self.counters.told += 1;
        // The program's messages have no mark.
        self.queue(line, None);
        true
    }

    /// Sends what the worker has room for.
    pub(super) fn flush(&mut self) {
        self.is_stuck = false;
        while let Some(first) = self.out.front_mut() {
            let rest = &first.line.as_bytes()[first.sent..];
            let piece = &rest[..rest.len().min(PIECE)];
            let socket = self.socket.get_ref();
            let with = first.with.as_ref().map(|fd| fd.as_fd());
            match socket::send(socket, piece, with) {
                Ok(sent) => {
                    first.with = None;
                    first.sent += sent;
                    self.counters.unread = self.counters.unread.saturating_sub(sent);
                    if first.sent == first.line.len() {
                        self.out.pop_front();
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // That it is closed is heard when it is read.
                Err(e) if is_nobody(&e) => return self.discard(),
                Err(_) => {
                    self.is_stuck = true;
                    return;
                }
            }
        }
    }

    pub(super) fn discard(&mut self) {
        self.out.clear();
        self.counters.unread = 0;
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether the worker is listened to: not while it does not read what it was told.
    pub(super) fn is_heard(&self) -> bool {
        self.counters.unread < MAX_UNREAD
    }

    /// Whether a server that listens on this socket gets its connections dealt.
    pub(super) fn serves(&self, socket: usize) -> Option<&Server> {
        self.servers.iter().find(|s| s.socket == socket && s.is_dealt && s.is_listening)
    }
}

/// Nobody reads any more.
fn is_nobody(e: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(e.kind(), BrokenPipe | ConnectionReset | NotConnected)
}
