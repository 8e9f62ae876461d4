//! Against the real kernel.

use super::*;

#[test]
fn descriptors_in_a_datagram_are_closed_and_the_sender_is_known() {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    pass_credentials(&ours).unwrap();
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    let fds = [write.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let text = [IoSlice::new(b"BARRIER=1")];
    sendmsg::<()>(theirs.as_raw_fd(), &text, &rights, MsgFlags::empty(), None).unwrap();
    drop(write);
    let mut buffer = [0; 4];
    let datagram = receive(&ours, &mut buffer).unwrap();
    let uid = Some(nix::unistd::getuid().as_raw());
    assert_eq!(datagram, Datagram { length: 4, truncated: true, had_descriptors: true, uid });
    // The write end is gone: reading ends at once.
    assert_eq!(nix::unistd::read(&read, &mut buffer), Ok(0));
    assert_eq!(receive(&ours, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn more_descriptors_than_there_is_room_for_are_closed_too() {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    pass_credentials(&ours).unwrap();
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    let fds = vec![write.as_raw_fd(); 200];
    let rights = [ControlMessage::ScmRights(&fds)];
    let text = [IoSlice::new(b"READY=1")];
    let sent = sendmsg::<()>(theirs.as_raw_fd(), &text, &rights, MsgFlags::empty(), None);
    assert_eq!(sent, Ok(7));
    drop(write);
    let mut buffer = [0; 16];
    let uid = Some(nix::unistd::getuid().as_raw());
    let datagram = receive(&ours, &mut buffer).unwrap();
    assert_eq!(datagram, Datagram { length: 7, truncated: false, had_descriptors: true, uid });
    // Nobody holds the write end any more: reading ends at once.
    assert_eq!(nix::unistd::read(&read, &mut buffer), Ok(0));
}

#[test]
fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(listen_unix(&path).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();
    drop(listen_unix(&path).unwrap());
    let fd = listen_unix(&path).unwrap();
    assert!(is_listening(&fd).unwrap());
    assert_eq!(listen_unix(&path).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
}

#[test]
fn a_shared_port_is_kept_by_whoever_listens_again() {
    let fd = listen_tcp("127.0.0.1:0".parse().unwrap(), false, Port::Reused).unwrap();
    let before = own_address(&fd).unwrap();
    close_down(&fd).unwrap();
    listen_again(&fd).unwrap();
    assert_eq!(own_address(&fd).unwrap(), before);
}

#[test]
fn who_shares_a_port_is_joined_and_nobody_else() {
    for address in ["127.0.0.1:0", "[::]:0"] {
        let first = listen_tcp(address.parse().unwrap(), true, Port::Reused).unwrap();
        let second = join(&first).unwrap();
        assert_eq!(own_address(&first).unwrap(), own_address(&second).unwrap());
        assert!(is_listening(&second).unwrap());
        assert_eq!(port(&second).unwrap(), Port::Reused);
    }
    let first = bind_udp("127.0.0.1:0".parse().unwrap(), Port::Reused).unwrap();
    assert!(is_datagram(join(&first).unwrap()).unwrap());
    let taken = own_address(&first).unwrap().unwrap();
    let error = refuse_taken(taken, false).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
    let alone = listen_tcp("127.0.0.1:0".parse().unwrap(), false, Port::Own).unwrap();
    assert_eq!(join(&alone).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
}

#[test]
fn a_port_listens_for_both_families() {
    let fd = listen_tcp("[::]:0".parse().unwrap(), true, Port::Own).unwrap();
    set_nonblocking(&fd, true).unwrap();
    let first = std::net::TcpListener::from(fd);
    let port = first.local_addr().unwrap().port();
    let listener = listen_tcp(SocketAddr::from(([127, 0, 0, 1], port)), false, Port::Own);
    assert_eq!(listener.unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
}
