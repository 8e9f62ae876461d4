//! Workers and primaries that die or stall cost nobody else anything.

use crate::client::{Client, ask, listening};
use crate::support::manager::Manager;
use crate::support::wait_for;
use crate::{
    app, assert_even, bare, becomes_even, count, ends_clean, is_clean, kept, load, may_not_steer,
    pid_of, serving, short, tally, unit, verb,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

fn signal(pid: i32, which: Signal) {
    kill(Pid::from_raw(pid), which).unwrap();
}

/// Holds a process still; it is when this returns.
fn hold(pid: i32) {
    signal(pid, Signal::SIGSTOP);
    wait_for("it to stand still", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T').then_some(())
    });
}

/// So many connections with a request each, whose answers are waited for later.
fn asking(address: SocketAddr, count: usize) -> Vec<Client> {
    let one = |_| {
        let mut client = Client::new(address);
        client.send("close");
        client
    };
    (0..count).map(one).collect()
}

#[test]
fn a_killed_worker_takes_with_it_only_what_it_was_answering() {
    let Some(mut manager) = app("steered", 3, &[], &[]) else { return };
    for slot in 0..3 {
        // There are no more open connections than clients, and a third of them was its own.
        let clients = load(&manager, &["--clients", "12"]);
        let pid = pid_of(&manager, slot);
        // By then all of the clients are at it.
        tally(manager.address, 300);
        signal(pid, Signal::SIGKILL);
        manager.says("was ended by SIGKILL");
        manager.says("is ready after");
        let counts = clients.stop();
        eprintln!("slot {slot} killed: {}", counts.0);
        assert!(counts.failures() <= 12 && counts.ok() > 0, "{}", counts.0);
    }
    becomes_even(manager.address, 3);
    ends_clean(manager);
}

#[test]
fn what_waits_for_a_killed_worker_is_answered_by_others_or_the_next() {
    for slots in [3, 1] {
        let flags = ["--min-delay", "10ms"];
        let Some(mut manager) = app("steered", slots, &flags, &[]) else { return };
        let pid = pid_of(&manager, 0);
        hold(pid);
        let mut waiting = asking(manager.address, 60);
        signal(pid, Signal::SIGKILL);
        for client in &mut waiting {
            assert_ne!(client.hear().pid, pid);
        }
        manager.says("was ended by SIGKILL");
        becomes_even(manager.address, slots);
        ends_clean(manager);
    }
}

#[test]
fn who_waits_for_a_worker_that_stands_still_is_answered_by_others() {
    let Some(manager) = app("steered", 3, &[], &[]) else { return };
    let pid = pid_of(&manager, 1);
    for round in 0..5 {
        hold(pid);
        let mut waiting = asking(manager.address, 90);
        let answers = waiting.iter_mut().map(|client| {
            let answer = client.hear();
            assert_ne!(answer.pid, pid, "it stands still");
            answer
        });
        eprintln!("round {round}: {:?}", count(answers));
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert!(stat.rsplit_once(") ").unwrap().1.starts_with('T'), "nobody else lets it go on");
        // Whoever lets it go on in the middle of a rescue lets it see its socket closed: that is over when this is answered.
        verb(&manager, &["list"]);
        signal(pid, Signal::SIGCONT);
        wait_for("it to serve again", || (ask(manager.address).pid == pid).then_some(()));
    }
    ends_clean(manager);
}

#[test]
fn a_worker_that_stalls_now_and_then_is_spared() {
    let Some(manager) = app("steered", 3, &[], &[]) else { return };
    let pid = pid_of(&manager, 0);
    let clients = load(&manager, &["--clients", "12", "--tally"]);
    // Twice a second it sleeps for 200 ms.
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        signal(pid, Signal::SIGUSR1);
        std::thread::sleep(Duration::from_millis(500));
    }
    let counts = clients.stop();
    eprintln!("{}", counts.0);
    let (failures, spread) = counts.0.split_once('\n').unwrap();
    assert!(failures.ends_with("refused 0 reset 0 short 0 timeout 0 other 0"), "{failures}");
    let mut own = 0;
    let mut others = 0;
    let words: Vec<&str> = spread.split_whitespace().collect();
    for pair in words.chunks(2) {
        let times: u64 = pair[1].parse().unwrap();
        if pair[0].starts_with("0/") { own += times } else { others += times }
    }
    assert!(own > 0 && own < others / 2 * 9 / 10, "{own} for it, {others} for the two others");
    ends_clean(manager);
}

