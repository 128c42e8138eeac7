//! The client machine against the server machine, in virtual time.
//!
//! Every fragmentation and every latency of a dialogue must give the same verdicts. A connection cut after any
//! octet, or one that goes silent there, must leave both sides agreeing: what the client believes delivered the
//! server has, and what the server has the client believes delivered or does not know. Nothing runs for ever.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use postwright_core::{
    Domain, Entropy, Envelope, Instant, Mailbox, Message, Outcome, Refusal, Remote, SeededEntropy, Timestamp,
};
use postwright_smtp_proto::client::{Chunking, Report, StartTls, Transaction};
use postwright_smtp_proto::server::{Answer, Question};
use postwright_smtp_proto::{TlsInfo, client, server};

/// How the wire treats octets.
#[derive(Debug, Clone, Copy)]
enum Cuts {
    Whole,
    One,
    /// The first piece has this length, the rest is whole.
    After(usize),
    Random(u64),
}

/// What happens to the connection after so many octets of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    CutToServer(usize),
    CutToClient(usize),
    StallToServer(usize),
    StallToClient(usize),
}

#[derive(Debug, Clone, Copy)]
struct Wire {
    cuts: Cuts,
    latency: Duration,
    fault: Fault,
}

const CALM: Wire = Wire { cuts: Cuts::Whole, latency: Duration::ZERO, fault: Fault::None };

/// One direction of the connection.
struct Lane {
    cuts: Cuts,
    entropy: SeededEntropy,
    latency: Duration,
    /// Pieces under way, with the time they arrive.
    pieces: VecDeque<(Instant, Vec<u8>)>,
    carried: usize,
    cut: Option<usize>,
    stall: Option<usize>,
}

impl Lane {
    fn new(wire: Wire, cut: Option<usize>, stall: Option<usize>, salt: u64) -> Lane {
        let seed = match wire.cuts {
            Cuts::Random(seed) => seed * 2 + salt,
            _ => 0,
        };
        let entropy = SeededEntropy::new(seed);
        Lane {
            cuts: wire.cuts,
            entropy,
            latency: wire.latency,
            pieces: VecDeque::new(),
            carried: 0,
            cut,
            stall,
        }
    }

    fn send(&mut self, mut octets: &[u8], now: Instant) {
        for limit in [self.cut, self.stall].into_iter().flatten() {
            octets = &octets[..octets.len().min(limit.saturating_sub(self.carried))];
        }
        while !octets.is_empty() {
            let len = match self.cuts {
                Cuts::Whole => octets.len(),
                Cuts::One => 1,
                Cuts::After(first) if self.carried < first => first - self.carried,
                Cuts::After(_) => octets.len(),
                Cuts::Random(_) => usize::try_from(self.entropy.below(9)).unwrap() + 1,
            };
            let (piece, rest) = octets.split_at(len.min(octets.len()));
            let late = match self.cuts {
                Cuts::Random(_) => Duration::from_millis(self.entropy.below(400)),
                _ => Duration::ZERO,
            };
            let last = self.pieces.back().map_or(now, |(at, _)| *at);
            self.pieces.push_back(((now + self.latency + late).max(last), piece.to_vec()));
            self.carried += piece.len();
            octets = rest;
        }
    }

    fn is_cut(&self) -> bool {
        self.cut.is_some_and(|cut| self.carried >= cut)
    }

    fn arrived(&mut self, now: Instant) -> Option<Vec<u8>> {
        let (at, _) = self.pieces.front()?;
        if *at <= now { self.pieces.pop_front().map(|(_, piece)| piece) } else { None }
    }
}

/// A message as the server took it: its recipients and its octets.
type Stored = (Vec<String>, Vec<u8>);

#[derive(Debug, PartialEq)]
struct Outcomes {
    reports: Vec<Vec<String>>,
    stored: Vec<Stored>,
}

struct Pair {
    client: client::Session,
    server: server::Session,
    to_server: Lane,
    to_client: Lane,
    now: Instant,
    waiting: VecDeque<Transaction>,
    reports: Vec<Report>,
    stored: Vec<Stored>,
    body: Vec<u8>,
    handshakes: u8,
    server_gone: bool,
}

/// What a machine can do at present.
enum Turn {
    Moved,
    Waits(Option<Instant>),
    Ended,
}

