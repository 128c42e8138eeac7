//! The signer: one pass over a message, any number of signatures.
//!
//! Invariant: the same message, key, options and time give the same field, to the octet. A message with a CR or LF
//! that is not part of a CRLF is refused: the next hop would change it, and the signature would be void
//! (RFC 5321 2.3.8).
//!
//! Standards: RFC 6376 3.5, 3.7, 5; RFC 8463; RFC 8301.
//!
//! Not here: choosing keys for a message (key_store.rs), verifying (verify.rs).

use std::sync::Arc;
use std::time::Duration;

use ::base64::Engine;
use ::base64::engine::general_purpose::STANDARD;
use postwright_core::{Domain, HeaderField, Message, Timestamp};

use crate::body_hash::{BodyHash, BodyHashSpec, BodyHashes, STEP};
use crate::canon::CanonPair;
use crate::crypto::Hash;
use crate::fold::Folded;
use crate::header_input;
use crate::header_reader::HeaderReader;
use crate::limits::Limits;
use crate::line_ends::LineEnds;
use crate::names::Names;
use crate::section::{FROM, Section};
use crate::selection::SignedFields;
use crate::signature::Selector;
use crate::signing_key::SigningKey;

pub(crate) const FIELD: &str = "DKIM-Signature";

/// How to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignOptions {
    /// `c=`. relaxed/relaxed.
    pub canon: CanonPair,
    /// `h=`.
    pub fields: SignedFields,
    /// `i=`, as it shall be read: an address or `@domain`, within the signing domain. Left out by default.
    pub identity: Option<String>,
    /// `t=`: write the time of signing. On.
    pub timestamp: bool,
    /// `x=`: the signature expires this long after it was made. Never by default.
    pub expires_after: Option<Duration>,
    /// `q=dns/txt`. Off: it is the default of verifiers.
    pub query_method: bool,
    /// `z=`: copy the signed fields into the signature, to find out what changed on the way. Off.
    pub copied_fields: bool,
    /// `l=`: let others append to the body. Refused unless switched on: RFC 6376 8.2 shows what it allows. Off.
    pub body_length: bool,
}

impl Default for SignOptions {
    fn default() -> Self {
        SignOptions {
            canon: CanonPair::default(),
            fields: SignedFields::default(),
            identity: None,
            timestamp: true,
            expires_after: None,
            query_method: false,
            copied_fields: false,
            body_length: false,
        }
    }
}

/// Why a message was not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// There is no From field to sign.
    #[error("the message has no From field, which must be signed (RFC 6376 5.4)")]
    NoFrom,
    /// The chosen fields leave From out.
    #[error("From must be among the signed fields (RFC 6376 5.4)")]
    FromNotSigned,
    /// A chosen name is no field name.
    #[error("a signed field's name is printable ASCII without colon and semicolon (RFC 6376 3.5)")]
    FieldName,
    /// More fields than a verifier would look at.
    #[error("the message has more than 1,000 fields to sign")]
    TooManyFields,
    /// A CR or LF stands alone.
    #[error("the message has a CR or LF that is not part of CRLF; repair it before signing (RFC 5321 2.3.8)")]
    BareLineEnd,
    /// The header section is longer than 16 MiB.
    #[error("the header section is longer than 16 MiB")]
    HeaderTooLarge,
    /// `i=` is not within the signing domain.
    #[error("the identity i= is not an address within the signing domain (RFC 6376 3.5)")]
    Identity,
    /// The selector and the domain are too long together.
    #[error("the name of the key is longer than a DNS name may be (RFC 1035 2.3.4)")]
    KeyName,
    /// The field that would result is not a valid header field.
    #[error("the signature cannot be written as a header field (a line would exceed 998 octets)")]
    Field,
    /// The library failed.
    #[error("the cryptographic library failed to sign")]
    Library,
}

/// Signs for one domain with one key. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Signer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    key: SigningKey,
    domain: Domain,
    selector: Selector,
    options: SignOptions,
}

