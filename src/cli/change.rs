//! The verbs that change something and have their effect soon: restart, start, stop, scale, pause, resume, reset, kill.
//! Each waits until what was asked is so, unless it is told not to.

use super::apps;
use super::client::Client;
use super::target::Target;
use super::trouble::{Code, Trouble};
use super::usage::workers;
use crate::protocol::control::{
    App, Call, Event, Happened, Kill, Killed, Listed, MaybeSlot, OneSlot, Restarted, Scale, Scaled,
    Shown, SlotState,
};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// What is waited for.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// These slots are served, by workers that are newer than this one, and nobody is leaving them.
    Served { slot: Option<u16>, newer_than: u64 },
    /// Nobody is in these slots.
    Empty { slot: Option<u16> },
    /// There are so many slots, all served, and nobody beyond them.
    Slots(u16),
}

impl Until {
    fn is_so(self, app: &App) -> bool {
        let meant = |slot: u16, which: Option<u16>| which.is_none_or(|one| one == slot);
        match self {
            Self::Served { slot: which, newer_than } => {
                app.slots.iter().filter(|s| meant(s.slot, which)).all(|slot| {
                    let new = |w: &crate::protocol::control::Worker| w.worker > newer_than;
                    slot.state == SlotState::Stopped && slot.workers.is_empty() && which.is_none()
                        || slot.state == SlotState::Ready && slot.workers.iter().all(new)
                })
            }
            Self::Empty { slot: which } => !workers(app).any(|worker| meant(worker.slot, which)),
            Self::Slots(count) => {
                let served = |s: &crate::protocol::control::Slot| {
                    matches!(s.state, SlotState::Ready | SlotState::Stopped)
                };
                app.slots.len() == usize::from(count)
                    && app.leaving.is_empty()
                    && app.slots.iter().all(served)
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
            Self::Slots(_) => failed,
            Self::Empty { .. } => false,
        }
    }
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
    change::<Nothing>(target, how, &call, "stop", |_, _| Until::Empty { slot: target.slot })
}

/// Ends all workers, keeps the sockets.
pub(super) fn pause(target: &Target, how: How<'_>) -> Result<ExitCode, Trouble> {
    change::<Nothing>(target, how, &Call::Pause, "pause", |_, _| Until::Empty { slot: None })
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
    change::<Scaled>(target, how, &Call::Scale(scale), "scale", |scaled, _| Until::Slots(scaled.to))
}

/// Forgets failures.
#[expect(clippy::print_stdout, reason = "says that it is done")]
pub(super) fn reset(target: &Target, control: Option<&Path>) -> Result<ExitCode, Trouble> {
    let mut client = apps::find(&target.app, control)?;
    client.ask::<Nothing>(&Call::Reset(MaybeSlot { slot: target.slot }), "reset")?;
    println!("the failures of '{target}' are forgotten");
    Ok(ExitCode::SUCCESS)
}

/// Sends a signal.
#[expect(clippy::print_stdout, reason = "says whom it went to")]
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
    println!("sent {signal} to {}", pids.join(", "));
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, serde::Deserialize)]
struct Nothing {}

fn newest(app: &App) -> u64 {
    workers(app).map(|worker| worker.worker).max().unwrap_or(0)
}

/// Subscribes, asks, and tells what happens until it is so.
#[expect(clippy::print_stdout, reason = "this is what people wait for")]
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
    let mut client = apps::find(&target.app, how.control)?;
    let before = client.ask::<Listed>(&Call::List, what)?.app;
    let mut events = apps::find(&target.app, how.control)?;
    events.send(&Call::Subscribe, true, what)?;
    events.receive::<Happened>(None, what)?;
    let answer: T = client.ask(call, what)?;
    let until = until(&answer, &before);
    if how.no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        let is_so = until.is_so(&client.ask::<Listed>(&Call::List, what)?.app);
        // What has happened already is told, too.
        let next = events.receive::<Happened>(is_so.then_some(AT_ONCE), what);
        let event = match next {
            Ok((Happened { event: Some(event) }, _)) => event,
            Ok(_) => continue,
            Err(_) if is_so => break,
            Err(trouble) => return Err(trouble),
        };
        println!("{}", event.text);
        if until.is_dashed_by(&event) {
            return Err(failed(&mut client, target, what, &event));
        }
        if event.kind == "stopping" {
            let text = format!("cannot {what} '{}': everything is being stopped", target.app);
            return Err(Trouble::new(Code::Failed, text));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn failed(client: &mut Client, target: &Target, what: &str, event: &Event) -> Trouble {
    let trouble =
        Trouble::new(Code::Failed, format!("cannot {what} '{}': {}", target.app, event.text));
    let shown = client.ask::<Shown>(&Call::Show(MaybeSlot { slot: event.slot }), what);
    let failure = shown.ok().and_then(|shown| shown.last_failure);
    Trouble { failure: failure.filter(|f| Some(f.worker) == event.worker).map(Box::new), ..trouble }
}
