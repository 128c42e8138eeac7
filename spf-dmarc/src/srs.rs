//! SRS: rewriting the sender of forwarded mail, so that the forwarder's SPF holds and bounces find their way back.
//!
//! Invariant: an address that [`Srs::reverse`] opens was made by [`Srs::forward`] with one of our keys, not longer
//! ago than [`Srs::with_max_age`]: nobody can make us send mail to an address of their choice.
//!
//! Standards: none; the form is that of the SRS paper (SRS0, SRS1) of 2004. RFC 5321 4.5.3.1.1 limits it.
//!
//! Not here: when to rewrite (only mail that leaves for another domain, never a null reverse-path).

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use postwright_core::{AddressError, Domain, Mailbox, Timestamp};
use sha2::Sha256;

/// Letters of the hash: 40 bits, so that guessing is hopeless and short addresses stay short.
const HASH_LEN: usize = 8;
/// The alphabet of RFC 4648 base32: no letter is lost if somebody changes case.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Days are counted modulo this: two letters.
const DAYS: u64 = 1024;

/// Why an address cannot be rewritten, or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SrsError {
    /// The address has no domain to come back to.
    #[error("an address literal cannot be rewritten")]
    NoDomain,
    /// The rewritten address is no valid one; most often it is too long.
    #[error("the rewritten address is not valid: {0}")]
    Address(#[from] AddressError),
    /// Not at our domain, or not in the form.
    #[error("not an address that we have rewritten")]
    NotOurs,
    /// The hash is wrong: a forgery, or a key that is gone.
    #[error("the hash of the address is wrong")]
    Hash,
    /// Too old, or from the future.
    #[error("the address has expired")]
    Expired,
}

/// Rewrites and opens addresses.
///
/// ```
/// use postwright_core::{Mailbox, Timestamp};
/// use postwright_spf_dmarc::srs::Srs;
/// let srs = Srs::new("forward.example".parse()?, [b"a secret of ours".to_vec()]);
/// let sender: Mailbox = "joe@example.org".parse()?;
/// let now = Timestamp::from_secs(1_800_000_000);
/// let rewritten = srs.forward(&sender, now)?;
/// assert!(rewritten.local().starts_with("SRS0="));
/// assert_eq!(srs.reverse(&rewritten, now)?, sender);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Srs {
    domain: Domain,
    keys: Vec<Vec<u8>>,
    max_age: Duration,
}

/// The keys stay out of logs.
impl std::fmt::Debug for Srs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Srs")
            .field("domain", &self.domain)
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

impl Srs {
    /// For our domain. The first key signs, all are tried on the way back: put a new one in front to change keys.
    pub fn new(domain: Domain, keys: impl IntoIterator<Item = Vec<u8>>) -> Srs {
        Srs { domain, keys: keys.into_iter().collect(), max_age: Duration::from_secs(21 * 86_400) }
    }

    /// For how long bounces find their way back; 21 days unless said otherwise, 500 at most.
    #[must_use]
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = age.min(Duration::from_secs(500 * 86_400));
        self
    }

    /// Rewrites a sender to an address at our domain. An address of ours stays as it is; one that another forwarder
    /// has rewritten becomes SRS1, which keeps its inner part.
    pub fn forward(&self, sender: &Mailbox, now: Timestamp) -> Result<Mailbox, SrsError> {
        let domain = sender.domain().ok_or(SrsError::NoDomain)?;
        if *domain == self.domain {
            return Ok(sender.clone());
        }
        let local = sender.local_unquoted();
        let body = match Form::of(&local) {
            Some(Form::First(inner)) => format!("{domain}={inner}"),
            // The first forwarder and what it wrote stay; we put ourselves in the place of the second.
            Some(Form::Later(_, rest)) => rest.to_owned(),
            None => {
                let body = format!("{}={domain}={local}", stamp(now));
                return self.address("SRS0", &body);
            }
        };
        self.address("SRS1", &body)
    }

    fn address(&self, tag: &str, body: &str) -> Result<Mailbox, SrsError> {
        let key = self.keys.first().ok_or(SrsError::Hash)?;
        Ok(Mailbox::quote(&format!("{tag}={}={body}", hash(key, body)), self.domain.clone())?)
    }

    /// Opens an address that a bounce came to.
    pub fn reverse(&self, address: &Mailbox, now: Timestamp) -> Result<Mailbox, SrsError> {
        if address.domain() != Some(&self.domain) {
            return Err(SrsError::NotOurs);
        }
        let local = address.local_unquoted();
        match Form::of(&local).ok_or(SrsError::NotOurs)? {
            Form::First(inner) => {
                let (claimed, body) = split(inner.get(1..).ok_or(SrsError::NotOurs)?)?;
                self.verify(claimed, body)?;
                let (day, rest) = split(body)?;
                self.check_age(day, now)?;
                let (domain, local) = split(rest)?;
                Ok(Mailbox::quote(local, domain.parse::<Domain>()?)?)
            }
            // The first forwarder checks its own hash and time.
            Form::Later(claimed, body) => {
                self.verify(claimed, body)?;
                let (domain, inner) = split(body)?;
                Ok(Mailbox::quote(&format!("SRS0{inner}"), domain.parse::<Domain>()?)?)
            }
        }
    }

    fn verify(&self, claimed: &str, body: &str) -> Result<(), SrsError> {
        let right = |key: &Vec<u8>| same(hash(key, body).as_bytes(), claimed.to_ascii_uppercase().as_bytes());
        if self.keys.iter().any(right) { Ok(()) } else { Err(SrsError::Hash) }
    }

    fn check_age(&self, day: &str, now: Timestamp) -> Result<(), SrsError> {
        let digit = |b: &u8| BASE32.iter().position(|letter| *letter == b.to_ascii_uppercase());
        let [high, low] = day.as_bytes() else { return Err(SrsError::NotOurs) };
        let (high, low) = (digit(high).ok_or(SrsError::NotOurs)?, digit(low).ok_or(SrsError::NotOurs)?);
        let made = u64::try_from(high * 32 + low).unwrap_or(0);
        let age = (now.secs() / 86_400 % DAYS + DAYS - made) % DAYS;
        if age <= self.max_age.as_secs() / 86_400 { Ok(()) } else { Err(SrsError::Expired) }
    }
}

