//! Any mail to a bounce address, understood: [`read`].
//!
//! Order: a complaint (RFC 5965), a notification (RFC 3464), a bounce in prose, an automatic reply (RFC 3834), none of them.
//!
//! Invariant: every input gives a report, in time linear in its length within [`Limits`].
//!
//! Standards: RFC 3464, RFC 3834, RFC 5965, RFC 6522, RFC 6533. Not here: composing.

use postwright_core::{EnhancedStatus, Phase};

use crate::Limits;
use crate::arf::{self, Feedback};
use crate::classify::{Because, Category, Classification, Classifier, Permanence, Refused, verdict};
use crate::detect::{is_auto_reply, is_from_robot, looks_like_bounce};
use crate::dsn::{self, Action, Notification, RecipientStatus, clean_address};
use crate::legacy::{
    bare_names, begins_with_address, find, phase_in, refusal_in, says_delayed, split_returned,
};
use crate::mail::{Fields, Mail, strip_tags, unfold_words};
use crate::sns;

/// What a mail is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A notification of RFC 3464.
    Dsn,
    /// A bounce that follows no standard.
    Bounce,
    /// A complaint or failure report of RFC 5965.
    Arf,
    /// Somebody's programme answered.
    AutoReply,
    /// Something else.
    None,
}

impl Kind {
    /// `dsn`, `bounce`, `arf`, `auto-reply` or `none`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Dsn => "dsn",
            Kind::Bounce => "bounce",
            Kind::Arf => "arf",
            Kind::AutoReply => "auto-reply",
            Kind::None => "none",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a mail says about one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecipientReport {
    /// The address that failed.
    pub recipient: Box<str>,
    /// The address that the sender gave, if the report tells.
    pub original_recipient: Option<Box<str>>,
    /// What was done.
    pub action: Option<Action>,
    /// The enhanced status.
    pub status: Option<EnhancedStatus>,
    /// The reply code.
    pub code: Option<u16>,
    /// What the remote said.
    pub diagnostic: Option<Box<str>>,
    /// What it means.
    pub classification: Classification,
}

impl RecipientReport {
    /// A complaint that does not name its author: `recipient` is known from elsewhere.
    pub fn complaint(recipient: &str) -> RecipientReport {
        plain(recipient.to_owned(), verdict(Category::Complaint, None, Because::Nothing, 95))
    }
}

/// A mail to a bounce address, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MailReport {
    /// What it is.
    pub kind: Kind,
    /// The recipients that it tells of.
    pub reports: Vec<RecipientReport>,
    /// The complaint, for [`Kind::Arf`].
    pub feedback: Option<Feedback>,
    /// The `Message-ID` of the message it is about, with its angle brackets.
    pub original_message_id: Option<Box<str>>,
    /// The ENVID of the message it is about (RFC 3461).
    pub envelope_id: Option<Box<str>>,
}

/// Reads any mail: line ends may be CRLF or LF.
pub fn read(octets: &[u8], classifier: &Classifier, limits: &Limits) -> MailReport {
    let octets = skip_mbox_line(octets);
    let mail = Mail::read(octets, limits);
    let returned = Returned::of(&mail, limits);
    let mut report = MailReport {
        kind: Kind::None,
        reports: Vec::new(),
        feedback: None,
        original_message_id: returned.message_id.clone(),
        envelope_id: None,
    };
    if let Some(feedback) = arf::find(&mail, &returned.fields, limits) {
        report.kind = Kind::Arf;
        report.reports.extend(complaint(&feedback));
        report.feedback = Some(feedback);
        return report;
    }
    let prose = prose(&mail, limits);
    if let Some(told) = sns::find(&prose, classifier, limits) {
        report.kind = told.kind;
        report.feedback = told.feedback;
        report.reports = told.reports;
        return report;
    }
    let (said, inline) = split_returned(&prose);
    if report.original_message_id.is_none() && !inline.is_empty() {
        report.original_message_id = message_id_in(inline);
    }
    const STATUS: &[&str] = &["message/delivery-status", "message/global-delivery-status"];
    let passed_on = || mail.part_anywhere(STATUS).filter(|_| !said.contains('@') && is_from_robot(&mail));
    if let Some(part) = mail.part(STATUS).or_else(passed_on) {
        let notification = dsn::parse(&part.text(limits), limits);
        report.envelope_id = notification.envelope_id.clone();
        report.reports = from_notification(&notification, said, classifier);
        if !report.reports.is_empty() {
            report.kind = Kind::Dsn;
            return report;
        }
    }
    let robot = is_from_robot(&mail);
    if !robot && is_auto_reply(&mail.fields) {
        report.kind = Kind::AutoReply;
        let from = mail.fields.get("from").map(clean_address).unwrap_or_default();
        if from.contains('@') {
            let classification = verdict(Category::AutoReply, None, Because::Nothing, 90);
            report.reports.push(plain(from, classification));
        }
        return report;
    }
    if robot || looks_like_bounce(&mail, said) {
        report.reports = from_prose(&mail, said, &returned, inline, classifier, limits);
        if !report.reports.is_empty() {
            report.kind = Kind::Bounce;
        }
    }
    report
}

