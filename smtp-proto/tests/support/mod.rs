//! A driver without sockets for tests: feeds octets in given pieces, answers by a policy, writes down everything.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::sync::Arc;

use postwright_core::{Domain, EnhancedStatus, Envelope, Instant, Refusal, Timestamp};
use postwright_smtp_proto::TlsInfo;
use postwright_smtp_proto::server::{Answer, CloseReason, Config, Peer, Question, Session, Step};

/// Everything that came of a session.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the server wrote.
    pub output: String,
    /// Messages that were accepted.
    pub messages: Vec<(Envelope, Vec<u8>)>,
    /// Questions by name, in order.
    pub asked: Vec<&'static str>,
    /// How it ended, if it did.
    pub closed: Option<CloseReason>,
}

impl Record {
    /// The codes of the replies, one for each reply.
    pub fn codes(&self) -> Vec<u16> {
        self.output
            .split_terminator("\r\n")
            .filter(|line| line.as_bytes().get(3) == Some(&b' '))
            .map(|line| line[..3].parse().unwrap())
            .collect()
    }
}

pub type Policy = Box<dyn FnMut(&Question<'_>) -> Answer>;

/// A session with its record.
pub struct Driver {
    pub session: Session,
    pub record: Record,
    pub now: Instant,
    body: Vec<u8>,
    policy: Policy,
}

pub fn config() -> Config {
    Config::new("mx.example.org".parse::<Domain>().unwrap())
}

pub fn peer() -> Peer {
    let at = Timestamp::from_secs(1_800_000_000);
    Peer::new("192.0.2.1:4000".parse().unwrap(), "192.0.2.2:25".parse().unwrap(), at)
}

pub fn no(code: u16) -> Answer {
    let class = u8::try_from(code / 100).unwrap();
    Answer::refused(Refusal::known(code, EnhancedStatus::new(class, 7, 1).unwrap(), "No"))
}

pub fn name(question: &Question<'_>) -> &'static str {
    match question {
        Question::Connect { .. } => "connect",
        Question::Hello { .. } => "hello",
        Question::Auth { .. } => "auth",
        Question::Mail { .. } => "mail",
        Question::Rcpt { .. } => "rcpt",
        Question::Data { .. } => "data",
        Question::Message { .. } => "message",
        Question::Verify { .. } => "verify",
        Question::Command { .. } => "command",
        _ => "?",
    }
}

/// Accepts everything but unknown commands.
pub fn open_house() -> Policy {
    Box::new(|question| match question {
        Question::Command { .. } => no(500),
        _ => Answer::accepted(),
    })
}

impl Driver {
    pub fn new(config: Config, policy: Policy) -> Driver {
        Driver::with_peer(config, peer(), policy)
    }

    pub fn with_peer(config: Config, peer: Peer, policy: Policy) -> Driver {
        let session = Session::new(Arc::new(config), peer, Instant::ZERO);
        let mut driver =
            Driver { session, record: Record::default(), now: Instant::ZERO, body: Vec::new(), policy };
        driver.run();
        driver
    }

    /// A session that is past EHLO.
    pub fn greeted(config: Config, policy: Policy) -> Driver {
        let mut driver = Driver::new(config, policy);
        driver.send(b"EHLO client.example\r\n");
        driver.record = Record::default();
        driver
    }

    /// Feeds octets and runs until the session wants more.
    pub fn send(&mut self, bytes: &[u8]) -> &mut Driver {
        self.session.handle_input(bytes, self.now);
        self.run();
        self
    }

    pub fn tls(&mut self) -> &mut Driver {
        let tls = TlsInfo { version: "TLSv1.3".into(), exporter: Some([7; 32]), ..TlsInfo::default() };
        self.session.handle_tls(tls, self.now);
        self.run();
        self
    }

    pub fn eof(&mut self) -> &mut Driver {
        self.session.handle_eof();
        self.run();
        self
    }

    /// The replies to one command.
    pub fn say(&mut self, line: &str) -> String {
        let before = self.record.output.len();
        self.send(format!("{line}\r\n").as_bytes());
        self.record.output[before..].to_owned()
    }

    /// The code of the last reply to one command.
    pub fn code(&mut self, line: &str) -> u16 {
        let reply = self.say(line);
        let last = reply.trim_end().rsplit("\r\n").next().unwrap_or("");
        last.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    pub fn run(&mut self) {
        for _ in 0..1_000_000 {
            let id = match self.session.poll() {
                Step::Read { .. } | Step::StartTls { .. } => return,
                Step::Write { bytes, .. } => {
                    self.record.output.push_str(std::str::from_utf8(bytes).unwrap());
                    let len = bytes.len();
                    self.session.handle_written(len, self.now);
                    continue;
                }
                Step::Body(text) => {
                    assert!(!text.is_empty());
                    self.body.extend_from_slice(text);
                    continue;
                }
                Step::Reset => {
                    self.body.clear();
                    continue;
                }
                Step::Close(reason) => {
                    self.record.closed = Some(reason);
                    return;
                }
                Step::Ask(id) => id,
            };
            let (same, question) = self.session.question().unwrap();
            assert_eq!(same, id);
            self.record.asked.push(name(&question));
            let answer = (self.policy)(&question);
            if let Question::Message { envelope, size } = question {
                assert_eq!(size, self.body.len() as u64);
                let body = std::mem::take(&mut self.body);
                if matches!(answer, Answer::Accepted { .. }) {
                    self.record.messages.push((envelope.clone(), body));
                }
            }
            self.session.answer(id, answer);
        }
        panic!("the session does not settle");
    }
}
