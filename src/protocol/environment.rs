//! The environment of a worker, in systemd's own terms (`sd_listen_fds(3)`, `sd_notify(3)`, `sd_watchdog_enabled(3)`).
//!
//! What systemd told the primary is stripped by prefix, so that a variable of a later systemd (as `LISTEN_PIDFDID`)
//! does not reach a worker that it was not meant for; then the worker's own is set.

use std::time::Duration;

/// Stands for the pid, which only the child knows, and is as long as one can be; the child writes its own over it
/// between clone and exec. Nobody means this as a value.
pub const PID_PLACEHOLDER: &str = "<its pid!>";

/// Variables of the primary's own service manager.
const PREFIXES: [&str; 3] = ["LISTEN_", "NOTIFY_", "WATCHDOG_"];
const NAMES: [&str; 13] = [
    "DOGWATCH_OPEN_FILES",
    // What an upgraded primary was passed.
    "DOGWATCH_PASSED",
    "MAINPID",
    "MANAGERPID",
    "SYSTEMD_EXEC_PID",
    "JOURNAL_STREAM",
    "FDSTORE",
    "MONITOR_SERVICE_RESULT",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    // Node's, where the primary itself was started by a program of Node's.
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
];

/// What a worker is told.
#[derive(Clone, Debug)]
pub struct Worker<'a> {
    /// The name of the app.
    pub app: &'a str,
    /// The slot's number.
    pub slot: u16,
    /// The generation's number.
    pub generation: u32,
    /// The worker's number.
    pub worker: u64,
    /// How it gets its sockets.
    pub sockets: Sockets<'a>,
    /// The path of the worker's notify socket.
    pub notify_socket: &'a str,
    /// How often a heartbeat is expected.
    pub heartbeat: Option<Duration>,
    /// The number of the readiness file descriptor.
    pub ready_fd: Option<i32>,
}

/// How a worker gets its sockets.
#[derive(Clone, Debug)]
pub enum Sockets<'a> {
    /// As the file descriptors from 3 up, with these names.
    Passed(Vec<&'a str>),
    /// It asks for them over Node's channel, which is this file descriptor.
    Channel(i32),
}

/// Returns the environment of a worker as `KEY=VALUE` strings: `inherited` without what was meant for the primary,
/// then the `configured` variables, then the worker's own, each name once.
#[must_use]
pub fn build(
    inherited: impl IntoIterator<Item = (String, String)>,
    configured: &[(String, String)],
    worker: &Worker<'_>,
) -> Vec<String> {
    let mut all: Vec<(String, String)> =
        inherited.into_iter().filter(|(name, _)| !is_primarys(name)).collect();
    all.extend(configured.iter().cloned());
    all.extend(own(worker));
    let mut env: Vec<String> = Vec::with_capacity(all.len());
    for (at, (name, value)) in all.iter().enumerate() {
        if !all[at + 1..].iter().any(|(later, _)| later == name) {
            env.push(format!("{name}={value}"));
        }
    }
    env
}

fn is_primarys(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name)
}

fn own(worker: &Worker<'_>) -> Vec<(String, String)> {
    let mut own = match &worker.sockets {
        Sockets::Passed(names) => vec![
            ("LISTEN_FDS", names.len().to_string()),
            ("LISTEN_PID", PID_PLACEHOLDER.to_owned()),
            ("LISTEN_FDNAMES", names.join(":")),
        ],
        // The number of the slot goes by the name that PM2 gave it.
        Sockets::Channel(fd) => vec![
            ("NODE_CHANNEL_FD", fd.to_string()),
            ("NODE_CHANNEL_SERIALIZATION_MODE", "json".to_owned()),
            ("NODE_UNIQUE_ID", worker.worker.to_string()),
            ("NODE_APP_INSTANCE", worker.slot.to_string()),
        ],
    };
    own.extend([
        ("NOTIFY_SOCKET", worker.notify_socket.to_owned()),
        ("DOGWATCH_APP", worker.app.to_owned()),
        ("DOGWATCH_SLOT", worker.slot.to_string()),
        ("DOGWATCH_GENERATION", worker.generation.to_string()),
        ("DOGWATCH_WORKER", worker.worker.to_string()),
    ]);
    if let Some(interval) = worker.heartbeat {
        own.push(("WATCHDOG_USEC", interval.as_micros().to_string()));
        own.push(("WATCHDOG_PID", PID_PLACEHOLDER.to_owned()));
    }
    if let Some(fd) = worker.ready_fd {
        own.push(("DOGWATCH_READY_FD", fd.to_string()));
    }
    own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn what_was_meant_for_the_primary_does_not_reach_the_worker() {
        let inherited = pairs(&[
            ("PATH", "/bin"),
            ("LISTEN_FDS", "9"),
            ("LISTEN_PIDFDID", "77"),
            ("NOTIFY_SOCKET", "/run/systemd/notify"),
            ("WATCHDOG_USEC", "1"),
            ("JOURNAL_STREAM", "8:1"),
            ("PORT", "1"),
        ]);
        let mut worker = Worker {
            app: "myapp",
            slot: 2,
            generation: 3,
            worker: 11,
            sockets: Sockets::Passed(vec!["web", "admin"]),
            notify_socket: "/run/dogwatch/myapp/worker-11",
            heartbeat: Some(Duration::from_secs(10)),
            ready_fd: Some(5),
        };
        assert_eq!(
            build(inherited, &pairs(&[("PORT", "8080"), ("PORT", "8081")]), &worker),
            [
                "PATH=/bin",
                "PORT=8081",
                "LISTEN_FDS=2",
                "LISTEN_PID=<its pid!>",
                "LISTEN_FDNAMES=web:admin",
                "NOTIFY_SOCKET=/run/dogwatch/myapp/worker-11",
                "DOGWATCH_APP=myapp",
                "DOGWATCH_SLOT=2",
                "DOGWATCH_GENERATION=3",
                "DOGWATCH_WORKER=11",
                "WATCHDOG_USEC=10000000",
                "WATCHDOG_PID=<its pid!>",
                "DOGWATCH_READY_FD=5",
            ]
        );
        worker.sockets = Sockets::Channel(3);
        let of_another = pairs(&[("NODE_CHANNEL_FD", "9"), ("NODE_UNIQUE_ID", "1")]);
        assert_eq!(
            build(of_another, &[], &worker)[..5],
            [
                "NODE_CHANNEL_FD=3",
                "NODE_CHANNEL_SERIALIZATION_MODE=json",
                "NODE_UNIQUE_ID=11",
                "NODE_APP_INSTANCE=2",
                "NOTIFY_SOCKET=/run/dogwatch/myapp/worker-11",
            ]
        );
    }
}
