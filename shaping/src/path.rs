//! Where something goes and on whose behalf: [`Path`], the [`Site`] of a domain, and the [`Key`] of a limit on it.
//!
//! Invariant: two paths that agree in a scope's dimensions have the same key for it, on every node and after
//! every restart; two that differ in one have different keys.
//!
//! Not here: looking up mail hosts (smtp-client), finding the provider of a site (`providers.rs`).

use std::fmt;
use std::sync::Arc;

use postwright_core::Domain;

use crate::limit::{Dimension, Kind, Scope};

/// A set of mail hosts: domains with the same hosts share one site, and with it the receiver's limits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site(Arc<str>);

impl Site {
    /// The site of a domain's mail hosts, in any order; of the domain itself if it has none.
    ///
    /// ```
    /// # use postwright_core::Domain;
    /// # use postwright_shaping::Site;
    /// let domain: Domain = "example.org".parse()?;
    /// let hosts: Vec<Domain> = vec!["mx2.example.net".parse()?, "mx1.example.net".parse()?];
    /// assert_eq!(Site::of(&domain, &hosts).as_str(), "mx1.example.net,mx2.example.net");
    /// assert_eq!(Site::of(&domain, &[]).as_str(), "example.org");
    /// # Ok::<(), postwright_core::AddressError>(())
    /// ```
    pub fn of(domain: &Domain, hosts: &[Domain]) -> Site {
        let mut names: Vec<&str> = hosts.iter().map(Domain::as_str).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() { Site::named(domain.as_str()) } else { Site::named(&names.join(",")) }
    }

    /// A site by a name of the caller's own.
    pub fn named(name: &str) -> Site {
        Site(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Everything that a limit can be keyed by. What is not known is `None` and shares one key with its like.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Path {
    /// The egress source's name (often its IP address).
    pub source: Option<Arc<str>>,
    /// The pool's name.
    pub pool: Option<Arc<str>>,
    /// The tenant.
    pub tenant: Option<Arc<str>>,
    /// The stream: transactional, batch, ...
    pub stream: Option<Arc<str>>,
    /// The recipient's domain.
    pub domain: Domain,
    /// Its mail hosts.
    pub site: Site,
    /// The provider's name in the table. Limits by provider fall back to the site where there is none.
    pub provider: Option<Arc<str>>,
}

impl Path {
    /// The path to a domain whose mail hosts are not known: the domain is its own site.
    pub fn to(domain: Domain) -> Path {
        let site = Site::named(domain.as_str());
        Path { source: None, pool: None, tenant: None, stream: None, domain, site, provider: None }
    }

    /// From this source.
    #[must_use]
    pub fn from_source(self, source: &str) -> Path {
        Path { source: Some(source.into()), ..self }
    }

    /// Out of this pool.
    #[must_use]
    pub fn in_pool(self, pool: &str) -> Path {
        Path { pool: Some(pool.into()), ..self }
    }

    /// For this tenant.
    #[must_use]
    pub fn for_tenant(self, tenant: &str) -> Path {
        Path { tenant: Some(tenant.into()), ..self }
    }

    /// As part of this stream.
    #[must_use]
    pub fn in_stream(self, stream: &str) -> Path {
        Path { stream: Some(stream.into()), ..self }
    }

    /// At this site.
    #[must_use]
    pub fn at_site(self, site: Site) -> Path {
        Path { site, ..self }
    }

    /// At this provider.
    #[must_use]
    pub fn at_provider(self, provider: &str) -> Path {
        Path { provider: Some(provider.into()), ..self }
    }

    /// The value in one dimension, if there is one.
    pub fn value(&self, dimension: Dimension) -> Option<&str> {
        match dimension {
            Dimension::Source => self.source.as_deref(),
            Dimension::Pool => self.pool.as_deref(),
            Dimension::Tenant => self.tenant.as_deref(),
            Dimension::Stream => self.stream.as_deref(),
            Dimension::Domain => Some(self.domain.as_str()),
            Dimension::Site => Some(self.site.as_str()),
            Dimension::Provider => self.provider.as_deref(),
        }
    }

    /// The key of a limit of this kind, scope and tag (which tells limits of one kind and scope apart).
    pub fn key(&self, kind: Kind, scope: Scope, tag: &str) -> Key {
        let mut text = String::with_capacity(64);
        push_escaped(&mut text, kind.as_str());
        text.push('|');
        push_escaped(&mut text, tag);
        for dimension in scope.dimensions() {
            text.push('|');
            match (self.value(dimension), dimension) {
                (Some(value), _) => {
                    text.push_str(dimension.as_str());
                    text.push('=');
                    push_escaped(&mut text, value);
                }
                (None, Dimension::Provider) => {
                    text.push_str("site=");
                    push_escaped(&mut text, self.site.as_str());
                }
                (None, _) => text.push_str(dimension.as_str()),
            }
        }
        Key(text.into())
    }
}

/// Keeps `|` for the separator, and keys free of what a store or a log might trip over.
fn push_escaped(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '|' | '%' | '\u{7f}' => push_percent(out, c),
            c if c < ' ' => push_percent(out, c),
            c => out.push(c),
        }
    }
}

fn push_percent(out: &mut String, c: char) {
    out.push_str(&format!("%{:02X}", u32::from(c)));
}

/// The name of a count: the same on every node and after every restart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// A key by a name of the caller's own.
    pub fn named(name: &str) -> Key {
        Key(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> Path {
        Path::to("example.org".parse().unwrap()).from_source("192.0.2.1").for_tenant("a|b")
    }

    #[test]
    fn keys_name_what_they_share() {
        let scope: Scope = "source+tenant+provider".parse().unwrap();
        assert_eq!(
            path().key(Kind::Messages, scope, "60s").as_str(),
            "messages|60s|source=192.0.2.1|tenant=a%7Cb|site=example.org"
        );
        let other = path().at_provider("gmail");
        assert_ne!(other.key(Kind::Messages, scope, ""), path().key(Kind::Messages, scope, ""));
    }

    #[test]
    fn no_two_values_share_a_key() {
        let scope: Scope = "tenant+stream".parse().unwrap();
        let none = Path { tenant: None, ..path() };
        let keys = [
            none.clone(),
            none.clone().for_tenant("x").in_stream("y"),
            none.clone().for_tenant("x|stream=y"),
            none.clone().for_tenant("x%7Cstream=y"),
            none.in_stream("y"),
        ]
        .map(|path| path.key(Kind::Messages, scope, ""));
        let mut unique = keys.to_vec();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), keys.len(), "{keys:?}");
    }
}