pub(crate) fn plain(recipient: String, classification: Classification) -> RecipientReport {
    RecipientReport {
        recipient: recipient.into(),
        original_recipient: None,
        action: None,
        status: None,
        code: None,
        diagnostic: None,
        classification,
    }
}

/// A mail out of an mbox begins with `From `, which is no field.
fn skip_mbox_line(octets: &[u8]) -> &[u8] {
    let mut rest = octets;
    while rest.starts_with(b"\n") || rest.starts_with(b"\r\n") {
        rest = crate::mail::split_line(rest).1;
    }
    if rest.starts_with(b"From ") { crate::mail::split_line(rest).1 } else { rest }
}

fn complaint(feedback: &Feedback) -> Vec<RecipientReport> {
    let verdict = verdict(Category::Complaint, None, Because::Nothing, 95);
    feedback.recipients.iter().map(|recipient| plain(recipient.to_string(), verdict.clone())).collect()
}

/// The returned message, as far as it tells which message it was.
pub(crate) struct Returned {
    pub(crate) fields: Fields,
    message_id: Option<Box<str>>,
}

impl Returned {
    fn of(mail: &Mail<'_>, limits: &Limits) -> Returned {
        const KINDS: &[&str] = &[
            "message/rfc822",
            "message/global",
            "text/rfc822-headers",
            "message/global-headers",
            "text/rfc822",
            "message/partial",
        ];
        let fields = match mail.part(KINDS) {
            Some(part) => {
                let text = part.text(limits);
                let text = text.trim_start();
                Fields::read(text.as_bytes(), limits).0
            }
            None => Fields::default(),
        };
        let message_id = fields.get("message-id").map(str::trim).filter(|id| id.len() > 2).map(Into::into);
        Returned { fields, message_id }
    }
}

fn message_id_in(text: &str) -> Option<Box<str>> {
    let line = text
        .lines()
        .find(|line| line.get(..11).is_some_and(|name| name.eq_ignore_ascii_case("message-id:")))?;
    let id = line.get(11..)?.trim();
    (id.starts_with('<') && id.ends_with('>')).then(|| id.into())
}

/// What people read in a mail: its plain text, or its HTML without tags.
fn prose(mail: &Mail<'_>, limits: &Limits) -> String {
    let mut out = String::new();
    for wanted in ["text/plain", "text/html", ""] {
        for part in mail.parts.iter().filter(|part| !part.enclosed) {
            if out.len() >= limits.text {
                break;
            }
            let is = match wanted {
                "" => {
                    part.kind.main.starts_with("text/")
                        || part.kind.main.is_empty()
                        || !part.kind.main.contains('/')
                }
                kind => part.kind.main == kind,
            };
            if !is || part.kind.main == "text/rfc822-headers" {
                continue;
            }
            let text = part.text(limits);
            let text = if part.kind.main == "text/html" { strip_tags(&text) } else { text };
            out.push_str(&text);
            out.push_str("\n\n");
        }
        if out.trim().len() > 20 {
            break;
        }
    }
    out
}

fn from_notification(
    notification: &Notification,
    said: &str,
    classifier: &Classifier,
) -> Vec<RecipientReport> {
    let mut reports: Vec<RecipientReport> = Vec::new();
    for status in &notification.recipients {
        let report = from_status(status, said, classifier);
        // Some list a recipient twice: once for each host that was tried.
        match reports.iter_mut().find(|old| old.recipient.eq_ignore_ascii_case(&report.recipient)) {
            Some(old) if old.classification.confidence < report.classification.confidence => *old = report,
            Some(_) => {}
            None => reports.push(report),
        }
    }
    reports
}

