//! An app's entries where no journal keeps them: the primary has the last ones in memory, what happened among what the
//! workers wrote, and tells those to come.

use super::super::client::Client;
use super::super::trouble::{Code, Trouble};
use super::entry::Entry;
use super::journal::Wanted;
use super::query::Next;
use crate::protocol::control::{Call, Event, Line, Logged, Logs};
use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Fits after "cannot".
const WHAT: &str = "read the logs of";
/// Entries on their way from the connection to whoever reads.
const ON_THE_WAY: usize = 256;
/// The entries from before come at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// An app's lines and events, as they come.
#[derive(Debug)]
pub(super) struct Memory {
    app: String,
    wanted: Wanted,
    waiting: VecDeque<Entry>,
    live: Option<Live>,
}

/// What comes on the connection.
#[derive(Debug)]
struct Live {
    told: Receiver<Told>,
    socket: UnixStream,
    /// The app has said that it ends.
    stopping: bool,
}

#[derive(Debug)]
enum Told {
    Line(Line),
    Event(Event),
    End(Trouble),
}

impl Memory {
    /// Asks for the last entries, and for those to come.
    pub(super) fn open(mut client: Client, wanted: Wanted) -> Result<Self, Trouble> {
        let app = client.primary.name.clone();
        let follow = wanted.follow.then_some(true);
        let call = Call::Logs(Logs { lines: Some(u32::MAX), slot: wanted.filter.slot, follow });
        client.send(&call, true, WHAT)?;
        let mut waiting = VecDeque::new();
        while let Some(told) = told(client.receive::<Logged>(Some(PATIENCE), WHAT)?.0) {
            let entry = entry(&app, told)?;
            waiting.extend(Some(entry).filter(|entry| wanted.filter.wants(entry)));
        }
        if let Some(last) = wanted.last {
            waiting.drain(..waiting.len().saturating_sub(last));
        }
        let live = wanted.follow.then(|| Live::begin(client)).transpose()?;
        Ok(Self { app, wanted, waiting, live })
    }

    /// Returns the next entry, if one comes in time.
    pub(super) fn next(&mut self, wait: Duration) -> Result<Next<Entry>, Trouble> {
        if let Some(entry) = self.waiting.pop_front() {
            return Ok(Next::Some(entry));
        }
        let Some(live) = &mut self.live else {
            return Ok(Next::End);
        };
        loop {
            let told = match live.told.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => return Ok(Next::Nothing),
                Err(RecvTimeoutError::Disconnected) => return Ok(Next::End),
                Ok(Told::End(_)) if live.stopping => return Ok(Next::End),
                Ok(told) => told,
            };
            live.stopping |= matches!(&told, Told::Event(event) if event.kind == "stopping");
            let entry = entry(&self.app, told)?;
            if self.wanted.filter.wants(&entry) {
                return Ok(Next::Some(entry));
            }
        }
    }
}

/// What an answer tells; nothing where the entries from before end.
fn told(Logged { line, event }: Logged) -> Option<Told> {
    line.map(Told::Line).or(event.map(Told::Event))
}

fn entry(app: &str, told: Told) -> Result<Entry, Trouble> {
    match told {
        Told::Line(line) => Ok(Entry::from_line(app, line)),
        Told::Event(event) => Ok(Entry::from_event(app, event)),
        Told::End(trouble) => Err(Trouble { code: Code::Failed, ..trouble }),
    }
}

impl Live {
    /// Reads on, in a thread that ends with the connection.
    fn begin(mut client: Client) -> Result<Self, Trouble> {
        let socket = client.socket().map_err(|e| {
            let app = &client.primary.name;
            Trouble::new(Code::Failed, format!("cannot {WHAT} '{app}': {e}"))
        })?;
        let (teller, receiver) = sync_channel(ON_THE_WAY);
        #[expect(clippy::disallowed_methods, reason = "a client is no primary; it does not fork")]
        std::thread::spawn(move || tell(&mut client, &teller));
        Ok(Self { told: receiver, socket, stopping: false })
    }
}

fn tell(client: &mut Client, teller: &SyncSender<Told>) {
    loop {
        let next = match client.receive::<Logged>(None, WHAT) {
            Ok((logged, _)) => told(logged),
            Err(trouble) => {
                let _ = teller.send(Told::End(trouble));
                return;
            }
        };
        // Nobody may read any more.
        if next.is_some_and(|told| teller.send(told).is_err()) {
            return;
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}
