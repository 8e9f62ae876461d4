//! The kernel's account of TCP connections: netlink family SOCK_DIAG (`sock_diag(7)`, `linux/inet_diag.h`, `linux/tcp.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP` (`netlink(7)`).
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `EBADMSG` (`errno(3)`).
const BAD_MESSAGE: i32 = 74;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// `INET_DIAG_INFO`: a struct tcp_info goes with each answer.
const INFO: u16 = 2;
const HEADER: usize = 16;
/// The size of struct inet_diag_msg.
const MESSAGE: usize = 72;
/// Where its parts stand: the ports and addresses of both ends, what waits in its queues, and its inode.
const OWN_PORT: usize = 4;
const OWN: usize = 8;
const PEER_PORT: usize = 6;
const PEER: usize = 24;
const RECEIVE_QUEUE: usize = 56;
const SEND_QUEUE: usize = 60;
const INODE: usize = 68;
/// Where `tcpi_last_data_sent`, `tcpi_last_data_recv` and `tcpi_last_ack_recv` stand in struct tcp_info, in milliseconds …
const LAST_SENT: usize = 44;
const LAST_RECEIVED: usize = 52;
const LAST_CONFIRMED: usize = 56;
/// … and `tcpi_notsent_bytes`, `tcpi_data_segs_in` and `tcpi_data_segs_out`, which Linux has since 4.6.
const UNSENT: usize = 144;
const SEGMENTS_IN: usize = 152;
const SEGMENTS_OUT: usize = 156;

/// The state of a connection (`include/net/tcp_states.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Open at both ends.
    Established = 1,
    /// The handshake is under way: no socket yet, and of no listener in particular.
    SynReceived = 3,
    /// We have said that we send no more.
    FinWait1 = 4,
    /// And the other end has heard it.
    FinWait2 = 5,
    /// The other end has said that it sends no more.
    CloseWait = 8,
    /// Both have, the other end first.
    LastAck = 9,
    /// No connection: a socket that listens for them.
    Listening = 10,
    /// Both have, at the same time.
    Closing = 11,
    /// One that is never asked for.
    Other = 31,
}

impl State {
    /// All states in which somebody may still have the connection: not those of listeners, and not `TCP_TIME_WAIT`, in
    /// which nobody has it any more.
    pub const LIVE: [Self; 6] = [
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::CloseWait,
        Self::LastAck,
        Self::Closing,
    ];

    /// Returns the state of a number of the kernel's.
    #[must_use]
    pub fn of(number: u8) -> Self {
        let is_number = |state: &Self| *state as u8 == number;
        let known = Self::LIVE.into_iter().find(is_number);
        let others = [Self::SynReceived, Self::Listening].into_iter().find(is_number);
        known.or(others).unwrap_or(Self::Other)
    }

    fn bit(self) -> u32 {
        // The kernel has a state of its own for handshakes since 4.4, `TCP_NEW_SYN_RECV`, and answers with the old one.
        let more = if self == Self::SynReceived { 1 << 12 } else { 0 };
        1 << self as u32 | more
    }
}

/// What moved on a connection, and how long ago: from a struct tcp_info. The kernel counts in ticks of 1 to 10 ms, so two
/// times that are the same do not say what came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// How long ago we sent data last, or the connection came to be.
    pub last_sent: Duration,
    /// How long ago data came last, or the connection came to be.
    pub last_received: Duration,
    /// How long ago the other end last confirmed what it got, with data or without.
    pub last_confirmed: Duration,
    /// Bytes that were written and not sent yet; `None` where the kernel does not tell.
    pub unsent: Option<u32>,
    /// Data came, and data were sent.
    pub both_spoke: bool,
}

impl Traffic {
    /// Reads a struct tcp_info; `None` if it is too short for any kernel's. Older kernels' are shorter than newer ones'.
    #[must_use]
    pub fn read(info: &[u8]) -> Option<Self> {
        let ago = |at| Some(Duration::from_millis(word(info, at)?.into()));
        let is_some = |at| word(info, at).is_some_and(|count| count > 0);
        Some(Self {
            last_sent: ago(LAST_SENT)?,
            last_received: ago(LAST_RECEIVED)?,
            last_confirmed: ago(LAST_CONFIRMED)?,
            unsent: word(info, UNSENT),
            both_spoke: is_some(SEGMENTS_IN) && is_some(SEGMENTS_OUT),
        })
    }
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The inode of its socket; 0 while nobody has accepted it, and when nobody has it any more.
    pub inode: u64,
    /// Its state.
    pub state: State,
    /// Our end.
    pub own: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// Bytes that came and that nobody has read (`idiag_rqueue`).
    pub unread: u32,
    /// Bytes that were written and that the other end has not confirmed (`idiag_wqueue`).
    pub unconfirmed: u32,
    /// What moved on it; `None` for a handshake.
    pub traffic: Option<Traffic>,
}

