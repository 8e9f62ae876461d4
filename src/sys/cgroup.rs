//! Control groups, version 2 (`cgroups(7)`, `Documentation/admin-guide/cgroup-v2.rst` of the kernel): one for each worker,
//! below the group that systemd delegates to the unit (`Delegate=` in `systemd.resource-control(5)`).

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{AccessFlags, Pid, access};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

mod place;
use place::{folder, is_marked, of, own};

/// The subgroup that the primary lives in (`DelegateSubgroup=`).
const MAIN: &str = "main";

/// The subgroup that systemd runs `ExecReload=` and `ExecStopPost=` of such a unit in.
const CONTROL: &str = ".control";

/// How often a group without `cgroup.kill` is looked at again for processes that were forked meanwhile.
const ROUNDS: usize = 16;

/// The group that systemd has delegated to our unit.
#[derive(Debug)]
pub struct Delegated {
    base: PathBuf,
}

impl Delegated {
    /// Returns the unit's group if systemd has delegated it to us: it marks it (`user.delegate`, since systemd 251, or
    /// `trusted.delegate`, which only root reads), and makes it ours. `ProtectControlGroups=` takes it away again, and a
    /// user's manager marks none.
    #[must_use]
    pub fn find() -> Option<Self> {
        let own = own()?;
        let unit = if own.ends_with(MAIN) { own.parent()? } else { &own };
        let base = folder(unit)?;
        let ours = is_marked(&base) && access(&base, AccessFlags::W_OK).is_ok();
        ours.then_some(Self { base })
    }

    /// Moves this process from the unit's group to `main` below it, where it is not there yet: systemd before 254 does not
    /// know `DelegateSubgroup=`, and a group with controllers for its children takes no process.
    ///
    /// # Errors
    /// As mkdir(2), open(2) and write(2).
    pub fn enter_main(&self) -> io::Result<()> {
        if own().and_then(|own| folder(&own)).as_ref() != Some(&self.base) {
            return Ok(());
        }
        let main = self.base.join(MAIN);
        match fs::create_dir(&main) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            Ok(()) | Err(_) => {}
        }
        put(&main.join("cgroup.procs"), "0")
    }

    /// Makes a group. An empty one of that name is replaced, so that it counts from zero.
    ///
    /// # Errors
    /// As mkdir(2); `AlreadyExists` while somebody lives in it, `InvalidInput` when it is no name for a group of ours.
    pub fn make(&self, name: &str) -> io::Result<Group> {
        if !is_ours(name) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let group = Group { path: self.base.join(name) };
        if !group.is_populated() {
            group.remove();
        }
        fs::create_dir(&group.path)?;
        Ok(group)
    }

    /// Returns the group of that name if there is one.
    #[must_use]
    pub fn open(&self, name: &str) -> Option<Group> {
        let path = self.base.join(name);
        (is_ours(name) && path.is_dir()).then_some(Group { path })
    }

    /// Returns the group of ours that a process is in.
    #[must_use]
    pub fn group_of(&self, pid: Pid) -> Option<Group> {
        let path = folder(&of(pid)?)?;
        let below = path.strip_prefix(&self.base).ok()?;
        self.open(below.iter().next()?.to_str()?)
    }

    /// Returns the names of the groups that there are, in alphabetical order; neither `main` nor systemd's `.control`.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        let names = below(&self.base).into_iter().filter_map(|name| name.into_string().ok());
        let mut names: Vec<_> = names.filter(|name| is_ours(name)).collect();
        names.sort();
        names
    }

    /// Returns the processes that are in no group of their own: those in `main`, and in the unit's group itself.
    #[must_use]
    pub fn processes_of_main(&self) -> Vec<Pid> {
        let mut pids = processes_in(&self.base);
        pids.extend(processes_in(&self.base.join(MAIN)));
        pids
    }
}

/// Returns the processes of the group that we are in ourselves.
#[must_use]
pub fn beside_us() -> Vec<Pid> {
    own().and_then(|own| folder(&own)).map_or(vec![], |folder| processes_in(&folder))
}

/// Neither the primary's nor systemd's, nor a way out, nor a file of the kernel's.
fn is_ours(name: &str) -> bool {
    let taken = name.is_empty() || name == MAIN || name.contains(['/', '\n', '\0']);
    !taken && !name.starts_with('.') && !name.starts_with("cgroup.")
}

/// A group below the delegated one.
#[derive(Clone, Debug)]
pub struct Group {
    path: PathBuf,
}

