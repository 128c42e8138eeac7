//! What a configuration needs outside of its own text: files that can be read and used, and what an operator should be
//! told though nothing stops.
//!
//! Invariant: nothing is written, bound or opened, and nobody is asked over the network but DNS, by `serve` alone; what
//! [`check`] refuses `serve` refuses too, with the same words.
//!
//! Not here: the text itself (config), and what only a start can tell: ports, the spool's lock, neighbours.

use std::path::Path;

use postwright_core::{DnsError, Host, Name, RecordKind, Resolver, Timestamp};

use crate::commands::Failure;
use crate::config::Config;
use crate::config::feedback::{self, Recipients};
use crate::keys::Keys;
use crate::listener::{accounts, tls};
use crate::{outbound, relay_accounts};

/// Reads the files that `serve` would read. The complaint names the faults of all of them.
pub(crate) fn check(config: &Config, now: Timestamp) -> Result<(), Failure> {
    let (delivery, dns) = (&config.delivery, &config.dns);
    let mut outcomes: Vec<Result<(), Failure>> =
        config.listen.iter().filter_map(|listener| listener.tls.as_ref()).map(tls::check).collect();
    outcomes.extend(config.accounts.file.as_deref().map(accounts));
    outcomes.extend(config.relay.recipients.as_deref().map(|path| Recipients::load(path).map(drop)));
    outcomes.extend(config.feedback.keys.as_deref().map(|path| feedback::keys(path).map(drop)));
    outcomes.extend(delivery.shaping.as_deref().map(|path| crate::commands::load_rules(path).map(drop)));
    outcomes.extend(dns.zone.as_deref().map(|path| crate::commands::load_zone(path).map(drop)));
    outcomes.extend(delivery.roots.as_deref().map(|path| outbound::roots(path).map(drop)));
    outcomes.extend([relay_accounts::check(config), Keys::check(config, now)]);
    // Listeners may share files, and so their faults.
    let mut faults: Vec<String> = Vec::new();
    for fault in outcomes.into_iter().filter_map(Result::err).map(|failure| failure.to_string()) {
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::new(faults.join("; and "))) }
}

/// What works and is probably not meant.
pub(crate) fn warnings(config: &Config, now: Timestamp) -> Vec<String> {
    let mut found = Vec::new();
    let is_public = |listener: &crate::config::Listener| !listener.address.ip().is_loopback();
    if config.hostname.as_str() == "localhost" && config.listen.iter().any(is_public) {
        found.push(
            "hostname is localhost: others will not believe it; write the name that DNS has for this host"
                .into(),
        );
    }
    for tls in config.listen.iter().filter_map(|listener| listener.tls.as_ref()) {
        found.extend(tls::warnings(tls, &config.hostname, now));
    }
    for (key, path) in secrets(config) {
        if let Some(mode) = open_to_all(path) {
            let shown = path.display();
            found.push(format!(
                "{key} {shown}: every user of this machine may read it (mode {mode:03o}); chmod o= {shown}"
            ));
        }
    }
    // A listener after the other may name the same files.
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|warning| seen.insert(warning.clone()));
    found
}

/// What nobody else has any business with.
fn secrets(config: &Config) -> Vec<(&'static str, &Path)> {
    let tls = config.listen.iter().filter_map(|listener| listener.tls.as_ref());
    let mut found: Vec<(&str, &Path)> = Vec::new();
    for tls in tls {
        found.push(("listen.tls.key", &tls.key));
        found.extend(tls.more.iter().map(|more| ("listen.tls.more.key", more.key.as_path())));
    }
    found.extend(config.dkim.iter().filter_map(|dkim| Some(("dkim.key", dkim.key.as_deref()?))));
    found.extend(config.arc.iter().map(|arc| ("arc.key", arc.key.as_path())));
    found.extend(config.accounts.file.as_deref().map(|path| ("accounts.file", path)));
    let relays = config.credentials.iter();
    found.extend(
        relays.clone().filter_map(|one| Some(("credentials.password_file", one.password_file.as_deref()?))),
    );
    found.extend(relays.filter_map(|one| Some(("credentials.token_file", one.token_file.as_deref()?))));
    found.extend(config.feedback.keys.as_deref().map(|path| ("feedback.keys", path)));
    if config.spool.postgres.is_none() {
        found.push(("spool.path", &config.spool.path));
    }
    found
}

/// The permissions of a file or folder that those who are neither its owner nor of its group may read or change, if the
/// folders above let them come so far.
fn open_to_all(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let path = path.canonicalize().ok()?;
    let mode = |path: &Path| Some(std::fs::metadata(path).ok()?.permissions().mode() & 0o777);
    let is_reached = path.ancestors().skip(1).all(|above| mode(above).is_some_and(|mode| mode & 0o001 != 0));
    mode(&path).filter(|mode| is_reached && mode & 0o006 != 0)
}

/// Asks DNS for our own name, once, and says so aloud if nobody answers: until then no mail can be routed by MX and no
/// sender be checked. Nobody is asked where a zone file answers, or where a smart host at an address needs no DNS.
pub(crate) async fn ask_dns(config: &Config, dns: &dyn Resolver) {
    let at_an_address =
        config.delivery.smart_host.as_ref().is_some_and(|host| matches!(host.host, Host::Literal(_)));
    if config.dns.zone.is_some() || (config.dns.servers.is_empty() && at_an_address) {
        return;
    }
    if let Err(error @ (DnsError::Timeout | DnsError::ServFail)) =
        dns.lookup(&Name::from(&config.hostname), RecordKind::A).await
    {
        let servers: Vec<String> = config.dns.servers.iter().map(ToString::to_string).collect();
        let whose = if servers.is_empty() { "those of the system".to_owned() } else { servers.join(", ") };
        tracing::error!(
            "dns.servers ({whose}): {error} when asked for {}; mail waits and senders stay unchecked until they answer: correct \
             [dns] or the system's servers, and see `postwright lookup NAME MX`",
            config.hostname
        );
    }
}
