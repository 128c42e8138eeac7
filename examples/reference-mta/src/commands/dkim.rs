//! `postwright dkim`: verify, sign, and make keys; rotation.rs has their rotation.
//!
//! A message on stdin may have the line ends of a file: each LF that stands alone is read as CRLF, as mail tools do.
//! `sign` writes the message with CRLF, as it was signed.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use postwright_core::{Clock, Domain, Message, SystemClock, Timestamp};
use postwright_dkim::{
    Algorithm, CanonPair, DkimResult, KeyKind, Limits, Provider, Selector, SignOptions, SignedFields, Signer,
    SigningKey, Verifier, VerifyPolicy, sign_all, zone_strings,
};
use serde_json::{Value, json};

use super::dns::DnsArgs;
use super::rotation::RotationCommand;
use super::{Failure, block_on, output};

/// Largest message that is read from stdin, in octets.
const MESSAGE_MAX: u64 = 1 << 30;

/// `postwright dkim ...`.
#[derive(Args)]
pub(crate) struct Dkim {
    #[command(subcommand)]
    command: DkimCommand,
}

#[derive(Subcommand)]
enum DkimCommand {
    /// Verifies the DKIM signatures of a message on stdin (RFC 6376).
    Verify(VerifyArgs),
    /// Signs a message on stdin and writes it with its signature to stdout.
    Sign(Sign),
    /// Makes a key file and prints the DNS record to publish.
    Keygen(Keygen),
    /// Leads keys through their life: published, waiting, active, retiring, removed.
    Rotation(RotationCommand),
}

impl Dkim {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self.command {
            DkimCommand::Verify(args) => args.verify(),
            DkimCommand::Sign(sign) => sign.run(),
            DkimCommand::Keygen(keygen) => keygen.run(),
            DkimCommand::Rotation(rotation) => rotation.run(),
        }
    }
}

/// How a message on stdin is verified; the same options for signatures and for chains.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// The time to verify at, in seconds since 1970; now, if left out.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) time: Option<u64>,
    /// Accept SHA-1 in DKIM, against RFC 8301; in ARC it is never valid.
    #[arg(long)]
    pub(crate) legacy: bool,
    /// Exit with 1 unless some signature passes, or if the chain fails.
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) dns: DnsArgs,
}

impl VerifyArgs {
    fn verify(self) -> Result<ExitCode, Failure> {
        let resolver = self.dns.resolver()?;
        let message = read_message()?;
        let mut policy = VerifyPolicy::default();
        policy.sha1 = self.legacy;
        let verifier = Verifier::new(Provider::ring(), policy, Limits::default());
        let results = block_on(verifier.verify(&message, &*resolver, time(self.time)))?;
        output::json(&json!({"signatures": results.iter().map(show).collect::<Vec<_>>()}))?;
        let refused = self.strict && !results.iter().any(DkimResult::is_pass);
        Ok(if refused { ExitCode::from(1) } else { ExitCode::SUCCESS })
    }
}

/// One signature's result as JSON.
pub(crate) fn show(result: &DkimResult) -> Value {
    json!({
        "result": result.verdict.as_str(),
        "reason": result.reason.map(|reason| reason.as_str()),
        "domain": result.domain.as_ref().map(Domain::as_str),
        "selector": result.selector.as_ref().map(Selector::as_str),
        "identity": result.identity,
        "algorithm": result.algorithm.map(Algorithm::as_str),
        "key_bits": result.key_bits,
        "testing": result.testing,
        "unsigned_bytes": result.unsigned_bytes,
    })
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum KeyType {
    #[value(alias = "rsa-sha256")]
    Rsa,
    #[value(alias = "ed25519-sha256")]
    Ed25519,
}

impl KeyType {
    fn of(key: &SigningKey) -> KeyType {
        if key.algorithm() == Algorithm::Ed25519Sha256 { KeyType::Ed25519 } else { KeyType::Rsa }
    }
}

/// Who signs: the same options for DKIM and ARC.
#[derive(Args)]
pub(crate) struct SignerArgs {
    /// The signing domain, d=.
    #[arg(long)]
    pub(crate) domain: Domain,
    /// The selector, s=.
    #[arg(long, required = true)]
    pub(crate) selector: Vec<Selector>,
    /// The private key: PEM (PKCS#1 or PKCS#8), DER, or base64 of an Ed25519 seed.
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) key: Vec<PathBuf>,
    /// The header fields to sign, in the order of h=, joined by colons.
    #[arg(long, value_name = "NAME:NAME...")]
    headers: Option<String>,
    /// The time of signing, in seconds since 1970; now, if left out.
    #[arg(long, value_name = "SECONDS")]
    time: Option<u64>,
}

