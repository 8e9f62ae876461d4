//! Which entries are shown.

use super::entry::{Entry, Source};
use super::since::Since;
use regex::{Regex, RegexBuilder};

/// All of it must hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) slot: Option<u16>,
    pub(super) generation: Option<u32>,
    pub(super) grep: Option<Regex>,
    pub(super) since: Option<Since>,
}

impl Filter {
    /// Whether an entry is shown. Whoever asks for a slot or a generation wants nothing of which it is not known.
    pub(super) fn wants(&self, entry: &Entry) -> bool {
        entry.opening().is_none()
            && !self.is_before(entry.time_usec)
            && self
                .slot
                .is_none_or(|slot| entry.slot == Some(slot) && entry.source != Source::Systemd)
            && self.generation.is_none_or(|generation| entry.generation == Some(generation))
            && self.grep.as_ref().is_none_or(|grep| grep.is_match(&entry.text))
    }

    /// Whether this is too long ago.
    pub(super) fn is_before(&self, usec: u64) -> bool {
        self.since.is_some_and(|since| usec < since.0)
    }
}

/// A pattern without capitals is for both cases, as journalctl has it.
pub(super) fn pattern(text: &str) -> Result<Regex, String> {
    let both = !text.chars().any(char::is_uppercase);
    RegexBuilder::new(text).case_insensitive(both).build().map_err(|error| {
        let error = error.to_string();
        // The parser draws a picture first.
        let reason = error.lines().last().unwrap_or_default();
        let reason = reason.strip_prefix("error: ").unwrap_or(reason);
        format!("'{text}' is no regular expression: {reason}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::control::Line;

    fn line(slot: u16, generation: u32, text: &str) -> Entry {
        let text = text.to_owned();
        Entry::from_line("myapp", Line { time_usec: 1000, slot, worker: 1, generation, text })
    }

    #[test]
    fn everything_that_is_asked_for_must_hold() {
        let entry = line(2, 3, "GET /index 500");
        let yes = |filter: Filter| assert!(filter.wants(&entry), "{filter:?}");
        let no = |filter: Filter| assert!(!filter.wants(&entry), "{filter:?}");
        yes(Filter::default());
        yes(Filter { slot: Some(2), generation: Some(3), ..Filter::default() });
        no(Filter { slot: Some(2), generation: Some(4), ..Filter::default() });
        no(Filter { slot: Some(1), ..Filter::default() });
        yes(Filter { since: Some(Since(1000)), ..Filter::default() });
        no(Filter { since: Some(Since(1001)), ..Filter::default() });
        yes(Filter { grep: Some(pattern("get .* 5\\d\\d$").unwrap()), ..Filter::default() });
        no(Filter { grep: Some(pattern("Get").unwrap()), ..Filter::default() });
        let unknown = Entry { slot: None, generation: None, ..entry.clone() };
        assert!(!Filter { slot: Some(2), ..Filter::default() }.wants(&unknown));
        assert!(!Filter { generation: Some(3), ..Filter::default() }.wants(&unknown));
    }

    #[test]
    fn the_first_line_of_a_stream_is_not_shown() {
        let text = "dogwatch: worker 5 (slot 1, generation 2) writes here";
        let opening = Entry { priority: Some(7), ..line(1, 2, text) };
        assert!(!Filter::default().wants(&opening));
        assert!(Filter::default().wants(&Entry { priority: Some(6), ..opening }));
    }

    #[test]
    fn a_bad_pattern_is_told_in_a_line() {
        assert_eq!(pattern("a(b").unwrap_err(), "'a(b' is no regular expression: unclosed group");
    }
}
