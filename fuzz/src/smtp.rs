//! The SMTP bodies beside the parsers of `bodies.rs`: the client machine, both machines together, BDAT, the parameters of
//! MAIL and RCPT, and every SASL mechanism in both roles.
//!
//! Not here: the server machine alone, replies, commands, DATA and PROXY (`bodies.rs`).

use std::collections::VecDeque;
use std::sync::Arc;

use postwright_core::{Domain, Envelope, Instant, Mailbox, Message, Outcome, Remote, ReversePath, Timestamp};
use postwright_smtp_proto::TlsInfo;
use postwright_smtp_proto::client::{self, Chunking, Report, Transaction};
use postwright_smtp_proto::command::{MailParameters, RcptParameters};
use postwright_smtp_proto::sasl::client as sasl_client;
use postwright_smtp_proto::sasl::server::{self as sasl_server, Progress, Request};
use postwright_smtp_proto::sasl::{ChannelBinding, Hash, Mechanism, ScramKeys, Secret};
use postwright_smtp_proto::server::{Answer, Config, Peer, Question, Session, Step};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn domain(text: &str) -> Domain {
    text.parse().expect("a domain")
}

fn client_session_with(chunking: Chunking) -> client::Session {
    let mut config = client::Config::new(domain("client.example"));
    config.chunking = chunking;
    let remote = Remote { host: domain("mx.example.org").into(), address: None, tls: None };
    client::Session::new(Arc::new(config), remote, START, Instant::ZERO)
}

fn transaction(text: &[u8]) -> Transaction {
    let to = ["a", "b", "c"].map(|user| format!("{user}@example.org").parse::<Mailbox>().expect("a mailbox"));
    Transaction {
        envelope: Envelope::new(ReversePath::Null, to),
        message: Message::from_bytes(text.to_vec()),
    }
}

/// A server that says anything at all: the client comes to rest with one status for each recipient, and lines that
/// come octet by octet mean what they mean in one piece.
pub(crate) fn client_session(data: &[u8]) {
    for chunking in [Chunking::WhenOffered, Chunking::WhenNeeded] {
        let lines = || data.split_inclusive(|octet| *octet == b'\n');
        let whole = hear(chunking, lines());
        assert_eq!(hear(chunking, lines().flat_map(|line| line.chunks(1))), whole);
        hear(chunking, [data]);
    }
}

fn hear<'a>(chunking: Chunking, pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<Report> {
    let mut session = client_session_with(chunking);
    let (mut waiting, mut report) = (Some(transaction(b"Subject: x\r\n\r\n.text\r\n")), None);
    let mut pieces = pieces.into_iter();
    for _ in 0..1_000_000 {
        match session.poll() {
            client::Step::Read { .. } => match pieces.next() {
                Some(piece) => session.handle_input(piece, Instant::ZERO),
                None => session.handle_eof(Instant::ZERO),
            },
            client::Step::Write { bytes, .. } => {
                let len = bytes.len();
                session.handle_written(len, Instant::ZERO);
            }
            client::Step::StartTls => session.handle_tls(TlsInfo::default(), Instant::ZERO),
            client::Step::Ready => match waiting.take() {
                Some(transaction) => session.send(transaction, Instant::ZERO).expect("it is ready"),
                None => session.quit(Instant::ZERO),
            },
            client::Step::Done(done) => {
                assert_eq!(done.statuses.len(), 3, "one status a recipient");
                assert!(report.replace(done).is_none(), "one report a transaction");
            }
            client::Step::Close(_) => {
                assert!(report.is_some() || waiting.is_some(), "a transaction without a report");
                return report;
            }
        }
    }
    panic!("the client goes round in circles");
}

