//! Looks at everything once, and changes nothing.

use super::ask;
use super::facts::{Content, Facts, File, Planned, Primary, Script, Trial, Way, Who};
use super::unit::Unit;
use super::{place, script};
use crate::cli::client::Client;
use crate::cli::trouble::{Code, Trouble};
use crate::cli::{apps, generate};
use crate::config::units::Scope;
use crate::config::{Settings, envfile, file};
use crate::primary::read_config;
use crate::protocol::control::{Call, MaybeSlot, Primary as Told, Reload, Reloading, Shown};
use crate::protocol::procfs;
use nix::unistd::{Group, User};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where generators are (`systemd.generator(7)`).
const GENERATORS: [&str; 4] = [
    "/run/systemd/system-generators",
    "/etc/systemd/system-generators",
    "/usr/local/lib/systemd/system-generators",
    "/usr/lib/systemd/system-generators",
];
const USER_GENERATORS: [&str; 4] = [
    "/run/systemd/user-generators",
    "/etc/systemd/user-generators",
    "/usr/local/lib/systemd/user-generators",
    "/usr/lib/systemd/user-generators",
];

/// A dynamic user's number (`systemd.exec(5)`): whoever has no other rights, for a trial.
const ANYBODY: u32 = 65519;

/// Named whole: it is root that runs it, with the PATH of the app.
const SETPRIV: &str = "/usr/bin/setpriv";

/// Looks at an app; `None` when there is neither an app nor a file of that name.
pub(super) fn gather(
    app: &str,
    scope: Scope,
    control: Option<&Path>,
) -> Result<Option<Facts>, Trouble> {
    let program = std::env::current_exe()
        .map_err(|e| Trouble::new(Code::Failed, format!("cannot find my own program: {e}")))?;
    let folder = generate::folder(scope);
    let primary = ask_primary(app, control);
    let shown = match &primary {
        Primary::Runs { shown, .. } => Some(shown.app.primary.clone()),
        Primary::Silent(_) | Primary::Absent => None,
    };
    let (systemd, service, socket) =
        units(app, scope, shown.as_ref().and_then(|p| p.unit.as_deref()));
    let file = file_of(app, folder.as_deref(), shown.as_ref(), service.as_ref());
    let is_there = |file: &File| !matches!(file.content, Content::Missing);
    if matches!(primary, Primary::Absent)
        && service.is_none()
        && !file.as_ref().is_some_and(is_there)
    {
        return Ok(None);
    }
    let mut facts = Facts {
        app: app.to_owned(),
        scope,
        systemd,
        is_root: nix::unistd::geteuid().is_root(),
        file,
        plan: planned(folder, app, &program, scope),
        is_made: false,
        has_generator: has_generator(scope),
        service,
        socket,
        who: Who::default(),
        directory: None,
        program: None,
        script: None,
        trial: Trial::None,
        primary,
        listening: vec![],
        first_free_port: first_free_port(),
        exposure: None,
        lingers: None,
        last_lines: vec![],
    };
    facts.is_made = is_made(&facts);
    facts.who = who(&facts);
    of_settings(&mut facts, &program);
    of_unit(&mut facts);
    Ok(Some(facts))
}

fn ask_primary(app: &str, control: Option<&Path>) -> Primary {
    let asked = |mut client: Client| -> Result<Primary, Trouble> {
        let shown: Shown = client.ask(&Call::Show(MaybeSlot { slot: None }), "show")?;
        let call = Call::Reload(Reload { no_wait: None, dry_run: Some(true) });
        let reload = match client.ask::<Reloading>(&call, "reload") {
            Ok(answer) => Some(Ok(answer.changes.unwrap_or_default())),
            Err(trouble) if trouble.code == Code::Usage => Some(Err(trouble.message)),
            Err(_) => None,
        };
        Ok(Primary::Runs { shown: Box::new(shown), reload })
    };
    match apps::find(app, control).and_then(asked) {
        Ok(primary) => primary,
        Err(trouble) if trouble.code == Code::NotRunning => Primary::Absent,
        Err(trouble) => Primary::Silent(trouble.message),
    }
}

