//! Named points at which a test kills the primary, to see that the next one goes on. Debug builds only; in others there
//! is nothing.

/// Dies here by SIGKILL if `DOGWATCH_CRASH_AT` says so: `NAME`, or `NAME:3` for the third time that it comes by.
#[cfg(debug_assertions)]
pub(in super::super) fn point(name: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static PASSED: AtomicU32 = AtomicU32::new(0);
    let Some(at) = std::env::var_os("DOGWATCH_CRASH_AT") else { return };
    let at = at.to_string_lossy();
    let (wanted, times) = at.split_once(':').unwrap_or((&at, "1"));
    if wanted == name && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == times.parse().unwrap_or(1) {
        crate::sys::process::signal(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(not(debug_assertions))]
pub(in super::super) fn point(_name: &str) {}
