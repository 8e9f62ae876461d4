//! `dogwatch monit [APP]`: the whole of an app on one screen, as it happens, with keys for what one then wants to do.
//!
//! Threads ask and follow the primary ([`feed`]) and write into one channel; the loop here reads it and the keys, lets
//! [`state`] and [`keys`] decide what they mean, and has [`draw`] draw that. Only `feed`, `logs` and `wish` know the world.

mod draw;
#[cfg(test)]
mod example;
mod feed;
mod keys;
mod lines;
mod logs;
mod look;
mod model;
mod state;
mod table;
mod wish;

use super::apps;
use super::trouble::{Code, Trouble};
use feed::Feed;
use look::Look;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, DisableBracketedPaste, EnableBracketedPaste, Event};
use ratatui::crossterm::execute;
use state::{Action, News, State};
use std::io::{self, IsTerminal as _};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// News is drawn so soon.
const TICK: Duration = Duration::from_millis(100);
/// Before it is drawn, so much news is taken at most: who talks without end does not stop the keys.
const AT_ONCE: usize = 2000;

/// Shows an app, or all of them, until the operator has seen enough.
pub(super) fn monit(app: Option<String>, control: Option<&Path>) -> Result<ExitCode, Trouble> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let text = "cannot draw: this is no terminal";
        let hint = "'dogwatch list' prints the same once";
        return Err(Trouble::new(Code::Failed, text).hint(hint));
    }
    // Whoever has mistyped a name is told now; who is looked at may come and go.
    let app = match (app, control) {
        (Some(app), _) => Some(apps::find(&app, control)?.primary.name),
        (None, Some(path)) => match apps::reach("app", path)? {
            Some(client) => Some(client.primary.name),
            None => {
                let text = format!("cannot watch '{}': nobody listens there", path.display());
                return Err(Trouble::new(Code::NotRunning, text));
            }
        },
        (None, None) => None,
    };
    let (mut feed, news) = Feed::new(control.map(Path::to_path_buf));
    match &app {
        Some(app) => feed.show(app),
        None => feed.count_apps(),
    }
    let mut state = State::new(app);
    let cannot = |e: io::Error| Trouble::new(Code::Failed, format!("cannot draw: {e}"));
    unpaste_at_panic();
    let mut terminal = enter().map_err(cannot)?;
    let ended = run(&mut terminal, &mut state, &mut feed, &news);
    leave();
    feed.end(news);
    if terminal.show_cursor().is_err() {
        // The terminal is gone: nobody reads what became of it, and to say it there would fail again.
        std::mem::forget(terminal);
        return Ok(ExitCode::FAILURE);
    }
    ended.map_err(cannot)?;
    Ok(ExitCode::SUCCESS)
}

/// What ratatui's own hook does not know of.
fn unpaste_at_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let _ = execute!(io::stdout(), DisableBracketedPaste);
        before(info);
    }));
}

/// Takes the terminal. From here on it is given back whatever happens: ratatui's own hook does so at a panic.
fn enter() -> io::Result<DefaultTerminal> {
    let terminal = ratatui::try_init()?;
    // What is pasted must not press keys.
    let _ = execute!(io::stdout(), EnableBracketedPaste);
    Ok(terminal)
}

/// Gives it back.
fn leave() {
    let _ = execute!(io::stdout(), DisableBracketedPaste);
    let _ = ratatui::try_restore();
}

fn run(
    terminal: &mut DefaultTerminal,
    state: &mut State,
    feed: &mut Feed,
    news: &Receiver<News>,
) -> io::Result<()> {
    let look = Look::of_terminal();
    let mut is_new = true;
    loop {
        if is_new {
            terminal.draw(|frame| draw::draw(frame, state, look))?;
        }
        is_new = false;
        let mut actions = vec![];
        if wait()?.is_break() {
            return Ok(());
        }
        while event::poll(Duration::ZERO)? {
            is_new = true;
            actions.extend(react(state, &event::read()?));
        }
        for news in news.try_iter().take(AT_ONCE) {
            is_new = true;
            actions.extend(state.hear(news));
        }
        for action in actions {
            if act(action, terminal, feed)?.is_break() {
                return Ok(());
            }
        }
    }
}

/// Waits for a key, or a moment; breaks when the terminal is gone. crossterm would wait as well, but it reads a terminal
/// that has hung up again and again and never returns.
fn wait() -> io::Result<ControlFlow<()>> {
    let stdin = io::stdin();
    let mut waited = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let tick = PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO);
    match poll(&mut waited, tick) {
        // Another size of the terminal comes as a signal.
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    if waited[0].revents().is_some_and(|flags| flags.intersects(gone)) {
        return Ok(ControlFlow::Break(()));
    }
    Ok(ControlFlow::Continue(()))
}

fn react(state: &mut State, event: &Event) -> Option<Action> {
    match event {
        Event::Key(key) if !key.is_release() => state.press(*key),
        Event::Paste(text) => {
            state.paste(text);
            None
        }
        Event::Key(_)
        | Event::Resize(..)
        | Event::FocusGained
        | Event::FocusLost
        | Event::Mouse(_) => None,
    }
}

fn act(
    action: Action,
    terminal: &mut DefaultTerminal,
    feed: &mut Feed,
) -> io::Result<ControlFlow<()>> {
    match action {
        Action::Quit => return Ok(ControlFlow::Break(())),
        Action::Redraw => terminal.clear()?,
        Action::Show(app) => feed.show(&app),
        Action::Ask(wish) => feed.ask(wish),
        Action::Suspend => {
            leave();
            // As the terminal itself does it: the whole job stops, and goes on from here.
            kill(Pid::from_raw(0), Signal::SIGTSTP)?;
            *terminal = enter()?;
            terminal.clear()?;
        }
    }
    Ok(ControlFlow::Continue(()))
}
