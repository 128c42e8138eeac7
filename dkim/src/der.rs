//! Just enough DER (X.690) to find the modulus and the exponent of an RSA public key.
//!
//! Invariant: definite, minimal lengths of at most four octets; what is inside is not looked at further.
//!
//! Standards: RFC 8017 A.1.1 (RSAPublicKey), RFC 5280 4.1 (SubjectPublicKeyInfo), RFC 3279 2.3.1.
//!
//! Not here: private keys (the cryptographic library parses those).

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
/// AlgorithmIdentifier of rsaEncryption: OID 1.2.840.113549.1.1.1, without its parameters.
const RSA_OID: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// A public RSA key: big-endian numbers without leading zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RsaNumbers<'k> {
    pub(crate) modulus: &'k [u8],
    pub(crate) exponent: &'k [u8],
}

impl RsaNumbers<'_> {
    /// Bits of the modulus.
    pub(crate) fn bits(&self) -> u32 {
        let octets = u32::try_from(self.modulus.len()).unwrap_or(u32::MAX);
        let unused = self.modulus.first().map_or(0, |first| first.leading_zeros());
        octets.saturating_mul(8).saturating_sub(unused)
    }
}

/// The RSAPublicKey inside `key`, which is one or a SubjectPublicKeyInfo around one: RFC 6376 3.6.1 asks for the
/// former, and its own example (appendix C) and nearly all published keys are the latter.
pub(crate) fn rsa_public_key(key: &[u8]) -> Option<RsaNumbers<'_>> {
    let (body, rest) = element(SEQUENCE, key)?;
    if !rest.is_empty() {
        return None;
    }
    if body.first() == Some(&INTEGER) {
        return numbers(body);
    }
    let (algorithm, rest) = element(SEQUENCE, body)?;
    if !algorithm.starts_with(RSA_OID) {
        return None;
    }
    let (bits, rest) = element(BIT_STRING, rest)?;
    // The first octet counts unused bits.
    let inner = bits.strip_prefix(&[0])?;
    if !rest.is_empty() {
        return None;
    }
    let (body, rest) = element(SEQUENCE, inner)?;
    if rest.is_empty() { numbers(body) } else { None }
}

fn numbers(body: &[u8]) -> Option<RsaNumbers<'_>> {
    let (modulus, rest) = element(INTEGER, body)?;
    let (exponent, rest) = element(INTEGER, rest)?;
    if !rest.is_empty() {
        return None;
    }
    Some(RsaNumbers { modulus: positive(modulus)?, exponent: positive(exponent)? })
}

/// A positive INTEGER: one zero octet in front only where the sign bit needs it.
fn positive(octets: &[u8]) -> Option<&[u8]> {
    match octets {
        [0, rest @ ..] if rest.first().is_some_and(|first| first & 0x80 != 0) => Some(rest),
        [first, ..] if (1..0x80).contains(first) => Some(octets),
        _ => None,
    }
}

/// The contents of the element with `tag` at the start, and what follows it.
fn element(tag: u8, octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, rest) = octets.split_first()?;
    if *found != tag {
        return None;
    }
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        short @ 0..=0x7f => (usize::from(*short), rest),
        long @ 0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            let len = digits
                .iter()
                .try_fold(0usize, |len, digit| len.checked_mul(256)?.checked_add(usize::from(*digit)))?;
            if len < 0x80 || digits.first() == Some(&0) {
                return None;
            }
            (len, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(len)
}

/// SubjectPublicKeyInfo around an RSAPublicKey (RFC 3279 2.3.1), for publishing.
pub(crate) fn wrap_rsa_public_key(pkcs1: &[u8]) -> Vec<u8> {
    let mut algorithm = RSA_OID.to_vec();
    algorithm.extend([0x05, 0x00]);
    let mut bits = vec![0];
    bits.extend(pkcs1);
    let mut body = encode(SEQUENCE, &algorithm);
    body.extend(encode(BIT_STRING, &bits));
    encode(SEQUENCE, &body)
}

fn encode(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(contents.len()) {
        Ok(short @ 0..=0x7f) => out.push(short),
        _ => {
            let octets = contents.len().to_be_bytes();
            let digits: Vec<u8> = octets.into_iter().skip_while(|octet| *octet == 0).collect();
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or(8));
            out.extend(digits);
        }
    }
    out.extend(contents);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RSAPublicKey { modulus: 0xc0ffee (24 bits), publicExponent: 3 }, by hand from X.690.
    const TINY: [u8; 11] = [0x30, 0x09, 0x02, 0x04, 0x00, 0xc0, 0xff, 0xee, 0x02, 0x01, 0x03];

    #[test]
    fn both_forms_are_read() {
        let tiny = rsa_public_key(&TINY).unwrap();
        assert_eq!((tiny.modulus, tiny.exponent, tiny.bits()), (&[0xc0, 0xff, 0xee][..], &[3][..], 24));
        assert_eq!(rsa_public_key(&wrap_rsa_public_key(&TINY)), Some(tiny));
    }

    #[test]
    fn cut_or_changed_keys_are_no_keys() {
        for len in 0..TINY.len() {
            assert_eq!(rsa_public_key(&TINY[..len]), None, "{len}");
        }
        let mut long = TINY.to_vec();
        long.push(0);
        assert_eq!(rsa_public_key(&long), None);
        let mut negative = TINY;
        negative[4] = 0xff;
        assert_eq!(rsa_public_key(&negative), None);
        // A length of 2^32 - 1.
        assert_eq!(rsa_public_key(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
