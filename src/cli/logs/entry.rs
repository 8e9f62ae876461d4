//! One thing to show: a line of a worker, an event of the supervisor, or what systemd says about the unit. It is the
//! same whether it comes from the journal or from the primary's memory.

use crate::protocol::control::{Event, Line};
use serde::Serialize;
use std::collections::BTreeMap;

/// The fields of a journal entry, with `__CURSOR` and `__REALTIME_TIMESTAMP` (`systemd.journal-fields(7)`).
pub(super) type Fields = BTreeMap<String, String>;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Source {
    /// A worker, or what it started.
    Worker,
    /// The primary.
    Dogwatch,
    /// The service manager and its helpers.
    Systemd,
}

/// What is shown; `--json` prints it so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Entry {
    /// In microseconds since 1970.
    pub(in crate::cli) time_usec: u64,
    pub(in crate::cli) app: String,
    pub(in crate::cli) source: Source,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) slot: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) worker: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) generation: Option<u32>,
    /// As in syslog(3): 0 is the worst.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) priority: Option<u8>,
    pub(in crate::cli) text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) message_id: Option<String>,
    /// What stands before the text: `myapp/3`, `dogwatch`, `systemd`.
    #[serde(skip)]
    pub(in crate::cli) identifier: String,
}

/// Whose output a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whose {
    pub(super) worker: u64,
    pub(super) slot: u16,
    pub(super) generation: u32,
}

impl Entry {
    /// What a journal entry says; `None` for one that says nothing. The app's `units` tell its own entries from those
    /// that others write about it.
    pub(super) fn from_journal(app: &str, units: &[String], fields: &Fields) -> Option<Self> {
        let get = |name: &str| fields.get(name).map(String::as_str);
        let identifier = get("SYSLOG_IDENTIFIER").or_else(|| get("_COMM")).unwrap_or("unknown");
        let source = match identifier {
            _ if is_about(units, fields) => Source::Systemd,
            "dogwatch" => Source::Dogwatch,
            _ => Source::Worker,
        };
        let supervisor = source == Source::Dogwatch;
        let event = |name: &str| get(name).filter(|_| supervisor);
        let slot = match source {
            Source::Worker => slot_of(app, identifier),
            Source::Dogwatch => event("DOGWATCH_SLOT").and_then(|slot| slot.parse().ok()),
            Source::Systemd => None,
        };
        Some(Self {
            time_usec: time(fields),
            app: app.to_owned(),
            source,
            slot,
            worker: event("DOGWATCH_WORKER").and_then(|worker| worker.parse().ok()),
            generation: event("DOGWATCH_GENERATION").and_then(|g| g.parse().ok()),
            priority: get("PRIORITY").and_then(|priority| priority.parse().ok()),
            text: get("MESSAGE")?.to_owned(),
            message_id: get("MESSAGE_ID").map(str::to_owned),
            identifier: identifier.to_owned(),
        })
    }

    /// A line that the primary has in memory.
    pub(super) fn from_line(app: &str, line: Line) -> Self {
        Self {
            time_usec: line.time_usec,
            app: app.to_owned(),
            source: Source::Worker,
            slot: Some(line.slot),
            worker: Some(line.worker),
            generation: Some(line.generation),
            priority: None,
            text: line.text,
            message_id: None,
            identifier: format!("{app}/{}", line.slot),
        }
    }

    /// An event that the primary tells.
    pub(super) fn from_event(app: &str, event: Event) -> Self {
        Self {
            time_usec: event.time_usec,
            app: app.to_owned(),
            source: Source::Dogwatch,
            slot: event.slot,
            worker: event.worker,
            generation: event.generation,
            priority: None,
            text: event.text,
            message_id: None,
            identifier: "dogwatch".to_owned(),
        }
    }

    /// Whose stream it opens, if it is the first line of one; no worker wrote that.
    pub(super) fn opening(&self) -> Option<Whose> {
        let debug = self.source == Source::Worker && self.priority == Some(7);
        opening(&self.text).filter(|whose| debug && self.slot == Some(whose.slot))
    }
}

/// Whether somebody outside of the units wrote this. Only fields that the journal vouches for are asked: a worker may
/// send what it likes.
fn is_about(units: &[String], fields: &Fields) -> bool {
    let mut from = ["_SYSTEMD_UNIT", "_SYSTEMD_USER_UNIT"].iter().filter_map(|f| fields.get(*f));
    let known = from.clone().next().is_some() && !units.is_empty();
    fields.get("_PID").is_some_and(|pid| pid == "1")
        || known && !from.any(|unit| units.contains(unit))
}

/// When the journal took an entry.
pub(super) fn time(fields: &Fields) -> u64 {
    fields.get("__REALTIME_TIMESTAMP").and_then(|usec| usec.parse().ok()).unwrap_or(0)
}

