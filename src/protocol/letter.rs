//! How workers speak to each other, by messages that the primary carries: `process.send({ type: 'dogwatch:send', to: 2,
//! data: … })` in one, `process.on('message')` in the other. Only messages of this type are the primary's business.

use serde::Deserialize;
use serde_json::{Value, json};

/// The type of a message to other workers.
const SEND: &str = "dogwatch:send";
/// The type of a message from another worker.
const RECEIVE: &str = "dogwatch:message";
/// The type of the answer to one that cannot be carried.
const REFUSED: &str = "dogwatch:refused";

/// A message to other workers.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// To whom.
    pub to: To,
    /// What.
    pub data: Value,
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
struct Raw {
    #[serde(rename = "type")]
    kind: Value,
    to: Option<Value>,
    #[serde(default)]
    data: Value,
}

/// Returns the letter that a program's message is; `None` if it is none.
///
/// # Errors
/// When it is one, but says not to whom.
pub fn parse(message: &str) -> Option<Result<Letter, String>> {
    if !message.contains(SEND) {
        return None;
    }
    let raw: Raw = serde_json::from_str(message).ok()?;
    if raw.kind != SEND {
        return None;
    }
    let slot = |to: &Value| to.as_u64().and_then(|slot| u16::try_from(slot).ok()).map(To::Slot);
    let to = match raw.to.as_ref() {
        Some(to) if to == "all" => Some(To::All),
        Some(to) if to == "others" => Some(To::Others),
        Some(to) => slot(to),
        None => None,
    };
    let text = "'to' names nobody, expected 'all', 'others' or the number of a slot";
    Some(to.map(|to| Letter { to, data: raw.data }).ok_or_else(|| text.to_owned()))
}

/// Returns the message that a receiver gets, as JSON.
#[must_use]
pub fn deliver(slot: u16, worker: u64, data: &Value) -> String {
    json!({ "type": RECEIVE, "from": { "slot": slot, "worker": worker }, "data": data }).to_string()
}

/// Returns the message that a sender gets whose message cannot be carried.
#[must_use]
pub fn refuse(reason: &str) -> String {
    json!({ "type": REFUSED, "reason": reason }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_has_a_receiver() {
        let letter = |to| Some(Ok(Letter { to, data: json!([1]) }));
        for (to, expected) in [("\"all\"", To::All), ("\"others\"", To::Others), ("3", To::Slot(3))]
        {
            let text = format!("{{\"type\":\"dogwatch:send\",\"to\":{to},\"data\":[1]}}");
            assert_eq!(parse(&text), letter(expected));
        }
        for wrong in ["{\"type\":\"dogwatch:send\"}", "{\"type\":\"dogwatch:send\",\"to\":-1}"] {
            assert!(matches!(parse(wrong), Some(Err(_))), "{wrong}");
        }
        for none in ["\"dogwatch:send\"", "{\"type\":1,\"x\":\"dogwatch:send\"}", "5", "{}"] {
            assert_eq!(parse(none), None, "{none}");
        }
    }
}
