//! The message on its way out: what it holds, and the octets that go to the wire.
//!
//! Invariant: behind DATA, the only CRLF "." CRLF on the wire is the one that ends the message, whatever the
//! message holds. The body is never copied as a whole: pieces are slices of the message's own chunks (a chunk
//! that has to be repaired is copied alone, so at most [`CHUNK_MAX`](postwright_core::message::CHUNK_MAX) twice).
//!
//! Standards: RFC 5321 4.5.2 (transparency), 2.3.8 (line ends); RFC 3030 (BDAT); RFC 6152, RFC 6531 3.5.
//!
//! Not here: decoding (server), whether a message may be sent (job).

use bytes::Bytes;
use memchr::{memchr, memmem};
use postwright_core::Message;

/// What a message holds, as far as transport cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Content {
    /// An octet above 127, anywhere.
    pub(super) eight_bit: bool,
    /// An octet above 127 in the header section.
    pub(super) eight_bit_header: bool,
    /// A CR without LF or an LF without CR.
    pub(super) stray_line_end: bool,
    /// A NUL.
    pub(super) nul: bool,
}

impl Content {
    /// Reads the whole message once.
    pub(super) fn of(message: &Message) -> Content {
        Content::of_chunks(message.chunks())
    }

    fn of_chunks<'c>(chunks: impl Iterator<Item = &'c Bytes>) -> Content {
        let mut content = Content::default();
        let mut last = 0;
        let mut in_header = true;
        let mut header = HeaderEnd::default();
        for chunk in chunks {
            if in_header {
                let end = header.find(chunk);
                in_header = end.is_none();
                let head = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or(chunk);
                content.eight_bit_header |= !head.is_ascii();
            }
            content.eight_bit |= !chunk.is_ascii();
            content.nul |= memchr(0, chunk).is_some();
            content.stray_line_end = content.stray_line_end || has_stray(last, chunk);
            last = chunk.last().copied().unwrap_or(last);
        }
        content.stray_line_end |= last == b'\r';
        content
    }
}

/// Whether `chunk`, which follows the octet `last`, holds a bare CR or LF. A final CR is left to the next call.
fn has_stray(last: u8, chunk: &[u8]) -> bool {
    let mut previous = last;
    let mut rest = chunk;
    if previous == b'\r' && rest.first().is_some_and(|first| *first != b'\n') {
        return true;
    }
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        let before = at.checked_sub(1).and_then(|i| rest.get(i)).copied().unwrap_or(previous);
        let stray = match (rest.get(at), rest.get(at + 1)) {
            (Some(b'\n'), _) => before != b'\r',
            (_, Some(next)) => *next != b'\n',
            (_, None) => false,
        };
        if stray {
            return true;
        }
        previous = rest.get(at).copied().unwrap_or(previous);
        rest = rest.get(at + 1..).unwrap_or_default();
    }
    false
}

/// Finds the empty line behind the header section.
#[derive(Default)]
struct HeaderEnd {
    /// Octets on the present line, CR left out.
    on_line: usize,
    begun: bool,
}

impl HeaderEnd {
    fn find(&mut self, chunk: &[u8]) -> Option<usize> {
        for (i, octet) in chunk.iter().enumerate() {
            match octet {
                b'\n' if self.on_line == 0 && self.begun => return Some(i),
                b'\n' => self.on_line = 0,
                b'\r' => {}
                _ => self.on_line += 1,
            }
            self.begun = true;
        }
        None
    }
}

/// How the message is put on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Behind DATA: dots stuffed, ended by CRLF "." CRLF.
    Dots,
    /// Behind DATA, with bare CR and LF made CRLF and NUL left out.
    DotsRepaired,
    /// Behind BDAT: as it is.
    Raw,
    /// Behind a DATA that was accepted although every recipient was refused: only the end (RFC 2920 3.1).
    Empty,
}

/// Hands out a message piece by piece.
#[derive(Debug)]
pub(super) struct Encoder {
    encoding: Encoding,
    chunks: std::vec::IntoIter<Bytes>,
    /// What is left of the present chunk.
    chunk: Bytes,
    /// How much of `chunk` may go out before something has to be inserted.
    run: usize,
    /// Octets to go out before `chunk`.
    insert: &'static [u8],
    /// The last octet of the message that went out; a line feed before the first one.
    last: u8,
    /// Whether the dot of the present line start has been doubled.
    stuffed: bool,
    /// Whether the repairer holds back a CR.
    held_cr: bool,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Message,
    /// The end of the message is in `insert`; true once an octet of it was taken.
    End(bool),
    Done,
}

impl Encoder {
    pub(super) fn new(message: &Message, encoding: Encoding) -> Encoder {
        let chunks: Vec<Bytes> = match encoding {
            Encoding::Empty => Vec::new(),
            _ => message.chunks().cloned().collect(),
        };
        Encoder::of_chunks(chunks, encoding)
    }

