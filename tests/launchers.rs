//! `npm start` and its kin with `handoff = "node"`: the real program is started, as npm itself would start it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use support::primary::Setup;
use support::{dogwatch, skip, which};

/// The app is ready when it has said on the channel that it listens: it has the channel.
const RUN: [&str; 4] = ["--handoff", "node", "--settle", "0ms"];

/// Says how it was started, and stays.
const APP: &str = r#"#!/usr/bin/env node
const e = process.env;
const set = ["npm_lifecycle_event", "npm_lifecycle_script", "npm_package_name", "npm_package_version",
    "npm_package_config_port", "npm_package_json", "INIT_CWD", "GREETING"].map((name) => name + "=" + e[name]);
console.error("APP " + JSON.stringify([process.argv.slice(1), process.cwd(), set]));
if (!e.ONCE) require("http").createServer().listen({ fd: 3 });
"#;

/// An app with this script, and a program of that name among its packages.
fn write_app(folder: &Path, script: &str) {
    std::fs::write(folder.join("app.js"), APP).unwrap();
    let script = serde_json::json!({
        "name": "shop", "version": "1.2.3", "config": { "port": 80 },
        "scripts": { "start": script, "other": "node app.js other" },
    });
    std::fs::write(folder.join("package.json"), script.to_string()).unwrap();
    let bin = folder.join("node_modules/.bin");
    if !bin.exists() {
        std::fs::create_dir_all(&bin).unwrap();
        symlink("../../app.js", bin.join("shop")).unwrap();
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.join("app.js"), executable).unwrap();
    }
}

/// `dogwatch run` with this command in the folder of the app.
fn setup(command: &[&str]) -> Setup {
    let setup = Setup::new(&RUN);
    let folder = setup.folder().to_str().unwrap().to_owned();
    setup.arguments_after(&["--working-directory", &folder, "--"]).arguments_after(command)
}

/// What the app says when npm itself starts it.
fn under_npm(folder: &Path, command: &[&str]) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .current_dir(folder)
        .env("ONCE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.lines()
        .find(|line| line.starts_with("APP "))
        .unwrap_or_else(|| panic!("{said}"))
        .to_owned()
}

/// The only child beside the keeper.
fn only_worker(primary: Pid) -> Pid {
    let is_keeper = |pid: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim() == "dogwatch-keeper"
    };
    // The keeper takes its name when it runs for the first time.
    support::wait_for("the keeper and the worker", || {
        let children =
            std::fs::read_to_string(format!("/proc/{primary}/task/{primary}/children")).unwrap();
        let (keepers, workers): (Vec<&str>, Vec<&str>) =
            children.split_whitespace().partition(|pid| is_keeper(pid));
        let (1, [worker]) = (keepers.len(), workers.as_slice()) else { return None };
        Some(Pid::from_raw(worker.parse().unwrap()))
    })
}

#[test]
fn what_npm_would_start_is_started_as_npm_does() {
    if which("npm").is_none() && skip("npm") {
        return;
    }
    for (script, command) in [
        ("node app.js", &["npm", "start"][..]),
        (
            "GREETING='a b' shop one \"two three\" it\\'s",
            &["npm", "run", "start", "--", "-p", "$x 'y'"],
        ),
        ("npm run other -- more", &["npm", "--silent", "start"]),
        ("GREETING=$npm_package_name shop ${HOME:+home} 3>&2", &["npm", "start", "--", "a b"]),
        ("node -e 1 && cd node_modules && node ../app.js", &["npm", "start"]),
        ("node -e 'process.exit(1)' || npm run other", &["npm", "start"]),
    ] {
        let setup = setup(command);
        write_app(setup.folder(), script);
        let folder = setup.folder().canonicalize().unwrap();
        let expected = under_npm(&folder, command);
        let mut primary = setup.start();
        primary.says("would keep the channel for itself; starting '");
        let said = primary.says("APP ");
        assert_eq!(said[said.find("APP ").unwrap()..], expected, "{script}");
        primary.is_ready();
        primary.stop();
    }
}

