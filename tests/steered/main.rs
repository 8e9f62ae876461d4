//! Steered balance with the real binary below a service manager in miniature: each worker has sockets of its own, and the
//! kernel picks one. The workers are servers without any code for their end, which die at once of the stop signal; nothing
//! is lost all the same. Counts, not times.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod client;
mod deaths;
mod lanes;
mod odd;
mod poor;
mod quiet;
mod rollouts;
mod spread;
#[path = "../support/mod.rs"]
mod support;

use client::{Answer, ask};
use dogwatch::protocol::steering::{BLOCK, MAX_LANES};
use dogwatch::sys::bpf;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use support::carry::{variable, workers};
use support::manager::{Manager, Unit};
use support::{Counts, Load, abrupt, load_client, skip, wait_for};

/// Whether the tests cannot be run here.
fn may_not_steer() -> bool {
    match bpf::Maps::new(MAX_LANES, BLOCK) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => skip("bpf(2) is not permitted"),
        made => made.is_err(),
    }
}

/// `dogwatch run` with these flags and the server with its own, on a socket that the primary opens.
fn unit(flags: &[&str], server: &[&str]) -> Unit {
    let unit = bare(flags, server).nothing();
    let address = format!("127.0.0.1:{}", unit.port());
    unit.arguments(&["-l", &address])
}

/// The same, without an address.
fn bare(flags: &[&str], server: &[&str]) -> Unit {
    let program = abrupt();
    let run = ["--name", "app", "--settle", "10ms"];
    Unit::new(&[&run, flags, &["--", program.to_str().unwrap()], server].concat())
}

/// Waits until all of so many slots are served.
fn serving(unit: Unit, slots: usize) -> Manager {
    let mut manager = unit.start();
    manager.says(&format!("started: {slots} of {slots} slots are served"));
    manager
}

/// An app of so many workers, steered like this; `None` where that may not be tested.
fn app(balance: &str, slots: usize, flags: &[&str], server: &[&str]) -> Option<Manager> {
    if may_not_steer() {
        return None;
    }
    let slots_flag = slots.to_string();
    let flags = [&["--balance", balance, "-n", &slots_flag], flags].concat();
    Some(serving(unit(&flags, server), slots))
}

/// Runs a verb where the primary's own unit would; it must succeed.
fn verb(manager: &Manager, arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.arg("60").arg(support::dogwatch()).args(arguments);
    command.env("RUNTIME_DIRECTORY", manager.folder()).env("XDG_RUNTIME_DIR", manager.folder());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Reloads so many times, one after the other; `first` is the generation of the first.
fn reload(manager: &mut Manager, first: usize, times: usize) {
    for generation in first..first + times {
        manager.signal(nix::sys::signal::Signal::SIGHUP);
        manager.says(&format!("reload done: generation {generation} "));
    }
}

fn load(manager: &Manager, arguments: &[&str]) -> Load {
    let address = manager.address.to_string();
    Load::start(Command::new(load_client()).arg(address).args(arguments)).begun()
}

/// Clients with a connection for each request.
fn short(manager: &Manager) -> Load {
    load(manager, &["--clients", "4"])
}

/// Clients that keep their connection for so many requests, and think in between.
fn kept(manager: &Manager, requests: &str, think: &str) -> Load {
    load(manager, &["--clients", "8", "--requests", requests, "--think", think])
}

fn is_clean(what: &str, load: Load, least: u64) {
    let counts: Counts = load.stop();
    eprintln!("{what}: {}", counts.0);
    counts.assert_clean(least);
}

/// Asks so many times, a connection each, and counts the answers of each slot.
fn tally(address: SocketAddr, times: usize) -> BTreeMap<u16, usize> {
    count((0..times).map(|_| ask(address)))
}

fn count(answers: impl Iterator<Item = Answer>) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    answers.for_each(|answer| *counts.entry(answer.slot).or_default() += 1);
    counts
}

/// Each of so many slots was given the same, but for a hundredth.
fn assert_even(counts: &BTreeMap<u16, usize>, slots: usize) {
    assert!(is_even(counts, slots), "{counts:?}");
}

fn is_even(counts: &BTreeMap<u16, usize>, slots: usize) -> bool {
    let total: usize = counts.values().sum();
    let slack = (total / 100).max(1);
    let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
    counts.len() == slots && most - least <= slack
}

/// After load or a disturbance, when a lane may rest for a while: waits until each of so many slots is given the same.
fn becomes_even(address: SocketAddr, slots: usize) {
    wait_for("an even spread", || {
        let counts = tally(address, slots * 50);
        counts.values().all(|count| *count == 50).then_some(())
    });
}

/// The process that serves a slot, the newest if there are two.
fn pid_of(manager: &Manager, slot: u16) -> i32 {
    let slot = slot.to_string();
    let workers = workers(manager).into_iter().rev();
    let mut pids = workers.map(|(_, pid)| pid);
    pids.find(|pid| variable(*pid, "DOGWATCH_SLOT").as_ref() == Some(&slot)).unwrap()
}

/// Stops it; nothing is left, and it did nothing that it must not.
fn ends_clean(mut manager: Manager) {
    assert!(manager.stop().success(), "{}", manager.all_said());
    manager.nothing_is_left_over();
    manager.assert_no_errors();
}
