//! Looking for evidence that a starting worker serves. Once it is found nobody looks any more.
//!
//! A server that serves waits on its listener, and the kernel shows it (`proc(5)`): an epoll set that holds the
//! listener's inode, or a thread blocked in accept, poll, select or recvmsg on it. Processes that the worker started
//! count. One that has more to do than it can never waits; that it has accepted a connection shows the same. io_uring
//! shows nothing; such a program says `READY=1`, or is given `alive:`.

use super::News;
use super::channel::Local;
use super::drain::census;
use crate::config::values::ReadyWhen;
use crate::core::{Event, Evidence, WorkerId};
use crate::protocol::diag::State;
use crate::protocol::procfs;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;

/// A worker's family is looked at up to this many, and sets of descriptors up to this size.
pub(super) const MAX_PROCESSES: usize = 1024;
const MAX_SET: usize = 1024;

/// How often connections are looked for: each look takes the kernel through all of the machine.
const BETWEEN_COUNTS: Duration = Duration::from_millis(500);

/// What to look for, and where.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) worker: WorkerId,
    pub(super) pid: i32,
    pub(super) when: ReadyWhen,
    /// The listeners' inodes.
    pub(super) inodes: BTreeSet<u64>,
    /// Where connections come to.
    pub(super) locals: Vec<Local>,
    /// The readiness pipe's read end.
    pub(super) pipe: Option<OwnedFd>,
}

/// Waits for evidence and sends it, once.
pub(super) async fn watch(watch: Watch, news: mpsc::Sender<News>) {
    let Watch { worker, pid, when, inodes, locals, pipe } = watch;
    let pipe = pipe.and_then(|pipe| Receiver::from_owned_fd(pipe).ok());
    let accepting = async {
        match when {
            ReadyWhen::Auto | ReadyWhen::Accepting => until_accepting(pid, &inodes, &locals).await,
            ReadyWhen::Notify
            | ReadyWhen::Fd
            | ReadyWhen::Listening
            | ReadyWhen::Message
            | ReadyWhen::Alive(_) => std::future::pending::<Evidence>().await,
        }
    };
    let alive = async {
        match when {
            ReadyWhen::Alive(time) => tokio::time::sleep(time).await,
            ReadyWhen::Auto
            | ReadyWhen::Notify
            | ReadyWhen::Fd
            | ReadyWhen::Accepting
            | ReadyWhen::Listening
            | ReadyWhen::Message => std::future::pending::<()>().await,
        }
    };
    let evidence = tokio::select! {
        evidence = accepting => evidence,
        () = alive => Evidence::Alive,
        () = until_line(pipe.as_ref()) => Evidence::Fd,
    };
    let _ = news.send(News::Event(Event::Ready { worker, evidence })).await;
}

