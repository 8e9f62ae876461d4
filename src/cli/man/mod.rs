//! The man pages `dogwatch(1)` and `dogwatch.toml(5)`, written from the same definitions as `--help`, with examples.
//! Packages install them; `dogwatch man | man -l -` shows one.

mod units;

use super::trouble::{Code, Trouble};
use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Which page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Page {
    /// dogwatch(1)
    #[value(name = "dogwatch")]
    Program,
    /// dogwatch.toml(5)
    #[value(name = "dogwatch.toml")]
    File,
}

/// Which flag of `run` has the text for a key of the file.
const FLAGS: [(&str, &str); 30] = [
    ("command", "command"),
    ("workers", "workers"),
    ("listen", "listen"),
    ("working-directory", "working_directory"),
    ("env", "env"),
    ("environment-files", "environment_files"),
    ("blocking", "blocking"),
    ("handoff", "handoff"),
    ("balance", "balance"),
    ("ready.when", "ready"),
    ("ready.timeout", "ready_timeout"),
    ("ready.settle", "settle"),
    ("ready.min", "ready_min"),
    ("ready.fd", "ready_fd"),
    ("stop.signal", "stop_signal"),
    ("stop.drain", "drain"),
    ("stop.timeout", "stop_timeout"),
    ("stop.message", "stop_message"),
    ("stop.when", "stop_when"),
    ("stop.close-idle", "close_idle"),
    ("restart.min-delay", "min_delay"),
    ("restart.max-delay", "max_delay"),
    ("restart.start-limit", "start_limit"),
    ("watchdog.interval", "watchdog"),
    ("reload.surge", "surge"),
    ("reload.canary", "canary"),
    ("reload.canary-time", "canary_time"),
    ("reload.on-failure", "on_failure"),
    ("log.mode", "log"),
    ("control.readers", "control_readers"),
];

/// How a value is written in the file, where that is not as after a flag.
const WRITTEN: [(&str, &str); 9] = [
    ("command", "[\"PROGRAM\", \"ARGUMENT\"]"),
    ("listen", "[\"ADDR\"]"),
    ("env", "{ KEY = \"VALUE\" }"),
    ("environment-files", "[\"FILE\"]"),
    ("blocking", "true"),
    ("stop.close-idle", "true or false"),
    ("restart.start-limit", "{ count = N, within = \"TIME\" }"),
    ("control.readers", "[\"WHO\"]"),
    ("workers", "N or \"cpus\""),
];

/// What is said of a key where it is not what is said of its flag.
const SAID: [(&str, &str); 1] = [(
    "listen",
    "Where to listen: PORT (on all addresses), ADDR:PORT, [V6]:PORT, udp:PORT or unix:PATH. systemd's socket unit is made of it; where no socket is passed, the primary listens itself",
)];

const EXAMPLES: [(&str, &str); 9] = [
    (
        "Four workers of a server on port 8080, without systemd:",
        "dogwatch run -l 8080 -n 4 --handoff node -- node server.js",
    ),
    (
        "Deploy: relieve all workers, one at a time, and see whether that worked:",
        "ln -sfn releases/42 current && dogwatch reload myapp || echo 'still on the old release'",
    ),
    ("What would a reload change?", "dogwatch reload myapp --dry-run"),
    ("Why did the last one fail?", "dogwatch show myapp"),
    (
        "Hold connections while a database is being switched over:",
        "dogwatch pause myapp; switch-over; dogwatch resume myapp",
    ),
    (
        "A file for the project that is in a folder:",
        "cd /srv/myapp && sudo dogwatch init -o /etc/dogwatch",
    ),
    ("From gunicorn, Puma or a Procfile:", "dogwatch import gunicorn.conf.py -o /etc/dogwatch"),
    (
        "From PM2: one file for each app, and what has no counterpart:",
        "dogwatch import ecosystem.config.js --env production -o /etc/dogwatch",
    ),
    (
        "From a program: the pid of every worker that serves:",
        "dogwatch list --json | jq '.apps[].slots[].workers[] | select(.state == \"ready\") | .pid'",
    ),
];

