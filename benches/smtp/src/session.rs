//! Whole sessions: our server machine beside mailin's, and our client machine feeding our server machine.

use std::sync::Arc;

use mailin::{Action, Handler, Response, SessionBuilder, response};
use postwright_core::{Domain, Envelope, Instant, Mailbox, Message, Remote, Timestamp};
use postwright_smtp_proto::client::{self, Chunking, Transaction};
use postwright_smtp_proto::server::{Answer, Config, Peer, Question, Session, Step};

use crate::{Case, keep, message, stuffed};

/// What a client writes in one go: each waits for the replies to the one before.
fn groups(text: &[u8]) -> Vec<Vec<u8>> {
    vec![
        b"EHLO client.example\r\n".to_vec(),
        b"MAIL FROM:<a@client.example>\r\n".to_vec(),
        b"RCPT TO:<b@example.org>\r\n".to_vec(),
        b"DATA\r\n".to_vec(),
        stuffed(text),
        b"QUIT\r\n".to_vec(),
    ]
}

/// What came of a session.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// The first digit of each reply.
    classes: Vec<u8>,
    text: Vec<u8>,
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (server, relay, octets) in
        [("session_1k", "relay_1k", 1 << 10), ("session_100k", "relay_100k", 100 << 10)]
    {
        let text = message(octets);
        let groups = groups(&text);
        let config = Arc::new(Config::new(domain("mx.example.org")));
        let (ours, theirs) = (session_ours(&groups, &config), session_peer(&groups));
        assert_eq!(ours, theirs, "the same replies and the same text");
        assert_eq!(ours.text, text);
        let same = groups.clone();
        let own = config.clone();
        cases.push(Case {
            name: server,
            peer: "mailin 0.6.5",
            octets: groups.iter().map(Vec::len).sum(),
            ours: Box::new(move || drop(keep(session_ours(keep(&groups), &own)))),
            theirs: Some(Box::new(move || drop(keep(session_peer(keep(&same)))))),
        });
        for (name, chunking) in [(relay, Chunking::WhenNeeded)] {
            let (message, config) = (Message::from_bytes(text.clone()), config.clone());
            assert_eq!(relay_ours(&message, &config, chunking), text);
            let octets = text.len();
            let ours = Box::new(move || drop(keep(relay_ours(keep(&message), &config, chunking))));
            cases.push(Case { name, peer: "-", octets, ours, theirs: None });
        }
    }
    cases
}

fn domain(name: &str) -> Domain {
    name.parse().expect("a domain")
}

fn new_session(config: &Arc<Config>) -> Session {
    let peer = Peer::new(([192, 0, 2, 1], 4000).into(), ([192, 0, 2, 2], 25).into(), Timestamp::from_secs(0));
    Session::new(config.clone(), peer, Instant::ZERO)
}

#[inline(never)]
fn session_ours(groups: &[Vec<u8>], config: &Arc<Config>) -> Seen {
    let mut session = new_session(config);
    let (mut seen, mut body) = (Seen::default(), Vec::new());
    let mut groups = groups.iter();
    loop {
        match session.poll() {
            Step::Read { .. } => match groups.next() {
                Some(group) => session.handle_input(group, Instant::ZERO),
                None => session.handle_eof(),
            },
            Step::Write { bytes, .. } => {
                note(bytes, &mut seen.classes);
                let len = bytes.len();
                session.handle_written(len, Instant::ZERO);
            }
            Step::Body(text) => body.extend_from_slice(text),
            Step::Ask(id) => {
                if let Some((_, Question::Message { .. })) = session.question() {
                    seen.text = std::mem::take(&mut body);
                }
                session.answer(id, Answer::accepted());
            }
            Step::Close(_) => return seen,
            step => panic!("{step:?}"),
        }
    }
}

fn note(replies: &[u8], classes: &mut Vec<u8>) {
    for line in replies.split_inclusive(|octet| *octet == b'\n') {
        if line.get(3) != Some(&b'-') {
            classes.extend(line.first());
        }
    }
}

/// Takes everything, as our side does here.
#[derive(Default)]
struct Taker {
    text: Vec<u8>,
}

impl Handler for &mut Taker {
    fn data(&mut self, text: &[u8]) -> std::io::Result<()> {
        self.text.extend_from_slice(text);
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        response::OK
    }
}

/// mailin is handed lines, which its caller finds.
#[inline(never)]
fn session_peer(groups: &[Vec<u8>]) -> Seen {
    let mut taker = Taker::default();
    let (mut classes, mut out) = (Vec::new(), Vec::new());
    let mut session = SessionBuilder::new("mx.example.org").build([192, 0, 2, 1].into(), &mut taker);
    let mut reply = |response: &Response| {
        if response.action != Action::NoReply {
            out.clear();
            response.write_to(&mut out).expect("a Vec takes all");
            note(&out, &mut classes);
        }
    };
    reply(&session.greeting());
    for group in groups {
        let mut rest = &group[..];
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, behind) = rest.split_at(end + 1);
            reply(&session.process(line));
            rest = behind;
        }
    }
    drop(session);
    Seen { classes, text: taker.text }
}

/// From our client machine to our server machine, in writes of up to 16 KiB.
#[inline(never)]
fn relay_ours(message: &Message, config: &Arc<Config>, chunking: Chunking) -> Vec<u8> {
    let mut settings = client::Config::new(domain("client.example"));
    settings.chunking = chunking;
    let remote = Remote { host: domain("mx.example.org").into(), address: None, tls: None };
    let mut client = client::Session::new(Arc::new(settings), remote, Timestamp::from_secs(0), Instant::ZERO);
    let mut server = new_session(config);
    let (mut body, mut stored, mut waiting) = (Vec::new(), Vec::new(), Some(message.clone()));
    loop {
        match client.poll() {
            client::Step::Write { bytes, .. } => {
                let len = bytes.len();
                server.handle_input(bytes, Instant::ZERO);
                client.handle_written(len, Instant::ZERO);
                continue;
            }
            client::Step::Ready => {
                match waiting.take() {
                    Some(message) => {
                        let from: Mailbox = "a@client.example".parse().expect("a mailbox");
                        let to = ["b@example.org".parse::<Mailbox>().expect("a mailbox")];
                        let transaction = Transaction { envelope: Envelope::new(from, to), message };
                        client.send(transaction, Instant::ZERO).expect("it is ready");
                    }
                    None => client.quit(Instant::ZERO),
                }
                continue;
            }
            client::Step::Done(report) => {
                assert!(report.is_success());
                continue;
            }
            client::Step::Close(_) => return stored,
            client::Step::Read { .. } => {}
            client::Step::StartTls => panic!("it was not offered"),
        }
        match server.poll() {
            Step::Write { bytes, .. } => {
                let len = bytes.len();
                client.handle_input(bytes, Instant::ZERO);
                server.handle_written(len, Instant::ZERO);
            }
            Step::Body(text) => body.extend_from_slice(text),
            Step::Ask(id) => {
                if let Some((_, Question::Message { .. })) = server.question() {
                    stored = std::mem::take(&mut body);
                }
                server.answer(id, Answer::accepted());
            }
            Step::Close(_) => client.handle_eof(Instant::ZERO),
            step => panic!("{step:?}"),
        }
    }
}
