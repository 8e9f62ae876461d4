//! Who gets which connection.

use crate::client::{ask, ask_from, held};
use crate::support::manager::Manager;
use crate::support::wait_for;
use crate::{
    app, assert_even, becomes_even, count, ends_clean, is_even, pid_of, reload, tally, verb,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};

#[test]
fn each_worker_gets_the_same_number_of_connections() {
    let Some(manager) = app("steered", 8, &[], &[]) else { return };
    let address = manager.address;
    assert_even(&tally(address, 800), 8);
    let kept = held(address, 400);
    assert_even(&count(kept.iter().map(|(_, answer)| *answer)), 8);
    // The lane of a worker that gets no processor for a while is left out.
    wait_for("the same for each of what comes at once", || {
        let threads: Vec<_> =
            (0..4).map(|_| std::thread::spawn(move || tally(address, 400))).collect();
        let mut together = BTreeMap::new();
        for (slot, times) in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
            *together.entry(slot).or_default() += times;
        }
        is_even(&together, 8).then_some(())
    });
    drop(kept);
    ends_clean(manager);
}

#[test]
fn each_worker_that_waits_in_accept_gets_the_same_number_too() {
    let Some(manager) = app("steered", 4, &["--blocking"], &["--threads"]) else { return };
    assert_even(&tally(manager.address, 800), 4);
    ends_clean(manager);
}

/// To which slot each of so many clients comes.
fn homes(manager: &Manager) -> Vec<u16> {
    (1..=CLIENTS).map(|own| ask_from(own, manager.address).slot).collect()
}

const CLIENTS: u16 = 300;

fn moved(before: &[u16], after: &[u16]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}

#[test]
fn a_client_stays_with_its_slot_whatever_happens_to_the_others() {
    let flags = ["--min-delay", "1s"];
    let Some(mut manager) = app("steered:client-ip", 4, &flags, &[]) else { return };
    let before = homes(&manager);
    let spread = count((1..=CLIENTS).map(|own| ask_from(own, manager.address)));
    assert!(spread.len() == 4 && spread.values().all(|count| *count > 45), "{spread:?}");
    assert_eq!(homes(&manager), before);
    reload(&mut manager, 2, 1);
    assert_eq!(homes(&manager), before, "after a reload");
    // A worker dies: its clients alone are somewhere else until it is relieved.
    kill(Pid::from_raw(pid_of(&manager, 2)), Signal::SIGKILL).unwrap();
    manager.says("was ended by SIGKILL");
    let meanwhile = homes(&manager);
    let others = |homes: &[u16]| -> Vec<u16> {
        before.iter().zip(homes).filter(|(b, _)| **b != 2).map(|(_, home)| *home).collect()
    };
    assert_eq!(others(&meanwhile), others(&before), "while it is away");
    manager.says("is ready after");
    assert_eq!(homes(&manager), before, "when it is back");
    // The primary dies.
    manager.kill();
    assert_eq!(homes(&manager), before, "without a primary");
    manager.start();
    manager.says("took over from the last primary: 4 workers live");
    assert_eq!(homes(&manager), before, "with the next");
    // One more takes no more than its share.
    verb(&manager, &["scale", "app", "5"]);
    wait_for("the fifth", || ask_any(&manager, 4));
    let after = homes(&manager);
    let share = usize::from(CLIENTS) / 5;
    eprintln!("with a fifth slot {} of {CLIENTS} clients move", moved(&before, &after));
    assert!(moved(&before, &after) <= share * 5 / 4, "{} moved", moved(&before, &after));
    assert!(before.iter().zip(&after).all(|(b, a)| b == a || *a == 4), "only to the new one");
    verb(&manager, &["scale", "app", "4"]);
    assert_eq!(homes(&manager), before, "without it again");
    ends_clean(manager);
}

fn ask_any(manager: &Manager, slot: u16) -> Option<()> {
    (1..=CLIENTS).any(|own| ask_from(own, manager.address).slot == slot).then_some(())
}

#[test]
fn a_worker_with_many_connections_gets_fewer_new_ones() {
    let Some(manager) = app("steered:least-connections", 4, &[], &[]) else { return };
    let all = held(manager.address, 240);
    let counts = count(all.iter().map(|(_, answer)| *answer));
    assert!(counts.values().all(|count| (50..=70).contains(count)), "{counts:?}");
    let (kept, closed): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(_, answer)| answer.slot == 1);
    drop(closed);
    let of_it =
        |counts: &BTreeMap<u16, usize>| -> usize { counts.get(&1).copied().unwrap_or_default() };
    // One of the two that are compared is picked at random: 17 of 270 are to be expected, and 67 if nobody compared.
    let mut again = 0;
    for _ in 0..3 {
        // The ends are seen when connections are counted the next time.
        wait_for("the ends to be seen", || (of_it(&tally(manager.address, 40)) <= 4).then_some(()));
        let more = held(manager.address, 90);
        let counts = count(more.iter().map(|(_, answer)| *answer));
        eprintln!("60 connections at slot 1, 90 more: {counts:?}");
        again += of_it(&counts);
    }
    assert!(again <= 36, "{again} of 270");
    drop(kept);
    ends_clean(manager);
}

#[test]
fn a_withdrawn_worker_gets_no_new_connection_while_it_drains() {
    let flags = ["--drain", "60s", "--close-idle", "false"];
    let Some(mut manager) = app("steered", 2, &flags, &[]) else { return };
    let mut kept = held(manager.address, 20);
    manager.signal(Signal::SIGHUP);
    wait_for("the newcomer", || {
        let answer = ask(manager.address);
        ((answer.slot, answer.generation) == (0, 2)).then_some(())
    });
    let counts = count((0..400).map(|_| {
        let answer = ask(manager.address);
        assert!(answer.slot == 1 || answer.generation == 2, "{answer:?} is withdrawn");
        answer
    }));
    assert_even(&counts, 2);
    for (client, first) in &mut kept {
        assert_eq!(client.ask(), *first, "it goes on as long as it has connections");
    }
    drop(kept);
    manager.says("reload done: generation 2 ");
    ends_clean(manager);
}

#[test]
fn a_canary_gets_its_share_until_it_is_promoted_or_taken_back() {
    let Some(mut manager) = app("steered", 4, &["--canary", "5"], &[]) else { return };
    let share = |generation: u32, manager: &mut Manager| {
        let mut reload = Command::new("timeout");
        reload.arg("60").arg(crate::support::dogwatch()).args(["reload", "app"]);
        reload.env("RUNTIME_DIRECTORY", manager.folder());
        let mut reload = reload.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        manager.says("is the canary");
        let of_canary = (0..1000).filter(|_| ask(manager.address).generation == generation).count();
        eprintln!("{of_canary} of 1000 for the canary");
        assert!((40..=60).contains(&of_canary), "{of_canary} of 1000");
        let clients = crate::short(manager);
        let verdict = if generation == 2 { "promote" } else { "rollback" };
        verb(manager, &[verdict, "app"]);
        assert_eq!(reload.wait().unwrap().success(), generation == 2);
        crate::is_clean(verdict, clients, 1);
        wait_for("all to serve the same", || {
            (0..16).all(|_| ask(manager.address).generation == 2).then_some(())
        });
        becomes_even(manager.address, 4);
    };
    share(2, &mut manager);
    share(3, &mut manager);
    ends_clean(manager);
}
