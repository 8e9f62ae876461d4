//! What becomes of lines that start a server, and that no setting of gunicorn and Puma lacks its counterpart.

use super::serve::{Web, address, command};
use super::variables::Variables;
use super::{gunicorn, procfile, puma};
use crate::cli::draft::{Draft, Table};
use crate::cli::place::Place;
use crate::config::{Settings, file};
use std::path::Path;

/// The lines of the file for a line of a Procfile, comments aside, and what is said of it.
fn translated(line: &str, port: Option<u16>) -> Result<(Vec<String>, Vec<String>), String> {
    let mut draft = Draft::new("shop".to_owned(), String::new(), "Rest");
    let folder = Path::new("/no/such/folder");
    let variables = &Variables::default();
    let web = Web { folder, runs_files: true, listen: None, port, variables };
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    command(&words, web, &mut draft).map_err(|unusable| unusable.reason)?;
    let text = draft.text();
    let settings = file::parse("shop.toml", &text).and_then(|typed| Ok(Settings::new(typed, 4)?));
    settings.unwrap_or_else(|error| panic!("{error}:\n{text}"));
    let is_key = |line: &&str| !line.is_empty() && !line.starts_with(['#', '[']);
    let keys = text.lines().filter(is_key).map(str::to_owned).collect();
    Ok((keys, draft.lines().collect()))
}

const ACCEPTING: &str = "when = \"accepting\"";

#[test]
fn flags_become_keys_and_what_is_the_servers_stays() {
    let steered = "balance = \"steered\"";
    for (line, port, keys) in [
        (
            "gunicorn -w4 -b :8000 --timeout 30 --threads=2 shop.wsgi",
            None,
            &[
                "command = [\"gunicorn\", \"--timeout\", \"30\", \"--threads\", \"2\", \"-w\", \"1\", \"shop.wsgi\"]",
                "workers = 4",
                "listen = [\"0.0.0.0:8000\"]",
                steered,
                ACCEPTING,
            ][..],
        ),
        (
            "gunicorn app:app",
            Some(5000),
            &[
                "command = [\"gunicorn\", \"-w\", \"1\", \"app:app\"]",
                "workers = 1",
                "listen = [\"0.0.0.0:5000\"]",
                ACCEPTING,
            ],
        ),
        (
            "python3 -m gunicorn --bind=127.0.0.1:1 --bind unix:run/x.sock --graceful-timeout 5 -k uvicorn.workers.UvicornWorker --chdir /srv app:app",
            None,
            &[
                "command = [\"python3\", \"-m\", \"gunicorn\", \"-k\", \"uvicorn.workers.UvicornWorker\", \"--graceful-timeout\", \"5\", \"-w\", \"1\", \"app:app\"]",
                "workers = 1",
                "listen = [\"127.0.0.1:1\", \"unix:/srv/run/x.sock\"]",
                steered,
                ACCEPTING,
                "drain = \"5s\"",
            ],
        ),
        (
            "gunicorn -u www-data --group=www-data app:app",
            None,
            &[
                "command = [\"gunicorn\", \"-w\", \"1\", \"app:app\"]",
                "workers = 1",
                "listen = [\"127.0.0.1:8000\"]",
                "user = \"www-data\"",
                "group = \"www-data\"",
                ACCEPTING,
            ],
        ),
        (
            "uvicorn app:app --host :: --port 80 --workers 2 --log-level info",
            None,
            &[
                "command = [\"uvicorn\", \"--fd\", \"3\", \"--workers\", \"1\", \"app:app\", \"--log-level\", \"info\"]",
                "workers = 2",
                "listen = [\"[::]:80\"]",
                steered,
                ACCEPTING,
            ],
        ),
        (
            "hypercorn -b 0.0.0.0:80 -w 2 app:app",
            None,
            &[
                "command = [\"hypercorn\", \"-w\", \"0\", \"--bind\", \"fd://3\", \"app:app\"]",
                "workers = 2",
                "listen = [\"0.0.0.0:80\"]",
                steered,
                ACCEPTING,
            ],
        ),
        (
            "daphne -b 0.0.0.0 -p 80 app:app",
            None,
            &[
                "command = [\"daphne\", \"--fd\", \"3\", \"app:app\"]",
                "listen = [\"0.0.0.0:80\"]",
                steered,
                ACCEPTING,
            ],
        ),
        (
            "bundle exec puma -t 5:5 -w 3 -p 80 -e production",
            None,
            &[
                "command = [\"bundle\", \"exec\", \"puma\", \"-w\", \"0\", \"--bind-to-activated-sockets\", \"only\", \"-t\", \"5:5\"]",
                "workers = 3",
                "listen = [\"0.0.0.0:80\"]",
                steered,
                "RACK_ENV = \"production\"",
            ],
        ),
        (
            "bin/rails server -p 80 -e staging",
            None,
            &[
                "command = [\"puma\", \"-w\", \"0\", \"--bind-to-activated-sockets\", \"only\"]",
                "workers = 1",
                "listen = [\"0.0.0.0:80\"]",
                steered,
                "RACK_ENV = \"staging\"",
            ],
        ),
        (
            "puma",
            Some(80),
            &[
                "command = [\"puma\", \"-w\", \"0\", \"--bind-to-activated-sockets\", \"only\"]",
                "workers = 1",
                "listen = [\"0.0.0.0:80\"]",
                steered,
                "RACK_ENV = \"production\"",
            ],
        ),
        (
            "unicorn -l 127.0.0.1:80 -E production",
            None,
            &[
                "command = [\"unicorn\", \"-E\", \"production\", \"-l\", \"127.0.0.1:80\"]",
                "listen = [\"127.0.0.1:80\"]",
                ACCEPTING,
                "signal = \"SIGQUIT\"",
            ],
        ),
        (
            "npm start",
            Some(80),
            &["command = [\"npm\", \"start\"]", "listen = [\"80\"]", "handoff = \"node\""],
        ),
        (
            "./server -x",
            Some(80),
            &["command = [\"./server\", \"-x\"]", "listen = [\"80\"]", "handoff = \"fd\""],
        ),
        (
            "python manage.py runserver 80",
            Some(80),
            &[
                "command = [\"python\", \"manage.py\", \"runserver\", \"80\"]",
                "workers = 1",
                "when = \"alive:2s\"",
            ],
        ),
    ] {
        assert_eq!(translated(line, port).unwrap().0, keys, "{line}");
    }
}

