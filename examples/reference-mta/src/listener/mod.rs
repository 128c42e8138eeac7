//! The listeners of `serve`: sockets, TLS, limits, and who is asked what, by role.
//!
//! Invariant: a submission listener takes no mail before TLS and a login; certificates and accounts are exchanged
//! whole or not at all, and no connection notices.
//!
//! Not here: where mail goes (serve.rs), the protocol (smtp-server).

mod door;
mod settings;
pub(crate) mod tls;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postwright::core::{Clock, Entropy, World};
use postwright::smtp_proto::sasl::{Hash, ScramKeys};
use postwright::smtp_server::auth::{Accounts, Authenticator, Lockout};
use postwright::smtp_server::{Server, Session, Socket};
use postwright::{Mta, Relay};
use tokio::net::TcpListener;

use crate::commands::Failure;
use crate::config::feedback::Recipients;
use crate::config::{Config, Listener, Role};
use crate::guards::dnsbl::Blocklist;
use crate::guards::greylist::Greylist;

pub(crate) use door::Door;
use tls::Chains;

/// How often the greylist is written down.
const TIDY: Duration = Duration::from_secs(300);
/// The key of the configuration that names the accounts.
const ACCOUNTS: &str = "accounts.file";

/// All listeners, and what they share.
pub(crate) struct Listeners {
    config: Config,
    accounts: Option<Arc<Accounts>>,
    authenticator: Option<Arc<Authenticator>>,
    greylist: Option<Arc<Greylist>>,
    blocklists: Arc<[Blocklist]>,
    chains: Vec<Chains>,
    recipients: Option<Arc<Recipients>>,
    world: World,
}

impl Listeners {
    /// Reads what the configuration names: accounts, certificates, the greylist's memory.
    pub(crate) fn new(config: &Config, world: &World) -> Result<Listeners, Failure> {
        let (clock, entropy) = (world.clock.clone(), world.entropy.clone());
        let accounts = config.accounts.file.as_deref().map(read_accounts).transpose()?;
        let authenticator = accounts
            .as_ref()
            .map(|(accounts, decoy)| authenticator(config, accounts.clone(), *decoy, clock.clone(), entropy));
        let greylist = config.greylist.enabled.then(|| Arc::new(Greylist::new(&config.greylist)));
        if let (Some(list), Some(path)) = (&greylist, &config.greylist.file) {
            list.load(path, clock.now()).map_err(|error| wrong("greylist.file", path, &error))?;
        }
        let blocklist = |list| Blocklist::new(list, world.resolver.clone(), clock.clone());
        Ok(Listeners {
            blocklists: config.dnsbl.iter().map(blocklist).collect(),
            accounts: accounts.map(|(accounts, _)| accounts),
            authenticator,
            greylist,
            chains: Vec::new(),
            recipients: config.relay.recipients.as_deref().map(Recipients::load).transpose()?.map(Arc::new),
            world: world.clone(),
            config: config.clone(),
        })
    }

    /// Opens one listener. Its TLS is kept for [`Listeners::reload`].
    pub(crate) fn open(
        &mut self,
        listener: &Listener,
        mta: &Mta,
        budget: &postwright::core::Budget,
    ) -> Result<(Server<Door>, TcpListener), Failure> {
        let socket = Socket { share_port: listener.reuse_port, dual_stack: listener.dual_stack };
        let cannot = |error: std::io::Error| Failure::listening(listener.address, &error);
        let socket = socket.listen(listener.address).map_err(cannot)?;
        let mut server = settings::server(&self.config, listener)?;
        server.budget = budget.clone();
        if let Some(tls) = &listener.tls {
            let chains = Chains::load(tls)?;
            server = chains.serve(tls, listener.role, server)?;
            self.chains.push(chains);
        }
        let door = Door::new(
            self,
            listener,
            mta.intake_with(relay(&self.config, listener, self.recipients.as_ref())),
            &server,
        );
        Ok((Server::new(server, self.world.clock.clone(), door), socket))
    }

