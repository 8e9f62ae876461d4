//! Connections that the last primary had accepted, and of which nobody knows whether it had passed them on. The kernel
//! does: a worker holds one, or it is under way in a channel, or somebody has read or written on it; else nobody has
//! had it, and it is dealt again.

use super::super::drain::census::sockets_of;
use super::Shared;
use super::place::Local;
use super::servers::serves_there;
use crate::protocol::procfs;
use crate::sys::{socket, tcp};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How often it is looked whether the workers have taken what was under way …
const LOOK: Duration = Duration::from_millis(5);
/// … and for how long. What is still under way then is somebody's.
const LOOKS: u32 = 400;

/// Deals again what nobody has had.
pub(super) async fn sort_out(shared: Shared, connections: Vec<OwnedFd>, workers: Vec<i32>) {
    let mut looks = 0;
    while looks < LOOKS && workers.iter().any(|pid| is_under_way(*pid)) {
        tokio::time::sleep(LOOK).await;
        looks += 1;
    }
    let held = workers.iter().flat_map(|pid| sockets_of(*pid).found);
    let held: BTreeSet<u64> = held.map(|socket| socket.inode).collect();
    for connection in connections {
        let is_held = socket::inode(&connection).is_ok_and(|inode| held.contains(&inode));
        if is_held || looks == LOOKS || tcp::was_used(&connection) {
            continue;
        }
        let mut hub = shared.lock();
        let local = socket::own_address(&connection).ok().flatten().map(Local::Tcp);
        let local = local.or_else(|| socket::own_path(&connection).map(Local::Unix));
        let at = local.and_then(|local| hub.sockets.iter().position(|s| serves_there(s, &local)));
        if let Some(at) = at {
            hub.take(at, connection);
        }
    }
}

/// Whether descriptors are on their way to a worker (`scm_fds` of a unix socket in `/proc/PID/fdinfo`).
fn is_under_way(pid: i32) -> bool {
    let number = super::super::worker::CHANNEL;
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
    procfs::descriptors_under_way(&info) > 0
}