impl Connection {
    /// Returns how long nothing came and nothing was sent, as far as the kernel tells.
    #[must_use]
    pub fn quiet(&self) -> Duration {
        self.traffic.map_or(Duration::ZERO, |traffic| traffic.last_sent.min(traffic.last_received))
    }
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// `AF_INET`.
    V4 = 2,
    /// `AF_INET6`, with the IPv4 clients of its sockets.
    V6 = 10,
}

impl Family {
    /// Returns an address' family.
    #[must_use]
    pub fn of(address: &SocketAddr) -> Self {
        if address.is_ipv6() { Self::V6 } else { Self::V4 }
    }
}

/// Returns the question for all connections to a local port that are in one of these states.
#[must_use]
pub fn request(family: Family, port: u16, states: &[State]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(72);
    bytes.extend(72u32.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    // struct inet_diag_req_v2
    bytes.extend([family as u8, TCP, 1 << (INFO - 1), 0]);
    bytes.extend(states.iter().fold(0, |mask, state| mask | state.bit()).to_ne_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.resize(72, 0);
    bytes
}

/// What follows a piece of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another piece.
    More,
    /// Nothing: this was the last.
    End,
    /// Nothing: the question cannot be answered, and this is the errno.
    Failed(i32),
}

/// Adds the connections of one piece of the answer to `found`; returns what follows. A piece that is none of the kernel's
/// fails with `EBADMSG`.
pub fn read(mut bytes: &[u8], found: &mut Vec<Connection>) -> Next {
    while let Some((length, kind)) = header(bytes) {
        if kind == DONE || kind == ERROR {
            // Both begin with a negative errno, or 0.
            return match word(bytes, HEADER).map_or(0, u32::cast_signed).checked_neg() {
                Some(errno) if errno > 0 => Next::Failed(errno),
                Some(_) => Next::End,
                None => Next::Failed(BAD_MESSAGE),
            };
        }
        let Some(message) = bytes.get(HEADER..length) else { return Next::Failed(BAD_MESSAGE) };
        found.extend(connection(message));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    if bytes.is_empty() { Next::More } else { Next::Failed(BAD_MESSAGE) }
}

fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = usize::try_from(word(bytes, 0)?).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    (length >= HEADER && bytes.len() >= HEADER).then_some((length, kind))
}

fn connection(message: &[u8]) -> Option<Connection> {
    let mut attributes = message.get(MESSAGE..)?;
    let mut traffic = None;
    while let Some(head) = attributes.get(..4) {
        let [a, b, c, d] = head else { break };
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        let payload = attributes.get(4..length);
        if let Some(info) = payload.filter(|_| u16::from_ne_bytes([*c, *d]) == INFO) {
            traffic = Traffic::read(info);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Connection {
        inode: word(message, INODE)?.into(),
        state: State::of(*message.get(1)?),
        own: end(message, OWN_PORT, OWN)?,
        peer: end(message, PEER_PORT, PEER)?,
        unread: word(message, RECEIVE_QUEUE)?,
        unconfirmed: word(message, SEND_QUEUE)?,
        traffic,
    })
}

fn end(message: &[u8], port: usize, address: usize) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(message.get(port..port + 2)?.try_into().ok()?);
    let bytes: [u8; 16] = message.get(address..address + 16)?.try_into().ok()?;
    let [a, b, c, d, ..] = bytes;
    let is_v4 = message.first() == Some(&(Family::V4 as u8));
    let v4 = || IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    let address = if is_v4 { v4() } else { IpAddr::V6(Ipv6Addr::from(bytes)) };
    Some(SocketAddr::new(address, port))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tcp_info as long as a kernel's, with some of its words.
    fn info(length: usize, words: &[(usize, u32)]) -> Vec<u8> {
        let mut info = vec![0; length];
        for (at, value) in words {
            info[*at..*at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        info
    }

    fn answer(inode: u32, info: &[u8]) -> Vec<u8> {
        let mut message = vec![0; HEADER + MESSAGE];
        message[HEADER..HEADER + 2].copy_from_slice(&[Family::V4 as u8, 8]);
        message[HEADER + OWN_PORT..][..2].copy_from_slice(&80u16.to_be_bytes());
        message[HEADER + OWN..][..4].copy_from_slice(&[127, 0, 0, 1]);
        message[HEADER + PEER_PORT..][..2].copy_from_slice(&4711u16.to_be_bytes());
        message[HEADER + PEER..][..4].copy_from_slice(&[127, 0, 0, 9]);
        message[HEADER + RECEIVE_QUEUE..][..4].copy_from_slice(&3u32.to_ne_bytes());
        message[HEADER + SEND_QUEUE..][..4].copy_from_slice(&5u32.to_ne_bytes());
        message[HEADER + INODE..].copy_from_slice(&inode.to_ne_bytes());
        for (kind, payload) in [(8u16, &[1][..]), (INFO, info)] {
            let length = u16::try_from(payload.len() + 4).unwrap();
            message.extend(length.to_ne_bytes());
            message.extend(kind.to_ne_bytes());
            message.extend(payload);
            message.resize(message.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(message.len()).unwrap();
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        message
    }

    fn last(kind: u16, errno: i32) -> Vec<u8> {
        let head = [&20u32.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]].concat();
        [&head[..], &(-errno).to_ne_bytes()].concat()
    }

    #[test]
    fn connections_are_read_with_all_that_the_kernel_tells() {
        let words = [(LAST_SENT, 900), (LAST_RECEIVED, 40), (LAST_CONFIRMED, 38), (UNSENT, 7)];
        let new = info(248, &[&words[..], &[(SEGMENTS_IN, 2), (SEGMENTS_OUT, 1)]].concat());
        let old = info(104, &words[..3]);
        let mut found = vec![];
        assert_eq!(read(&[answer(7, &new), answer(8, &old)].concat(), &mut found), Next::More);
        assert_eq!(read(&last(DONE, 0), &mut found), Next::End);
        let ms = Duration::from_millis;
        let traffic = Traffic {
            last_sent: ms(900),
            last_received: ms(40),
            last_confirmed: ms(38),
            unsent: Some(7),
            both_spoke: true,
        };
        let first = Connection {
            inode: 7,
            state: State::CloseWait,
            own: SocketAddr::from(([127, 0, 0, 1], 80)),
            peer: SocketAddr::from(([127, 0, 0, 9], 4711)),
            unread: 3,
            unconfirmed: 5,
            traffic: Some(traffic),
        };
        let older = Some(Traffic { unsent: None, both_spoke: false, ..traffic });
        assert_eq!(found, [first, Connection { inode: 8, traffic: older, ..first }]);
        assert_eq!(first.quiet(), ms(40));
        assert_eq!(Connection { traffic: None, ..first }.quiet(), Duration::ZERO);
    }

    #[test]
    fn the_other_end_may_be_of_either_family() {
        let mut bytes = answer(7, &[]);
        bytes[HEADER] = Family::V6 as u8;
        bytes[HEADER + PEER..][..16].copy_from_slice(&Ipv6Addr::LOCALHOST.octets());
        let mut found = vec![];
        read(&bytes, &mut found);
        assert_eq!(found[0].peer, "[::1]:4711".parse().unwrap());
    }

    #[test]
    fn states_are_asked_for_by_their_bits() {
        let mask = |states: &[State]| request(Family::V4, 80, states)[20..24].to_vec();
        assert_eq!(mask(&[State::Established, State::CloseWait]), 0x102u32.to_ne_bytes());
        assert_eq!(mask(&[State::SynReceived]), 0x1008u32.to_ne_bytes());
        // Neither TCP_TIME_WAIT (6) nor TCP_CLOSE (7) nor TCP_LISTEN (10).
        assert_eq!(mask(&State::LIVE), 0xb32u32.to_ne_bytes());
        assert_eq!(State::of(3), State::SynReceived);
        assert_eq!((State::of(10), State::of(7)), (State::Listening, State::Other));
    }

    #[test]
    fn what_cannot_be_answered_is_told_from_nothing_found() {
        for kind in [ERROR, DONE] {
            assert_eq!(read(&last(kind, 2), &mut vec![]), Next::Failed(2));
            assert_eq!(read(&last(kind, 0), &mut vec![]), Next::End);
        }
        assert_eq!(read(&answer(7, &[])[..40], &mut vec![]), Next::Failed(BAD_MESSAGE));
    }

    #[test]
    fn any_bytes_are_survived() {
        let info = info(248, &[(LAST_SENT, 900)]);
        let whole = [answer(7, &info), answer(8, &info[..104]), last(DONE, 1)].concat();
        for at in 0..whole.len() {
            read(&whole[..at], &mut vec![]);
            for value in [0, 1, 3, 4, 128, 255] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                read(&bytes, &mut vec![]);
            }
        }
        read(&last(ERROR, i32::MIN + 1), &mut vec![]);
        for length in 0..200 {
            let _ = Traffic::read(&vec![255; length]);
        }
    }
}
