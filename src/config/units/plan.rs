//! Which of the files in a folder get units, and why the others do not.

use super::super::typed::Typed;
use super::super::values::Address;
use super::super::{Error, Fault, Settings, file};
use super::{Origin, Scope, Units};
use std::fmt;

/// A file, and what stands beside it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The app: the file's name without `.toml`.
    pub name: String,
    /// Its path, absolute.
    pub path: String,
    /// What it says, or why that cannot be used.
    pub text: Result<String, Error>,
    /// Why there can be no units of this name.
    pub unnameable: Option<Error>,
    /// The units in force of an app that is there: its socket listens.
    pub kept: Option<Kept>,
}

impl Found {
    fn placed(&self, fault: Fault) -> Error {
        fault.placed(&self.path, self.text.as_deref().unwrap_or_default())
    }
}

/// Units that were noted when a socket began to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// `APP.socket`
    pub socket: String,
    /// `APP.service`
    pub service: String,
}

/// What a socket unit says of addresses.
fn addresses(socket: &str) -> Vec<&str> {
    let is_address =
        |line: &&str| ["Listen", "ReusePort", "FreeBind"].iter().any(|key| line.starts_with(key));
    socket.lines().filter(is_address).collect()
}

/// A file that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The app.
    pub name: String,
    /// File, line, key and reason.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// It is there, so it keeps the units that it has.
    pub keeps_units: bool,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instead = if self.keeps_units {
            "the app is there, so it keeps the units that it has"
        } else {
            "it gets no units"
        };
        write!(f, "cannot make units for '{}': {}; {instead}", self.name, self.message)
    }
}

/// What is to be written, and what is to be said.
#[derive(Debug, Default)]
pub struct Plan {
    /// The units of each app.
    pub units: Vec<(String, Units)>,
    /// The files that are refused.
    pub refused: Vec<Refused>,
    /// The files that name no address: their sockets are made by hand.
    pub without: Vec<String>,
    /// Apps that are there and listen elsewhere than their files say, until they are stopped.
    pub waiting: Vec<String>,
}

/// An app that has its addresses.
struct Claim<'a> {
    found: &'a Found,
    listen: Vec<Address>,
}

impl Plan {
    /// Returns what is to be done for these files. Units start `program`; `cpus` is how many processors there are.
    #[must_use]
    pub fn new(files: &[Found], program: &str, scope: Scope, cpus: u16) -> Self {
        let mut plan = Self::default();
        let mut claims: Vec<Claim<'_>> = vec![];
        // Who is there keeps its addresses; of two that are not, the first by name has them.
        let mut order: Vec<&Found> = files.iter().collect();
        order.sort_by_key(|found| (found.kept.is_none(), &found.name));
        for found in order {
            let origin = Origin { name: &found.name, file: &found.path, program, scope };
            let made = read(found, cpus).and_then(|(typed, settings)| {
                let units = claim(&claims, &settings)
                    .and_then(|()| Units::new(origin, &typed, &settings))
                    .map_err(|fault| found.placed(fault))?;
                Ok((units, settings.listen))
            });
            match made {
                Ok((Some(units), listen)) => {
                    claims.push(Claim { found, listen });
                    plan.add(found, units);
                }
                Ok((None, _)) if found.kept.is_some() => plan.refuse(found, no_address(found)),
                Ok((None, _)) => plan.without.push(found.name.clone()),
                Err(error) => plan.refuse(found, error),
            }
        }
        plan.units.sort_by(|(a, _), (b, _)| a.cmp(b));
        plan.refused.sort_by(|a, b| a.name.cmp(&b.name));
        plan.without.sort();
        plan.waiting.sort();
        plan
    }

    /// Whether there is nothing to write and nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.refused.is_empty() && self.without.is_empty()
    }

    /// A socket that listens goes on where it does: systemd would close it, and listen nowhere until the next start.
    fn add(&mut self, found: &Found, mut units: Units) {
        if let Some(kept) = &found.kept
            && addresses(&kept.socket) != addresses(&units.socket)
        {
            units.socket.clone_from(&kept.socket);
            self.waiting.push(found.name.clone());
        }
        self.units.push((found.name.clone(), units));
    }

    /// Without its units a service that runs would lose what is said of its end and of its next start.
    fn refuse(&mut self, found: &Found, error: Error) {
        let kept = found.kept.clone().filter(|_| found.unnameable.is_none());
        self.refused.push(Refused {
            name: found.name.clone(),
            message: error.message,
            hint: error.hint,
            keeps_units: kept.is_some(),
        });
        self.units.extend(kept.map(|Kept { socket, service }| {
            (found.name.clone(), Units { socket, service, wants: vec![] })
        }));
    }
}

fn no_address(found: &Found) -> Error {
    let message = format!("{}: it names no address to 'listen' on any more", found.path);
    Error { message, hint: None }
}

fn read(found: &Found, cpus: u16) -> Result<(Typed, Settings), Error> {
    let text = found.text.as_ref().map_err(|reason| Error {
        message: format!("cannot read '{}': {reason}", found.path),
        hint: reason.hint.clone(),
    })?;
    let typed = file::parse(&found.path, text)?;
    let settings = Settings::new(typed.clone(), cpus).map_err(|fault| found.placed(fault))?;
    // Without an address there are none to be named: its own are made by hand, or a package's.
    match &found.unnameable {
        Some(reason) if !settings.listen.is_empty() => Err(reason.clone()),
        Some(_) | None => Ok((typed, settings)),
    }
}

/// Refuses addresses that are there twice, in the file or in another.
fn claim(claims: &[Claim<'_>], settings: &Settings) -> Result<(), Fault> {
    for (number, address) in settings.listen.iter().enumerate() {
        let meets = |other: &&Address| other.meets(address);
        if let Some(other) = settings.listen[..number].iter().find(meets) {
            let reason = format!("'{address}' and '{other}' are the same address");
            return Err(Fault::of("listen", reason));
        }
        let other =
            claims.iter().find(|claim| claim.listen.iter().any(|other| other.meets(address)));
        if let Some(Claim { found: other, .. }) = other {
            let reason = format!("'{address}' is that of '{}' ({})", other.name, other.path);
            return Err(Fault::of("listen", reason).hint("give one of them another port"));
        }
    }
    Ok(())
}
