//! How values look to people: tables, times, sizes, colours on a terminal only.

use super::trouble::{Code, Trouble};
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use std::io::{IsTerminal as _, Write as _};

/// Whether standard output is a terminal that may be coloured (no-color.org).
pub(super) fn colour() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !dumb
}

/// Returns a table without lines, as systemctl prints them. Rows are not broken: a terminal does that, or a pager.
pub(super) fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !colour() {
        table.force_no_tty();
    } else {
        table.enforce_styling();
    }
    table.set_header(heads.iter().map(|head| Cell::new(head).add_attribute(Attribute::Bold)));
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    table
}

/// A number stands right.
pub(super) fn number(value: impl ToString) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

/// A word for a state, in the colour of how good that is.
pub(super) fn state(word: &str) -> Cell {
    let cell = Cell::new(word);
    match word {
        "ready" | "running" | "ok" => cell.fg(Color::Green),
        "failed" | "rolling_back" | "problem" => cell.fg(Color::Red).add_attribute(Attribute::Bold),
        "waiting" => cell.fg(Color::Red),
        "starting" | "reloading" | "draining" | "stopping" | "paused" | "stopped" | "warning" => {
            cell.fg(Color::Yellow)
        }
        _ => cell,
    }
}

/// Prints a line.
pub(super) fn say(line: &str) -> Result<(), Trouble> {
    print(&format!("{line}\n"))
}

/// Prints text.
pub(super) fn print(text: &str) -> Result<(), Trouble> {
    let mut out = std::io::stdout();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| Trouble::new(Code::Failed, format!("cannot write the answer: {e}")))
}

/// Returns a table without the spaces that its last column ends with.
pub(super) fn trimmed(table: &Table) -> String {
    table.trim_fmt().lines().map(|line| format!("{line}\n")).collect()
}

/// `45s`, `12min`, `3h 20min`, `5d 2h`: two units at most.
pub(super) fn time(ms: u64) -> String {
    let s = ms / 1000;
    let two = |big: u64, unit: &str, small: u64, sub: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit} {small}{sub}"),
    };
    match s {
        0 if ms > 0 => format!("{ms}ms"),
        0..60 => format!("{s}s"),
        60..3_600 => two(s / 60, "min", s % 60, "s"),
        3_600..86_400 => two(s / 3_600, "h", s % 3_600 / 60, "min"),
        _ => two(s / 86_400, "d", s % 86_400 / 3_600, "h"),
    }
}

/// Processor time: `0.4s`, `12.0s`, `3min 2s`.
pub(super) fn cpu(ms: u64) -> String {
    if ms < 60_000 { format!("{}.{}s", ms / 1000, ms % 1000 / 100) } else { time(ms) }
}

/// `512K`, `34.5M`, `1.2G`, as systemctl writes them.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    for (unit, name) in UNITS {
        if bytes >= unit {
            return format!("{}.{}{name}", bytes / unit, bytes % unit * 10 / unit);
        }
    }
    format!("{bytes}B")
}

/// A moment in microseconds since 1970, in the caller's time zone as RFC 3339 has it, to the millisecond.
pub(super) fn moment(usec: u64) -> String {
    local(usec, "%Y-%m-%dT%H:%M:%S%.3f%:z")
}

/// The same as the journal shows it: `Nov 21 10:00:01.123`.
pub(super) fn journal_moment(usec: u64) -> String {
    local(usec, "%b %d %H:%M:%S%.3f")
}

/// Only the time of day: `10:00:01`.
pub(super) fn time_of_day(usec: u64) -> String {
    local(usec, "%H:%M:%S")
}

fn local(usec: u64, format: &str) -> String {
    let usec = i64::try_from(usec).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_microsecond(usec).unwrap_or(jiff::Timestamp::MAX);
    at.to_zoned(jiff::tz::TimeZone::system()).strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_short() {
        assert_eq!(
            [0, 5, 999, 59_000, 60_000, 200_000].map(time),
            ["0s", "5ms", "999ms", "59s", "1min", "3min 20s"]
        );
        assert_eq!([12_000_000, 90_000_000, 866_000_000].map(time), ["3h 20min", "1d 1h", "10d"]);
        assert_eq!([0, 450, 12_000, 182_000].map(cpu), ["0.0s", "0.4s", "12.0s", "3min 2s"]);
        assert_eq!(
            [10, 2048, 36_175_872, 1_288_490_189].map(size),
            ["10B", "2.0K", "34.5M", "1.2G"]
        );
        let at: jiff::Timestamp = moment(1_700_000_000_123_456).parse().unwrap();
        assert_eq!(at.as_millisecond(), 1_700_000_000_123, "it names its own time zone");
    }
}
