//! `npm start` and its kin are Node programs themselves: given a channel, they keep it, and the program that they start
//! gets none. So what they would start is found out beforehand and started instead; where that cannot be known, the
//! settings are refused and the remedy is named.
//!
//! Pure: the shell says what files there are ([`Files`]).

mod manager;
mod package;
mod script;
mod shell;
mod tools;

use super::Error;
use manager::{Manager, Request, Wanted};
use package::Package;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tools::{Tool, Tsx};

/// So many steps lead from a launcher to the program.
const MAX_DEPTH: usize = 30;
/// So much of a command stands in a message, and a message has so much.
const SHOWN: usize = 120;
const SAID: usize = 600;

/// A line that a shell would run, as far as it is known without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// One command that takes no shell: the variables before it, the program and its arguments.
    Plain(Vec<(String, String)>, Vec<String>),
    /// Commands that are to be done before the last one: they, and the text of the last.
    After(Vec<String>, String),
    /// What takes a shell: a line for `sh -c`, which is replaced by its command where that can be seen.
    Shell(String),
}

/// Takes apart a line that a shell would run.
///
/// # Errors
/// When it cannot be one, or names no program.
pub fn line(text: &str) -> Result<Line, String> {
    let nothing = || "it names no program".to_owned();
    let script = shell::Script::parse(text).map_err(|refused| refused.reason)?;
    if let Some(command) = script.simple() {
        let argv = command.argv();
        let is_named = argv.first().is_some_and(|program| !program.is_empty());
        return if is_named { Ok(Line::Plain(command.variables(), argv)) } else { Err(nothing()) };
    }
    let (last, before) = script.commands.split_last().ok_or_else(nothing)?;
    let is_alone = last.operator.is_none() && !script.is_complex && !script.has_pipe();
    let joined = before.iter().all(|command| matches!(command.operator, Some("&&" | ";")));
    let Some(word) = last.words.first().filter(|_| is_alone && joined) else {
        return Ok(Line::Shell(text.to_owned()));
    };
    if !before.is_empty() {
        let start = last.assignments.first().unwrap_or(word).span.0;
        let before = before.iter().map(|command| command.argv().join(" ")).collect();
        let exec = if last.has_exec { "exec " } else { "" };
        return Ok(Line::After(before, format!("{exec}{}", &text[start..])));
    }
    if last.has_exec {
        return Ok(Line::Shell(text.to_owned()));
    }
    let (head, tail) = text.split_at(word.span.0);
    Ok(Line::Shell(format!("{head}exec {tail}")))
}

/// What there is on disk.
pub trait Files {
    /// Whether there is a file or a folder of that name.
    fn exists(&self, path: &Path) -> bool;

    /// Returns the text of the package.json in a folder; `None` where there is none.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn package(&self, folder: &Path) -> Result<Option<String>, String>;
}

/// What is to be started in a launcher's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Real {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables to set, later ones last.
    pub variables: Vec<(String, String)>,
    /// Folders to search before those of PATH.
    pub path: Vec<PathBuf>,
    /// Where it is to run.
    pub folder: PathBuf,
}

impl Real {
    /// Says in one line what became of a command.
    #[must_use]
    pub fn notice(&self, command: &[String]) -> String {
        format!(
            "'{}' would keep the channel for itself; starting '{}' instead",
            shown(command),
            shown(&self.argv)
        )
    }
}

/// Returns what to start in place of a command that would keep the channel, in the folder where it would run; `None`
/// where the command is to be started as it is.
///
/// # Errors
/// When what it would start cannot be known, or is no program that could take the channel.
pub fn real(command: &[String], folder: &Path, files: &dyn Files) -> Result<Option<Real>, Error> {
    let mut resolver = Resolver {
        files,
        folder: folder.to_owned(),
        variables: vec![],
        path: vec![],
        place: None,
        depth: 0,
    };
    let argv = resolver.resolve(command.to_vec()).map_err(|refused| {
        let place = resolver.place.map(|place| format!("{place}: ")).unwrap_or_default();
        let command = shown(command);
        Error {
            message: cut(&format!("cannot start '{command}': {place}{}", refused.reason), SAID),
            hint: refused.hint.map(|hint| cut(&hint, SAID)),
        }
    })?;
    let Resolver { variables, path, folder, .. } = resolver;
    let unchanged = argv == command && variables.is_empty();
    Ok((!unchanged).then_some(Real { argv, variables, path, folder }))
}

