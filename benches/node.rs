//! What the primary costs a Node app, beside Node's own cluster module and PM2: the same program, `benches/node/app.js`,
//! in 8 workers of each, asked in turns so that drift hits all alike. Read the ratios, not the times.
//!
//! `cargo build --release --examples && cargo bench --bench node` (Linux, `node`; `pm2` too, if it is on the PATH, in
//! target/node, or named by DOGWATCH_PM2). About two minutes; `-- --quick` takes half a minute.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "benchmarks spawn and time")]
#![expect(clippy::print_stdout, reason = "this is the result")]
#![expect(clippy::cast_precision_loss, reason = "ratios of small numbers")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{Primary, free_port, load_client, median, processor_time, wait_until};

const WORKERS: usize = 8;
/// More than there are workers, so that somebody always waits.
const MANY: &str = "16";
/// So few that a worker is always free, which is when turns can be taken: where the processors are all busy, who gets
/// the next connection is who was given a processor.
const FEW: &str = "4";
const REQUESTS_KEPT: &str = "20";

/// How long everything takes.
struct Times {
    rounds: usize,
    /// Before it counts: V8 compiles what is called often, and until then a connection costs twice as much.
    warming: &'static str,
    /// Each of the three measurements of a round.
    each: &'static str,
}

const FULL: Times = Times { rounds: 3, warming: "5", each: "2" };
const QUICK: Times = Times { rounds: 1, warming: "2", each: "1" };

fn main() {
    if !support::is_meant() {
        return;
    }
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let times = if is_quick { QUICK } else { FULL };
    let mut turns = vec![dogwatch("round-robin"), cluster("rr")];
    turns.extend(pm2());
    let shared = [dogwatch("shared"), cluster("none")];
    let mut all: Vec<Measured> = turns.into_iter().chain(shared).map(Measured::new).collect();
    for measured in &mut all {
        measured.warm(times.warming);
    }
    for _ in 0..times.rounds {
        for measured in &mut all {
            measured.round(&times);
        }
    }
    let processors = std::thread::available_parallelism().unwrap();
    println!(
        "{WORKERS} workers, {MANY} clients, {processors} processors, Node {}; medians of {} rounds, in brackets dogwatch / peer\n",
        said(Command::new("node").arg("--version")),
        times.rounds
    );
    let shared = all.split_off(all.len() - 2);
    print_table("round robin", &all);
    print_table("shared", &shared);
    println!("cargo build --release --examples && cargo bench --bench node");
}

/// A primary with its workers.
struct Setup {
    name: String,
    primary: Primary,
    /// Who passes the connections on.
    pid: i32,
    /// How the daemon is ended, if there is one, and its home.
    end: Option<(Command, tempfile::TempDir)>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        if let Some((command, _)) = &mut self.end {
            let _ = command.status();
        }
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/node").join(name)
}

fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn dogwatch(balance: &str) -> Setup {
    let port = free_port();
    let (workers, app) = (WORKERS.to_string(), script("app.js"));
    let primary = Primary::start(
        port,
        &[
            "-n",
            &workers,
            "--handoff",
            "node",
            "--balance",
            balance,
            "--",
            "node",
            app.to_str().unwrap(),
            &port.to_string(),
        ],
    );
    let pid = primary.pid();
    Setup { name: "dogwatch".to_owned(), primary, pid, end: None }
}

fn cluster(policy: &str) -> Setup {
    let port = free_port();
    let mut command = Command::new("node");
    command.arg(script("cluster.js")).args([WORKERS.to_string(), port.to_string()]);
    let primary = Primary::run(port, command.env("NODE_CLUSTER_SCHED_POLICY", policy));
    let name = if policy == "rr" { "Node's cluster" } else { "Node's cluster, SCHED_NONE" };
    let pid = primary.pid();
    Setup { name: name.to_owned(), primary, pid, end: None }
}

/// PM2's cluster mode, where there is a PM2; its daemon has a home of its own.
fn pm2() -> Option<Setup> {
    let Some(program) = find_pm2() else {
        println!("skipped: pm2\n");
        return None;
    };
    let port = free_port();
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let pm2 = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).env("PM2_HOME", home.path()).env("HOME", home.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let version = said(pm2(&["--version"]).stdout(Stdio::piped()));
    let (workers, app) = (WORKERS.to_string(), script("app.js"));
    let app = app.to_str().unwrap();
    let primary = Primary::run(
        port,
        &mut pm2(&["start", app, "-i", &workers, "--no-autorestart", "--", &port.to_string()]),
    );
    let read = || std::fs::read_to_string(home.path().join("pm2.pid")).ok()?.trim().parse().ok();
    wait_until("PM2's daemon", Duration::from_millis(10), || read().is_some());
    let name = format!("PM2 {}", version.lines().last().unwrap_or_default());
    let pid = read().unwrap();
    let end = pm2(&["kill"]);
    Some(Setup { name, primary, pid, end: Some((end, home)) })
}

fn find_pm2() -> Option<PathBuf> {
    let named = std::env::var_os("DOGWATCH_PM2").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/node/node_modules/.bin");
    let folders = std::env::split_paths(&path).chain([target]);
    named.into_iter().chain(folders.map(|f| f.join("pm2"))).find(|file| file.is_file())
}

/// What a run of the load client has counted.
struct Counted {
    answers: u64,
    failures: u64,
    /// The connections of each worker, by its pid.
    spread: Vec<(i32, u64)>,
}

