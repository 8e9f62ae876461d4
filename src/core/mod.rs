//! The supervisor as a pure state machine: no clock, no file descriptor, no environment, no log.
//!
//! [`Supervisor::handle`] first notes what happened, then runs `reconcile`, which compares what is with what
//! should be and queues the actions that bring them closer. Only `reconcile` decides to start or to relieve; only
//! the rule that decides to wait sets the wake-up. Rollout and rollback are `rollout.rs`; this file is everything
//! that goes on without one.
//!
//! ```
//! use dogwatch::core::{Action, Event, Evidence, Policy, Supervisor, Time, WorkerId};
//!
//! let now = Time::from_secs(100);
//! let mut supervisor = Supervisor::new(Policy::default(), 0, now);
//! let Some(Action::Spawn { worker, .. }) = supervisor.poll_action() else { panic!() };
//! supervisor.handle(Event::Ready { worker, evidence: Evidence::Accepting }, now);
//! assert_eq!(supervisor.poll_action(), Some(Action::Admit(WorkerId(1))));
//! assert_eq!(supervisor.status(), "1 worker ready, generation 1");
//! ```
//!
//! | event \ state | starting | ready | draining | stopping |
//! |---|---|---|---|---|
//! | `Ready` | ready, admitted | – | – | – |
//! | `Exited` | failed | failed | gone | gone |
//! | `SpawnFailed` | failed | – | – | gone |
//! | `Drained` | – | – | stopping | – |
//! | `Leaving` | – | draining, by itself | – | – |
//! | `Heartbeat` | – | lives on | – | – |
//! | `MoreTime` | later deadline | – | later deadline | later deadline |
//! | deadline | failed, stopping | settled, or hung: stopping | stopping | killed |
//!
//! A newcomer that has settled relieves its incumbent; the canary of a rollout waits before that, beside it, until its
//! time is over or `Promote` comes (`canary.rs`). `Undo` is to a rollout what the failure of a newcomer is.

mod action;
mod backoff;
mod canary;
mod event;
mod inherit;
mod invariant;
mod lanes;
mod note;
mod operator;
mod policy;
mod report;
mod rollout;
mod time;
mod view;
mod words;
mod worker;

pub use action::{Action, Cause, Human, Next, Outcome, Report, Why};
pub use event::{Event, Evidence, How, Scale};
pub use lanes::{Lane, Lanes, MAX_LANES, Turns};
pub use operator::Refusal;
pub use policy::Policy;
pub use time::Time;
pub use view::{CanaryView, Role, RolloutView, SlotView, Standing, View, WorkerView};
pub use worker::{Generation, Slot, State, WorkerId};

use backoff::{Backoff, Blame, Chance};
use rollout::{Request, Rollout};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use worker::Worker;

/// More slots than anybody means; a slip of the finger must not start a million processes.
pub const MAX_SLOTS: u16 = 10_000;

/// What should be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Goal {
    slots: u16,
    generation: Generation,
    /// Set once everything is to end, with how that counts.
    stopping: Option<Outcome>,
    /// Nobody is to serve until the operator says so.
    paused: bool,
}

/// Who is where in one slot, and how it has fared.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    /// The generation that this slot was last relieved with.
    generation: Generation,
    /// The worker that serves, or is about to where nobody does.
    incumbent: Option<WorkerId>,
    /// The worker that is to relieve the incumbent, until it has settled.
    newcomer: Option<WorkerId>,
    /// The relieved incumbent, until it is gone.
    leaving: Option<WorkerId>,
    backoff: Backoff,
    /// Given up: the start limit was reached.
    failed: Option<Cause>,
    /// In a rollback: the old generation would not start again, so the incumbent stays.
    kept: bool,
    /// The operator wants nobody here.
    stopped: bool,
    /// The next worker starts when the one that leaves is gone.
    restarting: bool,
    /// How often it was started again after a failure.
    restarts: u32,
}

