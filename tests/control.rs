//! The control socket of the real binary: its description holds, and no client can do harm.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use serde_json::{Map, Value, json};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use support::control::Raw;
use support::primary::{Primary, Setup};
use support::wait_for;
use zlink_idl::{CustomType, Interface, Type};

const APP: [&str; 4] = ["--name", "app", "-n", "2"];

/// A primary that is ready, with a control socket.
fn started(run: &[&str], worker: &[&str]) -> Primary {
    let settle: &[&str] = if run.contains(&"--settle") { &[] } else { &["--settle", "0ms"] };
    let primary = Setup::demo(&[&APP, settle, run].concat(), worker).start();
    primary.is_ready();
    primary
}

fn raw(primary: &Primary) -> Raw {
    Raw::connect(&primary.path("control"))
}

/// The interface as it describes itself.
struct Described<'a>(Interface<'a>);

impl Described<'_> {
    /// Every field is described, none is missing, and each has its type.
    fn check_fields<'f>(
        &self,
        fields: impl Iterator<Item = (String, &'f Type<'f>)>,
        value: &Map<String, Value>,
        at: &str,
    ) {
        let mut known = vec![];
        for (name, kind) in fields {
            match value.get(&name) {
                Some(value) => self.check(kind, value, &format!("{at}.{name}")),
                None => assert!(kind.as_optional().is_some(), "{at}.{name} is missing"),
            }
            known.push(name);
        }
        for name in value.keys() {
            assert!(known.contains(name), "{at}.{name} is not described");
        }
    }

    fn check(&self, kind: &Type<'_>, value: &Value, at: &str) {
        let object = || value.as_object().unwrap_or_else(|| panic!("{at} is no object: {value}"));
        match kind {
            Type::Bool => assert!(value.is_boolean(), "{at}: {value}"),
            Type::Int => assert!(value.is_i64() || value.is_u64(), "{at}: {value}"),
            Type::String => assert!(value.is_string(), "{at}: {value}"),
            Type::Optional(_) if value.is_null() => {}
            Type::Optional(inner) => self.check(inner.inner(), value, at),
            Type::Array(inner) => {
                for (n, value) in value.as_array().unwrap().iter().enumerate() {
                    self.check(inner.inner(), value, &format!("{at}[{n}]"));
                }
            }
            Type::Custom(name) => {
                let named = |t: &&CustomType<'_>| t.name() == name;
                let custom = self
                    .0
                    .custom_types()
                    .find(named)
                    .unwrap_or_else(|| panic!("{name} is not described"));
                if let Some(words) = custom.as_enum() {
                    let known = words.variants().any(|v| Some(v.name().as_str()) == value.as_str());
                    assert!(known, "{at}: {value} is no {name}");
                } else {
                    let fields = custom.as_object().unwrap();
                    let fields = fields.fields().map(|f| (f.name().to_string(), f.ty()));
                    self.check_fields(fields, object(), at);
                }
            }
            Type::Float
            | Type::ForeignObject
            | Type::Any
            | Type::Map(_)
            | Type::Enum(_)
            | Type::Object(_) => {
                panic!("{at}: {kind:?} is not used here")
            }
        }
    }

    /// What was answered to a method is what its description says.
    fn check_reply(&self, method: &str, reply: &Value) {
        if let Some(error) = reply["error"].as_str() {
            let Some(name) = error.strip_prefix("org.dogwatch.Control.") else {
                return;
            };
            let error = self.0.errors().find(|e| e.name().as_str() == name);
            let error = error.unwrap_or_else(|| panic!("{name} is not described"));
            let fields = error.fields().map(|f| (f.name().to_string(), f.ty()));
            self.check_fields(fields, reply["parameters"].as_object().unwrap(), name);
        } else {
            let described = self.0.methods().find(|m| m.name().as_str() == method);
            let described = described.unwrap_or_else(|| panic!("{method} is not described"));
            let fields = described.outputs().map(|p| (p.name().to_string(), p.ty()));
            self.check_fields(fields, reply["parameters"].as_object().unwrap(), method);
        }
    }
}

