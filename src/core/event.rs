//! Everything that can happen to the supervisor. Names are in the past or say what is asked.

use super::policy::Policy;
use super::worker::{Slot, WorkerId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What happened, or what the operator asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A worker gave evidence that it serves.
    Ready {
        /// Which worker.
        worker: WorkerId,
        /// What kind of evidence.
        evidence: Evidence,
    },
    /// A worker's main process has ended.
    Exited {
        /// Which worker.
        worker: WorkerId,
        /// How it ended.
        how: How,
        /// Whether processes that it started are still there; if so, `Emptied` follows.
        left: bool,
    },
    /// The last process that an exited worker had left behind is gone.
    Emptied(WorkerId),
    /// A worker could not be started; it never was a process, or never became the program.
    SpawnFailed {
        /// Which worker.
        worker: WorkerId,
        /// What was being done, and the system's reason, in words.
        reason: String,
        /// The machine lacked something just now (processes, memory, file descriptors).
        transient: bool,
    },
    /// A withdrawn worker has nothing left to do, or cannot be withdrawn from a shared listener at all.
    Drained(WorkerId),
    /// A worker said that it is leaving (`STOPPING=1`).
    Leaving(WorkerId),
    /// A worker said that it is alive (`WATCHDOG=1`).
    Heartbeat(WorkerId),
    /// A worker asked for more time (`EXTEND_TIMEOUT_USEC=`).
    MoreTime {
        /// Which worker.
        worker: WorkerId,
        /// Counted from now.
        time: Duration,
    },
    /// Roll out a new generation. The shell has put its settings under [`super::Supervisor::next_generation`].
    Reload {
        /// The new generation's policy.
        policy: Policy,
    },
    /// Change the number of slots.
    Scale(Scale),
    /// Stop, then start: one slot, or all of them. Unlike a reload, nobody serves the slot in between.
    Restart(Option<Slot>),
    /// Serve this slot no more, until it is started again.
    StopSlot(Slot),
    /// Serve this slot again.
    StartSlot(Slot),
    /// End all workers and keep the sockets: connections wait.
    Pause,
    /// Serve again.
    Resume,
    /// Forget the failures of one slot, or of all: what was given up starts again.
    Reset(Option<Slot>),
    /// The canary has been watched for long enough: go on with the rollout.
    Promote,
    /// Undo the rollout under way, as if it had failed.
    Undo,
    /// End all workers, then the primary.
    Stop,
    /// End what is left now: the operator asked a second time.
    Hurry,
    /// A deadline passed; see [`super::Supervisor::poll_timeout`].
    Tick,
}

/// What showed that a worker is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// It said `READY=1`.
    Notify,
    /// It wrote a line to its readiness file descriptor.
    Fd,
    /// The kernel shows it waiting on a listener.
    Accepting,
    /// It has a connection that came to a listener.
    Accepted,
    /// It said on its channel that a server of its listens.
    Listening,
    /// It sent the message `ready` over its channel.
    Message,
    /// It was alive for the time that was configured as enough.
    Alive,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Notify => "it said READY=1",
            Self::Fd => "it wrote to its readiness file descriptor",
            Self::Accepting => "it waits on a listener",
            Self::Accepted => "it has accepted a connection",
            Self::Listening => "it listens on its channel",
            Self::Message => "it sent 'ready'",
            Self::Alive => "it stayed alive long enough",
        })
    }
}

/// How a process ended (`waitid(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// It exited with this status.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
    /// It ended while there was no primary, on a kernel that does not tell how (before Linux 6.15).
    Unknown,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Unknown => f.write_str("ended while there was no primary, nobody knows how"),
            Self::Signaled(signal) => write!(f, "was ended by {}", signal_name(*signal)),
        }
    }
}

/// The names of the signals that end processes, by number (`signal(7)`, the numbers shared by all of Linux's
/// common architectures).
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

/// A change of the number of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// To this number.
    To(u16),
    /// By this many more or fewer.
    By(i32),
}
