//! A file that is being written: keys with their values, and what is to be said of them. Values are written by the toml
//! crate, comments by hand.

use crate::config::typed::Typed;
use crate::primary::refuse_name;
use std::fmt::Write as _;
use toml::Value;

/// The tables of the file, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Top,
    Env,
    Ready,
    Stop,
    Restart,
}

impl Table {
    const ALL: [Self; 5] = [Self::Top, Self::Env, Self::Ready, Self::Stop, Self::Restart];

    fn header(self) -> &'static str {
        match self {
            Self::Top => "",
            Self::Env => "\n[env]\n",
            Self::Ready => "\n[ready]\n",
            Self::Stop => "\n[stop]\n",
            Self::Restart => "\n[restart]\n",
        }
    }
}

/// What is to be said of an attribute.
#[derive(Clone, Debug)]
struct Remark {
    attribute: String,
    text: String,
    /// The key that it belongs to; without one it stands at the end.
    at: Option<(Table, String)>,
}

/// An app's file in the making.
#[derive(Debug)]
pub(super) struct Draft {
    /// What the app is called.
    pub(super) name: String,
    head: String,
    /// What stands over that which has no place.
    rest: &'static str,
    keys: Vec<(Table, String, Value)>,
    remarks: Vec<Remark>,
    /// What is said in the file alone, of a key.
    notes: Vec<(Table, &'static str, String)>,
    /// Keys that are not set: how they would be, and what for.
    choices: Vec<(&'static str, String)>,
    /// Attributes whose value is what dogwatch does without being told.
    anyway: Vec<String>,
}

impl Draft {
    /// Begins a file with a line that says where it comes from, and one for what has no place in it.
    pub(super) fn new(name: String, head: String, rest: &'static str) -> Self {
        Self {
            name,
            head,
            rest,
            keys: vec![],
            remarks: vec![],
            notes: vec![],
            choices: vec![],
            anyway: vec![],
        }
    }

    /// Writes a key, or another value for it.
    pub(super) fn set(&mut self, table: Table, key: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.keys.iter_mut().find(|(t, k, _)| *t == table && k == key) {
            Some((_, _, known)) => *known = value,
            None => self.keys.push((table, key.to_owned(), value)),
        }
    }

    /// Returns what a key was set to.
    pub(super) fn get(&self, table: Table, key: &str) -> Option<&Value> {
        self.keys.iter().find(|(t, k, _)| *t == table && k == key).map(|(_, _, value)| value)
    }

    /// Says something of an attribute that has no place in the file.
    pub(super) fn remark(&mut self, attribute: &str, text: impl Into<String>) {
        let (attribute, text) = (attribute.to_owned(), text.into());
        self.remarks.push(Remark { attribute, text, at: None });
    }

    /// Says something of an attribute, before the key that it became.
    pub(super) fn remark_at(
        &mut self,
        table: Table,
        key: &str,
        attribute: &str,
        text: impl Into<String>,
    ) {
        let (attribute, text) = (attribute.to_owned(), text.into());
        self.remarks.push(Remark { attribute, text, at: Some((table, key.to_owned())) });
    }

    /// Explains a key to who reads the file.
    pub(super) fn note(&mut self, table: Table, key: &'static str, text: impl Into<String>) {
        self.notes.push((table, key, text.into()));
    }

    /// Shows a key that is left out, as a comment at the end of the top table.
    pub(super) fn choice(&mut self, key: &'static str, text: impl Into<String>) {
        self.choices.push((key, text.into()));
    }

    /// Notes an attribute that says what is so anyway.
    pub(super) fn anyway(&mut self, attribute: &str) {
        self.anyway.push(attribute.to_owned());
    }

    /// Whether something was said of an attribute, or it is so anyway.
    #[cfg(test)]
    pub(super) fn tells_of(&self, attribute: &str) -> bool {
        let lists = |text: &str| text.split(", ").any(|name| name == attribute);
        self.remarks.iter().any(|remark| lists(&remark.attribute))
            || self.anyway.iter().any(|known| known == attribute)
    }

    /// The remarks, a line each.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.remarks.iter().map(|r| format!("{}: {}: {}", self.name, r.attribute, r.text))
    }

    /// Writes the file.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        comment(&mut text, "# ", &self.head);
        text.push('\n');
        for table in Table::ALL {
            let mut keys: Vec<_> = self.keys.iter().filter(|(t, _, _)| *t == table).collect();
            if table == Table::Top {
                // In the order of the documentation.
                let order = Typed::keys();
                keys.sort_by_key(|(_, key, _)| order.iter().position(|known| known == key));
            }
            text.push_str(if keys.is_empty() { "" } else { table.header() });
            for (_, key, value) in keys {
                self.explain(&mut text, table, key);
                let _ = writeln!(text, "{key} = {value}");
            }
            for (key, said) in self.choices.iter().filter(|_| table == Table::Top) {
                comment(&mut text, "# ", said);
                let _ = writeln!(text, "# {key}");
            }
        }
        self.end(&mut text);
        text
    }

