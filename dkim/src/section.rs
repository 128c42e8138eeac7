//! The header section of a message: splitting into fields, and finding fields by name from the bottom up.
//!
//! Invariant: a field ends at a CRLF that no blank follows (RFC 5322 2.2.3); a line without a colon or with an
//! empty name is a field that no name finds. Choosing fields costs O(log fields) for each name asked for,
//! whatever a sender puts into `h=`.
//!
//! Standards: RFC 5322 2.2, RFC 6376 5.4.2 (fields are taken from the bottom).

use std::cmp::Ordering;
use std::ops::Range;

/// Index of the octet behind the header section, if its end (an empty line) is in `octets`. `from`: how many
/// octets were searched before.
pub(crate) fn end_of_header(octets: &[u8], from: usize) -> Option<HeaderEnd> {
    if octets.starts_with(b"\r\n") {
        return Some(HeaderEnd { header: 0, body: 2 });
    }
    // The four octets may lie across the border of what was searched.
    let from = from.saturating_sub(3);
    end_of_fields(octets.get(from..)?).map(|end| end.behind(from))
}

/// Where fields end that do not begin with an empty line.
pub(crate) fn end_of_fields(octets: &[u8]) -> Option<HeaderEnd> {
    let ends = |lf: &usize| {
        let around = lf.checked_sub(1).and_then(|cr| octets.get(cr..lf + 3));
        around == Some(b"\r\n\r\n")
    };
    let last = memchr::memchr_iter(b'\n', octets).find(ends)?;
    Some(HeaderEnd { header: last + 1, body: last + 3 })
}

/// Where the header ends and where the body begins; between them is the empty line.
pub(crate) struct HeaderEnd {
    pub(crate) header: usize,
    pub(crate) body: usize,
}

impl HeaderEnd {
    /// The same places, seen from `octets` before.
    pub(crate) fn behind(self, octets: usize) -> HeaderEnd {
        HeaderEnd { header: self.header + octets, body: self.body + octets }
    }
}

/// A header section, split.
#[derive(Debug)]
pub(crate) struct Section {
    octets: Vec<u8>,
    fields: Vec<Field>,
    /// Hashes of names and indices of `fields`: ordered by hash, then by name (which two names of one hash need, and
    /// an attacker can find those), then by place.
    by_name: Vec<(u32, u32)>,
    /// Two names have one hash.
    collisions: bool,
}

#[derive(Debug)]
struct Field {
    /// The field without its final CRLF.
    span: Range<usize>,
    /// Length of the name, blanks before the colon left out; 0 if there is none.
    name_len: usize,
}

impl Section {
    /// Splits `octets`: the header section without the empty line that ends it.
    pub(crate) fn new(octets: Vec<u8>) -> Section {
        let mut fields: Vec<Field> = Vec::with_capacity(32);
        let mut start = 0;
        for lf in memchr::memchr_iter(b'\n', &octets) {
            let ends = lf > start && octets.get(lf - 1) == Some(&b'\r');
            if ends && !matches!(octets.get(lf + 1), Some(b' ' | b'\t')) {
                fields.push(Field::new(&octets, start..lf - 1));
                start = lf + 1;
            }
        }
        if start < octets.len() {
            fields.push(Field::new(&octets, start..octets.len()));
        }
        let by_name = Vec::with_capacity(fields.len());
        let mut section = Section { octets, fields, by_name, collisions: false };
        for (index, field) in (0u32..).zip(&section.fields) {
            if let Some(name) = section.name_of(field) {
                section.by_name.push((hash(name), index));
            }
        }
        section.by_name.sort_unstable();
        section.part_collisions();
        section
    }

    /// Number of fields.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    /// A field's octets, without the final CRLF.
    pub(crate) fn raw(&self, index: usize) -> &[u8] {
        self.fields.get(index).and_then(|field| self.octets.get(field.span.clone())).unwrap_or_default()
    }

    fn name_of(&self, field: &Field) -> Option<&[u8]> {
        let raw = self.octets.get(field.span.clone())?;
        raw.get(..field.name_len).filter(|name| !name.is_empty())
    }

    /// A field's value as written: all behind the colon, folding and blanks included.
    pub(crate) fn value(&self, index: usize) -> &[u8] {
        let raw = self.raw(index);
        memchr::memchr(b':', raw).and_then(|colon| raw.get(colon + 1..)).unwrap_or_default()
    }

