//! A script's text: what becomes of it when it is started without the launcher.

use super::shell::{self, Command, Script};
use super::tools::{self, Tool};
use super::{Refused, Resolver, SHOWN, Step, behind_env, cut};

/// A longer script is no command that somebody wrote; the kernel passes no word longer than twice that.
const LONGEST: usize = 64 << 10;
/// Takes the channel away from a command that is not the program itself: given one, a Node program stays for ever.
const WITHOUT_CHANNEL: &str =
    "env -u NODE_CHANNEL_FD -u NODE_UNIQUE_ID -u NODE_CHANNEL_SERIALIZATION_MODE ";

impl Resolver<'_> {
    /// Takes a line of a script, with arguments that were added to it.
    pub(super) fn line(&mut self, text: &str, arguments: &[String]) -> Result<Step, Refused> {
        let mut text = text.trim().to_owned();
        for argument in arguments {
            text = format!("{text} {}", shell::quote(argument));
        }
        if text.len() > LONGEST {
            return Err(Refused::new(format!("the script is longer than {} KiB", LONGEST >> 10)));
        }
        let script = Script::parse(&text)?;
        if let Some(command) = script.simple() {
            self.variables.extend(command.variables());
            if command.words.is_empty() {
                return Err(Refused::new("the script starts no program".to_owned()));
            }
            return Ok(Step::Again(command.argv()));
        }
        if script.commands.is_empty() {
            return Err(Refused::new("the script is empty".to_owned()));
        }
        let line = self.in_shell(text, &script)?;
        Ok(Step::Done(vec!["/bin/sh".to_owned(), "-c".to_owned(), line]))
    }

    /// Returns the line for the shell in which the last Node program has the channel, and no other.
    fn in_shell(&mut self, text: String, script: &Script) -> Result<String, Refused> {
        let all = &script.commands;
        let nodes: Vec<usize> = (0..all.len()).filter(|at| self.is_node(&all[*at])).collect();
        let Some(last) = nodes.last().copied() else {
            return Ok(text);
        };
        if all[..last].iter().any(Command::changes_directory) && asks_folder(&all[last]) {
            return Err(elsewhere(&text, &all[last]));
        }
        let keeps = self.keeps_channel(&all[last])?;
        if script.is_complex {
            return if nodes.len() == 1 && !keeps { Ok(text) } else { Err(too_much(&text)) };
        }
        if script.has_pipe() && nodes.len() > 1 {
            return Err(piped(&all[nodes[0]]));
        }
        let mut line = text.clone();
        // From the end, so that places before it stay where they are.
        let is_end = last + 1 == all.len() && all[last].operator.is_none();
        let is_piped = last > 0 && all[last - 1].operator == Some("|");
        let exec = if is_end && !is_piped && !all[last].has_exec { "exec " } else { "" };
        let (start, end) = span(&all[last]);
        if keeps {
            if !all[last].is_literal() {
                return Err(too_much(&text));
            }
            line.replace_range(start..end, &self.nested(&all[last], exec)?);
        } else {
            line.insert_str(start, exec);
        }
        for at in nodes.iter().rev().skip(1) {
            line.insert_str(span(&all[*at]).0, WITHOUT_CHANNEL);
        }
        Ok(line)
    }

    /// Whether a command is a Node program, as far as its name tells: it would take the channel.
    fn is_node(&self, command: &Command) -> bool {
        let argv = command.argv();
        let Some(name) = behind_env(&argv).first() else {
            return false;
        };
        let script = [".js", ".mjs", ".cjs"].iter().any(|end| name.ends_with(end));
        let tool = Tool::named(name).is_some();
        tool || script || name.contains("node_modules/") || self.installed(name).is_some()
    }

    /// Whether a command is a launcher, or is refused.
    fn keeps_channel(&mut self, command: &Command) -> Result<bool, Refused> {
        let argv = command.argv();
        let (variables, path) = (self.variables.len(), self.path.len());
        let step = self.step(argv.clone());
        self.variables.truncate(variables);
        self.path.truncate(path);
        match step? {
            Step::Done(same) => Ok(same != argv),
            Step::Again(_) => Ok(true),
        }
    }

    /// What a launcher among other commands would start, as the shell takes it.
    fn nested(&mut self, command: &Command, exec: &str) -> Result<String, Refused> {
        let (set, folder) = (self.variables.len(), self.folder.clone());
        let argv = self.resolve(command.argv())?;
        if self.folder != folder {
            return Err(too_much(&command.argv().join(" ")));
        }
        let variables = self.variables.split_off(set);
        let set = variables.iter().map(|(name, value)| format!("{name}={}", shell::quote(value)));
        let exec = match exec {
            // `exec` takes no assignments.
            "exec " if !variables.is_empty() => "exec env ",
            exec => exec,
        };
        let words: Vec<String> = set.chain(argv.iter().map(|word| shell::quote(word))).collect();
        Ok(format!("{exec}{}", words.join(" ")))
    }
}

/// Where a command stands, without what is before its name.
fn span(command: &Command) -> (usize, usize) {
    let start = command.words.first().map_or(0, |word| word.span.0);
    (start, command.words.last().map_or(start, |word| word.span.1))
}

/// Whether what a command starts depends on the folder that it is in.
fn asks_folder(command: &Command) -> bool {
    let argv = command.argv();
    match behind_env(&argv).first().and_then(|word| Tool::named(word)) {
        None | Some(Tool::Node | Tool::TsNode | Tool::Keeps(_)) => false,
        Some(
            Tool::Npm
            | Tool::Npx
            | Tool::Yarn
            | Tool::Pnpm
            | Tool::Pnpx
            | Tool::Corepack
            | Tool::Env
            | Tool::CrossEnv
            | Tool::CrossEnvShell
            | Tool::Tsx,
        ) => true,
    }
}

fn elsewhere(text: &str, last: &Command) -> Refused {
    let instead = tools::instead(&last.argv());
    Refused {
        reason: format!("'{}' starts it in another folder", cut(text, SHOWN)),
        hint: Some(format!("set 'working-directory' to that folder, and {instead}")),
    }
}

fn too_much(text: &str) -> Refused {
    Refused {
        reason: format!(
            "'{}' does too much to tell which program is to have the channel",
            cut(text, SHOWN)
        ),
        hint: Some(
            "write the program itself, as in command = [\"node\", \"server.js\"]".to_owned(),
        ),
    }
}

fn piped(first: &Command) -> Refused {
    Refused {
        reason: "both ends of the pipe are Node programs, and one channel cannot serve both"
            .to_owned(),
        hint: Some(format!(
            "what workers print is logged as it is: {}",
            tools::instead(&first.argv())
        )),
    }
}
