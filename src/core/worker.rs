//! One worker and its states. Where it stands among the others is the supervisor's business.
//!
//! ```text
//!            evidence            withdraw           drained, or its time is over
//! starting ───────────► ready ───────────► draining ───────────► stopping ──► gone
//!    └── failed, rolled back, scaled away: asked to end at once ────┘ ▲
//!                              leaving by itself, hung, leftovers ────┘
//! ```

use super::event::Evidence;
use super::time::Time;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The name of a worker, counted from 1 and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(pub u64);

/// A position that is to be served, counted from 0; it outlives its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u16);

/// A set of workers started from the same settings, counted from 1 and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u32);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a worker is doing, with the deadline that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Started; fails at `until` without evidence of readiness.
    Starting {
        /// The start deadline.
        until: Time,
    },
    /// Serving.
    Ready {
        /// When it was ready.
        since: Time,
        /// When it has lived long enough to be relied on; `None` once it has.
        settles: Option<Time>,
        /// When its silence becomes a hang; `None` expects no heartbeat.
        heartbeat: Option<Time>,
    },
    /// Gets no new connections; is asked to end at `until` at the latest.
    Draining {
        /// The drain deadline.
        until: Time,
        /// It leaves of its own accord, and is not asked before the deadline.
        by_itself: bool,
    },
    /// Asked to end; is killed at `kill`, which is `None` once that is done.
    Stopping {
        /// The stop deadline.
        kill: Option<Time>,
    },
}

/// A process that we made and that is not gone yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Worker {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    pub(super) started: Time,
    pub(super) state: State,
    /// When it was ready, and what showed that.
    pub(super) ready: Option<(Time, Evidence)>,
}

impl Worker {
    pub(super) fn is_starting(&self) -> bool {
        matches!(self.state, State::Starting { .. })
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    /// Ready, and for long enough to be relied on.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.state, State::Ready { settles: None, .. })
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.state, State::Stopping { .. })
    }

    /// Whether the worker's state has run out of patience.
    pub(super) fn is_overdue(&self, now: Time) -> bool {
        self.deadline().is_some_and(|due| due <= now)
    }

    /// When the worker's state runs out of patience, if ever.
    pub(super) fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Starting { until } | State::Draining { until, .. } => Some(until),
            State::Ready { settles, heartbeat, .. } => {
                [settles, heartbeat].into_iter().flatten().min()
            }
            State::Stopping { kill } => kill,
        }
    }
}
