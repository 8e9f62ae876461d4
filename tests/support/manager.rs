//! A service manager in miniature: it starts a primary as often as it dies, with the socket and what is in the FD store
//! of the unit, as systemd does with `Restart=`, `KillMode=process`, `NotifyAccess=main` and `NonBlocking=yes`.

use crate::support::init::{below_an_init, place, read_number};
use crate::support::primary::{free_port, get};
use crate::support::store::{BARRIER, END, Shared, State, Stored, owned, read};
use crate::support::{PATIENCE, dogwatch, wait_for};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::PassCred;
use nix::unistd::Pid;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, PipeReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// In the environment of the primary and so of its workers: the folder, which tells ours from all others.
const MARKER: &str = "DOGWATCH_TEST";
/// The unit's file, so to say.
pub(crate) struct Unit {
    folder: tempfile::TempDir,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// For the first primary alone.
    first: Option<(String, String)>,
    listener: Option<TcpListener>,
    /// What is passed beside it, with its names.
    more: Vec<(String, OwnedFd)>,
    address: SocketAddr,
    blocking: bool,
    store_max: Option<usize>,
    alone: bool,
}

impl Unit {
    /// `dogwatch run ARGUMENTS`, with a TCP socket passed as `web`.
    pub(crate) fn new(arguments: &[&str]) -> Self {
        Self::program(dogwatch(), &[&["run"], arguments].concat())
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

    /// Anything in place of dogwatch.
    pub(crate) fn program(program: &Path, arguments: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            program: program.to_owned(),
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
            environment: vec![],
            first: None,
            address: listener.local_addr().unwrap(),
            listener: Some(listener),
            more: vec![],
            blocking: false,
            store_max: None,
            alone: false,
        }
    }

    /// More arguments, before those that are there.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        let own = arguments.iter().map(|a| (*a).to_owned());
        let at = usize::from(self.program == dogwatch());
        self.arguments.splice(at..at, own);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A variable for the first primary, and its workers, alone.
    pub(crate) fn env_once(mut self, name: &str, value: &str) -> Self {
        self.first = Some((name.to_owned(), value.to_owned()));
        self
    }

    /// No socket is passed; `address` is one that nobody has.
    pub(crate) fn nothing(mut self) -> Self {
        self.listener = None;
        self.address.set_port(free_port());
        self
    }

    /// No socket is passed; this is what it will listen on.
    pub(crate) fn at(mut self, address: SocketAddr) -> Self {
        (self.listener, self.address) = (None, address);
        self
    }

    /// These sockets are passed, and no others, at this address.
    pub(crate) fn passing(mut self, address: SocketAddr, sockets: Vec<(String, OwnedFd)>) -> Self {
        (self.listener, self.more, self.address) = (None, sockets, address);
        self
    }

    /// `NonBlocking=no`, which is systemd's default: `O_NONBLOCK` of the socket is cleared at every start.
    pub(crate) fn blocking(mut self) -> Self {
        self.blocking = true;
        self
    }

    /// `FileDescriptorStoreMax=`, told in `$FDSTORE` as systemd 254 does; without, it is 512 and not told.
    pub(crate) fn store_max(mut self, max: usize) -> Self {
        self.store_max = Some(max);
        self
    }

    /// No service manager: nobody is told anything, and nothing is stored.
    pub(crate) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// The folder that is `RUNTIME_DIRECTORY`.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The manager of this unit, with a primary that was started.
    pub(crate) fn start(self) -> Manager {
        let mut manager = Manager::new(self);
        manager.start();
        manager
    }
}

/// A primary, and the process above it that reaps its orphans.
struct Life {
    init: Child,
    pid: Pid,
    /// The status as wait(2) has it, once it is dead.
    report: PipeReader,
}

/// The manager, with its unit.
pub(crate) struct Manager {
    unit: Unit,
    shared: Arc<Shared>,
    socket: Arc<UnixDatagram>,
    reader: Option<JoinHandle<()>>,
    sender: Sender<(usize, String)>,
    lines: Receiver<(usize, String)>,
    /// How many primaries were started.
    pub(crate) lives: usize,
    life: Option<Life>,
    /// Those of earlier primaries; each ends when it has no children any more.
    inits: Vec<Child>,
    /// How many messages of this life `tells` is past.
    heard: usize,
    /// Everything that the primaries have said so far, for the message of a failure.
    pub(crate) said: String,
    pub(crate) address: SocketAddr,
    /// systemd gives what is stored newest first, until it has written its state down and read it again.
    pub(crate) oldest_first: bool,
}

