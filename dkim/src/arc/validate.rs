//! Validation of a chain (RFC 8617 5.2).
//!
//! Invariant: at most two look-ups and two public-key operations a set; body hashes are computed for the newest
//! message signature and, without `l=`, for the older ones.

use std::sync::Arc;

use postwright_core::{Message, Name, Resolver, Timestamp};

use super::chain::{self, Chain, SealInput, Set};
use super::{ArcReason, ArcResult, ChainValidation};
use crate::body_hash::{BodyHash, BodyHashes};
use crate::crypto::Provider;
use crate::header_reader::HeaderReader;
use crate::limits::Limits;
use crate::lookup;
use crate::result::Reason;
use crate::section::Section;
use crate::signature::{Algorithm, Claims, Family, Signature};
use crate::tag::TagList;
use crate::verify::{Config, Facts, Judge, VerifyPolicy, body_hash_spec, hash_of, verify};

/// Validates chains. Cheap to clone; one serves a whole program.
#[derive(Debug, Clone)]
pub struct ArcVerifier {
    config: Arc<Config>,
}

#[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
impl Default for ArcVerifier {
    fn default() -> Self {
        ArcVerifier::new(Provider::default(), VerifyPolicy::default(), Limits::default())
    }
}

impl ArcVerifier {
    /// A verifier with everything chosen. Of the policy, the shortest key and the skew of clocks count; SHA-1 is
    /// never accepted.
    pub fn new(provider: Provider, policy: VerifyPolicy, limits: Limits) -> ArcVerifier {
        ArcVerifier { config: Arc::new(Config { provider, policy, limits }) }
    }

    /// Begins a message.
    pub fn begin(&self) -> ArcVerification {
        let header = HeaderReader::new(self.config.limits.header_octets);
        ArcVerification { config: self.config.clone(), header, work: None }
    }

    /// Validates the chain of a message that is there as a whole.
    pub async fn verify(&self, message: &Message, resolver: &dyn Resolver, now: Timestamp) -> ArcResult {
        let mut verification = self.begin();
        for chunk in message.chunks() {
            verification.feed(chunk);
        }
        verification.finish(resolver, now).await
    }
}

/// A message on its way through the verifier.
pub struct ArcVerification {
    config: Arc<Config>,
    header: HeaderReader,
    work: Option<Box<Work>>,
}

struct Work {
    section: Section,
    chain: Chain,
    /// For each set, its message signature and the place of its body hash.
    signatures: Vec<Result<(Signature, usize), Reason>>,
    hashes: BodyHashes,
}

impl ArcVerification {
    /// Takes the next octets of the message: header, empty line, body, line ends CRLF.
    pub fn feed(&mut self, octets: &[u8]) {
        match &mut self.work {
            Some(work) => work.hashes.feed(octets),
            None => {
                if let Some((header, body)) = self.header.feed(octets) {
                    let mut work = Work::new(&self.config, header);
                    work.hashes.feed(body);
                    self.work = Some(Box::new(work));
                }
            }
        }
    }

    /// Ends the message, looks up the keys, all at once, and judges the chain.
    pub async fn finish(self, resolver: &dyn Resolver, now: Timestamp) -> ArcResult {
        let config = self.config;
        let work = match self.work {
            Some(work) => *work,
            None => match self.header.finish() {
                Ok(header) => Work::new(&config, header),
                Err(_) => return ArcResult::fail(0, ArcReason::HeaderTooLarge),
            },
        };
        let sets = match &work.chain {
            Err((instances, reason)) => return ArcResult::fail(*instances, *reason),
            Ok(sets) if sets.is_empty() => return ArcResult::none(),
            Ok(sets) => sets,
        };
        let names = key_names(sets, &work.signatures);
        let keys = lookup::keys(resolver, &names, &config.limits).await;
        let hashes: Vec<BodyHash> = work.hashes.finish();
        let judge =
            Judge { config: &config, section: &work.section, names: &names, keys: &keys, hashes: &hashes };
        Court { judge, sets, signatures: &work.signatures, now }.result()
    }
}

