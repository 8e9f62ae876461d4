//! What the loop answers. Looking costs a walk over the slots; everything else is an event for the core, or refused.

use super::super::tail::Tail;
use super::super::{Primary, clock};
use super::event::Receiver;
use super::{Answer, Question};
use crate::config::values::LogMode;
use crate::config::{Difference, Error as Invalid};
use crate::core::{self, Event, Refusal, Scale, Standing, State, View, WorkerView};
use crate::protocol::control::{
    self, App, AppState, Call, Canary, Change, Error, Exit, Failure, Generation, Listed, Role,
    Setting, Shown, SlotState, Worker, WorkerState,
};
use nix::sys::signal::Signal;
use std::time::Duration;

/// So many lines `Logs` tells when nobody says how many.
const LINES: u32 = 50;

impl Primary {
    /// Answers a client. Who is gone by now misses nothing.
    pub(in super::super) fn answer(&mut self, question: Question) {
        if matches!(question.call, Call::Upgrade) {
            return self.begin_upgrade(Some(question.answer));
        }
        let answer = self.find_answer(question.call);
        let _ = question.answer.send(answer);
    }

    fn find_answer(&mut self, call: Call) -> Result<Answer, Error> {
        match call {
            // The client answers two by itself, and the third has its answer later.
            Call::GetInfo | Call::GetInterfaceDescription(_) | Call::Upgrade => Ok(Answer::Done),
            Call::Describe => Ok(Answer::Primary(Box::new(self.describe()))),
            Call::List => Ok(Answer::Listed(Box::new(Listed { app: self.app(None) }))),
            Call::Show(which) => self.show(which.slot),
            Call::Check => self.load().map(|_| Answer::Done).map_err(invalid),
            Call::Reload(reload) if reload.dry_run == Some(true) => self.dry_run(),
            Call::Reload(_) => {
                let events = self.events.subscribe();
                self.reload()
                    .map(|generation| Answer::Reloading { generation: generation.0, events })
            }
            Call::Restart(which) => {
                self.ask(Event::Restart(which.slot.map(core::Slot)))?;
                let view = self.core.view();
                let restarted =
                    |s: &&core::SlotView| s.standing != Standing::Stopped || !s.workers.is_empty();
                let meant = view.slots.iter().filter(restarted).map(|s| s.slot.0);
                let meant = meant.filter(|slot| which.slot.is_none_or(|one| one == *slot));
                Ok(Answer::Restarted(meant.collect()))
            }
            Call::Start(which) => self.ask(Event::StartSlot(core::Slot(which.slot))),
            Call::Stop(which) => self.ask(Event::StopSlot(core::Slot(which.slot))),
            Call::Scale(scale) => self.scale(scale),
            Call::Kill(kill) => self.kill(&kill),
            Call::Pause => self.ask(Event::Pause),
            Call::Resume => self.ask(Event::Resume),
            Call::Promote => self.ask(Event::Promote),
            Call::Rollback => self.ask(Event::Undo),
            Call::Reset(which) => self.ask(Event::Reset(which.slot.map(core::Slot))),
            Call::Subscribe(what) => {
                let messages = (what.messages == Some(true)).then(|| self.follow_messages());
                Ok(Answer::Events(self.events.subscribe(), messages))
            }
            Call::Send(send) => self.send(&send),
            Call::Logs(logs) => {
                if self.log_place() == "journal" {
                    let reason = "the workers' output goes to the journal".to_owned();
                    let hint = Some("read it with 'dogwatch logs' or journalctl".to_owned());
                    return Err(Error::Refused { reason, hint });
                }
                self.check_slot(logs.slot)?;
                let count = logs.lines.unwrap_or(LINES) as usize;
                let (last, live) = self.app.recent.last(count, logs.slot);
                Ok(Answer::Lines { last, live })
            }
        }
    }

    /// Does what is asked, or says why not.
    fn ask(&mut self, event: Event) -> Result<Answer, Error> {
        if let Some(refusal) = self.core.refusal(&event) {
            return Err(refused(refusal));
        }
        self.handle(event);
        Ok(Answer::Done)
    }

