//! The messages of authheaders' own tests: our `auth check` and authheaders (with dkimpy) over the same records say the
//! same of DKIM and DMARC.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use postwright_testkit::{peers, skip, suites};
use serde_json::Value;

/// The signatures are of these domains, all with the key of the suite.
const SIGNERS: [&str; 4] = ["example.com", "example.biz", "example.net", "example.org"];
const POLICIES: [(&str, &str); 5] = [
    ("example.com", "v=DMARC1; p=reject; rua=mailto:d@example.com"),
    ("example.biz", "v=DMARC1; p=none; sp=reject; adkim=s"),
    ("example.org", "v=DMARC1; p=none; sp=reject; adkim=s"),
    ("example.net", "v=DMARC1; p=quarantine"),
    ("gov", "v=DMARC1; p=reject; psd=y"),
];

const SCRIPT: &str = r#"
import json, re, sys, authheaders
records = json.loads(sys.argv[1])
def dns(name, timeout=5):
    text = records.get((name.decode() if isinstance(name, bytes) else name).rstrip("."))
    return text.encode() if text and "_domainkey" in str(name) else text
for path in sys.argv[2:]:
    try:
        said = authheaders.authenticate_message(open(path, "rb").read(), "x", spf=False, dkim=True, arc=False, dmarc=True, dnsfunc=dns)
        one = lambda method: (re.findall(r"[ ;]%s=(\w+)" % method, said) or ["none"])[0]
        print(json.dumps([path, one("dkim"), one("dmarc"), said]))
    except Exception as error:
        print(json.dumps([path, "crash", "crash", repr(error)]))
"#;

#[test]
fn authheaders_and_dkimpy_agree_on_the_messages_of_their_tests() {
    let Some(dir) = suites::dir("auth-messages") else { skip!("auth-messages", "no public suites") };
    let Some(python) = peers::python(&["authheaders", "dkim"]) else {
        skip!("authheaders", "no Python with authheaders")
    };
    let key = std::fs::read_to_string(dir.join("test.txt")).unwrap().trim().to_owned();
    let signers = SIGNERS.map(|domain| (format!("test._domainkey.{domain}"), key.clone()));
    let policies = POLICIES.map(|(domain, text)| (format!("_dmarc.{domain}"), text.to_owned()));
    let records: BTreeMap<String, String> = signers.into_iter().chain(policies).collect();
    let zone = tempfile::NamedTempFile::new().unwrap();
    let line = |(owner, text): (&String, &String)| {
        let strings: Vec<String> = text
            .as_bytes()
            .chunks(200)
            .map(|piece| format!("\"{}\"", String::from_utf8_lossy(piece)))
            .collect();
        format!("{owner}. TXT {}\n", strings.join(" "))
    };
    std::fs::write(zone.path(), records.iter().map(line).collect::<String>()).unwrap();
    let mut paths: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("message")));
    paths.sort();
    let output = Command::new(python)
        .args(["-c", SCRIPT, &serde_json::to_string(&records).unwrap()])
        .args(&paths)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (mut same, mut wrong) = (0, Vec::new());
    for theirs in said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let ours = check(theirs[0].as_str().unwrap(), zone.path());
        let dkim = ours["dkim"][0]["result"].as_str().unwrap_or("none").to_owned();
        let dmarc = ours["dmarc"]["result"].as_str().unwrap().to_owned();
        // RFC 8601 2.7.1: "none: The message was not signed". authheaders calls that a failure.
        let unsigned = ours["dkim"].as_array().unwrap().is_empty() && theirs[1] == "fail";
        if (theirs[1] == dkim || unsigned) && theirs[2] == dmarc {
            same += 1;
        } else {
            wrong.push(format!("{theirs}\n  ours: dkim={dkim} dmarc={dmarc} {ours}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(same, paths.len(), "{}", String::from_utf8_lossy(&output.stderr));
    postwright_testkit::cases("auth-messages", same, 0, "");
}

fn check(message: &str, zone: &std::path::Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_postwright"))
        .args([
            "auth",
            "check",
            "--ip",
            "192.0.2.1",
            "--mode",
            "rfc7489",
            "--legacy",
            "--time",
            "1600000000",
            "--zone",
        ])
        .arg(zone)
        .stdin(Stdio::from(std::fs::File::open(message).unwrap()))
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}
