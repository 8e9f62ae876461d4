//! Units, sockets, and what starts them.

use super::*;

#[test]
fn a_port_that_was_changed_is_taken_by_a_restart_of_the_socket() {
    let mut facts = with(&FILE.replace("8080", "8081"));
    says(
        &facts,
        &[
            "Problem sockets: shop.socket does not listen on '8081'",
            "'systemctl stop shop.socket shop.service; systemctl daemon-reload; systemctl start shop.service'",
        ],
    );
    facts.socket.as_mut().unwrap().set("Listen", &["[::]:8081 (Stream)"]);
    says(
        &facts,
        &[
            "Problem sockets: it listens on [::]:8080, and the file says '8081'",
            "'systemctl stop shop.socket shop.service; systemctl daemon-reload; systemctl start shop.service'",
        ],
    );
    // Nobody runs, and systemd listens no more, without a word.
    facts.primary = Primary::Absent;
    set(&mut facts, "ActiveState", &["inactive"]);
    facts.listening = vec![];
    says(&facts, &["Problem sockets: nobody listens on '8081', though shop.socket is active"]);
}

#[test]
fn who_has_taken_a_port_is_named() {
    let mut facts = stopped();
    facts.socket.as_mut().unwrap().set("ActiveState", &["failed"]);
    facts.socket.as_mut().unwrap().set("Result", &["resources"]);
    let address = "127.0.0.1:8080".parse().unwrap();
    facts.listening =
        vec![Listening { address, is_datagram: false, holder: Some("'nginx' (pid 7)".to_owned()) }];
    let said = wrong(&facts).join("\n");
    assert!(said.contains("Problem sockets: '8080' is taken: program 'nginx' (pid 7) listens on 127.0.0.1:8080 | stop that one"), "{said}");
    facts.listening[0].holder = Some("'systemd' (pid 1)".to_owned());
    assert!(wrong(&facts).join("\n").contains("'systemctl list-sockets'"));
    facts.listening = vec![];
    assert!(wrong(&facts).join("\n").contains("shop.socket has failed: resources"));
}

#[test]
fn low_ports_need_a_socket_unit_or_rights() {
    let mut facts = with(&FILE.replace("8080", "80"));
    facts.primary = Primary::Absent;
    facts.socket = None;
    facts.listening = vec![];
    set(&mut facts, "UnitFileState", &["enabled"]);
    set(&mut facts, "FragmentPath", &["/etc/systemd/system/shop.service"]);
    let said = wrong(&facts).join("\n");
    assert!(said.contains("may not listen on '80', below 1024"), "{said}");
    set(&mut facts, "AmbientCapabilities", &["cap_net_bind_service"]);
    assert!(!wrong(&facts).join("\n").contains("may not listen"));
}

#[test]
fn steered_workers_want_a_socket_each() {
    let mut facts = with(&format!("{FILE}balance = \"steered\"\n"));
    let said = wrong(&facts).join("\n");
    assert!(said.contains("Warning sockets: 'steered' wants 4 sockets for 2 workers, and shop.socket has 1 for '8080'"), "{said}");
    facts.socket.as_mut().unwrap().set("Listen", &["[::]:8080 (Stream)"; 4]);
    assert_eq!(wrong(&facts), Vec::<String>::new());
    let Primary::Runs { shown, .. } = &mut facts.primary else { return };
    shown.app.balance = Some(Balance {
        asked: "steered".to_owned(),
        in_force: "shared".to_owned(),
        why: Some("no CAP_BPF".to_owned()),
        lanes: None,
        unsteered: None,
    });
    says(
        &facts,
        &[
            "Warning balance: 'steered' was asked for, and 'shared' is done: no CAP_BPF",
            "'systemctl stop shop.socket shop.service; systemctl daemon-reload; systemctl start shop.service'",
        ],
    );
    // Units that are as they would be made again do not get better by that.
    facts.is_made = true;
    says(&facts, &["forbids bpf(2): see docs/balance.md"]);
}

