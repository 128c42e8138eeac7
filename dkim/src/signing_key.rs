//! Private keys: reading them from files, generating them, and the record to publish.
//!
//! Invariant: a [`SigningKey`] can sign: RSA of at least 2048 bits (RFC 8301 3.2 recommends it, and the libraries
//! refuse less) or Ed25519.
//!
//! Standards: RFC 7468 (PEM), RFC 8017 A.1.2 (PKCS#1), RFC 5958 (PKCS#8), RFC 8410 (Ed25519), RFC 6376 3.6.1.
//!
//! Not here: where keys are kept (key_store.rs), file modes (the program's business).

use std::fmt;
use std::sync::Arc;

use ::base64::Engine;
use ::base64::engine::general_purpose::STANDARD;

use crate::crypto::{KeyError, KeyPair, PrivateKeyDer, Provider};
use crate::der;
use crate::signature::Algorithm;

/// Longest key file that is read, in octets; one of 8192 bits needs under 7,000.
const FILE_MAX: usize = 64 << 10;

/// PKCS#8 (RFC 5958) version 1 around an Ed25519 seed (RFC 8410 7), up to the seed. The libraries write version 2,
/// which OpenSSL and so OpenDKIM do not read.
const ED25519_PKCS8: &[u8] =
    &[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// What kind of key to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyKind {
    /// Ed25519 (RFC 8463).
    Ed25519,
    /// RSA of 2048, 3072 or 4096 bits; needs a provider that generates them.
    Rsa(u32),
}

/// A private key that signs. Cheap to clone; its octets are not printed.
#[derive(Clone)]
pub struct SigningKey {
    pub(crate) provider: Provider,
    pub(crate) pair: Arc<dyn KeyPair>,
}

impl SigningKey {
    /// Reads a key: PEM (`PRIVATE KEY`, `RSA PRIVATE KEY`), DER of either, or the base64 of a 32-octet Ed25519 seed
    /// (what dknewkey of dkimpy writes).
    pub fn read(provider: Provider, file: &[u8]) -> Result<SigningKey, KeyError> {
        if file.len() > FILE_MAX {
            return Err(KeyError::Format);
        }
        if file.first() == Some(&0x30) {
            return SigningKey::from_der(provider, file);
        }
        let text = std::str::from_utf8(file).map_err(|_| KeyError::Format)?;
        if let Some((label, der)) = pem(text)? {
            let form = match label {
                "PRIVATE KEY" => PrivateKeyDer::Pkcs8(&der),
                "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(&der),
                "ENCRYPTED PRIVATE KEY" => return Err(KeyError::Encrypted),
                _ => return Err(KeyError::Format),
            };
            return SigningKey::load(provider, form);
        }
        let seed = STANDARD.decode(text.trim()).map_err(|_| KeyError::Format)?;
        if seed.len() != 32 {
            return Err(KeyError::Format);
        }
        SigningKey::load(provider, PrivateKeyDer::Seed(&seed))
    }

    /// From DER: PKCS#8, or PKCS#1 for RSA.
    pub fn from_der(provider: Provider, der: &[u8]) -> Result<SigningKey, KeyError> {
        let pkcs8 = SigningKey::load(provider, PrivateKeyDer::Pkcs8(der));
        pkcs8.or_else(|error| SigningKey::load(provider, PrivateKeyDer::Pkcs1(der)).map_err(|_| error))
    }

    fn load(provider: Provider, key: PrivateKeyDer<'_>) -> Result<SigningKey, KeyError> {
        Ok(SigningKey { provider, pair: provider.0.load(key)?.into() })
    }

    /// A new key, and its PKCS#8 in PEM to be kept.
    pub fn generate(provider: Provider, kind: KeyKind) -> Result<(SigningKey, String), KeyError> {
        let pkcs8 = match kind {
            KeyKind::Ed25519 => {
                let mut seed = [0; 32];
                provider.0.random(&mut seed)?;
                [ED25519_PKCS8, &seed].concat()
            }
            KeyKind::Rsa(bits) => provider.0.generate_rsa(bits)?,
        };
        let mut text = String::from("-----BEGIN PRIVATE KEY-----\n");
        for line in STANDARD.encode(&pkcs8).as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END PRIVATE KEY-----\n");
        Ok((SigningKey::load(provider, PrivateKeyDer::Pkcs8(&pkcs8))?, text))
    }

    /// The algorithm that this key signs with.
    pub fn algorithm(&self) -> Algorithm {
        if self.pair.is_rsa() { Algorithm::RsaSha256 } else { Algorithm::Ed25519Sha256 }
    }

    /// Bits of the key: those of the modulus for RSA, 256 for Ed25519.
    pub fn bits(&self) -> u32 {
        if !self.pair.is_rsa() {
            return 256;
        }
        der::rsa_public_key(self.pair.public_key()).map_or(0, |numbers| numbers.bits())
    }

    /// The text of the TXT record that publishes this key (RFC 6376 3.6.1). See
    /// [`zone_strings`](crate::zone_strings) for its form in a zone file.
    pub fn record(&self) -> String {
        let public = self.pair.public_key();
        if self.pair.is_rsa() {
            format!("v=DKIM1; k=rsa; p={}", STANDARD.encode(der::wrap_rsa_public_key(public)))
        } else {
            format!("v=DKIM1; k=ed25519; p={}", STANDARD.encode(public))
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, {} bits)", self.algorithm(), self.bits())
    }
}

/// The first PEM block: its label and its octets. `None` if the text holds no block at all.
fn pem(text: &str) -> Result<Option<(&str, Vec<u8>)>, KeyError> {
    let Some((_, rest)) = text.split_once("-----BEGIN ") else { return Ok(None) };
    let (label, rest) = rest.split_once("-----").ok_or(KeyError::Format)?;
    let (body, _) = rest.split_once("-----END ").ok_or(KeyError::Format)?;
    // RFC 1421 headers: only encrypted keys have them.
    if body.contains("Proc-Type:") {
        return Err(KeyError::Encrypted);
    }
    let compact: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(compact).map_err(|_| KeyError::Format)?;
    Ok(Some((label, der)))
}
