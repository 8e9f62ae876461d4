//! The real binary with a fake systemd and programmable workers. Everything is waited for, nothing is slept for.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use support::primary::{Setup, free_port, get};
use support::{dogwatch, skip, wait_for, which};

const QUICK: [&str; 2] = ["--settle", "0ms"];

fn pid_of(text: &str) -> Pid {
    Pid::from_raw(text.trim().parse().unwrap())
}

// To systemd and from it.

#[test]
fn a_life_on_the_wire() {
    let mut primary = Setup::demo(&["-n", "2", "--settle", "0ms", "--name", "shop"], &[]).start();
    primary.tells_systemd("STATUS=starting: 0 of 2 slots ready");
    primary.tells_systemd("EXTEND_TIMEOUT_USEC=");
    primary.tells_systemd("READY=1");
    primary.tells_systemd("STATUS=2 workers ready, generation 1");
    primary.says("started: 2 of 2 slots are served");
    assert_eq!(primary.get("/env?DOGWATCH_APP"), "shop\n");
    primary.signal(Signal::SIGHUP);
    let reloading = primary.tells_systemd("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    primary.tells_systemd("STATUS=reload to generation 2 0/2: slot 0 is not ready yet");
    primary.tells_systemd("READY=1");
    primary.tells_systemd("STATUS=2 workers ready, generation 2");
    primary.signal(Signal::SIGTERM);
    primary.tells_systemd("STOPPING=1");
    let (status, said) = primary.ended();
    assert_eq!(status.code(), Some(0));
    assert!(said.contains("reload done: generation 2 serves every slot"), "{said}");
}

#[test]
fn ready_is_said_once_for_a_start_and_once_for_a_reload() {
    let mut primary = Setup::demo(&QUICK, &[]).start();
    primary.says("started");
    primary.signal(Signal::SIGHUP);
    primary.says("reload done");
    primary.signal(Signal::SIGTERM);
    let told = primary.told_systemd_until("STOPPING=1");
    assert_eq!(told.matches("READY=1\n").count(), 2, "{told}");
    assert_eq!(told.matches("RELOADING=1\n").count(), 1, "{told}");
    assert_eq!(told.matches("STOPPING=1\n").count(), 1, "{told}");
}

#[test]
fn a_refused_reload_says_why_and_ends_the_reloading_state() {
    let setup = Setup::demo(&QUICK, &[]);
    let file = setup.folder().join("shop.toml");
    std::fs::write(&file, "workers = 1\n").unwrap();
    let mut primary = setup.arguments(&["--config", file.to_str().unwrap()]).start();
    primary.is_ready();
    std::fs::write(&file, "\nwokers = 2\n").unwrap();
    primary.signal(Signal::SIGHUP);
    primary.tells_systemd("RELOADING=1");
    primary.tells_systemd("READY=1");
    let said = primary.says("reload refused");
    let file = file.display();
    assert!(
        said.contains(&format!("{file}:2: unknown key 'wokers', expected one of 'command'")),
        "{said}"
    );
    assert!(said.ends_with("; everything goes on as it was"), "{said}");
    primary.says("hint: did you mean 'workers'?");
    assert!(primary.get("/").contains("generation 1,"));
    primary.stop();
}

#[test]
fn the_watchdog_is_pinged_twice_an_interval() {
    let primary = Setup::demo(&QUICK, &[]).env("WATCHDOG_USEC", "200000").start();
    for _ in 0..5 {
        primary.tells_systemd("WATCHDOG=1");
    }
    // The worker has no watchdog of its own unless it is configured.
    assert_eq!(primary.get("/env?WATCHDOG_USEC"), "\n");
    primary.stop();
}

// What a worker is given.

#[test]
fn a_worker_gets_its_sockets_as_systemd_gives_them() {
    let script = "echo fds $LISTEN_FDS names $LISTEN_FDNAMES own $(( LISTEN_PID == $$ )) >&2; \
                  echo dir $PWD, ign $(grep SigIgn /proc/$$/status | cut -f2) >&2; exec sleep 60";
    let run = ["--ready", "alive:50ms", "--working-directory", "/usr/share"];
    let mut primary = Setup::script(&run, script).start();
    primary.says("fds 1 names web own 1");
    assert_eq!(primary.says("dir"), "dir /usr/share, ign 0000000000000000");
    primary.says("it stayed alive long enough");
    primary.stop();
}

#[test]
fn environment_files_are_read_again_and_a_broken_one_is_refused() {
    let setup = Setup::demo(&QUICK, &[]);
    let file = setup.folder().join("app.env");
    std::fs::write(&file, "GREETING=\"one two\"\nSECOND=2\n").unwrap();
    let run = ["--environment-file", file.to_str().unwrap(), "--env", "SECOND=two"];
    let mut primary = setup.arguments(&run).start();
    primary.is_ready();
    assert_eq!(primary.get("/env?GREETING"), "one two\n");
    assert_eq!(primary.get("/env?SECOND"), "two\n");
    std::fs::write(&file, "GREETING=three\n").unwrap();
    primary.signal(Signal::SIGHUP);
    primary.says("reload done");
    assert_eq!(primary.get("/env?GREETING"), "three\n");
    std::fs::write(&file, "GREETING\n").unwrap();
    primary.signal(Signal::SIGHUP);
    let said = primary.says("reload refused");
    assert!(
        said.contains("app.env:1: not an assignment, expected NAME=VALUE; everything"),
        "{said}"
    );
    std::fs::remove_file(&file).unwrap();
    primary.signal(Signal::SIGHUP);
    primary.says("app.env': No such file or directory (os error 2); everything goes on as it was");
    primary.stop();
}

/// `current` is a symlink to a release, as deployments have it.
#[test]
fn reload_follows_the_symlink_and_rollback_goes_back_to_where_it_was() {
    let setup = Setup::new(&["-n", "2", "--settle", "0ms"]);
    let folder = setup.folder().to_owned();
    let worker = |greeting: &str| {
        format!("#!/bin/sh\nexec {} demo-worker --greeting {greeting}\n", dogwatch().display())
    };
    let release = |name: &str, script: &str| {
        let file = folder.join(name).join("serve");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        // Written under another name: a file that is open for writing cannot be executed.
        Command::new("sh")
            .args(["-c", "cat > $1 && chmod +x $1", "sh"])
            .arg(&file)
            .stdin(Stdio::piped())
            .spawn()
            .and_then(|mut child| {
                child.stdin.take().unwrap().write_all(script.as_bytes())?;
                child.wait()
            })
            .unwrap();
    };
    let switch = |to: &str| {
        let (new, current) = (folder.join("new"), folder.join("current"));
        std::os::unix::fs::symlink(to, &new).unwrap();
        std::fs::rename(new, current).unwrap();
    };
    release("r1", &worker("one"));
    release("r2", &worker("two"));
    // Serves in slot 0 and not in slot 1: the first is relieved, then both go back.
    release("r3", &format!("#!/bin/sh\n[ $DOGWATCH_SLOT = 0 ] || exit 3\n{}", worker("three")));
    switch("r1");
    let current = folder.join("current");
    let run = ["--working-directory", current.to_str().unwrap()];
    let mut primary = setup.arguments(&run).arguments_after(&["--", "./serve"]).start();
    primary.is_ready();
    assert!(primary.get("/").starts_with("one "));
    switch("r2");
    // A crash before the reload stays in the release that its generation was started from.
    kill(pid_of(&primary.get("/pid")), Signal::SIGKILL).unwrap();
    primary.says("was ended by SIGKILL; starting the slot again");
    primary.says("is ready");
    for _ in 0..8 {
        assert!(primary.get("/").starts_with("one "));
    }
    primary.signal(Signal::SIGHUP);
    primary.says("reload done");
    assert!(primary.get("/").starts_with("two "));
    switch("r3");
    primary.signal(Signal::SIGHUP);
    primary.says("(slot 1, generation 3) exited with status 3 before it was ready; rolling back to generation 2");
    primary.says("reload failed: the worker of generation 3 in slot 1 exited with status 3 before it was ready; rolled back to generation 2");
    for _ in 0..8 {
        assert!(primary.get("/").starts_with("two "));
    }
    primary.stop();
}

// Evidence of readiness.

/// Starts a worker of a script and expects it to be ready by `evidence`.
fn expect_ready(run: &[&str], script: &str, evidence: &str) {
    let mut primary = Setup::script(run, script).start();
    primary.says(&format!(": {evidence}"));
    primary.is_ready();
    primary.stop();
}

const ACCEPTING: &str = "it waits on a listener";

#[test]
fn an_epoll_set_with_the_listener_is_evidence() {
    let mut primary = Setup::demo(&["--ready", "accepting"], &[]).start();
    primary.says(ACCEPTING);
    primary.stop();
}

#[test]
fn a_server_below_a_shell_is_found() {
    // LISTEN_PID is the shell's; a server below it must not look at it (sd_listen_fds(3)).
    let script = format!("unset LISTEN_PID; {} demo-worker & wait", dogwatch().display());
    expect_ready(&[], &script, ACCEPTING);
}

#[test]
fn a_thread_in_accept_poll_or_select_is_evidence() {
    if which("python3").is_none() && skip("python3") {
        return;
    }
    let python = |body: &str| {
        format!(
            "exec python3 -c 'import socket, select, time\ns = socket.socket(fileno=3)\n{body}'"
        )
    };
    expect_ready(&["--blocking"], &python("while True: s.accept()"), ACCEPTING);
    expect_ready(
        &[],
        &python("p = select.poll(); p.register(7 if False else 3, select.POLLIN); p.poll()"),
        ACCEPTING,
    );
    expect_ready(
        &[],
        &python("select.select([0, 3], [], [])  if False else select.select([3], [], [])"),
        ACCEPTING,
    );
    // Holding the socket is no evidence, and neither is waiting on another.
    let mut primary = Setup::script(
        &["--ready-timeout", "300ms", "--start-limit", "1/60s"],
        &python("r, w = socket.socketpair(); select.select([r], [], [])"),
    )
    .start();
    primary.says("was not ready within 300ms; the slot is given up after 1 failure within 60s");
    primary.says("hint: nothing showed that it serves: let it accept on the socket");
    let (status, _) = primary.ended();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_worker_too_busy_to_wait_is_ready_when_it_has_a_connection() {
    if which("python3").is_none() && skip("python3") {
        return;
    }
    // It never waits on the socket, and is not ready by that; it takes a connection each time it is told to.
    let script = "exec python3 -c 'import os, socket, time
s = socket.socket(fileno=3)
s.setblocking(False)
held = []
while True:
    time.sleep(0.01)
    try:
        held.append(s.accept()[0])
    except BlockingIOError:
        pass'";
    let mut primary = Setup::script(&["--ready", "accepting"], script).start();
    let client = TcpStream::connect(primary.address).unwrap();
    primary.says(": it has accepted a connection");
    primary.is_ready();
    drop(client);
    primary.stop();
}

#[test]
fn systemd_notify_in_a_script_is_evidence_and_returns_at_once() {
    if which("systemd-notify").is_none() && skip("systemd-notify") {
        return;
    }
    // It waits until the file descriptor of its BARRIER=1 message is closed; a held one costs five seconds.
    let script = "before=$(date +%s); systemd-notify --ready --status='up and running' || echo failed >&2; \
                  echo took $(( $(date +%s) - before < 4 )) >&2; exec sleep 60";
    let mut primary = Setup::script(&["--ready", "notify"], script).start();
    let mut lines = [primary.says(""), primary.says(""), primary.says(""), primary.says("")];
    lines.sort();
    let said = lines.join("\n");
    assert!(said.contains("took 1") && !said.contains("failed"), "{said}");
    assert!(said.contains("it said READY=1"), "{said}");
    primary.stop();
}

#[test]
fn a_line_on_the_readiness_descriptor_is_evidence() {
    let script = "eval \"echo >&$DOGWATCH_READY_FD\"; exec sleep 60";
    expect_ready(&["--ready", "fd"], script, "it wrote to its readiness file descriptor");
    // Under a number of one's own, as s6 programs have it; closing it without a line is none.
    let script = "[ $DOGWATCH_READY_FD = 5 ] && echo >&5; exec sleep 60";
    expect_ready(
        &["--ready", "fd", "--ready-fd", "5"],
        script,
        "it wrote to its readiness file descriptor",
    );
    let mut primary = Setup::script(
        &["--ready", "fd", "--ready-timeout", "300ms", "--start-limit", "1/60s"],
        "exec 4>&-; exec sleep 60",
    )
    .start();
    primary.says("was not ready within 300ms");
    primary.says("hint: it wrote no line to the file descriptor in DOGWATCH_READY_FD");
}

#[test]
fn a_late_line_on_the_readiness_descriptor_does_no_harm() {
    // Accepting is the first evidence; the line comes after it, and must not raise SIGPIPE.
    let script = format!(
        "unset LISTEN_PID; {} demo-worker & sleep 0.3; eval \"echo >&$DOGWATCH_READY_FD\" && echo alive >&2; wait",
        dogwatch().display()
    );
    let mut primary = Setup::script(&[], &script).start();
    primary.says(ACCEPTING);
    primary.says("alive");
    primary.stop();
}

#[test]
fn only_the_chosen_evidence_counts() {
    let mut primary = Setup::demo(&["--ready", "alive:300ms"], &["--notify"]).start();
    assert!(primary.says("is ready").contains("it stayed alive long enough"));
    primary.stop();
}

// Crashes.

#[test]
fn a_crashed_worker_is_replaced_and_the_others_go_on() {
    let mut primary = Setup::demo(&["-n", "2"], &[]).start();
    primary.is_ready();
    let pid = pid_of(&primary.get("/pid"));
    kill(pid, Signal::SIGABRT).unwrap();
    primary.says("was ended by SIGABRT; starting the slot again");
    primary.says("worker 3");
    assert_ne!(pid_of(&primary.get("/pid")), pid);
    primary.stop();
}

#[test]
fn every_slot_given_up_ends_the_primary_with_failure() {
    let primary =
        Setup::demo(&["-n", "2", "--start-limit", "2/60s", "--min-delay", "1ms"], &["--exit", "3"])
            .start();
    let (status, said) = primary.ended();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("exited with status 3 before it was ready; the slot is given up after 2 failures within 60s"), "{said}");
    assert!(said.ends_with("stopping: every slot is given up\n"), "{said}");
}

#[test]
fn what_cannot_be_executed_is_told_from_what_fails() {
    let setup = Setup::new(&["--start-limit", "1/60s"]);
    let program = setup.folder().join("garbage");
    std::fs::write(&program, "neither a binary nor a script\n").unwrap();
    Command::new("chmod").arg("+x").arg(&program).status().unwrap();
    let program = program.to_str().unwrap().to_owned();
    let mut primary = setup.arguments_after(&["--", &program]).start();
    let said = primary.says("could not be started");
    assert!(
        said.contains(&format!("could not be started: executing '{program}': Exec format error")),
        "{said}"
    );
    assert_eq!(primary.ended().0.code(), Some(1));
}

#[test]
fn a_directory_that_cannot_be_entered_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().canonicalize().unwrap().join("place");
    std::fs::create_dir(&place).unwrap();
    let run = [
        "--start-limit",
        "2/60s",
        "--min-delay",
        "1ms",
        "--working-directory",
        place.to_str().unwrap(),
    ];
    let mut primary = Setup::demo(&run, &[]).start();
    primary.is_ready();
    std::fs::remove_dir(&place).unwrap();
    kill(pid_of(&primary.get("/pid")), Signal::SIGKILL).unwrap();
    let said = primary.says("could not be started");
    let reason = format!("changing directory '{}': No such file or directory", place.display());
    assert!(said.contains(&reason), "{said}");
}

