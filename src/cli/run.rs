//! `dogwatch run` and `dogwatch demo`: flags to settings, the name of the app, and how it ended.

use super::generate::Made;
use crate::config::typed::{Control, Log, Ready, Reload, Restart, Stop, Typed, Watchdog};
use crate::config::values::{
    Address, Balance, Handoff, LogMode, OnFailure, Reader, ReadyWhen, StartLimit, StopSignal,
    StopWhen, Time, Variable, Workers,
};
use crate::core::Outcome;
use crate::primary::{self, Refusal, Source, refuse_name};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What runs scripts: the script is the app.
const INTERPRETERS: [&str; 10] =
    ["python", "node", "ruby", "php", "perl", "bash", "sh", "deno", "bun", "java"];

/// Which of them a program is, whatever its version.
pub(super) fn interpreter(program: &str) -> Option<&'static str> {
    let name = Path::new(program).file_name()?.to_str()?;
    let is_version = |rest: &str| rest.chars().all(|c| c.is_ascii_digit() || c == '.');
    let mut all = INTERPRETERS.into_iter();
    all.find(|known| name.strip_prefix(known).is_some_and(is_version))
}

/// Every key of the file is also a flag, and wins over the file.
#[derive(Debug, clap::Args)]
pub struct RunArguments {
    /// Read settings from this file, again at each reload
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What the app is called [default: the file's name, the unit's name, or the program's or script's]
    #[arg(long, value_name = "APP")]
    name: Option<String>,
    /// Where to listen when systemd passes no socket: PORT (on all addresses), ADDR:PORT, [V6]:PORT, udp:PORT or unix:PATH (can be repeated)
    #[arg(short, long, value_name = "ADDR")]
    listen: Vec<Address>,
    /// How many workers: a number, 'cpus' or 'cpus-1' [default: 1]
    #[arg(short = 'n', long, value_name = "N")]
    workers: Option<Workers>,
    /// Where workers run; a symlink is resolved at each reload
    #[arg(long, value_name = "DIR")]
    working_directory: Option<PathBuf>,
    /// A variable for the workers (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    env: Vec<Variable>,
    /// A file of variables, read at each spawn (can be repeated)
    #[arg(long = "environment-file", value_name = "FILE")]
    environment_files: Vec<PathBuf>,
    /// For programs whose accept call must block
    #[arg(long)]
    blocking: bool,
    /// How a worker gets its sockets: fd (LISTEN_FDS) or node (listen() in Node) [default: fd]
    #[arg(long, value_name = "HOW")]
    handoff: Option<Handoff>,
    /// Who gets a new connection: shared, round-robin, round-robin:client-ip, steered, steered:client-ip or
    /// steered:least-connections [default: shared; with node, round-robin]
    #[arg(long, value_name = "HOW")]
    balance: Option<Balance>,
    /// What shows that a worker is ready: auto, notify, accepting, fd, listening, message or alive:2s [default: auto; with node, listening]
    #[arg(long, value_name = "WHEN")]
    ready: Option<ReadyWhen>,
    /// A worker that is not ready after this long has failed [default: 30s]
    #[arg(long, value_name = "TIME")]
    ready_timeout: Option<Time>,
    /// How long a worker must live after it was ready before the incumbent goes [default: 1s]
    #[arg(long, value_name = "TIME")]
    settle: Option<Time>,
    /// Say READY=1 when this many workers are ready [default: all]
    #[arg(long, value_name = "N")]
    ready_min: Option<u16>,
    /// The number of the readiness file descriptor [default: the first after the sockets]
    #[arg(long, value_name = "FD")]
    ready_fd: Option<i32>,
    /// The signal that asks a worker to end [default: SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<StopSignal>,
    /// How long a worker may finish what it has [default: 30s]
    #[arg(long, value_name = "TIME")]
    drain: Option<Time>,
    /// How long it may take to end after that before it is killed [default: 10s]
    #[arg(long, value_name = "TIME")]
    stop_timeout: Option<Time>,
    /// Tell a Node worker this message when it is to end; PM2 sends 'shutdown'
    #[arg(long, value_name = "TEXT")]
    stop_message: Option<String>,
    /// When a withdrawn worker gets the signal: at-once or idle [default: at-once; steered, idle]
    #[arg(long, value_name = "WHEN")]
    stop_when: Option<StopWhen>,
    /// Close idle connections of a withdrawn worker once half of the drain time is over [default: only if steered]
    #[arg(long, value_name = "BOOL")]
    close_idle: Option<bool>,
    /// The first delay between starts of a slot that fails again and again [default: 100ms]
    #[arg(long, value_name = "TIME")]
    min_delay: Option<Time>,
    /// The longest delay [default: 30s]
    #[arg(long, value_name = "TIME")]
    max_delay: Option<Time>,
    /// Give a slot up after so many failures within this time; '0/30s' for never [default: 5/30s]
    #[arg(long, value_name = "N/TIME")]
    start_limit: Option<StartLimit>,
    /// End a worker that gives no heartbeat for this long [default: none is expected]
    #[arg(long, value_name = "TIME")]
    watchdog: Option<Time>,
    /// How many slots a reload relieves at a time [default: 1]
    #[arg(long, value_name = "N")]
    surge: Option<u16>,
    /// Give the first new worker of a reload this many of a hundred connections, and wait for '--canary-time' or 'dogwatch promote'
    #[arg(long, value_name = "PERCENT")]
    canary: Option<u8>,
    /// How long the canary is watched [default: until 'dogwatch promote']
    #[arg(long, value_name = "TIME")]
    canary_time: Option<Time>,
    /// What a reload does when a new worker fails: rollback [default: rollback]
    #[arg(long, value_name = "HOW")]
    on_failure: Option<OnFailure>,
    /// Where the workers' output goes: auto, stream, direct, prefix or inherit [default: auto]
    #[arg(long, value_name = "MODE")]
    log: Option<LogMode>,
    /// Who may look at the app, beside root and its own user: a user, '@group' or '*' (can be repeated)
    #[arg(long, value_name = "WHO")]
    control_readers: Vec<Reader>,
    /// Without systemd, what becomes of the workers when the primary is killed: end or keep
    #[arg(long, value_enum, default_value = "end", value_name = "HOW")]
    orphans: Orphans,
    /// The program and its arguments
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// What becomes of the workers of a primary that is killed, where systemd does not start it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Orphans {
    /// They end too.
    End,
    /// They live on, without anybody.
    Keep,
}

