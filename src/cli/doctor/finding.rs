//! What is said about one question.

use crate::cli::text;
use crate::cli::trouble::printable;
use comfy_table::Cell;
use serde::Serialize;

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mark {
    /// As it should be.
    Ok,
    /// The caller may not look, or there is nothing to ask.
    Unknown,
    /// It serves, but a promise is weaker than it could be.
    Warning,
    /// It does not serve as the file says, or will not.
    Problem,
}

impl Mark {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    #[serde(rename = "state")]
    pub(super) mark: Mark,
    /// The question, in one word.
    pub(super) about: &'static str,
    /// What was found.
    pub(super) text: String,
    /// What to type, or to write into the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
    /// The last words of whoever failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) lines: Vec<String>,
}

impl Finding {
    fn new(mark: Mark, about: &'static str, text: impl Into<String>) -> Self {
        Self { mark, about, text: text.into(), remedy: None, lines: vec![] }
    }

    pub(super) fn ok(about: &'static str, text: impl Into<String>) -> Self {
        Self::new(Mark::Ok, about, text)
    }

    pub(super) fn unknown(about: &'static str, text: impl Into<String>) -> Self {
        Self::new(Mark::Unknown, about, text)
    }

    pub(super) fn warning(about: &'static str, text: impl Into<String>) -> Self {
        Self::new(Mark::Warning, about, text)
    }

    pub(super) fn problem(about: &'static str, text: impl Into<String>) -> Self {
        Self::new(Mark::Problem, about, text)
    }

    pub(super) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    pub(super) fn lines(self, lines: &[String]) -> Self {
        Self { lines: lines.to_vec(), ..self }
    }
}

/// Returns all of them as a table, and the verdict as its last line.
pub(super) fn report(app: &str, findings: &[Finding]) -> String {
    let mut table = text::table(&["STATE", "ABOUT", "FINDING"]);
    for finding in findings {
        let mut answer = printable(&finding.text);
        for line in &finding.lines {
            answer += &format!("\n    {}", printable(line));
        }
        if let Some(remedy) = &finding.remedy {
            answer += &format!("\nremedy: {}", printable(remedy));
        }
        let about = Cell::new(finding.about);
        table.add_row(vec![text::state(finding.mark.word()), about, Cell::new(answer)]);
    }
    format!("{}{}\n", text::trimmed(&table), verdict(app, findings))
}

fn verdict(app: &str, findings: &[Finding]) -> String {
    let count = |mark| findings.iter().filter(|finding| finding.mark == mark).count();
    let counted = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let (problems, warnings) = (count(Mark::Problem), count(Mark::Warning));
    let found = match (problems, warnings) {
        (0, 0) => "nothing is wrong".to_owned(),
        (0, _) => format!("nothing is wrong, {}", counted(warnings, "warning")),
        (_, 0) => counted(problems, "problem"),
        (_, _) => format!("{}, {}", counted(problems, "problem"), counted(warnings, "warning")),
    };
    match count(Mark::Unknown) {
        0 => format!("{app}: {found}"),
        unknown => format!("{app}: {found}; {} not answered", counted(unknown, "question")),
    }
}
