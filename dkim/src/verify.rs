//! The verifier: feed the message as it arrives, then ask for the results.
//!
//! Invariant: results do not depend on how the message was cut into chunks. Work is bounded by [`Limits`]: at most
//! `signatures` look-ups and public-key operations, one pass over the body, memory for the header only.
//!
//! Standards: RFC 6376 6.1, RFC 8301, RFC 8463, RFC 8601 2.7.1.
//!
//! Not here: what a result means for delivery (DMARC, local policy).

use std::sync::Arc;
use std::time::Duration;

use postwright_core::{Message, Name, Resolver, Timestamp};

use crate::body_hash::{BodyHash, BodyHashSpec, BodyHashes};
use crate::crypto::{Hash, Provider};
use crate::header_input;
use crate::header_reader::HeaderReader;
use crate::key::{KeyRecord, PublicKey};
use crate::limits::Limits;
use crate::lookup::{self, Keys};
use crate::result::{DkimResult, Reason, Verdict};
use crate::section::{FROM, FieldName, Section};
use crate::signature::{Algorithm, Claims, Family, Signature};
use crate::tag::TagList;

/// Fields that may occur once (RFC 5322 3.6, RFC 2045) and whose second occurrence can deceive a reader
/// (RFC 6376 8.15).
const SINGLETONS: [FieldName; 10] = [
    FieldName::new("From"),
    FieldName::new("Sender"),
    FieldName::new("Reply-To"),
    FieldName::new("To"),
    FieldName::new("Cc"),
    FieldName::new("Subject"),
    FieldName::new("Date"),
    FieldName::new("Message-ID"),
    FieldName::new("Content-Type"),
    FieldName::new("Content-Transfer-Encoding"),
];

/// Below this no library verifies, and RFC 8301 3.2 forbids it.
const RSA_BITS_FLOOR: u32 = 1024;

/// What a verifier accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyPolicy {
    /// Accept rsa-sha1, against RFC 8301 3.1. Off.
    pub sha1: bool,
    /// Shortest RSA key in bits. RFC 8301 3.2 sets 1024; a lower number here has no effect, since no library
    /// verifies with one.
    pub rsa_bits_min: u32,
    /// By how much the signer's clock may differ from ours (`x=`). 300 s.
    pub clock_skew: Duration,
    /// Give `policy` to signatures that leave part of the body unsigned by `l=`. Off: the number of octets is
    /// reported.
    pub refuse_unsigned_content: bool,
    /// Give `policy` to signatures of a message in which From, Subject or another field that may occur once occurs
    /// more often than the signature covers (RFC 6376 8.15). On.
    pub refuse_unsigned_duplicates: bool,
}

impl Default for VerifyPolicy {
    fn default() -> Self {
        VerifyPolicy {
            sha1: false,
            rsa_bits_min: 1024,
            clock_skew: Duration::from_secs(300),
            refuse_unsigned_content: false,
            refuse_unsigned_duplicates: true,
        }
    }
}

/// Verifies messages. Cheap to clone; one serves a whole program.
#[derive(Debug, Clone)]
pub struct Verifier {
    pub(crate) config: Arc<Config>,
}

#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) provider: Provider,
    pub(crate) policy: VerifyPolicy,
    pub(crate) limits: Limits,
}

#[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
impl Default for Verifier {
    fn default() -> Self {
        Verifier::new(Provider::default(), VerifyPolicy::default(), Limits::default())
    }
}

impl Verifier {
    /// A verifier with everything chosen.
    pub fn new(provider: Provider, policy: VerifyPolicy, limits: Limits) -> Verifier {
        Verifier { config: Arc::new(Config { provider, policy, limits }) }
    }

    /// Begins a message.
    pub fn begin(&self) -> Verification {
        Verification {
            config: self.config.clone(),
            stage: Stage::Header(HeaderReader::new(self.config.limits.header_octets)),
        }
    }

    /// Verifies a message that is there as a whole.
    pub async fn verify(
        &self,
        message: &Message,
        resolver: &dyn Resolver,
        now: Timestamp,
    ) -> Vec<DkimResult> {
        let mut verification = self.begin();
        for chunk in message.chunks() {
            verification.feed(chunk);
        }
        verification.finish(resolver, now).await
    }
}

/// A message on its way through the verifier.
pub struct Verification {
    config: Arc<Config>,
    stage: Stage,
}

enum Stage {
    Header(HeaderReader),
    Body(Box<Work>),
}

/// What the header told us to do.
struct Work {
    section: Section,
    hashes: BodyHashes,
    /// The signatures from the top.
    entries: Vec<Entry>,
}

struct Entry {
    claims: Claims,
    /// Which field of the section it is.
    field: usize,
    /// Boxed: most entries of a hostile message never get here.
    signature: Result<Box<(Signature, usize)>, Reason>,
}

