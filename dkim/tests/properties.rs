//! Properties: chunking changes nothing, the fast canonicalisers equal the naive ones, what is signed verifies, and
//! what is changed does not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;
#[path = "common/generate.rs"]
mod generate;
#[path = "common/naive.rs"]
mod naive;

use common::{NOW, block_on, verify, zone};
use generate::Generator;
use postwright_core::{MemoryZone, Message};
use postwright_dkim::{BodyCanon, Canon, CanonPair, KeyKind, SignOptions, Signer, SigningKey, relaxed_field};
use proptest::prelude::*;

/// Text made of what canonicalisation cares about.
fn odd_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        &b" "[..],
        b"\t",
        b"  ",
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b"x",
        b"word",
        b".",
        b":",
        b"\xe9\x00",
        b"a line that is long enough to fill a block of sixty-four octets and a bit more",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Cuts at any places.
fn chunks<'t>(text: &'t [u8], cuts: &[prop::sample::Index]) -> Vec<&'t [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

fn canonical(kind: Canon, chunks: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut body = BodyCanon::new(kind);
    for chunk in chunks {
        body.feed(chunk, &mut |piece| out.extend_from_slice(piece));
    }
    body.finish(&mut |piece| out.extend_from_slice(piece));
    out
}

const PAIRS: [&str; 4] = ["simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed"];

fn ed25519() -> (SigningKey, MemoryZone) {
    let (key, _) = SigningKey::generate(common::provider(), KeyKind::Ed25519).unwrap();
    let zone = zone("s._domainkey.example.org", key.record());
    (key, zone)
}

fn signer(key: &SigningKey, canon: &str) -> Signer {
    let mut options = SignOptions::default();
    options.canon = canon.parse::<CanonPair>().unwrap();
    Signer::with_options(key.clone(), "example.org".parse().unwrap(), "s".parse().unwrap(), options).unwrap()
}

