//! Booted systemd 252 (Debian 12) and 257 (Debian 13): the units as packages install them, systemctl, journalctl.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

/// Each promise on each systemd.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod on_252 { $(#[test] fn $name() { if let Some(root) = crate::boxed::root("bookworm") { super::$name(&root); } })* }
        mod on_257 { $(#[test] fn $name() { if let Some(root) = crate::boxed::root("trixie") { super::$name(&root); } })* }
    };
}

mod apps;
mod boxed;
mod carry;
mod demo;
mod docs;
mod doctor;
mod leash;
mod packages;
mod served;
mod steered;
#[path = "../support/mod.rs"]
mod support;
mod units;

use boxed::Boxed;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use support::{Load, wait_for};

/// An app of four built-in workers that settle quickly.
const APP: &str = r#"
command = ["/usr/bin/dogwatch", "demo-worker", "--lines", "3"]
workers = 4
[ready]
settle = "50ms"
"#;

fn with_app(layer: &Path) {
    std::fs::create_dir_all(layer.join("etc/dogwatch")).unwrap();
    std::fs::write(layer.join("etc/dogwatch/myapp.toml"), APP).unwrap();
}

/// A box with the app's socket listening.
fn app(root: &Path) -> Boxed {
    let boxed = Boxed::boot(root, with_app);
    boxed.ok("systemctl start myapp.socket");
    boxed
}

fn load(boxed: &Boxed, requests: u32) -> Load {
    load_of(boxed, 8, requests)
}

/// So many clients, each with so many requests on a connection.
fn load_of(boxed: &Boxed, clients: u32, requests: u32) -> Load {
    // The service and systemd are to have processors too.
    let command = format!(
        "exec load 127.0.0.1:8080 --clients {clients} --requests {requests} --think 2 --pause 1"
    );
    Load::start(&mut boxed.enter(&command)).begun()
}

on_both! {
    the_first_connection_starts_the_service
    the_units_are_valid_and_hardened
    reload_under_load_loses_nothing
    reload_to_a_broken_version_fails_and_keeps_the_old_one
    the_operators_verbs_work
    only_those_who_may_look_and_nobody_else_changes
    varlinkctl_understands_it
    notify_reload_works_where_systemd_knows_it
    connections_wait_through_a_crash_loop
    the_watchdog_replaces_a_hung_primary
    stop_leaves_nothing
    every_line_of_every_worker_is_in_the_journal
    a_template_serves_named_unix_sockets
    a_stopped_journal_stalls_nobody
    a_killed_primary_is_started_again_and_finds_its_workers
    logs_are_read_from_the_journal
    a_node_app_is_given_the_units_socket
}

fn the_first_connection_starts_the_service(root: &Path) {
    let boxed = app(root);
    assert_eq!(boxed.show("myapp.service", "ActiveState"), "inactive");
    let answer = boxed.ok("curl -sS http://127.0.0.1:8080/");
    assert!(answer.starts_with("hello from worker "), "{answer}");
    boxed.until("test $(systemctl show -P ActiveState myapp) = active");
    wait_for("the status", || {
        let status = boxed.show("myapp", "StatusText");
        (status == "4 workers ready, generation 1").then_some(())
    });
    // The workers run as the unit's own user, with the socket under its name.
    assert_eq!(boxed.ok("curl -sS http://127.0.0.1:8080/env?LISTEN_FDNAMES"), "web\n");
    assert_eq!(boxed.ok("curl -sS http://127.0.0.1:8080/env?DOGWATCH_APP"), "myapp\n");
    let users = boxed.ok("ps -o uid= -p $(pgrep -d, -f '[d]ogwatch demo-worker') | sort -u");
    let uid: u32 = users.trim().parse().unwrap();
    // The range of dynamic users (systemd.exec(5)).
    assert!((61184..=65519).contains(&uid), "{uid}");
    assert_eq!(boxed.ok("pgrep -fc '[d]ogwatch demo-worker'").trim(), "4");
    let journal = boxed.journal("myapp");
    assert!(journal.contains("started: 4 of 4 slots are served"), "{journal}");
    // State changes are native entries with fields.
    let ready = boxed.ok(
        "journalctl -b -o json --no-pager -u myapp MESSAGE_ID=0e85e579dac8432391fb5dc03905221a | grep -c '\"DOGWATCH_SLOT\":\"3\"'",
    );
    assert_eq!(ready.trim(), "1");
}

