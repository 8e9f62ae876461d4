//! `dogwatch generate`, and the program that systemd starts as `dogwatch-generator` (`systemd.generator(7)`): each file
//! `/etc/dogwatch/APP.toml` becomes `APP.socket` and `APP.service`.
//!
//! systemd waits for it at boot and at each `daemon-reload`, so it asks nobody, and writes nowhere but where it is told. A
//! file that cannot be used is skipped; why is said to the journal, or, at boot before there is one, by a unit.

mod find;
mod write;

pub(super) use find::folder;

use super::text::print;
use super::trouble::{Code, Trouble, printable};
use crate::config::Error;
use crate::config::units::{Plan, Refused, Scope};
use crate::protocol::journal::{NATIVE_SOCKET, native_entry};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The message id of a file that gets no units, for the journal's catalog.
const REFUSED: &str = "3c8f2d6d1c8b4f0e9a5e5d0b7f2a4c61";

const WHERE: &str = "name a directory to write into, or say '--dry-run'";

/// What `generate` is to do.
#[derive(Debug, Default, clap::Args)]
pub(super) struct GenerateArguments {
    /// Print the units, and why a file gets none, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Only why files get no units; exits with 2 if there are such
    #[arg(long, conflicts_with = "dry_run")]
    refused: bool,
    /// Units of a user's own manager, from ~/.config/dogwatch
    #[arg(long)]
    user: bool,
    /// Only of this app
    #[arg(long, value_name = "APP")]
    app: Option<String>,
    /// Read the files of this directory [default: /etc/dogwatch]
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Write into the first of these: as systemd starts a generator
    #[arg(value_name = "DIR", num_args = 0..=3)]
    into: Vec<PathBuf>,
}

/// Whether this program was started as a generator, and with which arguments.
pub(super) fn as_generator() -> Option<GenerateArguments> {
    let mut arguments = std::env::args_os();
    let name = PathBuf::from(arguments.next()?);
    let is_generator = name.file_name().is_some_and(|name| name == "dogwatch-generator");
    let user = std::env::var_os("SYSTEMD_SCOPE")
        .map_or_else(|| !nix::unistd::geteuid().is_root(), |scope| scope == "user");
    is_generator.then(|| GenerateArguments {
        user,
        into: arguments.map(PathBuf::from).collect(),
        ..GenerateArguments::default()
    })
}

