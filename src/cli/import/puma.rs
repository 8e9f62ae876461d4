//! Settings of Puma, from its file or a command line: what dogwatch does in its place is said in our file, the rest goes on
//! being said to Puma, which runs in single mode in each worker.

use super::Imported;
use super::evaluate::{self, Interpreter};
use super::serve::{self, Web};
use super::variables::Variables;
use crate::cli::draft::{Draft, Table, valid_name};
use crate::cli::place::{self, Place};
use crate::cli::trouble::Unusable;
use crate::config::values::Time;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What Ruby runs.
const PROGRAM: &str = include_str!("evaluate.rb");

/// Returns Puma's file in a folder, where it is not told which: one for the environment counts before the one for all.
pub(in crate::cli) fn usual(folder: &Path, environment: &str) -> Option<String> {
    let all = [format!("config/puma/{environment}.rb"), "config/puma.rb".to_owned()];
    all.into_iter().find(|file| folder.join(file).is_file())
}

/// Flags that a worker must have: no processes of Puma's own, and of its sockets those that were passed alone.
pub(in crate::cli) const OURS: [&str; 4] = ["-w", "0", "--bind-to-activated-sockets", "only"];

/// Settings that mean nothing here, or would keep a worker from serving, and why; `!` before what is to be taken out.
pub(super) const DROPPED: [(&[&str], &str); 10] = [
    (
        &[
            "preload_app!",
            "fork_worker",
            "nakayoshi_fork",
            "prune_bundler",
            "wait_for_less_busy_worker",
            "extra_runtime_dependencies",
            "mold_worker",
        ],
        "nothing is forked: each worker loads the app by itself",
    ),
    (
        &[
            "worker_timeout",
            "worker_boot_timeout",
            "worker_shutdown_timeout",
            "worker_check_interval",
            "worker_culling_strategy",
        ],
        "is of Puma's cluster mode: 'ready.timeout', 'stop.drain' and 'stop.timeout' are for the workers here",
    ),
    (
        &["silence_single_worker_warning", "silence_fork_callback_warning"],
        "the warning is of Puma's cluster mode, in which no worker is here",
    ),
    (
        &[
            "before_fork",
            "on_worker_boot",
            "before_worker_boot",
            "on_worker_shutdown",
            "before_worker_shutdown",
            "on_worker_fork",
            "before_worker_fork",
            "after_worker_fork",
            "on_refork",
            "before_refork",
            "after_refork",
            "after_worker_boot",
        ],
        "called only in Puma's cluster mode: what it does belongs in 'on_booted', or where the app starts",
    ),
    (
        &["on_restart", "before_restart", "restart_command"],
        "never called: a reload starts new processes",
    ),
    (
        &["pidfile", "state_path", "state_permission"],
        "all workers write the same file, and the last one counts: 'dogwatch list --json' has the pids",
    ),
    (
        &["activate_control_app", "control_url", "control_auth_token"],
        "!the second worker finds the control address in use: 'dogwatch show {app}' and its kin tell of the workers",
    ),
    (&["daemonize"], "!a worker stays where it was started"),
    (&["stdout_redirect"], "output goes to a file; without it 'dogwatch logs {app}' has it"),
    (&["plugin"], "!"),
];

/// What Puma was told.
#[derive(Debug, Default)]
struct Told {
    /// Names with their values, in order.
    calls: Vec<(String, Vec<Value>)>,
    binds: Vec<String>,
    workers: Option<String>,
    environment: Option<String>,
    kept: Vec<String>,
    /// Its file was not run.
    is_unread: bool,
}

/// Translates a file of Puma's.
///
/// # Errors
/// When it cannot be evaluated.
pub(super) fn translated(place: &Place) -> Result<Imported, Unusable> {
    let file_name = place.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = place.folder.join(&file_name);
    let mut told = Told { calls: evaluated(&file, None)?, ..Told::default() };
    // Where Puma goes by itself. It would go a relative way once more.
    let directory = told.text("directory").map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = directory.map(|path| place::resolve(&path, Path::new("")));
    let folder = directory.as_deref().unwrap_or_else(|| project(&place.folder));
    let name = told.text("tag").unwrap_or_else(|| place::called(folder));
    let head = format!(
        "From Puma: {file_name}, with values as they were on import. Puma goes on reading that file for what is its own."
    );
    let mut draft = Draft::new(valid_name(&name), head, "What Puma was told, and is not here");
    let relative = file.strip_prefix(folder).unwrap_or(&file).to_string_lossy().into_owned();
    told.kept.extend(["-C".to_owned(), relative]);
    let variables = &Variables::default();
    let web = Web { folder, runs_files: true, listen: None, port: None, variables };
    let text = folder.to_str().ok_or_else(|| Unusable::from("its folder is not UTF-8"))?;
    draft.set(Table::Top, "working-directory", text);
    let program = program(folder);
    let is_told = told.calls.iter().any(|(name, _)| ["rackup", "app"].contains(&name.as_str()));
    if !is_told && !folder.join("config.ru").is_file() {
        draft.remark_at(
            Table::Top,
            "command",
            "config.ru",
            format!("there is none in '{text}', so Puma has to be told what to serve"),
        );
    }
    write(told, &program, web, &mut draft)?;
    place.reach(&mut draft);
    Ok(Imported { drafts: vec![draft], remarks: vec![] })
}

