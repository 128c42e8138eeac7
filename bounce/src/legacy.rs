//! Bounces that follow no standard: finding recipients and their refusals in prose.
//!
//! Heuristics, from precise to vague: what a line says that begins with an address; a line that names the recipient of a
//! failure; any address in a bounce. The first kind that finds anything decides.
//!
//! Invariant: one pass over the text a kind; bounded output. Nothing here looks for a product's or a file's name.
//!
//! Standards: none. Not here: RFC 3464 (`dsn`), what a refusal means (`classify`).

use postwright_core::Phase;

use crate::Limits;
use crate::dsn::clean_address;

/// A recipient and what is said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) recipient: String,
    pub(crate) said: String,
}

/// Most lines of text that belong to one recipient.
const SAID_LINES: usize = 14;

/// The part of a bounce's text that its author wrote, and the part that was returned.
pub(crate) fn split_returned(text: &str) -> (&str, &str) {
    let mut at = 0;
    let mut seen_words = false;
    for line in text.split_inclusive('\n') {
        if seen_words && begins_returned(line) {
            return text.split_at(at);
        }
        seen_words |= line.len() > 12;
        at += line.len();
    }
    (text, "")
}

fn begins_returned(line: &str) -> bool {
    let core = line.trim_matches(|c: char| !c.is_alphanumeric()).to_ascii_lowercase();
    const WHOLE: &[&str] = &[
        "original message",
        "original message follows",
        "original message headers",
        "original message header",
        "original message attached",
        "message headers follow",
        "message header follows",
        "message header",
        "returned message",
        "returned message follows",
        "unsent message follows",
        "unsent message is below",
        "original mail",
        "original headers follow",
        "message contents follow",
        "original mail header",
        "start of forwarded message",
        "original text",
        "transcript of message follows",
        "your original message",
        "message follows",
        "original message text",
        "message text",
        "header of the original message",
        "returned mail",
    ];
    const BEGIN: &[&str] = &[
        "below this line is a copy of the message",
        "this is a copy of the message",
        "this is a copy of your message",
        "here is your returned message",
        "here is a copy of your message",
        "the original message is included below",
        "your original message follows",
        "the message that was not delivered follows",
        "the headers of the original message",
        "the header of the original message",
        "the following is a copy of",
        "message text follows",
        "original message follows",
        "unsent message below",
        "the first lines of the original",
        "copy of your message",
        "the body of the message is",
        "the text you sent follows",
        "content of the original message",
        "the original message headers",
        "original message headers",
        "here is the original message",
        "here is the header of your mail",
    ];
    WHOLE.contains(&core.as_str())
        || BEGIN.iter().any(|begin| core.starts_with(begin))
        || (line.starts_with("Received:") && line.contains(" by ") | line.contains("from "))
        || line.starts_with("Return-Path: ")
}

/// Recipients in the author's part of a bounce. `known` are the bounce's own addresses: they count only when nothing else does.
pub(crate) fn find(text: &str, known: &[String], limits: &Limits) -> Vec<Found> {
    let lines: Vec<&str> = text.lines().collect();
    for (kind, precise) in [(begins_with_address as Kind, true), (labelled, true), (anywhere, false)] {
        let all = collect(&lines, kind, limits);
        let fresh: Vec<Found> =
            all.iter().filter(|found| !is_own(&found.recipient, known)).cloned().collect();
        if !fresh.is_empty() {
            return fresh;
        }
        // A bounce to oneself: the only address is the sender's own, and it stands where recipients do.
        if !all.is_empty() && precise {
            return all;
        }
    }
    Vec::new()
}

fn is_own(address: &str, known: &[String]) -> bool {
    let local = address.split('@').next().unwrap_or("").to_ascii_lowercase();
    matches!(
        local.as_str(),
        "postmaster" | "mailer-daemon" | "mailerdaemon" | "abuse" | "hostmaster" | "mailadmin"
    ) || known.iter().any(|own| own.eq_ignore_ascii_case(address))
}

type Kind = fn(&str) -> Option<String>;

fn collect(lines: &[&str], kind: Kind, limits: &Limits) -> Vec<Found> {
    let starts: Vec<(usize, String)> = lines
        .iter()
        .enumerate()
        .filter_map(|(i, line)| Some((i, kind(line)?)))
        .take(limits.reports)
        .collect();
    let mut found: Vec<Found> = Vec::new();
    for (n, (at, address)) in starts.iter().enumerate() {
        let next = starts.get(n + 1).map_or(lines.len(), |(at, _)| *at).min(at + SAID_LINES);
        let said = lines.get(*at..next).unwrap_or_default().join("\n");
        // The first place says where, a later one may say more.
        match found.iter_mut().find(|found| found.recipient.eq_ignore_ascii_case(address)) {
            Some(old) if old.said.len() < limits.refusal => {
                old.said.push('\n');
                old.said.push_str(&said);
            }
            Some(_) => {}
            None => found.push(Found { recipient: address.clone(), said }),
        }
    }
    found
}

