//! `dogwatch events`: what happens to an app, as it happens, until Ctrl-C or the app's end.

use super::apps;
use super::text;
use super::trouble::{Code, Trouble};
use crate::protocol::control::{Call, Happened};
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

/// Prints events, a line each.
pub(super) fn events(app: &str, control: Option<&Path>, json: bool) -> Result<ExitCode, Trouble> {
    let mut client = apps::find(app, control)?;
    let mut out = std::io::stdout();
    let mut ends = false;
    let followed = client.follow::<Happened>(&Call::Subscribe, "follow", |Happened { event }| {
        let Some(event) = event else { return ControlFlow::Continue(()) };
        ends |= event.kind == "stopping";
        let line = if json {
            serde_json::to_string(&event).unwrap_or_default()
        } else {
            format!("{} {:<12} {}", text::moment(event.time_usec), event.kind, event.text)
        };
        // A reader that is gone, as head(1), has seen enough.
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    match followed {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(_) if ends => Ok(ExitCode::SUCCESS),
        Err(trouble) => Err(Trouble { code: Code::Failed, ..trouble }),
    }
}
