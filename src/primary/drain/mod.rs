//! Waiting until a worker that gets no new connections has nothing left, whatever its program is: then it may be told to
//! stop, and even one that dies at once takes nothing with it.
//!
//! What may be left, in the order in which a connection goes through it: a handshake that began when the worker was still
//! given connections, the accept queue of a socket that it alone serves (its *lane*), and what it has accepted.
//!
//! | file | subject |
//! |---|---|
//! | `census` | who has which connections |
//! | `idle` | closing idle connections from outside |

pub(super) mod census;
mod idle;

use super::channel::Local;
use super::clock;
use crate::config::Settings;
use crate::config::values::StopWhen;
use crate::core::Time;
use crate::protocol::diag::State;
use crate::sys::{socket, tcp};
use census::Rows;
use idle::Which;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often it is looked at first, …
const SOON: Duration = Duration::from_millis(2);
/// … at last, …
const LATE: Duration = Duration::from_millis(50);
/// … and while it is waited for the moment after an answer.
const LATE_FOR_ANSWERS: Duration = Duration::from_millis(10);
/// A look takes no more of a processor's time than one part of so many: each takes the kernel through all connections.
const PART: u32 = 10;
/// One look may fall between two places: a connection that is just being accepted is in neither.
const LOOKS: u32 = 2;
/// So many looks that fail in a row are no passing trouble.
const FAILURES: u32 = 10;
/// So long handshakes are waited for; who does not answer in this time may as well be a flood.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// All drains of an app take that part together.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    /// Nobody is to look before this.
    next: Arc<Mutex<Time>>,
}

impl Pace {
    /// Returns how long it is until somebody may look.
    fn wait(&self) -> Duration {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).since(clock::now())
    }

    /// A look has taken so long.
    fn spent(&self, time: Duration) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = clock::now() + time * PART;
    }
}

/// When idle connections are closed, counted from the beginning of the drain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing {
    /// From here on those that are idle for a while …
    pub(super) idle: Duration,
    /// … and from here on those too that have just been answered.
    pub(super) just_answered: Duration,
}

/// A worker that gets no new connections any more.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) pid: i32,
    /// Copies of the listening sockets that it alone serves; their queues are to be empty.
    pub(super) lane: Vec<OwnedFd>,
    /// Where its connections are, and those under way to its lane.
    pub(super) locals: Vec<Local>,
    /// `None` leaves them to the worker and its clients.
    pub(super) close_idle: Option<Closing>,
    /// What it has accepted is waited for too, its descendants' included.
    pub(super) wait_for_connections: bool,
    pub(super) pace: Pace,
}

impl Leaving {
    /// Returns what is to be waited for of a process with these settings that has so much `time` to drain, which is less than
    /// all of it where another primary began. Idle connections are closed in the second half of the whole, and in its last
    /// quarter those too that have just been answered.
    pub(super) fn new(
        pid: i32,
        lane: Vec<OwnedFd>,
        locals: Vec<Local>,
        settings: &Settings,
        time: Duration,
        pace: Pace,
    ) -> Self {
        let before_end = |part| time.saturating_sub(settings.policy.drain / part);
        let closing = Closing { idle: before_end(2), just_answered: before_end(4) };
        Self {
            pid,
            lane,
            locals,
            close_idle: settings.close_idle.then_some(closing),
            wait_for_connections: settings.stop_when == StopWhen::Idle,
            pace,
        }
    }

    /// Idle connections are closed at once.
    pub(super) fn hurry(&mut self) {
        let at_once = Closing { idle: Duration::ZERO, just_answered: Duration::ZERO };
        self.close_idle = self.close_idle.map(|_| at_once);
    }
}

/// How a drain went.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// So many idle connections were closed.
    pub(super) closed: usize,
    /// Why its connections could not be seen: then they were not waited for, and there may be some.
    pub(super) unseen: Option<io::Error>,
}

/// Waits until nothing of a worker's is left: for ever if need be, so whoever has a deadline drops the future. To be begun
/// after new connections have begun to go elsewhere. `unclosed` is told the first reason why idle ones could not be closed,
/// and at once: nobody may be left to tell at the end.
pub(super) async fn drained(leaving: Leaving, unclosed: impl FnOnce(io::Error)) -> Left {
    let mut watch = Watch::new(leaving);
    let mut unclosed = Some(unclosed);
    loop {
        // Before the first look too: a handshake that another processor was giving to this lane has been noted then.
        tokio::time::sleep(watch.pause).await;
        loop {
            let others = watch.leaving.pace.wait();
            if others.is_zero() {
                break;
            }
            tokio::time::sleep(others).await;
        }
        let is_done = watch.look();
        if let Some(error) = watch.unclosed.take()
            && let Some(unclosed) = unclosed.take()
        {
            unclosed(error);
        }
        if is_done {
            return watch.left;
        }
    }
}

