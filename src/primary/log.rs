//! What the primary itself says: native journal entries with fields under systemd, else lines on standard error.
//!
//! Nothing here waits: when the journal or the terminal does not take a message it is counted, and the count is said
//! with the next one that goes through. The journald crate and libsystemd's `journal_send` block instead.

use super::console::Console;
use crate::core::{Cause, Next, Report, Slot};
use crate::protocol::journal::{NATIVE_SOCKET, native_entry};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::cell::{Cell, RefCell};
use std::io::IsTerminal as _;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

/// How bad it is (`syslog(3)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
    Debug = 7,
}

/// Where the primary's messages go.
#[derive(Debug)]
pub(super) struct Log {
    app: String,
    journal: Option<UnixDatagram>,
    colour: bool,
    console: RefCell<Console>,
    /// Messages that could not be written since the last one that could.
    lost: Cell<u64>,
}

/// Names an event for ever, for `journalctl MESSAGE_ID=` and the catalog (`sd-id128(3)`).
const STARTED: &str = "b3146a3e06624d6daaac1f0022086e95";
const READY: &str = "0e85e579dac8432391fb5dc03905221a";
const FAILED: &str = "1a141e9a74cc444889838b2c287c0967";
const GIVEN_UP: &str = "d87f81fb26af4d5f88b6b45415963086";
const GONE: &str = "271aa528f76d40b49ed1b85c4227d83c";
const KILLED: &str = "6a364f7ac53b45ba94080e681b3d5529";
const RELOADING: &str = "ce50b992e39a429ab8366c8a41d09437";
const QUEUED: &str = "f2168f7442c14b908c597d217132e64a";
const RELOADED: &str = "7a50afeba35248cd8392b956b5ab0aef";
const ROLLED_BACK: &str = "a4dc9feb2609463e9e30c15ddc368026";
const CANARY: &str = "a63295068fc94a9cbf71370de1deca4e";
const PROMOTED: &str = "f98d039481864cc4bb0a4c881365abb6";
const SCALED: &str = "7e06bcc1cc3d43b692191f028dde073e";
const STOPPING: &str = "74b3d2de1047417d92df1e9d569678ce";
const RESTARTING: &str = "db9d259c92094141bde5b47275cc6c9f";
const SLOT_STOPPED: &str = "505d264b70744985a85e27bde3e44a51";
const SLOT_STARTED: &str = "e9ea7c7f69904c2c8a43acd58a19db8d";
const PAUSED: &str = "c953d93e26f14844bd2a088bfc7e9383";
const RESUMED: &str = "b2fec2f175544233a403662ad04cb1fc";
const RESET: &str = "8208094b8b1d4cd1ba56e0993228e02c";
pub(super) const TAKEN_OVER: &str = "5a0b7d2f4f0e4c6fb6c3a1f0c8a3d7be";
pub(super) const REFUSED: &str = "f1b4048128194701b0239f2f7434ceb8";

impl Log {
    /// Returns the log of an app; `journal` says whether standard error goes to the journal anyway.
    pub(super) fn new(app: &str, journal: bool) -> Self {
        let socket = || {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok().map(|()| socket)
        };
        let console = RefCell::new(Console::new(std::io::stderr()));
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            app: app.to_owned(),
            journal: journal.then(socket).flatten(),
            colour,
            console,
            lost: Cell::new(0),
        }
    }

    /// Says what the supervisor reports.
    pub(super) fn report(&self, report: &Report) {
        let (level, id, fields) = describe(report);
        self.entry(level, Some(id), &report.to_string(), &fields);
    }

    /// Says something that is no report.
    pub(super) fn say(&self, level: Level, text: &str) {
        self.entry(level, None, text, &[]);
    }

    /// Says something with a message id and fields of its own.
    pub(super) fn entry(
        &self,
        level: Level,
        id: Option<&str>,
        text: &str,
        fields: &[(&str, String)],
    ) {
        let lost = self.lost.get();
        if lost > 0
            && self.write(
                Level::Warning,
                None,
                &format!("{lost} messages could not be written"),
                &[],
            )
        {
            self.lost.set(0);
        }
        if !self.write(level, id, text, fields) {
            self.lost.set(self.lost.get() + 1);
        }
    }

    fn write(&self, level: Level, id: Option<&str>, text: &str, fields: &[(&str, String)]) -> bool {
        if let Some(journal) = &self.journal {
            let priority = (level as u8).to_string();
            let mut all = vec![
                ("PRIORITY", priority.as_str()),
                ("SYSLOG_IDENTIFIER", "dogwatch"),
                ("DOGWATCH_APP", &self.app),
                ("MESSAGE", text),
            ];
            all.extend(id.map(|id| ("MESSAGE_ID", id)));
            all.extend(fields.iter().map(|(name, value)| (*name, value.as_str())));
            match journal.send_to(&native_entry(&all), NATIVE_SOCKET) {
                Ok(_) => return true,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return false,
                // No journald: standard error still goes somewhere.
                Err(_) => {}
            }
        }
        level == Level::Debug || self.line(level, text)
    }

    fn line(&self, level: Level, text: &str) -> bool {
        let (on, off) = match level {
            Level::Error if self.colour => ("\x1b[31m", "\x1b[0m"),
            Level::Warning if self.colour => ("\x1b[33m", "\x1b[0m"),
            Level::Notice if self.colour => ("\x1b[1m", "\x1b[0m"),
            Level::Error | Level::Warning | Level::Notice | Level::Info | Level::Debug => ("", ""),
        };
        let line = format!("dogwatch: {on}{text}{off}\n");
        self.console.borrow_mut().write(line.as_bytes()).is_ok()
    }
}

