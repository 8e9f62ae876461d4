//! What a primary makes of a past that it cannot use: memories that are spoiled, descriptors that are missing or of another
//! kind, numbers that are somebody else's by now, a store that is too small. It says so, and no request fails.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};
use support::carry::{demo, ends_clean, is_clean, load, serving, workers};
use support::manager::{Manager, Unit};
use support::wait_for;

const STATE: &str = "dogwatch-state";
const UNREADABLE: &str = "cannot read the state of the last primary: ";

/// Once more, and again, as if nothing had been: nothing that was spoiled is still in the way.
fn goes_on_as_ever(manager: &mut Manager) {
    let before = workers(manager);
    for _ in 0..2 {
        manager.kill();
        manager.start();
        manager.says("took over from the last primary: 3 workers live, 0 have ended meanwhile");
        manager.is_ready();
    }
    assert_eq!(workers(manager), before, "{}", manager.all_said());
    let mut names = manager.stored();
    names.sort();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "one name, one descriptor: {names:?}");
}

/// Kills the primary, spoils what it left, and expects that the next one says so; returns who was there before.
fn spoiled(manager: &mut Manager, spoil: impl FnOnce(&Manager), said: &str) -> Vec<(u64, i32)> {
    let before = workers(manager);
    manager.kill();
    spoil(manager);
    manager.start();
    manager.says(said);
    manager.is_ready();
    before
}

/// Whoever was there is relieved, and no request fails.
fn relieves(spoil: impl FnOnce(&Manager), said: &str) {
    let mut manager = serving(demo());
    let clients = load(&manager);
    let before = spoiled(&mut manager, spoil, said);
    manager.says("reload done: generation 2 serves every slot");
    let after = workers(&manager);
    assert_eq!(after.len(), 3, "{}", manager.all_said());
    assert!(after.iter().all(|worker| !before.contains(worker)), "{after:?} and {before:?}");
    goes_on_as_ever(&mut manager);
    is_clean(&clients.stop());
    ends_clean(manager);
}

/// Whoever was there goes on, and no request fails.
fn keeps(spoil: impl FnOnce(&Manager), said: &str) {
    let mut manager = serving(demo());
    let clients = load(&manager);
    let before = spoiled(&mut manager, spoil, said);
    assert_eq!(workers(&manager), before, "{}", manager.all_said());
    goes_on_as_ever(&mut manager);
    assert!(!manager.all_said().contains("reload"), "{}", manager.all_said());
    is_clean(&clients.stop());
    ends_clean(manager);
}

/// A memory as `notebook.rs` lays it out: a mark, the length with the number of the copy, and the copies.
const MARK: &[u8; 8] = b"dogwat\x00\x01";
const COPY: u64 = 4096;
const LARGEST: u64 = 64 * 1024 * 1024;

fn memory(bytes: &[(&[u8], u64)]) -> OwnedFd {
    let file = File::from(memfd_create("test", MFdFlags::MFD_CLOEXEC).unwrap());
    for (bytes, at) in bytes {
        file.write_all_at(bytes, *at).unwrap();
    }
    file.into()
}

fn of_text(text: &[u8]) -> OwnedFd {
    let word = (text.len() as u64) << 1;
    memory(&[(MARK, 0), (&word.to_ne_bytes(), 8), (text, COPY)])
}

fn state(manager: &Manager) -> Value {
    let file = File::from(manager.descriptor(STATE).unwrap());
    let mut word = [0; 8];
    file.read_exact_at(&mut word, 8).unwrap();
    let word = u64::from_ne_bytes(word);
    let mut text = vec![0; usize::try_from(word >> 1).unwrap()];
    file.read_exact_at(&mut text, if word & 1 == 0 { COPY } else { COPY + LARGEST }).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn edit(manager: &Manager, change: impl FnOnce(&mut Value)) {
    let mut value = state(manager);
    change(&mut value);
    manager.replace(STATE, of_text(value.to_string().as_bytes()));
}

/// Puts something else in the place of what is there.
fn set(pointer: &'static str, value: Value) -> impl FnOnce(&Manager) {
    move |manager| edit(manager, |state| *state.pointer_mut(pointer).expect(pointer) = value)
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let (read, write) = std::io::pipe().unwrap();
    (read.into(), write.into())
}

fn named<'a>(workers: &[(u64, i32)], part: &'a str) -> impl Iterator<Item = String> + use<'a> {
    let ids: Vec<u64> = workers.iter().map(|(id, _)| *id).collect();
    ids.into_iter().map(move |id| format!("dw-{id}-{}-1-{part}", id - 1))
}

