//! The kernel's account of TCP connections: netlink family SOCK_DIAG (`sock_diag(7)`, `linux/inet_diag.h`, `linux/tcp.h`).

use std::time::Duration;

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP` (`netlink(7)`).
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// `INET_DIAG_INFO`: a struct tcp_info goes with each answer.
const INFO: u16 = 2;
/// `TCP_ESTABLISHED` and `TCP_CLOSE_WAIT`, as bits.
const CONNECTED: u32 = 1 << 1 | 1 << 8;
const HEADER: usize = 16;
/// The size of struct inet_diag_msg.
const MESSAGE: usize = 72;
/// Where its inode stands.
const INODE: usize = 68;
/// Where `tcpi_last_data_sent` and `tcpi_last_data_recv` stand in struct tcp_info, in milliseconds.
const LAST_SENT: usize = 44;
const LAST_RECEIVED: usize = 52;

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The inode of its socket; 0 while nobody has accepted it.
    pub inode: u64,
    /// How long nothing came and nothing was sent, as far as the kernel tells.
    pub quiet: Duration,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `AF_INET`.
    V4 = 2,
    /// `AF_INET6`, with the IPv4 clients of its sockets.
    V6 = 10,
}

/// Returns the question for all connections to a local port.
#[must_use]
pub fn request(family: Family, port: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(72);
    bytes.extend(72u32.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    // struct inet_diag_req_v2
    bytes.extend([family as u8, TCP, 1 << (INFO - 1), 0]);
    bytes.extend(CONNECTED.to_ne_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.resize(72, 0);
    bytes
}

/// Adds the connections of one piece of the answer to `found`; returns whether it was the last.
pub fn read(mut bytes: &[u8], found: &mut Vec<Connection>) -> bool {
    while let Some((length, kind)) = header(bytes) {
        if kind == DONE || kind == ERROR {
            return true;
        }
        let Some(message) = bytes.get(HEADER..length) else { return true };
        found.extend(connection(message));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    // A piece that ends in the middle of nothing is none of the kernel's.
    !bytes.is_empty()
}

fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = usize::try_from(word(bytes, 0)?).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    (length >= HEADER && bytes.len() >= HEADER).then_some((length, kind))
}

fn connection(message: &[u8]) -> Option<Connection> {
    let inode = word(message, INODE)?.into();
    let mut attributes = message.get(MESSAGE..)?;
    let mut quiet = Duration::ZERO;
    while let Some(head) = attributes.get(..4) {
        let [a, b, c, d] = head else { break };
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        let payload = attributes.get(4..length);
        if let Some(info) = payload.filter(|_| u16::from_ne_bytes([*c, *d]) == INFO) {
            let ms = word(info, LAST_SENT)?.min(word(info, LAST_RECEIVED)?);
            quiet = Duration::from_millis(ms.into());
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Connection { inode, quiet })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(inode: u32, sent: u32, received: u32) -> Vec<u8> {
        let mut info = vec![0; 104];
        info[LAST_SENT..LAST_SENT + 4].copy_from_slice(&sent.to_ne_bytes());
        info[LAST_RECEIVED..LAST_RECEIVED + 4].copy_from_slice(&received.to_ne_bytes());
        let mut message = vec![0; HEADER + MESSAGE];
        message[HEADER + INODE..].copy_from_slice(&inode.to_ne_bytes());
        for (kind, payload) in [(8u16, &[1][..]), (INFO, &info)] {
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

    #[test]
    fn connections_are_read_with_how_long_they_are_quiet() {
        let done = [&20u32.to_ne_bytes()[..], &DONE.to_ne_bytes(), &[0; 14]].concat();
        let mut found = vec![];
        assert!(!read(&[answer(7, 900, 40), answer(8, 5, 60)].concat(), &mut found));
        assert!(read(&done, &mut found));
        let connection = |inode, ms| Connection { inode, quiet: Duration::from_millis(ms) };
        assert_eq!(found, [connection(7, 40), connection(8, 5)]);
    }

    #[test]
    fn any_bytes_are_survived() {
        let whole = [answer(7, 900, 40), answer(8, 5, 60)].concat();
        for at in 0..whole.len() {
            read(&whole[..at], &mut vec![]);
            for value in [0, 1, 3, 4, 255] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                read(&bytes, &mut vec![]);
            }
        }
    }
}
