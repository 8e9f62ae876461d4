//! Against the real kernel: connections of this process, and of children.

use super::census::{Own, rows};
use super::*;
use crate::protocol::diag::Traffic;
use crate::sys::spawn::{Program, spawn};
use crate::sys::tcp::tests::defer_accept;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::pin::Pin;

const DAY: Duration = Duration::from_secs(86_400);

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap()
}

fn listen() -> (TcpListener, Local) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = Local::Tcp(listener.local_addr().unwrap());
    (listener, local)
}

fn connect(listener: &TcpListener) -> TcpStream {
    TcpStream::connect(listener.local_addr().unwrap()).unwrap()
}

/// Starts `cat` with such a standard input: it has what it is given, and ends with it.
fn cat(input: BorrowedFd<'_>) -> Pid {
    let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
    let program = Program {
        path: Path::new("/bin/cat"),
        arguments: &["cat".to_owned()],
        environment: vec![],
        pid_placeholder: "0000000000",
        directory: None,
        descriptors: vec![Some(input), Some(null.as_fd()), None],
        open_files: None,
        group: None,
        dies_with_us: true,
    };
    spawn(program).unwrap().pid
}

fn leaving(lane: Option<&TcpListener>, local: &Local) -> Leaving {
    Leaving {
        pid: own_pid(),
        lane: lane.map(|listener| listener.try_clone().unwrap().into()).into_iter().collect(),
        locals: vec![local.clone()],
        close_idle: None,
        wait_for_connections: true,
        pace: Pace::default(),
    }
}

/// Lets a drain look, and tells whether it still waits after some looks.
async fn still_waits(drain: Pin<&mut impl Future<Output = Left>>) -> bool {
    tokio::time::timeout(Duration::from_millis(60), drain).await.is_err()
}

async fn ends(drain: impl Future<Output = Left>) -> Left {
    tokio::time::timeout(Duration::from_secs(10), drain).await.unwrap()
}

/// Looks until something is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    let looks = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looks).await.unwrap();
}

fn traffic(of: &TcpStream) -> Traffic {
    Traffic::read(&tcp::tcp_info(of).unwrap()).unwrap()
}

/// A request is answered in a later tick of the kernel's than it came.
async fn serve(client: &mut TcpStream, server: &mut TcpStream) {
    client.write_all(b"GET").unwrap();
    server.read_exact(&mut [0; 3]).unwrap();
    until(|| traffic(server).last_received > Duration::ZERO).await;
    server.write_all(b"OK").unwrap();
    client.read_exact(&mut [0; 2]).unwrap();
}

/// What each of these processes has there.
fn held(pids: &[i32], local: &Local) -> Vec<Own> {
    let rows = rows(std::slice::from_ref(local), &State::LIVE).unwrap();
    pids.iter().map(|pid| rows.of(*pid)).collect()
}

#[test]
fn connections_are_counted_for_each_process() {
    let (listener, local) = listen();
    let mut clients: Vec<TcpStream> = vec![];
    let mut start = |connections: usize| {
        let pids = (0..connections).map(|_| {
            clients.push(connect(&listener));
            let (accepted, _) = listener.accept().unwrap();
            cat(accepted.as_fd())
        });
        pids.collect::<Vec<_>>()
    };
    let [one, other] = start(2)[..] else { unreachable!() };
    // One in the queue is nobody's.
    let _queued = connect(&listener);
    let pids = [one.as_raw(), other.as_raw(), own_pid()];
    let counted = held(&pids, &local);
    let found: Vec<usize> = counted.iter().map(|own| own.tcp.len()).collect();
    // We are the parent of both.
    assert_eq!(found, [1, 1, 2]);
    let (connection, socket) = counted[0].tcp[0];
    assert_eq!(
        (socket.pid, socket.number, connection.state),
        (one.as_raw(), 0, State::Established)
    );
    assert_eq!(connection.peer, clients[0].local_addr().unwrap());
    drop(clients);
    for pid in [one, other] {
        waitpid(pid, None).unwrap();
    }
    assert!(held(&pids, &local).iter().all(|own| own.len() == 0));
}

#[test]
fn connections_at_unix_sockets_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let counted = || held(&[own_pid()], &Local::Unix(path.clone()))[0].unix;
    let client = UnixStream::connect(&path).unwrap();
    assert_eq!(counted(), 0);
    let (accepted, _) = listener.accept().unwrap();
    assert_eq!(counted(), 1);
    drop((accepted, client));
    assert_eq!(counted(), 0);
}

