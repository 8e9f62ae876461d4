//! The values that can be written in a file or after a flag: each type can only hold what makes sense, says what it
//! expects otherwise, and reads the same in both places.

mod sockets;
mod units;

pub use sockets::{Address, Balance, Handoff, Steer};
pub use units::{
    Account, Capability, Enabled, Family, Home, Line, Passed, SystemCall, Umask, UnitPath,
};

use serde::de::{Deserialize, Deserializer, Unexpected, Visitor};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Why a value is not one, in words that fit after the key's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

fn invalid<T>(text: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(text.into()))
}

/// Writes a value as its text.
macro_rules! serialize_as_text {
    ($($type:ty)*) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    )*};
}

serialize_as_text! { Address Balance Handoff LogMode Reader ReadyWhen StopSignal StopWhen }

/// Reads a value from a TOML string by its `FromStr`; an example says what is expected where it is no string.
macro_rules! deserialize_from_str {
    ($($type:ty, $example:literal;)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a string like '", $example, "'"))
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                from.deserialize_str(Text)
            }
        }
    )*};
}

deserialize_from_str! {
    Time, "30s";
    Address, "8080";
    StopSignal, "SIGTERM";
    ReadyWhen, "auto";
    LogMode, "auto";
    Handoff, "fd";
    OnFailure, "rollback";
    StopWhen, "idle";
    Reader, "@adm";
}

/// A duration as people write it: `500ms`, `30s`, `2min`, `1h 30min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The two words of several units would not be one word: "1m 30s" is written "1m30s", which reads back.
        f.write_str(&humantime::format_duration(self.0).to_string().replace(' ', ""))
    }
}

impl FromStr for Time {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        match humantime::parse_duration(text) {
            Ok(time) if time <= year => Ok(Self(time)),
            Ok(_) => invalid(format!("'{text}' is longer than a year")),
            Err(_) => invalid(format!(
                "'{text}' is not a duration, expected one like '30s', '500ms' or '2min'"
            )),
        }
    }
}

/// How many slots there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// This many.
    Count(u16),
    /// As many as there are processors, less this many, but at least one.
    Cpus {
        /// So many fewer.
        less: u16,
    },
}

impl Workers {
    const EXPECTED: &'static str = "a number from 1 to 10000, 'cpus' or 'cpus-1'";

    /// Returns the number of slots on a machine with `cpus` usable processors.
    #[must_use]
    pub fn count(self, cpus: u16) -> u16 {
        match self {
            Self::Count(count) => count,
            Self::Cpus { less } => cpus.saturating_sub(less).max(1),
        }
    }
}

impl FromStr for Workers {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let less = match text.strip_prefix("cpus") {
            Some("") => Some(0),
            Some(rest) => rest.strip_prefix('-').and_then(|n| n.parse().ok()),
            None => None,
        };
        let count = text.parse().ok().filter(|n| (1..=crate::core::MAX_SLOTS).contains(n));
        match (less, count) {
            (Some(less), _) => Ok(Self::Cpus { less }),
            (None, Some(count)) => Ok(Self::Count(count)),
            (None, None) => {
                invalid(format!("'{text}' is no number of workers, expected {}", Self::EXPECTED))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Workers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Workers::EXPECTED)
            }
            fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Workers, E> {
                n.to_string().parse().map_err(|_| E::invalid_value(Unexpected::Signed(n), &self))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Workers, E> {
                text.parse().map_err(E::custom)
            }
        }
        from.deserialize_any(Either)
    }
}

/// A signal by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSignal(pub nix::sys::signal::Signal);

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for StopSignal {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let name = if text.starts_with("SIG") { text.to_owned() } else { format!("SIG{text}") };
        match name.parse() {
            Ok(nix::sys::signal::Signal::SIGKILL | nix::sys::signal::Signal::SIGSTOP) => {
                invalid(format!("'{text}' cannot be a stop signal: no program can answer it"))
            }
            Ok(signal) => Ok(Self(signal)),
            Err(_) => {
                invalid(format!("'{text}' is no signal, expected one like 'SIGTERM' or 'SIGQUIT'"))
            }
        }
    }
}

