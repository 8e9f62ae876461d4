//! The attributes of an app in PM2's process files, as PM2 7 knows them (its `lib/API/schema.json`): what they are called,
//! and what may stand there.

use super::words::split;
use crate::cli::trouble::Unusable;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a value can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Flag,
    List,
    Object,
}
use Kind::{Flag, List, Number, Object, Text};

/// An attribute: its name, its other names, and what it may be. PM2 also takes every name in camel case.
type Attribute = (&'static str, &'static [&'static str], &'static [Kind]);

const ATTRIBUTES: [Attribute; 64] = [
    ("script", &["exec", "cmd", "command"], &[Text]),
    ("name", &[], &[Text]),
    ("name_prefix", &[], &[Text]),
    ("filter_env", &[], &[Flag, List, Text]),
    ("namespace", &[], &[Text]),
    ("install_url", &[], &[Text]),
    ("cwd", &[], &[Text]),
    ("args", &[], &[List, Text]),
    ("exec_interpreter", &["interpreter"], &[Text]),
    ("node_args", &["interpreter_args", "interpreterArgs"], &[List, Text]),
    ("out_file", &["out_log", "output", "out"], &[Text]),
    ("error_file", &["err_log", "err_file", "err", "error"], &[Text]),
    ("log_file", &["log"], &[Flag, Text]),
    ("disable_logs", &[], &[Flag]),
    ("log_type", &[], &[Text]),
    ("log_date_format", &[], &[Text]),
    ("time", &[], &[Flag]),
    ("env", &[], &[Object]),
    ("max_memory_restart", &[], &[Text, Number]),
    ("pid_file", &["pid"], &[Text]),
    ("restart_delay", &[], &[Number]),
    ("exp_backoff_restart_delay", &[], &[Number]),
    ("source_map_support", &[], &[Flag]),
    ("disable_source_map_support", &[], &[Flag]),
    ("wait_ready", &[], &[Flag]),
    ("instances", &[], &[Number, Text]),
    ("kill_timeout", &[], &[Number]),
    ("shutdown_with_message", &[], &[Flag]),
    ("listen_timeout", &[], &[Number]),
    ("cron_restart", &["cron"], &[Text, Number]),
    ("merge_logs", &["combine_logs"], &[Flag]),
    ("vizion", &[], &[Flag]),
    ("autostart", &[], &[Flag]),
    ("autorestart", &[], &[Flag]),
    ("stop_exit_codes", &[], &[List, Number]),
    ("watch_delay", &[], &[Number]),
    ("watch", &[], &[Flag, List, Text]),
    ("ignore_watch", &[], &[List, Text]),
    ("watch_options", &[], &[Object]),
    ("min_uptime", &[], &[Number, Text]),
    ("max_restarts", &[], &[Number]),
    ("execute_command", &[], &[Flag]),
    ("exec_mode", &[], &[Text]),
    ("force", &[], &[Flag]),
    ("append_env_to_name", &[], &[Flag]),
    ("post_update", &[], &[List]),
    ("trace", &[], &[Flag]),
    ("disable_trace", &[], &[Flag]),
    ("v8", &[], &[Flag]),
    ("event_loop_inspector", &[], &[Flag]),
    ("deep_monitoring", &[], &[Flag]),
    ("increment_var", &[], &[Text]),
    ("instance_var", &[], &[Text]),
    ("pmx", &[], &[Flag, Text]),
    ("automation", &[], &[Flag]),
    ("treekill", &[], &[Flag]),
    ("port", &[], &[Number]),
    ("username", &[], &[Text]),
    ("uid", &["user"], &[Number, Text]),
    ("gid", &[], &[Number, Text]),
    ("windowsHide", &[], &[Flag]),
    ("kill_retry_time", &[], &[Number]),
    ("write", &[], &[Flag]),
    ("io", &[], &[Object]),
];

/// The mark that the evaluation by Node puts where a value is nothing that can be written down.
const NOT_DATA: &str = "not data: ";

/// An app as its process file has it, by PM2's own names; what is taken from it is not there any more.
#[derive(Debug)]
pub(super) struct App {
    /// How messages call it: `app 'api'`, or `app 2` where it has no name.
    pub(super) label: String,
    values: BTreeMap<&'static str, Value>,
    /// The `env_production` and so on, by what comes after `env_`.
    pub(super) environments: BTreeMap<String, Map<String, Value>>,
    /// Attributes that PM2 does not know or does not look at, and what is to be said of them.
    pub(super) unknown: Vec<(String, String)>,
}

impl App {
    /// Reads the app with this number, counted from 1.
    ///
    /// # Errors
    /// Names the app, the attribute and what is expected, as PM2 refuses it too.
    pub(super) fn read(number: usize, object: Map<String, Value>) -> Result<Self, Unusable> {
        let name = object.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let label = name.map_or_else(|| format!("app {number}"), |name| format!("app '{name}'"));
        let mut app =
            Self { label, values: BTreeMap::new(), environments: BTreeMap::new(), unknown: vec![] };
        let mut rest: Map<String, Value> =
            object.into_iter().filter(|(_, value)| !value.is_null()).collect();
        for (name, aliases, kinds) in ATTRIBUTES {
            if let Some((written, value)) = app.choose(name, aliases, &mut rest) {
                app.check(&written, &value, kinds)?;
                app.values.insert(name, value);
            }
        }
        for (name, value) in rest {
            match (name.strip_prefix("env_"), value) {
                (Some(environment), Value::Object(variables)) => {
                    app.environments.insert(environment.to_owned(), variables);
                }
                // PM2 lets it pass, and makes nothing of it.
                (Some("file"), Value::String(_)) => {
                    let text = "PM2 does not read it; 'environment-files = [\"/path/to/.env\"]' is read at each start";
                    app.unknown.push((name, text.to_owned()));
                }
                (Some(_), Value::String(_)) => {
                    app.unknown.push((name, "PM2 makes nothing of a text here".to_owned()));
                }
                (Some(_), other) => return Err(app.wrong(&name, &[Object], &other)),
                (None, _) => app.unknown.push((name.clone(), unknown(&name))),
            }
        }
        Ok(app)
    }

    /// Takes the value that PM2 would: that of the name itself or, where it is empty, of the first alias.
    fn choose(
        &mut self,
        name: &'static str,
        aliases: &[&str],
        rest: &mut Map<String, Value>,
    ) -> Option<(String, Value)> {
        let camel = camel_case(name);
        let names = [&[name], aliases, &[camel.as_str()]].concat();
        let mut found: Vec<(String, Value)> = vec![];
        for name in names {
            found.extend(rest.remove(name).map(|value| (name.to_owned(), value)));
        }
        let chosen = found.iter().position(|(_, value)| is_truthy(value)).unwrap_or(0);
        let chosen = (chosen < found.len()).then(|| found.remove(chosen))?;
        for (other, value) in found.into_iter().filter(|(_, value)| *value != chosen.1) {
            let text = format!("is the same as '{}', which counts; {value} does not", chosen.0);
            self.unknown.push((other, text));
        }
        Some(chosen)
    }

    fn check(&self, name: &str, value: &Value, kinds: &[Kind]) -> Result<(), Unusable> {
        let fits = |kind: &Kind| match kind {
            Text => value.is_string(),
            Number => number(value).is_some(),
            Flag => value.is_boolean(),
            List => value.is_array(),
            Object => value.is_object() && not_data(value).is_none(),
        };
        if kinds.iter().any(fits) { Ok(()) } else { Err(self.wrong(name, kinds, value)) }
    }

    fn wrong(&self, name: &str, kinds: &[Kind], value: &Value) -> Unusable {
        let expected: Vec<&str> = kinds.iter().map(|kind| words(*kind)).collect();
        self.refuse(name, &format!("expected {}, found {}", expected.join(" or "), found(value)))
    }

    /// Why an attribute cannot be used.
    pub(super) fn refuse(&self, attribute: &str, reason: &str) -> Unusable {
        Unusable::from(format!("{}: '{attribute}': {reason}", self.label))
    }

    /// Takes an attribute as it is.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name)
    }

    /// Looks at one without taking it.
    pub(super) fn peek(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// Whether it is there.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Takes a text that is not empty, for to PM2 an empty one is none.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let value = self.take(name)?;
        value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// Takes a flag.
    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        self.take(name)?.as_bool()
    }

    /// Takes a list of words; a text is split as PM2 splits it.
    pub(super) fn words(&mut self, name: &str) -> Result<Vec<String>, Unusable> {
        match self.take(name) {
            Some(Value::String(text)) => Ok(split(&text)),
            Some(Value::Array(values)) => values
                .iter()
                .map(|value| {
                    scalar(value).ok_or_else(|| {
                        let expected = "expected a list of texts, in it is ";
                        self.refuse(name, &format!("{expected}{}", found(value)))
                    })
                })
                .collect(),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => {
                Ok(vec![])
            }
        }
    }

    /// Takes a whole number.
    pub(super) fn whole(&mut self, name: &str) -> Result<Option<i64>, Unusable> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let whole = number(&value).and_then(whole);
        let expected = || format!("expected a whole number, found {}", found(&value));
        whole.map(Some).ok_or_else(|| self.refuse(name, &expected()))
    }

    /// Takes a time in milliseconds, or as `30s`, `5m` or `1h` where PM2 reads such. To PM2 none is as if it were not
    /// given.
    pub(super) fn time(&mut self, name: &str) -> Result<Option<Duration>, Unusable> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let unit = value.as_str().and_then(|text| match text.chars().last()? {
            'h' => Some((text, 3_600_000.0)),
            'm' => Some((text, 60_000.0)),
            's' => Some((text, 1000.0)),
            _ => None,
        });
        let ms = match unit {
            Some((text, unit)) => {
                text[..text.len() - 1].parse::<f64>().ok().map(|count| count * unit)
            }
            None => number(&value),
        };
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        let time = ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok());
        match time.filter(|time| *time <= year) {
            Some(time) => {
                let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                Ok((ms > 0).then(|| Duration::from_millis(ms)))
            }
            None => Err(self.refuse(
                name,
                &format!("expected milliseconds, at most a year of them, found {}", found(&value)),
            )),
        }
    }

    /// What nobody has taken.
    pub(super) fn left(&self) -> Vec<&'static str> {
        self.values.keys().copied().collect()
    }
}

