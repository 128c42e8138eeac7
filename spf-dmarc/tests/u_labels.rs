//! Domains in U-labels: converted with the feature `idna`, nobody's without it.
//!
//! Standards: RFC 8616 4 (SPF), RFC 9989 4.8 with RFC 5890 2.3.2 (DMARC); the label is that of RFC 3492 7.1 (B).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use postwright_core::MemoryZone;
use postwright_spf_dmarc::dmarc::Authors;
use postwright_spf_dmarc::spf::{self, SpfQuery, Verdict};
use postwright_testkit::at_once;

const U: &str = "他们为什么不说中文.example";
const A: &str = "xn--ihqwcrb4cv8a8dqg056pqjye.example";

#[test]
fn spf_asks_for_the_a_labels_of_a_sender() {
    let zone = MemoryZone::parse(&format!("{A}. TXT \"v=spf1 ip4:192.0.2.1 -all\"\n")).unwrap();
    let sender = format!("ann@{U}");
    let query = SpfQuery::mail_from("192.0.2.1".parse().unwrap(), "mx.example", &sender);
    let result = at_once(spf::check(&query, &zone));
    if cfg!(feature = "idna") {
        assert_eq!((result.verdict, &*result.domain), (Verdict::Pass, A));
    } else {
        assert_eq!(result.verdict, Verdict::None);
    }
}

#[test]
fn dmarc_knows_an_author_by_its_a_labels() {
    let authors = Authors::parse(&format!("Ann <ann@{U}>"));
    let domains: Vec<String> = authors.domains.iter().map(ToString::to_string).collect();
    if cfg!(feature = "idna") {
        assert_eq!(domains, [A]);
    } else {
        assert_eq!(domains, Vec::<String>::new());
    }
}