#[test]
fn every_answer_is_what_the_interface_describes() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("app.toml");
    let worker = |flags: &str| {
        let program = support::dogwatch().display();
        format!(
            "command = [\"{program}\", \"demo-worker\", \"--lines\", \"3\"{flags}]\nenv = {{ A = \"b\" }}\nworking-directory = \"/tmp\"\n"
        )
    };
    std::fs::write(&config, worker("")).unwrap();
    let primary = Setup::new(&[
        "--name",
        "app",
        "-n",
        "3",
        "--settle",
        "0ms",
        "--config",
        config.to_str().unwrap(),
    ])
    .start();
    primary.is_ready();
    let mut client = raw(&primary);
    let info = client.ask("org.varlink.service.GetInfo", json!({}), &[]);
    assert_eq!(
        info[0]["parameters"]["interfaces"],
        json!(["org.varlink.service", "org.dogwatch.Control"])
    );
    let text = client.ask(
        "org.varlink.service.GetInterfaceDescription",
        json!({ "interface": "org.dogwatch.Control" }),
        &[],
    );
    let text = text[0]["parameters"]["description"].as_str().unwrap();
    let described = Described(Interface::try_from(text).unwrap());
    let calls = [
        ("Describe", json!({}), "", ""),
        ("List", json!({}), "", "\"state\":\"ready\""),
        ("Show", json!({}), "", "\"key\":\"env.A\""),
        ("Check", json!({}), "", ""),
        ("Reload", json!({ "dryRun": true }), "", "\"changes\":[]"),
        ("Reload", json!({}), "", "reload done: generation 2"),
        ("Reload", json!({}), "more", "\"kind\":\"ready\""),
        ("Reload", json!({ "noWait": true }), "", "\"generation\":4"),
        ("Restart", json!({ "slot": 0 }), "", "Refused"),
        ("Scale", json!({ "by": 1 }), "", "\"to\":4"),
        ("Scale", json!({}), "", "InvalidParameter"),
        ("Scale", json!({ "to": 1, "by": 1 }), "", "InvalidParameter"),
        ("Scale", json!({ "to": -5 }), "", "one stays at least"),
        ("Scale", json!({ "to": 1e300 }), "", "InvalidParameter"),
        ("Scale", json!({ "by": i64::MAX }), "", "the most is 10000"),
        ("Stop", json!({ "slot": 9 }), "", "NoSuchSlot"),
        ("Kill", json!({ "signal": "usr9" }), "", "InvalidParameter"),
        ("Kill", json!({ "signal": "cont", "slot": 1 }), "", "\"pids\":["),
        ("Resume", json!({}), "", "not paused"),
        ("Promote", json!({}), "", "no canary waits"),
        ("Promote", json!({ "now": true }), "", "InvalidParameter"),
        ("Rollback", json!({}), "", ""),
        ("Subscribe", json!({}), "", "ExpectedMore"),
        ("Logs", json!({ "lines": 500 }), "more", "\"text\":\"line 1\""),
        ("Logs", json!({ "lines": 2, "slot": 70 }), "more", "NoSuchSlot"),
        ("Reset", json!({}), "", ""),
        ("Explode", json!({}), "", "MethodNotFound"),
        ("org.example.Do", json!({}), "", "InterfaceNotFound"),
    ];
    for (method, parameters, flag, contains) in calls {
        if parameters["noWait"] == true {
            // A rollout that is under way still when the calls after it come.
            std::fs::write(&config, worker(", \"--start-delay\", \"3s\"")).unwrap();
        }
        let flags: Vec<&str> = [flag].into_iter().filter(|flag| !flag.is_empty()).collect();
        let replies = client.ask(method, parameters, &flags);
        let said = Value::from(replies.clone()).to_string();
        assert!(said.contains(contains), "{method}: {said}");
        for reply in &replies {
            described.check_reply(method, reply);
        }
    }
    // Failures: a broken file, and a version that fails with its last words.
    std::fs::write(&config, "instances = 3").unwrap();
    let reply = &client.ask("Reload", json!({}), &[])[0];
    described.check_reply("Reload", reply);
    assert_eq!(reply["error"], "org.dogwatch.Control.InvalidConfiguration");
    assert!(
        client.ask("Check", json!({}), &[])[0]["parameters"]["reason"]
            .to_string()
            .contains("app.toml:1")
    );
    std::fs::write(&config, worker(", \"--exit\", \"9\"")).unwrap();
    let replies = client.ask("Reload", json!({}), &["more"]);
    replies.iter().for_each(|reply| described.check_reply("Reload", reply));
    let verdict = replies.last().unwrap();
    assert_eq!(verdict["error"], "org.dogwatch.Control.RolledBack");
    let failure = &verdict["parameters"]["failure"];
    assert_eq!(failure["reason"], "exited with status 9 before it was ready");
    assert_eq!(failure["lines"].as_array().unwrap().len(), 3, "{failure}");
    let shown = &client.ask("Show", json!({}), &[])[0];
    described.check_reply("Show", shown);
    assert_eq!(shown["parameters"]["lastFailure"]["lines"], failure["lines"]);
    assert!(!shown.to_string().contains("\"b\""), "values of variables are not told");
    primary.stop();
}

