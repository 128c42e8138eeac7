//! [`SpoolId`]: the name of a message in the spool.
//!
//! Invariant: ids sort by the time they were made, to the millisecond, and two of them never meet in practice
//! (80 random bits beside the time).
//!
//! Not here: who makes them (the driver at MAIL, so that a transaction that is asked twice is stored once).

use std::fmt;
use std::str::FromStr;

use postwright_core::{Entropy, Timestamp};

/// The digits of the text form: Crockford's base 32 in lower case, without the letters that look like digits.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters of the text form: 26 of 5 bits hold 130, of which the top two are zero.
const TEXT_LEN: usize = 26;

/// The name of a message in the spool: 48 bits of time in milliseconds, then 80 random bits.
///
/// As text it has 26 characters that fit into a `Received:` field, a file name or a reply, and sort like the id.
///
/// ```
/// use postwright_core::{SeededEntropy, Timestamp};
/// use postwright_queue::SpoolId;
/// let id = SpoolId::new(Timestamp::from_secs(1_800_000_000), &SeededEntropy::new(1));
/// assert_eq!(id.to_string().len(), 26);
/// assert_eq!(id.to_string().parse(), Ok(id));
/// assert_eq!(id.created(), Timestamp::from_secs(1_800_000_000));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpoolId([u8; 16]);

impl SpoolId {
    /// The lowest id: where a scan begins.
    pub const MIN: SpoolId = SpoolId([0; 16]);

    /// A new id.
    pub fn new(now: Timestamp, entropy: &dyn Entropy) -> SpoolId {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes);
        let [_, _, time @ ..] = now.millis().to_be_bytes();
        if let Some(head) = bytes.first_chunk_mut() {
            *head = time;
        }
        SpoolId(bytes)
    }

    /// From the octets of [`SpoolId::as_bytes`]; any 16 octets are an id.
    pub const fn from_bytes(bytes: [u8; 16]) -> SpoolId {
        SpoolId(bytes)
    }

    /// The id as octets, which sort like the id.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// When the id was made.
    pub fn created(&self) -> Timestamp {
        Timestamp::from_millis(self.number_of_milliseconds())
    }

    fn number_of_milliseconds(self) -> u64 {
        u64::try_from(u128::from_be_bytes(self.0) >> 80).unwrap_or(0)
    }
}

impl fmt::Display for SpoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = u128::from_be_bytes(self.0);
        let mut text = String::with_capacity(TEXT_LEN);
        for place in (0..TEXT_LEN).rev() {
            let digit = usize::try_from((number >> (5 * place)) & 31).unwrap_or(0);
            text.push(char::from(DIGITS[digit]));
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for SpoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a spool id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a spool id: want 26 characters of 0-9 and a-z without i, l, o and u, the first one at most 7")]
pub struct SpoolIdError;

impl FromStr for SpoolId {
    type Err = SpoolIdError;

    fn from_str(text: &str) -> Result<Self, SpoolIdError> {
        if text.len() != TEXT_LEN {
            return Err(SpoolIdError);
        }
        let mut number: u128 = 0;
        for c in text.bytes() {
            let digit = DIGITS.iter().position(|d| *d == c.to_ascii_lowercase()).ok_or(SpoolIdError)?;
            // The first digit holds three bits only.
            if number.leading_zeros() < 5 {
                return Err(SpoolIdError);
            }
            number = number << 5 | u128::try_from(digit).map_err(|_| SpoolIdError)?;
        }
        Ok(SpoolId(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use postwright_core::SeededEntropy;

    use super::*;

    #[test]
    fn the_text_form_is_that_of_crockford() {
        // The example of the ULID specification: 01ARZ3NDEKTSV4RRFFQ69G5FAV is 1469922850259 ms.
        let id: SpoolId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        assert_eq!(id.created(), Timestamp::from_millis(1_469_922_850_259));
        assert_eq!(id.to_string(), "01arz3ndektsv4rrffq69g5fav");
    }

    #[test]
    fn texts_that_are_no_ids() {
        for bad in
            ["", "01arz3ndektsv4rrffq69g5fa", "81arz3ndektsv4rrffq69g5fav", "0iarz3ndektsv4rrffq69g5fav"]
        {
            assert_eq!(bad.parse::<SpoolId>(), Err(SpoolIdError), "{bad:?}");
        }
        assert_eq!("7zzzzzzzzzzzzzzzzzzzzzzzzz".parse(), Ok(SpoolId([255; 16])));
    }

    proptest::proptest! {
        #[test]
        fn text_keeps_the_id_and_its_order(a: [u8; 16], b: [u8; 16]) {
            let (a, b) = (SpoolId(a), SpoolId(b));
            assert_eq!(a.to_string().parse(), Ok(a));
            assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
        }

        #[test]
        fn later_ids_sort_behind(millis in 0u64..1 << 47, step in 1u64..1000, seed: u64) {
            let entropy = SeededEntropy::new(seed);
            let first = SpoolId::new(Timestamp::from_millis(millis), &entropy);
            assert!(first < SpoolId::new(Timestamp::from_millis(millis + step), &entropy));
        }
    }
}
