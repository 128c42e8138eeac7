//! DATA and BDAT: receiving a message.
//!
//! Invariant: the octets of a refused message or chunk are consumed exactly, so that they are never taken for
//! commands; after a refusal there is no transaction (I9).
//!
//! Standards: RFC 5321 4.1.1.4, 4.5.2; RFC 3030; RFC 2033 4.2; RFC 2920 3.1.
//!
//! Not here: dots ([`data`](crate::data)), what the embedder says (`answers.rs`).

use postwright_core::{Body, EnhancedStatus, Refusal, Reply};

use super::config::Protocol;
use super::dispatch::{BAD_SEQUENCE, OK};
use super::mail::too_big;
use super::session::{Next, Phase, Session, Topic};
use super::step::CloseReason;
use crate::data::Piece;

/// A [`Piece`] without its borrow: octets to skip and octets in all.
pub(super) enum Found {
    Text(usize, usize),
    More,
    End(usize),
    Bad,
}

impl From<Piece<'_>> for Found {
    fn from(piece: Piece<'_>) -> Found {
        match piece {
            Piece::Text { text, consumed } => Found::Text(consumed - text.len(), consumed),
            Piece::More => Found::More,
            Piece::End { consumed } => Found::End(consumed),
            Piece::Bad => Found::Bad,
        }
    }
}

impl Session {
    pub(super) fn on_data(&mut self) {
        let Some(transaction) = &self.transaction else {
            return self.refuse(503, BAD_SEQUENCE, "Send MAIL and RCPT first");
        };
        // RFC 3030 2 and 3: DATA cannot follow BDAT, nor carry BINARYMIME.
        if transaction.by_chunks || transaction.envelope.options.body == Body::BinaryMime {
            self.refuse(503, BAD_SEQUENCE, "This message must come by BDAT");
            return self.reset();
        }
        if transaction.envelope.recipients.is_empty() {
            let code = if self.config.protocol == Protocol::Lmtp { 503 } else { 554 };
            return self.refuse(code, BAD_SEQUENCE, "No valid recipients");
        }
        if !self.early_talk() {
            self.ask(Topic::Data);
        }
    }

    pub(super) fn on_bdat(&mut self, size: u64, last: bool) {
        let Some(transaction) = &self.transaction else {
            let reply = Reply::known(503, BAD_SEQUENCE, "Send MAIL and RCPT first");
            return self.skip_chunk(size, reply);
        };
        if !self.config.chunking {
            let reply = Reply::known(502, BAD_SEQUENCE, "CHUNKING is not offered");
            return self.skip_chunk(size, reply);
        }
        if transaction.envelope.recipients.is_empty() {
            let code = if self.config.protocol == Protocol::Lmtp { 503 } else { 554 };
            return self.skip_chunk(size, Reply::known(code, BAD_SEQUENCE, "No valid recipients"));
        }
        let total = transaction.size.saturating_add(size);
        let begun = transaction.by_chunks;
        if total > self.limits().message_size {
            return self.skip_chunk(size, too_big().into_reply());
        }
        if size == 0 && !last {
            self.junk();
        }
        if begun {
            self.phase = Phase::Chunk { left: size, last };
        } else {
            self.ask(Topic::FirstChunk { size, last });
        }
    }

    /// The embedder agreed to the message: the first chunk may come.
    pub(super) fn begin_chunks(&mut self, size: u64, last: bool) {
        if let Some(transaction) = &mut self.transaction {
            transaction.by_chunks = true;
        }
        self.timers.body_begins();
        self.phase = Phase::Chunk { left: size, last };
    }

    /// Refuses a chunk: its octets are read and dropped, the transaction is gone, and the reply comes behind them.
    pub(super) fn skip_chunk(&mut self, size: u64, reply: Reply) {
        self.reset();
        self.count_error();
        if size > self.limits().chunk_discard {
            self.output.reply(&reply);
            return self.close(CloseReason::Oversize);
        }
        self.timers.body_begins();
        self.phase = Phase::SkipChunk { left: size, reply };
    }

    /// Agreed to DATA.
    pub(super) fn begin_data(&mut self) {
        self.phase = Phase::Data(crate::data::DotDecoder::new());
        self.output.say(354, None, "End data with <CR><LF>.<CR><LF>");
        self.timers.body_begins();
    }

    pub(super) fn advance_data(&mut self, found: Found) -> Next {
        match found {
            Found::More => Next::Input,
            Found::Text(skipped, all) => self.take_text(skipped, all),
            Found::Bad => {
                let text = "Bare CR, LF or NUL in the message (RFC 5321 2.3.8)";
                self.output.say(521, Some(EnhancedStatus::known(5, 5, 2)), text);
                self.close(CloseReason::BadLineEnding);
                Next::Again
            }
            Found::End(consumed) => {
                self.input.take(consumed);
                self.message_came();
                Next::Again
            }
        }
    }

