//! One worker as the shell sees it: a process, its sockets and pipes, and the tasks that listen to them.

use super::channel::{Channels, Terms};
use super::console::Console;
use super::listeners::Listeners;
use super::notify;
use super::output;
use super::ready::{self, Watch};
use super::runtime_dir;
use super::source::{Cannot, Launch};
use super::tail::Tail;
use super::{App, News};
use crate::config::values::{Handoff, LogMode, ReadyWhen};
use crate::core::{Generation, Slot, WorkerId};
use crate::protocol::environment::{self, PID_PLACEHOLDER, Sockets};
use crate::sys::process;
use crate::sys::spawn::{self, Program};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

/// What holds a worker that was started.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    /// The end of its output.
    pub(super) tail: Tail,
    /// Its last `STATUS=`.
    pub(super) says: Option<String>,
    /// The program that was executed, for messages.
    program: PathBuf,
    /// Its main process has ended, but not all that it started.
    pub(super) is_left: bool,
    /// Says what went wrong before exec, once the process has ended.
    failure: Option<OwnedFd>,
    notify_socket: PathBuf,
    /// Listens to the notify socket.
    ears: AbortHandle,
    /// Looks for evidence of readiness.
    eyes: AbortHandle,
    /// Moves its channel.
    channel: Option<AbortHandle>,
    /// The readiness pipe's read end, as long as the worker lives: a late line must not raise SIGPIPE.
    _ready_pipe: Option<OwnedFd>,
}

/// Why a worker could not be started.
#[derive(Debug)]
pub(super) struct NotStarted {
    pub(super) reason: String,
    /// The machine lacks something just now.
    pub(super) is_transient: bool,
}

impl NotStarted {
    fn doing(what: &str) -> impl FnOnce(io::Error) -> Self + use<> {
        let what = what.to_owned();
        move |e| Self { is_transient: process::is_transient(&e), reason: format!("{what}: {e}") }
    }
}

impl From<Cannot> for NotStarted {
    fn from(cannot: Cannot) -> Self {
        Self { reason: cannot.error.message, is_transient: cannot.is_transient }
    }
}

/// Who is to be started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) worker: WorkerId,
    pub(super) slot: Slot,
    pub(super) generation: Generation,
}

