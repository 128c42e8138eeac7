//! What a peer offers and what its domain publishes about TLS: the reply to EHLO, MTA-STS policies and records, reports
//! about TLS.
//!
//! Not here: DANE records (they are numbers and octets; their vectors are in smtp-client/tests).

use postwright_core::{Record, Reply, ReplyCode};
use postwright_smtp_client::sts::{self, Policy};
use postwright_smtp_client::tlsrpt::{self, Report};
use postwright_smtp_proto::ehlo::Capabilities;

use super::text;

/// The case of keywords does not matter (RFC 5321 2.4), and what is offered last cannot take back a mechanism.
pub(crate) fn ehlo(data: &[u8]) {
    let lines = text(data);
    let read = |lines: &str| {
        let code = ReplyCode::new(250).expect("a code");
        Capabilities::from_reply(&Reply::new(code, &format!("mx.example.org\n{lines}")))
    };
    let offer = read(lines);
    for mechanism in &offer.auth {
        assert!(offer.offers_auth(&mechanism.to_ascii_lowercase()));
    }
    let known = |mut offer: Capabilities| {
        offer.other.clear();
        offer
    };
    assert_eq!(known(read(&lines.to_ascii_lowercase())), known(offer.clone()));
    let more = read(&format!("{lines}\nAUTH PLAIN"));
    assert!(more.offers_auth("plain") && offer.auth.iter().all(|mechanism| more.offers_auth(mechanism)));
}

/// A policy that was read says the same when it is written and read again; a TXT record gives a short id or none.
pub(crate) fn sts_policy(data: &[u8]) {
    if let Ok(policy) = Policy::parse(data) {
        assert_eq!(Policy::parse(policy.to_string().as_bytes()).as_ref(), Ok(&policy));
    }
    let record = Record::Txt(vec![data.to_vec().into()]);
    if let Some(id) = sts::record_id(&[record]) {
        assert!((1..=32).contains(&id.len()) && id.bytes().all(|octet| octet.is_ascii_alphanumeric()));
    }
}

/// A report that was read is the same report after being written, plain or compressed.
pub(crate) fn tls_report(data: &[u8]) {
    let limits = tlsrpt::Limits::default();
    if let Ok(report) = Report::parse(data, &limits) {
        for written in [report.to_json(), report.to_gzip()] {
            assert_eq!(Report::parse(&written, &limits).ok().as_ref(), Some(&report));
        }
    }
}
