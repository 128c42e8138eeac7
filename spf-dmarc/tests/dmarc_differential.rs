//! DMARC beside checkdmarc (RFC 9989), authheaders (RFC 7489) and a naive twin of the tree walk, over generated zones:
//! odd tags, records at every height, `psd`, aliases of nothing, several records, time-outs. Every disagreement is a bug
//! of ours or falls under a rule below that names the sentence that decides.
//!
//! Not here: SPF (differential.rs).

#![cfg(feature = "psl")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;
#[path = "common/peer.rs"]
mod peer;

use std::collections::{BTreeMap, BTreeSet};

use common::now;
use peer::{Dice, Peer, zones};
use postwright_core::{DnsError, Found, MemoryZone, Name, Record, RecordKind, Resolver, SeededEntropy};
use postwright_spf_dmarc::dmarc::{
    Alignment, DmarcQuery, DmarcRecord, DmarcResult, Mode, Psd, Verdict, evaluate,
};
use postwright_testkit::{peers, skip};
use serde_json::{Value, json};

/// The heights at which records are published; public suffixes among them.
const OWNERS: [&str; 14] = [
    "com",
    "co.uk",
    "uk",
    "example.com",
    "other.com",
    "example.co.uk",
    "mail.example.com",
    "a.example.com",
    "b.a.example.com",
    "c.b.a.example.com",
    "news.example.co.uk",
    "f.e.d.c.b.a.example.com",
    "g.f.e.d.c.b.a.example.com",
    "h.g.f.e.d.c.b.a.example.com",
];

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// What is published, for the naive twin and for complaints.
#[derive(Default)]
struct World {
    zone: MemoryZone,
    existing: BTreeSet<String>,
    published: BTreeMap<String, Vec<String>>,
    failing: BTreeSet<String>,
}

impl World {
    /// Puts everything that is known into the zone.
    fn built(mut self) -> World {
        self.zone = MemoryZone::new();
        let at = |owner: &str| name(owner).prepend("_dmarc").unwrap();
        self.existing.iter().for_each(|owner| self.zone.touch(name(owner)));
        self.failing.iter().for_each(|owner| self.zone.fail(at(owner), None, DnsError::Timeout));
        for (owner, texts) in &self.published {
            texts.iter().for_each(|text| self.zone.insert(at(owner), Record::txt(text)));
        }
        self
    }

    /// The same world with other records; `None` where nothing changes.
    fn with(&self, change: impl Fn(&[String]) -> Vec<String>) -> Option<World> {
        let published: BTreeMap<_, _> =
            self.published.iter().map(|(owner, texts)| (owner.clone(), change(texts))).collect();
        let changed = published != self.published;
        // A name with a record below it exists, and goes on to do so without.
        let existing = self.existing.iter().chain(self.published.keys()).cloned().collect();
        let failing = self.failing.clone();
        changed.then(|| World { published, existing, failing, ..World::default() }.built())
    }

    fn exists(&self, domain: &str) -> bool {
        let answer = now(self.zone.lookup(&name(domain), RecordKind::A));
        answer.is_ok_and(|answer| answer.found != Found::NoName)
    }
}

