//! `dogwatch init`: looks at a project and writes the file that runs it, with the reason for each decision. Nothing of the
//! project is executed.

mod go;
mod node;
mod php;
mod procfile;
mod project;
pub(super) mod python;
mod ruby;
mod rust;
#[cfg(test)]
mod tests;
mod write;

use super::draft::{Draft, valid_name};
use super::trouble::{Code, Trouble, Unusable};
use super::{place, put};
use crate::config::values::Address;
use crate::primary::refuse_name;
use project::Project;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What `init` is to do.
#[derive(Debug, clap::Args)]
pub(super) struct InitArguments {
    /// The project's folder
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Write APP.toml into this directory, or this file, whose name is then the app's [default: to standard output]
    #[arg(short, long, value_name = "DIR|FILE")]
    output: Option<PathBuf>,
    /// What the app is called [default: what the project is called, else its folder]
    #[arg(long, value_name = "APP")]
    name: Option<String>,
    /// Where to listen: PORT (on all addresses), ADDR:PORT, [V6]:PORT or unix:PATH [default: what the project says, else what is usual for it]
    #[arg(short, long, value_name = "ADDR")]
    listen: Option<Address>,
    /// Write over a file that is there
    #[arg(long, requires = "output")]
    force: bool,
}

/// What says that a project is of a kind.
struct Sign {
    text: String,
    /// It is what serves, or says what does: not a file that is in projects of other kinds too.
    is_sure: bool,
}

impl Sign {
    fn sure(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_sure: true }
    }

    fn weak(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_sure: false }
    }
}

/// A kind of project.
struct Kind {
    name: &'static str,
    seen: fn(&Project) -> Option<Sign>,
    /// What such a project calls itself.
    called: fn(&Project) -> Option<String>,
    /// Writes what runs it.
    write: fn(&Project, &mut Draft) -> Result<(), Unusable>,
}

/// In order of preference among signs of one weight. A Procfile is its owner's word; a package.json is in many projects that
/// are none of Node's.
const KINDS: [Kind; 7] = [
    Kind {
        name: "Procfile",
        seen: procfile::seen,
        called: procfile::called,
        write: procfile::write,
    },
    Kind { name: "Ruby", seen: ruby::seen, called: ruby::called, write: ruby::write },
    Kind { name: "Python", seen: python::seen, called: python::called, write: python::write },
    Kind { name: "PHP", seen: php::seen, called: php::called, write: php::write },
    Kind { name: "Go", seen: go::seen, called: go::called, write: go::write },
    Kind { name: "Rust", seen: rust::seen, called: rust::called, write: rust::write },
    Kind { name: "Node", seen: node::seen, called: node::called, write: node::write },
];

/// Looks at a project, and prints or writes what runs it.
pub(super) fn init(arguments: &InitArguments) -> Result<ExitCode, Trouble> {
    let what = format!("init '{}'", arguments.folder.display());
    let (name, folder) = named(arguments)?;
    let listen = arguments.listen.as_ref().map(ToString::to_string);
    let project = Project::of(&arguments.folder, listen).map_err(|u| u.trouble(&what))?;
    let (draft, remarks) = drafted(&project, name).map_err(|unusable| unusable.trouble(&what))?;
    let drafts = [draft];
    put::check(&drafts).map_err(|unusable| unusable.trouble(&what))?;
    match folder {
        Some(folder) => {
            put::write(project.mode(), &folder, &drafts, arguments.force)?;
        }
        None => put::show(&drafts)?,
    }
    put::remark(&remarks, &drafts);
    Ok(ExitCode::SUCCESS)
}

