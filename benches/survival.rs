//! What it costs that the primary's death is a non-event. Read the ratios and the orders of magnitude.
//!
//! `cargo build --release --examples && cargo bench --bench survival` (Linux, nothing to install; with `cc` there is a C
//! program to compare with).
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "benchmarks spawn and time")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the result")]
#![expect(clippy::panic, reason = "a benchmark fails by panicking")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use support::manager::{Manager, Unit};

fn main() {
    // `cargo test --benches` only wants to see that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    until_ready();
    thousand();
    state();
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// From the start of the next primary to its READY=1.
fn starts(manager: &mut Manager, times: usize) -> Vec<Duration> {
    (0..times)
        .map(|_| {
            manager.kill();
            let began = Instant::now();
            manager.start();
            manager.tells("READY=1");
            began.elapsed()
        })
        .collect()
}

/// A program in C that says READY=1 and waits.
fn trivial(folder: &Path) -> Option<PathBuf> {
    let source = r#"
        #include <string.h>
        #include <stdlib.h>
        #include <sys/socket.h>
        #include <sys/un.h>
        #include <unistd.h>
        int main(void) {
            struct sockaddr_un to = { .sun_family = AF_UNIX };
            strncpy(to.sun_path, getenv("NOTIFY_SOCKET"), sizeof to.sun_path - 1);
            int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
            sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&to, sizeof to);
            pause();
        }"#;
    let (file, program) = (folder.join("trivial.c"), folder.join("trivial"));
    std::fs::write(&file, source).unwrap();
    let made = Command::new("cc").arg("-O2").arg(&file).arg("-o").arg(&program).status();
    made.is_ok_and(|status| status.success()).then_some(program)
}

fn until_ready() {
    let run = ["--name", "shop", "-n", "8", "--settle", "0ms"];
    let mut manager = Unit::demo(&run, &[]).start();
    manager.is_ready();
    let ours = median(starts(&mut manager, 21));
    manager.stop();
    println!("from the start of the next primary to READY=1, 8 workers taken back: {ours:.1?}");
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = trivial(folder.path()) else { return };
    let mut manager = Unit::program(&program, &[]).start();
    manager.is_ready();
    let trivial = median(starts(&mut manager, 21));
    manager.kill();
    let ratio = ours.as_secs_f64() / trivial.as_secs_f64();
    println!("  a C program that says READY=1 at once: {trivial:.1?}; ratio {ratio:.1}");
    println!(
        "  with the RestartSec=100ms of the units: {:.2}",
        (ours.as_secs_f64() + 0.1) / (trivial.as_secs_f64() + 0.1)
    );
}

fn thousand() {
    let run = [
        "--name",
        "shop",
        "-n",
        "1000",
        "--settle",
        "0ms",
        "--ready",
        "alive:1ms",
        "--",
        "sleep",
        "600",
    ];
    let mut manager = Unit::new(&run).store_max(8000).start();
    manager.is_ready();
    let took = median(starts(&mut manager, 5));
    println!("1,000 workers are taken back: READY=1 after {took:.0?} (median of 5)");
    manager.stop();
}

/// An event that changes nothing but has everything written down; the processor time of the primary for it.
fn state() {
    for workers in ["8", "1000"] {
        let run = [
            "--name",
            "shop",
            "-n",
            workers,
            "--settle",
            "0ms",
            "--ready",
            "alive:1ms",
            "--",
            "sleep",
            "600",
        ];
        let mut manager = Unit::new(&run).store_max(8000).start();
        manager.is_ready();
        let socket = notify_socket(&manager);
        let talker = UnixDatagram::unbound().unwrap();
        let events = if workers == "8" { 20_000 } else { 1_000 };
        let before = ticks(&manager);
        for n in 0..events {
            // Each another time, so that none is taken for the one before.
            talker.send_to(format!("EXTEND_TIMEOUT_USEC={}", n + 1).as_bytes(), &socket).unwrap();
        }
        std::thread::sleep(Duration::from_millis(200));
        let spent = Duration::from_millis(10) * (ticks(&manager) - before) / events;
        println!(
            "an event with {workers} workers, all of it: {spent:.1?} of the primary's processor time"
        );
        manager.stop();
    }
}

fn notify_socket(manager: &Manager) -> PathBuf {
    let mut files = std::fs::read_dir(manager.path("")).unwrap().flatten();
    files.find(|file| file.file_name().to_string_lossy().starts_with("notify-")).unwrap().path()
}

/// User and system time of the primary, in hundredths of a second.
fn ticks(manager: &Manager) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", manager.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap()
}
