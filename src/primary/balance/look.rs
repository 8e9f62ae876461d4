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
use std::net::SocketAddr;
use std::time::Duration;

/// How often it is looked under load, …
const OFTEN: Duration = Duration::from_millis(2);
/// … at last when nothing happens any more, before it is waited for the next connection, …
const SELDOM: Duration = Duration::from_millis(16);
/// … and where connections wait for somebody who is not there or does not move: no bell tells that this ends.
const NOW_AND_THEN: Duration = Duration::from_secs(1);
/// One waits where the worker is just at another; two wait where it does not come back.
const STALL: u32 = 2;
/// … and one that waits so long.
const LONE: Duration = Duration::from_secs(1);
/// What waits so long for a worker that is stuck is moved to others, …
const PATIENCE: Duration = Duration::from_millis(10);
/// … and so long for one that starts, or gets nothing any more: it has no other lane to be busy with.
const MORE_PATIENCE: Duration = Duration::from_millis(100);
/// Handshakes that were under way to a lane when it left the table are waited for, but for so long at most.
const HANDSHAKE: Duration = Duration::from_secs(1);
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

/// Watches for ever.
pub(super) async fn watch(shared: Shared) {
    // Without one it is looked now and then.
    let bell = Bell::new().ok();
    let mut eyes = Eyes::default();
    loop {
        let is_waiting = bell.as_ref().is_none_or(|bell| arm(bell, &shared));
        tokio::select! {
            () = rung(bell.as_ref()) => {}
            () = shared.nudge.notified() => {}
            () = tokio::time::sleep(NOW_AND_THEN), if is_waiting => {}
        }
        let mut pause = OFTEN;
        while pause <= SELDOM {
            let is_busy = eyes.look(&mut shared.lock());
            for (lane, worker, pid) in std::mem::take(&mut eyes.stuck) {
                rescue(&shared, lane, worker, pid).await;
            }
            // Others than the one that rang are armed still.
            if let Some(bell) = &bell {
                let _ = bell.hush();
            }
            pause = if is_busy { OFTEN } else { pause * 2 };
            tokio::time::sleep(pause).await;
        }
    }
}

async fn rung(bell: Option<&Bell>) {
    match bell {
        // One that fails is asked again with the next connection that is noticed otherwise.
        Some(bell) if bell.rung().await.is_ok() => {}
        Some(_) | None => std::future::pending().await,
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
    /// The other ends of handshakes that may be for a lane that has left the table, and since when.
    handshakes: BTreeMap<Lane, (Time, BTreeSet<SocketAddr>)>,
    counted: Time,
}

impl Eyes {
    /// Returns whether anything has moved.
    fn look(&mut self, steering: &mut Steering) -> bool {
        let now = clock::now();
        let mut is_busy = false;
        for lane in (0..steering.memory.lanes.count()).map(Lane) {
            is_busy |= self.look_at(lane, steering, now);
        }
        // Without the program it is not known what was accepted, and nothing can be moved.
        if steering.can_move() {
            steering.mend();
            let is_out = |(_, seen): &(&Lane, &Seen)| seen.is_stuck || seen.rests > now;
            let mut stuck: BTreeSet<Lane> =
                self.lanes.iter().filter(is_out).map(|(lane, _)| *lane).collect();
            // Where each client has its worker it waits for that.
            if steering.wish.steer == Steer::ClientIp {
                stuck.clear();
            }
            stuck.extend(&steering.broken);
            if steering.memory.lanes.set_stuck(stuck) {
                steering.write();
                is_busy = true;
            }
            self.rescue(steering, now);
        }
        if steering.wish.steer == Steer::LeastConnections && now.since(self.counted) >= COUNT {
            steering.count_connections();
            self.counted = now;
        }
        is_busy
    }

    fn look_at(&mut self, lane: Lane, steering: &Steering, now: Time) -> bool {
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
        // What has come since the last look, however long ago that was, has not waited for long.
        if has_moved || queue == 0 || before.queue == 0 {
            before.moved = now;
        }
        if has_moved && !before.is_stuck {
            before.rest = FIRST_REST;
        }
        let is_long = queue > 0 && now.since(before.moved) >= LONE;
        let is_suspect = (queue >= STALL || is_long) && !has_moved;
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
        has_changed
    }

    /// Moves what waits where nobody is, and what has waited too long for somebody who is stuck.
    fn rescue(&mut self, steering: &mut Steering, now: Time) {
        let lanes: Vec<Lane> = self.lanes.keys().copied().collect();
        for lane in lanes {
            let Some(seen) = self.lanes.get(&lane).copied() else { continue };
            if seen.queue == 0 || !steering.is_out_of_turn(lane) {
                self.handshakes.remove(&lane);
                continue;
            }
            let tenant = steering.memory.lanes.tenant(lane);
            let patience = match tenant {
                None => Duration::ZERO,
                Some(_) if !steering.memory.lanes.is_served(lane) => MORE_PATIENCE,
                Some(_) if seen.is_stuck => PATIENCE,
                Some(_) => continue,
            };
            let is_due = now.since(seen.moved) >= patience && steering.memory.lanes.serves_any();
            if !is_due || !self.is_quiet(lane, steering, now) {
                continue;
            }
            let Some(worker) = tenant else {
                steering.move_queue(lane);
                continue;
            };
            if let Some(pid) = steering.pids.get(&worker).copied()
                && let Some(seen) = self.lanes.get_mut(&lane)
            {
                self.stuck.push((lane, worker, pid));
                (seen.rests, seen.moved) = (now + seen.rest, now);
                seen.rest = (seen.rest * 2).min(LONGEST_REST);
            }
        }
    }

    /// Whether no handshake is under way that may be for a lane which has left the table: it would end in a reset.
    fn is_quiet(&mut self, lane: Lane, steering: &Steering, now: Time) -> bool {
        let under_way = steering.handshakes();
        let (since, expected) =
            self.handshakes.entry(lane).or_insert_with(|| (now, under_way.clone()));
        expected.retain(|peer| under_way.contains(peer));
        expected.is_empty() || now.since(*since) >= HANDSHAKE
    }
}

/// Whether a process wants to run; of several threads, the first.
fn is_runnable(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/stat")).is_ok_and(|stat| procfs::is_runnable(&stat))
}

/// Returns the nanoseconds of processor time that a process has had, its first thread.
fn time_run(pid: i32) -> Option<u64> {
    fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?.split(' ').next()?.parse().ok()
}
