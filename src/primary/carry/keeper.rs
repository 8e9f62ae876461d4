//! The keeper: a process that shares the primary's table of descriptors and does nothing but wait. It is there for two
//! moments.
//!
//! **The primary dies.** Whatever it had in its hands, as a connection that it had accepted and not passed on yet, is still
//! open: the next primary asks for it at the *door*, and the keeper ends.
//!
//! **The app ends, and the primary cannot end its workers**: it hangs, or is dead and will not be started again. The keeper
//! holds the read end of the *leash*, a pipe whose write end lies in systemd's FD store alone. systemd keeps the store
//! over a restart and drops it when the unit is really down; then the keeper ends the workers that the primary had.
//! Where there is no FD store the leash is gone from the beginning, and the workers end with their primary.
//!
//! | what happens | what it does |
//! |---|---|
//! | the primary dies | closes everything but the workers' pidfds and the clients' connections |
//! | a knock at the door | passes the connections; ends |
//! | the primary is dead and the leash gone | SIGTERM to the workers, SIGKILL after their time; ends |

use crate::sys::cgroup::{Delegated, Group};
use crate::sys::pidfd::{self, Ended};
use crate::sys::{fork, process, socket};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::stat::fstat;
use nix::unistd::Pid;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// What is said at the door.
const KNOCK: u8 = b'k';
const CONNECTION: u8 = b'c';
/// A keeper that does not answer has nothing to give.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether workers have ended.
const LOOK: Duration = Duration::from_millis(20);
/// The descriptors that are left alone: standard input, output and error.
const STANDARD: i32 = 2;

/// What the keeper uses. The numbers are its own in the table that it shares with us, so they stay open here too.
#[derive(Debug)]
pub(in super::super) struct Keeper {
    /// Its pid, seen from the primary.
    pid: Option<Pid>,
    /// The read end of the leash.
    leash: OwnedFd,
    inside: UnixStream,
    /// The way to it, for the next primary.
    pub(in super::super) door: UnixStream,
    primary: OwnedFd,
    orders: Orders,
}

/// What it goes by.
#[derive(Clone, Debug)]
pub(in super::super) struct Orders {
    pub(in super::super) app: String,
    /// The control socket, whose connections are nobody's when the primary is dead.
    pub(in super::super) control: PathBuf,
    /// How long workers may take to end.
    pub(in super::super) grace: Duration,
    /// The workers live on without a primary, though nothing will tell of the app's end.
    pub(in super::super) orphans_stay: bool,
}

impl Keeper {
    /// Makes one that waits for the end of this leash.
    ///
    /// # Errors
    /// As socketpair(2) and clone(2); also when this process has several threads.
    pub(in super::super) fn hire(orders: Orders, leash: OwnedFd) -> io::Result<Self> {
        let (inside, door) = UnixStream::pair()?;
        let primary = pidfd::open(nix::unistd::getpid())?;
        let mut keeper = Self { pid: None, leash, inside, door, primary, orders };
        keeper.pid = Some(fork::sharing_descriptors(|| keeper.stand())?);
        Ok(keeper)
    }

    pub(in super::super) fn is(&self, pid: Pid) -> bool {
        self.pid == Some(pid)
    }

    /// Ends it: there is nothing left to keep.
    pub(in super::super) fn dismiss(self) {
        if let Some(pid) = self.pid {
            process::signal(pid, Signal::SIGKILL);
        }
    }