/// `<ann@example.org>: text`, `ann@example.org` alone, `550 <ann@example.org>... text`, `* ann@example.org`.
pub(crate) fn begins_with_address(line: &str) -> Option<String> {
    let line = line.trim_start_matches(|c: char| {
        c.is_whitespace() || matches!(c, '*' | '-' | '>' | '|' | '"' | '\'' | '(' | '[' | '\u{2022}')
    });
    let line = line.strip_prefix("expanded from: ").unwrap_or(line);
    let line = line.strip_prefix("mailto:").or_else(|| line.strip_prefix("SMTP:")).unwrap_or(line);
    let line = if let [b'4' | b'5', b'0'..=b'5', b'0'..=b'9', b' ', ..] = line.as_bytes() {
        line.get(4..)?.trim_start()
    } else {
        line
    };
    // X.400: `c=US;a= ;p=X;dda:SMTP=ann@example.org; on Fri`.
    if line.starts_with("c=") {
        return line.split_once("SMTP=").and_then(|(_, rest)| address(rest.split(';').next()?));
    }
    let word_end = line.find(|c: char| c.is_whitespace() || c == '>' || c == ',').unwrap_or(line.len());
    let word = line.get(..word_end)?;
    // `Message-ID:<...>` and other fields are no addresses.
    if !word.contains('@') || word.split('@').next().is_some_and(|local| local.contains(":<")) {
        return None;
    }
    let rest = line.get(word_end..)?.trim_start_matches('>').trim_start();
    let closes = line.starts_with('<')
        || word.ends_with(':')
        || word.contains("...")
        || rest.is_empty()
        || rest.starts_with([':', '(', '-', ';', ',', '.', '<', '#', '[']);
    let says = closes
        || rest.starts_with("on ")
        || rest.starts_with("was ")
        || rest.starts_with("is ")
        || rest.starts_with("could ")
        || (rest.len() < 500 && refusal_in(rest).len() < rest.len());
    if says { address(word) } else { None }
}

/// `To: ann@example.org`, `Recipient: ...`, `RCPT TO:<...>` and the like, and a sentence about one.
fn labelled(line: &str) -> Option<String> {
    const LABELS: &[&str] = &[
        "to:",
        "recipient:",
        "quota violation for",
        "failed for",
        "recipients:",
        "rcpt to:",
        "user:",
        "address:",
        "failed address",
        "failed recipient",
        "invalid address",
        "unknown address",
        "original-recipient:",
        "final-recipient:",
        "mailbox:",
        "recipient address:",
        "addressee:",
        "delivered to",
        "e-mail address:",
        "email address:",
        "to=<",
        "to <",
        "recipient <",
        "user <",
        "sent to:",
        "for <",
        "addressed to",
        "delivery to",
        "recipient's address",
        "not delivered to",
        "deliver to",
        "for user",
        "deliver the message to",
        "message to",
        "mail to",
        "destination:",
        "宛先",
        "recipient name:",
        "受取人",
    ];
    let lower = line.to_ascii_lowercase();
    if lower.starts_with("from:") || lower.starts_with("reply-to:") || lower.starts_with("message-id:") {
        return None;
    }
    LABELS.iter().find_map(|label| {
        let at = lower.find(label)? + label.len();
        // The label ends where its word does.
        let rest = line.get(at..)?;
        if label.ends_with(|c: char| c.is_alphanumeric()) && rest.starts_with(|c: char| c.is_alphanumeric()) {
            return None;
        }
        rest.split(SEPARATORS).filter(|word| !word.is_empty()).take(3).find_map(address)
    })
}

const SEPARATORS: &[char] = &[' ', '\t', '<', '>', ',', ';', '(', ')', '"', '=', '[', ']'];

/// Any address that stands in a line by itself.
fn anywhere(line: &str) -> Option<String> {
    let lower = line.to_ascii_lowercase();
    if ["from:", "reply-to:", "message-id:", "contact", "http", "questions", "help", "mail from"]
        .iter()
        .any(|word| lower.contains(word))
    {
        return None;
    }
    line.split(SEPARATORS).find_map(address)
}

/// Names without a domain, each alone in an indented line behind a line that ends in a colon: local parts of the reporter's
/// own domain.
pub(crate) fn bare_names(text: &str, domain: &str, limits: &Limits) -> Vec<Found> {
    let mut listed = false;
    let mut found = Vec::new();
    for line in text.lines() {
        let name = line.trim();
        let is_name = line.starts_with([' ', '\t'])
            && (1..=64).contains(&name.len())
            && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"._-+".contains(&octet));
        if listed && is_name && found.len() < limits.reports {
            found.push(Found { recipient: format!("{name}@{domain}"), said: text.to_owned() });
        } else if !name.is_empty() {
            listed = name.ends_with(':') && name.to_ascii_lowercase().contains("recipient");
            if !found.is_empty() {
                break;
            }
            // The label may stand a line earlier: `... recipients could not be delivered because ...:`.
        }
    }
    found
}