/// The folder of the app whose file is in this one: Puma's place is config/, and config/puma/.
fn project(folder: &Path) -> &Path {
    let is = |folder: &Path, name: &str| folder.file_name().is_some_and(|own| own == name);
    let around = |folder| Path::parent(folder).unwrap_or(folder);
    let config = if is(folder, "puma") { around(folder) } else { folder };
    if is(config, "config") { around(config) } else { folder }
}

/// How Puma is started in a folder: with the gems of its Gemfile.
pub(in crate::cli) fn program(folder: &Path) -> Vec<String> {
    let own = serve::program("puma", folder);
    if own.contains('/') || !folder.join("Gemfile").is_file() {
        return vec![own];
    }
    ["bundle", "exec", "puma"].map(str::to_owned).to_vec()
}

/// Translates a command line.
///
/// # Errors
/// When its own file cannot be evaluated, or a value is none.
pub(super) fn command_line(
    program: &[String],
    arguments: &[String],
    web: Web<'_>,
    draft: &mut Draft,
) -> Result<(), Unusable> {
    let mut told = Told::default();
    let mut config = None;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let (flag, inline) = match word.split_once('=').filter(|_| word.starts_with("--")) {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let mut value = || {
            let missing = || Unusable::from(format!("'{flag}' of Puma has no value"));
            inline.clone().or_else(|| words.next().cloned()).ok_or_else(missing)
        };
        match flag {
            "-b" | "--bind" => told.binds.push(value()?),
            "-p" | "--port" => told.binds.push(format!("0.0.0.0:{}", value()?)),
            "-w" | "--workers" => told.workers = Some(value()?),
            "-e" | "--environment" => told.environment = Some(value()?),
            "-C" | "--config" => config = Some(value()?),
            "--bind-to-activated-sockets" => {}
            "--preload" | "--fork-worker" | "--prune-bundler" => told.call(flag),
            "-d" | "--daemon" => told.call("daemonize"),
            "--pidfile" | "-S" | "--state" => {
                value()?;
                told.call("pidfile");
            }
            "--control" | "--control-url" | "--control-token" => {
                value()?;
                told.call("activate_control_app");
            }
            "-t"
            | "--threads"
            | "-I"
            | "--include"
            | "--dir"
            | "--tag"
            | "--extra-runtime-dependencies" => {
                told.kept.extend([flag.to_owned(), value()?]);
            }
            _ => told.kept.push(word.clone()),
        }
    }
    let file = config
        .clone()
        .or_else(|| usual(web.folder, &told.environment.clone().unwrap_or_else(environment)));
    if let Some(file) = file.filter(|file| file != "-") {
        if web.runs_files {
            let calls = evaluated(&web.folder.join(&file), web.port);
            told.calls.splice(0..0, calls.map_err(|unusable| unusable.of(&file))?);
        } else {
            told.is_unread = true;
            let text = format!(
                "'{file}' was not run to see what it says: 'dogwatch import {file}' does that"
            );
            draft.remark_at(Table::Top, "command", "puma", text);
        }
    }
    if let Some(config) = config {
        told.kept.splice(0..0, ["-C".to_owned(), config]);
    }
    write(told, program, web, draft)
}

/// `rails server`, which starts Puma with options of its own.
///
/// # Errors
/// As [`command_line`].
pub(super) fn rails(arguments: &[String], web: Web<'_>, draft: &mut Draft) -> Result<(), Unusable> {
    let program = program(web.folder);
    let mut words = vec![];
    let (mut host, mut port) = (None, None);
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "-b" | "--binding" => host = rest.next().cloned(),
            "-p" | "--port" => port = rest.next().cloned(),
            "-e" | "--environment" => {
                words.extend([Some(word.clone()), rest.next().cloned()].into_iter().flatten());
            }
            "-u" | "--using" | "-P" | "--pid" => drop(rest.next()),
            _ => {}
        }
    }
    if host.is_some() || port.is_some() {
        let host = host.unwrap_or_else(|| "0.0.0.0".to_owned());
        words.extend([
            "-b".to_owned(),
            format!("tcp://{host}:{}", port.unwrap_or_else(|| "3000".to_owned())),
        ]);
    }
    draft.note(
        Table::Top,
        "command",
        "'rails server' starts Puma, which is started here by itself",
    );
    command_line(&program, &words, web, draft)
}