impl Record {
    fn new(generation: Generation) -> Self {
        Self {
            generation,
            incumbent: None,
            newcomer: None,
            leaving: None,
            backoff: Backoff::default(),
            failed: None,
            kept: false,
            stopped: false,
            restarting: false,
            restarts: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.incumbent.is_none() && self.newcomer.is_none()
    }

    /// Nobody serves here or is about to. The canary does not count: it gets a small share, and may be taken back.
    fn is_unfilled(&self, canary: Option<WorkerId>) -> bool {
        self.incumbent.is_none() && self.newcomer.is_none_or(|id| canary == Some(id))
    }

    /// Nobody is to be started here just now, for the operator wants it so.
    fn rests(&self) -> bool {
        self.stopped || self.restarting && self.leaving.is_some()
    }

    /// Forgets `worker` in all its roles.
    fn detach(&mut self, worker: WorkerId) {
        for role in [&mut self.incumbent, &mut self.newcomer, &mut self.leaving] {
            if *role == Some(worker) {
                *role = None;
            }
        }
    }

    /// The goal is another generation now. A slot that nobody serves has nothing to be relieved of.
    fn turn_to(&mut self, generation: Generation) {
        self.forgive();
        if self.stopped {
            self.generation = generation;
        }
    }

    /// New settings, new chances.
    fn forgive(&mut self) {
        self.backoff.clear();
        self.failed = None;
        self.kept = false;
    }
}

/// Whether one pass of `reconcile` drew all its conclusions, or changed the goal and wants another pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    Yes,
    No,
}

/// The supervisor of one app.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Supervisor {
    goal: Goal,
    records: BTreeMap<Slot, Record>,
    /// Every process that we made and that is not gone.
    roster: BTreeMap<WorkerId, Worker>,
    policies: BTreeMap<Generation, Policy>,
    rollout: Option<Rollout>,
    queued: Option<Request>,
    latest: Generation,
    next_worker: u64,
    started: bool,
    exited: bool,
    /// The last reload, if it was rolled back.
    undone: Option<Generation>,
    /// When a slot that is held back may start; set by the rule that holds it back.
    wake: Option<Time>,
    chance: Chance,
    actions: VecDeque<Action>,
}

impl Supervisor {
    /// Returns a supervisor that is about to start the policy's number of workers, as generation 1. `seed` feeds
    /// the jitter of the back-off.
    #[must_use]
    pub fn new(policy: Policy, seed: u64, now: Time) -> Self {
        let mut this = Self::unborn(policy, Generation(1), seed);
        this.reconcile(now);
        this
    }

    /// Nothing is decided yet.
    fn unborn(policy: Policy, first: Generation, seed: u64) -> Self {
        let slots = policy.slots.clamp(1, MAX_SLOTS);
        Self {
            goal: Goal { slots, generation: first, stopping: None, paused: false },
            records: BTreeMap::new(),
            roster: BTreeMap::new(),
            policies: BTreeMap::from([(first, policy)]),
            rollout: None,
            queued: None,
            latest: first,
            next_worker: 1,
            started: false,
            exited: false,
            undone: None,
            wake: None,
            chance: Chance::new(seed),
            actions: VecDeque::new(),
        }
    }

    /// Notes what happened and queues whatever now has to be done about it. Drain [`Self::poll_action`] after.
    pub fn handle(&mut self, event: Event, now: Time) {
        self.handle_all([event], now);
    }

    /// As [`Self::handle`], for several things that are known to have happened before anything is decided: a heartbeat
    /// that came in time counts though its deadline has passed by now.
    pub fn handle_all(&mut self, events: impl IntoIterator<Item = Event>, now: Time) {
        for event in events {
            self.note(event, now);
        }
        self.reconcile(now);
        debug_assert_eq!(self.broken_invariant(now), None);
    }

