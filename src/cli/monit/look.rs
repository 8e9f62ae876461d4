//! What the terminal can show: colours or none, blocks or plain letters. Nothing is told by them alone.

use super::super::text;
use super::super::trouble::printable;
use ratatui::style::{Color, Modifier, Style};

/// The heights of a history, in blocks and in letters.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const LETTERS: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

/// How things look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) colour: bool,
    pub(super) unicode: bool,
}

impl Look {
    /// As the environment says.
    pub(super) fn of_terminal() -> Self {
        let names = ["LC_ALL", "LC_CTYPE", "LANG"];
        let locale =
            names.iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
        let locale = locale.unwrap_or_default().to_lowercase();
        let unicode = locale.contains("utf-8") || locale.contains("utf8");
        Self { colour: text::colour(), unicode }
    }

    fn fg(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    /// The style of a word that begins with a state, by how good that is.
    pub(super) fn state(self, word: &str) -> Style {
        let first = word.split(' ').next_back().unwrap_or(word);
        let words = [word.split(' ').next().unwrap_or(word), first];
        let any = |of: &[&str]| words.iter().any(|word| of.contains(word));
        if any(&["failed", "rolling_back", "waiting", "gone", "silent"]) {
            self.bad()
        } else if any(&[
            "starting",
            "reloading",
            "settling",
            "draining",
            "stopping",
            "paused",
            "stopped",
        ]) {
            self.fg(Color::Yellow)
        } else if any(&["ready", "running"]) {
            self.good()
        } else {
            Style::new()
        }
    }

    pub(super) fn good(self) -> Style {
        self.fg(Color::Green)
    }

    pub(super) fn bad(self) -> Style {
        self.fg(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// The newest values as a line of heights, `max` the highest; what is missing is blank.
    pub(super) fn history<'a>(
        self,
        values: impl DoubleEndedIterator<Item = &'a u64> + ExactSizeIterator,
        max: u64,
        width: usize,
    ) -> String {
        let levels = if self.unicode { BLOCKS } else { LETTERS };
        let level = |value: &u64| {
            let height = (value.min(&max) * 7).checked_div(max).unwrap_or(0);
            levels[usize::try_from(height).unwrap_or(0).min(7)]
        };
        let newest = values.len().saturating_sub(width);
        let line: String = values.skip(newest).map(level).collect();
        format!("{line:>width$}")
    }
}

/// A text from outside, fit for one line of the terminal.
pub(super) fn clean(text: &str) -> String {
    printable(text).replace('\t', "    ")
}

/// A text in rows, broken between words; a word that is wider than a row is broken too.
pub(super) fn broken(text: &str, width: u16) -> Vec<String> {
    let width = usize::from(width.max(1));
    let mut rows = vec![];
    let mut row = String::new();
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        let used = row.chars().count();
        if used > 0 && used + 1 + word.len() > width {
            rows.push(std::mem::take(&mut row));
        } else if used > 0 {
            row.push(' ');
        }
        while word.len() > width {
            rows.push(word.drain(..width).collect());
        }
        row.extend(word);
    }
    rows.push(row);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_as_wide_as_asked_for() {
        let look = Look { colour: false, unicode: true };
        assert_eq!(look.history([0, 50, 100].iter(), 100, 5), "  ▁▄█");
        assert_eq!(look.history([0, 50, 100, 999].iter(), 100, 2), "██");
        assert_eq!(Look { unicode: false, ..look }.history([0, 100].iter(), 100, 3), " _#");
        assert_eq!(look.history([7].iter(), 0, 1), "▁");
    }

    #[test]
    fn texts_are_broken_between_words() {
        assert_eq!(broken("one two three", 7), ["one two", "three"]);
        assert_eq!(broken("a verylongword b", 4), ["a", "very", "long", "word", "b"]);
        assert_eq!(broken("", 4), [""]);
        assert_eq!(broken("ab", 0), ["a", "b"]);
    }

    #[test]
    fn nothing_from_outside_controls_the_terminal() {
        assert_eq!(clean("a\tb\u{1b}[2J\r\u{9b}"), "a    b\u{fffd}[2J\u{fffd}\u{fffd}");
    }
}