impl SignerArgs {
    pub(crate) fn fields(&self) -> SignedFields {
        let exactly = |names: &String| names.split([':', ',']).map(|name| name.trim().to_owned()).collect();
        self.headers.as_ref().map_or(SignedFields::Recommended, |names| SignedFields::Exactly(exactly(names)))
    }

    pub(crate) fn time(&self) -> Timestamp {
        time(self.time)
    }
}

#[derive(Args)]
#[command(after_help = "Repeat --selector and --key to sign with several keys at once.")]
struct Sign {
    #[command(flatten)]
    signer: SignerArgs,
    /// Canonicalization of header/body: simple or relaxed each.
    #[arg(long, default_value = "relaxed/relaxed")]
    canon: CanonPair,
    /// What kind of key it must be; found out from the key if left out.
    #[arg(long)]
    algorithm: Option<KeyType>,
    /// The identity, i=: an address or @domain within the signing domain.
    #[arg(long)]
    identity: Option<String>,
    /// Let the signature expire after so many seconds, x=.
    #[arg(long, value_name = "SECONDS")]
    expires_after: Option<u64>,
    /// Leave the time of signing, t=, out.
    #[arg(long)]
    no_timestamp: bool,
    /// Write q=dns/txt.
    #[arg(long)]
    query_method: bool,
    /// Copy the signed fields into the signature, z=.
    #[arg(long)]
    copy_headers: bool,
    /// Sign the present length of the body only, l=: anybody may append to it (RFC 6376 8.2).
    #[arg(long)]
    body_length: bool,
}

impl Sign {
    fn run(self) -> Result<ExitCode, Failure> {
        let options = self.options();
        let SignerArgs { domain, selector: selectors, key: files, .. } = &self.signer;
        if selectors.len() != files.len() {
            return Err(Failure::new("give each --key a --selector of its own"));
        }
        let mut signers = Vec::new();
        for (selector, file) in selectors.iter().zip(files) {
            let key = read_key(file)?;
            if self.algorithm.is_some_and(|wanted| wanted != KeyType::of(&key)) {
                let found = key.algorithm();
                return Err(Failure::new(format!(
                    "{}: a key for {found}; --algorithm asks for another",
                    file.display()
                )));
            }
            let signer = Signer::with_options(key, domain.clone(), selector.clone(), options.clone());
            signers.push(signer.map_err(Failure::new)?);
        }
        let message = read_message()?;
        let fields = sign_all(&signers, &message, self.signer.time()).map_err(Failure::new)?;
        // The first key's signature comes out on top.
        let signed = fields.into_iter().rev().fold(message, |message, field| message.prepend(field));
        output::bytes(&signed.to_vec())?;
        Ok(ExitCode::SUCCESS)
    }

    fn options(&self) -> SignOptions {
        let mut options = SignOptions::default();
        options.canon = self.canon;
        options.fields = self.signer.fields();
        options.identity.clone_from(&self.identity);
        options.timestamp = !self.no_timestamp;
        options.expires_after = self.expires_after.map(Duration::from_secs);
        options.query_method = self.query_method;
        options.copied_fields = self.copy_headers;
        options.body_length = self.body_length;
        options
    }
}

