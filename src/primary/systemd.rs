//! What the primary tells its service manager (`sd_notify(3)`), through the sd-notify crate. Without `NOTIFY_SOCKET`
//! nothing is sent and nobody misses it.

use crate::core::{Report, Time};
use sd_notify::NotifyState;
use std::time::Duration;

/// A deadline is moved this much further than what is waited for, so that the wait's own failure comes first.
const SLACK: Duration = Duration::from_secs(15);

/// The primary's side of the notify protocol, and what was said last.
#[derive(Debug, Default)]
pub(super) struct Manager {
    started: bool,
    reloading: bool,
    status: String,
    /// Until when systemd was asked to be patient.
    patient_until: Time,
}

impl Manager {
    /// Says what a report means to systemd.
    pub(super) fn report(&mut self, report: &Report) {
        match report {
            Report::Started { .. } => {
                self.started = true;
                send(&[NotifyState::Ready]);
            }
            Report::Reloading { .. } => self.reloading(),
            Report::Reloaded { .. } | Report::RolledBack { .. } => self.reloaded(),
            Report::Stopping { .. } => send(&[NotifyState::Stopping]),
            Report::Ready { .. }
            | Report::Failed { .. }
            | Report::Gone { .. }
            | Report::Killed { .. }
            | Report::Queued { .. }
            | Report::Scaled { .. } => {}
        }
    }

    /// A reload begins. Not before READY=1 was said: systemd then waits for the start, not for a reload.
    pub(super) fn reloading(&mut self) {
        if self.started && !std::mem::replace(&mut self.reloading, true) {
            match NotifyState::monotonic_usec_now() {
                // Type=notify-reload takes RELOADING=1 only with the moment in the same message.
                Ok(now) => send(&[NotifyState::Reloading, now]),
                Err(_) => send(&[NotifyState::Reloading]),
            }
        }
    }

    /// A reload has ended, well or not: systemd must never be left waiting for READY=1.
    pub(super) fn reloaded(&mut self) {
        if std::mem::take(&mut self.reloading) {
            send(&[NotifyState::Ready]);
        }
    }

    /// Says the state of the whole, if it has changed.
    pub(super) fn status(&mut self, status: String) {
        if self.status != status {
            send(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// Asks systemd to wait until `due`, which is when what is under way will have succeeded or failed.
    pub(super) fn extend(&mut self, due: Option<Time>, now: Time) {
        let Some(until) = due.map(|due| due + SLACK).filter(|until| *until > self.patient_until) else { return };
        if let Ok(usec) = u32::try_from(until.since(now).as_micros()) {
            send(&[NotifyState::ExtendTimeoutUsec(usec)]);
            // Not again for every little step: a third of the slack is enough of a difference.
            self.patient_until = until + SLACK / 3;
        }
    }

    /// Says that the primary is alive.
    pub(super) fn heartbeat(&self) {
        send(&[NotifyState::Watchdog]);
    }
}

/// Returns how often to say so: half of what systemd expects; `None` if it expects nothing.
pub(super) fn heartbeat_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|interval| interval / 2).filter(|half| !half.is_zero())
}

fn send(what: &[NotifyState<'_>]) {
    // A manager that is gone or restarting is no reason to fail: the next state change is said again.
    let _ = sd_notify::notify(what);
}
