//! A unit file as text (`systemd.syntax(7)`): sections of settings, in their order.

use std::fmt;

/// A unit file: each section with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Document {
    sections: Vec<(String, Vec<(String, String)>)>,
}

impl Document {
    /// Returns what a unit file says, without its comments. It is one of ours: no line goes on in the next.
    pub(super) fn read(text: &str) -> Self {
        let mut sections: Vec<(String, Vec<(String, String)>)> = vec![];
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                sections.push((name.to_owned(), vec![]));
            } else if let (Some((key, value)), Some((_, all))) =
                (line.split_once('='), sections.last_mut())
            {
                all.push((key.to_owned(), value.to_owned()));
            }
        }
        Self { sections }
    }

    fn section(&mut self, name: &str) -> &mut Vec<(String, String)> {
        let at = self.sections.iter().position(|(known, _)| known == name);
        let at = at.unwrap_or_else(|| {
            self.sections.push((name.to_owned(), vec![]));
            self.sections.len() - 1
        });
        &mut self.sections[at].1
    }

    /// Takes a setting away, every line of it.
    pub(super) fn remove(&mut self, section: &str, key: &str) {
        self.section(section).retain(|(known, _)| known != key);
    }

    /// Takes a section away.
    pub(super) fn remove_section(&mut self, section: &str) {
        self.sections.retain(|(known, _)| known != section);
    }

    /// Gives a setting this value, where it stands or at the end of its section.
    pub(super) fn set(&mut self, section: &str, key: &str, value: impl Into<String>) {
        let all = self.section(section);
        let value = value.into();
        match all.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => all.push((key.to_owned(), value)),
        }
    }

    /// Adds a line at the end of a section.
    pub(super) fn add(&mut self, section: &str, key: &str, value: impl Into<String>) {
        self.section(section).push((key.to_owned(), value.into()));
    }

    /// Adds to what is allowed; where everything is, a first line would forbid the rest.
    pub(super) fn extend(&mut self, section: &str, key: &str, value: impl Into<String>) {
        if self.section(section).iter().any(|(known, _)| known == key) {
            self.add(section, key, value);
        }
    }

    /// Changes every value.
    pub(super) fn each(&mut self, change: impl Fn(&str) -> String) {
        for (_, value) in self.sections.iter_mut().flat_map(|(_, all)| all) {
            *value = change(value);
        }
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (name, all) in self.sections.iter().filter(|(_, all)| !all.is_empty()) {
            writeln!(f, "{}[{name}]", if first { "" } else { "\n" })?;
            first = false;
            for (key, value) in all {
                writeln!(f, "{key}={value}")?;
            }
        }
        Ok(())
    }
}

/// Returns text that systemd takes as it is, where it looks for specifiers (`systemd.unit(5)`).
pub(super) fn plain(text: &str) -> String {
    text.replace('%', "%%")
}

/// Returns one word of a list or a command line, quoted where it must be (`systemd.syntax(7)`, "Quoting").
pub(super) fn word(text: &str) -> String {
    let plain = plain(text);
    let is_simple =
        |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=".contains(c) || !c.is_ascii();
    if !plain.is_empty() && plain.chars().all(is_simple) {
        return plain;
    }
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Returns one word of a command line, where systemd also puts in variables (`systemd.service(5)`, "Command lines").
pub(super) fn argument(text: &str) -> String {
    word(&text.replace('$', "$$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_keep_their_order_and_places() {
        let text = "# why\n[Unit]\nA=1\n\n[Service]\nB=2\n# C\nC=3\nB=4\n";
        let mut unit = Document::read(text);
        unit.set("Service", "C", "x=y");
        unit.set("Unit", "D", "5");
        unit.remove("Service", "B");
        assert_eq!(unit.to_string(), "[Unit]\nA=1\nD=5\n\n[Service]\nC=x=y\n");
        unit.remove_section("Service");
        unit.add("Socket", "E", "");
        assert_eq!(unit.to_string(), "[Unit]\nA=1\nD=5\n\n[Socket]\nE=\n");
    }

    #[test]
    fn words_are_quoted_where_they_must_be() {
        assert_eq!(word("/srv/a-b_c"), "/srv/a-b_c");
        assert_eq!(word("/srv/100%"), "/srv/100%%");
        assert_eq!(word("/srv/my \"app\"\\"), r#""/srv/my \"app\"\\""#);
        assert_eq!(argument("a$b"), "\"a$$b\"");
    }
}