impl Dice {
    fn version(&self) -> &'static str {
        match self.below(30) {
            0 => "v=dmarc1",
            1 => "v=DMARC10",
            2 => " v=DMARC1",
            3 => "v=DMARC1 x",
            4 => "p=reject; v=DMARC1",
            5 => "V = DMARC1",
            6 => "v=spf1 -all",
            _ => "v=DMARC1",
        }
    }

    fn tag(&self) -> String {
        let policy = ["none", "quarantine", "reject", "reject", "Reject"];
        match self.below(24) {
            0..=4 => format!("sp={}", self.pick(&policy)),
            5..=8 => format!("np={}", self.pick(&policy)),
            9 | 10 => format!("psd={}", self.pick(&["y", "n", "u", "y", "n"])),
            11 => format!("t={}", self.pick(&["y", "n", "Y"])),
            12 => format!("adkim={}", self.pick(&["r", "s", "S", "x"])),
            13 => format!("aspf={}", self.pick(&["r", "s", "S", "x"])),
            14 => self.pick(&["pct=50", "pct=0", "ri=3600", "rf=afrf", "x=y", "unknown=1"]).to_owned(),
            15 => self.pick(&["sp=bogus", "np=bogus", "psd=x", "t=maybe", "fo=9"]).to_owned(),
            16 => self.pick(&["junk", "=", "p", "", "sp=", "9=1"]).to_owned(),
            17 => format!("p={}", self.pick(&policy)),
            18 => format!("fo={}", self.pick(&["1", "0", "d", "s", "d:s"])),
            _ => "rua=mailto:d@example.com".to_owned(),
        }
    }

    fn dmarc_record(&self) -> String {
        let mut tags = vec![self.version().to_owned()];
        match self.below(20) {
            0 => {}
            1 => tags.push("p=bogus".to_owned()),
            _ => tags.push(format!("p={}", self.pick(&["none", "quarantine", "reject"]))),
        }
        tags.extend((0..self.below(4)).map(|_| self.tag()));
        let end = self.pick(&["", "", ";", "; "]);
        tags.join(self.pick(&["; ", ";", " ; "])) + end
    }

    fn world(&self) -> World {
        let mut world = World::default();
        for owner in OWNERS {
            if self.below(4) > 0 {
                world.existing.extend([owner.to_owned(), format!("x.{owner}")]);
            }
            let count = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 2][self.below(13)];
            if count > 0 {
                let texts = (0..count).map(|_| self.dmarc_record()).collect();
                world.published.insert(owner.to_owned(), texts);
            }
            if self.below(60) == 0 {
                world.failing.insert(owner.to_owned());
            }
        }
        world.built()
    }

    fn somebody(&self) -> String {
        let owner = OWNERS[3 + self.below(11)];
        match self.below(4) {
            0 => format!("{}.{owner}", self.pick(&["x", "y", "x.y"])),
            _ => owner.to_owned(),
        }
    }

    fn questions(&self) -> [String; 3] {
        let maybe = |some: String| if self.below(3) == 0 { String::new() } else { some };
        [self.somebody(), maybe(self.somebody()), maybe(self.somebody())]
    }
}

fn ask(world: &World, [author, spf, dkim]: &[String; 3], mode: Mode) -> DmarcResult {
    let some = |text: &String| (!text.is_empty()).then(|| name(text));
    let query = DmarcQuery::of(name(author)).mode(mode).spf(some(spf)).dkim(some(dkim));
    now(evaluate(&query, &world.zone))
}

/// RFC 9989 4.10 and 4.10.2 to the letter, by collecting all records first. `None` if a query failed.
fn naive_organization(world: &World, start: &str, asked: &mut BTreeSet<String>) -> Option<String> {
    let labels: Vec<&str> = start.split('.').collect();
    let mut targets = vec![start.to_owned()];
    let rest = if labels.len() < 8 { labels.len() - 1 } else { 7 };
    targets.extend((1..=rest).rev().map(|count| labels[labels.len() - count..].join(".")));
    let mut found = Vec::new();
    for target in targets {
        asked.insert(target.clone());
        if world.failing.contains(&target) {
            return None;
        }
        let none = Vec::new();
        let texts = world.published.get(&target).unwrap_or(&none).iter();
        let mut records = texts.filter_map(|text| DmarcRecord::parse(text.as_bytes()));
        if let (Some(record), None) = (records.next(), records.next()) {
            let stop = record.psd != Psd::Unknown;
            found.push((target, record.psd));
            if stop {
                break;
            }
        }
    }
    for (target, psd) in &found {
        if *psd == Psd::No {
            return Some(target.clone());
        }
        if *psd == Psd::Yes && target != start {
            let below = target.split('.').count() + 1;
            return Some(labels[labels.len() - below..].join("."));
        }
    }
    Some(found.pop().map_or_else(|| start.to_owned(), |(target, _)| target))
}

/// The verdict as the sentences of RFC 9989 have it, without any economy.
fn naive_alignment(world: &World, author: &str, other: &str, mode: Alignment) -> Option<bool> {
    if author == other || mode == Alignment::Strict {
        return Some(author == other);
    }
    let mut asked = BTreeSet::new();
    let mut organization = |domain| naive_organization(world, domain, &mut asked);
    Some(organization(author)? == organization(other)?)
}

