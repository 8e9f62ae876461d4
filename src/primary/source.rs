//! Where settings come from: the file and the flags, read anew for each generation, and looked at hard enough that a
//! generation which cannot start is refused before anything is touched.

use super::control::Readers;
use super::disk::{self, Disk};
use crate::config::launcher::{self, Real};
use crate::config::typed::Typed;
use crate::config::values::{Handoff, LogMode, for_slot};
use crate::config::{Error, Fault, Settings, envfile, file};
use crate::core::Slot;
use crate::protocol::journal::STREAM_SOCKET;
use crate::sys::{process, spawn};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// A file, and the flags that win over it.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The TOML file.
    pub config: Option<PathBuf>,
    /// What was typed after `run`.
    pub flags: Typed,
    /// Without a service manager: the workers live on when the primary dies.
    pub orphans_stay: bool,
}

/// Settings with what they were resolved to: what the workers of one generation are started from.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Launch {
    pub(super) settings: Settings,
    /// The working directory without symlinks, so that a rollback goes back to where the generation was.
    directory: Option<PathBuf>,
    /// What is started in place of a command that would keep the channel.
    real: Option<Real>,
    /// Where it runs, seen from the working directory.
    within: PathBuf,
    /// The program that was found when it was read.
    pub(super) found: PathBuf,
    /// Who may look.
    pub(super) readers: Readers,
}

impl Source {
    /// Reads the file again and returns settings that can be started from, as far as that can be known: the
    /// directory and the program exist, the environment files can be read.
    ///
    /// # Errors
    /// What is wrong, where, and what to do.
    pub(super) fn load(&self) -> Result<Launch, Error> {
        let file = self.read()?;
        let flags = &self.flags;
        let cpus = std::thread::available_parallelism()
            .map_or(1, |n| u16::try_from(n.get()).unwrap_or(u16::MAX));
        let settings = Settings::new(flags.clone().or(file.typed.clone()), cpus);
        let settings = settings.map_err(|fault| match &file.name {
            Some(name) if self.is_files_fault(&file, &fault, cpus) => {
                fault.placed(name, &file.text)
            }
            Some(_) | None => Error::from(fault),
        })?;
        // Whatever a flag names is not the file's fault.
        let blame =
            |is_flag: bool, key: &str, error: Error| match file.place(key).filter(|_| !is_flag) {
                Some(place) => {
                    Error { message: format!("{place}: '{key}': {}", error.message), ..error }
                }
                None => error,
            };
        let directory = resolve(&settings)
            .map_err(|e| blame(flags.working_directory.is_some(), "working-directory", e))?;
        check_log(settings.log).map_err(|e| blame(flags.log.mode.is_some(), "log.mode", e))?;
        let readers = Readers::resolve(&settings.readers)
            .map_err(|e| blame(flags.control.readers.is_some(), "control.readers", e))?;
        let mut launch = Launch {
            directory,
            real: None,
            within: PathBuf::new(),
            settings,
            found: PathBuf::new(),
            readers,
        };
        launch.take_away_launcher().map_err(|e| blame(flags.command.is_some(), "command", e))?;
        let environment = launch
            .environment(Slot(0))
            .map_err(|e| blame(flags.environment_files.is_some(), "environment-files", e.error))?;
        launch.found = launch
            .program(&environment)
            .map_err(|e| blame(flags.command.is_some(), "command", e.error))?;
        Ok(launch)
    }

    /// Returns the settings, looked at as hard as before a start.
    ///
    /// # Errors
    /// What is wrong, where, and what to do.
    pub fn check(&self) -> Result<Settings, Error> {
        self.load().map(|launch| launch.settings)
    }

    fn read(&self) -> Result<Written, Error> {
        let Some(path) = &self.config else {
            return Ok(Written { name: None, text: String::new(), typed: Typed::default() });
        };
        let name = path.display().to_string();
        let text =
            disk::read_config(path).map_err(|e| plain(format!("cannot read '{name}': {e}")))?;
        let typed = file::parse(&name, &text)?;
        Ok(Written { name: Some(name), text, typed })
    }
}

