//! Unmodified Node programs of the versions 18 to 24, under load through reloads; and what they may do and get wrong.
//!
//! `DOGWATCH_MATRIX=full cargo test --test node loses_nothing_in_reloads -- --nocapture` reloads every app ten times on
//! every version with both policies, which takes half an hour, and prints a table: app, version, policy, variant, requests
//! a connection, requests, failures. Instead of `full` it may be the name of one app.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;
use support::node::{self, APPS, App, Client, VERSIONS};
use support::primary::{Primary, Setup, free_port, get};
use support::{Counts, Load, PATIENCE, dogwatch, load_client, wait_for};

const POLICIES: [&str; 2] = ["shared", "round-robin"];
/// So many clients ask at a time, in each of the two ways.
const CLIENTS: u64 = 3;

fn load(primary: &Primary, app: App, requests: u32) -> Load {
    let (address, clients) = (primary.address.to_string(), CLIENTS.to_string());
    let requests = requests.to_string();
    let flags = ["--clients", &clients, "--requests", &requests, "--path", app.path];
    Load::start(Command::new(load_client()).arg(&address).args(flags)).begun()
}

fn reload(primary: &mut Primary, times: usize) {
    for generation in 2..times + 2 {
        primary.signal(Signal::SIGHUP);
        primary.says(&format!("reload done: generation {generation}"));
    }
}

