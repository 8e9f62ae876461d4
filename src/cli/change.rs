//! The verbs that change something and have their effect soon: restart, start, stop, scale, pause, resume, promote,
//! rollback, reset, kill.
//! Each waits until what was asked is so, unless it is told not to.

use super::apps;
use super::client::Client;
use super::target::Target;
use super::text::say;
use super::trouble::{Code, Trouble, printable};
use super::usage::workers;
use crate::protocol::control::{
    App, AppState, Call, Event, Happened, Kill, Killed, Listed, MaybeSlot, OneSlot, Restarted,
    Scale, Scaled, Shown, Slot, SlotState, Subscribe,
};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// What is waited for.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// This slot, or every one that is not stopped, is served by workers that are newer than this one.
    Served { slot: Option<u16>, newer_than: u64 },
    /// Nobody is in this slot.
    Empty(u16),
    /// Nobody is anywhere, and the app is paused.
    Paused,
    /// The slots that are new are served, those that are too many are empty.
    Slots { from: u16, to: u16 },
    /// The rollout is undone.
    RolledBack,
}

/// How things stand with what is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Yes,
    NotYet,
    /// It will not come to pass, and why.
    Never(String),
}

fn never(why: &str) -> Verdict {
    Verdict::Never(why.to_owned())
}

impl Until {
    fn judge(self, app: &App) -> Verdict {
        if app.state == AppState::Stopping {
            return never("everything is being stopped");
        }
        let is_in = |slot: u16| workers(app).any(|worker| worker.slot == slot);
        let one = |slot: u16| app.slots.iter().find(|s| s.slot == slot);
        match self {
            Self::RolledBack if app.state == AppState::RollingBack => Verdict::NotYet,
            Self::RolledBack => Verdict::Yes,
            Self::Paused if app.state != AppState::Paused => never("it was resumed meanwhile"),
            Self::Paused if workers(app).next().is_none() => Verdict::Yes,
            Self::Paused => Verdict::NotYet,
            Self::Empty(slot) => match one(slot) {
                Some(s) if s.state != SlotState::Stopped => never("it was started meanwhile"),
                _ if is_in(slot) => Verdict::NotYet,
                _ => Verdict::Yes,
            },
            Self::Slots { to, .. } if app.slots.len() != usize::from(to) => {
                never("the number of slots was changed meanwhile")
            }
            Self::Slots { from, to } => {
                let added = app.slots.iter().filter(|s| s.slot >= from);
                let leaving = app.leaving.iter().any(|worker| worker.slot >= to);
                let all = all(added.map(|slot| served(slot, 0, true)));
                if leaving && all == Verdict::Yes { Verdict::NotYet } else { all }
            }
            Self::Served { .. } if app.state == AppState::Paused => {
                never("it was paused meanwhile")
            }
            Self::Served { slot: Some(slot), newer_than } => match one(slot) {
                Some(slot) => served(slot, newer_than, false),
                None => never("the number of slots was changed meanwhile"),
            },
            Self::Served { slot: None, newer_than } => {
                all(app.slots.iter().map(|slot| served(slot, newer_than, true)))
            }
        }
    }

    /// Whether an event says that it will not come to pass.
    fn is_dashed_by(self, event: &Event) -> bool {
        let failed = matches!(event.kind.as_str(), "failed" | "given_up");
        match self {
            Self::Served { slot, newer_than } => {
                failed
                    && event.worker.is_some_and(|worker| worker > newer_than)
                    && slot.is_none_or(|slot| event.slot == Some(slot))
            }
            Self::Slots { from, .. } => failed && event.slot.is_some_and(|slot| slot >= from),
            Self::Empty(_) | Self::Paused | Self::RolledBack => false,
        }
    }
}

/// Whether a slot is served by workers that are newer than this one; one that was stopped may be meant to be so.
fn served(slot: &Slot, newer_than: u64, may_be_stopped: bool) -> Verdict {
    match slot.state {
        SlotState::Ready if slot.workers.iter().all(|w| w.worker > newer_than) => Verdict::Yes,
        SlotState::Stopped if slot.workers.is_empty() && may_be_stopped => Verdict::Yes,
        SlotState::Stopped if slot.workers.is_empty() => never("it was stopped meanwhile"),
        SlotState::Failed => {
            let reason = slot.reason.as_deref().unwrap_or("failed again and again");
            Verdict::Never(format!("slot {} is given up: its worker {reason}", slot.slot))
        }
        SlotState::Ready | SlotState::Stopped | SlotState::Starting | SlotState::Waiting => {
            Verdict::NotYet
        }
    }
}

