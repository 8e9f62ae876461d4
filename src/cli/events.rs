//! `dogwatch events`: what happens to an app, as it happens, until Ctrl-C or the app's end.

use super::apps;
use super::text;
use super::trouble::{Trouble, printable};
use crate::protocol::control::{Call, Happened, Subscribe};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

/// Prints events, a line each.
pub(super) fn events(
    app: &str,
    control: Option<&Path>,
    json: bool,
    messages: bool,
) -> Result<ExitCode, Trouble> {
    let mut client = apps::find(app, control)?;
    let call = Call::Subscribe(Subscribe { messages: messages.then_some(true) });
    let mut ends = false;
    let mut unwritten = None;
    let followed = client.follow::<Happened>(&call, "follow", |Happened { event }| {
        let Some(event) = event else { return ControlFlow::Continue(()) };
        ends |= event.kind == "stopping";
        let line = if json {
            serde_json::to_string(&event).unwrap_or_default()
        } else {
            let (moment, kind) = (text::moment(event.time_usec), printable(&event.kind));
            format!("{moment} {kind:<12} {}", printable(&event.text))
        };
        match text::say(&line) {
            Ok(()) => ControlFlow::Continue(()),
            Err(trouble) => {
                unwritten = Some(trouble);
                ControlFlow::Break(())
            }
        }
    });
    match (followed, unwritten) {
        (_, Some(trouble)) => Err(trouble),
        (Err(trouble), None) if !ends => Err(trouble),
        (Ok(_) | Err(_), None) => Ok(ExitCode::SUCCESS),
    }
}
