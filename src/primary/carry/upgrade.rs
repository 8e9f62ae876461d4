//! Upgrading the primary in place: it executes the program that is installed now, with the same pid, and passes it the
//! listeners and what lies in the FD store, under the same names. For the new program that is a start like any other.
//!
//! Before that the new program has to show that it runs and can read the state, as a process of its own (`trial`). What
//! cannot run, or refuses the state, changes nothing.

use super::super::app::OPEN_FILES;
use super::super::control::Answer;
use super::super::log::Level;
use super::super::news::QUIET_TURNS;
use super::super::signals::{Asked as Caught, Signals};
use super::super::{Inbox, Primary, Turn, clock, output, refusal};
use super::{Memory, Notebook, state};
use crate::protocol::control::{Error as Answered, Upgraded};
use crate::protocol::environment::PID_PLACEHOLDER;
use crate::protocol::store::{Name, Part};
use crate::sys::process::{self, End};
use crate::sys::spawn::{self, Program};
use crate::sys::{pidfd, socket};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::oneshot;

/// The variable that names what an upgraded primary is passed: its pid, then `NUMBER=NAME`, separated by colons.
pub(super) const PASSED: &str = "DOGWATCH_PASSED";
/// The verb of the trial.
const TRIAL: &str = "upgrade-trial";
/// Its answer begins with this.
const VERSION: &str = "version ";
/// Where the trial finds the two memories.
const MEMORIES: [i32; 2] = [3, 4];
/// A memory that is written while it is read is read so often.
const READINGS: u32 = 20;
/// How long the new program may take to show that it can.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the journal may take for what is in our hands.
const FLUSH: Duration = Duration::from_secs(2);
/// Why a primary that ends is not upgraded.
const STOPPING: &str = "everything is being stopped";
/// One variable may be so long (`execve(2)`), with some to spare.
const LONGEST: usize = 127 * 1024;
/// What a program says is told up to here.
const SAID: usize = 500;

/// How far an upgrade is.
#[derive(Debug, Default)]
pub(in super::super) struct Upgrade {
    trial: Option<Trial>,
    /// The trial went well.
    due: Option<PathBuf>,
}

/// The new program shows that it can.
#[derive(Debug)]
struct Trial {
    pid: Pid,
    program: PathBuf,
    said: OwnedFd,
    /// Says why it was not even executed.
    failure: OwnedFd,
    asked: Vec<Asked>,
}

/// Who waits for the verdict.
pub(in super::super) type Asked = oneshot::Sender<Result<Answer, Answered>>;

impl Upgrade {
    pub(in super::super) fn is_due(&self) -> bool {
        self.due.is_some()
    }
}

impl Primary {
    /// Begins an upgrade; whoever asked hears how its trial went.
    pub(in super::super) fn begin_upgrade(&mut self, asked: Option<Asked>) {
        if let Some(trial) = &mut self.upgrade.trial {
            trial.asked.extend(asked);
            return;
        }
        let asked: Vec<Asked> = asked.into_iter().collect();
        let program = installed();
        if self.asked_to_stop || self.core.is_stopping() {
            return self.refuse_upgrade(&program, STOPPING, asked);
        }
        let length = list(&self.passed()).len();
        if length > LONGEST {
            let why =
                format!("{length} bytes of names cannot be passed to it, at most {LONGEST} can");
            return self.refuse_upgrade(&program, &why, asked);
        }
        self.unkept += 1;
        self.keep();
        match self.start_trial(&program) {
            Ok((child, said)) => {
                let spawn::Child { pid, failure } = child;
                self.upgrade.trial = Some(Trial { pid, program, said, failure, asked });
            }
            Err(e) => self.refuse_upgrade(&program, &e.to_string(), asked),
        }
    }