fn all(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let mut all = Verdict::Yes;
    for verdict in verdicts {
        match verdict {
            Verdict::Never(why) => return Verdict::Never(why),
            Verdict::NotYet => all = Verdict::NotYet,
            Verdict::Yes => {}
        }
    }
    all
}

/// Events that are there already come within this time.
const AT_ONCE: Duration = Duration::from_millis(10);

/// Who is asked, and whether it is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct How<'a> {
    pub(super) control: Option<&'a Path>,
    pub(super) no_wait: bool,
}

/// Stops, then starts one slot or all.
pub(super) fn restart(target: &Target, how: How<'_>) -> Result<ExitCode, Trouble> {
    let call = Call::Restart(MaybeSlot { slot: target.slot });
    change::<Restarted>(target, how, &call, "restart", |_, app| Until::Served {
        slot: target.slot,
        newer_than: newest(app),
    })
}

/// Serves a slot again.
pub(super) fn start(target: &Target, how: How<'_>) -> Result<ExitCode, Trouble> {
    let call = Call::Start(OneSlot { slot: target.slot.unwrap_or_default() });
    change::<Nothing>(target, how, &call, "start", |_, app| Until::Served {
        slot: target.slot,
        newer_than: newest(app),
    })
}

/// Serves a slot no more.
pub(super) fn stop(target: &Target, how: How<'_>) -> Result<ExitCode, Trouble> {
    let call = Call::Stop(OneSlot { slot: target.slot.unwrap_or_default() });
    change::<Nothing>(target, how, &call, "stop", |_, _| {
        Until::Empty(target.slot.unwrap_or_default())
    })
}

/// Ends all workers, keeps the sockets.
pub(super) fn pause(target: &Target, how: How<'_>) -> Result<ExitCode, Trouble> {
    change::<Nothing>(target, how, &Call::Pause, "pause", |_, _| Until::Paused)
}

/// Serves again.
pub(super) fn resume(target: &Target, how: How<'_>) -> Result<ExitCode, Trouble> {
    change::<Nothing>(target, how, &Call::Resume, "resume", |_, app| Until::Served {
        slot: None,
        newer_than: newest(app),
    })
}

/// Changes the number of slots.
pub(super) fn scale(target: &Target, scale: Scale, how: How<'_>) -> Result<ExitCode, Trouble> {
    change::<Scaled>(target, how, &Call::Scale(scale), "scale", |scaled, _| Until::Slots {
        from: scaled.from,
        to: scaled.to,
    })
}

/// Undoes the rollout under way.
pub(super) fn rollback(target: &Target, how: How<'_>) -> Result<ExitCode, Trouble> {
    change::<Nothing>(target, how, &Call::Rollback, "roll back", |_, _| Until::RolledBack)
}

/// Ends the wait for a canary. How the rollout ends is what `reload` tells.
pub(super) fn promote(app: &str, control: Option<&Path>) -> Result<ExitCode, Trouble> {
    apps::find(app, control)?.ask::<Nothing>(&Call::Promote, "promote the canary of")?;
    say(&format!("the canary of '{app}' is promoted, the reload goes on"))?;
    Ok(ExitCode::SUCCESS)
}

/// Forgets failures.
pub(super) fn reset(target: &Target, control: Option<&Path>) -> Result<ExitCode, Trouble> {
    let mut client = apps::find(&target.app, control)?;
    client.ask::<Nothing>(&Call::Reset(MaybeSlot { slot: target.slot }), "reset")?;
    say(&format!("the failures of '{target}' are forgotten"))?;
    Ok(ExitCode::SUCCESS)
}

/// Sends a signal.
pub(super) fn kill(
    target: &Target,
    signal: &str,
    control: Option<&Path>,
) -> Result<ExitCode, Trouble> {
    let mut client = apps::find(&target.app, control)?;
    let kill = Kill { signal: signal.to_owned(), slot: target.slot };
    let Killed { pids } = client.ask(&Call::Kill(kill), "signal")?;
    if pids.is_empty() {
        return Err(Trouble::new(
            Code::Failed,
            format!("cannot signal '{target}': nobody is there"),
        ));
    }
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    say(&format!("sent {signal} to {}", pids.join(", ")))?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, serde::Deserialize)]
struct Nothing {}

