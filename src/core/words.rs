//! The words for what is worth telling. Scenario files pin them down, for they are what is read at 3 a.m.

use super::action::{Cause, Human, Next, Outcome, Report};
use super::worker::{Generation, Slot, WorkerId};
use std::fmt;
use std::time::Duration;

/// Returns `1 failure`, `2 failures`.
pub(super) fn plural(n: u32, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

/// A worker as messages name it.
struct Who(WorkerId, Slot, Generation);

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} (slot {}, generation {})", self.0, self.1, self.2)
    }
}

/// Returns for how long a canary is watched, in words.
pub(super) fn watch_time(time: Option<Duration>) -> String {
    time.map_or("until 'dogwatch promote'".to_owned(), |time| format!("for {}", Human(time)))
}

/// Who undid a rollout, and why.
fn write_blame(
    f: &mut fmt::Formatter<'_>,
    generation: Generation,
    slot: Option<Slot>,
    cause: &Cause,
) -> fmt::Result {
    match slot {
        Some(slot) => write!(f, "the worker of generation {generation} in slot {slot} {cause}"),
        None => write!(f, "{cause}"),
    }
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartAgain(delay) if delay.is_zero() => f.write_str("starting the slot again"),
            Self::StartAgain(delay) => write!(f, "starting the slot again in {}", Human(*delay)),
            Self::GiveUp { failures, within } => {
                let failures = plural(*failures, "failure");
                write!(f, "the slot is given up after {failures} within {}", Human(*within))
            }
            Self::RollBack(generation) => write!(f, "rolling back to generation {generation}"),
            Self::KeepIncumbent => f.write_str("the slot goes on with the worker that it has"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { ready, slots } => {
                write!(f, "started: {ready} of {slots} slots are served")
            }
            Self::Ready { worker, slot, generation, evidence, took } => {
                let who = Who(*worker, *slot, *generation);
                write!(f, "{who} is ready after {}: {evidence}", Human(*took))
            }
            Self::Failed { worker, slot, generation, cause, next } => {
                write!(f, "{} {cause}; {next}", Who(*worker, *slot, *generation))
            }
            Self::Gone { worker, slot, generation, how } => {
                write!(f, "{} has gone: it {how}", Who(*worker, *slot, *generation))
            }
            Self::Killed { worker, slot, generation } => {
                write!(f, "{} has not ended and is killed", Who(*worker, *slot, *generation))
            }
            Self::Reloading { generation } => {
                write!(f, "reload: relieving all slots with generation {generation}")
            }
            Self::Queued { generation, instead_of: None } => {
                write!(f, "reload: generation {generation} waits for what is under way")
            }
            Self::Queued { generation, instead_of: Some(old) } => write!(
                f,
                "reload: generation {generation} waits for what is under way, instead of generation {old}"
            ),
            Self::Reloaded { generation, stopped, took } => {
                write!(f, "reload done: generation {generation} serves every slot")?;
                if *stopped > 0 {
                    write!(f, " but {stopped} that the operator has stopped")?;
                }
                write!(f, ", after {}", Human(*took))
            }
            Self::RolledBack { generation, to, slot, cause, kept, took } => {
                let took = Human(*took);
                f.write_str("reload failed: ")?;
                write_blame(f, *generation, *slot, cause)?;
                write!(f, "; rolled back to generation {to} after {took}")?;
                for slot in kept {
                    write!(
                        f,
                        "; slot {slot} keeps generation {generation}, for {to} would not start there"
                    )?;
                }
                Ok(())
            }
            Self::Canary { worker, slot, generation, percent, time } => {
                let (who, until) = (Who(*worker, *slot, *generation), watch_time(*time));
                write!(f, "{who} is the canary: it gets {percent} of 100 connections {until}")
            }
            Self::Promoted { worker, slot, generation, asked, took } => {
                let (who, took) = (Who(*worker, *slot, *generation), Human(*took));
                match asked {
                    true => write!(f, "{who} is promoted after {took}: the operator asked for it"),
                    false => write!(f, "{who} has been the canary for {took}; the reload goes on"),
                }
            }
            Self::Scaled { from, to } => write!(f, "scaled from {from} to {to} slots"),
            Self::Restarting { slot: None } => f.write_str("restarting every slot"),
            Self::Restarting { slot: Some(slot) } => write!(f, "restarting slot {slot}"),
            Self::SlotStopped { slot } => {
                write!(f, "slot {slot} is stopped until it is started again")
            }
            Self::SlotStarted { slot } => write!(f, "slot {slot} is started again"),
            Self::Paused => f.write_str("paused: workers end, connections wait"),
            Self::Resumed => f.write_str("resumed"),
            Self::Reset { slot: None } => {
                f.write_str("reset: the failures of every slot are forgotten")
            }
            Self::Reset { slot: Some(slot) } => {
                write!(f, "reset: the failures of slot {slot} are forgotten")
            }
            Self::Stopping { outcome: Outcome::Stopped } => f.write_str("stopping"),
            Self::Stopping { outcome: Outcome::Failed } => {
                f.write_str("stopping: every slot is given up")
            }
        }
    }
}
