//! What the small features add: `idna` and `system`. (`hickory` has a file of its own.)
//!
//! Standards: RFC 5890 2.3.2, RFC 3492 7.1 for the pairs of labels.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use postwright_core::{AddressError, Domain};

/// RFC 3492 7.1 (B) and (L): the label and its encoding, in the lower case that domains have here.
const PAIRS: [(&str, &str); 2] =
    [("他们为什么不说中文", "ihqwcrb4cv8a8dqg056pqjye"), ("3年B組金八先生", "3b-ww4c5e180e575a65lsy2b")];

#[test]
fn u_labels_are_converted_with_the_feature_and_refused_without() {
    for (label, encoded) in PAIRS {
        let parsed = format!("{label}.example").parse::<Domain>();
        if cfg!(feature = "idna") {
            assert_eq!(parsed.unwrap().as_str(), format!("xn--{encoded}.example"));
        } else {
            assert_eq!(parsed, Err(AddressError::NotAscii));
        }
    }
}

#[cfg(feature = "system")]
#[test]
fn the_system_gives_other_octets_each_time() {
    use postwright_core::{Entropy, SystemEntropy};
    let (mut one, mut two) = ([0; 32], [0; 32]);
    SystemEntropy.fill(&mut one);
    SystemEntropy.fill(&mut two);
    assert!(one != two && one != [0; 32], "{one:?} {two:?}");
}
