//! An entry as people read it: a line with the time, who speaks, and the text.

use super::entry::Entry;
use crate::cli::text;
use crate::cli::trouble::printable;

/// Returns it with the end of its line.
pub(super) fn text(entry: &Entry, colour: bool) -> String {
    let head =
        format!("{} {}: ", text::journal_moment(entry.time_usec), printable(&entry.identifier));
    let (on, off) = match entry.priority {
        Some(0..=3) if colour => ("\x1b[31m", "\x1b[0m"),
        Some(4) if colour => ("\x1b[33m", "\x1b[0m"),
        Some(5) if colour => ("\x1b[1m", "\x1b[0m"),
        Some(7) if colour => ("\x1b[2m", "\x1b[0m"),
        Some(_) | None => ("", ""),
    };
    let mut shown = String::new();
    // A text of several lines stands in several, all below the first.
    let mut before = head.clone();
    for line in entry.text.trim_end_matches('\n').split('\n') {
        shown.push_str(&format!("{before}{on}{}{off}\n", printable(line)));
        before = " ".repeat(head.chars().count());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::control::Line;

    #[test]
    fn a_line_is_short_and_controls_no_terminal() {
        let line = |text: &str| Line {
            time_usec: 1_795_256_401_123_456,
            slot: 3,
            worker: 1,
            generation: 1,
            text: text.to_owned(),
        };
        let entry = |text: &str| Entry::from_line("myapp", line(text));
        let head = format!("{} myapp/3: ", text::journal_moment(1_795_256_401_123_456));
        assert_eq!(text(&entry("hello"), true), format!("{head}hello\n"));
        assert_eq!(text(&entry("\x1b[2Jgone\r"), true), format!("{head}\u{fffd}[2Jgone\u{fffd}\n"));
        assert_eq!(
            text(&entry("one\ntwo\n"), false),
            format!("{head}one\n{}two\n", " ".repeat(head.len()))
        );
        assert_eq!(text(&entry(""), false), format!("{head}\n"));
        let bad = Entry { priority: Some(3), ..entry("bad") };
        assert_eq!(text(&bad, true), format!("{head}\x1b[31mbad\x1b[0m\n"));
        assert_eq!(text(&bad, false), format!("{head}bad\n"));
    }
}
