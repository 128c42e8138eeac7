//! A spool as one stream of octets: for moving it to another machine, another kind of spool, another format.
//!
//! ```text
//! archive = "PWX1" *record end          numbers are little-endian; a checksum is crc32 over its record's octets
//! record  = 1 len32 entry len64 body checksum        entry as the codec writes it
//!         / 2 len32 key len32 value checksum         a control
//! end     = 0 count64 checksum                       the number of records
//! ```
//!
//! Invariant: what is read was written: a changed bit, a lost record or a missing end is an error, and what came
//! before it was good. Reading needs memory for one message, however long it claims to be.
//!
//! Not here: where the octets go (files and pipes are the caller's).

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use postwright_core::Message;

use crate::Entry;
use crate::codec::{self, DecodeError, ENTRY_MAX};
use crate::spool::{CONTROL_KEY_MAX, CONTROL_VALUE_MAX, PIECE_MAX};

const MAGIC: &[u8; 4] = b"PWX1";
const END: u8 = 0;
const MESSAGE: u8 = 1;
const CONTROL: u8 = 2;

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A message.
    Message {
        /// What is known about it.
        entry: Box<Entry>,
        /// The message.
        body: Message,
    },
    /// A control.
    Control {
        /// Its key.
        key: Box<str>,
        /// Its value.
        value: Bytes,
    },
}

/// Why an archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The file or pipe failed, or ended too early.
    #[error("the archive cannot be read or written: {0}")]
    Io(#[from] io::Error),
    /// It is not an archive of this version.
    #[error("not an archive of a spool (it does not begin with PWX1)")]
    Magic,
    /// A record has changed; which one, counted from 0.
    #[error("record {0} of the archive is damaged")]
    Checksum(u64),
    /// An entry cannot be decoded.
    #[error("record {number} of the archive: {reason}")]
    Entry {
        /// Which record, counted from 0.
        number: u64,
        /// Why not.
        reason: DecodeError,
    },
    /// A length or a kind is impossible.
    #[error("record {0} of the archive cannot be")]
    Malformed(u64),
}

/// Writes an archive. Without [`ArchiveWriter::finish`] it is not complete, and readers say so.
pub struct ArchiveWriter<W> {
    out: W,
    count: u64,
    checksum: crc32fast::Hasher,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins an archive.
    pub fn new(mut out: W) -> Result<ArchiveWriter<W>, ArchiveError> {
        out.write_all(MAGIC)?;
        Ok(ArchiveWriter { out, count: 0, checksum: crc32fast::Hasher::new() })
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.checksum.update(octets);
        self.out.write_all(octets)
    }

    fn seal(&mut self) -> io::Result<()> {
        let checksum = std::mem::take(&mut self.checksum).finalize();
        self.out.write_all(&checksum.to_le_bytes())
    }

    fn short(&mut self, octets: &[u8]) -> io::Result<()> {
        self.write(&u32::try_from(octets.len()).unwrap_or(u32::MAX).to_le_bytes())?;
        self.write(octets)
    }

    /// Adds a message.
    pub fn message(&mut self, entry: &Entry, body: &Message) -> Result<(), ArchiveError> {
        self.write(&[MESSAGE])?;
        self.short(&codec::encode(entry))?;
        self.write(&(body.len() as u64).to_le_bytes())?;
        for chunk in body.chunks() {
            self.write(chunk)?;
        }
        self.count += 1;
        Ok(self.seal()?)
    }

    /// Adds a control.
    pub fn control(&mut self, key: &str, value: &[u8]) -> Result<(), ArchiveError> {
        self.write(&[CONTROL])?;
        self.short(key.as_bytes())?;
        self.short(value)?;
        self.count += 1;
        Ok(self.seal()?)
    }

