//! Doing what the core asks, and telling it what came of it. A failure comes back as an event, never as `?`.

use super::balance::{Said, Wish};
use super::carry::crash;
use super::drain::{Leaving, drained};
use super::log::Level;
use super::worker::{self, Identity};
use super::{LastExit, LastFailure, News, Primary, clock, ground};
use crate::config::values::{Balance, Handoff, ReadyWhen, StopWhen};
use crate::core::{Action, Cause, Event, How, Report, State, Why, WorkerId};
use crate::protocol::control::Failure;
use crate::protocol::store::{Name, Part};
use crate::sys::process;
use nix::sys::signal::Signal;
use tokio::sync::mpsc;

impl Primary {
    /// Tells the core what happened and does what it asks, until nothing is left to do.
    pub(super) fn handle(&mut self, event: Event) {
        self.core.handle(event, clock::now());
        self.settle();
    }

    /// Does what is queued, then tells systemd where things stand.
    pub(super) fn settle(&mut self) {
        loop {
            self.unkept += 1;
            // What is to be done or told is known before it is.
            if self.core.has_actions() {
                self.keep();
            }
            while let Some(action) = self.core.poll_action() {
                let is_once = matches!(action, Action::Terminate { .. });
                let name = action.name();
                crash::point(&format!("before-{name}"));
                self.perform(action);
                crash::point(&format!("after-{name}"));
                // All else can be done twice; and a worker that was made is in the FD store.
                self.unkept += 1;
                if is_once {
                    self.keep();
                }
            }
            self.set_table();
            match self.pending.pop_front() {
                Some(event) => self.core.handle(event, clock::now()),
                None => break,
            }
        }
        self.manager.status(self.core.status());
        self.manager.extend(self.core.patience(), clock::now());
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Spawn { worker, slot, generation } => {
                self.spawn(Identity { worker, slot, generation });
            }
            // On a shared listener a worker admits itself by waiting on it.
            Action::Admit(worker) => {
                self.balance.admit(worker);
                if let Some(process) = self.workers.get_mut(&worker) {
                    process.is_ready();
                }
                if !self.channels.admit(worker) {
                    self.pending.push_back(Event::Leaving(worker));
                }
            }
            Action::Withdraw(worker) => {
                // Who shares a listener cannot be withdrawn: the stop signal is what tells it to drain.
                if !self.withdraw(worker) {
                    self.pending.push_back(Event::Drained(worker));
                }
            }
            Action::Terminate { worker, why } => self.terminate(worker, why),
            Action::Kill(worker) => {
                self.balance.withdraw(worker);
                if let Some(process) = self.workers.get(&worker) {
                    process.kill();
                }
            }
            Action::Forget(generation) => drop(self.launches.remove(&generation)),
            Action::Report(report) => self.report(&report),
            Action::Exit(outcome) => self.outcome = Some(outcome),
        }
    }

    /// Returns whether it will be heard when the worker has nothing left to do.
    pub(super) fn withdraw(&mut self, worker: WorkerId) -> bool {
        let lane = self.balance.withdraw(worker);
        let left = match self.core.state(worker) {
            Some(State::Draining { until, .. }) => Some(until.since(clock::now())),
            Some(State::Starting { .. } | State::Ready { .. } | State::Stopping { .. }) | None => {
                None
            }
        };
        let Some(process) = self.workers.get_mut(&worker) else { return false };
        let Some(launch) = self.launches.get(&process.generation) else { return false };
        let settings = &launch.settings;
        let (is_alone, left) = (lane.is_some(), left.unwrap_or(settings.policy.drain));
        // Who was to have sockets of its own and shares them is given connections until it is told to stop.
        let is_told_at_once =
            settings.stop_when == StopWhen::AtOnce || settings.balance.is_steered();
        if settings.handoff == Handoff::Fd && !is_alone && is_told_at_once {
            return false;
        }
        let locals = self.listeners.locals();
        let mut leaving = Leaving::new(
            process.pid().as_raw(),
            lane.unwrap_or_default(),
            locals,
            settings,
            left,
            self.pace.clone(),
        );
        if self.core.is_stopping() {
            // Nobody will serve their next request.
            leaving.hurry();
        }
        if settings.handoff == Handoff::Node {
            // What a program of Node's has accepted is waited for as Node closes it.
            let first = is_alone.then_some(Leaving { wait_for_connections: false, ..leaving });
            return self.channels.withdraw(worker, process.pid(), settings, left, first);
        }
        let drain = tokio::spawn(drain(leaving, worker, self.news.clone()));
        process.drain = Some(drain.abort_handle());
        true
    }

    /// Everything ends: who drains already has connections whose next request nobody will serve.
    pub(super) fn hurry_drains(&mut self) {
        let drains = self.workers.iter_mut().filter_map(|(worker, process)| {
            process.drain.take().map(|drain| {
                drain.abort();
                *worker
            })
        });
        for worker in drains.collect::<Vec<_>>() {
            if !self.withdraw(worker) {
                self.pending.push_back(Event::Drained(worker));
            }
        }
    }

    fn spawn(&mut self, who: Identity) {
        self.find_room(who);
        let Some(launch) = self.launches.get(&who.generation) else {
            unreachable!("the core forgets a generation only when nobody can start from it")
        };
        let started = worker::start(who, launch, &mut ground!(self));
        match started {
            Ok(process) => {
                self.balance.is_born(who.worker, process.pid().as_raw());
                self.workers.insert(who.worker, process);
            }
            Err(error) => {
                self.channels.forget(who.worker);
                self.balance.leave(who.worker);
                for part in Part::ALL {
                    self.manager.drop_stored(&who.name(part));
                }
                self.pending.push_back(Event::SpawnFailed {
                    worker: who.worker,
                    reason: error.reason,
                    transient: error.is_transient,
                });
            }
        }
    }

    /// Where workers are steered, one that starts gets a lane, and more are made if there are too few.
    fn find_room(&mut self, who: Identity) {
        if !self.balance.is_steered() {
            return;
        }
        if let Some(launch) = self.launches.get(&who.generation) {
            let slots = self.core.slots();
            let said = self.balance.grow(&mut self.listeners, &launch.settings, slots);
            self.say_steering(said);
            self.store_listeners();
        }
        self.balance.assign(who.worker, who.slot);
    }

    /// What the table is made for.
    pub(super) fn set_table(&mut self) {
        let Some(launch) = self.launches.get(&self.core.goal()) else { return };
        if let Balance::Steered(steer) = launch.settings.balance {
            let (slots, canary) = (self.core.slots(), self.core.canary());
            self.balance.set(Wish { steer, slots, canary });
        }
    }

    /// Says what is not as it was asked, each thing once.
    pub(super) fn say_steering(&mut self, said: Vec<Said>) {
        for (text, hint) in said {
            if self.said.insert(text.clone()) {
                self.log.say(Level::Warning, &text);
                self.events.tell("warning", &text);
                hint.iter().for_each(|hint| self.log.say(Level::Notice, &format!("hint: {hint}")));
            }
        }
    }

    fn terminate(&mut self, worker: WorkerId, why: Why) {
        self.balance.withdraw(worker);
        let Some(process) = self.workers.get(&worker) else {
            return;
        };
        let stop = self
            .launches
            .get(&process.generation)
            .map_or(Signal::SIGTERM, |l| l.settings.stop_signal.0);
        match why {
            // As systemd's WatchdogSignal=: a core dump shows where it hangs.
            Why::Hung if !process.known.is_left => process.signal(Signal::SIGABRT),
            Why::Hung | Why::Leave | Why::Failed | Why::Leftovers => process.signal(stop),
        }
        process.resume();
    }

    fn report(&mut self, report: &Report) {
        self.log.report(report);
        if matches!(report, Report::Reloaded { .. }) {
            for (at, address) in self.channels.close_unserved() {
                self.manager.drop_stored(&Name::Opened(u16::try_from(at).unwrap_or(u16::MAX)));
                let text = format!("nobody listens on '{address}' any more; it is closed");
                self.log.say(Level::Notice, &text);
            }
        }
        if let Report::Failed { generation, cause: Cause::NotReady(_), .. } = report
            && self.hinted.replace(*generation) != Some(*generation)
        {
            let when = self.launches.get(generation).map(|launch| launch.settings.ready_when);
            self.log.say(Level::Notice, &format!("hint: {}", ways_out(when)));
        }
        self.hint_at_own_socket(report);
        if matches!(report, Report::Scaled { .. }) {
            self.say_room();
        }
        if matches!(report, Report::Started { .. }) && self.balance.has_strays() {
            let text = "connections that came before anybody served wait on lanes that nobody serves; relieving all with a reload, which takes those lanes";
            self.log.say(Level::Notice, text);
            self.wants_relief = true;
        }
        self.remember(report);
        self.events.report(report);
        self.manager.report(report);
    }

    /// A program that listens by itself finds the address taken: the commonest mistake, and it has a remedy. What it
    /// wrote is read by the time that it fails again.
    fn hint_at_own_socket(&mut self, report: &Report) {
        let Report::Failed { generation, .. } = report else { return };
        let tail = self.last_failure.as_ref().and_then(|last| last.tail.as_ref());
        let is_taken = |line: &String| {
            let said = ["eaddrinuse", "address already in use", "addrinuse", "in use?"];
            said.iter().any(|text| line.to_lowercase().contains(text))
        };
        if tail.is_some_and(|tail| tail.lines().iter().any(is_taken))
            && self.hinted.replace(*generation) != Some(*generation)
        {
            let hint = "hint: the program opens its address by itself, which is taken: by us for it, by another worker or \
                        another program. Let it take file descriptor 3 instead (LISTEN_FDS); for a program of Node's say \
                        handoff = \"node\"";
            self.log.say(Level::Notice, hint);
        }
    }

    /// Keeps what people will ask about: the last failure, and how each slot's last worker ended.
    fn remember(&mut self, report: &Report) {
        let (worker, slot, generation, reason) =
            if let Report::Failed { worker, slot, generation, cause, .. } = report {
                (*worker, *slot, *generation, cause.to_string())
            } else if let Report::Gone { worker, slot, generation, how } = report {
                (*worker, *slot, *generation, how.to_string())
            } else {
                return;
            };
        if matches!(report, Report::Failed { .. }) {
            let is_late = matches!(report, Report::Failed { cause: Cause::NotReady(_), .. });
            let when = self.launches.get(&generation).map(|launch| launch.settings.ready_when);
            let failure = Failure {
                hint: is_late.then(|| ways_out(when).to_owned()),
                worker: worker.0,
                slot: slot.0,
                generation: generation.0,
                reason: reason.clone(),
                time_usec: clock::wall_usec(),
                lines: vec![],
            };
            let tail = self.workers.get(&worker).map(|process| process.tail.clone());
            self.last_failure = Some(LastFailure { failure, tail });
        }
        self.exits.insert(slot, LastExit { worker, generation, reason, at: clock::now() });
    }

    /// Reaps everybody who has ended: workers, and as pid 1 or subreaper whatever was left to us.
    pub(super) fn reap(&mut self) {
        while let Some((pid, end)) = process::reap() {
            let found = self.workers.iter().find(|(_, process)| process.is_led_by(pid));
            if let Some(worker) = found.map(|(worker, _)| *worker) {
                self.ended(worker, worker::how(end));
            }
            self.judge_trial(pid, end);
            if self.keeper.as_ref().is_some_and(|keeper| keeper.is(pid)) {
                self.keeper = None;
                self.log.say(Level::Warning, "the keeper has ended; making another");
                self.hire_keeper();
            }
        }
        self.sweep();
    }

    /// Looks which of the workers that have exited have nothing left. It is an event when what was left ends as our
    /// child; what ends as somebody else's is found by looking now and then.
    pub(super) fn sweep(&mut self) {
        let left = self.workers.iter().filter(|(_, process)| process.known.is_left);
        let emptied: Vec<WorkerId> =
            left.filter(|(_, process)| !process.has_left_others()).map(|(id, _)| *id).collect();
        for worker in emptied {
            self.handle(Event::Emptied(worker));
            self.remove(worker);
        }
    }

    /// Whether a worker that has exited has left others behind.
    pub(super) fn has_leftovers(&self) -> bool {
        self.workers.values().any(|process| process.known.is_left)
    }

    /// A worker's main process has ended. It may be heard twice: of a child of ours, which another primary made.
    pub(super) fn ended(&mut self, worker: WorkerId, how: How) {
        if self.workers.get(&worker).is_none_or(|process| process.known.is_left) {
            return;
        }
        for news in self.channels.forget(worker) {
            self.on_news(news);
        }
        let Some(process) = self.workers.get_mut(&worker) else {
            return;
        };
        if let Some(error) = process.failure() {
            self.remove(worker);
            return self.handle(Event::SpawnFailed {
                worker,
                reason: error.reason,
                transient: error.is_transient,
            });
        }
        let left = process.has_left_others();
        process.known.is_left = left;
        if left {
            self.balance.withdraw(worker);
        } else {
            // Before its replacement looks for a lane.
            self.balance.leave(worker);
        }
        if let Some(last) =
            self.last_failure.as_mut().filter(|last| last.failure.worker == worker.0)
        {
            last.settle_lines();
        }
        self.handle(Event::Exited { worker, how, left });
        if !left {
            self.remove(worker);
        }
    }

    fn remove(&mut self, worker: WorkerId) {
        if let Some(process) = self.workers.remove(&worker) {
            let (slot, generation) = (process.slot, process.generation);
            self.let_go(Identity { worker, slot, generation });
        }
    }
}

