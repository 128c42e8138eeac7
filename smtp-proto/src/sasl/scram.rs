//! SCRAM: keys, proofs and messages that both roles share.
//!
//! Invariant: a password is turned into keys at once and not kept.
//!
//! Standards: RFC 5802 3 (the formulas), 5.1 (attributes), 7 (grammar); RFC 7677; RFC 9266.
//!
//! Not here: the order of messages (client, server).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::{SaslError, is_equal};

/// Fewest iterations that are taken and made: RFC 7677 4.
pub(super) const ITERATIONS_MIN: u32 = 4096;
/// Most iterations that a server may ask of us: about half a second of work.
pub(super) const ITERATIONS_MAX: u32 = 500_000;

/// The hash function of a SCRAM mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hash {
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl Hash {
    fn hmac(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        // HMAC takes keys of any length, so neither arm can fail.
        match self {
            Hash::Sha1 => Hmac::<Sha1>::new_from_slice(key)
                .map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec()),
            Hash::Sha256 => Hmac::<Sha256>::new_from_slice(key)
                .map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec()),
        }
        .unwrap_or_default()
    }

    fn digest(self, message: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha1 => Sha1::digest(message).to_vec(),
            Hash::Sha256 => Sha256::digest(message).to_vec(),
        }
    }

    /// `Hi` of RFC 5802 2.2: PBKDF2 with one block.
    fn salted_password(self, password: &str, salt: &[u8], iterations: u32) -> Vec<u8> {
        let mut block = self.hmac(password.as_bytes(), &[salt, &[0, 0, 0, 1]].concat());
        let mut sum = block.clone();
        for _ in 1..iterations {
            block = self.hmac(password.as_bytes(), &block);
            sum = xor(&sum, &block);
        }
        sum
    }
}

/// What a server keeps of a password for SCRAM: from these alone nobody can log in.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// Which hash function the keys belong to.
    pub hash: Hash,
    /// The salt; random, at least 16 octets.
    pub salt: Box<[u8]>,
    /// The iteration count; at least 4,096.
    pub iterations: u32,
    /// `StoredKey` of RFC 5802 3.
    pub stored_key: Box<[u8]>,
    /// `ServerKey` of RFC 5802 3.
    pub server_key: Box<[u8]>,
}

impl ScramKeys {
    /// The keys of a password. Slow on purpose: `iterations` times two hashes.
    pub fn derive(hash: Hash, password: &str, salt: &[u8], iterations: u32) -> ScramKeys {
        let salted = hash.salted_password(password, salt, iterations);
        let stored_key = hash.digest(&hash.hmac(&salted, b"Client Key")).into();
        let server_key = hash.hmac(&salted, b"Server Key").into();
        ScramKeys { hash, salt: salt.into(), iterations, stored_key, server_key }
    }

    /// Keys that fit no password, for a user who does not exist: the same user always gets the same salt, so that
    /// the answer looks like any other (RFC 5802 5.1, "other-error" gives users away).
    pub(super) fn decoy(hash: Hash, user: &str, secret: &[u8]) -> ScramKeys {
        let salt = hash.hmac(secret, user.as_bytes()).into_iter().take(16).collect();
        let key: Box<[u8]> = hash.hmac(secret, &[user.as_bytes(), b"\0key"].concat()).into();
        ScramKeys { hash, salt, iterations: ITERATIONS_MIN, stored_key: key.clone(), server_key: key }
    }

    /// Whether `proof` proves knowledge of the password, for this exchange.
    pub(super) fn accepts(&self, auth_message: &str, proof: &[u8]) -> bool {
        let signature = self.hash.hmac(&self.stored_key, auth_message.as_bytes());
        let client_key = xor(&signature, proof);
        proof.len() == signature.len() && is_equal(&self.hash.digest(&client_key), &self.stored_key)
    }

