//! What every public list keeps to, whichever crate it is: the rules of docs/vocabulary.md that a program can check.
//!
//! Invariant: a rule has no exception that is not written here with its reason, and an exception that nothing needs any more
//! is itself a fault.
//!
//! Not here: whether a name says the right thing. A reader decides that.

use std::collections::BTreeSet;

use crate::list::path;

/// Enums that a caller must match whole, or whose values a standard has fixed for good: one more would be a break on purpose.
/// Everything else is `#[non_exhaustive]`.
const CLOSED: &[(&str, &[&str])] = &[
    ("bounce", &["classify::Permanence", "dsn::Action", "rates::Happening", "rates::Level", "verp::Signed"]),
    (
        "core",
        &[
            "address::Host",
            "address::ReversePath",
            "dns::DnsError",
            "dns::Found",
            "envelope::Body",
            "envelope::Notify",
            "envelope::Ret",
            "status::Diagnostic",
            "status::Outcome",
        ],
    ),
    ("dkim", &["arc::ChainValidation", "Algorithm", "Canon", "DnsStep", "KeyState", "Verdict"]),
    // The one source of logs and metrics: who counts must see what is new.
    ("mta", &["Event"]),
    (
        "queue",
        &[
            "archive::Record",
            "entry::Fate",
            "scheduler::AttemptResult",
            "scheduler::Effect",
            "scheduler::Next",
            "scheduler::OrderKind",
            "scheduler::ReportEvent",
            "scheduler::Taken",
            "scheduler::Task",
            // Whoever writes a spool must do each of these.
            "spool::Change",
            "spool::Item",
            "spool::Scan",
            "spool::SyncLevel",
            "Fault",
        ],
    ),
    // `Bound`, `Dimension` and `Kind` are what a store counts by; `Change` has its own members for each value.
    ("shaping", &["Admission", "Bound", "Change", "Dimension", "Kind"]),
    (
        "smtp-client",
        &[
            "dane::Lookup",
            "dane::Matching",
            "dane::Selector",
            "dane::Usage",
            "policy::Level",
            "route::Family",
            "route::Route",
            "sts::Found",
            "sts::Mode",
            "tlsrpt::PolicyType",
        ],
    ),
    (
        "smtp-proto",
        &[
            "client::Protocol",
            "client::StartTls",
            // A driver that ignores a step is wrong.
            "client::Step",
            "command::ForwardPath",
            "command::Hold",
            "data::Piece",
            "line::Line",
            "proxy::Header",
            "proxy::Progress",
            "sasl::server::Answer",
            "sasl::server::Progress",
            "sasl::server::Request",
            "sasl::ChannelBinding",
            "sasl::Hash",
            "server::Answer",
            "server::Protocol",
            "server::Step",
        ],
    ),
    ("smtp-server", &["tls::Tickets", "BodyPiece"]),
    (
        "spf-dmarc",
        &[
            "dmarc::Alignment",
            "dmarc::Policy",
            "dmarc::PolicyOf",
            "dmarc::PolicyTag",
            "dmarc::Psd",
            "dmarc::Verdict",
            "iprev::Verdict",
            "report::Disposition",
            // Each step of a trace has its own members.
            "spf::Event",
            "spf::Identity",
            "spf::Mechanism",
            "spf::Qualifier",
            "spf::TermKind",
            "spf::Verdict",
        ],
    ),
];

/// Structs of settings and limits end in these words, and may grow.
const GROWING: &[&str] =
    &["Limits", "Settings", "Options", "Config", "Policy", "Rules", "Thresholds", "Levels", "Timeouts"];

/// Structs that end so and are something else: a standard has fixed their members.
const FIXED: &[(&str, &[&str])] = &[
    // RFC 8461 3.2.
    ("smtp-client", &["sts::Policy"]),
    // RFC 9989 4.7 (`fo`), RFC 9990 3.1.
    ("spf-dmarc", &["dmarc::FailureOptions", "report::PublishedPolicy"]),
];

