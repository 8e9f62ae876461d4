//! Whether what listens is what the file says.

use super::super::facts::{Facts, Primary};
use super::super::finding::Finding;
use super::super::place::as_wanted;
use super::super::unit::Unit;
use crate::config::values::Address;

const ABOUT: &str = "sockets";

/// The addresses, from the file to the kernel.
pub(super) fn sockets(facts: &Facts) -> Option<Finding> {
    let Some(settings) = facts.settings() else { return as_they_are(facts) };
    let wanted = &settings.listen;
    if wanted.is_empty() {
        return Some(as_they_are(facts).unwrap_or_else(|| nowhere(facts)));
    }
    let all = quoted(wanted.iter());
    if let Some(socket) = facts.loaded_socket() {
        return Some(
            declared(facts, socket, wanted)
                .or_else(|| held(facts, wanted))
                .or_else(|| kept(facts, socket, wanted))
                .or_else(|| lanes(facts, socket, wanted))
                .unwrap_or_else(|| {
                    Finding::ok(ABOUT, format!("{all}, of {}", facts.socket_name()))
                }),
        );
    }
    let trouble =
        held(facts, wanted).or_else(|| taken(facts, wanted)).or_else(|| low(facts, wanted));
    Some(trouble.unwrap_or_else(|| Finding::ok(ABOUT, all)))
}

fn quoted<'a>(all: impl Iterator<Item = &'a Address>) -> String {
    all.map(|address| format!("'{address}'")).collect::<Vec<_>>().join(", ")
}

/// Where it listens, where no file says so.
fn as_they_are(facts: &Facts) -> Option<Finding> {
    if let Some(shown) = facts.shown() {
        let all: Vec<&str> =
            shown.app.primary.listeners.iter().map(|l| l.address.as_str()).collect();
        return Some(Finding::ok(ABOUT, format!("it listens on {}", all.join(", "))));
    }
    let socket = facts.loaded_socket()?;
    Some(Finding::ok(
        ABOUT,
        format!("{} has {}", facts.socket_name(), socket.all("Listen").join(", ")),
    ))
}

fn nowhere(facts: &Facts) -> Finding {
    Finding::problem(ABOUT, "nobody says where it is to listen")
        .remedy(format!("write 'listen = [\"8080\"]' into '{}'", facts.path()))
}

/// What `Listen` says: `[::]:80 (Stream)`, `/run/a.sock (Stream)`, `0.0.0.0:53 (Datagram)`.
fn read(line: &str) -> Option<Address> {
    let (address, kind) = line.rsplit_once(" (")?;
    match (address.parse(), kind) {
        (Ok(address), "Datagram)") => Some(Address::Udp(address)),
        (Ok(address), _) => Some(Address::Tcp(address)),
        (Err(_), _) => Some(Address::Unix(address.into())),
    }
}

/// What a primary says that it has.
fn had(address: &str, like: &Address) -> bool {
    match (address.parse(), like) {
        (Ok(address), Address::Udp(_)) => Address::Udp(address).meets(like),
        (Ok(address), Address::Port(_) | Address::Tcp(_)) => Address::Tcp(address).meets(like),
        (_, Address::Unix(path)) => address == path.to_string_lossy(),
        (Err(_), Address::Port(_) | Address::Tcp(_) | Address::Udp(_)) => false,
    }
}

/// How a port is changed. A socket that was made from the file keeps its addresses until it is stopped; with one that was
/// made by hand the service is stopped and started.
pub(super) fn anew(facts: &Facts) -> String {
    let (systemctl, socket, service) =
        (facts.systemctl(), facts.socket_name(), facts.service_name());
    let commands = if facts.loaded_socket().is_some_and(super::units::is_generated) {
        format!(
            "{systemctl} stop {socket} {service}; {systemctl} daemon-reload; {systemctl} start {service}"
        )
    } else {
        format!("{systemctl} restart {socket}")
    };
    format!("'{commands}': connections are refused until it is done")
}

/// Whether the socket unit has the addresses of the file.
fn declared(facts: &Facts, socket: &Unit, wanted: &[Address]) -> Option<Finding> {
    let has: Vec<Address> = socket.all("Listen").iter().filter_map(|line| read(line)).collect();
    let is_had =
        |address: &&Address| has.iter().any(|other| *other == **address || other.meets(address));
    let missing: Vec<&Address> = wanted.iter().filter(|address| !is_had(address)).collect();
    if missing.is_empty() {
        return None;
    }
    let text = format!(
        "{} does not listen on {}, as the file says",
        facts.socket_name(),
        quoted(missing.into_iter())
    );
    let remedy = if super::units::is_generated(socket) {
        anew(facts)
    } else {
        format!(
            "'{} edit {}' and add 'ListenStream='; a unit that is made by hand does not follow the file",
            facts.systemctl(),
            facts.socket_name()
        )
    };
    Some(Finding::problem(ABOUT, text).remedy(remedy))
}