/// The service and the socket that belong to an app: those of its name, or those of the template.
fn units(
    app: &str,
    scope: Scope,
    running: Option<&str>,
) -> (Result<(), String>, Option<Unit>, Option<Unit>) {
    let there = match scope {
        Scope::System => Path::new("/run/systemd/system").exists(),
        Scope::User => std::env::var_os("XDG_RUNTIME_DIR")
            .is_some_and(|folder| Path::new(&folder).join("systemd/private").exists()),
    };
    if !there {
        let who = if scope == Scope::User { "the user's systemd" } else { "systemd" };
        return (Err(format!("{who} does not run here")), None, None);
    }
    let mut stems = match running {
        Some(unit) => vec![unit.strip_suffix(".service").unwrap_or(unit).to_owned()],
        None => vec![app.to_owned()],
    };
    if running.is_none() && !app.contains('@') && scope == Scope::System {
        stems.push(format!("dogwatch@{app}"));
    }
    let names: Vec<String> = stems
        .iter()
        .flat_map(|stem| ["service", "socket"].map(|kind| format!("{stem}.{kind}")))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut all = match ask::units(scope, &names) {
        Ok(all) => all.into_iter(),
        Err(reason) => return (Err(reason), None, None),
    };
    while let (Some(service), socket) = (all.next(), all.next()) {
        // Of a template there are units of any name: only those count that somebody has made something of.
        let is_used = |unit: &Unit| {
            unit.get("ActiveState") != "inactive"
                || matches!(unit.get("UnitFileState"), "enabled" | "masked" | "masked-runtime")
        };
        let is_template = service.get("Id").starts_with("dogwatch@");
        let is_ours = running.is_some()
            || service.get("ExecStart").contains("dogwatch")
            || service.get("LoadState") == "masked";
        let is_wanted = !is_template || is_used(&service) || socket.as_ref().is_some_and(is_used);
        if (service.is_loaded() || service.get("LoadState") == "masked") && is_ours && is_wanted {
            return (Ok(()), Some(service), socket);
        }
    }
    (Ok(()), None, None)
}

