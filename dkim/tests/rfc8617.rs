//! RFC 8617, sentence by sentence: what the suite of its authors does not hold. Each test names the section.

#![cfg(feature = "arc")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::{NOW, block_on, zone};
use postwright_core::{DnsError, HeaderField, MemoryZone, Message};
use postwright_dkim::arc::{ArcReason, ArcResult, ChainValidation, Sealer, authentication_results};
use postwright_dkim::{KeyKind, Reason, SignedFields, SigningKey};

const PLAIN: &[u8] = b"From: a@example.org\r\nSubject: x\r\n\r\nbody\r\n";
const NAME: &str = "s._domainkey.example.org";

struct Hop {
    sealer: Sealer,
    zone: MemoryZone,
}

impl Hop {
    fn new() -> Hop {
        let (key, _) = SigningKey::generate(common::provider(), KeyKind::Ed25519).unwrap();
        let zone = zone(NAME, key.record());
        let domain = "example.org".parse().unwrap();
        let sealer = Sealer::new(key, domain, "s".parse().unwrap(), "mx.example.org").unwrap();
        Hop { sealer, zone }
    }

    fn validate(&self, mail: &Message) -> ArcResult {
        block_on(common::arc_verifier().verify(mail, &self.zone, NOW))
    }

    /// The set that this hop adds to what came in.
    fn set(&self, mail: &Message, results: &str) -> Option<Vec<HeaderField>> {
        self.sealer.seal(mail, &self.validate(mail), results, NOW).unwrap()
    }

    fn sealed(&self, mail: &Message, results: &str) -> Message {
        let set = self.set(mail, results).unwrap();
        set.into_iter().fold(mail.clone(), |mail, field| mail.prepend(field))
    }
}

fn plain() -> Message {
    Message::from_bytes(PLAIN)
}

fn text(mail: &Message) -> String {
    String::from_utf8(mail.to_vec()).unwrap()
}

fn edited(mail: &Message, from: &str, to: &str) -> Message {
    let text = text(mail);
    assert!(text.contains(from), "{from:?} in {text}");
    Message::from_bytes(text.replacen(from, to, 1).into_bytes())
}

/// 5.1, step 2, and 5.2, step 2: what the newest seal says comes before the structure, so that a chain that was
/// found malformed, and sealed as such, ends there.
#[test]
fn a_chain_sealed_as_failed_is_closed_whatever_its_structure() {
    let hop = Hop::new();
    let whole = hop.sealed(&plain(), "spf=pass");
    for (from, to) in [
        ("ARC-Authentication-Results: i=1;", "X-Lost: i=1;"),
        ("ARC-Message-Signature: i=1;", "X-Lost: i=1;"),
        ("ARC-Seal: i=1;", "X-Lost: i=1;"),
        ("ARC-Seal: i=1; a=", "ARC-Seal: i=1; x="),
        ("ARC-Authentication-Results: i=1;", "ARC-Authentication-Results: i=0;"),
    ] {
        let broken = edited(&whole, from, to);
        let found = hop.validate(&broken);
        assert_eq!((found.cv, found.closed), (ChainValidation::Fail, false), "{from}: {found:?}");
        let marked = hop.sealed(&broken, "spf=fail");
        assert!(text(&marked).contains("cv=fail"), "{from}");
        let after = hop.validate(&marked);
        assert!(after.closed, "{from} became {to}: {after:?}");
        assert!(matches!(after.reason, Some(ArcReason::BrokenBefore(_))), "{after:?}");
        assert_eq!(hop.set(&marked, "spf=pass"), None, "{from}");
    }
}

/// 5.1, step 3, and 4.2.1: the next number is one above the highest that is found, and there is none above 50.
#[test]
fn no_set_is_added_above_the_fiftieth_position() {
    let hop = Hop::new();
    let whole = hop.sealed(&plain(), "spf=pass");
    for (highest, adds) in [(2, true), (49, true), (50, false), (51, false), (99, false)] {
        let seal = format!("ARC-Seal: i={highest}; a=rsa-sha256; cv=pass; d=example.org; s=s; b=YWI=\r\n");
        let mail = Message::from_bytes([seal.as_bytes(), &whole.to_vec()].concat());
        let found = hop.validate(&mail);
        assert_eq!((found.cv, found.instances), (ChainValidation::Fail, highest), "{found:?}");
        let set = hop.set(&mail, "spf=pass");
        assert_eq!(set.is_some(), adds, "{highest}");
        if let Some(set) = set {
            assert!(set[0].value().starts_with(&format!("i={};", highest + 1)), "{}", set[0].value());
        }
    }
}