#[test]
fn a_hung_worker_is_ended_and_replaced() {
    let run = ["--watchdog", "300ms", "--stop-timeout", "5s", "--settle", "0ms"];
    let mut primary = Setup::demo(&run, &["--heartbeats", "4"]).start();
    primary.is_ready();
    assert_eq!(primary.get("/env?WATCHDOG_USEC"), "300000\n");
    primary.says("gave no heartbeat for 300ms; starting the slot again");
    primary.says("worker 1 (slot 0, generation 1) has gone: it was ended by SIGABRT");
    primary.says("worker 2 (slot 0, generation 1) is ready");
}

#[test]
fn a_wrapper_that_dies_leaves_a_server_that_finishes() {
    // The shell dies of SIGTERM at once; the server below it gets the signal then, and answers what it has.
    // LISTEN_PID is the shell's; a server below it must not look at it (sd_listen_fds(3)).
    let script = format!("unset LISTEN_PID; {} demo-worker & wait", dogwatch().display());
    let mut primary = Setup::script(&QUICK, &script).start();
    primary.is_ready();
    let mut stream = TcpStream::connect(primary.address).unwrap();
    write!(stream, "GET /slow?ms=800 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    // The request is in the worker's hands when it answers another one sent later.
    primary.get("/");
    primary.signal(Signal::SIGTERM);
    primary.says("was ended by SIGTERM");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("waited 800 ms\n"), "{answer}");
    assert_eq!(primary.ended().0.code(), Some(0));
}

