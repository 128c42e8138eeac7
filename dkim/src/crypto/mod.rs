//! Cryptography behind one small trait: hashes, verification, signing, key generation.
//!
//! Invariant: nothing here is process-wide; a [`Provider`] is a value that is handed in, and two of them work side
//! by side. Every provider gives the same verdicts and the same signatures (both algorithms are deterministic).
//!
//! Standards: RFC 8017 8.2 (RSASSA-PKCS1-v1_5), RFC 8032 (Ed25519), FIPS 180-4.
//!
//! Not here: which keys and algorithms are acceptable (verify.rs).

#[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
#[macro_use]
mod library;
#[cfg(feature = "aws-lc-rs")]
mod aws_lc;
#[cfg(feature = "ring")]
mod ring;

use std::fmt;

use crate::der::RsaNumbers;

/// The library that does the cryptography.
#[derive(Clone, Copy)]
pub struct Provider(pub(crate) &'static dyn Crypto);

impl Provider {
    /// [ring](https://docs.rs/ring): everything but the generation of RSA keys.
    #[cfg(feature = "ring")]
    pub fn ring() -> Provider {
        Provider(&ring::Ring)
    }

    /// [AWS-LC](https://docs.rs/aws-lc-rs): everything.
    #[cfg(feature = "aws-lc-rs")]
    pub fn aws_lc_rs() -> Provider {
        Provider(&aws_lc::AwsLc)
    }
}

/// ring where it is compiled in, else AWS-LC.
#[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
impl Default for Provider {
    fn default() -> Self {
        #[cfg(feature = "ring")]
        return Provider::ring();
        #[cfg(not(feature = "ring"))]
        return Provider::aws_lc_rs();
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

/// A hash algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha1,
    Sha256,
}

/// A hash that is being computed.
pub(crate) trait Digest: Send + Sync {
    fn update(&mut self, octets: &[u8]);
    fn finish(self: Box<Self>) -> HashValue;
}

/// At most 32 octets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HashValue {
    octets: [u8; 32],
    len: usize,
}

impl HashValue {
    #[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
    fn new(value: &[u8]) -> HashValue {
        let mut octets = [0; 32];
        octets.iter_mut().zip(value).for_each(|(to, from)| *to = *from);
        HashValue { octets, len: value.len().min(32) }
    }
}

impl AsRef<[u8]> for HashValue {
    fn as_ref(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

/// Why a private key was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is neither PEM nor DER nor base64 of an Ed25519 seed.
    #[error(
        "the file holds no private key: expected PEM (PRIVATE KEY or RSA PRIVATE KEY), DER, or base64 of an Ed25519 seed"
    )]
    Format,
    /// The key is encrypted.
    #[error("the private key is encrypted; decrypt it first (openssl pkey -in KEY -out PLAIN)")]
    Encrypted,
    /// The library refuses it: broken, inconsistent, or of a size that it does not sign with.
    #[error("the private key is broken, or not RSA of 2048 to 4096 bits or Ed25519 ({0})")]
    Rejected(&'static str),
    /// This provider cannot generate such keys.
    #[error("ring generates no RSA keys; use the feature aws-lc-rs, or openssl genpkey")]
    CannotGenerate,
    /// A size that is not offered.
    #[error("RSA keys are generated with 2048, 3072 or 4096 bits")]
    Size,
}

/// A private key as it is written.
#[cfg_attr(
    not(any(feature = "ring", feature = "aws-lc-rs")),
    expect(dead_code, reason = "only a provider reads keys")
)]
#[derive(Clone, Copy)]
pub(crate) enum PrivateKeyDer<'k> {
    Pkcs8(&'k [u8]),
    Pkcs1(&'k [u8]),
    Seed(&'k [u8]),
}

/// A key pair that signs.
pub(crate) trait KeyPair: Send + Sync {
    fn is_rsa(&self) -> bool;
    /// RSAPublicKey in DER, or the 32 octets of an Ed25519 key.
    fn public_key(&self) -> &[u8];
    /// Signs `message`; for Ed25519 that is the hash already (RFC 8463 3). `None` if the library fails.
    fn sign(&self, message: &[u8]) -> Option<Vec<u8>>;
}

/// What a cryptographic library does for us.
pub(crate) trait Crypto: Send + Sync {
    fn name(&self) -> &'static str;
    fn digest(&self, hash: Hash) -> Box<dyn Digest>;
    /// Whether `signature` over `message` was made by the key's owner.
    fn verify_rsa(&self, hash: Hash, key: RsaNumbers<'_>, message: &[u8], signature: &[u8]) -> bool;
    fn verify_ed25519(&self, key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool;
    fn load(&self, key: PrivateKeyDer<'_>) -> Result<Box<dyn KeyPair>, KeyError>;
    /// Fills `octets` from the operating system's generator.
    fn random(&self, octets: &mut [u8]) -> Result<(), KeyError>;
    /// A new key in PKCS#8.
    fn generate_rsa(&self, bits: u32) -> Result<Vec<u8>, KeyError>;
}
