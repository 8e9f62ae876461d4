//! What a kernel makes of the maps. The programs that use them are tested in `tests/steering.rs`.
#![expect(clippy::print_stderr, reason = "a test says what it lacks")]

use super::*;
use std::fs::File;
use std::net::{TcpListener, UdpSocket};

const LANES: u32 = 8;
const SIZE: usize = 8192;

fn maps() -> Option<Maps> {
    match Maps::new(LANES, SIZE) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
            assert!(std::env::var_os("CI").is_none(), "skipped: bpf(2) is not permitted");
            eprintln!("skipped: bpf(2) is not permitted");
            None
        }
        made => Some(made.unwrap()),
    }
}

fn copy(fd: BorrowedFd<'_>) -> OwnedFd {
    fd.try_clone_to_owned().unwrap()
}

#[test]
fn a_block_is_read_and_written_inside_its_bounds_alone() {
    let Some(maps) = maps() else { return };
    assert_eq!((maps.load_u32(0), maps.load_u64(SIZE - 8)), (Some(0), Some(0)));
    maps.store_u64(16, u64::MAX).unwrap();
    maps.store_u32(20, 7).unwrap();
    assert_eq!(maps.load_u32(16), Some(u32::MAX));
    assert_eq!(maps.load_u32(20), Some(7));
    assert_eq!((maps.load_u32(SIZE), maps.load_u32(SIZE - 2)), (None, None));
    assert_eq!((maps.load_u64(SIZE - 4), maps.load_u64(usize::MAX)), (None, None));
    assert_eq!((maps.load_u32(2), maps.store_u64(4, 1)), (None, None));
}

#[test]
fn maps_are_resumed_with_what_is_in_them() {
    let Some(first) = maps() else { return };
    first.store_u32(64, 42).unwrap();
    let (sockets, control) = (copy(first.sockets()), copy(first.control()));
    drop(first);
    let second = Maps::resume(sockets, control, LANES, SIZE).unwrap();
    assert_eq!(second.load_u32(64), Some(42));
}

#[test]
fn descriptors_of_other_kinds_and_sizes_are_not_resumed() {
    let Some(maps) = maps() else { return };
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    let (sockets, control) = (|| copy(maps.sockets()), || copy(maps.control()));
    let wrong = [
        (null(), control(), LANES, SIZE),
        (sockets(), null(), LANES, SIZE),
        (control(), sockets(), LANES, SIZE),
        (sockets(), sockets(), LANES, SIZE),
        (sockets(), control(), LANES + 1, SIZE),
        (sockets(), control(), LANES, SIZE / 2),
    ];
    for (sockets, control, lanes, size) in wrong {
        let error = Maps::resume(sockets, control, lanes, size).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    Maps::resume(sockets(), control(), LANES, SIZE).unwrap();
}

#[test]
fn only_listeners_of_a_group_become_lanes() {
    let Some(maps) = maps() else { return };
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = |lane, fd: BorrowedFd<'_>| maps.put(lane, fd).unwrap_err().raw_os_error();
    assert_eq!(error(0, plain.as_fd()), Some(libc::EINVAL));
    assert_eq!(error(LANES, plain.as_fd()), Some(libc::E2BIG));
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(error(0, datagrams.as_fd()), Some(libc::EINVAL));
    assert!(maps.put(0, File::open("/dev/null").unwrap()).is_err());
}

#[test]
fn what_is_no_program_is_neither_loaded_nor_attached() {
    let Some(maps) = maps() else { return };
    // exit, without a result.
    let error = load(&[0x95], "nothing").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(attach(&listener, maps.control()).is_err());
    // A jump out of the program.
    let error = attach_classic(&listener, &[(0x05, 0, 0, 7)]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn fdinfo_is_read_by_its_lines() {
    let text = "pos:\t0\nflags:\t02000002\nmap_type:\t2\nkey_size:\t4\nvalue_size:\t8192\n\
                max_entries:\t1\nmap_flags:\t0x400\nmap_extra:\t0x0\nmemlock:\t8448\n";
    assert_eq!(Shape::of_fdinfo(text), Some(Shape::control(8192).unwrap()));
    for other in ["", "pos:\t0\n", &text.replace("0x400", "400"), &text.replace(":\t1", ":\tx")] {
        assert_eq!(Shape::of_fdinfo(other), None, "{other}");
    }
}

#[test]
fn names_are_cut() {
    assert_eq!(short("abc")[..4], *b"abc\0");
    assert_eq!(short("0123456789abcdefgh"), *b"0123456789abcde\0");
}