fn from_status(told: &RecipientStatus, said: &str, classifier: &Classifier) -> RecipientReport {
    let diagnostic = told.diagnostic.as_deref().unwrap_or("");
    let refused = Refused::from_line(refusal_in(diagnostic));
    let about = about(said, &told.recipient);
    let phase = phase_in(diagnostic).or_else(|| phase_in(&about));
    let mut code = refused.code;
    let status = pick_status(told.status, refused.status);
    let ask = |text: &str, code| {
        classifier.classify_refusal(Refused { code, status, text, mx: host_of(told), phase })
    };
    let mut classification = ask(diagnostic, code);
    if classification.confidence < 80 {
        // The prose part often tells more than the field does; only what follows this recipient's name counts.
        let line = Refused::from_line(refusal_in(&about));
        let better = ask(&format!("{diagnostic} {about}"), code.or(line.code));
        if better.confidence > classification.confidence {
            code = code.or(line.code);
            classification = better;
        }
    }
    if let Some(state) = state_of_mailbox(told, status, said, &classification, classifier) {
        classification = state;
    }
    classification = match told.action {
        Some(Action::Delivered | Action::Relayed | Action::Expanded) => {
            verdict(Category::Delivered, None, Because::Nothing, 95)
        }
        _ => after_data(classification, phase),
    };
    settle(&mut classification, told.action);
    RecipientReport {
        recipient: told.recipient.clone(),
        original_recipient: told.original.clone(),
        action: told.action,
        status,
        code,
        diagnostic: told.diagnostic.clone(),
        classification,
    }
}

/// The remote's own status is better than the reporter's, unless it says nothing.
fn pick_status(field: Option<EnhancedStatus>, remote: Option<EnhancedStatus>) -> Option<EnhancedStatus> {
    let says = |status: &EnhancedStatus| status.subject() != 0;
    remote.filter(says).or(field.filter(says)).or(remote).or(field)
}

/// The host that refused, or else the recipient's domain: what rules for a provider look at.
fn host_of(told: &RecipientStatus) -> Option<&str> {
    let remote = told
        .remote_mta
        .as_deref()
        .filter(|host| host.contains(|c: char| c.is_ascii_alphabetic()) && host.contains('.'));
    let domain = told.recipient.rsplit_once('@').map(|(_, domain)| domain);
    remote.filter(|host| !host.contains(char::is_whitespace)).or(domain)
}

