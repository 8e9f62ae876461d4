//! The attributes that have no key here: why not, and what to do instead.

use super::attributes::{App, found, scalar};
use crate::cli::draft::Draft;

/// Attributes that are spoken of together, the values with which they say what is so anyway ("" for none), and the text,
/// in which `{app}` is the app's name and `{value}` the first one's value.
struct Topic {
    attributes: &'static [(&'static str, &'static str)],
    text: &'static str,
}

const TOPICS: [Topic; 18] = [
    Topic {
        attributes: &[
            ("out_file", ""),
            ("error_file", ""),
            ("log_file", "false"),
            ("merge_logs", "true"),
            ("log_type", ""),
            ("log_date_format", ""),
            ("time", "false"),
        ],
        text: "output goes to the journal, with time and slot: 'dogwatch logs {app}', 'journalctl -u {app}'; for a file, 'StandardOutput=append:FILE' in the unit and 'log.mode = \"inherit\"'",
    },
    Topic {
        attributes: &[("disable_logs", "false")],
        text: "'StandardOutput=null' in the unit, and 'log.mode = \"inherit\"'",
    },
    Topic {
        attributes: &[("pid_file", "")],
        text: "there is none: 'dogwatch list --json' has the workers' pids, 'systemctl show -P MainPID {app}' the primary's",
    },
    Topic {
        attributes: &[("max_memory_restart", "")],
        text: "not yet: 'MemoryHigh' and 'MemoryMax' in [service] bound all workers together, where {value} was for each",
    },
    Topic {
        attributes: &[("cron_restart", "0")],
        text: "a systemd timer whose service calls 'dogwatch reload {app}' (systemd.timer(5), OnCalendar=)",
    },
    Topic {
        attributes: &[
            ("watch", "false"),
            ("ignore_watch", ""),
            ("watch_delay", ""),
            ("watch_options", ""),
        ],
        text: "nothing is watched: let the deploy call 'dogwatch reload {app}'; for development there is 'node --watch'",
    },
    Topic {
        attributes: &[("autorestart", "true")],
        text: "not yet: a worker that ends is replaced; what is to run once is a unit of its own, with Type=oneshot",
    },
    Topic {
        attributes: &[("stop_exit_codes", "")],
        text: "not yet: a worker that ends is replaced, whatever its exit code",
    },
    Topic {
        attributes: &[("autostart", "true")],
        text: "do not enable the unit: 'systemctl start {app}' when it is wanted",
    },
    Topic {
        attributes: &[("uid", ""), ("gid", "")],
        text: "'user = \"NAME\"' and 'group = \"NAME\"' in this file",
    },
    Topic { attributes: &[("username", "")], text: "PM2 only notes who started the app" },
    Topic {
        attributes: &[("namespace", "")],
        text: "apps are not grouped; 'Slice=' in the unit groups what they may use",
    },
    Topic {
        attributes: &[("name_prefix", "")],
        text: "PM2 looks at it on its command line only; write it into the name",
    },
    Topic {
        attributes: &[("filter_env", "false")],
        text: "there is nothing to filter: workers see the variables of the unit and of [env], not those of a shell",
    },
    Topic {
        attributes: &[
            ("pmx", "false"),
            ("automation", "false"),
            ("trace", "false"),
            ("disable_trace", "true"),
            ("v8", "false"),
            ("event_loop_inspector", "false"),
            ("deep_monitoring", "false"),
            ("io", ""),
        ],
        text: "nothing is put into the program; what traces it is a package of its own, by 'NODE_OPTIONS' in [env] if need be",
    },
    Topic {
        attributes: &[("vizion", "false"), ("install_url", ""), ("post_update", "")],
        text: "fetching a version is the deploy's work, which ends with 'dogwatch reload {app}'",
    },
    Topic {
        attributes: &[("write", "false"), ("force", "false"), ("windowsHide", "")],
        text: "is of PM2's own command line, or of Windows",
    },
    Topic {
        attributes: &[("kill_retry_time", "")],
        text: "nothing is polled: the end of a process is an event",
    },
];

/// Says what becomes of the attributes without a key.
pub(super) fn elsewhere(app: &mut App, draft: &mut Draft) {
    for Topic { attributes, text } in TOPICS {
        let mut told: Vec<(&str, String)> = vec![];
        for (name, anyway) in attributes {
            let Some(value) = app.take(name) else { continue };
            let value = scalar(&value).unwrap_or_else(|| found(&value));
            if value == *anyway {
                draft.anyway(&format!("{name} = {value}"));
            } else {
                told.push((name, value));
            }
        }
        let names: Vec<&str> = told.iter().map(|(name, _)| *name).collect();
        if let Some((_, value)) = told.first() {
            let text = text.replace("{app}", &draft.name).replace("{value}", value);
            draft.remark(&names.join(", "), text);
        }
    }
}