/// A rewritten local part.
enum Form<'a> {
    /// `SRS0` and what follows, separator first.
    First(&'a str),
    /// `SRS1`: the hash, and what it covers.
    Later(&'a str, &'a str),
}

impl Form<'_> {
    fn of(local: &str) -> Option<Form<'_>> {
        let (tag, rest) = local.split_at_checked(4)?;
        // Other implementations separate with + or -.
        if !rest.starts_with(['=', '+', '-']) {
            return None;
        }
        match tag {
            _ if tag.eq_ignore_ascii_case("SRS0") => Some(Form::First(rest)),
            _ if tag.eq_ignore_ascii_case("SRS1") => {
                let (hash, body) = rest.get(1..)?.split_once('=')?;
                Some(Form::Later(hash, body))
            }
            _ => None,
        }
    }
}

fn split(text: &str) -> Result<(&str, &str), SrsError> {
    text.split_once('=').ok_or(SrsError::NotOurs)
}

/// The day in two letters.
fn stamp(now: Timestamp) -> String {
    let day = now.secs() / 86_400 % DAYS;
    [day / 32, day % 32].into_iter().map(letter).collect()
}

fn letter(value: u64) -> char {
    let at = usize::try_from(value % 32).unwrap_or(0);
    char::from(BASE32.get(at).copied().unwrap_or(b'A'))
}

/// Over lower case, since relays on the way may change it.
fn hash(key: &[u8], body: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(body.to_ascii_lowercase().as_bytes());
    let digest = mac.finalize().into_bytes();
    let bits = digest.iter().take(5).fold(0_u64, |bits, octet| bits << 8 | u64::from(*octet));
    (0..HASH_LEN).rev().map(|i| letter(bits >> (5 * i))).collect()
}

/// Compares without telling by its time where the first difference lies.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn srs(domain: &str, key: &str) -> Srs {
        Srs::new(domain.parse().unwrap(), [key.as_bytes().to_vec()])
    }

    fn mailbox(text: &str) -> Mailbox {
        text.parse().unwrap()
    }

    #[test]
    fn two_forwarders_lead_back_to_the_sender() {
        let (one, two) = (srs("one.example", "k1"), srs("two.example", "k2"));
        let sender = mailbox("\"odd @ local\"@example.org");
        let first = one.forward(&sender, NOW).unwrap();
        let second = two.forward(&first, NOW).unwrap();
        assert!(second.local_unquoted().starts_with("SRS1="), "{second}");
        let third = srs("three.example", "k3").forward(&second, NOW).unwrap();
        assert_eq!(srs("three.example", "k3").reverse(&third, NOW).unwrap(), first, "straight to the first");
        assert_eq!(two.reverse(&second, NOW).unwrap(), first);
        assert_eq!(one.reverse(&first, NOW).unwrap(), sender);
        assert_eq!(one.forward(&first, NOW).unwrap(), first, "ours is not rewritten again");
    }

    #[test]
    fn forgeries_and_old_ones_are_refused() {
        let srs = srs("f.example", "k1");
        let good = srs.forward(&mailbox("joe@example.org"), NOW).unwrap();
        let day = Duration::from_secs(86_400);
        assert!(srs.reverse(&good, NOW + day * 21).is_ok());
        assert_eq!(srs.reverse(&good, NOW + day * 22), Err(SrsError::Expired));
        assert_eq!(srs.reverse(&good, NOW - day), Err(SrsError::Expired));
        let upper: Mailbox = good.to_string().to_uppercase().parse().unwrap();
        assert!(srs.reverse(&upper, NOW).is_ok(), "case may change on the way");
        let forged: Mailbox = good.to_string().replace("joe", "ceo").parse().unwrap();
        assert_eq!(srs.reverse(&forged, NOW), Err(SrsError::Hash));
        let other = Srs::new("f.example".parse().unwrap(), [b"k2".to_vec()]);
        assert_eq!(other.reverse(&good, NOW), Err(SrsError::Hash));
        let rotated = Srs::new("f.example".parse().unwrap(), [b"k2".to_vec(), b"k1".to_vec()]);
        assert!(rotated.reverse(&good, NOW).is_ok());
        for text in [
            "joe@f.example",
            "SRS0@f.example",
            "SRS0=x@f.example",
            "SRS1=x@f.example",
            "SRS0=a=b=c=d@g.example",
        ] {
            assert!(srs.reverse(&mailbox(text), NOW).is_err(), "{text}");
        }
        let long = mailbox(&format!("{}@example.org", "a".repeat(64)));
        assert_eq!(srs.forward(&long, NOW), Err(SrsError::Address(AddressError::LocalPartTooLong)));
    }
}
