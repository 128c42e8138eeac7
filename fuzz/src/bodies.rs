//! What is done with one input. Each body holds a property, not only "no panic": what was read can be written and
//! read again, and the way input was cut into pieces changes nothing.
//!
//! Not here: inputs (`corpus/NAME`), and who calls (`main.rs` under libFuzzer, testkit/tests/fuzz_corpus.rs without).

#[path = "smtp.rs"]
mod smtp;
#[path = "tls.rs"]
mod tls;

use std::sync::Arc;

use postwright_bounce::fuzzing;
use postwright_core::{Domain, Instant, Mailbox, MemoryZone, Name, Record, ReversePath, Timestamp};
use postwright_dkim::arc::ArcVerifier;
use postwright_dkim::{BodyCanon, Canon, KeyRecord, Verifier, relaxed_field};
use postwright_shaping::Rules;
use postwright_smtp_proto::command::{
    Command, MailParameters, RcptParameters, decode_utf8_address, decode_xtext,
};
use postwright_smtp_proto::data::{DotDecoder, Piece};
use postwright_smtp_proto::ehlo::Capabilities;
use postwright_smtp_proto::proxy::{self, Progress};
use postwright_smtp_proto::reply::{ReplyLimits, ReplyParser};
use postwright_smtp_proto::server::{Answer, Config, Peer, Session, Step};
use postwright_spf_dmarc::auth_results::AuthResults;
use postwright_spf_dmarc::dmarc::{Authors, DmarcRecord};
use postwright_spf_dmarc::report::{self, AggregateReport, Report, ReportLimits};
use postwright_spf_dmarc::spf;

/// What is done with one input.
pub(crate) type Body = fn(&[u8]);

/// Every body by name; the corpus of each is the folder of that name.
pub(crate) const ALL: &[(&str, Body)] = &[
    ("address", address),
    ("zone", zone),
    ("command", command),
    ("dot_decoder", dot_decoder),
    ("proxy", proxy),
    ("reply", reply),
    ("server_session", server_session),
    ("dkim_verify", dkim_verify),
    ("dkim_key", dkim_key),
    ("dkim_signature", dkim_signature),
    ("dkim_canon", dkim_canon),
    ("arc", arc),
    ("spf_record", spf_record),
    ("spf_check", spf_check),
    ("spf_macro", spf_macro),
    ("dmarc_record", dmarc_record),
    ("dmarc_author", dmarc_author),
    ("auth_results", auth_results),
    ("report", report),
    ("spool_entry", spool_entry),
    ("shaping_rules", shaping_rules),
    ("client_session", smtp::client_session),
    ("pair", smtp::pair),
    ("bdat", smtp::bdat),
    ("parameters", smtp::parameters),
    ("ehlo", tls::ehlo),
    ("sts_policy", tls::sts_policy),
    ("tls_report", tls::tls_report),
    ("sasl_login", smtp::sasl_login),
    ("sasl_plain", smtp::sasl_plain),
    ("sasl_cram_md5", smtp::sasl_cram_md5),
    ("sasl_scram_sha1", smtp::sasl_scram_sha1),
    ("sasl_scram_sha256", smtp::sasl_scram_sha256),
    ("sasl_scram_sha1_plus", smtp::sasl_scram_sha1_plus),
    ("sasl_scram_sha256_plus", smtp::sasl_scram_sha256_plus),
    ("sasl_xoauth2", smtp::sasl_xoauth2),
    ("sasl_oauthbearer", smtp::sasl_oauthbearer),
    ("sasl_external", smtp::sasl_external),
    ("bounce_mail", fuzzing::mail),
    ("bounce_status", fuzzing::delivery_status),
    ("bounce_complaint", fuzzing::complaint),
    ("bounce_rules", fuzzing::rules),
    ("bounce_address", fuzzing::addresses),
];

fn text(data: &[u8]) -> &str {
    std::str::from_utf8(data).unwrap_or_default()
}