#[test]
fn the_naive_twin_agrees_and_would_ask_no_less() {
    let dice = Dice(SeededEntropy::new(9989));
    let (mut aligned, mut decided, mut wrong) = (0, 0, Vec::new());
    for _ in 0..zones(3000) {
        let world = dice.world();
        for _ in 0..3 {
            let question = dice.questions();
            let before = world.zone.lookups();
            let ours = ask(&world, &question, Mode::Rfc9989);
            let spent = world.zone.lookups() - before;
            let [author, spf, dkim] = &question;
            let mut asked = BTreeSet::new();
            for domain in [author, spf, dkim].into_iter().filter(|domain| !domain.is_empty()) {
                // A failure ends the walk of the one whose name fails, not the naive one's.
                let _ = naive_organization(&world, domain, &mut asked);
            }
            // All names of all walks, and one question whether the author domain exists.
            if spent > asked.len() + 1 {
                wrong.push(format!("{question:?}: {spent} look-ups, not at most {}", asked.len() + 1));
            }
            let (Some(record), Verdict::Pass | Verdict::Fail) = (&ours.record, ours.verdict) else {
                continue;
            };
            decided += 1;
            let checks = [(spf, record.aspf, ours.spf_aligned), (dkim, record.adkim, ours.dkim_aligned)];
            for (other, mode, found) in checks {
                let expected =
                    if other.is_empty() { Some(false) } else { naive_alignment(&world, author, other, mode) };
                aligned += usize::from(found);
                if expected.is_some_and(|expected| expected != found) {
                    wrong.push(format!("{question:?}: {other} aligned {found}\n{:#?}", world.published));
                }
            }
        }
    }
    eprintln!("{decided} verdicts, {aligned} alignments");
    assert!(wrong.is_empty(), "{}, the first: {}", wrong.len(), wrong[0]);
    assert!(decided > 3000 && aligned > 1000, "{decided} {aligned}");
}

/// The tags of a record as written, names in lower case.
fn tags(text: &str) -> Vec<(String, String)> {
    let split = text.split(';').skip(1).map(str::trim).filter(|tag| !tag.is_empty());
    split
        .map(|tag| match tag.split_once('=') {
            Some((name, value)) => (name.trim().to_ascii_lowercase(), value.trim().to_ascii_lowercase()),
            None => (tag.to_ascii_lowercase(), String::new()),
        })
        .collect()
}

fn is_record(text: &str) -> bool {
    let (name, value) = text.split(';').next().unwrap().split_once('=').unwrap_or_default();
    !text.starts_with(' ') && name.trim().eq_ignore_ascii_case("v") && value.trim() == "DMARC1"
}

fn written(tags: impl IntoIterator<Item = (String, String)>) -> String {
    tags.into_iter().fold("v=DMARC1".to_owned(), |text, (name, value)| format!("{text}; {name}={value}"))
}

const POLICIES: [&str; 3] = ["none", "quarantine", "reject"];

fn discard_other_versions(texts: &[String]) -> Vec<String> {
    let records = texts.iter().filter(|text| is_record(text));
    records
        .map(|text| if text.starts_with("v=DMARC1") { text.clone() } else { written(tags(text)) })
        .collect()
}

fn discard_several(texts: &[String]) -> Vec<String> {
    if texts.iter().filter(|text| is_record(text)).count() > 1 { Vec::new() } else { texts.to_vec() }
}

fn discard_wrong_tags(texts: &[String]) -> Vec<String> {
    let known = |tag: &(String, String)| match tag.0.as_str() {
        "p" | "sp" | "np" | "rua" => true,
        "adkim" | "aspf" => ["r", "s"].contains(&&*tag.1),
        "psd" => ["y", "n", "u"].contains(&&*tag.1),
        "t" => ["y", "n"].contains(&&*tag.1),
        "fo" => ["0", "1", "d", "s", "d:s"].contains(&&*tag.1),
        _ => false,
    };
    let clean = |text: &String| {
        let mut seen = BTreeSet::new();
        // The first of several counts, even if it is the wrong one.
        let first = tags(text).into_iter().filter(|tag| seen.insert(tag.0.clone()));
        if is_record(text) { written(first.filter(known)) } else { text.clone() }
    };
    texts.iter().map(clean).collect()
}

/// A wrong policy makes `p=none` of a record that asks for reports. (One that does not is void; see below.)
fn none_for_wrong_policies(texts: &[String]) -> Vec<String> {
    let clean = |text: &String| {
        let all = tags(text);
        let of = |name: &str| all.iter().find(|tag| tag.0 == name).map(|tag| tag.1.clone());
        let wrong = |name| of(name).is_some_and(|value| !POLICIES.contains(&&*value));
        if !is_record(text) || !["p", "sp", "np"].into_iter().any(wrong) {
            return text.clone();
        }
        let rest = all.into_iter().filter(|tag| !["p", "sp", "np"].contains(&&*tag.0));
        written([("p".to_owned(), "none".to_owned())].into_iter().chain(rest))
    };
    texts.iter().map(clean).collect()
}

