//! `dogwatch doctor` on real broken situations: it names what is wrong and what to do, and when that is done it is content.

use crate::boxed::Boxed;
use crate::support::wait_for;
use std::path::Path;

on_both! {
    doctor_finds_what_is_wrong_and_its_remedies_help
    doctor_looks_after_a_users_own_app
}

/// An app of one built-in worker; `more` are keys of its own.
fn file(port: u16, more: &str) -> String {
    format!(
        "command = [\"/usr/bin/dogwatch\", \"demo-worker\"]\nlisten = [\"{port}\"]\nenabled = true\n{more}\n[ready]\nsettle = \"50ms\"\n"
    )
}

/// One box for all situations.
struct Ward {
    boxed: Boxed,
}

impl Ward {
    fn put(&self, app: &str, text: &str) {
        self.boxed.put(&format!("/etc/dogwatch/{app}.toml"), text);
    }

    fn ok(&self, command: &str) -> String {
        self.boxed.ok(command)
    }

    /// A file, and the units that are made of it, started.
    fn start(&self, app: &str, text: &str) {
        self.put(app, text);
        let units = format!("{app}.socket {app}.service");
        self.ok(&format!(
            "systemctl stop {units}; systemctl daemon-reload; systemctl start {units}"
        ));
    }

    #[track_caller]
    fn says(&self, app: &str, code: i32, parts: &[&str]) -> String {
        let (said, ended) = self.boxed.try_run(&format!("dogwatch doctor '{app}'"));
        assert_eq!(ended, code, "{app}\n{said}");
        for part in parts {
            assert!(said.contains(part), "'{part}' is not in\n{said}");
        }
        said
    }

    /// Nothing is wrong any more, as soon as what has just been started has started.
    fn is_content(&self, app: &str) {
        self.boxed.until(&format!(
            "dogwatch doctor {app} > /tmp/said; code=$?; cat /tmp/said; tail -n 1 /tmp/said | grep -qx '{app}: nothing is wrong' && exit $code"
        ));
    }
}

fn doctor_finds_what_is_wrong_and_its_remedies_help(root: &Path) {
    let ward = Ward { boxed: Boxed::boot(root, |_| {}) };
    names_that_are_none_are_refused(&ward);
    what_runs_well_is_well(&ward);
    users_and_directories(&ward);
    programs(&ward);
    files(&ward);
    names_and_ports(&ward);
    ports_that_change(&ward);
    a_file_that_goes(&ward);
    units_of_others(&ward);
    a_reload_that_failed(&ward);
    apps_without_generated_units(&ward);
}

fn names_that_are_none_are_refused(ward: &Ward) {
    for name in ["../x", "a\nb", ".x", "a/1", ""] {
        ward.says(name, 2, &["error: "]);
    }
    ward.says("nosuch", 2, &["dogwatch: cannot look at 'nosuch': there is no app of that name, and no '/etc/dogwatch/nosuch.toml'"]);
}

fn what_runs_well_is_well(ward: &Ward) {
    ward.put("well", &file(9001, ""));
    ward.says("well", 1, &["there are none yet", "remedy: 'systemctl daemon-reload'"]);
    ward.ok("systemctl daemon-reload");
    ward.says("well", 0, &["remedy: 'systemctl start well.socket well.service'"]);
    ward.ok("systemctl start well.socket");
    ward.says("well", 0, &["well: nothing is wrong"]);
    ward.ok("systemctl start well.service");
    ward.is_content("well");
    // Without rights it says what it could not see, and nothing wrong.
    let (said, code) =
        ward.boxed.try_run("setpriv --reuid 1234 --regid 1234 --clear-groups dogwatch doctor well");
    assert!(code == 0 && said.contains("not answered"), "{code}\n{said}");
}

fn users_and_directories(ward: &Ward) {
    ward.put("nouser", &file(9002, "user = \"nobody-such\""));
    ward.ok("systemctl daemon-reload; ! systemctl start nouser.service");
    ward.says(
        "nouser",
        1,
        &["there is no user 'nobody-such'", "remedy: 'useradd --system nobody-such'"],
    );
    ward.ok("useradd --system nobody-such && systemctl restart nouser.socket nouser.service");
    ward.is_content("nouser");

    ward.ok("mkdir -m 700 /srv/shut");
    ward.put("shut", &file(9003, "working-directory = \"/srv/shut\""));
    ward.ok("systemctl daemon-reload; systemctl start shut.socket");
    ward.says(
        "shut",
        1,
        &["its own user may not enter '/srv/shut', mode 0700", "remedy: 'chmod o+x /srv/shut'"],
    );
    ward.ok("chmod o+x /srv/shut && systemctl start shut.service");
    ward.is_content("shut");

    ward.ok("mkdir -p /home/joe/app && chmod 755 /home/joe");
    ward.put("home", &file(9004, "working-directory = \"/home/joe/app\""));
    ward.ok("systemctl daemon-reload; systemctl start home.socket");
    ward.says(
        "home",
        1,
        &[
            "'/home/joe/app' is hidden from the service by ProtectHome=",
            "'home = \"read-only\"' below [sandbox]",
        ],
    );
    ward.start(
        "home",
        &(file(9004, "working-directory = \"/home/joe/app\"")
            + "[sandbox]\nhome = \"read-only\"\n"),
    );
    ward.is_content("home");
}

