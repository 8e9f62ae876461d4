//! Taking back what the last primary left: its state, its workers, and whatever else is in our control group.

use super::super::clock;
use super::super::drain::census::sockets_of;
use super::super::log::Level;
use super::super::news::News;
use super::super::source::{Launch, Source};
use super::super::worker::{self, Found, Identity, Known};
use super::super::{Primary, Refusal, ground};
use super::state::{self, State};
use super::strangers::Stranger;
use super::{Notebook, Passed};
use crate::config::values::Handoff;
use crate::config::values::LogMode;
use crate::core::{Event, Generation, How, Slot, State as Doing, Supervisor, WorkerId};
use crate::protocol::store::{Name, Part};
use crate::sys::pidfd;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// What is known of the primary before this one.
#[derive(Debug)]
pub(in super::super) enum Past {
    /// There was none.
    None,
    /// All that it knew.
    Known(Box<State>, Notebook),
    /// Only who is there, for this reason.
    Lost { why: String, found: Vec<(WorkerId, Slot, Generation)> },
}

impl Past {
    /// Reads what was written down.
    pub(in super::super) fn read(passed: &mut Passed) -> Self {
        let stored = passed.carried.remove(&Name::State);
        let is_stored = stored.is_some();
        let why = match stored.map(Notebook::open) {
            Some(Ok((notebook, text))) => match state::read(&text).and_then(revived) {
                Ok(state) => return Self::Known(Box::new(state), notebook),
                Err(why) => why,
            },
            Some(Err(why)) => why,
            None => "it is not in the FD store".to_owned(),
        };
        let mut found: Vec<_> = passed
            .carried
            .keys()
            .filter_map(|name| {
                let Name::Worker { worker, slot, generation, part: Part::Pid } = name else {
                    return None;
                };
                Some((WorkerId(*worker), Slot(*slot), Generation(*generation)))
            })
            .collect();
        found.retain(|(id, slot, generation)| {
            let sane = id.0 < u64::MAX / 2 && generation.0 < u32::MAX / 2;
            sane && slot.0 < crate::core::MAX_SLOTS
        });
        if found.is_empty() {
            if is_stored {
                passed.refused.push((Name::State.to_string(), why));
            }
            return Self::None;
        }
        Self::Lost { why, found }
    }

    /// The settings that are in force; those of the file where nothing is known.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(in super::super) fn settings(&mut self, source: &Source) -> Result<Launches, Refusal> {
        match self {
            Self::Known(state, _) => Ok(std::mem::take(&mut state.launches)),
            Self::None => Ok(BTreeMap::from([(Generation(1), source.load()?)])),
            Self::Lost { found, .. } => {
                let generations: BTreeSet<Generation> =
                    found.iter().map(|(.., generation)| *generation).collect();
                generations.into_iter().map(|generation| Ok((generation, source.load()?))).collect()
            }
        }
    }
}

type Launches = BTreeMap<Generation, Launch>;

fn revived(mut state: State) -> Result<State, String> {
    state.core = state.core.revive(clock::now())?;
    Ok(state)
}

/// Who is to be taken back, from what.
struct Left {
    parts: BTreeMap<WorkerId, (Identity, BTreeMap<Part, OwnedFd>)>,
    known: BTreeMap<WorkerId, Known>,
    /// Processes in our control group that are nobody we know, with the worker that they say they are.
    strangers: Vec<Stranger>,
    /// Workers that have lost something for good.
    crippled: usize,
}

impl Primary {
    /// Takes back whoever is there. To be called once, before anything else is done.
    pub(in super::super) fn take_back(
        &mut self,
        carried: BTreeMap<Name, OwnedFd>,
        known: BTreeMap<WorkerId, Known>,
        is_first: bool,
    ) {
        let mut left =
            Left { parts: self.hold(carried), known, strangers: self.strangers(), crippled: 0 };
        let roster: Vec<_> = self.core.roster().collect();
        let (mut alive, mut ended) = (0, 0);
        for (worker, slot, generation) in roster {
            let who = Identity { worker, slot, generation };
            match self.take_back_worker(who, &mut left) {
                Some(true) => alive += 1,
                Some(false) => ended += 1,
                None => {}
            }
        }
        self.resume_the_rest(left.parts);
        self.end_strangers(left.strangers);
        if is_first {
            return;
        }
        let text = format!(
            "took over from the last primary: {alive} workers live, {ended} have ended meanwhile"
        );
        self.log.entry(Level::Notice, Some(super::super::log::TAKEN_OVER), &text, &[]);
        self.events.tell("taken-over", &text);
        if left.crippled > 0 {
            let text = format!(
                "{} of them cannot be served as before, for not all of it came back from the FD store; relieving all with a reload",
                left.crippled
            );
            self.log.say(Level::Warning, &text);
            self.wants_relief = true;
        }
    }

