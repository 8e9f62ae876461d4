//! Which apps run on this host: every control socket that can be seen, in the places where primaries make them.

use super::client::Client;
use super::trouble::{Code, Trouble};
use crate::primary::refuse_name;
use nix::unistd::Uid;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// How near a name must be to be suggested (Jaro-Winkler, 1.0 is the same).
const NEAR: f64 = 0.7;

/// The folders whose subfolders are apps: the system's, and the caller's own. Whoever could make such a folder could
/// pretend to be any app, so the first must be root's, and the others the caller's.
fn places() -> Vec<PathBuf> {
    let user = nix::unistd::geteuid();
    let own = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) => Some(Path::new(&folder).join("dogwatch")),
        None if user.is_root() => None,
        None => Some(std::env::temp_dir().join(format!("dogwatch-{user}"))),
    };
    let system = (PathBuf::from("/run/dogwatch"), Uid::from_raw(0));
    let places = [Some(system), own.map(|place| (place, user))];
    places.into_iter().flatten().filter(|(p, uid)| belongs(p, *uid)).map(|(p, _)| p).collect()
}

/// Whether a folder is this user's and nobody else can write into it.
fn belongs(folder: &Path, to: Uid) -> bool {
    let metadata = folder.symlink_metadata();
    metadata.is_ok_and(|m| m.is_dir() && m.uid() == to.as_raw() && m.mode() & 0o022 == 0)
}

/// The control socket that our own unit's variables name.
fn own_socket() -> Option<PathBuf> {
    let folders = std::env::var_os("RUNTIME_DIRECTORY")?;
    let socket = std::env::split_paths(&folders).next()?.join("control");
    socket.exists().then_some(socket)
}

/// Returns the control socket of every app, with the app's name. Nobody may listen there any more.
pub(super) fn sockets() -> Vec<(String, PathBuf)> {
    let mut found = usual_sockets();
    if let Some(socket) = own_socket().filter(|own| found.iter().all(|(_, known)| known != own)) {
        let name = reach("app", &socket).ok().flatten().map(|client| client.primary.name);
        found.extend(name.map(|name| (name, socket)));
    }
    found.sort();
    found
}

/// Those in the usual places, which name the app.
fn usual_sockets() -> Vec<(String, PathBuf)> {
    let mut found = BTreeMap::new();
    for place in places() {
        for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let socket = entry.path().join("control");
            // A folder that we may not look into counts: there is somebody.
            if refuse_name(&name).is_none() && socket.try_exists().unwrap_or(true) {
                found.insert(socket, name);
            }
        }
    }
    found.into_iter().map(|(socket, name)| (name, socket)).collect()
}

/// Returns the names of the apps whose primary accepts connections.
pub(super) fn names() -> Vec<String> {
    let answers = |path: &PathBuf| Client::connect(path).is_ok();
    let mut names: Vec<_> =
        sockets().into_iter().filter(|(_, path)| answers(path)).map(|(name, _)| name).collect();
    names.dedup();
    names
}

/// Connects to the primary of `app`: at `path` if one is given, else where our own unit's variables say, else in the
/// usual places.
pub(super) fn find(app: &str, path: Option<&Path>) -> Result<Client, Trouble> {
    if let Some(path) = path {
        let nobody = format!("cannot reach '{app}': nobody listens on '{}'", path.display());
        let client = reach(app, path)?.ok_or_else(|| Trouble::new(Code::NotRunning, nobody))?;
        let name = &client.primary.name;
        if name != app {
            let other = format!("cannot reach '{app}': '{name}' answers on '{}'", path.display());
            return Err(Trouble::new(Code::NotRunning, other));
        }
        return Ok(client);
    }
    let own = own_socket().map(|socket| (None, socket));
    let usual = usual_sockets().into_iter().map(|(name, path)| (Some(name), path));
    let mut silent = None;
    for (name, path) in own.into_iter().chain(usual) {
        if name.as_ref().is_some_and(|name| name != app) {
            continue;
        }
        match reach(app, &path) {
            Ok(Some(client)) if client.primary.name == app => return Ok(client),
            Ok(_) => {}
            Err(trouble) => silent = silent.or(Some(trouble)),
        }
    }
    if let Some(trouble) = silent {
        return Err(trouble);
    }
    let text = format!("cannot reach '{app}': it is not running");
    let trouble = Trouble::new(Code::NotRunning, text);
    let is_ours = Path::new("/etc/dogwatch").join(format!("{app}.toml")).exists();
    Err(match nearest(app) {
        _ if is_ours => trouble.hint(format!("'dogwatch doctor {app}' says why, and what to do")),
        Some(names) => trouble.hint(names),
        None => trouble,
    })
}

/// Connects to whoever answers at a socket that is said to be that of `app`; `None` when nobody listens there.
pub(super) fn reach(app: &str, path: &Path) -> Result<Option<Client>, Trouble> {
    let cannot = |why: &str| Trouble::new(Code::Failed, format!("cannot reach '{app}': {why}"));
    match Client::connect(path) {
        Ok(stream) => Client::begin(stream, app).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let hint = "for those who only look, there is 'control.readers' in its file";
            Err(cannot("only root and its own user may").hint(hint))
        }
        // Its queue is full.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            Err(cannot("its primary does not answer"))
        }
        Err(e) => Err(cannot(&e.to_string())),
    }
}

/// What somebody may have meant.
fn nearest(app: &str) -> Option<String> {
    let names = names();
    let likeness = |name: &String| strsim::jaro_winkler(name, app);
    let mut near: Vec<&String> = names.iter().filter(|name| likeness(name) >= NEAR).collect();
    near.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    match (near.as_slice(), names.as_slice()) {
        ([], []) => None,
        ([], some) => Some(format!("running: {}", quoted(some.iter().take(5)))),
        (near, _) => Some(format!("did you mean {}?", quoted(near.iter().copied().take(3)))),
    }
}

fn quoted<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}
