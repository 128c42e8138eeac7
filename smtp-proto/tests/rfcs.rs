//! Sentences of the standards that no other file holds. Each test names the section whose words it checks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use postwright_core::Domain;
use postwright_smtp_proto::server::{Answer, Question};
use support::{Driver, config, no, open_house};

/// RFC 6531 3.5: a non-ASCII address without SMTPUTF8 is refused with 550 or 553 and X.6.7, wherever in the address
/// the letters are, and whether or not this build knows how to read U-labels.
#[test]
fn utf8_needs_smtputf8_in_local_parts_and_domains_and_routes() {
    let needs = "553 5.6.7 ";
    let reads_u_labels = "b\u{fc}cher.example".parse::<Domain>().is_ok();
    let with_extension = if reads_u_labels { "250 " } else { needs };
    for address in ["a@b\u{fc}cher.example", "@b\u{fc}cher.example:a@b.example", "\u{e9}@b\u{fc}cher.example"]
    {
        let mut driver = Driver::greeted(config(), open_house());
        let reply = driver.say(&format!("MAIL FROM:<{address}>"));
        assert!(reply.starts_with(needs), "{address}: {reply}");
        assert_eq!(driver.code("MAIL FROM:<>"), 250);
        let reply = driver.say(&format!("RCPT TO:<{address}>"));
        assert!(reply.starts_with(needs), "{address}: {reply}");
        // RFC 6533 3: the same for the original recipient.
        let reply = driver.say("RCPT TO:<a@b.example> ORCPT=utf-8;\u{e9}@b.example");
        assert!(reply.starts_with(needs), "{reply}");
        assert_eq!(driver.code("RCPT TO:<a@b.example> ORCPT=utf-8;\\x{E9}@b.example"), 250);

        let mut driver = Driver::greeted(config(), open_house());
        let reply = driver.say(&format!("MAIL FROM:<{address}> SMTPUTF8"));
        assert!(reply.starts_with(with_extension), "{address}: {reply}");
        driver.say("MAIL FROM:<> SMTPUTF8");
        let reply = driver.say(&format!("RCPT TO:<{address}>"));
        assert!(reply.starts_with(with_extension), "{address}: {reply}");
        assert_eq!(driver.code("RCPT TO:<a@b.example> ORCPT=utf-8;\u{e9}@b.example"), 250);
    }
    // An A-label is ASCII, and asks for nothing.
    let mut driver = Driver::greeted(config(), open_house());
    assert_eq!(driver.code("MAIL FROM:<a@xn--bcher-kva.example>"), 250);
    assert_eq!(driver.code("RCPT TO:<a@xn--bcher-kva.example>"), 250);
}

/// RFC 6531 3.1: a server that offers SMTPUTF8 "MUST" offer 8BITMIME too.
#[test]
fn no_smtputf8_without_8bitmime() {
    let mut settings = config();
    settings.eight_bit = false;
    let mut driver = Driver::new(settings, open_house());
    let offer = driver.say("EHLO x");
    assert!(!offer.contains("SMTPUTF8") && !offer.contains("8BITMIME"), "{offer}");
    assert_eq!(driver.code("MAIL FROM:<> SMTPUTF8"), 555);
}

/// RFC 3207 4: where TLS is a must, 530 answers "every command other than NOOP, EHLO, STARTTLS, or QUIT"; we add RSET,
/// which RFC 5321 4.1.1.5 wants answered by 250, and LHLO.
#[test]
fn before_tls_nothing_but_the_way_to_it() {
    let mut settings = config();
    (settings.require_tls, settings.starttls) = (true, true);
    settings.auth = vec!["SCRAM-SHA-256".into()];
    let mut driver = Driver::new(settings, open_house());
    for (line, code) in [
        ("NOOP", 250),
        ("HELO x", 530),
        ("EHLO x", 250),
        ("MAIL FROM:<>", 530),
        ("RCPT TO:<a@example.org>", 530),
        ("DATA", 530),
        ("VRFY a", 530),
        ("EXPN a", 530),
        ("HELP", 530),
        ("AUTH SCRAM-SHA-256", 530),
        ("XNOTHING", 530),
        ("RSET", 250),
    ] {
        let reply = driver.say(line);
        assert!(
            reply.trim_end().rsplit("\r\n").next().unwrap().starts_with(&code.to_string()),
            "{line}: {reply}"
        );
        assert!(code != 530 || reply.starts_with("530 5.7.0 "), "{line}: {reply}");
    }
    // The octets of a chunk are no commands.
    assert!(driver.say("BDAT 6 LAST\r\nQUIT\r\nNOOP").starts_with("530 5.7.0 "));
    assert_eq!(driver.record.closed, None);
    assert_eq!(driver.record.asked, ["connect", "hello"], "nobody was asked anything in clear");
    assert_eq!(driver.code("STARTTLS"), 220);
    driver.tls();
    assert_eq!(driver.code("HELO x"), 250);
    assert_eq!(driver.code("VRFY a"), 252);
}