/// Whether a terminal is gone (`POLLHUP` in `poll(2)`).
pub(super) fn is_hung_up(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::empty())];
    let _ = poll(&mut fds, PollTimeout::ZERO);
    fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

/// How bad a report is, its message id and its fields.
fn describe(report: &Report) -> (Level, &'static str, Vec<(&'static str, String)>) {
    let worker = |worker: &dyn ToString, slot: &dyn ToString, generation: &dyn ToString| {
        vec![
            ("DOGWATCH_WORKER", worker.to_string()),
            ("DOGWATCH_SLOT", slot.to_string()),
            ("DOGWATCH_GENERATION", generation.to_string()),
        ]
    };
    let generation =
        |generation: &dyn ToString| vec![("DOGWATCH_GENERATION", generation.to_string())];
    let maybe = |slot: &Option<Slot>| {
        slot.iter().map(|slot| ("DOGWATCH_SLOT", slot.to_string())).collect::<Vec<_>>()
    };
    match report {
        Report::Started { .. } => (Level::Notice, STARTED, vec![]),
        Report::Ready { worker: w, slot, generation, .. } => {
            (Level::Info, READY, worker(w, slot, generation))
        }
        Report::Failed { worker: w, slot, generation, next, .. } => match next {
            Next::GiveUp { .. } => (Level::Error, GIVEN_UP, worker(w, slot, generation)),
            Next::StartAgain(_) | Next::RollBack(_) | Next::KeepIncumbent => {
                (Level::Warning, FAILED, worker(w, slot, generation))
            }
        },
        Report::Gone { worker: w, slot, generation, .. } => {
            (Level::Info, GONE, worker(w, slot, generation))
        }
        Report::Killed { worker: w, slot, generation } => {
            (Level::Warning, KILLED, worker(w, slot, generation))
        }
        Report::Reloading { generation: g } => (Level::Notice, RELOADING, generation(g)),
        Report::Queued { generation: g, .. } => (Level::Notice, QUEUED, generation(g)),
        Report::Reloaded { generation: g, .. } => (Level::Notice, RELOADED, generation(g)),
        Report::RolledBack { generation: g, cause: Cause::TakenBack, .. } => {
            (Level::Notice, ROLLED_BACK, generation(g))
        }
        Report::RolledBack { generation: g, .. } => (Level::Error, ROLLED_BACK, generation(g)),
        Report::Canary { worker: w, slot, generation, .. } => {
            (Level::Notice, CANARY, worker(w, slot, generation))
        }
        Report::Promoted { worker: w, slot, generation, .. } => {
            (Level::Notice, PROMOTED, worker(w, slot, generation))
        }
        Report::Scaled { .. } => (Level::Notice, SCALED, vec![]),
        Report::Restarting { slot } => (Level::Notice, RESTARTING, maybe(slot)),
        Report::SlotStopped { slot } => (Level::Notice, SLOT_STOPPED, maybe(&Some(*slot))),
        Report::SlotStarted { slot } => (Level::Notice, SLOT_STARTED, maybe(&Some(*slot))),
        Report::Paused => (Level::Notice, PAUSED, vec![]),
        Report::Resumed => (Level::Notice, RESUMED, vec![]),
        Report::Reset { slot } => (Level::Notice, RESET, maybe(slot)),
        Report::Stopping { .. } => (Level::Notice, STOPPING, vec![]),
    }
}
