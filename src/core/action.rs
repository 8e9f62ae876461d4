//! Everything that the supervisor can ask the shell to do. Names are imperatives.

use super::event::{Evidence, How};
use super::worker::{Generation, Slot, WorkerId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Start a worker. The shell answers with `Ready`, `Exited` or `SpawnFailed`.
    Spawn {
        /// Its name for ever.
        worker: WorkerId,
        /// The slot that it is to serve.
        slot: Slot,
        /// Whose settings it is started with.
        generation: Generation,
    },
    /// Begin giving new connections to a worker.
    Admit(WorkerId),
    /// End giving new connections to a worker. The shell answers `Drained`, now or later.
    Withdraw(WorkerId),
    /// Ask a worker to end: its stop signal, or SIGABRT when it hangs.
    Terminate {
        /// Which worker.
        worker: WorkerId,
        /// Why.
        why: Why,
    },
    /// SIGKILL to the worker and all that it started.
    Kill(WorkerId),
    /// Nobody will start from this generation's settings again.
    Forget(Generation),
    /// Tell the operator and systemd.
    Report(Report),
    /// All workers are gone: end the primary.
    Exit(Outcome),
}

impl Action {
    /// Returns its name in lower case.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Spawn { .. } => "spawn",
            Self::Admit(_) => "admit",
            Self::Withdraw(_) => "withdraw",
            Self::Terminate { .. } => "terminate",
            Self::Kill(_) => "kill",
            Self::Forget(_) => "forget",
            Self::Report(_) => "report",
            Self::Exit(_) => "exit",
        }
    }
}

/// Why a worker is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// Its time has come: relieved, scaled away, or everything stops.
    Leave,
    /// It gave no evidence of readiness in time, or belongs to a generation that is rolled back.
    Failed,
    /// It gave no heartbeat in time.
    Hung,
    /// Its main process has ended and left others behind.
    Leftovers,
}

/// How the primary's life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// As it was told to.
    Stopped,
    /// Every slot was given up.
    Failed,
}

/// Why a worker failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// It ended, unasked.
    Exited {
        /// How.
        how: How,
        /// Before it was ready.
        early: bool,
    },
    /// It could not be started: the stage and the system's reason.
    NotStarted(String),
    /// No evidence of readiness within this time.
    NotReady(Duration),
    /// No heartbeat for this long.
    Hung(Duration),
    /// It said that it is leaving, unasked.
    Leaving,
    /// No worker failed: the operator took the rollout back.
    TakenBack,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { how, early: true } => write!(f, "{how} before it was ready"),
            Self::Exited { how, early: false } => write!(f, "{how}"),
            Self::NotStarted(reason) => write!(f, "could not be started: {reason}"),
            Self::NotReady(time) => write!(f, "was not ready within {}", Human(*time)),
            Self::Hung(time) => write!(f, "gave no heartbeat for {}", Human(*time)),
            Self::Leaving => f.write_str("said that it is leaving"),
            Self::TakenBack => f.write_str("the operator took it back"),
        }
    }
}

