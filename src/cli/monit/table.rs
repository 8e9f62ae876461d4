//! The table of slots: a row for each, and one more for whoever else is in it while it is relieved.

use super::super::text;
use super::look::{Look, clean};
use super::model::Model;
use crate::protocol::control::{App, Role, Slot, SlotState, Worker, WorkerState};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

/// A tenth of a processor is the least that fills a history.
const LEAST_CPU: u64 = 100;
/// A history is no wider.
const WIDEST: usize = 30;

/// What a column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Slot,
    State,
    Generation,
    Pid,
    Up,
    Restarts,
    Cpu,
    CpuHistory,
    Memory,
    MemoryHistory,
    Connections,
}

/// A column: its head, its width, and how soon it goes when there is no room, the highest first.
#[derive(Clone, Copy, Debug)]
struct Column {
    of: Of,
    head: &'static str,
    width: usize,
    goes: u8,
}

const fn column(of: Of, head: &'static str, width: usize, goes: u8) -> Column {
    Column { of, head, width, goes }
}

/// Together with the gaps and the mark they fill 79 places.
const COLUMNS: [Column; 11] = [
    column(Of::Slot, "SLOT", 4, 0),
    column(Of::State, "STATE", 17, 0),
    column(Of::Generation, "GEN", 3, 2),
    column(Of::Pid, "PID", 7, 4),
    column(Of::Up, "UP", 9, 6),
    column(Of::Restarts, "RST", 3, 5),
    column(Of::Cpu, "CPU%", 5, 1),
    column(Of::CpuHistory, "", 5, 8),
    column(Of::Memory, "MEMORY", 6, 3),
    column(Of::MemoryHistory, "", 5, 9),
    column(Of::Connections, "CONN", 4, 7),
];

/// The columns that there is room for, the histories as wide as can be.
fn columns(width: usize) -> Vec<Column> {
    let mut columns = COLUMNS.to_vec();
    // The mark before the first one takes as much as the gap that the last one does not need.
    let taken = |columns: &[Column]| columns.iter().map(|c| c.width + 1).sum::<usize>();
    while taken(&columns) > width && columns.len() > 2 {
        let most = columns.iter().map(|column| column.goes).max();
        columns.retain(|column| Some(column.goes) != most);
    }
    let left = width.saturating_sub(taken(&columns));
    for column in &mut columns {
        if matches!(column.of, Of::CpuHistory | Of::MemoryHistory) {
            column.width = (column.width + left / 2).min(WIDEST);
        }
    }
    columns
}

/// A row: whose it is, and what is known.
struct Row<'a> {
    slot: Option<&'a Slot>,
    worker: Option<&'a Worker>,
    /// The first of its slot.
    is_first: bool,
    state: String,
}

/// The head of the table.
pub(super) fn head(width: u16) -> Line<'static> {
    let mut text = " ".to_owned();
    for column in columns(usize::from(width)) {
        text += &pad(column.head, &column);
    }
    Line::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

/// The rows that fit into `height`, the selected slot among them.
pub(super) fn rows(model: &Model, width: u16, height: u16, look: Look) -> Vec<Line<'static>> {
    let Some(app) = &model.app else { return vec![] };
    let columns = columns(usize::from(width));
    let rows = all_rows(app);
    let is_selected = |row: &Row<'_>| row.slot.is_some_and(|slot| slot.slot == model.selected);
    let end = rows.iter().rposition(is_selected).map_or(0, |at| at + 1);
    let from = end.saturating_sub(usize::from(height));
    let shown = rows.iter().skip(from).take(usize::from(height));
    shown.map(|row| draw(row, model, &columns, is_selected(row), look)).collect()
}

/// How many rows there are.
pub(super) fn count(app: &App) -> usize {
    all_rows(app).len()
}

fn all_rows(app: &App) -> Vec<Row<'_>> {
    let mut rows = vec![];
    for slot in &app.slots {
        let own = slot.workers.iter().find(|worker| worker.role == Role::Incumbent);
        rows.push(Row {
            slot: Some(slot),
            worker: own,
            is_first: true,
            state: standing(app, slot),
        });
        for worker in slot.workers.iter().filter(|worker| worker.role != Role::Incumbent) {
            rows.push(Row {
                slot: Some(slot),
                worker: Some(worker),
                is_first: false,
                state: doing(worker),
            });
        }
    }
    for worker in &app.leaving {
        rows.push(Row { slot: None, worker: Some(worker), is_first: true, state: doing(worker) });
    }
    rows
}

/// How a slot stands, in words.
fn standing(app: &App, slot: &Slot) -> String {
    let is_moving = slot.workers.iter().any(|worker| worker.role == Role::Newcomer);
    match slot.state {
        SlotState::Waiting => match slot.retry_in_ms {
            Some(ms) => format!("waiting {}", text::time(ms)),
            None => "waiting".to_owned(),
        },
        SlotState::Ready
            if app.slots_done.is_some() && slot.generation == app.generation && !is_moving =>
        {
            "ready (done)".to_owned()
        }
        SlotState::Ready | SlotState::Starting | SlotState::Failed | SlotState::Stopped => {
            slot.state.word().to_owned()
        }
    }
}

