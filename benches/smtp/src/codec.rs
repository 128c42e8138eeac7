//! Lines and texts: commands, the reply to EHLO, DATA. What both sides read must be the same.

use postwright_core::Reply;
use postwright_smtp_proto::command::Command;
use postwright_smtp_proto::data::{DotDecoder, Piece};
use postwright_smtp_proto::ehlo::Capabilities;
use postwright_smtp_proto::reply::{ReplyLimits, ReplyParser};
use smtp_proto::request::receiver::DataReceiver;
use smtp_proto::{EhloResponse, Request};

use crate::{Case, keep, message, stuffed};

const PEER: &str = "smtp-proto 0.2.5";

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

const EHLO: &[u8] = b"250-mx.example.org greets you\r\n250-PIPELINING\r\n250-SIZE 36700160\r\n250-8BITMIME\r\n\
    250-CHUNKING\r\n250-SMTPUTF8\r\n250-DSN\r\n250-STARTTLS\r\n250-AUTH PLAIN SCRAM-SHA-256\r\n250 ENHANCEDSTATUSCODES\r\n";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        data("data_1k", 1 << 10, true),
        data("data_100k", 100 << 10, true),
        data("data_100k_lent", 100 << 10, false),
        commands(),
        ehlo(),
    ]
}

/// Copied out by both, or by the peer alone: our decoder lends the pieces, the peer's only copies.
fn data(name: &'static str, octets: usize, copied: bool) -> Case {
    let text = message(octets);
    let stream = stuffed(&text);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    data_ours(&stream, &mut ours);
    data_peer(&stream, &mut theirs);
    assert_eq!(ours, text);
    // The peer leaves the last CRLF out or in, by version.
    assert_eq!(theirs.strip_suffix(b"\r\n").unwrap_or(&theirs), text.strip_suffix(b"\r\n").unwrap_or(&text));
    let same = stream.clone();
    Case {
        name,
        peer: PEER,
        octets: stream.len(),
        ours: if copied {
            Box::new(move || data_ours(keep(&stream), &mut ours))
        } else {
            Box::new(move || data_lent(keep(&stream)))
        },
        theirs: Some(Box::new(move || data_peer(keep(&same), &mut theirs))),
    }
}

#[inline(never)]
fn data_ours(stream: &[u8], out: &mut Vec<u8>) {
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
fn data_lent(stream: &[u8]) {
    let (mut decoder, mut rest) = (DotDecoder::new(), stream);
    loop {
        match decoder.next(rest) {
            Piece::Text { text, consumed } => {
                keep(text);
                rest = &rest[consumed..];
            }
            Piece::End { .. } => return,
            Piece::More | Piece::Bad => panic!("the message is whole and clean"),
        }
    }
}

#[inline(never)]
fn data_peer(stream: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut receiver = DataReceiver::new();
    assert!(receiver.ingest(&mut stream.iter(), out), "the message is whole");
}

fn commands() -> Case {
    let lines: Vec<Vec<u8>> = COMMANDS.iter().map(|line| format!("{line}\r\n").into_bytes()).collect();
    for line in &lines {
        let ours = Command::parse(&line[..line.len() - 2]).expect("ours reads it");
        let theirs = Request::parse(&mut line.iter()).expect("the peer reads it");
        match (&ours, &theirs) {
            (Command::Mail { path, parameters, .. }, Request::Mail { from }) => {
                assert_eq!(path.to_string(), format!("<{}>", from.address));
                assert_eq!(parameters.size, Some(from.size as u64));
            }
            (Command::Rcpt { path, .. }, Request::Rcpt { to }) => {
                let postwright_smtp_proto::command::ForwardPath::Mailbox(mailbox) = path else {
                    panic!("{path:?}")
                };
                assert_eq!(mailbox.to_string(), to.address);
            }
            (Command::Ehlo(name), Request::Ehlo { host }) => assert_eq!(name, host),
            (Command::Data, Request::Data)
            | (Command::Rset, Request::Rset)
            | (Command::Noop, Request::Noop { .. })
            | (Command::Quit, Request::Quit) => {}
            _ => panic!("{ours:?} is not {theirs:?}"),
        }
    }
    let same = lines.clone();
    Case {
        name: "commands_8",
        peer: PEER,
        octets: lines.iter().map(Vec::len).sum(),
        ours: Box::new(move || commands_ours(keep(&lines))),
        theirs: Some(Box::new(move || commands_peer(keep(&same)))),
    }
}

#[inline(never)]
fn commands_ours(lines: &[Vec<u8>]) {
    for line in lines {
        keep(Command::parse(&line[..line.len() - 2]).expect("a good command"));
    }
}

#[inline(never)]
fn commands_peer(lines: &[Vec<u8>]) {
    for line in lines {
        keep(Request::parse(&mut line.iter()).expect("a good command"));
    }
}

fn ehlo() -> Case {
    let (ours, theirs) = (ehlo_ours(EHLO), ehlo_peer(EHLO));
    let has = |flag: u32| theirs.capabilities & flag != 0;
    assert_eq!(ours.size, Some(theirs.size as u64));
    for (ours, flag) in [
        (ours.pipelining, smtp_proto::EXT_PIPELINING),
        (ours.chunking, smtp_proto::EXT_CHUNKING),
        (ours.eight_bit_mime, smtp_proto::EXT_8BIT_MIME),
        (ours.smtp_utf8, smtp_proto::EXT_SMTP_UTF8),
        (ours.dsn, smtp_proto::EXT_DSN),
        (ours.starttls, smtp_proto::EXT_START_TLS),
    ] {
        assert!(ours && has(flag));
    }
    Case {
        name: "ehlo",
        peer: PEER,
        octets: EHLO.len(),
        ours: Box::new(|| drop(keep(ehlo_ours(keep(EHLO))))),
        theirs: Some(Box::new(|| drop(keep(ehlo_peer(keep(EHLO)))))),
    }
}

#[inline(never)]
fn ehlo_ours(text: &[u8]) -> Capabilities {
    let mut parser = ReplyParser::new(ReplyLimits::default());
    let reply: Option<Reply> = parser.feed(text).expect("a good reply").1;
    Capabilities::from_reply(&reply.expect("a whole reply"))
}

#[inline(never)]
fn ehlo_peer(text: &[u8]) -> EhloResponse<String> {
    EhloResponse::parse(&mut text.iter()).expect("a good reply")
}