impl Told {
    fn call(&mut self, flag: &str) {
        let name = match flag {
            "--preload" => "preload_app!",
            "--fork-worker" => "fork_worker",
            "--prune-bundler" => "prune_bundler",
            other => other,
        };
        self.calls.push((name.to_owned(), vec![]));
    }

    /// Takes the last value that a setting was given.
    fn take(&mut self, name: &str) -> Option<Vec<Value>> {
        let at = self.calls.iter().rposition(|(known, _)| known == name)?;
        let values = self.calls.remove(at).1;
        self.calls.retain(|(known, _)| known != name);
        Some(values)
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let values = self.take(name)?;
        values.first().map(serve::scalar).filter(|text| !text.is_empty())
    }
}

/// The environment of Rack and Rails on a machine that serves, unless the caller's environment names another. Without one
/// both take "development".
fn environment() -> String {
    let callers = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    callers("RAILS_ENV").or_else(|| callers("RACK_ENV")).unwrap_or_else(|| "production".to_owned())
}

/// Writes the environment of Rack or Rails: the server's flag, what the line has before it, the `.env`, the server's file,
/// or what is usual on a machine that serves.
pub(super) fn in_environment(
    flag: Option<String>,
    in_file: Option<String>,
    web: Web<'_>,
    draft: &mut Draft,
) {
    let key = if web.folder.join("bin/rails").is_file() { "RAILS_ENV" } else { "RACK_ENV" };
    if let Some(name) = flag {
        return draft.set(Table::Env, key, name);
    }
    let is_said = |name| draft.get(Table::Env, name).is_some();
    if is_said("RAILS_ENV") || is_said("RACK_ENV") || web.variables.has_environment() {
        return;
    }
    let note = if in_file.is_some() {
        "from Puma's file, which was read with 'production' unless the caller's environment has another"
    } else {
        "without it it would be \"development\", which is not for serving"
    };
    draft.set(Table::Env, key, in_file.unwrap_or_else(environment));
    draft.note(Table::Env, key, note);
}

/// What a file of Puma's calls.
fn evaluated(file: &Path, port: Option<u16>) -> Result<Vec<(String, Vec<Value>)>, Unusable> {
    place::text(file)?;
    let environment = environment();
    let by = Interpreter {
        name: "ruby",
        program: Path::new("ruby"),
        before: &["-e", PROGRAM, "--"],
        after: &[],
        port,
        variables: &[("RACK_ENV", &environment), ("RAILS_ENV", &environment)],
        remedy: "install Ruby, or import a Procfile with a line like 'web: puma -t 5:5 -p 3000'",
    };
    let value = evaluate::evaluate(file, by).map_err(|unusable| {
        if unusable.hint.is_none() && unusable.reason.contains("LoadError") {
            return unusable
                .hint("run 'bundle exec dogwatch import ...' where the app's gems are installed");
        }
        unusable
    })?;
    let Value::Array(calls) = value else {
        return Err(Unusable::from("it holds no settings"));
    };
    let call = |call: Value| {
        let Value::Array(mut parts) = call else { return None };
        let values = parts.pop().and_then(|values| values.as_array().cloned())?;
        Some((parts.pop()?.as_str()?.to_owned(), values))
    };
    Ok(calls.into_iter().filter_map(call).collect())
}

/// Writes what dogwatch does in Puma's place, and the command for the rest.
fn write(
    mut told: Told,
    program: &[String],
    web: Web<'_>,
    draft: &mut Draft,
) -> Result<(), Unusable> {
    workers(&mut told, web, draft)?;
    listen(&mut told, web, draft);
    let in_file = told.text("environment");
    in_environment(told.environment.take(), in_file, web, draft);
    if let Some(values) = told.take("force_shutdown_after") {
        let seconds = values.first().map(serve::scalar).and_then(|text| text.parse::<f64>().ok());
        match seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
            Some(time) if time <= Duration::from_secs(86_400) => {
                draft.set(Table::Stop, "drain", Time(time).to_string());
                draft.note(
                    Table::Stop,
                    "drain",
                    "Puma's force_shutdown_after; SIGKILL comes after 'timeout' (10s) more",
                );
            }
            _ => draft.anyway("force_shutdown_after = forever"),
        }
    }
    rest(&mut told, draft);
    let mut command = program.to_vec();
    command.extend(OURS.map(str::to_owned));
    command.append(&mut told.kept);
    draft.set(Table::Top, "command", command);
    ready(draft);
    Ok(())
}

