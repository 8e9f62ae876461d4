//! The journal through journalctl(1), a child process that lives as long as what reads it.

use super::entry::Fields;
use super::query::{Group, Next, Start};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Fields that are of use.
const FIELDS: [&str; 12] = [
    "MESSAGE",
    "MESSAGE_ID",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "DOGWATCH_SLOT",
    "DOGWATCH_WORKER",
    "DOGWATCH_GENERATION",
    "_COMM",
    "_PID",
    "_STREAM_ID",
    "_SYSTEMD_UNIT",
    "_SYSTEMD_USER_UNIT",
];

/// Entries as they come.
#[derive(Debug)]
pub(super) struct Reading {
    child: Child,
    output: ChildStdout,
    /// Read and not yet told; what is before `told` was.
    buffer: Vec<u8>,
    told: usize,
    follow: bool,
}

impl Reading {
    /// Begins to read.
    #[expect(clippy::disallowed_methods, reason = "a client is no primary; it may have children")]
    pub(super) fn open(groups: &[Group], start: &Start, follow: bool) -> Result<Self, String> {
        let mut child = Command::new("journalctl")
            .args(arguments(groups, start, follow))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot run journalctl: {e}"))?;
        let output = child.stdout.take().ok_or("journalctl has no output")?;
        Ok(Self { child, output, buffer: vec![], told: 0, follow })
    }

    /// Returns the next entry, if one comes in time.
    pub(super) fn next(&mut self, wait: Duration) -> Result<Next<Fields>, String> {
        loop {
            while let Some(line) = self.line() {
                if let Some(fields) = parse(&line) {
                    return Ok(Next::Some(fields));
                }
            }
            let mut fds = [PollFd::new(self.output.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, timeout) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(Next::Nothing),
                Ok(_) => {}
                Err(e) => return Err(e.to_string()),
            }
            let mut more = [0; 64 * 1024];
            match self.output.read(&mut more).map_err(|e| e.to_string())? {
                0 => return self.ended(),
                length => self.buffer.extend_from_slice(&more[..length]),
            }
        }
    }

    /// Takes a whole line.
    fn line(&mut self) -> Option<Vec<u8>> {
        let rest = &self.buffer[self.told..];
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            self.buffer.drain(..self.told);
            self.told = 0;
            return None;
        };
        let line = rest[..length].to_vec();
        self.told += length + 1;
        Some(line)
    }

    /// What its end means: everything was told, or something is wrong.
    fn ended(&mut self) -> Result<Next<Fields>, String> {
        let status = self.child.wait().map_err(|e| e.to_string())?;
        if status.success() && !self.follow {
            return Ok(Next::End);
        }
        let mut said = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            let _ = stderr.take(4096).read_to_string(&mut said);
        }
        match said.lines().find(|line| !line.is_empty() && !line.starts_with("Hint:")) {
            // Nothing found is no failure.
            Some(line) if !self.follow && line.starts_with("No journal files were") => {
                Ok(Next::End)
            }
            Some(line) => {
                Err(format!("journalctl says: {}", super::super::trouble::printable(line)))
            }
            // It ends so when nothing matches, in some versions.
            None if !self.follow && status.code() == Some(1) => Ok(Next::End),
            None => Err(format!("journalctl has ended, {status}")),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // It may be gone already, and is never left as a zombie.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn arguments(groups: &[Group], start: &Start, follow: bool) -> Vec<String> {
    let own = |text: &str| text.to_owned();
    let mut arguments = vec![own("--no-pager"), own("--quiet"), own("--all"), own("--output=json")];
    arguments.push(format!("--output-fields={}", FIELDS.join(",")));
    match start {
        Start::Newest => arguments.push(own("--reverse")),
        Start::Oldest => {}
        Start::Time(usec) => {
            let (seconds, rest) = (usec / 1_000_000, usec % 1_000_000);
            arguments.push(format!("--since=@{seconds}.{rest:06}"));
        }
        Start::After(cursor) => arguments.push(format!("--after-cursor={cursor}")),
    }
    if follow {
        arguments.extend([own("--follow"), own("--no-tail")]);
    }
    for (number, group) in groups.iter().enumerate() {
        arguments.extend((number > 0).then(|| own("+")));
        arguments.extend(group.iter().cloned());
    }
    arguments
}

/// One entry of `journalctl -o json`; `None` for a line that is none.
fn parse(line: &[u8]) -> Option<Fields> {
    let entry: serde_json::Map<String, Value> = serde_json::from_slice(line).ok()?;
    Some(entry.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect())
}

/// A field's value: text; bytes, if it is no UTF-8 or not printable; a list, if the field is there several times; null,
/// if it is too long for journalctl.
fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Null => Some("(too long to be shown)".to_owned()),
        Value::Array(values) => {
            let byte = |value: &Value| u8::try_from(value.as_u64()?).ok();
            match values.iter().map(byte).collect::<Option<Vec<u8>>>() {
                Some(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
                // The last one, as the other back end has it.
                None => values.into_iter().next_back().and_then(text),
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> Option<String> {
        parse(json.as_bytes())?.remove("MESSAGE")
    }

    #[test]
    fn fields_are_text_bytes_lists_or_null() {
        for (json, expected) in [
            (r#"{"MESSAGE":"hello","PRIORITY":"6"}"#, Some("hello")),
            (r#"{"MESSAGE":[104,105,27,255]}"#, Some("hi\u{1b}\u{fffd}")),
            (r#"{"MESSAGE":["one","two"]}"#, Some("two")),
            (r#"{"MESSAGE":["one",[116,119,111]]}"#, Some("two")),
            (r#"{"MESSAGE":null}"#, Some("(too long to be shown)")),
            (r#"{"MESSAGE":[]}"#, Some("")),
            (r#"{"MESSAGE":{"a":1}}"#, None),
            (r#"{"PRIORITY":"6"}"#, None),
            ("-- Reboot --", None),
            ("", None),
        ] {
            assert_eq!(message(json).as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn arguments_say_what_is_wanted() {
        let groups = vec![vec!["A=1".to_owned(), "B=2".to_owned()], vec!["C=3".to_owned()]];
        let end = |start, follow| arguments(&groups, &start, follow)[5..].join(" ");
        assert_eq!(end(Start::Newest, false), "--reverse A=1 B=2 + C=3");
        assert_eq!(end(Start::Oldest, true), "--follow --no-tail A=1 B=2 + C=3");
        assert_eq!(
            end(Start::Time(1_700_000_000_000_005), false),
            "--since=@1700000000.000005 A=1 B=2 + C=3"
        );
        assert_eq!(
            end(Start::After("s=1".to_owned()), true),
            "--after-cursor=s=1 --follow --no-tail A=1 B=2 + C=3"
        );
    }
}
