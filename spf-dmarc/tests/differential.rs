//! SPF beside pyspf over generated zones: random includes, redirects, macros, loops, voids, time-outs. Every
//! disagreement is either a bug of ours or falls under a rule below that names the sentence of RFC 7208 that decides.
//!
//! Not here: DMARC (dmarc_differential.rs).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;
#[path = "common/peer.rs"]
mod peer;
#[path = "common/ways.rs"]
mod ways;

use std::collections::BTreeMap;

use common::now;
use peer::{Dice, Peer, zones};
use postwright_core::{DnsError, MemoryZone, Name, Record, SeededEntropy};
use postwright_spf_dmarc::spf::{
    Event, MacroError, Memory, Problem, SpfQuery, SpfResult, Step, TermError, check,
};
use postwright_testkit::{peers, skip};
use serde_json::{Value, json};
use ways::same_untraced_and_remembered;

/// A zone, and its text for complaints.
#[derive(Default)]
struct Both {
    memory: MemoryZone,
    text: String,
}

impl Both {
    fn add(&mut self, owner: &str, kind: &str, value: Value) {
        let name: Name = owner.parse().unwrap();
        let text = value.as_str().unwrap_or_default();
        self.text.push_str(&format!("{owner} {kind} {value}\n"));
        match kind {
            "TIMEOUT" => self.memory.fail(name, None, DnsError::Timeout),
            "A" => self.memory.insert(name, Record::A(text.parse().unwrap())),
            "AAAA" => self.memory.insert(name, Record::Aaaa(text.parse().unwrap())),
            "TXT" => self.memory.insert(name, Record::txt(text)),
            "PTR" => self.memory.insert(name, Record::Ptr(text.parse().unwrap())),
            "CNAME" => self.memory.insert(name, Record::Cname(text.parse().unwrap())),
            _ => {
                let exchange = value[1].as_str().unwrap().parse().unwrap();
                self.memory.insert(name, Record::Mx { preference: 10, exchange });
            }
        }
    }
}

impl Dice {
    fn domain(&self) -> String {
        match self.below(12) {
            0 => format!("void{}.test", self.below(4)),
            1 => "slow.test".to_owned(),
            n => format!("d{}.test", n % 6),
        }
    }

    fn target(&self) -> String {
        match self.below(10) {
            0 => self.pick(&["%{d}", "%{d2}", "%{o}", "%{i}.x.test", "%{ir}.%{v}.test"]).to_owned(),
            1 => {
                self.pick(&["%{l}.u.test", "%{l1r-}.u.test", "%{h}", "%{dr-}.test", "%{p}.p.test"]).to_owned()
            }
            2 | 3 => self.domain(),
            _ => format!("h{}.test", self.below(6)),
        }
    }

    fn term(&self) -> String {
        let sign = self.pick(&["", "", "", "+", "-", "~", "?"]);
        let cidr = self.pick(&["", "", "", "/28", "/0", "//124", "/30//120"]);
        let body = match self.below(20) {
            0..=3 => format!("include:{}", self.domain()),
            4..=5 => format!("a:{}{cidr}", self.target()),
            6 => format!("a{cidr}"),
            7..=8 => format!("mx:{}{cidr}", self.target()),
            9 => format!("mx{cidr}"),
            10 => format!("exists:{}", self.target()),
            11 => self.pick(&["ptr", "ptr:test", "ptr:h1.test"]).to_owned(),
            12..=14 => format!("ip4:192.0.2.{}/{}", self.below(16), 26 + self.below(7)),
            15..=16 => format!("ip6:2001:db8::{:x}/{}", self.below(16), 120 + self.below(9)),
            17 => return self.pick(&["x-y=%{d}", "exp=e.test", "foo=bar", "Accredit=%{l}.x"]).to_owned(),
            18 => self.odd().to_owned(),
            _ => "all".to_owned(),
        };
        format!("{sign}{body}")
    }

    /// Terms at the edges of the grammar, most of them wrong.
    fn odd(&self) -> &'static str {
        if self.below(4) > 0 {
            return "ip4:198.51.100.1";
        }
        [
            "a:",
            "ip4:1.2.3",
            "ip4:192.0.2.1/33",
            "ip6:::1/129",
            "mx/8/8",
            "include",
            "exists:%{x}.test",
            "all:all",
            "foo",
            "a:%%.test",
            "a:test",
            "A:H1.TEST",
            "IP4:192.0.2.3",
            "exists:%{d0}.test",
            "ptr/24",
            "a:h1.test./32",
            "a:1.2.3.4",
            "include:%{d",
            "ip4:192.0.2.01",
            "a://64",
            "exp=",
            "redirect=",
            "-",
            "a:h1.te_st",
            "include:test.",
        ][self.below(25)]
    }

    fn record(&self) -> String {
        let terms: Vec<String> = (0..self.below(6)).map(|_| self.term()).collect();
        let end = match self.below(6) {
            0 => format!(" redirect={}", self.domain()),
            1..=3 => format!(" {}all", self.pick(&["-", "~", "?", "+"])),
            _ => String::new(),
        };
        format!("v=spf1 {}{end}", terms.join(self.pick(&[" ", " ", "  "])))
    }

    fn zone(&self) -> Both {
        let mut zone = Both::default();
        for i in 0..6 {
            let owner = format!("d{i}.test");
            let records = [1, 1, 1, 1, 1, 1, 1, 1, 0, 2][self.below(10)];
            (0..records).for_each(|_| zone.add(&owner, "TXT", json!(self.record())));
            if self.below(3) == 0 {
                zone.add(&owner, "TXT", json!("something else"));
            }
            if self.below(2) == 0 {
                zone.add(&owner, "A", json!(format!("192.0.2.{}", self.below(16))));
            }
            for _ in 0..self.below(3) {
                zone.add(&owner, "MX", json!([10, format!("h{}.test", self.below(6))]));
            }
        }
        for i in 0..5 {
            let owner = format!("h{i}.test");
            (0..=self.below(2))
                .for_each(|_| zone.add(&owner, "A", json!(format!("192.0.2.{}", self.below(16)))));
            if self.below(2) == 0 {
                zone.add(&owner, "AAAA", json!(format!("2001:db8::{:x}", 1 + self.below(15))));
            }
        }
        zone.add("slow.test", "TIMEOUT", json!(""));
        zone.add("joe.u.test", "A", json!("127.0.0.2"));
        zone.add("e.test", "TXT", json!("no %{i} %{p} for %{s}"));
        for i in 0..16 {
            if self.below(2) == 0 {
                let ptr = format!("{i}.2.0.192.in-addr.arpa");
                zone.add(&ptr, "PTR", json!(format!("h{}.test", self.below(6))));
            }
        }
        zone
    }

    fn query(&self) -> [String; 3] {
        let ip = match self.below(4) {
            0 => format!("2001:db8::{:x}", 1 + self.below(15)),
            _ => format!("192.0.2.{}", self.below(16)),
        };
        let sender = match self.below(12) {
            0 => String::new(),
            1 => format!("@d{}.test", self.below(6)),
            _ => format!("{}@d{}.test", self.pick(&["joe", "a-b", "x.y"]), self.below(6)),
        };
        [ip, format!("d{}.test", self.below(6)), sender]
    }
}

