//! What the operator wants changed: the question before, the call, and the words after.

use super::super::apps;
use super::super::trouble::{Trouble, printable};
use super::model::Model;
use super::state::{Message, News};
use crate::protocol::control::{
    Call, MaybeSlot, OneSlot, Reload, Reloading, Restarted, Scale, Scaled,
};
use std::path::Path;

/// A change of one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) app: String,
    pub(super) change: Change,
}

/// What is to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Reload,
    Restart(u16),
    Stop(u16),
    Start(u16),
    /// By so many slots.
    Scale(i64),
}

/// An answer without parameters.
#[derive(Debug, serde::Deserialize)]
struct Nothing {}

impl Wish {
    /// Asks whether that is meant, and says what it would do.
    pub(super) fn question(&self, model: &Model) -> String {
        let app = &self.app;
        let slots = model.app.as_ref().map_or(0, |app| app.slots.len());
        match self.change {
            Change::Reload => format!("reload '{app}': relieve all {slots} slots, one at a time?"),
            Change::Restart(slot) => format!("restart slot {slot} of '{app}': stop, then start?"),
            Change::Stop(slot) => {
                format!("stop slot {slot} of '{app}': nobody serves it until it is started?")
            }
            Change::Start(slot) => format!("start slot {slot} of '{app}'?"),
            Change::Scale(1) => format!("scale '{app}': one slot more than {slots}?"),
            Change::Scale(-1) => format!("scale '{app}': one slot less than {slots}?"),
            Change::Scale(by) => format!("scale '{app}' by {by} slots?"),
        }
    }

    /// What is said until there is an answer.
    pub(super) fn begun(&self) -> String {
        let app = &self.app;
        match self.change {
            Change::Reload => format!("reload of '{app}': asked, waiting for the verdict"),
            Change::Restart(_) | Change::Stop(_) | Change::Start(_) | Change::Scale(_) => {
                format!("asked '{app}' to {}", self.what().trim_end_matches(" of"))
            }
        }
    }

    /// Fits after "cannot" and before the app's name.
    fn what(&self) -> String {
        match self.change {
            Change::Reload => "reload".to_owned(),
            Change::Restart(slot) => format!("restart slot {slot} of"),
            Change::Stop(slot) => format!("stop slot {slot} of"),
            Change::Start(slot) => format!("start slot {slot} of"),
            Change::Scale(_) => "scale".to_owned(),
        }
    }

    /// Asks the primary and waits for its answer, which of a reload is the verdict.
    pub(super) fn ask(self, control: Option<&Path>) -> News {
        match self.answer(control) {
            Ok(text) => {
                let message = Message { text: printable(&text), is_bad: false };
                News::Answer { app: self.app, message, lines: vec![] }
            }
            Err(Trouble { message, hint, failure, code: _ }) => {
                let text = match hint {
                    Some(hint) => format!("{message} (hint: {hint})"),
                    None => message,
                };
                let message = Message { text: printable(&text), is_bad: true };
                let lines = failure.map(|failure| failure.lines).unwrap_or_default();
                News::Answer { app: self.app, message, lines: told(&lines) }
            }
        }
    }

    fn answer(&self, control: Option<&Path>) -> Result<String, Trouble> {
        let (app, what) = (&self.app, &self.what());
        let mut client = apps::find(app, control)?;
        match self.change {
            Change::Reload => {
                client.send(&Call::Reload(Reload::default()), false, what)?;
                // As long as it takes: each slot has its timeouts.
                let (verdict, _) = client.receive::<Reloading>(None, what)?;
                Ok(verdict.text.unwrap_or_else(|| format!("'{app}' is reloaded")))
            }
            Change::Restart(slot) => {
                let call = Call::Restart(MaybeSlot { slot: Some(slot) });
                client.ask::<Restarted>(&call, what)?;
                Ok(format!("slot {slot} of '{app}' is stopped and started again"))
            }
            Change::Stop(slot) => {
                client.ask::<Nothing>(&Call::Stop(OneSlot { slot }), what)?;
                Ok(format!("slot {slot} of '{app}' is stopped"))
            }
            Change::Start(slot) => {
                client.ask::<Nothing>(&Call::Start(OneSlot { slot }), what)?;
                Ok(format!("slot {slot} of '{app}' is started"))
            }
            Change::Scale(by) => {
                let call = Call::Scale(Scale { to: None, by: Some(by) });
                let Scaled { from, to } = client.ask(&call, what)?;
                Ok(format!("'{app}' is scaled from {from} to {to} slots"))
            }
        }
    }
}

/// A worker's last lines, as lines of the log.
fn told(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| printable(line).replace('\t', "    ")).collect()
}
