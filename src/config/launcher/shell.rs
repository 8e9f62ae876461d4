//! A script's text as the shell would take it apart: far enough to know whether it takes a shell at all, and which
//! commands it runs.

use super::Refused;

/// A word of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Without quotes.
    pub(super) text: String,
    /// Where it begins and ends in the script.
    pub(super) span: (usize, usize),
    /// The shell would put something else here: a variable, names of files.
    pub(super) expands: bool,
    /// It is an assignment where the command begins.
    is_assignment: bool,
}

/// One command: what is before an operator.
#[derive(Clone, Debug, Default)]
pub(super) struct Command {
    pub(super) assignments: Vec<Word>,
    /// Without a leading `exec`.
    pub(super) words: Vec<Word>,
    pub(super) has_exec: bool,
    pub(super) redirects: bool,
    /// What stands behind it.
    pub(super) operator: Option<&'static str>,
}

/// A script.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    pub(super) commands: Vec<Command>,
    /// There is more than commands in a row: a subshell, a loop, a substitution.
    pub(super) is_complex: bool,
    has_comment: bool,
}

/// Words that begin more than a command.
const KEYWORDS: [&str; 14] = [
    "if", "then", "else", "fi", "for", "while", "until", "do", "done", "case", "esac", "{", "}",
    "!",
];
/// What only a shell can do.
const BUILTINS: [&str; 21] = [
    ".", ":", "[", "cd", "command", "echo", "eval", "exit", "export", "false", "printf", "read",
    "set", "shift", "source", "test", "time", "trap", "true", "ulimit", "umask",
];

impl Command {
    pub(super) fn argv(&self) -> Vec<String> {
        self.words.iter().map(|word| word.text.clone()).collect()
    }

    /// The assignments before it.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let split =
            |word: &Word| word.text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        self.assignments.iter().filter_map(split).collect()
    }

    /// The shell puts nothing else in place of its words.
    pub(super) fn is_literal(&self) -> bool {
        !self.redirects && !self.assignments.iter().chain(&self.words).any(|word| word.expands)
    }

    pub(super) fn changes_directory(&self) -> bool {
        self.words.first().is_some_and(|word| ["cd", "pushd", "popd"].contains(&&*word.text))
    }
}

impl Script {
    pub(super) fn parse(text: &str) -> Result<Self, Refused> {
        let mut reader = Reader { text, at: 0, script: Self::default() };
        reader.read()?;
        let mut script = reader.script;
        let is_keyword = |command: &Command| {
            command.words.first().is_some_and(|word| KEYWORDS.contains(&&*word.text))
        };
        script.is_complex |= script.commands.iter().any(is_keyword);
        Ok(script)
    }

    /// The only command, where the text is one that needs no shell.
    pub(super) fn simple(&self) -> Option<&Command> {
        let [command] = &*self.commands else {
            return None;
        };
        let builtin = command.words.first().is_some_and(|word| BUILTINS.contains(&&*word.text));
        let simple = command.is_literal() && command.operator.is_none() && !builtin;
        (simple && !self.is_complex && !self.has_comment).then_some(command)
    }

    pub(super) fn has_pipe(&self) -> bool {
        self.commands.iter().any(|command| command.operator == Some("|"))
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    script: Script,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), Refused> {
        let mut command = Command::default();
        let mut is_target = false;
        while let Some(c) = self.peek() {
            match c {
                '#' => {
                    self.script.has_comment = true;
                    self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at);
                }
                '\n' | ';' | '&' | '|' => {
                    command.operator = Some(self.operator());
                    self.script.commands.push(std::mem::take(&mut command));
                }
                '<' | '>' => {
                    self.redirect();
                    command.redirects = true;
                    is_target = true;
                }
                '(' | ')' => {
                    self.script.is_complex = true;
                    self.at += 1;
                }
                c if c.is_whitespace() => self.at += c.len_utf8(),
                _ => {
                    let word = self.word()?;
                    let is_number = word.text.bytes().all(|b| b.is_ascii_digit());
                    let is_descriptor = is_number && matches!(self.peek(), Some('<' | '>'));
                    if !std::mem::take(&mut is_target) && !is_descriptor {
                        place(&mut command, word);
                    }
                }
            }
        }
        if !command.words.is_empty() || !command.assignments.is_empty() || command.redirects {
            self.script.commands.push(command);
        }
        // Two line ends, or a ';' at the end.
        self.script.commands.retain(|command| {
            !command.words.is_empty() || !command.assignments.is_empty() || command.redirects
        });
        Ok(())
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn operator(&mut self) -> &'static str {
        let rest = &self.text[self.at..];
        let found = ["&&", "||", "|", ";", "&"].into_iter().find(|op| rest.starts_with(op));
        self.at += found.map_or(1, str::len);
        found.unwrap_or(";")
    }

    fn redirect(&mut self) {
        let rest = &self.text[self.at..];
        self.script.is_complex |= rest.starts_with("<<");
        self.at += rest.find(|c| !"<>&|".contains(c)).unwrap_or(rest.len());
    }

    fn word(&mut self) -> Result<Word, Refused> {
        let start = self.at;
        let mut text = String::new();
        let mut expands = self.peek() == Some('~');
        while let Some(c) = self.peek() {
            if c.is_whitespace() || ";&|<>()".contains(c) {
                break;
            }
            self.at += c.len_utf8();
            match c {
                '\'' => self.quoted(&mut text)?,
                '"' => expands |= self.double_quoted(&mut text)?,
                '\\' => text.extend(self.next().filter(|c| *c != '\n')),
                _ => {
                    expands |= "$`*?[".contains(c);
                    self.substitutes(c);
                    text.push(c);
                }
            }
        }
        let name = self.text[start..self.at].split_once('=').map(|(name, _)| name);
        let is_assignment = name.is_some_and(super::super::values::is_variable_name);
        Ok(Word { text, span: (start, self.at), expands, is_assignment })
    }

    fn substitutes(&mut self, c: char) {
        self.script.is_complex |= c == '`' || (c == '$' && self.peek() == Some('('));
    }

    fn quoted(&mut self, text: &mut String) -> Result<(), Refused> {
        let rest = &self.text[self.at..];
        let end = rest.find('\'').ok_or_else(|| Refused::new("a quote does not end".to_owned()))?;
        text.push_str(&rest[..end]);
        self.at += end + 1;
        Ok(())
    }

    /// Returns whether the shell would put something else there.
    fn double_quoted(&mut self, text: &mut String) -> Result<bool, Refused> {
        let mut expands = false;
        while let Some(c) = self.next() {
            match c {
                '"' => return Ok(expands),
                '\\' => match self.next() {
                    Some('\n') | None => {}
                    Some(c @ ('"' | '\\' | '$' | '`')) => text.push(c),
                    Some(c) => text.extend(['\\', c]),
                },
                _ => {
                    expands |= "$`".contains(c);
                    self.substitutes(c);
                    text.push(c);
                }
            }
        }
        Err(Refused::new("a quote does not end".to_owned()))
    }
}

