//! Command lines that start a server: which server it is, how it takes its socket from dogwatch, and what of the line
//! dogwatch does in its place.

use super::{gunicorn, puma};
use crate::cli::draft::{Draft, Table};
use crate::cli::place::resolve;
use crate::cli::trouble::Unusable;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// What is known of the app that a line is of.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Web<'a> {
    /// Where it runs.
    pub(in crate::cli) folder: &'a Path,
    /// Files that are programs may be run to see what they say.
    pub(in crate::cli) runs_files: bool,
    /// Where it is to listen, whatever the line says.
    pub(in crate::cli) listen: Option<&'a str>,
    /// The port that it is told by PORT.
    pub(in crate::cli) port: Option<u16>,
    /// The `.env` names the environment of Rack or Rails.
    pub(in crate::cli) has_environment: bool,
}

/// Folders in which projects keep programs of their own.
const OWN: [&str; 6] =
    ["venv/bin", ".venv/bin", "env/bin", "node_modules/.bin", "vendor/bin", "bin"];

/// Servers that open their port by themselves, and what to do instead.
const BY_THEMSELVES: [(&str, &str); 12] = [
    ("flask", "'flask run' is for development: 'gunicorn MODULE:NAME' takes the socket"),
    ("runserver", "'runserver' is for development: 'gunicorn PROJECT.wsgi' takes the socket"),
    ("granian", "granian opens its port by itself: 'uvicorn' takes the socket"),
    ("waitress-serve", "waitress opens its port by itself: 'gunicorn' takes the socket"),
    ("thin", "thin opens its port by itself: 'puma' takes the socket"),
    ("falcon", "falcon opens its port by itself: 'puma' takes the socket"),
    ("rackup", "'rackup' opens its port by itself: 'puma' takes the socket"),
    ("webrick", "WEBrick opens its port by itself: 'puma' takes the socket"),
    (
        "rr",
        "RoadRunner opens its port by itself, and has workers of its own: it is a plain systemd service",
    ),
    ("php", "PHP's built-in server opens its port by itself, and is for development"),
    ("bun", "Bun opens its port by itself"),
    (
        "deno",
        "Deno.serve opens its port by itself; with Deno's node:http, 'handoff = \"node\"' works",
    ),
];

/// What is Node, or starts it.
const NODE: [&str; 12] = [
    "node",
    "nodejs",
    "npm",
    "npx",
    "yarn",
    "pnpm",
    "tsx",
    "next",
    "nest",
    "ts-node",
    "cross-env",
    "coffee",
];

/// Writes the command, and what belongs to it, of a line that starts a server.
///
/// # Errors
/// When a value in it is none.
pub(super) fn command(words: &[String], web: Web<'_>, draft: &mut Draft) -> Result<(), Unusable> {
    let (program, rest) = peel(words, web, draft);
    let name = base(program.last().map(String::as_str).unwrap_or_default());
    let first = rest.first().map(String::as_str);
    match name.as_str() {
        "gunicorn" => gunicorn::command_line(&program, rest, web, draft),
        "uvicorn" => asgi(&UVICORN, &program, rest, web, draft),
        "hypercorn" => asgi(&HYPERCORN, &program, rest, web, draft),
        "daphne" => asgi(&DAPHNE, &program, rest, web, draft),
        "puma" => puma::command_line(&program, rest, web, draft),
        "rails" if matches!(first, Some("s" | "server")) => {
            puma::rails(&program, &rest[1..], web, draft)
        }
        "unicorn" | "unicorn_rails" => {
            unicorn(&program, rest, web, draft);
            Ok(())
        }
        name if NODE.contains(&name) => {
            node(words, web, draft);
            Ok(())
        }
        _ => {
            let known = |(name, _): &&(&str, &str)| {
                base(program.last().map(String::as_str).unwrap_or_default()) == **name
                    || (*name == "runserver" && rest.iter().any(|word| word == "runserver"))
            };
            match BY_THEMSELVES.iter().find(known) {
                Some((_, text)) => binds_itself(words, text, draft),
                None => other(words, web, draft),
            }
            Ok(())
        }
    }
}

/// Whether a line starts a server whose flags are known.
pub(super) fn is_server(words: &[String], folder: &Path) -> bool {
    const SERVERS: [&str; 7] =
        ["gunicorn", "uvicorn", "hypercorn", "daphne", "puma", "unicorn", "unicorn_rails"];
    let web = Web { folder, runs_files: false, listen: None, port: None, has_environment: false };
    let mut unsaid = Draft::new(String::new(), String::new(), "");
    let (program, rest) = peel(words, web, &mut unsaid);
    let name = base(program.last().map(String::as_str).unwrap_or_default());
    let is_rails =
        name == "rails" && rest.first().is_some_and(|verb| verb == "s" || verb == "server");
    is_rails || SERVERS.contains(&name.as_str())
}

