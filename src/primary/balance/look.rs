//! Watching the queues. A worker that stalls must not make its slot's clients wait while others are free, so a lane where
//! connections wait and nobody takes one is left out of the table until it moves again; and if that lasts, what waits there
//! is moved to the others. It is looked often while there is load, and not at all without: the next connection rings.

use super::super::clock;
use super::rescue::rescue;
use super::{Shared, Steering};
use crate::config::values::Steer;
use crate::core::{Lane, Time, WorkerId};
use crate::protocol::procfs;
use crate::sys::bell::Bell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

/// How often it is looked under load, …
const OFTEN: Duration = Duration::from_millis(2);
/// … at last when nothing happens any more, before it is waited for the next connection, …
const SELDOM: Duration = Duration::from_millis(16);
/// … and where connections wait for somebody who is not there or does not move: no bell tells that this ends.
const NOW_AND_THEN: Duration = Duration::from_secs(1);
/// One waits where the worker is just at another; two wait where it does not come back.
const STALL: u32 = 2;
/// What waits so long for a worker that is stuck is moved to others.
const PATIENCE: Duration = Duration::from_millis(10);
/// A lane that was emptied gets nothing for so long, twice as long each time, …
const FIRST_REST: Duration = Duration::from_millis(60);
/// … and at most so long.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// How often the connections of workers are counted.
const COUNT: Duration = Duration::from_millis(20);

/// What was seen of a lane.
#[derive(Clone, Copy, Debug)]
struct Seen {
    queue: u32,
    /// How many were accepted, ever; where that is not counted, 0.
    accepted: u64,
    /// When one was accepted last, or the queue was empty.
    moved: Time,
    is_stuck: bool,
    /// The processor time that its worker had had when it waited for a processor.
    ran: Option<u64>,
    /// It gets nothing until then.
    rests: Time,
    rest: Duration,
}

impl Seen {
    /// Whether a process wants to run and has not, since this was asked last or at all: others would be no sooner.
    fn waits_for_processor(&mut self, pid: Option<i32>) -> bool {
        let Some((pid, ran)) = pid.and_then(|pid| Some((pid, time_run(pid)?))) else {
            return false;
        };
        let waits = self.ran.is_none_or(|before| ran == before) && is_runnable(pid);
        self.ran = Some(ran);
        waits
    }
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Something has moved.
    Busy,
    /// Nothing has moved, and nothing waits.
    Quiet,
    /// Nothing has moved, and something waits.
    Waiting,
}

/// Watches for ever.
pub(super) async fn watch(shared: Shared) {
    let Ok(bell) = Bell::new() else { return };
    let mut eyes = Eyes::default();
    loop {
        let is_waiting = arm(&bell, &shared);
        tokio::select! {
            rung = bell.rung() => if rung.is_err() { return },
            () = shared.nudge.notified() => {}
            () = tokio::time::sleep(NOW_AND_THEN), if is_waiting => {}
        }
        let mut pause = OFTEN;
        while pause <= SELDOM {
            let looked = eyes.look(&mut shared.lock());
            for (lane, worker, pid) in std::mem::take(&mut eyes.stuck) {
                rescue(&shared, lane, worker, pid).await;
            }
            // Others than the one that rang are armed still.
            if bell.hush().is_err() {
                return;
            }
            pause = if looked == Look::Busy { OFTEN } else { pause * 2 };
            tokio::time::sleep(pause).await;
        }
    }
}

