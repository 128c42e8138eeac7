//! Input that is meant to hurt: the work stays within the limits, counted in look-ups and results.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::fmt::Write;

use common::{NOW, verify, zone};
use postwright_core::{MemoryZone, Message, Name, Record};
use postwright_dkim::{
    DkimResult, KeyKind, Limits, Reason, Signer, SigningKey, Verdict, Verifier, VerifyPolicy,
};

fn signature(selector: &str, extra: &str) -> String {
    format!(
        "DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s={selector}; h=from{extra};\r\n\tbh=frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=; b=YWJj\r\n"
    )
}

fn message(header: &str) -> Vec<u8> {
    format!("{header}From: a@example.org\r\n\r\n").into_bytes()
}

fn count(results: &[DkimResult], verdict: Verdict) -> usize {
    results.iter().filter(|result| result.verdict == verdict).count()
}

/// A signature by a real key, so that only the limits stand between it and a pass.
fn signed(message: &[u8]) -> (Vec<u8>, MemoryZone) {
    let (key, _) = SigningKey::generate(common::provider(), KeyKind::Ed25519).unwrap();
    let zone = zone("s._domainkey.example.org", key.record());
    let signer = Signer::new(key, "example.org".parse().unwrap(), "s".parse().unwrap()).unwrap();
    let message = Message::from_bytes(message.to_vec());
    (message.prepend(signer.sign(&message, NOW).unwrap()).to_vec(), zone)
}

#[test]
fn ten_thousand_signatures_cost_ten_look_ups() {
    let header: String = (0..10_000).map(|nth| signature(&format!("s{nth}"), "")).collect();
    let zone = MemoryZone::new();
    let results = verify(&common::verifier(), &message(&header), &zone);
    assert_eq!(results.len(), 10_000);
    assert_eq!(zone.lookups(), 10);
    assert_eq!(results.iter().filter(|r| r.reason == Some(Reason::KeyMissing)).count(), 10);
    assert_eq!(results.iter().filter(|r| r.reason == Some(Reason::TooManySignatures)).count(), 9_990);
    assert_eq!(count(&results, Verdict::Policy), 9_990);
    // Those beyond the cap are named all the same.
    assert_eq!(results[9_999].selector.as_ref().unwrap().as_str(), "s9999");
}

#[test]
fn signatures_of_one_key_cost_one_look_up() {
    let header: String = (0..10).map(|_| signature("same", "")).collect();
    let zone = MemoryZone::new();
    assert_eq!(verify(&common::verifier(), &message(&header), &zone).len(), 10);
    assert_eq!(zone.lookups(), 1);
}

#[test]
fn a_header_of_ten_megabytes_is_verified_and_one_above_the_limit_is_refused() {
    let (mail, zone) = signed(&message(""));
    let below = |octets: usize| [format!("X-Long: {}\r\n", "x".repeat(octets)).as_bytes(), &mail].concat();
    assert!(verify(&common::verifier(), &below(10 << 20), &zone)[0].is_pass());
    assert_eq!(zone.lookups(), 1);

    let above =
        [&mail[..mail.len() - 2], format!("X-Long: {}\r\n\r\n", "x".repeat(16 << 20)).as_bytes()].concat();
    let results = verify(&common::verifier(), &above, &zone);
    assert_eq!(results.iter().map(|r| r.reason).collect::<Vec<_>>(), [Some(Reason::HeaderTooLarge)]);
    assert_eq!(zone.lookups(), 1);
}

#[test]
fn the_header_limit_is_exact_in_any_chunks() {
    let (mail, zone) = signed(b"From: a@example.org\r\n\r\nbody\r\n");
    let header = mail.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 2;
    for (limit, passes) in [(header, true), (header - 1, false), (1, false), (0, false)] {
        let mut limits = Limits::default();
        limits.header_octets = limit;
        let verifier = Verifier::new(common::provider(), VerifyPolicy::default(), limits);
        for size in [1, 2, 3, 7, 64, mail.len()] {
            let mut verification = verifier.begin();
            mail.chunks(size).for_each(|chunk| verification.feed(chunk));
            let results = common::block_on(verification.finish(&zone, NOW));
            assert_eq!(results.iter().any(DkimResult::is_pass), passes, "limit {limit}, chunks of {size}");
        }
    }
}

