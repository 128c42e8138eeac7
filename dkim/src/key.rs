//! Key records (RFC 6376 3.6.1): what a domain publishes under `SELECTOR._domainkey`.
//!
//! Invariant: a [`KeyRecord`] holds a usable public key; a revoked, broken or foreign one is a [`Reason`].
//!
//! Standards: RFC 6376 3.6.1, 3.6.2.2; RFC 8463 3 (Ed25519); RFC 8301 3.2 (lengths). `g=` is ignored: RFC 6376
//! removed it (appendix E).

use std::fmt::Write;

use crate::base64;
use crate::der::{self, RsaNumbers};
use crate::limits::Limits;
use crate::result::Reason;
use crate::signature::Algorithm;
use crate::tag::{self, TagList};

/// A public key as published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    key: PublicKey,
    /// Names from `h=`; empty allows all.
    hashes: Vec<String>,
    testing: bool,
    strict: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublicKey {
    Rsa(RsaKey),
    Ed25519([u8; 32]),
}

impl KeyRecord {
    /// Reads a record: the strings of one TXT record, joined.
    ///
    /// ```
    /// use postwright_dkim::{KeyRecord, Limits, Reason};
    /// // The key of RFC 8463 appendix A.2.
    /// let text = b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    /// let record = KeyRecord::parse(text, &Limits::default())?;
    /// assert_eq!(record.bits(), 256);
    /// assert_eq!(KeyRecord::parse(b"p=", &Limits::default()), Err(Reason::KeyRevoked));
    /// # Ok::<(), Reason>(())
    /// ```
    pub fn parse(text: &[u8], limits: &Limits) -> Result<KeyRecord, Reason> {
        if text.len() > limits.key_record_octets {
            return Err(Reason::KeyRecordTooLong);
        }
        let tags = TagList::parse(text).map_err(|_| Reason::KeySyntax)?;
        // "If specified, this tag MUST be set to DKIM1 and MUST be the first tag."
        match tags.value("v") {
            Some("DKIM1") if tags.first() == Some("v") => {}
            None => {}
            Some(_) => return Err(Reason::KeyVersion),
        }
        let p = tags.value("p").ok_or(Reason::KeySyntax)?;
        if p.is_empty() {
            return Err(Reason::KeyRevoked);
        }
        let kind = tags.value("k").unwrap_or("rsa");
        if !matches!(kind, "rsa" | "ed25519") {
            return Err(Reason::KeyType);
        }
        let services = tags.value("s").unwrap_or("*");
        if !tag::members(services).any(|service| matches!(service, "*" | "email")) {
            return Err(Reason::KeyService);
        }
        let octets = base64::decode(p.as_bytes()).ok_or(Reason::KeySyntax)?;
        let key = match kind {
            "ed25519" => PublicKey::Ed25519(octets.try_into().map_err(|_| Reason::KeySyntax)?),
            _ => PublicKey::Rsa(RsaKey::new(&octets).ok_or(Reason::KeySyntax)?),
        };
        let flags = tags.value("t").unwrap_or_default();
        Ok(KeyRecord {
            key,
            hashes: tags.value("h").map(|h| tag::members(h).map(str::to_owned).collect()).unwrap_or_default(),
            testing: tag::members(flags).any(|flag| flag == "y"),
            strict: tag::members(flags).any(|flag| flag == "s"),
        })
    }

    /// Bits of the key: those of the modulus for RSA, 256 for Ed25519.
    pub fn bits(&self) -> u32 {
        match &self.key {
            PublicKey::Ed25519(_) => 256,
            PublicKey::Rsa(key) => key.numbers().bits(),
        }
    }

    /// Whether both records hold the same public key, however it is wrapped and whatever else they say.
    pub fn has_same_key(&self, other: &KeyRecord) -> bool {
        self.key == other.key
    }

    /// `t=y`: the domain is testing DKIM.
    pub fn is_testing(&self) -> bool {
        self.testing
    }

    /// `t=s`: `i=` must not name a subdomain of `d=`.
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// Whether this key may have made a signature with `algorithm` (RFC 6376 6.1.2, steps 6 and 7).
    pub(crate) fn check(&self, algorithm: Algorithm, in_subdomain: bool) -> Result<(), Reason> {
        let (rsa, hash) = match algorithm {
            Algorithm::RsaSha1 => (true, "sha1"),
            Algorithm::RsaSha256 => (true, "sha256"),
            Algorithm::Ed25519Sha256 => (false, "sha256"),
        };
        if rsa != matches!(self.key, PublicKey::Rsa(_)) {
            return Err(Reason::KeyType);
        }
        if !self.hashes.is_empty() && !self.hashes.iter().any(|allowed| allowed == hash) {
            return Err(Reason::KeyHash);
        }
        if self.strict && in_subdomain {
            return Err(Reason::KeyStrict);
        }
        Ok(())
    }
}

