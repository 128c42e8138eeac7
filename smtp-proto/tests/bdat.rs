//! BDAT (RFC 3030): octets are consumed exactly, whatever becomes of the chunk.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use postwright_smtp_proto::server::{Answer, CloseReason, Question};
use support::{Driver, config, no, open_house};

fn open() -> Driver {
    let mut driver = Driver::greeted(config(), open_house());
    driver.send(b"MAIL FROM:<a@client.example> BODY=BINARYMIME\r\nRCPT TO:<b@example.org>\r\n");
    driver.record.output.clear();
    driver
}

fn bodies(driver: &Driver) -> Vec<&[u8]> {
    driver.record.messages.iter().map(|(_, body)| body.as_slice()).collect()
}

#[test]
fn chunks_for_every_cut() {
    // Chunk borders inside CRLF and inside a character; dots, NUL and bare CR are data.
    let stream = b"BDAT 4\r\nab\r\xc3BDAT 3\r\n\xa9\n.BDAT 2 LAST\r\n\0\rNOOP\r\n";
    for cut in 0..stream.len() {
        let mut driver = open();
        driver.send(&stream[..cut]).send(&stream[cut..]);
        assert_eq!(driver.record.codes(), [250, 250, 250, 250], "{cut}");
        assert_eq!(bodies(&driver), [b"ab\r\xc3\xa9\n.\0\r"], "{cut}");
    }
}

#[test]
fn empty_chunks() {
    let mut driver = open();
    driver.send(b"BDAT 0\r\nBDAT 3\r\nabcBDAT 0 LAST\r\n");
    assert_eq!(driver.record.codes(), [250, 250, 250]);
    assert_eq!(bodies(&driver), [b"abc"]);
    let mut driver = open();
    driver.send(b"BDAT 0 LAST\r\n");
    assert_eq!(bodies(&driver), [b""]);
}

#[test]
fn a_refused_chunk_is_consumed_and_leaves_no_transaction() {
    // No MAIL; no RCPT; too big; bad syntax with a size.
    let hidden = "QUIT\r\n";
    for (before, chunk, code) in [
        ("", format!("BDAT 6\r\n{hidden}"), 503),
        ("MAIL FROM:<>\r\n", format!("BDAT 6 LAST\r\n{hidden}"), 554),
        ("MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\n", format!("BDAT 6 FIRST\r\n{hidden}"), 501),
        ("MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\n", format!("BDAT 102\r\n{}", hidden.repeat(17)), 552),
    ] {
        let mut settings = config();
        settings.limits.message_size = 100;
        for cut in 1..chunk.len() {
            let mut driver = Driver::greeted(settings.clone(), open_house());
            driver.send(before.as_bytes());
            driver.record.output.clear();
            driver.send(&chunk.as_bytes()[..cut]).send(&chunk.as_bytes()[cut..]);
            assert_eq!(driver.record.codes(), [code], "{chunk:?}");
            assert_eq!(driver.code("NOOP"), 250);
            assert_eq!(driver.code("RCPT TO:<c@example.org>"), 503);
            assert_eq!(driver.code("DATA"), 503);
        }
    }
}

#[test]
fn the_limit_holds_across_chunks() {
    let mut settings = config();
    settings.limits.message_size = 100;
    let mut driver = Driver::greeted(settings, open_house());
    driver.send(b"MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\n");
    for (size, code) in [(60, 250), (40, 250), (1, 552), (1, 503)] {
        driver.send(format!("BDAT {size}\r\n{}", "x".repeat(size)).as_bytes());
        assert_eq!(driver.record.codes().last(), Some(&code), "{size}");
    }
    assert!(driver.record.messages.is_empty());
}

#[test]
fn sizes_that_cannot_be_trusted_end_the_session() {
    for size in ["-1", "1e30", "18446744073709551616", "99999999999999999999999", "", "x", "+1", "0x10"] {
        let mut driver = open();
        driver.send(format!("BDAT {size}\r\nNOOP\r\n").as_bytes());
        assert_eq!(driver.record.codes(), [501], "{size}");
        assert_eq!(driver.record.closed, Some(CloseReason::Oversize));
    }
    // Numbers, but far beyond what is worth reading to drop.
    for size in ["9223372036854775808", "18446744073709551615 LAST"] {
        let mut driver = open();
        driver.send(format!("BDAT {size}\r\nNOOP\r\n").as_bytes());
        assert_eq!(driver.record.codes(), [552], "{size}");
        assert_eq!(driver.record.closed, Some(CloseReason::Oversize));
    }
}

#[test]
fn data_and_bdat_do_not_mix() {
    let mut driver = open();
    assert_eq!(driver.code("DATA"), 503, "BINARYMIME needs BDAT");
    assert_eq!(driver.code("RCPT TO:<b@example.org>"), 503);
    let mut driver = Driver::greeted(config(), open_house());
    driver.send(b"MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nBDAT 1\r\nx");
    assert_eq!(driver.code("RCPT TO:<c@example.org>"), 503);
    assert_eq!(driver.code("DATA"), 503);
    assert_eq!(driver.code("MAIL FROM:<>"), 250, "the refused DATA left nothing");
    assert!(driver.record.messages.is_empty());
}

#[test]
fn after_last_there_is_no_more() {
    let mut driver = open();
    driver.send(b"BDAT 1 LAST\r\nxBDAT 1\r\ny");
    assert_eq!(driver.record.codes(), [250, 503]);
    assert_eq!(bodies(&driver), [b"x"]);
}

#[test]
fn rset_between_chunks_and_loss_within() {
    let mut driver = open();
    driver.send(b"BDAT 1\r\nxRSET\r\nBDAT 1 LAST\r\ny");
    assert_eq!(driver.record.codes(), [250, 250, 503]);
    assert!(driver.record.messages.is_empty());
    let mut driver = open();
    driver.send(b"BDAT 10 LAST\r\nhalf").eof();
    assert_eq!(driver.record.closed, Some(CloseReason::Eof));
    assert!(driver.record.messages.is_empty() && driver.record.output.is_empty());
}

#[test]
fn the_embedder_may_refuse_the_first_chunk_and_the_message() {
    for refuse_data in [true, false] {
        let policy = Box::new(move |question: &Question<'_>| match question {
            Question::Data { .. } if refuse_data => no(451),
            Question::Message { .. } => no(554),
            _ => Answer::accepted(),
        });
        let mut driver = Driver::greeted(config(), policy);
        driver.send(b"MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nBDAT 6\r\nQUIT\r\nBDAT 1 LAST\r\nxRCPT TO:<c@example.org>\r\n");
        let expected: &[u16] =
            if refuse_data { &[250, 250, 451, 503, 503] } else { &[250, 250, 250, 554, 503] };
        assert_eq!(driver.record.codes(), expected);
        assert!(driver.session.envelope().is_none());
    }
}

#[test]
fn a_hundred_thousand_small_chunks() {
    let mut driver = open();
    for _ in 0..100 {
        driver.send(&b"BDAT 1\r\nx".repeat(1000));
    }
    driver.send(b"BDAT 0 LAST\r\n");
    assert_eq!(driver.record.messages[0].1.len(), 100_000);
}

#[test]
fn chunking_that_is_not_offered_is_refused_and_consumed() {
    let mut settings = config();
    settings.chunking = false;
    let mut driver = Driver::greeted(settings, open_house());
    driver.send(b"MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nBDAT 6\r\nQUIT\r\nNOOP\r\n");
    assert_eq!(driver.record.codes(), [250, 250, 502, 250]);
}
