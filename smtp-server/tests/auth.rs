//! AUTH through the whole server: SCRAM, PLAIN, lock-out, several credentials, a store that is down.
#![cfg(feature = "auth")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use postwright_core::{ManualClock, SeededEntropy};
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
        match login.step(&session, mechanism.name(), response.as_deref(), first).await {
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