/// The first octet says how; the rest is a message from client to server. What is reported delivered is there, to
/// the octet, and what is not is not.
pub(crate) fn pair(data: &[u8]) {
    let Some((how, text)) = data.split_first() else { return };
    let chunking = if how & 1 == 0 { Chunking::WhenOffered } else { Chunking::WhenNeeded };
    let mut config = Config::new(domain("mx.example.org"));
    config.chunking = how & 2 == 0;
    let mut ends = Ends {
        client: client_session_with(chunking),
        server: Session::new(Arc::new(config), peer(), Instant::ZERO),
        cut: usize::from(how >> 2) + 1,
        to_server: VecDeque::new(),
        to_client: VecDeque::new(),
        body: Vec::new(),
        stored: Vec::new(),
    };
    let report = ends.run(transaction(text)).expect("a report");
    let outcomes: Vec<Outcome> = report.statuses.iter().map(|status| status.outcome).collect();
    assert!(
        outcomes.iter().all(|outcome| *outcome == outcomes[0]),
        "the server treats all alike: {report:?}"
    );
    if !report.is_success() {
        assert!(ends.stored.is_empty(), "what failed was stored: {report:?}");
        return;
    }
    let [stored] = &ends.stored[..] else { panic!("{} messages", ends.stored.len()) };
    // Behind DATA a text that does not end in CRLF gets one: its last line would have no end.
    let ended = stored.strip_suffix(b"\r\n").is_some_and(|stored| stored == text);
    assert!(stored == text || ended, "another text arrived");
}

struct Ends {
    client: client::Session,
    server: Session,
    /// Octets that travel together.
    cut: usize,
    to_server: VecDeque<Vec<u8>>,
    to_client: VecDeque<Vec<u8>>,
    body: Vec<u8>,
    stored: Vec<Vec<u8>>,
}

impl Ends {
    fn run(&mut self, transaction: Transaction) -> Option<Report> {
        let (mut waiting, mut report) = (Some(transaction), None);
        for _ in 0..10_000_000 {
            match self.client.poll() {
                client::Step::Read { .. } => match self.to_client.pop_front() {
                    Some(piece) => self.client.handle_input(&piece, Instant::ZERO),
                    None => self.serve(),
                },
                client::Step::Write { bytes, .. } => {
                    let len = bytes.len();
                    self.to_server.extend(bytes.chunks(self.cut).map(<[u8]>::to_vec));
                    self.client.handle_written(len, Instant::ZERO);
                }
                client::Step::StartTls => panic!("it was not offered"),
                client::Step::Ready => match waiting.take() {
                    Some(transaction) => self.client.send(transaction, Instant::ZERO).expect("it is ready"),
                    None => self.client.quit(Instant::ZERO),
                },
                client::Step::Done(done) => report = Some(done),
                client::Step::Close(_) => return report,
            }
        }
        panic!("the two go round in circles");
    }

    /// Lets the server do one thing.
    fn serve(&mut self) {
        match self.server.poll() {
            Step::Read { .. } => match self.to_server.pop_front() {
                Some(piece) => self.server.handle_input(&piece, Instant::ZERO),
                None => panic!("both wait for each other"),
            },
            Step::Write { bytes, .. } => {
                let len = bytes.len();
                self.to_client.extend(bytes.chunks(self.cut).map(<[u8]>::to_vec));
                self.server.handle_written(len, Instant::ZERO);
            }
            Step::Body(text) => self.body.extend_from_slice(text),
            Step::Reset => self.body.clear(),
            Step::Ask(id) => {
                if let Some((_, Question::Message { .. })) = self.server.question() {
                    self.stored.push(std::mem::take(&mut self.body));
                }
                self.server.answer(id, Answer::accepted());
            }
            Step::StartTls { .. } => panic!("it was not offered"),
            Step::Close(_) => self.client.handle_eof(Instant::ZERO),
        }
    }
}

fn peer() -> Peer {
    Peer::new(([192, 0, 2, 1], 4000).into(), ([192, 0, 2, 2], 25).into(), START)
}

