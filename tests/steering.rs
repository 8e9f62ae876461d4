//! The programs that pick a lane, in the kernel that runs the tests: loopback sockets, each group on a port of its own.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test says what it lacks, and bounds its waits"
)]

mod support;

use dogwatch::protocol::steering::{
    self, BLOCK, ClassicPick, MAX_LANES, Pick, TURN, UNSTEERED, classic, connections, program,
    stores, taken,
};
use dogwatch::sys::{bpf, capability};
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, bind, connect, listen,
    setsockopt, shutdown, socket, sockopt,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use support::{skip, wait_for};

const LANES: u8 = 4;
const CAP_BPF: u32 = 39;

/// A socket bound to the address, which may have others.
fn bound(kind: SockType, address: SocketAddr) -> OwnedFd {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, kind, flags, None).unwrap();
    setsockopt(&fd, sockopt::ReusePort, &true).unwrap();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
    fd
}

/// Listeners on one address, whose port is chosen.
fn listeners(address: &str) -> Vec<TcpListener> {
    let mut address: SocketAddr = address.parse().unwrap();
    let mut lanes = vec![];
    for _ in 0..LANES {
        let fd = bound(SockType::Stream, address);
        listen(&fd, Backlog::new(4096).unwrap()).unwrap();
        let lane = TcpListener::from(fd);
        address = lane.local_addr().unwrap();
        lanes.push(lane);
    }
    lanes
}

/// What steers a group; `None` where this may not be tested.
struct Steering {
    maps: bpf::Maps,
    program: OwnedFd,
}

impl Steering {
    fn new() -> Option<Self> {
        let maps = match bpf::Maps::new(MAX_LANES, BLOCK) {
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                skip("bpf(2) is not permitted");
                return None;
            }
            made => made.unwrap(),
        };
        let words = program(maps.sockets().as_raw_fd(), maps.control().as_raw_fd());
        let program = bpf::load(&words, "dogwatch_steer").unwrap();
        Some(Self { maps, program })
    }

    fn put(&self, lanes: &[TcpListener]) {
        for (number, lane) in (0..).zip(lanes) {
            self.maps.put(number, lane).unwrap();
        }
        bpf::attach(&lanes[0], &self.program).unwrap();
    }

    fn set(&self, pick: Pick, table: &[u8]) {
        for (at, value) in stores(pick, table) {
            self.maps.store_u32(at, value).unwrap();
        }
    }

    /// How many each lane was given, and the kernel's hash.
    fn taken(&self) -> ([u64; 4], u64) {
        let of = |lane| self.maps.load_u64(taken(lane)).unwrap();
        ([of(0), of(1), of(2), of(3)], self.maps.load_u64(UNSTEERED).unwrap())
    }
}

/// Listeners on 127.0.0.1 that are steered like this.
fn steered(pick: Pick, table: &[u8]) -> Option<(Steering, Vec<TcpListener>)> {
    let steering = Steering::new()?;
    let lanes = listeners("127.0.0.1:0");
    steering.put(&lanes);
    steering.set(pick, table);
    Some((steering, lanes))
}

fn loopback(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 1, last).into()
}

/// Connects from an address to the port of these listeners.
fn client(from: IpAddr, to: &[TcpListener]) -> TcpStream {
    let port = to[0].local_addr().unwrap().port();
    let (family, at): (_, IpAddr) = match from {
        IpAddr::V4(_) => (AddressFamily::Inet, Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(_) => (AddressFamily::Inet6, Ipv6Addr::LOCALHOST.into()),
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0))).unwrap();
    connect(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(at, port))).unwrap();
    fd.into()
}

fn clients(count: u8, to: &[TcpListener]) -> Vec<TcpStream> {
    (0..count).map(|_| client(loopback(1), to)).collect()
}

