//! What the view shows, without a terminal, a clock or a primary: news in, keys in ([`super::keys`]), actions out.

use super::lines::LogLine;
use super::model::{Model, Sample};
use super::wish::Wish;
use std::collections::BTreeMap;

/// What the feeds tell.
#[derive(Debug)]
pub(super) enum News {
    /// Which apps there are, with one word each.
    Apps(Vec<(String, String)>),
    /// How an app is.
    Sample(String, Box<Sample>),
    /// An app's primary cannot be asked, and why.
    Lost(String, String),
    /// A line of an app's output.
    Line(String, LogLine),
    /// What became of a wish, and lines that say more.
    Answer { app: String, message: Message, lines: Vec<String> },
    /// The system wants us to end.
    Quit,
}

/// What the last wish came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) text: String,
    pub(super) is_bad: bool,
}

/// What a key means to the one who holds the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    /// Step into the background, as Ctrl-Z does.
    Suspend,
    /// Draw everything again.
    Redraw,
    /// Watch this app.
    Show(String),
    /// Ask its primary.
    Ask(Wish),
}

/// What keys are for at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Watch,
    /// y or n.
    Confirm(Wish),
    /// The filter is typed.
    Filter,
    Help,
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct State {
    models: BTreeMap<String, Model>,
    /// The apps there are, with one word each.
    pub(super) apps: Vec<(String, String)>,
    /// The app that is looked at.
    pub(super) shown: Option<String>,
    pub(super) mode: Mode,
    pub(super) message: Option<Message>,
}

impl State {
    /// Looks at one app, or at the first that there will be.
    pub(super) fn new(shown: Option<String>) -> Self {
        let models = shown.iter().map(|name| (name.clone(), Model::default())).collect();
        Self { models, apps: vec![], shown, mode: Mode::Watch, message: None }
    }

    /// The app that is looked at.
    pub(super) fn model(&self) -> Option<(&str, &Model)> {
        let name = self.shown.as_deref()?;
        Some((name, self.models.get(name)?))
    }

    pub(super) fn model_mut(&mut self) -> Option<&mut Model> {
        self.models.get_mut(self.shown.as_deref()?)
    }

    /// Takes what a feed tells.
    pub(super) fn hear(&mut self, news: News) -> Option<Action> {
        match news {
            News::Apps(apps) => return self.take_apps(apps),
            News::Sample(app, sample) => self.of(app).take(*sample),
            News::Lost(app, why) => self.of(app).lose(why),
            News::Line(app, line) => self.of(app).hear(line),
            News::Answer { app, message, lines } => {
                self.message = Some(message);
                for text in lines {
                    self.of(app.clone()).hear(LogLine { time_usec: 0, slot: None, text });
                }
            }
            News::Quit => return Some(Action::Quit),
        }
        None
    }

    fn of(&mut self, app: String) -> &mut Model {
        self.models.entry(app).or_default()
    }

    /// The one that is looked at stays, even when it is gone.
    fn take_apps(&mut self, apps: Vec<(String, String)>) -> Option<Action> {
        self.models.retain(|name, _| {
            self.shown.as_ref() == Some(name) || apps.iter().any(|(app, _)| app == name)
        });
        self.apps = apps;
        match &self.shown {
            Some(shown) => {
                if !self.apps.iter().any(|(app, _)| app == shown) {
                    self.apps.push((shown.clone(), "gone".to_owned()));
                    self.apps.sort();
                }
                None
            }
            None => self.apps.first().map(|(app, _)| app.clone()).and_then(|app| self.show(app)),
        }
    }

    /// Looks at this app.
    pub(super) fn show(&mut self, app: String) -> Option<Action> {
        self.models.entry(app.clone()).or_default();
        self.shown = Some(app.clone());
        Some(Action::Show(app))
    }
}
