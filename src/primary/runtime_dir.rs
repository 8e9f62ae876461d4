//! The folder for sockets of our own: what systemd made for us, else one under /run or of the user.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Where the folders of root's apps are.
const SYSTEM: &str = "/run/dogwatch";

/// Returns the folder for the sockets of `app`, made if need be, for our user alone.
///
/// # Errors
/// As mkdir(2); also when the folder belongs to somebody else.
pub(super) fn prepare(app: &str) -> io::Result<PathBuf> {
    let path = choose(app);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
    if let Some(base) = path.parent()
        && base == Path::new(SYSTEM)
        && nix::unistd::geteuid().is_root()
    {
        // As systemd makes it; whom control.readers names comes through here.
        std::fs::set_permissions(base, std::fs::Permissions::from_mode(0o755))?;
    }
    if std::env::var_os("RUNTIME_DIRECTORY").is_none() {
        // In /tmp anybody may have been there before us: with a link, or a folder in which things can be renamed.
        path.parent().map_or(Ok(()), check_owner)?;
        check_owner(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
    } else {
        // What systemd made may be reached by a link.
        check_owner(&path.canonicalize()?)?;
    }
    Ok(path)
}

fn check_owner(folder: &Path) -> io::Result<()> {
    let metadata = folder.symlink_metadata()?;
    let owner = metadata.uid();
    if metadata.is_dir() && owner == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    let reason = format!("'{}' is no folder of ours, it belongs to user {owner}", folder.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

/// Where `prepare` makes it.
pub(super) fn choose(app: &str) -> PathBuf {
    // RuntimeDirectory= in systemd.exec(5): several are separated by colons, ours is the first.
    if let Some(given) = std::env::var_os("RUNTIME_DIRECTORY")
        && let Some(first) = std::env::split_paths(&given).next()
    {
        return first;
    }
    let user = nix::unistd::geteuid();
    let base = match std::env::var_os("XDG_RUNTIME_DIR") {
        _ if user.is_root() => PathBuf::from(SYSTEM),
        Some(base) => Path::new(&base).join("dogwatch"),
        None => std::env::temp_dir().join(format!("dogwatch-{user}")),
    };
    base.join(app)
}

/// Removes the folder at the end, if it is ours to remove and nobody else's primary uses it.
pub(super) fn remove(folder: &Path) {
    if std::env::var_os("RUNTIME_DIRECTORY").is_none() {
        let _ = std::fs::remove_dir(folder);
    }
}

/// Returns the path of a worker's notify socket. The primary's pid is in it: two primaries may run an app of the same
/// name.
pub(super) fn notify_socket(folder: &Path, worker: u64) -> PathBuf {
    folder.join(format!("notify-{}-{worker}", std::process::id()))
}

/// Removes notify sockets that a primary left behind that is dead by now, but for those `in_use`.
pub(super) fn remove_stale(folder: &Path, in_use: &[&Path]) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let pid = name
            .strip_prefix("notify-")
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        let alive = |pid| Path::new(&format!("/proc/{pid}")).exists();
        let is_stale = pid.is_some_and(|pid| pid == std::process::id() || !alive(pid));
        if is_stale && !in_use.contains(&entry.path().as_path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
