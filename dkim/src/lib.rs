//! DKIM (RFC 6376, 8301, 8463) and ARC (RFC 8617): sign and verify mail as it streams by.
//!
//! It is: a verifier that takes a message in chunks of any size, looks its keys up through a [`Resolver`] that you
//! plug in, at a time that you say, within [`Limits`] that you set; and a signer for RSA and Ed25519, any number of
//! signatures in one pass. It is not: a resolver, a runtime, a milter, or a policy. What a result means for delivery
//! is decided elsewhere (DMARC, RFC 7489).
//!
//! ```
//! use postwright_core::{MemoryZone, Message, Record, Timestamp};
//! use postwright_dkim::{KeyKind, Provider, Signer, SigningKey, Verifier};
//! # fn block_on<F: Future>(f: F) -> F::Output {
//! #     let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
//! #     match std::pin::pin!(f).poll(&mut cx) { std::task::Poll::Ready(v) => v, _ => unreachable!() }
//! # }
//! let (key, _pem) = SigningKey::generate(Provider::default(), KeyKind::Ed25519)?;
//! let zone = MemoryZone::new();
//! zone.insert("s1._domainkey.example.org".parse()?, Record::txt(key.record()));
//!
//! let now = Timestamp::from_secs(1_800_000_000);
//! let message = Message::from_bytes(&b"From: <me@example.org>\r\nSubject: Hi\r\n\r\nHello.\r\n"[..]);
//! let signer = Signer::new(key, "example.org".parse()?, "s1".parse()?)?;
//! let signed = message.prepend(signer.sign(&message, now)?);
//!
//! let mut verification = Verifier::default().begin();
//! for chunk in signed.chunks() {
//!     verification.feed(chunk); // as it arrives
//! }
//! let results = block_on(verification.finish(&zone, now));
//! assert!(results[0].is_pass());
//! assert_eq!(results[0].domain.as_ref().unwrap().as_str(), "example.org");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Limits
//!
//! | what | number | where |
//! |---|---|---|
//! | signatures verified (look-ups, public-key operations) | 10 | [`Limits::signatures`], RFC 6376 6.1 |
//! | header section kept | 16 MiB | [`Limits::header_octets`] |
//! | names in one `h=` | 1,000 | [`Limits::signed_names`] |
//! | key record | 16 KiB | [`Limits::key_record_octets`], RFC 6376 3.6.2.2 |
//! | key records at one name | 3 | [`Limits::key_records`], RFC 6376 3.6.2.2 |
//! | RSA key, verifying | 1024 to 8192 bits | [`VerifyPolicy::rsa_bits_min`], [`Limits::rsa_bits_max`], RFC 8301 3.2 |
//! | RSA key, signing | from 2048 bits | RFC 8301 3.2 |
//! | ARC sets | 50 | [`Limits::arc_sets`], RFC 8617 4.2.1 |
//!
//! # Standards and their tests
//!
//! | standard | test |
//! |---|---|
//! | RFC 6376 as a whole | `tests/suites.rs` (`mail_dkim_corpus`: 62 messages, each with and without SHA-1) |
//! | RFC 6376, what the suites lack | `tests/rfc6376.rs` |
//! | RFC 6376 3.4 canonicalisation | `tests/suites.rs` (`canonicalization_cases`), `tests/properties.rs` (naive twins) |
//! | RFC 8463 appendix A | `tests/suites.rs` (`rfc_8463_appendix_a`) |
//! | RFC 8301 (SHA-1, key sizes) | `tests/suites.rs` (`mail_dkim_corpus`) |
//! | RFC 8617 | `tests/arc_suite.rs` (the suites of its authors, 175 and 17 cases) |
//! | RFC 8617, what its suites lack | `tests/rfc8617.rs` |
//! | all of them, beside dkimpy and OpenDKIM, both ways | `tests/round_trips.rs` (2,300 generated messages) |
//! | the limits above | `tests/hostile.rs` (look-ups counted) |
//!
//! # Features
//!
//! `ring` (default) and `aws-lc-rs` are the cryptographic libraries, side by side if both are on; without either
//! there is no [`Provider`], and what remains are the parsers and the canonicalisation. `arc` adds ARC.
//!
//! [`Resolver`]: postwright_core::Resolver

#[cfg(feature = "arc")]
pub mod arc;
mod base64;
mod body_hash;
mod canon;
mod crypto;
mod der;
mod fold;
mod header_input;
mod header_reader;
mod key;
mod key_store;
mod limits;
mod line_ends;
mod lookup;
mod names;
mod result;
mod rotation;
mod section;
mod selection;
mod sign;
mod signature;
mod signing_key;
mod tag;
mod verify;
mod wide;

pub use canon::{BodyCanon, Canon, CanonError, CanonPair, relaxed_field, simple_field};
pub use crypto::{KeyError, Provider};
pub use key::{KeyRecord, zone_strings};
pub use key_store::{KeyStore, MemoryKeyStore, ReloadableKeyStore};
pub use limits::Limits;
pub use result::{DkimResult, Reason, Verdict};
pub use rotation::{DnsStep, KeyState, Rotation, RotationPolicy, Step};
pub use selection::SignedFields;
pub use sign::{SignError, SignOptions, Signer, Signing, sign_all};
pub use signature::{Algorithm, Selector, SelectorError};
pub use signing_key::{KeyKind, SigningKey};
pub use verify::{Verification, Verifier, VerifyPolicy};

/// The program in README.md, compiled.
#[cfg(all(doctest, feature = "ring"))]
#[doc = include_str!("../README.md")]
pub struct Readme;