impl RunArguments {
    /// Returns these flags as settings; a flag that was not given is silent.
    fn typed(self) -> Typed {
        let some = |list: Vec<_>| (!list.is_empty()).then_some(list);
        Typed {
            command: some(self.command),
            workers: self.workers,
            listen: (!self.listen.is_empty()).then_some(self.listen),
            working_directory: self.working_directory,
            env: (!self.env.is_empty())
                .then(|| self.env.into_iter().map(|Variable(k, v)| (k, v)).collect()),
            environment_files: (!self.environment_files.is_empty())
                .then_some(self.environment_files),
            blocking: self.blocking.then_some(true),
            handoff: self.handoff,
            balance: self.balance,
            ready: Ready {
                when: self.ready,
                timeout: self.ready_timeout,
                settle: self.settle,
                min: self.ready_min,
                fd: self.ready_fd,
            },
            stop: Stop {
                signal: self.stop_signal,
                drain: self.drain,
                timeout: self.stop_timeout,
                message: self.stop_message,
                when: self.stop_when,
                close_idle: self.close_idle,
            },
            restart: Restart {
                min_delay: self.min_delay,
                max_delay: self.max_delay,
                start_limit: self.start_limit,
            },
            watchdog: Watchdog { interval: self.watchdog },
            reload: Reload {
                surge: self.surge,
                on_failure: self.on_failure,
                canary: self.canary,
                canary_time: self.canary_time,
            },
            log: Log { mode: self.log },
            control: Control {
                readers: (!self.control_readers.is_empty()).then_some(self.control_readers),
            },
            // The units are made from a file.
            ..Typed::default()
        }
    }

    /// The program's name, or that of the script that it runs: `node server.js` is `server`.
    fn command_name(&self) -> Option<String> {
        let stem =
            |path: &String| Some(Path::new(path).file_stem()?.to_string_lossy().into_owned());
        let program = self.command.first().and_then(stem)?;
        let is_interpreter = interpreter(&program).is_some();
        let script = self.command.iter().skip(1).find(|argument| !argument.starts_with('-'));
        let script = script.filter(|script| is_interpreter && Path::new(script).is_file());
        script.and_then(stem).or(Some(program))
    }

