//! What is in the file of every project.

use super::project::Project;
use crate::cli::draft::{Draft, Table};
use crate::cli::trouble::Unusable;
use std::path::Path;

/// Writes what does not depend on the kind of project.
///
/// # Errors
/// When the folder has a name that cannot be written down.
pub(super) fn around(project: &Project, draft: &mut Draft) -> Result<(), Unusable> {
    let folder = project.folder.to_str().ok_or_else(|| Unusable::from("its path is not UTF-8"))?;
    draft.set(Table::Top, "working-directory", folder);
    draft.note(
        Table::Top,
        "working-directory",
        "for deploys without a gap a symlink that is switched, like \"/srv/myapp/current\": it is resolved again at each reload",
    );
    project.variables.write(draft);
    unseen(folder, draft);
    draft.choice("enabled = true", "start at boot");
    Ok(())
}

/// Writes how many workers there are, where the kind of project has not said it.
pub(super) fn workers(project: &Project, draft: &mut Draft) {
    if draft.get(Table::Top, "workers").is_some() {
        return;
    }
    if let Some(count) = project.variables.concurrency() {
        draft.set(Table::Top, "workers", count);
        let text = "WEB_CONCURRENCY in .env; \"cpus\" follows the machine";
        return draft.note(Table::Top, "workers", text);
    }
    draft.set(Table::Top, "workers", "cpus");
    let text = "as many as the service may use processors; fewer where each needs much memory, a number for a fixed count";
    draft.note(Table::Top, "workers", text);
}

/// Says that the units hide where the project is (`ProtectHome=` and `PrivateTmp=` in `systemd.exec(5)`).
pub(super) fn unseen(folder: &str, draft: &mut Draft) {
    let named = Path::new(folder);
    let actual = named.canonicalize().unwrap_or_default();
    let below = |root: &&str| named.starts_with(root) || actual.starts_with(root);
    let Some(root) = ["/home", "/root", "/tmp", "/var/tmp"].into_iter().find(below) else {
        return;
    };
    let is_home = !root.ends_with("tmp");
    let or = if is_home {
        ", or show it to the service ([sandbox] home, with a user who may read it)"
    } else {
        ""
    };
    let text =
        format!("as a service the app sees nothing below {root}: put it below /srv or /opt{or}");
    draft.remark_at(Table::Top, "working-directory", "working-directory", text);
    if is_home {
        draft.choice(
            "user = \"NAME\"",
            format!("with [sandbox] home, for an app below {root}: who may read it"),
        );
        draft.choice("sandbox.home = \"read-only\"", format!("the service sees {root}"));
    }
}

/// Writes the handoff of a program that was compiled: a file of it takes its socket by itself, or it says what to `add`.
pub(super) fn takes_socket(file: Option<String>, add: &str, draft: &mut Draft) {
    draft.set(Table::Top, "handoff", "fd");
    match file {
        Some(file) => {
            let text = format!("from {file}: it takes its socket from systemd");
            draft.note(Table::Top, "handoff", text);
        }
        None => {
            let text = format!(
                "no file of the project takes its socket from systemd (LISTEN_FDS), so each worker would open the port by itself, and all but one fail. {add}"
            );
            draft.remark_at(Table::Top, "handoff", "handoff", text);
        }
    }
}

/// A port that a project names.
pub(super) struct Port {
    pub(super) number: u16,
    /// Where it stands.
    pub(super) place: String,
    /// It is this one whatever PORT says.
    pub(super) is_fixed: bool,
}

impl Port {
    /// A port that stands in a file.
    pub(super) fn seen(number: u16, file: &str) -> Self {
        Self { number, place: file.to_owned(), is_fixed: false }
    }
}

/// Writes `listen`: what was asked for, else what the command itself fixes, PORT of the `.env`, what the code says, or what is
/// usual. Returns the port, where it has one.
pub(super) fn listen(
    project: &Project,
    code: Option<Port>,
    usual: (u16, &str),
    draft: &mut Draft,
) -> Option<u16> {
    let fixed = code.as_ref().filter(|port| port.is_fixed);
    let (number, whose) = match (fixed, project.variables.port, &code) {
        (Some(port), ..) | (None, None, Some(port)) => {
            (port.number, format!("from {}", port.place))
        }
        (None, Some(port), _) => (port, "PORT in .env".to_owned()),
        (None, None, None) => (usual.0, usual.1.to_owned()),
    };
    let everywhere = "all addresses; for a proxy on this machine alone";
    let (address, why) = match &project.listen {
        Some(address) => (address.clone(), "as it was asked for".to_owned()),
        None => (number.to_string(), format!("{whose}; {everywhere} \"127.0.0.1:{number}\"")),
    };
    draft.note(Table::Top, "listen", why);
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
    draft.set(Table::Top, "listen", vec![address]);
    if let Some(fixed) = fixed.filter(|fixed| Some(fixed.number) != port) {
        let text = format!(
            "{} asks for port {}: let it ask for the one that is named here",
            fixed.place, fixed.number
        );
        draft.remark_at(Table::Top, "listen", "listen", text);
    }
    port
}
