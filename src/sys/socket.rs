//! Sockets: listening, and receiving a datagram with its sender's credentials.

use listenfd::ListenFd;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag,
    SockType, SockaddrStorage, UnixAddr, accept4, bind, connect, getpeername, getsockname, listen,
    recv, recvmsg, sendmsg, setsockopt, shutdown, socket, sockopt,
};
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// As many connections as the kernel lets wait: listen(2) clamps it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Whether a socket shares its address with others (`SO_REUSEPORT` in `socket(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// It has the address alone.
    Own,
    /// Others of the same user may be bound there too, and the kernel picks one for each connection.
    Reused,
}

/// Returns a listening TCP socket. `dual` wants IPv4 clients on an IPv6 address too; a machine without IPv6 gets the
/// IPv4 address instead.
///
/// # Errors
/// As socket(2), bind(2) and listen(2).
pub fn listen_tcp(address: SocketAddr, dual: bool, port: Port) -> io::Result<OwnedFd> {
    match open(SockType::Stream, address, dual, port) {
        Err(e) if dual && e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
            open(SockType::Stream, address, false, port)
        }
        result => result,
    }
}

/// Returns a bound UDP socket.
///
/// # Errors
/// As socket(2) and bind(2).
pub fn bind_udp(address: SocketAddr, port: Port) -> io::Result<OwnedFd> {
    open(SockType::Datagram, address, false, port)
}

/// Returns a socket like this one at the same address: of its type, family and `IPV6_V6ONLY`, and listening if it is of
/// streams. Both share the address (`SO_REUSEPORT` in `socket(7)`).
///
/// # Errors
/// As socket(2), bind(2) and listen(2); `EADDRINUSE` when the socket does not share its address or is another user's, and
/// `EOPNOTSUPP` when it has no such address.
pub fn join(like: impl AsFd) -> io::Result<OwnedFd> {
    let address = own_address(&like)?.ok_or(Errno::EOPNOTSUPP)?;
    let kind = nix::sys::socket::getsockopt(&like, sockopt::SockType)?;
    let dual = address.is_ipv6() && !nix::sys::socket::getsockopt(&like, sockopt::Ipv6V6Only)?;
    open(kind, address, dual, Port::Reused)
}

/// Looks whether anybody is bound to an address, even somebody who would share it.
///
/// # Errors
/// `EADDRINUSE` when somebody is; else as socket(2) and bind(2).
pub fn refuse_taken(address: SocketAddr, is_stream: bool) -> io::Result<()> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let kind = if is_stream { SockType::Stream } else { SockType::Datagram };
    // It does not listen, so nobody connects here.
    let probe = match socket(family, kind, SockFlag::SOCK_CLOEXEC, None) {
        Err(Errno::EAFNOSUPPORT) => return Ok(()),
        made => made?,
    };
    // Connections that have ended are in nobody's way.
    setsockopt(&probe, sockopt::ReuseAddr, &is_stream)?;
    Ok(bind(probe.as_raw_fd(), &SockaddrStorage::from(address))?)
}

/// Whether a socket shares its address with others.
///
/// # Errors
/// As getsockopt(2).
pub fn port(fd: impl AsFd) -> io::Result<Port> {
    let is_reused = nix::sys::socket::getsockopt(&fd, sockopt::ReusePort)?;
    Ok(if is_reused { Port::Reused } else { Port::Own })
}

fn open(kind: SockType, address: SocketAddr, dual: bool, port: Port) -> io::Result<OwnedFd> {
    if port == Port::Reused && address.port() == 0 {
        // A port that the kernel has chosen is given up by shutdown(2), and those who share it are told apart from it then.
        let chosen = bound(kind, address, dual, port)?;
        let address = own_address(&chosen)?.unwrap_or(address);
        return open(kind, address, dual, port);
    }
    let fd = bound(kind, address, dual, port)?;
    if kind == SockType::Stream {
        listen(&fd, Backlog::new(BACKLOG)?)?;
    }
    Ok(fd)
}

