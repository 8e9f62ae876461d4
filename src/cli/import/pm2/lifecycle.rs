//! When a worker is ready, how it is stopped, and when it is started again.

use super::attributes::App;
use super::command::Runs;
use crate::cli::draft::{Draft, Table};
use crate::cli::place::Place;
use crate::cli::trouble::Unusable;
use crate::config::values::{StopSignal, Time};
use crate::core::Policy;
use std::time::Duration;

/// Where PM2's own back-off ends.
const LONGEST_DELAY: Duration = Duration::from_secs(15);

/// How many quick exits PM2 takes before it gives up, and what is quick, unless it was told.
const MAX_RESTARTS: u32 = 16;
const MIN_UPTIME: Duration = Duration::from_secs(1);

/// Nobody waits longer for the end of a crash loop.
const LONGEST_LOOP: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Writes `[ready]`, `[stop]` and `[restart]`.
///
/// # Errors
/// When an attribute is of the wrong kind.
pub(super) fn lifecycle(
    app: &mut App,
    runs: Runs,
    place: &Place,
    draft: &mut Draft,
) -> Result<(), Unusable> {
    ready(app, runs, draft)?;
    stop(app, runs, place, draft)?;
    restart(app, draft)
}

fn ready(app: &mut App, runs: Runs, draft: &mut Draft) -> Result<(), Unusable> {
    if runs == Runs::Bun {
        draft.set(Table::Ready, "when", "alive:2s");
    }
    match app.flag("wait_ready") {
        Some(true) if runs.has_channel() => draft.set(Table::Ready, "when", "message"),
        Some(true) => {
            draft.remark(
                "wait_ready",
                "only Node has the channel for it; 'READY=1' (sd_notify(3)) is for all",
            );
        }
        Some(false) => draft.anyway("wait_ready = false"),
        None => {}
    }
    if app.is_given("listen_timeout") {
        match app.time("listen_timeout")? {
            Some(time) => {
                draft.set(Table::Ready, "timeout", written(time));
                let text = "a worker that is not ready by then has failed, and a reload goes back; PM2 goes on";
                draft.remark_at(Table::Ready, "timeout", "listen_timeout", text);
            }
            None => draft.anyway("listen_timeout = 0"),
        }
    }
    Ok(())
}

fn stop(app: &mut App, runs: Runs, place: &Place, draft: &mut Draft) -> Result<(), Unusable> {
    signal(app, runs, place, draft)?;
    if app.is_given("kill_timeout") {
        match app.time("kill_timeout")? {
            Some(time) => {
                draft.set(Table::Stop, "timeout", written(time));
                let text = if runs.has_channel() {
                    "from the signal to SIGKILL; before it, 'drain' (30s) is for the requests that it has"
                } else {
                    "SIGKILL comes after 'drain' (30s), which is for the requests that it has, and this"
                };
                draft.note(Table::Stop, "timeout", text);
            }
            None => draft.anyway("kill_timeout = 0"),
        }
    }
    match app.flag("shutdown_with_message") {
        Some(true) if runs.has_channel() => draft.set(Table::Stop, "message", "shutdown"),
        Some(true) => draft.remark("shutdown_with_message", "only Node has the channel for it"),
        Some(false) => draft.anyway("shutdown_with_message = false"),
        None => {}
    }
    match app.flag("treekill") {
        Some(true) => draft.anyway("treekill = true"),
        Some(false) => {
            let text = "what a worker leaves in its process group is ended too; a child that is to live on is a unit of its own";
            draft.remark("treekill", text);
        }
        None => {}
    }
    Ok(())
}

/// Writes the signal that PM2 sends.
fn signal(app: &App, runs: Runs, place: &Place, draft: &mut Draft) -> Result<(), Unusable> {
    let told = place.kill_signal.as_deref();
    if let Some(name) = told {
        let signal = name.parse::<StopSignal>();
        let signal = signal.map_err(|e| app.refuse("PM2_KILL_SIGNAL", &e.to_string()))?;
        draft.set(Table::Stop, "signal", signal.0.as_str());
        draft.note(Table::Stop, "signal", "by PM2_KILL_SIGNAL");
    } else if runs != Runs::Shell {
        // A shell that is told SIGINT waits for its child, which is told nothing; it ends at the usual SIGTERM.
        draft.set(Table::Stop, "signal", "SIGINT");
        draft.note(Table::Stop, "signal", "as PM2 stops programs; leave it out for SIGTERM");
    }
    Ok(())
}

