//! The `.env` beside a Procfile, and what the variables in a line are by it.

use crate::cli::draft::{Draft, Table};
use crate::cli::place;
use crate::config::envfile;
use crate::config::launcher::{Line, line};
use std::path::{Path, PathBuf};

/// The `.env` of a project.
#[derive(Debug, Default)]
pub(in crate::cli) struct Variables {
    file: Option<PathBuf>,
    /// PORT in it.
    pub(in crate::cli) port: Option<u16>,
    /// All that is in it, as far as it can be read.
    pub(in crate::cli) values: Vec<(String, String)>,
    /// Why it cannot be used.
    trouble: Option<String>,
}

impl Variables {
    /// Looks for it.
    pub(in crate::cli) fn beside(folder: &Path) -> Self {
        let file = folder.join(".env");
        if file.symlink_metadata().is_err() {
            return Self::default();
        }
        let text = match place::text(&file) {
            Ok(text) => text,
            Err(unusable) => {
                return Self { trouble: Some(unusable.reason), ..Self::default() };
            }
        };
        let (values, trouble) = match envfile::parse(".env", &text) {
            Ok(values) => (values, None),
            Err(error) => match envfile::parse(".env", &without_export(&text)) {
                // A shell reads it, systemd does not.
                Ok(values) => (
                    values,
                    Some(format!(
                        "{}; systemd's EnvironmentFile= knows no 'export' either",
                        error.message
                    )),
                ),
                Err(_) => (vec![], Some(error.message)),
            },
        };
        let file = trouble.is_none().then_some(file);
        let port = values.iter().rev().find(|(name, _)| name == "PORT");
        let port = port.and_then(|(_, value)| value.trim().parse().ok());
        Self { file, port: port.filter(|port| *port > 0), values, trouble }
    }

    /// Writes `environment-files`.
    pub(in crate::cli) fn write(&self, draft: &mut Draft) {
        if let Some(path) = self.file.as_ref().and_then(|file| file.to_str()) {
            draft.set(Table::Top, "environment-files", vec![path]);
            draft.note(
                Table::Top,
                "environment-files",
                "read as systemd reads such files, again at each start of a worker; the workers' user must be able to read it",
            );
        }
        if let Some(trouble) = &self.trouble {
            let text = format!(
                "it is not used: {trouble}. Make it lines of NAME=VALUE, and write environment-files = [\"/path/to/.env\"]"
            );
            draft.remark(".env", text);
        }
    }

    /// Whether the workers are told PORT by it.
    pub(in crate::cli) fn tells_port(&self) -> bool {
        self.file.is_some() && self.port.is_some()
    }

    /// How many workers it says there are: WEB_CONCURRENCY.
    pub(in crate::cli) fn concurrency(&self) -> Option<i64> {
        let count = self.value("WEB_CONCURRENCY")?.trim().parse().ok()?;
        (1..=10_000).contains(&count).then_some(count)
    }

