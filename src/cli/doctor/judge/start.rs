//! What a start needs: the file, the user, the directory, the program.

use super::super::facts::{Content, Facts, Primary, Step, Trial, Way};
use super::super::finding::Finding;
use crate::config::units::Scope;
use std::path::Path;

/// Whether the file is there, good, and readable for the service.
pub(super) fn file(facts: &Facts) -> Option<Finding> {
    let about = "file";
    let Some(file) = &facts.file else {
        return Some(Finding::ok(about, "none: its settings are on its command line"));
    };
    let path = file.path.display();
    Some(match &file.content {
        Content::Missing => gone(facts),
        Content::Wrong(..) if is_completed(facts) => {
            Finding::ok(about, format!("'{path}' is good, with what the command line says"))
        }
        Content::Wrong(reason, hint) => {
            let check = format!("'dogwatch check {path}' says when it is good");
            Finding::problem(about, reason).remedy(hint.clone().unwrap_or(check))
        }
        Content::Unreadable(reason) if !is_shut(facts, &file.way) => {
            Finding::unknown(about, format!("you cannot read '{path}': {reason}"))
        }
        Content::Unreadable(_) | Content::Good(..) => match file.way.closed(&facts.who) {
            Some(step) => shut_folder(about, facts, step),
            None if is_shut(facts, &file.way) => unreadable(facts),
            None => Finding::ok(about, format!("'{path}' is good")),
        },
    })
}

/// Whether the primary, which knows its own flags, could use the file as it is.
fn is_completed(facts: &Facts) -> bool {
    matches!(facts.primary, Primary::Runs { reload: Some(Ok(_)), .. })
}

fn gone(facts: &Facts) -> Finding {
    let path = facts.path();
    let is_there = facts.shown().is_some();
    let what = if is_there {
        "what runs goes on, and can neither be reloaded nor started again"
    } else {
        "it cannot be started"
    };
    let (systemctl, socket, service) =
        (facts.systemctl(), facts.socket_name(), facts.service_name());
    let text = format!("there is no '{path}': {what}");
    Finding::problem("file", text)
        .remedy(format!("put it back; to end the app, '{systemctl} stop {socket} {service}'"))
}

/// Whether the service's user cannot read the file at the end of a way.
fn is_shut(facts: &Facts, way: &Way) -> bool {
    way.end().is_some_and(|end| !facts.who.may(end, 4))
}

fn unreadable(facts: &Facts) -> Finding {
    let (path, app) = (facts.path(), &facts.app);
    let text =
        format!("{} may not read '{path}', and the primary reads it as that", facts.who.name);
    Finding::problem("file", text).remedy(format!(
        "'chmod 644 {path}'; what is secret goes into a file that only root reads, named with \
         'EnvironmentFile = \"/etc/dogwatch/{app}.env\"' in [service]: systemd reads it, at each start and not at a reload"
    ))
}

fn shut_folder(about: &'static str, facts: &Facts, step: &Step) -> Finding {
    let folder = step.path.display();
    let mode = step.mode & 0o7777;
    Finding::problem(about, format!("{} may not enter '{folder}', mode {mode:04o}", facts.who.name))
        .remedy(format!("'chmod o+x {folder}', or name a user who may: 'user = \"NAME\"'"))
}

/// Whether there is such a user.
pub(super) fn user(facts: &Facts) -> Option<Finding> {
    let Some(missing) = &facts.who.missing else {
        return Some(Finding::ok("user", format!("it runs as {}", facts.who.name)));
    };
    let name = missing.split('\'').nth(1).unwrap_or_default();
    let (kind, make) = if missing.starts_with("group") {
        ("group", format!("groupadd --system {name}"))
    } else {
        ("user", format!("useradd --system {name}"))
    };
    let text =
        format!("there is no {missing}: systemd cannot start the service (217/USER, 216/GROUP)");
    let in_file = facts.typed().is_some_and(|typed| typed.user.is_some());
    let or = if in_file && kind == "user" {
        format!(", or take 'user' out of '{}': it gets a user of its own", facts.path())
    } else {
        String::new()
    };
    Some(Finding::problem("user", text).remedy(format!("'{make}'{or}")))
}