/// Waits until nothing of a worker's is left, and tells the loop.
async fn drain(leaving: Leaving, worker: WorkerId, news: mpsc::Sender<News>) {
    let unclosed = |error: std::io::Error| {
        let text = format!(
            "cannot close idle connections of worker {worker}: {error}; its clients have its drain time to do that"
        );
        let is_forbidden = error.raw_os_error() == Some(libc::EPERM);
        let hint = is_forbidden.then(|| "say SystemCallFilter=pidfd_getfd in the unit; kernel.yama.ptrace_scope may forbid it too".to_owned());
        let _ = news.try_send(News::Trouble { text, hint });
    };
    let left = drained(leaving, unclosed).await;
    if let Some(error) = left.unseen {
        let text = format!(
            "cannot see the connections of worker {worker}: {error}; it has all of its drain time"
        );
        let _ = news.try_send(News::Trouble { text, hint: None });
        return;
    }
    let _ = news.send(News::Event(Event::Drained(worker))).await;
}

/// What to do about a worker that gives no evidence, in one line.
fn ways_out(when: Option<ReadyWhen>) -> &'static str {
    match when {
        None | Some(ReadyWhen::Auto) => {
            "nothing showed that it serves: let it accept on the socket that it is given (LISTEN_FDS), or say READY=1, \
             or give it more time with ready.timeout, or say ready.when = \"alive:2s\" if being alive is enough"
        }
        Some(ReadyWhen::Accepting) => {
            "nothing was seen waiting on a listener: let it accept on the socket that it is given (LISTEN_FDS), or \
             choose other evidence with ready.when"
        }
        Some(ReadyWhen::Notify) => {
            "it did not say READY=1 on NOTIFY_SOCKET: let it do so, or choose other evidence with ready.when"
        }
        Some(ReadyWhen::Fd) => {
            "it wrote no line to the file descriptor in DOGWATCH_READY_FD: let it do so, or choose other evidence \
             with ready.when"
        }
        Some(ReadyWhen::Listening) => {
            "no server of its listens: if it serves no connections, say ready.when = \"alive:2s\"; if something else \
             starts the real program, name that program"
        }
        Some(ReadyWhen::Message) => {
            "it did not send 'ready': let it call process.send('ready'), or choose ready.when = \"listening\""
        }
        Some(ReadyWhen::Alive(_)) => "it did not stay alive long enough, see its output",
    }
}
