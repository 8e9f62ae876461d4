//! systemd's own programs, asked once each: what they print, or why they do not answer.

use super::facts::Exposure;
use super::unit::Unit;
use crate::config::units::Scope;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

/// Whoever prints nothing for so long, in milliseconds, does not answer.
const PATIENCE: u16 = 10_000;

/// None of them prints more.
const MAX_OUTPUT: usize = 1 << 20;

/// The properties that questions are about.
const PROPERTIES: &str = "Id,LoadState,LoadError,ActiveState,SubState,Result,NRestarts,UnitFileState,FragmentPath,SourcePath,DropInPaths,\
    NeedDaemonReload,WantedBy,RequiredBy,ExecStart,ExecMainCode,ExecMainStatus,MainPID,InvocationID,User,Group,DynamicUser,\
    SupplementaryGroups,CapabilityBoundingSet,AmbientCapabilities,Environment,ProtectHome,PrivateTmp,BindPaths,\
    BindReadOnlyPaths,Type,NotifyAccess,NonBlocking,KillMode,Restart,StartLimitIntervalUSec,TriggerLimitIntervalUSec,Delegate,\
    WatchdogUSec,WorkingDirectory,TimeoutStartUSec,TimeoutStopUSec,FileDescriptorStoreMax,NFileDescriptorStore,Listen,ReusePort";

/// What somebody said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) is_done: bool,
    pub(super) output: String,
    /// The first line of what went wrong.
    pub(super) complaint: String,
}

/// Runs a program to its end, in the language of this one.
#[expect(clippy::disallowed_methods, reason = "a client is no primary; it may have children")]
pub(super) fn ask(program: &str, arguments: &[&str]) -> Result<Said, String> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C.UTF-8").env("SYSTEMD_COLORS", "0");
    run(program, &mut command)
}

/// Runs a program to its end.
pub(super) fn run(name: &str, command: &mut Command) -> Result<Said, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("cannot run {name}: {e}"))?;
    let mut output = child.stdout.take().ok_or_else(|| format!("{name} has no output"))?;
    let mut bytes = vec![];
    let whole = loop {
        let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(PATIENCE)) {
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(1..) if bytes.len() < MAX_OUTPUT => {}
            Ok(_) | Err(_) => break false,
        }
        let mut more = [0; 16 * 1024];
        match output.read(&mut more) {
            Ok(0) => break true,
            Ok(length) => bytes.extend_from_slice(&more[..length]),
            Err(_) => break false,
        }
    };
    if !whole {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("{name} does not answer"));
    }
    let mut complaint = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(64 * 1024).read_to_string(&mut complaint);
    }
    let status = child.wait().map_err(|e| format!("cannot wait for {name}: {e}"))?;
    let output = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Said { is_done: status.success(), output, complaint })
}

fn with_scope<'a>(scope: Scope, arguments: &[&'a str]) -> Vec<&'a str> {
    let user = (scope == Scope::User).then_some("--user");
    user.into_iter().chain(arguments.iter().copied()).collect()
}

/// Returns what systemd knows of these units, in their order.
pub(super) fn units(scope: Scope, names: &[&str]) -> Result<Vec<Unit>, String> {
    let arguments = [&["show", "-p", PROPERTIES, "--"][..], names].concat();
    let said = ask("systemctl", &with_scope(scope, &arguments))?;
    if !said.is_done {
        let complaint = said.complaint.lines().next().unwrap_or("it failed");
        return Err(format!("systemctl says: {complaint}"));
    }
    Ok(said.output.trim_end().split("\n\n").map(Unit::of_show).collect())
}

/// Returns where services' programs are looked for.
pub(super) fn manager_path(scope: Scope) -> Option<String> {
    let said = ask("systemctl", &with_scope(scope, &["show-environment"])).ok()?;
    said.output.lines().find_map(|line| line.strip_prefix("PATH=")).map(str::to_owned)
}

