//! Many apps on one machine: each its own unit, listed together, no port for two.

use crate::boxed::Boxed;
use std::path::Path;

on_both! {
    fifty_apps_live_beside_each_other
    two_apps_cannot_claim_one_port
}

const APPS: u16 = 50;

fn file(port: u16) -> String {
    format!(
        "command = [\"/usr/bin/dogwatch\", \"demo-worker\"]\nlisten = [\"{port}\"]\nenabled = true\n[ready]\nsettle = \"50ms\"\n"
    )
}

fn fifty_apps_live_beside_each_other(root: &Path) {
    let boxed = Boxed::boot(root, |_| {});
    for number in 0..APPS {
        boxed.put(&format!("/etc/dogwatch/app-{number:02}.toml"), &file(9000 + number));
    }
    boxed.ok("systemctl daemon-reload");
    let all: String = (0..APPS).map(|number| format!(" app-{number:02}.service")).collect();
    boxed.ok(&format!("systemctl start{all}"));
    let listed = boxed.ok("dogwatch list --json");
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let apps = listed["apps"].as_array().unwrap();
    assert_eq!(apps.len(), usize::from(APPS));
    for (number, app) in apps.iter().enumerate() {
        assert_eq!(app["name"], format!("app-{number:02}"));
        assert_eq!((&app["state"], &app["readySlots"]), (&"running".into(), &1.into()), "{app}");
        assert_eq!(app["unit"], format!("app-{number:02}.service"));
    }
    for number in [0, 7, APPS - 1] {
        let port = 9000 + number;
        let name = boxed.ok(&format!("curl -sS 'http://127.0.0.1:{port}/env?DOGWATCH_APP'"));
        assert_eq!(name, format!("app-{number:02}\n"));
    }
    // What is done to one is done to no other.
    boxed.ok("systemctl reload app-07; systemctl stop app-08.socket app-08.service");
    let listed = boxed.ok("dogwatch list --json");
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let apps = listed["apps"].as_array().unwrap();
    assert_eq!(apps.len(), usize::from(APPS) - 1);
    for app in apps {
        let generation = if app["name"] == "app-07" { 2 } else { 1 };
        assert_eq!(app["generation"], generation, "{app}");
        assert_eq!((&app["primaries"], &app["readySlots"]), (&1.into(), &1.into()), "{app}");
    }
}

fn two_apps_cannot_claim_one_port(root: &Path) {
    let boxed = Boxed::boot(root, |_| {});
    boxed.put("/etc/dogwatch/one.toml", &file(9000));
    boxed.put("/etc/dogwatch/two.toml", &file(9000));
    boxed.ok("systemctl daemon-reload; systemctl start one.service");
    let reason =
        "/etc/dogwatch/two.toml:2: 'listen': '9000' is that of 'one' (/etc/dogwatch/one.toml)";
    boxed.until(&format!(
        "journalctl --sync; journalctl -b -o cat -u two.service | grep -F \"{reason}\""
    ));
    let (said, code) = boxed.try_run("systemctl start two.service");
    assert!(code != 0 && said.contains("not found"), "{code}: {said}");
    let (said, code) = boxed.try_run("dogwatch doctor two");
    assert!(code == 1 && said.contains(reason), "{code}\n{said}");
    assert!(
        said.contains("remedy: give one of them another port, then 'systemctl daemon-reload'"),
        "{said}"
    );
    assert_eq!(boxed.try_run("dogwatch doctor one").1, 0);
    // Who is there keeps it, whatever it is called.
    boxed.put("/etc/dogwatch/aaa.toml", &file(9000));
    boxed.ok("systemctl daemon-reload");
    let (said, code) = boxed.try_run("dogwatch doctor aaa");
    assert!(code == 1 && said.contains("'9000' is that of 'one'"), "{code}\n{said}");
    boxed.put("/etc/dogwatch/two.toml", &file(9002));
    boxed.ok("rm /etc/dogwatch/aaa.toml; systemctl daemon-reload; systemctl start two.socket two.service");
    let (said, code) = boxed.try_run("dogwatch doctor two");
    assert!(code == 0 && said.ends_with("two: nothing is wrong\n"), "{code}\n{said}");
}
