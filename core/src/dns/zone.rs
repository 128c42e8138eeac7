//! [`MemoryZone`]: DNS in memory, with failures on demand.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use super::zone_text::{self, ZoneError};
use super::{Answer, DnsError, Found, Name, Record, RecordKind, Resolver};
use crate::BoxFuture;

/// Longest chain of aliases that is followed.
const ALIASES_MAX: usize = 16;

/// The whole DNS as a table in memory: for tests, simulation and look-ups from a file.
///
/// The text form is that of zone files (RFC 1035 section 5): comments behind `;`, `$ORIGIN`, `$TTL`, `@`, owner
/// names left out, parentheses, quoted strings, `*` wildcards. Names without a final dot are relative to
/// `$ORIGIN` if there is one, and complete otherwise. Record types other than those of [`RecordKind`] only make
/// their name exist. In place of a record type and its data may stand a failure:
///
/// ```text
/// example.org.      3600 IN MX  10 mx.example.org.
/// mx.example.org.        A      192.0.2.1
/// slow.example.org.      TIMEOUT           ; every look-up of the name fails so; also SERVFAIL, BOGUS
/// half.example.org.      TXT    TIMEOUT    ; only look-ups of this type (unquoted)
/// half.example.org.      A      192.0.2.2
/// $SECURE signed.example.                  ; answers at and below this name are DNSSEC-secure
/// ```
///
/// ```
/// use postwright_core::{MemoryZone, Name, RecordKind, Resolver};
/// # fn block_on<F: Future>(f: F) -> F::Output {
/// #     let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
/// #     match std::pin::pin!(f).poll(&mut cx) { std::task::Poll::Ready(v) => v, _ => unreachable!() }
/// # }
/// let zone = MemoryZone::parse("example.org. TXT \"v=spf1 -all\"")?;
/// let name: Name = "example.org".parse().unwrap();
/// let answer = block_on(zone.lookup(&name, RecordKind::Txt)).unwrap();
/// assert_eq!(answer.records()[0].text().unwrap(), &b"v=spf1 -all"[..]);
/// # Ok::<(), postwright_core::dns::ZoneError>(())
/// ```
///
/// It can be changed while it is shared, and it counts the look-ups that it is asked for.
#[derive(Debug, Default)]
pub struct MemoryZone {
    table: RwLock<Table>,
    lookups: AtomicUsize,
}

#[derive(Debug, Default, Clone)]
struct Table {
    nodes: BTreeMap<Name, Node>,
    /// How many nodes lie below a name.
    below: BTreeMap<Name, usize>,
    secure: Vec<Name>,
}

#[derive(Debug, Default, Clone)]
struct Node {
    records: BTreeMap<RecordKind, Arc<[Record]>>,
    /// `None` as the kind: every look-up of this name.
    failures: Vec<(Option<RecordKind>, DnsError)>,
}

impl MemoryZone {
    /// A zone in which no name exists.
    pub fn new() -> MemoryZone {
        MemoryZone::default()
    }

    /// Reads the text form; an error names the line.
    pub fn parse(text: &str) -> Result<MemoryZone, ZoneError> {
        let zone = MemoryZone::new();
        zone_text::read(text, &zone)?;
        Ok(zone)
    }

    /// Adds a record.
    pub fn insert(&self, name: Name, record: Record) {
        self.change(|table| table.touch(name).insert(record));
    }

    /// Makes a name exist without records.
    pub fn touch(&self, name: Name) {
        self.change(|table| {
            table.touch(name);
        });
    }

    /// Makes look-ups of `name` fail: those of one kind, or all with `None`.
    pub fn fail(&self, name: Name, kind: Option<RecordKind>, error: DnsError) {
        self.change(|table| table.touch(name).failures.push((kind, error)));
    }

    /// Forgets a name: its records and its failures.
    pub fn remove(&self, name: &Name) {
        self.change(|table| table.remove(name));
    }

