//! The `tls-server-end-point` channel binding: a hash of the server's certificate.
//!
//! Invariant: both ends of one connection come to the same octets, or to none; no certificate makes this panic, and
//! its length fields are believed only within the octets that are there.
//!
//! Standards: RFC 5929 4.1 (which hash); RFC 5280 4.1 (the certificate); RFC 3279 2.2, RFC 4055 3, RFC 5758 3
//! (signature algorithms); X.690 8 (DER).
//!
//! Not here: whether the certificate is any good (drivers), the binding's use (SCRAM).

use sha2::{Digest, Sha256, Sha384, Sha512};

/// How a certificate is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HashOf {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// Signature algorithms by their object identifiers, with the hash that RFC 5929 4.1 asks for: that of the
/// signature, but SHA-256 instead of MD5 and SHA-1.
const ALGORITHMS: &[(&[u8], HashOf)] = &[
    // 1.2.840.113549.1.1: md5, sha1, sha256, sha384, sha512 and sha224 with RSA.
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04], HashOf::Sha256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05], HashOf::Sha256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b], HashOf::Sha256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c], HashOf::Sha384),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d], HashOf::Sha512),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0e], HashOf::Sha224),
    // 1.2.840.10045.4: ECDSA with SHA-1, and 3.1 to 3.4 with SHA-224 to SHA-512.
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01], HashOf::Sha256),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x01], HashOf::Sha224),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02], HashOf::Sha256),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03], HashOf::Sha384),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04], HashOf::Sha512),
];
/// 1.2.840.113549.1.1.10, RSASSA-PSS: the hash stands in its parameters.
const PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
/// 2.16.840.1.101.3.4.2.1 to .4: SHA-256, -384, -512, -224.
const HASHES: &[(&[u8], HashOf)] = &[
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01], HashOf::Sha256),
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02], HashOf::Sha384),
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03], HashOf::Sha512),
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x04], HashOf::Sha224),
];

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// `[0]`, explicit: the first of the parameters of RSASSA-PSS.
const FIRST: u8 = 0xa0;

/// The octets of `tls-server-end-point` for this certificate, in DER. `None` if its signature has no single hash
/// (Ed25519 and Ed448, for which RFC 5929 4.1 defines nothing), an unknown one, or if it is no certificate.
pub fn server_end_point(certificate: &[u8]) -> Option<Box<[u8]>> {
    Some(match hash_of(certificate)? {
        HashOf::Sha224 => sha2::Sha224::digest(certificate).as_slice().into(),
        HashOf::Sha256 => Sha256::digest(certificate).as_slice().into(),
        HashOf::Sha384 => Sha384::digest(certificate).as_slice().into(),
        HashOf::Sha512 => Sha512::digest(certificate).as_slice().into(),
    })
}

fn hash_of(certificate: &[u8]) -> Option<HashOf> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (_, behind) = element(certificate, SEQUENCE)?;
    let (algorithm, _) = element(behind, SEQUENCE)?;
    let (name, parameters) = element(algorithm, OBJECT_IDENTIFIER)?;
    if name != PSS {
        return known(ALGORITHMS, name);
    }
    let (parameters, _) = element(parameters, SEQUENCE)?;
    // RFC 4055 3.1: without a hash it is SHA-1, for which SHA-256 stands in.
    let Some((hash, _)) = element(parameters, FIRST) else { return Some(HashOf::Sha256) };
    let (hash, _) = element(hash, SEQUENCE)?;
    known(HASHES, element(hash, OBJECT_IDENTIFIER)?.0)
}

fn known(table: &[(&[u8], HashOf)], name: &[u8]) -> Option<HashOf> {
    table.iter().find(|(known, _)| *known == name).map(|(_, hash)| *hash)
}

/// The content of the element that the octets begin with, if it has this tag, and what stands behind it.
fn element(octets: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = octets.split_first()?;
    let (first, rest) = rest.split_first()?;
    if *found != tag {
        return None;
    }
    let (len, rest) = match *first {
        short @ ..=0x7f => (usize::from(short), rest),
        // The long form: so many octets of length. Four hold any certificate.
        long @ 0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (digits.iter().fold(0usize, |len, digit| (len << 8) | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_certificates_have_no_end_point() {
        let algorithm = [&[SEQUENCE, 12, OBJECT_IDENTIFIER, 8][..], ALGORITHMS[8].0, &[5, 0]].concat();
        let whole = [&[SEQUENCE, 16, SEQUENCE, 0][..], &algorithm].concat();
        assert_eq!(hash_of(&whole), Some(HashOf::Sha256));
        for len in 0..whole.len() {
            assert_eq!(server_end_point(&whole[..len]), None, "{len}");
        }
        for octet in 0..whole.len() {
            for value in 0..=255 {
                let mut changed = whole.clone();
                changed[octet] = value;
                // Any answer is fine; a panic is not.
                server_end_point(&changed);
            }
        }
        assert_eq!(server_end_point(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
