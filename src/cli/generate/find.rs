//! The files of a directory, and what stands beside each on this machine.

use crate::config::Error;
use crate::config::units::{Found, Kept, Scope};
use crate::primary::{read_config, refuse_name};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where a machine's files are.
const SYSTEM: &str = "/etc/dogwatch";

/// Where packages put units (`systemd.unit(5)`, "Unit File Load Path"); what a generator writes would win over them.
const PACKAGED: [&str; 3] =
    ["/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
const PACKAGED_FOR_USERS: [&str; 3] =
    ["/usr/local/lib/systemd/user", "/usr/lib/systemd/user", "/usr/share/systemd/user"];

/// The unit that says what was refused at boot.
pub(super) const REPORTER: &str = "dogwatch-refused";

/// Returns the directory of a manager's files; `None` when a user has no home.
pub(in crate::cli) fn folder(scope: Scope) -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    match scope {
        Scope::System => Some(PathBuf::from(SYSTEM)),
        Scope::User => set("XDG_CONFIG_HOME")
            .or_else(|| set("HOME").map(|home| home.join(".config")))
            .map(|config| config.join("dogwatch")),
    }
}

/// Returns the files of a directory, in the order of their names; none when there is no such directory.
pub(super) fn files(folder: &Path, scope: Scope) -> Result<Vec<Found>, String> {
    let cannot = |e: io::Error| format!("cannot read directory '{}': {e}", folder.display());
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => Some(entries),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(cannot(e)),
    };
    let folder = std::path::absolute(folder).map_err(cannot)?;
    let mut all = vec![];
    for entry in entries.into_iter().flatten() {
        let file_name = entry.map_err(cannot)?.file_name();
        let file_name = file_name.to_string_lossy();
        // Hidden ones are an editor's.
        let Some(name) = file_name.strip_suffix(".toml").filter(|name| !name.starts_with('.'))
        else {
            continue;
        };
        let path = folder.join(&*file_name);
        all.push(Found {
            name: name.to_owned(),
            text: check_owner(&path, scope).and_then(|()| read(&path)),
            path: path.to_string_lossy().into_owned(),
            unnameable: unnameable(name, scope),
            kept: kept(name, scope),
        });
    }
    all.extend(gone(&folder, scope, &all));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Returns a file that may be anybody's, with nothing of this machine beside it.
pub(super) fn anywhere(path: &Path) -> Found {
    let name = name(path);
    Found {
        text: read(path),
        path: path.to_string_lossy().into_owned(),
        unnameable: impossible(&name),
        kept: None,
        name,
    }
}

/// Returns the name of the units of a file.
pub(super) fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(".toml").unwrap_or(&name).to_owned()
}

fn read(path: &Path) -> Result<String, Error> {
    read_config(path).map_err(|e| plain(e.to_string()))
}

fn plain(message: String) -> Error {
    Error { message, hint: None }
}

/// Whoever may write a machine's file says what root is to do.
///
/// # Errors
/// As stat(2); also when somebody else may write it.
fn check_owner(path: &Path, scope: Scope) -> Result<(), Error> {
    let metadata = path.metadata().map_err(|e| plain(e.to_string()))?;
    let (mode, owner, group) = (metadata.mode(), metadata.uid(), metadata.gid());
    let is_roots = owner == 0 && mode & 0o002 == 0 && (mode & 0o020 == 0 || group == 0);
    if scope == Scope::User || is_roots {
        return Ok(());
    }
    let path = path.display();
    Err(Error {
        message: "others than root may write it, and what it says is done as root".to_owned(),
        hint: Some(format!("'chown root {path}' and 'chmod go-w {path}'")),
    })
}

/// Returns why there can be no units of this name on any machine.
fn impossible(name: &str) -> Option<Error> {
    if let Some(reason) = refuse_name(name) {
        return Some(misnamed(reason));
    }
    // "a@b" would be an instance of the template "a@", and the name is an argument of ours.
    if name.contains('@') || name.starts_with('-') {
        return Some(misnamed(format!(
            "'{name}' cannot be the name of a unit of its own, which has no '@' and no '-' first"
        )));
    }
    (name == REPORTER)
        .then(|| misnamed(format!("'{name}' is the name of a unit of dogwatch itself")))
}

fn misnamed(message: String) -> Error {
    Error { message, hint: Some("call the file something else".to_owned()) }
}

/// Returns why there can be no units of this name here.
fn unnameable(name: &str, scope: Scope) -> Option<Error> {
    if let Some(error) = impossible(name) {
        return Some(error);
    }
    let packaged = match scope {
        Scope::System => PACKAGED,
        Scope::User => PACKAGED_FOR_USERS,
    };
    let units = packaged.iter().flat_map(|folder| {
        ["socket", "service"].map(|kind| Path::new(folder).join(format!("{name}.{kind}")))
    });
    let taken = units.into_iter().find(|unit| unit.symlink_metadata().is_ok());
    taken.map(|unit| misnamed(format!("a package has a unit of this name, '{}'", unit.display())))
}

/// Where sockets note the units that are in force.
fn notes(scope: Scope) -> Option<PathBuf> {
    let base = match scope {
        Scope::System => Some(PathBuf::from("/run")),
        Scope::User => std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
    };
    base.map(|base| base.join("dogwatch-units"))
}

/// Returns the units of an app whose socket listens.
fn kept(name: &str, scope: Scope) -> Option<Kept> {
    let folder = notes(scope)?;
    let unit = |kind: &str| read_config(&folder.join(format!("{name}.{kind}"))).ok();
    Some(Kept { socket: unit("socket")?, service: unit("service")? })
}

/// Returns the apps that are there, and whose files are gone.
fn gone(folder: &Path, scope: Scope, files: &[Found]) -> Vec<Found> {
    let entries = notes(scope).and_then(|notes| std::fs::read_dir(notes).ok());
    let names =
        entries.into_iter().flatten().flatten().filter_map(|entry| {
            Some(entry.file_name().to_str()?.strip_suffix(".socket")?.to_owned())
        });
    let is_gone = |name: &String| !files.iter().any(|found| found.name == *name);
    let one = |name: String| Found {
        text: Err(plain("it is gone".to_owned())),
        path: folder.join(format!("{name}.toml")).to_string_lossy().into_owned(),
        unnameable: unnameable(&name, scope),
        kept: kept(&name, scope),
        name,
    };
    names.filter(is_gone).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_machines_file_that_others_may_write_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.toml");
        std::fs::write(&path, "command = [\"x\"]").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let error = check_owner(&path, Scope::System).unwrap_err();
        assert!(error.message.starts_with("others than root may write it"), "{error}");
        let path = path.display();
        assert_eq!(error.hint.unwrap(), format!("'chown root {path}' and 'chmod go-w {path}'"));
        let found = files(folder.path(), Scope::User).unwrap();
        assert!(found[0].text.is_ok());
        assert!(files(folder.path(), Scope::System).unwrap()[0].text.is_err());
    }
}
