//! An app's lines where no journal keeps them: the primary has the last ones in memory and tells those to come. What
//! happens to the app is told on a second connection, and woven in.

use super::super::apps;
use super::super::client::Client;
use super::super::trouble::{Code, Trouble};
use super::entry::Entry;
use super::journal::Wanted;
use super::query::Next;
use crate::protocol::control::{Call, Happened, Line, Logged, Logs};
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Fits after "cannot".
const WHAT: &str = "read the logs of";
/// Entries on their way from a connection to whoever reads.
const ON_THE_WAY: usize = 256;

/// An app's lines and events, as they come.
#[derive(Debug)]
pub(super) struct Memory {
    app: String,
    wanted: Wanted,
    waiting: VecDeque<Entry>,
    live: Option<Live>,
}

/// What comes on the two connections.
#[derive(Debug)]
struct Live {
    told: Receiver<Told>,
    /// For the next connection.
    teller: SyncSender<Told>,
    sockets: Vec<UnixStream>,
    /// How many have not ended.
    open: usize,
    /// Lines that were told already come again: those of this moment and before.
    seen: Seen,
    /// The app has said that it ends.
    stopping: bool,
}

#[derive(Debug)]
enum Told {
    Line(Line),
    Event(crate::protocol::control::Event),
    End(Option<Trouble>),
}

/// Which lines were told: all before a moment, and so many of that moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    usec: u64,
    count: usize,
}

impl Memory {
    /// Asks for the last lines, and for those to come.
    pub(super) fn open(
        mut client: Client,
        control: Option<&Path>,
        wanted: Wanted,
    ) -> Result<Self, Trouble> {
        let app = client.primary.name.clone();
        // The events first, so that none is missed.
        let mut live = if wanted.follow { Some(Live::new()) } else { None };
        if let Some(live) = &mut live {
            live.add::<Happened>(apps::find(&app, control)?, Call::Subscribe)?;
        }
        let all = Logs { lines: Some(u32::MAX), slot: wanted.filter.slot, follow: None };
        let mut lines = vec![];
        client.follow(&Call::Logs(all), WHAT, |Logged { line }| {
            lines.extend(line);
            ControlFlow::Continue(())
        })?;
        if let Some(live) = &mut live {
            live.seen = Seen::new(&lines);
            let call = Call::Logs(Logs { follow: Some(true), ..all });
            live.add::<Logged>(client, call)?;
        }
        let entries = lines.into_iter().map(|line| Entry::from_line(&app, line));
        let mut waiting: VecDeque<_> = entries.filter(|entry| wanted.filter.wants(entry)).collect();
        if let Some(last) = wanted.last {
            waiting.drain(..waiting.len().saturating_sub(last));
        }
        Ok(Self { app, wanted, waiting, live })
    }

    /// Returns the next entry, if one comes in time.
    pub(super) fn next(&mut self, wait: Duration) -> Result<Next<Entry>, Trouble> {
        if let Some(entry) = self.waiting.pop_front() {
            return Ok(Next::Some(entry));
        }
        let Some(live) = &mut self.live else { return Ok(Next::End) };
        loop {
            let entry = match live.told.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => return Ok(Next::Nothing),
                Err(RecvTimeoutError::Disconnected) => return Ok(Next::End),
                Ok(Told::End(trouble)) => {
                    live.open -= 1;
                    match trouble {
                        _ if live.open > 0 => continue,
                        Some(trouble) if !live.stopping => {
                            return Err(Trouble { code: Code::Failed, ..trouble });
                        }
                        Some(_) | None => return Ok(Next::End),
                    }
                }
                Ok(Told::Line(line)) if live.seen.again(&line) => continue,
                Ok(Told::Line(line)) => Entry::from_line(&self.app, line),
                Ok(Told::Event(event)) => {
                    live.stopping |= event.kind == "stopping";
                    Entry::from_event(&self.app, event)
                }
            };
            if self.wanted.filter.wants(&entry) {
                return Ok(Next::Some(entry));
            }
        }
    }
}

impl Live {
    fn new() -> Self {
        let (teller, told) = sync_channel(ON_THE_WAY);
        let seen = Seen::default();
        Self { told, teller, sockets: vec![], open: 0, seen, stopping: false }
    }

    /// Follows a call on a connection, in a thread of its own that ends with the connection.
    fn add<T>(&mut self, mut client: Client, call: Call) -> Result<(), Trouble>
    where
        T: DeserializeOwned + Debug + 'static,
        Option<Told>: From<T>,
    {
        let socket = client.socket().map_err(|e| {
            let app = &client.primary.name;
            Trouble::new(Code::Failed, format!("cannot {WHAT} '{app}': {e}"))
        })?;
        self.sockets.push(socket);
        self.open += 1;
        let teller = self.teller.clone();
        #[expect(clippy::disallowed_methods, reason = "a client is no primary; it does not fork")]
        std::thread::spawn(move || {
            let followed = client.follow::<T>(&call, WHAT, |answer| {
                match Option::<Told>::from(answer).map(|told| teller.send(told)) {
                    // Nobody reads any more.
                    Some(Err(_)) => ControlFlow::Break(()),
                    Some(Ok(())) | None => ControlFlow::Continue(()),
                }
            });
            let _ = teller.send(Told::End(followed.err()));
        });
        Ok(())
    }
}

impl From<Logged> for Option<Told> {
    fn from(Logged { line }: Logged) -> Self {
        line.map(Told::Line)
    }
}

impl From<Happened> for Option<Told> {
    fn from(Happened { event }: Happened) -> Self {
        event.map(Told::Event)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        for socket in &self.sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Seen {
    fn new(lines: &[Line]) -> Self {
        let usec = lines.last().map_or(0, |line| line.time_usec);
        let count = lines.iter().rev().take_while(|line| line.time_usec == usec).count();
        Self { usec, count }
    }

    /// Whether this line was told already.
    fn again(&mut self, line: &Line) -> bool {
        if line.time_usec == self.usec && self.count > 0 {
            self.count -= 1;
            return true;
        }
        // From the first new one on all are new, whatever the clock says.
        let again = line.time_usec < self.usec;
        if !again {
            *self = Self::default();
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_were_told_are_not_told_again() {
        let line =
            |usec| Line { time_usec: usec, slot: 0, worker: 1, generation: 1, text: String::new() };
        let mut seen = Seen::new(&[line(1), line(2), line(2)]);
        let again = [1, 2, 2, 2, 3].map(|usec| seen.again(&line(usec)));
        assert_eq!(again, [true, true, true, false, false]);
        assert!(!Seen::new(&[]).again(&line(0)));
    }
}
