//! A Procfile: each of its lines is a process; those that serve become apps.

use super::Imported;
use super::serve::{self, Web};
use super::variables::{self, Variables};
use crate::cli::draft::{Draft, Table, valid_name};
use crate::cli::place::{self, Place, resolve};
use crate::cli::trouble::Unusable;
use crate::config::launcher::{Line, line};
use std::path::Path;

/// Where foreman begins to count ports.
const FIRST_PORT: u16 = 5000;

/// One line of a Procfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Process {
    pub(in crate::cli) name: String,
    pub(in crate::cli) line: String,
    /// Its port, as foreman counts.
    pub(in crate::cli) port: u16,
}

impl Process {
    /// Whether it serves: it is called so, or is told a port.
    pub(in crate::cli) fn serves(&self) -> bool {
        !self.is_release()
            && (self.name == "web" || self.line.contains("$PORT") || self.line.contains("${PORT"))
    }

    /// Whether it is a step of the deploy, which has no port.
    fn is_release(&self) -> bool {
        self.name == "release"
    }
}

/// Reads a Procfile; what is no process in it is returned as remarks.
pub(in crate::cli) fn parse(text: &str, first_port: u16) -> (Vec<Process>, Vec<String>) {
    let (mut processes, mut remarks): (Vec<Process>, Vec<String>) = (vec![], vec![]);
    for (number, whole) in (1..).zip(text.lines()) {
        let text = whole.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let is_name = |name: &str| {
            let valid = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
            !name.is_empty() && name.chars().all(valid)
        };
        match text.split_once(':') {
            Some((name, _)) if processes.iter().any(|process| process.name == name) => remarks
                .push(format!("line {number} is left out, for there is a '{name}' before it")),
            Some((name, line)) if is_name(name) && !line.trim().is_empty() => {
                let count = processes.iter().filter(|process| !process.is_release()).count();
                let count = u16::try_from(count).unwrap_or(u16::MAX);
                let port = first_port.saturating_add(count.saturating_mul(100));
                let (name, line) = (name.to_owned(), line.trim().to_owned());
                processes.push(Process { name, line, port });
            }
            _ => remarks.push(format!("line {number} is no 'NAME: COMMAND', and is left out")),
        }
    }
    (processes, remarks)
}

/// Translates a Procfile.
///
/// # Errors
/// When it cannot be read, or nothing in it serves.
pub(super) fn translated(place: &Place) -> Result<Imported, Unusable> {
    let text = place::text(&place.file)?;
    let variables = Variables::beside(&place.folder);
    let (processes, mut remarks) = parse(&text, variables.port.unwrap_or(FIRST_PORT));
    let project = place::called(&place.folder);
    let mut drafts = vec![];
    for process in &processes {
        if !process.serves() {
            remarks.push(serves_nothing(process));
            continue;
        }
        let name = match process.name.as_str() {
            "web" => valid_name(&project),
            name => valid_name(&format!("{project}-{name}")),
        };
        let file = place.file.file_name().unwrap_or_default().to_string_lossy();
        let head = format!("From {file}: '{}', with values as they were on import.", process.name);
        let mut draft = Draft::new(name, head, "What its line says, and is not here");
        let web = Web {
            folder: &place.folder,
            runs_files: true,
            listen: None,
            port: Some(process.port),
            variables: &variables,
        };
        variables.write(&mut draft);
        write(process, web, &mut draft).map_err(|unusable| Unusable {
            reason: format!("'{}': {}", process.name, unusable.reason),
            ..unusable
        })?;
        place.reach(&mut draft);
        drafts.push(draft);
    }
    if drafts.is_empty() {
        return Err(Unusable::from(
            "nothing in it serves: there is no 'web', and no line has $PORT",
        )
        .hint("what serves nothing is a plain systemd service"));
    }
    Ok(Imported { drafts, remarks })
}

/// What is said of a process that is no app.
pub(in crate::cli) fn serves_nothing(process: &Process) -> String {
    if process.is_release() {
        return format!(
            "release: left out, for it is no service but a step of the deploy: let that do '{}' before 'dogwatch reload'",
            process.line
        );
    }
    format!(
        "{}: left out, for it is not called 'web' and no $PORT is in it: what serves nothing is a plain systemd service, ExecStart=/bin/sh -c '{}'",
        process.name,
        process.line.replace('\'', r"'\''")
    )
}

