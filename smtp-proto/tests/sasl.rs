//! SASL: the RFCs' examples, both roles against each other, and AUTH in the client machine.

#![cfg(feature = "sasl")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postwright_core::{Domain, Instant, Remote, Timestamp};
use postwright_smtp_proto::TlsInfo;
use postwright_smtp_proto::client::{CloseReason, Config, Login, Protection, Session, Step};
use postwright_smtp_proto::sasl::client::{Credentials, Exchange};
use postwright_smtp_proto::sasl::server::{self, Answer, Identity, Progress, Request, Setup};
use postwright_smtp_proto::sasl::{ChannelBinding, Hash, Mechanism, SaslError, ScramKeys, Secret};

fn password(user: &str, password: &str) -> Credentials {
    Credentials::Password { user: user.into(), password: Secret::new(password) }
}

fn token(user: &str, token: &str) -> Credentials {
    Credentials::Token { user: user.into(), token: Secret::new(token) }
}

fn setup(bindings: Vec<ChannelBinding>, plus_offered: bool) -> Setup {
    Setup { random: [9; 18], decoy: [7; 32], hostname: "mx.example.org".into(), bindings, plus_offered }
}

#[test]
fn cram_md5_is_that_of_rfc_2195() {
    let mut client =
        Exchange::new(Mechanism::CramMd5, &password("tim", "tanstaaftanstaaf"), &[], [0; 18]).unwrap();
    assert_eq!(client.first(), None);
    let answer = client.step(b"<1896.697170952@postoffice.reston.mci.net>").unwrap();
    assert_eq!(answer, b"tim b913a602c7eda7a495b4e6e7334d3890");
}