/// Reloads under load, with a connection for each request and with connections for twenty.
fn reloads(
    version: u16,
    policy: &str,
    script: Option<&str>,
    app: App,
    times: usize,
) -> [(&'static str, Counts); 2] {
    let flags = ["-n", "2", "--balance", policy];
    let mut primary = node::preloaded(version, &flags, script, app).start();
    primary.says("started: 2 of 2 slots are served");
    let (one, twenty) = (load(&primary, app, 1), load(&primary, app, 20));
    reload(&mut primary, times);
    let counts = [("1 a connection", one.stop()), ("20 a connection", twenty.stop())];
    primary.stop();
    counts
}

fn print(app: App, version: u16, policy: &str, variant: &str, counts: &[(&str, Counts)]) {
    for (how, counts) in counts {
        eprintln!(
            "{:<16} {version} {policy:<12} {variant:<9} {how:<16} {:>8} {:>4}  {}",
            app.name,
            counts.ok(),
            counts.failures(),
            if counts.failures() > 0 { &counts.0 } else { "" }
        );
    }
}

/// In round robin nobody loses anything. Who shares the socket takes new connections until his server is closed, and from
/// Node 19 on that resets the kept connections which look idle, though a request may be under way: at most once a client
/// for each worker that is relieved. Node's own primary loses the same, with both policies.
fn assert_kept(counts: &Counts, version: u16, policy: &str, reloads: u64) {
    if version < 19 || policy != "shared" {
        return counts.assert_clean(1);
    }
    let other = counts.0.contains("refused 0 ") && counts.0.ends_with("timeout 0 other 0");
    assert!(other && counts.failures() <= CLIENTS * 2 * reloads, "{counts:?}");
}

/// The apps in their variants, and how often they are reloaded.
fn apps() -> (Vec<(App, &'static str)>, usize) {
    let Ok(only) = std::env::var("DOGWATCH_MATRIX") else {
        let few =
            [("http", "deaf"), ("http", "graceful"), ("express", "deaf"), ("fastify", "graceful")];
        return (few.map(|(name, variant)| (node::named(name), variant)).into(), 2);
    };
    let wanted = APPS.into_iter().filter(|app| only == "full" || app.name == only);
    (wanted.flat_map(|app| ["deaf", "graceful"].map(|variant| (app, variant))).collect(), 10)
}

fn matrix(version: u16) {
    if node::is_missing() {
        return;
    }
    let (apps, times) = apps();
    for policy in POLICIES {
        for (app, variant) in &apps {
            let counts = reloads(version, policy, Some(variant), *app, times);
            print(*app, version, policy, variant, &counts);
            let [(_, one), (_, twenty)] = counts;
            one.assert_clean(1);
            assert_kept(&twenty, version, policy, u64::try_from(times).unwrap());
        }
    }
}

#[test]
fn node_18_loses_nothing_in_reloads() {
    matrix(18);
}

#[test]
fn node_20_loses_nothing_in_reloads() {
    matrix(20);
}

#[test]
fn node_22_loses_nothing_in_reloads() {
    matrix(22);
}

#[test]
fn node_24_loses_nothing_in_reloads() {
    matrix(24);
}

/// Starts two workers.
fn start(setup: Setup) -> Primary {
    let mut primary = setup.arguments(&["-n", "2"]).start();
    primary.says("started: 2 of 2 slots are served");
    primary
}

/// What `pid 1 slot 2 worker 3` tells of somebody.
fn words(answer: &str) -> [u32; 3] {
    let words: Vec<&str> = answer.split_whitespace().collect();
    ["pid", "slot", "worker"].map(|name| {
        let at = words.iter().position(|word| *word == name);
        let number = at.and_then(|at| words.get(at + 1)?.parse().ok());
        number.unwrap_or_else(|| panic!("no answer of a worker: '{answer}'"))
    })
}

/// Runs a verb; returns its exit code and all that it prints.
fn verb(primary: &Primary, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new("timeout");
    command.arg("60").arg(dogwatch()).args(arguments);
    let output = command.env("RUNTIME_DIRECTORY", primary.folder.path()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8(text).unwrap())
}

/// What `show` knows, as JSON.
fn show(primary: &Primary) -> Value {
    let (code, text) = verb(primary, &["show", "app", "--json"]);
    assert_eq!(code, 0, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn applications_from_npm_lose_nothing_in_reloads() {
    if node::is_missing() {
        return;
    }
    for (name, version) in [("cluster example", 24), ("ESM", 20), ("tsx", 18), ("socket.io", 22)] {
        let [(_, one), _] = reloads(version, "round-robin", None, node::named(name), 1);
        one.assert_clean(1);
    }
}

#[test]
fn complete_programs_from_npm_lose_nothing_in_reloads() {
    if node::is_missing() {
        return;
    }
    for (name, version, policy) in [
        ("next", 22, "round-robin"),
        ("http-server", 24, "round-robin"),
        ("json-server", 20, "shared"),
        ("verdaccio", 22, "shared"),
    ] {
        let [(_, one), _] = reloads(version, policy, None, node::named(name), 1);
        one.assert_clean(1);
    }
}

#[test]
fn a_worker_knows_its_slot_and_its_number() {
    if node::is_missing() {
        return;
    }
    for version in VERSIONS {
        let mut primary = start(node::small(version, &[], "cluster-worker.js"));
        for first in [1, 3] {
            let both = [words(&primary.get("/")), words(&primary.get("/"))];
            assert_ne!(both[0][0], both[1][0]);
            assert_eq!(BTreeSet::from(both.map(|w| w[1])), BTreeSet::from([0, 1]));
            assert_eq!(BTreeSet::from(both.map(|w| w[2])), BTreeSet::from([first, first + 1]));
            if first == 1 {
                reload(&mut primary, 1);
            }
        }
        primary.stop();
    }
}

#[test]
fn connections_go_round_evenly() {
    if node::is_missing() {
        return;
    }
    let mut primary = node::small(22, &["-n", "4"], "plain.js").start();
    primary.says("started: 4 of 4 slots are served");
    let mut counts = BTreeMap::new();
    for _ in 0..400 {
        *counts.entry(words(&primary.get("/"))[1]).or_insert(0) += 1;
    }
    assert!(counts.values().all(|n| (98..=102).contains(n)), "{counts:?}");
    primary.stop();
}

#[test]
fn two_servers_on_sockets_that_nobody_named() {
    if node::is_missing() {
        return;
    }
    for policy in POLICIES {
        let second = free_port();
        let setup = node::bare(20, &["--balance", policy], "two-ports.js");
        let mut primary = start(setup.env("PORT2", &second.to_string()));
        let second = SocketAddr::from(([127, 0, 0, 1], second));
        assert!(primary.get("/").starts_with("first pid"));
        reload(&mut primary, 1);
        assert!(primary.get("/").starts_with("first pid"));
        assert!(get(second, "/").starts_with("second pid"));
        primary.stop();
    }
}

#[test]
fn any_port_is_the_same_in_all_workers() {
    if node::is_missing() {
        return;
    }
    for version in [18, 24] {
        let mut primary = node::bare(version, &["-n", "2"], "zero.js").start();
        let port = |primary: &mut Primary| {
            let line = primary.says("port ");
            line.rsplit(' ').next().unwrap().parse::<u16>().unwrap()
        };
        let first = port(&mut primary);
        assert_eq!(port(&mut primary), first);
        primary.signal(Signal::SIGHUP);
        assert_eq!([port(&mut primary), port(&mut primary)], [first, first]);
        primary.says("reload done");
        assert!(get(SocketAddr::from(([127, 0, 0, 1], first)), "/").starts_with("pid"));
        primary.stop();
    }
}

#[test]
fn a_unix_socket_is_found_by_its_path() {
    if node::is_missing() {
        return;
    }
    for (policy, named) in [("shared", true), ("round-robin", true), ("round-robin", false)] {
        let setup = node::bare(18, &["--balance", policy], "unix.js");
        let path = setup.folder().join("app.sock");
        let listen = format!("unix:{}", path.display());
        let flags: &[&str] = if named { &["--listen", &listen] } else { &[] };
        let setup = setup.arguments(flags).env("SOCKET", path.to_str().unwrap());
        let mut primary = start(setup);
        reload(&mut primary, 1);
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("pid "), "{answer}");
        primary.stop();
    }
}

#[test]
fn a_descriptor_is_the_socket_that_was_passed() {
    if node::is_missing() {
        return;
    }
    for (version, policy) in [(18, "shared"), (24, "round-robin")] {
        let mut primary = start(node::small(version, &["--balance", policy], "fd.js"));
        reload(&mut primary, 1);
        assert!(primary.get("/").starts_with("pid"));
        primary.stop();
    }
}

#[test]
fn datagrams_are_answered() {
    if node::is_missing() {
        return;
    }
    for (version, named) in [(18, true), (24, false)] {
        let setup = node::bare(version, &[], "dgram.js");
        let listen = format!("udp:127.0.0.1:{}", setup.port());
        let flags: &[&str] = if named { &["--listen", &listen] } else { &[] };
        let mut primary = start(setup.arguments(flags));
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = primary.address;
        let ask = || {
            client.send_to(b"who", address).unwrap();
            let mut buffer = [0; 100];
            let length = client.recv(&mut buffer).unwrap();
            words(&String::from_utf8_lossy(&buffer[..length]))
        };
        let old = ask();
        reload(&mut primary, 1);
        assert!(ask()[2] > 2 && old[2] <= 2);
        primary.stop();
    }
}

#[test]
fn an_exclusive_server_binds_by_itself() {
    if node::is_missing() {
        return;
    }
    let setup = node::bare(22, &["-n", "1", "--ready", "alive:500ms"], "exclusive.js");
    let mut primary = setup.start();
    primary.says("started: 1 of 1 slots are served");
    assert!(primary.get("/").starts_with("pid"));
    // There can be no second one.
    primary.signal(Signal::SIGHUP);
    primary.says("cannot listen: EADDRINUSE");
    primary.says("rolled back to generation 1");
    assert!(primary.get("/").starts_with("pid"));
    primary.stop();
}

#[test]
fn a_port_that_is_not_ours_is_refused_with_an_errno() {
    if node::is_missing() {
        return;
    }
    for version in VERSIONS {
        let wrong = free_port();
        let setup = node::small(version, &["-n", "1"], "wrong-port.js");
        let mut primary = setup.env("WRONG_PORT", &wrong.to_string()).start();
        let line = primary.says("cannot give worker 1 a listener on");
        assert!(line.contains(&format!("'{wrong}'")), "{line}");
        primary.says("no second listener: EADDRNOTAVAIL");
        assert!(primary.get("/").starts_with("pid"));
        primary.stop();
    }
}

#[test]
fn what_is_being_answered_is_answered() {
    if node::is_missing() {
        return;
    }
    for (version, policy) in [(18, "shared"), (20, "round-robin"), (24, "shared")] {
        let flags = ["-n", "1", "--balance", policy];
        let app = node::named("http");
        let mut primary = node::preloaded(version, &flags, Some("deaf"), app).start();
        primary.says("started: 1 of 1 slots are served");
        let (old, address) = (primary.get("/"), primary.address);
        let slow = std::thread::spawn(move || get(address, "/slow?ms=1000"));
        primary.says("asked to wait");
        reload(&mut primary, 1);
        assert_eq!(slow.join().unwrap(), old);
        assert_ne!(primary.get("/"), old);
        primary.stop();
    }
}

#[test]
fn a_connection_that_goes_on_asking_does_not_hold_a_drain() {
    if node::is_missing() {
        return;
    }
    // Node 18 does not close it; nobody but the drain's end does.
    let flags = ["--drain", "500ms", "--stop-timeout", "1s"];
    let mut primary = start(node::small(18, &flags, "plain.js"));
    let load = load(&primary, node::named("http"), 1_000_000);
    reload(&mut primary, 2);
    // Asked for its counts it would first finish what it has begun.
    drop(load);
    primary.stop();
}

#[test]
fn who_is_full_is_passed_over_and_nobody_spins() {
    if node::is_missing() {
        return;
    }
    let primary = start(node::small(22, &[], "max-connections.js"));
    let ask = || {
        let mut stream = TcpStream::connect(primary.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        stream
    };
    let answer = |mut stream: &TcpStream| {
        let mut buffer = [0; 1000];
        let length = stream.read(&mut buffer).unwrap();
        assert!(String::from_utf8_lossy(&buffer[..length]).contains("pid "));
    };
    let both = [ask(), ask()];
    both.iter().for_each(answer);
    let third = ask();
    let refusals = |shown: &Value| -> u64 {
        let slots = shown["app"]["slots"].as_array().unwrap();
        let refused = |slot: &Value| slot["workers"][0]["channel"]["refused"].as_u64().unwrap();
        slots.iter().map(refused).sum()
    };
    // The pauses double: ten refusals of each take ten seconds, and a loop that spins has thousands in one.
    let shown = wait_for("refusals", || Some(show(&primary)).filter(|shown| refusals(shown) >= 6));
    assert!(refusals(&shown) < 30, "{shown}");
    drop(both);
    answer(&third);
    primary.stop();
}

#[test]
fn tls_sessions_are_resumed_by_other_workers_and_after_reloads() {
    if node::is_missing() {
        return;
    }
    for (version, policy) in [(18, "round-robin"), (24, "shared"), (24, "round-robin")] {
        let mut primary = start(node::small(version, &["--balance", policy], "https.js"));
        let mut client = Client::start("tls", &primary, &[]);
        let first = client.asks();
        assert!(first.starts_with("resumed false pid"), "{first}");
        for _ in 0..6 {
            let next = client.asks();
            assert!(next.starts_with("resumed true pid"), "{next}");
        }
        reload(&mut primary, 1);
        let next = client.asks();
        assert!(next.starts_with("resumed true pid"), "{next}");
        client.ends();
        primary.stop();
    }
}

#[test]
fn http2_is_served_and_its_streams_end() {
    if node::is_missing() {
        return;
    }
    for (version, policy) in [(20, "shared"), (24, "round-robin")] {
        let mut primary = start(node::small(version, &["--balance", policy], "http2.js"));
        let slow = Client::start("http2", &primary, &["/slow?ms=1000"]);
        primary.says("asked to wait");
        reload(&mut primary, 1);
        assert!(words(&slow.ends())[2] <= 2);
        assert!(words(&Client::start("http2", &primary, &["/"]).ends())[2] > 2);
        primary.stop();
    }
}

#[test]
fn socket_io_polls_where_clients_are_sticky() {
    if node::is_missing() {
        return;
    }
    for (version, balance, transports) in [
        (18, "round-robin:client-ip", &["polling"][..]),
        (22, "round-robin:client-ip", &["polling", "websocket"]),
        (22, "round-robin", &["websocket"]),
        (24, "shared", &["websocket"]),
    ] {
        let mut primary = start(node::small(version, &["--balance", balance], "socketio.js"));
        for generation in 1..=2 {
            let told = Client::start("socketio", &primary, transports).ends();
            let mut workers = BTreeSet::new();
            for line in told.lines() {
                let [_, transport, who] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                    panic!("{told}")
                };
                assert_eq!(transport, *transports.last().unwrap(), "{told}");
                workers.insert(words(who)[2]);
            }
            assert_eq!(told.lines().count(), 8, "{told}");
            // Eight addresses, two slots.
            assert!(balance == "shared" || workers.len() == 2, "{told}");
            assert!(workers.iter().all(|worker| worker.div_ceil(2) == generation), "{told}");
            if generation == 1 {
                reload(&mut primary, 1);
            }
        }
        primary.stop();
    }
}

#[test]
fn a_web_socket_lasts_as_long_as_its_worker() {
    if node::is_missing() {
        return;
    }
    let flags = ["--drain", "500ms", "--stop-timeout", "1s"];
    let mut primary = start(node::small(24, &flags, "ws.js"));
    let mut client = Client::start("ws", &primary, &[]);
    assert_eq!(client.hears(), "open");
    assert!(words(&client.asks())[2] <= 2);
    reload(&mut primary, 1);
    assert_eq!(client.hears(), "closed");
    let mut client = Client::start("ws", &primary, &[]);
    assert_eq!(client.hears(), "open");
    assert!(words(&client.asks())[2] > 2);
    assert_eq!(client.ends(), "closed");
    primary.stop();
}

#[test]
fn a_worker_is_ready_when_it_says_so() {
    if node::is_missing() {
        return;
    }
    for version in [18, 24] {
        let flags = ["-n", "1", "--ready", "message"];
        let mut primary = node::small(version, &flags, "wait-ready.js").start();
        primary.says("worker 1 (slot 0, generation 1) is ready after");
        assert!(primary.said.contains("it sent 'ready'"), "{}", primary.said);
        reload(&mut primary, 1);
        primary.stop();
    }
    let flags = ["-n", "1", "--ready", "message", "--ready-timeout", "500ms"];
    let mut primary = node::small(22, &flags, "plain.js").start();
    primary.says("was not ready within 500ms");
}

#[test]
fn a_worker_is_told_to_shut_down() {
    if node::is_missing() {
        return;
    }
    let flags = ["-n", "1", "--stop-message", "shutdown"];
    let mut primary = node::small(20, &flags, "shutdown.js").start();
    primary.says("started: 1 of 1 slots are served");
    let load = load(&primary, node::named("http"), 1);
    primary.signal(Signal::SIGHUP);
    primary.says("told to shut down");
    primary.says("reload done");
    load.stop().assert_clean(1);
    primary.stop();
}

#[test]
fn messages_are_answered() {
    if node::is_missing() {
        return;
    }
    for version in [18, 24] {
        let primary = start(node::small(version, &[], "message.js"));
        let (code, all) = verb(&primary, &["send", "app", "{\"a\":[1,null]}"]);
        assert_eq!(code, 0, "{all}");
        for slot in 0..2 {
            let echo = format!("app/{slot}: {{\"echo\":{{\"a\":[1,null]}},\"slot\":\"{slot}\"}}");
            assert!(all.lines().any(|line| line == echo), "{all}");
        }
        let (code, one) = verb(&primary, &["send", "app/1", "\"€\""]);
        assert_eq!((code, one.as_str()), (0, "app/1: {\"echo\":\"€\",\"slot\":\"1\"}\n"));
        primary.stop();
    }
}

#[test]
fn workers_speak_to_each_other() {
    if node::is_missing() {
        return;
    }
    let mut primary = start(node::small(22, &[], "talk.js"));
    primary.get("/?to=1");
    let line = primary.says("slot 1 heard dogwatch:message");
    assert!(line.ends_with("news for 1"), "{line}");
    let from = words(&primary.get("/?to=%22others%22"))[1];
    let line = primary.says("news for \"others\"");
    assert!(line.contains(&format!("slot {} heard dogwatch:message {from}", 1 - from)), "{line}");
    primary.get("/?to=7");
    primary.says("heard dogwatch:refused");
    primary.stop();
}

#[test]
fn a_worker_that_leaves_by_itself_is_replaced() {
    if node::is_missing() {
        return;
    }
    for (version, policy) in [(18, "round-robin"), (24, "shared")] {
        let mut primary = start(node::small(version, &["--balance", policy], "leaves.js"));
        let load = load(&primary, node::named("http"), 1);
        assert!(primary.get("/leave").starts_with("pid"));
        primary.says("worker 3 (slot ");
        load.stop().assert_clean(1);
        primary.stop();
    }
}

#[test]
fn a_child_of_a_worker_has_a_channel_of_its_own() {
    if node::is_missing() {
        return;
    }
    let mut primary = start(node::small(22, &[], "forks.js"));
    assert!(primary.get("/").starts_with("child undefined heard hello, pid"));
    reload(&mut primary, 1);
    assert!(primary.get("/").starts_with("child undefined heard hello, pid"));
    primary.stop();
}

#[test]
fn a_killed_worker_takes_with_it_only_what_it_was_answering() {
    if node::is_missing() {
        return;
    }
    for version in [18, 24] {
        let mut primary = start(node::small(version, &[], "plain.js"));
        let load = load(&primary, node::named("http"), 1);
        for kill in 0..3 {
            let (code, text) = verb(&primary, &["kill", "-s", "KILL", "app/1"]);
            assert_eq!(code, 0, "{text}");
            primary.says(&format!("worker {} (slot 1, generation 1) is ready", kill + 3));
        }
        let counts = load.stop();
        // Three clients, three kills. Nothing is left hanging and nobody is turned away.
        assert!(counts.ok() > 0 && counts.failures() <= 9, "{counts:?}");
        assert!(counts.0.contains("refused 0 ") && counts.0.contains("timeout 0 "), "{counts:?}");
        primary.stop();
    }
}

#[test]
fn garbage_harms_nobody_else() {
    if node::is_missing() {
        return;
    }
    for (version, policy) in [(18, "shared"), (24, "round-robin")] {
        for (kind, said) in [
            ("binary", "make no sense"),
            ("nested", "make no sense"),
            ("huge", "make no sense"),
            ("acts", "cannot give worker"),
            ("handle", "sent a handle with a message"),
            ("flood", ""),
            ("half", ""),
        ] {
            let flags = ["--balance", policy, "--drain", "1s", "--stop-timeout", "1s"];
            let mut primary = start(node::small(version, &flags, "garbage.js"));
            assert_eq!(primary.get(&format!("/garbage?kind={kind}")), "sent\n", "{kind}");
            if !said.is_empty() {
                primary.says(said);
            }
            for _ in 0..4 {
                assert!(primary.get("/").starts_with("pid"), "{kind}");
            }
            reload(&mut primary, 1);
            assert!(primary.get("/").starts_with("pid"), "{kind}");
            primary.stop();
        }
    }
}

#[test]
fn who_hangs_is_replaced_and_its_connection_goes_to_another() {
    if node::is_missing() {
        return;
    }
    for (version, policy) in [(18, "round-robin"), (24, "round-robin"), (24, "shared")] {
        // Time enough for the one that does not hang to end well.
        let flags = ["--balance", policy, "--drain", "4s", "--stop-timeout", "1s"];
        let mut primary = start(node::small(version, &flags, "blocked.js"));
        assert_eq!(primary.get("/block"), "from now on\n");
        let load = load(&primary, node::named("http"), 1);
        reload(&mut primary, 1);
        load.stop().assert_clean(1);
        primary.stop();
    }
}

#[test]
fn who_does_not_read_its_messages_is_told_of() {
    if node::is_missing() {
        return;
    }
    let flags = ["--drain", "500ms", "--stop-timeout", "500ms"];
    let mut primary = start(node::small(22, &flags, "blocked.js"));
    let blocked = words(&primary.get("/"))[1];
    // They take turns: the other one is next, and then this one again.
    assert_ne!(words(&primary.get("/"))[1], blocked);
    assert_eq!(primary.get("/block"), "from now on\n");
    let long = format!("\"{}\"", "x".repeat(60_000));
    let said = wait_for("a full channel", || {
        let (code, said) = verb(&primary, &["send", "app", &long, "--wait", "0s"]);
        (code != 0).then_some(said)
    });
    assert!(said.contains("it does not read its messages; the others have it"), "{said}");
    primary.says("does not read its messages; what it has no room for is dropped");
    let channel = &show(&primary)["app"]["slots"][usize::try_from(blocked).unwrap()]["workers"][0];
    assert!(channel["channel"]["dropped"].as_u64().unwrap() > 0, "{channel}");
    assert!(channel["channel"]["unread"].as_u64().unwrap() < 5_000_000, "{channel}");
    reload(&mut primary, 1);
    assert!(primary.get("/").starts_with("pid"));
    primary.stop();
}

/// A program of a few lines on Node 22, with the port of its listener in PORT.
fn lines(flags: &[&str], program: &str) -> Setup {
    let setup = Setup::new(&["--handoff", "node", "--settle", "0ms"]).arguments_after(flags);
    let file = setup.folder().join("app.js");
    std::fs::write(&file, program).unwrap();
    let port = format!("PORT={}", setup.port());
    setup.arguments_after(&["--env", &port, "--", &node::node(22), file.to_str().unwrap()])
}

#[test]
fn a_socket_for_its_own_purposes_does_not_make_a_worker_ready() {
    if node::is_missing() {
        return;
    }
    let program = "
        require('dgram').createSocket('udp4').bind(0, () => console.error('bound'))
        require('net').createServer().listen(0, () => console.error('inner'))
        setTimeout(() => process.exit(3), 300)";
    let mut primary = lines(&["--start-limit", "2/30s"], program).start();
    primary.says("exited with status 3 before it was ready");
    let (_, said) = primary.ended();
    assert!(!said.contains("is ready"), "{said}");
}

#[test]
fn a_worker_that_has_left_before_it_is_ready_is_replaced() {
    if node::is_missing() {
        return;
    }
    let program = "
        require('cluster').worker.disconnect()
        setInterval(() => {}, 1000)";
    let flags = ["--ready", "alive:300ms", "--drain", "300ms"];
    let mut primary = lines(&flags, program).start();
    primary.says("worker 1 (slot 0, generation 1) said that it is leaving");
    primary.says("worker 2 (slot 0, generation 1) is ready");
    primary.stop();
}

#[test]
fn a_worker_without_descriptors_left_gets_connections_when_it_has_some() {
    if node::is_missing() {
        return;
    }
    let program = "
        const fs = require('fs'), held = []
        require('http').createServer((request, response) => response.end('served'))
            .listen(process.env.PORT, () => {
                try { for (;;) held.push(fs.openSync('/dev/null')) } catch {}
                process.on('message', () => { held.splice(0).forEach(fs.closeSync); process.send('done') })
            })";
    let setup = lines(&["--name", "few"], program).under(&["prlimit", "--nofile=64:64"]);
    let mut primary = setup.start();
    primary.says("started: 1 of 1 slots are served");
    let mut client = TcpStream::connect(primary.address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    primary.says("has no room for another file descriptor");
    assert_eq!(verb(&primary, &["send", "few", "1"]).0, 0);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("served"), "{answer}");
    primary.stop();
}

#[test]
fn a_port_that_nobody_asks_for_any_more_is_closed() {
    if node::is_missing() {
        return;
    }
    let program = "require('http').createServer((request, response) => response.end('served'))
        .listen(Number(require('fs').readFileSync(__dirname + '/port', 'utf8')))";
    let setup = lines(&[], program).passing_nothing();
    let (old, new) = (free_port(), free_port());
    let file = setup.folder().join("port");
    std::fs::write(&file, old.to_string()).unwrap();
    let mut primary = setup.start();
    primary.says("started: 1 of 1 slots are served");
    assert_eq!(get(SocketAddr::from(([127, 0, 0, 1], old)), "/"), "served");
    std::fs::write(&file, new.to_string()).unwrap();
    primary.signal(Signal::SIGHUP);
    primary.says(&format!("nobody listens on '[::]:{old}' any more; it is closed"));
    assert_eq!(get(SocketAddr::from(([127, 0, 0, 1], new)), "/"), "served");
    assert!(TcpStream::connect(("127.0.0.1", old)).is_err());
    primary.stop();
}
