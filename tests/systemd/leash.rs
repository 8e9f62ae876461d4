//! What the units and the primary see to around the workers: that none outlives the service, that each has a control
//! group, and that the flag on the socket that they share stays as they want it.

use super::served::{Served, nobody_is_left, nothing_is_left, put};
use super::support;
use crate::boxed::Boxed;
use std::collections::BTreeSet;
use std::path::Path;

on_both! {
    stop_leaves_nothing_in_every_situation
    a_service_that_is_given_up_leaves_nothing
    every_worker_has_a_control_group
    the_nonblocking_flag_stays_set
    the_nonblocking_flag_is_mended
    a_program_that_waits_in_accept_goes_on_waiting
}

/// A stop that ends what hangs soon, and a gap long enough to be stopped in.
const SOON: &str = "[Service]\nTimeoutStopSec=1\n";
const GAP: &str = "[Service]\nRestartSec=1h\nRestartMaxDelaySec=infinity\nRestartSteps=0\n";

fn unit(boxed: &Boxed, text: &str) {
    boxed.put("/etc/systemd/system/myapp.service.d/test.conf", text);
    boxed.ok("systemctl daemon-reload");
}

fn stop_leaves_nothing_in_every_situation(root: &Path) {
    let app = Served::fd(root, SOON);
    let boxed = &app.boxed;
    let hang = "kill -STOP $(systemctl show -P MainPID myapp)";
    let keeper = "kill -9 $(pgrep -f '^dogwatch: keeper')";
    let in_the_gap = || {
        unit(boxed, GAP);
        app.kill();
        boxed.until("test $(systemctl show -P SubState myapp) = auto-restart");
        assert_eq!(app.pids().lines().count(), 4, "they live on");
    };
    let situations: [(&str, &dyn Fn()); 9] = [
        ("healthy", &|| ()),
        ("hung", &|| drop(boxed.ok(hang))),
        ("after a crash", &|| {
            app.kill();
            boxed.until("test $(systemctl show -P NRestarts myapp) -ge 1");
            app.is_served();
        }),
        ("hung after a crash", &|| {
            app.kill();
            boxed.until("test $(systemctl show -P NRestarts myapp) -ge 1");
            app.is_served();
            boxed.ok(hang);
        }),
        ("hung, with another keeper than at first", &|| {
            boxed.ok(keeper);
            boxed.until("journalctl --sync; journalctl -u myapp | grep 'making another'");
            boxed.ok(hang);
        }),
        ("during a reload", &|| {
            boxed.ok("dogwatch reload --no-wait myapp");
        }),
        ("in the restart gap", &in_the_gap),
        ("after everything was killed", &|| {
            boxed.ok("systemctl kill --signal=KILL --kill-whom=all myapp");
            boxed.until("test $(systemctl show -P NRestarts myapp) -ge 1");
            app.is_served();
        }),
        ("in the gap after everything was killed", &|| {
            unit(boxed, GAP);
            boxed.ok("systemctl kill --signal=KILL --kill-whom=all myapp");
            boxed.until("test $(systemctl show -P SubState myapp) = auto-restart");
        }),
    ];
    for (name, situation) in situations {
        eprintln!("{name}");
        situation();
        boxed.ok("systemctl stop myapp.socket myapp.service");
        nothing_is_left(boxed);
        unit(boxed, SOON);
        boxed.ok(
            "systemctl reset-failed; systemctl start myapp.socket; curl -sS http://127.0.0.1:8080/",
        );
        app.is_served();
    }
}

fn a_service_that_is_given_up_leaves_nothing(root: &Path) {
    let app = Served::fd(root, "[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=1\n");
    app.kill();
    app.boxed.until("test $(systemctl show -P ActiveState myapp) = failed");
    // Nobody will start it again: its workers end by themselves, before somebody stops what does not run.
    nobody_is_left(&app.boxed);
    app.boxed.ok("systemctl stop myapp.socket myapp.service");
    nothing_is_left(&app.boxed);
}

/// A worker with a child that has left its session and process group, and does not end when it is asked to.
const WITH_CHILD: &str = r#"
command = ["/bin/sh", "-c", "setsid perl -e '$SIG{TERM} = q(IGNORE); sleep 1000' & exec dogwatch demo-worker"]
workers = 4
[ready]
settle = "50ms"
[stop]
drain = "200ms"
timeout = "200ms"
"#;