/// The prose about a recipient: each of its mentions with the lines behind it, up to another recipient's; all of the prose if
/// it is not mentioned.
fn about(said: &str, recipient: &str) -> String {
    const MOST: usize = 2000;
    let mut out = String::new();
    let mut inside = false;
    if !recipient.is_empty() {
        for line in said.lines() {
            if line.contains(recipient) {
                inside = true;
            } else if begins_with_address(line).is_some() {
                inside = false;
            }
            if inside && out.len() < MOST {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    if out.is_empty() {
        let end = said.floor_char_boundary(said.len().min(MOST));
        out.push_str(said.get(..end).unwrap_or(said));
    }
    out
}

/// The reporter's own words against a mere "user unknown": a mailbox that it calls disabled exists. It says so behind the
/// status, where the code must agree, or before it lists the one recipient, where no host is quoted.
fn state_of_mailbox(
    told: &RecipientStatus,
    status: Option<EnhancedStatus>,
    said: &str,
    so_far: &Classification,
    classifier: &Classifier,
) -> Option<Classification> {
    if so_far.category != Category::UserUnknown || !matches!(so_far.rule, Because::Rule(_)) {
        return None;
    }
    let disabled = |text: &str, status| {
        let verdict = classifier.classify_refusal(Refused { status, text, ..Refused::default() });
        (verdict.category == Category::MailboxDisabled).then_some(verdict)
    };
    if let Some(words) = &told.comment {
        return status
            .filter(|status| (status.subject(), status.detail()) == (2, 1))
            .and_then(|status| disabled(words, Some(status)));
    }
    if told.diagnostic.is_some() {
        return None;
    }
    let (lead, _) = said.split_once(&*told.recipient).filter(|_| told.recipient.contains('@'))?;
    disabled(lead.get(lead.len().saturating_sub(LEAD)..).unwrap_or(lead), None)
}

/// Octets of prose before a recipient that are taken to be about it.
const LEAD: usize = 600;

/// A host that took the recipient at RCPT and says "user unknown" after the message has filtered it: the address lives.
fn after_data(mut classification: Classification, phase: Option<Phase>) -> Classification {
    let late = matches!(phase, Some(Phase::Data | Phase::Body | Phase::EndOfData));
    if late
        && classification.confidence < 90
        && classification.category == Category::UserUnknown
        && matches!(classification.rule, Because::Rule(_))
    {
        let row = Category::RecipientFilter.row();
        classification.category = row.category;
        classification.hard = false;
        classification.scope = row.scope;
        classification.action = row.action;
    }
    classification
}

/// A reporter that has given up will not retry, and one that reports a delay will, whatever the code's class.
fn settle(classification: &mut Classification, action: Option<Action>) {
    match action {
        Some(Action::Failed) => classification.permanence = Permanence::Permanent,
        Some(Action::Delayed) => {
            classification.permanence = Permanence::Transient;
            classification.hard = false;
        }
        Some(_) => classification.permanence = Permanence::Unknown,
        None => {}
    }
}

fn from_prose(
    mail: &Mail<'_>,
    said: &str,
    returned: &Returned,
    inline: &str,
    classifier: &Classifier,
    limits: &Limits,
) -> Vec<RecipientReport> {
    let mut known: Vec<String> = Vec::new();
    for name in ["to", "from", "reply-to", "return-path", "cc", "sender", "x-envelope-to", "delivered-to"] {
        known.extend(
            mail.fields.all(name).map(clean_address).filter(|address| address.contains('@')).take(20),
        );
    }
    let mut found = Vec::new();
    for value in mail.fields.all("x-failed-recipients") {
        for address in
            value.split(',').take(limits.reports).map(clean_address).filter(|address| !address.is_empty())
        {
            let said = about(said, &address);
            found.push(crate::legacy::Found { recipient: address, said });
        }
    }
    if found.is_empty() {
        found = find(said, &known, limits);
    }
    if found.is_empty() {
        let from = mail.fields.get("from").map(clean_address).unwrap_or_default();
        let domain = from.rsplit_once('@').map(|(_, domain)| domain.to_ascii_lowercase());
        found = domain.map(|domain| bare_names(said, &domain, limits)).unwrap_or_default();
    }
    if found.is_empty() {
        // Only the returned message says to whom it went.
        let inline =
            Fields::read(inline.trim_start_matches(|c: char| !c.is_ascii_uppercase()).as_bytes(), limits).0;
        let to = [&returned.fields, &inline].into_iter().find_map(|fields| {
            let to = fields.get("x-original-to").or(fields.get("to"))?;
            Some(clean_address(to)).filter(|address| address.contains('@'))
        });
        found.extend(to.map(|recipient| crate::legacy::Found { recipient, said: said.to_owned() }));
    }
    let subject = mail.fields.get("subject").map(unfold_words).unwrap_or_default();
    let delayed = says_delayed(said) || says_delayed(&subject);
    let alone = found.len() == 1;
    let said = if alone { said } else { "" };
    found.into_iter().map(|found| from_found(found, &subject, said, delayed, classifier)).collect()
}

fn from_found(
    found: crate::legacy::Found,
    subject: &str,
    said: &str,
    delayed: bool,
    classifier: &Classifier,
) -> RecipientReport {
    let phase = phase_in(&found.said).or_else(|| phase_in(said));
    let mut text = refusal_in(&found.said);
    // A paragraph of its own is about this recipient alone.
    if let Some((first, _)) = text.split_once("\n\n").filter(|(first, _)| first.trim().len() > 12) {
        text = first;
    }
    let mut refused = Refused::from_line(text);
    refused.phase = phase;
    refused.mx = found.recipient.rsplit_once('@').map(|(_, domain)| domain);
    let mut classification = classifier.classify_refusal(refused);
    // Then with all that stands around it, then all that the mail says.
    let all = about(said, "");
    for wider in [found.said.as_str(), all.as_str(), subject] {
        if classification.confidence >= 80 {
            break;
        }
        let again = classifier.classify_refusal(Refused { text: wider, ..refused });
        if again.confidence > classification.confidence {
            classification = again;
        }
    }
    let action = if delayed { Action::Delayed } else { Action::Failed };
    classification = after_data(classification, phase);
    settle(&mut classification, Some(action));
    RecipientReport {
        recipient: found.recipient.as_str().into(),
        original_recipient: None,
        action: Some(action),
        status: refused.status,
        code: refused.code,
        diagnostic: Some(text.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|text| !text.is_empty())
            .map(Into::into),
        classification,
    }
}