/// Accepts so many connections; returns those of each lane.
fn accept(lanes: &[TcpListener], count: usize) -> Vec<Vec<TcpStream>> {
    let mut accepted: Vec<Vec<TcpStream>> = lanes.iter().map(|_| vec![]).collect();
    wait_for("all connections", || {
        for (lane, accepted) in lanes.iter().zip(&mut accepted) {
            accepted.extend(std::iter::from_fn(|| Some(lane.accept().ok()?.0)));
        }
        (accepted.iter().map(Vec::len).sum::<usize>() >= count).then_some(())
    });
    accepted
}

fn counts(accepted: &[Vec<TcpStream>]) -> Vec<usize> {
    accepted.iter().map(Vec::len).collect()
}

/// The lanes that each client's address came to.
fn lanes_of(accepted: &[Vec<TcpStream>]) -> BTreeMap<IpAddr, BTreeSet<usize>> {
    let mut lanes: BTreeMap<IpAddr, BTreeSet<usize>> = BTreeMap::new();
    for (lane, streams) in accepted.iter().enumerate() {
        for stream in streams {
            let address = stream.peer_addr().unwrap().ip().to_canonical();
            lanes.entry(address).or_default().insert(lane);
        }
    }
    lanes
}

fn all_stick(lanes: &BTreeMap<IpAddr, BTreeSet<usize>>) -> bool {
    lanes.values().all(|lanes| lanes.len() == 1)
}

/// Shuts a lane down, so that what waits in it goes to others, and opens it again.
fn reopen(steering: &Steering, number: u8, lane: &TcpListener) {
    shutdown(lane.as_raw_fd(), Shutdown::Both).unwrap();
    listen(lane, Backlog::new(4096).unwrap()).unwrap();
    steering.maps.put(number.into(), lane).unwrap();
}

fn copy(fd: BorrowedFd<'_>) -> OwnedFd {
    fd.try_clone_to_owned().unwrap()
}

#[test]
fn in_turn_every_lane_gets_the_same() {
    let Some((steering, lanes)) = steered(Pick::RoundRobin, &[0, 1, 2, 3]) else { return };
    let _clients = clients(200, &lanes);
    let accepted = accept(&lanes, 200);
    assert_eq!(counts(&accepted), [50; 4]);
    assert_eq!(steering.taken(), ([50; 4], 0));
    assert_eq!(steering.maps.load_u64(TURN), Some(200));
    let of = |lane| steering.maps.load_u32(connections(lane)).unwrap();
    assert_eq!([of(0), of(1), of(2), of(3), of(4)], [50, 50, 50, 50, 0]);
}

#[test]
fn a_table_weighs_its_lanes_and_leaves_some_out() {
    let Some((steering, lanes)) = steered(Pick::RoundRobin, &[2, 0, 2, 2]) else { return };
    let _clients = clients(200, &lanes);
    let first = accept(&lanes, 200);
    assert_eq!(counts(&first), [50, 0, 150, 0]);
    steering.set(Pick::RoundRobin, &[3]);
    let _clients = clients(20, &lanes);
    let second = accept(&lanes, 20);
    assert_eq!(counts(&second), [0, 0, 0, 20]);
    assert_eq!(steering.taken(), ([50, 0, 150, 20], 0));
}

#[test]
fn a_table_has_256_entries_and_lanes_up_to_255() {
    let every: Vec<u8> = (0..=255).map(|at| if at < 253 { at % 3 } else { 255 }).collect();
    let Some((steering, lanes)) = steered(Pick::RoundRobin, &every) else { return };
    // Lane 3 is number 255 as well: first it has to leave its place.
    assert_eq!(steering.maps.put(255, &lanes[3]).unwrap_err().raw_os_error(), Some(libc::EBUSY));
    shutdown(lanes[3].as_raw_fd(), Shutdown::Both).unwrap();
    listen(&lanes[3], Backlog::new(4096).unwrap()).unwrap();
    steering.maps.put(255, &lanes[3]).unwrap();
    let clients = [clients(200, &lanes), clients(56, &lanes)];
    let accepted = accept(&lanes, 256);
    assert_eq!(counts(&accepted), [85, 84, 84, 3]);
    assert_eq!(steering.maps.load_u64(taken(255)), Some(3));
    drop(clients);
}