    /// Text of a message: to the embedder, or to nowhere if the message is refused already.
    fn take_text(&mut self, skipped: usize, all: usize) -> Next {
        let limits = &self.config.limits;
        let Some(transaction) = &mut self.transaction else {
            self.input.take(all);
            return Next::Again;
        };
        let text = self.input.as_slice().get(skipped..all).unwrap_or_default();
        transaction.size = transaction.size.saturating_add(text.len() as u64);
        if transaction.refused.is_none() {
            if transaction.size > limits.message_size {
                transaction.refused = Some(too_big());
            } else if limits.text_line.is_some_and(|max| has_longer_line(text, &mut transaction.line, max)) {
                let status = EnhancedStatus::known(5, 6, 0);
                transaction.refused = Some(Refusal::known(554, status, "A line of the message is too long"));
            } else {
                return Next::Lend(skipped, all);
            }
            self.forget_body();
        }
        self.input.take(all);
        Next::Again
    }

    pub(super) fn advance_chunk(&mut self, left: u64, last: bool) -> Next {
        let at_hand = self.input.as_slice().len();
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(at_hand);
        if now > 0 {
            self.phase = Phase::Chunk { left: left.saturating_sub(now as u64), last };
            if let Some(transaction) = &mut self.transaction {
                transaction.size = transaction.size.saturating_add(now as u64);
            }
            return Next::Lend(0, now);
        }
        if left > 0 {
            return Next::Input;
        }
        if last {
            self.message_came();
        } else {
            self.output.say(250, Some(OK), "Chunk received");
            self.phase = Phase::Command;
        }
        Next::Again
    }

    pub(super) fn advance_skip_chunk(&mut self) -> Next {
        let Phase::SkipChunk { left, reply } = &mut self.phase else { return Next::Again };
        let now = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.as_slice().len());
        self.input.take(now);
        *left = left.saturating_sub(now as u64);
        if *left > 0 {
            return Next::Input;
        }
        self.output.reply(reply);
        self.timers.body_ends();
        self.phase = Phase::Command;
        Next::Again
    }

    /// The end of the message is found: the decision is due, or made already.
    fn message_came(&mut self) {
        self.timers.body_ends();
        self.timers.progress();
        self.phase = Phase::Command;
        self.counts.transactions = self.counts.transactions.saturating_add(1);
        let Some(transaction) = &mut self.transaction else { return };
        match transaction.refused.take() {
            None => self.ask(Topic::Message),
            Some(refusal) => {
                self.count_error();
                self.reply_for_message(refusal.reply());
                // The driver has heard of the reset when the message was refused.
                self.transaction = None;
            }
        }
    }

    /// One reply, or in LMTP the same for each recipient (RFC 2033 4.2).
    pub(super) fn reply_for_message(&mut self, reply: &Reply) {
        let recipients = self.transaction.as_ref().map_or(1, |open| open.envelope.recipients.len());
        let times = if self.config.protocol == Protocol::Lmtp { recipients } else { 1 };
        for _ in 0..times {
            self.output.reply(reply);
        }
    }
}

/// Whether a line of `text` is longer than `max` octets, CRLF included. `open` counts what is known of the first line
/// and is left with what is known of the last. Looks only at the last line end within each `max` octets.
fn has_longer_line(text: &[u8], open: &mut usize, max: usize) -> bool {
    let mut rest = text;
    while let Some(window) = rest.get(..max.saturating_sub(*open)).filter(|window| window.len() < rest.len())
    {
        let Some(end) = memchr::memrchr(b'\n', window) else { return true };
        rest = rest.get(end + 1..).unwrap_or_default();
        *open = 0;
    }
    *open = match memchr::memrchr(b'\n', rest) {
        Some(end) => rest.len() - end - 1,
        None => open.saturating_add(rest.len()),
    };
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn longer_lines_are_found_for_every_cut(
            lines in proptest::collection::vec(0usize..30, 0..12),
            tail in 0usize..30,
            cuts in proptest::collection::vec(0usize..300, 0..6),
            max in 1usize..32,
        ) {
            let mut text: Vec<u8> = lines.iter().flat_map(|len| [vec![b'x'; *len], b"\r\n".to_vec()].concat()).collect();
            text.resize(text.len() + tail, b'x');
            let expected = lines.iter().any(|len| len + 2 > max) || tail > max;
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let mut open = 0;
            let found = cuts.windows(2).any(|cut| has_longer_line(&text[cut[0]..cut[1]], &mut open, max));
            proptest::prop_assert_eq!(found, expected);
            proptest::prop_assert!(found || open == tail);
        }
    }
}