const FILE_EXAMPLE: &str = "\
command = [\"node\", \"server.js\"]
handoff = \"node\"
workers = \"cpus\"
listen = [\"8080\"]
enabled = true
working-directory = \"/srv/myapp/current\"
env = { NODE_ENV = \"production\" }
[ready]
timeout = \"20s\"
[stop]
drain = \"10s\"
[control]
readers = [\"@adm\"]
[sandbox]
state = true
[service]
MemoryMax = \"2G\"";

/// Prints a page in the format of man(7).
pub(super) fn print(command: &Command, page: Page) -> Result<ExitCode, Trouble> {
    let mut text = Vec::new();
    let written = match page {
        Page::Program => program(command, &mut text),
        Page::File => file(command, &mut text),
    };
    let written = written.and_then(|()| io::stdout().write_all(&text));
    written.map_err(|e| Trouble::new(Code::Failed, format!("cannot write the page: {e}")))?;
    Ok(ExitCode::SUCCESS)
}

fn program(command: &Command, out: &mut Vec<u8>) -> io::Result<()> {
    let mut command = command.clone();
    command.build();
    let man = Man::new(command.clone()).manual("dogwatch").section("1").date(" ");
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    let mut roff = Roff::new();
    roff.control("SH", ["VERBS"]);
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        verb_section(&mut roff, verb);
    }
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in [
        ("0", "Done."),
        ("1", "Failed: rolled back, refused, or it did not come to pass."),
        ("2", "Usage, or a configuration that cannot be used."),
        ("3", "The app is not running."),
        ("4", "There is no such slot."),
    ] {
        roff.control("TP", []).text([bold(code)]).text([roman(meaning)]);
    }
    roff.control("SH", ["FILES"]);
    for (path, meaning) in [
        ("/etc/dogwatch/APP.toml", "The configuration of an app, see dogwatch.toml(5)."),
        ("~/.config/dogwatch/APP.toml", "That of a user's own app, for systemctl --user."),
        (
            "/run/dogwatch/APP/control",
            "Where the primary of an app is asked, by Varlink, interface org.dogwatch.Control; a user's own are in $XDG_RUNTIME_DIR/dogwatch.",
        ),
    ] {
        roff.control("TP", []).text([italic(path)]).text([roman(meaning)]);
    }
    roff.control("SH", ["EXAMPLES"]);
    for (what, how) in EXAMPLES {
        roff.control("PP", []).text([roman(what)]);
        roff.control("PP", []).control("RS", ["4"]).control("nf", []).text([roman(how)]);
        roff.control("fi", []).control("RE", []);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(
        "dogwatch.toml(5), systemd.socket(5), systemd.service(5), journalctl(1), varlinkctl(1)",
    )]);
    roff.to_writer(out)
}

fn verb_section(roff: &mut Roff, verb: &Command) {
    let usage = verb.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    roff.control("SS", [usage.as_str()]);
    if let Some(about) = verb.get_about() {
        roff.text([roman(format!("{about}."))]);
    }
    for arg in verb.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_global_set()) {
        argument(roff, arg);
    }
}

fn argument(roff: &mut Roff, arg: &Arg) {
    let Some(help) = arg.get_help().filter(|_| arg.get_id() != "help") else {
        return;
    };
    let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let takes = arg.get_action().takes_values();
    let mut term = vec![];
    if let Some(short) = arg.get_short() {
        term.extend([bold(format!("-{short}")), roman(", ")]);
    }
    if let Some(long) = arg.get_long() {
        term.push(bold(format!("--{long}")));
    }
    if let Some(value) = value.filter(|_| takes) {
        term.extend([roman(if term.is_empty() { "" } else { " " }), italic(value)]);
    }
    let default = arg.get_default_values().first().filter(|_| takes);
    let default = default.map(|value| value.to_string_lossy());
    let default = default.map(|value| format!(" [default: {value}]")).unwrap_or_default();
    roff.control("TP", []).text(term).text([roman(format!("{help}{default}"))]);
}

