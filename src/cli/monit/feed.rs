//! Where news comes from: a thread for each thing that is waited for, all writing into one channel. They end with the
//! program; the ones of an app that is not looked at rest.

use super::super::apps;
use super::super::client::Client;
use super::super::trouble::{Code, Trouble};
use super::super::usage::Processes;
use super::logs;
use super::model::{Sample, Usages};
use super::state::News;
use super::wish::Wish;
use crate::protocol::control::{App, Call, Happened, Listed, Subscribe};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How often everything is looked at, and how soon a primary that is gone is looked for again.
const BEAT: Duration = Duration::from_secs(1);
/// How often apps are looked for.
const CENSUS: Duration = Duration::from_secs(2);
/// Events that come so soon after each other are one reason to look.
const TOGETHER: Duration = Duration::from_millis(50);
/// And after so many of them it is looked in any case.
const PATIENCE: u32 = 4;
/// News that nobody has read yet; then the feeds wait, and what is not read is dropped by the primary.
const UNREAD: usize = 1024;

/// All feeds.
#[derive(Debug)]
pub(super) struct Feed {
    control: Option<PathBuf>,
    news: SyncSender<News>,
    watched: BTreeMap<String, Watch>,
    /// The view has ended; whoever has started a process ends it.
    ended: Arc<AtomicBool>,
    readers: Vec<JoinHandle<()>>,
}

/// The feeds of one app.
#[derive(Debug)]
struct Watch {
    shown: Arc<AtomicBool>,
    wake: Sender<()>,
}

impl Feed {
    /// Begins, without any app.
    pub(super) fn new(control: Option<PathBuf>) -> (Self, Receiver<News>) {
        let (news, receiver) = mpsc::sync_channel(UNREAD);
        let sender = news.clone();
        thread(move || signals(&sender));
        let (watched, ended, readers) = (BTreeMap::new(), Arc::default(), vec![]);
        (Self { control, news, watched, ended, readers }, receiver)
    }

    /// Tells from now on which apps there are.
    pub(super) fn count_apps(&self) {
        let news = self.news.clone();
        thread(move || while news.send(News::Apps(census())).is_ok() && rest(CENSUS) {});
    }

    /// Watches this app, and lets the others rest.
    pub(super) fn show(&mut self, app: &str) {
        if !self.watched.contains_key(app) {
            let watch = self.watch(app);
            self.watched.insert(app.to_owned(), watch);
        }
        for (name, watch) in &self.watched {
            watch.shown.store(name == app, Ordering::Relaxed);
            let _ = watch.wake.send(());
        }
    }

    fn watch(&mut self, app: &str) -> Watch {
        let (wake, woken) = mpsc::channel();
        let shown = Arc::new(AtomicBool::new(true));
        let source = || Source {
            app: app.to_owned(),
            control: self.control.clone(),
            news: self.news.clone(),
        };
        let (samples, is_shown) = (source(), Arc::clone(&shown));
        thread(move || sample(&samples, &woken, &is_shown));
        let (events, wakes) = (source(), wake.clone());
        thread(move || follow_events(&events, &wakes));
        let (lines, ended) = (source(), Arc::clone(&self.ended));
        let reader = std::thread::Builder::new().spawn(move || logs::follow(&lines, &ended));
        self.readers.extend(reader);
        Watch { shown, wake }
    }

    /// Ends the processes that read the journal for us. `news` is not read any more.
    pub(super) fn end(&mut self, news: Receiver<News>) {
        self.ended.store(true, Ordering::Relaxed);
        drop(news);
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }

    /// Asks a primary to do something; what becomes of it is news.
    pub(super) fn ask(&self, wish: Wish) {
        let (news, control) = (self.news.clone(), self.control.clone());
        thread(move || {
            let _ = news.send(wish.ask(control.as_deref()));
        });
    }
}

/// Whose news, and where it goes.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) app: String,
    control: Option<PathBuf>,
    news: SyncSender<News>,
}

impl Source {
    /// Connects to the primary.
    pub(super) fn connect(&self) -> Result<Client, Trouble> {
        apps::find(&self.app, self.control.as_deref())
    }

