//! What PM2 would start: script, interpreter and arguments become the words of `command`.

use super::attributes::App;
use crate::cli::draft::{Draft, Table};
use crate::cli::place::{Place, beginning, resolve};
use crate::cli::trouble::Unusable;
use std::path::Path;

/// What runs the script, by its extension, as PM2 has it; TypeScript aside.
const INTERPRETERS: [(&str, &str); 10] = [
    ("js", "node"),
    ("cjs", "node"),
    ("mjs", "node"),
    ("sh", "bash"),
    ("py", "python"),
    ("rb", "ruby"),
    ("php", "php"),
    ("pl", "perl"),
    ("coffee", "coffee"),
    ("ls", "lsc"),
];

/// Programs that are Node without being called so. The runners among them start something else, which dogwatch sees
/// through.
const NODE_PROGRAMS: [&str; 9] =
    ["nodejs", "npm", "npx", "yarn", "yarnpkg", "pnpm", "tsx", "coffee", "lsc"];

/// What is special to the shell; without any of it a line is only words.
const SHELL: &str = "$`|&;<>(){}[]*?~#!\\\"'=\n";

/// What kind of program it is, for how it gets its sockets and how it is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runs {
    /// It has Node's channel.
    Node,
    /// It has the channel for messages, and opens its port by itself.
    Bun,
    /// It has Node's channel where the program uses Node's modules.
    Deno,
    /// A shell, which does not pass signals on.
    Shell,
    /// Anything else.
    Other,
}

impl Runs {
    /// Whether it takes messages, and is told its slot in PM2's way.
    pub(super) fn has_channel(self) -> bool {
        matches!(self, Self::Node | Self::Bun | Self::Deno)
    }

    fn of(program: &str) -> Self {
        let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
        match name.as_ref() {
            "bun" => Self::Bun,
            "deno" => Self::Deno,
            "bash" | "sh" | "dash" | "zsh" => Self::Shell,
            name if name.ends_with("node") || NODE_PROGRAMS.contains(&name) => Self::Node,
            _ => Self::Other,
        }
    }
}

/// What the attributes of the command say.
struct Given {
    script: String,
    args: Vec<String>,
    interpreter: Option<String>,
    node_args: Vec<String>,
    source_maps: bool,
}

/// Writes `command` and says what kind of program it is.
///
/// # Errors
/// When there is no script, or an attribute is of the wrong kind.
pub(super) fn command(
    app: &mut App,
    place: &Place,
    cwd: &Path,
    draft: &mut Draft,
) -> Result<Runs, Unusable> {
    let Some(script) = app.text("script") else {
        return Err(app.refuse("script", "missing: nothing says what to run"));
    };
    let given = Given {
        script,
        args: app.words("args")?,
        interpreter: app.text("exec_interpreter"),
        node_args: app.words("node_args")?,
        source_maps: source_maps(app, draft),
    };
    let is_there = cwd.join(&given.script).exists();
    let (words, runs) = if !is_there && given.script.contains(char::is_whitespace) {
        line(&given, draft)
    } else if !is_there && is_on_path(&given, place) {
        on_path(&given, place, draft)
    } else {
        if !is_there {
            let missing = resolve(cwd, Path::new(&given.script));
            draft.remark_at(
                Table::Top,
                "command",
                "script",
                format!("'{}' is not there (yet)", missing.display()),
            );
        }
        file(&given, place, cwd, draft)
    };
    draft.set(Table::Top, "command", words);
    Ok(runs)
}

/// PM2 turns the mapping of stack traces to sources on inside of the program; Node has a flag for it.
fn source_maps(app: &mut App, draft: &mut Draft) -> bool {
    let on = app.flag("source_map_support");
    let off = app.flag("disable_source_map_support");
    let wanted = off.map_or(on, |off| Some(!off));
    match wanted {
        Some(true) => draft.remark_at(
            Table::Top,
            "command",
            "source_map_support, disable_source_map_support",
            "is Node's own flag '--enable-source-maps'",
        ),
        Some(false) => {
            draft.anyway("source_map_support = false");
            draft.anyway("disable_source_map_support = true");
        }
        None => {}
    }
    wanted == Some(true)
}

/// A script with spaces, which PM2 gives to a shell.
fn line(given: &Given, draft: &mut Draft) -> (Vec<String>, Runs) {
    let ignored = [
        ("args", !given.args.is_empty()),
        ("node_args", !given.node_args.is_empty()),
        ("exec_interpreter", given.interpreter.as_ref().is_some_and(|name| name != "none")),
    ];
    for (name, _) in ignored.into_iter().filter(|(_, is_given)| *is_given) {
        draft.remark(name, "PM2 does not look at it where the script is a line for the shell");
    }
    if !given.script.contains(|c: char| SHELL.contains(c)) {
        let words: Vec<String> = given.script.split_whitespace().map(str::to_owned).collect();
        let runs = words.first().map_or(Runs::Other, |program| Runs::of(program));
        return (words, runs);
    }
    draft.remark_at(
        Table::Top,
        "command",
        "script",
        "better without the shell: the program and its arguments as a list, variables in [env]",
    );
    let has_node = given.script.split_whitespace().any(|word| Runs::of(word) == Runs::Node);
    let words = ["bash", "-c", &given.script].map(str::to_owned);
    (words.to_vec(), if has_node { Runs::Node } else { Runs::Shell })
}

