//! RFC 6376, sentence by sentence: what no suite holds. Each test names the section whose words it checks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::{NOW, verify, zone};
use postwright_core::{MemoryZone, Message, Record};
use postwright_dkim::{
    CanonPair, DkimResult, KeyKind, KeyRecord, Limits, Reason, SignOptions, SignedFields, Signer, SigningKey,
    sign_all,
};

const PLAIN: &[u8] = b"From: a@example.org\r\nSubject: x\r\n\r\nbody\r\n";
const NAME: &str = "s._domainkey.example.org";
const SIMPLE: CanonPair = CanonPair::SIMPLE;

fn key() -> SigningKey {
    SigningKey::generate(common::provider(), KeyKind::Ed25519).unwrap().0
}

fn signer(key: &SigningKey, change: impl FnOnce(&mut SignOptions)) -> Signer {
    let mut options = SignOptions::default();
    change(&mut options);
    Signer::with_options(key.clone(), "example.org".parse().unwrap(), "s".parse().unwrap(), options).unwrap()
}

fn names(list: &[&str]) -> SignedFields {
    SignedFields::Exactly(list.iter().map(|name| (*name).to_owned()).collect())
}

fn signed(signer: &Signer, mail: &[u8]) -> Vec<u8> {
    let message = Message::from_bytes(mail.to_vec());
    message.prepend(signer.sign(&message, NOW).unwrap()).to_vec()
}

fn replaced(mail: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(mail.to_vec()).unwrap();
    assert!(text.contains(from), "{from:?} in {text}");
    text.replacen(from, to, 1).into_bytes()
}

fn verdicts(mail: &[u8], zone: &MemoryZone) -> Vec<Option<Reason>> {
    verify(&common::verifier(), mail, zone).iter().map(|result| result.reason).collect()
}

/// 3.5, h=: "The field MUST NOT include the DKIM-Signature header field that is being created or verified".
#[test]
fn a_signature_does_not_cover_itself() {
    let key = key();
    let zone = zone(NAME, key.record());
    for canon in [SIMPLE, CanonPair::default()] {
        let first = signer(&key, |options| {
            options.canon = canon;
            options.fields = names(&["from", "dkim-signature"]);
        });
        let once = signed(&first, PLAIN);
        assert_eq!(verdicts(&once, &zone), [None], "its name says that there was no other");
        // One signature above the first, and it says so: the first is covered, a third is not there.
        let second = signer(&key, |options| {
            options.canon = canon;
            options.fields = names(&["from", "dkim-signature", "dkim-signature"]);
        });
        let plain = signed(&signer(&key, |options| options.canon = canon), PLAIN);
        let twice = signed(&second, &plain);
        assert_eq!(verdicts(&twice, &zone), [None, None]);
        // Without the covered one, the cover is broken.
        let cut = [&twice[..twice.len() - plain.len()], PLAIN].concat();
        assert_eq!(verdicts(&cut, &zone), [Some(Reason::Signature)]);
    }
}

/// 3.5, b=: "Whitespace is ignored in this value"; 3.7: the value is deleted "including all surrounding whitespace".
#[test]
fn blanks_in_and_around_b_do_not_count() {
    let key = key();
    let zone = zone(NAME, key.record());
    for canon in [SIMPLE, CanonPair::default()] {
        let mail = signed(&signer(&key, |options| options.canon = canon), PLAIN);
        let field = &mail[..mail.windows(7).position(|seven| seven == b"\r\nFrom:").unwrap()];
        let rest = &mail[field.len()..];
        for behind in [" ", "\t \t", "\r\n ", " \r\n\t\r\n "] {
            let changed = [field, behind.as_bytes(), rest].concat();
            assert_eq!(verdicts(&changed, &zone), [None], "{behind:?} behind b= in {canon}");
        }
        for b in [" b= ", " b=\r\n\t\t", " b=\t"] {
            assert_eq!(verdicts(&replaced(&mail, " b=", b), &zone), [None], "{b:?} in {canon}");
        }
        assert_eq!(verdicts(&replaced(&mail, "==", "=\r\n ="), &zone), [None], "{canon}");
    }
}

