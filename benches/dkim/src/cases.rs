//! The cases: one message, one key, three ways.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mail_auth::common::crypto::{Ed25519Key, RsaKey, Sha256};
use mail_auth::common::headers::HeaderWriter;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::dkim::{DkimSigner, Done};
use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, DkimResult, MX, MessageAuthenticator, Parameters, RecordSet, Txt};
use postwright_core::{HeaderField, MemoryZone, Message, Record, Timestamp};
use postwright_dkim::{Provider, SignOptions, SignedFields, Signer, SigningKey, Verifier, relaxed_field};
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{self, Ed25519KeyPair, KeyPair, RsaKeyPair};

use crate::cache::Fixed;

#[derive(Clone, Copy, Debug)]
pub enum Who {
    Bare,
    Ours,
    MailAuth,
}

impl Who {
    pub const ALL: [Who; 3] = [Who::Bare, Who::Ours, Who::MailAuth];

    pub fn name(self) -> &'static str {
        match self {
            Who::Bare => "bare",
            Who::Ours => "ours",
            Who::MailAuth => "mail-auth",
        }
    }
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            What::Sign => "sign",
            What::Verify => "verify",
        }
    }
}

impl Algorithm {
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Rsa => "rsa",
            Algorithm::Ed25519 => "ed25519",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum What {
    Sign,
    Verify,
}

#[derive(Clone, Copy, Debug)]
pub enum Algorithm {
    Rsa,
    Ed25519,
}

const FIELDS: [&str; 7] = ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"];
/// A key that guards nothing: made for these benches by `openssl genrsa -traditional 2048`.
const RSA_KEY: &str = include_str!("../rsa-2048.pem");
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

enum Theirs {
    Rsa(Box<DkimSigner<RsaKey<Sha256>, Done>>),
    Ed25519(Box<DkimSigner<Ed25519Key, Done>>),
}

enum Bare {
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

pub struct Bench {
    message: Vec<u8>,
    rope: Message,
    signed: Vec<u8>,
    signed_rope: Message,
    body: Vec<u8>,
    signer: Signer,
    verifier: Verifier,
    zone: MemoryZone,
    theirs: Theirs,
    authenticator: MessageAuthenticator,
    cache: Fixed<Box<str>, Txt>,
    bare: Bare,
    bare_header: Vec<u8>,
    bare_signature: Vec<u8>,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    pub fn new(algorithm: Algorithm, size: usize) -> Bench {
        let body = text(size);
        let header = "Received: from a.example by b.example; Sat, 21 Nov 2026 00:00:00 +0000\r\n\
             From: Joe <joe@example.org>\r\nTo: Ann <ann@example.com>\r\nSubject: A  subject of some length\r\n\
             Date: Sat, 21 Nov 2026 00:00:00 +0000\r\nMessage-ID: <1234567890@example.org>\r\n\
             MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n";
        let message = [header.as_bytes(), &body].concat();
        let rope = Message::from_bytes(message.clone());
        let seed = [7u8; 32];
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed");
        let file = match algorithm {
            Algorithm::Rsa => RSA_KEY.to_owned(),
            Algorithm::Ed25519 => base64(&seed),
        };
        let key = SigningKey::read(Provider::ring(), file.as_bytes()).expect("a key");
        let record = key.record();
        let mut options = SignOptions::default();
        options.fields = SignedFields::Exactly(FIELDS.map(str::to_owned).to_vec());
        let domain = "example.org".parse().expect("a domain");
        let signer =
            Signer::with_options(key, domain, "s".parse().expect("a selector"), options).expect("a signer");
        let zone = MemoryZone::new();
        zone.insert("s._domainkey.example.org".parse().expect("a name"), Record::txt(&record));
        let signature_field = signer.sign(&rope, NOW).expect("a signature");
        let signed_rope = rope.prepend(signature_field.clone());
        let der = pem(RSA_KEY);
        let theirs = match algorithm {
            Algorithm::Rsa => {
                #[expect(deprecated, reason = "the successor needs one crate more")]
                let key = RsaKey::<Sha256>::from_der(&der).expect("a key");
                Theirs::Rsa(Box::new(DkimSigner::from_key(key).domain("example.org").selector("s").headers(FIELDS)))
            }
            Algorithm::Ed25519 => {
                let key = Ed25519Key::from_seed_and_public_key(&seed, pair.public_key().as_ref()).expect("a key");
                Theirs::Ed25519(Box::new(
                    DkimSigner::from_key(key).domain("example.org").selector("s").headers(FIELDS),
                ))
            }
        };
        let domain_key = DomainKey::parse(record.as_bytes()).expect("a record");
        let cache = HashMap::from([(
            Box::from("s._domainkey.example.org."),
            Txt::DomainKey(Arc::new(domain_key)),
        )]);
        let bare = match algorithm {
            Algorithm::Rsa => Bare::Rsa(RsaKeyPair::from_der(&der).expect("a key")),
            Algorithm::Ed25519 => Bare::Ed25519(pair),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _guard = runtime.enter();
        let authenticator =
            MessageAuthenticator::new(ResolverConfig::default(), ResolverOpts::default()).expect("a resolver");
        drop(_guard);
        let mut bench = Bench {
            signed: signed_rope.to_vec(),
            verifier: Verifier::default(),
            bare_header: signed_octets(header, &signature_field),
            bare_signature: Vec::new(),
            cache: Fixed(cache),
            authenticator,
            runtime,
            message,
            rope,
            signed_rope,
            body,
            signer,
            zone,
            theirs,
            bare,
        };
        bench.bare_signature = bench.bare_sign();
        // The bare operations are done on what was really signed.
        assert_eq!(bench.bare_signature, signature_of(signature_field.value()));
        // Each verifies what the other signed.
        let their_mail = [bench.their_field().as_bytes(), &bench.message].concat();
        assert!(bench.our_verdict(&Message::from_bytes(their_mail)));
        assert!(bench.their_verdict());
        bench
    }

    pub fn run(&self, who: Who, what: What) -> usize {
        match (who, what) {
            (Who::Bare, What::Sign) => self.bare_sign().len(),
            (Who::Bare, What::Verify) => usize::from(self.bare_verify()),
            (Who::Ours, What::Sign) => {
                self.signer.sign(&self.rope, NOW).expect("a signature").as_bytes().len()
            }
            (Who::Ours, What::Verify) => {
                assert!(self.our_verdict(&self.signed_rope));
                1
            }
            (Who::MailAuth, What::Sign) => self.their_field().len(),
            (Who::MailAuth, What::Verify) => {
                assert!(self.their_verdict());
                1
            }
        }
    }

    fn bare_sign(&self) -> Vec<u8> {
        let body = digest::digest(&digest::SHA256, &self.body);
        assert_eq!(body.as_ref().len(), 32);
        match &self.bare {
            Bare::Rsa(pair) => {
                let mut out = vec![0; pair.public().modulus_len()];
                let random = SystemRandom::new();
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, &self.bare_header, &mut out).expect("a signature");
                out
            }
            Bare::Ed25519(pair) => {
                pair.sign(digest::digest(&digest::SHA256, &self.bare_header).as_ref()).as_ref().to_vec()
            }
        }
    }