#[test]
fn package_json_is_read_again_at_a_reload() {
    if which("node").is_none() && skip("node") {
        return;
    }
    let setup = setup(&["npm", "start"]);
    write_app(setup.folder(), "node app.js first");
    let mut primary = setup.start();
    primary.says("starting 'node app.js first' instead");
    primary.says("started: 1 of 1 slots are served");
    write_app(primary.folder.path(), "node app.js second");
    primary.signal(Signal::SIGHUP);
    primary.says("starting 'node app.js second' instead");
    primary.says("reload done");
    write_app(primary.folder.path(), "nodemon app.js");
    primary.signal(Signal::SIGHUP);
    let said = primary.says("reload refused");
    assert!(said.contains("cannot start 'npm start': "), "{said}");
    assert!(
        said.contains("package.json:1: 'nodemon' starts the program again by itself"),
        "{said}"
    );
    primary.says("hint: write command = [\"node\", \"app.js\"]");
    primary.stop();
}

#[test]
fn a_release_that_was_cleaned_up_is_found_where_it_is_now() {
    if which("node").is_none() && skip("node") {
        return;
    }
    let setup = Setup::new(&RUN);
    let folder = setup.folder().canonicalize().unwrap();
    for release in ["1", "2"] {
        std::fs::create_dir_all(folder.join(release).join("server")).unwrap();
        write_app(&folder.join(release).join("server"), "shop");
    }
    let current = folder.join("current");
    symlink("1", &current).unwrap();
    let run = ["--working-directory", current.to_str().unwrap(), "--"];
    let command = ["npm", "--prefix", "server", "start"];
    let mut primary = setup.arguments_after(&run).arguments_after(&command).start();
    let said = primary.says("APP ");
    assert!(said.contains(&format!("{}/1/server\"", folder.display())), "{said}");
    primary.is_ready();
    std::fs::remove_file(&current).unwrap();
    symlink("2", &current).unwrap();
    std::fs::remove_dir_all(folder.join("1")).unwrap();
    kill(only_worker(primary.pid()), Signal::SIGKILL).unwrap();
    let said = primary.says("APP ");
    assert!(said.contains(&format!("{}/2/server\"", folder.display())), "{said}");
    primary.stop();
}

#[test]
fn a_start_that_cannot_be_known_is_refused_with_the_files_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.toml");
    let says = |command: &str, package: Option<&[u8]>| {
        let at = folder.path().display();
        let text =
            format!("handoff = \"node\"\nworking-directory = \"{at}\"\ncommand = {command}\n");
        std::fs::write(&file, text).unwrap();
        let _ = std::fs::remove_file(folder.path().join("package.json"));
        package.inspect(|text| std::fs::write(folder.path().join("package.json"), text).unwrap());
        let output = Command::new(dogwatch()).arg("check").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap().replace(folder.path().to_str().unwrap(), "DIR")
    };
    assert_eq!(
        says("[\"npm\", \"start\"]", None),
        "dogwatch: DIR/shop.toml:3: 'command': cannot start 'npm start': there is no package.json in 'DIR'\n\
         hint: set 'working-directory' to the folder of the package\n"
    );
    let start = |package: &[u8]| says("[\"npm\", \"start\"]", Some(package));
    let cannot = "dogwatch: DIR/shop.toml:3: 'command': cannot start 'npm start': ";
    let not_json = format!("{cannot}DIR/package.json:2: not valid JSON: ");
    assert!(start(b"{\n").starts_with(&not_json));
    let cannot = format!("{cannot}cannot read 'DIR/package.json': ");
    assert_eq!(start(&vec![b' '; 50 << 20]), format!("{cannot}larger than 4 MiB\n"));
    assert_eq!(start(b"\xff\xfe"), format!("{cannot}not UTF-8 text\n"));
}

#[test]
fn without_the_channel_a_launcher_is_started_as_it_is() {
    let setup = Setup::new(&["--ready", "alive:100ms", "--settle", "0ms"]);
    let fake = setup.folder().join("npm");
    std::fs::write(&fake, "#!/bin/sh\necho npm itself $1 >&2\nexec sleep 60\n").unwrap();
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    let fake = fake.to_str().unwrap().to_owned();
    let mut primary = setup.arguments_after(&["--", &fake, "start"]).start();
    primary.says("npm itself start");
    primary.says("it stayed alive long enough");
    primary.stop();
}
