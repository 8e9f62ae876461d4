//! `dogwatch import`: a process file of PM2 becomes one file of ours for each app. What cannot be said there is named, with
//! the reason.

mod attributes;
mod command;
mod document;
mod draft;
mod elsewhere;
mod environment;
mod lifecycle;
mod node;
mod place;
mod read;
#[cfg(test)]
mod tests;
mod translate;
mod words;

use super::text::{print, say};
use super::trouble::{Code, Trouble, printable};
use crate::config::{Settings, file};
use document::Document;
use draft::Draft;
use place::Place;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use translate::{Translation, Wanted, translate};

/// What `import` is to do.
#[derive(Debug, clap::Args)]
pub(super) struct ImportArguments {
    /// PM2's file: ecosystem.config.js, .cjs or .mjs, .json, .yml or .yaml
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Take the variables of env_NAME, too
    #[arg(long, value_name = "NAME")]
    env: Option<String>,
    /// Write APP.toml into this directory [default: to standard output]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write over files that are there
    #[arg(long, requires = "output")]
    force: bool,
}

/// Why a process file cannot be used: words that fit after `cannot import 'FILE': `.
#[derive(Debug)]
struct Unusable {
    reason: String,
    hint: Option<String>,
}

impl Unusable {
    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl<T: Into<String>> From<T> for Unusable {
    fn from(reason: T) -> Self {
        Self { reason: reason.into(), hint: None }
    }
}

/// Translates a file, and prints or writes what comes of it.
pub(super) fn import(arguments: &ImportArguments) -> Result<ExitCode, Trouble> {
    let place = Place::of(&arguments.file);
    let imported = translated(&place, arguments.env.as_deref()).map_err(|unusable| {
        let name = arguments.file.display();
        let message = format!("cannot import '{name}': {}", unusable.reason);
        Trouble { hint: unusable.hint, ..Trouble::new(Code::Usage, message) }
    })?;
    match &arguments.output {
        Some(folder) => write(&arguments.file, folder, &imported.drafts, arguments.force)?,
        None => show(&imported.drafts)?,
    }
    remark(&imported);
    Ok(ExitCode::SUCCESS)
}

/// What came of a process file.
struct Imported {
    drafts: Vec<Draft>,
    /// What concerns no app that was translated.
    remarks: Vec<String>,
}

fn translated(place: &Place, environment: Option<&str>) -> Result<Imported, Unusable> {
    let absolute = place.folder.join(place.file.file_name().unwrap_or_default());
    let mut document = Document::new(read::read(&place.file, &absolute)?)?;
    if let Some(name) = environment {
        document.has(name)?;
    }
    let mut imported = Imported { drafts: vec![], remarks: std::mem::take(&mut document.remarks) };
    let apps = std::mem::take(&mut document.apps);
    let deployed = environment.and_then(|name| document.deployed(name));
    for app in apps {
        match translate(app, Wanted { place, environment, deployed })? {
            Translation::File(draft) => imported.drafts.push(draft),
            Translation::None(reason) => imported.remarks.push(reason),
        }
    }
    check(&imported.drafts)?;
    Ok(imported)
}

/// Looks whether the files would be good ones, each for itself and side by side.
fn check(drafts: &[Draft]) -> Result<(), Unusable> {
    if drafts.is_empty() {
        return Err(Unusable::from("there is nothing in it that could be run"));
    }
    for (number, draft) in drafts.iter().enumerate() {
        let name = format!("{}.toml", draft.name);
        if drafts[..number].iter().any(|other| other.name == draft.name) {
            return Err(Unusable::from(format!("two apps would be '{name}'"))
                .hint("give each app a name of its own"));
        }
        let settings = file::parse(&name, &draft.text()).and_then(|typed| Settings::new(typed, 1));
        settings.map_err(|error| format!("'{name}' would be refused: {error}"))?;
    }
    Ok(())
}

/// Prints the files.
fn show(drafts: &[Draft]) -> Result<(), Trouble> {
    for (number, draft) in drafts.iter().enumerate() {
        if drafts.len() > 1 {
            let gap = if number > 0 { "\n" } else { "" };
            say(&format!("{gap}# ---- {}.toml ----", draft.name))?;
        }
        print(&draft.text())?;
    }
    Ok(())
}

/// Writes the files, none of them if one is there already. They may be read by whom the process file may be read: there can
/// be passwords among the variables.
fn write(source: &Path, folder: &Path, drafts: &[Draft], force: bool) -> Result<(), Trouble> {
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
    let mode = source.metadata().map_or(0o600, |metadata| metadata.mode() & 0o666);
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
fn remark(imported: &Imported) {
    let lines = imported.drafts.iter().flat_map(Draft::lines);
    for line in imported.remarks.iter().cloned().chain(lines) {
        eprintln!("{}", printable(&line));
    }
}
