//! What is asked of the journal, as both back ends understand it.

/// `FIELD=VALUE`s that go together: those of the same field are alternatives, and each field must be met.
pub(super) type Group = Vec<String>;

/// Where reading begins, and in which direction it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// From the newest back to the oldest.
    Newest,
    /// From the oldest on.
    Oldest,
    /// From this time on, in microseconds since 1970.
    Time(u64),
    /// From behind the entry with this cursor on.
    After(String),
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Next<T> {
    Some(T),
    /// Nothing has come in the time that was to be waited.
    Nothing,
    /// There is no more.
    End,
}

/// The unit of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Of the system's manager.
    System(String),
    /// Of the manager of the user with this id.
    User(String, u32),
    /// It runs in none, with so many slots, and writes to the journal nevertheless.
    None(u16),
}

impl Unit {
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::System(name) | Self::User(name, _) => Some(name),
            Self::None(_) => None,
        }
    }

    /// What the unit's own processes write.
    fn own(&self) -> Group {
        match self {
            Self::System(name) => vec![format!("_SYSTEMD_UNIT={name}")],
            Self::User(name, user) => {
                vec![format!("_SYSTEMD_USER_UNIT={name}"), format!("_UID={user}")]
            }
            Self::None(_) => vec![],
        }
    }

    /// What is written about the unit: by its manager, when a process of it dumps core, and by system services.
    fn about(&self) -> Vec<Group> {
        // systemd-coredump(8) says this of a process that dumped core.
        let dump = "MESSAGE_ID=fc2e22bc6ee647b68b90729ab34a250b".to_owned();
        match self {
            Self::System(name) => {
                let root = "_UID=0".to_owned();
                vec![
                    vec![format!("UNIT={name}"), "_PID=1".to_owned()],
                    vec![format!("COREDUMP_UNIT={name}"), root.clone(), dump],
                    vec![format!("OBJECT_SYSTEMD_UNIT={name}"), root],
                ]
            }
            Self::User(name, user) => {
                let user = format!("_UID={user}");
                vec![
                    vec![format!("USER_UNIT={name}"), user.clone()],
                    vec![format!("COREDUMP_USER_UNIT={name}"), user.clone(), dump],
                    vec![format!("OBJECT_SYSTEMD_USER_UNIT={name}"), user],
                ]
            }
            Self::None(_) => vec![],
        }
    }
}

/// Everything of these units, as `journalctl -u` shows it; or what one slot's workers wrote and what became of them.
pub(super) fn groups(app: &str, units: &[Unit], slot: Option<u16>) -> Vec<Group> {
    let with = |unit: &Unit, more: String| [unit.own(), vec![more]].concat();
    let of_unit = |unit: &Unit| match (unit, slot) {
        (Unit::None(slots), None) => vec![vec![format!("DOGWATCH_APP={app}")], lines(app, *slots)],
        (Unit::None(_), Some(slot)) => vec![
            vec![format!("DOGWATCH_APP={app}"), format!("DOGWATCH_SLOT={slot}")],
            vec![format!("SYSLOG_IDENTIFIER={app}/{slot}")],
        ],
        (unit, None) => [vec![unit.own()], unit.about()].concat(),
        (unit, Some(slot)) => vec![
            with(unit, format!("SYSLOG_IDENTIFIER={app}/{slot}")),
            with(unit, format!("DOGWATCH_SLOT={slot}")),
        ],
    };
    units.iter().flat_map(of_unit).collect()
}

/// The first lines of all streams of these units, and little else.
pub(super) fn openings(app: &str, units: &[Unit]) -> Vec<Group> {
    let debug = || vec!["PRIORITY=7".to_owned()];
    let of_unit = |unit: &Unit| match unit {
        Unit::None(slots) => [lines(app, *slots), debug()].concat(),
        unit @ (Unit::System(_) | Unit::User(..)) => [unit.own(), debug()].concat(),
    };
    units.iter().map(of_unit).collect()
}

/// The lines of so many slots.
fn lines(app: &str, slots: u16) -> Group {
    (0..slots).map(|slot| format!("SYSLOG_IDENTIFIER={app}/{slot}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(groups: &[Group]) -> String {
        groups.iter().map(|group| group.join(" ")).collect::<Vec<_>>().join(" + ")
    }

    #[test]
    fn a_unit_is_what_journalctl_shows_of_it() {
        let unit = [Unit::System("a.service".to_owned())];
        assert_eq!(
            text(&groups("a", &unit, None)),
            "_SYSTEMD_UNIT=a.service + UNIT=a.service _PID=1 + COREDUMP_UNIT=a.service _UID=0 \
             MESSAGE_ID=fc2e22bc6ee647b68b90729ab34a250b + OBJECT_SYSTEMD_UNIT=a.service _UID=0"
        );
        assert_eq!(
            text(&groups("a", &unit, Some(2))),
            "_SYSTEMD_UNIT=a.service SYSLOG_IDENTIFIER=a/2 + _SYSTEMD_UNIT=a.service DOGWATCH_SLOT=2"
        );
        let user = [Unit::User("a.service".to_owned(), 1000)];
        assert!(
            text(&groups("a", &user, None)).starts_with(
                "_SYSTEMD_USER_UNIT=a.service _UID=1000 + USER_UNIT=a.service _UID=1000"
            )
        );
        assert_eq!(
            text(&openings("a", &user)),
            "_SYSTEMD_USER_UNIT=a.service _UID=1000 PRIORITY=7"
        );
    }

    #[test]
    fn without_a_unit_names_must_do() {
        let none = [Unit::None(2)];
        assert_eq!(
            text(&groups("a", &none, None)),
            "DOGWATCH_APP=a + SYSLOG_IDENTIFIER=a/0 SYSLOG_IDENTIFIER=a/1"
        );
        assert_eq!(
            text(&groups("a", &none, Some(1))),
            "DOGWATCH_APP=a DOGWATCH_SLOT=1 + SYSLOG_IDENTIFIER=a/1"
        );
    }
}
