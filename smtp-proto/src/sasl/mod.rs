//! SASL mechanisms as small machines without input and output, for both roles.
//!
//! Invariant: a machine sees and makes raw messages; base64 and reply codes are the session's. A password or token
//! is never shown by `Debug` and is wiped when dropped. Everything a peer sends is bounded by
//! [`MESSAGE_MAX`], and no message makes a machine panic.
//!
//! | mechanism | standard | test |
//! |---|---|---|
//! | PLAIN | RFC 4616 | `tests/sasl.rs`, RFC 4616 4 |
//! | LOGIN | draft-murchison-sasl-login | `tests/sasl.rs` |
//! | CRAM-MD5 | RFC 2195 | `tests/sasl.rs`, RFC 2195 2 |
//! | SCRAM-SHA-1, -256 and -PLUS | RFC 5802, RFC 7677, RFC 9266, RFC 5929 4 | `tests/sasl.rs`, RFC 5802 5, RFC 7677 3 |
//! | XOAUTH2 | Google's and Microsoft's documents | `tests/sasl.rs` |
//! | OAUTHBEARER | RFC 7628 | `tests/sasl.rs`, RFC 7628 4 |
//! | EXTERNAL | RFC 4422 appendix A | `tests/sasl.rs` |
//!
//! Not here: who the users are (the embedder), lock-out (smtp-server), SASLprep (RFC 4013): passwords are used as
//! the UTF-8 they are, which is the same for ASCII.

pub mod client;
mod end_point;
mod scram;
pub mod server;

use std::fmt;

use zeroize::Zeroizing;

pub use end_point::server_end_point;
pub use scram::{Hash, ScramKeys};

/// Longest message of an exchange in octets, before base64: what fits a line of 12,288 (RFC 4954 4).
pub const MESSAGE_MAX: usize = 9216;

/// A way to prove who one is, in order of preference: the greatest that both sides have is the one to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Mechanism {
    /// LOGIN: user name and password in clear, asked for one by one. Obsolete, and still what some servers have.
    Login,
    /// PLAIN (RFC 4616): user name and password in clear.
    Plain,
    /// CRAM-MD5 (RFC 2195): the server must keep the password itself.
    CramMd5,
    /// SCRAM-SHA-1 (RFC 5802).
    ScramSha1,
    /// SCRAM-SHA-256 (RFC 7677).
    ScramSha256,
    /// SCRAM-SHA-1-PLUS: bound to the TLS connection.
    ScramSha1Plus,
    /// SCRAM-SHA-256-PLUS: bound to the TLS connection.
    ScramSha256Plus,
    /// XOAUTH2: a bearer token, as Google and Microsoft first did it.
    XOAuth2,
    /// OAUTHBEARER (RFC 7628): a bearer token.
    OAuthBearer,
    /// EXTERNAL (RFC 4422): the TLS client certificate says who one is.
    External,
}

impl Mechanism {
    /// All of them, the most preferred last.
    pub const ALL: [Mechanism; 10] = [
        Mechanism::Login,
        Mechanism::Plain,
        Mechanism::CramMd5,
        Mechanism::ScramSha1,
        Mechanism::ScramSha256,
        Mechanism::ScramSha1Plus,
        Mechanism::ScramSha256Plus,
        Mechanism::XOAuth2,
        Mechanism::OAuthBearer,
        Mechanism::External,
    ];

    /// The registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Mechanism::Login => "LOGIN",
            Mechanism::Plain => "PLAIN",
            Mechanism::CramMd5 => "CRAM-MD5",
            Mechanism::ScramSha1 => "SCRAM-SHA-1",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Mechanism::XOAuth2 => "XOAUTH2",
            Mechanism::OAuthBearer => "OAUTHBEARER",
            Mechanism::External => "EXTERNAL",
        }
    }

    /// The mechanism of that name, in any letter case.
    pub fn from_name(name: &str) -> Option<Mechanism> {
        Mechanism::ALL.into_iter().find(|mechanism| mechanism.as_str().eq_ignore_ascii_case(name))
    }

    /// Whether a password or token goes over the wire as it is, so that TLS is a must (RFC 4954 4).
    pub fn is_clear_text(self) -> bool {
        matches!(self, Mechanism::Login | Mechanism::Plain | Mechanism::XOAuth2 | Mechanism::OAuthBearer)
    }

    /// Whether the exchange is bound to the TLS connection.
    pub fn is_bound(self) -> bool {
        matches!(self, Mechanism::ScramSha1Plus | Mechanism::ScramSha256Plus)
    }

    fn hash(self) -> Option<Hash> {
        match self {
            Mechanism::ScramSha1 | Mechanism::ScramSha1Plus => Some(Hash::Sha1),
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => Some(Hash::Sha256),
            _ => None,
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A password or token: not shown, and wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over the text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(Zeroizing::new(text.into()))
    }

    /// The text: for checking it and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Channel binding data of the TLS connection (RFC 5056).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelBinding {
    /// `tls-exporter` (RFC 9266).
    Exporter([u8; 32]),
    /// `tls-server-end-point` (RFC 5929 4): a hash of the server's certificate.
    ServerEndPoint(Box<[u8]>),
}

impl ChannelBinding {
    /// The name of the binding's type, as in `p=tls-exporter`.
    pub fn name(&self) -> &'static str {
        match self {
            ChannelBinding::Exporter(_) => "tls-exporter",
            ChannelBinding::ServerEndPoint(_) => "tls-server-end-point",
        }
    }

    /// The binding's data.
    pub fn data(&self) -> &[u8] {
        match self {
            ChannelBinding::Exporter(data) => data,
            ChannelBinding::ServerEndPoint(data) => data,
        }
    }
}

/// Why an exchange cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SaslError {
    /// The peer sent a message that does not belong there, or one that cannot be read.
    #[error("the peer's SASL message cannot be read or does not belong here")]
    Malformed,
    /// The message is longer than [`MESSAGE_MAX`].
    #[error("the peer's SASL message is longer than {MESSAGE_MAX} octets")]
    TooLong,
    /// The credentials do not fit the mechanism, or hold a character it cannot carry.
    #[error("these credentials cannot be used with this mechanism")]
    Credentials,
    /// -PLUS without channel binding data.
    #[error("channel binding is not available on this connection")]
    NoBinding,
    /// The server's nonce does not begin with ours, or its proof is wrong: it does not know the password.
    #[error("the server did not prove that it knows the password")]
    Server,
    /// Fewer iterations than are safe, or so many that they would hold us up.
    #[error("the server's iteration count is outside 4,096 to 500,000")]
    Iterations,
    /// The server refused within the exchange.
    #[error("the server refused the credentials")]
    Refused,
}

fn check_length(message: &[u8]) -> Result<(), SaslError> {
    if message.len() > MESSAGE_MAX { Err(SaslError::TooLong) } else { Ok(()) }
}

fn text(message: &[u8]) -> Result<&str, SaslError> {
    check_length(message)?;
    std::str::from_utf8(message).map_err(|_| SaslError::Malformed)
}

/// `keyed MD5` of RFC 2195 2, in lower-case hexadecimal.
fn cram_digest(password: &str, challenge: &[u8]) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let Ok(mut mac) = Hmac::<md5::Md5>::new_from_slice(password.as_bytes()) else {
        return String::new();
    };
    mac.update(challenge);
    mac.finalize().into_bytes().iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Compares in a time that depends on the lengths only.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
}
