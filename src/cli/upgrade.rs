//! `dogwatch upgrade`: the primary executes the program that is installed now; and the trial by which that program shows
//! that it can.

use super::apps;
use super::client::Client;
use super::text::say;
use super::trouble::{Code, Trouble, printable};
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
    begin(app, apps::find(app, control)?, || apps::find(app, control).ok())
}

/// Upgrades the primaries of all apps on this host, one after the other, and says of each how it went. Fails when one was
/// refused; the others are upgraded all the same.
pub(super) fn upgrade_all(control: Option<&Path>) -> Result<ExitCode, Trouble> {
    let sockets = match control {
        Some(path) => vec![("app".to_owned(), path.to_owned())],
        None => apps::sockets(),
    };
    let (mut runs, mut refused) = (false, false);
    for (name, path) in &sockets {
        let upgraded = match apps::reach(name, path) {
            // Whoever listened there has ended.
            Ok(None) => continue,
            Ok(Some(client)) => {
                let app = client.primary.name.clone();
                begin(&app, client, || apps::reach(&app, path).ok().flatten())
            }
            Err(trouble) => Err(trouble),
        };
        runs = true;
        if let Err(trouble) = upgraded {
            trouble.tell();
            refused = true;
        }
    }
    if !runs {
        say("no app is running")?;
    }
    Ok(if refused { ExitCode::from(Code::Failed as u8) } else { ExitCode::SUCCESS })
}

/// Asks a primary; `again` reaches the one that follows it.
fn begin(
    app: &str,
    mut client: Client,
    again: impl Fn() -> Option<Client>,
) -> Result<ExitCode, Trouble> {
    let (before, old) = (client.primary.primaries, client.primary.version.clone());
    client.send(&Call::Upgrade, false, "upgrade")?;
    let upgraded = client.receive::<Upgraded>(Some(PATIENCE), "upgrade")?.0;
    let begun = now();
    while begun.elapsed() < PATIENCE {
        // Between the two there is a moment in which nobody answers.
        if let Some(mut client) = again()
            && client.primary.primaries > before
            && let Ok(Listed { app: now }) = client.ask::<Listed>(&Call::List, "upgrade")
        {
            let (new, ready, slots) = (&now.primary.version, now.ready_slots, now.slots.len());
            let what = if *new == old {
                format!("'{app}' runs '{}' anew, still version {new}", upgraded.program)
            } else {
                format!("upgraded '{app}' from version {old} to {new}")
            };
            // What a primary says of itself goes to root's terminal.
            say(&printable(&format!("{what}; {ready} of {slots} slots are served")))?;
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
