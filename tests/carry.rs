//! What survives the primary: the real binary, killed and started again by a service manager in miniature that has an FD
//! store.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt as _;
use support::carry::{ends_clean, is_clean, load_of as load, load_of_any};
use support::manager::{Manager, Unit};
use support::{dogwatch, wait_for, which};

const RUN: [&str; 6] = ["--name", "shop", "-n", "3", "--settle", "30ms"];

fn demo(worker: &[&str]) -> Unit {
    Unit::demo(&RUN, worker)
}

/// The pids of the workers' main processes, by the number of the worker.
fn workers(manager: &Manager) -> Vec<i32> {
    let is_worker = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable.starts_with(b"DOGWATCH_WORKER="))
    };
    manager.leftovers().into_iter().filter(is_worker).collect()
}

fn serving(unit: Unit) -> Manager {
    let mut manager = unit.start();
    manager.is_ready();
    manager
}

/// Kills the primary and starts the next.
fn relieve(manager: &mut Manager) {
    manager.kill();
    manager.start();
    manager.is_ready();
}

#[test]
fn a_killed_primary_is_relieved_by_one_that_knows_its_workers() {
    let mut manager = serving(demo(&[]));
    let before = workers(&manager);
    assert_eq!(before.len(), 3);
    relieve(&mut manager);
    manager.says("took over from the last primary: 3 workers live, 0 have ended meanwhile");
    assert_eq!(workers(&manager), before);
    ends_clean(manager);
}

#[test]
fn a_clean_stop_leaves_nothing_in_the_store() {
    let mut manager = serving(demo(&[]));
    assert!(manager.terminate().success());
    assert_eq!(manager.stored(), [""; 0]);
    ends_well(manager);
}

fn ends_well(manager: Manager) {
    manager.nothing_is_left_over();
    manager.assert_no_errors();
}

#[test]
fn listeners_of_its_own_outlive_it_too() {
    let mut manager = {
        let unit = demo(&[]).nothing();
        let address = format!("127.0.0.1:{}", unit.port());
        serving(unit.arguments(&["-l", &address]))
    };
    let clients = load(&manager, "1");
    for _ in 0..3 {
        relieve(&mut manager);
    }
    is_clean(&clients.stop());
    ends_clean(manager);
}

#[test]
fn a_worker_that_ended_while_there_was_no_primary_is_missed() {
    let mut manager = serving(demo(&[]));
    let before = workers(&manager);
    manager.kill();
    kill(Pid::from_raw(before[1]), Signal::SIGKILL).unwrap();
    manager.start();
    manager.says("was ended by SIGKILL; starting the slot again");
    manager.says("is ready after");
    let after = workers(&manager);
    assert_eq!((after.len(), after.contains(&before[1])), (3, false));
    ends_clean(manager);
}

#[test]
fn a_rollout_under_way_is_gone_on_with() {
    let mut manager = serving(Unit::demo(&["--name", "shop", "-n", "3", "--settle", "2s"], &[]));
    let clients = load(&manager, "1");
    manager.signal(Signal::SIGHUP);
    manager.tells("RELOADING=1");
    manager.says("worker 4 (slot 0, generation 2) is ready");
    manager.kill();
    manager.start();
    manager.tells("READY=1");
    manager.tells("RELOADING=1");
    manager.says("reload done: generation 2 serves every slot");
    manager.tells("READY=1");
    is_clean(&clients.stop());
    assert_eq!(workers(&manager).len(), 3);
    ends_clean(manager);
}

