//! [`Crypto`](super::Crypto) by AWS-LC.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;

library!(aws_lc_rs, AwsLc, "aws-lc-rs");

fn modulus_len(pair: &RsaKeyPair) -> usize {
    pair.public_modulus_len()
}

fn description(_why: &aws_lc_rs::error::KeyRejected) -> &'static str {
    "aws-lc-rs rejects it"
}

fn generate_rsa(bits: u32) -> Result<Vec<u8>, KeyError> {
    let size = match bits {
        2048 => KeySize::Rsa2048,
        3072 => KeySize::Rsa3072,
        4096 => KeySize::Rsa4096,
        _ => return Err(KeyError::Size),
    };
    let failed = |_| KeyError::Rejected("generation failed");
    let pair = RsaKeyPair::generate(size).map_err(failed)?;
    let document: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
    Ok(document.as_ref().to_vec())
}
