//! A throw-away systemd: a root tree booted under systemd-nspawn on an overlay, gone without a trace afterwards.
//!
//! Each box has a cgroup of its own (two boxes in one would collide), a pid namespace around nspawn (a killed test
//! leaves nothing), a private network, and a second lower layer with the binary and the units under test.

use crate::support::{self, PATIENCE, wait_for};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Boxed {
    nspawn: Child,
    /// The box's pid 1, seen from here.
    leader: u32,
    folder: PathBuf,
    cgroup: Option<PathBuf>,
}

/// Returns the root tree of a Debian release, or says that it is missing.
pub(crate) fn root(release: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/roots").join(release);
    let missing = if !nix::unistd::geteuid().is_root() {
        "root, to boot systemd in a container"
    } else if support::which("systemd-nspawn").is_none() {
        "systemd-nspawn (package systemd-container)"
    } else if !root.join("usr/lib/systemd/systemd").exists() {
        "a root tree (made by tests/roots)"
    } else {
        return Some(root);
    };
    support::skip(&format!("{release}: {missing}"));
    None
}

impl Boxed {
    /// Boots a box; `prepare` puts files into it before.
    pub(crate) fn boot(root: &Path, prepare: impl FnOnce(&Path)) -> Self {
        Self::boot_with(root, "", |layer| {
            install(layer);
            prepare(layer);
        })
    }

    /// Boots a box that has nothing of ours but the load client.
    pub(crate) fn boot_bare(root: &Path, prepare: impl FnOnce(&Path)) -> Self {
        Self::boot_with(root, "", |layer| {
            copy(&support::load_client(), layer, "usr/bin/load");
            prepare(layer);
        })
    }

    /// Boots a box where root may load programs into the kernel, as it may outside, and copy descriptors of others.
    pub(crate) fn boot_with_bpf(root: &Path, prepare: impl FnOnce(&Path)) -> Self {
        // What nspawn forbids unless it is told otherwise.
        let more = r"--capability=CAP_BPF,CAP_SYS_PTRACE --system-call-filter=bpf\ pidfd_getfd";
        Self::boot_with(root, more, |layer| {
            install(layer);
            prepare(layer);
        })
    }

    /// `more` is for nspawn, as a shell takes it.
    fn boot_with(root: &Path, more: &str, prepare: impl FnOnce(&Path)) -> Self {
        let name = format!("dw-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new("/var/tmp").join(&name);
        let (layer, top) = (folder.join("layer"), folder.join("top"));
        fs::create_dir_all(&layer).unwrap();
        fs::create_dir_all(&top).unwrap();
        prepare(&layer);
        // Under a systemd host nspawn asks for a scope of its own.
        let host_has_systemd = Path::new("/run/systemd/system").exists();
        let cgroup = (!host_has_systemd).then(|| make_cgroup(&name)).flatten();
        let script = r#"
            if [ -n "$CGROUP" ]; then echo 0 > "$CGROUP/cgroup.procs"; fi
            exec setpriv --pdeathsig KILL unshare -m -p --fork --kill-child=KILL --mount-proc --propagation private sh -c '
                mount -t tmpfs -o mode=755 tmpfs "$TOP" && cd "$TOP" && mkdir u w m &&
                mount -t overlay overlay -o "lowerdir=$LAYER:$ROOT,upperdir=$TOP/u,workdir=$TOP/w" m &&
                exec systemd-nspawn -q --private-network -D "$TOP/m" -M "$NAME" --register=no $KEEP --console=pipe \
                    --resolv-conf=off --timezone=off --link-journal=no '"$MORE"' -b'"#;
        let console = fs::File::create(folder.join("console.log")).unwrap();
        let nspawn = Command::new("sh")
            .args(["-c", script])
            .env("CGROUP", cgroup.as_deref().unwrap_or(Path::new("")))
            .env("TOP", &top)
            .env("LAYER", &layer)
            .env("ROOT", root)
            .env("NAME", &name)
            .env("MORE", more)
            .env("KEEP", if host_has_systemd { "" } else { "--keep-unit" })
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            .spawn()
            .unwrap();
        let mut this = Self { nspawn, leader: 0, folder, cgroup };
        this.leader = wait_for("the box's pid 1", || {
            if let Ok(Some(status)) = this.nspawn.try_wait() {
                panic!("the box ended with {status}:\n{}", this.console());
            }
            find_leader(this.nspawn.id())
        });
        let state = this.run("systemctl is-system-running --wait");
        // A file that is refused at boot is a unit that has failed.
        let failed = this.run("systemctl --failed --plain --no-legend | grep -v ^dogwatch-refused");
        let is_up = state.starts_with("running") || state.starts_with("degraded");
        assert!(is_up && failed.is_empty(), "{state}{failed}\n{}", this.console());
        this
    }

    /// Runs a shell command in the box and returns what it says and its exit code.
    pub(crate) fn try_run(&self, command: &str) -> (String, i32) {
        let mut enter = self.enter(command);
        // What hangs is to be told of before the test is ended.
        let output = enter.env("LIMIT", "120").stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (text, output.status.code().unwrap_or(-1))
    }

    /// Runs a shell command in the box that may fail, and returns what it says.
    pub(crate) fn run(&self, command: &str) -> String {
        self.try_run(command).0
    }

    /// Runs a shell command in the box that must succeed, and returns what it says.
    pub(crate) fn ok(&self, command: &str) -> String {
        let (text, code) = self.try_run(command);
        assert_eq!(code, 0, "{command}\n{text}\n{}", self.run("journalctl -b --no-pager -n 100"));
        text
    }

    /// Waits until a shell command in the box succeeds, and returns what it says.
    pub(crate) fn until(&self, command: &str) -> String {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            let (text, code) = self.try_run(command);
            if code == 0 {
                return text;
            }
            assert!(
                std::time::Instant::now() < end,
                "waited in vain for: {command}\n{text}\n{}",
                self.run("journalctl -b --no-pager -n 100")
            );
        }
    }

