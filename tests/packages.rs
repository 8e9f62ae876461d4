//! What is in the packages, that the distributions' own tools find nothing wrong, and that all three say the same. The life
//! of the .deb on a booted machine is in tests/systemd.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::packages::{VERSIONS, both, folder};
use support::{skip, which};

/// What a shell script says; it must succeed.
fn sh(script: &str, arguments: &[&Path]) -> String {
    let output = Command::new("timeout")
        .args(["120", "sh", "-ec", script, "sh"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {text}{complaints}");
    text
}

/// Whether the program is there.
fn has(program: &str, package: &str) -> bool {
    which(program).is_some() || !skip(&format!("{program} (package {package})"))
}

/// Whatever has a message id, by name: `const NAME: &str = "0123..."`.
fn message_ids(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            message_ids(&entry.path(), found);
            continue;
        }
        let text = std::fs::read_to_string(entry.path()).unwrap();
        found.extend(text.split('"').filter(|word| is_id(word)).map(str::to_owned));
    }
}

fn is_id(word: &str) -> bool {
    word.len() == 32 && word.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[test]
fn every_message_id_has_one_entry_in_the_catalog_and_none_has_two() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut ids = BTreeSet::new();
    message_ids(&here.join("src"), &mut ids);
    let catalog = std::fs::read_to_string(here.join("packaging/dogwatch.catalog")).unwrap();
    let mut entries: Vec<String> = vec![];
    for entry in catalog.split("\n-- ").skip(1) {
        let (id, text) = entry.split_once('\n').unwrap();
        entries.push(id.to_owned());
        for field in ["Subject: ", "Defined-By: dogwatch\n", "Documentation: "] {
            assert!(text.contains(field), "{id} has no {field}");
        }
        // The head, then something that helps.
        let (_, body) = text.split_once("\n\n").unwrap();
        let helps = body.contains("\n    ") || body.contains("There is nothing to do");
        assert!(helps, "{id} says neither what to type nor that there is nothing to do");
        for command in body.lines().filter_map(|line| line.strip_prefix("    dogwatch ")) {
            let verb = command.split(' ').next().unwrap();
            let known = Command::new(support::dogwatch()).args([verb, "--help"]).output().unwrap();
            assert!(known.status.success(), "{id}: there is no 'dogwatch {verb}'");
        }
    }
    assert!(ids.len() > 20, "{ids:?}");
    entries.sort();
    assert_eq!(entries, ids.into_iter().collect::<Vec<_>>());
}

#[test]
fn journalctl_takes_the_catalog() {
    if !has("journalctl", "systemd") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let script = "install -D -t \"$1/usr/lib/systemd/catalog\" packaging/dogwatch.catalog
        journalctl --root \"$1\" --update-catalog 2>&1; journalctl --root \"$1\" --list-catalog";
    let told = sh(script, &[root.path()]);
    assert!(told.contains("a4dc9feb2609463e9e30c15ddc368026 dogwatch: A reload of "), "{told}");
    assert_eq!(told.lines().filter(|line| line.contains(" dogwatch: ")).count(), 23, "{told}");
}

#[test]
fn shellcheck_finds_nothing_in_the_scripts() {
    let Some([_, _]) = both(".deb").filter(|_| has("shellcheck", "shellcheck")) else {
        return;
    };
    sh(
        "shellcheck packaging/build packaging/stage target/packages/tree/scripts/debian/* target/packages/tree/scripts/rpm/*",
        &[],
    );
    // The functions of Arch's are called by pacman, and makepkg uses what the PKGBUILD sets.
    sh("shellcheck -s bash target/packages/tree/scripts/arch/install", &[]);
    sh("shellcheck -s bash -e SC2034,SC2154,SC2164 packaging/arch/PKGBUILD", &[]);
}

#[test]
fn lintian_finds_nothing() {
    if let Some([deb, _]) = both(".deb").filter(|_| has("lintian", "lintian")) {
        let found = sh("lintian --allow-root --fail-on error,warning \"$1\" 2>&1", &[&deb]);
        assert_eq!(found.trim(), "");
    }
}

/// Files of a package by path, with their modes and where links point to, folders left out.
type Files = BTreeMap<String, String>;

fn files_of_deb(deb: &Path) -> Files {
    let list = sh("dpkg-deb --fsys-tarfile \"$1\" | tar -tv --numeric-owner", &[deb]);
    let mut files = Files::new();
    for line in list.lines().filter(|line| !line.starts_with('d')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[1], "0/0", "{line}");
        files
            .insert(words[5].trim_start_matches('.').to_owned(), described(words[0], words.get(7)));
    }
    files
}

