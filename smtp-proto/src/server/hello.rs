//! The reply to EHLO: what this session offers at this moment.
//!
//! Invariant: a keyword is offered exactly when its command or parameter would be taken now.
//!
//! Standards: RFC 5321 4.1.1.1; RFC 9422 (LIMITS) and the extensions' own.
//!
//! Not here: checking parameters against the offer (`mail.rs`).

use std::fmt::Write as _;
use std::time::Duration;

use postwright_core::Timestamp;

use super::session::Session;

impl Session {
    /// The lines of the reply, the first with our name, joined by line feeds.
    pub(super) fn hello_lines(&self, greeting: &str) -> String {
        let config = &*self.config;
        let mut lines =
            format!("{} {greeting}\nPIPELINING\nSIZE {}", config.hostname, config.limits.message_size);
        let mut offer = |wanted: bool, keyword: &str| {
            if wanted {
                lines.push('\n');
                lines.push_str(keyword);
            }
        };
        offer(true, "ENHANCEDSTATUSCODES");
        offer(config.starttls && self.peer.tls.is_none(), "STARTTLS");
        let mechanisms = self.offered_mechanisms().collect::<Vec<_>>().join(" ");
        offer(!mechanisms.is_empty(), &format!("AUTH {mechanisms}"));
        offer(config.eight_bit, "8BITMIME");
        offer(config.chunking, "CHUNKING");
        offer(config.chunking, "BINARYMIME");
        offer(config.dsn, "DSN");
        offer(self.offers_utf8(), "SMTPUTF8");
        offer(self.offers_require_tls(), "REQUIRETLS");
        offer(config.mt_priority, "MT-PRIORITY");
        offer(config.xclient, "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT");
        offer(config.xforward, "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE");
        if config.announce_limits {
            let limits = &config.limits;
            let _ = write!(lines, "\nLIMITS MAILMAX={} RCPTMAX={}", limits.transactions, limits.recipients);
        }
        if let Some(least) = config.deliver_by {
            let _ = write!(lines, "\nDELIVERBY {least}");
        }
        if let Some(longest) = config.future_release {
            let until = self.wall() + Duration::from_secs(longest.into());
            let _ = write!(lines, "\nFUTURERELEASE {longest} {until}");
        }
        for line in &config.private_lines {
            lines.push('\n');
            lines.push_str(line);
        }
        lines
    }

    /// RFC 6531 3.1 wants 8BITMIME beside it.
    pub(super) fn offers_utf8(&self) -> bool {
        self.config.smtp_utf8 && self.config.eight_bit
    }

    pub(super) fn offers_require_tls(&self) -> bool {
        self.config.offer_require_tls && self.peer.tls.is_some()
    }

    /// The wall clock's time, counted from the moment of connection.
    pub(super) fn wall(&self) -> Timestamp {
        self.peer.at + self.timers.age()
    }
}