/// A process that is none of dogwatch's business, in a group of its own as a worker is.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").process_group(0).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    fn lives(mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None, "it was signalled");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_state_that_is_none_is_said_and_its_workers_are_relieved() {
    let empty = |manager: &Manager| manager.replace(STATE, memory(&[]));
    relieves(empty, &format!("{UNREADABLE}it is cut off"));
    let cut = |manager: &Manager| {
        let whole = state(manager).to_string();
        let word = (whole.len() as u64) << 1;
        let half = &whole.as_bytes()[..whole.len() / 2];
        let parts: [(&[u8], u64); 3] = [(MARK, 0), (&word.to_ne_bytes(), 8), (half, COPY)];
        manager.replace(STATE, memory(&parts));
    };
    relieves(cut, &format!("{UNREADABLE}it is cut off"));
    let foreign = |manager: &Manager| {
        manager.replace(STATE, File::open("/proc/self/exe").unwrap().into());
    };
    relieves(foreign, &format!("{UNREADABLE}it was not written by this program"));
    relieves(|manager| manager.replace(STATE, pipe().0), &format!("{UNREADABLE}it is no memory"));
    relieves(|manager| manager.remove(STATE), &format!("{UNREADABLE}it is not in the FD store"));
}

#[test]
fn a_state_that_makes_no_sense_is_said_and_its_workers_are_relieved() {
    let text = |text: &'static [u8]| move |manager: &Manager| manager.replace(STATE, of_text(text));
    relieves(text(b"{{{ \"dogwatch\""), UNREADABLE);
    relieves(text(b"\x00\xff\x7f\x13random\x80\x80"), UNREADABLE);
    let older = |manager: &Manager| {
        edit(manager, |state| drop(state["core"].as_object_mut().unwrap().remove("roster")));
    };
    relieves(older, &format!("{UNREADABLE}missing field `roster`"));
    let next = set("/core/next_worker", u64::MAX.into());
    relieves(next, &format!("{UNREADABLE}the next worker would be {}", u64::MAX));
    relieves(set("/core/goal/slots", 0.into()), &format!("{UNREADABLE}0 slots"));
    relieves(set("/core/goal/slots", u16::MAX.into()), &format!("{UNREADABLE}65535 slots"));
    relieves(set("/core/policies/1/slots", 0.into()), &format!("{UNREADABLE}0 slots"));
}

#[test]
fn a_state_that_asks_for_the_impossible_is_said_and_its_workers_are_relieved() {
    let rollout = json!({ "from": 1, "to": 9, "slots": null, "slots_before": null, "began": 0, "failure": null });
    relieves(set("/core/rollout", rollout), &format!("{UNREADABLE}generation 9 has no settings"));
    // What it would do first is make a worker from settings that are nowhere.
    let spawn = json!([{ "Spawn": { "worker": 3, "slot": 2, "generation": 9 } }]);
    relieves(set("/core/actions", spawn), &format!("{UNREADABLE}'spawn' cannot be done"));
    let forget = json!([{ "Forget": 1 }]);
    relieves(set("/core/actions", forget), &format!("{UNREADABLE}'forget' cannot be done"));
    relieves(set("/launches", json!({})), &format!("{UNREADABLE}generation 1 has no settings"));
}

#[test]
fn a_state_without_workers_is_said_and_put_away() {
    let mut manager = Manager::new(demo());
    manager.put(STATE, pipe().0);
    manager.start();
    manager.says("cannot use 'dogwatch-state' from the FD store: it is no memory; removing it");
    manager.is_ready();
    goes_on_as_ever(&mut manager);
    ends_clean(manager);
}

#[test]
fn an_older_and_a_newer_programs_state_is_gone_on_with() {
    let older = |manager: &Manager| {
        edit(manager, |state| {
            state["dogwatch"] = "0.0.9".into();
            for field in ["primaries", "began", "last_failure", "exits"] {
                state.as_object_mut().unwrap().remove(field);
            }
        });
    };
    keeps(older, "the last primary was dogwatch 0.0.9");
    let newer = |manager: &Manager| {
        edit(manager, |state| {
            state["dogwatch"] = "99.0.0".into();
            for place in
                ["", "/core", "/core/goal", "/launches/1", "/launches/1/settings", "/workers/1"]
            {
                state.pointer_mut(place).expect(place)["tides"] = json!({ "high": [1, 2] });
            }
        });
    };
    keeps(newer, "the last primary was dogwatch 99.0.0");
    let unfinished = json!([{ "Exit": "Stopped" }]);
    keeps(set("/core/actions", unfinished), "took over from the last primary: 3 workers live");
}

