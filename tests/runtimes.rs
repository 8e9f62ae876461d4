//! Unmodified programs of other languages, under load through reloads. The examples are run in tests/examples.rs.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::process::Command;
use support::primary::{Primary, Setup};
use support::{Load, load_client, skip, which};

const RUN: [&str; 4] = ["-n", "2", "--settle", "0ms"];

/// Reloads under load and returns the primary, still running.
fn reload_under_load(setup: Setup) -> Primary {
    let mut primary = setup.start();
    primary.says("it waits on a listener");
    primary.is_ready();
    let address = primary.address.to_string();
    let load = Load::start(Command::new(load_client()).args([&address, "--clients", "4"]));
    let load = load.begun();
    let mut pids = BTreeSet::new();
    for generation in 2..=4 {
        pids.insert(primary.get("/"));
        primary.signal(Signal::SIGHUP);
        primary.says(&format!("reload done: generation {generation}"));
    }
    load.stop().assert_clean(1);
    assert!(pids.len() == 3, "every generation is other processes: {pids:?}");
    primary
}

#[test]
fn python_asyncio_serves() {
    if which("python3").is_none() && skip("python3") {
        return;
    }
    let program = "
import asyncio, os, signal, socket
active = set()
async def serve(reader, writer):
    active.add(writer)
    await reader.readuntil(b'\\r\\n\\r\\n')
    body = b'pid %d' % os.getpid()
    writer.write(b'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%s' % (len(body), body))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    active.discard(writer)
async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(serve, sock=socket.socket(fileno=3))
    await stop.wait()
    # asyncio resets what it accepted in the turn in which its server is closed: stop accepting first, close later.
    asyncio.get_running_loop().remove_reader(server.sockets[0].fileno())
    for _ in range(20):
        await asyncio.sleep(0.005)
    server.close()
    while active:
        await asyncio.sleep(0.01)
asyncio.run(main())
";
    reload_under_load(Setup::new(&RUN).arguments_after(&["--", "python3", "-c", program])).stop();
}

#[test]
fn a_program_that_blocks_in_accept_serves() {
    if which("python3").is_none() && skip("python3") {
        return;
    }
    // It dies at the stop signal, at once: on a shared listener that costs what it was just answering, so no load here.
    let program = "
import os, socket
listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    body = b'pid %d' % os.getpid()
    connection.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s' % (len(body), body))
    connection.close()
";
    let mut primary = Setup::new(&RUN)
        .arguments(&["--blocking"])
        .arguments_after(&["--", "python3", "-c", program])
        .start();
    primary.says("it waits on a listener");
    primary.is_ready();
    let pids: BTreeSet<String> = (0..20).map(|_| primary.get("/")).collect();
    assert!(!pids.is_empty() && pids.iter().all(|pid| pid.starts_with("pid ")), "{pids:?}");
    primary.stop();
}
