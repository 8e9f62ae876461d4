//! The state of the whole as data, for those who ask.

use super::action::Cause;
use super::canary::Canary;
use super::event::Evidence;
use super::rollout::Rollout;
use super::time::Time;
use super::worker::{Generation, Slot, State, WorkerId};
use super::{Outcome, Record, Supervisor};
use std::collections::BTreeSet;

/// Everything that can be told about an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The generation that is to serve.
    pub generation: Generation,
    /// Enough slots were ready once.
    pub started: bool,
    /// Nobody is to serve until the operator says so.
    pub paused: bool,
    /// Everything is being ended.
    pub stopping: Option<Outcome>,
    /// The rollout under way.
    pub rollout: Option<RolloutView>,
    /// The generation of a reload that waits.
    pub queued: Option<Generation>,
    /// Slots that are served by a ready worker.
    pub ready: usize,
    /// In the order of their numbers.
    pub slots: Vec<SlotView>,
    /// Workers that have no slot any more and are not gone yet.
    pub leaving: Vec<WorkerView>,
}

/// A rollout under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutView {
    /// The generation before.
    pub from: Generation,
    /// The new one.
    pub to: Generation,
    /// Where and why it failed, when it goes back; nowhere when the operator took it back.
    pub failure: Option<(Option<Slot>, Cause)>,
    /// Slots that are where they should be.
    pub done: usize,
    /// The canary that it waits for.
    pub canary: Option<CanaryView>,
}

/// The canary of a rollout that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanaryView {
    /// Which worker.
    pub worker: WorkerId,
    /// How many of a hundred connections it gets.
    pub percent: u8,
    /// When the rollout goes on; `None` if when the operator says so.
    pub until: Option<Time>,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Its number.
    pub slot: Slot,
    /// How it stands.
    pub standing: Standing,
    /// The generation that it was last relieved with.
    pub generation: Generation,
    /// How often it was started again after a failure.
    pub restarts: u32,
    /// Failures in a row.
    pub failures: u32,
    /// The one that serves first, then the newcomer, then who leaves.
    pub workers: Vec<WorkerView>,
}

/// How a slot stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A worker serves.
    Ready,
    /// A worker starts.
    Starting,
    /// Held back by back-off until then.
    Waiting(Time),
    /// Given up at the start limit.
    Failed(Cause),
    /// Stopped by the operator, or about to be started again, or the app is paused.
    Stopped,
}

/// What a worker is to its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It serves, or is about to where nobody does.
    Incumbent,
    /// It is to relieve the incumbent.
    Newcomer,
    /// It is on its way out.
    Leaving,
}

/// One worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Its name for ever.
    pub id: WorkerId,
    /// Where.
    pub slot: Slot,
    /// From which settings.
    pub generation: Generation,
    /// What it is to its slot.
    pub role: Role,
    /// What it is doing.
    pub state: State,
    /// When it was started.
    pub started: Time,
    /// When it was ready, and what showed that.
    pub ready: Option<(Time, Evidence)>,
}

impl Supervisor {
    /// Returns the state of the whole.
    #[must_use]
    pub fn view(&self) -> View {
        let in_slots = self.records.iter().map(|(slot, record)| self.view_slot(*slot, record));
        let slots: Vec<SlotView> = in_slots.collect();
        let at_goal = |r: &&Record| r.generation == self.goal.generation && r.newcomer.is_none();
        let rollout = self.rollout.as_ref().map(|rollout| RolloutView {
            from: rollout.from,
            to: rollout.to,
            failure: rollout.failure.clone(),
            done: self.records.values().filter(at_goal).count(),
            canary: self.view_canary(rollout),
        });
        let in_slots: BTreeSet<WorkerId> =
            slots.iter().flat_map(|s| &s.workers).map(|w| w.id).collect();
        let leaving = self.roster.keys().filter(|id| !in_slots.contains(id));
        View {
            generation: self.goal.generation,
            started: self.started,
            paused: self.goal.paused,
            stopping: self.goal.stopping,
            rollout,
            queued: self.queued.as_ref().map(|queued| queued.generation),
            ready: self.ready(),
            leaving: leaving.filter_map(|id| self.view_worker(*id, Role::Leaving)).collect(),
            slots,
        }
    }

    fn view_canary(&self, rollout: &Rollout) -> Option<CanaryView> {
        let percent = self.policies.get(&rollout.to)?.canary?;
        match rollout.canary? {
            Canary::Waiting { worker, until, .. } => Some(CanaryView { worker, percent, until }),
            Canary::Wanted | Canary::OnItsWay(_) => None,
        }
    }

    fn view_slot(&self, slot: Slot, record: &Record) -> SlotView {
        let roles = [
            (record.incumbent, Role::Incumbent),
            (record.newcomer, Role::Newcomer),
            (record.leaving, Role::Leaving),
        ];
        let in_role = |(id, role): (Option<WorkerId>, Role)| self.view_worker(id?, role);
        SlotView {
            slot,
            standing: self.standing(record),
            generation: record.generation,
            restarts: record.restarts,
            failures: record.backoff.failures(),
            workers: roles.into_iter().filter_map(in_role).collect(),
        }
    }

    fn standing(&self, record: &Record) -> Standing {
        let serves = |id| self.worker(id).is_some_and(super::Worker::is_ready);
        if serves(record.incumbent) || serves(record.newcomer) {
            Standing::Ready
        } else if !record.is_empty() {
            Standing::Starting
        } else if let Some(cause) = &record.failed {
            Standing::Failed(cause.clone())
        } else if self.goal.paused || record.rests() || self.goal.stopping.is_some() {
            Standing::Stopped
        } else {
            record.backoff.until().map_or(Standing::Starting, Standing::Waiting)
        }
    }

    fn view_worker(&self, id: WorkerId, role: Role) -> Option<WorkerView> {
        let worker = self.roster.get(&id)?;
        let (slot, generation) = (worker.slot, worker.generation);
        let (state, started, ready) = (worker.state, worker.started, worker.ready);
        Some(WorkerView { id, slot, generation, role, state, started, ready })
    }
}
