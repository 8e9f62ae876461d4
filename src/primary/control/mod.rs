//! The control socket: who may connect, how many, and for how long. Each client is a task of its own with one
//! connection; what it asks goes to the loop, one question at a time, and the answer comes back. So a client that is
//! slow, silent or greedy delays nobody but itself.

mod answer;
mod client;
mod event;

pub(super) use answer::refused;
pub(super) use event::Events;

use super::App;
use super::tail::Tail;
use crate::config::Error as Refused;
use crate::config::values::Reader;
use crate::protocol::control::{Call, Error, Listed, Logged, Primary, Sent, Shown, Upgraded};
use crate::sys::socket;
use nix::unistd::{Gid, Group, Uid, User, geteuid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

/// So many clients are served at a time …
const CLIENTS: usize = 256;
/// … beside them so many that may only look …
const READERS: usize = 128;
/// So many are told that they may do nothing.
const STRANGERS: usize = 16;
/// Questions that wait for the loop.
const QUESTIONS: usize = 8;
/// When descriptors are scarce, clients are accepted again after this long.
const AGAIN: Duration = Duration::from_secs(1);

/// What a client asks, and where the answer goes.
#[derive(Debug)]
pub(super) struct Question {
    call: Call,
    answer: oneshot::Sender<Result<Answer, Error>>,
}

/// What the loop answers.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    Primary(Box<Primary>),
    Listed(Box<Listed>),
    /// With the end of the output of the worker that failed last.
    Shown(Box<Shown>, Option<Tail>),
    Changes(Vec<crate::protocol::control::Change>),
    Restarted(Vec<u16>),
    Scaled {
        from: u16,
        to: u16,
    },
    Killed(Vec<i32>),
    /// The new program can, and is about to.
    Upgrading(Upgraded),
    /// A rollout to this generation was asked for; what happens from here on.
    Reloading {
        generation: u32,
        events: event::Receiver,
    },
    /// What happens, and what the workers' programs send where that is wanted.
    Events(event::Receiver, Option<event::Receiver>),
    /// A message was sent to these workers, and not to those; what they send from here on.
    Sent(Sent, event::Receiver),
    Lines {
        last: Vec<Arc<Logged>>,
        live: broadcast::Receiver<Arc<Logged>>,
    },
}

/// Whom `control.readers` names, as numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Readers {
    everybody: bool,
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
}

impl Readers {
    /// Looks the names up.
    ///
    /// # Errors
    /// When there is no such user or group.
    pub(super) fn resolve(readers: &[Reader]) -> Result<Self, Refused> {
        let mut resolved = Self::default();
        let unknown = |kind: &str, name: &str| Refused {
            message: format!("there is no {kind} '{name}'"),
            hint: None,
        };
        for reader in readers {
            match reader {
                Reader::Everybody => resolved.everybody = true,
                Reader::User(name) => {
                    let uid = match name.parse() {
                        Ok(uid) => Some(Uid::from_raw(uid)),
                        Err(_) => User::from_name(name).ok().flatten().map(|user| user.uid),
                    };
                    resolved.users.insert(uid.ok_or_else(|| unknown("user", name))?.as_raw());
                }
                Reader::Group(name) => {
                    let gid = match name.parse() {
                        Ok(gid) => Some(Gid::from_raw(gid)),
                        Err(_) => Group::from_name(name).ok().flatten().map(|group| group.gid),
                    };
                    resolved.groups.insert(gid.ok_or_else(|| unknown("group", name))?.as_raw());
                }
            }
        }
        Ok(resolved)
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rights {
    All,
    Look,
    Nothing,
}

/// The control socket; its file goes with it.
#[derive(Debug)]
pub(super) struct Control {
    path: PathBuf,
    readers: Arc<Mutex<Readers>>,
}

impl Control {
    /// Opens the socket in the app's folder, and begins to serve clients.
    ///
    /// # Errors
    /// As socket(2) and bind(2); `EADDRINUSE` when another primary answers there.
    pub(super) fn open(
        app: &App,
        readers: Readers,
    ) -> io::Result<(Self, mpsc::Receiver<Question>)> {
        let path = app.folder.join("control");
        let listener = StdListener::from(socket::listen_unix(&path)?);
        listener.set_nonblocking(true)?;
        let control = Self { path, readers: Arc::default() };
        control.admit(readers);
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let listener = UnixListener::from_std(listener)?;
        tokio::spawn(accept(listener, control.readers.clone(), questions));
        Ok((control, asked))
    }

    /// From now on these may look.
    pub(super) fn admit(&self, readers: Readers) {
        // Everybody reaches the socket if anybody may look; who it is, is seen when they come.
        let (folder, file) = if readers.is_empty() { (0o700, 0o600) } else { (0o711, 0o666) };
        if std::env::var_os("RUNTIME_DIRECTORY").is_none()
            && let Some(parent) = self.path.parent()
        {
            set_mode(parent, folder);
        }
        set_mode(&self.path, file);
        *self.readers.lock().unwrap_or_else(PoisonError::into_inner) = readers;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn set_mode(path: &Path, mode: u32) {
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
}

async fn accept(
    listener: UnixListener,
    readers: Arc<Mutex<Readers>>,
    questions: mpsc::Sender<Question>,
) {
    let places = |count| Arc::new(Semaphore::new(count));
    let (clients, lookers, strangers) = (places(CLIENTS), places(READERS), places(STRANGERS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let rights = {
            let readers = readers.lock().unwrap_or_else(PoisonError::into_inner);
            rights(&stream, &readers)
        };
        // Each kind has places of its own, so that none can lock another out.
        let place = match rights {
            Rights::All => clients.clone().try_acquire_owned(),
            Rights::Look => lookers.clone().try_acquire_owned(),
            Rights::Nothing => strangers.clone().try_acquire_owned(),
        };
        if let Ok(place) = place {
            let questions = questions.clone();
            tokio::spawn(async move {
                client::serve(stream, rights, &questions).await;
                drop(place);
            });
        }
        tokio::task::yield_now().await;
    }
}

/// What whoever connected may do (`SO_PEERCRED` and `SO_PEERGROUPS` in `unix(7)`).
fn rights(stream: &UnixStream, readers: &Readers) -> Rights {
    let Ok(peer) = stream.peer_cred() else {
        return Rights::Nothing;
    };
    if peer.uid() == 0 || peer.uid() == geteuid().as_raw() {
        return Rights::All;
    }
    let groups = || {
        let more = socket::peer_groups(stream).unwrap_or_default();
        more.into_iter().chain([peer.gid()]).any(|gid| readers.groups.contains(&gid))
    };
    if readers.everybody || readers.users.contains(&peer.uid()) || groups() {
        Rights::Look
    } else {
        Rights::Nothing
    }
}
