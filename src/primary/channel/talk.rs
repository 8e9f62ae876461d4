//! The programs' own messages: to the primary, to those who follow them, and from worker to worker.

use super::super::News;
use super::hub::Hub;
use crate::config::values::ReadyWhen;
use crate::core::{Evidence, Slot, WorkerId};
use crate::protocol::letter::{self, Letter, To};
use crate::protocol::node;
use std::sync::Arc;

/// A longer message is told of and not told to those who follow.
const MAX_FOLLOWED: usize = 64 * 1024;

/// A program has sent a message.
pub(super) fn on_message(hub: &mut Hub, worker: WorkerId, text: &str) {
    let Some(link) = hub.links.get_mut(&worker) else { return };
    link.counters.heard += 1;
    if text == node::READY && link.terms.ready == ReadyWhen::Message {
        hub.is_shown(worker, Evidence::Message);
    }
    let Some(link) = hub.links.get_mut(&worker) else { return };
    match letter::parse(text) {
        None => {}
        Some(Ok(letter)) => deliver(hub, worker, &letter),
        Some(Err(reason)) => {
            link.tell(letter::refuse(&reason));
        }
    }
    if hub.is_followed {
        let short = (text.len() <= MAX_FOLLOWED).then(|| text.to_owned());
        hub.outbox.push(News::Message { worker, text: short, length: text.len() });
    }
}

/// Carries a message to other workers; those that do not read miss it.
fn deliver(hub: &mut Hub, from: WorkerId, letter: &Letter<'_>) {
    let Some(sender) = hub.links.get(&from).map(|link| link.slot()) else { return };
    let text = letter::deliver(sender.0, from.0, letter.data);
    let receivers = match letter.to {
        To::All => serving(hub, None),
        To::Others => serving(hub, None).into_iter().filter(|worker| *worker != from).collect(),
        To::Slot(slot) => serving(hub, Some(Slot(slot))),
    };
    if let (To::Slot(slot), []) = (letter.to, &receivers[..])
        && let Some(link) = hub.links.get_mut(&from)
    {
        link.tell(letter::refuse(&format!("nobody serves slot {slot} just now")));
    }
    for worker in receivers {
        tell(hub, worker, &text);
    }
}

/// The workers that serve a slot, or any: of each slot the newest.
pub(super) fn serving(hub: &Hub, slot: Option<Slot>) -> Vec<WorkerId> {
    let mut newest = std::collections::BTreeMap::new();
    let open = hub.links.values().filter(|link| link.admitted && link.is_open());
    for link in open.filter(|link| slot.is_none_or(|slot| slot == link.slot())) {
        newest.insert(link.slot(), link.who.worker);
    }
    newest.into_values().collect()
}

/// Sends a worker's program a message; returns whether there was room. A worker that does not read is told of once.
pub(super) fn tell(hub: &mut Hub, worker: WorkerId, line: &Arc<str>) -> bool {
    let Some(link) = hub.links.get_mut(&worker) else { return false };
    let fits = link.tell(line.clone());
    if !fits && link.counters.dropped == 1 {
        let what = "does not read its messages; what it has no room for is dropped";
        hub.complain(worker, what, None);
    }
    fits
}
