//! From the numbers of the configuration to those of the library.
//!
//! Invariant: every number of `[limits]` ends up somewhere; a test of the configuration page says which exist.
//!
//! Not here: what they mean (`postwright_smtp_proto::Limits`, `ServerConfig`).

use postwright::core::{Host, Mailbox};
use postwright::smtp_proto::Limits as SessionLimits;
use postwright::smtp_server::ServerConfig;

use crate::commands::Failure;
use crate::config::{Config, Limits, Listener, Role};

/// A server without TLS yet.
pub(super) fn server(config: &Config, listener: &Listener) -> Result<ServerConfig, Failure> {
    let limits = config.limits_of(listener).map_err(Failure::new)?;
    let submission = listener.role == Role::Submission;
    let mut server = ServerConfig::new(Host::Domain(config.hostname.clone())).with_session(|session| {
        session.limits = of_session(&limits);
        // RFC 5321 4.5.1: mail for the bare postmaster is always taken.
        session.postmaster = Mailbox::quote("postmaster", config.hostname.clone()).ok();
        session.require_auth = submission;
        if submission {
            let names = config.accounts.mechanisms.iter().map(|mechanism| mechanism.0.as_str().into());
            session.auth = names.collect();
        }
    });
    server.proxy_protocol = !listener.proxy_from.is_empty();
    server.connections = limits.connections.size();
    server.connections_per_ip = limits.connections_per_ip.size();
    server.connections_per_network = limits.connections_per_network.size();
    server.rate_per_ip = limits.rate_per_ip.small();
    server.stress_percent = limits.stress_percent.size();
    server.handshakes = limits.handshakes.size();
    server.handshakes_per_ip = limits.handshakes_per_ip.size();
    server.handshake_grace = limits.handshake_grace.time();
    server.client_hello_timeout = limits.client_hello_timeout.time();
    server.decision_timeout = limits.decision_timeout.time();
    server.drain_timeout = limits.drain.time();
    Ok(server)
}

fn of_session(limits: &Limits) -> SessionLimits {
    let mut session = SessionLimits::default();
    session.message_size = limits.message_size.0;
    session.recipients = limits.recipients.size();
    session.handshake_timeout = limits.handshake_timeout.time();
    session.command_line = limits.command_line.size();
    session.auth_line = limits.auth_line.size();
    session.line_discard = limits.line_discard.size();
    session.text_line = Some(limits.text_line.size()).filter(|most| *most > 0);
    session.chunk_discard = limits.chunk_discard.0;
    session.transactions = limits.transactions.small();
    session.errors = limits.errors.small();
    session.junk_commands = limits.junk_commands.small();
    session.auth_failures = limits.auth_failures.small();
    session.command_timeout = limits.command_timeout.time();
    session.data_timeout = limits.data_timeout.time();
    session.write_timeout = limits.write_timeout.time();
    session.min_data_rate = limits.min_data_rate.0;
    session.session_timeout = limits.session_timeout.time();
    session
}
