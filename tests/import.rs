//! `dogwatch import` with real process files of PM2's, and with files that are none.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};
use support::{dogwatch, skip, which};

/// What a run said: its exit code, standard output and standard error.
struct Said(Option<i32>, String, String);

fn run(command: &mut Command) -> Said {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said(status.code(), text(stdout), text(stderr))
}

fn import(folder: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new("timeout");
    command.arg("60").arg(dogwatch()).arg("import").args(arguments).current_dir(folder);
    // What a shell would say; the test's own says where it was started.
    run(command.env("PWD", folder).env_remove("PM2_KILL_SIGNAL").env_remove("NVM_DIR"))
}

/// A folder with a process file and what its apps run.
fn shop(name: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("dist")).unwrap();
    std::fs::write(folder.path().join("dist/server.js"), "").unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    folder
}

/// A file without its comments and empty lines.
fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

fn no_node() -> bool {
    which("node").is_none() && skip("no node")
}

#[test]
fn all_of_pm2s_formats_are_read() {
    if no_node() {
        return;
    }
    let app = r#"{ name: "api", script: "dist/server.js", instances: "4", env: { NODE_ENV: "production" } }"#;
    let yaml = "apps:\n  - &api\n    name: api\n    script: dist/server.js\n    instances: '4'\n    env:\n      NODE_ENV: production\n";
    let json = r#"{"apps": [{"name": "api", "script": "dist/server.js", "instances": "4", "env": {"NODE_ENV": "production"}}]}"#;
    let cases = [
        (
            "ecosystem.config.js",
            format!("console.log('noise'); module.exports = {{ apps: [{app}] }};"),
        ),
        ("ecosystem.config.cjs", format!("exports.apps = {app}; setInterval(() => {{}}, 1000);")),
        ("ecosystem.config.mjs", format!("export default {{ apps: [{app}] }};")),
        ("named.mjs", format!("await null; export const apps = [{app}];")),
        ("list.js", format!("module.exports = [{app}];")),
        ("one.js", format!("module.exports = {app};")),
        (
            "noisy.js",
            format!(
                "require('child_process').execSync('echo out; echo err >&2; cat', {{ stdio: 'inherit' }});\n\
                 process.stdin.resume(); process.stdout.write('{{}}\\n'); module.exports = {app};"
            ),
        ),
        ("process.json", json.to_owned()),
        (
            "comments.json",
            format!("// PM2 takes this\n{{ apps: [{app},], /* and that */ }} // too"),
        ),
        ("bom.json", format!("\u{feff}{json}")),
        ("package.json", json.replace("\"apps\"", "\"name\": \"shop\", \"pm2\"")),
        ("process.yml", yaml.to_owned()),
        ("process.yaml", format!("# comment\n{yaml}")),
    ];
    for (name, text) in cases {
        let folder = shop(name, &text);
        let Said(code, out, err) = import(folder.path(), &[name]);
        // Nothing says its port.
        let is_alone = err.starts_with("api: listen: ") && err.lines().count() == 1;
        assert_eq!((code, is_alone), (Some(0), true), "{name}: {out}{err}");
        let directory = format!("working-directory = \"{}\"", folder.path().display());
        let expected = [
            "command = [\"node\", \"dist/server.js\"]",
            "workers = 4",
            &directory,
            "handoff = \"node\"",
            "[env]",
            "NODE_ENV = \"production\"",
            "[stop]",
            "signal = \"SIGINT\"",
        ];
        assert_eq!(lines(&out), expected, "{name}");
    }
}

