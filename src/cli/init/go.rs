//! Go: the binary that was built, if it takes its socket from systemd.

use super::Sign;
use super::project::{Project, literal};
use super::write::{Port, listen, takes_socket};
use crate::cli::draft::{Draft, Table};
use crate::cli::trouble::Unusable;

/// What a program mentions that takes its socket.
const TAKES: [&str; 5] =
    ["LISTEN_FDS", "go-systemd", "activation.Listeners", "os.NewFile(3", "tableflip"];

/// What stands before the port.
const LISTENS: [&str; 3] = ["ListenAndServe(\":", "net.Listen(\"tcp\", \":", "Addr:"];

/// What to add to a program that does not.
const ADD: &str = "Add: import \"github.com/coreos/go-systemd/v22/activation\"; listeners, err := activation.Listeners(); http.Serve(listeners[0], handler). And let SIGTERM call server.Shutdown()";

/// The module's last element, without a version.
pub(super) fn called(project: &Project) -> Option<String> {
    let text = project.text("go.mod")?;
    let module = text.lines().find_map(|line| line.trim().strip_prefix("module "))?;
    let module = module.split("//").next().unwrap_or(module).trim().trim_matches('"');
    let is_version = |part: &&str| {
        part.strip_prefix('v')
            .is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()))
    };
    module.rsplit('/').find(|part| !is_version(part)).map(str::to_owned)
}

pub(super) fn seen(project: &Project) -> Option<Sign> {
    let is_sure = project.has("go.mod") && !programs(project).is_empty();
    project.has("go.mod").then(|| Sign { text: "there is a go.mod".to_owned(), is_sure })
}

/// The folders of the module's programs, "" for its own; those nearest to it first.
fn programs(project: &Project) -> Vec<String> {
    let is_main = |text: String| {
        let mut lines = text.lines();
        let is_package = |line: &str| line.split_whitespace().take(2).eq(["package", "main"]);
        // What generates code is run by its file.
        let is_built = |line: &str| !line.starts_with("//go:build ignore");
        lines.clone().all(is_built) && lines.any(is_package)
    };
    let mut folders: Vec<String> = project
        .files(&["go"])
        .into_iter()
        .filter(|file| !file.ends_with("_test.go") && project.text(file).is_some_and(is_main))
        .map(|file| file.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned())
        .collect();
    folders.dedup();
    folders
}

pub(super) fn write(project: &Project, draft: &mut Draft) -> Result<(), Unusable> {
    let module = called(project).unwrap_or_else(|| draft.name.clone());
    let programs = programs(project);
    let own = format!("cmd/{module}");
    let chosen = programs.iter().find(|folder| folder.is_empty() || **folder == own);
    let Some(folder) = chosen.or_else(|| programs.first()) else {
        return Err(Unusable::from("it is a library of Go: no file of it is 'package main'")
            .hint("call 'dogwatch init' in the module of the program that serves"));
    };
    let name = folder.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(&module);
    if chosen.is_none() && programs.len() > 1 {
        let text = format!(
            "there are several programs ({}): is this the one that serves?",
            programs.join(", ")
        );
        draft.remark_at(Table::Top, "command", "command", text);
    }
    let candidates =
        [format!("bin/{name}"), format!("build/{name}"), format!("dist/{name}"), name.to_owned()];
    let built = candidates.iter().find(|file| project.has(file));
    let command = format!("./{}", built.unwrap_or(&candidates[0]));
    match built {
        Some(file) => draft.note(Table::Top, "command", format!("{file} is there")),
        None => {
            let package = if folder.is_empty() { ".".to_owned() } else { format!("./{folder}") };
            let text = format!("it is not built yet: 'go build -o bin/{name} {package}'");
            draft.remark_at(Table::Top, "command", "command", text);
        }
    }
    draft.set(Table::Top, "command", vec![command]);
    takes_socket(project.mentions(&["go", "mod"], &TAKES), ADD, draft);
    let code = project
        .files(&["go"])
        .into_iter()
        .take(50)
        .find_map(|file| Some(Port::seen(literal(&project.text(&file)?, &LISTENS)?, &file)));
    listen(project, code, (8080, "nothing says another port"), draft);
    Ok(())
}
