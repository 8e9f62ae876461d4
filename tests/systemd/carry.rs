//! What befalls the service costs nobody anything: its primary killed again and again or hung, the managers around it
//! started anew, under load.

use super::served::{self, Served};
use super::support;
use super::{Load, load_of};
use std::collections::BTreeSet;
use std::path::Path;

on_both! {
    killed_primaries_cost_nothing
    killed_primaries_of_node_round_robin_cost_nothing
    killed_primaries_of_node_shared_cost_nothing
    what_befalls_the_service_costs_nothing
    what_befalls_the_service_costs_nodes_clients_nothing
    what_a_worker_has_outlives_the_primary
    upgrades_back_and_forth_cost_nothing
}

/// So many times is the primary killed in peace, and again so many times during reloads.
const KILLS: u32 = 10;

/// From systemd 254 on the shipped unit waits longer after each of the first crashes, up to a second, and the test would
/// do little else. What is promised is the same.
const IMPATIENT: &str = "[Service]\nRestartMaxDelaySec=infinity\nRestartSteps=0\n";

fn killed_primaries_cost_nothing(root: &Path) {
    kill_under_load(Served::fd(root, IMPATIENT), true);
}

fn killed_primaries_of_node_round_robin_cost_nothing(root: &Path) {
    if let Some(app) = Served::node(root, IMPATIENT, "round-robin") {
        kill_under_load(app, true);
    }
}

fn killed_primaries_of_node_shared_cost_nothing(root: &Path) {
    // Where workers accept by themselves, Node closes what it takes for idle though a request is on its way: with
    // reloads, only clients that ask once count.
    if let Some(app) = Served::node(root, IMPATIENT, "shared") {
        kill_under_load(app, false);
    }
}

fn kill_under_load(mut app: Served, keeps_through_reloads: bool) {
    let (short, kept) = (load_of(&app.boxed, 4, 1), load_of(&app.boxed, 2, 20));
    let workers = app.pids();
    for (nth, moment) in served::moments(KILLS).enumerate() {
        // Some die while they are still taking over.
        if nth % 2 == 0 {
            app.is_served();
        }
        std::thread::sleep(moment);
        app.kill();
    }
    app.is_served();
    assert_eq!(app.pids(), workers, "its death is no reason for a worker's");
    let kept = if keeps_through_reloads {
        Some(kept)
    } else {
        kept.stop().assert_clean(1);
        None
    };
    for moment in served::moments(KILLS) {
        // A reload that the last primary has begun goes on; when it is done, the next begins.
        app.boxed.until(
            "systemctl show -P StatusText myapp | grep '^reload to' || dogwatch reload --no-wait myapp",
        );
        std::thread::sleep(moment);
        app.kill();
    }
    app.boxed.until("systemctl reload myapp");
    app.learn_generation();
    app.is_served();
    assert_clean(short, kept);
    let restarts: u32 = app.boxed.show("myapp", "NRestarts").parse().unwrap();
    assert_eq!(restarts, 2 * KILLS);
    app.stop();
    served::assert_lines(&app.boxed, restarts);
}

fn assert_clean(short: Load, kept: Option<Load>) {
    for counts in [Some(short), kept].into_iter().flatten().map(Load::stop) {
        eprintln!("{}", counts.0);
        counts.assert_clean(1);
    }
}

fn what_befalls_the_service_costs_nothing(root: &Path) {
    befall(&Served::fd(root, "[Service]\nWatchdogSec=6\n"), true);
}

fn what_befalls_the_service_costs_nodes_clients_nothing(root: &Path) {
    for balance in ["round-robin", "shared"] {
        if let Some(app) = Served::node(root, "[Service]\nWatchdogSec=6\n", balance) {
            befall(&app, balance == "round-robin");
        }
    }
}

