//! `dogwatch list`: every app on this host, a line for the app and one for each of its workers.

use super::apps;
use super::text;
use super::trouble::{Code, Trouble, printable};
use super::usage::{Processes, Usage};
use crate::protocol::control::{App, Call, Listed, Role, Slot, Worker};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// An app as `--json` tells it: what its primary says, and what its processes use.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measured {
    #[serde(flatten)]
    pub(super) app: App,
    /// What the primary itself uses.
    pub(super) primary_usage: Usage,
    /// What each worker uses, by its number.
    pub(super) usage: BTreeMap<u64, Usage>,
}

impl Measured {
    pub(super) fn new(app: App, processes: &Processes) -> Self {
        let pid = i32::try_from(app.primary.pid).unwrap_or(0);
        Self { primary_usage: processes.alone(pid), usage: processes.of(&app), app }
    }

    /// What all of it uses together.
    fn total(&self) -> Usage {
        let mut total = self.primary_usage;
        for usage in self.usage.values() {
            total.add(usage);
        }
        total
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Apps {
    apps: Vec<Measured>,
    /// Apps that may not be looked at, or do not answer, with the reason.
    silent: Vec<Silent>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Silent {
    name: String,
    reason: String,
}

/// Prints all apps.
pub(super) fn list(control: Option<&Path>, json: bool) -> Result<ExitCode, Trouble> {
    let found = match control {
        Some(path) if !path.exists() => {
            let text = format!("cannot list '{}': nobody listens there", path.display());
            return Err(Trouble::new(Code::NotRunning, text));
        }
        Some(path) => vec![("app".to_owned(), path.to_owned())],
        None => apps::sockets(),
    };
    let all = gather(found);
    if json {
        text::say(&to_json(&all)?)?;
    } else if all.apps.is_empty() && all.silent.is_empty() {
        text::say("no app is running")?;
    } else {
        let silent = all.silent.iter().map(|silent| printable(&silent.reason) + "\n");
        let apps = if all.apps.is_empty() { String::new() } else { show(&all.apps) };
        text::print(&(apps + &silent.collect::<String>()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks all primaries at once, so that a silent one does not hold up the others, and looks at the processes meanwhile.
fn gather(found: Vec<(String, PathBuf)>) -> Apps {
    let mut all = Apps { apps: vec![], silent: vec![] };
    let (answers, processes) = std::thread::scope(|scope| {
        let look = scope.spawn(Processes::look);
        let asked: Vec<_> =
            found.iter().map(|(name, path)| (name, scope.spawn(|| ask(name, path)))).collect();
        let answers: Vec<_> =
            asked.into_iter().map(|(name, asked)| (name.clone(), asked.join())).collect();
        (answers, look.join().unwrap_or_default())
    });
    for (name, answer) in answers {
        match answer {
            Ok(Ok(Some(app))) => all.apps.push(Measured::new(app, &processes)),
            Ok(Err(trouble)) => all.silent.push(Silent { name, reason: trouble.message }),
            Ok(Ok(None)) | Err(_) => {}
        }
    }
    all
}

/// `None` when nobody listens there any more.
fn ask(name: &str, path: &Path) -> Result<Option<App>, Trouble> {
    let Some(mut client) = apps::reach(name, path)? else {
        return Ok(None);
    };
    client.ask::<Listed>(&Call::List, "list").map(|listed| Some(listed.app))
}

pub(super) fn to_json(value: &impl Serialize) -> Result<String, Trouble> {
    let text = serde_json::to_string_pretty(value);
    text.map_err(|e| Trouble::new(Code::Failed, format!("cannot write JSON: {e}")))
}

/// The table: for each app a line of its own, then one for each worker, or for each slot that has none.
pub(super) fn show(apps: &[Measured]) -> String {
    let mut table = text::table(&[
        "APP", "SLOT", "STATE", "GEN", "PID", "UP", "RESTARTS", "CPU", "MEMORY", "CONN",
    ]);
    for measured in apps {
        let app = &measured.app;
        let total = measured.total();
        let restarts: u32 = app.slots.iter().map(|slot| slot.restarts).sum();
        table.add_row(vec![
            comfy_table::Cell::new(printable(&app.primary.name)),
            text::number(format!("{}/{}", app.ready_slots, app.slots.len())),
            text::state(app.state.word()),
            text::number(app.generation),
            text::number(app.primary.pid),
            text::number(text::time(app.up_ms)),
            text::number(restarts),
            text::number(text::cpu(total.cpu_ms)),
            text::number(text::size(total.memory_bytes)),
            text::number(connections(&total)),
        ]);
        for slot in &app.slots {
            if slot.workers.is_empty() {
                add_empty(&mut table, slot);
            }
            for worker in &slot.workers {
                add_worker(&mut table, Some(slot), worker, measured.usage.get(&worker.worker));
            }
        }
        for worker in &app.leaving {
            add_worker(&mut table, None, worker, measured.usage.get(&worker.worker));
        }
    }
    text::trimmed(&table)
}

fn add_empty(table: &mut comfy_table::Table, slot: &Slot) {
    table.add_row(vec![
        comfy_table::Cell::new(""),
        text::number(slot.slot),
        text::state(slot.state.word()),
        text::number(slot.generation),
        text::number("-"),
        text::number("-"),
        text::number(slot.restarts),
    ]);
}

fn add_worker(
    table: &mut comfy_table::Table,
    slot: Option<&Slot>,
    worker: &Worker,
    usage: Option<&Usage>,
) {
    let own = slot.filter(|_| worker.role == Role::Incumbent);
    let measured = |text: fn(&Usage) -> String| text::number(usage.map_or("-".to_owned(), text));
    table.add_row(vec![
        comfy_table::Cell::new(""),
        text::number(worker.slot),
        text::state(worker.state.word()),
        text::number(worker.generation),
        text::number(worker.pid.map_or("-".to_owned(), |pid| pid.to_string())),
        text::number(text::time(worker.up_ms)),
        text::number(own.map_or(String::new(), |slot| slot.restarts.to_string())),
        measured(|usage| text::cpu(usage.cpu_ms)),
        measured(|usage| text::size(usage.memory_bytes)),
        measured(connections),
    ]);
}

fn connections(usage: &Usage) -> String {
    usage.connections.map_or("-".to_owned(), |count| count.to_string())
}
