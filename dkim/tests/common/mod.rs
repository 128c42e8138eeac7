//! What the tests of this crate share: running look-ups to their end, and zones of keys.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::path::Path;

use postwright_core::{MemoryZone, Message, Record, Resolver, Timestamp};
use postwright_dkim::{DkimResult, Limits, Provider, Verifier, VerifyPolicy};
pub(crate) use postwright_testkit::at_once as block_on;

/// The library under test: AWS-LC in `aws_lc.rs`, which runs all of the other files once more; else the default.
pub(crate) fn provider() -> Provider {
    #[cfg(feature = "aws-lc-rs")]
    if module_path!().starts_with("aws_lc::") {
        return Provider::aws_lc_rs();
    }
    Provider::default()
}

/// A verifier by the library under test.
pub(crate) fn verifier() -> Verifier {
    Verifier::new(provider(), VerifyPolicy::default(), Limits::default())
}

/// The same for ARC.
#[cfg(feature = "arc")]
pub(crate) fn arc_verifier() -> postwright_dkim::arc::ArcVerifier {
    postwright_dkim::arc::ArcVerifier::new(provider(), VerifyPolicy::default(), Limits::default())
}

/// 2026-11-21: behind all signing times of the suites.
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_795_228_800);

pub(crate) fn verify_at(
    verifier: &Verifier,
    message: &[u8],
    zone: &dyn Resolver,
    now: Timestamp,
) -> Vec<DkimResult> {
    block_on(verifier.verify(&Message::from_bytes(message.to_vec()), zone, now))
}

pub(crate) fn verify(verifier: &Verifier, message: &[u8], zone: &dyn Resolver) -> Vec<DkimResult> {
    verify_at(verifier, message, zone, NOW)
}

/// A zone with one key record.
pub(crate) fn zone(name: &str, text: impl AsRef<[u8]>) -> MemoryZone {
    let zone = MemoryZone::new();
    zone.insert(name.parse().unwrap(), Record::txt(text));
    zone
}

/// Line ends as SMTP sends them.
pub(crate) fn crlf(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 64);
    for (at, octet) in text.iter().enumerate() {
        if *octet == b'\n' && (at == 0 || text[at - 1] != b'\r') {
            out.push(b'\r');
        }
        out.push(*octet);
    }
    out
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
