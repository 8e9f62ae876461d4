//! Bad input at start: one clear line, at most one hint, exit code 2, and nothing was begun.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::Command;
use support::dogwatch;

/// Runs `dogwatch` with these arguments in a folder and returns its exit code and what it said.
fn refusal(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new("timeout")
        .arg("20")
        .arg(dogwatch())
        .args(arguments)
        .current_dir(folder)
        .env("RUNTIME_DIRECTORY", folder)
        .output()
        .unwrap();
    assert!(output.stdout.is_empty(), "nothing on standard output");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn bad_settings_are_refused_with_file_line_key_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str], &str); 12] = [
        (
            "instances = 4\n",
            &[],
            "dogwatch: app.toml:1: unknown key 'instances', expected one of 'command', 'workers', 'listen', \
             'working-directory', 'env', 'environment-files', 'blocking', 'handoff', 'balance', 'description', 'enabled', \
             'user', 'group', 'ready', 'stop', 'restart', 'watchdog', 'reload', 'log', 'control', 'sandbox', 'unit', \
             'service', 'socket'\nhint: it is called 'workers' here\n",
        ),
        (
            "command = [\"/bin/true\"]\n\n[stop]\ndrain = 30\n",
            &[],
            "dogwatch: app.toml:4: 'stop.drain': invalid type: integer '30', expected a string like '30s'\n",
        ),
        (
            "workers = 2\n",
            &[],
            "dogwatch: app.toml: no command: nothing says which program to run\n\
             hint: write it after '--', or as 'command = [\"PROGRAM\", \"ARGUMENT\"]' in the file\n",
        ),
        (
            "command = [\"/bin/true\"]\n",
            &[],
            "dogwatch: no listener: no socket was passed and no address is named\n\
             hint: name an address with '-l 8080' or 'listen = [\"8080\"]', or start 'app.socket'\n",
        ),
        (
            "command = [\"no-such-program\"]\n",
            &["-l", "127.0.0.1:0", "--env", "PATH=/usr/bin"],
            "dogwatch: app.toml:1: 'command': cannot find program 'no-such-program': No such file or directory (os error 2)\n\
             hint: it was looked for on PATH, which is /usr/bin\n",
        ),
        (
            "command = [\"/bin/true\"]\nworking-directory = \"/no/such/place\"\n",
            &["-l", "127.0.0.1:0"],
            "dogwatch: app.toml:2: 'working-directory': cannot enter working directory '/no/such/place': No such file or directory (os error 2)\n",
        ),
        (
            "command = [\"/bin/true\"]\nenvironment-files = [\"/no/such.env\"]\n",
            &["-l", "127.0.0.1:0"],
            "dogwatch: app.toml:2: 'environment-files': cannot read environment file '/no/such.env': No such file or directory (os error 2)\n",
        ),
        (
            "command = [\"/bin/true\"]\n",
            &["-l", "192.0.2.1:80"],
            "dogwatch: cannot listen on '192.0.2.1:80': Cannot assign requested address (os error 99)\n",
        ),
        (
            "command = [\"/bin/true\"]\n[ready]\nmin = 2\n",
            &[],
            "dogwatch: app.toml:3: 'ready.min': more than the number of workers, which is 1\n",
        ),
        (
            "command = [\"/bin/true\"]\n[ready]\nfd = 3\n",
            &["-l", "127.0.0.1:0"],
            "dogwatch: 'ready.fd': 3 is taken by a socket, expected a number from 4 up\n",
        ),
        (
            "command = [\"/bin/true\"]\n",
            &["--name", "a/b"],
            "dogwatch: 'a/b' cannot be the name of an app, expected letters, digits, '-', '_', '.' and '@', at most 40\n\
             hint: name the app with '--name'\n",
        ),
        (
            "command = \"node server.js\"\n",
            &[],
            "dogwatch: app.toml:1: 'command': invalid type: string \"node server.js\", expected a list like [\"a\", \"b\"]\n",
        ),
    ];
    for (text, flags, expected) in cases {
        std::fs::write(folder.path().join("app.toml"), text).unwrap();
        let arguments = [&["run", "--config", "app.toml"], flags].concat();
        assert_eq!(refusal(folder.path(), &arguments), (Some(2), expected.to_owned()), "{text}");
    }
    let missing = refusal(folder.path(), &["run", "--config", "none.toml"]);
    assert_eq!(
        missing,
        (
            Some(2),
            "dogwatch: cannot read 'none.toml': No such file or directory (os error 2)\n"
                .to_owned()
        )
    );
}

#[test]
fn bad_flags_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (code, said) = refusal(folder.path(), &["run", "--drain", "30", "--", "/bin/true"]);
    assert_eq!(code, Some(2));
    assert!(
        said.starts_with(
            "error: invalid value '30' for '--drain <TIME>': '30' is not a duration, expected one like '30s', '500ms' or '2min'"
        ),
        "{said}"
    );
    // A flag's fault is not the file's.
    std::fs::write(
        folder.path().join("app.toml"),
        "command = [\"/bin/true\"]\n[reload]\nsurge = 2\n",
    )
    .unwrap();
    let refused = refusal(folder.path(), &["run", "-c", "app.toml", "--surge", "0"]);
    let expected = "dogwatch: 'reload.surge': at least one slot must be relieved at a time\n";
    assert_eq!(refused, (Some(2), expected.to_owned()));
    let (code, said) = refusal(folder.path(), &["run", "--workrs", "3"]);
    assert_eq!(code, Some(2));
    assert!(
        said.contains("unexpected argument '--workrs' found") && said.contains("'--workers'"),
        "{said}"
    );
}

/// Passes one socket as fd 3 and returns what is said.
fn passing(socket: impl Into<OwnedFd>, names: &str) -> (Option<i32>, String) {
    let socket = socket.into();
    nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let number = socket.as_raw_fd();
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "[ {number} = 3 ] || exec 3<&{number}; LISTEN_PID=$$ LISTEN_FDS=1 {names} exec \"$@\""
    );
    let output = Command::new("timeout")
        .args(["20", "bash", "-c", &script, "bash"])
        .arg(dogwatch())
        .args(["run", "--name", "app", "--", "/bin/true"])
        .env("RUNTIME_DIRECTORY", folder.path())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_is_passed_and_does_not_listen_is_refused_by_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(
        passing(client, "LISTEN_FDNAMES=web"),
        (
            Some(2),
            "dogwatch: cannot adopt listener 'web': file descriptor 3 is not a listening socket\n"
                .to_owned()
        )
    );
    let file = std::fs::File::open("/dev/null").unwrap();
    let (code, said) = passing(file, "LISTEN_FDNAMES=web");
    assert_eq!(code, Some(2));
    assert!(
        said.starts_with("dogwatch: cannot adopt listener 'web': file descriptor 3: "),
        "{said}"
    );
    // A datagram socket has nothing to listen for, and is fine; /bin/true is not, and is given up.
    let (code, said) = passing(UdpSocket::bind("127.0.0.1:0").unwrap(), "");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("dogwatch: adopted 'unknown' 127.0.0.1:"), "{said}");
}
