//! Watching costs nothing when there is nothing to see; and Node.

use crate::client::ask;
use crate::support::manager::Manager;
use crate::support::primary::get;
use crate::support::{Load, load_client, node, wait_for};
use crate::{app, ends_clean, is_clean, tally};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

/// How often the primary has gone to sleep.
fn sleeps(manager: &Manager) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", manager.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// How often it wakes up in three seconds in which nothing happens; it may have been busy before.
fn wakes(manager: &Manager) -> u64 {
    wait_for("it to calm down", || {
        let before = sleeps(manager);
        std::thread::sleep(Duration::from_millis(200));
        (sleeps(manager) <= before + 1).then_some(())
    });
    let before = sleeps(manager);
    std::thread::sleep(Duration::from_secs(3));
    sleeps(manager) - before
}

#[test]
fn without_traffic_nobody_looks() {
    let Some(manager) = app("steered", 3, &[], &[]) else { return };
    let fresh = wakes(&manager);
    tally(manager.address, 300);
    let kept = crate::client::held(manager.address, 30);
    let after = wakes(&manager);
    eprintln!("wake-ups in 3 s: {fresh} before any connection, {after} after many");
    assert!(fresh <= 4 && after <= 4, "{fresh} before any connection, {after} after many");
    drop(kept);
    assert_eq!(ask(manager.address).generation, 1);
    ends_clean(manager);
}

#[test]
fn a_program_of_nodes_is_steered_too() {
    if node::is_missing() || crate::may_not_steer() {
        return;
    }
    let flags = ["-n", "3", "--balance", "steered"];
    let setup = node::bare(22, &flags, "plain.js");
    let address = format!("0.0.0.0:{}", setup.port());
    let mut primary = setup.arguments(&["-l", &address]).start();
    primary.says("started: 3 of 3 slots are served");
    let address = primary.address;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..300 {
        *counts.entry(get(address, "/")).or_default() += 1;
    }
    eprintln!("{counts:?}");
    assert!(
        counts.len() == 3 && counts.values().all(|count| (97..=103).contains(count)),
        "{counts:?}"
    );
    let address = address.to_string();
    let clients =
        Load::start(Command::new(load_client()).args([&address, "--clients", "4"])).begun();
    for generation in 2..5 {
        primary.signal(Signal::SIGHUP);
        primary.says(&format!("reload done: generation {generation} "));
    }
    is_clean("a connection for each request", clients, 1);
    primary.stop();
}
