//! What a worker says on its notify socket (`sd_notify(3)`): newline-separated `KEY=VALUE` assignments in one
//! datagram. What the primary itself says to systemd is written by the sd-notify crate, which has no reader.

use std::time::Duration;

/// The longest datagram that is read; systemd's own limit is of this order, and `STATUS=` is a line for people.
pub const MAX_DATAGRAM: usize = 4096;

/// One assignment that means something to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `READY=1`
    Ready,
    /// `STOPPING=1`
    Stopping,
    /// `WATCHDOG=1`
    Heartbeat,
    /// `STATUS=…`, control characters replaced.
    Status(String),
    /// `EXTEND_TIMEOUT_USEC=…`, from now.
    MoreTime(Duration),
}

/// Returns what a datagram says, leaving out what means nothing to us (`RELOADING=1`, `BARRIER=1`, `MAINPID=`,
/// fields of one's own); `None` if it is no notification at all. Lines that are no
/// assignments are passed over, as systemd does.
#[must_use]
pub fn parse(datagram: &[u8]) -> Option<Vec<Notice>> {
    let text = std::str::from_utf8(datagram).ok()?;
    let mut notices = Vec::new();
    let mut assignments = 0;
    for (key, value) in text.split('\n').filter_map(|line| line.split_once('=')) {
        let is_name = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        if key.is_empty() || !key.bytes().all(is_name) {
            continue;
        }
        assignments += 1;
        notices.extend(notice(key, value));
    }
    (assignments > 0).then_some(notices)
}

fn notice(key: &str, value: &str) -> Option<Notice> {
    match (key, value) {
        ("READY", "1") => Some(Notice::Ready),
        ("STOPPING", "1") => Some(Notice::Stopping),
        ("WATCHDOG", "1") => Some(Notice::Heartbeat),
        ("STATUS", text) => Some(Notice::Status(
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        )),
        ("EXTEND_TIMEOUT_USEC", usec) => {
            usec.parse().ok().map(|usec| Notice::MoreTime(Duration::from_micros(usec)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_notify_messages_are_understood() {
        assert_eq!(parse(b"READY=1\n"), Some(vec![Notice::Ready]));
        assert_eq!(
            parse(b"READY=1\nSTATUS=up\tand running\nEXTEND_TIMEOUT_USEC=1500000\nWATCHDOG=1\nSTOPPING=1"),
            Some(vec![
                Notice::Ready,
                Notice::Status("up and running".into()),
                Notice::MoreTime(Duration::from_millis(1500)),
                Notice::Heartbeat,
                Notice::Stopping,
            ])
        );
    }

    #[test]
    fn what_is_not_for_us_is_left_out() {
        assert_eq!(parse(b"BARRIER=1"), Some(vec![]));
        assert_eq!(
            parse(b"RELOADING=1\nMONOTONIC_USEC=5\nMAINPID=1\nX_MY=field\nREADY=0"),
            Some(vec![])
        );
        assert_eq!(parse(b"EXTEND_TIMEOUT_USEC=-1"), Some(vec![]));
    }

    #[test]
    fn garbage_is_refused() {
        assert_eq!(parse(b"READY=1\nnonsense\n=\n"), Some(vec![Notice::Ready]));
        for garbage in
            [&b""[..], b"\n", b"READY", b"=1", b"ready=1", b"\xff\xfe=1", b"READY=1\n\xff", b"\0"]
        {
            assert_eq!(parse(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut state = 1u64;
        for _ in 0..50_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bytes = state.to_le_bytes();
            let text: Vec<u8> =
                bytes.iter().map(|b| b"READY=1\n\xffSTAUWCHDOG_"[*b as usize % 20]).collect();
            let _ = (parse(&bytes), parse(&text));
        }
    }
}