fn programs(ward: &Ward) {
    ward.ok("mkdir -p /opt/frob/bin; printf '#!/bin/sh\\nexec /usr/bin/dogwatch demo-worker\\n' > /opt/frob/bin/frob; chmod 755 /opt/frob/bin/frob");
    let named = |name: &str| {
        file(9005, "").replace("[\"/usr/bin/dogwatch\", \"demo-worker\"]", &format!("[\"{name}\"]"))
    };
    ward.put("lost", &named("frob"));
    ward.ok("systemctl daemon-reload; systemctl start lost.socket");
    ward.says(
        "lost",
        1,
        &[
            "cannot find 'frob' on PATH, which is /usr/local/sbin:",
            "there is '/opt/frob/bin/frob': write that into 'command'",
        ],
    );
    ward.start("lost", &named("/opt/frob/bin/frob"));
    ward.is_content("lost");
    ward.ok("sed -i '1s|/bin/sh|/bin/shh|' /opt/frob/bin/frob");
    ward.says("lost", 1, &["is a script for '/bin/shh', which does not exist"]);
    ward.ok("sed -i '1s|/bin/shh|/bin/sh|' /opt/frob/bin/frob; chmod 744 /opt/frob/bin/frob");
    ward.says(
        "lost",
        1,
        &["may not execute '/opt/frob/bin/frob'", "remedy: 'chmod a+rx /opt/frob/bin/frob'"],
    );
    ward.ok("chmod a+rx /opt/frob/bin/frob");
    ward.is_content("lost");
}

fn files(ward: &Ward) {
    ward.put("syntax", &file(9006, "workers 4"));
    ward.ok("systemctl daemon-reload");
    ward.says(
        "syntax",
        1,
        &[
            "/etc/dogwatch/syntax.toml:4: not valid TOML",
            "will be none before the file is good",
            "remedy: mend the file",
        ],
    );
    ward.start("syntax", &file(9006, "workers = 1"));
    ward.is_content("syntax");

    ward.start("secret", &file(9007, ""));
    ward.ok("systemctl stop secret.service; chmod 600 /etc/dogwatch/secret.toml; systemctl start --no-block secret.service");
    ward.says(
        "secret",
        1,
        &[
            "its own user may not read '/etc/dogwatch/secret.toml'",
            "remedy: 'chmod 644 /etc/dogwatch/secret.toml'",
        ],
    );
    ward.ok("chmod 644 /etc/dogwatch/secret.toml; systemctl restart secret.service");
    ward.is_content("secret");
    // Variables that only root reads are given by systemd.
    ward.ok("umask 077; echo TOKEN=hush > /etc/dogwatch/secret.env");
    ward.put("secret", &file(9007, "environment-files = [\"/etc/dogwatch/secret.env\"]"));
    ward.says(
        "secret",
        1,
        &[
            "cannot read environment file '/etc/dogwatch/secret.env': Permission denied",
            "'EnvironmentFile = \"FILE\"' below [service]",
        ],
    );
    ward.start(
        "secret",
        &(file(9007, "") + "[service]\nEnvironmentFile = \"/etc/dogwatch/secret.env\"\n"),
    );
    ward.is_content("secret");
    assert_eq!(ward.ok("curl -sS 'http://127.0.0.1:9007/env?TOKEN'"), "hush\n");

    for (app, text) in [
        ("deep", "[".repeat(1_000_000)),
        ("deeper", format!("a = {}", "[".repeat(1_000_000))),
        ("tables", format!("a{} = 1", ".a".repeat(400_000))),
        ("inline", "a = {a = ".repeat(100_000)),
        ("large", "#".repeat(2 << 20)),
    ] {
        ward.put(app, &text);
        ward.says(app, 1, &[&format!("/etc/dogwatch/{app}.toml")]);
        ward.ok(&format!("rm /etc/dogwatch/{app}.toml"));
    }
}

