//! MAIL and RCPT: what may be asked of the embedder, and with which options.
//!
//! Invariant: a parameter is taken only if EHLO offered it; nothing changes when a command is refused here.
//!
//! Standards: RFC 5321 4.1.1.2, 4.1.1.3, 4.5.1; RFC 1870 6; RFC 6531 3.4 to 3.5; RFC 8689; RFC 4954 5 and 6;
//! RFC 2852 4; RFC 4865 4; RFC 3461; RFC 3030.
//!
//! Not here: the grammar of parameters ([`command`](crate::command)).

use postwright_core::envelope::DeliverBy;
use postwright_core::{Body, EnhancedStatus, MailOptions, Mailbox, Recipient, Refusal, ReversePath};

use super::dispatch::{BAD_ARGUMENTS, BAD_SEQUENCE};
use super::session::{Session, Topic};
use crate::command::{ForwardPath, Hold, MailParameters, Parameter, RcptParameters};

/// RFC 6531 3.5: a UTF-8 address where SMTPUTF8 was not asked for.
const NEEDS_UTF8: EnhancedStatus = EnhancedStatus::known(5, 6, 7);
/// RFC 4954 6.
const SECURITY: EnhancedStatus = EnhancedStatus::known(5, 7, 0);

impl Session {
    pub(super) fn on_mail(&mut self, path: ReversePath, parameters: MailParameters, ascii: bool) {
        if self.counts.transactions >= self.limits().transactions {
            self.too_many("Too many messages in one session");
            return;
        }
        if let Err(refusal) = self.may_mail() {
            return self.refuse_with(refusal);
        }
        match self.mail_options(&parameters, ascii) {
            Ok(options) => self.ask(Topic::Mail(Box::new((path, options, parameters.other)))),
            Err(refusal) => self.refuse_with(refusal),
        }
    }

    fn may_mail(&self) -> Result<(), Refusal> {
        let config = &*self.config;
        if self.hello.is_none() {
            Err(Refusal::known(503, BAD_SEQUENCE, "Say EHLO or HELO first"))
        } else if self.transaction.is_some() {
            Err(Refusal::known(503, BAD_SEQUENCE, "A transaction is open already"))
        } else if config.require_auth && !self.authenticated {
            Err(Refusal::known(530, SECURITY, "Authentication required"))
        } else {
            Ok(())
        }
    }

    fn mail_options(&self, given: &MailParameters, ascii: bool) -> Result<MailOptions, Refusal> {
        self.check_offer(given)?;
        let size = given.size.unwrap_or(0);
        if size > self.limits().message_size {
            return Err(too_big());
        }
        if !ascii && !given.smtp_utf8 {
            return Err(Refusal::known(553, NEEDS_UTF8, "A UTF-8 address needs SMTPUTF8"));
        }
        let mut options = MailOptions::default();
        options.size = given.size;
        options.body = given.body.unwrap_or_default();
        options.smtp_utf8 = given.smtp_utf8;
        options.require_tls = given.require_tls;
        options.ret = given.ret;
        options.envelope_id = given.envelope_id.clone();
        // RFC 4954 5: from a client that is not trusted, AUTH= is taken as AUTH=<>.
        options.auth =
            given.auth.clone().map(|auth| if self.authenticated { auth } else { ReversePath::Null });
        options.priority = given.priority;
        options.deliver_by = self.deliver_by(given)?;
        options.hold_until = self.hold(given)?;
        Ok(options)
    }

    /// Whether all parameters were offered; if not, 555 5.5.4 (RFC 5321 4.1.1.11).
    fn check_offer(&self, given: &MailParameters) -> Result<(), Refusal> {
        let config = &*self.config;
        let extended = self.hello.as_ref().is_some_and(|hello| hello.extended);
        let bare = *given == MailParameters::default();
        let fits = |wanted: bool, offered: bool| !wanted || offered;
        let body = match given.body {
            None => true,
            Some(Body::SevenBit | Body::EightBitMime) => config.eight_bit,
            Some(Body::BinaryMime) => config.chunking,
        };
        let offered = body
            && (bare || extended)
            && fits(given.smtp_utf8, self.offers_utf8())
            && fits(given.require_tls, self.offers_require_tls())
            && fits(given.ret.is_some() || given.envelope_id.is_some(), config.dsn)
            && fits(given.auth.is_some(), !config.auth.is_empty())
            && fits(given.deliver_by.is_some(), config.deliver_by.is_some())
            && fits(given.hold.is_some(), config.future_release.is_some())
            && fits(given.priority.is_some(), config.mt_priority)
            && are_known(&given.other, &config.private_mail);
        if offered { Ok(()) } else { Err(not_offered()) }
    }