fn the_units_are_valid_and_hardened(root: &Path) {
    let boxed = app(root);
    let dir = "/usr/lib/systemd/system";
    for unit in ["myapp.socket", "myapp.service", "dogwatch@x.socket", "dogwatch@x.service"] {
        let template = unit.replace("@x", "@");
        let said = boxed
            .ok(&format!("cp {dir}/{template} /tmp/{unit}; systemd-analyze verify /tmp/{unit}"));
        // 252 does not know keys of later versions, says so and goes on.
        let later = ["RestartSteps", "RestartMaxDelaySec", "DelegateSubgroup"];
        let is_later = |line: &&str| {
            later.iter().any(|key| line.contains(&format!("Unknown key '{key}' in section")))
        };
        let said: Vec<&str> = said.lines().filter(|line| !is_later(line)).collect();
        assert_eq!(said, [""; 0], "{unit}");
    }
    let score = boxed.ok("systemd-analyze security --no-pager myapp.service | tail -n 1");
    let number: f64 =
        score.split(": ").nth(1).and_then(|s| s.split(' ').next()).unwrap().parse().unwrap();
    assert!(number <= 2.0, "{score}");
}

fn reload_under_load_loses_nothing(root: &Path) {
    let boxed = app(root);
    boxed.ok("curl -sS http://127.0.0.1:8080/");
    // A reload that is asked while the service still starts, systemd takes for the start.
    boxed.until("test $(systemctl show -P ActiveState myapp) = active");
    let (short, kept) = (load(&boxed, 1), load(&boxed, 20));
    for generation in 2..=6 {
        boxed.ok("systemctl reload myapp");
        let wanted = format!("4 workers ready, generation {generation}");
        wait_for("the reload", || (boxed.show("myapp", "StatusText") == wanted).then_some(()));
        assert_eq!(boxed.show("myapp", "ActiveState"), "active");
    }
    short.stop().assert_clean(1);
    kept.stop().assert_clean(1);
    assert_eq!(boxed.show("myapp", "NRestarts"), "0");
}

/// Not a line of it knows of sockets that are passed, of clusters or of signals.
const NODE_APP: &str = "
const http = require('http')
http.createServer((request, response) => response.end(`pid ${process.pid}\\n`)).listen(8080)
";

fn a_node_app_is_given_the_units_socket(root: &Path) {
    let Some(node) = support::node(22) else { return };
    let boxed = Boxed::boot(root, |layer| {
        std::fs::create_dir_all(layer.join("srv")).unwrap();
        std::fs::write(layer.join("srv/app.js"), NODE_APP).unwrap();
        std::fs::create_dir_all(layer.join("usr/bin")).unwrap();
        std::fs::copy(&node, layer.join("usr/bin/node")).unwrap();
        std::fs::create_dir_all(layer.join("etc/dogwatch")).unwrap();
        std::fs::write(layer.join("etc/dogwatch/myapp.toml"), node_settings("round-robin"))
            .unwrap();
    });
    boxed.ok("systemctl start myapp.socket");
    assert!(boxed.ok("curl -sS http://127.0.0.1:8080/").starts_with("pid "));
    boxed.until("test $(systemctl show -P ActiveState myapp) = active");
    let reload = |generation: u32, balance: &str| {
        boxed.put("/etc/dogwatch/myapp.toml", &node_settings(balance));
        boxed.ok("systemctl reload myapp");
        let status = format!("2 workers ready, generation {generation}");
        assert_eq!(boxed.show("myapp", "StatusText"), status);
    };
    let (short, kept) = (load(&boxed, 1), load(&boxed, 20));
    reload(2, "round-robin");
    reload(3, "round-robin");
    // Where workers accept by themselves, Node closes what it takes for idle though a request is on its way.
    kept.stop().assert_clean(1);
    reload(4, "shared");
    reload(5, "shared");
    reload(6, "round-robin");
    short.stop().assert_clean(1);
    assert_eq!(boxed.show("myapp", "NRestarts"), "0");
    boxed.ok("systemctl stop myapp.service myapp.socket");
    assert_eq!(boxed.run("pgrep -x node"), "");
}

