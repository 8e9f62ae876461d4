//! From a file and flags to [`Settings`], which are valid by construction. Nothing else says "invalid".
//!
//! Pure: the shell reads files and asks the machine, and hands over text and numbers.

mod describe;
pub mod envfile;
pub mod file;
pub mod launcher;
pub mod typed;
pub mod units;
pub mod values;

use crate::core::Policy;
pub use describe::Difference;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use typed::Typed;
use values::{
    Address, Balance, Handoff, LogMode, Reader, ReadyWhen, StopSignal, StopWhen, Workers,
};

/// Why settings are refused: what and where, and at most one remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// File, line, key and reason, as far as they are known.
    pub message: String,
    /// What to do about it, if that is one thing.
    pub hint: Option<String>,
}

/// What is wrong with settings, before anybody has said where they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key that it is about, dotted; `None` if it is about no key that is there.
    pub key: Option<&'static str>,
    /// What is wrong.
    pub reason: String,
    /// What to do about it, if that is one thing.
    pub hint: Option<String>,
}

impl Fault {
    /// Returns what is wrong with a key.
    fn of(key: &'static str, reason: impl Into<String>) -> Self {
        Self { key: Some(key), reason: reason.into(), hint: None }
    }

    /// Returns it with the remedy.
    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Returns the error for a file, with the line where the key stands.
    #[must_use]
    pub fn placed(self, name: &str, text: &str) -> Error {
        let place = file::place(name, text, self.key.unwrap_or_default());
        Error { message: format!("{place}: {self}"), hint: self.hint }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            Some(key) => write!(f, "'{key}': {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self { message: fault.to_string(), hint: fault.hint }
    }
}

/// What an app is run with. Each generation has its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where to listen when no socket is passed.
    pub listen: Vec<Address>,
    /// Where workers run; `None` is where the primary runs.
    pub working_directory: Option<PathBuf>,
    /// Variables for the workers.
    pub env: Vec<(String, String)>,
    /// Files of variables, read at each spawn.
    pub environment_files: Vec<PathBuf>,
    /// Workers want their accept calls to block.
    pub blocking: bool,
    /// How workers get their sockets.
    pub handoff: Handoff,
    /// Who gets a new connection.
    pub balance: Balance,
    /// What counts as evidence of readiness.
    pub ready_when: ReadyWhen,
    /// The number of the readiness file descriptor; `None` is the first after the listeners.
    pub ready_fd: Option<i32>,
    /// The signal that asks a worker to end.
    pub stop_signal: StopSignal,
    /// The message that tells a worker over its channel that it is to end.
    pub stop_message: Option<String>,
    /// When a withdrawn worker gets its stop signal.
    #[serde(default = "at_once")]
    pub stop_when: StopWhen,
    /// Idle connections are closed for a worker once half of its drain time is over.
    #[serde(default)]
    pub close_idle: bool,
    /// Where the workers' output goes.
    pub log: LogMode,
    /// Who may look at the app over its control socket, beside root and the primary's own user.
    pub readers: Vec<Reader>,
    /// What the supervisor decides by.
    pub policy: Policy,
}

/// What a program that knew no other did.
fn at_once() -> StopWhen {
    StopWhen::AtOnce
}