fn file(command: &Command, out: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    let version = format!("dogwatch {}", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["dogwatch.toml", "5", " ", version.as_str(), "dogwatch"]);
    roff.control("SH", ["NAME"]).text([roman("dogwatch.toml - the configuration of an app")]);
    roff.control("SH", ["SYNOPSIS"]).text([italic("/etc/dogwatch/APP.toml")]);
    roff.control("SH", ["DESCRIPTION"]).text([roman(
        "One file, in TOML, says what dogwatch(1) runs. It is read at the start and again at each reload; a reload \
         with a file that cannot be used changes nothing. Every key has a default that is safe, but for the command. \
         A key with a dot stands in a table: ready.timeout is timeout below [ready]. Unknown keys are errors. \
         Times are written like \"500ms\", \"30s\" or \"1h 30min\".",
    )]);
    roff.control("SH", ["KEYS"]);
    let run = command.find_subcommand("run");
    for key in crate::config::typed::Typed::keys() {
        let flag = FLAGS.iter().find(|(known, _)| *known == key).map(|(_, flag)| *flag);
        let arg =
            run.and_then(|run| run.get_arguments().find(|arg| Some(arg.get_id().as_str()) == flag));
        let Some(arg) = arg else { continue };
        let written =
            WRITTEN.iter().find(|(known, _)| *known == key).map(|(_, text)| (*text).to_owned());
        let value = written.unwrap_or_else(|| {
            let name = arg.get_value_names().and_then(|names| names.first());
            let name = name.map(ToString::to_string).unwrap_or_default();
            if matches!(name.as_str(), "N" | "FD") { name } else { format!("\"{name}\"") }
        });
        let said = SAID.iter().find(|(known, _)| *known == key).map(|(_, text)| (*text).to_owned());
        let help = said.or_else(|| Some(arg.get_help()?.to_string())).unwrap_or_default();
        let help = help.replace(" (can be repeated)", "");
        roff.control("TP", []).text([bold(key), roman(" = "), italic(value)]).text([roman(help)]);
    }
    roff.control("SH", ["UNITS"]).text([roman(
        "Of a file with 'listen' systemd gets the units APP.socket and APP.service, at boot and at 'systemctl daemon-reload'. These keys \
         speak of them, and have no flag. What the sandbox allows is false unless the file says true.",
    )]);
    for (key, value, help) in units::KEYS {
        roff.control("TP", []).text([bold(key), roman(" = "), italic(value)]).text([roman(help)]);
    }
    roff.control("SH", ["EXAMPLE"]).control("nf", []);
    for line in FILE_EXAMPLE.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.control("SH", ["SEE ALSO"]).text([roman("dogwatch(1), systemd.exec(5), systemd.time(7)")]);
    roff.to_writer(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn page(page: Page) -> String {
        let mut text = Vec::new();
        let command = super::super::Arguments::command();
        match page {
            Page::Program => program(&command, &mut text).unwrap(),
            Page::File => file(&command, &mut text).unwrap(),
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn every_key_and_every_flag_is_explained() {
        let text = page(Page::File).replace("\\-", "-");
        let tables = ["unit", "service", "socket"].map(str::to_owned);
        for key in crate::config::typed::Typed::keys().into_iter().chain(tables) {
            assert!(text.contains(&format!("\\fB{key}\\fR = ")), "{key} is missing:\n{text}");
        }
        assert!(text.contains("socket unit is made of it"), "{text}");
        let command = super::super::Arguments::command();
        let run = command.find_subcommand("run").unwrap();
        for arg in run.get_arguments() {
            // Where the file is, and what is decided before it is read.
            if ["config", "name", "orphans"].contains(&arg.get_id().as_str()) {
                continue;
            }
            assert!(
                FLAGS.iter().any(|(_, flag)| *flag == arg.get_id()),
                "{} is no key",
                arg.get_id()
            );
        }
    }

    #[test]
    fn every_verb_is_explained() {
        let text = page(Page::Program).replace("\\-", "-");
        let mut command = super::super::Arguments::command();
        command.build();
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            assert!(
                text.contains(&format!(".SS \"dogwatch {}", verb.get_name())),
                "{}:\n{text}",
                verb.get_name()
            );
        }
        for word in ["EXIT STATUS", "EXAMPLES", "--dry-run", "dogwatch.toml(5)"] {
            assert!(text.contains(word), "{word}");
        }
    }

    #[test]
    fn the_example_file_is_a_good_one() {
        let typed = crate::config::file::parse("example", FILE_EXAMPLE).unwrap();
        assert!(crate::config::Settings::new(typed, 4).is_ok());
    }
}