    /// Tells news; breaks when nobody wants any more.
    pub(super) fn tell(&self, news: impl FnOnce(String) -> News) -> ControlFlow<()> {
        match self.news.send(news(self.app.clone())) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// Starts a thread. Where there are none left, that news is missing and the rest goes on.
fn thread(work: impl FnOnce() + Send + 'static) {
    let _ = std::thread::Builder::new().spawn(work);
}

/// Waits, and says that it goes on.
#[expect(clippy::disallowed_methods, reason = "a thread of a client that has nothing else to do")]
pub(super) fn rest(time: Duration) -> bool {
    std::thread::sleep(time);
    true
}

#[expect(clippy::disallowed_methods, reason = "a client has no other clock")]
fn now() -> Instant {
    Instant::now()
}

/// A signal to end, so that the terminal is left as it was. When that has hung up there is nothing to leave: SIGHUP ends
/// us as it ends anybody.
fn signals(news: &SyncSender<News>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return };
    let waited = runtime.block_on(async {
        signal(SignalKind::terminate())?.recv().await;
        Ok::<(), std::io::Error>(())
    });
    if waited.is_ok() {
        let _ = news.send(News::Quit);
    }
}

/// Which apps there are, with a word for how each does.
fn census() -> Vec<(String, String)> {
    let word = |name: &str, path: &Path| {
        // Nobody may listen there any more.
        let client = apps::reach(name, path).transpose()?;
        let app = client.ok().and_then(|mut client| client.ask(&Call::List, "list").ok());
        Some(app.map_or("silent".to_owned(), |Listed { app }| app.state.word().to_owned()))
    };
    let found = apps::sockets().into_iter();
    let mut apps: Vec<_> =
        found.filter_map(|(name, path)| word(&name, &path).map(|word| (name, word))).collect();
    apps.dedup_by(|a, b| a.0 == b.0);
    apps
}

/// Looks at an app each second, and when something happens in it.
fn sample(source: &Source, woken: &Receiver<()>, shown: &AtomicBool) {
    let began = now();
    let mut client = None;
    let mut measured_ms = None;
    loop {
        let asked = now();
        let mut listed = list(source, &mut client);
        // A connection that was closed may be made anew; a primary that is silent is not asked twice.
        if listed.is_err() && now().duration_since(asked) < BEAT {
            listed = list(source, &mut client);
        }
        let told = match listed {
            Ok(app) => {
                let at_ms = ms(now().duration_since(began));
                // A measurement each second; what events lead to is only asked.
                let is_due = measured_ms.is_none_or(|last| at_ms >= last + ms(BEAT) * 9 / 10);
                let measured = is_due.then(|| measure(&app));
                if is_due {
                    measured_ms = Some(at_ms);
                }
                source.tell(|name| News::Sample(name, Box::new(Sample { at_ms, app, measured })))
            }
            Err(trouble) => source.tell(|name| News::Lost(name, why_lost(trouble))),
        };
        if told.is_break() || wait(woken, shown).is_break() {
            return;
        }
    }
}

/// Asks on the connection that there is, or on a new one.
fn list(source: &Source, client: &mut Option<Client>) -> Result<App, Trouble> {
    let mut open = match client.take() {
        Some(open) => open,
        None => source.connect()?,
    };
    let Listed { app } = open.ask(&Call::List, "watch")?;
    *client = Some(open);
    Ok(app)
}

fn why_lost(trouble: Trouble) -> String {
    match trouble.code {
        Code::NotRunning => "not running, waiting for it".to_owned(),
        Code::Failed | Code::Usage | Code::NoSuchSlot => {
            format!("{}, trying again", trouble.message)
        }
    }
}

fn measure(app: &App) -> Usages {
    let processes = Processes::look();
    let primary = i32::try_from(app.primary.pid).unwrap_or(0);
    Usages { primary: processes.alone(primary), workers: processes.of(app) }
}

/// Until something happens, or a second has passed; for an app that is not shown, until it is.
fn wait(woken: &Receiver<()>, shown: &AtomicBool) -> ControlFlow<()> {
    loop {
        match woken.recv_timeout(BEAT) {
            Ok(()) => {
                let more = |_: &u32| woken.recv_timeout(TOGETHER).is_ok();
                let _ = (0..PATIENCE).take_while(more).count();
                while woken.try_recv().is_ok() {}
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
        }
        if shown.load(Ordering::Relaxed) {
            return ControlFlow::Continue(());
        }
        if woken.recv().is_err() {
            return ControlFlow::Break(());
        }
    }
}

/// Wakes who looks at the app when something happens in it; so does the end of the connection.
fn follow_events(source: &Source, wake: &Sender<()>) {
    loop {
        if let Ok(mut client) = source.connect() {
            let mut is_over = false;
            // What happened is told by the log; here it is the moment to look.
            let _ =
                client.follow(&Call::Subscribe(Subscribe::default()), "watch", |_: Happened| {
                    is_over = wake.send(()).is_err();
                    if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
            if is_over || wake.send(()).is_err() {
                return;
            }
        }
        rest(BEAT);
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