/// Other people's crates in signatures: the seams where they are what the caller has in hand.
const SEAMS: &[(&str, &[&str])] = &[
    // The octets of a message.
    ("core", &["bytes"]),
    // What it connects with is the caller's.
    ("queue", &["bytes", "tokio_postgres"]),
    // Certificates and roots; streams of the caller's own.
    ("smtp-client", &["rustls", "rustls_pki_types", "tokio"]),
    // Certificates, who vouches for clients; listeners and streams.
    ("smtp-server", &["rustls", "rustls_pki_types", "tokio"]),
];

/// Enums whose `as_str` is the word and whose `Display` is a sentence, because they are errors too.
const SENTENCES: &[(&str, &[&str])] = &[("dkim", &["Reason", "arc::ArcReason"])];

/// What a table says of a list.
fn row(table: &[(&str, &'static [&'static str])], list: &str) -> &'static [&'static str] {
    table.iter().find(|(of, _)| *of == list).map_or(&[], |(_, names)| names)
}

/// Every fault of one list; `raw` names other people's crates in it.
pub(crate) fn faults(list: &str, text: &str, foreign: &BTreeSet<String>) -> Vec<String> {
    if list == "testkit" {
        // It is published to nobody.
        return Vec::new();
    }
    let mut faults = Vec::new();
    for line in text.lines() {
        faults.extend(order(line).map(|what| format!("{list}: {what}: {line}")));
        if line.contains("fn ")
            && let Some(name) = path(line).strip_suffix("::as_str")
            && is_enum(name, text)
            && !row(SENTENCES, list).contains(&name)
            && !text
                .lines()
                .any(|line| line.starts_with("impl Display") && line.ends_with(&format!(" for {name}")))
        {
            faults.push(format!("{list}: `{name}` is a word by as_str and has no Display"));
        }
        if let Some(name) = line.strip_prefix("pub enum ").map(bare)
            && !row(CLOSED, list).contains(&name)
        {
            faults.push(format!(
                "{list}: `{name}` is neither #[non_exhaustive] nor on the list of closed enums in house.rs"
            ));
        }
        if let Some(name) = line.strip_prefix("pub struct ").map(bare)
            && GROWING.iter().any(|word| name.ends_with(word))
            && has_fields(name, text)
            && !row(FIXED, list).contains(&name)
        {
            faults.push(format!(
                "{list}: `{name}` is not #[non_exhaustive]: the next setting would break its users"
            ));
        }
    }
    for name in foreign.iter().filter(|name| !row(SEAMS, list).contains(&name.as_str())) {
        faults.push(format!("{list}: signatures name the crate {name}, which is no seam of it"));
    }
    faults.extend(unneeded(list, text, foreign));
    faults
}

/// Exceptions that nothing needs.
fn unneeded(list: &str, text: &str, foreign: &BTreeSet<String>) -> Vec<String> {
    let names = |prefix: &str| -> BTreeSet<&str> {
        text.lines().filter_map(|line| line.strip_prefix(prefix)).map(bare).collect()
    };
    let (enums, structs) = (names("pub enum "), names("pub struct "));
    let mut gone: Vec<&str> =
        row(CLOSED, list).iter().filter(|name| !enums.contains(**name)).copied().collect();
    gone.extend(row(FIXED, list).iter().filter(|name| !structs.contains(**name)));
    gone.extend(row(SEAMS, list).iter().filter(|name| !foreign.contains(**name)));
    gone.into_iter()
        .map(|name| format!("{list}: house.rs makes an exception for `{name}`, which is not there"))
        .collect()
}

/// A type's path without its parameters.
fn bare(name: &str) -> &str {
    let end = name.find(|c: char| !(c.is_alphanumeric() || "_:".contains(c))).unwrap_or(name.len());
    &name[..end]
}

fn is_enum(name: &str, text: &str) -> bool {
    text.lines().any(|line| {
        line.trim_start_matches("#[non_exhaustive] ").strip_prefix("pub enum ").map(bare) == Some(name)
    })
}

fn has_fields(name: &str, text: &str) -> bool {
    text.lines().any(|line| {
        line.strip_prefix("pub ")
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with("::"))
    })
}

