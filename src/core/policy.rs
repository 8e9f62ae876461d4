//! The settings that the core decides by, as durations and numbers. Each generation has its own.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How patient the supervisor is with the workers of one generation, and how it replaces them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// How many slots there are, unless the operator scales.
    pub slots: u16,
    /// A worker without evidence of readiness after this long has failed.
    pub ready_timeout: Duration,
    /// A worker must live this long after it was ready before the incumbent goes.
    pub settle: Duration,
    /// Enough ready workers to call the service started; `None` waits for every slot.
    pub ready_min: Option<u16>,
    /// How long a withdrawn worker may finish what it has.
    pub drain: Duration,
    /// How long a worker may take to end after the stop signal, beyond what is left of `drain`.
    pub stop_timeout: Duration,
    /// Back-off between the starts of a slot that fails again and again.
    pub min_delay: Duration,
    /// The longest back-off.
    pub max_delay: Duration,
    /// So many failures of one slot …
    pub limit_count: u32,
    /// … within this time give the slot up. A worker that was ready this long is healthy again.
    pub limit_within: Duration,
    /// A ready worker that is silent for this long hangs; `None` expects no heartbeat.
    pub heartbeat: Option<Duration>,
    /// How many slots a rollout relieves at a time.
    pub surge: u16,
    /// How many of a hundred connections the first newcomer of a rollout gets while the rollout waits; `None` if it does
    /// not wait.
    pub canary: Option<u8>,
    /// How long it waits; `None` if until the operator says so.
    pub canary_time: Option<Duration>,
}

impl Policy {
    /// Returns how many lanes an app of so many slots is to have: who is relieved keeps its lane until it is gone, and one
    /// that will not end is in nobody's way.
    #[must_use]
    pub fn lanes_wanted(&self, slots: u16) -> u16 {
        slots.saturating_add(self.surge.min(slots)).saturating_add(1).min(super::MAX_LANES)
    }
}

impl Default for Policy {
    /// The defaults of the configuration file.
    fn default() -> Self {
        Self {
            slots: 1,
            ready_timeout: Duration::from_secs(30),
            settle: Duration::from_secs(1),
            ready_min: None,
            drain: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(10),
            min_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            limit_count: 5,
            limit_within: Duration::from_secs(30),
            heartbeat: None,
            surge: 1,
            canary: None,
            canary_time: None,
        }
    }
}
