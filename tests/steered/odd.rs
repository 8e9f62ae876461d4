//! Listeners that are not as they should be, and other kinds of them.

use crate::client::{Answer, Client};
use crate::deaths::{equal, named};
use crate::support::manager::Unit;
use crate::support::wait_for;
use crate::{
    assert_even, bare, becomes_even, count, ends_clean, is_clean, may_not_steer, reload, serving,
    short, tally, unit, verb,
};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;

const STEERED: [&str; 6] = ["--balance", "steered", "-n", "3", "--drain", "20s"];

#[test]
fn too_few_sockets_that_were_passed_are_made_more() {
    if may_not_steer() {
        return;
    }
    let (address, sockets) = equal(2);
    let mut manager = serving(bare(&STEERED, &[]).passing(address, named(sockets)), 3);
    assert_even(&tally(address, 300), 3);
    let one = short(&manager);
    reload(&mut manager, 2, 3);
    is_clean("a connection for each request", one, 1);
    ends_clean(manager);
}

#[test]
fn a_socket_that_does_not_share_its_address_is_shared_by_all_and_that_is_said() {
    if may_not_steer() {
        return;
    }
    // Nobody waits so long: under load a worker that shares its socket is never idle.
    let patient =
        ["--name", "app", "--settle", "10ms", "--balance", "steered", "-n", "3", "--drain", "1h"];
    let mut manager = serving(Unit::demo(&patient, &[]), 3);
    assert!(manager.get("/").contains("hello"));
    let one = short(&manager);
    reload(&mut manager, 2, 3);
    is_clean("a connection for each request", one, 1);
    let said = manager.all_said();
    let why = "cannot steer listener 'web': it does not share its address (SO_REUSEPORT); all workers share it";
    assert_eq!(said.matches(why).count(), 1, "{said}");
    assert!(said.contains("hint: name its ListenStream= 5 times"), "{said}");
    ends_clean(manager);
}

#[test]
fn one_passed_socket_that_shares_its_address_is_made_more() {
    if may_not_steer() {
        return;
    }
    let (address, sockets) = equal(1);
    let manager = serving(bare(&STEERED, &[]).passing(address, named(sockets)), 3);
    assert_even(&tally(address, 300), 3);
    ends_clean(manager);
}

#[test]
fn a_unix_socket_is_shared_and_the_tcp_one_beside_it_is_steered() {
    if may_not_steer() {
        return;
    }
    let unit = unit(&STEERED, &[]);
    let path = unit.folder().join("web.sock");
    let mut manager = serving(unit.arguments(&["-l", &format!("unix:{}", path.display())]), 3);
    assert_even(&tally(manager.address, 300), 3);
    let answers = (0..30).map(|_| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        Answer::of(text.split_once("\r\n\r\n").unwrap().1)
    });
    assert!(count(answers).keys().all(|slot| *slot < 3));
    let one = short(&manager);
    reload(&mut manager, 2, 3);
    is_clean("a connection for each request", one, 1);
    assert_eq!(manager.all_said().matches("it is a unix socket").count(), 1);
    ends_clean(manager);
}

#[test]
fn a_stranger_at_the_same_address_gets_no_connection() {
    if may_not_steer() {
        return;
    }
    let mut manager = serving(unit(&STEERED, &[]), 3);
    let fd = crate::client::listening(manager.address);
    let stranger = TcpListener::from(fd);
    stranger.set_nonblocking(true).unwrap();
    assert_even(&tally(manager.address, 300), 3);
    reload(&mut manager, 2, 1);
    verb(&manager, &["scale", "app", "4"]);
    wait_for("the fourth", || (tally(manager.address, 4).len() == 4).then_some(()));
    assert_even(&tally(manager.address, 400), 4);
    manager.kill();
    manager.start();
    manager.says("1 sockets that are not ours listen at the address of listener");
    assert_even(&tally(manager.address, 400), 4);
    assert!(stranger.accept().is_err(), "it was given a connection");
    ends_clean(manager);
}

