//! As pid 1, as in a container: namespaces make one, without an engine.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use std::process::{Command, Output};

/// Runs a script as pid 1, with a network, processes and a /run of its own; `None` where that cannot be.
fn as_pid_1(script: &str) -> Option<Output> {
    let folder = tempfile::tempdir().unwrap();
    let is_root = nix::unistd::geteuid().is_root();
    let unshared = |script: &str| {
        let mut unshare = Command::new("timeout");
        unshare.args(["100", "unshare"]).args(if is_root { &[][..] } else { &["-r"] });
        unshare.args(["-m", "-n", "-p", "--fork", "--kill-child", "--mount-proc"]);
        unshare.args(["bash", "-c", script]).current_dir(&folder);
        unshare.env_remove("XDG_RUNTIME_DIR").env("DOGWATCH", support::dogwatch());
        unshare
    };
    if !unshared("true").status().is_ok_and(|status| status.success()) {
        support::skip("namespaces");
        return None;
    }
    let script = format!("ip link set lo up; mount -t tmpfs tmpfs /run; {script}");
    Some(unshared(&script).output().unwrap())
}

#[test]
fn it_reaps_what_others_leave_behind_and_ends_with_its_workers() {
    let script = r#"
        cat > worker <<'END'
for i in 1 2 3 4 5 6 7 8; do (sh -c 'echo $$ >> orphans; sleep 0.2' &); done
exec "$DOGWATCH" demo-worker
END
        (
            until curl -sS http://127.0.0.1:8080/ 2>/dev/null; do sleep 0.05; done
            until [ "$(wc -l < orphans)" = 16 ]; do sleep 0.05; done
            for pid in $(cat orphans); do while [ -e /proc/$pid ]; do sleep 0.05; done; done
            echo "reaped"
            "$DOGWATCH" reload app
            kill -TERM 1
        ) &
        exec "$DOGWATCH" run -l 8080 -n 2 --settle 0ms --name app -- sh worker"#;
    let Some(output) = as_pid_1(script) else { return };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("hello from worker") && said.contains("reaped"), "{output:?}");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("reload done: generation 2"), "{errors}");
}

#[test]
fn when_every_slot_is_given_up_it_ends_with_1_so_that_the_engine_knows() {
    let script = r#"exec "$DOGWATCH" run -l 8080 -n 2 --start-limit 2/30s -- false"#;
    let Some(output) = as_pid_1(script) else { return };
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn without_a_place_to_write_it_says_so() {
    let script = r#"mount -t tmpfs -o ro tmpfs /run; exec "$DOGWATCH" run -l 8080 -- sleep 100"#;
    let Some(output) = as_pid_1(script) else { return };
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("'/run/dogwatch/sleep': Read-only file system"), "{errors}");
}
