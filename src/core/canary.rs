//! The canary: the first newcomer of a rollout whose settings want one. It gets a small share of the connections beside
//! its incumbent, and nobody else is relieved until its time is over, the operator says so, or it fails.
//!
//! ```text
//!         newcomer              settled            its time, or the word
//! wanted ──────────► on its way ───────► waiting ───────────────────────► none: the rollout goes on
//!    ▲                    └────── its slot was scaled away ──┘│
//!    └────────────────────────────────────────────────────────┘
//! ```

use super::action::Report;
use super::policy::Policy;
use super::rollout::Rollout;
use super::time::Time;
use super::worker::{State, Worker, WorkerId};
use super::{Slot, Supervisor};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A wait without an end wakes us this often: systemd is to wait as well, and believes no promise for ever.
const REMINDER: Duration = Duration::from_secs(60);

/// How far the canary of a rollout is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Canary {
    /// The next newcomer in a slot that is served will be it.
    Wanted,
    /// It starts, or is ready and settles.
    OnItsWay(WorkerId),
    /// It has settled, and the rollout waits.
    Waiting {
        worker: WorkerId,
        /// When the rollout goes on; `None` if when the operator says so.
        until: Option<Time>,
        /// The operator has said so.
        promoted: bool,
    },
}

impl Canary {
    /// Returns what a rollout to a generation with this policy begins with.
    pub(super) fn of(policy: &Policy) -> Option<Self> {
        policy.canary.map(|_| Self::Wanted)
    }

    pub(super) fn worker(self) -> Option<WorkerId> {
        match self {
            Self::Wanted => None,
            Self::OnItsWay(worker) | Self::Waiting { worker, .. } => Some(worker),
        }
    }

    fn is_waiting(self) -> bool {
        matches!(self, Self::Waiting { .. })
    }
}

impl Supervisor {
    /// Returns the canary and how many of a hundred connections it is to get, from the moment that it is admitted until
    /// the rollout goes on or is undone.
    #[must_use]
    pub fn canary(&self) -> Option<(WorkerId, u8)> {
        let id = self.watched().filter(|_| self.goal.stopping.is_none())?;
        self.worker(Some(id)).filter(|worker| worker.is_ready())?;
        Some((id, self.canary_policy()?.canary?))
    }

    /// The canary, once there is one.
    pub(super) fn watched(&self) -> Option<WorkerId> {
        self.rollout.as_ref()?.canary?.worker()
    }

    /// The canary, once the rollout waits for nothing else.
    pub(super) fn waiting_canary(&self) -> Option<WorkerId> {
        self.rollout.as_ref()?.canary.filter(|canary| canary.is_waiting())?.worker()
    }

    pub(super) fn wants_canary(&self) -> bool {
        let canary = self.rollout.as_ref().and_then(|rollout| rollout.canary);
        matches!(canary, Some(Canary::Wanted))
    }

    pub(super) fn canary_policy(&self) -> Option<&Policy> {
        self.policies.get(&self.rollout.as_ref()?.to)
    }

    /// The operator has seen enough: the next look at the canary ends the wait.
    pub(super) fn on_promote(&mut self) {
        if let Some(Rollout { canary: Some(Canary::Waiting { promoted, .. }), .. }) =
            &mut self.rollout
        {
            *promoted = true;
        }
    }

    /// Takes the next step with the canary, if there is one; returns whether everybody else waits for it.
    pub(super) fn watch_canary(&mut self, now: Time) -> bool {
        let Some(id) = self.watched() else {
            return false;
        };
        if !self.records.values().any(|record| record.newcomer == Some(id)) {
            // Its slot was scaled away under it: the next one is watched in its stead.
            self.set_canary(Some(Canary::Wanted));
            return false;
        }
        self.begin_wait(id);
        let Some(Rollout { canary: Some(Canary::Waiting { until, promoted, .. }), .. }) =
            self.rollout
        else {
            return true;
        };
        if promoted || until.is_some_and(|until| until <= now) {
            self.end_wait(id, promoted, now);
            return false;
        }
        let wake = until.unwrap_or(now + REMINDER);
        self.wake = Some(self.wake.map_or(wake, |other| other.min(wake)));
        true
    }

