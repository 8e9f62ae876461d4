//! The FD store of the service manager in miniature, and the thread that reads what the primary tells it.

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, recvmsg};
use std::io::IoSliceMut;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// systemd's bound of a descriptor's name.
const LONGEST_NAME: usize = 255;
/// `SCM_MAX_FD` of the kernel: no message carries more.
const MOST_PASSED: usize = 253;
/// What the manager says to itself through the socket: all before it has been read.
pub(crate) const BARRIER: &[u8] = b"TEST-BARRIER=1";
pub(crate) const END: &[u8] = b"TEST-END=1";

/// A descriptor in the store.
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) descriptor: OwnedFd,
    pub(crate) poll: bool,
}

/// What the thread at the notify socket keeps.
pub(crate) struct State {
    /// The primary whose messages count; it stays when it is dead, as its last messages may be unread.
    pub(crate) main: Option<i32>,
    /// Of this life, in order.
    pub(crate) told: Vec<String>,
    pub(crate) store: Vec<Stored>,
    pub(crate) store_max: usize,
    /// Names of what did not fit.
    pub(crate) refused: Vec<String>,
    /// What a primary must not do.
    pub(crate) errors: Vec<String>,
    pub(crate) barriers: usize,
}

pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) changed: Condvar,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Does with a message what systemd does.
    fn take(&mut self, sender: i32, text: &str, descriptors: Vec<OwnedFd>) {
        if self.main != Some(sender) {
            self.errors.push(format!("{sender}, which is not the main process, told '{text}'"));
            return;
        }
        self.told.push(text.to_owned());
        let is = |wanted: &str| text.lines().any(|line| line == wanted);
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
        if let Some(name) = name.filter(|name| !is_a_name(name)) {
            self.errors.push(format!("FDNAME='{name}' is no name"));
            return;
        }
        if is("FDSTOREREMOVE=1") {
            match name {
                Some(name) => self.store.retain(|stored| stored.name != name),
                None => self.errors.push("FDSTOREREMOVE=1 without FDNAME=".to_owned()),
            }
        }
        let stores = is("FDSTORE=1");
        if stores && descriptors.is_empty() {
            self.errors.push(format!("no descriptor came with '{text}'"));
        }
        for descriptor in descriptors.into_iter().filter(|_| stores) {
            let name = name.unwrap_or("stored").to_owned();
            self.forget_hung_up();
            if self.store.len() >= self.store_max {
                self.refused.push(name);
            } else if !self.store.iter().any(|stored| is_same(&stored.descriptor, &descriptor)) {
                self.store.push(Stored { name, descriptor, poll: !is("FDPOLL=0") });
            }
        }
    }

    pub(crate) fn forget_hung_up(&mut self) {
        self.store.retain(|stored| {
            let mut asked = [PollFd::new(stored.descriptor.as_fd(), PollFlags::empty())];
            poll(&mut asked, PollTimeout::ZERO).unwrap();
            let seen = asked[0].revents().unwrap_or(PollFlags::empty());
            !stored.poll || !seen.intersects(PollFlags::POLLHUP | PollFlags::POLLERR)
        });
    }
}

/// Reads a message; `false` at the end.
pub(crate) fn read(socket: &UnixDatagram, shared: &Shared) -> bool {
    let mut bytes = [0; 8192];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut room = cmsg_space!(UnixCredentials, [RawFd; MOST_PASSED]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut room), flags) {
            Err(Errno::EINTR) => {}
            other => break other.unwrap(),
        }
    };
    let (mut sender, mut descriptors) = (0, vec![]);
    for control in message.cmsgs().unwrap() {
        if let ControlMessageOwned::ScmCredentials(credentials) = control {
            sender = credentials.pid();
        } else if let ControlMessageOwned::ScmRights(passed) = control {
            descriptors.extend(passed.into_iter().map(owned));
        }
    }
    let truncated = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    let length = message.bytes;
    let own = sender == i32::try_from(std::process::id()).unwrap();
    let end = own && &bytes[..length] == END;
    let mut state = shared.state();
    if own {
        state.barriers += 1;
    } else {
        let text = String::from_utf8_lossy(&bytes[..length]);
        if truncated {
            state.errors.push(format!("longer than can be read: '{text}'"));
        }
        state.take(sender, &text, descriptors);
    }
    shared.changed.notify_all();
    !end
}

/// `fdname_is_valid` of systemd.
fn is_a_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME && name.bytes().all(|b| (b' '..127).contains(&b) && b != b':')
}

#[expect(unsafe_code, reason = "the kernel gave it as a number")]
pub(crate) fn owned(descriptor: RawFd) -> OwnedFd {
    // SAFETY: it was just made for us, and nobody else has its number.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Whether both are one open file; systemd does not store it twice, under whatever name.
#[expect(unsafe_code, reason = "nix lacks kcmp(2)")]
fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    const KCMP_FILE: i32 = 0;
    let (own, one, other) = (std::process::id(), one.as_raw_fd(), other.as_raw_fd());
    // SAFETY: kcmp(2) takes numbers.
    unsafe { libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, one, other) == 0 }
}

/// A descriptor of a process that has not been reaped.
#[expect(unsafe_code, reason = "nix lacks pidfd_open(2)")]
pub(crate) fn pidfd(pid: i32) -> OwnedFd {
    // SAFETY: it takes numbers.
    let made = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    owned(RawFd::try_from(made).unwrap())
}
