//! Paths, programs and ports of this machine, as they are found.

use super::facts::{Listening, Program, Step, Way};
use crate::config::Settings;
use crate::config::values::Address;
use crate::protocol::procfs;
use crate::sys::{process, spawn};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// More links than this on one way are a circle (`path_resolution(7)`).
const MAX_LINKS: u32 = 40;

/// Follows a path to its end, symlinks too.
pub(super) fn way(path: &Path) -> Way {
    let (mut way, mut links) = (Way::default(), 0);
    if let Err(e) = walk(Path::new("/"), path, &mut way.steps, &mut links) {
        way.trouble = Some(e.to_string());
        way.is_denied = e.kind() == io::ErrorKind::PermissionDenied;
    }
    way
}

fn walk(from: &Path, path: &Path, steps: &mut Vec<Step>, links: &mut u32) -> io::Result<PathBuf> {
    let mut at = from.to_owned();
    for component in path.components() {
        let next = match component {
            Component::RootDir | Component::Prefix(_) => PathBuf::from("/"),
            Component::CurDir => continue,
            Component::ParentDir => at.parent().unwrap_or(Path::new("/")).to_owned(),
            Component::Normal(name) => at.join(name),
        };
        let metadata = next.symlink_metadata()?;
        if metadata.is_symlink() {
            *links += 1;
            if *links > MAX_LINKS {
                return Err(io::Error::from_raw_os_error(nix::errno::Errno::ELOOP as i32));
            }
            at = walk(&at, &next.read_link()?, steps, links)?;
            continue;
        }
        steps.push(Step {
            path: next.clone(),
            mode: metadata.mode(),
            user: metadata.uid(),
            group: metadata.gid(),
            is_folder: metadata.is_dir(),
            has_acl: process::has_acl(&next),
        });
        at = next;
    }
    Ok(at)
}

/// Looks for the first word of a command as the primary does.
pub(super) fn program(settings: &Settings, directory: Option<&Path>, path: String) -> Program {
    let name = settings.command.first().cloned().unwrap_or_default();
    let found = spawn::find(&name, OsStr::new(&path), directory)
        .map(|found| directory.unwrap_or(Path::new("/")).join(found))
        .map_err(|e| e.to_string());
    let way = found.as_deref().map(way).unwrap_or_default();
    let interpreter = found.as_deref().ok().and_then(|file| interpreter(file, OsStr::new(&path)));
    let elsewhere = found.is_err().then(|| elsewhere(&name)).flatten();
    Program { name, path, found, way, interpreter, elsewhere }
}

/// What a script's first line names (`execve(2)`), or env(1) is to find, and whether that exists.
fn interpreter(script: &Path, path: &OsStr) -> Option<(String, bool)> {
    if !script.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return None;
    }
    let mut bytes = vec![];
    std::fs::File::open(script).ok()?.take(256).read_to_end(&mut bytes).ok()?;
    let line = String::from_utf8_lossy(bytes.strip_prefix(b"#!")?).into_owned();
    let mut words = line.lines().next()?.split_whitespace();
    let name = words.next()?;
    match words.next() {
        Some(program) if name == "/usr/bin/env" && !program.starts_with('-') => {
            Some((program.to_owned(), spawn::find(program, path, None).is_ok()))
        }
        Some(_) | None => Some((name.to_owned(), Path::new(name).exists())),
    }
}

/// Where people have programs that no service finds.
fn elsewhere(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return None;
    }
    let homes = std::fs::read_dir("/home").into_iter().flatten().flatten().map(|home| home.path());
    let homes = homes.chain([PathBuf::from("/root")]);
    let below = |folder: PathBuf, end: &str| {
        let versions = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut all: Vec<_> = versions.map(|version| version.path().join(end)).collect();
        all.sort();
        all.reverse();
        all
    };
    let of_home = |home: PathBuf| {
        let mut all = below(home.join(".nvm/versions/node"), "bin");
        let usual = [
            ".local/bin",
            ".cargo/bin",
            ".rbenv/shims",
            ".pyenv/shims",
            ".bun/bin",
            ".deno/bin",
            "bin",
        ];
        all.extend(usual.map(|folder| home.join(folder)));
        all
    };
    let callers = std::env::var_os("PATH");
    let callers = callers.iter().flat_map(std::env::split_paths).collect::<Vec<_>>();
    let all = callers.into_iter().chain(below("/opt".into(), "bin")).chain(homes.flat_map(of_home));
    all.map(|folder| folder.join(name)).find(|file| {
        file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
    })
}

