//! Workers with a socket each, under the drop-ins that come with the units: who gets which connections, with what rights, and
//! what becomes of requests when the program of the workers knows nothing of stopping.

use super::served::{self, Served, put};
use super::support::{Counts, Load};
use crate::boxed::Boxed;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

on_both! {
    the_drop_ins_are_valid_and_hardened
    every_slot_gets_the_same_and_the_right_is_given_back
    clients_stick_to_their_slots
    what_befalls_a_steered_app_costs_nothing
    fifty_reloads_of_a_server_without_an_end_cost_nothing
    what_an_operator_does_to_a_steered_app_costs_nothing
    without_the_right_it_is_said_and_nothing_is_lost
    without_the_system_call_it_is_said
    what_has_waited_is_answered
    what_has_waited_is_answered_without_the_right
    too_few_lanes_are_said
    idle_connections_are_closed_for_a_worker_that_is_to_stop
}

/// A server that knows nothing of stopping: the stop signal is its end, whatever it is at. It answers with its slot.
const WORKER: &str = r#"
import os, select, socket, time
listener = socket.socket(fileno=3)
poll = select.epoll()
poll.register(listener, select.EPOLLIN)
text = os.environ["DOGWATCH_SLOT"] + "\n"
answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
clients = {}
while True:
    for number, _ in poll.poll():
        if number == listener.fileno():
            try:
                client = listener.accept()[0]
            except BlockingIOError:
                continue
            clients[client.fileno()] = client
            poll.register(client, select.EPOLLIN)
            continue
        client = clients[number]
        try:
            request = client.recv(65536)
            if request.startswith(b"GET /slow"):
                time.sleep(0.05)
            if request:
                client.sendall(answer)
        except OSError:
            request = b""
        if not request or b"Connection: close" in request:
            del clients[number]
            client.close()
"#;

const APP: &str = r#"
command = ["python3", "-SE", "/srv/worker.py"]
workers = 4
balance = "steered"
[ready]
settle = "50ms"
[stop]
drain = "10s"
"#;

/// From systemd 254 on the shipped unit waits longer after each of the first crashes, up to a second.
const IMPATIENT: &str = "[Service]\nRestartMaxDelaySec=infinity\nRestartSteps=0\n";

/// As it is shipped.
const SOCKET: &str = include_str!("../../systemd/steered/myapp.socket.d/steered.conf");
const SERVICE: &str = include_str!("../../systemd/steered/myapp.service.d/steered.conf");

const SERVICE_FILE: &str = "etc/systemd/system/myapp.service.d/steered.conf";

/// A box with such an app, which is not started; `service` is the drop-in of the service.
fn steered(root: &Path, settings: &str, service: &str, socket: &str) -> Boxed {
    Boxed::boot_with_bpf(root, |layer| {
        put(layer, "etc/dogwatch/myapp.toml", settings);
        put(layer, "srv/worker.py", WORKER);
        put(layer, "etc/systemd/system/myapp.socket.d/steered.conf", socket);
        put(layer, SERVICE_FILE, service);
        put(layer, "etc/systemd/system/myapp.service.d/test.conf", IMPATIENT);
    })
}

/// The same, in service.
fn serving(root: &Path, settings: &str, service: &str, socket: &str) -> Served {
    Served::start(steered(root, settings, service, socket), "^python3 -SE /srv/worker.py")
}

/// How many of so many connections, one after the other, were answered by which slot.
fn spread(boxed: &Boxed, count: u32) -> Vec<u32> {
    let answers =
        boxed.ok(&format!("curl -sS -H 'Connection: close' 'http://127.0.0.1:8080/?[1-{count}]'"));
    let mut counts = BTreeMap::<&str, u32>::new();
    answers.lines().for_each(|slot| *counts.entry(slot).or_default() += 1);
    assert_eq!(counts.values().sum::<u32>(), count, "{counts:?}");
    counts.into_values().collect()
}