impl Verification {
    /// Takes the next octets of the message: header, empty line, body, with dots unstuffed, line ends CRLF.
    pub fn feed(&mut self, octets: &[u8]) {
        match &mut self.stage {
            Stage::Body(work) => work.hashes.feed(octets),
            Stage::Header(reader) => {
                if let Some((header, body)) = reader.feed(octets) {
                    let mut work = Work::new(&self.config, header, None);
                    work.hashes.feed(body);
                    self.stage = Stage::Body(Box::new(work));
                }
            }
        }
    }

    /// Ends the message: looks up the keys, all at once, and gives a result for each signature field, from the top.
    /// No signature, no result (which is `none` in RFC 8601).
    pub async fn finish(self, resolver: &dyn Resolver, now: Timestamp) -> Vec<DkimResult> {
        let config = self.config;
        let mut work = match self.stage {
            Stage::Body(work) => *work,
            Stage::Header(reader) => match reader.finish() {
                Ok(header) => Work::new(&config, header, None),
                Err(part) => Work::new(&config, part, Some(Reason::HeaderTooLarge)),
            },
        };
        work.drop_expired(&config.policy, now);
        let names = work.key_names();
        let keys = lookup::keys(resolver, &names, &config.limits).await;
        let hashes = std::mem::take(&mut work.hashes).finish();
        let judge =
            Judge { config: &config, section: &work.section, names: &names, keys: &keys, hashes: &hashes };
        work.entries.into_iter().map(|entry| judge.result(entry)).collect()
    }
}

impl Work {
    /// Reads the header. `hopeless`: why no signature of it can be verified.
    fn new(config: &Config, header: Vec<u8>, hopeless: Option<Reason>) -> Work {
        let section = Section::new(header);
        let mut hashes = BodyHashes::default();
        let mut entries = Vec::new();
        for field in section.all(b"dkim-signature") {
            let tags = TagList::parse(section.value(field));
            let claims = tags.as_ref().map(|tags| Claims::of(tags, Family::Dkim)).unwrap_or_default();
            let signature = match (&tags, hopeless) {
                (_, Some(reason)) => Err(reason),
                _ if entries.len() >= config.limits.signatures => Err(Reason::TooManySignatures),
                (Err(_), _) => Err(Reason::Syntax),
                (Ok(tags), None) => Signature::parse(tags, &claims, Family::Dkim, &config.limits),
            };
            let signature = signature.and_then(|signature| {
                if signature.algorithm == Algorithm::RsaSha1 && !config.policy.sha1 {
                    return Err(Reason::Sha1);
                }
                let hash = hashes.want(config.provider, body_hash_spec(&signature));
                Ok(Box::new((signature, hash)))
            });
            entries.push(Entry { claims, field, signature });
        }
        Work { section, hashes, entries }
    }

    fn drop_expired(&mut self, policy: &VerifyPolicy, now: Timestamp) {
        for entry in &mut self.entries {
            if let Ok(signature) = &entry.signature
                && signature.0.is_expired(now.secs(), policy.clock_skew.as_secs())
            {
                entry.signature = Err(Reason::Expired);
            }
        }
    }

    /// The key names of signatures that may still pass, each once.
    fn key_names(&self) -> Vec<Name> {
        let mut names: Vec<Name> = Vec::new();
        for signature in self.entries.iter().filter_map(|entry| entry.signature.as_ref().ok()) {
            if !names.contains(&signature.0.key_name) {
                names.push(signature.0.key_name.clone());
            }
        }
        names
    }
}

pub(crate) fn hash_of(algorithm: Algorithm) -> Hash {
    match algorithm {
        Algorithm::RsaSha1 => Hash::Sha1,
        Algorithm::RsaSha256 | Algorithm::Ed25519Sha256 => Hash::Sha256,
    }
}

pub(crate) fn body_hash_spec(signature: &Signature) -> BodyHashSpec {
    BodyHashSpec {
        canon: signature.canon.body,
        hash: hash_of(signature.algorithm),
        length: signature.body_length,
    }
}

/// Everything that is known when the results are made.
pub(crate) struct Judge<'w> {
    pub(crate) config: &'w Config,
    pub(crate) section: &'w Section,
    pub(crate) names: &'w [Name],
    pub(crate) keys: &'w [Keys],
    pub(crate) hashes: &'w [BodyHash],
}

/// What was learned of a signature besides its verdict.
#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) key_bits: Option<u32>,
    pub(crate) testing: bool,
    pub(crate) unsigned_bytes: u64,
}