    /// Its whole life.
    fn stand(&self) {
        let _ = nix::unistd::setsid();
        fork::ignore_signals();
        fork::retitle(&format!("dogwatch: keeper of {}", self.orders.app));
        let (mut leash_is_gone, mut primary_is_dead, mut door_is_gone) = (false, false, false);
        // Those of the workers that are to live on, and must not stand still because nobody reads; and who they are.
        let (mut pipes, mut orphans) = (vec![], vec![]);
        while !(leash_is_gone && primary_is_dead) || self.orders.orphans_stay {
            let mut watched = vec![];
            watched.extend((!door_is_gone).then(|| (self.inside.as_fd(), PollFlags::POLLIN)));
            watched.extend((!leash_is_gone).then(|| (self.leash.as_fd(), PollFlags::empty())));
            watched.extend((!primary_is_dead).then(|| (self.primary.as_fd(), PollFlags::POLLIN)));
            let waited = pipes.iter().chain(&orphans);
            watched.extend(waited.map(|fd: &OwnedFd| (fd.as_fd(), PollFlags::POLLIN)));
            let Ok(come) = come(&watched) else { continue };
            let has_come = |fd: RawFd| come.contains(&fd);
            if has_come(self.inside.as_raw_fd()) {
                // At the end of the app it is gone with the FD store.
                match (&self.inside).read(&mut [0]) {
                    Ok(0) | Err(_) => door_is_gone = true,
                    Ok(_) => return self.hand_over(),
                }
            }
            leash_is_gone |= has_come(self.leash.as_raw_fd());
            if has_come(self.primary.as_raw_fd()) && !primary_is_dead {
                primary_is_dead = true;
                (pipes, orphans) = self.clear_out();
            }
            pipes.retain(|pipe| !has_come(pipe.as_raw_fd()) || discard(pipe));
            orphans.retain(|orphan| !has_come(orphan.as_raw_fd()));
            if self.orders.orphans_stay && primary_is_dead && orphans.is_empty() {
                return;
            }
        }
        self.end_workers();
    }

    /// Passes the connections that the primary had in its hands.
    fn hand_over(&self) {
        let connections = fork::copy_descriptors();
        for fd in connections.iter().filter(|fd| self.is_connection(fd)) {
            let mut sent = socket::send(&self.inside, &[CONNECTION], Some(fd.as_fd()));
            while sent.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) {
                let _ = come(&[(self.inside.as_fd(), PollFlags::POLLOUT)]);
                sent = socket::send(&self.inside, &[CONNECTION], Some(fd.as_fd()));
            }
        }
        drop(connections);
        // Whoever waits for our end is to find everything else closed.
        let inside = self.inside.as_raw_fd();
        fork::close_descriptors(|number, _| number > STANDARD && number != inside);
    }

    /// The primary is dead: whoever waits for an answer of its is to hear that, and nothing is to wait in vain. But what
    /// is nowhere else stays.
    fn clear_out(&self) -> (Vec<OwnedFd>, Vec<OwnedFd>) {
        let stay = self.orders.orphans_stay;
        let own = [self.leash.as_raw_fd(), self.inside.as_raw_fd()];
        fork::close_descriptors(|number, fd| {
            let is_own = number <= STANDARD || own.contains(&number);
            // Of workers that live on, the channels and the pipes, which have no address.
            let is_theirs = stay && !has_address(fd);
            !(is_own || is_theirs || pidfd::pid(fd).is_ok() || !stay && self.is_connection(fd))
        });
        if !stay {
            return (vec![], vec![]);
        }
        let leash = socket::inode(&self.leash).ok();
        let is_pipe = |fd: &OwnedFd| is_read_end(fd) && socket::inode(fd).ok() != leash;
        (fork::copy_descriptors().into_iter().filter(is_pipe).collect(), self.workers())
    }

    /// A connection of a client of the app: it was accepted on a socket with an address, and not on the control socket.
    fn is_connection(&self, fd: impl AsFd) -> bool {
        let is_stream = socket::is_listening(&fd).is_ok_and(|listens| !listens)
            && socket::is_datagram(&fd).is_ok_and(|datagram| !datagram);
        let address = socket::own_address(&fd).is_ok_and(|address| address.is_some());
        let path = socket::own_path(&fd).filter(|path| *path != self.orders.control);
        is_stream && (address || path.is_some())
    }

    /// Nobody else will.
    fn end_workers(&self) {
        let workers: Vec<OwnedFd> = self.workers();
        let groups = Delegated::find();
        let group = |fd: &OwnedFd| groups.as_ref()?.group_of(pidfd::pid(fd).ok().flatten()?);
        let groups: Vec<Group> = workers.iter().filter_map(group).collect();
        let leaders: Vec<Pid> = workers.iter().filter_map(|fd| pidfd::pid(fd).ok()?).collect();
        for worker in &workers {
            let _ = pidfd::send(worker, Signal::SIGTERM);
            let _ = pidfd::send(worker, Signal::SIGCONT);
        }
        let mut waited = Duration::ZERO;
        while waited < self.orders.grace && workers.iter().any(|w| pidfd::ended(w) == Ended::No) {
            let _ = poll(&mut [], PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO));
            waited += LOOK;
        }
        for worker in &workers {
            let _ = pidfd::send(worker, Signal::SIGKILL);
        }
        for leader in leaders {
            process::signal_group(leader, Signal::SIGKILL);
        }
        for group in groups {
            let _ = group.kill();
        }
    }

    /// The pidfds in the table are the workers', but for our own of the primary.
    fn workers(&self) -> Vec<OwnedFd> {
        let own = pidfd::pid(&self.primary).ok().flatten();
        let is_worker = |fd: &OwnedFd| match pidfd::pid(fd) {
            Ok(pid) => pid.is_some() && pid != own,
            Err(_) => false,
        };
        fork::copy_descriptors().into_iter().filter(is_worker).collect()
    }
}

