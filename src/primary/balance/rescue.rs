//! Moving what waits for a worker that is stuck. Its listener is shut down for a moment, and accept(2) on it fails then; so
//! the worker and all that it has started are held still meanwhile. Calls that `signal(7)` lists, like epoll_wait(2), may end
//! with EINTR when they go on.

use super::super::carry::crash;
use super::super::ready::family_of;
use super::Shared;
use crate::core::{Lane, WorkerId};
use crate::protocol::procfs;
use crate::sys::process;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::time::Duration;

/// A process stops as soon as it is given a processor. One that does not in this many looks, in the middle of what cannot be
/// interrupted, is left alone.
const LOOKS: usize = 20;
const LOOK: Duration = Duration::from_millis(1);

/// Moves what waits on a lane whose worker is stuck, if it still does.
pub(super) async fn rescue(shared: &Shared, lane: Lane, worker: WorkerId, pid: i32) {
    {
        let steering = shared.lock();
        if steering.pids.get(&worker) != Some(&pid) {
            return;
        }
        // Should we die before it goes on, the next primary finds this.
        steering.note_still(pid);
    }
    let still = Still::hold(pid).await;
    crash::point("still");
    let mut steering = shared.lock();
    let is_its = steering.memory.lanes.lane(worker) == Some(lane);
    let is_alone = steering.memory.lanes.is_alone(worker);
    if still.is_some() && is_its && is_alone && steering.is_out_of_turn(lane) {
        steering.move_queue(lane);
    }
    drop(still);
    steering.note_still(0);
}

/// Lets a process go on, and what it has started, that a primary had held still when it died.
pub(in super::super) fn go_on(pid: i32) {
    for pid in family_of(pid) {
        process::signal(Pid::from_raw(pid), Signal::SIGCONT);
    }
}

/// Processes that are held still until this is dropped.
#[derive(Debug)]
struct Still {
    ours: Vec<i32>,
}

impl Still {
    /// Holds a process and its descendants still; `None` if they will not be. Those that somebody else has stopped stay so.
    async fn hold(pid: i32) -> Option<Self> {
        let all = family_of(pid);
        let ours: Vec<i32> = all.iter().copied().filter(|pid| !is_still(*pid)).collect();
        for pid in &ours {
            process::signal(Pid::from_raw(*pid), Signal::SIGSTOP);
        }
        let held = Self { ours };
        for _ in 0..LOOKS {
            if all.iter().all(|pid| is_still(*pid)) {
                // Who was made meanwhile is not held, and might be in accept(2).
                return (family_of(pid) == all).then_some(held);
            }
            tokio::time::sleep(LOOK).await;
        }
        None
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

    /// Tries again where a process is not given a processor in time to stop.
    async fn held(pid: i32) -> Still {
        loop {
            if let Some(still) = Still::hold(pid).await {
                return still;
            }
        }
    }

    #[tokio::test]
    async fn what_is_held_stands_still_and_goes_on_after() {
        let mut child = Command::new("sh").args(["-c", "sleep 1000 & wait"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut family = 0;
        while family < 2 {
            family = family_of(pid).len();
            tokio::task::yield_now().await;
        }
        let still = held(pid).await;
        assert!(family_of(pid).into_iter().all(is_still));
        drop(still);
        while is_still(pid) {
            std::thread::yield_now();
        }
        // Whoever was stopped by somebody else stays so.
        process::signal(Pid::from_raw(pid), Signal::SIGSTOP);
        while !is_still(pid) {
            std::thread::yield_now();
        }
        drop(held(pid).await);
        assert!(is_still(pid));
        for pid in family_of(pid) {
            process::signal(Pid::from_raw(pid), Signal::SIGKILL);
        }
        child.wait().unwrap();
    }
}
