//! What was found of an app, as plain data: whoever judges looks at nothing else.

use super::unit::Unit;
use crate::config::Settings;
use crate::config::typed::Typed;
use crate::config::units::{Refused, Scope, Units};
use crate::protocol::control::{Change, Shown};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Everything.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) app: String,
    pub(super) scope: Scope,
    /// The machine has a systemd that answers, or why not.
    pub(super) systemd: Result<(), String>,
    pub(super) is_root: bool,
    /// `None` for an app that was started without a file.
    pub(super) file: Option<File>,
    /// What the generator says of the file.
    pub(super) plan: Planned,
    /// The units that systemd has are those that would be made now.
    pub(super) is_made: bool,
    pub(super) has_generator: bool,
    pub(super) service: Option<Unit>,
    pub(super) socket: Option<Unit>,
    pub(super) who: Who,
    /// `None` where the file names none, or cannot be read.
    pub(super) directory: Option<Way>,
    pub(super) program: Option<Program>,
    /// What an interpreter is to run; `None` where that is not sure to be a file.
    pub(super) script: Option<Script>,
    /// What a start says, tried as its user, or as the caller.
    pub(super) trial: Trial,
    pub(super) primary: Primary,
    /// Who listens on this machine, with the program if that may be seen.
    pub(super) listening: Vec<Listening>,
    /// The first port that anybody may open (`ip_unprivileged_port_start` in `ip(7)`).
    pub(super) first_free_port: u16,
    pub(super) exposure: Option<Result<Exposure, String>>,
    /// Whether the user's manager is there without a login.
    pub(super) lingers: Option<bool>,
    /// The last lines of the service's last start.
    pub(super) last_lines: Vec<String>,
}

/// The app's file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) content: Content,
    pub(super) way: Way,
}

/// What a file says.
#[derive(Debug)]
pub(super) enum Content {
    Missing,
    /// The caller cannot read it.
    Unreadable(String),
    /// File, line, key and reason; and the remedy.
    Wrong(String, Option<String>),
    Good(Box<Typed>, Box<Settings>),
}

/// What the generator makes of the file.
#[derive(Debug, Default)]
pub(super) struct Planned {
    pub(super) units: Option<Units>,
    pub(super) refused: Option<Refused>,
    /// It names no address.
    pub(super) without: bool,
}

/// As whom the service runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Who {
    /// As it is called in a sentence.
    pub(super) name: String,
    /// `None` for a user that is made for each start.
    pub(super) user: Option<u32>,
    pub(super) groups: Vec<u32>,
    /// Has root's right to pass over modes.
    pub(super) overrides: bool,
    /// `user 'x'` or `group 'x'` that does not exist.
    pub(super) missing: Option<String>,
}

impl Who {
    /// Whether a file's mode lets them do this: 4 read, 1 execute or enter.
    pub(super) fn may(&self, step: &Step, bit: u32) -> bool {
        let bits = if self.user == Some(step.user) {
            step.mode >> 6
        } else if self.groups.contains(&step.group) {
            step.mode >> 3
        } else {
            step.mode
        };
        // What a list says is not known here. What nobody may execute root may not either.
        let passes = self.overrides && (step.is_folder || bit == 4 || step.mode & 0o111 != 0);
        step.has_acl || passes || bits & bit != 0
    }
}

/// A path with everything on it, symlinks followed.
#[derive(Clone, Debug, Default)]
pub(super) struct Way {
    pub(super) steps: Vec<Step>,
    /// Why it ends before its end …
    pub(super) trouble: Option<String>,
    /// … which is that the caller may not look.
    pub(super) is_denied: bool,
}

/// A folder or a file on a way.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) is_folder: bool,
    pub(super) has_acl: bool,
}

impl Way {
    /// The first folder that they may not enter.
    pub(super) fn closed<'a>(&'a self, to: &Who) -> Option<&'a Step> {
        self.steps.iter().find(|step| step.is_folder && !to.may(step, 1))
    }

    /// The file at its end.
    pub(super) fn end(&self) -> Option<&Step> {
        self.steps.last().filter(|_| self.trouble.is_none())
    }
}

/// The file that an interpreter is to run.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) path: PathBuf,
    pub(super) way: Way,
}

/// The first word of the command.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) name: String,
    /// Where it is looked for.
    pub(super) path: String,
    pub(super) found: Result<PathBuf, String>,
    pub(super) way: Way,
    /// What the script's first line names, if it is one, and whether that exists.
    pub(super) interpreter: Option<(String, bool)>,
    /// Where there is one of that name, though nobody looks there.
    pub(super) elsewhere: Option<PathBuf>,
}

/// What a start would say.
#[derive(Debug)]
pub(super) enum Trial {
    /// There is nothing to try.
    None,
    /// Nobody could try it: why.
    Unknown(String),
    /// A start would do, for whom.
    Good(String),
    /// What is wrong and the hint.
    Bad(String, Option<String>),
}

