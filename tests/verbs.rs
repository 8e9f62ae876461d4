//! The operator's verbs against the real binary: what they say, their exit codes, and that `--json` is what its schema
//! promises.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use support::dogwatch;
use support::primary::{Primary, Setup};

/// Runs a verb where the primary's own unit would, and returns its exit code, what it prints and what it complains of.
fn verb(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new("timeout")
        .arg("60")
        .arg(dogwatch())
        .args(arguments)
        .env("RUNTIME_DIRECTORY", folder)
        .env("XDG_RUNTIME_DIR", folder)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// A verb that must succeed.
fn ok(primary: &Primary, arguments: &[&str]) -> String {
    let (code, out, err) = verb(primary.folder.path(), arguments);
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}: {out}");
    out
}

/// A verb that must fail, with this exit code; returns why.
fn fails(primary: &Primary, code: i32, arguments: &[&str]) -> String {
    let (was, out, err) = verb(primary.folder.path(), arguments);
    assert_eq!(was, code, "{arguments:?}: {out}{err}");
    err
}

/// Says what in a document is not as the schema's definition `name` has it.
fn check(name: &str, document: &Value) {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/json-schema.json"));
    let mut schema: Value = serde_json::from_str(&text.unwrap()).unwrap();
    schema["anyOf"] = Value::Null;
    schema.as_object_mut().unwrap().remove("anyOf");
    schema["$ref"] = format!("#/$defs/{name}").into();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let wrong: Vec<String> =
        validator.iter_errors(document).map(|e| format!("{e} at {}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "{name}: {wrong:#?}\n{document:#}");
}

fn json(name: &str, text: &str) -> Value {
    let document = serde_json::from_str(text).unwrap();
    check(name, &document);
    document
}

fn app(more: &[&str]) -> Primary {
    let run = ["--name", "app", "-n", "2", "--settle", "0ms"];
    let primary = Setup::demo(&[&run, more].concat(), &["--lines", "2"]).start();
    primary.is_ready();
    primary
}

#[test]
fn each_verb_does_its_work_and_says_so() {
    let primary = app(&[]);
    for (arguments, said) in [
        (vec!["scale", "app", "+1"], "scaled from 2 to 3 slots"),
        (vec!["scale", "app", "3"], ""),
        (vec!["stop", "app/2"], "slot 2 is stopped until it is started again"),
        (vec!["show", "app/2"], "slot 2: stopped"),
        (vec!["start", "app/2"], "slot 2 is started again"),
        (vec!["start", "app/2"], "slot 2 of 'app' is not stopped"),
        (vec!["resume", "app"], "'app' is not paused"),
        (vec!["restart", "app/0"], "restarting slot 0"),
        (vec!["restart", "app"], "restarting every slot"),
        (vec!["pause", "app"], "paused: workers end, connections wait"),
        (vec!["show", "app"], "app: paused: connections wait\n"),
        (vec!["pause", "app"], "'app' is paused already"),
        (vec!["resume", "app"], "resumed"),
        (vec!["reset", "app/1"], "the failures of 'app/1' are forgotten"),
        (vec!["kill", "-s", "cont", "app"], "sent SIGCONT to "),
        (vec!["reload", "app", "--no-wait"], "reload of 'app' to generation 2 has begun"),
        (vec!["reload", "app"], "reload done: generation 3"),
        (vec!["reload", "app", "--dry-run"], "no setting of 'app' would change"),
        (vec!["scale", "app", "-2", "--no-wait"], ""),
        (vec!["show", "app"], "generation 3"),
    ] {
        let out = ok(&primary, &arguments);
        assert!(out.contains(said), "{arguments:?}: {out}");
        assert!(!out.contains('\x1b'), "no colours where there is no terminal");
    }
    primary.stop();
}

#[test]
fn a_canary_waits_until_the_operator_promotes_it_or_takes_it_back() {
    let primary = app(&["--balance", "steered", "--canary", "5"]);
    let begin = || {
        let mut reload = Command::new(dogwatch());
        reload.args(["reload", "app"]).env("RUNTIME_DIRECTORY", primary.folder.path());
        let mut reload = reload.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut told = BufReader::new(reload.stdout.take().unwrap()).lines().map(Result::unwrap);
        let waits = told.find(|line| line.contains("is the canary")).unwrap();
        (reload, told, waits)
    };
    let (reload, mut told, waits) = begin();
    assert_eq!(
        waits,
        "worker 3 (slot 0, generation 2) is the canary: it gets 5 of 100 connections until 'dogwatch promote'"
    );
    let show = ok(&primary, &["show", "app"]);
    assert!(
        show.starts_with(
            "app: reload to generation 2 0/2: canary worker 3 gets 5% until 'dogwatch promote'\n"
        ),
        "{show}"
    );
    assert!(show.contains("canary: worker 3 gets 5 of 100 connections until 'dogwatch promote app' or 'dogwatch rollback app'\n"), "{show}");
    json("list", &ok(&primary, &["list", "--json"]));
    let said = ok(&primary, &["promote", "app"]);
    assert_eq!(said, "the canary of 'app' is promoted, the reload goes on\n");
    assert!(told.any(|line| line.starts_with("reload done: generation 2")));
    assert!(reload.wait_with_output().unwrap().status.success());
    let (reload, _told, _) = begin();
    let said = ok(&primary, &["rollback", "app"]);
    assert!(
        said.contains("reload failed: the operator took it back; rolled back to gen"),
        "{said}"
    );
    let output = reload.wait_with_output().unwrap();
    let why = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{why}");
    assert!(why.starts_with("dogwatch: cannot reload 'app': the operator took it back; "), "{why}");
    assert!(primary.get("/").contains("generation 2,"));
    primary.stop();
}

#[test]
fn json_is_what_the_schema_promises() {
    let primary = app(&[]);
    let control = primary.path("control");
    let control = control.to_str().unwrap();
    let list = json("list", &ok(&primary, &["list", "--json", "--control", control]));
    assert_eq!(list["apps"][0]["name"], "app");
    assert_eq!(list["apps"][0]["usage"].as_object().unwrap().len(), 2);
    let usage = &list["apps"][0]["usage"]["1"];
    assert!(usage["memoryBytes"].as_u64().unwrap() > 100_000, "{usage}");
    json("show", &ok(&primary, &["show", "app", "--json"]));
    json("reload", &ok(&primary, &["reload", "app", "--dry-run", "--json"]));
    json("reload", &ok(&primary, &["reload", "app", "--no-wait", "--json"]));
    let mut events = Command::new(dogwatch())
        .args(["events", "app", "--json"])
        .env("RUNTIME_DIRECTORY", primary.folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut heard = BufReader::new(events.stdout.take().unwrap()).lines();
    let told = ok(&primary, &["reload", "app", "--json"]);
    told.lines().for_each(|line| drop(json("reload", line)));
    assert!(told.lines().last().unwrap().contains("reload done"), "{told}");
    // Every way to fail, and to be stopped, has its place in the schema.
    ok(&primary, &["kill", "-s", "KILL", "app/0"]);
    ok(&primary, &["stop", "app/1"]);
    let show = json("show", &ok(&primary, &["show", "app", "--json"]));
    assert_eq!(show["lastFailure"]["reason"], "was ended by SIGKILL");
    assert_eq!(show["lastFailure"]["lines"].as_array().unwrap().len(), 2, "{show}");
    assert_eq!(show["app"]["slots"][1]["state"], "stopped");
    primary.stop();
    let mut last = String::new();
    while let Some(Ok(line)) = heard.next() {
        json("event", &line);
        last = line;
    }
    assert!(last.contains("\"gone\"") || last.contains("\"stopping\""), "{last}");
    assert!(events.wait().unwrap().success());
}

#[test]
fn a_reload_that_fails_says_why_with_the_last_lines() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("app.toml");
    let write = |worker: &str| {
        let program = dogwatch().display();
        let text = format!(
            "command = [\"{program}\", \"demo-worker\"{worker}]\nworkers = 2\n[ready]\nsettle = \"0ms\"\n"
        );
        std::fs::write(&config, text).unwrap();
    };
    write("");
    let primary = Setup::new(&["--config", config.to_str().unwrap()]).start();
    primary.is_ready();
    write(", \"--lines\", \"70\", \"--exit\", \"3\"");
    let dry = ok(&primary, &["reload", "app", "--dry-run"]);
    assert!(dry.starts_with("command: ") && dry.contains("--exit 3"), "{dry}");
    let why = fails(&primary, 1, &["reload", "app"]);
    assert!(why.starts_with("dogwatch: cannot reload 'app': the worker of generation 2 in slot 0 exited with status 3 before it was ready; rolled back to generation 1 after "), "{why}");
    assert_eq!(why.lines().filter(|line| line.starts_with("    line ")).count(), 50, "{why}");
    let (code, out, _) = verb(primary.folder.path(), &["reload", "app", "--json"]);
    assert_eq!(code, 1);
    let verdict = json("reload", out.lines().last().unwrap());
    assert_eq!(verdict["exitCode"], 1);
    assert_eq!(verdict["failure"]["lines"].as_array().unwrap().len(), 50);
    std::fs::write(&config, "workers = 2\n\n[ready]\nsettel = \"1s\"\n").unwrap();
    let why = fails(&primary, 2, &["reload", "app"]);
    assert!(
        why.contains("app.toml:4: unknown key 'settel'")
            && why.contains("; everything goes on as it was"),
        "{why}"
    );
    assert!(fails(&primary, 2, &["check", config.to_str().unwrap()]).contains("app.toml:4"));
    assert!(fails(&primary, 2, &["reload", "app", "--dry-run"]).contains("app.toml:4"));
    assert!(primary.get("/").contains("generation 1,"));
    primary.stop();
}

#[test]
fn what_takes_a_restart_stays_as_it_was_and_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("app.toml");
    std::fs::write(&config, "workers = 2\n").unwrap();
    let mut primary = app(&["--config", config.to_str().unwrap()]);
    std::fs::write(
        &config,
        "workers = 2\nbalance = \"steered\"\nblocking = true\n[reload]\ncanary = 5\n",
    )
    .unwrap();
    primary.signal(Signal::SIGHUP);
    primary.says("balance has changed to 'steered', which takes a stop and start");
    primary.says("blocking has changed to true, which takes a restart of the app");
    // Nothing weighs connections, so there is no canary to wait for.
    primary.says("reload done: generation 2 ");
    assert!(ok(&primary, &["show", "app"]).contains("balance: shared"));
    primary.stop();
}

#[test]
fn doctor_says_what_it_can_without_a_unit() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("app.toml");
    std::fs::write(&config, "workers = 2\n").unwrap();
    let primary = app(&["--config", config.to_str().unwrap()]);
    let said = ok(&primary, &["doctor", "app"]);
    for part in [
        "app.toml' is good, with what the command line says",
        "it listens on ",
        "2 workers ready, generation 1",
        "what the file says is in force",
        "app: nothing is wrong",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    ok(&primary, &["stop", "app/0"]);
    assert!(ok(&primary, &["doctor", "app"]).contains("remedy: 'dogwatch start app/0'"));
    let report = json("doctor", &ok(&primary, &["doctor", "app", "--json"]));
    let findings = report["findings"].as_array().unwrap();
    let stopped = findings.iter().find(|finding| finding["about"] == "serving").unwrap();
    assert_eq!(stopped["remedy"], "'dogwatch start app/0'", "{report:#}");
    std::fs::write(&config, "workers = 2\nsettel = 1\n").unwrap();
    let (code, said, _) = verb(primary.folder.path(), &["doctor", "app"]);
    assert!(code == 1 && said.contains("app.toml:2: unknown key 'settel'"), "{code}\n{said}");
    assert!(fails(&primary, 2, &["doctor", "nosuch"]).contains("there is no app of that name"));
    primary.stop();
}

#[test]
fn what_cannot_be_done_is_said_with_the_right_exit_code() {
    let primary = app(&[]);
    for (code, arguments, said) in [
        (3, vec!["show", "ap"], "dogwatch: cannot reach 'ap': it is not running\n"),
        (
            4,
            vec!["show", "app/2"],
            "dogwatch: cannot show 'app': there is no slot 2, the slots are 0 to 1\n",
        ),
        (
            4,
            vec!["restart", "app/2"],
            "dogwatch: cannot restart slot 2 of 'app': there is no slot 2",
        ),
        (
            1,
            vec!["scale", "app", "0"],
            "that would be 0 slots, and one stays at least\nhint: 'dogwatch pause'",
        ),
        (1, vec!["scale", "app", "-9"], "that would be -7 slots"),
        (
            1,
            vec!["scale", "app", "70000"],
            "70000 slots are more than anybody needs\nhint: the most is 10000",
        ),
        (
            2,
            vec!["scale", "app", "many"],
            "'many' is no number of slots, expected one like '4', '+2' or '-1'",
        ),
        (1, vec!["promote", "app"], "cannot promote the canary of 'app': no reload is under way\n"),
        (1, vec!["rollback", "app"], "cannot roll back 'app': no reload is under way\n"),
        (2, vec!["scale", "app/1", "2"], "expected an app without a slot"),
        (2, vec!["stop", "app"], "expected a slot, as in 'app/0'"),
        (2, vec!["kill", "-s", "NOPE", "app"], "'NOPE' is no signal"),
        (2, vec!["show", "my app"], "cannot be the name of an app"),
        (2, vec!["relaod", "app"], "unrecognized subcommand 'relaod'"),
        (
            2,
            vec!["check", "/no/such.toml"],
            "dogwatch: cannot read '/no/such.toml': No such file or directory",
        ),
        (
            3,
            vec!["reload", "app", "--control", "/no/such/socket"],
            "cannot reach 'app': nobody listens on '/no/such/socket'",
        ),
    ] {
        let err = fails(&primary, code, &arguments);
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
    ok(&primary, &["stop", "app/0"]);
    assert!(fails(&primary, 1, &["stop", "app/1"]).contains("no other slot is served"));
    assert_eq!(ok(&primary, &["stop", "app/0"]), "slot 0 of 'app' is stopped already\n");
    ok(&primary, &["pause", "app"]);
    assert!(
        fails(&primary, 1, &["reload", "app"])
            .contains("paused, and has to be resumed first\nhint: 'dogwatch resume'")
    );
    primary.stop();
}

#[test]
fn names_that_are_near_are_suggested() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("dogwatch/webshop");
    std::fs::create_dir_all(&folder).unwrap();
    let run = ["--name", "webshop", "--settle", "0ms"];
    let primary = Setup::demo(&run, &[]).env("RUNTIME_DIRECTORY", folder.to_str().unwrap()).start();
    primary.is_ready();
    let ask = |name: &str| {
        let mut command = Command::new(dogwatch());
        command.args(["show", name]).env("XDG_RUNTIME_DIR", place.path());
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(ask("webshop").0, 0);
    let (code, why) = ask("web-shop");
    assert!(code == 3 && why.contains("hint: did you mean 'webshop'"), "{why}");
    let completed = Command::new(dogwatch())
        .args(["--", "dogwatch", "reload", "webs"])
        .env("DOGWATCH_COMPLETE", "fish")
        .env("XDG_RUNTIME_DIR", place.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(completed.stdout).unwrap().trim(), "webshop");
    primary.stop();
}

#[test]
fn a_primary_that_does_not_answer_is_not_waited_for_long() {
    let primary = app(&[]);
    primary.signal(Signal::SIGSTOP);
    let why = fails(&primary, 1, &["show", "app"]);
    assert!(why.contains("cannot reach 'app': its primary has not answered for 5s"), "{why}");
    primary.signal(Signal::SIGCONT);
    ok(&primary, &["show", "app"]);
    primary.stop();
}

#[test]
fn a_primary_of_another_version_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("control")).unwrap();
    // It describes itself as a later version that calls things by other names.
    let primary = std::thread::spawn(move || {
        for answer in [
            "{\"error\":\"org.varlink.service.MethodNotFound\",\"parameters\":{\"method\":\"org.dogwatch.Control.Pause\"}}",
            "{\"parameters\":{\"application\":7}}",
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut call = vec![];
            reader.read_until(0, &mut call).unwrap();
            let me = "{\"parameters\":{\"name\":\"app\",\"version\":\"9.9.9\",\"pid\":1,\"log\":\"memory\",\"listeners\":[],\"news\":true}}\0";
            stream.write_all(me.as_bytes()).unwrap();
            call.clear();
            reader.read_until(0, &mut call).unwrap();
            stream.write_all(format!("{answer}\0").as_bytes()).unwrap();
        }
    });
    for arguments in [["reset", "app"], ["show", "app"]] {
        let (code, _, why) = verb(folder.path(), &arguments);
        assert_eq!(code, 1, "{why}");
        assert!(why.contains("hint: the primary is dogwatch 9.9.9 and this is"), "{why}");
    }
    primary.join().unwrap();
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_verb_quietly() {
    let primary = app(&[]);
    let script = format!("{} show app | head -n 1", dogwatch().display());
    let output = Command::new("sh")
        .args(["-c", &script])
        .env("RUNTIME_DIRECTORY", primary.folder.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "app: 2 workers ready, generation 1\n");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    primary.stop();
}

#[test]
fn a_restart_that_fails_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let marker = folder.path().join("broken");
    let script = format!(
        "[ -e {} ] && echo 'no more' && exit 5; exec {} demo-worker",
        marker.display(),
        dogwatch().display()
    );
    // However often the slot is started until the file is gone, it is not given up.
    let run = ["--name", "app", "--settle", "0ms", "--start-limit", "1000/30s"];
    let primary = Setup::script(&run, &script).start();
    primary.is_ready();
    std::fs::write(&marker, "").unwrap();
    let why = fails(&primary, 1, &["restart", "app/0"]);
    assert!(why.starts_with("dogwatch: cannot restart slot 0 of 'app': worker 2 (slot 0, generation 1) exited with status 5 before it was ready; starting the slot again"), "{why}");
    assert!(why.contains("    no more\n"), "{why}");
    std::fs::remove_file(&marker).unwrap();
    ok(&primary, &["restart", "app/0"]);
    primary.stop();
}