/// 4.1.2: the message signature "MUST NOT" cover Authentication-Results nor any field of ARC.
#[test]
fn a_message_signature_covers_nothing_that_hops_add() {
    let names = |name: &str| SignedFields::Exactly(vec!["from".to_owned(), name.to_owned()]);
    for name in [
        "ARC-Seal",
        "arc-message-signature",
        "ARC-Authentication-Results",
        "Authentication-Results",
        "authentication-results",
    ] {
        assert!(Hop::new().sealer.with_fields(names(name)).is_err(), "{name}");
    }
    assert!(Hop::new().sealer.with_fields(names("DKIM-Signature")).is_ok());
    // By default neither: such fields come and go without harm.
    let hop = Hop::new();
    let sealed = hop.sealed(&plain(), "spf=pass");
    let more = [b"Authentication-Results: other.example; none\r\n", &sealed.to_vec()[..]].concat();
    assert_eq!(hop.validate(&Message::from_bytes(more)).cv, ChainValidation::Pass);
}

/// 3.9, 4.1.1: `arc-info = instance [CFWS] ";" authres-payload`, `position = 1*2DIGIT`.
#[test]
fn instances_of_results_may_have_comments_around_them() {
    let hop = Hop::new();
    let sealed = hop.sealed(&plain(), "spf=pass");
    let is_read = |instance: &str| {
        let mail = edited(&sealed, "ARC-Authentication-Results: i=1;", instance);
        // The seal covers the text, so a change that is read breaks it; blanks at the start do not count.
        matches!(hop.validate(&mail).reason, None | Some(ArcReason::Seal(1, Reason::Signature)))
    };
    for good in ["(a) i = (b(\\)c;)) 01 (d)\r\n ;", "i=1 ;", "\r\n\ti=1;", "()i()=()1();"] {
        assert!(is_read(&format!("ARC-Authentication-Results: {good}")), "{good:?}");
    }
    for bad in ["i=001;", "i=1 1;", "(i=1);", "i=1 (;", "i(=1;", "I=1;", "i=(1);", "i=1) ;"] {
        assert!(!is_read(&format!("ARC-Authentication-Results: {bad}")), "{bad:?}");
    }
}

/// 4.1.1: the "combined authres-payload with all of the authentication results": as they are, quoted or commented
/// semicolons included.
#[test]
fn results_are_joined_whatever_they_quote() {
    let fields = "Authentication-Results: mx.example.org 1; spf=fail reason=\"a;b\\\";arc=pass\";\r\n\
        \tdkim=pass (1;2(;)) header.d=example.org\r\n\
        Authentication-Results: other.example; auth=pass\r\n\
        Authentication-Results: mx.example.org; none\r\n\
        Authentication-Results: MX.example.org; dmarc=pass\r\n";
    let mail = Message::from_bytes([fields.as_bytes(), PLAIN].concat());
    let joined = authentication_results(&mail, "mx.example.org");
    let spf = "spf=fail reason=\"a;b\\\";arc=pass\"";
    let all = format!("{spf}; dkim=pass (1;2(;)) header.d=example.org; none; dmarc=pass");
    assert_eq!(joined.replace('\t', ""), all);
    let set = Hop::new().set(&mail, &joined).unwrap();
    let value = set[0].value().replace("\r\n\t", " ");
    let expected = all.replace("none; ", "");
    assert_eq!(value.replace("\t", ""), format!("i=1; mx.example.org; arc=none; {expected}"));
}

/// 5.1.2: the seal of a failed chain covers "only ... the newest ARC Set".
#[test]
fn a_seal_over_a_failed_chain_covers_its_own_set() {
    let hop = Hop::new();
    let sealed = hop.sealed(&plain(), "spf=pass");
    let seals: Vec<HeaderField> = ["spf=fail", "spf=none", "spf=neutral"]
        .map(|other| hop.set(&edited(&sealed, "spf=pass", other), "dkim=fail").unwrap().remove(2))
        .to_vec();
    assert!(seals[0].value().contains("cv=fail"));
    // Ed25519 gives one signature to one text.
    assert_eq!(seals[0], seals[1]);
    assert_eq!(seals[0], seals[2]);
}

/// 5.2.1: "All errors, including DNS failures, become unrecoverable".
#[test]
fn no_answer_from_dns_is_a_failed_chain() {
    let hop = Hop::new();
    let sealed = hop.sealed(&plain(), "spf=pass");
    assert_eq!(hop.validate(&sealed).cv, ChainValidation::Pass);
    for error in [DnsError::Timeout, DnsError::ServFail, DnsError::Bogus] {
        hop.zone.remove(&NAME.parse().unwrap());
        hop.zone.fail(NAME.parse().unwrap(), None, error);
        let found = hop.validate(&sealed);
        assert_eq!(found.reason, Some(ArcReason::MessageSignature(1, Reason::Dns(error))));
        assert_eq!(found.cv, ChainValidation::Fail);
    }
}
