//! What it costs and brings that the kernel is told who gets a connection: `steered`, in its policies, beside `shared`, the
//! rounds in turns so that drift hits all alike. Read the ratios, not the times.
//!
//! `cargo bench --bench balance` (Linux; CAP_BPF, else the classic program is measured; with `node`, a table of Node). Less
//! than three minutes; `-- short idle` and so on measures these tables alone. DOGWATCH_BESIDE names another build, whose
//! `steered` is measured beside.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "benchmarks spawn and time")]
#![expect(clippy::print_stdout, reason = "this is the result")]
#![expect(clippy::cast_precision_loss, reason = "ratios of small numbers")]

#[path = "balance/load.rs"]
mod load;
mod support;
#[path = "balance/worker.rs"]
mod worker;

use load::{Ask, Counted, Plan, Stalls, Until, ask};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Primary, dogwatch, free_port, median, processor_time, wait_until};

const MODES: [&str; 4] = ["shared", "steered", "steered:least-connections", "steered:client-ip"];

/// Between two rounds everything comes to rest.
const REST: Duration = Duration::from_millis(100);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == "worker") {
        return worker::serve(arguments[2].parse().unwrap());
    }
    if !support::is_meant() {
        return;
    }
    let tables: [(&str, fn()); 6] = [
        ("new", new),
        ("even", even),
        ("stalled", stalled),
        ("crowd", crowd),
        ("idle", idle),
        ("node", node),
    ];
    let is_asked = |name: &str| {
        let mut asked =
            arguments[1..].iter().filter(|argument| !argument.starts_with('-')).peekable();
        asked.peek().is_none() || asked.any(|argument| argument == name)
    };
    let processors = std::thread::available_parallelism().unwrap();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!(
        "{processors} processors, of which the client needs one; load before: {}",
        load.trim()
    );
    println!("medians, in brackets the least and the most; against `shared` in the same round\n");
    let began = Instant::now();
    for (_, table) in tables.iter().filter(|(name, _)| is_asked(name)) {
        table();
    }
    println!("`cargo bench --bench balance`, {} s", began.elapsed().as_secs());
}

/// A primary with its workers, and what was found in each round.
struct Setup {
    name: String,
    primary: Primary,
    rounds: Vec<Round>,
}

/// The figures of one round; latencies in milliseconds.
struct Round {
    rate: f64,
    mean: f64,
    median: f64,
    p99: f64,
    p999: f64,
    longest: f64,
    deviation: f64,
    /// How uneven the answers were spread over the workers: standard deviation by mean.
    unevenness: f64,
    /// Processor time of the primary, in milliseconds a second.
    primary: f64,
    failures: u64,
}

impl Setup {
    /// Workers of our own, that accept so many connections each time that they look.
    fn start(program: &Path, name: &str, balance: &str, workers: usize, at_once: &str) -> Self {
        let worker = std::env::current_exe().unwrap();
        let worker = [worker.to_str().unwrap(), "worker", at_once];
        Self::run(program, name, workers, &["--balance", balance, "--"], &worker)
    }

    fn run(program: &Path, name: &str, workers: usize, how: &[&str], worker: &[&str]) -> Self {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let workers = workers.to_string();
        let mut command = Command::new(program);
        command.args(["run", "--name", "bench", "-n", &workers, "-l", &listen]);
        command.args(how).args(worker).args(Some(port.to_string()).filter(|_| worker[0] == "node"));
        Self { name: name.to_owned(), primary: Primary::run(port, &mut command), rounds: vec![] }
    }

