//! Where a worker's standard output and error go.

use super::super::console::Console;
use super::super::output;
use super::super::tail::Tail;
use super::super::{App, Outputs};
use super::Identity;
use crate::config::values::LogMode;
use crate::protocol::store::Part;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

/// The worker's ends, and ours.
pub(super) struct Outlet {
    pub(super) theirs: Theirs,
    pub(super) ours: Vec<Pipe>,
}

pub(super) enum Theirs {
    Inherited(io::Stdout, io::Stderr),
    /// For both.
    One(OwnedFd),
    Two(OwnedFd, OwnedFd),
}

/// A pipe that is read here.
pub(super) struct Pipe {
    pub(super) part: Part,
    pub(super) end: OwnedFd,
    sink: Sink,
    halt: output::Halt,
}

/// Where what comes out of a pipe goes.
enum Sink {
    Journal(output::Stream),
    Console(output::Lines),
}

impl Outlet {
    /// Opens what a worker is to write to.
    ///
    /// # Errors
    /// As pipe2(2), or as connecting to the journal.
    pub(super) fn open(app: &App, mode: LogMode, who: Identity) -> io::Result<Self> {
        let mut ours = vec![];
        let mut pipe = |part, sink| {
            let (end, theirs) = output::pipe()?;
            ours.push(Pipe { part, end, sink, halt: app.halt.subscribe() });
            io::Result::Ok(theirs)
        };
        let theirs = match sinks(app, mode, who) {
            Some((out, None)) => Theirs::One(pipe(Part::Output, out)?),
            Some((out, Some(err))) => {
                Theirs::Two(pipe(Part::Output, out)?, pipe(Part::Error, err)?)
            }
            None if mode == LogMode::Direct => Theirs::One(stream(app, who).direct()?),
            None => Theirs::Inherited(io::stdout(), io::stderr()),
        };
        Ok(Self { theirs, ours })
    }

    /// The worker's standard output and error.
    pub(super) fn for_worker(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        match &self.theirs {
            Theirs::Inherited(stdout, stderr) => (stdout.as_fd(), stderr.as_fd()),
            Theirs::One(fd) => (fd.as_fd(), fd.as_fd()),
            Theirs::Two(out, err) => (out.as_fd(), err.as_fd()),
        }
    }

    /// Begins to move what the worker writes, until nobody can write any more.
    pub(super) fn forward(self, who: Identity, tail: &Tail, outputs: &mut Outputs) {
        for pipe in self.ours {
            pipe.forward(who, tail, outputs);
        }
    }
}

impl Pipe {
    /// A pipe of a worker that another primary has started, whose output goes where it would have gone. What goes nowhere
    /// else any more goes where `auto` sends it.
    pub(super) fn resume(
        app: &App,
        mode: LogMode,
        who: Identity,
        part: Part,
        end: OwnedFd,
    ) -> Option<Self> {
        let (out, err) = sinks(app, mode, who).or_else(|| sinks(app, LogMode::Auto, who))?;
        let sink = if part == Part::Error { err.unwrap_or(out) } else { out };
        Some(Self { part, end, sink, halt: app.halt.subscribe() })
    }

    pub(super) fn forward(self, who: Identity, tail: &Tail, outputs: &mut Outputs) {
        let (name, tail, pipe, halt) = (who.name(self.part), tail.clone(), self.end, self.halt);
        match self.sink {
            Sink::Journal(stream) => outputs.spawn(async move {
                output::to_journal(pipe, stream, tail, halt).await;
                name
            }),
            Sink::Console(lines) => outputs.spawn(async move {
                output::to_console(pipe, lines, tail, halt).await;
                name
            }),
        };
    }
}

fn stream(app: &App, who: Identity) -> output::Stream {
    output::Stream { identifier: app.identifier(who.slot), who }
}

/// Where output goes that passes through the primary: all of it, or standard error apart.
fn sinks(app: &App, mode: LogMode, who: Identity) -> Option<(Sink, Option<Sink>)> {
    let lines = |prefix, console: &Arc<Mutex<Console>>| {
        let (console, recent) = (console.clone(), app.recent.clone());
        Sink::Console(output::Lines { who, prefix, console, recent })
    };
    let to_journal = mode == LogMode::Stream || mode == LogMode::Auto && app.in_journal;
    let with_prefix = mode == LogMode::Prefix || mode == LogMode::Auto && app.on_terminal;
    match mode {
        LogMode::Direct | LogMode::Inherit => None,
        _ if to_journal => Some((Sink::Journal(stream(app, who)), None)),
        _ if with_prefix => Some((lines(app.prefix(who.slot), &app.stdout), None)),
        LogMode::Auto | LogMode::Stream | LogMode::Prefix => {
            Some((lines(String::new(), &app.stdout), Some(lines(String::new(), &app.stderr))))
        }
    }
}
