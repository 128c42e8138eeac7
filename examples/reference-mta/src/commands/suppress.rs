//! `postwright suppress`: the list of addresses that get no more mail, in the folder that a server keeps it in.
//!
//! The list is the one of `[feedback] store`. One process has it open: while a server runs on it, the commands say so and change
//! nothing. A change is on the disk before the command says that it is done.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use postwright::feedback::FeedbackStore;
use postwright_bounce::suppress::{CSV_HEADER, Entry, Reason, Scope, Suppressions, from_csv, to_csv};
use postwright_core::{Clock, Mailbox, SystemClock, Timestamp};
use serde_json::{Value, json};

use super::{Failure, output};
use crate::config::Config;

/// `postwright suppress ...`.
#[derive(Args)]
pub(crate) struct Suppress {
    /// The folder of the list; made by the first command that changes it.
    #[arg(long, value_name = "DIR", default_value = "suppressions", global = true)]
    store: PathBuf,
    /// The list of the server with this configuration file instead.
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "store")]
    config: Option<PathBuf>,
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

/// Entries read or printed at a time.
const PAGE: usize = 1000;

impl Suppress {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let now = SystemClock::new().now();
        let list = FeedbackStore::open(&self.folder()?).map_err(Failure::new)?;
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
                    let (address, scope) = (address.to_string().into(), scope.clone());
                    list.add(Entry { address, scope, reason, since: now, until, note: note.as_str().into() });
                }
                changed(&list, "added", addresses.len())?;
            }
            SuppressCommand::Remove { addresses } => {
                let addresses = mailboxes(addresses)?;
                let removed =
                    addresses.iter().filter(|address| list.remove(&scope, &address.to_string())).count();
                changed(&list, "removed", removed)?;
            }
            SuppressCommand::List => each(&list, |entry| {
                if entry.scope.tenant == scope.tenant { output::json(&show(entry)) } else { Ok(()) }
            })?,
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
                let before = list.count().map_err(Failure::new)?;
                import(&list, from)?;
                let added = list.count().map_err(Failure::new)?.saturating_sub(before);
                changed(&list, "added", added)?;
            }
            SuppressCommand::Export => {
                let mut out = std::io::BufWriter::new(std::io::stdout().lock());
                let fail = |error: std::io::Error| Failure::new(format!("stdout: {error}"));
                writeln!(out, "{CSV_HEADER}").map_err(fail)?;
                each(&list, |entry| writeln!(out, "{}", to_csv(entry)).map_err(fail))?;
                out.flush().map_err(fail)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn folder(&self) -> Result<PathBuf, Failure> {
        let Some(file) = &self.config else { return Ok(self.store.clone()) };
        Config::load(file)?.feedback.store.ok_or_else(|| {
            Failure::new(format!("{}: there is no feedback.store: this server keeps no list", file.display()))
        })
    }
}

/// Makes a change durable, then says so.
fn changed(list: &FeedbackStore, what: &str, count: usize) -> Result<(), Failure> {
    list.sync().map_err(Failure::new)?;
    let entries = list.count().map_err(Failure::new)?;
    output::json(&json!({what: count, "entries": entries}))
}

/// Walks through the list a page at a time.
fn each(list: &FeedbackStore, mut take: impl FnMut(&Entry) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut last: Option<Entry> = None;
    loop {
        let after = last.as_ref().map(|entry| (&*entry.address, &entry.scope));
        let page = list.list(after, PAGE);
        page.iter().try_for_each(&mut take)?;
        match page.into_iter().next_back() {
            Some(entry) => last = Some(entry),
            None => return Ok(()),
        }
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

/// All lines or none: a list that is half imported is a list that nobody knows.
fn import(list: &FeedbackStore, path: &Path) -> Result<(), Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
    let reader: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(BufReader::new(std::fs::File::open(path).map_err(|error| fail(&error))?))
    };
    let mut entries = Vec::new();
    for (i, line) in reader.lines().enumerate() {
        let line = line.map_err(|error| fail(&error))?;
        if !line.trim().is_empty() && line.trim_end() != CSV_HEADER {
            entries.push(from_csv(&line, i + 1).map_err(|error| fail(&error))?);
        }
    }
    entries.into_iter().for_each(|entry| list.add(entry));
    Ok(())
}
