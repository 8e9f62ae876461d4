//! Programs that start the real one as a child and keep the channel: which they are, and what to write instead. Most
//! were tried with a channel, or their source was read; the others are process managers and task runners by their manuals.

use super::Refused;

/// A program that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Node,
    Npm,
    Npx,
    Yarn,
    Pnpm,
    Pnpx,
    Corepack,
    /// `env A=b PROGRAM`
    Env,
    /// `cross-env A=b PROGRAM`
    CrossEnv,
    /// `cross-env-shell A=b "LINE"`
    CrossEnvShell,
    Tsx,
    TsNode,
    /// Its child listens.
    Keeps(Keeper),
}

/// Why a program cannot pass the channel on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    /// It starts the program again when a file changes.
    Watches,
    /// It is a process manager.
    Manages,
    /// It starts several programs.
    Several,
    /// It reads variables from a file first.
    DotEnv,
    /// It runs a language in a Node of its own.
    Language(&'static str),
    Nest,
    ReactScripts,
    Nuxt,
}

/// Packages whose program has another name, or whose file stands after `node`.
const FILES: [(&str, &str); 6] = [
    ("npm-cli", "npm"),
    ("npx-cli", "npx"),
    ("yarnpkg", "yarn"),
    ("nuxi", "nuxt"),
    ("conc", "concurrently"),
    ("nodejs", "node"),
];

impl Tool {
    /// Returns the tool that a word names where a program is expected.
    pub(super) fn named(word: &str) -> Option<Self> {
        let name = base(word);
        let name = FILES.iter().find(|(file, _)| *file == name).map_or(name, |(_, name)| name);
        Some(match name {
            "node" => Self::Node,
            "npm" => Self::Npm,
            "npx" => Self::Npx,
            "yarn" => Self::Yarn,
            "pnpm" => Self::Pnpm,
            "pnpx" => Self::Pnpx,
            "corepack" => Self::Corepack,
            "env" => Self::Env,
            "cross-env" => Self::CrossEnv,
            "cross-env-shell" => Self::CrossEnvShell,
            "tsx" => Self::Tsx,
            "ts-node" | "ts-node-script" | "ts-script" | "ts-node-transpile-only" => Self::TsNode,
            "nodemon" | "ts-node-dev" | "tsnd" | "node-dev" | "supervisor" => {
                Self::Keeps(Keeper::Watches)
            }
            "forever" | "pm2" | "pm2-runtime" | "pm2-docker" | "pm2-dev" => {
                Self::Keeps(Keeper::Manages)
            }
            "concurrently" | "npm-run-all" | "run-s" | "run-p" | "nx" | "turbo" | "lerna"
            | "wireit" => Self::Keeps(Keeper::Several),
            "dotenv" | "dotenvx" | "env-cmd" => Self::Keeps(Keeper::DotEnv),
            "ts-node-esm" => Self::Keeps(Keeper::Language("--loader ts-node/esm")),
            "babel-node" => Self::Keeps(Keeper::Language("-r @babel/register")),
            "esno" => Self::Keeps(Keeper::Language("--import tsx")),
            "nest" => Self::Keeps(Keeper::Nest),
            "react-scripts" => Self::Keeps(Keeper::ReactScripts),
            "nuxt" => Self::Keeps(Keeper::Nuxt),
            _ => return None,
        })
    }

    /// Returns the name of the tool whose file is given to `node`.
    pub(super) fn of_file(file: &str) -> Option<&'static str> {
        let name = base(file);
        if file.contains("node_modules/.bin/") || ["npm-cli", "npx-cli", "corepack"].contains(&name)
        {
            return KNOWN
                .iter()
                .copied()
                .find(|known| *known == name || Some(name) == alias(known));
        }
        let package = file.rsplit_once("node_modules/").map_or("", |(_, rest)| rest);
        let of = |folder: &str| package.starts_with(folder);
        if file.contains(".yarn/releases/yarn") || of("yarn/bin/") {
            return Some("yarn");
        }
        // What belongs to a package is not always its program: only their own files count.
        KNOWN.iter().copied().find(|known| {
            ["bin/", "dist/", "lib/", "src/bin/", "dist/bin/"].iter().any(|folder| {
                let file = package.strip_prefix(known).and_then(|rest| rest.strip_prefix('/'));
                let file = file.and_then(|rest| rest.strip_prefix(folder));
                file.is_some_and(|file| [*known, "cli", "index"].contains(&base(file)))
            })
        })
    }
}

