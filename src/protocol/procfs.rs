//! What procfs shows of a worker that waits on a listener (`proc(5)`: fdinfo, syscall, task/children).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// Returns the inodes that an epoll set watches: the `ino:` of its `tfd:` lines in `/proc/PID/fdinfo/N`.
#[must_use]
pub fn epoll_inodes(fdinfo: &str) -> BTreeSet<u64> {
    fdinfo.lines().filter(|line| line.starts_with("tfd:")).filter_map(inode_of_tfd).collect()
}

fn inode_of_tfd(line: &str) -> Option<u64> {
    let after = line.split("ino:").nth(1)?;
    u64::from_str_radix(after.split_ascii_whitespace().next()?, 16).ok()
}

/// Returns the inode behind a link like `socket:[12345]` in `/proc/PID/fd`.
#[must_use]
pub fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Returns the pids in `/proc/PID/task/TID/children`.
#[must_use]
pub fn children(text: &str) -> Vec<i32> {
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// A thread that is blocked in a system call: `/proc/PID/task/TID/syscall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The system call's number on this architecture.
    pub number: i64,
    /// Its arguments, as raw registers.
    pub arguments: [u64; 6],
}

/// Returns the system call that a thread is blocked in; `None` if it is running, or in none.
#[must_use]
pub fn blocked(text: &str) -> Option<Blocked> {
    let mut words = text.split_ascii_whitespace();
    let number = words.next()?.parse().ok().filter(|number| *number >= 0)?;
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    }
    Some(Blocked { number, arguments })
}

/// Returns the file descriptors in an array of `struct pollfd` that wait for input (`poll(2)`).
#[must_use]
pub fn poll_set(memory: &[u8]) -> Vec<i32> {
    let (entries, _) = memory.as_chunks::<8>();
    let waits = |e: &&[u8; 8]| i16::from_ne_bytes([e[4], e[5]]) & 0x1 != 0;
    let fd = |e: &[u8; 8]| i32::from_ne_bytes([e[0], e[1], e[2], e[3]]);
    entries.iter().filter(waits).map(fd).filter(|fd| *fd >= 0).collect()
}

/// Returns the file descriptors in an `fd_set` (`select(2)`): bit `n` of the little-endian bytes is descriptor `n`.
#[must_use]
pub fn select_set(memory: &[u8]) -> Vec<i32> {
    let bits = memory.iter().enumerate().flat_map(|(at, byte)| {
        (0..8).filter(move |bit| byte & (1 << bit) != 0).map(move |bit| at * 8 + bit)
    });
    bits.filter_map(|fd| i32::try_from(fd).ok()).collect()
}

/// What `/proc/PID/stat` tells of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its parent.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Processor time of its own, and of the children that it waited for, in clock ticks.
    pub ticks: u64,
    /// Pages in memory, shared ones included.
    pub pages: u64,
}

/// Reads `/proc/PID/stat` (`proc_pid_stat(5)`). The second field, the program's name, may hold anything.
#[must_use]
pub fn stat(text: &str) -> Option<Stat> {
    let after_name = text.rsplit_once(')')?.1;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    // The first of these is the third of the manual page.
    let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
    let count = |number| field(number).and_then(|n| u64::try_from(n).ok());
    Some(Stat {
        parent: i32::try_from(field(4)?).ok()?,
        group: i32::try_from(field(5)?).ok()?,
        ticks: count(14)? + count(15)? + count(16)? + count(17)?,
        pages: count(24)?,
    })
}

/// Whether a process or thread is stopped, or has ended, by its `stat` (`proc_pid_stat(5)`, the third field).
#[must_use]
pub fn is_stopped(stat: &[u8]) -> bool {
    state(stat).is_some_and(|state| b"TtZX".contains(&state))
}

/// Whether a process or thread runs or wants to, by its `stat`.
#[must_use]
pub fn is_runnable(stat: &[u8]) -> bool {
    state(stat) == Some(b'R')
}

