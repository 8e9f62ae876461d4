//! From an app's file to its units, as text: `myapp.socket` and `myapp.service`.
//!
//! What they say is what the shipped `systemd/myapp.socket` and `systemd/myapp.service` say, where the reasons stand too;
//! here is what a file changes in them.

mod document;
mod plan;
mod sandbox;
#[cfg(test)]
mod tests;

use super::typed::Typed;
use super::values::{Address, Enabled, Passed};
use super::{Fault, Settings};
use document::{Document, argument, plain};
pub use plan::{Found, Kept, Plan, Refused};

const SOCKET: &str = include_str!("../../../systemd/myapp.socket");
const SERVICE: &str = include_str!("../../../systemd/myapp.service");

/// Whose service manager has the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The machine's.
    System,
    /// A user's own, `systemctl --user`.
    User,
}

/// What units are made for.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The app's name, and that of its units.
    pub name: &'a str,
    /// Its file, absolute.
    pub file: &'a str,
    /// The program that they start, absolute.
    pub program: &'a str,
    /// Whose service manager has them.
    pub scope: Scope,
}

/// The units of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Units {
    /// `APP.socket`
    pub socket: String,
    /// `APP.service`
    pub service: String,
    /// Which unit each target wants when the machine starts, as `TARGET.wants/UNIT`.
    pub wants: Vec<String>,
}

impl Units {
    /// Returns the units of an app; `None` when its file names no address: then its socket is made by hand.
    ///
    /// # Errors
    /// When what the file says of the units does not go together.
    pub fn new(
        origin: Origin<'_>,
        typed: &Typed,
        settings: &Settings,
    ) -> Result<Option<Self>, Fault> {
        if settings.listen.is_empty() {
            return Ok(None);
        }
        refuse(origin, typed, settings)?;
        let (mut socket, mut service) = (shipped(SOCKET, origin), shipped(SERVICE, origin));
        if let Some(line) = &typed.description {
            service.set("Unit", "Description", plain(&line.0));
            socket.set("Unit", "Description", format!("Listening socket of {}", plain(&line.0)));
        }
        listen(&mut socket, settings);
        note(&mut socket, origin.name);
        serve(&mut service, origin, settings);
        who(&mut socket, &mut service, typed);
        sandbox::relax(&mut socket, &mut service, &typed.sandbox, origin.name);
        if settings.balance.is_steered() {
            steer(&mut service);
        }
        if origin.scope == Scope::User {
            of_a_user(&mut socket, &mut service);
        }
        // Not the socket's: what is to be up before the service would make a circle with basic.target.
        pass(&mut service, "Unit", &typed.unit);
        pass(&mut socket, "Socket", &typed.socket);
        pass(&mut service, "Service", &typed.service);
        let head = format!(
            "# Made from {}, at boot and at 'systemctl daemon-reload'. Edit that, or add to this with 'systemctl edit'.\n",
            origin.file
        );
        Ok(Some(Self {
            socket: format!("{head}{socket}"),
            service: format!("{head}{service}"),
            wants: wants(origin, typed.enabled.unwrap_or(Enabled::No)),
        }))
    }
}

/// What the two kinds of managers do not both know, what a user that systemd makes cannot be allowed, and what leads
/// nowhere from where a service starts.
fn refuse(origin: Origin<'_>, typed: &Typed, settings: &Settings) -> Result<(), Fault> {
    if let (Scope::System, None, Some(key)) =
        (origin.scope, &typed.user, sandbox::needs_user(typed))
    {
        let reason = "a user that systemd makes for the service never has it, DynamicUser= in systemd.exec(5)";
        return Err(Fault::of(key, reason).hint("name a user with 'user'"));
    }
    let own = "a user's own service runs as that user, leave it out";
    match origin.scope {
        Scope::System if typed.group.is_some() && typed.user.is_none() => {
            return Err(Fault::of("group", "nobody says of which user, name it with 'user'"));
        }
        Scope::User if typed.user.is_some() => return Err(Fault::of("user", own)),
        Scope::User if typed.group.is_some() => return Err(Fault::of("group", own)),
        Scope::System | Scope::User => {}
    }
    let relative = settings.environment_files.iter().find(|path| !path.is_absolute());
    relative.map_or(Ok(()), |path| {
        let path = path.display();
        let reason = format!(
            "'{path}' is no absolute path, and a service does not start in the folder of its file"
        );
        Err(Fault::of("environment-files", reason))
    })
}

/// A shipped unit, with the app's name in place of the example's.
fn shipped(text: &str, origin: Origin<'_>) -> Document {
    let mut unit = Document::read(text);
    unit.each(|value| value.replace("myapp", origin.name));
    unit.set("Unit", "SourcePath", plain(origin.file));
    // The template's instance of this name has the same runtime directory.
    let template = format!("dogwatch@{0}.service dogwatch@{0}.socket", origin.name);
    unit.set("Unit", "Conflicts", template);
    unit.remove_section("Install");
    unit
}

/// Which unit each target wants.
fn wants(origin: Origin<'_>, enabled: Enabled) -> Vec<String> {
    let target = match origin.scope {
        Scope::System => "multi-user.target",
        Scope::User => "default.target",
    };
    let socket = format!("sockets.target.wants/{}.socket", origin.name);
    match enabled {
        Enabled::No => vec![],
        Enabled::Socket => vec![socket],
        Enabled::Yes => vec![socket, format!("{target}.wants/{}.service", origin.name)],
    }
}

