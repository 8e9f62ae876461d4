//! The channels to Node's workers: they ask for listeners as `listen()` is called, take connections in turn, and exchange
//! messages. This is the data plane: who is admitted is the core's business; a connection on its way to a worker is no
//! event and no action.
//!
//! | file | subject |
//! |---|---|
//! | `rota` | who gets the next connection (pure) |
//! | `place` | which listener `listen()` means (pure) |
//! | `link` | one worker's end of the channel |
//! | `hub` | what all have in common, and what each message does |
//! | `servers` | `listen()`: a socket is asked for and given |
//! | `hands` | connections that the last primary had in its hands |
//! | `memory` | what the next primary is to know |
//! | `quiet` | when a withdrawn worker may be told to disconnect |
//! | `talk` | the programs' own messages |
//! | `accept` | the task that accepts for those who take turns |

mod accept;
mod hands;
mod hub;
mod link;
mod memory;
mod place;
mod quiet;
mod rota;
mod servers;
mod talk;

pub(super) use link::Counters;
pub(super) use memory::Memory;
pub(super) use place::Local;

use super::News;
use super::carry::{Notebook, crash};
use super::clock;
use super::drain::{Leaving, drained};
use super::listeners::Listeners;
use super::worker::Identity;
use crate::config::Settings;
use crate::config::values::{Balance, ReadyWhen};
use crate::core::{Event, Evidence, Slot, WorkerId};
use crate::protocol::node;
use crate::sys::socket;
use hub::{Flow, Hub};
use link::{Link, Stage};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

/// A worker that has closed its channel ends by itself, most of the time at once; it is not hurried before this.
const LINGER: Duration = Duration::from_millis(250);

/// What a worker's settings say about its channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) balance: Balance,
    pub(super) ready: ReadyWhen,
}

impl Terms {
    pub(super) fn of(settings: &Settings) -> Self {
        Self { balance: settings.balance, ready: settings.ready_when }
    }
}

/// A channel that was opened for a worker.
#[derive(Debug)]
pub(super) struct Opened {
    /// A copy of our end, for the FD store.
    pub(super) ours: OwnedFd,
    pub(super) theirs: OwnedFd,
    /// Moves the channel; to be aborted when the worker is gone.
    pub(super) task: AbortHandle,
}

/// The channels of all workers. Everything happens on one thread, so nobody ever waits for the lock.
#[derive(Clone, Debug)]
struct Shared {
    hub: Arc<Mutex<Hub>>,
    news: mpsc::Sender<News>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the tasks of sockets that somebody takes turns at now.
    fn begin_to_accept(&self, hub: &mut Hub) {
        for at in std::mem::take(&mut hub.to_accept) {
            let task = tokio::spawn(accept::accept(self.clone(), at));
            hub.sockets[at].task = Some(task.abort_handle());
        }
    }

    /// Tells a worker to close its servers, and the channel when it has done all that it was asked; before that its
    /// settings' message, where there is one.
    fn disconnect(&self, worker: WorkerId, message: Option<String>) {
        let mut hub = self.lock();
        if let Some(link) = hub.links.get_mut(&worker) {
            if let Some(message) = message {
                link.tell(format!("{}\n", serde_json::Value::from(message)).into());
            }
            let number = link.number();
            link.say(node::disconnect(number).into(), None);
            link.is_told = true;
            crash::point("told");
            hub.changed = true;
            hub.keep();
            crash::point("told-and-kept");
        }
    }

    /// Tells the loop what was heard; it is waited for.
    async fn tell_loop(&self) {
        let news = {
            let mut hub = self.lock();
            self.begin_to_accept(&mut hub);
            std::mem::take(&mut hub.outbox)
        };
        for news in news {
            if self.news.send(news).await.is_err() {
                return;
            }
        }
    }

    /// Waits until the loop has written down what it was told.
    async fn is_kept(&self) {
        let (kept, is_kept) = oneshot::channel();
        if self.news.send(News::Keep(kept)).await.is_ok() {
            let _ = is_kept.await;
        }
    }

    /// Logs what is wrong, if there is room for it.
    fn complain(&self, text: String) {
        let _ = self.news.try_send(News::Trouble { text, hint: None });
    }
}

/// The channels as the loop sees them.
#[derive(Debug)]
pub(super) struct Channels {
    shared: Shared,
}

/// How many workers got a message, and how many had no room for it.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) to: Vec<WorkerId>,
    pub(super) full: Vec<WorkerId>,
    /// What the loop is to hear.
    pub(super) news: Vec<News>,
}

impl Channels {
    /// Returns the channels of an app with these listeners; there are no workers yet.
    ///
    /// # Errors
    /// As fcntl(2) and getsockname(2).
    pub(super) fn new(listeners: &Listeners, news: mpsc::Sender<News>) -> io::Result<Self> {
        let hub = Arc::new(Mutex::new(Hub::new(listeners)?));
        Ok(Self { shared: Shared { hub, news } })
    }

