//! Process files as text: which format they are in, and what they hold.

use crate::cli::import::evaluate::{self, Interpreter};
use crate::cli::place::text;
use crate::cli::trouble::Unusable;
use serde_json::Value;
use std::path::Path;

/// What Node runs.
const PROGRAM: &str = include_str!("../evaluate.mjs");

/// The formats that PM2 reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Module,
    Json,
    Yaml,
}

impl Kind {
    fn of(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "js" | "cjs" | "mjs" => Some(Self::Module),
            // PM2 takes whatever has '.json' in its name.
            "json" | "json5" | "jsonc" => Some(Self::Json),
            "yml" | "yaml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

/// Returns what a process file holds. `absolute` is the same file, for Node.
///
/// # Errors
/// When it is no process file, or cannot be read.
pub(super) fn read(file: &Path, absolute: &Path) -> Result<Value, Unusable> {
    let text = text(file)?;
    let Some(kind) = Kind::of(file) else {
        let expected = "its name ends with none of .js, .cjs, .mjs, .json, .yml and .yaml";
        return Err(Unusable::from(expected));
    };
    match kind {
        Kind::Module => evaluate(absolute, kind),
        Kind::Json => serde_json::from_str(&text).or_else(|error| {
            // PM2 reads it as JavaScript, which allows comments, trailing commas and names without quotes.
            evaluate(absolute, kind).map_err(|unusable| match unusable.hint {
                Some(_) => Unusable::from(format!("not valid JSON: {error}"))
                    .hint("PM2 reads it as JavaScript; with 'node' on PATH this does, too"),
                None => unusable,
            })
        }),
        Kind::Yaml => yaml(&text),
    }
}

/// Has Node evaluate a file, as PM2 itself does it.
fn evaluate(absolute: &Path, kind: Kind) -> Result<Value, Unusable> {
    let by = Interpreter {
        name: "node",
        program: Path::new("node"),
        before: &["--input-type=module", "--eval", PROGRAM],
        after: &[if kind == Kind::Json { "json" } else { "module" }],
        port: None,
        variables: &[],
        remedy: "install Node, or write the file as JSON or YAML",
    };
    evaluate::evaluate(absolute, by)
}

/// Reads YAML as PM2's reader does: only 'true' and 'false' are flags, a name may be 'y' or 'on'.
fn yaml(text: &str) -> Result<Value, Unusable> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.to_string();
        let reason = error.lines().next().unwrap_or_default().trim_start_matches("error: ");
        if reason.contains("budget") {
            return Unusable::from("it holds more than a process file does, its aliases unfolded");
        }
        let reason = reason.replace(", set DuplicateKeyPolicy in Options if acceptable", "");
        Unusable::from(format!("not valid YAML: {reason}"))
    })
}
