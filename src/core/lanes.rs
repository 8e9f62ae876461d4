//! Who is on which lane, and which lanes get new connections.
//!
//! A *lane* is one socket in every SO_REUSEPORT group of an app. Each worker serves one, and a table says to which lane
//! the next connection goes. Lanes outlive workers: what waits on the lane of a worker that died is served by the next
//! one there, so a slot has a *home*, the lane that its connections go to. A newcomer starts on a free lane, and with its
//! admission the slot's place in the table is its lane's.
//!
//! ```
//! use dogwatch::core::{Lane, Lanes, Slot, Turns, WorkerId};
//!
//! let mut lanes = Lanes::new(3);
//! let (one, two) = (WorkerId(1), WorkerId(2));
//! assert_eq!(lanes.assign(one, Slot(0), |_| false), Lane(0));
//! lanes.admit(one);
//! assert_eq!(lanes.assign(two, Slot(0), |_| false), Lane(1));
//! assert_eq!(lanes.table(1, Turns::InTurn, None), [Lane(0)]);
//! lanes.admit(two);
//! assert_eq!(lanes.table(1, Turns::InTurn, None), [Lane(1)]);
//! ```

use super::worker::{Slot, WorkerId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// As many as the table and its program can tell apart.
pub const MAX_LANES: u16 = 256;

/// A table of clients has so many entries, whatever the number of slots: who has an entry keeps it.
const CLIENTS: usize = 256;

/// With a canary, a table of turns has an entry for each of a hundred connections.
const HUNDRED: usize = 100;

/// The number of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lane(pub u16);

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How the entries of a table are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// One after the other.
    InTurn,
    /// By the client's address: each client has its entry.
    ByClient,
}

/// What a worker does on its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    Starting,
    Admitted,
    Withdrawn,
}

/// Who serves a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tenant {
    lane: Lane,
    slot: Slot,
    stage: Stage,
}

impl Tenant {
    fn is_admitted(self) -> bool {
        self.stage == Stage::Admitted
    }
}

/// The lanes of an app.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Lanes {
    count: u16,
    tenants: BTreeMap<WorkerId, Tenant>,
    homes: BTreeMap<Slot, Lane>,
    /// Where a worker is stuck: whoever can choose goes elsewhere.
    #[serde(skip)]
    stuck: BTreeSet<Lane>,
}

impl Lanes {
    /// Returns so many lanes, with nobody there.
    #[must_use]
    pub fn new(count: u16) -> Self {
        Self { count: count.min(MAX_LANES), ..Self::default() }
    }

    /// Returns how many there are.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// There are so many now. Lanes are never closed, so there are no fewer than before.
    pub fn grow(&mut self, count: u16) {
        self.count = self.count.max(count.min(MAX_LANES));
    }

    /// There are so many now, and whoever was beyond is nowhere.
    pub fn resize(&mut self, count: u16) {
        self.count = count.min(MAX_LANES);
        self.tenants.retain(|_, tenant| tenant.lane.0 < count);
        self.homes.retain(|_, lane| lane.0 < count);
    }

    /// Gives a worker that is about to start its lane, which it has until it is gone: the slot's home where nobody lives
    /// there, else a free one, but before them one where connections wait (`waits`). Where all are taken it shares the home.
    pub fn assign(&mut self, worker: WorkerId, slot: Slot, waits: impl Fn(Lane) -> bool) -> Lane {
        let home = self.homes.get(&slot).copied();
        let deserted = self.all().filter(|lane| self.is_deserted(*lane));
        let free = home.filter(|home| self.is_empty(*home)).into_iter().chain(deserted);
        let free: Vec<Lane> = free.collect();
        let best = free.iter().copied().find(|lane| waits(*lane)).or(free.first().copied());
        let lane = best.or(home).unwrap_or_else(|| self.least_crowded());
        self.settle(worker, slot, lane);
        lane
    }

    /// Notes on which lane a worker is that another primary has started.
    pub fn settle(&mut self, worker: WorkerId, slot: Slot, lane: Lane) {
        let lane = Lane(lane.0.min(self.count.saturating_sub(1)));
        let stage = self.tenants.get(&worker).map_or(Stage::Starting, |tenant| tenant.stage);
        let tenant = Tenant { lane, slot, stage };
        self.tenants.insert(worker, tenant);
        if tenant.is_admitted() {
            self.homes.insert(slot, lane);
        }
        self.homes.entry(slot).or_insert(lane);
    }

