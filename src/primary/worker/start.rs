//! Starting a worker. Whatever connects it with us is in the FD store before its process is made, so that a primary that
//! dies in between leaves no worker that can do nothing but run into closed pipes.

use super::super::carry::crash;
use super::super::channel::Terms;
use super::super::notify;
use super::super::output;
use super::super::ready::{self, Watch};
use super::super::runtime_dir;
use super::super::source::Launch;
use super::super::systemd::Polled;
use super::super::tail::Tail;
use super::outlet::Outlet;
use super::{CHANNEL, Ground, Identity, Known, NotStarted, Process, first_free_fd};
use crate::config::values::{Handoff, ReadyWhen};
use crate::protocol::environment::{self, PID_PLACEHOLDER, Sockets};
use crate::protocol::store::Part;
use crate::sys::cgroup::{Delegated, Group};
use crate::sys::spawn::{self, Program};
use crate::sys::{pidfd, process};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// So many groups of one name are tried.
const GROUPS: u32 = 100;

/// Starts a worker.
///
/// # Errors
/// Names what was being done and the system's reason. What fails in the child is told when it has ended.
pub(in super::super) fn start(
    who: Identity,
    launch: &Launch,
    ground: &mut Ground<'_>,
) -> Result<Process, NotStarted> {
    let (app, settings) = (ground.app, &launch.settings);
    let lane = ground.balance.lane(who.worker);
    let configured = launch.environment(who.slot)?;
    let path = launch.program(&configured)?;
    let directory = launch.directory();
    let notify_socket = runtime_dir::notify_socket(&app.folder, who.worker.0);
    let socket =
        notify::open(&notify_socket).map_err(NotStarted::doing("making a notify socket"))?;
    let mut undo = Undo { socket: notify_socket.clone(), group: None, is_needed: true };
    let ready_fd = ready_fd(launch, ground);
    let ready =
        ready_fd.map(|_| output::pipe()).transpose().map_err(NotStarted::doing("making a pipe"))?;
    let ready_pipe = ready.as_ref().map(|(read, _)| read.try_clone()).transpose();
    let ready_pipe = ready_pipe.map_err(NotStarted::doing("making a pipe"))?;
    let out =
        Outlet::open(app, settings.log, who).map_err(NotStarted::doing("opening its output"))?;
    let channel = match settings.handoff {
        Handoff::Fd => None,
        Handoff::Node => {
            let sockets = ground.listeners.lanes_on(lane);
            let opened = ground.channels.open(who, Terms::of(settings), sockets);
            Some(opened.map_err(NotStarted::doing("making a channel"))?)
        }
    };
    let group = ground.groups.map(|groups| make_group(groups, who)).transpose();
    let group = group.map_err(NotStarted::doing("making a control group"))?;
    undo.group.clone_from(&group);
    let null = File::open("/dev/null").map_err(NotStarted::doing("opening /dev/null"))?;

    let told = environment::Worker {
        app: &app.name,
        slot: who.slot.0,
        generation: who.generation.0,
        worker: who.worker.0,
        sockets: match channel {
            None => Sockets::Passed(ground.listeners.names()),
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
        None => {
            let sockets = ground.listeners.on(lane);
            descriptors.extend(sockets.map(|socket| Some(socket.fd.as_fd())));
        }
        Some(channel) => place(&mut descriptors, CHANNEL, channel.theirs.as_fd()),
    }
    if let (Some(number), Some((_, write))) = (ready_fd, &ready) {
        place(&mut descriptors, number, write.as_fd());
    }
    let procs = group.as_ref().map(Group::procs).transpose();
    let procs = procs.map_err(NotStarted::doing("opening its control group"))?;

    let mut parts = vec![(Part::Notify, socket.as_fd())];
    parts.extend(out.ours.iter().map(|pipe| (pipe.part, pipe.end.as_fd())));
    parts.extend(ready.iter().map(|(read, _)| (Part::Ready, read.as_fd())));
    parts.extend(channel.iter().map(|channel| (Part::Channel, channel.ours.as_fd())));
    for (part, fd) in parts {
        let put = ground.manager.put(who.name(part), fd, Polled::No);
        put.map_err(NotStarted::doing("copying a descriptor"))?;
    }
    crash::point("connected");
    let child = spawn::spawn(Program {
        path: &path,
        arguments: launch.command(),
        environment,
        pid_placeholder: PID_PLACEHOLDER,
        directory: directory.as_deref(),
        descriptors,
        open_files: app.open_files,
        group: procs.as_ref().map(|fd| fd.as_fd()),
        dies_with_us: app.orphans_end && !ground.manager.is_there(),
    })
    .map_err(NotStarted::doing("making a process"))?;
    crash::point("made");
    let pidfd = take_hold(child.pid, who, ground).inspect_err(|_| {
        // Nobody would know it, and it would serve.
        process::signal(child.pid, Signal::SIGKILL);
    })?;
    crash::point("stored");

    undo.is_needed = false;
    let watch = Watch {
        worker: who.worker,
        pid: child.pid.as_raw(),
        // On a channel a worker says by itself that it listens.
        when: match (settings.handoff, settings.ready_when) {
            (Handoff::Node, ReadyWhen::Auto) => ReadyWhen::Fd,
            (_, when) => when,
        },
        inodes: ground.listeners.inodes(lane),
        locals: ground.listeners.locals(),
        pipe: ready.map(|(read, _)| read),
    };
    let heard = notify::listen(socket, who.worker, settings.ready_when, ground.news.clone());
    let tail = Tail::default();
    out.forward(who, &tail, ground.outputs);
    Ok(Process {
        slot: who.slot,
        generation: who.generation,
        known: Known {
            pid: child.pid.as_raw(),
            start_time: pidfd::start_time(child.pid).unwrap_or(0),
            program: path,
            notify_socket,
            group: group.as_ref().map(Group::name),
            is_left: false,
            is_mute: false,
            says: None,
        },
        tail,
        pidfd,
        group,
        failure: Some(child.failure),
        directory,
        ears: Some(tokio::spawn(heard).abort_handle()),
        eyes: Some(tokio::spawn(ready::watch(watch, ground.news.clone())).abort_handle()),
        channel: channel.map(|channel| channel.task),
        end: None,
        drain: None,
        _ready_pipe: ready_pipe,
    })
}

/// Returns the pidfd of a child that is not reaped yet, so that the number means it; the next primary has it too.
fn take_hold(pid: Pid, who: Identity, ground: &mut Ground<'_>) -> Result<OwnedFd, NotStarted> {
    let pidfd = pidfd::open(pid).map_err(NotStarted::doing("opening its process"))?;
    let put = ground.manager.put(who.name(Part::Pid), &pidfd, Polled::No);
    put.map_err(NotStarted::doing("copying a descriptor"))?;
    Ok(pidfd)
}

/// Makes a worker's control group. One of its name may still be there, of a primary that knew nothing of this one.
fn make_group(groups: &Delegated, who: Identity) -> io::Result<Group> {
    let name = format!("worker-{}", who.worker);
    let mut made = groups.make(&name);
    for more in 2..GROUPS {
        match made {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Ok(_) | Err(_) => break,
        }
        made = groups.make(&format!("{name}-{more}"));
    }
    made
}

/// Puts a descriptor at its number.
fn place<'a>(descriptors: &mut Vec<Option<BorrowedFd<'a>>>, number: i32, fd: BorrowedFd<'a>) {
    let number = usize::try_from(number).unwrap_or_default();
    descriptors.resize(descriptors.len().max(number + 1), None);
    descriptors[number] = Some(fd);
}

/// The number of the readiness descriptor, where one is wanted: as configured, else the first that is free.
fn ready_fd(launch: &Launch, ground: &Ground<'_>) -> Option<i32> {
    match launch.settings.ready_when {
        ReadyWhen::Auto | ReadyWhen::Fd => {
            Some(launch.settings.ready_fd.unwrap_or(first_free_fd(launch, ground.listeners)))
        }
        ReadyWhen::Notify
        | ReadyWhen::Accepting
        | ReadyWhen::Listening
        | ReadyWhen::Message
        | ReadyWhen::Alive(_) => None,
    }
}

/// Removes what was made for a worker that does not come to be.
struct Undo {
    socket: PathBuf,
    group: Option<Group>,
    is_needed: bool,
}

impl Drop for Undo {
    fn drop(&mut self) {
        if self.is_needed {
            let _ = std::fs::remove_file(&self.socket);
            self.group.iter().for_each(Group::remove);
        }
    }
}
