//! An app's entries in the journal: the last ones that match, then those to come; and whose stream a line is from.

#[cfg(not(feature = "journal"))]
use super::journalctl::Reading;
#[cfg(feature = "journal")]
use super::libsystemd::Reading;

use super::entry::{Entry, Fields, Whose};
use super::filter::Filter;
use super::query::{self, Group, Next, Start, Unit};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// One look at what is there already takes no longer, or is repeated.
const LOOK: Duration = Duration::from_secs(60);

/// What is wanted.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) filter: Filter,
    /// So many of the last ones; `None` is all.
    pub(super) last: Option<usize>,
    pub(super) follow: bool,
    /// Whether each line is to say which worker wrote it.
    pub(super) whose: bool,
}

/// An app's entries, as they come.
#[derive(Debug)]
pub(super) struct Journal {
    reader: Reader,
    wanted: Wanted,
    /// What was found at first.
    waiting: VecDeque<Entry>,
    reading: Option<Reading>,
    /// Whether the journal has anything of the app.
    pub(super) is_known: bool,
}

impl Journal {
    /// Looks for what is there.
    pub(super) fn open(app: &str, units: &[Unit], wanted: Wanted) -> Result<Self, String> {
        let groups = query::groups(app, units, wanted.filter.slot);
        let openings = query::openings(app, units);
        let whose = wanted.whose || wanted.filter.generation.is_some();
        let names = units.iter().filter_map(|unit| unit.name().map(str::to_owned)).collect();
        let streams = Streams { groups: openings, reading: None, known: BTreeMap::new() };
        let reader = Reader { app: app.to_owned(), names, streams: whose.then_some(streams) };
        let waiting = VecDeque::new();
        let mut this = Self { reader, wanted, waiting, reading: None, is_known: false };
        match this.wanted.last {
            None => this.read_on(&groups)?,
            Some(count) => this.read_back(&groups, count)?,
        }
        Ok(this)
    }

    /// All that match are told one after the other, however many there are.
    fn read_on(&mut self, groups: &[Group]) -> Result<(), String> {
        let mut newest = Reading::open(groups, &Start::Newest, false)?;
        self.is_known = matches!(look(&mut newest)?, Next::Some(_));
        let start = self.wanted.filter.since.map_or(Start::Oldest, |since| Start::Time(since.0));
        self.reading = Some(Reading::open(groups, &start, self.wanted.follow)?);
        Ok(())
    }

    /// The journal is read backwards until there are enough, then on from its newest entry.
    fn read_back(&mut self, groups: &[Group], count: usize) -> Result<(), String> {
        let mut newest = Reading::open(groups, &Start::Newest, false)?;
        let mut cursor = None;
        while let Next::Some(fields) = look(&mut newest)? {
            if cursor.is_none() {
                cursor = fields.get("__CURSOR").cloned();
                self.is_known = true;
            }
            let before = self.wanted.filter.is_before(super::entry::time(&fields));
            if self.waiting.len() >= count || before {
                break;
            }
            if let Some(entry) = self.reader.entry(&fields)?
                && self.wanted.filter.wants(&entry)
            {
                self.waiting.push_front(entry);
            }
        }
        if self.wanted.follow {
            let start = cursor.map_or(Start::Oldest, Start::After);
            self.reading = Some(Reading::open(groups, &start, true)?);
        }
        Ok(())
    }

    /// Returns the next entry, if one comes in time.
    pub(super) fn next(&mut self, wait: Duration) -> Result<Next<Entry>, String> {
        if let Some(entry) = self.waiting.pop_front() {
            return Ok(Next::Some(entry));
        }
        let Some(reading) = &mut self.reading else { return Ok(Next::End) };
        loop {
            match reading.next(wait)? {
                Next::Nothing => return Ok(Next::Nothing),
                Next::End => return Ok(Next::End),
                Next::Some(fields) => {
                    if let Some(entry) = self.reader.entry(&fields)?
                        && self.wanted.filter.wants(&entry)
                    {
                        return Ok(Next::Some(entry));
                    }
                }
            }
        }
    }
}

/// The next entry of what is there already.
fn look(reading: &mut Reading) -> Result<Next<Fields>, String> {
    loop {
        match reading.next(LOOK)? {
            Next::Nothing => {}
            next @ (Next::Some(_) | Next::End) => return Ok(next),
        }
    }
}

/// Makes entries of fields.
#[derive(Debug)]
struct Reader {
    app: String,
    /// The names of the units.
    names: Vec<String>,
    streams: Option<Streams>,
}

impl Reader {
    fn entry(&mut self, fields: &Fields) -> Result<Option<Entry>, String> {
        let Some(mut entry) = Entry::from_journal(&self.app, &self.names, fields) else {
            return Ok(None);
        };
        if let (Some(streams), Some(slot)) = (&mut self.streams, entry.slot)
            && let Some(id) = fields.get("_STREAM_ID")
        {
            let whose = match entry.opening() {
                Some(whose) => Some(*streams.known.entry(id.clone()).or_insert(Some(whose))),
                None => Some(streams.whose(&self.app, &self.names, id)?),
            };
            if let Some(whose) = whose.flatten().filter(|whose| whose.slot == slot) {
                entry.worker = Some(whose.worker);
                entry.generation = Some(whose.generation);
            }
        }
        Ok(Some(entry))
    }
}

/// Whose stream is whose, as far as that was needed: the first lines of streams are read backwards until the one that is
/// asked for is found.
#[derive(Debug)]
struct Streams {
    groups: Vec<Group>,
    /// Begun with the first question.
    reading: Option<Reading>,
    /// By the stream's id; `None` where the first line is not in the journal any more.
    known: BTreeMap<String, Option<Whose>>,
}

impl Streams {
    fn whose(&mut self, app: &str, names: &[String], id: &str) -> Result<Option<Whose>, String> {
        if let Some(whose) = self.known.get(id) {
            return Ok(*whose);
        }
        let reading = match &mut self.reading {
            Some(reading) => reading,
            none => none.insert(Reading::open(&self.groups, &Start::Newest, false)?),
        };
        while let Next::Some(fields) = look(reading)? {
            let entry = Entry::from_journal(app, names, &fields);
            let Some(whose) = entry.and_then(|entry| entry.opening()) else { continue };
            let Some(found) = fields.get("_STREAM_ID") else { continue };
            self.known.insert(found.clone(), Some(whose));
            if found == id {
                return Ok(Some(whose));
            }
        }
        self.known.insert(id.to_owned(), None);
        Ok(None)
    }
}
