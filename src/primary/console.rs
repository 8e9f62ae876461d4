//! Writing lines to standard output or error without ever waiting: a terminal whose reader has stalled, or a pipe that
//! nobody reads, must not stop the primary.
//!
//! That a descriptor polls writable promises no room for a whole line, and to set `O_NONBLOCK` on it would set it for
//! everybody who shares it. So the file is opened anew, which makes an open file description of our own; a socket, which
//! cannot be opened anew, takes `MSG_DONTWAIT`.

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::socket::{MsgFlags, send};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// A place for lines.
#[derive(Debug)]
pub(super) struct Console {
    out: Out,
    is_terminal: bool,
    /// The rest of a line that went out in part.
    rest: Vec<u8>,
}

/// What is written to, and how it is kept from waiting.
#[derive(Debug)]
enum Out {
    /// A regular file, which does not make a writer wait, or one that was opened anew.
    File(File),
    /// What may not be opened anew (it belongs to another user): a pipe that polls writable takes a page (`pipe(7)`).
    Polled(File),
    Socket(OwnedFd),
    Nothing,
}

/// What a pipe takes without waiting, once it polls writable.
const PAGE: usize = 4096;

impl Console {
    /// Returns a console that writes where `fd` does.
    pub(super) fn new(fd: impl AsFd) -> Self {
        let fd = fd.as_fd();
        let kind = nix::sys::stat::fstat(fd).map_or(0, |stat| stat.st_mode & libc::S_IFMT);
        let own = fd.try_clone_to_owned();
        let out = match (kind, own) {
            (libc::S_IFSOCK, Ok(fd)) => Out::Socket(fd),
            (libc::S_IFREG, Ok(fd)) => Out::File(fd.into()),
            (_, Ok(fd)) => {
                let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
                // A terminal of another user, as under su(1), can still be opened as our own controlling one.
                let anew = open_anew(&path).or_else(|e| match fd.is_terminal() {
                    true => open_anew("/dev/tty"),
                    false => Err(e),
                });
                anew.map_or_else(|_| Out::Polled(fd.into()), Out::File)
            }
            (_, Err(_)) => Out::Nothing,
        };
        Self { out, is_terminal: fd.is_terminal(), rest: Vec::new() }
    }

    /// Writes a line, or nothing of it; the rest of one that went out in part is kept and goes first.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room; else as write(2).
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.flush()?;
        let written = self.write_some(line)?;
        self.rest.extend_from_slice(&line[written..]);
        Ok(())
    }

    /// Writes what is kept.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room for all of it; else as write(2).
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            match self.write_some(&rest) {
                Ok(written) => self.rest.extend_from_slice(&rest[written..]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.rest = rest;
                    return Err(e);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.out {
            Out::File(file) if self.is_terminal => without_ttou(|| file.write(bytes)),
            Out::File(file) => file.write(bytes),
            Out::Polled(file) => {
                let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut fds, PollTimeout::ZERO)? {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    _ => file.write(&bytes[..bytes.len().min(PAGE)]),
                }
            }
            Out::Socket(socket) => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                Ok(send(socket.as_raw_fd(), bytes, flags)?)
            }
            Out::Nothing => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Writes with SIGTTOU blocked: to a terminal with `tostop`, a background process may write then (`setpgid(2)` and
/// `termios(3)`); else the signal, which means something else to the primary, would come again and again.
fn without_ttou(write: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
    let mut ttou = SigSet::empty();
    ttou.add(Signal::SIGTTOU);
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&ttou), Some(&mut before))?;
    let written = write();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    written
}

fn open_anew(path: &str) -> io::Result<File> {
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    OpenOptions::new().write(true).custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_full_pipe_takes_whole_lines_or_none() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let mut console = Console::new(&write);
        let line = [b"x".repeat(5999), b"\n".to_vec()].concat();
        let mut taken = 0;
        while console.write(&line).is_ok() {
            taken += 1;
        }
        drop(write);
        let mut read = File::from(read);
        let mut output = Vec::new();
        while console.flush().is_err() {
            let mut buffer = [0; 4096];
            let length = read.read(&mut buffer).unwrap();
            output.extend_from_slice(&buffer[..length]);
        }
        drop(console);
        read.read_to_end(&mut output).unwrap();
        assert_eq!(output.len(), taken * line.len());
        assert!(output.ends_with(b"x\n"));
    }
}
