//! End-of-data look-alikes through the whole driver, in clear and in real TLS: our 22 candidates and the 17 public ones.
//!
//! The machine alone meets them in `smtp-proto/tests/smuggling.rs`; here they go through sockets' worth of reads,
//! records and budgets. Each stands in mid-message, first in the message, and past the size limit; whole, octet by
//! octet, and cut at each octet of the candidate and around it.
//!
//! Standards: RFC 5321 2.3.8, 4.1.1.4.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use postwright_smtp_server::tls::{Tickets, server_config};
use postwright_smtp_server::{ServerConfig, serve_connection};
use postwright_testkit::PausedClock;
use postwright_testkit::end_of_data::{ATTACK, CANDIDATES, Place, SIZE_LIMIT};
use support::{Client, Mode, Room, Roots, certificates, peer, settings};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream};

const NAME: &str = "mx.example.org";
struct Bench {
    config: Arc<ServerConfig>,
    roots: Roots,
}

/// What came of one session: codes behind the 354, MAIL commands taken, messages.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    codes: Vec<u16>,
    transactions: usize,
    messages: Vec<Vec<u8>>,
}

impl Bench {
    fn new() -> Bench {
        let (certificates, roots) = certificates(NAME);
        let tls = server_config(&certificates, None, Tickets::Off).unwrap();
        let config =
            settings().with_starttls(tls).with_session(|session| session.limits.message_size = SIZE_LIMIT);
        Bench { config: Arc::new(config), roots }
    }

    /// One session that sends these pieces behind the 354, each a write of its own, and then ends.
    async fn run(&self, tls: bool, pieces: &[&[u8]]) -> Outcome {
        let room = Room::new(Mode::Accept);
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (config, acceptor, clock) = (self.config.clone(), room.clone(), PausedClock::start());
        let served =
            tokio::spawn(async move { serve_connection(theirs, peer(), &acceptor, config, clock).await });
        let mut client: Client<DuplexStream> = Client::over(ours);
        client.hello().await;
        let rest = if tls {
            client.starttls().await;
            let mut client = client.into_tls(&self.roots, NAME).await;
            assert_eq!(client.code("EHLO client.example").await, 250);
            data(client, pieces).await
        } else {
            data(client, pieces).await
        };
        served.await.unwrap();
        let codes = rest.split_terminator("\r\n").map(|line| line[..3].parse().unwrap()).collect();
        let messages = room.mails.lock().unwrap().iter().map(|(_, body)| body.clone()).collect();
        Outcome { codes, transactions: room.transactions.load(Ordering::Relaxed), messages }
    }
}

async fn data<IO: AsyncRead + AsyncWrite + Unpin>(mut client: Client<IO>, pieces: &[&[u8]]) -> String {
    client.envelope("b@example.org").await;
    assert_eq!(client.code("DATA").await, 354);
    for piece in pieces {
        client.write(piece).await;
        // One thread: the server has read the piece before the next one is written.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
    client.io.shutdown().await.unwrap();
    String::from_utf8(client.whatever_comes().await).unwrap()
}

/// Exactly one message or a refusal, and never a second transaction.
fn check(outcome: &Outcome, what: &dyn Fn() -> String) {
    assert_eq!(outcome.transactions, 1, "a second transaction: {outcome:?} {}", what());
    assert!(outcome.messages.len() <= 1, "{outcome:?} {}", what());
    let first = outcome.codes.first().copied();
    if outcome.messages.len() == 1 {
        assert_eq!(first, Some(250), "{outcome:?} {}", what());
        assert!(outcome.codes[1..].iter().all(|code| *code >= 500), "{outcome:?} {}", what());
    } else {
        // Without an end the session ended first, and there is no reply at all.
        assert!(outcome.codes.iter().all(|code| *code >= 500), "{outcome:?} {}", what());
    }
}

async fn run_all(bench: &Bench, candidate: &[u8], clear_and_tls: &[bool]) {
    for place in Place::ALL {
        let head = place.before();
        let stream = [&head, candidate, ATTACK].concat();
        for tls in clear_and_tls {
            let what = || format!("{candidate:?} {place:?} tls {tls}");
            let whole = bench.run(*tls, &[&stream]).await;
            check(&whole, &what);
            let drip: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(bench.run(*tls, &drip).await, whole, "octet by octet: {}", what());
            let cuts = head.len().saturating_sub(1).max(1)..=head.len() + candidate.len() + 1;
            for cut in cuts {
                let (one, two) = stream.split_at(cut);
                assert_eq!(bench.run(*tls, &[one, two]).await, whole, "cut at {cut}: {}", what());
            }
        }
    }
}

#[tokio::test]
async fn our_candidates_in_clear() {
    let bench = Bench::new();
    for (candidate, ends) in CANDIDATES {
        run_all(&bench, candidate, &[false]).await;
        let stream = [&Place::Middle.before(), *candidate, ATTACK].concat();
        let outcome = bench.run(false, &[&stream]).await;
        assert_eq!(outcome.messages.len(), usize::from(*ends), "{candidate:?}");
    }
}

#[tokio::test]
async fn our_candidates_in_tls() {
    let bench = Bench::new();
    for (candidate, _) in CANDIDATES {
        run_all(&bench, candidate, &[true]).await;
    }
}

#[tokio::test]
async fn an_end_of_the_stream_behind_the_dot_is_no_end_of_the_message() {
    let bench = Bench::new();
    for tls in [false, true] {
        for pieces in
            [&[&b"text\r\n."[..]][..], &[b"text\r\n", b"."], &[b"text\r", b"\n."], &[b"text\r\n.\r"]]
        {
            let outcome = bench.run(tls, pieces).await;
            assert_eq!(outcome, Outcome { codes: vec![], transactions: 1, messages: vec![] }, "{pieces:?}");
        }
    }
}

#[tokio::test]
async fn a_dot_alone_is_the_empty_message() {
    let bench = Bench::new();
    for tls in [false, true] {
        for pieces in [&[&b".\r\n"[..]][..], &[b".", b"\r\n"], &[b".\r", b"\n"]] {
            let outcome = bench.run(tls, pieces).await;
            let empty = Outcome { codes: vec![250], transactions: 1, messages: vec![vec![]] };
            assert_eq!(outcome, empty, "{pieces:?}");
        }
    }
}

#[tokio::test]
async fn the_public_vectors_in_clear_and_in_tls() {
    let Some(folder) = postwright_testkit::suites::dir("smtp/smuggling") else {
        postwright_testkit::skip!("smtp/smuggling", "the folder is not there")
    };
    let text = std::fs::read_to_string(folder.join("vectors.json")).unwrap();
    let bench = Bench::new();
    let mut found = 0;
    for part in text.split("\"bytes_hex\"").skip(1) {
        let hex = part.split('"').nth(1).unwrap();
        let octet = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        let candidate: Vec<u8> = (0..hex.len()).step_by(2).map(octet).collect();
        run_all(&bench, &candidate, &[false, true]).await;
        found += 1;
    }
    assert_eq!(found, 17);
    postwright_testkit::cases("smtp/smuggling-server", found, 0, "");
}
