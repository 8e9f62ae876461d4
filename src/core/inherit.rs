//! What a new primary makes of what the last one left: its state, where that can be read, else only its workers.
//!
//! The state is this struct as serde writes it. A field that is added gets a default, one that goes is ignored: so an
//! older and a newer program read each other's.

use super::policy::Policy;
use super::rollout::Rollout;
use super::time::Time;
use super::worker::{Generation, Slot, State, Worker, WorkerId};
use super::{Action, MAX_SLOTS, Record, Supervisor};
use std::time::Duration;

/// Nobody listened while there was no primary: what was due then has this much longer.
const GRACE: Duration = Duration::from_secs(2);

impl Supervisor {
    /// Goes on where another primary stopped. A stop that was under way is over: somebody has started us again.
    ///
    /// # Errors
    /// What makes no sense about the state, in words: it was damaged, or made by somebody else.
    pub fn revive(mut self, now: Time) -> Result<Self, String> {
        self.nonsense().map_or(Ok(()), Err)?;
        for worker in self.roster.values_mut() {
            match &mut worker.state {
                State::Starting { until } => *until = (*until).max(now + GRACE),
                State::Ready { heartbeat: Some(due), .. } => *due = (*due).max(now + GRACE),
                State::Ready { .. } | State::Draining { .. } | State::Stopping { .. } => {}
            }
        }
        self.actions.retain(|action| !matches!(action, Action::Exit(_)));
        if self.goal.stopping.take().is_some() {
            (self.started, self.exited) = (false, false);
            self.records.values_mut().for_each(Record::forgive);
        }
        self.reconcile(now);
        self.broken_invariant(now).map_or(Ok(self), Err)
    }

    /// Knows nothing but who is there: they serve, all of them, until they are relieved. Of several in one slot the
    /// newest stays. `found` has at least one.
    #[must_use]
    pub fn adopt(
        policy: Policy,
        seed: u64,
        found: &[(WorkerId, Slot, Generation)],
        now: Time,
    ) -> Self {
        let newest = found.iter().map(|(.., generation)| *generation).max();
        let mut this = Self::unborn(policy.clone(), newest.unwrap_or(Generation(1)), seed);
        this.started = true;
        for (id, slot, generation) in found {
            this.policies.entry(*generation).or_insert_with(|| policy.clone());
            this.next_worker = this.next_worker.max(id.0.saturating_add(1));
            let heartbeat = policy.heartbeat.map(|interval| now + interval.max(GRACE));
            let state = State::Ready { since: now, settles: None, heartbeat };
            let worker =
                Worker { slot: *slot, generation: *generation, started: now, state, ready: None };
            this.roster.insert(*id, worker);
            let record = this.records.entry(*slot).or_insert_with(|| Record::new(*generation));
            let stays = record.incumbent.is_none_or(|other| other < *id);
            let goes = if stays { record.incumbent.replace(*id) } else { Some(*id) };
            record.generation = record.generation.max(*generation);
            if let Some(goes) = goes {
                this.dismiss(goes, super::Why::Leave, now);
            }
        }
        this.reconcile(now);
        this
    }