    /// Goes on where the last primary stopped: what it had written down, the sockets that it had opened on demand, and how
    /// many primaries there were.
    pub(super) fn recall(&self, memory: Memory, opened: BTreeMap<usize, OwnedFd>, primaries: u32) {
        self.shared.lock().recall(memory, opened, primaries);
    }

    /// From now on everything is written down here.
    pub(super) fn write_to(&self, notebook: Notebook) {
        let mut hub = self.shared.lock();
        hub.notebook = Some(notebook);
        hub.changed = true;
        hub.keep();
    }

    /// Opens the channel of a worker that is about to be started. `sockets` are those of its lane, by listeners.
    ///
    /// # Errors
    /// As socketpair(2).
    pub(super) fn open(
        &self,
        who: Identity,
        terms: Terms,
        sockets: Vec<Option<Arc<OwnedFd>>>,
    ) -> io::Result<Opened> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let inode = socket::inode(&theirs)?;
        let copy = ours.try_clone()?.into();
        let watched = socket::watch(ours.into(), Interest::READABLE)?;
        let mut hub = self.shared.lock();
        let mut link = Link::new(who, terms, watched, inode, hub.numbers);
        link.sockets = sockets;
        hub.links.insert(who.worker, link);
        hub.changed = true;
        hub.keep();
        let task = tokio::spawn(carry(self.shared.clone(), who.worker));
        Ok(Opened { ours: copy, theirs: theirs.into(), task: task.abort_handle() })
    }

    /// Goes on with the channel of a worker that another primary has started. Returns the task that moves it.
    ///
    /// # Errors
    /// As fcntl(2).
    pub(super) fn resume(
        &self,
        who: Identity,
        terms: Terms,
        sockets: Vec<Option<Arc<OwnedFd>>>,
        ours: OwnedFd,
    ) -> io::Result<AbortHandle> {
        socket::set_nonblocking(&ours, true)?;
        let watched = socket::watch(ours, Interest::READABLE)?;
        let mut hub = self.shared.lock();
        let mut link = Link::new(who, terms, watched, 0, hub.numbers);
        link.sockets = sockets;
        hub.resume(link);
        hub.keep();
        Ok(tokio::spawn(carry(self.shared.clone(), who.worker)).abort_handle())
    }

    /// Deals again those of these connections that no worker has had from the last primary; `workers` are the pids of those
    /// on channels.
    pub(super) fn sort_out(&self, connections: Vec<OwnedFd>, workers: Vec<i32>) {
        if !connections.is_empty() {
            drop(tokio::spawn(hands::sort_out(self.shared.clone(), connections, workers)));
        }
    }

    /// Returns what has shown that a worker is ready, if anything has.
    pub(super) fn evidence(&self, worker: WorkerId) -> Option<Evidence> {
        self.shared.lock().links.get(&worker)?.evidence
    }

    /// A worker is given new connections. Returns whether it may have them: not if it has left already.
    pub(super) fn admit(&self, worker: WorkerId) -> bool {
        let mut hub = self.shared.lock();
        let Some(link) = hub.links.get_mut(&worker) else { return true };
        link.admitted = true;
        let has_left = matches!(link.stage, Stage::Leaving | Stage::Closed);
        for at in 0..hub.sockets.len() {
            hub.join(worker, at);
        }
        self.shared.begin_to_accept(&mut hub);
        !has_left
    }

    /// A worker is given no new connections, and is told to finish as soon as those that it has are quiet. Returns whether
    /// its end of the channel will be heard to close; else there is nothing to wait for. So much time is `left` to it. Where it
    /// alone serves its sockets, what waits there is `first` to be waited for.
    pub(super) fn withdraw(
        &self,
        worker: WorkerId,
        pid: Pid,
        settings: &Settings,
        left: Duration,
        first: Option<Leaving>,
    ) -> bool {
        let mut hub = self.shared.lock();
        hub.leave_all(worker);
        let Some(link) = hub.links.get_mut(&worker) else {
            return false;
        };
        link.admitted = false;
        link.is_withdrawn = true;
        if !link.is_open() {
            let (pid, inode) = (pid.as_raw(), link.inode);
            if link.is_told {
                // By the last primary: what remains is to see it go.
                drop(tokio::spawn(see_off(self.shared.clone(), worker, pid, inode)));
            }
            return link.stage == Stage::Leaving;
        }
        link.stage = Stage::Leaving;
        let (pid, inode) = (pid.as_raw(), link.inode);
        let sockets = if first.is_some() { hub.served(worker) } else { hub.only_dealt(worker) };
        hub.changed = true;
        hub.keep();
        drop(hub);
        let (shared, message) = (self.shared.clone(), settings.stop_message.clone());
        // Half of its time is left for what is busy then.
        let most = left.saturating_sub(settings.policy.drain / 2);
        drop(tokio::spawn(async move {
            let began = clock::now();
            if let Some(first) = first {
                let _ = tokio::time::timeout(most, drained(first, drop)).await;
            }
            if !sockets.is_empty() {
                let passed = clock::now().since(began);
                quiet::wait(pid, sockets, most.saturating_sub(passed)).await;
            }
            let holds = quiet::holds_channel(pid, inode);
            shared.disconnect(worker, message);
            if holds {
                see_off(shared, worker, pid, inode).await;
            }
        }));
        true
    }

    /// A worker's process has ended: what it said last is heard, and what it had not taken goes to others. Returns what
    /// the loop has not heard yet.
    pub(super) fn forget(&self, worker: WorkerId) -> Vec<News> {
        let mut hub = self.shared.lock();
        hub.read_last(worker);
        hub.links.remove(&worker);
        hub.changed = true;
        hub.keep();
        std::mem::take(&mut hub.outbox)
    }

    /// Sends a message, given as JSON, to the worker that serves a slot, or to all that serve.
    pub(super) fn send(&self, slot: Option<Slot>, message: &str) -> Sent {
        let mut hub = self.shared.lock();
        let mut sent = Sent::default();
        let line: Arc<str> = format!("{message}\n").into();
        for worker in talk::serving(&hub, slot) {
            let fits = talk::tell(&mut hub, worker, &line);
            if fits { &mut sent.to } else { &mut sent.full }.push(worker);
        }
        sent.news = std::mem::take(&mut hub.outbox);
        sent
    }

    /// Writes down what was read of lines that are not complete yet, too: another primary is about to read on.
    pub(super) fn keep_rest(&self) {
        let mut hub = self.shared.lock();
        hub.keeps_rest = true;
        hub.changed = true;
        hub.keep();
        hub.keeps_rest = false;
    }

    /// Waits until the workers have read what they were told, but not for ever.
    pub(super) async fn flush(&self, patience: Duration) {
        let has_unsent = || self.shared.lock().links.values().any(Link::has_unsent);
        let flushed = async {
            while has_unsent() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(patience, flushed).await;
    }

    /// Whether the programs' messages are news.
    pub(super) fn follow(&self, is_followed: bool) {
        self.shared.lock().is_followed = is_followed;
    }

    /// Returns what has passed over a worker's channel, if it has one.
    pub(super) fn counters(&self, worker: WorkerId) -> Option<Counters> {
        self.shared.lock().links.get(&worker).map(|link| link.counters)
    }

    /// Returns the addresses of the sockets that were opened because a program asked for them.
    pub(super) fn opened(&self) -> Vec<String> {
        self.shared.lock().opened().collect()
    }

    /// Every slot is served by a new generation: closes what was opened on demand and nobody serves any more. Returns the
    /// addresses.
    pub(super) fn close_unserved(&self) -> Vec<(usize, String)> {
        let mut hub = self.shared.lock();
        let closed = hub.close_unserved();
        hub.keep();
        closed
    }

    /// Removes the files of the unix sockets that were opened because a program asked for them.
    pub(super) fn remove_own_files(&self) {
        self.shared.lock().remove_own_files();
    }
}

