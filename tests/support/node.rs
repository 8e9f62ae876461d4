//! Node's versions and the applications that `tests/node/install` brings.

use crate::support::primary::{Primary, Setup};
use crate::support::skip;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub(crate) const VERSIONS: [u16; 4] = [18, 20, 22, 24];

/// What runs on Node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct App {
    pub(crate) name: &'static str,
    /// What is asked for.
    pub(crate) path: &'static str,
    words: &'static [&'static str],
}

const fn own(name: &'static str, words: &'static [&'static str]) -> App {
    App { name, path: "/", words }
}

/// `APPS/` is the folder of our small ones, `MODULES/` that of npm's, `FOLDER` one for the app alone.
pub(crate) const APPS: [App; 11] = [
    own("http", &["APPS/plain.js"]),
    own("cluster example", &["APPS/cluster.js"]),
    own("express", &["APPS/express.js"]),
    own("fastify", &["APPS/fastify.js"]),
    own("ESM", &["APPS/esm.mjs"]),
    own("tsx", &["--import", "MODULES/tsx/dist/loader.mjs", "APPS/server.ts"]),
    own("socket.io", &["APPS/socketio.js"]),
    own("next", &["MODULES/next/dist/bin/next", "start", "-p", "PORT", "MODULES/../next"]),
    App {
        name: "http-server",
        path: "/db.json",
        words: &["MODULES/http-server/bin/http-server", "-p", "PORT", "APPS"],
    },
    App {
        name: "json-server",
        path: "/posts",
        words: &["MODULES/json-server/lib/cli/bin.js", "--port", "PORT", "APPS/db.json"],
    },
    App {
        name: "verdaccio",
        path: "/-/ping",
        words: &[
            "MODULES/verdaccio/bin/verdaccio",
            "--config",
            "FOLDER/verdaccio.yaml",
            "--listen",
            "127.0.0.1:PORT",
        ],
    },
];

/// Keeps its packages in its folder and asks nobody for more.
const VERDACCIO: &str = "storage: ./storage
auth: { htpasswd: { file: ./htpasswd } }
packages: { '**': { access: $all } }
log: { type: stdout, level: warn }
";

pub(crate) fn named(name: &str) -> App {
    APPS.into_iter().find(|app| app.name == name).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether the environment is not there.
pub(crate) fn is_missing() -> bool {
    !root().join("target/node/stamp").exists() && skip("Node's tests (run tests/node/install)")
}

/// A version's program.
pub(crate) fn node(version: u16) -> String {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let modules = root().join("target/node/node_modules");
    path(modules.join(format!("node{version}-{arch}/bin/node")))
}

/// A file of `tests/node/apps`.
pub(crate) fn file(name: &str) -> String {
    path(root().join("tests/node/apps").join(name))
}

fn path(path: PathBuf) -> String {
    path.into_os_string().into_string().unwrap()
}

/// One of our small apps.
pub(crate) fn small(version: u16, flags: &[&str], name: &str) -> Setup {
    let setup = workers(flags);
    with_port(setup).arguments_after(&["--", &node(version), &file(name)])
}

/// One of our small apps, where no socket is passed.
pub(crate) fn bare(version: u16, flags: &[&str], name: &str) -> Setup {
    let setup = workers(flags).passing_nothing();
    with_port(setup).arguments_after(&["--", &node(version), &file(name)])
}

/// An app, with a script of `tests/node/apps/lib` required before it.
pub(crate) fn preloaded(version: u16, flags: &[&str], script: Option<&str>, app: App) -> Setup {
    let setup = workers(flags);
    let folder = setup.folder().to_str().unwrap().to_owned();
    std::fs::write(setup.folder().join("verdaccio.yaml"), VERDACCIO).unwrap();
    let (apps, modules) = (file(""), path(root().join("target/node/node_modules/")));
    let port = setup.port().to_string();
    let word = |word: &&str| {
        word.replace("APPS/", &apps)
            .replace("APPS", &apps)
            .replace("MODULES/", &modules)
            .replace("FOLDER", &folder)
            .replace("PORT", &port)
    };
    let script = script.map(|name| file(&format!("lib/{name}.js")));
    let words = ["--".to_owned(), node(version)]
        .into_iter()
        .chain(script.into_iter().flat_map(|script| ["--require".to_owned(), script]))
        .chain(app.words.iter().map(word));
    let words: Vec<String> = words.collect();
    with_port(setup).arguments_after(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A client of `tests/node/apps/clients`, which answers line by line.
pub(crate) struct Client {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    pub(crate) fn start(name: &str, primary: &Primary, arguments: &[&str]) -> Self {
        let mut command = Command::new("timeout");
        command.args(["60", &node(22), &file(&format!("clients/{name}.js"))]);
        command.arg(primary.address.port().to_string()).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { input: child.stdin.take(), child, lines }
    }

    /// Waits for the next line; there is none when it has ended.
    pub(crate) fn hears(&mut self) -> String {
        self.lines.next().map(Result::unwrap).unwrap_or_default()
    }

    /// Lets it ask once more, and returns what it was answered.
    pub(crate) fn asks(&mut self) -> String {
        self.input.as_mut().unwrap().write_all(b"again\n").unwrap();
        self.hears()
    }

    /// Returns what else it prints until it ends.
    pub(crate) fn ends(mut self) -> String {
        drop(self.input.take());
        let rest: Vec<String> = self.lines.by_ref().map_while(Result::ok).collect();
        assert!(self.child.wait().unwrap().success(), "{rest:?}");
        rest.join("\n")
    }
}

fn workers(flags: &[&str]) -> Setup {
    Setup::new(&["--name", "app", "--handoff", "node", "--settle", "0ms"]).arguments(flags)
}

/// The app is told where to listen as apps usually are.
fn with_port(setup: Setup) -> Setup {
    let port = setup.port().to_string();
    setup.env("PORT", &port)
}
