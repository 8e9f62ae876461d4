//! A worker's output on its way: from a pipe to a journal stream of its own, or line by line to where the primary's own
//! output goes. One task a pipe, so that nobody waits for another; a worker that writes faster than the journal or the
//! terminal takes is slowed, and the primary holds no more of it than one buffer and the last words.

use super::console::Console;
use super::tail::{Recent, Tail};
use super::worker::Identity;
use crate::protocol::journal::{STREAM_SOCKET, stream_header};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

/// Journald is connected to again after this long …
const RECONNECT: Duration = Duration::from_millis(200);
/// … and after so many failures output is thrown away rather than let the workers stand still.
const PATIENCE: u32 = 25;
/// A terminal without room is looked at again after this long.
const FULL: Duration = Duration::from_millis(20);
/// A longer line is broken, as journald does (`LineMax=` in `journald.conf(5)`).
const MAX_LINE: usize = 8 * 1024;

/// Returns a pipe for a worker's output: our end and the worker's.
///
/// # Errors
/// As pipe2(2).
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC)?)
}

/// A worker's stream to the journal.
#[derive(Debug)]
pub(super) struct Stream {
    /// The slot's name.
    pub(super) identifier: String,
    pub(super) who: Identity,
}

impl Stream {
    /// What is sent before anything else: the header, and a line that says whose stream this is. A slot has many
    /// workers in its life; journald gives each stream an id (`_STREAM_ID=`), and this line ties it to the worker.
    fn opening(&self) -> String {
        let Identity { worker, slot, generation } = self.who;
        format!(
            "{}<7>dogwatch: worker {worker} (slot {slot}, generation {generation}) writes here\n",
            stream_header(&self.identifier)
        )
    }

    /// Returns a journal stream to be the worker's own output.
    ///
    /// # Errors
    /// As socket(2), connect(2) and write(2); `EAGAIN` when journald does not accept just now.
    pub(super) fn direct(&self) -> io::Result<OwnedFd> {
        let stream = crate::sys::socket::connect_unix(Path::new(STREAM_SOCKET))?;
        // A new socket has room for a header and a line.
        nix::unistd::write(&stream, self.opening().as_bytes())?;
        Ok(stream)
    }
}

/// Says when the pipes are to be left to the next primary, with nothing of theirs in our hands.
pub(super) type Halt = watch::Receiver<bool>;

/// Moves output from the pipe to the journal until the last writer is gone, or it is to halt.
pub(super) async fn to_journal(pipe: OwnedFd, stream: Stream, tail: Tail, mut halt: Halt) {
    let _open = tail.opened();
    let Ok(pipe) = Receiver::from_owned_fd(pipe) else {
        return;
    };
    let mut unsent = Vec::new();
    let mut failures = 0;
    let mut lost = 0;
    loop {
        match connect(&stream, lost).await {
            Ok(journal) => {
                (failures, lost) = (0, 0);
                if pump(&pipe, journal, &mut unsent, &tail, &mut halt).await.is_ok() {
                    return;
                }
            }
            Err(_) => failures += 1,
        }
        tokio::time::sleep(RECONNECT).await;
        if failures > PATIENCE {
            lost += unsent.len() as u64;
            unsent.clear();
            match discard(&pipe, &tail) {
                Some(bytes) => lost += bytes,
                None => return,
            }
        }
    }
}

async fn connect(stream: &Stream, lost: u64) -> io::Result<UnixStream> {
    let mut journal = UnixStream::connect(STREAM_SOCKET).await?;
    journal.write_all(stream.opening().as_bytes()).await?;
    if lost > 0 {
        let text =
            format!("<4>dogwatch: {lost} bytes of output were lost while the journal was away\n");
        journal.write_all(text.as_bytes()).await?;
    }
    Ok(journal)
}