fn bound(kind: SockType, address: SocketAddr, dual: bool, port: Port) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    let is_stream = kind == SockType::Stream;
    if is_stream {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        // Accepted connections inherit it; NoDelay= in systemd.socket(5).
        setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    }
    if address.is_ipv6() && is_stream {
        setsockopt(&fd, sockopt::Ipv6V6Only, &!dual)?;
    }
    if port == Port::Reused {
        setsockopt(&fd, sockopt::ReusePort, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}

/// Returns a listening unix stream socket. A file that a dead process left behind is replaced; one that somebody
/// listens on is not.
///
/// # Errors
/// As socket(2), bind(2) and listen(2); `EADDRINUSE` when somebody listens there.
pub fn listen_unix(path: &Path) -> io::Result<OwnedFd> {
    let address = UnixAddr::new(path)?;
    let stream = |flags| socket(AddressFamily::Unix, SockType::Stream, flags, None);
    let fd = stream(SockFlag::SOCK_CLOEXEC)?;
    // A live listener with a full queue answers EAGAIN instead of letting us wait.
    let probe = stream(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    let mut bound = bind(fd.as_raw_fd(), &address);
    if bound == Err(Errno::EADDRINUSE)
        && connect(probe.as_raw_fd(), &address) == Err(Errno::ECONNREFUSED)
    {
        // A file of another kind refuses connections too, and is somebody's.
        if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
            return Err(Errno::EADDRINUSE.into());
        }
        std::fs::remove_file(path)?;
        bound = bind(fd.as_raw_fd(), &address);
    }
    bound?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd)
}

/// Sets the length of a listener's queue back to ours, where another process has called listen(2) on it.
///
/// # Errors
/// As listen(2).
pub fn listen_again(listener: impl AsFd) -> io::Result<()> {
    Ok(listen(&listener.as_fd(), Backlog::new(BACKLOG)?)?)
}

/// Ends a listener for all who hold it: connections are refused from now on (`shutdown(2)`).
///
/// # Errors
/// As shutdown(2).
pub fn close_down(listener: impl AsFd) -> io::Result<()> {
    Ok(shutdown(listener.as_fd().as_raw_fd(), Shutdown::Both)?)
}

/// Returns a stream connected to a unix socket, without waiting for a listener whose queue is full.
///
/// # Errors
/// As socket(2) and connect(2); `EAGAIN` when the queue is full.
pub fn connect_unix(path: &Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    set_nonblocking(&fd, false)?;
    Ok(fd)
}

/// Whether a socket can be a listener: a stream socket that listens (`SO_ACCEPTCONN` in `socket(7)`), or a bound
/// datagram socket.
///
/// # Errors
/// `ENOTSOCK` and the like.
pub fn is_listening(fd: impl AsFd) -> io::Result<bool> {
    let fd = fd.as_fd();
    match nix::sys::socket::getsockopt(&fd, sockopt::SockType)? {
        SockType::Datagram => Ok(true),
        SockType::Stream | SockType::SeqPacket | SockType::Raw | SockType::Rdm | _ => {
            Ok(nix::sys::socket::getsockopt(&fd, sockopt::AcceptConn)?)
        }
    }
}

/// Whether a socket listens, or only has to be told to: a TCP socket with a port and no peer. One that was shut down
/// (`shutdown(2)`) is such a socket.
///
/// # Errors
/// `ENOTSOCK` and the like.
pub fn may_listen(fd: impl AsFd) -> io::Result<bool> {
    let fd = fd.as_fd();
    if is_listening(fd)? {
        return Ok(true);
    }
    let is_bound = own_address(fd)?.is_some_and(|address| address.port() != 0);
    Ok(is_bound && getpeername::<SockaddrStorage>(fd.as_raw_fd()) == Err(Errno::ENOTCONN))
}