/// A word that is an address, less what clings to it.
fn address(word: &str) -> Option<String> {
    let word = word.split("...").next()?;
    let word = word
        .strip_prefix("mailto:")
        .or_else(|| word.strip_prefix("rfc822;"))
        .or_else(|| word.strip_prefix("SMTP:"))
        .unwrap_or(word);
    let word = word.trim_matches(|c: char| {
        matches!(c, '<' | '>' | ',' | ';' | ':' | '(' | ')' | '"' | '\'' | '.' | '!' | '[' | ']' | '*')
    });
    let word = clean_address(word.trim_end_matches(">:"));
    let word = word.split('>').next()?;
    let (local, domain) = word.rsplit_once('@')?;
    let fine = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let host = |c: char| c.is_alphanumeric() || c == '-' || c == '.';
    let is = !local.is_empty()
        && local.len() <= 200
        && local.chars().all(|c| fine(c) || c == '"' || c == '@')
        && domain.contains('.')
        && domain.len() <= 255
        && domain.chars().all(host)
        && !domain.starts_with('.')
        && !domain.contains("..")
        && !local.contains("//");
    is.then(|| word.trim_end_matches('.').to_owned())
}

/// The piece of text that looks most like a reply: from the first reply code or status on.
pub(crate) fn refusal_in(said: &str) -> &str {
    let mut at = 0;
    for word in said.split_inclusive(|c: char| c.is_ascii_whitespace()) {
        let core = word.trim_matches(|c: char| {
            c.is_whitespace() || matches!(c, '(' | '[' | '<' | '"' | '\'' | ':' | '#')
        });
        let bytes = core.as_bytes();
        let coded = matches!(
            bytes,
            [b'4' | b'5', b'0'..=b'5', b'0'..=b'9'] | [b'4' | b'5', b'0'..=b'5', b'0'..=b'9', b'-', ..]
        );
        let status = core
            .trim_matches([')', ']', ',', ';'])
            .parse::<postwright_core::EnhancedStatus>()
            .is_ok_and(|status| status.class() > 2);
        if coded || status {
            let lead = word.find(core).unwrap_or(0);
            return said.get(at + lead..).unwrap_or(said);
        }
        at += word.len();
    }
    said
}

/// The phase in which a transcript says it happened.
pub(crate) fn phase_in(text: &str) -> Option<Phase> {
    let lower = text.to_ascii_lowercase();
    let words = lower.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((_, behind)) = words.split_once("in reply to ") {
        return [
            ("end of data", Phase::EndOfData),
            ("rcpt", Phase::Rcpt),
            ("mail from", Phase::Mail),
            ("data", Phase::Data),
        ]
        .into_iter()
        .find_map(|(word, phase)| behind.starts_with(word).then_some(phase));
    }
    for (word, phase) in [
        ("after end of data", Phase::EndOfData),
        ("after rcpt to", Phase::Rcpt),
        ("after mail from", Phase::Mail),
        ("does not like recipient", Phase::Rcpt),
        ("failed after i sent the message", Phase::EndOfData),
        ("but sender was rejected", Phase::Mail),
        ("[rcpt_to]", Phase::Rcpt),
        ("[mail_from]", Phase::Mail),
        ("[data]", Phase::EndOfData),
        ("[end_of_data]", Phase::EndOfData),
        ("said 550 for rcpt to response", Phase::Rcpt),
        ("(state 14)", Phase::Rcpt),
        ("(state 17)", Phase::EndOfData),
        ("(state 18)", Phase::EndOfData),
        ("rcpt to command failed", Phase::Rcpt),
    ] {
        if words.contains(word) {
            return Some(phase);
        }
    }
    // The last command before the first refusal, in a transcript of `>>>` and `<<<`.
    let mut phase = None;
    for line in lower.lines().map(str::trim_start) {
        if let Some(command) = line.strip_prefix(">>> ") {
            phase = match command.get(..4) {
                Some("rcpt") => Some(Phase::Rcpt),
                Some("mail") => Some(Phase::Mail),
                Some("data") => Some(Phase::EndOfData),
                _ => phase,
            };
        } else if line.starts_with("<<< 5") || line.starts_with("<<< 4") {
            return phase;
        }
    }
    None
}

/// Whether a text says that tries go on.
pub(crate) fn says_delayed(text: &str) -> bool {
    const PHRASES: &[&str] = &[
        "this is a warning message only",
        "warning message only",
        "you do not need to resend",
        "do not need to resend",
        "will be retried",
        "has been delayed",
        "delivery delayed",
        "delayed mail",
        "message delayed",
        "delivery is delayed",
        "we will continue to try",
        "will continue to try",
        "will keep trying",
        "will try again",
        "still being retried",
        "temporarily unable",
        "delivery attempts will continue",
        "will be attempted again",
        "not yet been delivered",
        "has not yet been delivered",
        "remains in the queue",
        "still undelivered after",
        "could not be delivered for .. warning",
        "no action is required on your part",
        "transient failure",
        "delivery temporarily",
    ];
    let words = text.to_ascii_lowercase().split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    PHRASES.iter().any(|phrase| words.contains(phrase))
}
