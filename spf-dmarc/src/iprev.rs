//! iprev: does the client's address have a name that leads back to it?
//!
//! Invariant: at most one PTR look-up and as many address look-ups as [`Limits::spf_ptr_names`].
//!
//! Standards: RFC 8601 section 3 and 2.7.3.

use std::fmt;
use std::net::IpAddr;

use postwright_core::{Name, Record, RecordKind, Resolver};

use crate::Limits;

/// The verdict on an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// A name of the address leads back to it.
    Pass,
    /// It has names, and none does.
    Fail,
    /// DNS failed for the moment.
    TempError,
    /// It has no name.
    PermError,
}

impl Verdict {
    /// As in `Authentication-Results`.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::TempError => "temperror",
            Verdict::PermError => "permerror",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A verdict and the name it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IprevResult {
    /// The verdict.
    pub verdict: Verdict,
    /// The address, IPv4 taken out of IPv6.
    pub ip: IpAddr,
    /// The name that leads back, or else the first one.
    pub name: Option<Name>,
}

/// Checks an address.
pub async fn check(ip: IpAddr, resolver: &dyn Resolver, limits: &Limits) -> IprevResult {
    let ip = ip.to_canonical();
    let kind = if ip.is_ipv4() { RecordKind::A } else { RecordKind::Aaaa };
    let mut result = IprevResult { verdict: Verdict::TempError, ip, name: None };
    let Ok(answer) = resolver.lookup(&Name::reverse(ip), RecordKind::Ptr).await else { return result };
    result.verdict = Verdict::PermError;
    let mut failed = false;
    for record in answer.records().iter().take(limits.spf_ptr_names) {
        let Record::Ptr(name) = record else { continue };
        result.verdict = Verdict::Fail;
        match resolver.lookup(name, kind).await {
            Ok(back) if back.records().iter().filter_map(Record::address).any(|address| address == ip) => {
                return IprevResult { verdict: Verdict::Pass, ip, name: Some(name.clone()) };
            }
            Ok(_) => {}
            Err(_) => failed = true,
        }
        result.name.get_or_insert_with(|| name.clone());
    }
    if failed {
        result.verdict = Verdict::TempError;
    }
    result
}