    fn start_trial(&self, program: &std::path::Path) -> io::Result<(spawn::Child, OwnedFd)> {
        let (said, theirs) = output::pipe()?;
        let null = File::open("/dev/null")?;
        let memory = |name| {
            let copy = self.manager.copy_of(&name);
            copy.ok_or_else(|| io::Error::other("the state could not be written down"))
        };
        let (state, channels) = (memory(Name::State)?, memory(Name::Channels)?);
        let text = |variable: (String, String)| format!("{}={}", variable.0, variable.1);
        let child = spawn::spawn(Program {
            path: program,
            arguments: &["dogwatch".to_owned(), TRIAL.to_owned()],
            environment: spawn::environment().into_iter().map(text).collect(),
            pid_placeholder: PID_PLACEHOLDER,
            directory: None,
            descriptors: [&null.into(), &theirs, &theirs, &state, &channels]
                .map(|fd: &OwnedFd| Some(fd.as_fd()))
                .to_vec(),
            open_files: self.app.open_files,
            group: None,
            dies_with_us: true,
        })?;
        let pidfd = pidfd::open(child.pid)?;
        drop(tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            let _ = pidfd::send(&pidfd, Signal::SIGKILL);
        }));
        Ok((child, said))
    }

    /// A child has ended; if it is the trial, there is a verdict.
    pub(in super::super) fn judge_trial(&mut self, pid: Pid, end: End) {
        let Some(trial) = self.upgrade.trial.take_if(|trial| trial.pid == pid) else { return };
        let said = read_all(trial.said);
        if let Some((_, errno)) = spawn::failure(trial.failure) {
            return self.refuse_upgrade(&trial.program, errno.desc(), trial.asked);
        }
        let first = said.lines().next().unwrap_or_default().to_owned();
        match end {
            End::Exited(0) if !first.starts_with(VERSION) => {
                let why = "it is another program: it did not answer as dogwatch does";
                self.refuse_upgrade(&trial.program, why, trial.asked);
            }
            End::Exited(0) => {
                let version = first;
                let program = trial.program.display().to_string();
                let text = format!("upgrading: executing '{program}', {version}");
                self.log.say(Level::Notice, &text);
                self.events.tell("upgrading", &text);
                for asked in trial.asked {
                    let upgraded = Upgraded { program: program.clone(), version: version.clone() };
                    let _ = asked.send(Ok(Answer::Upgrading(upgraded)));
                }
                self.upgrade.due = Some(trial.program);
            }
            End::Signaled(9) if first.is_empty() => {
                let why = format!("it did not answer within {}s", PATIENCE.as_secs());
                self.refuse_upgrade(&trial.program, &why, trial.asked);
            }
            End::Exited(_) | End::Signaled(_) => {
                let how = super::super::worker::how(end);
                let why =
                    if first.is_empty() { how.to_string() } else { format!("{how}: {first}") };
                self.refuse_upgrade(&trial.program, &format!("it {why}"), trial.asked);
            }
        }
    }

    fn refuse_upgrade(&self, program: &std::path::Path, why: &str, asked: Vec<Asked>) {
        let reason = format!("upgrade refused: cannot go on with '{}': {why}", program.display());
        let text = format!("{reason}; everything goes on as it was");
        self.log.say(Level::Error, &text);
        self.events.tell("refused", &text);
        for asked in asked {
            let _ = asked.send(Err(Answered::Refused { reason: text.clone(), hint: None }));
        }
    }

    /// Executes the new program. Returns only if that fails, and everything goes on.
    pub(in super::super) async fn execute(&mut self, signals: &mut Signals, inbox: &mut Inbox) {
        let Some(program) = self.upgrade.due.take() else { return };
        // From here on they wait for the new program. What was caught already has its turn before.
        process::block_signals();
        for _ in 0..QUIET_TURNS {
            tokio::task::yield_now().await;
        }
        while let Some(asked) = signals.caught() {
            if !matches!(asked, Caught::Reap | Caught::Upgrade) {
                self.on_signal(asked);
            }
        }
        if self.asked_to_stop || self.core.is_stopping() {
            process::unblock_signals();
            return self.refuse_upgrade(&program, STOPPING, vec![]);
        }
        // Whoever waits for the verdict has it by then, and the journal what was in our hands.
        self.app.halt.send_replace(true);
        let outputs = &mut self.outputs;
        let written = async { while outputs.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FLUSH, written).await;
        self.channels.flush(FLUSH).await;
        // What was read from the workers is nowhere else.
        self.catch_up(Turn::Look, &mut inbox.news).await;
        self.channels.keep_rest();
        let _ = tokio::time::timeout(FLUSH, self.manager.flushed()).await;
        self.unkept += 1;
        self.keep();
        let error = self.become_program(&program);
        self.app.halt.send_replace(false);
        self.resume_outputs();
        self.refuse_upgrade(&program, &error.to_string(), vec![]);
    }

    fn become_program(&mut self, program: &std::path::Path) -> io::Error {
        let passed = self.passed();
        let inherit = |inherited: bool| {
            passed.iter().try_for_each(|(_, fd)| socket::set_inherited(fd, inherited))
        };
        let limits = self.app.open_files.map(|(soft, hard)| format!("{OPEN_FILES}={soft}:{hard}"));
        let variables = [Some(list(&passed)), limits].into_iter().flatten().collect();
        let executed = inherit(true).and_then(|()| execute(program, variables));
        process::unblock_signals();
        let _ = inherit(false);
        match executed {
            Ok(never) => match never {},
            Err(e) => e,
        }
    }

    /// What the next primary is passed.
    fn passed(&self) -> Vec<(String, BorrowedFd<'_>)> {
        let listeners = self.listeners.passed().map(|(name, fd)| (name.to_owned(), fd.as_fd()));
        let held = self.manager.held().map(|(name, fd)| (name.to_string(), fd.as_fd()));
        listeners.chain(held).collect()
    }

    /// The pipes are ours again.
    fn resume_outputs(&mut self) {
        let names: Vec<Name> = self.manager.held().map(|(name, _)| name.clone()).collect();
        for name in names {
            if let (Name::Worker { part: Part::Output | Part::Error, .. }, Some(fd)) =
                (&name, self.manager.copy_of(&name))
            {
                self.resume_output_of(&name, fd);
            }
        }
    }
}

