//! Starting a program: clone and exec.
//!
//! `std::process::Command` cannot do this: its environment is fixed before the child is made, and `LISTEN_PID` must be the
//! child's own pid, which only the child knows (`sd_listen_fds(3)`). So everything is prepared before, and
//! the child makes system calls only, writes its pid over a placeholder, and executes the program.
//!
//! A failure between clone and exec travels back as stage and errno over a close-on-exec pipe, which a successful exec
//! closes: what could not be executed is told from what ran and failed. Nobody waits for it; it is read when the
//! child has ended.

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{Pid, pipe2};
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// What to start.
#[derive(Debug)]
pub struct Program<'a> {
    /// The file to execute.
    pub path: &'a Path,
    /// Its arguments, its own name first.
    pub arguments: &'a [String],
    /// `KEY=VALUE`.
    pub environment: Vec<String>,
    /// A value in the environment that stands for the child's pid, in ten bytes: as long as a pid can be.
    pub pid_placeholder: &'a str,
    /// Where it runs.
    pub directory: Option<&'a Path>,
    /// Its descriptors: the number in the child is the position. Everything else is closed.
    pub descriptors: Vec<Option<BorrowedFd<'a>>>,
    /// The soft limit of open files to restore (`setrlimit(2)`).
    pub open_files: Option<(u64, u64)>,
    /// The `cgroup.procs` of the control group that it is to be in (`cgroups(7)`).
    pub group: Option<BorrowedFd<'a>>,
    /// It gets SIGTERM when we die (`PR_SET_PDEATHSIG` in `prctl(2)`).
    pub dies_with_us: bool,
}

/// A started child.
#[derive(Debug)]
pub struct Child {
    /// Its pid, which is also its process group.
    pub pid: Pid,
    /// Holds the stage and errno of what went wrong before exec, once the child has ended.
    pub failure: OwnedFd,
}

/// What was being done when a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Moving its descriptors to their places.
    Descriptors = 2,
    /// Changing to its directory.
    Directory,
    /// Restoring its limits.
    Limits,
    /// Moving to its control group.
    Group,
    /// Executing the program.
    Execute,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "arranging file descriptors",
            Self::Directory => "changing directory",
            Self::Limits => "restoring limits",
            Self::Group => "joining a control group for",
            Self::Execute => "executing",
        })
    }
}

/// Starts a program.
///
/// # Errors
/// When a string holds a zero byte, or pipe(2) or clone(2) fails. What fails later is in [`Child::failure`].
pub fn spawn(program: Program<'_>) -> io::Result<Child> {
    let (failure, report) = pipe2(OFlag::O_CLOEXEC)?;
    let mut prepared = Prepared::new(program)?;
    let mask = SigSet::all();
    let mut before = SigSet::empty();
    // A signal between clone and exec must not run the primary's handlers in the child.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), Some(&mut before))?;
    let child = prepared.clone_child(report.as_raw_fd());
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    Ok(Child { pid: child?, failure })
}

/// Returns what went wrong before exec, if anything did. To be asked when the child has ended.
#[must_use]
pub fn failure(of: OwnedFd) -> Option<(Stage, Errno)> {
    let mut message = [0; 5];
    std::fs::File::from(of).read_exact(&mut message).ok()?;
    let stage = match message[0] {
        2 => Stage::Descriptors,
        3 => Stage::Directory,
        4 => Stage::Limits,
        5 => Stage::Group,
        _ => Stage::Execute,
    };
    let [_, errno @ ..] = message;
    Some((stage, Errno::from_raw(i32::from_ne_bytes(errno))))
}

/// Returns the file that `name` means: itself where it has a slash, else the first executable one on `path`.
///
/// # Errors
/// When there is none; the last reason found, as execvp(3) does.
pub fn find(name: &str, path: &OsStr, directory: Option<&Path>) -> io::Result<PathBuf> {
    if name.contains('/') {
        // Relative to where the worker runs, which is where the child is when it executes.
        return Ok(PathBuf::from(name));
    }
    let mut reason = Errno::ENOENT;
    for folder in std::env::split_paths(path) {
        let candidate = directory.unwrap_or(Path::new("")).join(folder).join(name);
        match nix::unistd::access(&candidate, nix::unistd::AccessFlags::X_OK) {
            Ok(()) if candidate.is_file() => return Ok(candidate),
            Err(Errno::EACCES) => reason = Errno::EACCES,
            Ok(()) | Err(_) => {}
        }
    }
    Err(reason.into())
}

