//! Whole lives of a supervisor against a simulated kernel, one seed each. The promises are checked from outside, by
//! what is asked of the kernel; the core's own invariants are asserted inside, at every event (debug builds).
//!
//! `SEED=n cargo test --test sim` plays one life again.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says its seed"
)]

use dogwatch::core::{
    Action, Cause, Event, Evidence, Generation, How, Lane, Lanes, Next, Outcome, Policy, Report,
    Scale, Slot, State, Supervisor, Time, Turns, Why, WorkerId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const SEEDS: u64 = 5_000;
const MS: fn(u64) -> Duration = Duration::from_millis;

/// xorshift64*: the world's dice.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Weather {
    /// Workers do what they should, but for generations that are bad through and through.
    Calm,
    /// Crashes, hangs, leftovers, refused forks, goodbyes.
    Stormy,
}

/// What the simulated kernel knows of a process.
#[derive(Debug, Default)]
struct Process {
    slot: u16,
    generation: u32,
    admitted: bool,
    ready: Option<Time>,
    asked: Option<Time>,
    killed: bool,
    /// Its main process has ended, but not all that it started.
    left: bool,
}

impl Process {
    /// New connections may go to it.
    fn serves(&self) -> bool {
        self.admitted && !self.left
    }
}

struct World {
    seed: u64,
    dice: Dice,
    weather: Weather,
    policy: Policy,
    now: Time,
    sup: Supervisor,
    /// What will happen, in order.
    agenda: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    alive: BTreeMap<WorkerId, Process>,
    /// The newest worker and generation seen: neither is ever used again.
    newest: (WorkerId, Generation),
    /// Generations that fail, after so many workers that did not.
    bad: BTreeMap<Generation, u64>,
    forgotten: BTreeSet<Generation>,
    slots: u16,
    reloading: Option<Generation>,
    started: u32,
    exits: u32,
    hurried: bool,
    /// The canary that a rollout waits for, its generation, and since when and for how long it is watched.
    canary: Option<(WorkerId, Generation, Time, Option<Duration>)>,
    /// The operator's word that the rollout goes on was given.
    promoted: bool,
    /// The last verdict was the operator's.
    taken_back: bool,
    /// Ready workers may not fall below this.
    floor: usize,
    log: Vec<String>,
    verdict: Option<Report>,
    /// Who is on which lane, as the shell keeps it where connections are steered.
    lanes: Lanes,
    /// Connections that nobody has accepted yet, by lane.
    waiting: BTreeMap<Lane, u64>,
    looks: u64,
}