#[test]
fn a_module_of_a_package_of_modules_is_read() {
    if no_node() {
        return;
    }
    let folder =
        shop("ecosystem.config.js", "export default { apps: [{ script: 'dist/server.js' }] };");
    std::fs::write(folder.path().join("package.json"), r#"{"type": "module"}"#).unwrap();
    let Said(code, out, err) = import(folder.path(), &["ecosystem.config.js"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("command = [\"node\", \"dist/server.js\"]"), "{out}");
}

#[test]
fn what_is_written_passes_check() {
    if no_node() {
        return;
    }
    let folder = shop(
        "ecosystem.config.js",
        r#"module.exports = {
            apps: [
                { name: "api", script: "dist/server.js", instances: "max", port: 3000, wait_ready: true,
                  listen_timeout: 8000, kill_timeout: 5000, shutdown_with_message: true, max_restarts: 10,
                  exp_backoff_restart_delay: 100, watch: true, error_file: "e.log",
                  env: { A: "{slot}", F() {}, "x-y": 1 }, env_production: { NODE_ENV: "production" } },
                { name: "../mail worker", script: "/bin/sh", args: ["-c", "sleep 1"] },
                { name: "files", script: "serve" },
            ],
            deploy: { production: { env: { REGION: "eu" } } },
            static: [{ port: 1 }],
            extra: 1,
        };"#,
    );
    let out = folder.path().join("out/dogwatch");
    let arguments = ["ecosystem.config.js", "--env", "production", "-o", "out/dogwatch"];
    let Said(code, said, remarks) = import(folder.path(), &arguments);
    assert_eq!(code, Some(0), "{remarks}");
    assert_eq!(said, "wrote out/dogwatch/api.toml\nwrote out/dogwatch/mail-worker.toml\n");
    for remark in [
        "deploy: ",
        "static: ",
        "extra: unknown to PM2 too",
        "app 'files': 'serve' is PM2's own file server",
        "api: listen_timeout: ",
        "api: watch: nothing is watched",
        "api: error_file: ",
        "api: env.A: dogwatch puts the slot's number",
        "api: env.F: it is a function, and left out",
        "api: env.x-y: cannot be the name of a variable",
        "mail-worker: name: '../mail worker' cannot be",
    ] {
        let count = remarks.lines().filter(|line| line.starts_with(remark)).count();
        assert_eq!(count, 1, "{remark}\n{remarks}");
    }
    for (name, program) in
        [("api.toml", "node dist/server.js"), ("mail-worker.toml", "/bin/sh -c sleep 1")]
    {
        let Said(code, said, err) = run(Command::new(dogwatch()).arg("check").arg(out.join(name)));
        assert_eq!(code, Some(0), "{err}");
        assert!(said.contains(&format!("of '{program}'")), "{said}");
        let text = std::fs::read_to_string(out.join(name)).unwrap();
        assert!(text.contains("REGION = \"eu\""), "{text}");
    }
}

#[test]
fn nothing_is_written_over_unless_that_is_wanted() {
    let text =
        r#"[{"name": "a", "script": "dist/server.js"}, {"name": "b", "script": "dist/server.js"}]"#;
    let folder = shop("process.json", text);
    let path = folder.path();
    // What only the owner may read is not told to others.
    std::fs::set_permissions(path.join("process.json"), std::fs::Permissions::from_mode(0o600))
        .unwrap();
    std::fs::write(path.join("b.toml"), "mine").unwrap();
    let Said(code, out, err) = import(path, &["process.json", "-o", "."]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(
        err,
        "dogwatch: cannot write './b.toml': it is there already; nothing was written\n\
         hint: '--force' writes over it, '-o' names another directory\n"
    );
    assert!(!path.join("a.toml").exists());
    let Said(code, _, err) = import(path, &["process.json", "-o", ".", "--force"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(std::fs::read_to_string(path.join("b.toml")).unwrap().contains("command = "));
    let mode = path.join("a.toml").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    symlink("/no/such/target", path.join("c.toml")).unwrap();
    std::fs::write(path.join("c.json"), r#"{"name": "c", "script": "x.js"}"#).unwrap();
    let Said(code, _, err) = import(path, &["c.json", "-o", "."]);
    assert_eq!(code, Some(1), "{err}");
    let Said(code, _, err) = import(path, &["c.json", "-o", "process.json"]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("dogwatch: cannot write 'process.json': "), "{err}");
    let Said(code, _, _) = import(path, &["c.json", "--force"]);
    assert_eq!(code, Some(2), "there is nothing to be forced");
}

#[test]
fn several_apps_are_printed_under_their_files_names() {
    let text =
        r#"[{"name": "a", "script": "dist/server.js"}, {"name": "b", "script": "dist/server.js"}]"#;
    let folder = shop("process.json", text);
    let Said(code, out, _) = import(folder.path(), &["process.json"]);
    assert_eq!(code, Some(0));
    let heads: Vec<&str> = out.lines().filter(|line| line.starts_with("# ----")).collect();
    assert_eq!(heads, ["# ---- a.toml ----", "# ---- b.toml ----"]);
}

#[test]
fn a_directory_that_deploys_switch_stays_a_symlink() {
    let folder = shop("process.json", r#"{"script": "dist/server.js"}"#);
    let current = folder.path().with_extension("current");
    symlink(folder.path(), &current).unwrap();
    let Said(code, out, _) = import(&current, &["process.json"]);
    std::fs::remove_file(&current).unwrap();
    assert_eq!(code, Some(0));
    let expected = format!("working-directory = \"{}\"", current.display());
    assert!(out.contains(&expected), "{expected}\n{out}");
}

#[test]
fn the_signal_that_pm2_was_told_is_taken() {
    let folder = shop("process.json", r#"{"script": "dist/server.js"}"#);
    let with = |signal: &str| {
        let mut command = Command::new(dogwatch());
        let command = command.args(["import", "process.json"]).current_dir(folder.path());
        run(command.env("PM2_KILL_SIGNAL", signal))
    };
    assert!(with("SIGTERM").1.contains("signal = \"SIGTERM\""));
    let Said(code, _, err) = with("SIGNIX");
    assert_eq!(code, Some(2));
    assert!(err.contains("'PM2_KILL_SIGNAL': 'SIGNIX' is no signal"), "{err}");
}

/// One line, at most one hint, exit code 2.
fn refusal(name: &str, text: &str, arguments: &[&str]) -> String {
    let folder = shop(name, text);
    let Said(code, out, err) = import(folder.path(), &[&[name], arguments].concat());
    assert_eq!((code, out.as_str()), (Some(2), ""), "{name}: {err}");
    let said = err.strip_prefix(&format!("dogwatch: cannot import '{name}': "));
    let said = said.unwrap_or_else(|| panic!("{err}")).trim_end().to_owned();
    let more: Vec<&str> = said.lines().skip(1).collect();
    assert!(more.len() <= 1 && more.iter().all(|line| line.starts_with("hint: ")), "{err}");
    said
}

#[test]
fn files_that_cannot_be_used_are_refused_in_one_line() {
    let big = " ".repeat(1024 * 1024 + 1);
    let bomb: String = ('a'..'h')
        .zip('b'..'i')
        .map(|(from, to)| format!("{to}: &{to} [{}]\n", vec![format!("*{from}"); 10].join(",")))
        .collect();
    for (name, text, expected) in [
        ("apps.txt", "", "its name ends with none of .js, .cjs, .mjs, .json, .yml and .yaml"),
        ("big.json", &big, "it is larger than 1 MB, which no such file is"),
        ("a.json", "3", "expected an object with 'apps', found 3"),
        ("a.json", "[]", "there are no apps in it"),
        ("a.json", r#"{"apps": "x"}"#, "'apps': expected a list of apps, found \"x\""),
        ("a.json", r#"[["x"]]"#, "app 1: expected an object, found a list"),
        ("a.json", r#"[{"name": "x"}]"#, "app 'x': 'script': missing: nothing says what to run"),
        (
            "a.json",
            r#"{"apps": [{"script": "a.js"}, {"name": "api", "script": "a.js", "kill_timeout": "soon"}]}"#,
            "app 'api': 'kill_timeout': expected a number, found \"soon\"",
        ),
        (
            "a.json",
            r#"[{"script": "a.js", "instances": 20000}]"#,
            "app 1: 'instances': expected at most 10000, found 20000",
        ),
        (
            "a.json",
            r#"[{"script": "a.js"}, {"script": "b/a.js"}]"#,
            "two apps would be 'a.toml'\nhint: give each app a name of its own",
        ),
        ("a.json", r#"[{"script": "serve"}]"#, "there is nothing in it that could be run"),
        (
            "a.json",
            r#"{"foo": 1}"#,
            "there is no 'apps' in it\nhint: PM2 wants 'apps: [{ script: ... }]', a list of apps, or one app",
        ),
        ("a.yml", "a: 1\na: 2\n", "not valid YAML: duplicate mapping key: a at line 2, column 1"),
        (
            "a.yml",
            &format!("a: &a [x]\n{bomb}"),
            "it holds more than a process file does, its aliases unfolded",
        ),
    ] {
        assert_eq!(refusal(name, text, &[]), expected, "{name}");
    }
    let env = refusal("a.json", r#"{"script": "a.js", "env_test": {}}"#, &["--env", "tset"]);
    assert_eq!(env, "no app has an 'env_tset'\nhint: there is test");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("d.json")).unwrap();
    nix::unistd::mkfifo(&folder.path().join("f.yml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (name, expected) in [
        ("none.js", "No such file or directory (os error 2)"),
        ("d.json", "it is a directory"),
        ("f.yml", "it is not a regular file"),
    ] {
        let Said(code, _, err) = import(folder.path(), &[name]);
        let line = format!("dogwatch: cannot import '{name}': {expected}\n");
        assert_eq!((code, err), (Some(2), line));
    }
}

#[test]
fn javascript_that_does_not_say_what_it_holds_is_refused() {
    if no_node() {
        return;
    }
    for (name, text, expected) in [
        ("a.js", "\n\nthrow new TypeError('no\\nluck')", "line 3: TypeError: no"),
        ("a.js", "throw null", "it throws null"),
        ("a.js", "throw new Error('\\x1b[31mred')", "line 1: Error: \u{fffd}[31mred"),
        ("a.js", "require('./none')", "line 1: Error: Cannot find module './none'"),
        (
            "a.js",
            "module.exports = () => ({ apps: [] })",
            "expected an object with 'apps', found a function",
        ),
        (
            "a.js",
            "const a = [{}]; a[0].env = a[0]; a[0].script = 'x'; module.exports = a",
            "app 1: 'env': expected an object, found a circle",
        ),
        (
            "a.js",
            "module.exports = { get apps() { throw new Error('trap') } }",
            "line 1: Error: trap",
        ),
        ("a.js", "process.exit(3)", "node ended before the file was evaluated, exit status: 3"),
        (
            "a.mjs",
            "await new Promise(() => {})",
            "node ended before the file was evaluated, exit status: 13",
        ),
        (
            "a.js",
            "for (;;) {}",
            "node did not come to its end within 30s\nhint: it is to hold settings only, and to leave other work to the app",
        ),
        ("a.json", "{\"apps\": [", "SyntaxError: it ends too early"),
    ] {
        let said = refusal(name, text, &[]);
        assert!(said.starts_with(expected), "{text}: {said}");
    }
}

#[test]
fn without_node_javascript_cannot_be_read_and_json_can() {
    let folder = shop("a.js", "module.exports = { script: 'dist/server.js' }");
    std::fs::write(folder.path().join("a.json"), r#"{"script": "dist/server.js"}"#).unwrap();
    std::fs::write(folder.path().join("b.json"), "{ script: 1 }").unwrap();
    let without = |name: &str| {
        let mut command = Command::new(dogwatch());
        let command = command.args(["import", name]).current_dir(folder.path());
        run(command.env("PATH", "/nonexistent"))
    };
    let Said(code, _, err) = without("a.js");
    assert_eq!(code, Some(2));
    assert_eq!(
        err,
        "dogwatch: cannot import 'a.js': there is no 'node' on PATH to evaluate it\n\
         hint: install Node, or write the file as JSON or YAML\n"
    );
    let Said(code, _, err) = without("b.json");
    assert_eq!(code, Some(2));
    assert!(
        err.ends_with("hint: PM2 reads it as JavaScript; with 'node' on PATH this does, too\n"),
        "{err}"
    );
    assert_eq!(without("a.json").0, Some(0));
}

#[test]
fn programs_that_are_none_end_in_a_reason() {
    let cases = [
        (
            "python3",
            "gunicorn.conf.py",
            "x = 1\nraise ValueError('no\\nway')",
            "line 2: ValueError: no",
        ),
        ("python3", "gunicorn.conf.py", "x = (", "line 1: SyntaxError: "),
        (
            "python3",
            "gunicorn.conf.py",
            "import os\nos._exit(3)",
            "python3 ended before the file was evaluated",
        ),
        ("python3", "gunicorn.conf.py", "import sys; sys.exit('bye')", "SystemExit: bye"),
        (
            "python3",
            "gunicorn.conf.py",
            "wsgi_app = 'a:b'\nworkers = 0",
            "'workers': expected a number from 1 up, found 0",
        ),
        (
            "python3",
            "gunicorn.conf.py",
            "workers = 2",
            "there is no 'wsgi_app' in it, and no app is to be seen",
        ),
        (
            "python3",
            "gunicorn.conf.py",
            "a = []\na.append(a)\nwsgi_app = a",
            "there is no 'wsgi_app' in it",
        ),
        (
            "python3",
            "gunicorn.conf.py",
            "bind = 'x' * (17 << 20)",
            "what it holds is larger than 16 MB",
        ),
        ("ruby", "puma.rb", "port 1\nraise 'no'", "line 2: RuntimeError: no"),
        ("ruby", "puma.rb", "workers(", "SyntaxError: "),
        ("ruby", "puma.rb", "exit!", "ruby ended before the file was evaluated"),
        ("ruby", "puma.rb", "require 'no_such_gem'", "LoadError: "),
        ("ruby", "puma.rb", "workers 'x'", "'workers': expected a number, found x"),
    ];
    for (program, name, text, reason) in cases {
        if which(program).is_none() && skip(program) {
            continue;
        }
        let folder = shop(name, text);
        let Said(code, out, err) = import(folder.path(), &[name]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{text}: {err}");
        assert!(err.contains(&format!("cannot import '{name}': ")), "{err}");
        assert!(err.contains(reason), "{reason}: {err}");
    }
}

#[test]
fn what_a_program_prints_is_not_what_it_holds() {
    for (program, name, text) in [
        (
            "python3",
            "gunicorn.conf.py",
            "import os, sys\nprint('{}')\nos.system('echo x; cat')\nsys.stdin.close\nwsgi_app = 'a:b'\nbind = ':81'",
        ),
        ("ruby", "puma.rb", "puts '{}'\nsystem 'echo x; cat'\nport 81\nbefore_fork { exit! }"),
    ] {
        if which(program).is_none() && skip(program) {
            continue;
        }
        let folder = shop(name, text);
        let Said(code, out, err) = import(folder.path(), &[name]);
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("listen = [\"0.0.0.0:81\"]"), "{out}");
    }
}

#[test]
fn what_is_no_procfile_is_refused() {
    for (text, reason) in [
        ("", "nothing in it serves"),
        ("clock: x", "nothing in it serves"),
        ("web: 'x", "'web': a quote does not end"),
        ("web: A=1", "'web': "),
    ] {
        let folder = shop("Procfile", text);
        let Said(code, out, err) = import(folder.path(), &["Procfile"]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{text}: {err}");
        assert!(err.contains(reason), "{err}");
    }
    let folder = shop("x", "");
    let path = folder.path().join("Procfile");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let Said(code, _, err) = import(folder.path(), &["Procfile"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("it is not a regular file"), "{err}");
    let Said(code, _, err) = import(folder.path(), &["Procfile", "--env", "production"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("'--env' is for files of PM2"), "{err}");
}

#[test]
fn pumas_file_says_where_it_runs_and_what_it_serves() {
    if which("ruby").is_none() && skip("ruby") {
        return;
    }
    for (name, text, folder, lacks) in [
        ("config/puma.rb", "", "", true),
        ("puma.rb", "app { |env| [200, {}, []] }", "", false),
        (
            "config/puma/production.rb",
            "rackup 'x.ru'; environment File.basename(Dir.pwd)",
            "",
            false,
        ),
        ("config/puma.rb", "directory '@/shop/current'", "/shop/current", true),
        ("puma.rb", "directory 'below'", "", true),
    ] {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(path.join("config/puma")).unwrap();
        std::fs::write(path.join(name), text.replace('@', path.to_str().unwrap())).unwrap();
        let Said(code, out, err) = import(&path, &[name]);
        assert_eq!(code, Some(0), "{err}");
        let expected = format!("working-directory = \"{}{folder}\"", path.display());
        assert!(out.contains(&expected), "{expected}\n{out}");
        assert_eq!(err.contains("config.ru: there is none in"), lacks, "{err}");
    }
}
