//! A million chunks of one octet (RFC 3030) in bounded memory: what the session holds does not grow with their number.
//!
//! Alone in its file, since it counts every allocation of its thread.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use postwright_core::{Domain, Instant, Timestamp};
use postwright_smtp_proto::server::{Answer, Config, Peer, Question, Session, Step};

/// Chunks in one message, the last included.
const CHUNKS: usize = 1_000_000;
/// More than a session that reads 4 KiB at a time has any use for.
const MOST: u64 = 64 * 1024;

/// What came of a session, without keeping any of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    body: usize,
    sum: u64,
    replies: usize,
    size: u64,
    messages: usize,
}

/// Does what the session says until it wants input.
fn settle(session: &mut Session, seen: &mut Seen) {
    loop {
        match session.poll() {
            Step::Read { .. } => return,
            Step::Write { bytes, .. } => {
                seen.replies += bytes.iter().filter(|octet| **octet == b'\n').count();
                let len = bytes.len();
                session.handle_written(len, Instant::ZERO);
            }
            Step::Body(piece) => {
                seen.body += piece.len();
                seen.sum += piece.iter().map(|octet| u64::from(*octet)).sum::<u64>();
            }
            Step::Ask(id) => {
                if let Some((_, Question::Message { size, .. })) = session.question() {
                    seen.size = size;
                    seen.messages += 1;
                }
                session.answer(id, Answer::accepted());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_million_chunks_of_one_octet_hold_no_more_than_a_few() {
    let config = Config::new("mx.example.org".parse::<Domain>().unwrap());
    let peer = Peer::new(([192, 0, 2, 1], 4000).into(), ([192, 0, 2, 2], 25).into(), Timestamp::from_secs(0));
    let mut seen = Seen::default();
    let info = allocation_counter::measure(|| {
        let mut session = Session::new(config.into(), peer, Instant::ZERO);
        settle(&mut session, &mut seen);
        for command in ["EHLO client.example\r\n", "MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\n"] {
            session.handle_input(command.as_bytes(), Instant::ZERO);
            settle(&mut session, &mut seen);
        }
        let before = seen.replies;
        // Nine octets a chunk, and reads of 4,096 octets that cut them at every place.
        let stream = b"BDAT 1\r\nx".repeat(4096 / 9 + 2);
        let all = (CHUNKS - 1) * 9;
        for from in (0..all).step_by(4096) {
            let len = (all - from).min(4096);
            session.handle_input(&stream[from % 9..][..len], Instant::ZERO);
            settle(&mut session, &mut seen);
        }
        session.handle_input(b"BDAT 1 LAST\r\nx", Instant::ZERO);
        settle(&mut session, &mut seen);
        seen.replies -= before;
    });
    let x = u64::from(b'x');
    let expected =
        Seen { body: CHUNKS, sum: x * CHUNKS as u64, replies: CHUNKS, size: CHUNKS as u64, messages: 1 };
    assert_eq!(seen, expected);
    eprintln!(
        "at most {} octets in {} pieces at a time, {} allocations in all",
        info.bytes_max, info.count_max, info.count_total
    );
    assert!(info.bytes_max < MOST, "{info:?}");
    assert!(info.count_total < 1000, "chunks allocate: {info:?}");
}
