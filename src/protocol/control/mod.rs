//! The control protocol: Varlink's messages (varlink.org), interface `org.dogwatch.Control`. Here are the values; the
//! zlink-core crate carries them over a socket, on both sides.
//!
//! A call is parsed by hand in one match, for what comes here may be anything: every method that there is, and a
//! refusal that names what is wrong.

mod values;

pub use values::{
    App, AppState, Balance, Canary, Change, Channel, Event, Exit, Failure, Generation, Lane, Line,
    Listener, Primary, Role, Setting, Slot, SlotState, Worker, WorkerState,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The name of the interface.
pub const INTERFACE: &str = "org.dogwatch.Control";
/// The interface's description, as `varlinkctl introspect` shows it.
pub const DESCRIPTION: &str = include_str!("org.dogwatch.Control.varlink");
/// The interface that every Varlink service has.
pub const SERVICE: &str = "org.varlink.service";
/// The description of that interface (varlink.org/Service).
pub const SERVICE_DESCRIPTION: &str = include_str!("org.varlink.service.varlink");

/// A longer call than any that makes sense.
pub const MAX_CALL: usize = 64 * 1024;

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `org.varlink.service.GetInfo`.
    GetInfo,
    /// `org.varlink.service.GetInterfaceDescription`.
    GetInterfaceDescription(InterfaceName),
    /// Who answers.
    Describe,
    /// The state of everything.
    List,
    /// And the settings, and the last failure.
    Show(MaybeSlot),
    /// A rollout.
    Reload(Reload),
    /// Stop, then start.
    Restart(MaybeSlot),
    /// Serve a slot again.
    Start(OneSlot),
    /// Serve a slot no more.
    Stop(OneSlot),
    /// Another number of slots.
    Scale(Scale),
    /// A signal to workers.
    Kill(Kill),
    /// End workers, keep sockets.
    Pause,
    /// Serve again.
    Resume,
    /// Forget failures.
    Reset(MaybeSlot),
    /// Go on with a rollout that waits for its canary.
    Promote,
    /// Undo the rollout under way.
    Rollback,
    /// Execute the program that is installed now.
    Upgrade,
    /// Would a reload be accepted?
    Check,
    /// Events as they happen.
    Subscribe(Subscribe),
    /// A message to workers' programs.
    Send(Send),
    /// Lines of output.
    Logs(Logs),
}

/// A parameter: one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OneSlot {
    /// Its number.
    pub slot: u16,
}

/// A parameter: one slot, or none for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MaybeSlot {
    /// Its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u16>,
}

/// The parameters of `Reload`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Reload {
    /// Return at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_wait: Option<bool>,
    /// Only tell what would change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// The parameters of `Scale`: one of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Scale {
    /// To this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<i64>,
    /// By this many more or fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<i64>,
}

/// The parameters of `Kill`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kill {
    /// A signal's name, with or without SIG.
    pub signal: String,
    /// The slot; none for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u16>,
}

/// The parameter of `Subscribe`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Subscribe {
    /// Also what the workers' programs send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<bool>,
}

/// The parameters of `Send`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Send {
    /// The slot; none for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u16>,
    /// The message, of any type.
    pub message: Value,
}

/// The parameters of `Logs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Logs {
    /// So many at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<u32>,
    /// Only of this slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u16>,
    /// And those to come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

/// The parameter of `GetInterfaceDescription`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InterfaceName {
    /// Which interface.
    pub interface: String,
}

/// A method and its parameters, as they stand in a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The full name of the method.
    pub method: String,
    /// The parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Map<String, Value>>,
}

