//! One transaction: what may be sent at all, the envelope, the message, and each recipient's fate.
//!
//! Invariant: a fate is written once. A recipient is `Unknown` only if the end of the message had begun to go out
//! and no reply to it came. One refused recipient never touches the others.
//!
//! A transaction may take several rounds of MAIL, RCPT and DATA: the server's RCPTMAX, and recipients refused with
//! 452 (too many) while others were taken, go into a further round. Each round takes at least one recipient off
//! the list, so there are never more rounds than recipients.
//!
//! Standards: RFC 5321 3.3, 4.5.3.1.10 (452 and 552); RFC 2920 3.1; RFC 3030; RFC 1870 6.1; RFC 6152 3; RFC 6531
//! 3.2; RFC 8689 4.2.1; RFC 9422 5; RFC 2033 4.2.
//!
//! Not here: connection, EHLO, TLS (session); splitting a message over hosts (smtp-client).

use std::collections::VecDeque;
use std::time::Duration;

use postwright_core::{
    Body, Cause, DeliveryStatus, EnhancedStatus, Instant, Outcome, Phase, Reply, Timestamp,
};

use super::body::{Content, Encoder, Encoding};
use super::command::{self, MailParameters};
use super::config::{Chunking, EightBit, Protocol, StrayLineEnds, Timeouts};
use super::report::{CloseReason, Report, Transaction};
use super::session::{Expect, Session};

#[derive(Debug)]
pub(super) struct Job {
    transaction: Transaction,
    /// One a recipient, in the envelope's order.
    fates: Vec<Option<DeliveryStatus>>,
    plan: Plan,
    /// Recipients for later rounds.
    waiting: VecDeque<usize>,
    round: Round,
}

/// How the message goes to this server.
#[derive(Debug, Clone, Copy)]
struct Plan {
    encoding: Encoding,
    body: Body,
    smtp_utf8: bool,
}

/// Why a message or a recipient cannot go to this server: subject and detail of a 5.x.x status, and the cause.
struct Unfit(u16, u16, Cause);

impl Unfit {
    fn missing(subject: u16, detail: u16, keyword: &str) -> Unfit {
        Unfit(subject, detail, Cause::MissingExtension(keyword.into()))
    }
}

/// One MAIL and what follows it.
#[derive(Debug, Default)]
struct Round {
    /// Recipients whose RCPT was not written yet.
    unwritten: VecDeque<usize>,
    /// Recipients that the server took.
    accepted: Vec<usize>,
    /// Recipients refused for being too many, with their replies.
    crowded: Vec<(usize, Reply)>,
    mail_written: bool,
    /// MAIL was refused, so what is still in the pipeline does not count.
    mail_refused: bool,
    data_written: bool,
    message: Option<Sending>,
}

#[derive(Debug)]
struct Sending {
    encoder: Encoder,
    since: Instant,
}

impl Job {
    pub(super) fn new(transaction: Transaction) -> Job {
        let recipients = transaction.envelope.recipients.len();
        Job {
            transaction,
            fates: vec![None; recipients],
            plan: Plan { encoding: Encoding::Dots, body: Body::SevenBit, smtp_utf8: false },
            waiting: (0..recipients).collect(),
            round: Round::default(),
        }
    }

    /// The next octets of the message, if it is being sent.
    pub(super) fn piece(&self) -> &[u8] {
        self.round.message.as_ref().map(|sending| sending.encoder.piece()).unwrap_or_default()
    }

