//! `postwright spool check|export|import`: looks after a spool that no server has open.
//!
//! Output is one line of JSON; damage is a verdict, not an error. Each opens the spool as a server does, so that one
//! in use is refused.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use postwright_core::SystemClock;
use postwright_queue::archive::{ArchiveReader, ArchiveWriter, Record};
use postwright_queue::{Change, Damage, EmbeddedOptions, EmbeddedSpool, Item, Scan, Spool as _, SpoolError};
use serde_json::json;

use super::{Failure, block_on, output};

/// `postwright spool`.
#[derive(Args)]
pub(crate) struct Spool {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Reads everything and says what is damaged; damaged messages are put aside.
    Check {
        /// The spool's directory.
        directory: PathBuf,
    },
    /// Writes all messages and orders that can be read into an archive.
    Export {
        /// The spool's directory.
        directory: PathBuf,
        /// Where to; `-` is stdout, and then the report goes nowhere.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Puts the contents of an archive into a spool, which is made if there is none. What it has already, stays.
    Import {
        /// The spool's directory.
        directory: PathBuf,
        /// Where from; `-` is stdin.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
    },
}

/// Messages looked at in one go.
const PAGE: usize = 256;

impl Spool {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self.verb {
            Verb::Check { directory } => check(&directory),
            Verb::Export { directory, to } => export(&directory, &to),
            Verb::Import { directory, from } => import(&directory, &from),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

fn open(directory: &Path, must_exist: bool) -> Result<EmbeddedSpool, Failure> {
    let shown = directory.display();
    if must_exist && !directory.is_dir() {
        return Err(Failure::new(format!("{shown}: no such directory")));
    }
    // An empty directory would become a spool by being looked at.
    let is_empty = || std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
    if must_exist && is_empty() {
        return Err(Failure::new(format!("{shown}: there is no spool in it")));
    }
    let mut options = EmbeddedOptions::new(directory, Arc::new(SystemClock::new()));
    options.hot_bytes = 0;
    EmbeddedSpool::open(options).map_err(|error| Failure::new(format!("{shown}: {error}")))
}

/// What a walk through a spool has found.
#[derive(Default)]
struct Found {
    messages: u64,
    octets: u64,
    controls: u64,
    damaged: Vec<Damage>,
    /// Journals that were put aside: name and what is known of the damage.
    journals: Vec<(String, String)>,
}

/// The damaged journals of a spool: those that were found now, and copies from earlier.
fn journals(spool: &EmbeddedSpool) -> Vec<(String, String)> {
    let now = spool.damaged_journals();
    let line = |copy: PathBuf| {
        let known = now.iter().find(|damage| damage.copy == copy).map(ToString::to_string);
        let name = copy.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let earlier = || format!("an earlier start found it damaged; as it was, it is in {}", copy.display());
        (name, known.unwrap_or_else(earlier))
    };
    spool.journals_aside().into_iter().map(line).collect()
}

impl Found {
    fn report(&self) -> serde_json::Value {
        let damage = |damage: &Damage| {
            json!({
                "id": damage.id.to_string(),
                "reason": damage.reason.to_string(),
                "quarantined": damage.quarantined,
            })
        };
        let journal = |(name, reason): &(String, String)| json!({"id": format!("journal {name}"), "reason": reason, "quarantined": true});
        json!({
            "messages": self.messages,
            "octets": self.octets,
            "controls": self.controls,
            "damaged": self.damaged.iter().map(damage).chain(self.journals.iter().map(journal)).collect::<Vec<_>>(),
        })
    }
}

/// Reads everything there is and hands on what is whole.
fn walk(
    spool: &EmbeddedSpool,
    mut each: impl FnMut(Record) -> Result<(), Failure>,
) -> Result<Found, Failure> {
    let failed = |error: SpoolError| Failure::new(error);
    let mut found = Found { journals: journals(spool), ..Found::default() };
    for item in block_on(spool.scan(Scan::Controls))?.map_err(failed)?.items {
        if let Item::Control { key, value } = item {
            found.controls += 1;
            each(Record::Control { key, value })?;
        }
    }
    let mut after = None;
    loop {
        let page = block_on(spool.scan(Scan::Messages { after, limit: PAGE }))?.map_err(failed)?;
        for item in page.items {
            let id = match item {
                Item::Entry(entry) => entry.id,
                Item::Damaged(damage) if damage.quarantined => {
                    found.damaged.push(damage);
                    continue;
                }
                // Loading it puts it aside.
                Item::Damaged(damage) => damage.id,
                Item::Control { .. } => continue,
            };
            match block_on(spool.load(id))? {
                Ok(loaded) => {
                    found.messages += 1;
                    found.octets += loaded.entry.size;
                    each(Record::Message { entry: Box::new(loaded.entry), body: loaded.body })?;
                }
                Err(SpoolError::Damaged(damage)) => {
                    found.damaged.push(Damage { quarantined: true, ..damage });
                }
                Err(error) => return Err(failed(error)),
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

fn check(directory: &Path) -> Result<(), Failure> {
    let spool = open(directory, true)?;
    let found = walk(&spool, |_| Ok(()))?;
    output::json(&found.report())
}

fn export(directory: &Path, to: &Path) -> Result<(), Failure> {
    let spool = open(directory, true)?;
    let to_stdout = to == Path::new("-");
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", to.display()));
    let sink: Box<dyn Write> = match to_stdout {
        true => Box::new(io::stdout().lock()),
        false => Box::new(File::create_new(to).map_err(|error| failed(&error))?),
    };
    let mut archive = ArchiveWriter::new(BufWriter::new(sink)).map_err(|error| failed(&error))?;
    let found = walk(&spool, |record| {
        let written = match &record {
            Record::Message { entry, body } => archive.message(entry, body),
            Record::Control { key, value } => archive.control(key, value),
        };
        written.map_err(|error| failed(&error))
    })?;
    archive.finish().map_err(|error| failed(&error))?;
    if to_stdout {
        return Ok(());
    }
    // What was exported may be deleted next: it has to be on the disk.
    File::open(to).and_then(|file| file.sync_all()).map_err(|error| failed(&error))?;
    output::json(&found.report())
}

fn import(directory: &Path, from: &Path) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", from.display()));
    let source: Box<dyn Read> = match from == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(from).map_err(|error| failed(&error))?),
    };
    let archive = ArchiveReader::new(BufReader::new(source)).map_err(|error| failed(&error))?;
    let spool = open(directory, false)?;
    let (mut messages, mut controls) = (0u64, 0u64);
    for record in archive {
        let change = match record.map_err(|error| failed(&error))? {
            Record::Message { entry, body } => {
                messages += 1;
                Change::Put { entry: *entry, body }
            }
            Record::Control { key, value } => {
                controls += 1;
                Change::Control { key, value: Some(value) }
            }
        };
        block_on(spool.commit(vec![change]))?.map_err(Failure::new)?;
    }
    output::json(&json!({"messages": messages, "controls": controls}))
}