/// Why something is not started.
#[derive(Debug)]
struct Refused {
    reason: String,
    hint: Option<String>,
}

impl Refused {
    fn new(reason: String) -> Self {
        Self { reason, hint: None }
    }
}

/// A command in a message: one line, of a bounded length.
fn shown(argv: &[String]) -> String {
    let words: Vec<String> = argv.iter().map(|word| shell::quote(word)).collect();
    cut(&words.join(" "), SHOWN)
}

/// One line of a bounded length.
fn cut(text: &str, most: usize) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(most).map(visible).collect();
    if text.chars().nth(most).is_some() {
        short.push_str("...");
    }
    short
}

/// Whether there is more to be taken away.
enum Step {
    Done(Vec<String>),
    Again(Vec<String>),
}

struct Resolver<'a> {
    files: &'a dyn Files,
    folder: PathBuf,
    variables: Vec<(String, String)>,
    path: Vec<PathBuf>,
    /// The script that is being looked at, as `file:line`.
    place: Option<String>,
    depth: usize,
}

impl Resolver<'_> {
    fn resolve(&mut self, mut argv: Vec<String>) -> Result<Vec<String>, Refused> {
        loop {
            argv = match self.step(argv)? {
                Step::Done(argv) => return Ok(argv),
                Step::Again(argv) => argv,
            };
        }
    }

    fn step(&mut self, argv: Vec<String>) -> Result<Step, Refused> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let name = cut(&argv.join(" "), SHOWN);
            return Err(Refused::new(format!("'{name}' leads to itself, again and again")));
        }
        let Some((word, arguments)) = argv.split_first() else {
            return Err(Refused::new("it names no program".to_owned()));
        };
        let name = word.rsplit('/').next().unwrap_or(word);
        let manager = match Tool::named(word) {
            None => return Ok(Step::Done(argv)),
            Some(Tool::Node) => return self.node(argv),
            Some(Tool::Npm) => Manager::Npm,
            Some(Tool::Npx) => Manager::Npx,
            Some(Tool::Yarn) => Manager::Yarn,
            Some(Tool::Pnpm) => Manager::Pnpm,
            Some(Tool::Pnpx) => Manager::Pnpx,
            Some(Tool::Corepack) => return corepack(argv),
            Some(Tool::Env) => return self.env(argv),
            Some(Tool::CrossEnv) => {
                let program = self.assign(arguments);
                return Ok(Step::Again(program));
            }
            Some(Tool::CrossEnvShell) => {
                let line = self.assign(arguments).join(" ");
                return self.line(&line, &[]);
            }
            Some(Tool::Tsx) => return self.tsx("node", &[], arguments).map(Step::Done),
            Some(Tool::TsNode) => {
                let flags = &arguments[..tools::node_flags(arguments)];
                let esm = flags.iter().any(|flag| flag == "--esm");
                if !esm {
                    return Ok(Step::Done(argv));
                }
                let rest: Vec<_> =
                    arguments.iter().filter(|word| *word != "--esm").cloned().collect();
                let keeper = tools::Keeper::Language("--loader ts-node/esm");
                return tools::refuse(keeper, "ts-node --esm", &rest)
                    .map_or(Ok(Step::Done(argv)), Err);
            }
            Some(Tool::Keeps(keeper)) => {
                return tools::refuse(keeper, name, arguments).map_or(Ok(Step::Done(argv)), Err);
            }
        };
        let request = manager.parse(arguments)?;
        self.asked(manager, request)
    }

    /// `env A=b`, which passes the channel on, but may stand before a launcher.
    fn env(&mut self, argv: Vec<String>) -> Result<Step, Refused> {
        let program = behind_env(&argv).to_vec();
        let set = self.variables.len();
        let before = &argv[..argv.len() - program.len()];
        self.variables.extend(before.iter().filter_map(|word| split(word)));
        let step = self.step(program.clone())?;
        if matches!(&step, Step::Done(same) if *same == program) {
            self.variables.truncate(set);
            return Ok(Step::Done(argv));
        }
        Ok(step)
    }

    /// Takes the assignments before a program.
    fn assign(&mut self, words: &[String]) -> Vec<String> {
        let count = words.iter().take_while(|word| is_assignment(word)).count();
        self.variables.extend(words[..count].iter().filter_map(|word| split(word)));
        words[count..].to_vec()
    }

    /// `node`, which may be given the file of a launcher.
    fn node(&mut self, argv: Vec<String>) -> Result<Step, Refused> {
        let flags = tools::node_flags(&argv[1..]);
        let (flags, rest) = argv[1..].split_at(flags);
        if flags.iter().any(|flag| flag == "--watch" || flag.starts_with("--watch-path")) {
            return Err(Refused {
                reason: "'node --watch' starts the program as a child that gets no channel"
                    .to_owned(),
                hint: Some(
                    "leave '--watch' out: 'dogwatch reload' starts the new version".to_owned(),
                ),
            });
        }
        let tool = rest.first().and_then(|file| Tool::of_file(file));
        match tool {
            None => Ok(Step::Done(argv)),
            Some("tsx") => self.tsx(&argv[0], flags, &rest[1..]).map(Step::Done),
            Some(tool) => {
                // It would find itself on PATH.
                if let Some((folder, _)) = argv[0].rsplit_once('/') {
                    self.path.push(self.folder.join(folder));
                }
                let name = [tool.to_owned()].into_iter();
                Ok(Step::Again(name.chain(rest[1..].iter().cloned()).collect()))
            }
        }
    }

    fn tsx(
        &mut self,
        node: &str,
        flags: &[String],
        rest: &[String],
    ) -> Result<Vec<String>, Refused> {
        let tsx = Tsx::parse(rest)?;
        if !self.above().any(|folder| self.files.exists(&folder.join("node_modules/tsx"))) {
            return Err(Refused {
                reason: format!("package 'tsx' is not installed for '{}'", self.folder.display()),
                hint: Some("run 'npm install tsx' in that folder".to_owned()),
            });
        }
        self.variables.extend(tsx.variables);
        Ok([&[node.to_owned()], flags, &tsx.arguments].concat())
    }

    /// The folder and all above it.
    fn above(&self) -> impl Iterator<Item = &Path> {
        self.folder.ancestors()
    }

    /// Finds an installed program as the package managers do.
    fn installed(&self, name: &str) -> Option<PathBuf> {
        let mut all = self.above().map(|folder| folder.join("node_modules/.bin").join(name));
        all.find(|file| self.files.exists(file))
    }

    /// Puts the installed programs first on PATH, as the package managers do.
    fn search_installed(&mut self) {
        let all: Vec<PathBuf> =
            self.above().map(|folder| folder.join("node_modules/.bin")).collect();
        for folder in all {
            if !self.path.contains(&folder) && self.files.exists(&folder) {
                self.path.push(folder);
            }
        }
    }

    fn asked(&mut self, manager: Manager, request: Request) -> Result<Step, Refused> {
        if let Some(folder) = request.folder {
            self.folder = self.folder.join(folder);
        }
        let pnp = self.above().map(|folder| folder.join(".pnp.cjs")).find(|f| self.files.exists(f));
        if let Some(file) = pnp.filter(|_| manager == Manager::Yarn) {
            return Err(Refused {
                reason: format!(
                    "yarn keeps the packages where only it finds them ('{}')",
                    file.display()
                ),
                hint: Some(format!(
                    "write the program itself, as in command = [\"node\", \"-r\", \"{}\", \"server.js\"]",
                    file.display()
                )),
            });
        }
        match request.wanted {
            Wanted::Script { name, arguments, hooks, or_program } => {
                self.script(&name, arguments, hooks, or_program)
            }
            Wanted::Program { mut argv, local } => {
                self.search_installed();
                if !local || argv[0] == "node" {
                    return Ok(Step::Again(argv));
                }
                argv[0] = self.local(&argv[0])?;
                Ok(Step::Again(argv))
            }
            Wanted::Line(line) => {
                self.search_installed();
                self.line(&line, &[])
            }
        }
    }

    /// The name of a program that must be installed: nothing is downloaded at the start of a worker.
    fn local(&self, package: &str) -> Result<String, Refused> {
        let whole = package.strip_prefix('@').unwrap_or(package);
        let unversioned = whole.split('@').next().unwrap_or(whole);
        let name = unversioned.rsplit('/').next().unwrap_or(unversioned);
        if self.installed(name).is_some() {
            return Ok(name.to_owned());
        }
        Err(Refused {
            reason: format!(
                "'{name}' is not among the installed programs (node_modules/.bin), and is not downloaded at each start"
            ),
            hint: Some(format!("install it at deploy time ('npm install {package}')")),
        })
    }

    fn script(
        &mut self,
        name: &str,
        arguments: Vec<String>,
        hooks: bool,
        or_program: bool,
    ) -> Result<Step, Refused> {
        let folder = self.folder.clone();
        let text = self.files.package(&folder).map_err(|reason| {
            Refused::new(format!(
                "cannot read '{}': {reason}",
                folder.join("package.json").display()
            ))
        })?;
        let text = text.ok_or_else(|| Refused {
            reason: format!("there is no package.json in '{}'", folder.display()),
            hint: Some("set 'working-directory' to the folder of the package".to_owned()),
        })?;
        let package = Package::parse(folder.join("package.json"), text)?;
        self.search_installed();
        let text = match package.script(name)? {
            Some(text) => text,
            None if or_program && self.installed(name).is_some() => {
                let name = [name.to_owned()].into_iter();
                return Ok(Step::Again(name.chain(arguments).collect()));
            }
            None if name == "start" && self.files.exists(&folder.join("server.js")) => {
                "node server.js"
            }
            None => return Err(package.lacks(name)),
        };
        if hooks {
            self.refuse_hooks(&package, name, text, &arguments)?;
        }
        self.place = Some(package.place(name));
        self.variables.extend(package.variables(name, text));
        self.variables.push(("INIT_CWD".to_owned(), package.folder().display().to_string()));
        self.line(text, &arguments)
    }

    /// They would run at each start of each worker.
    fn refuse_hooks(
        &mut self,
        package: &Package,
        name: &str,
        text: &str,
        arguments: &[String],
    ) -> Result<(), Refused> {
        for hook in [format!("pre{name}"), format!("post{name}")] {
            let Some(what) = package.script(&hook)? else {
                continue;
            };
            let place = package.place(&hook);
            let real = self.line(text, arguments).and_then(|step| match step {
                Step::Done(argv) => Ok(argv),
                Step::Again(argv) => self.resolve(argv),
            });
            let instead = tools::instead(&real.map(|argv| self.spelt(argv)).unwrap_or_default());
            let reason =
                format!("{place}: '{hook}' ('{}') would run with each worker", cut(what, SHOWN));
            let hint = if hook.starts_with("pre") {
                format!("run it at deploy time, and {instead}")
            } else {
                instead
            };
            return Err(Refused { reason, hint: Some(hint) });
        }
        Ok(())
    }

    /// A command as it can be written in the file, where node_modules/.bin is not on PATH.
    fn spelt(&self, mut argv: Vec<String>) -> Vec<String> {
        if let Some(path) = argv.first().and_then(|name| self.installed(name)) {
            let path = path.strip_prefix(&self.folder).unwrap_or(&path);
            argv[0] = path.display().to_string();
        }
        argv
    }
}

/// What stands behind `env A=b`.
fn behind_env(argv: &[String]) -> &[String] {
    let is_before = |word: &&String| is_assignment(word) || Tool::named(word) == Some(Tool::Env);
    &argv[argv.iter().take_while(is_before).count()..]
}

fn split(assignment: &str) -> Option<(String, String)> {
    assignment.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| super::values::is_variable_name(name))
}

/// `corepack pnpm@9 start`
fn corepack(argv: Vec<String>) -> Result<Step, Refused> {
    let named = argv.get(1).and_then(|word| word.split('@').next());
    match named.filter(|name| ["npm", "npx", "yarn", "pnpm", "pnpx", "yarnpkg"].contains(name)) {
        Some(name) => {
            let name = [name.to_owned()].into_iter();
            Ok(Step::Again(name.chain(argv[2..].iter().cloned()).collect()))
        }
        None => Err(Refused::new("'corepack' starts no program by that".to_owned())),
    }
}

#[cfg(test)]
mod tests;
