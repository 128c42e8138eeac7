//! Where mail goes: to its MX, to a smart host, or to a mail store over LMTP.
//!
//! Invariant: what a way writes as its name is read as the same way again, its level of TLS apart.
//!
//! Standards: RFC 2033 5; RFC 8314 7.3 (port 465).
//!
//! Not here: which mail takes it (rule.rs), the look-ups (smtp-client's `route`), retries.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use postwright_core::Host;
use postwright_smtp_client::policy::Level;

/// How mail for one host travels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Via {
    /// To the hosts that its DNS names (RFC 5321 5.1).
    Mx,
    /// To one host, whatever DNS says about the recipient's domain.
    SmartHost {
        /// Its name or address.
        host: Host,
        /// Its port.
        port: u16,
        /// What is asked of TLS on the way.
        tls: Level,
    },
    /// Over LMTP (RFC 2033) to one host: the last step, to where the mailboxes are.
    Lmtp {
        /// Its name or address.
        host: Host,
        /// Its port; there is none of its own for LMTP, and 25 must not be used (RFC 2033 5).
        port: u16,
        /// What is asked of TLS on the way.
        tls: Level,
    },
    /// Over LMTP to a UNIX socket on this machine.
    LmtpSocket(PathBuf),
}

impl Via {
    /// What is asked of TLS on the way, where the operator says so: not for [`Via::Mx`], and not for a socket, which
    /// has none.
    pub fn level(&self) -> Option<Level> {
        match self {
            Via::SmartHost { tls, .. } | Via::Lmtp { tls, .. } => Some(*tls),
            Via::Mx | Via::LmtpSocket(_) => None,
        }
    }

    /// The host that the operator names, if it is one.
    pub fn host(&self) -> Option<&Host> {
        match self {
            Via::SmartHost { host, .. } | Via::Lmtp { host, .. } => Some(host),
            Via::Mx | Via::LmtpSocket(_) => None,
        }
    }

    /// Whether TLS begins with the first octet: at port 465, which is for nothing else (RFC 8314 7.3).
    pub fn is_implicit_tls(&self) -> bool {
        matches!(self, Via::SmartHost { port: 465, .. })
    }

    /// Whether it is this machine, by its address.
    pub(crate) fn is_loopback(&self) -> bool {
        matches!(self.host(), Some(Host::Literal(ip)) if ip.is_loopback())
    }

    /// Whether it leads to a mail store, and not onwards.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Via::Lmtp { .. } | Via::LmtpSocket(_))
    }
}

/// As a site's name: the same for all domains that go this way.
impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Via::Mx => f.write_str("mx"),
            Via::SmartHost { host, port, .. } => write!(f, "{host}:{port}"),
            Via::Lmtp { host, port, .. } => write!(f, "lmtp:{host}:{port}"),
            Via::LmtpSocket(path) => write!(f, "lmtp:{}", path.display()),
        }
    }
}

/// What is no way for mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ViaError {
    /// It is none of what [`Via`] reads.
    Unknown,
    /// RFC 2033 5: it would be taken for SMTP.
    LmtpOn25,
}

impl fmt::Display for ViaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ViaError::Unknown => {
                "not a way for mail: write relay.example.org:587, 192.0.2.1:25, mx, lmtp:HOST:PORT or lmtp:/SOCKET"
            }
            ViaError::LmtpOn25 => "LMTP must not use port 25 (RFC 2033 5)",
        })
    }
}

impl std::error::Error for ViaError {}

/// `mx`, `HOST:PORT`, `lmtp:HOST:PORT` or `lmtp:/SOCKET`; of TLS, what is offered is used.
///
/// ```
/// use postwright::Via;
/// let via: Via = "relay.example.org:587".parse()?;
/// assert!(matches!(&via, Via::SmartHost { port: 587, .. }));
/// assert_eq!(via.to_string(), "relay.example.org:587");
/// assert!("relay.example.org".parse::<Via>().is_err());
/// # Ok::<(), postwright::ViaError>(())
/// ```
impl FromStr for Via {
    type Err = ViaError;

    fn from_str(text: &str) -> Result<Via, ViaError> {
        let tls = Level::Opportunistic;
        match text.strip_prefix("lmtp:") {
            Some(path) if path.starts_with('/') => Ok(Via::LmtpSocket(path.into())),
            Some(place) => match host_and_port(place)? {
                (_, 25) => Err(ViaError::LmtpOn25),
                (host, port) => Ok(Via::Lmtp { host, port, tls }),
            },
            None if text == "mx" => Ok(Via::Mx),
            None => host_and_port(text).map(|(host, port)| Via::SmartHost { host, port, tls }),
        }
    }
}

fn host_and_port(text: &str) -> Result<(Host, u16), ViaError> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((Host::Literal(address.ip()), address.port()));
    }
    let (host, port) = text.rsplit_once(':').ok_or(ViaError::Unknown)?;
    let host = host.parse().map_err(|_| ViaError::Unknown)?;
    Ok((host, port.parse().map_err(|_| ViaError::Unknown)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_read_as_it_is_written() {
        for (text, name) in [
            ("mx", "mx"),
            ("relay.example.org:587", "relay.example.org:587"),
            ("192.0.2.1:2525", "[192.0.2.1]:2525"),
            ("[192.0.2.1]:2525", "[192.0.2.1]:2525"),
            ("[2001:db8::1]:25", "[IPv6:2001:db8::1]:25"),
            ("lmtp:store.example:24", "lmtp:store.example:24"),
            ("lmtp:/run/lmtp.sock", "lmtp:/run/lmtp.sock"),
        ] {
            let via: Via = text.parse().unwrap();
            assert_eq!(via.to_string(), name);
            assert_eq!(via.to_string().parse(), Ok(via), "{text}");
        }
        for wrong in
            ["", "relay.example.org", "relay.example.org:", ":25", "relay.example.org:70000", "lmtp:", "MX"]
        {
            assert_eq!(wrong.parse::<Via>(), Err(ViaError::Unknown), "{wrong}");
        }
        assert_eq!("lmtp:store.example:25".parse::<Via>(), Err(ViaError::LmtpOn25));
    }

    /// RFC 8314 7.3: 465 is for TLS from the first octet; 587 and 25 begin in clear.
    #[test]
    fn port_465_alone_begins_with_tls() {
        for (text, implicit) in [
            ("relay.example.org:465", true),
            ("relay.example.org:587", false),
            ("192.0.2.1:25", false),
            ("lmtp:store.example:465", false),
            ("mx", false),
        ] {
            assert_eq!(text.parse::<Via>().unwrap().is_implicit_tls(), implicit, "{text}");
        }
    }
}
