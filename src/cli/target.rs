//! `APP` and `APP/SLOT` as arguments, completed from the apps that run.

use super::apps;
use clap_complete::engine::CompletionCandidate;
use std::fmt;
use std::str::FromStr;

/// An app, or one slot of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) app: String,
    pub(super) slot: Option<u16>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (app, slot) = match text.split_once('/') {
            None => (text, None),
            Some((app, slot)) => match slot.parse() {
                Ok(slot) => (app, Some(slot)),
                Err(_) => return Err(format!("'{slot}' is no slot, expected a number from 0 up")),
            },
        };
        crate::primary::refuse_name(app).map_or(Ok(()), Err)?;
        Ok(Self { app: app.to_owned(), slot })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.slot {
            None => f.write_str(&self.app),
            Some(slot) => write!(f, "{}/{slot}", self.app),
        }
    }
}

/// An app without a slot.
pub(super) fn app_name(text: &str) -> Result<String, String> {
    let (app, slot) = text.split_once('/').map_or((text, None), |(app, slot)| (app, Some(slot)));
    // A path is no app, whatever would be its slot.
    crate::primary::refuse_name(if app.starts_with('.') || app.is_empty() { text } else { app })
        .map_or(Ok(()), Err)?;
    match slot {
        None => Ok(app.to_owned()),
        Some(_) => Err("expected an app without a slot".to_owned()),
    }
}

/// A slot of an app.
pub(super) fn one_slot(text: &str) -> Result<Target, String> {
    let target: Target = text.parse()?;
    if target.slot.is_none() {
        return Err(format!(
            "expected a slot, as in '{}/0'; systemctl starts and stops the whole app",
            target.app
        ));
    }
    Ok(target)
}

/// The names of the apps that run, for completion.
pub(super) fn candidates() -> Vec<CompletionCandidate> {
    apps::names().into_iter().map(CompletionCandidate::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_and_slots_are_read_as_written() {
        for text in ["myapp", "myapp/0", "a.b_c-d@e/65535"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for (text, why) in [
            ("myapp/", "'' is no slot, expected a number from 0 up"),
            ("myapp/65536", "'65536' is no slot, expected a number from 0 up"),
            ("myapp/-1", "'-1' is no slot, expected a number from 0 up"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap_err(), why);
        }
        assert!("../etc".parse::<Target>().is_err());
        for text in ["../x", "/etc/x", "./x"] {
            let said = app_name(text).unwrap_err();
            assert!(said.starts_with(&format!("'{text}' cannot be the name of an app")), "{said}");
        }
        assert!(one_slot("myapp").is_err() && app_name("myapp/1").is_err());
    }
}
