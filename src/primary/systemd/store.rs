//! systemd's FD store (`FDSTORE=1` in `sd_pid_notify_with_fds(3)`): what the next primary is given. Without systemd the
//! same descriptors are held for an upgrade in place.

use super::{Manager, Message};
use crate::protocol::store::{Name, Part};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// So many descriptors belong to a worker at most, and so many to the app beside its listeners.
const OF_A_WORKER: usize = Part::ALL.len() - 1;
const OF_THE_APP: usize = 4;

/// What systemd does about a stored descriptor whose other end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Polled {
    /// Drops it: it is of no use any more.
    Yes,
    /// Keeps it (`FDPOLL=0`): a dead worker's status and last words are still to be read.
    No,
}

impl Manager {
    /// Puts a copy of a descriptor into the FD store. What had the same name is taken out of it.
    ///
    /// # Errors
    /// As fcntl(2): the table of descriptors is full.
    pub(in super::super) fn put(
        &mut self,
        name: Name,
        fd: impl AsFd,
        polled: Polled,
    ) -> io::Result<()> {
        let fd = Arc::new(fd.as_fd().try_clone_to_owned()?);
        self.drop_stored(&name);
        self.store(&name, fd.clone(), polled);
        self.held.insert(name, fd);
        Ok(())
    }

    /// As [`Self::put`], for what only systemd is to have.
    pub(in super::super) fn give_away(&mut self, name: &Name, fd: OwnedFd, polled: Polled) {
        self.store(name, Arc::new(fd), polled);
    }

    fn store(&mut self, name: &Name, fd: Arc<OwnedFd>, polled: Polled) {
        let poll = if polled == Polled::No { "FDPOLL=0\n" } else { "" };
        self.tell_store(format!("FDSTORE=1\nFDNAME={name}\n{poll}"), Some(fd));
    }

    /// Notes what was taken back from the FD store, and still lies there.
    pub(in super::super) fn hold(&mut self, name: Name, fd: OwnedFd) {
        self.held.insert(name, Arc::new(fd));
    }

    /// Takes a descriptor out of the FD store.
    pub(in super::super) fn drop_stored(&mut self, name: &Name) {
        if self.held.remove(name).is_none() {
            return;
        }
        // Nobody may be there to take what waits.
        let put = format!("FDSTORE=1\nFDNAME={name}\n");
        let before = self.waiting.len();
        self.waiting.retain(|message| !message.text.starts_with(&put));
        if self.waiting.len() == before {
            self.remove_from_store(&name.to_string());
        }
    }

    /// Takes out of the FD store whatever lies there under a name.
    pub(in super::super) fn remove_from_store(&mut self, name: &str) {
        self.tell_store(format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), None);
    }

    /// Takes everything out of the FD store: the app has ended.
    pub(in super::super) fn drop_all_stored(&mut self) {
        for (name, _) in std::mem::take(&mut self.held) {
            self.remove_from_store(&name.to_string());
        }
    }

    /// Returns what the next primary is to be passed.
    pub(in super::super) fn held(&self) -> impl Iterator<Item = (&Name, &Arc<OwnedFd>)> {
        self.held.iter()
    }

    /// Whether this lies in the FD store.
    pub(in super::super) fn holds(&self, name: &Name) -> bool {
        self.held.contains_key(name)
    }

    /// Returns a copy of what lies in the FD store, if it does.
    pub(in super::super) fn copy_of(&self, name: &Name) -> Option<OwnedFd> {
        self.held.get(name)?.try_clone().ok()
    }

    /// Whether there is a service manager, which may have an FD store.
    pub(in super::super) fn is_there(&self) -> bool {
        self.address.is_some()
    }

    fn tell_store(&mut self, text: String, with: Option<Arc<OwnedFd>>) {
        if self.address.is_some() {
            self.waiting.push_back(Message { text, with });
            self.flush();
        }
    }
}

/// Returns how many descriptors the FD store holds at most (`$FDSTORE` in `systemd.exec(5)`); `None` where systemd does not
/// say so, which it does from version 254 on.
pub(in super::super) fn room() -> Option<usize> {
    std::env::var("FDSTORE").ok()?.parse().ok()
}

/// Returns how many descriptors an app may have in systemd's FD store: while a slot is relieved it has three workers.
/// `listeners` are the sockets that the app opened itself, and twice those that are steered.
#[must_use]
pub fn needed(slots: u16, surge: u16, listeners: usize) -> usize {
    let workers = usize::from(slots) + 2 * usize::from(surge.min(slots));
    OF_THE_APP + listeners + workers * OF_A_WORKER
}
