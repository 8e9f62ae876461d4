//! The last lines of an app's output, and which of them are looked at.

use std::collections::VecDeque;

/// So many lines are kept.
const KEPT: usize = 500;

/// A line of output, fit to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogLine {
    /// When, in microseconds since 1970.
    pub(super) time_usec: u64,
    /// Whose; `None` is the primary's.
    pub(super) slot: Option<u16>,
    pub(super) text: String,
}

/// The last lines, and what of them is shown.
#[derive(Debug, Default)]
pub(super) struct Lines {
    ring: VecDeque<LogLine>,
    /// Only lines that have this in them, in small or capital letters.
    filter: String,
    /// Only lines of the selected slot.
    one_slot: bool,
    /// So many lines back from the newest.
    back: usize,
}

impl Lines {
    /// Keeps a line. Who has gone back goes on seeing the same ones.
    pub(super) fn push(&mut self, line: LogLine, selected: u16) {
        if self.back > 0 && self.is_wanted(&line, selected) {
            self.back += 1;
        }
        if self.ring.len() == KEPT {
            self.ring.pop_front();
        }
        self.ring.push_back(line);
    }

    /// Returns the lines that are looked at, oldest first, at most `height`.
    pub(super) fn shown(&self, height: usize, selected: u16) -> Vec<&LogLine> {
        let wanted = self.ring.iter().filter(|line| self.is_wanted(line, selected));
        let all: Vec<&LogLine> = wanted.collect();
        // At the oldest line there is no further back.
        let back = self.back.min(all.len().saturating_sub(height));
        let end = all.len() - back;
        all[end.saturating_sub(height)..end].to_vec()
    }

    fn is_wanted(&self, line: &LogLine, selected: u16) -> bool {
        let of_slot = !self.one_slot || line.slot == Some(selected);
        of_slot && (self.filter.is_empty() || has(&line.text, &self.filter))
    }

    /// Goes back by so many lines, or forward.
    pub(super) fn go(&mut self, by: isize, selected: u16) {
        let count = self.ring.iter().filter(|line| self.is_wanted(line, selected)).count();
        self.back = self.back.saturating_add_signed(by).min(count.saturating_sub(1));
    }

    /// Goes to the newest line and follows.
    pub(super) fn follow(&mut self) {
        self.back = 0;
    }

    /// Whether new lines are shown as they come.
    pub(super) fn follows(&self) -> bool {
        self.back == 0
    }

    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    pub(super) fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        self.back = 0;
    }

    pub(super) fn one_slot(&self) -> bool {
        self.one_slot
    }

    /// Shows all slots' lines, or one's.
    pub(super) fn toggle_one_slot(&mut self) {
        self.one_slot = !self.one_slot;
        self.back = 0;
    }
}

fn has(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(&part.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &Lines, height: usize, selected: u16) -> Vec<&str> {
        lines.shown(height, selected).into_iter().map(|line| line.text.as_str()).collect()
    }

    fn push(lines: &mut Lines, slot: Option<u16>, text: &str) {
        lines.push(LogLine { time_usec: 0, slot, text: text.to_owned() }, 1);
    }

    #[test]
    fn lines_are_of_one_slot_or_of_all_and_have_what_is_looked_for() {
        let mut lines = Lines::default();
        push(&mut lines, Some(0), "GET /a");
        push(&mut lines, Some(1), "GET /b");
        push(&mut lines, None, "worker 3 is ready");
        assert_eq!(texts(&lines, 2, 1), ["GET /b", "worker 3 is ready"]);
        lines.toggle_one_slot();
        assert_eq!(texts(&lines, 9, 1), ["GET /b"]);
        lines.toggle_one_slot();
        lines.set_filter("get".to_owned());
        assert_eq!(texts(&lines, 9, 1), ["GET /a", "GET /b"]);
        assert!(texts(&lines, 0, 1).is_empty());
    }

    #[test]
    fn who_went_back_stays_there_and_memory_has_an_end() {
        let mut lines = Lines::default();
        for number in 0..KEPT + 10 {
            push(&mut lines, Some(0), &number.to_string());
        }
        assert_eq!(lines.ring.len(), KEPT);
        lines.go(2, 0);
        assert_eq!(texts(&lines, 2, 0), ["506", "507"]);
        push(&mut lines, Some(0), "more");
        assert_eq!(texts(&lines, 2, 0), ["506", "507"]);
        lines.go(isize::MAX, 0);
        assert_eq!(texts(&lines, 2, 0), ["11", "12"]);
        lines.follow();
        assert_eq!(texts(&lines, 1, 0), ["more"]);
    }
}