#[test]
fn a_canary_waits_for_the_word_and_is_described() {
    let flags = ["--settle", "0ms", "--balance", "steered", "--canary", "5"];
    let primary = started(&[&flags[..], &["--canary-time", "1h"]].concat(), &[]);
    let mut client = raw(&primary);
    let text = client.ask(
        "org.varlink.service.GetInterfaceDescription",
        json!({ "interface": "org.dogwatch.Control" }),
        &[],
    );
    let text = text[0]["parameters"]["description"].as_str().unwrap();
    let described = Described(Interface::try_from(text).unwrap());
    let mut reload = raw(&primary);
    for (method, error) in [("Promote", None), ("Rollback", Some("RolledBack"))] {
        reload.call("Reload", json!({}), &["more"]);
        while reload.receive().unwrap()["parameters"]["event"]["kind"] != "canary" {}
        let listed = &client.ask("List", json!({}), &[])[0];
        described.check_reply("List", listed);
        let app = &listed["parameters"]["app"];
        assert_eq!((&app["canary"]["percent"], &app["state"]), (&json!(5), &json!("reloading")));
        assert!((3_500_000..=3_600_000).contains(&app["canary"]["remainingMs"].as_u64().unwrap()));
        let beside: Vec<&Value> =
            app["slots"][0]["workers"].as_array().unwrap().iter().map(|w| &w["state"]).collect();
        assert_eq!(beside, ["ready", "ready"], "{app}");
        assert_eq!(client.ask(method, json!({}), &[]), [json!({ "parameters": {} })]);
        let verdict = wait_for_last(&mut reload);
        described.check_reply("Reload", &verdict);
        let known = verdict["error"].as_str().and_then(|name| name.rsplit('.').next());
        assert_eq!(known, error, "{verdict}");
        let app = client.ask("List", json!({}), &[])[0]["parameters"]["app"].clone();
        assert_eq!((&app["canary"], &app["generation"]), (&Value::Null, &json!(2)), "{app}");
    }
    primary.stop();
}

#[test]
fn a_newer_reload_takes_the_place_of_one_that_waits_and_a_stop_ends_all() {
    // Newcomers that take a while, so that there is time to ask more.
    let primary = started(&["--settle", "2s"], &[]);
    let (mut first, mut second, mut third) = (raw(&primary), raw(&primary), raw(&primary));
    first.call("Reload", json!({}), &["more"]);
    assert_eq!(first.receive().unwrap()["parameters"]["event"]["kind"], "reloading");
    second.call("Reload", json!({}), &["more"]);
    assert_eq!(second.receive().unwrap()["parameters"]["event"]["kind"], "queued");
    third.call("Reload", json!({}), &["more"]);
    assert_eq!(third.receive().unwrap()["parameters"]["event"]["kind"], "queued");
    let superseded = wait_for_last(&mut second);
    assert_eq!(superseded["error"], "org.dogwatch.Control.Superseded", "{superseded}");
    assert_eq!(superseded["parameters"]["generation"], 4);
    primary.signal(nix::sys::signal::Signal::SIGTERM);
    for client in [&mut first, &mut third] {
        let refused = wait_for_last(client);
        assert_eq!(refused["parameters"]["reason"], "everything is being stopped", "{refused}");
    }
    primary.ended();
}

fn wait_for_last(client: &mut Raw) -> Value {
    loop {
        let reply = client.receive().expect("a last answer");
        if reply["continues"] != true {
            return reply;
        }
    }
}

