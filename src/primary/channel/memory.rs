//! What is written down about the channels at every change, so that the next primary goes on talking where this one
//! stopped: a program of Node's ends when its channel closes.

use super::hub::{Hub, Socket};
use super::link::{Link, Server, Stage};
use crate::core::{Evidence, WorkerId};
use crate::protocol::node::Place;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// The numbers of messages begin here in each primary, so that a late answer to the last one is nobody's. JavaScript
/// counts up to 2^53.
pub(super) const NUMBERS: u32 = 32;
const PRIMARIES: u32 = 1 << 20;

/// All of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in super::super) struct Memory {
    #[serde(default)]
    sockets: BTreeMap<usize, KnownSocket>,
    #[serde(default)]
    links: BTreeMap<WorkerId, KnownLink>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct KnownSocket {
    asked: Option<(Place, u32)>,
    data: Option<serde_json::Value>,
}

/// What is known of a channel.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KnownLink {
    stage: Stage,
    inode: u64,
    is_told: bool,
    is_marked: bool,
    #[serde(default)]
    evidence: Option<Evidence>,
    /// The beginning of a line, where the last primary has passed it on.
    #[serde(default)]
    rest: Vec<u8>,
    servers: Vec<Server>,
}

/// The same, as it is written.
#[derive(Serialize)]
struct Writing<'a> {
    sockets: BTreeMap<usize, WritingSocket<'a>>,
    links: BTreeMap<WorkerId, WritingLink<'a>>,
}

#[derive(Serialize)]
struct WritingSocket<'a> {
    asked: &'a Option<(Place, u32)>,
    data: &'a Option<serde_json::Value>,
}

#[derive(Serialize)]
struct WritingLink<'a> {
    stage: Stage,
    inode: u64,
    is_told: bool,
    is_marked: bool,
    evidence: Option<Evidence>,
    rest: &'a [u8],
    servers: &'a [Server],
}

impl Memory {
    /// Reads what was written.
    ///
    /// # Errors
    /// What makes no sense, in words.
    pub(in super::super) fn read(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(text).map_err(|e| e.to_string())
    }
}

impl Hub {
    /// Writes down what has changed. What cannot be written is not missed before this primary dies.
    pub(super) fn keep(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let socket = |s: &'_ Socket| s.asked.is_some() || s.data.is_some();
        let known = self.sockets.iter().enumerate().filter(|(_, s)| socket(s));
        let keeps_rest = self.keeps_rest;
        let links = self.links.iter().map(|(id, link)| {
            let Link { stage, inode, is_told, is_marked, evidence, servers, .. } = link;
            let (stage, inode, evidence) = (*stage, *inode, *evidence);
            let (is_told, is_marked) = (*is_told, *is_marked);
            let rest = if keeps_rest { link.lines.rest() } else { &[] };
            (*id, WritingLink { stage, inode, is_told, is_marked, evidence, rest, servers })
        });
        let written = serde_json::to_vec(&Writing {
            sockets: known
                .map(|(at, s)| (at, WritingSocket { asked: &s.asked, data: &s.data }))
                .collect(),
            links: links.collect(),
        });
        if let (Ok(text), Some(notebook)) = (written, &mut self.notebook) {
            let _ = notebook.write(&text);
        }
    }

    /// Takes back the sockets that had been opened on demand. Where a descriptor did not come back, the place is opened
    /// again if somebody asks.
    pub(super) fn recall(
        &mut self,
        memory: Memory,
        mut opened: BTreeMap<usize, OwnedFd>,
        primaries: u32,
    ) {
        self.numbers = u64::from(primaries % PRIMARIES) << NUMBERS;
        let last = memory.sockets.keys().chain(opened.keys()).max().copied().unwrap_or(0);
        let mut sockets = memory.sockets;
        // More were never opened; whoever says so did not write this.
        for at in 0..=last.min(self.managed + super::servers::MAX_OPENED) {
            let known = sockets.remove(&at).unwrap_or_default();
            if at >= self.managed {
                let socket = opened.remove(&at).and_then(|fd| Socket::new(fd, known.asked).ok());
                let socket = socket.filter(Socket::is_open);
                // Without, a place in the list for the next one, as the others are known by theirs.
                match socket.map_or_else(Socket::closed, Ok) {
                    Ok(socket) => self.sockets.push(socket),
                    Err(_) => break,
                }
            }
            self.sockets[at].data = known.data;
        }
        self.known = memory.links;
        self.changed = true;
    }

    /// Goes on with a channel as it was. What it had been given or told, and not answered, was answered to nobody.
    pub(super) fn resume(&mut self, mut link: Link) {
        if let Some(known) = self.known.remove(&link.who.worker) {
            let stage = known.stage;
            link.evidence = known.evidence;
            link.lines.push(&known.rest);
            (link.inode, link.is_marked, link.is_told) =
                (known.inode, known.is_marked, known.is_told);
            // One that we have told to leave may have to be told again: it is withdrawn once more.
            link.stage =
                if stage == Stage::Leaving && !known.is_told { Stage::Online } else { stage };
            link.servers =
                known.servers.into_iter().filter(|s| s.socket < self.sockets.len()).collect();
        }
        self.links.insert(link.who.worker, link);
        self.changed = true;
    }
}
