//! Who gets the next connection of one listener: pure, so that it can be tested without any.
//!
//! A worker is given one connection and the next only when it has taken that one, so a busy one is passed over and
//! nothing waits in front of it. With sticky clients a worker may have several that it has not taken yet, for they are
//! nobody else's. What a worker refuses, or had not taken when it died, is dealt again.

use crate::core::{Slot, Time, WorkerId};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// So many connections that it has not taken may one worker have, where clients are sticky.
const STICKY_DEPTH: usize = 32;
/// A worker that has refused a connection is given no other for this long; twice as long after each more …
const PAUSE: Duration = Duration::from_millis(10);
/// … up to this.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// A connection to be dealt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dealt<C> {
    pub(super) connection: C,
    /// What its client is known by, where clients are sticky.
    pub(super) client: Option<u64>,
}

#[derive(Debug)]
struct Member<C> {
    slot: Slot,
    /// Its settings want sticky clients.
    sticky: bool,
    /// It gets new connections.
    open: bool,
    /// What it was given and has not taken, by the number of the message.
    given: VecDeque<(u64, Dealt<C>)>,
    /// How often in a row it has refused.
    refusals: u32,
    paused_until: Option<Time>,
}

/// The workers that take turns at one listener.
#[derive(Debug)]
pub(super) struct Rota<C> {
    members: BTreeMap<WorkerId, Member<C>>,
    /// Who is open; who has had the last turn is last.
    turns: VecDeque<WorkerId>,
    /// What nobody has yet.
    waiting: VecDeque<Dealt<C>>,
}

impl<C> Default for Rota<C> {
    fn default() -> Self {
        Self { members: BTreeMap::new(), turns: VecDeque::new(), waiting: VecDeque::new() }
    }
}

impl<C> Rota<C> {
    /// From now on a worker takes its turns.
    pub(super) fn join(&mut self, worker: WorkerId, slot: Slot, sticky: bool) {
        let member = self.members.entry(worker).or_insert_with(|| Member {
            slot,
            sticky,
            open: false,
            given: VecDeque::new(),
            refusals: 0,
            paused_until: None,
        });
        if !std::mem::replace(&mut member.open, true) {
            self.turns.push_front(worker);
        }
    }

    /// A worker gets nothing new; what it was given it may still take.
    pub(super) fn leave(&mut self, worker: WorkerId) {
        self.turns.retain(|other| *other != worker);
        if let Some(member) = self.members.get_mut(&worker) {
            member.open = false;
            if member.given.is_empty() {
                self.members.remove(&worker);
            }
        }
    }

    /// A worker is gone: what it had not taken is dealt again, before anything else.
    pub(super) fn remove(&mut self, worker: WorkerId) {
        self.leave(worker);
        if let Some(member) = self.members.remove(&worker) {
            for (_, dealt) in member.given.into_iter().rev() {
                self.waiting.push_front(dealt);
            }
        }
    }

    /// A worker has answered the message that brought it a connection.
    pub(super) fn answered(&mut self, worker: WorkerId, number: u64, accepted: bool, now: Time) {
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        let Some(at) = member.given.iter().position(|(given, _)| *given == number) else {
            return;
        };
        let dealt = member.given.remove(at);
        if accepted {
            (member.refusals, member.paused_until) = (0, None);
        } else {
            let pause = (PAUSE * (1 << member.refusals.min(10))).min(MAX_PAUSE);
            member.paused_until = Some(now + pause);
            member.refusals = member.refusals.saturating_add(1);
            self.waiting.extend(dealt.map(|(_, dealt)| dealt));
        }
        if !member.open && member.given.is_empty() {
            self.members.remove(&worker);
        }
    }

    /// A connection was accepted.
    pub(super) fn take(&mut self, dealt: Dealt<C>) {
        self.waiting.push_back(dealt);
    }

    /// Whether the clients' addresses are needed: the newest of those who take turns has the newest settings.
    pub(super) fn is_sticky(&self) -> bool {
        let newest = self.turns.iter().max().and_then(|worker| self.members.get(worker));
        newest.is_some_and(|member| member.sticky)
    }

    /// Whether a connection waits to be dealt.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether somebody would take a connection now.
    pub(super) fn has_free(&self, now: Time) -> bool {
        self.turns.iter().any(|worker| self.is_free(*worker, now))
    }

