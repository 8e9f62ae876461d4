//! What README.md and docs/ say is so: every block of commands is run, every file is checked, every link leads somewhere,
//! and the references are complete. tests/support/docs.rs tells how a block says where it is run; those for a booted
//! system are run in tests/systemd/docs.rs.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests may wait, spawn and explain"
)]

mod support;

use std::path::Path;
use std::process::Command;
use support::docs::{Script, blocks, documents, put_examples};
use support::{dogwatch, load_client, skip};

/// What is not run, by how it begins, and why.
const UNRUN: [(&str, &str); 5] = [
    ("tests/run", "it is what runs this"),
    ("cargo nextest run --test", "the same"),
    ("BLESS=1", "the same, and it would make every reference right"),
    ("docker run", "tests/container.rs does the same with namespaces, for which no engine is needed"),
    ("sudo apt install ./dogwatch_", "the packages' own tests install them"),
];

/// Programs that stand for others.
const SHIMS: [(&str, &str); 2] = [
    ("sudo", "exec \"$@\""),
    // The program is built already.
    ("cargo", "[ \"$1 $2 $3\" = 'run --release --' ] && shift 3 && exec dogwatch \"$@\"; exit 1"),
];

/// Runs what a document says of this machine, with a network, processes and a /run of its own.
fn run_here(document: &str) {
    let Some(script) = Script::new(document, "here") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (bin, work) = (folder.path().join("bin"), folder.path().join("work"));
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::create_dir_all(&work).unwrap();
    put_examples(&work);
    std::os::unix::fs::symlink(dogwatch(), bin.join("dogwatch")).unwrap();
    let hello = load_client().with_file_name("hello");
    std::os::unix::fs::symlink(hello, bin.join("hello")).unwrap();
    for (name, text) in SHIMS {
        support::put_program(&bin.join(name), text);
    }
    std::fs::write(folder.path().join("script"), &script.text).unwrap();
    let is_root = nix::unistd::geteuid().is_root();
    let namespaces = ["-m", "-n", "-p", "-i", "--fork", "--kill-child", "--mount-proc"];
    let unshared = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(if is_root { &[][..] } else { &["-r"] }).args(namespaces);
        unshare.args(["bash", "-c", command]).current_dir(&work);
        unshare
    };
    if !unshared("true").status().is_ok_and(|status| status.success()) {
        skip(&format!("{document}: namespaces, for its commands"));
        return;
    }
    let begin = "ip link set lo up; mount -t tmpfs tmpfs /run; exec timeout 120 bash ../script";
    // Node as tests/node/install brings it, or the machine's.
    let node = support::node(22).and_then(|node| Some(node.parent()?.to_owned()));
    let paths = [bin].into_iter().chain(node).map(|path| path.display().to_string());
    let path = paths.chain(std::env::var("PATH")).collect::<Vec<_>>().join(":");
    let output = unshared(begin)
        .env_clear()
        .envs([("PATH", path.as_str()), ("HOME", work.to_str().unwrap()), ("LANG", "C.UTF-8")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let wrong = script.wrong(&said);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_command_for_this_machine_works() {
    for document in documents() {
        run_here(&document);
    }
}

#[test]
fn every_block_of_commands_says_where_it_is_run() {
    let mut unrun = vec![];
    for block in documents().iter().flat_map(|document| blocks(document)) {
        let places = ["here", "box", "unrun"].iter().filter(|word| block.is(word)).count();
        assert_eq!(places, usize::from(block.is_commands()), "{}: {:?}", block.place, block.words);
        if block.is("unrun") {
            unrun.push(block);
        }
    }
    for block in &unrun {
        let first = block.text.lines().next().unwrap_or_default();
        let is_known = UNRUN.iter().any(|(begin, _)| first.starts_with(begin));
        assert!(is_known, "{}: nobody says why '{first}' is not run", block.place);
    }
    for (begin, _) in UNRUN {
        let is_there = unrun.iter().any(|block| block.text.starts_with(begin));
        assert!(is_there, "no document has '{begin}'");
    }
    // Indented blocks would not be found.
    for document in documents() {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&document));
        let mut last = "";
        for (number, line) in text.unwrap().lines().enumerate() {
            let is_indented = line.starts_with("    ") && last.is_empty();
            assert!(!is_indented, "{document}:{}: a block without a fence", number + 1);
            last = if line.starts_with("    ") { last } else { line };
        }
    }
}

#[test]
fn every_file_is_a_good_one() {
    for block in documents().iter().flat_map(|document| blocks(document)) {
        if block.language() != "toml" {
            continue;
        }
        let typed = dogwatch::config::file::parse(&block.place, &block.text);
        let typed = typed.unwrap_or_else(|e| panic!("{e:?}"));
        if typed.command.is_some() {
            let settings = dogwatch::config::Settings::new(typed, 4);
            assert!(settings.is_ok(), "{}: {settings:?}", block.place);
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let link = regex::Regex::new(r"\]\(([^)#: ]+)(#[^)]*)?\)").unwrap();
    for document in documents() {
        let text = std::fs::read_to_string(root.join(&document)).unwrap();
        let folder = root.join(&document).parent().unwrap().to_owned();
        for found in link.captures_iter(&text) {
            assert!(folder.join(&found[1]).exists(), "{document}: there is no '{}'", &found[1]);
        }
    }
}
