//! Without the right to load a program.

use crate::client::{ask_from, listening};
use crate::deaths::{equal, named};
use crate::support::manager::{Manager, Unit};
use crate::support::primary::free_port;
use crate::support::{abrupt, dogwatch, skip, wait_for, which};
use crate::{count, ends_clean, is_clean, kept, reload, short, tally};
use nix::unistd::{Uid, chown};
use std::os::fd::OwnedFd;

const NOBODY: u32 = 65534;

/// An app of three whose primary is nobody, and may nothing.
fn poor(balance: &str) -> Option<Manager> {
    let address = format!("127.0.0.1:{}", free_port());
    let place = |unit: Unit| unit.at(address.parse().unwrap());
    poor_with(&["--balance", balance, "-l", &address], place)
}

/// The same, on sockets that are passed, and somebody else's is at their address.
fn poor_beside(stranger: &mut Option<OwnedFd>) -> Option<Manager> {
    let (address, sockets) = equal(5);
    *stranger = Some(listening(address));
    poor_with(&["--balance", "steered"], |unit| unit.passing(address, named(sockets)))
}

fn poor_with(flags: &[&str], place: impl FnOnce(Unit) -> Unit) -> Option<Manager> {
    let setpriv = which("setpriv").filter(|_| Uid::effective().is_root());
    let Some(setpriv) = setpriv else {
        skip("setpriv, as root");
        return None;
    };
    let (user, server) = (NOBODY.to_string(), abrupt());
    let as_nobody = [
        "--reuid",
        &user,
        "--regid",
        &user,
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ];
    let run = [dogwatch().to_str().unwrap(), "run", "--name", "app", "--settle", "10ms", "-n", "3"];
    let drain = ["--drain", "20s", "--", server.to_str().unwrap()];
    let words = [&as_nobody[..], &run, flags, &drain].concat();
    let unit = place(Unit::program(&setpriv, &words));
    chown(unit.folder(), Some(NOBODY.into()), Some(NOBODY.into())).unwrap();
    let manager = Manager::new(unit);
    chown(&manager.path("systemd"), Some(NOBODY.into()), None).unwrap();
    Some(manager)
}

fn serving(manager: &mut Manager) {
    manager.start();
    manager.says("started: 3 of 3 slots are served");
}

#[test]
fn without_rights_connections_go_anywhere_and_none_is_lost() {
    let Some(mut manager) = poor("steered") else { return };
    serving(&mut manager);
    let counts = tally(manager.address, 600);
    eprintln!("at random: {counts:?}");
    assert!(counts.len() == 3 && counts.values().all(|count| *count > 120), "{counts:?}");
    let (one, ten) = (short(&manager), kept(&manager, "10", "4"));
    reload(&mut manager, 2, 10);
    is_clean("a connection for each request", one, 1);
    is_clean("ten requests a connection", ten, 1);
    let said = manager.all_said();
    let warnings = said.matches("round-robin: ").count();
    assert!(warnings == 1 && said.contains("the kernel picks workers at random"), "{said}");
    assert_eq!(said.matches("hint: say AmbientCapabilities=CAP_BPF").count(), 1, "{said}");
    ends_clean(manager);
}

#[test]
fn without_rights_a_client_stays_with_its_slot() {
    let Some(mut manager) = poor("steered:client-ip") else { return };
    serving(&mut manager);
    let homes = |manager: &Manager| -> Vec<u16> {
        (1..=200).map(|own| ask_from(own, manager.address).slot).collect()
    };
    let before = homes(&manager);
    let spread = count((1..=200).map(|own| ask_from(own, manager.address)));
    assert!(spread.len() == 3 && spread.values().all(|count| *count > 30), "{spread:?}");
    let one = short(&manager);
    reload(&mut manager, 2, 5);
    is_clean("a connection for each request", one, 1);
    assert_eq!(homes(&manager), before, "after reloads");
    manager.kill();
    manager.start();
    manager.says("took over from the last primary");
    wait_for("the same homes", || (homes(&manager) == before).then_some(()));
    ends_clean(manager);
}

#[test]
fn without_rights_and_beside_a_stranger_all_share_one_socket_and_every_start_succeeds() {
    let mut stranger = None;
    let Some(mut manager) = poor_beside(&mut stranger) else { return };
    for _ in 0..3 {
        manager.start();
        manager
            .says("are told apart by their order, and 1 there are not ours; all workers share it");
        manager.says("started: 3 of 3 slots are served");
        assert!(manager.stop().success());
    }
}
