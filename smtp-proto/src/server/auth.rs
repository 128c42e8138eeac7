//! AUTH: the exchange around a SASL mechanism.
//!
//! Invariant: a password never comes in clear unless the configuration says so in so many words; responses are
//! decoded strictly and are bounded; failures are counted.
//!
//! Standards: RFC 4954 4 and 6; RFC 4616, RFC 7628 (which mechanisms are clear text).
//!
//! Not here: the mechanisms (`sasl`), who the users are (the embedder).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postwright_core::{EnhancedStatus, Refusal};

use super::dispatch::BAD_SEQUENCE;
use super::question::Answer;
use super::session::{Next, Phase, Session, Topic};
use super::step::CloseReason;

/// RFC 4954 6: "Authentication Exchange line is too long".
pub(super) const TOO_LONG_EXCHANGE: EnhancedStatus = EnhancedStatus::known(5, 5, 6);

/// Mechanisms that send a secret which can be used again.
const CLEAR_TEXT: [&str; 4] = ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"];

impl Session {
    /// The mechanisms on offer now.
    pub(super) fn offered_mechanisms(&self) -> impl Iterator<Item = &str> {
        let secure = self.peer.tls.is_some() || self.config.auth_in_clear;
        // Where TLS is a must, an exchange in clear would tell who logs in, and to whom (RFC 8314 4.1).
        let any = self.peer.tls.is_some() || !self.config.require_tls;
        // -PLUS needs something to bind to (RFC 5802 6).
        let tls = self.peer.tls.as_ref();
        let bound = tls.is_some_and(|tls| tls.exporter.is_some() || tls.server_end_point.is_some());
        self.config.auth.iter().map(|name| &**name).filter(move |name| {
            any && (secure || !is_clear_text(name))
                && (bound || !name.to_ascii_uppercase().ends_with("-PLUS"))
        })
    }

    pub(super) fn on_auth(&mut self, mechanism: &str, initial: Option<&str>) {
        if self.config.auth.is_empty() {
            return self.refuse(502, BAD_SEQUENCE, "AUTH is not offered");
        }
        if !self.hello.as_ref().is_some_and(|hello| hello.extended) {
            return self.refuse(503, BAD_SEQUENCE, "Say EHLO first");
        }
        if self.authenticated {
            return self.refuse(503, BAD_SEQUENCE, "Already authenticated");
        }
        if self.transaction.is_some() {
            return self.refuse(503, BAD_SEQUENCE, "AUTH is not possible during a transaction");
        }
        let known = self.offered_mechanisms().find(|name| name.eq_ignore_ascii_case(mechanism));
        let Some(name) = known.map(str::to_ascii_uppercase) else {
            if is_clear_text(mechanism) && self.peer.tls.is_none() {
                let status = EnhancedStatus::known(5, 7, 11);
                return self.refuse(538, status, "Encryption required for this mechanism");
            }
            return self.refuse(504, EnhancedStatus::known(5, 5, 4), "Unknown authentication mechanism");
        };
        if self.early_talk() {
            return;
        }
        let response = match initial {
            None => None,
            // RFC 4954 4: an initial response of no octets is sent as "=".
            Some("=") => Some(Vec::new()),
            Some(text) => match STANDARD.decode(text) {
                Ok(octets) => Some(octets),
                Err(_) => return self.bad_base64(),
            },
        };
        self.ask(Topic::Auth { mechanism: name.into(), response, first: true });
    }

    fn bad_base64(&mut self) {
        let refusal = Refusal::known(501, EnhancedStatus::known(5, 5, 2), "The response is not base64");
        self.auth_failed(&refusal, false);
    }

    pub(super) fn advance_auth(&mut self) -> Next {
        let limit = self.limits().auth_line;
        let line = match self.take_line(limit, TOO_LONG_EXCHANGE) {
            Ok(Some(line)) => line,
            Ok(None) => return Next::Input,
            Err(next) => return next,
        };
        self.timers.progress();
        let Phase::Auth { mechanism } = std::mem::replace(&mut self.phase, Phase::Command) else {
            return Next::Again;
        };
        if line == b"*" {
            self.refuse(501, EnhancedStatus::known(5, 7, 0), "Authentication cancelled");
        } else if self.early_talk() {
            // The session is over.
        } else if let Ok(octets) = STANDARD.decode(&line) {
            self.ask(Topic::Auth { mechanism, response: Some(octets), first: false });
        } else {
            self.bad_base64();
        }
        // Not recycled: the line may hold a secret.
        Next::Again
    }

    pub(super) fn on_auth_answer(&mut self, mechanism: Box<str>, answer: Answer) {
        match answer {
            Answer::Challenge(octets) => {
                self.output.say(334, None, &STANDARD.encode(octets));
                self.phase = Phase::Auth { mechanism };
            }
            Answer::Accepted { text } => {
                self.authenticated = true;
                let text = text.as_deref().unwrap_or("Authentication successful");
                self.say(235, EnhancedStatus::known(2, 7, 0), text);
            }
            _ => {}
        }
    }

    pub(super) fn auth_failed(&mut self, refusal: &Refusal, close: bool) {
        self.phase = Phase::Command;
        self.output.reply(refusal.reply());
        self.counts.auth_failures = self.counts.auth_failures.saturating_add(1);
        if close || matches!(refusal.reply().code().get(), 421 | 521) {
            self.close(CloseReason::Refused);
        } else if self.counts.auth_failures >= self.limits().auth_failures {
            self.too_many("Too many failed authentications");
        }
    }
}

fn is_clear_text(mechanism: &str) -> bool {
    CLEAR_TEXT.iter().any(|name| name.eq_ignore_ascii_case(mechanism))
}