    /// When somebody's pause is over.
    pub(super) fn wake(&self) -> Option<Time> {
        self.members.values().filter(|m| m.open).filter_map(|m| m.paused_until).min()
    }

    /// Returns whose turn it is and what they get; [`Self::give`] it to them.
    pub(super) fn deal(&self, now: Time) -> Option<(WorkerId, &Dealt<C>)> {
        let dealt = self.waiting.front()?;
        let worker = match dealt.client.filter(|_| self.is_sticky()) {
            Some(client) => self.of_client(client, now)?,
            None => *self.turns.iter().find(|worker| self.is_free(**worker, now))?,
        };
        Some((worker, dealt))
    }

    /// Notes that the first connection that waits was given to a worker by message `number`.
    pub(super) fn give(&mut self, worker: WorkerId, number: u64) {
        if let Some(member) = self.members.get_mut(&worker)
            && let Some(dealt) = self.waiting.pop_front()
        {
            member.given.push_back((number, dealt));
            member.paused_until = None;
            self.turns.retain(|other| *other != worker);
            self.turns.push_back(worker);
        }
    }

    fn is_free(&self, worker: WorkerId, now: Time) -> bool {
        let depth = if self.is_sticky() { STICKY_DEPTH } else { 1 };
        self.members.get(&worker).is_some_and(|member| {
            let is_paused = member.paused_until.is_some_and(|until| until > now);
            member.open && !is_paused && member.given.len() < depth
        })
    }

    /// The worker that serves a client's slot: of all slots the one that weighs most for it (rendezvous hashing), so that
    /// one slot more or fewer moves few clients. Of two workers in a slot the newer one.
    fn of_client(&self, client: u64, now: Time) -> Option<WorkerId> {
        let free = self.turns.iter().filter(|worker| self.is_free(**worker, now));
        free.copied().max_by_key(|worker| {
            let slot = self.members.get(worker).map_or(0, |member| member.slot.0);
            (mix(client ^ mix(u64::from(slot) + 1)), *worker)
        })
    }
}

