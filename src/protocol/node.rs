//! The channel between a primary and a worker of Node's cluster module, as Node 18 to 24 speak it: one JSON document a
//! line, descriptors beside (`lib/internal/child_process.js`, `lib/internal/cluster/{child,utils}.js` in Node's source).
//!
//! A message whose `cmd` begins with `NODE_` is Node's own; every other document is the program's.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Nobody means a longer message.
pub const MAX_LINE: usize = 16 * 1024 * 1024;
/// What says that a handle has come.
pub const HANDLE_ACK: &str = "{\"cmd\":\"NODE_HANDLE_ACK\"}\n";
/// The line that PM2's `wait_ready` waits for: `process.send('ready')`.
pub const READY: &str = "\"ready\"";
/// Bun begins its own lines with this byte, and understands only lines that do.
pub const BUNS_MARK: u8 = 2;

/// What a server's secrets may take that the first worker sends for all (`ticketKeys` are 96 digits).
const MAX_DATA: usize = 4096;

/// `UV_TCP_IPV6ONLY` in uv.h.
const ONLY_V6: u64 = 1;

/// What a worker said.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard<'a> {
    /// The next handle that was sent has reached it.
    HandleAck,
    /// It has not: its table of descriptors is full.
    HandleNack,
    /// The answer to our message `ack`; to a connection, whether it is taken.
    Answer {
        /// Our number.
        ack: u64,
        /// It keeps the connection.
        accepted: bool,
    },
    /// The cluster module has begun.
    Online,
    /// `listen()` was called.
    Query(Query),
    /// A server listens.
    Listening(Place),
    /// A server was closed.
    Close {
        /// The name that the answer to its query gave it.
        key: String,
    },
    /// It leaves of its own accord, once this is answered.
    Leaving {
        /// Its number.
        seq: u64,
    },
    /// A message of the program, as JSON.
    Message(Cow<'a, str>),
    /// A message of the program with a handle that nobody wants here.
    WithHandle(String),
    /// Something of Node's own that means nothing here.
    Other,
}

/// A call of `listen()`.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Its number, for the answer.
    pub seq: u64,
    /// Where it wants to listen; `None` makes no sense.
    pub place: Option<Place>,
    /// On an IPv6 address, IPv4 clients are not wanted.
    pub only_v6: bool,
    /// A second server at the same place has 1 here, and so on.
    pub index: u32,
    /// What all workers' servers are to have in common: the keys of TLS session tickets.
    pub data: Option<Value>,
}

/// Where a program wants to listen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// TCP; without an address, all of them.
    Tcp {
        /// The address.
        address: Option<IpAddr>,
        /// The port; 0 for any.
        port: u16,
    },
    /// Datagrams.
    Udp {
        /// The address.
        address: IpAddr,
        /// The port; 0 for any.
        port: u16,
    },
    /// A unix socket.
    Path(String),
    /// A descriptor of the primary's.
    Fd(i32),
}

impl Place {
    /// Whether a server that listens here is the one that asked for `asked`, which may have left the port open.
    #[must_use]
    pub fn answers(&self, asked: &Self) -> bool {
        match (self, asked) {
            (Self::Tcp { address: a, .. }, Self::Tcp { address: b, port: 0 }) => a == b,
            (Self::Udp { address: a, .. }, Self::Udp { address: b, port: 0 }) => a == b,
            (_, _) => self == asked,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { address: None, port } => write!(f, "{port}"),
            Self::Tcp { address: Some(address), port } => SocketAddr::new(*address, *port).fmt(f),
            Self::Udp { address, port } => write!(f, "udp:{}", SocketAddr::new(*address, *port)),
            Self::Path(path) => f.write_str(path),
            Self::Fd(fd) => write!(f, "file descriptor {fd}"),
        }
    }
}

/// It is not JSON, or not what Node says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbage;

/// The fields of all messages of the cluster module together.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cluster<'a> {
    #[serde(borrow)]
    act: Option<Cow<'a, str>>,
    ack: Option<u64>,
    accepted: Option<bool>,
    seq: Option<u64>,
    key: Option<String>,
    index: Option<Value>,
    data: Option<Value>,
    // Of any type: a question that makes no sense has an answer, too.
    address: Option<Value>,
    port: Option<Value>,
    address_type: Option<Value>,
    fd: Option<Value>,
    flags: Option<Value>,
}

/// Whose message it is.
#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    cmd: Option<Cow<'a, str>>,
    // Not looked at: it may be as deep as JSON can be.
    #[serde(borrow)]
    msg: Option<&'a RawValue>,
}