#[test]
fn a_rollout_to_a_bad_version_is_rolled_back_by_the_next_primary() {
    let unit = Unit::new(&["--name", "shop"]);
    let file = unit.folder().join("shop.toml");
    let good = format!(
        "command = [\"{}\", \"demo-worker\"]\nworkers = 2\n[ready]\nsettle = \"10ms\"\n",
        dogwatch().display()
    );
    std::fs::write(&file, &good).unwrap();
    let mut manager = serving(unit.arguments(&["--config", file.to_str().unwrap()]));
    // Never ready, until its time is over.
    let bad = "command = [\"sleep\", \"60\"]\nworkers = 2\n[ready]\ntimeout = \"5s\"\nwhen = \"notify\"\n";
    std::fs::write(&file, bad).unwrap();
    manager.signal(Signal::SIGHUP);
    manager.says("relieving all slots with generation 2");
    // The file is not read again, whatever it says: what was under way goes on.
    std::fs::write(&file, "nonsense").unwrap();
    relieve(&mut manager);
    manager.says("rolled back to generation 1");
    assert!(manager.get("/").contains("generation 1,"));
    ends_clean(manager);
}

#[test]
fn readiness_that_is_said_meanwhile_is_heard() {
    let script = "while ! [ -e \"$RUNTIME_DIRECTORY/go\" ]; do sleep 0.01; done; systemd-notify --ready; exec sleep 60";
    if which("systemd-notify").is_none() && support::skip("systemd-notify") {
        return;
    }
    let run = ["--name", "shop", "--ready", "notify", "--settle", "0ms"];
    let mut manager = Unit::script(&run, script).start();
    manager.tells("STATUS=starting");
    while workers(&manager).is_empty() {
        std::thread::yield_now();
    }
    manager.kill();
    std::fs::write(manager.path("go"), "").unwrap();
    // Its message waits in the socket, which lies in the store.
    wait_for("the worker to say so", || (!says_ready(&manager)).then_some(()));
    manager.start();
    manager.says("is ready after");
    manager.is_ready();
    ends_clean(manager);
}

/// Whether systemd-notify is still to come, or still there.
fn says_ready(manager: &Manager) -> bool {
    let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    !workers(manager).iter().any(|pid| {
        name(pid).trim() == "sleep" && {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line == b"sleep\x0060\0"
        }
    })
}

#[test]
fn without_a_store_workers_end_with_their_primary() {
    let mut manager = serving(demo(&[]).store_max(0));
    manager.kill();
    // The keeper sees to it: the leash was gone from the beginning.
    manager.nothing_is_left_over();
    manager.start();
    manager.says("started: 3 of 3 slots are served");
    ends_clean(manager);
}

#[test]
fn when_the_store_is_dropped_the_keeper_ends_the_workers_of_a_dead_primary() {
    let mut manager = serving(demo(&[]));
    manager.kill();
    assert_eq!(workers(&manager).len(), 3);
    manager.drop_store();
    manager.nothing_is_left_over();
}

#[test]
fn a_keeper_that_is_killed_is_made_anew() {
    let mut manager = serving(demo(&[]));
    let is_keeper = |pid: &i32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim() == "dogwatch-keeper"
    };
    // It takes its name when it runs for the first time.
    let keeper = wait_for("the keeper", || manager.leftovers().into_iter().find(is_keeper));
    kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
    manager.says("the keeper has ended; making another");
    relieve(&mut manager);
    manager.kill();
    manager.drop_store();
    manager.nothing_is_left_over();
}

#[test]
fn an_upgrade_keeps_process_and_workers() {
    let mut manager = serving(demo(&[]));
    let (pid, before) = (manager.pid(), workers(&manager));
    let clients = (load(&manager, "1"), load(&manager, "20"));
    for _ in 0..3 {
        manager.signal(Signal::SIGUSR2);
        manager.says("upgrading: executing");
        manager.says("took over from the last primary: 3 workers live");
        manager.tells("READY=1");
    }
    is_clean(&clients.0.stop());
    is_clean(&clients.1.stop());
    assert_eq!((manager.pid(), workers(&manager)), (pid, before));
    // The workers are its children still.
    manager.signal(Signal::SIGHUP);
    manager.says("reload done: generation 2 serves every slot");
    ends_clean(manager);
}

