//! `dogwatch reload`: asks for a rollout, tells how it goes, and returns its verdict.

use super::apps;
use super::client::Client;
use super::list::to_json;
use super::trouble::{Code, Trouble, printable};
use crate::protocol::control::{self, Call, Change, Event, Failure, Listed, Reloading};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

/// What `reload` is given.
#[derive(Debug, clap::Args)]
pub(super) struct ReloadArguments {
    /// The app
    #[arg(value_name = "APP", value_parser = super::target::app_name, add = super::complete_apps())]
    app: String,
    /// Return when the reload has begun
    #[arg(long, conflicts_with = "dry_run")]
    no_wait: bool,
    /// Tell what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print each event and the verdict as JSON, a line each
    #[arg(long)]
    json: bool,
}

/// Asks, waits, and returns the verdict: done, or the trouble that undid it.
pub(super) fn reload(
    arguments: &ReloadArguments,
    control: Option<&Path>,
) -> Result<ExitCode, Trouble> {
    let mut client = apps::find(&arguments.app, control)?;
    let some = |flag: bool| flag.then_some(true);
    let call = Call::Reload(control::Reload {
        no_wait: some(arguments.no_wait),
        dry_run: some(arguments.dry_run),
    });
    if arguments.dry_run {
        let answer: Reloading = client.ask(&call, "reload")?;
        tell_changes(&arguments.app, &answer.changes.unwrap_or_default(), arguments.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.no_wait {
        let answer: Reloading = client.ask(&call, "reload")?;
        say(&arguments.app, &answer, arguments.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut progress = Progress::new(&mut client, arguments, control)?;
    let verdict = client.follow::<Reloading>(&call, "reload", |answer| {
        progress.tell(&answer);
        ControlFlow::Continue(())
    });
    progress.end();
    match verdict {
        Ok(Some(verdict)) => {
            say(&arguments.app, &verdict, arguments.json)?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(None) => Err(Trouble::new(Code::Failed, "the reload has no verdict")),
        Err(trouble) if arguments.json => {
            tell_json(&trouble)?;
            Err(Trouble { failure: None, ..trouble })
        }
        // The journal has the lines already, each by itself.
        Err(trouble) if in_journal() => Err(Trouble { failure: None, ..trouble }),
        Err(trouble) => Err(trouble),
    }
}

/// The verdict that is none, as the last line.
#[expect(clippy::print_stdout, reason = "the verdict")]
fn tell_json(trouble: &Trouble) -> Result<(), Trouble> {
    let line = Undone {
        error: &trouble.message,
        exit_code: trouble.code as u8,
        hint: trouble.hint.as_deref(),
        failure: trouble.failure.as_deref(),
    };
    println!("{}", one_line(&line)?);
    Ok(())
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Undone<'a> {
    error: &'a str,
    exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a Failure>,
}

/// Standard error goes to the journal: this is the unit's ExecReload=, and the primary says all of it there.
fn in_journal() -> bool {
    libsystemd::logging::connected_to_journal()
}

#[expect(clippy::print_stdout, reason = "the verdict")]
fn say(app: &str, answer: &Reloading, json: bool) -> Result<(), Trouble> {
    if json {
        println!("{}", one_line(answer)?);
    } else if let Some(text) = answer.text.as_ref().filter(|_| !in_journal()) {
        println!("{text}");
    } else if let Some(generation) = answer.generation.filter(|_| answer.text.is_none()) {
        println!("reload of '{app}' to generation {generation} has begun");
    }
    Ok(())
}

fn one_line(answer: &impl serde::Serialize) -> Result<String, Trouble> {
    let text = serde_json::to_string(answer);
    text.map_err(|e| Trouble::new(Code::Failed, format!("cannot write JSON: {e}")))
}

#[expect(clippy::print_stdout, reason = "this is what the flag is for")]
fn tell_changes(app: &str, changes: &[Change], json: bool) -> Result<(), Trouble> {
    if json {
        println!("{}", to_json(&serde_json::json!({ "changes": changes }))?);
        return Ok(());
    }
    if changes.is_empty() {
        println!("no setting of '{app}' would change; its workers would be relieved all the same");
    }
    for Change { key, from, to } in changes {
        let or_none = |value: &Option<String>| match value {
            Some(text) if !text.is_empty() => printable(text),
            Some(_) | None => "(none)".to_owned(),
        };
        println!("{key}: {} -> {}", or_none(from), or_none(to));
    }
    Ok(())
}

/// How it goes: a bar on a terminal, else a line for each event.
enum Progress {
    Bar { bar: ProgressBar, client: Box<Client> },
    Lines,
    Json,
    Silent,
}

impl Progress {
    fn new(
        client: &mut Client,
        arguments: &ReloadArguments,
        control: Option<&Path>,
    ) -> Result<Self, Trouble> {
        if arguments.json {
            return Ok(Self::Json);
        }
        if in_journal() {
            return Ok(Self::Silent);
        }
        if !std::io::stderr().is_terminal() {
            return Ok(Self::Lines);
        }
        let slots = client.ask::<Listed>(&Call::List, "reload")?.app.slots.len();
        let bar = ProgressBar::with_draw_target(Some(slots as u64), ProgressDrawTarget::stderr());
        let style =
            ProgressStyle::with_template("{bar:24} {pos}/{len} slots  {elapsed}  {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        // A connection of its own asks how far it is.
        let client = apps::find(&arguments.app, control);
        Ok(client.map_or(Self::Lines, |client| Self::Bar { bar, client: Box::new(client) }))
    }

    #[expect(clippy::print_stdout, reason = "this is what people wait for")]
    fn tell(&mut self, answer: &Reloading) {
        let Some(event) = &answer.event else { return };
        match self {
            Self::Json => {
                if let Ok(line) = one_line(answer) {
                    println!("{line}");
                }
            }
            Self::Lines => println!("{}", event.text),
            Self::Silent => {}
            Self::Bar { bar, client } => advance(bar, client, event),
        }
    }

    fn end(&self) {
        if let Self::Bar { bar, .. } = self {
            bar.finish_and_clear();
        }
    }
}

fn advance(bar: &ProgressBar, client: &mut Client, event: &Event) {
    bar.println(&event.text);
    if let Ok(Listed { app }) = client.ask(&Call::List, "reload") {
        bar.set_length(app.slots.len() as u64);
        bar.set_position(app.slots_done.unwrap_or(0) as u64);
        bar.set_message(app.status);
    }
}
