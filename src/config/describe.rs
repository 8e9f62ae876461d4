//! Settings as people wrote them: what is in force, and what another set would change.

use super::Settings;
use super::values::Time;
use crate::core::Policy;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

/// A setting that differs: its key, what it is, what it would be.
pub type Difference = (String, Option<String>, Option<String>);

impl Settings {
    /// Returns every setting by its dotted key, in the order of the documentation. Variables are named; their values
    /// may be secrets and are not told.
    #[must_use]
    pub fn describe(&self) -> Vec<(String, String)> {
        let mut all = vec![
            ("command".to_owned(), list(&self.command)),
            ("workers".to_owned(), self.policy.slots.to_string()),
            ("listen".to_owned(), list(&self.listen)),
        ];
        let directory = self.working_directory.as_ref().map(|path| path.display().to_string());
        all.extend(directory.map(|path| ("working-directory".to_owned(), path)));
        all.extend(
            self.env.iter().map(|(name, _)| (format!("env.{name}"), "(not shown)".to_owned())),
        );
        let files = self.environment_files.iter().map(|path| path.display().to_string());
        all.push(("environment-files".to_owned(), list(&files.collect::<Vec<_>>())));
        all.push(("blocking".to_owned(), self.blocking.to_string()));
        all.push(("handoff".to_owned(), self.handoff.to_string()));
        all.push(("balance".to_owned(), self.balance.to_string()));
        all.push(("ready.when".to_owned(), self.ready_when.to_string()));
        all.extend(self.ready_fd.map(|fd| ("ready.fd".to_owned(), fd.to_string())));
        let signal = self.stop_signal.0;
        all.push(("stop.signal".to_owned(), signal.to_string()));
        all.extend(self.stop_message.clone().map(|text| ("stop.message".to_owned(), text)));
        all.push(("stop.when".to_owned(), self.stop_when.to_string()));
        all.push(("stop.close-idle".to_owned(), self.close_idle.to_string()));
        all.extend(describe_policy(&self.policy));
        all.push(("log.mode".to_owned(), self.log.to_string()));
        all.push(("control.readers".to_owned(), list(&self.readers)));
        all
    }

    /// Returns what would be different with `other`. A variable whose value changes says so without telling it.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let (ours, theirs) = (self.describe(), other.describe());
        let in_ours: BTreeMap<_, _> = ours.iter().cloned().collect();
        let in_theirs: BTreeMap<_, _> = theirs.iter().cloned().collect();
        let mut differences: Vec<Difference> = vec![];
        for (key, _) in
            ours.iter().chain(theirs.iter().filter(|(key, _)| !in_ours.contains_key(key)))
        {
            let (from, to) = (in_ours.get(key), in_theirs.get(key));
            let value = |s: &Self| {
                let name = key.strip_prefix("env.")?;
                s.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
            };
            if from != to {
                differences.push((key.clone(), from.cloned(), to.cloned()));
            } else if value(self) != value(other) {
                differences.push((key.clone(), from.cloned(), Some("(another value)".to_owned())));
            }
        }
        differences
    }
}

fn describe_policy(policy: &Policy) -> Vec<(String, String)> {
    let time = |time: Duration| Time(time).to_string();
    let min = policy.ready_min.map(|min| ("ready.min", min.to_string()));
    let heartbeat = policy.heartbeat.map(|interval| ("watchdog.interval", time(interval)));
    let limit = format!("{}/{}", policy.limit_count, time(policy.limit_within));
    let all = [
        Some(("ready.timeout", time(policy.ready_timeout))),
        Some(("ready.settle", time(policy.settle))),
        min,
        Some(("stop.drain", time(policy.drain))),
        Some(("stop.timeout", time(policy.stop_timeout))),
        Some(("restart.min-delay", time(policy.min_delay))),
        Some(("restart.max-delay", time(policy.max_delay))),
        Some(("restart.start-limit", limit)),
        heartbeat,
        Some(("reload.surge", policy.surge.to_string())),
        policy.canary.map(|percent| ("reload.canary", percent.to_string())),
        policy.canary_time.map(|long| ("reload.canary-time", time(long))),
    ];
    all.into_iter().flatten().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn list(values: &[impl Display]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::new(file::parse("f", text).unwrap(), 4).unwrap()
    }

    #[test]
    fn what_would_change_is_named_and_secrets_are_not() {
        let ours = settings("command = [\"x\"]\nenv = { A = \"1\", TOKEN = \"old\" }");
        let theirs = settings(
            "command = [\"x\", \"-v\"]\nworkers = 2\nenv = { TOKEN = \"new\", B = \"2\" }\n[stop]\ndrain = \"90s\"",
        );
        let said: Vec<String> = ours
            .differences(&theirs)
            .into_iter()
            .map(|(key, from, to)| {
                format!("{key}: {} -> {}", from.unwrap_or_default(), to.unwrap_or_default())
            })
            .collect();
        assert_eq!(
            said,
            [
                "command: x -> x -v",
                "workers: 1 -> 2",
                "env.A: (not shown) -> ",
                "env.TOKEN: (not shown) -> (another value)",
                "stop.drain: 30s -> 1m30s",
                "env.B:  -> (not shown)",
            ]
        );
        assert_eq!(ours.differences(&ours), []);
    }

    #[test]
    fn times_read_back_as_they_are_written() {
        for text in ["100ms", "30s", "1m30s", "1h", "0s"] {
            let time: Time = text.parse().unwrap();
            assert_eq!(time.to_string(), text);
            assert_eq!(time.to_string().parse(), Ok(time));
        }
    }
}