    /// Sorts by name where different names have one hash.
    fn part_collisions(&mut self) {
        let Section { octets, fields, by_name, collisions } = self;
        let name_of = |(_, index): &(u32, u32)| -> &[u8] {
            let field = usize::try_from(*index).ok().and_then(|index| fields.get(index));
            let raw = field.and_then(|field| octets.get(field.span.start..)?.get(..field.name_len));
            raw.unwrap_or_default()
        };
        for group in by_name.chunk_by_mut(|a, b| a.0 == b.0) {
            if group
                .windows(2)
                .any(|pair| matches!(pair, [a, b] if !name_of(a).eq_ignore_ascii_case(name_of(b))))
            {
                *collisions = true;
                group.sort_by(|a, b| compare(name_of(a), name_of(b)));
            }
        }
    }

    /// The fields of a name, from the top down.
    pub(crate) fn all(&self, name: &[u8]) -> impl DoubleEndedIterator<Item = usize> {
        let (_, group) = self.group(hash(name), name);
        group.iter().filter_map(|(_, index)| usize::try_from(*index).ok())
    }

    /// The entries of `by_name` with this name, and the place of the first.
    fn group(&self, wanted: u32, name: &[u8]) -> (usize, &[(u32, u32)]) {
        // Names are compared only where hashes do not tell them apart.
        let (from, group) = if self.collisions {
            equal_range(&self.by_name, |(hash, index)| {
                hash.cmp(&wanted).then_with(|| compare(self.name_at(*index), name))
            })
        } else {
            equal_range(&self.by_name, |(hash, _)| hash.cmp(&wanted))
        };
        let is_it = group.first().is_some_and(|(_, index)| is_same_name(self.name_at(*index), name));
        (from, if is_it { group } else { &[] })
    }

    /// Which of `names` belong to more than one field.
    pub(crate) fn repeated<'n>(
        &self,
        names: &'n [FieldName],
    ) -> impl Iterator<Item = (&'n FieldName, usize)> {
        let groups = self.by_name.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1);
        let known = groups
            .filter_map(|group| names.iter().find(|name| Some(name.hash) == group.first().map(|e| e.0)));
        known.map(|name| (name, self.count(name))).filter(|(_, count)| *count > 1)
    }

    fn name_at(&self, index: u32) -> &[u8] {
        let field = usize::try_from(index).ok().and_then(|index| self.fields.get(index));
        field.and_then(|field| self.name_of(field)).unwrap_or_default()
    }

    /// How many fields have a name.
    pub(crate) fn count(&self, name: &FieldName) -> usize {
        self.group(name.hash, name.name.as_bytes()).1.len()
    }
}

/// The entries that are `Equal`, and the place of the first.
fn equal_range(entries: &[(u32, u32)], order: impl Fn(&(u32, u32)) -> Ordering) -> (usize, &[(u32, u32)]) {
    let from = entries.partition_point(|entry| order(entry) == Ordering::Less);
    let rest = entries.get(from..).unwrap_or_default();
    let is_same = |entry: &&(u32, u32)| order(entry) == Ordering::Equal;
    // Nearly always there are a field or two.
    let len = match rest.get(4) {
        Some(fifth) if is_same(&fifth) => rest.partition_point(|entry| is_same(&entry)),
        _ => rest.iter().take_while(is_same).count(),
    };
    (from, rest.get(..len).unwrap_or_default())
}

/// Most are written alike, which is quicker to see.
fn is_same_name(a: &[u8], b: &[u8]) -> bool {
    a == b || a.eq_ignore_ascii_case(b)
}

/// Orders names, whatever their case.
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    if is_same_name(a, b) {
        return Ordering::Equal;
    }
    a.iter().map(u8::to_ascii_lowercase).cmp(b.iter().map(u8::to_ascii_lowercase))
}

/// The name of a field that is asked for often: its hash is made by the compiler.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FieldName {
    name: &'static str,
    hash: u32,
}

impl FieldName {
    pub(crate) const fn new(name: &'static str) -> FieldName {
        FieldName { name, hash: hash(name.as_bytes()) }
    }

    pub(crate) fn as_str(&self) -> &'static str {
        self.name
    }
}

/// Without it nothing is signed (RFC 6376 5.4).
pub(crate) const FROM: FieldName = FieldName::new("From");

impl Field {
    fn new(octets: &[u8], span: Range<usize>) -> Field {
        let raw = octets.get(span.clone()).unwrap_or_default();
        let colon = raw.iter().position(|octet| *octet == b':').unwrap_or(0);
        let name = raw.get(..colon).unwrap_or_default().trim_ascii_end();
        // A line that begins with a blank continues nothing: it is the first line, and no field.
        let name_len = if name.first().is_some_and(u8::is_ascii_graphic) { name.len() } else { 0 };
        Field { span, name_len }
    }
}