impl Pair {
    fn run(mut self) -> (Vec<Report>, Vec<Stored>, Instant) {
        for _ in 0..2_000_000 {
            if self.to_server.is_cut() || self.to_client.is_cut() {
                self.cut();
            }
            let turns = (self.client_turn(), self.server_turn());
            let deadline = match turns {
                (Turn::Ended, Turn::Ended) => return (self.reports, self.stored, self.now),
                (Turn::Moved, _) | (_, Turn::Moved) => continue,
                (Turn::Waits(a), Turn::Waits(b)) => a.into_iter().chain(b).min(),
                (Turn::Waits(a), Turn::Ended) | (Turn::Ended, Turn::Waits(a)) => a,
            };
            let arrivals = self.to_server.pieces.front().into_iter().chain(self.to_client.pieces.front());
            let arrival = arrivals.map(|(at, _)| *at).filter(|at| *at > self.now).min();
            let next = arrival.into_iter().chain(deadline).min().expect("someone waits for something");
            self.now = self.now.max(next);
            if arrival.is_none_or(|arrival| arrival > next) {
                self.client.handle_timeout(self.now);
                self.server.handle_timeout(self.now);
            }
        }
        panic!("livelock at {:?}", self.now);
    }

    /// The connection breaks for both, once what is under way has arrived.
    fn cut(&mut self) {
        let client_drained = self.to_client.pieces.is_empty();
        if client_drained && self.client.closed().is_none() {
            self.client.handle_eof(self.now);
        }
        if self.to_server.pieces.is_empty() && !self.server_gone {
            self.server_gone = true;
            self.server.handle_eof();
        }
    }

    fn client_turn(&mut self) -> Turn {
        if let Some(piece) = self.to_client.arrived(self.now) {
            self.client.handle_input(&piece, self.now);
            return Turn::Moved;
        }
        match self.client.poll() {
            client::Step::Write { bytes, .. } => {
                let piece = bytes.to_vec();
                self.to_server.send(&piece, self.now);
                self.client.handle_written(piece.len(), self.now);
                Turn::Moved
            }
            client::Step::Read { deadline } => Turn::Waits(Some(deadline)),
            client::Step::StartTls => {
                self.handshakes |= 1;
                self.shake_hands()
            }
            client::Step::Ready => {
                match self.waiting.pop_front() {
                    Some(transaction) => self.client.send(transaction, self.now).unwrap(),
                    None => self.client.quit(self.now),
                }
                Turn::Moved
            }
            client::Step::Done(report) => {
                self.reports.push(report);
                Turn::Moved
            }
            client::Step::Close(_) => {
                if !self.server_gone && self.to_server.pieces.is_empty() {
                    self.server_gone = true;
                    self.server.handle_eof();
                    return Turn::Moved;
                }
                Turn::Ended
            }
        }
    }

    fn server_turn(&mut self) -> Turn {
        match self.server.poll() {
            server::Step::Read { deadline } => {
                if let Some(piece) = self.to_server.arrived(self.now) {
                    self.server.handle_input(&piece, self.now);
                    return Turn::Moved;
                }
                Turn::Waits(Some(deadline))
            }
            server::Step::Write { bytes, .. } => {
                let piece = bytes.to_vec();
                self.to_client.send(&piece, self.now);
                self.server.handle_written(piece.len(), self.now);
                Turn::Moved
            }
            server::Step::Body(piece) => {
                let piece = piece.to_vec();
                self.body.extend(piece);
                Turn::Moved
            }
            server::Step::Reset => {
                self.body.clear();
                Turn::Moved
            }
            server::Step::Ask(_) => {
                let (id, question) = self.server.question().unwrap();
                let answer = answer(&question);
                if let (Question::Message { envelope, .. }, Answer::Accepted { .. }) = (&question, &answer) {
                    let recipients = envelope.recipients.iter().map(|r| r.mailbox.to_string()).collect();
                    self.stored.push((recipients, std::mem::take(&mut self.body)));
                }
                self.body.clear();
                self.server.answer(id, answer);
                Turn::Moved
            }
            server::Step::StartTls { .. } => {
                self.handshakes |= 2;
                self.shake_hands()
            }
            server::Step::Close(_) => {
                if self.client.closed().is_none() && self.to_client.pieces.is_empty() {
                    self.client.handle_eof(self.now);
                    return Turn::Moved;
                }
                // What comes now is read and dropped.
                self.to_server.pieces.clear();
                Turn::Ended
            }
        }
    }

    /// The handshake happens when both are at it.
    fn shake_hands(&mut self) -> Turn {
        if self.handshakes == 3 {
            self.handshakes = 0;
            let tls = TlsInfo { version: "TLSv1.3".into(), ..TlsInfo::default() };
            self.client.handle_tls(tls.clone(), self.now);
            self.server.handle_tls(tls, self.now);
            return Turn::Moved;
        }
        Turn::Waits(Some(self.now + Duration::from_secs(300)))
    }
}

