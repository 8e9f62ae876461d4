//! Which of the files in a folder get units, and why the others do not.

use super::super::typed::Typed;
use super::super::values::{Address, Workers};
use super::super::{Error, Settings, file};
use super::{Origin, Scope, Units};
use std::fmt;

/// A file, and what stands beside it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The app: the file's name without `.toml`.
    pub name: String,
    /// Its path, absolute.
    pub path: String,
    /// What it says, or why that cannot be read.
    pub text: Result<String, String>,
    /// Why there can be no units of this name.
    pub unnameable: Option<String>,
    /// The app is there: its socket listens, or its primary runs.
    pub is_there: bool,
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
    /// It is there, so it keeps units, made of what can be read of its file.
    pub keeps_units: bool,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instead = if self.keeps_units {
            "it is there, so its units are made of what can be read"
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
        order.sort_by_key(|found| (!found.is_there, &found.name));
        for found in order {
            let origin = Origin { name: &found.name, file: &found.path, program, scope };
            match read(found, cpus).and_then(|read| claimed(&claims, found, read)) {
                Ok((typed, settings)) => match Units::new(origin, &typed, &settings) {
                    Ok(Some(units)) => {
                        claims.push(Claim { found, listen: settings.listen });
                        plan.units.push((found.name.clone(), units));
                    }
                    Ok(None) => plan.without.push(found.name.clone()),
                    Err(error) => plan.refuse(found, origin, placed(found, error), cpus),
                },
                Err(error) => plan.refuse(found, origin, error, cpus),
            }
        }
        plan.units.sort_by(|(a, _), (b, _)| a.cmp(b));
        plan.refused.sort_by(|a, b| a.name.cmp(&b.name));
        plan.without.sort();
        plan
    }

    /// Without its units a service that runs would lose what is said of its end and of its next start.
    fn refuse(&mut self, found: &Found, origin: Origin<'_>, error: Error, cpus: u16) {
        let has_units = found.is_there && found.unnameable.is_none();
        let kept = has_units.then(|| salvaged(found, origin, cpus)).flatten();
        self.refused.push(Refused {
            name: found.name.clone(),
            message: error.message,
            hint: error.hint,
            keeps_units: kept.is_some(),
        });
        self.units.extend(kept.map(|units| (found.name.clone(), units)));
    }
}

fn read(found: &Found, cpus: u16) -> Result<(Typed, Settings), Error> {
    let plain = |message: String| Error { message, hint: None };
    let text = found.text.as_ref();
    let text = text.map_err(|e| plain(format!("cannot read '{}': {e}", found.path)))?;
    let typed = file::parse(&found.path, text)?;
    let settings = Settings::new(typed.clone(), cpus).map_err(|error| placed(found, error))?;
    // Without an address there are none to be named: its own are made by hand, or a package's.
    match &found.unnameable {
        Some(reason) if !settings.listen.is_empty() => Err(plain(reason.clone())),
        Some(_) | None => Ok((typed, settings)),
    }
}

/// Says where in the file the key stands that an error begins with.
fn placed(found: &Found, error: Error) -> Error {
    let text = found.text.as_deref().unwrap_or_default();
    let key = error.message.split('\'').nth(1).filter(|_| error.message.starts_with('\''));
    let place = file::place(&found.path, text, key.unwrap_or_default());
    Error { message: format!("{place}: {}", error.message), ..error }
}

fn claimed(
    claims: &[Claim<'_>],
    found: &Found,
    (typed, settings): (Typed, Settings),
) -> Result<(Typed, Settings), Error> {
    for (number, address) in settings.listen.iter().enumerate() {
        let meets = |other: &&Address| other.meets(address);
        if let Some(other) = settings.listen[..number].iter().find(meets) {
            let message = format!("'listen': '{address}' and '{other}' are the same address");
            return Err(placed(found, Error { message, hint: None }));
        }
        let other =
            claims.iter().find(|claim| claim.listen.iter().any(|other| other.meets(address)));
        if let Some(Claim { found: other, .. }) = other {
            let message =
                format!("'listen': '{address}' is that of '{}' ({})", other.name, other.path);
            let hint = Some("give one of them another port".to_owned());
            return Err(placed(found, Error { message, hint }));
        }
    }
    Ok((typed, settings))
}

/// Returns units of what can be read of a file that is refused.
fn salvaged(found: &Found, origin: Origin<'_>, cpus: u16) -> Option<Units> {
    let typed = file::salvage(found.text.as_deref().unwrap_or_default());
    // What the units do not say may contradict itself.
    let needed = Typed {
        command: Some(vec!["?".to_owned()]),
        workers: typed.workers.or(Some(Workers::Count(1))),
        listen: typed.listen.clone(),
        blocking: typed.blocking,
        handoff: typed.handoff,
        balance: typed.balance,
        ..Typed::default()
    };
    let plain = Typed { handoff: None, balance: None, blocking: None, ..needed.clone() };
    let settings = Settings::new(needed, cpus).or_else(|_| Settings::new(plain, cpus)).ok()?;
    Units::new(origin, &typed, &settings).ok()?
}
