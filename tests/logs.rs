//! `dogwatch logs`: from the primary's memory, and from a journal that a script plays.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use support::primary::{Primary, Setup};
use support::{PATIENCE, dogwatch, wait_for};

/// `dogwatch logs ARGUMENTS`, which finds the primary of this folder.
fn logs(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.arg("60").arg(dogwatch()).arg("logs").args(arguments);
    command.env("RUNTIME_DIRECTORY", folder).env("TZ", "UTC").stdin(Stdio::null());
    command
}

/// What it prints, when it ends well.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The exit code and what it says, when it does not.
fn refused(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    assert!(output.stdout.is_empty(), "nothing on standard output");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Each line without its time.
fn without_time(text: &str) -> Vec<&str> {
    // `Nov 21 10:00:01.123 ` before everything.
    text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or(line)).collect()
}

/// One that follows, line by line.
struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// Waits for a line that contains `text`, and returns it.
    fn says(&self, text: &str) -> String {
        let mut said = vec![];
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => said.push(line),
                Err(_) => panic!("it never printed '{text}', but:\n{}", said.join("\n")),
            }
        }
    }

    fn ends(mut self) -> Option<i32> {
        wait_for("its end", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two workers that write a line for each file that appears, and one at the start.
fn two_writers() -> Primary {
    let script = "echo \"worker of $DOGWATCH_SLOT begins\"; i=0
        while :; do i=$((i+1)); while [ ! -e $RUNTIME_DIRECTORY/$i ]; do sleep 0.05; done; echo \"LINE $i\"; done";
    let ready = ["--ready", "alive:50ms", "--settle", "50ms", "--drain", "0s"];
    let run = [&["--name", "writers", "--workers", "2", "--log", "prefix"], &ready[..]].concat();
    let primary = Setup::script(&run, script).start();
    primary.is_ready();
    primary
}

fn touch(primary: &Primary, line: u32) {
    std::fs::write(primary.path(&line.to_string()), "").unwrap();
}

#[test]
fn the_last_lines_that_match_come_from_memory() {
    let primary = two_writers();
    let folder = primary.folder.path();
    (1..=3).for_each(|line| touch(&primary, line));
    wait_for("all lines", || {
        let text = printed(&mut logs(folder, &["writers", "-n", "all"]));
        (text.lines().filter(|line| line.contains(" writers/")).count() == 8).then_some(())
    });
    let slot = printed(&mut logs(folder, &["writers/1"]));
    let all = ["begins", "LINE 1", "LINE 2", "LINE 3"]
        .map(|text| text.replace("begins", "worker of 1 begins"));
    let of_worker = |text: &&str| text.starts_with("writers/1: ");
    let (lines, events): (Vec<&str>, Vec<&str>) =
        without_time(&slot).into_iter().partition(of_worker);
    assert_eq!(lines, all.clone().map(|text| format!("writers/1: {text}")));
    // What became of the worker stands among what it wrote.
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(
        events[0].starts_with("dogwatch: worker 2 (slot 1, generation 1) is ready"),
        "{events:?}"
    );
    let last = printed(&mut logs(folder, &["writers/0", "-n", "1"]));
    assert_eq!(without_time(&last), ["writers/0: LINE 3"]);
    // The last of those that match, not those that match of the last.
    let found = printed(&mut logs(folder, &["writers/0", "-n", "1", "--grep", "line [12]"]));
    assert_eq!(without_time(&found), ["writers/0: LINE 2"]);
    assert_eq!(printed(&mut logs(folder, &["writers", "--grep", "Line"])), "");
    assert_eq!(printed(&mut logs(folder, &["writers", "--generation", "2"])), "");
    assert_eq!(printed(&mut logs(folder, &["writers", "--generation", "1"])).lines().count(), 10);
    assert_eq!(printed(&mut logs(folder, &["writers", "--since", "1h"])).lines().count(), 11);
    assert_eq!(printed(&mut logs(folder, &["writers", "--since", "@4000000000"])), "");
    let json = printed(&mut logs(folder, &["writers/1", "-n", "1", "--json"]));
    let (start, rest) = json.split_once(',').unwrap();
    assert!(start.starts_with("{\"timeUsec\":"), "{json}");
    let (worker, rest) =
        rest.split_once("\"worker\":").map(|(_, rest)| rest.split_once(',').unwrap()).unwrap();
    assert!(worker.parse::<u64>().is_ok(), "{json}");
    assert_eq!(rest, "\"generation\":1,\"text\":\"LINE 3\"}\n");
    let (code, said) = refused(&mut logs(folder, &["writers/7"]));
    assert_eq!(
        (code, said.as_str()),
        (
            Some(4),
            "dogwatch: cannot read the logs of 'writers': there is no slot 7, the slots are 0 to 1\n"
        )
    );
    primary.stop();
}

#[test]
fn followers_see_lines_and_events_until_the_app_ends() {
    let primary = two_writers();
    let folder = primary.folder.path();
    touch(&primary, 1);
    let all = Following::start(&mut logs(folder, &["writers", "-f"]));
    all.says("writers/0: LINE 1");
    let new = Following::start(&mut logs(folder, &["writers", "-f", "--generation", "2"]));
    let slot = Following::start(&mut logs(folder, &["writers/1", "-f", "-n", "1", "--json"]));
    slot.says("LINE 1");
    touch(&primary, 2);
    all.says("LINE 2");
    primary.signal(nix::sys::signal::Signal::SIGHUP);
    all.says("dogwatch: reload");
    all.says("generation 2 serves every slot");
    new.says("writers/1: worker of 1 begins");
    let line = slot.says("\"generation\":2");
    assert!(line.contains("\"slot\":1"), "{line}");
    primary.stop();
    all.says("dogwatch: stopping");
    assert_eq!([all.ends(), new.ends(), slot.ends()], [Some(0); 3]);
}

#[test]
fn a_reader_that_is_gone_ends_it_quietly() {
    let primary = two_writers();
    let mut following = logs(primary.folder.path(), &["writers", "-f"]);
    let mut child = following.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Nothing is written any more, and yet it ends.
    drop(child.stdout.take());
    wait_for("its end", || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    primary.stop();
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, text) in [
        (["--grep", "a("], "'a(' is no regular expression: unclosed group"),
        (["--since", "soon"], "'soon' is no time, expected one like '10min ago', '2h', 'today'"),
        (["-n", "few"], "'few' is no number of entries, expected one like '100', or 'all'"),
    ] {
        let (code, said) = refused(&mut logs(folder.path(), &[&["app"], &arguments[..]].concat()));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(text), "{said}");
    }
}

/// A journal of one unit: each field that a reader needs, and some that are odd.
const JOURNAL: &str = r#"{"__CURSOR":"c1","__REALTIME_TIMESTAMP":"1700000001000000","_PID":"1","_SYSTEMD_UNIT":"init.scope","SYSLOG_IDENTIFIER":"systemd","PRIORITY":"6","MESSAGE":"Starting app.service"}
{"__CURSOR":"c2","__REALTIME_TIMESTAMP":"1700000002000000","_STREAM_ID":"s1","_SYSTEMD_UNIT":"app.service","SYSLOG_IDENTIFIER":"app/1","PRIORITY":"7","MESSAGE":"dogwatch: worker 2 (slot 1, generation 1) writes here"}
{"__CURSOR":"c3","__REALTIME_TIMESTAMP":"1700000003000000","_STREAM_ID":"s1","_SYSTEMD_UNIT":"app.service","SYSLOG_IDENTIFIER":"app/1","PRIORITY":"6","MESSAGE":[111,110,101,27]}
{"__CURSOR":"c4","__REALTIME_TIMESTAMP":"1700000004000000","_SYSTEMD_UNIT":"app.service","SYSLOG_IDENTIFIER":"dogwatch","DOGWATCH_SLOT":"1","DOGWATCH_WORKER":"2","DOGWATCH_GENERATION":"1","MESSAGE_ID":"271aa528f76d40b49ed1b85c4227d83c","PRIORITY":"6","MESSAGE":"worker 2 has gone"}
{"__CURSOR":"c5","__REALTIME_TIMESTAMP":"1700000005000000","_STREAM_ID":"s2","_SYSTEMD_UNIT":"app.service","SYSLOG_IDENTIFIER":"app/1","PRIORITY":"7","MESSAGE":"dogwatch: worker 4 (slot 1, generation 2) writes here"}
{"__CURSOR":"c6","__REALTIME_TIMESTAMP":"1700000006000000","_STREAM_ID":"s2","_SYSTEMD_UNIT":"app.service","SYSLOG_IDENTIFIER":"app/1","PRIORITY":"3","MESSAGE":"two"}
"#;

/// A folder with a journalctl that has that journal, and writes down what it is asked.
fn journal() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("journal"), JOURNAL).unwrap();
    let script = r#"#!/bin/sh
        folder=${0%/*}
        echo "$$ $*" >> "$folder/asked"
        case " $* " in
            *" --follow "*) cat "$folder/journal"; exec sleep 60;;
            *PRIORITY=7*) tac "$folder/journal" | grep '"PRIORITY":"7"';;
            *" --reverse "*) tac "$folder/journal";;
            *) cat "$folder/journal";;
        esac"#;
    let program = folder.path().join("journalctl");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// With that journalctl first on PATH, and nobody who answers.
fn with_journal(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = logs(folder, arguments);
    let path = std::env::var_os("PATH").unwrap();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(folders).unwrap());
    command
}

#[test]
#[cfg_attr(feature = "journal", ignore = "it runs no journalctl")]
fn an_app_that_is_down_is_read_from_the_journal() {
    let folder = journal();
    let folder = folder.path();
    let text = printed(&mut with_journal(folder, &["app"]));
    let lines = [
        "Nov 14 22:13:21.000 systemd: Starting app.service",
        "Nov 14 22:13:23.000 app/1: one\u{fffd}",
        "Nov 14 22:13:24.000 dogwatch: worker 2 has gone",
        "Nov 14 22:13:26.000 app/1: two",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    let of = |arguments: &[&str]| {
        let text = printed(&mut with_journal(folder, &[&["app"], arguments].concat()));
        without_time(&text).iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of(&["-n", "1"]), ["app/1: two"]);
    assert_eq!(of(&["-n", "all", "--grep", "^TWO|^ONE"]), [""; 0]);
    assert_eq!(of(&["-n", "all", "--grep", "^two|^one"]), ["app/1: one\u{fffd}", "app/1: two"]);
    assert_eq!(of(&["--generation", "1"]), ["app/1: one\u{fffd}", "dogwatch: worker 2 has gone"]);
    assert_eq!(of(&["--generation", "2", "-n", "all"]), ["app/1: two"]);
    assert_eq!(of(&["--since", "@1700000004"]), ["dogwatch: worker 2 has gone", "app/1: two"]);
    let json = printed(&mut with_journal(folder, &["app/1", "--json"]));
    assert_eq!(
        json.lines().collect::<Vec<_>>(),
        [
            r#"{"timeUsec":1700000003000000,"app":"app","source":"worker","slot":1,"worker":2,"generation":1,"priority":6,"text":"one\u001b"}"#,
            r#"{"timeUsec":1700000004000000,"app":"app","source":"dogwatch","slot":1,"worker":2,"generation":1,"priority":6,"text":"worker 2 has gone","messageId":"271aa528f76d40b49ed1b85c4227d83c"}"#,
            r#"{"timeUsec":1700000006000000,"app":"app","source":"worker","slot":1,"worker":4,"generation":2,"priority":3,"text":"two"}"#,
        ]
    );
}

#[test]
#[cfg_attr(feature = "journal", ignore = "it runs no journalctl")]
fn what_follows_leaves_no_child() {
    let folder = journal();
    let follow = ["app", "-f", "-n", "0"];
    let mut child = with_journal(folder.path(), &follow).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    assert!(first.ends_with("systemd: Starting app.service\n"), "{first}");
    drop(stdout);
    assert_eq!(wait_for("its end", || child.try_wait().unwrap()).code(), Some(0));
    let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
    let (pid, asked) = asked.lines().last().unwrap().split_once(' ').unwrap();
    assert!(
        asked.contains("--after-cursor=c6 --follow --no-tail _SYSTEMD_UNIT=app.service + "),
        "{asked}"
    );
    assert!(!Path::new("/proc").join(pid).exists(), "journalctl is gone");
}

#[test]
#[cfg_attr(feature = "journal", ignore = "it runs no journalctl")]
fn no_journal_and_no_primary_is_not_running() {
    let folder = journal();
    std::fs::write(folder.path().join("journal"), "").unwrap();
    let said = "dogwatch: cannot read the logs of 'none': it is not running, and ";
    let (code, text) = refused(&mut with_journal(folder.path(), &["none"]));
    assert_eq!(code, Some(3));
    assert!(text.starts_with(&format!("{said}the journal has nothing of 'none'\n")), "{text}");
    let failing = "#!/bin/sh\necho 'Failed to open the journal: \\033[1mNo\\033[0m' >&2; exit 1\n";
    std::fs::write(folder.path().join("journalctl"), failing).unwrap();
    let (code, text) = refused(&mut with_journal(folder.path(), &["none"]));
    assert_eq!(code, Some(3));
    assert!(
        text.starts_with(&format!("{said}journalctl says: Failed to open the journal: ")),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "{text}");
    // A host without systemd; env(1) is still found on our PATH.
    let mut without = Command::new("timeout");
    without.args(["60", "env", "PATH=/nonexistent"]).arg(dogwatch()).args(["logs", "none"]);
    let (code, text) = refused(without.env("RUNTIME_DIRECTORY", folder.path()));
    assert_eq!(code, Some(3));
    assert!(text.starts_with(&format!("{said}cannot run journalctl: No such file")), "{text}");
}