fn node_settings(balance: &str) -> String {
    format!(
        "command = [\"node\", \"/srv/app.js\"]\nworkers = 2\nhandoff = \"node\"\nbalance = \"{balance}\"\n[ready]\nsettle = \"50ms\"\n"
    )
}

fn reload_to_a_broken_version_fails_and_keeps_the_old_one(root: &Path) {
    let boxed = app(root);
    boxed.ok("curl -sS http://127.0.0.1:8080/");
    boxed.until("test $(systemctl show -P ActiveState myapp) = active");
    let short = load(&boxed, 1);
    let broken = |worker: &str, ready: &str| {
        APP.replace("\"--lines\", \"3\"", worker).replace("settle = \"50ms\"", ready)
    };
    let cases = [
        (
            broken("\"--lines\", \"2\", \"--exit\", \"7\"", ""),
            "cannot reload 'myapp': the worker of generation 2 in slot 0 exited with status 7 before it was ready; rolled back to generation 1",
        ),
        (
            broken("\"--mute\"", "timeout = \"1s\""),
            "cannot reload 'myapp': the worker of generation 3 in slot 0 was not ready within 1s; rolled back to generation 1",
        ),
        (
            broken("\"--die-after\", \"5s\"", "settle = \"15s\""),
            "cannot reload 'myapp': the worker of generation 4 in slot 0 exited with status 1; rolled back to generation 1",
        ),
        (
            APP.replace("/usr/bin/dogwatch", "/usr/bin/no-such-program"),
            "cannot reload 'myapp': /etc/dogwatch/myapp.toml:2: 'command': cannot find program '/usr/bin/no-such-program': No such file or directory",
        ),
        (
            "instances = 4\n".to_owned(),
            "cannot reload 'myapp': /etc/dogwatch/myapp.toml:1: unknown key 'instances'",
        ),
    ];
    for (file, verdict) in cases {
        boxed.put("/etc/dogwatch/myapp.toml", &file);
        let (said, code) = boxed.try_run("systemctl reload myapp");
        assert_eq!(code, 1, "{verdict}: {said}");
        assert_eq!(boxed.show("myapp", "ReloadResult"), "exit-code");
        assert_eq!(boxed.show("myapp", "ActiveState"), "active");
        boxed.until(&format!("journalctl --sync; journalctl -b -u myapp | grep -F \"{verdict}\""));
    }
    // The same for a person: the exit code, why, and the last lines.
    boxed.put("/etc/dogwatch/myapp.toml", &broken("\"--lines\", \"60\", \"--exit\", \"7\"", ""));
    let (said, code) = boxed.try_run("dogwatch reload myapp");
    assert_eq!(code, 1, "{said}");
    let last: Vec<&str> = said.lines().filter(|line| line.starts_with("    line ")).collect();
    assert_eq!(last.len(), 50, "{said}");
    assert!(last[49].contains("60"), "{said}");
    let answer = boxed.ok("curl -sS http://127.0.0.1:8080/");
    assert!(answer.contains("generation 1,"), "{answer}");
    short.stop().assert_clean(1);
    // And back to a good one.
    boxed.put("/etc/dogwatch/myapp.toml", APP);
    boxed.ok("systemctl reload myapp");
    assert_eq!(boxed.show("myapp", "ReloadResult"), "success");
}

