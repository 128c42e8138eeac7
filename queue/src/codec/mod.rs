//! An [`Entry`] as octets: versioned, checksummed, by hand.
//!
//! Invariant: [`decode`] of [`encode`] is the same entry; any other octets give an error that says what is wrong,
//! never a panic, never an entry with parts missing, never an allocation larger than the input.
//!
//! ```text
//! frame   = "PWE" version payload crc32      version 1; crc32 (IEEE, little-endian) over all that precedes it
//! payload = numbers in base 128, texts and lists preceded by their length, options preceded by 0 or 1
//! ```
//!
//! Migration: a version that this code does not know is refused and left alone, so that a downgrade loses
//! nothing. A new version is a new `read_vN`; old ones stay readable for as long as such spools may exist.
//!
//! Not here: where the octets are kept (the spools).

mod status;
pub(crate) mod wire;

use std::collections::BTreeMap;

use postwright_core::envelope::DeliverBy;
use postwright_core::{Body, Envelope, MailOptions, Notify, OriginalRecipient, Recipient, Ret, ReversePath};

use crate::SpoolId;
use crate::entry::{Entry, Fate, HISTORY_MAX, Progress};
use status::{read_past, read_status, write_past, write_status};
use wire::{Reader, Writer};

const MAGIC: &[u8; 3] = b"PWE";
/// The version that [`encode`] writes.
pub const VERSION: u8 = 1;
/// Largest entry in octets: 10,000 recipients with long addresses and long replies fit (ours).
pub const ENTRY_MAX: usize = 32 * 1024 * 1024;

/// Why octets are not an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There is less than the record says.
    #[error("the record is cut short")]
    Truncated,
    /// The record does not begin like an entry.
    #[error("the record is not an entry")]
    Magic,
    /// The record was written by another version.
    #[error("the record has version {0}, which this program does not know")]
    Version(u8),
    /// The checksum does not agree: bits have changed.
    #[error("the checksum of the record does not agree")]
    Checksum,
    /// A part is out of its range; which.
    #[error("the record holds {0} that cannot be")]
    Malformed(&'static str),
}

