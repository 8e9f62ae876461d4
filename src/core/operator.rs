//! What the operator asks beyond a reload and a stop: what each does, and when it cannot be done.

use super::action::{Report, Why};
use super::event::{Event, Scale};
use super::time::Time;
use super::worker::Slot;
use super::{MAX_SLOTS, Record, Supervisor};
use std::fmt;

/// Why something that was asked is not done. Everything goes on as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Everything is being ended.
    Stopping,
    /// A rollout is under way, or one waits, and must have its verdict first.
    Rolling,
    /// The app is paused.
    Paused,
    /// The app is not paused.
    NotPaused,
    /// The first start is not done yet.
    Starting,
    /// There is no such slot.
    NoSuchSlot {
        /// Which was meant.
        slot: Slot,
        /// Slots that there are.
        slots: u16,
    },
    /// Every other slot is stopped already.
    LastSlot,
    /// No rollout is under way.
    NotRolling,
    /// The rollout under way goes back already.
    RollingBack,
    /// The rollout under way does not wait for a canary.
    NoCanary,
    /// The slot is not stopped.
    NotStopped(Slot),
    /// The slot is stopped.
    Stopped(Slot),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopping => f.write_str("everything is being stopped"),
            Self::Rolling => f.write_str("a reload is under way, and has its verdict first"),
            Self::Paused => f.write_str("the app is paused, and has to be resumed first"),
            Self::NotPaused => f.write_str("the app is not paused"),
            Self::Starting => f.write_str("the app has not finished starting"),
            Self::NoSuchSlot { slot, slots: 1 } => {
                write!(f, "there is no slot {slot}, only slot 0")
            }
            Self::NoSuchSlot { slot, slots } => {
                write!(f, "there is no slot {slot}, the slots are 0 to {}", slots - 1)
            }
            Self::LastSlot => f.write_str("no other slot is served"),
            Self::NotRolling => f.write_str("no reload is under way"),
            Self::RollingBack => f.write_str("the reload is being rolled back already"),
            Self::NoCanary => f.write_str("no canary waits"),
            Self::NotStopped(slot) => write!(f, "slot {slot} is not stopped"),
            Self::Stopped(slot) => write!(f, "slot {slot} is stopped"),
        }
    }
}

