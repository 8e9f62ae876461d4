//! Sockets: where to listen, how workers get them, and who gets a new connection.

use super::{Invalid, invalid};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `8080`: this port on all addresses, IPv6 and IPv4.
    Port(u16),
    /// `127.0.0.1:8080` or `[::1]:8080`.
    Tcp(SocketAddr),
    /// `udp:5353` or `udp:127.0.0.1:5353`: datagrams.
    Udp(SocketAddr),
    /// `unix:/run/myapp.sock`
    Unix(PathBuf),
}

impl Address {
    /// Returns the TCP address to bind; `None` for other kinds of sockets.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Port(port) => Some(SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port))),
            Self::Tcp(address) => Some(*address),
            Self::Udp(_) | Self::Unix(_) => None,
        }
    }

    /// Whether nobody can listen on both: the kernel, or for a shared address the balance, would not have it.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let place = |address: &Self| match address {
            Self::Udp(address) => Some((true, *address)),
            Self::Port(_) | Self::Tcp(_) => address.tcp().map(|address| (false, address)),
            Self::Unix(_) => None,
        };
        let (Some((udp, a)), Some((other_udp, b))) = (place(self), place(other)) else {
            return self == other;
        };
        // [::] takes the addresses of both families, 0.0.0.0 those of its own.
        let takes =
            |a: SocketAddr, b: SocketAddr| a.ip().is_unspecified() && (a.is_ipv6() || b.is_ipv4());
        udp == other_udp
            && a.port() == b.port()
            && a.port() != 0
            && (a.ip() == b.ip() || takes(a, b) || takes(b, a))
    }

    /// Returns the listener's name in `LISTEN_FDNAMES`: `tcp-8080`, or the file's name of a unix socket.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Port(port) => format!("tcp-{port}"),
            Self::Tcp(address) => format!("tcp-{}", address.port()),
            Self::Udp(address) => format!("udp-{}", address.port()),
            Self::Unix(path) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                // sd_listen_fds_with_names(3): a name has no colon, and is printable.
                name.chars()
                    .map(|c| if c == ':' || !c.is_ascii_graphic() { '_' } else { c })
                    .collect()
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "{port}"),
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(path) = text.strip_prefix("unix:") {
            // sockaddr_un(7): 108 bytes with the final zero.
            return match path {
                _ if !path.starts_with('/') => invalid(format!("'{text}' has no absolute path")),
                _ if path.ends_with('\\') || path.chars().any(char::is_control) => invalid(
                    format!("'{}' has a character that no path should have", text.escape_debug()),
                ),
                _ if path.len() > 107 => invalid(format!("'{text}' is longer than 107 bytes")),
                _ => Ok(Self::Unix(path.into())),
            };
        }
        let (udp, address) = text.strip_prefix("udp:").map_or((false, text), |rest| (true, rest));
        let everywhere = |port: u16| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let known = match (udp, address.parse(), address.parse()) {
            (false, Ok(port), _) => Some(Self::Port(port)),
            (true, Ok(port), _) => Some(Self::Udp(everywhere(port))),
            (false, _, Ok(address)) => Some(Self::Tcp(address)),
            (true, _, Ok(address)) => Some(Self::Udp(address)),
            (_, Err(_), Err(_)) => None,
        };
        known.map_or_else(
            || {
                invalid(format!(
                    "'{text}' is no address, expected one like '8080', '127.0.0.1:8080', '[::1]:8080', 'udp:5353' or 'unix:/run/myapp.sock'"
                ))
            },
            Ok,
        )
    }
}

/// How a worker gets its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handoff {
    /// As file descriptors from 3 up, as systemd does it (`LISTEN_FDS`).
    Fd,
    /// Over the channel of Node's cluster module: the program calls `listen(8080)` and is given ours.
    Node,
}

impl FromStr for Handoff {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "fd" => Ok(Self::Fd),
            "node" => Ok(Self::Node),
            _ => invalid(format!("'{text}' is no handoff, expected 'fd' or 'node'")),
        }
    }
}

impl fmt::Display for Handoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fd => "fd",
            Self::Node => "node",
        })
    }
}

/// Who gets a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// All workers wait on the same socket; the kernel wakes one.
    Shared,
    /// The primary accepts, and passes each connection to the next worker that is free.
    RoundRobin {
        /// The connections of one client address go to one slot.
        sticky: bool,
    },
    /// Each worker has a socket of its own, and the kernel picks one for each connection.
    Steered(Steer),
}

/// How the kernel picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// One slot after the other.
    RoundRobin,
    /// The connections of one client address go to one slot.
    ClientIp,
    /// The slot with fewer connections, of the next in turn and one at random.
    LeastConnections,
}

impl Steer {
    /// Returns the word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::ClientIp => "client-ip",
            Self::LeastConnections => "least-connections",
        }
    }
}