fn befall(app: &Served, keeps_through_reloads: bool) {
    let (short, kept) = (load_of(&app.boxed, 4, 1), load_of(&app.boxed, 2, 20));
    let workers = app.pids();
    app.boxed.ok("kill -STOP $(systemctl show -P MainPID myapp)");
    app.boxed.until("test $(systemctl show -P NRestarts myapp) = 1");
    app.is_served();
    app.boxed.ok("systemctl daemon-reexec");
    app.is_served();
    // What it holds is still the store's, and systemd's.
    app.kill();
    app.boxed.until("test $(systemctl show -P NRestarts myapp) = 2");
    app.is_served();
    app.boxed.ok("systemctl daemon-reload");
    app.boxed.ok(
        "pid=$(systemctl show -P MainPID systemd-journald) && test \"$pid\" -gt 1 && kill -9 \"$pid\"",
    );
    app.boxed.until("test $(systemctl show -P NRestarts systemd-journald) = 1");
    app.boxed.ok("logger -t myapp/0 it is back");
    app.is_served();
    assert_eq!(app.pids(), workers, "nothing of that is a reason for a worker's end");
    let kept = if keeps_through_reloads {
        Some(kept)
    } else {
        kept.stop().assert_clean(1);
        None
    };
    app.boxed.ok("systemctl restart myapp");
    app.is_served();
    let after = app.pids();
    assert!(after.lines().all(|pid| !workers.lines().any(|old| old == pid)), "{workers}{after}");
    assert_clean(short, kept);
    app.stop();
    served::assert_lines(&app.boxed, 3);
}

/// systemd makes much for a service at its start and takes it away at its end; a worker goes on using it.
fn what_a_worker_has_outlives_the_primary(root: &Path) {
    let app = Served::fd(root, "");
    let worker = app.pids().lines().next().unwrap().to_owned();
    // As the worker sees it, with its rights.
    let inside = |command: &str| {
        app.boxed.ok(&format!(
            "nsenter -t {worker} -m setpriv --reuid $(stat -c %u /proc/{worker}) --clear-groups sh -c '{command}'"
        ))
    };
    let files = "/tmp/one /var/tmp/one /dev/shm/one";
    inside(&format!("touch {files}"));
    app.kill();
    app.boxed.until("test $(systemctl show -P NRestarts myapp) = 1");
    app.is_served();
    assert_eq!(inside(&format!("ls {files}")).lines().count(), 3);
    inside("touch /tmp/two /var/tmp/two /dev/shm/two");
    // The next worker finds them too, and is the same user.
    app.boxed.ok("dogwatch restart myapp/0");
    app.is_served();
    let users = app.boxed.ok("stat -c %u $(pgrep -f '^dogwatch demo-worker' | sed s,^,/proc/,)");
    assert_eq!(users.lines().collect::<BTreeSet<_>>().len(), 1, "{users}");
    let next = app.pids().lines().last().unwrap().to_owned();
    assert_eq!(app.boxed.ok(&format!("ls /proc/{next}/root/tmp")), "one\ntwo\n");
    // Whoever may look still finds the way to the primary.
    app.boxed.ok("test -S /run/dogwatch/myapp/control && ! test -L /run/dogwatch/myapp");
    app.stop();
}

/// Two builds of the program replace each other, as a package does it: the old file stays open, under no name.
fn upgrades_back_and_forth_cost_nothing(root: &Path) {
    if std::env::var_os("DOGWATCH_LIBSYSTEMD").is_none() {
        // What replaces it is itself then.
        support::skip("a second build, with the feature 'journal'");
    }
    upgrade_under_load(Served::fd(root, ""));
    if let Some(app) = Served::node(root, "", "round-robin") {
        upgrade_under_load(app);
    }
}

fn upgrade_under_load(mut app: Served) {
    let (short, kept) = (load_of(&app.boxed, 4, 1), load_of(&app.boxed, 2, 20));
    let (workers, pid) = (app.pids(), app.boxed.show("myapp", "MainPID"));
    app.boxed.ok("cp /usr/bin/dogwatch /root/1; cp /usr/bin/dogwatch-libsystemd /root/2 || cp /root/1 /root/2");
    for build in [2, 1, 2, 1, 2, 1] {
        let said = app.boxed.ok(&format!(
            "cp /root/{build} /usr/bin/new && mv /usr/bin/new /usr/bin/dogwatch && dogwatch upgrade myapp"
        ));
        assert!(said.contains("; 4 of 4 slots are served"), "{said}");
        app.is_served();
    }
    assert_eq!((app.pids(), app.boxed.show("myapp", "MainPID")), (workers, pid));
    // In the middle of a reload, which goes on.
    app.boxed.ok("dogwatch reload --no-wait myapp && dogwatch upgrade myapp");
    app.boxed
        .until("test \"$(systemctl show -P StatusText myapp)\" = '4 workers ready, generation 2'");
    app.learn_generation();
    assert_eq!(app.boxed.show("myapp", "NRestarts"), "0");
    assert_clean(short, Some(kept));
    app.stop();
    served::assert_lines(&app.boxed, 0);
}
