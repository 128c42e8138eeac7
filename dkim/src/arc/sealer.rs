//! Adding a set to a chain (RFC 8617 5.1).
//!
//! Invariant: nothing is added to a chain that its last sealer found broken, nor a 51st set.

use ::base64::Engine;
use ::base64::engine::general_purpose::STANDARD;
use postwright_core::{Domain, HeaderField, Message, Timestamp};

use super::chain::{self, MESSAGE_SIGNATURE, RESULTS, SEAL, SealInput};
use super::results::{is_arc, statements};
use super::{ArcResult, ChainValidation};
use crate::body_hash::{BodyHash, BodyHashSpec, BodyHashes};
use crate::canon::{Canon, CanonPair};
use crate::crypto::Hash;
use crate::fold::Folded;
use crate::header_input;
use crate::header_reader::HeaderReader;
use crate::limits::Limits;
use crate::line_ends::LineEnds;
use crate::section::Section;
use crate::selection::SignedFields;
use crate::sign::{SignError, sign_input};
use crate::signature::Selector;
use crate::signing_key::SigningKey;

/// What a message signature "MUST NOT" cover (RFC 8617 4.1.2).
const NEVER_SIGNED: [&str; 4] = ["Authentication-Results", RESULTS, MESSAGE_SIGNATURE, SEAL];

/// Why a message was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// As with DKIM.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The authserv-id or the results cannot stand in a header field.
    #[error("the authentication results are not text that a header field can hold (RFC 8601 2.2)")]
    Results,
    /// The chain that was validated is not the one in the message.
    #[error("the message's ARC fields are not those that were validated")]
    Chain,
}

/// Seals for one domain with one key.
#[derive(Debug, Clone)]
pub struct Sealer {
    key: SigningKey,
    domain: Domain,
    selector: Selector,
    authserv_id: String,
    fields: SignedFields,
}

impl Sealer {
    /// A sealer; `authserv_id` is the name by which our Authentication-Results go (RFC 8601 2.5).
    pub fn new(
        key: SigningKey,
        domain: Domain,
        selector: Selector,
        authserv_id: &str,
    ) -> Result<Sealer, SealError> {
        selector.key_name(&domain).ok_or(SignError::KeyName)?;
        let is_id = |octet: u8| octet.is_ascii_graphic() && !matches!(octet, b';' | b'"' | b'(' | b')');
        if authserv_id.is_empty() || !authserv_id.bytes().all(is_id) {
            return Err(SealError::Results);
        }
        let fields = SignedFields::PresentOnly;
        Ok(Sealer { key, domain, selector, authserv_id: authserv_id.to_owned(), fields })
    }

    /// Signs other fields than the recommended ones. Authentication-Results and the fields of ARC are refused: hops
    /// add and remove them (RFC 8617 4.1.2).
    pub fn with_fields(mut self, fields: SignedFields) -> Result<Sealer, SealError> {
        fields.check()?;
        if let SignedFields::Exactly(names) = &fields
            && names.iter().any(|name| NEVER_SIGNED.iter().any(|never| name.eq_ignore_ascii_case(never)))
        {
            return Err(SignError::FieldName.into());
        }
        self.fields = fields;
        Ok(self)
    }

    /// The set to add, in the order in which to prepend its fields; `None` if nothing may be added.
    ///
    /// `chain` is what [`ArcVerifier`](super::ArcVerifier) said of this message; `results` is the text behind the
    /// authserv-id of our Authentication-Results, such as `spf=pass smtp.mailfrom=example.org`. An `arc=` is added to
    /// it if there is none.
    pub fn seal(
        &self,
        message: &Message,
        chain: &ArcResult,
        results: &str,
        now: Timestamp,
    ) -> Result<Option<Vec<HeaderField>>, SealError> {
        let limits = Limits::default();
        if chain.closed || chain.instances >= limits.arc_sets {
            return Ok(None);
        }
        let (section, body) = self.read(message, &limits)?;
        let instance = chain.instances + 1;
        let results_field = self.results_field(instance, chain.cv, results)?;
        let signature_field = self.signature_field(instance, &section, &body, now)?;
        let mut input = SealInput::default();
        // A broken chain is not covered: nobody could say by what (RFC 8617 5.1.2).
        if chain.cv == ChainValidation::Pass {
            let sets = chain::find(&section, &limits).map_err(|_| SealError::Chain)?;
            if u32::try_from(sets.len()) != Ok(chain.instances) {
                return Err(SealError::Chain);
            }
            for set in &sets {
                input.add(&section, set);
            }
        }
        for field in [&results_field, &signature_field] {
            let octets = field.as_bytes();
            input.field(octets.strip_suffix(b"\r\n").unwrap_or(octets));
        }
        let seal_field = self.seal_field(instance, chain.cv, input, now)?;
        Ok(Some(vec![results_field, signature_field, seal_field]))
    }

