//! Lines out of a stream of bytes that comes in pieces.

/// One line, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// As it came.
    Whole(&'a [u8]),
    /// It was longer than allowed, and is not kept.
    TooLong,
}

/// What has come and is not read yet.
#[derive(Debug)]
pub struct Lines {
    limit: usize,
    bytes: Vec<u8>,
    /// Where the next line begins …
    start: usize,
    /// … and up to where it was searched for its end.
    searched: usize,
    /// The line that is coming is too long: its bytes are thrown away.
    skipping: bool,
}

/// What is kept for the next bytes, once a long line was read.
const KEPT: usize = 64 * 1024;

impl Lines {
    /// Returns a reader of lines of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, bytes: vec![], start: 0, searched: 0, skipping: false }
    }

    /// Whether nothing is left of what came.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len() && !self.skipping
    }

    /// What came and was not returned as a line yet.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Takes what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
            self.bytes = vec![];
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next line that is complete.
    pub fn next_line(&mut self) -> Option<Line<'_>> {
        let found = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = found.map(|at| self.searched + at) else {
            self.searched = self.bytes.len();
            if self.searched - self.start > self.limit {
                self.skipping = true;
            }
            if self.skipping {
                (self.start, self.searched) = (0, 0);
                self.bytes.clear();
            }
            return None;
        };
        let line = self.start..end;
        (self.start, self.searched) = (end + 1, end + 1);
        if std::mem::take(&mut self.skipping) || line.len() > self.limit {
            return Some(Line::TooLong);
        }
        Some(Line::Whole(&self.bytes[line]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<String> {
        let mut found = vec![];
        while let Some(line) = lines.next_line() {
            found.push(match line {
                Line::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Line::TooLong => "TOO LONG".to_owned(),
            });
        }
        found
    }

    #[test]
    fn lines_come_out_whole_however_they_come_in() {
        let text = "one\n\ntwo and\nthree\nrest";
        for size in 1..=text.len() {
            let mut lines = Lines::new(100);
            let mut found = vec![];
            for piece in text.as_bytes().chunks(size) {
                lines.push(piece);
                found.extend(all(&mut lines));
            }
            assert_eq!(found, ["one", "", "two and", "three"], "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_end_takes_no_room() {
        let mut lines = Lines::new(10);
        for _ in 0..1000 {
            lines.push(b"0123456789");
            assert_eq!(all(&mut lines), [""; 0]);
            assert!(lines.bytes.len() <= 20);
        }
        lines.push(b"end\nshort\n12345678901\n1234567890\n");
        assert_eq!(all(&mut lines), ["TOO LONG", "short", "TOO LONG", "1234567890"]);
    }
}
