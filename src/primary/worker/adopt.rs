//! Taking back a worker that another primary has started.

use super::super::News;
use super::super::channel::Terms;
use super::super::notify;
use super::super::ready::{self, Watch};
use super::super::runtime_dir;
use super::super::source::Launch;
use super::super::systemd::Polled;
use super::super::tail::Tail;
use super::outlet::Pipe;
use super::{Ground, Identity, Known, Process, how};
use crate::config::values::{Handoff, LogMode, ReadyWhen};
use crate::core::{How, WorkerId};
use crate::protocol::store::Part;
use crate::sys::cgroup::Group;
use crate::sys::pidfd::{self, Ended};
use crate::sys::socket;
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;

/// A dead process is reaped by its new parent after a moment; only then does the kernel tell how it ended.
const REAPED: Duration = Duration::from_millis(5);
const REAPINGS: u32 = 400;

/// What was found of a worker.
#[derive(Debug)]
pub(in super::super) struct Found {
    pub(in super::super) pidfd: OwnedFd,
    pub(in super::super) parts: BTreeMap<Part, OwnedFd>,
    /// What had been written down about it.
    pub(in super::super) known: Option<Known>,
    /// Since it was started.
    pub(in super::super) age: Duration,
    /// It has not said yet that it is ready.
    pub(in super::super) is_starting: bool,
}

/// Takes a worker back. Returns it, how it has ended if it has, and what it has lost for good.
pub(in super::super) fn adopt(
    who: Identity,
    launch: &Launch,
    mut found: Found,
    ground: &mut Ground<'_>,
) -> (Process, Option<How>, Option<&'static str>) {
    let settings = &launch.settings;
    let pid = pidfd::pid(&found.pidfd).ok().flatten();
    let mut known = found.known.take().filter(|known| is_of(known, pid)).unwrap_or_else(|| Known {
        pid: pid.map_or(0, Pid::as_raw),
        start_time: pid.and_then(|pid| pidfd::start_time(pid).ok()).unwrap_or(0),
        program: PathBuf::new(),
        notify_socket: runtime_dir::notify_socket(&ground.app.folder, who.worker.0),
        group: None,
        is_left: false,
        is_mute: false,
        says: None,
    });
    let mut lost = None;
    let tail = Tail::default();
    for part in [Part::Output, Part::Error] {
        if let Some(end) = found.parts.remove(&part) {
            resume_output(who, settings.log, (part, end), &tail, ground);
        } else if part == Part::Output && is_piped(settings.log) && !known.is_mute {
            lost = Some("its output");
        }
    }
    let mut ears = None;
    let socket = found.parts.remove(&Part::Notify);
    if let Some(path) = socket.as_ref().and_then(socket::own_path) {
        known.notify_socket = path;
    }
    match listen(socket, &known, who, ground) {
        Ok(socket) => {
            let heard =
                notify::listen(socket, who.worker, settings.ready_when, ground.news.clone());
            ears = Some(tokio::spawn(heard).abort_handle());
        }
        Err(_) => lost = Some("its notify socket"),
    }
    let mut channel = None;
    if settings.handoff == Handoff::Node {
        let end = found.parts.remove(&Part::Channel).ok_or(io::ErrorKind::NotFound.into());
        let sockets = ground.listeners.lanes_on(ground.balance.lane(who.worker));
        let terms = Terms::of(settings);
        match end.and_then(|end| ground.channels.resume(who, terms, sockets, end)) {
            Ok(task) => channel = Some(task),
            // It ends by itself: that its channel is closed is what a program of Node's waits for.
            Err(_) => lost = Some("its channel"),
        }
    }
    let ready = found.parts.remove(&Part::Ready);
    let ready_pipe = ready.as_ref().and_then(|pipe| pipe.try_clone().ok());
    let watch = Watch {
        worker: who.worker,
        pid: known.pid,
        when: match (settings.handoff, settings.ready_when) {
            (Handoff::Node, ReadyWhen::Auto) => ReadyWhen::Fd,
            (_, ReadyWhen::Alive(time)) => ReadyWhen::Alive(time.saturating_sub(found.age)),
            (_, when) => when,
        },
        inodes: ground.listeners.inodes(ground.balance.lane(who.worker)),
        locals: ground.listeners.locals(),
        pipe: ready,
    };
    let eyes = found.is_starting.then(|| ready::watch(watch, ground.news.clone()));
    let ended = match pidfd::ended(&found.pidfd) {
        Ended::No | Ended::NotReaped => None,
        Ended::How(end) => Some(how(end)),
        Ended::Unknown => Some(How::Unknown),
    };
    let group = ground.groups.and_then(|groups| match (&known.group, pid) {
        (Some(name), _) => groups.open(name),
        (None, Some(pid)) => groups.group_of(pid),
        (None, None) => None,
    });
    known.group = group.as_ref().map(Group::name);
    known.is_left &= ended.is_some();
    let copy = found.pidfd.try_clone();
    let end = ended.is_none().then(|| until_ended(copy, who.worker, ground.news.clone()));
    let process = Process {
        slot: who.slot,
        generation: who.generation,
        known,
        tail,
        pidfd: found.pidfd,
        group,
        failure: None,
        directory: None,
        ears,
        eyes: eyes.map(|eyes| tokio::spawn(eyes).abort_handle()),
        channel,
        end: end.map(|end| tokio::spawn(end).abort_handle()),
        drain: None,
        _ready_pipe: ready_pipe,
    };
    (process, ended, lost)
}

