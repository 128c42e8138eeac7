//! `Authentication-Results`: telling the next reader what was checked, and reading what others told.
//!
//! Invariant: what is composed parses back to itself, whatever strangers put into addresses and reasons; it cannot
//! break the header. What is parsed is believed by nobody: [`forged`] finds fields that use our name, and they must
//! be gone before ours is added (RFC 8601 5).
//!
//! Standards: RFC 8601 (all of it); RFC 9989 9.2 (`policy.dmarc`).
//!
//! Not here: who is trusted; `ARC-Authentication-Results` (the dkim crate), though [`AuthResults::value`] fits it.

mod compose;
mod parse;

use std::borrow::Cow;
use std::ops::Range;

use postwright_core::HeaderField;

pub use parse::ParseError;

use crate::dmarc::DmarcResult;
use crate::header;
use crate::iprev::IprevResult;
use crate::spf::SpfResult;

/// The field's name.
pub const NAME: &str = "Authentication-Results";

/// A field: who checked, and what came out.
///
/// ```
/// use postwright_spf_dmarc::auth_results::{AuthResults, MethodResult};
/// let results = AuthResults::new("mx.example.org")
///     .with(MethodResult::new("dkim", "pass").property("header", "d", "example.net"));
/// assert_eq!(results.value(), "mx.example.org;\r\n\tdkim=pass header.d=example.net");
/// assert_eq!(AuthResults::parse(&results.value())?, results);
/// # Ok::<(), postwright_spf_dmarc::auth_results::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthResults {
    /// The name of the host or administrative domain that checked.
    pub authserv_id: String,
    /// The version of the field; 1.
    pub version: u32,
    /// What was checked; none means `none`.
    pub results: Vec<MethodResult>,
}

impl AuthResults {
    /// A field of ours without results.
    pub fn new(authserv_id: impl Into<String>) -> AuthResults {
        AuthResults { authserv_id: authserv_id.into(), version: 1, results: Vec::new() }
    }

    /// Adds a result.
    #[must_use]
    pub fn with(mut self, result: impl Into<MethodResult>) -> Self {
        self.results.push(result.into());
        self
    }

    /// Reads a field's value. Comments are dropped.
    pub fn parse(value: &str) -> Result<AuthResults, ParseError> {
        parse::parse(value)
    }

    /// The value, folded.
    pub fn value(&self) -> String {
        compose::value(self)
    }

    /// The field, to be put on top of the message.
    pub fn field(&self) -> HeaderField {
        compose::field(self)
    }

    /// The first result of a method.
    pub fn method(&self, name: &str) -> Option<&MethodResult> {
        self.results.iter().find(|result| result.method.eq_ignore_ascii_case(name))
    }
}

/// The result of one method.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MethodResult {
    /// `spf`, `dkim`, `dmarc`, `auth`, `iprev`, `arc`, ...
    pub method: Cow<'static, str>,
    /// The method's version; 1.
    pub version: u32,
    /// `pass`, `fail`, `none`, ...
    pub result: Cow<'static, str>,
    /// Why, for people.
    pub reason: Option<String>,
    /// What it is about.
    pub properties: Vec<Property>,
}

/// What a result is about: `ptype.name=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// `smtp`, `header`, `body` or `policy`.
    pub ptype: Cow<'static, str>,
    /// The property.
    pub name: Cow<'static, str>,
    /// Its value.
    pub value: String,
}

impl MethodResult {
    /// A result about nothing yet.
    pub fn new(method: impl Into<Cow<'static, str>>, result: impl Into<Cow<'static, str>>) -> MethodResult {
        MethodResult {
            method: method.into(),
            version: 1,
            result: result.into(),
            reason: None,
            properties: Vec::new(),
        }
    }

    /// Says why.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Says what it is about.
    #[must_use]
    pub fn property(
        mut self,
        ptype: impl Into<Cow<'static, str>>,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
    ) -> Self {
        self.properties.push(Property { ptype: ptype.into(), name: name.into(), value: value.into() });
        self
    }

    /// The value of a property.
    pub fn get(&self, ptype: &str, name: &str) -> Option<&str> {
        let mut all = self.properties.iter();
        let found = all.find(|p| p.ptype.eq_ignore_ascii_case(ptype) && p.name.eq_ignore_ascii_case(name));
        found.map(|property| property.value.as_str())
    }

    /// The result of SMTP AUTH (RFC 8601 2.7.5): `smtp.auth` is the mailbox or user that logged in.
    pub fn smtp_auth(user: &str) -> MethodResult {
        MethodResult::new("auth", "pass").property("smtp", "auth", user)
    }
}

impl From<&SpfResult> for MethodResult {
    fn from(spf: &SpfResult) -> MethodResult {
        let mut result = MethodResult::new("spf", spf.verdict.as_str());
        result.reason = spf.problem.as_ref().map(ToString::to_string);
        result.property("smtp", spf.identity.as_str(), spf.domain.as_str())
    }
}

impl From<&DmarcResult> for MethodResult {
    fn from(dmarc: &DmarcResult) -> MethodResult {
        let mut result = MethodResult::new("dmarc", dmarc.verdict.as_str());
        if let Some(author) = &dmarc.author {
            result = result.property("header", "from", author.as_str());
        }
        match dmarc.policy {
            Some(policy) => result.property("policy", "dmarc", policy.as_str()),
            None => result,
        }
    }
}

impl From<&IprevResult> for MethodResult {
    fn from(iprev: &IprevResult) -> MethodResult {
        let result = MethodResult::new("iprev", iprev.verdict.as_str());
        result.property("policy", "iprev", iprev.ip.to_string())
    }
}

/// Where the `Authentication-Results` fields lie that use our name, and those that cannot be read: cut them out
/// before adding ours (RFC 8601 5). Names are compared without regard to case.
pub fn forged(message: &[u8], authserv_id: &str) -> Vec<Range<usize>> {
    let fields = header::fields(message).filter(|field| field.is(NAME));
    let ours = fields.filter(|field| {
        parse::authserv_id(&field.text()).is_none_or(|name| name.eq_ignore_ascii_case(authserv_id))
    });
    ours.map(|field| field.range).collect()
}
