//! The service manager in miniature does what systemd does: seen with the real binary, and with a few lines of Python in
//! its place that store what they like.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use support::manager::{Manager, Unit};
use support::{skip, wait_for, which};

/// Says what it was given, then does as the test says; `tell` is `sd_pid_notify_with_fds`.
const PROGRAM: &str = r#"
import os, signal, socket, sys, time
def say(text):
    os.write(2, (text + "\n").encode())
def tell(text, *descriptors):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.connect(os.environ["NOTIFY_SOCKET"])
        socket.send_fds(to, [text.encode()], descriptors)
names = os.environ.get("LISTEN_FDNAMES", "").split(":")
given = dict(zip(names, range(3, 3 + int(os.environ.get("LISTEN_FDS", 0)))))
assert int(os.environ.get("LISTEN_PID", os.getpid())) == os.getpid()
first = len(given) < 2
open_files = sorted(int(n) for n in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + n))
say(f"given {' '.join(names)}, open to {open_files[-1]}, FDSTORE {os.environ.get('FDSTORE')}")
exec(sys.argv[1])
tell("READY=1")
signal.pause()
"#;

/// A manager of that program; `None` where there is no Python.
fn python(script: &str, edit: impl FnOnce(Unit) -> Unit) -> Option<Manager> {
    let Some(python) = which("python3") else {
        skip("python3");
        return None;
    };
    Some(edit(Unit::program(&python, &["-c", PROGRAM, script])).start())
}

fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

// The real one.

#[test]
fn dogwatch_lives_below_it() {
    let mut manager = Unit::demo(&["-n", "2", "--settle", "0ms", "--name", "shop"], &[]).start();
    manager.tells("STATUS=starting: 0 of 2 slots ready");
    manager.is_ready();
    manager.says("started: 2 of 2 slots are served");
    assert_eq!(manager.get("/env?DOGWATCH_APP"), "shop\n");
    // And its keeper.
    assert_eq!(manager.leftovers().len(), 4);
    assert!(manager.leftovers().contains(&manager.pid().as_raw()));
    assert_eq!(manager.stop().code(), Some(0));
    manager.tells("STOPPING=1");
    manager.nothing_is_left_over();
    manager.assert_no_errors();
}

// The store.

#[test]
fn what_is_stored_comes_back_after_the_socket_newest_first() {
    let script = r#"
if first:
    for name in ["one", "two"]:
        ends = os.pipe()
        os.write(ends[1], name.encode())
        tell(f"FDSTORE=1\nFDNAME={name}", ends[0])
        tell(f"FDSTORE=1\nFDNAME={name}-in", ends[1])
    tell("FDSTORE=1", os.memfd_create("x"))
else:
    say("read " + os.read(given["one"], 9).decode())
"#;
    let Some(mut manager) = python(script, |unit| unit) else { return };
    manager.says("given web, open to 3, FDSTORE None");
    manager.is_ready();
    assert_eq!(manager.stored(), ["one", "one-in", "two", "two-in", "stored"]);
    manager.kill();
    manager.start();
    manager.says("given web stored two-in two one-in one, open to 8, FDSTORE None");
    manager.says("read one");
    assert_eq!(manager.stored().len(), 5);
    manager.kill();
    let spoiled = std::fs::File::open("/dev/null").unwrap();
    manager.replace("one", spoiled.into());
    manager.remove("one-in");
    manager.put("mine", std::fs::File::open("/dev/null").unwrap().into());
    manager.oldest_first = true;
    manager.start();
    manager.says("given web one two two-in stored mine, open to 8");
    assert!(manager.says("read").ends_with("read "));
    let mut two = std::fs::File::from(manager.descriptor("two").unwrap());
    let mut bytes = [0; 3];
    two.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"two");
    manager.stop();
    assert_eq!(manager.stored().len(), 0);
    manager.start();
    manager.says("given web, open to 3");
}

