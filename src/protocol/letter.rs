//! How workers speak to each other, by messages that the primary carries: `process.send({ type: 'dogwatch:send', to: 2,
//! data: … })` in one, `process.on('message')` in the other. Only messages of this type are the primary's business.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;

/// The type of a message to other workers.
const SEND: &str = "dogwatch:send";
/// The type of a message from another worker.
const RECEIVE: &str = "dogwatch:message";
/// The type of the answer to one that cannot be carried.
const REFUSED: &str = "dogwatch:refused";

/// What is longer is not carried: every receiver would have it in its queue.
const MAX_LETTER: usize = 1024 * 1024;

/// A message to other workers.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// To whom.
    pub to: To,
    /// What, as JSON.
    pub data: &'a str,
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Every worker that serves, the sender too.
    All,
    /// Every other.
    Others,
    /// The worker that serves this slot.
    Slot(u16),
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(rename = "type")]
    kind: Value,
    to: Option<Value>,
    // Not looked at: it may be as deep and as odd as JSON can be.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Returns the letter that a program's message is; `None` if it is none.
///
/// # Errors
/// When it is one, but says not to whom, or is too long.
pub fn parse(message: &str) -> Option<Result<Letter<'_>, String>> {
    if !message.contains(SEND) {
        return None;
    }
    let raw: Raw<'_> = serde_json::from_str(message).ok()?;
    if raw.kind != SEND {
        return None;
    }
    if message.len() > MAX_LETTER {
        return Some(Err(format!("it is longer than {MAX_LETTER} bytes")));
    }
    let slot = |to: &Value| to.as_u64().and_then(|slot| u16::try_from(slot).ok()).map(To::Slot);
    let to = match raw.to.as_ref() {
        Some(to) if to == "all" => Some(To::All),
        Some(to) if to == "others" => Some(To::Others),
        Some(to) => slot(to),
        None => None,
    };
    let text = "'to' names nobody, expected 'all', 'others' or the number of a slot";
    let data = raw.data.map_or("null", RawValue::get);
    Some(to.map(|to| Letter { to, data }).ok_or_else(|| text.to_owned()))
}

/// Returns the line that a receiver gets.
#[must_use]
pub fn deliver(slot: u16, worker: u64, data: &str) -> Arc<str> {
    format!(
        "{{\"type\":\"{RECEIVE}\",\"from\":{{\"slot\":{slot},\"worker\":{worker}}},\"data\":{data}}}\n"
    )
    .into()
}

/// Returns the line that a sender gets whose message cannot be carried.
#[must_use]
pub fn refuse(reason: &str) -> Arc<str> {
    format!("{}\n", json!({ "type": REFUSED, "reason": reason })).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_has_a_receiver_and_its_data_stay_as_they_are() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for data in ["[1]", "{\"z\":1,\"a\":1.50}", "\"\\ud800\"", &deep] {
            for (to, expected) in
                [("\"all\"", To::All), ("\"others\"", To::Others), ("3", To::Slot(3))]
            {
                let text = format!("{{\"type\":\"dogwatch:send\",\"to\":{to},\"data\":{data}}}");
                let letter = parse(&text).unwrap().unwrap();
                assert_eq!((letter.to, letter.data), (expected, data));
            }
        }
        let line = deliver(1, 7, "[1]");
        assert_eq!(
            &*line,
            "{\"type\":\"dogwatch:message\",\"from\":{\"slot\":1,\"worker\":7},\"data\":[1]}\n"
        );
    }

    #[test]
    fn what_is_no_letter_or_cannot_be_carried_is_told_apart() {
        let long = format!(
            "{{\"type\":\"dogwatch:send\",\"to\":1,\"data\":\"{}\"}}",
            "x".repeat(MAX_LETTER)
        );
        for wrong in
            ["{\"type\":\"dogwatch:send\"}", "{\"type\":\"dogwatch:send\",\"to\":-1}", &long]
        {
            assert!(matches!(parse(wrong), Some(Err(_))), "{}", &wrong[..40.min(wrong.len())]);
        }
        for none in ["\"dogwatch:send\"", "{\"type\":1,\"x\":\"dogwatch:send\"}", "5", "{}"] {
            assert!(parse(none).is_none(), "{none}");
        }
    }
}
