//! The shell around the core: the only place that knows core and sys. One thread, one loop: wait for something to
//! happen, tell the core, do what it asks, tell systemd.
//!
//! Nothing here decides about workers, and nothing here waits for one of them.

mod app;
mod balance;
mod carry;
mod channel;
mod clock;
mod console;
mod control;
mod disk;
mod drain;
mod listeners;
mod log;
mod news;
mod notify;
mod output;
mod perform;
mod ready;
mod runtime_dir;
mod signals;
mod source;
mod systemd;
mod tail;
mod worker;

pub use app::refuse_name;
pub use carry::upgrade::trial;
pub use disk::{Disk, read_config};
pub use source::Source;
pub use systemd::{needed, unit};

use crate::config::Settings;
use crate::core::{Event, Generation, Outcome, Scale, Slot, Supervisor, Time, WorkerId};
use crate::protocol::control::{Error as Answered, Failure};
use crate::protocol::store::{Name, Part};
use crate::sys::cgroup::Delegated;
use app::App;
use balance::{Balance, Beginning};
use carry::keeper::Keeper;
use carry::upgrade::Upgrade;
use carry::{Notebook, Passed, Past};
use channel::Channels;
use control::{Control, Events, Question};
use drain::Pace;
use listeners::{Listeners, Obtained};
use log::{Level, Log};
use news::News;
use serde::{Deserialize, Serialize};
use signals::{Asked, Signals};
use source::Launch;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::time::Duration;
use systemd::Manager;
use tail::Tail;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use worker::Process;

/// Why the primary did not start: one line, and at most one hint.
pub type Refusal = crate::config::Error;

/// Tasks that move the workers' output; each tells which pipe has ended.
type Outputs = JoinSet<Name>;

/// What a worker is started among: the rest of the primary can be used beside it.
macro_rules! ground {
    ($primary:expr) => {
        crate::primary::worker::Ground {
            app: &$primary.app,
            listeners: &$primary.listeners,
            channels: &$primary.channels,
            groups: $primary.groups.as_ref(),
            balance: &$primary.balance,
            news: &$primary.news,
            outputs: &mut $primary.outputs,
            manager: &mut $primary.manager,
        }
    };
}
use ground;

/// News wait here when the loop is busy; a worker that says more waits too.
const NEWS_WAITING: usize = 256;

/// How long output that is still in the pipes is waited for at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Clients that ask nothing for this long at the end have what they wanted.
const QUIET: Duration = Duration::from_millis(50);
/// How often leftovers that are nobody's event are looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

struct Primary {
    app: App,
    log: Log,
    manager: Manager,
    source: Source,
    core: Supervisor,
    launches: BTreeMap<Generation, Launch>,
    listeners: Listeners,
    channels: Channels,
    balance: Balance,
    /// Of looks at the connections of workers that drain.
    pace: Pace,
    /// What was said of it, each thing once.
    said: BTreeSet<String>,
    workers: BTreeMap<WorkerId, Process>,
    /// The tasks that move the workers' output; each ends when nobody can write any more.
    outputs: Outputs,
    /// What the unit's control group lets us do, if anything.
    groups: Option<Delegated>,
    /// Where everything is written down that the next primary is to know.
    notebook: Option<Notebook>,
    keeper: Option<Keeper>,
    /// How many primaries this app has had, this one included.
    primaries: u32,
    /// What was known of the channels cannot be read.
    channels_are_lost: bool,
    /// So many things have happened since the state was written down.
    unkept: usize,
    /// Not all that the workers had came back: they are to be relieved.
    wants_relief: bool,
    upgrade: Upgrade,
    /// What performing an action led to; handled before anything new.
    pending: VecDeque<Event>,
    news: mpsc::Sender<News>,
    asked_to_stop: bool,
    /// The generation for which it was said what to do about a worker that is never ready.
    hinted: Option<Generation>,
    outcome: Option<Outcome>,
    began: Time,
    /// The control socket, if this primary has it.
    control: Option<Control>,
    events: Events,
    last_failure: Option<LastFailure>,
    /// How the last worker ended that left a slot.
    exits: BTreeMap<Slot, LastExit>,
}

/// A worker that failed, with the end of its output if it was a process.
#[derive(Debug)]
struct LastFailure {
    failure: Failure,
    tail: Option<Tail>,
}

impl LastFailure {
    /// Its process has ended: what it had written by now is what the next primary will know.
    fn settle_lines(&mut self) {
        if let Some(tail) = &self.tail {
            self.failure.lines = tail.lines();
        }
    }
}

/// How a worker ended.
#[derive(Debug, Serialize, Deserialize)]
struct LastExit {
    worker: WorkerId,
    generation: Generation,
    reason: String,
    at: Time,
}

