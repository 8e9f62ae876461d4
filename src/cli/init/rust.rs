//! Rust: the binary that was built, if it takes its socket from systemd.

use super::Sign;
use super::project::Project;
use super::write::{listen, takes_socket};
use crate::cli::draft::{Draft, Table};
use crate::cli::trouble::Unusable;

/// What a program mentions that takes its socket.
const TAKES: [&str; 4] = ["listenfd", "LISTEN_FDS", "sd_listen_fds", "receive_descriptors"];

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
    let sign = "there is a Cargo.toml";
    Some(if has_program(project, &manifest) { Sign::sure(sign) } else { Sign::weak(sign) })
}

/// Whether a package has a binary: one that is named, or one that Cargo finds by its place.
fn has_program(project: &Project, manifest: &toml::Table) -> bool {
    manifest.contains_key("bin") || project.has("src/main.rs") || project.has_folder("src/bin")
}

/// The binary's name: the first of `[[bin]]`, else the package's.
fn binary(project: &Project) -> Option<String> {
    let manifest = manifest(project)?;
    let bin = manifest.get("bin").and_then(|bins| bins.as_array()?.first()?.get("name")?.as_str());
    bin.or_else(|| manifest.get("package")?.get("name")?.as_str()).map(str::to_owned)
}

pub(super) fn called(project: &Project) -> Option<String> {
    manifest(project)?.get("package")?.get("name")?.as_str().map(str::to_owned)
}

pub(super) fn write(project: &Project, draft: &mut Draft) -> Result<(), Unusable> {
    let name = binary(project).ok_or_else(|| {
        Unusable::from("its Cargo.toml has no package: it is a workspace")
            .hint("call 'dogwatch init' in the folder of the package that serves")
    })?;
    if manifest(project).is_some_and(|manifest| !has_program(project, &manifest)) {
        return Err(Unusable::from(
            "it is a library of Rust: it has no src/main.rs, no src/bin and no [[bin]]",
        )
        .hint("call 'dogwatch init' in the package of the program that serves"));
    }
    let built = [
        format!("target/release/{name}"),
        format!("bin/{name}"),
        format!("../target/release/{name}"),
    ];
    let there = built.iter().find(|file| project.has(file));
    match there {
        Some(file) => draft.note(Table::Top, "command", format!("{file} is there; a deploy that builds in another place and switches a symlink has something to go back to")),
        None => draft.remark_at(Table::Top, "command", "command", "it is not built yet: 'cargo build --release'"),
    }
    draft.set(Table::Top, "command", vec![format!("./{}", there.unwrap_or(&built[0]))]);
    takes_socket(project.mentions(&["rs", "toml"], &TAKES), ADD, draft);
    listen(project, None, (8080, "nothing says another port"), draft);
    Ok(())
}
