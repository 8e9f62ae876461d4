//! Command lines that start a server: which server it is, how it takes its socket from dogwatch, and what of the line
//! dogwatch does in its place.

use super::variables::Variables;
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
    /// The `.env` beside it.
    pub(in crate::cli) variables: &'a Variables,
}

/// Folders in which projects keep programs of their own.
const OWN: [&str; 6] =
    ["venv/bin", ".venv/bin", "env/bin", "node_modules/.bin", "vendor/bin", "bin"];

/// Servers that open their port by themselves, and what to do instead.
const BY_THEMSELVES: [(&str, &str); 13] = [
    ("fastapi", "'fastapi' opens its port by itself: 'uvicorn MODULE:app' takes the socket"),
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

/// Servers for development, which build what they serve as they go: the program and the words behind it by which it is one,
/// "" where it is without any.
const DEVELOPS: [(&str, &[&str]); 12] = [
    ("vite", &["", "dev", "serve"]),
    ("astro", &["dev", "start"]),
    ("ng", &["serve", "s", "dev"]),
    ("next", &["", "dev"]),
    ("nuxt", &["dev"]),
    ("remix", &["dev", "vite:dev"]),
    ("react-router", &["dev"]),
    ("gatsby", &["develop"]),
    ("parcel", &["", "serve"]),
    ("webpack", &["serve"]),
    ("webpack-dev-server", &[""]),
    ("vue-cli-service", &["serve"]),
];

/// Says that a command starts a server for development, if it does.
pub(in crate::cli) fn develops(words: &[String]) -> Option<String> {
    let (program, rest) = words.split_first()?;
    let program = base(program);
    let verb = rest.first().filter(|word| !word.starts_with('-')).map_or("", String::as_str);
    let is_one = |(name, verbs): &(&str, &[&str])| *name == program && verbs.contains(&verb);
    let said = [program.as_str(), verb].join(" ");
    let is_known = DEVELOPS.iter().any(is_one);
    is_known.then(|| format!("'{}' runs a server for development", said.trim_end()))
}

/// Says of a command that its program opens its port by itself, if it is one that does.
pub(in crate::cli) fn by_itself(words: &[String]) -> Option<&'static str> {
    let program = base(words.first()?);
    let known = |(name, _): &&(&str, &str)| {
        program == *name || (*name == "runserver" && words.iter().any(|word| word == "runserver"))
    };
    BY_THEMSELVES.iter().find(known).map(|(_, text)| *text)
}

/// The port that a command itself names: `next start -p 4000`, `env PORT=4000 node a.js`.
pub(in crate::cli) fn named_in(words: &[String]) -> Option<u16> {
    let pair = words.windows(2).find(|pair| ["-p", "--port"].contains(&pair[0].as_str()));
    let joined =
        || words.iter().find_map(|w| w.strip_prefix("--port=").or_else(|| w.strip_prefix("PORT=")));
    let port = pair.map(|pair| pair[1].as_str()).or_else(joined)?;
    port.parse().ok().filter(|port| *port > 0)
}

/// How many workers the line or the `.env` says there are.
pub(super) fn concurrency(web: Web<'_>, draft: &mut Draft) -> Option<i64> {
    let said = draft.get(Table::Env, "WEB_CONCURRENCY").and_then(|count| count.as_str());
    let said = said.and_then(|count| count.parse().ok()).filter(|n| (1..=10_000).contains(n));
    let count = said.or_else(|| web.variables.concurrency())?;
    draft.note(Table::Top, "workers", "WEB_CONCURRENCY; \"cpus\" follows the machine");
    Some(count)
}