fn names_and_ports(ward: &Ward) {
    ward.put("a@b", &file(9008, ""));
    ward.says(
        "a@b",
        1,
        &[
            "'a@b' cannot be the name of a unit of its own",
            "remedy: call the file something else, then 'systemctl daemon-reload'",
        ],
    );
    ward.ok("mv /etc/dogwatch/a@b.toml /etc/dogwatch/ab.toml; systemctl daemon-reload; systemctl start ab.socket");
    ward.is_content("ab");
    ward.ok("chmod 666 /etc/dogwatch/ab.toml; systemctl daemon-reload; ! dogwatch check /etc/dogwatch/ab.toml");
    ward.says(
        "ab",
        1,
        &[
            "others than root may write it",
            "remedy: 'chown root /etc/dogwatch/ab.toml' and 'chmod go-w /etc/dogwatch/ab.toml', then 'systemctl daemon-reload'",
        ],
    );
    ward.ok("chown root /etc/dogwatch/ab.toml; chmod go-w /etc/dogwatch/ab.toml; systemctl daemon-reload");
    ward.is_content("ab");

    ward.ok("systemd-run -q --unit=squatter dogwatch run --name squatter -l 127.0.0.1:9009 -- /usr/bin/dogwatch demo-worker; until curl -sS http://127.0.0.1:9009/; do sleep 0.05; done");
    ward.put("late", &file(9009, ""));
    ward.ok("systemctl daemon-reload; ! systemctl start late.socket");
    ward.says(
        "late",
        1,
        &["'9009' is taken: program 'dogwatch' (pid ", "stop that one, or name another address"],
    );
    ward.ok("systemctl stop squatter; systemctl restart late.socket; systemctl start late.service");
    ward.is_content("late");
}

fn ports_that_change(ward: &Ward) {
    let remedy = "systemctl stop moved.socket moved.service; systemctl daemon-reload; systemctl start moved.service";
    ward.start("moved", &file(9010, ""));
    ward.put("moved", &file(9011, ""));
    let said = ["moved.socket does not listen on '9011'", remedy];
    ward.says("moved", 1, &said);
    ward.ok("systemctl daemon-reload");
    ward.says("moved", 1, &said);
    ward.ok(&format!("{remedy}; curl -sS http://127.0.0.1:9011/"));
    ward.is_content("moved");
    // One that only waits goes on where it is, too.
    ward.ok("systemctl stop moved.service");
    ward.put("moved", &file(9012, ""));
    ward.ok("systemctl daemon-reload");
    ward.says("moved", 1, &["moved.socket does not listen on '9012'", remedy]);
    ward.ok("curl -sS http://127.0.0.1:9011/");
    ward.ok(&format!("{remedy}; curl -sS http://127.0.0.1:9012/"));
    ward.is_content("moved");
}

fn a_file_that_goes(ward: &Ward) {
    ward.start("gone", &file(9013, ""));
    ward.ok("mv /etc/dogwatch/gone.toml /tmp/");
    ward.says(
        "gone",
        1,
        &[
            "there is no '/etc/dogwatch/gone.toml': what runs goes on",
            "put it back; to end the app, 'systemctl stop gone.socket gone.service'",
        ],
    );
    ward.ok("systemctl daemon-reload; curl -sS http://127.0.0.1:9013/");
    ward.says("gone", 1, &["there is no '/etc/dogwatch/gone.toml'"]);
    ward.ok("mv /tmp/gone.toml /etc/dogwatch/; systemctl daemon-reload");
    ward.is_content("gone");
    ward.ok("rm /etc/dogwatch/gone.toml; systemctl daemon-reload; systemctl stop gone.socket gone.service; systemctl daemon-reload");
    wait_for("its workers' end", || (!ward.ok("dogwatch list").contains("gone")).then_some(()));
    ward.says("gone", 2, &["there is no app of that name"]);
}