#[test]
fn orphans_are_reaped() {
    // A grandchild in a session of its own, whose parent goes: it becomes the primary's, and ends.
    let script = "(setsid sh -c 'sleep 0.2; echo orphan $$ >&2' &) ; exec sleep 60";
    let mut primary = Setup::script(&["--ready", "alive:10ms"], script).start();
    let said = primary.says("orphan");
    let pid = said.rsplit(' ').next().unwrap().to_owned();
    wait_for("the orphan to be reaped", || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    primary.stop();
}

#[test]
fn as_pid_1_it_reaps_and_stops() {
    if !nix::unistd::geteuid().is_root() && skip("root, for a pid namespace") {
        return;
    }
    let script = "(sh -c 'sleep 0.1; echo orphan $(grep PPid: /proc/$$/status | cut -f2) >&2' &) ; sleep 0.3; \
                  echo \"zombies $(ps -eo stat= | grep -c Z)\" >&2; exec sleep 60";
    let unshare = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "bash",
        "-c",
        "LISTEN_PID=1 WATCHDOG_PID=1 exec \"$@\"",
        "bash",
    ];
    let mut primary = Setup::script(&["--ready", "alive:1s"], script).under(&unshare).start();
    primary.says("zombies 0");
    primary.is_ready();
    // The process that the test knows is unshare(1), which passes no signal on: the pid namespace's 1 is its child.
    let children =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", primary.pid())).unwrap();
    kill(pid_of(&children), Signal::SIGTERM).unwrap();
    let (status, said) = primary.ended();
    assert_eq!(status.code(), Some(0), "{said}");
}