    fn check_slot(&self, slot: Option<u16>) -> Result<(), Error> {
        let slots = u16::try_from(self.core.view().slots.len()).unwrap_or(u16::MAX);
        match slot {
            Some(slot) if slot >= slots => Err(Error::NoSuchSlot { slot, slots }),
            _ => Ok(()),
        }
    }

    fn dry_run(&self) -> Result<Answer, Error> {
        let new = self.load().map_err(invalid)?;
        let Some(old) = self.launches.get(&self.core.view().generation) else {
            return Ok(Answer::Changes(vec![]));
        };
        let told = |(key, from, to): Difference| {
            let is_other = old.settings.balance.is_steered() != new.settings.balance.is_steered();
            let takes_restart = match key.as_str() {
                "listen" => !self.listeners.adopted,
                "blocking" => true,
                "balance" => is_other,
                _ => false,
            };
            let to =
                to.map(|to| if takes_restart { to + " (takes a restart of the app)" } else { to });
            Change { key, from, to }
        };
        let mut changes: Vec<Change> =
            old.settings.differences(&new.settings).into_iter().map(told).collect();
        let mut resolved = |key: &str, from: Option<String>, to: Option<String>| {
            if from != to && !changes.iter().any(|change| change.key == key) {
                changes.push(Change { key: key.to_owned(), from, to });
            }
        };
        let text = |path: Option<&std::path::PathBuf>| path.map(|p| p.display().to_string());
        resolved("working-directory", text(old.pinned()), text(new.pinned()));
        resolved("command", text(Some(&old.found)), text(Some(&new.found)));
        Ok(Answer::Changes(changes))
    }

    fn scale(&mut self, scale: control::Scale) -> Result<Answer, Error> {
        let from = i64::try_from(self.core.view().slots.len()).unwrap_or(0);
        let wanted = match (scale.to, scale.by) {
            (Some(to), None) => to,
            (None, Some(by)) => from.saturating_add(by),
            (None, None) => return Err(Error::InvalidParameter { parameter: "to".to_owned() }),
            (Some(_), Some(_)) => {
                return Err(Error::InvalidParameter { parameter: "by".to_owned() });
            }
        };
        let refuse = |reason: String, hint: &str| {
            Err(Error::Refused { reason, hint: Some(hint.to_owned()) })
        };
        if wanted < 1 {
            return refuse(
                format!("that would be {wanted} slots, and one stays at least"),
                "'dogwatch pause' ends all workers and lets connections wait; systemctl stop ends the app",
            );
        }
        let most = i64::from(core::MAX_SLOTS);
        let Some(to) = u16::try_from(wanted).ok().filter(|_| wanted <= most) else {
            return refuse(
                format!("{wanted} slots are more than anybody needs"),
                &format!("the most is {most}"),
            );
        };
        self.ask(Event::Scale(Scale::To(to)))?;
        Ok(Answer::Scaled { from: u16::try_from(from).unwrap_or(u16::MAX), to })
    }

    fn follow_messages(&self) -> Receiver {
        self.channels.follow(true);
        self.events.subscribe_messages()
    }

    fn send(&mut self, send: &control::Send) -> Result<Answer, Error> {
        self.check_slot(send.slot)?;
        let answers = self.follow_messages();
        let sent = self.channels.send(send.slot.map(core::Slot), &send.message.to_string());
        for news in sent.news {
            self.on_news(news);
        }
        if sent.to.is_empty() && sent.full.is_empty() {
            let whom = send.slot.map_or_else(|| "any slot".to_owned(), |s| format!("slot {s}"));
            let reason = format!("no worker with a channel serves {whom} just now");
            let hint = Some("a worker has a channel with 'handoff = \"node\"'".to_owned());
            return Err(Error::Refused { reason, hint });
        }
        let numbers = |ids: &[core::WorkerId]| Some(ids.iter().map(|id| id.0).collect());
        let (workers, unread) = (numbers(&sent.to), numbers(&sent.full));
        Ok(Answer::Sent(control::Sent { workers, unread, event: None }, answers))
    }

