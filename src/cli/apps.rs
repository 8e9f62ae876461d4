//! Which apps run on this host: every control socket that can be seen, in the places where primaries make them.

use super::client::Client;
use super::trouble::{Code, Trouble};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// How near a name must be to be suggested (Jaro-Winkler, 1.0 is the same).
const NEAR: f64 = 0.7;

/// The folders whose subfolders are apps: the system's, and the caller's own; for root, every user's.
fn places() -> Vec<PathBuf> {
    let user = nix::unistd::geteuid();
    let mut places = vec![PathBuf::from("/run/dogwatch")];
    if user.is_root() {
        let users = std::fs::read_dir("/run/user").into_iter().flatten().flatten();
        places.extend(users.map(|user| user.path().join("dogwatch")));
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) => places.push(Path::new(&folder).join("dogwatch")),
        None => places.push(std::env::temp_dir().join(format!("dogwatch-{user}"))),
    }
    places.dedup();
    places
}

/// Returns the control socket of every app, with the app's name. Nobody may listen there any more.
pub(super) fn sockets() -> Vec<(String, PathBuf)> {
    let mut found = BTreeMap::new();
    for place in places() {
        for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
            let socket = entry.path().join("control");
            // A folder that we may not look into counts: there is somebody.
            let exists = socket.try_exists().unwrap_or(true);
            if exists {
                found.insert(socket, entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    let mut sockets: Vec<_> = found.into_iter().map(|(socket, name)| (name, socket)).collect();
    sockets.sort();
    sockets
}

/// Returns the names of the apps whose primary accepts connections.
pub(super) fn names() -> Vec<String> {
    let answers = |path: &PathBuf| std::os::unix::net::UnixStream::connect(path).is_ok();
    let mut names: Vec<_> =
        sockets().into_iter().filter(|(_, path)| answers(path)).map(|(name, _)| name).collect();
    names.dedup();
    names
}

/// Connects to the primary of `app`: at `path` if one is given, else where its own unit's variables say, else in the
/// usual places.
pub(super) fn find(app: &str, path: Option<&Path>) -> Result<Client, Trouble> {
    if let Some(path) = path {
        let client = connect(app, path)?;
        return client.ok_or_else(|| {
            Trouble::new(
                Code::NotRunning,
                format!("cannot reach '{app}': nobody listens on '{}'", path.display()),
            )
        });
    }
    let own = std::env::var_os("RUNTIME_DIRECTORY");
    let own = own.and_then(|folder| std::env::split_paths(&folder).next());
    let own = own.map(|folder| (None, folder.join("control")));
    let usual = sockets().into_iter().map(|(name, path)| (Some(name), path));
    let mut silent = None;
    for (name, path) in own.into_iter().chain(usual) {
        if name.as_ref().is_some_and(|name| name != app) {
            continue;
        }
        match connect(app, &path) {
            Ok(Some(client)) if client.primary.name == app => return Ok(client),
            Ok(_) => {}
            Err(trouble) => silent = silent.or(Some(trouble)),
        }
    }
    if let Some(trouble) = silent {
        return Err(trouble);
    }
    let trouble =
        Trouble::new(Code::NotRunning, format!("cannot reach '{app}': it is not running"));
    Err(match nearest(app) {
        Some(names) => trouble.hint(names),
        None => trouble,
    })
}

/// `None` when nobody listens there.
fn connect(app: &str, path: &Path) -> Result<Option<Client>, Trouble> {
    match Client::connect(path) {
        Ok(stream) => Client::begin(stream, app).map(Some),
        Err(e)
            if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
        {
            Ok(None)
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let text = format!("cannot reach '{app}': {e}");
            Err(Trouble::new(Code::Failed, text).hint(
                "only root and its own user may, and whom 'control.readers' names in its file",
            ))
        }
        Err(e) => Err(Trouble::new(Code::Failed, format!("cannot reach '{app}': {e}"))),
    }
}

/// What somebody may have meant.
fn nearest(app: &str) -> Option<String> {
    let names = names();
    let mut near: Vec<&String> =
        names.iter().filter(|name| strsim::jaro_winkler(name, app) >= NEAR).collect();
    near.sort_by(|a, b| strsim::jaro_winkler(b, app).total_cmp(&strsim::jaro_winkler(a, app)));
    match (near.as_slice(), names.as_slice()) {
        ([], []) => None,
        ([], some) => Some(format!("running: {}", quoted(some.iter().take(5)))),
        (near, _) => Some(format!("did you mean {}?", quoted(near.iter().copied().take(3)))),
    }
}

fn quoted<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}
