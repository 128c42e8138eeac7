//! Where mail for a host goes: to its MX, to a smart host, or to a mail store over LMTP.
//!
//! Invariant: what a way writes as its name is read as the same way again, its level of TLS apart.
//!
//! Standards: RFC 2033 5.
//!
//! Not here: the look-ups (smtp-client's `route`), retries.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use postwright_core::{Domain, Host};
use postwright_smtp_client::policy::Level;
use postwright_smtp_client::route::Rules;
use postwright_smtp_client::site::Rule as Provider;

/// How mail for one host travels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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

/// The routes of a system.
///
/// ```
/// use postwright::{Routes, Via};
/// let routes = Routes::mx();
/// assert_eq!(routes.via(&"example.org".parse()?), &Via::Mx);
/// # Ok::<(), postwright::core::AddressError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Routes {
    default: Via,
    domains: BTreeMap<Domain, Via>,
    /// What is asked of TLS to MX hosts where their domain publishes no policy: trying.
    pub tls: Level,
    /// The port of MX hosts: 25, unless the network says otherwise.
    pub mx_port: u16,
    /// What MX look-ups have to keep to.
    pub rules: Rules,
    /// Providers by where their mail hosts live: all domains of one are one site.
    pub providers: Vec<Provider>,
}

impl Routes {
    /// Everything by MX.
    pub fn mx() -> Routes {
        Routes {
            default: Via::Mx,
            domains: BTreeMap::new(),
            tls: Level::default(),
            mx_port: 25,
            rules: Rules::default(),
            providers: Vec::new(),
        }
    }

    /// Everything to one host, with TLS if it offers it.
    pub fn smart_host(host: Host, port: u16) -> Routes {
        Routes { default: Via::SmartHost { host, port, tls: Level::Opportunistic }, ..Routes::mx() }
    }

    /// Sends mail for one domain another way.
    #[must_use]
    pub fn with_domain(mut self, domain: Domain, via: Via) -> Routes {
        self.domains.insert(domain, via);
        self
    }

    /// The way to a host.
    pub fn via(&self, host: &Host) -> &Via {
        host.domain().and_then(|domain| self.domains.get(domain)).unwrap_or(&self.default)
    }
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
}