/// Programs that are recognised when their file is given to `node`.
const KNOWN: [&str; 17] = [
    "npm",
    "npx",
    "yarn",
    "pnpm",
    "pnpx",
    "corepack",
    "tsx",
    "cross-env",
    "nodemon",
    "forever",
    "pm2",
    "pm2-runtime",
    "concurrently",
    "npm-run-all",
    "dotenv",
    "env-cmd",
    "nest",
];

fn alias(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(_, known)| *known == name).map(|(file, _)| *file)
}

/// The last part of a path, without what says that it is JavaScript.
fn base(word: &str) -> &str {
    let name = word.rsplit('/').next().unwrap_or(word);
    [".js", ".cjs", ".mjs"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// Flags of Node that take their value as a word of its own.
const PAIRS: [&str; 14] = [
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "-C",
    "--conditions",
    "--env-file",
    "--env-file-if-exists",
    "--title",
    "--input-type",
    "--icu-data-dir",
    "--inspect-port",
    "--max-http-header-size",
];

/// Returns how many words before the script belong to Node itself.
pub(super) fn node_flags(arguments: &[String]) -> usize {
    let mut count = 0;
    while let Some(flag) = arguments.get(count).filter(|word| word.starts_with('-')) {
        if flag == "--" || flag == "-" {
            return count;
        }
        count += if PAIRS.contains(&&**flag) { 2 } else { 1 };
    }
    count.min(arguments.len())
}

/// How a line of the `tsx` command is started without it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tsx {
    /// Behind `node`.
    pub(super) arguments: Vec<String>,
    pub(super) variables: Vec<(String, String)>,
}

impl Tsx {
    pub(super) fn parse(arguments: &[String]) -> Result<Self, Refused> {
        let flags = node_flags(arguments);
        let mut tsx = Self::default();
        tsx.arguments.extend(["--import".to_owned(), "tsx".to_owned()]);
        let mut set = |name: &str, value: &str| {
            tsx.variables.push((name.to_owned(), value.to_owned()));
        };
        let mut own = arguments.iter();
        let mut read = 0;
        while let Some(flag) = own.next().filter(|_| read < flags) {
            read += 1;
            match &**flag {
                "--no-cache" => set("TSX_DISABLE_CACHE", "1"),
                "--tsconfig" => {
                    let file = own
                        .next()
                        .ok_or_else(|| Refused::new("'--tsconfig' has no value".to_owned()))?;
                    set("TSX_TSCONFIG_PATH", file);
                    // The file was taken for the script.
                    return Self::behind(tsx, own.as_slice());
                }
                "-e" | "--eval" | "-p" | "--print" | "-i" | "--interactive" | "--test" => {
                    return Err(no_file("tsx"));
                }
                flag if flag.starts_with("--watch") => return Err(watches("tsx", arguments)),
                _ => match flag.strip_prefix("--tsconfig=") {
                    Some(file) => set("TSX_TSCONFIG_PATH", file),
                    None => {
                        tsx.arguments.push(flag.clone());
                        if PAIRS.contains(&&**flag) {
                            read += 1;
                            tsx.arguments.extend(own.next().cloned());
                        }
                    }
                },
            }
        }
        let rest = &arguments[flags..];
        match rest.first().map(String::as_str) {
            None | Some("--" | "-") => Err(no_file("tsx")),
            Some("watch") => Err(watches("tsx", rest)),
            Some(_) => {
                tsx.arguments.extend(rest.iter().cloned());
                Ok(tsx)
            }
        }
    }

    /// Goes on with the words behind a flag.
    fn behind(before: Self, rest: &[String]) -> Result<Self, Refused> {
        let after = Self::parse(rest)?;
        Ok(Self {
            arguments: [before.arguments, after.arguments.into_iter().skip(2).collect()].concat(),
            variables: [before.variables, after.variables].concat(),
        })
    }
}

fn no_file(tool: &str) -> Refused {
    Refused::new(format!("'{tool}' is given no file to run"))
}

fn watches(tool: &str, arguments: &[String]) -> Refused {
    Refused {
        reason: format!(
            "'{tool}' starts the program again by itself when a file changes, as a child that gets no channel"
        ),
        hint: Some(instead(&bare(&program(arguments)))),
    }
}

/// Returns why a program cannot be started.
pub(super) fn refuse(keeper: Keeper, tool: &str, arguments: &[String]) -> Option<Refused> {
    let first = arguments.iter().find(|word| !word.starts_with('-')).map(String::as_str);
    let child = "as a child that gets no channel";
    let (reason, hint) = match keeper {
        Keeper::Watches => return Some(watches(tool, arguments)),
        Keeper::Manages => (
            format!("'{tool}' is a process manager itself, and keeps the channel"),
            instead(&bare(&managed(tool, arguments))),
        ),
        Keeper::Several => (
            format!("'{tool}' starts programs of its own, which get no channel"),
            "write the program that listens as 'command', and give each other one a file of its own".to_owned(),
        ),
        Keeper::DotEnv => (format!("'{tool}' starts the program {child}"), dotenv(arguments)),
        Keeper::Language(flags) => {
            let flags = flags.split(' ').map(str::to_owned);
            let node = ["node".to_owned()].into_iter().chain(flags);
            let command = node.chain(program(arguments)).collect::<Vec<_>>();
            (format!("'{tool}' starts Node {child}"), instead(&command))
        }
        Keeper::Nest if first == Some("start") => (
            format!("'nest start' compiles the program and starts it {child}"),
            "run 'nest build' at deploy time, and write command = [\"node\", \"dist/main.js\"]".to_owned(),
        ),
        Keeper::ReactScripts if first == Some("start") => (
            format!("'react-scripts start' runs a development server {child}"),
            "run 'react-scripts build' at deploy time, and serve its files".to_owned(),
        ),
        Keeper::Nuxt if matches!(first, Some("start" | "preview")) => (
            format!("'{tool} {}' starts the server {child}", first.unwrap_or_default()),
            "write command = [\"node\", \".output/server/index.mjs\"]".to_owned(),
        ),
        Keeper::Nest | Keeper::ReactScripts | Keeper::Nuxt => return None,
    };
    Some(Refused { reason, hint: Some(hint) })
}

/// The program and its arguments as far as flags of the tool before it do not hide them.
fn program(arguments: &[String]) -> Vec<String> {
    let at = match arguments.iter().position(|word| word == "--") {
        Some(at) => at + 1,
        None => {
            let verbs = ["watch", "start", "run", "startOrReload"];
            let file = |word: &String| !word.starts_with('-') && word.contains('.');
            let first = |word: &String| !word.starts_with('-') && !verbs.contains(&&**word);
            let file = arguments.iter().position(file);
            file.or_else(|| arguments.iter().position(first)).unwrap_or(arguments.len())
        }
    };
    arguments[at..].to_vec()
}

/// The program that a process manager is given, and what is for it: to PM2 the words behind the file are its own.
fn managed(tool: &str, arguments: &[String]) -> Vec<String> {
    let mut words = arguments.splitn(2, |word| word == "--");
    let (own, passed) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut program = program(own);
    if base(tool).starts_with("pm2") {
        program.truncate(1);
    }
    program.into_iter().chain(passed.iter().cloned()).collect()
}

/// With the Node that runs it.
fn bare(program: &[String]) -> Vec<String> {
    let Some(first) = program.first() else {
        return vec![];
    };
    let ends = |ends: &[&str]| ends.iter().any(|end| first.ends_with(end));
    let before: &[&str] = if ends(&[".ts", ".tsx", ".mts", ".cts"]) {
        &["node", "--import", "tsx"]
    } else if ends(&[".js", ".mjs", ".cjs"]) && !ends(&[".config.js", ".config.cjs", ".config.mjs"])
    {
        &["node"]
    } else if ["node", "tsx", "next"].contains(&&**first) {
        &[]
    } else {
        return vec![];
    };
    before.iter().map(|word| (*word).to_owned()).chain(program.iter().cloned()).collect()
}

/// Says what to write.
pub(super) fn instead(command: &[String]) -> String {
    if command.is_empty() {
        return "write the program itself, as in command = [\"node\", \"server.js\"]".to_owned();
    }
    format!("write command = {}", list(command))
}

/// Words as the configuration file has them.
fn list(words: &[String]) -> String {
    let words: Vec<String> =
        words.iter().map(|w| serde_json::Value::from(&**w).to_string()).collect();
    format!("[{}]", words.join(", "))
}

fn dotenv(arguments: &[String]) -> String {
    let mut files = vec![];
    let mut words = arguments.iter().peekable();
    while let Some(word) = words.next_if(|word| word.starts_with('-') && *word != "--") {
        if ["-e", "-f", "--file", "--env-file"].contains(&&**word) {
            files.extend(words.next().cloned());
        }
    }
    if words.peek().is_some_and(|word| *word == "--") {
        words.next();
    }
    if files.is_empty() {
        files.push(".env".to_owned());
    }
    let command: Vec<String> =
        words.filter(|word| *word != "run" && *word != "--").cloned().collect();
    let command =
        if command.is_empty() { vec!["node".to_owned(), "server.js".to_owned()] } else { command };
    format!(
        "write environment-files = {} with whole paths, and command = {}",
        list(&files),
        list(&command)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_tsx_command_is_node_with_a_flag() {
        for (line, arguments) in [
            ("app.ts", "--import tsx app.ts"),
            ("app.ts --watch x", "--import tsx app.ts --watch x"),
            ("--no-cache app.ts", "--import tsx app.ts TSX_DISABLE_CACHE=1"),
            ("--tsconfig t.json app.ts", "--import tsx app.ts TSX_TSCONFIG_PATH=t.json"),
            (
                "--inspect --tsconfig=t.json -r ./x app.ts y",
                "--import tsx --inspect -r ./x app.ts y TSX_TSCONFIG_PATH=t.json",
            ),
            (
                "--inspect --tsconfig t.json --import ./x app.ts -e",
                "--import tsx --inspect --import ./x app.ts -e TSX_TSCONFIG_PATH=t.json",
            ),
        ] {
            let tsx = Tsx::parse(&words(line)).unwrap();
            let set = tsx.variables.into_iter().map(|(k, v)| format!("{k}={v}"));
            let all: Vec<String> = tsx.arguments.into_iter().chain(set).collect();
            assert_eq!(all.join(" "), arguments, "{line}");
        }
        for line in
            ["", "-e x", "--test a.ts", "--tsconfig x", "--tsconfig", "watch a.ts", "--watch a.ts"]
        {
            assert!(Tsx::parse(&words(line)).is_err(), "{line}");
        }
    }

    #[test]
    fn files_given_to_node_are_recognised() {
        for (file, tool) in [
            ("/usr/lib/node_modules/npm/bin/npm-cli.js", Some("npm")),
            ("node_modules/.bin/tsx", Some("tsx")),
            ("node_modules/tsx/dist/cli.mjs", Some("tsx")),
            ("./node_modules/nodemon/bin/nodemon.js", Some("nodemon")),
            (".yarn/releases/yarn-4.5.0.cjs", Some("yarn")),
            ("/usr/lib/node_modules/corepack/dist/corepack.js", Some("corepack")),
            ("node_modules/.bin/next", None),
            ("node_modules/next/dist/bin/next", None),
            ("node_modules/pm2/lib/x.js", None),
            ("server.js", None),
            ("src/tsx.js", None),
        ] {
            assert_eq!(Tool::of_file(file), tool, "{file}");
        }
    }

    #[test]
    fn hints_say_what_to_write() {
        let hint = |line: &str| {
            let words = words(line);
            let Some(Tool::Keeps(keeper)) = Tool::named(&words[0]) else { panic!("{line}") };
            refuse(keeper, &words[0], &words[1..]).and_then(|refused| refused.hint)
        };
        for (line, said) in [
            ("nodemon --ext js app.js", "write command = [\"node\", \"app.js\"]"),
            (
                "pm2-runtime start app.ts",
                "write command = [\"node\", \"--import\", \"tsx\", \"app.ts\"]",
            ),
            (
                "pm2 start ecosystem.config.js",
                "write the program itself, as in command = [\"node\", \"server.js\"]",
            ),
            (
                "dotenv -e .env.prod -- node app.js",
                "write environment-files = [\".env.prod\"] with whole paths, and command = [\"node\", \"app.js\"]",
            ),
            (
                "env-cmd node app.js",
                "write environment-files = [\".env\"] with whole paths, and command = [\"node\", \"app.js\"]",
            ),
            (
                "babel-node app.js",
                "write command = [\"node\", \"-r\", \"@babel/register\", \"app.js\"]",
            ),
            (
                "nest start --watch",
                "run 'nest build' at deploy time, and write command = [\"node\", \"dist/main.js\"]",
            ),
        ] {
            assert_eq!(hint(line).as_deref(), Some(said), "{line}");
        }
        assert_eq!(hint("nest build"), None);
        assert_eq!(hint("nuxt dev"), None);
    }
}