fn files_of_rpm(rpm: &Path) -> Files {
    let list =
        sh("rpm -qp --qf '[%{FILEMODES:perms} %{FILEUSERNAME} %{FILENAMES}\n]' \"$1\"", &[rpm]);
    let mut files = Files::new();
    for line in list.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[1], "root", "{line}");
        files.insert(words[2].to_owned(), described(words[0], None));
    }
    files
}

fn files_below(folder: &Path) -> Files {
    let list = sh("cd \"$1\"; find . ! -type d -printf '%M %p %l\n'", &[folder]);
    let mut files = Files::new();
    for line in list.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        files
            .insert(words[1].trim_start_matches('.').to_owned(), described(words[0], words.get(2)));
    }
    files
}

fn described(mode: &str, link: Option<&&str>) -> String {
    link.map_or_else(|| mode.to_owned(), |link| format!("-> {link}"))
}

const LINKS: [&str; 2] = [
    "/usr/lib/systemd/system-generators/dogwatch-generator",
    "/usr/lib/systemd/user-generators/dogwatch-generator",
];

#[test]
fn the_deb_has_everything_in_its_place() {
    let Some([deb, later]) = both(".deb").filter(|_| has("dpkg-deb", "dpkg")) else { return };
    let files = files_of_deb(&deb);
    assert_eq!(files, files_of_deb(&later));
    assert_eq!(files["/usr/bin/dogwatch"], "-rwxr-xr-x");
    for link in LINKS {
        assert_eq!(files[link], "-> ../../../bin/dogwatch");
    }
    for path in [
        "/usr/lib/systemd/system/dogwatch@.socket",
        "/usr/lib/systemd/system/dogwatch@.service",
        "/usr/lib/systemd/catalog/dogwatch.catalog",
        "/usr/share/man/man1/dogwatch.1.gz",
        "/usr/share/man/man5/dogwatch.toml.5.gz",
        "/usr/share/bash-completion/completions/dogwatch",
        "/usr/share/zsh/vendor-completions/_dogwatch",
        "/usr/share/fish/vendor_completions.d/dogwatch.fish",
        "/usr/share/doc/dogwatch/changelog.gz",
        "/usr/share/doc/dogwatch/changelog.Debian.gz",
        "/usr/share/doc/dogwatch/copyright",
        "/usr/share/doc/dogwatch/survival.md",
        "/usr/share/doc/dogwatch/examples/python/app.py",
        "/usr/share/doc/dogwatch/examples/node/server.js",
        "/usr/share/doc/dogwatch/examples/systemd/myapp.service",
        "/usr/share/doc/dogwatch/examples/systemd/steered/myapp.socket.d/steered.conf",
    ] {
        assert_eq!(files.get(path).map(String::as_str), Some("-rw-r--r--"), "{path}");
    }
    // An app may be called 'myapp', and /etc is the administrator's.
    let theirs = |path: &&String| path.starts_with("/etc") || path.contains("/system/myapp");
    assert_eq!(files.keys().find(theirs), None);
    let fields = sh("dpkg-deb -f \"$1\" Version Depends Section", &[&deb]);
    let version = VERSIONS[0];
    assert!(fields.starts_with(&format!("Version: {version}-1\n")), "{fields}");
    assert!(fields.contains("libc6 (>= ") && fields.contains("libsystemd0"), "{fields}");
    let what = sh(
        "dpkg-deb -x \"$1\" \"$2\"; \"$2/usr/bin/dogwatch\" --version",
        &[&deb, tempfile::tempdir().unwrap().path()],
    );
    assert_eq!(what, format!("dogwatch {version}\n"));
}

#[test]
fn the_rpm_has_the_files_of_the_deb() {
    let (Some([deb, _]), Some([rpm, _])) = (both(".deb"), both(".rpm")) else { return };
    if !has("rpm", "rpm") || !has("dpkg-deb", "dpkg") {
        return;
    }
    let (mut debs, mut rpms) = (files_of_deb(&deb), files_of_rpm(&rpm));
    // Its script makes them; the next test sees that.
    assert!(LINKS.iter().all(|link| debs.remove(*link).is_some()));
    let documents = |files: &mut Files, names: &[&str]| {
        for name in names {
            assert!(files.remove(*name).is_some(), "{name}: {files:#?}");
        }
    };
    // What each distribution has in its own way.
    let doc = "/usr/share/doc/dogwatch";
    documents(
        &mut debs,
        &[
            "/usr/share/lintian/overrides/dogwatch",
            "/usr/share/zsh/vendor-completions/_dogwatch",
            &format!("{doc}/changelog.gz"),
            &format!("{doc}/changelog.Debian.gz"),
            &format!("{doc}/copyright"),
        ],
    );
    documents(
        &mut rpms,
        &[
            "/usr/share/zsh/site-functions/_dogwatch",
            &format!("{doc}/CHANGELOG.md"),
            "/usr/share/licenses/dogwatch/LICENSE-MIT",
            "/usr/share/licenses/dogwatch/LICENSE-APACHE",
        ],
    );
    assert_eq!(rpms, debs);
    let needs = sh("rpm -qp --requires \"$1\"", &[&rpm]);
    assert!(needs.contains("libsystemd.so.0(") && needs.contains("libc.so.6("), "{needs}");
    assert!(!needs.contains("libgcrypt"), "what libraries need is their own affair: {needs}");
}