/// 3.2: "Tags that have an empty value are not the same as omitted tags."
#[test]
fn an_empty_value_is_not_the_default() {
    let key = key();
    let good = signed(&signer(&key, |options| options.query_method = true), PLAIN);
    let record = zone(NAME, key.record());
    assert_eq!(verdicts(&good, &record), [None]);
    for (from, to, reason) in [
        ("c=relaxed/relaxed", "c=", Reason::Canonicalization),
        ("q=dns/txt", "q=", Reason::QueryMethod),
        ("q=dns/txt", "i=", Reason::Identity),
        ("q=dns/txt", "l=", Reason::BodyLength),
        ("q=dns/txt", "x=", Reason::Times),
        ("d=example.org", "d=", Reason::Domain),
        ("a=ed25519-sha256", "a=", Reason::Algorithm),
    ] {
        assert_eq!(verdicts(&replaced(&good, from, to), &record), [Some(reason)], "{to}");
    }
    let p = key.record().rsplit_once(' ').unwrap().1.to_owned();
    for (record, reason) in [
        (format!("v=; k=ed25519; {p}"), Reason::KeyVersion),
        (format!("k=; {p}"), Reason::KeyType),
        (format!("k=ed25519; s=; {p}"), Reason::KeyService),
        (format!("k=ed25519; h=; {p}"), Reason::KeyHash),
        ("k=ed25519; p=".to_owned(), Reason::KeyRevoked),
    ] {
        assert_eq!(verdicts(&good, &zone(NAME, &record)), [Some(reason)], "{record}");
    }
    assert_eq!(verdicts(&good, &zone(NAME, format!("k=ed25519; t=; n=; {p}"))), [None]);
}

/// 3.2: "Unrecognized tags MUST be ignored"; 3.6.1: so must unknown hashes, services and flags; 3.5, z=: copies
/// "MUST NOT be used" to check a signature.
#[test]
fn what_is_not_known_is_ignored() {
    let key = key();
    let (kind, p) = ("k=ed25519", key.record().rsplit_once(' ').unwrap().1.to_owned());
    let copying = signer(&key, |options| options.copied_fields = true);
    let mail = signed(&copying, PLAIN);
    let generous = format!("v=DKIM1; {kind}; h=sha3 : sha256; s=telex:email; t=q:y; xyz=1; {p}");
    let results = verify(&common::verifier(), &mail, &zone(NAME, &generous));
    assert!(results[0].is_pass() && results[0].testing, "{:?}", results[0]);
    // What z= remembers does not stand in for what is there.
    let other = replaced(&mail, "\r\nSubject: x", "\r\nSubject: y");
    assert_eq!(verdicts(&other, &zone(NAME, &generous)), [Some(Reason::Signature)]);
    let unknown = signer(&key, |options| options.canon = SIMPLE);
    let mail = signed(&unknown, PLAIN);
    // An unknown tag is ignored by its meaning, and is part of what is signed.
    let more = replaced(&mail, "v=1;", "v=1; unknown=%$;");
    assert_eq!(verdicts(&more, &zone(NAME, &generous)), [Some(Reason::Signature)]);
}

/// 3.6.2.2: the strings of a record "MUST be concatenated together before use with no intervening whitespace".
#[test]
fn strings_of_a_record_are_joined_without_anything() {
    let key = key();
    let mail = signed(&signer(&key, |_| {}), PLAIN);
    let record = key.record();
    for size in [1, 2, 7, 20] {
        let zone = MemoryZone::new();
        let strings = record.as_bytes().chunks(size).map(Box::from).collect();
        zone.insert(NAME.parse().unwrap(), Record::Txt(strings));
        assert_eq!(verdicts(&mail, &zone), [None], "strings of {size}");
    }
}

