//! `postwright suppress`: a list of addresses that get no more mail, in a CSV file.
//!
//! The file is read whole and written whole, by way of a second file that takes its place: a crash leaves the old list or the new
//! one. Two commands at once may lose one's change; a running server keeps its own list.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use postwright_bounce::suppress::{
    CSV_HEADER, Entry, MemorySuppressions, Reason, Scope, Suppressions, from_csv, to_csv,
};
use postwright_core::{Clock, Mailbox, SystemClock, Timestamp};
use serde_json::{Value, json};

use super::{Failure, output};

/// `postwright suppress ...`.
#[derive(Args)]
pub(crate) struct Suppress {
    /// The list.
    #[arg(long, value_name = "FILE", default_value = "suppressions.csv", global = true)]
    file: PathBuf,
    /// The customer whose list it is.
    #[arg(long, default_value = "default", global = true)]
    tenant: String,
    /// The stream, such as `marketing`; without it, all of the tenant's.
    #[arg(long, global = true)]
    stream: Option<String>,
    #[command(subcommand)]
    command: SuppressCommand,
}

#[derive(Subcommand)]
enum SuppressCommand {
    /// Puts addresses on the list.
    Add {
        /// The addresses.
        #[arg(required = true)]
        addresses: Vec<String>,
        /// hard-bounce, soft-bounces, complaint, unsubscribed or manual.
        #[arg(long, default_value = "manual")]
        reason: String,
        /// For so many days; without it, for good.
        #[arg(long)]
        days: Option<u64>,
        /// A note for the operator.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Takes addresses off the list.
    Remove {
        /// The addresses.
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Prints the list of the tenant, one line of JSON an entry.
    List,
    /// Says of each address whether mail of this tenant and stream is stopped.
    Check {
        /// The addresses.
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Adds the entries of a CSV file (`-` is stdin): address,tenant,stream,reason,since,until,note.
    Import {
        /// The file.
        from: PathBuf,
    },
    /// Prints the whole list as CSV.
    Export,
}

impl Suppress {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let now = SystemClock::new().now();
        let list = MemorySuppressions::new();
        if self.file.exists() {
            load(&list, &self.file)?;
        }
        let scope =
            Scope { tenant: self.tenant.as_str().into(), stream: self.stream.as_deref().map(Into::into) };
        match &self.command {
            SuppressCommand::Add { addresses, reason, days, note } => {
                let reason = Reason::from_name(reason).ok_or_else(|| {
                    Failure::new(format!("{reason:?} is no reason: hard-bounce, soft-bounces, complaint, unsubscribed or manual"))
                })?;
                let until = days
                    .map(|days| Timestamp::from_secs(now.secs().saturating_add(days.saturating_mul(86_400))));
                for address in mailboxes(addresses)? {
                    let address = address.to_string().into();
                    list.add(Entry {
                        address,
                        scope: scope.clone(),
                        reason,
                        since: now,
                        until,
                        note: note.as_str().into(),
                    });
                }
                save(&list, &self.file)?;
                output::json(&json!({"added": addresses.len(), "entries": list.len()}))?;
            }
            SuppressCommand::Remove { addresses } => {
                let removed = addresses.iter().filter(|address| list.remove(&scope, address)).count();
                save(&list, &self.file)?;
                output::json(&json!({"removed": removed, "entries": list.len()}))?;
            }
            SuppressCommand::List => {
                for entry in all(&list).iter().filter(|entry| entry.scope.tenant == scope.tenant) {
                    output::json(&show(entry))?;
                }
            }
            SuppressCommand::Check { addresses } => {
                for address in mailboxes(addresses)? {
                    let entry = list.check(&self.tenant, self.stream.as_deref(), &address, now);
                    output::json(&json!({
                        "address": address.to_string(),
                        "suppressed": entry.is_some(),
                        "entry": entry.as_ref().map(show),
                    }))?;
                }
            }
            SuppressCommand::Import { from } => {
                let before = list.len();
                load(&list, from)?;
                save(&list, &self.file)?;
                output::json(&json!({"added": list.len() - before, "entries": list.len()}))?;
            }
            SuppressCommand::Export => output::text(&csv(&list))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn mailboxes(texts: &[String]) -> Result<Vec<Mailbox>, Failure> {
    texts
        .iter()
        .map(|text| text.parse().map_err(|error| Failure::new(format!("{text:?}: {error}"))))
        .collect()
}

fn show(entry: &Entry) -> Value {
    json!({
        "address": &*entry.address,
        "tenant": &*entry.scope.tenant,
        "stream": entry.scope.stream.as_deref(),
        "reason": entry.reason.as_str(),
        "since": entry.since.to_string(),
        "until": entry.until.map(|until| until.to_string()),
        "note": &*entry.note,
    })
}

fn all(list: &MemorySuppressions) -> Vec<Entry> {
    list.list(None, usize::MAX)
}

fn csv(list: &MemorySuppressions) -> String {
    let mut text = format!("{CSV_HEADER}\n");
    for entry in all(list) {
        text.push_str(&to_csv(&entry));
        text.push('\n');
    }
    text
}

fn load(list: &MemorySuppressions, path: &Path) -> Result<(), Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
    let reader: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::io::BufReader::new(std::fs::File::open(path).map_err(|error| fail(&error))?))
    };
    for (i, line) in reader.lines().enumerate() {
        let line = line.map_err(|error| fail(&error))?;
        if line.trim().is_empty() || line.trim_end() == CSV_HEADER {
            continue;
        }
        list.add(from_csv(&line, i + 1).map_err(|error| fail(&error))?);
    }
    Ok(())
}

fn save(list: &MemorySuppressions, path: &Path) -> Result<(), Failure> {
    let fail = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = std::fs::File::create(&beside).map_err(fail)?;
    file.write_all(csv(list).as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
    std::fs::rename(&beside, path).map_err(fail)
}
