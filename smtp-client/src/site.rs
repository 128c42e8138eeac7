//! Sites: domains that share their mail hosts are one destination.
//!
//! Invariant: two domains with the same set of most preferred hosts have the same site name, whatever the order of
//! their DNS answers; limits and pools keyed by it hold for the provider, not for each of its domains.
//!
//! Not here: the limits (shaping), the pool itself (pool).

use std::fmt;

use postwright_core::{Domain, Host};

use crate::route::MailHost;

/// Longest name in octets; of a longer list of hosts the rest is counted.
const NAME_MAX: usize = 255;

/// The name of a site: a provider's own name where rules give one, or else its mail hosts rolled up into one line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteName(Box<str>);

impl SiteName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The site of a route's hosts: by the first rule whose suffix fits every host, or else by the hosts' names.
    ///
    /// Give it all hosts of the domain: a route that was cut to [`Rules::hosts`](crate::route::Rules::hosts) among
    /// more hosts of equal preference has other hosts each time.
    ///
    /// ```
    /// # use postwright_smtp_client::{MailHost, site::{SiteName, Rule}};
    /// # let host = |name: &str| MailHost { name: name.parse().unwrap(), canonical: None,
    /// #     expanded: None, addresses: Vec::new(), mx_secure: false, address_secure: false };
    /// let hosts = [host("mx2.mail.example"), host("mx1.mail.example")];
    /// assert_eq!(SiteName::of(&hosts, &[]).as_str(), "(mx1|mx2).mail.example");
    /// let rule = Rule { suffix: "mail.example".parse()?, name: "bigmail".into() };
    /// assert_eq!(SiteName::of(&hosts, &[rule]).as_str(), "bigmail");
    /// # Ok::<(), postwright_core::AddressError>(())
    /// ```
    pub fn of(hosts: &[MailHost], rules: &[Rule]) -> SiteName {
        let fits = |rule: &&Rule| {
            let below = |host: &MailHost| host.name.domain().is_some_and(|name| name.is_within(&rule.suffix));
            !hosts.is_empty() && hosts.iter().all(below)
        };
        match rules.iter().find(fits) {
            Some(rule) => SiteName(rule.name.clone()),
            None => SiteName(roll_up(hosts).into()),
        }
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A provider, known by where its mail hosts live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All hosts at or below this name belong to the provider.
    pub suffix: Domain,
    /// What its site is called.
    pub name: Box<str>,
}

/// The hosts' names, sorted, with the labels that all have at the end written once.
fn roll_up(hosts: &[MailHost]) -> String {
    let mut names: Vec<String> = hosts.iter().map(|host| host.name.to_string()).collect();
    names.sort();
    names.dedup();
    let common = match hosts.iter().any(|host| matches!(host.name, Host::Literal(_))) {
        true => 0,
        false => common_labels(&names),
    };
    let cut = |name: &String| -> String {
        let labels: Vec<&str> = name.split('.').collect();
        labels.get(..labels.len() - common).unwrap_or_default().join(".")
    };
    let tail = names.first().map(|name| name.split('.').rev().take(common).collect::<Vec<_>>());
    let tail: String = tail.unwrap_or_default().into_iter().rev().collect::<Vec<_>>().join(".");
    let mut heads: Vec<String> = names.iter().map(cut).collect();
    let mut left = 0;
    while heads.len() > 1
        && heads.iter().map(|head| head.len() + 1).sum::<usize>() + tail.len() > NAME_MAX - 12
    {
        heads.pop();
        left += 1;
    }
    if left > 0 {
        heads.push(format!("+{left}"));
    }
    match (heads.len(), tail.is_empty()) {
        (0 | 1, true) => heads.concat(),
        (0 | 1, false) => format!("{}.{tail}", heads.concat()),
        (_, true) => format!("({})", heads.join("|")),
        (_, false) => format!("({}).{tail}", heads.join("|")),
    }
}

/// How many labels all names have in common at their ends; one label of each name is always left.
fn common_labels(names: &[String]) -> usize {
    let Some(first) = names.first() else { return 0 };
    let labels: Vec<&str> = first.split('.').rev().collect();
    let shortest = names.iter().map(|name| name.split('.').count()).min().unwrap_or(0);
    let same = |i: &usize| names.iter().all(|name| name.split('.').rev().nth(*i) == labels.get(*i).copied());
    (0..shortest.saturating_sub(1)).take_while(same).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(names: &[&str], rules: &[Rule]) -> String {
        let host = |name: &&str| MailHost {
            name: name.parse().unwrap(),
            canonical: None,
            expanded: None,
            addresses: Vec::new(),
            mx_secure: false,
            address_secure: false,
        };
        SiteName::of(&names.iter().map(host).collect::<Vec<_>>(), rules).to_string()
    }

    #[test]
    fn the_same_hosts_are_the_same_site_in_any_order() {
        let all = ["alt2.l.example", "mx.l.example", "alt1.l.example"];
        let name = site(&all, &[]);
        assert_eq!(name, "(alt1|alt2|mx).l.example");
        for turn in 0..3 {
            let mut other = all;
            other.rotate_left(turn);
            assert_eq!(site(&other, &[]), name);
        }
        assert_ne!(site(&["mx.l.example"], &[]), name);
        assert_eq!(site(&["mx.l.example"], &[]), "mx.l.example");
        assert_eq!(site(&["mx.a.example", "mx.b.test"], &[]), "(mx.a.example|mx.b.test)");
        assert_eq!(site(&["a.example", "b.a.example"], &[]), "(a|b.a).example");
        assert_eq!(site(&["[192.0.2.1]", "[192.0.3.1]"], &[]), "([192.0.2.1]|[192.0.3.1])");
        assert_eq!(site(&[], &[]), "");
    }

    #[test]
    fn a_rule_must_fit_every_host() {
        let rules = [
            Rule { suffix: "google.example".parse().unwrap(), name: "google".into() },
            Rule { suffix: "example".parse().unwrap(), name: "others".into() },
        ];
        assert_eq!(site(&["a.google.example", "google.example"], &rules), "google");
        assert_eq!(site(&["a.google.example", "mx.example"], &rules), "others");
        assert_eq!(site(&["a.google.example", "mx.test"], &rules), "(a.google.example|mx.test)");
        assert_eq!(site(&["notgoogle.test"], &rules), "notgoogle.test");
    }

    #[test]
    fn names_have_a_length() {
        let names: Vec<String> = (0..100).map(|i| format!("{}{i}.example", "x".repeat(50))).collect();
        let name = site(&names.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        assert!(name.len() <= NAME_MAX && name.contains("|+9"), "{name}");
    }
}
