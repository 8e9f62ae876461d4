//! When a slot that fails may try again, and when it is given up.
//!
//! The first failure is answered at once, the second after `min-delay`, each further one after twice the last
//! delay up to `max-delay`, less up to a quarter by chance, so that slots that fell together do not rise together.

use super::policy::Policy;
use super::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// The failures of one slot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Backoff {
    /// Failures in a row, since a worker of this slot was last healthy.
    failures: u32,
    /// Those among them that the program is to blame for.
    faults: u32,
    /// Moments of the last failures that count towards the start limit, oldest first.
    recent: VecDeque<Time>,
    /// No start before this moment.
    until: Option<Time>,
}

/// Whether a failure says something about the program, or only about the machine's state just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// Counts towards the start limit.
    Program,
    /// Out of processes, memory or file descriptors: retried for as long as it takes.
    Machine,
}

impl Backoff {
    /// Notes a failure at `now` and returns how long the slot waits before its next start.
    pub(super) fn fail(
        &mut self,
        blame: Blame,
        policy: &Policy,
        chance: u64,
        now: Time,
    ) -> Duration {
        self.failures = self.failures.saturating_add(1);
        if blame == Blame::Program {
            self.faults = self.faults.saturating_add(1);
            self.recent.push_back(now);
        }
        let keep = policy.limit_count.max(1) as usize;
        while self.recent.len() > keep {
            self.recent.pop_front();
        }
        let delay = self.delay(policy, chance);
        self.until = Some(now + delay);
        delay
    }

    fn delay(&self, policy: &Policy, chance: u64) -> Duration {
        let Some(doublings) = self.failures.checked_sub(2) else {
            return Duration::ZERO;
        };
        let factor = 2u32.saturating_pow(doublings);
        let full = policy.min_delay.saturating_mul(factor).min(policy.max_delay);
        full - full.mul_f64((chance % 1024) as f64 / 4096.0)
    }

    /// Forgives everything: a worker was healthy, or new settings are to be tried.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether the start limit is reached: that many failures within that time. A limit of 0 is none.
    pub(super) fn is_exhausted(&self, policy: &Policy, now: Time) -> bool {
        let limit = policy.limit_count as usize;
        limit > 0
            && self.recent.len() >= limit
            && self.recent.front().is_some_and(|oldest| now.since(*oldest) <= policy.limit_within)
    }

    /// The moment before which the slot does not start, if it was held back at all.
    pub(super) fn until(&self) -> Option<Time> {
        self.until
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// How many failures count towards the start limit just now.
    pub(super) fn counted(&self) -> u32 {
        u32::try_from(self.recent.len()).unwrap_or(u32::MAX)
    }

    /// Whether the slot has failed in a row as often as the start limit allows, however long that took.
    pub(super) fn is_persistent(&self, policy: &Policy) -> bool {
        self.failures >= policy.limit_count.max(1)
    }

    /// As `is_persistent`, and the program is to blame.
    pub(super) fn is_programs_fault(&self, policy: &Policy) -> bool {
        self.faults >= policy.limit_count.max(1)
    }

    /// The moment before which the slot does not start, if that is still ahead.
    pub(super) fn waits_until(&self, now: Time) -> Option<Time> {
        self.until.filter(|until| *until > now)
    }
}

/// A small generator of chance (xorshift64*), seeded by the shell: the core has no randomness of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(n: usize, chance: u64) -> Vec<u64> {
        let policy = Policy { limit_count: 0, ..Policy::default() };
        let mut backoff = Backoff::default();
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap();
        (0..n).map(|_| ms(backoff.fail(Blame::Program, &policy, chance, Time::default()))).collect()
    }

    #[test]
    fn the_first_failure_is_answered_at_once_and_the_rest_double_up_to_the_maximum() {
        assert_eq!(delays(6, 0), [0, 100, 200, 400, 800, 1600]);
        assert_eq!(*delays(64, 0).last().unwrap(), 30_000);
    }

    #[test]
    fn chance_takes_off_up_to_a_quarter() {
        assert_eq!(delays(3, 1023), [0, 75, 150]);
    }

    #[test]
    fn the_limit_counts_failures_within_the_time_only() {
        let policy =
            Policy { limit_count: 3, limit_within: Duration::from_secs(10), ..Policy::default() };
        let mut backoff = Backoff::default();
        for secs in [0, 6, 12] {
            backoff.fail(Blame::Program, &policy, 0, Time::from_secs(secs));
            assert!(!backoff.is_exhausted(&policy, Time::from_secs(secs)));
        }
        backoff.fail(Blame::Program, &policy, 0, Time::from_secs(14));
        assert!(backoff.is_exhausted(&policy, Time::from_secs(14)));
    }

    #[test]
    fn the_machine_is_never_held_against_the_program() {
        let policy = Policy::default();
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            backoff.fail(Blame::Machine, &policy, 0, Time::default());
        }
        assert!(!backoff.is_exhausted(&policy, Time::default()));
        assert_eq!(backoff.failures(), 100);
    }
}
