//! What a file says of the units that are made from it: when they start, as whom they run, what they may do, and lines
//! that are passed on to systemd.

use super::{Invalid, invalid};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What starts when the machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enabled {
    /// Nothing.
    No,
    /// The socket: the first connection starts the service.
    Socket,
    /// Both.
    Yes,
}

impl<'de> Deserialize<'de> for Enabled {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Word("true, false or \"socket\"", |word| match word {
            Either::Is(yes) => Some(if yes { Self::Yes } else { Self::No }),
            Either::Text("socket") => Some(Self::Socket),
            Either::Text(_) => None,
        }))
    }
}

/// What workers see below /home, /root and /run/user (`ProtectHome=` in `systemd.exec(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Nothing: the folders are empty.
    Hidden,
    /// What is there, and they can change nothing.
    ReadOnly,
    /// What is there.
    Open,
}

impl<'de> Deserialize<'de> for Home {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Word("true, false or \"read-only\"", |word| match word {
            Either::Is(yes) => Some(if yes { Self::Open } else { Self::Hidden }),
            Either::Text("read-only") => Some(Self::ReadOnly),
            Either::Text(_) => None,
        }))
    }
}

enum Either<'a> {
    Is(bool),
    Text(&'a str),
}

/// Reads `true`, `false` or a word.
struct Word<T>(&'static str, fn(Either<'_>) -> Option<T>);

impl<T> Visitor<'_> for Word<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_bool<E: serde::de::Error>(self, yes: bool) -> Result<T, E> {
        self.1(Either::Is(yes))
            .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Bool(yes), &self))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        self.1(Either::Text(text))
            .ok_or_else(|| E::custom(format!("'{text}' is none of {}", self.0)))
    }
}

/// A word of a unit file that systemd takes as it is; each kind says what it may look like.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident, $example:literal, $what:literal, $is_valid:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(pub String);

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                let is_valid: fn(&str) -> bool = $is_valid;
                if is_valid(text) {
                    return Ok(Self(text.to_owned()));
                }
                let text = text.escape_debug();
                invalid(format!("'{text}' is no {}, expected one like '{}'", $what, $example))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

words! {
    /// The name or number of a user or group (`systemd.exec(5)`, "User/Group Name Syntax").
    Account, "www-data", "name of a user or group", |text| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
            && text.len() <= 31
    };
    /// A capability (`capabilities(7)`).
    Capability, "CAP_NET_RAW", "capability", |text| {
        text.strip_prefix("CAP_").is_some_and(|rest| is_made_of(rest, |c| c.is_ascii_uppercase() || c == '_'))
    };
    /// An address family (`address_families(7)`).
    Family, "AF_PACKET", "address family", |text| {
        text.strip_prefix("AF_").is_some_and(|rest| is_made_of(rest, |c| c.is_ascii_uppercase() || c.is_ascii_digit()))
    };
    /// A system call, or a set of them (`SystemCallFilter=` in `systemd.exec(5)`).
    SystemCall, "@mount", "system call and no set of them", |text| {
        let name = text.strip_prefix('@').unwrap_or(text);
        is_made_of(name, |c| c.is_ascii_alphanumeric() || "_-".contains(c))
    };
    /// What a unit is for, in a line.
    Line, "The shop", "line of text", |text| {
        // A backslash at the end would take in the next line (systemd.syntax(7)).
        !text.is_empty() && !text.ends_with('\\') && !text.chars().any(char::is_control)
    };
    /// File mode bits that are taken away, in octal (`umask(2)`).
    Umask, "0022", "umask", |text| {
        (3..=4).contains(&text.len()) && text.chars().all(|c| ('0'..='7').contains(&c))
    };
}

fn is_made_of(text: &str, valid: fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().all(valid)
}

/// An absolute path that can stand in a unit file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitPath(pub PathBuf);

impl<'de> Deserialize<'de> for UnitPath {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let is_valid = text.starts_with('/') && !text.chars().any(char::is_control);
        let shown = text.escape_debug();
        let error = || serde::de::Error::custom(format!("'{shown}' is no absolute path"));
        if is_valid { Ok(Self(text.into())) } else { Err(error()) }
    }
}

/// Lines that go into a section of a unit as they are: names and their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed(pub Vec<(String, Vec<String>)>);

impl Passed {
    /// What is here has no keys of its own.
    #[must_use]
    pub fn keys() -> Vec<String> {
        vec![]
    }

    /// Returns these lines, or those `below` where there are none.
    #[must_use]
    pub fn or(self, below: Self) -> Self {
        if self.0.is_empty() { below } else { self }
    }
}

impl<'de> Deserialize<'de> for Passed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Lines;
        impl<'de> Visitor<'de> for Lines {
            type Value = Passed;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of settings as systemd has them, like { MemoryMax = \"1G\" }")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Passed, A::Error> {
                let mut lines = vec![];
                while let Some(name) = map.next_key::<String>()? {
                    if !is_made_of(&name, |c| c.is_ascii_alphanumeric() || c == '-') {
                        let name = name.escape_debug();
                        let text = format!("'{name}' is no setting of systemd's");
                        return Err(serde::de::Error::custom(text));
                    }
                    lines.push((name, map.next_value::<Values>()?.0));
                }
                Ok(Passed(lines))
            }
        }
        from.deserialize_map(Lines)
    }
}

/// One value, or several for a line each.
struct Values(Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(
            untagged,
            expecting = "expected a string, a whole number, true, false, or a list of them"
        )]
        enum Value {
            One(Simple),
            Several(Vec<Simple>),
        }
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Simple {
            Text(String),
            Number(i64),
            Is(bool),
        }
        let several = match Value::deserialize(from)? {
            Value::One(one) => vec![one],
            Value::Several(several) => several,
        };
        let line = |value: Simple| match value {
            Simple::Text(text) if text.chars().any(char::is_control) => {
                let text = text.escape_debug();
                Err(serde::de::Error::custom(format!("'{text}' is not one line of text")))
            }
            // A backslash at the end would take in the next line (systemd.syntax(7)).
            Simple::Text(text) if text.ends_with('\\') => {
                Err(serde::de::Error::custom(format!("'{text}' ends with a backslash")))
            }
            Simple::Text(text) => Ok(text),
            Simple::Number(number) => Ok(number.to_string()),
            Simple::Is(yes) => Ok(if yes { "yes" } else { "no" }.to_owned()),
        };
        several.into_iter().map(line).collect::<Result<_, _>>().map(Self)
    }
}