/// Waits until a worker that was told to disconnect has let go of its channel. Node does not close it at exec: what the
/// worker has started may hold it, and no end is heard.
async fn see_off(shared: Shared, worker: WorkerId, pid: i32, inode: u64) {
    quiet::until_let_go(pid, inode).await;
    tokio::time::sleep(LINGER).await;
    let _ = shared.news.send(News::Event(Event::Drained(worker))).await;
}

/// Moves one channel until it is closed.
async fn carry(shared: Shared, worker: WorkerId) {
    let Some((socket, wake)) =
        shared.lock().links.get(&worker).map(|link| (link.socket.clone(), link.wake.clone()))
    else {
        return;
    };
    let mut flow = Flow::More;
    while flow != Flow::Ended {
        let (unsent, stuck, heard) = {
            let mut hub = shared.lock();
            let Some(link) = hub.links.get_mut(&worker) else { return };
            link.flush();
            (link.has_unsent(), link.is_stuck, link.is_heard())
        };
        if flow == Flow::Wait || !heard {
            tokio::select! {
                _ = socket.readable(), if heard => {}
                () = room(&socket, stuck), if unsent => {}
                () = wake.notified() => {}
            }
        }
        if heard {
            flow = shared.lock().read(worker);
            shared.tell_loop().await;
            if let Flow::Heard(length) = flow {
                shared.is_kept().await;
                shared.lock().take_heard(worker, length);
            }
            // One that never stops talking is no reason for the others to wait.
            tokio::task::yield_now().await;
        }
    }
    let is_withdrawn = shared.lock().links.get(&worker).is_some_and(|link| link.is_withdrawn);
    tokio::time::sleep(LINGER).await;
    let event = if is_withdrawn { Event::Drained(worker) } else { Event::Leaving(worker) };
    let _ = shared.news.send(News::Event(event)).await;
}

/// Waits until a channel takes more.
async fn room(channel: &AsyncFd<OwnedFd>, is_stuck: bool) {
    if is_stuck {
        return tokio::time::sleep(LINGER).await;
    }
    let watched =
        channel.get_ref().try_clone().and_then(|fd| socket::watch(fd, Interest::WRITABLE));
    match watched {
        Ok(watched) => drop(watched.writable().await),
        // The table of descriptors is full.
        Err(_) => tokio::time::sleep(LINGER).await,
    }
}
