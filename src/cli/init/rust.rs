//! Rust: the binary that was built, if it takes its socket from systemd.

use super::Sign;
use super::project::Project;
use super::write::{listen, takes_socket};
use crate::cli::draft::{Draft, Table};
use crate::cli::trouble::Unusable;

/// What a program mentions that takes its socket.
const TAKES: [&str; 4] = ["listenfd", "LISTEN_FDS", "sd_listen_fds", "receive_descriptors"];

/// So many folders are between a package and the root of its workspace.
const DEEPEST: usize = 3;

/// What to add to a program that does not.
const ADD: &str = "Add 'cargo add listenfd'; let listener = ListenFd::from_env().take_tcp_listener(0)?; for tokio call set_nonblocking(true) and TcpListener::from_std(listener). And finish at SIGTERM";

fn manifest(project: &Project) -> Option<toml::Table> {
    let parsed = project.text("Cargo.toml")?.parse::<toml::Table>();
    if parsed.is_err() {
        project.note("'Cargo.toml' was not looked at: not valid TOML".to_owned());
    }
    parsed.ok()
}

pub(super) fn seen(project: &Project) -> Option<Sign> {
    let manifest = manifest(project)?;
    let is_sure = !binaries(project, &manifest).is_empty();
    Some(Sign { text: "there is a Cargo.toml".to_owned(), is_sure })
}

/// The names of the package's binaries, as Cargo has them: `default-run` alone, else those of `[[bin]]`, the package's own,
/// or those that are found by their place.
fn binaries(project: &Project, manifest: &toml::Table) -> Vec<String> {
    let own = |key: &str| Some(manifest.get("package")?.get(key)?.as_str()?.to_owned());
    if let Some(name) = own("default-run") {
        return vec![name];
    }
    let bins = manifest.get("bin").and_then(toml::Value::as_array);
    let named = |bin: &toml::Value| Some(bin.get("name")?.as_str()?.to_owned());
    let named: Vec<String> = bins.into_iter().flatten().filter_map(named).collect();
    if !named.is_empty() {
        return named;
    }
    let is_bin = |file: &&str| file.matches('/').count() == 0 || file.ends_with("/main.rs");
    let files = project.files(&["rs"]);
    let placed = files.iter().filter_map(|file| file.strip_prefix("src/bin/")).filter(is_bin);
    let placed = placed.filter_map(|file| file.split(['/', '.']).next().map(str::to_owned));
    own("name").filter(|_| project.has("src/main.rs")).into_iter().chain(placed).collect()
}

/// The way from a package to the folder in which Cargo builds: that of the workspace, if it is in one.
fn root(project: &Project) -> String {
    let here = "./".to_owned();
    let ups = [here.clone()].into_iter().chain((1..=DEEPEST).map(|depth| "../".repeat(depth)));
    let is_root = |up: &String| {
        let text = project.text(&format!("{up}Cargo.toml")).unwrap_or_default();
        text.lines().any(|line| line.starts_with("[workspace]"))
    };
    ups.into_iter().find(is_root).unwrap_or(here)
}

pub(super) fn called(project: &Project) -> Option<String> {
    manifest(project)?.get("package")?.get("name")?.as_str().map(str::to_owned)
}

pub(super) fn write(project: &Project, draft: &mut Draft) -> Result<(), Unusable> {
    let manifest = manifest(project).unwrap_or_default();
    if !manifest.contains_key("package") {
        return Err(Unusable::from("its Cargo.toml has no package: it is a workspace")
            .hint("call 'dogwatch init' in the folder of the package that serves"));
    }
    let names = binaries(project, &manifest);
    let Some(name) = names.first() else {
        return Err(Unusable::from(
            "it is a library of Rust: it has no src/main.rs, no src/bin and no [[bin]]",
        )
        .hint("call 'dogwatch init' in the package of the program that serves"));
    };
    if names.len() > 1 {
        let text = format!(
            "there are several programs ({}): is this the one that serves?",
            names.join(", ")
        );
        draft.remark_at(Table::Top, "command", "command", text);
    }
    let built = [format!("{}target/release/{name}", root(project)), format!("./bin/{name}")];
    let there = built.iter().find(|file| project.has(file));
    match there {
        Some(file) => draft.note(Table::Top, "command", format!("{file} is there; a deploy that builds in another place and switches a symlink has something to go back to")),
        None => draft.remark_at(Table::Top, "command", "command", "it is not built yet: 'cargo build --release'"),
    }
    draft.set(Table::Top, "command", vec![there.unwrap_or(&built[0]).clone()]);
    takes_socket(project.mentions(&["rs", "toml"], &TAKES), ADD, draft);
    listen(project, None, (8080, "nothing says another port"), draft);
    Ok(())
}
