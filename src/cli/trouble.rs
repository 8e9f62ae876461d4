//! What a verb cannot do, as text and exit code.

use crate::protocol::control::{Error, Failure};
use std::fmt::Write as _;
use std::process::ExitCode;

/// Why a verb did not do what it was asked: `cannot X 'name': reason`, then what happens instead.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) message: String,
    pub(super) hint: Option<String>,
    pub(super) code: Code,
    /// A worker's last lines, which say more.
    pub(super) failure: Option<Box<Failure>>,
}

/// The exit codes; done is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// Rolled back, refused, or it did not come to pass.
    Failed = 1,
    /// Usage, or a configuration that cannot be used.
    Usage = 2,
    /// There is no primary.
    NotRunning = 3,
    /// There is no such slot.
    NoSuchSlot = 4,
}

impl Trouble {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code, failure: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// What the primary of `app` answered when it was to do `what`, which fits after "cannot".
    pub(super) fn answered(error: Error, what: &str, app: &str) -> Self {
        let cannot =
            |code, reason: &str| Self::new(code, format!("cannot {what} '{app}': {reason}"));
        match error {
            Error::PermissionDenied {} => cannot(Code::Failed, "only root and its own user may")
                .hint("for those who only look, there is 'control.readers' in its file"),
            Error::InvalidConfiguration { reason, hint } => {
                let text = format!("{reason}; everything goes on as it was");
                Self { hint, ..cannot(Code::Usage, &text) }
            }
            Error::Refused { reason, hint } => Self { hint, ..cannot(Code::Failed, &reason) },
            Error::NoSuchSlot { slot, slots } => {
                let last = slots.saturating_sub(1);
                let others = if last == 0 {
                    "only slot 0".to_owned()
                } else {
                    format!("the slots are 0 to {last}")
                };
                cannot(Code::NoSuchSlot, &format!("there is no slot {slot}, {others}"))
            }
            Error::RolledBack { text, failure, .. } => {
                let reason = text.strip_prefix("reload failed: ").unwrap_or(&text);
                Self { failure, ..cannot(Code::Failed, reason) }
            }
            Error::Superseded { generation } => cannot(
                Code::Failed,
                &format!("a newer reload, to generation {generation}, took its place"),
            ),
            Error::InvalidParameter { parameter } => {
                cannot(Code::Usage, &format!("'{parameter}' makes no sense to it"))
            }
            Error::MethodNotFound { .. }
            | Error::InterfaceNotFound { .. }
            | Error::ExpectedMore {} => cannot(Code::Failed, "its primary does not know how"),
        }
    }

    /// Says it on standard error and returns the exit code.
    #[expect(clippy::print_stderr, reason = "this is where verbs say what went wrong")]
    pub(super) fn tell(&self) -> ExitCode {
        // The journal names the program by itself.
        let name = if libsystemd::logging::connected_to_journal() { "" } else { "dogwatch: " };
        let mut text = format!("{name}{}\n", printable(&self.message));
        if let Some(failure) = self.failure.as_ref().filter(|f| !f.lines.is_empty()) {
            let _ = writeln!(text, "the last lines of worker {}:", failure.worker);
            for line in &failure.lines {
                let _ = writeln!(text, "    {}", printable(line));
            }
        }
        let of_failure = self.failure.as_ref().and_then(|failure| failure.hint.as_ref());
        if let Some(hint) = self.hint.as_ref().or(of_failure) {
            let _ = writeln!(text, "hint: {}", printable(hint));
        }
        eprint!("{text}");
        ExitCode::from(self.code as u8)
    }
}

/// Why a file or a folder cannot be used: words that fit after `cannot X 'NAME': `.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) reason: String,
    pub(super) hint: Option<String>,
}

impl Unusable {
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Says of which file it is, where that is not the one that was named.
    pub(super) fn of(self, file: &str) -> Self {
        Self { reason: format!("'{file}': {}", self.reason), ..self }
    }

    /// What is said when this keeps us from doing `what`, as `import 'FILE'`.
    pub(super) fn trouble(self, what: &str) -> Trouble {
        let message = format!("cannot {what}: {}", self.reason);
        Trouble { hint: self.hint, ..Trouble::new(Code::Usage, message) }
    }
}

impl<T: Into<String>> From<T> for Unusable {
    fn from(reason: T) -> Self {
        Self { reason: reason.into(), hint: None }
    }
}

/// A line as it can be shown to a person: whatever could control the terminal is made visible.
pub(super) fn printable(line: &str) -> String {
    let visible = |c: char| match c {
        '\t' => c,
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    line.chars().map(visible).collect()
}
