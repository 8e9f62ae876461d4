//! A Procfile: its line `web` is the owner's word for how the project is served.

use super::Sign;
use super::project::Project;
use crate::cli::draft::Draft;
use crate::cli::import::procfile::{Process, parse, serves_nothing, write as translate};
use crate::cli::trouble::Unusable;

/// The port that a line is told where nothing says another.
const USUAL: u16 = 8080;

fn processes(project: &Project) -> Vec<Process> {
    let port = project.listen.as_deref().and_then(|listen| listen.rsplit(':').next()?.parse().ok());
    let port = port.or(project.variables.port).unwrap_or(USUAL);
    let (processes, remarks) = parse(&project.text("Procfile").unwrap_or_default(), port);
    remarks.into_iter().for_each(|remark| project.note(format!("Procfile: {remark}")));
    processes
}

fn web(project: &Project) -> Option<(Process, Vec<Process>)> {
    let mut all = processes(project);
    let at = all.iter().position(|process| process.name == "web")?;
    let mut web = all.remove(at);
    web.port = all.iter().map(|process| process.port).fold(web.port, u16::min);
    Some((web, all))
}

pub(super) fn seen(project: &Project) -> Option<Sign> {
    web(project).map(|_| Sign::sure("there is a Procfile with a line 'web'"))
}

pub(super) fn called(_: &Project) -> Option<String> {
    None
}

pub(super) fn write(project: &Project, draft: &mut Draft) -> Result<(), Unusable> {
    let (process, others) =
        web(project).ok_or_else(|| Unusable::from("its Procfile has no 'web'"))?;
    let mut web = project.web();
    web.port = Some(process.port);
    translate(&process, web, draft)?;
    for other in others {
        project.note(format!("Procfile: {}", serves_nothing(&other)));
    }
    Ok(())
}
