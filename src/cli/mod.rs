//! Arguments as typed, and what they mean. Everything but `run` and `demo` is a client of a running primary.

mod apps;
mod change;
mod client;
mod doctor;
mod draft;
mod events;
mod generate;
mod import;
mod init;
mod list;
mod logs;
mod man;
mod monit;
mod place;
mod put;
mod reload;
mod run;
mod send;
mod show;
mod target;
mod text;
mod trouble;
mod upgrade;
mod usage;

use crate::protocol::control::Scale;
use change::How;
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::engine::ArgValueCandidates;
use reload::ReloadArguments;
pub use run::RunArguments;
use std::path::PathBuf;
use std::process::ExitCode;
use target::{Target, app_name, one_slot};

/// Runs N copies of any server on one systemd socket and relieves them one at a time.
#[derive(Debug, Parser)]
#[command(name = "dogwatch", version, disable_help_subcommand = true)]
struct Arguments {
    /// Ask the primary at this control socket
    #[arg(long, global = true, value_name = "PATH", help_heading = "Global options")]
    control: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

/// The variable by which a shell asks for completions.
const COMPLETE: &str = "DOGWATCH_COMPLETE";

const COMPLETIONS_HELP: &str = "\
Examples:
  bash   dogwatch completions bash > /etc/bash_completion.d/dogwatch
  zsh    dogwatch completions zsh > /usr/local/share/zsh/site-functions/_dogwatch
  fish   dogwatch completions fish > ~/.config/fish/completions/dogwatch.fish";

const INIT_HELP: &str = "\
Nothing of the project is executed. The reason for each decision stands in the file; what could not be found out is said on
standard error, too.

Examples:
  dogwatch init
  cd /srv/myapp && sudo dogwatch init -o /etc/dogwatch
  sudo dogwatch init /srv/shop --name shop -l 127.0.0.1:3000 -o /etc/dogwatch";

const IMPORT_HELP: &str = "\
The file of another process manager: PM2's, a Procfile, gunicorn.conf.py, Puma's puma.rb. Those that are programs are run by
their own interpreter, with your rights. What has no counterpart is named on standard error, and in the file as a comment.

Examples:
  dogwatch import ecosystem.config.js
  dogwatch import Procfile
  dogwatch import gunicorn.conf.py
  dogwatch import config/puma.rb
  sudo dogwatch import ecosystem.config.js --env production -o /etc/dogwatch";

const DOCTOR_HELP: &str = "\
Nothing is changed. The exit code is 0 if nothing is wrong, whatever warnings there are, 1 if there is a problem, and 2 if there
is no such app. What the caller may not look at is 'unknown': root may look at everything.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run an app: hold its sockets and keep its workers, in the foreground
    Run(Box<RunArguments>),
    /// Run 4 built-in HTTP workers on 127.0.0.1:8080, to try things on
    Demo(DemoArguments),
    /// List all apps on this host: slots, state, pid, CPU, memory, connections
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show everything of an app or of one slot, the last failure and its last lines included
    Show {
        /// The app, or one slot of it
        #[arg(value_name = "APP[/SLOT]", add = complete_apps())]
        target: Target,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Watch an app, or all, in the whole terminal: slots, a reload as it goes, output; and keys to act
    Monit {
        /// The app; else all on this host
        #[arg(value_name = "APP", value_parser = app_name, add = complete_apps())]
        app: Option<String>,
    },
    /// Print what happens to an app, as it happens
    Events {
        /// The app
        #[arg(value_name = "APP", value_parser = app_name, add = complete_apps())]
        app: String,
        /// Print JSON, a line for each event
        #[arg(long)]
        json: bool,
        /// Also print the messages that Node's workers send: process.send()
        #[arg(long)]
        messages: bool,
    },
    /// Print what the workers wrote and what became of them: from the journal, or from the primary's memory
    Logs(logs::LogsArguments),
    /// Read everything again and relieve all workers, one at a time; the exit code is the verdict
    Reload(ReloadArguments),
    /// Go on with a reload that waits for its canary
    Promote {
        /// The app
        #[arg(value_name = "APP", value_parser = app_name, add = complete_apps())]
        app: String,
    },
    /// Undo the reload under way: every slot goes back to the generation before
    Rollback {
        /// The app
        #[arg(value_name = "APP", value_parser = app_name, add = complete_apps())]
        app: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Stop, then start all slots or one, with the settings in force
    Restart {
        /// The app, or one slot of it
        #[arg(value_name = "APP[/SLOT]", add = complete_apps())]
        target: Target,
        #[command(flatten)]
        wait: Wait,
    },
    /// Stop one slot: nobody serves it until it is started again
    Stop {
        /// The slot
        #[arg(value_name = "APP/SLOT", value_parser = one_slot, add = complete_apps())]
        target: Target,
        #[command(flatten)]
        wait: Wait,
    },
    /// Start a slot that was stopped
    Start {
        /// The slot
        #[arg(value_name = "APP/SLOT", value_parser = one_slot, add = complete_apps())]
        target: Target,
        #[command(flatten)]
        wait: Wait,
    },
    /// Change the number of slots
    Scale {
        /// The app
        #[arg(value_name = "APP", value_parser = app_name, add = complete_apps())]
        app: String,
        /// A number, or a difference like '+2' or '-1'
        #[arg(value_name = "N|+N|-N", allow_hyphen_values = true, value_parser = scale)]
        slots: Scale,
        #[command(flatten)]
        wait: Wait,
    },
    /// Send a signal to the workers of all slots or of one
    Kill {
        /// The signal's name
        #[arg(short, long, value_name = "SIGNAL", default_value = "TERM", value_parser = signal)]
        signal: String,
        /// The app, or one slot of it
        #[arg(value_name = "APP[/SLOT]", add = complete_apps())]
        target: Target,
    },
    /// Send a message to Node's workers, process.on('message'), and print what they send back
    Send(send::SendArguments),
    /// End all workers and keep listening: connections wait
    Pause {
        /// The app
        #[arg(value_name = "APP", value_parser = app_name, add = complete_apps())]
        app: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Serve again after a pause
    Resume {
        /// The app
        #[arg(value_name = "APP", value_parser = app_name, add = complete_apps())]
        app: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Forget the failures of all slots or of one: what was given up starts again
    Reset {
        /// The app, or one slot of it
        #[arg(value_name = "APP[/SLOT]", add = complete_apps())]
        target: Target,
    },
    /// Let the primary execute the program that is installed now: same process, same workers, no connection lost
    Upgrade {
        /// The app
        #[arg(value_name = "APP", value_parser = app_name, add = complete_apps(), required_unless_present = "all")]
        app: Option<String>,
        /// All apps on this host, one after the other; exit code 1 when one was refused
        #[arg(long, conflicts_with = "app")]
        all: bool,
    },
    /// Show that this program could take over from the primary that asks: part of `upgrade`
    #[command(hide = true)]
    UpgradeTrial,
    /// Look for whatever keeps an app from serving well: a line for each question, with a remedy for each finding
    #[command(after_help = DOCTOR_HELP)]
    Doctor(doctor::DoctorArguments),
    /// Look whether configuration files can be used
    Check {
        /// The files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Only by `run`, whatever the generator makes of them: what `doctor` asks
        #[arg(long, hide = true)]
        run: bool,
    },
    /// Write the configuration file for a project, by looking at it: Node, Python, Ruby, Go, Rust, PHP, or a Procfile
    #[command(after_help = INIT_HELP)]
    Init(init::InitArguments),
    /// Translate the file of PM2, foreman, gunicorn or Puma: one configuration file for each app
    #[command(after_help = IMPORT_HELP)]
    Import(import::ImportArguments),
    /// Make systemd's units of the files in /etc/dogwatch; systemd does that itself, this shows what it gets
    Generate(generate::GenerateArguments),
    /// Print the script that completes commands and app names in a shell
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell
        #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish"])]
        shell: String,
    },
    /// Print the manual, or that of the file, in the format of man(7): 'dogwatch man | man -l -' shows it
    Man {
        /// Which page
        #[arg(value_enum, default_value = "dogwatch")]
        page: man::Page,
    },
    /// Take the limits from the workers' control groups, so that systemd 252 and 253 can start the primary again: for
    /// ExecStopPost= alone
    #[command(hide = true)]
    ReleaseCgroup,
    /// Serve HTTP on the passed sockets; what `demo` runs
    #[command(hide = true)]
    DemoWorker(crate::demo::WorkerArguments),
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct Wait {
    /// Return at once
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, clap::Args)]
struct DemoArguments {
    /// Where to listen
    #[arg(short, long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    listen: crate::config::values::Address,
    /// How many workers
    #[arg(short = 'n', long, default_value = "4", value_name = "N")]
    workers: crate::config::values::Workers,
}

/// App names are completed from the running ones.
fn complete_apps() -> ArgValueCandidates {
    ArgValueCandidates::new(target::candidates)
}

/// `4`, `+2` or `-1`.
fn scale(text: &str) -> Result<Scale, String> {
    let number = text.parse::<i64>();
    let number = number.map_err(|_| {
        format!("'{text}' is no number of slots, expected one like '4', '+2' or '-1'")
    })?;
    if text.starts_with(['+', '-']) {
        Ok(Scale { to: None, by: Some(number) })
    } else {
        Ok(Scale { to: Some(number), by: None })
    }
}

/// A signal's name, as the kernel has it.
fn signal(text: &str) -> Result<String, String> {
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    let known = name.parse::<nix::sys::signal::Signal>();
    known.map_err(|_| format!("'{text}' is no signal, expected one like 'TERM' or 'USR1'"))?;
    Ok(name)
}

/// Prints what a shell has to read to complete our commands: it asks this program, which knows the running apps.
fn completions(shell: &str) -> Result<ExitCode, trouble::Trouble> {
    let cannot = |reason: String| {
        trouble::Trouble::new(
            trouble::Code::Failed,
            format!("cannot complete for '{shell}': {reason}"),
        )
    };
    let shells = clap_complete::env::Shells::builtins();
    let completer = shells.completer(shell).ok_or_else(|| cannot("it is not known".to_owned()))?;
    let mut script = Vec::new();
    let written =
        completer.write_registration(COMPLETE, "dogwatch", "dogwatch", "dogwatch", &mut script);
    written.map_err(|e| cannot(e.to_string()))?;
    text::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Does what the command line says and returns the exit code: 0 done, 1 failed, 2 usage or invalid configuration, 3 not
/// running, 4 no such slot.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(arguments) = generate::as_generator() {
        return generate::generate(&arguments).unwrap_or_else(|trouble| trouble.tell());
    }
    // The shell asks for completions by a variable, before anything is parsed.
    clap_complete::CompleteEnv::with_factory(Arguments::command).var(COMPLETE).complete();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let control = arguments.control.as_deref();
    let how = |wait: Wait| How { control, no_wait: wait.no_wait };
    let whole = |app: String| Target { app, slot: None };
    // These have something to put in order at their end, or do not end for that.
    let lives_on = matches!(
        arguments.verb,
        Verb::Run(_) | Verb::Demo(_) | Verb::DemoWorker(_) | Verb::Monit { .. } | Verb::Logs(_)
    );
    if !lives_on {
        crate::sys::process::end_at_broken_pipe();
    }
    let done = match arguments.verb {
        Verb::Run(arguments) => Ok(run::run(*arguments)),
        Verb::Demo(arguments) => Ok(run::demo(arguments.listen, arguments.workers)),
        Verb::DemoWorker(arguments) => Ok(crate::demo::serve(&arguments)),
        Verb::ReleaseCgroup => {
            crate::sys::cgroup::release().map(|()| ExitCode::SUCCESS).map_err(|e| {
                trouble::Trouble::new(
                    trouble::Code::Failed,
                    format!("cannot release the control group: {e}"),
                )
            })
        }
        Verb::Upgrade { app: Some(app), .. } => upgrade::upgrade(&app, control),
        Verb::Upgrade { app: None, .. } => upgrade::upgrade_all(control),
        Verb::UpgradeTrial => upgrade::trial(),
        Verb::Doctor(arguments) => doctor::doctor(&arguments, control),
        Verb::Check { files, run } => Ok(run::check(files, run)),
        Verb::Init(arguments) => init::init(&arguments),
        Verb::Import(arguments) => import::import(&arguments),
        Verb::Generate(arguments) => generate::generate(&arguments),
        Verb::Completions { shell } => completions(&shell),
        Verb::Man { page } => man::print(&Arguments::command(), page),
        Verb::List { json } => list::list(control, json),
        Verb::Show { target, json } => show::show(&target, control, json),
        Verb::Monit { app } => monit::monit(app, control),
        Verb::Events { app, json, messages } => events::events(&app, control, json, messages),
        Verb::Send(arguments) => send::send(&arguments, control),
        Verb::Logs(arguments) => logs::logs(&arguments, control),
        Verb::Reload(arguments) => reload::reload(&arguments, control),
        Verb::Promote { app } => change::promote(&app, control),
        Verb::Rollback { app, wait } => change::rollback(&whole(app), how(wait)),
        Verb::Restart { target, wait } => change::restart(&target, how(wait)),
        Verb::Stop { target, wait } => change::stop(&target, how(wait)),
        Verb::Start { target, wait } => change::start(&target, how(wait)),
        Verb::Scale { app, slots, wait } => change::scale(&whole(app), slots, how(wait)),
        Verb::Kill { signal, target } => change::kill(&target, &signal, control),
        Verb::Pause { app, wait } => change::pause(&whole(app), how(wait)),
        Verb::Resume { app, wait } => change::resume(&whole(app), how(wait)),
        Verb::Reset { target } => change::reset(&target, control),
    };
    done.unwrap_or_else(|trouble| trouble.tell())
}