/// Waits for a newline on the pipe, as s6 does. That it is closed without one is no evidence.
async fn until_line(pipe: Option<&Receiver>) {
    let Some(pipe) = pipe else {
        return std::future::pending().await;
    };
    let mut buffer = [0; 64];
    while pipe.readable().await.is_ok() {
        match pipe.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(n) if buffer[..n].contains(&b'\n') => return,
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    std::future::pending::<()>().await;
}

/// Looks often at first, then less: every tenth of the time that has passed, at most ten times a second.
async fn until_accepting(pid: i32, inodes: &BTreeSet<u64>, locals: &[Local]) -> Evidence {
    let (mut passed, mut next_count) = (Duration::ZERO, BETWEEN_COUNTS);
    loop {
        let pause = (passed / 10).clamp(Duration::from_millis(2), Duration::from_millis(100));
        tokio::time::sleep(pause).await;
        passed += pause;
        if is_accepting(pid, inodes) {
            return Evidence::Accepting;
        }
        if passed >= next_count {
            next_count = passed + BETWEEN_COUNTS;
            if has_accepted(pid, locals) {
                return Evidence::Accepted;
            }
        }
    }
}

/// Whether the process or one of its descendants waits on a socket with one of these inodes.
fn is_accepting(pid: i32, inodes: &BTreeSet<u64>) -> bool {
    family_of(pid).into_iter().any(|pid| {
        let holds = descriptors(pid, inodes);
        holds.epoll || threads(pid).any(|thread| is_blocked_on(pid, &thread, &holds.listeners))
    })
}

/// Whether the process or one of its descendants has a connection that came to one of these sockets.
fn has_accepted(pid: i32, locals: &[Local]) -> bool {
    let rows = census::rows(locals, &[State::Established, State::CloseWait]);
    rows.is_ok_and(|rows| rows.of(pid).len() > 0)
}

/// Returns a process and its descendants, up to a limit.
pub(super) fn family_of(pid: i32) -> Vec<i32> {
    let mut pids = vec![pid];
    let mut at = 0;
    while at < pids.len() {
        let pid = pids[at];
        for thread in threads(pid) {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/children"))
                .unwrap_or_default();
            pids.extend(
                procfs::children(&text)
                    .into_iter()
                    .take(MAX_PROCESSES - pids.len().min(MAX_PROCESSES)),
            );
        }
        at += 1;
    }
    pids
}

/// A process' descriptors, as far as they concern listeners.
struct Holds {
    /// It has an epoll set with a listener in it.
    epoll: bool,
    /// The numbers of the listeners.
    listeners: BTreeSet<u64>,
}

fn descriptors(pid: i32, inodes: &BTreeSet<u64>) -> Holds {
    let mut holds = Holds { epoll: false, listeners: BTreeSet::new() };
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Ok(link) = fs::read_link(entry.path()) else {
            continue;
        };
        let link = link.to_string_lossy();
        if link == "anon_inode:[eventpoll]" {
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", name.to_string_lossy()));
            holds.epoll |= !procfs::epoll_inodes(&info.unwrap_or_default()).is_disjoint(inodes);
        } else if procfs::socket_inode(&link).is_some_and(|inode| inodes.contains(&inode)) {
            holds.listeners.extend(name.to_string_lossy().parse::<u64>());
        }
    }
    holds
}

fn threads(pid: i32) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn is_blocked_on(pid: i32, thread: &str, listeners: &BTreeSet<u64>) -> bool {
    if listeners.is_empty() {
        return false;
    }
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/syscall")).unwrap_or_default();
    let Some(call) = procfs::blocked(&text) else {
        return false;
    };
    let [first, second, ..] = call.arguments;
    let holds = |fd: i32| u64::try_from(fd).is_ok_and(|fd| listeners.contains(&fd));
    match call.number {
        libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_recvfrom
        | libc::SYS_recvmsg
        | libc::SYS_recvmmsg
        | libc::SYS_read => listeners.contains(&(first & 0xffff_ffff)),
        number if is_poll(number) => {
            let entries = usize::try_from(second).unwrap_or(MAX_SET).min(MAX_SET);
            procfs::poll_set(&memory(pid, first, entries * 8)).into_iter().any(holds)
        }
        number if is_select(number) => {
            let bits = usize::try_from(first).unwrap_or(MAX_SET).min(MAX_SET);
            procfs::select_set(&memory(pid, second, bits.div_ceil(8))).into_iter().any(holds)
        }
        _ => false,
    }
}

#[cfg(target_arch = "x86_64")]
fn is_poll(number: i64) -> bool {
    matches!(number, libc::SYS_poll | libc::SYS_ppoll)
}

#[cfg(target_arch = "x86_64")]
fn is_select(number: i64) -> bool {
    matches!(number, libc::SYS_select | libc::SYS_pselect6)
}

// Newer architectures have only the calls with a signal mask.
#[cfg(not(target_arch = "x86_64"))]
fn is_poll(number: i64) -> bool {
    number == libc::SYS_ppoll
}

#[cfg(not(target_arch = "x86_64"))]
fn is_select(number: i64) -> bool {
    number == libc::SYS_pselect6
}

/// Returns what stands in a process' memory; nothing if it cannot be read whole.
fn memory(pid: i32, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let read = fs::File::open(format!("/proc/{pid}/mem"))
        .and_then(|mem| mem.read_exact_at(&mut bytes, address));
    read.map_or_else(|_| Vec::new(), |()| bytes)
}
