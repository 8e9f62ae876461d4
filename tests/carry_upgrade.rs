//! Upgrading the primary in place by a program that cannot run, at a bad moment, or where there is no service manager; and
//! what becomes of workers there when their primary is killed.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::carry::{RUN, demo, ends_clean, is_clean, load, serving, workers};
use support::manager::{Manager, Unit};
use support::{dogwatch, wait_for};

#[test]
fn a_store_that_is_none_is_no_obstacle_to_an_upgrade() {
    let mut manager = serving(demo().store_max(0));
    let (pid, before) = (manager.pid(), workers(&manager));
    upgrade(&mut manager);
    assert_eq!((manager.pid(), workers(&manager)), (pid, before));
    manager.kill();
    manager.nothing_is_left_over();
    manager.start();
    manager.says("started: 3 of 3 slots are served");
    ends_clean(manager);
}

fn upgrade(manager: &mut Manager) {
    manager.signal(Signal::SIGUSR2);
    manager.says("upgrading: executing");
    manager.says("took over from the last primary: 3 workers live");
}

#[test]
fn a_socket_that_is_called_as_we_call_ours_is_kept() {
    let (listener, name) = (TcpListener::bind("127.0.0.1:0").unwrap(), "dogwatch-shop.socket");
    let address = listener.local_addr().unwrap();
    let unit = demo().passing(address, vec![(name.to_owned(), listener.into())]);
    let mut manager = serving(unit);
    let (pid, before) = (manager.pid(), workers(&manager));
    for _ in 0..2 {
        upgrade(&mut manager);
        assert!(manager.get("/").contains("generation 1,"));
    }
    assert_eq!((manager.pid(), workers(&manager)), (pid, before));
    ends_clean(manager);
}

/// dogwatch as a package installs it, in a folder of its own.
struct Installed(tempfile::TempDir);

impl Installed {
    fn new() -> Self {
        let installed = Self(tempfile::tempdir().unwrap());
        installed.install(dogwatch());
        installed
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("dogwatch")
    }

    fn serving(&self) -> Manager {
        let worker = ["--", dogwatch().to_str().unwrap(), "demo-worker"];
        serving(Unit::program(&self.path(), &[&["run"], &RUN[..], &worker].concat()))
    }