/// Everything that the child needs, allocated before it is made.
struct Prepared {
    path: CString,
    arguments: Pointers,
    environment: Pointers,
    /// Where in the environment's bytes pids are to be written.
    pids: Vec<(usize, usize, usize)>,
    directory: Option<CString>,
    descriptors: Vec<RawFd>,
    open_files: Option<libc::rlimit>,
    group: Option<RawFd>,
    dies_with_us: bool,
}

/// Strings and the null-terminated array of pointers to them that execve(2) takes.
struct Pointers {
    strings: Vec<Vec<u8>>,
    pointers: Vec<*const libc::c_char>,
}

impl Pointers {
    fn new(strings: impl IntoIterator<Item = impl AsRef<[u8]>>) -> io::Result<Self> {
        let mut owned = Vec::new();
        for string in strings {
            owned.push(CString::new(string.as_ref())?.into_bytes_with_nul());
        }
        let mut pointers: Vec<_> = owned.iter().map(|s| s.as_ptr().cast()).collect();
        pointers.push(std::ptr::null());
        Ok(Self { strings: owned, pointers })
    }
}

/// Enough for the child's few frames, with room to spare.
const STACK: usize = 64 * 1024;

/// What the child begins with.
struct Start<'a> {
    prepared: &'a mut Prepared,
    report: RawFd,
}

