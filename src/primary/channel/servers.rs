//! The programs' servers: `listen()` asks for a socket and is given one, or an errno; then the server listens, and is
//! closed one day.

use super::super::News;
use super::super::listeners::{open_place, who_has_it};
use super::hub::{Hub, Socket};
use super::link::{Handle, Link, Server};
use super::place::{self, Local};
use crate::config::values::{Balance, ReadyWhen};
use crate::core::{Event, Evidence, WorkerId};
use crate::protocol::node::{self, Given, Place, Query};
use crate::sys::socket;
use std::io;

/// So many servers may one worker have.
const MAX_SERVERS: usize = 256;
/// So many sockets are opened for programs that ask for them.
pub(super) const MAX_OPENED: usize = 64;

impl Hub {
    /// A program calls `listen()`: it is given a listener of ours, or an errno.
    pub(super) fn on_query(&mut self, worker: WorkerId, query: &Query) {
        match self.find_or_open(worker, query) {
            Ok(at) => self.give(worker, query, at),
            Err(refused) => {
                let Some(link) = self.links.get_mut(&worker) else { return };
                let number = link.number();
                link.say(node::refuse(number, query.seq, refused.errno).into(), None);
                let place = query.place.as_ref().map_or("somewhere".to_owned(), Place::to_string);
                let text = format!(
                    "cannot give worker {worker} a listener on '{place}': {}; it is told so",
                    refused.why
                );
                self.tell_trouble(worker, text, refused.hint);
            }
        }
    }

    fn give(&mut self, worker: WorkerId, query: &Query, at: usize) {
        let (Some(link), Some(place)) = (self.links.get_mut(&worker), query.place.clone()) else {
            return;
        };
        let number = link.number();
        let socket = &mut self.sockets[at];
        let key = format!("{at}:{}", query.seq);
        // TLS sessions begun with one worker are resumed with another, now and after reloads.
        let data = match &query.data {
            Some(own) if node::is_ticket_keys(own) => {
                Some(&*socket.data.get_or_insert_with(|| own.clone()))
            }
            own => own.as_ref(),
        };
        let is_dealt =
            !socket.is_datagram && matches!(link.terms.balance, Balance::RoundRobin { .. });
        let given = match &socket.local {
            Local::Tcp(address) if is_dealt => Given::Connections(Some(*address)),
            _ if is_dealt => Given::Connections(None),
            _ if socket.is_datagram => Given::Datagram,
            Local::Tcp(_) | Local::Udp(_) | Local::Unix(_) | Local::Other => Given::Stream,
        };
        // Where workers are steered it is the socket of its lane.
        let own = link.sockets.get(at).cloned().flatten();
        let with = (!is_dealt).then(|| own.unwrap_or_else(|| socket.fd.clone()));
        if let Some(fd) = &with {
            // Node does not set it, and hangs in accept without.
            let _ = socket::set_nonblocking(fd, true);
            link.handles.push_back(Handle::Listener { query: query.seq });
        }
        link.say(node::give(number, query.seq, &key, data, given).into(), with);
        // Where we die before the question is taken from the channel, it is heard again.
        link.servers.retain(|server| server.key != key);
        link.servers.push(Server { key, socket: at, place, is_dealt, is_listening: false });
        self.changed = true;
    }

    fn find_or_open(&mut self, worker: WorkerId, query: &Query) -> Result<usize, Refused> {
        let Some(place) = &query.place else {
            return Err(Refused::new(libc::EINVAL, "the question makes no sense"));
        };
        let servers = self.links.get(&worker).map_or(&[][..], |link| &link.servers);
        if servers.len() >= MAX_SERVERS {
            let text = format!("it has {MAX_SERVERS} servers already");
            return Err(Refused::new(libc::EMFILE, &text));
        }
        let any_port = matches!(place, Place::Tcp { port: 0, .. } | Place::Udp { port: 0, .. });
        if query.index > 0 && !any_port {
            let text = "another server of the same worker has it";
            return Err(Refused::new(libc::EADDRINUSE, text));
        }
        // Datagram sockets of one worker are told apart by nobody else.
        let index = match place {
            Place::Udp { port: 0, .. } => servers.iter().filter(|s| s.place == *place).count(),
            Place::Tcp { .. } | Place::Udp { .. } | Place::Path(_) | Place::Fd(_) => {
                usize::try_from(query.index).unwrap_or(0)
            }
        };
        let asked = (place.clone(), u32::try_from(index).unwrap_or(u32::MAX));
        if let Some(at) = self.known(place, &asked) {
            return Ok(at);
        }
        if matches!(place, Place::Fd(_)) {
            let text = format!(
                "it means the sockets that are passed, of which there are {}",
                self.managed
            );
            return Err(Refused::new(libc::EBADF, &text));
        }
        if !any_port && self.managed > 0 {
            return Err(Refused::unknown(place));
        }
        self.open(place, query.only_v6, asked)
    }

    /// The socket that a place means, if there is one already.
    fn known(&self, place: &Place, asked: &(Place, u32)) -> Option<usize> {
        let passed = matches!(place, Place::Fd(_)).then_some(self.managed);
        let sockets = &self.sockets[..passed.unwrap_or(self.sockets.len())];
        let locals: Vec<Local> = sockets.iter().map(|socket| socket.local.clone()).collect();
        let is_asked = |socket: &Socket| socket.asked.as_ref() == Some(asked);
        place::find(&locals, place).or_else(|| self.sockets.iter().position(is_asked))
    }