/// Returns what a line says.
///
/// # Errors
/// When it makes no sense.
pub fn parse(line: &[u8]) -> Result<Heard<'_>, Garbage> {
    let line = line.strip_prefix(&[BUNS_MARK]).unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|_| Garbage)?;
    // Two of these come for every connection.
    if text == HANDLE_ACK.trim_end() {
        return Ok(Heard::HandleAck);
    }
    if text.starts_with("{\"cmd\":\"NODE_CLUSTER\"") {
        return cluster(text);
    }
    let envelope = serde_json::from_str::<Envelope<'_>>(text);
    let internal = envelope.ok().and_then(|e| Some((e.cmd.filter(|cmd| is_nodes(cmd))?, e.msg)));
    match internal {
        None => {
            serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| Garbage)?;
            Ok(Heard::Message(text.into()))
        }
        Some((cmd, msg)) => match &*cmd {
            "NODE_CLUSTER" => cluster(text),
            "NODE_HANDLE_ACK" => Ok(Heard::HandleAck),
            "NODE_HANDLE_NACK" => Ok(Heard::HandleNack),
            "NODE_HANDLE" => Ok(Heard::WithHandle(msg.map_or("null", RawValue::get).to_owned())),
            _ => Ok(Heard::Other),
        },
    }
}

/// `isInternal` in `child_process.js`.
fn is_nodes(cmd: &str) -> bool {
    cmd.len() > "NODE_".len() && cmd.starts_with("NODE_")
}

fn cluster(text: &str) -> Result<Heard<'_>, Garbage> {
    let message: Cluster<'_> = serde_json::from_str(text).map_err(|_| Garbage)?;
    if let Some(ack) = message.ack {
        return Ok(Heard::Answer { ack, accepted: message.accepted == Some(true) });
    }
    match message.act.as_deref() {
        Some("online") => Ok(Heard::Online),
        Some("queryServer") => Ok(Heard::Query(Query {
            seq: message.seq.ok_or(Garbage)?,
            place: place(&message),
            index: message.index.and_then(|n| u32::try_from(n.as_u64()?).ok()).unwrap_or(0),
            only_v6: message
                .flags
                .and_then(|n| n.as_u64())
                .is_some_and(|flags| flags & ONLY_V6 != 0),
            data: message.data.filter(|data| data.to_string().len() <= MAX_DATA),
        })),
        Some("listening") => Ok(place(&message).map_or(Heard::Other, Heard::Listening)),
        Some("close") => Ok(Heard::Close { key: message.key.ok_or(Garbage)? }),
        Some("exitedAfterDisconnect") => Ok(Heard::Leaving { seq: message.seq.ok_or(Garbage)? }),
        Some(_) | None => Ok(Heard::Other),
    }
}

fn place(message: &Cluster<'_>) -> Option<Place> {
    let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_i64);
    let address = match &message.address {
        None | Some(Value::Null) => None,
        Some(value) => Some(value.as_str()?),
    };
    if let Some(fd) = number(&message.fd).filter(|fd| *fd >= 0) {
        return i32::try_from(fd).ok().map(Place::Fd);
    }
    if number(&message.address_type) == Some(-1) {
        return address.map(|path| Place::Path(path.to_owned()));
    }
    let port = u16::try_from(number(&message.port).unwrap_or(0)).ok()?;
    let address: Option<IpAddr> = address.map(str::parse).transpose().ok()?;
    match message.address_type.as_ref().and_then(Value::as_str) {
        Some("udp4") => {
            Some(Place::Udp { address: address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port })
        }
        Some("udp6") => {
            Some(Place::Udp { address: address.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), port })
        }
        Some(_) => None,
        None => Some(Place::Tcp { address, port }),
    }
}

