//! Every number that bounds what the network can make us do.

/// The limits of verification. Work and memory are bounded by their product, never by what a sender wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Signatures of one message that are verified, from the top; the others get `policy`. Bounds DNS look-ups and
    /// public-key operations (RFC 6376 6.1: a verifier "MAY limit the number of signatures it tries"). 10.
    pub signatures: usize,
    /// Octets of the header section that a verification keeps until the message ends. Beyond it every signature
    /// gets `policy`. 16 MiB, so that 10,000 signature fields are still listed; a server sets what its own limit is.
    pub header_octets: usize,
    /// Names in one `h=` (RFC 6376 3.5). 1,000.
    pub signed_names: usize,
    /// Octets of one key record, all strings joined (RFC 6376 3.6.2.2). A key of 16,384 bits needs under 3,000. 16 KiB.
    pub key_record_octets: usize,
    /// TXT records of one name that are tried as keys; RFC 6376 3.6.2.2 leaves more than one undefined. 3.
    pub key_records: usize,
    /// Largest RSA key in bits; RFC 8301 3.2 demands 4,096. 8,192, the cryptographic libraries' own ceiling.
    pub rsa_bits_max: u32,
    /// ARC sets of one message (RFC 8617 4.2.1 sets 50).
    pub arc_sets: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            signatures: 10,
            header_octets: 16 << 20,
            signed_names: 1_000,
            key_record_octets: 16 << 10,
            key_records: 3,
            rsa_bits_max: 8_192,
            arc_sets: 50,
        }
    }
}