fn every_worker_has_a_control_group(root: &Path) {
    let app = Served::with(root, WITH_CHILD, "");
    let boxed = &app.boxed;
    let group_of =
        |pid: &str| boxed.ok(&format!("sed -n s/^0:://p /proc/{pid}/cgroup")).trim().to_owned();
    let unit = boxed.show("myapp", "ControlGroup");
    let main = boxed.show("myapp", "MainPID");
    assert_eq!(group_of(&main), format!("{unit}/main"));
    let keeper = boxed.ok("pgrep -f '^dogwatch: keeper'");
    assert_eq!(group_of(keeper.trim()), format!("{unit}/main"));
    let pids = app.pids();
    let groups: Vec<String> = pids.lines().map(group_of).collect();
    assert_eq!(groups, [1, 2, 3, 4].map(|worker| format!("{unit}/worker-{worker}")));
    let tree = boxed.ok("systemd-cgls --no-pager -u myapp.service");
    assert!(tree.contains("worker-3") && tree.contains("main"), "{tree}");
    // Whoever leads the worker is killed: what it has left in its group ends too, though it has left everything else, and
    // does not do as it is told. So it does when nobody of us was there to see the end.
    for is_seen in [true, false] {
        let pid = app.pids().lines().next().unwrap().to_owned();
        let group = group_of(&pid);
        let child = boxed.ok(&format!("grep -vx {pid} /sys/fs/cgroup{group}/cgroup.procs"));
        if is_seen {
            boxed.ok(&format!("kill -9 {pid}"));
        } else {
            app.kill();
            boxed.ok(&format!("kill -9 {pid}"));
        }
        boxed.until(&format!("! test -e /proc/{}", child.trim()));
        boxed.until(&format!("! test -e /sys/fs/cgroup{group}"));
        app.is_served();
        let groups: BTreeSet<String> = app.pids().lines().map(group_of).collect();
        assert!(groups.len() == 4 && !groups.contains(&group), "{groups:?}");
    }
    app.stop();
}

/// The flags of the listening socket, which all who have it share.
fn flags(boxed: &Boxed, pid: &str) -> u32 {
    let text = boxed.ok(&format!("sed -n 's/^flags:\\s*//p' /proc/{}/fdinfo/3", pid.trim()));
    u32::from_str_radix(text.trim(), 8).unwrap()
}

/// O_NONBLOCK.
const NONBLOCKING: u32 = 0o4000;

fn kill_and_take_over(app: &Served) {
    let before = app.boxed.show("myapp", "NRestarts");
    app.kill();
    app.boxed.until(&format!("test $(systemctl show -P NRestarts myapp) != {before}"));
    app.is_served();
    assert_eq!(app.boxed.run("journalctl --sync"), "");
}

fn the_nonblocking_flag_stays_set(root: &Path) {
    let app = Served::fd(root, "");
    let worker = app.pids().lines().next().unwrap().to_owned();
    for _ in 0..2 {
        assert_eq!(flags(&app.boxed, &worker) & NONBLOCKING, NONBLOCKING);
        kill_and_take_over(&app);
    }
    assert_eq!(flags(&app.boxed, &worker) & NONBLOCKING, NONBLOCKING);
    assert!(!app.boxed.journal("myapp").contains("mended"));
    // Workers on Node that accept by themselves have the same socket under another number.
    let Some(app) = Served::node(root, "", "shared") else { return };
    kill_and_take_over(&app);
    assert_eq!(flags(&app.boxed, &app.boxed.show("myapp", "MainPID")) & NONBLOCKING, NONBLOCKING);
    for _ in 0..20 {
        app.boxed.ok("curl -sS -m 10 http://127.0.0.1:8080/");
    }
    app.stop();
}

fn the_nonblocking_flag_is_mended(root: &Path) {
    let app = Served::fd(root, "[Service]\nNonBlocking=no\n");
    let worker = app.pids().lines().next().unwrap().to_owned();
    assert_eq!(flags(&app.boxed, &worker) & NONBLOCKING, NONBLOCKING);
    let said =
        "systemd had cleared O_NONBLOCK on listener 'web' under the feet of its workers; mended it";
    assert!(!app.boxed.journal("myapp").contains(said), "at first nobody was there");
    kill_and_take_over(&app);
    assert_eq!(flags(&app.boxed, &worker) & NONBLOCKING, NONBLOCKING);
    let journal = app.boxed.journal("myapp");
    assert!(journal.contains(said), "{journal}");
    assert!(journal.contains("hint: say NonBlocking=yes in the unit"), "{journal}");
}

/// A program as there are many: it waits in accept, and an error there is its end.
const BLOCKING: &str = "
import socket
listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(b'HTTP/1.0 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nhello\\n')
    connection.close()
";

fn a_program_that_waits_in_accept_goes_on_waiting(root: &Path) {
    if !root.join("usr/bin/python3").exists() {
        support::skip("Python in the root tree");
        return;
    }
    let settings = "command = [\"/usr/bin/python3\", \"/srv/app.py\"]\nworkers = 4\nblocking = true\n[ready]\nsettle = \"50ms\"\n";
    let boxed = Boxed::boot(root, |layer| {
        put(layer, "etc/dogwatch/myapp.toml", settings);
        put(layer, "srv/app.py", BLOCKING);
        put(layer, "etc/systemd/system/myapp.service.d/test.conf", "[Service]\nNonBlocking=no\n");
    });
    let app = Served::start(boxed, "^/usr/bin/python3 /srv/app.py");
    let workers = app.pids();
    for _ in 0..2 {
        kill_and_take_over(&app);
        assert_eq!(flags(&app.boxed, workers.lines().next().unwrap()) & NONBLOCKING, 0);
        assert_eq!(app.boxed.ok("curl -sS -m 10 http://127.0.0.1:8080/"), "hello\n");
    }
    assert_eq!(app.pids(), workers);
    assert!(!app.boxed.journal("myapp").contains("mended"));
    app.stop();
}
