//! What happens, told to whoever subscribed: the supervisor's reports as events of the control protocol.

use super::super::clock;
use super::super::tail::Recent;
use crate::core::{Generation, Next, Report, Slot, WorkerId};
use crate::protocol::control::Event;
use std::sync::Arc;
use tokio::sync::broadcast;

/// The same for messages, which may be long.
const MESSAGES_BEHIND: usize = 128;

/// A subscriber that is so many events behind misses some, and is told how many.
const BEHIND: usize = 512;

pub(super) type Receiver = broadcast::Receiver<Arc<Event>>;

/// Where events go: to subscribers, and where there is no journal among the workers' lines.
#[derive(Debug)]
pub(in super::super) struct Events {
    live: broadcast::Sender<Arc<Event>>,
    /// What the workers' programs send, for those who want it: a chatty program must not push events aside.
    messages: broadcast::Sender<Arc<Event>>,
    recent: Option<Recent>,
}

impl Events {
    /// Returns where nobody listens yet.
    pub(in super::super) fn new(recent: Option<Recent>) -> Self {
        Self {
            live: broadcast::Sender::new(BEHIND),
            messages: broadcast::Sender::new(MESSAGES_BEHIND),
            recent,
        }
    }

    /// Returns what happens from here on.
    pub(super) fn subscribe(&self) -> Receiver {
        self.live.subscribe()
    }

    /// Returns what the workers' programs send from here on.
    pub(super) fn subscribe_messages(&self) -> Receiver {
        self.messages.subscribe()
    }

    /// Tells a message, given as JSON, to those who follow them; returns whether anybody does.
    pub(in super::super) fn message(
        &self,
        worker: WorkerId,
        slot: Slot,
        generation: Generation,
        json: Option<&str>,
        length: usize,
    ) -> bool {
        let message = json.and_then(|json| serde_json::from_str(json).ok());
        let text = match json {
            Some(json) => format!("worker {worker} (slot {slot}) sends {json}"),
            None => format!("worker {worker} (slot {slot}) sends {length} bytes"),
        };
        let event = Event {
            slot: Some(slot.0),
            worker: Some(worker.0),
            generation: Some(generation.0),
            message,
            ..bare("message", text)
        };
        self.messages.send(Arc::new(event)).is_ok()
    }

    /// Tells a report.
    pub(in super::super) fn report(&self, report: &Report) {
        if self.live.receiver_count() == 0 && self.recent.is_none() {
            return;
        }
        let (kind, slot, worker, generation) = describe(report);
        self.send(Event {
            slot: slot.map(|slot| slot.0),
            worker: worker.map(|worker| worker.0),
            generation: generation.map(|generation| generation.0),
            instead_of: instead_of(report),
            ..bare(kind, report.to_string())
        });
    }

    /// Tells something that is no report.
    pub(in super::super) fn tell(&self, kind: &str, text: &str) {
        self.send(bare(kind, text.to_owned()));
    }

    fn send(&self, event: Event) {
        if let Some(recent) = &self.recent {
            recent.event(&event);
        }
        // Nobody may be listening.
        let _ = self.live.send(Arc::new(event));
    }
}

/// What a subscriber is told that was too slow.
pub(super) fn lost(count: u64) -> Event {
    bare("lost", format!("{count} events were lost: too slow"))
}

fn bare(kind: &str, text: String) -> Event {
    Event {
        time_usec: clock::wall_usec(),
        kind: kind.to_owned(),
        text,
        slot: None,
        worker: None,
        generation: None,
        instead_of: None,
        message: None,
    }
}

fn instead_of(report: &Report) -> Option<u32> {
    if let Report::Queued { instead_of: Some(generation), .. } = report {
        Some(generation.0)
    } else {
        None
    }
}

type Described = (&'static str, Option<Slot>, Option<WorkerId>, Option<Generation>);

fn describe(report: &Report) -> Described {
    match report {
        Report::Started { .. } => ("started", None, None, None),
        Report::Ready { worker, slot, generation, .. } => {
            ("ready", Some(*slot), Some(*worker), Some(*generation))
        }
        Report::Failed { worker, slot, generation, next, .. } => {
            let kind = if matches!(next, Next::GiveUp { .. }) { "given_up" } else { "failed" };
            (kind, Some(*slot), Some(*worker), Some(*generation))
        }
        Report::Gone { worker, slot, generation, .. } => {
            ("gone", Some(*slot), Some(*worker), Some(*generation))
        }
        Report::Killed { worker, slot, generation } => {
            ("killed", Some(*slot), Some(*worker), Some(*generation))
        }
        Report::Reloading { generation } => ("reloading", None, None, Some(*generation)),
        Report::Queued { generation, .. } => ("queued", None, None, Some(*generation)),
        Report::Reloaded { generation, .. } => ("reloaded", None, None, Some(*generation)),
        Report::RolledBack { generation, slot, .. } => {
            ("rolled_back", *slot, None, Some(*generation))
        }
        Report::Canary { worker, slot, generation, .. } => {
            ("canary", Some(*slot), Some(*worker), Some(*generation))
        }
        Report::Promoted { worker, slot, generation, .. } => {
            ("promoted", Some(*slot), Some(*worker), Some(*generation))
        }
        Report::Scaled { .. } => ("scaled", None, None, None),
        Report::Restarting { slot } => ("restarting", *slot, None, None),
        Report::SlotStopped { slot } => ("slot_stopped", Some(*slot), None, None),
        Report::SlotStarted { slot } => ("slot_started", Some(*slot), None, None),
        Report::Paused => ("paused", None, None, None),
        Report::Resumed => ("resumed", None, None, None),
        Report::Reset { slot } => ("reset", *slot, None, None),
        Report::Stopping { .. } => ("stopping", None, None, None),
    }
}