/// Waits until the primary tells systemd this, or ends; returns whether it lives.
fn tells_or_dies(manager: &Manager, text: &str) -> bool {
    wait_for(text, || {
        let alive = manager.lives_on();
        let told = manager.told().iter().any(|told| told.contains(text));
        (!alive || told).then_some(alive)
    })
}

/// Kills the primary at a point, at the start or in a rollout under load, and has the next one go on.
fn dies_at(point: &str, time: u32) -> bool {
    let at = format!("{point}:{time}");
    let run = ["--name", "shop", "-n", "2", "--settle", "10ms", "--stop-timeout", "5s"];
    let mut manager = Unit::demo(&run, &[]).env_once("DOGWATCH_CRASH_AT", &at).start();
    let clients = load_of_any(&manager, "1");
    let ready = tells_or_dies(&manager, "READY=1");
    if ready {
        manager.signal_if_alive(Signal::SIGHUP);
        if tells_or_dies(&manager, "STATUS=2 workers ready, generation 2") {
            // It does not come by so often.
            clients.stop();
            manager.stop();
            return false;
        }
    }
    assert_eq!(manager.wait_crashed().signal(), Some(9), "{at}");
    let begun = manager.told().iter().any(|told| told.contains("RELOADING=1"));
    manager.start();
    manager.is_ready();
    // What was begun is gone on with; the signal may have come too late for the first one.
    manager.tells(if begun {
        "STATUS=2 workers ready, generation 2"
    } else {
        "STATUS=2 workers ready"
    });
    wait_for("two workers", || (workers(&manager).len() == 2).then_some(()));
    let counts = clients.stop();
    assert_eq!(counts.failures(), 0, "{at}: {}\n{}", counts.0, manager.all_said());
    ends_clean(manager);
    true
}

#[test]
fn one_that_dies_at_its_end_has_a_successor_that_serves() {
    for point in ["before-exit", "after-exit"] {
        let mut manager = serving(demo(&[]).env_once("DOGWATCH_CRASH_AT", point));
        manager.signal(Signal::SIGTERM);
        assert_eq!(manager.wait_crashed().signal(), Some(9), "{point}");
        manager.start();
        manager.is_ready();
        assert_eq!(workers(&manager).len(), 3, "{point}");
        ends_clean(manager);
    }
}

#[test]
fn a_worker_that_does_not_end_is_killed_by_the_next_primary() {
    let script = "trap '' TERM; while :; do sleep 0.05; done";
    let run = [
        "--name",
        "shop",
        "--ready",
        "alive:10ms",
        "--settle",
        "0ms",
        "--drain",
        "0ms",
        "--stop-timeout",
        "100ms",
    ];
    for point in ["before-kill", "after-kill"] {
        let mut manager = serving(Unit::script(&run, script).env_once("DOGWATCH_CRASH_AT", point));
        manager.signal(Signal::SIGHUP);
        assert_eq!(manager.wait_crashed().signal(), Some(9), "{point}");
        manager.start();
        manager.says("reload done: generation 2 serves every slot");
        manager.stop();
        manager.nothing_is_left_over();
    }
}

/// Every action of a start and of a rollout, before and after.
macro_rules! crash_points {
    ($($name:ident: $point:literal;)*) => {
        mod dies {$(
            #[test]
            fn $name() {
                let mut reached = 0;
                while reached < 24 && super::dies_at($point, reached + 1) {
                    reached += 1;
                }
                assert!(reached > 0, "it never comes by");
                eprintln!("{}: died there {reached} times, each time relieved without a failure", $point);
            }
        )*}
    };
}

crash_points! {
    before_spawn: "before-spawn";
    when_connected: "connected";
    when_made: "made";
    when_stored: "stored";
    after_spawn: "after-spawn";
    before_admit: "before-admit";
    after_admit: "after-admit";
    before_withdraw: "before-withdraw";
    after_withdraw: "after-withdraw";
    before_terminate: "before-terminate";
    after_terminate: "after-terminate";
    before_forget: "before-forget";
    after_forget: "after-forget";
    before_report: "before-report";
    after_report: "after-report";
}