fn place(command: &mut Command, word: Word) {
    if word.is_assignment && command.words.is_empty() && !command.has_exec {
        command.assignments.push(word);
    } else if word.text == "exec" && command.words.is_empty() && !command.has_exec {
        command.has_exec = true;
    } else {
        command.words.push(word);
    }
}

/// A word as the shell takes it back.
pub(super) fn quote(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_-+=:,./@%^".contains(c);
    if !word.is_empty() && word.chars().all(safe) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simple(text: &str) -> Option<Vec<String>> {
        let script = Script::parse(text).unwrap();
        let command = script.simple()?;
        let set = command.variables().into_iter().map(|(k, v)| format!("{k}={v}"));
        Some(set.chain(command.argv()).collect())
    }

    #[test]
    fn words_are_the_shells() {
        for (text, words) in [
            ("node server.js", &["node", "server.js"][..]),
            ("  node\t'a b' \"c d\"e ", &["node", "a b", "c de"]),
            ("A=1 B='x y' node \"\" x=2", &["A=1", "B=x y", "node", "", "x=2"]),
            (r#"node a\ b "q\"\$" '\n' "\n""#, &["node", "a b", "q\"$", "\\n", "\\n"]),
            ("exec node 'a;b' 'c*' \"d|e\"", &["node", "a;b", "c*", "d|e"]),
            ("node x#y", &["node", "x#y"]),
            ("node é", &["node", "é"]),
        ] {
            assert_eq!(simple(text).as_deref().unwrap(), words, "{text}");
        }
    }

    #[test]
    fn what_takes_a_shell_is_left_to_one() {
        for text in [
            "a && b",
            "a; b",
            "a | b",
            "a &",
            "node $X",
            "node \"$X\"",
            "node *.js",
            "node ~/x",
            "node > log",
            "node 2>&1",
            "cd x",
            "(node x)",
            "node `x`",
            "node x # y",
            "if x",
            "node x;",
            "a\nb",
            "",
        ] {
            assert_eq!(simple(text), None, "{text}");
        }
    }

    #[test]
    fn commands_are_told_apart() {
        let script = Script::parse("A=1 tsc -p . && node 'a&&b' 2>&1 >x | tee y; exec z").unwrap();
        let all: Vec<_> =
            script.commands.iter().map(|c| (c.argv().join(" "), c.operator)).collect();
        assert_eq!(
            all,
            [
                ("tsc -p .".to_owned(), Some("&&")),
                ("node a&&b".to_owned(), Some("|")),
                ("tee y".to_owned(), Some(";")),
                ("z".to_owned(), None),
            ]
        );
        assert!(script.has_pipe() && !script.is_complex && script.commands[3].has_exec);
        assert!(Script::parse("node $(which x)").unwrap().is_complex);
        assert!(Script::parse("node \"$(which x)\"").unwrap().is_complex);
    }

    #[test]
    fn a_quote_that_does_not_end_is_no_script() {
        for text in ["node 'x", "node \"x", "node \"x\\"] {
            assert_eq!(Script::parse(text).unwrap_err().reason, "a quote does not end");
        }
    }

    #[test]
    fn quoted_words_read_back() {
        for word in ["", "a b", "it's", "$x", "plain-1.0", "\"", "*"] {
            assert_eq!(simple(&format!("node {}", quote(word))).unwrap(), ["node", word]);
        }
    }
}