    /// New connections go to a worker. Returns whether they did not before.
    pub fn admit(&mut self, worker: WorkerId) -> bool {
        let Some(tenant) = self.tenants.get_mut(&worker) else { return false };
        let is_new = !tenant.is_admitted();
        tenant.stage = Stage::Admitted;
        self.homes.insert(tenant.slot, tenant.lane);
        is_new
    }

    /// New connections go to a worker no more. Returns whether that is so: another who serves may share its lane.
    pub fn withdraw(&mut self, worker: WorkerId) -> bool {
        let is_out = self.take_out(worker);
        self.move_out();
        is_out
    }

    fn take_out(&mut self, worker: WorkerId) -> bool {
        let Some(tenant) = self.tenants.get_mut(&worker) else { return true };
        tenant.stage = Stage::Withdrawn;
        let tenant = *tenant;
        if let Some(lane) = self.place(tenant.slot, None) {
            self.homes.insert(tenant.slot, lane);
        }
        !self.tenants.values().any(|other| other.is_admitted() && other.lane == tenant.lane)
    }

    /// A worker is gone, with all that it had started.
    pub fn leave(&mut self, worker: WorkerId) {
        self.take_out(worker);
        self.tenants.remove(&worker);
    }

    /// Returns the lane of a worker.
    #[must_use]
    pub fn lane(&self, worker: WorkerId) -> Option<Lane> {
        self.tenants.get(&worker).map(|tenant| tenant.lane)
    }

    /// Returns the slot of a worker.
    #[must_use]
    pub fn slot(&self, worker: WorkerId) -> Option<Slot> {
        self.tenants.get(&worker).map(|tenant| tenant.slot)
    }