#[test]
fn units_that_are_not_there_are_made() {
    let none = || {
        let mut facts = stopped();
        (facts.service, facts.socket) = (None, None);
        facts
    };
    says(&none(), &["Problem units: there are none yet | 'systemctl daemon-reload'"]);
    let facts = Facts { has_generator: false, ..none() };
    says(
        &facts,
        &[
            "does not know dogwatch's generator",
            "ln -s /usr/bin/dogwatch /usr/lib/systemd/system-generators/dogwatch-generator",
        ],
    );
    let mut facts = none();
    facts.plan = Planned { without: true, ..Planned::default() };
    says(&facts, &["names no address to listen on", "listen = [\"8080\"]"]);
    let refused = |message: &str, hint: Option<&str>| {
        let mut facts = none();
        let refused = Refused {
            name: "shop".to_owned(),
            message: message.to_owned(),
            hint: hint.map(str::to_owned),
            keeps_units: false,
        };
        facts.plan = Planned { refused: Some(refused), ..Planned::default() };
        facts
    };
    let other = format!("{PATH}:2: 'listen': '8080' is that of 'a' (/etc/dogwatch/a.toml)");
    says(
        &refused(&other, Some("give one of them another port")),
        &[&other, "it gets none", "give one of them another port, then 'systemctl daemon-reload'"],
    );
    says(
        &refused("'a@b' cannot be the name of a unit", Some("call the file something else")),
        &["it gets none | call the file something else, then 'systemctl daemon-reload'"],
    );
    let hint = "'chown root /etc/dogwatch/shop.toml' and 'chmod go-w /etc/dogwatch/shop.toml'";
    says(
        &refused(&format!("cannot read '{PATH}': others may write it"), Some(hint)),
        &["others may write it", &format!("| {hint}, then 'systemctl daemon-reload'")],
    );
    let mut facts = refused(&format!("cannot read '{PATH}': Permission denied"), None);
    says(&facts, &["| mend the file, then"]);
    // Nobody knows what is in it, so nobody is told to do anything about that.
    facts.file.as_mut().unwrap().content = Content::Unreadable("Permission denied".to_owned());
    facts.file.as_mut().unwrap().way = way(PATH, 0o640);
    facts.who.groups = vec![0];
    let all = wrong(&facts).join("\n");
    assert!(all.contains("Unknown units: there are none, and you cannot read the file"), "{all}");
}

#[test]
fn units_of_somebody_else_and_old_ones_are_noticed() {
    let mut facts = healthy();
    set(&mut facts, "UnitFileState", &["enabled"]);
    set(&mut facts, "FragmentPath", &["/etc/systemd/system/shop.service"]);
    says(
        &facts,
        &[
            "Warning units: '/etc/systemd/system/shop.service' is used",
            "'rm /etc/systemd/system/shop.service'",
        ],
    );
    let mut facts = healthy();
    set(&mut facts, "NeedDaemonReload", &["yes"]);
    says(&facts, &["Warning units: something has changed", "'systemctl daemon-reload'"]);
    // Not what the units are made of.
    facts.is_made = true;
    assert_eq!(wrong(&facts), Vec::<String>::new());
    set(&mut facts, "DropInPaths", &["/etc/systemd/system/shop.service.d/x.conf"]);
    says(&facts, &["Warning units: something has changed"]);
    let mut facts = stopped();
    set(&mut facts, "LoadState", &["masked"]);
    says(&facts, &["Problem units: shop.service is masked", "'systemctl unmask shop.service'"]);
}

#[test]
fn what_is_masked_while_it_runs_is_only_unmasked() {
    let masked = |state: &str, path: &str| {
        let mut facts = healthy();
        set(&mut facts, "LoadState", &["masked"]);
        set(&mut facts, "UnitFileState", &[state]);
        set(&mut facts, "FragmentPath", &[path]);
        facts
    };
    says(
        &masked("masked", "/etc/systemd/system/shop.service"),
        &[
            "Problem units: shop.service is masked: it runs, and cannot be started again",
            "| 'systemctl unmask shop.service'",
        ],
    );
    for state in ["masked-runtime", ""] {
        says(
            &masked(state, "/run/systemd/system/shop.service"),
            &["| 'systemctl unmask --runtime shop.service'"],
        );
    }
    // systemd has not read it yet, and has the unit that was made still.
    let mut facts = healthy();
    set(&mut facts, "UnitFileState", &["masked"]);
    says(&facts, &["| 'systemctl unmask shop.service'"]);
    let mut facts = healthy();
    facts.socket.as_mut().unwrap().set("UnitFileState", &["masked"]);
    says(&facts, &["Problem units: shop.socket is masked", "| 'systemctl unmask shop.socket'"]);
}