    /// Waits until all workers have come.
    fn settle(&self, workers: usize) {
        let pause = Duration::from_millis(10);
        wait_until("the workers", pause, || self.primary.children().len() == workers);
        let port = self.primary.port;
        wait_until("an answer", pause, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }

    fn round(&mut self, plan: &Plan, workers: usize) -> &Round {
        std::thread::sleep(REST);
        let pid = self.primary.pid();
        let (spent, began) = (processor_time(pid), Instant::now());
        let counted = ask(self.primary.port, plan);
        let spent = (processor_time(pid) - spent).as_secs_f64() * 1000.0;
        self.rounds.push(Round::new(&counted, workers, spent / began.elapsed().as_secs_f64()));
        &self.rounds[self.rounds.len() - 1]
    }
}

impl Round {
    fn new(counted: &Counted, workers: usize, primary: f64) -> Self {
        let times: Vec<f64> = counted.latencies.iter().map(|time| time * 1000.0).collect();
        let part = |part: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
            let at = (times.len() as f64 * part) as usize;
            times[at.min(times.len() - 1)]
        };
        let (mean, deviation) = spread(&times);
        let mut answers: Vec<f64> = counted.spread.values().map(|count| *count as f64).collect();
        // Who is not there had nothing.
        answers.resize(workers.max(answers.len()), 0.0);
        let (each, differ) = spread(&answers);
        Self {
            rate: counted.rate,
            mean,
            median: part(0.5),
            p99: part(0.99),
            p999: part(0.999),
            longest: part(1.0),
            deviation,
            unevenness: differ / each,
            primary,
            failures: counted.failures,
        }
    }
}