extern "C" fn child_main(start: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `clone_child` passes a `Start` that lives until the child is done, and stands still meanwhile.
    let start = unsafe { &mut *start.cast::<Start<'_>>() };
    start.prepared.become_program(start.report)
}

impl Prepared {
    fn new(program: Program<'_>) -> io::Result<Self> {
        let environment = Pointers::new(&program.environment)?;
        let mut pids = Vec::new();
        for (at, variable) in program.environment.iter().enumerate() {
            if let Some((name, value)) = variable.split_once('=')
                && value == program.pid_placeholder
            {
                pids.push((at, name.len() + 1, value.len()));
            }
        }
        let absolute = |path: &Path| CString::new(path.as_os_str().as_bytes());
        Ok(Self {
            path: absolute(program.path)?,
            arguments: Pointers::new(program.arguments)?,
            environment,
            pids,
            directory: program.directory.map(absolute).transpose()?,
            descriptors: program
                .descriptors
                .iter()
                .map(|fd| fd.map_or(-1, |fd| fd.as_raw_fd()))
                .collect(),
            open_files: program
                .open_files
                .map(|(soft, hard)| libc::rlimit { rlim_cur: soft, rlim_max: hard }),
            group: program.group.map(|fd| fd.as_raw_fd()),
            dies_with_us: program.dies_with_us,
        })
    }

    /// Makes the child as posix_spawn(3) does: it borrows our memory while we stand still, so that nothing of a large
    /// primary is copied. Returns when the child has executed the program, or has ended.
    fn clone_child(&mut self, report: RawFd) -> io::Result<Pid> {
        let mut stack = vec![0u8; STACK];
        let mut start = Start { prepared: self, report };
        // SAFETY: one past the end of `stack`, where a stack that grows down begins.
        let top = unsafe { stack.as_mut_ptr().add(STACK) };
        // Every ABI is content with 16 bytes of alignment.
        let top = top.wrapping_sub(top.addr() & 15);
        // SAFETY: CLONE_VFORK stops us until the child has let go of our memory, so `stack` and `start` outlive its use
        // of them, and nobody else touches them meanwhile. All signals are blocked, so none of our handlers runs in
        // the child; without CLONE_SIGHAND its dispositions are its own.
        let pid = unsafe {
            libc::clone(
                child_main,
                top.cast(),
                libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
                (&raw mut start).cast(),
            )
        };
        Errno::result(pid).map(Pid::from_raw).map_err(Into::into)
    }

    /// The child's whole life before exec. System calls only, no allocation, no return.
    fn become_program(&mut self, mut report: RawFd) -> ! {
        let stage = self.arrange(&mut report);
        let errno = Errno::last_raw();
        let mut message = [stage as u8; 5];
        message[1..].copy_from_slice(&errno.to_ne_bytes());
        // SAFETY: `message` is valid for its length; a short or failed write leaves the parent with the exit status.
        unsafe { libc::write(report, message.as_ptr().cast(), message.len()) };
        // SAFETY: ends the child without running the primary's destructors or exit handlers.
        unsafe { libc::_exit(127) }
    }

    /// Does all that comes before the program; returns the stage that failed, with errno set.
    fn arrange(&mut self, report: &mut RawFd) -> Stage {
        // A group and not a session of its own: a terminal's Ctrl-C reaches only the primary either way, but the
        // scheduler shares the processor among sessions (autogroup, sched(7)), to the cost of whoever has only one.
        // SAFETY: setpgid(2) on itself cannot fail: a new child is no session leader.
        unsafe { libc::setpgid(0, 0) };
        if self.dies_with_us {
            // SAFETY: prctl(2) with PR_SET_PDEATHSIG takes a number.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
        }
        if let Some(group) = self.group {
            // SAFETY: two valid bytes; "0" is whoever writes (cgroups(7)).
            if unsafe { libc::write(group, c"0".as_ptr().cast(), 1) } != 1 {
                return Stage::Group;
            }
        }
        reset_signals();
        if !self.place_descriptors(report) {
            return Stage::Descriptors;
        }
        if let Some(directory) = &self.directory {
            // SAFETY: a valid C string.
            if unsafe { libc::chdir(directory.as_ptr()) } != 0 {
                return Stage::Directory;
            }
        }
        if let Some(limit) = &self.open_files {
            // SAFETY: points to a valid rlimit.
            if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limit) } != 0 {
                return Stage::Limits;
            }
        }
        self.write_pid();
        // SAFETY: path and both arrays are C strings and null-terminated arrays that live until exec.
        unsafe {
            libc::execve(
                self.path.as_ptr(),
                self.arguments.pointers.as_ptr(),
                self.environment.pointers.as_ptr(),
            )
        };
        Stage::Execute
    }

    /// Moves every descriptor to its position; all others are closed at exec.
    fn place_descriptors(&mut self, report: &mut RawFd) -> bool {
        let Ok(count) = RawFd::try_from(self.descriptors.len()) else {
            return false;
        };
        // Out of the way first, so that no target overwrites a source.
        for fd in self.descriptors.iter_mut().chain([report]) {
            if *fd >= 0 {
                // SAFETY: duplicates a descriptor of the child's own table.
                let moved = unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, count) };
                if moved < 0 {
                    // `report` stays where it is, so that this can be told.
                    return false;
                }
                *fd = moved;
            }
        }
        for (target, fd) in self.descriptors.iter().enumerate() {
            let Ok(target) = RawFd::try_from(target) else {
                return false;
            };
            if *fd >= 0 {
                // SAFETY: works on numbers in the child's own table; dup2(2) clears close-on-exec.
                if unsafe { libc::dup2(*fd, target) } < 0 {
                    return false;
                }
            } else {
                // SAFETY: works on a number in the child's own table; that it was not open is fine.
                unsafe { libc::close(target) };
            }
        }
        // What the primary itself inherited without close-on-exec. Kernels before 5.11 do not know the flag; there
        // only what we made ourselves is close-on-exec.
        // SAFETY: a range of the child's own table.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                count,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        };
        true
    }

    /// Writes the child's pid, in decimal without padding, over the placeholders.
    fn write_pid(&mut self) {
        // SAFETY: always succeeds.
        let mut pid = unsafe { libc::getpid() }.unsigned_abs();
        let mut digits = [0u8; 10];
        let mut at = digits.len();
        while pid > 0 {
            at -= 1;
            digits[at] = b'0' + u8::try_from(pid % 10).unwrap_or(0);
            pid /= 10;
        }
        for (variable, start, length) in &self.pids {
            let value = &mut self.environment.strings[*variable][*start..*start + *length];
            let digits = &digits[at..];
            value[..digits.len()].copy_from_slice(digits);
            if let Some(end) = value.get_mut(digits.len()) {
                *end = 0;
            }
        }
    }
}