/// A number, also one that is written as text, which PM2 takes too.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    number.filter(|number| number.is_finite())
}

/// A number without a fraction.
fn whole(number: f64) -> Option<i64> {
    if number.fract() == 0.0 { format!("{number:.0}").parse().ok() } else { None }
}

/// What JavaScript holds for no.
fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// A value as JavaScript makes text of it; `None` for what has parts.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => {
            let plain = number.as_f64().and_then(whole).map(|whole| whole.to_string());
            plain.or_else(|| Some(number.to_string()))
        }
        Value::String(text) => Some(text.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What stands where there should be data: a function, a circle.
pub(super) fn not_data(value: &Value) -> Option<&str> {
    value.as_object().and_then(mark)
}

/// What an object stands for that is only a mark.
pub(super) fn mark(object: &Map<String, Value>) -> Option<&str> {
    object.get(NOT_DATA).filter(|_| object.len() == 1)?.as_str()
}

fn words(kind: Kind) -> &'static str {
    match kind {
        Text => "a text",
        Number => "a number",
        Flag => "true or false",
        List => "a list",
        Object => "an object",
    }
}

/// A value in words, short enough for a message.
pub(super) fn found(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.chars().count() <= 40 => format!("\"{text}\""),
        Value::String(_) => "a long text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => not_data(value).unwrap_or("an object").to_owned(),
    }
}

fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |camel, part| {
        let (head, tail) = part.split_at(part.len().min(1));
        camel + &head.to_ascii_uppercase() + tail
    })
}

fn unknown(name: &str) -> String {
    let known = ATTRIBUTES.iter().flat_map(|(name, aliases, _)| [&[*name], *aliases].concat());
    let likeness = |known: &&str| strsim::jaro_winkler(name, known);
    let best = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match best.filter(|best| likeness(best) > 0.85) {
        Some(best) => format!("unknown to PM2 too; did you mean '{best}'?"),
        None => "unknown to PM2 too".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn app(value: Value) -> Result<App, String> {
        let Value::Object(object) = value else { panic!("an app is an object") };
        App::read(2, object).map_err(|unusable| unusable.reason)
    }

    #[test]
    fn aliases_and_camel_case_are_the_attribute() {
        let mut read =
            app(json!({"exec": "a.js", "waitReady": true, "interpreterArgs": "-r x", "err": "e"}))
                .unwrap();
        assert_eq!(read.text("script").as_deref(), Some("a.js"));
        assert_eq!(read.flag("wait_ready"), Some(true));
        assert_eq!(read.words("node_args").unwrap(), ["-r", "x"]);
        assert_eq!(read.left(), ["error_file"]);
        assert_eq!(read.label, "app 2");
        let read = app(json!({"script": "", "exec": "b.js", "cmd": "c.js"})).unwrap();
        assert_eq!(
            read.unknown,
            [
                (
                    "script".to_owned(),
                    "is the same as 'exec', which counts; \"\" does not".to_owned()
                ),
                (
                    "cmd".to_owned(),
                    "is the same as 'exec', which counts; \"c.js\" does not".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn numbers_may_be_text_and_times_have_units() {
        let mut read = app(json!({"kill_timeout": "5000", "min_uptime": "2m", "max_restarts": 3.0,
            "listen_timeout": 0}))
        .unwrap();
        assert_eq!(read.time("kill_timeout").unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(read.time("min_uptime").unwrap(), Some(Duration::from_secs(120)));
        assert_eq!(read.time("listen_timeout").unwrap(), None);
        assert_eq!(read.whole("max_restarts").unwrap(), Some(3));
    }

    #[test]
    fn what_is_of_the_wrong_kind_is_refused_by_name() {
        for (value, expected) in [
            (
                json!({"name": "api", "killTimeout": "soon"}),
                "app 'api': 'killTimeout': expected a number, found \"soon\"",
            ),
            (
                json!({"watch": 1}),
                "app 2: 'watch': expected true or false or a list or a text, found 1",
            ),
            (
                json!({"env": "production"}),
                "app 2: 'env': expected an object, found \"production\"",
            ),
            (json!({"env_a": []}), "app 2: 'env_a': expected an object, found a list"),
            (
                json!({"name": {"not data: ": "a function"}}),
                "app 2: 'name': expected a text, found a function",
            ),
            (
                json!({"env": {"not data: ": "a circle"}}),
                "app 2: 'env': expected an object, found a circle",
            ),
        ] {
            assert_eq!(app(value).unwrap_err(), expected);
        }
        let mut read = app(json!({"args": [1, true, ["x"]]})).unwrap();
        assert_eq!(
            read.words("args").unwrap_err().reason,
            "app 2: 'args': expected a list of texts, in it is a list"
        );
        for (value, expected) in [
            (json!({"kill_timeout": -1}), "found -1"),
            (json!({"kill_timeout": 1e300}), "found 1e+300"),
        ] {
            let reason = app(value).unwrap().time("kill_timeout").unwrap_err().reason;
            assert!(reason.ends_with(expected), "{reason}");
        }
    }

    #[test]
    fn unknown_attributes_are_told_with_what_they_may_have_been() {
        let read = app(json!({"instancs": 1, "colour": "red", "env_x": "a"})).unwrap();
        assert_eq!(
            read.unknown,
            [
                ("colour".to_owned(), "unknown to PM2 too".to_owned()),
                ("env_x".to_owned(), "PM2 makes nothing of a text here".to_owned()),
                ("instancs".to_owned(), "unknown to PM2 too; did you mean 'instances'?".to_owned()),
            ]
        );
    }
}
