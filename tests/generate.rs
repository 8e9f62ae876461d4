//! `dogwatch-generator` as systemd starts it: three directories, an environment, and nothing else that it may touch.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::dogwatch;

/// A home with files of dogwatch, and the three directories of a generator.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config/dogwatch", "run", "normal", "early", "late"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let generator = folder.path().join("dogwatch-generator");
        std::os::unix::fs::symlink(dogwatch(), generator).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path("config/dogwatch").join(name), text).unwrap();
        self
    }

    /// Starts it as a user's manager does, which reads the files of that user.
    fn generate(&self) -> Output {
        let output = Command::new("timeout")
            .arg("20")
            .arg(self.path("dogwatch-generator"))
            .args(["normal", "early", "late"].map(|name| self.path(name)))
            .env_clear()
            .env("SYSTEMD_SCOPE", "user")
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .output()
            .unwrap();
        assert!(output.stdout.is_empty());
        output
    }

    /// Every path below the folder but the files of dogwatch, with what a file says or where a link goes.
    fn tree(&self) -> BTreeMap<PathBuf, String> {
        let mut all = BTreeMap::new();
        let mut todo = vec![self.folder.path().to_owned()];
        while let Some(folder) = todo.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let kind = entry.file_type().unwrap();
                let name = entry.path().strip_prefix(self.folder.path()).unwrap().to_owned();
                if kind.is_dir() {
                    todo.push(entry.path());
                } else if kind.is_symlink() {
                    let to = fs::read_link(entry.path()).unwrap();
                    all.insert(name, to.to_string_lossy().into_owned());
                } else if kind.is_file() {
                    let bytes = fs::read(entry.path()).unwrap();
                    all.insert(name, String::from_utf8_lossy(&bytes).into_owned());
                }
            }
        }
        all
    }
}