    fn kill(&mut self, kill: &control::Kill) -> Result<Answer, Error> {
        self.check_slot(kill.slot)?;
        let name = kill.signal.to_ascii_uppercase();
        let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
        let Ok(signal) = name.parse::<Signal>() else {
            return Err(Error::InvalidParameter { parameter: "signal".to_owned() });
        };
        let meant = |p: &&super::super::worker::Process| {
            !p.known.is_left && kill.slot.is_none_or(|slot| slot == p.slot.0)
        };
        let meant: Vec<_> = self.workers.values().filter(meant).collect();
        meant.iter().for_each(|process| process.signal(signal));
        let pids: Vec<_> = meant.iter().map(|process| process.pid()).collect();
        let whom = kill.slot.map_or_else(|| "every slot".to_owned(), |slot| format!("slot {slot}"));
        let text = format!("sent {signal} to the workers of {whom}: the operator asked for it");
        self.log.say(super::super::log::Level::Notice, &text);
        Ok(Answer::Killed(pids.iter().map(|pid| pid.as_raw()).collect()))
    }

    fn show(&self, slot: Option<u16>) -> Result<Answer, Error> {
        self.check_slot(slot)?;
        let app = self.app(slot);
        let in_force = self.launches.get(&core::Generation(app.generation));
        let settings = in_force.map(|launch| launch.settings.describe()).unwrap_or_default();
        let settings = settings.into_iter().map(|(key, value)| Setting { key, value }).collect();
        let generations = self.launches.iter().map(|(generation, launch)| Generation {
            generation: generation.0,
            directory: launch.pinned().map(|path| path.display().to_string()),
            program: launch.found.display().to_string(),
            arguments: launch.settings.command.clone(),
        });
        let ours = |failure: &&super::super::LastFailure| {
            slot.is_none_or(|slot| slot == failure.failure.slot)
        };
        let last = self.last_failure.as_ref().filter(ours);
        let tail = last.and_then(|last| last.tail.clone());
        let last_failure = last.map(|last| {
            let lines = tail.as_ref().map(Tail::lines);
            Failure {
                lines: lines.unwrap_or_else(|| last.failure.lines.clone()),
                ..last.failure.clone()
            }
        });
        let generations = generations.collect();
        let shown = Shown { app, settings, generations, last_failure };
        Ok(Answer::Shown(Box::new(shown), tail))
    }

    fn describe(&self) -> control::Primary {
        control::Primary {
            name: self.app.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            primaries: self.primaries,
            unit: self.app.unit.clone(),
            config: self.source.config.as_ref().map(|path| path.display().to_string()),
            log: self.log_place().to_owned(),
            listeners: {
                let known = self.listeners.addresses();
                let known = known.map(|(name, address)| (name.to_owned(), address));
                let opened = self.channels.opened().into_iter();
                let opened = opened.map(|address| ("asked for by workers".to_owned(), address));
                let one = |(name, address)| control::Listener { name, address };
                known.chain(opened).map(one).collect()
            },
        }
    }