/// The file that the app was, or would be, started with; `None` if it was started without.
fn file_of(
    app: &str,
    folder: Option<&Path>,
    running: Option<&Told>,
    service: Option<&Unit>,
) -> Option<File> {
    let named = service.and_then(Unit::config);
    let path = match running {
        // It may have been named relative to where the primary is.
        Some(told) => {
            let there = PathBuf::from(format!("/proc/{}/cwd", told.pid)).read_link();
            there.unwrap_or_default().join(told.config.as_deref()?)
        }
        None => named.or_else(|| Some(folder?.join(format!("{app}.toml"))))?,
    };
    let content = match read_config(&path) {
        Ok(text) => read(&path, &text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Content::Missing,
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Content::Unreadable(e.to_string()),
        Err(e) => Content::Wrong(format!("cannot read '{}': {e}", path.display()), None),
    };
    let way = place::way(&path);
    Some(File { path, content, way })
}

fn read(path: &Path, text: &str) -> Content {
    let name = path.display().to_string();
    let cpus = std::thread::available_parallelism()
        .map_or(1, |n| u16::try_from(n.get()).unwrap_or(u16::MAX));
    let read = file::parse(&name, text).and_then(|typed| {
        let settings = Settings::new(typed.clone(), cpus);
        Ok((typed, settings.map_err(|fault| fault.placed(&name, text))?))
    });
    match read {
        Ok((typed, settings)) => Content::Good(Box::new(typed), Box::new(settings)),
        Err(error) => Content::Wrong(error.message, error.hint),
    }
}

fn planned(folder: Option<PathBuf>, app: &str, program: &Path, scope: Scope) -> Planned {
    let Ok(plan) = generate::planned(folder, Some(app), program, scope) else {
        return Planned::default();
    };
    Planned {
        units: plan.units.into_iter().next().map(|(_, units)| units),
        refused: plan.refused.into_iter().next(),
        without: !plan.without.is_empty(),
    }
}

fn is_made(facts: &Facts) -> bool {
    let Some(units) = &facts.plan.units else { return false };
    let is = |unit: Option<&Unit>, text: &str| {
        let path = unit.map(|unit| unit.get("FragmentPath"));
        path.is_some_and(|path| std::fs::read_to_string(path).is_ok_and(|known| known == text))
    };
    is(facts.service.as_ref(), &units.service) && is(facts.socket.as_ref(), &units.socket)
}

fn has_generator(scope: Scope) -> bool {
    let folders = match scope {
        Scope::System => GENERATORS,
        Scope::User => USER_GENERATORS,
    };
    folders.iter().any(|folder| Path::new(folder).join("dogwatch-generator").exists())
}

fn first_free_port() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

/// As whom the service runs, or would.
fn who(facts: &Facts) -> Who {
    if let Some(running) = facts.shown().and_then(|shown| running(shown.app.primary.pid)) {
        return running;
    }
    if facts.scope == Scope::User {
        return caller();
    }
    let unit =
        facts.unit().unwrap_or_else(|| Unit::of_file("DynamicUser=yes\nCapabilityBoundingSet="));
    let is_dynamic = matches!(unit.get("DynamicUser"), "yes" | "true");
    let named = match (unit.get("User"), is_dynamic) {
        ("", true) => facts.app.as_str(),
        ("", false) => "root",
        (name, _) => name,
    };
    let (mut who, is_known) = account(named, is_dynamic);
    let mut groups = unit.words("SupplementaryGroups");
    groups.extend(unit.words("Group").into_iter().filter(|_| !is_dynamic || is_known));
    for name in groups {
        let number = name.parse().ok();
        let known = || Group::from_name(&name).ok().flatten().map(|group| group.gid.as_raw());
        match number.or_else(known) {
            Some(group) => who.groups.push(group),
            None => who.missing = who.missing.or_else(|| Some(format!("group '{name}'"))),
        }
    }
    // Root without its rights is stopped by modes as anybody.
    let bounds = unit.all("CapabilityBoundingSet");
    let keeps = |line: &String| line.to_lowercase().contains("cap_dac_override");
    who.overrides = who.user == Some(0) && (bounds.is_empty() || bounds.iter().any(keeps));
    who
}

/// Who asks, and runs the services of a manager of one's own.
fn caller() -> Who {
    let groups = nix::unistd::getgroups().unwrap_or_default();
    let groups = groups.into_iter().chain([nix::unistd::getegid()]).map(|group| group.as_raw());
    Who {
        name: "you".to_owned(),
        user: Some(nix::unistd::geteuid().as_raw()),
        groups: groups.collect(),
        ..Who::default()
    }
}

/// The user of this name or number, with the groups of its account; and whether there is an account.
fn account(named: &str, is_dynamic: bool) -> (Who, bool) {
    let account = match named.parse::<u32>() {
        Ok(number) => User::from_uid(number.into()),
        Err(_) => User::from_name(named),
    };
    let account = account.ok().flatten();
    let mut who = Who { name: format!("user '{named}'"), ..Who::default() };
    match &account {
        Some(account) => {
            who.user = Some(account.uid.as_raw());
            who.groups.push(account.gid.as_raw());
            let name = std::ffi::CString::new(account.name.as_str()).unwrap_or_default();
            let all = nix::unistd::getgrouplist(&name, account.gid).unwrap_or_default();
            who.groups.extend(all.into_iter().map(|group| group.as_raw()));
        }
        None if is_dynamic => "its own user".clone_into(&mut who.name),
        None => match named.parse() {
            Ok(number) => who.user = Some(number),
            Err(_) => who.missing = Some(format!("user '{named}'")),
        },
    }
    (who, account.is_some())
}

/// As whom a process runs (`proc_pid_status(5)`).
fn running(pid: u32) -> Option<Who> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    let user: u32 = field("Uid:")?.get(1)?.parse().ok()?;
    let mut groups: Vec<u32> =
        field("Groups:")?.iter().filter_map(|group| group.parse().ok()).collect();
    groups.push(field("Gid:")?.get(1)?.parse().ok()?);
    let rights = u64::from_str_radix(field("CapEff:")?.first()?, 16).ok()?;
    let account = User::from_uid(user.into()).ok().flatten().map(|account| account.name);
    let name = account.map_or_else(|| format!("user {user}"), |name| format!("user '{name}'"));
    // CAP_DAC_OVERRIDE is the second (capabilities(7)).
    Some(Who { name, user: Some(user), groups, overrides: rights & 2 != 0, missing: None })
}

/// What the settings name.
fn of_settings(facts: &mut Facts, own: &Path) {
    let Some(settings) = facts.settings().cloned() else { return };
    facts.directory = settings.working_directory.as_deref().map(place::way);
    let path = search_path(facts, &settings);
    let end = facts.directory.as_ref().and_then(Way::end).map(|step| step.path.clone());
    facts.program = Some(place::program(&settings, end.as_deref(), path.clone()));
    facts.script = script::named(&settings.command).and_then(|name| {
        let path = base(facts, &settings, end).map_or_else(|| name.into(), |base| base.join(name));
        path.is_absolute().then(|| Script { way: place::way(&path), path })
    });
    facts.listening = place::listening(&settings.listen);
    let reload = match &facts.primary {
        Primary::Runs { reload, .. } => reload.as_ref(),
        Primary::Silent(_) | Primary::Absent => None,
    };
    facts.trial = match reload {
        Some(Ok(_)) => Trial::Good(facts.who.name.clone()),
        Some(Err(reason)) => Trial::Bad(reason.clone(), None),
        None => trial(facts, own, &path),
    };
}

