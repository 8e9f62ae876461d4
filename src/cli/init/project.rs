//! A project as it can be seen from outside: its files, within bounds.

use crate::cli::import::serve::Web;
use crate::cli::import::variables::Variables;
use crate::cli::place::{self, Place};
use crate::cli::put;
use crate::cli::trouble::Unusable;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// So many files are looked at for what they mention, so deep, in so many folders.
const MOST_FILES: usize = 400;
const DEEPEST: usize = 5;
const MOST_FOLDERS: usize = 400;

/// Folders that hold what others wrote, or what was built.
pub(super) const FOREIGN: [&str; 12] = [
    "node_modules",
    "vendor",
    "target",
    "venv",
    "env",
    "dist",
    "build",
    "__pycache__",
    "site-packages",
    "tmp",
    "testdata",
    "coverage",
];

/// PM2's files.
const PROCESS_FILES: [&str; 6] = [
    "ecosystem.config.js",
    "ecosystem.config.cjs",
    "ecosystem.config.mjs",
    "ecosystem.json",
    "process.json",
    "process.yml",
];

/// A project.
#[derive(Debug)]
pub(super) struct Project {
    /// Its folder, absolute, with the symlinks that it was named by.
    pub(super) folder: PathBuf,
    pub(super) place: Place,
    /// Where it is to listen, if that was said.
    pub(super) listen: Option<String>,
    /// Its `.env`.
    pub(super) variables: Variables,
    /// Why some of its files were not looked at.
    trouble: RefCell<BTreeSet<String>>,
}

impl Project {
    /// Returns the project in a folder.
    ///
    /// # Errors
    /// When that is none, or has a name that cannot be written down.
    pub(super) fn of(folder: &Path, listen: Option<String>) -> Result<Self, Unusable> {
        let place = Place::of(&folder.join("package.json"));
        let folder = place.folder.clone();
        let metadata = folder.metadata().map_err(|e| Unusable::from(e.to_string()))?;
        if !metadata.is_dir() {
            return Err(Unusable::from("it is not a directory"));
        }
        if folder.to_str().is_none() {
            return Err(Unusable::from("its path is not UTF-8"));
        }
        let variables = Variables::beside(&folder);
        Ok(Self { folder, place, listen, variables, trouble: RefCell::default() })
    }

    /// Returns the text of a file of the project; `None` where there is none that can be used.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let file = self.folder.join(name);
        file.symlink_metadata().ok()?;
        match place::text(&file) {
            Ok(text) => Some(text),
            Err(unusable) => {
                let text = format!("'{name}' was not looked at: {}", unusable.reason);
                self.trouble.borrow_mut().insert(text);
                None
            }
        }
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, name: &str) -> bool {
        self.folder.join(name).is_file()
    }

    /// Whether there is such a folder.
    pub(super) fn has_folder(&self, name: &str) -> bool {
        self.folder.join(name).is_dir()
    }

    /// Notes why something was not looked at.
    pub(super) fn note(&self, text: String) {
        self.trouble.borrow_mut().insert(text);
    }

    /// What was not looked at, and why.
    pub(super) fn trouble(&self) -> Vec<String> {
        self.trouble.borrow().iter().cloned().collect()
    }

    /// PM2's file, if there is one.
    pub(super) fn process_file(&self) -> Option<&'static str> {
        PROCESS_FILES.into_iter().find(|name| self.has(name))
    }

    /// A file of another process manager, which `dogwatch import` reads.
    pub(super) fn importable(&self) -> Option<&'static str> {
        let gunicorns = Some("gunicorn.conf.py").filter(|name| self.has(name));
        self.process_file().or(gunicorns)
    }

    /// Who may read what is written: all, for the service's user must, but where it holds what only some may know.
    pub(super) fn mode(&self) -> u32 {
        let procfile = self.folder.join("Procfile");
        if procfile.is_file() { put::mode_of([procfile.as_path()]) } else { 0o644 }
    }

    /// What a server of this project is told.
    pub(super) fn web(&self) -> Web<'_> {
        Web {
            folder: &self.folder,
            runs_files: false,
            listen: self.listen.as_deref(),
            port: self.variables.port,
            variables: &self.variables,
        }
    }

    /// Returns the project's own files with one of these extensions, relative to its folder, and in order. Symlinks are not
    /// followed.
    pub(super) fn files(&self, extensions: &[&str]) -> Vec<String> {
        let mut found = vec![];
        let mut folders = vec![(self.folder.clone(), 0)];
        let mut looked = 0;
        while let Some((folder, depth)) = folders.pop() {
            looked += 1;
            let mut entries: Vec<_> =
                std::fs::read_dir(&folder).into_iter().flatten().flatten().take(5000).collect();
            entries.sort_by_key(std::fs::DirEntry::file_name);
            for entry in entries {
                let name = entry.file_name().to_string_lossy().into_owned();
                let Ok(kind) = entry.file_type() else { continue };
                let is_own = !name.starts_with('.') && !FOREIGN.contains(&name.as_str());
                if kind.is_dir()
                    && is_own
                    && depth < DEEPEST
                    && looked + folders.len() < MOST_FOLDERS
                {
                    folders.push((entry.path(), depth + 1));
                }
                let path = entry.path();
                let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
                if kind.is_file() && extensions.contains(&extension) && found.len() < MOST_FILES {
                    let relative = path.strip_prefix(&self.folder).unwrap_or(&path);
                    found.extend(relative.to_str().map(str::to_owned));
                }
            }
        }
        found.sort_by_key(|name: &String| (name.matches('/').count(), name.clone()));
        found
    }

    /// Returns the first of the project's files that mentions one of these words.
    pub(super) fn mentions(&self, extensions: &[&str], words: &[&str]) -> Option<String> {
        self.files(extensions).into_iter().find(|name| {
            let text = self.text(name).unwrap_or_default();
            words.iter().any(|word| text.contains(word))
        })
    }
}

/// The one number that stands behind one of these marks in a text, as in `listen(8080`; `None` where there is none, or more
/// than one. Lines that are comments do not count.
pub(super) fn literal(text: &str, marks: &[&str]) -> Option<u16> {
    let is_comment = |line: &&str| {
        let line = line.trim_start();
        ["//", "/*", "* ", "#"].iter().any(|mark| line.starts_with(mark))
    };
    let lines = text.lines().filter(|line| !is_comment(line));
    let text: String = lines.flat_map(|line| ["\n", line]).collect();
    let mut found = BTreeSet::new();
    for mark in marks {
        for (at, _) in text.match_indices(mark) {
            let rest = text[at + mark.len()..]
                .trim_start_matches([' ', '\t', '\'', '"', '{', '|', '?', ':', '(']);
            let (digits, behind) =
                rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
            // 127.0.0.1, 30_000, 5s
            let goes_on = behind.starts_with(|c: char| c.is_alphanumeric() || "._".contains(c));
            found.extend(digits.parse::<u16>().ok().filter(|port| *port > 0 && !goes_on));
        }
    }
    (found.len() == 1).then(|| found.into_iter().next()).flatten()
}
