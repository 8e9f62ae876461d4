//! Ruby: Puma takes the socket that is passed; of the other servers unicorn does.

use super::Sign;
use super::project::{Project, literal};
use super::write::{Port, listen};
use crate::cli::draft::{Draft, Table};
use crate::cli::import::{puma, serve};
use crate::cli::trouble::Unusable;

/// Servers that cannot be given a socket.
const OTHERS: [(&str, &str); 4] = [
    ("falcon", "falcon opens its port by itself"),
    ("thin", "thin opens its port by itself"),
    ("passenger", "passenger has processes and a reload of its own"),
    ("webrick", "WEBrick opens its port by itself, and is for development"),
];

/// Whether a Gemfile names a gem.
fn has(project: &Project, gem: &str) -> bool {
    let text = project.text("Gemfile").unwrap_or_default();
    text.lines().any(|line| {
        let line = line.trim_start();
        let named = line.strip_prefix("gem ").or_else(|| line.strip_prefix("gem("));
        let named = named.map(|rest| rest.trim_start_matches([' ', '"', '\'']));
        named
            .and_then(|rest| rest.strip_prefix(gem))
            .is_some_and(|rest| rest.starts_with(['"', '\'']))
    })
}

pub(super) fn seen(project: &Project) -> Option<Sign> {
    if project.has("config.ru") {
        return Some(Sign::sure("there is a config.ru"));
    }
    ["rails", "puma", "sinatra"]
        .into_iter()
        .find(|gem| has(project, gem))
        .map(|gem| Sign::weak(format!("the Gemfile names {gem}")))
}

pub(super) fn called(_: &Project) -> Option<String> {
    None
}

pub(super) fn write(project: &Project, draft: &mut Draft) -> Result<(), Unusable> {
    if !project.has("config.ru") {
        return Err(Unusable::from(
            "it is Ruby, but there is no config.ru that says what to serve",
        )
        .hint(
            "for a Sinatra app: echo \"require './app'; run Sinatra::Application\" > config.ru",
        ));
    }
    let is_rails = has(project, "rails") || project.has("bin/rails");
    if has(project, "unicorn") && !has(project, "puma") {
        let words = ["bundle", "exec", "unicorn"].map(str::to_owned);
        serve::command(&words, project.web(), draft)?;
    } else {
        with_puma(project, is_rails, draft);
    }
    for (gem, text) in
        OTHERS.into_iter().filter(|(gem, _)| has(project, gem) && !has(project, "puma"))
    {
        let text = format!("{text}, so Puma is written here: 'bundle add puma'");
        draft.remark_at(Table::Top, "command", gem, text);
    }
    let name = if is_rails { "RAILS_ENV" } else { "RACK_ENV" };
    if !project.variables.has_environment() {
        draft.set(Table::Env, name, "production");
    }
    Ok(())
}

fn with_puma(project: &Project, is_rails: bool, draft: &mut Draft) {
    let mut command = puma::program(&project.folder);
    if project.has("Gemfile") && !has(project, "puma") && !is_rails {
        draft.remark_at(
            Table::Top,
            "command",
            "puma",
            "the Gemfile does not name it: 'bundle add puma'",
        );
    } else if !project.has("Gemfile")
        && command == ["puma"]
        && project.place.which("puma").is_none()
    {
        draft.remark_at(Table::Top, "command", "puma", "it is not installed: 'gem install puma'");
    }
    command.extend(puma::OURS.map(str::to_owned));
    draft.set(Table::Top, "command", command);
    puma::ready(draft);
    let file = puma::usual(&project.folder, "production");
    if let Some(file) = &file {
        let text = format!(
            "goes on being read, and was not run here: 'dogwatch import {file}' takes over what it says"
        );
        draft.remark_at(Table::Top, "command", file, text);
    }
    let marks = ["\"PORT\")", "\"PORT\",", "'PORT')", "'PORT',", "\nport "];
    let read =
        file.and_then(|file| Some(Port::seen(literal(&project.text(&file)?, &marks)?, &file)));
    let usual =
        if is_rails { (3000, "the usual port of Rails") } else { (9292, "the usual port of Rack") };
    listen(project, read, usual, draft);
}