/// Whether the service's user can be where workers run.
pub(super) fn directory(facts: &Facts) -> Option<Finding> {
    let about = "directory";
    let path = facts.settings()?.working_directory.as_ref()?;
    let way = facts.directory.as_ref()?;
    let name = path.display();
    if let Some(hider) = hidden(facts, path, way) {
        return Some(hidden_finding(about, facts, &format!("'{name}'"), hider));
    }
    if let Some(step) = way.closed(&facts.who) {
        return Some(shut_folder(about, facts, step));
    }
    Some(match &way.trouble {
        Some(reason) if way.is_denied => {
            Finding::unknown(about, format!("you cannot look at '{name}': {reason}"))
        }
        Some(reason) => Finding::problem(about, format!("cannot enter '{name}': {reason}"))
            .remedy(format!("make it, or name another in '{}'", facts.path())),
        None if way.end().is_some_and(|end| !end.is_folder) => {
            Finding::problem(about, format!("'{name}' is no directory"))
                .remedy(format!("name one in '{}'", facts.path()))
        }
        None => Finding::ok(about, format!("'{name}'")),
    })
}

/// What of the sandbox hides a path, or what a link on it leads to. Folders that only lead there may be hidden: what is
/// bound into them is seen.
fn hidden(facts: &Facts, path: &Path, way: &Way) -> Option<&'static str> {
    let steps: Vec<&Path> = way.steps.iter().map(|step| step.path.as_path()).collect();
    let leads_on = |number: usize| {
        steps[number + 1..]
            .iter()
            .any(|later| later != &steps[number] && later.starts_with(steps[number]))
    };
    let ends = (0..steps.len()).filter(|number| !leads_on(*number)).map(|number| steps[number]);
    ends.chain([path]).find_map(|path| facts.hidden_by(path))
}

fn hidden_finding(about: &'static str, facts: &Facts, what: &str, hider: &str) -> Finding {
    let (key, elsewhere) = match hider {
        "ProtectHome" => ("home = \"read-only\"", "/srv or /usr/local"),
        _ => ("tmp = true", "/srv"),
    };
    let text = format!("{what} is hidden from the service by {hider}=");
    Finding::problem(about, text).remedy(format!(
        "write '{key}' below [sandbox] in '{}', or keep it elsewhere, as in {elsewhere}",
        facts.path()
    ))
}

/// Whether the program is found where the service looks for it, and can be executed.
pub(super) fn program(facts: &Facts) -> Option<Finding> {
    let about = "program";
    let program = facts.program.as_ref()?;
    let name = &program.name;
    let found = match &program.found {
        Ok(found) => found,
        Err(reason) => {
            let text = format!("cannot find '{name}' on PATH, which is {}: {reason}", program.path);
            return Some(Finding::problem(about, text).remedy(missing_program(facts)));
        }
    };
    let shown = found.display();
    if let Some(hider) = hidden(facts, found, &program.way) {
        return Some(hidden_finding(about, facts, &format!("'{shown}'"), hider));
    }
    if let Some(step) = program.way.closed(&facts.who) {
        return Some(shut_folder(about, facts, step));
    }
    Some(match (&program.way.trouble, program.way.end(), &program.interpreter) {
        (Some(reason), _, _) if program.way.is_denied => {
            Finding::unknown(about, format!("you cannot look at '{shown}': {reason}"))
        }
        (Some(reason), _, _) => Finding::problem(about, format!("cannot find '{shown}': {reason}"))
            .remedy(missing_program(facts)),
        (None, Some(end), _) if end.is_folder || !facts.who.may(end, 1) => {
            let text = format!("{} may not execute '{shown}'", facts.who.name);
            Finding::problem(about, text).remedy(format!("'chmod a+rx {shown}'"))
        }
        (None, _, Some((interpreter, false))) => {
            let text = format!("'{shown}' is a script for '{interpreter}', which does not exist");
            Finding::problem(about, text).remedy(format!(
                "install '{interpreter}', or name another in the script's first line"
            ))
        }
        (None, _, _) => Finding::ok(about, format!("'{shown}'")),
    })
}

