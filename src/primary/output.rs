//! A worker's output on its way: from a pipe to a journal stream of its own, or to the terminal with its name before
//! each line. One task a worker, so that nobody waits for another; the pipe is the only buffer, so that a worker that
//! writes faster than the journal takes is slowed, and the primary holds nothing of it.

use super::console::Console;
use crate::protocol::journal::{STREAM_SOCKET, stream_header};
use nix::fcntl::{OFlag, SpliceFFlags, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;

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

/// Returns a journal stream to be a worker's own output.
///
/// # Errors
/// As socket(2), connect(2) and write(2); `EAGAIN` when journald does not accept just now.
pub(super) fn direct_stream(identifier: &str) -> io::Result<OwnedFd> {
    let stream = crate::sys::socket::connect_unix(Path::new(STREAM_SOCKET))?;
    // A new socket has room for a header.
    nix::unistd::write(&stream, stream_header(identifier).as_bytes())?;
    Ok(stream)
}

/// Moves output from the pipe to the journal until the last writer is gone.
pub(super) async fn to_journal(pipe: OwnedFd, identifier: String) {
    let Ok(pipe) = Receiver::from_owned_fd(pipe) else {
        return;
    };
    let mut failures = 0;
    let mut lost = 0;
    loop {
        match connect(&identifier, lost).await {
            Ok(stream) => {
                (failures, lost) = (0, 0);
                if pump(&pipe, &stream).await.is_ok() {
                    return;
                }
            }
            Err(_) => failures += 1,
        }
        tokio::time::sleep(RECONNECT).await;
        if failures > PATIENCE {
            match discard(&pipe) {
                Some(bytes) => lost += bytes,
                None => return,
            }
        }
    }
}

async fn connect(identifier: &str, lost: u64) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(STREAM_SOCKET).await?;
    stream.write_all(stream_header(identifier).as_bytes()).await?;
    if lost > 0 {
        let text =
            format!("<4>dogwatch: {lost} bytes of output were lost while the journal was away\n");
        stream.write_all(text.as_bytes()).await?;
    }
    Ok(stream)
}

/// Moves bytes without touching them (`splice(2)`); returns at the end of the output, or when the stream breaks, with
/// what was not moved still in the pipe.
async fn pump(pipe: &Receiver, stream: &UnixStream) -> io::Result<()> {
    loop {
        pipe.readable().await?;
        if pipe.try_io(|| has_input(pipe)).is_err() {
            continue;
        }
        stream.writable().await?;
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        let moved = stream.try_io(Interest::WRITABLE, || {
            Ok(splice(pipe, None, stream.as_fd(), None, 64 * 1024, flags)?)
        });
        match moved {
            Ok(0) => return Ok(()),
            // Input without end must not keep the others from their turn.
            Ok(_) => tokio::task::yield_now().await,
            // There was input, so it is the stream that is full; its readiness is cleared.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

/// Whether there is something to read, or nobody left to write it.
fn has_input(pipe: &Receiver) -> io::Result<()> {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::ZERO)? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

/// Throws away what is in the pipe and returns how many bytes that was; `None` at the end of the output.
fn discard(pipe: &Receiver) -> Option<u64> {
    let mut buffer = [0; 4096];
    let mut bytes = 0;
    // A pipe holds 64 KiB; a worker that writes without end must not keep us here.
    for _ in 0..32 {
        match pipe.try_read(&mut buffer) {
            Ok(0) => return None,
            Ok(n) => bytes += n as u64,
            Err(_) => break,
        }
    }
    Some(bytes)
}

/// Writes output to the terminal, line by line with `prefix` before each, until the last writer is gone.
pub(super) async fn to_terminal(pipe: OwnedFd, prefix: String, console: Arc<Mutex<Console>>) {
    let Ok(pipe) = Receiver::from_owned_fd(pipe) else {
        return;
    };
    let mut line: Vec<u8> = Vec::new();
    let mut buffer = [0; 4096];
    while pipe.readable().await.is_ok() {
        match pipe.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                for byte in &buffer[..n] {
                    if *byte == b'\n' || line.len() == MAX_LINE {
                        print(&console, &prefix, &line).await;
                        line.clear();
                    }
                    if *byte != b'\n' {
                        line.push(*byte);
                    }
                }
                // Input without end must not keep the others from their turn.
                tokio::task::yield_now().await;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    if !line.is_empty() {
        print(&console, &prefix, &line).await;
    }
}

async fn print(console: &Mutex<Console>, prefix: &str, line: &[u8]) {
    let line = [prefix.as_bytes(), line, b"\n"].concat();
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