    /// Notes what lies in the FD store, and sorts it by workers.
    fn hold(
        &mut self,
        carried: BTreeMap<Name, OwnedFd>,
    ) -> BTreeMap<WorkerId, (Identity, BTreeMap<Part, OwnedFd>)> {
        let mut parts: BTreeMap<_, (_, BTreeMap<_, _>)> = BTreeMap::new();
        for (name, fd) in carried {
            if let Name::Worker { worker, slot, generation, part } = name
                && let Ok(copy) = fd.try_clone()
            {
                let worker = WorkerId(worker);
                let who = Identity { worker, slot: Slot(slot), generation: Generation(generation) };
                parts.entry(worker).or_insert_with(|| (who, BTreeMap::new())).1.insert(part, copy);
            }
            self.manager.hold(name, fd);
        }
        parts
    }

    /// Returns whether the worker lives; `None` where it is to be made again.
    fn take_back_worker(&mut self, who: Identity, left: &mut Left) -> Option<bool> {
        let Identity { worker, generation, .. } = who;
        let mut parts = left.parts.remove(&worker).map(|(_, parts)| parts).unwrap_or_default();
        let known = left.known.remove(&worker);
        let doing = self.core.state(worker);
        let is_starting = matches!(doing, Some(Doing::Starting { .. }));
        let Some(pidfd) = self.find(who, parts.remove(&Part::Pid), known.as_ref(), left) else {
            for (part, fd) in parts {
                if matches!(part, Part::Output | Part::Error) && !is_starting {
                    self.resume_output(who, part, fd);
                } else {
                    self.manager.drop_stored(&who.name(part));
                }
            }
            if is_starting {
                // Its process was not made, or the system's answer is not known.
                self.core.respawn(worker);
                return None;
            }
            self.pending.push_back(Event::Exited { worker, how: How::Unknown, left: false });
            return Some(false);
        };
        self.core.is_born(worker);
        let started = self.core.started_at(worker);
        let age = started.map_or(Duration::ZERO, |started| clock::now().since(started));
        let was_left = known.as_ref().is_some_and(|known| known.is_left);
        let found = Found { pidfd, parts, known, age, is_starting };
        let has_lane = self.find_lane(who, &found.pidfd);
        let launch = &self.launches[&generation];
        let mut ground = ground!(self);
        let (mut process, ended, lost) = worker::adopt(who, launch, found, &mut ground);
        let lost = lost.or((!has_lane).then_some("its socket"));
        if ended.is_none()
            && let Some(lost) = lost
        {
            left.crippled += 1;
            self.log.say(Level::Warning, &format!("worker {worker} has lost {lost}"));
        }
        let Some(how) = ended else {
            self.workers.insert(worker, process);
            self.go_on_with(worker, doing);
            return Some(true);
        };
        let others = process.has_left_others();
        process.known.is_left = others;
        // What it said last is heard before its end is.
        for news in self.channels.forget(worker) {
            if let News::Event(event) = news {
                self.pending.push_back(event);
            } else {
                self.on_news(news);
            }
        }
        if others {
            self.workers.insert(worker, process);
        } else {
            self.let_go(who);
        }
        if !was_left {
            self.pending.push_back(Event::Exited { worker, how, left: others });
        } else if !others {
            self.pending.push_back(Event::Emptied(worker));
        }
        Some(false)
    }

    /// A worker's lane is that of the socket that it has, whatever was written down. Returns whether its lane is still there.
    fn find_lane(&mut self, who: Identity, pidfd: &OwnedFd) -> bool {
        let Some(pid) = pidfd::pid(pidfd).ok().flatten().map(Pid::as_raw) else { return true };
        self.balance.is_born(who.worker, pid);
        if !self.balance.is_steered() {
            return true;
        }
        let sockets = sockets_of(pid);
        let has: BTreeSet<u64> = sockets.found.into_iter().map(|socket| socket.inode).collect();
        let noted = self.balance.lane(who.worker);
        match (self.listeners.lane_of(&has), noted) {
            (found, noted) if found == noted && found.is_some() => {}
            (Some(lane), _) => self.balance.settle(who.worker, who.slot, lane),
            // One that has asked for none yet.
            (None, None) => self.balance.assign(who.worker, who.slot),
            (None, Some(_)) => {
                let was_passed_it = self.launches[&who.generation].settings.handoff == Handoff::Fd;
                let serves = matches!(self.core.state(who.worker), Some(Doing::Ready { .. }));
                let is_lost = was_passed_it && serves && sockets.hidden.is_none();
                if is_lost {
                    self.balance.leave(who.worker);
                }
                return !is_lost;
            }
        }
        true
    }