/// Returns a socket's own address as people write it.
#[must_use]
pub fn local_address(fd: impl AsFd) -> String {
    match getsockname::<SockaddrStorage>(fd.as_fd().as_raw_fd()) {
        Ok(address) => address.to_string(),
        Err(_) => "unknown".to_owned(),
    }
}

/// Returns a socket's own address; `None` where that is no IP address.
///
/// # Errors
/// As getsockname(2).
pub fn own_address(fd: impl AsFd) -> io::Result<Option<SocketAddr>> {
    Ok(ip_address(&getsockname::<SockaddrStorage>(fd.as_fd().as_raw_fd())?))
}

/// Returns the address of whoever is connected; `None` where that is no IP address, or nobody any more.
#[must_use]
pub fn peer_address(fd: impl AsFd) -> Option<SocketAddr> {
    let address = getpeername::<SockaddrStorage>(fd.as_fd().as_raw_fd());
    address.ok().as_ref().and_then(ip_address)
}

fn ip_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|a| SocketAddr::V4((*a).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| SocketAddr::V6((*a).into())))
}

/// Returns the path of a unix socket's file, if it has one.
#[must_use]
pub fn own_path(fd: impl AsFd) -> Option<PathBuf> {
    let address: UnixAddr = getsockname(fd.as_fd().as_raw_fd()).ok()?;
    address.path().map(Path::to_path_buf)
}

/// Whether it is a unix socket.
#[must_use]
pub fn is_local(fd: impl AsFd) -> bool {
    getsockname::<UnixAddr>(fd.as_fd().as_raw_fd()).is_ok()
}

/// Whether it carries datagrams and not streams.
///
/// # Errors
/// `ENOTSOCK` and the like.
pub fn is_datagram(fd: impl AsFd) -> io::Result<bool> {
    Ok(nix::sys::socket::getsockopt(&fd.as_fd(), sockopt::SockType)? == SockType::Datagram)
}

/// Returns a socket that can be waited for: to read or accept, or with `Interest::WRITABLE` to write. It must not block.
///
/// # Errors
/// As epoll_ctl(2).
pub fn watch(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, and its number stays the same, for as long as the AsyncFd owns it.
    let watched = unsafe { AsyncFd::register_with_interest(socket, interest) };
    watched.map_err(Into::into)
}

/// Accepts a connection without waiting; it does not block either, and is closed at exec.
///
/// # Errors
/// `WouldBlock` when there is none, else as accept4(2).
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = accept4(listener.as_fd().as_raw_fd(), flags)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends bytes without waiting, the descriptor `with` the first of them (`SCM_RIGHTS` in `unix(7)`); returns how many
/// were taken. Once one was, so was the descriptor.
///
/// # Errors
/// `WouldBlock` when there is no room, `BrokenPipe` when nobody reads any more, else as sendmsg(2).
pub fn send(socket: impl AsFd, bytes: &[u8], with: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let raw = with.map(|fd| [fd.as_raw_fd()]);
    let rights = raw.as_ref().map(|fds| [ControlMessage::ScmRights(fds)]);
    let rights: &[ControlMessage<'_>] = rights.as_ref().map_or(&[], |rights| rights);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let parts = [IoSlice::new(bytes)];
    Ok(sendmsg::<()>(socket.as_fd().as_raw_fd(), &parts, rights, flags, None)?)
}

/// Returns the inode by which procfs knows the socket.
///
/// # Errors
/// As fstat(2).
pub fn inode(fd: impl AsFd) -> io::Result<u64> {
    Ok(nix::sys::stat::fstat(fd)?.st_ino)
}

/// Sets or clears `O_NONBLOCK` where it is otherwise, and returns whether it was. The flag belongs to the socket, not to
/// the process: every holder sees it change (`fcntl(2)`, open file description).
///
/// # Errors
/// As fcntl(2).
pub fn set_nonblocking(fd: impl AsFd, nonblocking: bool) -> io::Result<bool> {
    let flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    let is_other = flags.contains(OFlag::O_NONBLOCK) != nonblocking;
    if is_other {
        let mut flags = flags;
        flags.set(OFlag::O_NONBLOCK, nonblocking);
        fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags))?;
    }
    Ok(is_other)
}