/// RFC 7489 wants a `p`: a record without one is like one with a wrong one.
fn none_for_wrong_or_missing_policies(texts: &[String]) -> Vec<String> {
    let missing = |text: &String| is_record(text) && !tags(text).iter().any(|tag| tag.0 == "p");
    let wrong = |text: &String| if missing(text) { format!("{text};p=missing") } else { text.clone() };
    none_for_wrong_policies(&texts.iter().map(wrong).collect::<Vec<_>>())
}

fn without_np(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| written(tags(text).into_iter().filter(|tag| tag.0 != "np"))).collect()
}

/// What a standard says about a record, and the same world after doing as it says.
type Sentence = (&'static str, fn(&[String]) -> Vec<String>);

const RFC_9989: [Sentence; 4] = [
    (
        "4.10: records that do not start with the v tag are discarded, and the walk goes on",
        discard_other_versions,
    ),
    ("4.10: several records at one name are all discarded, and the walk goes on", discard_several),
    ("4.7: unknown tags are ignored, syntax errors discarded in favor of default values", discard_wrong_tags),
    ("4.10.1: a wrong policy is p=none with a rua, and no DMARC without", none_for_wrong_policies),
];

const RFC_7489: [Sentence; 5] = [
    ("6.6.3: records that do not start with a v= tag of this version are discarded", discard_other_versions),
    ("6.6.3: with several records, DMARC is not applied", discard_several),
    ("6.3: unknown tags are ignored, syntax errors discarded in favor of default values", discard_wrong_tags),
    ("6.3 knows no np", without_np),
    (
        "6.6.3: a wrong or missing policy is p=none with a rua, and no DMARC without",
        none_for_wrong_or_missing_policies,
    ),
];

/// Why two parties differ: the first sentence that makes them agree when the zone is changed as it says, while *our*
/// answer stays what it was; or all of them together.
fn why(
    world: &World,
    sentences: &[Sentence],
    mut same: impl FnMut(&World) -> Option<bool>,
) -> Option<&'static str> {
    for (sentence, change) in sentences {
        if world.with(change).is_some_and(|changed| same(&changed) == Some(true)) {
            return Some(sentence);
        }
    }
    let all =
        world.with(|texts| sentences.iter().fold(texts.to_vec(), |texts, (_, change)| change(&texts)))?;
    (same(&all) == Some(true)).then_some("several of these at once")
}

/// Where the record is, the policy, the alignment modes and the test mode.
fn show_ours(result: &DmarcResult) -> String {
    match (&result.record, &result.record_domain, result.policy) {
        (Some(record), Some(domain), Some(policy)) => {
            let (adkim, aspf) = (record.adkim.as_str(), record.aspf.as_str());
            format!("{domain} {policy} {adkim} {aspf} {}", if record.testing { "y" } else { "n" })
        }
        (Some(_), ..) => "void".to_owned(),
        _ => result.verdict.to_string(),
    }
}

fn show_checkdmarc(world: &World, author: &str, said: &Value) -> String {
    let Some(location) = said["location"].as_str() else {
        let (error, why) = (said["error"].as_str().unwrap(), said["why"].as_str().unwrap());
        return match error {
            "DMARCRecordNotFound" if why == "The domain does not exist." => "no domain".to_owned(),
            "DMARCRecordNotFound" => "none".to_owned(),
            "DMARCError" if why.contains("expired") => "temperror".to_owned(),
            _ => format!("{error}: {why}"),
        };
    };
    let tag = |name: &str| said["tags"][name].as_str().unwrap();
    let below = if world.exists(author) { "sp" } else { "np" };
    let policy = tag(if author == location { "p" } else { below });
    format!("{location} {policy} {} {} {}", tag("adkim"), tag("aspf"), tag("t"))
}

fn void(result: &DmarcResult) -> bool {
    result.record.is_some() && result.policy.is_none()
}

