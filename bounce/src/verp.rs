//! Bounce addresses that say whom or what a bounce is about: plain VERP, and signed ones.
//!
//! Invariant: what [`Signer::address`] gives, [`Signer::verify`] takes until its day of expiry, in any case of letters, and nothing
//! else; what [`verp`] gives, [`verp_recipient`] gives back.
//!
//! Standards: RFC 5321 4.5.3.1.1 (64 octets a local part); VERP as qmail's `prefix-user=host`; the idea of BATV (an internet draft), with
//! HMAC-SHA-256 (RFC 2104) instead of its own format. Not here: key storage.

#[cfg(feature = "sign")]
use postwright_core::Timestamp;
use postwright_core::{AddressError, Domain, Host, Mailbox};

/// `prefix-user=host@bounces`: a bounce address that names the recipient.
///
/// ```
/// use postwright_bounce::verp::{verp, verp_recipient};
/// let bounces = "bounces.example.org".parse().unwrap();
/// let address = verp("b", &"Ann+x@example.com".parse().unwrap(), &bounces).unwrap();
/// assert_eq!(address.to_string(), "b-Ann+x=example.com@bounces.example.org");
/// assert_eq!(verp_recipient("b", &address).unwrap().to_string(), "Ann+x@example.com");
/// ```
///
/// # Errors
/// If the result is longer than a local part may be: use a signed address then, which carries an id.
pub fn verp(prefix: &str, recipient: &Mailbox, bounces: &Domain) -> Result<Mailbox, AddressError> {
    Mailbox::quote(&format!("{prefix}-{}={}", recipient.local_unquoted(), recipient.host()), bounces.clone())
}

/// The recipient that a VERP address names; `None` if it is not one of `prefix`.
pub fn verp_recipient(prefix: &str, address: &Mailbox) -> Option<Mailbox> {
    let local = address.local_unquoted();
    let (head, rest) = local.split_at_checked(prefix.len())?;
    if !head.eq_ignore_ascii_case(prefix) {
        return None;
    }
    // The host has no `=`, a local part may have some.
    let (user, host) = rest.strip_prefix('-')?.rsplit_once('=')?;
    Mailbox::quote(user, host.parse::<Host>().ok()?).ok()
}

/// What a signed address says.
#[cfg(feature = "sign")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signed {
    /// Ours, and still good: the id it was made with.
    Id(Box<str>),
    /// Ours, but past its day: a late bounce or a replay.
    Expired(Box<str>),
    /// It has our form and not our signature.
    Forged,
    /// Some other address.
    Foreign,
}

/// Makes and checks signed bounce addresses: `b-ID-DAY-TAG@host`. A bounce to any other address is backscatter.
#[cfg(feature = "sign")]
pub struct Signer {
    /// The newest signs, all verify: so keys can be changed without losing late bounces.
    keys: Vec<ring::hmac::Key>,
    host: Domain,
}

/// Longest id in octets: what is left of a local part.
#[cfg(feature = "sign")]
pub const ID_MAX: usize = 32;

#[cfg(feature = "sign")]
impl Signer {
    /// A signer with its keys, the newest first; `None` without a key or with one below 16 octets.
    pub fn new(keys: &[&[u8]], host: Domain) -> Option<Signer> {
        let fit = !keys.is_empty() && keys.iter().all(|key| key.len() >= 16);
        let keys = keys.iter().map(|key| ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key)).collect();
        fit.then_some(Signer { keys, host })
    }

    /// The bounce address for `id` (1 to [`ID_MAX`] letters and digits; case is lost), good until `until`; `None` for an id that does not fit.
    pub fn address(&self, id: &str, until: Timestamp) -> Option<Mailbox> {
        let fits = (1..=ID_MAX).contains(&id.len()) && id.bytes().all(|octet| octet.is_ascii_alphanumeric());
        let signed = format!("b-{}-{}", id.to_ascii_lowercase(), until.secs() / 86_400);
        let tag = tag(self.keys.first()?, &signed, &self.host);
        if fits { Mailbox::new(&format!("{signed}-{tag}"), self.host.clone()).ok() } else { None }
    }

    /// What an address says at `now`.
    pub fn verify(&self, address: &Mailbox, now: Timestamp) -> Signed {
        let local = address.local().to_ascii_lowercase();
        let Some((signed, given)) = local.rsplit_once('-') else { return Signed::Foreign };
        let mut parts = signed.split('-');
        let (Some("b"), Some(id), Some(day), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Signed::Foreign;
        };
        if address.domain() != Some(&self.host) {
            return Signed::Foreign;
        }
        let Ok(day) = day.parse::<u64>() else { return Signed::Foreign };
        // 75 bits of tag: comparing in constant time costs nothing, so it is done.
        let good = self.keys.iter().any(|key| {
            let wanted = tag(key, signed, &self.host);
            let differ = wanted.bytes().zip(given.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
            wanted.len() == given.len() && differ == 0
        });
        match (good, now.secs() / 86_400 <= day) {
            (false, _) => Signed::Forged,
            (true, true) => Signed::Id(id.into()),
            (true, false) => Signed::Expired(id.into()),
        }
    }
}

