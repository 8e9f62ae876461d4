//! A client of the control socket that can do what ours does not: send any bytes, read as it pleases.

use crate::support::PATIENCE;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A raw connection.
pub(crate) struct Raw {
    pub(crate) stream: UnixStream,
    unread: Vec<u8>,
}

impl Raw {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, unread: vec![] }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Calls a method of our interface; `flags` are `more` and the like.
    pub(crate) fn call(&mut self, method: &str, parameters: Value, flags: &[&str]) {
        let full = if method.contains('.') {
            method.to_owned()
        } else {
            format!("org.dogwatch.Control.{method}")
        };
        let mut message = json!({ "method": full, "parameters": parameters });
        for flag in flags {
            message[flag] = true.into();
        }
        self.send(format!("{message}\0").as_bytes()).unwrap();
    }

    /// Returns the next message; `None` when the other end has closed.
    pub(crate) fn receive(&mut self) -> Option<Value> {
        let mut buffer = [0; 65536];
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = self.unread.drain(..=end).collect();
                return Some(serde_json::from_slice(&message[..end]).unwrap());
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(length) => self.unread.extend_from_slice(&buffer[..length]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("nothing came: {e}"),
            }
        }
    }

    /// Calls, and returns all replies, the last one included.
    pub(crate) fn ask(&mut self, method: &str, parameters: Value, flags: &[&str]) -> Vec<Value> {
        self.call(method, parameters, flags);
        let mut replies = vec![];
        loop {
            let reply = self.receive().expect("an answer");
            let last = reply["continues"] != true;
            replies.push(reply);
            if last {
                return replies;
            }
        }
    }
}