impl Judge<'_> {
    fn result(&self, entry: Entry) -> DkimResult {
        let mut facts = Facts::default();
        let judged = match &entry.signature {
            Err(reason) => Err(*reason),
            Ok(signature) => self.judge(&signature.0, signature.1, entry.field, &mut facts),
        };
        DkimResult {
            verdict: judged.err().map_or(Verdict::Pass, Reason::verdict),
            reason: judged.err(),
            domain: entry.claims.domain,
            selector: entry.claims.selector,
            identity: entry.claims.identity,
            algorithm: entry.claims.algorithm,
            tag: entry.claims.tag,
            key_bits: facts.key_bits,
            testing: facts.testing,
            unsigned_bytes: facts.unsigned_bytes,
        }
    }

    /// Judges one DKIM signature field. `Ok` is a pass.
    fn judge(
        &self,
        signature: &Signature,
        body_hash: usize,
        field: usize,
        facts: &mut Facts,
    ) -> Result<(), Reason> {
        self.is_valid(signature, body_hash, field, facts)?;
        self.is_acceptable(signature, facts)
    }

    /// Whether the owner of the key signed this header and this body.
    pub(crate) fn is_valid(
        &self,
        signature: &Signature,
        body_hash: usize,
        field: usize,
        facts: &mut Facts,
    ) -> Result<(), Reason> {
        let body = self.hashes.get(body_hash).ok_or(Reason::BodyHash)?;
        let body_matches = body.value.as_ref() == signature.body_hash.as_slice();
        let covered = signature.body_length.unwrap_or(body.octets);
        facts.unsigned_bytes = body.octets.saturating_sub(covered);
        let keys = self.keys_at(&signature.key_name)?;
        let mut outcome = Err(Reason::KeyMissing);
        for (nth, key) in keys.iter().enumerate() {
            let judged = self.judge_with(signature, key, body_matches, field);
            if nth == 0 || judged.is_ok() {
                (facts.key_bits, facts.testing) = (Some(key.bits()), key.is_testing());
                outcome = judged;
            }
            if outcome.is_ok() {
                break;
            }
        }
        outcome?;
        if covered > body.octets { Err(Reason::BodyLength) } else { Ok(()) }
    }

    pub(crate) fn keys_at(&self, name: &Name) -> Result<&[KeyRecord], Reason> {
        let place = self.names.iter().position(|known| known == name);
        match place.and_then(|place| self.keys.get(place)) {
            Some(Ok(keys)) => Ok(keys),
            Some(Err(reason)) => Err(*reason),
            None => Err(Reason::KeyMissing),
        }
    }

    /// RFC 6376 6.1.2 and 6.1.3 for one key.
    fn judge_with(
        &self,
        signature: &Signature,
        key: &KeyRecord,
        body_matches: bool,
        field: usize,
    ) -> Result<(), Reason> {
        self.check_key(key, signature.algorithm, signature.in_subdomain)?;
        if !body_matches {
            return Err(Reason::BodyHash);
        }
        let canon = signature.canon.header;
        let mut input = header_input::signed_fields(self.section, &signature.signed, canon, Some(field));
        let raw = self.section.raw(field);
        header_input::signature_field(canon, raw, signature.b_span.clone(), &mut input);
        let hash = hash_of(signature.algorithm);
        if verify(self.config.provider, hash, key.public_key(), &input, &signature.signature) {
            Ok(())
        } else {
            Err(Reason::Signature)
        }
    }

    /// Whether a key may be used for such a signature.
    pub(crate) fn check_key(
        &self,
        key: &KeyRecord,
        algorithm: Algorithm,
        in_subdomain: bool,
    ) -> Result<(), Reason> {
        key.check(algorithm, in_subdomain)?;
        if let PublicKey::Rsa(_) = key.public_key() {
            if key.bits() < self.config.policy.rsa_bits_min.max(RSA_BITS_FLOOR) {
                return Err(Reason::KeyTooSmall);
            }
            if key.bits() > self.config.limits.rsa_bits_max {
                return Err(Reason::KeyTooLarge);
            }
        }
        Ok(())
    }

    /// What a valid signature may still lack.
    fn is_acceptable(&self, signature: &Signature, facts: &Facts) -> Result<(), Reason> {
        if self.section.count(&FROM) == 0 {
            return Err(Reason::NoFrom);
        }
        let policy = &self.config.policy;
        if policy.refuse_unsigned_content && facts.unsigned_bytes > 0 {
            return Err(Reason::UnsignedContent);
        }
        let deceives = |(name, present): (&FieldName, usize)| {
            (1..present).contains(&signature.signed.mentions(name.as_str()))
        };
        if policy.refuse_unsigned_duplicates && self.section.repeated(&SINGLETONS).any(deceives) {
            return Err(Reason::UnsignedDuplicate);
        }
        Ok(())
    }
}

/// Whether the owner of `key` signed `input`.
pub(crate) fn verify(
    provider: Provider,
    hash: Hash,
    key: &PublicKey,
    input: &[u8],
    signature: &[u8],
) -> bool {
    match key {
        PublicKey::Rsa(key) => provider.0.verify_rsa(hash, key.numbers(), input, signature),
        // RFC 8463 3: Ed25519 signs the hash, not the octets.
        PublicKey::Ed25519(key) => {
            let mut digest = provider.0.digest(hash);
            digest.update(input);
            provider.0.verify_ed25519(key, digest.finish().as_ref(), signature)
        }
    }
}