fn on_port(port: u16) -> String {
    format!("command = [\"x\"]\nlisten = [\"{port}\"]\n")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn each_file_gets_its_units_below_the_first_directory_and_nothing_else_is_touched() {
    let host = Host::new();
    host.file("shop.toml", on_port(8080) + "enabled = true\n").file("api.toml", on_port(8081));
    host.file(".hidden.toml", on_port(1)).file("api.toml~", on_port(2)).file("notes.txt", "");
    host.file("by-hand.toml", "command = [\"x\"]\n");
    let before = host.tree();
    let output = host.generate();
    assert_eq!((output.status.code(), said(&output)), (Some(0), String::new()));
    let after = host.tree();
    let new: Vec<&str> = after
        .keys()
        .filter(|path| !before.contains_key(*path))
        .map(|path| path.to_str().unwrap())
        .collect();
    assert_eq!(
        new,
        [
            "normal/api.service",
            "normal/api.socket",
            "normal/default.target.wants/shop.service",
            "normal/shop.service",
            "normal/shop.socket",
            "normal/sockets.target.wants/shop.socket",
        ]
    );
    assert!(before.iter().all(|(path, text)| after[path] == *text));
    let wants = host.path("normal/sockets.target.wants/shop.socket");
    assert_eq!(
        fs::canonicalize(wants).unwrap(),
        fs::canonicalize(host.path("normal/shop.socket")).unwrap()
    );
    let service = fs::read_to_string(host.path("normal/shop.service")).unwrap();
    let file = host.path("config/dogwatch/shop.toml");
    assert!(service.contains(&format!("SourcePath={}\n", file.display())), "{service}");
}

#[test]
fn bad_files_and_hostile_names_are_said_and_the_others_work() {
    let host = Host::new();
    for port in 0..100 {
        host.file(&format!("app{port}.toml"), on_port(9000 + port));
    }
    for (number, name) in
        ["a@b", "-x", "caf\u{e9}", "a b", "a\nb", "\u{202e}x", "..", "x%n", "a\\x2fb"]
            .into_iter()
            .enumerate()
    {
        host.file(&format!("{name}.toml"), on_port(7000 + u16::try_from(number).unwrap()));
    }
    host.file("long.toml", on_port(6999));
    fs::rename(
        host.path("config/dogwatch/long.toml"),
        host.path("config/dogwatch").join(format!("{}.toml", "x".repeat(100))),
    )
    .unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe.toml");
    fs::write(host.path("config/dogwatch").join(odd), on_port(6998)).unwrap();
    host.file("bomb.toml", format!("a = {}", "[".repeat(200_000)));
    host.file("braces.toml", format!("a = {}", "{a=".repeat(100_000)));
    host.file("dots.toml", format!("{}a = 1", "a.".repeat(100_000)));
    host.file("zero.toml", vec![0; 2000]);
    host.file("large.toml", vec![b'#'; 2 << 20]);
    host.file("latin.toml", b"# caf\xe9\n");
    host.file("unknown.toml", on_port(6000) + "instances = 4\n");
    host.file("thief.toml", on_port(9000));
    nix::unistd::mkfifo(&host.path("config/dogwatch/pipe.toml"), nix::sys::stat::Mode::S_IRWXU)
        .unwrap();
    fs::create_dir(host.path("config/dogwatch/folder.toml")).unwrap();
    std::os::unix::fs::symlink("loop.toml", host.path("config/dogwatch/loop.toml")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", host.path("config/dogwatch/device.toml")).unwrap();
    let output = host.generate();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for file in [
        "a@b",
        "-x",
        "caf\u{e9}",
        "a b",
        "x%n",
        "bomb",
        "braces",
        "dots",
        "zero",
        "large",
        "latin",
        "unknown",
        "thief",
        "pipe",
        "folder",
        "loop",
        "device",
    ] {
        assert!(said.contains(&format!("cannot make units for '{file}': ")), "{file}\n{said}");
    }
    assert!(said.contains("thief.toml:2: 'listen': '9000' is that of 'app0' ("), "{said}");
    assert!(said.contains("unknown.toml:3: unknown key 'instances'"), "{said}");
    let mut units: Vec<_> = fs::read_dir(host.path("normal"))
        .unwrap()
        .flatten()
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    units.sort();
    let mut wanted: Vec<String> =
        (0..100).flat_map(|n| [format!("app{n}.service"), format!("app{n}.socket")]).collect();
    // A manager that has no journal yet says it later.
    if !Path::new("/run/systemd/journal/socket").exists() {
        wanted.extend(["default.target.wants".to_owned(), "dogwatch-refused.service".to_owned()]);
    }
    wanted.sort();
    assert_eq!(units, wanted);
}

#[test]
fn a_service_that_runs_keeps_its_units_whatever_becomes_of_its_file() {
    let host = Host::new();
    host.file("shop.toml", on_port(8080));
    host.generate();
    // As the socket does when it begins to listen.
    let notes = host.path("run/dogwatch-units");
    fs::create_dir_all(&notes).unwrap();
    for unit in ["shop.socket", "shop.service"] {
        fs::copy(host.path("normal").join(unit), notes.join(unit)).unwrap();
    }
    let nested = format!("a = {}\n", "[".repeat(100_000));
    let file = host.path("config/dogwatch/shop.toml");
    for bad in ["instances = 4\n", "listen = [9090]\n", "[service\n", &nested, "\0", "gone"] {
        host.file("shop.toml", on_port(8080) + bad);
        if bad == "gone" {
            fs::remove_file(&file).unwrap();
        }
        fs::remove_dir_all(host.path("normal")).unwrap();
        fs::create_dir(host.path("normal")).unwrap();
        let output = host.generate();
        let said = said(&output);
        assert!(said.contains("the app is there, so it keeps the units that it has"), "{said}");
        for unit in ["shop.socket", "shop.service"] {
            let text = |folder: &Path| fs::read_to_string(folder.join(unit)).unwrap();
            assert_eq!(text(&host.path("normal")), text(&notes), "{bad}");
        }
    }
    host.file("shop.toml", on_port(9090));
    assert!(
        said(&host.generate())
            .contains("'shop' listens elsewhere than its file says, until it is stopped: ")
    );
    let socket = fs::read_to_string(host.path("normal/shop.socket")).unwrap();
    assert!(socket.contains("\nListenStream=8080\n"), "{socket}");
}

#[test]
fn what_would_be_refused_is_no_good_file() {
    let host = Host::new();
    host.file("shop.toml", "command = [\"sh\"]\nlisten = [\"80\", \"80\"]\n");
    let file = host.path("config/dogwatch/shop.toml");
    let output = Command::new(dogwatch()).arg("check").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let reason = ":2: 'listen': '80' and '80' are the same address\n";
    assert_eq!(said(&output), format!("dogwatch: {}{reason}", file.display()));
}

/// Says what `check` says of these files, as somebody whose own files are in `config`.
fn check(host: &Host, folder: &Path, files: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(dogwatch())
        .arg("check")
        .args(files)
        .current_dir(folder)
        .env("XDG_CONFIG_HOME", host.path("config"))
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &said(&output))
}

#[test]
fn a_file_is_good_where_the_generator_makes_units_of_it() {
    let host = Host::new();
    let with = |port, more: &str| on_port(port).replace('x', "sh") + more;
    host.file("a.toml", with(80, "[sandbox]\ntmp = true\n")).file("b.toml", with(80, ""));
    host.file("we ird.toml", with(81, "")).file("a@b.toml", with(82, ""));
    host.file("by hand.toml", "command = [\"sh\"]\n")
        .file("own.toml", with(83, "user = \"joe\"\n"));
    let folder = host.path("config/dogwatch");
    // Beside all that stand there.
    let (code, said) = check(&host, &folder, &["b.toml"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("b.toml:2: 'listen': '80' is that of 'a' ("), "{said}");
    // A user's own need no user.
    let (code, said) = check(&host, &folder, &["a.toml", "own.toml", "we ird.toml", "a@b.toml"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.starts_with("a.toml: good, 1 worker of 'sh'\ndogwatch: "), "{said}");
    assert!(said.contains("own.toml:3: 'user': a user's own service runs as that user"), "{said}");
    for name in ["we ird", "a@b"] {
        assert!(said.contains(&format!("dogwatch: '{name}' cannot be the name of ")), "{said}");
    }
    assert!(said.contains("\nhint: call the file something else\n"), "{said}");
    assert_eq!(
        check(&host, &folder, &["by hand.toml"]),
        (
            Some(0),
            "by hand.toml: good, 1 worker of 'sh'; without 'listen' it gets no units\n".to_owned()
        )
    );
}

#[test]
fn files_that_are_elsewhere_are_good_beside_each_other() {
    let host = Host::new();
    let with = |port| on_port(port).replace('x', "sh");
    for (name, port) in [("a", 80), ("b", 80), ("c", 81), ("a@b", 82)] {
        fs::write(host.path("run").join(format!("{name}.toml")), with(port)).unwrap();
        fs::write(host.path("normal").join(format!("{name}.toml")), with(port)).unwrap();
    }
    let folder = host.path("run");
    let good = |name: &str| format!("{name}.toml: good, 1 worker of 'sh'\n");
    assert_eq!(check(&host, &folder, &["b.toml"]), (Some(0), good("b")));
    assert_eq!(check(&host, &folder, &["b.toml", "c.toml", "b.toml"]).0, Some(0));
    assert_eq!(check(&host, &folder, &["b.toml", "../normal/a.toml"]).0, Some(0));
    let (code, said) = check(&host, &folder, &["b.toml", "a.toml"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("dogwatch: b.toml:2: 'listen': '80' is that of 'a' (a.toml)"), "{said}");
    let (code, said) = check(&host, &folder, &["a@b.toml"]);
    assert!(code == Some(2) && said.contains("'a@b' cannot be the name of a unit"), "{said}");
    // It may be meant for a program that knows no units.
    assert_eq!(check(&host, &folder, &["--run", "a@b.toml", "a.toml", "b.toml"]).0, Some(0));
    let relative = with(80) + "environment-files = [\"x.env\"]\n";
    fs::write(folder.join("a.toml"), relative).unwrap();
    fs::write(folder.join("x.env"), "").unwrap();
    let (code, said) = check(&host, &folder, &["a.toml"]);
    let wrong = "a.toml:3: 'environment-files': 'x.env' is no absolute path";
    assert!(code == Some(2) && said.contains(wrong), "{said}");
}

#[test]
fn it_shows_what_it_would_write() {
    let host = Host::new();
    host.file("shop.toml", on_port(8080))
        .file("bad.toml", on_port(8080))
        .file("none.toml", "command = [\"x\"]");
    let show = |arguments: &[&str]| {
        let mut command = Command::new("timeout");
        command.arg("20").arg(dogwatch()).arg("generate").args(arguments);
        command.arg("--from").arg(host.path("config/dogwatch")).output().unwrap()
    };
    let output = show(&["--dry-run", "--app", "shop"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let output = show(&["--dry-run"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("### bad.socket\n# Made from "), "{text}");
    let said_of = said(&output);
    assert!(said_of.contains("'8080' is that of 'bad' ("), "{said_of}");
    assert!(
        said_of.contains("'none' names no address to 'listen' on: it gets no units"),
        "{said_of}"
    );
    assert_eq!(show(&["--dry-run", "--app", "none"]).status.code(), Some(0));
    for way in ["--dry-run", "--refused"] {
        let output = show(&[way, "--app", "nosuch"]);
        assert_eq!(output.status.code(), Some(2));
        let path = host.path("config/dogwatch/nosuch.toml");
        let text = format!("cannot make units for 'nosuch': there is no '{}'", path.display());
        assert_eq!(said(&output), format!("dogwatch: {text}\n"));
    }
    let output =
        Command::new(dogwatch()).args(["generate", "--dry-run", "--from", "/nonexistent"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).starts_with("dogwatch: cannot read directory '/nonexistent': No such"));
    let output = show(&["--refused"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    let output = show(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        said(&output),
        "dogwatch: cannot write units: nobody says where\nhint: name a directory to write into, or say '--dry-run'\n"
    );
    assert!(fs::read_dir(host.path("normal")).unwrap().next().is_none());
}