impl Work {
    fn new(config: &Config, header: Vec<u8>) -> Work {
        let section = Section::new(header);
        let chain = chain::find(&section, &config.limits);
        let sets = chain.as_deref().unwrap_or_default();
        let mut hashes = BodyHashes::default();
        let newest = sets.len().saturating_sub(1);
        let signatures = sets
            .iter()
            .enumerate()
            .map(|(nth, set)| {
                let signature = message_signature(section.value(set.message_signature), &config.limits)?;
                // Each l= would be one more hash of the body; of old signatures it is not worth that.
                if nth != newest && signature.body_length.is_some() {
                    return Err(Reason::BodyLength);
                }
                let place = hashes.want(config.provider, body_hash_spec(&signature));
                Ok((signature, place))
            })
            .collect();
        Work { section, chain, signatures, hashes }
    }
}

fn message_signature(value: &[u8], limits: &Limits) -> Result<Signature, Reason> {
    let tags = TagList::parse(value).map_err(|_| Reason::Syntax)?;
    let claims = Claims::of(&tags, Family::ArcMessage);
    let signature = Signature::parse(&tags, &claims, Family::ArcMessage, limits)?;
    if signature.algorithm == Algorithm::RsaSha1 {
        return Err(Reason::Sha1);
    }
    // RFC 8617 4.1.2: seals come later, so a signature over one is void.
    if signature.signed.mentions(chain::SEAL) > 0 {
        return Err(Reason::SignedFields);
    }
    Ok(signature)
}

fn key_names(sets: &[Set], signatures: &[Result<(Signature, usize), Reason>]) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    let of_signatures = signatures.iter().flatten().map(|(signature, _)| &signature.key_name);
    for name in sets.iter().map(|set| &set.seal.key_name).chain(of_signatures) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Everything that is known when a chain is judged.
struct Court<'w> {
    judge: Judge<'w>,
    sets: &'w [Set],
    signatures: &'w [Result<(Signature, usize), Reason>],
    now: Timestamp,
}

impl Court<'_> {
    fn result(&self) -> ArcResult {
        let instances = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        match self.judge_chain(instances) {
            Err(reason) => ArcResult::fail(instances, reason),
            Ok(()) => ArcResult {
                cv: ChainValidation::Pass,
                oldest_pass: Some(self.oldest_pass(instances)),
                sealers: self.sets.iter().map(|set| set.seal.domain.clone()).collect(),
                instances,
                ..ArcResult::none()
            },
        }
    }

    fn judge_chain(&self, newest: u32) -> Result<(), ArcReason> {
        self.message_signature(newest).map_err(|reason| ArcReason::MessageSignature(newest, reason))?;
        let mut input = SealInput::default();
        for (instance, set) in (1..).zip(self.sets) {
            input
                .signed_by(self.judge.section, set, |octets| self.seal(set, octets))
                .map_err(|reason| ArcReason::Seal(instance, reason))?;
        }
        Ok(())
    }

    fn message_signature(&self, instance: u32) -> Result<(), Reason> {
        let index = usize::try_from(instance).ok().and_then(|instance| instance.checked_sub(1));
        let found = index.and_then(|index| Some((self.sets.get(index)?, self.signatures.get(index)?)));
        let (set, signature) = found.ok_or(Reason::Syntax)?;
        let (signature, place) = signature.as_ref().map_err(|reason| *reason)?;
        if signature.is_expired(self.now.secs(), self.judge.config.policy.clock_skew.as_secs()) {
            return Err(Reason::Expired);
        }
        self.judge.is_valid(signature, *place, set.message_signature, &mut Facts::default())
    }

    fn seal(&self, set: &Set, octets: &[u8]) -> Result<(), Reason> {
        let seal = &set.seal;
        let mut outcome = Err(Reason::KeyMissing);
        for key in self.judge.keys_at(&seal.key_name)? {
            outcome = self.judge.check_key(key, seal.algorithm, false).and_then(|()| {
                let provider = self.judge.config.provider;
                let hash = hash_of(seal.algorithm);
                if verify(provider, hash, key.public_key(), octets, &seal.signature) {
                    Ok(())
                } else {
                    Err(Reason::Signature)
                }
            });
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// RFC 8617 5.2, step 5: from the newest down, the first message signature that fails ends the search.
    fn oldest_pass(&self, newest: u32) -> u32 {
        let failing = (1..newest).rev().find(|instance| self.message_signature(*instance).is_err());
        failing.map_or(0, |instance| instance + 1)
    }
}
