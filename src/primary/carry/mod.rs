//! What survives the primary. At every change it writes down what it knows (`state`, in a `notebook`), and systemd's FD
//! store holds that with the workers' descriptors; the next primary is `passed` them and takes back (`adopt`) what is
//! still there.
//!
//! | what happens | what the next primary has |
//! |---|---|
//! | the primary dies, or is started again | the FD store |
//! | it is upgraded in place (`upgrade`) | the same, passed over execve |
//! | the state cannot be read | the names in the FD store say who is there; a rollout relieves them |

mod adopt;
pub(super) mod crash;
pub(super) mod keeper;
mod notebook;
mod passed;
mod state;
mod strangers;
pub(super) mod upgrade;

pub(super) use adopt::{Past, supervisor};
pub(super) use notebook::Notebook;
pub(super) use passed::Passed;

use super::channel::Memory;
use super::log::{Level, Log};
use super::source::Launch;
use super::systemd::{Manager, Polled, needed, room};
use super::worker::Process;
use super::{App, LastFailure, Primary, runtime_dir};
use crate::protocol::store::Name;
use crate::sys::cgroup::Delegated;
use keeper::{Keeper, Orders};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// What cannot be used leaves the FD store, before anything else is put there under its name. That takes all of the name,
/// so of two the one that is used is put there again.
pub(super) fn refuse(log: &Log, passed: &mut Passed, manager: &mut Manager) {
    for (text, why) in std::mem::take(&mut passed.refused) {
        let said = format!("cannot use '{text}' from the FD store: {why}; removing it");
        log.say(Level::Warning, &said);
        manager.remove_from_store(&text);
        let Ok(name) = text.parse::<Name>() else { continue };
        if let Some(copy) = passed.carried.get(&name).and_then(|fd| fd.try_clone().ok()) {
            let is_polled = matches!(name, Name::Leash | Name::Keeper);
            manager.give_away(&name, copy, if is_polled { Polled::Yes } else { Polled::No });
        }
    }
}

/// Makes a keeper, then relieves the last one of the connections that it has.
pub(super) fn change_keepers(
    app: &App,
    launch: &Launch,
    passed: &mut Passed,
    manager: &mut Manager,
) -> (io::Result<Keeper>, Vec<OwnedFd>) {
    let old = (passed.carried.remove(&Name::Leash), passed.carried.remove(&Name::Keeper));
    let keeper = hire(app, launch, old.0, manager);
    if let Ok(keeper) = &keeper {
        manager.remove_from_store(&Name::Keeper.to_string());
        // It drops out of the store when the keeper is gone. Before the last one ends, so that there is always one.
        let _ = manager.put(Name::Keeper, &keeper.door, Polled::Yes);
    }
    (keeper, old.1.map(keeper::relieve).unwrap_or_default())
}

/// The leash that lies in the FD store stays the same; without one there is a new one.
fn hire(
    app: &App,
    launch: &Launch,
    leash: Option<OwnedFd>,
    manager: &mut Manager,
) -> io::Result<Keeper> {
    let policy = &launch.settings.policy;
    let orders = Orders {
        app: app.name.clone(),
        control: app.folder.join("control"),
        grace: policy.stop_timeout,
        orphans_stay: !app.orphans_end && !manager.is_there(),
    };
    let read = match leash {
        Some(leash) => keeper::read_end(&leash)?,
        None => {
            let (read, write) = super::output::pipe()?;
            manager.give_away(&Name::Leash, write, Polled::Yes);
            read
        }
    };
    manager.hold(Name::Leash, read.try_clone()?);
    Keeper::hire(orders, read)
}

/// Under systemd each worker has a control group of its own, where the unit's is delegated to us. To be called before
/// anybody is made who would stay in the unit's own: with controllers for its children it takes no process.
pub(super) fn enter_group(app: &App, log: &Log) -> Option<Delegated> {
    let groups = app.unit.as_ref().and_then(|_| Delegated::find())?;
    match groups.enter_main() {
        Ok(()) => Some(groups),
        Err(e) => {
            let text = format!(
                "cannot move into a control group of our own: {e}; workers share the unit's"
            );
            log.say(Level::Warning, &text);
            None
        }
    }
}

impl Primary {
    pub(super) fn note_keeper(&mut self, keeper: io::Result<Keeper>) {
        match keeper {
            Ok(keeper) => {
                self.keeper = Some(keeper);
            }
            Err(e) => {
                let text = format!(
                    "cannot make a keeper: {e}; should the primary die and not be started again, its workers stay"
                );
                self.log.say(Level::Warning, &text);
            }
        }
    }

