//! Processes that the last primary has made and that nobody has written down: it died in between.

use super::super::Primary;
use super::super::log::Level;
use super::keeper;
use crate::core::WorkerId;
use crate::protocol::procfs;
use crate::sys::pidfd::{self, Ended};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// How long a stranger may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// A process that may be nobody's.
#[derive(Debug)]
pub(super) struct Stranger {
    pub(super) pid: Pid,
    pidfd: OwnedFd,
    /// The worker that it says it belongs to.
    pub(super) worker: Option<WorkerId>,
}

impl Primary {
    /// Processes that are there and may be nobody's, by their pidfds: those in our control groups, and whoever has been given
    /// a notify socket of ours, with the worker that they say they are.
    pub(super) fn strangers(&self) -> Vec<Stranger> {
        let mut pids: BTreeSet<Pid> = BTreeSet::new();
        if let Some(groups) = &self.groups {
            pids.extend(groups.processes_of_main());
            let named = groups.groups();
            let groups = named.iter().filter_map(|name| groups.open(name));
            pids.extend(groups.flat_map(|group| group.processes()));
        }
        let own = nix::unistd::getpid();
        pids.retain(|pid| *pid != own && !self.keeper.as_ref().is_some_and(|k| k.is(*pid)));
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let all: Vec<Pid> = all.map(Pid::from_raw).collect();
        let stranger = |pid: Pid| {
            let worker = self.worker_of(pid);
            let is_there = worker.is_some() || pids.contains(&pid);
            let pidfd = is_there.then(|| pidfd::open(pid).ok()).flatten()?;
            Some(Stranger { pid, pidfd, worker })
        };
        all.into_iter().filter_map(stranger).collect()
    }

    /// Which worker of ours a process says that it belongs to, by its environment. Another primary of our name may be
    /// there, with workers of its own.
    fn worker_of(&self, pid: Pid) -> Option<WorkerId> {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let socket = Path::new(procfs::variable(&environment, "NOTIFY_SOCKET")?);
        let name = socket.file_name()?.to_str()?.strip_prefix("notify-")?;
        let primary = name.split('-').next()?.parse::<u32>().ok()?;
        let is_anothers =
            primary != std::process::id() && Path::new(&format!("/proc/{primary}")).exists();
        let is_ours = socket.parent() == Some(&self.app.folder) && !is_anothers;
        let worker = procfs::variable(&environment, "DOGWATCH_WORKER").filter(|_| is_ours)?;
        worker.parse().ok().map(WorkerId)
    }

    /// Ends who belongs to nobody that we know.
    pub(super) fn end_strangers(&mut self, strangers: Vec<Stranger>) {
        for Stranger { pid, pidfd, worker } in strangers {
            if self.is_of_a_worker(pid, worker) || pidfd::ended(&pidfd) != Ended::No {
                continue;
            }
            if keeper::is_one(pid) {
                // We have relieved it, and it is just ending; one that does not answer is of no use.
                let _ = pidfd::send(&pidfd, Signal::SIGKILL);
                continue;
            }
            let text = format!("process {pid} is of our unit and nobody that we know; ending it");
            self.log.say(Level::Warning, &text);
            let _ = pidfd::send(&pidfd, Signal::SIGTERM);
            drop(tokio::spawn(end(pidfd)));
        }
    }

    /// Whether a process is one of our workers', or of what they have started, whatever that says of itself.
    fn is_of_a_worker(&self, pid: Pid, says: Option<WorkerId>) -> bool {
        let group = self.groups.as_ref().and_then(|groups| groups.group_of(pid));
        let group = group.map(|group| group.name());
        says.is_some_and(|worker| self.workers.contains_key(&worker))
            || self.workers.values().any(|process| {
                process.pid() == pid || group.is_some() && process.group_name() == group.as_deref()
            })
    }
}

/// Nobody waits for it, but it is not to stay.
async fn end(stranger: OwnedFd) {
    tokio::time::sleep(GRACE).await;
    let _ = pidfd::send(&stranger, Signal::SIGKILL);
}
