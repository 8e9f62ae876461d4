//! What the primary tells its service manager (`sd_notify(3)`). Without `NOTIFY_SOCKET` nothing is sent and nobody
//! misses it.
//!
//! The sd-notify crate words the messages and reads the watchdog's interval; it sends them on a blocking socket,
//! though, and a manager that does not read just now (a re-exec, a full queue) must not stop the primary. So messages
//! wait here and go out when the socket takes them; a newer status replaces one that waits.

mod store;

pub use store::needed;
pub(super) use store::{Polled, room};

use crate::core::{Report, Time};
use crate::protocol::store::Name;
use crate::sys::socket;
use sd_notify::NotifyState;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// A status is cut here: systemd takes no message of more than 4096 bytes (`sd_notify(3)`).
const MAX_STATUS: usize = 2048;
/// A manager that is gone is looked for again after this long.
const RETRY: Duration = Duration::from_secs(1);
/// So many messages wait at most; the oldest go first, but for descriptors.
const MAX_WAITING: usize = 64;

/// A deadline is moved this much further than what is waited for, so that the wait's own failure comes first.
const SLACK: Duration = Duration::from_secs(15);

/// The primary's side of the notify protocol, and what was said last.
#[derive(Debug)]
pub(super) struct Manager {
    /// `NOTIFY_SOCKET`; a path, or a name with `@` in front.
    address: Option<OsString>,
    socket: Option<UnixDatagram>,
    waiting: VecDeque<Message>,
    /// What is in the FD store, or would be if there were one: an upgraded primary is passed these.
    held: BTreeMap<Name, Arc<OwnedFd>>,
    started: bool,
    reloading: bool,
    status: String,
    /// Until when systemd was asked to be patient.
    patient_until: Time,
}

impl Manager {
    /// Returns the side that speaks to the manager that the environment names.
    pub(super) fn from_env() -> Self {
        Self {
            address: std::env::var_os("NOTIFY_SOCKET"),
            socket: None,
            waiting: VecDeque::new(),
            held: BTreeMap::new(),
            started: false,
            reloading: false,
            status: String::new(),
            patient_until: Time::default(),
        }
    }

    /// Another primary had said what there was to say: systemd waits for this one to be ready, and then for the end of
    /// a reload that is still under way.
    pub(super) fn resume(&mut self, started: bool, rolling: bool) {
        if started {
            self.started = true;
            self.send(&[NotifyState::Ready]);
        }
        if rolling {
            self.reloading();
        }
    }

    /// Says what a report means to systemd.
    pub(super) fn report(&mut self, report: &Report) {
        if matches!(
            report,
            Report::Started { .. }
                | Report::Reloading { .. }
                | Report::Reloaded { .. }
                | Report::RolledBack { .. }
                | Report::Stopping { .. }
        ) {
            // systemd's timer belongs to the state, so what was asked for the last one counts no more.
            self.patient_until = Time::default();
        }
        match report {
            Report::Started { .. } => {
                self.started = true;
                self.send(&[NotifyState::Ready]);
            }
            Report::Reloading { .. } => self.reloading(),
            Report::Reloaded { .. } | Report::RolledBack { .. } => self.reloaded(),
            Report::Stopping { .. } => self.send(&[NotifyState::Stopping]),
            Report::Ready { .. }
            | Report::Failed { .. }
            | Report::Gone { .. }
            | Report::Killed { .. }
            | Report::Queued { .. }
            | Report::Canary { .. }
            | Report::Promoted { .. }
            | Report::Scaled { .. }
            | Report::Restarting { .. }
            | Report::SlotStopped { .. }
            | Report::SlotStarted { .. }
            | Report::Paused
            | Report::Resumed
            | Report::Reset { .. } => {}
        }
    }

    /// A reload begins. Not before READY=1 was said: systemd then waits for the start, not for a reload.
    pub(super) fn reloading(&mut self) {
        if self.started && !std::mem::replace(&mut self.reloading, true) {
            match NotifyState::monotonic_usec_now() {
                // Type=notify-reload takes RELOADING=1 only with the moment in the same message.
                Ok(now) => self.send(&[NotifyState::Reloading, now]),
                Err(_) => self.send(&[NotifyState::Reloading]),
            }
        }
    }

    /// A reload has ended, well or not: systemd must never be left waiting for READY=1.
    pub(super) fn reloaded(&mut self) {
        if std::mem::take(&mut self.reloading) {
            self.send(&[NotifyState::Ready]);
        }
    }

