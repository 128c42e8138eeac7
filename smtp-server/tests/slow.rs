//! Clients that send an octet now and then, in virtual time: each is cut off in time, and whoever is honest does not
//! notice that they are there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use postwright_smtp_server::{ServerConfig, serve_connection};
use postwright_testkit::PausedClock;
use support::{Client, Mode, Room, settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// One octet in this time: FAULTS D5.
const DRIP: Duration = Duration::from_secs(10);
/// Slow clients of each kind, all at once.
const SLOW: usize = 60;
const HONEST: u32 = 100;

/// Where a client begins to be slow, by what it says before.
const KINDS: [(&str, &str); 5] = [
    ("in a command", ""),
    ("in the text of DATA", "EHLO x\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"),
    (
        "in a chunk of BDAT",
        "EHLO x\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.org>\r\nBDAT 9000 LAST\r\n",
    ),
    ("in a TLS handshake", "EHLO x\r\nSTARTTLS\r\n"),
    ("in reading replies", "EHLO x\r\n"),
];

/// The whole server but for its socket: sessions that share one configuration, with its memory for bodies.
struct Bed {
    config: Arc<ServerConfig>,
    room: Room,
    clock: Arc<PausedClock>,
    sessions: JoinSet<Duration>,
}

impl Bed {
    fn connect(&mut self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(2048);
        let (config, room, clock) = (self.config.clone(), self.room.clone(), self.clock.clone());
        let began = Instant::now();
        self.sessions.spawn(async move {
            serve_connection(theirs, support::peer(), &room, config, clock).await;
            began.elapsed()
        });
        ours
    }
}

/// Goes on until the server closes; the last kind asks for more and more and reads nothing.
async fn drip(mut io: DuplexStream, kind: usize) {
    let _ = io.write_all(KINDS[kind].1.as_bytes()).await;
    if kind == KINDS.len() - 1 {
        while io.write_all(b"NOOP\r\n").await.is_ok() {}
        return;
    }
    let (mut read, mut write) = tokio::io::split(io);
    let reading = async {
        let mut replies = [0; 512];
        while read.read(&mut replies).await.is_ok_and(|len| len > 0) {}
    };
    let dripping = async {
        while write.write_all(b"x").await.is_ok() {
            sleep(DRIP).await;
        }
    };
    tokio::join!(reading, dripping);
}

/// One message by a client that is some milliseconds away; how long it took.
async fn honest(io: DuplexStream) -> Duration {
    let began = Instant::now();
    let mut client = Client::over(io);
    client.reply().await;
    for line in ["EHLO client.example", "MAIL FROM:<a@client.example>", "RCPT TO:<b@example.org>", "DATA"] {
        sleep(Duration::from_millis(20)).await;
        assert!(matches!(client.code(line).await, 250 | 354), "{line}");
    }
    sleep(Duration::from_millis(20)).await;
    assert_eq!(client.code("Subject: x\r\n\r\nsome text\r\n.").await, 250);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(client.code("QUIT").await, 221);
    began.elapsed()
}

/// The 99th of a hundred honest clients, one every six seconds, beside so many slow ones of each kind.
async fn p99(slow: usize) -> Duration {
    let (certificates, _) = support::certificates("mx.example.org");
    let tls = postwright_smtp_server::tls::server_config(
        &certificates,
        None,
        postwright_smtp_server::tls::Tickets::Off,
    );
    let mut config = settings().with_starttls(tls.unwrap());
    // Room for a hundred bodies and no more.
    config.budget = postwright_core::Budget::new(100 * 64 * 1024);
    let budget = config.budget.clone();
    let room = Room::new(Mode::Accept);
    let mut bed =
        Bed { config: Arc::new(config), room, clock: PausedClock::start(), sessions: JoinSet::new() };
    let mut clients = JoinSet::new();
    for kind in 0..KINDS.len() {
        for _ in 0..slow {
            clients.spawn(drip(bed.connect(), kind));
        }
    }
    let mut times = Vec::new();
    for _ in 0..HONEST {
        sleep(Duration::from_secs(6)).await;
        times.push(honest(bed.connect()).await);
    }
    clients.join_all().await;
    // RFC 5321 4.5.3.2.7 gives five minutes for a command; a message has its rate, a handshake a minute.
    let longest = bed.sessions.join_all().await.into_iter().max().unwrap();
    assert!(longest <= Duration::from_secs(400), "a slow client was there for {longest:?}");
    assert_eq!(bed.room.mails.lock().unwrap().len(), HONEST as usize, "only the honest ones sent mail");
    assert_eq!(budget.used(), 0, "memory is left");
    times.sort();
    times[98]
}

#[tokio::test(start_paused = true)]
async fn the_slow_are_cut_off_and_the_honest_do_not_notice() {
    let alone = p99(0).await;
    let beside = p99(SLOW).await;
    assert_eq!(beside, alone, "p99 went from {alone:?} to {beside:?}");
    assert!(alone < Duration::from_millis(200), "{alone:?}");
}
