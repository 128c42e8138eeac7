//! [`Crypto`](super::Crypto) by ring.

library!(ring, Ring, "ring");

fn modulus_len(pair: &RsaKeyPair) -> usize {
    pair.public().modulus_len()
}

fn description(_why: &ring::error::KeyRejected) -> &'static str {
    "ring rejects it"
}

fn generate_rsa(_bits: u32) -> Result<Vec<u8>, KeyError> {
    Err(KeyError::CannotGenerate)
}
