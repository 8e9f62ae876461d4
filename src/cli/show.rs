//! `dogwatch show APP[/SLOT]`: everything that is known of an app or of one slot, the last failure included.

use super::apps;
use super::list::{self, Measured};
use super::target::Target;
use super::text;
use super::trouble::{Trouble, printable};
use super::usage::Processes;
use crate::protocol::control::{
    Balance, Call, Canary, Channel, Failure, Generation, Lane, MaybeSlot, Setting, Shown, Slot,
    Worker,
};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Everything {
    app: Measured,
    settings: Vec<Setting>,
    generations: Vec<Generation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<Failure>,
}

/// Prints it.
pub(super) fn show(
    target: &Target,
    control: Option<&Path>,
    json: bool,
) -> Result<ExitCode, Trouble> {
    let mut client = apps::find(&target.app, control)?;
    let shown: Shown = client.ask(&Call::Show(MaybeSlot { slot: target.slot }), "show")?;
    let all = Everything {
        app: Measured::new(shown.app, &Processes::look()),
        settings: shown.settings,
        generations: shown.generations,
        last_failure: shown.last_failure,
    };
    if json {
        text::say(&list::to_json(&all)?)?;
    } else {
        text::print(&describe(&all, target))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(all: &Everything, target: &Target) -> String {
    let mut text = String::new();
    if target.slot.is_none() {
        describe_app(&mut text, all);
    } else {
        let _ = writeln!(text, "{}: {}", target.app, printable(&all.app.app.status));
    }
    for slot in &all.app.app.slots {
        describe_slot(&mut text, slot, &all.app);
    }
    for worker in &all.app.app.leaving {
        let _ = writeln!(text, "\nbeyond the slots");
        describe_worker(&mut text, worker, &all.app);
    }
    if let Some(failure) = &all.last_failure {
        describe_failure(&mut text, failure);
    }
    text
}

/// A name and its value, in two columns.
fn row(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{name:>14}: {}", printable(&value.to_string()));
}

fn describe_app(text: &mut String, all: &Everything) {
    let app = &all.app.app;
    let primary = &app.primary;
    let _ = writeln!(text, "{}: {}", printable(&primary.name), printable(&app.status));
    row(text, "state", app.state.word());
    let usage = &all.app.primary_usage;
    row(
        text,
        "primary",
        format_args!(
            "dogwatch {}, pid {}, up {}, {} memory, {} cpu",
            primary.version,
            primary.pid,
            text::time(app.up_ms),
            text::size(usage.memory_bytes),
            text::cpu(usage.cpu_ms)
        ),
    );
    primary.unit.iter().for_each(|unit| row(text, "unit", unit));
    primary.config.iter().for_each(|config| row(text, "config", config));
    for listener in &primary.listeners {
        row(text, "listener", format_args!("'{}' {}", listener.name, listener.address));
    }
    app.balance.iter().for_each(|balance| row(text, "balance", describe_balance(balance)));
    row(
        text,
        "output",
        if primary.log == "journal" { "in the journal" } else { "the last lines, in memory" },
    );
    if let Some(queued) = app.queued_generation {
        row(text, "queued", format_args!("a reload to generation {queued}"));
    }
    if let Some(canary) = &app.canary {
        row(text, "canary", describe_canary(canary, &primary.name));
    }
    for generation in &all.generations {
        let serving = if generation.generation == app.generation {
            ""
        } else {
            " (not the one that is to serve)"
        };
        let _ = writeln!(text, "\ngeneration {}{serving}", generation.generation);
        row(text, "program", &generation.program);
        row(
            text,
            "arguments",
            generation.arguments.iter().skip(1).cloned().collect::<Vec<_>>().join(" "),
        );
        generation.directory.iter().for_each(|directory| row(text, "directory", directory));
    }
    let _ = writeln!(text, "\nsettings in force");
    let width = all.settings.iter().map(|setting| setting.key.len()).max().unwrap_or(0);
    for Setting { key, value } in &all.settings {
        let _ = writeln!(text, "  {key:<width$}  {}", printable(value));
    }
}

fn describe_canary(canary: &Canary, app: &str) -> String {
    let Canary { worker, percent, remaining_ms } = canary;
    let until = match remaining_ms {
        Some(ms) => format!("for {} more", text::time(*ms)),
        None => format!("until 'dogwatch promote {app}' or 'dogwatch rollback {app}'"),
    };
    format!("worker {worker} gets {percent} of 100 connections {until}")
}

fn describe_balance(balance: &Balance) -> String {
    let mut line = balance.in_force.clone();
    if let Some(lanes) = balance.lanes {
        let _ = write!(line, ", {lanes} lanes");
    }
    if let Some(unsteered) = balance.unsteered.filter(|count| *count > 0) {
        let _ = write!(line, ", {unsteered} connections found none");
    }
    if balance.in_force != balance.asked {
        let _ = write!(line, "; '{}' was asked for", balance.asked);
    }
    if let Some(why) = &balance.why {
        let _ = write!(line, ": {why}");
    }
    line
}

fn describe_slot(text: &mut String, slot: &Slot, app: &Measured) {
    let _ = writeln!(
        text,
        "\nslot {}: {}, generation {}",
        slot.slot,
        slot.state.word(),
        slot.generation
    );
    let restarts = match (slot.restarts, slot.failures) {
        (restarts, 0) => restarts.to_string(),
        (restarts, 1) => format!("{restarts}, after a failure"),
        (restarts, failures) => format!("{restarts}, after {failures} failures in a row"),
    };
    row(text, "restarts", restarts);
    slot.given.iter().for_each(|given| row(text, "was given", format_args!("{given} connections")));
    slot.retry_in_ms.iter().for_each(|ms| row(text, "tried again in", text::time(*ms)));
    slot.reason
        .iter()
        .for_each(|reason| row(text, "given up", format_args!("its worker {reason}")));
    if let Some(exit) = &slot.last_exit {
        row(
            text,
            "last exit",
            format_args!(
                "worker {} (generation {}) {}, {} ago",
                exit.worker,
                exit.generation,
                exit.reason,
                text::time(exit.ago_ms)
            ),
        );
    }
    for worker in &slot.workers {
        describe_worker(text, worker, app);
    }
}

fn describe_worker(text: &mut String, worker: &Worker, app: &Measured) {
    let pid =
        worker.pid.map_or("gone, not all that it started".to_owned(), |pid| format!("pid {pid}"));
    row(
        text,
        &format!("worker {}", worker.worker),
        format_args!(
            "{}, {}, {pid}, generation {}, up {}",
            worker.role.word(),
            worker.state.word(),
            worker.generation,
            text::time(worker.up_ms)
        ),
    );
    if let (Some(ms), Some(because)) = (worker.ready_after_ms, &worker.ready_because) {
        row(text, "ready", format_args!("after {}: {because}", text::time(ms)));
    }
    worker.status.iter().for_each(|status| row(text, "says", printable(status)));
    if let Some(Lane { number, waiting, given }) = worker.lane {
        let given = given.map_or(String::new(), |given| format!(", {given} given"));
        row(text, "lane", format_args!("{number}, {waiting} connections wait{given}"));
    }
    if let Some(channel) = &worker.channel {
        row(text, "channel", describe_channel(channel));
    }
    if let Some(usage) = app.usage.get(&worker.worker) {
        let connections = usage.connections.map_or("unknown".to_owned(), |count| count.to_string());
        row(
            text,
            "uses",
            format_args!(
                "{} memory, {} cpu, {} process{}, {connections} open connections",
                text::size(usage.memory_bytes),
                text::cpu(usage.cpu_ms),
                usage.processes,
                if usage.processes == 1 { "" } else { "es" }
            ),
        );
    }
}

fn describe_channel(channel: &Channel) -> String {
    let Channel { taken, refused, heard, told, dropped, unread } = channel;
    let mut line = format!("{taken} connections taken, {heard} messages from it, {told} to it");
    if *refused > 0 {
        let _ = write!(line, ", {refused} connections refused");
    }
    if *unread > 0 || *dropped > 0 {
        let unread = text::size(u64::try_from(*unread).unwrap_or(u64::MAX));
        let _ = write!(line, "; it has {unread} not read yet, {dropped} messages were dropped");
    }
    line
}

fn describe_failure(text: &mut String, failure: &Failure) {
    let _ = writeln!(
        text,
        "\nlast failure, {}: worker {} (slot {}, generation {}) {}",
        text::moment(failure.time_usec),
        failure.worker,
        failure.slot,
        failure.generation,
        printable(&failure.reason)
    );
    for line in &failure.lines {
        let _ = writeln!(text, "    {}", printable(line));
    }
    if let Some(hint) = &failure.hint {
        let _ = writeln!(text, "hint: {}", printable(hint));
    }
}
