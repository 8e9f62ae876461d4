//! The names under which the primary's file descriptors lie in systemd's FD store (`FDNAME=` in
//! `sd_pid_notify_with_fds(3)`), and under which an upgraded primary is passed them. A name says whose descriptor it is
//! even where the state cannot be read.

use std::fmt;
use std::str::FromStr;

/// All names of ours begin with one of these; whatever else is passed is a listener of the socket unit. Those of workers
/// are short: systemd passes all names in one variable, which may have 128 KiB (`execve(2)`).
const PREFIX: &str = "dogwatch-";
const WORKERS: &str = "dw-";

/// What a descriptor is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// The memory with the state of the supervisor.
    State,
    /// The memory with the state of the channels.
    Channels,
    /// The write end of the leash.
    Leash,
    /// The way to the keeper.
    Keeper,
    /// A listener that the primary opened itself: its position and its name.
    Listener(u16, String),
    /// The map with the sockets that connections to a listener are steered to: the listener's number.
    Lanes(u16),
    /// The map with the table that they are steered by.
    Table(u16),
    /// A socket that was opened because a program asked for it: its position.
    Opened(u16),
    /// A worker's.
    Worker {
        /// Its name for ever.
        worker: u64,
        /// Where.
        slot: u16,
        /// From which settings.
        generation: u32,
        /// Which of its descriptors.
        part: Part,
    },
}

/// One of a worker's descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Its pidfd.
    Pid,
    /// The read end of its standard output, or of output and error.
    Output,
    /// The read end of its standard error.
    Error,
    /// Its notify socket.
    Notify,
    /// Our end of its channel.
    Channel,
    /// The read end of its readiness pipe.
    Ready,
}

impl Part {
    /// Every one that there is.
    pub const ALL: [Self; 6] =
        [Self::Pid, Self::Output, Self::Error, Self::Notify, Self::Channel, Self::Ready];

    fn word(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Output => "out",
            Self::Error => "err",
            Self::Notify => "notify",
            Self::Channel => "channel",
            Self::Ready => "ready",
        }
    }
}

impl Name {
    /// Whether `text` is meant to be such a name.
    #[must_use]
    pub fn is_ours(text: &str) -> bool {
        text.starts_with(PREFIX) || text.starts_with(WORKERS)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State => write!(f, "{PREFIX}state"),
            Self::Channels => write!(f, "{PREFIX}channels"),
            Self::Leash => write!(f, "{PREFIX}leash"),
            Self::Keeper => write!(f, "{PREFIX}keeper"),
            Self::Listener(at, name) => write!(f, "{PREFIX}listener-{at}-{name}"),
            Self::Lanes(at) => write!(f, "{PREFIX}lanes-{at}"),
            Self::Table(at) => write!(f, "{PREFIX}table-{at}"),
            Self::Opened(at) => write!(f, "{PREFIX}opened-{at}"),
            Self::Worker { worker, slot, generation, part } => {
                write!(f, "{WORKERS}{worker}-{slot}-{generation}-{}", part.word())
            }
        }
    }
}

/// It is none of ours, or of a later program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

impl FromStr for Name {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        if let Some(rest) = text.strip_prefix(WORKERS) {
            return worker(rest);
        }
        let rest = text.strip_prefix(PREFIX).ok_or(Unknown)?;
        match rest {
            "state" => return Ok(Self::State),
            "channels" => return Ok(Self::Channels),
            "leash" => return Ok(Self::Leash),
            "keeper" => return Ok(Self::Keeper),
            _ => {}
        }
        let (kind, rest) = rest.split_once('-').ok_or(Unknown)?;
        match kind {
            "listener" => {
                let (at, name) = rest.split_once('-').ok_or(Unknown)?;
                Ok(Self::Listener(number(at)?, name.to_owned()))
            }
            "lanes" => Ok(Self::Lanes(number(rest)?)),
            "table" => Ok(Self::Table(number(rest)?)),
            "opened" => Ok(Self::Opened(number(rest)?)),
            _ => Err(Unknown),
        }
    }
}

fn worker(text: &str) -> Result<Name, Unknown> {
    let words: Vec<&str> = text.split('-').collect();
    let [worker, slot, generation, part] = words[..] else {
        return Err(Unknown);
    };
    let part = Part::ALL.into_iter().find(|known| known.word() == part).ok_or(Unknown)?;
    let (worker, slot, generation) = (number(worker)?, number(slot)?, number(generation)?);
    Ok(Name::Worker { worker, slot, generation, part })
}

/// As it is written here: `+7` and `07` are somebody else's.
fn number<T: FromStr + ToString>(text: &str) -> Result<T, Unknown> {
    let number: T = text.parse().map_err(|_| Unknown)?;
    if number.to_string() == text { Ok(number) } else { Err(Unknown) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let worker =
            |part| Name::Worker { worker: u64::MAX, slot: 9999, generation: u32::MAX, part };
        let fixed = [
            Name::State,
            Name::Channels,
            Name::Leash,
            Name::Keeper,
            Name::Lanes(0),
            Name::Table(3),
            Name::Opened(7),
        ];
        let listener = Name::Listener(1, "tcp-8080".to_owned());
        for name in fixed.into_iter().chain([listener]).chain(Part::ALL.map(worker)) {
            let text = name.to_string();
            assert!(Name::is_ours(&text) && text.len() <= 255, "{text}");
            assert_eq!(text.parse(), Ok(name));
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "web",
            "",
            "dogwatch-",
            "dogwatch-states",
            "dogwatch-opened-",
            "dogwatch-opened-99999",
            "dogwatch-listener-1",
            "dw-1",
            "dw-1-0-1",
            "dw-1-0-1-pid-x",
            "dw--1-0-1-pid",
            "dw-+1-0-1-pid",
            "dw-1-0-1-ears",
            "dw-01-0-1-pid",
        ] {
            assert_eq!(text.parse::<Name>(), Err(Unknown), "{text}");
        }
    }
}
