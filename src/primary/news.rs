//! What reaches the loop from the tasks that listen, and what each piece of it does.

use super::log::Level;
use super::{Primary, Turn, clock};
use crate::core::{Event, How, WorkerId};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// What reaches the loop from the tasks that listen.
#[derive(Debug)]
pub(super) enum News {
    /// The core is to know.
    Event(Event),
    /// A worker's `STATUS=`.
    Says { worker: WorkerId, text: String },
    /// So many datagrams of a worker made no sense.
    Garbage { worker: WorkerId, garbage: u64 },
    /// Something is wrong that the operator should know of.
    Trouble { text: String, hint: Option<String> },
    /// A message of a worker's program, as JSON, for those who follow them; a long one has only its length.
    Message { worker: WorkerId, text: Option<String>, length: usize },
    /// A worker's process has ended that is no child of ours.
    Ended { worker: WorkerId, how: How },
    /// Somebody is to know when all that was said before is written down.
    Keep(oneshot::Sender<()>),
    /// A socket was opened because a program asked for it: its place in the list.
    Opened { at: usize, fd: Arc<OwnedFd> },
}

/// So many turns of the loop without news, and nothing more is to be heard.
pub(super) const QUIET_TURNS: u32 = 4;

/// So many pieces of news are taken together.
const BATCH: usize = 256;

/// News that are handled together: what has happened at the same time is decided, written down and told once.
#[derive(Default)]
struct Batch {
    events: Vec<Event>,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Primary {
    /// Handles what has come, and what waits behind it.
    pub(super) fn on_all(&mut self, first: News, more: &mut mpsc::Receiver<News>) {
        let mut batch = Batch::default();
        self.note(first, &mut batch);
        for _ in 1..BATCH {
            let Ok(news) = more.try_recv() else { break };
            self.note(news, &mut batch);
        }
        self.finish_batch(batch);
    }

    /// A deadline has passed: what was said in time is heard first, all of it, before anything is decided. The primary
    /// itself may have stood still, and nobody is to be taken for hung because we were.
    pub(super) async fn catch_up(&mut self, turn: Turn, more: &mut mpsc::Receiver<News>) -> Turn {
        let mut batch = Batch::default();
        let turn = if let Turn::News(news) = turn {
            self.note(news, &mut batch);
            Turn::Look
        } else {
            turn
        };
        let mut quiet = 0;
        // A task that listens has its turn when the kernel was asked, and we have ours after it. A worker that never
        // stops talking is not waited for.
        while quiet < QUIET_TURNS && batch.events.len() < BATCH * 16 {
            tokio::task::yield_now().await;
            quiet += 1;
            while let Ok(news) = more.try_recv() {
                quiet = 0;
                self.note(news, &mut batch);
            }
        }
        self.finish_batch(batch);
        // The deadline itself, if nothing that was said has moved it.
        self.handle(Event::Tick);
        turn
    }

    fn note(&mut self, news: News, batch: &mut Batch) {
        match news {
            News::Event(event) => batch.events.push(event),
            News::Keep(kept) => batch.waiting.push(kept),
            News::Ended { .. } => {
                // What it said before counts.
                self.handle_batch(batch);
                self.on_news(news);
            }
            News::Says { .. }
            | News::Garbage { .. }
            | News::Trouble { .. }
            | News::Message { .. }
            | News::Opened { .. } => self.on_news(news),
        }
    }

    fn handle_batch(&mut self, batch: &mut Batch) {
        if !batch.events.is_empty() {
            self.core.handle_all(batch.events.drain(..), clock::now());
            self.settle();
        }
    }

    fn finish_batch(&mut self, mut batch: Batch) {
        self.handle_batch(&mut batch);
        if !batch.waiting.is_empty() {
            self.keep();
        }
        for kept in batch.waiting {
            let _ = kept.send(());
        }
    }

    pub(super) fn on_news(&mut self, news: News) {
        match news {
            News::Event(event) => self.handle(event),
            News::Says { worker, text } => {
                if let Some(process) = self.workers.get_mut(&worker) {
                    process.known.says = Some(text.clone());
                    self.unkept += 1;
                }
                self.log.say(Level::Debug, &format!("worker {worker} says: {text}"));
            }
            News::Garbage { worker, garbage } => {
                let text = format!(
                    "worker {worker} sent {garbage} datagrams that are no notifications; ignoring them"
                );
                self.log.say(Level::Warning, &text);
            }
            News::Trouble { text, hint } => {
                self.log.say(Level::Warning, &text);
                if let Some(hint) = hint {
                    self.log.say(Level::Notice, &format!("hint: {hint}"));
                }
                self.events.tell("warning", &text);
            }
            News::Message { worker, text, length } => {
                self.on_message(worker, text.as_deref(), length);
            }
            News::Ended { worker, how } => self.ended(worker, how),
            News::Keep(kept) => {
                self.keep();
                let _ = kept.send(());
            }
            News::Opened { at, fd } => self.store_opened(at, &fd),
        }
    }

    /// A worker's program has sent a message, and somebody follows them.
    fn on_message(&mut self, worker: WorkerId, text: Option<&str>, length: usize) {
        let Some(process) = self.workers.get(&worker) else { return };
        if !self.events.message(worker, process.slot, process.generation, text, length) {
            self.channels.follow(false);
        }
    }
}
