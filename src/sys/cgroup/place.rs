//! Which group we are in, where that is in the file system, and whether systemd has marked it.

use nix::unistd::Pid;
use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

/// Returns our own group as the kernel names it.
pub(super) fn own() -> Option<PathBuf> {
    unified(&fs::read_to_string("/proc/self/cgroup").ok()?).map(PathBuf::from)
}

/// Returns the group of a process as the kernel names it.
pub(super) fn of(pid: Pid) -> Option<PathBuf> {
    unified(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?).map(PathBuf::from)
}

/// Reads the group of the one hierarchy of version 2 from `/proc/PID/cgroup`.
fn unified(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Returns where a group is in the file system.
pub(super) fn folder(group: &Path) -> Option<PathBuf> {
    // Some other mount point may be no valid text.
    let mountinfo = fs::read("/proc/self/mountinfo").ok()?;
    String::from_utf8_lossy(&mountinfo).lines().find_map(|line| mounted(line, group))
}

/// Returns where a group is if this line of `/proc/PID/mountinfo` (`proc_pid_mountinfo(5)`) is a mount that shows it:
/// that is all of the hierarchy, or a part in a container.
fn mounted(line: &str, group: &Path) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    if kind.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3).map(unescape);
    let (root, point) = (fields.next()?, fields.next()?);
    let group = group.strip_prefix(root).ok()?;
    // A group outside of our namespace's root.
    let is_outside = group.components().any(|part| part == Component::ParentDir);
    (!is_outside).then(|| point.iter().chain(group).collect())
}

/// Reads a path in which some characters are written as a backslash and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let (b'\\', Some(code)) = (first, code) {
            bytes.push(code);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    OsString::from_vec(bytes).into()
}

/// Whether systemd has marked this group as delegated.
pub(super) fn is_marked(folder: &Path) -> bool {
    let Ok(path) = CString::new(folder.as_os_str().as_bytes()) else {
        return false;
    };
    [c"user.delegate", c"trusted.delegate"].into_iter().any(|name| has_one(&path, name))
}

fn has_one(path: &CStr, name: &CStr) -> bool {
    let mut value = [0u8; 8];
    let room = value.as_mut_ptr().cast();
    // SAFETY: two C strings, and room for as many bytes as it says.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), room, value.len()) };
    length == 1 && value[0] == b'1'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_of_version_2_is_found_among_mounts() {
        let pure = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        let hybrid = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let part = r"50 24 0:26 /a.slice/b\134x2dc /mnt/my\040groups rw - cgroup2 cgroup2 rw";
        let at = |line, group| mounted(line, Path::new(group));
        assert_eq!(at(pure, "/a.service"), Some("/sys/fs/cgroup/a.service".into()));
        assert_eq!(at(hybrid, "/"), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(at(part, r"/a.slice/b\x2dc/main"), Some("/mnt/my groups/main".into()));
        assert_eq!(at(part, "/a.slice/other"), None);
        assert_eq!(at(pure, "/../a.service"), None);
        let first = "32 31 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        for other in [first, "", " - cgroup2", "1 2 3 / - cgroup2", "1 2 3 4 5 - ext4 x rw"] {
            assert_eq!(at(other, "/a.service"), None);
        }
    }

    #[test]
    fn our_own_group_is_that_of_version_2() {
        let hybrid = "8:pids:/x\n1:name=systemd:/y\n0::/a/b.service\n";
        assert_eq!(unified(hybrid), Some("/a/b.service"));
        assert_eq!(unified("8:pids:/x\n"), None);
    }

    #[test]
    fn escaped_paths_are_read() {
        assert_eq!(unescape(r"a\040b\134x2d"), Path::new(r"a b\x2d"));
        for plain in [r"\9", r"\04", r"\777", "\\"] {
            assert_eq!(unescape(plain), Path::new(plain));
        }
    }
}
