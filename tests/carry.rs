//! What survives the primary: the real binary, killed and started again by a service manager in miniature that has an FD
//! store.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use nix::sys::signal::Signal;
use support::manager::{Manager, Unit};
use support::{Load, load_client, wait_for};

const RUN: [&str; 6] = ["--name", "shop", "-n", "3", "--settle", "30ms"];

fn demo(worker: &[&str]) -> Unit {
    Unit::demo(&RUN, worker)
}

/// The pids of the workers' main processes.
fn workers(manager: &Manager) -> Vec<i32> {
    let is_worker = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable.starts_with(b"DOGWATCH_WORKER="))
    };
    manager.leftovers().into_iter().filter(is_worker).collect()
}

fn serving(mut manager: Manager) -> Manager {
    manager.is_ready();
    manager
}

#[test]
fn a_killed_primary_is_relieved_by_one_that_knows_its_workers() {
    let mut manager = serving(demo(&[]).start());
    let before = workers(&manager);
    manager.kill();
    manager.start();
    manager.is_ready();
    manager.says("took over from the last primary: 3 workers live, 0 have ended meanwhile");
    assert_eq!(workers(&manager), before);
    assert!(manager.stop().success());
    manager.nothing_is_left_over();
    assert_eq!(manager.stored(), [""; 0]);
}