/// What reaches the loop: from the tasks that listen to workers, and from the clients of the control socket.
struct Inbox {
    news: mpsc::Receiver<News>,
    questions: mpsc::Receiver<Question>,
}

/// Runs an app until it is stopped, and returns how that ended.
///
/// # Errors
/// When it cannot be started as configured.
pub fn run(name: &str, source: Source) -> Result<Outcome, Refusal> {
    // Before anything else: a signal must find its handler, and READY=1 must mean that SIGHUP reloads.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| refusal(format!("cannot begin: {e}")))?;
    runtime.block_on(async {
        let mut signals =
            Signals::catch().map_err(|e| refusal(format!("cannot catch signals: {e}")))?;
        // The primary before this one blocked them when it executed us.
        crate::sys::process::unblock_signals();
        let (primary, mut inbox) = Primary::start(name, source)?;
        Ok(primary.run(&mut signals, &mut inbox).await)
    })
}

/// The listeners, as they are.
fn take_listeners(name: &str, launch: &Launch, passed: &mut Passed) -> Result<Obtained, Refusal> {
    let (given, carried) = (std::mem::take(&mut passed.listeners), passed.take_listeners());
    Listeners::obtain(&launch.settings, given, carried).map_err(|message| {
        let hint = message.starts_with("no listener").then(|| {
            format!(
                "name an address with '-l 8080' or 'listen = [\"8080\"]', or start '{name}.socket'"
            )
        });
        Refusal { message, hint }
    })
}

fn refusal(message: String) -> Refusal {
    Refusal { message, hint: None }
}

impl Primary {
    fn start(name: &str, source: Source) -> Result<(Self, Inbox), Refusal> {
        // Before anything is looked at: there may be more than the soft limit lets us copy.
        let open_files = crate::sys::process::raise_open_files();
        let mut passed = Passed::take().map_err(refusal)?;
        let mut past = Past::read(&mut passed);
        let launches = past.settings(&source)?;
        let core = carry::supervisor(&past, &launches);
        let Some(launch) = launches.get(&core.goal()) else {
            return Err(refusal("cannot begin: the state has no settings".to_owned()));
        };
        let Obtained { mut listeners, mended } = take_listeners(name, launch, &mut passed)?;
        let (settings, is_first) = (&launch.settings, matches!(past, Past::None));
        let Beginning { balance, said } =
            balance::begin(settings, &mut listeners, &mut passed.carried, is_first);
        // What it was given for; workers have no use for it, and it is not theirs.
        let _ = crate::sys::capability::give_back(crate::sys::capability::BPF);
        check_ready_fd(launch, &listeners)?;
        let mut app = App::new(name, &source)?;
        let log = Log::new(name, app.in_journal);
        app.note_limits(open_files, &log);
        let how = if listeners.adopted { "adopted" } else { "listening on" };
        log.say(Level::Info, &format!("{how} {}", listeners.describe()));
        if let (Past::None, Some(notice)) = (&past, launch.notice()) {
            log.say(Level::Info, &notice);
        }
        let mut manager = Manager::from_env();
        let groups = carry::enter_group(&app, &log);
        carry::refuse(&log, &mut passed, &mut manager);
        let (keeper, connections) = carry::change_keepers(&app, launch, &mut passed, &mut manager);
        let events = Events::new((!app.in_journal).then(|| app.recent.clone()));
        let (control, questions) = open_control(&app, &log, launch);
        let (sender, news) = mpsc::channel(NEWS_WAITING);
        let channels = Channels::new(&listeners, sender.clone())
            .map_err(|e| refusal(format!("cannot look at the listeners: {e}")))?;
        let now = clock::now();
        let mut primary = Self {
            app,
            log,
            manager,
            source,
            core,
            launches,
            listeners,
            channels,
            balance,
            pace: Pace::default(),
            said: BTreeSet::new(),
            workers: BTreeMap::new(),
            outputs: JoinSet::new(),
            groups,
            notebook: None,
            keeper: None,
            primaries: 1,
            channels_are_lost: false,
            unkept: 0,
            wants_relief: false,
            upgrade: Upgrade::default(),
            pending: VecDeque::new(),
            news: sender,
            asked_to_stop: false,
            hinted: None,
            outcome: None,
            began: now,
            control,
            events,
            last_failure: None,
            exits: BTreeMap::new(),
        };
        primary.note_keeper(keeper);
        primary.go_on(past, passed, connections);
        primary.say_mended(&mended);
        primary.say_steering(said);
        primary.balance.watch();
        Ok((primary, Inbox { news, questions }))
    }

