//! The files of a directory, and what stands beside each on this machine.

use crate::config::units::{Found, Scope};
use crate::primary::{read_config, refuse_name};
use std::io;
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
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(cannot(e)),
    };
    let folder = std::path::absolute(folder).map_err(cannot)?;
    let mut all = vec![];
    for entry in entries {
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
            text: read_config(&path).map_err(|e| e.to_string()),
            path: path.to_string_lossy().into_owned(),
            unnameable: unnameable(name, scope),
            is_there: is_there(name, scope),
        });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Returns why there can be no units of this name.
fn unnameable(name: &str, scope: Scope) -> Option<String> {
    if let Some(reason) = refuse_name(name) {
        return Some(reason);
    }
    // "a@b" would be an instance of the template "a@", and the name is an argument of ours.
    if name.contains('@') || name.starts_with('-') {
        return Some(format!(
            "'{name}' cannot be the name of a unit of its own, which has no '@' and no '-' first"
        ));
    }
    if name == REPORTER {
        return Some(format!("'{name}' is the name of a unit of dogwatch itself"));
    }
    let packaged = match scope {
        Scope::System => PACKAGED,
        Scope::User => PACKAGED_FOR_USERS,
    };
    let units = packaged.iter().flat_map(|folder| {
        ["socket", "service"].map(|kind| Path::new(folder).join(format!("{name}.{kind}")))
    });
    let taken = units.into_iter().find(|unit| unit.symlink_metadata().is_ok());
    taken.map(|unit| {
        format!(
            "a package has a unit of this name, '{}'; call the file something else",
            unit.display()
        )
    })
}

/// Whether an app's socket unit is active, which has made this directory, or its primary runs.
fn is_there(name: &str, scope: Scope) -> bool {
    let base = match scope {
        Scope::System => Some(PathBuf::from("/run")),
        Scope::User => std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
    };
    base.is_some_and(|base| base.join("dogwatch").join(name).is_dir())
}
