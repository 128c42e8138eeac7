//! The mailbox providers that most mail goes to: [`Provider`], found by the names of their mail hosts.
//!
//! Invariant: every provider names where its values are from; a value that nobody published says so. The table
//! is data: its limits become a layer of the policy like any other, and the file's layers come after it.
//!
//! Not here: rules about replies (`automation.rs`).

use postwright_core::Domain;

use crate::limit::{Bound, Dimension, Kind};
use crate::policy::{BoundError, Layer, Policy};

/// A mailbox provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Provider {
    /// The name in rules and keys.
    pub name: &'static str,
    /// Its mail hosts are these names or lie below them.
    pub suffixes: &'static [&'static str],
    /// Connections at a time from one source.
    pub concurrency: Option<u32>,
    /// Messages on one connection.
    pub messages_per_connection: Option<u32>,
    /// Recipients in one transaction.
    pub recipients_per_message: Option<u32>,
    /// Where the values are from.
    pub source: &'static str,
}

/// Values that a large sender's default would have, where the provider publishes none.
const OWN: &str = "no published number; a conservative value of ours";

/// The built-in table, checked from the top.
pub const PROVIDERS: &[Provider] = &[
    Provider {
        name: "gmail",
        suffixes: &["google.com", "googlemail.com"],
        concurrency: Some(5),
        messages_per_connection: Some(50),
        recipients_per_message: Some(100),
        source: "support.google.com/mail/answer/81126 gives no numbers; 5 and 50 are what KumoMTA ships (2025)",
    },
    Provider {
        name: "microsoft-consumer",
        suffixes: &["olc.protection.outlook.com"],
        concurrency: Some(5),
        messages_per_connection: Some(50),
        recipients_per_message: None,
        source: "sendersupport.olc.protection.outlook.com/pm/policies: at most 500 connections without prior \
                 arrangement; 5 and 50 are what KumoMTA ships (2025)",
    },
    Provider {
        name: "microsoft-365",
        suffixes: &["mail.protection.outlook.com", "mx.microsoft"],
        concurrency: Some(5),
        messages_per_connection: Some(50),
        recipients_per_message: None,
        source: "no published number; 5 and 50 are what KumoMTA ships (2025)",
    },
    Provider {
        name: "yahoo",
        suffixes: &["yahoodns.net"],
        concurrency: Some(10),
        messages_per_connection: Some(20),
        recipients_per_message: None,
        source: "help.yahoo.com/kb/SLN3433.html: 20 messages a connection; no number for connections, 10 is ours",
    },
    Provider {
        name: "apple",
        suffixes: &["icloud.com"],
        concurrency: Some(10),
        messages_per_connection: Some(5),
        recipients_per_message: None,
        source: "support.apple.com/en-us/102322 gives no numbers; 10 and 5 are what KumoMTA ships (2025)",
    },
    Provider {
        name: "comcast",
        suffixes: &["comcast.net"],
        concurrency: Some(25),
        messages_per_connection: Some(100),
        recipients_per_message: Some(100),
        source: "postmaster.comcast.net: 25 connections an address, 100 recipients a message; 100 messages is ours",
    },
    Provider {
        name: "gmx-webde",
        suffixes: &["gmx.net", "web.de"],
        concurrency: Some(5),
        messages_per_connection: Some(50),
        recipients_per_message: None,
        source: OWN,
    },
    Provider {
        name: "mail-com",
        suffixes: &["mail.com"],
        concurrency: Some(5),
        messages_per_connection: Some(100),
        recipients_per_message: None,
        source: "100 messages a connection as given to KumoMTA by mail.com (2025); 5 connections is ours",
    },
    Provider {
        name: "mail-ru",
        suffixes: &["mail.ru"],
        concurrency: Some(5),
        messages_per_connection: Some(20),
        recipients_per_message: None,
        source: OWN,
    },
    Provider {
        name: "yandex",
        suffixes: &["yandex.ru", "yandex.net"],
        concurrency: Some(5),
        messages_per_connection: Some(20),
        recipients_per_message: None,
        source: OWN,
    },
    Provider {
        name: "qq",
        suffixes: &["qq.com"],
        concurrency: Some(2),
        messages_per_connection: Some(10),
        recipients_per_message: None,
        source: OWN,
    },
    Provider {
        name: "netease",
        suffixes: &["netease.com"],
        concurrency: Some(2),
        messages_per_connection: Some(10),
        recipients_per_message: None,
        source: OWN,
    },
    Provider {
        name: "orange",
        suffixes: &["orange.fr", "wanadoo.fr"],
        concurrency: Some(3),
        messages_per_connection: Some(50),
        recipients_per_message: None,
        source: "messagerie.orange.fr/postmaster.html: 3 connections (after KumoMTA's list); 50 messages is ours",
    },
    Provider {
        name: "mimecast",
        suffixes: &["mimecast.com", "mimecast.co.za", "mimecast-offshore.com"],
        concurrency: Some(10),
        messages_per_connection: Some(100),
        recipients_per_message: None,
        source: "10 and 100 as given to KumoMTA by Mimecast (2025)",
    },
    Provider {
        name: "proofpoint",
        suffixes: &["pphosted.com", "ppe-hosted.com"],
        concurrency: Some(5),
        messages_per_connection: Some(50),
        recipients_per_message: None,
        source: OWN,
    },
    Provider {
        name: "zoho",
        suffixes: &["zoho.com", "zoho.eu", "zoho.in"],
        concurrency: Some(5),
        messages_per_connection: Some(20),
        recipients_per_message: None,
        source: OWN,
    },
    Provider {
        name: "proton",
        suffixes: &["protonmail.ch"],
        concurrency: Some(5),
        messages_per_connection: Some(20),
        recipients_per_message: None,
        source: OWN,
    },
];