    fn bare_verify(&self) -> bool {
        let body = digest::digest(&digest::SHA256, &self.body);
        assert_eq!(body.as_ref().len(), 32);
        match &self.bare {
            Bare::Rsa(pair) => {
                let key = signature::UnparsedPublicKey::new(
                    &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
                    pair.public().as_ref(),
                );
                key.verify(&self.bare_header, &self.bare_signature).is_ok()
            }
            Bare::Ed25519(pair) => {
                let hash = digest::digest(&digest::SHA256, &self.bare_header);
                let key = signature::UnparsedPublicKey::new(&signature::ED25519, pair.public_key().as_ref());
                key.verify(hash.as_ref(), &self.bare_signature).is_ok()
            }
        }
    }

    fn our_verdict(&self, mail: &Message) -> bool {
        let mut work = pin!(self.verifier.verify(mail, &self.zone, NOW));
        match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(results) => results.len() == 1 && results.iter().all(|result| result.is_pass()),
            Poll::Pending => unreachable!("a memory zone answers at once"),
        }
    }

    fn their_field(&self) -> String {
        match &self.theirs {
            Theirs::Rsa(signer) => signer.sign(&self.message).expect("a signature").to_header(),
            Theirs::Ed25519(signer) => signer.sign(&self.message).expect("a signature").to_header(),
        }
    }