    async fn run(mut self, signals: &mut Signals, inbox: &mut Inbox) -> Outcome {
        let mut watchdog = systemd::heartbeat_interval().map(|interval| {
            let mut timer = tokio::time::interval(interval);
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            timer
        });
        self.settle();
        loop {
            if self.wants_relief && !self.core.is_rolling() {
                self.wants_relief = false;
                if self.reload().is_err() {
                    let text = "those that lost something stay as they are until a reload succeeds";
                    self.log.say(Level::Warning, text);
                }
            }
            if let Some(outcome) = self.outcome {
                self.finish(&mut inbox.questions).await;
                return outcome;
            }
            if self.upgrade.is_due() {
                self.execute(signals, inbox).await;
            }
            let leftovers = self.has_leftovers();
            if leftovers {
                self.sweep();
            }
            // Not for each of many things that have happened at once.
            if inbox.news.is_empty() || self.unkept > NEWS_WAITING {
                self.keep();
            }
            let due = self.core.poll_timeout();
            // In this order: whatever else goes on, systemd learns that we live.
            let mut turn = tokio::select! {
                biased;
                () = tick(&mut watchdog) => Turn::Heartbeat,
                () = self.manager.writable() => Turn::Flush,
                asked = signals.next() => Turn::Asked(asked),
                Some(news) = inbox.news.recv() => Turn::News(news),
                Some(ended) = self.outputs.join_next() => Turn::Silent(ended.ok()),
                () = now_and_then(leftovers) => Turn::Look,
                () = clock::sleep_until(due) => Turn::Tick,
                Some(question) = inbox.questions.recv() => Turn::Answer(question),
            };
            if due.is_some_and(|due| due <= clock::now()) {
                turn = self.catch_up(turn, &mut inbox.news).await;
            }
            match turn {
                Turn::Heartbeat => self.manager.heartbeat(),
                Turn::Flush => self.manager.flush(),
                Turn::Asked(asked) => self.on_signal(asked),
                Turn::News(news) => {
                    self.on_all(news, &mut inbox.news);
                    // A worker that never stops talking must not keep the operator waiting.
                    if let Ok(question) = inbox.questions.try_recv() {
                        self.answer(question);
                    }
                }
                Turn::Tick => self.handle(Event::Tick),
                Turn::Answer(question) => self.answer(question),
                Turn::Silent(name) => {
                    name.iter().for_each(|name| self.fell_silent(name));
                }
                Turn::Look => {}
            }
        }
    }

