//! Settings of gunicorn, from its file or a command line: what dogwatch does in its place is said in our file, the rest
//! goes on being said to gunicorn, which runs with one worker of its own in each of ours.

pub(super) mod settings;

use super::Imported;
use super::evaluate::{self, Interpreter};
use super::serve::{self, Web};
use super::variables::Variables;
use crate::cli::draft::{Draft, Table, valid_name};
use crate::cli::init::python;
use crate::cli::place::{self, Place};
use crate::cli::trouble::Unusable;
use crate::config::values::{Account, Time, is_variable_name};
use serde_json::Value;
use settings::{Fate, Takes, flagged, named};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What Python runs.
const PROGRAM: &str = include_str!("evaluate.py");

/// The file that gunicorn reads without being told.
const USUAL: &str = "gunicorn.conf.py";

/// What gunicorn was told.
#[derive(Debug, Default)]
struct Told {
    /// Settings that are not only kept, and whether they stand in its file.
    settings: BTreeMap<&'static str, (Value, bool)>,
    /// What of the command line goes on being said.
    kept: Vec<String>,
    /// The app, as MODULE:NAME, and what stands beside it.
    app: Vec<String>,
    /// Its file was not run.
    is_unread: bool,
}

/// Translates a file of gunicorn's.
///
/// # Errors
/// When it cannot be evaluated, or nothing tells which app is meant.
pub(super) fn translated(place: &Place) -> Result<Imported, Unusable> {
    let file = place.folder.join(place.file.file_name().unwrap_or_default());
    let mut told = Told { settings: evaluated(&file, &place.folder, None)?, ..Told::default() };
    let folder = folder_of(&mut told, &place.folder);
    let app = match told.text("wsgi_app") {
        Some(app) => app,
        None => {
            let found = python::gunicorns_app(&folder).ok_or_else(|| {
                Unusable::from("there is no 'wsgi_app' in it, and no app is to be seen in its folder")
                    .hint("write wsgi_app = \"MODULE:NAME\" into it, or give it to 'dogwatch import Procfile' in a line like 'web: gunicorn MODULE:NAME'")
            })?;
            found.to_string()
        }
    };
    told.app = vec![app];
    let name = told.text("proc_name");
    let name = valid_name(&name.unwrap_or_else(|| place::called(&folder)));
    let file_name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let head = format!(
        "From gunicorn: {file_name}, with values as they were on import. gunicorn goes on reading that file for what is its own."
    );
    let mut draft = Draft::new(name, head, "What gunicorn was told, and is not here");
    let program = serve::program("gunicorn", &folder);
    if !program.contains('/') && place.which(&program).is_none() {
        let text = "'gunicorn' is not to be found here: name the one of the app's environment, like '/srv/myapp/venv/bin/gunicorn'";
        draft.remark_at(Table::Top, "command", "gunicorn", text);
    }
    let text = folder.to_str().ok_or_else(|| Unusable::from("its folder is not UTF-8"))?;
    draft.set(Table::Top, "working-directory", text);
    let config = file.strip_prefix(&folder).unwrap_or(&file).to_string_lossy().into_owned();
    told.kept = vec!["-c".to_owned(), config];
    let variables = &Variables::default();
    let web = Web { folder: &folder, runs_files: true, listen: None, port: None, variables };
    write(told, &[program], web, &mut draft)?;
    place.reach(&mut draft);
    Ok(Imported { drafts: vec![draft], remarks: vec![] })
}

/// Translates a command line, whose program is `program`.
///
/// # Errors
/// When its own file cannot be evaluated, or a value is none.
pub(super) fn command_line(
    program: &[String],
    arguments: &[String],
    web: Web<'_>,
    draft: &mut Draft,
) -> Result<(), Unusable> {
    let mut told = parsed(arguments)?;
    let folder = folder_of(&mut told, web.folder);
    let config = told.text("config");
    let file = folder.join(config.as_deref().unwrap_or(USUAL));
    if config.as_deref().is_none_or(|config| config.ends_with(".py")) && file.is_file() {
        if web.runs_files {
            // The command line wins, as with gunicorn itself.
            let name = config.as_deref().unwrap_or(USUAL);
            let mut settings = evaluated(&file, &folder, web.port).map_err(|u| u.of(name))?;
            settings.remove("chdir");
            settings.append(&mut told.settings);
            told.settings = settings;
        } else {
            told.is_unread = true;
            let name = config.as_deref().unwrap_or(USUAL);
            let text = format!(
                "'{name}' was not run to see what it says: 'dogwatch import {name}' does that"
            );
            draft.remark_at(Table::Top, "command", "gunicorn", text);
        }
    }
    if let Some(config) = config {
        told.kept.splice(0..0, ["-c".to_owned(), config]);
    }
    if told.app.is_empty() {
        let app = told.text("wsgi_app");
        told.app.extend(app);
    }
    write(told, program, Web { folder: &folder, ..web }, draft)
}