/// The server's policy: the local part of a recipient says what becomes of it, the sender what becomes of the message.
fn answer(question: &Question<'_>) -> Answer {
    use postwright_core::EnhancedStatus;
    let refuse = |code, class, subject, detail| {
        Answer::refused(Refusal::known(code, EnhancedStatus::new(class, subject, detail).unwrap(), "as told"))
    };
    match question {
        Question::Rcpt { recipient, .. } => match recipient.mailbox.local() {
            "no" => refuse(550, 5, 1, 1),
            "later" => refuse(451, 4, 7, 1),
            _ => Answer::accepted(),
        },
        Question::Mail { reverse_path, .. } => match reverse_path.mailbox().map(Mailbox::local) {
            Some("banned") => refuse(550, 5, 7, 1),
            _ => Answer::accepted(),
        },
        Question::Message { envelope, .. } => match envelope.reverse_path.mailbox().map(Mailbox::local) {
            Some("spam") => refuse(554, 5, 7, 1),
            _ => Answer::accepted(),
        },
        _ => Answer::accepted(),
    }
}

#[derive(Debug, Clone, Copy)]
struct Scene {
    chunking: bool,
    starttls: bool,
    lmtp: bool,
}

const SCENES: [Scene; 4] = [
    Scene { chunking: false, starttls: false, lmtp: false },
    Scene { chunking: true, starttls: false, lmtp: false },
    Scene { chunking: false, starttls: true, lmtp: false },
    Scene { chunking: false, starttls: false, lmtp: true },
];

fn transactions() -> Vec<Transaction> {
    let transaction = |from: &str, to: &[&str], body: &[u8]| Transaction {
        envelope: Envelope::new(
            format!("{from}@client.example").parse::<Mailbox>().unwrap(),
            to.iter().map(|to| format!("{to}@x.example").parse().unwrap()),
        ),
        message: Message::from_bytes(body.to_vec()),
    };
    vec![
        transaction("a", &["b", "no", "later", "c"], b"Subject: 1\r\n\r\n.\r\n..\r\n.end"),
        transaction("banned", &["b"], b"Subject: 2\r\n\r\n"),
        transaction("a", &["no"], b"Subject: 3\r\n\r\n"),
        transaction("spam", &["b", "c"], b"Subject: 4\r\n\r\n.\r\n"),
        transaction("a", &["b"], b""),
        transaction("a", &["no", "b"], b".\r\nQUIT\r\n"),
    ]
}

fn pair(scene: Scene, wire: Wire) -> Pair {
    let mut config = client::Config::new("client.example".parse::<Domain>().unwrap());
    config.chunking = if scene.chunking { Chunking::WhenOffered } else { Chunking::WhenNeeded };
    config.starttls = if scene.starttls { StartTls::Required } else { StartTls::None };
    let mut settings = server::Config::new("mx.example.org".parse::<Domain>().unwrap());
    settings.starttls = scene.starttls;
    if scene.lmtp {
        config.protocol = client::Protocol::Lmtp;
        settings.protocol = server::Protocol::Lmtp;
    }
    let (start, now) = (Timestamp::from_secs(1_800_000_000), Instant::ZERO);
    let remote = Remote { host: "mx.example.org".parse().unwrap(), address: None, tls: None };
    let address = |port| std::net::SocketAddr::from(([192, 0, 2, 1], port));
    let fault = wire.fault;
    let cut = |direction: fn(usize) -> Fault, at: usize| (direction(at) == fault).then_some(at);
    let at = match fault {
        Fault::None => 0,
        Fault::CutToServer(at)
        | Fault::CutToClient(at)
        | Fault::StallToServer(at)
        | Fault::StallToClient(at) => at,
    };
    Pair {
        client: client::Session::new(Arc::new(config), remote, start, now),
        server: server::Session::new(
            Arc::new(settings),
            server::Peer::new(address(40_000), address(25), start),
            now,
        ),
        to_server: Lane::new(wire, cut(Fault::CutToServer, at), cut(Fault::StallToServer, at), 0),
        to_client: Lane::new(wire, cut(Fault::CutToClient, at), cut(Fault::StallToClient, at), 1),
        now,
        waiting: transactions().into(),
        reports: Vec::new(),
        stored: Vec::new(),
        body: Vec::new(),
        handshakes: 0,
        server_gone: false,
    }
}

fn outcomes(scene: Scene, wire: Wire) -> Outcomes {
    let (reports, stored, _) = pair(scene, wire).run();
    let shown = |report: &Report| {
        report.statuses.iter().map(|s| format!("{:?} {} {}", s.outcome, s.status, s.phase)).collect()
    };
    Outcomes { reports: reports.iter().map(shown).collect(), stored }
}

