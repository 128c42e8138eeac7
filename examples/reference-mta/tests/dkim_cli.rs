//! `postwright dkim` and `postwright arc` as others call them: exact JSON, exit codes, strange input.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::cli::{ok, run};

const MAIL: &str = "From: a@example.org\nTo: b@example.com\nSubject: hi\n\nHello  \n\n";

fn signatures(dir: &Path, args: &[&str], input: &[u8]) -> Vec<Value> {
    let arguments = [&["dkim", "verify", "--zone", "zone", "--time", "1800000000"], args].concat();
    let result: Value = serde_json::from_slice(&ok(dir, &arguments, input)).unwrap();
    result["signatures"].as_array().unwrap().clone()
}

/// A folder with keys of both kinds and their zone.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let dir = std::env::temp_dir().join(format!("postwright-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut zone = Vec::new();
        for kind in ["rsa", "ed25519"] {
            let args = ["dkim", "keygen", "--algorithm", kind, "--out", kind, "--domain", "example.org"];
            zone.extend(ok(&dir, &[&args[..], &["--selector", kind]].concat(), b""));
        }
        std::fs::write(dir.join("zone"), zone).unwrap();
        Folder(dir)
    }

    fn signed(&self, kind: &str, extra: &[&str]) -> Vec<u8> {
        let args = ["dkim", "sign", "--domain", "example.org", "--selector", kind, "--key", kind];
        ok(&self.0, &[&args[..], &["--time", "1800000000"], extra].concat(), MAIL.as_bytes())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_signed_verifies_with_the_promised_json() {
    let folder = Folder::new("json");
    for (kind, algorithm, bits) in [("rsa", "rsa-sha256", 2048), ("ed25519", "ed25519-sha256", 256)] {
        for canon in ["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"] {
            let mail = folder.signed(kind, &["--canon", canon]);
            let expected = json!({
                "result": "pass",
                "reason": null,
                "domain": "example.org",
                "selector": kind,
                "identity": "@example.org",
                "algorithm": algorithm,
                "key_bits": bits,
                "testing": false,
                "unsigned_bytes": 0,
            });
            assert_eq!(signatures(&folder.0, &[], &mail), [expected], "{canon}");
        }
    }
}

#[test]
fn changes_expiry_and_missing_keys_have_their_results() {
    let folder = Folder::new("results");
    let mail = String::from_utf8(folder.signed("ed25519", &["--expires-after", "100"])).unwrap();
    let verdict = |mail: &str, args: &[&str]| {
        let one = signatures(&folder.0, args, mail.as_bytes()).remove(0);
        (one["result"].as_str().unwrap().to_owned(), one["reason"].as_str().unwrap_or("").to_owned())
    };
    let of = |result: &str, reason: &str| (result.to_owned(), reason.to_owned());
    assert_eq!(verdict(&mail, &[]), of("pass", ""));
    assert_eq!(verdict(&mail.replace("Hello", "Hallo"), &[]), of("fail", "body-hash"));
    assert_eq!(verdict(&mail.replace("Subject: hi", "Subject: ho"), &[]), of("fail", "signature"));
    assert_eq!(verdict(&mail.replace("s=ed25519", "s=other"), &[]), of("permerror", "key-missing"));
    let later = ["dkim", "verify", "--zone", "zone", "--time", "1800001000", "--strict"];
    let output = run(&folder.0, &later, mail.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"reason\":\"expired\""));
}

#[test]
fn every_signature_is_listed_those_beyond_the_cap_too() {
    let folder = Folder::new("many");
    let signed = folder.signed("ed25519", &[]);
    let field = &signed[..signed.windows(6).position(|six| six == b"\nFrom:").unwrap() + 1];
    let mail = [&field.repeat(25)[..], &signed].concat();
    let results = signatures(&folder.0, &[], &mail);
    assert_eq!(results.len(), 26);
    assert!(results[..10].iter().all(|one| one["result"] == "pass"));
    assert!(
        results[10..]
            .iter()
            .all(|one| one["reason"] == "too-many-signatures" && one["domain"] == "example.org")
    );
}

#[test]
fn strange_messages_have_no_signatures_and_wrong_input_is_one_line() {
    let folder = Folder::new("strange");
    for strange in [&b""[..], b"\n", b"\r\n\r\n", b"no header at all", b"From: x", b"\0\xff\n\n", b": x\n\n"]
    {
        assert!(signatures(&folder.0, &[], strange).is_empty(), "{strange:?}");
    }
    let sign = ["dkim", "sign", "--domain", "example.org", "--selector", "s", "--key"];
    for (args, input) in [
        ([&sign[..], &["missing"]].concat(), MAIL),
        ([&sign[..], &["zone"]].concat(), MAIL),
        ([&sign[..], &["rsa", "--algorithm", "ed25519"]].concat(), MAIL),
        ([&sign[..], &["rsa", "--headers", "to:subject"]].concat(), MAIL),
        ([&sign[..], &["rsa", "--canon", "nofws"]].concat(), MAIL),
        ([&sign[..], &["rsa"]].concat(), "Subject: no author\n\n"),
        ([&sign[..], &["rsa"]].concat(), "From: a@example.org\n\na lone \r in the body\n"),
        (vec!["dkim", "verify", "--zone", "missing"], MAIL),
        (vec!["dkim", "verify", "--zone", "rsa"], MAIL),
        (vec!["dkim", "keygen", "--out", "rsa"], ""),
        (vec!["dkim", "keygen", "--out", "new", "--bits", "1024"], ""),
        (vec!["arc", "verify", "--zone", "missing"], MAIL),
    ] {
        let output = run(&folder.0, &args, input.as_bytes());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let line = String::from_utf8(output.stderr).unwrap();
        assert_eq!(line.trim_end().lines().count(), 1, "{args:?}: {line}");
    }
}

#[cfg(unix)]
#[test]
fn a_new_key_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("mode");
    for kind in ["rsa", "ed25519"] {
        let mode = std::fs::metadata(folder.0.join(kind)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{kind}");
    }
}

#[test]
fn chains_are_sealed_and_validated() {
    let folder = Folder::new("arc");
    let verify = |mail: &[u8]| -> Value {
        let args = ["arc", "verify", "--zone", "zone", "--time", "1800000000"];
        serde_json::from_slice(&ok(&folder.0, &args, mail)).unwrap()
    };
    assert_eq!(
        verify(MAIL.as_bytes()),
        json!({"cv": "none", "instances": 0, "oldest_pass": null, "reason": null})
    );
    let mut mail = MAIL.as_bytes().to_vec();
    for hop in 1..=3 {
        let args = ["arc", "seal", "--domain", "example.org", "--selector", "rsa", "--key", "rsa"];
        mail = ok(&folder.0, &[&args[..], &["--zone", "zone", "--time", "1800000000"]].concat(), &mail);
        assert_eq!(verify(&mail), json!({"cv": "pass", "instances": hop, "oldest_pass": 0, "reason": null}));
    }
    let changed = String::from_utf8(mail).unwrap().replace("Hello", "Hallo");
    let result = verify(changed.as_bytes());
    assert_eq!((&result["cv"], &result["reason"]), (&json!("fail"), &json!("message-signature")));
}
