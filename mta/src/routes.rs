//! Where mail for a host goes: to its MX, to a smart host, or to a mail store over LMTP.
//!
//! Not here: the look-ups (smtp-client's `route`), retries.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

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
