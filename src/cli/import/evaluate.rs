//! Files that are programs, evaluated by their own interpreter: with the caller's rights, as their owner does it, and
//! within bounds of time and size.

use crate::cli::trouble::Unusable;
use crate::cli::trouble::printable;
use crate::sys::process::monotonic_nanos;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Who evaluates a file, and what it is asked to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interpreter<'a> {
    /// What it is called in messages.
    pub(super) name: &'a str,
    /// What is started: found on PATH where it has no slash.
    pub(super) program: &'a Path,
    /// Its arguments before the file.
    pub(super) before: &'a [&'a str],
    /// Its arguments behind the file.
    pub(super) after: &'a [&'a str],
    /// The port that the file is told of, as PORT.
    pub(super) port: Option<u16>,
    /// Further variables that the file is told.
    pub(super) variables: &'a [(&'a str, &'a str)],
    /// What to do where it is missing.
    pub(super) remedy: &'a str,
}

/// A file that takes longer does something else than to say what it holds.
const PATIENCE: Duration = Duration::from_secs(30);

/// No process file holds more.
const LARGEST: usize = 16 * 1024 * 1024;

/// So much of what it says is kept.
const LAST_WORDS: usize = 64 * 1024;

/// The interpreter, as long as it is needed.
struct Evaluation<'a> {
    by: Interpreter<'a>,
    child: Child,
    /// Where the answer comes from.
    answer: Source<UnixStream>,
    /// What it says to people, for the case that there is no answer.
    said: Source<UnixStream>,
}

/// What one end was read from so far.
struct Source<R> {
    from: R,
    bytes: Vec<u8>,
    is_open: bool,
}

/// Returns what the file holds.
///
/// # Errors
/// When there is no interpreter, or the file throws, ends it, or takes too long.
pub(super) fn evaluate(file: &Path, by: Interpreter<'_>) -> Result<Value, Unusable> {
    let mut evaluation = start(file, by)?;
    let deadline = monotonic_nanos() + u64::try_from(PATIENCE.as_nanos()).unwrap_or(u64::MAX);
    let line = loop {
        if let Some(length) = evaluation.answer.bytes.iter().position(|byte| *byte == b'\n') {
            break &evaluation.answer.bytes[..length];
        }
        if evaluation.answer.bytes.len() > LARGEST {
            return Err(Unusable::from("what it holds is larger than 16 MB".to_owned()));
        }
        if !evaluation.answer.is_open {
            return Err(evaluation.without_answer());
        }
        let left = Duration::from_nanos(deadline.saturating_sub(monotonic_nanos()));
        if left.is_zero() {
            let reason =
                format!("{} did not come to its end within {}s", by.name, PATIENCE.as_secs());
            return Err(Unusable::from(reason)
                .hint("it is to hold settings only, and to leave other work to the app"));
        }
        let waited = wait([&mut evaluation.answer, &mut evaluation.said], left);
        waited.map_err(|e| Unusable::from(format!("cannot read from {}: {e}", by.name)))?;
        let said = &mut evaluation.said.bytes;
        said.drain(..said.len().saturating_sub(LAST_WORDS));
    };
    parse(line)
}

/// Starts the interpreter with the file, which it reads from the folder that it is in.
#[expect(clippy::disallowed_methods, reason = "a client is no primary; it may have children")]
fn start<'a>(file: &Path, by: Interpreter<'a>) -> Result<Evaluation<'a>, Unusable> {
    let cannot = |e: io::Error| Unusable::from(format!("cannot run {}: {e}", by.name));
    let (answer, theirs) = UnixStream::pair().map_err(cannot)?;
    let (said, their_said) = UnixStream::pair().map_err(cannot)?;
    // Whoever reads from it is at its end at once.
    answer.shutdown(Shutdown::Write).map_err(cannot)?;
    for ours in [&answer, &said] {
        ours.set_nonblocking(true).map_err(cannot)?;
    }
    let mut command = Command::new(by.program);
    if let Some(port) = by.port {
        command.env("PORT", port.to_string());
    }
    let child = command
        .envs(by.variables.iter().copied())
        .args(by.before)
        .arg(file)
        .args(by.after)
        // If we are somebody's worker ourselves, it is not.
        .env_remove("NODE_CHANNEL_FD")
        .env_remove("NODE_UNIQUE_ID")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::from(OwnedFd::from(their_said)))
        .spawn();
    let child = child.map_err(|e| {
        if e.kind() == io::ErrorKind::NotFound {
            Unusable::from(format!("there is no '{}' on PATH to evaluate it", by.name))
                .hint(by.remedy)
        } else {
            cannot(e)
        }
    })?;
    let source = |from| Source { from, bytes: vec![], is_open: true };
    Ok(Evaluation { by, child, answer: source(answer), said: source(said) })
}

/// Waits until there is something to read, and reads it.
fn wait<R: Read + AsFd>(sources: [&mut Source<R>; 2], left: Duration) -> io::Result<()> {
    let timeout =
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    let mut open: Vec<&mut Source<R>> = sources.into_iter().filter(|s| s.is_open).collect();
    let ready = {
        let mut fds: Vec<PollFd<'_>> =
            open.iter().map(|source| PollFd::new(source.from.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        fds.iter().map(|fd| fd.any().unwrap_or(false)).collect::<Vec<_>>()
    };
    for (source, _) in open.iter_mut().zip(ready).filter(|(_, is_ready)| *is_ready) {
        source.read()?;
    }
    Ok(())
}

impl<R: Read> Source<R> {
    fn read(&mut self) -> io::Result<()> {
        let mut more = vec![0; 64 * 1024];
        match self.from.read(&mut more) {
            Ok(0) => self.is_open = false,
            Ok(length) => self.bytes.extend_from_slice(&more[..length]),
            Err(e)
                if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => self.is_open = false,
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

impl Evaluation<'_> {
    /// Why it ended without an answer: the file ended it, or it could not begin.
    fn without_answer(&mut self) -> Unusable {
        // It has closed its end, so it ends, or has no way to tell us anything more.
        let _ = self.said.read();
        let _ = self.child.kill();
        let status = self.child.wait();
        let status = status.map_or_else(|e| e.to_string(), |status| status.to_string());
        let said = String::from_utf8_lossy(&self.said.bytes);
        let line = said.lines().map(str::trim).rfind(|line| {
            line.contains("Error") || line.starts_with("Warning") || line.starts_with("node:")
        });
        let line = line.map(|line| format!(": {}", printable(line))).unwrap_or_default();
        Unusable::from(format!(
            "{} ended before the file was evaluated, {status}{line}",
            self.by.name
        ))
    }
}

impl Drop for Evaluation<'_> {
    fn drop(&mut self) {
        // It may be gone already, and is never left as a zombie.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(line: &[u8]) -> Result<Value, Unusable> {
    let answer: Value = serde_json::from_slice(line)
        .map_err(|e| Unusable::from(format!("what it holds cannot be read: {e}")))?;
    match answer {
        Value::Object(mut answer) => match (answer.remove("value"), answer.remove("error")) {
            (_, Some(Value::String(error))) => Err(Unusable::from(printable(&error))),
            (value, _) => Ok(value.unwrap_or(Value::Null)),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Ok(Value::Null)
        }
    }
}
