//! `dogwatch logs`: what the workers wrote, what became of them, and what systemd says, in the order of time. Under
//! systemd all of it is in the journal, which is read even when the app is down; elsewhere the primary has the last lines
//! in memory.

mod entry;
mod filter;
mod journal;
#[cfg(not(feature = "journal"))]
mod journalctl;
#[cfg(feature = "journal")]
mod libsystemd;
mod memory;
mod query;
mod show;
mod since;

pub(super) use entry::{Entry, Source as Whose};
pub(super) use query::Next;

use super::client::Client;
use super::target::Target;
use super::trouble::{Code, Trouble};
use super::{apps, text};
use crate::protocol::control::{Call, Listed, Primary};
use filter::Filter;
use journal::{Journal, Wanted};
use memory::Memory;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use query::Unit;
use regex::Regex;
use since::Since;
use std::io::{BufWriter, Write};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Whoever reads what we print may be gone; that is looked at so often when nothing is printed.
const SLICE: Duration = Duration::from_millis(500);

/// What `logs` is given.
#[derive(Debug, clap::Args)]
pub(super) struct LogsArguments {
    /// The app, or one slot of it
    #[arg(value_name = "APP[/SLOT]", add = super::complete_apps())]
    target: Target,
    /// Go on with what comes, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// So many of the last entries that match, or 'all'
    #[arg(short = 'n', long, value_name = "N", default_value = "50", value_parser = count)]
    lines: Count,
    /// Only from this time on: '10min ago', '2h', 'today', '2026-11-21 10:00', '@1700000000'
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = since::argument)]
    since: Option<Since>,
    /// Only what matches this regular expression; without capitals it is for both cases
    #[arg(long, value_name = "RE", allow_hyphen_values = true, value_parser = filter::pattern)]
    grep: Option<Regex>,
    /// Only of the workers of this generation
    #[arg(long, value_name = "G")]
    generation: Option<u32>,
    /// Print JSON, a line for each entry
    #[arg(long)]
    json: bool,
}

/// `None` is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count(Option<usize>);

fn count(text: &str) -> Result<Count, String> {
    match text {
        "all" => Ok(Count(None)),
        number => number.parse().map(|number| Count(Some(number))).map_err(|_| {
            format!("'{text}' is no number of entries, expected one like '100', or 'all'")
        }),
    }
}

/// Prints an app's entries.
pub(super) fn logs(arguments: &LogsArguments, control: Option<&Path>) -> Result<ExitCode, Trouble> {
    let filter = Filter {
        slot: arguments.target.slot,
        generation: arguments.generation,
        grep: arguments.grep.clone(),
        since: arguments.since,
    };
    let wanted =
        Wanted { filter, last: arguments.lines.0, follow: arguments.follow, whose: arguments.json };
    let logs = match apps::find(&arguments.target.app, control) {
        Ok(client) => Logs::of(client, wanted)?,
        Err(trouble) => Logs::of_none(&arguments.target, trouble, wanted)?,
    };
    print(logs, arguments.json)?;
    Ok(ExitCode::SUCCESS)
}

/// Follows the entries of the app that answers, with so many of the last ones before. Dropping it ends what reads them.
pub(super) fn follow(client: Client, last: usize) -> Result<Logs, Trouble> {
    let filter = Filter::default();
    let wanted = Wanted { filter, last: Some(last), follow: true, whose: false };
    Logs::of(client, wanted)
}

/// An app's entries, as they come.
#[derive(Debug)]
pub(super) struct Logs {
    app: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Journal(Box<Journal>),
    Memory(Box<Memory>),
}

impl Logs {
    /// Those of an app that runs.
    fn of(mut client: Client, wanted: Wanted) -> Result<Self, Trouble> {
        let app = client.primary.name.clone();
        if client.primary.log != "journal" {
            let memory = Memory::open(client, wanted)?;
            return Ok(Self { app, place: Place::Memory(Box::new(memory)) });
        }
        let unit = match &client.primary.unit {
            Some(name) => match owner(&client.primary) {
                Some(user) => Unit::User(name.clone(), user),
                None => Unit::System(name.clone()),
            },
            None => {
                let Listed { app } = client.ask(&Call::List, "read the logs of")?;
                Unit::None(u16::try_from(app.slots.len()).unwrap_or(u16::MAX))
            }
        };
        drop(client);
        let journal = Journal::open(&app, &[unit], wanted).map_err(|e| cannot(&app, &e))?;
        if !journal.is_known && is_forbidden() {
            tell_hint();
        }
        Ok(Self { app, place: Place::Journal(Box::new(journal)) })
    }

