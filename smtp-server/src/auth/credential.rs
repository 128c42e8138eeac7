//! One credential of a user: what is kept instead of a password.
//!
//! Invariant: a password is never kept, only what it can be checked against; the parameters of one are bounded, so
//! that no line of a file makes a login take minutes or gigabytes.
//!
//! Standards: RFC 5803 (SCRAM, as PostgreSQL writes it too), RFC 7677; RFC 9106 and the PHC string format (argon2id).
//!
//! Not here: whose it is ([`Accounts`](super::Accounts)).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
#[cfg(feature = "argon2")]
use base64::engine::general_purpose::STANDARD_NO_PAD;
use postwright_core::Entropy;
use postwright_smtp_proto::sasl::{Hash, ScramKeys, Secret};

/// Iterations of new SCRAM credentials (RFC 7677 4 asks for at least 4,096).
const ITERATIONS: u32 = 4096;
/// Most iterations of a credential.
const ITERATIONS_MAX: u32 = 1_000_000;
/// How a line of a SCRAM credential begins.
pub(super) const SCRAM: &str = "SCRAM-SHA-256$";
/// How a line of an argon2 credential begins.
pub(super) const ARGON2: &str = "$argon2id$";

/// How a new credential is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Scheme {
    /// SCRAM-SHA-256 keys: serve SCRAM and clear-text mechanisms.
    #[default]
    Scram,
    /// An argon2id hash: serves clear-text mechanisms only, and costs a thief of the file far more for each guess.
    #[cfg(feature = "argon2")]
    Argon2,
}

/// What is kept of one password.
#[derive(Clone)]
pub(super) enum Credential {
    Scram(ScramKeys),
    #[cfg(feature = "argon2")]
    Argon2(Argon2),
}

impl Credential {
    pub(super) fn new(scheme: Scheme, password: &Secret, entropy: &dyn Entropy) -> Credential {
        let mut salt = [0; 16];
        entropy.fill(&mut salt);
        match scheme {
            Scheme::Scram => Credential::scram(password, &salt, ITERATIONS),
            #[cfg(feature = "argon2")]
            Scheme::Argon2 => Credential::Argon2(Argon2::new(password, &salt)),
        }
    }

    fn scram(password: &Secret, salt: &[u8], iterations: u32) -> Credential {
        Credential::Scram(ScramKeys::derive(Hash::Sha256, password.expose(), salt, iterations))
    }

    /// Reads what [`Credential::to_text`] wrote.
    pub(super) fn parse(text: &str) -> Result<Credential, &'static str> {
        if let Some(verifier) = text.strip_prefix(SCRAM) {
            let keys = parse_scram(verifier);
            return keys.map(Credential::Scram).ok_or("want SCRAM-SHA-256$iterations:salt$key:key");
        }
        #[cfg(feature = "argon2")]
        if let Some(phc) = text.strip_prefix(ARGON2) {
            let hash = Argon2::parse(phc);
            return hash
                .map(Credential::Argon2)
                .ok_or("want $argon2id$v=19$m=KIB,t=PASSES,p=LANES$salt$hash");
        }
        Err("no kind of credential that this build knows")
    }

    pub(super) fn to_text(&self) -> String {
        match self {
            Credential::Scram(keys) => {
                let (stored, server) = (STANDARD.encode(&keys.stored_key), STANDARD.encode(&keys.server_key));
                format!("{SCRAM}{}:{}${stored}:{server}", keys.iterations, STANDARD.encode(&keys.salt))
            }
            #[cfg(feature = "argon2")]
            Credential::Argon2(hash) => hash.to_text(),
        }
    }

    /// Whether it was made from this password. Hashes are compared, so nothing is learnt from how long that takes.
    pub(super) fn fits(&self, password: &Secret) -> bool {
        match self {
            Credential::Scram(keys) => {
                ScramKeys::derive(keys.hash, password.expose(), &keys.salt, keys.iterations) == *keys
            }
            #[cfg(feature = "argon2")]
            Credential::Argon2(kept) => kept.hash(password).is_some_and(|hash| hash == kept.hash),
        }
    }

    pub(super) fn keys(&self) -> Option<&ScramKeys> {
        match self {
            Credential::Scram(keys) => Some(keys),
            #[cfg(feature = "argon2")]
            Credential::Argon2(_) => None,
        }
    }
}

