//! `dogwatch upgrade`: the primary executes the program that is installed now; and the trial by which that program shows
//! that it can.

use super::apps;
use super::text::say;
use super::trouble::{Code, Trouble};
use crate::primary;
use crate::protocol::control::{Call, Listed, Upgraded};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long the new program may take to answer once it was executed.
const PATIENCE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(20);

/// Upgrades the primary of an app and waits until the new one answers.
pub(super) fn upgrade(app: &str, control: Option<&Path>) -> Result<ExitCode, Trouble> {
    let mut client = apps::find(app, control)?;
    let (before, old) = (client.primary.primaries, client.primary.version.clone());
    client.send(&Call::Upgrade, false, "upgrade")?;
    let upgraded = client.receive::<Upgraded>(Some(PATIENCE), "upgrade")?.0;
    let begun = now();
    while begun.elapsed() < PATIENCE {
        // Between the two there is a moment in which nobody answers.
        if let Ok(mut client) = apps::find(app, control)
            && client.primary.primaries > before
            && let Ok(Listed { app: now }) = client.ask::<Listed>(&Call::List, "upgrade")
        {
            let (new, ready, slots) = (&now.primary.version, now.ready_slots, now.slots.len());
            let what = if *new == old {
                format!("'{app}' runs '{}' anew, still version {new}", upgraded.program)
            } else {
                format!("upgraded '{app}' from version {old} to {new}")
            };
            say(&format!("{what}; {ready} of {slots} slots are served"))?;
            return Ok(ExitCode::SUCCESS);
        }
        pause();
    }
    let waited = PATIENCE.as_secs();
    let text = format!(
        "cannot upgrade '{app}': '{}' was executed and has not answered for {waited}s; systemd starts it again when it ends",
        upgraded.program
    );
    Err(Trouble::new(Code::Failed, text))
}

#[expect(clippy::disallowed_methods, reason = "nothing tells a client when somebody will listen")]
fn pause() {
    std::thread::sleep(AGAIN);
}

#[expect(clippy::disallowed_methods, reason = "a client measures its own patience")]
fn now() -> Instant {
    Instant::now()
}

/// Says this program's version if it can read the state that is passed to it.
pub(super) fn trial() -> Result<ExitCode, Trouble> {
    match primary::trial() {
        Ok(version) => say(&version).map(|()| ExitCode::SUCCESS),
        Err(error) => Err(Trouble::new(Code::Failed, error.message)),
    }
}