/// The name that was given, and the folder to write into.
fn named(arguments: &InitArguments) -> Result<(Option<String>, Option<PathBuf>), Trouble> {
    let mut name = arguments.name.clone();
    let mut folder = arguments.output.clone();
    if let Some(file) = arguments.output.as_ref().filter(|path| is_file(path)) {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name.as_ref().is_some_and(|name| *name != stem) {
            let text =
                format!("cannot write '{}': its name is not that of '--name'", file.display());
            return Err(Trouble::new(Code::Usage, text));
        }
        name = Some(stem);
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        folder = Some(parent.unwrap_or(Path::new(".")).to_owned());
    }
    match name.as_deref().and_then(refuse_name) {
        Some(message) => Err(Trouble::new(Code::Usage, message)),
        None => Ok((name, folder)),
    }
}

fn is_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml") && !path.is_dir()
}

/// Drafts the file of a project, and says what concerns more than it.
fn drafted(project: &Project, name: Option<String>) -> Result<(Draft, Vec<String>), Unusable> {
    let mut seen: Vec<(&Kind, Sign)> =
        KINDS.iter().filter_map(|kind| Some((kind, (kind.seen)(project)?))).collect();
    seen.sort_by_key(|(_, sign)| !sign.is_sure);
    let mut seen = seen.into_iter();
    let Some((kind, sign)) = seen.next() else {
        return Err(nothing(project));
    };
    let called = (kind.called)(project).filter(|name| !name.trim().is_empty());
    let wanted = called.unwrap_or_else(|| place::called(&project.folder));
    let name = name.unwrap_or_else(|| valid_name(&wanted));
    let head = format!("{name}: written by 'dogwatch init', {}: {}.", kind.name, sign.text);
    let mut draft = Draft::new(name, head, "What is left to do");
    write::around(project, &mut draft)?;
    (kind.write)(project, &mut draft).map_err(|unusable| elsewhere(project, unusable))?;
    write::workers(project, &mut draft);
    project.place.reach(&mut draft);
    let mut remarks: Vec<String> = seen
        .map(|(other, sign)| format!("also seen, and not used: {} ({})", other.name, sign.text))
        .collect();
    remarks.extend(project.trouble());
    if let Some(file) = project.process_file() {
        remarks
            .push(format!("'{file}' is of PM2: 'dogwatch import {file}' takes over what it says"));
    }
    Ok((draft, remarks))
}

/// Files that are there although nothing is made of them, and what they lack.
const LACKING: [(&str, &str); 3] = [
    ("Procfile", "has no line 'web'"),
    ("Gemfile", "names none of rails, puma and sinatra"),
    (
        "package.json",
        "has no script 'start', no 'main' that is there, and none of the frameworks that init knows",
    ),
];

fn nothing(project: &Project) -> Unusable {
    if let Some(what) = node::many(project) {
        let text = format!("{what}: it is several packages, none of which serves from here");
        return elsewhere(project, Unusable::from(text));
    }
    let said = project.trouble().into_iter().next();
    let lacking: Vec<String> = LACKING
        .iter()
        .filter(|(name, _)| project.has(name) && said.is_none())
        .map(|(name, lack)| format!("{name} {lack}"))
        .collect();
    let mut reason = "nothing in it says what to run: ".to_owned();
    reason.push_str(&match said {
        Some(said) => format!("{ANY} that could be used; {said}"),
        None if lacking.is_empty() => ANY.to_owned(),
        None => lacking.join("; "),
    });
    let hint = "for any other program write command = [\"PROGRAM\", \"ARGUMENT\"] into a file by hand ('dogwatch man dogwatch.toml')";
    elsewhere(project, Unusable::from(reason).hint(hint))
}

const ANY: &str = "there is no Procfile, package.json, pyproject.toml, requirements.txt, manage.py, Gemfile, config.ru, composer.json, go.mod or Cargo.toml";

/// Why nothing is made of a project, with the file or the folder that there is more to be made of.
fn elsewhere(project: &Project, unusable: Unusable) -> Unusable {
    if let Some(file) = project.importable() {
        return unusable.hint(format!("'dogwatch import {file}' takes over what that file says"));
    }
    if node::many(project).is_some() {
        return unusable.hint("call 'dogwatch init' in the folder of the package that serves");
    }
    unusable
}
