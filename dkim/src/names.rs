//! The list of header field names in `h=` (RFC 6376 3.5): one text, joined by colons.
//!
//! Invariant: names are printable ASCII without colon and semicolon; the text has no blanks. Whether a verifier or a
//! signer made it, it costs one allocation.

use crate::tag;

/// Names, in their order; a name may occur more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    text: String,
    len: usize,
}

impl Names {
    pub(crate) fn with_capacity(octets: usize) -> Names {
        Names { text: String::with_capacity(octets), len: 0 }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, name: &str) {
        if self.len > 0 {
            self.text.push(':');
        }
        self.text.push_str(name);
        self.len += 1;
    }

    /// The names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        // An empty text is one empty name to whoever splits it.
        tag::between_colons(&self.text).take(self.len)
    }

    /// The names, each but the last with the colon behind it: pieces between which a line may be folded.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &str> {
        self.text.split_inclusive(':')
    }

    /// How often a name is mentioned.
    pub(crate) fn mentions(&self, name: &str) -> usize {
        self.iter().filter(|known| known.eq_ignore_ascii_case(name)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_order_and_number() {
        let mut names = Names::default();
        assert_eq!((names.iter().count(), names.pieces().count()), (0, 0));
        for name in ["From", "to", "from"] {
            names.push(name);
        }
        assert_eq!(names.iter().collect::<Vec<_>>(), ["From", "to", "from"]);
        assert_eq!(names.pieces().collect::<Vec<_>>(), ["From:", "to:", "from"]);
        assert_eq!((names.len(), names.mentions("FROM"), names.mentions("cc")), (3, 2, 0));
    }
}
