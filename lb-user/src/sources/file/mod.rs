//! The file source: `--config FILE or DIR`.
//!
//! Files hold YAML or JSON documents, any number each: ours ([`ours`]) and Kubernetes' objects ([`kubernetes`]).
//! Both are read into drafts, which [`assemble`] checks against each other and makes the model of. An error in
//! one of ours refuses everything; a bad object of Kubernetes is left out and reported.

mod assemble;
mod kubernetes;
mod native;
mod places;
mod read;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use self::read::MAX_BYTES;
use self::{
    assemble::Drafts,
    places::Places,
    read::{read, unreadable},
};
use super::{
    problem::{LoadError, Place, Problem, Report},
    yaml,
};
use crate::model::Model;

/// What a config came to.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Desired state. Services that name no address have none yet; see
    /// [`Allocations`](crate::model::addresses::Allocations).
    pub model: Model,
    /// Objects of Kubernetes that are left out, and why.
    pub problems: Vec<Problem>,
}

/// Reads a file, or the `*.yaml`, `*.yml` and `*.json` files of a directory in the order of their names.
///
/// # Errors
/// A file cannot be read, is not YAML, or has a document of ours that is wrong; all that was found.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    load_as(path, path)
}

/// As [`load`], with files named as those of `name` in what is said.
///
/// # Errors
/// As those of [`load`].
pub fn load_as(path: &Path, name: &Path) -> Result<Loaded, LoadError> {
    let mut problems = Vec::new();
    let mut texts = Vec::new();
    let mut left = MAX_BYTES;
    for file in config_files(path).map_err(|error| whole(name, unreadable(&error)))? {
        let name = match file.strip_prefix(path) {
            Ok(below) if !below.as_os_str().is_empty() => name.join(below),
            _ => name.to_owned(),
        };
        match read(&file, &mut left) {
            Ok(text) => texts.push((name, text)),
            Err(text) => problems.extend(whole(&name, text).problems),
        }
    }
    if !problems.is_empty() {
        return Err(LoadError { problems });
    }
    if texts.is_empty() {
        let text = "the directory has no *.yaml, *.yml or *.json file; put the config there, or name a file";
        return Err(whole(name, text.to_owned()));
    }
    parse(&texts)
}

/// As [`load`], from texts with the names of their files.
///
/// # Errors
/// As those of [`load`].
pub fn parse(texts: &[(PathBuf, String)]) -> Result<Loaded, LoadError> {
    let mut drafts = Drafts::default();
    let mut objects = kubernetes::Objects::default();
    let mut places = Places::default();
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    let mut taken = yaml::Taken::default();
    for (path, text) in texts {
        let file: Arc<Path> = Arc::from(path.as_path());
        let documents = match yaml::documents(text, &mut taken) {
            Ok(documents) => documents,
            Err(bad) => {
                Report { file: &file, problems: &mut errors }.say(bad.at, bad.text);
                continue;
            }
        };
        if documents.iter().all(yaml::Node::is_null) {
            let text = "the file is empty; write `services: []` to serve nothing, or remove it";
            errors.extend(whole(path, text.to_owned()).problems);
        }
        for document in documents.iter().filter(|document| !document.is_null()) {
            if document.get("apiVersion").or(document.get("kind")).is_some() {
                objects.add(document, &mut places, &mut Report { file: &file, problems: &mut warnings });
            } else {
                let report = &mut Report { file: &file, problems: &mut errors };
                native::document(document, &mut drafts, &mut places, report);
            }
        }
    }
    objects.finish(&mut drafts, &mut warnings);
    let model = assemble::model(drafts, &mut errors, &mut warnings);
    if errors.is_empty() {
        Ok(Loaded { model, problems: warnings })
    } else {
        Err(LoadError { problems: errors })
    }
}

/// The files that `path` stands for: itself, or those of the directory, sorted.
pub(super) fn config_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let ours =
            file.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known));
        if ours && !hidden && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// A problem of a file as a whole.
pub(super) fn whole(file: &Path, text: String) -> LoadError {
    LoadError { problems: vec![Problem { place: Place { file: Arc::from(file), at: None }, text }] }
}