impl Supervisor {
    /// Returns why `asked` would not be done now; `None` if it would be, or is nothing that the operator asks.
    #[must_use]
    pub fn refusal(&self, asked: &Event) -> Option<Refusal> {
        let slot = match asked {
            Event::Reload { .. } | Event::Scale(_) | Event::Pause | Event::Resume => None,
            Event::Promote | Event::Undo => None,
            Event::Restart(slot) | Event::Reset(slot) => *slot,
            Event::StopSlot(slot) | Event::StartSlot(slot) => Some(*slot),
            Event::Ready { .. }
            | Event::Exited { .. }
            | Event::Emptied(_)
            | Event::SpawnFailed { .. }
            | Event::Drained(_)
            | Event::Leaving(_)
            | Event::Heartbeat(_)
            | Event::MoreTime { .. }
            | Event::Stop
            | Event::Hurry
            | Event::Tick => return None,
        };
        if self.goal.stopping.is_some() {
            return Some(Refusal::Stopping);
        }
        let unknown = slot.filter(|slot| slot.0 >= self.goal.slots);
        let unknown = unknown.map(|slot| Refusal::NoSuchSlot { slot, slots: self.goal.slots });
        unknown.or_else(|| self.refusal_now(asked))
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the caller has sorted out what is not asked by anybody"
    )]
    fn refusal_now(&self, asked: &Event) -> Option<Refusal> {
        let is_stopped = |slot: Slot| self.records.get(&slot).is_some_and(|r| r.stopped);
        let rolling = self.rollout.is_some() || self.queued.is_some();
        let changes_slots = matches!(asked, Event::Restart(_) | Event::StopSlot(_) | Event::Pause);
        match asked {
            _ if changes_slots && rolling => Some(Refusal::Rolling),
            Event::Resume => (!self.goal.paused).then_some(Refusal::NotPaused),
            Event::Reload { .. } | Event::Restart(_) | Event::StartSlot(_) | Event::Pause
                if self.goal.paused =>
            {
                Some(Refusal::Paused)
            }
            Event::Pause => (!self.started).then_some(Refusal::Starting),
            Event::Restart(Some(slot)) | Event::StopSlot(slot) if is_stopped(*slot) => {
                Some(Refusal::Stopped(*slot))
            }
            Event::StopSlot(slot) => {
                let serves = |r: &Record| !r.stopped && r.failed.is_none();
                let mut others = self.records.iter().filter(|(other, _)| *other != slot);
                (!others.any(|(_, record)| serves(record))).then_some(Refusal::LastSlot)
            }
            Event::Promote | Event::Undo => self.refusal_to_judge(asked),
            Event::StartSlot(slot) => (!is_stopped(*slot)).then_some(Refusal::NotStopped(*slot)),
            // Scaling and forgetting do no harm at any time; nothing else comes here.
            _ => None,
        }
    }

    /// Why the rollout under way cannot be ended by the operator's word, well or not.
    fn refusal_to_judge(&self, asked: &Event) -> Option<Refusal> {
        match &self.rollout {
            None => Some(Refusal::NotRolling),
            Some(rollout) if rollout.failure.is_some() => Some(Refusal::RollingBack),
            Some(_) if *asked == Event::Undo || self.waiting_canary().is_some() => None,
            Some(_) => Some(Refusal::NoCanary),
        }
    }

    pub(super) fn on_scale(&mut self, scale: Scale) {
        let from = self.goal.slots;
        let to = match scale {
            Scale::To(slots) => slots,
            Scale::By(more) => {
                let sum = i32::from(from).saturating_add(more);
                u16::try_from(sum.max(0)).unwrap_or(u16::MAX)
            }
        };
        // The last one stays: nobody's watch is ever unmanned.
        let to = to.clamp(1, MAX_SLOTS);
        if let Some(rollout) = &mut self.rollout {
            rollout.forget_slots();
        }
        if to < from {
            // Who stays may be given up, and who goes may be the one that serves.
            let stay = self.records.range_mut(..Slot(to)).map(|(_, record)| record);
            stay.filter(|record| record.failed.is_some()).for_each(Record::forgive);
        }
        self.set_slots(to);
    }

    pub(super) fn on_restart(&mut self, which: Option<Slot>, now: Time) {
        self.report(Report::Restarting { slot: which });
        for slot in self.chosen(which) {
            self.let_go(slot, now);
            if let Some(record) = self.records.get_mut(&slot) {
                record.forgive();
                record.restarting = true;
            }
        }
    }

    pub(super) fn on_stop_slot(&mut self, slot: Slot, now: Time) {
        self.report(Report::SlotStopped { slot });
        self.let_go(slot, now);
        if let Some(record) = self.records.get_mut(&slot) {
            record.forgive();
            record.stopped = true;
        }
    }

    pub(super) fn on_start_slot(&mut self, slot: Slot) {
        self.report(Report::SlotStarted { slot });
        // What is being rolled out is not proven yet: the slot is relieved in its turn.
        let proven = self.rollout.as_ref().filter(|r| r.failure.is_none()).map(|r| r.from);
        if let Some(record) = self.records.get_mut(&slot) {
            record.stopped = false;
            record.generation = proven.unwrap_or(record.generation);
        }
    }

    pub(super) fn on_pause(&mut self, now: Time) {
        self.report(Report::Paused);
        self.goal.paused = true;
        for slot in self.chosen(None) {
            self.let_go(slot, now);
        }
    }

    pub(super) fn on_resume(&mut self) {
        self.report(Report::Resumed);
        self.goal.paused = false;
        self.records.values_mut().for_each(Record::forgive);
    }

    pub(super) fn on_reset(&mut self, which: Option<Slot>) {
        self.report(Report::Reset { slot: which });
        for slot in self.chosen(which) {
            if let Some(record) = self.records.get_mut(&slot) {
                record.forgive();
                record.restarts = 0;
            }
        }
    }

    /// The slot that was named, or all that there are.
    fn chosen(&self, which: Option<Slot>) -> Vec<Slot> {
        let meant = |slot: &Slot| which.is_none_or(|one| one == *slot);
        self.records.keys().copied().filter(meant).collect()
    }

    /// Withdraws and ends the worker of a slot, if there is one.
    fn let_go(&mut self, slot: Slot, now: Time) {
        let Some(record) = self.records.get_mut(&slot) else {
            return;
        };
        if let Some(old) = record.incumbent.take() {
            record.leaving.get_or_insert(old);
            self.dismiss(old, Why::Leave, now);
        }
    }
}