/// Whether these are the keys of TLS session tickets (`server.getTicketKeys()`): 48 bytes in hexadecimal. What a worker
/// sends otherwise is not given to any other.
#[must_use]
pub fn is_ticket_keys(data: &Value) -> bool {
    let keys = data.as_object().filter(|data| data.len() == 1).and_then(|d| d.get("ticketKeys"));
    let keys = keys.and_then(Value::as_str);
    keys.is_some_and(|keys| keys.len() == 96 && keys.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// How a program is given a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// The descriptor of a stream socket goes with the line.
    Stream,
    /// The descriptor of a datagram socket goes with the line.
    Datagram,
    /// No descriptor: connections will come, on a socket with this address, which is `None` for a unix socket.
    Connections(Option<SocketAddr>),
}

/// Returns the line that gives a server what it asked for.
#[must_use]
pub fn give(seq: u64, query: u64, key: &str, data: Option<&Value>, given: Given) -> String {
    let mut message = json!({ "cmd": "NODE_CLUSTER", "ack": query, "seq": seq, "key": key, "errno": 0, "data": data });
    let kind = match given {
        Given::Stream => "net.Native",
        Given::Datagram => "dgram.Native",
        Given::Connections(address) => {
            message["errno"] = Value::Null;
            if let Some(address) = address {
                let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
                let (ip, port) = (address.ip().to_string(), address.port());
                message["sockname"] = json!({ "address": ip, "family": family, "port": port });
            }
            return format!("{message}\n");
        }
    };
    format!("{}\n", json!({ "cmd": "NODE_HANDLE", "type": kind, "msg": message }))
}

/// Returns the line that refuses a server, which reports `errno` (a positive number of errno(3)).
#[must_use]
pub fn refuse(seq: u64, query: u64, errno: i32) -> String {
    let message = json!({ "cmd": "NODE_CLUSTER", "ack": query, "seq": seq, "key": "", "errno": -errno, "data": null });
    format!("{message}\n")
}

/// Returns the line with which the descriptor of a new connection goes to the server `key`.
#[must_use]
pub fn connection(seq: u64, key: &str) -> String {
    format!(
        "{{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":{{\"cmd\":\"NODE_CLUSTER\",\"act\":\"newconn\",\"key\":\"{key}\",\"seq\":{seq}}}}}\n"
    )
}

/// Returns the line that asks a worker to close its servers, finish what it has, and close the channel.
#[must_use]
pub fn disconnect(seq: u64) -> String {
    format!("{{\"cmd\":\"NODE_CLUSTER\",\"act\":\"disconnect\",\"seq\":{seq}}}\n")
}

/// Returns the line that answers a worker's message `ack`.
#[must_use]
pub fn acknowledge(seq: u64, ack: u64) -> String {
    format!("{{\"cmd\":\"NODE_CLUSTER\",\"ack\":{ack},\"seq\":{seq}}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str, port: u16) -> Place {
        Place::Tcp { address: address.parse().ok(), port }
    }

    #[test]
    fn any_bytes_are_refused_or_understood() {
        let seeds = [
            "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"queryServer\",\"index\":0,\"data\":null,\"address\":null,\"port\":8080,\"addressType\":4,\"seq\":1}",
            "{\"cmd\":\"NODE_CLUSTER\",\"ack\":3,\"accepted\":true,\"seq\":9}",
            "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{\"a\":[1,2]}}",
        ];
        let mut state = 7u64;
        for round in 0..60_000 {
            let mut bytes = seeds[round % seeds.len()].as_bytes().to_vec();
            for _ in 0..=round % 4 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let [.., a, b] = (state >> 33).to_be_bytes();
                let at = usize::from(a) % bytes.len();
                if b % 3 == 0 {
                    bytes.truncate(at.max(1));
                } else {
                    bytes[at] = b;
                }
            }
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn the_programs_own_messages_are_whatever_json_is() {
        for text in [
            "\"ready\"",
            "42",
            "true",
            "null",
            "[1]",
            "{\"cmd\":\"foo\"}",
            "{\"cmd\":\"NODE_\"}",
            "{\"cmd\":5}",
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(Heard::Message(text.into())));
        }
        assert_eq!(parse(b"{\"cmd\":\"NODE_FOO\"}"), Ok(Heard::Other));
        for garbage in
            ["", "{", "hello", "\"a\" \"b\"", "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"close\"}"]
        {
            assert_eq!(parse(garbage.as_bytes()), Err(Garbage), "{garbage}");
        }
        assert_eq!(parse(b"\"\xff\""), Err(Garbage));
    }

    #[test]
    fn a_question_that_makes_no_sense_can_be_answered() {
        let text = b"{\"cmd\":\"NODE_CLUSTER\",\"act\":\"queryServer\",\"address\":[],\"port\":\"x\",\"index\":\"y\",\"seq\":4}";
        let Ok(Heard::Query(query)) = parse(text) else { panic!() };
        assert_eq!((query.seq, query.place), (4, None));
    }

    #[test]
    fn a_server_on_any_port_is_known_again() {
        assert!(tcp("::", 40_001).answers(&tcp("::", 0)));
        assert!(!tcp("::", 40_001).answers(&tcp("0.0.0.0", 0)));
        assert!(!tcp("", 8081).answers(&tcp("", 8080)));
    }
}
