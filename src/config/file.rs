//! The file `/etc/dogwatch/APP.toml`: text to [`Typed`], or one error with line, key and remedy.

use super::Error;
use super::typed::Typed;
use std::ops::Range;
use toml::de::DeTable;

/// What people call our keys elsewhere (PM2, systemd, gunicorn, Puma), and what they are called here.
const ELSEWHERE: [(&str, &str); 15] = [
    ("instances", "workers"),
    ("processes", "workers"),
    ("count", "workers"),
    ("script", "command"),
    ("exec", "command"),
    ("exec-start", "command"),
    ("cwd", "working-directory"),
    ("bind", "listen"),
    ("port", "listen"),
    ("env-file", "environment-files"),
    ("environment", "env"),
    ("kill-timeout", "stop.timeout"),
    ("listen-timeout", "ready.timeout"),
    ("wait-ready", "ready.when"),
    ("kill-signal", "stop.signal"),
];

/// Returns what the text says. `name` is the file's, for the error.
///
/// # Errors
/// Names the line, the key and the remedy.
pub fn parse(name: &str, text: &str) -> Result<Typed, Error> {
    let at = |span: Option<Range<usize>>| {
        let line = span.map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        line.map_or_else(|| name.to_owned(), |line| format!("{name}:{line}"))
    };
    let document = toml::Deserializer::parse(text).map_err(|e| Error {
        message: format!("{}: not valid TOML: {}", at(e.span()), one_line(e.message())),
        hint: None,
    })?;
    serde_path_to_error::deserialize(document).map_err(|error| {
        let key = error.path().to_string();
        let inner = error.into_inner();
        describe(&at(inner.span()), &key, inner.message())
    })
}

/// Returns where a key stands in a file, as `name:line`; the file's name where it does not stand.
#[must_use]
pub fn place(name: &str, text: &str, key: &str) -> String {
    let Ok(document) = DeTable::parse(text) else { return name.to_owned() };
    let (table, key) = key.split_once('.').map_or((None, key), |(table, key)| (Some(table), key));
    let within = match table {
        None => Some(document.get_ref()),
        Some(table) => document.get_ref().get(table).and_then(|value| value.get_ref().as_table()),
    };
    let found = within.and_then(|table| table.iter().find(|(name, _)| name.get_ref() == key));
    match found {
        Some((key, _)) => format!("{name}:{}", text[..key.span().start].matches('\n').count() + 1),
        None => name.to_owned(),
    }
}

/// Turns serde's words into ours.
fn describe(at: &str, key: &str, message: &str) -> Error {
    let message = one_line(&message.replace('`', "'"));
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let mut names = rest.split('\'').skip(1).step_by(2);
        let unknown = names.next().unwrap_or_default();
        let hint = suggestion(unknown, names);
        return Error { message: format!("{at}: unknown key {rest}"), hint };
    }
    // A missing key of a table is reported at the table.
    let list = if key == "listen" { "[\"8080\"]" } else { "[\"a\", \"b\"]" };
    let message = message
        .replace("missing field", "missing key")
        .replace("expected a sequence", &format!("expected a list like {list}"));
    let about = if key == "." { String::new() } else { format!("'{key}': ") };
    Error { message: format!("{at}: {about}{message}"), hint: None }
}

fn suggestion<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let spelt = unknown.replace('_', "-").to_lowercase();
    if let Some((_, here)) = ELSEWHERE.iter().find(|(elsewhere, _)| *elsewhere == spelt) {
        return Some(format!("it is called '{here}' here"));
    }
    let likeness = |name: &&str| strsim::jaro_winkler(&spelt, name);
    let best = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) > 0.8).then(|| format!("did you mean '{best}'?"))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let error = parse("myapp.toml", text).unwrap_err();
        error.hint.map_or(error.message.clone(), |hint| format!("{}\nhint: {hint}", error.message))
    }

    #[test]
    fn the_designs_example_is_read() {
        let text = r#"
            command = ["node", "server.js"]
            workers = 4
            listen  = ["8080"]
            working-directory = "/srv/myapp/current"
            env = { NODE_ENV = "production" }
            environment-files = ["/etc/dogwatch/myapp.env"]
            handoff = "fd"
            balance = "shared"
            blocking = false
            [ready]
            when = "auto"
            timeout = "30s"
            settle = "1s"
            min = 2
            fd = 5
            [stop]
            signal = "SIGTERM"
            drain = "30s"
            timeout = "10s"
            [restart]
            min-delay = "100ms"
            max-delay = "30s"
            start-limit = { count = 5, within = "30s" }
            [watchdog]
            interval = "10s"
            [reload]
            surge = 1
            on-failure = "rollback"
            [log]
            mode = "stream"
        "#;
        let typed = parse("myapp.toml", text).unwrap();
        assert_eq!(typed.command.as_ref().unwrap()[1], "server.js");
        assert_eq!(typed.restart.start_limit.unwrap().count, 5);
    }

    #[test]
    fn unknown_keys_are_refused_with_a_suggestion() {
        assert_eq!(
            error("command = [\"x\"]\n\ninstances = 4"),
            "myapp.toml:3: unknown key 'instances', expected one of 'command', 'workers', 'listen', \
             'working-directory', 'env', 'environment-files', 'blocking', 'handoff', 'balance', 'description', 'enabled', \
             'user', 'group', 'ready', 'stop', 'restart', 'watchdog', 'reload', 'log', 'control', 'sandbox', 'unit', \
             'service', 'socket'\nhint: it is called 'workers' here"
        );
        assert_eq!(
            error("[reload]\nsurg = 2"),
            "myapp.toml:2: unknown key 'surg', expected one of 'surge', 'on-failure', 'canary', 'canary-time'\nhint: did you mean 'surge'?"
        );
    }

    #[test]
    fn wrong_types_and_values_name_line_and_key() {
        assert_eq!(
            error("workers = \"four\""),
            "myapp.toml:1: 'workers': 'four' is no number of workers, expected a number from 1 to 10000, 'cpus' or 'cpus-1'"
        );
        assert_eq!(
            error("\nworkers = 0"),
            "myapp.toml:2: 'workers': invalid value: integer '0', expected a number from 1 to 10000, 'cpus' or 'cpus-1'"
        );
        assert_eq!(
            error("[ready]\ntimeout = 30"),
            "myapp.toml:2: 'ready.timeout': invalid type: integer '30', expected a string like '30s'"
        );
        assert_eq!(
            error("[ready]\n\ntimeout = \"30\""),
            "myapp.toml:3: 'ready.timeout': '30' is not a duration, expected one like '30s', '500ms' or '2min'"
        );
        assert_eq!(
            error("command = \"node server.js\""),
            "myapp.toml:1: 'command': invalid type: string \"node server.js\", expected a list like [\"a\", \"b\"]"
        );
        assert_eq!(
            error("listen = 8080"),
            "myapp.toml:1: 'listen': invalid type: integer '8080', expected a list like [\"8080\"]"
        );
        assert_eq!(
            error("[service]\nCPUWeight = 1.5"),
            "myapp.toml:2: 'service.CPUWeight': expected a string, a whole number, true, false, or a list of them"
        );
        assert_eq!(
            error("[restart]\nstart-limit = { count = 3 }"),
            "myapp.toml:2: 'restart.start-limit': missing key 'within'"
        );
    }

    #[test]
    fn what_is_no_toml_says_where() {
        assert!(
            error("command = [\"x\"]\nworkers 4").starts_with("myapp.toml:2: not valid TOML: ")
        );
    }
}
