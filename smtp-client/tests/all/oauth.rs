//! Bearer tokens: fetched once for all, renewed in time, and once more after 535.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use postwright_core::{BoxFuture, Clock, ManualClock, SeededEntropy, Timestamp};
use postwright_smtp_client::oauth::{Token, TokenSource, Tokens};
use postwright_smtp_client::{Account, Options};
use postwright_smtp_proto::client::Protection;
use postwright_smtp_proto::sasl::Secret;
use postwright_smtp_proto::sasl::client::Credentials;

use crate::peer::{ONE, QUIT, Scripts, client, hosts, options, shown, transaction};

/// Numbers its tokens; each lives for an hour.
struct Issuer {
    clock: Arc<ManualClock>,
    issued: AtomicUsize,
    works: bool,
}

impl TokenSource for Issuer {
    fn fetch(&self) -> BoxFuture<'_, Result<Token, String>> {
        Box::pin(async {
            if !self.works {
                return Err("the authorization server is down".to_owned());
            }
            let number = self.issued.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::task::yield_now().await;
            let expires = Some(self.clock.now() + Duration::from_secs(3600));
            Ok(Token { secret: Secret::new(format!("token{number}")), expires })
        })
    }
}

fn issuer(works: bool) -> (Arc<Issuer>, Arc<Tokens>) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_800_000_000)));
    let issuer = Arc::new(Issuer { clock: clock.clone(), issued: AtomicUsize::new(0), works });
    (issuer.clone(), Arc::new(Tokens::new(issuer, clock)))
}

fn with(tokens: Arc<Tokens>) -> Options {
    let mut options = options();
    options.account = Some(Account {
        credentials: Credentials::Token { user: "me@client.example".into(), token: Secret::new("") },
        protection: Protection::Clear,
        mechanisms: Vec::new(),
        entropy: Arc::new(SeededEntropy::new(1)),
    });
    options.tokens = Some(tokens);
    options
}

/// The exchange for XOAUTH2 with a token, as Google's and Microsoft's pages have it.
fn dialogue(token: &str, answer: &str) -> String {
    let text = format!("user=me@client.example\x01auth=Bearer {token}\x01\x01");
    let initial = base64::engine::general_purpose::STANDARD.encode(text);
    format!(
        "S: 220 mx\nC: EHLO client.example\nS: 250-mx\nS: 250-PIPELINING\nS: 250 AUTH XOAUTH2\n\
         C: AUTH XOAUTH2 {initial}\nS: {answer}\n"
    )
}

#[tokio::test]
async fn a_token_is_shared_and_renewed_in_time() {
    let (issuer, tokens) = issuer(true);
    let (one, two) = tokio::join!(tokens.token(None), tokens.token(None));
    assert_eq!((one.unwrap().expose(), two.unwrap().expose()), ("token1", "token1"));
    issuer.clock.advance(Duration::from_secs(3539));
    assert_eq!(tokens.token(None).await.unwrap().expose(), "token1");
    // In its last minute it counts as over.
    issuer.clock.advance(Duration::from_secs(1));
    assert_eq!(tokens.token(None).await.unwrap().expose(), "token2");
    // A refused one is replaced; one that was replaced meanwhile does not cost another.
    assert_eq!(tokens.token(Some(&Secret::new("token2"))).await.unwrap().expose(), "token3");
    assert_eq!(tokens.token(Some(&Secret::new("token2"))).await.unwrap().expose(), "token3");
    assert_eq!(issuer.issued.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn after_535_there_is_one_more_try_with_a_new_token() {
    const OK: &str = "235 2.7.0 ok";
    const NO: &str = "535 5.7.8 expired";
    let good = |token: &str| format!("{}{ONE}{QUIT}", dialogue(token, OK));
    let bad = |token: &str, answer: &str| format!("{}{QUIT}", dialogue(token, answer));
    for (scripts, expected, issued) in [
        (vec![good("token1")], "Delivered 2.0.0 end-of-data", 1),
        (vec![bad("token1", NO), good("token2")], "Delivered 2.0.0 end-of-data", 2),
        (vec![bad("token1", NO), bad("token2", NO)], "Delayed 4.7.8 auth", 2),
        // A temporary failure is not the token's fault (RFC 4954 6).
        (vec![bad("token1", "454 4.7.0 later")], "Delayed 4.7.8 auth", 1),
    ] {
        let (issuer, tokens) = issuer(true);
        let lines: Vec<Option<&str>> = scripts.iter().map(|script| Some(script.as_str())).collect();
        let server = Scripts::new(&lines, None);
        let report = client(&server, Vec::new()).deliver(&hosts(1), &with(tokens), transaction()).await;
        assert_eq!(shown(&report), [expected], "{:?} {:?}", report.statuses[0].diagnostic, server.log());
        assert_eq!((server.left(), issuer.issued.load(Ordering::SeqCst)), (0, issued), "{expected}");
    }
    // Without a token nobody is asked, and the mail waits.
    let (_, tokens) = issuer(false);
    let server = Scripts::new(&[Some("S: 220 mx")], None);
    let report = client(&server, Vec::new()).deliver(&hosts(1), &with(tokens), transaction()).await;
    assert_eq!((shown(&report), server.left()), (vec!["Delayed 4.7.8 auth".to_owned()], 1));
}

/// RFC 4954 6: 535 is about the account and not about the server, so that a second server is not asked; after 454 it is.
#[tokio::test(start_paused = true)]
async fn a_password_that_is_refused_is_not_tried_at_every_server() {
    let mut options = options();
    options.account = Some(Account {
        credentials: Credentials::Password { user: "me".into(), password: Secret::new("secret") },
        protection: Protection::Clear,
        mechanisms: Vec::new(),
        entropy: Arc::new(SeededEntropy::new(1)),
    });
    let initial = base64::engine::general_purpose::STANDARD.encode("\0me\0secret");
    let greet =
        format!("S: 220 mx\nC: EHLO client.example\nS: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN {initial}\n");
    for (answer, left) in [("535 5.7.8 no", 1), ("454 4.7.0 later", 0)] {
        let script = format!("{greet}S: {answer}\n{QUIT}");
        let server = Scripts::new(&[Some(&script), Some(&script)], None);
        let report = client(&server, Vec::new()).deliver(&hosts(2), &options, transaction()).await;
        assert_eq!(
            (shown(&report), server.left()),
            (vec!["Delayed 4.7.8 auth".to_owned()], left),
            "{answer} {:?} {:?}",
            report.statuses[0].diagnostic,
            server.log()
        );
    }
}