#[test]
fn what_has_no_counterpart_is_named() {
    for (line, said) in [
        (
            "gunicorn --pid x -D app:app",
            "shop: pidfile: the second worker would find the first one's",
        ),
        ("gunicorn --pid x -D app:app", "shop: daemon: a worker stays where it was started"),
        ("gunicorn --preload app:app", "shop: preload_app: nothing is shared among workers"),
        ("gunicorn -u ../x app:app", "shop: user: systemd starts the service as its user"),
        ("gunicorn -g www-data app:app", "shop: group: systemd starts the service as its user"),
        ("gunicorn -e x app:app", "shop: raw_env: 'x' is no NAME=VALUE"),
        ("uv run gunicorn app:app", "shop: uv: 'uv run' may stay between"),
        ("puma --control-url tcp://x", "shop: activate_control_app: "),
        ("puma -b ssl://0.0.0.0:1", "shop: ssl_bind: "),
        ("flask run", "shop: command: 'flask run' is for development"),
        ("fastapi run main.py", "shop: command: 'fastapi' opens its port by itself"),
        ("php -S 0.0.0.0:80", "shop: command: PHP's built-in server opens its port by itself"),
        ("./server", "shop: command: it must take its socket as file descriptor 3"),
    ] {
        let (_, lines) = translated(line, None).unwrap();
        assert!(lines.iter().any(|line| line.starts_with(said)), "{said}:\n{}", lines.join("\n"));
    }
    for (line, reason) in [
        ("gunicorn -w", "'-w' of gunicorn has no value"),
        ("gunicorn -w x a:b", "'workers': expected a number from 1 up, found x"),
        ("gunicorn --graceful-timeout x a:b", "'graceful_timeout': expected seconds, found x"),
        ("uvicorn --port", "'--port' of uvicorn has no value"),
        ("uvicorn --workers x a:b", "'--workers' of uvicorn: expected a number, found x"),
        ("puma -w x", "'workers': expected a number, found x"),
        ("puma -b", "'-b' of Puma has no value"),
    ] {
        assert_eq!(translated(line, None).unwrap_err(), reason, "{line}");
    }
}

#[test]
fn addresses_are_read_as_servers_write_them() {
    let folder = Path::new("/srv");
    for (written, read) in [
        (":80", Some("0.0.0.0:80")),
        ("localhost:80", Some("127.0.0.1:80")),
        ("localhost", Some("127.0.0.1:8000")),
        ("[::1]:80", Some("[::1]:80")),
        ("tcp://0.0.0.0:80?backlog=5", Some("0.0.0.0:80")),
        ("unix:x.sock", Some("unix:/srv/x.sock")),
        ("unix:///run/x.sock?umask=0", Some("unix:/run/x.sock")),
        ("/run/x.sock", Some("unix:/run/x.sock")),
        ("8000", Some("8000")),
        ("host.example:80", Some("80")),
        ("fd://3", None),
        ("ssl://0.0.0.0:1", None),
        ("x:y", None),
        ("", None),
    ] {
        assert_eq!(address(written, 8000, folder).as_deref(), read, "{written}");
    }
}

