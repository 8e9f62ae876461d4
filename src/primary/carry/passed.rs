//! What this primary was passed at its start (`sd_listen_fds(3)`): the listeners of the socket unit, and what the last
//! primary left in the FD store.
//!
//! libsystemd reads the names and listenfd takes the descriptors; each is looked at, so that a stray descriptor is
//! refused by name instead of being given to every worker.

use super::super::listeners::{Listener, Socket};
use super::upgrade::PASSED;
use crate::protocol::store::{Name, Part};
use crate::sys::{pidfd, socket};
use libsystemd::activation;
use listenfd::ListenFd;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;

/// What was passed.
#[derive(Debug, Default)]
pub(in super::super) struct Passed {
    /// Those of the socket unit.
    pub(in super::super) listeners: Vec<Listener>,
    /// Those of ours.
    pub(in super::super) carried: BTreeMap<Name, OwnedFd>,
    /// Names of ours that cannot be used, each with the reason.
    pub(in super::super) refused: Vec<(String, String)>,
}

impl Passed {
    /// Takes all that was passed.
    ///
    /// # Errors
    /// One line: which listener is none, and why.
    pub(in super::super) fn take() -> Result<Self, String> {
        if let Some(inherited) = inherited() {
            return Self::take_inherited(inherited);
        }
        let unnamed = std::env::var_os("LISTEN_FDNAMES").is_none();
        let named = activation::receive_descriptors_with_names(false)
            .map_err(|e| format!("cannot adopt the passed sockets: {e}"))?;
        let mut from = ListenFd::from_env();
        if from.len() != named.len() && !(unnamed && named.is_empty()) {
            return Err(format!(
                "cannot adopt the passed sockets: {} descriptors with {} names",
                from.len(),
                named.len()
            ));
        }
        let mut passed = Self::default();
        for at in 0..from.len() {
            // As sd_listen_fds_with_names(3) names what has no name.
            let name = named.get(at).map_or_else(|| "unknown".to_owned(), |(_, name)| name.clone());
            if !is_listener(&name, RawFd::try_from(at + 3).unwrap_or(-1)) {
                let fd = socket::take_passed(&mut from, at);
                passed.carry(fd, name);
            } else {
                passed.listeners.push(listener(&mut from, at, name)?);
            }
        }
        Ok(passed)
    }

    /// From the primary that this process was before it executed us.
    fn take_inherited(inherited: Vec<(RawFd, String)>) -> Result<Self, String> {
        let mut passed = Self::default();
        for (number, name) in inherited {
            let is_listener = is_listener(&name, number);
            match socket::take_inherited(number) {
                Some(fd) if is_listener => {
                    let socket = Socket::new(fd, false)
                        .map_err(|e| format!("cannot adopt listener '{name}': {e}"))?;
                    passed.listeners.push(Listener::new(name, socket, None));
                }
                fd => passed.carry(fd, name),
            }
        }
        Ok(passed)
    }

    fn carry(&mut self, taken: Option<OwnedFd>, text: String) {
        let refused = match (text.parse::<Name>(), taken) {
            (Err(_), _) => "a later version's",
            (Ok(_), None) => "nothing there",
            (Ok(name), Some(fd)) => match wrong_kind(&name, &fd) {
                Some(wrong) => wrong,
                None if self.carried.contains_key(&name) => "a second one of this name",
                None => {
                    self.carried.insert(name, fd);
                    return;
                }
            },
        };
        self.refused.push((text, refused.to_owned()));
    }

    /// Returns the listeners that the last primary opened itself, in their order.
    pub(in super::super) fn take_listeners(&mut self) -> Vec<Listener> {
        let names: Vec<Name> = self
            .carried
            .keys()
            .filter(|name| matches!(name, Name::Listener(..)))
            .cloned()
            .collect();
        let mut listeners = vec![];
        for key in names {
            if let (Name::Listener(at, name), Some(fd)) = (key.clone(), self.carried.get(&key))
                && let Ok(socket) = fd.try_clone().and_then(|fd| Socket::stored(fd, at))
            {
                let own_path = socket::own_path(&socket.fd);
                listeners.push(Listener::new(name, socket, own_path));
            }
        }
        listeners
    }
}