fn the_operators_verbs_work(root: &Path) {
    let boxed = app(root);
    boxed.ok("curl -sS http://127.0.0.1:8080/");
    boxed.until("test $(systemctl show -P ActiveState myapp) = active");
    let list = boxed.ok("dogwatch list");
    assert!(list.contains("myapp   4/4  running"), "{list}");
    for (verb, said) in [
        ("show myapp", "unit: myapp.service"),
        ("show myapp/3", "ready: after"),
        ("reload myapp --dry-run", "no setting of 'myapp' would change"),
        ("scale myapp +1", "scaled from 4 to 5 slots"),
        ("stop myapp/4", "slot 4 is stopped"),
        ("start myapp/4", "slot 4 is started again"),
        ("restart myapp/0", "restarting slot 0"),
        ("restart myapp", "restarting every slot"),
        ("pause myapp", "paused"),
        ("resume myapp", "resumed"),
        ("reset myapp", "are forgotten"),
        ("kill -s CONT myapp/1", "sent SIGCONT to"),
        ("check /etc/dogwatch/myapp.toml", "good, 4 workers"),
        ("scale myapp 4", "scaled from 5 to 4 slots"),
    ] {
        let answer = boxed.ok(&format!("dogwatch {verb}"));
        assert!(answer.contains(said), "{verb}: {answer}");
    }
    // Everybody who is paused waits, nobody is refused.
    boxed.ok("dogwatch pause myapp; (sleep 0.5; dogwatch resume myapp) & curl -sS -m 20 http://127.0.0.1:8080/; wait");
    for (verb, code) in
        [("show other", 3), ("show myapp/9", 4), ("stop myapp", 2), ("scale myapp 0", 1)]
    {
        let (said, was) = boxed.try_run(&format!("dogwatch {verb}"));
        assert_eq!(was, code, "{verb}: {said}");
    }
}

fn only_those_who_may_look_and_nobody_else_changes(root: &Path) {
    let boxed = app(root);
    boxed.ok(
        "useradd -M watcher; useradd -M stranger; groupadd watchers; usermod -aG watchers watcher",
    );
    boxed.ok("curl -sS http://127.0.0.1:8080/");
    boxed.until("test $(systemctl show -P ActiveState myapp) = active");
    let run = |user: &str, verb: &str| {
        boxed.try_run(&format!(
            "setpriv --reuid={user} --regid={user} --init-groups dogwatch {verb}"
        ))
    };
    let (said, code) = run("watcher", "show myapp");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("only root and its own user may"), "{said}");
    boxed
        .put("/etc/dogwatch/myapp.toml", &format!("{APP}\n[control]\nreaders = [\"@watchers\"]\n"));
    boxed.ok("systemctl reload myapp");
    assert_eq!(run("watcher", "show myapp").1, 0);
    assert!(run("watcher", "list").0.contains("running"));
    for (user, verb) in
        [("watcher", "reload myapp"), ("watcher", "scale myapp 1"), ("stranger", "show myapp")]
    {
        let (said, code) = run(user, verb);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("only root and its own user may"), "{said}");
    }
    assert!(run("stranger", "list").0.contains("'myapp'"), "it is told that there is one");
    boxed.put(
        "/etc/dogwatch/myapp.toml",
        &format!("{APP}\n[control]\nreaders = [\"nobody-here\"]\n"),
    );
    let (said, code) = boxed.try_run("dogwatch reload myapp");
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("myapp.toml:8: 'control.readers': there is no user 'nobody-here'"),
        "{said}"
    );
}

fn varlinkctl_understands_it(root: &Path) {
    let boxed = app(root);
    if boxed.try_run("command -v varlinkctl").1 != 0 {
        // It came with 255; our own client speaks the same protocol to the same socket.
        return;
    }
    boxed.ok("curl -sS http://127.0.0.1:8080/");
    boxed.until("test $(systemctl show -P ActiveState myapp) = active");
    let socket = "/run/dogwatch/myapp/control";
    assert!(boxed.ok(&format!("varlinkctl info {socket}")).contains("org.dogwatch.Control"));
    let described = boxed.ok(&format!("varlinkctl introspect {socket} org.dogwatch.Control"));
    assert!(described.contains("method Reload("), "{described}");
    let own = format!("varlinkctl call {socket} org.dogwatch.Control");
    assert!(boxed.ok(&format!("{own}.List '{{}}'")).contains("\"readySlots\""));
    let more = own.replace("call", "call --more");
    let told = boxed.ok(&format!("{more}.Reload '{{}}'"));
    assert!(told.contains("reload done: generation 2"), "{told}");
    assert_eq!(told.matches("\"ready\"").count(), 4, "{told}");
    boxed.put("/etc/dogwatch/myapp.toml", &APP.replace("\"--lines\", \"3\"", "\"--exit\", \"7\""));
    let (told, code) = boxed.try_run(&format!("{more}.Reload '{{}}'"));
    assert!(code != 0 && told.contains("org.dogwatch.Control.RolledBack"), "{told}");
    let (told, code) = boxed.try_run(&format!("{own}.Stop '{{\"slot\":77}}'"));
    assert!(code != 0 && told.contains("NoSuchSlot"), "{told}");
}

