//! What is written down at every change, as JSON: an older and a newer program read each other's as far as the fields
//! go, and a person can read it too.

use super::super::balance::Memory;
use super::super::source::Launch;
use super::super::worker::Known;
use super::super::{LastExit, Primary};
use crate::core::{Generation, Slot, Supervisor, Time, WorkerId};
use crate::protocol::control::Failure;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything but what can be asked of the kernel.
#[derive(Debug, Deserialize)]
pub(in super::super) struct State {
    /// The version of the program that wrote it.
    pub(in super::super) dogwatch: String,
    pub(in super::super) core: Supervisor,
    pub(in super::super) launches: BTreeMap<Generation, Launch>,
    #[serde(default)]
    pub(in super::super) workers: BTreeMap<WorkerId, Known>,
    /// How many primaries there were.
    #[serde(default)]
    pub(in super::super) primaries: u32,
    #[serde(default)]
    pub(in super::super) began: Time,
    #[serde(default)]
    pub(in super::super) last_failure: Option<Failure>,
    #[serde(default)]
    pub(in super::super) exits: BTreeMap<Slot, LastExit>,
    #[serde(default)]
    pub(in super::super) balance: Option<Memory>,
}

/// The same, as it is written.
#[derive(Serialize)]
struct Writing<'a> {
    dogwatch: &'a str,
    core: &'a Supervisor,
    launches: &'a BTreeMap<Generation, Launch>,
    workers: BTreeMap<WorkerId, &'a Known>,
    primaries: u32,
    began: Time,
    last_failure: Option<&'a Failure>,
    exits: &'a BTreeMap<Slot, LastExit>,
    balance: Option<Memory>,
}

/// Returns the state as text.
///
/// # Errors
/// When a path is no text.
pub(super) fn write(primary: &Primary) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Writing {
        dogwatch: env!("CARGO_PKG_VERSION"),
        core: &primary.core,
        launches: &primary.launches,
        workers: primary.workers.iter().map(|(id, process)| (*id, &process.known)).collect(),
        primaries: primary.primaries,
        began: primary.began,
        last_failure: primary.last_failure.as_ref().map(|last| &last.failure),
        exits: &primary.exits,
        balance: primary.balance.memory(),
    })
}

/// Reads what was written.
///
/// # Errors
/// What makes no sense, in words.
pub(super) fn read(text: &[u8]) -> Result<State, String> {
    let state: State = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let lost = state.core.all_settings().find(|g| !state.launches.contains_key(g));
    if let Some(generation) = lost {
        return Err(format!("generation {generation} has no settings"));
    }
    for (generation, launch) in &state.launches {
        let checked = launch.settings.check();
        checked.map_err(|error| format!("generation {generation}: {}", error.message))?;
    }
    Ok(state)
}