    /// Those of an app that cannot be asked: under the names that its unit may have.
    fn of_none(target: &Target, trouble: Trouble, wanted: Wanted) -> Result<Self, Trouble> {
        let app = &target.app;
        let names = [format!("{app}.service"), format!("dogwatch@{app}.service")];
        let user = nix::unistd::geteuid();
        let mut units: Vec<Unit> = names.iter().cloned().map(Unit::System).collect();
        if !user.is_root() {
            units.extend(names.iter().map(|name| Unit::User(name.clone(), user.as_raw())));
        }
        let reason = match Journal::open(app, &units, wanted) {
            Ok(journal) if journal.is_known => {
                return Ok(Self { app: app.clone(), place: Place::Journal(Box::new(journal)) });
            }
            Ok(_) => format!("the journal has nothing of '{target}'"),
            Err(reason) => reason,
        };
        // Somebody who may not ask a primary that runs may still read the journal, and is told the first reason.
        if trouble.code != Code::NotRunning {
            return Err(trouble);
        }
        let all = Trouble::new(
            Code::NotRunning,
            format!("cannot read the logs of '{app}': it is not running, and {reason}"),
        );
        Err(if is_forbidden() { all.hint(HINT) } else { Trouble { hint: trouble.hint, ..all } })
    }

    /// Returns the next entry, if one comes in time.
    pub(super) fn next(&mut self, wait: Duration) -> Result<Next<Entry>, Trouble> {
        match &mut self.place {
            Place::Journal(journal) => journal.next(wait).map_err(|e| cannot(&self.app, &e)),
            Place::Memory(memory) => memory.next(wait),
        }
    }
}

fn cannot(app: &str, reason: &str) -> Trouble {
    Trouble::new(Code::Failed, format!("cannot read the logs of '{app}': {reason}"))
}

/// The user whose manager runs the primary; `None` if the system's does.
fn owner(primary: &Primary) -> Option<u32> {
    let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", primary.pid)).ok()?;
    let (_, after) = cgroup.split_once("/user@")?;
    after.split_once(".service/")?.0.parse().ok()
}

const HINT: &str =
    "what the system's services write only root sees, and the groups 'adm' and 'systemd-journal'";

#[expect(clippy::print_stderr, reason = "what comes may be nothing, and this is why")]
fn tell_hint() {
    eprintln!("hint: {HINT}");
}

/// Whether there is a system's journal that we may not read.
fn is_forbidden() -> bool {
    let journals = ["/var/log/journal", "/run/log/journal"];
    let folders = journals.iter().filter_map(|folder| std::fs::read_dir(folder).ok());
    let files = folders.flatten().flatten().map(|folder| folder.path().join("system.journal"));
    let opened = files.map(std::fs::File::open);
    opened.filter_map(Result::err).any(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Prints until there is no more, or nobody reads it.
fn print(mut logs: Logs, json: bool) -> Result<(), Trouble> {
    let mut out = BufWriter::new(std::io::stdout());
    let colour = text::colour();
    loop {
        // What is there is printed before anything is waited for.
        let next = match logs.next(Duration::ZERO)? {
            Next::Nothing if out.flush().is_err() => return Ok(()),
            Next::Nothing => logs.next(SLICE)?,
            next @ (Next::Some(_) | Next::End) => next,
        };
        let written = match next {
            Next::End => break,
            Next::Nothing if nobody_reads() => return Ok(()),
            Next::Nothing => continue,
            Next::Some(entry) if json => {
                writeln!(out, "{}", serde_json::to_string(&entry).unwrap_or_default())
            }
            Next::Some(entry) => out.write_all(show::text(&entry, colour).as_bytes()),
        };
        // A reader that is gone, as head(1), has seen enough.
        if written.is_err() {
            return Ok(());
        }
    }
    let _ = out.flush();
    Ok(())
}

/// Whether the other end of standard output is gone.
fn nobody_reads() -> bool {
    let out = std::io::stdout();
    let mut fds = [PollFd::new(out.as_fd(), PollFlags::empty())];
    let _ = poll(&mut fds, PollTimeout::ZERO);
    let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
    fds[0].revents().is_some_and(|events| events.intersects(gone))
}