/// Rollouts under load, and the primary is killed in the middle of each.
fn primary_dies_in_rollouts(mut manager: Manager) {
    let (one, ten) = (short(&manager), kept(&manager, "10", "4"));
    for generation in 2..8 {
        manager.signal(Signal::SIGHUP);
        if generation % 2 == 0 {
            manager.says("is ready after");
        } else {
            manager.says(&format!("relieving all slots with generation {generation}"));
        }
        manager.kill();
        manager.start();
        manager.says("took over from the last primary");
        manager.says(&format!("reload done: generation {generation} "));
    }
    assert!(!manager.all_said().contains("cannot steer"), "{}", manager.all_said());
    is_clean("a connection for each request", one, 1);
    is_clean("ten requests a connection", ten, 1);
    becomes_even(manager.address, 3);
    ends_clean(manager);
}

#[test]
fn a_primary_killed_in_the_middle_of_rollouts_costs_nothing() {
    let Some(manager) = app("steered", 3, &["--drain", "20s"], &[]) else { return };
    primary_dies_in_rollouts(manager);
}

/// So many listeners of one address, as a socket unit with `ReusePort=yes` that names it as often.
pub(crate) fn equal(count: usize) -> (SocketAddr, Vec<OwnedFd>) {
    let mut address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut sockets = vec![];
    for _ in 0..count {
        let listener = TcpListener::from(listening(address));
        address = listener.local_addr().unwrap();
        sockets.push(listener.into());
    }
    (address, sockets)
}

pub(crate) fn named(sockets: Vec<OwnedFd>) -> Vec<(String, OwnedFd)> {
    sockets.into_iter().map(|socket| ("web".to_owned(), socket)).collect()
}

#[test]
fn a_primary_killed_in_the_middle_of_rollouts_costs_nothing_on_sockets_of_systemd() {
    if may_not_steer() {
        return;
    }
    let (address, sockets) = equal(5);
    let flags = ["--balance", "steered", "-n", "3", "--drain", "20s"];
    let manager = serving(bare(&flags, &[]).passing(address, named(sockets)), 3);
    assert_even(&tally(manager.address, 300), 3);
    primary_dies_in_rollouts(manager);
}

#[test]
fn connections_go_on_being_steered_while_there_is_no_primary() {
    if may_not_steer() {
        return;
    }
    let mut manager = serving(unit(&["--balance", "steered", "-n", "4"], &[]), 4);
    manager.kill();
    assert_even(&tally(manager.address, 400), 4);
    manager.start();
    manager.says("took over from the last primary: 4 workers live");
    assert_even(&tally(manager.address, 400), 4);
    assert_eq!(ask(manager.address).generation, 1);
    ends_clean(manager);
}

#[test]
fn who_is_held_still_when_the_primary_dies_goes_on_with_the_next() {
    if may_not_steer() {
        return;
    }
    let flags = ["--balance", "steered", "-n", "2"];
    let mut manager = serving(unit(&flags, &[]).env_once("DOGWATCH_CRASH_AT", "still"), 2);
    let pid = pid_of(&manager, 0);
    let mut waiting = vec![];
    // It stalls, and what waits for it is about to be moved.
    for _ in 0..200 {
        if !manager.lives_on() {
            break;
        }
        signal(pid, Signal::SIGUSR1);
        waiting.extend(asking(manager.address, 8));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(manager.wait_crashed().signal(), Some(9));
    manager.start();
    manager.says("took over from the last primary: 2 workers live");
    for client in &mut waiting {
        client.hear();
    }
    becomes_even(manager.address, 2);
    ends_clean(manager);
}

#[test]
fn who_waits_alone_is_left_to_the_worker_for_a_while() {
    let Some(manager) = app("steered", 3, &[], &[]) else { return };
    let pid = pid_of(&manager, 1);
    wait_for("a test that was not kept from its work meanwhile", || {
        // Nobody looks any more: what comes then has not waited since.
        std::thread::sleep(Duration::from_millis(1500));
        hold(pid);
        let begin = Instant::now();
        let mut waiting = asking(manager.address, 3);
        std::thread::sleep(Duration::from_millis(100));
        signal(pid, Signal::SIGCONT);
        let is_a_moment = begin.elapsed() < Duration::from_millis(800);
        let is_left = waiting.iter_mut().any(|client| client.hear().pid == pid);
        assert!(is_left || !is_a_moment, "it was moved at once");
        is_a_moment.then_some(())
    });
    ends_clean(manager);
}