/// The addresses, each as often as the balance wants it.
fn listen(socket: &mut Document, settings: &Settings) {
    socket.remove("Socket", "ListenStream");
    let steered = settings.balance.is_steered();
    let lanes = if steered { settings.policy.lanes_wanted(settings.policy.slots) } else { 1 };
    let mut name = match settings.listen.as_slice() {
        [only] => only.name(),
        _ => "web".to_owned(),
    };
    name.truncate(255);
    socket.set("Socket", "FileDescriptorName", plain(&name));
    for address in &settings.listen {
        let (key, value) = match address {
            Address::Udp(address) => ("ListenDatagram", address.to_string()),
            Address::Port(_) | Address::Tcp(_) => ("ListenStream", address.to_string()),
            Address::Unix(path) => ("ListenStream", path.display().to_string()),
        };
        let times = if matches!(address, Address::Unix(_)) { 1 } else { lanes };
        for _ in 0..times {
            socket.add("Socket", key, plain(&value));
        }
    }
    if steered {
        socket.set("Socket", "ReusePort", "yes");
    }
    // Sockets come before the network.
    let is_of_a_network = |address: &Address| match address {
        Address::Tcp(address) | Address::Udp(address) => {
            !address.ip().is_unspecified() && !address.ip().is_loopback()
        }
        Address::Port(_) | Address::Unix(_) => false,
    };
    if settings.listen.iter().any(is_of_a_network) {
        socket.set("Socket", "FreeBind", "yes");
    }
}

/// The units that are in force are noted while the socket listens, and kept until it is stopped: whatever becomes of the
/// file, what listens and what runs must not lose what is said of it.
fn note(socket: &mut Document, name: &str) {
    let (from, to) = ("%t/systemd/generator", "%t/dogwatch-units");
    // A daemon-reload empties the directory for a moment, and forgets that a command under way may fail.
    let copy =
        format!("install -D -m 644 -t {to} {from}/{name}.socket {from}/{name}.service 2>/dev/null");
    let copy =
        format!("-+/bin/sh -c 'for i in 1 2 3 4 5 6 7 8 9; do {copy} && break; sleep 0.3; done'");
    socket.add("Socket", "ExecStartPost", copy);
    let remove = format!("-+/usr/bin/rm -f {to}/{name}.socket {to}/{name}.service");
    socket.add("Socket", "ExecStopPost", remove);
}

/// How the primary is started and asked, and what it needs for so many workers.
fn serve(service: &mut Document, origin: Origin<'_>, settings: &Settings) {
    let (program, name) = (argument(origin.program), origin.name);
    let file = argument(origin.file);
    service.set("Service", "ExecStart", format!("{program} run --config {file}"));
    service.set("Service", "ExecReload", format!("{program} reload {name}"));
    service.set("Service", "ExecStopPost", format!("-{program} release-cgroup"));
    if settings.blocking {
        service.set("Service", "NonBlocking", "no");
    }
    // For each worker up to five, for each lane one, and a few for the app.
    let policy = &settings.policy;
    let workers = u64::from(policy.slots) + u64::from(policy.surge);
    let lanes = u64::from(policy.lanes_wanted(policy.slots)) * settings.listen.len() as u64;
    let room = (5 * workers + lanes + 32).max(512);
    service.set("Service", "FileDescriptorStoreMax", room.to_string());
}

/// As whom it runs; without a word, as somebody made for it.
fn who(socket: &mut Document, service: &mut Document, typed: &Typed) {
    let Some(user) = &typed.user else { return };
    for (section, unit) in [("Socket", socket), ("Service", service)] {
        unit.set(section, "DynamicUser", "no");
        unit.set(section, "User", user.0.clone());
        if let Some(group) = &typed.group {
            unit.set(section, "Group", group.0.clone());
        }
    }
}

/// The right to load a program, which the primary gives back at once.
fn steer(service: &mut Document) {
    for line in include_str!("../../../systemd/steered/myapp.service.d/steered.conf").lines() {
        if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            match key {
                "AmbientCapabilities" => service.add("Service", key, value),
                _ => service.extend("Service", key, value),
            }
        }
    }
}

/// A user's manager can neither change users nor build sandboxes of mounts; what it can forbid stays.
fn of_a_user(socket: &mut Document, service: &mut Document) {
    const NEEDS_ROOT: [&str; 15] = [
        "DynamicUser",
        "AmbientCapabilities",
        "CapabilityBoundingSet",
        "ProtectSystem",
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "PrivateMounts",
        "ProtectClock",
        "ProtectHostname",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "ProtectProc",
        "ReadWritePaths",
    ];
    for key in NEEDS_ROOT {
        socket.remove("Socket", key);
        service.remove("Service", key);
    }
    service.remove("Unit", "JoinsNamespaceOf");
    service.each(|value| value.replace("RUNTIME_DIRECTORY=/run/", "RUNTIME_DIRECTORY=%t/"));
}

fn pass(unit: &mut Document, section: &str, lines: &Passed) {
    for (key, values) in &lines.0 {
        for value in values {
            unit.add(section, key, value.clone());
        }
    }
}
