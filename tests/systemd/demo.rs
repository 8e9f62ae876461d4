//! The session that README.md shows. It is held on every run; `RECORD=1` also writes it down, as docs/demo.cast
//! (asciicast v2) and docs/demo.svg, which plays it.

use super::docs;
use crate::boxed::Boxed;
use crate::support;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

/// What is typed: comments and commands.
const SESSION: [&str; 15] = [
    "# One file is a service.",
    "cat /etc/dogwatch/myapp.toml",
    "systemctl daemon-reload && systemctl start myapp && curl localhost:8080",
    "# A client that asks without a pause, and ends at the first failure.",
    "while curl -sf localhost:8080 >> answers; do :; done &",
    "# A deploy is a symlink and a reload.",
    "ln -sfn releases/2 /srv/myapp/current && dogwatch reload myapp && curl localhost:8080",
    "# A version that does not start:",
    "ln -sfn releases/3 /srv/myapp/current; dogwatch reload myapp || echo \"exit code $?\"",
    "curl localhost:8080",
    "# Kill the primary.",
    "systemctl kill -s KILL --kill-whom=main myapp; curl localhost:8080",
    "until journalctl -u myapp -o cat | grep 'took over'; do sleep 0.1; done",
    "# The client never noticed.",
    "jobs; wc -l < answers",
];

/// What has to be said in it, in this order.
const SAID: [&str; 8] = [
    "hello from pid",
    "reload done: generation 2",
    "good morning from pid",
    "cannot reload 'myapp'",
    "exit code 1",
    "good morning from pid",
    "took over from the last primary: 2 workers live",
    "Running",
];

const APP: &str = "command = [\"python3\", \"app.py\"]\nworking-directory = \"/srv/myapp/current\"\n\
                   workers = 2\nlisten = [\"8080\"]\nenabled = true\n";

/// How many letters a line has.
const WIDTH: usize = 120;

/// A line, and when it was there, in seconds.
struct Line {
    at: f64,
    is_typed: bool,
    text: String,
}

#[test]
fn what_the_readme_shows_happens() {
    let Some(root) = crate::boxed::root("trixie") else { return };
    let boxed = Boxed::boot(&root, |layer| {
        docs::as_a_package(layer);
        let file = layer.join("etc/dogwatch/myapp.toml");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, APP).unwrap();
        let hello = include_str!("../../examples/python/app.py");
        for (release, text) in [
            ("1", hello.to_owned()),
            ("2", hello.replace("hello", "good morning")),
            ("3", "import no_such_module\n".to_owned()),
        ] {
            let folder = layer.join("srv/myapp/releases").join(release);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("app.py"), text).unwrap();
        }
        std::os::unix::fs::symlink("releases/1", layer.join("srv/myapp/current")).unwrap();
    });
    let lines = hold(&boxed);
    let said: Vec<&str> =
        lines.iter().filter(|line| !line.is_typed).map(|line| line.text.as_str()).collect();
    let mut rest = said.iter();
    for wanted in SAID {
        assert!(rest.any(|line| line.contains(wanted)), "'{wanted}' in:\n{}", said.join("\n"));
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    if std::env::var_os("RECORD").is_some() {
        std::fs::write(docs.join("demo.cast"), cast(&lines)).unwrap();
        std::fs::write(docs.join("demo.svg"), svg(&lines)).unwrap();
    }
    let shown = std::fs::read_to_string(docs.join("demo.svg")).unwrap();
    for typed in SESSION {
        assert!(shown.contains(&escaped(typed)), "docs/demo.svg does not show '{typed}'");
    }
}

/// Types the session into a shell in the box.
fn hold(boxed: &Boxed) -> Vec<Line> {
    let command = "cd /root; export PYTHONUNBUFFERED=1; echo -sS > .curlrc; exec bash 2>&1";
    let mut shell =
        boxed.enter(command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut keyboard = shell.stdin.take().unwrap();
    let mut screen = BufReader::new(shell.stdout.take().unwrap()).lines();
    let mut lines = vec![];
    // Nobody reads for longer than this.
    let (mut clock, mut last) = (0.0, Instant::now());
    let mut pass = |least: f64| {
        let real = last.elapsed().as_secs_f64();
        last = Instant::now();
        clock += real.clamp(least, 1.2_f64.max(least));
        clock
    };
    for typed in SESSION {
        let (at, text) = (pass(0.7), typed.to_owned());
        lines.push(Line { at, is_typed: true, text });
        if typed.starts_with('#') {
            continue;
        }
        pass(0.4);
        writeln!(keyboard, "{typed}\necho END").unwrap();
        loop {
            let text = screen.next().expect("the shell goes on").unwrap();
            if text == "END" {
                break;
            }
            let at = pass(0.02);
            let letters: Vec<char> = text.chars().collect();
            for part in letters.chunks(WIDTH) {
                lines.push(Line { at, is_typed: false, text: part.iter().collect() });
            }
        }
    }
    drop(keyboard);
    support::wait_for("the shell's end", || shell.try_wait().unwrap());
    lines
}

/// The session in asciicast v2.
fn cast(lines: &[Line]) -> String {
    let head = serde_json::json!({ "version": 2, "width": WIDTH, "height": lines.len() + 1 });
    let mut text = format!("{head}\n");
    for line in lines {
        let mark = if line.is_typed && !line.text.starts_with('#') { "\u{1b}[1m$ " } else { "" };
        let colour = if line.text.starts_with('#') { "\u{1b}[36m" } else { "" };
        let shown = format!("{colour}{mark}{}\u{1b}[0m\r\n", line.text);
        let event = serde_json::json!([(line.at * 1e3).round() / 1e3, "o", shown]);
        writeln!(text, "{event}").unwrap();
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The session as a picture that plays it, again and again. Where nothing moves all of it is there.
fn svg(lines: &[Line]) -> String {
    const STEP: usize = 18;
    let (width, height) = (WIDTH * 8 + 32, lines.len() * STEP + 36);
    let total = lines.last().map_or(0.0, |line| line.at) + 6.0;
    let (mut rules, mut texts) = (String::new(), String::new());
    for (number, line) in lines.iter().enumerate() {
        let percent = line.at / total * 100.0;
        writeln!(
            rules,
            "@keyframes a{number}{{0%{{opacity:0}}{percent:.2}%,100%{{opacity:1}}}}#l{number}{{animation:a{number} {total:.1}s step-end infinite}}"
        )
        .unwrap();
        let class = match line.text.starts_with('#') {
            true => "comment",
            false if line.is_typed => "typed",
            false => "said",
        };
        let mark = if class == "typed" { "$ " } else { "" };
        let y = (number + 1) * STEP + 12;
        writeln!(
            texts,
            "<text id=\"l{number}\" class=\"{class}\" x=\"16\" y=\"{y}\">{mark}{}</text>",
            escaped(&line.text)
        )
        .unwrap();
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" xml:space=\"preserve\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n<style>\n\
         text{{font:13px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;white-space:pre;fill:#c8ccd4}}\n\
         .typed{{fill:#ffffff;font-weight:bold}}.comment{{fill:#6cb6c9}}\n{rules}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#1b1f27\"/>\n{texts}</svg>\n"
    )
}