/// Spreads the bits of a number (the finalizer of splitmix64).
pub(super) fn mix(mut n: u64) -> u64 {
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(1);

    /// A rota with these workers, each in the slot of its number.
    fn rota(workers: std::ops::RangeInclusive<u64>) -> Rota<u32> {
        with(workers, false)
    }

    fn sticky(workers: std::ops::RangeInclusive<u64>) -> Rota<u32> {
        with(workers, true)
    }

    fn with(workers: std::ops::RangeInclusive<u64>, sticky: bool) -> Rota<u32> {
        let mut rota = Rota::default();
        for worker in workers.rev() {
            rota.join(WorkerId(worker), Slot(u16::try_from(worker).unwrap()), sticky);
        }
        rota
    }

    fn arrive(rota: &mut Rota<u32>, connection: u32) {
        rota.take(Dealt { connection, client: Some(mix(connection.into())) });
    }

    /// Deals what waits while somebody takes it; the message's number is the connection's.
    fn deal(rota: &mut Rota<u32>, now: Time) -> Vec<(u64, u32)> {
        let mut all = vec![];
        while let Some((worker, dealt)) = rota.deal(now) {
            let connection = dealt.connection;
            rota.give(worker, connection.into());
            all.push((worker.0, connection));
        }
        all
    }

    #[test]
    fn everybody_has_a_turn_and_the_busy_are_passed_over() {
        let mut rota = rota(1..=3);
        for connection in 0..4 {
            arrive(&mut rota, connection);
        }
        assert_eq!(deal(&mut rota, NOW), [(1, 0), (2, 1), (3, 2)]);
        assert!(!rota.has_free(NOW));
        rota.answered(WorkerId(2), 1, true, NOW);
        assert_eq!(deal(&mut rota, NOW), [(2, 3)]);
        rota.answered(WorkerId(1), 0, true, NOW);
        rota.answered(WorkerId(3), 2, true, NOW);
        arrive(&mut rota, 4);
        arrive(&mut rota, 5);
        assert_eq!(deal(&mut rota, NOW), [(1, 4), (3, 5)]);
    }

    #[test]
    fn a_refused_connection_goes_to_another_and_who_refuses_is_paused() {
        let mut rota = rota(1..=2);
        arrive(&mut rota, 7);
        assert_eq!(deal(&mut rota, NOW), [(1, 7)]);
        rota.answered(WorkerId(1), 7, false, NOW);
        assert_eq!(deal(&mut rota, NOW), [(2, 7)]);
        rota.answered(WorkerId(2), 7, false, NOW);
        assert_eq!(deal(&mut rota, NOW), []);
        // Held, and nobody spins: the pauses grow to a second.
        let mut now = NOW;
        let mut tries = 0;
        while now.since(NOW) < Duration::from_secs(60) {
            now = rota.wake().unwrap().max(now + Duration::from_nanos(1));
            for (worker, connection) in deal(&mut rota, now) {
                rota.answered(WorkerId(worker), connection.into(), false, now);
                tries += 1;
            }
        }
        assert!((50..150).contains(&tries), "{tries}");
    }

    #[test]
    fn what_the_dead_had_not_taken_is_dealt_first() {
        let mut rota = rota(1..=2);
        for connection in 0..3 {
            arrive(&mut rota, connection);
        }
        assert_eq!(deal(&mut rota, NOW), [(1, 0), (2, 1)]);
        rota.remove(WorkerId(1));
        rota.answered(WorkerId(2), 1, true, NOW);
        assert_eq!(deal(&mut rota, NOW), [(2, 0)]);
        rota.answered(WorkerId(2), 0, true, NOW);
        assert_eq!(deal(&mut rota, NOW), [(2, 2)]);
    }

    #[test]
    fn who_leaves_gets_nothing_new_and_may_still_refuse() {
        let mut rota = rota(1..=2);
        arrive(&mut rota, 0);
        assert_eq!(deal(&mut rota, NOW), [(1, 0)]);
        rota.leave(WorkerId(1));
        for connection in 1..3 {
            arrive(&mut rota, connection);
            assert_eq!(deal(&mut rota, NOW), [(2, connection)]);
            rota.answered(WorkerId(2), connection.into(), true, NOW);
        }
        rota.answered(WorkerId(1), 0, false, NOW);
        assert_eq!(deal(&mut rota, NOW), [(2, 0)]);
        assert_eq!(rota.wake(), None);
        assert_eq!(rota.members.len(), 1);
    }

    #[test]
    fn a_client_stays_with_its_slot_and_few_move_when_one_is_added() {
        let home = |rota: &mut Rota<u32>, connection: u32| {
            arrive(rota, connection);
            let dealt = deal(rota, NOW);
            rota.answered(WorkerId(dealt[0].0), connection.into(), true, NOW);
            dealt[0].0
        };
        let mut four = sticky(1..=4);
        let before: Vec<u64> = (0..1000).map(|client| home(&mut four, client)).collect();
        assert!((0..1000).all(|client| home(&mut four, client) == before[client as usize]));
        // A newer worker in a slot takes over its clients.
        four.join(WorkerId(12), Slot(2), true);
        let relieved = |worker| if worker == 2 { 12 } else { worker };
        assert!((0..1000).all(|c| home(&mut four, c) == relieved(before[c as usize])));
        four.remove(WorkerId(12));
        four.join(WorkerId(5), Slot(5), true);
        let moved = (0..1000).filter(|client| home(&mut four, *client) != before[*client as usize]);
        let moved = moved.count();
        assert!((120..280).contains(&moved), "a fifth: {moved}");
    }

    #[test]
    fn the_newest_settings_say_whether_clients_are_sticky() {
        let mut rota = sticky(1..=2);
        rota.join(WorkerId(3), Slot(1), false);
        assert!(!rota.is_sticky());
        rota.remove(WorkerId(3));
        assert!(rota.is_sticky());
    }

    #[test]
    fn a_sticky_worker_that_takes_nothing_does_not_hold_up_the_others() {
        let mut rota = sticky(1..=2);
        for _ in 0..STICKY_DEPTH + 5 {
            arrive(&mut rota, 3);
        }
        let dealt = deal(&mut rota, NOW);
        let first = dealt[0].0;
        assert!(dealt[..STICKY_DEPTH].iter().all(|(worker, _)| *worker == first));
        assert!(dealt[STICKY_DEPTH..].iter().all(|(worker, _)| *worker != first));
    }
}
