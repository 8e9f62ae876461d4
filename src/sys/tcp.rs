//! What the kernel tells of one TCP socket to whoever holds it.

use nix::errno::Errno;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd as _};

/// `TCP_LISTEN` in `include/net/tcp_states.h`.
const LISTEN: u8 = 10;
/// Segments that are not confirmed; of a listener, connections that are not accepted.
const UNACKED: usize = offset_of!(libc::tcp_info, tcpi_unacked);

/// Whether anybody has read from or written to an accepted connection (`TCP_INFO` in `tcp(7)`, `SIOCINQ` in `tcp(7)` and
/// `unix(7)`). Of other than TCP connections only what waits to be read is known, and they count as unused.
#[must_use]
pub fn was_used(connection: impl AsFd) -> bool {
    let fd = connection.as_fd();
    let (Ok(info), Ok(unread)) = (tcp_info(fd), unread(fd)) else { return false };
    // An end of the stream counts as one byte received, and the handshake's as one sent.
    let unread = u64::from(unread) + 1;
    let long = |at| number(&info, at).map_or(0, u64::from_ne_bytes);
    long(offset_of!(libc::tcp_info, tcpi_bytes_acked)) > 1
        || number(&info, UNACKED).map_or(0, u32::from_ne_bytes) > 0
        || long(offset_of!(libc::tcp_info, tcpi_bytes_received)) > unread
}

/// Returns how many connections wait in a listener's queue (`tcpi_unacked` of a listener's `TCP_INFO`, `tcp_get_info` in the
/// kernel's `net/ipv4/tcp.c`): handshakes that are done and not accepted. 0 for a socket that does not listen.
///
/// # Errors
/// As getsockopt(2); `ENOPROTOOPT` or `EOPNOTSUPP` when it is no TCP socket.
pub fn queue_length(listener: impl AsFd) -> io::Result<u32> {
    let info = tcp_info(listener)?;
    let listens = info.first() == Some(&LISTEN);
    Ok(number(&info, UNACKED).filter(|_| listens).map_or(0, u32::from_ne_bytes))
}

/// The bytes of a number in a struct that a kernel may have written a part of.
fn number<const N: usize>(of: &[u8], at: usize) -> Option<[u8; N]> {
    of.get(at..at + N)?.try_into().ok()
}

/// Returns the struct tcp_info of a socket (`TCP_INFO` in `tcp(7)`) as the kernel wrote it: older ones write less.
///
/// # Errors
/// As getsockopt(2); `ENOPROTOOPT` or `EOPNOTSUPP` when it is no TCP socket.
pub fn tcp_info(socket: impl AsFd) -> io::Result<Vec<u8>> {
    let mut info = vec![0; size_of::<libc::tcp_info>()];
    let mut length = libc::socklen_t::try_from(info.len()).unwrap_or(0);
    let (fd, place) = (socket.as_fd().as_raw_fd(), info.as_mut_ptr().cast());
    // SAFETY: `info` has room for the length that is said, and the kernel writes no more than that.
    let told =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut length) };
    Errno::result(told)?;
    info.truncate(length as usize);
    Ok(info)
}

/// Returns how many bytes came that nobody has read (`SIOCINQ` in `tcp(7)` and `unix(7)`).
///
/// # Errors
/// As ioctl(2); `EINVAL` for a listener.
pub fn unread(socket: impl AsFd) -> io::Result<u32> {
    let mut unread: libc::c_int = 0;
    // SAFETY: writes a number to a valid place.
    let told = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut unread) };
    Errno::result(told)?;
    Ok(u32::try_from(unread).unwrap_or(0))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_queue_has_a_length_and_a_connection_an_account() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(queue_length(&listener).unwrap(), 0);
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(queue_length(&listener).unwrap(), 1);
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!(queue_length(&listener).unwrap(), 0);
        assert!(!was_used(&server));
        io::Write::write_all(&mut client, b"GET").unwrap();
        let mut first = [0; 2];
        io::Read::read_exact(&mut server, &mut first).unwrap();
        assert_eq!(unread(&server).unwrap(), 1);
        assert!(was_used(&server));
        // Established, and no listener: nothing waits here.
        assert_eq!((tcp_info(&server).unwrap()[0], queue_length(&server).unwrap()), (1, 0));
        let other = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert_eq!(queue_length(&other).unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    }

    /// Makes a listener's handshakes wait for data (`TCP_DEFER_ACCEPT` in `tcp(7)`), so that one can be seen under way.
    pub(crate) fn defer_accept(listener: impl AsFd) {
        let (seconds, length) = (5, 4);
        let place = (&raw const seconds).cast();
        let fd = listener.as_fd().as_raw_fd();
        // SAFETY: reads a number of that length.
        let set = unsafe {
            libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, place, length)
        };
        assert_eq!(set, 0);
    }
}
