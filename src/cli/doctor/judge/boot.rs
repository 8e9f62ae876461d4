//! Whether it will be there after the next boot.

use super::super::facts::Facts;
use super::super::finding::Finding;
use super::super::unit::Unit;
use super::units::is_generated;
use crate::config::units::Scope;

/// Whether something starts it with the machine.
pub(super) fn boot(facts: &Facts) -> Option<Finding> {
    let about = "boot";
    let service = facts.loaded_service().filter(|unit| unit.get("LoadState") == "loaded")?;
    let socket = facts.loaded_socket();
    let wanted =
        |unit: &Unit| !unit.get("WantedBy").is_empty() || unit.get("UnitFileState") == "enabled";
    let with = match facts.scope {
        Scope::System => "the machine",
        Scope::User => "your manager",
    };
    if wanted(service) {
        return Some(Finding::ok(about, format!("it starts with {with}")));
    }
    if socket.is_some_and(wanted) {
        let text =
            format!("its socket listens from the start of {with}, the first connection starts it");
        return Some(Finding::ok(about, text));
    }
    let text = format!("nothing starts it with {with}");
    let systemctl = facts.systemctl();
    let remedy = if is_generated(service) {
        format!("write 'enabled = true' into '{}', then '{systemctl} daemon-reload'", facts.path())
    } else {
        let socket = socket.map_or_else(String::new, |_| format!("{} ", facts.socket_name()));
        format!("'{systemctl} enable {socket}{}'", facts.service_name())
    };
    Some(Finding::warning(about, text).remedy(remedy))
}

/// Whether a user's own manager outlives the login.
pub(super) fn lingering(facts: &Facts) -> Option<Finding> {
    if facts.scope == Scope::System || facts.systemd.is_err() {
        return None;
    }
    let about = "linger";
    Some(match facts.lingers {
        Some(true) => Finding::ok(about, "your manager is there without a login"),
        Some(false) => {
            Finding::problem(about, "your manager ends with your last session, and the app with it")
                .remedy("'loginctl enable-linger'")
        }
        None => Finding::unknown(
            about,
            "loginctl does not say whether your manager outlives your login",
        ),
    })
}
