//! DANE for SMTP: TLSA records, and whether a certificate chain matches them.
//!
//! Invariant: only records from a DNSSEC-secure answer are ever used; a look-up that fails is never taken for an
//! absence. PKIX-TA(0) and PKIX-EE(1) are unusable for SMTP (RFC 7672 3.1.3), and records that are all unusable
//! still demand TLS.
//!
//! Standards: RFC 6698 2.1; RFC 7671 (4.1 unusable, 5.1 DANE-EE, 5.2 DANE-TA, 9 digest agility); RFC 7672 (2.1.2
//! errors, 2.2 base domain, 3.1 usages, 3.2 names).
//!
//! Not here: whether DANE or another policy applies (policy), DNSSEC validation (the resolver).

use postwright_core::{DnsError, Name, Record, RecordKind, Resolver};
use ring::digest;
use rustls_pki_types::{
    CertificateDer, Der, ServerName, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
};
use webpki::{EndEntityCert, KeyUsage};

use crate::route::MailHost;

/// Most usable TLSA records that are looked at: more is an attack on our time.
const RECORDS_MAX: usize = 32;
/// Longest chain that is looked at.
const CHAIN_MAX: usize = 10;

/// What a record's data is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Usage {
    /// DANE-TA(2): a trust anchor of the chain.
    TrustAnchor,
    /// DANE-EE(3): the server's own certificate or key.
    EndEntity,
}

/// Which part of the certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Cert(0): the whole certificate.
    Certificate,
    /// SPKI(1): its public key.
    PublicKey,
}

/// How it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Matching {
    /// Full(0): octet by octet.
    Full,
    /// SHA2-256(1).
    Sha256,
    /// SHA2-512(2).
    Sha512,
}

/// A TLSA record that SMTP can use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tlsa {
    /// What is compared.
    pub usage: Usage,
    /// Which part.
    pub selector: Selector,
    /// How.
    pub matching: Matching,
    /// With what.
    pub data: Box<[u8]>,
}

impl Tlsa {
    /// The record, if SMTP can use it: usage 2 or 3, a known selector and matching type, data of the right length.
    pub fn usable(record: &Record) -> Option<Tlsa> {
        let Record::Tlsa { usage, selector, matching, data } = record else { return None };
        let usage = match usage {
            2 => Usage::TrustAnchor,
            3 => Usage::EndEntity,
            _ => return None,
        };
        let selector = match selector {
            0 => Selector::Certificate,
            1 => Selector::PublicKey,
            _ => return None,
        };
        let matching = match (matching, data.len()) {
            (0, 1..) => Matching::Full,
            (1, 32) => Matching::Sha256,
            (2, 64) => Matching::Sha512,
            _ => return None,
        };
        Some(Tlsa { usage, selector, matching, data: data.clone() })
    }

    fn matches(&self, certificate: &[u8]) -> bool {
        let selected = match self.selector {
            Selector::Certificate => Some(certificate),
            Selector::PublicKey => Fields::of(certificate).map(|fields| fields.public_key),
        };
        let Some(selected) = selected else { return false };
        match self.matching {
            Matching::Full => *self.data == *selected,
            Matching::Sha256 => *self.data == *digest::digest(&digest::SHA256, selected).as_ref(),
            Matching::Sha512 => *self.data == *digest::digest(&digest::SHA512, selected).as_ref(),
        }
    }
}

/// What DNS says about a host's TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// DANE does not apply: no TLSA records, or DNSSEC does not vouch for them.
    None,
    /// These records bind the host.
    Usable {
        /// The records; never empty.
        records: Vec<Tlsa>,
        /// Where they were found: the name for SNI and, with DANE-TA, the first name for the certificate.
        base: Name,
    },
    /// There are records, and none can be used: TLS is a must, unauthenticated (RFC 7672 2.2).
    Unusable,
    /// Not known: the host must not be used now (RFC 7672 2.1.2).
    Deferred(DnsError),
}