fn notify_reload_works_where_systemd_knows_it(root: &Path) {
    let boxed = app(root);
    let version: u32 = boxed
        .ok("systemctl --version | head -n 1 | cut -d' ' -f2 | cut -d. -f1")
        .trim()
        .parse()
        .unwrap();
    if version < 253 {
        // notify-reload came with 253; there Type=notify with ExecReload= is the way, which the others test.
        return;
    }
    boxed.put(
        "/etc/systemd/system/myapp.service.d/reload.conf",
        "[Service]\nType=notify-reload\nExecReload=\n",
    );
    boxed.ok("systemctl daemon-reload; curl -sS http://127.0.0.1:8080/");
    boxed.until("test $(systemctl show -P ActiveState myapp) = active");
    let short = load(&boxed, 1);
    for generation in 2..=4 {
        boxed.ok("systemctl reload myapp");
        // systemd waits for READY=1, so that the new generation serves when the command returns; the status comes with it.
        let answer = boxed.ok("curl -sS http://127.0.0.1:8080/");
        assert!(answer.contains(&format!("generation {generation},")), "{answer}");
        let wanted = format!("4 workers ready, generation {generation}");
        wait_for("the status", || (boxed.show("myapp", "StatusText") == wanted).then_some(()));
    }
    boxed.put("/etc/dogwatch/myapp.toml", "nonsense");
    // A refused reload must not leave systemd waiting; that it failed only the verdict of a client can tell.
    boxed.ok("systemctl reload myapp");
    assert_eq!(boxed.show("myapp", "ActiveState"), "active");
    short.stop().assert_clean(1);
}

fn connections_wait_through_a_crash_loop(root: &Path) {
    let boxed = Boxed::boot(root, with_app);
    boxed.put("/etc/dogwatch/myapp.toml", &APP.replace("\"--lines\", \"3\"", "\"--exit\", \"1\""));
    boxed.ok("systemctl start myapp.socket");
    let mut client = boxed.enter("curl -sS -m 110 http://127.0.0.1:8080/");
    let client = client.stdout(std::process::Stdio::piped()).spawn().unwrap();
    // The primary gives up and systemd starts it again, more than once.
    boxed.until("test $(systemctl show -P NRestarts myapp) -ge 2");
    let journal = boxed.journal("myapp");
    assert!(journal.contains("stopping: every slot is given up"), "{journal}");
    boxed.put("/etc/dogwatch/myapp.toml", APP);
    let answer = client.wait_with_output().unwrap();
    assert!(answer.stdout.starts_with(b"hello from worker"), "{answer:?}");
}

fn the_watchdog_replaces_a_hung_primary(root: &Path) {
    let boxed = app(root);
    boxed.put("/etc/systemd/system/myapp.service.d/watchdog.conf", "[Service]\nWatchdogSec=5\n");
    boxed.ok("systemctl daemon-reload; curl -sS http://127.0.0.1:8080/");
    boxed.until("test $(systemctl show -P ActiveState myapp) = active");
    // Two intervals pass without harm: the pings come.
    boxed.ok("sleep 11");
    assert_eq!(boxed.show("myapp", "NRestarts"), "0");
    boxed.ok("kill -STOP $(systemctl show -P MainPID myapp)");
    boxed.until("test $(systemctl show -P NRestarts myapp) -ge 1");
    let answer = boxed.ok("curl -sS -m 30 http://127.0.0.1:8080/");
    assert!(answer.starts_with("hello"), "{answer}");
    boxed.until("test $(pgrep -fc '[d]ogwatch demo-worker') = 4");
}

