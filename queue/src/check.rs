//! What every spool checks before it writes and after it reads, so that they agree: for those who write one.
//!
//! ```
//! use postwright_queue::contract::sample;
//! use postwright_queue::{Change, SpoolError, check};
//!
//! let (entry, body) = sample(1);
//! let put = Change::Put { entry, body };
//! assert_eq!(check::changes(&[put.clone()]), Ok(()));
//! assert!(matches!(check::changes(&[put.clone(), put]), Err(SpoolError::Invalid(_)))); // one message, twice
//! ```
//!
//! Invariant: changes that pass can be written; an entry that passes belongs to its key.
//!
//! Not here: whether a claim holds (each spool knows its own).

use std::collections::BTreeSet;

use crate::codec::{self, DecodeError};
use crate::error::{DamageReason, SpoolError};
use crate::spool::{CONTROL_KEY_MAX, CONTROL_VALUE_MAX, Change};
use crate::{Entry, SpoolId};

/// Refuses changes that no spool can store, and two changes of one message in one commit. The first thing that a
/// commit does.
///
/// # Errors
/// [`SpoolError::Invalid`], which says what is wrong.
pub fn changes(changes: &[Change]) -> Result<(), SpoolError> {
    let mut seen = BTreeSet::new();
    for change in changes {
        let id = match change {
            Change::Put { entry, .. } => {
                shape(entry)?;
                entry.id
            }
            Change::Update { claim, entry } => {
                shape(entry)?;
                if claim.id != entry.id {
                    return Err(SpoolError::Invalid(
                        "the claim and the entry of an update name two messages",
                    ));
                }
                claim.id
            }
            Change::Remove { claim } | Change::Release { claim } => claim.id,
            Change::Control { key, value } => {
                if key.is_empty() || key.len() > CONTROL_KEY_MAX {
                    return Err(SpoolError::Invalid("the key of a control has 1 to 512 octets"));
                }
                if value.as_ref().is_some_and(|value| value.len() > CONTROL_VALUE_MAX) {
                    return Err(SpoolError::Invalid("the value of a control has at most 65536 octets"));
                }
                continue;
            }
        };
        if !seen.insert(id) {
            return Err(SpoolError::Invalid("a commit changes a message at most once"));
        }
    }
    Ok(())
}

/// Whether changes bring new mail. A notification that settles its original does not count: together they make
/// room in the end, so a full spool takes them.
pub fn accepts(changes: &[Change]) -> bool {
    let settles = |change: &Change| matches!(change, Change::Remove { .. } | Change::Update { .. });
    changes.iter().any(|change| matches!(change, Change::Put { .. })) && !changes.iter().any(settles)
}

fn shape(entry: &Entry) -> Result<(), SpoolError> {
    if entry.progress.len() != entry.envelope.recipients.len() {
        return Err(SpoolError::Invalid("an entry has one progress for each recipient"));
    }
    Ok(())
}

/// Decodes an entry and checks that it belongs to its key.
///
/// # Errors
/// Why the record is damaged: it is no entry, or that of another message.
pub fn entry(id: SpoolId, octets: &[u8]) -> Result<Entry, DamageReason> {
    if octets.len() > codec::ENTRY_MAX {
        return Err(DamageReason::Entry(DecodeError::Malformed("a length")));
    }
    let entry = codec::decode(octets)?;
    if entry.id == id { Ok(entry) } else { Err(DamageReason::WrongId(entry.id)) }
}
