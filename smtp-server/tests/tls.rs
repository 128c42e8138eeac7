//! What a session is worth when its TLS ends, begins twice, or begins at the wrong time: over real sockets and real TLS.
//!
//! Standards: RFC 3207 4 (STARTTLS), 4.2 (what is forgotten); RFC 8446 6.1 (`close_notify`); CVE-2011-0411; the
//! "Dead.Letter" fault of another server (TLS closed in mid-BDAT, clear text behind).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright_smtp_server::tls::{Certificates, Identity, Tickets, server_config};
use postwright_smtp_server::{ServerConfig, serve_connection};
use rustls::pki_types::ServerName;
use support::{Client, Mode, Roots, Testbed, Tls, certificates, settings, start};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const NAME: &str = "mx.example.org";
/// What an attacker who is able to write on the connection would like to have done.
const ATTACK: &[u8] =
    b"\r\n.\r\nMAIL FROM:<evil@x.example>\r\nRCPT TO:<v@example.org>\r\nDATA\r\nx\r\n.\r\nNOOP\r\n";

fn offering_tls() -> (ServerConfig, Roots) {
    let (certificates, roots) = certificates(NAME);
    (settings().with_starttls(server_config(&certificates, None, Tickets::Off).unwrap()), roots)
}

/// A session past STARTTLS and EHLO.
async fn secured(bed: &Testbed, roots: &Roots) -> Client<Tls<TcpStream>> {
    let mut client = bed.connect().await;
    client.hello().await;
    client.starttls().await;
    let mut client = client.into_tls(roots, NAME).await;
    assert_eq!(client.code("EHLO client.example").await, 250);
    client
}