#[test]
fn what_ends_as_somebody_elses_child_is_noticed() {
    if which("python3").is_none() && skip("python3") {
        return;
    }
    // The worker leaves a process in its group whose parent has left the group: nobody tells us of its end.
    let script = "exec python3 -c '
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(0.5)
        os._exit(0)
    os.setsid()
    os.wait()
    time.sleep(3)
    os._exit(0)
time.sleep(0.2)
print(\"leaving\", flush=True)
os._exit(3)'";
    let run = ["--ready", "alive:10ms", "--start-limit", "1/60s"];
    let primary = Setup::script(&run, script).start();
    let (status, said) = primary.ended();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(!said.contains("has not ended and is killed"), "{said}");
}

#[test]
fn systemd_is_asked_to_wait_as_long_as_a_drain_may_take() {
    let run = ["--ready-timeout", "5min", "--drain", "2h", "--stop-timeout", "1s"];
    let mut primary = Setup::demo(&run, &["--deaf"]).start();
    primary.is_ready();
    primary.signal(Signal::SIGTERM);
    primary.tells_systemd("STOPPING=1");
    let asked = primary.tells_systemd("EXTEND_TIMEOUT_USEC=");
    let usec: u64 = asked.trim().rsplit('=').next().unwrap().parse().unwrap();
    assert!(usec > 7_200_000_000, "{asked}");
    primary.signal(Signal::SIGTERM);
    primary.says("is killed");
}

// Signals.

#[test]
fn ttin_and_ttou_add_and_remove_a_slot() {
    let mut primary = Setup::demo(&QUICK, &[]).start();
    primary.is_ready();
    primary.signal(Signal::SIGTTIN);
    primary.says("scaled from 1 to 2 slots");
    primary.says("worker 2 (slot 1, generation 1) is ready");
    primary.signal(Signal::SIGTTOU);
    primary.says("scaled from 2 to 1 slots");
    primary.says("worker 2 (slot 1, generation 1) has gone: it exited with status 0");
    primary.stop();
}

#[test]
fn a_second_stop_hurries() {
    let mut primary = Setup::demo(&["--stop-timeout", "300s"], &["--deaf"]).start();
    primary.is_ready();
    primary.signal(Signal::SIGINT);
    primary.says("stopping");
    primary.signal(Signal::SIGINT);
    primary.says("has not ended and is killed");
    let (status, said) = primary.ended();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("has gone: it was ended by SIGKILL"), "{said}");
}

