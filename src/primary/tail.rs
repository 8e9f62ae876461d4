//! The last words of workers, and nothing more: of each worker the end of its output, for the verdict of a reload; and
//! where there is no journal, the last lines of all of them, for `dogwatch logs`. Both are bounded.

use super::clock;
use super::worker::Identity;
use crate::protocol::control::{Event, Line, Logged};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, broadcast};

/// So much of a worker's output is kept …
const KEPT: usize = 16 * 1024;
/// … and so many lines of it are told, each cut at so many characters.
pub(super) const LINES: usize = 50;
const LINE: usize = 2000;
/// So many bytes of lines are kept of all workers together.
const RECENT: usize = 512 * 1024;
/// A follower that is so many lines behind misses some.
const BEHIND: usize = 1024;

/// The end of one worker's output; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    end: Mutex<End>,
    /// Tells that the last pipe was closed.
    closed: Notify,
}

#[derive(Debug, Default)]
struct End {
    bytes: Vec<u8>,
    /// There was more before.
    cut: bool,
    /// Pipes that are still read.
    pipes: usize,
}

impl Tail {
    fn lock(&self) -> MutexGuard<'_, End> {
        // There is one thread, and a line less is no reason to stop.
        self.0.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more pipe is read; dropping what is returned says that it has ended.
    pub(super) fn opened(&self) -> Opened {
        self.lock().pipes += 1;
        Opened(self.clone())
    }

    /// Keeps the end of what there is, and of `more` after it.
    pub(super) fn push(&self, more: &[u8]) {
        let mut end = self.lock();
        end.bytes.extend_from_slice(more);
        // Cut now and then, not each time.
        if end.bytes.len() > 2 * KEPT {
            let over = end.bytes.len() - KEPT;
            end.bytes.drain(..over);
            end.cut = true;
        }
    }

    /// Returns the last lines, oldest first; what is no text is replaced.
    pub(super) fn lines(&self) -> Vec<String> {
        let end = self.lock();
        let text = String::from_utf8_lossy(&end.bytes);
        let whole =
            if end.cut { text.split_once('\n').map_or("", |(_, rest)| rest) } else { &text };
        let lines: Vec<&str> = whole.lines().collect();
        let last = &lines[lines.len().saturating_sub(LINES)..];
        last.iter().map(|line| line.chars().take(LINE).collect()).collect()
    }

    /// Waits until all that the worker wrote was read.
    pub(super) async fn ended(&self) {
        loop {
            let closed = self.0.closed.notified();
            if self.lock().pipes == 0 {
                return;
            }
            closed.await;
        }
    }
}

/// A pipe that is being read.
#[derive(Debug)]
pub(super) struct Opened(Tail);

impl Drop for Opened {
    fn drop(&mut self) {
        let mut end = self.0.lock();
        end.pipes -= 1;
        if end.pipes == 0 {
            self.0.0.closed.notify_waiters();
        }
    }
}

/// The last lines of all workers and what happened among them, where no journal keeps that; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    kept: Arc<Mutex<Kept>>,
    live: broadcast::Sender<Arc<Logged>>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<Arc<Logged>>,
    bytes: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self { kept: Arc::default(), live: broadcast::Sender::new(BEHIND) }
    }
}

impl Recent {
    /// Keeps a line.
    pub(super) fn line(&self, who: Identity, line: &[u8]) {
        let line = Line {
            time_usec: clock::wall_usec(),
            slot: who.slot.0,
            worker: who.worker.0,
            generation: who.generation.0,
            text: String::from_utf8_lossy(line).chars().take(LINE).collect(),
        };
        self.keep(Logged { line: Some(line), event: None });
    }

    /// Keeps what happened.
    pub(super) fn event(&self, event: &Event) {
        self.keep(Logged { line: None, event: Some(event.clone()) });
    }

    fn keep(&self, entry: Logged) {
        let entry = Arc::new(entry);
        let mut kept = self.lock();
        kept.bytes += size(&entry);
        kept.entries.push_back(entry.clone());
        while kept.bytes > RECENT
            && let Some(oldest) = kept.entries.pop_front()
        {
            kept.bytes -= size(&oldest);
        }
        // Nobody may be listening.
        let _ = self.live.send(entry);
    }

    /// Returns the last `count` entries, of one slot if one is named, oldest first; and those to come.
    pub(super) fn last(
        &self,
        count: usize,
        slot: Option<u16>,
    ) -> (Vec<Arc<Logged>>, broadcast::Receiver<Arc<Logged>>) {
        let live = self.live.subscribe();
        let kept = self.lock();
        let wanted = |entry: &&Arc<Logged>| slot.is_none_or(|slot| entry.slot() == Some(slot));
        let mut last: Vec<_> =
            kept.entries.iter().rev().filter(wanted).take(count).cloned().collect();
        last.reverse();
        (last, live)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(entry: &Logged) -> usize {
    let text = entry.line.as_ref().map(|line| &line.text);
    let text = text.or(entry.event.as_ref().map(|event| &event.text));
    text.map_or(0, String::len) + size_of::<Logged>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Generation, Slot, WorkerId};

    #[test]
    fn only_the_last_whole_lines_are_kept() {
        let tail = Tail::default();
        for n in 0..100_000 {
            tail.push(format!("line {n}\n").as_bytes());
        }
        let lines = tail.lines();
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines.last().unwrap(), "line 99999");
        assert!(tail.lock().bytes.len() <= 2 * KEPT);
        tail.push(&vec![b'x'; 10 * KEPT]);
        assert_eq!(tail.lines(), [""; 0], "a line without end is not kept whole, so not at all");
        tail.push(b"\nlast words \xff");
        assert_eq!(tail.lines(), ["last words \u{fffd}"]);
    }

    #[test]
    fn the_lines_of_all_are_bounded_and_those_of_one_slot_can_be_asked_for() {
        let recent = Recent::default();
        for n in 0..20_000u16 {
            let who = Identity {
                worker: WorkerId(u64::from(n)),
                slot: Slot(n % 2),
                generation: Generation(1),
            };
            recent.line(who, format!("line {n}").as_bytes());
        }
        assert!(recent.lock().bytes <= RECENT);
        let (last, _) = recent.last(2, Some(1));
        let texts: Vec<&str> =
            last.iter().map(|entry| entry.line.as_ref().unwrap().text.as_str()).collect();
        assert_eq!(texts, ["line 19997", "line 19999"]);
    }

    #[tokio::test]
    async fn the_end_of_the_last_pipe_is_waited_for() {
        let tail = Tail::default();
        tail.ended().await;
        let (out, err) = (tail.opened(), tail.opened());
        drop(out);
        let ended = tokio::spawn({
            let tail = tail.clone();
            async move { tail.ended().await }
        });
        tokio::task::yield_now().await;
        assert!(!ended.is_finished());
        drop(err);
        ended.await.unwrap();
    }
}
