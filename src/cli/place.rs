//! Where the process file is and where its apps are to run: folders and files as they can be seen from here.

use super::draft::{Draft, Table};
use super::trouble::Unusable;
use crate::sys::spawn;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

/// Where systemd looks for programs, unless a unit says otherwise (systemd.exec(5)).
const SERVICE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a translation knows of the machine.
#[derive(Debug)]
pub(super) struct Place {
    /// The process file as it was named.
    pub(super) file: PathBuf,
    /// Its folder, absolute.
    pub(super) folder: PathBuf,
    /// Where programs are looked for here.
    path: OsString,
    /// Where nvm has its versions of Node.
    nvm: Option<PathBuf>,
    /// The signal that PM2 was told to stop with.
    pub(super) kill_signal: Option<String>,
}

impl Place {
    /// Returns the place of a file, with what the caller's environment says.
    pub(super) fn of(file: &Path) -> Self {
        let folder = resolve(&current_folder(), file.parent().unwrap_or(Path::new("")));
        Self {
            file: file.to_owned(),
            folder,
            path: std::env::var_os("PATH").unwrap_or_else(|| SERVICE_PATH.into()),
            nvm: std::env::var_os("NVM_DIR").map(PathBuf::from),
            kill_signal: std::env::var("PM2_KILL_SIGNAL").ok().filter(|name| !name.is_empty()),
        }
    }

    /// A place without programs, for tests.
    #[cfg(test)]
    pub(super) fn nowhere(folder: &str) -> Self {
        let (file, folder) = (PathBuf::from("ecosystem.config.js"), PathBuf::from(folder));
        Self { file, folder, path: OsString::new(), nvm: None, kill_signal: None }
    }

    /// Returns a directory that the file names.
    pub(super) fn directory(&self, named: Option<&str>) -> PathBuf {
        resolve(&self.folder, Path::new(named.unwrap_or("")))
    }

    /// Returns the program of this name that a shell here would start.
    pub(super) fn which(&self, name: &str) -> Option<PathBuf> {
        spawn::find(name, &self.path, None).ok().filter(|_| !name.contains('/'))
    }

    /// Returns the `PATH` that a service needs to find a program that is here, where that is not systemd's own.
    pub(super) fn path_for(&self, program: &str) -> Option<String> {
        let found = self.which(program)?;
        if spawn::find(program, SERVICE_PATH.as_ref(), None).is_ok() {
            return None;
        }
        Some(format!("{}:{SERVICE_PATH}", found.parent()?.to_str()?))
    }

    /// Lets services find a program that only the caller's PATH has.
    pub(super) fn reach(&self, draft: &mut Draft) {
        let command = draft.get(Table::Top, "command").and_then(toml::Value::as_array);
        let Some(program) = command.and_then(|words| words.first()?.as_str().map(str::to_owned))
        else {
            return;
        };
        let Some(path) = self.path_for(&program) else { return };
        if draft.get(Table::Env, "PATH").is_none() {
            draft.set(Table::Env, "PATH", path);
            let text = format!(
                "'{program}' is where services do not look; a service does not see a user's home either ('home' in [sandbox])"
            );
            draft.remark_at(Table::Env, "PATH", "PATH", text);
        }
    }

    /// Returns the Node of this version that nvm has installed.
    pub(super) fn nvm_node(&self, version: &str) -> Option<String> {
        let node = self.nvm.as_ref()?.join(format!("versions/node/v{version}/bin/node"));
        node.is_file().then(|| node.to_str().map(str::to_owned)).flatten()
    }
}

/// No file that says how something is run is larger.
const LARGEST: u64 = 1024 * 1024;

/// Returns the text of a file that says how something is run.
///
/// # Errors
/// When it is no regular file, larger than 1 MB, or no text.
pub(super) fn text(file: &Path) -> Result<String, Unusable> {
    let cannot = |e: std::io::Error| Unusable::from(e.to_string());
    let metadata = std::fs::metadata(file).map_err(cannot)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "it is a directory" } else { "it is not a regular file" };
        return Err(Unusable::from(what));
    }
    let mut bytes = vec![];
    std::fs::File::open(file)
        .map_err(cannot)?
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Unusable::from("it is larger than 1 MB, which no such file is"));
    }
    let text = String::from_utf8(bytes).map_err(|_| Unusable::from("it is not UTF-8"))?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