#[test]
fn without_a_lane_the_kernels_hash_decides_and_it_is_counted() {
    let Some((steering, lanes)) = steered(Pick::RoundRobin, &[]) else { return };
    let mut expected = 0;
    // No table, one without sockets, too long a one, and no such mode.
    let entries = steering::ENTRIES;
    for (at, value) in [(entries, 0), (entries, 1), (entries, 257), (steering::MODE, 9)] {
        steering.set(Pick::RoundRobin, &[77]);
        steering.maps.store_u32(at, value).unwrap();
        let _clients = clients(100, &lanes);
        let counts = counts(&accept(&lanes, 100));
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        expected += 100;
        // Late packets of connections that are closed count as well.
        let (taken, unsteered) = steering.taken();
        assert!(taken == [0; 4] && unsteered >= expected, "{unsteered}");
    }
}

#[test]
fn a_client_sticks_to_its_lane_and_clients_spread() {
    let Some((steering, lanes)) = steered(Pick::ClientIp, &[0, 1, 2, 3]) else { return };
    let round = || {
        let clients: Vec<TcpStream> = (0..200).map(|at| client(loopback(at), &lanes)).collect();
        let lanes = lanes_of(&accept(&lanes, 200));
        drop(clients);
        lanes
    };
    let first = round();
    assert!(all_stick(&first) && round() == first);
    let (taken, unsteered) = steering.taken();
    // Late packets of connections that are closed count as well.
    assert!(taken.iter().sum::<u64>() >= 400 && unsteered == 0, "{taken:?}");
    let of = |lane| first.values().filter(|lanes| lanes.contains(&lane)).count();
    assert!((0..4).all(|lane| (25..=75).contains(&of(lane))), "{first:?}");
    // Lane 3 leaves: its clients move, and no others.
    steering.set(Pick::ClientIp, &[0, 1, 2, 0]);
    for (address, lanes) in round() {
        let before = &first[&address];
        let after = if before.contains(&3) { BTreeSet::from([0]) } else { before.clone() };
        assert_eq!(lanes, after);
    }
}

#[test]
fn fewer_connections_are_preferred() {
    let Some((steering, lanes)) = steered(Pick::LeastConnections, &[0, 1, 2, 3]) else { return };
    steering.maps.store_u32(connections(0), 1_000_000).unwrap();
    let _clients = [clients(200, &lanes), clients(200, &lanes)];
    let counts = counts(&accept(&lanes, 400));
    // Lane 0 is taken when it is met twice: one of sixteen.
    assert!(counts[0] < 60, "{counts:?}");
    assert!(counts[1..].iter().all(|count| (85..=165).contains(count)), "{counts:?}");
    assert_eq!(steering.taken().1, 0);
}

#[test]
fn both_families_of_one_socket_are_steered() {
    let Some(steering) = Steering::new() else { return };
    let lanes = listeners("[::]:0");
    steering.put(&lanes);
    steering.set(Pick::RoundRobin, &[0, 1, 2, 3]);
    let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
    let mixed = |count: u8| -> Vec<TcpStream> {
        let from = |at| if at % 2 == 0 { v6 } else { loopback(at) };
        (0..count).map(|at| client(from(at), &lanes)).collect()
    };
    let _clients = mixed(40);
    let _accepted = {
        let accepted = accept(&lanes, 40);
        assert_eq!(counts(&accepted), [10; 4]);
        accepted
    };
    steering.set(Pick::ClientIp, &[0, 1, 2, 3]);
    let clients = [mixed(100), mixed(100)];
    let lanes = lanes_of(&accept(&lanes, 200));
    assert!(lanes.len() == 51 && all_stick(&lanes));
    assert_eq!(lanes.values().collect::<BTreeSet<_>>().len(), 4);
    assert_eq!(steering.taken().1, 0);
    drop(clients);
}

