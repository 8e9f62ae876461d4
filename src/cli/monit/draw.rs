//! Draws the state, and nothing else: the same state on a screen of the same size looks the same.

use super::super::text;
use super::lines::LogLine;
use super::look::{self, Look, clean};
use super::model::Model;
use super::state::{Mode, State};
use super::table;
use crate::protocol::control::{AppState, Role, Slot};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

/// The rollout's bar is so wide.
const BAR: usize = 20;
/// A message takes no more rows.
const LONGEST: u16 = 4;

/// What `?` shows.
const HELP: [&str; 17] = [
    "up, down, k, j    select a slot",
    "tab               another app",
    "r                 reload: relieve all slots, one at a time",
    "R                 restart the selected slot: stop, then start",
    "+ -               one slot more or less",
    "s                 stop the selected slot, or start it",
    "a                 lines of all slots, or of the selected one",
    "f /               only lines with a text; Esc forgets it",
    "page up, down     older lines and newer ones; End follows",
    "Ctrl-Z  Ctrl-L    to the background; draw everything again",
    "q Ctrl-C          end this view; the app goes on",
    "",
    "GEN   generation of the worker's settings",
    "RST   how often the slot was started again, beside reloads",
    "CPU%  of one processor in the last second, and the minute",
    "+ -   a newcomer, and a worker that leaves its slot",
    "done  the slot is where the rollout wants it",
];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, look: Look) {
    let area = frame.area();
    let (message, is_bad) = match &state.message {
        Some(message) => (clean(&message.text), message.is_bad),
        None => (String::new(), false),
    };
    let rows = match state.model() {
        Some((_, model)) => heights(state, model, area, height_of(&message, area.width)),
        None => Heights { message: 1, footer: 1, ..Heights::default() },
    };
    let [tabs, title, status, bar, head, slots, detail, log_head, log, said, footer] =
        Layout::vertical([
            Constraint::Length(rows.tabs),
            Constraint::Length(rows.title),
            Constraint::Length(rows.status),
            Constraint::Length(rows.bar),
            Constraint::Length(rows.head),
            Constraint::Length(rows.slots),
            Constraint::Length(rows.detail),
            Constraint::Length(rows.log_head),
            Constraint::Fill(1),
            Constraint::Length(rows.message),
            Constraint::Length(rows.footer),
        ])
        .areas(area);
    match state.model() {
        Some((name, model)) => {
            put(frame, tabs, draw_tabs(state, look));
            put(frame, title, draw_title(name, model, look));
            let grey = if model.absent.is_some() { look.dim() } else { Style::new() };
            put_broken(frame, status, &told_status(model), grey);
            put(frame, bar, draw_bar(model, look).style(grey));
            put(frame, head, table::head(head.width).style(grey));
            let lines = table::rows(model, slots.width, slots.height, look);
            let lines = lines
                .into_iter()
                .map(|line| if model.absent.is_some() { plain(&line).style(grey) } else { line });
            frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), slots);
            put_broken(frame, detail, &told_detail(model), look.dim());
            put(frame, log_head, draw_log_head(model, log_head.width));
            draw_log(frame, log, model, look);
        }
        None => {
            let text = "no app is running, waiting for one";
            frame.render_widget(Paragraph::new(text).style(look.bad()), log);
        }
    }
    put_broken(frame, said, &message, if is_bad { look.bad() } else { Style::new() });
    draw_footer(frame, footer, state, look);
    if state.mode == Mode::Help {
        draw_help(frame, area);
    }
}

fn put(frame: &mut Frame<'_>, area: Rect, line: Line<'_>) {
    frame.render_widget(Paragraph::new(line), area);
}

/// A line without the styles of its parts.
fn plain(line: &Line<'_>) -> Line<'static> {
    Line::from(line.spans.iter().map(|span| span.content.as_ref()).collect::<String>())
}

/// How many rows each part gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Heights {
    tabs: u16,
    title: u16,
    status: u16,
    bar: u16,
    head: u16,
    slots: u16,
    detail: u16,
    log_head: u16,
    message: u16,
    footer: u16,
}