/// What is answered instead of a reply. The names are those of the two interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "error", content = "parameters")]
#[allow(
    missing_docs,
    clippy::allow_attributes,
    reason = "the interface's description says what each field is"
)]
pub enum Error {
    /// There is no such interface.
    #[serde(rename = "org.varlink.service.InterfaceNotFound")]
    InterfaceNotFound { interface: String },
    /// There is no such method.
    #[serde(rename = "org.varlink.service.MethodNotFound")]
    MethodNotFound { method: String },
    /// A parameter is missing, unknown, or makes no sense.
    #[serde(rename = "org.varlink.service.InvalidParameter")]
    InvalidParameter { parameter: String },
    /// The caller may not do this.
    #[serde(rename = "org.varlink.service.PermissionDenied")]
    PermissionDenied {},
    /// The method only answers calls with `more`.
    #[serde(rename = "org.varlink.service.ExpectedMore")]
    ExpectedMore {},
    /// The configuration cannot be used.
    #[serde(rename = "org.dogwatch.Control.InvalidConfiguration")]
    InvalidConfiguration {
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// It cannot be done now.
    #[serde(rename = "org.dogwatch.Control.Refused")]
    Refused {
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// There is no such slot.
    #[serde(rename = "org.dogwatch.Control.NoSuchSlot")]
    NoSuchSlot { slot: u16, slots: u16 },
    /// The rollout was undone.
    #[serde(rename = "org.dogwatch.Control.RolledBack")]
    RolledBack {
        text: String,
        generation: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Box<Failure>>,
    },
    /// A newer reload took its place.
    #[serde(rename = "org.dogwatch.Control.Superseded")]
    Superseded { generation: u32 },
}

/// A reply of `Reload`: an event, or as the last one the verdict, or what would change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reloading {
    /// What happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// The new generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// The verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What would change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Change>>,
}

/// The reply of `List`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// The app.
    pub app: App,
}

/// The reply of `Show`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// The app.
    pub app: App,
    /// The settings in force.
    pub settings: Vec<Setting>,
    /// What each generation starts from.
    pub generations: Vec<Generation>,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Failure>,
}

/// The reply of `Scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaled {
    /// The number before.
    pub from: u16,
    /// The number now.
    pub to: u16,
}

/// The reply of `Kill`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Killed {
    /// Who was sent the signal.
    pub pids: Vec<i32>,
}

/// The reply of `Restart`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarted {
    /// The slots.
    pub slots: Vec<u16>,
}

/// The reply of `Upgrade`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// What is executed.
    pub program: String,
    /// What it says of itself.
    pub version: String,
}

/// A reply of `Subscribe`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Happened {
    /// What happened; nothing in the first reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
}

/// A reply of `Send`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// In the first reply: whom it was sent to …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<Vec<u64>>,
    /// … and who had no room for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<Vec<u64>>,
    /// What one of them sent since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
}

/// A reply of `Logs`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Logged {
    /// A line of a worker's output, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<Line>,
    /// … or something that happened; neither where those from before end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
}

impl Logged {
    /// The slot that it is about, if it is about one.
    #[must_use]
    pub fn slot(&self) -> Option<u16> {
        let of_line = self.line.as_ref().map(|line| line.slot);
        of_line.or(self.event.as_ref().and_then(|event| event.slot))
    }
}

/// The reply of `GetInfo` (varlink.org/Service).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Who made it.
    pub vendor: String,
    /// What it is.
    pub product: String,
    /// Which version.
    pub version: String,
    /// Where to read more.
    pub url: String,
    /// The interfaces that answer here.
    pub interfaces: Vec<String>,
}

/// The reply of `GetInterfaceDescription`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// The text.
    pub description: String,
}

/// Returns what is called.
///
/// # Errors
/// What to answer instead: no such interface, no such method, or which parameter is wrong.
pub fn parse(message: Message) -> Result<Call, Error> {
    let Message { method, parameters } = message;
    let parameters = parameters.unwrap_or_default();
    let Some((interface, name)) = method.rsplit_once('.') else {
        return Err(Error::MethodNotFound { method });
    };
    match (interface, name) {
        (SERVICE, "GetInfo") => none(&parameters, Call::GetInfo),
        (SERVICE, "GetInterfaceDescription") => {
            some(parameters, &["interface"]).map(Call::GetInterfaceDescription)
        }
        (INTERFACE, "Describe") => none(&parameters, Call::Describe),
        (INTERFACE, "List") => none(&parameters, Call::List),
        (INTERFACE, "Show") => some(parameters, &["slot"]).map(Call::Show),
        (INTERFACE, "Reload") => some(parameters, &["noWait", "dryRun"]).map(Call::Reload),
        (INTERFACE, "Restart") => some(parameters, &["slot"]).map(Call::Restart),
        (INTERFACE, "Start") => some(parameters, &["slot"]).map(Call::Start),
        (INTERFACE, "Stop") => some(parameters, &["slot"]).map(Call::Stop),
        (INTERFACE, "Scale") => some(parameters, &["to", "by"]).map(Call::Scale),
        (INTERFACE, "Kill") => some(parameters, &["signal", "slot"]).map(Call::Kill),
        (INTERFACE, "Pause") => none(&parameters, Call::Pause),
        (INTERFACE, "Resume") => none(&parameters, Call::Resume),
        (INTERFACE, "Reset") => some(parameters, &["slot"]).map(Call::Reset),
        (INTERFACE, "Promote") => none(&parameters, Call::Promote),
        (INTERFACE, "Rollback") => none(&parameters, Call::Rollback),
        (INTERFACE, "Upgrade") => none(&parameters, Call::Upgrade),
        (INTERFACE, "Check") => none(&parameters, Call::Check),
        (INTERFACE, "Subscribe") => some(parameters, &["messages"]).map(Call::Subscribe),
        (INTERFACE, "Send") => some(parameters, &["message", "slot"]).map(Call::Send),
        (INTERFACE, "Logs") => some(parameters, &["lines", "slot", "follow"]).map(Call::Logs),
        (SERVICE | INTERFACE, _) => Err(Error::MethodNotFound { method }),
        _ => Err(Error::InterfaceNotFound { interface: interface.to_owned() }),
    }
}

