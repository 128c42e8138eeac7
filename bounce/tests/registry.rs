//! Every enhanced status code of the IANA registry, alone and with its own wording, gives the verdict its definition asks for.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use postwright_bounce::classify::{BUILT_IN_RULES, Category, Classifier, Permanence, parse_rules};

/// Code without class, the registry's sample text, whether the address is dead (RFC 3463, 7505, 7293).
const REGISTRY: &[(&str, &str, bool)] = &[
    ("0.0", "Other undefined Status", false),
    ("1.0", "Other address status", false),
    ("1.1", "Bad destination mailbox address", true),
    ("1.2", "Bad destination system address", true),
    ("1.3", "Bad destination mailbox address syntax", true),
    ("1.6", "Destination mailbox has moved, No forwarding address", true),
    ("1.7", "Bad sender's mailbox address syntax", false),
    ("1.8", "Bad sender's system address", false),
    ("1.10", "Recipient address has null MX", true),
    ("2.0", "Other or undefined mailbox status", false),
    ("2.1", "Mailbox disabled, not accepting messages", false),
    ("2.2", "Mailbox full", false),
    ("2.3", "Message length exceeds administrative limit", false),
    ("2.4", "Mailing list expansion problem", false),
    ("3.0", "Other or undefined mail system status", false),
    ("3.1", "Mail system full", false),
    ("3.2", "System not accepting network messages", false),
    ("3.3", "System not capable of selected features", false),
    ("3.4", "Message too big for system", false),
    ("3.5", "System incorrectly configured", false),
    ("4.0", "Other or undefined network or routing status", false),
    ("4.1", "No answer from host", false),
    ("4.2", "Bad connection", false),
    ("4.3", "Directory server failure", false),
    ("4.4", "Unable to route", false),
    ("4.5", "Mail system congestion", false),
    ("4.6", "Routing loop detected", false),
    ("4.7", "Delivery time expired", false),
    ("5.0", "Other or undefined protocol status", false),
    ("5.1", "Invalid command", false),
    ("5.2", "Syntax error", false),
    ("5.3", "Too many recipients", false),
    ("5.4", "Invalid command arguments", false),
    ("5.5", "Wrong protocol version", false),
    ("5.6", "Authentication Exchange line is too long", false),
    ("6.0", "Other or undefined media error", false),
    ("6.1", "Media not supported", false),
    ("6.2", "Conversion required and prohibited", false),
    ("6.3", "Conversion required but not supported", false),
    ("6.4", "Conversion with loss performed", false),
    ("6.5", "Conversion Failed", false),
    ("6.6", "Message content not available", false),
    ("6.7", "Non-ASCII addresses not permitted for that sender/recipient", false),
    ("6.8", "UTF-8 string reply is required, but not permitted by the SMTP client", false),
    (
        "6.9",
        "UTF-8 header message cannot be transferred to one or more recipients, so the message must be rejected",
        false,
    ),
    ("7.0", "Other or undefined security status", false),
    ("7.1", "Delivery not authorized, message refused", false),
    ("7.2", "Mailing list expansion prohibited", false),
    ("7.3", "Security conversion required but not possible", false),
    ("7.4", "Security features not supported", false),
    ("7.5", "Cryptographic failure", false),
    ("7.6", "Cryptographic algorithm not supported", false),
    ("7.7", "Message integrity failure", false),
    ("7.8", "Authentication credentials invalid", false),
    ("7.9", "Authentication mechanism is too weak", false),
    ("7.10", "Encryption Needed", false),
    ("7.11", "Encryption required for requested authentication mechanism", false),
    ("7.12", "A password transition is needed", false),
    ("7.13", "User Account Disabled", false),
    ("7.14", "Trust relationship required", false),
    ("7.15", "Priority Level is too low", false),
    ("7.16", "Message is too big for the specified priority", false),
    ("7.17", "Mailbox owner has changed", true),
    ("7.18", "Domain owner has changed", true),
    ("7.19", "RRVS test cannot be completed", false),
    ("7.20", "No passing DKIM signature found", false),
    ("7.21", "No acceptable DKIM signature found", false),
    ("7.22", "No valid author-matched DKIM signature found", false),
    ("7.23", "SPF validation failed", false),
    ("7.24", "SPF validation error", false),
    ("7.25", "Reverse DNS validation failed", false),
    ("7.26", "Multiple authentication checks failed", false),
    ("7.27", "Sender address has null MX", false),
    ("7.28", "Mail flood detected", false),
    ("7.29", "ARC validation failure", false),
    ("7.30", "REQUIRETLS support required", false),
];

#[test]
fn every_registered_code_means_what_the_registry_says() {
    let classifier = Classifier::built_in();
    for (code, text, hard) in REGISTRY {
        for (line, with_text) in [(format!("550 5.{code}"), false), (format!("550 5.{code} {text}"), true)] {
            let verdict = classifier.classify_line(&line);
            // A flood and a loop of one message are about time: text may say transient, the code alone may not.
            assert!(with_text || verdict.permanence == Permanence::Permanent, "{line}: {verdict:?}");
            if *code != "1.0" {
                assert_eq!(verdict.hard, *hard, "{line}: {verdict:?}");
            }
        }
        let verdict = classifier.classify_line(&format!("450 4.{code}"));
        assert_eq!(verdict.permanence, Permanence::Transient, "4.{code}");
    }
}

#[test]
fn the_textbook_replies() {
    let classifier = Classifier::built_in();
    for (line, permanence, category) in [
        ("421 4.4.2 Connection dropped due to timeout", Permanence::Transient, Category::Network),
        ("421 4.3.2 Service shutting down", Permanence::Transient, Category::SystemError),
        ("450 4.2.0 Mailbox temporarily unavailable", Permanence::Transient, Category::SystemError),
        (
            "550 5.7.1 Delivery not authorized, message refused",
            Permanence::Permanent,
            Category::RecipientFilter,
        ),
        ("421 4.4.2", Permanence::Transient, Category::Network),
        ("421 4.3.2", Permanence::Transient, Category::SystemError),
        ("450 4.2.0", Permanence::Transient, Category::SystemError),
        ("550 5.7.1", Permanence::Permanent, Category::Policy),
    ] {
        let verdict = classifier.classify_line(line);
        assert_eq!(
            (verdict.permanence, verdict.category, verdict.hard),
            (permanence, category, false),
            "{line}"
        );
    }
}

/// Our reader knows a part of TOML; for the built-in file a whole TOML reader must agree.
#[test]
fn the_rules_are_toml() {
    let table: toml::Table = BUILT_IN_RULES.parse().unwrap();
    let theirs = table.get("rule").and_then(toml::Value::as_array).unwrap();
    let ours = parse_rules(BUILT_IN_RULES).unwrap();
    assert_eq!(ours.len(), theirs.len());
    for (one, other) in ours.iter().zip(theirs) {
        let text = |key: &str| other.get(key).and_then(toml::Value::as_str).unwrap_or("");
        let list = |key: &str| -> Vec<&str> {
            other
                .get(key)
                .and_then(toml::Value::as_array)
                .map_or(Vec::new(), |list| list.iter().filter_map(toml::Value::as_str).collect())
        };
        assert_eq!(
            (&*one.name, one.category.as_str(), &*one.source),
            (text("name"), text("category"), text("source"))
        );
        assert_eq!(one.any.iter().map(|it| &**it).collect::<Vec<_>>(), list("any"), "{}", one.name);
        assert_eq!(one.regex.iter().map(|it| &**it).collect::<Vec<_>>(), list("regex"), "{}", one.name);
        assert!(!one.source.is_empty(), "{} names no source", one.name);
    }
}
