//! Where the view's log lines come from: the primary's memory, or the journal.

use super::super::trouble::printable;
use super::feed::{Source, rest};
use super::lines::LogLine;
use super::state::News;
use crate::protocol::control::{Call, Logged, Logs, Primary};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::ControlFlow;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// So many lines from before are told.
const BEFORE: u32 = 200;
/// After the end of a source it is looked for again.
const AGAIN: Duration = Duration::from_secs(1);
/// A line of the journal is never longer, or it is none.
const LONGEST: u64 = 1024 * 1024;

/// The processes that read the journal for us; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Children(Arc<Mutex<Vec<Child>>>);

impl Children {
    /// Ends all of them.
    pub(super) fn end(&self) {
        let mut children = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for mut child in children.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn keep(&self, child: Child) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(child);
    }
}

/// Tells the lines of an app's output for as long as somebody wants them.
pub(super) fn follow(source: &Source, children: &Children) {
    // Lines up to this moment were told already, by a connection before.
    let mut told_usec = 0;
    loop {
        if let Ok(mut client) = source.connect() {
            let primary = client.primary.clone();
            let flow = match (primary.log.as_str(), primary.unit.as_deref()) {
                ("journal", Some(unit)) => journal(source, &primary, unit, children),
                ("journal", None) => say(source, "the output is in the journal, of no known unit"),
                _ => {
                    let logs = Logs { lines: Some(BEFORE), slot: None, follow: Some(true) };
                    let before = told_usec;
                    let mut is_over = false;
                    let _ = client.follow(&Call::Logs(logs), "watch", |Logged { line }| {
                        let Some(line) = line.filter(|line| line.time_usec > before) else {
                            return ControlFlow::Continue(());
                        };
                        told_usec = line.time_usec;
                        let flow = tell(source, line.time_usec, Some(line.slot), &line.text);
                        is_over = flow.is_break();
                        flow
                    });
                    if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                }
            };
            if flow.is_break() {
                return;
            }
        }
        rest(AGAIN);
    }
}

fn tell(source: &Source, time_usec: u64, slot: Option<u16>, text: &str) -> ControlFlow<()> {
    let text = printable(text);
    source.tell(|app| News::Line(app, LogLine { time_usec, slot, text }))
}

/// Says why there are no lines, once: nobody needs to be told again.
fn say(source: &Source, text: &str) -> ControlFlow<()> {
    let _ = tell(source, 0, None, text);
    ControlFlow::Break(())
}

/// Reads the journal of the unit for as long as journalctl does.
#[expect(clippy::disallowed_methods, reason = "a client is not the one that forks workers")]
fn journal(source: &Source, primary: &Primary, unit: &str, children: &Children) -> ControlFlow<()> {
    let mut command = Command::new("journalctl");
    if is_users(primary.pid) {
        command.arg("--user");
    }
    command.args(["-f", "-n", "50", "-o", "json", "-u", unit]);
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) => return say(source, &format!("cannot read the journal with journalctl: {e}")),
    };
    let output = child.stdout.take();
    children.keep(child);
    let Some(output) = output else { return ControlFlow::Continue(()) };
    let mut output = BufReader::new(output);
    loop {
        let mut bytes = vec![];
        match output.by_ref().take(LONGEST).read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return ControlFlow::Continue(()),
            Ok(_) => {}
        }
        if let Some((time, slot, text)) = entry(&bytes, &source.app) {
            tell(source, time, slot, &text)?;
        }
    }
}

/// Whether a process is one of a user's manager and not of the system's.
fn is_users(pid: u32) -> bool {
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
    cgroup.is_ok_and(|cgroup| cgroup.contains("/user@"))
}

/// An entry of the journal: when, which slot of the app, and the message, which is bytes when it is no text.
fn entry(bytes: &[u8], app: &str) -> Option<(u64, Option<u16>, String)> {
    let entry: Value = serde_json::from_slice(bytes).ok()?;
    let field = |name: &str| entry.get(name).and_then(Value::as_str);
    let time = field("__REALTIME_TIMESTAMP").and_then(|time| time.parse().ok()).unwrap_or(0);
    let slot = field("SYSLOG_IDENTIFIER")
        .and_then(|identifier| identifier.strip_prefix(app)?.strip_prefix('/')?.parse().ok());
    let text = match entry.get("MESSAGE")? {
        Value::String(text) => text.clone(),
        Value::Array(bytes) => {
            let byte = |byte: &Value| byte.as_u64().and_then(|byte| u8::try_from(byte).ok());
            let bytes: Vec<u8> = bytes.iter().filter_map(byte).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        // journalctl leaves out what is too long.
        Value::Null => "(a line that is too long)".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
    };
    Some((time, slot, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_the_journal_are_read() {
        let read = |text: &str| entry(text.as_bytes(), "web");
        assert_eq!(
            read(r#"{"__REALTIME_TIMESTAMP":"5","SYSLOG_IDENTIFIER":"web/3","MESSAGE":"hi"}"#),
            Some((5, Some(3), "hi".to_owned()))
        );
        assert_eq!(
            read(r#"{"SYSLOG_IDENTIFIER":"dogwatch","MESSAGE":[104,255,27,1000]}"#),
            Some((0, None, "h\u{fffd}\u{1b}".to_owned()))
        );
        let other = read(r#"{"SYSLOG_IDENTIFIER":"website/3","MESSAGE":null}"#);
        assert_eq!(other, Some((0, None, "(a line that is too long)".to_owned())));
        for nothing in ["", "{", "[]", "{}", r#"{"MESSAGE":7}"#] {
            assert_eq!(read(nothing), None);
        }
    }
}
