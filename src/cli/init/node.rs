//! Node: the program's own listen() is given the app's socket over the cluster's channel, so any program will do.

use super::Sign;
use super::project::{Project, literal};
use super::write::listen;
use crate::cli::draft::{Draft, Table};
use crate::cli::trouble::Unusable;
use crate::config::launcher::{self, Line};
use crate::primary::Disk;
use serde_json::{Map, Value};

/// Files that are the program where nothing says another.
const ENTRIES: [&str; 12] = [
    "server.js",
    "index.js",
    "app.js",
    "server.mjs",
    "index.mjs",
    "app.mjs",
    "src/server.js",
    "src/index.js",
    "src/app.js",
    "dist/main.js",
    "dist/index.js",
    "dist/server.js",
];

/// What stands before the port in a program.
const LISTENS: [&str; 7] =
    [".listen(", "PORT ||", "PORT||", "PORT ??", "PORT??", " port = ", " PORT = "];

/// Frameworks with a command of their own: the package, the command, and the port that it has.
const FRAMEWORKS: [(&str, &[&str], u16); 4] = [
    ("next", &["node_modules/.bin/next", "start"], 3000),
    ("@nestjs/core", &["node", "dist/main.js"], 3000),
    ("nuxt", &["node", ".output/server/index.mjs"], 3000),
    ("@remix-run/serve", &["node_modules/.bin/remix-serve", "build/server/index.js"], 3000),
];

/// A package.json, as far as it can be used.
fn package(project: &Project) -> Option<Map<String, Value>> {
    let text = project.text("package.json")?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(package)) => Some(package),
        Ok(_) => {
            project.note("'package.json' was not looked at: it is no object".to_owned());
            None
        }
        Err(error) => {
            project.note(format!("'package.json' was not looked at: not valid JSON: {error}"));
            None
        }
    }
}

fn start(package: &Map<String, Value>) -> Option<&str> {
    package.get("scripts")?.get("start")?.as_str().filter(|text| !text.trim().is_empty())
}

fn depends(package: &Map<String, Value>, name: &str) -> bool {
    ["dependencies", "devDependencies"].iter().any(|list| {
        package.get(*list).and_then(Value::as_object).is_some_and(|list| list.contains_key(name))
    })
}

fn framework(
    package: &Map<String, Value>,
) -> Option<&'static (&'static str, &'static [&'static str], u16)> {
    FRAMEWORKS.iter().find(|(name, ..)| depends(package, name))
}

/// The file that is the program, and what says so.
fn entry(project: &Project, package: &Map<String, Value>) -> Option<(String, &'static str)> {
    let main = package.get("main").and_then(Value::as_str).map(str::to_owned);
    let main = main.map(|main| main.trim_start_matches("./").to_owned());
    let main = main.filter(|main| !main.starts_with('-') && project.has(main));
    let entry = || ENTRIES.into_iter().find(|name| project.has(name)).map(str::to_owned);
    main.map(|main| (main, "'main' in package.json"))
        .or_else(|| Some((entry()?, "the file is there")))
}

pub(super) fn seen(project: &Project) -> Option<Sign> {
    let package = package(project).unwrap_or_default();
    if start(&package).is_some() {
        return Some(Sign::sure("package.json has a script 'start'"));
    }
    if let Some((name, ..)) = framework(&package) {
        return Some(Sign::sure(format!("package.json depends on {name}")));
    }
    let (file, why) = entry(project, &package)?;
    Some(Sign::weak(format!("{file} ({why})")))
}

/// What says that there are several packages.
pub(super) fn many(project: &Project) -> Option<String> {
    if package(project).is_some_and(|package| package.contains_key("workspaces")) {
        return Some("package.json has 'workspaces'".to_owned());
    }
    let file = ["pnpm-workspace.yaml", "lerna.json", "turbo.json", "nx.json"];
    file.into_iter().find(|name| project.has(name)).map(|name| format!("there is {name}"))
}

pub(super) fn called(project: &Project) -> Option<String> {
    let name = package(project)?.get("name")?.as_str()?.to_owned();
    // @scope/name
    Some(name.rsplit('/').next().unwrap_or(&name).to_owned())
}

