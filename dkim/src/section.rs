//! The header section of a message: splitting into fields, and finding fields by name from the bottom up.
//!
//! Invariant: a field ends at a CRLF that no blank follows (RFC 5322 2.2.3); a line without a colon or with an
//! empty name is a field that no name finds. Choosing fields costs O(log fields) for each name asked for,
//! whatever a sender puts into `h=`.
//!
//! Standards: RFC 5322 2.2, RFC 6376 5.4.2 (fields are taken from the bottom).

use std::ops::Range;

/// Index of the octet behind the header section, if its end (an empty line) is in `octets`. `from`: how many
/// octets were searched before.
pub(crate) fn end_of_header(octets: &[u8], from: usize) -> Option<HeaderEnd> {
    if octets.starts_with(b"\r\n") {
        return Some(HeaderEnd { header: 0, body: 2 });
    }
    // The four octets may lie across the border of what was searched.
    let from = from.saturating_sub(3);
    let found = memchr::memmem::find(octets.get(from..)?, b"\r\n\r\n")?;
    Some(HeaderEnd { header: from + found + 2, body: from + found + 4 })
}

/// Where the header ends and where the body begins; between them is the empty line.
pub(crate) struct HeaderEnd {
    pub(crate) header: usize,
    pub(crate) body: usize,
}

/// A header section, split.
#[derive(Debug)]
pub(crate) struct Section {
    octets: Vec<u8>,
    fields: Vec<Field>,
    /// Indices of `fields`, ordered by name (a hash of it) and then by place.
    by_name: Vec<(u32, u32)>,
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
        let mut section = Section { octets, fields, by_name: Vec::new() };
        section.by_name = (0u32..)
            .zip(&section.fields)
            .filter_map(|(index, field)| Some((hash(section.name_of(field)?), index)))
            .collect();
        section.by_name.sort_unstable();
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

    /// The fields of a name, from the top down.
    pub(crate) fn all<'s>(&'s self, name: &'s [u8]) -> impl DoubleEndedIterator<Item = usize> + 's {
        let wanted = hash(name);
        let from = self.by_name.partition_point(|(hash, _)| *hash < wanted);
        let same = self.by_name.get(from..).unwrap_or_default();
        let to = same.partition_point(|(hash, _)| *hash <= wanted);
        same.get(..to).unwrap_or_default().iter().filter_map(move |(_, index)| {
            let index = usize::try_from(*index).ok()?;
            let field = self.fields.get(index)?;
            self.name_of(field)?.eq_ignore_ascii_case(name).then_some(index)
        })
    }

    /// How many fields have a name.
    pub(crate) fn count(&self, name: &[u8]) -> usize {
        self.all(name).count()
    }
}

impl Field {
    fn new(octets: &[u8], span: Range<usize>) -> Field {
        let raw = octets.get(span.clone()).unwrap_or_default();
        let colon = memchr::memchr(b':', raw).unwrap_or(0);
        let name = raw.get(..colon).unwrap_or_default().trim_ascii_end();
        // A line that begins with a blank continues nothing: it is the first line, and no field.
        let name_len = if name.first().is_some_and(u8::is_ascii_graphic) { name.len() } else { 0 };
        Field { span, name_len }
    }
}

/// FNV-1a of the lower-case name: only an order to search in; names are compared in full.
fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash: u32, octet| {
        (hash ^ u32::from(octet.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    })
}

/// Takes fields by name, each once, from the bottom up (RFC 6376 5.4.2).
pub(crate) struct Selection<'s> {
    section: &'s Section,
    /// Names asked for so far, and how often. Sorted by hash.
    taken: Vec<(u32, &'s [u8], usize)>,
}

impl<'s> Selection<'s> {
    pub(crate) fn new(section: &'s Section) -> Selection<'s> {
        Selection { section, taken: Vec::with_capacity(16) }
    }

    /// The next field of that name; `None` if there is no more (which signs its absence, RFC 6376 5.4.2).
    pub(crate) fn next(&mut self, name: &'s [u8]) -> Option<usize> {
        let nth = self.count(name);
        self.section.all(name).rev().nth(nth)
    }

    /// Counts one more mention of a name; how often it was mentioned before.
    fn count(&mut self, name: &'s [u8]) -> usize {
        let wanted = hash(name);
        let mut at = self.taken.partition_point(|(hash, ..)| *hash < wanted);
        while let Some((hash, known, mentions)) = self.taken.get_mut(at) {
            if *hash != wanted {
                break;
            }
            if known.eq_ignore_ascii_case(name) {
                *mentions += 1;
                return *mentions - 1;
            }
            at += 1;
        }
        self.taken.insert(at, (wanted, name, 1));
        0
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
        assert_eq!(section.count(b"B"), 1);
        assert_eq!(section.count(b"nothing"), 0);
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
    fn names_take_fields_from_the_bottom_once_each() {
        let section = Section::new(b"X: 1\r\nY: 2\r\nx: 3\r\n".to_vec());
        let mut selection = Selection::new(&section);
        assert_eq!(selection.next(b"x"), Some(2));
        assert_eq!(selection.next(b"Y"), Some(1));
        assert_eq!(selection.next(b"X"), Some(0));
        assert_eq!(selection.next(b"x"), None);
        assert_eq!(selection.next(b"z"), None);
    }
}