/// Splits a line into what starts the server, its name last, and the server's arguments. What would stay between is taken
/// away where that can be done.
fn peel<'a>(words: &'a [String], web: Web<'_>, draft: &mut Draft) -> (Vec<String>, &'a [String]) {
    let name = |at: usize| words.get(at).map(|word| base(word)).unwrap_or_default();
    let is_python = name(0).starts_with("python");
    let at = match (name(0).as_str(), name(1).as_str()) {
        ("bundle", "exec") | ("poetry" | "pipenv" | "uv" | "rye" | "pdm" | "hatch", "run") => 2,
        ("newrelic-admin", "run-program") => 2,
        ("ddtrace-run" | "opentelemetry-instrument" | "nohup" | "dumb-init" | "tini", _) => 1,
        (_, "-m") if is_python => 2,
        _ => 0,
    };
    if at >= words.len() {
        return (words.to_vec(), &[]);
    }
    let rest = &words[at + 1..];
    if matches!(name(0).as_str(), "poetry" | "pipenv" | "uv" | "rye" | "pdm" | "hatch") && at == 2 {
        let own = program(&words[2], web.folder);
        if !own.contains('/') {
            let text = format!(
                "'{} run' may stay between dogwatch and the server, which then does not find its socket: name the program in the app's environment",
                name(0)
            );
            draft.remark_at(Table::Top, "command", &name(0), text);
            return (words[..=2].to_vec(), rest);
        }
        return (vec![own], rest);
    }
    if at == 0 && !words[0].contains('/') {
        return (vec![program(&words[0], web.folder)], rest);
    }
    (words[..=at].to_vec(), rest)
}

/// Returns a program as a command names it: the project's own, relative to its folder, where there is one.
pub(in crate::cli) fn program(name: &str, folder: &Path) -> String {
    let own = OWN.iter().map(|own| format!("{own}/{name}"));
    let is_there = |own: &String| folder.join(own).is_file() && !name.contains('/');
    own.into_iter().find(is_there).unwrap_or_else(|| name.to_owned())
}

/// The last part of a path.
fn base(word: &str) -> String {
    word.rsplit('/').next().unwrap_or(word).to_owned()
}

/// How a server of ASGI apps is told of its socket.
struct Asgi {
    name: &'static str,
    /// The flags that say so.
    socket: &'static [&'static str],
    /// Flags with a value that dogwatch speaks for, and those without.
    valued: &'static [&'static str],
    bare: &'static [&'static str],
    bind: &'static [&'static str],
    host: &'static [&'static str],
    port: &'static [&'static str],
    workers: &'static [&'static str],
}

const UVICORN: Asgi = Asgi {
    name: "uvicorn",
    socket: &["--fd", "3"],
    valued: &[
        "--fd",
        "--uds",
        "--reload-dir",
        "--reload-delay",
        "--reload-include",
        "--reload-exclude",
    ],
    bare: &["--reload"],
    bind: &[],
    host: &["--host"],
    port: &["--port"],
    workers: &["--workers"],
};

const HYPERCORN: Asgi = Asgi {
    name: "hypercorn",
    socket: &["-w", "0", "--bind", "fd://3"],
    valued: &["-p", "--pid", "-u", "--user", "-g", "--group"],
    bare: &["--reload", "-D", "--daemon"],
    bind: &["-b", "--bind"],
    host: &[],
    port: &[],
    workers: &["-w", "--workers"],
};

const DAPHNE: Asgi = Asgi {
    name: "daphne",
    socket: &["--fd", "3"],
    valued: &["--fd", "-u", "--unix-socket", "-e", "--endpoint"],
    bare: &[],
    bind: &[],
    host: &["-b", "--bind"],
    port: &["-p", "--port"],
    workers: &[],
};