    /// A property of a unit.
    pub(crate) fn show(&self, unit: &str, property: &str) -> String {
        self.ok(&format!("systemctl show -P {property} {unit}")).trim().to_owned()
    }

    /// What the journal has of a unit, as `IDENTIFIER: MESSAGE` lines.
    pub(crate) fn journal(&self, unit: &str) -> String {
        self.ok(&format!(
            "journalctl --sync; journalctl -b --no-pager -o cat --output-fields=MESSAGE -u {unit}"
        ))
    }

    /// Writes a file in the running box.
    pub(crate) fn put(&self, path: &str, text: &str) {
        let path = PathBuf::from(format!("/proc/{}/root{path}", self.leader));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A command to run in the box.
    pub(crate) fn enter(&self, command: &str) -> Command {
        // Newer systemd wants its clients inside of its cgroup tree; nsenter alone leaves the process outside.
        let script = r#"
            if [ -n "$CGROUP" ]; then
                mkdir -p "$CGROUP/payload/harness" && echo 0 > "$CGROUP/payload/harness/cgroup.procs"
            fi
            exec nsenter -t "$LEADER" -m -u -i -n -p -C --root --wd env -i \
                PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
                SYSTEMD_PAGER= SYSTEMD_COLORS=0 timeout "$LIMIT" sh -c "$COMMAND""#;
        let mut enter = Command::new("sh");
        enter
            .args(["-c", script])
            .env("CGROUP", self.cgroup.as_deref().unwrap_or(Path::new("")))
            .env("LEADER", self.leader.to_string())
            .env("LIMIT", "600")
            .env("COMMAND", command);
        enter
    }

    fn console(&self) -> String {
        fs::read_to_string(self.folder.join("console.log")).unwrap_or_default()
    }
}

impl Drop for Boxed {
    fn drop(&mut self) {
        if std::thread::panicking() && self.leader != 0 {
            eprintln!("{}", self.run("journalctl -b --no-pager -o short-monotonic -n 200"));
        }
        // SIGRTMIN+14: power off at once (systemd(1)).
        let _ = Command::new("kill").args(["-s", "RTMIN+14", &self.leader.to_string()]).status();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while matches!(self.nspawn.try_wait(), Ok(None)) {
            if std::time::Instant::now() > end {
                let _ = self.nspawn.kill();
                let _ = self.nspawn.wait();
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let _ = fs::remove_dir_all(&self.folder);
        if let Some(cgroup) = &self.cgroup {
            remove_cgroup(cgroup);
        }
    }
}

/// Copies a file into a box that is not booted yet.
pub(crate) fn copy(from: &Path, layer: &Path, to: &str) {
    let to = layer.join(to);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, &to).unwrap();
}

/// Puts the binary, the load client and the units where packages put them.
fn install(layer: &Path) {
    copy(support::dogwatch(), layer, "usr/bin/dogwatch");
    copy(&support::load_client(), layer, "usr/bin/load");
    // The same program that reads the journal through libsystemd, where somebody has built it.
    if let Some(other) = std::env::var_os("DOGWATCH_LIBSYSTEMD") {
        copy(Path::new(&other), layer, "usr/bin/dogwatch-libsystemd");
    }
    for kind in ["system-generators", "user-generators"] {
        let folder = layer.join("usr/lib/systemd").join(kind);
        fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink("/usr/bin/dogwatch", folder.join("dogwatch-generator")).unwrap();
    }
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let is_file = |unit: &fs::DirEntry| unit.path().is_file();
    for unit in fs::read_dir(units).unwrap().flatten().filter(is_file) {
        let to = format!("usr/lib/systemd/system/{}", unit.file_name().to_string_lossy());
        copy(&unit.path(), layer, &to);
    }
}

fn make_cgroup(name: &str) -> Option<PathBuf> {
    let bases = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let base = bases.iter().find(|base| Path::new(base).join("cgroup.controllers").exists())?;
    let cgroup = Path::new(base).join(name);
    fs::create_dir(&cgroup).ok()?;
    Some(cgroup)
}

fn remove_cgroup(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}

/// The descendant that is systemd and pid 1 of its namespace, once it listens.
fn find_leader(ancestor: u32) -> Option<u32> {
    let mut todo = vec![ancestor];
    while let Some(pid) = todo.pop() {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let namespaces =
            status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        let pids: Vec<&str> = namespaces.split_whitespace().collect();
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let listens = Path::new(&format!("/proc/{pid}/root/run/systemd/private")).exists();
        if pids.len() > 2 && pids.last() == Some(&"1") && exe.ends_with("systemd") && listens {
            return Some(pid);
        }
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        todo.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    None
}