    /// Returns all who have a lane.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerId> {
        self.tenants.keys().copied().collect()
    }

    /// Whether new connections go to anybody.
    #[must_use]
    pub fn serves_any(&self) -> bool {
        self.tenants.values().any(|tenant| tenant.is_admitted())
    }

    /// Whether nobody else serves a worker's lane.
    #[must_use]
    pub fn is_alone(&self, worker: WorkerId) -> bool {
        let lane = self.lane(worker);
        self.tenants.iter().all(|(id, tenant)| *id == worker || Some(tenant.lane) != lane)
    }

    /// Returns who serves a lane: the newest, where several do.
    #[must_use]
    pub fn tenant(&self, lane: Lane) -> Option<WorkerId> {
        self.tenants.iter().rev().find(|(_, tenant)| tenant.lane == lane).map(|(id, _)| *id)
    }

    /// Whether new connections go to a lane's tenant.
    #[must_use]
    pub fn is_served(&self, lane: Lane) -> bool {
        self.tenants.values().any(|tenant| tenant.lane == lane && tenant.is_admitted())
    }

    /// Whether connections that wait on a lane wait for nobody: it has no tenant, and none will come of itself.
    #[must_use]
    pub fn is_deserted(&self, lane: Lane) -> bool {
        self.is_empty(lane) && !self.homes.values().any(|home| *home == lane)
    }

    /// Notes the lanes whose workers are stuck. Returns whether they were others before.
    pub fn set_stuck(&mut self, stuck: BTreeSet<Lane>) -> bool {
        let is_other = self.stuck != stuck;
        self.stuck = stuck;
        is_other
    }

    /// Returns the table for an app of so many slots: to which lane each connection goes. `canary` names a worker and how
    /// many of a hundred it gets. Only without any lane it is empty.
    #[must_use]
    pub fn table(&self, slots: u16, turns: Turns, canary: Option<(WorkerId, u8)>) -> Vec<Lane> {
        let canary = canary.and_then(|(worker, percent)| {
            let tenant = self.tenants.get(&worker).filter(|tenant| tenant.is_admitted())?;
            Some((worker, tenant.lane, usize::from(percent)))
        });
        let except = canary.map(|(worker, ..)| worker);
        let places: Vec<_> = (0..slots).map(|slot| self.place(Slot(slot), except)).collect();
        let served: Vec<Lane> = places.iter().copied().flatten().collect();
        if served.is_empty() {
            return canary.map_or_else(|| self.where_to_wait(slots), |(_, lane, _)| vec![lane]);
        }
        let is_canarys = |at: usize, percent: usize| at * percent % HUNDRED < percent;
        match (turns, canary) {
            (Turns::InTurn, None) => self.moving(served),
            (Turns::InTurn, Some((_, lane, percent))) => {
                // Everybody has an entry.
                let count =
                    if served.len() + percent > HUNDRED { usize::from(MAX_LANES) } else { HUNDRED };
                let mut others = self.moving(served).into_iter().cycle();
                let entry = |at| if is_canarys(at, percent) { Some(lane) } else { others.next() };
                (0..count).filter_map(entry).collect()
            }
            (Turns::ByClient, None) => by_client(&places, &served),
            (Turns::ByClient, Some((_, lane, percent))) => {
                let all = by_client(&places, &served).into_iter().enumerate();
                all.map(|(at, own)| if is_canarys(at, percent) { lane } else { own }).collect()
            }
        }
    }

    /// Nobody serves a slot: what comes waits where somebody will, and not where somebody is who is about to leave.
    fn where_to_wait(&self, slots: u16) -> Vec<Lane> {
        let homes: BTreeSet<Lane> = self.homes.values().copied().collect();
        let is_left = |lane: &Lane| {
            self.tenants.values().any(|t| t.lane == *lane && t.stage == Stage::Withdrawn)
        };
        let is_deserted = |lane: &Lane| self.is_deserted(*lane);
        let choices: [Vec<Lane>; 3] = [
            homes.iter().copied().filter(|lane| !is_left(lane)).collect(),
            self.all().filter(is_deserted).take(usize::from(slots.max(1))).collect(),
            homes.into_iter().collect(),
        ];
        choices.into_iter().find(|lanes| !lanes.is_empty()).unwrap_or_default()
    }

    /// Everybody is about to leave: what comes waits on lanes where nobody is, and there it is looked for. They stay the same
    /// while one after the other goes, or in the end connections would wait on more lanes than there will be workers.
    fn move_out(&mut self) {
        let left: BTreeSet<Lane> = self.tenants.values().map(|tenant| tenant.lane).collect();
        let is_left = self.tenants.values().all(|tenant| tenant.stage == Stage::Withdrawn);
        if !is_left || !self.homes.values().all(|home| left.contains(home)) {
            return;
        }
        let free: Vec<Lane> = self.all().filter(|lane| !left.contains(lane)).collect();
        for (home, lane) in self.homes.values_mut().zip(free.iter().cycle()) {
            *home = *lane;
        }
    }

    /// Those that are stuck are left out, as long as somebody is not.
    fn moving(&self, served: Vec<Lane>) -> Vec<Lane> {
        let moving: Vec<Lane> =
            served.iter().copied().filter(|lane| !self.stuck.contains(lane)).collect();
        if moving.is_empty() { served } else { moving }
    }

    /// The lane that a slot's connections go to: that of the newest worker that is admitted.
    fn place(&self, slot: Slot, except: Option<WorkerId>) -> Option<Lane> {
        let serves = |(id, t): &(&WorkerId, &Tenant)| {
            t.is_admitted() && t.slot == slot && Some(**id) != except
        };
        self.tenants.iter().rev().find(serves).map(|(_, tenant)| tenant.lane)
    }

    /// Slots beyond these have no home any more, once nobody is there.
    pub fn forget_beyond(&mut self, slots: u16) {
        let tenants = &self.tenants;
        let is_lived_in = |slot: &Slot| tenants.values().any(|tenant| tenant.slot == *slot);
        self.homes.retain(|slot, _| slot.0 < slots || is_lived_in(slot));
    }

    fn all(&self) -> impl Iterator<Item = Lane> {
        (0..self.count).map(Lane)
    }

    fn is_empty(&self, lane: Lane) -> bool {
        self.tenants.values().all(|tenant| tenant.lane != lane)
    }

    fn least_crowded(&self) -> Lane {
        let crowd =
            |lane: &Lane| self.tenants.values().filter(|tenant| tenant.lane == *lane).count();
        self.all().min_by_key(crowd).unwrap_or(Lane(0))
    }
}

/// A client stays where it is as long as its slot is served, and only the clients of a slot that is not move; when a slot
/// is added or taken away, no more than its share.
fn by_client(places: &[Option<Lane>], served: &[Lane]) -> Vec<Lane> {
    let owners = owners(places.len()).into_iter();
    let place = |(at, owner): (usize, usize)| places[owner].unwrap_or(served[at % served.len()]);
    owners.enumerate().map(place).collect()
}

