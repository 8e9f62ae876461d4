//! The variables that PM2 would set, and the port that they tell.

use super::attributes::{App, not_data, scalar};
use super::command::Runs;
use crate::cli::draft::{Draft, Table};
use crate::cli::trouble::Unusable;
use crate::config::values::{for_slot, is_variable_name};
use serde_json::{Map, Value};
use std::net::{IpAddr, SocketAddr};

/// Variables by which programs are told on which address to listen.
const HOSTS: [&str; 2] = ["HOST", "HOSTNAME"];

/// Writes `[env]`, as PM2 merges it for `--env NAME`, and `listen`.
///
/// # Errors
/// When an attribute is of the wrong kind.
pub(super) fn environment(
    app: &mut App,
    environment: Option<&str>,
    deployed: Option<&Map<String, Value>>,
    draft: &mut Draft,
) -> Result<(), Unusable> {
    let mut variables = Map::new();
    variables.extend(deployed.into_iter().flatten().map(own));
    let plain = app.take("env");
    variables.extend(plain.as_ref().and_then(Value::as_object).into_iter().flatten().map(own));
    let chosen = environment.and_then(|name| app.environments.remove(name));
    if let Some(name) = environment.filter(|_| chosen.is_none() && deployed.is_none()) {
        draft.remark(&format!("env_{name}"), "this app has none");
    }
    variables.extend(chosen.unwrap_or_default());
    if let Some(port) = app.take("port") {
        variables.insert("PORT".to_owned(), port);
    }
    for (name, value) in &variables {
        variable(name, value, draft);
    }
    for name in app.environments.keys() {
        let text = format!("is for 'dogwatch import --env {name}'");
        draft.remark(&format!("env_{name}"), text);
    }
    Ok(())
}

fn own((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

/// Writes one variable, if it can be one.
fn variable(name: &str, value: &Value, draft: &mut Draft) {
    let attribute = format!("env.{name}");
    if let Some(what) = not_data(value).or_else(|| value.is_null().then_some("null")) {
        return draft.remark(&attribute, format!("it is {what}, and left out"));
    }
    // What has parts is JSON there, as PM2 makes it.
    let text = scalar(value).unwrap_or_else(|| value.to_string());
    if !is_variable_name(name) {
        return draft.remark(&attribute, "cannot be the name of a variable, and is left out");
    }
    if text.contains('\0') {
        return draft.remark(&attribute, "has a zero byte, and is left out");
    }
    if for_slot(&text, 0) != text {
        let text = "dogwatch puts the slot's number where '{slot}' stands";
        draft.remark_at(Table::Env, name, &attribute, text);
    }
    draft.set(Table::Env, name, text);
}

/// Writes the variables that differ from one instance to the next.
pub(super) fn numbered(app: &mut App, runs: Runs, is_alone: bool, draft: &mut Draft) {
    let counter = app.text("increment_var");
    if let Some(name) = counter {
        count(&name, draft);
    }
    const USUAL: &str = "NODE_APP_INSTANCE";
    let named = app.text("instance_var");
    match named.as_deref() {
        // The handoff sets it.
        Some(USUAL) if runs.has_channel() => draft.anyway("instance_var = NODE_APP_INSTANCE"),
        None if runs.has_channel() || is_alone => {}
        Some(name) if !is_variable_name(name) => {
            draft.remark("instance_var", format!("'{name}' cannot be the name of a variable"));
        }
        name => {
            let name = name.unwrap_or(USUAL);
            if named.is_some() || draft.get(Table::Env, name).is_none() {
                draft.set(Table::Env, name, "{slot}");
            }
        }
    }
}

/// A variable that counts up from its value.
fn count(name: &str, draft: &mut Draft) {
    if !is_variable_name(name) {
        return draft.remark("increment_var", format!("'{name}' cannot be the name of a variable"));
    }
    let first = draft.get(Table::Env, name).and_then(toml::Value::as_str).unwrap_or("0");
    match first.trim().parse::<u32>() {
        Ok(0) => draft.set(Table::Env, name, "{slot}"),
        Ok(first) => draft.set(Table::Env, name, format!("{{slot+{first}}}")),
        Err(_) => {
            let text = format!("'{name}' is not a number to count from");
            return draft.remark("increment_var", text);
        }
    }
    if name == "PORT" {
        let text = "each worker has a port of its own, so one .socket unit cannot hold them; on one port they would share it";
        draft.remark_at(Table::Env, "PORT", "increment_var", text);
    }
}

/// Writes `listen`, where the variables tell the port that the instances share. A program on the channel is given what it
/// asks for, on the address and with the further ports that it had under PM2, so there it is only a proposal: where a
/// listener is named it is given no other.
pub(super) fn listen(runs: Runs, draft: &mut Draft) {
    let address = shared_address(draft);
    if let (Runs::Shell | Runs::Other, Some(address)) = (runs, &address) {
        return draft.set(Table::Top, "listen", vec![address.clone()]);
    }
    let what = match runs {
        Runs::Node | Runs::Deno => "it is given what it asks for, but",
        Runs::Bun | Runs::Shell | Runs::Other => "none is named:",
    };
    let mut text = format!("{what} without 'listen' systemd gets no units of this file");
    if runs != Runs::Bun {
        let example = address.as_deref().unwrap_or("8080");
        let text_of = format!("; name all its ports, as in listen = [\"{example}\"]");
        text.push_str(&text_of);
    }
    draft.remark_at(Table::Top, "handoff", "listen", text);
}

/// Where the instances listen, as far as PORT and HOST say it.
fn shared_address(draft: &Draft) -> Option<String> {
    let variable =
        |name: &str| draft.get(Table::Env, name).and_then(toml::Value::as_str).unwrap_or_default();
    let port = variable("PORT").trim();
    if port.starts_with('/') {
        return Some(format!("unix:{port}"));
    }
    let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
    let host = HOSTS.iter().find_map(|name| match variable(name) {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        text => text.parse().ok(),
    });
    Some(match host.filter(|host| !host.is_unspecified()) {
        Some(host) => SocketAddr::new(host, port).to_string(),
        None => port.to_string(),
    })
}