/// Looks up the TLSA records of a mail host, at the name behind its aliases first (RFC 7672 2.2.2).
pub async fn lookup(host: &MailHost, port: u16, resolver: &dyn Resolver) -> Lookup {
    let Some(own) = host.name.domain().map(Name::from) else { return Lookup::None };
    let bases = match bases(host, own, resolver).await {
        Ok(bases) => bases,
        Err(error) => return Lookup::Deferred(error),
    };
    for base in bases {
        let Ok(name) = base.prepend(&format!("_{port}._tcp")) else { continue };
        match resolver.lookup(&name, RecordKind::Tlsa).await {
            Err(error) => return Lookup::Deferred(error),
            Ok(answer) if !answer.secure || answer.records().is_empty() => {}
            Ok(answer) => {
                let usable = answer.records().iter().filter_map(Tlsa::usable).take(RECORDS_MAX);
                let records = strongest(usable.collect());
                return match records.is_empty() {
                    true => Lookup::Unusable,
                    false => Lookup::Usable { records, base },
                };
            }
        }
    }
    Lookup::None
}

/// Where TLSA records of a host may be, the best place first (RFC 7672 2.2.2).
async fn bases(host: &MailHost, own: Name, resolver: &dyn Resolver) -> Result<Vec<Name>, DnsError> {
    // 2.2.1: whoever can forge the MX record can name a host of his own.
    if !host.mx_secure {
        return Ok(Vec::new());
    }
    let canonical = host.canonical.clone().unwrap_or_else(|| own.clone());
    if canonical == own {
        return Ok(if host.address_secure { vec![own] } else { Vec::new() });
    }
    if host.address_secure {
        return Ok(vec![canonical, own]);
    }
    // An alias in a signed zone that leads into one that is not: only the alias itself can have records.
    let alias = resolver.lookup(&own, RecordKind::Cname).await?;
    Ok(if alias.secure && !alias.records().is_empty() { vec![own] } else { Vec::new() })
}

/// RFC 7671 9: where one usage and selector has both digests, the weaker ones do not count.
fn strongest(records: Vec<Tlsa>) -> Vec<Tlsa> {
    let outdone = |record: &Tlsa| {
        record.matching == Matching::Sha256
            && records.iter().any(|other| {
                (other.usage, other.selector) == (record.usage, record.selector)
                    && other.matching == Matching::Sha512
            })
    };
    records.iter().filter(|record| !outdone(record)).cloned().collect()
}

/// Why a chain does not satisfy the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// No certificate of the chain matches a record.
    #[error("no certificate matches a TLSA record")]
    NoMatch,
    /// The trust anchor matches, and the server's certificate is not for this host (RFC 7672 3.2).
    #[error("the certificate is under the right trust anchor, but not for this host")]
    Name,
    /// A trust anchor matches, and a certificate of the chain to it is out of date.
    #[error("the chain to the matching trust anchor is out of date")]
    Expired,
    /// A trust anchor matches, and the chain to it is broken.
    #[error("the chain to the matching trust anchor does not verify")]
    Chain,
}

