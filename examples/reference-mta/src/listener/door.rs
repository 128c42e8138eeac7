//! The decisions of one listener: [`Door`] stands before the pipeline's own and asks what the role asks for.
//!
//! Invariant: the pipeline's word on who may relay is asked for every recipient, whatever was asked before it; what
//! a proxy may say of others is offered to the networks that are named, and to nobody else.
//!
//! Standards: RFC 6409 (submission), RFC 6647 (greylisting), RFC 5782 (lists), RFC 5321 4.5.1 (postmaster).
//!
//! Not here: relaying and taking messages (the pipeline), SASL (smtp-server's `auth`).

use std::net::SocketAddr;
use std::sync::Arc;

use postwright::core::{
    Domain, EnhancedStatus, Envelope, MailOptions, Message, Recipient, Refusal, Reply, ReversePath, World,
};
use postwright::smtp_proto::server::Config as SessionConfig;
use postwright::smtp_server::auth::{Authenticator, Login};
use postwright::smtp_server::{Accepted, Acceptor, Answer, Handler, Peer, ServerConfig, Session, submission};
use postwright::{Intake, Reception};

use super::Listeners;
use crate::config::{Listener, Network, Role};
use crate::guards::dnsbl::Blocklist;
use crate::guards::greylist::Greylist;

/// Makes a [`Visitor`] for each connection.
pub(crate) struct Door {
    intake: Intake,
    shared: Arc<Shared>,
    proxies: Vec<Network>,
    xclient: Vec<Network>,
    xforward: Vec<Network>,
    session: Arc<SessionConfig>,
}

/// What all connections of a listener ask.
struct Shared {
    role: Role,
    hostname: Domain,
    relays: Vec<Network>,
    authenticator: Option<Arc<Authenticator>>,
    greylist: Option<Arc<Greylist>>,
    blocklists: Arc<[Blocklist]>,
    world: World,
}

impl Door {
    pub(super) fn new(all: &Listeners, listener: &Listener, intake: Intake, server: &ServerConfig) -> Door {
        let shared = Shared {
            role: listener.role,
            hostname: all.config.hostname.clone(),
            relays: all.config.relay.from.clone(),
            authenticator: all.authenticator.clone().filter(|_| listener.role == Role::Submission),
            greylist: all.greylist.clone().filter(|_| listener.role == Role::Mx),
            blocklists: match listener.role {
                Role::Mx => all.blocklists.clone(),
                _ => Arc::new([]),
            },
            world: all.world.clone(),
        };
        Door {
            intake,
            shared: Arc::new(shared),
            proxies: listener.proxy_from.clone(),
            xclient: listener.xclient_from.clone(),
            xforward: listener.xforward_from.clone(),
            session: server.session.clone(),
        }
    }
}

fn holds(networks: &[Network], address: SocketAddr) -> bool {
    networks.iter().any(|network| network.contains(address.ip()))
}

impl Acceptor for Door {
    type Handler = Visitor;

    async fn accept(&self, peer: &Peer) -> Result<Visitor, Refusal> {
        let login = self.shared.authenticator.as_ref().map(Authenticator::login);
        let reception = self.intake.accept(peer).await?;
        Ok(Visitor { reception, shared: self.shared.clone(), login, sender: ReversePath::Null, listed: None })
    }

    fn session_config(&self, client: SocketAddr) -> Option<Arc<SessionConfig>> {
        let (xclient, xforward) = (holds(&self.xclient, client), holds(&self.xforward, client));
        if !xclient && !xforward {
            return None;
        }
        let mut own = (*self.session).clone();
        (own.xclient, own.xforward) = (xclient, xforward);
        Some(Arc::new(own))
    }

    fn trusts_proxy(&self, proxy: SocketAddr) -> bool {
        holds(&self.proxies, proxy)
    }
}

/// Decides one connection.
pub(crate) struct Visitor {
    reception: Reception,
    shared: Arc<Shared>,
    login: Option<Login>,
    sender: ReversePath,
    /// Whether a list names the client: `None` until it was asked, the list's zone if one does.
    listed: Option<Option<String>>,
}

impl Visitor {
    /// What is asked of strangers on an MX, behind the pipeline's own word.
    async fn guard(&mut self, session: &Session, recipient: &Recipient) -> Result<(), Refusal> {
        let (shared, ip) = (self.shared.clone(), session.peer.address.ip());
        // RFC 5321 4.5.1: whoever is refused must be able to ask the postmaster why.
        let exempt = session.authenticated
            || shared.relays.iter().any(|network| network.contains(ip))
            || recipient.mailbox.local().eq_ignore_ascii_case("postmaster");
        if exempt {
            return Ok(());
        }
        if self.listed.is_none() {
            let mut found = None;
            for list in shared.blocklists.iter() {
                if list.lists(ip).await {
                    found = Some(list.zone().to_string());
                    break;
                }
            }
            self.listed = Some(found);
        }
        if let Some(Some(zone)) = &self.listed {
            let text = format!("Your address {ip} is listed by {zone}");
            let status = EnhancedStatus::known(5, 7, 1);
            return Err(Refusal::known(550, status, &text));
        }
        let Some(list) = &shared.greylist else { return Ok(()) };
        let now = shared.world.clock.now();
        list.admit(ip, &self.sender, &recipient.mailbox, now).map_err(|left| {
            let text = format!("Greylisted, try again in {} s", left.as_secs());
            Refusal::known(451, EnhancedStatus::known(4, 7, 1), &text)
        })
    }
}

impl Handler for Visitor {
    async fn auth(
        &mut self,
        session: &Session,
        mechanism: &str,
        response: Option<&[u8]>,
        first: bool,
    ) -> Answer {
        match &mut self.login {
            Some(login) => login.step(session, mechanism, response, first).await,
            // Nothing was offered, so that this is not asked.
            None => Refusal::known(502, EnhancedStatus::known(5, 5, 1), "AUTH is not offered").into(),
        }
    }

    async fn mail(
        &mut self,
        session: &Session,
        path: &ReversePath,
        options: &MailOptions,
    ) -> Result<(), Refusal> {
        if let Some(login) = &self.login {
            login.check_sender(path).await?;
        }
        self.sender = path.clone();
        self.reception.mail(session, path, options).await
    }

    async fn rcpt(
        &mut self,
        session: &Session,
        recipient: &Recipient,
        envelope: &Envelope,
    ) -> Result<(), Refusal> {
        self.reception.rcpt(session, recipient, envelope).await?;
        self.guard(session, recipient).await
    }

    async fn message(
        &mut self,
        session: &Session,
        envelope: &Envelope,
        mut message: Message,
    ) -> Result<Accepted, Refusal> {
        if self.shared.role == Role::Submission {
            let (hostname, world) = (&self.shared.hostname, &self.shared.world);
            message = submission::fix_up(&message, hostname, world.clock.now(), &*world.entropy)?;
        }
        self.reception.message(session, envelope, message).await
    }

    fn refused(&mut self, session: &Session, reply: &Reply) {
        self.reception.refused(session, reply);
    }
}
