//! Writing a tag list as a folded header field value.
//!
//! Invariant: lines break only where folding white space is allowed, none ends in a blank (relays strip those, which
//! would break `simple`), none consists of blanks alone, and lines stay within 76 columns unless one word is longer.
//!
//! Standards: RFC 6376 3.2, RFC 5322 2.1.1, 2.2.3.

/// Columns that are filled; below 78 (RFC 5322 2.1.1), as some receivers count the line end.
const COLUMNS: usize = 76;

/// A field value in the making.
pub(crate) struct Folded {
    text: String,
    column: usize,
}

impl Folded {
    /// Begins behind `name: `.
    pub(crate) fn new(name: &str) -> Folded {
        Folded { text: String::with_capacity(512), column: name.len() + 2 }
    }

    /// Adds `name=value;`, on this line or the next.
    pub(crate) fn tag(&mut self, name: &str, value: &str) {
        self.word(name.len() + value.len() + 2);
        self.push(name);
        self.push("=");
        self.push(value);
        self.push(";");
    }

    /// Adds `name=` and pieces that may be folded apart, and `;`.
    pub(crate) fn pieces<'p>(&mut self, name: &str, pieces: impl Iterator<Item = &'p str>) {
        let mut pieces = pieces.peekable();
        self.word(name.len() + 1 + pieces.peek().map_or(0, |first| first.len()) + 1);
        self.push(name);
        self.push("=");
        let mut first = true;
        for piece in pieces {
            if !first && self.column + piece.len() + 1 > COLUMNS {
                self.line();
            }
            self.push(piece);
            first = false;
        }
        self.push(";");
    }

    /// Adds `b=` without value, as the last tag: what is hashed.
    pub(crate) fn open(&mut self, name: &str) {
        // At least some of the value shall stand on the line.
        self.word(name.len() + 1 + 16);
        self.push(name);
        self.push("=");
    }

    /// Adds the value of the last tag, broken anywhere (base64).
    pub(crate) fn close(mut self, mut value: &str) -> String {
        while !value.is_empty() {
            if self.column >= COLUMNS {
                self.line();
            }
            let room = COLUMNS.saturating_sub(self.column).max(1);
            let (now, later) = value.split_at_checked(room.min(value.len())).unwrap_or((value, ""));
            self.push(now);
            value = later;
        }
        self.text
    }

    /// The text so far.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Separates from the last word by a blank or a new line.
    fn word(&mut self, len: usize) {
        if self.text.is_empty() {
            return;
        }
        if self.column + 1 + len > COLUMNS {
            self.line();
        } else {
            self.push(" ");
        }
    }

    fn line(&mut self) {
        self.text.push_str("\r\n\t");
        self.column = 1;
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.column += text.len();
    }
}
