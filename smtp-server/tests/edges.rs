//! The driver at its edges: caps, peers that go away or do not listen, certificates that change, trusted proxies.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use postwright_smtp_server::tls::{Certificates, Tickets, server_config};
use postwright_smtp_server::{Socket, serve_connection};
use support::{Client, Mode, Room, settings, start, start_room};
use tokio::io::AsyncReadExt as _;

#[tokio::test]
async fn caps_turn_away_with_a_reason_and_places_come_back() {
    let mut capped = settings();
    capped.connections_per_ip = 2;
    let bed = start(capped, Mode::Accept).await;
    let mut one = bed.connect().await;
    let mut two = bed.connect().await;
    one.hello().await;
    two.hello().await;
    assert_eq!(bed.connect().await.reply().await.0, 421);
    assert_eq!(one.code("QUIT").await, 221);
    one.rest().await;
    let mut again = support::eventually(|| async {
        let mut client = bed.connect().await;
        let (code, _) = client.reply().await;
        (code == 220).then_some(client)
    })
    .await;
    assert_eq!(again.code("NOOP").await, 250);
    assert!(bed.counters.turned_away() >= 1);
    bed.stop().await;
}

#[tokio::test]
async fn a_closing_refusal_is_read_although_the_client_goes_on_sending() {
    let bed = start(settings(), Mode::Accept).await;
    let mut client = bed.connect().await;
    client.hello().await;
    client.envelope("b@example.org").await;
    assert_eq!(client.code("DATA").await, 354);
    client.write(b"bare\nLF\r\n").await;
    for _ in 0..50 {
        client.write(&[b'x'; 10_000]).await;
    }
    assert_eq!(client.reply().await.0, 521);
    bed.stop().await;
}

#[tokio::test]
async fn talk_before_the_greeting_is_seen() {
    let bed = start(settings(), Mode::SlowAccept).await;
    let mut client = bed.connect().await;
    client.write(b"EHLO too.early\r\n").await;
    assert_eq!(client.reply().await.0, 554);
    assert_eq!(client.rest().await, b"");
    bed.stop().await;
}

#[tokio::test]
async fn a_gone_peer_withdraws_a_question_but_not_one_about_a_message() {
    let bed = start(settings(), Mode::SlowMessage).await;
    let mut client = bed.connect().await;
    client.hello().await;
    client.envelope("b@example.org").await;
    assert_eq!(client.code("DATA").await, 354);
    client.write(b"x\r\n.\r\n").await;
    drop(client);
    support::eventually(|| async { (bed.messages().len() == 1).then_some(()) }).await;

    let mut client = bed.connect().await;
    client.hello().await;
    assert_eq!(client.code("MAIL FROM:<>").await, 250);
    client.write(b"RCPT TO:<hang@example.org>\r\n").await;
    drop(client);
    support::eventually(|| async { (bed.counters.open() == 0).then_some(()) }).await;
    bed.stop().await;
}

