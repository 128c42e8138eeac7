//! Command lines and DATA beside `smtp-proto` 0.2.5, in one run, with the answers compared first.
//!
//! `cargo run --release` in this folder prints nanoseconds for each and their ratio. Instructions, which do not depend
//! on the neighbours: `valgrind --tool=callgrind --toggle-collect='*measured_*' target/release/postwright-bench-smtp
//! data_ours`, and `data_peer`, `commands_ours`, `commands_peer`.
//!
//! Not here: whole sessions (they have no counterpart in the peer).

use std::hint::black_box;
use std::time::{Duration, Instant};

use postwright_smtp_proto::command::Command;
use postwright_smtp_proto::data::{DotDecoder, Piece};
use smtp_proto::Request;
use smtp_proto::request::receiver::DataReceiver;

const COMMANDS: [&str; 8] = [
    "EHLO mail.client.example",
    "MAIL FROM:<bounce+list=user@lists.client.example> SIZE=28113 BODY=8BITMIME",
    "RCPT TO:<some.user@example.org>",
    "RCPT TO:<other.user@example.org> NOTIFY=FAILURE,DELAY ORCPT=rfc822;other@example.org",
    "DATA",
    "RSET",
    "NOOP",
    "QUIT",
];

/// Calls that callgrind sees.
const CALLS: usize = 100;

/// Lines of 76 octets, as base64 has them, with a dot to remove in every 50th.
fn message(octets: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(octets + 100);
    let mut line = 0;
    while all.len() < octets {
        if line % 50 == 49 {
            all.extend_from_slice(b"..");
        }
        all.extend_from_slice(&[b'A' + (line % 26) as u8; 76]);
        all.extend_from_slice(b"\r\n");
        line += 1;
    }
    all.extend_from_slice(b".\r\n");
    all
}

/// Ours: pieces are lent; the receiver that wants them copies them, so here they are copied too.
#[inline(never)]
fn measured_data_ours(stream: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let (mut decoder, mut rest) = (DotDecoder::new(), stream);
    loop {
        match decoder.next(rest) {
            Piece::Text { text, consumed } => {
                out.extend_from_slice(text);
                rest = &rest[consumed..];
            }
            Piece::End { .. } => return,
            Piece::More | Piece::Bad => panic!("the message is whole and clean"),
        }
    }
}

#[inline(never)]
fn measured_data_peer(stream: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut receiver = DataReceiver::new();
    assert!(receiver.ingest(&mut stream.iter(), out), "the message is whole");
}

#[inline(never)]
fn measured_commands_ours(lines: &[Vec<u8>]) {
    for line in lines {
        black_box(Command::parse(&line[..line.len() - 2]).expect("a good command"));
    }
}

#[inline(never)]
fn measured_commands_peer(lines: &[Vec<u8>]) {
    for line in lines {
        black_box(Request::parse(&mut line.iter()).expect("a good command"));
    }
}

/// Nanoseconds a call: the best of several rounds, which the neighbours disturb least.
fn time(mut case: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..12 {
        let (start, mut calls) = (Instant::now(), 0u32);
        while start.elapsed() < Duration::from_millis(60) {
            case();
            calls += 1;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    best
}

fn report(name: &str, ours: f64, peer: f64) {
    println!("{name:<20} ours {ours:>10.1} ns   peer {peer:>10.1} ns   ratio {:.2}", peer / ours);
}

/// One case so many times and nothing else, for callgrind: instructions a call are its total by `CALLS`.
fn count(case: &str) {
    let stream = message(100 * 1024);
    let lines: Vec<Vec<u8>> = COMMANDS.iter().map(|line| format!("{line}\r\n").into_bytes()).collect();
    let mut out = Vec::with_capacity(stream.len());
    for _ in 0..CALLS {
        match case {
            "data_ours" => measured_data_ours(black_box(&stream), &mut out),
            "data_peer" => measured_data_peer(black_box(&stream), &mut out),
            "commands_ours" => measured_commands_ours(black_box(&lines)),
            "commands_peer" => measured_commands_peer(black_box(&lines)),
            other => panic!("no case {other}"),
        }
    }
}

fn main() {
    if let Some(case) = std::env::args().nth(1) {
        return count(&case);
    }
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for octets in [1024, 100 * 1024] {
        let stream = message(octets);
        measured_data_ours(&stream, &mut ours);
        measured_data_peer(&stream, &mut peer);
        // The peer leaves the CRLF before the final dot out of its text or not, by version: the rest must agree.
        assert_eq!(
            ours.strip_suffix(b"\r\n"),
            Some(peer.strip_suffix(b"\r\n").unwrap_or(&peer)),
            "same text"
        );
        let ns = time(|| measured_data_ours(black_box(&stream), &mut ours));
        report(&format!("DATA {octets}"), ns, time(|| measured_data_peer(black_box(&stream), &mut peer)));
    }
    let lines: Vec<Vec<u8>> = COMMANDS.iter().map(|line| format!("{line}\r\n").into_bytes()).collect();
    for line in &lines {
        let ours = Command::parse(&line[..line.len() - 2]).expect("ours parses");
        let peer = Request::parse(&mut line.iter()).expect("the peer parses");
        if let (Command::Mail { path, parameters }, Request::Mail { from }) = (ours, peer) {
            assert_eq!(path.to_string(), format!("<{}>", from.address));
            assert_eq!(parameters.size, Some(from.size as u64));
        }
    }
    let ns = time(|| measured_commands_ours(black_box(&lines)));
    report("eight commands", ns, time(|| measured_commands_peer(black_box(&lines))));
}
