//! AUTH through the whole server: SCRAM, PLAIN, lock-out, several credentials, a store that is down.
#![cfg(feature = "auth")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use postwright_core::{ManualClock, ReversePath, SeededEntropy};
use postwright_smtp_proto::TlsInfo;
use postwright_smtp_proto::sasl::client::{Credentials, Exchange};
use postwright_smtp_proto::sasl::{ChannelBinding, Mechanism, Secret};
use postwright_smtp_server::auth::{
    Accounts, Answered, Authenticator, CredentialStore, Lockout, Login, StoreDown,
};
use postwright_smtp_server::{Answer, Session};

/// The example of RFC 7677 3: user `user`, password `pencil`; the keys computed by Python's hashlib from its salt.
const RFC_7677: &str = "user:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

fn password(user: &str, password: &str) -> Credentials {
    Credentials::Password { user: user.into(), password: Secret::new(password) }
}

fn authenticator(store: impl CredentialStore + 'static) -> Arc<Authenticator> {
    let (clock, entropy) = (Arc::new(ManualClock::default()), Arc::new(SeededEntropy::new(7)));
    let lockout = Lockout::new(100, 3, Duration::from_secs(900));
    Arc::new(
        Authenticator::new(Arc::new(store), clock, entropy, "mx.example.org", [1; 32]).with_lockout(lockout),
    )
}

fn session() -> Session {
    let mut peer = support::peer();
    peer.tls = Some(TlsInfo { exporter: Some([5; 32]), ..TlsInfo::default() });
    Session::of_peer(peer)
}

async fn log_in(login: &mut Login, mechanism: Mechanism, credentials: &Credentials) -> Answer {
    let bindings = [ChannelBinding::Exporter([5; 32])];
    let mut client = Exchange::new(mechanism, credentials, &bindings, [3; 18]).unwrap();
    let (session, mut first) = (session(), true);
    let mut response = client.first();
    loop {
        match login.step(&session, mechanism.as_str(), response.as_deref(), first).await {
            Answer::Challenge(challenge) => response = Some(client.step(&challenge).unwrap()),
            answer => return answer,
        }
        first = false;
    }
}