/// The entry as octets.
pub fn encode(entry: &Entry) -> Vec<u8> {
    let mut w = Writer::with_capacity(160 + 96 * entry.envelope.recipients.len());
    w.raw(MAGIC);
    w.byte(VERSION);
    w.raw(entry.id.as_bytes());
    w.time(entry.created);
    w.time(entry.expires);
    w.number(entry.size);
    w.str(&entry.tenant);
    w.str(&entry.stream);
    w.len(entry.metadata.len());
    for (key, value) in &entry.metadata {
        w.str(key);
        w.bytes(value);
    }
    write_reverse_path(&mut w, &entry.envelope.reverse_path);
    write_options(&mut w, &entry.envelope.options);
    w.len(entry.envelope.recipients.len());
    for (index, recipient) in entry.envelope.recipients.iter().enumerate() {
        write_recipient(&mut w, recipient);
        match entry.progress.get(index) {
            Some(progress) => write_progress(&mut w, progress),
            None => write_progress(&mut w, &Progress::default()),
        }
    }
    let mut out = w.into_inner();
    let checksum = crc32fast::hash(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// The entry that the octets stand for.
pub fn decode(octets: &[u8]) -> Result<Entry, DecodeError> {
    let Some((framed, checksum)) = octets.split_last_chunk::<4>() else {
        return Err(DecodeError::Truncated);
    };
    let mut r = Reader::new(framed);
    if r.take(MAGIC.len())? != MAGIC {
        return Err(DecodeError::Magic);
    }
    let version = r.byte()?;
    if crc32fast::hash(framed) != u32::from_le_bytes(*checksum) {
        return Err(DecodeError::Checksum);
    }
    match version {
        VERSION => read_v1(&mut r),
        other => Err(DecodeError::Version(other)),
    }
}

fn read_v1(r: &mut Reader<'_>) -> Result<Entry, DecodeError> {
    let id = r.take(16)?.try_into().map_err(|_| DecodeError::Truncated)?;
    let (created, expires, size) = (r.time()?, r.time()?, r.number()?);
    let (tenant, stream) = (r.str()?.into(), r.str()?.into());
    let mut metadata = BTreeMap::new();
    for _ in 0..r.count()? {
        metadata.insert(r.str()?.into(), r.bytes()?.into());
    }
    let reverse_path = read_reverse_path(r)?;
    let options = read_options(r)?;
    let count = r.count()?;
    // Grown as they are read: a lying count costs nothing.
    let (mut recipients, mut progress) = (Vec::new(), Vec::new());
    for _ in 0..count {
        recipients.push(read_recipient(r)?);
        progress.push(read_progress(r)?);
    }
    r.end()?;
    let envelope = Envelope { reverse_path, recipients, options };
    let id = SpoolId::from_bytes(id);
    Ok(Entry { id, envelope, progress, created, expires, tenant, stream, size, metadata })
}

fn write_reverse_path(w: &mut Writer, path: &ReversePath) {
    w.option(path.mailbox(), |w, mailbox| w.str(&mailbox.to_string()));
}

fn read_reverse_path(r: &mut Reader<'_>) -> Result<ReversePath, DecodeError> {
    let mailbox = r.option(|r| r.parse("a reverse-path"))?;
    Ok(mailbox.map_or(ReversePath::Null, ReversePath::Mailbox))
}

fn write_options(w: &mut Writer, options: &MailOptions) {
    w.option(options.size, Writer::number);
    w.byte(match options.body {
        Body::SevenBit => 0,
        Body::EightBitMime => 1,
        Body::BinaryMime => 2,
    });
    w.bool(options.smtp_utf8);
    w.bool(options.require_tls);
    w.byte(match options.ret {
        None => 0,
        Some(Ret::Full) => 1,
        Some(Ret::Headers) => 2,
    });
    w.option(options.envelope_id.as_deref(), Writer::str);
    w.option(options.auth.as_ref(), write_reverse_path);
    w.option(options.deliver_by, |w, by| {
        w.time(by.deadline);
        w.bool(by.notify);
        w.bool(by.trace);
    });
    w.option(options.hold_until, Writer::time);
    // MT-PRIORITY as an octet of two's complement.
    w.option(options.priority, |w, priority| w.raw(&priority.to_le_bytes()));
}

fn read_options(r: &mut Reader<'_>) -> Result<MailOptions, DecodeError> {
    let mut options = MailOptions::default();
    options.size = r.option(Reader::number)?;
    options.body = match r.byte()? {
        0 => Body::SevenBit,
        1 => Body::EightBitMime,
        2 => Body::BinaryMime,
        _ => return Err(DecodeError::Malformed("a body type")),
    };
    options.smtp_utf8 = r.bool()?;
    options.require_tls = r.bool()?;
    options.ret = match r.byte()? {
        0 => None,
        1 => Some(Ret::Full),
        2 => Some(Ret::Headers),
        _ => return Err(DecodeError::Malformed("a RET")),
    };
    options.envelope_id = r.option(Reader::str)?.map(Into::into);
    options.auth = r.option(read_reverse_path)?;
    options.deliver_by =
        r.option(|r| Ok(DeliverBy { deadline: r.time()?, notify: r.bool()?, trace: r.bool()? }))?;
    options.hold_until = r.option(Reader::time)?;
    options.priority = r.option(|r| Ok(i8::from_le_bytes([r.byte()?])))?;
    Ok(options)
}

fn write_recipient(w: &mut Writer, recipient: &Recipient) {
    w.str(&recipient.mailbox.to_string());
    w.byte(match recipient.notify {
        None => 0,
        Some(Notify::Never) => 1,
        Some(Notify::When { success, failure, delay }) => {
            0x10 | u8::from(success) | u8::from(failure) << 1 | u8::from(delay) << 2
        }
    });
    w.option(recipient.original.as_ref(), |w, original| {
        w.str(&original.kind);
        w.str(&original.address);
    });
}

fn read_recipient(r: &mut Reader<'_>) -> Result<Recipient, DecodeError> {
    let mailbox = r.parse("a recipient")?;
    let notify = match r.byte()? {
        0 => None,
        1 => Some(Notify::Never),
        when @ 0x10..=0x17 => {
            Some(Notify::When { success: when & 1 != 0, failure: when & 2 != 0, delay: when & 4 != 0 })
        }
        _ => return Err(DecodeError::Malformed("a NOTIFY")),
    };
    let original = r.option(|r| Ok(OriginalRecipient { kind: r.str()?.into(), address: r.str()?.into() }))?;
    Ok(Recipient { mailbox, notify, original })
}

const FATES: [Fate; 6] =
    [Fate::Pending, Fate::Delivered, Fate::Relayed, Fate::Bounced, Fate::Expired, Fate::Cancelled];

fn write_progress(w: &mut Writer, progress: &Progress) {
    let fate = FATES.iter().position(|fate| *fate == progress.fate).unwrap_or(0);
    w.len(fate);
    w.number(progress.attempts.into());
    w.number(progress.steps.into());
    w.time(progress.due);
    w.bool(progress.warned);
    w.option(progress.last.as_ref(), write_status);
    w.len(progress.history.len());
    progress.history.iter().for_each(|past| write_past(w, past));
}

fn read_progress(r: &mut Reader<'_>) -> Result<Progress, DecodeError> {
    let fate = *FATES.get(usize::from(r.byte()?)).ok_or(DecodeError::Malformed("a fate"))?;
    let (attempts, steps, due) = (r.small()?, r.small()?, r.time()?);
    let (warned, last) = (r.bool()?, r.option(read_status)?);
    let count = r.count()?;
    if count > HISTORY_MAX {
        return Err(DecodeError::Malformed("a history"));
    }
    let history = (0..count).map(|_| read_past(r)).collect::<Result<_, _>>()?;
    Ok(Progress { fate, attempts, steps, due, warned, last, history })
}

#[cfg(test)]
mod tests;
