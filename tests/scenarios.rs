//! Every file in `tests/scenarios/` is one promise: events and the exact actions that answer them.
//!
//! ```text
//! # What is promised.
//! slots 2, settle 1s                 the settings that differ from the defaults
//!   spawn w1 slot 0 generation 1     an action, indented
//! > ready w1                         an event
//! > after 10s                        time passes, deadline by deadline
//! = 2 workers ready, generation 1    what STATUS= says
//! ```
//!
//! `BLESS=1 cargo test --test scenarios` writes what happens into the files; review it in the diff.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use dogwatch::core::{
    Action, Event, Evidence, How, Outcome, Policy, Scale, Slot, Supervisor, Time, Why, WorkerId,
};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

#[test]
fn every_scenario_holds() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 40, "only {} scenarios", files.len());
    let mut wrong = String::new();
    for file in &files {
        let expected = std::fs::read_to_string(file).unwrap();
        let actual = play(&expected);
        if actual != expected && std::env::var_os("BLESS").is_some() {
            std::fs::write(file, &actual).unwrap();
        } else if actual != expected {
            let _ = writeln!(wrong, "--- {}\n{}", file.display(), diff(&expected, &actual));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Returns the scenario with the actions that really happen.
fn play(script: &str) -> String {
    let mut out = String::new();
    let mut sup: Option<Supervisor> = None;
    let mut now = Time::from_secs(1000);
    // A reload that says nothing of slots leaves their number as it was.
    let mut slots = 1;
    for line in script.lines().filter(|l| !l.starts_with("  ")) {
        let _ = writeln!(out, "{}", if line.starts_with('=') { "" } else { line });
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some(sup) = &mut sup else {
            let policy = settings(line, Policy::default());
            slots = policy.slots;
            let mut new = Supervisor::new(policy, 0, now);
            drain(&mut new, &mut out);
            sup = Some(new);
            continue;
        };
        if line.starts_with('=') {
            out.pop();
            let _ = writeln!(out, "= {}", sup.status());
        } else if let Some(time) = line.strip_prefix("> after ") {
            pass(sup, &mut now, duration(time), &mut out);
        } else {
            let event = event(
                slots,
                line.strip_prefix("> ").unwrap_or_else(|| panic!("not a line: {line}")),
            );
            if let Some(refusal) = sup.refusal(&event) {
                let _ = writeln!(out, "  refused: {refusal}");
            }
            sup.handle(event, now);
            drain(sup, &mut out);
        }
    }
    out
}

fn pass(sup: &mut Supervisor, now: &mut Time, time: Duration, out: &mut String) {
    let until = *now + time;
    while let Some(due) = sup.poll_timeout().filter(|due| *due <= until) {
        *now = due.max(*now);
        sup.handle(Event::Tick, *now);
        drain(sup, out);
    }
    *now = until;
}

fn drain(sup: &mut Supervisor, out: &mut String) {
    while let Some(action) = sup.poll_action() {
        let _ = match action {
            Action::Spawn { worker, slot, generation } => {
                writeln!(out, "  spawn w{worker} slot {slot} generation {generation}")
            }
            Action::Admit(w) => writeln!(out, "  admit w{w}"),
            Action::Withdraw(w) => writeln!(out, "  withdraw w{w}"),
            Action::Terminate { worker, why: Why::Leave } => writeln!(out, "  terminate w{worker}"),
            Action::Terminate { worker, why: Why::Failed } => {
                writeln!(out, "  terminate w{worker} failed")
            }
            Action::Terminate { worker, why: Why::Hung } => {
                writeln!(out, "  terminate w{worker} hung")
            }
            Action::Terminate { worker, why: Why::Leftovers } => {
                writeln!(out, "  terminate w{worker} leftovers")
            }
            Action::Kill(w) => writeln!(out, "  kill w{w}"),
            Action::Forget(generation) => writeln!(out, "  forget generation {generation}"),
            Action::Report(report) => writeln!(out, "  report {report}"),
            Action::Exit(Outcome::Stopped) => writeln!(out, "  exit stopped"),
            Action::Exit(Outcome::Failed) => writeln!(out, "  exit failed"),
        };
    }
}

/// `slots 2, settle 1s, limit 3 within 10s`
fn settings(line: &str, mut policy: Policy) -> Policy {
    for item in line.split(", ") {
        let (key, value) = item.split_once(' ').unwrap_or_else(|| panic!("not a setting: {item}"));
        match key {
            "slots" => policy.slots = value.parse().unwrap(),
            "min" => policy.ready_min = Some(value.parse().unwrap()),
            "surge" => policy.surge = value.parse().unwrap(),
            "canary" => policy.canary = Some(value.parse().unwrap()),
            "canary-time" => policy.canary_time = Some(duration(value)),
            "ready-timeout" => policy.ready_timeout = duration(value),
            "settle" => policy.settle = duration(value),
            "drain" => policy.drain = duration(value),
            "stop-timeout" => policy.stop_timeout = duration(value),
            "heartbeat" => policy.heartbeat = Some(duration(value)),
            "limit" => {
                let (count, within) = value.split_once(" within ").unwrap();
                policy.limit_count = count.parse().unwrap();
                policy.limit_within = duration(within);
            }
            _ => panic!("unknown setting {key}"),
        }
    }
    policy
}

fn event(slots: u16, text: &str) -> Event {
    let words: Vec<&str> = text.split(' ').collect();
    let worker = |n: usize| WorkerId(words[n].strip_prefix('w').unwrap().parse().unwrap());
    let slot = |n: usize| Slot(words[n].parse().unwrap());
    match words[0] {
        "ready" => Event::Ready { worker: worker(1), evidence: Evidence::Notify },
        "exited" | "left" => Event::Exited {
            worker: worker(1),
            how: How::Exited(words.get(2).map_or(0, |s| s.parse().unwrap())),
            left: words[0] == "left",
        },
        "signaled" => Event::Exited {
            worker: worker(1),
            how: How::Signaled(words[2].parse().unwrap()),
            left: false,
        },
        "emptied" => Event::Emptied(worker(1)),
        "spawn-failed" | "spawn-starved" => Event::SpawnFailed {
            worker: worker(1),
            reason: words[2..].join(" "),
            transient: words[0] == "spawn-starved",
        },
        "drained" => Event::Drained(worker(1)),
        "leaving" => Event::Leaving(worker(1)),
        "heartbeat" => Event::Heartbeat(worker(1)),
        "more-time" => Event::MoreTime { worker: worker(1), time: duration(words[2]) },
        "reload" => {
            let policy = Policy { slots, ..Policy::default() };
            let line = words[1..].join(" ");
            Event::Reload { policy: if line.is_empty() { policy } else { settings(&line, policy) } }
        }
        "scale" => Event::Scale(match words[1].parse::<i32>().unwrap() {
            by if words[1].starts_with(['+', '-']) => Scale::By(by),
            to => Scale::To(u16::try_from(to).unwrap()),
        }),
        "restart" => Event::Restart(words.get(1).map(|_| slot(1))),
        "stop-slot" => Event::StopSlot(slot(1)),
        "start-slot" => Event::StartSlot(slot(1)),
        "pause" => Event::Pause,
        "resume" => Event::Resume,
        "reset" => Event::Reset(words.get(1).map(|_| slot(1))),
        "promote" => Event::Promote,
        "undo" => Event::Undo,
        "stop" => Event::Stop,
        "hurry" => Event::Hurry,
        "tick" => Event::Tick,
        other => panic!("unknown event {other}"),
    }
}

fn duration(text: &str) -> Duration {
    match text.strip_suffix("ms") {
        Some(ms) => Duration::from_millis(ms.parse().unwrap()),
        None => Duration::from_secs(text.strip_suffix('s').unwrap().parse().unwrap()),
    }
}

/// The first line that differs, with what stands around it.
fn diff(expected: &str, actual: &str) -> String {
    let (e, a): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let at = (0..e.len().max(a.len())).find(|i| e.get(*i) != a.get(*i)).unwrap_or(0);
    let from = at.saturating_sub(4);
    let show = |lines: &[&str]| {
        lines.iter().skip(from).take(8).map(|l| format!("    {l}\n")).collect::<String>()
    };
    format!("line {}\n  expected\n{}  happens\n{}", at + 1, show(&e), show(&a))
}
