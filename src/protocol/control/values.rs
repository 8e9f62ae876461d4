//! What the control protocol tells: the state of an app as values, named as in the interface's description. `--json`
//! prints the same, so nothing here changes its name or its meaning.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$of])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// Returns the word for it.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// What the app as a whole does.
    AppState {
        /// Not enough slots were ready yet.
        Starting = "starting",
        /// As it should be.
        Running = "running",
        /// A rollout is under way.
        Reloading = "reloading",
        /// A rollout is being undone.
        RollingBack = "rolling_back",
        /// Connections wait.
        Paused = "paused",
        /// Everything is being ended.
        Stopping = "stopping",
    }
}

words! {
    /// How a slot stands.
    SlotState {
        /// Served.
        Ready = "ready",
        /// A worker starts.
        Starting = "starting",
        /// Held back by back-off.
        Waiting = "waiting",
        /// Given up at the start limit.
        Failed = "failed",
        /// By the operator's wish.
        Stopped = "stopped",
    }
}

words! {
    /// What a worker does.
    WorkerState {
        /// Started, not ready yet.
        Starting = "starting",
        /// Serves.
        Ready = "ready",
        /// Gets no new connections.
        Draining = "draining",
        /// Was asked to end.
        Stopping = "stopping",
    }
}

words! {
    /// What a worker is to its slot.
    Role {
        /// It serves.
        Incumbent = "incumbent",
        /// It is to relieve the incumbent.
        Newcomer = "newcomer",
        /// It is on its way out.
        Leaving = "leaving",
    }
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Primary {
    /// The app's name.
    pub name: String,
    /// The primary's version.
    pub version: String,
    /// The primary's process.
    pub pid: u32,
    /// How many primaries the app has had, this one included.
    #[serde(default)]
    pub primaries: u32,
    /// The systemd unit that it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Where the workers' output is read: `journal` or `memory`.
    pub log: String,
    /// Where it listens.
    pub listeners: Vec<Listener>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Its name in `LISTEN_FDNAMES`.
    pub name: String,
    /// `ADDRESS:PORT`, or a path.
    pub address: String,
}

/// The state of an app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// Who answers.
    #[serde(flatten)]
    pub primary: Primary,
    /// What it does.
    pub state: AppState,
    /// The line that `systemctl status` shows.
    pub status: String,
    /// The generation that is to serve.
    pub generation: u32,
    /// A reload that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_generation: Option<u32>,
    /// Slots that are where the rollout under way wants them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots_done: Option<usize>,
    /// The canary that the rollout under way waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Who gets a new connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
    /// Slots that are served.
    pub ready_slots: usize,
    /// How long the primary has been running.
    pub up_ms: u64,
    /// In the order of their numbers.
    pub slots: Vec<Slot>,
    /// Workers without a slot.
    pub leaving: Vec<Worker>,
}

/// The canary of a rollout, while that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// Which worker.
    pub worker: u64,
    /// How many of a hundred connections it gets.
    pub percent: u8,
    /// When the rollout goes on, if it does so by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_ms: Option<u64>,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slot {
    /// Its number.
    pub slot: u16,
    /// How it stands.
    pub state: SlotState,
    /// The generation that it was last relieved with.
    pub generation: u32,
    /// How often it was started again after a failure.
    pub restarts: u32,
    /// Failures in a row.
    pub failures: u32,
    /// When it is tried again, if it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_in_ms: Option<u64>,
    /// Why it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many connections its workers were given, where the kernel counts that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<u64>,
    /// How the last worker ended that left it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<Exit>,
    /// Who is there.
    pub workers: Vec<Worker>,
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// Which worker.
    pub worker: u64,
    /// From which settings.
    pub generation: u32,
    /// In words.
    pub reason: String,
    /// How long ago.
    pub ago_ms: u64,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// Its number, never used again.
    pub worker: u64,
    /// Where.
    pub slot: u16,
    /// From which settings.
    pub generation: u32,
    /// What it is to its slot.
    pub role: Role,
    /// What it does.
    pub state: WorkerState,
    /// Its main process, while it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Since it was started.
    pub up_ms: u64,
    /// How long it took to be ready …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_after_ms: Option<u64>,
    /// … and what showed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_because: Option<String>,
    /// What it says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// What has passed over its channel, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    /// Where it gets its connections, if workers are steered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<Lane>,
}

/// The lane that a worker serves alone: its own sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// Its number.
    pub number: u16,
    /// Connections that wait there to be accepted.
    pub waiting: u32,
    /// How many this worker was given, where the kernel counts that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<u64>,
}

/// Who gets a new connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Balance {
    /// What the settings say.
    pub asked: String,
    /// What is done: the same, or what can be done instead.
    pub in_force: String,
    /// Why, if it is not the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How many lanes there are, where workers are steered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<u16>,
    /// Connections that found no lane in the table and went to any, where the kernel counts that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsteered: Option<u64>,
}

/// What has passed over a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Connections that the worker took …
    pub taken: u64,
    /// … and refused.
    pub refused: u64,
    /// Messages from its program …
    pub heard: u64,
    /// … and to it.
    pub told: u64,
    /// Messages that were dropped because it does not read.
    pub dropped: u64,
    /// Bytes that it has not read yet.
    pub unread: usize,
}

/// A setting in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// As in the file, dotted.
    pub key: String,
    /// As in the file.
    pub value: String,
}

/// What a generation's workers start from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its number.
    pub generation: u32,
    /// The working directory without symlinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The program that was found.
    pub program: String,
    /// What it is given, its name first.
    pub arguments: Vec<String>,
}

/// A worker that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Which worker.
    pub worker: u64,
    /// Where.
    pub slot: u16,
    /// From which settings.
    pub generation: u32,
    /// Why.
    pub reason: String,
    /// When, in microseconds since 1970.
    pub time_usec: u64,
    /// The last lines of its output.
    pub lines: Vec<String>,
    /// What to do about it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A setting that a reload would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// As in the file, dotted.
    pub key: String,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When, in microseconds since 1970.
    pub time_usec: u64,
    /// One word.
    pub kind: String,
    /// As the journal has it.
    pub text: String,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u16>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<u64>,
    /// From which settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// A reload that waited before and will not be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<u32>,
    /// What a worker's program sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<serde_json::Value>,
}

/// A line of a worker's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// When, in microseconds since 1970.
    pub time_usec: u64,
    /// Where.
    pub slot: u16,
    /// Who.
    pub worker: u64,
    /// From which settings.
    pub generation: u32,
    /// The line, without its end.
    pub text: String,
}
