//! Each example with its file, as they are: under load through reloads, and with units that give nothing away.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::primary::Setup;
use support::{Load, load_client, skip, which};

/// The exposure that `systemd-analyze security` may find, in tenths.
const EXPOSURE: &str = "20";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file beside an example.
fn files() -> Vec<PathBuf> {
    let below = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect()
    };
    let top = below(&root().join("examples"));
    let all = top.iter().filter(|path| path.is_dir()).flat_map(|folder| below(folder));
    let mut all: Vec<PathBuf> = all.chain(top.clone()).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    all.sort();
    all
}

/// Runs an example with its file, two workers of it, and relieves them three times under load.
fn serves(name: &str, program: &str) {
    let node = support::node(22);
    if program == "node" && node.is_none() || program != "node" && which(program).is_none() {
        skip(program);
        return;
    }
    let example = root().join("examples").join(name);
    let folder = match example.parent().unwrap() {
        // Cargo has built that one.
        top if top.ends_with("examples") => load_client().parent().unwrap().to_owned(),
        folder => folder.to_owned(),
    };
    let text = std::fs::read_to_string(example).unwrap();
    let text = text.replace("/srv/myapp", folder.to_str().unwrap());
    let setup = Setup::new(&["-n", "2", "--settle", "0ms"]).passing_nothing();
    let (file, port) = (setup.folder().join("app.toml"), setup.port().to_string());
    std::fs::write(&file, text).unwrap();
    let setup = setup.arguments(&["--config", file.to_str().unwrap(), "-l", &port]);
    let mut path = std::env::var("PATH").unwrap();
    if let Some(node) = node {
        path = format!("{}:{path}", node.parent().unwrap().display());
    }
    let modules = root().join("target/node/node_modules");
    let setup = setup.env("PATH", &path).env("NODE_PATH", modules.to_str().unwrap());
    let mut primary = setup.env("PORT", &port).start();
    primary.is_ready();
    let address = primary.address.to_string();
    let load = |clients: &str, requests: &str| {
        let arguments = [&address, "--clients", clients, "--requests", requests, "--think", "20"];
        Load::start(Command::new(load_client()).args(arguments)).begun()
    };
    // Workers that are busy all the time take theirs to be ready; that is not what is asked here.
    let (short, kept) = (load("1", "1"), load("1", "10"));
    let mut pids = BTreeSet::new();
    for generation in 2..=4 {
        pids.insert(primary.get("/"));
        primary.signal(Signal::SIGHUP);
        primary.says(&format!("reload done: generation {generation}"));
    }
    short.stop().assert_clean(1);
    kept.stop().assert_clean(1);
    assert!(pids.len() == 3, "every generation is other processes: {pids:?}");
    primary.stop();
}

macro_rules! examples {
    ($($name:ident: $file:literal with $program:literal,)*) => {
        const RUN: &[&str] = &[$($file),*];
        $(#[test] fn $name() { serves($file, $program); })*
    };
}

examples! {
    rust_with_listenfd: "hello.toml" with "true",
    node_as_it_is: "node/app.toml" with "node",
    node_by_descriptor: "node/server.toml" with "node",
    express: "node/express.toml" with "node",
    fastify: "node/fastify.toml" with "node",
    python_by_descriptor: "python/app.toml" with "python3",
    wsgi_with_gunicorn: "python/wsgi.toml" with "gunicorn",
    asgi_with_uvicorn: "python/asgi.toml" with "uvicorn",
    rack_with_puma: "ruby/app.toml" with "puma",
}

#[test]
fn every_example_is_run() {
    let all: Vec<PathBuf> = RUN.iter().map(|name| root().join("examples").join(name)).collect();
    let all: BTreeSet<PathBuf> = all.into_iter().collect();
    assert_eq!(files().into_iter().collect::<BTreeSet<_>>(), all);
}

#[test]
fn the_units_of_every_example_are_a_sandbox() {
    if which("systemd-analyze").is_none() && skip("systemd-analyze") {
        return;
    }
    for file in files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(&file, folder.path().join("app.toml")).unwrap();
        let made = Command::new(support::dogwatch())
            .args(["generate", "--from"])
            .args([folder.path(), folder.path()])
            .status()
            .unwrap();
        assert!(made.success(), "{}", file.display());
        let output = Command::new("systemd-analyze")
            .args(["security", "--no-pager", "--offline=true", "--threshold", EXPOSURE])
            .arg(folder.path().join("app.service"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {said}", file.display());
        assert!(said.contains("Overall exposure level"), "{}: {output:?}", file.display());
    }
}