/// Whether the primary that runs has them.
fn held(facts: &Facts, wanted: &[Address]) -> Option<Finding> {
    let listeners = &facts.shown()?.app.primary.listeners;
    let is_had =
        |address: &&Address| listeners.iter().any(|listener| had(&listener.address, address));
    let missing: Vec<&Address> = wanted.iter().filter(|address| !is_had(address)).collect();
    if missing.is_empty() {
        return None;
    }
    let has: Vec<&str> = listeners.iter().map(|listener| listener.address.as_str()).collect();
    let text = format!(
        "it listens on {}, and the file says {}",
        has.join(", "),
        quoted(missing.into_iter())
    );
    let remedy = match facts.loaded_socket() {
        Some(_) => anew(facts),
        None => "stop it and start it again: a reload keeps the sockets that it has".to_owned(),
    };
    Some(Finding::problem(ABOUT, text).remedy(remedy))
}

/// Whether systemd really listens: a socket unit whose port was changed is active, and nobody listens.
fn kept(facts: &Facts, socket: &Unit, wanted: &[Address]) -> Option<Finding> {
    let (systemctl, name) = (facts.systemctl(), facts.socket_name());
    if !socket.is_active() {
        let taken = taken(facts, wanted);
        let why = match socket.get("ActiveState") {
            "failed" => format!("{name} has failed: {}", socket.get("Result")),
            _ => return taken,
        };
        return Some(taken.unwrap_or_else(|| {
            Finding::problem(ABOUT, why).remedy(format!(
                "'{systemctl} restart {name}'; 'journalctl -u {name}' says why it failed"
            ))
        }));
    }
    let is_heard = |address: &&Address| match address {
        Address::Unix(_) => true,
        Address::Port(0) => true,
        Address::Tcp(address) | Address::Udp(address) if address.port() == 0 => true,
        Address::Port(_) | Address::Tcp(_) | Address::Udp(_) => {
            facts.listening.iter().any(|l| as_wanted(l.address, l.is_datagram).meets(address))
        }
    };
    let unheard: Vec<&Address> = wanted.iter().filter(|address| !is_heard(address)).collect();
    if unheard.is_empty() {
        return None;
    }
    let text = format!(
        "nobody listens on {}, though {name} is active: its addresses have changed, and it has not been restarted since",
        quoted(unheard.into_iter())
    );
    Some(Finding::problem(ABOUT, text).remedy(anew(facts)))
}

/// Whether each worker can have sockets of its own.
fn lanes(facts: &Facts, socket: &Unit, wanted: &[Address]) -> Option<Finding> {
    let settings = facts.settings()?;
    if !settings.balance.is_steered() {
        return None;
    }
    let lanes = usize::from(settings.policy.lanes_wanted(settings.policy.slots));
    let has: Vec<Address> = socket.all("Listen").iter().filter_map(|line| read(line)).collect();
    let of = |address: &&Address| has.iter().filter(|other| other.meets(address)).count();
    let tcp = wanted.iter().filter(|address| !matches!(address, Address::Unix(_)));
    let short = tcp.map(|address| (address, of(&address))).find(|(_, count)| *count < lanes)?;
    let (address, count) = short;
    let text = format!(
        "'steered' wants {lanes} sockets for {} workers, and {} has {count} for '{address}'",
        settings.policy.slots,
        facts.socket_name()
    );
    let remedy = if super::units::is_generated(socket) {
        anew(facts)
    } else {
        format!(
            "write {lanes} equal 'ListenStream=' lines and 'ReusePort=yes' into {}",
            facts.socket_name()
        )
    };
    Some(Finding::warning(ABOUT, text).remedy(remedy))
}

/// Whether somebody else has an address that nobody of the app holds.
fn taken(facts: &Facts, wanted: &[Address]) -> Option<Finding> {
    if !matches!(facts.primary, Primary::Absent) {
        return None;
    }
    let meets = |address: &&Address| {
        facts.listening.iter().find(|l| as_wanted(l.address, l.is_datagram).meets(address))
    };
    let (address, other) = wanted.iter().find_map(|address| Some((address, meets(&address)?)))?;
    let who = match &other.holder {
        Some(holder) if holder.ends_with("(pid 1)") => {
            "a socket unit, 'systemctl list-sockets' shows which,".to_owned()
        }
        Some(holder) => format!("program {holder}"),
        None => "another program, which root can see,".to_owned(),
    };
    let text = format!("'{address}' is taken: {who} listens on {}", other.address);
    let again = facts.loaded_socket().map_or_else(String::new, |_| {
        format!(", then '{} restart {}'", facts.systemctl(), facts.socket_name())
    });
    Some(
        Finding::problem(ABOUT, text)
            .remedy(format!("stop that one, or name another address in '{}'{again}", facts.path())),
    )
}

/// Whether a primary that opens its own sockets may open these.
fn low(facts: &Facts, wanted: &[Address]) -> Option<Finding> {
    let port = |address: &Address| match address {
        Address::Port(port) => Some(*port),
        Address::Tcp(address) | Address::Udp(address) => Some(address.port()),
        Address::Unix(_) => None,
    };
    let is_low = |address: &&Address| {
        port(address).is_some_and(|port| port != 0 && port < facts.first_free_port)
    };
    let low = wanted.iter().find(is_low)?;
    let unit = facts.loaded_service()?;
    let rights = unit.get("AmbientCapabilities").contains("cap_net_bind_service");
    if facts.who.user == Some(0) || rights || facts.shown().is_some() {
        return None;
    }
    let text = format!(
        "{} may not listen on '{low}', below {}, and no socket unit does it instead",
        facts.who.name, facts.first_free_port
    );
    Some(Finding::problem(ABOUT, text).remedy(format!(
        "give {} a socket unit: systemd may listen on any port",
        facts.service_name()
    )))
}
