//! What a process file holds beside its apps, and where the apps are in it.

use super::attributes::{App, found, mark};
use crate::cli::trouble::Unusable;
use serde_json::{Map, Value};

/// A process file, taken apart.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) apps: Vec<App>,
    deploy: Map<String, Value>,
    /// What is to be said of the rest.
    pub(super) remarks: Vec<String>,
}

impl Document {
    /// Takes a file apart as PM2 does: `apps`, or `pm2` as in a package.json; else it is a list of apps, or one app.
    ///
    /// # Errors
    /// When there are no apps in it, or what stands there is none.
    pub(super) fn new(value: Value) -> Result<Self, Unusable> {
        let mut document = Self { apps: vec![], deploy: Map::new(), remarks: vec![] };
        let apps = if value.is_array() {
            value
        } else {
            let object = object(value)
                .map_err(|found| format!("expected an object with 'apps', found {found}"))?;
            document.whole(object)?
        };
        document.read(apps)?;
        Ok(document)
    }

    /// Takes an object apart and returns its apps.
    fn whole(&mut self, mut object: Map<String, Value>) -> Result<Value, Unusable> {
        self.around(&mut object);
        let apps = object.remove("apps").filter(|apps| !apps.is_null());
        match (apps, object.remove("pm2")) {
            (Some(apps), _) => {
                let names = object.keys().map(|name| format!("{name}: unknown to PM2 too"));
                self.remarks.extend(names);
                Ok(apps)
            }
            (None, Some(apps)) => Ok(apps),
            (None, None) if is_app(&object) => Ok(Value::Object(object)),
            (None, None) => Err(Unusable::from("there is no 'apps' in it")
                .hint("PM2 wants 'apps: [{ script: ... }]', a list of apps, or one app")),
        }
    }

    /// Takes out what stands beside the apps.
    fn around(&mut self, object: &mut Map<String, Value>) {
        if let Some(Value::Object(deploy)) = object.remove("deploy") {
            self.deploy = deploy;
            let text = "deploy: fetching a version on other machines is a deploy tool's work, which ends with 'dogwatch reload APP'; only its 'env' is looked at, with --env";
            self.remarks.push(text.to_owned());
        }
        if object.remove("static").is_some_and(|value| !value.is_null()) {
            let text = "static: serving files is a web server's work, nothing is imported of it";
            self.remarks.push(text.to_owned());
        }
    }

    fn read(&mut self, apps: Value) -> Result<(), Unusable> {
        let apps = if let Value::Array(apps) = apps {
            apps
        } else {
            let app = object(apps)
                .map_err(|found| format!("'apps': expected a list of apps, found {found}"))?;
            vec![Value::Object(app)]
        };
        for (number, app) in (1..).zip(apps) {
            let app = object(app)
                .map_err(|found| format!("app {number}: expected an object, found {found}"))?;
            self.apps.push(App::read(number, app)?);
        }
        if self.apps.is_empty() {
            return Err(Unusable::from("there are no apps in it"));
        }
        Ok(())
    }

    /// Returns the variables of `deploy.NAME.env`.
    pub(super) fn deployed(&self, environment: &str) -> Option<&Map<String, Value>> {
        self.deploy.get(environment)?.get("env")?.as_object()
    }

    /// Looks whether an environment is anywhere in the file.
    ///
    /// # Errors
    /// When it is not: it was mistyped.
    pub(super) fn has(&self, environment: &str) -> Result<(), Unusable> {
        let mut known: Vec<&str> =
            self.apps.iter().flat_map(|app| app.environments.keys()).map(String::as_str).collect();
        known.extend(
            self.deploy.keys().map(String::as_str).filter(|name| self.deployed(name).is_some()),
        );
        if known.contains(&environment) {
            return Ok(());
        }
        known.sort_unstable();
        known.dedup();
        let reason = format!("no app has an 'env_{environment}'");
        Err(match known.as_slice() {
            [] => Unusable::from(reason),
            names => Unusable::from(reason).hint(format!("there is {}", names.join(", "))),
        })
    }
}

/// An object, or what was found where one should be.
fn object(value: Value) -> Result<Map<String, Value>, String> {
    if let Value::Object(object) = value {
        match mark(&object) {
            Some(what) => Err(what.to_owned()),
            None => Ok(object),
        }
    } else {
        Err(found(&value))
    }
}

/// Whether an object that has no 'apps' is an app itself.
fn is_app(object: &Map<String, Value>) -> bool {
    ["script", "exec", "cmd", "command"].iter().any(|name| object.contains_key(*name))
}
