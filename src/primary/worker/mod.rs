//! One worker as the shell sees it: a process, its sockets and pipes, and the tasks that listen to them.

mod adopt;
mod outlet;
mod start;

pub(super) use adopt::{Found, adopt, resume_output};
pub(super) use start::start;

use super::balance::Balance;
use super::channel::Channels;
use super::listeners::Listeners;
use super::source::{Cannot, Launch};
use super::systemd::Manager;
use super::tail::Tail;
use super::{App, News, Outputs};
use crate::config::values::Handoff;
use crate::core::{Generation, How, Slot, WorkerId};
use crate::protocol::store::{Name, Part};
use crate::sys::cgroup::{Delegated, Group};
use crate::sys::{pidfd, process, spawn};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// What holds a worker that was started.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    /// What the next primary is to know.
    pub(super) known: Known,
    /// The end of its output.
    pub(super) tail: Tail,
    /// Means this process and no other, whatever becomes of its number.
    pidfd: OwnedFd,
    /// Its control group, where the unit's is delegated to us.
    group: Option<Group>,
    /// Says what went wrong before exec, once the process has ended.
    failure: Option<OwnedFd>,
    /// Where it was to run, for that.
    directory: Option<PathBuf>,
    /// Listens to the notify socket.
    ears: Option<AbortHandle>,
    /// Looks for evidence of readiness.
    eyes: Option<AbortHandle>,
    /// Moves its channel.
    channel: Option<AbortHandle>,
    /// Waits for its end, where it is no child of ours.
    end: Option<AbortHandle>,
    /// Waits until it has nothing left, once it is withdrawn.
    pub(super) drain: Option<AbortHandle>,
    /// The readiness pipe's read end, as long as the worker lives: a late line must not raise SIGPIPE.
    _ready_pipe: Option<OwnedFd>,
}

/// What is written down about a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) pid: i32,
    /// In the kernel's ticks since boot: with the number, this process and no other.
    pub(super) start_time: u64,
    /// The program that was executed, for messages.
    program: PathBuf,
    notify_socket: PathBuf,
    /// The name of its control group.
    #[serde(default)]
    group: Option<String>,
    /// Its main process has ended, but not all that it started.
    pub(super) is_left: bool,
    /// It has closed its output.
    #[serde(default)]
    pub(super) is_mute: bool,
    /// Its last `STATUS=`.
    pub(super) says: Option<String>,
}

/// Why a worker could not be started.
#[derive(Debug)]
pub(super) struct NotStarted {
    pub(super) reason: String,
    /// The machine lacks something just now.
    pub(super) is_transient: bool,
}

impl NotStarted {
    fn doing(what: &str) -> impl FnOnce(io::Error) -> Self + use<> {
        let what = what.to_owned();
        move |e| Self { is_transient: process::is_transient(&e), reason: format!("{what}: {e}") }
    }
}

impl From<Cannot> for NotStarted {
    fn from(cannot: Cannot) -> Self {
        Self { reason: cannot.error.message, is_transient: cannot.is_transient }
    }
}

/// Who is to be started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) worker: WorkerId,
    pub(super) slot: Slot,
    pub(super) generation: Generation,
}

impl Identity {
    /// The name of one of its descriptors in the FD store.
    pub(super) fn name(self, part: Part) -> Name {
        let Self { worker, slot, generation } = self;
        Name::Worker { worker: worker.0, slot: slot.0, generation: generation.0, part }
    }
}

/// What a worker is started among.
pub(super) struct Ground<'a> {
    pub(super) app: &'a App,
    pub(super) listeners: &'a Listeners,
    pub(super) channels: &'a Channels,
    pub(super) groups: Option<&'a Delegated>,
    pub(super) balance: &'a Balance,
    pub(super) news: &'a mpsc::Sender<News>,
    pub(super) outputs: &'a mut Outputs,
    pub(super) manager: &'a mut Manager,
}