#[test]
fn the_verdicts_are_what_the_policy_says() {
    for scene in SCENES {
        let Outcomes { reports, stored } = outcomes(scene, CALM);
        let codes: Vec<String> = reports
            .iter()
            .map(|report| {
                report.iter().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>().join(" ")
            })
            .collect();
        assert_eq!(
            codes,
            [
                "Delivered Failed Delayed Delivered",
                "Failed",
                "Failed",
                "Failed Failed",
                "Delivered",
                "Failed Delivered"
            ],
            "{scene:?}"
        );
        let to = |names: &[&str]| names.iter().map(|name| format!("{name}@x.example")).collect::<Vec<_>>();
        // DATA ends a message with CRLF; BDAT carries it as it is (RFC 5321 4.1.1.4, RFC 3030 2).
        let first: &[u8] = if scene.chunking {
            b"Subject: 1\r\n\r\n.\r\n..\r\n.end"
        } else {
            b"Subject: 1\r\n\r\n.\r\n..\r\n.end\r\n"
        };
        assert_eq!(
            stored,
            [
                (to(&["b", "c"]), first.to_vec()),
                (to(&["b"]), Vec::new()),
                (to(&["b"]), b".\r\nQUIT\r\n".to_vec())
            ],
            "{scene:?}"
        );
    }
}

#[test]
fn every_fragmentation_and_latency_gives_the_same_verdicts() {
    for scene in SCENES {
        let calm = outcomes(scene, CALM);
        let same = |wire: Wire| assert_eq!(outcomes(scene, wire), calm, "{scene:?} {wire:?}");
        same(Wire { cuts: Cuts::One, ..CALM });
        same(Wire { cuts: Cuts::One, latency: Duration::from_secs(2), ..CALM });
        for first in 1..900 {
            same(Wire { cuts: Cuts::After(first), ..CALM });
        }
        for seed in 0..60 {
            same(Wire { cuts: Cuts::Random(seed), latency: Duration::from_millis(seed * 37), ..CALM });
        }
    }
}

/// What the client believes and what the server has must fit: checked for each recipient of each transaction.
fn check_agreement(pair: Pair, case: &str, seen: &mut BTreeSet<String>) {
    let (reports, stored, end) = pair.run();
    // Every time-out of the longest path added up, for both sides, is far below this.
    assert!(end.since_start() < Duration::from_secs(3 * 3600), "{case}: {end:?}");
    let transactions = transactions();
    for (report, transaction) in reports.iter().zip(&transactions) {
        let mut plain = transaction.message.to_vec();
        for (status, recipient) in report.statuses.iter().zip(&transaction.envelope.recipients) {
            let name = recipient.mailbox.to_string();
            let has = |body: &[u8]| stored.iter().any(|(to, octets)| to.contains(&name) && *octets == body);
            let bare = has(&plain);
            plain.extend_from_slice(b"\r\n");
            let held = bare || has(&plain);
            plain.truncate(plain.len() - 2);
            seen.insert(format!("{:?} held={held}", status.outcome));
            match status.outcome {
                Outcome::Delivered | Outcome::Relayed => assert!(held, "{case}: lost {name}"),
                Outcome::Failed | Outcome::Delayed => {
                    assert!(!held, "{case}: {name} would come twice: {status:?}")
                }
                Outcome::Unknown => {}
            }
        }
    }
}

#[test]
fn a_cut_or_silent_connection_leaves_both_sides_agreeing() {
    // Every third place by default; all of them take three times as long.
    let step = if std::env::var_os("POSTWRIGHT_LONG").is_some() { 1 } else { 3 };
    let mut seen = BTreeSet::new();
    for scene in SCENES {
        for at in (0..1400).step_by(step) {
            for fault in [
                Fault::CutToServer(at),
                Fault::CutToClient(at),
                Fault::StallToServer(at),
                Fault::StallToClient(at),
            ] {
                let wire = Wire { fault, latency: Duration::from_millis(50), ..CALM };
                check_agreement(pair(scene, wire), &format!("{scene:?} {fault:?}"), &mut seen);
            }
        }
    }
    // The faults did reach the places that matter: both kinds of doubt came up.
    let seen: Vec<&str> = seen.iter().map(String::as_str).collect();
    let expected = [
        "Delayed held=false",
        "Delivered held=true",
        "Failed held=false",
        "Unknown held=false",
        "Unknown held=true",
    ];
    assert_eq!(seen, expected);
}