/// Each of the four slots gets the same, but for a lane that was left out for a moment.
fn assert_even(boxed: &Boxed) {
    // A worker that stalled under load gets nothing for a while.
    let mut counts = vec![];
    for _ in 0..20 {
        counts = spread(boxed, 400);
        if counts.len() == 4 && counts.iter().all(|count| (98..=102).contains(count)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("{counts:?}\n{}", boxed.journal("myapp"));
}

/// Clients that ask once, and clients that ask a few times and think in between.
struct Loads(Load, Load);

impl Loads {
    fn start(boxed: &Boxed) -> Self {
        let load =
            |more: &str| Load::start(&mut boxed.enter(&format!("exec load 127.0.0.1:8080 {more}")));
        let both = Self(load("--clients 4 --pause 1"), load("--clients 4 --requests 5 --think 20"));
        Self(both.0.begun(), both.1.begun())
    }

    fn stop(self, of: &str) -> [Counts; 2] {
        let counts = [self.0.stop(), self.1.stop()];
        eprintln!("{of}: once: {}; kept: {}", counts[0].0, counts[1].0);
        counts
    }

    fn assert_clean(self, of: &str) {
        self.stop(of).iter().for_each(|counts| counts.assert_clean(1));
    }
}

/// The lines of the journal that say what is not as it was asked.
fn warnings(boxed: &Boxed) -> Vec<String> {
    let journal = boxed.journal("myapp");
    let is_one = |line: &&str| line.starts_with("cannot steer") || line.contains(" lanes for ");
    journal.lines().filter(is_one).map(str::to_owned).collect()
}

/// The capabilities of a process: those that it has, may have, and gives to programs.
fn capabilities(boxed: &Boxed, pid: &str) -> String {
    boxed.ok(&format!("awk '/^Cap(Inh|Prm|Eff|Amb)/ {{ print $2 }}' /proc/{pid}/status | sort -u"))
}

const NONE: &str = "0000000000000000\n";

fn the_drop_ins_are_valid_and_hardened(root: &Path) {
    let boxed = steered(root, APP, SERVICE, SOCKET);
    for unit in ["myapp.socket", "myapp.service"] {
        let said =
            boxed.run(&format!("systemd-analyze verify {unit} 2>&1 | grep -v 'Unknown key'"));
        assert_eq!(said, "", "{unit}");
    }
    let score = boxed.ok("systemd-analyze security --no-pager myapp.service | tail -n 1");
    eprintln!("{score}");
    let number: f64 =
        score.split(": ").nth(1).and_then(|s| s.split(' ').next()).unwrap().parse().unwrap();
    assert!(number <= 2.0, "{score}");
}

fn every_slot_gets_the_same_and_the_right_is_given_back(root: &Path) {
    let app = serving(root, APP, SERVICE, SOCKET);
    let boxed = &app.boxed;
    assert_even(boxed);
    assert_eq!(warnings(boxed), [""; 0]);
    assert!(boxed.ok("dogwatch list").contains("myapp   4/4  running"));
    let show = boxed.ok("dogwatch show myapp");
    assert!(show.contains("(6 lanes)") || show.contains("balance"), "{show}");
    // The primary, its keeper and the workers.
    for pid in boxed.ok("pgrep -f '^/usr/bin/dogwatch|^dogwatch|^python3'").lines() {
        assert_eq!(capabilities(boxed, pid), NONE, "{}", boxed.ok(&format!("ps -fp {pid}")));
    }
    // The next primary goes on with what lies in the FD store, and needs no right for that.
    let without =
        SERVICE.replace("AmbientCapabilities=CAP_BPF\nCapabilityBoundingSet=CAP_BPF\n", "");
    assert_ne!(without, SERVICE);
    boxed.put(&format!("/{SERVICE_FILE}"), &without);
    boxed.ok("systemctl daemon-reload");
    let workers = app.pids();
    for restarts in 1..=2 {
        app.kill();
        boxed.until(&format!("test $(systemctl show -P NRestarts myapp) = {restarts}"));
        app.is_served();
        assert_even(boxed);
    }
    assert_eq!(app.pids(), workers);
    boxed.ok("systemctl reload myapp");
    assert_even(boxed);
    assert_eq!(warnings(boxed), [""; 0]);
    app.stop();
}

/// Which slot answers each of these clients.
fn slots_of_clients(boxed: &Boxed) -> Vec<String> {
    let script = "for n in $(seq 1 16); do curl -sS --interface 127.0.1.$n -H 'Connection: close' \
                  'http://127.0.0.1:8080/?[1-2]' | uniq | tr '\\n' ' '; echo; done";
    boxed.ok(script).lines().map(|line| line.trim().to_owned()).collect()
}

fn clients_stick_to_their_slots(root: &Path) {
    let policy = "balance = { mode = \"steered\", policy = \"client-ip\" }";
    let settings = APP.replace("balance = \"steered\"", policy);
    for service in [SERVICE, ""] {
        let app = serving(root, &settings, service, SOCKET);
        let boxed = &app.boxed;
        let slots = slots_of_clients(boxed);
        assert!(slots.iter().all(|slot| slot.len() == 1), "{slots:?}");
        for slot in ["0", "1", "2", "3"] {
            assert!(slots.iter().any(|found| found == slot), "{slots:?}");
        }
        app.kill();
        boxed.until("test $(systemctl show -P NRestarts myapp) = 1");
        app.is_served();
        boxed.ok("systemctl reload myapp");
        assert_eq!(slots_of_clients(boxed), slots);
    }
}

fn what_befalls_a_steered_app_costs_nothing(root: &Path) {
    let mut app = serving(root, APP, SERVICE, SOCKET);
    let boxed = &app.boxed;
    let (loads, workers) = (Loads::start(boxed), app.pids());
    for moment in served::moments(5) {
        std::thread::sleep(moment);
        app.kill();
    }
    app.is_served();
    assert_eq!(app.pids(), workers, "its death is no reason for a worker's");
    for moment in served::moments(5) {
        boxed.until(
            "systemctl show -P StatusText myapp | grep '^reload to' || dogwatch reload --no-wait myapp",
        );
        std::thread::sleep(moment);
        app.kill();
    }
    boxed.until("systemctl reload myapp");
    loads.assert_clean("10 x kill -9 of the primary");
    app.learn_generation();
    app.is_served();
    let boxed = &app.boxed;
    assert_even(boxed);
    let loads = Loads::start(boxed);
    boxed.ok("systemctl daemon-reexec");
    app.is_served();
    boxed.ok("dogwatch upgrade myapp");
    app.is_served();
    assert_even_in(boxed, loads, "daemon-reexec, upgrade");
    let loads = Loads::start(boxed);
    boxed.ok("systemctl restart myapp");
    loads.assert_clean("restart");
    boxed.until("systemctl show -P StatusText myapp | grep '^4 workers ready'");
    assert_even(boxed);
    killed_workers_lose_what_they_were_at(boxed);
    assert_eq!(warnings(boxed), [""; 0]);
    app.stop();
}

fn fifty_reloads_of_a_server_without_an_end_cost_nothing(root: &Path) {
    let settings = APP.replace("settle = \"50ms\"", "settle = \"0ms\"");
    let mut app = serving(root, &settings, SERVICE, SOCKET);
    let loads = Loads::start(&app.boxed);
    for _ in 0..50 {
        app.boxed.ok("systemctl reload myapp");
    }
    loads.assert_clean("50 reloads");
    app.learn_generation();
    app.is_served();
    assert_even(&app.boxed);
    app.stop();
}

/// The first line of the status, when it is this one.
fn status_is(boxed: &Boxed, status: &str) {
    boxed.until(&format!("systemctl show -P StatusText myapp | grep '^{status}'"));
}

fn what_an_operator_does_to_a_steered_app_costs_nothing(root: &Path) {
    let app = serving(root, &format!("{APP}[reload]\ncanary = 20\n"), SERVICE, SOCKET);
    let boxed = &app.boxed;
    let loads = Loads::start(boxed);
    for (verb, generation) in [("promote", 2), ("rollback", 2), ("promote", 4)] {
        boxed.ok("dogwatch reload --no-wait myapp");
        boxed.until("dogwatch show myapp | grep 'canary: worker'");
        boxed.ok(&format!("dogwatch {verb} myapp"));
        status_is(boxed, &format!("4 workers ready, generation {generation}"));
    }
    for slots in [5, 3, 4] {
        boxed.ok(&format!("dogwatch scale myapp {slots}"));
        status_is(boxed, &format!("{slots} workers ready"));
    }
    boxed.ok("dogwatch stop myapp/1 && dogwatch start myapp/1 && dogwatch restart myapp/2");
    status_is(boxed, "4 workers ready");
    boxed.ok("dogwatch pause myapp && dogwatch resume myapp");
    status_is(boxed, "4 workers ready");
    loads.assert_clean("canaries, scaling, a stop and a restart of slots, a pause");
    assert_even(boxed);
    // Who asks while a worker stands still is answered by the others.
    let still = app.pids().lines().next().unwrap().to_owned();
    boxed.ok(&format!("kill -STOP {still}"));
    let counts = spread(boxed, 200);
    boxed.ok(&format!("kill -CONT {still}"));
    assert!(counts.len() >= 3, "{counts:?}");
    assert_even(boxed);
    assert_eq!(warnings(boxed), [""; 0]);
    app.stop();
}

fn assert_even_in(boxed: &Boxed, loads: Loads, of: &str) {
    loads.assert_clean(of);
    assert_even(boxed);
}

fn killed_workers_lose_what_they_were_at(boxed: &Boxed) {
    let loads = Loads::start(boxed);
    for nth in 0..4 {
        boxed.ok(&format!(
            "kill -9 $(pgrep -f '^python3 -SE /srv/worker.py' | sed -n {}p)",
            nth % 2 + 1
        ));
        boxed.until(
            "test $(pgrep -fc '^python3 -SE /srv/worker.py') = 4 && \
             systemctl show -P StatusText myapp | grep '^4 workers ready'",
        );
    }
    // No client of the eight has more than one request under way.
    let lost: u64 = loads.stop("4 x kill -9 of a worker").iter().map(Counts::failures).sum();
    assert!(lost <= 4 * 8, "{lost}");
    assert_even(boxed);
}

fn without_the_system_call_it_is_said(root: &Path) {
    let service = SERVICE.replace("SystemCallFilter=bpf", "SystemCallFilter=");
    let app = fallen_back(root, &service);
    app.boxed.ok("systemctl reload myapp");
    assert_random(&app.boxed);
    assert_eq!(warnings(&app.boxed).len(), 1);
    app.stop();
}

fn assert_random(boxed: &Boxed) {
    let counts = spread(boxed, 400);
    assert!(counts.len() == 4 && counts.iter().all(|n| (60..=140).contains(n)), "{counts:?}");
}

fn fallen_back(root: &Path, service: &str) -> Served {
    let app = serving(root, APP, service, SOCKET);
    let text = "cannot steer listener 'web' round-robin: making a map: Operation not permitted (os error 1); the kernel \
                picks workers at random";
    assert_eq!(warnings(&app.boxed), [text]);
    let journal = app.boxed.journal("myapp");
    assert!(journal.contains("hint: say AmbientCapabilities=CAP_BPF"), "{journal}");
    app
}

fn without_the_right_it_is_said_and_nothing_is_lost(root: &Path) {
    let mut app = fallen_back(root, "");
    let loads = Loads::start(&app.boxed);
    for _ in 0..5 {
        app.boxed.ok("systemctl reload myapp");
    }
    loads.assert_clean("5 reloads without the right");
    app.learn_generation();
    app.is_served();
    assert_random(&app.boxed);
    let loads = Loads::start(&app.boxed);
    app.kill();
    app.boxed.until("test $(systemctl show -P NRestarts myapp) = 1");
    app.is_served();
    app.boxed.ok("systemctl restart myapp; systemctl restart myapp");
    loads.assert_clean("kill -9 and 2 restarts without the right");
    for pid in app.boxed.ok("pgrep -f '^/usr/bin/dogwatch|^dogwatch|^python3'").lines() {
        assert_eq!(capabilities(&app.boxed, pid), NONE);
    }
    app.stop();
}

fn what_has_waited_is_answered(root: &Path) {
    wait_in_queues(root, SERVICE, "true");
}

/// Before the first start nothing steers yet, and clients wait in all lanes: in more than there are workers. Without the
/// program what waits in the others can only be taken by those who come there, with a reload.
fn what_has_waited_is_answered_without_the_right(root: &Path) {
    wait_in_queues(root, "", "systemctl reload myapp");
}

/// As long as a file is missing, the service does not start; it is tried again and again.
const HELD: &str = "[Service]\nExecStartPre=/usr/bin/test -e /run/go\n";

fn wait_in_queues(root: &Path, service: &str, after_first_start: &str) {
    let boxed = steered(root, APP, service, SOCKET);
    boxed.put("/etc/systemd/system/myapp.service.d/held.conf", HELD);
    boxed.ok("systemctl daemon-reload; systemctl start myapp.socket");
    for round in ["before the first start", "after a stop"] {
        let clients = boxed
            .enter(
                "for n in $(seq 20); do curl -sS -m 110 -H 'Connection: close' http://127.0.0.1:8080/ & done; wait",
            )
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        boxed.until("test $(ss -Htn state established '( dport = :8080 )' | wc -l) = 20");
        let queues = boxed.ok("ss -Hltn '( sport = :8080 )' | awk '{ print $2 }' | xargs");
        boxed.ok("touch /run/go");
        boxed.until("test $(systemctl show -P ActiveState myapp) = active");
        if round == "before the first start" {
            boxed.ok(after_first_start);
        }
        let said = clients.wait_with_output().unwrap().stdout;
        let said = String::from_utf8_lossy(&said);
        eprintln!("{round}: waited in lanes: {queues}");
        assert_eq!(said.lines().count(), 20, "{round}: {said}\n{}", boxed.journal("myapp"));
        spread(&boxed, 40);
        boxed.ok("rm /run/go; systemctl stop myapp.service");
        served::nobody_is_left(&boxed);
    }
    boxed.ok("systemctl stop myapp.socket");
    served::nothing_is_left(&boxed);
}

fn too_few_lanes_are_said(root: &Path) {
    let socket = "[Socket]\nReusePort=yes\nListenStream=8080\n";
    let app = serving(root, APP, SERVICE, socket);
    let warnings = warnings(&app.boxed);
    let wanted = "listener 'web' has 2 lanes for 4 workers and one that relieves them";
    assert!(warnings.len() == 1 && warnings[0].starts_with(wanted), "{warnings:?}");
    let journal = app.boxed.journal("myapp");
    let hint = "hint: name its ListenStream= 6 times in the socket unit, with ReusePort=yes";
    assert_eq!(journal.lines().filter(|line| *line == hint).count(), 1, "{journal}");
    app.boxed.ok("systemctl reload myapp");
    assert_eq!(spread(&app.boxed, 40).iter().sum::<u32>(), 40);
    app.stop();
}

/// Keeps a connection, and says when it has ended; between them it waits.
const CLIENT: &str = r#"
import socket
client = socket.create_connection(("127.0.0.1", 8080))
client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
print(client.recv(4096).split()[-1].decode(), flush=True)
print(client.recv(4096), flush=True)
"#;

fn idle_connections_are_closed_for_a_worker_that_is_to_stop(root: &Path) {
    let without = SERVICE.replace("pidfd_getfd", "");
    for (service, may_close) in [(SERVICE, true), (without.as_str(), false)] {
        let app = serving(root, APP, service, SOCKET);
        app.boxed.put("/srv/client.py", CLIENT);
        let client = app.boxed.enter("exec python3 /srv/client.py > /run/client").spawn();
        app.boxed.until("test -s /run/client");
        app.boxed.ok("systemctl reload myapp");
        assert!(client.unwrap().wait().unwrap().success());
        assert!(app.boxed.ok("cat /run/client").ends_with("b''\n"));
        let journal = app.boxed.journal("myapp");
        let is_said = journal.contains("cannot close idle connections of worker")
            && journal.contains("hint: say SystemCallFilter=pidfd_getfd");
        assert_eq!(is_said, !may_close, "{journal}");
        // Half of the drain time, or all of it.
        let took = journal.split("serves every slot, after ").nth(1).unwrap();
        let took: f64 = took.split('s').next().unwrap().parse().unwrap();
        assert_eq!(took < 10.0, may_close, "{journal}");
    }
}
