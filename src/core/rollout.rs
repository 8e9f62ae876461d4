//! Relieving all slots with a new generation, one at a time, and undoing it when the new one fails.
//!
//! In each slot: start the newcomer, wait for evidence, let it settle, withdraw the incumbent, and go on to the next
//! slot when the incumbent is gone. Undoing is the same walk with the goal set back: slots that were relieved
//! already are relieved again, with the settings of the generation before. With a canary the walk pauses once, in the first
//! slot: `canary.rs`.

use super::action::{Cause, Report, Why};
use super::canary::Canary;
use super::policy::Policy;
use super::time::Time;
use super::worker::{Generation, Slot, Worker, WorkerId};
use super::{Record, Settled, Supervisor};
use serde::{Deserialize, Serialize};

/// A reload that was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) generation: Generation,
}

/// A rollout under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Rollout {
    pub(super) from: Generation,
    pub(super) to: Generation,
    /// The number of slots to have once all are relieved.
    slots: Option<u16>,
    /// The number of slots before that, once it is applied.
    slots_before: Option<u16>,
    began: Time,
    /// Where and why it failed, or nowhere when the operator took it back; from then on it goes back.
    pub(super) failure: Option<(Option<Slot>, Cause)>,
    /// The canary that it waits for, until it has gone on.
    #[serde(default)]
    pub(super) canary: Option<Canary>,
}

impl Rollout {
    /// The numbers of slots that it may set.
    pub(super) fn all_slots(&self) -> impl Iterator<Item = u16> {
        self.slots.into_iter().chain(self.slots_before)
    }

    /// The operator has spoken since: the number of slots is not the rollout's business any more.
    pub(super) fn forget_slots(&mut self) {
        (self.slots, self.slots_before) = (None, None);
    }

    /// Where to go back to if a worker of `generation` failed now; `None` if that is no failure of the rollout.
    pub(super) fn undone_by(&self, generation: Generation) -> Option<Generation> {
        (self.failure.is_none() && generation == self.to).then_some(self.from)
    }
}

impl Supervisor {
    /// Notes a reload. The newest wins over one that still waits.
    pub(super) fn request_rollout(&mut self, policy: Policy) {
        let generation = self.next_generation();
        self.latest = generation;
        self.policies.insert(generation, policy);
        let instead_of = self.queued.replace(Request { generation }).map(|old| old.generation);
        if !self.may_begin() {
            self.report(Report::Queued { generation, instead_of });
        }
    }

    fn is_rolling_forward(&self) -> bool {
        self.rollout.as_ref().is_some_and(|rollout| rollout.failure.is_none())
    }

    pub(super) fn may_begin(&self) -> bool {
        let troubled = self.records.values().any(|r| r.backoff.failures() > 0);
        self.rollout.is_none() && !self.goal.paused && (self.started || troubled)
    }

    /// Begins the rollout that waits, unless another is under way or the first start is still going well.
    /// Returns whether one began.
    pub(super) fn begin_queued(&mut self, now: Time) -> bool {
        if !self.may_begin() {
            return false;
        }
        let Some(Request { generation }) = self.queued.take() else {
            return false;
        };
        let from = std::mem::replace(&mut self.goal.generation, generation);
        // A number that the operator has scaled to holds until the settings say another one.
        let wanted = self.policies[&generation].slots;
        let slots = (wanted != self.policies[&from].slots).then_some(wanted);
        self.rollout = Some(Rollout {
            from,
            to: generation,
            slots,
            slots_before: None,
            began: now,
            failure: None,
            canary: Canary::of(&self.policies[&generation]),
        });
        self.records.values_mut().for_each(|record| record.turn_to(generation));
        self.report(Report::Reloading { generation });
        true
    }

    /// Sets the goal back; the walk goes on from where it is, backwards.
    pub(super) fn roll_back(&mut self, slot: Option<Slot>, cause: Cause) {
        let Some(rollout) = &mut self.rollout else {
            return;
        };
        rollout.failure = Some((slot, cause));
        rollout.canary = None;
        let from = rollout.from;
        self.goal.generation = from;
        if let Some(slots) = rollout.slots_before.take() {
            self.set_slots(slots);
        }
        self.records.values_mut().for_each(|record| record.turn_to(from));
    }

    /// Takes the next step, if the last one is done.
    pub(super) fn roll(&mut self, now: Time) {
        if self.rollout.is_none() {
            return;
        }
        self.dismiss_superseded_newcomers(now);
        if self.watch_canary(now) {
            return;
        }
        let surge = usize::from(self.policies[&self.goal.generation].surge.max(1));
        let mut busy = self.records.values().filter(|r| r.newcomer.or(r.leaving).is_some()).count();
        for slot in self.slots_to_relieve() {
            // Where nobody serves there is nothing to compare with: such a slot is relieved as ever.
            let is_canary = self.wants_canary() && self.is_served(slot);
            if busy >= surge || is_canary && busy > 0 {
                return;
            }
            // The back-off is for the generation that fails; a new one has its chance at once.
            if self.is_rolling_forward() || self.may_start(slot, now) {
                let newcomer = self.bring_newcomer(slot, now);
                busy += 1;
                if is_canary {
                    self.set_canary(Some(Canary::OnItsWay(newcomer)));
                    return;
                }
            }
        }
    }

