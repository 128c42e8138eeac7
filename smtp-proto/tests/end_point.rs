//! `tls-server-end-point` (RFC 5929 4.1) of certificates that OpenSSL made, against hashes that OpenSSL computed.
//!
//! `tests/end_point/expected` has a line for each: name, hash, digest. Made by `openssl req -x509` with the hash in the
//! file's name and `openssl dgst`; SHA-1 is replaced by SHA-256, and Ed25519 has no binding.
#![cfg(feature = "sasl")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postwright_smtp_proto::sasl::server_end_point;

#[test]
fn the_hash_is_that_of_the_signature() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_point");
    let expected = std::fs::read_to_string(folder.join("expected")).unwrap();
    let mut seen = 0;
    for line in expected.lines() {
        let mut words = line.split(' ');
        let (name, hash) = (words.next().unwrap(), words.next().unwrap());
        let pem = std::fs::read_to_string(folder.join(format!("{name}.pem"))).unwrap();
        let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(text).unwrap();
        let found = server_end_point(&der);
        let found = found.map(|octets| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>());
        assert_eq!(found.as_deref(), words.next(), "{name}: {hash}");
        // What is cut short is no certificate, or has the same algorithm in front of a signature that is not looked at.
        for len in 0..der.len() {
            server_end_point(&der[..len]);
        }
        seen += 1;
    }
    assert_eq!(seen, 7);
}