/// The order of arguments: what it is about; then the seams (resolver, stores); then settings; then `now`; `entropy` last of all.
fn order(line: &str) -> Option<&'static str> {
    if !line.contains(" fn ") {
        return None;
    }
    let names: Vec<&str> = parameters(line);
    let rest = |name: &str| names.iter().position(|have| *have == name).map(|at| &names[at + 1..]);
    if rest("now").is_some_and(|after| !after.is_empty() && after != ["entropy"]) {
        return Some("`now` comes last, or before `entropy`");
    }
    let subjects = names.iter().filter(|name| !["limits", "now", "clock", "entropy"].contains(name)).count();
    if names.first() == Some(&"resolver") && subjects > 1 {
        return Some("`resolver` comes after what is looked up");
    }
    None
}

/// The names of a function's parameters but `self`.
fn parameters(line: &str) -> Vec<&str> {
    let at = line.find(path(line)).unwrap_or(0) + path(line).len();
    let mut names = Vec::new();
    let (mut depth, mut start) = (0_i32, None);
    let bytes = line.as_bytes();
    for (index, byte) in bytes.iter().enumerate().skip(at) {
        match byte {
            b'-' => {}
            // `->` inside `impl Fn() -> T` closes nothing.
            b'>' if bytes.get(index.wrapping_sub(1)) == Some(&b'-') => {}
            b'(' | b'<' | b'[' | b'{' => {
                depth += 1;
                if *byte == b'(' && depth == 1 {
                    start = Some(index + 1);
                }
            }
            b')' | b'>' | b']' | b'}' => {
                depth -= 1;
                if *byte == b')' && depth == 0 {
                    names.extend(start.and_then(|start| line.get(start..index)).and_then(name));
                    return names;
                }
            }
            b',' if depth == 1 && start.is_some() => {
                names.extend(start.and_then(|start| line.get(start..index)).and_then(name));
                start = Some(index + 1);
            }
            _ => {}
        }
    }
    names
}

fn name(parameter: &str) -> Option<&str> {
    let (name, _) = parameter.split_once(": ")?;
    let name = name.trim().trim_start_matches("mut ");
    (name != "self").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> BTreeSet<String> {
        BTreeSet::new()
    }

    #[test]
    fn arguments_have_one_order() {
        for (line, fine) in [
            ("pub fn a(&self, x: &X, now: Timestamp) -> Y", true),
            ("pub fn a(x: &X, now: Timestamp, entropy: &dyn Entropy)", true),
            ("pub fn a(now: Timestamp, want: Want)", false),
            ("pub async fn a(resolver: &dyn Resolver, query: &Query<'_, T>)", false),
            ("pub async fn a(query: &Query, resolver: &dyn Resolver, limits: &Limits, now: Timestamp)", true),
            (
                "pub fn A<K, F>::a<F: Fn(K) -> bool>(&self, f: impl Fn(u8, now) -> (u8, u8), now: Timestamp)",
                true,
            ),
        ] {
            assert_eq!(order(line).is_none(), fine, "{line}: {:?}", parameters(line));
        }
    }

    #[test]
    fn enums_and_settings_may_grow() {
        assert_eq!(faults("x", "pub enum Kind\n", &none()).len(), 1);
        assert!(faults("x", "#[non_exhaustive] pub enum Kind\n", &none()).is_empty());
        assert_eq!(faults("x", "pub struct a::Limits\npub a::Limits::size: u64\n", &none()).len(), 1);
        assert!(
            faults("x", "pub struct a::Limits\n", &none()).is_empty(),
            "without public fields it can grow"
        );
    }

    #[test]
    fn words_are_printed() {
        let list = "#[non_exhaustive] pub enum Kind\npub fn Kind::as_str(self) -> &'static str\n";
        assert_eq!(faults("x", list, &none()).len(), 1);
        assert!(faults("x", &format!("{list}impl Display for Kind\n"), &none()).is_empty());
        assert!(faults("x", "pub struct Name\npub fn Name::as_str(&self) -> &str\n", &none()).is_empty());
    }

    #[test]
    fn other_peoples_crates_are_at_the_seams_only() {
        let foreign = BTreeSet::from(["serde_json".to_owned()]);
        assert_eq!(faults("x", "", &foreign).len(), 1);
    }
}
