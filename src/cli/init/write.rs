//! What is in the file of every project.

use super::project::Project;
use crate::cli::draft::{Draft, Table};
use crate::cli::trouble::Unusable;

/// How many workers there are where nothing says a number, and why.
pub(super) const CPUS: &str = "cpus";
pub(super) const WHY_CPUS: &str = "as many as the service may use processors; fewer where each needs much memory, a number for a fixed count";

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
    draft.set(Table::Top, "workers", CPUS);
    draft.note(Table::Top, "workers", WHY_CPUS);
    project.variables.write(draft);
    unseen(folder, draft);
    draft.choice("enabled = true", "start at boot");
    Ok(())
}

/// Says that the units hide where the project is (`ProtectHome=` and `PrivateTmp=` in `systemd.exec(5)`).
pub(super) fn unseen(folder: &str, draft: &mut Draft) {
    let below = |root: &str| folder == root || folder.starts_with(&format!("{root}/"));
    let Some(root) = ["/home", "/root", "/tmp", "/var/tmp"].into_iter().find(|root| below(root))
    else {
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

/// Writes `listen`: what was asked for, else PORT of the `.env`, else what the code says, else what is usual. Returns the port,
/// where it has one.
pub(super) fn listen(
    project: &Project,
    code: Option<(u16, String)>,
    usual: (u16, &str),
    draft: &mut Draft,
) -> Option<u16> {
    let everywhere = "all addresses; for a proxy on this machine alone";
    let (address, why) = match (&project.listen, project.variables.port, code) {
        (Some(address), _, _) => (address.clone(), "as it was asked for".to_owned()),
        (None, Some(port), _) => {
            (port.to_string(), format!("PORT in .env; {everywhere} \"127.0.0.1:{port}\""))
        }
        (None, None, Some((port, file))) => {
            (port.to_string(), format!("from {file}; {everywhere} \"127.0.0.1:{port}\""))
        }
        (None, None, None) => {
            let (port, whose) = usual;
            (port.to_string(), format!("{whose}; {everywhere} \"127.0.0.1:{port}\""))
        }
    };
    draft.note(Table::Top, "listen", why);
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
    draft.set(Table::Top, "listen", vec![address]);
    port
}