    /// When the message must have been written, if it is being written.
    pub(super) fn body_deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        let sending = self.round.message.as_ref().filter(|sending| !sending.encoder.is_done())?;
        let octets = u64::try_from(self.transaction.message.len()).unwrap_or(u64::MAX);
        let slowest = Duration::from_secs(octets / u64::from(timeouts.slowest.max(1)));
        Some(sending.since + timeouts.block + slowest)
    }

    fn message_size(&self) -> usize {
        self.transaction.message.len()
    }

    /// Whether the server may have the whole message without our knowing.
    fn may_be_complete(&self) -> bool {
        self.round.message.as_ref().is_some_and(|sending| sending.encoder.may_be_complete())
    }

    /// The end of the message was not written after all; true if the message had been begun.
    pub(super) fn take_back_end(&mut self) -> bool {
        self.round.message.take().is_some()
    }

    /// Whether the whole message was written.
    fn is_written(&self) -> bool {
        self.round.message.as_ref().is_some_and(|sending| sending.encoder.is_done())
    }

    fn decide(&mut self, recipient: usize, fate: DeliveryStatus) {
        if let Some(slot @ None) = self.fates.get_mut(recipient) {
            *slot = Some(fate);
        }
    }

    /// Whether the recipient asked to be told of success, which a server without DSN cannot pass on.
    fn wants_success(&self, recipient: usize) -> bool {
        let recipient = self.transaction.envelope.recipients.get(recipient);
        recipient.and_then(|recipient| recipient.notify).is_some_and(|notify| notify.on_success())
    }
}

impl Session {
    /// Starts the waiting transaction: first what can be said without asking the server.
    pub(super) fn begin_job(&mut self) {
        let Some(mut job) = self.job.take() else { return };
        match self.plan(&job) {
            Ok(plan) => job.plan = plan,
            Err(unfit) => {
                let fate = self.local_failure(unfit);
                for recipient in 0..job.fates.len() {
                    job.decide(recipient, fate.clone());
                }
                job.waiting.clear();
            }
        }
        self.refuse_utf8_recipients(&mut job);
        self.job = Some(job);
        self.next_round();
    }

    /// How the message can go to this server; or why not, as the fate of every recipient.
    fn plan(&self, job: &Job) -> Result<Plan, Unfit> {
        let Transaction { envelope, message } = &job.transaction;
        let options = &envelope.options;
        if options.require_tls && !(self.offer.require_tls && self.tls.is_some()) {
            return Err(Unfit::missing(7, 30, "REQUIRETLS"));
        }
        let size = u64::try_from(message.len()).unwrap_or(u64::MAX);
        if let Some(limit) = self.offer.size.filter(|limit| *limit > 0 && size > *limit) {
            let what = format!("the message has {size} octets and the server takes {limit}");
            return Err(Unfit(3, 4, Cause::Policy(what.into())));
        }
        let content = Content::of(message);
        let is_binary = options.body == Body::BinaryMime;
        if is_binary && !(self.offer.chunking && self.offer.binary_mime) {
            return Err(Unfit::missing(6, 3, "BINARYMIME"));
        }
        if content.eight_bit && !self.offer.eight_bit_mime && self.config.eight_bit == EightBit::Refuse {
            return Err(Unfit::missing(6, 3, "8BITMIME"));
        }
        let header_needs_utf8 = options.smtp_utf8 && content.eight_bit_header;
        let sender_needs_utf8 = envelope.reverse_path.mailbox().is_some_and(|sender| !sender.is_ascii());
        if (header_needs_utf8 || sender_needs_utf8) && !self.offer.smtp_utf8 {
            return Err(Unfit::missing(6, 7, "SMTPUTF8"));
        }
        let recipient_needs_utf8 = envelope.recipients.iter().any(|r| !r.mailbox.is_ascii());
        let wanted = options.smtp_utf8 || sender_needs_utf8 || recipient_needs_utf8;
        let body = match (is_binary, content.eight_bit) {
            (true, _) => Body::BinaryMime,
            (false, true) if self.offer.eight_bit_mime => Body::EightBitMime,
            _ => Body::SevenBit,
        };
        Ok(Plan {
            encoding: self.encoding(content, is_binary)?,
            body,
            smtp_utf8: wanted && self.offer.smtp_utf8,
        })
    }

    fn encoding(&self, content: Content, is_binary: bool) -> Result<Encoding, Unfit> {
        let bdat = is_binary || self.config.chunking == Chunking::WhenOffered;
        match (bdat && self.offer.chunking, content.stray_line_end || content.nul) {
            (true, _) => Ok(Encoding::Raw),
            (false, false) => Ok(Encoding::Dots),
            (false, true) if self.config.stray_line_ends == StrayLineEnds::Repair => {
                Ok(Encoding::DotsRepaired)
            }
            (false, true) => {
                let what = "the message holds a bare CR, a bare LF or a NUL, which only BDAT can carry";
                Err(Unfit(6, 0, Cause::Policy(what.into())))
            }
        }
    }

