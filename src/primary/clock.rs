//! The one clock.

use crate::core::Time;
use crate::sys::process::monotonic_nanos;
use std::time::Duration;

/// Returns the present moment.
pub(super) fn now() -> Time {
    Time::from_nanos(monotonic_nanos())
}

/// Sleeps until `due`; for ever without one.
pub(super) async fn sleep_until(due: Option<Time>) {
    match due {
        // A millisecond more, for the timer counts in those: waking early would only mean waking again.
        Some(due) => tokio::time::sleep(due.since(now()) + Duration::from_millis(1)).await,
        None => std::future::pending().await,
    }
}
