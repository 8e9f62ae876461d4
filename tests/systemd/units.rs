//! One file is a service: what systemd makes of the units that the generator makes of `/etc/dogwatch/shop.toml`.

use super::boxed::Boxed;
use super::load_of;
use std::path::Path;

on_both! {
    one_file_is_a_service_at_boot
    bad_files_say_why_and_the_others_work
    administrators_have_the_last_word
    a_changed_port_is_taken_when_the_app_is_stopped
    a_file_that_becomes_bad_or_goes_hurts_nobody
    a_users_own_file_is_a_users_own_service
    every_relaxation_is_known_to_systemd
}

const SHOP: &str = r#"command = ["/usr/bin/dogwatch", "demo-worker"]
workers = 2
listen = ["8080"]
[ready]
settle = "50ms"
"#;

/// A box with these files in /etc/dogwatch.
fn files(root: &Path, files: &[(&str, &str)]) -> Boxed {
    Boxed::boot(root, |layer| {
        std::fs::create_dir_all(layer.join("etc/dogwatch")).unwrap();
        std::fs::create_dir_all(layer.join("etc/systemd/system")).unwrap();
        for (name, text) in files {
            std::fs::write(layer.join("etc/dogwatch").join(name), text).unwrap();
        }
    })
}

fn is_served(boxed: &Boxed) {
    assert!(boxed.ok("curl -sS http://127.0.0.1:8080/").starts_with("hello from worker "));
}

fn enabled(text: &str) -> String {
    format!("enabled = true\n{text}")
}

fn one_file_is_a_service_at_boot(root: &Path) {
    let lazy = SHOP.replace("8080", "8081");
    // Something has to be up before it, as a database.
    let after = "[unit]\nAfter = \"first.service\"\nWants = \"first.service\"\n";
    let first = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/true\n";
    let boxed = files(
        root,
        &[
            ("shop.toml", &(enabled(SHOP) + after)),
            ("lazy.toml", &format!("enabled = \"socket\"\n{lazy}")),
            ("../systemd/system/first.service", first),
        ],
    );
    boxed.until("test $(systemctl show -P ActiveState shop) = active");
    is_served(&boxed);
    assert_eq!(boxed.show("first", "ActiveState"), "active");
    let status = boxed.ok("systemctl status shop.service");
    for line in
        ["loaded (/etc/dogwatch/shop.toml; generated)", "Status: \"2 workers ready, generation 1\""]
    {
        assert!(status.contains(line), "{line}\n{status}");
    }
    assert_eq!(
        boxed.ok("systemctl is-active lazy.socket lazy.service || true"),
        "active\ninactive\n"
    );
    assert!(boxed.ok("curl -sS http://127.0.0.1:8081/").starts_with("hello"));
    // It lives as any unit does.
    boxed.ok("systemctl reload shop");
    assert_eq!(boxed.show("shop", "StatusText"), "2 workers ready, generation 2");
    boxed.ok("systemctl restart shop");
    is_served(&boxed);
    assert!(boxed.journal("shop").contains("started: 2 of 2 slots are served"));
    assert!(boxed.ok("systemctl cat shop").contains("SourcePath=/etc/dogwatch/shop.toml"));
    boxed.ok("touch -d '+1 hour' /etc/dogwatch/shop.toml");
    assert_eq!(boxed.show("shop", "NeedDaemonReload"), "yes");
    boxed.ok("systemctl daemon-reload");
    assert_eq!(boxed.show("shop", "NeedDaemonReload"), "no");
    let units = "/run/systemd/generator/shop.socket /run/systemd/generator/shop.service";
    let (said, code) = boxed.try_run(&format!("systemd-analyze verify {units} 2>&1"));
    // Systemd 252 knows some lines that 254 brought only as unknown ones.
    let bad: Vec<&str> = said.lines().filter(|line| !line.contains("Unknown key")).collect();
    assert!(code == 0 && bad.is_empty(), "{said}");
    let score = boxed.ok("systemd-analyze security --no-pager shop.service | tail -1");
    let score: f32 = score.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    assert!(score <= 2.0, "{score}");
    // Stopped is stopped when both are.
    boxed.ok("systemctl stop shop.socket shop.service");
    assert_ne!(boxed.try_run("curl -sS http://127.0.0.1:8080/").1, 0);
    assert_eq!(boxed.ok("pgrep -fc '/etc/dogwatch/[s]hop.toml' || true").trim(), "0");
}

