//! Whether systemd has the units, whose they are, and how they stand.

use super::super::facts::{Content, Facts, Primary};
use super::super::finding::Finding;
use super::super::unit::Unit;
use crate::config::units::Scope;

const ABOUT: &str = "units";

/// Everything about the two units.
pub(super) fn units(facts: &Facts) -> Vec<Finding> {
    if let Err(reason) = &facts.systemd {
        return vec![without_systemd(facts, reason)];
    }
    if let (Some(shown), Primary::Runs { .. }) = (facts.shown(), &facts.primary)
        && shown.app.primary.unit.is_none()
    {
        let text =
            "it was started by hand: nobody starts it again when it dies, or with the machine";
        return vec![Finding::warning(ABOUT, text)];
    }
    let masked = masked(facts);
    if !masked.is_empty() {
        return masked;
    }
    let Some(service) = facts.loaded_service() else { return vec![missing(facts)] };
    let mut all = vec![];
    all.extend(refused(facts, service));
    all.extend(overridden(facts, service));
    all.extend(outdated(facts, service));
    all.extend(standing(facts, service));
    if all.is_empty() {
        let whose = if is_generated(service) { "made from the file" } else { "made by hand" };
        let state = service.get("ActiveState");
        all.push(Finding::ok(ABOUT, format!("{}, {whose}, {state}", facts.service_name())));
    }
    all
}

/// Whether the generator made it.
pub(super) fn is_generated(unit: &Unit) -> bool {
    unit.get("UnitFileState") == "generated" || unit.get("FragmentPath").contains("/generator")
}

fn without_systemd(facts: &Facts, reason: &str) -> Finding {
    match facts.primary {
        Primary::Runs { .. } => {
            Finding::warning(ABOUT, format!("{reason}: nobody starts it again when it dies"))
        }
        Primary::Silent(_) | Primary::Absent => Finding::unknown(ABOUT, reason),
    }
}

/// What nobody may start, which is asked first: what is masked has lost its file, too.
fn masked(facts: &Facts) -> Vec<Finding> {
    let units = [(&facts.service, facts.service_name()), (&facts.socket, facts.socket_name())];
    let is_masked = |unit: &&Unit| {
        matches!(unit.get("UnitFileState"), "masked" | "masked-runtime")
            || unit.get("LoadState") == "masked"
    };
    let finding = |(unit, name): &(&Option<Unit>, String)| {
        let unit = unit.as_ref().filter(is_masked)?;
        let path = unit.get("FragmentPath");
        let is_until_boot = match unit.get("UnitFileState") {
            "masked" => false,
            "masked-runtime" => true,
            _ => path.starts_with("/run/") && !path.contains("/generator"),
        };
        let runtime = if is_until_boot { "--runtime " } else { "" };
        let runs = if unit.is_active() {
            "it runs, and cannot be started again"
        } else {
            "it cannot be started"
        };
        Some(
            Finding::problem(ABOUT, format!("{name} is masked: {runs}"))
                .remedy(format!("'{} unmask {runtime}{name}'", facts.systemctl())),
        )
    };
    units.iter().filter_map(finding).collect()
}

/// Why there are no units.
fn missing(facts: &Facts) -> Finding {
    let (path, systemctl) = (facts.path(), facts.systemctl());
    if let Some(finding) = said_of_file(facts) {
        return finding;
    }
    if facts.plan.without {
        let text = "there are none: the file names no address to listen on, and nobody has made them by hand";
        return Finding::problem(ABOUT, text).remedy(format!(
            "write 'listen = [\"8080\"]' into '{path}', then '{systemctl} daemon-reload'"
        ));
    }
    let text = "there are none yet";
    match (facts.plan.units.is_some(), facts.has_generator) {
        (true, true) => {
            Finding::problem(ABOUT, text).remedy(format!("'{systemctl} daemon-reload'"))
        }
        (true, false) => {
            let folder = match facts.scope {
                Scope::System => "system-generators",
                Scope::User => "user-generators",
            };
            let text = "there are none: systemd does not know dogwatch's generator";
            Finding::problem(ABOUT, text).remedy(format!(
                "'ln -s /usr/bin/dogwatch /usr/lib/systemd/{folder}/dogwatch-generator', then '{systemctl} daemon-reload'"
            ))
        }
        (false, _) if is_unreadable(facts) => Finding::unknown(
            ABOUT,
            "there are none, and you cannot read the file to make them from",
        ),
        (false, _) => Finding::problem(ABOUT, "there are none, and no file to make them from")
            .remedy("look at the file first".to_owned()),
    }
}

fn is_unreadable(facts: &Facts) -> bool {
    facts.file.as_ref().is_some_and(|file| matches!(file.content, Content::Unreadable(_)))
}

/// What the generator says against the file, where that is not what was said of the file already.
fn said_of_file(facts: &Facts) -> Option<Finding> {
    let refused = facts.plan.refused.as_ref()?;
    let (path, systemctl) = (facts.path(), facts.systemctl());
    match facts.file.as_ref().map(|file| &file.content) {
        Some(Content::Wrong(..)) => {
            let text = "there are none, and will be none before the file is good";
            return Some(
                Finding::problem(ABOUT, text)
                    .remedy(format!("mend the file, then '{systemctl} daemon-reload'")),
            );
        }
        Some(Content::Unreadable(_) | Content::Missing) => return None,
        Some(Content::Good(..)) | None => {}
    }
    let is_about_line = refused.message.starts_with(&format!("{path}:"));
    let remedy = match &refused.hint {
        Some(hint) => format!("{hint}, then '{systemctl} daemon-reload'"),
        None if is_about_line => format!("mend that line, then '{systemctl} daemon-reload'"),
        None => format!("mend the file, then '{systemctl} daemon-reload'"),
    };
    let instead = if refused.keeps_units { "it keeps those it has" } else { "it gets none" };
    Some(Finding::problem(ABOUT, format!("{}; {instead}", refused.message)).remedy(remedy))
}

