//! What becomes of the attributes of PM2, and that none of them is passed over in silence.

use super::attributes::App;
use super::translate::{Translation, Wanted, translate};
use crate::cli::draft::{Draft, Table, valid_name};
use crate::cli::place::Place;
use crate::config::{Settings, file};
use crate::primary::refuse_name;
use serde_json::{Map, Value, json};

fn draft(app: &Value, environment: Option<&str>) -> Draft {
    let place = Place::nowhere("/srv/shop");
    let app = App::read(1, app.as_object().unwrap().clone()).unwrap();
    let wanted = Wanted { place: &place, environment, deployed: None };
    match translate(app, wanted).unwrap() {
        Translation::File(draft) => draft,
        Translation::None(reason) => panic!("{reason}"),
    }
}

/// The lines that `more` adds to a small app's file, or changes in it, comments aside; `[table]` before what is in one.
fn adds(more: Value) -> Vec<String> {
    let plain = json!({"name": "api", "script": "server.js", "exec_mode": "cluster"});
    let mut app = plain.clone();
    app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let lines = |draft: &Draft| {
        let text = draft.text();
        let typed = file::parse("api.toml", &text).unwrap();
        Settings::new(typed, 4).unwrap_or_else(|e| panic!("{e}:\n{text}"));
        let mut table = String::new();
        let mut lines = vec![];
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.strip_prefix('[') {
                Some(name) => table = format!("{}.", name.trim_end_matches(']')),
                None => lines.push(format!("{table}{line}")),
            }
        }
        lines
    };
    let before = lines(&draft(&plain, None));
    lines(&draft(&app, None)).into_iter().filter(|line| !before.contains(line)).collect()
}

/// What is said of an app, without its name.
fn says(app: Value) -> Vec<String> {
    let draft = draft(&app, None);
    let prefix = format!("{}: ", draft.name);
    draft.lines().map(|line| line.replacen(&prefix, "", 1)).collect()
}