    /// Opens a socket for a program; where there are too many, one that nobody serves gives way.
    fn open(
        &mut self,
        place: &Place,
        only_v6: bool,
        asked: (Place, u32),
    ) -> Result<usize, Refused> {
        let in_use = |at: usize| {
            self.links.values().any(|link| link.servers.iter().any(|server| server.socket == at))
        };
        let is_full = self.sockets.len() - self.managed >= MAX_OPENED;
        let may_go = |at: &usize| (is_full || self.sockets[*at].asked.is_none()) && !in_use(*at);
        let given_up = (self.managed..self.sockets.len()).find(may_go);
        if is_full && given_up.is_none() {
            let text = format!("{MAX_OPENED} were opened already, and all are served");
            return Err(Refused::new(libc::EMFILE, &text));
        }
        let opened = open_place(place, only_v6).and_then(|fd| Socket::new(fd, Some(asked)));
        self.changed = true;
        let socket = opened.map_err(|e| Refused {
            hint: (e.kind() == io::ErrorKind::AddrInUse).then(|| who_has_it().to_owned()),
            ..Refused::new(e.raw_os_error().unwrap_or(libc::EINVAL), &e.to_string())
        })?;
        let fd = socket.fd.clone();
        let at = given_up.unwrap_or(self.sockets.len());
        match self.sockets.get_mut(at) {
            Some(place) => *place = socket,
            None => self.sockets.push(socket),
        }
        self.outbox.push(News::Opened { at, fd });
        Ok(at)
    }

    /// Closes what was opened on demand and nobody serves any more: who connects there is refused, not kept waiting. A port
    /// that was left open to us is kept. Returns the addresses.
    pub(super) fn close_unserved(&mut self) -> Vec<(usize, String)> {
        let mut closed = vec![];
        for at in self.managed..self.sockets.len() {
            let served = |link: &Link| link.servers.iter().any(|server| server.socket == at);
            let is_served = self.links.values().any(served);
            let socket = &mut self.sockets[at];
            let any_port = matches!(
                socket.asked,
                Some((Place::Tcp { port: 0, .. } | Place::Udp { port: 0, .. }, _)) | None
            );
            if is_served || any_port {
                continue;
            }
            closed.push((at, socket::local_address(&socket.fd)));
            if let Local::Unix(path) = &socket.local {
                let _ = std::fs::remove_file(path);
            }
            // The place in the list stays, for the next one.
            let _ = socket::close_down(&socket.fd);
            (socket.asked, socket.local) = (None, Local::Other);
            self.changed = true;
        }
        closed
    }

    pub(super) fn on_listening(&mut self, worker: WorkerId, place: &Place) {
        let Some(link) = self.links.get_mut(&worker) else { return };
        let asked = |s: &&mut Server| !s.is_listening && place.answers(&s.place);
        let Some(server) = link.servers.iter_mut().find(asked) else { return };
        server.is_listening = true;
        self.changed = true;
        let at = server.socket;
        let socket = &self.sockets[at];
        if !server.is_dealt && !socket.is_datagram {
            // It has called listen(2) on it, with a backlog of its own, and the queue is everybody's.
            let own = link.sockets.get(at).cloned().flatten();
            let _ = socket::listen_again(own.as_ref().unwrap_or(&socket.fd));
        }
        // Where the app's listeners are known, a socket for the program's own purposes is no evidence that it serves.
        let is_apps = at < self.managed || self.managed == 0;
        if is_apps && matches!(link.terms.ready, ReadyWhen::Listening | ReadyWhen::Auto) {
            self.is_shown(worker, Evidence::Listening);
        }
        self.join(worker, at);
    }

    /// A worker has shown that it is ready. That is kept until the core has heard it, whoever tells it.
    pub(super) fn is_shown(&mut self, worker: WorkerId, evidence: Evidence) {
        if let Some(link) = self.links.get_mut(&worker) {
            link.evidence = Some(evidence);
            self.changed = true;
            self.outbox.push(News::Event(Event::Ready { worker, evidence }));
        }
    }

    pub(super) fn on_close(&mut self, worker: WorkerId, key: &str) {
        let Some(link) = self.links.get_mut(&worker) else { return };
        let Some(at) = link.servers.iter().position(|server| server.key == key) else { return };
        let server = link.servers.remove(at);
        self.changed = true;
        if link.serves(server.socket).is_none() {
            self.sockets[server.socket].leave(worker);
        }
    }
}

/// Whether a connection with this address of ours was accepted at a socket.
pub(super) fn serves_there(socket: &Socket, local: &Local) -> bool {
    match (&socket.local, local) {
        (Local::Tcp(listener), Local::Tcp(own)) => {
            let everywhere = listener.ip().is_unspecified();
            listener.port() == own.port()
                && (everywhere || listener.ip() == own.ip().to_canonical())
        }
        (Local::Unix(listener), Local::Unix(own)) => listener == own,
        (Local::Tcp(_) | Local::Udp(_) | Local::Unix(_) | Local::Other, _) => false,
    }
}

/// Why a program is not given a listener.
struct Refused {
    errno: i32,
    why: String,
    hint: Option<String>,
}

impl Refused {
    fn new(errno: i32, why: &str) -> Self {
        Self { errno, why: why.to_owned(), hint: None }
    }

    fn unknown(place: &Place) -> Self {
        let hint = match place {
            Place::Tcp { port, .. } => format!(
                "let it listen where the app does (PORT=… if it reads that), or add \"{port}\" to listen, or ListenStream={port} to the socket unit"
            ),
            Place::Udp { port, .. } => {
                format!("add \"udp:{port}\" to listen, or ListenDatagram={port} to the socket unit")
            }
            Place::Path(_) | Place::Fd(_) => format!(
                "add \"unix:{place}\" to listen, or ListenStream={place} to the socket unit"
            ),
        };
        let why = "it is none of the app's listeners";
        Self { hint: Some(hint), ..Self::new(libc::EADDRNOTAVAIL, why) }
    }
}