    fn of_chunks(chunks: Vec<Bytes>, encoding: Encoding) -> Encoder {
        let mut encoder = Encoder {
            encoding,
            chunks: chunks.into_iter(),
            chunk: Bytes::new(),
            run: 0,
            insert: b"",
            last: b'\n',
            stuffed: false,
            held_cr: false,
            stage: Stage::Message,
        };
        encoder.settle();
        encoder
    }

    /// The next octets to write; empty if all were taken.
    pub(super) fn piece(&self) -> &[u8] {
        if self.insert.is_empty() { self.chunk.get(..self.run).unwrap_or_default() } else { self.insert }
    }

    /// Takes `len` octets off [`Encoder::piece`].
    pub(super) fn advance(&mut self, len: usize) {
        let len = len.min(self.piece().len());
        if len == 0 {
            return;
        }
        if self.insert.is_empty() {
            self.last = self.chunk.get(len - 1).copied().unwrap_or(self.last);
            self.chunk = self.chunk.slice(len..);
            self.run -= len;
            self.stuffed = false;
        } else {
            self.insert = self.insert.get(len..).unwrap_or_default();
            if self.stage == Stage::End(false) {
                self.stage = Stage::End(true);
            }
        }
        if self.piece().is_empty() {
            self.settle();
        }
    }

    /// Whether every octet was taken.
    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Whether the peer may hold the whole message: the end has begun to go out.
    pub(super) fn may_be_complete(&self) -> bool {
        matches!(self.stage, Stage::End(true) | Stage::Done)
    }

    /// Finds the next piece.
    fn settle(&mut self) {
        loop {
            match self.stage {
                Stage::Done => return,
                Stage::End(_) if self.insert.is_empty() => self.stage = Stage::Done,
                Stage::End(_) => return,
                Stage::Message if self.chunk.is_empty() => self.next_chunk(),
                Stage::Message => {
                    self.next_run();
                    return;
                }
            }
        }
    }

    fn next_chunk(&mut self) {
        match self.chunks.next() {
            Some(chunk) if self.encoding == Encoding::DotsRepaired => self.chunk = self.repair(&chunk),
            Some(chunk) => self.chunk = chunk,
            None if std::mem::take(&mut self.held_cr) => self.chunk = Bytes::from_static(b"\r\n"),
            None if self.encoding == Encoding::Raw => self.stage = Stage::Done,
            None => {
                self.insert = if self.last == b'\n' { b".\r\n" } else { b"\r\n.\r\n" };
                self.stage = Stage::End(false);
            }
        }
    }

    fn next_run(&mut self) {
        self.run = self.chunk.len();
        if self.encoding == Encoding::Raw {
            return;
        }
        if self.last == b'\n' && self.chunk.first() == Some(&b'.') && !self.stuffed {
            self.insert = b".";
            self.stuffed = true;
        }
        if let Some(at) = memmem::find(&self.chunk, b"\n.") {
            self.run = at + 1;
        }
    }