    /// Returns the next thing to do, if any.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether there is anything to do.
    #[must_use]
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Returns when to call `handle(Event::Tick, now)` at the latest; `None` if only an event can change anything.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.roster.values().filter_map(Worker::deadline).chain(self.wake).min()
    }

    /// Returns the generation that the next `Event::Reload` will make.
    #[must_use]
    pub fn next_generation(&self) -> Generation {
        Generation(self.latest.0 + 1)
    }

    /// The one place that compares what is with what should be.
    fn reconcile(&mut self, now: Time) {
        self.wake = None;
        self.enforce_deadlines(now);
        while self.goal.stopping.is_none() {
            self.cull(now);
            self.roll(now);
            self.fill(now);
            if self.settle(now) == Settled::Yes && !self.begin_queued(now) {
                break;
            }
        }
        if self.goal.stopping.is_some() {
            self.stop_all(now);
        }
        self.forget_unused();
    }

    fn enforce_deadlines(&mut self, now: Time) {
        for id in self.ids(|w| w.is_overdue(now)) {
            // Relieving one may have given another a new deadline.
            if !self.roster[&id].is_overdue(now) {
                continue;
            }
            match self.roster[&id].state {
                State::Starting { until } => {
                    let time = until.since(self.roster[&id].started);
                    self.fail(id, Cause::NotReady(time), Blame::Program, now);
                    self.terminate(id, Why::Failed, Duration::ZERO, now);
                }
                State::Ready { heartbeat: Some(due), .. } if due <= now => {
                    let policy = &self.policies[&self.roster[&id].generation];
                    let silence = policy.heartbeat.unwrap_or_default();
                    self.fail(id, Cause::Hung(silence), Blame::Program, now);
                    self.terminate(id, Why::Hung, Duration::ZERO, now);
                }
                State::Ready { .. } => self.prove(id, now),
                State::Draining { .. } => {
                    self.terminate(id, Why::Leave, Duration::ZERO, now);
                }
                State::Stopping { .. } => self.kill(id),
            }
        }
    }

    /// A worker has lived long enough after it was ready. If it is a newcomer, it relieves the incumbent, unless it is
    /// the canary, for which that is decided elsewhere.
    fn prove(&mut self, id: WorkerId, now: Time) {
        let Some(worker) = self.roster.get_mut(&id) else {
            return;
        };
        if let State::Ready { settles, .. } = &mut worker.state {
            *settles = None;
        }
        if self.watched() != Some(id) {
            self.relieve(id, now);
        }
    }

    /// If the worker is a newcomer, it takes the incumbent's place.
    fn relieve(&mut self, id: WorkerId, now: Time) {
        let Some(Worker { slot, generation, .. }) = self.roster.get(&id) else {
            return;
        };
        if let Some(record) = self.records.get_mut(slot)
            && record.newcomer == Some(id)
        {
            record.generation = *generation;
            record.newcomer = None;
            record.leaving = record.incumbent.replace(id);
            if let Some(old) = record.leaving {
                self.dismiss(old, Why::Leave, now);
            }
        }
    }

    /// Every slot is served or about to be.
    fn fill(&mut self, now: Time) {
        for slot in (0..self.goal.slots).map(Slot) {
            let generation = self.generation_to_fill(slot);
            let watched = self.watched();
            let record = self.records.entry(slot).or_insert_with(|| Record::new(generation));
            let wanted = record.is_unfilled(watched) && record.failed.is_none() && !record.rests();
            if wanted && !self.goal.paused && self.may_start(slot, now) {
                let id = self.spawn(slot, generation, now);
                if let Some(record) = self.records.get_mut(&slot) {
                    record.generation = generation;
                    record.incumbent = Some(id);
                    record.restarting = false;
                    if record.backoff.failures() > 0 {
                        record.restarts = record.restarts.saturating_add(1);
                    }
                }
            }
        }
    }

    /// Whether back-off lets `slot` start a worker now; if not, asks to be woken when it does.
    fn may_start(&mut self, slot: Slot, now: Time) -> bool {
        match self.records.get(&slot).and_then(|record| record.backoff.waits_until(now)) {
            None => true,
            Some(until) => {
                self.wake = Some(self.wake.map_or(until, |wake| wake.min(until)));
                false
            }
        }
    }

    /// Slots beyond the goal go, with whoever is in them.
    fn cull(&mut self, now: Time) {
        let beyond = self.records.split_off(&Slot(self.goal.slots));
        for record in beyond.into_values() {
            for id in [record.incumbent, record.newcomer].into_iter().flatten() {
                self.dismiss(id, Why::Leave, now);
            }
        }
        // Scaled to slots that are stopped: somebody has to serve.
        if self.records.values().all(|record| record.stopped)
            && let Some(record) = self.records.values_mut().next()
        {
            record.stopped = false;
        }
    }

    /// Draws the conclusions that concern the whole: started, rolled out, given up.
    fn settle(&mut self, now: Time) -> Settled {
        if self.settle_rollout(now) == Settled::No {
            return Settled::No;
        }
        if !self.started && self.rollout.is_none() && self.has_started() {
            self.started = true;
            let (ready, slots) = (self.ready(), self.goal.slots);
            self.report(Report::Started { ready, slots });
        }
        // A reload that waits is their next chance.
        let is_over = |r: &Record| r.failed.is_some() && r.is_empty();
        let nobody_asks = self.rollout.is_none() && self.queued.is_none();
        let wanted = || self.records.values().filter(|r| !r.stopped);
        if nobody_asks && !self.goal.paused && wanted().all(is_over) {
            self.stop(Outcome::Failed);
        }
        Settled::Yes
    }

    /// Enough slots are ready, or every slot is that is not given up and does not fail all the time.
    fn has_started(&self) -> bool {
        let policy = &self.policies[&self.goal.generation];
        let promising = |r: &&Record| {
            let serves = self.worker(r.incumbent).is_some_and(Worker::is_ready);
            serves || r.failed.is_none() && !r.backoff.is_persistent(policy)
        };
        let wanted = self.records.values().filter(|r| !r.stopped).filter(promising).count();
        let ready = self.ready();
        ready > 0 && ready >= wanted.min(usize::from(policy.ready_min.unwrap_or(u16::MAX)))
    }

    fn stop_all(&mut self, now: Time) {
        for record in self.records.values_mut() {
            (record.incumbent, record.newcomer) = (None, None);
        }
        for id in self.ids(|w| w.is_starting() || w.is_ready()) {
            self.dismiss(id, Why::Leave, now);
        }
        if self.roster.is_empty() && !self.exited {
            self.exited = true;
            self.actions.push_back(Action::Exit(self.goal.stopping.unwrap_or(Outcome::Stopped)));
        }
    }

    fn spawn(&mut self, slot: Slot, generation: Generation, now: Time) -> WorkerId {
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        let state = State::Starting { until: now + self.policies[&generation].ready_timeout };
        self.roster.insert(worker, Worker { slot, generation, started: now, state, ready: None });
        self.actions.push_back(Action::Spawn { worker, slot, generation });
        worker
    }

    /// Lets a worker go as its state demands: one that serves is withdrawn and drains first.
    fn dismiss(&mut self, id: WorkerId, why: Why, now: Time) {
        let Some(worker) = self.roster.get_mut(&id) else {
            return;
        };
        match worker.state {
            State::Starting { .. } => self.terminate(id, why, Duration::ZERO, now),
            State::Ready { .. } => {
                let until = now + self.policies[&worker.generation].drain;
                worker.state = State::Draining { until, by_itself: false };
                self.actions.push_back(Action::Withdraw(id));
            }
            State::Draining { .. } | State::Stopping { .. } => {}
        }
    }

    /// Asks a worker to end, and sets the deadline after which it is killed. Drain time that was not used yet is
    /// added: on a shared listener the stop signal is what tells a program to drain.
    fn terminate(&mut self, id: WorkerId, why: Why, unused: Duration, now: Time) {
        let Some(worker) = self.roster.get_mut(&id).filter(|w| !w.is_stopping()) else {
            return;
        };
        let patience = unused.saturating_add(self.policies[&worker.generation].stop_timeout);
        worker.state = State::Stopping { kill: Some(now + patience) };
        self.ask(id, why);
    }

    fn ask(&mut self, worker: WorkerId, why: Why) {
        self.actions.push_back(Action::Terminate { worker, why });
    }

    fn kill(&mut self, id: WorkerId) {
        let Some(worker) = self.roster.get_mut(&id) else {
            return;
        };
        worker.state = State::Stopping { kill: None };
        let (slot, generation) = (worker.slot, worker.generation);
        if let Some(record) = self.records.get_mut(&slot) {
            // More cannot be done; a process that the kernel does not let go must not hold up the rollout.
            record.detach(id);
        }
        self.actions.push_back(Action::Kill(id));
        self.report(Report::Killed { worker: id, slot, generation });
    }

    /// Lets the shell drop the settings of generations that nobody can start from again.
    fn forget_unused(&mut self) {
        let mut used: Vec<Generation> = self.records.values().map(|r| r.generation).collect();
        used.extend(self.roster.values().map(|w| w.generation));
        used.push(self.goal.generation);
        used.extend(self.rollout.iter().flat_map(|r| [r.from, r.to]));
        used.extend(self.queued.iter().map(|q| q.generation));
        let gone = |g: &Generation| !used.contains(g);
        for generation in self.policies.keys().copied().filter(gone).collect::<Vec<_>>() {
            self.policies.remove(&generation);
            self.actions.push_back(Action::Forget(generation));
        }
    }

    fn set_slots(&mut self, to: u16) {
        let from = std::mem::replace(&mut self.goal.slots, to);
        if from != to {
            self.report(Report::Scaled { from, to });
        }
    }

    fn stop(&mut self, outcome: Outcome) {
        if self.goal.stopping.is_none() {
            self.goal.stopping = Some(outcome);
            self.report(Report::Stopping { outcome });
        }
    }

    fn remove(&mut self, id: WorkerId) {
        if let Some(worker) = self.roster.remove(&id)
            && let Some(record) = self.records.get_mut(&worker.slot)
        {
            record.detach(id);
        }
    }

    fn report(&mut self, report: Report) {
        self.actions.push_back(Action::Report(report));
    }

    // Questions.

    /// Whether a rollout is under way.
    #[must_use]
    pub fn is_rolling(&self) -> bool {
        self.rollout.is_some()
    }

    /// Whether everything is being ended.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.goal.stopping.is_some()
    }

    /// Returns when the next step of a start, rollout or stop that goes well will have succeeded or failed; `None` when
    /// nothing is under way, or when a start has failed, nobody serves, and nobody should be asked to wait for it.
    #[must_use]
    pub fn patience(&self) -> Option<Time> {
        let first_try = self.records.values().all(|record| record.backoff.failures() == 0);
        let under_way = match (self.goal.stopping, &self.rollout) {
            (Some(_), _) | (None, Some(_)) => true,
            (None, None) => !self.started && (first_try || self.ready() > 0),
        };
        self.poll_timeout().filter(|_| under_way)
    }

    /// Returns how many slots there are to be.
    #[must_use]
    pub fn slots(&self) -> u16 {
        self.goal.slots
    }

    /// Returns the state of a worker that is not gone.
    #[must_use]
    pub fn state(&self, worker: WorkerId) -> Option<State> {
        self.roster.get(&worker).map(|w| w.state)
    }

    fn ids(&self, which: impl Fn(&Worker) -> bool) -> Vec<WorkerId> {
        self.roster.iter().filter(|(_, worker)| which(worker)).map(|(id, _)| *id).collect()
    }

    fn worker(&self, id: Option<WorkerId>) -> Option<&Worker> {
        id.and_then(|id| self.roster.get(&id))
    }

    /// How many slots are served by a ready worker.
    fn ready(&self) -> usize {
        let serves = |id| self.worker(id).is_some_and(Worker::is_ready);
        self.records.values().filter(|r| serves(r.incumbent) || serves(r.newcomer)).count()
    }
}
