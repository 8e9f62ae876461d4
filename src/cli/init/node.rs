//! Node: the program's own listen() is given the app's socket over the cluster's channel, so any program will do.

use super::Sign;
use super::project::{Project, literal};
use super::write::{Port, listen};
use crate::cli::draft::{Draft, Table};
use crate::cli::import::serve::{self, binds_itself};
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

/// What stands before the port in a program: where it is what PORT may replace, and where nothing may.
const USUAL: [&str; 8] =
    ["PORT ||", "PORT||", "PORT ??", "PORT??", "PORT) ||", "PORT)||", "PORT, 10) ||", "PORT,10)||"];
const LISTENS: [&str; 5] =
    [".listen(", ".listen({ port:", ".listen({port:", " port = ", " PORT = "];

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

/// What is to be started.
struct Chosen {
    command: Vec<String>,
    /// The words among which the program is, where `command` names a launcher.
    program: Vec<String>,
}

impl Chosen {
    fn of(command: Vec<String>) -> Self {
        Self { program: command.clone(), command }
    }
}

pub(super) fn write(project: &Project, draft: &mut Draft) -> Result<(), Unusable> {
    let package = package(project).unwrap_or_default();
    let script = start(&package);
    let chosen = match script {
        Some(script) => by_script(project, &package, script, draft)?,
        None => by_files(project, &package, draft)?,
    };
    if let Some(text) = serve::by_itself(&chosen.program) {
        if let Some(Ok(Line::Plain(set, _))) = script.map(launcher::line) {
            set.into_iter().for_each(|(name, value)| draft.set(Table::Env, &name, value));
        }
        if let Some(listen) = &project.listen {
            draft.set(Table::Env, "PORT", listen.rsplit(':').next().unwrap_or_default());
        }
        draft.set(Table::Env, "NODE_ENV", "production");
        binds_itself(&chosen.program, text, draft);
        return Ok(());
    }
    let usual = framework(&package).map(|(_, _, port)| *port);
    let by_script = script.and_then(port_of).map(|number| Port {
        number,
        place: "the script 'start' of package.json".to_owned(),
        is_fixed: true,
    });
    let read = by_script.or_else(|| in_program(project, &chosen.program));
    let is_guess = read.is_none()
        && usual.is_none()
        && project.listen.is_none()
        && project.variables.port.is_none();
    let usual = match usual {
        Some(port) => (port, "the framework's usual port"),
        None => (3000, "nothing says its port, and most take PORT"),
    };
    let port = listen(project, read, usual, draft);
    if is_guess {
        draft.remark_at(
            Table::Top,
            "listen",
            "listen",
            "look whether the program reads PORT; if not, name the port that it asks for",
        );
    }
    if let Some(port) = port.filter(|_| !project.variables.tells_port()) {
        draft.set(Table::Env, "PORT", port.to_string());
        draft.note(Table::Env, "PORT", "programs that read PORT ask for the port that 'listen' names; others have to name it themselves");
    }
    draft.set(Table::Env, "NODE_ENV", "production");
    draft.set(Table::Top, "command", chosen.command);
    draft.set(Table::Top, "handoff", "node");
    draft.note(Table::Top, "handoff", "Node's own cluster channel: listen(PORT) is given dogwatch's socket, without a change to the program, and a worker is ready when it listens; docs/node.md");
    Ok(())
}

/// The port that a script names: `PORT=4000 node a.js`, `next start -p 4000`.
fn port_of(script: &str) -> Option<u16> {
    let Ok(Line::Plain(set, argv)) = launcher::line(script) else { return None };
    let set = set.into_iter().map(|(name, value)| format!("{name}={value}"));
    serve::named_in(&argv).or_else(|| serve::named_in(&set.collect::<Vec<_>>()))
}

/// The port that stands in a file which a command names.
fn in_program(project: &Project, program: &[String]) -> Option<Port> {
    // A line for the shell is words, too.
    let words = program.iter().flat_map(|word| word.split_whitespace());
    let mut files = words.filter(|word| project.has(word) && !word.contains("node_modules"));
    files.find_map(|file| {
        let text = project.text(file)?;
        let port = literal(&text, &USUAL).or_else(|| literal(&text, &LISTENS))?;
        Some(Port::seen(port, file))
    })
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
) -> Result<Chosen, Unusable> {
    let npm = words(&["npm", "start"]);
    let real = launcher::real(&npm, &project.folder, &Disk)
        .map_err(|error| Unusable { reason: error.message, hint: error.hint });
    let program = real.map(|real| real.map(|real| real.argv).unwrap_or_default());
    let program = match program.and_then(for_production) {
        Ok(program) => program,
        Err(refused) => {
            let hint = refused.hint.iter().map(|hint| format!("; {hint}"));
            let text = format!("{}{}", refused.reason, hint.collect::<String>());
            draft.remark_at(Table::Top, "command", "scripts.start", text);
            // Nothing else is known of it: then it is what keeps us from it.
            let command = "cannot start 'npm start': ";
            let reason = refused.reason.strip_prefix(command).unwrap_or(&refused.reason).to_owned();
            let refused = Unusable { reason, ..refused };
            return by_files(project, package, draft).map_err(|_| refused);
        }
    };
    if let Some(command) = same(project, package, script) {
        draft.note(Table::Top, "command", "the script 'start' of package.json");
        return Ok(Chosen::of(command));
    }
    if serve::by_itself(&program).is_none() {
        let text = format!(
            "the script 'start' of package.json, read again at each reload; npm itself does not stay between: now it is '{}'",
            program.join(" ")
        );
        draft.note(Table::Top, "command", text);
    }
    Ok(Chosen { command: npm, program })
}

/// Lets no development server pass.
fn for_production(program: Vec<String>) -> Result<Vec<String>, Unusable> {
    match serve::develops(&program) {
        None => Ok(program),
        Some(text) => Err(Unusable::from(text)
            .hint("build the project at deploy time; the script 'start' is for the program that serves the result")),
    }
}

/// A script that can stand in the file as it is.
fn same(project: &Project, package: &Map<String, Value>, script: &str) -> Option<Vec<String>> {
    let has = |hook: &&str| package.get("scripts").is_some_and(|all| all.get(*hook).is_some());
    let Ok(Line::Plain(set, mut argv)) = launcher::line(script) else { return None };
    if !set.is_empty() || ["prestart", "poststart"].iter().any(has) {
        return None;
    }
    let next = "node_modules/.bin/next";
    match argv[0].as_str() {
        "node" => Some(argv),
        "next" if project.has(next) => {
            next.clone_into(&mut argv[0]);
            Some(argv)
        }
        _ => None,
    }
}

/// The framework's command, or the file that is the program.
fn by_files(
    project: &Project,
    package: &Map<String, Value>,
    draft: &mut Draft,
) -> Result<Chosen, Unusable> {
    if let Some((name, command, _)) = framework(package) {
        draft.note(Table::Top, "command", format!("package.json depends on {name}"));
        let file = command.iter().find(|word| word.contains('/')).copied().unwrap_or_default();
        if !project.has(file) {
            let text = format!("'{file}' is not there yet: install and build the project first");
            draft.remark_at(Table::Top, "command", "command", text);
        }
        return Ok(Chosen::of(words(command)));
    }
    let (file, why) = entry(project, package).ok_or_else(|| {
        Unusable::from("package.json names no program that dogwatch can start")
            .hint("give it a script 'start' like \"node server.js\", or write command = [\"node\", \"FILE\"] into a file by hand")
    })?;
    draft.note(Table::Top, "command", format!("{why}: {file}"));
    Ok(Chosen::of(words(&["node", &file])))
}
