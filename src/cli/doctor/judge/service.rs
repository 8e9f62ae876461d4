//! What the unit promises: what is lost where it says something else than the shipped one.

use super::super::facts::Facts;
use super::super::finding::Finding;
use super::super::unit::Unit;
use crate::config::typed::Sandbox;
use crate::config::units::Scope;
use crate::primary;
use std::time::Duration;

/// More exposed than this is worth a word; the shipped unit has 1.9 at most.
const EXPOSED: f64 = 2.0;

/// A primary is busy for less than this, and answers systemd in less.
const SHORT: Duration = Duration::from_secs(5);

/// What a setting should be, and what is lost otherwise.
struct Promise {
    key: &'static str,
    is_kept: fn(&Facts, &Unit) -> bool,
    lost: &'static str,
    line: &'static str,
}

const PROMISES: [Promise; 13] = [
    Promise {
        key: "Type",
        is_kept: |_, unit| matches!(unit.get("Type"), "notify" | "notify-reload"),
        lost: "systemd takes it for started before anybody serves",
        line: "Type=notify",
    },
    Promise {
        key: "NotifyAccess",
        is_kept: |_, unit| unit.get("NotifyAccess") != "none",
        lost: "nothing that the primary says is heard, and the FD store stays empty",
        line: "NotifyAccess=main",
    },
    Promise {
        key: "KillMode",
        is_kept: |_, unit| unit.get("KillMode") == "process",
        lost: "when the primary dies, systemd ends all workers, and their connections with them",
        line: "KillMode=process",
    },
    Promise {
        key: "Restart",
        is_kept: |_, unit| matches!(unit.get("Restart"), "always" | "on-failure" | "on-abnormal"),
        lost: "a primary that dies is not started again",
        line: "Restart=always",
    },
    Promise {
        key: "StartLimitIntervalUSec",
        is_kept: |_, unit| unit.span("StartLimitIntervalUSec").is_some_and(|time| time.is_zero()),
        lost: "after a few failures in a row it is given up, and connections are refused",
        line: "StartLimitIntervalSec=0 (in [Unit])",
    },
    Promise {
        key: "Delegate",
        is_kept: |_, unit| unit.get("Delegate") == "yes",
        lost: "workers have no control groups of their own: what they start and leave behind is not ended",
        line: "Delegate=yes",
    },
    Promise {
        key: "WatchdogUSec",
        // Before the first start it is not known.
        is_kept: |_, unit| !unit.is_active() || !watchdog(unit).is_zero(),
        lost: "a primary that hangs is not replaced",
        line: "WatchdogSec=30",
    },
    Promise {
        key: "WatchdogUSec",
        is_kept: |_, unit| watchdog(unit).is_zero() || watchdog(unit) >= Duration::from_secs(2),
        lost: "on a busy machine a primary is killed that is well",
        line: "WatchdogSec=30",
    },
    Promise {
        key: "NonBlocking",
        is_kept: |facts, unit| wants_blocking(facts) || unit.get("NonBlocking") == "yes",
        lost: FLAG_CHANGED,
        line: "NonBlocking=yes",
    },
    Promise {
        key: "NonBlocking",
        is_kept: |facts, unit| !wants_blocking(facts) || unit.get("NonBlocking") != "yes",
        lost: FLAG_CHANGED,
        line: "NonBlocking=no",
    },
    // The primary asks for more as soon as it has begun (EXTEND_TIMEOUT_USEC= in sd_notify(3)).
    Promise {
        key: "TimeoutStartUSec",
        is_kept: |_, unit| is_long(unit, "TimeoutStartUSec"),
        lost: "a start may be over before the primary can ask for more time",
        line: "TimeoutStartSec=60",
    },
    Promise {
        key: "TimeoutStopUSec",
        is_kept: |_, unit| is_long(unit, "TimeoutStopUSec"),
        lost: "a stop may be over before the primary can ask for the time that workers have to finish",
        line: "TimeoutStopSec=60",
    },
    Promise {
        key: "TimeoutStopUSec",
        is_kept: |_, unit| unit.get("TimeoutStopUSec") != "infinity",
        lost: "a primary that hangs at the stop is waited for until the machine is switched off",
        line: "TimeoutStopSec=60",
    },
];

const FLAG_CHANGED: &str = "whenever the primary is started, workers find the sockets' flag changed until it has mended it";

fn watchdog(unit: &Unit) -> Duration {
    unit.span("WatchdogUSec").unwrap_or_default()
}

fn is_long(unit: &Unit, key: &str) -> bool {
    unit.get(key) == "infinity" || unit.span(key).is_none_or(|time| time >= SHORT)
}

fn wants_blocking(facts: &Facts) -> bool {
    facts.settings().is_some_and(|settings| settings.blocking)
}

/// The settings of the service, one finding for each that weakens a promise.
pub(super) fn promises(facts: &Facts) -> Vec<Finding> {
    let Some(service) = facts.loaded_service().filter(|unit| unit.get("LoadState") == "loaded")
    else {
        return vec![];
    };
    let mut all: Vec<Finding> = PROMISES
        .iter()
        .filter(|promise| !(promise.is_kept)(facts, service))
        .map(|promise| broken(facts, service, promise))
        .collect();
    all.extend(facts.loaded_socket().and_then(|socket| patience(facts, socket)));
    if all.is_empty() {
        all.push(Finding::ok("service", "watchdog, timeouts and the rest are as they should be"));
    }
    all
}