impl Told {
    /// Takes a setting, and says whether it stands in the file.
    fn take(&mut self, name: &str) -> Option<(Value, bool)> {
        self.settings.remove(name)
    }

    /// Takes a text that is not empty.
    fn text(&mut self, name: &str) -> Option<String> {
        let (value, _) = self.take(name)?;
        value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }
}

/// What a file of gunicorn's says: settings that it knows, as it passes over what it does not.
fn evaluated(
    file: &Path,
    folder: &Path,
    port: Option<u16>,
) -> Result<BTreeMap<&'static str, (Value, bool)>, Unusable> {
    place::text(file)?;
    let python = match serve::program("python3", folder) {
        python if python.contains('/') => folder.join(python),
        python => PathBuf::from(python),
    };
    let by = Interpreter {
        name: "python3",
        program: &python,
        before: &["-c", PROGRAM],
        after: &[],
        port,
        variables: &[],
        remedy: "install Python, or write the settings into a line of a Procfile",
    };
    let Value::Object(values) = evaluate::evaluate(file, by)? else {
        return Err(Unusable::from("it holds no settings"));
    };
    let known = |(name, value): (String, Value)| {
        let (name, ..) = named(&name)?;
        (!value.is_null()).then_some((*name, (value, true)))
    };
    Ok(values.into_iter().filter_map(known).collect())
}

/// Takes a command line apart.
fn parsed(arguments: &[String]) -> Result<Told, Unusable> {
    let mut told = Told::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if !word.starts_with('-') || word == "-" {
            told.app.push(word.clone());
            continue;
        }
        let (flag, mut value) = match word.split_once('=').filter(|_| word.starts_with("--")) {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None if word.starts_with("--") || word.len() == 2 || !word.is_char_boundary(2) => {
                (word.as_str(), None)
            }
            // -w4
            None => (&word[..2], Some(word[2..].to_owned())),
        };
        let Some((name, _, takes, fate)) = flagged(flag) else {
            told.kept.push(word.clone());
            continue;
        };
        if matches!(takes, Takes::Value | Takes::List) && value.is_none() {
            let text = format!("'{flag}' of gunicorn has no value");
            value = Some(words.next().cloned().ok_or_else(|| Unusable::from(text))?);
        }
        if *fate == Fate::Kept {
            told.kept.push(flag.to_owned());
            told.kept.extend(value);
            continue;
        }
        let value = value.map_or(Value::Bool(true), Value::String);
        let known = told.settings.remove(name).filter(|_| *takes == Takes::List);
        let value = match known {
            Some((Value::Array(mut values), _)) => {
                values.push(value);
                Value::Array(values)
            }
            _ if *takes == Takes::List => Value::Array(vec![value]),
            _ => value,
        };
        told.settings.insert(name, (value, false));
    }
    Ok(told)
}

/// Where gunicorn would run: `chdir`, which it does by itself.
fn folder_of(told: &mut Told, folder: &Path) -> PathBuf {
    told.text("chdir")
        .map_or_else(|| folder.to_owned(), |chdir| place::resolve(folder, Path::new(&chdir)))
}

/// Writes what dogwatch does in gunicorn's place, and the command for the rest.
fn write(
    mut told: Told,
    program: &[String],
    web: Web<'_>,
    draft: &mut Draft,
) -> Result<(), Unusable> {
    workers(&mut told, web, draft)?;
    listen(&mut told, web, draft);
    environment(&mut told, draft);
    accounts(&mut told, draft);
    worker_class(&mut told, draft);
    if let Some((value, in_file)) = told.take("graceful_timeout") {
        let text = serve::scalar(&value);
        let time = seconds(&text).ok_or_else(|| {
            Unusable::from(format!("'graceful_timeout': expected seconds, found {text}"))
        })?;
        draft.set(Table::Stop, "drain", Time(time).to_string());
        let note = "gunicorn's graceful_timeout; SIGKILL comes after 'timeout' (10s) more";
        draft.note(Table::Stop, "drain", note);
        if !in_file {
            told.kept.extend(["--graceful-timeout".to_owned(), text]);
        }
    }
    rest(&mut told, draft);
    let mut command = program.to_vec();
    command.append(&mut told.kept);
    command.extend(["-w".to_owned(), "1".to_owned()]);
    command.append(&mut told.app);
    draft.set(Table::Top, "command", command);
    ready(draft);
    Ok(())
}

/// What gunicorn says of itself comes before the app is loaded.
pub(in crate::cli) fn ready(draft: &mut Draft) {
    draft.note(
        Table::Top,
        "command",
        "one worker of gunicorn's own in each of ours: 'workers' says how many; it takes its socket from LISTEN_FDS, whatever its 'bind' says",
    );
    draft.set(Table::Ready, "when", "accepting");
    draft.note(
        Table::Ready,
        "when",
        "gunicorn says READY=1 before it has loaded the app; that its worker waits on the socket is evidence",
    );
}