impl Settings {
    /// Returns the settings that were typed, completed by the defaults, for a machine with `cpus` usable processors.
    ///
    /// # Errors
    /// When a setting is missing, or two do not go together.
    pub fn new(typed: Typed, cpus: u16) -> Result<Self, Fault> {
        let command = typed.command.unwrap_or_default();
        if command.first().is_none_or(String::is_empty) {
            return Err(Fault {
                key: None,
                reason: "no command: nothing says which program to run".to_owned(),
                hint: Some("write it after '--', or as 'command = [\"PROGRAM\", \"ARGUMENT\"]' in the file".to_owned()),
            });
        }
        let default = Policy::default();
        let time =
            |time: Option<values::Time>, default: Duration| time.map_or(default, |time| time.0);
        let limit = typed.restart.start_limit;
        let policy = Policy {
            slots: typed.workers.unwrap_or(Workers::Count(1)).count(cpus),
            ready_timeout: time(typed.ready.timeout, default.ready_timeout),
            settle: time(typed.ready.settle, default.settle),
            ready_min: typed.ready.min,
            drain: time(typed.stop.drain, default.drain),
            stop_timeout: time(typed.stop.timeout, default.stop_timeout),
            min_delay: time(typed.restart.min_delay, default.min_delay),
            max_delay: time(typed.restart.max_delay, default.max_delay),
            limit_count: limit.map_or(default.limit_count, |limit| limit.count),
            limit_within: limit.map_or(default.limit_within, |limit| limit.within.0),
            heartbeat: typed.watchdog.interval.map(|interval| interval.0),
            surge: typed.reload.surge.unwrap_or(default.surge),
            canary: typed.reload.canary,
            canary_time: typed.reload.canary_time.map(|time| time.0),
        };
        let handoff = typed.handoff.unwrap_or(Handoff::Fd);
        // As Node's own cluster module and PM2 do it.
        let (balance, ready_when) = match handoff {
            Handoff::Fd => (Balance::Shared, ReadyWhen::Auto),
            Handoff::Node => (Balance::RoundRobin { sticky: false }, ReadyWhen::Listening),
        };
        let balance = typed.balance.unwrap_or(balance);
        let is_steered = balance.is_steered();
        let settings = Self {
            command,
            listen: typed.listen.unwrap_or_default(),
            working_directory: typed.working_directory,
            env: typed.env.unwrap_or_default().into_iter().collect(),
            environment_files: typed.environment_files.unwrap_or_default(),
            blocking: typed.blocking.unwrap_or(false),
            handoff,
            balance,
            ready_when: typed.ready.when.unwrap_or(ready_when),
            ready_fd: typed.ready.fd,
            stop_signal: typed.stop.signal.unwrap_or(StopSignal(nix::sys::signal::Signal::SIGTERM)),
            stop_message: typed.stop.message,
            // Where a worker can be withdrawn without a word, it need not know how to end well.
            stop_when: typed.stop.when.unwrap_or(if is_steered {
                StopWhen::Idle
            } else {
                StopWhen::AtOnce
            }),
            close_idle: typed.stop.close_idle.unwrap_or(is_steered),
            log: typed.log.mode.unwrap_or(LogMode::Auto),
            readers: typed.control.readers.unwrap_or_default(),
            policy,
        };
        match settings.fault() {
            None => Ok(settings),
            Some(fault) => Err(fault),
        }
    }

    /// Says which settings cannot be, alone or together.
    ///
    /// # Errors
    /// The first of them, and why.
    pub fn check(&self) -> Result<(), Error> {
        self.fault().map_or(Ok(()), |fault| Err(fault.into()))
    }

    fn fault(&self) -> Option<Fault> {
        let wrong = self
            .wrong_number()
            .or_else(|| self.wrong_time())
            .or_else(|| self.wrong_canary())
            .or_else(|| self.wrong_on_channel())
            .or_else(|| self.wrong_value());
        wrong.map(|(key, reason)| Fault::of(key, reason))
    }

    fn wrong_number(&self) -> Option<Wrong> {
        let policy = &self.policy;
        if policy.surge == 0 {
            return wrong("reload.surge", "at least one slot must be relieved at a time");
        }
        if policy.ready_min == Some(0) {
            return wrong("ready.min", "nobody would serve when the service is called ready");
        }
        if policy.ready_min.is_some_and(|min| min > policy.slots) {
            let reason = format!("more than the number of workers, which is {}", policy.slots);
            return Some(("ready.min", reason.into()));
        }
        if self.ready_fd.is_some_and(|fd| !(3..1024).contains(&fd)) {
            return wrong("ready.fd", "expected a number from 3 to 1023");
        }
        None
    }

    fn wrong_time(&self) -> Option<Wrong> {
        let policy = &self.policy;
        if policy.ready_timeout.is_zero() {
            return wrong("ready.timeout", "no worker can be ready in no time");
        }
        if matches!(self.ready_when, ReadyWhen::Alive(time) if time >= policy.ready_timeout) {
            let reason = "the time to be alive is not shorter than 'ready.timeout'";
            return wrong("ready.when", reason);
        }
        if policy.min_delay < Duration::from_millis(1) {
            let reason = "a slot that fails would be started without a pause, expected 1ms or more";
            return wrong("restart.min-delay", reason);
        }
        if policy.min_delay > policy.max_delay {
            return wrong("restart.min-delay", "longer than 'restart.max-delay'");
        }
        if policy.heartbeat.is_some_and(|interval| interval < Duration::from_millis(10)) {
            return wrong("watchdog.interval", "shorter than 10ms, which nobody can keep");
        }
        None
    }