/// An app that is there keeps its units when its file becomes bad.
fn refused(facts: &Facts, service: &Unit) -> Option<Finding> {
    let is_wrong =
        facts.file.as_ref().is_some_and(|file| matches!(file.content, Content::Wrong(..)));
    if is_wrong || !is_generated(service) {
        return None;
    }
    said_of_file(facts)
}

/// Somebody's own units win over those that are made.
fn overridden(facts: &Facts, service: &Unit) -> Option<Finding> {
    if is_generated(service) || facts.plan.units.is_none() {
        return None;
    }
    let (own, path) = (service.get("FragmentPath"), facts.path());
    let text = format!(
        "'{own}' is used, and not what is made from '{path}': what that says of the units counts for nothing"
    );
    let systemctl = facts.systemctl();
    let remedy = format!(
        "'rm {own}' and '{systemctl} daemon-reload'; or take 'listen' out of the file, and nothing is made from it"
    );
    Some(Finding::warning(ABOUT, text).remedy(remedy))
}

fn outdated(facts: &Facts, service: &Unit) -> Option<Finding> {
    let socket = facts.loaded_socket();
    let is_old = |unit: &Unit| unit.get("NeedDaemonReload") == "yes";
    if !is_old(service) && !socket.is_some_and(is_old) {
        return None;
    }
    // To systemd they are as old as the file, whatever was changed in that.
    let has_more = |unit: &Unit| !unit.get("DropInPaths").is_empty();
    if facts.is_made && !has_more(service) && !socket.is_some_and(has_more) {
        return None;
    }
    let text = "something has changed since systemd has read them";
    Some(Finding::warning(ABOUT, text).remedy(format!("'{} daemon-reload'", facts.systemctl())))
}

/// How the service stands.
fn standing(facts: &Facts, service: &Unit) -> Option<Finding> {
    let (systemctl, name) = (facts.systemctl(), facts.service_name());
    let logs = format!("'dogwatch logs {}'", facts.app);
    let state = (service.get("ActiveState"), service.get("SubState"));
    let socket = facts.loaded_socket();
    let waits = socket.is_some_and(Unit::is_active);
    match state {
        ("failed", _) => {
            let text = format!("{name} has failed: {}", result(service));
            Some(Finding::problem(ABOUT, text).lines(&facts.last_lines).remedy(format!(
                "{logs} has more; when it is mended, '{systemctl} restart {name}'"
            )))
        }
        _ if is_looping(facts, service) => {
            let times = match service.number("NRestarts") {
                None | Some(0) => String::new(),
                Some(1) => ", 1 time so far".to_owned(),
                Some(times) => format!(", {times} times so far"),
            };
            let why = match result(service) {
                why if why == "success" => String::new(),
                why => format!(": {why}"),
            };
            let text = format!("{name} fails and is started again{times}{why}");
            Some(
                Finding::problem(ABOUT, text)
                    .lines(&facts.last_lines)
                    .remedy(format!("{logs} has more; it is tried again by itself")),
            )
        }
        ("inactive", _) if waits => None,
        ("inactive", _) => {
            let socket = socket.map_or_else(String::new, |_| format!("{} ", facts.socket_name()));
            Some(
                Finding::warning(
                    ABOUT,
                    format!("{name} does not run, and nobody waits for connections"),
                )
                .remedy(format!("'{systemctl} start {socket}{name}'")),
            )
        }
        ("active" | "reloading" | "refreshing", _) if service.get("LoadState") != "loaded" => {
            let text = format!("{name} runs, and systemd has no unit for it any more");
            Some(Finding::problem(ABOUT, text).remedy(format!(
                "put the file back and '{systemctl} daemon-reload'; to end the app, '{systemctl} stop {} {name}'",
                facts.socket_name()
            )))
        }
        _ => None,
    }
}

/// Whether it fails whenever it is started. Between two tries systemd forgets how the last one ended: of a start that is
/// under way, only the number of those before it tells.
fn is_looping(facts: &Facts, service: &Unit) -> bool {
    let has_failed = !matches!(service.get("Result"), "success" | "");
    let was_restarted = service.number("NRestarts").is_some_and(|times| times > 1);
    let is_absent = matches!(facts.primary, Primary::Absent);
    match service.get("ActiveState") {
        _ if service.get("SubState").starts_with("auto-restart") => true,
        "deactivating" => has_failed,
        "activating" => has_failed || was_restarted && is_absent,
        _ => false,
    }
}

/// How the last process of a service ended (`systemd.exec(5)`, "Process Exit Codes").
fn result(service: &Unit) -> String {
    let status = service.get("ExecMainStatus");
    match (service.get("Result"), status) {
        ("exit-code", "200") => "its directory cannot be entered (200/CHDIR)".to_owned(),
        ("exit-code", "203") => "dogwatch cannot be executed (203/EXEC)".to_owned(),
        ("exit-code", "216") => "there is no such group (216/GROUP)".to_owned(),
        ("exit-code", "217") => "there is no such user (217/USER)".to_owned(),
        ("exit-code", "226") => "its sandbox cannot be built (226/NAMESPACE)".to_owned(),
        ("exit-code" | "success", status) if status != "0" => {
            format!("it exited with status {status}")
        }
        ("resources", _) => "systemd could not get what it needs".to_owned(),
        (result, _) => result.to_owned(),
    }
}
