//! Being told that something came to any of many sockets, once each (`EPOLLONESHOT` in `epoll_ctl(2)`). tokio would be
//! woken by every connection, which is for those who accept them.

use super::socket;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How many sockets are heard with one call.
const AT_ONCE: usize = 64;

/// An epoll set in tokio's own: it is readable when one of its sockets is that was armed.
#[derive(Debug)]
pub struct Bell {
    set: Epoll,
    /// The same, as tokio takes it.
    watched: AsyncFd<OwnedFd>,
}

impl Bell {
    /// Returns a bell without sockets.
    ///
    /// # Errors
    /// As epoll_create1(2) and epoll_ctl(2).
    pub fn new() -> io::Result<Self> {
        let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let watched = socket::watch(set.0.try_clone()?, Interest::READABLE)?;
        Ok(Self { set, watched })
    }

    /// It rings once something waits at this socket, which may be now already.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn arm(&self, socket: impl AsFd) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
        let number = u64::try_from(socket.as_fd().as_raw_fd()).unwrap_or(0);
        let mut event = EpollEvent::new(flags, number);
        match self.set.modify(&socket, &mut event) {
            Err(nix::errno::Errno::ENOENT) => Ok(self.set.add(&socket, event)?),
            done => Ok(done?),
        }
    }

    /// Waits until it rings. What has rung is silent until it is armed again.
    ///
    /// # Errors
    /// As epoll_wait(2).
    pub async fn rung(&self) -> io::Result<()> {
        loop {
            let mut guard = self.watched.readable().await?;
            if self.hear()? > 0 {
                return Ok(());
            }
            guard.clear_ready();
        }
    }

    /// Takes note of what has rung meanwhile. A socket that rings and is not heard goes on ringing, and wakes tokio for
    /// each connection that comes to it.
    ///
    /// # Errors
    /// As epoll_wait(2).
    pub fn hush(&self) -> io::Result<()> {
        while self.hear()? == AT_ONCE {}
        Ok(())
    }

    fn hear(&self) -> io::Result<usize> {
        let mut events = [EpollEvent::empty(); AT_ONCE];
        Ok(self.set.wait(&mut events, EpollTimeout::ZERO)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    #[tokio::test]
    async fn it_rings_once_for_each_time_that_it_was_armed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bell = Bell::new().unwrap();
        bell.arm(&listener).unwrap();
        let is_silent =
            async || tokio::time::timeout(Duration::from_millis(20), bell.rung()).await.is_err();
        assert!(is_silent().await);
        let _first = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        bell.rung().await.unwrap();
        let _second = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(is_silent().await);
        // What waits already counts.
        bell.arm(&listener).unwrap();
        bell.rung().await.unwrap();
        listener.accept().unwrap();
        listener.accept().unwrap();
        bell.arm(&listener).unwrap();
        assert!(is_silent().await);
        // What was hushed has to be armed again.
        let third = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        bell.hush().unwrap();
        assert!(is_silent().await);
        bell.arm(&listener).unwrap();
        bell.rung().await.unwrap();
        drop(third);
    }
}