    fn deliver_by(&self, given: &MailParameters) -> Result<Option<DeliverBy>, Refusal> {
        let Some(by) = given.deliver_by else { return Ok(None) };
        let span = std::time::Duration::from_secs(by.seconds.unsigned_abs().into());
        let least = self.config.deliver_by.unwrap_or(0);
        if !by.notify && by.seconds.unsigned_abs() < least {
            return Err(Refusal::known(501, BAD_ARGUMENTS, "BY= is shorter than DELIVERBY allows"));
        }
        let deadline = if by.seconds < 0 { self.wall() - span } else { self.wall() + span };
        Ok(Some(DeliverBy { deadline, notify: by.notify, trace: by.trace }))
    }

    fn hold(&self, given: &MailParameters) -> Result<Option<postwright_core::Timestamp>, Refusal> {
        let latest =
            self.wall() + std::time::Duration::from_secs(self.config.future_release.unwrap_or(0).into());
        let until = match given.hold {
            None => return Ok(None),
            Some(Hold::For(seconds)) => self.wall() + std::time::Duration::from_secs(seconds.into()),
            Some(Hold::Until(moment)) => moment,
        };
        if until > latest {
            return Err(Refusal::known(501, BAD_ARGUMENTS, "The hold is longer than FUTURERELEASE allows"));
        }
        Ok(Some(until))
    }

    pub(super) fn on_rcpt(&mut self, path: ForwardPath, parameters: RcptParameters, ascii: bool) {
        match self.recipient(path, parameters, ascii) {
            Err(refusal) => self.refuse_with(refusal),
            Ok((recipient, private, true)) => self.ask(Topic::Rcpt(Box::new((recipient, private)))),
            Ok((recipient, _, false)) => self.add_recipient(recipient, None),
        }
    }

    /// The recipient, its private parameters, and whether the embedder is to be asked.
    fn recipient(
        &self,
        path: ForwardPath,
        given: RcptParameters,
        ascii: bool,
    ) -> Result<(Recipient, Vec<Parameter>, bool), Refusal> {
        let Some(transaction) = &self.transaction else {
            return Err(Refusal::known(503, BAD_SEQUENCE, "Send MAIL first"));
        };
        let config = &*self.config;
        let extended = self.hello.as_ref().is_some_and(|hello| hello.extended);
        let asks_dsn = given.notify.is_some() || given.original.is_some();
        let bare = !asks_dsn && given.other.is_empty();
        if (asks_dsn && !config.dsn) || !(bare || extended) || !are_known(&given.other, &config.private_rcpt)
        {
            return Err(not_offered());
        }
        if transaction.by_chunks {
            return Err(Refusal::known(503, BAD_SEQUENCE, "The message has begun"));
        }
        if transaction.envelope.recipients.len() >= config.limits.recipients {
            return Err(Refusal::known(452, EnhancedStatus::known(4, 5, 3), "Too many recipients"));
        }
        let (mailbox, ask) = match (path, &config.postmaster) {
            (ForwardPath::Mailbox(mailbox), _) => (mailbox, true),
            (ForwardPath::Postmaster, Some(mailbox)) => (mailbox.clone(), false),
            (ForwardPath::Postmaster, None) => (self.our_postmaster()?, true),
        };
        // The postmaster's mailbox is ours, so it is asked about as well.
        if !(ascii && mailbox.is_ascii() || transaction.envelope.options.smtp_utf8) {
            return Err(Refusal::known(553, NEEDS_UTF8, "A UTF-8 address needs SMTPUTF8"));
        }
        Ok((Recipient { mailbox, notify: given.notify, original: given.original }, given.other, ask))
    }

    fn our_postmaster(&self) -> Result<Mailbox, Refusal> {
        // Cannot fail unless our own name leaves no room for a local part.
        Mailbox::new("postmaster", self.config.hostname.clone())
            .map_err(|_| Refusal::known(451, EnhancedStatus::known(4, 3, 5), "Our own name is too long"))
    }

    pub(super) fn refuse_with(&mut self, refusal: Refusal) {
        self.output.reply(refusal.reply());
        if refusal.reply().code().is_permanent() {
            self.count_error();
        }
    }
}

fn are_known(given: &[Parameter], private: &[Box<str>]) -> bool {
    given.iter().all(|parameter| private.contains(&parameter.keyword))
}

fn not_offered() -> Refusal {
    Refusal::known(555, BAD_ARGUMENTS, "A parameter was not offered")
}

pub(super) fn too_big() -> Refusal {
    Refusal::known(552, EnhancedStatus::known(5, 3, 4), "Message is larger than SIZE allows")
}
