//! `--since`: points in time as journalctl(1) takes them, in the caller's time zone unless they say otherwise.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A point in time, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Since(pub(super) u64);

/// Reads an argument.
pub(super) fn argument(text: &str) -> Result<Since, String> {
    let since = since(text, &Zoned::now()).map(|at| Since(usec(at)));
    since.ok_or_else(|| {
        format!(
            "'{text}' is no time, expected one like '10min ago', '2h', 'today', '2026-11-21 10:00' or '@1700000000'"
        )
    })
}

/// Before 1970 is as good as always.
fn usec(at: Timestamp) -> u64 {
    u64::try_from(at.as_microsecond()).unwrap_or(0)
}

fn since(text: &str, now: &Zoned) -> Option<Timestamp> {
    let text = text.trim();
    let midnight = |day: Option<Zoned>| Some(day?.start_of_day().ok()?.timestamp());
    match text {
        "now" => return Some(now.timestamp()),
        "today" => return midnight(Some(now.clone())),
        "yesterday" => return midnight(now.yesterday().ok()),
        _ => {}
    }
    if let Some(epoch) = text.strip_prefix('@') {
        return seconds(epoch);
    }
    let zone = now.time_zone();
    clock(text, now, zone).or_else(|| moment(text, zone)).or_else(|| ago(text, now.timestamp()))
}

/// Seconds, perhaps with a fraction.
fn seconds(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 6 {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<6}").parse().ok()?;
    let whole: i64 = whole.parse().ok()?;
    Timestamp::from_microsecond(whole.checked_mul(1_000_000)?.checked_add(fraction)?).ok()
}

/// `10min ago`, `1h 30min`, `-2h`: so long before now.
fn ago(text: &str, now: Timestamp) -> Option<Timestamp> {
    let text = text.strip_suffix("ago").unwrap_or(text).trim();
    let text = text.strip_prefix('-').unwrap_or(text);
    let long = humantime::parse_duration(text).ok()?;
    Some(now.checked_sub(long).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// `10:00`, `10:00:30`: today.
fn clock(text: &str, now: &Zoned, zone: &TimeZone) -> Option<Timestamp> {
    let format = if text.len() == 5 { "%H:%M" } else { "%H:%M:%S" };
    let time = Time::strptime(format, text).ok().filter(|_| matches!(text.len(), 5 | 8))?;
    Some(now.date().to_datetime(time).to_zoned(zone.clone()).ok()?.timestamp())
}

/// `2026-11-21`, `2026-11-21 10:00`, with seconds, a fraction, `T`, and `Z`, ` UTC` or `+02:00` at the end.
fn moment(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let utc = text.strip_suffix("UTC").map(|text| format!("{}Z", text.trim_end()));
    if let Ok(exact) = utc.as_deref().unwrap_or(text).parse::<Timestamp>() {
        return Some(exact);
    }
    let local: DateTime = text.parse().ok().filter(|_| text.len() >= 10)?;
    Some(local.to_zoned(zone.clone()).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now: Zoned = "2026-11-21T10:20:30[UTC]".parse().unwrap();
        let utc = |text: &str| {
            let at = since(text, &now).unwrap_or_else(|| panic!("{text}"));
            format!("{:.3}", Timestamp::from_microsecond(i64::try_from(usec(at)).unwrap()).unwrap())
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
            "2026-11-21T10:00:01+99:00",
            "10min agoo",
            "ä",
        ] {
            assert_eq!(since(text, &now), None, "{text}");
        }
        assert!(argument("soon").unwrap_err().starts_with("'soon' is no time, expected one like"));
    }

    #[test]
    fn times_without_a_zone_are_the_callers() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let now = "2026-11-21T10:20:30Z".parse::<Timestamp>().unwrap().to_zoned(zone);
        let at = |text: &str| since(text, &now).unwrap().to_string();
        assert_eq!(at("today"), "2026-11-20T22:00:00Z");
        assert_eq!(at("09:15"), "2026-11-21T07:15:00Z");
        assert_eq!(at("2026-11-21 10:00"), "2026-11-21T08:00:00Z");
        assert_eq!(at("2026-11-21 10:00 UTC"), "2026-11-21T10:00:00Z");
        assert_eq!(at("10min ago"), "2026-11-21T10:10:30Z");
    }
}