#[test]
fn a_procfile_is_lines_with_names() {
    let text = "# x\n\nweb: a $PORT\r\n  worker:b\nbad line\n: c\nx y: d\nempty:\nweb: e\n";
    let (processes, remarks) = procfile::parse(text, 65_500);
    let all: Vec<_> =
        processes.iter().map(|p| (p.name.as_str(), p.line.as_str(), p.port)).collect();
    assert_eq!(all, [("web", "a $PORT", 65_500), ("worker", "b", 65_535)]);
    assert_eq!(remarks.len(), 5, "{remarks:?}");
    assert_eq!(remarks[4], "line 9 is left out, for there is a 'web' before it");
    let (processes, _) = procfile::parse("release: rake $PORT\nweb: a\nmail: b\n", 5000);
    let all: Vec<_> = processes.iter().map(|p| (p.name.as_str(), p.serves())).collect();
    assert_eq!(all, [("release", false), ("web", true), ("mail", false)]);
    assert_eq!((processes[1].port, processes[2].port), (5000, 5100));
    assert!(procfile::serves_nothing(&processes[0]).contains("a step of the deploy"));
}

#[test]
fn the_environment_of_a_procfile_is_written_as_toml() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Procfile"), "web: A='x\"y' B=\"$PORT z\" ./s '\\'\n")
        .unwrap();
    let imported = procfile::translated(&Place::of(&folder.path().join("Procfile")));
    let drafts = imported.unwrap().drafts;
    let env = |name| drafts[0].get(Table::Env, name).and_then(toml::Value::as_str).unwrap();
    assert_eq!((env("A"), env("B"), env("PORT")), ("x\"y", "5000 z", "5000"));
    let typed = file::parse("x.toml", &drafts[0].text()).unwrap();
    assert_eq!(typed.command.unwrap(), ["./s", "\\"]);
}

#[test]
fn what_explains_a_key_is_said_once() {
    let mut draft = Draft::new("shop".to_owned(), String::new(), "Rest");
    let variables = &Variables::default();
    let folder = Path::new("/no/such/folder");
    let web = Web { folder, runs_files: true, listen: None, port: None, variables };
    let line = "gunicorn --threads 4 -k uvicorn.workers.UvicornWorker a:b";
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    command(&words, web, &mut draft).unwrap();
    assert_eq!(draft.text().matches("this server resets").count(), 1);
}

/// What Puma 5.6 to 7 can be told in its file.
const PUMA: &str = "activate_control_app add_pem_values_to_options_store after_worker_fork app before_fork bind \
    bind_to_activated_sockets clean_thread_locals clear_binds! debug default_host directory drain_on_shutdown early_hints \
    environment extra_runtime_dependencies first_data_timeout force_shutdown_after fork_worker get inject io_selector_backend \
    load log_formatter log_requests lowlevel_error_handler max_fast_inline mutate_stdout_and_stderr_to_sync_on_write \
    nakayoshi_fork on_refork on_restart on_worker_boot on_worker_fork on_worker_shutdown out_of_band persistent_timeout pidfile \
    plugin port preload_app! prune_bundler queue_requests quiet rack_url_scheme rackup raise_exception_on_sigterm \
    restart_command set_default_host set_remote_address shutdown_debug silence_single_worker_warning ssl_bind state_path \
    state_permission stdout_redirect tag threads wait_for_less_busy_worker worker_boot_timeout worker_check_interval \
    worker_culling_strategy worker_shutdown_timeout worker_timeout workers";

#[test]
fn the_documentation_has_a_counterpart_for_every_setting() {
    let text = include_str!("../../../docs/from-gunicorn-and-puma.md");
    let cells: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
    let is_there = |name: &str| cells.iter().any(|cell| cell.contains(&format!("`{name}`")));
    let ours = gunicorn::settings::SETTINGS.iter().map(|(name, ..)| *name);
    let dropped = puma::DROPPED.iter().flat_map(|(names, _)| names.iter().copied());
    let missing: Vec<&str> =
        ours.chain(PUMA.split_whitespace()).chain(dropped).filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
