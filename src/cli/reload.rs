//! `dogwatch reload`: asks for a rollout, tells how it goes, and returns its verdict.

use super::apps;
use super::client::Client;
use super::list::to_json;
use super::text;
use super::trouble::{Code, Trouble, printable};
use crate::protocol::control::{self, Call, Change, Failure, Listed, Reloading};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How often the bar shows that time passes.
const SECOND: Duration = Duration::from_secs(1);

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
    match ask(arguments, control) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(trouble) if arguments.json => {
            tell_json(&trouble)?;
            Err(Trouble { failure: None, ..trouble })
        }
        // The journal has the lines already, each by itself.
        Err(trouble) if in_journal() => Err(Trouble { failure: None, ..trouble }),
        Err(trouble) => Err(trouble),
    }
}

fn ask(arguments: &ReloadArguments, control: Option<&Path>) -> Result<(), Trouble> {
    let mut client = apps::find(&arguments.app, control)?;
    let some = |flag: bool| flag.then_some(true);
    let call = Call::Reload(control::Reload {
        no_wait: some(arguments.no_wait),
        dry_run: some(arguments.dry_run),
    });
    if arguments.dry_run {
        let answer: Reloading = client.ask(&call, "reload")?;
        return tell_changes(&arguments.app, &answer.changes.unwrap_or_default(), arguments.json);
    }
    if arguments.no_wait {
        let answer: Reloading = client.ask(&call, "reload")?;
        return say(&arguments.app, &answer, arguments.json);
    }
    let mut progress = Progress::new(&mut client, arguments, control)?;
    let mut unwritten = None;
    let verdict = client.follow::<Reloading>(&call, "reload", |answer| {
        // Nobody reads how it goes; the verdict counts all the same.
        unwritten = progress.tell(&answer).err();
        ControlFlow::Continue(())
    });
    progress.end();
    match verdict? {
        Some(verdict) => say(&arguments.app, &verdict, arguments.json)?,
        None => return Err(Trouble::new(Code::Failed, "the reload has no verdict")),
    }
    unwritten.map_or(Ok(()), Err)
}

/// Standard error goes to the journal: this is the unit's ExecReload=, and the primary says all of it there.
fn in_journal() -> bool {
    libsystemd::logging::connected_to_journal()
}

/// The verdict that is none, as the last line.
fn tell_json(trouble: &Trouble) -> Result<(), Trouble> {
    let line = Undone {
        error: &trouble.message,
        exit_code: trouble.code as u8,
        hint: trouble.hint.as_deref(),
        failure: trouble.failure.as_deref(),
    };
    text::say(&one_line(&line)?)
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

fn say(app: &str, answer: &Reloading, json: bool) -> Result<(), Trouble> {
    if json {
        text::say(&one_line(answer)?)
    } else if let Some(text) = answer.text.as_ref().filter(|_| !in_journal()) {
        text::say(&printable(text))
    } else if let Some(generation) = answer.generation.filter(|_| answer.text.is_none()) {
        text::say(&format!("reload of '{app}' to generation {generation} has begun"))
    } else {
        Ok(())
    }
}

fn one_line(answer: &impl serde::Serialize) -> Result<String, Trouble> {
    let text = serde_json::to_string(answer);
    text.map_err(|e| Trouble::new(Code::Failed, format!("cannot write JSON: {e}")))
}

fn tell_changes(app: &str, changes: &[Change], json: bool) -> Result<(), Trouble> {
    if json {
        return text::say(&to_json(&serde_json::json!({ "changes": changes }))?);
    }
    if changes.is_empty() {
        text::say(&format!(
            "no setting of '{app}' would change; its workers would be relieved all the same"
        ))?;
    }
    for Change { key, from, to } in changes {
        let or_none = |value: &Option<String>| match value {
            Some(text) if !text.is_empty() => printable(text),
            Some(_) | None => "(none)".to_owned(),
        };
        text::say(&format!("{key}: {} -> {}", or_none(from), or_none(to)))?;
    }
    Ok(())
}

/// How it goes: a bar on a terminal, else a line for each event.
enum Progress<'a> {
    Bar { bar: ProgressBar, app: &'a str, control: Option<&'a Path> },
    Lines,
    Json,
    Silent,
}

impl<'a> Progress<'a> {
    fn new(
        client: &mut Client,
        arguments: &'a ReloadArguments,
        control: Option<&'a Path>,
    ) -> Result<Self, Trouble> {
        if arguments.json {
            return Ok(Self::Json);
        }
        if in_journal() {
            return Ok(Self::Silent);
        }
        let slots = client.ask::<Listed>(&Call::List, "reload")?.app.slots.len();
        let bar = ProgressBar::with_draw_target(Some(slots as u64), ProgressDrawTarget::stderr());
        if bar.is_hidden() {
            // No terminal, or one that cannot draw.
            return Ok(Self::Lines);
        }
        let style =
            ProgressStyle::with_template("{bar:24} {pos}/{len} slots  {elapsed}  {wide_msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        bar.enable_steady_tick(SECOND);
        Ok(Self::Bar { bar, app: &arguments.app, control })
    }

    fn tell(&mut self, answer: &Reloading) -> Result<(), Trouble> {
        let Some(event) = &answer.event else { return Ok(()) };
        match self {
            Self::Json => text::say(&one_line(answer)?),
            Self::Lines => text::say(&printable(&event.text)),
            Self::Silent => Ok(()),
            Self::Bar { bar, app, control } => {
                bar.println(printable(&event.text));
                // A connection on which nothing is asked for long is closed; so each question has its own.
                let listed = apps::find(app, *control)?.ask::<Listed>(&Call::List, "reload")?;
                bar.set_length(listed.app.slots.len() as u64);
                bar.set_position(listed.app.slots_done.unwrap_or(0) as u64);
                bar.set_message(printable(&listed.app.status));
                Ok(())
            }
        }
    }

    fn end(&self) {
        if let Self::Bar { bar, .. } = self {
            bar.finish_and_clear();
        }
    }
}