    /// Whether enough slots were ready once, in this primary's life or in that of one before.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.started
    }

    /// Returns everybody who is not gone, with their slot and generation.
    pub fn roster(&self) -> impl Iterator<Item = (WorkerId, Slot, Generation)> {
        self.roster.iter().map(|(id, worker)| (*id, worker.slot, worker.generation))
    }

    /// Returns the generations that somebody may be started from.
    pub fn all_settings(&self) -> impl Iterator<Item = Generation> {
        self.policies.keys().copied()
    }

    /// Returns the generation that is to serve.
    #[must_use]
    pub fn goal(&self) -> Generation {
        self.goal.generation
    }

    /// Returns when a worker was started.
    #[must_use]
    pub fn started_at(&self, worker: WorkerId) -> Option<Time> {
        self.roster.get(&worker).map(|worker| worker.started)
    }

    /// Whether it is still to be done that this worker's process is made.
    fn is_unborn(&self, worker: WorkerId) -> bool {
        let is_spawn =
            |action: &Action| matches!(action, Action::Spawn { worker: id, .. } if *id == worker);
        self.actions.iter().any(is_spawn)
    }

    /// A worker's process was made, though that had not been written down any more.
    pub fn is_born(&mut self, worker: WorkerId) {
        self.actions
            .retain(|action| !matches!(action, Action::Spawn { worker: id, .. } if *id == worker));
    }

    /// A starting worker has no process: it is to be made again.
    pub fn respawn(&mut self, worker: WorkerId) {
        if let Some(Worker { slot, generation, state: State::Starting { .. }, .. }) =
            self.roster.get(&worker)
            && !self.is_unborn(worker)
        {
            let (slot, generation) = (*slot, *generation);
            self.actions.push_front(Action::Spawn { worker, slot, generation });
        }
    }

    /// What would be read past, or counted over, if it were believed.
    fn nonsense(&self) -> Option<String> {
        let known = |generation: &Generation| self.policies.contains_key(generation);
        let named = self.rollout.iter().flat_map(|r| [r.from, r.to]);
        let named = named.chain(self.queued.iter().map(|queued| queued.generation));
        if let Some(lost) = named.into_iter().find(|generation| !known(generation)) {
            return Some(format!("generation {lost} has no settings"));
        }
        let slots = self.policies.values().map(|policy| policy.slots).chain([self.goal.slots]);
        let mut slots = slots.chain(self.rollout.iter().flat_map(Rollout::all_slots));
        if let Some(slots) = slots.find(|slots| !(1..=MAX_SLOTS).contains(slots)) {
            return Some(format!("{slots} slots"));
        }
        if self.records.len() > usize::from(MAX_SLOTS) {
            return Some(format!("{} slots", self.records.len()));
        }
        let newest = self.roster.keys().next_back().map_or(0, |id| id.0);
        if newest >= self.next_worker || self.next_worker > u64::MAX / 2 {
            return Some(format!("the next worker would be {}", self.next_worker));
        }
        let latest = self.policies.keys().next_back().copied();
        if latest.is_some_and(|latest| latest > self.latest) || self.latest.0 > u32::MAX / 2 {
            return Some(format!("the latest generation is {}", self.latest));
        }
        let undoable = |action: &&Action| match action {
            Action::Spawn { worker, slot, generation } => {
                let known = self.roster.get(worker);
                known.is_none_or(|known| (known.slot, known.generation) != (*slot, *generation))
            }
            Action::Forget(generation) => known(generation),
            Action::Admit(_)
            | Action::Withdraw(_)
            | Action::Terminate { .. }
            | Action::Kill(_)
            | Action::Report(_)
            | Action::Exit(_) => false,
        };
        if let Some(action) = self.actions.iter().find(undoable) {
            return Some(format!("'{}' cannot be done", action.name()));
        }
        self.broken_reference()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Event, Evidence};
    use super::*;

    const NOW: Time = Time::from_secs(100);

    fn policy() -> Policy {
        Policy { slots: 2, settle: Duration::ZERO, ..Policy::default() }
    }

    fn begun() -> Supervisor {
        let mut supervisor = Supervisor::new(policy(), 0, NOW);
        while supervisor.poll_action().is_some() {}
        for worker in [1, 2].map(WorkerId) {
            supervisor.handle(Event::Ready { worker, evidence: Evidence::Notify }, NOW);
        }
        supervisor
    }

    fn json(supervisor: &Supervisor) -> serde_json::Value {
        serde_json::to_value(supervisor).unwrap()
    }

    #[test]
    fn whoever_is_found_serves_until_it_is_relieved() {
        let found = [(5, 0, 3), (7, 1, 3), (8, 1, 4), (9, 6, 3)]
            .map(|(id, slot, generation)| (WorkerId(id), Slot(slot), Generation(generation)));
        let mut supervisor = Supervisor::adopt(policy(), 0, &found, NOW);
        assert_eq!(supervisor.broken_invariant(NOW), None);
        assert_eq!(supervisor.next_generation(), Generation(5));
        supervisor.handle(Event::Reload { policy: policy() }, NOW);
        let actions: Vec<Action> = std::iter::from_fn(|| supervisor.poll_action()).collect();
        let withdrawn = |id| actions.contains(&Action::Withdraw(WorkerId(id)));
        assert_eq!([5, 7, 8, 9].map(withdrawn), [false, true, false, true], "{actions:?}");
        let spawn =
            Action::Spawn { worker: WorkerId(10), slot: Slot(0), generation: Generation(5) };
        assert!(actions.contains(&spawn), "{actions:?}");
    }

    #[test]
    fn a_stop_under_way_is_over_when_somebody_starts_us() {
        let mut supervisor = begun();
        supervisor.handle(Event::Stop, NOW);
        let mut supervisor = supervisor.revive(NOW).unwrap();
        assert!(!supervisor.is_started());
        let actions: Vec<Action> = std::iter::from_fn(|| supervisor.poll_action()).collect();
        let spawned = actions.iter().filter(|a| matches!(a, Action::Spawn { .. })).count();
        assert_eq!(spawned, 2, "{actions:?}");
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        let spoiled = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut value = json(&begun());
            change(&mut value);
            let read: Supervisor = serde_json::from_value(value).map_err(|e| e.to_string())?;
            read.revive(NOW).map(drop)
        };
        assert_eq!(spoiled(&|_| {}), Ok(()));
        for (pointer, nonsense) in [
            ("/goal/generation", 9.into()),
            ("/goal/slots", 0.into()),
            ("/goal/slots", 60_000.into()),
            ("/next_worker", 1.into()),
            ("/next_worker", u64::MAX.into()),
            ("/latest", 0.into()),
            ("/policies", serde_json::json!({})),
            ("/roster", serde_json::json!({})),
            ("/records/0/incumbent", 2.into()),
            ("/records/0/incumbent", serde_json::Value::Null),
            ("/records", serde_json::json!("none")),
        ] {
            let change = |value: &mut serde_json::Value| {
                *value.pointer_mut(pointer).unwrap() = nonsense.clone();
            };
            assert!(spoiled(&change).is_err(), "{pointer}: {nonsense}");
        }
    }

    /// Puts nonsense in the place of everything that there is in a document, one after the other.
    fn each_spoiled(
        value: &serde_json::Value,
        root: &serde_json::Value,
        at: &str,
        see: &mut dyn FnMut(&str, serde_json::Value),
    ) {
        let nonsense = [
            serde_json::json!(null),
            serde_json::json!(0),
            serde_json::json!(1),
            serde_json::json!(u16::MAX),
            serde_json::json!(u32::MAX),
            serde_json::json!(u64::MAX),
            serde_json::json!(""),
            serde_json::json!([]),
            serde_json::json!({}),
        ];
        for instead in nonsense {
            let mut spoiled = root.clone();
            *spoiled.pointer_mut(at).unwrap() = instead;
            see(at, spoiled);
        }
        let list = value.as_array().into_iter().flatten().enumerate();
        let list = list.map(|(n, value)| (n.to_string(), value));
        let map = value.as_object().into_iter().flatten().map(|(n, value)| (n.clone(), value));
        for (name, value) in list.chain(map) {
            each_spoiled(value, root, &format!("{at}/{name}"), see);
        }
    }

    /// Does as the shell does, and says what it could not have done.
    fn live(mut supervisor: Supervisor) {
        let mut now = NOW;
        let mut policies: Vec<Generation> = supervisor.all_settings().collect();
        for turn in 0..24 {
            let mut events = vec![Event::Tick];
            while let Some(action) = supervisor.poll_action() {
                match action {
                    Action::Spawn { worker, generation, .. } => {
                        assert!(policies.contains(&generation), "{worker} has no settings");
                        events.push(Event::Ready { worker, evidence: Evidence::Notify });
                    }
                    Action::Withdraw(worker) => events.push(Event::Drained(worker)),
                    Action::Terminate { worker, .. } | Action::Kill(worker) => {
                        events.push(Event::Exited {
                            worker,
                            how: super::super::How::Unknown,
                            left: false,
                        });
                    }
                    Action::Forget(generation) => policies.retain(|kept| *kept != generation),
                    Action::Exit(_) => assert!(turn > 12, "it ends unasked"),
                    Action::Admit(_) | Action::Report(_) => {}
                }
            }
            if turn == 4 {
                policies.push(supervisor.next_generation());
                events.push(Event::Reload { policy: policy() });
            }
            if turn == 12 {
                events.push(Event::Stop);
            }
            now = now + Duration::from_secs(1);
            supervisor.handle_all(events, now);
        }
    }

    #[test]
    fn whatever_was_written_is_refused_or_gone_on_with() {
        let mut rolling = begun();
        rolling.handle(Event::Tick, NOW + Duration::from_secs(1));
        rolling.handle(Event::Reload { policy: policy() }, NOW);
        let mut halfway = rolling.clone();
        while halfway.poll_action().is_some() {}
        let evidence = Evidence::Notify;
        halfway.handle(Event::Ready { worker: WorkerId(3), evidence }, NOW);
        halfway.handle(Event::Reload { policy: policy() }, NOW);
        let mut failed = halfway.clone();
        let how = super::super::How::Exited(1);
        failed.handle(Event::Exited { worker: WorkerId(3), how, left: false }, NOW);
        let mut stopping = begun();
        stopping.handle(Event::Stop, NOW);
        let mut broken = vec![];
        let (mut seen, mut believed) = (0, 0);
        for state in [begun(), rolling, halfway, failed, stopping].map(|state| json(&state)) {
            each_spoiled(&state, &state, "", &mut |at, spoiled| {
                seen += 1;
                let lives = std::panic::catch_unwind(|| {
                    let read = serde_json::from_value::<Supervisor>(spoiled.clone());
                    if let Ok(Ok(read)) = read.map(|read| read.revive(NOW)) {
                        live(read);
                        return true;
                    }
                    false
                });
                match lives {
                    Ok(true) => believed += 1,
                    Ok(false) => {}
                    Err(why) => {
                        let why = why.downcast_ref::<String>().cloned().unwrap_or_default();
                        broken.push(format!("{at}: {:?}: {why}", spoiled.pointer(at)));
                    }
                }
            });
        }
        assert!(seen > 1000 && believed > 100, "{believed} of {seen}");
        assert!(broken.is_empty(), "{} of {seen}:\n{}", broken.len(), broken.join("\n"));
    }

    #[test]
    fn what_a_newer_program_wrote_is_ignored_and_what_an_older_one_did_not_is_the_default() {
        let mut value = json(&begun());
        value["tides"] = "high".into();
        value["policies"]["1"].as_object_mut().unwrap().remove("surge");
        let read: Supervisor = serde_json::from_value(value).unwrap();
        assert_eq!(json(&read.revive(NOW).unwrap()), json(&begun()));
    }
}
