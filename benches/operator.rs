//! What the operator's side costs: asking, listening, and the figures that peers publish of themselves. Everything is
//! measured in one run.
//!
//! `cargo bench --bench operator` (Linux, nothing to install).
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "benchmarks spawn and time")]
#![expect(clippy::print_stdout, reason = "this is the result")]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Primary, dogwatch, free_port, wait_until};

fn main() {
    if !support::is_meant() {
        return;
    }
    thousand();
    subscribers();
    peers_table();
}

/// How often is looked.
const OFTEN: Duration = Duration::from_micros(200);

/// A primary that is asked on its control socket.
struct App(Primary);

impl App {
    fn start(arguments: &[&str]) -> Self {
        let app = Self(Primary::start(free_port(), arguments));
        wait_until("the start", OFTEN, || {
            app.try_connect().is_some_and(|mut c| c.ask("List")["app"]["state"] == "running")
        });
        app
    }

    fn try_connect(&self) -> Option<Connection> {
        let stream = UnixStream::connect(self.0.control()).ok()?;
        Some(Connection(BufReader::new(stream)))
    }

    fn connect(&self) -> Connection {
        self.try_connect().unwrap()
    }

    fn status(&self, field: &str) -> u64 {
        self.0.status(field)
    }

    /// The time that a verb takes, seen from outside.
    fn verb(&self, arguments: &[&str]) -> Duration {
        let began = Instant::now();
        let status = Command::new(dogwatch())
            .args(arguments)
            .args(["--control", self.0.control().to_str().unwrap()])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        began.elapsed()
    }

    /// Asks for the page until there is an answer.
    fn answers(&self) {
        let ask = || -> Option<()> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.0.port)).ok()?;
            let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            stream.write_all(request).ok()?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).ok()?;
            line.contains("200").then_some(())
        };
        wait_until("an answer", OFTEN, || ask().is_some());
    }

    fn pid_of_slot(&self, slot: usize) -> i32 {
        let app = self.connect().ask("List");
        let worker = &app["app"]["slots"][slot]["workers"][0];
        i32::try_from(worker["pid"].as_i64().unwrap_or(0)).unwrap()
    }
}

struct Connection(BufReader<UnixStream>);

impl Connection {
    fn call(&mut self, method: &str, more: bool) {
        let call = json!({ "method": format!("org.dogwatch.Control.{method}"), "more": more });
        self.0.get_mut().write_all(format!("{call}\0").as_bytes()).unwrap();
    }

    fn receive(&mut self) -> Value {
        let mut bytes = vec![];
        self.0.read_until(0, &mut bytes).unwrap();
        bytes.pop();
        serde_json::from_slice::<Value>(&bytes).unwrap()["parameters"].take()
    }

    fn ask(&mut self, method: &str) -> Value {
        self.call(method, false);
        self.receive()
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// `list` of 1,000 workers, and what it does to everything else that the primary has to answer.
fn thousand() {
    let many = ["-n", "1000", "--ready", "alive:10ms", "--settle", "0ms", "--", "sleep", "1000"];
    let primary = App::start(&many);
    let times: Vec<_> = (0..21).map(|_| primary.verb(&["list"])).collect();
    println!("list, 1000 workers: median {}", ms(median(times)));
    let delay = |primary: &App| {
        let mut other = primary.connect();
        let mut times: Vec<_> = (0..300)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(1));
                let began = Instant::now();
                other.ask("Describe");
                began.elapsed()
            })
            .collect();
        times.sort();
        (times[times.len() / 2], times[times.len() - 1])
    };
    let (alone, alone_max) = delay(&primary);
    let done = AtomicBool::new(false);
    let (busy, busy_max) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                primary.verb(&["list"]);
            }
        });
        let busy = delay(&primary);
        done.store(true, Ordering::Relaxed);
        busy
    });
    println!(
        "another question to the same primary: alone median {} max {}; during one list after the other median {} max {}",
        ms(alone),
        ms(alone_max),
        ms(busy),
        ms(busy_max)
    );
}

/// Whoever listens costs nothing while nothing happens.
fn subscribers() {
    let worker = dogwatch().to_str().unwrap();
    let primary = App::start(&["-n", "8", "--settle", "0ms", "--", worker, "demo-worker"]);
    std::thread::sleep(Duration::from_secs(1));
    let before = primary.status("VmRSS");
    let mut listening: Vec<Connection> = (0..100).map(|_| primary.connect()).collect();
    for subscriber in &mut listening {
        subscriber.call("Subscribe", true);
        subscriber.receive();
    }
    // Their places were taken a moment ago; the rest is silence.
    std::thread::sleep(Duration::from_secs(1));
    let switches = || primary.status("voluntary_ctxt_switches");
    let woken = switches();
    std::thread::sleep(Duration::from_secs(10));
    println!(
        "8 workers: {:.1} MB resident, with 100 subscribers {:.1} MB; wake-ups in 10 idle seconds: {}",
        before as f64 / 1024.0,
        primary.status("VmRSS") as f64 / 1024.0,
        switches() - woken
    );
    drop(listening);
}

/// The rows that OxMgr's BENCHMARK.md has of PM2 and of itself, with a program that answers HTTP.
fn peers_table() {
    let worker = dogwatch().to_str().unwrap();
    let one = App::start(&["-n", "1", "--settle", "0ms", "--", worker, "demo-worker"]);
    std::thread::sleep(Duration::from_millis(500));
    println!("resident with 1 worker: {} KB", one.status("VmRSS"));
    drop(one);
    let began = Instant::now();
    let hundred = ["-n", "100", "--settle", "0ms", "--", worker, "demo-worker"];
    let primary = App::start(&hundred);
    println!("start 100, all ready: {}", ms(began.elapsed()));
    std::thread::sleep(Duration::from_millis(500));
    println!("resident with 100 workers: {} KB", primary.status("VmRSS"));
    let times: Vec<_> = (0..21).map(|_| primary.verb(&["list"])).collect();
    println!("list, 100 workers: median {}", ms(median(times)));
    let reborn = |slot: usize| {
        let old = primary.pid_of_slot(slot);
        let began = Instant::now();
        kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
        wait_until("the next", OFTEN, || ![0, old].contains(&primary.pid_of_slot(slot)));
        began.elapsed()
    };
    println!(
        "crash to new pid (asking each 0.2 ms): median {}",
        ms(median((0..9).map(reborn).collect()))
    );
    drop(primary);
    // A fresh one each time: who crashes again and again is held back.
    let one = || App::start(&["-n", "1", "--settle", "0ms", "--", worker, "demo-worker"]);
    let crash = |_: usize| {
        let alone = one();
        let old = alone.pid_of_slot(0);
        let began = Instant::now();
        kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
        alone.answers();
        began.elapsed()
    };
    println!(
        "crash of the only worker to an answer: median {}",
        ms(median((0..9).map(crash).collect()))
    );
    let alone = one();
    let restart = |_: usize| {
        let began = Instant::now();
        alone.verb(&["restart", "bench"]);
        alone.answers();
        began.elapsed()
    };
    println!(
        "restart of the only worker to an answer: median {}",
        ms(median((0..5).map(restart).collect()))
    );
    let reload = |_: usize| alone.verb(&["reload", "bench"]);
    println!("reload of one worker: median {}", ms(median((0..5).map(reload).collect())));
}