#[derive(Args)]
struct Keygen {
    /// What kind of key.
    #[arg(long, default_value = "rsa")]
    algorithm: KeyType,
    /// Bits of an RSA key: 2048, 3072 or 4096.
    #[arg(long, default_value_t = 2048)]
    bits: u32,
    /// The new file for the private key; only its owner may read it.
    #[arg(long, value_name = "FILE", visible_alias = "key")]
    out: PathBuf,
    /// The signing domain, for the record's name.
    #[arg(long, requires = "selector")]
    domain: Option<Domain>,
    /// The selector, for the record's name.
    #[arg(long, requires = "domain")]
    selector: Option<Selector>,
}

impl Keygen {
    fn run(self) -> Result<ExitCode, Failure> {
        let name = match (&self.domain, &self.selector) {
            (Some(domain), Some(selector)) => {
                let name =
                    selector.key_name(domain).ok_or("the selector and the domain are too long for DNS");
                format!("{}. IN TXT ", name.map_err(Failure::new)?)
            }
            _ => String::new(),
        };
        let key = new_key(self.algorithm, self.bits, &self.out)?;
        output::text(&format!("{name}{}\n", zone_strings(&key.record())))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Makes a key and writes it to a new file.
pub(super) fn new_key(algorithm: KeyType, bits: u32, out: &Path) -> Result<SigningKey, Failure> {
    let (provider, kind) = match algorithm {
        KeyType::Ed25519 => (Provider::ring(), KeyKind::Ed25519),
        // ring generates no RSA keys.
        KeyType::Rsa => (Provider::aws_lc_rs(), KeyKind::Rsa(bits)),
    };
    let (key, pem) = SigningKey::generate(provider, kind).map_err(Failure::new)?;
    write_private(out, &pem).map_err(|error| Failure::new(format!("{}: {error}", out.display())))?;
    Ok(key)
}

/// Writes a new file that nobody but its owner can read, and never an existing one.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Reads a private key from a file.
pub(crate) fn read_key(path: &Path) -> Result<SigningKey, Failure> {
    let shown = path.display();
    let octets = std::fs::read(path).map_err(|error| Failure::new(format!("{shown}: {error}")))?;
    SigningKey::read(Provider::ring(), &octets).map_err(|error| Failure::new(format!("{shown}: {error}")))
}

/// The time that was asked for, or now.
pub(crate) fn time(seconds: Option<u64>) -> Timestamp {
    seconds.map_or_else(|| SystemClock::new().now(), Timestamp::from_secs)
}

/// Reads the message on stdin; each LF without CR before it becomes CRLF.
pub(crate) fn read_message() -> Result<Message, Failure> {
    let mut octets = Vec::new();
    let read = std::io::stdin().lock().take(MESSAGE_MAX + 1).read_to_end(&mut octets);
    read.map_err(|error| Failure::new(format!("stdin: {error}")))?;
    if u64::try_from(octets.len()).is_ok_and(|len| len > MESSAGE_MAX) {
        return Err(Failure::new("stdin: the message is longer than 1 GiB"));
    }
    Ok(Message::from_bytes(with_crlf(octets)))
}

fn with_crlf(octets: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 32);
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(text) => {
                out.extend_from_slice(text.strip_suffix(b"\r").unwrap_or(text));
                out.extend_from_slice(b"\r\n");
            }
            None => out.extend_from_slice(line),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_line_feeds_become_line_ends() {
        assert_eq!(with_crlf(b"a\nb\r\nc\n\n\rd".to_vec()), b"a\r\nb\r\nc\r\n\r\n\rd");
        assert_eq!(with_crlf(b"\n".to_vec()), b"\r\n");
        assert_eq!(with_crlf(Vec::new()), b"");
    }
}