/// Checks a chain, the server's own certificate first, against usable records.
///
/// `names` are the acceptable names for DANE-TA; DANE-EE looks at neither names nor dates (RFC 7672 3.1.1). Returns
/// the matching usage.
///
/// # Errors
/// The chain does not match; a verdict about the server, not a fault.
pub fn verify(
    records: &[Tlsa],
    chain: &[CertificateDer<'_>],
    names: &[ServerName<'_>],
    algorithms: &[&dyn SignatureVerificationAlgorithm],
    now: UnixTime,
) -> Result<Usage, Mismatch> {
    let (Some(leaf), chain) = (chain.first(), chain.get(..chain.len().min(CHAIN_MAX)).unwrap_or_default())
    else {
        return Err(Mismatch::NoMatch);
    };
    if records.iter().any(|record| record.usage == Usage::EndEntity && record.matches(leaf)) {
        return Ok(Usage::EndEntity);
    }
    let anchors = anchors(records, chain);
    if anchors.is_empty() {
        return Err(Mismatch::NoMatch);
    }
    let leaf = EndEntityCert::try_from(leaf).map_err(|_| Mismatch::Chain)?;
    let others = chain.get(1..).unwrap_or_default();
    leaf.verify_for_usage(algorithms, &anchors, others, now, KeyUsage::server_auth(), None, None).map_err(
        |error| match error {
            webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => Mismatch::Expired,
            _ => Mismatch::Chain,
        },
    )?;
    match names.iter().any(|name| leaf.verify_is_valid_for_subject_name(name).is_ok()) {
        true => Ok(Usage::TrustAnchor),
        false => Err(Mismatch::Name),
    }
}

/// The trust anchors that the records vouch for: certificates of the chain that match, whole certificates in the
/// records, and bare keys in the records under the names of the chain's issuers (RFC 7671 5.2.3).
fn anchors<'a>(records: &'a [Tlsa], chain: &'a [CertificateDer<'a>]) -> Vec<TrustAnchor<'a>> {
    let mut anchors = Vec::new();
    for record in records.iter().filter(|record| record.usage == Usage::TrustAnchor) {
        let matching = chain.iter().skip(1).filter(|certificate| record.matches(certificate));
        for certificate in matching {
            anchors.extend(webpki::anchor_from_trusted_cert(certificate).ok());
        }
        match (record.selector, record.matching) {
            (Selector::Certificate, Matching::Full) => {
                if let Some(fields) = Fields::of(&record.data) {
                    anchors.extend(anchor(fields.subject, fields.public_key));
                }
            }
            (Selector::PublicKey, Matching::Full) => {
                let issuers = chain.iter().filter_map(|certificate| Fields::of(certificate));
                anchors.extend(issuers.filter_map(|fields| anchor(fields.issuer, &record.data)));
            }
            _ => {}
        }
    }
    anchors
}

/// An anchor of a name and a key, both in DER with their outer tags, which webpki wants without.
fn anchor<'a>(name: &'a [u8], key: &'a [u8]) -> Option<TrustAnchor<'a>> {
    let subject = Der::from_slice(take(name, SEQUENCE)?.inner);
    let subject_public_key_info = Der::from_slice(take(key, SEQUENCE)?.inner);
    Some(TrustAnchor { subject, subject_public_key_info, name_constraints: None })
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The parts of a certificate that TLSA records speak of, in DER with their tags.
struct Fields<'c> {
    issuer: &'c [u8],
    subject: &'c [u8],
    public_key: &'c [u8],
}

impl<'c> Fields<'c> {
    /// RFC 5280 4.1: version, serial number, signature, issuer, validity, subject, key.
    fn of(certificate: &'c [u8]) -> Option<Fields<'c>> {
        let signed = take(take(certificate, SEQUENCE)?.inner, SEQUENCE)?.inner;
        let rest = take(signed, VERSION).map_or(signed, |version| version.rest);
        let mut rest = take_any(take_any(rest)?.rest)?.rest;
        let mut next = || -> Option<&'c [u8]> {
            let element = take(rest, SEQUENCE)?;
            rest = element.rest;
            Some(element.whole)
        };
        let (issuer, _validity, subject, public_key) = (next()?, next()?, next()?, next()?);
        Some(Fields { issuer, subject, public_key })
    }
}

/// One element of DER.
struct Element<'d> {
    whole: &'d [u8],
    inner: &'d [u8],
    rest: &'d [u8],
}

fn take(der: &[u8], tag: u8) -> Option<Element<'_>> {
    if der.first() == Some(&tag) { take_any(der) } else { None }
}

/// Takes an element with a one-octet tag and a length of at most three octets: certificates have no others here.
fn take_any(der: &[u8]) -> Option<Element<'_>> {
    let first = usize::from(*der.get(1)?);
    let (header, len) = if first < 0x80 {
        (2, first)
    } else {
        let octets = first - 0x80;
        let length = der.get(2..2 + octets).filter(|length| (1..=3).contains(&length.len()))?;
        (2 + octets, length.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)))
    };
    let (whole, rest) = der.split_at_checked(header + len)?;
    Some(Element { whole, inner: whole.get(header..)?, rest })
}
