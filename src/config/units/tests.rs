use super::*;
use crate::config::{Error, file};

const ORIGIN: Origin<'_> = Origin {
    name: "shop",
    file: "/etc/dogwatch/shop.toml",
    program: "/usr/bin/dogwatch",
    scope: Scope::System,
};

fn units_for(origin: Origin<'_>, text: &str) -> Result<Option<Units>, String> {
    let typed = file::parse("f", &format!("command = [\"x\"]\n{text}")).map_err(|e| e.message)?;
    let settings = Settings::new(typed.clone(), 4).map_err(|e| e.to_string())?;
    Units::new(origin, &typed, &settings).map_err(|e| e.to_string())
}

fn units(text: &str) -> Units {
    units_for(ORIGIN, text).unwrap().unwrap()
}

/// The values of a setting, line by line.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let prefix = format!("{key}=");
    unit.lines().filter_map(|line| line.strip_prefix(prefix.as_str())).collect()
}

/// The settings of a unit file, without comments and in no order.
fn settings_of(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

#[test]
fn what_is_made_is_what_is_shipped() {
    let origin = Origin { name: "myapp", file: "/etc/dogwatch/myapp.toml", ..ORIGIN };
    let made = units_for(origin, "listen = [\"8080\"]").unwrap().unwrap();
    for (shipped, made) in [(SOCKET, &made.socket), (SERVICE, &made.service)] {
        let (shipped, _) = shipped.split_once("[Install]").unwrap();
        let conflicts = "Conflicts=dogwatch@myapp.service dogwatch@myapp.socket\n";
        let is_note = |line: &&str| line.contains("dogwatch-units");
        let made: String =
            made.lines().filter(|line| !is_note(line)).map(|line| format!("{line}\n")).collect();
        let made = made
            .replace(conflicts, "")
            .replace("SourcePath=/etc/dogwatch/myapp.toml\n", "")
            .replace("FileDescriptorName=tcp-8080", "FileDescriptorName=web");
        assert_eq!(settings_of(&made), settings_of(shipped));
    }
}

#[test]
fn five_lines_are_a_service_that_starts_with_the_machine() {
    let units = units("listen = [\"8080\"]\nenabled = true\ndescription = \"100% shop\"");
    assert_eq!(
        units.wants,
        ["sockets.target.wants/shop.socket", "multi-user.target.wants/shop.service"]
    );
    assert_eq!(values(&units.socket, "ListenStream"), ["8080"]);
    assert_eq!(values(&units.service, "Description"), ["100%% shop"]);
    assert_eq!(values(&units.service, "SourcePath"), ["/etc/dogwatch/shop.toml"]);
    assert_eq!(
        values(&units.service, "ExecStart"),
        ["/usr/bin/dogwatch run --config /etc/dogwatch/shop.toml"]
    );
    let (socket, service) = (&units.socket, &units.service);
    assert!(!format!("{socket}{service}").contains("myapp"), "{socket}{service}");
}

#[test]
fn without_an_address_there_are_no_units() {
    assert_eq!(units_for(ORIGIN, ""), Ok(None));
}

#[test]
fn the_first_connection_can_start_it() {
    let wants = |text: &str| units(&format!("listen = [\"80\"]\n{text}")).wants;
    assert_eq!(wants("enabled = \"socket\""), ["sockets.target.wants/shop.socket"]);
    assert_eq!(wants(""), Vec::<String>::new());
    let wrong = units_for(ORIGIN, "enabled = \"yes\"").unwrap_err();
    assert_eq!(wrong, "f:2: 'enabled': 'yes' is none of true, false or \"socket\"");
}

#[test]
fn each_kind_of_address_has_its_line() {
    let units = units("listen = [\"127.0.0.1:80\", \"[::1]:80\", \"udp:53\", \"unix:/run/a b\"]");
    assert_eq!(values(&units.socket, "ListenStream"), ["127.0.0.1:80", "[::1]:80", "/run/a b"]);
    assert_eq!(values(&units.socket, "FreeBind"), Vec::<&str>::new());
    let before_the_network = self::units("listen = [\"192.0.2.1:80\"]").socket;
    assert_eq!(values(&before_the_network, "FreeBind"), ["yes"]);
    assert_eq!(values(&units.socket, "ListenDatagram"), ["[::]:53"]);
}

#[test]
fn steered_workers_get_a_socket_each_and_the_right() {
    let units = units(
        "workers = 4\nlisten = [\"80\", \"unix:/run/a\"]\nbalance = \"steered\"\n[reload]\nsurge = 2",
    );
    // Four workers, two that relieve, one to spare.
    assert_eq!(values(&units.socket, "ListenStream"), [vec!["80"; 7], vec!["/run/a"]].concat());
    assert_eq!(values(&units.socket, "ReusePort"), ["yes"]);
    assert_eq!(values(&units.service, "AmbientCapabilities"), ["CAP_BPF"]);
    assert_eq!(values(&units.service, "CapabilityBoundingSet"), ["", "CAP_BPF"]);
    assert_eq!(values(&units.service, "SystemCallFilter"), ["@system-service", "bpf pidfd_getfd"]);
}

#[test]
fn many_workers_find_room_in_the_store() {
    let room = |workers: u16| {
        let units = units(&format!("workers = {workers}\nlisten = [\"80\"]"));
        values(&units.service, "FileDescriptorStoreMax")[0].parse::<u32>().unwrap()
    };
    assert_eq!(room(4), 512);
    assert!(room(1000) >= 5000);
}

#[test]
fn a_user_is_named_in_both_units() {
    let units = units("listen = [\"80\"]\nuser = \"www-data\"\ngroup = \"33\"\nblocking = true");
    for unit in [&units.socket, &units.service] {
        assert_eq!(values(unit, "DynamicUser"), ["no"]);
        assert_eq!((values(unit, "User"), values(unit, "Group")), (vec!["www-data"], vec!["33"]));
    }
    assert_eq!(values(&units.service, "NonBlocking"), ["no"]);
    assert_eq!(
        units_for(ORIGIN, "listen = [\"80\"]\ngroup = \"www-data\"").unwrap_err(),
        "'group': nobody says of which user, name it with 'user'"
    );
}

#[test]
fn each_part_of_the_sandbox_has_a_key() {
    let strict = units("listen = [\"80\"]\nuser = \"joe\"").service;
    let with = |text: &str| units(&format!("listen = [\"80\"]\nuser = \"joe\"\n[sandbox]\n{text}"));
    for (key, line) in [
        ("home", "ProtectHome=no"),
        ("tmp", "PrivateTmp=no"),
        ("devices", "PrivateDevices=no"),
        ("processes", "ProtectProc=default"),
        ("kernel", "ProtectKernelModules=no"),
        ("clock", "ProtectClock=no"),
        ("hostname", "ProtectHostname=no"),
        ("namespaces", "RestrictNamespaces=no"),
        ("realtime", "RestrictRealtime=no"),
        ("suid", "RestrictSUIDSGID=no"),
        ("privileges", "NoNewPrivileges=no"),
        ("personality", "LockPersonality=no"),
        ("state", "StateDirectory=shop"),
        ("cache", "CacheDirectory=shop"),
        ("logs", "LogsDirectory=shop"),
    ] {
        assert!(!strict.lines().any(|known| known == line), "{line}");
        let relaxed = with(&format!("{key} = true")).service;
        assert!(relaxed.lines().any(|known| known == line), "{line}\n{relaxed}");
        let same = with(&format!("{key} = false")).service;
        assert_eq!(same, strict, "{key}");
    }
    assert_eq!(values(&with("home = \"read-only\"").service, "ProtectHome"), ["read-only"]);
    let lists = with(
        "write = [\"/srv/a b\", \"/x\"]\nsystem-calls = [\"@mount\", \"ptrace\"]\ncapabilities = [\"CAP_NET_RAW\"]\n\
         address-families = [\"AF_PACKET\"]\numask = \"0022\"",
    );
    let values = |key| values(&lists.service, key);
    assert_eq!(values("ReadWritePaths")[1..], ["\"/srv/a b\"", "/x"]);
    assert_eq!(values("SystemCallFilter"), ["@system-service", "@mount ptrace"]);
    assert_eq!(values("CapabilityBoundingSet"), ["", "CAP_NET_RAW"]);
    assert_eq!(values("AmbientCapabilities"), ["CAP_NET_RAW"]);
    assert_eq!(values("RestrictAddressFamilies")[1..], ["AF_PACKET"]);
    assert_eq!(values("UMask"), ["0022"]);
}

#[test]
fn without_the_sandbox_everything_is_allowed_and_nothing_is_added() {
    let units = units(
        "listen = [\"80\"]\nbalance = \"steered\"\nuser = \"joe\"\n[sandbox]\noff = true\nsystem-calls = [\"ptrace\"]",
    );
    for key in ["SystemCallFilter", "CapabilityBoundingSet", "RestrictAddressFamilies"] {
        assert_eq!(values(&units.service, key), Vec::<&str>::new(), "{key}");
    }
    assert_eq!(values(&units.service, "AmbientCapabilities"), ["CAP_BPF"]);
    assert_eq!(values(&units.service, "ProtectSystem"), ["no"]);
    assert_eq!(values(&units.service, "User"), ["joe"]);
    for key in ["off", "home", "tmp", "suid", "privileges"] {
        let text = format!("listen = [\"80\"]\n[sandbox]\n{key} = true");
        let said = units_for(ORIGIN, &text).unwrap_err();
        assert!(said.starts_with(&format!("'sandbox.{key}': a user that systemd makes")), "{said}");
    }
}

#[test]
fn variables_are_looked_for_where_a_path_says_from_anywhere() {
    let file =
        |path: &str| format!("listen = [\"80\"]\nenvironment-files = [\"/a.env\", \"{path}\"]");
    assert!(units_for(ORIGIN, &file("/srv/shop/.env")).is_ok());
    let own = Origin { scope: Scope::User, ..ORIGIN };
    for origin in [ORIGIN, own] {
        assert_eq!(
            units_for(origin, &file("x.env")).unwrap_err(),
            "'environment-files': 'x.env' is no absolute path, and a service does not start in the folder of its file"
        );
    }
    // Who starts it by hand knows where.
    let typed = file::parse("f", "command = [\"x\"]\nenvironment-files = [\"x.env\"]").unwrap();
    assert!(Settings::new(typed, 4).is_ok());
}

#[test]
fn lines_are_passed_on_untouched_and_come_last() {
    let units = units(
        "listen = [\"80\"]\n[unit]\nDocumentation = \"https://example.org/%i\"\n[service]\nMemoryMax = \"1G\"\n\
         Environment = [\"A=1\", \"B=%H\"]\nNice = 5\nTimeoutStopSec = 300\nDynamicUser = false\n[socket]\nListenStream = [\"\", \"81\"]",
    );
    assert_eq!(values(&units.service, "Environment")[1..], ["A=1", "B=%H"]);
    assert_eq!(values(&units.service, "DynamicUser"), ["yes", "no"]);
    assert_eq!(values(&units.service, "Nice"), ["5"]);
    assert_eq!(values(&units.socket, "ListenStream"), ["80", "", "81"]);
    assert_eq!(values(&units.service, "Documentation"), ["https://example.org/%i"]);
    assert_eq!(values(&units.socket, "Documentation"), Vec::<&str>::new());
}

#[test]
fn nothing_in_a_file_can_leave_its_line() {
    for (text, key) in [
        ("[service]\nNice = \"1\\nExecStart=/bin/sh\"", "service"),
        ("[service]\n\"A\\nB\" = \"1\"", "service"),
        ("[service]\n\"A=B\" = \"1\"", "service"),
        ("[service]\nA = \"1\\\\\"", "service"),
        ("[service]\nA = { B = 1 }", "service"),
        ("description = \"a\\nb\"", "description"),
        ("description = \"a\\\\\"", "description"),
        ("user = \"root\\nX=1\"", "user"),
        ("user = \"-x\"", "user"),
        ("[sandbox]\nwrite = [\"relative\"]", "sandbox.write"),
        ("[sandbox]\nwrite = [\"/a\\nb\"]", "sandbox.write"),
        ("[sandbox]\ncapabilities = [\"CAP_A B\"]", "sandbox.capabilities"),
        ("[sandbox]\nsystem-calls = [\"~ptrace\"]", "sandbox.system-calls"),
        ("[sandbox]\naddress-families = [\"none\"]", "sandbox.address-families"),
        ("[sandbox]\numask = \"9\"", "sandbox.umask"),
    ] {
        let said = units_for(ORIGIN, &format!("listen = [\"80\"]\n{text}")).unwrap_err();
        assert!(said.contains(&format!("'{key}")), "{text}: {said}");
    }
    let path = "listen = [\"unix:/run/a\\nListenStream=22\"]";
    assert!(units_for(ORIGIN, path).is_err());
}

#[test]
fn a_users_own_units_want_nothing_of_root() {
    let origin =
        Origin { scope: Scope::User, file: "/home/joe/.config/dogwatch/shop.toml", ..ORIGIN };
    let units = units_for(origin, "listen = [\"8080\"]\nenabled = true\n[sandbox]\nstate = true");
    let units = units.unwrap().unwrap();
    assert_eq!(units.wants[1], "default.target.wants/shop.service");
    for unit in [&units.socket, &units.service] {
        for line in ["DynamicUser", "Protect", "Private", "JoinsNamespaceOf", "ReadWritePaths"] {
            assert!(!unit.lines().any(|known| known.starts_with(line)), "{line}\n{unit}");
        }
    }
    assert_eq!(values(&units.service, "Environment"), ["RUNTIME_DIRECTORY=%t/dogwatch/shop"]);
    assert_eq!(values(&units.service, "NoNewPrivileges"), ["yes"]);
    assert_eq!(
        units_for(origin, "listen = [\"80\"]\nuser = \"root\"").unwrap_err(),
        "'user': a user's own service runs as that user, leave it out"
    );
}

/// A file; and the units of an app that is there.
fn found(name: &str, text: &str, kept: Option<Kept>) -> Found {
    Found {
        name: name.to_owned(),
        path: format!("/etc/dogwatch/{name}.toml"),
        text: Ok(text.to_owned()),
        unnameable: None,
        kept,
    }
}

fn plan(files: &[Found]) -> (Vec<String>, Vec<String>) {
    let plan = Plan::new(files, "/usr/bin/dogwatch", Scope::System, 4);
    let names = plan.units.into_iter().map(|(name, _)| name).collect();
    (names, plan.refused.iter().map(ToString::to_string).collect())
}

#[test]
fn a_bad_file_is_skipped_and_the_others_work() {
    let good = |port: u16| format!("command = [\"x\"]\nlisten = [\"{port}\"]");
    let plain = |message: &str| Error { message: message.to_owned(), hint: None };
    let unreadable = Found { text: Err(plain("not UTF-8 text")), ..found("d", "", None) };
    let escaping = Found { unnameable: Some(plain("no")), ..found("e", &good(5), None) };
    let files = [
        found("a", &good(1), None),
        found("b", "command = [\"x\"]\nlisten = [\"2\"]\n\n[reload]\nsurge = 0", None),
        found("c", "command = [", None),
        unreadable,
        escaping,
        found("f", &good(6), None),
    ];
    let (names, said) = plan(&files);
    assert_eq!(names, ["a", "f"]);
    assert_eq!(
        said[0],
        "cannot make units for 'b': /etc/dogwatch/b.toml:5: 'reload.surge': at least one slot must be relieved at a time; it gets no units"
    );
    assert!(
        said[1].starts_with("cannot make units for 'c': /etc/dogwatch/c.toml:1: not valid TOML")
    );
    assert_eq!(
        said[2..],
        [
            "cannot make units for 'd': cannot read '/etc/dogwatch/d.toml': not UTF-8 text; it gets no units",
            "cannot make units for 'e': no; it gets no units"
        ]
    );
}

/// The units that were in force when the socket began to listen.
fn kept(text: &str) -> Option<Kept> {
    let Units { socket, service, .. } = units(text);
    Some(Kept { socket, service })
}

#[test]
fn a_service_that_runs_keeps_its_units_whatever_becomes_of_its_file() {
    let kept =
        kept("workers = 6\nlisten = [\"80\"]\nbalance = \"steered\"\nuser = \"joe\"").unwrap();
    let is_gone = Error { message: "it is gone".to_owned(), hint: None };
    let gone = Found { text: Err(is_gone), ..found("shop", "", Some(kept.clone())) };
    for file in [
        gone,
        found("shop", "command = [\"x\"]\n", Some(kept.clone())),
        found("shop", "command = [\"x\"]\nlisten = [\"80\", 81]\n", Some(kept.clone())),
        found(
            "shop",
            "command = [\"x\"]\nworkers = six\nlisten = [\"80\"]\n[broken",
            Some(kept.clone()),
        ),
    ] {
        let plan = Plan::new(&[file], "/usr/bin/dogwatch", Scope::System, 4);
        assert!(plan.refused[0].keeps_units);
        let (_, units) = &plan.units[0];
        assert_eq!((&units.socket, &units.service), (&kept.socket, &kept.service));
    }
}

#[test]
fn a_socket_that_listens_keeps_its_addresses_and_the_service_gets_what_is_new() {
    let text = "command = [\"x\"]\nlisten = [\"81\"]\nuser = \"joe\"\nenabled = true";
    let file = found("shop", text, kept("listen = [\"80\"]"));
    let plan = Plan::new(&[file], "/usr/bin/dogwatch", Scope::System, 4);
    assert_eq!(plan.waiting, ["shop"]);
    let (_, units) = &plan.units[0];
    assert_eq!(values(&units.socket, "ListenStream"), ["80"]);
    assert_eq!(values(&units.service, "User"), ["joe"]);
    assert_eq!(units.wants.len(), 2);
    // What does not concern addresses is new in the socket, too.
    let same = format!("{text}\n[socket]\nBacklog = 5").replace("81", "80");
    let file = found("shop", &same, kept("listen = [\"80\"]"));
    let plan = Plan::new(&[file], "/usr/bin/dogwatch", Scope::System, 4);
    assert!(plan.waiting.is_empty());
    assert_eq!(values(&plan.units[0].1.socket, "Backlog"), ["4096", "5"]);
}

#[test]
fn two_apps_cannot_have_one_address() {
    let on = |name: &str, address: &str, kept| {
        found(name, &format!("command = [\"x\"]\nlisten = [\"{address}\"]"), kept)
    };
    let (names, said) =
        plan(&[on("a", "127.0.0.1:80", None), on("b", "80", None), on("c", "81", None)]);
    assert_eq!(names, ["a", "c"]);
    assert_eq!(
        said,
        [
            "cannot make units for 'b': /etc/dogwatch/b.toml:2: 'listen': '80' is that of 'a' (/etc/dogwatch/a.toml); it gets no units"
        ]
    );
    // Who is there already keeps it.
    assert_eq!(plan(&[on("a", "80", None), on("b", "80", kept("listen = [\"80\"]"))]).0, ["b"]);
    let twice = found("a", "command = [\"x\"]\nlisten = [\"80\", \"0.0.0.0:80\"]", None);
    assert!(plan(&[twice]).1[0].contains("'0.0.0.0:80' and '80' are the same address"));
}