/// Default dispositions and an empty mask, as systemd gives a service (`systemd.exec(5)`, IgnoreSIGPIPE= apart).
fn reset_signals() {
    // The kernel's struct sigaction with nothing in it: SIG_DFL, no flags, no mask (rt_sigaction(2)).
    let default = [0u64; 4];
    for signal in 1..=64 {
        // libc's own function refuses the two signals that it uses itself, and they may be ignored by inheritance.
        // SAFETY: `default` is at least as large as the kernel's struct on every architecture; SIGKILL and SIGSTOP are
        // refused, which is fine.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                8usize,
            )
        };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Returns the variables of this process that are valid text.
#[must_use]
pub fn environment() -> Vec<(String, String)> {
    let text = |s: OsString| s.into_string().ok();
    std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    fn run(
        arguments: &[&str],
        change: impl FnOnce(&mut Program<'_>),
    ) -> (String, i32, Option<(Stage, Errno)>) {
        let arguments: Vec<String> = arguments.iter().map(|s| (*s).to_owned()).collect();
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut program = Program {
            path: Path::new(&arguments[0]),
            arguments: &arguments,
            environment: vec!["PATH=/usr/bin:/bin".into(), "LISTEN_PID=0000000000".into()],
            pid_placeholder: "0000000000",
            directory: None,
            descriptors: vec![Some(null.as_fd()), Some(write.as_fd()), None],
            open_files: None,
            group: None,
            dies_with_us: false,
        };
        change(&mut program);
        let child = spawn(program).unwrap();
        drop(write);
        let mut output = String::new();
        std::fs::File::from(read).read_to_string(&mut output).unwrap();
        let ended = nix::sys::wait::waitpid(child.pid, None).unwrap();
        let nix::sys::wait::WaitStatus::Exited(_, status) = ended else { panic!("{ended:?}") };
        (output, status, failure(child.failure))
    }

    #[test]
    fn listen_pid_is_the_childs_own() {
        let (output, status, failure) = run(&["/bin/sh", "-c", "echo $LISTEN_PID $$"], |_| {});
        let (told, own) = output.trim().split_once(' ').unwrap();
        assert_eq!((told, status, failure), (own, 0, None));
    }

    #[test]
    fn only_the_given_descriptors_reach_the_program() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let leak = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_DUPFD(200)).unwrap();
        let (output, ..) = run(&["/bin/sh", "-c", "cd /proc/self/fd; echo *"], |program| {
            program.descriptors.push(program.descriptors[0]);
        });
        nix::unistd::close(leak).unwrap();
        // 2 is the shell's own handle of the directory.
        assert!(output.starts_with("0 1 2 3"), "{output}");
        assert!(!output.contains("200"), "{output}");
    }

    #[test]
    fn signals_are_reset() {
        // The test harness, like the primary, ignores SIGPIPE (signal 13).
        let (output, ..) = run(&["/bin/grep", "-E", "SigIgn|SigBlk", "/proc/self/status"], |_| {});
        for line in output.lines() {
            assert!(line.ends_with("0000000000000000"), "{output}");
        }
    }

    #[test]
    fn failures_before_exec_name_stage_and_errno() {
        let (_, status, failure) = run(&["/no/such/program"], |_| {});
        assert_eq!((status, failure), (127, Some((Stage::Execute, Errno::ENOENT))));
        let (.., failure) = run(&["/bin/true"], |p| {
            p.directory = Some(Path::new("/no/such/directory"));
        });
        assert_eq!(failure, Some((Stage::Directory, Errno::ENOENT)));
        let (_, status, failure) = run(&["/bin/sh", "-c", "exit 127"], |_| {});
        assert_eq!((status, failure), (127, None));
    }

    #[test]
    fn programs_are_found_on_the_path() {
        let path = OsStr::new("/nonexistent:/usr/bin:/bin");
        assert!(find("sh", path, None).unwrap().ends_with("sh"));
        assert_eq!(find("./sh", path, None).unwrap(), Path::new("./sh"));
        assert_eq!(
            find("no-such-program", path, None).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
