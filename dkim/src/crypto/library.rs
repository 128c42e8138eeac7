//! The implementation of [`Crypto`](super::Crypto) on an API that ring and aws-lc-rs share by design.
//!
//! A macro and not a generic: the two crates share names, not types.

macro_rules! library {
    ($library:ident, $provider:ident, $name:literal) => {
        use $library::rand::{SecureRandom as _, SystemRandom};
        use $library::signature::{self, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
        use $library::{digest, signature::RsaKeyPair};

        use super::{Crypto, Digest, Hash, HashValue, KeyError, KeyPair, PrivateKeyDer};
        use crate::der::RsaNumbers;

        pub(super) struct $provider;

        struct Running(digest::Context);

        impl Digest for Running {
            fn update(&mut self, octets: &[u8]) {
                self.0.update(octets);
            }

            fn finish(self: Box<Self>) -> HashValue {
                HashValue::new(self.0.finish().as_ref())
            }
        }

        struct Rsa(RsaKeyPair);
        struct Ed25519(Ed25519KeyPair);

        impl KeyPair for Rsa {
            fn is_rsa(&self) -> bool {
                true
            }

            fn public_key(&self) -> &[u8] {
                self.0.public_key().as_ref()
            }

            fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
                let mut out = vec![0; modulus_len(&self.0)];
                self.0.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut out).ok()?;
                Some(out)
            }
        }

        impl KeyPair for Ed25519 {
            fn is_rsa(&self) -> bool {
                false
            }

            fn public_key(&self) -> &[u8] {
                self.0.public_key().as_ref()
            }

            fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
                Some(self.0.sign(message).as_ref().to_vec())
            }
        }

        impl Crypto for $provider {
            fn name(&self) -> &'static str {
                $name
            }

            fn digest(&self, hash: Hash) -> Box<dyn Digest> {
                Box::new(Running(digest::Context::new(match hash {
                    Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
                    Hash::Sha256 => &digest::SHA256,
                })))
            }

            fn verify_rsa(&self, hash: Hash, key: RsaNumbers<'_>, message: &[u8], signature: &[u8]) -> bool {
                let parameters = match hash {
                    Hash::Sha1 => &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
                    Hash::Sha256 => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
                };
                let key = signature::RsaPublicKeyComponents { n: key.modulus, e: key.exponent };
                key.verify(parameters, message, signature).is_ok()
            }

            fn verify_ed25519(&self, key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature).is_ok()
            }

            fn load(&self, key: PrivateKeyDer<'_>) -> Result<Box<dyn KeyPair>, KeyError> {
                // A PKCS#8 key says only inside what it is: try both.
                let rejected = |why: $library::error::KeyRejected| KeyError::Rejected(description(&why));
                match key {
                    PrivateKeyDer::Pkcs1(der) => {
                        Ok(Box::new(Rsa(RsaKeyPair::from_der(der).map_err(rejected)?)))
                    }
                    PrivateKeyDer::Seed(seed) => {
                        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(rejected)?;
                        Ok(Box::new(Ed25519(pair)))
                    }
                    PrivateKeyDer::Pkcs8(der) => match Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
                        Ok(pair) => Ok(Box::new(Ed25519(pair))),
                        Err(_) => Ok(Box::new(Rsa(RsaKeyPair::from_pkcs8(der).map_err(rejected)?))),
                    },
                }
            }

            fn random(&self, octets: &mut [u8]) -> Result<(), KeyError> {
                SystemRandom::new().fill(octets).map_err(|_| KeyError::Rejected("no randomness"))
            }

            fn generate_rsa(&self, bits: u32) -> Result<Vec<u8>, KeyError> {
                generate_rsa(bits)
            }
        }
    };
}