/// Mean and standard deviation.
fn spread(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// All modes, with so many workers each.
fn all(workers: usize, at_once: &str) -> Vec<Setup> {
    let start = |mode| Setup::start(dogwatch(), mode, mode, workers, at_once);
    let mut all: Vec<Setup> = MODES.into_iter().map(start).collect();
    if let Some(other) = std::env::var_os("DOGWATCH_BESIDE") {
        let start = |mode: &str| {
            Setup::start(Path::new(&other), &format!("{mode} beside"), mode, workers, at_once)
        };
        all.extend(MODES[1..3].iter().map(|mode| start(mode)));
    }
    all.iter().for_each(|setup| setup.settle(workers));
    all
}

fn rounds(all: &mut [Setup], workers: usize, rounds: usize, plan: &Plan) {
    for setup in all.iter_mut() {
        setup.rounds.clear();
    }
    for round in 0..rounds {
        // Who comes first is another each time.
        let first = round % all.len();
        for at in (first..all.len()).chain(0..first) {
            let mut plan = plan.clone();
            if let Some(stalls) = &mut plan.stalls {
                stalls.pids = all[at].primary.children();
                stalls.seed = round as u64;
            }
            all[at].round(&plan, workers);
        }
    }
}

/// How a figure is shown: with so many digits, against the first in the same round, or as it is.
type Row = (&'static str, usize, bool, fn(&Round) -> f64);

const RATE: Row = ("answers a second", 0, true, |round| round.rate);
const MEAN: Row = ("mean, ms", 2, true, |round| round.mean);
const MEDIAN: Row = ("median, ms", 2, true, |round| round.median);
const P99: Row = ("p99, ms", 2, true, |round| round.p99);
const P999: Row = ("p999, ms", 2, true, |round| round.p999);
const LONGEST: Row = ("maximum, ms", 1, true, |round| round.longest);
const DEVIATION: Row = ("standard deviation, ms", 2, true, |round| round.deviation);
const UNEVENNESS: Row = ("variation over the workers", 4, false, |round| round.unevenness);
const PRIMARY: Row = ("the primary's CPU time, ms a second", 1, false, |round| round.primary);

fn print_table(title: &str, all: &[Setup], rows: &[Row]) {
    let names: Vec<&str> = all.iter().map(|setup| setup.name.as_str()).collect();
    println!("| {title} | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(all.len()));
    for (name, digits, is_ratio, figure) in rows {
        let cells = all.iter().enumerate().map(|(at, setup)| {
            let absolute = || setup.rounds.iter().map(figure);
            if !is_ratio {
                return show(absolute().collect(), *digits);
            }
            if at == 0 {
                return format!("{:.digits$}", median(absolute()));
            }
            // Each round by itself: then a slow moment of the machine is in both.
            show(
                absolute().zip(&all[0].rounds).map(|(own, first)| own / figure(first)).collect(),
                2,
            )
        });
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    let failures = all.iter().map(|setup| setup.rounds.iter().map(|round| round.failures).sum());
    let failures: Vec<u64> = failures.collect();
    if failures.iter().any(|count| *count > 0) {
        println!("| requests failed | {failures:?} |");
    }
    println!();
}

fn show(mut values: Vec<f64>, digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    format!("{:.digits$} ({least:.digits$}–{most:.digits$})", median(values))
}

fn plan(clients: usize, ask: Ask, milliseconds: u64) -> Plan {
    let until = Until::Time(Duration::from_millis(milliseconds));
    Plan { clients, ask, until, think: Duration::ZERO, stalls: None }
}

/// New connections, and kept ones.
fn new() {
    let mut all = all(4, "64");
    rounds(&mut all, 4, 1, &plan(16, Ask::Anew, 300));
    rounds(&mut all, 4, 9, &plan(16, Ask::Anew, 700));
    let title = "4 workers, 16 clients, a connection for each request";
    print_table(title, &all, &[RATE, P99, P999, UNEVENNESS, PRIMARY]);
    rounds(&mut all, 4, 5, &plan(16, Ask::Kept, 500));
    print_table("the same, kept connections", &all, &[RATE, P99, P999, UNEVENNESS, PRIMARY]);
}

/// How evenly workers share the work.
fn even() {
    let mut all = all(8, "64");
    let short = Plan { until: Until::Connections(4000), ..plan(32, Ask::Anew, 0) };
    rounds(&mut all, 8, 5, &short);
    print_table("8 workers, 4000 short connections", &all, &[UNEVENNESS, RATE]);
    rounds(&mut all, 8, 5, &plan(400, Ask::Held, 5000));
    print_table("8 workers, 400 connections at once that stay", &all, &[UNEVENNESS, RATE]);
}

/// Somebody stalls for 200 ms, twice a second.
fn stalled() {
    let mut all = all(4, "64");
    let stalls = Stalls { every: Duration::from_millis(500), pids: vec![], seed: 0 };
    let think = Duration::from_millis(3);
    let plan = Plan { think, stalls: Some(stalls), ..plan(16, Ask::Anew, 2800) };
    rounds(&mut all, 4, 4, &plan);
    let title = "4 workers, of which one stalls 200 ms twice a second, 16 clients that think 3 ms";
    print_table(title, &all, &[RATE, P99, P999, LONGEST, PRIMARY]);
}

/// As in Cloudflare's 'Why does one NGINX worker take all the load?': 12 workers that accept one connection each time that
/// they look, 200 connections.
fn crowd() {
    let mut all = all(12, "1");
    let rows = [RATE, MEAN, MEDIAN, P99, LONGEST, DEVIATION, UNEVENNESS, PRIMARY];
    rounds(&mut all, 12, 4, &plan(200, Ask::Anew, 1000));
    print_table("12 workers, 200 clients, a connection for each request", &all, &rows);
    rounds(&mut all, 12, 4, &plan(200, Ask::Kept, 1000));
    print_table("12 workers, 200 clients, kept connections", &all, &rows);
}

/// The primary without traffic, after there was some.
fn idle() {
    let time = Duration::from_secs(5);
    let mut all = all(8, "64");
    rounds(&mut all, 8, 1, &plan(16, Ask::Anew, 200));
    std::thread::sleep(Duration::from_secs(2));
    let wakeups = |setup: &Setup| setup.primary.status("voluntary_ctxt_switches");
    let before: Vec<u64> = all.iter().map(wakeups).collect();
    std::thread::sleep(time);
    println!("| the primary with 8 workers, without traffic | wake-ups in {} s |", time.as_secs());
    println!("|---|---|");
    for (setup, before) in all.iter().zip(before) {
        println!("| {} | {} |", setup.name, wakeups(setup) - before);
    }
    println!();
}

/// Node, whose primary passes connections by turns unless it is told otherwise.
fn node() {
    if !Command::new("node").arg("--version").output().is_ok_and(|said| said.status.success()) {
        return println!("skipped: node\n");
    }
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/node/app.js");
    let start = |balance| {
        let how = ["--handoff", "node", "--balance", balance, "--"];
        Setup::run(dogwatch(), balance, 4, &how, &["node", app.to_str().unwrap()])
    };
    let mut all: Vec<Setup> = ["shared", "round-robin", "steered"].into_iter().map(start).collect();
    all.iter().for_each(|setup| setup.settle(4));
    // V8 compiles what is called often.
    rounds(&mut all, 4, 2, &plan(16, Ask::Anew, 1500));
    rounds(&mut all, 4, 5, &plan(16, Ask::Anew, 800));
    let title = "4 Node workers, 16 clients, a connection for each request";
    print_table(title, &all, &[RATE, P99, P999, UNEVENNESS, PRIMARY]);
}
