//! Notifications as our composer writes them, read by both sides: recipients, statuses and the original's `Message-ID`.

use mail_parser::{MessageParser, MimeHeaders, PartType};
use postwright_bounce::Limits;
use postwright_bounce::classify::Classifier;
use postwright_bounce::dsn::{Action, Composer, DsnId, Fate, Original};
use postwright_bounce::report::read;
use postwright_core::{
    DeliveryStatus, EnhancedStatus, Envelope, Mailbox, Message, Outcome, Phase, Refusal, Ret, Timestamp,
};

use crate::Side;

/// What a notification says: recipient and status of each, and the original's id.
type Told = (Vec<(String, String)>, Option<String>);

#[derive(Clone)]
pub(crate) struct Mails(Vec<Vec<u8>>);

pub(crate) struct OursReads(Mails, Classifier, Limits);

pub(crate) struct TheirsReads(Mails, MessageParser);

impl Mails {
    /// Twenty notifications about messages with a body of so many octets; without one the header alone is returned.
    pub(crate) fn of(octets: usize) -> Mails {
        Mails((0..20).map(|number| notification(number, octets)).collect())
    }

    pub(crate) fn octets(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    pub(crate) fn ours(&self) -> OursReads {
        OursReads(self.clone(), Classifier::built_in(), Limits::default())
    }

    pub(crate) fn theirs(&self) -> TheirsReads {
        TheirsReads(self.clone(), MessageParser::new())
    }

    /// Both sides say the same of every mail.
    pub(crate) fn check(&self) {
        let (ours, theirs) = (self.ours(), self.theirs());
        for mail in &self.0 {
            let told = ours.told(mail);
            assert!(!told.0.is_empty() && told.1.is_some(), "{told:?}");
            assert_eq!(told, theirs.told(mail));
        }
    }
}

fn notification(number: usize, octets: usize) -> Vec<u8> {
    let sender: Mailbox = "author@sender.example".parse().expect("an address");
    let mut envelope = Envelope::new(sender.clone(), []);
    for name in ["ann", "bob", "chris"].iter().take(1 + number % 3) {
        let address: Mailbox = format!("{name}{number}@receiver.example").parse().expect("an address");
        envelope.recipients.push(address.into());
    }
    envelope.options.ret = Some(if octets == 0 { Ret::Headers } else { Ret::Full });
    let mut text = format!(
        "Received: from a.example ([192.0.2.1]) by b.example with ESMTP id {number};\r\n\tThu, 1 Jan 2026 00:00:00 +0000\r\n\
         From: Author <author@sender.example>\r\nTo: ann@receiver.example\r\nSubject: Monthly news\r\n\
         Message-ID: <{number}@sender.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
    );
    while text.len() < octets {
        text.push_str("All the news that is fit to print, line by line, until the size is reached.\r\n");
    }
    let message = Message::from_bytes(text.into_bytes());
    let status = |detail| {
        let refusal =
            Refusal::known(550, EnhancedStatus::known(5, 1, detail), "The address is not known here");
        let mut status = DeliveryStatus::local(
            EnhancedStatus::known(5, 1, detail),
            postwright_core::Cause::NoRoute,
            Phase::Rcpt,
            Timestamp::from_secs(1_800_000_000),
        );
        status.outcome = Outcome::Failed;
        status.diagnostic = postwright_core::Diagnostic::Smtp(refusal.reply().clone());
        status
    };
    let statuses: Vec<DeliveryStatus> = (1..=envelope.recipients.len()).map(|_| status(1)).collect();
    let fates: Vec<Fate<'_>> = envelope
        .recipients
        .iter()
        .zip(&statuses)
        .map(|(recipient, status)| Fate { recipient, action: Action::Failed, status, retry_until: None })
        .collect();
    let postmaster: Mailbox = "postmaster@mx.example".parse().expect("an address");
    let composer = Composer::new("mx.example".parse().expect("a domain"), postmaster);
    let arrived = Timestamp::from_secs(1_799_999_000);
    let original = Original { options: &envelope.options, message: &message, arrived };
    let id = DsnId::new(&format!("01m7ycb97tsdhhrshwykbkr{number:03}")).expect("an id");
    let composed = composer.compose(&sender, original, &fates, &id, Timestamp::from_secs(1_800_000_000));
    let dsn = composed.expect("within limits").expect("a notification is owed");
    dsn.message.chunks().flat_map(|chunk| chunk.iter().copied()).collect()
}

impl OursReads {
    fn told(&self, mail: &[u8]) -> Told {
        let report = read(mail, &self.1, &self.2);
        let one = |one: &postwright_bounce::report::RecipientReport| {
            (one.recipient.to_string(), one.status.map(|status| status.to_string()).unwrap_or_default())
        };
        let id = report.original_message_id.map(|id| id.trim_matches(['<', '>']).to_owned());
        (report.reports.iter().map(one).collect(), id)
    }
}

impl Side for OursReads {
    /// Beside what the peer does, this classifies each refusal.
    fn once(&self) -> usize {
        self.0.0.iter().map(|mail| self.told(mail).0.len()).sum()
    }
}

impl TheirsReads {
    /// mail-parser takes the mail apart; the fields of the status part are read by hand.
    fn told(&self, mail: &[u8]) -> Told {
        let message = self.1.parse(mail).expect("a mail");
        let (mut recipients, mut id) = (Vec::new(), None);
        for part in &message.parts {
            if part.is_content_type("message", "delivery-status") {
                let text = match &part.body {
                    PartType::Text(text) => text.to_string(),
                    _ => String::from_utf8_lossy(part.contents()).into_owned(),
                };
                let mut recipient = None;
                for line in text.lines() {
                    if let Some(value) = line.strip_prefix("Final-Recipient: rfc822;") {
                        recipient = Some(value.trim().to_owned());
                    } else if let Some(value) = line.strip_prefix("Status:") {
                        recipients.extend(recipient.take().map(|to| (to, value.trim().to_owned())));
                    }
                }
            } else if let PartType::Message(inner) = &part.body {
                id = inner.message_id().map(str::to_owned);
            } else if part.is_content_type("text", "rfc822-headers") {
                let inner = self.1.parse(part.contents());
                id = inner.and_then(|inner| inner.message_id().map(str::to_owned));
            }
        }
        (recipients, id)
    }
}

impl Side for TheirsReads {
    fn once(&self) -> usize {
        self.0.0.iter().map(|mail| self.told(mail).0.len()).sum()
    }
}