    /// The last one has ended.
    pub(super) fn hire_keeper(&mut self) {
        let Some(launch) = self.launches.get(&self.core.goal()) else { return };
        let leash = self.manager.copy_of(&Name::Leash);
        let keeper = hire(&self.app, launch, leash, &mut self.manager);
        if let Ok(keeper) = &keeper {
            let _ = self.manager.put(Name::Keeper, &keeper.door, Polled::Yes);
        }
        self.note_keeper(keeper);
    }

    /// Goes on where the last primary stopped, or begins.
    pub(super) fn go_on(&mut self, past: Past, mut passed: Passed, connections: Vec<OwnedFd>) {
        let is_first = matches!(past, Past::None);
        let mut known = BTreeMap::new();
        match past {
            Past::None => {}
            Past::Known(state, notebook) => {
                if state.dogwatch != env!("CARGO_PKG_VERSION") {
                    let text = format!("the last primary was dogwatch {}", state.dogwatch);
                    self.log.say(Level::Notice, &text);
                }
                self.primaries = state.primaries.saturating_add(1);
                (self.began, self.exits, known) = (state.began, state.exits, state.workers);
                state.balance.into_iter().for_each(|memory| self.balance.recall(memory));
                self.last_failure =
                    state.last_failure.map(|failure| LastFailure { failure, tail: None });
                // It lies there, unless it went with another of its name; twice it is not stored.
                let _ = self.manager.put(Name::State, notebook.as_fd(), Polled::No);
                self.notebook = Some(notebook);
            }
            Past::Lost { why, .. } => {
                let text = format!(
                    "cannot read the state of the last primary: {why}; its workers go on serving and are relieved by a reload"
                );
                self.log.say(Level::Warning, &text);
                self.wants_relief = true;
            }
        }
        let has_channels = passed.carried.contains_key(&Name::Channels);
        let of_channels = self.recall_channels(&mut passed);
        self.open_notebooks();
        if !(is_first && passed.carried.is_empty()) {
            self.take_back(passed.carried, known, is_first);
        } else if self.app.unit.is_some() && self.manager.is_there() {
            let strangers = self.strangers();
            self.end_strangers(strangers);
        }
        // Their channels are open, and nobody knows what they serve.
        let is_lost = !has_channels || self.channels_are_lost;
        if !is_first && is_lost && !self.pids_on_channels().is_empty() {
            self.wants_relief = true;
        }
        if let Some(pid) = self.balance.held_still()
            && self.workers.values().any(|process| process.pid().as_raw() == pid)
        {
            super::balance::go_on(pid);
        }
        self.set_table();
        self.balance.release(|worker| self.workers.contains_key(&worker));
        // Not before: should we be killed while we take back, what the last one knew of the channels is still there.
        if let Some(notebook) = of_channels {
            self.channels.write_to(notebook);
        }
        let sockets: Vec<_> = self.workers.values().map(Process::notify_socket).collect();
        runtime_dir::remove_stale(&self.app.folder, &sockets);
        self.say_room();
        self.manager.resume(self.core.is_started(), self.core.is_rolling());
        self.channels.sort_out(connections, self.pids_on_channels());
        self.reap();
    }

    /// What has no memory yet gets one, and what the primary opened itself goes into the store.
    fn open_notebooks(&mut self) {
        if self.notebook.is_none() {
            match Notebook::new("dogwatch-state") {
                Ok(notebook) => {
                    // One that could not be read may lie there.
                    self.manager.remove_from_store(&Name::State.to_string());
                    let _ = self.manager.put(Name::State, notebook.as_fd(), Polled::No);
                    self.notebook = Some(notebook);
                }
                Err(e) => {
                    let text = format!(
                        "cannot write down the state: {e}; the next primary will not know of it"
                    );
                    self.log.say(Level::Warning, &text);
                }
            }
        }
        self.store_listeners();
    }