impl Manager {
    pub(crate) fn new(unit: Unit) -> Self {
        let socket = UnixDatagram::bind(unit.folder().join("systemd")).unwrap();
        setsockopt(&socket, PassCred, &true).unwrap();
        let socket = Arc::new(socket);
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                main: None,
                told: vec![],
                store: vec![],
                store_max: unit.store_max.unwrap_or(512),
                refused: vec![],
                errors: vec![],
                barriers: 0,
            }),
            changed: Condvar::new(),
        });
        let (its_socket, its_shared) = (Arc::clone(&socket), Arc::clone(&shared));
        let reader = std::thread::spawn(move || while read(&its_socket, &its_shared) {});
        let (sender, lines) = channel();
        Self {
            address: unit.address,
            unit,
            shared,
            socket,
            reader: Some(reader),
            sender,
            lines,
            lives: 0,
            life: None,
            inits: vec![],
            heard: 0,
            said: String::new(),
            oldest_first: false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// The state when all that was sent before has been read.
    fn now(&self) -> MutexGuard<'_, State> {
        let before = self.state().barriers;
        self.say_to_itself(BARRIER);
        let end = Instant::now() + PATIENCE;
        let mut state = self.state();
        while state.barriers == before {
            assert!(Instant::now() < end, "the notify socket is not read");
            state = self.shared.changed.wait_timeout(state, PATIENCE).unwrap().0;
        }
        state.forget_hung_up();
        state
    }

    fn say_to_itself(&self, message: &[u8]) {
        let own = UnixDatagram::unbound().unwrap();
        own.send_to(message, self.unit.folder().join("systemd")).unwrap();
    }

    /// Starts a primary with the socket and what is stored.
    pub(crate) fn start(&mut self) {
        assert!(self.life.is_none(), "the primary before was not waited for");
        let mut state = self.now();
        let mut names: Vec<&str> = vec![];
        let mut sources = vec![];
        if let Some(listener) = &self.unit.listener {
            let flag = if self.unit.blocking { OFlag::empty() } else { OFlag::O_NONBLOCK };
            fcntl(listener, FcntlArg::F_SETFL(flag)).unwrap();
            names.push("web");
            sources.push(listener.as_fd());
        }
        for (name, socket) in &self.unit.more {
            let flag = if self.unit.blocking { OFlag::empty() } else { OFlag::O_NONBLOCK };
            fcntl(socket, FcntlArg::F_SETFL(flag)).unwrap();
            names.push(name);
            sources.push(socket.as_fd());
        }
        let from_socket = sources.len();
        for stored in &state.store {
            names.push(&stored.name);
            sources.push(stored.descriptor.as_fd());
        }
        if !self.oldest_first {
            names[from_socket..].reverse();
            sources[from_socket..].reverse();
        }
        let first_free = 3 + RawFd::try_from(sources.len()).unwrap();
        let raised: Vec<OwnedFd> = sources
            .iter()
            .map(|source| fcntl(source, FcntlArg::F_DUPFD_CLOEXEC(first_free)).unwrap())
            .map(owned)
            .collect();
        let mut command = self.command();
        if !names.is_empty() {
            command
                .env("LISTEN_FDS", names.len().to_string())
                .env("LISTEN_FDNAMES", names.join(":"));
        }
        let (mut report, to_report) = std::io::pipe().unwrap();
        // SAFETY: between fork and exec it makes system calls only.
        #[expect(unsafe_code, reason = "the descriptors' numbers are ours to choose")]
        unsafe {
            command.pre_exec(move || {
                below_an_init(to_report.as_raw_fd())?;
                place(&raised)
            });
        }
        let mut init = command.spawn().unwrap();
        drop(command);
        let pid = read_number(&mut report);
        state.main = Some(pid);
        state.told.clear();
        drop(state);
        self.heard = 0;
        self.lives += 1;
        let (life, sender) = (self.lives, self.sender.clone());
        let stderr = init.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send((life, line));
            }
        });
        self.life = Some(Life { init, pid: Pid::from_raw(pid), report });
    }

    fn command(&self) -> Command {
        let script =
            "[ -z \"$LISTEN_FDS\" ] || export LISTEN_PID=$$; export WATCHDOG_PID=$$; exec \"$@\"";
        let mut command = Command::new("bash");
        command.args(["-c", script, "bash"]).arg(&self.unit.program).args(&self.unit.arguments);
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_USEC", "FDSTORE"] {
            command.env_remove(name);
        }
        if let Some(max) = self.unit.store_max {
            command.env("FDSTORE", max.to_string());
        }
        command
            .env("NOTIFY_SOCKET", self.unit.folder().join("systemd"))
            .env("RUNTIME_DIRECTORY", self.unit.folder())
            .env(MARKER, self.unit.folder())
            .envs(self.unit.environment.iter().map(|(name, value)| (name, value)))
            .envs(
                self.unit
                    .first
                    .iter()
                    .filter(|_| self.lives == 0)
                    .map(|(name, value)| (name, value)),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::inherit())
            .stderr(Stdio::piped());
        if self.unit.alone {
            command.env_remove("NOTIFY_SOCKET");
        }
        command
    }

    pub(crate) fn pid(&self) -> Pid {
        self.life.as_ref().expect("a primary was started").pid
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// The same, to one that may die just then by itself.
    pub(crate) fn signal_if_alive(&self, signal: Signal) {
        let _ = kill(self.pid(), signal);
    }

    /// kill -9 of the primary alone; its last messages are read.
    pub(crate) fn kill(&mut self) {
        // It may be dead, which is said better below.
        let _ = kill(self.pid(), Signal::SIGKILL);
        let status = self.ended("its death");
        assert_eq!(status.signal(), Some(9), "it died before: {}", self.all_said());
    }

    /// Waits until the primary dies by itself.
    pub(crate) fn wait_crashed(&mut self) -> ExitStatus {
        self.ended("a crash")
    }

    /// Ends it as systemd does and waits; the store stays, as in `systemctl restart`.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended("its end")
    }

    /// `systemctl stop`: ends it, and what is stored is closed.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let status = self.terminate();
        self.drop_store();
        status
    }

    fn ended(&mut self, what: &str) -> ExitStatus {
        let mut life = self.life.take().expect("a primary was started");
        let mut ready = [PollFd::new(life.report.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(PATIENCE).unwrap();
        let ends = poll(&mut ready, patience).unwrap() == 1;
        if !ends {
            self.life = Some(life);
            panic!("waited in vain for {what}: {}", self.all_said());
        }
        let status = ExitStatus::from_raw(read_number(&mut life.report));
        self.inits.push(life.init);
        drop(self.now());
        status
    }

    /// Whether the primary has not ended yet.
    pub(crate) fn lives_on(&self) -> bool {
        let Some(life) = &self.life else { return false };
        let mut ended = [PollFd::new(life.report.as_fd(), PollFlags::POLLIN)];
        poll(&mut ended, PollTimeout::ZERO).unwrap() == 0
    }

    /// Waits for a line of this primary on standard error that contains `text`, and returns it.
    pub(crate) fn says(&mut self, text: &str) -> String {
        self.says_one_of(&[text])
    }

    /// Waits for a line of this primary for each of these texts, in whatever order they come.
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
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok((life, line)) => {
                    let _ = writeln!(self.said, "{line}");
                    if life == self.lives && texts.iter().any(|text| line.contains(text)) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("it never said {texts:?}, but:\n{}", self.said)
                }
            }
        }
    }

    /// All that the primaries have said so far, also what `says` has not come to: it will not find that any more.
    pub(crate) fn all_said(&mut self) -> &str {
        while let Ok((_, line)) = self.lines.try_recv() {
            let _ = writeln!(self.said, "{line}");
        }
        &self.said
    }

    /// Waits for a message of this primary to systemd that contains `text`, after that which was found last.
    pub(crate) fn tells(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let state = self.state();
            let found = state.told[self.heard..].iter().position(|told| told.contains(text));
            if let Some(found) = found {
                let message = state.told[self.heard + found].clone();
                drop(state);
                self.heard += found + 1;
                return message;
            }
            if Instant::now() >= end {
                let told = state.told.join("\n");
                drop(state);
                panic!(
                    "it never told systemd '{text}', but:\n{told}\nand said\n{}",
                    self.all_said()
                )
            }
            // The return is not looked at: it asks again.
            drop(self.shared.changed.wait_timeout(state, Duration::from_millis(100)).unwrap());
        }
    }

    /// Everything that this primary has told systemd so far.
    pub(crate) fn told(&self) -> Vec<String> {
        self.now().told.clone()
    }

    pub(crate) fn is_ready(&mut self) {
        self.tells("READY=1");
    }

    /// The names of what is stored, oldest first.
    pub(crate) fn stored(&self) -> Vec<String> {
        self.now().store.iter().map(|stored| stored.name.clone()).collect()
    }

    /// The names of what did not fit into the store.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.now().refused.clone()
    }

    /// A copy of the oldest descriptor of this name.
    pub(crate) fn descriptor(&self, name: &str) -> Option<OwnedFd> {
        let state = self.now();
        let stored = state.store.iter().find(|stored| stored.name == name)?;
        Some(stored.descriptor.try_clone().unwrap())
    }

    /// Puts another descriptor in the place of the oldest of this name.
    pub(crate) fn replace(&self, name: &str, descriptor: OwnedFd) {
        let mut state = self.now();
        let stored = state.store.iter_mut().find(|stored| stored.name == name);
        stored.expect("it is stored").descriptor = descriptor;
    }

    /// Stores what no primary has stored, as with `FDPOLL=0`.
    pub(crate) fn put(&self, name: &str, descriptor: OwnedFd) {
        let stored = Stored { name: name.to_owned(), descriptor, poll: false };
        self.now().store.push(stored);
    }

    /// Closes all of this name.
    pub(crate) fn remove(&self, name: &str) {
        self.now().store.retain(|stored| stored.name != name);
    }

    /// Closes all that is stored, as systemd does when the unit is really down.
    pub(crate) fn drop_store(&self) {
        self.now().store.clear();
    }

    /// Asks for a path and returns the body of the answer.
    pub(crate) fn get(&self, path: &str) -> String {
        get(self.address, path)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.unit.folder()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.unit.folder().join(name)
    }

    /// All processes that live and have the marker, a primary among them.
    pub(crate) fn leftovers(&self) -> Vec<i32> {
        let marker = format!("{MARKER}={}", self.unit.folder().display());
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| is_alive(*pid) && has(*pid, &marker))
            .collect()
    }

    pub(crate) fn nothing_is_left_over(&self) {
        wait_for("the end of all", || self.leftovers().is_empty().then_some(()));
    }

    /// Takes what a primary has done that it must not.
    pub(crate) fn errors(&self) -> Vec<String> {
        std::mem::take(&mut self.now().errors)
    }

    /// Also asked when the manager is dropped.
    pub(crate) fn assert_no_errors(&self) {
        let errors = self.now().errors.join("\n");
        assert!(errors.is_empty(), "{errors}");
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.inits.extend(self.life.take().map(|life| life.init));
        // As long as one has a child, something lives.
        let end = Instant::now() + Duration::from_secs(10);
        while !self.inits.is_empty() && Instant::now() < end {
            for pid in self.leftovers() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            self.inits.retain_mut(|init| matches!(init.try_wait(), Ok(None)));
            std::thread::sleep(Duration::from_millis(2));
        }
        let unknown = self.inits.iter().map(Child::id).collect::<Vec<_>>();
        for init in &mut self.inits {
            let _ = init.kill();
            let _ = init.wait();
        }
        self.say_to_itself(END);
        let _ = self.reader.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(unknown.is_empty(), "children of {unknown:?} live and have no {MARKER}");
            let errors = self.state().errors.join("\n");
            assert!(errors.is_empty(), "{errors}");
        }
    }
}

/// Not a zombie.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn has(pid: i32, variable: &str) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
}