/// Which of so many slots has each entry: each slot in its turn has taken its share evenly from those before it.
fn owners(slots: usize) -> Vec<usize> {
    let mut owners = vec![0; CLIENTS];
    let mut counts = vec![CLIENTS];
    for new in 1..slots.min(CLIENTS) {
        let share = CLIENTS / (new + 1);
        counts.push(0);
        let mut at = new;
        while counts[new] < share {
            // From those that have the most, in strides, so that neighbours do not move together.
            let most = counts.iter().copied().max().unwrap_or(0);
            while counts[owners[at]] < most {
                at = (at + 1) % CLIENTS;
            }
            counts[owners[at]] -= 1;
            (owners[at], counts[new]) = (new, counts[new] + 1);
            at = (at + new + 1) % CLIENTS;
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(lanes: &mut Lanes, worker: u64, slot: u16) -> Lane {
        lanes.assign(WorkerId(worker), Slot(slot), |_| false)
    }

    /// So many slots, each served by the worker with its number and one more.
    fn serving(slots: u16, count: u16) -> Lanes {
        let mut lanes = Lanes::new(count);
        for slot in 0..slots {
            started(&mut lanes, u64::from(slot) + 1, slot);
            lanes.admit(WorkerId(u64::from(slot) + 1));
        }
        lanes
    }

    fn counts(table: &[Lane]) -> BTreeMap<u16, usize> {
        let mut counts = BTreeMap::new();
        table.iter().for_each(|lane| *counts.entry(lane.0).or_default() += 1);
        counts
    }

    #[test]
    fn a_newcomer_takes_a_free_lane_and_the_place_with_its_admission() {
        let mut lanes = serving(2, 3);
        assert_eq!(started(&mut lanes, 3, 0), Lane(2));
        assert_eq!(lanes.table(2, Turns::InTurn, None), [Lane(0), Lane(1)]);
        lanes.admit(WorkerId(3));
        assert_eq!(lanes.table(2, Turns::InTurn, None), [Lane(2), Lane(1)]);
        assert!(lanes.withdraw(WorkerId(1)));
        lanes.leave(WorkerId(1));
        assert_eq!(started(&mut lanes, 4, 1), Lane(0));
    }

    #[test]
    fn a_newcomer_that_fails_gives_the_place_back() {
        let mut lanes = serving(1, 2);
        started(&mut lanes, 2, 0);
        lanes.admit(WorkerId(2));
        lanes.leave(WorkerId(2));
        assert_eq!(lanes.table(1, Turns::InTurn, None), [Lane(0)]);
        assert!(lanes.is_deserted(Lane(1)) && !lanes.is_deserted(Lane(0)));
    }

    #[test]
    fn who_follows_a_dead_worker_serves_what_waits_there() {
        let mut lanes = serving(3, 5);
        lanes.leave(WorkerId(2));
        assert_eq!(lanes.table(3, Turns::InTurn, None), [Lane(0), Lane(2)]);
        assert!(!lanes.is_deserted(Lane(1)));
        assert_eq!(started(&mut lanes, 4, 1), Lane(1));
        lanes.admit(WorkerId(4));
        assert_eq!(lanes.table(3, Turns::InTurn, None), [Lane(0), Lane(1), Lane(2)]);
    }

    #[test]
    fn where_nobody_serves_connections_wait_at_home() {
        let mut lanes = serving(2, 4);
        lanes.leave(WorkerId(1));
        lanes.leave(WorkerId(2));
        assert_eq!(lanes.table(2, Turns::InTurn, None), [Lane(0), Lane(1)]);
        let mut stopping = serving(2, 3);
        stopping.withdraw(WorkerId(1));
        stopping.withdraw(WorkerId(2));
        assert_eq!(stopping.table(2, Turns::InTurn, None), [Lane(2)]);
        stopping.leave(WorkerId(1));
        assert_eq!(stopping.table(2, Turns::InTurn, None), [Lane(2)]);
        stopping.leave(WorkerId(2));
        assert_eq!(stopping.table(2, Turns::InTurn, None), [Lane(2)]);
        let mut fresh = Lanes::new(4);
        assert_eq!(fresh.table(2, Turns::InTurn, None), [Lane(0), Lane(1)]);
        started(&mut fresh, 1, 0);
        assert_eq!(fresh.table(2, Turns::InTurn, None), [Lane(0)]);
    }

    #[test]
    fn a_lane_where_connections_wait_is_taken_first() {
        let mut lanes = Lanes::new(6);
        assert_eq!(lanes.assign(WorkerId(1), Slot(0), |lane| lane == Lane(4)), Lane(4));
        assert_eq!(lanes.assign(WorkerId(2), Slot(1), |lane| lane == Lane(4)), Lane(0));
    }

    #[test]
    fn with_too_few_lanes_the_newcomer_shares_its_slots() {
        let mut lanes = serving(2, 2);
        assert_eq!(started(&mut lanes, 3, 1), Lane(1));
        assert!(!lanes.is_alone(WorkerId(3)) && lanes.is_alone(WorkerId(1)));
        lanes.admit(WorkerId(3));
        assert!(!lanes.withdraw(WorkerId(2)));
        let mut crowded = serving(3, 2);
        assert_eq!(crowded.lane(WorkerId(3)), Some(Lane(0)));
        assert_eq!(crowded.table(3, Turns::InTurn, None), [Lane(0), Lane(1), Lane(0)]);
        crowded.grow(4);
        assert_eq!(started(&mut crowded, 4, 2), Lane(2));
    }

    #[test]
    fn a_stuck_lane_is_left_out_unless_all_are() {
        let mut lanes = serving(2, 3);
        assert!(lanes.set_stuck([Lane(0)].into()));
        assert_eq!(lanes.table(2, Turns::InTurn, None), [Lane(1)]);
        lanes.set_stuck([Lane(0), Lane(1)].into());
        assert_eq!(lanes.table(2, Turns::InTurn, None), [Lane(0), Lane(1)]);
    }

    #[test]
    fn a_canary_gets_its_share_and_the_others_the_rest_evenly() {
        let mut lanes = serving(4, 5);
        started(&mut lanes, 5, 0);
        lanes.admit(WorkerId(5));
        let canary = Some((WorkerId(5), 5));
        let shares = counts(&lanes.table(4, Turns::InTurn, canary));
        assert_eq!((shares[&4], shares.values().sum::<usize>()), (5, 100));
        assert!((0..4).all(|lane| (23..=25).contains(&shares[&lane])), "{shares:?}");
        let before = lanes.table(4, Turns::ByClient, Some((WorkerId(9), 5)));
        let with = lanes.table(4, Turns::ByClient, canary);
        assert_eq!(counts(&with)[&4], 13);
        // Slot 0 is the canary's without a canary.
        let moved = |(b, w): &(&Lane, &Lane)| b != w && **b != Lane(4);
        assert!(before.iter().zip(&with).filter(moved).count() <= 13);
    }

    #[test]
    fn with_a_canary_everybody_has_an_entry() {
        let mut lanes = serving(200, 202);
        started(&mut lanes, 201, 0);
        lanes.admit(WorkerId(201));
        let shares = counts(&lanes.table(200, Turns::InTurn, Some((WorkerId(201), 5))));
        assert_eq!((shares.len(), shares[&200]), (201, 13));
    }

    #[test]
    fn slots_that_are_gone_have_no_home() {
        let mut lanes = serving(4, 6);
        for worker in [3, 4] {
            lanes.withdraw(WorkerId(worker));
            lanes.leave(WorkerId(worker));
        }
        assert!(!lanes.is_deserted(Lane(2)));
        lanes.forget_beyond(2);
        assert!(lanes.is_deserted(Lane(2)) && lanes.is_deserted(Lane(3)));
    }

    #[test]
    fn clients_stay_and_only_those_of_a_slot_that_is_not_served_move() {
        for slots in [1, 2, 3, 4, 8, 12, 100] {
            let mut lanes = serving(slots, 250);
            let whole = lanes.table(slots, Turns::ByClient, None);
            let shares = counts(&whole);
            let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
            assert!(shares.len() == usize::from(slots) && most - least <= 1, "{slots}: {shares:?}");
            if slots > 1 {
                lanes.leave(WorkerId(2));
                let without = lanes.table(slots, Turns::ByClient, None);
                let all = whole.iter().zip(&without);
                assert!(
                    all.clone()
                        .all(|(old, new)| *new != Lane(1) && (old == new || *old == Lane(1)))
                );
                let fewer = owners(usize::from(slots) - 1);
                let moved =
                    owners(usize::from(slots)).into_iter().zip(fewer).filter(|(a, b)| a != b);
                assert!(moved.count() <= CLIENTS / usize::from(slots) + 1);
            }
        }
    }
}
