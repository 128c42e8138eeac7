//! Whom a client believes: the roots of the feature `webpki-roots`, given ones, or nobody.

use postwright_smtp_client::{TlsClient, Trust};
use postwright_testkit::PausedClock;

fn can_verify(trust: &Trust) -> bool {
    TlsClient::new(trust, PausedClock::start()).unwrap().strict().is_some()
}

#[tokio::test]
async fn nobody_can_be_verified_without_roots() {
    assert!(!can_verify(&Trust::Roots(Vec::new())));
    let (_, root) = crate::peer::certificate(&["mx.example"], false);
    assert!(can_verify(&Trust::Roots(vec![root])));
}

#[cfg(feature = "webpki-roots")]
#[tokio::test]
async fn the_roots_of_the_web_are_there_and_stand_beside_given_ones() {
    assert!(can_verify(&Trust::Web));
    assert!(can_verify(&Trust::WebAnd(Vec::new())));
}