fn sign(signer: &Signer, message: &[u8]) -> Vec<u8> {
    let message = Message::from_bytes(message.to_vec());
    message.prepend(signer.sign(&message, NOW).unwrap()).to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn bodies_equal_their_naive_twins(text in odd_text(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let chunks = chunks(&text, &cuts);
        prop_assert_eq!(canonical(Canon::Simple, &chunks), naive::simple_body(&text));
        prop_assert_eq!(canonical(Canon::Relaxed, &chunks), naive::relaxed_body(&text));
    }

    #[test]
    fn fields_equal_their_naive_twins(value in odd_text()) {
        // In a field, a blank follows each line end.
        let folded: Vec<u8> = naive::lines(&value).join(&b"\r\n "[..]);
        let field = [b"Name \t:", &folded[..]].concat();
        let mut out = Vec::new();
        relaxed_field(&field, &mut out);
        prop_assert_eq!(out, naive::relaxed_field(&field));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn what_is_signed_verifies_in_any_chunks(
        seed in any::<u64>(),
        pair in prop::sample::select(&PAIRS[..]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let (key, zone) = ed25519();
        let signed = sign(&signer(&key, pair), &Generator::new(seed).message(true));
        let mut verification = common::verifier().begin();
        for chunk in chunks(&signed, &cuts) {
            verification.feed(chunk);
        }
        let results = block_on(verification.finish(&zone, NOW));
        prop_assert_eq!(results.len(), 1);
        prop_assert!(results[0].is_pass(), "{:?}", results[0]);
        prop_assert_eq!(results, verify(&common::verifier(), &signed, &zone));
    }

    /// In simple/simple every octet of the signature field, the signed fields and the body counts.
    #[test]
    fn one_changed_bit_is_never_a_pass(seed in any::<u64>(), place in any::<prop::sample::Index>(), bit in 0u32..8) {
        let (key, zone) = ed25519();
        let mut signed = sign(&signer(&key, "simple/simple"), &Generator::new(seed).message(true));
        let at = place.index(signed.len());
        // Received and X- fields are not signed.
        let unsigned = field_at(&signed, at).is_some_and(|name| name.starts_with("x-") || name == "received");
        // Nor is the empty line: without a body behind it, what it is changed into is one more unsigned line.
        let end = signed.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 2;
        let bodiless = naive::simple_body(&signed[end + 2..]) == b"\r\n";
        let unsigned = unsigned || (bodiless && (end..end + 2).contains(&at));
        signed[at] ^= 1 << bit;
        let passes = verify(&common::verifier(), &signed, &zone).iter().any(|result| result.is_pass());
        prop_assert!(unsigned || !passes, "octet {at} bit {bit} of {}", String::from_utf8_lossy(&signed));
    }

    /// In relaxed/relaxed a change counts if it changes the canonical text.
    #[test]
    fn one_changed_bit_of_a_relaxed_body_counts(seed in any::<u64>(), place in any::<prop::sample::Index>(), bit in 0u32..8) {
        let (key, zone) = ed25519();
        let mut signed = sign(&signer(&key, "relaxed/relaxed"), &Generator::new(seed).message(true));
        let body = signed.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        prop_assume!(body < signed.len());
        let at = body + place.index(signed.len() - body);
        let before = naive::relaxed_body(&signed[body..]);
        signed[at] ^= 1 << bit;
        let same = naive::relaxed_body(&signed[body..]) == before;
        let results = verify(&common::verifier(), &signed, &zone);
        prop_assert_eq!(results[0].is_pass(), same, "octet {} bit {}", at, bit);
    }

    /// Lines of a signature fit, and none ends in a blank.
    #[test]
    fn signatures_are_folded_well(seed in any::<u64>(), copies in any::<bool>()) {
        let (key, _) = ed25519();
        let mut options = SignOptions::default();
        (options.copied_fields, options.query_method) = (copies, copies);
        let signer = Signer::with_options(key, "example.org".parse().unwrap(), "s".parse().unwrap(), options).unwrap();
        let field = signer.sign(&Message::from_bytes(Generator::new(seed).message(true)), NOW).unwrap();
        let text = std::str::from_utf8(field.as_bytes()).unwrap();
        for line in text.strip_suffix("\r\n").unwrap().split("\r\n") {
            prop_assert!(line.len() <= 78 && !line.ends_with([' ', '\t']) && !line.trim().is_empty(), "{line:?}");
        }
    }

    /// Octets of no meaning at all.
    #[test]
    fn no_octets_panic(text in prop::collection::vec(any::<u8>(), 0..400)) {
        let limits = postwright_dkim::Limits::default();
        let _ = postwright_dkim::KeyRecord::parse(&text, &limits);
        let message = [b"From: x\r\nDKIM-Signature: ", &text[..], b"\r\n\r\nbody"].concat();
        let _ = verify(&common::verifier(), &message, &MemoryZone::new());
    }
}

/// The lower-case name of the field that an octet of the header belongs to.
fn field_at(message: &[u8], at: usize) -> Option<String> {
    let end = message.windows(4).position(|four| four == b"\r\n\r\n")? + 2;
    if at >= end {
        return None;
    }
    let starts = (0..=at).rev().find(|start| {
        *start == 0 || (message[..*start].ends_with(b"\r\n") && !matches!(message[*start], b' ' | b'\t'))
    })?;
    let name: Vec<u8> = message[starts..].iter().copied().take_while(|octet| *octet != b':').collect();
    Some(String::from_utf8_lossy(&name).trim().to_lowercase())
}

/// Both algorithms and all canonicalisations at once, in one pass.
#[test]
fn several_signatures_in_one_pass_all_verify() {
    let (key, zone) = ed25519();
    let signers: Vec<Signer> = PAIRS.iter().map(|pair| signer(&key, pair)).collect();
    for seed in 0..50 {
        let message = Message::from_bytes(Generator::new(seed).message(true));
        let fields = postwright_dkim::sign_all(&signers, &message, NOW).unwrap();
        let signed = fields.into_iter().fold(message, |message, field| message.prepend(field));
        let results = verify(&common::verifier(), &signed.to_vec(), &zone);
        assert_eq!(results.len(), 4);
        assert!(results.iter().all(|result| result.is_pass()), "seed {seed}: {results:?}");
    }
}
