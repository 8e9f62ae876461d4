//! One app of a process file becomes one file of dogwatch's.

use super::attributes::App;
use super::command::{self, Runs};
use super::elsewhere::elsewhere;
use super::environment;
use super::lifecycle::lifecycle;
use crate::cli::draft::{Draft, Table, valid_name};
use crate::cli::place::Place;
use crate::cli::trouble::Unusable;
use serde_json::{Map, Value};
use std::path::Path;

/// What an app of this script is: PM2 replaces it by a file server of its own.
const FILE_SERVER: &str = "serve";

/// What becomes of an app.
#[derive(Debug)]
pub(super) enum Translation {
    /// A file.
    File(Draft),
    /// Nothing, for this reason.
    None(String),
}

/// What the command line and the rest of the process file say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) place: &'a Place,
    /// `--env NAME`
    pub(super) environment: Option<&'a str>,
    /// The variables of `deploy.NAME.env`.
    pub(super) deployed: Option<&'a Map<String, Value>>,
}

/// Translates an app.
///
/// # Errors
/// Names the app, the attribute, and what is expected.
pub(super) fn translate(mut app: App, wanted: Wanted<'_>) -> Result<Translation, Unusable> {
    let script = app.peek("script").and_then(Value::as_str);
    if script == Some(FILE_SERVER) {
        let text = "'serve' is PM2's own file server; a web server does that, or a package like 'serve' as the command";
        return Ok(Translation::None(format!("{}: {text}", app.label)));
    }
    let appended = app.flag("append_env_to_name");
    let suffix = wanted.environment.filter(|_| appended == Some(true));
    let (name, renamed) = name(&mut app, suffix);
    let file = wanted.place.file.file_name().unwrap_or_default().to_string_lossy();
    let head = format!(
        "From PM2: {} of {file}, with values as they were on import. Workers see the variables that are named here and in the unit, not those of a shell.",
        app.label
    );
    let mut draft = Draft::new(name, head, "What PM2 was told, and is not here");
    if let Some(text) = renamed {
        draft.remark("name", text);
    }
    match appended {
        Some(true) if suffix.is_none() => {
            draft.remark("append_env_to_name", "is for 'dogwatch import --env NAME'");
        }
        Some(false) => draft.anyway("append_env_to_name = false"),
        Some(true) | None => {}
    }
    let cwd = wanted.place.directory(app.text("cwd").as_deref());
    let runs = command::command(&mut app, wanted.place, &cwd, &mut draft)?;
    let cluster = is_cluster(&mut app, runs, &mut draft)?;
    let is_alone = workers(&mut app, &mut draft)?;
    let directory = cwd.to_str().ok_or_else(|| app.refuse("cwd", "not UTF-8"))?;
    draft.set(Table::Top, "working-directory", directory);
    handoff(runs, cluster, is_alone, &mut draft);
    environment::environment(&mut app, wanted.environment, wanted.deployed, &mut draft)?;
    environment::numbered(&mut app, runs, is_alone, &mut draft);
    environment::listen(runs, &mut draft);
    wanted.place.reach(&mut draft);
    lifecycle(&mut app, runs, wanted.place, &mut draft)?;
    elsewhere(&mut app, &mut draft);
    for (attribute, text) in std::mem::take(&mut app.unknown) {
        draft.remark(&attribute, text);
    }
    for attribute in app.left() {
        draft.remark(attribute, "not translated");
    }
    Ok(Translation::File(draft))
}

/// The app's name, made one that files and sockets can have; and what is to be said if it had to be changed.
fn name(app: &mut App, suffix: Option<&str>) -> (String, Option<String>) {
    let script = app.peek("script").and_then(Value::as_str).unwrap_or_default();
    let stem = Path::new(script).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut wanted = app.text("name").unwrap_or(stem);
    if let Some(suffix) = suffix {
        wanted = format!("{wanted}-{suffix}");
    }
    let name = valid_name(&wanted);
    let text = format!("'{wanted}' cannot be the name of an app here, so it is '{name}'");
    let renamed = (name != wanted).then_some(text);
    (name, renamed)
}

/// Whether PM2 would run it in its cluster mode.
fn is_cluster(app: &mut App, runs: Runs, draft: &mut Draft) -> Result<bool, Unusable> {
    let mode = app.text("exec_mode");
    let mode = match mode.as_deref().map(|mode| mode.trim_end_matches("_mode")) {
        None => None,
        Some("cluster") => Some(true),
        Some("fork") => Some(false),
        Some(_) => {
            let found = mode.unwrap_or_default();
            let reason = format!("expected 'fork' or 'cluster', found \"{found}\"");
            return Err(app.refuse("exec_mode", &reason));
        }
    };
    let fork = app.flag("execute_command");
    if let Some(fork) = fork {
        draft.anyway(&format!("execute_command = {fork}"));
    }
    let has_one = matches!(runs, Runs::Node | Runs::Bun);
    match mode {
        Some(true) if !has_one => {
            let text = "the cluster is Node's alone, but any program has several workers here";
            draft.remark("exec_mode", text);
        }
        Some(true) => draft.anyway("exec_mode = cluster"),
        Some(false) => draft.anyway("exec_mode = fork"),
        None => {}
    }
    let usual = app.is_given("instances") && has_one;
    Ok(fork != Some(true) && mode.unwrap_or(usual))
}

/// Writes `workers`, and says whether there is one alone.
fn workers(app: &mut App, draft: &mut Draft) -> Result<bool, Unusable> {
    let is_max = app.peek("instances").and_then(Value::as_str) == Some("max");
    let count = if is_max { app.take("instances").map(|_| 0) } else { app.whole("instances")? };
    match count.unwrap_or(1) {
        0 => draft.set(Table::Top, "workers", "cpus"),
        count @ 1..=10_000 => draft.set(Table::Top, "workers", count),
        less @ -10_000..0 => draft.set(Table::Top, "workers", format!("cpus{less}")),
        count => {
            let reason = format!("expected at most 10000, found {count}");
            return Err(app.refuse("instances", &reason));
        }
    }
    Ok(count.unwrap_or(1) == 1)
}

/// Writes `handoff`, and what the app has to know of it.
fn handoff(runs: Runs, cluster: bool, is_alone: bool, draft: &mut Draft) {
    draft.set(Table::Top, "handoff", if runs.has_channel() { "node" } else { "fd" });
    let (attribute, text) = match runs {
        Runs::Node if cluster => return,
        Runs::Node if is_alone => (
            "exec_mode",
            "in fork mode: if it serves no connections, say '[ready] when = \"alive:2s\"'; if it starts a cluster of its own, say 'workers' instead",
        ),
        Runs::Node => (
            "exec_mode",
            "in fork mode: here its instances share the ports that they open; if they serve no connections, say '[ready] when = \"alive:2s\"'",
        ),
        Runs::Bun => (
            "exec_interpreter",
            "Bun opens its port by itself, so none is named here; for readiness, process.send('ready') and '[ready] when = \"message\"' are better",
        ),
        Runs::Deno => (
            "exec_interpreter",
            "Deno's node:http has its sockets from here; Deno.serve opens its port by itself: one worker, and '[ready] when = \"alive:2s\"'",
        ),
        Runs::Shell | Runs::Other => (
            "exec_interpreter",
            "a program that is not Node's must take its socket as file descriptor 3 (LISTEN_FDS); one that serves no connections is a plain systemd service",
        ),
    };
    draft.remark_at(Table::Top, "handoff", attribute, text);
}