    /// Says the state of the whole, if it has changed.
    pub(super) fn status(&mut self, mut status: String) {
        while status.len() > MAX_STATUS {
            status.pop();
        }
        if self.status != status {
            self.send(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// Asks systemd to wait until `due`, which is when what is under way will have succeeded or failed.
    pub(super) fn extend(&mut self, due: Option<Time>, now: Time) {
        let Some(until) = due.map(|due| due + SLACK).filter(|until| *until > self.patient_until)
        else {
            return;
        };
        // The crate's own variant holds 71 minutes, and a drain may be longer.
        let text = format!("EXTEND_TIMEOUT_USEC={}", until.since(now).as_micros());
        self.send(&[NotifyState::Custom(&text)]);
        // Not again for every little step: a third of the slack is enough of a difference.
        self.patient_until = until + SLACK / 3;
    }

    /// Says that the primary is alive.
    pub(super) fn heartbeat(&mut self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// Waits until what waits can go out; for ever if nothing does.
    pub(super) async fn writable(&self) {
        match &self.socket {
            _ if self.waiting.is_empty() => std::future::pending().await,
            Some(socket) => drop(socket.writable().await),
            None => tokio::time::sleep(RETRY).await,
        }
    }

    /// Sends what waits, as far as the manager takes it.
    pub(super) fn flush(&mut self) {
        if self.socket.is_none() {
            self.socket = self.address.as_ref().and_then(|address| connect(address).ok());
        }
        while let (Some(socket), Some(message)) = (&self.socket, self.waiting.front()) {
            let with = message.with.as_ref().map(|fd| fd.as_fd());
            // The kernel is asked at once, not when the loop has looked: what is in the FD store is safe.
            match socket::send(socket.as_fd(), message.text.as_bytes(), with) {
                Ok(_) => drop(self.waiting.pop_front()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // The next look is to wait until there is room.
                    let _: io::Result<()> = socket.try_io(Interest::WRITABLE, || Err(e));
                    return;
                }
                // A manager that is gone is no reason to fail; it is looked for again.
                Err(_) => self.socket = None,
            }
        }
    }

    /// Waits until nothing waits any more.
    pub(super) async fn flushed(&mut self) {
        self.flush();
        while self.address.is_some() && !self.waiting.is_empty() {
            self.writable().await;
            self.flush();
        }
    }

    fn send(&mut self, what: &[NotifyState<'_>]) {
        if self.address.is_none() {
            return;
        }
        // What is only about now is not said twice.
        let replaces = |key: &str| matches!(key, "STATUS" | "WATCHDOG" | "EXTEND_TIMEOUT_USEC");
        let text: String = what.iter().map(|state| format!("{state}\n")).collect();
        let new = Message { text, with: None };
        self.waiting.retain(|old| !replaces(new.key()) || old.key() != new.key());
        self.waiting.push_back(new);
        let idle = |message: &Message| !message.key().starts_with("FDSTORE");
        while self.waiting.iter().filter(|message| idle(message)).count() > MAX_WAITING
            && let Some(oldest) = self.waiting.iter().position(idle)
        {
            self.waiting.remove(oldest);
        }
        self.flush();
    }
}

/// What is to be sent, with a descriptor for the FD store.
#[derive(Debug)]
struct Message {
    text: String,
    with: Option<Arc<OwnedFd>>,
}

impl Message {
    fn key(&self) -> &str {
        self.text.split('=').next().unwrap_or_default()
    }
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let name = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    let socket = StdDatagram::unbound()?;
    socket.connect_addr(&name)?;
    socket.set_nonblocking(true)?;
    UnixDatagram::from_std(socket)
}

/// Returns how often to say so: half of what systemd expects; `None` if it expects nothing.
pub(super) fn heartbeat_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|interval| interval / 2).filter(|half| !half.is_zero())
}

/// Returns the name of the systemd unit that we run in: the last part of our cgroup (`cgroups(7)`) that is a service.
/// `None` when systemd did not start us.
#[must_use]
pub fn unit() -> Option<String> {
    std::env::var_os("INVOCATION_ID").filter(|_| libsystemd::daemon::booted())?;
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mut units = path.rsplit('/').filter(|part| part.ends_with(".service"));
    units.find(|name| !name.starts_with("user@")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manager_that_does_not_read_holds_nobody_up_and_misses_no_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = StdDatagram::bind(&path).unwrap();
        let mut ours = Manager { address: Some(path.into_os_string()), ..Manager::from_env() };
        ours.started = true;
        for n in 0..2000 {
            ours.status(format!("status {n}"));
        }
        ours.reloading();
        ours.reloaded();
        manager.set_nonblocking(true).unwrap();
        let (mut heard, mut buffer) = (String::new(), [0; 4096]);
        while !heard.contains("RELOADING=1") || !heard.ends_with("READY=1\n") {
            while let Ok(length) = manager.recv(&mut buffer) {
                heard.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            }
            if !ours.waiting.is_empty() {
                ours.writable().await;
                ours.flush();
            }
        }
        assert!(heard.contains("STATUS=status 1999\nRELOADING=1\nMONOTONIC_USEC="), "{heard}");
    }
}