/// Makes units.
pub(super) fn generate(arguments: &GenerateArguments) -> Result<ExitCode, Trouble> {
    let scope = if arguments.user { Scope::User } else { Scope::System };
    let program = std::env::current_exe()
        .map_err(|e| Trouble::new(Code::Failed, format!("cannot find my own program: {e}")))?;
    // While a package replaces it, the kernel says so in its name.
    let program = program.to_string_lossy().trim_end_matches(" (deleted)").to_owned();
    let program = PathBuf::from(program);
    if let Some(from) = &arguments.from {
        std::fs::read_dir(from).map_err(|e| {
            Trouble::new(Code::Usage, format!("cannot read directory '{}': {e}", from.display()))
        })?;
    }
    let folder = arguments.from.clone().or_else(|| folder(scope));
    let plan = planned(folder.clone(), arguments.app.as_deref(), &program, scope);
    let plan = plan.map_err(|e| Trouble::new(Code::Failed, e))?;
    if let Some(app) = &arguments.app
        && plan.is_empty()
    {
        return Err(Trouble::new(Code::Usage, no_file(app, folder)));
    }
    if arguments.dry_run || arguments.refused {
        return shown(&plan, arguments.refused);
    }
    let Some(into) = arguments.into.first() else {
        return Err(Trouble::new(Code::Usage, "cannot write units: nobody says where").hint(WHERE));
    };
    for name in &plan.waiting {
        say_waiting(name);
    }
    let unheard = plan.refused.iter().filter(|refused| !tell(refused)).count();
    let reporter = (unheard > 0).then_some(program.as_path());
    write::write(&plan, into, reporter, scope)
        .map_err(|e| Trouble::new(Code::Failed, format!("cannot write units: {e}")))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns what there is to do about the files of a directory, all of them or that of one app.
pub(super) fn planned(
    folder: Option<PathBuf>,
    app: Option<&str>,
    program: &Path,
    scope: Scope,
) -> Result<Plan, String> {
    let files = folder.map_or_else(|| Ok(vec![]), |folder| find::files(&folder, scope))?;
    let mut plan = Plan::new(&files, &program.to_string_lossy(), scope, cpus());
    if let Some(app) = app {
        plan.units.retain(|(name, _)| name == app);
        plan.refused.retain(|refused| refused.name == *app);
        plan.without.retain(|name| name == app);
        plan.waiting.retain(|name| name == app);
    }
    Ok(plan)
}

fn no_file(app: &str, folder: Option<PathBuf>) -> String {
    let path = folder.unwrap_or_default().join(format!("{app}.toml"));
    format!("cannot make units for '{app}': there is no '{}'", path.display())
}

fn cpus() -> u16 {
    let cpus = std::thread::available_parallelism();
    cpus.map_or(1, |n| u16::try_from(n.get()).unwrap_or(u16::MAX))
}

/// What the generator makes of a file.
#[derive(Clone, Debug)]
pub(super) enum Made {
    /// Units.
    Units,
    /// Nothing: it names no address.
    Nothing,
    /// Nothing, and this is why.
    Refused(Error),
}

/// Returns what the generator makes of each of these files: in a directory that it reads, beside all that stands there;
/// elsewhere, beside those of the same directory that are named here, as if root had put them where it looks.
pub(super) fn made(files: &[PathBuf]) -> Vec<Made> {
    let mut plans: BTreeMap<PathBuf, Plan> = BTreeMap::new();
    let mut one = |file: &PathBuf| {
        let folder = folder_of(file);
        let plan = plans.entry(folder.clone()).or_insert_with(|| plan_of(&folder, files));
        let name = find::name(file);
        match plan.refused.iter().find(|refused| refused.name == name) {
            Some(refused) => Made::Refused(Error {
                message: refused.message.clone(),
                hint: refused.hint.clone(),
            }),
            None if plan.without.contains(&name) => Made::Nothing,
            None => Made::Units,
        }
    };
    files.iter().map(&mut one).collect()
}

/// The directory that a file is in, by the one name that it has.
fn folder_of(file: &Path) -> PathBuf {
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let folder = path.parent().unwrap_or(Path::new("/"));
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

fn plan_of(place: &Path, files: &[PathBuf]) -> Plan {
    let scopes = [Scope::System, Scope::User].into_iter();
    let mut known = scopes.filter_map(|scope| Some((folder(scope)?, scope)));
    let known = known.find(|(folder, _)| folder.canonicalize().is_ok_and(|folder| folder == place));
    let read = known.and_then(|(folder, scope)| Some((find::files(&folder, scope).ok()?, scope)));
    let (found, scope) = read.unwrap_or_else(|| {
        let mut files: Vec<&PathBuf> =
            files.iter().filter(|file| folder_of(file) == place).collect();
        files.sort_unstable_by_key(|file| file.file_name());
        files.dedup_by_key(|file| file.file_name());
        (files.into_iter().map(|file| find::anywhere(file)).collect(), Scope::System)
    });
    Plan::new(&found, "/usr/bin/dogwatch", scope, cpus())
}

/// Prints what would be written, and what is refused; 2 if anything is.
fn shown(plan: &Plan, only_refused: bool) -> Result<ExitCode, Trouble> {
    if !only_refused {
        let mut text = String::new();
        for (name, units) in &plan.units {
            let _ = writeln!(text, "### {name}.socket\n{}", units.socket);
            let _ = writeln!(text, "### {name}.service\n{}", units.service);
            for want in &units.wants {
                let _ = writeln!(text, "### {want}\n");
            }
        }
        print(&text)?;
        for name in &plan.waiting {
            complain(&waiting(name));
        }
        for name in &plan.without {
            complain(&format!(
                "'{name}' names no address to 'listen' on: it gets no units, for one who writes them by hand"
            ));
        }
    }
    for refused in &plan.refused {
        complain(&refused.to_string());
        if let Some(hint) = &refused.hint {
            complain(&format!("hint: {hint}"));
        }
    }
    Ok(if plan.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn waiting(name: &str) -> String {
    format!(
        "'{name}' listens elsewhere than its file says, until it is stopped: systemctl stop {name}.socket {name}.service; systemctl daemon-reload; systemctl start {name}"
    )
}

fn say_waiting(name: &str) {
    let text = waiting(name);
    complain(&text);
    send("5", None, name, &text);
}

/// Says why a file gets no units: to the journal with the fields by which `journalctl -u APP` finds it
/// (`systemd.journal-fields(7)`), and on standard error. Returns whether the journal has it.
fn tell(refused: &Refused) -> bool {
    let hint = refused.hint.as_ref().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
    let text = format!("{refused}{hint}");
    complain(&text);
    send("3", Some(REFUSED), &refused.name, &text)
}

/// Sends an entry to the journal, and returns whether it has it. A generator must not wait for a journal that is slow.
fn send(priority: &str, id: Option<&str>, app: &str, text: &str) -> bool {
    let (unit, text) = (format!("{app}.service"), printable(text));
    let mut fields = vec![
        ("PRIORITY", priority),
        ("SYSLOG_IDENTIFIER", "dogwatch-generator"),
        ("DOGWATCH_APP", app),
        ("OBJECT_SYSTEMD_UNIT", &unit),
        ("MESSAGE", &text),
    ];
    fields.extend(id.map(|id| ("MESSAGE_ID", id)));
    let entry = native_entry(&fields);
    let sent = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.send_to(&entry, NATIVE_SOCKET)
    });
    Path::new(NATIVE_SOCKET).exists() && sent.is_ok()
}

#[expect(clippy::print_stderr, reason = "what is no unit goes beside them")]
fn complain(text: &str) {
    eprintln!("dogwatch: {}", printable(text));
}