/// The slots get what they need, but on a screen that is high enough a third is for the lines.
fn heights(state: &State, model: &Model, area: Rect, message: u16) -> Heights {
    let is_high = area.height >= 14;
    let status = height_of(&told_status(model), area.width).min(2);
    let mut rows = Heights {
        tabs: u16::from(state.apps.len() > 1),
        title: 1,
        status: if is_high { status } else { 1 },
        bar: u16::from(is_high || model.app.as_ref().is_some_and(|a| a.slots_done.is_some())),
        head: 1,
        slots: 0,
        // Always as many, or the lines below would jump with each slot that is selected.
        detail: if area.height >= 20 { 2 } else { u16::from(is_high) },
        log_head: u16::from(is_high),
        message: if is_high { message } else { 1 },
        footer: 1,
    };
    let taken = rows.tabs + rows.title + rows.status + rows.bar + rows.head + rows.detail;
    let taken = taken + rows.log_head + rows.message + rows.footer;
    let left = area.height.saturating_sub(taken);
    let wanted = model.app.as_ref().map_or(0, table::count);
    let most = if is_high { left - left / 3 } else { left };
    rows.slots = u16::try_from(wanted).unwrap_or(u16::MAX).min(most);
    rows
}

/// How many rows a text takes.
fn height_of(text: &str, width: u16) -> u16 {
    u16::try_from(look::broken(text, width).len()).unwrap_or(LONGEST).clamp(1, LONGEST)
}

/// Draws a text that may take more than one row; what there is no row for is cut, and that is seen.
fn put_broken(frame: &mut Frame<'_>, area: Rect, text: &str, style: Style) {
    let mut rows = look::broken(text, area.width);
    if rows.len() > usize::from(area.height) {
        rows.truncate(usize::from(area.height));
        if let Some(last) = rows.last_mut() {
            let room = usize::from(area.width.saturating_sub(3));
            *last = last.chars().take(room).chain("...".chars()).collect();
        }
    }
    let rows: Vec<Line<'_>> = rows.into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(rows).style(style), area);
}

fn draw_tabs(state: &State, look: Look) -> Line<'static> {
    let mut spans = vec![];
    for (name, word) in &state.apps {
        let is_shown = Some(name) == state.shown.as_ref();
        let name = clean(name);
        let (name, style) = if is_shown {
            (format!("[{name}"), Style::new().add_modifier(Modifier::BOLD))
        } else {
            (format!(" {name}"), Style::new())
        };
        spans.push(Span::styled(name, style));
        if word != "running" {
            spans.push(Span::styled(format!(" {word}"), look.state(word)));
        }
        spans.push(Span::raw(if is_shown { "] " } else { "  " }));
    }
    Line::from(spans)
}

/// The app's name, what it does, and what it uses.
fn draw_title(name: &str, model: &Model, look: Look) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut spans = vec![Span::styled(clean(name), bold), Span::raw("  ")];
    if let Some(why) = &model.absent {
        spans.push(Span::styled(clean(why), look.bad()));
        return Line::from(spans);
    }
    let Some(app) = &model.app else {
        spans.push(Span::raw("looking for it"));
        return Line::from(spans);
    };
    let word = app.state.word();
    spans.push(Span::styled(word, look.state(word).add_modifier(Modifier::BOLD)));
    let (usage, cpu) = model.total();
    let mut text = format!(
        "  up {}  cpu {}%  memory {}",
        text::time(app.up_ms),
        table::percent(cpu),
        text::size(usage.memory_bytes)
    );
    if let Some(count) = usage.connections {
        text += &format!("  conn {count}");
    }
    text += &format!("  primary {}", app.primary.pid);
    spans.push(Span::raw(text));
    Line::from(spans)
}

fn told_status(model: &Model) -> String {
    model.app.as_ref().map_or(String::new(), |app| clean(&app.status))
}

/// How far the rollout is; without one, where the app listens.
fn draw_bar(model: &Model, look: Look) -> Line<'static> {
    let Some(app) = &model.app else { return Line::default() };
    let Some(done) = app.slots_done else {
        let listeners = app.primary.listeners.iter().map(|listener| clean(&listener.address));
        let listeners: Vec<String> = listeners.collect();
        return Line::styled(format!("listens on {}", listeners.join(", ")), look.dim());
    };
    let total = app.slots.len();
    let filled = (done * BAR).checked_div(total).unwrap_or(0).min(BAR);
    let is_moving = app.slots.iter().flat_map(|s| &s.workers).any(|w| w.role == Role::Newcomer);
    let head = if is_moving && filled < BAR { ">" } else { "" };
    let bar = format!("{}{head}", "#".repeat(filled));
    let (word, style) = match app.state {
        AppState::RollingBack => ("rolling back", look.bad()),
        AppState::Starting
        | AppState::Running
        | AppState::Reloading
        | AppState::Paused
        | AppState::Stopping => ("reloading", look.good()),
    };
    let mut text = format!(" {done}/{total} done, {word} to generation {}", app.generation);
    if let Some(queued) = app.queued_generation {
        text += &format!(", {queued} queued");
    }
    Line::from(vec![Span::styled(format!("[{bar:-<BAR$}]"), style), Span::raw(text)])
}