impl Group {
    /// Returns a descriptor for a child to write "0" to, with which it moves itself here before it executes anything.
    /// That it may is decided by who opens this (since Linux 5.16), and so it works for a child of another user too.
    ///
    /// # Errors
    /// As open(2).
    pub fn procs(&self) -> io::Result<OwnedFd> {
        Ok(OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))?.into())
    }

    /// Returns the processes in it and in groups that they have made below. Zombies are in no group's list.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        tree(&self.path).iter().flat_map(|folder| processes_in(folder)).collect()
    }

    /// Whether a process lives in it or below; not when the group is gone.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.events")).is_ok_and(|text| populated(&text))
    }

    /// Ends all processes in it and below at once, those that are being forked included. A group that is gone has none.
    ///
    /// Before Linux 5.14, which is without `cgroup.kill`, each gets SIGKILL, and a program that forks quickly may escape.
    ///
    /// # Errors
    /// As open(2) and write(2), or kill(2).
    pub fn kill(&self) -> io::Result<()> {
        match put(&self.path.join("cgroup.kill"), "1") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.kill_each(),
            // It was removed after it had been opened.
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }

    fn kill_each(&self) -> io::Result<()> {
        let mut known = BTreeSet::new();
        let mut outcome = Ok(());
        for _ in 0..ROUNDS {
            let mut found = self.processes();
            found.retain(|pid| known.insert(*pid));
            if found.is_empty() {
                break;
            }
            for pid in found {
                match kill(pid, Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(e) => outcome = Err(e.into()),
                }
            }
        }
        outcome
    }

    /// Removes the group and those below it, as far as nobody lives in them.
    pub fn remove(&self) {
        for folder in tree(&self.path).iter().rev() {
            // EBUSY: whoever asks for this looks again when it is empty.
            let _ = fs::remove_dir(folder);
        }
    }

    /// Returns its folder.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Where it is in the file system.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Takes the controllers from the children of the unit's group, for `ExecStopPost=` under systemd 252 and 253: without
/// `DelegateSubgroup=` the next main process is put into the unit's group itself, which the kernel refuses (`EBUSY`)
/// while limited workers live on below it. Their limits are gone until they are written again. Does nothing outside of
/// the unit's `.control`.
///
/// # Errors
/// As open(2), read(2) and write(2); `EBUSY` when a group below passes a controller on to groups of its own.
pub fn release() -> io::Result<()> {
    let Some(own) = own().filter(|own| own.ends_with(CONTROL)) else {
        return Ok(());
    };
    let Some(unit) = own.parent().and_then(folder) else {
        return Ok(());
    };
    let control = unit.join("cgroup.subtree_control");
    let change = without(&fs::read_to_string(&control)?);
    if change.is_empty() { Ok(()) } else { put(&control, &change) }
}

/// What disables all of these controllers in one write. Any single one that stays would keep processes out.
fn without(enabled: &str) -> String {
    let disable = |name| format!("-{name}");
    enabled.split_ascii_whitespace().map(disable).collect::<Vec<_>>().join(" ")
}

/// Writes to a file of the kernel's. It is not to be created where the kernel does not have it: that is refused as a lack
/// of permission.
fn put(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

/// Returns the names of a group's subgroups.
fn below(folder: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.map(|entry| entry.file_name()).collect()
}

/// Returns a group and all below it, each before those that are in it.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_path_buf()];
    let mut at = 0;
    while let Some(folder) = folders.get(at) {
        let found: Vec<_> = below(folder).iter().map(|name| folder.join(name)).collect();
        folders.extend(found);
        at += 1;
    }
    folders
}

fn processes_in(folder: &Path) -> Vec<Pid> {
    pids(&fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default())
}

/// Reads `cgroup.procs`. A process of a pid namespace that we do not see is listed as 0.
fn pids(text: &str) -> Vec<Pid> {
    let pids = text.lines().filter_map(|line| line.parse().ok());
    pids.filter(|pid| *pid > 0).map(Pid::from_raw).collect()
}

