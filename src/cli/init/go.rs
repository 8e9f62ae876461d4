//! Go: the binary that was built, if it takes its socket from systemd.

use super::project::{Project, literal};
use super::write::listen;
use crate::cli::draft::{Draft, Table};
use crate::cli::trouble::Unusable;

/// What a program mentions that takes its socket.
const TAKES: [&str; 5] =
    ["LISTEN_FDS", "go-systemd", "activation.Listeners", "os.NewFile(3", "tableflip"];

/// What stands before the port.
const LISTENS: [&str; 3] = ["ListenAndServe(\":", "net.Listen(\"tcp\", \":", "Addr: \":"];

/// What to add to a program that does not.
const ADD: &str = "no file of the project takes its socket from systemd (LISTEN_FDS), so each worker would open the port by itself, and all but one fail. Add: import \"github.com/coreos/go-systemd/v22/activation\"; listeners, err := activation.Listeners(); http.Serve(listeners[0], handler). And let SIGTERM call server.Shutdown()";

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

pub(super) fn seen(project: &Project) -> Option<String> {
    project.has("go.mod").then(|| "there is a go.mod".to_owned())
}

pub(super) fn write(project: &Project, draft: &mut Draft) -> Result<(), Unusable> {
    let name = called(project).unwrap_or_else(|| draft.name.clone());
    let candidates =
        [format!("bin/{name}"), format!("build/{name}"), format!("dist/{name}"), name.clone()];
    let built = candidates.iter().find(|file| project.has(file));
    let command = format!("./{}", built.unwrap_or(&candidates[0]));
    match built {
        Some(file) => draft.note(Table::Top, "command", format!("{file} is there")),
        None => {
            let package =
                if project.has("main.go") { ".".to_owned() } else { format!("./cmd/{name}") };
            let text = format!("it is not built yet: 'go build -o bin/{name} {package}'");
            draft.remark_at(Table::Top, "command", "command", text);
        }
    }
    draft.set(Table::Top, "command", vec![command]);
    draft.set(Table::Top, "handoff", "fd");
    match project.mentions(&["go", "mod"], &TAKES) {
        Some(file) => {
            draft.note(
                Table::Top,
                "handoff",
                format!("from {file}: it takes its socket from systemd"),
            );
        }
        None => draft.remark_at(Table::Top, "handoff", "handoff", ADD),
    }
    let code = project.files(&["go"]).into_iter().take(50).find_map(|file| {
        let port = literal(&project.text(&file)?, &LISTENS)?;
        Some((port, file))
    });
    listen(project, code, (8080, "nothing says another port"), draft);
    Ok(())
}
