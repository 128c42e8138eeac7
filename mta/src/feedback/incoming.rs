//! Mail to the bounce domain: who may send it, and what it does.
//!
//! Invariant: nothing here is queued and nothing is answered by mail. What is forged is refused at RCPT and counted; an
//! automatic reply changes nothing.
//!
//! Standards: RFC 5321 4.5.5, RFC 3834 2. Not here: reading (bounce's `report`).

use postwright_bounce::Limits;
use postwright_bounce::classify::Category;
use postwright_bounce::dsn::Action;
use postwright_bounce::rates::Happening;
use postwright_bounce::report::{Kind, MailReport, RecipientReport, read};
use postwright_bounce::verp::Signed;
use postwright_core::{Domain, EnhancedStatus, Envelope, Host, Mailbox, Message, Refusal, Timestamp};
use postwright_queue::SpoolId;

use super::{Departed, Feedback, FeedbackEvent, add, rate_key};
use crate::event::Observers;
use crate::{Departure, Event, Pace, Returned};

/// Why something that came to the bounce domain changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ignored {
    /// An address of our form without our signature.
    Forged,
    /// An address of ours that is past its day.
    Expired,
    /// Somebody's programme answered.
    AutoReply,
    /// It is about no message of ours, or about nobody to whom that message went.
    Unmatched,
    /// It reports no failure: a delay, a delivery, a person's answer.
    NoFailure,
}

/// What an address of the bounce domain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Incoming {
    /// The return path of this message.
    About(SpoolId),
    /// An address for complaints and bounces that name the message themselves.
    Open,
}

/// When something came, and who is to know of it.
#[derive(Clone, Copy)]
pub(crate) struct Hearers<'a> {
    pub(crate) now: Timestamp,
    pub(crate) observers: &'a Observers,
    pub(crate) pace: Option<&'a dyn Pace>,
}

impl Feedback {
    /// The domain whose mail is read here.
    pub fn domain(&self) -> Option<&Domain> {
        self.options.domain.as_ref()
    }

    /// Whether mail to this address is read here.
    pub fn takes(&self, address: &Mailbox) -> bool {
        matches!((address.host(), &self.options.domain), (Host::Domain(host), Some(own)) if host == own)
    }

    /// What an address of the bounce domain is.
    ///
    /// # Errors
    /// 550 5.1.1 for one that is not ours or too old. Bounces have no sender, so nobody is told (RFC 5321 4.5.5).
    pub fn resolve(&self, address: &Mailbox, now: Timestamp) -> Result<Incoming, (Ignored, Refusal)> {
        let local = address.local_unquoted();
        if self.options.complaints.iter().any(|open| open.eq_ignore_ascii_case(&local)) {
            return Ok(Incoming::Open);
        }
        let refuse = |why, text: &str| {
            add(&self.counters.forged);
            Err((why, Refusal::known(550, EnhancedStatus::known(5, 1, 1), text)))
        };
        match self.options.signer.as_ref().map(|signer| signer.verify(address, now)) {
            Some(Signed::Id(id)) => match id.parse() {
                Ok(id) => Ok(Incoming::About(id)),
                Err(_) => refuse(Ignored::Forged, "No such address"),
            },
            Some(Signed::Expired(_)) => refuse(Ignored::Expired, "This address is no longer in use"),
            _ => refuse(Ignored::Forged, "No such address"),
        }
    }

    /// Takes the recipients of the bounce domain out of an envelope.
    pub(crate) fn split(&self, envelope: &Envelope) -> (Vec<Mailbox>, Envelope) {
        let ours =
            envelope.recipients.iter().map(|to| &to.mailbox).filter(|to| self.takes(to)).cloned().collect();
        let mut rest = envelope.clone();
        rest.recipients.retain(|to| !self.takes(&to.mailbox));
        (ours, rest)
    }

    /// Reads mail to the bounce domain and does what it asks for. When this returns, the list is durable.
    ///
    /// # Errors
    /// 451 if the storage failed: the other side keeps its bounce and comes again.
    pub(crate) fn receive(
        &self,
        to: &[Mailbox],
        message: &Message,
        hearers: Hearers<'_>,
    ) -> Result<(), Refusal> {
        let limits = Limits::default();
        let mut octets = Vec::new();
        for chunk in message.chunks() {
            let room = limits.mail.saturating_sub(octets.len());
            octets.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
            if octets.len() >= limits.mail {
                break;
            }
        }
        let report = read(&octets, &self.options.classifier, &limits);
        for address in to {
            // It was looked at when it was given; between the two its day may have ended.
            if let Ok(incoming) = self.resolve(address, hearers.now)
                && let Err(why) = self.act(incoming, &report, hearers)
            {
                add(match why {
                    Ignored::AutoReply => &self.counters.auto_replies,
                    _ => &self.counters.unmatched,
                });
                hearers.observers.tell(Event::Feedback(&FeedbackEvent::Ignored(why)));
            }
        }
        self.list.sync().map_err(|error| {
            tracing::error!(%error, "the suppression list");
            Refusal::known(
                451,
                EnhancedStatus::known(4, 3, 0),
                "The suppression list cannot be written, try later",
            )
        })
    }

