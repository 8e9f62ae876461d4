//! README.md and docs/*.md as they are run. The word after a fence's language says where:
//!
//! | fence | what becomes of it |
//! |---|---|
//! | `sh here`, `sh box` | each command must succeed, on this machine in namespaces of its own, or as root in a booted box |
//! | `console here`, `console box` | the same for what follows `$ `; what stands below is what it says, where `...` is anything and a time is any time. A command may fail whose next is `echo $?` |
//! | … `serves` | the command goes on: until it has started, to the next of these or the end of the document |
//! | … `needs:PROGRAM` | the document is not run where that is missing |
//! | `sh unrun` | it is not run; `UNRUN` in tests/docs.rs says why |
//! | `<!-- sh box` | what a reader's machine has, for the blocks below: put there unseen, up to a line `-->` |
//! | any, with a path in a comment as its first line | the file of that path: in the box if it is absolute, else here |
//! | `toml` | is checked |
//!
//! State carries over, from the first block of a document to the last.

use regex::Regex;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A fenced block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// Where it begins, as `FILE:LINE`.
    pub(crate) place: String,
    /// The words behind the fence.
    pub(crate) words: Vec<String>,
    pub(crate) text: String,
}

impl Block {
    pub(crate) fn is(&self, word: &str) -> bool {
        self.words.iter().any(|known| known == word)
    }