#[cfg(feature = "sign")]
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({} keys, {})", self.keys.len(), self.host)
    }
}

/// Fifteen letters of base 32 over the HMAC, in lower case.
#[cfg(feature = "sign")]
fn tag(key: &ring::hmac::Key, signed: &str, host: &Domain) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let tag = ring::hmac::sign(key, format!("{signed}@{host}").as_bytes());
    tag.as_ref()
        .iter()
        .take(15)
        .map(|octet| char::from(*LETTERS.get(usize::from(octet & 31)).unwrap_or(&b'a')))
        .collect()
}

#[cfg(feature = "sign")]
#[cfg(test)]
mod tests {
    use super::*;

    fn signer(keys: &[&[u8]]) -> Signer {
        Signer::new(keys, "bounces.example.org".parse().unwrap()).unwrap()
    }

    #[test]
    fn signed_addresses_hold_and_end() {
        let (old, new): (&[u8], &[u8]) = (b"0123456789abcdef", b"fedcba9876543210");
        let until = Timestamp::from_secs(20_000 * 86_400);
        let address = signer(&[old]).address("Msg42", until).unwrap();
        let both = signer(&[new, old]);
        assert_eq!(both.verify(&address, until), Signed::Id("msg42".into()));
        let upper: Mailbox = address.to_string().to_ascii_uppercase().parse().unwrap();
        assert_eq!(both.verify(&upper, until), Signed::Id("msg42".into()));
        assert_eq!(
            both.verify(&address, until + std::time::Duration::from_secs(86_400)),
            Signed::Expired("msg42".into())
        );
        assert_eq!(signer(&[new]).verify(&address, until), Signed::Forged);
        for (other, verdict) in [
            ("b-msg42-20000-aaaaaaaaaaaaaaa@bounces.example.org", Signed::Forged),
            ("b-msg42-20001@bounces.example.org", Signed::Foreign),
            ("ann@bounces.example.org", Signed::Foreign),
            ("b-msg42-20000-aaaaaaaaaaaaaaa@example.org", Signed::Foreign),
        ] {
            assert_eq!(both.verify(&other.parse().unwrap(), until), verdict, "{other}");
        }
        assert!(Signer::new(&[b"short"], "a.example".parse().unwrap()).is_none());
        assert!(both.address(&"x".repeat(33), until).is_none() && both.address("a-b", until).is_none());
        assert!(both.address(&"x".repeat(32), until).unwrap().local().len() <= 64);
    }

    proptest::proptest! {
        #[test]
        fn verp_comes_back(user in "[a-zA-Z0-9=+._ -]{1,20}", host in "[a-z]{1,10}\\.example") {
            let bounces = "b.example".parse().unwrap();
            let recipient = Mailbox::quote(&user, host.parse::<Domain>().unwrap()).unwrap();
            let address = verp("bounce", &recipient, &bounces).unwrap();
            proptest::prop_assert!(verp_recipient("bounce", &address).unwrap().is_same(&recipient));
            proptest::prop_assert_eq!(verp_recipient("other", &address), None);
        }

        #[test]
        fn no_address_breaks_the_checks(local in "[!-~]{1,64}") {
            if let Ok(address) = Mailbox::quote(&local, "bounces.example.org".parse::<Domain>().unwrap()) {
                let verdict = signer(&[b"0123456789abcdef"]).verify(&address, Timestamp::from_secs(0));
                proptest::prop_assert!(matches!(verdict, Signed::Foreign | Signed::Forged));
                let _ = verp_recipient("b", &address);
            }
        }
    }
}
