//! The life of the .deb on a machine that has never heard of dogwatch, with an app in service.

use super::support::packages;
use super::{Boxed, load_of, wait_for};
use crate::boxed::copy;
use std::path::Path;

on_both! {
    a_package_comes_is_replaced_under_load_and_goes
    a_package_is_installed_where_no_systemd_runs
}

const APP: &str = r#"
command = ["/usr/bin/dogwatch", "demo-worker"]
workers = 4
listen = ["8080"]
[ready]
settle = "50ms"
"#;

const DROP_INS: &str = "/etc/systemd/system/shop.service.d";

/// A machine without us, and the packages on it.
fn machine(root: &Path) -> Option<Boxed> {
    let debs = packages::both(".deb")?;
    Some(Boxed::boot_bare(root, |layer| {
        for (deb, name) in debs.iter().zip(["this", "later"]) {
            copy(deb, layer, &format!("srv/{name}.deb"));
        }
    }))
}

/// Has apt do something, and returns what it says.
fn apt(boxed: &Boxed, what: &str) -> String {
    boxed.ok(&format!("DEBIAN_FRONTEND=noninteractive apt-get -qy {what}"))
}

/// All files that a package could have left.
fn files(boxed: &Boxed) -> String {
    boxed.ok("systemctl daemon-reload; find /etc /usr /run/systemd/generator* /var/lib/systemd -xdev | sort")
}

fn pids(boxed: &Boxed) -> String {
    boxed.run("pgrep -f '^/usr/bin/dogwatch demo-worker'")
}

/// One file is an app.
fn write_app(boxed: &Boxed) {
    boxed.put("/etc/dogwatch/shop.toml", APP);
    // However long apt takes while the primary stands still.
    boxed.put(&format!("{DROP_INS}/patient.conf"), "[Service]\nWatchdogSec=5min\n");
    boxed.ok("systemctl daemon-reload; systemctl start shop.socket");
}

fn is_served(boxed: &Boxed) {
    wait_for("four workers", || (pids(boxed).lines().count() == 4).then_some(()));
    boxed.until("test $(systemctl show -P ActiveState shop) = active");
}

fn a_package_comes_is_replaced_under_load_and_goes(root: &Path) {
    let Some(boxed) = machine(root) else { return };
    let before = files(&boxed);
    let said = apt(&boxed, "install /srv/this.deb");
    assert!(said.contains("no app is running"), "{said}");
    write_app(&boxed);
    let answer = boxed.ok("curl -sS http://127.0.0.1:8080/");
    assert!(answer.starts_with("hello from worker "), "{answer}");
    is_served(&boxed);
    the_catalog_explains(&boxed);
    let load = load_of(&boxed, 4, 1);
    boxed.ok("systemctl reload shop");
    is_served(&boxed);
    replaced_in_place(&boxed, "install /srv/later.deb");
    replaced_in_place(&boxed, "install --allow-downgrades /srv/this.deb");
    one_that_is_refused_does_not_fail_the_installation(&boxed);
    let (workers, pid) = (pids(&boxed), boxed.show("shop", "MainPID"));
    let said = apt(&boxed, "remove dogwatch");
    assert!(said.contains("'shop' runs on and serves, "), "{said}");
    assert!(said.contains("to stop it: systemctl stop shop.socket shop.service"), "{said}");
    assert!(said.contains("systemd knows the units until"), "{said}");
    boxed.ok("! test -e /usr/bin/dogwatch && curl -sS http://127.0.0.1:8080/");
    assert_eq!((pids(&boxed), boxed.show("shop", "MainPID")), (workers, pid));
    load.stop().assert_clean(1);
    // What the package has said works without it.
    boxed.ok("systemctl stop shop.socket shop.service");
    boxed.until("! pgrep -f '[d]ogwatch (run|demo-worker)'");
    let said = apt(&boxed, "purge dogwatch");
    assert!(said.contains("for these files are yours: /etc/dogwatch/shop.toml"), "{said}");
    boxed.ok(&format!("rm -r /etc/dogwatch/shop.toml {DROP_INS}"));
    apt(&boxed, "install /srv/this.deb");
    let said = apt(&boxed, "purge dogwatch");
    assert!(!said.contains("/etc/dogwatch"), "{said}");
    assert_eq!(files(&boxed), before);
    boxed.ok("! test -e /run/dogwatch");
}

/// Somebody who asks the journal is told what to do.
fn the_catalog_explains(boxed: &Boxed) {
    let told = boxed.ok("journalctl --sync; journalctl -xb --no-pager -u shop");
    assert!(told.contains("Subject: 'shop' has started"), "{told}");
    assert!(told.contains("dogwatch show shop"), "{told}");
}

/// The same process runs the program of the other package, and its workers are who they were.
fn replaced_in_place(boxed: &Boxed, how: &str) {
    let (workers, pid) = (pids(boxed), boxed.show("shop", "MainPID"));
    boxed.ok(&format!("test /proc/{pid}/exe -ef /usr/bin/dogwatch"));
    let said = apt(boxed, how);
    assert!(said.contains("\n'shop' runs '/usr/bin/dogwatch' anew, "), "{said}");
    assert!(said.contains("; 4 of 4 slots are served"), "{said}");
    assert_eq!((pids(boxed), boxed.show("shop", "MainPID")), (workers, pid.clone()));
    boxed.ok(&format!("test /proc/{pid}/exe -ef /usr/bin/dogwatch"));
    assert_eq!(boxed.show("shop", "NRestarts"), "0");
}

fn one_that_is_refused_does_not_fail_the_installation(boxed: &Boxed) {
    let pid = boxed.show("shop", "MainPID");
    // A primary that does not answer.
    boxed.ok(&format!("kill -STOP {pid}"));
    let said = apt(boxed, "install --reinstall /srv/this.deb");
    boxed.ok(&format!("kill -CONT {pid}"));
    assert!(said.contains("cannot reach 'shop': its primary has not answered"), "{said}");
    assert!(said.contains("to try again: dogwatch upgrade APP"), "{said}");
    boxed.ok("dogwatch upgrade shop");
}

/// As in an image that is being built.
fn a_package_is_installed_where_no_systemd_runs(root: &Path) {
    let Some(boxed) = machine(root) else { return };
    let inside =
        "unshare -m sh -ec 'mount -t tmpfs tmpfs /run; export DEBIAN_FRONTEND=noninteractive";
    let said = boxed.ok(&format!(
        "{inside}; apt-get -qy install /srv/this.deb; apt-get -qy purge dogwatch; ! test -e /etc/dogwatch'"
    ));
    assert!(!said.contains("cannot") && !said.contains("no app is running"), "{said}");
}
