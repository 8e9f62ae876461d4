//! A box with an app in service whose workers number their lines, and what it can be asked about.

use super::{node_settings, support, wait_for};
use crate::boxed::Boxed;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::Path;
use std::time::Duration;

/// Beside each built-in worker: it numbers its lines for as long as the worker lives. Which was the last it says itself,
/// so that a line that is missing at the end is missed too.
const LINES: &str = r#"
$SIG{TERM} = sub { print "last $n of $ARGV[0]\n"; exit };
$| = 1;
while (1) { $n++; print "line $n of $ARGV[0]\n"; select(undef, undef, undef, 0.01) }
"#;

const APP: &str = r#"
command = ["/bin/sh", "-c", "perl /srv/lines.pl $$ & exec dogwatch demo-worker"]
workers = 4
[ready]
settle = "50ms"
"#;

/// The same on Node. Not a line of it knows of sockets that are passed, of clusters or of signals.
const NODE_APP: &str = "
const http = require('http')
http.createServer((request, response) => response.end(`pid ${process.pid}\\n`)).listen(8080)
let n = 0
setInterval(() => console.log(`line ${++n} of ${process.pid}`), 10).unref()
process.on('exit', () => console.log(`last ${n} of ${process.pid}`))
";

/// The primary reads so many bytes of a worker's output at a time.
const ONE_READ: usize = 16 * 1024;

pub(crate) struct Served {
    pub(crate) boxed: Boxed,
    /// Matches its workers in pgrep(1), and nothing else.
    workers: &'static str,
    generation: u32,
}

impl Served {
    /// Built-in workers that share the socket. `unit` is put beside the shipped one.
    pub(crate) fn fd(root: &Path, unit: &str) -> Self {
        Self::with(root, APP, unit)
    }

    /// Built-in workers with other settings.
    pub(crate) fn with(root: &Path, settings: &str, unit: &str) -> Self {
        let boxed = Boxed::boot(root, |layer| {
            put(layer, "etc/dogwatch/myapp.toml", settings);
            put(layer, "srv/lines.pl", LINES);
            put(layer, "etc/systemd/system/myapp.service.d/test.conf", unit);
        });
        Self::start(boxed, "^dogwatch demo-worker")
    }

    /// Workers on Node.
    pub(crate) fn node(root: &Path, unit: &str, balance: &str) -> Option<Self> {
        let node = support::node(22)?;
        let boxed = Boxed::boot(root, |layer| {
            let settings = node_settings(balance).replace("workers = 2", "workers = 4");
            put(layer, "etc/dogwatch/myapp.toml", &settings);
            put(layer, "srv/app.js", NODE_APP);
            put(layer, "etc/systemd/system/myapp.service.d/test.conf", unit);
            std::fs::create_dir_all(layer.join("usr/bin")).unwrap();
            std::fs::copy(&node, layer.join("usr/bin/node")).unwrap();
        });
        Some(Self::start(boxed, "^node /srv/app.js"))
    }

    /// Begins with the first connection. `workers` is as pgrep(1) takes it.
    pub(crate) fn start(boxed: Boxed, workers: &'static str) -> Self {
        boxed.ok("systemctl start myapp.socket; curl -sS http://127.0.0.1:8080/");
        let this = Self { boxed, workers, generation: 1 };
        this.is_served();
        this
    }

    /// Waits until all is as it should be.
    pub(crate) fn is_served(&self) {
        let wanted = format!("4 workers ready, generation {}", self.generation);
        self.boxed.until(&format!(
            "systemctl show -P StatusText myapp | grep -x '{wanted}' && systemctl is-active myapp"
        ));
        // Those that were relieved may still have something to do.
        wait_for("four workers", || (self.pids().lines().count() == 4).then_some(()));
    }

    /// The generation that serves after reloads of which nobody knows how many there were.
    pub(crate) fn learn_generation(&mut self) {
        let status = self.boxed.until(
            "systemctl show -P StatusText myapp | grep -x '4 workers ready, generation [0-9]*'",
        );
        self.generation =
            status.trim().rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        assert!(self.generation > 1, "{status}");
    }

    pub(crate) fn pids(&self) -> String {
        self.boxed.run(&format!("pgrep -f '{}'", self.workers))
    }