/// A hash of a name in any case: its length, its first eight octets and its last eight. Only an order to search in:
/// names are compared in full.
const fn hash(name: &[u8]) -> u32 {
    // Folds the case of letters, and some other octets together.
    const CASE: u64 = 0x2020_2020_2020_2020;
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let (first, last) = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (short(name), 0),
    };
    let mixed = ((first | CASE) ^ name.len() as u64).wrapping_mul(MIX) ^ (last | CASE);
    (mixed.wrapping_mul(MIX) >> 32) as u32
}

/// The octets of a name shorter than eight.
const fn short(name: &[u8]) -> u64 {
    let mut all = 0;
    let mut rest = name;
    while let [octet, behind @ ..] = rest {
        all = all << 8 | *octet as u64;
        rest = behind;
    }
    all
}

/// Takes fields by name, each once, from the bottom up (RFC 6376 5.4.2).
pub(crate) struct Selection<'s> {
    section: &'s Section,
    /// The signature that is being verified, which does not cover itself (RFC 6376 3.5, `h=`).
    itself: Option<usize>,
    /// For each entry of `by_name` that is the first with its name, how many fields were taken.
    taken: Vec<u32>,
}

impl<'s> Selection<'s> {
    pub(crate) fn new(section: &'s Section, itself: Option<usize>) -> Selection<'s> {
        Selection { section, itself, taken: vec![0; section.by_name.len()] }
    }

    /// The next field of that name; `None` if there is no more (which signs its absence, RFC 6376 5.4.2).
    pub(crate) fn next(&mut self, name: &[u8]) -> Option<usize> {
        let (place, group) = self.section.group(hash(name), name);
        let taken = self.taken.get_mut(place)?;
        let left = group.len().checked_sub(usize::try_from(*taken).ok()?)?;
        let mut rest = group.get(..left)?.iter().rev();
        // At most one is passed over, so this stays one step.
        let found = rest.find(|(_, index)| usize::try_from(*index).ok() != self.itself);
        *taken = u32::try_from(group.len() - rest.len()).ok()?;
        usize::try_from(found?.1).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_at_line_ends_that_no_blank_follows() {
        let section = Section::new(b"A: 1\r\n 2\r\nb :3\r\nnothing\r\na:\n4".to_vec());
        let raw: Vec<&[u8]> = (0..section.len()).map(|i| section.raw(i)).collect();
        assert_eq!(raw, [&b"A: 1\r\n 2"[..], b"b :3", b"nothing", b"a:\n4"]);
        assert_eq!(section.all(b"A").collect::<Vec<_>>(), [0, 3]);
        assert_eq!(section.count(&FieldName::new("B")), 1);
        assert_eq!(section.count(&FieldName::new("nothing")), 0);
        assert_eq!(section.value(0), b" 1\r\n 2");
    }

    #[test]
    fn the_end_is_found_across_chunks() {
        let text = b"A: 1\r\n\r\nbody";
        for searched in 0..=7 {
            let end = end_of_header(text, searched).unwrap();
            assert_eq!((end.header, end.body), (6, 8), "{searched}");
        }
        assert_eq!(end_of_header(b"\r\nbody", 0).unwrap().body, 2);
        assert!(end_of_header(b"A: 1\r\n", 0).is_none());
    }

    #[test]
    fn names_of_one_hash_stay_apart() {
        // The middle of a long name does not count.
        let (one, other) =
            ("X-Header-Of-Mine".to_owned() + "a" + "-Of-Yours", "X-Header-Of-Mineb-Of-Yours".to_owned());
        assert_eq!(hash(one.as_bytes()), hash(other.as_bytes()));
        let text = format!("{one}: 1\r\n{other}: 2\r\n{one}: 3\r\n{other}: 4\r\n");
        let section = Section::new(text.into_bytes());
        assert_eq!(section.all(one.as_bytes()).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(section.all(other.as_bytes()).collect::<Vec<_>>(), [1, 3]);
        let mut selection = Selection::new(&section, None);
        assert_eq!(section.all(b"x").count(), 0);
        let taken = [&one, &other, &one, &other, &one].map(|name| selection.next(name.as_bytes()));
        assert_eq!(taken, [Some(2), Some(3), Some(0), Some(1), None]);
    }

    #[test]
    fn names_take_fields_from_the_bottom_once_each() {
        let section = Section::new(b"X: 1\r\nY: 2\r\nx: 3\r\n".to_vec());
        let mut selection = Selection::new(&section, None);
        assert_eq!(selection.next(b"x"), Some(2));
        assert_eq!(selection.next(b"Y"), Some(1));
        assert_eq!(selection.next(b"X"), Some(0));
        assert_eq!(selection.next(b"x"), None);
        assert_eq!(selection.next(b"z"), None);
        for (itself, other) in [(0, 2), (2, 0)] {
            let mut selection = Selection::new(&section, Some(itself));
            assert_eq!([selection.next(b"x"), selection.next(b"x")], [Some(other), None]);
        }
    }
}
