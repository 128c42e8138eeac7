//! Round trips with independent implementations, both ways: dkimpy, and OpenDKIM (`opendkim -t`, which signs and
//! verifies files in batches; `opendkim-testmsg` for single ones).
//!
//! A disagreement is a failure; docs/dkim.md lists the kinds of messages that are left out, each with the sentence
//! that decides.

#![cfg(feature = "arc")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;
#[path = "common/generate.rs"]
mod generate;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{NOW, block_on, verify, zone};
use generate::Generator;
use postwright_core::{MemoryZone, Message, Record, Timestamp};
use postwright_dkim::arc::{ChainValidation, Sealer, authentication_results};
use postwright_dkim::{CanonPair, Limits, SignOptions, Signer, SigningKey, Verifier, VerifyPolicy, sign_all};
use postwright_testkit::{cases, peers, skip, suites};
use serde_json::{Value, json};

const PAIRS: [&str; 4] = ["simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed"];
/// Before the peers' own clock: they refuse signatures from the future.
const SIGNED_AT: Timestamp = Timestamp::from_secs(1_700_000_000);

/// The keys of both algorithms, as files and as records.
struct Keys {
    rsa: SigningKey,
    rsa_pem: Vec<u8>,
    ed25519: SigningKey,
    ed25519_pem: String,
    zone: MemoryZone,
}

impl Keys {
    /// The RSA key is dkimpy's own: ring generates none.
    fn new() -> Option<Keys> {
        let rsa_pem = common::read(&suites::dir("dkim/dkimpy")?.join("2048_testkey.key"));
        let rsa = SigningKey::read(common::provider(), &rsa_pem).unwrap();
        let (ed25519, ed25519_pem) =
            SigningKey::generate(common::provider(), postwright_dkim::KeyKind::Ed25519).unwrap();
        let zone = zone("rsa._domainkey.example.org", rsa.record());
        zone.insert("ed._domainkey.example.org".parse().unwrap(), Record::txt(ed25519.record()));
        Some(Keys { rsa, rsa_pem, ed25519, ed25519_pem, zone })
    }

    fn signer(&self, selector: &str, canon: &str) -> Signer {
        let key = if selector == "rsa" { &self.rsa } else { &self.ed25519 };
        let mut options = SignOptions::default();
        options.canon = canon.parse::<CanonPair>().unwrap();
        let domain = "example.org".parse().unwrap();
        Signer::with_options(key.clone(), domain, selector.parse().unwrap(), options).unwrap()
    }

    /// A generated message with our signature: the four canonicalisations take turns, every third is RSA.
    fn signed(&self, seed: u64, odd: bool) -> Vec<u8> {
        let message = Message::from_bytes(Generator::new(seed).message(odd));
        let signer = self.signer(selector(seed), PAIRS[usize::try_from(seed % 4).unwrap()]);
        let fields = sign_all(&[signer], &message, SIGNED_AT).unwrap();
        fields.into_iter().fold(message, |message, field| message.prepend(field)).to_vec()
    }
}

fn selector(seed: u64) -> &'static str {
    if seed.is_multiple_of(3) { "rsa" } else { "ed" }
}