fn newest(app: &App) -> u64 {
    workers(app).map(|worker| worker.worker).max().unwrap_or(0)
}

/// Subscribes, asks, and tells what happens until it is so.
fn change<T: serde::de::DeserializeOwned + std::fmt::Debug>(
    target: &Target,
    how: How<'_>,
    call: &Call,
    what: &str,
    until: impl FnOnce(&T, &App) -> Until,
) -> Result<ExitCode, Trouble> {
    let what = &match target.slot {
        Some(slot) => format!("{what} slot {slot} of"),
        None => what.to_owned(),
    };
    // A connection on which nothing is asked for long is closed; so each question has its own.
    let ask = || apps::find(&target.app, how.control);
    let before = ask()?.ask::<Listed>(&Call::List, what)?.app;
    if let Some(already) = already(call, &before) {
        say(&already)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut events = ask()?;
    events.send(&Call::Subscribe(Subscribe::default()), true, what)?;
    events.receive::<Happened>(None, what)?;
    let answer: T = ask()?.ask(call, what)?;
    let until = until(&answer, &before);
    if how.no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        let verdict = until.judge(&ask()?.ask::<Listed>(&Call::List, what)?.app);
        // What has happened already is told, too; what is still to come is waited for.
        let patience = (verdict != Verdict::NotYet).then_some(AT_ONCE);
        let dashed = tell_events(&mut events, patience, what, until)?;
        match (verdict, dashed) {
            (Verdict::Yes, _) => return Ok(ExitCode::SUCCESS),
            (_, Some(event)) => return Err(failed(&mut ask()?, target, what, &event)),
            (Verdict::Never(why), None) => {
                return Err(Trouble::new(
                    Code::Failed,
                    format!("cannot {what} '{}': {why}", target.app),
                ));
            }
            (Verdict::NotYet, None) => {}
        }
    }
}

/// What is so already needs no asking, and is no failure.
fn already(call: &Call, app: &App) -> Option<String> {
    let name = &app.primary.name;
    let state = |slot: &u16| app.slots.iter().find(|s| s.slot == *slot).map(|s| s.state);
    let is_paused = app.state == AppState::Paused;
    if let Call::Stop(OneSlot { slot }) = call {
        let is_so = state(slot) == Some(SlotState::Stopped) && !is_paused;
        is_so.then(|| format!("slot {slot} of '{name}' is stopped already"))
    } else if let Call::Start(OneSlot { slot }) = call {
        let is_so = state(slot).is_some_and(|state| state != SlotState::Stopped);
        is_so.then(|| format!("slot {slot} of '{name}' is not stopped"))
    } else if let Call::Pause = call {
        is_paused.then(|| format!("'{name}' is paused already"))
    } else if let Call::Resume = call {
        (!is_paused).then(|| format!("'{name}' is not paused"))
    } else {
        None
    }
}

/// Tells what has happened, after waiting for it; returns what dashes all hope.
fn tell_events(
    events: &mut Client,
    mut patience: Option<Duration>,
    what: &str,
    until: Until,
) -> Result<Option<Event>, Trouble> {
    loop {
        match events.receive::<Happened>(patience, what) {
            Ok((Happened { event }, _)) => {
                let Some(event) = event else { continue };
                say(&printable(&event.text))?;
                if until.is_dashed_by(&event) {
                    return Ok(Some(event));
                }
            }
            Err(_) if patience.is_some() => return Ok(None),
            Err(trouble) => return Err(trouble),
        }
        patience = Some(AT_ONCE);
    }
}

fn failed(client: &mut Client, target: &Target, what: &str, event: &Event) -> Trouble {
    let trouble =
        Trouble::new(Code::Failed, format!("cannot {what} '{}': {}", target.app, event.text));
    let shown = client.ask::<Shown>(&Call::Show(MaybeSlot { slot: event.slot }), what);
    let failure = shown.ok().and_then(|shown| shown.last_failure);
    // It may have failed once more by now, which says the same.
    Trouble { failure: failure.filter(|f| Some(f.slot) == event.slot).map(Box::new), ..trouble }
}