/// DER of a number.
fn integer(octets: usize) -> Vec<u8> {
    let mut body = vec![0, 0x80];
    body.resize(octets + 1, 1);
    let mut out = vec![0x02, 0x83];
    out.extend(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
    // Three octets of length are too many for short numbers.
    assert!(body.len() > 0xffff / 16);
    if body.len() <= 0xffff {
        out = vec![0x02, 0x82];
        out.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    }
    out.extend(body);
    out
}

#[test]
fn an_rsa_key_of_65536_bits_is_policy_and_not_used() {
    let mut numbers = integer(8192);
    numbers.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
    let mut key = vec![0x30, 0x82];
    key.extend(u16::try_from(numbers.len()).unwrap().to_be_bytes());
    key.extend(numbers);
    let zone = zone("s._domainkey.example.org", format!("v=DKIM1; p={}", base64(&key)));
    let result = verify(&common::verifier(), &message(&signature("s", "")), &zone).remove(0);
    assert_eq!(result.reason, Some(Reason::KeyTooLarge));
    assert_eq!((result.verdict, result.key_bits), (Verdict::Policy, Some(65_536)));
    assert_eq!(zone.lookups(), 1);
}

fn base64(octets: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in octets.chunks(3) {
        let bits = three
            .iter()
            .enumerate()
            .fold(0u32, |bits, (nth, octet)| bits | u32::from(*octet) << (16 - 8 * nth));
        for digit in 0..=three.len() {
            let index = usize::try_from(bits >> (18 - 6 * digit) & 63).unwrap();
            out.push(char::from(DIGITS[index]));
        }
    }
    out
}

#[test]
fn a_record_of_300_strings_is_not_joined() {
    let zone = MemoryZone::new();
    let strings = (0..300).map(|_| Box::from(&[b'x'; 255][..])).collect();
    zone.insert("s._domainkey.example.org".parse().unwrap(), Record::Txt(strings));
    let result = verify(&common::verifier(), &message(&signature("s", "")), &zone).remove(0);
    assert_eq!(result.reason, Some(Reason::KeyRecordTooLong));
    assert_eq!(zone.lookups(), 1);
}

#[test]
fn of_a_hundred_key_records_three_are_tried() {
    let (mail, good) = signed(b"From: a@example.org\r\n\r\n");
    let name: Name = "s._domainkey.example.org".parse().unwrap();
    let record =
        common::block_on(postwright_core::Resolver::lookup(&good, &name, postwright_core::RecordKind::Txt));
    let record = record.unwrap().records()[0].clone();
    for (place, passes) in [(0, true), (2, true), (3, false), (99, false)] {
        let zone = MemoryZone::new();
        for nth in 0..100 {
            let other = Record::txt("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
            zone.insert(name.clone(), if nth == place { record.clone() } else { other });
        }
        assert_eq!(verify(&common::verifier(), &mail, &zone)[0].is_pass(), passes, "at {place}");
    }
}

#[test]
fn long_lists_are_refused_or_read_in_one_pass() {
    let names = ":x".repeat(100_000);
    let results = verify(&common::verifier(), &message(&signature("s", &names)), &MemoryZone::new());
    assert_eq!(results[0].reason, Some(Reason::SignedFields));

    let mut tags = String::new();
    (0..100_000).for_each(|nth| write!(tags, "; t{nth}=").unwrap());
    let results = verify(&common::verifier(), &message(&signature("s", &tags)), &MemoryZone::new());
    assert_eq!(results[0].reason, Some(Reason::KeyMissing));

    // A thousand names against a hundred thousand fields of the same name.
    let fields = "x:\r\n".repeat(100_000);
    let mail = message(&(signature("s", &":x".repeat(999)) + &fields));
    assert_eq!(verify(&common::verifier(), &mail, &MemoryZone::new()).len(), 1);
}

/// RFC 6376 8.15: another From on top, which a reader sees instead of the signed one.
#[test]
fn a_second_from_is_never_a_pass() {
    let (key, _) = SigningKey::generate(common::provider(), KeyKind::Ed25519).unwrap();
    let zone = zone("s._domainkey.example.org", key.record());
    let mut options = postwright_dkim::SignOptions::default();
    options.fields = postwright_dkim::SignedFields::Exactly(vec!["from".to_owned(), "subject".to_owned()]);
    let signer =
        Signer::with_options(key, "example.org".parse().unwrap(), "s".parse().unwrap(), options).unwrap();
    let plain = Message::from_bytes(&b"From: a@example.org\r\nSubject: x\r\n\r\n"[..]);
    let mail = plain.prepend(signer.sign(&plain, NOW).unwrap()).to_vec();
    assert!(verify(&common::verifier(), &mail, &zone)[0].is_pass());
    for added in ["From: evil@example.com\r\n", "Subject: other\r\n"] {
        let mail = [added.as_bytes(), &mail].concat();
        let result = verify(&common::verifier(), &mail, &zone).remove(0);
        assert_eq!(result.reason, Some(Reason::UnsignedDuplicate), "{added}");
        let mut policy = VerifyPolicy::default();
        policy.refuse_unsigned_duplicates = false;
        let lax = Verifier::new(common::provider(), policy, Limits::default());
        assert!(verify(&lax, &mail, &zone)[0].is_pass());
    }
}

#[test]
fn what_l_leaves_unsigned_is_counted_and_can_be_refused() {
    let (key, _) = SigningKey::generate(common::provider(), KeyKind::Ed25519).unwrap();
    let zone = zone("s._domainkey.example.org", key.record());
    let mut options = postwright_dkim::SignOptions::default();
    options.body_length = true;
    let signer =
        Signer::with_options(key, "example.org".parse().unwrap(), "s".parse().unwrap(), options).unwrap();
    let plain = Message::from_bytes(&b"From: a@example.org\r\n\r\nbody\r\n"[..]);
    let mail = plain.prepend(signer.sign(&plain, NOW).unwrap()).to_vec();
    assert_eq!(verify(&common::verifier(), &mail, &zone)[0].unsigned_bytes, 0);
    let longer = [&mail[..], b"and more\r\n"].concat();
    let result = verify(&common::verifier(), &longer, &zone).remove(0);
    assert_eq!((result.verdict, result.unsigned_bytes), (Verdict::Pass, 10));
    let mut policy = VerifyPolicy::default();
    policy.refuse_unsigned_content = true;
    let strict = Verifier::new(common::provider(), policy, Limits::default());
    assert_eq!(verify(&strict, &longer, &zone)[0].reason, Some(Reason::UnsignedContent));
    let shorter = &mail[..mail.len() - 3];
    assert_eq!(verify(&common::verifier(), shorter, &zone)[0].reason, Some(Reason::BodyHash));
}

#[cfg(feature = "arc")]
mod arc {
    use super::*;
    use postwright_dkim::arc::{ArcReason, ChainValidation};

    fn set(instance: u32) -> String {
        let cv = if instance == 1 { "none" } else { "pass" };
        format!(
            "ARC-Seal: i={instance}; a=rsa-sha256; cv={cv}; d=example.org; s=as{instance}; b=YWJj\r\n\
             ARC-Message-Signature: i={instance}; a=rsa-sha256; d=example.org; s=ams{instance}; h=from; l={instance};\r\n\tbh=frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=; b=YWJj\r\n\
             ARC-Authentication-Results: i={instance}; example.org; spf=pass\r\n"
        )
    }

    fn validate(header: &str) -> (postwright_dkim::arc::ArcResult, usize) {
        let zone = MemoryZone::new();
        let mail = Message::from_bytes(message(header));
        let result = common::block_on(common::arc_verifier().verify(&mail, &zone, NOW));
        (result, zone.lookups())
    }

    #[test]
    fn fifty_sets_cost_a_look_up_a_key_and_fifty_one_none() {
        let (result, lookups) = validate(&(1..=50).map(set).collect::<String>());
        // 50 seals and the newest message signature; l= keeps the older ones out.
        assert_eq!((result.cv, result.instances, lookups), (ChainValidation::Fail, 50, 51));
        let (result, lookups) = validate(&(1..=51).map(set).collect::<String>());
        assert_eq!((result.reason, lookups), (Some(ArcReason::TooManySets), 0));
    }

    #[test]
    fn ten_thousand_sets_cost_nothing() {
        let (result, lookups) = validate(&set(1).repeat(10_000));
        assert_eq!((result.reason, lookups), (Some(ArcReason::TooManySets), 0));
    }
}