/// Up to 15 chunks, their sizes from the first octets: whatever is in them arrives as it is, however the stream is cut.
pub(crate) fn bdat(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let (sizes, text) = rest.split_at(usize::from(count % 16).min(rest.len()));
    let (mut stream, mut left) =
        (b"MAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<b@example.org>\r\n".to_vec(), text);
    for size in sizes {
        let (chunk, behind) = left.split_at(usize::from(*size).min(left.len()));
        stream.extend_from_slice(format!("BDAT {}\r\n", chunk.len()).as_bytes());
        stream.extend_from_slice(chunk);
        left = behind;
    }
    stream.extend_from_slice(format!("BDAT {} LAST\r\n", left.len()).as_bytes());
    stream.extend_from_slice(left);
    for cut in [usize::MAX, 1, 7] {
        let mut session =
            Session::new(Arc::new(Config::new(domain("mx.example.org"))), peer(), Instant::ZERO);
        let (mut body, mut stored, mut replies) = (Vec::new(), Vec::new(), Vec::new());
        let greeting = [&b""[..], b"EHLO client.example\r\n"];
        for piece in greeting.into_iter().chain(stream.chunks(cut)) {
            session.handle_input(piece, Instant::ZERO);
            settle(&mut session, &mut body, &mut stored, &mut replies);
        }
        assert_eq!(stored, [text], "{}", String::from_utf8_lossy(&replies));
        session.handle_input(b"RSET\r\n", Instant::ZERO);
        replies.clear();
        settle(&mut session, &mut body, &mut stored, &mut replies);
        assert!(replies.starts_with(b"250 "), "the session goes on");
    }
}

fn settle(session: &mut Session, body: &mut Vec<u8>, stored: &mut Vec<Vec<u8>>, replies: &mut Vec<u8>) {
    loop {
        match session.poll() {
            Step::Read { .. } => return,
            Step::Write { bytes, .. } => {
                replies.extend_from_slice(bytes);
                let len = bytes.len();
                session.handle_written(len, Instant::ZERO);
            }
            Step::Body(text) => body.extend_from_slice(text),
            Step::Ask(id) => {
                if let Some((_, Question::Message { .. })) = session.question() {
                    stored.push(std::mem::take(body));
                }
                session.answer(id, Answer::accepted());
            }
            step => panic!("{step:?}"),
        }
    }
}

/// Blanks around parameters mean nothing, and a private one more is one more and changes nothing else.
pub(crate) fn parameters(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let spaced = format!("  {}  ", text.replace(' ', "   "));
    let more = format!("{text} XZZ-FUZZ=1");
    if let Ok(read) = MailParameters::parse(text) {
        assert_eq!(MailParameters::parse(&spaced).as_ref(), Ok(&read));
        if let Ok(mut longer) = MailParameters::parse(&more) {
            assert!(longer.other.pop().is_some_and(|last| &*last.keyword == "XZZ-FUZZ"));
            assert_eq!(longer, read);
        }
    }
    if let Ok(read) = RcptParameters::parse(text) {
        assert_eq!(RcptParameters::parse(&spaced).as_ref(), Ok(&read));
        if let Ok(mut longer) = RcptParameters::parse(&more) {
            assert!(longer.other.pop().is_some_and(|last| &*last.keyword == "XZZ-FUZZ"));
            assert_eq!(longer, read);
        }
    }
}

macro_rules! sasl {
    ($($name:ident $mechanism:ident)*) => { $(
        /// Lines of a peer, which may be anything, against both roles of the mechanism.
        pub(crate) fn $name(data: &[u8]) {
            against_server(Mechanism::$mechanism, data);
            against_client(Mechanism::$mechanism, data);
        }
    )* };
}

sasl! {
    sasl_login Login
    sasl_plain Plain
    sasl_cram_md5 CramMd5
    sasl_scram_sha1 ScramSha1
    sasl_scram_sha256 ScramSha256
    sasl_scram_sha1_plus ScramSha1Plus
    sasl_scram_sha256_plus ScramSha256Plus
    sasl_xoauth2 XOAuth2
    sasl_oauthbearer OAuthBearer
    sasl_external External
}

