//! The file of a key rotation: one domain, its keys from the oldest to the newest, each with its state and date.
//!
//! ```json
//! {"domain": "example.org", "keys": [{"selector": "2026a", "file": "2026a.pem", "state": "active", "date": 1795228800}]}
//! ```
//!
//! Invariant: the file is replaced as a whole or not at all; paths in it are seen from its own folder.
//!
//! Not here: the steps (dkim's `Rotation`), DNS (commands/rotation.rs).

use std::path::{Path, PathBuf};

use postwright_core::{Domain, Timestamp};
use postwright_dkim::{KeyState, Rotation, RotationPolicy, Selector};
use serde_json::{Value, json};

use crate::commands::Failure;

/// A rotation and where its keys are.
pub(crate) struct RotationFile {
    path: PathBuf,
    pub(crate) domain: Domain,
    pub(crate) rotation: Rotation,
    /// In the order of the rotation's keys.
    files: Vec<PathBuf>,
}

impl RotationFile {
    /// A rotation without keys, not written yet.
    pub(crate) fn new(path: &Path, domain: Domain) -> RotationFile {
        let rotation = Rotation::new(RotationPolicy::default());
        RotationFile { path: path.to_owned(), domain, rotation, files: Vec::new() }
    }

    pub(crate) fn load(path: &Path) -> Result<RotationFile, Failure> {
        let wrong = |what: &dyn std::fmt::Display| Failure::new(format!("{}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
        let domain = value["domain"].as_str().and_then(|domain| domain.parse().ok());
        let mut keys = Vec::new();
        let mut files = Vec::new();
        for (nth, key) in value["keys"].as_array().into_iter().flatten().enumerate() {
            let (selector, state, file) = entry(key).ok_or_else(|| {
                wrong(&format!("key {nth} needs selector, file, state (published, waiting, active, retiring, removed) and date"))
            })?;
            keys.push((selector, state));
            files.push(file);
        }
        let domain = domain.ok_or_else(|| wrong(&"\"domain\" is not a domain"))?;
        let rotation = Rotation::restore(RotationPolicy::default(), keys);
        Ok(RotationFile { path: path.to_owned(), domain, rotation, files })
    }

    /// Replaces the file.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        let keys: Vec<Value> = self.rotation.keys().iter().zip(&self.files).map(stored).collect();
        let text = json!({ "domain": self.domain.as_str(), "keys": keys });
        let shown = self.path.display();
        let wrong = |error| Failure::new(format!("{shown}: {error}"));
        let beside = self.path.with_extension("new");
        let text = serde_json::to_string_pretty(&text).map_err(|error| wrong(error.into()))?;
        std::fs::write(&beside, text + "\n")
            .and_then(|()| std::fs::File::open(&beside)?.sync_all())
            .and_then(|()| std::fs::rename(&beside, &self.path))
            .map_err(wrong)
    }

    /// Adds a key; `false` if its selector was used before.
    pub(crate) fn publish(&mut self, selector: Selector, file: &Path, now: Timestamp) -> bool {
        let added = self.rotation.publish(selector, now);
        if added {
            // Kept as it was given if it is not in the folder of this file.
            let folder = self.path.parent().unwrap_or(Path::new(""));
            self.files.push(file.strip_prefix(folder).unwrap_or(file).to_owned());
        }
        added
    }

    /// Where the key of a selector is.
    pub(crate) fn key_file(&self, selector: &Selector) -> Option<PathBuf> {
        let place = self.rotation.keys().iter().position(|(known, _)| known == selector)?;
        let folder = self.path.parent().unwrap_or(Path::new(""));
        self.files.get(place).map(|file| folder.join(file))
    }
}

fn entry(key: &Value) -> Option<(Selector, KeyState, PathBuf)> {
    let date = Timestamp::from_secs(key["date"].as_u64()?);
    let state = match key["state"].as_str()? {
        "published" => KeyState::Published { since: date },
        "waiting" => KeyState::Waiting { until: date },
        "active" => KeyState::Active { since: date },
        "retiring" => KeyState::Retiring { until: date },
        "removed" => KeyState::Removed,
        _ => return None,
    };
    Some((key["selector"].as_str()?.parse().ok()?, state, key["file"].as_str()?.into()))
}

fn stored(((selector, state), file): (&(Selector, KeyState), &PathBuf)) -> Value {
    let (state, date) = words(*state);
    let date = date.map_or(0, Timestamp::secs);
    json!({ "selector": selector.as_str(), "file": file, "state": state, "date": date })
}

/// A state's name and its date: since when, or until when.
pub(crate) fn words(state: KeyState) -> (&'static str, Option<Timestamp>) {
    match state {
        KeyState::Published { since } => ("published", Some(since)),
        KeyState::Waiting { until } => ("waiting", Some(until)),
        KeyState::Active { since } => ("active", Some(since)),
        KeyState::Retiring { until } => ("retiring", Some(until)),
        KeyState::Removed => ("removed", None),
    }
}
