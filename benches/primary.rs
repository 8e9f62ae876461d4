//! What the primary costs. Everything is measured side by side in one run; read the ratios, not the times.
//!
//! `cargo build --release --examples && cargo bench` (Linux, nothing to install).
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "benchmarks spawn and time")]
#![expect(clippy::print_stdout, reason = "this is the result")]
#![expect(clippy::cast_precision_loss, reason = "ratios of small numbers")]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Primary, dogwatch, free_port, load_client, wait_until};

/// How often is looked where it does not matter.
const SELDOM: Duration = Duration::from_millis(2);

fn main() {
    if !support::is_meant() {
        return;
    }
    throughput();
    memory_and_wakeups();
    replacement();
    spawn_rate();
}

fn answers(port: u16, requests: &str) -> u64 {
    let output = Command::new(load_client())
        .args([
            &format!("127.0.0.1:{port}"),
            "--clients",
            "8",
            "--requests",
            requests,
            "--seconds",
            "3",
        ])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Four workers under the primary, and the same four sharing a socket with nobody above them.
fn throughput() {
    let worker = dogwatch().to_str().unwrap();
    let port = free_port();
    let _primary = Primary::start(port, &["-n", "4", "--", worker, "demo-worker"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bare_port = listener.local_addr().unwrap().port();
    let passed = OwnedFd::from(listener);
    nix::fcntl::fcntl(&passed, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let script =
        format!("exec 3<&{}; exec env LISTEN_FDS=1 {worker} demo-worker", passed.as_raw_fd());
    let mut bare: Vec<Child> =
        (0..4).map(|_| Command::new("bash").args(["-c", &script]).spawn().unwrap()).collect();
    let answering = |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    wait_until("both", SELDOM, || answering(port) && answering(bare_port));
    std::thread::sleep(Duration::from_millis(500));
    println!("throughput, 4 workers, answers under the primary / the same 4 processes alone");
    for (name, requests) in
        [("a connection for each request", "1"), ("20 requests a connection", "20")]
    {
        let mut ratios: Vec<f64> = (0..5)
            .map(|_| answers(port, requests) as f64 / answers(bare_port, requests) as f64)
            .collect();
        ratios.sort_by(f64::total_cmp);
        println!("  {name}: median {:.2} (of {:.2} to {:.2})", ratios[2], ratios[0], ratios[4]);
    }
    for child in &mut bare {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn memory_and_wakeups() {
    let worker = dogwatch().to_str().unwrap();
    let port = free_port();
    let primary = Primary::start(port, &["-n", "8", "--", worker, "demo-worker"]);
    wait_until("8 workers", SELDOM, || primary.children().len() == 8);
    std::thread::sleep(Duration::from_secs(3));
    let before = primary.status("voluntary_ctxt_switches");
    std::thread::sleep(Duration::from_secs(10));
    let wakeups = primary.status("voluntary_ctxt_switches") - before;
    println!("the primary with 8 idle workers");
    println!(
        "  resident {:.1} MB, {} thread",
        primary.status("VmRSS") as f64 / 1024.0,
        primary.status("Threads")
    );
    println!("  {wakeups} wake-ups in 10 s without a watchdog");
}

/// From the death of a worker to the next one.
fn replacement() {
    let port = free_port();
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            let primary = Primary::start(port, &["--ready", "alive:1ms", "--", "/bin/sleep", "60"]);
            wait_until("a worker", SELDOM, || primary.children().len() == 1);
            std::thread::sleep(Duration::from_millis(50));
            let old = primary.children();
            let began = Instant::now();
            kill(Pid::from_raw(old[0]), Signal::SIGKILL).unwrap();
            wait_until("the next", Duration::from_micros(50), || {
                primary.children().iter().any(|pid| *pid != old[0])
            });
            began.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "a crashed worker's replacement is started after {:.1?} (median of 20, at most {:.1?})",
        times[10], times[19]
    );
}

/// 1,000 workers of sleep, and a bare loop of posix_spawn (which `Command` uses where nothing is to be done between).
fn spawn_rate() {
    const COUNT: usize = 1000;
    let mut ratios = vec![];
    for _ in 0..3 {
        let began = Instant::now();
        let mut children: Vec<Child> = (0..COUNT)
            .map(|_| Command::new("/bin/sleep").arg("60").stdin(Stdio::null()).spawn().unwrap())
            .collect();
        let bare = began.elapsed();
        for child in &mut children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let port = free_port();
        let began = Instant::now();
        let primary = Primary::start(
            port,
            &[
                "-n",
                &COUNT.to_string(),
                "--ready",
                "notify",
                "--ready-timeout",
                "1h",
                "--",
                "/bin/sleep",
                "60",
            ],
        );
        wait_until("1000 workers", SELDOM, || primary.children().len() == COUNT);
        ratios.push(bare.as_secs_f64() / began.elapsed().as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "starting {COUNT} workers of sleep: {:.2} of the rate of a bare posix_spawn loop (of {:.2} to {:.2})",
        ratios[1], ratios[0], ratios[2]
    );
}