/// dkimpy in a process of its own.
struct Dkimpy {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Dkimpy {
    fn start() -> Option<Dkimpy> {
        let python = peers::python(&["dkim", "nacl"])?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dkimpy_peer.py");
        let mut command = std::process::Command::new(python);
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Some(Dkimpy { child, to, from })
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.to, "{request}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn publish(&mut self, keys: &Keys) {
        for (selector, key) in [("rsa", &keys.rsa), ("ed", &keys.ed25519)] {
            let name = format!("{selector}._domainkey.example.org");
            self.ask(&json!({"verb": "key", "name": name, "record": key.record()}));
        }
    }
}

impl Drop for Dkimpy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn encoded(octets: &[u8]) -> String {
    STANDARD.encode(octets)
}

/// What dkimpy's signing needs: the PEM for RSA, the base64 of the seed for Ed25519.
fn dkimpy_key(keys: &Keys, selector: &str) -> String {
    if selector == "rsa" {
        return encoded(&keys.rsa_pem);
    }
    let body: String = keys.ed25519_pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(body).unwrap();
    encoded(encoded(&der[der.len() - 32..]).as_bytes())
}

#[test]
fn dkimpy_verifies_what_we_sign() {
    let Some(keys) = Keys::new() else { skip!("dkimpy-verifies", "no public suites") };
    let Some(mut dkimpy) = Dkimpy::start() else {
        skip!("dkimpy-verifies", "no dkimpy; run cargo xtask peers")
    };
    dkimpy.publish(&keys);
    for seed in 0..700 {
        let mail = keys.signed(seed, true);
        let reply = dkimpy.ask(&json!({"verb": "verify", "message": encoded(&mail)}));
        assert_eq!(reply["pass"], true, "seed {seed}: {reply}\n{}", String::from_utf8_lossy(&mail));
        assert!(verify(&common::verifier(), &mail, &keys.zone)[0].is_pass(), "seed {seed}");
    }
    cases("dkimpy-verifies", 700, 0, "");
}

#[test]
fn we_verify_what_dkimpy_signs() {
    let Some(keys) = Keys::new() else { skip!("dkimpy-signs", "no public suites") };
    let Some(mut dkimpy) = Dkimpy::start() else { skip!("dkimpy-signs", "no dkimpy; run cargo xtask peers") };
    for seed in 0..500 {
        let message = Generator::new(seed).message(true);
        // RSA in Python takes long: each eighth.
        let (selector, algorithm) =
            if seed % 8 == 0 { ("rsa", "rsa-sha256") } else { ("ed", "ed25519-sha256") };
        let request = json!({
            "verb": "sign",
            "message": encoded(&message),
            "key": dkimpy_key(&keys, selector),
            "selector": selector,
            "domain": "example.org",
            "algorithm": algorithm,
            "canon": PAIRS[usize::try_from(seed / 2 % 4).unwrap()],
        });
        let reply = dkimpy.ask(&request);
        let fields = STANDARD.decode(reply["fields"].as_str().unwrap_or_else(|| panic!("{reply}"))).unwrap();
        let mail = [&fields[..], &message].concat();
        let result = verify(&common::verifier(), &mail, &keys.zone).remove(0);
        assert!(result.is_pass(), "seed {seed}: {result:?}\n{}", String::from_utf8_lossy(&mail));
    }
    cases("dkimpy-signs", 500, 0, "");
}

/// dkimpy seals with rsa-sha256 only.
#[test]
fn chains_grow_by_turns() {
    let Some(keys) = Keys::new() else { skip!("dkimpy-arc", "no public suites") };
    let Some(mut dkimpy) = Dkimpy::start() else { skip!("dkimpy-arc", "no dkimpy; run cargo xtask peers") };
    dkimpy.publish(&keys);
    let sealer = |id: &str| {
        Sealer::new(keys.rsa.clone(), "example.org".parse().unwrap(), "rsa".parse().unwrap(), id).unwrap()
    };
    for seed in 0..25 {
        let mut mail = Generator::new(seed).message(true);
        for hop in 1..=4 {
            // dkimpy takes the state of the chain from our own results, and merges all that bear our name.
            let id = format!("hop{hop}.example.org");
            let cv = if hop == 1 { "none" } else { "pass" };
            let results =
                format!("Authentication-Results: {id}; arc={cv}; spf=pass smtp.mailfrom=a@example.org\r\n");
            mail = [results.as_bytes(), &mail].concat();
            let message = Message::from_bytes(mail.clone());
            let chain = block_on(common::arc_verifier().verify(&message, &keys.zone, NOW));
            if (hop + seed) % 2 == 0 {
                let results = authentication_results(&message, &id);
                let set = sealer(&id).seal(&message, &chain, &results, SIGNED_AT).unwrap().unwrap();
                mail = set.into_iter().fold(message, |message, field| message.prepend(field)).to_vec();
            } else {
                let request = json!({
                    "verb": "arc-sign",
                    "message": encoded(&mail),
                    "key": dkimpy_key(&keys, "rsa"),
                    "selector": "rsa",
                    "domain": "example.org",
                    "authserv-id": id,
                });
                let reply = dkimpy.ask(&request);
                let set = STANDARD.decode(reply["fields"].as_str().unwrap_or_else(|| panic!("{reply}")));
                mail = [&set.unwrap()[..], &mail].concat();
            }
            let shown = String::from_utf8_lossy(&mail);
            let after =
                block_on(common::arc_verifier().verify(&Message::from_bytes(mail.clone()), &keys.zone, NOW));
            assert_eq!(
                (after.cv, after.instances),
                (ChainValidation::Pass, hop as u32),
                "{after:?}\n{shown}"
            );
            assert_eq!(after.oldest_pass, Some(0), "{shown}");
            let reply = dkimpy.ask(&json!({"verb": "arc-verify", "message": encoded(&mail)}));
            assert_eq!(reply["cv"], "pass", "seed {seed} hop {hop}: {reply}\n{shown}");
        }
    }
    cases("dkimpy-arc", 25 * 4, 0, "");
}

/// A folder of message files for OpenDKIM.
struct Batch {
    dir: PathBuf,
}

impl Batch {
    fn new(name: &str) -> Batch {
        let dir = std::env::temp_dir().join(format!("postwright-dkim-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Batch { dir }
    }

    fn write(&self, name: &str, octets: impl AsRef<[u8]>) -> String {
        let path = self.dir.join(name);
        std::fs::write(&path, octets).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs `opendkim -t` over files; its standard output and error.
    fn opendkim(&self, config: &str, files: &[String]) -> String {
        let config = self.write("conf", config);
        let mut command = peers::command("opendkim").unwrap();
        let output = command.args(["-x", &config, "-t", &files.join(",")]).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

#[test]
fn opendkim_verifies_what_we_sign() {
    let Some(keys) = Keys::new() else { skip!("opendkim-verifies", "no public suites") };
    if peers::command("opendkim").is_none() {
        skip!("opendkim-verifies", "no opendkim; run cargo xtask peers");
    }
    let batch = Batch::new("verify");
    let records = format!(
        "rsa._domainkey.example.org {}\ned._domainkey.example.org {}\n",
        keys.rsa.record(),
        keys.ed25519.record()
    );
    let records = batch.write("keys", records);
    let config = format!("Mode v\nTestPublicKeys {records}\nRequireSafeKeys no\n");
    for first in (0..600).step_by(50) {
        let files: Vec<String> = (first..first + 50)
            .map(|seed| batch.write(&format!("m{seed}"), keys.signed(seed, false)))
            .collect();
        let output = batch.opendkim(&config, &files);
        for file in &files {
            let wanted = format!("{file}: verification (s=");
            let line = output.lines().find(|line| line.contains(&wanted));
            let succeeded = line.is_some_and(|line| line.ends_with("succeeded"));
            assert!(
                succeeded,
                "{file} {line:?} {output}\n{}",
                String::from_utf8_lossy(&common::read(Path::new(file)))
            );
        }
    }
    cases("opendkim-verifies", 600, 0, "");
}

#[test]
fn we_verify_what_opendkim_signs() {
    let Some(keys) = Keys::new() else { skip!("opendkim-signs", "no public suites") };
    if peers::command("opendkim").is_none() {
        skip!("opendkim-signs", "no opendkim; run cargo xtask peers");
    }
    let batch = Batch::new("sign");
    let rsa = batch.write("rsa.pem", &keys.rsa_pem);
    let ed25519 = batch.write("ed.pem", &keys.ed25519_pem);
    let (mut seeds, mut verified) = (0.., 0);
    // OpenDKIM 2.11.0 signs Ed25519 with a simple header in a way that neither its own verifier nor dkimpy accepts.
    let relaxed_header = &PAIRS[2..];
    for (selector, file, algorithm, pairs) in
        [("rsa", rsa, "rsa-sha256", &PAIRS[..]), ("ed", ed25519, "ed25519-sha256", relaxed_header)]
    {
        for pair in pairs {
            let config = format!(
                "Mode s\nDomain example.org\nSelector {selector}\nKeyFile {file}\nSignatureAlgorithm {algorithm}\n\
                 Canonicalization {pair}\nRequireSafeKeys no\nInternalHosts 0.0.0.0/0\nOversignHeaders From\n"
            );
            let messages: Vec<Vec<u8>> =
                seeds.by_ref().take(50).map(|seed| Generator::new(seed).message(false)).collect();
            let files: Vec<String> = (0..)
                .zip(&messages)
                .map(|(nth, message): (u32, _)| batch.write(&format!("m{nth}"), message))
                .collect();
            let output = batch.opendkim(&config, &files);
            for (file, message) in files.iter().zip(&messages) {
                let field = signature_field(&output, file).unwrap_or_else(|| panic!("{file}: {output}"));
                let mail = [field.as_bytes(), message].concat();
                let result = verify(&common::verifier(), &mail, &keys.zone).remove(0);
                assert!(result.is_pass(), "{pair} {result:?}\n{}", String::from_utf8_lossy(&mail));
                verified += 1;
            }
        }
    }
    cases("opendkim-signs", verified, 0, "");
}

/// What `opendkim -t` printed behind the file's name: the field, folded with LF.
fn signature_field(output: &str, file: &str) -> Option<String> {
    let (_, rest) = output.split_once(&format!("{file}:\n"))?;
    let mut lines = rest.lines();
    let mut field = format!("{}\r\n", lines.next()?.trim_end());
    for line in lines.take_while(|line| line.starts_with(['\t', ' '])) {
        field.push_str(&format!("{}\r\n", line.trim_end_matches('\r')));
    }
    Some(field)
}

/// Its library without the milter in between; it signs with rsa-sha1 only.
#[test]
fn we_verify_what_opendkim_testmsg_signs() {
    let Some(keys) = Keys::new() else { skip!("opendkim-testmsg", "no public suites") };
    if peers::command("opendkim-testmsg").is_none() {
        skip!("opendkim-testmsg", "no opendkim-testmsg; run cargo xtask peers");
    }
    let batch = Batch::new("testmsg");
    let key = batch.write("rsa.pem", &keys.rsa_pem);
    let mut policy = VerifyPolicy::default();
    policy.sha1 = true;
    let legacy = Verifier::new(common::provider(), policy, Limits::default());
    for seed in 0..100 {
        let message = Generator::new(seed).message(true);
        let mut command = peers::command("opendkim-testmsg").unwrap();
        command.args(["-C", "-d", "example.org", "-s", "rsa", "-k", &key]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&message).unwrap();
        let mail = child.wait_with_output().unwrap().stdout;
        let result = verify(&legacy, &mail, &keys.zone).remove(0);
        assert!(result.is_pass(), "seed {seed}: {result:?}\n{}", String::from_utf8_lossy(&mail));
    }
    cases("opendkim-testmsg", 100, 0, "");
}