#[test]
fn a_deaf_worker_is_killed_after_its_time() {
    let mut primary =
        Setup::demo(&["--drain", "0ms", "--stop-timeout", "200ms"], &["--deaf"]).start();
    primary.is_ready();
    primary.signal(Signal::SIGTERM);
    primary.says("has not ended and is killed");
    assert_eq!(primary.ended().0.code(), Some(0));
}

// Sockets.

#[test]
fn it_listens_itself_on_ports_and_paths() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    // What a dead process left behind is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address = format!("unix:{}", path.display());
    let port = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut child = Command::new(dogwatch())
        .args([
            "run",
            "-l",
            &address,
            "-l",
            &port.to_string(),
            "-l",
            "[::1]:0",
            "--",
            dogwatch().to_str().unwrap(),
            "demo-worker",
        ])
        .env("RUNTIME_DIRECTORY", folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let names = wait_for("the answer", || {
        TcpStream::connect(port).ok()?;
        Some(get(port, "/env?LISTEN_FDNAMES"))
    });
    assert_eq!(names, format!("app.sock:tcp-{}:tcp-0\n", port.port()));
    assert!(path.exists());
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(wait_for("its end", || child.try_wait().unwrap()).code(), Some(0));
    assert!(!path.exists(), "our own socket file is removed");
}

