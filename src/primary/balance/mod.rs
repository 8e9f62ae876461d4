//! Steered balance: each worker has sockets of its own, a *lane*, and the kernel picks the lane of each new connection by
//! a table that we write. Who is on which lane is [`Lanes`]' business, and pure; here its table is put in force.
//!
//! | file | subject |
//! |---|---|
//! | `group` | the sockets of one listener, and what makes the kernel pick among them |
//! | `begin` | which listeners are steered, with what rights, and what is said where one is not |
//! | `count` | how many connections each worker has |
//! | `look` | watching the queues while there is load |
//! | `rescue` | moving what waits for a worker that is stuck |
//!
//! A connection is never touched here: what is steered are those that are yet to come.

mod begin;
mod count;
mod group;
mod look;
mod rescue;

pub(super) use begin::{Beginning, Said, begin};
pub(super) use rescue::go_on;

use crate::config::values::{Balance as Asked, Steer};
use crate::core::{Lane, Lanes, Slot, Turns, WorkerId};
use crate::protocol::control;
use crate::sys::bpf::Maps;
use group::Group;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What the table is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) steer: Steer,
    pub(super) slots: u16,
    /// A worker that gets so many of a hundred connections.
    pub(super) canary: Option<(WorkerId, u8)>,
}

/// What is written down: who is where, and what each has had.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Memory {
    lanes: Lanes,
    /// What a worker's lane had been given when it came.
    #[serde(default)]
    before: BTreeMap<WorkerId, u64>,
    /// What workers of a slot were given that are gone.
    #[serde(default)]
    given: BTreeMap<Slot, u64>,
    /// The fewest descriptors that a worker was seen with since it serves.
    #[serde(default)]
    fewest: BTreeMap<WorkerId, u32>,
}

/// All of it.
#[derive(Debug)]
struct Steering {
    memory: Memory,
    groups: Vec<Group>,
    wish: Wish,
    /// The policy, the table of turns and the table of clients that are in force.
    written: Option<(Steer, Vec<Lane>, Vec<Lane>)>,
    /// The main processes of workers.
    pids: BTreeMap<WorkerId, i32>,
    /// Lanes that do not listen, for something went wrong when they were moved: it is tried again.
    broken: BTreeSet<Lane>,
    /// Nothing is written until everybody is taken back.
    is_held: bool,
}

/// The steering as the loop sees it; without any, nothing is steered. Everything happens on one thread, so nobody ever waits
/// for the lock.
#[derive(Debug)]
pub(super) struct Balance {
    shared: Option<Shared>,
    /// Why it is not as it was asked, if it is not.
    why: Option<String>,
}

