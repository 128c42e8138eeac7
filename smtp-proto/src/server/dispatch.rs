//! From a command to a question or a reply.
//!
//! Invariant: one command leads to exactly one reply or one question, or to the end of the session.
//!
//! Standards: RFC 5321 4.1.4 (order of commands), 4.2.4 and 4.3.2 (replies); RFC 2920 3.1; RFC 3207 4.
//!
//! Not here: MAIL and RCPT (`mail.rs`), DATA and BDAT (`body.rs`), AUTH (`auth.rs`).

use postwright_core::{EnhancedStatus, Host, Reply};

use super::config::Protocol;
use super::question::Hello;
use super::session::{Phase, Session, Topic};
use super::step::CloseReason;
use crate::command::{Command, CommandError};

/// The replies of the machine's own; RFC 5248 names most of the statuses.
pub(super) const OK: EnhancedStatus = EnhancedStatus::known(2, 0, 0);
pub(super) const BAD_SEQUENCE: EnhancedStatus = EnhancedStatus::known(5, 5, 1);
pub(super) const BAD_ARGUMENTS: EnhancedStatus = EnhancedStatus::known(5, 5, 4);

impl Session {
    pub(super) fn dispatch(&mut self, line: &[u8]) {
        match Command::parse(line) {
            Ok(command) => self.carry_out(command),
            Err(error) => self.bad_command(&error),
        }
    }

    fn carry_out(&mut self, command: Command<'_>) {
        if self.must_start_tls(&command) {
            return self.ask_for_tls(&command);
        }
        match command {
            Command::Ehlo(name) => self.on_hello(name, "EHLO"),
            Command::Helo(name) => self.on_hello(name, "HELO"),
            Command::Lhlo(name) => self.on_hello(name, "LHLO"),
            Command::Mail { path, parameters, ascii } => self.on_mail(path, parameters, ascii),
            Command::Rcpt { path, parameters, ascii } => self.on_rcpt(path, parameters, ascii),
            Command::Data => self.on_data(),
            Command::Bdat { size, last } => self.on_bdat(size, last),
            Command::Rset => {
                self.junk();
                self.reset();
                self.output.say(250, Some(OK), "Ok");
            }
            Command::Noop => {
                self.junk();
                self.output.say(250, Some(OK), "Ok");
            }
            Command::Quit => {
                self.output.say(221, Some(OK), "Bye");
                self.close(CloseReason::Quit);
            }
            Command::Vrfy(text) => {
                self.junk();
                self.ask(Topic::Verify(text.into()));
            }
            Command::Expn(_) => self.refuse(502, BAD_SEQUENCE, "EXPN is not served"),
            Command::Help(_) => {
                self.junk();
                self.output.say(
                    214,
                    Some(OK),
                    "RFC 5321: EHLO MAIL RCPT DATA BDAT RSET NOOP VRFY AUTH STARTTLS QUIT",
                );
            }
            Command::StartTls => self.on_starttls(),
            Command::Auth { mechanism, initial } => self.on_auth(mechanism, initial),
            Command::Xclient(text) if self.config.xclient => self.on_xclient(text),
            Command::Xforward(text) if self.config.xforward => self.on_xforward(text),
            Command::Xclient(text) => self.on_unknown("XCLIENT", text),
            Command::Xforward(text) => self.on_unknown("XFORWARD", text),
            Command::Unknown { verb, text } => self.on_unknown(verb, text),
        }
    }

    /// RFC 3207 4, where TLS is a must: "every command other than NOOP, EHLO, STARTTLS, or QUIT". RSET does nothing and
    /// is always answered by 250 (RFC 5321 4.1.1.5).
    fn must_start_tls(&self, command: &Command<'_>) -> bool {
        let needless = matches!(
            command,
            Command::Noop
                | Command::Ehlo(_)
                | Command::Lhlo(_)
                | Command::StartTls
                | Command::Quit
                | Command::Rset
        );
        self.config.require_tls && self.peer.tls.is_none() && !needless
    }

    fn ask_for_tls(&mut self, command: &Command<'_>) {
        let reply = Reply::known(530, EnhancedStatus::known(5, 7, 0), "Must issue a STARTTLS command first");
        if let Command::Bdat { size, .. } = command {
            return self.skip_chunk(*size, reply);
        }
        self.output.reply(&reply);
        self.count_error();
    }

    fn on_unknown(&mut self, verb: &str, text: &str) {
        self.ask(Topic::Command { verb: verb.to_ascii_uppercase().into(), text: text.into() });
    }

    fn bad_command(&mut self, error: &CommandError) {
        let refusal = error.refusal();
        match error {
            CommandError::Bdat { skip: Some(size) } => self.skip_chunk(*size, refusal.into_reply()),
            CommandError::Bdat { skip: None } => {
                // Nobody knows how many octets follow, so nothing that follows can be trusted to be a command.
                self.output.reply(refusal.reply());
                self.close(CloseReason::Oversize);
            }
            CommandError::OtherProtocol => {
                self.output.reply(refusal.reply());
                self.close(CloseReason::OtherProtocol);
            }
            _ => {
                self.output.reply(refusal.reply());
                self.count_error();
            }
        }
    }

    fn on_hello(&mut self, name: &str, verb: &str) {
        let wanted = match self.config.protocol {
            Protocol::Smtp => verb != "LHLO",
            Protocol::Lmtp => verb == "LHLO",
        };
        if !wanted {
            return self.refuse(500, BAD_SEQUENCE, "Wrong greeting for this protocol (RFC 2033 4.1)");
        }
        if self.early_talk() {
            return;
        }
        if self.hello.is_some() {
            self.junk();
        }
        let host = name.parse::<Host>().ok();
        self.ask(Topic::Hello(Hello { name: name.into(), host, extended: verb != "HELO" }));
    }

    fn on_starttls(&mut self) {
        if !self.config.starttls {
            return self.refuse(502, BAD_SEQUENCE, "STARTTLS is not offered");
        }
        if self.peer.tls.is_some() {
            return self.refuse(503, BAD_SEQUENCE, "TLS is already in use");
        }
        if self.transaction.is_some() || self.authenticated {
            return self.refuse(503, BAD_SEQUENCE, "STARTTLS comes before AUTH and MAIL");
        }
        if !self.input.is_empty() {
            // CVE-2011-0411: never keep clear text to be read as if it came through TLS.
            return self.close_early_talk();
        }
        self.output.say(220, Some(OK), "Ready to start TLS");
        self.phase = Phase::Handshake;
        self.timers.progress();
    }

    /// Whether input has come that the peer may not send yet; if so the session is ended.
    pub(super) fn early_talk(&mut self) -> bool {
        let early = self.config.forbid_early_talk && !self.input.is_empty();
        if early {
            self.close_early_talk();
        }
        early
    }

    fn close_early_talk(&mut self) {
        let text = "Talking out of turn (RFC 2920 3.1)";
        self.output.say(554, Some(EnhancedStatus::known(5, 5, 0)), text);
        self.input.clear();
        self.close(CloseReason::EarlyTalk);
    }

    /// Refuses a command with a reply of the machine's own; nothing else changes.
    pub(super) fn refuse(&mut self, code: u16, status: EnhancedStatus, text: &str) {
        self.output.say(code, Some(status), text);
        self.count_error();
    }

    pub(super) fn count_error(&mut self) {
        self.counts.errors = self.counts.errors.saturating_add(1);
    }

    pub(super) fn junk(&mut self) {
        self.counts.junk = self.counts.junk.saturating_add(1);
    }
}
