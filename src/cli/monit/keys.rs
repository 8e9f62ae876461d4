//! What keys mean. Whatever would change something is asked for again first.
#![expect(clippy::wildcard_enum_match_arm, reason = "most keys mean nothing")]

use super::model::Model;
use super::state::{Action, Message, Mode, State};
use super::wish::{Change, Wish};
use crate::protocol::control::SlotState;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// A page of lines.
const PAGE: isize = 10;
/// Nobody looks for more.
const LONGEST_FILTER: usize = 60;

impl State {
    /// Looks at the next app, or at the one before.
    fn turn(&mut self, forward: bool) -> Option<Action> {
        let at = self.apps.iter().position(|(app, _)| Some(app) == self.shown.as_ref())?;
        let count = self.apps.len();
        let to = if forward { at + 1 } else { at + count - 1 } % count;
        if to == at {
            return None;
        }
        let (app, _) = self.apps.get(to)?;
        self.show(app.clone())
    }

    /// Does what a key means.
    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Action> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Some(Action::Quit),
                KeyCode::Char('z') => Some(Action::Suspend),
                KeyCode::Char('l') => Some(Action::Redraw),
                _ => None,
            };
        }
        match self.mode.clone() {
            Mode::Watch => self.press_watching(key.code),
            Mode::Confirm(wish) => self.press_confirming(key.code, wish),
            Mode::Filter => {
                self.press_filtering(key.code);
                None
            }
            Mode::Help => {
                self.mode = Mode::Watch;
                None
            }
        }
    }

    fn press_watching(&mut self, code: KeyCode) -> Option<Action> {
        // It was read; but who says yes to a question that was not asked is to see why.
        if !matches!(code, KeyCode::Char('y' | 'n')) {
            self.message = None;
        }
        match code {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('f' | '/') => self.mode = Mode::Filter,
            KeyCode::Tab => return self.turn(true),
            KeyCode::BackTab => return self.turn(false),
            KeyCode::Char('r') => self.wish(|_| Some(Change::Reload)),
            KeyCode::Char('R') => self.wish(|model| Some(Change::Restart(model.slot()?.slot))),
            KeyCode::Char('+' | '=') => self.wish(|_| Some(Change::Scale(1))),
            KeyCode::Char('-') => self.wish(|_| Some(Change::Scale(-1))),
            KeyCode::Char('s') => self.wish(stop_or_start),
            _ => self.press_looking(code),
        }
        None
    }

    /// The keys that only move about in one app.
    fn press_looking(&mut self, code: KeyCode) {
        let Some(model) = self.model_mut() else { return };
        let selected = model.selected;
        match code {
            KeyCode::Up | KeyCode::Char('k') => model.step(false),
            KeyCode::Down | KeyCode::Char('j') => model.step(true),
            KeyCode::Char('a') => model.lines.toggle_one_slot(),
            KeyCode::PageUp => model.lines.go(PAGE, selected),
            KeyCode::PageDown => model.lines.go(-PAGE, selected),
            KeyCode::End | KeyCode::Char('G') => model.lines.follow(),
            KeyCode::Esc => model.lines.set_filter(String::new()),
            _ => {}
        }
    }

    /// Asks whether that is meant. Who cannot be asked now is not asked.
    fn wish(&mut self, change: impl Fn(&Model) -> Option<Change>) {
        let Some((name, model)) = self.model() else { return };
        if model.absent.is_some() || model.app.is_none() {
            let text = format!("'{name}' is not running: nobody could do that");
            self.message = Some(Message { text, is_bad: true });
        } else if let Some(change) = change(model) {
            self.mode = Mode::Confirm(Wish { app: name.to_owned(), change });
        }
    }

    fn press_confirming(&mut self, code: KeyCode, wish: Wish) -> Option<Action> {
        match code {
            KeyCode::Char('y' | 'Y') => {
                self.mode = Mode::Watch;
                self.message = Some(Message { text: wish.begun(), is_bad: false });
                Some(Action::Ask(wish))
            }
            KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {
                self.mode = Mode::Watch;
                self.message = Some(Message { text: "nothing was done".to_owned(), is_bad: false });
                None
            }
            _ => None,
        }
    }

    fn press_filtering(&mut self, code: KeyCode) {
        let Some(model) = self.model_mut() else {
            self.mode = Mode::Watch;
            return;
        };
        let mut filter = model.lines.filter().to_owned();
        match code {
            KeyCode::Char(c) if filter.chars().count() < LONGEST_FILTER => filter.push(c),
            KeyCode::Backspace => {
                filter.pop();
            }
            KeyCode::Esc => {
                filter.clear();
                self.mode = Mode::Watch;
            }
            KeyCode::Enter => {
                self.mode = Mode::Watch;
                return;
            }
            _ => return,
        }
        if let Some(model) = self.model_mut() {
            model.lines.set_filter(filter);
        }
    }

    /// Takes what was pasted: into the filter while it is typed. Elsewhere it would press keys that nobody meant.
    pub(super) fn paste(&mut self, text: &str) {
        if self.mode == Mode::Filter {
            for c in text.chars().filter(|c| !c.is_control()) {
                self.press_filtering(KeyCode::Char(c));
            }
        }
    }
}

