//! What a package.json says, as far as starting needs it.

use super::{Refused, SHOWN, cut};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// So many scripts are named when the one that is asked for is not there.
const NAMED: usize = 12;

/// A package.json that was read.
#[derive(Debug)]
pub(super) struct Package {
    file: PathBuf,
    text: String,
    all: Map<String, Value>,
}

impl Package {
    pub(super) fn parse(file: PathBuf, text: String) -> Result<Self, Refused> {
        let name = file.display();
        let value = serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|e| {
            let text = e.to_string();
            let reason = text.split(" at line ").next().unwrap_or_default().to_owned();
            Refused::new(format!("{name}:{}: not valid JSON: {reason}", e.line()))
        })?;
        match value {
            Value::Object(all) => Ok(Self { file, text, all }),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(Refused::new(format!("{name}: not a JSON object"))),
        }
    }

    /// Returns the text of a script; `None` where there is none of that name.
    pub(super) fn script(&self, name: &str) -> Result<Option<&str>, Refused> {
        let Some(scripts) = self.all.get("scripts") else {
            return Ok(None);
        };
        let Some(scripts) = scripts.as_object() else {
            return Err(Refused::new(format!(
                "{}: 'scripts' is not an object",
                self.file.display()
            )));
        };
        match scripts.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.contains('\0') => Err(Refused::new(format!(
                "{}: script '{name}' has a zero byte, which cannot be passed to a program",
                self.place(name)
            ))),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => {
                Err(Refused::new(format!("{}: script '{name}' is not a string", self.place(name))))
            }
        }
    }

    /// Where a script stands, as `file:line`.
    pub(super) fn place(&self, script: &str) -> String {
        let key = Value::from(script).to_string();
        let scripts = self.text.find("\"scripts\"").unwrap_or_default();
        let at = self.text[scripts..]
            .match_indices(&key)
            .map(|(at, _)| scripts + at)
            .find(|at| self.text[at + key.len()..].trim_start().starts_with(':'));
        let file = self.file.display();
        match at {
            Some(at) => format!("{file}:{}", self.text[..at].matches('\n').count() + 1),
            None => file.to_string(),
        }
    }

    /// Why a script cannot be started that is not there.
    pub(super) fn lacks(&self, script: &str) -> Refused {
        let scripts = self.all.get("scripts").and_then(Value::as_object);
        let mut names: Vec<&str> =
            scripts.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        let likeness = |name: &&&str| strsim::jaro_winkler(script, name);
        let best = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let hint =
            best.filter(|best| likeness(best) > 0.8).map(|best| format!("did you mean '{best}'?"));
        let more = if names.len() > NAMED { ", ..." } else { "" };
        names.truncate(NAMED);
        let file = self.file.display();
        let reason = if names.is_empty() {
            format!("{file} has no scripts")
        } else {
            format!(
                "{file} has no script '{}', only {}{more}",
                cut(script, SHOWN),
                names.join(", ")
            )
        };
        Refused { reason, hint }
    }

    /// The variables that npm, yarn and pnpm set for a script and that programs read.
    pub(super) fn variables(&self, script: &str, text: &str) -> Vec<(String, String)> {
        let mut all = vec![
            ("npm_lifecycle_event".to_owned(), script.to_owned()),
            ("npm_lifecycle_script".to_owned(), text.to_owned()),
            ("npm_package_json".to_owned(), self.file.display().to_string()),
        ];
        let field = |name: &str| self.all.get(name).and_then(plain);
        all.extend(field("name").map(|name| ("npm_package_name".to_owned(), name)));
        all.extend(field("version").map(|version| ("npm_package_version".to_owned(), version)));
        let config = self.all.get("config").and_then(Value::as_object);
        for (key, value) in config.into_iter().flatten() {
            let key = key.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            all.extend(plain(value).map(|value| (format!("npm_package_config_{key}"), value)));
        }
        all.retain(|(_, value)| !value.contains('\0'));
        all
    }

    /// The folder of the package.
    pub(super) fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("/"))
    }
}

/// A value as a variable holds it; lists and objects are not passed.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(text: &str) -> Result<Package, Refused> {
        Package::parse(PathBuf::from("/srv/package.json"), text.to_owned())
    }

    #[test]
    fn what_is_broken_is_said_with_its_line() {
        let says = |text: &str| package(text).unwrap_err().reason;
        assert_eq!(
            says("{\n \"scripts\": {\n}"),
            "/srv/package.json:3: not valid JSON: EOF while parsing an object"
        );
        assert_eq!(says("[1]"), "/srv/package.json: not a JSON object");
        let script = |text: &str| package(text).unwrap().script("start").unwrap_err().reason;
        assert_eq!(script("{\"scripts\": 1}"), "/srv/package.json: 'scripts' is not an object");
        assert_eq!(
            script("{\n\"start\": \"\",\n\"scripts\": {\n\"start\": [] } }"),
            "/srv/package.json:4: script 'start' is not a string"
        );
        assert!(
            script("{\"scripts\": {\"start\": \"a\\u0000b\"}}")
                .ends_with("a zero byte, which cannot be passed to a program")
        );
    }

    #[test]
    fn a_missing_script_names_those_that_are_there() {
        let package = package("{\"scripts\": {\"serve\": \"x\", \"build\": \"y\"}}").unwrap();
        let refused = package.lacks("server");
        assert_eq!(refused.reason, "/srv/package.json has no script 'server', only build, serve");
        assert_eq!(refused.hint.as_deref(), Some("did you mean 'serve'?"));
        assert_eq!(package.lacks("x").hint, None);
    }

    #[test]
    fn what_programs_read_is_set() {
        let text = r#"{"name": "shop", "version": "1.2.3", "config": {"my-port": 80, "x": {}}}"#;
        let set = package(text).unwrap().variables("start", "node app.js");
        let set: Vec<String> = set.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            set,
            [
                "npm_lifecycle_event=start",
                "npm_lifecycle_script=node app.js",
                "npm_package_json=/srv/package.json",
                "npm_package_name=shop",
                "npm_package_version=1.2.3",
                "npm_package_config_my_port=80",
            ]
        );
    }
}
