//! What is written for a small project of every kind.

use super::{NEXT, look, tree};

/// The keys of the file for a project, without what is the same for all; `[table]` before what is in one.
fn keys(files: &[(&str, &str)]) -> Vec<String> {
    let root = tree(files);
    let (draft, _) = look(root.path(), None).unwrap();
    let text = draft.text();
    let mut table = String::new();
    let mut keys = vec![];
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix('[') {
            Some(name) => table = format!("{}.", name.trim_end_matches(']')),
            // Where Python and Ruby are is the machine's affair.
            None if line.starts_with("working-directory") || line.starts_with("PATH = ") => {}
            None => keys.push(format!("{table}{line}")),
        }
    }
    keys
}

/// What it is, its files, and the keys that come of them.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn every_kind_has_its_command_handoff_and_readiness() {
    let gunicorn = "command = [\"venv/bin/gunicorn\", \"-w\", \"1\", \"app:app\"]";
    let flask = ("app.py", "app = Flask(__name__)");
    let puma = "\"-w\", \"0\", \"--bind-to-activated-sockets\", \"only\"]";
    let cases: [Case<'_>; 20] = [
        (
            "Node by its script",
            &[
                ("package.json", r#"{"scripts": {"start": "node server.js -x"}}"#),
                ("server.js", "x.listen(8123)"),
            ],
            &[
                "command = [\"node\", \"server.js\", \"-x\"]",
                "workers = \"cpus\"",
                "listen = [\"8123\"]",
                "handoff = \"node\"",
                "env.PORT = \"8123\"",
                "env.NODE_ENV = \"production\"",
            ],
        ),
        (
            "Node by 'main', told its port by .env",
            &[
                ("package.json", r#"{"main": "./lib/a.js"}"#),
                ("lib/a.js", ""),
                (".env", "PORT=9000\n"),
            ],
            &[
                "command = [\"node\", \"lib/a.js\"]",
                "workers = \"cpus\"",
                "listen = [\"9000\"]",
                "environment-files = [\"DIR/.env\"]",
                "handoff = \"node\"",
                "env.NODE_ENV = \"production\"",
            ],
        ),
        (
            "Next",
            &[("package.json", NEXT), ("node_modules/.bin/next", "")],
            &[
                "command = [\"node_modules/.bin/next\", \"start\"]",
                "workers = \"cpus\"",
                "listen = [\"3000\"]",
                "handoff = \"node\"",
                "env.PORT = \"3000\"",
                "env.NODE_ENV = \"production\"",
            ],
        ),
        (
            "Node that is told its port by its script, beside a file of Python's",
            &[
                ("package.json", r#"{"scripts": {"start": "PORT=4000 node a.js"}}"#),
                ("a.js", "x.listen(process.env.PORT||3000)"),
                ("requirements.txt", "fabric"),
            ],
            &[
                "command = [\"npm\", \"start\"]",
                "workers = \"cpus\"",
                "listen = [\"4000\"]",
                "handoff = \"node\"",
                "env.PORT = \"4000\"",
                "env.NODE_ENV = \"production\"",
            ],
        ),
        (
            "Node whose port is a constant",
            &[("server.js", "const port = 4001\nx.listen(port)")],
            &[
                "command = [\"node\", \"server.js\"]",
                "workers = \"cpus\"",
                "listen = [\"4001\"]",
                "handoff = \"node\"",
                "env.PORT = \"4001\"",
                "env.NODE_ENV = \"production\"",
            ],
        ),
        (
            "Next with a port",
            &[
                (
                    "package.json",
                    r#"{"scripts": {"start": "next start -p 4002"}, "dependencies": {"next": "15"}}"#,
                ),
                ("node_modules/.bin/next", ""),
            ],
            &[
                "command = [\"node_modules/.bin/next\", \"start\", \"-p\", \"4002\"]",
                "workers = \"cpus\"",
                "listen = [\"4002\"]",
                "handoff = \"node\"",
                "env.PORT = \"4002\"",
                "env.NODE_ENV = \"production\"",
            ],
        ),
        (
            "Nest, whose script keeps the channel",
            &[(
                "package.json",
                r#"{"scripts": {"start": "nest start"}, "dependencies": {"@nestjs/core": "11"}}"#,
            )],
            &[
                "command = [\"node\", \"dist/main.js\"]",
                "workers = \"cpus\"",
                "listen = [\"3000\"]",
                "handoff = \"node\"",
                "env.PORT = \"3000\"",
                "env.NODE_ENV = \"production\"",
            ],
        ),
        (
            "FastAPI",
            &[
                ("main.py", "app = FastAPI()"),
                ("requirements.txt", "fastapi\nuvicorn[standard]\n"),
                (".venv/bin/uvicorn", ""),
            ],
            &[
                "command = [\".venv/bin/uvicorn\", \"--fd\", \"3\", \"--workers\", \"1\", \"main:app\"]",
                "workers = \"cpus\"",
                "listen = [\"8000\"]",
                "balance = \"steered\"",
                "ready.when = \"accepting\"",
            ],
        ),
        (
            "Quart with hypercorn",
            &[
                ("app.py", "app = Quart(__name__)"),
                (
                    "pyproject.toml",
                    "[project]\nname = \"x\"\ndependencies = [\"hypercorn>=0.17\"]\n",
                ),
                ("venv/bin/hypercorn", ""),
            ],
            &[
                "command = [\"venv/bin/hypercorn\", \"-w\", \"0\", \"--bind\", \"fd://3\", \"app:app\"]",
                "workers = \"cpus\"",
                "listen = [\"8000\"]",
                "balance = \"steered\"",
                "ready.when = \"accepting\"",
            ],
        ),
        (
            "Flask",
            &[flask, ("venv/bin/gunicorn", "")],
            &[gunicorn, "workers = \"cpus\"", "listen = [\"8000\"]", "ready.when = \"accepting\""],
        ),
        (
            "Flask, with an environment that lacks the server",
            &[flask, ("venv/bin/python3", "")],
            &[gunicorn, "workers = \"cpus\"", "listen = [\"8000\"]", "ready.when = \"accepting\""],
        ),
        (
            "Django",
            &[
                ("manage.py", ""),
                ("site/wsgi.py", "application = get_wsgi_application()"),
                ("site/asgi.py", "application = get_asgi_application()"),
                ("venv/bin/gunicorn", ""),
            ],
            &[
                "command = [\"venv/bin/gunicorn\", \"-w\", \"1\", \"site.wsgi:application\"]",
                "workers = \"cpus\"",
                "listen = [\"8000\"]",
                "ready.when = \"accepting\"",
            ],
        ),
        (
            "Django with channels",
            &[
                ("manage.py", ""),
                ("site/wsgi.py", "application = get_wsgi_application()"),
                ("site/asgi.py", "application = get_asgi_application()"),
                ("Pipfile", "channels = \"*\"\ndaphne = \"*\"\n"),
                ("venv/bin/daphne", ""),
            ],
            &[
                "command = [\"venv/bin/daphne\", \"--fd\", \"3\", \"site.asgi:application\"]",
                "workers = \"cpus\"",
                "listen = [\"8000\"]",
                "balance = \"steered\"",
                "ready.when = \"accepting\"",
            ],
        ),
        (
            "Python that takes its socket itself",
            &[("server.py", "s = socket.socket(fileno=3)"), ("requirements.txt", "")],
            &[
                "command = [\"python3\", \"server.py\"]",
                "workers = \"cpus\"",
                "listen = [\"8080\"]",
                "handoff = \"fd\"",
            ],
        ),
        (
            "Rails",
            &[
                ("config.ru", ""),
                ("Gemfile", "gem \"rails\", \"~> 8\"\ngem 'puma'\n"),
                ("config/puma.rb", "port ENV.fetch(\"PORT\", 3100)\n"),
                ("package.json", NEXT),
            ],
            &[
                &format!("command = [\"bundle\", \"exec\", \"puma\", {puma}"),
                "workers = \"cpus\"",
                "listen = [\"3100\"]",
                "balance = \"steered\"",
                "env.RAILS_ENV = \"production\"",
            ],
        ),
        (
            "unicorn",
            &[("config.ru", ""), ("Gemfile", "gem 'unicorn'\n")],
            &[
                "command = [\"bundle\", \"exec\", \"unicorn\", \"-l\", \"0.0.0.0:8080\"]",
                "workers = \"cpus\"",
                "listen = [\"0.0.0.0:8080\"]",
                "env.RACK_ENV = \"production\"",
                "ready.when = \"accepting\"",
                "stop.signal = \"SIGQUIT\"",
            ],
        ),
        (
            "Go",
            &[
                ("go.mod", "module example.org/x/shop/v2\n"),
                (
                    "main.go",
                    "package main\nactivation.Listeners(); http.ListenAndServe(\":8081\", nil)",
                ),
                ("bin/shop", ""),
            ],
            &[
                "command = [\"./bin/shop\"]",
                "workers = \"cpus\"",
                "listen = [\"8081\"]",
                "handoff = \"fd\"",
            ],
        ),
        (
            "Rust",
            &[
                (
                    "Cargo.toml",
                    "[package]\nname = \"shop-api\"\n[dependencies]\nlistenfd = \"1\"\n",
                ),
                ("src/main.rs", ""),
            ],
            &[
                "command = [\"./target/release/shop-api\"]",
                "workers = \"cpus\"",
                "listen = [\"8080\"]",
                "handoff = \"fd\"",
            ],
        ),
        (
            "PHP that takes its socket itself",
            &[("composer.json", "{}"), ("server.php", "new SocketServer('php://fd/3')")],
            &[
                "command = [\"php\", \"server.php\"]",
                "workers = \"cpus\"",
                "listen = [\"8080\"]",
                "handoff = \"fd\"",
            ],
        ),
        (
            "a Procfile, before all others",
            &[("Procfile", "web: A=1 uvicorn main:app --port $PORT\nworker: x\n"), flask],
            &[
                "command = [\"uvicorn\", \"--fd\", \"3\", \"--workers\", \"1\", \"main:app\"]",
                "workers = \"cpus\"",
                "listen = [\"127.0.0.1:8080\"]",
                "balance = \"steered\"",
                "env.PORT = \"8080\"",
                "env.A = \"1\"",
                "ready.when = \"accepting\"",
            ],
        ),
    ];
    for (what, files, expected) in cases {
        let found: Vec<String> = keys(files)
            .into_iter()
            .map(|key| match key.split_once("[\"/") {
                Some((key, _)) if key.starts_with("environment-files") => {
                    format!("{key}[\"DIR/.env\"]")
                }
                _ => key,
            })
            .collect();
        assert_eq!(found, expected, "{what}");
    }
}

/// The lines of the keys that begin with one of these.
fn only(files: &[(&str, &str)], names: &[&str]) -> Vec<String> {
    let is_one = |key: &String| names.iter().any(|name| key.starts_with(name));
    keys(files).into_iter().filter(is_one).collect()
}

#[test]
fn the_port_is_the_one_that_the_program_asks_for() {
    let start = |script: &str| format!(r#"{{"scripts": {{"start": "{script}"}}}}"#);
    let env = (".env", "PORT=5000\n");
    let node = ("server.js", "app.listen(process.env.PORT || 4500)");
    for (files, port, told) in [
        // The command's own word counts before the .env, and that before the program's.
        (&[("package.json", &*start("PORT=4000 node server.js")), env, node][..], 4000, None),
        (&[("package.json", &start("node server.js --port 4000")), env, node], 4000, None),
        (&[("package.json", &start("node server.js")), env, node], 5000, None),
        (&[("package.json", &start("A=1 node server.js")), node], 4500, Some(4500)),
        (
            &[
                ("package.json", &start("tsx src/server.ts")),
                ("src/server.ts", "app.listen(4501)"),
                ("node_modules/tsx/x", ""),
            ],
            4501,
            Some(4501),
        ),
        (&[("package.json", &start("A=$B node server.js")), node], 4500, Some(4500)),
        // A file that no worker reads says the port all the same.
        (&[(".env", "export PORT=5000\n"), node], 5000, Some(5000)),
        (&[("Procfile", "web: PORT=9999 node server.js"), env], 9999, Some(9999)),
        (&[("Procfile", "web: PORT=9999 gunicorn a:b"), env], 9999, Some(9999)),
        (&[("Procfile", "web: next start -p 3005")], 3005, Some(8080)),
        // Not a mail server's, one of a comment, or a part of something else.
        (
            &[("server.js", "smtp.listen(2525); app.listen(parseInt(process.env.PORT,10)||4321)")],
            4321,
            Some(4321),
        ),
        (&[("server.js", "// app.listen(1234)\napp.listen({ port: 4702 })")], 4702, Some(4702)),
        (&[("server.js", "/*\n * app.listen(1)\n */\nlet port = 30_000;")], 3000, Some(3000)),
    ] {
        let number = |key: &String| {
            key.split(['"', ':']).filter_map(|word| word.parse::<u16>().ok()).next_back()
        };
        let found = only(files, &["listen"]).iter().find_map(number);
        let env = only(files, &["env.PORT"]).iter().find_map(number);
        assert_eq!((found, env), (Some(port), told), "{files:?}");
    }
}

#[test]
fn the_program_is_the_one_that_is_there() {
    let rust = "[package]\nname = \"shop\"\n";
    let flask = "app = Flask(__name__)";
    for (files, command) in [
        (
            &[("Cargo.toml", rust), ("src/bin/server.rs", ""), ("target/release/server", "")][..],
            "\"./target/release/server\"",
        ),
        (
            &[
                ("Cargo.toml", "[package]\nname = \"shop\"\ndefault-run = \"b\"\n"),
                ("src/main.rs", ""),
                ("src/bin/b.rs", ""),
            ],
            "\"./target/release/b\"",
        ),
        (
            &[
                ("Cargo.toml", "[package]\nname = \"x\"\n[[bin]]\nname = \"y\""),
                ("src/main.rs", ""),
            ],
            "\"./target/release/y\"",
        ),
        (
            &[("Cargo.toml", rust), ("src/main.rs", ""), ("../Cargo.toml", "[workspace]\n")],
            "\"../target/release/shop\"",
        ),
        (
            &[
                ("pyproject.toml", ""),
                ("src/shop/main.py", "app = FastAPI()"),
                ("uv.lock", "uvicorn"),
            ],
            "\"uvicorn\", \"--fd\", \"3\", \"--workers\", \"1\", \"shop.main:app\"",
        ),
        (
            &[("package.json", r#"{"scripts": {"start": "node a.js"}}"#), ("mock/app.py", flask)],
            "\"node\", \"a.js\"",
        ),
        (
            &[
                ("package.json", r#"{"scripts": {"start": "node a.js"}}"#),
                ("Gemfile", "gem 'puma'"),
            ],
            "\"node\", \"a.js\"",
        ),
        (
            &[("package.json", r#"{"scripts": {"start": "A=1 bun run x.ts"}}"#)],
            "\"bun\", \"run\", \"x.ts\"",
        ),
        (&[("go.mod", "module shop"), ("main.go", "package main // the server")], "\"./bin/shop\""),
    ] {
        assert_eq!(only(files, &["command"]), [format!("command = [{command}]")]);
    }
    let go = "package main\n&http.Server{\n\tAddr:    \":8443\",\n\tName:    \"x\"}";
    let go = only(&[("go.mod", "module shop"), ("main.go", go)], &["listen"]);
    assert_eq!(go, ["listen = [\"8443\"]"]);
}

#[test]
fn the_number_of_workers_is_that_of_the_env() {
    let env = (".env", "WEB_CONCURRENCY=3\n");
    let puma = ("config/puma.rb", "workers 4");
    for (files, workers) in [
        (&[env, ("Procfile", "web: uvicorn a:b")][..], "3"),
        (&[env, ("Procfile", "web: gunicorn a:b")], "3"),
        (&[env, ("Procfile", "web: puma")], "3"),
        (&[env, ("Procfile", "web: WEB_CONCURRENCY=2 puma")], "2"),
        (&[env, ("Procfile", "web: gunicorn -w 5 a:b")], "5"),
        (&[env, ("app.py", "app = Flask(__name__)")], "3"),
        (&[("Procfile", "web: gunicorn a:b")], "1"),
        // Its file was not run.
        (&[("Procfile", "web: puma"), puma], "\"cpus\""),
        (&[("Procfile", "web: gunicorn a:b"), ("gunicorn.conf.py", "workers = 4")], "\"cpus\""),
    ] {
        assert_eq!(only(files, &["workers"]), [format!("workers = {workers}")], "{files:?}");
    }
}
