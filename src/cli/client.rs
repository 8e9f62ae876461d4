//! One connection to a primary, as the verbs use it: ask, and get a value or a [`Trouble`].

use super::trouble::{Code, Trouble};
use crate::protocol::control::{Call, Error, Message, Primary};
use crate::sys::varlink::{Stream, connection};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use zlink_core::Connection;

/// A primary answers at once, or something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(5);
/// An answer is never longer: ten thousand slots take a tenth of it.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// A connection to the primary of an app.
pub(super) struct Client {
    runtime: Runtime,
    connection: Connection<Stream>,
    /// The same socket once more, to hang up while an answer is waited for.
    socket: UnixStream,
    /// Who answers.
    pub(super) primary: Primary,
}

impl Client {
    /// Connects to a control socket.
    ///
    /// # Errors
    /// As connect(2).
    pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
        let stream = UnixStream::from(crate::sys::socket::connect_unix(path)?);
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Asks who answers on a connection that was made to reach `app`.
    pub(super) fn begin(stream: UnixStream, app: &str) -> Result<Self, Trouble> {
        let cannot =
            |e: io::Error| Trouble::new(Code::Failed, format!("cannot reach '{app}': {e}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(cannot)?;
        let socket = stream.try_clone().map_err(cannot)?;
        let entered = runtime.enter();
        let stream = tokio::net::UnixStream::from_std(stream).map_err(cannot)?;
        drop(entered);
        let nobody = Primary {
            name: app.to_owned(),
            version: String::new(),
            pid: 0,
            primaries: 0,
            unit: None,
            config: None,
            log: String::new(),
            listeners: vec![],
        };
        let connection = connection(stream, MAX_ANSWER);
        let mut client = Self { runtime, connection, socket, primary: nobody };
        client.primary = client.ask(&Call::Describe, "reach")?;
        Ok(client)
    }

    /// Asks for one value. `what` fits after "cannot" in a message.
    pub(super) fn ask<T>(&mut self, call: &Call, what: &str) -> Result<T, Trouble>
    where
        T: DeserializeOwned + Debug,
    {
        self.send(call, false, what)?;
        self.receive::<T>(Some(PATIENCE), what).map(|(value, _)| value)
    }

    /// Asks for values one after the other, until `each` has enough; returns the last one if there is an end.
    pub(super) fn follow<T>(
        &mut self,
        call: &Call,
        what: &str,
        mut each: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<Option<T>, Trouble>
    where
        T: DeserializeOwned + Debug,
    {
        self.send(call, true, what)?;
        loop {
            match self.receive::<T>(None, what)? {
                (last, false) => return Ok(Some(last)),
                (value, true) => {
                    if each(value).is_break() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Returns the socket; to shut it down ends the wait for an answer elsewhere.
    pub(super) fn socket(&self) -> io::Result<UnixStream> {
        self.socket.try_clone()
    }

    /// Sends a call; `more` wants many answers.
    pub(super) fn send(&mut self, call: &Call, more: bool, what: &str) -> Result<(), Trouble> {
        let call: zlink_core::Call<Message> = zlink_core::Call::new(call.message()).set_more(more);
        let write = self.connection.write_mut();
        let sent = self
            .runtime
            .block_on(async { timeout(PATIENCE, write.send_call(&call, vec![])).await });
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.broken(&error, what)),
            Err(_) => Err(self.silent(what)),
        }
    }

    /// Waits for an answer, and says whether more follow.
    pub(super) fn receive<T>(
        &mut self,
        patience: Option<Duration>,
        what: &str,
    ) -> Result<(T, bool), Trouble>
    where
        T: DeserializeOwned + Debug,
    {
        self.receive_within(patience, what)?.ok_or_else(|| self.silent(what))
    }

    /// The same, and nothing when the time has passed.
    pub(super) fn receive_within<T>(
        &mut self,
        patience: Option<Duration>,
        what: &str,
    ) -> Result<Option<(T, bool)>, Trouble>
    where
        T: DeserializeOwned + Debug,
    {
        let read = self.connection.read_mut();
        let received = self.runtime.block_on(async {
            let receive = read.receive_reply::<T, Error>();
            match patience {
                Some(patience) => timeout(patience, receive).await,
                None => Ok(receive.await),
            }
        });
        match received {
            Err(_) => Ok(None),
            Ok(Err(error)) => Err(self.broken(&error, what)),
            Ok(Ok((Err(error), _))) => Err(Trouble::answered(error, what, &self.primary.name)),
            Ok(Ok((Ok(reply), _))) => {
                let more = reply.continues() == Some(true);
                match reply.into_parameters() {
                    Some(value) => Ok(Some((value, more))),
                    None => Err(self.broken(&zlink_core::Error::MissingParameters, what)),
                }
            }
        }
    }

    fn silent(&self, what: &str) -> Trouble {
        let app = &self.primary.name;
        let seconds = PATIENCE.as_secs();
        let text = format!("cannot {what} '{app}': its primary has not answered for {seconds}s");
        Trouble::new(Code::Failed, text)
    }

    /// The connection has ended, or what came makes no sense: perhaps the primary is of another version.
    fn broken(&self, error: &zlink_core::Error, what: &str) -> Trouble {
        let app = &self.primary.name;
        let ours = env!("CARGO_PKG_VERSION");
        let theirs = &self.primary.version;
        let other = !theirs.is_empty() && theirs != ours;
        let trouble = match service_error(error) {
            Some(known) => Trouble::answered(known, what, app),
            None if matches!(
                error,
                zlink_core::Error::UnexpectedEof | zlink_core::Error::Io(_)
            ) =>
            {
                Trouble::new(
                    Code::Failed,
                    format!("cannot {what} '{app}': its primary has closed the connection"),
                )
            }
            None => Trouble::new(
                Code::Failed,
                format!("cannot {what} '{app}': its answer makes no sense: {error}"),
            ),
        };
        if other {
            return trouble.hint(format!(
                "the primary is dogwatch {theirs} and this is {ours}; 'dogwatch upgrade {app}' runs the new one"
            ));
        }
        trouble
    }
}

/// An error of the interface that every service has, which zlink tells from those of ours.
fn service_error(error: &zlink_core::Error) -> Option<Error> {
    use zlink_core::varlink_service::Error as Service;
    let zlink_core::Error::VarlinkService(service) = error else {
        return None;
    };
    if let Service::InvalidParameter { parameter } = service.inner() {
        Some(Error::InvalidParameter { parameter: parameter.to_string() })
    } else if let Service::MethodNotFound { method } = service.inner() {
        Some(Error::MethodNotFound { method: method.to_string() })
    } else if matches!(service.inner(), Service::PermissionDenied) {
        Some(Error::PermissionDenied {})
    } else {
        None
    }
}