    fn act(&self, incoming: Incoming, report: &MailReport, hearers: Hearers<'_>) -> Result<(), Ignored> {
        match report.kind {
            Kind::AutoReply => return Err(Ignored::AutoReply),
            Kind::Dsn | Kind::Bounce | Kind::Arf => {}
            _ => return Err(Ignored::NoFailure),
        }
        let (about, departed) = self.message(incoming, report, hearers.now).ok_or(Ignored::Unmatched)?;
        let only = match &departed.recipients[..] {
            [only] => Some(&**only),
            _ => None,
        };
        let mut done = Err(Ignored::NoFailure);
        for one in &report.reports {
            let told = tells(report, one);
            if told == Told::Nothing {
                continue;
            }
            // A forwarder names its own addressee: the message's only recipient is meant.
            let Some(recipient) = named(&departed, one).or(only).and_then(|to| to.parse::<Mailbox>().ok())
            else {
                done = done.or(Err(Ignored::Unmatched));
                continue;
            };
            self.returned(about, &departed, &recipient, one, told, hearers);
            done = Ok(());
        }
        // A complaint that does not say whose it is comes from the only one who had the message.
        if report.kind == Kind::Arf
            && done.is_err()
            && let Some(recipient) = only.and_then(|to| to.parse::<Mailbox>().ok())
            && tells_complaint(report)
        {
            let one = RecipientReport::complaint(&recipient.to_string());
            self.returned(about, &departed, &recipient, &one, Told::Complaint, hearers);
            done = Ok(());
        }
        done
    }

    /// By its signed return path, or else by the ids that the mail quotes.
    fn message(
        &self,
        incoming: Incoming,
        report: &MailReport,
        now: Timestamp,
    ) -> Option<(SpoolId, Departed)> {
        if let Incoming::About(id) = incoming {
            return Some((id, self.journal.find(id)?));
        }
        // A complaint often quotes the reverse-path, which is the signed one.
        let quoted = report.feedback.as_ref().and_then(|feedback| feedback.original_mail_from.as_deref());
        let signer = self.options.signer.as_ref();
        if let (Some(path), Some(signer)) = (quoted.and_then(|path| path.parse().ok()), signer)
            && let Signed::Id(id) | Signed::Expired(id) = signer.verify(&path, now)
            && let Ok(id) = id.parse()
            && let Some(departed) = self.journal.find(id)
        {
            return Some((id, departed));
        }
        self.journal.by_message_id(report.original_message_id.as_deref()?)
    }

    fn returned(
        &self,
        about: SpoolId,
        departed: &Departed,
        recipient: &Mailbox,
        one: &RecipientReport,
        told: Told,
        hearers: Hearers<'_>,
    ) {
        let Hearers { now, observers, pace } = hearers;
        let (counter, happening) = match told {
            Told::Complaint => (&self.counters.complaints, Happening::Complained),
            _ => (&self.counters.bounces, Happening::Bounced),
        };
        add(counter);
        let (tenant, stream) = (&departed.tenant, &departed.stream);
        self.count(&rate_key(tenant, stream, recipient), happening, now, observers);
        let note = one.diagnostic.as_deref().unwrap_or("");
        if let (Some(pace), Host::Domain(domain)) = (pace, recipient.host()) {
            let trail = self.journal.trail(about, domain).unwrap_or_default();
            let departure =
                Departure { domain, hosts: &trail.hosts, site: &trail.site, tenant, stream, octets: 0 };
            let complaint = told == Told::Complaint;
            pace.returned(Returned { departure, exit: trail.exit.as_deref(), complaint, note }, now);
        }
        let suppressed = self.judge(&one.classification, tenant, stream, recipient, note, now);
        observers.tell(Event::Feedback(&FeedbackEvent::Returned {
            about,
            tenant: tenant.clone(),
            stream: stream.clone(),
            recipient: recipient.clone(),
            verdict: Box::new(one.classification.clone()),
            suppressed,
        }));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Failure,
    Complaint,
    Nothing,
}

/// A message that is delayed, delivered or passed on has not come back; `not-spam` is no complaint.
fn tells(report: &MailReport, one: &RecipientReport) -> Told {
    if report.kind == Kind::Arf {
        return if tells_complaint(report) { Told::Complaint } else { Told::Nothing };
    }
    let failed = one.action.is_none_or(|action| action == Action::Failed);
    if failed && one.classification.category != Category::Delivered { Told::Failure } else { Told::Nothing }
}

fn tells_complaint(report: &MailReport) -> bool {
    let kind = report.feedback.as_ref().map(|feedback| &*feedback.feedback_type);
    !matches!(kind, Some("not-spam" | "auth-failure" | "dmarc"))
}

/// The message's recipient that a report names, in the message's own spelling.
fn named<'d>(departed: &'d Departed, one: &RecipientReport) -> Option<&'d str> {
    let named = [one.original_recipient.as_deref(), Some(&*one.recipient)];
    departed
        .recipients
        .iter()
        .map(|to| &**to)
        .find(|to| named.iter().flatten().any(|name| to.eq_ignore_ascii_case(name)))
}
