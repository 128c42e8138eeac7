//! Addresses that get no more mail: the seam [`Suppressions`] and a list in memory.
//!
//! Invariant: an entry counts for its tenant and stream only; a stream's bounce never stops another stream's mail. An entry past
//! its expiry does not count. Addresses compare without case: a mailbox that bounced as `Ann@` is not tried as `ann@`.
//!
//! Standards: none. Not here: storage on disk (mta), deciding what is hard (`classify`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use postwright_core::{Mailbox, Timestamp};

use crate::classify::{Category, Classification};

/// For whom an entry counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// The customer.
    pub tenant: Box<str>,
    /// Their stream, such as `marketing`; `None` is all of them.
    pub stream: Option<Box<str>>,
}

/// Why an address is on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The address is dead.
    HardBounce,
    /// Too many soft bounces.
    SoftBounces,
    /// The recipient complained.
    Complaint,
    /// The recipient unsubscribed.
    Unsubscribed,
    /// An operator put it there.
    Manual,
}

const REASONS: [(Reason, &str); 5] = [
    (Reason::HardBounce, "hard-bounce"),
    (Reason::SoftBounces, "soft-bounces"),
    (Reason::Complaint, "complaint"),
    (Reason::Unsubscribed, "unsubscribed"),
    (Reason::Manual, "manual"),
];