    fn their_verdict(&self) -> bool {
        type Unused<T> = Fixed<Box<str>, RecordSet<T>>;
        let mail = AuthenticatedMessage::parse(&self.signed).expect("a message");
        let parameters: Parameters<
            '_,
            _,
            _,
            Unused<MX>,
            Unused<Ipv4Addr>,
            Unused<Ipv6Addr>,
            Fixed<IpAddr, RecordSet<Box<str>>>,
        > = Parameters {
            params: &mail,
            cache_txt: Some(&self.cache),
            cache_mx: None,
            cache_ptr: None,
            cache_ipv4: None,
            cache_ipv6: None,
        };
        let results = self.runtime.block_on(self.authenticator.verify_dkim(parameters));
        results.len() == 1 && results.iter().all(|result| *result.result() == DkimResult::Pass)
    }
}

/// Lines of words between single blanks: what most bodies are made of.
pub fn text(size: usize) -> Vec<u8> {
    let line = b"The quick brown fox jumps over the lazy dog, and nobody knows the reason.\r\n";
    let mut out: Vec<u8> = line.iter().copied().cycle().take(size / line.len() * line.len()).collect();
    if out.is_empty() {
        out.extend(line);
    }
    out
}

/// Lines that begin with blanks and tabs, some ending in blanks.
pub fn html(size: usize) -> Vec<u8> {
    let lines = b"<table>\r\n    <tr>\r\n\t\t<td class=\"x\">A cell with some words in it</td> \r\n    </tr>\r\n</table>\r\n";
    lines.iter().copied().cycle().take(size / lines.len() * lines.len()).collect()
}

/// The octets that a relaxed signature over `FIELDS` signs.
fn signed_octets(header: &str, signature: &HeaderField) -> Vec<u8> {
    let mut out = Vec::new();
    for name in FIELDS {
        let field = header.split("\r\n").find(|line| line.starts_with(&format!("{name}:"))).expect("the field");
        relaxed_field(field.as_bytes(), &mut out);
        out.extend(b"\r\n");
    }
    let (unsigned, _) = split_at_b(signature.value());
    relaxed_field(format!("DKIM-Signature: {unsigned}").as_bytes(), &mut out);
    out
}

/// A value up to `b=`, its last tag, and what follows.
fn split_at_b(value: &str) -> (&str, &str) {
    let at = value.rfind(';').expect("tags before b=");
    let equals = at + value[at..].find("b=").expect("b= is the last tag");
    value.split_at(equals + 2)
}

fn signature_of(value: &str) -> Vec<u8> {
    decode(&split_at_b(value).1.replace(['\r', '\n', '\t', ' '], ""))
}

fn pem(text: &str) -> Vec<u8> {
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    decode(&body)
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn decode(text: &str) -> Vec<u8> {
    let mut bits = 0u32;
    let mut count = 0;
    let mut out = Vec::new();
    for digit in text.bytes().filter(|digit| *digit != b'=') {
        let value = DIGITS.iter().position(|known| *known == digit).expect("base64");
        bits = bits << 6 | u32::try_from(value).expect("below 64");
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).expect("an octet"));
        }
    }
    out
}

fn base64(octets: &[u8]) -> String {
    let mut out = String::new();
    for three in octets.chunks(3) {
        let bits =
            three.iter().enumerate().fold(0u32, |bits, (nth, octet)| bits | u32::from(*octet) << (16 - 8 * nth));
        for digit in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * digit) & 63).expect("below 64");
            out.push(if digit > three.len() { '=' } else { char::from(DIGITS[index]) });
        }
    }
    out
}