fn asgi(
    server: &Asgi,
    program: &[String],
    arguments: &[String],
    web: Web<'_>,
    draft: &mut Draft,
) -> Result<(), Unusable> {
    let mut command = program.to_vec();
    command.extend(server.socket.iter().map(|word| (*word).to_owned()));
    let (mut binds, mut host, mut port) = (vec![], None, None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let (flag, inline) = match word.split_once('=').filter(|_| word.starts_with("--")) {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let is_in = |list: &[&str]| list.contains(&flag);
        if is_in(server.bare) {
            draft.remark(&flag[1..].replace('-', ""), "is not for a worker of dogwatch's");
            continue;
        }
        let ours = [server.valued, server.bind, server.host, server.port, server.workers];
        if !ours.iter().any(|list| is_in(list)) {
            command.push(word.clone());
            continue;
        }
        let missing = || Unusable::from(format!("'{flag}' of {} has no value", server.name));
        let value = inline.or_else(|| words.next().cloned()).ok_or_else(missing)?;
        if is_in(server.workers) {
            let count = value.parse::<i64>().ok().filter(|count| (0..=10_000).contains(count));
            let text = format!("'{flag}' of {}: expected a number, found {value}", server.name);
            let count = count.ok_or_else(|| Unusable::from(text))?;
            draft.set(Table::Top, "workers", count.max(1));
        } else if is_in(server.bind) {
            binds.push(value);
        } else if is_in(server.host) {
            host = Some(value);
        } else if is_in(server.port) {
            port = Some(value);
        } else if flag == "--uds"
            || flag == "--unix-socket"
            || flag == "-u" && server.name == "daphne"
        {
            binds.push(format!("unix:{value}"));
        } else if flag != "--fd" {
            draft.remark(flag.trim_start_matches('-'), "is not for a worker of dogwatch's");
        }
    }
    if host.is_some() || port.is_some() {
        let host = host.unwrap_or_else(|| "127.0.0.1".to_owned());
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        binds.push(format!("{host}:{}", port.unwrap_or_else(|| "8000".to_owned())));
    }
    draft.set(Table::Top, "command", command);
    let text = format!("'{}' makes it take its socket from dogwatch", server.socket.join(" "));
    draft.note(Table::Top, "command", text);
    let read = binds.iter().filter_map(|bind| address(bind, 8000, web.folder)).collect();
    listen(read, ("127.0.0.1", 8000, server.name), web, draft);
    asgi_ready(draft);
    Ok(())
}

/// What is the same for all servers of ASGI apps.
pub(in crate::cli) fn asgi_ready(draft: &mut Draft) {
    draft.set(Table::Ready, "when", "accepting");
    draft.note(
        Table::Ready,
        "when",
        "the kernel shows that it waits on its socket, after the app's startup",
    );
    steer(draft);
}

/// For servers that reset, once in thousands of connections, what they accept in the moment in which they are told to stop:
/// those on asyncio, Puma, and gunicorn with threads.
pub(in crate::cli) fn steer(draft: &mut Draft) {
    draft.set(Table::Top, "balance", "steered");
    let text = "this server resets what it has accepted in the moment in which it is told to stop, about one connection in thousands at a reload; a steered worker is told when it has none. The units that dogwatch makes of this file have what it takes; \"shared\" takes nothing";
    draft.note(Table::Top, "balance", text);
}

/// Unicorn takes a socket that is passed if it has exactly the address that it is told.
fn unicorn(program: &[String], arguments: &[String], web: Web<'_>, draft: &mut Draft) {
    let (mut kept, mut binds): (Vec<String>, Vec<String>) = (vec![], vec![]);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-l" | "--listen" => binds.extend(words.next().cloned()),
            "-p" | "--port" => binds.extend(words.next().map(|port| format!("0.0.0.0:{port}"))),
            "-D" | "--daemonize" => {
                draft.remark("daemonize", "a worker stays where it was started");
            }
            _ => kept.push(word.clone()),
        }
    }
    if !kept.iter().any(|word| word.starts_with("-E") || word.starts_with("--env")) {
        puma::in_environment(None, None, web, draft);
    }
    let read = binds.iter().filter_map(|bind| address(bind, 8080, web.folder)).collect();
    let chosen = listen(read, ("0.0.0.0", 8080, "unicorn"), web, draft);
    // It names all IPv4 addresses so.
    let exact = match chosen.parse::<u16>() {
        Ok(port) => format!("0.0.0.0:{port}"),
        Err(_) => chosen.trim_start_matches("unix:").to_owned(),
    };
    if exact != chosen.trim_start_matches("unix:") {
        draft.set(Table::Top, "listen", vec![exact.clone()]);
    }
    let command = [program, &kept, &["-l".to_owned(), exact]].concat();
    draft.set(Table::Top, "command", command);
    draft.note(Table::Top, "command", "unicorn takes the socket that has exactly this address, so a socket unit has to name the same; its file must not name another, and must not say more than one of its own workers");
    draft.set(Table::Stop, "signal", "SIGQUIT");
    draft.note(Table::Stop, "signal", "at SIGTERM unicorn drops what it is answering");
    draft.set(Table::Ready, "when", "accepting");
}

