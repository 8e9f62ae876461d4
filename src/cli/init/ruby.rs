//! Ruby: Puma takes the socket that is passed; of the other servers unicorn does.

use super::Sign;
use super::project::{Project, literal};
use super::write::listen;
use crate::cli::draft::{Draft, Table};
use crate::cli::import::puma;
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
        .map(|gem| Sign::sure(format!("the Gemfile names {gem}")))
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
        unicorn(project, draft);
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
    let file = "config/puma.rb";
    let text = project.text(file);
    if text.is_some() {
        let text = "goes on being read, and was not run here: 'dogwatch import config/puma.rb' takes over what it says";
        draft.remark_at(Table::Top, "command", file, text);
    }
    let marks = ["\"PORT\")", "\"PORT\",", "'PORT')", "'PORT',", "\nport "];
    let read = text.and_then(|text| Some((literal(&text, &marks)?, file.to_owned())));
    let usual =
        if is_rails { (3000, "the usual port of Rails") } else { (9292, "the usual port of Rack") };
    listen(project, read, usual, draft);
}

fn unicorn(project: &Project, draft: &mut Draft) {
    let port = listen(project, None, (8080, "the usual port of unicorn"), draft).unwrap_or(8080);
    // It takes only what has exactly the address that it is told.
    let is_port = draft
        .get(Table::Top, "listen")
        .and_then(|l| l.as_array()?.first()?.as_str()?.parse::<u16>().ok());
    if is_port.is_some() {
        draft.set(Table::Top, "listen", vec![format!("0.0.0.0:{port}")]);
    }
    let address = draft
        .get(Table::Top, "listen")
        .and_then(|l| l.as_array()?.first()?.as_str().map(str::to_owned));
    let address = address.unwrap_or_default().trim_start_matches("unix:").to_owned();
    let mut command = vec!["bundle".to_owned(), "exec".to_owned(), "unicorn".to_owned()];
    command.extend(["-l".to_owned(), address]);
    draft.set(Table::Top, "command", command);
    draft.note(Table::Top, "command", "the Gemfile names unicorn; it takes the socket that has exactly this address, so the socket unit has to name the same; its file must not name another, and must not say more than one of its own workers");
    draft.set(Table::Ready, "when", "accepting");
    draft.set(Table::Stop, "signal", "SIGQUIT");
    draft.note(Table::Stop, "signal", "at SIGTERM unicorn drops what it is answering");
}
