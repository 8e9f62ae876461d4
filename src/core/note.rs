//! Noting what happened: one function a kind of event. They change what is known and say so; what is to be done about
//! it is decided by `reconcile` alone.

use super::action::{Action, Cause, Next, Report, Why};
use super::backoff::Blame;
use super::event::{Event, Evidence, How};
use super::time::Time;
use super::worker::{State, Worker, WorkerId};
use super::{Outcome, Supervisor};
use std::time::Duration;

impl Supervisor {
    pub(super) fn note(&mut self, event: Event, now: Time) {
        match event {
            Event::Ready { worker, evidence } => self.on_ready(worker, evidence, now),
            Event::Exited { worker, how, left } => self.on_exited(worker, how, left, now),
            Event::Emptied(worker) => self.remove(worker),
            Event::SpawnFailed { worker, reason, transient } => {
                self.on_spawn_failed(worker, reason, transient, now);
            }
            Event::Drained(worker) => {
                if let Some(State::Draining { until, by_itself: false }) = self.state(worker) {
                    self.terminate(worker, Why::Leave, until.since(now), now);
                }
            }
            Event::Leaving(worker) => self.on_leaving(worker, now),
            Event::Heartbeat(worker) => self.on_heartbeat(worker, now),
            Event::MoreTime { worker, time } => self.on_more_time(worker, now + time),
            // What cannot be done now is told by `refusal`, before anybody asks for it.
            ref asked if self.refusal(asked).is_some() => {}
            Event::Reload { policy } => self.request_rollout(policy),
            Event::Scale(scale) => self.on_scale(scale),
            Event::Restart(slot) => self.on_restart(slot, now),
            Event::StopSlot(slot) => self.on_stop_slot(slot, now),
            Event::StartSlot(slot) => self.on_start_slot(slot),
            Event::Pause => self.on_pause(now),
            Event::Resume => self.on_resume(),
            Event::Reset(slot) => self.on_reset(slot),
            Event::Promote => self.on_promote(),
            Event::Undo => self.roll_back(None, Cause::TakenBack),
            Event::Stop => self.stop(Outcome::Stopped),
            Event::Hurry => self.hurry(),
            Event::Tick => {}
        }
    }

    fn on_ready(&mut self, id: WorkerId, evidence: Evidence, now: Time) {
        let Some(worker) = self.roster.get_mut(&id).filter(|w| w.is_starting()) else {
            return;
        };
        let policy = &self.policies[&worker.generation];
        worker.state = State::Ready {
            since: now,
            settles: Some(now + policy.settle),
            heartbeat: policy.heartbeat.map(|interval| now + interval),
        };
        worker.ready = Some((now, evidence));
        let (slot, generation, took) = (worker.slot, worker.generation, now.since(worker.started));
        self.actions.push_back(Action::Admit(id));
        self.report(Report::Ready { worker: id, slot, generation, evidence, took });
    }

    fn on_exited(&mut self, id: WorkerId, how: How, left: bool, now: Time) {
        let Some(worker) = self.roster.get(&id) else {
            return;
        };
        let (slot, generation) = (worker.slot, worker.generation);
        match worker.state {
            State::Starting { .. } => {
                self.fail(id, Cause::Exited { how, early: true }, Blame::Program, now);
            }
            State::Ready { .. } => {
                self.fail(id, Cause::Exited { how, early: false }, Blame::Program, now);
            }
            State::Draining { .. } | State::Stopping { .. } => {
                self.report(Report::Gone { worker: id, slot, generation, how });
            }
        }
        if !left {
            return self.remove(id);
        }
        match self.state(id) {
            // The main process had the stop signal; what it left behind gets it now, within the same deadline.
            Some(State::Stopping { .. }) => self.ask(id, Why::Leftovers),
            _ => self.terminate(id, Why::Leftovers, Duration::ZERO, now),
        }
    }

