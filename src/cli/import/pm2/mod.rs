//! Process files of PM2: one file of ours for each app.

mod attributes;
mod command;
mod document;
mod elsewhere;
mod environment;
mod lifecycle;
mod read;
#[cfg(test)]
mod tests;
mod translate;
mod words;

use super::Imported;
use crate::cli::place::Place;
use crate::cli::trouble::Unusable;
use document::Document;
use translate::{Translation, Wanted, translate};

/// Translates a process file; `environment` is that of `--env`.
///
/// # Errors
/// Why it cannot be used.
pub(super) fn translated(place: &Place, environment: Option<&str>) -> Result<Imported, Unusable> {
    let absolute = place.folder.join(place.file.file_name().unwrap_or_default());
    let mut document = Document::new(read::read(&place.file, &absolute)?)?;
    if let Some(name) = environment {
        document.has(name)?;
    }
    let mut imported = Imported { drafts: vec![], remarks: std::mem::take(&mut document.remarks) };
    let apps = std::mem::take(&mut document.apps);
    let deployed = environment.and_then(|name| document.deployed(name));
    for app in apps {
        match translate(app, Wanted { place, environment, deployed })? {
            Translation::File(draft) => imported.drafts.push(draft),
            Translation::None(reason) => imported.remarks.push(reason),
        }
    }
    Ok(imported)
}
