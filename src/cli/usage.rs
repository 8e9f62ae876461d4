//! What processes use, measured here and not in the primary: looking costs it nothing, and a table of a thousand
//! workers delays none of its events.

use crate::protocol::control::{App, Worker};
use crate::protocol::procfs::{self, Stat};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;

/// What a worker uses, with everything that it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Usage {
    /// Resident memory; pages that processes share are counted in each.
    pub(super) memory_bytes: u64,
    /// Processor time since it was started.
    pub(super) cpu_ms: u64,
    /// Its processes.
    pub(super) processes: u32,
    /// Open connections of the app's listeners; `None` when we may not look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connections: Option<u32>,
}

impl Usage {
    /// Adds another's.
    pub(super) fn add(&mut self, other: &Self) {
        self.memory_bytes += other.memory_bytes;
        self.cpu_ms += other.cpu_ms;
        self.processes += other.processes;
        self.connections = match (self.connections, other.connections) {
            (Some(ours), Some(theirs)) => Some(ours + theirs),
            (ours, theirs) => ours.or(theirs),
        };
    }
}

/// The processes of this host at one moment.
#[derive(Debug, Default)]
pub(super) struct Processes {
    stats: BTreeMap<i32, Stat>,
    children: BTreeMap<i32, Vec<i32>>,
    page: u64,
    tick_ms: u64,
}

impl Processes {
    /// Looks at all of them once.
    pub(super) fn look() -> Self {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids: Vec<i32> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let read = |pids: &[i32]| -> Vec<(i32, Stat)> {
            pids.iter().filter_map(|pid| Some((*pid, read_stat(*pid)?))).collect()
        };
        // Procfs makes the text of each anew, which is most of the work: two do it in half the time.
        let (ours, theirs) = pids.split_at(pids.len() / 2);
        let stats: BTreeMap<i32, Stat> = std::thread::scope(|scope| {
            let theirs = scope.spawn(|| read(theirs));
            let ours = read(ours);
            ours.into_iter().chain(theirs.join().unwrap_or_default()).collect()
        });
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for (pid, stat) in &stats {
            children.entry(stat.parent).or_default().push(*pid);
            // What was left by its parent is the primary's child now, and still of the worker's group.
            if stat.group != *pid && stat.group != stat.parent {
                children.entry(stat.group).or_default().push(*pid);
            }
        }
        let constant = |name, default| {
            let value = nix::unistd::sysconf(name).ok().flatten();
            value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default)
        };
        let page = constant(nix::unistd::SysconfVar::PAGE_SIZE, 4096);
        let tick_ms = 1000 / constant(nix::unistd::SysconfVar::CLK_TCK, 100).max(1);
        Self { stats, children, page, tick_ms }
    }

    /// A process and all that it started.
    fn tree(&self, root: i32) -> BTreeSet<i32> {
        let mut tree = BTreeSet::new();
        let mut found = vec![root];
        while let Some(pid) = found.pop() {
            if self.stats.contains_key(&pid) && tree.insert(pid) {
                found.extend(self.children.get(&pid).into_iter().flatten());
            }
        }
        tree
    }

    /// What one process uses by itself.
    pub(super) fn alone(&self, pid: i32) -> Usage {
        self.sum(&BTreeSet::from([pid]))
    }

    fn sum(&self, pids: &BTreeSet<i32>) -> Usage {
        let stats = pids.iter().filter_map(|pid| self.stats.get(pid));
        stats.fold(Usage::default(), |sum, stat| Usage {
            memory_bytes: sum.memory_bytes + stat.pages * self.page,
            cpu_ms: sum.cpu_ms + stat.ticks * self.tick_ms,
            processes: sum.processes + 1,
            connections: None,
        })
    }

    /// What each worker of an app uses, by the worker's number.
    pub(super) fn of(&self, app: &App) -> BTreeMap<u64, Usage> {
        let workers = workers(app).filter_map(|worker| Some((worker.worker, worker.pid?)));
        let workers: Vec<(u64, i32)> = workers.collect();
        let pids: Vec<i32> = workers.iter().map(|(_, pid)| *pid).collect();
        let connections = open_connections(app, &pids);
        let usage = |pid| {
            let tree = self.tree(pid);
            let count = connections.as_ref().map(|inodes| count(pid, &tree, inodes));
            Usage { connections: count.flatten(), ..self.sum(&tree) }
        };
        workers.into_iter().map(|(worker, pid)| (worker, usage(pid))).collect()
    }
}

/// All workers of an app.
pub(super) fn workers(app: &App) -> impl Iterator<Item = &Worker> {
    app.slots.iter().flat_map(|slot| &slot.workers).chain(&app.leaving)
}

fn read_stat(pid: i32) -> Option<Stat> {
    let mut buffer = [0; 1024];
    let length = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut buffer).ok()?;
    procfs::stat(&String::from_utf8_lossy(&buffer[..length]))
}

/// The open connections of an app's listeners, by inode; `None` when nobody can tell.
fn open_connections(app: &App, pids: &[i32]) -> Option<BTreeSet<u64>> {
    let addresses: Vec<&str> =
        app.primary.listeners.iter().map(|listener| listener.address.as_str()).collect();
    // All workers are in the same network namespace; one of them may just have ended.
    let table = |name: &str| pids.iter().find_map(|pid| table(*pid, name));
    let mut inodes = BTreeSet::new();
    // A socket of IPv6 has its connections in that table, those of IPv4 clients included.
    for (name, is_v6) in [("tcp", false), ("tcp6", true)] {
        let meant = addresses.iter().filter(|a| !a.starts_with('/') && a.starts_with('[') == is_v6);
        let ports: BTreeSet<u16> =
            meant.filter_map(|a| a.rsplit_once(':')?.1.parse().ok()).collect();
        if !ports.is_empty() {
            inodes.extend(procfs::established(&table(name)?, |port| ports.contains(&port)));
        }
    }
    if addresses.iter().any(|address| address.starts_with('/')) {
        inodes.extend(procfs::connected(&table("unix")?, |path| addresses.contains(&path)));
    }
    Some(inodes)
}

/// Reads a table of the network, in few pieces: for each the kernel walks through all of its sockets.
fn table(pid: i32, name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(64 * 1024);
    File::open(format!("/proc/{pid}/net/{name}")).ok()?.read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// How many of these connections the processes hold; `None` when we may not look at the first, the worker itself. What
/// else it started may be gone by now, or be a zombie, whose descriptors belong to root and are none.
fn count(root: i32, pids: &BTreeSet<i32>, connections: &BTreeSet<u64>) -> Option<u32> {
    if connections.is_empty() {
        return Some(0);
    }
    let mut held = BTreeSet::new();
    for pid in pids {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
            if *pid == root {
                return None;
            }
            continue;
        };
        for descriptor in descriptors.flatten() {
            let link = std::fs::read_link(descriptor.path()).unwrap_or_default();
            let inode = link.to_str().and_then(procfs::socket_inode);
            held.extend(inode.filter(|inode| connections.contains(inode)));
        }
    }
    u32::try_from(held.len()).ok()
}
