//! What survives the primary where Node's workers are: their channels, what is dealt to them, what they have asked for.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;
use support::carry::{load_of as load, load_of_any};
use support::manager::Unit;
use support::node::{file, is_missing, node};
use support::wait_for;

fn app(version: u16, policy: &str, name: &str) -> Unit {
    let unit = Unit::new(&[]);
    let port = format!("PORT={}", unit.port());
    unit.arguments(&[
        "--name",
        "shop",
        "-n",
        "3",
        "--settle",
        "30ms",
        "--handoff",
        "node",
        "--balance",
        policy,
        "--env",
        &port,
        "--",
        &node(version),
        &file(name),
    ])
}

/// Kills the primary again and again, in reloads too, under load.
fn is_killed_often(version: u16, policy: &str, kills: u32) {
    if is_missing() {
        return;
    }
    let mut manager = app(version, policy, "plain.js").start();
    manager.is_ready();
    let clients = (load(&manager, "1"), load(&manager, "20"));
    for round in 0..kills {
        if round % 4 == 3 {
            manager.signal(Signal::SIGHUP);
            manager.tells("RELOADING=1");
        }
        // At no moment in particular.
        std::thread::sleep(Duration::from_millis(u64::from(40 + 37 * round % 160)));
        manager.kill();
        manager.start();
        manager.tells("READY=1");
        manager.says("took over from the last primary");
    }
    // The last reload, if it is still under way, comes to its end.
    manager.tells("STATUS=3 workers ready");
    let counts = (clients.0.stop(), clients.1.stop());
    eprintln!("node {version}, {policy}: {kills} kills, {:?} {:?}", counts.0, counts.1);
    counts.0.assert_clean(1);
    // In `shared` Node itself loses requests on kept connections in a reload (docs/node.md).
    if policy == "round-robin" || version == 18 {
        counts.1.assert_clean(1);
    }
    assert!(manager.stop().success());
    manager.nothing_is_left_over();
    manager.assert_no_errors();
}

#[test]
fn node_18_in_round_robin_does_not_notice() {
    is_killed_often(18, "round-robin", 20);
}

#[test]
fn node_24_in_round_robin_does_not_notice() {
    is_killed_often(24, "round-robin", 20);
}

#[test]
fn node_20_that_shares_does_not_notice() {
    is_killed_often(20, "shared", 12);
}

/// Kills the primary at a point, and has the next one go on.
fn dies_at(version: u16, point: &str) {
    if is_missing() {
        return;
    }
    let mut manager =
        app(version, "round-robin", "plain.js").env_once("DOGWATCH_CRASH_AT", point).start();
    let clients = load_of_any(&manager, "1");
    // At the start, or when everybody is relieved.
    let mut asked = false;
    wait_for("its death", || {
        if !asked
            && manager.told().iter().any(|told| told.contains("READY=1"))
            && manager.lives_on()
        {
            manager.signal_if_alive(Signal::SIGHUP);
            asked = true;
        }
        (!manager.lives_on()).then_some(())
    });
    assert_eq!(manager.wait_crashed().signal(), Some(9), "{point}");
    manager.start();
    manager.is_ready();
    manager.tells("STATUS=3 workers ready, generation ");
    let counts = clients.stop();
    assert_eq!(counts.failures(), 0, "{point}: {}\n{}", counts.0, manager.all_said());
    // All of them serve still.
    manager.signal(Signal::SIGHUP);
    manager.says("reload done");
    assert!(manager.stop().success());
    manager.nothing_is_left_over();
    manager.assert_no_errors();
}

#[test]
fn a_connection_that_was_accepted_is_not_lost() {
    for time in [1, 2, 50, 400] {
        dies_at(22, &format!("accepted:{time}"));
    }
}

#[test]
fn a_connection_that_was_passed_is_not_passed_twice() {
    for time in [1, 2, 50, 400] {
        dies_at(22, &format!("dealt:{time}"));
    }
}

#[test]
fn one_that_dies_while_it_takes_over_forgets_nothing() {
    if is_missing() {
        return;
    }
    let mut manager = app(22, "round-robin", "plain.js").start();
    manager.is_ready();
    let clients = load(&manager, "20");
    for _ in 0..20 {
        manager.kill();
        manager.start();
        // It may be anywhere on its way.
        std::thread::sleep(Duration::from_micros(rand(12_000)));
    }
    manager.kill();
    manager.start();
    manager.is_ready();
    // A worker whose channel nobody knew would be ended by the stop signal, in the middle of what it does.
    manager.signal(Signal::SIGHUP);
    for _ in 0..3 {
        let gone = manager.says("has gone");
        assert!(gone.ends_with("it exited with status 0"), "{gone}");
    }
    clients.stop().assert_clean(1);
    assert!(manager.stop().success());
    manager.nothing_is_left_over();
}

/// Some number below this one.
fn rand(below: u64) -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new().build_hasher().finish() % below
}

#[test]
fn a_question_that_was_heard_is_answered() {
    for time in [1, 2, 3, 6, 9] {
        dies_at(20, &format!("heard:{time}"));
        dies_at(20, &format!("kept:{time}"));
    }
}

#[test]
fn a_worker_that_was_told_to_disconnect_is_seen_off() {
    for time in [1, 2, 3] {
        dies_at(22, &format!("told:{time}"));
        dies_at(22, &format!("told-and-kept:{time}"));
    }
}
