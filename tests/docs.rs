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
use support::{dogwatch, load_client, skip, which};

/// What is not run, by how it begins, and why.
const UNRUN: [(&str, &str); 5] = [
    ("tests/run", "it is what runs this"),
    ("cargo nextest run --test", "the same"),
    ("BLESS=1", "the same, and it would make every reference right"),
    (
        "docker run",
        "tests/container.rs does the same with namespaces, for which no engine is needed",
    ),
    ("sudo apt install libsystemd-dev", "the packages' own tests build and install them"),
];

/// Programs that stand for others.
const SHIMS: [(&str, &str); 2] = [
    ("sudo", "exec \"$@\""),
    // The program is built already.
    ("cargo", "[ \"$1 $2 $3\" = 'run --release --' ] && shift 3 && exec dogwatch \"$@\"; exit 1"),
];

/// Runs what a document says of this machine, with a network, processes and a /run of its own.
fn run_here(document: &str, shims: &Path) {
    let Some(script) = Script::new(document, "here") else { return };
    let missing = script.needs.iter().find(|program| which(program).is_none());
    if let Some(program) = missing {
        skip(&format!("{document}: {program}, for its commands"));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (bin, work) = (folder.path().join("bin"), folder.path().join("work"));
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::create_dir_all(&work).unwrap();
    put_examples(&work);
    std::os::unix::fs::symlink(dogwatch(), bin.join("dogwatch")).unwrap();
    let hello = load_client().with_file_name("hello");
    std::os::unix::fs::symlink(hello, bin.join("hello")).unwrap();
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
    let begin = "ip link set lo up; mount -t tmpfs tmpfs /run; exec timeout 200 bash ../script";
    // Node as tests/node/install brings it, or the machine's.
    let node = support::node(22).and_then(|node| Some(node.parent()?.to_owned()));
    let paths =
        [bin, shims.to_owned()].into_iter().chain(node).map(|path| path.display().to_string());
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
    // Before there are threads: what one has open for writing nobody can execute, and who forks beside it has it open too.
    let shims = tempfile::tempdir().unwrap();
    for (name, text) in SHIMS {
        support::put_program(&shims.path().join(name), text);
    }
    // Most of the time is waiting.
    std::thread::scope(|scope| {
        for document in documents() {
            let shims = shims.path();
            scope.spawn(move || run_here(&document, shims));
        }
    });
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
        let (mut last, mut is_fenced) = ("", false);
        for (number, line) in text.unwrap().lines().enumerate() {
            is_fenced ^= line.trim_start().starts_with("```");
            if is_fenced {
                continue;
            }
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

fn read(document: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap()
}

/// Runs `dogwatch` with these arguments and returns what it prints.
fn said(arguments: &[&str]) -> String {
    let output = Command::new(dogwatch()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The verbs, as `--help` lists them.
fn verbs() -> Vec<String> {
    let help = said(&["--help"]);
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let list = list.split_once("\n\n").unwrap().0.lines();
    list.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn the_reference_of_the_file_has_every_key() {
    let text = read("docs/reference-toml.md");
    let tables = ["unit", "service", "socket"].map(str::to_owned);
    for key in dogwatch::config::typed::Typed::keys().into_iter().chain(tables) {
        assert!(text.contains(&format!("\n| `{key}` |")), "'{key}' is missing");
    }
    let hardening = read("docs/hardening.md");
    for key in dogwatch::config::typed::Sandbox::keys() {
        assert!(hardening.contains(&format!("`{key}`")), "'sandbox.{key}' is missing");
    }
}

#[test]
fn the_reference_of_the_command_line_is_what_help_says() {
    let mut text = "# The command line\n\nWhat `--help` says, for each verb. `APP` is the name of an app: that of its file without `.toml`, \
                    or what `--name` said; `APP/3` is its slot 3.\nExit codes: 0 done, 1 failed (rolled back, refused), 2 usage or invalid \
                    configuration, 3 not running, 4 no such slot.\nErrors are `cannot X 'name': reason`, then what happens instead, and at most \
                    one `hint:`.\n"
        .to_owned();
    for verb in verbs() {
        let help = said(&[&verb, "--help"]);
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        text.push_str(&format!("\n## {verb}\n\n```text\n{}\n```\n", help.join("\n").trim_end()));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference-cli.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "it is not; 'BLESS=1 cargo nextest run --test docs' writes it anew");
}

#[test]
fn every_verb_that_a_document_names_is_one() {
    let verbs = verbs();
    let hidden = ["demo-worker", "release-cgroup", "VERB", "--help", "--version"];
    let named = regex::Regex::new(r"`(?:sudo )?dogwatch ([^ `]+)").unwrap();
    for document in documents() {
        for found in named.captures_iter(&read(&document)) {
            let is_known =
                verbs.iter().any(|verb| verb == &found[1]) || hidden.contains(&&found[1]);
            assert!(is_known, "{document}: there is no verb '{}'", &found[1]);
        }
    }
    let every_day = read("README.md");
    for verb in &verbs {
        let ways = [format!("dogwatch {verb}"), format!("`{verb} APP"), format!("-- {verb}")];
        let is_there = ways.iter().any(|way| every_day.contains(way));
        assert!(is_there, "README.md has no '{verb}'");
    }
}

#[test]
fn the_references_of_what_programs_read_have_every_name() {
    let interface = include_str!("../src/protocol/control/org.dogwatch.Control.varlink");
    let varlink = read("docs/reference-varlink.md");
    for line in interface.lines() {
        let mut words = line.split([' ', '(']);
        if let (Some("method" | "error" | "type"), Some(name)) = (words.next(), words.next()) {
            assert!(varlink.contains(&format!("`{name}`")), "'{name}' is missing");
        }
    }
    let json = read("docs/reference-json.md");
    let schema: serde_json::Value = serde_json::from_str(&read("docs/json-schema.json")).unwrap();
    for name in properties(&schema) {
        assert!(json.contains(&format!("`{name}`")), "'{name}' is missing");
    }
}

/// The names of all fields of a schema.
fn properties(schema: &serde_json::Value) -> Vec<String> {
    let mut names = vec![];
    if let Some(all) = schema.get("properties").and_then(serde_json::Value::as_object) {
        names.extend(all.keys().cloned());
    }
    let object = schema.as_object().into_iter().flat_map(|object| object.values());
    let inner = object.chain(schema.as_array().into_iter().flatten());
    names.extend(inner.flat_map(properties));
    names.sort();
    names.dedup();
    names
}
