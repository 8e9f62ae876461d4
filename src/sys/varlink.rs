//! What carries Varlink messages: both ends of the control socket are zlink-core connections over this stream.
//!
//! zlink's own tokio transport takes the file descriptors that come with a message, and reads messages of up to 100 MB.
//! Who may connect is not who may be trusted, so here descriptors are left to the kernel, which closes them (a read(2)
//! takes none), and a message has a limit.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::UnixStream;
use zlink_core::connection::PassedCredentials;
use zlink_core::connection::socket::{ReadHalf, ReadResult, Socket, WriteHalf};
use zlink_core::{Connection, Error, Result};

/// Returns a connection that refuses messages of more than `limit` bytes.
#[must_use]
pub fn connection(stream: UnixStream, limit: usize) -> Connection<Stream> {
    Connection::new(Stream { socket: stream, limit })
}

/// One end of a control socket.
#[derive(Debug)]
pub struct Stream {
    socket: UnixStream,
    limit: usize,
}

impl Socket for Stream {
    type ReadHalf = Reading;
    type WriteHalf = Writing;

    fn split(self) -> (Reading, Writing) {
        let socket = Arc::new(self.socket);
        (Reading { socket: socket.clone(), limit: self.limit, unfinished: 0 }, Writing { socket })
    }
}

/// The half that reads.
#[derive(Debug)]
pub struct Reading {
    socket: Arc<UnixStream>,
    limit: usize,
    /// Bytes of a message whose end was not read yet.
    unfinished: usize,
}

impl ReadHalf for Reading {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<ReadResult> {
        let length = loop {
            self.socket.readable().await?;
            match self.socket.try_read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => break result?,
            }
        };
        self.unfinished = match buffer[..length].iter().rposition(|byte| *byte == 0) {
            Some(end) => length - end - 1,
            None => self.unfinished + length,
        };
        if self.unfinished > self.limit {
            return Err(Error::BufferOverflow);
        }
        Ok(ReadResult::new(length))
    }
}

/// The half that writes.
#[derive(Debug)]
pub struct Writing {
    socket: Arc<UnixStream>,
}

impl WriteHalf for Writing {
    async fn write(
        &mut self,
        mut bytes: &[u8],
        _: &[impl AsFd],
        _: Option<&PassedCredentials>,
    ) -> Result<()> {
        while !bytes.is_empty() {
            self.socket.ready(Interest::WRITABLE).await?;
            match self.socket.try_write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}