/// 6.1.1: without i= "the Verifier MUST behave as though the value of that tag were "@d"".
#[test]
fn the_identity_is_the_domain_where_none_is_said() {
    let key = key();
    let strict = zone(NAME, key.record().replace("; p=", "; t=s; p="));
    let identity = |mail: &[u8]| -> (bool, Option<String>) {
        let result: DkimResult = verify(&common::verifier(), mail, &strict).remove(0);
        (result.is_pass(), result.identity)
    };
    let plain = signed(&signer(&key, |_| {}), PLAIN);
    assert_eq!(identity(&plain), (true, Some("@example.org".to_owned())));
    let below = signed(&signer(&key, |options| options.identity = Some("a@b.example.org".into())), PLAIN);
    assert_eq!(identity(&below), (false, Some("a@b.example.org".to_owned())));
    assert_eq!(verdicts(&below, &strict), [Some(Reason::KeyStrict)]);
    assert_eq!(verdicts(&below, &zone(NAME, key.record())), [None]);
}

/// 4.2, 6.1: signatures are judged one by one; a bad one does not make a good one worse, wherever it stands.
#[test]
fn signatures_do_not_depend_on_each_other() {
    let key = key();
    let zone = zone(NAME, key.record());
    let message = Message::from_bytes(PLAIN.to_vec());
    let signers = [signer(&key, |_| {}), signer(&key, |options| options.canon = SIMPLE)];
    let fields = sign_all(&signers, &message, NOW).unwrap();
    let mail = fields.into_iter().fold(message, |message, field| message.prepend(field)).to_vec();
    assert_eq!(verdicts(&mail, &zone), [None, None]);
    let odd = replaced(&mail, "v=1;", "v=2;");
    assert_eq!(verdicts(&odd, &zone), [Some(Reason::Version), None]);
    let folded = replaced(&mail, "Subject: x", "Subject:  x");
    assert_eq!(verdicts(&folded, &zone), [Some(Reason::Signature), None], "simple fails, relaxed holds");
}

/// 3.5, l=: "The value "0" is valid" in that the body is then not signed at all.
#[test]
fn a_length_of_zero_signs_no_body() {
    let key = key();
    let zone = zone(NAME, key.record());
    let signer = signer(&key, |options| options.body_length = true);
    let mail = signed(&signer, b"From: a@example.org\r\n\r\n");
    assert!(String::from_utf8_lossy(&mail).contains("l=0;"));
    let result = verify(&common::verifier(), &[&mail[..], b"added\r\n"].concat(), &zone).remove(0);
    assert_eq!((result.reason, result.unsigned_bytes), (None, 7));
}

/// 3.5, t= and x=: more than twelve digits MAY be taken as without end; x= "MUST be greater than" t=.
#[test]
fn times_of_many_digits_lie_beyond_all_others() {
    let key = key();
    let zone = zone(NAME, key.record());
    let expiring = signer(&key, |options| {
        options.timestamp = false;
        options.expires_after = Some(std::time::Duration::from_secs(60));
    });
    let mail = signed(&expiring, PLAIN);
    assert_eq!(verdicts(&mail, &zone), [None]);
    let x = format!("x={}", NOW.secs() + 60);
    let far = replaced(&mail, &x, "x=99999999999999999999999");
    assert_eq!(
        verdicts(&far, &zone),
        [Some(Reason::Signature)],
        "read, not expired, and not what was signed"
    );
    assert_eq!(verdicts(&replaced(&mail, &x, "x=1"), &zone), [Some(Reason::Expired)]);
    let backwards = replaced(&mail, &x, "t=5; x=4");
    assert_eq!(verdicts(&backwards, &zone), [Some(Reason::Times)]);
}

/// 6.1.2, step 7: an empty p= "MUST" be a failure, whatever else the record says.
#[test]
fn a_revoked_key_is_revoked_before_all_else() {
    for record in ["p=", "v=DKIM1; k=rsa; p= ", "v=DKIM1; p=; n=gone", "v=DKIM1; t=y:s; p=\r\n "] {
        let read = KeyRecord::parse(record.as_bytes(), &Limits::default());
        assert_eq!(read, Err(Reason::KeyRevoked), "{record:?}");
    }
}

