//! `dogwatch send APP[/SLOT] JSON`: a message to the programs of Node's workers, and what they send back.

use super::apps;
use super::target::{self, Target};
use super::text::say;
use super::trouble::{Code, Trouble, printable};
use crate::config::values::Time;
use crate::protocol::control::{Call, Event, Send, Sent};
use crate::sys::process::monotonic_nanos;
use clap_complete::engine::ArgValueCandidates;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct SendArguments {
    /// The app, or one slot of it
    #[arg(value_name = "APP[/SLOT]", add = ArgValueCandidates::new(target::candidates))]
    target: Target,
    /// The message: JSON of any type; a text is written '"text"'
    #[arg(value_name = "JSON", value_parser = json, allow_hyphen_values = true)]
    message: Value,
    /// How long answers are waited for; no longer than until every worker has sent one
    #[arg(long, value_name = "TIME", default_value = "1s")]
    wait: Time,
    /// Print JSON, a line for each answer
    #[arg(long)]
    json: bool,
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| format!("not JSON ({e}); a text is written '\"text\"'"))
}

/// Sends it, and prints the first message that each worker sends after.
pub(super) fn send(arguments: &SendArguments, control: Option<&Path>) -> Result<ExitCode, Trouble> {
    let Target { app, slot } = &arguments.target;
    let mut client = apps::find(app, control)?;
    let call = Call::Send(Send { slot: *slot, message: arguments.message.clone() });
    client.send(&call, true, "send to")?;
    let (sent, _) = client.receive::<Sent>(Some(Duration::from_secs(5)), "send to")?;
    let unread = sent.unread.unwrap_or_default();
    let mut silent: BTreeSet<u64> = sent.workers.unwrap_or_default().into_iter().collect();
    let began = monotonic_nanos();
    let left = || arguments.wait.0.checked_sub(Duration::from_nanos(monotonic_nanos() - began));
    while !silent.is_empty()
        && let Some(left) = left()
        && let Some((sent, _)) = client.receive_within::<Sent>(Some(left), "send to")?
    {
        // What workers say to each other is no answer.
        let Some(event) = sent.event.filter(|event| !is_letter(event)) else { continue };
        if event.worker.is_some_and(|worker| silent.remove(&worker)) || event.worker.is_none() {
            print(app, &event, arguments.json)?;
        }
    }
    if unread.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let workers: Vec<String> = unread.iter().map(u64::to_string).collect();
    let text = format!(
        "cannot send to worker {} of '{app}': it does not read its messages; the others have it",
        workers.join(", ")
    );
    Err(Trouble::new(Code::Failed, text))
}

fn is_letter(event: &Event) -> bool {
    let kind = event.message.as_ref().and_then(|message| message.get("type")?.as_str());
    kind.is_some_and(|kind| kind.starts_with("dogwatch:"))
}

fn print(app: &str, event: &Event, json: bool) -> Result<(), Trouble> {
    let line = match (json, event.slot, &event.message) {
        (true, _, _) => serde_json::to_string(event).unwrap_or_default(),
        (false, Some(slot), Some(message)) => printable(&format!("{app}/{slot}: {message}")),
        (false, _, _) => printable(&event.text),
    };
    say(&line)
}
