//! The bodies of the fuzz targets, so that tests and any fuzzing engine run the same code: feed octets, panic on a broken invariant.
//!
//! Not here: an engine. A target is one line: `fuzz_target!(|data: &[u8]| postwright_bounce::fuzzing::mail(data));`

use crate::Limits;
use crate::classify::{Classifier, Refused, normalise, parse_rules};
use crate::dsn;
use crate::report::read;
use crate::verp::{verp, verp_recipient};

thread_local!(static CLASSIFIER: Classifier = Classifier::built_in());

/// Any mail: notifications, complaints, prose.
pub fn mail(data: &[u8]) {
    let limits = Limits::default();
    let report = CLASSIFIER.with(|classifier| read(data, classifier, &limits));
    assert!(report.reports.len() <= limits.reports, "more recipients than the limit");
}

/// The machine-readable part of a notification.
pub fn delivery_status(data: &[u8]) {
    let limits = Limits::default();
    let notification = dsn::parse(&String::from_utf8_lossy(data), &limits);
    assert!(notification.recipients.len() <= limits.reports, "more recipients than the limit");
}

/// The fields of a complaint, in the mail that makes them one.
pub fn complaint(data: &[u8]) {
    let limits = Limits::default();
    let head = b"Content-Type: multipart/report; report-type=feedback-report; boundary=\"=f\"\r\n\r\n--=f\r\nContent-Type: message/feedback-report\r\n\r\n";
    let report = CLASSIFIER.with(|classifier| read(&[head, data].concat(), classifier, &limits));
    assert!(report.reports.len() <= limits.reports, "more recipients than the limit");
    let all_complain = report.reports.iter().all(|one| !one.classification.hard);
    assert!(report.feedback.is_none() || all_complain, "a complaint says that an address is dead");
}

/// A refusal, and a rules file.
pub fn rules(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let verdict = CLASSIFIER.with(|classifier| classifier.classify_refusal(Refused::from_line(&text)));
    assert!(verdict.confidence <= 100, "a confidence above 100");
    let _ = normalise(&text);
    if let Ok(rules) = parse_rules(&text) {
        assert!(rules.iter().all(|rule| !rule.name.is_empty()), "a rule without a name");
        let _ = Classifier::with_rules(&text)
            .map(|classifier| classifier.classify_line("550 5.1.1 no such user"));
    }
}

/// Bounce addresses: what is composed comes back.
pub fn addresses(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(mailbox) = text.parse::<postwright_core::Mailbox>() else { return };
    let _ = verp_recipient("b", &mailbox);
    if let Ok(domain) = "bounces.example".parse()
        && let Ok(address) = verp("b", &mailbox, &domain)
    {
        let back = verp_recipient("b", &address);
        assert!(back.is_some_and(|back| back.is_same(&mailbox)), "a composed address did not come back");
    }
}