    /// Ends the archive and returns what it was written to.
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        self.write(&[END])?;
        self.write(&self.count.to_le_bytes())?;
        self.seal()?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Reads an archive, record by record; after an error there is no more.
pub struct ArchiveReader<R> {
    input: R,
    count: u64,
    checksum: crc32fast::Hasher,
    done: bool,
}

impl<R: Read> ArchiveReader<R> {
    /// Begins to read.
    pub fn new(mut input: R) -> Result<ArchiveReader<R>, ArchiveError> {
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        if &magic != MAGIC {
            return Err(ArchiveError::Magic);
        }
        Ok(ArchiveReader { input, count: 0, checksum: crc32fast::Hasher::new(), done: false })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ArchiveError> {
        let mut octets = [0; N];
        self.input.read_exact(&mut octets)?;
        self.checksum.update(&octets);
        Ok(octets)
    }

    /// Octets in pieces, so that a length that lies costs no more than what is there.
    fn pieces(&mut self, mut len: u64) -> Result<Vec<Bytes>, ArchiveError> {
        let mut pieces = Vec::new();
        while len > 0 {
            let size = usize::try_from(len).unwrap_or(PIECE_MAX).min(PIECE_MAX);
            let mut piece = BytesMut::zeroed(size);
            self.input.read_exact(&mut piece)?;
            self.checksum.update(&piece);
            pieces.push(piece.freeze());
            len -= size as u64;
        }
        Ok(pieces)
    }

    fn short(&mut self, most: usize) -> Result<Vec<u8>, ArchiveError> {
        let len = u32::from_le_bytes(self.array()?);
        if usize::try_from(len).map_or(true, |len| len > most) {
            return Err(ArchiveError::Malformed(self.count));
        }
        Ok(self.pieces(u64::from(len))?.concat())
    }

    fn check_seal(&mut self) -> Result<(), ArchiveError> {
        let computed = std::mem::take(&mut self.checksum).finalize();
        let mut stored = [0; 4];
        self.input.read_exact(&mut stored)?;
        if u32::from_le_bytes(stored) == computed { Ok(()) } else { Err(ArchiveError::Checksum(self.count)) }
    }

    fn record(&mut self) -> Result<Option<Record>, ArchiveError> {
        let number = self.count;
        let [kind] = self.array()?;
        let record = match kind {
            END => {
                let count = u64::from_le_bytes(self.array()?);
                self.check_seal()?;
                return if count == number { Ok(None) } else { Err(ArchiveError::Malformed(number)) };
            }
            MESSAGE => {
                let code = self.short(ENTRY_MAX)?;
                let len = u64::from_le_bytes(self.array()?);
                let body = Message::from_chunks(self.pieces(len)?);
                self.check_seal()?;
                let entry = codec::decode(&code).map_err(|reason| ArchiveError::Entry { number, reason })?;
                Record::Message { entry: Box::new(entry), body }
            }
            CONTROL => {
                let key = String::from_utf8(self.short(CONTROL_KEY_MAX)?);
                let value = self.short(CONTROL_VALUE_MAX)?.into();
                self.check_seal()?;
                Record::Control { key: key.map_err(|_| ArchiveError::Malformed(number))?.into(), value }
            }
            _ => return Err(ArchiveError::Malformed(number)),
        };
        self.count += 1;
        Ok(Some(record))
    }
}

impl<R: Read> Iterator for ArchiveReader<R> {
    type Item = Result<Record, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let record = self.record().transpose();
        self.done = !matches!(record, Some(Ok(_)));
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::sample;

    fn archive() -> (Vec<u8>, Vec<Record>) {
        let mut writer = ArchiveWriter::new(Vec::new()).unwrap();
        let mut records = Vec::new();
        for number in 0..3 {
            let (entry, body) = sample(number);
            writer.message(&entry, &body).unwrap();
            records.push(Record::Message { entry: Box::new(entry), body });
        }
        writer.control("order/x", b"value").unwrap();
        records.push(Record::Control { key: "order/x".into(), value: Bytes::from_static(b"value") });
        (writer.finish().unwrap(), records)
    }

    fn read(octets: &[u8]) -> Result<Vec<Record>, ArchiveError> {
        ArchiveReader::new(octets)?.collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let (octets, records) = archive();
        assert_eq!(read(&octets).unwrap(), records);
    }

    #[test]
    fn a_changed_bit_or_a_lost_tail_is_an_error() {
        let (octets, _) = archive();
        for at in (0..octets.len()).step_by(37) {
            let mut changed = octets.clone();
            changed[at] ^= 4;
            assert!(read(&changed).is_err(), "octet {at}");
            assert!(read(&octets[..at]).is_err(), "cut to {at}");
        }
        assert!(matches!(read(b"PWX2"), Err(ArchiveError::Magic)));
        // A length beyond all measure fails when the octets end, not before.
        let mut lying = b"PWX1\x01".to_vec();
        lying.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(read(&lying), Err(ArchiveError::Malformed(0))));
    }
}