#[test]
fn an_address_that_somebody_has_is_refused_although_it_could_be_shared() {
    if may_not_steer() {
        return;
    }
    let unit = unit(&STEERED, &[]);
    let address = SocketAddr::from(([127, 0, 0, 1], unit.port()));
    let stranger = crate::client::listening(address);
    let mut manager = unit.start();
    manager.says(&format!("cannot listen on '{address}': Address already in use"));
    assert!(!manager.wait_crashed().success());
    drop(stranger);
}

#[test]
fn the_datagrams_of_one_client_go_to_one_worker() {
    if may_not_steer() {
        return;
    }
    let unit = bare(&STEERED, &[]).nothing();
    let address = SocketAddr::from(([127, 0, 0, 1], unit.port()));
    let mut manager = serving(unit.arguments(&["-l", &format!("udp:{address}")]), 3);
    let clients: Vec<UdpSocket> = (0..60)
        .map(|_| {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect(address).unwrap();
            client.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
            client
        })
        .collect();
    let ask = |client: &UdpSocket| {
        client.send(b"?").unwrap();
        let mut buffer = [0; 64];
        let length = client.recv(&mut buffer).unwrap();
        Answer::of(std::str::from_utf8(&buffer[..length]).unwrap()).slot
    };
    let before: Vec<u16> = clients.iter().map(ask).collect();
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 3, "{before:?}");
    for _ in 0..3 {
        assert_eq!(clients.iter().map(ask).collect::<Vec<_>>(), before);
    }
    reload(&mut manager, 2, 1);
    assert_eq!(clients.iter().map(ask).collect::<Vec<_>>(), before, "after a reload");
    ends_clean(manager);
}

#[test]
fn clients_of_both_families_are_steered_on_one_listener() {
    if may_not_steer() {
        return;
    }
    if TcpListener::bind("[::1]:0").is_err() {
        crate::skip("IPv6");
        return;
    }
    for balance in ["steered", "steered:client-ip"] {
        let unit = bare(&["--balance", balance, "-n", "3"], &[]).nothing();
        let port = unit.port();
        let mut manager = serving(unit.arguments(&["-l", &port.to_string()]), 3);
        let both: [(IpAddr, IpAddr); 2] = [
            (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()),
            (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()),
        ];
        let ask = |turn: usize| {
            let (own, other) = both[turn % 2];
            Client::from(own, SocketAddr::new(other, port)).ask_once()
        };
        let counts = count((0..300).map(ask));
        if balance == "steered" {
            assert_even(&counts, 3);
        } else {
            let homes = [ask(0).slot, ask(1).slot];
            assert!((0..40).all(|turn| ask(turn).slot == homes[turn % 2]));
        }
        reload(&mut manager, 2, 1);
        assert_eq!(ask(1).generation, 2);
        ends_clean(manager);
    }
}

#[test]
fn lanes_that_were_passed_and_lanes_of_its_own_outlive_the_primary_together() {
    if may_not_steer() {
        return;
    }
    // Five that were passed are enough for three, and a scale to six makes more of the same address.
    let (address, sockets) = equal(5);
    let mut manager = serving(bare(&STEERED, &[]).passing(address, named(sockets)), 3);
    let one = short(&manager);
    verb(&manager, &["scale", "app", "6"]);
    wait_for("all six", || (tally(address, 20).len() == 6).then_some(()));
    manager.kill();
    manager.start();
    manager.says("took over from the last primary: 6 workers live");
    reload(&mut manager, 2, 2);
    is_clean("a connection for each request", one, 1);
    becomes_even(address, 6);
    ends_clean(manager);
}

#[test]
fn a_worker_of_a_shared_socket_is_told_to_stop_when_it_is_idle_if_that_is_wanted() {
    let flags = ["-n", "1", "--stop-when", "idle", "--drain", "1h"];
    let mut manager = serving(unit(&flags, &[]), 1);
    let mut kept = Client::new(manager.address);
    kept.send("keep-alive");
    let first = kept.hear();
    manager.signal(Signal::SIGHUP);
    wait_for("its relief", || verb(&manager, &["list"]).contains("draining").then_some(()));
    kept.send("keep-alive");
    assert_eq!(kept.hear(), first);
    assert!(!manager.all_said().contains("has gone"), "{}", manager.all_said());
    drop(kept);
    manager.says("reload done: generation 2 ");
    ends_clean(manager);
}