#[test]
fn a_service_that_has_failed_says_why_and_with_which_words() {
    let mut facts = stopped();
    facts.socket.as_mut().unwrap().set("ActiveState", &["active"]);
    facts.listening = healthy().listening;
    assert_eq!(wrong(&facts), Vec::<String>::new(), "it waits for the first connection");
    set(&mut facts, "ActiveState", &["failed"]);
    set(&mut facts, "Result", &["exit-code"]);
    set(&mut facts, "ExecMainStatus", &["217"]);
    facts.last_lines = vec!["a last word".to_owned()];
    says(
        &facts,
        &[
            "Problem units: shop.service has failed: there is no such user (217/USER)",
            "'systemctl restart shop.service'",
        ],
    );
    assert!(report("shop", &judge(&facts)).contains("    a last word"));
    set(&mut facts, "ActiveState", &["activating"]);
    set(&mut facts, "SubState", &["auto-restart"]);
    set(&mut facts, "ExecMainStatus", &["2"]);
    says(&facts, &["fails and is started again: it exited with status 2"]);
}

#[test]
fn a_service_that_fails_again_and_again_is_not_well_between_two_tries() {
    let seen = |state: &str, sub: &str, result: &str, times: &str| {
        let mut facts = stopped();
        facts.socket.as_mut().unwrap().set("ActiveState", &["active"]);
        facts.listening = healthy().listening;
        for (key, value) in
            [("ActiveState", state), ("SubState", sub), ("Result", result), ("NRestarts", times)]
        {
            set(&mut facts, key, &[value]);
        }
        facts
    };
    let problem = "Problem units: shop.service fails and is started again";
    for facts in [
        seen("deactivating", "stop-sigterm", "exit-code", "3"),
        seen("activating", "auto-restart", "exit-code", "3"),
        seen("activating", "auto-restart-queued", "exit-code", "3"),
        seen("activating", "start", "success", "3"),
    ] {
        says(&facts, &[problem, ", 3 times so far"]);
    }
    for facts in [
        seen("deactivating", "stop-sigterm", "success", "3"),
        seen("activating", "start", "success", "0"),
    ] {
        assert_eq!(wrong(&facts), Vec::<String>::new());
    }
    // A primary that was killed and begins again answers while it does.
    let mut facts = seen("activating", "start", "success", "2");
    facts.primary = healthy().primary;
    assert_eq!(wrong(&facts), Vec::<String>::new());
}

#[test]
fn who_starts_it_again_after_a_boot_is_asked() {
    let mut facts = healthy();
    facts.socket.as_mut().unwrap().set("WantedBy", &[""]);
    assert_eq!(wrong(&facts), Vec::<String>::new());
    set(&mut facts, "WantedBy", &[""]);
    says(&facts, &["Warning boot: nothing starts it with the machine", "'enabled = true'"]);
    facts.socket.as_mut().unwrap().set("WantedBy", &["sockets.target"]);
    assert_eq!(wrong(&facts), Vec::<String>::new());
    let mut facts = with("command = [\"server\"]");
    facts.plan = Planned { without: true, ..Planned::default() };
    for unit in [facts.service.as_mut().unwrap(), facts.socket.as_mut().unwrap()] {
        unit.set("WantedBy", &[""]);
        unit.set("UnitFileState", &["disabled"]);
        unit.set("FragmentPath", &["/etc/systemd/system/x"]);
    }
    says(&facts, &["'systemctl enable shop.socket shop.service'"]);
}

#[test]
fn a_users_manager_must_linger() {
    let mut facts = Facts { scope: Scope::User, lingers: Some(false), ..healthy() };
    says(&facts, &["Problem linger", "'loginctl enable-linger'"]);
    facts.lingers = None;
    says(&facts, &["Unknown linger"]);
    facts.lingers = Some(true);
    assert_eq!(wrong(&facts), Vec::<String>::new());
}
