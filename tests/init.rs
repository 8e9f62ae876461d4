//! `dogwatch init` and `dogwatch import` for real servers: what they write passes `check`, serves, and loses nothing in
//! reloads under load.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Command;
use support::primary::Setup;
use support::{Load, dogwatch, load_client, skip, which};

/// A folder with these files.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

/// Calls dogwatch in a folder and returns its exit code and what it said.
fn call(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("timeout");
    command.arg("60").arg(dogwatch()).args(arguments).current_dir(folder).env("PWD", folder);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// Has a file written by `verb`, and reloads what it runs under load.
fn serves_through_reloads(files: &[(&str, &str)], verb: &dyn Fn(&str) -> Vec<String>) {
    let setup = Setup::new(&[]).passing_nothing();
    let port = setup.port().to_string();
    let files: Vec<(&str, String)> =
        files.iter().map(|(name, text)| (*name, text.replace("@PORT@", &port))).collect();
    let files: Vec<(&str, &str)> =
        files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let project = tree(&files);
    let verb = verb(&port);
    let arguments: Vec<&str> = verb.iter().map(String::as_str).chain(["-o", "etc"]).collect();
    let (code, said) = call(project.path(), &arguments);
    assert_eq!(code, Some(0), "{said}");
    let file = said.lines().find_map(|line| line.strip_prefix("wrote ")).unwrap();
    let file = project.path().join(file);
    let (code, said) = call(project.path(), &["check", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    let mut primary =
        setup.arguments(&["--config", file.to_str().unwrap(), "--settle", "0ms"]).start();
    primary.says("started: ");
    primary.is_ready();
    let address = primary.address.to_string();
    // One client, so that there is always a worker who waits.
    let load = Load::start(Command::new(load_client()).args([&address, "--clients", "1"]));
    let load = load.begun();
    for generation in 2..=4 {
        assert!(primary.get("/").contains("pid "), "{}", primary.said);
        primary.signal(Signal::SIGHUP);
        primary.says(&format!("reload done: generation {generation}"));
    }
    load.stop().assert_clean(1);
    primary.stop();
}

fn init(port: &str) -> Vec<String> {
    ["init", "--name", "shop", "-l", &format!("127.0.0.1:{port}")].map(str::to_owned).to_vec()
}

fn import(file: &'static str) -> impl Fn(&str) -> Vec<String> {
    move |_| ["import", file].map(str::to_owned).to_vec()
}

/// Whether a program is missing, and may be.
fn lacks(program: &str) -> bool {
    which(program).is_none() && skip(program)
}

const WSGI: &str = "
import os
def app(environ, start_response):
    body = b'pid %d' % os.getpid()
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]
";

const ASGI: &str = "
import os
async def app(scope, receive, send):
    if scope['type'] != 'http':
        return
    body = b'pid %d' % os.getpid()
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', str(len(body)).encode())]})
    await send({'type': 'http.response.body', 'body': body})
";

const RACK: &str = "run lambda { |env| body = \"pid #{Process.pid}\"; [200, { 'content-length' => body.size.to_s }, [body]] }\n";

const NODE: &str = "
require('http').createServer((request, answer) => answer.end('pid ' + process.pid)).listen(process.env.PORT || 3000)
";

#[test]
fn a_node_program_as_it_is() {
    if lacks("node") {
        return;
    }
    let package = r#"{"name": "@my/shop", "scripts": {"start": "node server.js"}}"#;
    serves_through_reloads(&[("package.json", package), ("server.js", NODE)], &init);
}

#[test]
fn a_python_program_that_takes_its_socket() {
    if lacks("python3") {
        return;
    }
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/python/app.py");
    let text = std::fs::read_to_string(example).unwrap();
    serves_through_reloads(&[("app.py", &text)], &init);
}

#[test]
fn a_wsgi_app_by_gunicorn() {
    if lacks("gunicorn") {
        return;
    }
    serves_through_reloads(&[("wsgi.py", WSGI)], &init);
}

#[test]
fn an_asgi_app_by_uvicorn() {
    if lacks("uvicorn") {
        return;
    }
    serves_through_reloads(&[("main.py", ASGI)], &init);
}

#[test]
fn a_rack_app_by_puma() {
    if lacks("puma") {
        return;
    }
    serves_through_reloads(&[("config.ru", RACK)], &init);
}

#[test]
fn gunicorns_file_with_its_hooks() {
    if lacks("gunicorn") {
        return;
    }
    let config = "
import multiprocessing
bind = '127.0.0.1:@PORT@'
workers = multiprocessing.cpu_count() * 0 + 3
worker_class = 'gthread'
threads = 2
graceful_timeout = 20
def post_worker_init(worker):
    open('hooked', 'w').close()
    assert worker.cfg.workers == 1
";
    serves_through_reloads(&[("app.py", WSGI), ("gunicorn.conf.py", config)], &|port| {
        import("gunicorn.conf.py")(port)
    });
}

#[test]
fn pumas_file_that_wants_a_cluster() {
    if lacks("puma") || lacks("ruby") {
        return;
    }
    let config = "
threads_count = ENV.fetch('RAILS_MAX_THREADS', 3)
threads threads_count, threads_count
workers Integer(ENV.fetch('WEB_CONCURRENCY', 3))
preload_app!
bind 'tcp://127.0.0.1:@PORT@'
before_fork { raise 'nothing is forked' }
";
    serves_through_reloads(
        &[("config.ru", RACK), ("config/puma.rb", config)],
        &import("config/puma.rb"),
    );
}

#[test]
fn a_procfiles_line_for_gunicorn() {
    if lacks("gunicorn") {
        return;
    }
    let procfile = "web: echo migrate && GREETING=x gunicorn app:app -w 2 -b 127.0.0.1:$PORT --threads=2 --pid x.pid --preload\n";
    serves_through_reloads(
        &[("app.py", WSGI), ("Procfile", procfile), (".env", "PORT=@PORT@\n")],
        &import("Procfile"),
    );
}

#[test]
fn a_procfiles_line_for_unicorn() {
    if lacks("unicorn") {
        return;
    }
    serves_through_reloads(
        &[
            ("config.ru", RACK),
            ("Procfile", "web: unicorn -l 127.0.0.1:$PORT\n"),
            (".env", "PORT=@PORT@\n"),
        ],
        &import("Procfile"),
    );
}

#[test]
fn a_procfiles_line_for_node() {
    if lacks("node") {
        return;
    }
    serves_through_reloads(
        &[
            ("server.js", NODE),
            ("Procfile", "web: node server.js\nworker: node worker.js\n"),
            (".env", "PORT=@PORT@\n"),
        ],
        &import("Procfile"),
    );
}

#[test]
fn a_broken_version_by_gunicorn_is_rolled_back() {
    if lacks("gunicorn") {
        return;
    }
    // gunicorn says READY=1 before it has loaded the app, so that must not be what counts.
    let setup = Setup::new(&[]).passing_nothing();
    let project = tree(&[("wsgi.py", WSGI)]);
    let verb = init(&setup.port().to_string());
    let arguments: Vec<&str> = verb.iter().map(String::as_str).chain(["-o", "shop.toml"]).collect();
    let (code, said) = call(
        project.path(),
        &arguments[..]
            .iter()
            .copied()
            .filter(|a| *a != "--name" && *a != "shop")
            .collect::<Vec<_>>(),
    );
    assert_eq!(code, Some(0), "{said}");
    let file = project.path().join("shop.toml");
    let mut primary =
        setup.arguments(&["--config", file.to_str().unwrap(), "--settle", "0ms"]).start();
    primary.says("started: ");
    std::fs::write(
        project.path().join("wsgi.py"),
        "import time\ntime.sleep(0.5)\nraise RuntimeError(1)\ndef app(environ): 0\n",
    )
    .unwrap();
    primary.signal(Signal::SIGHUP);
    primary.says("rolling back");
    primary.says("reload failed");
    primary.stop();
}

#[test]
fn init_writes_a_file_that_is_not_there_and_says_what_it_does_not() {
    let project = tree(&[("server.js", NODE), ("Procfile", "clock: x\n")]);
    let (code, said) = call(project.path(), &["init", "-o", "etc/api.toml"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("wrote etc/api.toml\n"), "{said}");
    let (code, said) = call(project.path(), &["init", "-o", "etc", "--name", "api"]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("cannot write 'etc/api.toml': it is there already; nothing was written"),
        "{said}"
    );
    let (code, _) = call(project.path(), &["init", "-o", "etc", "--name", "api", "--force"]);
    assert_eq!(code, Some(0));
    let (code, said) = call(project.path(), &["init", "--name", "a/b"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("'a/b' cannot be the name of an app"), "{said}");
    let (code, said) = call(project.path(), &["init", "no-such"]);
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    let empty = tree(&[]);
    let (code, said) = call(empty.path(), &["init"]);
    assert_eq!(code, Some(2));
    assert!(
        said.starts_with("dogwatch: cannot init '.': nothing in it says what to run"),
        "{said}"
    );
    assert!(said.contains("\nhint: "), "{said}");
}

#[test]
fn check_looks_at_each_file() {
    let folder = tree(&[
        ("a.toml", "command = [\"sh\"]\nlisten = [\"8080\"]"),
        ("b.toml", "comand = 1"),
        ("c.toml", "command = [\"sh\"]\nworkers = 2"),
    ]);
    let (code, said) = call(folder.path(), &["check", "a.toml", "b.toml", "c.toml"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("a.toml: good, 1 worker of 'sh'\n"), "{said}");
    assert!(
        said.contains("c.toml: good, 2 workers of 'sh'; without 'listen' it gets no units\n"),
        "{said}"
    );
    assert!(said.contains("dogwatch: b.toml:1: "), "{said}");
    assert_eq!(call(folder.path(), &["check", "a.toml", "c.toml"]).0, Some(0));
    assert_eq!(call(folder.path(), &["check"]).0, Some(2));
}