fn none(parameters: &Map<String, Value>, call: Call) -> Result<Call, Error> {
    match parameters.keys().next() {
        Some(unknown) => Err(Error::InvalidParameter { parameter: unknown.clone() }),
        None => Ok(call),
    }
}

/// The parameters as their type; when they are not, which one is to blame.
fn some<T: for<'de> Deserialize<'de>>(
    parameters: Map<String, Value>,
    known: &[&str],
) -> Result<T, Error> {
    let unknown = parameters.keys().find(|key| !known.contains(&key.as_str())).cloned();
    if let Some(parameter) = unknown {
        return Err(Error::InvalidParameter { parameter });
    }
    let missing = known.iter().find(|key| !parameters.contains_key(**key));
    let missing = missing.unwrap_or(&known[0]).to_string();
    serde_path_to_error::deserialize(Value::Object(parameters)).map_err(|error| {
        let path = error.path().to_string();
        let parameter = if path == "." || path.is_empty() { missing } else { path };
        Error::InvalidParameter { parameter }
    })
}

impl Call {
    /// Whether it only looks and changes nothing.
    #[must_use]
    pub fn only_looks(&self) -> bool {
        match self {
            Self::GetInfo
            | Self::GetInterfaceDescription(_)
            | Self::Describe
            | Self::List
            | Self::Show(_)
            | Self::Logs(_) => true,
            // What programs tell each other is not for everybody's eyes.
            Self::Subscribe(what) => what.messages != Some(true),
            // What is wrong with a file may quote it, and there are secrets in files.
            Self::Check
            | Self::Reload(_)
            | Self::Restart(_)
            | Self::Start(_)
            | Self::Stop(_)
            | Self::Scale(_)
            | Self::Kill(_)
            | Self::Send(_)
            | Self::Pause
            | Self::Resume
            | Self::Reset(_)
            | Self::Promote
            | Self::Rollback
            | Self::Upgrade => false,
        }
    }

    /// Returns the message that calls this.
    #[must_use]
    pub fn message(&self) -> Message {
        let own = |name: &str| format!("{INTERFACE}.{name}");
        let (method, parameters) = match self {
            Self::GetInfo => (format!("{SERVICE}.GetInfo"), None),
            Self::GetInterfaceDescription(p) => {
                (format!("{SERVICE}.GetInterfaceDescription"), object(p))
            }
            Self::Describe => (own("Describe"), None),
            Self::List => (own("List"), None),
            Self::Show(p) => (own("Show"), object(p)),
            Self::Reload(p) => (own("Reload"), object(p)),
            Self::Restart(p) => (own("Restart"), object(p)),
            Self::Start(p) => (own("Start"), object(p)),
            Self::Stop(p) => (own("Stop"), object(p)),
            Self::Scale(p) => (own("Scale"), object(p)),
            Self::Kill(p) => (own("Kill"), object(p)),
            Self::Pause => (own("Pause"), None),
            Self::Resume => (own("Resume"), None),
            Self::Reset(p) => (own("Reset"), object(p)),
            Self::Promote => (own("Promote"), None),
            Self::Rollback => (own("Rollback"), None),
            Self::Upgrade => (own("Upgrade"), None),
            Self::Check => (own("Check"), None),
            Self::Subscribe(p) => (own("Subscribe"), object(p)),
            Self::Send(p) => (own("Send"), object(p)),
            Self::Logs(p) => (own("Logs"), object(p)),
        };
        Message { method, parameters }
    }
}