    /// Whether it names the environment of Rack or Rails, and can be used.
    pub(in crate::cli) fn has_environment(&self) -> bool {
        self.file.is_some()
            && ["RAILS_ENV", "RACK_ENV"].iter().any(|name| self.value(name).is_some())
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn without_export(text: &str) -> String {
    let plain = |line: &str| {
        let line = line.trim_start();
        line.strip_prefix("export ").map_or(line, str::trim_start).to_owned()
    };
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// A line whose variables are what the `.env` or the line itself says.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The variables before the program, and it with its arguments.
    pub(super) set: Vec<(String, String)>,
    pub(super) argv: Vec<String>,
    /// What was put in: names and values.
    pub(super) put: Vec<(String, String)>,
    /// What nothing says a value of: the words that are left out, and the variable.
    pub(super) dropped: Vec<(String, String)>,
}

/// Stands for the first variable of a line; the others follow. No shell gives these a meaning.
const FIRST: u32 = 0xe000;
/// No line has so many.
const MOST: u32 = 64;

/// Returns a line that takes a shell for nothing but its variables, without them: each is its value in the `.env`, else
/// its default in the line; else its flag is left out. `None` where it takes a shell for more, or a word that is no flag's
/// would be missing.
pub(super) fn known(text: &str, variables: &Variables) -> Option<Known> {
    let (marked, found) = marked(text)?;
    let Ok(Line::Plain(set, argv)) = line(&marked) else { return None };
    let mut known = Known::default();
    let value = |(name, default): &(String, Option<String>)| {
        let value = variables.value(name).filter(|value| !value.is_empty());
        value.map(str::to_owned).or_else(|| default.clone())
    };
    let values: Vec<Option<String>> = found.iter().map(value).collect();
    let is_word =
        |text: &str| !text.contains(|c: char| c.is_whitespace() || "*?[\\'\"".contains(c));
    if values.iter().flatten().any(|value| !is_word(value)) {
        // A shell would make more words of it, or others.
        return None;
    }
    // A word with its values; or the variable that has none.
    let filled = |word: &str| -> Result<String, String> {
        let mut text = String::new();
        for c in word.chars() {
            match index(c) {
                None => text.push(c),
                Some(at) => match values.get(at) {
                    Some(Some(value)) => text.push_str(value),
                    _ => {
                        return Err(found
                            .get(at)
                            .map(|(name, _)| name.clone())
                            .unwrap_or_default());
                    }
                },
            }
        }
        Ok(text)
    };
    for (name, value) in set {
        match filled(&value) {
            Ok(value) => known.set.push((name, value)),
            Err(variable) => known.dropped.push((name, variable)),
        }
    }
    for word in argv {
        match filled(&word) {
            Ok(word) => known.argv.push(word),
            Err(variable) if word.starts_with('-') => {
                let flag = word.trim_end_matches(|c| index(c).is_some() || c == '=').to_owned();
                known.dropped.push((flag, variable));
            }
            Err(variable) => {
                let flag = known.argv.pop().filter(|flag| {
                    flag.starts_with('-') && !flag.contains('=') && !known.argv.is_empty()
                })?;
                known.dropped.push((flag, variable));
            }
        }
    }
    let names = found.iter().map(|(name, _)| name.clone());
    known.put = names.zip(values).filter_map(|(name, value)| Some((name, value?))).collect();
    Some(known)
}

/// Which variable a character stands for.
fn index(c: char) -> Option<usize> {
    let at = u32::from(c).checked_sub(FIRST).filter(|at| *at < MOST)?;
    usize::try_from(at).ok()
}

/// Variables, each with the default that the line has for it.
type Found = Vec<(String, Option<String>)>;

/// Puts a mark in the place of each variable; `None` where there is none, or one that is more than a name and a default.
fn marked(text: &str) -> Option<(String, Found)> {
    let (mut marked, mut found) = (String::new(), vec![]);
    if text.chars().any(|c| index(c).is_some()) {
        return None;
    }
    let (mut rest, mut is_single, mut is_double) = (text, false, false);
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match c {
            '\'' if !is_double => is_single = !is_single,
            '"' if !is_single => is_double = !is_double,
            '\\' if !is_single => {
                let next = after.chars().next()?;
                marked.push(c);
                marked.push(next);
                rest = &after[next.len_utf8()..];
                continue;
            }
            '$' if !is_single => {
                let (name, default, behind) = variable(after)?;
                let at = u32::try_from(found.len()).ok().filter(|at| *at < MOST)?;
                marked.push(char::from_u32(FIRST + at)?);
                found.push((name, default));
                rest = behind;
                continue;
            }
            _ => {}
        }
        marked.push(c);
        rest = after;
    }
    (!found.is_empty()).then_some((marked, found))
}

/// Reads `NAME`, `{NAME}`, `{NAME:-DEFAULT}` or `{NAME-DEFAULT}`, and returns what is behind, too.
fn variable(text: &str) -> Option<(String, Option<String>, &str)> {
    let braced = text.strip_prefix('{');
    let inner = braced.unwrap_or(text);
    let end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inner.len());
    let (name, rest) = inner.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if braced.is_none() {
        return Some((name.to_owned(), None, rest));
    }
    let (inside, behind) = rest.split_once('}')?;
    if inside.is_empty() {
        return Some((name.to_owned(), None, behind));
    }
    let default = inside.strip_prefix(":-").or_else(|| inside.strip_prefix('-'))?;
    let is_plain = !default.is_empty() && !default.contains(['$', '`', '{']);
    is_plain.then(|| (name.to_owned(), Some(default.to_owned()), behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<(String, Vec<String>)> {
        let values = vec![("N".to_owned(), "4".to_owned()), ("W".to_owned(), "a b".to_owned())];
        let variables = Variables { values, ..Variables::default() };
        let known = known(text, &variables)?;
        let said = known.dropped.iter().map(|(flag, name)| format!("{flag} {name}")).collect();
        Some((known.argv.join(" "), said))
    }

    #[test]
    fn variables_are_their_values_their_defaults_or_left_out_with_their_flag() {
        for (text, argv, dropped) in [
            ("s -w $N x", "s -w 4 x", &[][..]),
            ("s -w ${N:-2} -k ${K:-gthread}", "s -w 4 -k gthread", &[]),
            ("s -e \"$E\" -b 0.0.0.0:${P} x", "s x", &["-e E", "-b P"]),
            ("s --workers=$M -t${T} x", "s x", &["--workers M", "-t T"]),
            ("A=$Q s '$N' -n $N", "s $N -n 4", &["A Q"]),
        ] {
            let (found, said) = of(text).unwrap();
            assert_eq!(
                (found.as_str(), said),
                (argv, dropped.iter().map(|d| (*d).to_owned()).collect())
            );
        }
        // More than a name, a word that is no flag's, more words than one, or nothing to put in.
        for text in [
            "s $(x)",
            "s ${N#4}",
            "s $1",
            "s $A",
            "$A",
            "s -x $W",
            "s ${A:-$B}",
            "s x",
            "s $N | x",
            "s \\",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
