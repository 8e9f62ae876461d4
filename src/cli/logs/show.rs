//! An entry as people read it: a line with the time, who speaks, and the text.

use super::entry::Entry;
use crate::cli::text;
use crate::cli::trouble::printable;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Returns it with the end of its line.
pub(super) fn text(entry: &Entry, colour: bool) -> String {
    let head = format!("{} {}: ", moment(entry.time_usec), printable(&entry.identifier));
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

/// `Nov 21 10:00:01.123Z`; the Z is for UTC.
fn moment(usec: u64) -> String {
    let full = text::moment(usec);
    let month = full.get(5..7).and_then(|month| month.parse::<usize>().ok());
    let month = month.and_then(|month| MONTHS.get(month.wrapping_sub(1)));
    match (month, full.get(8..10), full.get(11..)) {
        (Some(month), Some(day), Some(time)) => format!("{month} {day} {time}"),
        _ => full,
    }
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
        let head = "Nov 21 10:20:01.123Z myapp/3: ";
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