#[test]
fn the_rpm_is_installed_upgraded_and_erased_without_a_trace() {
    let Some([rpm, later]) = both(".rpm").filter(|_| has("rpm", "rpm")) else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/roots/bookworm");
    if !nix::unistd::geteuid().is_root() || !root.join("usr/bin/sh").exists() {
        skip("rpm's scripts (root, and a root tree made by tests/roots)");
        return;
    }
    let script = r#"
        unshare -m --propagation private sh -ec '
            mount -t tmpfs tmpfs /mnt && cd /mnt && mkdir u w m
            mount -t overlay overlay -o "lowerdir=$3,upperdir=u,workdir=w" m
            rpm() { command rpm --root /mnt/m --dbpath /var/lib/rpm "$@" 2>&1 | sed "/^rpm: /d"; }
            all() { (cd m && find etc usr -xdev ! -type d -o -path "*dogwatch*" | sort); }
            all > before
            rpm --nodeps -i "$1" && rpm --nodeps -V dogwatch && all > first
            for link in system user; do readlink m/usr/lib/systemd/$link-generators/dogwatch-generator; done
            rpm --nodeps -U "$2" && rpm --nodeps -V dogwatch && all > second && rpm -q dogwatch
            cmp first second
            echo workers = 1 > m/etc/dogwatch/shop.toml
            rpm --nodeps -e dogwatch
            rm m/etc/dogwatch/shop.toml
            rpm --nodeps -i "$1" && rpm --nodeps -e dogwatch && all > after
            diff before after' sh "$@""#;
    let told = sh(script, &[&rpm, &later, &root]);
    let links = "../../../bin/dogwatch\n../../../bin/dogwatch\n";
    let later =
        format!("dogwatch-{}-1.x86_64\n", VERSIONS[1]).replace("x86_64", std::env::consts::ARCH);
    let kept =
        "dogwatch: /etc/dogwatch is kept, for these files are yours: /etc/dogwatch/shop.toml\n";
    assert_eq!(told, format!("{links}{later}{kept}"));
}

#[test]
fn the_pkgbuild_installs_what_the_deb_does() {
    let Some([deb, _]) = both(".deb").filter(|_| has("bash", "bash") && has("dpkg-deb", "dpkg"))
    else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let made: PathBuf = folder().join("arch");
    // As makepkg does it, but for the compiler: its program is that of the other packages.
    let script = r#"
        cp -R "$2" "$1/arch" && cd "$1/arch"
        bash -n PKGBUILD && bash -n dogwatch.install
        bash -ec '
            . ./PKGBUILD
            test "$pkgver" = "$1"
            echo "$sha256sums  $source" | sha256sum -c --quiet
            mkdir src pkg && tar -xf "$source" -C src
            srcdir=$PWD/src pkgdir=$PWD/pkg
            install -D "$2" "src/dogwatch-$pkgver/target/journal/release/dogwatch"
            declare -F build > /dev/null
            (cd "$srcdir" && package)
            . ./dogwatch.install
            declare -F post_install post_upgrade pre_remove post_remove' bash "$3" "$4""#;
    let program = folder().with_file_name("tree").join("dogwatch");
    let told = sh(script, &[place.path(), &made, Path::new(VERSIONS[0]), &program]);
    assert_eq!(told, "post_install\npost_upgrade\npre_remove\npost_remove\n");
    let (mut ours, mut debs) = (files_below(&place.path().join("arch/pkg")), files_of_deb(&deb));
    let own = |path: &String| {
        ["/zsh/", "/lintian/", "/licenses/", "/copyright", "/changelog", "/CHANGELOG.md"]
            .iter()
            .any(|part| path.contains(part))
    };
    ours.retain(|path, _| !own(path));
    debs.retain(|path, _| !own(path));
    assert_eq!(ours, debs);
}