/// Whether what was written down is of the process that the descriptor means. Of one that was reaped the number alone is
/// left: as long as it leads a group nobody is given it, so whoever has it now began another.
fn is_of(known: &Known, pid: Option<Pid>) -> bool {
    match pid {
        Some(pid) => pid.as_raw() == known.pid,
        None => pidfd::start_time(Pid::from_raw(known.pid)).is_err(),
    }
}

/// Goes on moving what comes out of a pipe, though its worker may be gone.
pub(in super::super) fn resume_output(
    who: Identity,
    mode: LogMode,
    (part, end): (Part, OwnedFd),
    tail: &Tail,
    ground: &mut Ground<'_>,
) {
    if let Some(pipe) = Pipe::resume(ground.app, mode, who, part, end) {
        pipe.forward(who, tail, ground.outputs);
    }
}

/// Whether a worker writes to a pipe that is read here.
fn is_piped(mode: LogMode) -> bool {
    match mode {
        LogMode::Auto | LogMode::Stream | LogMode::Prefix => true,
        LogMode::Direct | LogMode::Inherit => false,
    }
}

/// The notify socket as it was; where it is lost, another under the same path, which is what the worker knows.
fn listen(
    socket: Option<OwnedFd>,
    known: &Known,
    who: Identity,
    ground: &mut Ground<'_>,
) -> io::Result<UnixDatagram> {
    if let Some(socket) = socket {
        let socket = StdDatagram::from(socket);
        socket.set_nonblocking(true)?;
        return UnixDatagram::from_std(socket);
    }
    let _ = std::fs::remove_file(&known.notify_socket);
    let socket = notify::open(&known.notify_socket)?;
    ground.manager.put(who.name(Part::Notify), socket.as_fd(), Polled::No)?;
    Ok(socket)
}

/// Waits for the end of a process that is no child of ours.
async fn until_ended(pidfd: io::Result<OwnedFd>, worker: WorkerId, news: mpsc::Sender<News>) {
    let Ok(watched) = pidfd.and_then(|pidfd| socket::watch(pidfd, Interest::READABLE)) else {
        return;
    };
    let _ = watched.readable().await;
    let mut how = How::Unknown;
    for _ in 0..REAPINGS {
        match pidfd::ended(watched.get_ref()) {
            Ended::No | Ended::NotReaped => tokio::time::sleep(REAPED).await,
            Ended::How(end) => {
                how = super::how(end);
                break;
            }
            Ended::Unknown => break,
        }
    }
    let _ = news.send(News::Ended { worker, how }).await;
}