    /// Where the workers' output is read.
    fn log_place(&self) -> &'static str {
        let mode = self.launches.last_key_value().map(|(_, launch)| launch.settings.log);
        match mode {
            Some(LogMode::Stream | LogMode::Direct) => "journal",
            Some(LogMode::Auto | LogMode::Inherit) | None if self.app.in_journal => "journal",
            _ => "memory",
        }
    }

    /// The state of everything, or of one slot.
    fn app(&self, only: Option<u16>) -> App {
        let view = self.core.view();
        let now = clock::now();
        let wanted = |slot: &&core::SlotView| only.is_none_or(|only| only == slot.slot.0);
        let state = app_state(&view);
        let leaving = view.leaving.iter().filter(|_| only.is_none());
        App {
            primary: self.describe(),
            state,
            status: self.core.status(),
            generation: view.generation.0,
            queued_generation: view.queued.map(|generation| generation.0),
            slots_done: view.rollout.as_ref().map(|rollout| rollout.done),
            canary: view.rollout.and_then(|rollout| rollout.canary).map(|canary| Canary {
                worker: canary.worker.0,
                percent: canary.percent,
                remaining_ms: canary.until.map(|until| ms(until.since(now))),
            }),
            ready_slots: view.ready,
            up_ms: ms(now.since(self.began)),
            balance: self.describe_balance(),
            slots: view.slots.iter().filter(wanted).map(|slot| self.slot(slot, now)).collect(),
            leaving: leaving.map(|worker| self.worker(worker, now)).collect(),
        }
    }

    fn describe_balance(&self) -> Option<control::Balance> {
        let asked = self.launches.get(&self.core.goal())?.settings.balance;
        Some(self.balance.describe(asked))
    }

    fn slot(&self, slot: &core::SlotView, now: core::Time) -> control::Slot {
        let (state, retry, reason) = match &slot.standing {
            Standing::Ready => (SlotState::Ready, None, None),
            Standing::Starting => (SlotState::Starting, None, None),
            Standing::Waiting(until) => (SlotState::Waiting, Some(ms(until.since(now))), None),
            Standing::Failed(cause) => (SlotState::Failed, None, Some(cause.to_string())),
            Standing::Stopped => (SlotState::Stopped, None, None),
        };
        let last_exit = self.exits.get(&slot.slot).map(|exit| Exit {
            worker: exit.worker.0,
            generation: exit.generation.0,
            reason: exit.reason.clone(),
            ago_ms: ms(now.since(exit.at)),
        });
        control::Slot {
            slot: slot.slot.0,
            state,
            generation: slot.generation.0,
            restarts: slot.restarts,
            failures: slot.failures,
            retry_in_ms: retry,
            reason,
            given: self.balance.given_to(slot.slot),
            last_exit,
            workers: slot.workers.iter().map(|worker| self.worker(worker, now)).collect(),
        }
    }

    fn worker(&self, worker: &WorkerView, now: core::Time) -> Worker {
        let process = self.workers.get(&worker.id);
        Worker {
            worker: worker.id.0,
            slot: worker.slot.0,
            generation: worker.generation.0,
            role: match worker.role {
                core::Role::Incumbent => Role::Incumbent,
                core::Role::Newcomer => Role::Newcomer,
                core::Role::Leaving => Role::Leaving,
            },
            state: match worker.state {
                State::Starting { .. } => WorkerState::Starting,
                State::Ready { .. } => WorkerState::Ready,
                State::Draining { .. } => WorkerState::Draining,
                State::Stopping { .. } => WorkerState::Stopping,
            },
            pid: process.filter(|p| !p.known.is_left).map(|p| p.pid().as_raw()),
            up_ms: ms(now.since(worker.started)),
            ready_after_ms: worker.ready.map(|(at, _)| ms(at.since(worker.started))),
            ready_because: worker.ready.map(|(_, evidence)| evidence.to_string()),
            status: process.and_then(|p| p.known.says.clone()),
            channel: self.channels.counters(worker.id).map(|c| control::Channel {
                taken: c.taken,
                refused: c.refused,
                heard: c.heard,
                told: c.told,
                dropped: c.dropped,
                unread: c.unread,
            }),
            lane: self.balance.tell(worker.id),
        }
    }
}

fn app_state(view: &View) -> AppState {
    match &view.rollout {
        _ if view.stopping.is_some() => AppState::Stopping,
        _ if view.paused => AppState::Paused,
        Some(rollout) if rollout.failure.is_some() => AppState::RollingBack,
        Some(_) => AppState::Reloading,
        None if view.started => AppState::Running,
        None => AppState::Starting,
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Why the core does not do what is asked, as an error of the protocol.
pub(in super::super) fn refused(refusal: Refusal) -> Error {
    if let Refusal::NoSuchSlot { slot, slots } = refusal {
        return Error::NoSuchSlot { slot: slot.0, slots };
    }
    let hint = match refusal {
        Refusal::LastSlot => Some(
            "'dogwatch pause' ends all workers and lets connections wait; systemctl stop ends the app",
        ),
        Refusal::Paused => Some("'dogwatch resume' serves again"),
        Refusal::Stopped(_) => Some("'dogwatch start' serves it again"),
        Refusal::Stopping
        | Refusal::Rolling
        | Refusal::NotPaused
        | Refusal::Starting
        | Refusal::NoSuchSlot { .. }
        | Refusal::NotRolling
        | Refusal::RollingBack
        | Refusal::NoCanary
        | Refusal::NotStopped(_) => None,
    };
    Error::Refused { reason: refusal.to_string(), hint: hint.map(str::to_owned) }
}

fn invalid(error: Invalid) -> Error {
    Error::InvalidConfiguration { reason: error.message, hint: error.hint }
}
