//! Notifications of Amazon SES as its SNS service mails them: JSON in a text part.
//!
//! Invariant: a scan, not a JSON parser: it reads the few members that are documented, wherever they stand, and nothing else.
//!
//! Standards: none; the vendor's "Amazon SNS notification contents for Amazon SES". Not here: JSON in general.

use crate::Limits;
use crate::arf::Feedback;
use crate::classify::{Because, Category, Classifier, Refused, verdict};
use crate::dsn::Action;
use crate::report::{Kind, RecipientReport, plain};

/// What a notification tells.
pub(crate) struct Told {
    pub(crate) kind: Kind,
    pub(crate) feedback: Option<Feedback>,
    pub(crate) reports: Vec<RecipientReport>,
}

/// Finds a notification in a text.
pub(crate) fn find(text: &str, classifier: &Classifier, limits: &Limits) -> Option<Told> {
    if !text.contains("otificationType") {
        return None;
    }
    // The mail's own line breaks fall anywhere; quotes within the outer JSON are escaped.
    let text: String = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    let text = text.replace('\\', "");
    match member(&text, "notificationType")? {
        "Bounce" => {
            let list = text.split_once("\"bouncedRecipients\":")?.1;
            let list = list.split(']').next().unwrap_or(list);
            let reports = list
                .split("\"emailAddress\"")
                .skip(1)
                .take(limits.reports)
                .filter_map(|piece| bounced(piece, classifier));
            Some(Told { kind: Kind::Bounce, feedback: None, reports: reports.collect() })
        }
        "Complaint" => {
            let list = text.split_once("\"complainedRecipients\":")?.1;
            let list = list.split(']').next().unwrap_or(list);
            let recipients = list
                .split("\"emailAddress\"")
                .skip(1)
                .take(limits.reports)
                .filter_map(first_string)
                .map(Box::from);
            let kind = member(&text, "complaintFeedbackType").unwrap_or("abuse").to_ascii_lowercase();
            let feedback = Feedback {
                feedback_type: kind.into(),
                recipients: recipients.collect(),
                incidents: 1,
                ..Feedback::default()
            };
            let verdict = verdict(Category::Complaint, None, Because::Nothing, 95);
            let reports =
                feedback.recipients.iter().map(|one| plain(one.to_string(), verdict.clone())).collect();
            Some(Told { kind: Kind::Arf, feedback: Some(feedback), reports })
        }
        "Delivery" => {
            let list =
                text.rsplit_once("\"recipients\":[").or_else(|| text.split_once("\"destination\":["))?.1;
            let list = list.split(']').next().unwrap_or(list);
            let verdict = verdict(Category::Delivered, None, Because::Nothing, 95);
            let reports =
                list.split('"').filter(|piece| piece.contains('@')).take(limits.reports).map(|address| {
                    let mut report = plain(address.to_owned(), verdict.clone());
                    report.action = Some(Action::Delivered);
                    report
                });
            Some(Told { kind: Kind::Dsn, feedback: None, reports: reports.collect() })
        }
        _ => None,
    }
}

fn bounced(piece: &str, classifier: &Classifier) -> Option<RecipientReport> {
    let address = first_string(piece)?;
    let diagnostic = member(piece, "diagnosticCode").unwrap_or("");
    let text = diagnostic.trim_start_matches("smtp;").trim();
    let mut refused = Refused::from_line(text);
    refused.status = refused.status.or(member(piece, "status").and_then(|status| status.parse().ok()));
    let mut report = plain(address.to_owned(), classifier.classify_refusal(refused));
    report.action = member(piece, "action").and_then(|action| action.parse().ok());
    report.status = refused.status;
    report.code = refused.code;
    report.diagnostic = Some(diagnostic).filter(|text| !text.is_empty()).map(Into::into);
    Some(report)
}

/// The string behind the first colon: `:"ann@example.org",...`.
fn first_string(piece: &str) -> Option<&str> {
    piece.split('"').nth(1).filter(|text| !text.is_empty())
}

/// The string of a member.
fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("\"{name}\""))?;
    rest.split('"').nth(1)
}