/// RFC 8301 3.2: "Verifiers MUST be able to validate signatures with keys ranging from 1024 bits to 4096 bits".
/// Made by openssl and dkimpy 1.1.8; the shorter keys are in the suites.
#[test]
fn a_key_of_4096_bits_verifies() {
    let record = "v=DKIM1; k=rsa; p=\
        MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEAxEdD7Iq1v0uuVW0bTc/K1m+KwzCv4aDAalNECx/piASPfqPM9oKh\
        /mjDKyWiKiSglYq74efSrIvoU2MwHpsMwcpy0oPEzcHCvGgo4bBGAilNW6BlKcVl6v/xpLaceIl/nf4z+IQLtM1qhanJXSPF\
        nR9Q617LfIBY0iMmAJ6ylaEeheeTmhieQL5KWenAphFxfklVHuiEIc9NW75rhRTX7Sdb+pl0oLcV4HjvzGYipjXpDR+2gW+c\
        s67J2MxwpIVoYwJIT+kAb1KnIOth/ncsxdF1O/5CBuIzBovvA0F+sLB4uSKTWTLjv65EYodpIm7QtM8JWpbuZCrH7HKLAs2q\
        9l3FOzLm6coGGbo/G07QVpggS/DTrYBJuSZ/uupwjOhVTZnpj0rSVqS3E5HbTZfm8wGvPVz98t+6eM4s5ltlccq7YnkOqA2A\
        yb6DcSrZ/RuT8iSOlTIysvEcnBQS+ZkH26WQ4H9eZtDde+9JpWNm+l4W0w81gbvhJi+3O1URYV6FVtntyKpAMYlwnXDPWdNQ\
        88IFMI1dDxrBWJo0I0TP7j+dO5goDOpHd9ny6BwU4ShTapOAHdiVL7Hpm8y1k+jrC6SxBIsyaElpJTpJ7K9hD8YEkbeTD0uH\
        7QYFnu3w5H3rKj/gv17PmiHpv2+812+8eTMQBKlfu22kvvhZffaKey0CAwEAAQ==";
    let field = "\
        DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org;\r\n\
        \x20i=@example.org; q=dns/txt; s=s; t=1795251538; h=from : subject : from;\r\n\
        \x20bh=Ck5SoRNWUpSR4X0COv7R5ub2pUTtl6xz4dTFz++ji4M=;\r\n\
        \x20b=Egz4jxEmq9xPHWKoyWaefv+WNdJMtLS41RAhsWqUUCGKdVRrNWKbdhC4FEEL5Qr434Kue\r\n\
        \x20k4pURuYQzlsp2/gbSAtAo4ytwGpfV2a6mRupq1+05bpYtVs5CF2P4UMH6EnYejOKJ1gThu+\r\n\
        \x20TlxDoJV8t1fbi1idr86Xb07hJJYGI/P0Hx7QdbH9sF5CMyGqbcoAz3pUiMp/9SOwdq0Am0f\r\n\
        \x20lvS287/YtOFuvUDKqQ460NSnj3umHa1r3KogrMdpaIP96VRKtEgawI0U+Sxk0UohNGkty58\r\n\
        \x20g1b9sqz/cojWX4ygihV7VZgTmcnWK4WosZEZOFf54tcpE4DXe6VaDNeTwS1LpuuIICghtg4\r\n\
        \x20j2s4Rd+xp65Gh+Yc1HFSH60fJ+pHMLSNMLA1xTHa4UbxvbiM4wXJFsf60QQzPsEHuIJP2tU\r\n\
        \x20N8Q+VqDovkl/8SR+zHyeVLtL0tIPjCmZhfs2DBLaGcKQ48cWixdv0ucnGb+C5Nyglvqs44+\r\n\
        \x20Pj47NvbiGd3AgYz3QOJCTs1QxI8qh3vXk+rWKBTPGiauHHKCytg8/83zw9cU7DjwMlK9uu2\r\n\
        \x20Q192I/AaIzxtyk1dwj45eAAzYn36+KpGjyV1xTxetPKWHIxowHCcRfgAxdMIXeNBGY7K9Az\r\n\
        \x20klyMtX30+d38mcAPclaoAWPORPdHncuwsD/lpx4DI9qa3k=\r\n";
    let mail = [field.as_bytes(), PLAIN].concat();
    let result = verify(&common::verifier(), &mail, &zone(NAME, record)).remove(0);
    assert_eq!((result.reason, result.key_bits), (None, Some(4096)));
}