/// What is worth telling; the shell finds the words, the journal fields and the notification for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The service is up: enough slots are served. Once in a primary's life.
    Started {
        /// Slots that are served.
        ready: usize,
        /// Slots that there are.
        slots: u16,
    },
    /// A worker is ready.
    Ready {
        /// Which worker.
        worker: WorkerId,
        /// Where.
        slot: Slot,
        /// From which settings.
        generation: Generation,
        /// What showed it.
        evidence: Evidence,
        /// Since it was started.
        took: Duration,
    },
    /// A worker failed.
    Failed {
        /// Which worker.
        worker: WorkerId,
        /// Where.
        slot: Slot,
        /// From which settings.
        generation: Generation,
        /// Why.
        cause: Cause,
        /// What happens instead.
        next: Next,
    },
    /// A worker that was to go has gone.
    Gone {
        /// Which worker.
        worker: WorkerId,
        /// Where.
        slot: Slot,
        /// From which settings.
        generation: Generation,
        /// How.
        how: How,
    },
    /// A worker did not end in time, or everything must end now, and is killed.
    Killed {
        /// Which worker.
        worker: WorkerId,
        /// Where.
        slot: Slot,
        /// From which settings.
        generation: Generation,
    },
    /// A rollout has begun.
    Reloading {
        /// To this generation.
        generation: Generation,
    },
    /// A reload was asked during a rollout and waits for its end.
    Queued {
        /// The generation that waits.
        generation: Generation,
        /// A reload that waited before and will not be done.
        instead_of: Option<Generation>,
    },
    /// The first newcomer of a rollout has settled, and the rollout waits.
    Canary {
        /// Which worker.
        worker: WorkerId,
        /// Where.
        slot: Slot,
        /// From which settings.
        generation: Generation,
        /// How many of a hundred connections it gets.
        percent: u8,
        /// For how long, since it was ready; `None` if until the operator says so.
        time: Option<Duration>,
    },
    /// The canary's wait is over, and the rollout goes on.
    Promoted {
        /// Which worker.
        worker: WorkerId,
        /// Where.
        slot: Slot,
        /// From which settings.
        generation: Generation,
        /// The operator said so; else its time is over.
        asked: bool,
        /// Since it was ready.
        took: Duration,
    },
    /// The rollout is done: every slot is served by the new generation.
    Reloaded {
        /// The generation that serves now.
        generation: Generation,
        /// Slots that it does not serve, for the operator has stopped them.
        stopped: usize,
        /// Since it began.
        took: Duration,
    },
    /// The rollout was undone.
    RolledBack {
        /// The generation that failed.
        generation: Generation,
        /// The generation that serves again.
        to: Generation,
        /// Where it failed; nowhere when the operator took it back.
        slot: Option<Slot>,
        /// Why.
        cause: Cause,
        /// Slots where the old generation would not start again; the new one goes on serving there.
        kept: Vec<Slot>,
        /// Since the rollout began.
        took: Duration,
    },
    /// The number of slots was changed.
    Scaled {
        /// The number before.
        from: u16,
        /// The number now.
        to: u16,
    },
    /// A slot, or every one, is stopped and started again.
    Restarting {
        /// Which; `None` for all.
        slot: Option<Slot>,
    },
    /// The operator stopped a slot.
    SlotStopped {
        /// Which.
        slot: Slot,
    },
    /// The operator started a stopped slot again.
    SlotStarted {
        /// Which.
        slot: Slot,
    },
    /// Nobody serves until the operator says so.
    Paused,
    /// Everybody serves again.
    Resumed,
    /// The failures of a slot, or of every one, are forgotten.
    Reset {
        /// Which; `None` for all.
        slot: Option<Slot>,
    },
    /// All workers are being ended.
    Stopping {
        /// How that counts.
        outcome: Outcome,
    },
}

/// What happens after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Next {
    /// The slot starts again after this time (zero: at once).
    StartAgain(Duration),
    /// The slot is given up: the start limit was reached.
    GiveUp {
        /// So many failures …
        failures: u32,
        /// … within this time.
        within: Duration,
    },
    /// The rollout is undone; the incumbent goes on serving.
    RollBack(Generation),
    /// The worker's slot goes on with the worker that it has.
    KeepIncumbent,
}

/// A duration as a person reads it: `250ms`, `1.5s`, `30s`, `5min`.
#[derive(Clone, Copy, Debug)]
pub struct Human(pub Duration);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            0..1_000 => write!(f, "{ms}ms"),
            1_000..120_000 if ms % 1_000 < 100 => write!(f, "{}s", ms / 1_000),
            1_000..120_000 => write!(f, "{}.{}s", ms / 1_000, ms % 1_000 / 100),
            120_000..600_000 if !ms.is_multiple_of(60_000) => write!(f, "{}s", ms / 1_000),
            _ => write!(f, "{}min", ms / 60_000),
        }
    }
}