/// Arms the bell for lanes where nothing waits; returns whether there are others.
fn arm(bell: &Bell, shared: &Shared) -> bool {
    let steering = shared.lock();
    let mut is_waiting = false;
    for group in steering.groups.iter().filter(|group| !group.is_datagram) {
        for (lane, socket) in (0..).map(Lane).zip(&group.sockets) {
            if group.queue(lane) > 0 {
                is_waiting = true;
            } else {
                let _ = bell.arm(&socket.fd);
            }
        }
    }
    is_waiting
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
struct Eyes {
    lanes: BTreeMap<Lane, Seen>,
    /// Workers to be relieved of what waits for them.
    stuck: Vec<(Lane, WorkerId, i32)>,
    counted: Time,
    /// The fewest descriptors that a worker was seen with: what it has beside its connections.
    fewest: BTreeMap<WorkerId, u32>,
}

impl Eyes {
    fn look(&mut self, steering: &mut Steering) -> Look {
        let now = clock::now();
        let mut look = Look::Quiet;
        for lane in (0..steering.memory.lanes.count()).map(Lane) {
            let seen = self.look_at(lane, steering, now);
            look = match look {
                Look::Busy => Look::Busy,
                _ if seen == Look::Busy => Look::Busy,
                Look::Waiting => Look::Waiting,
                Look::Quiet => seen,
            };
        }
        let stuck: BTreeSet<Lane> = self
            .lanes
            .iter()
            .filter(|(_, seen)| seen.is_stuck || seen.rests > now)
            .map(|(lane, _)| *lane)
            .collect();
        // Where each client has its worker it waits for that.
        if steering.wish.steer != Steer::ClientIp && steering.memory.lanes.set_stuck(stuck) {
            steering.write();
            look = Look::Busy;
        }
        self.rescue(steering, now);
        if steering.wish.steer == Steer::LeastConnections && now.since(self.counted) >= COUNT {
            self.count(steering);
            self.counted = now;
        }
        look
    }

    fn look_at(&mut self, lane: Lane, steering: &Steering, now: Time) -> Look {
        let queue = steering.queue(lane);
        let taken = steering.taken(lane);
        let accepted = taken.map_or(0, |taken| taken.saturating_sub(queue.into()));
        let is_served = steering.memory.lanes.is_served(lane);
        let before = self.lanes.entry(lane).or_insert(Seen {
            queue,
            accepted,
            moved: now,
            is_stuck: false,
            ran: None,
            rests: Time::default(),
            rest: FIRST_REST,
        });
        let has_moved = accepted != before.accepted || taken.is_none() && queue < before.queue;
        let has_changed = has_moved || queue != before.queue;
        if has_moved || queue == 0 {
            before.moved = now;
        }
        if has_moved && !before.is_stuck {
            before.rest = FIRST_REST;
        }
        let is_suspect = queue >= STALL && !has_moved;
        before.is_stuck = is_served
            && if before.is_stuck {
                queue > 0 && !(has_moved && queue < STALL)
            } else {
                is_suspect && !before.waits_for_processor(steering.pid_at(lane))
            };
        if !is_suspect {
            before.ran = None;
        }
        (before.queue, before.accepted) = (queue, accepted);
        match (has_changed, queue) {
            (true, _) => Look::Busy,
            (false, 0) => Look::Quiet,
            (false, _) => Look::Waiting,
        }
    }

    /// Moves what waits where nobody is, and what has waited too long for somebody who is stuck.
    fn rescue(&mut self, steering: &mut Steering, now: Time) {
        for (lane, seen) in &mut self.lanes {
            if seen.queue == 0 {
                continue;
            }
            let Some(worker) = steering.memory.lanes.tenant(*lane) else {
                steering.clear(*lane);
                continue;
            };
            let is_out = steering.is_out_of_turn(*lane);
            if !seen.is_stuck || !is_out || now.since(seen.moved) < PATIENCE {
                continue;
            }
            let Some(pid) = steering.pids.get(&worker).copied() else { continue };
            self.stuck.push((*lane, worker, pid));
            (seen.rests, seen.moved) = (now + seen.rest, now);
            seen.rest = (seen.rest * 2).min(LONGEST_REST);
        }
    }

    /// Counts the connections of each worker by its open descriptors, which costs one call.
    fn count(&mut self, steering: &Steering) {
        let pids = &steering.pids;
        self.fewest.retain(|worker, _| pids.contains_key(worker));
        for (worker, pid) in pids {
            let Some(lane) = steering.memory.lanes.lane(*worker) else { continue };
            let Some(open) = open_files(*pid) else { continue };
            let fewest = self.fewest.entry(*worker).or_insert(open);
            *fewest = open.min(*fewest);
            let count = open.saturating_sub(*fewest).saturating_add(steering.queue(lane));
            steering.groups.iter().for_each(|group| group.count(lane, count));
        }
    }
}

/// Returns how many descriptors a process has open: the size of its directory, which kernels before 6.2 do not tell.
fn open_files(pid: i32) -> Option<u32> {
    let path = format!("/proc/{pid}/fd");
    let told = fs::metadata(&path).ok()?.size();
    let count =
        if told > 0 { told } else { u64::try_from(fs::read_dir(&path).ok()?.count()).ok()? };
    u32::try_from(count).ok()
}

/// Whether a process wants to run; of several threads, the first.
fn is_runnable(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/stat")).is_ok_and(|stat| procfs::is_runnable(&stat))
}

/// Returns the nanoseconds of processor time that a process has had, its first thread.
fn time_run(pid: i32) -> Option<u64> {
    fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?.split(' ').next()?.parse().ok()
}
