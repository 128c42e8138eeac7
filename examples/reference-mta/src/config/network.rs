//! Networks in CIDR form.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::Deserialize;

/// A network such as `10.0.0.0/8`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Network(IpNet);

impl Network {
    /// Whether an address lies in the network; an IPv4 address mapped into IPv6 counts as IPv4.
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }

    /// Why relaying for this network would be relaying for strangers.
    pub(crate) fn open_relay(&self) -> Option<&'static str> {
        // The widest private blocks are 10.0.0.0/8 and fc00::/7; no site owns more.
        match (self.0.prefix_len(), self.0) {
            (0, _) => Some("it is everybody"),
            (..8, IpNet::V4(_)) => Some("it is wider than any site's network (/8)"),
            (..7, IpNet::V6(_)) => Some("it is wider than any site's network (/7)"),
            _ => None,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network
            .map(Network)
            .map_err(|_| format!("{text:?} is not a network; write it like 10.0.0.0/8 or fd00::/8"))
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