    /// The sockets that we have opened, and what connections are steered by, go into the FD store.
    pub(super) fn store_listeners(&mut self) {
        let Self { listeners, manager, balance, .. } = self;
        let mut keep = |name: Name, fd: BorrowedFd<'_>| {
            if !manager.holds(&name) {
                let _ = manager.put(name, fd, Polled::No);
            }
        };
        listeners.own().for_each(|(name, fd)| keep(name, fd.as_fd()));
        balance.each_map(|at, maps| {
            keep(Name::Lanes(at), maps.sockets());
            keep(Name::Table(at), maps.control());
        });
    }

    /// The channels are as they were, and whatever was opened for programs is still open.
    fn recall_channels(&mut self, passed: &mut Passed) -> Option<Notebook> {
        let read = passed.carried.remove(&Name::Channels).map(|fd| {
            let (notebook, text) = Notebook::open(fd)?;
            Ok::<_, String>((notebook, Memory::read(&text)?))
        });
        let (notebook, memory) = match read {
            Some(Ok((notebook, memory))) => (Some(notebook), memory),
            Some(Err(why)) => {
                self.channels_are_lost = true;
                let text = format!(
                    "cannot read what was known of the channels: {why}; workers on them are relieved"
                );
                self.log.say(Level::Warning, &text);
                (None, Memory::default())
            }
            None => (None, Memory::default()),
        };
        let mut opened = BTreeMap::new();
        passed.carried.retain(|name, fd| {
            let Name::Opened(at) = name else { return true };
            if let (Ok(copy), Ok(fd)) = (fd.try_clone(), fd.try_clone()) {
                opened.insert(usize::from(*at), copy);
                self.manager.hold(name.clone(), fd);
            }
            false
        });
        self.channels.recall(memory, opened, self.primaries);
        let is_new = notebook.is_none();
        let notebook = notebook.map_or_else(|| Notebook::new("dogwatch-channels"), Ok);
        let notebook = notebook.ok()?;
        if is_new {
            self.manager.remove_from_store(&Name::Channels.to_string());
            let _ = self.manager.put(Name::Channels, &notebook, Polled::No);
        } else if let Ok(fd) = notebook.as_fd().try_clone_to_owned() {
            self.manager.hold(Name::Channels, fd);
        }
        Some(notebook)
    }

    /// A socket was opened because a program asked for it.
    pub(super) fn store_opened(&mut self, at: usize, fd: &OwnedFd) {
        if let Ok(at) = u16::try_from(at) {
            let _ = self.manager.put(Name::Opened(at), fd, Polled::No);
        }
    }

    /// Says what is missing for everybody to be taken back.
    pub(super) fn say_room(&self) {
        let Some(launch) = self.launches.get(&self.core.goal()) else { return };
        let policy = &launch.settings.policy;
        let listeners = &self.listeners.all;
        let own = listeners.iter().flat_map(|l| &l.sockets).filter(|socket| socket.is_own).count();
        // What steers a listener is two maps.
        let maps = 2 * listeners.iter().filter(|listener| listener.has_lanes()).count();
        let sockets = own + maps;
        let needed = needed(self.core.slots(), policy.surge, sockets);
        if let Some(room) = room().filter(|room| self.manager.is_there() && *room < needed) {
            let text = format!(
                "the FD store has room for {room} descriptors and {needed} may be needed; should the primary die, workers that do not fit are relieved"
            );
            self.log.say(Level::Warning, &text);
            let hint = format!("hint: say FileDescriptorStoreMax={needed} in the unit");
            self.log.say(Level::Notice, &hint);
        }
    }

    /// The flag belongs to the socket, which living workers share.
    pub(super) fn say_mended(&self, mended: &[String]) {
        if mended.is_empty() || !self.listeners.adopted || self.workers.is_empty() {
            return;
        }
        let names = mended.join("', '");
        let blocking = self.launches.get(&self.core.goal()).is_some_and(|l| l.settings.blocking);
        let (what, line) = if blocking { ("set", "no") } else { ("cleared", "yes") };
        let text = format!(
            "systemd had {what} O_NONBLOCK on listener '{names}' under the feet of its workers; mended it"
        );
        self.log.say(Level::Warning, &text);
        self.log.say(Level::Notice, &format!("hint: say NonBlocking={line} in the unit"));
    }

    /// Writes down what is known now. A primary that cannot serves all the same.
    pub(super) fn keep(&mut self) {
        if std::mem::take(&mut self.unkept) == 0 {
            return;
        }
        let written = state::write(self).map_err(io::Error::other);
        let Some(notebook) = &mut self.notebook else { return };
        if let Err(e) = written.and_then(|text| notebook.write(&text)) {
            self.notebook = None;
            // Better the names in the store than what is true no more.
            self.manager.drop_stored(&Name::State);
            let text = format!(
                "cannot write down the state: {e}; the next primary will only know who is there"
            );
            self.log.say(Level::Warning, &text);
        }
    }
}