    /// Reads certificates, keys and accounts again. What is no good is left as it was, and said.
    pub(crate) fn reload(&self) {
        for chains in &self.chains {
            match chains.reload() {
                Ok(()) => tracing::info!(certificate = %chains.path().display(), "certificates read again"),
                Err(failure) => tracing::error!(%failure, "the old certificates stay in use"),
            }
        }
        if let (Some(accounts), Some(path)) = (&self.accounts, &self.config.accounts.file) {
            let read = std::fs::read_to_string(path).map_err(|error| Failure::file(ACCOUNTS, path, &error));
            match read.and_then(|text| accounts.replace(&text).map_err(|error| wrong(ACCOUNTS, path, &error)))
            {
                Ok(()) => tracing::info!(users = accounts.users(), "accounts read again"),
                Err(failure) => tracing::error!(%failure, "the old accounts stay in use"),
            }
        }
        self.save();
    }

    /// Writes down what the greylist knows every few minutes, for ever.
    pub(crate) async fn tidy(&self) {
        let mut every = tokio::time::interval(TIDY);
        // The first tick is at once.
        every.tick().await;
        loop {
            every.tick().await;
            self.save();
        }
    }

    /// Writes down what the greylist knows.
    pub(crate) fn save(&self) {
        if let (Some(list), Some(path)) = (&self.greylist, &self.config.greylist.file)
            && let Err(error) = list.save(path)
        {
            tracing::error!(path = %path.display(), %error, "cannot write the greylist");
        }
    }
}

fn wrong(key: &str, path: &Path, what: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("{key} {}: {what}", path.display()))
}

/// Whether a file of accounts can be read and used, as at a start.
pub(crate) fn accounts(path: &Path) -> Result<(), Failure> {
    read_accounts(path).map(drop)
}

/// The accounts of a file, and a secret for the salts of unknown users: made from its first credential, so that it
/// is the same after a restart without being written anywhere.
fn read_accounts(path: &Path) -> Result<(Arc<Accounts>, [u8; 32]), Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::file(ACCOUNTS, path, &error))?;
    let accounts = Accounts::parse(&text).map_err(|error| wrong(ACCOUNTS, path, &error))?;
    let first = text.lines().find(|line| line.contains(":SCRAM-") || line.contains(":$argon2"));
    let keys = ScramKeys::derive(Hash::Sha256, first.unwrap_or_default(), b"salts of unknown users", 4096);
    let mut decoy = [0; 32];
    decoy.iter_mut().zip(keys.stored_key.iter()).for_each(|(to, from)| *to = *from);
    Ok((Arc::new(accounts), decoy))
}

fn authenticator(
    config: &Config,
    accounts: Arc<Accounts>,
    decoy: [u8; 32],
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Arc<Authenticator> {
    let numbers = &config.accounts;
    let (per_ip, per_account) = (numbers.failures_per_ip.small(), numbers.failures_per_account.small());
    let lockout = Lockout::new(per_ip, per_account, numbers.lockout.time());
    let shared = Authenticator::new(accounts, clock, entropy, config.hostname.as_str(), decoy);
    Arc::new(shared.with_lockout(lockout))
}

/// Who may send to whom through a listener.
fn relay(config: &Config, listener: &Listener, recipients: Option<&Arc<Recipients>>) -> Relay {
    let (networks, domains) = (config.relay.from.clone(), config.relay.domains.iter().cloned());
    let ours = || Relay::nobody().trust(move |ip| networks.iter().any(|network| network.contains(ip)));
    let relay = match listener.role {
        Role::Mx => ours().accept_for(domains),
        // No address is trusted here: a network of ours may hold a machine that is not.
        Role::Submission => Relay::nobody().trust_session(|session| session.authenticated).inside(domains),
        // Whoever has a certificate of our own authority is one of ours, wherever he is.
        Role::Relay if tls::certified(listener) => {
            let certified = |session: &Session| session.peer.tls.as_ref().is_some_and(|tls| tls.verified);
            ours().trust_session(certified).inside(domains)
        }
        Role::Relay => ours().inside(domains),
    };
    match recipients.cloned() {
        Some(recipients) => relay.check_recipients(move |mailbox| recipients.check(mailbox)),
        None => relay,
    }
}