    fn wrong_canary(&self) -> Option<Wrong> {
        match (self.policy.canary, self.policy.canary_time) {
            (Some(percent), _) if !(1..=50).contains(&percent) => {
                wrong("reload.canary", "expected 1 to 50 connections of a hundred")
            }
            (Some(_), _) if !self.balance.is_steered() => {
                let reason = "connections are weighed only with 'balance = \"steered\"'";
                wrong("reload.canary", reason)
            }
            (None, Some(_)) => {
                wrong("reload.canary-time", "there is no 'reload.canary' that it is for")
            }
            (Some(_), _) | (None, None) => None,
        }
    }

    /// What cannot be passed to a program, or leads nowhere.
    fn wrong_value(&self) -> Option<Wrong> {
        if let Some((name, _)) = self.env.iter().find(|(name, _)| !values::is_variable_name(name)) {
            return Some(("env", format!("'{name}' cannot be the name of a variable").into()));
        }
        if self.command.first().is_none_or(String::is_empty) {
            return wrong("command", "it names no program");
        }
        let nul = |text: &String| text.contains('\0');
        if self.command.iter().any(nul) {
            return wrong("command", "a zero byte cannot be passed to a program");
        }
        if let Some((name, _)) = self.env.iter().find(|(_, value)| nul(value)) {
            let reason = format!("'{name}' has a zero byte, which cannot be passed to a program");
            return Some(("env", reason.into()));
        }
        if self.working_directory.as_ref().is_some_and(|directory| !directory.is_absolute()) {
            return wrong("working-directory", "expected an absolute path");
        }
        None
    }

    /// What does not go together with the handoff.
    fn wrong_on_channel(&self) -> Option<Wrong> {
        let on_channel = matches!(self.ready_when, ReadyWhen::Listening | ReadyWhen::Message);
        match self.handoff {
            Handoff::Fd if matches!(self.balance, Balance::RoundRobin { .. }) => wrong(
                "balance",
                "'round-robin' passes connections over the channel, which takes 'handoff = \"node\"'",
            ),
            Handoff::Fd if on_channel => wrong(
                "ready.when",
                "this is said over the channel, which takes 'handoff = \"node\"'",
            ),
            Handoff::Fd if self.stop_message.is_some() => wrong(
                "stop.message",
                "it is sent over the channel, which takes 'handoff = \"node\"'",
            ),
            Handoff::Node if self.blocking => {
                wrong("blocking", "Node hangs on sockets that block, leave it out")
            }
            Handoff::Node if self.ready_when == ReadyWhen::Accepting => wrong(
                "ready.when",
                "a worker on the channel says when it listens, expected 'listening'",
            ),
            Handoff::Fd | Handoff::Node => None,
        }
    }
}

/// A key, and what is wrong with it.
type Wrong = (&'static str, Cow<'static, str>);