    /// Kills the primary, and waits until systemd knows. In the restart gap there is none: MainPID is 0 then, which would
    /// mean the killer's own group.
    pub(crate) fn kill(&self) {
        let main = "systemctl show -P MainPID myapp";
        self.boxed.until(&format!(
            "pid=$({main}) && test \"$pid\" -gt 1 && kill -9 \"$pid\" && \
             while test \"$({main})\" = \"$pid\"; do :; done"
        ));
    }

    /// Stops the service as an operator does; nothing is left.
    pub(crate) fn stop(&self) {
        self.boxed.ok("systemctl stop myapp.socket myapp.service");
        assert_eq!(self.boxed.show("myapp", "Result"), "success");
        nothing_is_left(&self.boxed);
    }
}

/// Writes a file in a box that is not booted yet.
pub(crate) fn put(layer: &Path, path: &str, text: &str) {
    let path = layer.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// No process is left, at most a moment after the service has gone: what the primary cannot end, its keeper does.
pub(crate) fn nobody_is_left(boxed: &Boxed) {
    boxed.until("! pgrep -af 'dogwatch|/srv/' | grep -v pgrep");
    // systemd may forget the empty group of a unit that it has given up.
    let group = "/sys/fs/cgroup/system.slice/myapp.service";
    let processes = format!("find {group} -name cgroup.procs -exec cat {{}} +");
    boxed.until(&format!("! test -e {group} || test -z \"$({processes})\""));
    assert_eq!(boxed.show("myapp", "NFileDescriptorStore"), "0");
}

/// Nor is a file.
pub(crate) fn nothing_is_left(boxed: &Boxed) {
    nobody_is_left(boxed);
    assert_eq!(boxed.run("ls -d /run/dogwatch/* /tmp/systemd-private-*myapp* 2>/dev/null"), "");
}

/// So many moments, up to 300 ms, that nobody has chosen.
pub(crate) fn moments(count: u32) -> impl Iterator<Item = Duration> {
    (0..count).map(|_| Duration::from_millis(RandomState::new().build_hasher().finish() % 300))
}

/// Every numbered line of every worker is in the journal, but for those that a primary that was killed had in its hands:
/// for each worker, at most what it had read at once.
pub(crate) fn assert_lines(boxed: &Boxed, kills: u32) {
    let journal = boxed.journal("myapp");
    let (mut lines, mut lasts) = (BTreeMap::<u32, BTreeSet<u32>>::new(), BTreeMap::new());
    for line in journal.lines() {
        if let [what, number, "of", pid] = line.split(' ').collect::<Vec<_>>()[..] {
            let (number, pid) = (number.parse().unwrap_or(0), pid.parse().unwrap_or(0));
            match what {
                "line" => {
                    assert!(lines.entry(pid).or_default().insert(number), "{line} comes twice");
                }
                "last" => drop(lasts.insert(pid, number)),
                _ => {}
            }
        }
    }
    let (mut there, mut missing) = (0, 0);
    for (pid, numbers) in &lines {
        // The last line, too, may have been in such hands.
        let last = lasts.get(pid).or(numbers.last()).copied().unwrap_or_default();
        let unheard = usize::from(!lasts.contains_key(pid));
        let mut gaps = vec![];
        let mut before = 0;
        for number in numbers.iter().copied().chain([last + 1]) {
            if number > before + 1 {
                gaps.push((before + 1)..number);
            }
            before = number;
        }
        for gap in &gaps {
            eprintln!("{pid}: lost {gap:?} of {last}");
            let bytes: usize = gap.clone().map(|n| format!("line {n} of {pid}\n").len()).sum();
            assert!(bytes <= ONE_READ, "{pid} has lost lines {gap:?}");
        }
        assert!(
            gaps.len() + unheard <= kills as usize,
            "{pid} has lost lines {gaps:?} of {last}, and its last one if this is 1: {unheard}"
        );
        there += numbers.len();
        missing += gaps.iter().map(|gap| gap.len()).sum::<usize>();
    }
    eprintln!("{there} lines of {} workers, {missing} were in dead hands", lines.len());
    assert!(there > 0, "{journal}");
}