impl World {
    fn new(seed: u64, weather: Weather) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let slots = 1 + u16::try_from(dice.below(8)).unwrap();
        let policy = Policy {
            slots,
            ready_timeout: MS(5_000 + dice.below(10_000)),
            settle: MS([0, 1_000, 3_000][usize::try_from(dice.below(3)).unwrap()]),
            drain: MS(dice.below(8_000)),
            stop_timeout: MS(1_000 + dice.below(5_000)),
            max_delay: MS(5_000),
            limit_count: if weather == Weather::Calm || dice.one_in(2) { 0 } else { 4 },
            limit_within: MS(10_000),
            heartbeat: dice.one_in(4).then_some(MS(20_000)),
            surge: 1 + u16::try_from(dice.below(8) / 6).unwrap(),
            canary: dice.one_in(3).then_some(5),
            canary_time: dice.one_in(2).then_some(MS(dice.below(20_000))),
            ..Policy::default()
        };
        let now = Time::from_secs(10_000);
        let sup = Supervisor::new(policy.clone(), seed, now);
        let mut world = Self {
            seed,
            dice,
            weather,
            policy,
            now,
            sup,
            agenda: BTreeMap::new(),
            sequence: 0,
            alive: BTreeMap::new(),
            newest: (WorkerId(0), Generation(1)),
            bad: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            slots,
            reloading: None,
            started: 0,
            exits: 0,
            hurried: false,
            canary: None,
            promoted: false,
            taken_back: false,
            floor: 0,
            log: vec![],
            verdict: None,
            lanes: Lanes::default(),
            waiting: BTreeMap::new(),
            looks: 0,
        };
        world.drain();
        world
    }

    fn send(&mut self, event: Event) {
        self.log.push(format!(
            "{:>9} > {event:?}",
            self.now.since(Time::from_secs(10_000)).as_millis()
        ));
        self.sup.handle(event, self.now);
        self.drain();
    }

    fn later(&mut self, ms: u64, event: Event) {
        self.sequence += 1;
        self.agenda.insert((self.now + MS(ms), self.sequence), event);
    }

    fn drain(&mut self) {
        while let Some(action) = self.sup.poll_action() {
            self.log.push(format!("            {action:?}"));
            self.perform(action);
            if self.dice.one_in(256) {
                self.relieve_the_primary();
            }
        }
        if self.dice.one_in(256) {
            self.relieve_the_primary();
        }
        self.check();
        self.check_lanes();
    }

    /// The primary dies here, between any two actions, and the next one reads what was written down.
    fn relieve_the_primary(&mut self) {
        let written = serde_json::to_vec(&self.sup).unwrap();
        let read: Supervisor = serde_json::from_slice(&written).unwrap();
        assert_eq!(serde_json::to_vec(&read).unwrap(), written, "not the same after reading");
        // One that is started again while it stops is to serve, not to stop.
        let stops = read.view().stopping.is_some();
        self.sup = if stops { read } else { read.revive(self.now).unwrap() };
        let written = serde_json::to_vec(&self.lanes).unwrap();
        self.lanes = serde_json::from_slice(&written).unwrap();
        assert_eq!(serde_json::to_vec(&self.lanes).unwrap(), written, "not the same after reading");
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Spawn { worker, slot, generation } => self.spawn(worker, slot, generation),
            Action::Admit(id) => {
                let process = self.alive.get_mut(&id).expect("only the living are admitted");
                assert!(!std::mem::replace(&mut process.admitted, true), "admitted twice");
                process.ready = Some(self.now);
                self.lanes.admit(id);
            }
            Action::Withdraw(id) => {
                let process = self.alive.get_mut(&id).expect("only the living are withdrawn");
                assert!(std::mem::take(&mut process.admitted), "withdrawn without being admitted");
                self.canary.take_if(|(canary, ..)| *canary == id);
                let slot = process.slot;
                assert!(
                    self.floor == 0 || self.is_relieved(slot),
                    "withdrawn before its newcomer has settled"
                );
                let is_out = self.lanes.withdraw(id);
                let lane = self.lanes.lane(id).expect("it has had a lane since it started");
                assert!(is_out || !self.lanes.is_alone(id), "{lane} goes on being served by it");
                let ms = self.dice.below(10_000);
                self.later(ms, Event::Drained(id));
            }
            Action::Terminate { worker, why } => self.terminate(worker, why),
            Action::Kill(id) => {
                let process = self.alive.get_mut(&id).expect("only the living are killed");
                let asked = process.asked.expect("SIGKILL without the stop signal before");
                assert!(
                    self.hurried || self.now >= asked + self.policy.stop_timeout,
                    "SIGKILL before the stop timeout"
                );
                assert!(!std::mem::replace(&mut process.killed, true), "killed twice");
                let left = process.left;
                self.later(
                    1,
                    if left { Event::Emptied(id) } else { exited(id, How::Signaled(9), false) },
                );
            }
            Action::Forget(generation) => {
                assert!(self.forgotten.insert(generation), "forgotten twice");
            }
            Action::Report(report) => self.hear(report),
            Action::Exit(outcome) => {
                assert!(self.alive.is_empty(), "exit with live workers {:?}", self.alive);
                assert_eq!(outcome == Outcome::Failed, self.exits == 0 && self.failed());
                self.exits += 1;
            }
        }
    }

    /// Somebody in this slot has been ready for long enough.
    fn is_relieved(&self, slot: u16) -> bool {
        let settled =
            |p: &Process| p.ready.is_some_and(|ready| self.now >= ready + self.policy.settle);
        self.alive.values().any(|p| p.slot == slot && p.admitted && settled(p))
    }

    fn failed(&self) -> bool {
        self.log.iter().any(|l| l.contains("outcome: Failed"))
    }

    fn spawn(&mut self, worker: WorkerId, slot: Slot, generation: Generation) {
        assert!(worker > self.newest.0, "a worker id is used again");
        self.newest.0 = worker;
        assert!(slot.0 < self.slots, "a worker for slot {slot} of {}", self.slots);
        assert!(!self.forgotten.contains(&generation), "spawn from forgotten settings");
        assert!(self.exits == 0, "spawn after exit");
        let watched = self.canary.map(|(_, generation, ..)| generation);
        assert!(watched != Some(generation), "a newcomer while the rollout waits for its canary");
        let process = Process { slot: slot.0, generation: generation.0, ..Process::default() };
        assert!(self.alive.insert(worker, process).is_none());
        self.assign(worker, slot);
        let stormy = self.weather == Weather::Stormy;
        let ready = Event::Ready { worker, evidence: Evidence::Accepting };
        let soon = self.dice.below(2_000);
        let is_bad = match self.bad.get_mut(&generation) {
            Some(0) => true,
            Some(good) => {
                *good -= 1;
                false
            }
            None => false,
        };
        match (is_bad, self.dice.below(10)) {
            (true, 0..=2) => {}
            (true, 3) => {
                self.later(
                    0,
                    Event::SpawnFailed {
                        worker,
                        reason: "no such program".into(),
                        transient: false,
                    },
                );
            }
            (true, _) => self.later(soon, exited(worker, How::Exited(1), false)),
            (false, 0) if stormy && self.dice.one_in(3) => {}
            (false, 1) if stormy => {
                self.later(
                    0,
                    Event::SpawnFailed { worker, reason: "no process".into(), transient: true },
                );
            }
            (false, 2) if stormy => {
                let left = self.dice.one_in(3);
                self.later(soon, exited(worker, How::Signaled(11), left));
            }
            (false, _) => self.later(soon, ready),
        }
        if stormy && self.dice.one_in(5) {
            let ms = 2_000 + self.dice.below(60_000);
            let left = self.dice.one_in(4);
            let event = match self.dice.below(4) {
                0 => Event::Leaving(worker),
                1 => Event::MoreTime { worker, time: MS(self.dice.below(3_000)) },
                _ => exited(worker, How::Exited(1), left),
            };
            self.later(ms, event);
        }
    }

    fn assign(&mut self, worker: WorkerId, slot: Slot) {
        let slots = self.sup.slots();
        self.lanes.grow(slots + self.policy.surge.min(slots) + 1);
        let lanes: Vec<Lane> = (0..self.lanes.count()).map(Lane).collect();
        let table = self.lanes.table(slots, Turns::InTurn, None);
        let is_serving = self.lanes.serves_any();
        let free: Vec<Lane> =
            lanes.into_iter().filter(|lane| self.lanes.is_deserted(*lane)).collect();
        let waits = |lane| self.waiting.get(&lane).is_some_and(|count| *count > 0);
        let lane = self.lanes.assign(worker, slot, waits);
        assert!(
            free.is_empty() || self.lanes.is_alone(worker),
            "shares {lane}, free were {free:?}"
        );
        let after = self.lanes.table(slots, Turns::InTurn, None);
        assert!(!is_serving || table == after, "a start changes who gets connections");
    }

    /// It is gone with all that it had started, and what waited for it is others'.
    fn leave(&mut self, worker: WorkerId) {
        let (Some(lane), Some(slot)) = (self.lanes.lane(worker), self.lanes.slot(worker)) else {
            return;
        };
        self.lanes.leave(worker);
        assert_eq!(self.lanes.lane(worker), None);
        // Whoever comes next in the slot serves what waits, if nobody is there already.
        let is_last =
            self.lanes.workers().iter().all(|other| self.lanes.slot(*other) != Some(slot));
        if is_last && self.lanes.tenant(lane).is_none() && !self.lanes.is_deserted(lane) {
            let mut next = self.lanes.clone();
            let has_it = next.assign(WorkerId(u64::MAX), slot, |_| false) == lane;
            let is_anothers = (0..self.slots + 9).map(Slot).filter(|s| *s != slot);
            let mut anothers = is_anothers.filter(|other| {
                let mut next = self.lanes.clone();
                next.assign(WorkerId(u64::MAX), *other, |_| false) == lane
            });
            assert!(has_it || anothers.next().is_some(), "{lane} is nobody's");
        }
    }

    /// Where connections go, and that each of them is somebody's.
    fn check_lanes(&mut self) {
        let (slots, canary) = (self.sup.slots(), self.sup.canary());
        self.lanes.forget_beyond(slots);
        let has_lanes = self.lanes.count() > 0;
        let admitted: BTreeSet<Lane> = self
            .alive
            .iter()
            .filter(|(_, p)| p.serves())
            .filter_map(|(id, _)| self.lanes.lane(*id))
            .collect();
        self.looks += 1;
        // The table of clients is long.
        let kinds = [Turns::InTurn, Turns::ByClient].into_iter();
        for turns in kinds.take(if self.looks.is_multiple_of(16) { 2 } else { 1 }) {
            let table = self.lanes.table(slots, turns, canary);
            assert!(!table.is_empty() || !has_lanes, "connections go anywhere");
            let is_served = self.alive.values().any(|p| p.serves() && p.slot < slots);
            if is_served {
                let others = table.iter().find(|lane| !admitted.contains(lane));
                assert_eq!(others, None, "who is withdrawn or gone is in {turns:?}: {table:?}");
            }
            for slot in 0..slots {
                // A canary has only its share.
                let mut own = self.alive.iter().filter(|(id, p)| {
                    p.slot == slot && p.serves() && canary.is_none_or(|c| c.0 != **id)
                });
                if let Some((id, _)) = own.next_back() {
                    let lane = self.lanes.lane(*id).unwrap();
                    assert!(table.contains(&lane), "slot {slot} gets nothing: {turns:?} {table:?}");
                }
            }
        }
        // One more connection, and whoever is there accepts what waits.
        let table = self.lanes.table(slots, Turns::InTurn, canary);
        if !table.is_empty() {
            let at = self.dice.below(table.len() as u64);
            *self.waiting.entry(table[usize::try_from(at).unwrap()]).or_default() += 1;
        }
        let serves_any = self.lanes.serves_any();
        let lanes = &self.lanes;
        self.waiting.retain(|lane, _| {
            let is_out = !table.contains(lane) && lanes.tenant(*lane).is_none();
            !(lanes.is_served(*lane) || is_out && serves_any)
        });
    }

    fn terminate(&mut self, worker: WorkerId, why: Why) {
        let process = self.alive.get_mut(&worker).expect("only the living are terminated");
        if why == Why::Leftovers {
            assert!(process.left, "leftovers of a worker that left none");
            process.asked.get_or_insert(self.now);
            if self.dice.one_in(2) {
                let ms = self.dice.below(3_000);
                self.later(ms, Event::Emptied(worker));
            }
            return;
        }
        assert!(process.asked.replace(self.now).is_none(), "terminated twice");
        assert!(!process.admitted || why == Why::Hung, "terminated before it was withdrawn");
        if !self.dice.one_in(4) {
            let ms = self.dice.below(4_000);
            let left = self.weather == Weather::Stormy && self.dice.one_in(8);
            self.later(ms, exited(worker, How::Exited(0), left));
        }
    }

    fn hear(&mut self, report: Report) {
        match &report {
            Report::Started { ready, .. } => {
                assert!(*ready > 0);
                self.started += 1;
                assert_eq!(self.started, 1, "READY=1 twice for one start");
            }
            Report::Reloading { generation } => {
                assert!(*generation > self.newest.1, "a generation is used again");
                self.newest.1 = *generation;
                assert_eq!(self.reloading.replace(*generation), None, "RELOADING=1 twice");
            }
            Report::Reloaded { generation, .. } | Report::RolledBack { generation, .. } => {
                assert_eq!(
                    self.reloading.take(),
                    Some(*generation),
                    "a verdict for another reload"
                );
                assert_eq!(self.canary, None, "a verdict while a canary is watched");
                self.taken_back =
                    matches!(report, Report::RolledBack { cause: Cause::TakenBack, .. });
                self.verdict = Some(report);
            }
            Report::Canary { worker, generation, time, .. } => {
                let is_over = time.is_some_and(|time| time <= self.policy.settle);
                assert!(is_over || self.sup.canary() == Some((*worker, 5)), "not told");
                let ready = self.alive[worker].ready.expect("a canary is ready");
                self.canary = Some((*worker, *generation, ready, *time));
                // A wait without a time ends by the operator's word; any other may.
                if time.is_none() || self.dice.one_in(4) {
                    let ms = self.dice.below(30_000);
                    let undo = self.dice.one_in(3);
                    self.later(ms, if undo { Event::Undo } else { Event::Promote });
                }
            }
            Report::Promoted { worker, asked, .. } => {
                let (canary, _, ready, time) = self.canary.take().expect("nobody was watched");
                assert_eq!(canary, *worker);
                let is_over = time.is_some_and(|time| self.now >= ready + time);
                assert!(if *asked { self.promoted } else { is_over }, "promoted by nobody");
                self.promoted = false;
            }
            Report::Scaled { to, .. } => self.slots = *to,
            Report::Failed { worker, .. } if self.canary.is_some_and(|c| c.0 == *worker) => {
                self.canary = None;
            }
            Report::Failed { next: Next::StartAgain(delay), .. } => {
                assert!(*delay <= self.policy.max_delay, "back-off of {delay:?}");
            }
            Report::Ready { .. }
            | Report::Failed { .. }
            | Report::Gone { .. }
            | Report::Killed { .. }
            | Report::Queued { .. }
            | Report::Restarting { .. }
            | Report::SlotStopped { .. }
            | Report::SlotStarted { .. }
            | Report::Paused
            | Report::Resumed
            | Report::Reset { .. }
            | Report::Stopping { .. } => {}
        }
    }

    /// What must hold at every moment, as seen from outside.
    fn check(&self) {
        let state = |id: &WorkerId| self.sup.state(*id).unwrap_or_else(|| panic_off_roster(*id));
        let states: Vec<State> = self.alive.keys().map(state).collect();
        let ready = states.iter().filter(|s| matches!(s, State::Ready { .. })).count();
        assert!(ready >= self.floor, "capacity fell to {ready}, below {}", self.floor);
        if self.floor > 0 {
            let starting = states.iter().filter(|s| matches!(s, State::Starting { .. })).count();
            assert!(starting <= usize::from(self.policy.surge), "{starting} newcomers at a time");
        }
        if let Some(due) = self.sup.poll_timeout() {
            assert!(due <= self.now + MS(60_000), "a deadline lies too far ahead");
        }
        assert!(!self.sup.status().is_empty());
    }

    /// Lets time pass until `until`, or until nothing is due any more.
    fn run(&mut self, until: Option<Time>) {
        for step in 0.. {
            assert!(step < 50_000, "it never comes to rest");
            self.beat();
            let world = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let own = self.sup.poll_timeout().filter(|_| world.is_some() || !self.at_rest());
            let Some(next) = [world, own].into_iter().flatten().min() else {
                break;
            };
            if until.is_some_and(|until| next > until) {
                break;
            }
            // A wait for a canary is longer than a heartbeat, and nobody hangs in calm weather.
            let beat = self.policy.heartbeat.map(|interval| self.now + interval / 2);
            if let Some(beat) = beat.filter(|b| self.weather == Weather::Calm && *b < next) {
                self.now = beat;
                continue;
            }
            self.now = self.now.max(next);
            if world == Some(next) {
                let (_, event) = self.agenda.pop_first().unwrap();
                self.happen(event);
            } else {
                self.send(Event::Tick);
            }
        }
        if let Some(until) = until {
            self.now = self.now.max(until);
        }
    }

    /// Healthy workers send their heartbeats; a hang is a worker that was forgotten once.
    fn beat(&mut self) {
        if self.policy.heartbeat.is_none() {
            return;
        }
        for id in self.alive.keys().copied().collect::<Vec<_>>() {
            let hangs = self.weather == Weather::Stormy && self.dice.one_in(200);
            if !hangs {
                self.sup.handle(Event::Heartbeat(id), self.now);
                self.drain();
            }
        }
    }

    /// Nothing is due but the deadlines of heartbeats, which never end.
    fn at_rest(&self) -> bool {
        self.alive
            .keys()
            .all(|id| matches!(self.sup.state(*id), Some(State::Ready { settles: None, .. })))
            && self.alive.len() == usize::from(self.slots)
    }

    /// Delivers what the kernel would: nothing of processes that are gone already.
    fn happen(&mut self, event: Event) {
        match &event {
            Event::Exited { worker, left, .. } => {
                let Some(process) = self.alive.get_mut(worker).filter(|p| !p.left) else {
                    return;
                };
                process.left = *left;
                if *left && process.killed {
                    process.left = false;
                }
                if !process.left {
                    self.alive.remove(worker);
                }
                let left = *left && self.alive.contains_key(worker);
                self.lanes.withdraw(*worker);
                if let Event::Exited { worker, how, .. } = event {
                    self.send(Event::Exited { worker, how, left });
                    if !left {
                        self.leave(worker);
                    }
                }
                return;
            }
            Event::Emptied(worker) => {
                if self.alive.get(worker).is_none_or(|p| !p.left) {
                    return;
                }
                self.alive.remove(worker);
                let worker = *worker;
                self.send(event);
                self.leave(worker);
                return;
            }
            Event::SpawnFailed { worker, .. } => {
                if self.alive.remove(worker).is_none() {
                    return;
                }
                self.leave(*worker);
            }
            Event::Ready { worker, .. }
            | Event::Leaving(worker)
            | Event::MoreTime { worker, .. } => {
                if self.alive.get(worker).is_none_or(|p| p.left) {
                    return;
                }
            }
            Event::Drained(_)
            | Event::Heartbeat(_)
            | Event::Reload { .. }
            | Event::Scale(_)
            | Event::Restart(_)
            | Event::StopSlot(_)
            | Event::StartSlot(_)
            | Event::Pause
            | Event::Resume
            | Event::Reset(_)
            | Event::Undo
            | Event::Stop
            | Event::Hurry
            | Event::Tick => {}
            Event::Promote => self.promoted |= self.sup.refusal(&event).is_none(),
        }
        self.send(event);
    }

    fn reload(&mut self, bad: bool) -> Generation {
        let generation = self.sup.next_generation();
        if bad {
            // Some fail only after slots were relieved already.
            let good = self.dice.below(3).min(u64::from(self.slots) - 1);
            self.bad.insert(generation, good);
        }
        let mut policy = self.policy.clone();
        if self.weather == Weather::Stormy && self.dice.one_in(4) {
            policy.slots = 1 + u16::try_from(self.dice.below(8)).unwrap();
        }
        self.send(Event::Reload { policy });
        generation
    }

    /// The operator asks something of a slot, or of all.
    fn operate(&mut self) {
        let slot = Slot(u16::try_from(self.dice.below(8)).unwrap());
        let which = self.dice.one_in(2).then_some(slot);
        let event = match self.dice.below(8) {
            0 => Event::Restart(which),
            1 => Event::StopSlot(slot),
            2 => Event::StartSlot(slot),
            3 => Event::Pause,
            4 => Event::Resume,
            5 => Event::Undo,
            6 => {
                self.promoted |= self.sup.refusal(&Event::Promote).is_none();
                Event::Promote
            }
            _ => Event::Reset(which),
        };
        self.send(event);
    }

    /// Nothing that the operator has stopped stays so.
    fn relent(&mut self) {
        self.send(Event::Resume);
        for slot in 0..self.slots {
            self.send(Event::StartSlot(Slot(slot)));
        }
        self.run(Some(self.now + MS(200_000)));
    }

    /// Every slot is served, by this generation if one is named.
    fn assert_served(&mut self, generation: Option<Generation>) {
        assert_eq!(self.alive.len(), usize::from(self.slots), "alive {:?}", self.alive);
        for (id, process) in &self.alive {
            assert!(
                matches!(self.sup.state(*id), Some(State::Ready { settles: None, .. })),
                "{id} is not ready"
            );
            assert!(process.admitted);
            if let Some(generation) = generation {
                assert_eq!(process.generation, generation.0);
            }
        }
        self.check_lanes();
        assert!(self.waiting.is_empty(), "connections wait for nobody: {:?}", self.waiting);
        assert_eq!(self.reloading, None, "a reload without a verdict");
        assert_eq!(self.started, 1, "READY=1 was never said");
    }
}