impl Provider {
    /// The provider whose mail host this is.
    ///
    /// ```
    /// # use postwright_shaping::Provider;
    /// let host = "mta5.am0.yahoodns.net".parse()?;
    /// assert_eq!(Provider::of_host(&host).map(|provider| provider.name), Some("yahoo"));
    /// # Ok::<(), postwright_core::AddressError>(())
    /// ```
    pub fn of_host(host: &Domain) -> Option<&'static Provider> {
        PROVIDERS.iter().find(|provider| provider.suffixes.iter().any(|suffix| lies_below(host, suffix)))
    }

    /// The provider of a set of mail hosts: that of the first, if all of them are its.
    pub fn of_hosts(hosts: &[Domain]) -> Option<&'static Provider> {
        let first = Provider::of_host(hosts.first()?)?;
        hosts.iter().all(|host| Provider::of_host(host) == Some(first)).then_some(first)
    }

    /// The provider's limits as a layer.
    pub fn layer(&self) -> Result<Layer, BoundError> {
        let values = [
            (Kind::Concurrency, self.concurrency),
            (Kind::MessagesPerConnection, self.messages_per_connection),
            (Kind::RecipientsPerMessage, self.recipients_per_message),
        ];
        let layer =
            Layer::of(Dimension::Provider, self.name).named(&format!("provider {} (built in)", self.name));
        values.into_iter().try_fold(layer, |layer, (kind, value)| match value {
            Some(most) => layer.set(kind, &[Bound::AtMost(most)]),
            None => Ok(layer),
        })
    }
}

fn lies_below(host: &Domain, suffix: &str) -> bool {
    host.as_str().strip_suffix(suffix).is_some_and(|head| head.is_empty() || head.ends_with('.'))
}

impl Policy {
    /// The built-in table and nothing else: what a rules file starts from.
    pub fn built_in() -> Policy {
        // The table is ours, and a test reads all of it: a bound that does not fit cannot get here.
        PROVIDERS.iter().filter_map(|provider| provider.layer().ok()).fold(Policy::new(), Policy::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Path;

    #[test]
    fn hosts_find_their_provider_by_whole_labels() {
        for (host, provider) in [
            ("gmail-smtp-in.l.google.com", Some("gmail")),
            ("example-org.mail.protection.outlook.com", Some("microsoft-365")),
            ("hotmail-com.olc.protection.outlook.com", Some("microsoft-consumer")),
            ("example-org.o-v1.mx.microsoft", Some("microsoft-365")),
            ("mx01.mail.icloud.com", Some("apple")),
            ("mxs.mail.ru", Some("mail-ru")),
            ("mx.notgoogle.com", None),
            ("google.com.example.org", None),
        ] {
            let host: Domain = host.parse().unwrap();
            assert_eq!(Provider::of_host(&host).map(|found| found.name), provider, "{host}");
        }
        let mixed: [Domain; 2] = ["aspmx.l.google.com".parse().unwrap(), "mx.example.org".parse().unwrap()];
        assert_eq!(Provider::of_hosts(&mixed), None);
    }

    #[test]
    fn every_row_is_a_layer_and_names_its_source() {
        for provider in PROVIDERS {
            provider.layer().unwrap();
            assert!(!provider.source.is_empty() && !provider.suffixes.is_empty(), "{}", provider.name);
            let twice = PROVIDERS.iter().filter(|other| other.name == provider.name).count();
            assert_eq!(twice, 1, "{}", provider.name);
        }
        let path = Path::to("example.org".parse().unwrap()).at_provider("yahoo");
        let applied = Policy::built_in().resolve(&path);
        assert!(
            applied.iter().any(|a| a.kind == Kind::MessagesPerConnection && a.bound == Bound::AtMost(20))
        );
    }
}
