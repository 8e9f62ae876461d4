//! Moving what waits for a worker that is stuck. Its listener is shut down for a moment, and accept(2) on it fails then; so
//! the worker and all that it has started are held still meanwhile, and go on as if nothing had been.

use super::super::ready::family_of;
use crate::protocol::procfs;
use crate::sys::process;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// A process that waits for nothing stops at once; one that does not is left alone.
const LOOKS: usize = 64;

/// Processes that are held still until this is dropped.
#[derive(Debug)]
pub(super) struct Still {
    ours: Vec<i32>,
}

impl Still {
    /// Holds a process and its descendants still; `None` if they will not be. Those that somebody else has stopped stay so.
    pub(super) fn hold(pid: i32) -> Option<Self> {
        let all = family_of(pid);
        let ours: Vec<i32> = all.iter().copied().filter(|pid| !is_still(*pid)).collect();
        for pid in &ours {
            process::signal(Pid::from_raw(*pid), Signal::SIGSTOP);
        }
        let held = Self { ours };
        (0..LOOKS).any(|_| all.iter().all(|pid| is_still(*pid))).then_some(held)
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        for pid in &self.ours {
            process::signal(Pid::from_raw(*pid), Signal::SIGCONT);
        }
    }
}

/// Whether all threads of a process are stopped, or it is gone.
fn is_still(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut states = threads.map(|thread| std::fs::read(thread.path().join("stat")));
    states.all(|stat| stat.is_err() || stat.is_ok_and(|stat| procfs::is_stopped(&stat)))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test may spawn")]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_is_held_stands_still_and_goes_on_after() {
        let mut child = Command::new("sh").args(["-c", "sleep 1000 & wait"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let held = Still::hold(pid).unwrap();
        assert!(family_of(pid).into_iter().all(is_still));
        drop(held);
        while is_still(pid) {
            std::thread::yield_now();
        }
        // Whoever was stopped by somebody else stays so.
        process::signal(Pid::from_raw(pid), Signal::SIGSTOP);
        while !is_still(pid) {
            std::thread::yield_now();
        }
        drop(Still::hold(pid).unwrap());
        assert!(is_still(pid));
        for pid in family_of(pid) {
            process::signal(Pid::from_raw(pid), Signal::SIGKILL);
        }
        child.wait().unwrap();
    }
}
