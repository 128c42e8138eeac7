//! The open-relay matrix: whatever a stranger writes around a foreign address, mail goes to our domains only
//! (FAULTS G; RFC 5321 3.6.1, 3.6.2, 7.1, appendix C for source routes).
//!
//! Every sender form meets every recipient form, from an address outside of our networks. What is accepted is sent
//! through to the receiver, whose envelope is the judge: a local part that is looked into would show there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use postwright_testkit::skip;
use support::load::Client;
use support::mta::Mta;
use support::receiver::Receiver;
use support::{pause, wait_until};

const STRANGER: &str = "127.0.0.2";

/// L of the literature is local.test, V is victim.test, the server is 127.0.0.1.
const SENDERS: &[&str] =
    &["<>", "<u@victim.test>", "<u@local.test>", "<u@localhost>", "<u@[127.0.0.1]>", "<u>", "<u@mta.test>"];

/// Forms that name a foreign mailbox, or none at all: refused.
const FOREIGN: &[&str] = &[
    "<u@victim.test>",
    "u@victim.test",
    "<u%victim.test@[127.0.0.1]>",
    "<\"u@victim.test\">",
    "<\"u%victim.test\">",
    "<u@victim.test@[127.0.0.1]>",
    "<\"u@victim.test\"@[127.0.0.1]>",
    "<u@victim.test@local.test>",
    "<@[127.0.0.1]:u@victim.test>",
    "<@local.test:u@victim.test>",
    "<@local.test,@victim.test:u@victim.test>",
    "<victim.test!u>",
    "<victim.test!u@[127.0.0.1]>",
    "<u@victim.test.>",
    "<u@[192.0.2.1]>",
    "<u@[IPv6:2001:db8::1]>",
    "<u@[IPv6:::ffff:127.0.0.1]>",
    "<u@local.test%victim.test>",
    "<u@local.test.victim.test>",
    "<u@sub.local.test>",
    "<u@local.test@victim.test>",
    "<u@local.tes\u{442}>",
    "<u@xn--local-q1a.test>",
    "<u@victim.test> ORCPT=rfc822;u@local.test",
    "<u@victim.test> <u@local.test>",
    "<u@local.test> <u@victim.test>",
    "<u@local.test,u@victim.test>",
    "<u@local.test\0@victim.test>",
    "<u@localhost>",
    "<u@mta.test>",
    "<u@[local.test]>",
    "<u@>",
    "<@victim.test>",
    "<>",
];

/// Odd, and yet mailboxes of local.test: the local part is nobody's business but the host's.
const LOCAL: &[&str] = &[
    "<u@local.test>",
    "<u@LOCAL.Test>",
    "<u%victim.test@local.test>",
    "<\"u@victim.test\"@local.test>",
    "<\"u%victim.test\"@local.test>",
    "<victim.test!u@local.test>",
    "<@victim.test:u@local.test>",
    "<u@local.test>  ",
];

fn start(dir: &std::path::Path, receiver: SocketAddr) -> Mta {
    let config = format!(
        "hostname = \"mta.test\"\n[spool]\npath = {:?}\n[[listen]]\naddress = \"127.0.0.1:0\"\nrole = \"mx\"\n\
         [relay]\nfrom = [\"127.0.0.1/32\"]\ndomains = [\"local.test\"]\n[delivery]\nsmart_host = \"{receiver}\"\n\
         [authentication]\ncheck = false\n",
        dir.join("spool"),
    );
    std::fs::write(dir.join("config"), config).unwrap();
    Mta::with_config(&dir.join("config"))
}

/// One probe on a connection of its own, so that no probe eats another's patience: the reply to RCPT.
fn probe(client: &mut Client, from: &str, to: &str) -> (u16, String) {
    client.expect(2).unwrap();
    client.command("EHLO local.test", 2).unwrap();
    client.write(format!("MAIL FROM:{from}\r\n").as_bytes()).unwrap();
    // A sender that is refused leaves no transaction, and RCPT is refused for that.
    client.reply().unwrap();
    client.write(format!("RCPT TO:{to}\r\n").as_bytes()).unwrap();
    client.reply().unwrap()
}