/// What is the same however Puma was found.
pub(in crate::cli) fn ready(draft: &mut Draft) {
    serve::steer(draft);
    draft.note(
        Table::Top,
        "command",
        "single mode in each worker ('workers' says how many), on the socket that is passed and no other, whatever its file says (Puma 5.4 and later)",
    );
}

fn workers(told: &mut Told, web: Web<'_>, draft: &mut Draft) -> Result<(), Unusable> {
    let in_file = told.text("workers");
    let Some(text) = told.workers.take().or(in_file) else {
        // What the file says is not known then.
        if told.is_unread {
            return Ok(());
        }
        if let Some(count) = serve::concurrency(web, draft) {
            draft.set(Table::Top, "workers", count);
            return Ok(());
        }
        draft.set(Table::Top, "workers", 1);
        draft.note(
            Table::Top,
            "workers",
            "as Puma has it without 'workers' or WEB_CONCURRENCY; \"cpus\" follows the machine",
        );
        return Ok(());
    };
    if text == "auto" {
        draft.set(Table::Top, "workers", "cpus");
        return Ok(());
    }
    let count = text.parse::<i64>().ok().filter(|count| (0..=10_000).contains(count));
    let count = count
        .ok_or_else(|| Unusable::from(format!("'workers': expected a number, found {text}")))?;
    draft.set(Table::Top, "workers", count.max(1));
    draft.note(Table::Top, "workers", "as it was on import; \"cpus\" follows the machine");
    Ok(())
}

/// Writes `listen`.
fn listen(told: &mut Told, web: Web<'_>, draft: &mut Draft) {
    let mut binds = std::mem::take(&mut told.binds);
    let from_line = !binds.is_empty();
    for (name, values) in told.calls.iter().filter(|_| !from_line) {
        let value =
            |at: usize| values.get(at).filter(|value| !value.is_object()).map(serve::scalar);
        match name.as_str() {
            "bind" => binds.extend(value(0)),
            "port" => {
                let host = value(1)
                    .filter(|host| !host.is_empty())
                    .unwrap_or_else(|| "0.0.0.0".to_owned());
                binds.extend(value(0).map(|port| format!("{host}:{port}")));
            }
            _ => {}
        }
    }
    let has_tls = told.calls.iter().any(|(name, _)| name == "ssl_bind")
        || binds.iter().any(|bind| bind.starts_with("ssl:"));
    if has_tls {
        draft.remark(
            "ssl_bind",
            "Puma cannot speak TLS on a socket that is passed: a proxy before it does",
        );
    }
    told.calls.retain(|(name, _)| {
        !["bind", "port", "ssl_bind", "bind_to_activated_sockets"].contains(&name.as_str())
    });
    let read = binds.iter().filter_map(|bind| serve::address(bind, 9292, web.folder)).collect();
    serve::listen(read, ("0.0.0.0", 9292, "Puma"), web, draft);
}

/// Says what becomes of the settings that are not here.
fn rest(told: &mut Told, draft: &mut Draft) {
    let app = draft.name.clone();
    let calls = std::mem::take(&mut told.calls);
    for (names, text) in DROPPED {
        let called: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| calls.iter().any(|(known, _)| known == name))
            .collect();
        if called.is_empty() || names.contains(&"plugin") {
            continue;
        }
        let text = text.replace("{app}", &app);
        match text.strip_prefix('!') {
            Some(text) => {
                draft.remark(&called.join(", "), format!("take it out of Puma's file: {text}"));
            }
            None => draft.remark(&called.join(", "), text),
        }
    }
    for plugin in
        calls.iter().filter(|(name, _)| name == "plugin").filter_map(|(_, values)| values.first())
    {
        match serve::scalar(plugin).as_str() {
            "tmp_restart" => draft.remark("plugin tmp_restart", "nothing is watched: the deploy calls 'dogwatch reload' in place of 'touch tmp/restart.txt', which would restart each worker by itself"),
            "systemd" => draft.anyway("plugin systemd"),
            other => draft.remark(&format!("plugin {other}"), "runs in each worker"),
        }
    }
}