#[test]
fn settings_that_cannot_be_are_not_believed() {
    for (place, nonsense) in [
        ("command", json!([])),
        ("ready_fd", json!(i32::MAX)),
        ("working_directory", json!("here")),
    ] {
        let spoil = |manager: &Manager| {
            edit(manager, |state| state["launches"]["1"]["settings"][place] = nonsense);
        };
        relieves(spoil, UNREADABLE);
    }
}

#[test]
fn a_number_that_is_somebody_elses_by_now_is_left_alone() {
    // With the descriptor of the worker's process, and without.
    for is_stored in [true, false] {
        let others = [Stranger::new(), Stranger::new()];
        let reused = |manager: &Manager| {
            edit(manager, |state| {
                // Long before: those that have the numbers now may have begun in the very tick that the workers did.
                for (worker, pid) in [("1", others[0].pid()), ("2", others[1].pid()), ("3", 1)] {
                    state["workers"][worker]["pid"] = pid.into();
                    state["workers"][worker]["start_time"] = 12345.into();
                }
            });
            if !is_stored {
                named(&workers(manager), "pid").for_each(|name| manager.remove(&name));
            }
        };
        keeps(reused, "took over from the last primary: 3 workers live");
        others.into_iter().for_each(Stranger::lives);
    }
}

#[test]
fn the_number_of_a_worker_that_is_gone_is_nobodys_group() {
    let other = Stranger::new();
    let mut manager = serving(demo());
    let before = workers(&manager);
    let gone = |manager: &Manager| {
        kill(Pid::from_raw(before[1].1), Signal::SIGKILL).unwrap();
        wait_for("its end", || {
            (!Path::new(&format!("/proc/{}", before[1].1)).exists()).then_some(())
        });
        edit(manager, |state| state["workers"]["2"]["pid"] = other.pid().into());
    };
    spoiled(&mut manager, gone, "took over from the last primary: 2 workers live, 1 have ended");
    wait_for("three workers", || (workers(&manager).len() == 3).then_some(()));
    goes_on_as_ever(&mut manager);
    ends_clean(manager);
    other.lives();
}

#[test]
fn a_worker_that_ended_and_a_state_that_is_lost_do_not_end_the_app() {
    let mut manager = serving(demo());
    let before = workers(&manager);
    let spoil = |manager: &Manager| {
        kill(Pid::from_raw(before[1].1), Signal::SIGKILL).unwrap();
        wait_for("its end", || {
            (!Path::new(&format!("/proc/{}", before[1].1)).exists()).then_some(())
        });
        manager.replace(STATE, of_text(b"nonsense"));
    };
    spoiled(&mut manager, spoil, UNREADABLE);
    manager.says("reload done: generation 2 serves every slot");
    goes_on_as_ever(&mut manager);
    ends_clean(manager);
}

#[test]
fn what_was_known_of_channels_is_not_missed_where_there_are_none() {
    let text = "cannot read what was known of the channels: ";
    keeps(
        |manager| manager.replace("dogwatch-channels", pipe().0),
        &format!("{text}it is no memory"),
    );
    keeps(|manager| manager.replace("dogwatch-channels", of_text(b"[[[")), text);
    keeps(|manager| manager.remove("dogwatch-channels"), "took over from");
}

#[test]
fn a_descriptor_of_the_wrong_kind_is_named_and_removed() {
    let cannot = |name: &str, why: &str| {
        format!("cannot use '{name}' from the FD store: {why}; removing it")
    };
    let file = || File::open("/dev/null").unwrap().into();
    let socket = || TcpListener::bind("127.0.0.1:0").unwrap().into();
    let pid = "dw-1-0-1-pid";
    keeps(|manager| manager.replace(pid, file()), &cannot(pid, "not a pidfd"));
    let notify = "dw-1-0-1-notify";
    keeps(
        |manager| manager.replace(notify, socket()),
        &cannot(notify, "not a unix datagram socket"),
    );
    // The next leash is to be held, or the workers would end with the primary after this one. The last keeper still has
    // its own: without one it would end the workers.
    let mut leash = None;
    let listener = |manager: &Manager| {
        leash = manager.descriptor("dogwatch-leash");
        let listener = UnixListener::bind(manager.path("leash")).unwrap();
        manager.replace("dogwatch-leash", listener.into());
    };
    keeps(listener, &cannot("dogwatch-leash", "not a pipe"));
    let door = "dogwatch-keeper";
    keeps(|manager| manager.replace(door, socket()), &cannot(door, "not a unix stream socket"));
    let output = "dw-2-1-1-out";
    let pidfd = |manager: &Manager| {
        manager.replace(output, manager.descriptor("dw-2-1-1-pid").unwrap());
    };
    relieves(pidfd, "worker 2 has lost its output");
}

