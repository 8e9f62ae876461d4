//! What the tests above the core share: finding programs, waiting for events with a bound, and a skip that CI refuses.
#![allow(dead_code, clippy::allow_attributes, reason = "each test binary uses its part")]

pub(crate) mod carry;
pub(crate) mod control;
pub(crate) mod docs;
pub(crate) mod init;
pub(crate) mod manager;
pub(crate) mod node;
pub(crate) mod packages;
pub(crate) mod primary;
pub(crate) mod store;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// No wait in a test is longer; it bounds a failure, it is not a measure of time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test.
pub(crate) fn dogwatch() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_dogwatch"))
}

/// The load client, which is built with the tests as an example.
pub(crate) fn load_client() -> PathBuf {
    dogwatch().with_file_name("examples").join("load")
}

/// The server without any code for its end, which is built with the tests as an example.
pub(crate) fn abrupt() -> PathBuf {
    dogwatch().with_file_name("examples").join("abrupt")
}

/// Says what is missing, and fails where nothing may be missing (CI=true).
pub(crate) fn skip(what: &str) -> bool {
    assert!(std::env::var_os("CI").is_none(), "skipped: {what}; in CI nothing may be skipped");
    eprintln!("skipped: {what}");
    true
}

/// Returns the program's path, if it is installed.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Returns Node of this version, which `tests/node/install` brings as a package of npm's.
pub(crate) fn node(version: u32) -> Option<PathBuf> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/node/node_modules");
    let found = ["x64", "arm64"]
        .map(|arch| packages.join(format!("node{version}-{arch}/bin/node")))
        .into_iter()
        .find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("Node {version} (made by tests/node/install)"));
    }
    found
}

/// Writes a shell script that can be started.
pub(crate) fn put_program(path: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder");
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).expect("a script");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("executable");
}

/// Asks again and again until there is an answer.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The counts of a run of the load client.
#[derive(Debug)]
pub(crate) struct Counts(pub(crate) String);

impl Counts {
    /// How many were answered.
    pub(crate) fn ok(&self) -> u64 {
        self.0.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    /// How many failed in some way.
    pub(crate) fn failures(&self) -> u64 {
        let numbers = self.0.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        numbers.skip(1).sum()
    }

    /// Every request was answered, and there were at least `least`.
    pub(crate) fn assert_clean(&self, least: u64) {
        let words: Vec<&str> = self.0.split_whitespace().collect();
        let ok: u64 = words.get(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        let failures: String = words.iter().skip(2).copied().collect::<Vec<_>>().join(" ");
        assert_eq!(failures, "refused 0 reset 0 short 0 timeout 0 other 0", "after {ok} answers");
        assert!(ok >= least, "only {ok} answers");
    }
}

/// A load client that runs until it is asked for its counts.
pub(crate) struct Load {
    child: Child,
    lines: Receiver<String>,
}

/// What the client says when it has been answered for the first time.
const BEGUN: &str = "begun";

impl Load {
    /// Starts it; it is at it at some time.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the load client starts");
        let stdout = child.stdout.take().expect("it is a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// Waits until it has been answered: what is done from now on is done under load. For a service that is up.
    pub(crate) fn begun(self) -> Self {
        let line = self.lines.recv_timeout(PATIENCE);
        assert_eq!(line.as_deref(), Ok(BEGUN), "the load client was never answered");
        self
    }

    pub(crate) fn stop(mut self) -> Counts {
        // Closing its standard input ends it.
        drop(self.child.stdin.take());
        let lines: Vec<String> = self.lines.iter().filter(|line| line != BEGUN).collect();
        self.child.wait().expect("it ends");
        Counts(lines.join("\n").trim().to_owned())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Nothing of that matters to one that was stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