#[test]
fn whatever_a_stranger_writes_mail_goes_to_our_domains_only() {
    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let mta = start(dir.path(), receiver.address);
    let connect = || Client::from_source(STRANGER, mta.address);
    if connect().is_none() {
        skip!("open-relay", "only one loopback address");
    }
    let (mut probes, mut taken) = (0, 0);
    for from in SENDERS {
        for to in FOREIGN {
            let mut client = connect().unwrap();
            let (code, text) = probe(&mut client, from, to);
            assert!((500..=599).contains(&code), "from {from} to {to}: {text}");
            // And there is nothing to send.
            let left = client.write(b"DATA\r\n").and_then(|()| client.reply());
            assert!(left.as_ref().map_or(true, |(code, _)| *code >= 500), "from {from} to {to}: {left:?}");
            probes += 1;
        }
        for to in LOCAL {
            let mut client = connect().unwrap();
            let (code, text) = probe(&mut client, from, to);
            probes += 1;
            if code == 250 {
                client.command("DATA", 3).unwrap();
                client.write(b"Subject: probe\r\n\r\nx\r\n.\r\n").unwrap();
                client.expect(2).unwrap();
                taken += 1;
            } else {
                assert!((500..=599).contains(&code), "from {from} to {to}: {text}");
            }
        }
    }
    assert!(probes >= 250, "{probes} probes");
    assert!(taken >= LOCAL.len(), "the plain forms at least are mail for us, or this test proves nothing");
    wait_until("what was taken has arrived", Duration::from_secs(30), || receiver.count() >= taken);
    pause(Duration::from_millis(100));
    assert_eq!(receiver.count(), taken);
    for mail in receiver.mails() {
        assert_eq!(mail.to.len(), 1, "{:?}", mail.to);
        let (local, domain) = mail.to[0].rsplit_once('@').unwrap();
        assert!(domain.eq_ignore_ascii_case("local.test"), "{:?}", mail.to);
        // To the letter, quotes included.
        let kept = ["u", "u%victim.test", "\"u@victim.test\"", "\"u%victim.test\"", "victim.test!u"];
        assert!(kept.contains(&local), "{:?}", mail.to);
    }
}

#[test]
fn nobody_becomes_trusted_by_what_he_says() {
    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let mta = start(dir.path(), receiver.address);
    for claim in [
        "XCLIENT ADDR=127.0.0.1 NAME=localhost",
        "XFORWARD ADDR=127.0.0.1 NAME=localhost",
        "PROXY TCP4 127.0.0.1 127.0.0.1 40000 25",
        "HELO localhost",
        "EHLO [127.0.0.1]",
        "AUTH PLAIN AHUAcA==",
        "STARTTLS",
        "VRFY u@victim.test",
    ] {
        let Some(mut client) = Client::from_source(STRANGER, mta.address) else {
            skip!("open-relay-claims", "only one loopback address")
        };
        client.expect(2).unwrap();
        client.command("EHLO stranger.test", 2).unwrap();
        client.write(format!("{claim}\r\n").as_bytes()).unwrap();
        let (code, text) = client.reply().unwrap();
        let harmless = claim.starts_with("HELO") || claim.starts_with("EHLO") || claim.starts_with("VRFY");
        assert!(harmless || code >= 500, "{claim}: {text}");
        // A connection that was closed for the claim relays nothing either.
        for line in ["MAIL FROM:<u@mta.test> AUTH=<>", "MAIL FROM:<u@mta.test>", "RCPT TO:<u@victim.test>"] {
            let answer = client.write(format!("{line}\r\n").as_bytes()).and_then(|()| client.reply());
            let Ok((code, text)) = answer else { break };
            assert!(code >= 500 || line.starts_with("MAIL"), "after {claim}, {line}: {text}");
        }
    }
    assert_eq!(receiver.count(), 0);
}

#[test]
fn the_quick_start_relays_for_the_named_network_and_knows_no_other() {
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let mta = Mta::start(spool.path(), receiver.address, &["--relay-from", "127.0.0.1/32"]);
    for to in FOREIGN.iter().chain(LOCAL) {
        let Some(mut client) = Client::from_source(STRANGER, mta.address) else {
            skip!("open-relay-quick-start", "only one loopback address")
        };
        let (code, text) = probe(&mut client, "<u@victim.test>", to);
        assert!((500..=599).contains(&code), "{to}: {text}");
    }
    // The same words from inside are mail.
    let body = b"Subject: inside\r\n\r\nx\r\n";
    Client::connect(mta.address).unwrap().send("u@local.test", &["u@victim.test"], body).unwrap();
    wait_until("mail from inside has arrived", Duration::from_secs(20), || receiver.count() == 1);
}
