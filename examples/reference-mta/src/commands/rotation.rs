//! `postwright dkim rotation`: a key's life from its publication to its removal, step by step, in a file that `serve`
//! reads too.
//!
//! Each command prints the rotation as it is then: which key signs, whether a new one is due, and for each key its state,
//! its date and what has to stand in DNS.
//!
//! Not here: the rules (dkim's `Rotation`), the file (rotation_file.rs).

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use postwright_core::{Domain, Name, RecordKind, Resolver, Timestamp};
use postwright_dkim::{DnsStep, KeyRecord, KeyState, Limits, Selector, zone_strings};
use serde_json::{Value, json};

use super::dkim::{KeyType, new_key, read_key, time};
use super::dns::DnsArgs;
use super::{Failure, block_on, output};
use crate::rotation_file::{RotationFile, words};

/// `postwright dkim rotation ...`.
#[derive(Args)]
pub(super) struct RotationCommand {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Makes a key and begins its life: its record is to be added to DNS.
    Publish(Publish),
    /// Looks for new records in DNS, lets time pass, and writes what has changed: for a daily timer, with a SIGHUP after it.
    Check(Check),
    /// Takes a key out of use at once: it leaked, or it will never be published.
    Revoke(Revoke),
    /// Shows the rotation as it is.
    Show(Where),
}

#[derive(Args)]
struct Where {
    /// The file of the rotation.
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// The time, in seconds since 1970; now, if left out.
    #[arg(long, value_name = "SECONDS")]
    time: Option<u64>,
}

#[derive(Args)]
struct Publish {
    #[command(flatten)]
    at: Where,
    /// The signing domain; needed for the first key, whose file is not there yet.
    #[arg(long)]
    domain: Option<Domain>,
    /// The new key's selector.
    #[arg(long)]
    selector: Selector,
    /// What kind of key.
    #[arg(long, default_value = "rsa")]
    algorithm: KeyType,
    /// Bits of an RSA key: 2048, 3072 or 4096.
    #[arg(long, default_value_t = 2048)]
    bits: u32,
    /// The new file for the private key; only its owner may read it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

#[derive(Args)]
struct Check {
    #[command(flatten)]
    at: Where,
    #[command(flatten)]
    dns: DnsArgs,
}

#[derive(Args)]
struct Revoke {
    #[command(flatten)]
    at: Where,
    /// The key's selector.
    #[arg(long)]
    selector: Selector,
}

impl RotationCommand {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let (file, now) = match self.command {
            Verb::Publish(publish) => publish.run()?,
            Verb::Check(check) => check.run()?,
            Verb::Revoke(revoke) => revoke.run()?,
            Verb::Show(at) => (RotationFile::load(&at.state)?, time(at.time)),
        };
        output::json(&show(&file, now))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Publish {
    fn run(self) -> Result<(RotationFile, Timestamp), Failure> {
        let (path, now) = (&self.at.state, time(self.at.time));
        let mut file = match (path.exists(), &self.domain) {
            (true, _) => RotationFile::load(path)?,
            (false, Some(domain)) => RotationFile::new(path, domain.clone()),
            (false, None) => {
                let shown = path.display();
                return Err(Failure::new(format!("{shown}: there is no such file; --domain begins one")));
            }
        };
        if self.domain.as_ref().is_some_and(|domain| *domain != file.domain) {
            return Err(Failure::new(format!("{} is for {}", path.display(), file.domain)));
        }
        if !file.publish(self.selector.clone(), &self.key, now) {
            let selector = &self.selector;
            return Err(Failure::new(format!(
                "the selector {selector} was used before; take a new one for each key"
            )));
        }
        new_key(self.algorithm, self.bits, &self.key)?;
        file.save()?;
        Ok((file, now))
    }
}

impl Check {
    fn run(self) -> Result<(RotationFile, Timestamp), Failure> {
        let (mut file, now) = (RotationFile::load(&self.at.state)?, time(self.at.time));
        let resolver = self.dns.resolver()?;
        let published: Vec<Selector> = (file.rotation.keys().iter())
            .filter(|(_, state)| matches!(state, KeyState::Published { .. }))
            .map(|(selector, _)| selector.clone())
            .collect();
        for selector in published {
            let key = file.key_file(&selector).unwrap_or_default();
            if block_on(is_in_dns(&*resolver, &file.domain, &selector, &key))?? {
                file.rotation.seen(&selector, now);
            }
        }
        file.rotation.advance(now);
        file.save()?;
        Ok((file, now))
    }
}

/// Whether DNS has this very key for the selector. No answer is no.
async fn is_in_dns(
    resolver: &dyn Resolver,
    domain: &Domain,
    selector: &Selector,
    key: &Path,
) -> Result<bool, Failure> {
    let parse = |text: &[u8]| KeyRecord::parse(text, &Limits::default());
    let ours = parse(read_key(key)?.record().as_bytes()).map_err(Failure::new)?;
    let Ok(answer) = resolver.lookup(&name(selector, domain)?, RecordKind::Txt).await else {
        return Ok(false);
    };
    let texts: Vec<_> = answer.records().iter().filter_map(|record| record.text()).collect();
    // Two records would be undefined (RFC 6376 3.6.2.2): not published yet.
    Ok(matches!(&texts[..], [one] if parse(one).is_ok_and(|record| record.has_same_key(&ours))))
}

impl Revoke {
    fn run(self) -> Result<(RotationFile, Timestamp), Failure> {
        let (mut file, now) = (RotationFile::load(&self.at.state)?, time(self.at.time));
        if file.rotation.compromised(&self.selector).is_none() {
            return Err(Failure::new(format!("there is no key with the selector {}", self.selector)));
        }
        file.save()?;
        Ok((file, now))
    }
}

fn name(selector: &Selector, domain: &Domain) -> Result<Name, Failure> {
    selector.key_name(domain).ok_or_else(|| Failure::new("the selector and the domain are too long for DNS"))
}

fn show(file: &RotationFile, now: Timestamp) -> Value {
    let keys: Vec<Value> =
        file.rotation.keys().iter().map(|(selector, state)| show_key(file, selector, *state)).collect();
    json!({
        "domain": file.domain.as_str(),
        "signing": file.rotation.signing().map(Selector::as_str),
        "due": file.rotation.is_due(now),
        "keys": keys,
    })
}

fn show_key(file: &RotationFile, selector: &Selector, state: KeyState) -> Value {
    let (word, date) = words(state);
    let path = file.key_file(selector).unwrap_or_default();
    let (dns, record) = match state.dns() {
        DnsStep::Publish => ("publish", read_key(&path).ok().map(|key| key.record())),
        DnsStep::Keep => ("keep", read_key(&path).ok().map(|key| key.record())),
        DnsStep::Revoke => ("revoke", Some("v=DKIM1; p=".to_owned())),
    };
    let line = record.zip(selector.key_name(&file.domain));
    json!({
        "selector": selector.as_str(),
        "state": word,
        "date": date.map(Timestamp::secs),
        "signs": state.signs(),
        "dns": dns,
        "record": line.map(|(record, name)| format!("{name}. IN TXT {}", zone_strings(&record))),
        "key": path,
    })
}