#[test]
fn scram_messages_are_those_of_rfc_5802() {
    // The RFC's client nonce is 24 characters of base64: 18 octets.
    let random: [u8; 18] = STANDARD.decode("fyko+d2lbbFgONRv9qkxdawL").unwrap().try_into().unwrap();
    let mut client = Exchange::new(Mechanism::ScramSha1, &password("user", "pencil"), &[], random).unwrap();
    assert_eq!(client.first().unwrap(), b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
    let last =
        client.step(b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096").unwrap();
    assert_eq!(
        String::from_utf8(last).unwrap(),
        "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
    );
    assert!(!client.is_proven());
    assert_eq!(client.step(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="), Ok(Vec::new()));
    assert!(client.is_proven());
}

#[test]
fn a_server_that_does_not_know_the_password_is_found_out() {
    let random: [u8; 18] = STANDARD.decode("fyko+d2lbbFgONRv9qkxdawL").unwrap().try_into().unwrap();
    for (challenges, error) in [
        (&["r=other,s=QSXCR+Q6sek8bf92,i=4096"][..], SaslError::Server),
        (&["r=fyko+d2lbbFgONRv9qkxdawL,s=QSXCR+Q6sek8bf92,i=4096"], SaslError::Server),
        (&["r=fyko+d2lbbFgONRv9qkxdawLx,s=QSXCR+Q6sek8bf92,i=1"], SaslError::Iterations),
        (&["r=fyko+d2lbbFgONRv9qkxdawLx,s=QSXCR+Q6sek8bf92,i=4000000000"], SaslError::Iterations),
        (&["m=x,r=fyko+d2lbbFgONRv9qkxdawLx,s=QSXCR+Q6sek8bf92,i=4096"], SaslError::Malformed),
        (&["r=fyko+d2lbbFgONRv9qkxdawLx,s=???,i=4096"], SaslError::Malformed),
        (
            &["r=fyko+d2lbbFgONRv9qkxdawLx,s=QSXCR+Q6sek8bf92,i=4096", "v=rmF9pqV8S7suAoZWja4dJRkFsKQ="],
            SaslError::Server,
        ),
        (&["r=fyko+d2lbbFgONRv9qkxdawLx,s=QSXCR+Q6sek8bf92,i=4096", "e=invalid-proof"], SaslError::Refused),
    ] {
        let mut client =
            Exchange::new(Mechanism::ScramSha1, &password("user", "pencil"), &[], random).unwrap();
        client.first();
        let (last, before) = challenges.split_last().unwrap();
        for challenge in before {
            client.step(challenge.as_bytes()).unwrap();
        }
        assert_eq!(client.step(last.as_bytes()), Err(error), "{challenges:?}");
        assert!(!client.is_proven());
    }
}

#[test]
fn first_messages_of_the_rfcs_are_read() {
    let ask = |mechanism, message: &[u8]| {
        server::Exchange::new(mechanism, setup(Vec::new(), false)).step(Some(message))
    };
    let who =
        |user: &str, acts_as: Option<&str>| Identity { user: user.into(), acts_as: acts_as.map(Into::into) };
    // RFC 4616 4.
    let plain = |user, acts_as, password| {
        Progress::Ask(Request::Password { identity: who(user, acts_as), password: Secret::new(password) })
    };
    assert_eq!(ask(Mechanism::Plain, b"\0tim\0tanstaaftanstaaf"), plain("tim", None, "tanstaaftanstaaf"));
    assert_eq!(ask(Mechanism::Plain, b"Ursel\0Kurt\0xipj3plmq"), plain("Kurt", Some("Ursel"), "xipj3plmq"));
    for bad in [&b""[..], b"tim", b"\0tim", b"\0tim\0a\0b", b"\0\0pass", b"\0tim\0", b"\0\xff\0a"] {
        assert!(matches!(ask(Mechanism::Plain, bad), Progress::Refused(_)), "{bad:?}");
    }
    // RFC 7628 4.1.
    let bearer = b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01";
    assert_eq!(
        ask(Mechanism::OAuthBearer, bearer),
        Progress::Ask(Request::Token {
            identity: who("user@example.com", None),
            token: Secret::new("vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==")
        })
    );
    let long = vec![b'x'; 9217];
    assert_eq!(ask(Mechanism::Plain, &long), Progress::Refused(SaslError::TooLong));
}

/// Plays both roles; the store knows `user` with password `pencil` and token `good`.
fn play(
    mechanism: Mechanism,
    credentials: &Credentials,
    ours: &[ChannelBinding],
    setup: Setup,
) -> Result<Identity, SaslError> {
    let mut client = Exchange::new(mechanism, credentials, ours, [3; 18])?;
    let mut server = server::Exchange::new(mechanism, setup);
    let first = client.first();
    let mut progress = server.step(first.as_deref());
    for _ in 0..10 {
        progress = match progress {
            Progress::Challenge(challenge) => {
                let answer = client.step(&challenge)?;
                server.step(Some(&answer))
            }
            Progress::Ask(request) => server.answer(match request {
                Request::Password { identity, password } => {
                    Answer::Verified(&*identity.user == "user" && password.expose() == "pencil")
                }
                Request::Token { identity, token } => {
                    Answer::Verified(&*identity.user == "user" && token.expose() == "good")
                }
                Request::Certificate(identity) => {
                    Answer::Verified(identity.acts_as.as_deref() != Some("mallory"))
                }
                Request::Reveal { user } => {
                    Answer::Password((&*user == "user").then(|| Secret::new("pencil")))
                }
                Request::Keys { user, hash } => Answer::Keys(
                    (&*user == "user").then(|| ScramKeys::derive(hash, "pencil", b"0123456789abcdef", 4096)),
                ),
            }),
            Progress::Accepted(identity) => {
                assert!(client.is_proven(), "{mechanism}");
                return Ok(identity);
            }
            Progress::Refused(error) => return Err(error),
        };
    }
    panic!("{mechanism} does not end");
}

#[test]
fn both_roles_agree_in_every_mechanism() {
    let binding = ChannelBinding::Exporter([5; 32]);
    for mechanism in Mechanism::ALL {
        assert_eq!(Mechanism::from_name(&mechanism.as_str().to_lowercase()), Some(mechanism));
        let bearer = matches!(mechanism, Mechanism::XOAuth2 | Mechanism::OAuthBearer);
        let (good, bad) = match mechanism {
            Mechanism::External => (
                Credentials::External { identity: None },
                vec![Credentials::External { identity: Some("mallory".into()) }],
            ),
            _ if bearer => (token("user", "good"), vec![token("user", "old"), token("nobody", "good")]),
            _ => {
                (password("user", "pencil"), vec![password("user", "pencils"), password("nobody", "pencil")])
            }
        };
        let bindings = if mechanism.is_bound() { vec![binding.clone()] } else { Vec::new() };
        let identity =
            play(mechanism, &good, &bindings, setup(bindings.clone(), mechanism.is_bound())).unwrap();
        let expected = if mechanism == Mechanism::External { "" } else { "user" };
        assert_eq!((&*identity.user, identity.acts_as), (expected, None), "{mechanism}");
        for bad in bad {
            assert_eq!(
                play(mechanism, &bad, &bindings, setup(bindings.clone(), mechanism.is_bound())),
                Err(SaslError::Refused),
                "{mechanism}"
            );
        }
    }
}

#[test]
fn channel_binding_finds_the_man_between() {
    let (ours, theirs) = (ChannelBinding::Exporter([5; 32]), ChannelBinding::Exporter([6; 32]));
    let user = password("user", "pencil");
    let plus = Mechanism::ScramSha256Plus;
    assert_eq!(
        play(plus, &user, std::slice::from_ref(&ours), setup(vec![theirs], true)),
        Err(SaslError::Refused)
    );
    assert_eq!(play(plus, &user, &[], setup(Vec::new(), true)), Err(SaslError::NoBinding));
    let end_point = ChannelBinding::ServerEndPoint(Box::new([1; 32]));
    assert_eq!(
        play(plus, &user, std::slice::from_ref(&end_point), setup(vec![ours.clone()], true)),
        Err(SaslError::NoBinding)
    );
    assert!(
        play(
            plus,
            &user,
            std::slice::from_ref(&end_point),
            setup(vec![ours.clone(), end_point.clone()], true)
        )
        .is_ok()
    );
    // The offer of -PLUS was taken away on its way: the client could bind and says so.
    assert_eq!(
        play(Mechanism::ScramSha256, &user, std::slice::from_ref(&ours), setup(vec![ours.clone()], true)),
        Err(SaslError::NoBinding)
    );
    assert!(
        play(Mechanism::ScramSha256, &user, std::slice::from_ref(&ours), setup(vec![ours.clone()], false))
            .is_ok()
    );
}

#[test]
fn unknown_users_look_like_known_ones() {
    let challenge = |user: &str| {
        let mut client = Exchange::new(Mechanism::ScramSha256, &password(user, "x"), &[], [3; 18]).unwrap();
        let mut server = server::Exchange::new(Mechanism::ScramSha256, setup(Vec::new(), false));
        server.step(client.first().as_deref());
        match server.answer(Answer::Keys(None)) {
            Progress::Challenge(challenge) => String::from_utf8(challenge).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(challenge("nobody"), challenge("nobody"), "the same salt each time");
    assert_ne!(challenge("nobody"), challenge("somebody"));
    assert!(challenge("nobody").ends_with(",i=4096"));
}

#[test]
fn the_best_mechanism_is_chosen() {
    let all: Vec<&str> = Mechanism::ALL.iter().map(|mechanism| mechanism.as_str()).collect();
    let user = password("user", "pencil");
    let choose = |offered: &[&str], clear, bound| user.choose(offered.iter().copied(), clear, bound);
    assert_eq!(choose(&all, true, true), Some(Mechanism::ScramSha256Plus));
    assert_eq!(choose(&all, true, false), Some(Mechanism::ScramSha256));
    assert_eq!(choose(&["LOGIN", "cram-md5", "PLAIN"], true, false), Some(Mechanism::CramMd5));
    assert_eq!(choose(&["LOGIN", "PLAIN", "X"], true, false), Some(Mechanism::Plain));
    assert_eq!(choose(&["LOGIN", "PLAIN"], false, false), None);
    assert_eq!(token("u", "t").choose(all.iter().copied(), true, true), Some(Mechanism::OAuthBearer));
    assert!(!format!("{user:?}").contains("pencil"));
}

/// Runs the client machine against replies; what it wrote after EHLO, and how it ended (`None`: ready).
fn session(
    login: Login,
    tls: Option<TlsInfo>,
    offer: &str,
    replies: &[&str],
) -> (String, Option<CloseReason>) {
    let config = Arc::new(Config::new("client.example".parse::<Domain>().unwrap()));
    let remote = Remote { host: "mx.example.org".parse().unwrap(), address: None, tls: None };
    let now = Instant::ZERO;
    let mut session = Session::new(config, remote, Timestamp::from_secs(1), now);
    if let Some(tls) = tls {
        session.handle_tls(tls, now);
    }
    session.set_login(login);
    let hello = format!("250-mx\r\n250 AUTH {offer}\r\n");
    let mut replies = ["220 mx\r\n", &hello].into_iter().chain(replies.iter().copied());
    let mut wrote = String::new();
    loop {
        match session.poll() {
            Step::Write { bytes, .. } => {
                wrote.push_str(std::str::from_utf8(bytes).unwrap());
                let len = bytes.len();
                session.handle_written(len, now);
            }
            Step::Read { .. } => session.handle_input(replies.next().unwrap().as_bytes(), now),
            Step::Ready => return (wrote.split_off("EHLO client.example\r\n".len()), None),
            Step::Close(reason) => return (wrote.split_off("EHLO client.example\r\n".len()), Some(reason)),
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn the_client_machine_authenticates_before_mail() {
    let verified = || Some(TlsInfo { verified: true, ..TlsInfo::default() });
    let login = |credentials, protection| Login::new(credentials, protection, [0; 18]);
    let tim = || password("tim", "tanstaaftanstaaf");
    // RFC 4954 and RFC 4616: AHRpbQB0YW5zdGFhZnRhbnN0YWFm is "\0tim\0tanstaaftanstaaf".
    let plain = "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n";
    let ok = ["235 2.7.0 Authentication successful\r\n"];
    assert_eq!(
        session(login(tim(), Protection::VerifiedTls), verified(), "PLAIN LOGIN", &ok),
        (plain.to_owned(), None)
    );
    let (wrote, end) = session(login(tim(), Protection::Clear), None, "PLAIN", &["535 5.7.8 no\r\n"]);
    assert_eq!((wrote.as_str(), end), (plain, Some(CloseReason::Auth("535 5.7.8 no".into()))));
    // LOGIN asks one by one.
    let (wrote, end) = session(
        login(tim(), Protection::AnyTls),
        Some(TlsInfo::default()),
        "LOGIN",
        &["334 VXNlcm5hbWU6\r\n", "334 UGFzc3dvcmQ6\r\n", ok[0]],
    );
    assert_eq!((wrote.as_str(), end), ("AUTH LOGIN\r\ndGlt\r\ndGFuc3RhYWZ0YW5zdGFhZg==\r\n", None));
    // EXTERNAL with nothing to say is `=`.
    let external = Credentials::External { identity: None };
    assert_eq!(
        session(login(external, Protection::VerifiedTls), verified(), "EXTERNAL", &ok),
        ("AUTH EXTERNAL =\r\n".to_owned(), None)
    );
    // A long token goes after an empty challenge.
    let long = token("user", &"t".repeat(600));
    let (wrote, end) =
        session(login(long, Protection::VerifiedTls), verified(), "XOAUTH2", &["334 \r\n", ok[0]]);
    assert!(wrote.starts_with("AUTH XOAUTH2\r\ndXNlcj11c2Vy") && end.is_none());
}

#[test]
fn only_the_mechanisms_that_are_named_are_used() {
    let login = |only: &[Mechanism]| {
        Login::new(password("tim", "tanstaaftanstaaf"), Protection::Clear, [0; 18]).only(only.iter().copied())
    };
    let offered = "CRAM-MD5 LOGIN PLAIN";
    let ok = ["235 2.7.0 ok\r\n"];
    let (wrote, end) = session(login(&[Mechanism::Plain, Mechanism::Login]), None, offered, &ok);
    assert_eq!((wrote.split(' ').nth(1), end), (Some("PLAIN"), None), "the best of those that both have");
    let (wrote, end) = session(login(&[Mechanism::ScramSha256]), None, offered, &[]);
    assert_eq!(wrote, "");
    assert!(matches!(end, Some(CloseReason::Auth(_))), "{end:?}");
}

#[test]
fn credentials_do_not_leave_an_unprotected_connection() {
    let login = |protection| Login::new(password("tim", "x"), protection, [0; 18]);
    for (protection, tls) in [
        (Protection::VerifiedTls, None),
        (Protection::VerifiedTls, Some(TlsInfo::default())),
        (Protection::AnyTls, None),
    ] {
        let (wrote, end) = session(login(protection), tls, "PLAIN", &[]);
        assert_eq!(wrote, "");
        assert!(matches!(end, Some(CloseReason::Auth(_))));
    }
    // A server that only says it succeeded has not proved that it knows the password.
    let (wrote, end) = session(login(Protection::Clear), None, "SCRAM-SHA-256", &["235 2.7.0 sure\r\n"]);
    assert!(wrote.starts_with("AUTH SCRAM-SHA-256 biws"), "{wrote}");
    assert!(matches!(end, Some(CloseReason::Auth(_))));
    // Nonsense is cancelled.
    let (wrote, _) =
        session(login(Protection::Clear), None, "CRAM-MD5", &["334 ???\r\n", "501 5.7.0 cancelled\r\n"]);
    assert_eq!(wrote, "AUTH CRAM-MD5\r\n*\r\n");
}

proptest::proptest! {
    #[test]
    fn no_message_makes_either_role_panic(
        mechanism in proptest::sample::select(Mechanism::ALL.to_vec()),
        messages in proptest::collection::vec("[ -~\0\u{1}]{0,40}|r=[a-z]{0,4},s=QQ==,i=4096", 1..4),
    ) {
        let mut server = server::Exchange::new(mechanism, setup(Vec::new(), false));
        for message in &messages {
            if let Progress::Ask(_) = server.step(Some(message.as_bytes())) {
                server.answer(Answer::Keys(Some(ScramKeys::derive(Hash::Sha1, "x", b"salt", 2))));
            }
        }
        for credentials in [password("u", "p"), token("u", "t"), Credentials::External { identity: None }] {
            let Ok(mut client) = Exchange::new(mechanism, &credentials, &[], [1; 18]) else { continue };
            client.first();
            for message in &messages {
                let _ = client.step(message.as_bytes());
            }
        }
    }
}
