//! The ARC sets of a header section, and the structure that they must have (RFC 8617 5.2, steps 1 to 3).

use super::results;
use super::seal_field::{self, Seal};
use super::{ArcReason, ChainValidation};
use crate::canon::Canon;
use crate::header_input;
use crate::limits::Limits;
use crate::section::Section;
use crate::tag::TagList;

pub(super) const RESULTS: &str = "ARC-Authentication-Results";
pub(super) const MESSAGE_SIGNATURE: &str = "ARC-Message-Signature";
pub(super) const SEAL: &str = "ARC-Seal";

/// The fields of one set, as places in the header section.
#[derive(Debug, Clone)]
pub(super) struct Set {
    pub(super) results: usize,
    pub(super) message_signature: usize,
    pub(super) seal_field: usize,
    pub(super) seal: Seal,
}

/// A chain whose structure is right, or a broken one, or none.
pub(super) type Chain = Result<Vec<Set>, (u32, ArcReason)>;

#[derive(Default, Clone)]
struct Slots([Option<usize>; 3]);

/// Finds the sets. Empty if the message has no ARC fields.
pub(super) fn find(section: &Section, limits: &Limits) -> Chain {
    let names = [RESULTS, MESSAGE_SIGNATURE, SEAL];
    let fields: usize = names.iter().map(|name| section.all(name.as_bytes()).count()).sum();
    let max = usize::try_from(limits.arc_sets).unwrap_or(usize::MAX);
    if fields == 0 {
        return Ok(Vec::new());
    }
    if fields > max.saturating_mul(names.len()) {
        return Err((limits.arc_sets, ArcReason::TooManySets));
    }
    let mut slots: Vec<Slots> = Vec::new();
    let mut highest = 0;
    let mut broken = None;
    for (kind, name) in names.iter().enumerate() {
        for field in section.all(name.as_bytes()) {
            let value = section.value(field);
            let instance = if kind == 0 { results::instance(value) } else { seal_field::instance(value) };
            let Some(instance) = instance else {
                broken = broken.or(Some(ArcReason::Instance));
                continue;
            };
            highest = highest.max(instance);
            if instance > limits.arc_sets {
                broken = broken.or(Some(ArcReason::TooManySets));
                continue;
            }
            broken = broken.or(place(&mut slots, instance, kind, field));
        }
    }
    let sets = match broken {
        Some(reason) => Err(reason),
        None => complete(section, &slots),
    };
    sets.map_err(|reason| (highest, newest_says_failed(section).unwrap_or(reason)))
}

/// RFC 8617 5.2, step 2, comes before the structure: whoever found a malformed chain says so in a seal, behind which
/// nothing is added.
fn newest_says_failed(section: &Section) -> Option<ArcReason> {
    let read = |field| {
        let tags = TagList::parse(section.value(field)).ok()?;
        Some((seal_field::number(tags.value("i")?)?, tags.value("cv")? == "fail"))
    };
    let newest = section.all(SEAL.as_bytes()).filter_map(read).max()?;
    newest.1.then_some(ArcReason::BrokenBefore(newest.0))
}

/// Puts a field into its set; a reason if its place is taken.
fn place(slots: &mut Vec<Slots>, instance: u32, kind: usize, field: usize) -> Option<ArcReason> {
    let index = usize::try_from(instance).ok()?.checked_sub(1)?;
    if slots.len() <= index {
        slots.resize(index + 1, Slots::default());
    }
    let slot = slots.get_mut(index)?.0.get_mut(kind)?;
    slot.replace(field).map(|_| ArcReason::Structure(instance))
}

fn complete(section: &Section, slots: &[Slots]) -> Result<Vec<Set>, ArcReason> {
    let mut sets = Vec::with_capacity(slots.len());
    for (instance, slots) in (1..).zip(slots) {
        let Slots([Some(results), Some(message_signature), Some(seal_field)]) = *slots else {
            return Err(ArcReason::Structure(instance));
        };
        let seal = Seal::parse(section.value(seal_field));
        let seal = seal.map_err(|reason| ArcReason::SealSyntax(instance, reason))?;
        sets.push(Set { results, message_signature, seal_field, seal });
    }
    for (instance, set) in (1..).zip(&sets) {
        let expected = if instance == 1 { ChainValidation::None } else { ChainValidation::Pass };
        if set.seal.cv != expected {
            return Err(ArcReason::ChainValue(instance));
        }
    }
    Ok(sets)
}

/// The octets that seals sign (RFC 8617 5.1.1), grown set by set: each field is made canonical once.
#[derive(Default)]
pub(super) struct SealInput(Vec<u8>);

impl SealInput {
    /// Appends a set that an older sealer signed.
    pub(super) fn add(&mut self, section: &Section, set: &Set) {
        for field in [set.results, set.message_signature, set.seal_field] {
            self.field(section.raw(field));
        }
    }

    /// Appends one field; ARC is always relaxed.
    pub(super) fn field(&mut self, raw: &[u8]) {
        header_input::field(Canon::Relaxed, raw, &mut self.0);
        self.0.extend_from_slice(b"\r\n");
    }

    /// What the seal of `set` signs: all before it, and the set with its own `b=` empty. Then the whole set is
    /// appended.
    pub(super) fn signed_by<R>(
        &mut self,
        section: &Section,
        set: &Set,
        use_it: impl FnOnce(&[u8]) -> R,
    ) -> R {
        self.field(section.raw(set.results));
        self.field(section.raw(set.message_signature));
        let here = self.0.len();
        let raw = section.raw(set.seal_field);
        header_input::signature_field(Canon::Relaxed, raw, set.seal.b_span.clone(), &mut self.0);
        let result = use_it(&self.0);
        self.0.truncate(here);
        self.field(raw);
        result
    }

    /// Appends the newest seal, its `b=` empty, and gives the whole.
    pub(super) fn finish(mut self, seal_without_b: &str) -> Vec<u8> {
        header_input::unsigned(Canon::Relaxed, SEAL, seal_without_b, &mut self.0);
        self.0
    }
}
