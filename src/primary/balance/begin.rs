//! Which listeners are steered, and what is said where one is not. The right to load a program is used here and given up.

use super::super::listeners::{Growth, Listener, Listeners};
use super::group::{self, Group, Lesser};
use super::{Balance, Memory, Shared, Steering, Wish};
use crate::config::Settings;
use crate::config::values::{Balance as Asked, Steer};
use crate::core::{Lanes, MAX_LANES, Policy};
use crate::protocol::store::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// What is to be said, with a hint where there is a remedy.
pub(in super::super) type Said = (String, Option<String>);

/// What came of the beginning.
#[derive(Debug)]
pub(in super::super) struct Beginning {
    pub(in super::super) balance: Balance,
    pub(in super::super) said: Vec<Said>,
}

/// Makes the kernel steer the connections of all listeners that can be, if the settings want that, or if there are lanes: a
/// program that serves one of them gets the connections of one. Listeners get as many lanes as are wanted; one that cannot be
/// steered has a single socket after. `is_first` says that there was no primary before.
pub(in super::super) fn begin(
    settings: &Settings,
    listeners: &mut Listeners,
    carried: &mut BTreeMap<Name, OwnedFd>,
    is_first: bool,
) -> Beginning {
    let mut said = vec![];
    let steer = match (settings.balance, listeners.all.iter().find(|l| l.has_lanes())) {
        (Asked::Steered(steer), _) => steer,
        (Asked::Shared | Asked::RoundRobin { .. }, Some(listener)) => {
            said.push(say_steered_all_the_same(listener, settings.balance));
            Steer::RoundRobin
        }
        (Asked::Shared | Asked::RoundRobin { .. }, None) => {
            return Beginning { balance: Balance { shared: None, why: None }, said };
        }
    };
    if listeners.all.is_empty() {
        let text = "cannot steer what programs ask for: no listener is named; workers share it";
        let hint = "name the address with '-l 8080' or 'listen = [\"8080\"]', or as ListenStream= in a socket unit";
        said.push((text.to_owned(), Some(hint.to_owned())));
    }
    let slots = settings.policy.slots;
    let mut groups = vec![];
    let keys = keys(listeners);
    for (at, listener) in listeners.all.iter_mut().enumerate() {
        said.extend(make_lanes(listener, slots, &settings.policy, settings.blocking));
        if !listener.has_lanes() {
            continue;
        }
        let key = keys[at];
        let maps = (carried.remove(&Name::Lanes(key)), carried.remove(&Name::Table(key)));
        let maps = if let (Some(lanes), Some(table)) = maps { Some((lanes, table)) } else { None };
        match group::begin((at, key), listener, maps, is_first) {
            Ok((group, lesser)) => {
                said.extend(lesser.map(|lesser| say_lesser(listener, steer, lesser)));
                groups.push(group);
            }
            Err(lesser) => {
                listener.give_up_lanes();
                said.push(say_unsteered(listener, &lesser.why, lesser.hint.map(str::to_owned)));
            }
        }
    }
    let why = said.first().map(|(text, _)| text.clone());
    said.extend(groups.iter().filter_map(|group| say_strangers(&listeners.all[group.at], group)));
    let shared = (!groups.is_empty()).then(|| {
        let wish = Wish { steer, slots, canary: None };
        let lanes = groups.iter().map(|group| group.sockets.len()).min().unwrap_or(0);
        let lanes = Lanes::new(u16::try_from(lanes).unwrap_or(u16::MAX));
        let memory = Memory { lanes, ..Memory::default() };
        Shared::new(Steering::new(memory, groups, wish))
    });
    Beginning { balance: Balance { shared, why }, said }
}

/// Returns the number of each listener in the FD store: its place by name and address. Their order may be another when they
/// are passed again.
fn keys(listeners: &Listeners) -> Vec<u16> {
    let names: Vec<_> = listeners.addresses().collect();
    let place = |one| names.iter().filter(|other| *other < one).count();
    names.iter().map(|one| u16::try_from(place(one)).unwrap_or(u16::MAX)).collect()
}

impl Shared {
    fn new(steering: Steering) -> Self {
        Self { steering: Arc::new(Mutex::new(steering)), nudge: Arc::new(Notify::new()) }
    }
}

impl Steering {
    fn new(memory: Memory, groups: Vec<Group>, wish: Wish) -> Self {
        Self {
            memory,
            groups,
            wish,
            written: None,
            pids: BTreeMap::new(),
            broken: BTreeSet::new(),
            is_held: true,
        }
    }
}