/// RFC 4954 4 and 6: a line of an AUTH exchange may have 12,288 octets; a longer one fails with 500 5.5.6.
#[test]
fn lines_of_an_exchange_are_long_and_end_somewhere() {
    let mut settings = config();
    settings.auth = vec!["SCRAM-SHA-256".into()];
    let policy = || -> support::Policy {
        Box::new(|question: &Question<'_>| match question {
            Question::Auth { .. } => Answer::Challenge(Vec::new()),
            _ => Answer::accepted(),
        })
    };
    let longest = "A".repeat(12_284);
    let mut driver = Driver::greeted(settings.clone(), policy());
    // RFC 4954 4: an empty challenge is "334" and a blank.
    assert_eq!(driver.say("AUTH SCRAM-SHA-256"), "334 \r\n");
    assert_eq!(driver.say(&longest), "334 \r\n");
    let reply = driver.say(&format!("{longest}AAAA"));
    assert!(reply.starts_with("500 5.5.6 "), "{reply}");
    // The exchange is over, and the session is not.
    assert_eq!(driver.code("NOOP"), 250);
    let reply = driver.say(&format!("AUTH SCRAM-SHA-256 {longest}"));
    assert!(reply.starts_with("500 5.5.6 "), "{reply}");
    let reply = driver.say(&format!("NOOP {}", "x".repeat(2048)));
    assert!(reply.starts_with("500 5.5.2 "), "{reply}");
}

/// RFC 5321 4.1.4: after an EHLO that is not taken, the server "MUST stay in the same state".
#[test]
fn a_refused_ehlo_changes_nothing() {
    let policy: support::Policy = Box::new(|question: &Question<'_>| match question {
        Question::Hello { hello, .. } if hello.name.as_ref() == "bad" => no(550),
        _ => Answer::accepted(),
    });
    let mut driver = Driver::greeted(config(), policy);
    for (line, code) in [
        ("MAIL FROM:<>", 250),
        ("EHLO bad", 550),
        ("RCPT TO:<a@example.org>", 250),
        ("EHLO", 501),
        ("EHLO two words", 501),
        ("RCPT TO:<b@example.org>", 250),
        ("HELO bad", 550),
        ("DATA", 354),
        (".", 250),
    ] {
        assert_eq!(driver.code(line), code, "{line}");
    }
    assert_eq!(driver.record.messages[0].0.recipients.len(), 2);
}

/// RFC 5321 4.5.3.1: what everybody must take at the least.
#[test]
fn sizes_that_every_server_takes_are_taken() {
    let mut driver = Driver::greeted(config(), open_house());
    let local = "l".repeat(64);
    let domain = format!("{}.example", vec!["d".repeat(60); 3].join("."));
    // 4.5.3.1.3: a path has 256 octets with its brackets, so this is one octet below.
    let longest = format!("{}@{domain}", &local[..64 - (local.len() + domain.len() + 1).saturating_sub(254)]);
    assert_eq!(longest.len(), 254);
    assert_eq!(driver.code(&format!("MAIL FROM:<{longest}>")), 250);
    let line = format!("RCPT TO:<{local}@example.org>");
    assert_eq!(driver.code(&line), 250);
    // 4.5.3.1.9: "501 Path too long".
    assert_eq!(driver.code(&format!("RCPT TO:<{local}l@example.org>")), 501);
    assert_eq!(driver.code(&format!("RCPT TO:<a@{domain}.{}>", "d".repeat(63))), 501);
    // 4.5.3.1.8: a hundred recipients.
    for nth in 0..100 {
        assert_eq!(driver.code(&format!("RCPT TO:<r{nth}@example.org>")), 250);
    }
    // 4.5.3.1.4: a command line of 512 octets; 4.5.3.1.6: text lines of 1,000; 4.5.3.1.7: 64 KiB of message.
    assert_eq!(driver.code(&format!("NOOP {}", "x".repeat(505))), 250);
    assert_eq!(driver.code("DATA"), 354);
    let text = format!("{}\r\n", "x".repeat(998)).repeat(66);
    assert!(text.len() >= 64 << 10);
    driver.send(text.as_bytes());
    assert_eq!(driver.code("."), 250);
    assert_eq!(driver.record.messages[0].1.len(), text.len());
}

/// RFC 2920 3.1, RFC 5321 4.1.4: any number of commands in one group, answered one by one and in order.
#[test]
fn a_group_is_answered_in_order() {
    let group =
        b"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nRCPT TO:<>\r\nNOOP\r\nRSET\r\nDATA\r\nQUIT\r\n";
    for size in [1, 3, 10, group.len()] {
        let mut driver = Driver::greeted(config(), open_house());
        for piece in group.chunks(size) {
            driver.send(piece);
        }
        assert_eq!(driver.record.codes(), [250, 250, 250, 501, 250, 250, 503, 221], "pieces of {size}");
    }
}
