//! Where settings come from: the file and the flags, read anew for each generation, and looked at hard enough that a
//! generation which cannot start is refused before anything is touched.

use crate::config::typed::Typed;
use crate::config::{Error, Settings, envfile, file};
use crate::sys::spawn;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A file, and the flags that win over it.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The TOML file.
    pub config: Option<PathBuf>,
    /// What was typed after `run`.
    pub flags: Typed,
}

/// Settings with what they were resolved to: what the workers of one generation are started from.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) settings: Settings,
    /// The working directory without symlinks, so that a rollback goes back to where the generation was.
    directory: Option<PathBuf>,
}

impl Source {
    /// Reads the file again and returns settings that can be started from, as far as that can be known: the
    /// directory and the program exist, the environment files can be read.
    ///
    /// # Errors
    /// What is wrong, where, and what to do.
    pub(super) fn load(&self) -> Result<Launch, Error> {
        let name = self.config.as_ref().map(|path| path.display().to_string());
        let file = match (&self.config, &name) {
            (Some(path), Some(name)) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|e| plain(format!("cannot read '{name}': {e}")))?;
                file::parse(name, &text)?
            }
            _ => Typed::default(),
        };
        let cpus = std::thread::available_parallelism()
            .map_or(1, |n| u16::try_from(n.get()).unwrap_or(u16::MAX));
        let settings = Settings::new(self.flags.clone().or(file), cpus).map_err(|mut error| {
            if let Some(name) = &name {
                error.message = format!("{name}: {}", error.message);
            }
            error
        })?;
        let launch = Launch { directory: resolve(&settings)?, settings };
        let environment = launch.environment()?;
        launch.program(&environment)?;
        Ok(launch)
    }
}

impl Launch {
    /// Returns the variables that the file and its environment files set for workers, later ones last.
    ///
    /// # Errors
    /// When a file cannot be read or has a line that is no assignment.
    pub(super) fn environment(&self) -> Result<Vec<(String, String)>, Error> {
        let mut variables = Vec::new();
        for path in &self.settings.environment_files {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .map_err(|e| plain(format!("cannot read environment file '{name}': {e}")))?;
            variables.extend(envfile::parse(&name, &text)?);
        }
        variables.extend(self.settings.env.iter().cloned());
        Ok(variables)
    }

    /// Returns the file to execute, looked for on the workers' own PATH.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn program(&self, environment: &[(String, String)]) -> Result<PathBuf, Error> {
        let name = &self.settings.command[0];
        let set = environment
            .iter()
            .rev()
            .find(|(key, _)| key == "PATH")
            .map(|(_, value)| OsString::from(value));
        let path =
            set.or_else(|| std::env::var_os("PATH")).unwrap_or_else(|| "/usr/bin:/bin".into());
        let directory = self.directory();
        let found = spawn::find(name, &path, directory.as_deref()).and_then(|program| {
            // A relative program is relative to where the worker runs.
            let seen_from_here = directory.as_deref().unwrap_or(Path::new("")).join(&program);
            std::fs::metadata(seen_from_here).map(|_| program)
        });
        found.map_err(|e| Error {
            message: format!("cannot find program '{name}': {e}"),
            hint: (!name.contains('/'))
                .then(|| format!("it was looked for on PATH, which is {}", path.display())),
        })
    }

    /// Returns where workers run. A directory that is gone (an old release that was cleaned up) is resolved again.
    pub(super) fn directory(&self) -> Option<PathBuf> {
        let pinned = self.directory.as_ref()?;
        if pinned.is_dir() {
            return Some(pinned.clone());
        }
        self.settings
            .working_directory
            .as_ref()
            .map(|path| path.canonicalize().unwrap_or_else(|_| path.clone()))
    }
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

fn plain(message: String) -> Error {
    Error { message, hint: None }
}