fn state(stat: &[u8]) -> Option<u8> {
    // The program's name, before it, may hold any bytes.
    let after_name = stat.iter().rposition(|byte| *byte == b')').map_or(0, |at| at + 1);
    stat[after_name..].iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

/// Returns the inodes of the open connections on a local port (established, or closed by the other side only), from `/proc/PID/net/tcp` or `tcp6`
/// (`proc_pid_net(5)`): the second field is the local address, the fourth the state, the tenth the inode.
#[must_use]
pub fn established(table: &str, is_ours: impl Fn(u16) -> bool) -> Vec<u64> {
    let one = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
        let port = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
        let inode = fields.get(9)?.parse().ok()?;
        let is_open = matches!(*fields.get(3)?, "01" | "08");
        (is_open && is_ours(port) && inode != 0).then_some(inode)
    };
    table.lines().skip(1).filter_map(one).collect()
}

/// Returns the addresses that somebody listens on, or for datagrams receives at, with the sockets' inodes, from
/// `/proc/PID/net/tcp`, `tcp6`, `udp` or `udp6` (`proc_pid_net(5)`): an address is written as words of the machine's order.
#[must_use]
pub fn listening(table: &str) -> Vec<(SocketAddr, u64)> {
    let one = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
        // TCP_LISTEN, and TCP_CLOSE for a datagram socket that has no peer.
        if !matches!(*fields.get(3)?, "0A" | "07") {
            return None;
        }
        let (address, port) = fields.get(1)?.rsplit_once(':')?;
        let words = address.as_bytes().chunks(8).map(|word| {
            let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
            Some(word.to_ne_bytes())
        });
        let bytes = words.collect::<Option<Vec<_>>>()?.concat();
        let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
            Ok(v4) => IpAddr::from(v4),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?),
        };
        let port = u16::from_str_radix(port, 16).ok()?;
        Some((SocketAddr::new(address, port), fields.get(9)?.parse().ok()?))
    };
    table.lines().skip(1).filter_map(one).collect()
}

/// Returns the inodes of the accepted connections of a unix socket, from `/proc/PID/net/unix`: the sixth field is the
/// state (03 connected), the seventh the inode, the eighth the path.
#[must_use]
pub fn connected(table: &str, is_ours: impl Fn(&str) -> bool) -> Vec<u64> {
    let one = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().take(7).collect();
        let (state, inode) = (*fields.get(5)?, *fields.get(6)?);
        // The path is the rest of the line, spaces included; the inode stands right before it.
        let path = line.split_once(&format!(" {inode} "))?.1;
        (state == "03" && is_ours(path)).then(|| inode.parse().ok())?
    };
    table.lines().skip(1).filter_map(one).collect()
}