impl Balance {
    /// Whether workers have sockets of their own.
    #[must_use]
    pub fn is_steered(self) -> bool {
        matches!(self, Self::Steered(_))
    }

    const EXPECTED: &'static str = "'shared', 'round-robin', { mode = \"round-robin\", sticky = \"client-ip\" }, 'steered' or \
         { mode = \"steered\", policy = \"client-ip\" } (or \"least-connections\")";
}

impl FromStr for Balance {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "shared" => Ok(Self::Shared),
            "round-robin" => Ok(Self::RoundRobin { sticky: false }),
            "round-robin:client-ip" => Ok(Self::RoundRobin { sticky: true }),
            "steered" | "steered:round-robin" => Ok(Self::Steered(Steer::RoundRobin)),
            "steered:client-ip" => Ok(Self::Steered(Steer::ClientIp)),
            "steered:least-connections" => Ok(Self::Steered(Steer::LeastConnections)),
            _ => invalid(format!("'{text}' is no balance, expected {}", Self::EXPECTED)),
        }
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "shared",
            Self::RoundRobin { sticky: false } => "round-robin",
            Self::RoundRobin { sticky: true } => "round-robin:client-ip",
            Self::Steered(Steer::RoundRobin) => "steered",
            Self::Steered(Steer::ClientIp) => "steered:client-ip",
            Self::Steered(Steer::LeastConnections) => "steered:least-connections",
        })
    }
}

impl<'de> Deserialize<'de> for Balance {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            mode: String,
            sticky: Option<String>,
            policy: Option<String>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Balance;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Balance::EXPECTED)
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Balance, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Balance, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                let (rest, other) = match table.mode.as_str() {
                    "steered" => (table.policy, table.sticky.map(|_| ("sticky", "policy"))),
                    _ => (table.sticky, table.policy.map(|_| ("policy", "sticky"))),
                };
                if let Some((key, instead)) = other {
                    let text = format!("'{}' has no '{key}', expected '{instead}'", table.mode);
                    return Err(serde::de::Error::custom(text));
                }
                let whole = [Some(table.mode), rest];
                let whole = whole.into_iter().flatten().collect::<Vec<_>>().join(":");
                whole.parse().map_err(serde::de::Error::custom)
            }
        }
        from.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says<T: FromStr<Err = Invalid> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().unwrap_err().to_string()
    }

    #[test]
    fn addresses_are_ports_sockets_or_paths() {
        assert_eq!("8080".parse(), Ok(Address::Port(8080)));
        assert_eq!("[::1]:80".parse(), Ok(Address::Tcp("[::1]:80".parse().unwrap())));
        assert_eq!("udp:53".parse(), Ok(Address::Udp("[::]:53".parse().unwrap())));
        assert_eq!("udp:127.0.0.1:53".parse::<Address>().unwrap().name(), "udp-53");
        assert_eq!("unix:/run/a:b.sock".parse::<Address>().unwrap().name(), "a_b.sock");
        assert_eq!(says::<Address>("unix:a.sock"), "'unix:a.sock' has no absolute path");
        for wrong in ["localhost:80", "65536", "", ":80", "1.2.3.4"] {
            assert_eq!(
                says::<Address>(wrong),
                format!(
                    "'{wrong}' is no address, expected one like '8080', '127.0.0.1:8080', '[::1]:8080', 'udp:5353' or 'unix:/run/myapp.sock'"
                )
            );
        }
    }

    #[test]
    fn addresses_that_meet_cannot_both_be_had() {
        let meet = |a: &str, b: &str| {
            let (a, b): (Address, Address) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(a.meets(&b), b.meets(&a));
            a.meets(&b)
        };
        for (a, b) in [
            ("8080", "8080"),
            ("8080", "127.0.0.1:8080"),
            ("8080", "0.0.0.0:8080"),
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::1]:8080", "8080"),
            ("udp:53", "udp:127.0.0.1:53"),
            ("unix:/run/a", "unix:/run/a"),
        ] {
            assert!(meet(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("8080", "8081"),
            ("8080", "udp:8080"),
            ("127.0.0.1:8080", "127.0.0.2:8080"),
            ("0.0.0.0:8080", "[::1]:8080"),
            ("unix:/run/a", "unix:/run/b"),
            ("127.0.0.1:0", "127.0.0.1:0"),
        ] {
            assert!(!meet(a, b), "{a} {b}");
        }
    }

    #[test]
    fn a_balance_is_a_word_or_a_table() {
        assert_eq!("round-robin".parse(), Ok(Balance::RoundRobin { sticky: false }));
        assert_eq!("round-robin:client-ip".parse(), Ok(Balance::RoundRobin { sticky: true }));
        for text in ["steered", "steered:client-ip", "steered:least-connections"] {
            assert_eq!(text.parse::<Balance>().unwrap().to_string(), text);
        }
        assert_eq!(
            says::<Balance>("fair"),
            format!("'fair' is no balance, expected {}", Balance::EXPECTED)
        );
    }
}