    /// Marks answers at and below `apex` as DNSSEC-secure.
    pub fn secure(&self, apex: Name) {
        self.change(|table| table.secure.push(apex));
    }

    /// How many look-ups were asked for so far.
    pub fn lookups(&self) -> usize {
        self.lookups.load(Ordering::Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        // A panic while the lock is held leaves a table that is whole.
        change(&mut self.table.write().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl Clone for MemoryZone {
    fn clone(&self) -> Self {
        let table = self.table.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        MemoryZone { table: RwLock::new(table), lookups: AtomicUsize::new(0) }
    }
}

impl Resolver for MemoryZone {
    fn lookup<'a>(&'a self, name: &'a Name, kind: RecordKind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let table = self.table.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let answer = table.answer(name, kind);
        Box::pin(std::future::ready(answer))
    }
}

impl Table {
    /// The node of a name, which exists from now on.
    fn touch(&mut self, name: Name) -> &mut Node {
        if !self.nodes.contains_key(&name) {
            for above in ancestors(&name) {
                *self.below.entry(above).or_default() += 1;
            }
        }
        self.nodes.entry(name).or_default()
    }

    fn remove(&mut self, name: &Name) {
        if self.nodes.remove(name).is_none() {
            return;
        }
        for above in ancestors(name) {
            if let Entry::Occupied(mut count) = self.below.entry(above) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }

    fn answer(&self, asked: &Name, kind: RecordKind) -> Result<Answer, DnsError> {
        let mut name = asked.clone();
        let mut secure = true;
        for _ in 0..ALIASES_MAX {
            secure &= self.secure.iter().any(|apex| name.is_within(apex));
            let Some(node) = self.node(&name) else {
                let found = if self.has_names_below(&name) { Found::NoData } else { Found::NoName };
                return Ok(Answer { found, canonical: name, secure, ttl: 300 });
            };
            if let Some(error) = node.failure(kind) {
                return Err(error);
            }
            if let Some(records) = node.records.get(&kind) {
                let found = Found::Records(Arc::clone(records));
                return Ok(Answer { found, canonical: name, secure, ttl: 300 });
            }
            match node.alias() {
                Some(target) => name = target.clone(),
                None => return Ok(Answer { found: Found::NoData, canonical: name, secure, ttl: 300 }),
            }
        }
        Err(DnsError::ServFail)
    }

    /// The node of the name, or of the closest wildcard above it (RFC 4592).
    fn node(&self, name: &Name) -> Option<&Node> {
        if let Some(node) = self.nodes.get(name) {
            return Some(node);
        }
        if self.has_names_below(name) {
            return None;
        }
        let mut up = name.parent();
        while let Some(encloser) = up {
            if let Some(node) = encloser.prepend("*").ok().and_then(|wildcard| self.nodes.get(&wildcard)) {
                return Some(node);
            }
            if self.nodes.contains_key(&encloser) {
                return None;
            }
            up = encloser.parent();
        }
        None
    }

    /// Whether the name is an empty non-terminal: it exists because something below it does.
    fn has_names_below(&self, name: &Name) -> bool {
        self.below.contains_key(name)
    }
}

/// The names above a name, the root last.
fn ancestors(name: &Name) -> impl Iterator<Item = Name> {
    std::iter::successors(name.parent(), Name::parent)
}

impl Node {
    fn insert(&mut self, record: Record) {
        let records = self.records.entry(record.kind()).or_insert_with(|| Arc::from([]));
        *records = records.iter().cloned().chain([record]).collect();
    }

    fn failure(&self, kind: RecordKind) -> Option<DnsError> {
        self.failures.iter().find(|(of, _)| of.is_none_or(|of| of == kind)).map(|(_, error)| *error)
    }

    fn alias(&self) -> Option<&Name> {
        match self.records.get(&RecordKind::Cname)?.first()? {
            Record::Cname(target) => Some(target),
            _ => None,
        }
    }
}
