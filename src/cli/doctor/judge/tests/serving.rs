//! What the unit promises, and how the app serves.

use super::*;

#[test]
fn each_weakened_promise_says_what_is_lost() {
    for (key, value, said) in [
        (
            "KillMode",
            "control-group",
            "KillMode=control-group: when the primary dies, systemd ends all workers",
        ),
        ("KillMode", "mixed", "KillMode=process, where"),
        ("Type", "simple", "before anybody serves"),
        ("NotifyAccess", "none", "the FD store stays empty"),
        ("Restart", "no", "not started again"),
        ("StartLimitIntervalUSec", "10s", "StartLimitIntervalSec=10s: after a few failures"),
        ("Delegate", "no", "no control groups"),
        ("WatchdogUSec", "0", "a primary that hangs is not replaced"),
        ("WatchdogUSec", "500ms", "killed that is well"),
        ("NonBlocking", "no", "NonBlocking=yes, where"),
        ("TimeoutStartUSec", "1s", "TimeoutStartSec=60"),
        ("TimeoutStopUSec", "1s", "TimeoutStopSec=60"),
        ("TimeoutStopUSec", "infinity", "switched off"),
    ] {
        let mut facts = healthy();
        set(&mut facts, key, &[value]);
        says(&facts, &["Warning service: ", said]);
    }
    let mut facts = healthy();
    set(&mut facts, "TimeoutStartUSec", &["infinity"]);
    assert_eq!(wrong(&facts), Vec::<String>::new());
    set(&mut facts, "KillMode", &["mixed"]);
    set(&mut facts, "DropInPaths", &["/etc/systemd/system/shop.service.d/x.conf"]);
    says(
        &facts,
        &["KillMode=process, where /etc/systemd/system/shop.service.d/x.conf says otherwise"],
    );
    let mut facts = healthy();
    facts.socket.as_mut().unwrap().set("TriggerLimitIntervalUSec", &["2s"]);
    says(&facts, &["TriggerLimitIntervalSec=2s in shop.socket"]);
}

#[test]
fn the_store_must_hold_what_may_be_needed() {
    let mut facts = healthy();
    set(&mut facts, "FileDescriptorStoreMax", &["5"]);
    says(
        &facts,
        &["Problem fd store: there is room for 5 descriptors, and", "FileDescriptorStoreMax="],
    );
    set(&mut facts, "FileDescriptorStoreMax", &["0"]);
    says(&facts, &["Problem fd store"]);
}

#[test]
fn exposure_names_what_costs_most() {
    let mut facts = healthy();
    let points =
        [("ProtectHome=", 0.2), ("UMask=", 0.1)].map(|(name, cost)| (name.to_owned(), cost));
    facts.exposure = Some(Ok(Exposure { level: 2.4, points: points.to_vec() }));
    says(
        &facts,
        &[
            "Warning security: exposure 2.4 of 10, most of all by ProtectHome= 0.2, UMask= 0.1",
            "[sandbox]",
        ],
    );
    facts.is_made = true;
    says(&facts, &["Warning security"]);
    // What the file asks for is not held against it, but for a sandbox that is off.
    for (asked, is_warned) in [("home = \"read-only\"", false), ("off = true", true)] {
        // Without a user of its own no sandbox can be off.
        let user = if is_warned { "user = \"joe\"\n" } else { "" };
        let mut asking = with(&format!("{user}{FILE}[sandbox]\n{asked}\n"));
        asking.is_made = true;
        asking.exposure = Some(Ok(Exposure { level: 2.4, points: points.to_vec() }));
        assert_eq!(!wrong(&asking).is_empty(), is_warned, "{asked}");
    }
    facts.exposure = Some(Err("no".to_owned()));
    says(&facts, &["Unknown security: no"]);
}

#[test]
fn slots_and_the_last_reload_are_told() {
    let slot = |state| Slot {
        slot: 1,
        state,
        generation: 1,
        restarts: 5,
        failures: 5,
        retry_in_ms: None,
        reason: Some("exited with status 1".to_owned()),
        given: None,
        last_exit: None,
        workers: vec![],
    };
    let told = |state, failed_generation: Option<u32>| {
        let mut facts = healthy();
        let Primary::Runs { shown, .. } = &mut facts.primary else { return facts };
        shown.app.slots = vec![slot(state)];
        shown.last_failure = failed_generation.map(|generation| Failure {
            worker: 7,
            slot: 0,
            generation,
            reason: "exited with status 1".to_owned(),
            time_usec: 1_700_000_000_000_000,
            lines: vec!["ImportError".to_owned()],
            hint: None,
        });
        facts
    };
    says(
        &told(SlotState::Failed, None),
        &[
            "Problem serving: slot 1 was given up: its worker exited with status 1",
            "'dogwatch reset shop/1'",
        ],
    );
    says(&told(SlotState::Waiting, None), &["Problem serving: slot 1 has failed 5 times in a row"]);
    says(
        &told(SlotState::Stopped, None),
        &["Warning serving: slot 1 was stopped by hand | 'dogwatch start shop/1'"],
    );
    let facts = told(SlotState::Ready, Some(2));
    says(
        &facts,
        &[
            "Problem failure: the last reload was rolled back to generation 1;",
            "worker 7 (slot 0, generation 2) exited with status 1",
            "then 'dogwatch reload shop'",
        ],
    );
    assert!(report("shop", &judge(&facts)).contains("    ImportError"));
    assert_eq!(wrong(&told(SlotState::Ready, Some(1))), Vec::<String>::new());
}

#[test]
fn what_is_not_in_force_waits_for_a_reload() {
    let mut facts = healthy();
    let change = |key: &str| Change { key: key.to_owned(), from: None, to: None };
    let Primary::Runs { reload, .. } = &mut facts.primary else { return };
    *reload = Some(Ok(vec![change("workers"), change("listen")]));
    says(&facts, &["Warning settings", ": 'workers' | 'dogwatch reload shop'"]);
}

#[test]
fn what_does_not_run_is_good_only_where_a_connection_starts_it() {
    let serving = |facts: &Facts| {
        let all = judge(facts);
        all.into_iter().find(|finding| finding.about == "serving").map(|found| found.text)
    };
    let mut facts = stopped();
    says(&facts, &["Warning units: shop.service does not run, and nobody waits for connections"]);
    assert_eq!(serving(&facts), None);
    facts.socket.as_mut().unwrap().set("ActiveState", &["active"]);
    // The socket is said to be active, and nobody listens.
    says(&facts, &["Problem sockets: nobody listens on '8080'"]);
    assert_eq!(serving(&facts), None);
    facts.listening = healthy().listening;
    assert_eq!(wrong(&facts), Vec::<String>::new());
    assert!(serving(&facts).unwrap().ends_with("the first connection starts it"));
    (facts.service, facts.socket) = (None, None);
    facts.systemd = Err("systemd does not run here".to_owned());
    facts.listening = vec![];
    let said = wrong(&facts).join("\n");
    assert!(said.contains("Warning serving: it does not run, and nobody waits"), "{said}");
}