fn stop_or_start(model: &Model) -> Option<Change> {
    let slot = model.slot()?;
    Some(match slot.state {
        SlotState::Stopped => Change::Start(slot.slot),
        SlotState::Ready | SlotState::Starting | SlotState::Waiting | SlotState::Failed => {
            Change::Stop(slot.slot)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::example::{app, sample};
    use super::super::state::News;
    use super::*;

    fn key(state: &mut State, code: KeyCode) -> Option<Action> {
        state.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn keys(state: &mut State, text: &str) -> Vec<Action> {
        text.chars().filter_map(|c| key(state, KeyCode::Char(c))).collect()
    }

    fn watching() -> State {
        let mut state = State::new(Some("web".to_owned()));
        state.hear(News::Sample("web".to_owned(), Box::new(sample(0, app(3)))));
        state
    }

    fn ask(change: Change) -> Vec<Action> {
        vec![Action::Ask(Wish { app: "web".to_owned(), change })]
    }

    #[test]
    fn what_changes_something_is_asked_for_twice() {
        let mut state = watching();
        assert_eq!(keys(&mut state, "r"), []);
        assert!(matches!(state.mode, Mode::Confirm(_)));
        assert_eq!(keys(&mut state, "n"), []);
        assert_eq!(state.mode, Mode::Watch);
        assert_eq!(keys(&mut state, "ry"), ask(Change::Reload));
        assert_eq!(keys(&mut state, "jRy"), ask(Change::Restart(1)));
        assert_eq!(keys(&mut state, "+y"), ask(Change::Scale(1)));
        assert_eq!(keys(&mut state, "-y"), ask(Change::Scale(-1)));
        assert_eq!(keys(&mut state, "jjjsy"), ask(Change::Stop(2)));
        // Other keys neither say yes nor no.
        assert_eq!(keys(&mut state, "rjkxr"), []);
        assert!(matches!(state.mode, Mode::Confirm(_)));
        assert_eq!(key(&mut state, KeyCode::Esc), None);
        assert_eq!(keys(&mut state, "y"), []);
    }

    #[test]
    fn a_stopped_slot_is_started() {
        let mut state = watching();
        let mut stopped = app(1);
        stopped.slots[0].state = SlotState::Stopped;
        stopped.slots[0].workers.clear();
        state.hear(News::Sample("web".to_owned(), Box::new(sample(1000, stopped))));
        assert_eq!(keys(&mut state, "sy"), ask(Change::Start(0)));
    }

    #[test]
    fn nobody_is_asked_who_is_gone() {
        let mut state = watching();
        state.hear(News::Lost("web".to_owned(), "not running".to_owned()));
        assert_eq!(keys(&mut state, "ry"), []);
        assert!(state.message.as_ref().is_some_and(|message| message.is_bad));
        assert_eq!(state.model().unwrap().1.app.as_ref().unwrap().slots.len(), 3);
        state.hear(News::Sample("web".to_owned(), Box::new(sample(1000, app(3)))));
        assert_eq!(keys(&mut state, "ry"), ask(Change::Reload));
    }

    #[test]
    fn the_filter_is_typed_and_what_is_pasted_presses_no_keys() {
        let mut state = watching();
        assert_eq!(keys(&mut state, "/every q"), []);
        assert_eq!(state.model().unwrap().1.lines.filter(), "every q");
        state.paste("\nry");
        key(&mut state, KeyCode::Backspace);
        key(&mut state, KeyCode::Enter);
        assert_eq!(state.model().unwrap().1.lines.filter(), "every qr");
        state.paste("ryq");
        assert_eq!(state.mode, Mode::Watch);
        key(&mut state, KeyCode::Esc);
        assert_eq!(state.model().unwrap().1.lines.filter(), "");
    }

    #[test]
    fn control_keys_are_heard_in_every_mode() {
        for before in ["", "r", "/", "?"] {
            let mut state = watching();
            keys(&mut state, before);
            let mut control =
                |c| state.press(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL));
            assert_eq!(control('z'), Some(Action::Suspend));
            assert_eq!(control('c'), Some(Action::Quit));
        }
        assert_eq!(keys(&mut watching(), "??q"), [Action::Quit]);
    }

    #[test]
    fn tab_goes_from_app_to_app() {
        let mut state = State::new(None);
        assert_eq!(key(&mut state, KeyCode::Tab), None);
        let apps = ["api", "web"].map(|app| (app.to_owned(), "running".to_owned()));
        let shows = |app: &str| Some(Action::Show(app.to_owned()));
        assert_eq!(state.hear(News::Apps(apps.to_vec())), shows("api"));
        assert_eq!(key(&mut state, KeyCode::Tab), shows("web"));
        assert_eq!(key(&mut state, KeyCode::Tab), shows("api"));
        assert_eq!(key(&mut state, KeyCode::BackTab), shows("web"));
        // The one that is looked at stays, gone or not.
        assert_eq!(state.hear(News::Apps(apps[..1].to_vec())), None);
        assert_eq!(state.apps[1], ("web".to_owned(), "gone".to_owned()));
        assert_eq!(key(&mut state, KeyCode::Tab), shows("api"));
    }
}
