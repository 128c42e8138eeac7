//! The configuration file of `postwright serve`: reading, checking, and the complaints about it.
//!
//! Invariant: a [`Config`] that [`Config::check`] lets pass relays for nobody but the networks it names, and every
//! file it names was asked for at check time. A complaint names the file, the line and what to write instead.
//!
//! Not here: what the values do (serve.rs hands them to the library).

mod complaint;
#[cfg(test)]
mod documented;
pub(crate) mod feedback;
mod limits;
mod listen;
mod network;
mod redis;
mod reports;
pub(crate) mod route;
mod schema;

use std::path::Path;
use std::time::Duration;

pub(crate) use limits::Limits;
pub(crate) use listen::{Clients, Dnsbl, Greylist, Listener, Role, Tls, TlsMode};
pub(crate) use network::Network;
pub(crate) use redis::RedisServer;
pub(crate) use schema::{
    ArcKey, Config, DEFAULT_TEXT, Delivery, DkimKey, Dmarc, Feedback as FeedbackConfig, SmartHost, span,
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
        let wrong = |error| complaint::of_toml(&error, text, shown);
        let mut config: Config = toml::from_str(text).map_err(wrong)?;
        let mut all: toml::Table = text.parse().map_err(wrong)?;
        if let Some(toml::Value::Table(limits)) = all.remove("limits") {
            config.written_limits = limits;
        }
        config.check().map_err(|what| {
            Failure::new(match config.line_of(&what, text) {
                Some(line) => format!("{shown}:{line}: {what}"),
                None => format!("{shown}: {what}"),
            })
        })?;
        Ok(config)
    }

    /// Where the key that a complaint begins with is written.
    fn line_of(&self, complaint: &str, text: &str) -> Option<usize> {
        if let Some((section, rest)) = complaint.strip_prefix("[[").and_then(|rest| rest.split_once("]] ")) {
            return complaint::line_of_section(text, section, rest.split(':').next()?.parse().ok()?);
        }
        let (section, rest) = complaint.split_once('.')?;
        complaint::line_of(text, section, rest.split(' ').next()?)
    }

    /// What a listener may take.
    pub(crate) fn limits_of(&self, listener: &Listener) -> Result<Limits, String> {
        Limits::of(listener.role, &self.written_limits, &listener.limits)
    }

    /// What the types cannot rule out: open relays, two listeners on one address, TLS without files.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.listen.is_empty() {
            return Err(
                "there is no [[listen]] section; add one with address = \"127.0.0.1:2525\"".to_owned()
            );
        }
        self.limits.check("limits")?;
        listen::check(self, &self.written_limits)?;
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
        route::check(self)?;
        self.check_tls_reports()?;
        self.feedback.check()?;
        self.check_limits()?;
        self.reports.check(self.authentication.check)?;
        self.retry.check()
    }

    /// RFC 8460 3: reports by mail are signed by the domain that reports, or nobody may believe them.
    fn check_tls_reports(&self) -> Result<(), String> {
        let domain = self.tls_reports.as_ref().and_then(|reports| reports.from.domain());
        match domain {
            Some(domain) if !self.dkim.iter().any(|key| key.domain == *domain && key.tenant.is_none()) => {
                Err(format!(
                    "tls_reports.from is at {domain}, and no [[dkim]] key signs for it: reports by mail must be signed \
                     (RFC 8460 section 3). Add a key, or take another address"
                ))
            }
            _ => Ok(()),
        }
    }

    fn check_limits(&self) -> Result<(), String> {
        let (delivery, dns) = (&self.delivery, &self.dns);
        for (key, value) in [
            ("delivery.connections", delivery.connections as u64),
            ("delivery.connections_per_site", delivery.connections_per_site as u64),
            ("delivery.bodies", delivery.bodies),
            ("dns.at_a_time", dns.at_a_time as u64),
            ("dns.per_second", dns.per_second.into()),
        ] {
            if value == 0 {
                return Err(format!("{key} is 0: nothing would ever happen; the least is 1"));
            }
        }
        if delivery.shaping_redis.is_some() && delivery.shaping.is_none() {
            return Err(
                "delivery.shaping_redis counts nothing without delivery.shaping: name the rules file"
                    .to_owned(),
            );
        }
        if delivery.shaping_node >= delivery.shaping_nodes {
            return Err(format!(
                "delivery.shaping_node is {} of {} nodes; they are numbered from 0",
                delivery.shaping_node, delivery.shaping_nodes
            ));
        }
        if self.spool.lease < Duration::from_secs(1) {
            return Err(
                "spool.lease is below 1s: nodes would take messages from each other all the time".to_owned()
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
        let mut config = Config::parse(schema::DEFAULT_TEXT, "default").unwrap();
        // What it writes of [limits] is what holds anyway.
        let written = std::mem::take(&mut config.written_limits);
        assert_eq!(Limits::of(Role::Mx, &written, &toml::Table::new()).unwrap(), config.limits);
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
            ("hostname = 7", &["mta.toml:1: hostname: ", "string", "in quotes"]),
            ("[spool]\nmin_free = 5", &["mta.toml:2: min_free: ", "64 KiB"]),
            ("[relay]\ndomains = \"a.example\"", &["mta.toml:2: domains: ", "in brackets"]),
            ("[greylist]\nenabled = \"yes\"", &["mta.toml:2: enabled: ", "true or false"]),
            ("[delivery]\nconnections = \"9\"", &["mta.toml:2: connections: ", "without quotes"]),
            ("hostname = \"a\"\nhostname = \"b\"", &["mta.toml:2: hostname is there already"]),
            ("[relay]\n[dns]\n[relay]", &["mta.toml:3: [relay] is there already"]),
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
            ("[[route]]\ndomain = \"x.example\"", &["mta.toml:1", "[[route]] 1", "host or lmtp"]),
            ("[relay]\ndomains = [\"ours.example\"]", &["ours.example", "[[route]]"]),
            (
                "[relay]\ndomains = [\"a.example\"]\n[[route]]\ndomain = \"a.example\"\nsender = \"b.example\"\nhost = \"h:25\"",
                &["a.example", "nothing says where"],
            ),
            ("[[route]]\ndomian = \"x.example\"\nhost = \"h:25\"", &["mta.toml:2", "domian", "`domain`"]),
            ("[[route]]\nsender = \"a@@b\"\nhost = \"h:25\"", &["mta.toml:2", "a@@b"]),
            ("[[route]]\nsender = []\nhost = \"h:25\"", &["mta.toml:2", "fits nothing"]),
            (
                "[[route]]\nhost = \"h:25\"\n\n[[route]]\ndomain = \"x.example\"\nhost = \"i:25\"",
                &["mta.toml:4", "[[route]] 2", "route 1 takes all", "put it before"],
            ),
            (
                "[[route]]\ndomain = \".example\"\nhost = \"h:25\"\n[[route]]\ndomain = [\"x.example\", \"y.example\"]\nstream = \"b\"\nhost = \"i:25\"\n[[class]]\nstream = \"b\"",
                &["mta.toml:4", "[[route]] 2", "route 1 takes all"],
            ),
            (
                "[delivery]\nsmart_host = \"h:25\"\n[[route]]\nhost = \"i:25\"",
                &["mta.toml:2", "delivery.smart_host", "never used"],
            ),
            (
                "[[route]]\nstream = \"bulk\"\nhost = \"h:25\"",
                &["mta.toml:1", "[[class]]", "stream \"bulk\""],
            ),
            ("[[route]]\nhost = \"h:25\"\nrate = \"5/s\"", &["mta.toml:1", "name = "]),
            (
                "[[route]]\nname = \"n\"\nhost = \"h:25\"\nrate = \"fast\"",
                &["mta.toml:4", "\"fast\"", "rate"],
            ),
            ("[[route]]\nname = \"n\"\nhost = \"h:25\"\nconnections = 0", &["mta.toml:1", "least is 1"]),
            ("[[route]]\nname = \"mx\"\nhost = \"h:25\"", &["mta.toml:1", "\"mx\"", "another one"]),
            ("[[route]]\nmx = true\ntls = \"verified\"", &["mta.toml:1", "leave tls out"]),
            ("[[route]]\nhost = \"h:25\"\ntls = \"secure\"", &["mta.toml:3", "secure", "verified"]),
            (
                "[[credentials]]\nname = \"provider\"\nuser = \"u\"\npassword_env = \"P\"\n[[route]]\nhost = \"h:587\"\ncredentials = \"provder\"",
                &["mta.toml:5", "\"provder\"", "did you mean \"provider\""],
            ),
            (
                "[[credentials]]\nname = \"p\"\nuser = \"u\"\npassword_env = \"P\"\n[[route]]\nhost = \"h:587\"\ntls = \"encrypted\"\ncredentials = \"p\"",
                &["mta.toml:5", "[[route]] 1", "verified TLS"],
            ),
            (
                // A name may lead anywhere, whatever it says.
                "[[credentials]]\nname = \"p\"\nuser = \"u\"\npassword_env = \"P\"\nclear_on_loopback = true\n[[route]]\nhost = \"localhost:587\"\ntls = \"never\"\ncredentials = \"p\"",
                &["mta.toml:6", "verified TLS", "loopback address"],
            ),
            (
                "[[credentials]]\nname = \"p\"\nuser = \"u\"\npassword_env = \"P\"\n[delivery]\nsmart_host = \"h:587\"\nsmart_host_tls = \"opportunistic\"\nsmart_host_credentials = \"p\"",
                &["mta.toml:6", "delivery.smart_host", "verified TLS"],
            ),
            (
                "[[credentials]]\nname = \"p\"\nuser = \"u\"\npassword_env = \"P\"\n[[route]]\nlmtp = \"127.0.0.1:24\"\ncredentials = \"p\"",
                &["mta.toml:5", "smart host"],
            ),
            (
                "[[credentials]]\nname = \"p\"\nuser = \"u\"",
                &["mta.toml:1", "[[credentials]] 1", "password_file"],
            ),
            (
                "[[credentials]]\nname = \"p\"\nuser = \"u\"\npassword = \"x\"",
                &["mta.toml:4", "password", "password_file"],
            ),
            (
                "[[credentials]]\nname = \"p\"\nuser = \"u\"\ntoken_file = \"t\"\nmechanisms = \"PLAIN\"",
                &["mta.toml:1", "PLAIN", "not a token"],
            ),
            ("[[class]]\nfrom = [\"10.0.0.0/8\"]", &["mta.toml:1", "tenant nor stream"]),
            ("[delivery]\nconnections = 0", &["delivery.connections", "0"]),
            ("[delivery]\nbodies = \"0 B\"", &["mta.toml:2", "delivery.bodies", "0"]),
            ("[dns]\nper_second = 0", &["mta.toml:2", "dns.per_second", "0"]),
            (
                "[tls_reports]\norganization = \"x\"\ncontact = \"x\"\nfrom = \"t@x.example\"\nfile = \"f\"",
                &["tls_reports.from", "x.example", "[[dkim]]"],
            ),
            ("[limits]\nrecipients = 99", &["mta.toml:2", "limits.recipients", "100 to 100000", "5321"]),
            ("[limits]\nerrors = 0", &["mta.toml:2", "limits.errors = 0", "1 to 1000000"]),
            ("[limits]\ncommand_timeout = \"2d\"", &["limits.command_timeout", "1s to 1h"]),
            ("[limits]\ncomand_line = \"1 KiB\"", &["mta.toml:2", "comand_line", "`command_line`"]),
            (
                "[limits]\nclient_hello_timeout = \"2m\"",
                &["limits.client_hello_timeout", "limits.handshake_timeout"],
            ),
            (
                "[[listen]]\naddress = \"127.0.0.1:25\"\nlimits = { eror = 1 }",
                &["127.0.0.1:25", "eror", "`errors`"],
            ),
            (
                "[[listen]]\naddress = \"127.0.0.1:25\"\nlimits = { queued = 1 }",
                &["127.0.0.1:25", "limits.queued", "whole process"],
            ),
            (
                "[[listen]]\naddress = \"127.0.0.1:587\"\nrole = \"submission\"",
                &["127.0.0.1:587", "tls", "clear"],
            ),
            (
                "[[listen]]\naddress = \"127.0.0.1:587\"\nrole = \"submission\"\ntls = { certificate = \"c\", key = \"k\" }",
                &["accounts", "postwright accounts hash"],
            ),
            (
                "[[listen]]\naddress = \"127.0.0.1:25\"\nxclient_from = [\"0.0.0.0/0\"]",
                &["0.0.0.0/0", "proxies"],
            ),
            (
                "[[listen]]\naddress = \"127.0.0.1:25\"\ntls = { certificate = \"c\", key = \"k\", clients = \"ask\" }",
                &["client_ca"],
            ),
            (
                "[[listen]]\naddress = \"127.0.0.1:25\"\ntls = { certificate = \"c\", key = \"k\", mode = \"ssl\" }",
                &["mta.toml:3", "ssl", "starttls"],
            ),
            ("[accounts]\nmechanisms = [\"PLAN\"]", &["mta.toml:2", "PLAN", "`PLAIN`"]),
            ("[greylist]\nwindow = \"1m\"", &["mta.toml:2", "greylist.window", "greylist.delay"]),
            ("[[dnsbl]]\nzone = \"bl..example\"", &["mta.toml:2", "zone"]),
            ("[[dnsbl]]\nzone = \"bl.example\"\ntimeout = \"1m\"", &["dnsbl", "timeout", "30s"]),
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
            (
                "[[listen]]\naddress = \"127.0.0.1:25\"\n[[listen]]\naddress = \"0.0.0.0:25\"",
                &["127.0.0.1:25", "0.0.0.0:25", "all addresses"],
            ),
            (
                "[[listen]]\naddress = \"[::]:25\"\n[[listen]]\naddress = \"127.0.0.1:25\"",
                &["127.0.0.1:25", "[::]:25", "all addresses"],
            ),
        ] {
            let said = complaint(text);
            for part in parts {
                assert!(said.contains(part), "{text:?} gave {said:?}, which lacks {part:?}");
            }
        }
    }
}
