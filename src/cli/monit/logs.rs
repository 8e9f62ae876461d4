//! Where the view's log lines come from: what `dogwatch logs -f` reads.

use super::super::logs::{self, Entry, Next, Whose};
use super::super::trouble::{Trouble, printable};
use super::feed::{Source, rest};
use super::lines::LogLine;
use super::state::News;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// So many lines from before are told.
const BEFORE: usize = 200;
/// After the end of a source it is looked for again.
const AGAIN: Duration = Duration::from_secs(1);
/// How soon the end of the view is seen.
const SLICE: Duration = Duration::from_millis(250);

/// Tells the lines of an app's output until the view has ended.
pub(super) fn follow(source: &Source, ended: &Arc<AtomicBool>) {
    // Lines up to this moment were told already, by a connection before.
    let mut told_usec = 0;
    let mut said = None;
    while !ended.load(Ordering::Relaxed) {
        let flow = match source.connect() {
            Ok(client) => read(source, client, &mut told_usec, ended),
            Err(_) => Ok(ControlFlow::Continue(())),
        };
        match flow {
            Ok(ControlFlow::Break(())) => return,
            // A reason is told once, not each second.
            Err(trouble) if said.as_ref() != Some(&trouble.message) => {
                let flow = tell(source, 0, None, &trouble.message);
                said = Some(trouble.message);
                if flow.is_break() {
                    return;
                }
            }
            Ok(ControlFlow::Continue(())) | Err(_) => {}
        }
        for _ in 0..AGAIN.as_millis() / SLICE.as_millis() {
            if !ended.load(Ordering::Relaxed) {
                rest(SLICE);
            }
        }
    }
}

/// Reads one source to its end.
fn read(
    source: &Source,
    client: super::super::client::Client,
    told_usec: &mut u64,
    ended: &AtomicBool,
) -> Result<ControlFlow<()>, Trouble> {
    let before = *told_usec;
    let mut logs = logs::follow(client, BEFORE)?;
    while !ended.load(Ordering::Relaxed) {
        match logs.next(SLICE)? {
            Next::Some(Entry { time_usec, slot, text, source: whose, .. })
                if time_usec > before =>
            {
                *told_usec = time_usec;
                // What became of workers stands out from what they wrote.
                let is_marked = whose != Whose::Worker && slot.is_some();
                let text = if is_marked { format!("* {text}") } else { text };
                if tell(source, time_usec, slot, &text).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Next::Some(_) | Next::Nothing => {}
            Next::End => return Ok(ControlFlow::Continue(())),
        }
    }
    Ok(ControlFlow::Break(()))
}

fn tell(source: &Source, time_usec: u64, slot: Option<u16>, text: &str) -> ControlFlow<()> {
    let text = printable(text);
    source.tell(|app| News::Line(app, LogLine { time_usec, slot, text }))
}