/// Where the session stands when TLS ends.
const PLACES: &[(&str, &[u8])] = &[
    ("between commands", b""),
    ("in a transaction", b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.org>\r\n"),
    ("in mid-line", b"MAIL FROM:<a@cli"),
    ("first in DATA", b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"),
    ("in DATA", b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nhalf a line"),
    ("before the dot", b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\na line\r\n"),
    ("behind the dot", b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\na line\r\n."),
    ("in BDAT", b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.org>\r\nBDAT 400 LAST\r\nhalf a chunk"),
    ("first in BDAT", b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.org>\r\nBDAT 91 LAST\r\n"),
    ("between chunks", b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.org>\r\nBDAT 2\r\nab"),
    ("in AUTH", b"AUTH PLAIN\r\n"),
];

/// Sends what leads to a place; each command waits for its reply, so that nothing is early.
async fn go_to(client: &mut Client<Tls<TcpStream>>, octets: &[u8]) {
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        client.write(line).await;
        let text = String::from_utf8_lossy(line);
        let answered = ["MAIL", "RCPT", "DATA", "AUTH"].iter().any(|verb| text.starts_with(verb));
        if answered && text.ends_with("\r\n") {
            client.reply().await;
        }
    }
}

#[tokio::test]
async fn nothing_is_read_in_clear_once_tls_has_ended() {
    let (config, roots) = offering_tls();
    let bed = start(config, Mode::Accept).await;
    for (place, octets) in PLACES {
        let before = bed.room.transactions.load(Ordering::Relaxed);
        let mut client = secured(&bed, &roots).await;
        go_to(&mut client, octets).await;
        let taken = bed.room.transactions.load(Ordering::Relaxed);
        client.end_tls_and_write(ATTACK).await;
        let rest = String::from_utf8(client.whatever_comes().await).unwrap();
        // The reply to the chunk that did end is all that can have been on its way.
        assert_eq!(rest.matches("\r\n").count(), usize::from(*place == "between chunks"), "{place}: {rest}");
        assert_eq!(bed.room.transactions.load(Ordering::Relaxed), taken, "{place}: a second transaction");
        assert!(taken - before <= 1, "{place}");
        assert!(bed.messages().is_empty(), "{place}: a message that never ended");
    }
    bed.stop().await;
}

#[tokio::test]
async fn clear_octets_between_records_and_a_cut_connection_end_the_session() {
    let (config, roots) = offering_tls();
    let bed = start(config, Mode::Accept).await;
    for (place, octets) in PLACES {
        for cut in [false, true] {
            let mut client = secured(&bed, &roots).await;
            go_to(&mut client, octets).await;
            let taken = bed.room.transactions.load(Ordering::Relaxed);
            if cut {
                client.cut_beneath().await;
            } else {
                client.write_beneath(ATTACK).await;
            }
            client.whatever_comes().await;
            assert_eq!(bed.room.transactions.load(Ordering::Relaxed), taken, "{place}, cut {cut}");
            assert!(bed.messages().is_empty(), "{place}, cut {cut}");
        }
    }
    bed.stop().await;
}

#[tokio::test]
async fn a_message_that_did_end_is_kept_although_tls_ends_behind_it() {
    let (config, roots) = offering_tls();
    let bed = start(config, Mode::SlowMessage).await;
    let mut client = secured(&bed, &roots).await;
    client.envelope("b@example.org").await;
    assert_eq!(client.code("DATA").await, 354);
    client.write(b"whole\r\n.\r\n").await;
    client.end_tls_and_write(ATTACK).await;
    client.whatever_comes().await;
    support::eventually(|| async { (!bed.messages().is_empty()).then_some(()) }).await;
    assert_eq!(bed.messages().len(), 1);
    assert_eq!(bed.messages()[0].1, b"whole\r\n");
    assert_eq!(bed.room.transactions.load(Ordering::Relaxed), 1);
    bed.stop().await;
}

#[tokio::test]
async fn starttls_comes_once_and_not_in_a_transaction() {
    let (config, roots) = offering_tls();
    let bed = start(config, Mode::Accept).await;
    let mut client = bed.connect().await;
    client.hello().await;
    client.envelope("b@example.org").await;
    assert_eq!(client.code("STARTTLS").await, 503, "in a transaction");
    assert_eq!(client.code("RSET").await, 250);
    client.starttls().await;
    let mut client = client.into_tls(&roots, NAME).await;
    // RFC 3207 4.2: nothing that was said before counts.
    assert_eq!(client.code("MAIL FROM:<a@client.example>").await, 503, "EHLO is forgotten");
    assert_eq!(client.code("RCPT TO:<b@example.org>").await, 503);
    assert_eq!(client.code("DATA").await, 503);
    let offer = client.say("EHLO client.example").await;
    assert!(!offer.contains("STARTTLS"), "{offer}");
    assert_eq!(client.code("STARTTLS").await, 503, "a second time");
    client.envelope("b@example.org").await;
    assert_eq!(client.code("STARTTLS").await, 503, "a second time, in a transaction");
    assert_eq!(client.code("DATA").await, 354, "which changes nothing");
    assert_eq!(client.code("x\r\n.").await, 250);
    bed.stop().await;
}

#[tokio::test]
async fn parameters_and_extra_octets_of_starttls_are_refused() {
    let (config, _) = offering_tls();
    let bed = start(config, Mode::Accept).await;
    let mut client = bed.connect().await;
    client.hello().await;
    assert_eq!(client.code("STARTTLS now").await, 501);
    // RFC 3207 4: the client waits for the reply; whatever rides along is not from it.
    client.write(b"STARTTLS\r\nEHLO injected\r\nAUTH PLAIN AHUAcA==\r\n").await;
    assert_eq!(client.reply().await.0, 554);
    assert_eq!(client.rest().await, b"");
    bed.stop().await;
}

/// What a client says first in a handshake.
fn client_hello(roots: &Roots) -> Vec<u8> {
    let name = ServerName::try_from(NAME).unwrap();
    let mut connection = rustls::ClientConnection::new(roots.clone(), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

/// An honest client from another address of this machine gets through the whole of a session.
async fn honest(bed: &Testbed, roots: &Roots) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let io = socket.connect(bed.address).await.unwrap();
    let mut client = Client::over(io).into_tls(roots, NAME).await;
    client.hello().await;
    client.envelope("b@example.org").await;
    assert_eq!(client.code("DATA").await, 354);
    assert_eq!(client.code("x\r\n.").await, 250);
}

#[tokio::test]
async fn peers_that_begin_a_handshake_and_fall_silent_hold_nobody_up() {
    if tokio::net::TcpSocket::new_v4().unwrap().bind("127.0.0.2:0".parse().unwrap()).is_err() {
        postwright_testkit::skip!("handshakes", "only one loopback address")
    }
    let (mut config, roots) = offering_tls();
    config.implicit_tls = true;
    config.handshakes = 4;
    config.handshakes_per_ip = 3;
    config.handshake_grace = Duration::from_millis(300);
    let bed = start(config, Mode::Accept).await;
    let hello = client_hello(&roots);
    let mut held = Vec::new();
    // Far more than there are slots: some say nothing, some half of a hello, some all of it and no more.
    for number in 0..24 {
        let mut client = bed.connect().await;
        match number % 3 {
            0 => {}
            1 => client.write(&hello[..hello.len() / 2]).await,
            _ => client.write(&hello).await,
        }
        held.push(client);
    }
    for _ in 0..5 {
        honest(&bed, &roots).await;
    }
    assert_eq!(bed.messages().len(), 5);
    drop(held);
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn silence_before_a_handshake_ends_the_connection_soon() {
    let (mut config, roots) = offering_tls();
    config.implicit_tls = true;
    let config = Arc::new(config);
    let hello = client_hello(&roots);
    // Nothing at all; half of the hello; the hello an octet a second; the whole hello and then nothing.
    for (octets, pause, seconds) in
        [(0, 0, 15), (hello.len() / 2, 0, 15), (hello.len() - 1, 1, 15), (hello.len(), 0, 60)]
    {
        let clock = postwright_testkit::PausedClock::start();
        let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
        let (acceptor, settings) = (support::Room::new(Mode::Accept), config.clone());
        let began = tokio::time::Instant::now();
        let served = tokio::spawn(async move {
            let ended = serve_connection(theirs, support::peer(), &acceptor, settings, clock).await;
            (ended.accepted, began.elapsed().as_secs())
        });
        for octet in hello[..octets].chunks(if pause == 0 { hello.len() } else { 1 }) {
            if ours.write_all(octet).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(pause)).await;
        }
        assert_eq!(served.await.unwrap(), (0, seconds), "{octets} octets");
    }
}

/// Keeps the last ticket, and counts them.
#[derive(Debug, Default)]
struct Purse {
    tickets: Mutex<Vec<rustls::client::Tls13ClientSessionValue>>,
    seen: AtomicUsize,
}

impl rustls::client::ClientSessionStore for Purse {
    fn set_kx_hint(&self, _: ServerName<'static>, _: rustls::NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<rustls::NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: rustls::client::Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<rustls::client::Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: rustls::client::Tls13ClientSessionValue) {
        self.seen.fetch_add(1, Ordering::Relaxed);
        self.tickets.lock().unwrap().push(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<rustls::client::Tls13ClientSessionValue> {
        self.tickets.lock().unwrap().pop()
    }
}

#[tokio::test]
async fn tickets_are_sent_only_where_they_are_switched_on_and_hold_for_one_listener() {
    let (certificates, roots) = certificates(NAME);
    let mut beds = Vec::new();
    for tickets in [Tickets::Off, Tickets::On, Tickets::On] {
        let config = settings().with_starttls(server_config(&certificates, None, tickets).unwrap());
        beds.push(start(config, Mode::Accept).await);
    }
    let purse = Arc::new(Purse::default());
    let mut config = (*roots).clone();
    config.resumption = rustls::client::Resumption::store(purse.clone());
    let config = Arc::new(config);
    let (off, on, other) = (0, 1, 2);
    use rustls::HandshakeKind::{Full, Resumed};
    // Off sends none; on sends some, which hold there and not at the other one; and the first has no use for them.
    for (number, kind, seen) in
        [(off, Full, 0), (on, Full, 2), (on, Resumed, 4), (other, Full, 6), (off, Full, 6)]
    {
        let mut client = secured(&beds[number], &config).await;
        // A ticket of the newest connection is the one that is shown next.
        assert_eq!(client.io.get_ref().1.handshake_kind(), Some(kind), "listener {number}");
        assert_eq!(client.code("QUIT").await, 221);
        assert_eq!(purse.seen.load(Ordering::Relaxed), seen, "listener {number}");
    }
}

#[tokio::test]
async fn certificates_are_exchanged_under_load_and_no_connection_fails() {
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(support::identity(NAME));
    }
    let roots: Vec<_> = all.iter().map(|(_, root)| root.clone()).collect();
    let roots = support::trusting(&roots);
    let copy = |number: usize| {
        let (identity, _): &(Identity, _) = &all[number];
        let (names, chain) = (identity.names.clone(), identity.chain.clone());
        vec![Identity { names, chain, key: identity.key.clone_key() }]
    };
    let certificates = Certificates::new(copy(0)).unwrap();
    let config = settings().with_starttls(server_config(&certificates, None, Tickets::Off).unwrap());
    let bed = Arc::new(start(config, Mode::Accept).await);
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (bed, roots) = (bed.clone(), roots.clone());
        load.spawn(async move {
            for _ in 0..15 {
                let mut client = secured(&bed, &roots).await;
                client.envelope("b@example.org").await;
                assert_eq!(client.code("DATA").await, 354);
                assert_eq!(client.code("x\r\n.").await, 250);
            }
        });
    }
    let mut exchanged = 0;
    while let Some(ended) = tokio::select! {
        ended = load.join_next() => Some(ended),
        () = tokio::time::sleep(Duration::from_millis(2)) => None,
    }
    .unwrap_or(Some(Ok(())))
    {
        ended.unwrap();
        exchanged += 1;
        certificates.replace(copy(exchanged % 3)).unwrap();
    }
    assert!(exchanged > 4, "{exchanged}");
    assert_eq!(bed.messages().len(), 60);
}
