//! All tests of this folder once more, with AWS-LC in the place of ring.
//!
//! Invariant: both libraries give the same verdicts, and sign to the same octets.

#![cfg(all(feature = "ring", feature = "aws-lc-rs"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::duplicate_mod, reason = "each of the files has what they share as a module of its own")]

#[path = "arc_suite.rs"]
mod arc_suite;
#[path = "hostile.rs"]
mod hostile;
#[path = "properties.rs"]
mod properties;
#[path = "rfc6376.rs"]
mod rfc6376;
#[path = "rfc8617.rs"]
mod rfc8617;
#[path = "round_trips.rs"]
mod round_trips;
#[path = "suites.rs"]
mod suites;

use postwright_core::{Message, Timestamp};
use postwright_dkim::{KeyKind, Provider, Signer, SigningKey};

#[test]
fn the_modules_here_are_tested_with_aws_lc() {
    assert_eq!(format!("{:?}", suites::common::provider()), "aws-lc-rs");
    assert_eq!(format!("{:?}", Provider::default()), "ring");
}

#[test]
fn both_libraries_sign_to_the_same_octets() {
    let message = Message::from_bytes(&b"From: a@example.org\r\nSubject: x\r\n\r\nBody  \r\n\r\n"[..]);
    for kind in [KeyKind::Ed25519, KeyKind::Rsa(2048)] {
        let (_, pem) = SigningKey::generate(Provider::aws_lc_rs(), kind).unwrap();
        let fields = [Provider::ring(), Provider::aws_lc_rs()].map(|provider| {
            let key = SigningKey::read(provider, pem.as_bytes()).unwrap();
            let signer = Signer::new(key, "example.org".parse().unwrap(), "s".parse().unwrap()).unwrap();
            signer.sign(&message, Timestamp::from_secs(1_800_000_000)).unwrap()
        });
        assert_eq!(fields[0], fields[1]);
    }
}
