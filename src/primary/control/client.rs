//! One client of the control socket: read a call, ask the loop, write the answer. Every wait has an end: a client that
//! says nothing is sent away, and so is one that does not read what it asked for.

use super::super::tail::Tail;
use super::event::{Receiver, lost};
use super::{Answer, Question, Rights};
use crate::protocol::control::{
    AppState, Call, DESCRIPTION, Described, Error, Event, Failure, Happened, INTERFACE, Info,
    Killed, Logged, MAX_CALL, Message, Reloading, Restarted, SERVICE, SERVICE_DESCRIPTION, Scaled,
    Sent, parse,
};
use crate::sys::varlink::{Reading, Writing, connection};
use serde::Serialize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::timeout;
use zlink_core::Reply;
use zlink_core::connection::ReadConnection;
use zlink_core::connection::socket::WriteHalf as _;

/// A client that asks nothing for this long is sent away.
const SILENT: Duration = Duration::from_secs(30);
/// A client that does not take an answer for this long is sent away.
const STUCK: Duration = Duration::from_secs(10);

/// The last words of a worker that is gone are waited for so long.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// And so long where somebody only looks.
const A_MOMENT: Duration = Duration::from_millis(100);

/// The connection is of no use any more.
#[derive(Debug)]
struct Over;

type Received = zlink_core::Call<Message>;

/// Serves a client until it leaves or is sent away.
pub(super) async fn serve(stream: UnixStream, rights: Rights, questions: &mpsc::Sender<Question>) {
    let (read, write) = connection(stream, MAX_CALL).split();
    let write = write.into_write_half();
    let mut client = Client { read, write, rights, questions, next: None };
    while let Some(call) = client.next_call().await {
        // Who may do nothing is told so, once.
        if client.answer(call).await.is_err() || rights == Rights::Nothing {
            return;
        }
    }
}

struct Client<'a> {
    read: ReadConnection<Reading>,
    write: Writing,
    rights: Rights,
    questions: &'a mpsc::Sender<Question>,
    /// A call that came while another was being answered.
    next: Option<Received>,
}