    /// What was under way with a worker, and ended with the last primary, begins again.
    fn go_on_with(&mut self, worker: WorkerId, doing: Option<Doing>) {
        match doing {
            // The last primary may have heard it and told nobody.
            Some(Doing::Starting { .. }) => {
                let evidence = self.channels.evidence(worker);
                let ready = evidence.map(|evidence| Event::Ready { worker, evidence });
                self.pending.extend(ready);
            }
            Some(Doing::Ready { .. }) => {
                self.balance.admit(worker);
                if !self.channels.admit(worker) {
                    self.pending.push_back(Event::Leaving(worker));
                }
            }
            Some(Doing::Draining { by_itself: false, .. }) if !self.withdraw(worker) => {
                self.pending.push_back(Event::Drained(worker));
            }
            Some(Doing::Draining { .. } | Doing::Stopping { .. }) | None => {}
        }
    }

    /// Returns the process of a worker: that in the FD store, else the one that was written down, if it is still the same,
    /// else the one in our control group that says it is this worker.
    fn find(
        &mut self,
        who: Identity,
        stored: Option<OwnedFd>,
        known: Option<&Known>,
        left: &mut Left,
    ) -> Option<OwnedFd> {
        if let Some(pidfd) = stored {
            return Some(pidfd);
        }
        let same = known.map(|known| (Pid::from_raw(known.pid), known.start_time));
        let same = same.filter(|(pid, time)| pidfd::start_time(*pid).is_ok_and(|now| now == *time));
        let same = same.filter(|(pid, _)| pid.as_raw() > 1 && *pid != nix::unistd::getpid());
        let leads = |pid: &Pid| nix::unistd::getpgid(Some(*pid)) == Ok(*pid);
        let says = left.strangers.iter().find(|s| s.worker == Some(who.worker) && leads(&s.pid));
        let pid = same.map(|(pid, _)| pid).or(says.map(|stranger| stranger.pid))?;
        let pidfd = pidfd::open(pid).ok()?;
        // The number may have become somebody else's just now.
        if let Some((pid, time)) = same
            && pidfd::start_time(pid).ok() != Some(time)
        {
            return None;
        }
        let put = self.manager.put(who.name(Part::Pid), &pidfd, super::super::systemd::Polled::No);
        put.ok().map(|()| pidfd)
    }

    /// Of workers that are gone, the last words are still moved on; what else there is of them is of no use.
    fn resume_the_rest(&mut self, parts: BTreeMap<WorkerId, (Identity, BTreeMap<Part, OwnedFd>)>) {
        for (who, parts) in parts.into_values() {
            for (part, fd) in parts {
                match part {
                    Part::Output | Part::Error => {
                        self.resume_output(who, part, fd);
                        continue;
                    }
                    Part::Pid if pidfd::ended(&fd) == pidfd::Ended::No => {
                        let text = format!("worker {} is nobody's any more; ending it", who.worker);
                        self.log.say(Level::Warning, &text);
                        let _ = pidfd::send(&fd, Signal::SIGKILL);
                    }
                    Part::Pid | Part::Notify | Part::Channel | Part::Ready => {}
                }
                self.manager.drop_stored(&who.name(part));
            }
        }
    }

    /// Goes on moving the output of a worker.
    pub(super) fn resume_output_of(&mut self, name: &Name, fd: OwnedFd) {
        if let Name::Worker { worker, slot, generation, part } = *name {
            let worker = WorkerId(worker);
            let who = Identity { worker, slot: Slot(slot), generation: Generation(generation) };
            self.resume_output(who, part, fd);
        }
    }

    fn resume_output(&mut self, who: Identity, part: Part, fd: OwnedFd) {
        let launch = self.launches.get(&who.generation);
        let mode = launch.map_or(LogMode::Auto, |launch| launch.settings.log);
        let tail = self.workers.get(&who.worker).map(|process| process.tail.clone());
        let mut ground = ground!(self);
        worker::resume_output(who, mode, (part, fd), &tail.unwrap_or_default(), &mut ground);
    }

    /// The processes of the workers that have a channel.
    pub(super) fn pids_on_channels(&self) -> Vec<i32> {
        let on_channel =
            self.workers.iter().filter(|(id, _)| self.channels.counters(**id).is_some());
        on_channel.map(|(_, process)| process.known.pid).collect()
    }

    /// A worker is gone: what connected it with us leaves the FD store, but for what it may still have written.
    pub(in super::super) fn let_go(&mut self, who: Identity) {
        self.balance.leave(who.worker);
        for part in [Part::Pid, Part::Notify, Part::Channel, Part::Ready] {
            self.manager.drop_stored(&who.name(part));
        }
    }
}

/// The state of the supervisor at the start of a primary.
pub(in super::super) fn supervisor(past: &Past, launches: &Launches) -> Supervisor {
    let now = clock::now();
    let policy = launches.values().next_back().map(|launch| launch.settings.policy.clone());
    let policy = policy.unwrap_or_default();
    match past {
        Past::None => Supervisor::new(policy, now.as_nanos(), now),
        Past::Known(state, _) => state.core.clone(),
        Past::Lost { found, .. } => Supervisor::adopt(policy, now.as_nanos(), found, now),
    }
}
