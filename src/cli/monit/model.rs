//! What is known of one app: the last that its primary told, what its workers use and used, and their lines.

use super::super::usage::{Usage, workers};
use super::lines::{Lines, LogLine};
use crate::protocol::control::{App, Slot};
use std::collections::{BTreeMap, VecDeque};

/// So many samples make a history: a minute.
pub(super) const HISTORY: usize = 60;

/// An app at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// When, on a clock that only goes forward.
    pub(super) at_ms: u64,
    pub(super) app: App,
    /// What its processes use, if that was measured now.
    pub(super) measured: Option<Usages>,
}

/// What the processes of an app use.
#[derive(Clone, Debug, Default)]
pub(super) struct Usages {
    pub(super) primary: Usage,
    /// By the worker's number.
    pub(super) workers: BTreeMap<u64, Usage>,
}

/// What a slot used in the last minute, newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// Of one processor, in thousandths.
    pub(super) cpu: VecDeque<u64>,
    /// In bytes.
    pub(super) memory: VecDeque<u64>,
}

/// One app.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// The last that its primary told.
    pub(super) app: Option<App>,
    /// Why nothing is told now.
    pub(super) absent: Option<String>,
    pub(super) usage: Usages,
    /// Of one processor, in thousandths, by the worker's number.
    pub(super) cpu: BTreeMap<u64, u64>,
    /// By the slot's number.
    pub(super) history: BTreeMap<u16, History>,
    pub(super) lines: Lines,
    /// The number of the slot that keys are about.
    pub(super) selected: u16,
    /// When the usage was measured.
    measured_ms: u64,
}

impl Model {
    /// Takes what is new.
    pub(super) fn take(&mut self, sample: Sample) {
        let Sample { at_ms, app, measured } = sample;
        let before = self.app.as_ref().map(|app| app.primary.pid);
        if before != Some(app.primary.pid) {
            // Another primary counts its workers from one again.
            self.usage = Usages::default();
            self.cpu.clear();
        }
        if let Some(usage) = measured {
            self.measure(usage, &app, at_ms);
        }
        self.history.retain(|slot, _| app.slots.iter().any(|s| s.slot == *slot));
        if !app.slots.iter().any(|slot| slot.slot == self.selected) {
            self.selected = app.slots.last().map_or(0, |slot| slot.slot);
        }
        self.absent = None;
        self.app = Some(app);
    }

    fn measure(&mut self, usage: Usages, app: &App, at_ms: u64) {
        let since = at_ms.saturating_sub(self.measured_ms);
        self.cpu = workers(app)
            .filter_map(|worker| {
                let now = usage.workers.get(&worker.worker)?.cpu_ms;
                // Of a new one, since it was started.
                let (used, time) = match self.usage.workers.get(&worker.worker) {
                    Some(before) => (now.saturating_sub(before.cpu_ms), since),
                    None => (now, worker.up_ms),
                };
                Some((worker.worker, (used * 1000).checked_div(time)?))
            })
            .collect();
        for slot in &app.slots {
            let history = self.history.entry(slot.slot).or_default();
            let of = |worker: &crate::protocol::control::Worker| worker.worker;
            let cpu = slot.workers.iter().filter_map(|w| self.cpu.get(&of(w))).sum();
            let used = slot.workers.iter().filter_map(|w| usage.workers.get(&of(w)));
            push(&mut history.cpu, cpu);
            push(&mut history.memory, used.map(|usage| usage.memory_bytes).sum());
        }
        self.usage = usage;
        self.measured_ms = at_ms;
    }

    /// Notes that its primary cannot be asked.
    pub(super) fn lose(&mut self, why: String) {
        self.absent = Some(why);
    }

    /// Keeps a line of output.
    pub(super) fn hear(&mut self, line: LogLine) {
        self.lines.push(line, self.selected);
    }

    /// Selects the next slot, or the one before.
    pub(super) fn step(&mut self, forward: bool) {
        let Some(app) = &self.app else { return };
        let at = app.slots.iter().position(|slot| slot.slot == self.selected).unwrap_or(0);
        let to = if forward { at + 1 } else { at.saturating_sub(1) };
        if let Some(slot) = app.slots.get(to) {
            self.selected = slot.slot;
            if self.lines.one_slot() {
                self.lines.follow();
            }
        }
    }

    /// The selected slot.
    pub(super) fn slot(&self) -> Option<&Slot> {
        self.app.as_ref()?.slots.iter().find(|slot| slot.slot == self.selected)
    }

    /// What all processes use together, and how much of a processor the workers do, in thousandths.
    pub(super) fn total(&self) -> (Usage, u64) {
        let mut total = self.usage.primary;
        self.usage.workers.values().for_each(|usage| total.add(usage));
        (total, self.cpu.values().sum())
    }
}

fn push(values: &mut VecDeque<u64>, value: u64) {
    if values.len() == HISTORY {
        values.pop_front();
    }
    values.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::super::example::{app, measured, sample};
    use super::*;

    #[test]
    fn processor_time_is_what_came_since_the_last_sample() {
        let mut model = Model::default();
        model.take(sample(1000, app(2)));
        // Of a new worker, since it was started: 300ms in 60s.
        assert_eq!(model.cpu[&1], 5);
        let mut next = sample(2000, app(2));
        next.measured = Some(measured(&next.app, 550));
        model.take(next);
        assert_eq!(model.cpu[&1], 250);
        assert_eq!(model.history[&0].cpu, [5, 250]);
        // What was not measured leaves what is known.
        model.take(Sample { measured: None, ..sample(2100, app(2)) });
        assert_eq!(model.cpu[&1], 250);
    }

    #[test]
    fn another_primary_begins_anew() {
        let mut model = Model::default();
        model.take(sample(1000, app(2)));
        let mut other = sample(2000, app(2));
        other.app.primary.pid += 1;
        model.take(other);
        assert_eq!(model.cpu[&1], 5);
    }

    #[test]
    fn a_history_is_a_minute_long_and_goes_with_its_slot() {
        let mut model = Model::default();
        for second in 0..100 {
            model.take(sample(second * 1000, app(3)));
        }
        assert_eq!(model.history[&2].memory.len(), HISTORY);
        model.selected = 2;
        model.take(sample(100_000, app(1)));
        assert_eq!((model.history.len(), model.selected), (1, 0));
    }
}
