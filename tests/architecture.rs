//! The direction of knowledge, held by reading every `use` of the crate: who may know whom.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// A room, and the rooms that it may name.
const MAY_KNOW: [(&str, &[&str]); 7] = [
    ("core", &[]),
    ("protocol", &[]),
    ("sys", &[]),
    ("config", &["core"]),
    ("primary", &["core", "protocol", "config", "sys"]),
    ("demo", &["config"]),
    ("cli", &["core", "protocol", "config", "sys", "primary", "demo"]),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn every_room_knows_only_those_it_may() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = vec![];
    for (room, known) in MAY_KNOW {
        for file in sources(&root.join(room)) {
            let text = std::fs::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate() {
                for named in line.split("crate::").skip(1) {
                    let named: String =
                        named.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    if named != room && !known.contains(&named.as_str()) {
                        wrong.push(format!(
                            "{}:{}: {room} knows {named}",
                            file.display(),
                            number + 1
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_rooms_touch_neither_world_nor_clock() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let worldly = [
        "std::fs",
        "std::env",
        "std::os::",
        "std::process",
        "Instant",
        "SystemTime",
        "tokio",
        "libc::",
        "unsafe ",
    ];
    for room in ["core", "protocol", "config"] {
        for file in sources(&root.join(room)) {
            let text = std::fs::read_to_string(&file).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for line in code {
                for word in worldly {
                    assert!(!line.contains(word), "{}: {line}", file.display());
                }
            }
        }
    }
}

#[test]
fn every_room_is_on_the_list() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in std::fs::read_dir(root).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        let room = entry.file_name().to_string_lossy().into_owned();
        assert!(MAY_KNOW.iter().any(|(known, _)| *known == room), "{room} is on no list");
    }
}