/// Whether the file that an interpreter is to run is there, and the service sees it and may read it.
pub(super) fn script(facts: &Facts) -> Option<Finding> {
    let about = "script";
    let script = facts.script.as_ref()?;
    let (shown, way) = (script.path.display(), &script.way);
    if let Some(hider) = hidden(facts, &script.path, way) {
        return Some(hidden_finding(about, facts, &format!("'{shown}'"), hider));
    }
    // What the unit puts there is seen by the service only.
    if facts.is_provided(&script.path) {
        return None;
    }
    if let Some(step) = way.closed(&facts.who) {
        return Some(shut_folder(about, facts, step));
    }
    Some(match (&way.trouble, way.end()) {
        (Some(reason), _) if way.is_denied => {
            Finding::unknown(about, format!("you cannot look at '{shown}': {reason}"))
        }
        (Some(reason), _) => Finding::problem(about, format!("cannot find '{shown}': {reason}"))
            .remedy(format!("put it there, or name another in 'command' in '{}'", facts.path())),
        (None, Some(end)) if !end.is_folder && !facts.who.may(end, 4) => {
            let text = format!("{} may not read '{shown}'", facts.who.name);
            Finding::problem(about, text).remedy(format!("'chmod a+r {shown}'"))
        }
        (None, _) => Finding::ok(about, format!("'{shown}'")),
    })
}

fn missing_program(facts: &Facts) -> String {
    let Some(program) = &facts.program else { return String::new() };
    let path = facts.path();
    let Some(elsewhere) = &program.elsewhere else {
        return format!("install '{}', or name it with its whole path in '{path}'", program.name);
    };
    let is_hidden = facts.scope == Scope::System && facts.hidden_by(elsewhere).is_some();
    let shown = elsewhere.display();
    if is_hidden {
        format!(
            "copy '{shown}' to /usr/local/bin; or write 'home = \"read-only\"' below [sandbox] in '{path}', and the whole path \
             into 'command'"
        )
    } else {
        format!("there is '{shown}': write that into 'command' in '{path}'")
    }
}

/// What a start, tried as the service's user, says beyond that.
pub(super) fn trial(facts: &Facts) -> Option<Finding> {
    match &facts.trial {
        Trial::None => None,
        Trial::Unknown(reason) => Some(Finding::unknown("start", reason)),
        Trial::Good(who) => {
            let what = "file, variables, directory and program can be used";
            // A primary that runs looks from within its sandbox.
            let asks_primary = matches!(facts.primary, Primary::Runs { reload: Some(_), .. });
            let where_from = if asks_primary { "" } else { ", outside its sandbox" };
            Some(Finding::ok("start", format!("{what}, tried as {who}{where_from}")))
        }
        Trial::Bad(reason, hint) => {
            let path = facts.path();
            let is_variables = reason.contains("environment file");
            let shut = reason.contains("environment file") && reason.contains("Permission denied");
            let remedy = match hint {
                Some(hint) => hint.clone(),
                None if shut => format!(
                    "make it readable for {}, or write 'EnvironmentFile = \"FILE\"' below [service] in '{path}' instead: \
                     systemd reads that as root, at each start and not at a reload",
                    facts.who.name
                ),
                None if is_variables => format!("mend it, or take it out of '{path}'"),
                None => format!("'dogwatch check {path}' says when it is good"),
            };
            Some(Finding::problem("start", reason).remedy(remedy))
        }
    }
}