/// Whether the script is a program like `npm` and no file of the app's.
fn is_on_path(given: &Given, place: &Place) -> bool {
    let script = given.script.as_str();
    !script.contains('/') && (place.which(script).is_some() || NODE_PROGRAMS.contains(&script))
}

fn on_path(given: &Given, place: &Place, draft: &mut Draft) -> (Vec<String>, Runs) {
    let found = place.which(&given.script);
    let first_line = found.as_deref().and_then(beginning).unwrap_or_default();
    let is_nodes = first_line.starts_with(b"#!") && mentions(&first_line, "node");
    let runs = if is_nodes { Runs::Node } else { Runs::of(&given.script) };
    if !given.node_args.is_empty() || given.source_maps {
        let text = "'NODE_OPTIONS' in [env] is for the programs that start Node by themselves";
        draft.remark("node_args", text);
    }
    (chain(&[&given.script], &[&given.args]), runs)
}

/// A file of the app's, with its interpreter before it.
fn file(given: &Given, place: &Place, cwd: &Path, draft: &mut Draft) -> (Vec<String>, Runs) {
    let extension = Path::new(&given.script).extension().unwrap_or_default().to_string_lossy();
    let path = cwd.join(&given.script);
    let interpreter = match given.interpreter.as_deref() {
        Some("none") => None,
        Some(name) => Some(versioned(name, place, draft)),
        None if matches!(extension.as_ref(), "ts" | "tsx") => {
            return typescript(given, cwd, &extension, draft);
        }
        None => by_content(&extension, &path, place),
    };
    let Some(interpreter) = interpreter else {
        if !given.node_args.is_empty() {
            draft.remark("node_args", "there is no interpreter that would take them");
        }
        let here = if given.script.contains('/') { "" } else { "./" };
        return (
            chain(&[&format!("{here}{}", given.script)], &[&given.args]),
            Runs::of(&given.script),
        );
    };
    let runs = Runs::of(&interpreter);
    let (maps, script) = (flags(given, runs), [given.script.clone()]);
    (chain(&[&interpreter], &[&maps, &given.node_args, &script, &given.args]), runs)
}

/// The interpreter of a file that names none; `None` for a program.
fn by_content(extension: &str, path: &Path, place: &Place) -> Option<String> {
    if let Some((_, name)) = INTERPRETERS.iter().find(|(known, _)| *known == extension) {
        let is_python2_gone = *name == "python" && place.which("python").is_none();
        return Some(if is_python2_gone { "python3" } else { name }.to_owned());
    }
    let bytes = beginning(path).unwrap_or_default();
    let is_foreign = bytes.starts_with(b"#!") && !mentions(&bytes, "node");
    (!is_foreign && !bytes.contains(&0)).then(|| "node".to_owned())
}

/// TypeScript: PM2 7 wants Bun for it, older ones ts-node. Node runs it through tsx, or by itself.
fn typescript(
    given: &Given,
    cwd: &Path,
    extension: &str,
    draft: &mut Draft,
) -> (Vec<String>, Runs) {
    let has_tsx = cwd.ancestors().any(|folder| folder.join("node_modules/tsx").is_dir());
    let loader: &[&str] = if has_tsx || extension == "tsx" { &["--import", "tsx"] } else { &[] };
    let text = if loader.is_empty() {
        "PM2 runs it with Bun; Node runs it from 22.18 on. With 'npm install tsx' older ones do: put '--import', 'tsx' before it"
    } else {
        "PM2 runs it with Bun; here Node does, with the package tsx of the app"
    };
    draft.remark_at(Table::Top, "command", "exec_interpreter", text);
    let loader: Vec<String> = loader.iter().map(|word| (*word).to_owned()).collect();
    let maps = flags(given, Runs::Node);
    let script = [given.script.clone()];
    (chain(&["node"], &[&maps, &given.node_args, &loader, &script, &given.args]), Runs::Node)
}

/// `node@20.1.0` is what nvm has installed.
fn versioned(name: &str, place: &Place, draft: &mut Draft) -> String {
    let Some(version) = name.strip_prefix("node@") else { return name.to_owned() };
    if let Some(node) = place.nvm_node(version) {
        return node;
    }
    let text = format!("there is no Node {version} of nvm's here: name the program to be used");
    draft.remark_at(Table::Top, "command", "exec_interpreter", text);
    "node".to_owned()
}

fn flags(given: &Given, runs: Runs) -> Vec<String> {
    let wanted = given.source_maps && runs == Runs::Node;
    if wanted { vec!["--enable-source-maps".to_owned()] } else { vec![] }
}

fn mentions(bytes: &[u8], word: &str) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line).contains(word)
}

fn chain(first: &[&str], rest: &[&[String]]) -> Vec<String> {
    let first = first.iter().map(|word| (*word).to_owned());
    first.chain(rest.iter().flat_map(|words| words.iter().cloned())).collect()
}