pub(super) fn write(project: &Project, draft: &mut Draft) -> Result<(), Unusable> {
    let package = package(project).unwrap_or_default();
    let command = match start(&package) {
        Some(script) => by_script(project, &package, script, draft)?,
        None => by_files(project, &package, draft)?,
    };
    let port = framework(&package).map(|(_, _, port)| *port);
    let file = command.iter().find(|word| project.has(word) && !word.contains("node_modules"));
    let read = start(&package)
        .and_then(|script| {
            Some((port_of(script)?, "the script 'start' of package.json".to_owned()))
        })
        .or_else(|| {
            file.and_then(|file| Some((literal(&project.text(file)?, &LISTENS)?, file.clone())))
        });
    let usual = match port {
        Some(port) => (port, "the framework's usual port"),
        None => (3000, "no port is to be seen in the program, and most take PORT"),
    };
    let is_guess = read.is_none()
        && port.is_none()
        && project.listen.is_none()
        && project.variables.port.is_none();
    let port = listen(project, read, usual, draft);
    if is_guess {
        draft.remark_at(
            Table::Top,
            "listen",
            "listen",
            "look whether the program reads PORT; if not, name the port that it asks for",
        );
    }
    if let Some(port) = port.filter(|_| project.variables.port.is_none()) {
        draft.set(Table::Env, "PORT", port.to_string());
        draft.note(Table::Env, "PORT", "programs that read PORT ask for the port that 'listen' names; others have to name it themselves");
    }
    draft.set(Table::Env, "NODE_ENV", "production");
    draft.set(Table::Top, "command", command);
    draft.set(Table::Top, "handoff", "node");
    draft.note(Table::Top, "handoff", "Node's own cluster channel: listen(PORT) is given dogwatch's socket, without a change to the program, and a worker is ready when it listens; docs/node.md");
    Ok(())
}

/// The port that a script names: `PORT=4000 node a.js`, `next start -p 4000`.
fn port_of(script: &str) -> Option<u16> {
    let Ok(Line::Plain(set, argv)) = launcher::line(script) else { return None };
    let variable = set.into_iter().find(|(name, _)| name == "PORT").map(|(_, value)| value);
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let flag =
        words.windows(2).find(|pair| ["-p", "--port"].contains(&pair[0])).map(|pair| pair[1]);
    let joined = words
        .iter()
        .find_map(|word| word.strip_prefix("--port=").or_else(|| word.strip_prefix("PORT=")));
    let port = flag.or(joined).or(variable.as_deref())?;
    port.parse().ok().filter(|port| *port > 0)
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// What `npm start` would start.
fn by_script(
    project: &Project,
    package: &Map<String, Value>,
    script: &str,
    draft: &mut Draft,
) -> Result<Vec<String>, Unusable> {
    let npm = words(&["npm", "start"]);
    match launcher::real(&npm, &project.folder, &Disk) {
        Ok(real) => {
            let has_hooks = ["prestart", "poststart"].iter().any(|hook| {
                package.get("scripts").is_some_and(|scripts| scripts.get(*hook).is_some())
            });
            let plain = launcher::line(script).ok().and_then(|line| match line {
                Line::Plain(set, argv) if set.is_empty() && !has_hooks => Some(argv),
                Line::Plain(..) | Line::After(..) | Line::Shell(_) => None,
            });
            let next = "node_modules/.bin/next";
            let same = plain.and_then(|mut argv| match argv[0].as_str() {
                "node" => Some(argv),
                "next" if project.has(next) => {
                    next.clone_into(&mut argv[0]);
                    Some(argv)
                }
                _ => None,
            });
            if let Some(argv) = same {
                draft.note(Table::Top, "command", "the script 'start' of package.json");
                return Ok(argv);
            }
            let what = real.map(|real| real.argv.join(" ")).unwrap_or_default();
            draft.note(
                Table::Top,
                "command",
                format!("the script 'start' of package.json, read again at each reload; npm itself does not stay between: now it is '{what}'"),
            );
            Ok(npm)
        }
        Err(error) => {
            let reason = error.message;
            let hint = error.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            draft.remark_at(Table::Top, "command", "scripts.start", format!("{reason}{hint}"));
            by_files(project, package, draft)
        }
    }
}

/// The framework's command, or the file that is the program.
fn by_files(
    project: &Project,
    package: &Map<String, Value>,
    draft: &mut Draft,
) -> Result<Vec<String>, Unusable> {
    if let Some((name, command, _)) = framework(package) {
        draft.note(Table::Top, "command", format!("package.json depends on {name}"));
        let file = command.iter().find(|word| word.contains('/')).copied().unwrap_or_default();
        if !project.has(file) {
            let text = format!("'{file}' is not there yet: install and build the project first");
            draft.remark_at(Table::Top, "command", "command", text);
        }
        return Ok(words(command));
    }
    let (file, why) = entry(project, package).ok_or_else(|| {
        Unusable::from("package.json names no program that dogwatch can start")
            .hint("give it a script 'start' like \"node server.js\", or write command = [\"node\", \"FILE\"] into a file by hand")
    })?;
    draft.note(Table::Top, "command", format!("{why}: {file}"));
    Ok(words(&["node", &file]))
}