fn object(parameters: &impl Serialize) -> Option<Map<String, Value>> {
    match serde_json::to_value(parameters) {
        Ok(Value::Object(map)) => Some(map),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Call, Error> {
        parse(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn every_call_comes_back_as_it_was() {
        let slot = Some(3);
        let calls = [
            Call::GetInfo,
            Call::GetInterfaceDescription(InterfaceName { interface: INTERFACE.to_owned() }),
            Call::Describe,
            Call::List,
            Call::Show(MaybeSlot { slot }),
            Call::Reload(Reload { no_wait: Some(true), dry_run: None }),
            Call::Restart(MaybeSlot { slot: None }),
            Call::Start(OneSlot { slot: 1 }),
            Call::Stop(OneSlot { slot: 65535 }),
            Call::Scale(Scale { to: None, by: Some(-2) }),
            Call::Kill(Kill { signal: "HUP".to_owned(), slot }),
            Call::Pause,
            Call::Resume,
            Call::Reset(MaybeSlot { slot }),
            Call::Promote,
            Call::Rollback,
            Call::Check,
            Call::Subscribe(Subscribe { messages: Some(true) }),
            Call::Send(Send { slot, message: serde_json::json!(["any", 1, null]) }),
            Call::Logs(Logs { lines: Some(10), slot, follow: Some(true) }),
        ];
        for call in calls {
            let text = serde_json::to_string(&call.message()).unwrap();
            assert_eq!(parsed(&text), Ok(call), "{text}");
            let name = text.split('"').nth(3).unwrap().rsplit('.').next().unwrap().to_owned();
            let described = [DESCRIPTION, SERVICE_DESCRIPTION].concat();
            assert!(described.contains(&format!("method {name}(")), "{name} is not described");
        }
    }

    #[test]
    fn what_is_wrong_with_a_call_is_named() {
        let invalid = |p: &str| Err(Error::InvalidParameter { parameter: p.to_owned() });
        let own = |call: &str| parsed(&format!("{{\"method\":\"org.dogwatch.Control.{call}}}"));
        assert_eq!(own("Stop\""), invalid("slot"));
        assert_eq!(own("Stop\",\"parameters\":{\"slot\":-1}"), invalid("slot"));
        assert_eq!(own("Stop\",\"parameters\":{\"slot\":70000}"), invalid("slot"));
        assert_eq!(own("Stop\",\"parameters\":{\"slot\":1,\"force\":true}"), invalid("force"));
        assert_eq!(own("Scale\",\"parameters\":{\"to\":\"many\"}"), invalid("to"));
        assert_eq!(own("List\",\"parameters\":{\"all\":1}"), invalid("all"));
        let method = "org.dogwatch.Control.Explode".to_owned();
        assert_eq!(own("Explode\""), Err(Error::MethodNotFound { method }));
        let interface = "org.example".to_owned();
        assert_eq!(
            parsed("{\"method\":\"org.example.Do\"}"),
            Err(Error::InterfaceNotFound { interface })
        );
        assert!(parsed("{\"method\":\"\"}").is_err());
    }

    /// Any bytes: a refusal at most, never a panic. Seeded, so that a failure comes again.
    #[test]
    fn any_bytes_are_survived() {
        let good = serde_json::to_vec(
            &Call::Kill(Kill { signal: "TERM".into(), slot: Some(1) }).message(),
        );
        let good = good.unwrap();
        let mut dice = 0x9E37_79B9_7F4A_7C15u64;
        for _ in 0..50_000 {
            let mut bytes = good.clone();
            for _ in 0..1 + dice % 6 {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                let at = usize::try_from(dice % bytes.len() as u64).unwrap();
                match dice >> 60 {
                    0..=9 => bytes[at] = dice.to_le_bytes()[2],
                    10..=12 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, dice.to_le_bytes()[3]),
                }
            }
            if let Ok(message) = serde_json::from_slice::<Message>(&bytes) {
                let _ = parse(message);
            }
        }
    }
}