/// What the table has no room for, of the selected slot; what went wrong first.
fn told_detail(model: &Model) -> String {
    let Some(slot) = model.slot() else { return String::new() };
    let mut parts = vec![];
    if let Some(reason) = &slot.reason {
        parts.push(format!("given up: its worker {reason}"));
    }
    if slot.failures > 0 {
        parts.push(format!("failures in a row: {}", slot.failures));
    }
    if let Some(exit) = &slot.last_exit {
        let ago = text::time(exit.ago_ms);
        parts.push(format!("worker {} {} {ago} ago", exit.worker, exit.reason));
    }
    parts.extend(worker_detail(slot));
    if parts.is_empty() {
        parts.push("nobody serves it".to_owned());
    }
    clean(&format!("slot {}: {}", slot.slot, parts.join("; ")))
}

fn worker_detail(slot: &Slot) -> Option<String> {
    let worker = slot.workers.first()?;
    let mut text = format!("worker {}", worker.worker);
    if let (Some(after), Some(because)) = (worker.ready_after_ms, &worker.ready_because) {
        text += &format!(" was ready after {}: {because}", text::time(after));
    }
    if let Some(says) = &worker.status {
        text += &format!("; says '{says}'");
    }
    Some(text)
}

/// A rule that says which lines are below.
fn draw_log_head(model: &Model, width: u16) -> Line<'static> {
    let lines = &model.lines;
    let mut text = match lines.one_slot() {
        true => format!("-- output of slot {} ", model.selected),
        false => "-- output of all slots ".to_owned(),
    };
    if !lines.filter().is_empty() {
        text += &format!("with '{}' ", clean(lines.filter()));
    }
    if !lines.follows() {
        text += "(older lines; End follows) ";
    }
    let width = usize::from(width);
    Line::from(format!("{text:-<width$}"))
}

/// The newest at the bottom; what is wider than the screen goes on in the next row.
fn draw_log(frame: &mut Frame<'_>, area: Rect, model: &Model, look: Look) {
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let shown = model.lines.shown(height, model.selected);
    let mut rows: Vec<Line<'_>> =
        shown.into_iter().flat_map(|line| log_rows(line, width, look)).collect();
    rows.drain(..rows.len().saturating_sub(height));
    frame.render_widget(Paragraph::new(rows), area);
}

fn log_rows(line: &LogLine, width: usize, look: Look) -> Vec<Line<'static>> {
    // The time of day, where there is room.
    let time = match width {
        100.. if line.time_usec > 0 => format!("{} ", text::time_of_day(line.time_usec)),
        _ => String::new(),
    };
    let whose = line.slot.map_or("  * ".to_owned(), |slot| format!("{slot:>3} "));
    let indent = time.len() + whose.len();
    let text: Vec<char> = clean(&line.text).chars().collect();
    let mut parts = text.chunks(width.saturating_sub(indent).max(1)).map(String::from_iter);
    let first = Line::from(vec![
        Span::styled(time, look.dim()),
        Span::styled(whose, Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(parts.next().unwrap_or_default()),
    ]);
    let rest = parts.map(|part| Line::from(format!("{:indent$}{part}", "")));
    std::iter::once(first).chain(rest).collect()
}

/// The keys; or the question, whose answers come first, for nobody may miss them.
fn draw_footer(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let filter = state.model().map_or("", |(_, model)| model.lines.filter());
    let line = match &state.mode {
        Mode::Watch => Line::styled(keys(usize::from(area.width)), look.dim()),
        Mode::Confirm(wish) => {
            let question = state.model().map(|(_, model)| wish.question(model));
            let text = format!("[y/n] {}", clean(&question.unwrap_or_default()));
            Line::styled(text, bold.add_modifier(Modifier::REVERSED))
        }
        Mode::Filter => Line::styled(
            format!("only lines with: {}_   (Enter keeps it, Esc forgets it)", clean(filter)),
            bold,
        ),
        Mode::Help => Line::styled("any key goes back", bold),
    };
    put(frame, area, line);
}