/// Moves bytes; returns at the end of the output, or when the stream breaks, with what was read and not written left in
/// `unsent`.
async fn pump(
    pipe: &Receiver,
    mut journal: UnixStream,
    unsent: &mut Vec<u8>,
    tail: &Tail,
    halt: &mut Halt,
) -> io::Result<()> {
    loop {
        while !unsent.is_empty() {
            let written = journal.write(unsent).await?;
            unsent.drain(..written);
        }
        if is_halted(pipe, halt).await? {
            return Ok(());
        }
        match read(pipe, unsent, tail) {
            Ok(0) => return Ok(()),
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
            Ok(_) | Err(_) => {}
        }
        // Input without end must not keep the others from their turn.
        tokio::task::yield_now().await;
    }
}

/// Waits until there is something to read; returns whether it is to be left there.
async fn is_halted(pipe: &Receiver, halt: &mut Halt) -> io::Result<bool> {
    tokio::select! {
        biased;
        // Nobody is left to say so: the primary is ending, and what there is is read.
        Ok(_) = halt.wait_for(|halt| *halt) => Ok(true),
        ready = pipe.readable() => ready.map(|()| false),
    }
}

/// Appends what is there to `output`, and to the worker's last words. The buffer is here, not in the task that waits:
/// there may be thousands of them.
fn read(pipe: &Receiver, output: &mut Vec<u8>, tail: &Tail) -> io::Result<usize> {
    let mut buffer = [0; 16 * 1024];
    let length = pipe.try_read(&mut buffer)?;
    tail.push(&buffer[..length]);
    output.extend_from_slice(&buffer[..length]);
    Ok(length)
}

/// Throws away what is in the pipe and returns how many bytes that was; `None` at the end of the output.
fn discard(pipe: &Receiver, tail: &Tail) -> Option<u64> {
    let mut buffer = [0; 4096];
    let mut bytes = 0;
    // A pipe holds 64 KiB; a worker that writes without end must not keep us here.
    for _ in 0..32 {
        match pipe.try_read(&mut buffer) {
            Ok(0) => return None,
            Ok(n) => {
                tail.push(&buffer[..n]);
                bytes += n as u64;
            }
            Err(_) => break,
        }
    }
    Some(bytes)
}

/// Where whole lines go.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) who: Identity,
    /// What stands before each.
    pub(super) prefix: String,
    pub(super) console: Arc<Mutex<Console>>,
    /// Where they are kept as well.
    pub(super) recent: Recent,
}

/// Writes output line by line, until the last writer is gone, or it is to halt.
pub(super) async fn to_console(pipe: OwnedFd, to: Lines, tail: Tail, mut halt: Halt) {
    let _open = tail.opened();
    let Ok(pipe) = Receiver::from_owned_fd(pipe) else {
        return;
    };
    let mut line: Vec<u8> = Vec::new();
    let mut output = Vec::new();
    while is_halted(&pipe, &mut halt).await.is_ok_and(|halted| !halted) {
        match read(&pipe, &mut output, &tail) {
            Ok(0) => break,
            Ok(_) => {
                for part in output.split_inclusive(|byte| *byte == b'\n') {
                    line.extend_from_slice(part);
                    let whole = line.pop_if(|last| *last == b'\n').is_some();
                    if whole || line.len() >= MAX_LINE {
                        print(&to, &line).await;
                        line.clear();
                    }
                }
                output.clear();
                // Input without end must not keep the others from their turn.
                tokio::task::yield_now().await;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    if !line.is_empty() {
        print(&to, &line).await;
    }
}

async fn print(to: &Lines, line: &[u8]) {
    to.recent.line(to.who, line);
    let line = [to.prefix.as_bytes(), line, b"\n"].concat();
    let console = &to.console;
    // A terminal that is stopped (Ctrl-S) stops the workers' output, not the primary.
    while would_block(console, |console| console.write(&line)) {
        tokio::time::sleep(FULL).await;
    }
    while would_block(console, Console::flush) {
        tokio::time::sleep(FULL).await;
    }
}

fn would_block(console: &Mutex<Console>, write: impl Fn(&mut Console) -> io::Result<()>) -> bool {
    // There is one thread, so nobody can have left the lock poisoned; and a line less is no reason to stop.
    let Ok(mut console) = console.lock() else { return false };
    write(&mut console).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}