/// Starts a worker.
///
/// # Errors
/// Names what was being done and the system's reason. What fails in the child is told when it has ended.
pub(super) fn start(
    app: &App,
    who: Identity,
    launch: &Launch,
    listeners: &Listeners,
    channels: &Channels,
    news: &mpsc::Sender<News>,
    outputs: &mut JoinSet<()>,
) -> Result<Process, NotStarted> {
    let settings = &launch.settings;
    let configured = launch.environment(who.slot)?;
    let path = launch.program(&configured)?;
    let directory = launch.directory();
    let notify_socket = runtime_dir::notify_socket(&app.folder, who.worker.0);
    let socket =
        notify::open(&notify_socket).map_err(NotStarted::doing("making a notify socket"))?;
    let remove_socket = RemoveFile(&notify_socket);
    let ready_fd = ready_fd(launch, listeners);
    let ready =
        ready_fd.map(|_| output::pipe()).transpose().map_err(NotStarted::doing("making a pipe"))?;
    let ready_pipe = ready.as_ref().map(|(read, _)| read.try_clone()).transpose();
    let ready_pipe = ready_pipe.map_err(NotStarted::doing("making a pipe"))?;
    let out =
        Output::open(app, settings.log, who).map_err(NotStarted::doing("opening its output"))?;
    let terms = Terms { balance: settings.balance, ready: settings.ready_when };
    let channel = match settings.handoff {
        Handoff::Fd => None,
        Handoff::Node => {
            Some(channels.open(who, terms).map_err(NotStarted::doing("making a channel"))?)
        }
    };
    let null = File::open("/dev/null").map_err(NotStarted::doing("opening /dev/null"))?;

    let told = environment::Worker {
        app: &app.name,
        slot: who.slot.0,
        generation: who.generation.0,
        worker: who.worker.0,
        sockets: match channel {
            None => Sockets::Passed(listeners.names()),
            Some(_) => Sockets::Channel(CHANNEL),
        },
        notify_socket: &notify_socket.to_string_lossy(),
        heartbeat: settings.policy.heartbeat,
        ready_fd,
    };
    let environment = environment::build(spawn::environment(), &configured, &told);
    let (stdout, stderr) = out.for_worker();
    let mut descriptors = vec![Some(null.as_fd()), Some(stdout), Some(stderr)];
    match &channel {
        None => descriptors.extend(listeners.all.iter().map(|listener| Some(listener.fd.as_fd()))),
        Some((theirs, _)) => place(&mut descriptors, CHANNEL, theirs.as_fd()),
    }
    if let (Some(number), Some((_, write))) = (ready_fd, &ready) {
        place(&mut descriptors, number, write.as_fd());
    }
    let child = spawn::spawn(Program {
        path: &path,
        arguments: launch.command(),
        environment,
        pid_placeholder: PID_PLACEHOLDER,
        directory: directory.as_deref(),
        descriptors,
        open_files: app.open_files,
    })
    .map_err(NotStarted::doing("making a process"))?;

    std::mem::forget(remove_socket);
    let watch = Watch {
        worker: who.worker,
        pid: child.pid.as_raw(),
        // On a channel a worker says by itself that it listens.
        when: match (settings.handoff, settings.ready_when) {
            (Handoff::Node, ReadyWhen::Auto) => ReadyWhen::Fd,
            (_, when) => when,
        },
        inodes: listeners.all.iter().map(|listener| listener.inode).collect(),
        pipe: ready.map(|(read, _)| read),
    };
    let heard = notify::listen(socket, who.worker, settings.ready_when, news.clone());
    let tail = Tail::default();
    out.forward(&tail, outputs);
    Ok(Process {
        pid: child.pid,
        slot: who.slot,
        generation: who.generation,
        tail,
        says: None,
        program: path,
        is_left: false,
        failure: Some(child.failure),
        notify_socket,
        ears: tokio::spawn(heard).abort_handle(),
        eyes: tokio::spawn(ready::watch(watch, news.clone())).abort_handle(),
        channel: channel.map(|(_, task)| task),
        _ready_pipe: ready_pipe,
    })
}

/// The number of the channel in a worker: one that no shell script on the way uses for itself.
pub(super) const CHANNEL: i32 = 31;

/// Whether a number is taken in a worker by what it is given.
pub(super) fn is_taken(fd: i32, launch: &Launch, listeners: &Listeners) -> bool {
    match launch.settings.handoff {
        Handoff::Fd => fd < first_free_fd(launch, listeners),
        Handoff::Node => fd == CHANNEL,
    }
}

/// The first number in a worker that is not taken by a socket.
pub(super) fn first_free_fd(launch: &Launch, listeners: &Listeners) -> i32 {
    match launch.settings.handoff {
        Handoff::Fd => 3 + i32::try_from(listeners.all.len()).unwrap_or(0),
        Handoff::Node => 3,
    }
}

/// Puts a descriptor at its number.
fn place<'a>(descriptors: &mut Vec<Option<BorrowedFd<'a>>>, number: i32, fd: BorrowedFd<'a>) {
    let number = usize::try_from(number).unwrap_or_default();
    descriptors.resize(descriptors.len().max(number + 1), None);
    descriptors[number] = Some(fd);
}

/// The number of the readiness descriptor, where one is wanted: as configured, else the first that is free.
fn ready_fd(launch: &Launch, listeners: &Listeners) -> Option<i32> {
    match launch.settings.ready_when {
        ReadyWhen::Auto | ReadyWhen::Fd => {
            Some(launch.settings.ready_fd.unwrap_or(first_free_fd(launch, listeners)))
        }
        ReadyWhen::Notify
        | ReadyWhen::Accepting
        | ReadyWhen::Listening
        | ReadyWhen::Message
        | ReadyWhen::Alive(_) => None,
    }
}

