//! The body of a message as records: pieces of at most [`PIECE_MAX`] octets, each with a checksum behind it.
//!
//! Invariant: [`unpack`] of [`pack`] is the same message; a changed bit, a lost or an extra piece is found.
//!
//! Not here: where the records are kept.

use bytes::{Bytes, BytesMut};
use postwright_core::Message;

use crate::error::DamageReason;
use crate::spool::PIECE_MAX;

const CHECKSUM_LEN: usize = 4;

/// The records of a body; an empty body has none.
pub(crate) fn pack(body: &Message) -> Vec<Bytes> {
    let mut records = Vec::with_capacity(pieces(body.len() as u64));
    let mut left = body.len();
    let mut open = BytesMut::new();
    for chunk in body.chunks() {
        let mut rest: &[u8] = chunk;
        while !rest.is_empty() {
            if open.is_empty() {
                open.reserve(left.min(PIECE_MAX) + CHECKSUM_LEN);
            }
            let (now, later) = rest.split_at(rest.len().min(PIECE_MAX - open.len()));
            open.extend_from_slice(now);
            left -= now.len();
            rest = later;
            if open.len() == PIECE_MAX {
                records.push(seal(std::mem::take(&mut open)));
            }
        }
    }
    if !open.is_empty() {
        records.push(seal(open));
    }
    records
}

/// How many records a body of so many octets has.
pub(crate) fn pieces(size: u64) -> usize {
    usize::try_from(size.div_ceil(PIECE_MAX as u64)).unwrap_or(usize::MAX)
}

fn seal(mut piece: BytesMut) -> Bytes {
    let checksum = crc32fast::hash(&piece);
    piece.extend_from_slice(&checksum.to_le_bytes());
    piece.freeze()
}

/// The piece that a record holds; `index` is for the error only.
pub(crate) fn open(record: &Bytes, index: u32) -> Result<Bytes, DamageReason> {
    let broken = DamageReason::BodyChecksum(index);
    let Some((piece, checksum)) = record.split_last_chunk::<CHECKSUM_LEN>() else {
        return Err(broken);
    };
    if crc32fast::hash(piece) != u32::from_le_bytes(*checksum) {
        return Err(broken);
    }
    Ok(record.slice(..piece.len()))
}

/// The body that the records hold, which must have `expected` octets.
pub(crate) fn unpack(
    records: impl IntoIterator<Item = Bytes>,
    expected: u64,
) -> Result<Message, DamageReason> {
    let mut pieces = Vec::new();
    for (record, index) in records.into_iter().zip(0..) {
        pieces.push(open(&record, index)?);
    }
    let body = Message::from_chunks(pieces);
    let found = body.len() as u64;
    if found == expected { Ok(body) } else { Err(DamageReason::BodyLength { expected, found }) }
}

#[cfg(test)]
mod tests {
    use postwright_core::HeaderField;

    use super::*;

    fn message(len: usize) -> Message {
        let octets: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
        Message::from_bytes(octets)
    }

    #[test]
    fn bodies_come_back_at_every_edge() {
        for len in [0, 1, PIECE_MAX - 1, PIECE_MAX, PIECE_MAX + 1, 3 * PIECE_MAX + 5] {
            let body = message(len).prepend(HeaderField::new("X-Top", "1").unwrap());
            let records = pack(&body);
            assert!(records.iter().all(|record| record.len() <= PIECE_MAX + CHECKSUM_LEN));
            assert_eq!(unpack(records, body.len() as u64), Ok(body), "{len}");
        }
        assert!(pack(&message(0)).is_empty());
    }

    #[test]
    fn damage_is_found() {
        let body = message(PIECE_MAX + 100);
        let records = pack(&body);
        let len = body.len() as u64;
        for record in 0..2 {
            for at in [0, 50, 103] {
                let mut damaged = records.clone();
                let mut octets = damaged[record].to_vec();
                octets[at] ^= 0x10;
                damaged[record] = octets.into();
                assert_eq!(unpack(damaged, len), Err(DamageReason::BodyChecksum(record as u32)));
            }
        }
        let short = DamageReason::BodyLength { expected: len, found: PIECE_MAX as u64 };
        assert_eq!(unpack(records[..1].to_vec(), len), Err(short));
        assert_eq!(unpack([Bytes::from_static(b"abc")], 0), Err(DamageReason::BodyChecksum(0)));
    }
}
