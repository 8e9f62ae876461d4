//! Files that others wrote: nothing that is read here makes us wait, or fills the memory.

use crate::config::launcher::Files;
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// No package.json is larger.
const MAX_PACKAGE: u64 = 4 << 20;

/// No configuration file is larger.
const MAX_CONFIG: u64 = 1 << 20;

/// Reads a configuration file.
///
/// # Errors
/// As open(2) and read(2); also when it is no regular file, larger than 1 MiB, or no text.
pub fn read_config(path: &Path) -> io::Result<String> {
    read_bounded(path, MAX_CONFIG)
}

/// What the search for a launcher's program looks at.
#[derive(Debug)]
pub struct Disk;

impl Files for Disk {
    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn package(&self, folder: &Path) -> Result<Option<String>, String> {
        match read_bounded(&folder.join("package.json"), MAX_PACKAGE) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.to_string()),
        }
    }
}

/// Opens a file. A pipe, on which somebody could let us wait, is refused.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

fn read_bounded(path: &Path, limit: u64) -> io::Result<String> {
    let mut bytes = vec![];
    let read = open_regular(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read > limit) {
        let reason = format!("larger than {} MiB", limit >> 20);
        return Err(io::Error::new(ErrorKind::FileTooLarge, reason));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "not UTF-8 text"))
}
