//! The packages that `packaging/build --debug` has made, which tests/run asks for.

use super::skip;
use std::path::{Path, PathBuf};

/// The version of this tree, and one that comes after it, of the same program.
pub(crate) const VERSIONS: [&str; 2] = [env!("CARGO_PKG_VERSION"), "99.0.0"];

/// Where they are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/packages/debug")
}

/// The packages of both versions, with this ending.
pub(crate) fn both(ending: &str) -> Option<[PathBuf; 2]> {
    let files = || std::fs::read_dir(folder()).into_iter().flatten().flatten();
    let found = VERSIONS.map(|version| {
        let is_it = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let rest = name.strip_prefix("dogwatch").and_then(|name| name.get(1..));
            rest.is_some_and(|rest| rest.starts_with(&format!("{version}-1")))
                && name.ends_with(ending)
        };
        files().map(|file| file.path()).find(is_it)
    });
    let [Some(this), Some(later)] = found else {
        skip(&format!("packages, {ending} (made by packaging/build --debug)"));
        return None;
    };
    Some([this, later])
}