#[test]
fn garbage_on_a_notify_socket_is_dropped_and_counted() {
    let mut primary = Setup::demo(&["--ready", "notify"], &["--notify"]).start();
    primary.is_ready();
    let path = primary.get("/env?NOTIFY_SOCKET").trim().to_owned();
    let socket = UnixDatagram::unbound().unwrap();
    let mut state = 7u64;
    for n in 0..200usize {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let bytes: Vec<u8> = (0..n * 40)
            .map(|at| state.to_le_bytes()[at % 8] ^ u8::try_from(at % 251).unwrap())
            .collect();
        socket.send_to(&bytes, &path).unwrap();
    }
    primary.says("datagrams that are no notifications; ignoring them");
    assert!(primary.get("/").starts_with("hello from worker 1 "));
    primary.stop();
}

// Output.

#[test]
fn a_worker_that_writes_without_end_stalls_only_itself() {
    // Nobody reads the primary's standard output; slot 0 floods it.
    let script = format!(
        "[ $DOGWATCH_SLOT = 0 ] && {{ yes $(printf %06000d 0) & }}; exec {} demo-worker",
        dogwatch().display()
    );
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(dogwatch())
        .args([
            "run",
            "--name",
            "flood",
            "-n",
            "2",
            "--settle",
            "0ms",
            "--log",
            "prefix",
            "-l",
            &address.to_string(),
        ])
        .args(["--", "/bin/sh", "-c", &script])
        .env("RUNTIME_DIRECTORY", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("both workers", || {
        TcpStream::connect(address).ok()?;
        let slots: BTreeSet<String> = (0..8).map(|_| get(address, "/env?DOGWATCH_SLOT")).collect();
        (slots.len() == 2).then_some(())
    });
    // The pipe is full by now; the primary still reloads and stops.
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGHUP).unwrap();
    wait_for("the new generation", || {
        let generations: BTreeSet<String> =
            (0..8).map(|_| get(address, "/env?DOGWATCH_GENERATION")).collect();
        generations.contains("2\n").then_some(())
    });
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(wait_for("its end", || child.try_wait().unwrap()).code(), Some(0));
    let mut output = vec![0; 20_000];
    child.stdout.take().unwrap().read_exact(&mut output).unwrap();
    let output = String::from_utf8_lossy(&output);
    let line = format!("flood/0 | {}", "0".repeat(6000));
    assert!(output.lines().take(3).all(|l| l == line), "{output}");
}