/// Whether it runs.
#[derive(Debug)]
pub(super) enum Primary {
    Runs {
        shown: Box<Shown>,
        /// What a reload would change, or why it would be refused; `None` if the caller may not ask.
        reload: Option<Result<Vec<Change>, String>>,
    },
    /// Somebody is there and does not answer, or not the caller.
    Silent(String),
    Absent,
}

/// Somebody who listens.
#[derive(Clone, Debug)]
pub(super) struct Listening {
    pub(super) address: SocketAddr,
    pub(super) is_datagram: bool,
    /// `'nginx' (pid 12)`.
    pub(super) holder: Option<String>,
}

/// What `systemd-analyze security` says.
#[derive(Clone, Debug)]
pub(super) struct Exposure {
    pub(super) level: f64,
    /// What costs most, beyond what every app costs, heaviest first.
    pub(super) points: Vec<(String, f64)>,
}

impl Facts {
    pub(super) fn settings(&self) -> Option<&Settings> {
        match &self.file.as_ref()?.content {
            Content::Good(_, settings) => Some(settings),
            Content::Missing | Content::Unreadable(_) | Content::Wrong(..) => None,
        }
    }

    pub(super) fn typed(&self) -> Option<&Typed> {
        match &self.file.as_ref()?.content {
            Content::Good(typed, _) => Some(typed),
            Content::Missing | Content::Unreadable(_) | Content::Wrong(..) => None,
        }
    }

    pub(super) fn shown(&self) -> Option<&Shown> {
        match &self.primary {
            Primary::Runs { shown, .. } => Some(shown),
            Primary::Silent(_) | Primary::Absent => None,
        }
    }

    pub(super) fn path(&self) -> String {
        self.file.as_ref().map_or_else(String::new, |file| file.path.display().to_string())
    }

    /// The service's unit, if systemd has it.
    pub(super) fn loaded_service(&self) -> Option<&Unit> {
        self.service.as_ref().filter(|unit| unit.is_loaded())
    }

    /// The socket's unit, if systemd has it.
    pub(super) fn loaded_socket(&self) -> Option<&Unit> {
        self.socket.as_ref().filter(|unit| unit.is_loaded())
    }

    /// The service as systemd has it, or would have it.
    pub(super) fn unit(&self) -> Option<Unit> {
        let planned = || self.plan.units.as_ref().map(|units| Unit::of_file(&units.service));
        self.loaded_service().cloned().or_else(planned)
    }

    pub(super) fn service_name(&self) -> String {
        let name = self.service.as_ref().map(|unit| unit.get("Id").to_owned());
        name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("{}.service", self.app))
    }

    pub(super) fn socket_name(&self) -> String {
        let service = self.service_name();
        format!("{}.socket", service.strip_suffix(".service").unwrap_or(&service))
    }

    /// `systemctl`, of whom.
    pub(super) fn systemctl(&self) -> &'static str {
        match self.scope {
            Scope::System => "systemctl",
            Scope::User => "systemctl --user",
        }
    }

    /// Whether the unit may put something else there: what is bound to it, or a state directory of a dynamic user.
    pub(super) fn is_provided(&self, path: &Path) -> bool {
        let Some(unit) = self.unit() else { return false };
        let keys = ["BindPaths", "BindReadOnlyPaths"];
        let bound = keys.iter().flat_map(|key| unit.words(key));
        let bound = bound.filter_map(|word| word.split(':').nth(1).map(str::to_owned));
        let states = ["/var/lib", "/var/cache", "/run"].map(str::to_owned);
        let is_dynamic = matches!(unit.get("DynamicUser"), "yes" | "true");
        bound
            .chain(states.into_iter().filter(|_| is_dynamic))
            .any(|there| path.starts_with(there.trim_start_matches('-')))
    }

    /// What hides a path from the service, by its unit (`ProtectHome=`, `PrivateTmp=` in `systemd.exec(5)`).
    pub(super) fn hidden_by(&self, path: &Path) -> Option<&'static str> {
        let unit = self.unit()?;
        let below = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
        let bound = ["BindPaths", "BindReadOnlyPaths"].iter().flat_map(|key| unit.words(key));
        let mut bound = bound.map(|word| word.split(':').next().unwrap_or_default().to_owned());
        if bound.any(|shown| !shown.is_empty() && path.starts_with(shown)) {
            return None;
        }
        let hides_home = matches!(unit.get("ProtectHome"), "yes" | "true" | "tmpfs");
        let hides_tmp =
            matches!(unit.get("PrivateTmp"), "yes" | "true" | "connected" | "disconnected");
        if hides_home && below(&["/home", "/root", "/run/user"]) {
            Some("ProtectHome")
        } else if hides_tmp && below(&["/tmp", "/var/tmp"]) {
            Some("PrivateTmp")
        } else {
            None
        }
    }
}