/// Whether a descriptor is none of those that a primary keeps for the next. A socket unit may be called as we call ours.
fn is_listener(name: &str, number: RawFd) -> bool {
    !Name::is_ours(name) || (name.parse::<Name>().is_err() && socket::is_passed_listener(number))
}

/// What this process was passed by the primary that it was before: numbers and names.
fn inherited() -> Option<Vec<(RawFd, String)>> {
    let text = std::env::var(PASSED).ok()?;
    let (pid, list) = text.split_once(':')?;
    if pid.parse() != Ok(std::process::id()) {
        return None;
    }
    let one = |entry: &str| {
        let (number, name) = entry.split_once('=')?;
        Some((number.parse().ok()?, name.to_owned()))
    };
    Some(list.split(':').filter_map(one).collect())
}

/// Why a descriptor cannot be what its name says.
fn wrong_kind(name: &Name, fd: &OwnedFd) -> Option<&'static str> {
    let file = || fd.try_clone().map(std::fs::File::from).and_then(|file| file.metadata()).ok();
    let kind = |is: fn(&std::fs::FileType) -> bool| file().is_some_and(|m| is(&m.file_type()));
    match name {
        // Looked at when it is read.
        Name::State | Name::Channels | Name::Lanes(_) | Name::Table(_) => None,
        Name::Listener(..) => {
            // A lane may have been shut down.
            let listens = socket::may_listen(fd).unwrap_or(false);
            (!listens).then_some("not a listening socket")
        }
        Name::Worker { part: Part::Pid, .. } => pidfd::pid(fd).is_err().then_some("not a pidfd"),
        Name::Leash | Name::Worker { part: Part::Output | Part::Error | Part::Ready, .. } => {
            (!kind(FileTypeExt::is_fifo)).then_some("not a pipe")
        }
        Name::Worker { part: Part::Notify, .. } => {
            let is_one = socket::is_local(fd) && socket::is_datagram(fd).unwrap_or(false);
            (!is_one).then_some("not a unix datagram socket")
        }
        Name::Keeper | Name::Worker { part: Part::Channel, .. } => {
            let is_stream = !socket::is_datagram(fd).unwrap_or(true);
            let listens = socket::is_listening(fd).unwrap_or(true);
            (!socket::is_local(fd) || !is_stream || listens).then_some("not a unix stream socket")
        }
        Name::Opened(_) => (!kind(FileTypeExt::is_socket)).then_some("not a socket"),
    }
}

fn listener(from: &mut ListenFd, at: usize, name: String) -> Result<Listener, String> {
    let cannot = |why: &dyn std::fmt::Display| format!("cannot adopt listener '{name}': {why}");
    let fd = take(from, at).map_err(|e| cannot(&format!("file descriptor {}: {e}", at + 3)))?;
    // A lane may have been shut down.
    if !socket::may_listen(&fd).map_err(|e| cannot(&e))? {
        return Err(cannot(&format!("file descriptor {} is not a listening socket", at + 3)));
    }
    let socket = Socket::new(fd, false).map_err(|e| cannot(&e))?;
    Ok(Listener::new(name, socket, None))
}

/// Takes a TCP or unix stream listener, or a UDP or unix datagram socket. listenfd refuses what is of another kind and
/// keeps it for the next question.
fn take(passed: &mut ListenFd, at: usize) -> io::Result<OwnedFd> {
    if let Ok(Some(socket)) = passed.take_tcp_listener(at) {
        return Ok(socket.into());
    }
    if let Ok(Some(socket)) = passed.take_unix_listener(at) {
        return Ok(socket.into());
    }
    if let Ok(Some(socket)) = passed.take_udp_socket(at) {
        return Ok(socket.into());
    }
    match passed.take_unix_datagram(at)? {
        Some(socket) => Ok(socket.into()),
        None => Err(io::Error::other("nothing there")),
    }
}