#[test]
fn output_is_inherited_untouched_by_a_pipe() {
    let mut primary =
        Setup::script(&["--ready", "alive:10ms"], "echo plain >&2; exec sleep 60").start();
    assert_eq!(primary.says("plain"), "plain");
    primary.stop();
}

#[test]
fn a_worker_that_writes_without_end_to_a_fast_reader_leaves_the_others_their_turn() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(dogwatch())
        .args([
            "run",
            "--name",
            "shop",
            "-l",
            "127.0.0.1:0",
            "--ready",
            "alive:50ms",
            "--log",
            "prefix",
        ])
        .args(["--drain", "0ms", "--", "/usr/bin/yes"])
        .env("RUNTIME_DIRECTORY", folder.path())
        .stdout(std::fs::File::options().write(true).open("/dev/null").unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("started: 1 of 1") {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
    }
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(wait_for("its end", || child.try_wait().unwrap()).code(), Some(0));
}

#[test]
fn a_primary_that_stood_still_does_not_take_its_workers_for_hung() {
    let run = ["-n", "2", "--watchdog", "6s", "--settle", "0ms"];
    let mut primary = Setup::demo(&run, &[]).start();
    primary.is_ready();
    primary.signal(Signal::SIGSTOP);
    // Longer than the interval; the workers go on beating meanwhile.
    std::thread::sleep(std::time::Duration::from_secs(8));
    primary.signal(Signal::SIGCONT);
    primary.signal(Signal::SIGTTIN);
    primary.says("worker 3 (slot 2, generation 1) is ready");
    let said = primary.stop();
    assert!(!said.contains("heartbeat"), "{said}");
}

#[test]
fn an_environment_file_that_is_a_pipe_is_refused_at_once() {
    let setup = Setup::demo(&QUICK, &[]);
    let file = setup.folder().join("app.env");
    std::fs::write(&file, "").unwrap();
    let mut primary = setup.arguments(&["--environment-file", file.to_str().unwrap()]).start();
    primary.is_ready();
    std::fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    primary.signal(Signal::SIGHUP);
    primary.says("app.env': not a regular file; everything goes on as it was");
    primary.stop();
}

