//! Lanes that nobody asked for, that were shut down or lost, and those who drain on them.

use crate::client::Client;
use crate::deaths::{equal, named};
use crate::support::manager::Manager;
use crate::support::wait_for;
use crate::{
    assert_even, bare, becomes_even, ends_clean, is_clean, may_not_steer, reload, serving, short,
    tally, unit,
};
use dogwatch::sys::socket::close_down;
use nix::sys::signal::Signal;

const STEERED: [&str; 6] = ["--balance", "steered", "-n", "3", "--drain", "20s"];

#[test]
fn equal_sockets_are_steered_whatever_the_balance_is() {
    if may_not_steer() {
        return;
    }
    let (address, sockets) = equal(5);
    let flags = ["--balance", "shared", "-n", "3"];
    let mut manager = serving(bare(&flags, &[]).passing(address, named(sockets)), 3);
    assert_even(&tally(address, 300), 3);
    reload(&mut manager, 2, 1);
    becomes_even(address, 3);
    let said = manager.all_said();
    let why = "cannot use balance 'shared' on listener 'web': it has 5 sockets, of which most programs serve one";
    assert_eq!(said.matches(why).count(), 1, "{said}");
    ends_clean(manager);
}

#[test]
fn a_lane_that_was_shut_down_listens_again() {
    if may_not_steer() {
        return;
    }
    let (address, sockets) = equal(5);
    for lane in [1, 3] {
        close_down(&sockets[lane]).unwrap();
    }
    let mut manager = serving(bare(&STEERED, &[]).passing(address, named(sockets)), 3);
    assert_even(&tally(address, 300), 3);
    reload(&mut manager, 2, 2);
    becomes_even(address, 3);
    ends_clean(manager);
}

/// Kills the primary, takes a lane of its own out of the FD store, and starts the next.
fn loses_a_lane(manager: &mut Manager) {
    manager.kill();
    let lanes = manager.stored().into_iter().filter(|name| name.contains("-listener-"));
    let second = lanes.into_iter().find(|name| name.contains("-listener-1-"));
    manager.remove(&second.unwrap());
    manager.start();
}

#[test]
fn workers_are_found_by_their_sockets_when_a_lane_is_lost() {
    if may_not_steer() {
        return;
    }
    let mut manager = serving(unit(&STEERED, &[]), 3);
    let one = short(&manager);
    loses_a_lane(&mut manager);
    manager.says("worker 2 has lost its socket");
    manager.says("reload done: generation 2 ");
    is_clean("a connection for each request", one, 1);
    becomes_even(manager.address, 3);
    reload(&mut manager, 3, 1);
    becomes_even(manager.address, 3);
    ends_clean(manager);
}

#[test]
fn a_stop_does_not_wait_for_the_clients_of_who_drains_already() {
    if may_not_steer() {
        return;
    }
    let flags = ["--balance", "steered", "-n", "1", "--drain", "1h"];
    let manager = serving(unit(&flags, &[]), 1);
    let mut kept = Client::new(manager.address);
    assert_eq!(kept.ask().generation, 1);
    manager.signal(Signal::SIGHUP);
    wait_for("the next generation", || {
        (Client::new(manager.address).ask_once().generation == 2).then_some(())
    });
    ends_clean(manager);
}