    /// `--name`, else the file's stem, else the unit's name, else the program's.
    fn name(&self) -> String {
        let stem =
            |path: &PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        self.name
            .clone()
            .or_else(|| self.config.as_ref().and_then(stem))
            .or_else(|| primary::unit()?.strip_suffix(".service").map(str::to_owned))
            .or_else(|| self.command_name())
            .unwrap_or_else(|| "app".to_owned())
    }
}

/// Runs an app.
pub(super) fn run(arguments: RunArguments) -> ExitCode {
    let name = arguments.name();
    if let Some(message) = refuse_name(&name) {
        return refuse(&Refusal { message, hint: Some("name the app with '--name'".to_owned()) });
    }
    let orphans_stay = arguments.orphans == Orphans::Keep;
    let source =
        Source { config: arguments.config.clone(), flags: arguments.typed(), orphans_stay };
    finish(primary::run(&name, source))
}

/// Looks whether files can be used, by `run`, a reload and the generator: one that cannot does not hide the next. With
/// `only_run` the generator is not asked.
pub(super) fn check(files: Vec<PathBuf>, only_run: bool) -> ExitCode {
    let made =
        if only_run { vec![Made::Units; files.len()] } else { super::generate::made(&files) };
    let checked = files.into_iter().zip(made).map(|(file, made)| check_one(file, made));
    let bad: Vec<ExitCode> = checked.filter_map(Result::err).collect();
    bad.into_iter().next().unwrap_or(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "this is what the verb is for")]
fn check_one(file: PathBuf, made: Made) -> Result<(), ExitCode> {
    let name = file.display().to_string();
    let source = Source { config: Some(file), ..Source::default() };
    let settings = source.check().map_err(|refusal| refuse(&refusal))?;
    let instead = match made {
        Made::Units => "",
        Made::Nothing => "; without 'listen' it gets no units",
        Made::Refused(error) => return Err(refuse(&error)),
    };
    let workers = settings.policy.slots;
    let s = if workers == 1 { "" } else { "s" };
    println!("{name}: good, {workers} worker{s} of '{}'{instead}", settings.command.join(" "));
    Ok(())
}

/// Runs the built-in workers, and says what to try.
pub(super) fn demo(listen: Address, workers: Workers) -> ExitCode {
    let Ok(program) = std::env::current_exe() else {
        return refuse(&Refusal { message: "cannot find my own program".to_owned(), hint: None });
    };
    let url = match listen.tcp() {
        Some(address) if address.ip().is_unspecified() => {
            format!("http://127.0.0.1:{}", address.port())
        }
        Some(address) => format!("http://{address}"),
        None => "--unix-socket PATH http://localhost".to_owned(),
    };
    explain(&url);
    let flags = Typed {
        command: Some(vec![program.to_string_lossy().into_owned(), "demo-worker".to_owned()]),
        listen: Some(vec![listen]),
        workers: Some(workers),
        ..Typed::default()
    };
    finish(primary::run("demo", Source { flags, ..Source::default() }))
}

#[expect(clippy::print_stderr, reason = "this is what the verb is for")]
fn explain(url: &str) {
    let pid = std::process::id();
    eprint!(
        "\
Workers that answer HTTP, relieved one at a time. In another terminal, keep this running:

    while curl -sS {url}/; do sleep 0.1; done

and see that it never fails while you

    kill -HUP {pid}                  reload: relieve all workers, one by one
    kill -9 $(curl -s {url}/pid)     crash one: its slot is served again at once
    kill -TTIN {pid}                 one worker more (TTOU: one fewer)
    curl '{url}/slow?ms=5000' &      a slow request, which a reload waits for

Ctrl-C stops.

"
    );
}

fn finish(ended: Result<Outcome, Refusal>) -> ExitCode {
    match ended {
        Ok(Outcome::Stopped) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Err(refusal) => refuse(&refusal),
    }
}

#[expect(clippy::print_stderr, reason = "the one line that says why")]
fn refuse(refusal: &Refusal) -> ExitCode {
    eprintln!("dogwatch: {refusal}");
    if let Some(hint) = &refusal.hint {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(2)
}
