//! A process that is a copy of us and shares our table of descriptors (`CLONE_FILES` in `clone(2)`): what is opened or
//! closed on one side is so on the other, until one of them executes a program or ends. So it still holds what the
//! other had when that was killed.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

/// Makes such a process, which runs `child` and ends. It is our child; its signals are blocked until it says otherwise.
///
/// # Errors
/// As clone(2); also when this process has several threads, for what the others hold locked would stay so in the child.
pub fn sharing_descriptors(child: impl FnOnce()) -> io::Result<Pid> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the process has several threads"));
    }
    let mut before = SigSet::empty();
    // Our handlers write to a pipe that is ours: none of them is to run in the child.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    let flags = libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: as fork(2): without CLONE_VM the child has a copy of our memory, and there is one thread, so nothing in it
    // is locked or half done. All other arguments are null.
    let made = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if made == 0 {
        // A panic must not unwind into what the parent owns; where it aborts, as in a release, there is nothing to catch.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        // SAFETY: ends the child without running our destructors or exit handlers.
        unsafe { libc::_exit(0) };
    }
    let made = Errno::result(made);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    Ok(Pid::from_raw(i32::try_from(made?).map_err(io::Error::other)?))
}

/// From now on only SIGKILL and SIGSTOP do anything to this process, and none of the handlers that it was copied with
/// runs.
pub fn ignore_signals() {
    let ignore = nix::sys::signal::SigHandler::SigIgn;
    for signal in nix::sys::signal::Signal::iterator() {
        // SAFETY: ignoring runs no code of ours; what cannot be ignored is refused, which is fine.
        let _ = unsafe { nix::sys::signal::signal(signal, ignore) };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Names this process for ps(1) and top(1), as far as there is room: the command line is overwritten where it is.
pub fn retitle(title: &str) {
    let _ = nix::sys::prctl::set_name(c"dogwatch-keeper");
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or(vec![], |(_, rest)| rest.split_ascii_whitespace().collect());
    // arg_start and arg_end are fields 48 and 49 of proc_pid_stat(5); the first here is the third.
    let address = |field: usize| fields.get(field - 3)?.parse::<usize>().ok();
    let (Some(start), Some(end)) = (address(48), address(49)) else { return };
    if start == 0 || end <= start {
        return;
    }
    let room = end - start;
    let length = title.len().min(room - 1);
    let to = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel says that our command line is there, in so many bytes of our own stack; nobody reads it any more,
    // for std copies the arguments when it is asked, and this process does not ask.
    unsafe { std::ptr::write_bytes(to, 0, room) };
    // SAFETY: as above, and `length` is shorter than the room.
    unsafe { std::ptr::copy_nonoverlapping(title.as_ptr(), to, length) };
}

/// Returns copies of all descriptors of this process that can be copied, but of standard input, output and error.
#[must_use]
pub fn copy_descriptors() -> Vec<OwnedFd> {
    let copy = |fd: RawFd| {
        // SAFETY: duplicates a number of our own table; that it is not open any more is an error.
        let copied = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        (copied >= 0).then(|| unsafe { OwnedFd::from_raw_fd(copied) })
    };
    numbers().into_iter().filter_map(copy).collect()
}

/// Closes every descriptor for which a look at a copy of it says so. For a process of [`sharing_descriptors`] alone, once it
/// does not share them any more: it runs none of the code that they belonged to.
pub fn close_descriptors(is_useless: impl Fn(RawFd, &OwnedFd) -> bool) {
    for fd in numbers() {
        // SAFETY: as in `copy_descriptors`.
        let copied = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
        if copied < 0 {
            continue;
        }
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        let copy = unsafe { OwnedFd::from_raw_fd(copied) };
        if is_useless(fd, &copy) {
            // SAFETY: whoever owned this number in the process that we are a copy of does not run here.
            unsafe { libc::close(fd) };
        }
    }
}

fn numbers() -> Vec<RawFd> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|number| *number > libc::STDERR_FILENO).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_of_everything_that_is_open() {
        let (read, _write) = nix::unistd::pipe().unwrap();
        let inode = |fd: &OwnedFd| nix::sys::stat::fstat(fd).unwrap().st_ino;
        assert!(copy_descriptors().iter().any(|copy| inode(copy) == inode(&read)));
    }

    #[test]
    fn a_process_with_several_threads_is_refused() {
        // The test harness has some.
        assert!(sharing_descriptors(|| {}).is_err());
    }
}