impl Signer {
    /// A signer with the default options: relaxed/relaxed, the recommended fields oversigned, `t=`.
    pub fn new(key: SigningKey, domain: Domain, selector: Selector) -> Result<Signer, SignError> {
        Signer::with_options(key, domain, selector, SignOptions::default())
    }

    /// A signer with everything chosen.
    pub fn with_options(
        key: SigningKey,
        domain: Domain,
        selector: Selector,
        options: SignOptions,
    ) -> Result<Signer, SignError> {
        options.fields.check()?;
        selector.key_name(&domain).ok_or(SignError::KeyName)?;
        if let Some(identity) = &options.identity {
            let (_, host) = identity.rsplit_once('@').ok_or(SignError::Identity)?;
            let host: Domain = host.parse().map_err(|_| SignError::Identity)?;
            if !host.is_within(&domain) {
                return Err(SignError::Identity);
            }
        }
        Ok(Signer { inner: Arc::new(Inner { key, domain, selector, options }) })
    }

    /// The signing domain, `d=`.
    pub fn domain(&self) -> &Domain {
        &self.inner.domain
    }

    /// The selector, `s=`.
    pub fn selector(&self) -> &Selector {
        &self.inner.selector
    }

    /// The key.
    pub fn key(&self) -> &SigningKey {
        &self.inner.key
    }

    /// Signs a whole message; prepend the field to it.
    pub fn sign(&self, message: &Message, now: Timestamp) -> Result<HeaderField, SignError> {
        let fields = sign_all(std::slice::from_ref(self), message, now)?;
        fields.into_iter().next().ok_or(SignError::Library)
    }

    /// Begins a message that arrives in pieces.
    pub fn begin(&self) -> Signing {
        Signing::new(vec![self.clone()])
    }
}

/// Signs a whole message with several keys in one pass. The fields are in the order of the signers.
pub fn sign_all(
    signers: &[Signer],
    message: &Message,
    now: Timestamp,
) -> Result<Vec<HeaderField>, SignError> {
    let mut signing = Signing::new(signers.to_vec());
    for chunk in message.chunks() {
        signing.feed(chunk);
    }
    signing.finish(now)
}

/// A message on its way through one or more signers.
pub struct Signing {
    signers: Vec<Signer>,
    line_ends: LineEnds,
    header: HeaderReader,
    work: Option<Work>,
}

struct Work {
    section: Section,
    hashes: BodyHashes,
    /// For each signer, the place of its hash.
    places: Vec<usize>,
}

impl Signing {
    /// Begins a message for several signers.
    pub fn new(signers: Vec<Signer>) -> Signing {
        let header = HeaderReader::new(Limits::default().header_octets);
        Signing { signers, line_ends: LineEnds::default(), header, work: None }
    }

    /// Takes the next octets of the message: header, empty line, body, line ends CRLF.
    pub fn feed(&mut self, octets: &[u8]) {
        for step in octets.chunks(STEP) {
            self.line_ends.feed(step);
            self.feed_step(step);
        }
    }

    fn feed_step(&mut self, octets: &[u8]) {
        if let Some(work) = &mut self.work {
            work.hashes.feed(octets);
        } else if let Some((header, body)) = self.header.feed(octets) {
            let mut work = Work::new(&self.signers, header);
            work.hashes.feed(body);
            self.work = Some(work);
        }
    }

    /// Ends the message and signs it. The fields are in the order of the signers.
    pub fn finish(self, now: Timestamp) -> Result<Vec<HeaderField>, SignError> {
        if !self.line_ends.are_whole() {
            return Err(SignError::BareLineEnd);
        }
        let work = match self.work {
            Some(work) => work,
            None => {
                let header = self.header.finish().map_err(|_| SignError::HeaderTooLarge)?;
                Work::new(&self.signers, header)
            }
        };
        if work.section.count(&FROM) == 0 {
            return Err(SignError::NoFrom);
        }
        let hashes = work.hashes.finish();
        let pairs = self.signers.iter().zip(&work.places);
        pairs
            .map(|(signer, place)| {
                let hash = hashes.get(*place).ok_or(SignError::Library)?;
                signer.inner.write(&work.section, hash, now)
            })
            .collect()
    }
}

