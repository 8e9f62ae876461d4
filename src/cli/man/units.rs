//! The keys of the file that speak of its units, which have no flag: how each is written, and what it is for.

/// A key, how its value is written, and its help.
pub(super) const KEYS: [(&str, &str, &str); 28] = [
    ("description", "\"TEXT\"", "What the units are for, in a line"),
    (
        "enabled",
        "true, false or \"socket\"",
        "What starts when the machine does: both units, none, or the socket, whose first connection starts the service [default: false]",
    ),
    (
        "user",
        "\"NAME\"",
        "As whom the service runs [default: a user that systemd makes for it, DynamicUser= in systemd.exec(5)]",
    ),
    ("group", "\"NAME\"", "And in which group [default: that of the user]"),
    ("sandbox.off", "true", "Take the whole sandbox away, and leave only the user"),
    (
        "sandbox.home",
        "true or \"read-only\"",
        "What is in /home, /root and /run/user is seen [default: the folders are empty]",
    ),
    ("sandbox.write", "[\"/PATH\"]", "Where files may be changed; everything else is read-only"),
    ("sandbox.state", "true", "A folder of its own, /var/lib/APP; its path is in $STATE_DIRECTORY"),
    ("sandbox.cache", "true", "A folder of its own, /var/cache/APP, in $CACHE_DIRECTORY"),
    ("sandbox.logs", "true", "A folder of its own, /var/log/APP, in $LOGS_DIRECTORY"),
    ("sandbox.tmp", "true", "The /tmp that all share, instead of one of its own"),
    ("sandbox.devices", "true", "Devices in /dev beyond the harmless ones"),
    ("sandbox.processes", "true", "Processes of other users are seen in /proc"),
    ("sandbox.kernel", "true", "The kernel's variables, modules and log"),
    ("sandbox.clock", "true", "The system's clock can be set"),
    ("sandbox.hostname", "true", "The host's name can be set"),
    (
        "sandbox.namespaces",
        "true",
        "Namespaces can be made, as browsers want for their own sandboxes",
    ),
    ("sandbox.realtime", "true", "Real-time scheduling"),
    ("sandbox.suid", "true", "Files can be given set-user-id and set-group-id bits"),
    ("sandbox.privileges", "true", "Programs like sudo can gain privileges"),
    ("sandbox.personality", "true", "The kernel's personality can be changed"),
    (
        "sandbox.address-families",
        "[\"AF_PACKET\"]",
        "More kinds of sockets than unix, IPv4, IPv6 and netlink",
    ),
    (
        "sandbox.system-calls",
        "[\"@mount\"]",
        "More system calls than those of services, @system-service in systemd.exec(5)",
    ),
    (
        "sandbox.capabilities",
        "[\"CAP_NET_RAW\"]",
        "Rights of root that workers have, capabilities(7)",
    ),
    ("sandbox.umask", "\"0022\"", "Mode bits that new files do not get [default: 0077]"),
    (
        "unit",
        "{ NAME = \"VALUE\" }",
        "Lines for [Unit] of the service, as systemd.unit(5) has them; a list is a line for each",
    ),
    (
        "service",
        "{ NAME = \"VALUE\" }",
        "Lines for [Service], as systemd.service(5), systemd.exec(5) and systemd.resource-control(5) have them",
    ),
    ("socket", "{ NAME = \"VALUE\" }", "Lines for [Socket], as systemd.socket(5) has them"),
];
