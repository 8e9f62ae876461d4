//! No connection is refused, reset or cut short: 50 reloads, scaling up and down and crashes of workers that serve
//! nobody just then, under load with a connection for each request and with connections that are kept. Counts, not times.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use nix::sys::signal::Signal;
use std::process::Command;
use support::primary::{Primary, Setup};
use support::{Load, load_client};

const RELOADS: usize = 50;

fn load(primary: &Primary, requests: u32) -> Load {
    let address = primary.address.to_string();
    Load::start(Command::new(load_client()).args([
        &address,
        "--clients",
        "6",
        "--requests",
        &requests.to_string(),
    ]))
    .begun()
}

#[test]
fn fifty_reloads_and_scaling_lose_nothing() {
    let run = ["-n", "3", "--settle", "0ms", "--name", "load"];
    let mut primary = Setup::demo(&run, &[]).start();
    primary.says("started: 3 of 3 slots are served");
    let (short, kept) = (load(&primary, 1), load(&primary, 10));
    for reload in 0..RELOADS {
        primary.signal(Signal::SIGHUP);
        let done = format!("reload done: generation {} ", reload + 2);
        let scaled = match reload % 5 {
            1 => Some((Signal::SIGTTIN, "scaled from 3 to 4 slots")),
            3 => Some((Signal::SIGTTOU, "scaled from 4 to 3 slots")),
            _ => None,
        };
        // The rollout may be done before the second signal comes.
        if let Some((signal, scaled)) = scaled {
            primary.signal(signal);
            primary.says_all(&[scaled, &done]);
        } else {
            primary.says(&done);
        }
    }
    let (short, kept) = (short.stop(), kept.stop());
    eprintln!(
        "a connection for each request: {}\nten requests a connection:       {}",
        short.0, kept.0
    );
    short.assert_clean(1);
    kept.assert_clean(1);
    primary.stop();
}

#[test]
fn a_reload_to_a_broken_version_under_load_loses_nothing() {
    let script = "[ -z \"$BROKEN\" ] || exit 9; exec";
    let script = format!("{script} {} demo-worker $FLAGS", support::dogwatch().display());
    let setup = Setup::script(&["-n", "3", "--settle", "10s", "--ready-timeout", "5s"], &script);
    let file = setup.folder().join("app.env");
    std::fs::write(&file, "").unwrap();
    let mut primary = setup.arguments(&["--environment-file", file.to_str().unwrap()]).start();
    primary.is_ready();
    let (short, kept) = (load(&primary, 1), load(&primary, 10));
    let mut reload = |variables: &str, verdict: &str| {
        std::fs::write(&file, variables).unwrap();
        primary.signal(Signal::SIGHUP);
        primary.says(verdict);
        assert!(primary.get("/").contains("generation 1,"));
    };
    reload("BROKEN=yes\n", "exited with status 9 before it was ready; rolled back to generation 1");
    reload("FLAGS=--mute\n", "was not ready within 5s; rolled back to generation 1");
    short.stop().assert_clean(1);
    kept.stop().assert_clean(1);
    // One that dies when it serves already takes with it what it was just answering; nobody else loses anything.
    reload("FLAGS=\"--die-after 3s\"\n", "exited with status 1; rolled back to generation 1");
    primary.stop();
}