/// The slot that `APP/SLOT` names.
fn slot_of(app: &str, identifier: &str) -> Option<u16> {
    identifier.strip_prefix(app)?.strip_prefix('/')?.parse().ok()
}

/// `dogwatch: worker 5 (slot 1, generation 2) writes here`, as `primary::output` has it.
fn opening(text: &str) -> Option<Whose> {
    let text = text.strip_prefix("dogwatch: worker ")?.strip_suffix(") writes here")?;
    let (worker, text) = text.split_once(" (slot ")?;
    let (slot, generation) = text.split_once(", generation ")?;
    Some(Whose {
        worker: worker.parse().ok()?,
        slot: slot.parse().ok()?,
        generation: generation.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn entry(pairs: &[(&str, &str)]) -> Entry {
        Entry::from_journal("myapp", &["myapp.service".to_owned()], &fields(pairs)).unwrap()
    }

    #[test]
    fn the_first_line_of_a_stream_names_its_worker() {
        let text = "dogwatch: worker 5 (slot 1, generation 2) writes here";
        assert_eq!(opening(text), Some(Whose { worker: 5, slot: 1, generation: 2 }));
        for text in [
            "worker 5 (slot 1, generation 2) writes here",
            "dogwatch: worker 5 (slot 1, generation 2) writes here, too",
            "dogwatch: worker five (slot 1, generation 2) writes here",
            "dogwatch: worker 5 (slot 1) writes here",
            "",
        ] {
            assert_eq!(opening(text), None, "{text}");
        }
        let line = [("SYSLOG_IDENTIFIER", "myapp/1"), ("MESSAGE", text), ("PRIORITY", "7")];
        assert!(entry(&line).opening().is_some());
        assert!(entry(&line[..2]).opening().is_none(), "a worker prints what it likes");
        let other = [("SYSLOG_IDENTIFIER", "myapp/2"), line[1], line[2]];
        assert!(entry(&other).opening().is_none(), "of another slot");
    }

    #[test]
    fn who_speaks_is_seen_by_the_fields() {
        let line = entry(&[
            ("__REALTIME_TIMESTAMP", "1700000000123456"),
            ("SYSLOG_IDENTIFIER", "myapp/3"),
            ("MESSAGE", "hello"),
            ("DOGWATCH_GENERATION", "9"),
        ]);
        assert_eq!((line.source, line.slot, line.generation), (Source::Worker, Some(3), None));
        assert_eq!(line.time_usec, 1_700_000_000_123_456);
        let event = entry(&[
            ("SYSLOG_IDENTIFIER", "dogwatch"),
            ("DOGWATCH_SLOT", "1"),
            ("DOGWATCH_WORKER", "5"),
            ("DOGWATCH_GENERATION", "2"),
            ("PRIORITY", "6"),
            ("MESSAGE", "worker 5 is ready"),
        ]);
        assert_eq!(event.source, Source::Dogwatch);
        assert_eq!((event.slot, event.worker, event.generation), (Some(1), Some(5), Some(2)));
        let manager =
            entry(&[("_PID", "1"), ("SYSLOG_IDENTIFIER", "systemd"), ("MESSAGE", "Started")]);
        assert_eq!((manager.source, manager.slot), (Source::Systemd, None));
        let dump = [
            ("_SYSTEMD_UNIT", "systemd-coredump@0.service"),
            ("SYSLOG_IDENTIFIER", "dogwatch"),
            ("MESSAGE", "dumped core"),
        ];
        assert_eq!(entry(&dump).source, Source::Systemd);
        let user = [
            ("_SYSTEMD_UNIT", "user@1000.service"),
            ("_SYSTEMD_USER_UNIT", "myapp.service"),
            ("MESSAGE", "x"),
        ];
        assert_eq!(entry(&user).source, Source::Worker);
        // A program of a worker with a name of its own, one that names nothing, and another app's name.
        let other = entry(&[("SYSLOG_IDENTIFIER", "cron"), ("MESSAGE", "")]);
        assert_eq!((other.source, other.slot, other.priority), (Source::Worker, None, None));
        assert_eq!(entry(&[("MESSAGE", "x")]).identifier, "unknown");
        assert_eq!(slot_of("myapp", "myapp2/1"), None);
        assert!(Entry::from_journal("myapp", &[], &fields(&[("PRIORITY", "6")])).is_none());
    }

    #[test]
    fn json_has_what_is_known() {
        let line =
            Line { time_usec: 5, slot: 1, worker: 7, generation: 2, text: "a \"b\"".to_owned() };
        assert_eq!(
            serde_json::to_string(&Entry::from_line("myapp", line)).unwrap(),
            r#"{"timeUsec":5,"app":"myapp","source":"worker","slot":1,"worker":7,"generation":2,"text":"a \"b\""}"#
        );
    }
}