/// Where workers run, if that is sure: as the settings say, or where the primary is, or is started.
fn base(facts: &Facts, settings: &Settings, directory: Option<PathBuf>) -> Option<PathBuf> {
    if settings.working_directory.is_some() {
        return directory;
    }
    if let Some(shown) = facts.shown() {
        return PathBuf::from(format!("/proc/{}/cwd", shown.app.primary.pid)).read_link().ok();
    }
    let unit = facts.unit().filter(|_| facts.scope == Scope::System)?;
    match unit.get("WorkingDirectory") {
        "" => Some("/".into()),
        folder => Some(folder.trim_start_matches(['!', '-']).into()),
    }
}

/// Where the program is looked for: as the settings say, or as the primary has it, or as systemd would give it.
fn search_path(facts: &Facts, settings: &Settings) -> String {
    let own =
        settings.env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
    let of_files = || {
        let files = settings.environment_files.iter().rev();
        let mut all = files.filter_map(|path| envfile::parse("", &read_config(path).ok()?).ok());
        all.find_map(|variables| {
            variables.into_iter().rev().find(|(name, _)| name == "PATH").map(|(_, path)| path)
        })
    };
    let of_primary = || {
        let pid = facts.shown()?.app.primary.pid;
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        procfs::variable(&environment, "PATH").map(str::to_owned)
    };
    let of_unit = || {
        let variables = facts.unit()?.words("Environment");
        variables
            .iter()
            .rev()
            .find_map(|variable| variable.strip_prefix("PATH=").map(str::to_owned))
    };
    let of_manager = || facts.systemd.is_ok().then(|| ask::manager_path(facts.scope)).flatten();
    let path = own.or_else(of_files).or_else(of_primary).or_else(of_unit).or_else(of_manager);
    path.or_else(|| std::env::var("PATH").ok()).unwrap_or_else(|| "/usr/bin:/bin".to_owned())
}

/// Lets this program look at the file as the service's user would, with its PATH.
#[expect(clippy::disallowed_methods, reason = "a client is no primary; it may have children")]
fn trial(facts: &Facts, own: &Path, path: &str) -> Trial {
    let Some(file) = &facts.file else { return Trial::None };
    let who = &facts.who;
    if who.missing.is_some() {
        return Trial::None;
    }
    let is_other = facts.is_root && !who.overrides;
    let mut command = if is_other {
        let user = who.user.unwrap_or(ANYBODY);
        let group = who.groups.first().copied().unwrap_or(user);
        let groups: Vec<String> = who.groups.iter().map(ToString::to_string).collect();
        let mut command = Command::new(SETPRIV);
        command.args([format!("--reuid={user}"), format!("--regid={group}")]);
        match groups.as_slice() {
            [] => command.arg("--clear-groups"),
            some => command.arg(format!("--groups={}", some.join(","))),
        };
        command.args(["--inh-caps=-all", "--"]).arg(own);
        command
    } else {
        Command::new(own)
    };
    command.args(["check", "--run"]).arg(&file.path).current_dir("/").env_clear().env("PATH", path);
    let name = if is_other || facts.is_root { who.name.clone() } else { "you".to_owned() };
    let program = if is_other { SETPRIV } else { "'dogwatch check'" };
    match ask::run(program, &mut command) {
        Ok(said) if said.is_done => Trial::Good(name),
        Ok(said) => {
            let mut lines = said.complaint.lines();
            let reason = lines.next().and_then(|line| line.strip_prefix("dogwatch: "));
            let hint = lines.find_map(|line| line.strip_prefix("hint: ")).map(str::to_owned);
            let unknown = || {
                let first = said.complaint.lines().next().unwrap_or("it says nothing");
                Trial::Unknown(format!("a start cannot be tried as {name}: {first}"))
            };
            reason.map_or_else(unknown, |reason| Trial::Bad(reason.to_owned(), hint))
        }
        Err(reason) => Trial::Unknown(format!("a start cannot be tried as {name}: {reason}")),
    }
}

/// What systemd's other programs know of the service.
fn of_unit(facts: &mut Facts) {
    if facts.scope == Scope::User {
        facts.lingers = ask::lingers(nix::unistd::getuid().as_raw());
    }
    let Some(service) = facts.loaded_service() else { return };
    let exposure = ask::exposure(facts.scope, service.get("Id"));
    let invocation = service.get("InvocationID");
    let lines =
        if invocation.is_empty() { vec![] } else { ask::last_lines(facts.scope, invocation) };
    facts.exposure = Some(exposure);
    facts.last_lines = lines;
}
