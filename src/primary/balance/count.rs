//! How many connections each worker has, for the policy that wants to know: by its open descriptors, which costs one call.

use super::super::channel::Local;
use super::super::drain::census;
use super::Steering;
use crate::core::WorkerId;
use crate::protocol::diag::State;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;

impl Steering {
    /// Tells the program how many connections each worker has: those that wait, and its descriptors less the fewest that it
    /// was seen with, which is what it has beside.
    pub(super) fn count_connections(&mut self) {
        for (worker, pid) in &self.pids {
            let Some(lane) = self.memory.lanes.lane(*worker) else { continue };
            if !self.memory.lanes.is_served(lane) {
                continue;
            }
            let Some(open) = open_files(*pid) else { continue };
            let fewest = self.memory.fewest.entry(*worker).or_insert(open);
            *fewest = open.min(*fewest);
            let waiting: u32 = self.groups.iter().map(|group| group.queue(lane)).sum();
            let count = open.saturating_sub(*fewest).saturating_add(waiting);
            self.groups.iter().for_each(|group| group.count(lane, count));
        }
    }

    /// Notes what a worker has open that is given connections from now on: none of it is one.
    pub(super) fn count_idle(&mut self, worker: WorkerId) {
        if let Some(open) = self.pids.get(&worker).and_then(|pid| open_files(*pid)) {
            self.memory.fewest.insert(worker, open);
        }
    }

    /// Returns the other ends of the handshakes that are under way at our addresses.
    pub(super) fn handshakes(&self) -> BTreeSet<SocketAddr> {
        let sockets = self.groups.iter().filter(|group| !group.is_datagram);
        let locals: Vec<Local> =
            sockets.filter_map(|group| Local::of(&group.sockets[0].fd).ok()).collect();
        // What cannot be seen is not waited for.
        let rows = census::rows(&locals, &[State::SynReceived]).unwrap_or_default();
        rows.tcp.into_iter().map(|row| row.peer).collect()
    }
}

/// Returns how many descriptors a process has open: the size of its directory, which kernels before 6.2 do not tell.
fn open_files(pid: i32) -> Option<u32> {
    let path = format!("/proc/{pid}/fd");
    let told = fs::metadata(&path).ok()?.size();
    let count =
        if told > 0 { told } else { u64::try_from(fs::read_dir(&path).ok()?.count()).ok()? };
    u32::try_from(count).ok()
}