    fn read(&self, message: &Message, limits: &Limits) -> Result<(Section, BodyHash), SealError> {
        let mut hashes = BodyHashes::default();
        let spec = BodyHashSpec { canon: Canon::Relaxed, hash: Hash::Sha256, length: None };
        hashes.want(self.key.provider, spec);
        let mut reader = HeaderReader::new(limits.header_octets);
        let (mut header, mut line_ends) = (None, LineEnds::default());
        for chunk in message.chunks() {
            line_ends.feed(chunk);
            if header.is_some() {
                hashes.feed(chunk);
            } else if let Some((found, body)) = reader.feed(chunk) {
                hashes.feed(body);
                header = Some(found);
            }
        }
        if !line_ends.are_whole() {
            return Err(SignError::BareLineEnd.into());
        }
        let header = match header {
            Some(header) => header,
            None => reader.finish().map_err(|_| SignError::HeaderTooLarge)?,
        };
        let body = hashes.finish().into_iter().next().ok_or(SignError::Library)?;
        Ok((Section::new(header), body))
    }

    fn results_field(
        &self,
        instance: u32,
        cv: ChainValidation,
        results: &str,
    ) -> Result<HeaderField, SealError> {
        let mut value = format!("i={instance}; {}", self.authserv_id);
        if !statements(results).any(is_arc) {
            value.push_str(&format!(";\r\n\tarc={cv}"));
        }
        for one in statements(results).filter(|one| *one != "none") {
            value.push_str(";\r\n\t");
            value.push_str(one);
        }
        HeaderField::new(RESULTS, &value).map_err(|_| SealError::Results)
    }

    fn signature_field(
        &self,
        instance: u32,
        section: &Section,
        body: &BodyHash,
        now: Timestamp,
    ) -> Result<HeaderField, SealError> {
        let mut names = self.fields.names(section)?;
        if !matches!(self.fields, SignedFields::Exactly(_)) {
            // RFC 8617 4.1.2: DKIM signatures are worth keeping, for they may break at this hop.
            let times = section.all(b"dkim-signature").take(Limits::default().signatures).count();
            (0..times).for_each(|_| names.push("DKIM-Signature"));
        }
        let canon = CanonPair { header: Canon::Relaxed, body: Canon::Relaxed };
        let mut value = Folded::new(MESSAGE_SIGNATURE);
        value.tag("i", &instance.to_string());
        value.tag("a", self.key.algorithm().as_str());
        value.tag("c", canon.as_str());
        self.write_signer(&mut value, now);
        value.pieces("h", names.pieces());
        value.tag("bh", &STANDARD.encode(body.value));
        value.open("b");
        let mut input = header_input::signed_fields(section, &names, canon.header, None);
        header_input::unsigned(canon.header, MESSAGE_SIGNATURE, value.text(), &mut input);
        self.close(MESSAGE_SIGNATURE, value, &input)
    }

    fn seal_field(
        &self,
        instance: u32,
        cv: ChainValidation,
        input: SealInput,
        now: Timestamp,
    ) -> Result<HeaderField, SealError> {
        let mut value = Folded::new(SEAL);
        value.tag("i", &instance.to_string());
        value.tag("a", self.key.algorithm().as_str());
        value.tag("cv", cv.as_str());
        self.write_signer(&mut value, now);
        value.open("b");
        let input = input.finish(value.text());
        self.close(SEAL, value, &input)
    }

    fn write_signer(&self, value: &mut Folded, now: Timestamp) {
        value.tag("d", self.domain.as_str());
        value.tag("s", self.selector.as_str());
        value.tag("t", &now.secs().to_string());
    }

    fn close(&self, name: &str, value: Folded, input: &[u8]) -> Result<HeaderField, SealError> {
        let signature = sign_input(&self.key, input).ok_or(SignError::Library)?;
        let value = value.close(&STANDARD.encode(signature));
        Ok(HeaderField::new(name, &value).map_err(|_| SignError::Field)?)
    }
}