fn address(data: &[u8]) {
    let text = text(data);
    if let Ok(mailbox) = text.parse::<Mailbox>() {
        let again: Mailbox = mailbox.to_string().parse().expect("what is printed can be read");
        assert_eq!(again, mailbox);
    }
    if let Ok(path) = text.parse::<ReversePath>() {
        assert_eq!(path.to_string().parse::<ReversePath>().expect("what is printed can be read"), path);
    }
    if let Ok(domain) = text.parse::<Domain>() {
        assert_eq!(domain.to_string().parse::<Domain>().expect("what is printed can be read"), domain);
    }
    if let Ok(name) = text.parse::<Name>() {
        assert_eq!(name.to_string().parse::<Name>().expect("what is printed can be read"), name);
    }
}

fn zone(data: &[u8]) {
    let _ = MemoryZone::parse(text(data));
}

fn command(data: &[u8]) {
    let _ = Command::parse(data);
    let text = text(data);
    let _ = (MailParameters::parse(text), RcptParameters::parse(text));
    let _ = (decode_xtext(text), decode_utf8_address(text));
}

/// A reader that follows the parser never reads an octet that is not the header's.
fn proxy(data: &[u8]) {
    let mut read = 0;
    while let Ok(Progress::More(more)) = proxy::parse(data.get(..read).unwrap_or_default()) {
        assert!(more > 0);
        read += more;
        if read > data.len() {
            return;
        }
    }
    if let Ok(Progress::Done(_, consumed)) = proxy::parse(data) {
        assert_eq!(consumed, read);
    }
}

/// All in one piece, and octet by octet: the same text, the same end.
fn dot_decoder(data: &[u8]) {
    let whole = decode([data]);
    assert_eq!(decode(data.chunks(1)), whole);
    assert_eq!(decode(data.chunks(3)), whole);
}

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, &'static str) {
    let mut decoder = DotDecoder::new();
    let (mut kept, mut out) = (Vec::new(), Vec::new());
    for piece in pieces {
        kept.extend_from_slice(piece);
        while !kept.is_empty() {
            let done = match decoder.next(&kept) {
                Piece::Text { text, consumed } => {
                    assert!(consumed > 0 && consumed <= kept.len());
                    out.extend_from_slice(text);
                    consumed
                }
                Piece::More => {
                    assert!(kept.len() <= 2);
                    break;
                }
                Piece::End { .. } => return (out, "end"),
                // The message is refused; how much of it was seen before is nobody's business.
                Piece::Bad => return (Vec::new(), "bad"),
            };
            kept.drain(..done);
        }
    }
    (out, "more")
}

fn reply(data: &[u8]) {
    let whole = replies([data]);
    assert_eq!(replies(data.chunks(1)), whole);
    for line in &whole.0 {
        assert!(!line.contains(['\r', '\n']));
    }
}

fn replies<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, bool) {
    let mut parser = ReplyParser::new(ReplyLimits::default());
    let mut seen = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() {
            match parser.feed(piece) {
                Ok((used, reply)) => {
                    assert!(used > 0);
                    if let Some(reply) = reply {
                        let _ = Capabilities::from_reply(&reply);
                        seen.push(reply.to_string());
                    }
                    piece = piece.get(used..).unwrap_or_default();
                }
                Err(_) => return (seen, true),
            }
        }
    }
    (seen, false)
}

/// A server that says yes to everything: the same lines in other pieces give the same messages, and the session
/// always comes to rest. A piece never holds two lines, since what follows DATA at once is early talk (RFC 2920
/// 3.1): there the pieces matter, and are meant to.
fn server_session(data: &[u8]) {
    let lines = || data.split_inclusive(|octet| *octet == b'\n');
    let whole = converse(lines());
    assert_eq!(converse(lines().flat_map(|line| line.chunks(3))), whole);
    converse([data]);
}

fn converse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let host: Domain = "mx.example.org".parse().expect("a domain");
    let at = Timestamp::from_secs(1_800_000_000);
    let local = ([192, 0, 2, 2], 25).into();
    let peer = Peer::new(([192, 0, 2, 1], 4000).into(), local, at);
    let mut session = Session::new(Arc::new(Config::new(host)), peer, Instant::ZERO);
    let mut messages = Vec::new();
    let mut body = Vec::new();
    if !settle(&mut session, &mut body, &mut messages) {
        return messages;
    }
    // In lock-step after the greeting and EHLO, so that no input is early talk.
    for piece in std::iter::once(&b"EHLO client.example\r\n"[..]).chain(pieces) {
        session.handle_input(piece, Instant::ZERO);
        if !settle(&mut session, &mut body, &mut messages) {
            break;
        }
    }
    messages
}