    /// As a package manager does it: the old file is gone, and whoever runs it has "(deleted)" in its link.
    fn install(&self, program: &Path) {
        let new = self.0.path().join("new");
        std::fs::copy(program, &new).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    fn write(&self, text: &str, mode: u32) {
        let new = self.0.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }
}

#[test]
fn a_program_that_cannot_go_on_is_refused_and_a_good_one_is_executed() {
    let installed = Installed::new();
    let mut manager = installed.serving();
    let (pid, before) = (manager.pid(), workers(&manager));
    let clients = load(&manager);
    let refused = |manager: &mut Manager, why: &str| {
        manager.signal(Signal::SIGUSR2);
        let line = manager.says("upgrade refused");
        assert!(line.ends_with(&format!("{why}; everything goes on as it was")), "{line}");
    };
    installed.write("not a program", 0o644);
    refused(&mut manager, "dogwatch': Permission denied");
    installed.write("not a program", 0o755);
    refused(&mut manager, "dogwatch': Exec format error");
    installed.write("#!/bin/sh\necho 'error: no such libc' >&2; exit 3", 0o755);
    refused(&mut manager, "it exited with status 3: error: no such libc");
    installed.write("#!/bin/sh\nyes", 0o755);
    refused(&mut manager, "it was ended by SIGKILL: y");
    installed.write("#!/bin/sh\nexec sleep 1000", 0o755);
    refused(&mut manager, "it did not answer within 10s");
    installed.install(Path::new("/bin/true"));
    refused(&mut manager, "it is another program: it did not answer as dogwatch does");
    std::fs::remove_file(installed.path()).unwrap();
    refused(&mut manager, "dogwatch': No such file or directory");
    assert_eq!((manager.pid(), workers(&manager)), (pid, before.clone()));
    installed.install(dogwatch());
    for _ in 0..2 {
        upgrade(&mut manager);
        installed.install(dogwatch());
    }
    assert_eq!((manager.pid(), workers(&manager)), (pid, before));
    is_clean(&clients.stop());
    ends_clean(manager);
}

#[test]
fn the_verb_prints_the_verdict() {
    let installed = Installed::new();
    let mut manager = installed.serving();
    let control = manager.path("control");
    let verb = |app: &str| {
        let control = control.to_str().unwrap();
        let mut command = Command::new(dogwatch());
        command.args(["--control", control, "upgrade", app]);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let version = env!("CARGO_PKG_VERSION");
    let path = installed.path().display().to_string();
    let verdict =
        format!("'shop' runs '{path}' anew, still version {version}; 3 of 3 slots are served\n");
    assert_eq!(verb("shop"), (Some(0), verdict, String::new()));
    installed.install(Path::new("/bin/true"));
    let (code, out, err) = verb("shop");
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(
        err.contains(&format!("upgrade refused: cannot go on with '{path}': it is another")),
        "{err}"
    );
    let (code, out, err) = verb("stall");
    assert_eq!((code, out.as_str()), (Some(3), ""), "{err}");
    manager.says("took over");
    ends_clean(manager);
}

#[test]
fn all_apps_are_upgraded_and_one_that_refuses_holds_up_no_other() {
    let places = tempfile::tempdir().unwrap();
    let all = || {
        let mut command = Command::new(dogwatch());
        command.args(["upgrade", "--all"]).env("XDG_RUNTIME_DIR", places.path());
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let nobody = (Some(0), "no app is running\n".to_owned(), String::new());
    assert_eq!(all(), nobody);
    let programs = ["a", "b", "c"].map(|_| Installed::new());
    let mut managers = programs.each_ref().map(Installed::serving);
    for (name, manager) in ["a", "b", "c"].into_iter().zip(&managers) {
        let folder = places.path().join("dogwatch").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink(manager.path("control"), folder.join("control")).unwrap();
    }
    let verdict = |program: &Installed| {
        let (path, version) = (program.path().display().to_string(), env!("CARGO_PKG_VERSION"));
        format!("'shop' runs '{path}' anew, still version {version}; 3 of 3 slots are served\n")
    };
    let verdicts = programs.each_ref().map(verdict);
    assert_eq!(all(), (Some(0), verdicts.concat(), String::new()));
    programs[1].install(Path::new("/bin/true"));
    let (code, out, err) = all();
    assert_eq!((code, out), (Some(1), verdicts[0].clone() + &verdicts[2]));
    assert!(err.starts_with("dogwatch: cannot upgrade 'shop': upgrade refused: "), "{err}");
    for (manager, upgrades) in managers.iter_mut().zip([2, 1, 2]) {
        for _ in 0..upgrades {
            manager.says("took over");
        }
    }
    managers.into_iter().for_each(ends_clean);
    // Their sockets are still there, and nobody listens.
    assert_eq!(all(), nobody);
}

#[test]
fn a_rollout_goes_on_in_the_upgraded_primary() {
    let mut manager = serving(Unit::demo(&["--name", "shop", "-n", "3", "--settle", "2s"], &[]));
    let clients = load(&manager);
    manager.signal(Signal::SIGHUP);
    manager.says("worker 4 (slot 0, generation 2) is ready");
    upgrade_in_a_rollout(&mut manager);
    manager.says("reload done: generation 2 serves every slot");
    is_clean(&clients.stop());
    assert_eq!(workers(&manager).len(), 3);
    ends_clean(manager);
}

fn upgrade_in_a_rollout(manager: &mut Manager) {
    manager.signal(Signal::SIGUSR2);
    manager.says("upgrading: executing");
    manager.says("took over from the last primary: ");
}

#[test]
fn a_primary_that_ends_is_not_upgraded() {
    let run = [
        "--name",
        "shop",
        "--ready",
        "alive:20ms",
        "--settle",
        "0ms",
        "--stop-timeout",
        "10s",
        "--drain",
        "0s",
    ];
    let mut manager = Unit::script(&run, "trap '' TERM; while :; do sleep 0.1; done").start();
    manager.is_ready();
    manager.signal(Signal::SIGTERM);
    manager.tells("STOPPING=1");
    manager.signal(Signal::SIGUSR2);
    manager.says("everything is being stopped; everything goes on as it was");
    assert!(manager.wait_crashed().success());
    manager.nothing_is_left_over();
}

#[test]
fn signals_in_the_moment_of_an_upgrade_are_not_lost() {
    let mut manager = serving(demo());
    for generation in 2..8 {
        manager.signal(Signal::SIGUSR2);
        if generation % 2 == 0 {
            manager.says("upgrading: executing");
        }
        manager.signal(Signal::SIGHUP);
        // It may have been heard before, in which case the new primary goes on with it, or be all done when the upgrade begins.
        let done = format!("reload done: generation {generation} serves every slot");
        manager.says_all(&["took over from the last primary: ", &done]);
    }
    for _ in 0..4 {
        manager.signal(Signal::SIGUSR2);
        manager.says("upgrading: executing");
        manager.signal(Signal::SIGTERM);
        assert!(manager.wait_crashed().success(), "{}", manager.all_said());
        manager.nothing_is_left_over();
        manager.start();
        manager.says("started: 3 of 3 slots are served");
    }
    ends_clean(manager);
}

#[test]
fn without_a_manager_workers_end_with_their_primary() {
    let mut manager = serving(demo().alone());
    manager.kill();
    manager.nothing_is_left_over();
    // Nor need the keeper be there for that.
    manager.start();
    manager.says("started: 3 of 3 slots are served");
    let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    // It takes its name when it runs for the first time.
    let keeper = wait_for("the keeper", || {
        manager.leftovers().into_iter().find(|pid| name(pid).trim() == "dogwatch-keeper")
    });
    manager.signal(Signal::SIGSTOP);
    kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
    manager.kill();
    manager.nothing_is_left_over();
}

#[test]
fn orphans_that_are_kept_live_on_and_can_write() {
    let run = [
        "--name",
        "shop",
        "-n",
        "3",
        "--settle",
        "0ms",
        "--ready",
        "alive:20ms",
        "--orphans",
        "keep",
    ];
    let script = "until [ -e \"$RUNTIME_DIRECTORY/go\" ]; do sleep 0.01; done
        head -c 1000000 /dev/zero | tr '\\0' x; echo >\"$RUNTIME_DIRECTORY/wrote-$DOGWATCH_SLOT\"; exec sleep 1000";
    let mut manager = serving(Unit::script(&run, script).alone());
    // The environment of one that is just executing a program cannot be read.
    let three_live = |manager: &Manager| {
        wait_for("three workers", || (workers(manager).len() >= 3).then_some(()));
    };
    three_live(&manager);
    manager.kill();
    std::fs::write(manager.path("go"), "").unwrap();
    for slot in 0..3 {
        let wrote = manager.path(&format!("wrote-{slot}"));
        wait_for("a megabyte to be written", || wrote.exists().then_some(()));
    }
    three_live(&manager);
}

#[test]
fn without_a_manager_an_upgrade_keeps_process_and_workers() {
    let mut manager = serving(demo().alone());
    let (pid, before) = (manager.pid(), workers(&manager));
    let clients = load(&manager);
    for _ in 0..3 {
        upgrade(&mut manager);
    }
    assert_eq!((manager.pid(), workers(&manager)), (pid, before));
    is_clean(&clients.stop());
    ends_clean(manager);
}