#[test]
fn a_small_app_is_a_small_file() {
    let app = json!({"script": "dist/server.js", "instances": "4", "port": 3000});
    let text = draft(&app, None).text();
    assert_eq!(
        text,
        "\
# From PM2: app 1 of ecosystem.config.js, with values as they were on import. Workers see the variables that
# are named here and in the unit, not those of a shell.

# script: '/srv/shop/dist/server.js' is not there (yet)
command = [\"node\", \"dist/server.js\"]
workers = 4
working-directory = \"/srv/shop\"
# listen: it is given what it asks for, but without 'listen' systemd gets no units of this file; name all its
# ports, as in listen = [\"3000\"]
handoff = \"node\"

[env]
PORT = \"3000\"

[stop]
# as PM2 stops programs; leave it out for SIGTERM
signal = \"SIGINT\"
"
    );
}

#[test]
fn attributes_become_keys() {
    let limit = |count, within| {
        format!("restart.start-limit = {{ count = {count}, within = \"{within}\" }}")
    };
    let cases: Vec<(Value, Vec<String>)> = [
        (json!({"instances": "max"}), vec!["workers = \"cpus\""]),
        (json!({"instances": 0}), vec!["workers = \"cpus\""]),
        (json!({"instances": -1}), vec!["workers = \"cpus-1\""]),
        (json!({"instances": "-2"}), vec!["workers = \"cpus-2\""]),
        (json!({"instances": "8"}), vec!["workers = 8"]),
        (json!({"cwd": "../api"}), vec!["working-directory = \"/srv/api\""]),
        (json!({"cwd": "/opt/x/"}), vec!["working-directory = \"/opt/x\""]),
        (
            json!({"args": "-p \"a b\"", "node_args": "-r x"}),
            vec!["command = [\"node\", \"-r\", \"x\", \"server.js\", \"-p\", \"a b\"]"],
        ),
        (
            json!({"args": ["-p", 80, true]}),
            vec!["command = [\"node\", \"server.js\", \"-p\", \"80\", \"true\"]"],
        ),
        (
            json!({"source_map_support": true}),
            vec!["command = [\"node\", \"--enable-source-maps\", \"server.js\"]"],
        ),
        (json!({"port": 80}), vec!["env.PORT = \"80\""]),
        (json!({"env": {"PORT": "80"}}), vec!["env.PORT = \"80\""]),
        (
            json!({"env": {"PORT": 80, "HOST": "::1"}}),
            vec!["env.HOST = \"::1\"", "env.PORT = \"80\""],
        ),
        (
            json!({"env": {"PORT": "/run/x.sock"}}),
            vec!["env.PORT = \"/run/x.sock\""],
        ),
        (json!({"env": {"PORT": 0}}), vec!["env.PORT = \"0\""]),
        (
            json!({"env": {"A": 1.5, "B": true, "C": {"x": [1]}, "D": "ö \"", "E": null, "F-G": 1}}),
            vec![
                "env.A = \"1.5\"",
                "env.B = \"true\"",
                "env.C = '{\"x\":[1]}'",
                "env.D = 'ö \"'",
            ],
        ),
        (json!({"port": 3000, "increment_var": "PORT"}), vec!["env.PORT = \"{slot+3000}\""]),
        (json!({"increment_var": "N"}), vec!["env.N = \"{slot}\""]),
        (json!({"instance_var": "ID"}), vec!["env.ID = \"{slot}\""]),
        (json!({"instance_var": "NODE_APP_INSTANCE"}), vec![]),
        (json!({"wait_ready": true}), vec!["ready.when = \"message\""]),
        (json!({"listen_timeout": 90000}), vec!["ready.timeout = \"1m30s\""]),
        (json!({"kill_timeout": 1600}), vec!["stop.timeout = \"1s600ms\""]),
        (json!({"shutdown_with_message": true}), vec!["stop.message = \"shutdown\""]),
        (
            json!({"restart_delay": 4000}),
            vec!["restart.min-delay = \"4s\"", "restart.max-delay = \"4s\""],
        ),
        (
            json!({"exp_backoff_restart_delay": 100}),
            vec!["restart.min-delay = \"100ms\"", "restart.max-delay = \"15s\""],
        ),
    ]
    .into_iter()
    .map(|(app, lines)| (app, lines.into_iter().map(str::to_owned).collect()))
    .chain([
        (json!({"max_restarts": 0}), vec![limit(1, "2s")]),
        (json!({"max_restarts": 5, "min_uptime": "1h"}), vec![limit(5, "5h1s")]),
        (json!({"min_uptime": 2000}), vec![limit(16, "3m54s")]),
    ])
    .collect();
    for (app, expected) in cases {
        assert_eq!(adds(app.clone()), expected, "{app}");
    }
}

#[test]
fn a_script_finds_its_interpreter() {
    let command = |app: Value| {
        let draft = draft(&app, None);
        let handoff = draft.get(Table::Top, "handoff").unwrap().as_str().unwrap();
        format!("{handoff} {}", draft.get(Table::Top, "command").unwrap())
    };
    for (app, expected) in [
        (json!({"script": "npm", "args": "run start"}), r#"node ["npm", "run", "start"]"#),
        (json!({"script": "npm", "interpreter": "none"}), r#"node ["npm"]"#),
        (json!({"script": "npm start"}), r#"node ["npm", "start"]"#),
        (json!({"script": "./bin/www"}), r#"node ["node", "./bin/www"]"#),
        (json!({"script": "a.mjs"}), r#"node ["node", "a.mjs"]"#),
        (json!({"script": "a.ts"}), r#"node ["node", "a.ts"]"#),
        (json!({"script": "a.tsx"}), r#"node ["node", "--import", "tsx", "a.tsx"]"#),
        (json!({"script": "a.ts", "interpreter": "bun"}), r#"node ["bun", "a.ts"]"#),
        (
            json!({"script": "a.ts", "interpreter": "deno", "interpreter_args": "run -A"}),
            r#"node ["deno", "run", "-A", "a.ts"]"#,
        ),
        (
            json!({"script": "a.ts", "interpreter": "./node_modules/.bin/ts-node"}),
            r#"node ["./node_modules/.bin/ts-node", "a.ts"]"#,
        ),
        (json!({"script": "a.py"}), r#"fd ["python3", "a.py"]"#),
        (json!({"script": "a.sh", "args": "x"}), r#"fd ["bash", "a.sh", "x"]"#),
        (json!({"script": "server", "interpreter": "none"}), r#"fd ["./server"]"#),
        (json!({"script": "a.js", "interpreter": "node@99.0.0"}), r#"node ["node", "a.js"]"#),
        (
            json!({"script": "node a.js && true", "args": "x"}),
            r#"node ["bash", "-c", "node a.js && true"]"#,
        ),
        (json!({"script": "gunicorn -w 2"}), r#"fd ["gunicorn", "-w", "2"]"#),
    ] {
        assert_eq!(command(app.clone()), expected, "{app}");
    }
}

#[test]
fn bun_opens_its_port_by_itself() {
    let app =
        |more: &str| json!({"script": "a.ts", "interpreter": "bun", "port": 3000, more: true});
    let when = |more: &str| {
        let draft = draft(&app(more), None);
        assert!(draft.get(Table::Top, "listen").is_none());
        draft.get(Table::Ready, "when").unwrap().as_str().unwrap().to_owned()
    };
    assert_eq!((when("time").as_str(), when("wait_ready").as_str()), ("alive:2s", "message"));
}

#[test]
fn the_mode_decides_what_is_said() {
    let said = |more: Value| {
        let mut app = json!({"script": "a.js"});
        app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        says(app).iter().any(|line| line.starts_with("exec_mode: in fork mode"))
    };
    assert!(said(json!({})));
    assert!(!said(json!({"instances": 1})), "the number alone makes it PM2's cluster mode");
    assert!(said(json!({"instances": 2, "exec_mode": "fork"})));
    assert!(said(json!({"instances": 2, "execute_command": true})));
    assert!(!said(json!({"exec_mode": "cluster_mode"})));
    let app = json!({"script": "a.js", "exec_mode": "clutser"});
    let app = App::read(3, app.as_object().unwrap().clone()).unwrap();
    let place = Place::nowhere("/");
    let wanted = Wanted { place: &place, environment: None, deployed: None };
    let refused = translate(app, wanted).unwrap_err().reason;
    let expected = "app 3: 'exec_mode': expected 'fork' or 'cluster', found \"clutser\"";
    assert_eq!(refused, expected);
}

#[test]
fn environments_are_merged_as_pm2_merges_them() {
    let app = json!({"name": "api", "script": "a.js", "append_env_to_name": true,
        "env": {"A": "1", "B": "1"}, "env_production": {"B": "2"}, "env_test": {"B": "3"}});
    let plain = draft(&app, None);
    assert_eq!(plain.get(Table::Env, "B").unwrap().as_str(), Some("1"));
    assert!(plain.tells_of("env_production") && plain.tells_of("append_env_to_name"));
    let production = draft(&app, Some("production"));
    assert_eq!(production.name, "api-production");
    assert_eq!(production.get(Table::Env, "A").unwrap().as_str(), Some("1"));
    assert_eq!(production.get(Table::Env, "B").unwrap().as_str(), Some("2"));
    assert!(production.tells_of("env_test") && !production.tells_of("env_production"));
}

#[test]
fn names_are_made_ones_that_files_can_have() {
    for (wanted, name) in [
        ("api", "api"),
        ("my api  v2", "my-api-v2"),
        ("../../etc/passwd", "etc-passwd"),
        ("...", "app"),
        ("-rf", "rf"),
        ("приложение", "app"),
        ("a/b\n@1.0", "a-b-@1.0"),
        (&"x".repeat(99), &"x".repeat(40)),
    ] {
        assert_eq!(valid_name(wanted), name);
        assert_eq!(refuse_name(&valid_name(wanted)), None);
    }
}

#[test]
fn a_shell_is_not_stopped_by_what_it_waits_out() {
    let signal = |script: &str| {
        let draft = draft(&json!({"script": script}), None);
        draft.get(Table::Stop, "signal").is_some()
    };
    assert!(signal("a.js") && signal("a.py"));
    assert!(!signal("a.sh") && !signal("a | b"));
}

/// The attributes in PM2 7.0.3's schema, each followed by its aliases.
const SCHEMA: &str = "script exec cmd command, name, name_prefix, filter_env, namespace, install_url, cwd, args, \
    exec_interpreter interpreter, node_args interpreterArgs interpreter_args, out_file out output out_log, \
    error_file error err err_file err_log, log_file log, disable_logs, log_type, log_date_format, time, env, \
    env_production, max_memory_restart, pid_file pid, restart_delay, exp_backoff_restart_delay, \
    source_map_support, disable_source_map_support, wait_ready, instances, kill_timeout, \
    shutdown_with_message, listen_timeout, cron_restart cron, merge_logs combine_logs, vizion, autostart, \
    autorestart, stop_exit_codes, watch_delay, watch, ignore_watch, watch_options, min_uptime, max_restarts, \
    execute_command, exec_mode, force, append_env_to_name, post_update, trace, disable_trace, v8, \
    event_loop_inspector, deep_monitoring, increment_var, instance_var, pmx, automation, treekill, port, \
    username, uid user, gid, windowsHide, kill_retry_time, write, io";

/// A name in camel case, which PM2 takes for every attribute.
fn camel(name: &str) -> String {
    let mut upper = false;
    let mut camel = String::new();
    for c in name.chars() {
        match c {
            '_' => upper = true,
            c => {
                camel.push(if std::mem::take(&mut upper) { c.to_ascii_uppercase() } else { c });
            }
        }
    }
    camel
}

#[test]
fn no_attribute_is_passed_over_in_silence() {
    for names in SCHEMA.split(", ") {
        let mut names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
        if !names[0].starts_with("env_") {
            names.push(camel(&names[0]));
        }
        for base in [json!({"script": "a.js"}), json!({"script": "a.py", "instances": 2})] {
            let mut base = base.as_object().unwrap().clone();
            let silent = draft(&Value::Object(base.clone()), None).text();
            base.retain(|name, _| !names.contains(name));
            for name in &names {
                assert!(is_heard(&base, name, &silent) > 0, "{name}: no value is taken");
            }
        }
    }
}

/// Gives an app an attribute with values of all kinds, and looks that those that PM2 takes make a difference. Returns
/// how many it takes.
fn is_heard(base: &Map<String, Value>, name: &str, silent: &str) -> usize {
    let kinds = [
        json!("b.rb"),
        json!("5s"),
        json!("cluster"),
        json!(3),
        json!(0),
        json!(true),
        json!(false),
        json!(["x"]),
        json!({"A": 1}),
    ];
    let mut taken = 0;
    for value in kinds {
        let mut app = base.clone();
        app.insert(name.to_owned(), value.clone());
        let place = Place::nowhere("/srv/shop");
        let wanted = Wanted { place: &place, environment: None, deployed: None };
        let read = App::read(1, app).and_then(|app| translate(app, wanted));
        let Ok(Translation::File(draft)) = read else { continue };
        let text = draft.text();
        assert_ne!(text, silent, "{name} = {value}");
        for silence in ["not translated", "unknown to PM2"] {
            assert!(!text.contains(silence), "{name} = {value}:\n{text}");
        }
        taken += 1;
    }
    taken
}

/// The commands of PM2 7.0.3 with their aliases, and those of its options that are no attributes.
const COMMANDS: &str = "start stop restart reload delete del scale list ls l ps status jlist prettylist describe desc info \
    show env id pid monit dashboard dash imonit logs log flush reloadLogs logrotate reset sendSignal trigger send \
    attach inspect ping report dump save cleardump resurrect startup unstartup ecosystem init create startOrRestart \
    startOrReload startOrGracefulReload update updatePM2 deepUpdate kill serve expose deploy pull forward backward \
    install module:install module:update module:generate uninstall module:uninstall package publish module:publish \
    autoinstall set multiset get conf config unset link unlink monitor unmonitor open plus register login logout \
    install-otel uninstall-otel profile:mem profile:cpu slist sysinfos examples completion pm2-runtime pm2-dev";
const OPTIONS: &str = "-s --silent -m --mini-list --no-color --sort --attach -f --force --only --env -a --update-env \
    --parallel --no-daemon -w --write --wait-ip --service-name -u --user --hp -v --version --ext";

#[test]
fn the_documentation_has_a_counterpart_for_everything() {
    let text = include_str!("../../../../docs/from-pm2.md");
    let in_first_column = |name: &str| {
        let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
        rows.into_iter().any(|cell| cell.contains(&format!("`{name}`")))
    };
    let attributes =
        SCHEMA.split([',', ' ']).map(str::trim).filter(|name| *name != "env_production");
    let all = attributes.chain(COMMANDS.split_whitespace()).chain(OPTIONS.split_whitespace());
    let missing: Vec<&str> =
        all.filter(|name| !name.is_empty() && !in_first_column(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