/// The number of the channel in a worker: one that no shell script on the way uses for itself.
pub(super) const CHANNEL: i32 = 31;

/// Whether a number is taken in a worker by what it is given.
pub(super) fn is_taken(fd: i32, launch: &Launch, listeners: &Listeners) -> bool {
    match launch.settings.handoff {
        Handoff::Fd => fd < first_free_fd(launch, listeners),
        Handoff::Node => fd == CHANNEL,
    }
}

/// The first number in a worker that is not taken by a socket.
pub(super) fn first_free_fd(launch: &Launch, listeners: &Listeners) -> i32 {
    match launch.settings.handoff {
        Handoff::Fd => 3 + i32::try_from(listeners.all.len()).unwrap_or(0),
        Handoff::Node => 3,
    }
}

impl Process {
    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(self.known.pid)
    }

    pub(super) fn group_name(&self) -> Option<&str> {
        self.known.group.as_deref()
    }

    pub(super) fn notify_socket(&self) -> &Path {
        &self.known.notify_socket
    }

    /// Returns what went wrong before exec, if anything did. To be asked once the process has ended.
    pub(super) fn failure(&mut self) -> Option<NotStarted> {
        let (stage, errno) = spawn::failure(self.failure.take()?)?;
        let about = match (stage, &self.directory) {
            (spawn::Stage::Directory, Some(directory)) => directory,
            (_, _) => &self.known.program,
        };
        let reason = format!("{stage} '{}': {}", about.display(), errno.desc());
        let is_transient = process::is_transient(&errno.into());
        Some(NotStarted { reason, is_transient })
    }

    /// Sends a signal to the main process; where that has ended, to what it has left behind.
    pub(super) fn signal(&self, signal: Signal) {
        match &self.group {
            _ if !self.known.is_left => drop(pidfd::send(&self.pidfd, signal)),
            Some(group) => {
                group.processes().into_iter().for_each(|pid| process::signal(pid, signal));
            }
            None => process::signal_group(self.pid(), signal),
        }
    }

    /// A stopped process can only answer when it goes on (`systemd.kill(5)`).
    pub(super) fn resume(&self) {
        process::signal_group(self.pid(), Signal::SIGCONT);
    }

    /// Ends the worker and all that it started.
    pub(super) fn kill(&self) {
        if !self.known.is_left {
            // It may not lead its group yet, just after it was made.
            let _ = pidfd::send(&self.pidfd, Signal::SIGKILL);
        }
        process::signal_group(self.pid(), Signal::SIGKILL);
        if let Some(group) = &self.group {
            let _ = group.kill();
        }
    }

    /// Whether anything is left of it once its main process has ended.
    pub(super) fn has_left_others(&self) -> bool {
        match &self.group {
            Some(group) => group.is_populated(),
            None => process::group_exists(self.pid()),
        }
    }

    /// Whether this is the main process of the worker, which has not ended yet.
    pub(super) fn is_led_by(&self, pid: Pid) -> bool {
        self.pid() == pid && !self.known.is_left
    }

    /// The worker is ready: there was no failure before exec, and nobody has to look any more.
    pub(super) fn is_ready(&mut self) {
        self.failure = None;
        self.eyes.iter().for_each(AbortHandle::abort);
    }
}

impl Drop for Process {
    /// What is left in the pipes is still moved on: only the ears are closed.
    fn drop(&mut self) {
        for task in [&self.ears, &self.eyes, &self.channel, &self.end, &self.drain] {
            task.iter().for_each(AbortHandle::abort);
        }
        let _ = std::fs::remove_file(&self.known.notify_socket);
        self.group.iter().for_each(Group::remove);
    }
}

/// How a process ended, in the core's words.
pub(super) fn how(end: process::End) -> How {
    match end {
        process::End::Exited(status) => How::Exited(status),
        process::End::Signaled(signal) => How::Signaled(signal),
    }
}