#[tokio::test]
async fn a_queued_connection_holds_a_drain_and_so_does_an_accepted_one() {
    let (listener, local) = listen();
    let client = connect(&listener);
    let mut drain = std::pin::pin!(drained(leaving(Some(&listener), &local), drop));
    assert!(still_waits(drain.as_mut()).await);
    let (server, _) = listener.accept().unwrap();
    assert!(still_waits(drain.as_mut()).await);
    // The client says no more, and still wants its answer.
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(still_waits(drain.as_mut()).await);
    // Here it is on another, while the worker still reads what the client says.
    let other = connect(&listener);
    let (reading, _) = listener.accept().unwrap();
    reading.shutdown(std::net::Shutdown::Write).unwrap();
    drop(server);
    assert!(still_waits(drain.as_mut()).await);
    drop((reading, other));
    let left = ends(drain).await;
    assert_eq!((left.closed, left.unseen.is_some()), (0, false));
}

#[tokio::test]
async fn only_the_queue_is_waited_for_where_the_rest_is_the_programs_business() {
    let (listener, local) = listen();
    let _client = connect(&listener);
    let leaving = Leaving { wait_for_connections: false, ..leaving(Some(&listener), &local) };
    let mut drain = std::pin::pin!(drained(leaving, drop));
    assert!(still_waits(drain.as_mut()).await);
    let _accepted = listener.accept().unwrap();
    ends(drain).await;
}

#[test]
fn nothing_left_is_seen_within_two_looks() {
    let (listener, local) = listen();
    let mut watch = Watch::new(leaving(Some(&listener), &local));
    assert_eq!((watch.look(), watch.pause), (false, SOON));
    assert!(watch.look());
    // A connection in between: from the beginning.
    let mut watch = Watch::new(leaving(Some(&listener), &local));
    assert!(!watch.look());
    let client = connect(&listener);
    assert!(!watch.look());
    drop((client, listener.accept().unwrap()));
    assert!(!watch.look());
    assert!(watch.look());
}

#[test]
fn looks_become_fewer() {
    let (listener, local) = listen();
    let _client = connect(&listener);
    let mut watch = Watch::new(leaving(Some(&listener), &local));
    let mut before = Duration::ZERO;
    for _ in 0..20 {
        assert!(!watch.look());
        assert!(watch.pause >= before.min(LATE));
        before = watch.pause;
    }
    assert!(watch.pause >= LATE);
}

#[tokio::test]
async fn a_handshake_that_was_under_way_is_waited_for_and_a_later_one_is_not() {
    let (listener, local) = listen();
    defer_accept(&listener);
    let mut early = connect(&listener);
    let handshakes = || rows(std::slice::from_ref(&local), &[State::SynReceived]).unwrap().tcp;
    assert_eq!(handshakes()[0].peer, early.local_addr().unwrap());
    let mut watch = Watch::new(leaving(Some(&listener), &local));
    assert!(!watch.look() && !watch.look() && !watch.look());
    let _late = connect(&listener);
    assert!(!watch.look());
    // It is in the queue then, and not missed on its way.
    early.write_all(b"x").unwrap();
    assert!(!watch.look() && !watch.look() && !watch.look());
    drop(listener.accept().unwrap());
    assert!(!watch.look());
    assert!(watch.look());
    assert_eq!(handshakes().len(), 1);
}

#[test]
fn a_flood_of_handshakes_does_not_hold_a_drain() {
    let (listener, local) = listen();
    defer_accept(&listener);
    let _client = connect(&listener);
    let mut watch = Watch::new(leaving(Some(&listener), &local));
    assert!(!watch.look() && !watch.look() && !watch.look());
    watch.began = Time::from_nanos(watch.began.as_nanos().saturating_sub(3_000_000_000));
    assert!(!watch.look());
    assert!(watch.look());
}

