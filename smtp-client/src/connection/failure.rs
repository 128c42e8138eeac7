//! Why a connection did not come about, and what that means for a recipient.

use std::io;

use postwright_core::{Cause, DeliveryStatus, EnhancedStatus, Phase, Remote, Timestamp};
use postwright_smtp_proto::client::{CloseReason, Timings};

use crate::tls::TlsFault;

/// Why no session came about.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectFailure {
    /// The connection could not be opened: refused, unreachable, no local address.
    Io(io::Error),
    /// The connection did not open within [`Options::connect_timeout`](crate::Options::connect_timeout).
    Timeout,
    /// The connection was open, and the session ended before it was ready.
    Session(CloseReason),
}

/// No session with this server, at this time: the reason, and what it means for a recipient.
#[derive(Debug, thiserror::Error)]
#[error("no session with {}: {}", .remote.host, .status.diagnostic)]
pub struct ConnectError {
    /// The server.
    pub remote: Remote,
    /// Why.
    pub failure: ConnectFailure,
    /// What was wrong with the handshake, if it failed.
    pub tls: Option<TlsFault>,
    /// What it means for a recipient that goes to this server alone.
    pub status: Box<DeliveryStatus>,
    /// Where the time went.
    pub timings: Timings,
}

impl ConnectError {
    pub(crate) fn new(remote: Remote, failure: ConnectFailure, at: Timestamp) -> ConnectError {
        let status = match &failure {
            ConnectFailure::Session(reason) => reason.status(Some(remote.clone()), at),
            ConnectFailure::Io(_) | ConnectFailure::Timeout => {
                let cause = match failure {
                    ConnectFailure::Timeout => Cause::Timeout(Phase::Connect),
                    _ => Cause::Unreachable,
                };
                let code = EnhancedStatus::known(4, 4, 1);
                let status = DeliveryStatus::local(code, cause, Phase::Connect, at);
                DeliveryStatus { remote: Some(remote.clone()), ..status }
            }
        };
        ConnectError { remote, failure, tls: None, status: Box::new(status), timings: Timings::default() }
    }

    /// Whether the server refused the account for good (RFC 4954 6): a fault of our configuration, not the mail's.
    pub fn is_login_refused(&self) -> bool {
        matches!(self.close_reason(), Some(CloseReason::Auth(why)) if why.starts_with('5'))
    }

    /// Why the session ended, if the connection was open.
    pub fn close_reason(&self) -> Option<&CloseReason> {
        match &self.failure {
            ConnectFailure::Session(reason) => Some(reason),
            _ => None,
        }
    }
}