    pub(crate) fn language(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    pub(crate) fn is_commands(&self) -> bool {
        ["sh", "console", "bash", "shell"].contains(&self.language())
    }

    /// The path that its first line names.
    pub(crate) fn path(&self) -> Option<&str> {
        if self.is_commands() {
            return None;
        }
        let first = self.text.lines().next()?;
        let path = ["# ", "// "].iter().find_map(|mark| first.strip_prefix(mark))?;
        let is_path = |c: char| c.is_ascii_alphanumeric() || "/._-@".contains(c);
        (path.chars().all(is_path) && path.contains('.')).then_some(path)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents, as paths below the repository.
pub(crate) fn documents() -> Vec<String> {
    let docs = std::fs::read_dir(root().join("docs")).unwrap().flatten();
    let docs = docs.map(|entry| format!("docs/{}", entry.file_name().to_string_lossy()));
    let mut all: Vec<String> = docs.filter(|name| name.ends_with(".md")).collect();
    all.extend(["README.md".to_owned(), "CONTRIBUTING.md".to_owned()]);
    all.sort();
    all
}

/// The fenced blocks of a document.
pub(crate) fn blocks(document: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(root().join(document)).unwrap();
    let mut blocks: Vec<Block> = vec![];
    let mut end = None;
    for (number, line) in text.lines().enumerate() {
        if let Some(mark) = end {
            if line == mark {
                end = None;
            } else {
                writeln!(blocks.last_mut().unwrap().text, "{line}").unwrap();
            }
            continue;
        }
        let marks = [("```", "```"), ("<!-- sh ", "-->")];
        let Some((_, mark)) = marks.iter().find(|(begin, _)| line.starts_with(begin)) else {
            continue;
        };
        end = Some(*mark);
        let words = line.trim_start_matches("<!-- ").trim_start_matches("```");
        let words = words.split_whitespace().map(str::to_owned).collect();
        let place = format!("{document}:{}", number + 1);
        blocks.push(Block { place, words, text: String::new() });
    }
    assert!(end.is_none(), "{document}: a block has no end");
    blocks
}

/// One command, or one block of them, and what it is to say.
struct Step {
    place: String,
    text: String,
    said: Vec<String>,
    may_fail: bool,
}

/// A document as one script.
pub(crate) struct Script {
    /// The programs without which it cannot be run.
    pub(crate) needs: Vec<String>,
    steps: Vec<Step>,
    pub(crate) text: String,
}

const HEAD: &str = r#"exec 2>&1 </dev/null
T=$(mktemp -d)
# As on a terminal, where it shows no progress either.
printf -- "-sS\n" > ~/.curlrc
server=
rest() {
    [ -z "$server" ] || { kill "$server"; wait "$server"; } || true
    server=
} 2>/dev/null
serve() {
    rest
    bash "$1" >"$1.log" 2>&1 &
    server=$!
    for i in $(seq 1200); do
        grep -q 'started: ' "$1.log" && { cat "$1.log"; return; }
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    cat "$1.log"
    return 1
}
"#;

impl Script {
    /// Returns what is to be run of a document in this place; `None` when there is nothing.
    pub(crate) fn new(document: &str, place: &str) -> Option<Self> {
        let blocks = blocks(document);
        if !blocks.iter().any(|block| block.is_commands() && block.is(place)) {
            return None;
        }
        let words = blocks.iter().filter(|block| block.is(place)).flat_map(|block| &block.words);
        let needs = words.filter_map(|word| word.strip_prefix("needs:")).map(str::to_owned);
        let mut this = Self { needs: needs.collect(), steps: vec![], text: HEAD.to_owned() };
        for block in &blocks {
            if let Some(path) = block.path()
                && path.starts_with('/') == (place == "box")
            {
                let put = format!(
                    "mkdir -p \"$(dirname {path})\"; cat > {path} <<'END_OF_FILE'\n{}END_OF_FILE",
                    block.text
                );
                this.step(&block.place, &put, vec![], false);
            } else if block.is_commands() && block.is(place) && block.is("serves") {
                let (command, said) = commands(block).swap_remove(0);
                let number = this.steps.len();
                let put = format!(
                    "cat > $T/{number} <<'END_OF_FILE'\nexec {command}\nEND_OF_FILE\nserve $T/{number}"
                );
                this.step(&block.place, &put, said, false);
            } else if block.is_commands() && block.is(place) {
                let commands = commands(block);
                for (number, (command, said)) in commands.iter().enumerate() {
                    let next = commands.get(number + 1).map(|(next, _)| next.as_str());
                    let may_fail = next == Some("echo $?");
                    this.step(&block.place, command, said.clone(), may_fail);
                }
            }
        }
        this.text.push_str("rest\n");
        Some(this)
    }

    fn step(&mut self, place: &str, command: &str, said: Vec<String>, may_fail: bool) {
        let number = self.steps.len();
        // The status of the last one is carried round our own words, for 'echo $?'.
        let before = if command == "echo $?" { "(exit $status)" } else { "set -e" };
        let before = if may_fail { "set +e" } else { before };
        let _ = writeln!(
            self.text,
            "printf '\\n\\036begin {number}\\n'\n{before}\n{command}\nstatus=$?\nset +e\nprintf '\\n\\036end {number} %s\\n' $status"
        );
        let place = place.to_owned();
        self.steps.push(Step { place, text: command.to_owned(), said, may_fail });
    }

    /// Compares what was said with what is promised, and returns what is wrong.
    pub(crate) fn wrong(&self, output: &str) -> Vec<String> {
        for (number, step) in self.steps.iter().enumerate() {
            let (begin, end) =
                (format!("\u{1e}begin {number}\n"), format!("\n\u{1e}end {number} "));
            let said = output.split_once(&begin).map_or("it was not reached", |(_, rest)| rest);
            let failed = |why: &str, said: &str| {
                vec![format!("{}: {why}\n{}\nit said:\n{said}", step.place, step.text)]
            };
            let Some((said, rest)) = said.split_once(&end) else { return failed("failed", said) };
            let status = rest.lines().next().unwrap_or_default();
            if status != "0" && !step.may_fail {
                return failed(&format!("failed with {status}"), said);
            }
            if !step.said.is_empty() && !pattern(&step.said).is_match(said.trim_end()) {
                let promised = step.said.join("\n");
                return failed(&format!("is to say\n{promised}\nand does not"), said);
            }
        }
        vec![]
    }
}

/// The commands of a block, each with the lines that it is to say.
fn commands(block: &Block) -> Vec<(String, Vec<String>)> {
    if block.language() != "console" {
        return vec![(block.text.trim_end().to_owned(), vec![])];
    }
    let mut all: Vec<(String, Vec<String>)> = vec![];
    for line in block.text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            all.push((command.trim().to_owned(), vec![]));
        } else if let Some((command, said)) = all.last_mut() {
            match line.strip_prefix("> ") {
                Some(more) if said.is_empty() => {
                    command.push('\n');
                    command.push_str(more);
                }
                _ => said.push(line.to_owned()),
            }
        }
    }
    assert!(!all.is_empty(), "{}: there is no line with '$ '", block.place);
    all
}

/// Returns what matches these lines: `...` is anything, a time any time, a gap any gap.
fn pattern(lines: &[String]) -> Regex {
    let time = Regex::new(r"\b[0-9]+(\\\.[0-9]+)?(ms|µs|s|min)\b").unwrap();
    let pid = Regex::new(r"\bpid [0-9]+").unwrap();
    let gap = Regex::new(r" +").unwrap();
    let lines = lines.iter().map(|line| {
        if line.trim() == "..." {
            return r"(?:.*\n)*?.*".to_owned();
        }
        let line = regex::escape(line.trim_end()).replace(r"\.\.\.", ".*");
        let line = time.replace_all(&line, r"[0-9.]+(ms|µs|s|min)( [0-9.]+(ms|µs|s))*");
        let line = pid.replace_all(&line, "pid [0-9]+");
        gap.replace_all(&line, r"\s+").into_owned()
    });
    let lines: Vec<String> = lines.collect();
    Regex::new(&format!(r"\A\s*{}\s*\z", lines.join(r"[ \t]*\n"))).unwrap()
}

/// What the documents start from: the examples.
pub(crate) fn put_examples(folder: &Path) {
    for name in ["examples", "systemd"] {
        copy(&root().join(name), &folder.join(name));
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (path, to): (PathBuf, PathBuf) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(path, to).unwrap();
        }
    }
}