impl Client<'_> {
    async fn next_call(&mut self) -> Option<Received> {
        if self.next.is_some() {
            return self.next.take();
        }
        timeout(SILENT, self.read.receive_call()).await.ok()?.ok().map(|(call, _)| call)
    }

    async fn answer(&mut self, received: Received) -> Result<(), Over> {
        let (more, oneway) = (received.more(), received.oneway());
        let call = match parse(received.method().clone()) {
            Ok(call) => call,
            Err(error) => return self.error(error, oneway).await,
        };
        if oneway && matches!(call, Call::GetInfo | Call::GetInterfaceDescription(_)) {
            return Ok(());
        }
        if let Call::GetInfo = call {
            return self.info().await;
        }
        if let Call::GetInterfaceDescription(which) = call {
            return self.describe(&which.interface).await;
        }
        let may = match self.rights {
            Rights::All => true,
            Rights::Look => call.only_looks(),
            Rights::Nothing => false,
        };
        if !may {
            return self.error(Error::PermissionDenied {}, oneway).await;
        }
        if !more && matches!(call, Call::Subscribe(_) | Call::Logs(_)) {
            return self.error(Error::ExpectedMore {}, oneway).await;
        }
        let waits = !matches!(&call, Call::Reload(reload) if reload.no_wait == Some(true));
        let follows = matches!(&call, Call::Logs(logs) if logs.follow == Some(true));
        let slot = if let Call::Logs(logs) = &call { logs.slot } else { None };
        let answered = self.ask(call).await?;
        if oneway {
            return Ok(());
        }
        match answered {
            Err(error) => self.error(error, false).await,
            Ok(Answer::Done) => self.reply(Some(Empty {})).await,
            Ok(Answer::Primary(primary)) => self.reply(Some(*primary)).await,
            Ok(Answer::Listed(listed)) => self.reply(Some(*listed)).await,
            Ok(Answer::Shown(mut shown, tail)) => {
                last_words(&mut shown.last_failure, tail, A_MOMENT).await;
                self.reply(Some(*shown)).await
            }
            Ok(Answer::Changes(changes)) => {
                self.reply(Some(Reloading { changes: Some(changes), ..Reloading::default() })).await
            }
            Ok(Answer::Restarted(slots)) => self.reply(Some(Restarted { slots })).await,
            Ok(Answer::Scaled { from, to }) => self.reply(Some(Scaled { from, to })).await,
            Ok(Answer::Upgrading(upgraded)) => self.reply(Some(upgraded)).await,
            Ok(Answer::Killed(pids)) => self.reply(Some(Killed { pids })).await,
            Ok(Answer::Reloading { generation, .. }) if !waits => {
                let generation = Some(generation);
                self.reply(Some(Reloading { generation, ..Reloading::default() })).await
            }
            Ok(Answer::Reloading { generation, events }) => {
                self.follow_reload(generation, events, more).await
            }
            Ok(Answer::Events(events, messages)) => self.follow_events(events, messages).await,
            Ok(Answer::Sent(sent, _)) if !more => self.reply(Some(sent)).await,
            Ok(Answer::Sent(sent, messages)) => self.follow_answers(sent, messages).await,
            Ok(Answer::Lines { last, live }) => {
                self.tell_lines(last, follows.then_some(live), slot).await
            }
        }
    }

    /// Asks the loop. It always answers, or is about to end.
    async fn ask(&self, call: Call) -> Result<Result<Answer, Error>, Over> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question { call, answer }).await.map_err(|_| Over)?;
        answered.await.map_err(|_| Over)
    }

    async fn info(&mut self) -> Result<(), Over> {
        self.reply(Some(Info {
            vendor: "dogwatch".to_owned(),
            product: "dogwatch".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            url: String::new(),
            interfaces: vec![SERVICE.to_owned(), INTERFACE.to_owned()],
        }))
        .await
    }

    async fn describe(&mut self, interface: &str) -> Result<(), Over> {
        let description = match interface {
            INTERFACE => DESCRIPTION.to_owned(),
            SERVICE => SERVICE_DESCRIPTION.to_owned(),
            other => {
                let interface = other.to_owned();
                return self.error(Error::InterfaceNotFound { interface }, false).await;
            }
        };
        self.reply(Some(Described { description })).await
    }

    /// Tells what happens until the verdict, which is the last answer.
    async fn follow_reload(
        &mut self,
        generation: u32,
        mut events: Receiver,
        more: bool,
    ) -> Result<(), Over> {
        loop {
            let event = self.happens(&mut events).await?;
            let ours = event.generation == Some(generation);
            match event.kind.as_str() {
                "reloaded" if ours => {
                    let text = Some(event.text.clone());
                    let generation = Some(generation);
                    let verdict = Reloading { generation, text, ..Reloading::default() };
                    return self.reply(Some(verdict)).await;
                }
                "rolled_back" if ours => {
                    let failure = self.failure_of(generation).await?;
                    let text = event.text.clone();
                    return self
                        .error(Error::RolledBack { text, generation, failure }, false)
                        .await;
                }
                "queued" if event.instead_of == Some(generation) => {
                    let generation = event.generation.unwrap_or_default();
                    return self.error(Error::Superseded { generation }, false).await;
                }
                "stopping" => {
                    let reason = "everything is being stopped".to_owned();
                    return self.error(Error::Refused { reason, hint: None }, false).await;
                }
                "lost" => {
                    if let Some(verdict) = self.missed(generation).await? {
                        return verdict;
                    }
                }
                _ if more => {
                    let event = Some(Event::clone(&event));
                    self.continues(Reloading { event, ..Reloading::default() }).await?;
                }
                _ => {}
            }
        }
    }

    /// Events were lost, and the verdict may have been among them: tells it, if the reload has ended.
    async fn missed(&mut self, generation: u32) -> Result<Option<Result<(), Over>>, Over> {
        let Ok(Answer::Listed(listed)) = self.ask(Call::List).await? else {
            return Err(Over);
        };
        let app = listed.app;
        let is_rolling = matches!(app.state, AppState::Reloading | AppState::RollingBack);
        if is_rolling || app.queued_generation.is_some() {
            return Ok(None);
        }
        let verdict = if app.generation == generation {
            let text = Some(format!("reload done: {}", app.status));
            let generation = Some(generation);
            self.reply(Some(Reloading { generation, text, ..Reloading::default() })).await
        } else {
            let failure = self.failure_of(generation).await?;
            let text = format!("reload failed: {}", app.status);
            self.error(Error::RolledBack { text, generation, failure }, false).await
        };
        Ok(Some(verdict))
    }

    /// Returns what the loop knows of the failure that undid a rollout.
    async fn failure_of(&self, generation: u32) -> Result<Option<Box<Failure>>, Over> {
        let Ok(Ok(Answer::Shown(shown, tail))) = self.ask(Call::Show(Default::default())).await
        else {
            return Ok(None);
        };
        let mut failure = shown.last_failure.filter(|f| f.generation == generation);
        last_words(&mut failure, tail, LAST_WORDS).await;
        Ok(failure.map(Box::new))
    }

    async fn follow_events(
        &mut self,
        mut events: Receiver,
        mut messages: Option<Receiver>,
    ) -> Result<(), Over> {
        // The first answer says that from here on nothing is missed.
        self.continues(Happened::default()).await?;
        loop {
            let event = self
                .or_over(async || {
                    tokio::select! {
                        biased;
                        event = next(&mut events) => event,
                        message = next_of(&mut messages) => message,
                    }
                })
                .await?;
            self.continues(Happened { event: Some(Event::clone(&event)) }).await?;
        }
    }

    /// Tells what the workers send to which a message was sent, until the client has enough.
    async fn follow_answers(&mut self, sent: Sent, mut messages: Receiver) -> Result<(), Over> {
        let workers = sent.workers.clone().unwrap_or_default();
        self.continues(sent).await?;
        loop {
            let event = self.happens(&mut messages).await?;
            if event.worker.is_none_or(|worker| workers.contains(&worker)) {
                let event = Some(Event::clone(&event));
                self.continues(Sent { event, ..Sent::default() }).await?;
            }
        }
    }

    async fn tell_lines(
        &mut self,
        last: Vec<Arc<Logged>>,
        live: Option<broadcast::Receiver<Arc<Logged>>>,
        slot: Option<u16>,
    ) -> Result<(), Over> {
        for entry in last {
            self.continues(&*entry).await?;
        }
        let Some(mut live) = live else {
            return self.reply(Some(Logged::default())).await;
        };
        self.continues(Logged::default()).await?;
        loop {
            let entry = self.or_over(async || match live.recv().await {
                Ok(entry) => Ok(entry),
                Err(RecvError::Lagged(count)) => {
                    Ok(Arc::new(Logged { line: None, event: Some(lost(count)) }))
                }
                Err(RecvError::Closed) => Err(Over),
            });
            let entry = entry.await?;
            // Some events are for everybody.
            let kind = entry.event.as_ref().map(|event| event.kind.as_str());
            let is_for_all = matches!(kind, Some("lost" | "stopping"));
            if is_for_all || slot.is_none_or(|slot| entry.slot() == Some(slot)) {
                self.continues(&*entry).await?;
            }
        }
    }

    /// Waits for what happens next; for a subscriber that was too slow, that is how much it missed.
    async fn happens(&mut self, events: &mut Receiver) -> Result<Arc<Event>, Over> {
        self.or_over(async || next(events).await).await
    }

    /// Waits for something, unless the client leaves meanwhile. One call that comes meanwhile is kept for later.
    async fn or_over<T>(&mut self, wait: impl AsyncFnOnce() -> Result<T, Over>) -> Result<T, Over> {
        let (read, next) = (&mut self.read, &mut self.next);
        let leaves = async {
            while next.is_none() {
                match read.receive_call().await {
                    Ok((call, _)) => *next = Some(call),
                    Err(_) => return,
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = wait() => result,
            () = leaves => Err(Over),
        }
    }

    async fn reply<T: Serialize>(&mut self, value: Option<T>) -> Result<(), Over> {
        self.send(&Reply::new(value)).await
    }

    async fn continues<T: Serialize>(&mut self, value: T) -> Result<(), Over> {
        self.send(&Reply::new(Some(value)).set_continues(Some(true))).await
    }

    /// Writes a message. zlink's own writing half serializes again and again into a buffer that grows by 256 bytes: for
    /// the state of a thousand workers that takes a tenth of a second, in which nobody else has a turn.
    async fn send(&mut self, message: &impl Serialize) -> Result<(), Over> {
        let mut bytes = serde_json::to_vec(message).map_err(|_| Over)?;
        bytes.push(0);
        let sent = timeout(STUCK, self.write.write(&bytes, &[] as &[OwnedFd], None)).await;
        sent.map_err(|_| Over)?.map_err(|_| Over)
    }

    async fn error(&mut self, error: Error, oneway: bool) -> Result<(), Over> {
        if oneway {
            return Ok(());
        }
        self.send(&error).await
    }
}

/// Waits for what happens next; for a subscriber that was too slow, that is how much it missed.
async fn next(events: &mut Receiver) -> Result<Arc<Event>, Over> {
    match events.recv().await {
        Ok(event) => Ok(event),
        Err(RecvError::Lagged(count)) => Ok(Arc::new(lost(count))),
        Err(RecvError::Closed) => Err(Over),
    }
}

/// The same where there may be nothing to wait for.
async fn next_of(events: &mut Option<Receiver>) -> Result<Arc<Event>, Over> {
    match events {
        Some(events) => next(events).await,
        None => std::future::pending().await,
    }
}

/// A worker that is gone may have last words that are still on their way; what it left behind may never end.
async fn last_words(failure: &mut Option<Failure>, tail: Option<Tail>, patience: Duration) {
    if let (Some(failure), Some(tail)) = (failure, tail) {
        let _ = timeout(patience, tail.ended()).await;
        failure.lines = tail.lines();
    }
}

/// An answer without parameters.
#[derive(Debug, Serialize)]
struct Empty {}