/// Lets a descriptor through an execve(2), or not (`FD_CLOEXEC` in `fcntl(2)`).
///
/// # Errors
/// As fcntl(2).
pub fn set_inherited(fd: impl AsFd, inherited: bool) -> io::Result<()> {
    let flags = if inherited { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
    fcntl(fd, FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// Takes a descriptor that was passed over an execve(2) by its number; `None` where there is none. To be called at the
/// start, before anything else has taken it.
#[must_use]
pub fn take_inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: sets a flag of a number of our own table; that there is none is an error.
    let is_there = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
    // SAFETY: it is open, was passed to this process to be its own, and nobody has taken it yet.
    (is_there && number > 2).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether connections or datagrams of clients come to a descriptor that was passed to this process, by its number: it
/// listens (`SO_ACCEPTCONN` in `socket(7)`), or is an internet socket for datagrams.
#[must_use]
pub fn is_passed_listener(number: RawFd) -> bool {
    let option = |option| {
        let (mut value, mut length): (libc::c_int, libc::socklen_t) = (-1, 4);
        let place = (&raw mut value).cast();
        // SAFETY: writes a number to a valid place; that the descriptor is none is an error.
        let told =
            unsafe { libc::getsockopt(number, libc::SOL_SOCKET, option, place, &raw mut length) };
        (told == 0).then_some(value)
    };
    let is_internet = matches!(option(libc::SO_DOMAIN), Some(libc::AF_INET | libc::AF_INET6));
    let is_datagram = option(libc::SO_TYPE) == Some(libc::SOCK_DGRAM);
    option(libc::SO_ACCEPTCONN) == Some(1) || (is_internet && is_datagram)
}

/// Takes a descriptor that was passed to this process (`sd_listen_fds(3)`), whatever it is; `None` where it is taken already.
pub fn take_passed(passed: &mut ListenFd, at: usize) -> Option<OwnedFd> {
    let raw = passed.take_raw_fd(at).ok().flatten()?;
    // SAFETY: it was passed to this process to be its own, listenfd gives each number once, and nobody else took it.
    Some(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Lets a datagram socket be told who sent what (`SO_PASSCRED` in `unix(7)`).
///
/// # Errors
/// As setsockopt(2).
pub fn pass_credentials(socket: &UnixDatagram) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::PassCred, &true)?)
}

/// Returns the supplementary groups of whoever connected to a unix stream socket (`SO_PEERGROUPS` in
/// `include/uapi/asm-generic/socket.h`, since Linux 4.13). Groups beyond the first 1024 are not told.
///
/// # Errors
/// As getsockopt(2).
pub fn peer_groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 1024];
    let mut length = libc::socklen_t::try_from(size_of_val(groups.as_slice())).unwrap_or(0);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `groups` has room for `length` bytes, and the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    groups.truncate(length as usize / size_of::<u32>());
    Ok(groups)
}

/// A datagram and its sender, or a piece of a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram {
    /// How many bytes of the buffer it fills.
    pub length: usize,
    /// It was longer than the buffer.
    pub truncated: bool,
    /// File descriptors came with it; a stream is read no further than behind them.
    pub had_descriptors: bool,
    /// The sender's user, if the kernel told it.
    pub uid: Option<u32>,
}

/// Receives one datagram without waiting. File descriptors that came with it are closed at once: `BARRIER=1` of
/// `sd_notify_barrier(3)` waits for just that.
///
/// # Errors
/// `WouldBlock` when there is none, else as recvmsg(2).
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    receive_with(socket, buffer, 0)
}