/// Waits until something has come, and returns where.
fn come(watched: &[(BorrowedFd<'_>, PollFlags)]) -> nix::Result<Vec<RawFd>> {
    let mut set: Vec<PollFd<'_>> =
        watched.iter().map(|(fd, flags)| PollFd::new(*fd, *flags)).collect();
    poll(&mut set, PollTimeout::NONE)?;
    let come = watched.iter().zip(&set).filter(|(_, polled)| polled.any() == Some(true));
    Ok(come.map(|((fd, _), _)| fd.as_raw_fd()).collect())
}

/// Listens somewhere, or was accepted there.
fn has_address(fd: &OwnedFd) -> bool {
    socket::own_address(fd).is_ok_and(|address| address.is_some()) || socket::own_path(fd).is_some()
}

fn is_read_end(fd: &OwnedFd) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    let is_pipe = fstat(fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFIFO);
    is_pipe && flags.is_ok_and(|flags| flags & OFlag::O_ACCMODE == OFlag::O_RDONLY)
}

/// Throws away what is in a pipe; returns whether there may be more.
fn discard(pipe: &OwnedFd) -> bool {
    let mut buffer = [0; 16 * 1024];
    !matches!(nix::unistd::read(pipe, &mut buffer), Ok(0))
}

/// Whether a process is somebody's keeper, by its name.
pub(super) fn is_one(pid: Pid) -> bool {
    std::fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"dogwatch-keeper\n")
}

/// Returns another read end of the leash, of whichever end there is (`proc_pid_fd(5)`: opening the link opens the pipe).
///
/// # Errors
/// As open(2).
pub(in super::super) fn read_end(leash: &OwnedFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", leash.as_raw_fd());
    // Without waiting for a writer: there may be none any more.
    let mut open = std::fs::OpenOptions::new();
    Ok(open.read(true).custom_flags(libc::O_NONBLOCK).open(path)?.into())
}

/// Asks the last primary's keeper for the connections that it has, and lets it end. Returns none where it does not answer.
pub(in super::super) fn relieve(door: OwnedFd) -> Vec<OwnedFd> {
    let mut door = UnixStream::from(door);
    let mut connections = vec![];
    let times = door
        .set_nonblocking(false)
        .and_then(|()| door.set_read_timeout(Some(PATIENCE)))
        .and_then(|()| door.set_write_timeout(Some(PATIENCE)));
    if times.and_then(|()| door.write_all(&[KNOCK])).is_err() {
        return connections;
    }
    // It closes its end when it has ended.
    while let Ok(Some(fd)) = socket::receive_descriptor(&door) {
        connections.push(fd);
    }
    let _ = door.read(&mut [0]);
    connections
}