fn code(answer: &Answer) -> u16 {
    match answer {
        Answer::Accepted { .. } => 235,
        Answer::Refused { reply, .. } => reply.reply().code().get(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_password_mechanism_with_keys_that_others_made() {
    let shared = authenticator(Accounts::parse(RFC_7677).unwrap());
    for mechanism in [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256, Mechanism::ScramSha256Plus]
    {
        // A client that could bind and says so is lied to when -PLUS was offered; ours says it cannot.
        let mut login = shared.login();
        if mechanism != Mechanism::ScramSha256 {
            let answer = log_in(&mut login, mechanism, &password("user", "pencil")).await;
            assert_eq!(code(&answer), 235, "{mechanism}");
            assert_eq!(&*login.identity().unwrap().user, "user");
        }
        let mut login = shared.login();
        let answer = log_in(&mut login, mechanism, &password("nobody", "pencil")).await;
        assert_eq!(code(&answer), 535, "{mechanism}");
        assert!(login.identity().is_none());
    }
}

#[tokio::test]
async fn several_credentials_and_revocation() {
    let entropy = SeededEntropy::new(1);
    let one = Accounts::line("joe", &Secret::new("one"), &entropy);
    let two = Accounts::line("joe", &Secret::new("two"), &entropy);
    let accounts = Accounts::parse(&format!("# users\n\n{one}\n{two}\n")).unwrap();
    for (word, good) in [("one", true), ("two", true), ("three", false), ("", false)] {
        assert_eq!(accounts.verify("joe", &Secret::new(word)).await, Ok(good), "{word}");
    }
    assert!(accounts.replace("joe:secret").is_err());
    accounts.replace(&two).unwrap();
    assert_eq!(accounts.verify("joe", &Secret::new("one")).await, Ok(false));
    assert_eq!(Accounts::parse(&format!("{one}\nbad line")).unwrap_err().line, 2);
}

#[tokio::test]
async fn three_failures_lock_the_account_even_for_the_right_password() {
    let shared = authenticator(Accounts::parse(RFC_7677).unwrap());
    for expected in [535, 535, 535, 454] {
        let answer = log_in(&mut shared.login(), Mechanism::Plain, &password("user", "wrong")).await;
        assert_eq!(code(&answer), expected);
    }
    let answer = log_in(&mut shared.login(), Mechanism::Plain, &password("user", "pencil")).await;
    assert_eq!(code(&answer), 454);
}

struct Down;

impl CredentialStore for Down {
    fn verify<'a>(&'a self, _: &'a str, _: &'a Secret) -> Answered<'a, bool> {
        Box::pin(async { Err(StoreDown("told to".into())) })
    }
}

#[tokio::test]
async fn a_store_that_is_down_lets_nobody_in_and_blames_nobody() {
    let shared = authenticator(Down);
    for _ in 0..5 {
        let answer = log_in(&mut shared.login(), Mechanism::Plain, &password("user", "pencil")).await;
        let Answer::Refused { reply, .. } = answer else { panic!() };
        assert_eq!(reply.to_string(), "454 4.7.0 Temporary authentication failure");
    }
}

#[test]
fn a_users_line_may_hold_notes_and_senders() {
    let one = Accounts::line("joe@example.org", &Secret::new("one"), &SeededEntropy::new(1));
    let text =
        format!("{one}  # laptop\njoe@example.org:sends-as sales@example.org @lists.example.org # old\n");
    assert_eq!(Accounts::parse(&text).unwrap().users(), 1);
    for (bad, line) in [
        ("joe:sends-as nobody at all", 1),
        (":sends-as *", 1),
        ("\n\njoe:plain", 3),
        ("joe:SCRAM-SHA-256$1:c2FsdA==$a:b", 1),
        ("joe:sends-as", 1),
    ] {
        assert_eq!(Accounts::parse(bad).unwrap_err().line, line, "{bad:?}");
    }
    let many = format!("{one}\n").repeat(17);
    assert_eq!(Accounts::parse(&many).unwrap_err().line, 17);
}

#[tokio::test]
async fn senders_are_bound_to_logins() {
    let line = Accounts::line("joe@example.org", &Secret::new("secret"), &SeededEntropy::new(1));
    let senders = "joe@example.org:sends-as sales@example.org @lists.example.org";
    let boss = Accounts::line("boss", &Secret::new("secret"), &SeededEntropy::new(1));
    let shared =
        authenticator(Accounts::parse(&format!("{line}\n{senders}\n{boss}\nboss:sends-as *")).unwrap());
    for (user, sender, allowed) in [
        ("joe@example.org", "joe@example.org", true),
        ("joe@example.org", "JOE@Example.org", true),
        ("joe@example.org", "sales@example.org", true),
        ("joe@example.org", "any@lists.example.org", true),
        ("joe@example.org", "ann@example.org", false),
        ("joe@example.org", "any@sub.lists.example.org", false),
        ("boss", "ann@example.org", true),
    ] {
        let mut login = shared.login();
        let path = ReversePath::Mailbox(sender.parse().unwrap());
        let before = login.check_sender(&path).await.unwrap_err();
        assert_eq!(before.reply().code().get(), 530, "nobody is logged in");
        assert_eq!(code(&log_in(&mut login, Mechanism::Plain, &password(user, "secret")).await), 235);
        let answer = login.check_sender(&path).await.map_err(|no| no.reply().code().get());
        assert_eq!(answer, if allowed { Ok(()) } else { Err(553) }, "{user} as {sender}");
        assert_eq!(login.check_sender(&ReversePath::Null).await, Ok(()), "notifications");
    }
}

#[tokio::test]
async fn nobody_acts_as_another_unless_the_store_says_so() {
    let shared = authenticator(Accounts::parse(RFC_7677).unwrap());
    let mut login = shared.login();
    let answer = login.step(&session(), "PLAIN", Some(b"root\0user\0pencil"), true).await;
    assert_eq!(code(&answer), 535);
    assert!(login.identity().is_none());
    let answer = login.step(&session(), "PLAIN", Some(b"user\0user\0pencil"), true).await;
    assert_eq!(code(&answer), 235, "as oneself is no other");
}

/// From the tests of the reference implementation of Argon2 (phc-winner-argon2, version 0x13, 256 KiB, two passes).
#[cfg(feature = "argon2")]
const REFERENCE: &str =
    "joe:$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

#[cfg(feature = "argon2")]
#[tokio::test]
async fn argon2_hashes_that_others_made_serve_clear_text_mechanisms() {
    use postwright_smtp_server::auth::Scheme;
    let shared = authenticator(Accounts::parse(REFERENCE).unwrap());
    for (mechanism, word, expected) in [
        (Mechanism::Plain, "password", 235),
        (Mechanism::Login, "password", 235),
        (Mechanism::Plain, "passwore", 535),
        // There are no keys for SCRAM: answered as an unknown user is.
        (Mechanism::ScramSha256Plus, "password", 535),
    ] {
        let answer = log_in(&mut shared.login(), mechanism, &password("joe", word)).await;
        assert_eq!(code(&answer), expected, "{mechanism} {word}");
    }
    // Both kinds for one user: each mechanism finds its own.
    let both = format!("{REFERENCE} # phone\n{}", RFC_7677.replace("user:", "joe:"));
    let shared = authenticator(Accounts::parse(&both).unwrap());
    for (mechanism, word) in [(Mechanism::Plain, "password"), (Mechanism::ScramSha256Plus, "pencil")] {
        assert_eq!(code(&log_in(&mut shared.login(), mechanism, &password("joe", word)).await), 235);
    }
    let fresh = Accounts::line_of(Scheme::Argon2, "ann", &Secret::new("word"), &SeededEntropy::new(3));
    assert!(fresh.starts_with("ann:$argon2id$v=19$m=19456,t=2,p=1$"), "{fresh}");
    assert_eq!(Accounts::parse(&fresh).unwrap().verify("ann", &Secret::new("word")).await, Ok(true));
    for bad in [
        "joe:$argon2id$v=16$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        "joe:$argon2id$v=19$m=99999999,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        "joe:$argon2id$v=19$m=256,t=99,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        "joe:$argon2id$v=19$m=256,t=2,p=1$c29t$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        "joe:$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65",
        "joe:$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
    ] {
        assert!(Accounts::parse(bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn an_address_that_guesses_is_locked_although_it_has_an_account_of_its_own() {
    let (clock, entropy) = (Arc::new(ManualClock::default()), Arc::new(SeededEntropy::new(7)));
    let store = Arc::new(Accounts::parse(RFC_7677).unwrap());
    let lockout = Lockout::new(4, 100, Duration::from_secs(900));
    let shared = Arc::new(
        Authenticator::new(store, clock.clone(), entropy, "mx.example.org", [1; 32]).with_lockout(lockout),
    );
    for (user, word, expected) in [
        ("a", "x", 535),
        ("b", "x", 535),
        ("user", "pencil", 235),
        ("c", "x", 535),
        ("d", "x", 535),
        ("e", "x", 454),
        ("user", "pencil", 454),
    ] {
        let answer = log_in(&mut shared.login(), Mechanism::Plain, &password(user, word)).await;
        assert_eq!(code(&answer), expected, "{user}");
    }
    clock.advance(Duration::from_secs(901));
    let answer = log_in(&mut shared.login(), Mechanism::Plain, &password("user", "pencil")).await;
    assert_eq!(code(&answer), 235, "a lock ends by itself");
}
