//! How it serves: slots, settings in force, balance, and the last failure.

use super::super::facts::{Facts, Primary};
use super::super::finding::Finding;
use super::super::unit::Unit;
use crate::cli::text;
use crate::protocol::control::{AppState, Change, Slot, SlotState};

/// Whether every slot is served. `is_well` says that no problem was found before.
pub(super) fn running(facts: &Facts, is_well: bool) -> Vec<Finding> {
    let about = "serving";
    let shown = match &facts.primary {
        Primary::Runs { shown, .. } => shown,
        Primary::Silent(reason) if facts.is_root => {
            let text = format!("somebody is there: {reason}");
            let logs = format!("'dogwatch logs {}' says what it did last", facts.app);
            return vec![Finding::problem(about, text).remedy(logs)];
        }
        Primary::Silent(reason) => return vec![Finding::unknown(about, reason)],
        Primary::Absent => return absent(facts, is_well).into_iter().collect(),
    };
    let app = &facts.app;
    let mut all: Vec<Finding> =
        shown.app.slots.iter().filter_map(|slot| of_slot(app, slot)).collect();
    if shown.app.state == AppState::Paused {
        all.push(
            Finding::warning(about, "it is paused: connections wait")
                .remedy(format!("'dogwatch resume {app}'")),
        );
    }
    if all.is_empty() {
        all.push(Finding::ok(about, &shown.app.status));
    }
    all
}

/// Of an app that does not run; nothing where its units say so, or what keeps it from being started was said.
fn absent(facts: &Facts, is_well: bool) -> Option<Finding> {
    let about = "serving";
    let state = facts.loaded_service().map_or("", |service| service.get("ActiveState"));
    match state {
        _ if !is_well => None,
        "inactive" if facts.loaded_socket().is_some_and(Unit::is_active) => {
            Some(Finding::ok(about, "it does not run: the first connection starts it"))
        }
        "activating" => Some(Finding::ok(about, "it is being started")),
        "deactivating" => Some(Finding::ok(about, "it is being stopped")),
        "inactive" | "failed" => None,
        "" => Some(Finding::warning(about, "it does not run, and nobody waits for connections")),
        _ => Some(Finding::unknown(about, "systemd says that it runs, and nobody answers")),
    }
}

fn of_slot(app: &str, slot: &Slot) -> Option<Finding> {
    let number = slot.slot;
    match slot.state {
        SlotState::Ready | SlotState::Starting => None,
        SlotState::Stopped => Some(
            Finding::warning("serving", format!("slot {number} was stopped by hand"))
                .remedy(format!("'dogwatch start {app}/{number}'")),
        ),
        SlotState::Waiting => {
            let text = format!(
                "slot {number} has failed {} times in a row, and is tried again",
                slot.failures
            );
            let remedy = format!("'dogwatch logs {app}/{number}' says why");
            Some(Finding::problem("serving", text).remedy(remedy))
        }
        SlotState::Failed => {
            let reason = slot.reason.as_deref().unwrap_or("failed");
            let text = format!("slot {number} was given up: its worker {reason}");
            let remedy =
                format!("mend what fails, then 'dogwatch reset {app}/{number}', or reload");
            Some(Finding::problem("serving", text).remedy(remedy))
        }
    }
}

/// Whether a reload would change something, or be refused.
pub(super) fn settings(facts: &Facts) -> Option<Finding> {
    let about = "settings";
    let Primary::Runs { reload: Some(reload), .. } = &facts.primary else { return None };
    // Why it would be refused is said of the file, or of the start.
    let Ok(changes) = reload else { return None };
    // A socket keeps its address whatever is reloaded.
    let changed: Vec<&Change> = changes.iter().filter(|change| change.key != "listen").collect();
    if changed.is_empty() {
        return facts.file.is_some().then(|| Finding::ok(about, "what the file says is in force"));
    }
    let names: Vec<String> =
        changed.iter().take(5).map(|change| format!("'{}'", change.key)).collect();
    let more = if changed.len() > 5 { " and more" } else { "" };
    let text = format!("the file says otherwise than what is in force: {}{more}", names.join(", "));
    Some(Finding::warning(about, text).remedy(format!("'dogwatch reload {}'", facts.app)))
}

/// Whether connections are dealt as they were to be.
pub(super) fn balance(facts: &Facts) -> Option<Finding> {
    let balance = facts.shown()?.app.balance.as_ref()?;
    if balance.asked == balance.in_force {
        return Some(Finding::ok("balance", &balance.in_force));
    }
    let why = balance.why.as_deref().map_or_else(String::new, |why| format!(": {why}"));
    let text =
        format!("'{}' was asked for, and '{}' is done{why}", balance.asked, balance.in_force);
    let is_generated = facts.loaded_service().is_some_and(super::units::is_generated);
    let remedy = if facts.is_made || is_generated {
        format!(
            "{}, if it was not stopped since the file asks for that; else this machine, or the container that it is, forbids \
             bpf(2): see docs/balance.md",
            super::sockets::anew(facts)
        )
    } else {
        "it takes CAP_BPF, sockets enough and system calls: see docs/balance.md".to_owned()
    };
    Some(Finding::warning("balance", text).remedy(remedy))
}

/// What failed last, and whether that is over.
pub(super) fn failure(facts: &Facts) -> Option<Finding> {
    let about = "failure";
    let shown = facts.shown()?;
    let Some(failure) = &shown.last_failure else {
        return Some(Finding::ok(about, "none that it remembers"));
    };
    let text = format!(
        "{}: worker {} (slot {}, generation {}) {}",
        text::moment(failure.time_usec),
        failure.worker,
        failure.slot,
        failure.generation,
        failure.reason
    );
    // A generation's number is never used again.
    if failure.generation <= shown.app.generation {
        let all_serve = shown.app.slots.iter().all(|slot| slot.state == SlotState::Ready);
        // Whatever slot does not serve has its own line.
        let (over, lines) =
            if all_serve { ("; that is over", &[][..]) } else { ("", &*failure.lines) };
        return Some(Finding::ok(about, format!("{text}{over}")).lines(lines));
    }
    let text =
        format!("the last reload was rolled back to generation {}; {text}", shown.app.generation);
    let mend = format!("mend it, then 'dogwatch reload {}'", facts.app);
    let remedy = failure.hint.as_ref().map_or(mend.clone(), |hint| format!("{hint}; {mend}"));
    Some(Finding::problem(about, text).lines(&failure.lines).remedy(remedy))
}