struct Watch {
    leaving: Leaving,
    began: Time,
    pause: Duration,
    /// So many looks in a row have found nothing …
    empty: u32,
    /// … or have failed.
    failures: u32,
    /// The other ends of handshakes that may be for the lane; `None` before the first look.
    handshakes: Option<BTreeSet<SocketAddr>>,
    unclosed: Option<io::Error>,
    left: Left,
}

impl Watch {
    fn new(leaving: Leaving) -> Self {
        let handshakes = leaving.lane.is_empty().then(BTreeSet::new);
        let (began, left) = (clock::now(), Left::default());
        let (pause, empty, failures) = (SOON, 0, 0);
        Self { leaving, began, pause, empty, failures, handshakes, unclosed: None, left }
    }

    /// Returns whether nothing is left; else sets when to look again.
    fn look(&mut self) -> bool {
        let began = clock::now();
        let closed = self.left.closed;
        if self.is_empty() {
            self.empty += 1;
            self.pause = SOON;
        } else {
            self.empty = 0;
            let late = match self.which() {
                Some(Which::JustAnswered) => LATE_FOR_ANSWERS,
                Some(Which::Idle) | None => LATE,
            };
            // What was closed now will be gone in a moment.
            let longer = if self.left.closed > closed { SOON } else { self.pause * 3 / 2 };
            self.pause = longer.min(late);
            self.leaving.pace.spent(clock::now().since(began));
        }
        self.empty == LOOKS
    }

    /// Looks in the order that a connection takes. The queues come first: who accepts takes a connection out only to have
    /// it.
    fn is_empty(&mut self) -> bool {
        let is_queued = self.leaving.lane.iter().any(has_waiting);
        if is_queued && self.handshakes.is_some() {
            return false;
        }
        let mut states = vec![];
        if self.handshakes.as_ref().is_none_or(|expected| !expected.is_empty()) {
            states.push(State::SynReceived);
        }
        if self.leaving.wait_for_connections {
            states.extend(State::LIVE);
        }
        let looked = self.is_held(&states);
        !self.bear(looked) && !is_queued
    }

    /// Whether anything is held as far as is known: a look that failed says nothing, and too many of them that it cannot be
    /// known.
    fn bear(&mut self, looked: io::Result<bool>) -> bool {
        match looked {
            Ok(is_held) => {
                self.failures = 0;
                is_held
            }
            Err(e) => {
                self.failures += 1;
                if self.failures == FAILURES {
                    self.left.unseen = Some(e);
                    self.leaving.wait_for_connections = false;
                    self.handshakes = Some(BTreeSet::new());
                }
                true
            }
        }
    }

    /// Whether handshakes are under way, or connections are open; closes those that may be closed.
    fn is_held(&mut self, states: &[State]) -> io::Result<bool> {
        if states.is_empty() {
            return Ok(false);
        }
        let rows = census::rows(&self.leaving.locals, states)?;
        let is_expected = self.is_expected(&rows);
        if !self.leaving.wait_for_connections {
            return Ok(is_expected);
        }
        let own = rows.of(self.leaving.pid);
        if let Some(which) = self.which() {
            let closed = idle::close(&own, which);
            self.left.closed += closed.count;
            self.unclosed = closed.failed;
        }
        let is_open = own.len() > 0;
        // Some that are seen are reason enough to wait.
        own.hidden.filter(|_| !is_open).map_or(Ok(is_open || is_expected), Err)
    }

    /// Whether handshakes that were under way at the first look still are. Those that have begun since then are others'.
    fn is_expected(&mut self, rows: &Rows) -> bool {
        let is_handshake = |state| state == State::SynReceived;
        let now = rows.tcp.iter().filter(|row| is_handshake(row.state)).map(|row| row.peer);
        let now: BTreeSet<SocketAddr> = now.collect();
        let is_late = clock::now().since(self.began) >= HANDSHAKE;
        let expected = match self.handshakes.take() {
            _ if is_late => BTreeSet::new(),
            Some(first) => first.intersection(&now).copied().collect(),
            None => now,
        };
        !self.handshakes.insert(expected).is_empty()
    }

    /// Which connections may be closed by now.
    fn which(&self) -> Option<Which> {
        let closing = self.leaving.close_idle?;
        let passed = clock::now().since(self.began);
        if passed >= closing.just_answered {
            Some(Which::JustAnswered)
        } else {
            (passed >= closing.idle).then_some(Which::Idle)
        }
    }
}

/// Whether anything waits at a listener: connections that nobody has accepted, or a datagram.
fn has_waiting(listener: &OwnedFd) -> bool {
    tcp::queue_length(listener)
        .map_or_else(|_| socket::peek(listener, &mut []).is_ok(), |length| length > 0)
}

#[cfg(test)]
mod tests;