    /// From now on the rollout waits, if the canary has just settled.
    fn begin_wait(&mut self, id: WorkerId) {
        if self.waiting_canary().is_some() || !self.worker(Some(id)).is_some_and(Worker::is_settled)
        {
            return;
        }
        let (Some((slot, since)), Some(policy)) = (self.place_of(id), self.canary_policy()) else {
            return;
        };
        let (percent, time) = (policy.canary.unwrap_or_default(), policy.canary_time);
        let until = time.map(|time| since + time);
        self.set_canary(Some(Canary::Waiting { worker: id, until, promoted: false }));
        let generation = self.goal.generation;
        self.report(Report::Canary { worker: id, slot, generation, percent, time });
    }

    /// The canary relieves its incumbent, and the others follow.
    fn end_wait(&mut self, id: WorkerId, asked: bool, now: Time) {
        self.set_canary(None);
        if let Some((slot, since)) = self.place_of(id) {
            let (generation, took) = (self.goal.generation, now.since(since));
            self.report(Report::Promoted { worker: id, slot, generation, asked, took });
        }
        self.relieve(id, now);
    }

    /// Where a ready worker is, and since when it is ready.
    fn place_of(&self, id: WorkerId) -> Option<(Slot, Time)> {
        let worker = self.worker(Some(id))?;
        if let State::Ready { since, .. } = worker.state {
            Some((worker.slot, since))
        } else {
            None
        }
    }

    pub(super) fn set_canary(&mut self, canary: Option<Canary>) {
        if let Some(rollout) = &mut self.rollout {
            rollout.canary = canary;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Event, Evidence};
    use super::*;

    const NOW: Time = Time::from_secs(100);

    fn ready(supervisor: &mut Supervisor, id: u64, now: Time) {
        let worker = WorkerId(id);
        supervisor.handle(Event::Ready { worker, evidence: Evidence::Notify }, now);
    }

    /// A rollout with a canary that has been ready for as long.
    fn watched(time: Option<Duration>, age: u64) -> (Supervisor, Time) {
        let mut supervisor = Supervisor::new(Policy::default(), 0, NOW);
        ready(&mut supervisor, 1, NOW);
        let policy = Policy { canary: Some(5), canary_time: time, ..Policy::default() };
        supervisor.handle(Event::Reload { policy }, NOW);
        assert_eq!(supervisor.canary(), None, "not before it is ready");
        ready(&mut supervisor, 2, NOW);
        let now = NOW + Duration::from_secs(age);
        supervisor.handle(Event::Tick, now);
        (supervisor, now)
    }

    #[test]
    fn the_share_is_told_from_ready_until_the_wait_is_over() {
        for age in [0, 1, 59] {
            let (supervisor, _) = watched(Some(Duration::from_secs(60)), age);
            assert_eq!(supervisor.canary(), Some((WorkerId(2), 5)), "after {age}s");
        }
        assert_eq!(watched(Some(Duration::from_secs(60)), 60).0.canary(), None);
        for end in [Event::Promote, Event::Undo, Event::Stop] {
            let (mut supervisor, now) = watched(None, 5);
            supervisor.handle(end, now);
            assert_eq!(supervisor.canary(), None);
        }
    }

    #[test]
    fn systemd_is_asked_for_patience_again_and_again() {
        let (mut supervisor, mut now) = watched(None, 5);
        for _ in 0..100 {
            let patience = supervisor.patience().expect("a rollout is under way");
            assert_eq!(patience, now + REMINDER);
            now = patience;
            supervisor.handle(Event::Tick, now);
        }
        let (supervisor, _) = watched(Some(Duration::from_secs(600)), 5);
        assert_eq!(supervisor.patience(), Some(NOW + Duration::from_secs(600)));
    }

    #[test]
    fn the_next_primary_goes_on_waiting_and_an_older_one_knew_no_canary() {
        let (supervisor, now) = watched(Some(Duration::from_secs(600)), 5);
        let mut state = serde_json::to_value(&supervisor).unwrap();
        let read: Supervisor = serde_json::from_value(state.clone()).unwrap();
        let read = read.revive(now + Duration::from_secs(300)).unwrap();
        assert_eq!(read.canary(), Some((WorkerId(2), 5)));
        assert_eq!(read.poll_timeout(), Some(NOW + Duration::from_secs(600)));
        state["rollout"].as_object_mut().unwrap().remove("canary").unwrap();
        let older: Supervisor = serde_json::from_value(state).unwrap();
        assert_eq!(older.revive(now).unwrap().canary(), None);
    }
}