#[test]
fn names_that_mean_nothing_are_removed_and_two_of_a_name_are_one() {
    for name in ["dogwatch-future", "dw-1-0-1-ears", "dw-x", "dogwatch-"] {
        let said = format!("cannot use '{name}' from the FD store: a later version's; removing it");
        keeps(|manager| manager.put(name, pipe().0), &said);
    }
    for name in [STATE, "dogwatch-leash", "dogwatch-keeper", "dw-1-0-1-out", "dw-1-0-1-pid"] {
        let again = |manager: &Manager| {
            // Of the same kind, and older than what counts.
            let other = manager.descriptor(name).unwrap();
            manager.replace(name, File::open("/dev/null").unwrap().into());
            manager.put(name, other);
        };
        keeps(again, &format!("cannot use '{name}' from the FD store: "));
    }
}

#[test]
fn a_process_under_a_name_of_ours_that_nobody_knows_is_ended() {
    // Only the primary can put something into the store of its unit, so it was one of ours.
    let mut other = Stranger::new();
    let pidfd = support::store::pidfd(other.pid());
    keeps(
        |manager| manager.put("dw-99-0-1-pid", pidfd),
        "worker 99 is nobody's any more; ending it",
    );
    assert!(!wait_for("its end", || other.0.try_wait().unwrap()).success());
}

#[test]
fn each_descriptor_of_a_worker_can_be_missing() {
    keeps(
        |manager| manager.remove("dw-2-1-1-pid"),
        "took over from the last primary: 3 workers live",
    );
    keeps(
        |manager| manager.remove("dw-2-1-1-notify"),
        "took over from the last primary: 3 workers",
    );
    relieves(|manager| manager.remove("dw-2-1-1-out"), "worker 2 has lost its output");
    let all = |manager: &Manager| {
        for name in manager.stored() {
            manager.remove(&name);
        }
    };
    // Then the keeper ends those who were there; requests wait in the listener, but for those that had been accepted.
    let mut manager = serving(demo());
    let before = workers(&manager);
    manager.kill();
    all(&manager);
    manager.start();
    wait_for("three others", || {
        let now = workers(&manager);
        (now.len() == 3 && now.iter().all(|(_, pid)| before.iter().all(|(_, old)| old != pid)))
            .then_some(())
    });
    goes_on_as_ever(&mut manager);
    ends_clean(manager);
}

#[test]
fn output_that_a_worker_has_closed_is_not_lost() {
    let script = "exec >/dev/null 2>&1; exec sleep 1000";
    let run = ["--name", "shop", "-n", "3", "--settle", "0ms", "--ready", "alive:50ms"];
    let mut manager = serving(Unit::script(&run, script));
    wait_for("silence", || (!manager.stored().iter().any(|n| n.ends_with("-out"))).then_some(()));
    goes_on_as_ever(&mut manager);
    assert!(!manager.all_said().contains("lost"), "{}", manager.all_said());
    ends_clean(manager);
}

#[test]
fn a_store_that_is_too_small_is_said_once_and_loses_nobody() {
    let mut manager = serving(demo().store_max(6));
    let clients = load(&manager);
    let text = "the FD store has room for 6 descriptors and 29 may be needed";
    assert_eq!(manager.all_said().matches(text).count(), 1, "{}", manager.all_said());
    assert!(manager.all_said().contains("hint: say FileDescriptorStoreMax=29 in the unit"));
    assert!(!manager.refused().is_empty());
    for generation in [2, 3] {
        let before = workers(&manager);
        spoiled(&mut manager, |_| {}, "of them cannot be served as before");
        manager.says(&format!("reload done: generation {generation} serves every slot"));
        let after = workers(&manager);
        assert_eq!(after.len(), 3, "{}", manager.all_said());
        assert!(after.iter().all(|worker| !before.contains(worker)));
    }
    is_clean(&clients.stop());
    ends_clean(manager);
}
