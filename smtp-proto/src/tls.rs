//! What a session machine knows about the TLS that protects it: [`TlsInfo`].
//!
//! Invariant: plain values; the machine never sees a key and never runs a handshake.
//!
//! Standards: RFC 3207 4; RFC 5929 4 (tls-server-end-point); RFC 9266 (tls-exporter).
//!
//! Not here: the handshake (drivers).

/// The outcome of a TLS handshake, as the driver reports it.
///
/// Every field may be left at its default; what depends on it (channel bindings, client certificates, REQUIRETLS
/// towards a verified peer) is then not available.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsInfo {
    /// Such as `TLSv1.3`.
    pub version: Box<str>,
    /// Such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: Box<str>,
    /// The name that the client asked for (SNI), if it did.
    pub server_name: Option<Box<str>>,
    /// Whether the peer's certificate was verified.
    pub verified: bool,
    /// The peer's end-entity certificate in DER, if it showed one.
    pub peer_certificate: Option<Box<[u8]>>,
    /// The 32 octets of the `tls-exporter` channel binding (RFC 9266); TLS 1.3, or 1.2 with extended master secret.
    pub exporter: Option<[u8; 32]>,
    /// The `tls-server-end-point` channel binding (RFC 5929 4.1): a hash of the server's certificate.
    pub server_end_point: Option<Box<[u8]>>,
}