    /// A recipient that cannot be written without SMTPUTF8 fails alone (RFC 6531 3.2).
    fn refuse_utf8_recipients(&self, job: &mut Job) {
        if self.offer.smtp_utf8 {
            return;
        }
        for (i, recipient) in job.transaction.envelope.recipients.iter().enumerate() {
            if let (false, Some(slot @ None)) = (recipient.mailbox.is_ascii(), job.fates.get_mut(i)) {
                *slot = Some(self.local_failure(Unfit::missing(6, 7, "SMTPUTF8")));
            }
        }
        let fates = &job.fates;
        job.waiting.retain(|recipient| fates.get(*recipient).is_some_and(Option::is_none));
    }

    fn local_failure(&self, Unfit(subject, detail, cause): Unfit) -> DeliveryStatus {
        let status = EnhancedStatus::new(5, subject, detail).unwrap_or(EnhancedStatus::known(5, 0, 0));
        let fate = DeliveryStatus::local(status, cause, Phase::Mail, self.timestamp());
        DeliveryStatus { remote: Some(self.remote.clone()), ..fate }
    }

    /// Starts a round with the next recipients, or ends the transaction if there are none.
    fn next_round(&mut self) {
        let limit = self.offer.limits.recipients.and_then(|limit| usize::try_from(limit).ok());
        let most = limit.unwrap_or(usize::MAX).min(self.config.limits.recipients).max(1);
        let Some(job) = &mut self.job else { return };
        let count = job.waiting.len().min(most);
        job.round = Round { unwritten: job.waiting.drain(..count).collect(), ..Round::default() };
        if count == 0 {
            self.finish_job();
        } else {
            self.pump();
        }
    }

    fn finish_job(&mut self) {
        let Some(job) = self.job.take() else { return };
        let undecided =
            CloseReason::Protocol(Phase::Closing, "a recipient was left without an answer".into());
        let at = self.timestamp();
        let fate = |fate: Option<_>| fate.unwrap_or_else(|| undecided.status(Some(self.remote.clone()), at));
        self.report = Some(Report { statuses: job.fates.into_iter().map(fate).collect() });
    }

    /// Writes as many commands of the envelope as may be under way.
    fn pump(&mut self) {
        let window = if self.offer.pipelining { self.config.limits.pipeline.max(1) } else { 1 };
        while self.expected.len() < window {
            let Some((line, expect)) = self.next_command() else { return };
            self.write(&line, expect);
        }
    }

    fn next_command(&mut self) -> Option<(String, Expect)> {
        if !self.job.as_ref()?.round.mail_written && std::mem::take(&mut self.needs_reset) {
            return Some(("RSET\r\n".to_owned(), Expect::Reset));
        }
        let (at, size, offer) = (self.timestamp(), self.job.as_ref()?.message_size(), &self.offer);
        let outstanding = self.expected.iter().any(|expect| matches!(expect, Expect::Mail | Expect::Rcpt(_)));
        let job = self.job.as_mut()?;
        let (plan, round) = (job.plan, &mut job.round);
        if !std::mem::replace(&mut round.mail_written, true) {
            let authenticated = self.authenticated;
            let envelope = &job.transaction.envelope;
            let Plan { body, smtp_utf8, .. } = plan;
            let line =
                command::mail(MailParameters { envelope, offer, size, body, smtp_utf8, authenticated, at });
            return Some((line, Expect::Mail));
        }
        if let Some(recipient) = round.unwritten.pop_front() {
            let line =
                command::rcpt(job.transaction.envelope.recipients.get(recipient)?, offer, plan.smtp_utf8);
            return Some((line, Expect::Rcpt(recipient)));
        }
        // DATA may ride behind the last RCPT. BDAT may not: its octets would be sent before anyone was accepted.
        // Nor may LMTP's DATA: how many replies the message gets depends on who was accepted.
        let may_ride = self.config.protocol == Protocol::Smtp;
        let due = if outstanding { may_ride } else { !round.accepted.is_empty() };
        if due && plan.encoding != Encoding::Raw && !round.mail_refused && !round.data_written {
            round.data_written = true;
            return Some(("DATA\r\n".to_owned(), Expect::Data));
        }
        None
    }

