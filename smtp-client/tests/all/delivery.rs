//! Whole deliveries against scripted servers: next hosts, TLS, time-outs in paused time.

use std::sync::Arc;
use std::time::Duration;

use crate::peer::{HELLO, ONE, QUIT, Scripts, certificate, client, hosts, options, shown, transaction};
use postwright_core::{Domain, Message};
use postwright_smtp_client::{Client, Demand, Options, Target, Trust};
use postwright_smtp_proto::client::{Config, StartTls};

#[tokio::test(start_paused = true)]
async fn a_message_is_delivered_and_quit_is_said() {
    let scripts = Scripts::new(&[Some(&format!("{HELLO}{ONE}{QUIT}"))], None);
    let report = client(&scripts, Vec::new()).deliver(&hosts(1), &options(), transaction()).await;
    assert_eq!(shown(&report), ["Delivered 2.0.0 end-of-data"]);
    let remote = report.statuses[0].remote.as_ref().unwrap();
    assert_eq!(remote.host.to_string(), "mx0.x.example");
    assert_eq!(scripts.log(), ["Subject: x\r\n\r\n..dot\r\n.\r\n"]);
}

#[tokio::test(start_paused = true)]
async fn the_next_host_is_tried_until_one_takes_part() {
    let good = format!("{HELLO}{ONE}{QUIT}");
    let drops = format!("{HELLO}CLOSE");
    let all: [Option<&str>; 7] = [
        None,
        Some("S: 554 5.7.1 go away"),
        Some("S: 421 4.3.2 busy"),
        Some("CLOSE"),
        Some(&drops),
        Some("S: what"),
        Some(&good),
    ];
    let scripts = Scripts::new(&all, None);
    let report = client(&scripts, Vec::new()).deliver(&hosts(7), &options(), transaction()).await;
    assert_eq!(shown(&report), ["Delivered 2.0.0 end-of-data"]);
    assert_eq!(scripts.left(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_one_host_is_final_only_if_all_refuse() {
    for (all, expected) in [
        (vec![Some("S: 554 5.7.1 no"), None], "Delayed 4.4.1 connect"),
        (vec![None, Some("S: 554 5.7.1 no")], "Delayed 4.4.1 connect"),
        (vec![Some("S: 554 5.7.1 no"), Some("S: 554 5.7.2 no")], "Failed 5.7.1 greeting"),
        (vec![], "Delayed 4.4.1 connect"),
    ] {
        let scripts = Scripts::new(&all, None);
        let count = u16::try_from(all.len()).unwrap();
        let report = client(&scripts, Vec::new()).deliver(&hosts(count), &options(), transaction()).await;
        assert_eq!(shown(&report), [expected], "{all:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_second_host_once_the_message_may_have_been_taken() {
    let taken = ONE.replace("S: 250 2.0.0 ok\n", "CLOSE");
    let refused = "C: MAIL FROM:<a@client.example>\nC: RCPT TO:<b@x.example>\nC: DATA\nS: 250 ok\nS: 451 4.7.1 grey\nS: 503 no\n";
    for (script, expected) in [
        (format!("{HELLO}{taken}"), "Unknown 4.4.2 end-of-data"),
        (format!("{HELLO}{}", taken.replace("CLOSE", "HANG")), "Unknown 4.4.2 end-of-data"),
        (format!("{HELLO}{refused}"), "Delayed 4.7.1 rcpt"),
    ] {
        let scripts = Scripts::new(&[Some(&script), Some("S: 220 never")], None);
        let report = client(&scripts, Vec::new()).deliver(&hosts(2), &options(), transaction()).await;
        assert_eq!(shown(&report), [expected], "{script}");
        assert_eq!(scripts.left(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn silent_servers_are_given_up_in_time() {
    // RFC 5321 4.5.3.2: 5 min for the greeting and MAIL, 2 min for DATA, 10 min for the end; 4 h for all is ours.
    let slow = format!("S: 220 mx\nC: EHLO client.example\n{}", "WAIT 60\nS: 250-x\n".repeat(200));
    let envelope = "C: MAIL FROM:<a@client.example>\nC: RCPT TO:<b@x.example>\nC: DATA\n";
    for (script, expected, seconds) in [
        ("HANG".to_owned(), "Delayed 4.4.2 greeting", 300),
        ("S: 220-one\nWAIT 290\nS: 220-two\nHANG".to_owned(), "Delayed 4.4.2 greeting", 300),
        (slow, "Delayed 4.4.2 hello", 300),
        (format!("{HELLO}{envelope}HANG"), "Delayed 4.4.2 mail", 300),
        (format!("{HELLO}{envelope}S: 250 ok\nS: 250 ok\nHANG"), "Delayed 4.4.2 data", 120),
        (
            format!("{HELLO}{envelope}S: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nHANG"),
            "Unknown 4.4.2 end-of-data",
            600,
        ),
    ] {
        let scripts = Scripts::new(&[Some(&script)], None);
        let start = tokio::time::Instant::now();
        let report = client(&scripts, Vec::new()).deliver(&hosts(1), &options(), transaction()).await;
        assert_eq!((shown(&report)[0].as_str(), start.elapsed().as_secs()), (expected, seconds), "{script}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_reading_is_given_up() {
    let envelope = "C: MAIL FROM:<a@client.example>\nC: RCPT TO:<b@x.example>\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nHANG";
    let scripts = Scripts::new(&[Some(&format!("{HELLO}{envelope}"))], None);
    let mut big = transaction();
    big.message = Message::from_bytes(vec![b'x'; 100_000]);
    let start = tokio::time::Instant::now();
    let report = client(&scripts, Vec::new()).deliver(&hosts(1), &options(), big).await;
    assert_eq!((shown(&report)[0].as_str(), start.elapsed().as_secs()), ("Delayed 4.4.2 body", 180));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_before_it_reads_cannot_block_us() {
    // 300 recipients fill both directions of a 4 KiB pipe several times over.
    let mut many = transaction();
    let names: Vec<String> = (0..300).map(|i| format!("user-with-a-long-name-{i}@x.example")).collect();
    many.envelope.recipients =
        names.iter().map(|name| name.parse::<postwright_core::Mailbox>().unwrap().into()).collect();
    let mut script = HELLO.to_owned();
    script.push_str("C: MAIL FROM:<a@client.example>\nS: 250 ok\n");
    for name in &names {
        script.push_str(&format!("C: RCPT TO:<{name}>\nS: 250 2.1.5 {}\n", "x".repeat(200)));
    }
    script.push_str("C: DATA\nS: 354 go\nBODY\nS: 250 2.0.0 ok\n");
    script.push_str(QUIT);
    let scripts = Scripts::new(&[Some(&script)], None);
    let report = client(&scripts, Vec::new()).deliver(&hosts(1), &options(), many).await;
    assert!(report.is_success(), "{:?} {:?}", shown(&report), scripts.log());
}

const STARTTLS: &str = "S: 220 mx\nC: EHLO client.example\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\nTLS\n\
    C: EHLO client.example\nS: 250-mx\nS: 250 PIPELINING\n";

fn with(starttls: StartTls, demand: Demand) -> Options {
    let mut config = Config::new("client.example".parse::<Domain>().unwrap());
    config.starttls = starttls;
    let mut options = Options::new(config);
    options.demand = demand;
    options
}

#[tokio::test(start_paused = true)]
async fn certificates_are_judged_as_demanded_and_told_as_they_are() {
    let valid = || Demand::Valid { names: Vec::new() };
    let named = |name: &str| Demand::Valid { names: vec!["other.example".into(), name.into()] };
    let script = format!("{STARTTLS}{ONE}{QUIT}");
    // Names in the certificate, expired, root known; demand; expected, verified.
    for (names, expired, known, demand, delivered, verified) in [
        (&["mx0.x.example"][..], false, true, Demand::Nothing, true, true),
        (&["mx0.x.example"], false, true, valid(), true, true),
        (&["*.x.example"], false, true, valid(), true, true),
        (&["wrong.example"], false, true, Demand::Nothing, true, false),
        (&["wrong.example"], false, true, valid(), false, false),
        (&["wrong.example"], false, true, named("wrong.example"), true, true),
        (&["mx0.x.example"], false, true, named("wrong.example"), false, false),
        (&["mx0.x.example"], true, true, Demand::Nothing, true, false),
        (&["mx0.x.example"], true, true, valid(), false, false),
        (&["mx0.x.example"], false, false, Demand::Nothing, true, false),
        (&["mx0.x.example"], false, false, valid(), false, false),
    ] {
        let (acceptor, root) = certificate(names, expired);
        let scripts = Scripts::new(&[Some(&script)], Some(acceptor));
        let roots = if known { vec![root] } else { Vec::new() };
        let options = with(StartTls::Required, demand.clone());
        let report = client(&scripts, roots).deliver(&hosts(1), &options, transaction()).await;
        let case = format!("{names:?} expired={expired} known={known} {demand:?} {:?}", scripts.log());
        if delivered {
            assert_eq!(shown(&report), ["Delivered 2.0.0 end-of-data"], "{case}");
            let tls = report.statuses[0].remote.as_ref().unwrap().tls.clone().unwrap();
            assert_eq!((&*tls.version, tls.verified), ("TLSv1.3", verified), "{case}");
        } else {
            assert_eq!(shown(&report), ["Delayed 4.7.5 starttls"], "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_without_tls_gets_mail_only_if_that_is_allowed() {
    let plain = format!("{HELLO}{ONE}{QUIT}");
    let scripts = Scripts::new(&[Some(&plain)], None);
    let options = with(StartTls::Opportunistic, Demand::Nothing);
    let report = client(&scripts, Vec::new()).deliver(&hosts(1), &options, transaction()).await;
    assert_eq!(report.statuses[0].remote.as_ref().unwrap().tls, None);
    assert!(report.is_success());
    let scripts = Scripts::new(&[Some(&plain)], None);
    let options = with(StartTls::Required, Demand::Nothing);
    let report = client(&scripts, Vec::new()).deliver(&hosts(1), &options, transaction()).await;
    assert_eq!(shown(&report), ["Delayed 4.7.4 starttls"]);
}

#[tokio::test(start_paused = true)]
async fn implicit_tls_comes_before_the_greeting() {
    let (acceptor, root) = certificate(&["mx0.x.example"], false);
    let scripts = Scripts::new(&[Some(&format!("TLS\n{HELLO}{ONE}{QUIT}"))], Some(acceptor));
    let mut options = with(StartTls::Required, Demand::Valid { names: Vec::new() });
    options.implicit_tls = true;
    let report = client(&scripts, vec![root]).deliver(&hosts(1), &options, transaction()).await;
    assert!(report.is_success(), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_takes_message_after_message() {
    let scripts = Scripts::new(&[Some(&format!("{HELLO}{ONE}{ONE}{ONE}{QUIT}"))], None);
    let client = client(&scripts, Vec::new());
    let mut connection = client.connect(&hosts(1)[0], &options()).await.unwrap();
    assert!(connection.session().capabilities().pipelining);
    for n in 1..=3 {
        assert!(connection.is_alive().await);
        assert!(connection.deliver(transaction()).await.is_success());
        assert_eq!(connection.transactions(), n);
        tokio::time::advance(Duration::from_secs(1000)).await;
    }
    connection.quit().await;
    assert_eq!(scripts.log().len(), 3);
}

#[cfg(feature = "sasl")]
#[tokio::test(start_paused = true)]
async fn an_account_is_used_over_verified_tls_only() {
    use postwright_smtp_client::Account;
    use postwright_smtp_proto::client::Protection;
    use postwright_smtp_proto::sasl::{Secret, client::Credentials};
    let (acceptor, root) = certificate(&["mx0.x.example"], false);
    let offer = STARTTLS.replace("S: 250 PIPELINING\n", "S: 250-PIPELINING\nS: 250 AUTH PLAIN\n");
    let script = format!("{offer}C: AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\nS: 235 2.7.0 ok\n{ONE}{QUIT}");
    let mut options = with(StartTls::Required, Demand::Nothing);
    options.account = Some(Account {
        credentials: Credentials::Password { user: "tim".into(), password: Secret::new("tanstaaftanstaaf") },
        protection: Protection::VerifiedTls,
        mechanisms: Vec::new(),
        entropy: Arc::new(postwright_core::SeededEntropy::new(1)),
    });
    for (roots, expected) in [(vec![root], "Delivered 2.0.0 end-of-data"), (Vec::new(), "Delayed 4.7.8 auth")]
    {
        let scripts = Scripts::new(&[Some(&script)], Some(acceptor.clone()));
        let report = client(&scripts, roots).deliver(&hosts(1), &options, transaction()).await;
        assert_eq!(shown(&report), [expected], "{:?}", scripts.log());
    }
}

#[tokio::test]
async fn real_sockets_are_bound_to_the_source_and_refusals_are_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, peer) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"421 4.3.2 not now\r\n").await.unwrap();
        peer.ip().to_string()
    });
    let clock = Arc::new(postwright_core::SystemClock::new());
    let client = Client::new(&Trust::Roots(Vec::new()), clock).unwrap();
    let target = Target { host: "mx.example".parse().unwrap(), address };
    let mut options = options();
    options.source = Some("127.0.0.2".parse().unwrap());
    let report = client.deliver(std::slice::from_ref(&target), &options, transaction()).await;
    assert_eq!(shown(&report), ["Delayed 4.3.2 greeting"]);
    assert_eq!(server.await.unwrap(), "127.0.0.2");
    // The listener is gone now.
    let report = client.deliver(&[target], &options, transaction()).await;
    assert_eq!(shown(&report), ["Delayed 4.4.1 connect"]);
}