/// The program that is installed where this one was started from.
fn installed() -> PathBuf {
    let first = std::env::args_os().next().map(PathBuf::from).filter(|path| path.is_absolute());
    let own = || std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/bin/dogwatch"));
    let path = first.unwrap_or_else(own).into_os_string().into_vec();
    // As the kernel marks a file that was replaced (proc_pid_exe(5)).
    let path = path.strip_suffix(b" (deleted)").map(<[u8]>::to_vec).unwrap_or(path);
    PathBuf::from(OsString::from_vec(path))
}

/// Says what is passed, as a variable.
fn list(passed: &[(String, BorrowedFd<'_>)]) -> String {
    let mut list = format!("{PASSED}={}", std::process::id());
    for (name, fd) in passed {
        list.push_str(&format!(":{}={name}", fd.as_raw_fd()));
    }
    list
}

/// Becomes the program, with our own arguments, and our own variables but for those about what systemd passed.
fn execute(
    program: &std::path::Path,
    variables: Vec<String>,
) -> io::Result<std::convert::Infallible> {
    let text = |text: OsString| CString::new(text.into_vec());
    let arguments = std::env::args_os().map(text).collect::<Result<Vec<_>, _>>()?;
    let is_kept = |name: &OsString| {
        !name.as_bytes().starts_with(b"LISTEN_") && name != PASSED && name != OPEN_FILES
    };
    let mut variables = variables.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?;
    for (mut name, value) in std::env::vars_os().filter(|(name, _)| is_kept(name)) {
        name.push("=");
        name.push(value);
        variables.push(text(name)?);
    }
    let program = CString::new(program.as_os_str().as_bytes())?;
    Ok(nix::unistd::execve(&program, &arguments, &variables)?)
}

fn read_all(pipe: OwnedFd) -> String {
    let mut said = vec![];
    // It has ended; what it started itself is not waited for.
    let _ = socket::set_nonblocking(&pipe, true);
    let _ = File::from(pipe).take(SAID as u64).read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

/// Reads once more what could not be read: the primary lives, and goes on writing while it is read.
fn again(read: impl Fn() -> Result<(), String>) -> Result<(), String> {
    (1..READINGS).find_map(|_| read().ok()).map_or_else(read, Ok)
}

/// Whether this program could go on where a primary stopped whose memories are passed; returns our version, or why not.
///
/// # Errors
/// What cannot be read.
pub fn trial() -> Result<String, crate::config::Error> {
    let read = |number: i32| {
        let file = File::open(format!("/proc/self/fd/{number}")).map_err(|e| e.to_string())?;
        Notebook::open(file.into()).map(|(_, text)| text)
    };
    let [of_state, of_channels] = MEMORIES;
    let known = again(|| {
        let state = read(of_state).and_then(|text| state::read(&text))?;
        state.core.revive(clock::now()).map(drop)
    });
    known.map_err(|why| refusal(format!("cannot read the state: {why}")))?;
    let channels = again(|| Memory::read(&read(of_channels)?).map(drop));
    channels.map_err(|why| refusal(format!("cannot read the state of the channels: {why}")))?;
    Ok(format!("{VERSION}{}", env!("CARGO_PKG_VERSION")))
}