/// Reads `cgroup.events`.
fn populated(events: &str) -> bool {
    events.lines().any(|line| line == "populated 1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pidfd::tests::{line, shell};
    use nix::poll::{PollFd, PollFlags, poll};
    use nix::sys::wait::{WaitStatus, waitpid};
    use std::ffi::CString;
    use std::io::{Read as _, Seek as _};
    use std::os::fd::AsFd as _;
    use std::os::unix::ffi::OsStrExt as _;

    /// A group that stands for the delegated one; whatever a test leaves in it is ended.
    struct Base(Delegated);

    impl Base {
        /// `None` where we may not make one.
        fn new(name: &str) -> Option<Self> {
            let base = folder(&own()?)?.join(format!("dogwatch-{name}-{}", std::process::id()));
            fs::create_dir(&base).ok()?;
            Some(Self(Delegated { base }))
        }
    }

    impl Drop for Base {
        fn drop(&mut self) {
            let all = Group { path: self.0.base.clone() };
            let _ = all.kill();
            wait_until_empty(&all);
            all.remove();
        }
    }

    fn wait_until_empty(group: &Group) {
        let mut events = fs::File::open(group.path.join("cgroup.events")).unwrap();
        loop {
            let mut text = String::new();
            events.rewind().unwrap();
            events.read_to_string(&mut text).unwrap();
            if !populated(&text) {
                return;
            }
            let mut polled = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            assert_eq!(poll(&mut polled, 10_000u16), Ok(1));
        }
    }

    /// A child that has moved itself to the group and stays.
    fn child_in(group: &Group) -> Pid {
        let script = "echo 0 >&3 && echo moved && exec sleep 1000";
        let (child, mut output) = shell(script, group.procs().unwrap().as_fd());
        assert_eq!(line(&mut output), "moved");
        child
    }

    fn is_killed(child: Pid) -> bool {
        let ended = waitpid(child, None).unwrap();
        matches!(ended, WaitStatus::Signaled(_, Signal::SIGKILL, _))
    }

    #[test]
    fn a_group_is_made_populated_killed_and_removed() {
        let Some(base) = Base::new("life") else { return };
        let group = base.0.make("w1").unwrap();
        assert_eq!((group.is_populated(), group.processes()), (false, vec![]));
        let child = child_in(&group);
        assert_eq!((group.is_populated(), group.processes()), (true, vec![child]));
        assert_eq!(base.0.make("w1").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        group.remove();
        assert_eq!(base.0.groups(), ["w1"]);
        group.kill().unwrap();
        assert!(is_killed(child));
        wait_until_empty(&group);
        group.remove();
        assert!(!group.path().exists() && !group.is_populated());
        group.kill().unwrap();
        assert_eq!(base.0.groups(), Vec::<String>::new());
    }

    #[test]
    fn what_a_worker_has_made_below_its_group_belongs_to_it() {
        let Some(base) = Base::new("below") else { return };
        let group = base.0.make("w1").unwrap();
        let inner = Group { path: group.path().join("a") };
        fs::create_dir_all(inner.path().join("b")).unwrap();
        let (child, other) = (child_in(&group), child_in(&inner));
        assert_eq!(group.processes(), [child, other]);
        // As on a kernel without cgroup.kill.
        group.kill_each().unwrap();
        assert!(is_killed(child) && is_killed(other));
        wait_until_empty(&group);
        // Empty: it is replaced, with all that was below.
        let group = base.0.make("w1").unwrap();
        assert_eq!(tree(group.path()), [group.path()]);
    }

    #[test]
    fn the_groups_of_main_and_of_systemd_are_not_ours() {
        let Some(base) = Base::new("main") else { return };
        for name in ["", "main", ".control", "..", "a/b", "cgroup.procs"] {
            assert_eq!(base.0.make(name).unwrap_err().kind(), io::ErrorKind::InvalidInput);
            assert!(base.0.open(name).is_none());
        }
        let main = Group { path: base.0.base.join("main") };
        fs::create_dir(main.path()).unwrap();
        base.0.make("w2").unwrap();
        base.0.make("w1").unwrap();
        assert_eq!(base.0.groups(), ["w1", "w2"]);
        assert_eq!(base.0.open("w2").unwrap().path(), base.0.base.join("w2"));
        assert!(base.0.open("w3").is_none());
        let all = Group { path: base.0.base.clone() };
        let children = [child_in(&all), child_in(&main)];
        assert_eq!(base.0.processes_of_main(), children);
        all.kill().unwrap();
        assert!(children.into_iter().all(is_killed));
    }

    #[test]
    fn a_group_is_delegated_when_it_is_marked_so() {
        let Some(base) = Base::new("marked") else { return };
        let path = CString::new(base.0.base.as_os_str().as_bytes()).unwrap();
        for (value, marked) in [(c"0", false), (c"1", true), (c"11", false)] {
            let (name, length) = (c"user.delegate".as_ptr(), value.count_bytes());
            // SAFETY: C strings, and the length of the third.
            let result =
                unsafe { libc::setxattr(path.as_ptr(), name, value.as_ptr().cast(), length, 0) };
            // Kernels before 5.7 have no such attributes here.
            assert!(result != 0 || is_marked(&base.0.base) == marked);
        }
    }

    #[test]
    fn the_kernels_files_are_read() {
        assert!(populated("populated 1\nfrozen 0\n"));
        assert!(!populated("populated 0\nfrozen 1\n") && !populated(""));
        assert_eq!(pids("12\n0\n345\nx\n"), [Pid::from_raw(12), Pid::from_raw(345)]);
        assert_eq!(without("cpu memory pids\n"), "-cpu -memory -pids");
        assert_eq!(without("\n"), "");
    }
}