#[test]
fn checkdmarc_agrees() {
    let Some(python) = peers::python(&["checkdmarc", "authheaders"]) else {
        skip!("checkdmarc", "no Python with checkdmarc and authheaders")
    };
    let (dice, mut peer) = (Dice(SeededEntropy::new(9990)), Peer::start(&python, "dmarc.py"));
    let (mut reasons, mut wrong) = (BTreeMap::new(), Vec::new());
    for _ in 0..zones(3000) {
        let world = dice.world();
        let question = [dice.somebody(), String::new(), String::new()];
        let ours = ask(&world, &question, Mode::Rfc9989);
        let mut theirs = |world: &World| {
            let said = peer.ask(&world.zone, &json!(["checkdmarc", question]));
            show_checkdmarc(world, &question[0], &said["answer"])
        };
        let (one, mut other) = (show_ours(&ours), theirs(&world));
        let mut asked = None;
        if other == "no domain" {
            // It refuses to look for a policy of names that do not exist. So they are made to, for both.
            let existing = world.existing.iter().chain([&question[0]]).cloned().collect();
            let (published, failing) = (world.published.clone(), world.failing.clone());
            asked = Some(World { existing, published, failing, ..World::default() }.built());
        }
        let asked = asked.as_ref().unwrap_or(&world);
        let ours_there = ask(asked, &question, Mode::Rfc9989);
        let moved = ours_there.record_domain != ours.record_domain;
        let one = if other == "no domain" { show_ours(&ours_there) } else { one };
        let absent = other == "no domain";
        if absent {
            other = theirs(asked);
        }
        let mut same = |changed: &World| {
            let again = ask(changed, &question, Mode::Rfc9989);
            Some(theirs(changed) == show_ours(&again) && (show_ours(&again) == one || void(&ours_there)))
        };
        let reason = match one == other && !moved {
            true if absent => Some("4.10.1: np is the policy for author domains that do not exist"),
            true => Some("the same"),
            false => why(asked, &RFC_9989, &mut same),
        };
        match reason {
            Some(reason) => *reasons.entry(reason).or_insert(0) += 1,
            None => wrong.push(format!("{question:?}: {one}, checkdmarc {other}\n{:#?}", world.published)),
        }
    }
    eprintln!("{reasons:#?}");
    assert!(wrong.is_empty(), "{}, the first: {}", wrong.len(), wrong[0]);
    assert!(reasons["the same"] > 500, "{reasons:?}");
    let all: usize = reasons.values().sum();
    let why = "each by a sentence of RFC 9989 (tests/dmarc_differential.rs)";
    postwright_testkit::cases("checkdmarc", all, all - reasons["the same"], why);
}

fn show_authheaders(said: &Value) -> String {
    match said["error"].as_str() {
        Some("LifetimeTimeout") => "temperror".to_owned(),
        Some(error) => format!("{error}: {}", said["why"]),
        None if said["result"] == "none" => "none".to_owned(),
        None => format!("{} {}", said["result"].as_str().unwrap(), said["policy"].as_str().unwrap()),
    }
}

#[test]
fn authheaders_agrees() {
    let Some(python) = peers::python(&["checkdmarc", "authheaders"]) else {
        skip!("authheaders", "no Python with checkdmarc and authheaders")
    };
    let (dice, mut peer) = (Dice(SeededEntropy::new(7489)), Peer::start(&python, "dmarc.py"));
    let show = |result: &DmarcResult| match result.policy {
        Some(policy) => format!("{} {policy}", result.verdict),
        None => result.verdict.to_string(),
    };
    let (mut reasons, mut wrong) = (BTreeMap::new(), Vec::new());
    for _ in 0..zones(3000) {
        let (world, question) = (dice.world(), dice.questions());
        let ours = ask(&world, &question, Mode::Rfc7489);
        let mut theirs = |world: &World| {
            show_authheaders(&peer.ask(&world.zone, &json!(["authheaders", question]))["answer"])
        };
        // It takes sp for the policy domain itself, too; then only the verdicts are compared.
        let own = ours.record_domain.as_ref().is_some_and(|domain| *domain == question[0].parse().unwrap());
        let cut = |text: String| if own { text.split(' ').next().unwrap().to_owned() } else { text };
        let (one, other) = (show(&ours), theirs(&world));
        let mut same = |changed: &World| {
            let again = cut(show(&ask(changed, &question, Mode::Rfc7489)));
            Some(cut(theirs(changed)) == again && (again == cut(one.clone()) || void(&ours)))
        };
        let reason = match one == other {
            true => Some("the same"),
            false if cut(one.clone()) == cut(other.clone()) => {
                Some("6.3: sp is for subdomains, and not for the domain itself")
            }
            false => why(&world, &RFC_7489, &mut same),
        };
        match reason {
            Some(reason) => *reasons.entry(reason).or_insert(0) += 1,
            None => wrong.push(format!("{question:?}: {one}, authheaders {other}\n{:#?}", world.published)),
        }
    }
    eprintln!("{reasons:#?}");
    assert!(wrong.is_empty(), "{}, the first: {}", wrong.len(), wrong[0]);
    assert!(reasons["the same"] > 500, "{reasons:?}");
    let all: usize = reasons.values().sum();
    let why = "each by a sentence of RFC 7489 (tests/dmarc_differential.rs)";
    postwright_testkit::cases("authheaders-dmarc", all, all - reasons["the same"], why);
}
