//! What does not change while the primary lives: the app's name, where its sockets are, where its output goes.

use super::console::Console;
use super::log::{Level, Log};
use super::source::Source;
use super::systemd::unit;
use super::tail::Recent;
use super::{Refusal, refusal, runtime_dir};
use crate::core::Slot;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// What does not change while the primary lives.
#[derive(Debug)]
pub(super) struct App {
    pub(super) name: String,
    /// The systemd unit that it runs in.
    pub(super) unit: Option<String>,
    /// Where its sockets are.
    pub(super) folder: PathBuf,
    /// Without a service manager, workers end with their primary.
    pub(super) orphans_end: bool,
    /// The limit of open files that workers get back, soft and hard.
    pub(super) open_files: Option<(u64, u64)>,
    /// Standard error is the journal.
    pub(super) in_journal: bool,
    /// Standard output is a terminal.
    pub(super) on_terminal: bool,
    pub(super) colour: bool,
    /// Where lines with a slot's name go.
    pub(super) stdout: Arc<Mutex<Console>>,
    pub(super) stderr: Arc<Mutex<Console>>,
    /// The last lines of all workers, where no journal keeps them.
    pub(super) recent: Recent,
    /// Tells those who move output to leave it to the next primary.
    pub(super) halt: watch::Sender<bool>,
}

impl App {
    /// The name of a slot's output.
    pub(super) fn identifier(&self, slot: Slot) -> String {
        format!("{}/{slot}", self.name)
    }

    /// What stands before a slot's lines on a terminal.
    pub(super) fn prefix(&self, slot: Slot) -> String {
        let name = self.identifier(slot);
        if self.colour {
            // Six colours that can be told apart on dark and light, in turn.
            format!("\x1b[{}m{name} |\x1b[0m ", 31 + (slot.0 + 1) % 6)
        } else {
            format!("{name} | ")
        }
    }
}

impl App {
    pub(super) fn new(name: &str, source: &Source) -> Result<Self, Refusal> {
        let folder = runtime_dir::prepare(name).map_err(|e| {
            refusal(format!(
                "cannot use runtime directory '{}': {e}",
                runtime_dir::choose(name).display()
            ))
        })?;
        let on_terminal = io::stdout().is_terminal();
        Ok(Self {
            name: name.to_owned(),
            unit: unit(),
            folder,
            orphans_end: !source.orphans_stay,
            open_files: None,
            in_journal: libsystemd::logging::connected_to_journal(),
            on_terminal,
            colour: on_terminal && std::env::var_os("NO_COLOR").is_none(),
            stdout: Arc::new(Mutex::new(Console::new(io::stdout()))),
            stderr: Arc::new(Mutex::new(Console::new(io::stderr()))),
            recent: Recent::default(),
            halt: watch::Sender::new(false),
        })
    }

    /// Lifts what limits us, and says where that cannot be done.
    pub(super) fn note_limits(&mut self, open_files: io::Result<(u64, u64)>, log: &Log) {
        if let Err(e) = crate::sys::process::become_subreaper() {
            log.say(
                Level::Warning,
                &format!("cannot adopt orphans: {e}; what workers leave behind is not reaped"),
            );
        }
        match open_files {
            // Before an upgrade it was raised already.
            Ok(before) => self.open_files = Some(inherited_limits().unwrap_or(before)),
            Err(e) => log.say(
                Level::Warning,
                &format!("cannot raise the limit of open files: {e}; going on with what it is"),
            ),
        }
    }
}

/// The variable in which an upgraded primary is told what limit of open files its workers get back: soft and hard.
pub(super) const OPEN_FILES: &str = "DOGWATCH_OPEN_FILES";

fn inherited_limits() -> Option<(u64, u64)> {
    let text = std::env::var(OPEN_FILES).ok()?;
    let (soft, hard) = text.split_once(':')?;
    Some((soft.parse().ok()?, hard.parse().ok()?))
}

/// How long a name may be: it is part of paths of sockets, which hold 107 bytes.
const MAX_NAME: usize = 40;

/// Returns why `name` cannot be an app's name; `None` if it can.
#[must_use]
pub fn refuse_name(name: &str) -> Option<String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "_-.@".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || name.starts_with('.') || !name.chars().all(valid)
    {
        return Some(format!(
            "'{name}' cannot be the name of an app, expected letters, digits, '-', '_', '.' and '@', at most {MAX_NAME}"
        ));
    }
    None
}
