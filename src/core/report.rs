//! What `STATUS=` says: the state of the whole in one line.

use super::action::Human;
use super::words::{plural, watch_time};
use super::worker::{Slot, Worker};
use super::{Outcome, Record, Supervisor};
use std::fmt::Write as _;

/// So many slots are named; the line is for people, and systemd takes 4096 bytes.
const MAX_TROUBLES: usize = 3;

impl Supervisor {
    /// Returns the state of the whole as a person reads it, in one line without times that pass: it changes only
    /// when something happens.
    #[must_use]
    pub fn status(&self) -> String {
        let mut text = if let Some(outcome) = self.goal.stopping {
            let left = format!("stopping: {} left", workers(self.roster.len()));
            let why = self.records.iter().find_map(|(slot, record)| self.trouble(*slot, record));
            return match why.filter(|_| outcome == Outcome::Failed) {
                Some(why) => format!("{left}; every slot is given up, {why}"),
                None => left,
            };
        } else if self.goal.paused {
            match self.roster.len() {
                0 => "paused: connections wait".to_owned(),
                left => format!("paused: connections wait; {} left", workers(left)),
            }
        } else if let Some(step) = self.rollout_status() {
            step
        } else {
            self.steady_status()
        };
        let troubles: Vec<String> =
            self.records.iter().filter_map(|(s, r)| self.trouble(*s, r)).collect();
        for trouble in troubles.iter().take(MAX_TROUBLES) {
            let _ = write!(text, "; {trouble}");
        }
        if let Some(more) = troubles.len().checked_sub(MAX_TROUBLES).filter(|more| *more > 0) {
            let _ = write!(text, "; and {more} more slots");
        }
        if self.queued.is_some() {
            text.push_str("; a reload is queued");
        }
        if let Some(generation) = self.undone.filter(|_| self.rollout.is_none()) {
            let _ = write!(text, "; the last reload, to generation {generation}, was rolled back");
        }
        text
    }

    /// What is not as it should be in one slot.
    fn trouble(&self, slot: Slot, record: &Record) -> Option<String> {
        let failures = record.backoff.failures();
        if record.stopped {
            Some(format!("slot {slot} is stopped"))
        } else if let Some(cause) = &record.failed {
            Some(format!("slot {slot} is given up: its worker {cause}"))
        } else if record.is_empty() && failures > 0 && !self.goal.paused {
            Some(format!("slot {slot} waits after {}", plural(failures, "failure")))
        } else if self.rollout.is_none() && record.generation != self.goal.generation {
            Some(format!("slot {slot} has generation {}", record.generation))
        } else {
            None
        }
    }

    fn steady_status(&self) -> String {
        let stopped = self.records.values().filter(|record| record.stopped).count();
        let (ready, slots) = (self.ready(), usize::from(self.goal.slots) - stopped);
        let generation = self.goal.generation;
        if !self.started {
            format!("starting: {ready} of {slots} slots ready")
        } else if ready == slots {
            format!("{} ready, generation {generation}", workers(ready))
        } else {
            format!("{ready} of {slots} slots ready, generation {generation}")
        }
    }

    fn rollout_status(&self) -> Option<String> {
        let rollout = self.rollout.as_ref()?;
        let slots = self.records.len();
        let done = self.records.values().filter(|r| r.generation == self.goal.generation).count();
        let what = match &rollout.failure {
            None => format!("reload to generation {} {done}/{slots}", rollout.to),
            Some((slot, cause)) => {
                let who = slot.map_or(String::new(), |slot| format!("the worker in slot {slot} "));
                let to = rollout.from;
                format!("rolling back to generation {to} {done}/{slots} because {who}{cause}")
            }
        };
        Some(what + &self.step_status().unwrap_or_default())
    }

    /// What the rollout waits for.
    fn step_status(&self) -> Option<String> {
        if let Some(id) = self.waiting_canary() {
            let policy = self.canary_policy()?;
            let (percent, until) = (policy.canary?, watch_time(policy.canary_time));
            return Some(format!(": canary worker {id} gets {percent}% {until}"));
        }
        let (slot, record) =
            self.records.iter().find(|(_, r)| r.newcomer.or(r.leaving).is_some())?;
        let policy = &self.policies[&self.goal.generation];
        Some(match self.worker(record.newcomer) {
            Some(worker) if worker.is_starting() => {
                format!(
                    ": slot {slot} is not ready yet, fails after {}",
                    Human(policy.ready_timeout)
                )
            }
            Some(_) => format!(": slot {slot} is ready and settles for {}", Human(policy.settle)),
            None if self.worker(record.leaving).is_some_and(Worker::is_stopping) => {
                format!(": the worker that leaves slot {slot} stops")
            }
            None => format!(": the worker that leaves slot {slot} drains"),
        })
    }
}

fn workers(n: usize) -> String {
    plural(u32::try_from(n).unwrap_or(u32::MAX), "worker")
}
