//! Settings as somebody typed them, in a file or as flags: every key may be missing.

use super::values::{
    Account, Address, Balance, Capability, Enabled, Family, Handoff, Home, Line, LogMode,
    OnFailure, Passed, Reader, ReadyWhen, StartLimit, StopSignal, StopWhen, SystemCall, Time,
    Umask, UnitPath, Workers,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

macro_rules! typed {
    ($($(#[$doc:meta])* $name:ident {
        $($(#[$key_doc:meta])* $key:ident: $type:ty),* $(,)?
    } [ $($(#[$table_doc:meta])* $table:ident: $table_type:ty),* $(,)? ])*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        pub struct $name {
            $($(#[$key_doc])* pub $key: Option<$type>,)*
            $($(#[$table_doc])* #[serde(default)] pub $table: $table_type,)*
        }

        impl $name {
            /// Returns the keys as a file has them, dotted.
            #[must_use]
            pub fn keys() -> Vec<String> {
                let kebab = |name: &str| name.replace('_', "-");
                #[allow(unused_mut, clippy::allow_attributes, reason = "a table has no tables in it")]
                let mut keys = vec![$(kebab(stringify!($key)),)*];
                $(keys.extend(<$table_type>::keys().into_iter().map(|key| format!("{}.{key}", stringify!($table))));)*
                keys
            }

            /// Returns these settings, and `below` where they are silent.
            #[must_use]
            pub fn or(self, below: Self) -> Self {
                Self {
                    $($key: self.$key.or(below.$key),)*
                    $($table: self.$table.or(below.$table),)*
                }
            }
        }
    )*};
}

typed! {
    /// All of it.
    Typed {
        /// The program and its arguments; no shell.
        command: Vec<String>,
        /// The number of slots.
        workers: Workers,
        /// What the socket unit is made of; where to listen when no socket is passed.
        listen: Vec<Address>,
        /// Where workers run; a symlink is resolved for each generation.
        working_directory: PathBuf,
        /// Variables for the workers.
        env: BTreeMap<String, String>,
        /// Files of variables, read at each spawn.
        environment_files: Vec<PathBuf>,
        /// Workers want their accept calls to block.
        blocking: bool,
        /// How a worker gets its sockets.
        handoff: Handoff,
        /// Who gets a new connection.
        balance: Balance,
        /// What the units are for.
        description: Line,
        /// What starts when the machine does.
        enabled: Enabled,
        /// As whom the service runs.
        user: Account,
        /// And in which group.
        group: Account,
    } [
        /// `[ready]`
        ready: Ready,
        /// `[stop]`
        stop: Stop,
        /// `[restart]`
        restart: Restart,
        /// `[watchdog]`
        watchdog: Watchdog,
        /// `[reload]`
        reload: Reload,
        /// `[log]`
        log: Log,
        /// `[control]`
        control: Control,
        /// `[sandbox]`
        sandbox: Sandbox,
        /// `[unit]`
        unit: Passed,
        /// `[service]`
        service: Passed,
        /// `[socket]`
        socket: Passed,
    ]

    /// `[ready]`
    Ready {
        /// What counts as evidence.
        when: ReadyWhen,
        /// Failure when it passes without.
        timeout: Time,
        /// How long a worker must live after it was ready.
        settle: Time,
        /// How many ready slots make the service started.
        min: u16,
        /// The number of the readiness file descriptor.
        fd: i32,
    } []

    /// `[stop]`
    Stop {
        /// The signal that asks a worker to end.
        signal: StopSignal,
        /// How long a withdrawn worker may finish what it has.
        drain: Time,
        /// How long it may take to end after that.
        timeout: Time,
        /// What it is told over its channel when it is withdrawn.
        message: String,
        /// When it gets the signal.
        when: StopWhen,
        /// Idle connections are closed for it once half of the drain time is over.
        close_idle: bool,
    } []

    /// `[restart]`
    Restart {
        /// The first delay of the back-off.
        min_delay: Time,
        /// The longest delay.
        max_delay: Time,
        /// When a slot is given up.
        start_limit: StartLimit,
    } []

    /// `[watchdog]`
    Watchdog {
        /// How often a worker's heartbeat is expected.
        interval: Time,
    } []

    /// `[reload]`
    Reload {
        /// How many slots are relieved at a time.
        surge: u16,
        /// What happens when a newcomer fails.
        on_failure: OnFailure,
        /// How many of a hundred connections the first newcomer gets until the rollout goes on.
        canary: u8,
        /// How long that lasts; without it, until the operator says so.
        canary_time: Time,
    } []

    /// `[log]`
    Log {
        /// Where the workers' output goes.
        mode: LogMode,
    } []

    /// `[control]`
    Control {
        /// Who may look, beside root and the primary's own user.
        readers: Vec<Reader>,
    } []

    /// `[sandbox]`: what the service may do beyond serving.
    Sandbox {
        /// Everything that its user may.
        off: bool,
        /// What it sees below /home.
        home: Home,
        /// Where it may write.
        write: Vec<UnitPath>,
        /// A folder of its own below /var/lib.
        state: bool,
        /// A folder of its own below /var/cache.
        cache: bool,
        /// A folder of its own below /var/log.
        logs: bool,
        /// The /tmp of all.
        tmp: bool,
        /// Devices.
        devices: bool,
        /// The processes of others.
        processes: bool,
        /// The kernel's variables, modules and log.
        kernel: bool,
        /// The clock.
        clock: bool,
        /// The host's name.
        hostname: bool,
        /// Namespaces of its own, as browsers want them.
        namespaces: bool,
        /// Real-time scheduling.
        realtime: bool,
        /// Files with set-user-id bits.
        suid: bool,
        /// Programs that gain privileges, as sudo.
        privileges: bool,
        /// Another personality of the kernel.
        personality: bool,
        /// More address families.
        address_families: Vec<Family>,
        /// More system calls.
        system_calls: Vec<SystemCall>,
        /// Rights that root has.
        capabilities: Vec<Capability>,
        /// The mode bits that its files do not get.
        umask: Umask,
    } []
}