fn stop_leaves_nothing(root: &Path) {
    let boxed = app(root);
    for hang in [false, true] {
        boxed.ok("systemctl start myapp.socket; curl -sS http://127.0.0.1:8080/");
        boxed.until("test $(systemctl show -P ActiveState myapp) = active");
        if hang {
            boxed.put(
                "/etc/systemd/system/myapp.service.d/stop.conf",
                "[Service]\nTimeoutStopSec=1\n",
            );
            boxed.ok("systemctl daemon-reload; kill -STOP $(systemctl show -P MainPID myapp)");
        }
        boxed.ok("systemctl stop myapp.socket myapp.service");
        assert_eq!(boxed.run("pgrep -f '[/]usr/bin/dogwatch'"), "", "hang {hang}");
        assert_eq!(boxed.run("ls /run/dogwatch/myapp 2>/dev/null"), "");
        let (_, refused) = boxed.try_run("curl -sS http://127.0.0.1:8080/");
        assert_eq!(refused, 7, "nobody listens");
        if !hang {
            assert_eq!(boxed.show("myapp", "Result"), "success");
        }
    }
}

fn every_line_of_every_worker_is_in_the_journal(root: &Path) {
    let boxed = Boxed::boot(root, with_app);
    boxed.put("/etc/dogwatch/myapp.toml", &APP.replace("\"3\"", "\"2000\""));
    boxed.ok("systemctl start myapp.socket; curl -sS http://127.0.0.1:8080/");
    boxed.until("test $(systemctl show -P ActiveState myapp) = active");
    for slot in 0..4 {
        boxed.until(&format!(
            "journalctl --sync; test $(journalctl -b -o cat -u myapp -t myapp/{slot} | grep -c '^line ') = 2000"
        ));
    }
    // A restarted journald takes the streams over; a reload writes through it.
    boxed.ok("systemctl restart systemd-journald; systemctl reload myapp");
    for slot in 0..4 {
        boxed.until(&format!(
            "journalctl --sync; test $(journalctl -b -o cat -u myapp -t myapp/{slot} | grep -c '^line ') = 4000"
        ));
    }
    // A worker that ends at once has its last words there too, under the unit.
    boxed.put("/etc/dogwatch/myapp.toml", "command = [\"/bin/echo\", \"famous last words\"]\n");
    boxed.run("systemctl reload myapp");
    boxed.until(
        "journalctl --sync; journalctl -b -o cat -u myapp -t myapp/0 | grep -x 'famous last words'",
    );
}

fn a_template_serves_named_unix_sockets(root: &Path) {
    let boxed = Boxed::boot(root, |layer| {
        std::fs::create_dir_all(layer.join("etc/dogwatch")).unwrap();
        std::fs::write(layer.join("etc/dogwatch/shop.toml"), APP).unwrap();
        let dropin = layer.join("etc/systemd/system/dogwatch@shop.socket.d");
        std::fs::create_dir_all(&dropin).unwrap();
        std::fs::write(
            dropin.join("more.conf"),
            "[Socket]\nListenStream=8081\nListenDatagram=8082\nListenDatagram=/run/shop.dgram\n",
        )
        .unwrap();
    });
    boxed.ok("systemctl start dogwatch@shop.socket");
    let answer = boxed.ok("curl -sS --unix-socket /run/dogwatch-shop.sock http://localhost/");
    assert!(answer.starts_with("hello"), "{answer}");
    assert_eq!(boxed.ok("curl -sS http://127.0.0.1:8081/env?LISTEN_FDNAMES"), "web:web:web:web\n");
    assert_eq!(boxed.ok("curl -sS http://127.0.0.1:8081/env?DOGWATCH_APP"), "shop\n");
    boxed.until("test $(systemctl show -P ActiveState dogwatch@shop) = active");
}