impl Work {
    fn new(signers: &[Signer], header: Vec<u8>) -> Work {
        let mut hashes = BodyHashes::default();
        let mut want = |signer: &Signer| {
            let spec =
                BodyHashSpec { canon: signer.inner.options.canon.body, hash: Hash::Sha256, length: None };
            hashes.want(signer.inner.key.provider, spec)
        };
        let places = signers.iter().map(&mut want).collect();
        Work { section: Section::new(header), hashes, places }
    }
}

impl Inner {
    fn write(&self, section: &Section, body: &BodyHash, now: Timestamp) -> Result<HeaderField, SignError> {
        let names = self.options.fields.names(section)?;
        let mut value = Folded::new(FIELD);
        self.write_tags(&mut value, now);
        if self.options.body_length {
            value.tag("l", &body.octets.to_string());
        }
        value.pieces("h", names.pieces());
        if self.options.copied_fields {
            write_copies(&mut value, section, &names);
        }
        value.tag("bh", &STANDARD.encode(body.value));
        value.open("b");
        let canon = self.options.canon.header;
        let mut input = header_input::signed_fields(section, &names, canon, None);
        header_input::unsigned(canon, FIELD, value.text(), &mut input);
        let signature = sign_input(&self.key, &input).ok_or(SignError::Library)?;
        let value = value.close(&STANDARD.encode(signature));
        HeaderField::new(FIELD, &value).map_err(|_| SignError::Field)
    }

    fn write_tags(&self, value: &mut Folded, now: Timestamp) {
        let options = &self.options;
        value.tag("v", "1");
        value.tag("a", self.key.algorithm().as_str());
        value.tag("c", options.canon.as_str());
        value.tag("d", self.domain.as_str());
        value.tag("s", self.selector.as_str());
        if let Some(identity) = &options.identity {
            value.tag("i", &quoted_printable(identity.as_bytes()).concat());
        }
        if options.query_method {
            value.tag("q", "dns/txt");
        }
        if options.timestamp {
            value.tag("t", &now.secs().to_string());
        }
        if let Some(span) = options.expires_after {
            value.tag("x", &now.secs().saturating_add(span.as_secs().max(1)).to_string());
        }
    }
}

/// `z=`: the fields that are signed, in dkim-quoted-printable, between bars.
fn write_copies(value: &mut Folded, section: &Section, names: &Names) {
    let mut selection = crate::section::Selection::new(section, None);
    let mut pieces: Vec<String> = Vec::new();
    for name in names.iter() {
        let Some(index) = selection.next(name.as_bytes()) else { continue };
        if !pieces.is_empty() {
            pieces.push("|".to_owned());
        }
        pieces.push(format!("{name}:"));
        pieces.extend(quoted_printable(section.value(index)));
    }
    value.pieces("z", pieces.iter().map(String::as_str));
}

/// dkim-quoted-printable (RFC 6376 2.11) in pieces between which a line may be folded.
fn quoted_printable(octets: &[u8]) -> Vec<String> {
    let encode = |octet: &u8| match octet {
        b'!'..=b':' | b'<' | b'>'..=b'{' | b'}' | b'~' => char::from(*octet).to_string(),
        other => format!("={other:02X}"),
    };
    octets.iter().map(encode).collect()
}

/// Signs the octets of a header; for Ed25519 their hash (RFC 8463 3).
pub(crate) fn sign_input(key: &SigningKey, input: &[u8]) -> Option<Vec<u8>> {
    if key.pair.is_rsa() {
        return key.pair.sign(input);
    }
    let mut digest = key.provider.0.digest(Hash::Sha256);
    digest.update(input);
    key.pair.sign(digest.finish().as_ref())
}
