//! Processes by descriptor (`pidfd_open(2)`): it means the same process for as long as it is open, and a process need not
//! be our child for its end to be seen. A pid may be another process's as soon as whoever is the parent has reaped it.

use super::process::End;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

/// Whether a process has ended, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It lives.
    No,
    /// It has ended, and its parent has yet to reap it; only the parent can learn how before that.
    NotReaped,
    /// It has ended like this.
    How(End),
    /// It has ended, and the kernel does not tell how: before Linux 6.15.
    Unknown,
}

/// Returns a descriptor of a process, which is close-on-exec as all of them are. It is that of another process if `pid` has
/// been reaped and used again meanwhile: for one that is not our child, compare [`start_time`] after.
///
/// # Errors
/// As pidfd_open(2); `ESRCH` when there is no such process.
pub fn open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to the process. One that has ended and is not reaped yet takes it without effect, as with kill(2).
///
/// # Errors
/// As pidfd_send_signal(2); `ESRCH` when it has been reaped, `EBADF` when the descriptor is of another kind.
pub fn send(pidfd: impl AsFd, signal: Signal) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without a siginfo the kernel makes one as for kill(2); the rest are numbers.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as libc::c_int, info, 0) };
    Errno::result(result)?;
    Ok(())
}

/// Returns the pid of the process; `None` when it has been reaped (`/proc/PID/fdinfo` in `pidfd_open(2)`).
///
/// # Errors
/// `InvalidInput` when the descriptor is of another kind, or the process lives in a pid namespace that we do not see; as
/// open(2) without procfs.
pub fn pid(pidfd: impl AsFd) -> io::Result<Option<Pid>> {
    let fd = pidfd.as_fd().as_raw_fd();
    match pid_line(&std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?) {
        Some(pid) if pid > 0 => Ok(Some(Pid::from_raw(pid))),
        Some(-1) => Ok(None),
        Some(_) | None => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Returns a copy of another process' descriptor by its number there, close-on-exec: the same socket or file, not one like it.
/// The process may have closed the number and used it again since anybody looked, so compare what it is after.
///
/// # Errors
/// As pidfd_getfd(2) (Linux 5.6): `EBADF` when there is no such number, `ESRCH` when the process has ended, `EPERM` when we
/// may not look into it (`PTRACE_MODE_ATTACH_REALCREDS` in `ptrace(2)`: another user's, or not dumpable).
pub fn descriptor(pidfd: impl AsFd, number: RawFd) -> io::Result<OwnedFd> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: takes numbers only.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, fd, number, 0) };
    let copy = RawFd::try_from(Errno::result(copy)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

fn pid_line(fdinfo: &str) -> Option<i32> {
    fdinfo.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

/// Tells whether a process has ended, without waiting and without reaping it.
#[must_use]
pub fn ended(pidfd: impl AsFd) -> Ended {
    let pidfd = pidfd.as_fd();
    let mut polled = [PollFd::new(pidfd, PollFlags::POLLIN)];
    // poll(2) looks before it can be interrupted, so that too says that there was nothing.
    if poll(&mut polled, PollTimeout::ZERO).unwrap_or(0) == 0 {
        return Ended::No;
    }
    let hung_up = polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP));
    // Kernels before 6.9 do not set POLLHUP when it is reaped.
    if !hung_up && !matches!(pid(pidfd), Ok(None)) {
        return Ended::NotReaped;
    }
    wait_status(pidfd).map_or(Ended::Unknown, |status| Ended::How(End::of(status)))
}

/// The first version of `struct pidfd_info` (`include/uapi/linux/pidfd.h`).
#[repr(C)]
#[derive(Default)]
struct Info {
    /// What is asked for, and then what was answered.
    mask: u64,
    _cgroup: u64,
    /// Its pids, users and groups.
    _ids: [u32; 11],
    /// A wait status.
    exit_code: i32,
}

/// `PIDFD_GET_INFO`; its number holds the struct's size.
const GET_INFO: libc::Ioctl = libc::_IOWR::<Info>(0xff, 11);

/// `PIDFD_INFO_EXIT`: the wait status, since Linux 6.15 and once the process has been reaped.
const INFO_EXIT: u64 = 1 << 3;

fn wait_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = Info { mask: INFO_EXIT, ..Info::default() };
    // SAFETY: the kernel writes no more than the size that is part of the request's number, which is that of `info`.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO, &raw mut info) };
    // Kernels that do not know the bit leave it out of the answer.
    (result == 0 && info.mask & INFO_EXIT != 0).then_some(info.exit_code)
}