    /// Takes a reply that belongs to the transaction.
    pub(super) fn job_reply(&mut self, expect: Expect, phase: Phase, reply: Reply) {
        let code = reply.code();
        let refuses = code.is_transient() || code.is_permanent();
        match expect {
            Expect::Reset if code.is_positive() => {}
            // The old transaction may still be open: a 503 to MAIL would then fail mail that has done nothing wrong.
            Expect::Reset => {
                let what = format!("RSET was refused: {reply}");
                return self.close(CloseReason::Protocol(phase, what.into()));
            }
            Expect::Mail if code.is_positive() => self.needs_reset = true,
            Expect::Mail if refuses => self.mail_refused(&reply),
            Expect::Rcpt(recipient) if code.is_positive() || refuses => self.rcpt_answered(recipient, reply),
            Expect::Data if code.is_intermediate() => return self.start_message(),
            Expect::Data if refuses => return self.data_refused(reply),
            Expect::Message | Expect::MessageFor(_) if code.is_positive() || refuses => {
                return self.message_answered(expect, reply);
            }
            _ => return self.refused(phase, reply),
        }
        self.pump();
        if self.expected.is_empty() {
            self.envelope_done();
        }
    }

    fn mail_refused(&mut self, reply: &Reply) {
        let fate = self.fate_of(reply.clone(), Phase::Mail);
        let Some(job) = &mut self.job else { return };
        job.round.mail_refused = true;
        job.round.unwritten.clear();
        // What MAIL says holds for everyone, those of later rounds included.
        job.waiting.clear();
        for recipient in 0..job.fates.len() {
            job.decide(recipient, fate.clone());
        }
    }

    fn rcpt_answered(&mut self, recipient: usize, reply: Reply) {
        let fate = self.fate_of(reply.clone(), Phase::Rcpt);
        let Some(job) = &mut self.job else { return };
        if job.round.mail_refused {
            return;
        }
        if reply.code().is_positive() {
            job.round.accepted.push(recipient);
        } else if is_too_many(&reply) && !job.round.accepted.is_empty() {
            job.round.crowded.push((recipient, reply));
        } else {
            job.decide(recipient, fate);
        }
    }

    /// Every reply to the envelope is in and no command is due.
    fn envelope_done(&mut self) {
        let Some(job) = &self.job else { return };
        if job.round.accepted.is_empty() || job.round.mail_refused {
            self.end_round(false);
        } else if job.plan.encoding == Encoding::Raw {
            let line = format!("BDAT {} LAST\r\n", job.message_size());
            self.out.extend_from_slice(line.as_bytes());
            self.start_message();
        }
    }

    fn start_message(&mut self) {
        self.progress = self.now;
        let Some(job) = &mut self.job else { return };
        // 354 although nobody was accepted: RFC 2920 3.1 has the client send just the end.
        let nobody = job.round.accepted.is_empty();
        let encoding = if nobody { Encoding::Empty } else { job.plan.encoding };
        let encoder = Encoder::new(&job.transaction.message, encoding);
        job.round.message = Some(Sending { encoder, since: self.now });
        match self.config.protocol {
            Protocol::Smtp => self.expected.push_back(Expect::Message),
            Protocol::Lmtp => {
                let accepted = job.round.accepted.iter();
                self.expected.extend(accepted.map(|recipient| Expect::MessageFor(*recipient)));
            }
        }
    }

    /// The driver wrote `len` octets of the message.
    pub(super) fn body_written(&mut self, len: usize) {
        if let Some(sending) = self.job.as_mut().and_then(|job| job.round.message.as_mut()) {
            sending.encoder.advance(len);
        }
    }

    fn data_refused(&mut self, reply: Reply) {
        let fate = self.fate_of(reply, Phase::Data);
        if let Some(job) = &mut self.job {
            for recipient in std::mem::take(&mut job.round.accepted) {
                job.decide(recipient, fate.clone());
            }
        }
        self.end_round(false);
    }