    fn repair(&mut self, chunk: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(chunk.len() + chunk.len() / 16 + 2);
        for octet in chunk {
            let after_cr = std::mem::take(&mut self.held_cr);
            match octet {
                b'\r' => {
                    if after_cr {
                        out.extend_from_slice(b"\r\n");
                    }
                    self.held_cr = true;
                }
                b'\n' => out.extend_from_slice(b"\r\n"),
                other => {
                    if after_cr {
                        out.extend_from_slice(b"\r\n");
                    }
                    if *other != 0 {
                        out.push(*other);
                    }
                }
            }
        }
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(message: &Message, encoding: Encoding, most: usize) -> Vec<u8> {
        drain(Encoder::new(message, encoding), most)
    }

    /// Cuts `plain` into chunks far shorter than a real message has.
    fn chunks(plain: &[u8], cut: usize) -> Vec<Bytes> {
        plain.chunks(cut).map(Bytes::copy_from_slice).collect()
    }

    fn drain(mut encoder: Encoder, most: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while !encoder.is_done() {
            let piece = encoder.piece();
            assert!(!piece.is_empty(), "no progress");
            let len = piece.len().min(most);
            out.extend_from_slice(&piece[..len]);
            encoder.advance(len);
        }
        out
    }

    fn message(text: &[u8]) -> Message {
        Message::from_bytes(text.to_vec())
    }

    #[test]
    fn dots_are_stuffed_as_rfc_5321_says() {
        for (plain, wire) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"..x\r\n", b"...x\r\n.\r\n"),
            (b"a\r\n.\r\nb.\r\n.c\r\n", b"a\r\n..\r\nb.\r\n..c\r\n.\r\n"),
            (b"a\r\n.\r\n.\r\n", b"a\r\n..\r\n..\r\n.\r\n"),
        ] {
            for most in [1, 2, usize::MAX] {
                assert_eq!(encode(&message(plain), Encoding::Dots, most), wire, "{plain:?}");
            }
            assert_eq!(encode(&message(plain), Encoding::Raw, 1), plain);
            assert_eq!(encode(&message(plain), Encoding::Empty, 1), b".\r\n");
        }
    }

    #[test]
    fn stray_line_ends_are_seen_and_repaired() {
        for (plain, repaired) in [
            (&b"a\nb\r\n"[..], &b"a\r\nb\r\n.\r\n"[..]),
            (b"a\rb\r\n", b"a\r\nb\r\n.\r\n"),
            (b"a\r\r\nb", b"a\r\n\r\nb\r\n.\r\n"),
            (b"a\n\r\nb", b"a\r\n\r\nb\r\n.\r\n"),
            (b"\n.\n", b"\r\n..\r\n.\r\n"),
            (b"\r.\r", b"\r\n..\r\n.\r\n"),
            (b"a\n.\r\nMAIL FROM:<x@y>\r\n", b"a\r\n..\r\nMAIL FROM:<x@y>\r\n.\r\n"),
        ] {
            assert!(Content::of(&message(plain)).stray_line_end, "{plain:?}");
            for most in [1, usize::MAX] {
                assert_eq!(encode(&message(plain), Encoding::DotsRepaired, most), repaired, "{plain:?}");
            }
        }
        let nul = Content::of(&message(b"a\0b\r\n"));
        assert!(nul.nul && !nul.stray_line_end);
        assert_eq!(encode(&message(b"a\0b\r\n"), Encoding::DotsRepaired, 9), b"ab\r\n.\r\n");
    }

    #[test]
    fn eight_bit_octets_are_told_apart_by_place() {
        let content = Content::of(&message("Subject: x\r\n\r\né\r\n".as_bytes()));
        assert!(content.eight_bit && !content.eight_bit_header);
        let content = Content::of(&message("Subject: é\r\n\r\nx\r\n".as_bytes()));
        assert!(content.eight_bit && content.eight_bit_header);
        assert_eq!(Content::of(&message(b"Subject: x\r\n\r\nx\r\n")), Content::default());
    }

    #[test]
    fn the_end_counts_from_its_first_octet() {
        let mut encoder = Encoder::new(&message(b"ab\r\n"), Encoding::Dots);
        encoder.advance(4);
        assert!(!encoder.may_be_complete());
        encoder.advance(1);
        assert!(encoder.may_be_complete() && !encoder.is_done());
    }

    /// One octet at a time, straight from RFC 5321 4.5.2.
    fn naive(plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut line_start = true;
        for octet in plain {
            if line_start && *octet == b'.' {
                out.push(b'.');
            }
            out.push(*octet);
            line_start = *octet == b'\n';
        }
        out.extend_from_slice(if line_start { b".\r\n" } else { b"\r\n.\r\n" });
        out
    }

    proptest::proptest! {
        #[test]
        fn chunks_and_pieces_change_nothing(
            lines in proptest::collection::vec("[.a]{0,3}", 0..12),
            cut in 1usize..9,
            most in 1usize..9,
        ) {
            let plain = lines.join("\r\n").into_bytes();
            let pieces = chunks(&plain, cut);
            proptest::prop_assert!(!Content::of_chunks(pieces.iter()).stray_line_end);
            proptest::prop_assert_eq!(drain(Encoder::of_chunks(pieces.clone(), Encoding::Dots), most), naive(&plain));
            proptest::prop_assert_eq!(drain(Encoder::of_chunks(pieces, Encoding::Raw), most), plain);
        }

        #[test]
        fn repair_leaves_only_crlf(
            plain in proptest::collection::vec(proptest::sample::select(&b"\r\n.a\0"[..]), 0..20),
            cut in 1usize..9,
        ) {
            let pieces = chunks(&plain, cut);
            let whole = Content::of(&Message::from_bytes(plain.clone()));
            proptest::prop_assert_eq!(Content::of_chunks(pieces.iter()), whole);
            let wire = drain(Encoder::of_chunks(pieces, Encoding::DotsRepaired), 3);
            proptest::prop_assert_eq!(&wire, &encode(&Message::from_bytes(plain), Encoding::DotsRepaired, 9));
            let end = if wire.starts_with(b".\r\n") { 3 } else { memmem::find(&wire, b"\r\n.\r\n").unwrap() + 5 };
            proptest::prop_assert_eq!(end, wire.len());
            let sent = Content::of(&Message::from_bytes(wire));
            proptest::prop_assert!(!sent.stray_line_end && !sent.nul);
        }
    }
}