/// What counts as evidence that a worker is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyWhen {
    /// The first of `notify`, `fd` and `accepting`; where the channel hands over the sockets, `listening` for `accepting`.
    Auto,
    /// It says `READY=1` on its notify socket.
    Notify,
    /// It writes a newline to its readiness file descriptor.
    Fd,
    /// The kernel shows it waiting on a listener.
    Accepting,
    /// It says on its channel that a server of its listens.
    Listening,
    /// It sends the message `ready` over its channel.
    Message,
    /// It is alive after this long.
    Alive(Duration),
}

impl FromStr for ReadyWhen {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(time) = text.strip_prefix("alive:") {
            return time.parse().map(|Time(time)| Self::Alive(time));
        }
        match text {
            "auto" => Ok(Self::Auto),
            "notify" => Ok(Self::Notify),
            "fd" => Ok(Self::Fd),
            "accepting" => Ok(Self::Accepting),
            "listening" => Ok(Self::Listening),
            "message" => Ok(Self::Message),
            _ => invalid(format!(
                "'{text}' is no evidence, expected 'auto', 'notify', 'fd', 'accepting', 'listening', 'message' or 'alive:2s'"
            )),
        }
    }
}

impl fmt::Display for ReadyWhen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Notify => f.write_str("notify"),
            Self::Fd => f.write_str("fd"),
            Self::Accepting => f.write_str("accepting"),
            Self::Listening => f.write_str("listening"),
            Self::Message => f.write_str("message"),
            Self::Alive(time) => write!(f, "alive:{}", Time(*time)),
        }
    }
}

/// Where a worker's output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogMode {
    /// `stream` under systemd, `prefix` on a terminal, else line by line to where the primary's own output goes.
    Auto,
    /// Through the primary to one journal stream per worker.
    Stream,
    /// A journal stream is the worker's own standard output.
    Direct,
    /// To the primary's standard output, each line with the worker's name before it.
    Prefix,
    /// The primary's own standard output and error, untouched.
    Inherit,
}

impl FromStr for LogMode {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "auto" => Ok(Self::Auto),
            "stream" => Ok(Self::Stream),
            "direct" => Ok(Self::Direct),
            "prefix" => Ok(Self::Prefix),
            "inherit" => Ok(Self::Inherit),
            _ => invalid(format!(
                "'{text}' is no log mode, expected 'auto', 'stream', 'direct', 'prefix' or 'inherit'"
            )),
        }
    }
}

impl fmt::Display for LogMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Stream => "stream",
            Self::Direct => "direct",
            Self::Prefix => "prefix",
            Self::Inherit => "inherit",
        })
    }
}

/// When a withdrawn worker gets its stop signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopWhen {
    /// As soon as nothing new can reach it: the signal is what tells it to finish.
    AtOnce,
    /// When it has no connection left, or the drain time is over.
    Idle,
}

impl FromStr for StopWhen {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "at-once" => Ok(Self::AtOnce),
            "idle" => Ok(Self::Idle),
            _ => invalid(format!("'{text}' is no moment, expected 'at-once' or 'idle'")),
        }
    }
}

impl fmt::Display for StopWhen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtOnce => "at-once",
            Self::Idle => "idle",
        })
    }
}

/// What a rollout does when a newcomer fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Every slot goes back to the generation before.
    Rollback,
}

impl FromStr for OnFailure {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "rollback" => Ok(Self::Rollback),
            _ => invalid(format!("'{text}' is no way out, expected 'rollback'")),
        }
    }
}

/// Who may look at the app over its control socket: a user, `@group`, or `*` for everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Whoever can reach the socket.
    Everybody,
    /// This user, by name or number.
    User(String),
    /// The members of this group, by name or number.
    Group(String),
}

impl FromStr for Reader {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.strip_prefix('@') {
            _ if text == "*" => Ok(Self::Everybody),
            Some(group) if !group.is_empty() => Ok(Self::Group(group.to_owned())),
            None if !text.is_empty() => Ok(Self::User(text.to_owned())),
            _ => invalid(format!(
                "'{text}' names nobody, expected a user, a group like '@adm', or '*' for everybody"
            )),
        }
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("*"),
            Self::User(name) => f.write_str(name),
            Self::Group(name) => write!(f, "@{name}"),
        }
    }
}