fn workers(told: &mut Told, web: Web<'_>, draft: &mut Draft) -> Result<(), Unusable> {
    let Some((value, _)) = told.take("workers") else {
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
            "as gunicorn has it without 'workers' or WEB_CONCURRENCY; \"cpus\" follows the machine",
        );
        return Ok(());
    };
    let text = serve::scalar(&value);
    let count = text.parse::<i64>().ok().filter(|count| (1..=10_000).contains(count));
    let Some(count) = count else {
        return Err(Unusable::from(format!(
            "'workers': expected a number from 1 up, found {text}"
        )));
    };
    draft.set(Table::Top, "workers", count);
    draft.note(Table::Top, "workers", "as it was on import; \"cpus\" follows the machine");
    Ok(())
}

/// Writes `listen`.
fn listen(told: &mut Told, web: Web<'_>, draft: &mut Draft) {
    let bind = told.take("bind").map(|(value, _)| value);
    let binds: Vec<String> = match bind {
        Some(Value::Array(values)) => values.iter().map(serve::scalar).collect(),
        Some(Value::Null) | None => vec![],
        Some(value) => {
            serve::scalar(&value).split(',').map(|bind| bind.trim().to_owned()).collect()
        }
    };
    let read = binds.iter().filter_map(|bind| serve::address(bind, 8000, web.folder));
    serve::listen(read.collect(), ("127.0.0.1", 8000, "gunicorn"), web, draft);
}

/// Writes `[env]`.
fn environment(told: &mut Told, draft: &mut Draft) {
    let Some((Value::Array(values), _)) = told.take("raw_env") else { return };
    for value in values.iter().map(serve::scalar) {
        match value.split_once('=') {
            Some((name, value)) if is_variable_name(name) && !value.contains('\0') => {
                draft.set(Table::Env, name, value);
            }
            _ => draft.remark("raw_env", format!("'{value}' is no NAME=VALUE, and is left out")),
        }
    }
}

/// Writes `user` and `group`; one that a file of ours cannot name stays for [`rest`] to tell of.
fn accounts(told: &mut Told, draft: &mut Draft) {
    // A group alone is none of a service's (systemd gives it a user of its own).
    for name in ["user", "group"] {
        let Some((value, _)) = told.settings.get(name) else { continue };
        let text = serve::scalar(value);
        if text.parse::<Account>().is_err() || !(value.is_string() || value.is_number()) {
            return;
        }
        if name == "group" && draft.get(Table::Top, "user").is_none() {
            return;
        }
        draft.set(Table::Top, name, text);
        let note = "gunicorn's: the service is started so, and gunicorn, which is no root then, has nothing left to change";
        draft.note(Table::Top, name, note);
        told.settings.remove(name);
    }
}

/// How many threads each worker has, by its flag, which stays on the command line, or by the file.
fn threads(told: &Told) -> u32 {
    let flag = told.kept.iter().position(|word| word == "--threads");
    let flag = flag.and_then(|at| told.kept.get(at + 1)).cloned();
    let file = || told.settings.get("threads").map(|(value, _)| serve::scalar(value));
    flag.or_else(file).and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// What has to be known of the kind of worker.
fn worker_class(told: &mut Told, draft: &mut Draft) {
    let class = match told.take("worker_class") {
        Some((Value::String(class), in_file)) => Some((class, in_file)),
        Some(_) | None => None,
    };
    let resets = class.as_ref().is_some_and(|(class, _)| {
        class.to_ascii_lowercase().contains("uvicorn") || class == "asgi" || class == "gthread"
    });
    if resets || threads(told) > 1 {
        serve::steer(draft);
    }
    if let Some((class, false)) = class {
        told.kept.extend(["-k".to_owned(), class]);
    }
}

/// Says what becomes of the settings that are not here.
fn rest(told: &mut Told, draft: &mut Draft) {
    let mut hooks = vec![];
    let app = draft.name.clone();
    for (name, (value, in_file)) in std::mem::take(&mut told.settings) {
        let Some((_, _, _, fate)) = named(name) else { continue };
        let is_off = matches!(&value, Value::Bool(false)) || value.as_str() == Some("");
        match fate {
            Fate::Here | Fate::Kept => {}
            Fate::Hook => hooks.push(name),
            Fate::Drop(_) | Fate::Clash(_) if is_off => draft.anyway(&format!("{name} = False")),
            Fate::Clash(text) if in_file => {
                draft.remark(
                    name,
                    format!("take it out of gunicorn's file: {}", text.replace("{app}", &app)),
                );
            }
            Fate::Drop(text) | Fate::Clash(text) => {
                draft.remark(name, text.replace("{app}", &app));
            }
        }
    }
    if !hooks.is_empty() {
        let text = "they stay in gunicorn's file, and run in each worker for its own gunicorn";
        draft.remark(&hooks.join(", "), text);
    }
}

/// A time that gunicorn has in seconds.
fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    let time = Duration::try_from_secs_f64(seconds).ok()?;
    (time <= Duration::from_secs(86_400)).then_some(time)
}