    fn message_answered(&mut self, expect: Expect, reply: Reply) {
        let accepted = reply.code().is_positive();
        let Some(job) = &self.job else { return };
        let early = !job.is_written() || !self.is_flushed();
        if early && accepted {
            let what = format!("the message was accepted before its end: {reply}");
            self.close(CloseReason::Protocol(Phase::Body, what.into()));
            return;
        }
        let phase = if early { Phase::Body } else { Phase::EndOfData };
        let fate = self.fate_of(reply.clone(), phase);
        let relays = accepted && !self.offer.dsn && self.config.protocol == Protocol::Smtp;
        let Some(job) = &mut self.job else { return };
        let answered = match expect {
            Expect::MessageFor(recipient) => vec![recipient],
            _ => std::mem::take(&mut job.round.accepted),
        };
        for recipient in answered {
            let mut fate = fate.clone();
            if relays && job.wants_success(recipient) {
                fate.outcome = Outcome::Relayed;
            }
            job.decide(recipient, fate);
        }
        if early {
            // The server refused in the middle of the message; the rest of it must not be taken for commands.
            self.close(CloseReason::Refused { phase, reply });
        } else if self.expected.is_empty() {
            self.needs_reset = false;
            self.end_round(accepted);
        }
    }

    /// Ends a round. If its message was taken, those who were too many get a round of their own.
    fn end_round(&mut self, message_accepted: bool) {
        let at = self.timestamp();
        let remote = self.remote.clone();
        let Some(job) = &mut self.job else { return };
        let crowded = std::mem::take(&mut job.round.crowded);
        if message_accepted {
            for (recipient, _) in crowded.into_iter().rev() {
                job.waiting.push_front(recipient);
            }
        } else {
            for (recipient, reply) in crowded {
                job.decide(recipient, too_many(reply, remote.clone(), at));
            }
        }
        self.next_round();
    }

    fn fate_of(&self, reply: Reply, phase: Phase) -> DeliveryStatus {
        let (remote, at) = (self.remote.clone(), self.timestamp());
        if phase == Phase::Rcpt && is_too_many(&reply) {
            return too_many(reply, remote, at);
        }
        DeliveryStatus::from_reply(reply, phase, Some(remote), at)
    }

    /// The session ended for `reason`: what it means for everyone whose fate is open.
    pub(super) fn report_all(&mut self, reason: &CloseReason) {
        let (remote, at) = (self.remote.clone(), self.timestamp());
        let flushed = self.is_flushed();
        let Some(job) = &mut self.job else { return };
        for (recipient, reply) in std::mem::take(&mut job.round.crowded) {
            job.decide(recipient, too_many(reply, remote.clone(), at));
        }
        let fate = reason.status(Some(remote), at);
        let silent = !matches!(reason, CloseReason::Refused { .. });
        if silent && flushed && job.may_be_complete() {
            let unknown =
                DeliveryStatus { outcome: Outcome::Unknown, phase: Phase::EndOfData, ..fate.clone() };
            for recipient in std::mem::take(&mut job.round.accepted) {
                job.decide(recipient, unknown.clone());
            }
        }
        for recipient in 0..job.fates.len() {
            job.decide(recipient, fate.clone());
        }
        self.finish_job();
    }
}

/// RFC 5321 4.5.3.1.10: 452, or 552 from old servers, means that this recipient is one too many.
fn is_too_many(reply: &Reply) -> bool {
    let about_count = reply.status().is_none_or(|status| (status.subject(), status.detail()) == (5, 3));
    about_count && matches!(reply.code().get(), 452 | 552)
}

/// A recipient too many is delayed, whatever the first digit says.
fn too_many(reply: Reply, remote: postwright_core::Remote, at: Timestamp) -> DeliveryStatus {
    let fate = DeliveryStatus::from_reply(reply, Phase::Rcpt, Some(remote), at);
    DeliveryStatus { outcome: Outcome::Delayed, status: EnhancedStatus::known(4, 5, 3), ..fate }
}
