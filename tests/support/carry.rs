//! What the tests of a primary's inheritance share: three workers below a service manager in miniature, under load.

use crate::support::manager::{Manager, Unit};
use crate::support::{Counts, Load, load_client};
use std::process::Command;

pub(crate) const RUN: [&str; 6] = ["--name", "shop", "-n", "3", "--settle", "10ms"];

pub(crate) fn demo() -> Unit {
    Unit::demo(&RUN, &[])
}

pub(crate) fn serving(unit: Unit) -> Manager {
    let mut manager = unit.start();
    manager.says("started: 3 of 3 slots are served");
    manager
}

pub(crate) fn variable(pid: i32, name: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    environment.split('\0').find_map(|v| v.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
}

/// The workers' processes, by the number of the worker.
pub(crate) fn workers(manager: &Manager) -> Vec<(u64, i32)> {
    let number = |pid| variable(pid, "DOGWATCH_WORKER")?.parse().ok();
    let pids = manager.leftovers().into_iter();
    let mut workers: Vec<_> = pids.filter_map(|pid| Some((number(pid)?, pid))).collect();
    workers.sort_unstable();
    workers
}

pub(crate) fn load(manager: &Manager) -> Load {
    load_of(manager, "1")
}

/// With so many requests a connection.
pub(crate) fn load_of(manager: &Manager, requests: &str) -> Load {
    load_of_any(manager, requests).begun()
}

/// The same for an app that may not answer yet.
pub(crate) fn load_of_any(manager: &Manager, requests: &str) -> Load {
    let address = manager.address.to_string();
    let arguments = [&address, "--clients", "4", "--requests", requests];
    Load::start(Command::new(load_client()).args(arguments))
}

pub(crate) fn is_clean(counts: &Counts) {
    counts.assert_clean(1);
}

pub(crate) fn ends_clean(mut manager: Manager) {
    assert!(manager.stop().success(), "{}", manager.all_said());
    manager.nothing_is_left_over();
    manager.assert_no_errors();
}
