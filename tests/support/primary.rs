//! The real binary with a fake systemd: hand-made `LISTEN_FDS`, a notify socket that the test reads, and its standard
//! error line by line.

use crate::support::{PATIENCE, dogwatch, wait_for};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

/// A primary under test, with what it says.
pub(crate) struct Primary {
    child: Option<Child>,
    pub(crate) folder: tempfile::TempDir,
    systemd: UnixDatagram,
    lines: Receiver<String>,
    /// Everything that it has said so far, for the message of a failure.
    pub(crate) said: String,
    pub(crate) address: SocketAddr,
}

/// How to start one.
pub(crate) struct Setup {
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    listener: Option<TcpListener>,
    address: SocketAddr,
}

impl Setup {
    /// `dogwatch run ARGUMENTS`, with a TCP socket passed as `web`.
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
            environment: vec![],
            wrapper: vec![],
            address: listener.local_addr().unwrap(),
            listener: Some(listener),
        }
    }

    /// The built-in worker with these flags, after the given ones of `run`.
    pub(crate) fn demo(run: &[&str], worker: &[&str]) -> Self {
        let program = dogwatch().to_str().unwrap();
        Self::new(&[run, &["--", program, "demo-worker"], worker].concat())
    }

    /// A shell script as the worker.
    pub(crate) fn script(run: &[&str], script: &str) -> Self {
        Self::new(&[run, &["--", "/bin/sh", "-c", script]].concat())
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A program that executes the primary, as prlimit(1) does.
    pub(crate) fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|a| (*a).to_owned()).collect();
        self
    }

    /// Adds arguments, once the folder is known.
    pub(crate) fn arguments(mut self, more: &[&str]) -> Self {
        let more = more.iter().map(|a| (*a).to_owned());
        self.arguments.splice(0..0, more);
        self
    }

    /// Adds arguments at the end.
    pub(crate) fn arguments_after(mut self, more: &[&str]) -> Self {
        self.arguments.extend(more.iter().map(|a| (*a).to_owned()));
        self
    }

    /// Passes no socket: what there is to listen on, the primary opens; [`Self::port`] is free.
    pub(crate) fn passing_nothing(mut self) -> Self {
        self.listener = None;
        self.address.set_port(free_port());
        self
    }

    /// The port of the socket that is passed.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn start(self) -> Primary {
        let passed = self.listener.map(OwnedFd::from);
        let socket = self.folder.path().join("systemd");
        let systemd = UnixDatagram::bind(&socket).unwrap();
        systemd.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut script = "export WATCHDOG_PID=$$; exec \"$@\"".to_owned();
        if let Some(passed) = &passed {
            // Inheritable; the shell moves it to 3, and knows its own pid.
            fcntl(passed, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            let number = passed.as_raw_fd();
            script = format!(
                "[ {number} = 3 ] || exec 3<&{number} {number}<&-; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; {script}"
            );
        }
        let mut command = Command::new("bash");
        command
            .args(["-c", &script, "bash"])
            .args(&self.wrapper)
            .arg(dogwatch())
            .arg("run")
            .args(&self.arguments);
        command
            .env("NOTIFY_SOCKET", &socket)
            .env("RUNTIME_DIRECTORY", self.folder.path())
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::inherit())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(passed);
        let (sender, lines) = channel();
        let stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Primary {
            child: Some(child),
            folder: self.folder,
            systemd,
            lines,
            said: String::new(),
            address: self.address,
        }
    }
}

impl Primary {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.as_ref().unwrap().id()).unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for a line on standard error that contains `text`, and returns it.
    pub(crate) fn says(&mut self, text: &str) -> String {
        self.says_one_of(&[text])
    }

    /// Waits for a line on standard error for each of these texts, in whatever order they come.
    pub(crate) fn says_all(&mut self, texts: &[&str]) {
        let mut left = texts.to_vec();
        while !left.is_empty() {
            let line = self.says_one_of(&left);
            left.retain(|text| !line.contains(text));
        }
    }

    fn says_one_of(&mut self, texts: &[&str]) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let _ = writeln!(self.said, "{line}");
                    if texts.iter().any(|text| line.contains(text)) {
                        return line;
                    }
                }
                Err(_) => panic!("it never said {texts:?}, but:\n{}", self.said),
            }
        }
    }

    /// Waits for a message to systemd that contains `text`, and returns it.
    pub(crate) fn tells_systemd(&self, text: &str) -> String {
        let mut heard = String::new();
        let mut buffer = [0; 4096];
        loop {
            let Ok(length) = self.systemd.recv(&mut buffer) else {
                panic!("it never told systemd '{text}', but:\n{heard}\nand said\n{}", self.said)
            };
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.contains(text) {
                return message;
            }
            heard.push_str(&message);
        }
    }

    /// Waits for a message to systemd that contains `text`, and returns everything up to it.
    pub(crate) fn told_systemd_until(&self, text: &str) -> String {
        let mut heard = String::new();
        let mut buffer = [0; 4096];
        while !heard.contains(text) {
            let length = self.systemd.recv(&mut buffer).expect(text);
            heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        heard
    }

    /// Returns what was told systemd and not read yet.
    pub(crate) fn told_systemd(&self) -> Vec<String> {
        self.systemd.set_nonblocking(true).unwrap();
        let mut messages = vec![];
        let mut buffer = [0; 4096];
        while let Ok(length) = self.systemd.recv(&mut buffer) {
            messages.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        self.systemd.set_nonblocking(false).unwrap();
        messages
    }

    pub(crate) fn is_ready(&self) {
        self.tells_systemd("READY=1");
    }

    /// Asks for a path and returns the body of the answer.
    pub(crate) fn get(&self, path: &str) -> String {
        get(self.address, path)
    }

    /// Waits for its end and returns how that was, with all that it said.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let mut child = self.child.take().unwrap();
        let status = wait_for("its end", || child.try_wait().unwrap());
        while let Ok(line) = self.lines.recv() {
            let _ = writeln!(self.said, "{line}");
        }
        (status, std::mem::take(&mut self.said))
    }

    /// Stops it as systemd does; that must be a success.
    pub(crate) fn stop(self) -> String {
        self.signal(Signal::SIGTERM);
        let (status, said) = self.ended();
        assert_eq!(status.code(), Some(0), "{said}");
        said
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Its workers end with it: they asked for that (PR_SET_PDEATHSIG).
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port that nobody has, and that the kernel gives nobody who asks for any.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() * 16 % 10_000;
    loop {
        let next = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(20_000 + (first + next) % 10_000).unwrap();
        if TcpListener::bind(("::", port)).is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            return port;
        }
    }
}

/// Asks for a path and returns the body of the answer.
pub(crate) fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}
