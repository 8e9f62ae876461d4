//! What the documents promise of a machine with systemd: their blocks for a box, run in one where dogwatch is installed as
//! a package installs it. tests/support/docs.rs tells how a block says that.

use crate::boxed::Boxed;
use crate::support::docs::{Script, documents, put_examples};
use crate::support::{self, put_program};
use std::fs;
use std::path::Path;

/// Documents, on these releases of Debian.
macro_rules! documents {
    ($($on:ident $release:literal { $($name:ident: $file:literal,)* })*) => {
        const RUN: &[&str] = &[$($($file),*),*];
        $(mod $on { $(#[test] fn $name() { super::run($release, $file); })* })*
    };
}

// On the older one what has to do with the version.
documents! {
    docs_on_252 "bookworm" {
        hardening: "docs/hardening.md",
        readme: "README.md",
        units: "docs/units.md",
        user_services: "docs/user-services.md",
    }
    docs_on_257 "trixie" {
        balance: "docs/balance.md",
        deploy: "docs/deploy.md",
        from_pm2: "docs/from-pm2.md",
        hardening: "docs/hardening.md",
        logs: "docs/logs.md",
        readiness_and_drain: "docs/readiness-and-drain.md",
        readme: "README.md",
        reference_varlink: "docs/reference-varlink.md",
        survival: "docs/survival.md",
        units: "docs/units.md",
        user_services: "docs/user-services.md",
    }
}

fn run(release: &str, document: &str) {
    let Some(root) = crate::boxed::root(release) else { return };
    let Some(node) = support::node(22) else { return };
    let script = Script::new(document, "box").unwrap();
    let boxed = Boxed::boot_with_bpf(&root, |layer| {
        as_a_package(layer);
        fs::copy(&node, layer.join("usr/bin/node")).unwrap();
    });
    boxed.put("/root/script", &script.text);
    let (said, _) = boxed.try_run("cd /root && bash script");
    let wrong = script.wrong(&said);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a package installs, and programs that the documents need.
pub(crate) fn as_a_package(layer: &Path) {
    for unit in ["myapp.socket", "myapp.service"] {
        fs::remove_file(layer.join("usr/lib/systemd/system").join(unit)).unwrap();
    }
    put_examples(&layer.join("usr/share/doc/dogwatch"));
    put_program(&layer.join("usr/local/bin/sudo"), "exec \"$@\"");
}

#[test]
fn every_document_with_commands_for_a_box_is_run() {
    for document in documents() {
        let has = Script::new(&document, "box").is_some();
        assert_eq!(has, RUN.contains(&document.as_str()), "{document}");
    }
}
