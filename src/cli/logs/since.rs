//! `--since`: points in time as journalctl(1) takes them. All are UTC, as all times that dogwatch prints, unless they
//! say otherwise.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Since(pub(super) u64);

const DAY: u64 = 24 * 60 * 60 * 1_000_000;

/// Reads an argument.
#[expect(clippy::disallowed_methods, reason = "a client has no loop whose clock could be used")]
pub(super) fn argument(text: &str) -> Result<Since, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since(text, usec(now)).map(Since).ok_or_else(|| {
        format!(
            "'{text}' is no time, expected one like '10min ago', '2h', 'today', '2026-11-21 10:00' or '@1700000000'"
        )
    })
}

fn usec(since: Duration) -> u64 {
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn since(text: &str, now: u64) -> Option<u64> {
    let text = text.trim();
    let midnight = now - now % DAY;
    match text {
        "now" => return Some(now),
        "today" => return Some(midnight),
        "yesterday" => return midnight.checked_sub(DAY),
        _ => {}
    }
    if let Some(epoch) = text.strip_prefix('@') {
        return seconds(epoch);
    }
    clock(text, midnight).or_else(|| moment(text)).or_else(|| ago(text, now))
}

/// Seconds, perhaps with a fraction.
fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 6 {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<6}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(fraction)
}

/// `10min ago`, `1h 30min`, `-2h`: so long before now.
fn ago(text: &str, now: u64) -> Option<u64> {
    let text = text.strip_suffix("ago").unwrap_or(text).trim();
    let text = text.strip_prefix('-').unwrap_or(text);
    let long = humantime::parse_duration(text).ok()?;
    // Before 1970 is as good as always.
    Some(now.saturating_sub(usec(long)))
}

/// `10:00`, `10:00:30`: today.
fn clock(text: &str, midnight: u64) -> Option<u64> {
    let mut parts = text.split(':');
    let mut part = |below: u64| {
        let part = parts.next().filter(|part| part.len() == 2)?;
        part.parse::<u64>().ok().filter(|value| *value < below)
    };
    let (hours, minutes) = (part(24)?, part(60)?);
    let seconds = if text.len() > 5 { part(60)? } else { 0 };
    let whole = parts.next().is_none();
    whole.then_some(midnight + ((hours * 60 + minutes) * 60 + seconds) * 1_000_000)
}

/// `2026-11-21`, `2026-11-21 10:00`, with seconds, a fraction, `T`, and `Z`, ` UTC` or `+02:00` at the end.
fn moment(text: &str) -> Option<u64> {
    let text = text.strip_suffix("UTC").map_or(text, str::trim_end);
    let (text, offset) = offset(text)?;
    let text = match text.len() {
        10 => format!("{text} 00:00:00"),
        16 => format!("{text}:00"),
        _ => text.to_owned(),
    };
    let moment = humantime::parse_rfc3339_weak(&text).ok()?;
    let utc = usec(moment.duration_since(UNIX_EPOCH).ok()?);
    utc.checked_add_signed(-offset)
}

/// Splits what a time is ahead of UTC from its end, in microseconds.
fn offset(text: &str) -> Option<(&str, i64)> {
    if let Some(utc) = text.strip_suffix(['Z', 'z']) {
        return Some((utc, 0));
    }
    // The date has '-' as well; an offset only comes after a time.
    let Some(at) = text.rfind(['+', '-']).filter(|at| *at >= 16) else {
        return Some((text, 0));
    };
    let (moment, offset) = text.split_at(at);
    let (hours, minutes) = offset[1..].split_once(':')?;
    let number = |text: &str, below: i64| text.parse().ok().filter(|n| (0..below).contains(n));
    let ahead = (number(hours, 24)? * 60 + number(minutes, 60)?) * 60 * 1_000_000;
    Some((moment, if offset.starts_with('-') { -ahead } else { ahead }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        // 2026-11-21T10:20:30Z
        let now = 1_795_256_430_000_000;
        assert_eq!(since("2026-11-21 10:20:30", now), Some(now));
        let utc = |text: &str| {
            let at = since(text, now).unwrap_or_else(|| panic!("{text}"));
            crate::cli::text::moment(at)
        };
        for (text, expected) in [
            ("now", "2026-11-21T10:20:30.000Z"),
            ("10min ago", "2026-11-21T10:10:30.000Z"),
            ("10 min ago", "2026-11-21T10:10:30.000Z"),
            ("10min", "2026-11-21T10:10:30.000Z"),
            ("-10min", "2026-11-21T10:10:30.000Z"),
            ("2h", "2026-11-21T08:20:30.000Z"),
            ("1h 30min ago", "2026-11-21T08:50:30.000Z"),
            ("2 days ago", "2026-11-19T10:20:30.000Z"),
            ("today", "2026-11-21T00:00:00.000Z"),
            ("yesterday", "2026-11-20T00:00:00.000Z"),
            ("09:15", "2026-11-21T09:15:00.000Z"),
            ("09:15:07", "2026-11-21T09:15:07.000Z"),
            ("2026-11-20", "2026-11-20T00:00:00.000Z"),
            ("2026-11-21 10:00", "2026-11-21T10:00:00.000Z"),
            ("2026-11-21 10:00:01", "2026-11-21T10:00:01.000Z"),
            ("2026-11-21 10:00:01 UTC", "2026-11-21T10:00:01.000Z"),
            ("2026-11-21T10:00:01.250Z", "2026-11-21T10:00:01.250Z"),
            ("2026-11-21T10:00:01+02:00", "2026-11-21T08:00:01.000Z"),
            ("2026-11-21T10:00:01-03:30", "2026-11-21T13:30:01.000Z"),
            ("@1700000000", "2023-11-14T22:13:20.000Z"),
            ("@1700000000.5", "2023-11-14T22:13:20.500Z"),
            ("1000years", "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(text), expected, "{text}");
        }
        for text in [
            "",
            "soon",
            "ago",
            "@",
            "@x",
            "@1.2.3",
            "10",
            "25:00",
            "9:15",
            "10:00:00:00",
            "2026-13-01",
            "2026-11-21 25:00",
            "2026-11-21T10:00:01+02",
            "2026-11-21T10:00:01+99:00",
            "10min agoo",
            "ä",
        ] {
            assert_eq!(since(text, now), None, "{text}");
        }
        assert!(argument("soon").unwrap_err().starts_with("'soon' is no time, expected one like"));
    }
}
