//! The bodies of the fuzz targets over the committed corpus, and over mutations of it from a fixed seed: what
//! libFuzzer once found stays found, on every machine and without libFuzzer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../../fuzz/src/bodies.rs"]
mod bodies;

use std::path::PathBuf;

use postwright_core::{Entropy, SeededEntropy};

/// Mutations tried of each file.
const MUTATIONS: usize = 64;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = postwright_testkit::workspace_root().join("fuzz/corpus").join(name);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|_| panic!("{} is missing", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

fn run(name: &str) {
    let (_, body) = bodies::ALL.iter().find(|(known, _)| *known == name).unwrap();
    let entropy = SeededEntropy::new(name.bytes().map(u64::from).sum());
    let files = corpus(name);
    for (path, data) in &files {
        check(name, &path.display().to_string(), *body, data);
        for round in 0..MUTATIONS {
            let (_, other) = &files[below(&entropy, files.len())];
            let mutated = mutate(data, other, &entropy);
            check(name, &format!("{} mutated, round {round}", path.display()), *body, &mutated);
        }
    }
}

/// A failure shows the input, which belongs into the corpus.
fn check(name: &str, origin: &str, body: bodies::Body, data: &[u8]) {
    let outcome = std::panic::catch_unwind(|| body(data));
    assert!(outcome.is_ok(), "{name}: {origin}: {}", data.escape_ascii());
}

fn below(entropy: &SeededEntropy, limit: usize) -> usize {
    let mut octets = [0; 8];
    entropy.fill(&mut octets);
    usize::try_from(u64::from_le_bytes(octets) % limit.max(1) as u64).unwrap()
}

/// One to four changes: an octet, a removal, a repetition, a splice with another file.
fn mutate(data: &[u8], other: &[u8], entropy: &SeededEntropy) -> Vec<u8> {
    let mut data = data.to_vec();
    for _ in 0..=below(entropy, 4) {
        let at = below(entropy, data.len() + 1);
        let end = (at + 1 + below(entropy, 8)).min(data.len());
        match below(entropy, 5) {
            0 => data.insert(at, u8::try_from(below(entropy, 256)).unwrap()),
            1 if at < data.len() => data[at] = b"\0\r\n.;:=\"<>(\\@ \t\xff"[below(entropy, 16)],
            2 if at < end => drop(data.drain(at..end)),
            3 if at < end => {
                let piece = data[at..end].to_vec();
                (0..below(entropy, 40)).for_each(|_| {
                    data.splice(at..at, piece.iter().copied());
                });
            }
            _ => {
                data.truncate(at);
                data.extend_from_slice(&other[below(entropy, other.len())..]);
            }
        }
    }
    data
}

macro_rules! bodies {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn every_body_is_run() {
            let here: Vec<&str> = vec![$(stringify!($name)),*];
            let known: Vec<&str> = bodies::ALL.iter().map(|(name, _)| *name).collect();
            assert_eq!(here, known);
        }
    };
}

bodies! {
    address zone command dot_decoder proxy reply server_session dkim_verify dkim_key dkim_signature
    dkim_canon arc spf_record spf_check spf_macro dmarc_record dmarc_author auth_results report spool_entry
    shaping_rules client_session pair bdat parameters ehlo sts_policy tls_report sasl_login sasl_plain sasl_cram_md5 sasl_scram_sha1
    sasl_scram_sha256 sasl_scram_sha1_plus sasl_scram_sha256_plus sasl_xoauth2 sasl_oauthbearer sasl_external
    bounce_mail bounce_status bounce_complaint bounce_rules bounce_address
}
