//! `dogwatch import`: the file of another process manager becomes one file of ours for each app. What cannot be said there
//! is named, with the reason.

mod evaluate;
pub(super) mod gunicorn;
mod pm2;
pub(super) mod procfile;
pub(super) mod puma;
pub(super) mod serve;
#[cfg(test)]
mod tests;
pub(super) mod variables;

use super::draft::Draft;
use super::place::Place;
use super::put;
use super::trouble::{Trouble, Unusable};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What `import` is to do.
#[derive(Debug, clap::Args)]
pub(super) struct ImportArguments {
    /// PM2's file (ecosystem.config.js, .cjs or .mjs, .json, .yml or .yaml), a Procfile, gunicorn.conf.py or puma.rb
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Take the variables of env_NAME of PM2's file, too
    #[arg(long, value_name = "NAME")]
    env: Option<String>,
    /// Write APP.toml into this directory [default: to standard output]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write over files that are there
    #[arg(long, requires = "output")]
    force: bool,
}

/// What came of a file.
struct Imported {
    drafts: Vec<Draft>,
    /// What concerns no app that was translated.
    remarks: Vec<String>,
}

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pm2,
    Procfile,
    Gunicorn,
    Puma,
}

impl Kind {
    /// By its name, which is how their owners find it, too.
    fn of(file: &Path) -> Self {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        match name.as_ref() {
            "Procfile" => Self::Procfile,
            name if name.starts_with("Procfile.") => Self::Procfile,
            name if name.ends_with(".py") => Self::Gunicorn,
            name if name.ends_with(".rb") => Self::Puma,
            _ => Self::Pm2,
        }
    }
}

/// Translates a file, and prints or writes what comes of it.
pub(super) fn import(arguments: &ImportArguments) -> Result<ExitCode, Trouble> {
    let place = Place::of(&arguments.file);
    let imported = translated(&place, arguments.env.as_deref())
        .map_err(|unusable| unusable.trouble(&format!("import '{}'", arguments.file.display())))?;
    match &arguments.output {
        Some(folder) => {
            let mode = put::mode_of([arguments.file.as_path()]);
            put::write(mode, folder, &imported.drafts, arguments.force)?;
        }
        None => put::show(&imported.drafts)?,
    }
    put::remark(&imported.remarks, &imported.drafts);
    Ok(ExitCode::SUCCESS)
}

fn translated(place: &Place, environment: Option<&str>) -> Result<Imported, Unusable> {
    let kind = Kind::of(&place.file);
    if let (Some(_), Kind::Procfile | Kind::Gunicorn | Kind::Puma) = (environment, kind) {
        return Err(Unusable::from("'--env' is for files of PM2"));
    }
    let imported = match kind {
        Kind::Pm2 => pm2::translated(place, environment),
        Kind::Procfile => procfile::translated(place),
        Kind::Gunicorn => gunicorn::translated(place),
        Kind::Puma => puma::translated(place),
    }?;
    put::check(&imported.drafts)?;
    Ok(imported)
}