fn exited(worker: WorkerId, how: How, left: bool) -> Event {
    Event::Exited { worker, how, left }
}

#[expect(clippy::panic, reason = "a test fails by panicking")]
fn panic_off_roster(id: WorkerId) -> State {
    panic!("live process {id} is not on the roster")
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in self.log.iter().rev().take(25).rev() {
                eprintln!("{line}");
            }
            eprintln!(
                "{}; timeout {:?}; SEED={}",
                self.sup.status(),
                self.sup.poll_timeout(),
                self.seed
            );
        }
    }
}

/// Without crashes a reload never lowers capacity, starts one at a time, and ends on the new generation, or on the
/// one before when the new one is bad; the verdict says which.
fn calm(seed: u64) {
    let mut w = World::new(seed, Weather::Calm);
    w.run(None);
    w.assert_served(Some(Generation(1)));
    let mut good = Generation(1);
    for _ in 0..3 {
        let bad = w.dice.one_in(3);
        w.floor = usize::from(w.slots);
        let generation = w.reload(bad);
        w.run(None);
        w.floor = 0;
        let bad = bad || w.taken_back;
        if !bad {
            good = generation;
        }
        w.assert_served(Some(good));
        assert_eq!(matches!(w.verdict, Some(Report::RolledBack { .. })), bad, "{:?}", w.verdict);
    }
    w.send(Event::Stop);
    w.run(None);
    assert!(w.alive.is_empty() && w.exits == 1);
}

