//! Process files as text: which format they are in, and what they hold.

use super::Unusable;
use super::node;
use serde_json::Value;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// No process file is larger.
const LARGEST: u64 = 1024 * 1024;

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
        Kind::Module => node::evaluate(absolute, kind),
        Kind::Json => serde_json::from_str(&text).or_else(|error| {
            // PM2 reads it as JavaScript, which allows comments, trailing commas and names without quotes.
            node::evaluate(absolute, kind).map_err(|unusable| match unusable.hint {
                Some(_) => Unusable::from(format!("not valid JSON: {error}"))
                    .hint("PM2 reads it as JavaScript; with 'node' on PATH this does, too"),
                None => unusable,
            })
        }),
        Kind::Yaml => yaml(&text),
    }
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

fn text(file: &Path) -> Result<String, Unusable> {
    let cannot = |e: std::io::Error| Unusable::from(e.to_string());
    let metadata = std::fs::metadata(file).map_err(cannot)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "it is a directory" } else { "it is not a regular file" };
        return Err(Unusable::from(what));
    }
    let mut bytes = vec![];
    File::open(file).map_err(cannot)?.take(LARGEST + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Unusable::from("it is larger than 1 MB, which no process file is"));
    }
    let text = String::from_utf8(bytes).map_err(|_| Unusable::from("it is not UTF-8"))?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}