#[test]
fn datagrams_of_one_client_stay_together() {
    let Some(steering) = Steering::new() else { return };
    let first = UdpSocket::from(bound(SockType::Datagram, "127.0.0.1:0".parse().unwrap()));
    let address = first.local_addr().unwrap();
    let others = (1..LANES).map(|_| UdpSocket::from(bound(SockType::Datagram, address)));
    let lanes: Vec<UdpSocket> = std::iter::once(first).chain(others).collect();
    for (number, lane) in (0..).zip(&lanes) {
        steering.maps.put(number, lane).unwrap();
    }
    bpf::attach(&lanes[0], &steering.program).unwrap();
    steering.set(Pick::Flow, &[0, 1, 2, 3]);
    let clients: Vec<UdpSocket> =
        (0..100).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let mut lanes_of: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    for round in 1..=3 {
        for client in &clients {
            client.send_to(b"x", address).unwrap();
        }
        wait_for("all datagrams", || {
            for (number, lane) in lanes.iter().enumerate() {
                while let Ok((_, from)) = lane.recv_from(&mut [0; 8]) {
                    lanes_of.entry(from.port()).or_default().push(number);
                }
            }
            let read: usize = lanes_of.values().map(Vec::len).sum();
            (read == 100 * round).then_some(())
        });
    }
    assert!(
        lanes_of.values().all(|lanes| lanes.len() == 3 && lanes.iter().all(|l| *l == lanes[0]))
    );
    let (taken, unsteered) = steering.taken();
    assert_eq!((taken.iter().sum::<u64>(), unsteered), (300, 0));
    assert!(taken.iter().all(|count| (15..=150).contains(count)), "{taken:?}");
}

#[test]
fn what_waits_in_a_lane_moves_to_the_others() {
    let Some((steering, lanes)) = steered(Pick::RoundRobin, &[0]) else { return };
    let mut waiting = clients(200, &lanes);
    assert_eq!(steering.taken().0, [200, 0, 0, 0]);
    steering.set(Pick::RoundRobin, &[1, 2]);
    reopen(&steering, 0, &lanes[0]);
    let mut accepted = accept(&lanes, 200);
    assert_eq!(counts(&accepted), [0, 100, 100, 0]);
    // They live: each is answered.
    for client in &mut waiting {
        client.write_all(b"?").unwrap();
    }
    for stream in accepted.iter_mut().flatten() {
        stream.read_exact(&mut [0]).unwrap();
        stream.write_all(b"!").unwrap();
    }
    for client in &mut waiting {
        client.read_exact(&mut [0]).unwrap();
    }
    // And so does the lane.
    steering.set(Pick::RoundRobin, &[0]);
    let _clients = clients(10, &lanes);
    assert_eq!(counts(&accept(&lanes, 10)), [10, 0, 0, 0]);
    assert_eq!(steering.taken().1, 0);
}

/// Clients wait in all lanes, lane 3 is emptied, and they connect again: each is where its next connection is.
fn clients_stick_when_they_move(address: &str, from: &[IpAddr]) {
    let Some(steering) = Steering::new() else { return };
    let lanes = listeners(address);
    steering.put(&lanes);
    steering.set(Pick::ClientIp, &[0, 1, 2, 3]);
    let connect = || -> Vec<TcpStream> { from.iter().map(|from| client(*from, &lanes)).collect() };
    let _waiting = connect();
    assert!(steering.taken().0[3] > 0);
    steering.set(Pick::ClientIp, &[0, 1, 2, 1]);
    reopen(&steering, 3, &lanes[3]);
    let _again = connect();
    let accepted = accept(&lanes, 2 * from.len());
    assert!(accepted[3].is_empty());
    let lanes = lanes_of(&accepted);
    assert!(lanes.len() == from.len() && all_stick(&lanes), "{lanes:?}");
    assert_eq!(steering.taken().1, 0);
}

