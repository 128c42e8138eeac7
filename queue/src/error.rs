//! What a spool can answer instead of doing its work: [`SpoolError`], and whose [`Fault`] it is.
//!
//! Invariant: an error tells back-pressure (refuse, go on draining) from damage (one record is bad), from the
//! environment (the disk, the database) and from a mistake of the caller.
//!
//! Standards: RFC 5321 4.2.3 (451, 452), RFC 3463 3.4 (4.3.x).
//!
//! Not here: what a client hears in the end (the server decides; [`SpoolError::refusal`] is the usual answer).

use postwright_core::{EnhancedStatus, Refusal};

use crate::SpoolId;
use crate::codec::DecodeError;

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("message {id}: {reason}")]
pub struct Damage {
    /// The message that it belonged to.
    pub id: SpoolId,
    /// What is wrong.
    pub reason: DamageReason,
    /// Whether it has been put aside, so that nothing trips over it again.
    pub quarantined: bool,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DamageReason {
    /// The entry cannot be decoded.
    #[error("{0}")]
    Entry(#[from] DecodeError),
    /// The entry names another message.
    #[error("the entry belongs to message {0}")]
    WrongId(SpoolId),
    /// The body has another length than the entry says.
    #[error("the body has {found} octets instead of {expected}")]
    BodyLength {
        /// Octets that the entry promises.
        expected: u64,
        /// Octets that are there.
        found: u64,
    },
    /// The checksum of a piece of the body does not agree.
    #[error("the checksum of piece {0} of the body does not agree")]
    BodyChecksum(u32),
    /// The store below found its own block broken; what it says.
    #[error("the store below: {0}")]
    Store(Box<str>),
}

/// What a spool answers instead of doing its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// Too little space is free. Refuse new mail, go on delivering: space comes back by itself.
    #[error("the spool is full: {free} octets are free, {min} have to stay free; free some space")]
    Full {
        /// Octets free.
        free: u64,
        /// Octets that have to stay free.
        min: u64,
    },
    /// More commits wait than the spool lets wait. Refuse, or try again in a moment.
    #[error("the spool is busy: {waiting} commits wait")]
    Busy {
        /// Commits that wait.
        waiting: usize,
    },
    /// The disk or the database below failed; the spool is recovering or waiting for it.
    #[error("the spool is not available: {0}")]
    Unavailable(Box<str>),
    /// The work was not done within the time that the caller or the configuration gave it.
    #[error("the spool did not answer in time")]
    Deadline,
    /// A record is damaged.
    #[error("damaged record: {0}")]
    Damaged(#[from] Damage),
    /// There is no such message.
    #[error("message {0} is not in the spool")]
    NotFound(SpoolId),
    /// The claim was lost: another node works on the message, or the spool crashed in between.
    #[error("the claim on message {0} is lost")]
    Fenced(SpoolId),
    /// Another process has the spool open.
    #[error("the spool {0} is in use by another process; stop that one, or choose another directory")]
    Locked(Box<str>),
    /// The spool was written by another version.
    #[error(
        "the spool has format version {found}, this program knows {known}; use a program of that version to export it"
    )]
    Format {
        /// The version on disk.
        found: u32,
        /// The version that this program writes.
        known: u32,
    },
    /// The caller asked for something that cannot be; what.
    #[error("the spool was asked for something that cannot be: {0}")]
    Invalid(&'static str),
    /// The spool was closed.
    #[error("the spool is closed")]
    Closed,
}

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The caller asked for too much, too late or too quickly: a deadline, a lost claim, an unknown id.
    Caller,
    /// Nobody's: there is more mail than room. It passes.
    BackPressure,
    /// A record is damaged; the rest of the spool is fine.
    Damage,
    /// The disk, the database or the operating system.
    Environment,
}

impl SpoolError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            SpoolError::Full { .. } | SpoolError::Busy { .. } => Fault::BackPressure,
            SpoolError::Damaged(_) => Fault::Damage,
            SpoolError::Unavailable(_) | SpoolError::Locked(_) | SpoolError::Format { .. } => {
                Fault::Environment
            }
            SpoolError::Deadline
            | SpoolError::NotFound(_)
            | SpoolError::Fenced(_)
            | SpoolError::Invalid(_)
            | SpoolError::Closed => Fault::Caller,
        }
    }

    /// What a client hears whose message could not be stored: 452 4.3.1 under back-pressure, else 451 4.3.0.
    ///
    /// It is never a 5xx, since nothing is wrong with the message.
    pub fn refusal(&self) -> Refusal {
        match self.fault() {
            Fault::BackPressure => Refusal::known(
                452,
                EnhancedStatus::known(4, 3, 1),
                "Insufficient system storage, try again later",
            ),
            _ => Refusal::known(
                451,
                EnhancedStatus::known(4, 3, 0),
                "Cannot store the message at present, try again later",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_temporary() {
        let full = SpoolError::Full { free: 1, min: 2 };
        assert!(full.refusal().reply().to_string().starts_with("452 4.3.1 "));
        for error in [SpoolError::Closed, SpoolError::Deadline, SpoolError::Unavailable("disk".into())] {
            assert!(error.refusal().reply().to_string().starts_with("451 4.3.0 "), "{error}");
        }
        assert_eq!(SpoolError::Busy { waiting: 9 }.fault(), Fault::BackPressure);
        assert_eq!(SpoolError::Fenced(SpoolId::MIN).fault(), Fault::Caller);
    }
}