/// Returns when a process was started, in clock ticks since boot (field 22 in `proc_pid_stat(5)`): with its pid that names
/// one process, whatever was reaped in between.
///
/// # Errors
/// As open(2) and read(2), `NotFound` when there is no such process; `InvalidData` when the file is not as it should be.
pub fn start_time(pid: Pid) -> io::Result<u64> {
    // The program's name may hold any bytes.
    let text = std::fs::read(format!("/proc/{pid}/stat"))?;
    started(&String::from_utf8_lossy(&text)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn started(stat: &str) -> Option<u64> {
    // The second field is the name in parentheses, and may hold spaces and parentheses itself.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sys::spawn::{Program, spawn};
    use nix::fcntl::OFlag;
    use nix::sys::wait::waitpid;
    use nix::unistd::pipe2;
    use std::fs::File;
    use std::io::{BufRead as _, BufReader};
    use std::path::Path;

    /// Runs a script; its standard output can be read, and it reads from `input`, or from descriptor 3.
    pub(in crate::sys) fn shell(script: &str, input: BorrowedFd<'_>) -> (Pid, BufReader<File>) {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let program = Program {
            path: Path::new("/bin/sh"),
            arguments: &["sh".to_owned(), "-c".to_owned(), script.to_owned()],
            environment: vec!["PATH=/usr/bin:/bin".into()],
            pid_placeholder: "0000000000",
            directory: None,
            descriptors: vec![Some(input), Some(write.as_fd()), None, Some(input)],
            open_files: None,
            group: None,
            dies_with_us: false,
        };
        (spawn(program).unwrap().pid, BufReader::new(File::from(read)))
    }

    pub(in crate::sys) fn line(of: &mut BufReader<File>) -> String {
        let mut line = String::new();
        of.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Starts a script whose first `read` waits until the returned end of a pipe is closed.
    fn waiting(script: &str) -> (Pid, BufReader<File>, OwnedFd) {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let (pid, output) = shell(script, read.as_fd());
        (pid, output, write)
    }

    fn wait_for_end(pidfd: &OwnedFd) {
        let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut polled, 10_000u16), Ok(1));
    }

    /// What the kernel that runs this test tells of such an end.
    fn told(end: End) -> Ended {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap());
        let version: (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
        if version >= (6, 15) { Ended::How(end) } else { Ended::Unknown }
    }

    #[test]
    fn a_child_that_exits_is_not_reaped_and_then_tells_its_status() {
        let (child, _output, hold) = waiting("read line; exit 7");
        let pidfd = open(child).unwrap();
        assert_eq!((ended(&pidfd), pid(&pidfd).unwrap()), (Ended::No, Some(child)));
        drop(hold);
        wait_for_end(&pidfd);
        assert_eq!((ended(&pidfd), pid(&pidfd).unwrap()), (Ended::NotReaped, Some(child)));
        send(&pidfd, Signal::SIGTERM).unwrap();
        waitpid(child, None).unwrap();
        assert_eq!((ended(&pidfd), pid(&pidfd).unwrap()), (told(End::Exited(7)), None));
        let error = send(&pidfd, Signal::SIGTERM).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn a_signal_reaches_a_child_and_is_told_as_its_end() {
        let (child, _output, _hold) = waiting("read line");
        let pidfd = open(child).unwrap();
        send(&pidfd, Signal::SIGKILL).unwrap();
        waitpid(child, None).unwrap();
        assert_eq!(ended(&pidfd), told(End::Signaled(libc::SIGKILL)));
    }

    #[test]
    fn the_end_of_somebody_elses_child_is_told_once_that_has_reaped_it() {
        let script = "(read line; exit 9) <&3 & echo $!; wait; echo reaped";
        let (parent, mut output, hold) = waiting(script);
        let pidfd = open(Pid::from_raw(line(&mut output).parse().unwrap())).unwrap();
        assert_eq!(ended(&pidfd), Ended::No);
        drop(hold);
        assert_eq!(line(&mut output), "reaped");
        assert_eq!(ended(&pidfd), told(End::Exited(9)));
        waitpid(parent, None).unwrap();
    }

    #[test]
    fn a_descriptor_of_another_kind_is_refused() {
        let null = File::open("/dev/null").unwrap();
        assert_eq!(pid(&null).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let error = send(&null, Signal::SIGTERM).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        let error = open(Pid::from_raw(i32::MAX)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn a_descriptor_of_another_process_is_copied() {
        let (child, _output, hold) = waiting("read line");
        let pidfd = open(child).unwrap();
        // The child's standard input is the pipe's other end.
        let copy = descriptor(&pidfd, 0).unwrap();
        let inode = |fd: BorrowedFd<'_>| nix::sys::stat::fstat(fd).unwrap().st_ino;
        assert_eq!(inode(copy.as_fd()), inode(hold.as_fd()));
        let flags = nix::fcntl::fcntl(&copy, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, libc::FD_CLOEXEC);
        let errno = |number| descriptor(&pidfd, number).unwrap_err().raw_os_error();
        assert_eq!(errno(4711), Some(libc::EBADF));
        drop((hold, copy));
        waitpid(child, None).unwrap();
        assert_eq!(errno(0), Some(libc::ESRCH));
    }

    #[test]
    fn fdinfo_is_read_by_its_line() {
        assert_eq!(pid_line("pos:\t0\nflags:\t02000002\nPid:\t4242\nNSpid:\t4242\n"), Some(4242));
        assert_eq!(pid_line("Pid:\t-1\nNSpid:\t-1\n"), Some(-1));
        for other in ["", "NSpid:\t7\n", "Pid:\n", "Pid:\tx\n"] {
            assert_eq!(pid_line(other), None);
        }
    }

    #[test]
    fn a_process_keeps_its_start_time_whatever_its_name() {
        let fields = "S 17 4242 4242 0 -1 4194560 900 1 2 3 50 25 10 5 20 0 1 0 7700 9000000 1234";
        assert_eq!(started(&format!("4242 (a) b (c)) {fields}")), Some(7700));
        for broken in ["", ")", "1 (x) S", "1 (x S 1 2 3"] {
            assert_eq!(started(broken), None);
        }
        let (child, _output, hold) = waiting("read line");
        let before = start_time(child).unwrap();
        assert!(before >= start_time(Pid::this()).unwrap());
        drop(hold);
        wait_for_end(&open(child).unwrap());
        assert_eq!(start_time(child).unwrap(), before);
        waitpid(child, None).unwrap();
        assert_eq!(start_time(child).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
