//! What is always true after `reconcile`. Debug builds assert it at every event; the simulation lives on it.

use super::canary::Canary;
use super::worker::{State, Worker};
use super::{Supervisor, Time};
use std::collections::BTreeSet;

impl Supervisor {
    /// Returns the first invariant that does not hold, in words.
    #[must_use]
    pub fn broken_invariant(&self, now: Time) -> Option<String> {
        self.broken_reference()
            .or_else(|| self.newcomers())
            .or_else(|| self.lone_canary())
            .or_else(|| self.wakeups(now))
    }

    /// Whatever is named is there.
    pub(super) fn broken_reference(&self) -> Option<String> {
        self.generations().or_else(|| self.roles())
    }

    fn roles(&self) -> Option<String> {
        let mut seen = BTreeSet::new();
        for (slot, record) in &self.records {
            for id in [record.incumbent, record.newcomer, record.leaving].into_iter().flatten() {
                if !seen.insert(id) {
                    return Some(format!("worker {id} has two roles"));
                }
                match self.roster.get(&id) {
                    None => {
                        return Some(format!("worker {id} of slot {slot} is not on the roster"));
                    }
                    Some(worker) if worker.slot != *slot => {
                        return Some(format!(
                            "worker {id} of slot {} is in slot {slot}",
                            worker.slot
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        let free = |(id, w): (&super::WorkerId, &Worker)| {
            (w.is_starting() || w.is_ready()) && !seen.contains(id)
        };
        self.roster
            .iter()
            .find(|(id, w)| free((id, w)))
            .map(|(id, _)| format!("worker {id} has no role"))
    }

    fn newcomers(&self) -> Option<String> {
        let newcomers = self.records.values().filter(|r| r.newcomer.is_some()).count();
        match &self.rollout {
            None if newcomers > 0 => Some("a newcomer without a rollout".to_owned()),
            Some(_)
                if newcomers > usize::from(self.policies[&self.goal.generation].surge.max(1)) =>
            {
                Some(format!("{newcomers} newcomers at a time"))
            }
            _ => None,
        }
    }

    /// While a canary is watched nobody else comes, and the wait for it has a wake-up.
    fn lone_canary(&self) -> Option<String> {
        let rollout = self.rollout.as_ref().filter(|_| self.goal.stopping.is_none())?;
        let canary = rollout.canary?;
        if rollout.failure.is_some() {
            return Some("a canary of a rollout that goes back".to_owned());
        }
        let mut newcomers = self.records.values().filter_map(|record| record.newcomer);
        if let Some(id) = canary.worker()
            && !(newcomers.next() == Some(id) && newcomers.next().is_none())
        {
            return Some(format!("canary {id} is not the only newcomer"));
        }
        let Canary::Waiting { until, .. } = canary else {
            return None;
        };
        let is_late = |timeout: Time| until.is_some_and(|until| timeout > until);
        let endless = self.poll_timeout().is_none_or(is_late);
        endless.then(|| "a canary that is waited for for ever".to_owned())
    }

    /// Every wait has a wake-up.
    fn wakeups(&self, now: Time) -> Option<String> {
        if self.goal.stopping.is_none() {
            let waits = |r: &&super::Record| {
                r.is_empty() && r.failed.is_none() && !r.rests() && !self.goal.paused
            };
            let woken = |r: &super::Record| match r.backoff.waits_until(now) {
                Some(until) => self.poll_timeout().is_some_and(|timeout| timeout <= until),
                None => false,
            };
            if self.records.values().filter(waits).any(|r| !woken(r)) {
                return Some("an empty slot that nothing will fill".to_owned());
            }
        }
        if self.goal.stopping.is_none() && self.queued.is_some() && self.may_begin() {
            return Some("a reload that could begin and waits".to_owned());
        }
        let timeless = |w: &Worker| match w.state {
            State::Starting { .. } | State::Draining { .. } => w.deadline().is_none(),
            State::Ready { .. } | State::Stopping { .. } => false,
        };
        self.roster
            .iter()
            .find(|(_, w)| timeless(w))
            .map(|(id, _)| format!("worker {id} waits for ever"))
    }

    fn generations(&self) -> Option<String> {
        let known = |g| self.policies.contains_key(&g);
        let used = self
            .records
            .values()
            .map(|r| r.generation)
            .chain(self.roster.values().map(|w| w.generation));
        let lost = used.chain([self.goal.generation]).find(|g| !known(*g));
        lost.map(|generation| format!("generation {generation} is used and forgotten"))
    }
}