#[test]
fn a_client_whose_connection_moves_sticks() {
    let from: Vec<IpAddr> = (1..100).map(loopback).collect();
    clients_stick_when_they_move("127.0.0.1:0", &from);
}

#[test]
fn a_client_whose_connection_to_both_families_moves_sticks() {
    let v4 = (1..100).map(loopback);
    let from: Vec<IpAddr> = v4.chain([Ipv6Addr::LOCALHOST.into()]).collect();
    clients_stick_when_they_move("[::]:0", &from);
}

#[test]
fn resumed_maps_steer_on_and_need_no_right() {
    let Some((first, lanes)) = steered(Pick::RoundRobin, &[0, 1]) else { return };
    let (sockets, control) = (copy(first.maps.sockets()), copy(first.maps.control()));
    let program = copy(first.program.as_fd());
    drop(first);
    let _clients = clients(20, &lanes);
    let accepted = accept(&lanes, 20);
    assert_eq!(counts(&accepted), [10, 10, 0, 0]);
    capability::keep(0).unwrap();
    let maps = bpf::Maps::resume(sockets, control, MAX_LANES, BLOCK).unwrap();
    let steering = Steering { maps, program };
    assert_eq!(steering.taken(), ([10, 10, 0, 0], 0));
    reopen(&steering, 3, &lanes[3]);
    bpf::attach(&lanes[1], &steering.program).unwrap();
    steering.set(Pick::RoundRobin, &[3]);
    let _clients = clients(20, &lanes);
    let second = accept(&lanes, 20);
    assert_eq!(counts(&second), [0, 0, 0, 20]);
    assert_eq!(steering.taken(), ([10, 10, 0, 20], 0));
    let error = bpf::load(&[0x95], "nothing").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
}

#[test]
fn one_capability_loads_the_program() {
    if capability::keep(1 << CAP_BPF).is_err() {
        skip("this test has not CAP_BPF");
        return;
    }
    let Some((_steering, lanes)) = steered(Pick::LeastConnections, &[0, 1, 2, 3]) else { return };
    let _clients = clients(40, &lanes);
    assert_eq!(counts(&accept(&lanes, 40)).iter().sum::<usize>(), 40);
}

#[test]
fn a_classic_program_needs_no_right_and_gives_at_random() {
    capability::keep(0).unwrap();
    let lanes = listeners("127.0.0.1:0");
    let every: Vec<u8> = (0..=255).map(|at| at % 3).collect();
    for table in [&[2, 0, 1][..], &every] {
        bpf::attach_classic(&lanes[0], &classic(ClassicPick::Random, table)).unwrap();
        let _clients = [clients(150, &lanes), clients(150, &lanes)];
        let counts = counts(&accept(&lanes, 300));
        assert!(counts[..3].iter().all(|count| (50..=150).contains(count)), "{counts:?}");
        assert_eq!(counts[3], 0);
    }
}

#[test]
fn a_classic_program_keeps_clients_where_the_table_says() {
    for address in ["127.0.0.1:0", "[::]:0"] {
        let lanes = listeners(address);
        let mut from: Vec<IpAddr> = (1..100).map(loopback).collect();
        if address.starts_with('[') {
            from.push(Ipv6Addr::LOCALHOST.into());
        }
        let round = |table: &[u8]| {
            bpf::attach_classic(&lanes[0], &classic(ClassicPick::ClientIp, table)).unwrap();
            let twice = from.iter().chain(&from);
            let clients: Vec<TcpStream> = twice.map(|from| client(*from, &lanes)).collect();
            let found = lanes_of(&accept(&lanes, clients.len()));
            assert!(found.len() == from.len() && all_stick(&found));
            found
        };
        let (plain, table) = (round(&[0, 1, 2, 3]), [2, 0, 3, 1]);
        assert_eq!(plain.values().collect::<BTreeSet<_>>().len(), 4);
        for (address, lanes) in round(&table) {
            let before = *plain[&address].first().unwrap();
            assert_eq!(lanes, BTreeSet::from([usize::from(table[before])]));
        }
    }
}