fn wrong(key: &'static str, reason: &'static str) -> Option<Wrong> {
    Some((key, reason.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, Error> {
        Ok(Settings::new(file::parse("myapp.toml", text)?, 4)?)
    }

    #[test]
    fn defaults_are_the_designs() {
        let settings = settings("command = [\"x\"]").unwrap();
        assert_eq!(settings.policy, Policy::default());
        assert_eq!(
            (settings.policy.slots, settings.ready_when, settings.log),
            (1, ReadyWhen::Auto, LogMode::Auto)
        );
    }

    #[test]
    fn over_the_channel_connections_go_round() {
        let on = |text: &str| settings(&format!("command = [\"x\"]\nhandoff = \"node\"\n{text}"));
        let settings = on("").unwrap();
        assert_eq!(
            (settings.balance, settings.ready_when),
            (Balance::RoundRobin { sticky: false }, ReadyWhen::Listening)
        );
        let sticky = on("balance = { mode = \"round-robin\", sticky = \"client-ip\" }").unwrap();
        assert_eq!(sticky.balance, Balance::RoundRobin { sticky: true });
        assert_eq!(on("balance = \"shared\"").unwrap().balance, Balance::Shared);
    }

    #[test]
    fn steered_workers_are_stopped_when_they_are_idle() {
        let steered =
            settings("command = [\"x\"]\nbalance = { mode = \"steered\", policy = \"client-ip\" }");
        let steered = steered.unwrap();
        assert_eq!(steered.balance, Balance::Steered(values::Steer::ClientIp));
        assert_eq!((steered.stop_when, steered.close_idle), (StopWhen::Idle, true));
        let text = "command = [\"x\"]\nbalance = { mode = \"steered\", sticky = \"client-ip\" }";
        assert_eq!(
            settings(text).unwrap_err().message,
            "myapp.toml:2: 'balance': 'steered' has no 'sticky', expected 'policy'"
        );
        let shared = settings("command = [\"x\"]").unwrap();
        assert_eq!((shared.stop_when, shared.close_idle), (StopWhen::AtOnce, false));
    }

    #[test]
    fn impossible_settings_are_refused() {
        let says =
            |text: &str| settings(&format!("command = [\"x\"]\n{text}")).unwrap_err().message;
        assert_eq!(
            settings("workers = 2").unwrap_err().message,
            "no command: nothing says which program to run"
        );
        assert_eq!(
            says("[ready]\nmin = 3"),
            "'ready.min': more than the number of workers, which is 1"
        );
        assert_eq!(
            says("[reload]\nsurge = 0"),
            "'reload.surge': at least one slot must be relieved at a time"
        );
        assert_eq!(
            says("[reload]\ncanary = 5"),
            "'reload.canary': connections are weighed only with 'balance = \"steered\"'"
        );
        assert_eq!(
            says("balance = \"steered\"\n[reload]\ncanary = 51"),
            "'reload.canary': expected 1 to 50 connections of a hundred"
        );
        assert_eq!(
            says("[reload]\ncanary-time = \"1min\""),
            "'reload.canary-time': there is no 'reload.canary' that it is for"
        );
        assert_eq!(
            says("[restart]\nmin-delay = \"1min\""),
            "'restart.min-delay': longer than 'restart.max-delay'"
        );
        assert_eq!(
            says("[ready]\nwhen = \"alive:30s\""),
            "'ready.when': the time to be alive is not shorter than 'ready.timeout'"
        );
        assert_eq!(
            says("balance = \"round-robin\""),
            "'balance': 'round-robin' passes connections over the channel, which takes 'handoff = \"node\"'"
        );
        assert_eq!(
            says("handoff = \"node\"\nblocking = true"),
            "'blocking': Node hangs on sockets that block, leave it out"
        );
        assert_eq!(says("[ready]\nfd = 1"), "'ready.fd': expected a number from 3 to 1023");
        assert_eq!(
            says("env = { \"A=B\" = \"x\" }"),
            "'env': 'A=B' cannot be the name of a variable"
        );
        let zero = "[\"x\", \"\\u0000\"]";
        assert_eq!(
            settings(&format!("command = {zero}")).unwrap_err().message,
            "'command': a zero byte cannot be passed to a program"
        );
        assert_eq!(
            says("env = { A = \"x\", B = \"\\u0000\" }"),
            "'env': 'B' has a zero byte, which cannot be passed to a program"
        );
        assert_eq!(
            says("working-directory = \"srv\""),
            "'working-directory': expected an absolute path"
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let text = "\ncommand = [\"x\"]\nenv = { B = \"\\u0000\" }\n[reload]\n";
        let placed = |text: &str| {
            let typed = file::parse("f", text).unwrap();
            Settings::new(typed, 4).unwrap_err().placed("f", text).message
        };
        assert!(placed(text).starts_with("f:3: 'env': 'B' has"), "{}", placed(text));
        assert!(placed(&format!("{text}surge = 0")).starts_with("f:5: 'reload.surge': at least"));
        assert_eq!(placed("workers = 2"), "f: no command: nothing says which program to run");
    }

    #[test]
    fn flags_win_over_the_file() {
        let file =
            file::parse("f", "command = [\"x\"]\nworkers = 2\n[stop]\ndrain = \"1s\"").unwrap();
        let flags = Typed { workers: Some(Workers::Count(7)), ..Typed::default() };
        let settings = Settings::new(flags.or(file), 1).unwrap();
        assert_eq!((settings.policy.slots, settings.policy.drain), (7, Duration::from_secs(1)));
    }
}