fn a_stopped_journal_stalls_nobody(root: &Path) {
    let boxed = Boxed::boot(root, with_app);
    // More than the journal's socket and the pipe hold together, so that the workers are slowed, too.
    boxed.put("/etc/dogwatch/myapp.toml", &APP.replace("\"3\"", "\"1000\""));
    boxed.put("/etc/systemd/system/myapp.service.d/watchdog.conf", "[Service]\nWatchdogSec=8\n");
    boxed.ok(
        "systemctl daemon-reload; systemctl start myapp.socket; curl -sS http://127.0.0.1:8080/",
    );
    boxed.until("test $(systemctl show -P ActiveState myapp) = active");
    boxed.ok("kill -STOP $(systemctl show -P MainPID systemd-journald)");
    for generation in 2..=3 {
        boxed.ok("kill -HUP $(systemctl show -P MainPID myapp)");
        let wanted = format!("4 workers ready, generation {generation}");
        wait_for("the reload", || (boxed.show("myapp", "StatusText") == wanted).then_some(()));
    }
    let answer = boxed.ok("curl -sS http://127.0.0.1:8080/");
    assert!(answer.contains("generation 3,"), "{answer}");
    // For longer than the watchdog's interval: nor does the primary stand still.
    boxed.ok("sleep 10");
    assert_eq!(boxed.show("myapp", "NRestarts"), "0");
    boxed.ok("kill -CONT $(systemctl show -P MainPID systemd-journald)");
    for slot in 0..4 {
        boxed.until(&format!(
            "journalctl --sync; test $(journalctl -b -o cat -u myapp -t myapp/{slot} | grep -c '^line ') = 3000"
        ));
    }
}

fn a_killed_primary_is_started_again_and_finds_its_workers(root: &Path) {
    let boxed = app(root);
    boxed.ok("curl -sS http://127.0.0.1:8080/");
    boxed.until("test $(systemctl show -P ActiveState myapp) = active");
    let before = boxed.ok("pgrep -f '[d]ogwatch demo-worker'");
    boxed.ok("kill -9 $(systemctl show -P MainPID myapp)");
    // Whoever comes meanwhile waits in the socket.
    let answer = boxed.ok("curl -sS -m 30 http://127.0.0.1:8080/");
    assert!(answer.starts_with("hello"), "{answer}");
    boxed.until("test $(systemctl show -P NRestarts myapp) = 1");
    boxed.until("test $(pgrep -fc '[d]ogwatch demo-worker') = 4");
    boxed.until("test $(systemctl show -P ActiveState myapp) = active");
    assert_eq!(boxed.ok("pgrep -f '[d]ogwatch demo-worker'"), before, "they live on");
}

/// The texts of these entries, without their times.
fn logs(boxed: &Boxed, arguments: &str) -> Vec<String> {
    let text = boxed.ok(&format!("journalctl --sync; dogwatch logs {arguments}"));
    text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or(line).to_owned()).collect()
}

fn logs_are_read_from_the_journal(root: &Path) {
    let boxed = app(root);
    // Nobody has run yet, and nobody knows of it.
    let (said, code) = boxed.try_run("dogwatch logs other");
    let nothing = "dogwatch: cannot read the logs of 'other': it is not running, and the journal has nothing of 'other'";
    assert!(code == 3 && said.starts_with(nothing), "{code}: {said}");
    boxed.ok("curl -sS http://127.0.0.1:8080/");
    boxed.until("test $(systemctl show -P ActiveState myapp) = active");
    new_entries_are_followed(&boxed, "dogwatch", 2);
    if has_libsystemd(&boxed) {
        new_entries_are_followed(&boxed, "dogwatch-libsystemd", 3);
    }
    boxed.ok("systemctl stop myapp.socket myapp.service");
    stopped_app_is_read(&boxed);
}