    pub(super) fn server_signature(&self, auth_message: &str) -> Vec<u8> {
        self.hash.hmac(&self.server_key, auth_message.as_bytes())
    }
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScramKeys")
            .field("hash", &self.hash)
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

/// The client's proof, and the signature that the server must answer with.
pub(super) fn prove(
    hash: Hash,
    password: &str,
    salt: &[u8],
    iterations: u32,
    auth_message: &str,
) -> (Vec<u8>, Vec<u8>) {
    let salted = hash.salted_password(password, salt, iterations);
    let client_key = hash.hmac(&salted, b"Client Key");
    let signature = hash.hmac(&hash.digest(&client_key), auth_message.as_bytes());
    let server = hash.hmac(&hash.hmac(&salted, b"Server Key"), auth_message.as_bytes());
    (xor(&client_key, &signature), server)
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(a, b)| a ^ b).collect()
}

pub(super) fn encode(octets: &[u8]) -> String {
    STANDARD.encode(octets)
}

pub(super) fn decode(text: &str) -> Result<Vec<u8>, SaslError> {
    STANDARD.decode(text).map_err(|_| SaslError::Malformed)
}

/// A nonce of printable characters without comma.
pub(super) fn nonce(random: &[u8]) -> String {
    STANDARD.encode(random)
}

/// `saslname`: comma and equals sign written as `=2C` and `=3D`.
pub(super) fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

pub(super) fn unescape(name: &str) -> Result<String, SaslError> {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((head, tail)) = rest.split_once('=') {
        out.push_str(head);
        rest = if let Some(after) = tail.strip_prefix("2C") {
            out.push(',');
            after
        } else if let Some(after) = tail.strip_prefix("3D") {
            out.push('=');
            after
        } else {
            return Err(SaslError::Malformed);
        };
    }
    out.push_str(rest);
    Ok(out)
}

/// The value of the next attribute, which must be `name`. RFC 5802 5.1: the order is fixed, and `m=` (a mandatory
/// extension) must be refused, as it is by not being expected.
pub(super) fn attribute<'a>(
    parts: &mut impl Iterator<Item = &'a str>,
    name: char,
) -> Result<&'a str, SaslError> {
    let part = parts.next().ok_or(SaslError::Malformed)?;
    part.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')).ok_or(SaslError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 5802 5 and RFC 7677 3: user `user`, password `pencil`, 4,096 iterations.
    const VECTORS: [(Hash, &str, &str, &str, &str); 2] = [
        (
            Hash::Sha1,
            "QSXCR+Q6sek8bf92",
            "n=user,r=fyko+d2lbbFgONRv9qkxdawL,\
             r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096,\
             c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j",
            "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ),
        (
            Hash::Sha256,
            "W22ZaJ0SNY7soEsUEjb6gQ==",
            "n=user,r=rOprNGfwEbeRWgbNEkqO,\
             r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
             c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
    ];

    #[test]
    fn the_examples_of_the_rfcs_come_out() {
        for (hash, salt, auth_message, proof, signature) in VECTORS {
            let salt = decode(salt).unwrap();
            let (our_proof, our_signature) = prove(hash, "pencil", &salt, 4096, auth_message);
            assert_eq!((encode(&our_proof).as_str(), encode(&our_signature).as_str()), (proof, signature));
            let keys = ScramKeys::derive(hash, "pencil", &salt, 4096);
            assert!(keys.accepts(auth_message, &decode(proof).unwrap()));
            assert_eq!(encode(&keys.server_signature(auth_message)), signature);
            assert!(!keys.accepts(auth_message, &our_proof[1..]));
            assert!(!ScramKeys::derive(hash, "pencils", &salt, 4096).accepts(auth_message, &our_proof));
        }
    }

    #[test]
    fn names_are_escaped_and_back() {
        assert_eq!(escape("a,b=c"), "a=2Cb=3Dc");
        assert_eq!(unescape("a=2Cb=3Dc").as_deref(), Ok("a,b=c"));
        assert_eq!(unescape("a=2cb"), Err(SaslError::Malformed));
        assert_eq!(unescape("a="), Err(SaslError::Malformed));
    }
}
