//! Processes: reaping, signalling, limits.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::unistd::Pid;
use std::io;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit status.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

impl End {
    /// Reads a wait status (`wait(2)`) of a process that has ended.
    pub(super) fn of(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signaled(libc::WTERMSIG(status))
        } else {
            Self::Exited(libc::WEXITSTATUS(status))
        }
    }
}

/// Reaps one child that has ended, if there is one.
///
/// nix's `waitpid` refuses the real-time signals (its `Signal` has no names for them), so this is `waitpid(2)` itself.
#[must_use]
pub fn reap() -> Option<(Pid, End)> {
    let mut status = 0;
    // SAFETY: writes the status to a valid place.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    Some((Pid::from_raw(pid), End::of(status)))
}

/// Makes orphaned descendants our children, so that what a worker leaves behind is reaped here and its end is an
/// event (`PR_SET_CHILD_SUBREAPER` in `prctl(2)`). Pid 1 of a container is that anyway.
///
/// # Errors
/// Never on Linux 3.4 and later.
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Sends a signal to a child that is not reaped yet, so that its pid cannot mean another process.
pub fn signal(child: Pid, signal: Signal) {
    // ESRCH: it has just ended; its end is on its way to us.
    let _ = kill(child, signal);
}

/// Sends a signal to every process of the group that `leader` began, whether or not the leader still lives.
pub fn signal_group(leader: Pid, signal: Signal) {
    if let Some(group) = group(leader) {
        let _ = kill(group, signal);
    }
}

/// As kill(2) takes it. Nobody whom we have started leads group 0 or 1, which mean our own and everybody there.
fn group(leader: Pid) -> Option<Pid> {
    (leader.as_raw() > 1).then(|| Pid::from_raw(-leader.as_raw()))
}

/// Whether any process of that group is left, zombies included. While one is, its number is not used again.
#[must_use]
pub fn group_exists(leader: Pid) -> bool {
    group(leader).is_some_and(|group| kill(group, None) != Err(Errno::ESRCH))
}

/// Raises the soft limit of open files to the hard one and returns what it was, soft and hard: the primary holds a
/// handful of descriptors for each worker, and systemd's soft limit is 1024 for the sake of select(2).
///
/// # Errors
/// As getrlimit(2) and setrlimit(2).
pub fn raise_open_files() -> io::Result<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok((soft, hard))
}

/// Whether an error of clone, pipe or socket says that the machine lacks something just now.
#[must_use]
pub fn is_transient(error: &io::Error) -> bool {
    let lacks =
        [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOSPC];
    error.raw_os_error().is_some_and(|raw| lacks.contains(&Errno::from_raw(raw)))
}

/// Returns the nanoseconds of CLOCK_MONOTONIC (`clock_gettime(2)`), the clock of `MONOTONIC_USEC=`.
#[must_use]
pub fn monotonic_nanos() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| {
        let secs = u64::try_from(now.tv_sec()).unwrap_or(0);
        secs * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0)
    })
}

/// Blocks all signals for this thread (`sigprocmask(2)`): they wait, also over execve(2).
pub fn block_signals() {
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
}

/// Blocks no signal.
pub fn unblock_signals() {
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Sets the soft and the hard limit of open files; what is open already stays so.
///
/// # Errors
/// As setrlimit(2).
pub fn limit_open_files((soft, hard): (u64, u64)) -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?)
}

/// From now on a write to a pipe that nobody reads ends this process silently, as it ends other programs
/// (`signal(7)`): Rust begins with SIGPIPE ignored. For verbs that only print; a primary must live on.
pub fn end_at_broken_pipe() {
    let default = nix::sys::signal::SigHandler::SigDfl;
    // SAFETY: the default disposition runs no code of ours.
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGPIPE, default) };
}

/// Whether a file has an access control list beside its mode (`acl(5)`, `getxattr(2)`).
#[must_use]
pub fn has_acl(path: &std::path::Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return false };
    let name = c"system.posix_acl_access";
    // SAFETY: both names end with a zero byte, and a size of zero asks for the length alone.
    unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) > 0 }
}
