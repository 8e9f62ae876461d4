//! What a line of npm, npx, yarn or pnpm asks for.

use super::Refused;
use std::path::PathBuf;

/// What is to be started.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A script of package.json; `or_program` where a program of that name will do.
    Script { name: String, arguments: Vec<String>, hooks: bool, or_program: bool },
    /// A program; `local` where it must be among the installed packages.
    Program { argv: Vec<String>, local: bool },
    /// A line for the shell.
    Line(String),
}

/// What was asked, and in which folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) wanted: Wanted,
    pub(super) folder: Option<PathBuf>,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    Npm,
    Npx,
    Yarn,
    Pnpm,
    Pnpx,
}

/// Flags that make no difference to what is started.
const IGNORED: [&str; 25] = [
    "-s",
    "--silent",
    "-q",
    "--quiet",
    "-d",
    "-dd",
    "--verbose",
    "--if-present",
    "--foreground-scripts",
    "-y",
    "--yes",
    "--no",
    "--no-install",
    "--no-audit",
    "--no-fund",
    "--no-update-notifier",
    "--offline",
    "--prefer-offline",
    "--color",
    "--no-color",
    "--production",
    "--no-progress",
    "--frozen-lockfile",
    "--prod",
    "--non-interactive",
];
/// Such that have a value.
const IGNORED_PAIRS: [&str; 8] = [
    "--loglevel",
    "--cache",
    "--userconfig",
    "--registry",
    "--reporter",
    "-p",
    "--package",
    "--allow-build",
];
/// They name another package than that of the folder.
const WORKSPACES: [&str; 10] = [
    "-w",
    "--workspace",
    "-ws",
    "--workspaces",
    "--filter",
    "-F",
    "-r",
    "--recursive",
    "--workspace-root",
    "--include-workspace-root",
];

impl Manager {
    fn name(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Npx => "npx",
            Self::Yarn => "yarn",
            Self::Pnpm => "pnpm",
            Self::Pnpx => "pnpx",
        }
    }

    fn folder_flags(self) -> &'static [&'static str] {
        match self {
            Self::Npm | Self::Npx => &["--prefix", "-C"],
            Self::Yarn => &["--cwd"],
            Self::Pnpm | Self::Pnpx => &["-C", "--dir"],
        }
    }

    pub(super) fn parse(self, arguments: &[String]) -> Result<Request, Refused> {
        let mut line = Line { manager: self, ..Line::new() };
        line.read(arguments)?;
        let Line { words, rest, folder, hooks, call, .. } = line;
        if let Some(text) = call {
            return Ok(Request { wanted: Wanted::Line(text), folder });
        }
        Ok(Request { wanted: self.wanted(words, rest, hooks)?, folder })
    }

    fn wanted(self, words: Vec<String>, rest: Vec<String>, hooks: bool) -> Result<Wanted, Refused> {
        let program = |argv: Vec<String>, local| match argv.first() {
            Some(_) => Ok(Wanted::Program { argv, local }),
            None => Err(Refused::new("it names no program".to_owned())),
        };
        let mut words = words.into_iter();
        let Some(verb) = words.next() else {
            return match self {
                Self::Npx | Self::Pnpx => program(rest, true),
                Self::Npm | Self::Yarn | Self::Pnpm => {
                    Err(Refused::new("it names no script to start".to_owned()))
                }
            };
        };
        let words: Vec<String> = words.collect();
        let all = || words.iter().chain(&rest).cloned().collect::<Vec<_>>();
        let named = |name: Option<&String>, arguments: Vec<String>, or_program| match name {
            Some(name) => Ok(Wanted::Script { name: name.clone(), arguments, hooks, or_program }),
            None => Err(Refused::new("it names no script to start".to_owned())),
        };
        match (self, &*verb) {
            (Self::Npx | Self::Pnpx, _) => program([vec![verb], all()].concat(), true),
            (Self::Npm, "start" | "stop" | "restart" | "test") => named(Some(&verb), all(), false),
            (Self::Npm, "t" | "tst") => named(Some(&"test".to_owned()), all(), false),
            (Self::Npm, "run" | "run-script" | "rum" | "urn")
            | (Self::Yarn | Self::Pnpm, "run" | "run-script") => {
                let arguments = all().into_iter().skip(1).collect();
                named(all().first(), arguments, self != Self::Npm)
            }
            (Self::Npm, "exec" | "x") | (Self::Yarn | Self::Pnpm, "dlx") => program(all(), true),
            (Self::Yarn | Self::Pnpm, "exec") => program(all(), false),
            (Self::Yarn | Self::Pnpm, "node") => program([vec![verb], all()].concat(), false),
            (Self::Yarn, "workspace" | "workspaces") => Err(another_package(&verb)),
            (Self::Npm, _) => Err(Refused::new(format!("'npm {verb}' starts no program"))),
            (Self::Yarn | Self::Pnpm, _) => named(Some(&verb), all(), true),
        }
    }
}