/// Does what the session says until it wants input; false when it is over.
fn settle(session: &mut Session, body: &mut Vec<u8>, messages: &mut Vec<Vec<u8>>) -> bool {
    for _ in 0..1_000_000 {
        let (id, message) = match session.poll() {
            Step::Read { .. } => return true,
            Step::StartTls { .. } | Step::Close(_) => return false,
            Step::Write { bytes, .. } => {
                let len = bytes.len();
                session.handle_written(len, Instant::ZERO);
                continue;
            }
            Step::Body(text) => {
                body.extend_from_slice(text);
                continue;
            }
            Step::Reset => {
                body.clear();
                continue;
            }
            Step::Ask(id) => {
                let question = session.question().map(|(_, question)| question);
                let message =
                    matches!(question, Some(postwright_smtp_proto::server::Question::Message { .. }));
                (id, message)
            }
        };
        if message {
            messages.push(std::mem::take(body));
        }
        session.answer(id, Answer::accepted());
    }
    panic!("the session goes round in circles");
}

/// Nobody's keys are found, so the work is that of reading; cutting the message changes nothing.
fn dkim_verify(data: &[u8]) {
    let whole = verify(data.chunks(usize::MAX));
    assert_eq!(verify(data.chunks(1)), whole);
}

fn verify<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let mut verification = Verifier::default().begin();
    pieces.for_each(|piece| verification.feed(piece));
    format!("{:?}", at_once(verification.finish(&MemoryZone::new(), Timestamp::from_secs(1_800_000_000))))
}

/// A memory zone answers at once, so nothing that asks it alone ever waits.
fn at_once<F: Future>(work: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(work).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("a memory zone answers at once"),
    }
}

/// The data is the signature field; the rest of the message is as plain as can be.
fn dkim_signature(data: &[u8]) {
    dkim_verify(&[b"From: a@example.org\r\nDKIM-Signature:", data, b"\r\n\r\nbody\r\n"].concat());
}

/// Octet by octet and in one piece, the canonical bodies are the same, and a canonical body is its own canonical form.
fn dkim_canon(data: &[u8]) {
    for kind in [Canon::Simple, Canon::Relaxed] {
        let canonical = |pieces: std::slice::Chunks<'_, u8>| {
            let (mut body, mut out) = (BodyCanon::new(kind), Vec::new());
            pieces.for_each(|piece| body.feed(piece, &mut |octets| out.extend_from_slice(octets)));
            body.finish(&mut |octets| out.extend_from_slice(octets));
            out
        };
        let whole = canonical(data.chunks(usize::MAX));
        assert_eq!(canonical(data.chunks(1)), whole);
        assert_eq!(canonical(whole.chunks(usize::MAX)), whole);
    }
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    relaxed_field(data, &mut once);
    relaxed_field(&once, &mut twice);
    assert_eq!(once, twice);
}

fn dkim_key(data: &[u8]) {
    let _ = KeyRecord::parse(data, &postwright_dkim::Limits::default());
}

fn arc(data: &[u8]) {
    let verify = |pieces: std::slice::Chunks<'_, u8>| {
        let mut verification = ArcVerifier::default().begin();
        pieces.for_each(|piece| verification.feed(piece));
        format!("{:?}", at_once(verification.finish(&MemoryZone::new(), Timestamp::from_secs(1_800_000_000))))
    };
    assert_eq!(verify(data.chunks(1)), verify(data.chunks(usize::MAX)));
}