impl Process {
    /// Returns what went wrong before exec, if anything did. To be asked once the process has ended.
    pub(super) fn failure(&mut self) -> Option<NotStarted> {
        let (stage, errno) = spawn::failure(self.failure.take()?)?;
        let reason = format!("{stage} '{}': {}", self.program.display(), errno.desc());
        let is_transient = process::is_transient(&errno.into());
        Some(NotStarted { reason, is_transient })
    }

    /// Ends the worker and all of its process group.
    pub(super) fn kill(&self) {
        if !self.is_left {
            // It may not lead its group yet, just after it was made.
            process::signal(self.pid, Signal::SIGKILL);
        }
        process::signal_group(self.pid, Signal::SIGKILL);
    }

    /// The worker is ready: there was no failure before exec, and nobody has to look any more.
    pub(super) fn is_ready(&mut self) {
        self.failure = None;
        self.eyes.abort();
    }
}

impl Drop for Process {
    /// What is left in the pipes is still moved on: only the ears are closed.
    fn drop(&mut self) {
        self.ears.abort();
        self.eyes.abort();
        self.channel.iter().for_each(AbortHandle::abort);
        let _ = std::fs::remove_file(&self.notify_socket);
    }
}

/// Removes a file unless it is forgotten.
struct RemoveFile<'a>(&'a Path);

impl Drop for RemoveFile<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

/// Where a worker's standard output and error go.
enum Output {
    Inherited(io::Stdout, io::Stderr),
    Stream(OwnedFd),
    Piped { ours: Vec<(OwnedFd, Sink)>, out: OwnedFd, err: Option<OwnedFd> },
}

/// Where what comes out of a pipe goes.
enum Sink {
    Journal(output::Stream),
    Console(output::Lines),
}

impl Output {
    fn open(app: &App, mode: LogMode, who: Identity) -> io::Result<Self> {
        let stream = || output::Stream { identifier: app.identifier(who.slot), who };
        let lines = |prefix, console: &Arc<Mutex<Console>>| {
            let (console, recent) = (console.clone(), app.recent.clone());
            Sink::Console(output::Lines { who, prefix, console, recent })
        };
        match mode {
            LogMode::Auto if app.in_journal => Self::piped(Sink::Journal(stream()), None),
            LogMode::Stream => Self::piped(Sink::Journal(stream()), None),
            LogMode::Direct => stream().direct().map(Self::Stream),
            LogMode::Auto if app.on_terminal => {
                Self::piped(lines(app.prefix(who.slot), &app.stdout), None)
            }
            LogMode::Prefix => Self::piped(lines(app.prefix(who.slot), &app.stdout), None),
            LogMode::Auto => Self::piped(
                lines(String::new(), &app.stdout),
                Some(lines(String::new(), &app.stderr)),
            ),
            LogMode::Inherit => Ok(Self::Inherited(io::stdout(), io::stderr())),
        }
    }

    /// One pipe for both, or one for each.
    fn piped(out: Sink, err: Option<Sink>) -> io::Result<Self> {
        let (read, theirs) = output::pipe()?;
        let mut ours = vec![(read, out)];
        let mut their_err = None;
        if let Some(sink) = err {
            let (read, theirs) = output::pipe()?;
            ours.push((read, sink));
            their_err = Some(theirs);
        }
        Ok(Self::Piped { ours, out: theirs, err: their_err })
    }

    /// The worker's standard output and error.
    fn for_worker(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        match self {
            Self::Inherited(stdout, stderr) => (stdout.as_fd(), stderr.as_fd()),
            Self::Stream(fd) => (fd.as_fd(), fd.as_fd()),
            Self::Piped { out, err, .. } => (out.as_fd(), err.as_ref().unwrap_or(out).as_fd()),
        }
    }

    /// Begins to move what the worker writes, until nobody can write any more.
    fn forward(self, tail: &Tail, outputs: &mut JoinSet<()>) {
        let Self::Piped { ours, .. } = self else {
            return;
        };
        for (pipe, sink) in ours {
            let tail = tail.clone();
            match sink {
                Sink::Journal(stream) => {
                    drop(outputs.spawn(output::to_journal(pipe, stream, tail)));
                }
                Sink::Console(lines) => drop(outputs.spawn(output::to_console(pipe, lines, tail))),
            }
        }
    }
}
