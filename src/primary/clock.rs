//! The one clock.

use crate::core::Time;
use crate::sys::process::monotonic_nanos;
use std::time::Duration;

/// Returns the present moment.
pub(super) fn now() -> Time {
    Time::from_nanos(monotonic_nanos())
}

/// Returns the present moment in microseconds since 1970, for what people compare with the journal.
pub(super) fn wall_usec() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Sleeps until `due`; for ever without one.
pub(super) async fn sleep_until(due: Option<Time>) {
    match due {
        // A millisecond more, for the timer counts in those: waking early would only mean waking again.
        Some(due) => tokio::time::sleep(due.since(now()) + Duration::from_millis(1)).await,
        None => std::future::pending().await,
    }
}
