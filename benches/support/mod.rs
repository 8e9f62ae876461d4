//! What the benchmarks share: a primary to be measured, the load client, and waiting.
#![allow(dead_code, clippy::allow_attributes, reason = "each benchmark uses its part")]

use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing that is waited for takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether there is something to measure: `cargo test --benches` only wants to see that it builds.
pub(crate) fn is_meant() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

pub(crate) fn dogwatch() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_dogwatch"))
}

pub(crate) fn load_client() -> PathBuf {
    let path = dogwatch().with_file_name("examples").join("load");
    assert!(path.exists(), "first: cargo build --release --examples");
    path
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Looks again and again, with pauses: looking without one would take the processor that the primary needs.
pub(crate) fn wait_until(what: &str, pause: Duration, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(pause);
    }
}

/// The processor time that a process has had.
pub(crate) fn processor_time(pid: i32) -> Duration {
    clock_gettime(clock_getcpuclockid(Pid::from_raw(pid)).unwrap()).unwrap().into()
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A primary in the foreground, ended with this value.
pub(crate) struct Primary {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Primary {
    /// Starts `dogwatch run` on a port of 127.0.0.1.
    pub(crate) fn start(port: u16, arguments: &[&str]) -> Self {
        let listen = format!("127.0.0.1:{port}");
        let mut command = Command::new(dogwatch());
        Self::run(port, command.args(["run", "--name", "bench", "-l", &listen]).args(arguments))
    }

    /// Starts any primary.
    pub(crate) fn run(port: u16, command: &mut Command) -> Self {
        // As systemd's runtime directories: in memory.
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let child = command
            .env("RUNTIME_DIRECTORY", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, folder, port }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    /// The workers: all children but the keeper.
    pub(crate) fn children(&self) -> Vec<i32> {
        let pid = self.pid();
        let text =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let is_keeper = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(b"dogwatch: keeper")
        };
        let all = text.split_whitespace().filter_map(|pid| pid.parse().ok());
        all.filter(|pid| !is_keeper(pid)).collect()
    }

    pub(crate) fn status(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        std::thread::sleep(Duration::from_millis(200));
        let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
