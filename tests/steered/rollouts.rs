//! Nothing is lost when workers are relieved, although they die at once of the stop signal.

use crate::support::manager::Manager;
use crate::{app, becomes_even, ends_clean, is_clean, kept, reload, short, verb};

const FIFTY: usize = 50;
/// Longer than those who are at it need: a drain that goes well ends at once.
const DRAIN: [&str; 2] = ["--drain", "20s"];

#[test]
fn fifty_rollouts_of_servers_without_an_end_lose_nothing() {
    let Some(mut manager) = app("steered", 3, &DRAIN, &[]) else { return };
    let (one, ten) = (short(&manager), kept(&manager, "10", "4"));
    reload(&mut manager, 2, FIFTY);
    is_clean("a connection for each request", one, 1);
    is_clean("ten requests a connection", ten, 1);
    becomes_even(manager.address, 3);
    ends_clean(manager);
}

#[test]
fn fifty_rollouts_of_servers_that_wait_in_accept_lose_nothing() {
    let flags = [&DRAIN[..], &["--blocking"]].concat();
    let Some(mut manager) = app("steered", 3, &flags, &["--threads"]) else { return };
    let (one, ten) = (short(&manager), kept(&manager, "10", "4"));
    reload(&mut manager, 2, FIFTY);
    is_clean("a connection for each request", one, 1);
    is_clean("ten requests a connection", ten, 1);
    ends_clean(manager);
}

#[test]
fn connections_that_never_end_are_closed_between_two_requests() {
    // In the second half of that idle connections are closed, in the last quarter those that have just been answered.
    let flags = ["--drain", "12s", "--surge", "2"];
    let Some(mut manager) = app("steered", 2, &flags, &[]) else { return };
    let all = kept(&manager, "1000000", "200");
    reload(&mut manager, 2, 2);
    is_clean("a connection for ever", all, 1);
    ends_clean(manager);
}

fn by_hand(manager: &Manager) {
    for round in 0..3 {
        for arguments in [
            &["scale", "app", "5"][..],
            &["restart", "app/1"],
            &["stop", "app/0"],
            &["scale", "app", "2"],
            &["start", "app/0"],
            &["scale", "app", "3"],
            &["restart", "app/2"],
        ] {
            eprintln!("{round}: {arguments:?}");
            verb(manager, arguments);
        }
    }
}

#[test]
fn scaling_restarting_and_stopping_slots_lose_nothing() {
    let Some(manager) = app("steered", 3, &DRAIN, &[]) else { return };
    let (one, ten) = (short(&manager), kept(&manager, "10", "4"));
    by_hand(&manager);
    is_clean("a connection for each request", one, 1);
    is_clean("ten requests a connection", ten, 1);
    becomes_even(manager.address, 3);
    ends_clean(manager);
}
