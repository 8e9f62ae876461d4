//! A unit's properties, as `systemctl show` prints them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A unit.
#[derive(Clone, Debug, Default)]
pub(super) struct Unit {
    properties: BTreeMap<String, Vec<String>>,
}

impl Unit {
    /// Reads what `systemctl show` says of one unit.
    pub(super) fn of_show(text: &str) -> Self {
        let mut unit = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            unit.properties.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        unit
    }

    /// Reads a unit file that systemd does not have yet, where most settings are called as its properties are.
    pub(super) fn of_file(text: &str) -> Self {
        let settings = text.lines().filter(|line| !line.starts_with(['#', '[']));
        let mut unit = Self::default();
        for (key, value) in settings.filter_map(|line| line.split_once('=')) {
            let values = unit.properties.entry(key.to_owned()).or_default();
            // The last one counts, but in lists.
            if !matches!(key, "Environment" | "BindPaths" | "BindReadOnlyPaths") {
                values.clear();
            }
            values.push(value.to_owned());
        }
        unit
    }

    /// Returns a property; nothing if the unit has none of that name.
    pub(super) fn get(&self, key: &str) -> &str {
        self.properties.get(key).and_then(|all| all.first()).map_or("", String::as_str)
    }

    /// Returns every line of a property.
    pub(super) fn all(&self, key: &str) -> &[String] {
        self.properties.get(key).map_or(&[], Vec::as_slice)
    }

    /// Returns the words of a property, as systemd quotes them.
    pub(super) fn words(&self, key: &str) -> Vec<String> {
        self.all(key).iter().flat_map(|line| words(line)).collect()
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.get(key).parse().ok()
    }

    /// Returns a span; `None` for `infinity`, and where there is none of that name.
    pub(super) fn span(&self, key: &str) -> Option<Duration> {
        match self.get(key) {
            "0" => Some(Duration::ZERO),
            text => humantime::parse_duration(text).ok(),
        }
    }

    /// Returns the file that the service's command names. `systemctl show` prints the words of a command with nothing but
    /// spaces between them, so a name with spaces goes on to its ending.
    pub(super) fn config(&self) -> Option<PathBuf> {
        let (_, command) = self.get("ExecStart").split_once("argv[]=")?;
        // What follows is the workers'.
        let command = command.split(" ; ").next()?.split(" -- ").next()?;
        let flags = ["--config ", "--config=", "-c "];
        let rest =
            flags.iter().find_map(|flag| Some(command.split_once(&format!(" {flag}"))?.1))?;
        let rest = rest.split(" -").next()?;
        let ends = rest.match_indices(' ').map(|(at, _)| at).chain([rest.len()]);
        let mut names = ends.map(|end| &rest[..end]);
        let name = names.find(|name| name.ends_with(".toml")).or_else(|| rest.split(' ').next());
        name.filter(|name| !name.is_empty()).map(PathBuf::from)
    }

    /// Whether systemd has read it, or has it still though its file is gone.
    pub(super) fn is_loaded(&self) -> bool {
        self.get("LoadState") == "loaded" || self.is_active()
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.get("ActiveState"), "active" | "reloading" | "refreshing")
    }

    #[cfg(test)]
    pub(super) fn set(&mut self, key: &str, values: &[&str]) {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        self.properties.insert(key.to_owned(), values);
    }
}

/// Splits at spaces, but for what is between double quotes.
fn words(line: &str) -> Vec<String> {
    let (mut all, mut word, mut is_quoted, mut escaped) = (vec![], String::new(), false, false);
    for c in line.chars() {
        match c {
            c if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => all.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    all.push(word);
    all.retain(|word| !word.is_empty());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_as_they_are_printed() {
        let unit = Unit::of_show(
            "Listen=[::]:80 (Stream)\nListen=/run/a b (Stream)\nWatchdogUSec=1min 30s\nTimeoutStopUSec=infinity\n\
             StartLimitIntervalUSec=0\nEnvironment=A=1 \"B=x y\" \"C=\\\"\"\nLoadState=loaded\nNoise\n",
        );
        assert_eq!(unit.all("Listen"), ["[::]:80 (Stream)", "/run/a b (Stream)"]);
        assert_eq!(unit.span("WatchdogUSec"), Some(Duration::from_secs(90)));
        assert_eq!(unit.span("TimeoutStopUSec"), None);
        assert_eq!(unit.span("StartLimitIntervalUSec"), Some(Duration::ZERO));
        assert_eq!(unit.words("Environment"), ["A=1", "B=x y", "C=\""]);
        assert!(unit.is_loaded() && !unit.is_active());
        assert_eq!(unit.get("Missing"), "");
    }

    #[test]
    fn the_file_of_a_command_may_have_spaces_in_its_name() {
        let named = |arguments: &str| {
            let unit = Unit::of_show(&format!(
                "ExecStart={{ path=/usr/bin/dogwatch ; argv[]=/usr/bin/dogwatch run{arguments} ; ignore_errors=no ; pid=0 }}\n"
            ));
            unit.config().map(|path| path.display().to_string())
        };
        for (arguments, file) in [
            (" --config /etc/dogwatch/a.toml", Some("/etc/dogwatch/a.toml")),
            (" --config /srv/a/with space.toml --name x", Some("/srv/a/with space.toml")),
            (" -c /srv/a.conf --name x", Some("/srv/a.conf")),
            (" --config=/srv/a.toml", Some("/srv/a.toml")),
            (" -c /srv/a.conf -- server --config b.toml", Some("/srv/a.conf")),
            (" --name x", None),
            ("", None),
        ] {
            assert_eq!(named(arguments).as_deref(), file, "{arguments}");
        }
    }

    #[test]
    fn a_file_says_the_same_and_the_last_line_counts() {
        let unit = Unit::of_file(
            "# why\n[Service]\nDynamicUser=yes\nDynamicUser=no\nEnvironment=A=1\nEnvironment=B=2\n",
        );
        assert_eq!(unit.get("DynamicUser"), "no");
        assert_eq!(unit.words("Environment"), ["A=1", "B=2"]);
    }
}
