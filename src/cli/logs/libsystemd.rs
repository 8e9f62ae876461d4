//! The journal through libsystemd, which the journald crate binds (feature `journal`). That crate knows no alternatives
//! between groups of matches, so each group has a reader of its own, and they are woven together here.

use super::entry::{Fields, time};
use super::query::{Group, Next, Start};
use journald::reader::{JournalFiles, JournalReader, JournalReaderConfig, JournalSeek};
use std::io;
use std::time::Duration;

/// So many entries in a row may be damaged before that is an error.
const DAMAGED: u32 = 1000;

/// Entries as they come.
pub(super) struct Reading {
    readers: Vec<Reader>,
    back: bool,
    follow: bool,
    /// The entry that was told last: one may be in several groups.
    last: String,
}

/// The reader of one group, with what it has found and not told.
struct Reader {
    journal: JournalReader,
    head: Option<Fields>,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("last", &self.last).finish_non_exhaustive()
    }
}

impl Reading {
    /// Begins to read.
    pub(super) fn open(groups: &[Group], start: &Start, follow: bool) -> Result<Self, String> {
        let last = match start {
            Start::After(cursor) => cursor.clone(),
            Start::Newest | Start::Oldest | Start::Time(_) => String::new(),
        };
        let readers = groups.iter().map(|group| Reader::open(group, start));
        let readers = readers.collect::<io::Result<Vec<_>>>();
        let readers = readers.map_err(|e| format!("cannot open the journal: {e}"))?;
        Ok(Self { readers, back: *start == Start::Newest, follow, last })
    }

    /// Returns the next entry, if one comes in time.
    pub(super) fn next(&mut self, wait: Duration) -> Result<Next<Fields>, String> {
        let cannot = |e: io::Error| format!("cannot read the journal: {e}");
        if let Some(fields) = self.take().map_err(cannot)? {
            return Ok(Next::Some(fields));
        }
        if !self.follow {
            return Ok(Next::End);
        }
        // Whatever is added to the journal wakes any of its readers; then each looks for new files.
        for (number, reader) in self.readers.iter_mut().enumerate() {
            let wait = if number == 0 { wait } else { Duration::ZERO };
            reader.journal.wait_timeout(wait).map_err(cannot)?;
        }
        Ok(self.take().map_err(cannot)?.map_or(Next::Nothing, Next::Some))
    }

    /// Takes what is next of all readers.
    fn take(&mut self) -> io::Result<Option<Fields>> {
        loop {
            // Once more after each that was found: an older one may have been added for another reader meanwhile.
            while self.fill()? {}
            let heads = self.readers.iter_mut().filter(|reader| reader.head.is_some());
            let order = |reader: &&mut Reader| reader.head.as_ref().map(position);
            let next = if self.back { heads.max_by_key(order) } else { heads.min_by_key(order) };
            let Some(fields) = next.and_then(|reader| reader.head.take()) else {
                return Ok(None);
            };
            let cursor = fields.get("__CURSOR").cloned().unwrap_or_default();
            if cursor != self.last {
                self.last = cursor;
                return Ok(Some(fields));
            }
        }
    }

    /// Looks for the next entry of each reader that has none, and says whether one was found.
    fn fill(&mut self) -> io::Result<bool> {
        let mut found = false;
        for reader in self.readers.iter_mut().filter(|reader| reader.head.is_none()) {
            reader.head = reader.step(self.back)?;
            found |= reader.head.is_some();
        }
        Ok(found)
    }
}

impl Reader {
    fn open(group: &Group, start: &Start) -> io::Result<Self> {
        let config = JournalReaderConfig {
            files: JournalFiles::All,
            only_volatile: false,
            only_local: true,
        };
        let mut journal = JournalReader::open(&config)?;
        for one in group {
            journal.add_filter(one)?;
        }
        journal.seek(match start {
            Start::Newest => JournalSeek::Tail,
            Start::Oldest => JournalSeek::Head,
            // A cursor that only has the time is one, too.
            Start::Time(usec) => JournalSeek::Cursor(format!("t={usec:x}")),
            Start::After(cursor) => JournalSeek::Cursor(cursor.clone()),
        })?;
        Ok(Self { journal, head: None })
    }

    /// The next entry, or the one before; those that are damaged are left out, as journalctl does.
    fn step(&mut self, back: bool) -> io::Result<Option<Fields>> {
        let mut damaged = 0;
        loop {
            let entry =
                if back { self.journal.previous_entry() } else { self.journal.next_entry() };
            match entry {
                Ok(entry) => return Ok(entry.map(|entry| entry.fields)),
                Err(e) if damaged >= DAMAGED => return Err(e),
                Err(_) => damaged += 1,
            }
        }
    }
}

/// Where an entry stands in the journal: its time, and its number where the time is the same.
fn position(fields: &Fields) -> (u64, u64) {
    let cursor = fields.get("__CURSOR").map(String::as_str).unwrap_or_default();
    let number = cursor.split(';').find_map(|part| part.strip_prefix("i="));
    (time(fields), number.and_then(|number| u64::from_str_radix(number, 16).ok()).unwrap_or(0))
}
