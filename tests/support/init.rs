//! What a service manager does between fork and exec, and a pid 1 for whoever the primary leaves behind.
//!
//! Who loses their parent when a primary dies falls to a process of the manager's own that reaps at once, as systemd's
//! pid 1 does. The pid 1 of a container may take seconds, or never do it; and were it the test itself, it would have to
//! tell orphans from the children that others in this process wait for.

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::unistd::{ForkResult, fork};
use std::io::{PipeReader, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

/// In the child: these are its descriptors from 3 on, and there are no others, as systemd has it. Their numbers are above
/// where they are to be, so that none is overwritten before its turn.
#[expect(unsafe_code, reason = "the numbers are to be these, whatever had them")]
pub(crate) fn place(descriptors: &[OwnedFd]) -> std::io::Result<()> {
    let mut to: RawFd = 3;
    for from in descriptors {
        // SAFETY: the child runs another program next: nobody owns a descriptor there.
        Errno::result(unsafe { libc::dup2(from.as_raw_fd(), to) })?;
        to += 1;
    }
    let flag = i32::try_from(libc::CLOSE_RANGE_CLOEXEC).unwrap_or(0);
    // SAFETY: it closes at exec only.
    Errno::result(unsafe { libc::close_range(to.unsigned_abs(), u32::MAX, flag) })?;
    Ok(())
}

/// In the child: forks, and returns in the child of the child. What stays between reports its child's pid and then its
/// status as wait(2) has it, reaps whoever falls to it, and ends when it has nobody any more.
#[expect(unsafe_code, reason = "a fork that runs no other program")]
pub(crate) fn below_an_init(report: RawFd) -> std::io::Result<()> {
    set_child_subreaper(true)?;
    // SAFETY: both sides make system calls only.
    let ForkResult::Parent { child } = (unsafe { fork() })? else { return Ok(()) };
    let tell = |number: i32| {
        let bytes = number.to_ne_bytes();
        // SAFETY: these bytes live.
        unsafe { libc::write(report, bytes.as_ptr().cast(), bytes.len()) };
    };
    // What others wait to be closed must not stay open here. The pipe is above standard error.
    let last = report.unsigned_abs();
    // SAFETY: nothing here uses a descriptor but that pipe.
    unsafe { libc::close_range(0, last - 1, 0) };
    // SAFETY: as above.
    unsafe { libc::close_range(last + 1, u32::MAX, 0) };
    tell(child.as_raw());
    loop {
        let mut status = 0;
        // SAFETY: the status lives.
        match unsafe { libc::waitpid(-1, &raw mut status, 0) } {
            -1 if Errno::last() == Errno::EINTR => {}
            // SAFETY: it ends without what the test would do at its end.
            -1 => unsafe { libc::_exit(0) },
            pid if pid == child.as_raw() => tell(status),
            _ => {}
        }
    }
}

pub(crate) fn read_number(report: &mut PipeReader) -> i32 {
    let mut bytes = [0; 4];
    report.read_exact(&mut bytes).expect("the process above the primary lives");
    i32::from_ne_bytes(bytes)
}