/// What a worker does that is not the one who serves.
fn doing(worker: &Worker) -> String {
    match (worker.role, worker.state) {
        // It is ready, and is to live for a while before the incumbent goes.
        (Role::Newcomer, WorkerState::Ready) => "newcomer settling".to_owned(),
        (role, state) => format!("{} {}", role.word(), state.word()),
    }
}

fn draw(
    row: &Row<'_>,
    model: &Model,
    columns: &[Column],
    selected: bool,
    look: Look,
) -> Line<'static> {
    let is_marked = selected && row.is_first;
    let mut spans = vec![Span::raw(if is_marked { ">" } else { " " })];
    for column in columns {
        let text = pad(&cell(row, model, column, look), column);
        let style = match column.of {
            Of::State => look.state(&row.state),
            Of::Slot
            | Of::Generation
            | Of::Pid
            | Of::Up
            | Of::Restarts
            | Of::Cpu
            | Of::CpuHistory
            | Of::Memory
            | Of::MemoryHistory
            | Of::Connections => Style::new(),
        };
        spans.push(Span::styled(text, style));
    }
    let line = Line::from(spans);
    if is_marked { line.style(Style::new().add_modifier(Modifier::BOLD)) } else { line }
}

/// A cell's text in its column, with the gap before the next one. Words stand left, numbers right.
fn pad(text: &str, column: &Column) -> String {
    let width = column.width;
    let text: String = text.chars().take(width).collect();
    match column.of {
        Of::State => format!("{text:<width$} "),
        Of::Slot
        | Of::Generation
        | Of::Pid
        | Of::Up
        | Of::Restarts
        | Of::Cpu
        | Of::CpuHistory
        | Of::Memory
        | Of::MemoryHistory
        | Of::Connections => format!("{text:>width$} "),
    }
}

fn cell(row: &Row<'_>, model: &Model, column: &Column, look: Look) -> String {
    let number = row.worker.map(|worker| worker.worker);
    let usage = number.and_then(|number| model.usage.workers.get(&number));
    let first = row.slot.filter(|_| row.is_first);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    match column.of {
        Of::Slot => match (row.slot, row.worker.map(|worker| worker.role)) {
            (Some(slot), _) if row.is_first => slot.slot.to_string(),
            (Some(_), Some(Role::Newcomer)) => "+".to_owned(),
            (Some(_), _) => "-".to_owned(),
            (None, _) => or_dash(row.worker.map(|worker| worker.slot.to_string())),
        },
        Of::State => clean(&row.state),
        Of::Generation => {
            let of_worker = row.worker.map(|worker| worker.generation);
            or_dash(of_worker.or(first.map(|slot| slot.generation)).map(|g| g.to_string()))
        }
        Of::Pid => or_dash(row.worker.and_then(|worker| worker.pid).map(|pid| pid.to_string())),
        Of::Up => or_dash(row.worker.map(|worker| text::time(worker.up_ms))),
        Of::Restarts => first.map_or(String::new(), |slot| slot.restarts.to_string()),
        Of::Cpu => {
            or_dash(number.and_then(|number| model.cpu.get(&number)).map(|cpu| percent(*cpu)))
        }
        Of::Memory => or_dash(usage.map(|usage| text::size(usage.memory_bytes))),
        Of::Connections => {
            or_dash(usage.and_then(|u| u.connections).map(|count| count.to_string()))
        }
        Of::CpuHistory | Of::MemoryHistory => {
            first.map_or(String::new(), |slot| history(model, slot.slot, column, look))
        }
    }
}

/// All slots of an app have one scale, so that they can be compared.
fn history(model: &Model, slot: u16, column: &Column, look: Look) -> String {
    let Some(history) = model.history.get(&slot) else { return String::new() };
    let all = model.history.values();
    if column.of == Of::CpuHistory {
        let most = all.flat_map(|history| &history.cpu).copied().max().unwrap_or(0);
        look.history(history.cpu.iter(), most.max(LEAST_CPU), column.width)
    } else {
        let most = all.flat_map(|history| &history.memory).copied().max().unwrap_or(0);
        look.history(history.memory.iter(), most, column.width)
    }
}

/// Thousandths as a percentage: `0.4`, `100.0`, `1600`.
pub(super) fn percent(thousandths: u64) -> String {
    match thousandths {
        0..10_000 => format!("{}.{}", thousandths / 10, thousandths % 10),
        _ => (thousandths / 10).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_go_where_there_is_no_room() {
        let count = |width| columns(width).len();
        assert_eq!([200, 80, 79, 78, 60, 40, 10, 0].map(count), [11, 11, 11, 10, 7, 5, 2, 2]);
        let fits =
            |width: usize| columns(width).iter().map(|c| c.width + 1).sum::<usize>() <= width;
        assert!((23..300).all(fits));
        assert_eq!(
            [0, 4, 1000, 9_999, 16_000].map(percent),
            ["0.0", "0.4", "100.0", "999.9", "1600"]
        );
    }
}