/// As [`receive`], and leaves the datagram where it is.
///
/// # Errors
/// As [`receive`].
pub fn look(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    receive_with(socket, buffer, libc::MSG_PEEK)
}

fn receive_with(socket: impl AsFd, buffer: &mut [u8], more: libc::c_int) -> io::Result<Datagram> {
    let mut control = [0u64; CONTROL_WORDS];
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeros is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | more;
    // SAFETY: `message` points to a buffer and a control buffer of the lengths that it says.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(Errno::result(length)?).unwrap_or(0);
    let truncated = message.msg_flags & libc::MSG_TRUNC != 0;
    let (uid, closed) = take_control(&message);
    // With a full table the kernel gives none of them, and says that something is missing.
    let had_descriptors = closed || message.msg_flags & libc::MSG_CTRUNC != 0;
    Ok(Datagram { length, truncated, had_descriptors, uid })
}

/// Waits for a byte and the descriptor that comes with it; `None` at the end of the stream, or where none came.
///
/// # Errors
/// As recvmsg(2).
pub fn receive_descriptor(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut parts = [io::IoSliceMut::new(&mut byte)];
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let fd = socket.as_fd().as_raw_fd();
    let message = recvmsg::<()>(fd, &mut parts, Some(&mut control), flags)?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel has just made this descriptor for us, and there was room for one only.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(*fd) }));
        }
    }
    Ok(None)
}

/// Whether the other end of a stream says no more (`POLLRDHUP` in `poll(2)`).
#[must_use]
pub fn is_hung_up(socket: impl AsFd) -> bool {
    let half = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let gone = half | PollFlags::POLLHUP;
    let mut polled = [PollFd::new(socket.as_fd(), half)];
    let told = poll(&mut polled, PollTimeout::ZERO);
    told.is_ok() && polled[0].revents().is_some_and(|events| events.intersects(gone))
}

/// Looks at what a stream has for us without taking it; returns its length, which is 0 at the end of the stream.
///
/// # Errors
/// `WouldBlock` when there is nothing, else as recv(2).
pub fn peek(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    Ok(recv(socket.as_fd().as_raw_fd(), buffer, flags)?)
}

/// Room for credentials and some descriptors, in words so that it is aligned.
const CONTROL_WORDS: usize = 32;

/// Closes every descriptor that came with a message, and returns the sender's user if the kernel told it, and whether
/// there were descriptors.
///
/// nix's own iterator gives nothing when the control buffer was too small (`MSG_CTRUNC`), though the kernel has
/// installed what did fit: a sender could fill our table with descriptors that nobody closes.
fn take_control(message: &libc::msghdr) -> (Option<u32>, bool) {
    let (mut uid, mut had_descriptors) = (None, false);
    // SAFETY: recvmsg(2) has filled the header, and with it the control buffer, which outlive this function.
    let mut part = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !part.is_null() {
        // SAFETY: not null, so it points to a whole header inside of the control buffer, which is aligned for it.
        let header = unsafe { &*part };
        // SAFETY: as above; the data follow the header.
        let data = unsafe { libc::CMSG_DATA(part) };
        let length = (header.cmsg_len as usize).saturating_sub(data.addr() - part.addr());
        match (header.cmsg_level, header.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                had_descriptors = true;
                for at in 0..length / size_of::<RawFd>() {
                    let place = data.cast::<RawFd>().wrapping_add(at);
                    // SAFETY: the header's length says that a descriptor stands there.
                    let fd = unsafe { place.read_unaligned() };
                    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
                    drop(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if length >= size_of::<libc::ucred>() => {
                // SAFETY: the header's length says that credentials stand there.
                uid = Some(unsafe { data.cast::<libc::ucred>().read_unaligned() }.uid);
            }
            _ => {}
        }
        // SAFETY: walks the same buffer.
        part = unsafe { libc::CMSG_NXTHDR(message, part) };
    }
    (uid, had_descriptors)
}

#[cfg(test)]
mod tests;
