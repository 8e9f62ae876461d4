//! What becomes of small projects, and of hostile ones.

mod kinds;

use super::drafted;
use super::project::Project;
use crate::cli::draft::{Draft, Table};
use crate::config::{Settings, file};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

/// A folder with these files; those below a `bin` are programs.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join("shop").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        if name.contains("bin/") {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    root
}

fn look(root: &Path, listen: Option<&str>) -> Result<(Draft, Vec<String>), String> {
    let project = Project::of(&root.join("shop"), listen.map(str::to_owned)).unwrap();
    let (draft, remarks) = drafted(&project, None).map_err(|unusable| unusable.reason)?;
    let text = draft.text();
    let settings = file::parse("shop.toml", &text).and_then(|typed| Ok(Settings::new(typed, 4)?));
    settings.unwrap_or_else(|error| panic!("{error}:\n{text}"));
    Ok((draft, remarks))
}

const NEXT: &str = r#"{"scripts": {"start": "next start"}, "dependencies": {"next": "15"}}"#;

#[test]
fn what_is_left_to_do_is_said() {
    for (files, said) in [
        (
            &[
                ("go.mod", "module shop\n"),
                ("main.go", "package main\nhttp.ListenAndServe(\":80\", nil)"),
            ][..],
            "no file of the project takes its socket",
        ),
        (
            &[("go.mod", "module shop\n"), ("main.go", "package main\n")],
            "it is not built yet: 'go build -o bin/shop .'",
        ),
        (
            &[
                ("go.mod", "module shop\n"),
                ("cmd/a/x.go", "package main"),
                ("cmd/b/x.go", "package main"),
            ],
            "there are several programs (cmd/a, cmd/b): is this the one that serves?",
        ),
        (
            &[
                ("go.mod", "module shop\n"),
                ("cmd/a/x.go", "package main"),
                ("cmd/shop/x.go", "package main"),
            ],
            "it is not built yet: 'go build -o bin/shop ./cmd/shop'",
        ),
        (
            &[("Cargo.toml", "[package]\nname = \"shop\"\n"), ("src/main.rs", "")],
            "cargo add listenfd",
        ),
        (
            &[("app.py", "app = Flask(__name__)"), ("venv/bin/python3", "")],
            "venv/bin/pip install gunicorn",
        ),
        (
            &[("app.py", "app = Flask(__name__)"), ("requirements.txt", "waitress\n")],
            "it opens its port by itself",
        ),
        (
            &[("config.ru", ""), ("Gemfile", "gem 'falcon'")],
            "falcon opens its port by itself, so Puma is written here",
        ),
        (
            &[
                ("package.json", r#"{"scripts": {"start": "nodemon server.js"}}"#),
                ("server.js", ""),
            ],
            "'nodemon' starts the program again by itself",
        ),
        (&[("server.js", "x.listen(process.env.PORT)")], "look whether the program reads PORT"),
        (
            &[("server.js", ""), ("ecosystem.config.js", "")],
            "'dogwatch import ecosystem.config.js' takes over",
        ),
        (
            &[("config.ru", ""), ("package.json", NEXT)],
            "also seen, and not used: Node (package.json has a script 'start')",
        ),
        (
            &[("Procfile", "web: node a.js\nclock: it's\nx\n")],
            "clock: left out, for it is not called 'web'",
        ),
        (
            &[("Procfile", "web: node a.js\nclock: it's\nx\n")],
            "Procfile: line 3 is no 'NAME: COMMAND'",
        ),
        (&[("Procfile", "web: flask run -p $PORT")], "'flask run' is for development"),
        (
            &[("server.js", ""), (".env", "export A\n")],
            ".env: it is not used: .env:1: not an assignment",
        ),
        (
            &[("server.js", ""), (".env", "export PORT=4000\n")],
            "systemd's EnvironmentFile= knows no 'export' either",
        ),
        (
            &[("Procfile", "web: flask run -p $PORT")],
            "without 'listen' systemd gets no units of this file",
        ),
        (
            &[("Procfile", "web: fastapi run main.py --port $PORT")],
            "'uvicorn MODULE:app' takes the socket",
        ),
        (
            &[("Procfile", "web: node a.js\nweb: node b.js\n")],
            "Procfile: line 2 is left out, for there is a 'web' before it",
        ),
        (&[("Procfile", "web: next dev")], "'next dev' runs a server for development"),
        (
            &[("Procfile", "web: puma"), ("config/puma/production.rb", "workers 4")],
            "'config/puma/production.rb' was not run to see what it says",
        ),
        (
            &[("package.json", r#"{"scripts": {"start": "bun run index.ts"}}"#)],
            "Bun opens its port by itself",
        ),
        (
            &[("package.json", r#"{"scripts": {"start": "vite --host"}}"#), ("server.js", "")],
            "scripts.start: 'vite' runs a server for development; build the project",
        ),
        (
            &[
                ("Cargo.toml", "[package]\nname = \"shop\""),
                ("src/bin/a.rs", ""),
                ("src/bin/b/main.rs", ""),
            ],
            "there are several programs (a, b): is this the one that serves?",
        ),
        (
            &[("package.json", NEXT), ("Gemfile", "gem 'puma'")],
            "also seen, and not used: Ruby (the Gemfile names puma)",
        ),
        (
            &[("package.json", NEXT), ("tools/app.py", "app = Flask(__name__)")],
            "also seen, and not used: Python (tools/app.py has the app 'app')",
        ),
        (
            &[("Procfile", "web: bin/rails server -p $PORT -e $RAILS_ENV\n")],
            "$RAILS_ENV: nothing says what it is, so '-e' is left out",
        ),
    ] {
        let root = tree(files);
        let (draft, mut remarks) = look(root.path(), None).unwrap();
        remarks.extend(draft.lines());
        assert!(remarks.iter().any(|line| line.contains(said)), "{said}:\n{}", remarks.join("\n"));
    }
}

#[test]
fn a_project_that_the_units_hide_is_told_of() {
    for (folder, said, choices) in [
        ("/home/alice/shop", "sees nothing below /home: put it below /srv or /opt, or show it", 2),
        ("/root", "sees nothing below /root", 2),
        ("/tmp/shop", "sees nothing below /tmp: put it below /srv or /opt", 0),
        ("/srv/shop", "", 0),
        ("/homes/shop", "", 0),
    ] {
        let mut draft = Draft::new("shop".to_owned(), String::new(), "");
        super::write::unseen(folder, &mut draft);
        let lines: Vec<String> = draft.lines().collect();
        assert!(lines.iter().all(|line| line.contains(said)), "{lines:?}");
        assert_eq!(lines.is_empty(), said.is_empty(), "{folder}");
        let text = draft.text();
        let keys = ["# user = \"NAME\"", "# sandbox.home = \"read-only\""];
        assert_eq!(keys.iter().filter(|key| text.contains(**key)).count(), choices, "{text}");
        // Without the mark they are good settings.
        let shown: String = keys.map(|key| key.trim_start_matches("# ")).join("\n");
        file::parse("shop.toml", &format!("command = [\"x\"]\n{shown}\n")).unwrap();
    }
}

#[test]
fn what_cannot_be_run_is_refused_with_the_reason() {
    for (files, reason) in [
        (&[("README", "x")][..], "nothing in it says what to run"),
        (
            &[("composer.json", "{}"), ("public/index.php", "")],
            "it is PHP, and what serves PHP here cannot be given a socket",
        ),
        (
            &[("composer.json", r#"{"require": {"react/http": "1"}}"#)],
            "no file of it takes its socket from systemd",
        ),
        (&[("requirements.txt", "requests\n")], "it is Python, but no app is to be seen"),
        (&[("Cargo.toml", "[workspace]\n")], "it is a workspace"),
        (
            &[("Cargo.toml", "[package]\nname = \"shop\""), ("src/lib.rs", "")],
            "it is a library of Rust",
        ),
        (&[("go.mod", "module shop"), ("x.go", "package shop")], "it is a library of Go"),
        (
            &[("package.json", r#"{"workspaces": ["apps/*"]}"#)],
            "package.json has 'workspaces': it is several packages",
        ),
        (&[("Gemfile", "gem 'sinatra'\n")], "there is no config.ru"),
        (
            &[("package.json", r#"{"scripts": {"start": "nodemon x"}}"#)],
            "shop/package.json:1: 'nodemon' starts the program again by itself",
        ),
        (
            &[("package.json", r#"{"scripts": {"start": "react-scripts start"}}"#)],
            "'react-scripts start' runs a development server",
        ),
        (
            &[("package.json", r#"{"scripts": {"start": "ng serve --port 80"}}"#)],
            "'ng serve' runs a server for development",
        ),
        (
            &[("package.json", r#"{"scripts": {"start": "turbo run start"}, "workspaces": []}"#)],
            "'turbo' starts programs of its own",
        ),
        (
            &[("package.json", r#"{"scripts": {"dev": "vite"}}"#), ("Gemfile", "gem 'rake'")],
            "nothing in it says what to run: Gemfile names none of rails, puma and sinatra; package.json has no script 'start'",
        ),
        (&[("Procfile", "worker: x")], "Procfile has no line 'web'"),
        (
            &[("pyproject.toml", ""), ("tests/app.py", "app = Flask(__name__)")],
            "it is Python, but no app is to be seen",
        ),
        (
            &[("go.mod", "module x"), ("gen.go", "//go:build ignore\n\npackage main")],
            "it is a library of Go",
        ),
        (&[("Procfile", "web: 'open\n")], "a quote does not end"),
    ] {
        let root = tree(files);
        let said = look(root.path(), None).unwrap_err();
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn a_file_or_folder_that_there_is_more_to_be_made_of_is_named() {
    let start = |script: &str| format!(r#"{{"scripts": {{"start": "{script}"}}}}"#);
    let import = "'dogwatch import ecosystem.config.js' takes over what that file says";
    for (files, hint) in [
        (&[("ecosystem.config.js", "")][..], import),
        (&[("ecosystem.config.js", ""), ("package.json", &start("pm2-runtime start x"))], import),
        (
            &[("gunicorn.conf.py", "")],
            "'dogwatch import gunicorn.conf.py' takes over what that file says",
        ),
        (
            &[("turbo.json", ""), ("package.json", &start("turbo run start"))],
            "call 'dogwatch init' in the folder of the package that serves",
        ),
        (
            &[("package.json", &start("react-scripts start"))],
            "run 'react-scripts build' at deploy time, and serve its files",
        ),
        (
            &[("package.json", r#"{"scripts": {}}"#)],
            "for any other program write command = [\"PROGRAM\", \"ARGUMENT\"] into a file by hand ('dogwatch man dogwatch.toml')",
        ),
    ] {
        let root = tree(files);
        let project = Project::of(&root.path().join("shop"), None).unwrap();
        let unusable = drafted(&project, None).unwrap_err();
        assert_eq!(unusable.hint.as_deref(), Some(hint), "{}", unusable.reason);
    }
}

#[test]
fn a_directory_that_deploys_switch_stays_a_symlink() {
    let root = tree(&[("releases/42/server.js", "")]);
    let current = root.path().canonicalize().unwrap().join("shop/current");
    symlink("releases/42", &current).unwrap();
    let project = Project::of(&current, None).unwrap();
    let (draft, _) = drafted(&project, None).unwrap();
    assert_eq!(draft.name, "shop");
    let directory = draft.get(Table::Top, "working-directory").unwrap();
    assert_eq!(directory.as_str(), current.to_str());
    // What hides the folder that it leads to hides it.
    assert!(draft.lines().any(|line| line.contains("sees nothing below /tmp")));
}

#[test]
fn the_address_that_was_asked_for_counts() {
    let listens = |files: &[(&str, &str)], listen: &str| {
        let root = tree(files);
        let (draft, _) = look(root.path(), Some(listen)).unwrap();
        draft.text().lines().find(|line| line.starts_with("listen")).unwrap().to_owned()
    };
    let node = [("server.js", "x.listen(1)"), (".env", "PORT=2")];
    assert_eq!(listens(&node, "127.0.0.1:4000"), "listen = [\"127.0.0.1:4000\"]");
    let procfile = [("Procfile", "web: puma -p $PORT")];
    assert_eq!(listens(&procfile, "4000"), "listen = [\"4000\"]");
    let unicorn = [("config.ru", ""), ("Gemfile", "gem 'unicorn'")];
    assert_eq!(listens(&unicorn, "unix:/run/x.sock"), "listen = [\"unix:/run/x.sock\"]");
    // What asks for another is told of; what can be told the port is.
    let start = |script: &str| format!(r#"{{"scripts": {{"start": "{script}"}}}}"#);
    let said = "asks for port 4000: let it ask for the one that is named here";
    for (name, text, is_told) in [
        ("package.json", start("PORT=4000 node a.js"), false),
        ("package.json", start("npx next start -p 4000"), false),
        ("package.json", start("node a.js"), true),
        ("Procfile", "web: next start --port=4000".to_owned(), false),
        ("Procfile", "web: PORT=4000 node a.js".to_owned(), true),
    ] {
        let root = tree(&[(name, &text), ("node_modules/.bin/next", ""), ("a.js", "")]);
        let (draft, _) = look(root.path(), Some("8080")).unwrap();
        assert_eq!(draft.lines().any(|line| line.contains(said)), !is_told, "{text}");
        let port = draft.get(Table::Env, "PORT").unwrap();
        assert_eq!(port.as_str(), Some("8080"), "{text}");
    }
}

#[test]
fn names_are_made_ones_that_files_can_have() {
    for (files, name) in [
        (
            &[
                ("package.json", "{\"name\": \"@me/a \\n\\\"b\\u0000\", \"main\": \"a.js\"}"),
                ("a.js", ""),
            ][..],
            "a-b",
        ),
        (&[("package.json", r#"{"name": "../..", "main": "a.js"}"#), ("a.js", "")], "app"),
        (&[("package.json", r#"{"name": ["x"], "main": "a.js"}"#), ("a.js", "")], "shop"),
        (&[("Cargo.toml", "[package]\nname = \"é\"\n"), ("src/main.rs", "")], "app"),
        (&[("go.mod", "module \"x/y\" // z\n"), ("x.go", "package main")], "y"),
        (
            &[
                ("main.py", "app = FastAPI()"),
                ("pyproject.toml", "[tool.poetry]\nname = \"the_api\""),
            ],
            "the_api",
        ),
    ] {
        let root = tree(files);
        let (draft, _) = look(root.path(), None).unwrap();
        assert_eq!(draft.name, name);
    }
}

#[test]
fn hostile_projects_are_refused_or_passed_over() {
    let with = |name: &str, make: &dyn Fn(&Path)| {
        let root = tree(&[("keep", "")]);
        make(&root.path().join("shop").join(name));
        look(root.path(), None)
    };
    let files = [
        "Procfile",
        "package.json",
        "pyproject.toml",
        "requirements.txt",
        "manage.py",
        "main.py",
        "Gemfile",
        "config.ru",
        "composer.json",
        "go.mod",
        "Cargo.toml",
        ".env",
        "server.js",
    ];
    for name in files {
        let makes: [&dyn Fn(&Path); 6] = [
            &|path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            &|path| symlink(path, path).unwrap(),
            &|path| std::fs::create_dir(path).unwrap(),
            &|path| std::fs::write(path, b"\xff\xfe\0").unwrap(),
            &|path| std::fs::File::create(path).unwrap().set_len(100 << 20).unwrap(),
            &|path| symlink("/dev/zero", path).unwrap(),
        ];
        for make in makes {
            // Whatever comes of it: it comes at once, and is a good file or a reason.
            if let Err(reason) = with(name, make) {
                assert!(!reason.is_empty(), "{name}");
            }
        }
    }
    let said = with("package.json", &|path| {
        std::fs::File::create(path).unwrap().set_len(100 << 20).unwrap();
    });
    let said = said.unwrap_err();
    assert!(said.contains("'package.json' was not looked at: it is larger than 1 MB"), "{said}");
}

#[test]
fn wrong_types_are_passed_over() {
    for value in ["null", "1", "[]", "{}", "true", "\"\"", "[[1]]", "\"\\u0000\""] {
        let package = format!(
            r#"{{"name": {value}, "main": {value}, "scripts": {value}, "dependencies": {value}, "devDependencies": {{"next": {value}}}}}"#
        );
        let starts = format!(r#"{{"scripts": {{"start": {value}}}, "config": {value}}}"#);
        for text in [package, starts, value.to_owned()] {
            let root = tree(&[("package.json", &text), ("server.js", "")]);
            look(root.path(), None).unwrap();
        }
        let root = tree(&[
            ("Cargo.toml", &format!("package = {value}\nbin = {value}\n")),
            ("server.js", ""),
        ]);
        let _ = look(root.path(), None);
    }
}

#[test]
fn folders_in_a_circle_are_walked_once() {
    let root = tree(&[("go.mod", "module shop"), ("a/main.go", "")]);
    symlink("..", root.path().join("shop/a/up")).unwrap();
    let mut deep = root.path().join("shop");
    for _ in 0..40 {
        deep.push("d");
    }
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("x.go"), "LISTEN_FDS").unwrap();
    let project = Project::of(&root.path().join("shop"), None).unwrap();
    assert_eq!(project.files(&["go"]), ["a/main.go"]);
}

#[test]
fn what_stands_in_the_file_was_written_as_toml() {
    let line = r#"web: X='a"b\c' node 's"erver.js' "two
words""#;
    let root = tree(&[("Procfile", &line.replace('\n', " ")), ("x", "")]);
    let (draft, _) = look(root.path(), None).unwrap();
    let typed = file::parse("shop.toml", &draft.text()).unwrap();
    assert_eq!(typed.command.unwrap(), ["node", "s\"erver.js", "two words"]);
    assert_eq!(typed.env.unwrap()["X"], "a\"b\\c");
}
