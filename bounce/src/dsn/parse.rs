//! Reading the machine-readable part of a notification.
//!
//! Invariant: tolerant; a block without a recipient is passed over, a field that is not understood is ignored.
//!
//! Standards: RFC 3464 2; RFC 6533 3 and 4.
//!
//! Not here: finding the part in a mail (`report`), what the status means (`classify`).

use postwright_core::EnhancedStatus;

use super::Action;
use crate::Limits;
use crate::mail::Fields;

/// The fields of a notification about the whole message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notification {
    /// Who reports.
    pub reporting_mta: Option<Box<str>>,
    /// The sender's own id of the message (ENVID).
    pub envelope_id: Option<Box<str>>,
    /// The recipients, in order.
    pub recipients: Vec<RecipientStatus>,
}

/// The fields about one recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecipientStatus {
    /// The address that was tried last.
    pub recipient: Box<str>,
    /// The address that the sender gave.
    pub original: Option<Box<str>>,
    /// What was done.
    pub action: Option<Action>,
    /// The status.
    pub status: Option<EnhancedStatus>,
    /// What the reporter wrote in words behind the status, as a comment.
    pub comment: Option<Box<str>>,
    /// The type of the diagnostic, such as `smtp`, in lower case.
    pub diagnostic_type: Option<Box<str>>,
    /// The diagnostic.
    pub diagnostic: Option<Box<str>>,
    /// The host that gave it.
    pub remote_mta: Option<Box<str>>,
}

/// Reads a `message/delivery-status` or `message/global-delivery-status` body.
pub fn parse(text: &str, limits: &Limits) -> Notification {
    let mut notification = Notification::default();
    let mut rest = text.as_bytes();
    let mut blocks = 0;
    while !rest.is_empty() && notification.recipients.len() < limits.reports && blocks < limits.reports * 2 {
        let (fields, behind) = Fields::read(rest, limits);
        rest = behind;
        if fields.is_empty() {
            continue;
        }
        blocks += 1;
        if notification.reporting_mta.is_none() {
            notification.reporting_mta = fields.get("reporting-mta").map(|value| untyped(value).1.into());
        }
        if notification.envelope_id.is_none() {
            notification.envelope_id = fields.get("original-envelope-id").map(Into::into);
        }
        notification.recipients.extend(recipient(&fields));
    }
    notification
}

fn recipient(fields: &Fields) -> Option<RecipientStatus> {
    let address = |name: &str| {
        fields.get(name).map(|value| clean_address(&untyped(value).1)).filter(|address| !address.is_empty())
    };
    let original = address("original-recipient");
    let last = address("final-recipient");
    let actual = address("x-actual-recipient");
    // Some write only a user's name, or a route: the best of the three is the one that is an address.
    let is_address = |address: &&String| address.contains('@') && !address.starts_with('@');
    let recipient = [&last, &original, &actual]
        .into_iter()
        .flatten()
        .find(is_address)
        .or(last.as_ref())
        .or(original.as_ref())?
        .clone();
    let action = fields.get("action").and_then(|value| {
        let word: String = value.chars().take_while(char::is_ascii_alphabetic).collect();
        if word.eq_ignore_ascii_case("failure") || word.eq_ignore_ascii_case("fail") {
            return Some(Action::Failed);
        }
        word.parse().ok()
    });
    let status = fields.get("status").and_then(|value| {
        value.split(|c: char| !(c.is_ascii_digit() || c == '.')).find_map(|word| word.parse().ok())
    });
    let comment = fields.get("status").and_then(|value| {
        let words = value.split_once('(')?.1.trim_end().trim_end_matches(')').trim();
        (!words.is_empty()).then(|| words.into())
    });
    if action.is_none() && status.is_none() && last.is_none() {
        return None;
    }
    let diagnostic = fields.get("diagnostic-code").or_else(|| fields.get("x-diagnostic-code"));
    let diagnostic = diagnostic.map(untyped);
    Some(RecipientStatus {
        recipient: recipient.into(),
        original: original.map(Into::into),
        action,
        status,
        comment,
        diagnostic_type: diagnostic.as_ref().map(|(kind, _)| kind.to_ascii_lowercase().into()),
        diagnostic: diagnostic.map(|(_, text)| text).filter(|text| !text.is_empty()).map(Into::into),
        remote_mta: fields.get("remote-mta").map(|value| untyped(value).1.into()),
    })
}

/// `type; value`: the type is a word; without one all is value.
fn untyped(value: &str) -> (String, String) {
    match value.split_once(';') {
        Some((kind, rest))
            if !kind.trim().is_empty()
                && !kind.trim().contains(char::is_whitespace)
                && !kind.contains('@') =>
        {
            (kind.trim().to_owned(), rest.trim().to_owned())
        }
        _ => (String::new(), value.trim().to_owned()),
    }
}

/// An address without brackets, route, comment and `\x{...}` (RFC 6533 3).
pub(crate) fn clean_address(text: &str) -> String {
    let text = text.trim();
    let text = match text.split_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap_or(rest),
        None => text,
    };
    let text = text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | ',' | ';'));
    // `@a,@b:user@c` (RFC 5321 appendix C), and a comment behind the address.
    let text = match text.strip_prefix('@').and_then(|rest| rest.rsplit_once(':')) {
        Some((_, address)) => address,
        None => text,
    };
    let text = if text.starts_with('"') { text } else { text.split_ascii_whitespace().next().unwrap_or("") };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("\\x{") {
        let decoded = behind
            .split_once('}')
            .and_then(|(hex, tail)| Some((char::from_u32(u32::from_str_radix(hex, 16).ok()?)?, tail)))
            .filter(|(c, _)| !c.is_control());
        let Some((c, tail)) = decoded else { break };
        out.push_str(before);
        out.push(c);
        rest = tail;
    }
    out.push_str(rest);
    out
}