/// Returns how many file descriptors wait to be received on a unix socket (`scm_fds` in `/proc/PID/fdinfo/N`).
#[must_use]
pub fn descriptors_under_way(info: &str) -> u64 {
    let count = info.lines().find_map(|line| line.strip_prefix("scm_fds:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// Returns the value of a variable in `/proc/PID/environ` (`proc_pid_environ(5)`), if it is text.
#[must_use]
pub fn variable<'a>(environment: &'a [u8], name: &str) -> Option<&'a str> {
    let value = |entry: &'a [u8]| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    std::str::from_utf8(environment.split(|byte| *byte == 0).find_map(value)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_read_from_the_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
               0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 77 1 0 100 0 0 10 0\n\
               1: 0100007F:1F91 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  0 0 78 1 0\n\
               2: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 79 1\n\
               3: 0100:50 0:0 0A\n 4: zz\n";
        let found = listening(table);
        let expected = [("127.0.0.1:8080", 77), ("[::1]:80", 79)];
        assert_eq!(found, expected.map(|(address, inode)| (address.parse().unwrap(), inode)));
    }

    #[test]
    fn an_epoll_set_names_the_inodes_that_it_watches() {
        let fdinfo = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1041\n\
            tfd:        3 events:       19 data:                3  pos:0 ino:14ad2 sdev:8\n\
            tfd:        9 events: 80000001 data: ffffffffffffffff  pos:0 ino:411 sdev:f\n";
        assert_eq!(epoll_inodes(fdinfo), BTreeSet::from([0x14ad2, 0x411]));
        assert_eq!(epoll_inodes("tfd: 1 ino:zz\ntfd:\ntfd: ino:"), BTreeSet::new());
    }

    #[test]
    fn a_blocked_thread_shows_its_call_and_arguments() {
        let line = "7 0x7ffd1 0x1 0xffffffff 0x0 0x0 0x0 0x7ffd0 0x7f1\n";
        let call = blocked(line).unwrap();
        assert_eq!((call.number, call.arguments[0], call.arguments[2]), (7, 0x7ffd1, 0xffff_ffff));
        assert_eq!(blocked("running\n"), None);
        assert_eq!(blocked("-1 0x7ffd0 0x7f1\n"), None);
        assert_eq!(blocked("7 0x1"), None);
    }

    #[test]
    fn poll_and_select_sets_are_read_from_memory() {
        let mut memory = vec![3, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0];
        memory.extend([0xff; 4]);
        memory.extend([1, 0, 0, 0]);
        assert_eq!(poll_set(&memory), [3]);
        assert_eq!(select_set(&[0b0000_1000, 0b1]), [3, 8]);
    }

    #[test]
    fn links_and_children_are_read() {
        assert_eq!(socket_inode("socket:[85714]"), Some(85714));
        assert_eq!(socket_inode("pipe:[85714]"), None);
        assert_eq!(children("12 345 \n"), [12, 345]);
        assert_eq!(children(""), Vec::<i32>::new());
    }

    #[test]
    fn any_text_and_any_bytes_are_survived() {
        let mut state = 3u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bytes = state.to_le_bytes();
            let pick = |b: &u8| char::from(b"tfd: ino:0x7f -1\n[]socket"[usize::from(*b) % 25]);
            let text: String = bytes.iter().chain(&bytes).map(pick).collect();
            let _ = (epoll_inodes(&text), socket_inode(&text), children(&text), blocked(&text));
            let _ = (poll_set(&bytes[..7]), poll_set(&bytes), select_set(&bytes));
        }
    }

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let text = "4242 (a) b (c)) S 17 4242 4242 0 -1 4194560 900 1 2 3 50 25 10 5 20 0 1 0 77 \
                    9000000 1234 18446744073709551615 1 1";
        let read = Stat { parent: 17, group: 4242, ticks: 90, pages: 1234 };
        assert_eq!(stat(text), Some(read));
        for broken in ["", ")", "1 (x) S", "1 (x S 1 2 3"] {
            assert_eq!(stat(broken), None);
        }
    }

    #[test]
    fn who_is_stopped_is_told_by_the_third_field() {
        for (stat, stopped) in [
            ("1 (S) T 1", true),
            ("1 (a) T) R 1", false),
            ("1 (T) Z", true),
            ("", false),
            (")", false),
        ] {
            assert_eq!(is_stopped(stat.as_bytes()), stopped, "{stat}");
            assert_eq!(is_runnable(stat.as_bytes()), stat.ends_with("R 1"), "{stat}");
        }
    }

    #[test]
    fn established_connections_are_found_by_their_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1\n\
            1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 12 1\n\
            2: 0100007F:9999 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 13 1\n\
            3: 0100007F:1F90 0100007F:9998 01 00000000:00000000 00:00000000 00000000     0        0 0 1\nrubbish";
        assert_eq!(established(table, |port| port == 8080), [12]);
        let table = "Num RefCount Protocol Flags Type St Inode Path\n\
            0: 2 0 00010000 0001 01 21 /run/app.sock\n0: 3 0 00000000 0001 03 22 /run/app.sock\n0: 3 0 00000000 0001 03 23\n";
        assert_eq!(connected(table, |path| path == "/run/app.sock"), [22]);
    }
}
