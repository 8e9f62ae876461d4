//! What the shipped units forbid, and one key of `[sandbox]` for each part of that.

use super::super::typed::{Sandbox, Typed};
use super::super::values::Home;
use super::document::{Document, plain, word};
use std::fmt::Display;

/// What forbids something, and what it says when it does not; `None` takes the line away.
type Part = (&'static str, Option<&'static str>);

/// Returns the first key that says nothing without a user of one's own: `DynamicUser=` implies what it would take away.
pub(super) fn needs_user(typed: &Typed) -> Option<&'static str> {
    let s = &typed.sandbox;
    let home = (s.home == Some(Home::Open)).then_some(true);
    let keys = [
        ("sandbox.off", s.off),
        ("sandbox.home", home),
        ("sandbox.tmp", s.tmp),
        ("sandbox.suid", s.suid),
        ("sandbox.privileges", s.privileges),
    ];
    keys.into_iter().find(|(_, is_allowed)| *is_allowed == Some(true)).map(|(key, _)| key)
}

/// Loosens what the file asks for.
pub(super) fn relax(socket: &mut Document, service: &mut Document, sandbox: &Sandbox, app: &str) {
    let off = sandbox.off.unwrap_or(false);
    for (allowed, parts) in parts(sandbox) {
        if off || allowed.unwrap_or(false) {
            for (key, value) in parts {
                match value {
                    Some(value) => service.set("Service", key, *value),
                    None => service.remove("Service", key),
                }
            }
        }
    }
    // The socket unit has the same /tmp, and keeps it while the service restarts.
    if off || sandbox.tmp.unwrap_or(false) {
        socket.remove("Socket", "PrivateTmp");
        service.remove("Unit", "JoinsNamespaceOf");
    }
    match sandbox.home {
        Some(Home::ReadOnly) => service.set("Service", "ProtectHome", "read-only"),
        Some(Home::Open) => service.set("Service", "ProtectHome", "no"),
        Some(Home::Hidden) => service.set("Service", "ProtectHome", "yes"),
        None if off => service.set("Service", "ProtectHome", "no"),
        None => {}
    }
    folders(service, sandbox, app);
    lists(service, sandbox);
}

fn parts(s: &Sandbox) -> [(Option<bool>, &'static [Part]); 12] {
    [
        // Only 'off' takes these away.
        (
            None,
            &[
                ("ProtectSystem", Some("no")),
                ("PrivateMounts", Some("no")),
                ("CapabilityBoundingSet", None),
                ("RestrictAddressFamilies", None),
                ("SystemCallArchitectures", None),
                ("SystemCallFilter", None),
                ("SystemCallErrorNumber", None),
                ("UMask", None),
            ],
        ),
        (s.tmp, &[("PrivateTmp", Some("no"))]),
        (s.devices, &[("PrivateDevices", Some("no"))]),
        (s.processes, &[("ProtectProc", Some("default"))]),
        (
            s.kernel,
            &[
                ("ProtectKernelTunables", Some("no")),
                ("ProtectKernelModules", Some("no")),
                ("ProtectKernelLogs", Some("no")),
            ],
        ),
        (s.clock, &[("ProtectClock", Some("no"))]),
        (s.hostname, &[("ProtectHostname", Some("no"))]),
        (s.namespaces, &[("RestrictNamespaces", Some("no"))]),
        (s.realtime, &[("RestrictRealtime", Some("no"))]),
        (s.suid, &[("RestrictSUIDSGID", Some("no"))]),
        (s.privileges, &[("NoNewPrivileges", Some("no")), ("RestrictSUIDSGID", Some("no"))]),
        (s.personality, &[("LockPersonality", Some("no"))]),
    ]
}

/// Where it may write.
fn folders(service: &mut Document, sandbox: &Sandbox, app: &str) {
    let own = [
        ("StateDirectory", sandbox.state),
        ("CacheDirectory", sandbox.cache),
        ("LogsDirectory", sandbox.logs),
    ];
    for (key, wanted) in own {
        if wanted.unwrap_or(false) {
            service.set("Service", key, plain(app));
        }
    }
    for path in sandbox.write.iter().flatten() {
        service.add("Service", "ReadWritePaths", word(&path.0.to_string_lossy()));
    }
}

/// What is added to lists of what is allowed.
fn lists(service: &mut Document, sandbox: &Sandbox) {
    let joined = |words: &mut dyn Iterator<Item = &dyn Display>| {
        words.map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    if let Some(families) = &sandbox.address_families {
        let text = joined(&mut families.iter().map(|family| &family.0 as &dyn Display));
        service.extend("Service", "RestrictAddressFamilies", text);
    }
    if let Some(calls) = &sandbox.system_calls {
        let text = joined(&mut calls.iter().map(|call| &call.0 as &dyn Display));
        service.extend("Service", "SystemCallFilter", text);
    }
    if let Some(capabilities) = &sandbox.capabilities {
        let text = joined(&mut capabilities.iter().map(|one| &one.0 as &dyn Display));
        service.extend("Service", "CapabilityBoundingSet", text.clone());
        service.add("Service", "AmbientCapabilities", text);
    }
    if let Some(umask) = &sandbox.umask {
        service.set("Service", "UMask", umask.0.clone());
    }
}