/// The rules under which pyspf may differ: each names the sentence of RFC 7208 that decides.
fn explained(ours: &SpfResult, theirs: &str, why: &str) -> Option<&'static str> {
    let holds = |step: &Step, words: &[&str]| matches!(&step.event, Event::Record(r) if words.iter().any(|w| r.contains(w)));
    let any = |words: &[&str]| ours.trace.iter().any(|step| holds(step, words));
    if theirs == "permerror" && why.contains("include has trivial recursion") {
        return Some(
            "4.6.4 bounds loops by the number of terms; an include of oneself is no error of its own",
        );
    }
    if theirs == "permerror"
        && why.contains("MUST appear at most once")
        && !why.contains("exp=")
        && !why.contains("redirect=")
    {
        return Some("6: unrecognized modifiers are ignored no matter where in a record, or how often");
    }
    if theirs == "permerror" && why.contains("Void lookup limit") && any(&["ptr"]) {
        return Some(
            "5.5: a name of the client whose addresses cannot be found is skipped; it is no term of the record",
        );
    }
    if theirs == "permerror" && why.contains("Void lookup limit") && any(&["%{p}", "exp="]) {
        return Some(
            "4.6.2: terms behind a match are not evaluated (pyspf looks %{p} up while it parses); 6.2: trouble \
                     with an explanation changes no verdict",
        );
    }
    let mx_matched =
        |step: &Step| matches!(&step.event, Event::Term { term, matched: true, .. } if term.contains("mx"));
    if theirs == "permerror" && why.contains("Void lookup limit") && ours.trace.iter().any(mx_matched) {
        return Some(
            "5.4: addresses are compared exchange by exchange (pyspf looks up all before it compares)",
        );
    }
    if matches!(&ours.problem, Some(Problem::Syntax { error, .. }) if error.what == TermError::Macro(MacroError::Zero))
    {
        return Some("7.3: a digit of a transformer MUST be nonzero");
    }
    None
}

#[test]
fn pyspf_agrees() {
    let Some(python) = peers::python(&["spf"]) else { skip!("pyspf", "no Python with pyspf") };
    let dice = Dice(SeededEntropy::new(7208));
    let (mut seen, mut reasons, mut wrong) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let mut peer = Peer::start(&python, "pyspf.py");
    let remembered = Memory::new(8);
    for _ in 0..zones(3000) {
        let zone = dice.zone();
        let queries: Vec<[String; 3]> = (0..3).map(|_| dice.query()).collect();
        let said = peer.ask(&zone.memory, &json!(queries));
        let answers = said["answer"].as_array().unwrap();
        assert_eq!(answers.len(), queries.len());
        for ([ip, helo, sender], answer) in queries.iter().zip(answers) {
            let query = SpfQuery::mail_from(ip.parse().unwrap(), helo, sender);
            let ours = now(check(&query.clone().traced(), &zone.memory));
            same_untraced_and_remembered(&query, &zone.memory, &remembered, &ours);
            let theirs = answer[0].as_str().unwrap();
            *seen.entry(ours.verdict.to_string()).or_insert(0) += 1;
            if ours.verdict.to_string() == theirs {
                continue;
            }
            match explained(&ours, theirs, answer[1].as_str().unwrap()) {
                Some(reason) => *reasons.entry(reason).or_insert(0) += 1,
                None => wrong.push(format!(
                    "{ip} {helo} {sender}: ours {} ({:?}), pyspf {answer}\n{}{:#?}",
                    ours.verdict, ours.problem, zone.text, ours.trace
                )),
            }
        }
    }
    eprintln!("verdicts {seen:?}; disagreements that a rule explains: {reasons:?}");
    assert!(
        wrong.is_empty(),
        "{} disagreements, the first:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(2)].join("\n\n")
    );
    // Every verdict must really have come up.
    assert!(seen.len() == 7 && seen.values().all(|count| *count > 20), "{seen:?}");
    let why = "each by a sentence of RFC 7208 (tests/differential.rs)";
    postwright_testkit::cases("pyspf", seen.values().sum(), reasons.values().sum(), why);
}