fn units_of_others(ward: &Ward) {
    ward.start("over", &file(9014, ""));
    ward.ok("cp /run/systemd/generator/over.service /etc/systemd/system/; systemctl daemon-reload");
    ward.says(
        "over",
        0,
        &[
            "'/etc/systemd/system/over.service' is used",
            "remedy: 'rm /etc/systemd/system/over.service'",
        ],
    );
    ward.ok("rm /etc/systemd/system/over.service; systemctl daemon-reload");
    ward.is_content("over");
    let drop_in = "/etc/systemd/system/over.service.d/x.conf";
    ward.boxed.put(drop_in, "[Service]\nKillMode=control-group\nFileDescriptorStoreMax=5\n");
    ward.ok("systemctl daemon-reload");
    let said = ward.says(
        "over",
        1,
        &[
            "KillMode=control-group: when the primary dies, systemd ends all workers",
            &format!("remedy: KillMode=process, where {drop_in} says otherwise"),
            "there is room for 5 descriptors, and ",
        ],
    );
    let needed = said.split("remedy: FileDescriptorStoreMax=").nth(1).unwrap();
    let needed = needed.split(',').next().unwrap();
    ward.boxed
        .put(drop_in, &format!("[Service]\nKillMode=process\nFileDescriptorStoreMax={needed}\n"));
    ward.ok("systemctl daemon-reload");
    ward.is_content("over");
    ward.ok("systemctl stop over.socket over.service; systemctl mask over.service");
    ward.says("over", 1, &["over.service is masked", "remedy: 'systemctl unmask over.service'"]);
    ward.ok("systemctl unmask over.service; systemctl start over.socket over.service");
    ward.is_content("over");
    // What the sandbox forbids no more is weighed.
    ward.start(
        "open",
        &("user = \"www-data\"\n".to_owned() + &file(9015, "") + "[sandbox]\noff = true\n"),
    );
    ward.says(
        "open",
        0,
        &["warning", "of 10, most of all by ", "take 'off = true' out of [sandbox]"],
    );
}

fn a_reload_that_failed(ward: &Ward) {
    ward.start("rolled", &file(9016, ""));
    ward.put("rolled", &file(9016, "").replace("\"demo-worker\"", "\"nonsense\""));
    ward.ok("! systemctl reload rolled");
    ward.says(
        "rolled",
        1,
        &[
            "the last reload was rolled back to generation 1",
            "exited with status 2",
            "then 'dogwatch reload rolled'",
        ],
    );
    ward.put("rolled", &file(9016, ""));
    ward.ok("dogwatch reload rolled");
    ward.is_content("rolled");
    ward.put("rolled", &file(9016, "workers = 2"));
    ward.says(
        "rolled",
        0,
        &[
            "the file says otherwise than what is in force: 'workers'",
            "remedy: 'dogwatch reload rolled'",
        ],
    );
    ward.ok("dogwatch reload rolled");
    ward.is_content("rolled");
}

fn apps_without_generated_units(ward: &Ward) {
    ward.put("tpl", &file(9017, "").replace("listen = [\"9017\"]\nenabled = true\n", ""));
    ward.ok("systemctl daemon-reload");
    ward.says(
        "tpl",
        1,
        &[
            "names no address to listen on",
            "remedy: write 'listen = [\"8080\"]' into '/etc/dogwatch/tpl.toml'",
        ],
    );
    ward.ok("systemctl enable --now dogwatch@tpl.socket; systemctl start dogwatch@tpl");
    let said = ward.says(
        "tpl",
        0,
        &["tpl: nothing is wrong", "dogwatch@tpl.service, made by hand, active"],
    );
    assert!(said.contains("its socket listens from the start"), "{said}");
    // By hand, without a unit.
    ward.ok("setsid -f dogwatch run --name bare -l 9018 -- /usr/bin/dogwatch demo-worker > /dev/null 2>&1; until curl -sS http://127.0.0.1:9018/; do sleep 0.05; done");
    ward.says(
        "bare",
        0,
        &["none: its settings are on its command line", "it was started by hand", "[::]:9018"],
    );
}

fn doctor_looks_after_a_users_own_app(root: &Path) {
    let boxed = Boxed::boot(root, |_| {});
    boxed.ok(
        "useradd -m -u 1000 joe; install -d -o joe /home/joe/.config /home/joe/.config/dogwatch",
    );
    boxed.put("/home/joe/.config/dogwatch/mine.toml", &file(9020, ""));
    boxed.ok("systemctl start user@1000.service");
    let joe = |command: &str| {
        boxed.try_run(&format!(
            "runuser -u joe -- env XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus HOME=/home/joe {command}"
        ))
    };
    let (said, code) = joe("systemctl --user restart mine.socket mine.service");
    assert_eq!(code, 0, "{said}\n{}", boxed.run("journalctl -b --no-pager | tail -50"));
    let (said, code) = joe("dogwatch doctor --user mine");
    assert!(code == 1 && said.contains("remedy: 'loginctl enable-linger'"), "{code}\n{said}");
    assert!(said.contains("mine: 1 problem\n"), "{said}");
    boxed.ok("loginctl enable-linger joe");
    let (said, code) = joe("dogwatch doctor --user mine");
    assert!(code == 0 && said.ends_with("mine: nothing is wrong\n"), "{code}\n{said}");
    // It is none of the system's.
    assert_eq!(boxed.try_run("dogwatch doctor mine").1, 2);
}