    fn explain(&self, text: &mut String, table: Table, key: &str) {
        for (_, _, note) in self.notes.iter().filter(|(t, k, _)| *t == table && *k == key) {
            comment(text, "# ", note);
        }
        let here =
            |remark: &&Remark| remark.at.as_ref().is_some_and(|(t, k)| *t == table && *k == key);
        for Remark { attribute, text: said, .. } in self.remarks.iter().filter(here) {
            comment(text, "# ", &format!("{attribute}: {said}"));
        }
    }

    /// What has no place.
    fn end(&self, text: &mut String) {
        let placed = |remark: &Remark| {
            remark.at.as_ref().is_some_and(|(table, key)| self.get(*table, key).is_some())
        };
        let rest: Vec<_> = self.remarks.iter().filter(|remark| !placed(remark)).collect();
        if !rest.is_empty() {
            let _ = writeln!(text, "\n# {}:", self.rest);
        }
        for Remark { attribute, text: said, .. } in rest {
            comment(text, "# - ", &format!("{attribute}: {said}"));
        }
        if !self.anyway.is_empty() {
            text.push('\n');
            comment(text, "# ", &format!("As it is anyway: {}.", self.anyway.join(", ")));
        }
    }
}

/// Writes a comment, broken into lines. Whatever could end it, or control a terminal, is made visible.
fn comment(text: &mut String, mark: &str, said: &str) {
    const WIDTH: usize = 110;
    let indent = format!("#{}", " ".repeat(mark.len() - 1));
    let mut line = mark.to_owned();
    let mut is_empty = true;
    for word in super::trouble::printable(said).split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{line}");
            line.clone_from(&indent);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

/// A name as [`refuse_name`] lets it pass.
pub(super) fn valid_name(wanted: &str) -> String {
    let mut name = String::new();
    for c in wanted.chars() {
        let c = if c.is_ascii_alphanumeric() || "_.@".contains(c) { c } else { '-' };
        if c != '-' || !name.ends_with('-') {
            name.push(c);
        }
    }
    let marks = ['-', '.'];
    let mut name = name.trim_matches(marks).to_owned();
    while refuse_name(&name).is_some() && !name.is_empty() {
        name.pop();
    }
    let name = name.trim_end_matches(marks);
    if name.is_empty() { "app".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_in_their_tables_with_what_is_said_of_them() {
        let mut draft = Draft::new(
            "api".to_owned(),
            "from a file".to_owned(),
            "What was told, and is not here",
        );
        draft.set(Table::Stop, "signal", "SIGINT");
        draft.set(Table::Top, "command", vec!["a b", "é"]);
        draft.set(Table::Stop, "signal", "SIGTERM");
        draft.note(Table::Stop, "signal", "why");
        draft.remark_at(Table::Stop, "signal", "kill_signal", "is so");
        draft.remark_at(Table::Ready, "timeout", "listen_timeout", "has no key");
        draft.remark("watch", "evil\nline = 1\u{1b}[31m");
        draft.anyway("autorestart = true");
        draft.choice("enabled = true", "at boot");
        assert_eq!(
            draft.text(),
            "\
# from a file

command = [\"a b\", \"é\"]
# at boot
# enabled = true

[stop]
# why
# kill_signal: is so
signal = \"SIGTERM\"

# What was told, and is not here:
# - listen_timeout: has no key
# - watch: evil\u{fffd}line = 1\u{fffd}[31m

# As it is anyway: autorestart = true.
"
        );
        assert!(draft.tells_of("watch") && !draft.tells_of("autorestart"));
        assert_eq!(draft.lines().next().unwrap(), "api: kill_signal: is so");
    }

    #[test]
    fn long_comments_are_broken() {
        let mut text = String::new();
        comment(&mut text, "# - ", &"word ".repeat(50));
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().all(|line| line.len() <= 110 && line.starts_with('#')), "{text}");
        assert!(text.lines().nth(1).unwrap().starts_with("#   word"));
    }
}