/// Whatever happens, it settles on the goal once the storm is over, and always stops clean.
fn stormy(seed: u64) {
    let mut w = World::new(seed, Weather::Stormy);
    for _ in 0..w.dice.below(12) {
        let until = w.now + MS(w.dice.below(20_000));
        w.run(Some(until));
        match w.dice.below(8) {
            2..=4 => w.operate(),
            0 => {
                let slots = u16::try_from(w.dice.below(9)).unwrap();
                w.send(Event::Scale(Scale::To(slots)));
            }
            1 => {
                let more = i32::try_from(w.dice.below(5)).unwrap() - 2;
                w.send(Event::Scale(Scale::By(more)));
            }
            _ => {
                let bad = w.dice.one_in(2);
                w.reload(bad);
            }
        }
    }
    w.weather = Weather::Calm;
    w.bad.clear();
    if w.exits == 0 && !w.failed() {
        // Slots that were given up get a new chance by a reload, and everything comes to rest.
        w.run(Some(w.now + MS(200_000)));
    }
    if w.exits == 0 && !w.failed() {
        w.relent();
        w.reload(false);
        w.run(None);
        w.assert_served(None);
    }
    w.send(Event::Stop);
    if w.dice.one_in(4) {
        w.hurried = true;
        w.send(Event::Hurry);
    }
    w.run(None);
    assert!(w.alive.is_empty() && w.exits == 1, "{} alive, {} exits", w.alive.len(), w.exits);
}

fn lives(life: fn(u64)) {
    let one = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in one.map_or(0..SEEDS, |seed| seed..seed + 1) {
        life(seed);
    }
}

#[test]
fn calm_lives_keep_every_promise() {
    lives(calm);
}

#[test]
fn stormy_lives_settle_and_stop_clean() {
    lives(stormy);
}
