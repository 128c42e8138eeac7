//! Messages by seed: the same seed, the same message. Fields with all kinds of folding and blanks, bodies with all
//! kinds of ends.

#![allow(dead_code, reason = "each test file uses some of it")]

use postwright_core::{Entropy, SeededEntropy};

pub(crate) struct Generator(SeededEntropy);

const WORDS: [&str; 14] = [
    "the",
    "quick",
    "fox",
    "a",
    "=?utf-8?q?x=3Dy?=",
    "gr\u{fc}\u{df}e",
    "<a@b.example>",
    "\"quoted\"",
    "semi;colon",
    "co:lon",
    "=20",
    "b=",
    "\u{65e5}\u{672c}",
    ".",
];

impl Generator {
    pub(crate) fn new(seed: u64) -> Generator {
        Generator(SeededEntropy::new(seed))
    }

    pub(crate) fn below(&self, bound: usize) -> usize {
        usize::try_from(self.0.below(bound as u64)).unwrap()
    }

    pub(crate) fn pick<'p, T: ?Sized>(&self, from: &[&'p T]) -> &'p T {
        from[self.below(from.len())]
    }

    fn blanks(&self) -> &'static str {
        self.pick(&[" ", " ", " ", "  ", "\t", " \t ", "   "])
    }

    /// Words between blanks and folds, no fold into a line of blanks alone.
    fn text(&self, words: usize) -> String {
        let mut out = String::new();
        for nth in 0..words {
            if nth > 0 {
                if self.below(6) == 0 {
                    out.push_str(self.pick(&["\r\n ", "\r\n\t", " \r\n  ", "\t\r\n \t"]));
                } else {
                    out.push_str(self.blanks());
                }
            }
            out.push_str(self.pick(&WORDS));
        }
        out
    }

    fn field(&self, name: &str, value: &str, odd: bool) -> String {
        if !odd {
            return format!("{name}: {value}\r\n");
        }
        let name = match self.below(3) {
            0 => name.to_uppercase(),
            1 => name.to_lowercase(),
            _ => name.to_owned(),
        };
        let before = self.pick(&["", " ", "  ", "\r\n ", "\t"]);
        let after = self.pick(&["", "", " ", "\t "]);
        format!("{name}:{before}{value}{after}\r\n")
    }

    /// `odd`: also blanks that a milter does not hand on as they were.
    pub(crate) fn header(&self, odd: bool) -> String {
        let mut fields = vec![
            self.field("Date", "Sat, 21 Nov 2026 00:00:00 +0000", odd),
            self.field("From", "Joe <joe@example.org>", odd),
            self.field("To", &format!("{} <x@example.com>", self.text(2)), odd),
            self.field("Message-ID", &format!("<{}@example.org>", self.below(1_000_000)), odd),
        ];
        let subject = 1 + self.below(12);
        fields.push(self.field("Subject", &self.text(subject), odd));
        for _ in 0..self.below(4) {
            let words = 1 + self.below(6);
            fields.push(self.field("Received", &self.text(words), odd));
            fields.push(self.field(
                &format!("X-{}", self.pick(&["A", "Spam", "a-b"])),
                &self.text(words),
                odd,
            ));
        }
        if self.below(3) == 0 {
            fields.push(self.field("MIME-Version", "1.0", odd));
            fields.push(self.field("Content-Type", "text/plain;\r\n\tcharset=utf-8", odd));
        }
        // Their order is random as well.
        for at in (1..fields.len()).rev() {
            fields.swap(at, self.below(at + 1));
        }
        fields.concat()
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.below(12) {
            0 => {}
            1 => out.extend(b"\r\n".repeat(1 + self.below(5))),
            2 => out.extend(b" \t\r\n \r\n"),
            3 => {
                out.extend(std::iter::repeat_n(b'x', 998));
                out.extend(b"\r\n");
                out.extend("\u{e9}".repeat(499).as_bytes());
                out.extend(b"\r\n");
            }
            4 => out.extend(b"no final line end"),
            _ => {
                for _ in 0..1 + self.below(12) {
                    let words = self.below(9);
                    let line = self.text(words).replace("\r\n", "");
                    out.extend(self.pick(&["", "", "", " ", "\t\t", "."]).as_bytes());
                    out.extend(line.as_bytes());
                    out.extend(self.pick(&["", "", " ", " \t"]).as_bytes());
                    out.extend(b"\r\n");
                }
                out.extend(b"\r\n".repeat(self.below(3)));
            }
        }
        out
    }

    /// `odd`: also what a milter does not see as it was, and bodies without a final CRLF, which OpenDKIM refuses
    /// ("CRLF at end of body missing") though RFC 6376 3.4.3 and 3.4.4 say that one is added.
    pub(crate) fn message(&self, odd: bool) -> Vec<u8> {
        let mut message = self.header(odd).into_bytes();
        message.extend(b"\r\n");
        message.extend(self.body());
        if !odd && !message.ends_with(b"\r\n") {
            message.extend(b"\r\n");
        }
        message
    }
}