/// A file that was read; without a name there is none.
struct Written {
    name: Option<String>,
    text: String,
    typed: Typed,
}

impl Written {
    /// Where a key stands, as `name:line`.
    fn place(&self, key: &str) -> Option<String> {
        self.name.as_ref().map(|name| file::place(name, &self.text, key))
    }
}

/// Refuses to send output to a journal that is not there.
fn check_log(mode: LogMode) -> Result<(), Error> {
    match mode {
        LogMode::Stream | LogMode::Direct if !Path::new(STREAM_SOCKET).exists() => Err(Error {
            message: format!("cannot log to the journal: there is no '{STREAM_SOCKET}'"),
            hint: Some("leave the log mode at 'auto', or choose 'prefix' or 'inherit'".to_owned()),
        }),
        LogMode::Auto | LogMode::Stream | LogMode::Direct | LogMode::Prefix | LogMode::Inherit => {
            Ok(())
        }
    }
}

impl Source {
    /// Whether the file alone, with the command that the flags may name, is wrong in the same way.
    fn is_files_fault(&self, file: &Written, fault: &Fault, cpus: u16) -> bool {
        let command = Typed { command: self.flags.command.clone(), ..Typed::default() };
        Settings::new(command.or(file.typed.clone()), cpus).as_ref().err() == Some(fault)
    }
}

impl Launch {
    /// Returns the variables that the file and its environment files set for the workers of a slot, later ones last.
    ///
    /// # Errors
    /// When a file cannot be read or has a line that is no assignment.
    pub(super) fn environment(&self, slot: Slot) -> Result<Vec<(String, String)>, Cannot> {
        let mut variables = Vec::new();
        for path in &self.settings.environment_files {
            let name = path.display().to_string();
            let text = read_regular(path)
                .map_err(|e| Cannot::new(format!("cannot read environment file '{name}'"), &e))?;
            variables.extend(envfile::parse(&name, &text)?);
        }
        let own = |(name, value): &(String, String)| (name.clone(), for_slot(value, slot.0));
        variables.extend(self.settings.env.iter().map(own));
        if let Some(real) = &self.real {
            variables.extend(searched_first(self.moved(&real.path), &variables));
            variables.extend(real.variables.iter().cloned());
        }
        Ok(variables)
    }

    /// Folders as they are now: of a directory that is gone, those in the one that took its place.
    fn moved(&self, folders: &[PathBuf]) -> Vec<PathBuf> {
        let (before, now) = (self.pinned(), self.directory());
        let moved = |path: &PathBuf| {
            let below = before.and_then(|before| path.strip_prefix(before).ok());
            below.zip(now.as_ref()).map_or_else(|| path.clone(), |(below, now)| now.join(below))
        };
        folders.iter().map(moved).collect()
    }

    /// What is executed: the configured command, or what it would have started itself.
    pub(super) fn command(&self) -> &[String] {
        self.real.as_ref().map_or(&self.settings.command, |real| &real.argv)
    }

    /// Says what is started in place of the configured command, if anything is.
    pub(super) fn notice(&self) -> Option<String> {
        self.real.as_ref().map(|real| real.notice(&self.settings.command))
    }

    /// Finds the real program where the command is one that would keep the channel.
    fn take_away_launcher(&mut self) -> Result<(), Error> {
        match self.settings.handoff {
            Handoff::Fd => return Ok(()),
            Handoff::Node => {}
        }
        let here = self.directory.clone().map_or_else(std::env::current_dir, Ok);
        let here = here.map_err(|e| plain(format!("cannot tell the working directory: {e}")))?;
        let Some(mut real) = launcher::real(&self.settings.command, &here, &Disk)? else {
            return Ok(());
        };
        if real.folder != here {
            self.within = real.folder.strip_prefix(&here).unwrap_or(&real.folder).to_owned();
            let name = real.folder.display();
            real.folder = real
                .folder
                .canonicalize()
                .map_err(|e| plain(format!("cannot enter working directory '{name}': {e}")))?;
            self.directory = Some(real.folder.clone());
        }
        self.real = Some(real);
        Ok(())
    }