#[test]
fn last_words_are_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap 'for n in $(seq 500); do echo goodbye $n; done; exit' TERM; echo ready; while :; do sleep 0.01; done";
    let mut child = Command::new(dogwatch())
        .args([
            "run",
            "--name",
            "shop",
            "-l",
            "127.0.0.1:0",
            "--ready",
            "alive:10ms",
            "--log",
            "prefix",
        ])
        .args(["--", "/bin/sh", "-c", script])
        .env("RUNTIME_DIRECTORY", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut output = String::new();
    stdout.read_line(&mut output).unwrap();
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    stdout.read_to_string(&mut output).unwrap();
    assert_eq!(output.lines().count(), 501, "{output}");
    assert!(output.ends_with("shop/0 | goodbye 500\n"));
    assert_eq!(wait_for("its end", || child.try_wait().unwrap()).code(), Some(0));
}

// A machine that lacks something.

#[test]
fn a_child_without_descriptors_is_not_the_programs_fault() {
    if which("prlimit").is_none() && skip("prlimit") {
        return;
    }
    // The limit is met by some in the primary and by some in the child, between clone and exec.
    for limit in 26..40 {
        let limit = ["prlimit", &format!("--nofile={limit}:{limit}")];
        let setup = Setup::demo(&["-n", "30", "--start-limit", "3/60s"], &[]).under(&limit);
        let mut primary = setup.start();
        primary.says("Too many open files");
        let said = primary.stop();
        assert!(!said.contains("given up"), "{said}");
    }
}

#[test]
fn too_few_file_descriptors_are_survived() {
    if which("prlimit").is_none() && skip("prlimit") {
        return;
    }
    // Enough for the primary and a worker or two, not for all; nobody is given up for that.
    let limit = ["prlimit", "--nofile=56:56"];
    let mut primary =
        Setup::demo(&["-n", "6", "--start-limit", "1/60s"], &[]).under(&limit).start();
    let said = primary.says("Too many open files");
    assert!(said.contains("; starting the slot again"), "{said}");
    assert!(primary.get("/").starts_with("hello"));
    primary.stop();
}

#[test]
fn too_few_processes_are_survived() {
    if !nix::unistd::geteuid().is_root() && skip("root, to become a user with a limit") {
        return;
    }
    let setup = Setup::demo(&["-n", "3", "--start-limit", "1/60s"], &[]);
    Command::new("chmod").args(["-R", "a+rwX"]).arg(setup.folder()).status().unwrap();
    Command::new("chown").arg("-R").arg("64123").arg(setup.folder()).status().unwrap();
    // The primary, its keeper and one worker.
    let limit = ["prlimit", "--nproc=3:3", "setpriv", "--reuid=64123", "--clear-groups"];
    let mut primary = setup.under(&limit).start();
    let said = primary.says("Resource temporarily unavailable");
    assert!(
        said.contains("could not be started: making a process: Resource temporarily unavailable"),
        "{said}"
    );
    assert!(primary.get("/").starts_with("hello"));
    primary.stop();
}

#[test]
fn a_closed_terminal_stops_it_and_lines_carry_their_slot() {
    let terminal = nix::pty::openpty(None, None).unwrap();
    let close_on_exec = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
    nix::fcntl::fcntl(&terminal.master, close_on_exec).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(dogwatch())
        .args(["run", "--name", "shop", "-l", "127.0.0.1:0", "--ready", "alive:10ms"])
        .args(["--", "/bin/sh", "-c", "echo here I am; exec sleep 60"])
        .env("RUNTIME_DIRECTORY", folder.path())
        .stdout(terminal.slave)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut master = std::fs::File::from(terminal.master);
    let (mut seen, mut buffer) = (String::new(), [0; 1024]);
    while !seen.contains("shop/0 |\x1b[0m here I am") {
        let read = master.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    drop(master);
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGHUP).unwrap();
    assert_eq!(wait_for("its end", || child.try_wait().unwrap()).code(), Some(0));
}