#[derive(Clone, Debug)]
struct Shared {
    steering: Arc<Mutex<Steering>>,
    /// Something has changed that a look may find.
    nudge: Arc<Notify>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Steering> {
        self.steering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Balance {
    fn with<T>(&self, what: impl FnOnce(&mut Steering) -> T) -> Option<T> {
        let shared = self.shared.as_ref()?;
        let done = what(&mut shared.lock());
        shared.nudge.notify_one();
        Some(done)
    }

    fn ask<T>(&self, what: impl FnOnce(&Steering) -> T) -> Option<T> {
        self.shared.as_ref().map(|shared| what(&shared.lock()))
    }

    /// Whether anything is steered.
    pub(super) fn is_steered(&self) -> bool {
        self.shared.is_some()
    }

    /// Begins to watch the queues.
    pub(super) fn watch(&self) {
        if let Some(shared) = &self.shared {
            drop(tokio::spawn(look::watch(shared.clone())));
        }
    }

    /// Goes on with what the last primary had written down. Nothing changes for connections until [`Self::release`].
    pub(super) fn recall(&self, memory: Memory) {
        self.with(|steering| {
            let count = steering.memory.lanes.count();
            steering.memory = memory;
            steering.memory.lanes.resize(count);
        });
    }

    /// Everybody is taken back: those that are not here are gone.
    pub(super) fn release(&self, is_here: impl Fn(WorkerId) -> bool) {
        self.with(|steering| {
            for worker in steering.memory.lanes.workers() {
                if !is_here(worker) {
                    steering.leave(worker);
                }
            }
            steering.memory.lanes.forget_beyond(steering.wish.slots);
            steering.is_held = false;
            steering.note_still(0);
            steering.write();
        });
    }

    /// Gives a worker that is about to be started its lane.
    pub(super) fn assign(&self, worker: WorkerId, slot: Slot) {
        self.with(|steering| {
            let Steering { memory, groups, .. } = steering;
            let waits = |lane| groups.iter().any(|group| group.queue(lane) > 0);
            let lane = memory.lanes.assign(worker, slot, waits);
            steering.note(worker, lane);
            steering.write();
        });
    }

    /// Notes on which lane a worker was found.
    pub(super) fn settle(&self, worker: WorkerId, slot: Slot, lane: Lane) {
        self.with(|steering| {
            steering.memory.lanes.settle(worker, slot, lane);
            steering.note(worker, lane);
        });
    }

    /// A worker's process is there.
    pub(super) fn is_born(&self, worker: WorkerId, pid: i32) {
        self.with(|steering| steering.pids.insert(worker, pid));
    }

    /// New connections go to a worker.
    pub(super) fn admit(&self, worker: WorkerId) {
        self.with(|steering| {
            if steering.memory.lanes.admit(worker) {
                steering.count_idle(worker);
            }
            steering.write();
        });
    }

    /// Whom the last primary held still, should it have died meanwhile.
    pub(super) fn held_still(&self) -> Option<i32> {
        self.ask(Steering::held_still).flatten()
    }

    /// New connections go to a worker no more. Returns the sockets that it alone serves; `None` where it has none.
    pub(super) fn withdraw(&self, worker: WorkerId) -> Option<Vec<OwnedFd>> {
        self.with(|steering| {
            steering.memory.lanes.withdraw(worker);
            steering.write();
            let lanes = &steering.memory.lanes;
            let lane = lanes.lane(worker).filter(|_| lanes.is_alone(worker))?;
            steering.sockets(lane)
        })
        .flatten()
    }

    /// A worker is gone; what waited for it goes to others, if there are any.
    pub(super) fn leave(&self, worker: WorkerId) {
        self.with(|steering| steering.leave(worker));
    }

    /// Returns the lane of a worker.
    pub(super) fn lane(&self, worker: WorkerId) -> Option<Lane> {
        self.ask(|steering| steering.memory.lanes.lane(worker)).flatten()
    }

    /// From now on this is what the table is made for.
    pub(super) fn set(&self, wish: Wish) {
        if self.ask(|steering| steering.wish != wish) == Some(true) {
            self.with(|steering| {
                steering.wish = wish;
                steering.memory.lanes.forget_beyond(wish.slots);
                steering.write();
            });
        }
    }

    /// Returns what is told of a worker's lane.
    pub(super) fn tell(&self, worker: WorkerId) -> Option<control::Lane> {
        self.ask(|steering| {
            let lane = steering.memory.lanes.lane(worker)?;
            let (waiting, given) = (steering.queue(lane), steering.given_to(worker));
            Some(control::Lane { number: lane.0, waiting, given })
        })
        .flatten()
    }

    /// Returns what is told of the whole, where this was asked for.
    pub(super) fn describe(&self, asked: Asked) -> control::Balance {
        let told = self.ask(Steering::in_force);
        let (why, asked_for) = (self.why.clone(), asked.to_string());
        let Some((in_force, lanes, unsteered)) = told else {
            let is_steered = asked.is_steered();
            let in_force = if is_steered { Asked::Shared } else { asked }.to_string();
            return control::Balance {
                asked: asked_for,
                in_force,
                why,
                lanes: None,
                unsteered: None,
            };
        };
        control::Balance { asked: asked_for, in_force, why, lanes: Some(lanes), unsteered }
    }

    /// Returns how many connections a slot was given, by all its workers.
    pub(super) fn given_to(&self, slot: Slot) -> Option<u64> {
        self.ask(|steering| {
            let gone = steering.memory.given.get(&slot).copied().unwrap_or(0);
            let lanes = &steering.memory.lanes;
            let here = lanes.workers().into_iter().filter(|id| lanes.slot(*id) == Some(slot));
            let now: u64 = here.filter_map(|worker| steering.given_to(worker)).sum();
            let is_counted = steering.groups.iter().any(Group::has_program);
            is_counted.then_some(gone + now)
        })
        .flatten()
    }

    /// Whether connections wait where nobody will come of himself, and cannot be moved.
    pub(super) fn has_strays(&self) -> bool {
        let strays = self.ask(|steering| {
            let lanes = &steering.memory.lanes;
            let all = (0..lanes.count()).map(Lane);
            let mut deserted = all.filter(|lane| lanes.is_deserted(*lane));
            let can_move = steering.groups.iter().all(Group::has_program);
            !can_move && deserted.any(|lane| steering.queue(lane) > 0)
        });
        strays.unwrap_or(false)
    }

    /// Returns what the next primary is to know.
    pub(super) fn memory(&self) -> Option<Memory> {
        self.ask(|steering| steering.memory.clone())
    }
}

impl Steering {
    fn note(&mut self, worker: WorkerId, lane: Lane) {
        if let Some(taken) = self.taken(lane) {
            self.memory.before.insert(worker, taken);
        }
    }

    fn taken(&self, lane: Lane) -> Option<u64> {
        let each = self.groups.iter().filter_map(|group| group.taken(lane));
        self.groups.iter().any(Group::has_program).then(|| each.sum())
    }

    /// The policy in force, how many lanes there are, and how many connections found none in the table.
    fn in_force(&self) -> (String, u16, Option<u64>) {
        let has_program = self.groups.iter().all(Group::has_program);
        let policy = match self.wish.steer {
            Steer::RoundRobin | Steer::LeastConnections if !has_program => "steered:random".into(),
            Steer::RoundRobin | Steer::ClientIp | Steer::LeastConnections => {
                Asked::Steered(self.wish.steer).to_string()
            }
        };
        let unsteered = self.groups.iter().filter_map(Group::unsteered).sum();
        (policy, self.memory.lanes.count(), has_program.then_some(unsteered))
    }

    /// How many connections a worker was given.
    fn given_to(&self, worker: WorkerId) -> Option<u64> {
        let before = self.memory.before.get(&worker).copied().unwrap_or(0);
        Some(self.taken(self.memory.lanes.lane(worker)?)?.saturating_sub(before))
    }

    /// The main process of who serves a lane.
    fn pid_at(&self, lane: Lane) -> Option<i32> {
        self.pids.get(&self.memory.lanes.tenant(lane)?).copied()
    }

    fn queue(&self, lane: Lane) -> u32 {
        self.groups.iter().map(|group| group.queue(lane)).sum()
    }

    fn sockets(&self, lane: Lane) -> Option<Vec<OwnedFd>> {
        let each = self.groups.iter().filter_map(|group| group.sockets.get(usize::from(lane.0)));
        each.map(|socket| socket.fd.try_clone().ok()).collect()
    }

    fn leave(&mut self, worker: WorkerId) {
        self.pids.remove(&worker);
        if let (Some(given), Some(slot)) = (self.given_to(worker), self.memory.lanes.slot(worker)) {
            *self.memory.given.entry(slot).or_default() += given;
        }
        self.memory.before.remove(&worker);
        self.memory.fewest.remove(&worker);
        self.memory.lanes.leave(worker);
        self.memory.lanes.forget_beyond(self.wish.slots);
        self.write();
    }

    /// Whether no connection goes to a lane. The other table, which is for datagrams, does not count: they are not moved.
    fn is_out_of_turn(&self, lane: Lane) -> bool {
        self.written.as_ref().is_some_and(|(steer, turns, clients)| {
            let table = if *steer == Steer::ClientIp { clients } else { turns };
            !table.contains(&lane)
        })
    }

    /// Whether what waits on a lane can be moved.
    fn can_move(&self) -> bool {
        !self.is_held && self.groups.iter().all(|group| group.is_datagram || group.has_program())
    }

    fn move_queue(&mut self, lane: Lane) {
        if self.groups.iter().any(|group| group.move_queue(lane).is_err()) {
            self.broken.insert(lane);
        }
    }

    /// Lanes that do not listen do so again, if that can be done by now.
    fn mend(&mut self) {
        let groups = &self.groups;
        self.broken.retain(|lane| groups.iter().any(|group| group.listen(*lane).is_err()));
    }

    /// Notes whom we are about to hold still, where it outlives us; 0 for nobody.
    fn note_still(&self, pid: i32) {
        if let Some(group) = self.groups.iter().find(|group| group.has_program()) {
            group.note_still(pid);
        }
    }

    fn held_still(&self) -> Option<i32> {
        self.groups.iter().find_map(Group::held_still)
    }

    /// Puts the tables in force, if they are others than before.
    fn write(&mut self) {
        if self.is_held {
            return;
        }
        let Wish { steer, slots, canary } = self.wish;
        let lanes = &self.memory.lanes;
        // Nobody has come yet, and what waits cannot be moved: all wait on one lane, and the first to come will be there.
        let is_first = lanes.workers().is_empty() && self.written.is_none();
        if is_first && !self.groups.iter().any(Group::has_program) {
            return;
        }
        let in_turn = lanes.table(slots, Turns::InTurn, canary);
        let by_client = lanes.table(slots, Turns::ByClient, canary);
        let tables = Some((steer, in_turn, by_client));
        if tables == self.written {
            return;
        }
        // What is weighed is drawn once.
        let is_even = steer == Steer::LeastConnections && canary.is_some();
        let picks = if is_even { Steer::RoundRobin } else { steer };
        let Some((_, in_turn, by_client)) = &tables else { return };
        let written = self.groups.iter().map(|group| group.write(picks, in_turn, by_client));
        // A classic program that the kernel does not take leaves the one before in force: it is tried again at the next change.
        if written.fold(true, |all, one| all & one.is_ok()) {
            self.written = tables;
        }
    }
}

/// The maps of a listener, by its number in the FD store, for the next primary.
impl Balance {
    pub(super) fn each_map(&self, mut put: impl FnMut(u16, &Maps)) {
        self.ask(|steering| {
            for group in &steering.groups {
                if let Some(maps) = group.maps() {
                    put(group.key, maps);
                }
            }
        });
    }
}