/// The terms of a record that was read make up the record, and read again they are the same.
fn spf_record(data: &[u8]) {
    if let Ok(record) = spf::Record::parse(data.to_vec()) {
        let terms: Vec<&str> = record.terms().map(|term| term.text).collect();
        let again = format!("v=spf1 {}", terms.join(" "));
        let again = spf::Record::parse(again.into_bytes()).expect("terms of a record make a record");
        assert!(again.terms().map(|term| term.text).eq(terms));
    }
}

/// The first line is the record of a domain that may include itself, the second its explanation, the third the
/// sender: there is always a verdict, within the budget, and the same one with a trace.
fn spf_check(data: &[u8]) {
    let mut lines = data.splitn(3, |octet| *octet == b'\n');
    let zone = MemoryZone::new();
    for owner in ["d.test", "e.test"] {
        let name: Name = owner.parse().expect("a constant name");
        zone.insert(name, Record::txt(lines.next().unwrap_or_default()));
    }
    let sender = format!("{}@d.test", text(lines.next().unwrap_or_default()));
    let query = spf::SpfQuery::mail_from([192, 0, 2, 1].into(), "h.test", &sender);
    let plain = ready(spf::check(&query, &zone));
    // The record, ten more terms of at most eleven look-ups each, and the explanation.
    assert!(zone.lookups() <= 1 + 11 * 11 + 1, "{} look-ups", zone.lookups());
    assert!(plain.lookups <= 11 && plain.void_lookups <= 3);
    let traced = ready(spf::check(&query.traced(), &zone));
    assert_eq!((traced.verdict, traced.explanation), (plain.verdict, plain.explanation));
}

/// A macro string in a term and in an explanation: what the grammar refuses is a permerror before anything is expanded, and
/// what it takes costs no more look-ups than any record.
fn spf_macro(data: &[u8]) {
    let zone = MemoryZone::new();
    let record = [&b"v=spf1 exists:"[..], data, b".x.test -all exp=e.test"].concat();
    zone.insert("d.test".parse().expect("a constant name"), Record::txt(&record));
    zone.insert("e.test".parse().expect("a constant name"), Record::txt(data));
    let query = spf::SpfQuery::mail_from([192, 0, 2, 1].into(), "h.test", "a.b-c+d@d.test");
    let result = ready(spf::check(&query, &zone));
    assert!(zone.lookups() <= 1 + 11 * 11 + 1, "{} look-ups", zone.lookups());
    if spf::Record::parse(record).is_err() {
        assert_eq!((result.verdict, zone.lookups()), (spf::Verdict::PermError, 1));
    }
    assert!(result.explanation.is_none_or(|text| text.is_ascii() && text.len() <= 1024));
}

fn dmarc_record(data: &[u8]) {
    let _ = DmarcRecord::parse(data);
}

fn dmarc_author(data: &[u8]) {
    let _ = Authors::parse(text(data));
}

/// What is read can be written, and has as many results when it is read again.
fn auth_results(data: &[u8]) {
    if let Ok(results) = AuthResults::parse(text(data)) {
        let again = AuthResults::parse(results.field().value()).expect("what is written can be read");
        assert_eq!(again.results.len(), results.results.len());
    }
}

/// A report that is read as an aggregate one has the same rows when it is written and read again.
fn report(data: &[u8]) {
    let mut limits = ReportLimits::default();
    (limits.unpacked, limits.rows) = (1 << 20, 1000);
    if let Ok(Report::Aggregate(report)) = report::parse(data, &limits) {
        assert!(report.rows.len() <= 1000);
        let again = AggregateReport::parse(report::xml(&report).as_bytes(), &limits);
        // A report without a name or a domain of its own is read, but not written.
        if let Ok(again) = again {
            assert_eq!(again.rows.len(), report.rows.len());
        }
    }
}

/// Polls a future over answers in memory, which never waits.
fn ready<F: Future>(work: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(work).poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("answers in memory are ready at once"),
    }
}

fn spool_entry(data: &[u8]) {
    if let Ok(entry) = postwright_queue::codec::decode(data) {
        let again = postwright_queue::codec::encode(&entry);
        assert_eq!(postwright_queue::codec::decode(&again).expect("what is written can be read"), entry);
    }
}

fn shaping_rules(data: &[u8]) {
    let _ = Rules::parse(text(data));
}
