//! Units and links, written where systemd wants them (`systemd.generator(7)`).

use super::find::REPORTER;
use crate::config::units::{Plan, Scope};
use std::io;
use std::path::Path;

/// Writes everything below `into`. `reporter` is the program of a unit that says at the end of the boot what is refused.
///
/// # Errors
/// With the path that could not be written; the others are.
pub(super) fn write(
    plan: &Plan,
    into: &Path,
    reporter: Option<&Path>,
    scope: Scope,
) -> io::Result<()> {
    let mut result = Ok(());
    let mut note = |done: io::Result<()>| {
        if let (Err(e), Ok(())) = (done, &result) {
            result = Err(e);
        }
    };
    for (name, units) in &plan.units {
        note(file(&into.join(format!("{name}.socket")), &units.socket));
        note(file(&into.join(format!("{name}.service")), &units.service));
        for want in &units.wants {
            note(link(into, want));
        }
    }
    if let Some(program) = reporter {
        let unit = format!("{REPORTER}.service");
        let target = match scope {
            Scope::System => "multi-user.target",
            Scope::User => "default.target",
        };
        let user = if scope == Scope::User { " --user" } else { "" };
        let text = format!(
            "# Says to the journal what 'dogwatch generate --dry-run' says: at boot there is none yet.\n[Unit]\n\
             Description=Files of dogwatch that were refused at boot\n\n[Service]\nType=oneshot\n\
             ExecStart={} generate --refused{user}\n",
            program.display()
        );
        note(file(&into.join(&unit), &text));
        note(link(into, &format!("{target}.wants/{unit}")));
    }
    result
}

fn named(path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("'{}': {e}", path.display()))
}

fn file(path: &Path, text: &str) -> io::Result<()> {
    std::fs::write(path, text).map_err(|e| named(path, &e))
}

/// Makes `TARGET.wants/UNIT`, a link to the unit beside the directory.
fn link(into: &Path, want: &str) -> io::Result<()> {
    let path = into.join(want);
    let Some((folder, unit)) = want.split_once('/') else { return Ok(()) };
    let made = std::fs::create_dir_all(into.join(folder));
    made.and_then(|()| std::os::unix::fs::symlink(Path::new("..").join(unit), &path))
        .map_err(|e| named(&path, &e))
}