fn node(words: &[String], web: Web<'_>, draft: &mut Draft) {
    draft.set(Table::Top, "command", words.to_vec());
    draft.set(Table::Top, "handoff", "node");
    draft.note(Table::Top, "handoff", "the program's own listen() is given dogwatch's socket, without a change to it; docs/node.md");
    named_port(web, draft);
}

/// A server that cannot be given a socket.
pub(in crate::cli) fn binds_itself(words: &[String], text: &str, draft: &mut Draft) {
    draft.set(Table::Top, "command", words.to_vec());
    draft.set(Table::Top, "workers", 1);
    draft.set(Table::Ready, "when", "alive:2s");
    let text = format!(
        "{text}. As it is there can be one worker, no socket unit, and 'dogwatch restart {}' in place of a reload",
        draft.name
    );
    draft.remark_at(Table::Top, "command", "command", text);
}

pub(super) fn other(words: &[String], web: Web<'_>, draft: &mut Draft) {
    draft.set(Table::Top, "command", words.to_vec());
    draft.set(Table::Top, "handoff", "fd");
    let text = "it must take its socket as file descriptor 3 (LISTEN_FDS, sd_listen_fds(3)); docs/workers.md has what a worker must do";
    draft.remark_at(Table::Top, "handoff", "command", text);
    named_port(web, draft);
}

/// Writes `listen` where only PORT says it.
fn named_port(web: Web<'_>, draft: &mut Draft) {
    let address = web.listen.map(str::to_owned).or_else(|| Some(web.port?.to_string()));
    if let Some(address) = address {
        draft.set(Table::Top, "listen", vec![address]);
    }
}

/// Writes `listen`: what is wanted, else what was found, else PORT, else what is usual with this server. Returns the first.
pub(in crate::cli) fn listen(
    found: Vec<String>,
    usual: (&str, u16, &str),
    web: Web<'_>,
    draft: &mut Draft,
) -> String {
    let listen = match web.listen {
        Some(wanted) => vec![wanted.to_owned()],
        None if !found.is_empty() => found,
        None if web.port.is_some() => {
            web.port.iter().map(|port| format!("0.0.0.0:{port}")).collect()
        }
        None => {
            let (host, port, name) = usual;
            let text = format!("the address that {name} has when it is told none");
            draft.note(Table::Top, "listen", text);
            vec![format!("{host}:{port}")]
        }
    };
    let first = listen.first().cloned().unwrap_or_default();
    draft.set(Table::Top, "listen", listen);
    first
}

/// An address as servers write it (`:8000`, `localhost:8000`, `tcp://0.0.0.0:8000`, `unix:/run/x.sock`), as `listen` has it;
/// `None` for a descriptor, or what is none.
pub(in crate::cli) fn address(bind: &str, usual_port: u16, folder: &Path) -> Option<String> {
    let bind = bind.trim();
    if let Some(path) = bind.strip_prefix("unix:").or_else(|| bind.starts_with('/').then_some(bind))
    {
        let path = match path.strip_prefix("//") {
            Some(path) => path,
            None => path,
        };
        let path = path.split('?').next().unwrap_or(path);
        let path = resolve(folder, Path::new(path));
        return Some(format!("unix:{}", path.to_str()?));
    }
    let bind = bind.strip_prefix("tcp://").unwrap_or(bind);
    if bind.contains("://") || bind.is_empty() {
        return None;
    }
    let bind = bind.split('?').next().unwrap_or(bind);
    if let Ok(address) = bind.parse::<SocketAddr>() {
        return Some(address.to_string());
    }
    if let Ok(port) = bind.parse::<u16>() {
        return Some(port.to_string());
    }
    let (host, port) = match bind.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().ok()?),
        None => (bind, usual_port),
    };
    match host.trim_matches(['[', ']']) {
        "" | "*" => Some(format!("0.0.0.0:{port}")),
        "localhost" => Some(format!("127.0.0.1:{port}")),
        host => match host.parse::<IpAddr>() {
            Ok(host) => Some(SocketAddr::new(host, port).to_string()),
            Err(_) => Some(port.to_string()),
        },
    }
}

/// A value as text.
pub(in crate::cli) fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}
