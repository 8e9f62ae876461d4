//! Giving up what root could do, in parts (`capabilities(7)`). A unit has some given to it by `AmbientCapabilities=`
//! (`systemd.exec(5)`), for what is done once at the start; workers are not to have them.

use nix::errno::Errno;
use std::io;

/// `CAP_BPF` (`linux/capability.h`), since Linux 5.8.
pub const BPF: u64 = 39;

/// `PR_CAP_AMBIENT` and what it does (`prctl(2)`, `linux/prctl.h`).
const PR_CAP_AMBIENT: libc::c_int = 47;
const IS_SET: libc::c_ulong = 1;
const LOWER: libc::c_ulong = 3;
const CLEAR_ALL: libc::c_ulong = 4;

/// `_LINUX_CAPABILITY_VERSION_3`: two sets of 32 each (`capget(2)`).
const VERSION_3: u32 = 0x2008_0522;

/// struct `__user_cap_header_struct`: 0 means the calling thread.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// struct `__user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Drops all capabilities of this process but those whose bits are set (`linux/capability.h` numbers them), and leaves none
/// to programs that it executes, but what is privileged by itself: what root executes, or a file with capabilities. It is
/// done to the calling thread, and the primary has one.
///
/// # Errors
/// As prctl(2) and capset(2): `EPERM` when it has not had them.
pub fn keep(capabilities: u64) -> io::Result<()> {
    ambient(CLEAR_ALL, 0)?;
    set(capabilities, 0)
}

/// Drops one capability that was given to this process by the ambient set, and leaves the others. Returns whether it had
/// it.
///
/// # Errors
/// As prctl(2), capget(2) and capset(2); none is known to fail.
pub fn give_back(capability: u64) -> io::Result<bool> {
    if ambient(IS_SET, capability)? == 0 {
        return Ok(false);
    }
    ambient(LOWER, capability)?;
    let mut sets = get()?;
    let (half, bit) = ((capability / 32) as usize % 2, 1 << (capability % 32));
    let Sets { effective, permitted, inheritable } = &mut sets[half];
    for set in [effective, permitted, inheritable] {
        *set &= !bit;
    }
    put(sets)?;
    Ok(true)
}

/// The permitted and effective sets become `own`.
fn set(own: u64, inheritable: u64) -> io::Result<()> {
    let (own, inheritable) = (halves(own), halves(inheritable));
    let half =
        |at: usize| Sets { effective: own[at], permitted: own[at], inheritable: inheritable[at] };
    put([half(0), half(1)])
}

fn get() -> io::Result<[Sets; 2]> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: the kernel reads a header and, in this version of it, writes two structs to valid places.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) };
    Errno::result(result)?;
    Ok(sets)
}

fn put(sets: [Sets; 2]) -> io::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    // SAFETY: the kernel reads a header and, in this version of it, two structs from valid places.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    Errno::result(result)?;
    Ok(())
}

/// The lower 32 bits and the upper ones.
fn halves(bits: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = bits.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

fn ambient(what: libc::c_ulong, capability: libc::c_ulong) -> io::Result<libc::c_int> {
    let unused: libc::c_ulong = 0;
    // SAFETY: takes numbers only.
    let result = unsafe { libc::prctl(PR_CAP_AMBIENT, what, capability, unused, unused) };
    Ok(Errno::result(result)?)
}

#[cfg(test)]
#[expect(clippy::print_stderr, reason = "a test says what it lacks")]
mod tests {
    use super::*;

    /// `CAP_NET_RAW`.
    const NET_RAW: u64 = 13;
    const RAISE: libc::c_ulong = 2;

    /// The sets of this thread: capabilities are dropped in one alone.
    fn sets() -> Vec<String> {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let lines = ["CapInh:\t", "CapPrm:\t", "CapEff:\t", "CapAmb:\t"];
        let set = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        lines.map(|name| set(name).to_owned()).to_vec()
    }

    fn bits(capabilities: u64) -> String {
        format!("{capabilities:016x}")
    }

    #[test]
    fn one_capability_is_given_back_and_the_others_stay() {
        let both = 1 << NET_RAW | 1 << BPF;
        if set(both, both).is_err() {
            eprintln!("skipped: this test has no capabilities to drop");
            return;
        }
        assert!(!give_back(BPF).unwrap(), "it was not given by the ambient set");
        ambient(RAISE, BPF).unwrap();
        ambient(RAISE, NET_RAW).unwrap();
        assert_eq!(sets(), vec![bits(both); 4]);
        assert!(give_back(BPF).unwrap());
        assert_eq!(sets(), vec![bits(1 << NET_RAW); 4]);
        keep(1 << NET_RAW).unwrap();
        assert_eq!(sets(), [bits(0), bits(1 << NET_RAW), bits(1 << NET_RAW), bits(0)]);
        keep(0).unwrap();
        assert_eq!(sets(), vec![bits(0); 4]);
        let error = keep(1 << NET_RAW).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
}
