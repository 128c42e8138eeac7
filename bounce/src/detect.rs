//! What kind of mail it is: from a mail system, a bounce in prose, an automatic reply.
//!
//! Invariant: looks at header fields and the first 4,000 octets of text only.
//!
//! Standards: RFC 3834 5 (Auto-Submitted); the rest is what programmes wrote before it. Not here: recipients (`legacy`).

use crate::mail::{Fields, Mail, unfold_words};

pub(crate) fn is_from_robot(mail: &Mail<'_>) -> bool {
    let fields = &mail.fields;
    let from = fields.get("from").map(unfold_words).unwrap_or_default().to_ascii_lowercase();
    let kind = fields.get("content-type").unwrap_or("").to_ascii_lowercase();
    fields.get("x-failed-recipients").is_some()
        || kind.starts_with("multipart/report")
        || [
            "mailer-daemon",
            "mailer_daemon",
            "mailerdaemon",
            "mail delivery",
            "postmaster",
            "maildelivery",
            "mail-daemon",
            "mail system",
            "mail administrator",
            "delivery subsystem",
            "mailer",
            "mdaemon",
            "smtp gateway",
            "mail transport",
            "bounce",
        ]
        .iter()
        .any(|word| from.contains(word))
}

/// Words in the subjects of bounces, in lower case.
const SUBJECTS: &[&str] = &[
    "undeliver",
    "returned mail",
    "delivery fail",
    "delivery status",
    "failure notice",
    "mail delivery",
    "delivery report",
    "delivery notification",
    "returned to sender",
    "non-deliver",
    "nondeliver",
    "message status",
    "mail failure",
    "delivery error",
    "delivery problem",
    "could not be delivered",
    "not delivered",
    "unable to deliver",
    "user unknown",
    "mail system error",
    "failed mail",
    "failure delivery",
    "returned message",
    "bounce",
    "delivery has failed",
    "mail error",
    "message delayed",
    "warning: message",
    "not deliverable",
    "rejected",
    "mailbox full",
    "unzustellbar",
    "address change",
    "invalid address",
    "delivery delayed",
    "failed delivery",
    "no such user",
    "unknown user",
    "email error",
];

/// Words in the first lines of bounces, in lower case.
const OPENINGS: &[&str] = &[
    "could not be delivered",
    "couldn't be delivered",
    "was not delivered",
    "unable to deliver",
    "undeliverable",
    "delivery failed",
    "delivery to the following",
    "cannot be delivered",
    "cannot deliver",
    "permanent fatal errors",
    "not able to deliver",
    "could not deliver",
    "has been returned",
    "failed to deliver",
    "mailbox is full",
    "invalid user address",
    "error message below",
    "does not exist",
    "user unknown",
    "no such user",
    "is no longer valid",
    "no longer accept",
    "no longer in use",
    "delivery has failed",
];

pub(crate) fn looks_like_bounce(mail: &Mail<'_>, said: &str) -> bool {
    let fields = &mail.fields;
    if fields.get("return-path").is_some_and(|path| path.trim() == "<>") {
        return true;
    }
    let subject = fields.get("subject").map(unfold_words).unwrap_or_default().to_ascii_lowercase();
    let head =
        said.get(..said.floor_char_boundary(said.len().min(4000))).unwrap_or(said).to_ascii_lowercase();
    SUBJECTS.iter().any(|word| subject.contains(word)) || OPENINGS.iter().any(|word| head.contains(word))
}

/// RFC 3834 5, and what programmes wrote before it.
pub(crate) fn is_auto_reply(fields: &Fields) -> bool {
    let is = |name: &str, words: &[&str]| {
        fields.get(name).is_some_and(|value| {
            let value = value.to_ascii_lowercase();
            words.iter().any(|word| value.starts_with(word))
        })
    };
    let subject = fields.get("subject").map(unfold_words).unwrap_or_default().to_ascii_lowercase();
    is("auto-submitted", &["auto-replied", "auto-generated", "auto-notified"])
        || fields.get("x-autoreply").is_some_and(|value| !value.eq_ignore_ascii_case("no"))
        || fields.get("x-autorespond").is_some()
        || fields.get("x-autoresponder").is_some()
        || fields.get("x-auto-reply").is_some()
        || is("precedence", &["auto_reply", "auto-reply"])
        || is("x-precedence", &["auto_reply"])
        || is("x-auto-response-suppress", &["all", "oof", "autoreply", "dr, oof"])
        || [
            "out of office",
            "out of the office",
            "automatic reply",
            "auto reply",
            "auto-reply",
            "autoreply",
            "auto:",
            "auto response",
            "automated response",
            "automatische antwort",
            "abwesenheit",
            "réponse automatique",
            "respuesta automática",
            "risposta automatica",
            "vacation",
            "away from my mail",
        ]
        .iter()
        .any(|word| subject.starts_with(word) || subject.contains(&format!(": {word}")))
}