/// The numbers of an RSA key: big-endian, without leading zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RsaKey {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

impl RsaKey {
    fn new(der: &[u8]) -> Option<RsaKey> {
        let RsaNumbers { modulus, exponent } = der::rsa_public_key(der)?;
        Some(RsaKey { modulus: modulus.to_vec(), exponent: exponent.to_vec() })
    }

    pub(crate) fn numbers(&self) -> RsaNumbers<'_> {
        RsaNumbers { modulus: &self.modulus, exponent: &self.exponent }
    }
}

/// The text of a TXT record as a zone file writes it: strings of at most 255 octets, quoted (RFC 1035 3.3.14).
///
/// ```
/// assert_eq!(postwright_dkim::zone_strings("v=DKIM1; p="), "\"v=DKIM1; p=\"");
/// ```
pub fn zone_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for string in text.as_bytes().chunks(255) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push('"');
        for octet in string {
            match octet {
                b'"' | b'\\' => {
                    out.push('\\');
                    out.push(char::from(*octet));
                }
                0x20..=0x7e => out.push(char::from(*octet)),
                // Writing to a String cannot fail.
                _ => drop(write!(out, "\\{octet:03}")),
            }
        }
        out.push('"');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = "p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    fn parse(text: &str) -> Result<KeyRecord, Reason> {
        KeyRecord::parse(text.as_bytes(), &Limits::default())
    }

    #[test]
    fn records_are_read_or_refused_with_a_reason() {
        assert!(parse(&format!("v=DKIM1; k=ed25519; {ED}")).is_ok());
        assert!(parse(&format!("k=ed25519;n=note; g=x; s=web : email; {ED};")).is_ok());
        for (text, reason) in [
            ("", Reason::KeySyntax),
            ("hello", Reason::KeySyntax),
            ("v=DKIM1", Reason::KeySyntax),
            ("p=", Reason::KeyRevoked),
            ("p=%%", Reason::KeySyntax),
            ("p=AAAA", Reason::KeySyntax),
            ("v=DKIM2; p=", Reason::KeyVersion),
            ("p=; v=DKIM1", Reason::KeyVersion),
            ("k=dsa; p=AAAA", Reason::KeyType),
            ("s=chat; p=AAAA", Reason::KeyService),
            ("k=ed25519; p=AAAA", Reason::KeySyntax),
        ] {
            assert_eq!(parse(text), Err(reason), "{text:?}");
        }
        let long = format!("n={}; {ED}", "x".repeat(20_000));
        assert_eq!(parse(&long), Err(Reason::KeyRecordTooLong));
    }

    #[test]
    fn one_key_is_one_key_in_any_record() {
        let plain = parse(&format!("k=ed25519; {ED}")).unwrap();
        assert!(plain.has_same_key(&parse(&format!("v=DKIM1; k=ed25519; t=s; n=x; {ED}")).unwrap()));
        let other = format!("k=ed25519; p={}=", "A".repeat(43));
        assert!(!plain.has_same_key(&parse(&other).unwrap()));
    }

    #[test]
    fn flags_and_hashes_decide_what_the_key_is_for() {
        let record = parse(&format!("k=ed25519; h=sha1:sha512; t=y : s; {ED}")).unwrap();
        assert!(record.is_testing() && record.is_strict());
        assert_eq!(record.check(Algorithm::Ed25519Sha256, false), Err(Reason::KeyHash));
        assert_eq!(record.check(Algorithm::RsaSha256, false), Err(Reason::KeyType));
        let record = parse(&format!("k=ed25519; h=sha256; t=s; {ED}")).unwrap();
        assert_eq!(record.check(Algorithm::Ed25519Sha256, true), Err(Reason::KeyStrict));
        assert_eq!(record.check(Algorithm::Ed25519Sha256, false), Ok(()));
    }

    #[test]
    fn zone_strings_are_cut_at_255_octets() {
        let text = zone_strings(&"x".repeat(300));
        assert_eq!(text, format!("\"{}\" \"{}\"", "x".repeat(255), "x".repeat(45)));
        assert_eq!(zone_strings("a\"\\\n"), "\"a\\\"\\\\\\010\"");
    }
}