impl Reason {
    /// The name used in CSV.
    pub fn as_str(self) -> &'static str {
        REASONS.iter().find(|(reason, _)| *reason == self).map_or("manual", |(_, name)| name)
    }

    /// The reason of that name.
    pub fn from_name(name: &str) -> Option<Reason> {
        REASONS.iter().find(|(_, known)| *known == name).map(|(reason, _)| *reason)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The address, in lower case.
    pub address: Box<str>,
    /// For whom.
    pub scope: Scope,
    /// Why.
    pub reason: Reason,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None` for good.
    pub until: Option<Timestamp>,
    /// What was said, for the operator.
    pub note: Box<str>,
}

impl Entry {
    fn counts_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Entries that [`Suppressions::expire`] looks at together.
const EXPIRY_PAGE: usize = 1000;

/// A list of addresses that get no more mail. Stores on disk implement it, too.
pub trait Suppressions: Send + Sync {
    /// The entry that stops mail of this tenant and stream to the address, if there is one.
    fn check(&self, tenant: &str, stream: Option<&str>, address: &Mailbox, now: Timestamp) -> Option<Entry>;
    /// Puts an entry on the list in place of one for the same address and scope.
    fn add(&self, entry: Entry);
    /// Takes an entry off the list; whether there was one.
    fn remove(&self, scope: &Scope, address: &str) -> bool;
    /// A page of entries in the order of addresses, behind `after`.
    fn list(&self, after: Option<(&str, &Scope)>, most: usize) -> Vec<Entry>;
    /// Takes off the list what ended by `now`; how many entries. They stop nothing any more; this makes room. An entry that is made
    /// anew at this very moment may go, too: the next bounce makes it again.
    fn expire(&self, now: Timestamp) -> usize {
        let (mut gone, mut after) = (0, None::<(Box<str>, Scope)>);
        loop {
            let page = self.list(after.as_ref().map(|(address, scope)| (&**address, scope)), EXPIRY_PAGE);
            let Some(last) = page.last() else { return gone };
            after = Some((last.address.clone(), last.scope.clone()));
            let ended = page.iter().filter(|entry| !entry.counts_at(now));
            gone += ended.filter(|entry| self.remove(&entry.scope, &entry.address)).count();
        }
    }
    /// Makes durable what was changed; at once for a list that keeps nothing.
    ///
    /// # Errors
    /// A change since the last call may not survive a power cut; what the storage says.
    fn sync(&self) -> Result<(), Box<str>> {
        Ok(())
    }
}

/// The address as a key: lower case. RFC 5321 2.4 lets hosts tell cases apart; hosts that do are not known to exist, and a list that
/// can be got round by a capital is none.
pub fn key(address: &str) -> Box<str> {
    address.to_lowercase().into()
}

/// A list in memory, with a filter in front: a miss costs one hash and one look whatever the list's length.
#[derive(Default)]
pub struct MemorySuppressions {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<(Box<str>, Scope), Entry>,
    filter: Filter,
}

/// Bits of hashed addresses, in front of a list: one hash and one look tell most addresses that are not on it, whatever the
/// list's length. Never a false "no"; nothing is ever taken out, so a list that shrank is rebuilt.
#[derive(Debug, Default)]
pub struct Filter {
    bits: Vec<u64>,
    added: usize,
}

impl Filter {
    /// Room for `addresses`; one in 32 that is not on the list passes when so many are.
    pub fn for_addresses(addresses: usize) -> Filter {
        Filter { bits: vec![0; (addresses / 2 + 16).next_power_of_two()], added: 0 }
    }

    /// Whether more were added than there is room for: build another, twice as large.
    pub fn is_full(&self) -> bool {
        self.added >= self.bits.len() * 2
    }

    fn place(&self, address: &str) -> Option<(usize, u64)> {
        let hash = address.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
            (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
        });
        let hash = hash ^ (hash >> 29);
        let word = usize::try_from((hash >> 6) % u64::try_from(self.bits.len()).ok().filter(|len| *len > 0)?)
            .ok()?;
        Some((word, 1 << (hash & 63)))
    }

    /// Whether the address (as [`key`] gives it) may have been added; `false` is certain.
    pub fn may_hold(&self, address: &str) -> bool {
        self.place(address).and_then(|(word, bit)| Some(self.bits.get(word)? & bit != 0)).unwrap_or(false)
    }

    /// Adds an address, as [`key`] gives it.
    pub fn set(&mut self, address: &str) {
        if let Some((word, bit)) = self.place(address)
            && let Some(bits) = self.bits.get_mut(word)
        {
            *bits |= bit;
            self.added += 1;
        }
    }
}

impl Inner {
    fn rebuild(&mut self) {
        self.filter = Filter::for_addresses(self.entries.len() * 2);
        for (address, _) in self.entries.keys() {
            self.filter.set(address);
        }
    }
}

impl MemorySuppressions {
    /// An empty list.
    pub fn new() -> MemorySuppressions {
        MemorySuppressions::default()
    }

    /// Entries on the list, those past their expiry included.
    pub fn len(&self) -> usize {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).entries.len()
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for MemorySuppressions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemorySuppressions({} entries)", self.len())
    }
}

impl Suppressions for MemorySuppressions {
    fn check(&self, tenant: &str, stream: Option<&str>, address: &Mailbox, now: Timestamp) -> Option<Entry> {
        let address = key(&address.to_string());
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        if !inner.filter.may_hold(&address) {
            return None;
        }
        let all = Scope { tenant: tenant.into(), stream: None };
        let one = stream.map(|stream| Scope { tenant: tenant.into(), stream: Some(stream.into()) });
        [Some(all), one].into_iter().flatten().find_map(|scope| {
            inner.entries.get(&(address.clone(), scope)).filter(|entry| entry.counts_at(now)).cloned()
        })
    }

    fn add(&self, mut entry: Entry) {
        entry.address = key(&entry.address);
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let address = entry.address.clone();
        inner.entries.insert((address.clone(), entry.scope.clone()), entry);
        if inner.filter.is_full() {
            inner.rebuild();
        } else {
            inner.filter.set(&address);
        }
    }

    fn remove(&self, scope: &Scope, address: &str) -> bool {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        // The filter keeps the bit: a false "perhaps" costs one more look.
        inner.entries.remove(&(key(address), scope.clone())).is_some()
    }

    fn list(&self, after: Option<(&str, &Scope)>, most: usize) -> Vec<Entry> {
        use std::ops::Bound::{Excluded, Unbounded};
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let from = after.map_or(Unbounded, |(address, scope)| Excluded((key(address), scope.clone())));
        inner.entries.range((from, Unbounded)).take(most).map(|(_, entry)| entry.clone()).collect()
    }
}

/// When bounces put an address on the list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Thresholds {
    /// Soft bounces within [`Thresholds::window`] that make an entry.
    pub soft: usize,
    /// The window.
    pub window: Duration,
    /// How long an entry for soft bounces lasts.
    pub soft_for: Duration,
}

/// Five soft bounces in 14 days, for 30 days.
impl Default for Thresholds {
    fn default() -> Thresholds {
        let day = Duration::from_secs(86_400);
        Thresholds { soft: 5, window: day * 14, soft_for: day * 30 }
    }
}

/// What a verdict makes of an address, given the times of its earlier soft bounces (updated here, bounded by the threshold).
///
/// Hard bounces and complaints make an entry at once. Soft bounces are those of the mailbox itself (full, disabled); a policy block, a
/// rate limit or a too-large message says nothing about the address and never counts.
pub fn consider(
    verdict: &Classification,
    soft: &mut Vec<Timestamp>,
    thresholds: &Thresholds,
    now: Timestamp,
) -> Option<(Reason, Option<Timestamp>)> {
    if verdict.category == Category::Complaint {
        return Some((Reason::Complaint, None));
    }
    if verdict.hard {
        return Some((Reason::HardBounce, None));
    }
    if !matches!(verdict.category, Category::MailboxFull | Category::MailboxDisabled) {
        return None;
    }
    soft.retain(|at| now.since(*at) < thresholds.window);
    soft.push(now);
    if soft.len() < thresholds.soft.max(1) {
        return None;
    }
    soft.clear();
    Some((Reason::SoftBounces, Some(now + thresholds.soft_for)))
}

/// The first line of the CSV form.
pub const CSV_HEADER: &str = "address,tenant,stream,reason,since,until,note";

/// An entry as a line of CSV (RFC 4180), without its line end. Times are unix seconds; no stream and no end are empty fields.
pub fn to_csv(entry: &Entry) -> String {
    let until = entry.until.map(|until| until.secs().to_string()).unwrap_or_default();
    let since = entry.since.secs().to_string();
    let fields = [
        &*entry.address,
        &entry.scope.tenant,
        entry.scope.stream.as_deref().unwrap_or(""),
        entry.reason.as_str(),
        &since,
        &until,
        &entry.note,
    ];
    fields.map(quote).join(",")
}

fn quote(field: &str) -> String {
    let field = field.replace(['\r', '\n'], " ");
    // A leading `=`, `+`, `-` or `@` is a formula to a spreadsheet.
    let risky = field.starts_with(['=', '+', '-', '@']);
    if risky || field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

/// Why a line of CSV is not an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct CsvError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// Reads one line of CSV; `line` is for errors.
///
/// # Errors
/// What is wrong with the line.
pub fn from_csv(text: &str, line: usize) -> Result<Entry, CsvError> {
    let fail = |what| CsvError { line, what };
    let fields = split_csv(text).ok_or(fail("a quoted field is not closed"))?;
    let [address, tenant, stream, reason, since, until, note] = &fields[..] else {
        return Err(fail("want 7 fields: address,tenant,stream,reason,since,until,note"));
    };
    address.parse::<Mailbox>().map_err(|_| fail("the first field is not a mail address"))?;
    let time = |text: &str| {
        text.parse::<u64>().map(Timestamp::from_secs).map_err(|_| fail("a time is not unix seconds"))
    };
    Ok(Entry {
        address: key(address),
        scope: Scope {
            tenant: tenant.as_str().into(),
            stream: Some(stream.as_str()).filter(|it| !it.is_empty()).map(Into::into),
        },
        reason: Reason::from_name(reason).ok_or(fail(
            "the reason is not one of hard-bounce, soft-bounces, complaint, unsubscribed, manual",
        ))?,
        since: time(since)?,
        until: if until.is_empty() { None } else { Some(time(until)?) },
        note: note.as_str().into(),
    })
}

fn split_csv(text: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.trim_end_matches(['\r', '\n']).chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut()?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    (!quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::Classifier;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn entry(address: &str, stream: Option<&str>) -> Entry {
        Entry {
            address: address.into(),
            scope: Scope { tenant: "t".into(), stream: stream.map(Into::into) },
            reason: Reason::HardBounce,
            since: NOW,
            until: None,
            note: "550 5.1.1 \"no\", such".into(),
        }
    }

    #[test]
    fn a_stream_never_stops_another() {
        let list = MemorySuppressions::new();
        list.add(entry("Ann@example.org", Some("marketing")));
        let ann: Mailbox = "ann@EXAMPLE.org".parse().unwrap();
        assert!(list.check("t", Some("marketing"), &ann, NOW).is_some());
        assert!(list.check("t", Some("receipts"), &ann, NOW).is_none());
        assert!(list.check("t", None, &ann, NOW).is_none());
        assert!(list.check("other", Some("marketing"), &ann, NOW).is_none());
        list.add(entry("ann@example.org", None));
        assert!(list.check("t", Some("receipts"), &ann, NOW).is_some());
        assert!(list.remove(&Scope { tenant: "t".into(), stream: None }, "ANN@example.org"));
        assert!(list.check("t", Some("receipts"), &ann, NOW).is_none());
        let mut short = entry("bob@example.org", None);
        short.until = Some(NOW);
        list.add(short);
        assert!(list.check("t", None, &"bob@example.org".parse().unwrap(), NOW).is_none(), "expired");
        assert_eq!((list.expire(Timestamp::from_secs(1)), list.expire(NOW), list.expire(NOW)), (0, 1, 0));
    }

    #[test]
    fn the_filter_never_says_no_to_an_entry() {
        let list = MemorySuppressions::new();
        for i in 0..5000 {
            list.add(entry(&format!("user{i}@example.org"), None));
        }
        for i in 0..5000 {
            assert!(list.check("t", None, &format!("user{i}@example.org").parse().unwrap(), NOW).is_some());
        }
        assert_eq!(list.list(None, 10_000).len(), 5000);
        for i in (0..5000).step_by(3) {
            list.add(Entry { until: Some(NOW), ..entry(&format!("user{i}@example.org"), None) });
        }
        assert_eq!(list.expire(NOW), 1667, "over several pages");
        assert_eq!(list.len(), 3333);
        let page = list.list(None, 10);
        let last = page.last().unwrap();
        assert!(list.list(Some((&last.address, &last.scope)), 1)[0].address > last.address);
    }

    #[test]
    fn only_the_dead_and_the_angry_are_suppressed_at_once() {
        let classifier = Classifier::built_in();
        let thresholds = Thresholds::default();
        let mut soft = Vec::new();
        let mut ask =
            |line: &str, now| consider(&classifier.classify_line(line), &mut soft, &thresholds, now);
        assert_eq!(ask("550 5.1.1 User unknown", NOW), Some((Reason::HardBounce, None)));
        for line in
            ["552 5.3.4 Message too large", "550 5.7.1 Blocked using Spamhaus", "421 4.7.0 Rate limited"]
        {
            for _ in 0..10 {
                assert_eq!(ask(line, NOW), None, "{line}");
            }
        }
        let day = Duration::from_secs(86_400);
        for i in 0..4 {
            assert_eq!(ask("552 5.2.2 Mailbox full", NOW + day * i), None);
        }
        assert!(matches!(ask("552 5.2.2 Mailbox full", NOW + day * 4), Some((Reason::SoftBounces, Some(_)))));
        for i in 0..20 {
            assert_eq!(ask("552 5.2.2 Mailbox full", NOW + day * (10 + i * 14)), None, "one a fortnight");
        }
    }

    #[test]
    fn csv_comes_back() {
        for one in [entry("ann@example.org", Some("a,b")), entry("\"x \\\"y\"@example.org", None)] {
            assert_eq!(from_csv(&to_csv(&one), 1).unwrap(), one);
        }
        assert!(from_csv("x", 3).unwrap_err().to_string().starts_with("line 3"));
        assert!(from_csv("\"x", 3).is_err());
        assert!(from_csv("nobody,t,,manual,1,,", 1).is_err());
    }
}