    fn on_spawn_failed(&mut self, id: WorkerId, reason: String, transient: bool, now: Time) {
        if self.roster.get(&id).is_some_and(Worker::is_starting) {
            let blame = if transient { Blame::Machine } else { Blame::Program };
            self.fail(id, Cause::NotStarted(reason), blame, now);
        }
        self.remove(id);
    }

    /// A worker that says goodbye leaves its slot to the next, as one that exits; but nobody hurries it before its time.
    fn on_leaving(&mut self, id: WorkerId, now: Time) {
        if !self.roster.get(&id).is_some_and(Worker::is_ready) {
            return;
        }
        self.fail(id, Cause::Leaving, Blame::Program, now);
        let Some(worker) = self.roster.get_mut(&id) else { return };
        let until = now + self.policies[&worker.generation].drain;
        worker.state = State::Draining { until, by_itself: true };
        self.actions.push_back(Action::Withdraw(id));
    }

    fn on_heartbeat(&mut self, id: WorkerId, now: Time) {
        let Some(worker) = self.roster.get_mut(&id) else {
            return;
        };
        let interval = self.policies[&worker.generation].heartbeat;
        if let State::Ready { heartbeat, .. } = &mut worker.state {
            *heartbeat = interval.map(|interval| now + interval);
        }
    }

    fn on_more_time(&mut self, id: WorkerId, later: Time) {
        let Some(worker) = self.roster.get_mut(&id) else {
            return;
        };
        match &mut worker.state {
            State::Starting { until }
            | State::Draining { until, .. }
            | State::Stopping { kill: Some(until) } => *until = later.max(*until),
            State::Ready { .. } | State::Stopping { kill: None } => {}
        }
    }

    fn hurry(&mut self) {
        self.stop(Outcome::Stopped);
        for id in self.ids(|w| !matches!(w.state, State::Stopping { kill: None })) {
            if !self.roster[&id].is_stopping() {
                self.ask(id, Why::Leave);
            }
            self.kill(id);
        }
    }

    /// A worker failed: its slot backs off or is given up, and a rollout to its generation is undone. The worker
    /// stays on the roster until it is gone.
    pub(super) fn fail(&mut self, id: WorkerId, cause: Cause, blame: Blame, now: Time) {
        let worker = &self.roster[&id];
        let (slot, generation) = (worker.slot, worker.generation);
        let policy = &self.policies[&generation];
        let was_healthy = matches!(worker.state, State::Ready { since, .. }
            if now.since(since) >= policy.limit_within);
        let watched = self.watched();
        let Some(record) = self.records.get_mut(&slot) else {
            return;
        };
        let had_a_role = !record.is_empty();
        record.detach(id);
        if was_healthy {
            record.backoff.clear();
        }
        let delay = record.backoff.fail(blame, policy, self.chance.next(), now);
        record.kept &= !record.is_empty();
        let back_to = self.rollout.as_ref().and_then(|r| r.undone_by(generation));
        if record.is_empty()
            && let Some(rollout) = self.rollout.as_ref().filter(|r| r.failure.is_some())
        {
            // Nobody is relieved here any more: the slot is filled, with what serves elsewhere.
            record.generation = rollout.from;
        }
        let next = if let Some(to) = back_to {
            Next::RollBack(to)
        } else if record.incumbent.is_some() && record.backoff.is_programs_fault(policy) {
            record.kept = true;
            // It is another generation that failed; the one that stays begins with a clean sheet.
            record.backoff.clear();
            Next::KeepIncumbent
        } else if had_a_role && record.is_empty() && record.backoff.is_exhausted(policy, now) {
            record.failed = Some(cause.clone());
            Next::GiveUp { failures: record.backoff.counted(), within: policy.limit_within }
        } else if record.newcomer.is_some() && !record.is_unfilled(watched) {
            Next::KeepIncumbent
        } else {
            Next::StartAgain(delay)
        };
        self.report(Report::Failed { worker: id, slot, generation, cause: cause.clone(), next });
        if back_to.is_some() {
            self.roll_back(Some(slot), cause);
        }
    }
}