fn another_package(what: &str) -> Refused {
    Refused {
        reason: format!("'{what}' names another package of the workspace"),
        hint: Some(
            "set 'working-directory' to the folder of that package, and leave the flag out"
                .to_owned(),
        ),
    }
}

/// A line while it is read.
struct Line {
    manager: Manager,
    words: Vec<String>,
    /// What is passed on as it is.
    rest: Vec<String>,
    folder: Option<PathBuf>,
    hooks: bool,
    call: Option<String>,
}

impl Line {
    fn new() -> Self {
        let (words, rest) = (vec![], vec![]);
        Self { manager: Manager::Npm, words, rest, folder: None, hooks: true, call: None }
    }

    /// So far flags are the manager's own; npm takes those behind the script's name, too.
    fn is_full(&self) -> bool {
        let is_verb = |word: &String| ["run", "run-script", "exec", "dlx"].contains(&&**word);
        match self.manager {
            Manager::Npm => false,
            Manager::Npx | Manager::Pnpx => !self.words.is_empty(),
            Manager::Yarn | Manager::Pnpm => match &*self.words {
                [] => false,
                [verb] => !is_verb(verb),
                [..] => true,
            },
        }
    }

    fn read(&mut self, arguments: &[String]) -> Result<(), Refused> {
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if self.is_full() {
                // yarn drops this, pnpm passes it on.
                if argument != "--" || self.manager != Manager::Yarn {
                    self.rest.push(argument.clone());
                }
                self.rest.extend(arguments.cloned());
                return Ok(());
            }
            if argument == "--" {
                self.rest.extend(arguments.cloned());
                return Ok(());
            }
            if !argument.starts_with('-') {
                self.words.push(argument.clone());
                continue;
            }
            let (flag, value) = match argument.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (&**argument, None),
            };
            let mut value = || {
                value
                    .clone()
                    .or_else(|| arguments.next().cloned())
                    .ok_or_else(|| Refused::new(format!("'{flag}' has no value")))
            };
            self.flag(flag, &mut value)?;
        }
        Ok(())
    }

    fn flag(
        &mut self,
        flag: &str,
        value: &mut dyn FnMut() -> Result<String, Refused>,
    ) -> Result<(), Refused> {
        let shell = flag == "--call" || flag == "-c" || flag == "--shell-mode";
        if self.manager.folder_flags().contains(&flag) {
            self.folder = Some(PathBuf::from(value()?));
        } else if flag == "--ignore-scripts" {
            self.hooks = false;
        } else if shell && self.manager != Manager::Yarn {
            self.call = Some(value()?);
        } else if WORKSPACES.contains(&flag) {
            return Err(another_package(flag));
        } else if IGNORED_PAIRS.contains(&flag) {
            value()?;
        } else if !IGNORED.contains(&flag) {
            let name = self.manager.name();
            return Err(Refused {
                reason: format!("'{flag}' there is a flag for {name}, and not known here"),
                hint: Some(if self.manager == Manager::Npm {
                    "arguments for the program stand after '--'".to_owned()
                } else {
                    "leave it out, or write the program itself".to_owned()
                }),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request, Refused> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let manager = match &*words[0] {
            "npm" => Manager::Npm,
            "npx" => Manager::Npx,
            "yarn" => Manager::Yarn,
            "pnpm" => Manager::Pnpm,
            _ => Manager::Pnpx,
        };
        manager.parse(&words[1..])
    }

    fn says(line: &str) -> String {
        let request = parse(line).unwrap();
        let folder = request.folder.map(|f| format!("in {}: ", f.display())).unwrap_or_default();
        let what = match request.wanted {
            Wanted::Script { name, arguments, hooks, or_program } => {
                let hooks = if hooks { "" } else { " (no hooks)" };
                let or = if or_program { " or program" } else { "" };
                format!("script{or} {name} {}{hooks}", arguments.join(" "))
            }
            Wanted::Program { argv, local } => {
                format!("{} {}", if local { "local" } else { "program" }, argv.join(" "))
            }
            Wanted::Line(text) => format!("line {text}"),
        };
        format!("{folder}{}", what.trim_end())
    }

    // As npm 11, yarn 1 and pnpm 9 were seen to take them.
    #[test]
    fn lines_are_taken_as_they_take_them() {
        for (line, wanted) in [
            ("npm start", "script start"),
            ("npm run serve", "script serve"),
            ("npm run-script serve --silent -- --port 1", "script serve --port 1"),
            ("npm run serve a -- --b", "script serve a --b"),
            ("npm --silent -s start", "script start"),
            ("npm --prefix ../x start", "in ../x: script start"),
            ("npm -C x run y", "in x: script y"),
            ("npm --prefix=x start", "in x: script start"),
            ("npm run x --ignore-scripts", "script x  (no hooks)"),
            ("npm exec tsx app.ts", "local tsx app.ts"),
            ("npm exec -- tsx --no-cache app.ts", "local tsx --no-cache app.ts"),
            ("npx tsx app.ts --port 1", "local tsx app.ts --port 1"),
            ("npx -y --no-install tsx app.ts", "local tsx app.ts"),
            ("npx -p tsx -- tsx app.ts", "local tsx app.ts"),
            ("npx -c tsx", "line tsx"),
            ("yarn start", "script or program start"),
            ("yarn run x -- b --c", "script or program x b --c"),
            ("yarn --silent x --c", "script or program x --c"),
            ("yarn --cwd ../x start", "in ../x: script or program start"),
            ("yarn exec tsx a.ts", "program tsx a.ts"),
            ("yarn node app.js", "program node app.js"),
            ("pnpm start", "script or program start"),
            ("pnpm run x --port 3", "script or program x --port 3"),
            ("pnpm x -- b", "script or program x -- b"),
            ("pnpm -C ../x run --silent y", "in ../x: script or program y"),
            ("pnpm exec next start -p 3", "program next start -p 3"),
            ("pnpm dlx serve", "local serve"),
            ("pnpx serve -l 3", "local serve -l 3"),
        ] {
            assert_eq!(says(line), wanted, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_taken_is_refused() {
        for (line, reason) in [
            ("npm install", "'npm install' starts no program"),
            ("npm run", "it names no script to start"),
            ("yarn --silent", "it names no script to start"),
            ("npx -y", "it names no program"),
            ("npm start --port 3000", "'--port' there is a flag for npm, and not known here"),
            ("npm start --prefix", "'--prefix' has no value"),
            ("npm start -w web", "'-w' names another package of the workspace"),
            ("pnpm --filter web start", "'--filter' names another package of the workspace"),
            ("yarn workspace web start", "'workspace' names another package of the workspace"),
        ] {
            assert_eq!(parse(line).unwrap_err().reason, reason, "{line}");
        }
    }
}
