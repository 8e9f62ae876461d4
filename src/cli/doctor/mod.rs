//! `dogwatch doctor APP`: whatever keeps an app from serving, now or at the next start, with what to do about it.
//!
//! [`gather`] looks at the machine, once and without changing it; [`judge`] turns what was found into findings.

mod ask;
mod facts;
mod finding;
mod gather;
mod judge;
mod place;
mod script;
mod unit;

use super::list::to_json;
use super::target::app_name;
use super::text::{print, say};
use super::trouble::{Code, Trouble};
use crate::config::units::Scope;
use finding::{Finding, Mark};
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;

/// Which app.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArguments {
    /// The app: one that runs, or a file's name without '.toml'
    #[arg(value_name = "APP", value_parser = app_name, add = super::complete_apps())]
    app: String,
    /// An app of a user's own manager, from ~/.config/dogwatch
    #[arg(long)]
    user: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    app: &'a str,
    findings: &'a [Finding],
}

/// Prints a line for each question; 1 if there is a problem.
pub(super) fn doctor(
    arguments: &DoctorArguments,
    control: Option<&Path>,
) -> Result<ExitCode, Trouble> {
    let app = &arguments.app;
    let scope = if arguments.user { Scope::User } else { Scope::System };
    let Some(facts) = gather::gather(app, scope, control)? else {
        let folder = super::generate::folder(scope).unwrap_or_default();
        let file = folder.join(format!("{app}.toml"));
        let text = format!(
            "cannot look at '{app}': there is no app of that name, and no '{}'",
            file.display()
        );
        let trouble = Trouble::new(Code::Usage, text);
        let other = "for an app of your own manager, say '--user'";
        return Err(if arguments.user { trouble } else { trouble.hint(other) });
    };
    let findings = judge::judge(&facts);
    if arguments.json {
        say(&to_json(&Report { app, findings: &findings })?)?;
    } else {
        print(&finding::report(app, &findings))?;
    }
    let is_sick = findings.iter().any(|finding| finding.mark == Mark::Problem);
    Ok(if is_sick { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