    /// Everybody is gone: their last words, and the last message to systemd, still find their way.
    async fn finish(&mut self, questions: &mut mpsc::Receiver<Question>) {
        let last_words = async { while self.outputs.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
        // Who waits for a verdict has one by now, and asks for the reason.
        let answers = async {
            while let Ok(Some(question)) = tokio::time::timeout(QUIET, questions.recv()).await {
                self.answer(question);
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, answers).await;
        // Its file goes before its folder.
        self.control = None;
        self.manager.drop_all_stored();
        if let Some(keeper) = self.keeper.take() {
            keeper.dismiss();
        }
        let _ = tokio::time::timeout(LAST_WORDS, self.manager.flushed()).await;
        self.listeners.remove_own_files();
        self.channels.remove_own_files();
        runtime_dir::remove(&self.app.folder);
    }

    fn on_signal(&mut self, asked: Asked) {
        match asked {
            Asked::Reap => self.reap(),
            Asked::Stop if self.asked_to_stop => self.handle(Event::Hurry),
            Asked::Stop => {
                self.asked_to_stop = true;
                self.handle(Event::Stop);
                self.hurry_drains();
            }
            // The terminal was closed: nobody asked for a reload, and nobody is there to stop us later.
            Asked::Reload if self.app.on_terminal && log::is_hung_up(&io::stdout()) => {
                self.on_signal(Asked::Stop);
            }
            Asked::Reload => drop(self.reload()),
            Asked::Upgrade => self.begin_upgrade(None),
            Asked::More => self.handle(Event::Scale(Scale::By(1))),
            Asked::Fewer => self.handle(Event::Scale(Scale::By(-1))),
        }
    }

    /// Nobody will write to this pipe any more. A worker that lives has closed it.
    fn fell_silent(&mut self, name: &Name) {
        self.manager.drop_stored(name);
        if let Name::Worker { worker, part: Part::Output, .. } = name
            && let Some(process) = self.workers.get_mut(&WorkerId(*worker))
        {
            process.known.is_mute = true;
            self.unkept += 1;
        }
    }

    /// Reads everything again.
    fn load(&self) -> Result<Launch, Refusal> {
        let launch = self.source.load()?;
        check_ready_fd(&launch, &self.listeners)?;
        Ok(launch)
    }

    /// Reads everything again and asks for a rollout; what is wrong is said and changes nothing. Returns the new
    /// generation.
    fn reload(&mut self) -> Result<Generation, Answered> {
        self.manager.reloading();
        let mut launch = match self.load() {
            Ok(launch) => launch,
            Err(error) => {
                self.refuse_reload(&error.to_string(), error.hint.as_deref());
                let (reason, hint) = (error.message, error.hint);
                return Err(Answered::InvalidConfiguration { reason, hint });
            }
        };
        self.keep_what_takes_a_restart(&mut launch.settings);
        let event = Event::Reload { policy: launch.settings.policy.clone() };
        if let Some(refusal) = self.core.refusal(&event) {
            self.refuse_reload(&refusal.to_string(), None);
            return Err(control::refused(refusal));
        }
        let generation = self.core.next_generation();
        if let Some(control) = &self.control {
            control.admit(launch.readers.clone());
        }
        if let Some(notice) = launch.notice() {
            self.log.say(Level::Info, &notice);
        }
        self.launches.insert(generation, launch);
        self.handle(event);
        Ok(generation)
    }

    /// Sockets are made once: what they are made by stays in force, and that is what those see who ask.
    fn keep_what_takes_a_restart(&self, settings: &mut Settings) {
        let Some((_, before)) = self.launches.last_key_value() else { return };
        let before = &before.settings;
        let warn = |text: &str| {
            self.log.say(Level::Warning, text);
            self.events.tell("warning", text);
        };
        if settings.listen != before.listen {
            if !self.listeners.adopted {
                warn(
                    "the listen addresses have changed, which takes a restart of the app; going on with the old ones",
                );
            }
            settings.listen.clone_from(&before.listen);
        }
        if settings.balance.is_steered() != before.balance.is_steered() {
            warn(&format!(
                "balance has changed to '{}', which takes a stop and start of the app and its socket; going on with '{}'",
                settings.balance, before.balance
            ));
            settings.balance = before.balance;
            // What has another default, or no meaning, with the other.
            (settings.stop_when, settings.close_idle) = (before.stop_when, before.close_idle);
            if !before.balance.is_steered() {
                (settings.policy.canary, settings.policy.canary_time) = (None, None);
            }
        }
        if settings.blocking != before.blocking {
            warn(&format!(
                "blocking has changed to {}, which takes a restart of the app: living workers share the sockets; going on with {}",
                settings.blocking, before.blocking
            ));
            settings.blocking = before.blocking;
        }
    }

    fn refuse_reload(&mut self, reason: &str, hint: Option<&str>) {
        let text = format!("reload refused: {reason}; everything goes on as it was");
        self.log.entry(Level::Error, Some(log::REFUSED), &text, &[]);
        if let Some(hint) = hint {
            self.log.say(Level::Notice, &format!("hint: {hint}"));
        }
        self.events.tell("refused", &text);
        self.manager.status(format!("reload refused: {reason}"));
        if !self.core.is_rolling() {
            self.manager.reloaded();
        }
    }
}

/// Opens the control socket. A primary that cannot have it serves all the same.
fn open_control(
    app: &App,
    log: &Log,
    launch: &Launch,
) -> (Option<Control>, mpsc::Receiver<Question>) {
    match Control::open(app, launch.readers.clone()) {
        Ok((control, questions)) => (Some(control), questions),
        Err(e) => {
            let path = app.folder.join("control");
            let taken = e.kind() == io::ErrorKind::AddrInUse;
            let why = if taken {
                "another primary of this name has it".to_owned()
            } else {
                e.to_string()
            };
            let text = format!(
                "cannot open control socket '{}': {why}; serving without it",
                path.display()
            );
            log.say(Level::Warning, &text);
            if taken {
                log.say(Level::Notice, "hint: give each app a name of its own with '--name'");
            }
            (None, mpsc::channel(1).1)
        }
    }
}

fn check_ready_fd(launch: &Launch, listeners: &Listeners) -> Result<(), Refusal> {
    let first_free = worker::first_free_fd(launch, listeners);
    match launch.settings.ready_fd {
        Some(fd) if worker::is_taken(fd, launch, listeners) => Err(refusal(format!(
            "'ready.fd': {fd} is taken by a socket, expected a number from {first_free} up"
        ))),
        _ => Ok(()),
    }
}

/// Wakes the loop after a while, if there is something to look at then.
async fn now_and_then(wanted: bool) {
    if wanted {
        tokio::time::sleep(LOOK_AGAIN).await;
    } else {
        std::future::pending::<()>().await;
    }
}

async fn tick(timer: &mut Option<tokio::time::Interval>) {
    match timer {
        Some(timer) => {
            timer.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Why the loop has woken.
#[derive(Debug)]
enum Turn {
    Heartbeat,
    Flush,
    Asked(Asked),
    News(News),
    Tick,
    Answer(Question),
    /// A pipe has ended.
    Silent(Option<Name>),
    Look,
}
