//! The configuration file of `postwright serve`: reading, checking, and the complaints about it.
//!
//! Invariant: a [`Config`] that [`Config::check`] lets pass relays for nobody but the networks it names, and every
//! file it names was asked for at check time. A complaint names the file, the line and what to write instead.
//!
//! Not here: what the values do (serve.rs hands them to the library).

mod complaint;
pub(crate) mod feedback;
mod network;
mod reports;
mod schema;

use std::path::Path;
use std::time::Duration;

use postwright_core::Domain;

pub(crate) use network::Network;
pub(crate) use schema::{
    ArcKey, Config, DEFAULT_TEXT, DkimKey, Dmarc, Feedback as FeedbackConfig, Listener, Lmtp, Role,
    SmartHost, span,
};

use crate::commands::Failure;

impl Config {
    /// Reads and checks a file.
    pub(crate) fn load(path: &Path) -> Result<Config, Failure> {
        let shown = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|error| Failure::new(format!("{shown}: {error}")))?;
        Config::parse(&text, &shown)
    }

    /// Reads and checks a text; `shown` is the name to complain about.
    pub(crate) fn parse(text: &str, shown: &str) -> Result<Config, Failure> {
        let config: Config = toml::from_str(text).map_err(|error| complaint::of_toml(&error, text, shown))?;
        config.check().map_err(|what| Failure::new(format!("{shown}: {what}")))?;
        Ok(config)
    }

    /// What the types cannot rule out: open relays, two listeners on one address, TLS without files.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.listen.is_empty() {
            return Err(
                "there is no [[listen]] section; add one with address = \"127.0.0.1:2525\"".to_owned()
            );
        }
        for (i, listener) in self.listen.iter().enumerate() {
            if self.listen[..i].iter().any(|other| other.address == listener.address) {
                return Err(format!("two [[listen]] sections have the address {}", listener.address));
            }
        }
        self.dkim.iter().try_for_each(|key| key.check())?;
        for network in &self.relay.from {
            if let Some(reason) = network.open_relay() {
                return Err(format!(
                    "relay.from contains {network}, which makes this an open relay: {reason}. Name your own networks"
                ));
            }
        }
        if self.relay.from.is_empty() && self.relay.domains.is_empty() {
            return Err("[relay] names neither networks (from) nor domains: every message would be refused"
                .to_owned());
        }
        if let Some(route) = self.route.iter().find(|route| route.host.is_some() == route.lmtp.is_some()) {
            return Err(format!("[[route]] for {} needs either host or lmtp", route.domain));
        }
        self.check_destinations()?;
        self.feedback.check()?;
        self.check_limits()?;
        self.reports.check(self.authentication.check)?;
        self.retry.check()
    }

    /// Mail for our own domains must have somewhere to go: their MX is this host.
    fn check_destinations(&self) -> Result<(), String> {
        let has_route = |domain: &Domain| self.route.iter().any(|route| route.domain == *domain);
        match self.relay.domains.iter().find(|domain| !has_route(domain)) {
            Some(domain) if self.delivery.smart_host.is_none() => Err(format!(
                "relay.domains has {domain}, and nothing says where its mail goes: add [[route]] domain = \"{domain}\", \
                 host = \"HOST:PORT\""
            )),
            _ => Ok(()),
        }
    }

    fn check_limits(&self) -> Result<(), String> {
        let (limits, delivery) = (&self.limits, &self.delivery);
        for (key, value) in [
            ("delivery.connections", delivery.connections),
            ("delivery.connections_per_site", delivery.connections_per_site),
            ("limits.connections", limits.connections),
            ("limits.connections_per_ip", limits.connections_per_ip),
            ("limits.queued", limits.queued),
        ] {
            if value == 0 {
                return Err(format!("{key} is 0: nothing would ever happen; the least is 1"));
            }
        }
        if self.spool.lease < Duration::from_secs(1) {
            return Err(
                "spool.lease is below 1s: nodes would take messages from each other all the time".to_owned()
            );
        }
        if limits.recipients < 100 {
            return Err("limits.recipients is below 100, the least that RFC 5321 4.5.3.1.8 allows".to_owned());
        }
        if limits.memory < limits.message_size {
            return Err(
                "limits.memory is below limits.message_size: a large message would never be taken".to_owned()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::schema::Relay;
    use super::*;

    fn complaint(text: &str) -> String {
        match Config::parse(text, "mta.toml") {
            Ok(_) => panic!("accepted: {text}"),
            Err(failure) => failure.to_string(),
        }
    }

    const GOOD: &str = "hostname = \"mx.example.org\"\n[spool]\npath = \"/tmp/spool\"\n[[listen]]\naddress = \"127.0.0.1:2525\"\n";

    #[test]
    fn the_printed_default_is_valid_and_complete() {
        let config = Config::parse(schema::DEFAULT_TEXT, "default").unwrap();
        assert_eq!(config, Config::default());
    }

    #[test]
    fn a_short_file_is_enough() {
        let config = Config::parse(GOOD, "mta.toml").unwrap();
        assert_eq!(config.relay, Relay::default());
    }

    #[test]
    fn ten_ways_to_be_wrong_each_named_with_its_line() {
        for (text, parts) in [
            ("hostnam = \"x\"", &["mta.toml:1", "hostnam", "hostname"][..]),
            ("hostname = \"x\"\n[spool]\npth = \"a\"", &["mta.toml:3", "pth", "path"]),
            ("hostname = \"-bad\"", &["mta.toml:1", "RFC 5321"]),
            ("hostname = 7", &["mta.toml:1", "string"]),
            ("hostname = \"x", &["mta.toml:1"]),
            ("[[listen]]\naddress = \"localhost\"", &["mta.toml:2", "127.0.0.1:2525"]),
            ("[[listen]]\naddress = \"127.0.0.1:25\"\nrole = \"relais\"", &["mta.toml:3", "relais", "relay"]),
            ("[relay]\nfrom = [\"10.0.0.0/33\"]", &["mta.toml:2", "10.0.0.0/33"]),
            (
                "[relay]\nfrom = [\"0.0.0.0/0\"]\n[[listen]]\naddress = \"127.0.0.1:25\"",
                &["0.0.0.0/0", "open relay"],
            ),
            (
                "[relay]\nfrom = [\"2000::/3\"]\n[[listen]]\naddress = \"127.0.0.1:25\"",
                &["2000::/3", "open relay"],
            ),
            ("[retry]\nfirst = \"5 parsecs\"", &["mta.toml:2", "parsecs"]),
            (
                "[retry]\nfirst = \"2h\"\nlongest = \"1h\"\n[[listen]]\naddress = \"127.0.0.1:25\"",
                &["retry.first", "retry.longest"],
            ),
            (
                "[[dkim]]\ndomain = \"a.example\"\nselector = \"s\"",
                &["a.example", "selector and key", "rotation"],
            ),
            (
                "[[dkim]]\ndomain = \"a.example\"\nrotation = \"f\"\ntenant = \"t\"",
                &["a.example", "tenant", "from"],
            ),
            ("listen = []", &["[[listen]]"]),
            ("[[route]]\ndomain = \"x.example\"\nlmtp = \"unix:run\"", &["mta.toml:3", "unix:/run/lmtp"]),
            ("[[route]]\ndomain = \"x.example\"\nlmtp = \"127.0.0.1:25\"", &["mta.toml:3", "127.0.0.1:24"]),
            ("[[route]]\ndomain = \"x.example\"", &["x.example", "host or lmtp"]),
            ("[relay]\ndomains = [\"ours.example\"]", &["ours.example", "[[route]]"]),
            ("[delivery]\nconnections = 0", &["delivery.connections", "0"]),
            ("[limits]\nrecipients = 99", &["limits.recipients", "5321"]),
            ("[limits]\nmemory = \"1 MiB\"", &["limits.memory", "limits.message_size"]),
            ("[retry]\nlifetime = \"1m\"", &["retry.lifetime", "retry.first"]),
            ("[reports]\nfrom = \"nobody\"", &["mta.toml:2", "nobody"]),
            (
                "[reports]\nsend = true\n[authentication]\ncheck = false",
                &["reports.send", "authentication.check"],
            ),
            ("[reports]\nrows = 0", &["reports.rows"]),
            (
                "[[listen]]\naddress = \"127.0.0.1:25\"\n[[listen]]\naddress = \"127.0.0.1:25\"",
                &["two [[listen]]"],
            ),
        ] {
            let said = complaint(text);
            for part in parts {
                assert!(said.contains(part), "{text:?} gave {said:?}, which lacks {part:?}");
            }
        }
    }
}