/// Writes the command, and what belongs to it, of a line that starts a server.
///
/// # Errors
/// When a value in it is none.
pub(in crate::cli) fn command(
    words: &[String],
    web: Web<'_>,
    draft: &mut Draft,
) -> Result<(), Unusable> {
    let (program, rest) = peel(words, web, draft);
    let name = base(program.last().map(String::as_str).unwrap_or_default());
    let first = rest.first().map(String::as_str);
    match name.as_str() {
        "gunicorn" => gunicorn::command_line(&program, rest, web, draft),
        "uvicorn" => asgi(&UVICORN, &program, rest, web, draft),
        "hypercorn" => asgi(&HYPERCORN, &program, rest, web, draft),
        "daphne" => asgi(&DAPHNE, &program, rest, web, draft),
        "puma" => puma::command_line(&program, rest, web, draft),
        "rails" if matches!(first, Some("s" | "server")) => puma::rails(&rest[1..], web, draft),
        "unicorn" | "unicorn_rails" => {
            unicorn(&program, rest, web, draft);
            Ok(())
        }
        name if NODE.contains(&name) => {
            node(words, web, draft);
            Ok(())
        }
        _ => {
            let server = [&program[program.len().saturating_sub(1)..], rest].concat();
            match by_itself(&server) {
                Some(text) => binds_itself(words, text, draft),
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
    let variables = &Variables::default();
    let web = Web { folder, runs_files: false, listen: None, port: None, variables };
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
    // Without a number it has as many workers as WEB_CONCURRENCY says.
    socket: &["--fd", "3", "--workers", "1"],
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
            draft.set(Table::Top, "workers", number(server, flag, &value)?);
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
    binds.extend(joined(host, port));
    draft.set(Table::Top, "command", command);
    draft.note(Table::Top, "command", told(server.socket));
    if draft.get(Table::Top, "workers").is_none()
        && let Some(count) = concurrency(web, draft)
    {
        draft.set(Table::Top, "workers", count);
    }
    let read = binds.iter().filter_map(|bind| address(bind, 8000, web.folder)).collect();
    listen(read, ("127.0.0.1", 8000, server.name), web, draft);
    asgi_ready(draft);
    Ok(())
}

/// A number of workers; none is one.
fn number(server: &Asgi, flag: &str, value: &str) -> Result<i64, Unusable> {
    let count = value.parse::<i64>().ok().filter(|count| (0..=10_000).contains(count));
    let text = || format!("'{flag}' of {}: expected a number, found {value}", server.name);
    Ok(count.ok_or_else(|| Unusable::from(text()))?.max(1))
}

/// The address of a host and a port, if there is one of them.
fn joined(host: Option<String>, port: Option<String>) -> Option<String> {
    if host.is_none() && port.is_none() {
        return None;
    }
    let host = host.unwrap_or_else(|| "127.0.0.1".to_owned());
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Some(format!("{host}:{}", port.unwrap_or_else(|| "8000".to_owned())))
}

/// What explains the flags of a server of ASGI apps.
pub(in crate::cli) fn told(socket: &[&str]) -> String {
    format!("'{}': one process, on the socket that dogwatch passes", socket.join(" "))
}

/// The flags that make a server of ASGI apps, one of those that are known, take its socket.
pub(in crate::cli) fn socket_of(name: &str) -> &'static [&'static str] {
    let known = [UVICORN, HYPERCORN, DAPHNE].into_iter().find(|server| server.name == name);
    known.unwrap_or(UVICORN).socket
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
    if let Some(text) = develops(words) {
        draft.remark_at(Table::Top, "command", "command", text);
    }
    named_port(named_in(words), web, draft);
}

/// A server that cannot be given a socket.
pub(in crate::cli) fn binds_itself(words: &[String], text: &str, draft: &mut Draft) {
    draft.set(Table::Top, "command", words.to_vec());
    draft.set(Table::Top, "workers", 1);
    draft.set(Table::Ready, "when", "alive:2s");
    let text = format!(
        "{text}. As it is there can be one worker, no socket, and 'dogwatch restart {}' in place of a reload; and without 'listen' systemd gets no units of this file",
        draft.name
    );
    draft.remark_at(Table::Top, "command", "command", text);
}

pub(super) fn other(words: &[String], web: Web<'_>, draft: &mut Draft) {
    draft.set(Table::Top, "command", words.to_vec());
    draft.set(Table::Top, "handoff", "fd");
    let text = "it must take its socket as file descriptor 3 (LISTEN_FDS, sd_listen_fds(3)); docs/workers.md has what a worker must do";
    draft.remark_at(Table::Top, "handoff", "command", text);
    named_port(None, web, draft);
}

/// Writes `listen` where only the command's own words or PORT say it.
fn named_port(fixed: Option<u16>, web: Web<'_>, draft: &mut Draft) {
    let port = fixed.or(web.port).map(|port| port.to_string());
    if let Some(address) = web.listen.map(str::to_owned).or(port) {
        draft.set(Table::Top, "listen", vec![address]);
    }
    let wanted = web.listen.and_then(|listen| listen.rsplit(':').next()?.parse::<u16>().ok());
    if let Some(fixed) = fixed.filter(|fixed| web.listen.is_some() && wanted != Some(*fixed)) {
        let text =
            format!("the line asks for port {fixed}: let it ask for the one that is named here");
        draft.remark_at(Table::Top, "listen", "listen", text);
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