/// Returns how much a service may do.
pub(super) fn exposure(scope: Scope, unit: &str) -> Result<Exposure, String> {
    let said = ask("systemd-analyze", &with_scope(scope, &["security", "--no-pager", unit]))?;
    read_exposure(&said.output).ok_or_else(|| match said.complaint.lines().next() {
        Some(line) => format!("systemd-analyze says: {line}"),
        None => "systemd-analyze says nothing".to_owned(),
    })
}

/// What the shipped unit costs, too: what a network server needs, and what its supervisor does.
const OF_EVERY_APP: [&str; 14] = [
    "PrivateNetwork=",
    "RestrictAddressFamilies=~AF_(INET|INET6)",
    "RestrictAddressFamilies=~AF_UNIX",
    "RestrictAddressFamilies=~AF_NETLINK",
    "IPAddressDeny=",
    "PrivateUsers=",
    "ProtectControlGroups=",
    "SystemCallFilter=~@resources",
    "SystemCallFilter=~@privileged",
    "Delegate=",
    "ProcSubset=",
    "DeviceAllow=",
    "MemoryDenyWriteExecute=",
    "RootDirectory=/RootImage=",
];

fn read_exposure(table: &str) -> Option<Exposure> {
    let (_, rest) = table.split_once("Overall exposure level for ")?;
    let level = rest.split_once(": ")?.1.split(' ').next()?.parse().ok()?;
    let point = |line: &str| {
        let name = line.strip_prefix('✗')?.split_whitespace().next()?;
        let cost: f64 = line.split_whitespace().next_back()?.parse().ok()?;
        (!OF_EVERY_APP.contains(&name)).then(|| (name.to_owned(), cost))
    };
    let mut points: Vec<(String, f64)> = table.lines().filter_map(point).collect();
    points.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    Some(Exposure { level, points })
}

/// Whether this user's manager is there without a login; `None` where nobody can say.
pub(super) fn lingers(user: u32) -> Option<bool> {
    let said = ask("loginctl", &["show-user", "-p", "Linger", "--value", &user.to_string()]);
    let said = said.ok()?;
    match said.output.trim() {
        "yes" => Some(true),
        "no" => Some(false),
        // Who neither lingers nor is logged in is not known to it.
        _ => (!said.is_done && said.complaint.contains("not logged in")).then_some(false),
    }
}

/// Returns the last lines that a start of a service left, the last five.
pub(super) fn last_lines(scope: Scope, invocation: &str) -> Vec<String> {
    let wanted = format!("_SYSTEMD_INVOCATION_ID={invocation}");
    let arguments = ["-q", "--no-pager", "-n", "5", "-o", "cat", &wanted];
    let said = ask("journalctl", &with_scope(scope, &arguments));
    said.map(|said| said.output.lines().map(str::to_owned).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_costs_most_and_is_not_needed_comes_first() {
        let table = "  NAME DESCRIPTION EXPOSURE\n✓ PrivateTmp=  Service has no access\n\
            ✗ PrivateNetwork=  Service has access to the host's network  0.5\n\
            ✗ UMask=  Files created by service are world-readable  0.1\n\
            ✗ ProtectHome=  Service has full access to home directories  0.2\n\
            \n→ Overall exposure level for a.service: 2.4 OK :-)\n";
        let exposure = read_exposure(table).unwrap();
        assert!((exposure.level - 2.4).abs() < 0.01);
        let names: Vec<&str> = exposure.points.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["ProtectHome=", "UMask="]);
        assert!(read_exposure("Unit a.service not found.").is_none());
    }

    #[test]
    fn who_cannot_be_run_is_named() {
        assert!(ask("/no/such", &[]).unwrap_err().starts_with("cannot run /no/such: "));
        let said = ask("sh", &["-c", "echo a; echo b >&2; exit 3"]).unwrap();
        assert_eq!(
            (said.output.as_str(), said.complaint.as_str(), said.is_done),
            ("a\n", "b\n", false)
        );
    }
}