/// So many failures within this time: `5/30s` as a flag, a table in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(
    rename_all = "kebab-case",
    deny_unknown_fields,
    expecting = "a table like { count = 5, within = \"30s\" }"
)]
pub struct StartLimit {
    /// So many failures; 0 for no limit …
    pub count: u32,
    /// … within this time.
    pub within: Time,
}

impl FromStr for StartLimit {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parts =
            text.split_once('/').and_then(|(count, within)| Some((count.parse().ok()?, within)));
        let Some((count, within)) = parts else {
            return invalid(format!("'{text}' is no start limit, expected one like '5/30s'"));
        };
        Ok(Self { count, within: within.parse()? })
    }
}

/// A variable and its value: `KEY=VALUE` as a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable(pub String, pub String);

impl FromStr for Variable {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.split_once('=') {
            Some((name, value)) if is_variable_name(name) => {
                Ok(Self(name.to_owned(), value.to_owned()))
            }
            _ => invalid(format!("'{text}' is no variable, expected KEY=VALUE")),
        }
    }
}

/// Returns a variable's value for one slot: `{slot}` is its number, `{slot+8000}` that much more.
#[must_use]
pub fn for_slot(value: &str, slot: u16) -> String {
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find("{slot") {
        let (before, from) = rest.split_at(at);
        let number = from.find('}').and_then(|end| {
            let more = match &from["{slot".len()..end] {
                "" => 0,
                sum => sum.strip_prefix('+')?.parse::<u32>().ok()?,
            };
            Some((more.checked_add(slot.into())?, end + 1))
        });
        text.push_str(before);
        let used = match number {
            Some((number, length)) => {
                text.push_str(&number.to_string());
                length
            }
            // Something else, which is left as it is.
            None => {
                text.push_str("{slot");
                "{slot".len()
            }
        };
        rest = &from[used..];
    }
    text.push_str(rest);
    text
}

/// Whether a name can be that of an environment variable (`environ(7)`).
#[must_use]
pub fn is_variable_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says<T: FromStr<Err = Invalid> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().unwrap_err().to_string()
    }

    #[test]
    fn workers_are_counted_or_follow_the_processors() {
        assert_eq!("cpus-1".parse::<Workers>().unwrap().count(4), 3);
        assert_eq!("cpus-9".parse::<Workers>().unwrap().count(4), 1);
        assert_eq!("cpus".parse::<Workers>().unwrap().count(4), 4);
        assert_eq!(
            says::<Workers>("0"),
            "'0' is no number of workers, expected a number from 1 to 10000, 'cpus' or 'cpus-1'"
        );
    }

    #[test]
    fn a_value_may_hold_the_slots_number() {
        assert_eq!(for_slot("{slot}", 3), "3");
        assert_eq!(for_slot("p{slot+8000}/{slot}", 3), "p8003/3");
        for other in
            ["", "{slot-1}", "{slot+x}", "{slots}", "{slot", "{slot+99999999999}", "é{slot"]
        {
            assert_eq!(for_slot(other, 3), other);
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!("1h 30min".parse(), Ok(Time(Duration::from_secs(5400))));
        assert_eq!(
            says::<Time>("30"),
            "'30' is not a duration, expected one like '30s', '500ms' or '2min'"
        );
        assert_eq!(says::<Time>("9000weeks"), "'9000weeks' is longer than a year");
    }

    #[test]
    fn a_stop_signal_is_one_that_can_be_answered() {
        assert_eq!("QUIT".parse(), Ok(StopSignal(nix::sys::signal::Signal::SIGQUIT)));
        assert_eq!(
            says::<StopSignal>("SIGKILL"),
            "'SIGKILL' cannot be a stop signal: no program can answer it"
        );
        assert_eq!(
            says::<StopSignal>("TERMX"),
            "'TERMX' is no signal, expected one like 'SIGTERM' or 'SIGQUIT'"
        );
    }
}