fn load(port: u16, clients: &str, requests: &str, seconds: &str) -> Counted {
    let output = Command::new(load_client())
        .arg(format!("127.0.0.1:{port}"))
        .args(["--clients", clients, "--requests", requests, "--seconds", seconds, "--tally"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let pairs = |line: &str| {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        words.chunks(2).map(|p| (p[0].clone(), p[1].parse().unwrap())).collect::<Vec<_>>()
    };
    let mut lines = text.lines().map(pairs);
    let kinds: Vec<(String, u64)> = lines.next().unwrap();
    let spread = lines.next().unwrap().into_iter();
    Counted {
        answers: kinds[0].1,
        failures: kinds[1..].iter().map(|(_, count)| count).sum(),
        spread: spread.map(|(pid, count)| (pid.parse().unwrap(), count)).collect(),
    }
}

/// The figures of one setup, one of each for each round.
struct Measured {
    setup: Setup,
    workers: Vec<i32>,
    connections: Vec<f64>,
    kept: Vec<f64>,
    /// Microseconds a connection.
    primary: Vec<f64>,
    primary_few: Vec<f64>,
    worker: Vec<f64>,
    /// Coefficient of variation, per cent.
    unevenness: Vec<f64>,
    failures: u64,
}

impl Measured {
    fn new(setup: Setup) -> Self {
        let none = Vec::new;
        Self {
            setup,
            workers: vec![],
            connections: none(),
            kept: none(),
            primary: none(),
            primary_few: none(),
            worker: none(),
            unevenness: none(),
            failures: 0,
        }
    }

    /// Waits for the workers, and lets them compile what they need.
    fn warm(&mut self, seconds: &str) {
        let port = self.setup.primary.port;
        wait_until("the workers", Duration::from_millis(10), || {
            // Not one of them has all: that would be the first of them to listen.
            load(port, MANY, "1", "1").spread.len() == WORKERS
        });
        self.workers = load(port, MANY, "1", seconds).spread.iter().map(|(pid, _)| *pid).collect();
        assert_eq!(self.workers.len(), WORKERS);
    }

    fn round(&mut self, times: &Times) {
        let seconds: f64 = times.each.parse().unwrap();
        let new = self.connect(MANY, times.each);
        self.connections.push(new.counted.answers as f64 / seconds);
        self.primary.push(new.primary);
        self.worker.push(new.worker);
        let few = self.connect(FEW, times.each);
        self.primary_few.push(few.primary);
        self.unevenness.push(variation(&few.counted.spread));
        let kept = load(self.setup.primary.port, MANY, REQUESTS_KEPT, times.each);
        self.kept.push(kept.answers as f64 / seconds);
        self.failures += new.counted.failures + few.counted.failures + kept.failures;
    }

    /// A connection for each request.
    fn connect(&self, clients: &str, seconds: &str) -> Connected {
        let spent = |pids: &[i32]| pids.iter().map(|pid| processor_time(*pid)).sum::<Duration>();
        let before = (spent(&[self.setup.pid]), spent(&self.workers));
        let counted = load(self.setup.primary.port, clients, "1", seconds);
        let primary = spent(&[self.setup.pid]) - before.0;
        let worker = spent(&self.workers) - before.1;
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / counted.answers as f64;
        Connected { primary: micros(primary), worker: micros(worker), counted }
    }
}

/// What connections have cost, in microseconds each.
struct Connected {
    counted: Counted,
    primary: f64,
    worker: f64,
}

/// Standard deviation by mean, per cent; a worker that is not there had nothing.
fn variation(spread: &[(i32, u64)]) -> f64 {
    let missing = std::iter::repeat_n(0.0, WORKERS.saturating_sub(spread.len()));
    let counts: Vec<f64> = spread.iter().map(|(_, count)| *count as f64).chain(missing).collect();
    let mean = counts.iter().sum::<f64>() / counts.len() as f64;
    let variance = counts.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / counts.len() as f64;
    variance.sqrt() / mean * 100.0
}

/// Ours is the first.
fn print_table(title: &str, all: &[Measured]) {
    let names: Vec<&str> = all.iter().map(|m| m.setup.name.as_str()).collect();
    println!("| {title} | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(all.len()));
    let row = |name: &str, values: fn(&Measured) -> &[f64], digits: usize, unit: &str| {
        let cell = |m: &Measured| format!("{:.digits$}{unit}", median(values(m).iter().copied()));
        let cells = all.iter().enumerate().map(|(at, peer)| {
            // Each round by itself: then a slow moment of the machine is in both.
            let pairs = values(&all[0]).iter().zip(values(peer));
            let ratio = median(pairs.map(|(ours, theirs)| ours / theirs));
            let is_peer = at > 0 && ratio.is_finite();
            if is_peer { format!("{} ({ratio:.2})", cell(peer)) } else { cell(peer) }
        });
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    };
    row("connections a second, one request each", |m| &m.connections, 0, "");
    row("requests a second, 20 a connection", |m| &m.kept, 0, "");
    row("the primary's CPU time for a connection", |m| &m.primary, 1, " µs");
    row("a worker's CPU time for a connection", |m| &m.worker, 1, " µs");
    row("the primary's, with 4 clients", |m| &m.primary_few, 1, " µs");
    row("variation of connections over the workers, with 4 clients", |m| &m.unevenness, 2, " %");
    let failures: Vec<String> = all.iter().map(|m| m.failures.to_string()).collect();
    println!("| requests failed | {} |\n", failures.join(" | "));
}