/// As many keys as there is room for, the most needed first.
fn keys(width: usize) -> String {
    let keys = [
        "q quit",
        "? help",
        "r reload",
        "R restart",
        "s stop",
        "+- scale",
        "f filter",
        "a all",
        "tab app",
    ];
    let mut text = String::new();
    for key in keys {
        let gap = if text.is_empty() { "" } else { "  " };
        if text.len() + gap.len() + key.len() > width {
            break;
        }
        text = format!("{text}{gap}{key}");
    }
    text
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let area = area.centered(
        Constraint::Length(66),
        Constraint::Length(u16::try_from(HELP.len() + 2).unwrap_or(u16::MAX)),
    );
    frame.render_widget(Clear, area);
    let lines = HELP.map(Line::from).to_vec();
    let title = " dogwatch monit: any key goes back ";
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), area);
}

#[cfg(test)]
mod tests {
    use super::super::example::{app, rollout, sample};
    use super::super::state::{Message, News};
    use super::super::wish::{Change, Wish};
    use super::*;
    use crate::protocol::control::App;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Buffer;
    use ratatui::style::Color;

    const PLAIN: Look = Look { colour: false, unicode: true };

    fn watching(app: App) -> State {
        let mut state = State::new(Some("web".to_owned()));
        state.hear(News::Sample("web".to_owned(), Box::new(sample(0, app))));
        for slot in 0..3 {
            let text = format!("GET /{slot}");
            let line = LogLine { time_usec: 1_700_000_000_000_000, slot: Some(slot), text };
            state.hear(News::Line("web".to_owned(), line));
        }
        state
    }

