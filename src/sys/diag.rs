//! Asking the kernel about sockets over netlink (`sock_diag(7)`), which needs no privilege. What is asked and answered is
//! bytes here; their meaning is the protocol's.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::io;
use std::os::fd::AsRawFd as _;

/// The kernel's answers come in pieces of at most this size (`netlink(7)`).
const PIECE: usize = 32 * 1024;

/// Asks a question and gives each piece of the answer to `read`, until that says it was the last.
///
/// # Errors
/// As socket(2), sendto(2) and recv(2).
pub fn ask(question: &[u8], mut read: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let protocol = SockProtocol::NetlinkSockDiag;
    let socket =
        socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), question, &kernel, MsgFlags::empty())?;
    let mut piece = vec![0; PIECE];
    loop {
        // The kernel answers at once; it is not waited for somebody who never does.
        let length = recv(socket.as_raw_fd(), &mut piece, MsgFlags::MSG_DONTWAIT)?;
        if length == 0 || read(&piece[..length]) {
            return Ok(());
        }
    }
}
