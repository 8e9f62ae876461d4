//! PHP: a program that serves by itself can take the socket (`php://fd/3`); what needs a server around it cannot.

use super::Sign;
use super::project::Project;
use super::write::listen;
use crate::cli::draft::{Draft, Table};
use crate::cli::trouble::Unusable;

/// What a PHP program mentions that takes its socket.
const TAKES: [&str; 2] = ["php://fd/3", "LISTEN_FDS"];

pub(super) fn seen(project: &Project) -> Option<Sign> {
    let there = |names: [&'static str; 2]| names.into_iter().find(|name| project.has(name));
    let project_of = there(["composer.json", "artisan"]);
    let file = project_of.or_else(|| there(["public/index.php", "index.php"]))?;
    let is_sure = project_of.is_some() && project.mentions(&["php"], &TAKES).is_some();
    Some(Sign { text: format!("there is {file}"), is_sure })
}

pub(super) fn called(project: &Project) -> Option<String> {
    let package: serde_json::Value = serde_json::from_str(&project.text("composer.json")?).ok()?;
    let name = package.get("name")?.as_str()?;
    Some(name.rsplit('/').next().unwrap_or(name).to_owned())
}

pub(super) fn write(project: &Project, draft: &mut Draft) -> Result<(), Unusable> {
    let Some(file) = project.mentions(&["php"], &TAKES) else {
        let requires = project.text("composer.json").unwrap_or_default();
        return Err(if requires.contains("react/") {
            Unusable::from("it is PHP with ReactPHP, but no file of it takes its socket from systemd")
                .hint("write new React\\Socket\\SocketServer('php://fd/3') where it listens, and call 'dogwatch init' again")
        } else {
            Unusable::from("it is PHP, and what serves PHP here cannot be given a socket: php-fpm, RoadRunner and Swoole have workers and a reload of their own, and 'php -S' is for development")
                .hint("run php-fpm as the systemd service that it is; dogwatch is for programs that serve by themselves, like ReactPHP on 'php://fd/3'")
        });
    };
    draft.set(Table::Top, "command", vec!["php".to_owned(), file.clone()]);
    draft.note(Table::Top, "command", format!("{file} takes file descriptor 3 by itself"));
    draft.set(Table::Top, "handoff", "fd");
    listen(project, None, (8080, "nothing says another port"), draft);
    Ok(())
}