    /// Newcomers of a generation that is being rolled back have nothing to relieve any more.
    fn dismiss_superseded_newcomers(&mut self, now: Time) {
        for slot in self.records.keys().copied().collect::<Vec<_>>() {
            let newcomer = self.records[&slot].newcomer;
            let stale = |w: &&Worker| w.generation != self.goal.generation;
            if let (Some(id), Some(record)) = (
                newcomer.filter(|id| self.worker(Some(*id)).filter(stale).is_some()),
                self.records.get_mut(&slot),
            ) {
                record.newcomer = None;
                let starting = |id: &WorkerId| self.roster.get(id).is_some_and(Worker::is_starting);
                let is_served = record.incumbent.is_some_and(|id| !starting(&id));
                if !is_served && self.roster[&id].is_ready() {
                    // It alone serves here: it stays until it is relieved in its turn.
                    record.generation = self.roster[&id].generation;
                    if let Some(old) = record.incumbent.replace(id) {
                        self.dismiss(old, Why::Leave, now);
                    }
                } else {
                    record.leaving = Some(id);
                    self.dismiss(id, Why::Failed, now);
                }
            }
        }
    }

    /// Slots of another generation than the goal's that can be relieved now; those that nobody serves come first.
    fn slots_to_relieve(&self) -> Vec<Slot> {
        let due = |r: &Record| {
            let starting = self.worker(r.incumbent).is_some_and(Worker::is_starting);
            // A start that goes well is waited for: it will be ready or fail, and either brings us back here.
            let in_the_way = starting && r.backoff.failures() == 0;
            let idle = r.newcomer.is_none() && r.leaving.is_none();
            r.generation != self.goal.generation && idle && !in_the_way && !r.kept && !r.stopped
        };
        let mut slots: Vec<Slot> =
            self.records.iter().filter(|(_, r)| due(r)).map(|(slot, _)| *slot).collect();
        slots.sort_by_key(|slot| self.is_served(*slot));
        slots
    }

    /// Whether the incumbent of a slot is ready.
    fn is_served(&self, slot: Slot) -> bool {
        let incumbent = self.records.get(&slot).and_then(|record| record.incumbent);
        self.worker(incumbent).is_some_and(Worker::is_ready)
    }

    fn bring_newcomer(&mut self, slot: Slot, now: Time) -> WorkerId {
        let newcomer = self.spawn(slot, self.goal.generation, now);
        let Some(record) = self.records.get_mut(&slot) else {
            return newcomer;
        };
        record.newcomer = Some(newcomer);
        record.failed = None;
        record.restarting = false;
        let starting = |id: &WorkerId| self.roster.get(id).is_some_and(Worker::is_starting);
        if let Some(old) = record.incumbent.take_if(|id| starting(id)) {
            self.dismiss(old, Why::Leave, now);
        }
        newcomer
    }

    /// The generation to start in an empty slot: the one that it was last relieved with, or the goal's where that
    /// one is the proven one.
    pub(super) fn generation_to_fill(&self, slot: Slot) -> Generation {
        match (&self.rollout, self.records.get(&slot)) {
            (Some(rollout), None) if rollout.failure.is_none() => {
                // Scaled up by hand in the middle of a rollout, or by the rollout's own last step.
                if self.is_walked() { rollout.to } else { rollout.from }
            }
            (Some(rollout), Some(record)) if rollout.failure.is_none() => record.generation,
            (None, Some(record)) => record.generation,
            (Some(_), _) | (None, None) => self.goal.generation,
        }
    }

    /// Every slot that there is has the goal's generation, with nobody coming or going.
    fn is_walked(&self) -> bool {
        self.records.values().all(|r| {
            let at_goal = r.generation == self.goal.generation || r.kept;
            at_goal && r.newcomer.is_none() && r.leaving.is_none()
        })
    }

    /// Ends the rollout when every slot is relieved and its worker can be relied on.
    pub(super) fn settle_rollout(&mut self, now: Time) -> Settled {
        let policy = &self.policies[&self.goal.generation];
        let rolls_forward = self.is_rolling_forward();
        let stable = |r: &Record| {
            // What the old generation cannot fill does not hold up the verdict; it goes on being tried.
            let unserved = !self.worker(r.incumbent).is_some_and(Worker::is_ready);
            let hopeless = !rolls_forward && unserved && r.backoff.is_persistent(policy);
            let settled = self.worker(r.incumbent).is_some_and(Worker::is_settled);
            settled || hopeless || r.kept || r.failed.is_some() || r.stopped
        };
        if self.rollout.is_none() || !self.is_walked() || !self.records.values().all(stable) {
            return Settled::Yes;
        }
        if let Some(rollout) = self.rollout.as_mut().filter(|r| r.failure.is_none())
            && let Some(slots) = rollout.slots.take()
            && slots != self.goal.slots
        {
            rollout.slots_before = Some(self.goal.slots);
            self.set_slots(slots);
            return Settled::No;
        }
        let Some(rollout) = self.rollout.take() else {
            return Settled::Yes;
        };
        let took = now.since(rollout.began);
        let (generation, to) = (rollout.to, rollout.from);
        self.undone = rollout.failure.is_some().then_some(generation);
        let stopped = self.records.values().filter(|record| record.stopped).count();
        self.report(match rollout.failure {
            None => Report::Reloaded { generation, stopped, took },
            Some((slot, cause)) => {
                let kept =
                    self.records.iter().filter(|(_, r)| r.kept).map(|(slot, _)| *slot).collect();
                Report::RolledBack { generation, to, slot, cause, kept, took }
            }
        });
        Settled::Yes
    }
}