impl Balance {
    /// There are so many slots now: makes more lanes, where that can be done.
    pub(in super::super) fn grow(
        &self,
        listeners: &mut Listeners,
        settings: &Settings,
        slots: u16,
    ) -> Vec<Said> {
        let Some(shared) = &self.shared else { return vec![] };
        let mut steering = shared.lock();
        let wanted = settings.policy.lanes_wanted(slots);
        if wanted <= steering.memory.lanes.count() {
            return vec![];
        }
        let mut said = vec![];
        for group in &mut steering.groups {
            let listener = &mut listeners.all[group.at];
            said.extend(make_lanes(listener, slots, &settings.policy, settings.blocking));
            for socket in
                listener.sockets.iter().skip(group.sockets.len()).cloned().collect::<Vec<_>>()
            {
                if let Err(e) = group.add(socket) {
                    said.push((
                        format!("cannot add a lane to listener '{}': {e}", listener.name),
                        None,
                    ));
                    break;
                }
            }
        }
        let lanes = steering.groups.iter().map(|group| group.sockets.len()).min().unwrap_or(0);
        steering.memory.lanes.grow(u16::try_from(lanes).unwrap_or(u16::MAX));
        said
    }
}

/// Opens as many sockets as are wanted; says so if that cannot be done.
fn make_lanes(
    listener: &mut Listener,
    slots: u16,
    policy: &Policy,
    blocking: bool,
) -> Option<Said> {
    let wanted = policy.lanes_wanted(slots);
    let ways_out =
        format!("name its ListenStream= {wanted} times in the socket unit, with ReusePort=yes");
    match listener.grow(wanted, blocking) {
        Growth::None(why) => {
            let hint = (!listener.is_local()).then_some(ways_out);
            listener.give_up_lanes();
            Some(say_unsteered(listener, why, hint))
        }
        // More than the program can tell apart.
        Growth::Enough if listener.sockets.len() <= usize::from(slots) => Some((
            format!(
                "listener '{}' has {} lanes for {slots} workers, and there can be no more: workers that have none of their own share \
                 one, and are told to stop before they are idle",
                listener.name,
                listener.sockets.len()
            ),
            Some(format!("have fewer than {MAX_LANES} workers, or several apps")),
        )),
        Growth::Enough => None,
        // One worker more than there are slots is all that a reload needs.
        Growth::Short(_) if listener.sockets.len() > usize::from(slots) => None,
        Growth::Short(why) if listener.has_lanes() => {
            let (name, lanes) = (&listener.name, listener.sockets.len());
            let text = format!(
                "listener '{name}' has {lanes} lanes for {slots} workers and one that relieves them, and no more can be \
                 opened: {why}; workers that have none of their own share one, and are told to stop before they are idle"
            );
            Some((text, Some(ways_out)))
        }
        Growth::Short(why) => Some(say_unsteered(
            listener,
            &format!("no second socket can be opened: {why}"),
            Some(ways_out),
        )),
    }
}

/// Others at our address get nothing as long as we steer; whoever made them may wonder.
fn say_strangers(listener: &Listener, group: &Group) -> Option<Said> {
    let count = group.strangers();
    let text = format!(
        "{count} sockets that are not ours listen at the address of listener '{}' too; no connection goes there",
        listener.name
    );
    let hint = "'ss -ltnp' shows whose they are".to_owned();
    (count > 0).then_some((text, Some(hint)))
}

fn say_steered_all_the_same(listener: &Listener, asked: Asked) -> Said {
    let (name, sockets) = (&listener.name, listener.sockets.len());
    let text = format!(
        "cannot use balance '{asked}' on listener '{name}': it has {sockets} sockets, of which most programs serve one; workers \
         are steered"
    );
    let hint = "name its ListenStream= once, and stop the socket unit too: systemctl stop APP.socket APP.service; systemctl \
                daemon-reload; systemctl start APP";
    (text, Some(hint.to_owned()))
}

fn say_unsteered(listener: &Listener, why: &str, hint: Option<String>) -> Said {
    let text = format!("cannot steer listener '{}': {why}; all workers share it", listener.name);
    (text, hint)
}

fn say_lesser(listener: &Listener, steer: Steer, lesser: Lesser) -> Said {
    let instead = match steer {
        Steer::ClientIp => "by client address, without a program",
        Steer::RoundRobin | Steer::LeastConnections => "at random",
    };
    let text = format!(
        "cannot steer listener '{}' {}: {}; the kernel picks workers {instead}",
        listener.name,
        steer.word(),
        lesser.why
    );
    (text, lesser.hint.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::super::super::listeners::Socket;
    use super::*;
    use crate::sys::socket::{self, Port};

    #[test]
    fn more_workers_than_there_can_be_lanes_are_told_of() {
        let fd = socket::listen_tcp("127.0.0.1:0".parse().unwrap(), false, Port::Reused).unwrap();
        let mut listener = Listener::new("web".to_owned(), Socket::new(fd, true).unwrap(), None);
        let policy = Policy::default();
        assert_eq!(make_lanes(&mut listener, 255, &policy, false), None);
        let (text, _) = make_lanes(&mut listener, 256, &policy, false).unwrap();
        assert!(text.contains("256 lanes for 256 workers, and there can be no more"), "{text}");
    }
}