#[test]
fn hostile_bytes_end_the_connection_and_nothing_else() {
    let primary = started(&[], &[]);
    let deep = format!(
        "{{\"method\":\"org.dogwatch.Control.List\",\"parameters\":{{\"a\":{}}}}}",
        "[".repeat(50_000)
    );
    let huge = vec![b'x'; 300 * 1024];
    let long = format!("{{\"method\":\"{}\"}}", "a.".repeat(40_000));
    let cases: [&[u8]; 9] = [
        b"\0",
        b"\0\0\0\0",
        b"GET / HTTP/1.1\r\n\r\n\0",
        b"{\"method\":7}\0",
        b"[]\0",
        b"\xff\xfe\0",
        b"{\"method\":\"org.dogwatch.Control.List\",\"parameters\":[1]}\0",
        deep.as_bytes(),
        long.as_bytes(),
    ];
    for bytes in cases.into_iter().chain([huge.as_slice()]) {
        let mut client = raw(&primary);
        // The other end may be gone before all is written.
        let _ = client.send(bytes);
        let _ = client.send(b"\0");
        assert_eq!(
            client.receive(),
            None,
            "{:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(60)])
        );
    }
    // Half a message, and a descriptor with it, are no way in either.
    let mut half = raw(&primary);
    half.send(b"{\"method\":\"org.dogwatch").unwrap();
    drop(half);
    assert_eq!(raw(&primary).ask("Describe", json!({}), &[])[0]["parameters"]["name"], "app");
    let said = primary.stop();
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn clients_that_never_read_or_never_ask_delay_nobody() {
    let mut primary = started(&["--watchdog", "5s"], &["--heartbeats", "1000000"]);
    // More than there are places; some greedy: they ask and ask, and read nothing.
    let mut crowd: Vec<UnixStream> = vec![];
    for n in 0..400 {
        let mut client = UnixStream::connect(primary.path("control")).unwrap();
        client.set_nonblocking(true).unwrap();
        if n % 4 == 0 {
            let call = b"{\"method\":\"org.dogwatch.Control.Show\"}\0";
            while client.write_all(call).is_ok() {}
        }
        crowd.push(client);
    }
    // Everything goes on: requests are answered, a reload is done, and told.
    assert!(primary.get("/").starts_with("hello"));
    primary.signal(nix::sys::signal::Signal::SIGHUP);
    primary.says("reload done: generation 2");
    // When they are gone, there is place for others.
    drop(crowd);
    wait_for("a place", || {
        let mut client = UnixStream::connect(primary.path("control")).ok()?;
        client.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        client.write_all(b"{\"method\":\"org.dogwatch.Control.Describe\"}\0").ok()?;
        let mut answer = [0; 4096];
        client.read(&mut answer).ok().filter(|length| *length > 0)
    });
    primary.stop();
}

#[test]
fn a_call_that_comes_while_a_stream_runs_is_answered_after_it() {
    let primary = started(&[], &[]);
    let mut client = raw(&primary);
    client.call("Reload", json!({}), &["more"]);
    client.call("Describe", json!({}), &[]);
    client.call("List", json!({}), &["oneway"]);
    client.call("Check", json!({}), &[]);
    let verdict = wait_for_last(&mut client);
    assert_eq!(verdict["parameters"]["generation"], 2, "{verdict}");
    assert_eq!(client.receive().unwrap()["parameters"]["name"], "app");
    assert_eq!(client.receive().unwrap(), json!({ "parameters": {} }), "oneway has no answer");
    primary.stop();
}

#[test]
fn a_subscriber_hears_everything_from_its_first_answer_on() {
    let primary = started(&[], &[]);
    let mut client = raw(&primary);
    client.call("Subscribe", json!({}), &["more"]);
    assert_eq!(client.receive().unwrap(), json!({ "parameters": {}, "continues": true }));
    raw(&primary).ask("Scale", json!({ "to": 3 }), &[]);
    raw(&primary).ask("Stop", json!({ "slot": 2 }), &[]);
    let mut kinds = vec![];
    while kinds.last().is_none_or(|kind| kind != "gone") {
        let event = client.receive().unwrap()["parameters"]["event"].clone();
        kinds.push(event["kind"].as_str().unwrap().to_owned());
    }
    kinds.retain(|kind| kind != "ready");
    assert_eq!(kinds, ["scaled", "slot_stopped", "gone"]);
    primary.stop();
    assert_eq!(client.receive().unwrap()["parameters"]["event"]["kind"], "stopping");
}

#[test]
fn a_second_primary_of_the_same_name_serves_without_a_control_socket() {
    let first = started(&[], &[]);
    let folder = first.path("");
    let mut second =
        Setup::demo(&APP, &[]).env("RUNTIME_DIRECTORY", folder.to_str().unwrap()).start();
    second.says("another primary of this name has it; serving without it");
    assert!(second.get("/").starts_with("hello"));
    second.stop();
    assert_eq!(raw(&first).ask("Describe", json!({}), &[])[0]["parameters"]["name"], "app");
    first.stop();
}

#[test]
fn a_socket_that_a_dead_primary_left_is_taken_over() {
    let first = started(&[], &[]);
    first.signal(nix::sys::signal::Signal::SIGKILL);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("unrelated"), "").unwrap();
    let listener = std::os::unix::net::UnixListener::bind(folder.path().join("control")).unwrap();
    drop(listener);
    let second =
        Setup::demo(&APP, &[]).env("RUNTIME_DIRECTORY", folder.path().to_str().unwrap()).start();
    second.is_ready();
    let answer = Raw::connect(&folder.path().join("control")).ask("Describe", json!({}), &[]);
    assert_eq!(answer[0]["parameters"]["name"], "app");
    second.stop();
    assert!(!folder.path().join("control").exists(), "it goes with its primary");
    assert!(folder.path().join("unrelated").exists());
    first.ended();
}