    fn buffer(state: &State, width: u16, height: u16, look: Look) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state, look)).unwrap();
        terminal.backend().buffer().clone()
    }

    fn screen(state: &State, width: u16, height: u16) -> Vec<String> {
        let buffer = buffer(state, width, height, PLAIN);
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| row(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn a_steady_app_is_seen_whole() {
        let seen = screen(&watching(app(4)), 80, 24);
        let expected = [
            "web  running  up 1min 1s  cpu 2.0%  memory 60.0M  conn 12  primary 999",
            "4 workers ready, generation 1",
            "listens on 127.0.0.1:8080",
            " SLOT STATE             GEN     PID        UP RST  CPU%       MEMORY       CONN",
            ">   0 ready               1    1001      1min   0   0.5     ▁  12.0M     █    3",
            "    1 ready               1    1002      1min   0   0.5     ▁  12.0M     █    3",
            "    2 ready               1    1003      1min   0   0.5     ▁  12.0M     █    3",
            "    3 ready               1    1004      1min   0   0.5     ▁  12.0M     █    3",
            "slot 0: worker 1 was ready after 120ms: it waits on its socket",
            "",
            "-- output of all slots ---------------------------------------------------------",
            "  0 GET /0",
            "  1 GET /1",
            "  2 GET /2",
        ];
        assert_eq!(seen[..expected.len()], expected);
        let keys =
            "q quit  ? help  r reload  R restart  s stop  +- scale  f filter  a all  tab app";
        assert_eq!(seen[23], keys);
        let wide = screen(&watching(app(4)), 120, 40);
        assert_eq!(wide[11], "22:13:20   0 GET /0");
        assert_eq!(wide[39], keys);
    }

    #[test]
    fn a_rollout_is_seen_slot_by_slot() {
        for (width, height) in [(80, 24), (120, 40)] {
            let seen = screen(&watching(rollout(4)), width, height);
            assert!(seen[0].starts_with("web  reloading"), "{seen:#?}");
            assert_eq!(seen[2], "[#####>--------------] 1/4 done, reloading to generation 2");
            let rows: Vec<&str> = seen[4..10].iter().map(|row| &row[..34]).collect();
            let expected = [
                ">   0 ready (done)        2    101",
                "    - leaving draining    1    100",
                "    1 ready               1    100",
                "    + newcomer settling   2    101",
                "    2 ready               1    100",
                "    3 ready               1    100",
            ];
            assert_eq!(rows, expected);
        }
        let mut back = rollout(4);
        back.state = AppState::RollingBack;
        back.generation = 1;
        back.queued_generation = Some(3);
        let seen = screen(&watching(back), 80, 24);
        let bar = "1/4 done, rolling back to generation 1, 3 queued";
        assert!(seen[2].ends_with(bar), "{seen:#?}");
    }

    #[test]
    fn a_primary_that_is_gone_leaves_the_last_that_was_known_in_grey() {
        let mut state = watching(app(4));
        state.hear(News::Lost("web".to_owned(), "not running, waiting for it".to_owned()));
        let seen = screen(&state, 80, 24);
        assert_eq!(seen[0], "web  not running, waiting for it");
        assert!(seen[4].starts_with(">   0 ready"));
        let look = Look { colour: true, ..PLAIN };
        let buffer = buffer(&state, 80, 24, look);
        let cell = &buffer[(6, 4)];
        assert!(cell.modifier.contains(Modifier::DIM) && cell.fg == Color::Reset);
    }

    #[test]
    fn without_colours_there_are_none_and_with_them_some() {
        let has_colour = |look| {
            let buffer = buffer(&watching(rollout(4)), 80, 24, look);
            buffer.content().iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
        };
        assert!(!has_colour(PLAIN));
        assert!(has_colour(Look { colour: true, ..PLAIN }));
    }

    #[test]
    fn what_is_asked_and_answered_is_at_the_foot() {
        let mut state = watching(app(4));
        let wish = Wish { app: "web".to_owned(), change: Change::Stop(2) };
        state.mode = Mode::Confirm(wish);
        let foot = |state: &State| screen(state, 80, 24)[23].clone();
        let question = "[y/n] stop slot 2 of 'web': nobody serves it until it is started?";
        assert_eq!(foot(&state), question);
        state.mode = Mode::Filter;
        assert_eq!(foot(&state), "only lines with: _   (Enter keeps it, Esc forgets it)");
        state.mode = Mode::Watch;
        let text = format!("cannot reload 'web': {}", "because ".repeat(80));
        state.message = Some(Message { text, is_bad: true });
        let seen = screen(&state, 80, 24);
        assert!(seen[19].starts_with("cannot reload 'web': because"), "{seen:#?}");
        assert!(seen[22].ends_with("..."), "{seen:#?}");
        state.mode = Mode::Help;
        assert!(screen(&state, 80, 24).iter().any(|row| row.contains("restart the selected slot")));
    }

    #[test]
    fn many_slots_leave_room_for_lines_and_the_selected_one_is_seen() {
        let mut state = watching(app(64));
        let selected = |state: &State| {
            let seen = screen(state, 80, 24);
            assert!(seen.iter().any(|row| row.contains("GET /2")), "{seen:#?}");
            seen.iter().find_map(|row| row.strip_prefix('>').map(|row| row[..5].trim().to_owned()))
        };
        assert_eq!(selected(&state).as_deref(), Some("0"));
        if let Some(model) = state.model_mut() {
            model.selected = 63;
        }
        assert_eq!(selected(&state).as_deref(), Some("63"));
    }

    #[test]
    fn screens_of_every_size_are_drawn() {
        let apps = ["api", "web"].map(|app| (app.to_owned(), "reloading".to_owned()));
        let mut state = watching(rollout(4));
        state.hear(News::Apps(apps.to_vec()));
        for mode in [Mode::Watch, Mode::Help, Mode::Filter] {
            state.mode = mode;
            for (width, height) in (1..100).map(|n| (n, n / 3 + 1)).chain([(1, 50), (200, 1)]) {
                screen(&state, width, height);
            }
        }
        state.mode = Mode::Watch;
        let narrow = screen(&state, 40, 12);
        assert!(narrow[4].starts_with(" SLOT STATE"), "{narrow:#?}");
        assert!(narrow[6].starts_with("    - leaving draining"), "{narrow:#?}");
        assert!(narrow[11].starts_with("q quit  ? help"), "{narrow:#?}");
        screen(&State::new(None), 80, 24);
    }

    #[test]
    fn long_lines_go_on_in_the_next_row() {
        let mut state = watching(app(1));
        let text = format!("{}end", "long ".repeat(30));
        let line = LogLine { time_usec: 0, slot: Some(0), text };
        state.hear(News::Line("web".to_owned(), line));
        let seen = screen(&state, 80, 24);
        assert!(seen[11].starts_with("  0 long long"), "{seen:#?}");
        assert!(seen[12].starts_with("    ong long"), "{seen:#?}");
        assert_eq!(seen[13], "    d");
    }

    #[test]
    fn nothing_that_workers_say_controls_the_terminal() {
        let mut hostile = app(1);
        hostile.slots[0].workers[0].status = Some("\u{1b}]0;owned\u{7}".to_owned());
        hostile.status = "\u{1b}[2J".to_owned();
        let mut state = watching(hostile);
        let text = "a\u{1b}[31m\tb".to_owned();
        state.hear(News::Line("web".to_owned(), LogLine { time_usec: 0, slot: None, text }));
        let seen = screen(&state, 80, 24).join("");
        assert!(!seen.contains(char::is_control) && seen.contains("a\u{fffd}[31m    b"), "{seen}");
    }
}