/// Writes what becomes of a line.
///
/// # Errors
/// When it cannot be read, or what it names cannot.
pub(in crate::cli) fn write(
    process: &Process,
    web: Web<'_>,
    draft: &mut Draft,
) -> Result<(), Unusable> {
    draft.set(Table::Env, "PORT", process.port.to_string());
    draft.note(Table::Env, "PORT", "a line of a Procfile is told its port so");
    let text = with_port(&process.line, process.port);
    let mut folder = web.folder.to_owned();
    let mut text = text.as_str();
    let rest;
    let mut parsed = line(text).map_err(Unusable::from)?;
    if let Line::After(before, last) = parsed {
        for command in before {
            match command.strip_prefix("cd ").map(str::trim) {
                Some(to) if !to.contains(['$', '~', '*', '`', ' ']) => {
                    folder = resolve(&folder, Path::new(to));
                }
                _ => {
                    let said = format!(
                        "'{command}' is left out, for it would run with each worker: let the deploy do it, before 'dogwatch reload {}'",
                        draft.name
                    );
                    draft.remark(&process.name, said);
                }
            }
        }
        rest = last;
        text = &rest;
        parsed = line(text).map_err(Unusable::from)?;
    }
    let directory = folder.to_str().ok_or_else(|| Unusable::from("its folder is not UTF-8"))?;
    draft.set(Table::Top, "working-directory", directory);
    if matches!(parsed, Line::Shell(_)) {
        let known = variables::known(text, web.variables);
        let known = known.filter(|known| serve::is_server(&known.argv, folder.as_path()));
        if let Some(known) = known {
            parsed = said(known, draft);
        }
    }
    match parsed {
        Line::Plain(set, argv) => {
            let port = assign(set, web, draft);
            serve::command(&argv, Web { folder: &folder, port, ..web }, draft)
        }
        Line::After(_, _) => Err(Unusable::from(format!("'{text}' is more than one command"))),
        Line::Shell(text) => {
            let words = ["/bin/sh".to_owned(), "-c".to_owned(), text.clone()];
            serve::other(&words, Web { folder: &folder, ..web }, draft);
            let said = "it takes a shell; better the program and its arguments as a list, and variables in [env]";
            draft.remark_at(Table::Top, "command", &process.name, said);
            Ok(())
        }
    }
}

/// Writes the variables that a line has before its program, and returns the port that it is told. An address that was asked for
/// counts before a PORT of the line's.
fn assign(set: Vec<(String, String)>, web: Web<'_>, draft: &mut Draft) -> Option<u16> {
    let mut port = web.port;
    for (name, value) in set {
        if name == "PORT" && web.listen.is_some() {
            continue;
        }
        if name == "PORT" {
            port = value.parse().ok().filter(|port| *port > 0).or(port);
        }
        draft.set(Table::Env, &name, value);
    }
    port
}

/// Says what became of the variables of a line.
fn said(known: variables::Known, draft: &mut Draft) -> Line {
    for (name, value) in known.put {
        let text =
            format!("${name} of its line is '{value}' here, as .env or the line itself says");
        draft.note(Table::Top, "command", text);
    }
    for (flag, name) in known.dropped {
        let text = format!(
            "nothing says what it is, so '{flag}' is left out: write the value into .env or into the line, and do this again"
        );
        draft.remark_at(Table::Top, "command", &format!("${name}"), text);
    }
    Line::Plain(known.set, known.argv)
}

/// Puts the port where the shell would.
fn with_port(line: &str, port: u16) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let named = rest
            .strip_prefix("$PORT")
            .filter(|after| !after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'));
        let braced = rest.strip_prefix("${PORT}").or_else(|| {
            let after = rest.strip_prefix("${PORT:-")?;
            let end = after.find('}')?;
            after[..end].chars().all(|c| c.is_ascii_digit()).then_some(&after[end + 1..])
        });
        match named.or(braced) {
            Some(after) => {
                text.push_str(&port.to_string());
                rest = after;
            }
            None => {
                text.push('$');
                rest = &rest[1..];
            }
        }
    }
    text + rest
}