/// Who listens at the addresses of an app.
pub(super) fn listening(wanted: &[Address]) -> Vec<Listening> {
    let mut inodes = BTreeMap::new();
    for (table, is_datagram) in [("tcp", false), ("tcp6", false), ("udp", true), ("udp6", true)] {
        let text = std::fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
        for (address, inode) in procfs::listening(&text) {
            if wanted.iter().any(|wanted| wanted.meets(&as_wanted(address, is_datagram))) {
                inodes.insert(inode, (address, is_datagram));
            }
        }
    }
    let holders = if inodes.is_empty() { BTreeMap::new() } else { holders(&inodes) };
    let one = |(inode, (address, is_datagram)): (&u64, &(SocketAddr, bool))| Listening {
        address: *address,
        is_datagram: *is_datagram,
        holder: holders.get(inode).cloned(),
    };
    inodes.iter().map(one).collect()
}

/// An address that was found, as one that could be wanted.
pub(super) fn as_wanted(address: SocketAddr, is_datagram: bool) -> Address {
    if is_datagram { Address::Udp(address) } else { Address::Tcp(address) }
}

/// Whose sockets these are; what the caller may not see is left out. Of several it is the first, who made it.
fn holders(inodes: &BTreeMap<u64, (SocketAddr, bool)>) -> BTreeMap<u64, String> {
    let mut found: BTreeMap<u64, (u32, String)> = BTreeMap::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered = |name: &OsStr| name.to_str().and_then(|name| name.parse::<u32>().ok());
    for pid in processes.filter_map(|entry| numbered(&entry.file_name())) {
        for fd in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let Ok(link) = fd.path().read_link() else { continue };
            let Some(inode) = link.to_str().and_then(procfs::socket_inode) else { continue };
            if inodes.contains_key(&inode)
                && found.get(&inode).is_none_or(|(known, _)| pid < *known)
            {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                found.insert(inode, (pid, format!("'{}' (pid {pid})", name.trim())));
            }
        }
    }
    found.into_iter().map(|(inode, (_, name))| (inode, name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_way_has_what_links_lead_to_and_ends_in_a_circle() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("releases/7")).unwrap();
        symlink("releases/7", base.join("current")).unwrap();
        symlink("circle", base.join("circle")).unwrap();
        let found = way(&base.join("current"));
        assert_eq!(found.end().unwrap().path, base.join("releases/7"));
        assert!(found.steps.iter().any(|step| step.path == base && step.is_folder));
        assert!(way(&base.join("circle")).trouble.is_some());
        let missing = way(&base.join("releases/8/x"));
        assert!(missing.end().is_none() && !missing.is_denied && missing.steps.len() > 2);
    }

    #[test]
    fn a_script_names_its_interpreter() {
        let folder = tempfile::tempdir().unwrap();
        let named = |text: &str| {
            let file = folder.path().join("script");
            std::fs::write(&file, text).unwrap();
            interpreter(&file, OsStr::new("/usr/bin:/bin"))
        };
        assert_eq!(named("#!/bin/sh -e\n"), Some(("/bin/sh".to_owned(), true)));
        assert_eq!(named("#! /no/such\n"), Some(("/no/such".to_owned(), false)));
        assert_eq!(
            named("#!/usr/bin/env nosuch-program\n"),
            Some(("nosuch-program".to_owned(), false))
        );
        assert_eq!(named("#!/usr/bin/env -S sh\n"), Some(("/usr/bin/env".to_owned(), true)));
        assert_eq!(named("\x7fELF"), None);
        assert_eq!(named("#!"), None);
        assert_eq!(interpreter(folder.path(), OsStr::new("/bin")), None);
    }

    #[test]
    fn who_listens_is_found_with_its_program() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let found = listening(&[Address::Tcp(address), Address::Unix("/x".into())]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].address, found[0].is_datagram), (address, false));
        let holder = found[0].holder.as_ref().unwrap();
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
    }
}