/// Returns the beginning of a file, if it can be read.
pub(super) fn beginning(file: &Path) -> Option<Vec<u8>> {
    let is_file = std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file());
    let mut bytes = vec![];
    std::fs::File::open(file).ok().filter(|_| is_file)?.take(512).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The caller's folder as the shell has it: a symlink that is switched by deploys (`/srv/myapp/current`) is to stay one.
fn current_folder() -> PathBuf {
    let actual = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let shells = std::env::var_os("PWD").map(PathBuf::from).filter(|path| path.is_absolute());
    let same = |path: &PathBuf| path.canonicalize().ok() == actual.canonicalize().ok();
    shells.filter(same).unwrap_or(actual)
}

/// Joins two paths without `.` and `..`. Symlinks stay, but for those that `..` goes back through: there the kernel's way
/// counts, as far as it goes.
pub(super) fn resolve(from: &Path, path: &Path) -> PathBuf {
    let joined = from.join(path);
    let goes_back = path.components().any(|part| part == Component::ParentDir);
    let actual = if goes_back { joined.canonicalize().ok() } else { None };
    actual.unwrap_or_else(|| plain(&joined))
}

/// What an app in a folder is called where nothing says its name: as the folder is; where that is the symlink that deploys
/// switch, as the folder around it.
pub(super) fn called(folder: &Path) -> String {
    let own = folder.file_name().unwrap_or_default();
    let around = folder.parent().and_then(Path::file_name).filter(|_| own == "current");
    around.unwrap_or(own).to_string_lossy().into_owned()
}

/// Takes out `.` and `..` by the text alone, as Node's path.resolve does.
fn plain(path: &Path) -> PathBuf {
    let mut whole = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => whole.push(name),
            Component::ParentDir => {
                whole.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn directories_are_relative_to_the_file() {
        let place = Place::nowhere("/srv/shop/config");
        for (named, expected) in [
            (None, "/srv/shop/config"),
            (Some("."), "/srv/shop/config"),
            (Some("../"), "/srv/shop"),
            (Some("../../../../x"), "/x"),
            (Some("/opt//a/./b"), "/opt/a/b"),
        ] {
            assert_eq!(place.directory(named), Path::new(expected));
        }
        assert!(Place::of(Path::new("x.json")).folder.is_absolute());
    }

    #[test]
    fn symlinks_stay_unless_one_goes_back_through_them() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("releases/42")).unwrap();
        std::os::unix::fs::symlink(root.join("releases/42"), root.join("current")).unwrap();
        let current = root.join("current");
        assert_eq!(resolve(&root, Path::new("current/.")), current);
        assert_eq!(resolve(&current, Path::new("..")), root.join("releases"));
        assert_eq!(resolve(&current, Path::new("../gone")), root.join("gone"));
    }

    #[test]
    fn an_app_is_called_as_its_folder() {
        for (folder, name) in [
            ("/srv/shop", "shop"),
            ("/srv/shop/current", "shop"),
            ("/current", "current"),
            ("/", ""),
        ] {
            assert_eq!(called(Path::new(folder)), name);
        }
    }

    #[test]
    fn a_program_that_services_do_not_find_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("no-such-node");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut place = Place::nowhere("/");
        assert_eq!(place.which("no-such-node"), None);
        place.path = folder.path().into();
        assert_eq!(place.which("no-such-node"), Some(program));
        let path = place.path_for("no-such-node").unwrap();
        assert_eq!(path, format!("{}:{SERVICE_PATH}", folder.path().display()));
        assert_eq!(place.path_for("sh"), None, "it is not on PATH");
        assert_eq!(place.which("/bin/sh"), None, "that is no name");
    }
}