#[tokio::test]
async fn a_message_that_does_not_finish_in_time_is_refused_when_stopping() {
    let mut quick = settings();
    quick.drain_timeout = Duration::from_millis(50);
    let bed = start(quick, Mode::Accept).await;
    let mut client = bed.connect().await;
    client.hello().await;
    client.envelope("b@example.org").await;
    assert_eq!(client.code("DATA").await, 354);
    client.write(b"half a mess").await;
    let (room, stopped) = bed.stopping();
    let (code, text) = client.reply().await;
    assert_eq!(code, 421, "{text}");
    assert!(text.contains("4.3.2"));
    assert_eq!(client.rest().await, b"");
    drop(client);
    assert_eq!(stopped.await.unwrap().cut, 1);
    assert!(room.mails.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_session() {
    let clock = postwright_testkit::PausedClock::start();
    let (mut client, theirs) = tokio::io::duplex(4096);
    let session = tokio::spawn(async move {
        let peer = support::peer();
        serve_connection(theirs, peer, &Room::new(Mode::Accept), Arc::new(settings()), clock).await
    });
    let started = tokio::time::Instant::now();
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    let text = String::from_utf8(all).unwrap();
    assert!(text.starts_with("220 ") && text.contains("\r\n421 4.4.2 "), "{text}");
    assert_eq!(started.elapsed().as_secs(), 300);
    drop(client);
    session.await.unwrap();
}

#[tokio::test]
async fn certificates_go_by_name_and_can_be_replaced_while_connections_stand() {
    let names = ["mx.example.org", "mx.example.net"];
    let (one, one_root) = support::identity(names[0]);
    let (two, two_root) = support::identity(names[1]);
    let certificates = Certificates::new(vec![one, two]).unwrap();
    let roots = support::trusting(&[one_root, two_root]);
    let mut config = settings();
    config.tls = Some(server_config(&certificates, None, Tickets::Off).unwrap());
    config.implicit_tls = true;
    let bed = start(config, Mode::Accept).await;
    // Each name gets its own certificate: the client checks.
    let mut old = Client::tls(bed.address, &roots, names[0]).await;
    Client::tls(bed.address, &roots, names[1]).await;

    let (new, new_root) = support::identity(names[0]);
    assert!(certificates.replace(Vec::new()).is_err());
    certificates.replace(vec![new]).unwrap();
    assert_eq!(old.code("EHLO x").await, 250, "a connection that stands is not touched");
    let new_roots = support::trusting(&[new_root]);
    Client::tls(bed.address, &new_roots, names[0]).await;
    bed.stop().await;
}

#[tokio::test]
async fn a_trusted_proxy_may_speak_for_another_client() {
    let mut room = Room::new(Mode::Accept);
    let mut offer = (*settings().session).clone();
    offer.xclient = true;
    room.offer = Some(Arc::new(offer));
    let bed = start_room(settings(), room).await;
    let mut client = bed.connect().await;
    client.hello().await;
    assert_eq!(client.code("XCLIENT ADDR=192.0.2.77 PORT=7").await, 220);
    assert_eq!(bed.room.peers.lock().unwrap().last().unwrap().to_string(), "192.0.2.77:7");
    bed.stop().await;
}

#[tokio::test]
async fn a_proxy_header_states_the_client() {
    for octets in [
        b"PROXY TCP4 192.0.2.77 192.0.2.1 40000 25\r\n".to_vec(),
        postwright_smtp_proto::proxy::encode_v2(
            "192.0.2.77:40000".parse().unwrap(),
            "192.0.2.1:25".parse().unwrap(),
        ),
    ] {
        let mut behind = settings();
        behind.proxy_protocol = true;
        let bed = start(behind, Mode::Accept).await;
        let mut client = bed.connect().await;
        client.write(&octets).await;
        client.hello().await;
        assert_eq!(bed.room.peers.lock().unwrap()[0].to_string(), "192.0.2.77:40000");
        let mut stranger = bed.connect().await;
        stranger.write(b"EHLO xxxxxxxx\r\n").await;
        assert_eq!(stranger.rest().await, b"", "closed without a word");
        bed.stop().await;
    }
}

#[tokio::test]
async fn when_connections_are_many_patience_is_short_for_new_ones() {
    for own in [false, true] {
        let mut busy = settings();
        (busy.connections, busy.stress_percent) = (10, 50);
        let mut room = Room::new(Mode::Accept);
        // What an acceptor offers to one client in particular shrinks as well.
        room.offer = own.then(|| settings().session);
        let bed = start_room(busy, room).await;
        let mut early = Vec::new();
        for _ in 0..5 {
            let mut client = bed.connect().await;
            client.hello().await;
            early.push(client);
        }
        let mut late = bed.connect().await;
        late.hello().await;
        // Whoever came before has the usual patience, whoever comes now hardly any (`Limits::stressed`).
        for _ in 0..5 {
            assert_eq!(early[0].code("NONSENSE").await, 500);
        }
        assert_eq!(late.code("NONSENSE").await, 500);
        assert_eq!(late.reply().await.0, 421);
        drop(early);
        support::eventually(|| async { (bed.counters.open() <= 1).then_some(()) }).await;
        let mut calm = bed.connect().await;
        calm.hello().await;
        assert_eq!((calm.code("NONSENSE").await, calm.code("NOOP").await), (500, 250), "over again");
        drop((calm, late));
        bed.stop().await;
    }
}

#[tokio::test]
async fn ports_are_shared_and_families_kept_apart_where_that_is_asked_for() {
    let any = "127.0.0.1:0".parse().unwrap();
    let shared = Socket { share_port: true, ..Socket::default() };
    let first = shared.listen(any).unwrap();
    let address = first.local_addr().unwrap();
    shared.listen(address).unwrap();
    assert!(Socket::default().listen(address).is_err(), "not without asking");
    let Ok(both) = Socket::default().listen("[::]:0".parse().unwrap()) else {
        postwright_testkit::skip!("dual-stack", "no IPv6 here")
    };
    let port = both.local_addr().unwrap().port();
    for loopback in ["127.0.0.1", "::1"] {
        let ip: std::net::IpAddr = loopback.parse().unwrap();
        tokio::net::TcpStream::connect((ip, port)).await.unwrap();
        assert_eq!(both.accept().await.unwrap().1.ip().to_canonical(), ip);
    }
    let six = Socket { dual_stack: false, ..Socket::default() }.listen("[::]:0".parse().unwrap()).unwrap();
    let port = six.local_addr().unwrap().port();
    let four = Socket::default().listen(([0, 0, 0, 0], port).into()).unwrap();
    tokio::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).await.unwrap();
    four.accept().await.unwrap();
}