    /// Returns the file to execute, looked for on the workers' own PATH.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn program(&self, environment: &[(String, String)]) -> Result<PathBuf, Cannot> {
        let name = &self.command()[0];
        let path = search_path(environment);
        let directory = self.directory();
        let found = spawn::find(name, &path, directory.as_deref()).and_then(|program| {
            // A relative program is relative to where the worker runs.
            let seen_from_here = directory.as_deref().unwrap_or(Path::new("")).join(&program);
            std::fs::metadata(seen_from_here).map(|_| program)
        });
        found.map_err(|e| {
            let mut cannot = Cannot::new(format!("cannot find program '{name}'"), &e);
            let searched = || format!("it was looked for on PATH, which is {}", path.display());
            cannot.error.hint = (!name.contains('/')).then(searched);
            cannot
        })
    }

    /// The working directory as it was resolved for the generation.
    pub(super) fn pinned(&self) -> Option<&PathBuf> {
        self.directory.as_ref()
    }

    /// Returns where workers run. A directory that is gone (an old release that was cleaned up) is resolved again.
    pub(super) fn directory(&self) -> Option<PathBuf> {
        let pinned = self.directory.as_ref()?;
        if pinned.is_dir() {
            return Some(pinned.clone());
        }
        let path = self.settings.working_directory.as_ref()?.join(&self.within);
        // Joined with nothing it would end in a slash.
        Some(path.canonicalize().unwrap_or_else(|_| path.components().collect()))
    }
}

/// Reads a file whole.
fn read_regular(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    disk::open_regular(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Where the workers' programs are looked for.
fn search_path(variables: &[(String, String)]) -> OsString {
    let set = variables.iter().rev().find(|(name, _)| name == "PATH");
    set.map(|(_, value)| OsString::from(value))
        .or_else(|| std::env::var_os("PATH"))
        .unwrap_or_else(|| "/usr/bin:/bin".into())
}

/// PATH with these folders before the workers' own.
fn searched_first(
    folders: Vec<PathBuf>,
    variables: &[(String, String)],
) -> Option<(String, String)> {
    if folders.is_empty() {
        return None;
    }
    let theirs = search_path(variables);
    let all = folders.into_iter().chain(std::env::split_paths(&theirs));
    let path = std::env::join_paths(all).ok()?;
    Some(("PATH".to_owned(), path.into_string().ok()?))
}

fn resolve(settings: &Settings) -> Result<Option<PathBuf>, Error> {
    let Some(path) = &settings.working_directory else {
        return Ok(None);
    };
    let name = path.display();
    let resolved = path
        .canonicalize()
        .map_err(|e| plain(format!("cannot enter working directory '{name}': {e}")))?;
    if !resolved.is_dir() {
        return Err(plain(format!("cannot enter working directory '{name}': not a directory")));
    }
    Ok(Some(resolved))
}

/// Why something that settings name cannot be used.
#[derive(Debug)]
pub(super) struct Cannot {
    pub(super) error: Error,
    /// The machine lacks something just now; the settings are not to blame.
    pub(super) is_transient: bool,
}

impl Cannot {
    fn new(what: String, e: &io::Error) -> Self {
        Self { error: plain(format!("{what}: {e}")), is_transient: process::is_transient(e) }
    }
}

impl From<Error> for Cannot {
    fn from(error: Error) -> Self {
        Self { error, is_transient: false }
    }
}

fn plain(message: String) -> Error {
    Error { message, hint: None }
}