/// A reload to this generation is seen by one that follows a slot.
fn new_entries_are_followed(boxed: &Boxed, program: &str, generation: u32) {
    let mut follow = boxed.enter(&format!("exec {program} logs myapp/2 -f -n 1 --json"));
    let mut follow = follow.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("\"slot\":2"), "{first}");
    boxed.ok("systemctl reload myapp");
    wait_for("the reload", || {
        let wanted = format!("4 workers ready, generation {generation}");
        (boxed.show("myapp", "StatusText") == wanted).then_some(())
    });
    // Everything of the slot comes, as it comes; the last is that the old one has gone.
    let (mut new, mut gone) = (0, String::new());
    while new < 3 || gone.is_empty() {
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains("\"slot\":2"), "{line}");
        new += u32::from(
            line.contains(&format!("\"generation\":{generation}"))
                && line.contains("\"text\":\"line "),
        );
        if line.contains("has gone") {
            gone = line;
        }
    }
    assert!(gone.contains("\"messageId\":\"271aa528f76d40b49ed1b85c4227d83c\""), "{gone}");
    // Whoever reads it leaves, and it ends, with what it started.
    drop(lines);
    wait_for("the end", || follow.try_wait().unwrap());
    assert_eq!(boxed.run("pgrep -x journalctl"), "");
    // Even what could not end anything itself leaves nothing behind.
    boxed.ok(&format!(
        "{program} logs myapp -f > /tmp/followed & until [ -s /tmp/followed ]; do :; done; kill -9 $!"
    ));
    boxed.until("! pgrep -x journalctl");
}

fn stopped_app_is_read(boxed: &Boxed) {
    // All that journalctl has, in its order, but for the first lines of streams.
    let all = logs(boxed, "myapp -n all");
    let theirs = boxed.ok("journalctl -o json -u myapp | grep -vc 'writes here\"'");
    assert_eq!(all.len().to_string(), theirs.trim());
    // 252 says first which keys of the unit it does not know.
    let first = all.iter().find(|line| !line.contains("Unknown key"));
    assert!(first.is_some_and(|line| line.starts_with("systemd: Starting ")), "{all:?}");
    assert!(all.iter().any(|line| line.starts_with("dogwatch: reload done")), "{all:?}");
    assert!(all.last().unwrap().starts_with("systemd: "), "{all:?}");
    let count = |arguments: &str| logs(boxed, arguments).len();
    assert_eq!(logs(boxed, "myapp"), all[all.len().saturating_sub(50)..]);
    assert_eq!(logs(boxed, "myapp -n 3"), all[all.len() - 3..]);
    let lines = |slot: &str, more: &str| {
        let lines = logs(boxed, &format!("myapp/{slot} -n all {more}"));
        lines.iter().filter(|line| line.starts_with(&format!("myapp/{slot}: line "))).count()
    };
    let generations = if has_libsystemd(boxed) { 3 } else { 2 };
    assert_eq!((lines("2", ""), lines("2", "--generation 2")), (generations * 3, 3));
    assert_eq!(count("myapp --grep '^LINE '"), 0);
    assert_eq!(count("myapp -n all --grep '^line '"), generations * 12);
    assert_eq!(count("myapp --generation 1 --grep '^line '"), 12);
    assert_eq!(count("myapp --since 1h -n all"), all.len());
    assert_eq!(count("myapp --since @4000000000"), 0);
    assert_eq!(boxed.ok("dogwatch logs myapp -n all | head -n 1").lines().count(), 1);
    same_with_libsystemd(boxed);
    // Somebody without rights is told why there is nothing.
    let (said, code) = boxed.try_run("setpriv --reuid 1234 --clear-groups dogwatch logs myapp");
    assert!(code == 3 && said.contains("hint: what the system's services write"), "{code}: {said}");
}

fn has_libsystemd(boxed: &Boxed) -> bool {
    boxed.try_run("test -x /usr/bin/dogwatch-libsystemd").1 == 0
}

/// A binary built with the feature `journal`, where there is one, prints the same, to the byte.
fn same_with_libsystemd(boxed: &Boxed) {
    if !has_libsystemd(boxed) {
        return;
    }
    for arguments in [
        "myapp -n all --json",
        "myapp -n all",
        "myapp",
        "myapp -n 7 --json",
        "myapp/2 --json",
        "myapp --generation 2 --json",
        "myapp --grep line -n 5",
        "myapp --since 1h -n all",
        "myapp --since @4000000000 -n all",
    ] {
        let ours = boxed.ok(&format!("dogwatch logs {arguments}"));
        assert_eq!(boxed.ok(&format!("dogwatch-libsystemd logs {arguments}")), ours, "{arguments}");
    }
    boxed.ok("timeout 60 dogwatch-libsystemd logs myapp -f -n 2 | head -n 2");
}
