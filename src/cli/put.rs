//! Files that were drafted: looked at, printed or written.

use super::draft::Draft;
use super::text::{print, say};
use super::trouble::{Code, Trouble, Unusable, printable};
use crate::config::{Settings, file};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Looks whether the files would be good ones, each for itself and side by side.
///
/// # Errors
/// Which would not, and why.
pub(super) fn check(drafts: &[Draft]) -> Result<(), Unusable> {
    if drafts.is_empty() {
        return Err(Unusable::from("there is nothing in it that could be run"));
    }
    for (number, draft) in drafts.iter().enumerate() {
        let name = format!("{}.toml", draft.name);
        if drafts[..number].iter().any(|other| other.name == draft.name) {
            return Err(Unusable::from(format!("two apps would be '{name}'"))
                .hint("give each app a name of its own"));
        }
        let settings =
            file::parse(&name, &draft.text()).and_then(|typed| Ok(Settings::new(typed, 1)?));
        settings.map_err(|error| format!("'{name}' would be refused: {error}"))?;
    }
    Ok(())
}

/// Prints the files.
pub(super) fn show(drafts: &[Draft]) -> Result<(), Trouble> {
    for (number, draft) in drafts.iter().enumerate() {
        if drafts.len() > 1 {
            let gap = if number > 0 { "\n" } else { "" };
            say(&format!("{gap}# ---- {}.toml ----", draft.name))?;
        }
        print(&draft.text())?;
    }
    Ok(())
}

/// Returns who may read what is written: only those who may read all that it was made from, for there can be passwords
/// among the variables. Files that are not there do not count.
pub(super) fn mode_of<'a>(sources: impl IntoIterator<Item = &'a Path>) -> u32 {
    let modes = sources.into_iter().filter_map(|source| Some(source.metadata().ok()?.mode()));
    modes.fold(None, |all: Option<u32>, mode| Some(all.unwrap_or(0o666) & mode)).unwrap_or(0o600)
        & 0o666
}

/// Writes the files with this mode, none of them if one is there already.
pub(super) fn write(
    mode: u32,
    folder: &Path,
    drafts: &[Draft],
    force: bool,
) -> Result<(), Trouble> {
    let cannot = |what: &Path, reason: &str| {
        Trouble::new(Code::Failed, format!("cannot write '{}': {reason}", what.display()))
    };
    std::fs::create_dir_all(folder).map_err(|e| cannot(folder, &e.to_string()))?;
    let path = |draft: &Draft| folder.join(format!("{}.toml", draft.name));
    let mut taken = drafts.iter().map(path).filter(|path| path.symlink_metadata().is_ok());
    if let Some(path) = taken.next().filter(|_| !force) {
        return Err(cannot(&path, "it is there already; nothing was written")
            .hint("'--force' writes over it, '-o' names another directory"));
    }
    for (number, draft) in drafts.iter().enumerate() {
        let path = path(draft);
        let mut options = OpenOptions::new();
        options.write(true).mode(mode).truncate(force).create(force).create_new(!force);
        let written =
            options.open(&path).and_then(|mut file| file.write_all(draft.text().as_bytes()));
        written.map_err(|e| {
            let before = if number > 0 { "; those before it were written" } else { "" };
            cannot(&path, &format!("{e}{before}"))
        })?;
        say(&format!("wrote {}", path.display()))?;
    }
    Ok(())
}

/// Says on standard error what is not as it was.
#[expect(clippy::print_stderr, reason = "it is not what was asked for, but has to be known")]
pub(super) fn remark(general: &[String], drafts: &[Draft]) {
    let lines = drafts.iter().flat_map(Draft::lines);
    for line in general.iter().cloned().chain(lines) {
        eprintln!("{}", printable(&line));
    }
}