fn broken(facts: &Facts, unit: &Unit, promise: &Promise) -> Finding {
    let Promise { key, lost, line, .. } = promise;
    let value = match unit.get(key) {
        "" => "nothing",
        value => value,
    };
    // As people write it, not as it is kept.
    let name = key.replace("USec", "Sec");
    Finding::warning("service", format!("{name}={value}: {lost}"))
        .remedy(format!("{line}, where {} says otherwise", whence(facts, unit)))
}

/// Where a unit's settings are written that are not the shipped ones.
fn whence(facts: &Facts, unit: &Unit) -> String {
    let drop_ins = unit.get("DropInPaths");
    if !drop_ins.is_empty() {
        return drop_ins.to_owned();
    }
    if super::units::is_generated(unit) {
        return format!("'{}'", facts.path());
    }
    format!("'{}'", unit.get("FragmentPath"))
}

/// A socket that gives up takes the queue away.
fn patience(facts: &Facts, socket: &Unit) -> Option<Finding> {
    let limit = socket.span("TriggerLimitIntervalUSec")?;
    if limit.is_zero() {
        return None;
    }
    let text = format!(
        "TriggerLimitIntervalSec={} in {}: when starts fail, connections are refused in the end and not kept waiting",
        socket.get("TriggerLimitIntervalUSec"),
        facts.socket_name()
    );
    let remedy =
        format!("TriggerLimitIntervalSec=0, where {} says otherwise", whence(facts, socket));
    Some(Finding::warning("service", text).remedy(remedy))
}

/// Whether there is room for everything that the next primary is to be given.
pub(super) fn store(facts: &Facts) -> Option<Finding> {
    let about = "fd store";
    let unit = facts.loaded_service().filter(|unit| unit.get("LoadState") == "loaded")?;
    let settings = facts.settings()?;
    let room = unit.number("FileDescriptorStoreMax")?;
    let maps = if settings.balance.is_steered() { 2 * settings.listen.len() } else { 0 };
    let own = if facts.loaded_socket().is_some() { 0 } else { settings.listen.len() };
    let policy = &settings.policy;
    let needed = primary::needed(policy.slots, policy.surge, own + maps);
    let used = unit.number("NFileDescriptorStore").unwrap_or(0);
    if u64::try_from(needed).is_ok_and(|needed| room >= needed) {
        return Some(Finding::ok(
            about,
            format!("{used} of {room} descriptors used, {needed} may be needed"),
        ));
    }
    let text = format!(
        "there is room for {room} descriptors, and {needed} may be needed: when the primary dies, workers that do not fit are relieved"
    );
    Some(Finding::problem(about, text).remedy(format!(
        "FileDescriptorStoreMax={needed}, where {} says otherwise, then '{} daemon-reload'",
        whence(facts, unit),
        facts.systemctl()
    )))
}

/// What the service could do if it were taken over.
pub(super) fn exposure(facts: &Facts) -> Option<Finding> {
    let about = "security";
    let is_there = facts.loaded_service().is_some_and(|unit| unit.get("LoadState") == "loaded");
    if facts.scope == Scope::User || !is_there {
        return None;
    }
    let exposure = match facts.exposure.as_ref()? {
        Ok(exposure) => exposure,
        Err(reason) => return Some(Finding::unknown(about, reason)),
    };
    let level = exposure.level;
    if level <= EXPOSED {
        return Some(Finding::ok(about, format!("exposure {level:.1} of 10")));
    }
    let is_off = facts.typed().is_some_and(|typed| typed.sandbox.off == Some(true));
    if !is_off && is_asked_for(facts) {
        let text = format!("exposure {level:.1} of 10, with what [sandbox] and [service] allow");
        return Some(Finding::ok(about, text));
    }
    let heaviest: Vec<String> =
        exposure.points.iter().take(3).map(|(name, cost)| format!("{name} {cost:.1}")).collect();
    let text = format!("exposure {level:.1} of 10, most of all by {}", heaviest.join(", "));
    let name = facts.service_name();
    let remedy = if is_off {
        format!(
            "take 'off = true' out of [sandbox] in '{}', and allow what the app needs",
            facts.path()
        )
    } else {
        format!(
            "allow less in [sandbox] of '{}', or with '{} edit {name}'; 'systemd-analyze security {name}' has all",
            facts.path(),
            facts.systemctl()
        )
    };
    Some(Finding::warning(about, text).remedy(remedy))
}

/// Whether the units are those that the file makes, and its own keys allow more than the shipped ones.
fn is_asked_for(facts: &Facts) -> bool {
    let has_more = facts.loaded_service().is_some_and(|unit| !unit.get("DropInPaths").is_empty());
    let Some(typed) = facts.typed() else { return false };
    facts.is_made
        && !has_more
        && (typed.sandbox != Sandbox::default() || !typed.service.0.is_empty())
}