fn restart(app: &mut App, draft: &mut Draft) -> Result<(), Unusable> {
    let mut policy = Policy::default();
    delays(app, &mut policy, draft)?;
    let (restarts, uptime) = (app.is_given("max_restarts"), app.is_given("min_uptime"));
    let count = app.whole("max_restarts")?.unwrap_or(i64::from(MAX_RESTARTS));
    let quick = app.time("min_uptime")?.unwrap_or(MIN_UPTIME);
    if !restarts && !uptime {
        return Ok(());
    }
    let reason = format!("expected a number from 0 up, found {count}");
    let count = u32::try_from(count).map_err(|_| app.refuse("max_restarts", &reason))?;
    // To PM2, none means: not once.
    let count = count.max(1);
    let within = crash_loop(&policy, count, quick);
    let limit = [
        ("count".to_owned(), toml::Value::from(i64::from(count))),
        ("within".to_owned(), toml::Value::from(written(within))),
    ];
    draft.set(Table::Restart, "start-limit", toml::Table::from_iter(limit));
    let text = format!(
        "time for {count} failures in a row, their delays included; then the slot is given up, the others serve on"
    );
    draft.note(Table::Restart, "start-limit", text);
    Ok(())
}

/// Writes the delays between starts.
fn delays(app: &mut App, policy: &mut Policy, draft: &mut Draft) -> Result<(), Unusable> {
    let fixed = app.is_given("restart_delay").then(|| app.time("restart_delay")).transpose()?;
    let grows = app.is_given("exp_backoff_restart_delay");
    let grows = grows.then(|| app.time("exp_backoff_restart_delay")).transpose()?;
    let (is_fixed, min, max) = match (grows.flatten(), fixed.flatten()) {
        (Some(min), _) => (false, min, min.max(LONGEST_DELAY)),
        (None, Some(delay)) => (true, delay, delay),
        (None, None) => {
            for (name, time) in [("restart_delay", fixed), ("exp_backoff_restart_delay", grows)] {
                if time.is_some() {
                    draft.remark(
                        name,
                        "only the first restart is at once, later ones wait 100ms and longer",
                    );
                }
            }
            return Ok(());
        }
    };
    if grows.is_some() && fixed.is_some() {
        draft.remark("restart_delay", "PM2 prefers exp_backoff_restart_delay");
    }
    (policy.min_delay, policy.max_delay) = (min, max);
    draft.set(Table::Restart, "min-delay", written(min));
    draft.set(Table::Restart, "max-delay", written(max));
    if is_fixed {
        let text = "the first restart is at once, only those after it wait";
        draft.remark_at(Table::Restart, "min-delay", "restart_delay", text);
    } else {
        let text = "the first restart is at once; then each delay is twice the last one, where PM2's is 1.5 times";
        draft.note(Table::Restart, "min-delay", text);
    }
    Ok(())
}

/// How long so many failures in a row take, each after a life of `quick` and held back as the policy says: the delays grow,
/// and a limit within PM2's time would never be reached.
fn crash_loop(policy: &Policy, count: u32, quick: Duration) -> Duration {
    let mut whole = quick.saturating_mul(count);
    let mut delay = policy.min_delay;
    for left in (0..count.saturating_sub(2)).rev() {
        whole = whole.saturating_add(delay);
        if delay >= policy.max_delay {
            whole = whole.saturating_add(delay.saturating_mul(left));
            break;
        }
        delay = delay.saturating_mul(2).min(policy.max_delay);
    }
    Duration::from_secs(whole.min(LONGEST_LOOP).as_secs() + 1)
}

fn written(time: Duration) -> String {
    Time(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_is_as_long_as_its_delays() {
        let policy = Policy::default();
        let seconds = |count, quick| crash_loop(&policy, count, quick).as_secs();
        assert_eq!(seconds(1, Duration::from_secs(1)), 2);
        // 100, 200, ... 12800 ms, and ten lives of a second.
        assert_eq!(seconds(10, Duration::from_secs(1)), 25 + 10 + 1);
        assert_eq!(seconds(13, Duration::ZERO), 51 + 30 + 30 + 1);
        assert_eq!(seconds(u32::MAX, Duration::from_secs(1)), LONGEST_LOOP.as_secs() + 1);
    }
}
