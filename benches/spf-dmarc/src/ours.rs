//! Our side.

use std::hint::black_box;

use postwright_core::{MemoryZone, Message, Name, Timestamp};
use postwright_dkim::{Provider, Signer, SigningKey, Verifier};
use postwright_spf_dmarc::auth_results::{AuthResults, MethodResult};
use postwright_spf_dmarc::dmarc::{self, Authors, DmarcQuery};
use postwright_spf_dmarc::header;
use postwright_spf_dmarc::spf::{self, Memory, SpfQuery, SpfResult};

use crate::{Mail, What, now, zone};

const MESSAGE: &[u8] = b"From: Joe <joe@g.test>\r\nTo: Ann <ann@mx.test>\r\nSubject: x\r\n\
    Date: Sat, 21 Nov 2026 00:00:00 +0000\r\nMessage-ID: <1@g.test>\r\n\r\nA line of text.\r\n";
/// A key that guards nothing.
const RSA_KEY: &str = include_str!("../../dkim/rsa-2048.pem");
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// The message, and where its key is published.
pub fn signed() -> (Mail, Vec<(String, String)>) {
    let key = SigningKey::read(Provider::ring(), RSA_KEY.as_bytes()).expect("a key");
    let record = ("s._domainkey.g.test".to_owned(), key.record());
    let (domain, selector) = ("g.test".parse().expect("a domain"), "s".parse().expect("a selector"));
    let plain = Message::from_bytes(MESSAGE.to_vec());
    let field = Signer::new(key, domain, selector).expect("a signer").sign(&plain, NOW).expect("a signature");
    let signed = plain.prepend(field).to_vec();
    (Mail { plain: MESSAGE.to_vec(), signed }, vec![record])
}

pub struct Ours {
    zone: MemoryZone,
    memory: Memory,
    verifier: Verifier,
    plain: Message,
    signed: Message,
    /// What SPF says of the message.
    passed: SpfResult,
}

impl Ours {
    pub fn new(mail: &Mail, keys: &[(String, String)]) -> Ours {
        let zone = zone::zone(keys);
        let (ip, sender) = What::Dmarc.sender();
        let passed = now(spf::check(&SpfQuery::mail_from(ip, "mx.test", sender), &zone));
        Ours {
            zone,
            memory: Memory::new(1024),
            verifier: Verifier::default(),
            plain: Message::from_bytes(mail.plain.clone()),
            signed: Message::from_bytes(mail.signed.clone()),
            passed,
        }
    }

    pub fn run(&self, what: What, remembered: bool) {
        match what {
            What::SpfGoogle | What::SpfOutlook => {
                black_box(self.spf(what, remembered));
            }
            What::Dmarc => {
                black_box(self.dmarc(&self.plain, &self.passed, &[]));
            }
            What::Check => self.check(&self.plain, what, remembered),
            What::Signed => self.check(&self.signed, what, remembered),
        }
    }

    fn spf(&self, what: What, remembered: bool) -> SpfResult {
        let (ip, sender) = what.sender();
        let mut query = SpfQuery::mail_from(ip, "mx.test", sender);
        if remembered {
            query = query.memory(&self.memory);
        }
        let result = now(spf::check(&query, &self.zone));
        assert_eq!(result.verdict, spf::Verdict::Pass);
        result
    }

    fn dmarc(&self, message: &Message, spf: &SpfResult, signers: &[Name]) -> dmarc::DmarcResult {
        let octets = message.chunks().next().expect("a message of one piece");
        let from = header::fields(octets).find(|field| field.is("From")).expect("a From field").text();
        let query =
            DmarcQuery::new(Authors::parse(&from)).spf(spf.authenticated()).dkim(signers.iter().cloned());
        let result = now(dmarc::evaluate(&query, &self.zone));
        assert_eq!(result.verdict, dmarc::Verdict::Pass);
        result
    }

    fn check(&self, message: &Message, what: What, remembered: bool) {
        let spf = self.spf(what, remembered);
        let dkim = match what {
            What::Signed => now(self.verifier.verify(message, &self.zone, NOW)),
            _ => Vec::new(),
        };
        let passed = dkim.iter().filter(|result| result.is_pass());
        let signers: Vec<Name> = passed.filter_map(|result| result.domain.as_ref().map(Name::from)).collect();
        assert_eq!(signers.len(), usize::from(what == What::Signed));
        let dmarc = self.dmarc(message, &spf, &signers);
        let mut results = AuthResults::new("mx.test").with(&spf);
        for signature in &dkim {
            let mut result = MethodResult::new("dkim", signature.verdict.as_str());
            let domain = signature.domain.as_ref().map(ToString::to_string);
            let selector = signature.selector.as_ref().map(ToString::to_string);
            let algorithm = signature.algorithm.map(|algorithm| algorithm.as_str().to_owned());
            for (name, value) in
                [("d", domain), ("s", selector), ("a", algorithm), ("b", signature.tag.clone())]
            {
                if let Some(value) = value {
                    result = result.property("header", name, value);
                }
            }
            results = results.with(result);
        }
        black_box(results.with(&dmarc).field());
    }
}