#[test]
fn the_store_has_a_bound_and_what_is_there_is_not_stored_twice() {
    let script = r#"
a, b, c = (os.memfd_create(n) for n in "abc")
tell("FDSTORE=1\nFDNAME=a", a)
tell("FDSTORE=1\nFDNAME=again", a)
tell("FDSTORE=1\nFDNAME=b", b, c)
tell("FDSTOREREMOVE=1\nFDNAME=a")
tell("FDSTORE=1\nFDNAME=c", c)
tell("FDSTOREREMOVE=1\nFDNAME=nobody")
"#;
    let Some(mut manager) = python(script, |unit| unit.store_max(2).nothing()) else { return };
    manager.says("FDSTORE 2");
    manager.is_ready();
    assert_eq!((manager.stored(), manager.refused()), (strings(&["b", "c"]), strings(&["b"])));
    assert_eq!(manager.told().len(), 7);
    manager.kill();
    manager.start();
    manager.says("given c b, open to 4, FDSTORE 2");
}

#[test]
fn what_is_hung_up_is_dropped_unless_it_is_not_polled() {
    let script = r#"
if first:
    (a, a_in), (b, b_in) = os.pipe(), os.pipe()
    tell("FDSTORE=1\nFDNAME=polled", a)
    tell("FDSTORE=1\nFDNAME=kept\nFDPOLL=0", b)
"#;
    let Some(mut manager) = python(script, |unit| unit) else { return };
    manager.is_ready();
    assert_eq!(manager.stored(), ["polled", "kept"]);
    manager.kill();
    manager.start();
    manager.says("given web kept,");
}

#[test]
fn what_systemd_would_refuse_is_an_error() {
    let script = r#"
for name in ["a:b", "a" * 256, "\u00e4"]:
    tell(f"FDSTORE=1\nFDNAME={name}", 1)
tell("FDSTORE=1\nFDNAME=nothing")
tell("FDSTOREREMOVE=1")
if os.fork() == 0:
    tell("FDSTORE=1\nFDNAME=child", 1)
    os._exit(0)
os.wait()
"#;
    let Some(mut manager) = python(script, |unit| unit) else { return };
    manager.is_ready();
    assert_eq!(manager.stored().len(), 0);
    let errors = manager.errors();
    assert_eq!(errors.len(), 6, "{errors:?}");
    assert!(errors[5].contains("not the main process, told 'FDSTORE=1\nFDNAME=child'"));
    manager.assert_no_errors();
}

// Death and what is left.

#[test]
fn orphans_are_reaped_at_once_and_do_not_outlive_the_manager() {
    let script = r#"
for n in range(2):
    child = os.fork()
    if child == 0:
        time.sleep(600)
    say(f"child {child}")
"#;
    let Some(mut manager) = python(script, |unit| unit) else { return };
    let [one, two] = ["child", "child"].map(|text| {
        let said = manager.says(text);
        said.rsplit(' ').next().unwrap().parse::<i32>().unwrap()
    });
    // A child of the test's own keeps its status.
    let mut other = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
    manager.is_ready();
    manager.kill();
    let mut left = manager.leftovers();
    left.sort_unstable();
    assert_eq!(left, [one.min(two), one.max(two)]);
    kill(Pid::from_raw(one), Signal::SIGKILL).unwrap();
    let begin = std::time::Instant::now();
    wait_for("the reaper", || (!exists(one)).then_some(()));
    eprintln!("reaped after {:?}", begin.elapsed());
    assert_eq!(manager.leftovers(), [two]);
    drop(manager);
    assert!(!exists(two));
    assert_eq!(other.wait().unwrap().code(), Some(7));
}

#[test]
fn a_crash_is_waited_for_and_its_last_messages_count() {
    let script = r#"
tell("FDSTORE=1\nFDNAME=last", 2)
os.kill(os.getpid(), signal.SIGABRT) if first else os._exit(3)
"#;
    let Some(mut manager) = python(script, |unit| unit.nothing()) else { return };
    assert_eq!(manager.wait_crashed().signal(), Some(6));
    assert_eq!(manager.stored(), ["last"]);
    manager.put("more", std::fs::File::open("/dev/null").unwrap().into());
    manager.start();
    assert_eq!(manager.wait_crashed().code(), Some(3));
    manager.says("given more last");
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