#[tokio::test]
async fn an_idle_connection_is_closed_from_outside_and_the_client_sees_a_clean_end() {
    let (listener, local) = listen();
    let (mut client, (mut server, _)) = (connect(&listener), listener.accept().unwrap());
    serve(&mut client, &mut server).await;
    until(|| traffic(&server).last_sent >= Duration::from_secs(1)).await;
    // It is another process', which ends at the end of what it reads.
    let pid = cat(server.as_fd());
    drop(server);
    let close_idle = Some(Closing { idle: Duration::ZERO, just_answered: DAY });
    let leaving = Leaving { pid: pid.as_raw(), close_idle, ..leaving(Some(&listener), &local) };
    let left = ends(drained(leaving, |e| panic!("{e}"))).await;
    assert_eq!(left.closed, 1);
    assert!(left.unseen.is_none());
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    waitpid(pid, None).unwrap();
}

#[tokio::test]
async fn a_busy_connection_is_not_closed() {
    let (listener, local) = listen();
    let (mut client, (mut server, _)) = (connect(&listener), listener.accept().unwrap());
    serve(&mut client, &mut server).await;
    // The next request is read, and is being worked at. It came in the tick of the last answer.
    let mut ask = || {
        client.write_all(b"GET").unwrap();
        server.read_exact(&mut [0; 3]).unwrap();
        let traffic = traffic(&server);
        let is_same = traffic.last_sent == traffic.last_received;
        if !is_same {
            server.write_all(b"OK").unwrap();
            client.read_exact(&mut [0; 2]).unwrap();
        }
        is_same
    };
    until(&mut ask).await;
    let close_idle = Some(Closing { idle: Duration::ZERO, just_answered: Duration::ZERO });
    let leaving = Leaving { close_idle, ..leaving(Some(&listener), &local) };
    let mut drain = std::pin::pin!(drained(leaving, drop));
    while traffic(&server).last_received < Duration::from_millis(1500) {
        assert!(still_waits(drain.as_mut()).await);
    }
    server.write_all(b"OK").unwrap();
    client.read_exact(&mut [0; 2]).unwrap();
    drop(server);
    assert_eq!(ends(drain).await.closed, 0);
}

#[tokio::test]
async fn a_connection_that_is_never_idle_is_closed_after_an_answer() {
    let (listener, local) = listen();
    let (mut client, (mut server, _)) = (connect(&listener), listener.accept().unwrap());
    let close_idle = Some(Closing { idle: Duration::ZERO, just_answered: Duration::ZERO });
    let leaving = Leaving { close_idle, ..leaving(Some(&listener), &local) };
    let mut drain = std::pin::pin!(drained(leaving, drop));
    let is_open =
        |server: &TcpStream| State::of(tcp::tcp_info(server).unwrap()[0]) == State::Established;
    let is_closed = async {
        while is_open(&server) {
            serve(&mut client, &mut server).await;
            assert!(still_waits(drain.as_mut()).await);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), is_closed).await.unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(server);
    assert_eq!(ends(drain).await.closed, 1);
}

#[test]
fn what_cannot_be_seen_is_told_and_not_waited_for() {
    let (listener, local) = listen();
    let mut watch = Watch::new(leaving(Some(&listener), &local));
    let fail = |watch: &mut Watch| watch.bear(Err(io::ErrorKind::PermissionDenied.into()));
    for _ in 1..FAILURES {
        assert!(fail(&mut watch));
    }
    // Some passing trouble.
    assert!(!watch.bear(Ok(false)));
    for _ in 0..FAILURES {
        assert!(watch.left.unseen.is_none() && fail(&mut watch));
    }
    let _accepted = (connect(&listener), listener.accept().unwrap());
    assert!(!watch.look());
    assert!(watch.look());
    assert_eq!(watch.left.unseen.unwrap().kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn idle_connections_are_closed_before_the_end_also_where_another_primary_began() {
    use crate::config::file;
    let text = "command = [\"x\"]\nbalance = \"steered\"\n[stop]\ndrain = \"40s\"\n";
    let settings = Settings::new(file::parse("app.toml", text).unwrap(), 1).unwrap();
    for (left, idle, just_answered) in [(40, 20, 30), (25, 5, 15), (15, 0, 5), (2, 0, 0)] {
        let time = Duration::from_secs(left);
        let leaving = Leaving::new(own_pid(), vec![], vec![], &settings, time, Pace::default());
        let closing = leaving.close_idle.unwrap();
        assert_eq!(
            (closing.idle.as_secs(), closing.just_answered.as_secs()),
            (idle, just_answered)
        );
    }
}