fn bad_files_say_why_and_the_others_work(root: &Path) {
    let bad = "command = [\"x\"]\ninstances = 4\n";
    let boxed = files(
        root,
        &[
            ("shop.toml", &enabled(SHOP)),
            ("bad.toml", bad),
            ("caf\u{e9}.toml", SHOP),
            ("a@b.toml", SHOP),
            ("dbus.toml", &SHOP.replace("8080", "8083")),
        ],
    );
    // At boot, before there is a journal: a unit says it.
    boxed.until("systemctl is-failed dogwatch-refused");
    let said = boxed.journal("dogwatch-refused");
    for line in [
        "'bad': /etc/dogwatch/bad.toml:2: unknown key 'instances'",
        "hint: it is called 'workers' here",
        "'caf\u{e9}' cannot be the name of an app",
        "'a@b' cannot be the name of a unit of its own",
        "'dbus': a package has a unit of this name, '/usr/",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    boxed.until("test $(systemctl show -P ActiveState shop) = active");
    assert_eq!(boxed.show("bad.service", "LoadState"), "not-found");
    // Later: the journal itself, where one looks for it.
    boxed.put("/etc/dogwatch/thief.toml", SHOP);
    boxed.ok("systemctl daemon-reload");
    let thief = boxed.journal("thief");
    assert!(
        thief.contains("/etc/dogwatch/thief.toml:3: 'listen': '8080' is that of 'shop' (/etc/dogwatch/shop.toml)"),
        "{thief}"
    );
    assert!(boxed.journal("bad").contains("bad.toml:2: unknown key"));
    is_served(&boxed);
    // One that cannot start says so, and the command that starts it does not wait for ever.
    boxed.put("/etc/dogwatch/lost.toml", "command = [\"no-such-program\"]\nlisten = [\"8085\"]\n");
    let (said, code) = boxed.try_run("systemctl daemon-reload && systemctl start lost");
    assert_eq!(code, 1, "{said}");
    assert!(boxed.journal("lost").contains("cannot find program 'no-such-program'"));
    boxed.ok("systemctl stop lost.socket lost.service");
    // What is mended works.
    boxed.put("/etc/dogwatch/bad.toml", &SHOP.replace("8080", "8082"));
    boxed.ok("systemctl daemon-reload && systemctl start bad && curl -sS http://127.0.0.1:8082/");
}

fn administrators_have_the_last_word(root: &Path) {
    let boxed = files(root, &[("shop.toml", SHOP)]);
    // A drop-in adds to what is made.
    boxed.put("/etc/systemd/system/shop.service.d/more.conf", "[Service]\nEnvironment=MORE=1\n");
    boxed.ok("systemctl daemon-reload && systemctl start shop");
    assert_eq!(boxed.ok("curl -sS http://127.0.0.1:8080/env?MORE"), "1\n");
    boxed.ok("systemctl stop shop.socket shop.service");
    // A unit of their own replaces it.
    boxed.put(
        "/etc/systemd/system/shop.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/true\n",
    );
    boxed.ok("systemctl daemon-reload && systemctl start shop.service");
    assert_eq!(boxed.show("shop", "FragmentPath"), "/etc/systemd/system/shop.service");
    boxed.ok("systemctl stop shop.service && rm /etc/systemd/system/shop.service");
    // Masked is masked.
    boxed.ok("systemctl daemon-reload && systemctl mask shop.socket shop.service");
    assert!(boxed.try_run("systemctl start shop.socket").0.contains("masked"));
    boxed.ok("systemctl unmask shop.socket shop.service && systemctl start shop.socket");
    is_served(&boxed);
    let (said, code) = boxed.try_run("systemctl enable shop.socket");
    assert!(code != 0 && said.contains("generated"), "{said}");
}

/// Ends the primary, and waits until the next one is there and has its workers.
fn kill_the_primary(boxed: &Boxed) {
    let restarts: u32 = boxed.show("shop", "NRestarts").parse().unwrap();
    boxed.ok("pid=$(systemctl show -P MainPID shop) && test \"$pid\" -gt 1 && kill -9 \"$pid\"");
    boxed.until(&format!("test $(systemctl show -P NRestarts shop) = {}", restarts + 1));
    boxed.until("test $(systemctl show -P ActiveState shop) = active");
    is_served(boxed);
}

fn a_changed_port_is_taken_when_the_app_is_stopped(root: &Path) {
    let boxed =
        files(root, &[("shop.toml", &enabled(SHOP)), ("lazy.toml", &SHOP.replace("8080", "8081"))]);
    boxed.until("test $(systemctl show -P ActiveState shop) = active");
    boxed.ok("systemctl start lazy.socket");
    let load = load_of(&boxed, 4, 1);
    for (app, port, other) in [("shop", "8080", "9090"), ("lazy", "8081", "9091")] {
        boxed.put(&format!("/etc/dogwatch/{app}.toml"), &SHOP.replace("8080", other));
        boxed.ok("systemctl daemon-reload");
        assert!(
            boxed.journal(app).contains(&format!("'{app}' listens elsewhere than its file says"))
        );
        boxed.ok(&format!("curl -sS http://127.0.0.1:{port}/"));
    }
    kill_the_primary(&boxed);
    boxed.ok("systemctl reload shop");
    boxed.ok("systemctl restart shop");
    is_served(&boxed);
    load.stop().assert_clean(1);
    // What the journal says is to be typed.
    boxed.ok(
        "systemctl stop shop.socket shop.service; systemctl daemon-reload; systemctl start shop",
    );
    assert!(boxed.ok("curl -sS http://127.0.0.1:9090/").starts_with("hello"));
    assert_ne!(boxed.try_run("curl -sS http://127.0.0.1:8080/").1, 0);
}

fn a_file_that_becomes_bad_or_goes_hurts_nobody(root: &Path) {
    let boxed = files(root, &[("shop.toml", &enabled(SHOP))]);
    boxed.until("test $(systemctl show -P ActiveState shop) = active");
    let load = load_of(&boxed, 4, 1);
    for bad in ["first = 4\n", "second = \n", "listen = [8080]\n"] {
        boxed.put("/etc/dogwatch/shop.toml", &format!("{bad}{SHOP}"));
        boxed.ok("systemctl daemon-reload");
        assert_eq!(boxed.show("shop", "KillMode"), "process");
        // Everything that a unit gives is still there: the next primary takes the workers back.
        kill_the_primary(&boxed);
        let (said, code) = boxed.try_run("systemctl reload shop; dogwatch reload shop");
        assert!(code != 0 && said.contains("/etc/dogwatch/shop.toml:"), "{said}");
    }
    let said = boxed.journal("shop");
    for key in ["unknown key 'first'", "'second'", "'listen'"] {
        assert!(
            said.lines()
                .any(|line| line.contains(key)
                    || key == "'second'" && line.contains("not valid TOML")),
            "{key}\n{said}"
        );
    }
    assert!(said.contains("the app is there, so it keeps the units that it has"), "{said}");
    boxed.put("/etc/dogwatch/shop.toml", &enabled(SHOP));
    boxed.ok("systemctl daemon-reload && systemctl reload shop");
    // Without a file it serves on until it is stopped, and nothing is left then.
    boxed.ok("rm /etc/dogwatch/shop.toml && systemctl daemon-reload");
    assert_eq!(boxed.show("shop", "KillMode"), "process");
    kill_the_primary(&boxed);
    load.stop().assert_clean(1);
    boxed.ok("systemctl stop shop.socket shop.service");
    boxed.until("! pgrep -f '[d]emo-worker|[d]ogwatch run'");
    boxed.ok("systemctl daemon-reload");
    assert_eq!(boxed.show("shop", "LoadState"), "not-found");
}

fn a_users_own_file_is_a_users_own_service(root: &Path) {
    let boxed = Boxed::boot(root, |layer| {
        let folder = layer.join("home/joe/.config/dogwatch");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("shop.toml"), enabled(SHOP)).unwrap();
    });
    boxed.ok("useradd --uid 1000 --home-dir /home/joe joe && chown -R joe /home/joe && loginctl enable-linger joe");
    let user = |command: &str| {
        format!(
            "runuser -u joe -- env HOME=/home/joe XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus {command}"
        )
    };
    boxed.until(&format!(
        "test \"$({})\" = active",
        user("systemctl --user is-active shop.service")
    ));
    is_served(&boxed);
    let status = boxed.ok(&user("systemctl --user status shop"));
    assert!(status.contains("(/home/joe/.config/dogwatch/shop.toml; generated)"), "{status}");
    let load = load_of(&boxed, 4, 1);
    boxed.ok(&user("systemctl --user reload shop"));
    boxed.ok(&user("sh -c 'kill -9 $(systemctl --user show -P MainPID shop)'"));
    boxed.until(&format!("test $({}) = 1", user("systemctl --user show -P NRestarts shop")));
    boxed.until(&user("dogwatch reload shop"));
    load.stop().assert_clean(1);
    assert!(boxed.ok(&user("dogwatch list")).contains("shop"));
    boxed.ok(&user("systemctl --user stop shop.socket shop.service"));
    boxed.until("! pgrep -f '[d]emo-worker|[d]ogwatch run'");
}