const SECRET: &str = "pencil";

/// Nobody is accepted without the secret that the one user has, and an exchange that is over stays so.
fn against_server(mechanism: Mechanism, data: &[u8]) {
    let bindings = vec![ChannelBinding::Exporter([5; 32])];
    let setup = sasl_server::Setup {
        random: [9; 18],
        decoy: [7; 32],
        hostname: "mx.example.org".into(),
        bindings,
        plus_offered: mechanism.is_bound(),
    };
    let mut exchange = sasl_server::Exchange::new(mechanism, setup);
    let mut knows = false;
    for message in data.split(|octet| *octet == b'\n') {
        let mut progress = exchange.step(Some(message));
        while let Progress::Ask(request) = progress {
            let answer = answer(&request);
            knows |= matches!(answer, sasl_server::Answer::Verified(true));
            progress = exchange.answer(answer);
        }
        match progress {
            Progress::Challenge(_) => {}
            Progress::Accepted(_) => return assert!(knows, "accepted without the secret"),
            Progress::Refused(_) => break,
            Progress::Ask(_) => unreachable!("answered above"),
        }
    }
    let refused = matches!(exchange.step(Some(b"\0user\0pencil")), Progress::Refused(_));
    assert!(refused || !knows, "a refused exchange goes on");
}

/// The store: `user` with the one secret. The proofs of SCRAM and CRAM-MD5 cannot be guessed, so what is known of
/// them counts as nothing known.
fn answer(request: &Request) -> sasl_server::Answer {
    use sasl_server::Answer::{Keys, Password, Verified};
    match request {
        Request::Password { identity, password } => {
            Verified(&*identity.user == "user" && password.expose() == SECRET)
        }
        Request::Token { identity, token } => Verified(&*identity.user == "user" && token.expose() == SECRET),
        Request::Certificate(identity) => Verified(identity.acts_as.as_deref() == Some("user")),
        Request::Reveal { user } => Password((&**user == "user").then(|| Secret::new("not to be guessed"))),
        Request::Keys { user, hash } => Keys((&**user == "user").then(|| keys(*hash))),
    }
}

/// One iteration: what costs time is not what is looked at here.
fn keys(hash: Hash) -> ScramKeys {
    ScramKeys::derive(hash, "not to be guessed", b"0123456789abcdef", 1)
}

/// A server that knows no password proves nothing, and what the client sends never holds the secret where the
/// mechanism is made not to send it.
fn against_client(mechanism: Mechanism, data: &[u8]) {
    use sasl_client::Credentials;
    let secret = || Secret::new("a secret of the client");
    let credentials = match mechanism {
        Mechanism::XOAuth2 | Mechanism::OAuthBearer => {
            Credentials::Token { user: "user".into(), token: secret() }
        }
        Mechanism::External => Credentials::External { identity: Some("user".into()) },
        _ => Credentials::Password { user: "user".into(), password: secret() },
    };
    let bindings = [ChannelBinding::Exporter([5; 32])];
    let mut exchange =
        sasl_client::Exchange::new(mechanism, &credentials, &bindings, [3; 18]).expect("they fit each other");
    let mut sent = exchange.first().unwrap_or_default();
    for challenge in data.split(|octet| *octet == b'\n') {
        match exchange.step(challenge) {
            Ok(message) => sent.extend_from_slice(&message),
            Err(_) => break,
        }
    }
    let scram = matches!(
        mechanism,
        Mechanism::ScramSha1 | Mechanism::ScramSha256 | Mechanism::ScramSha1Plus | Mechanism::ScramSha256Plus
    );
    assert!(!(scram && exchange.is_proven()), "proven by who knows nothing");
    if scram || mechanism == Mechanism::CramMd5 {
        assert!(!sent.windows(8).any(|window| window == b"a secret"), "the secret is sent in clear");
    }
}