impl Default for Credential {
    /// One that nobody has: for work that must take its time.
    fn default() -> Self {
        Credential::scram(&Secret::new(""), b"nobody's salt...", ITERATIONS)
    }
}

fn parse_scram(verifier: &str) -> Option<ScramKeys> {
    let (head, keys) = verifier.split_once('$')?;
    let (iterations, salt) = head.split_once(':')?;
    let (stored, server) = keys.split_once(':')?;
    let iterations: u32 = iterations.parse().ok().filter(|n| (ITERATIONS..=ITERATIONS_MAX).contains(n))?;
    let decode = |text: &str| STANDARD.decode(text).ok();
    let key = |text: &str| decode(text).filter(|key| key.len() == 32);
    let salt = decode(salt).filter(|salt| !salt.is_empty())?.into();
    let (stored_key, server_key) = (key(stored)?.into(), key(server)?.into());
    Some(ScramKeys { hash: Hash::Sha256, salt, iterations, stored_key, server_key })
}

/// An argon2id hash with its parameters.
#[cfg(feature = "argon2")]
#[derive(Clone)]
pub(super) struct Argon2 {
    /// Memory in KiB, passes, lanes.
    memory: u32,
    passes: u32,
    lanes: u32,
    salt: Box<[u8]>,
    hash: Box<[u8]>,
}

#[cfg(feature = "argon2")]
impl Argon2 {
    /// The second choice of RFC 9106 4 is 64 MiB and three passes; half a second of it a login is a denial of service
    /// on its own. These are OWASP's numbers for a server: 19 MiB, two passes.
    const MEMORY: u32 = 19_456;
    const PASSES: u32 = 2;
    /// At most 256 MiB, 16 passes, 4 lanes.
    const MEMORY_MAX: u32 = 262_144;
    const PASSES_MAX: u32 = 16;
    const LANES_MAX: u32 = 4;

    fn new(password: &Secret, salt: &[u8]) -> Argon2 {
        let mut new = Argon2 {
            memory: Self::MEMORY,
            passes: Self::PASSES,
            lanes: 1,
            salt: salt.into(),
            hash: [0; 32].into(),
        };
        new.hash = new.hash(password).unwrap_or_default();
        new
    }

    /// The hash of a password under these parameters, as long as the one that is kept.
    fn hash(&self, password: &Secret) -> Option<Box<[u8]>> {
        let params = argon2::Params::new(self.memory, self.passes, self.lanes, Some(self.hash.len())).ok()?;
        let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut out = vec![0; self.hash.len()];
        argon2.hash_password_into(password.expose().as_bytes(), &self.salt, &mut out).ok()?;
        Some(out.into())
    }

    /// What stands behind `$argon2id$`.
    fn parse(phc: &str) -> Option<Argon2> {
        let mut parts = phc.split('$');
        let (version, numbers, salt, hash) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version != "v=19" || parts.next().is_some() {
            return None;
        }
        let mut numbers = numbers.split(',');
        let mut number = |name: &str, most: u32| -> Option<u32> {
            let value = numbers.next()?.strip_prefix(name)?.strip_prefix('=')?.parse().ok()?;
            (1..=most).contains(&value).then_some(value)
        };
        let memory = number("m", Self::MEMORY_MAX)?;
        let (passes, lanes) = (number("t", Self::PASSES_MAX)?, number("p", Self::LANES_MAX)?);
        let decode = |text: &str| STANDARD_NO_PAD.decode(text).ok().map(Vec::into_boxed_slice);
        // RFC 9106 3.1: a salt of at least 8 octets; a hash of fewer than 16 is worth little.
        let salt = decode(salt).filter(|salt| (8..=64).contains(&salt.len()))?;
        let hash = decode(hash).filter(|hash| (16..=64).contains(&hash.len()))?;
        (numbers.next().is_none() && memory >= 8 * lanes).then_some(Argon2 {
            memory,
            passes,
            lanes,
            salt,
            hash,
        })
    }

    fn to_text(&self) -> String {
        let (salt, hash) = (STANDARD_NO_PAD.encode(&self.salt), STANDARD_NO_PAD.encode(&self.hash));
        format!("{ARGON2}v=19$m={},t={},p={}${salt}${hash}", self.memory, self.passes, self.lanes)
    }
}