/// A line that systemd does not know, or a value that it does not take, it only says in the journal.
fn every_relaxation_is_known_to_systemd(root: &Path) {
    let sandbox = r#"
[sandbox]
home = "read-only"
write = ["/srv/up loads"]
state = true
cache = true
logs = true
tmp = true
devices = true
processes = true
kernel = true
clock = true
hostname = true
namespaces = true
realtime = true
suid = true
privileges = true
personality = true
address-families = ["AF_PACKET"]
system-calls = ["@mount", "ptrace"]
capabilities = ["CAP_NET_RAW"]
umask = "0022"
[unit]
Documentation = ["https://example.org/a", "man:x(1)"]
[service]
MemoryHigh = "1G"
Environment = ["A=1", "B=2"]
[socket]
SocketMode = "0660"
"#;
    let user = "user = \"www-data\"\n";
    let shop = format!("{user}{SHOP}{sandbox}");
    let open = format!("{user}{}[sandbox]\noff = true\n", SHOP.replace("8080", "8081"));
    let boxed = files(root, &[("shop.toml", &shop), ("open.toml", &open)]);
    boxed.ok("mkdir -p '/srv/up loads' && systemctl start shop open");
    is_served(&boxed);
    boxed.ok("curl -sS http://127.0.0.1:8081/");
    assert_eq!(boxed.ok("curl -sS http://127.0.0.1:8080/env?STATE_DIRECTORY"), "/var/lib/shop\n");
    for line in ["PrivateTmp=no", "NoNewPrivileges=no", "ProtectSystem=no", "ProtectHome=no"] {
        let (key, value) = line.split_once('=').unwrap();
        assert_eq!(boxed.show("open", key), value, "{key}");
    }
    assert_eq!(boxed.show("shop", "ReadWritePaths"), "/run/dogwatch/shop \"/srv/up loads\"");
    let said = boxed.ok("journalctl --sync; journalctl -b --no-pager _PID=1 -o cat");
    let bad: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("generator/") && !line.contains("Unknown key"))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}
