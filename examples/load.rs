//! A load client that classifies every failure: `load ADDR [--clients N] [--requests N] [--seconds S] [--path P] [--think MS]
//! [--pause MS] [--tally]`.
//!
//! Each client asks `--requests` times on one connection (1: a connection for each request), then opens the next, until
//! the time is over or standard input ends; with `--think` it waits for half to all of that before each request but
//! the first on a connection, with `--pause` so long between two connections: without, clients take all processors that
//! there are. It prints one line: `ok 12345 refused 0 reset 0 short 0 timeout 0 other 0`. Without `--seconds` it prints
//! another before, as soon as the first request was answered: `begun`.
//! A request that was sent and not answered is a failure, also on a kept connection; only a close between two requests,
//! before the next was sent, is none. With `--tally` there is a second line: how many connections were answered first with
//! which text, as `TEXT COUNT` and so on; a server whose answer is its pid shows how they are spread.
#![expect(clippy::disallowed_methods, reason = "a client may have threads and a clock")]
#![expect(clippy::print_stdout, reason = "this is its result")]

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const KINDS: [&str; 6] = ["ok", "refused", "reset", "short", "timeout", "other"];

/// Whether nobody needs to be told any more that requests are answered.
static IS_SAID: AtomicBool = AtomicBool::new(false);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str, default: u64| {
        let at = arguments.iter().position(|a| a == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let path = arguments.iter().position(|a| a == "--path").and_then(|at| arguments.get(at + 1));
    let path = path.map_or("/", String::as_str).to_owned();
    let address = arguments.first().cloned().unwrap_or_default();
    let (clients, requests) = (option("--clients", 8), option("--requests", 1));
    let (think, pause) = (option("--think", 0), Duration::from_millis(option("--pause", 0)));
    let end = Instant::now() + Duration::from_secs(option("--seconds", 10));
    let stop = Arc::new(AtomicBool::new(false));
    if arguments.iter().any(|a| a == "--seconds") {
        IS_SAID.store(true, Ordering::Relaxed);
    } else {
        stop_at_end_of_input(Arc::clone(&stop));
    }
    let is_over = |stop: &AtomicBool| {
        let timed = arguments.iter().any(|a| a == "--seconds") && Instant::now() >= end;
        timed || stop.load(Ordering::Relaxed) || Instant::now() >= end + Duration::from_secs(300)
    };
    let mut total = Counts::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|client| {
                let (address, path, is_over, stop) = (&address, &path, &is_over, &stop);
                scope.spawn(move || {
                    let mut counts = Counts { think, turn: client, ..Counts::default() };
                    while !is_over(stop) {
                        let is_over = || is_over(stop);
                        let told = converse(address, path, requests, &mut counts, &is_over);
                        if let Err(kind) = told {
                            *counts.kinds.entry(kind).or_default() += 1;
                        }
                        std::thread::sleep(pause);
                    }
                    counts
                })
            })
            .collect();
        for thread in threads {
            let counts = thread.join().unwrap_or_default();
            for (kind, count) in counts.kinds {
                *total.kinds.entry(kind).or_default() += count;
            }
            for (text, count) in counts.texts {
                *total.texts.entry(text).or_default() += count;
            }
        }
    });
    let words: Vec<String> = KINDS
        .iter()
        .map(|kind| format!("{kind} {}", total.kinds.get(kind).copied().unwrap_or(0)))
        .collect();
    println!("{}", words.join(" "));
    if arguments.iter().any(|a| a == "--tally") {
        let words: Vec<String> = total
            .texts
            .iter()
            .map(|(text, count)| format!("{} {count}", String::from_utf8_lossy(text).trim()))
            .collect();
        println!("{}", words.join(" "));
    }
}

/// What became of the requests of one client, or of all.
#[derive(Default)]
struct Counts {
    kinds: BTreeMap<&'static str, u64>,
    /// How many connections were answered first with which text.
    texts: BTreeMap<Vec<u8>, u64>,
    /// For at most so many milliseconds the client thinks.
    think: u64,
    turn: u64,
}

impl Counts {
    /// Thinks for another time than before.
    fn think(&mut self) {
        if self.think > 0 {
            self.turn += 1;
            let time = self.think / 2 + self.turn * 7919 % (self.think / 2 + 1);
            std::thread::sleep(Duration::from_millis(time));
        }
    }
}

fn stop_at_end_of_input(stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        stop.store(true, Ordering::Relaxed);
    });
}

/// Opens a connection and asks on it, until the server closes it between two requests.
fn converse(
    address: &str,
    path: &str,
    requests: u64,
    counts: &mut Counts,
    is_over: &dyn Fn() -> bool,
) -> Result<(), &'static str> {
    let mut stream = TcpStream::connect(address).map_err(|e| kind(&e))?;
    let _ = stream.set_nodelay(true);
    stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(|e| kind(&e))?;
    for nth in 1..=requests {
        if nth > 1 {
            counts.think();
            if is_over() || is_closed(&stream) {
                return Ok(());
            }
        }
        let connection = if nth == requests { "close" } else { "keep-alive" };
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: load\r\nConnection: {connection}\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(|e| kind(&e))?;
        let (closes, text) = read_response(&mut stream)?;
        *counts.kinds.entry("ok").or_default() += 1;
        if !IS_SAID.swap(true, Ordering::Relaxed) {
            // Whoever reads it gets it at once: standard output is written line by line.
            println!("begun");
        }
        if nth == 1 {
            *counts.texts.entry(text).or_default() += 1;
        }
        if closes {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads one whole answer; returns whether the server will close the connection, and the text.
fn read_response(stream: &mut TcpStream) -> Result<(bool, Vec<u8>), &'static str> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(head_end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
            if !head.starts_with("http/1.1 200") && !head.starts_with("http/1.0 200") {
                return Err("other");
            }
            let field = |name: &str| {
                head.lines()
                    .find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
            };
            let length: usize =
                field("content-length:").and_then(|n| n.parse().ok()).ok_or("other")?;
            if bytes.len() >= head_end + 4 + length {
                let closes = field("connection:").is_some_and(|c| c == "close");
                return Ok((closes, bytes.split_off(head_end + 4)));
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err("short"),
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(e) => return Err(kind(&e)),
        }
    }
}

/// Whether the server has closed the connection while nothing was asked.
fn is_closed(stream: &TcpStream) -> bool {
    let _ = stream.set_nonblocking(true);
    let closed = matches!(stream.peek(&mut [0]), Ok(0));
    let _ = stream.set_nonblocking(false);
    closed
}

fn kind(error: &io::Error) -> &'static str {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "there are many more kinds than matter here"
    )]
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused",
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "reset",
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "timeout",
        _ => "other",
    }
}
