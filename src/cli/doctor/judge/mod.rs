//! From facts to findings, a function for each question. Nothing here looks at the machine.

mod boot;
mod service;
mod serving;
mod sockets;
mod start;
#[cfg(test)]
mod tests;
mod units;

use super::facts::Facts;
use super::finding::{Finding, Mark};

/// Returns the findings, in the order in which an app comes to serve.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut all = vec![];
    all.extend(start::file(facts));
    all.extend(units::units(facts));
    all.extend(start::user(facts));
    all.extend(start::directory(facts));
    all.extend(start::program(facts));
    all.extend(start::script(facts));
    // What was found above is not said twice.
    if is_well(&all) {
        all.extend(start::trial(facts));
    }
    all.extend(sockets::sockets(facts));
    all.extend(service::promises(facts));
    all.extend(service::store(facts));
    all.extend(service::exposure(facts));
    all.extend(boot::boot(facts));
    all.extend(boot::lingering(facts));
    all.extend(serving::running(facts, is_well(&all)));
    all.extend(serving::settings(facts));
    all.extend(serving::balance(facts));
    all.extend(serving::failure(facts));
    all
}

fn is_well(all: &[Finding]) -> bool {
    all.iter().all(|finding| finding.mark != Mark::Problem)
}
