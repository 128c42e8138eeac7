//! A commit made ready for the writer: checked, encoded and cut into records on the caller's thread, so that the
//! one thread that writes does as little as possible.
//!
//! Invariant: a job that was prepared can be written; only its claims are still to be checked.
//!
//! Not here: the batch (writer).

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::SpoolError;
use crate::oneshot::Sender;
use crate::spool::{Change, Claim, Durability, SyncLevel};
use crate::{Entry, SpoolId, body, check, codec};

/// A change, ready to be written.
pub(super) enum Op {
    Put { id: SpoolId, entry: Bytes, records: Vec<Bytes> },
    Update { id: SpoolId, entry: Bytes },
    Remove { id: SpoolId },
    Release { id: SpoolId },
    Control { key: Box<str>, value: Option<Bytes> },
}

impl Op {
    /// The message that it changes, if it changes one.
    pub(super) fn id(&self) -> Option<SpoolId> {
        match self {
            Op::Put { id, .. } | Op::Update { id, .. } | Op::Remove { id } | Op::Release { id } => Some(*id),
            Op::Control { .. } => None,
        }
    }

    fn octets(&self) -> usize {
        match self {
            Op::Put { entry, records, .. } => entry.len() + records.iter().map(Bytes::len).sum::<usize>(),
            Op::Update { entry, .. } => entry.len(),
            Op::Remove { .. } | Op::Release { .. } => 0,
            Op::Control { key, value } => key.len() + value.as_ref().map_or(0, Bytes::len),
        }
    }
}

/// A commit, ready to be written.
pub(super) struct Job {
    pub(super) ops: Vec<Op>,
    /// Whether it brings new mail. One that also settles does not count: it makes room in the end.
    pub(super) accepts: bool,
    pub(super) sync: SyncLevel,
    pub(super) octets: usize,
    pub(super) reply: Sender<Result<Vec<Claim>, SpoolError>>,
}

impl Job {
    pub(super) fn prepare(
        changes: Vec<Change>,
        durability: Durability,
        reply: Sender<Result<Vec<Claim>, SpoolError>>,
    ) -> Result<Job, SpoolError> {
        check::changes(&changes)?;
        let sync = durability.for_changes(&changes);
        let accepts = check::accepts(&changes);
        let mut ops = Vec::with_capacity(changes.len());
        for change in changes {
            ops.push(match change {
                Change::Put { mut entry, body } => {
                    entry.size = body.len() as u64;
                    let records = body::pack(&body);
                    Op::Put { id: entry.id, entry: value(&entry, records.len())?, records }
                }
                Change::Update { claim, entry } => {
                    let pieces = body::pieces(entry.size);
                    Op::Update { id: claim.id, entry: value(&entry, pieces)? }
                }
                Change::Remove { claim } => Op::Remove { id: claim.id },
                Change::Release { claim } => Op::Release { id: claim.id },
                Change::Control { key, value } => Op::Control { key, value },
            });
        }
        let octets = ops.iter().map(Op::octets).sum();
        Ok(Job { ops, accepts, sync, octets, reply })
    }
}

/// The value of an entry: the number of its pieces, so that it can be removed without being decoded, then its code.
fn value(entry: &Entry, pieces: usize) -> Result<Bytes, SpoolError> {
    let code = codec::encode(entry);
    if code.len() > codec::ENTRY_MAX {
        return Err(SpoolError::Invalid("an entry has at most 32 MiB"));
    }
    let pieces = u32::try_from(pieces).map_err(|_| SpoolError::Invalid("the body is too large"))?;
    let mut value = BytesMut::with_capacity(4 + code.len());
    value.put_u32_le(pieces);
    value.extend_from_slice(&code);
    Ok(value.freeze())
}

/// Takes a value apart.
pub(super) fn split(value: &[u8]) -> Option<(u32, &[u8])> {
    let (pieces, code) = value.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*pieces), code))
}
