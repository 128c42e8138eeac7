//! The commands that judge raw identities: whatever a client may have sent gets a verdict, never a usage error.
//!
//! The expected verdicts follow from RFC 7208 2.4, 4.3 and RFC 9989 4.10 by hand.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const ZONE: &str = "example.org. TXT \"v=spf1 ip4:192.0.2.0/24 -all\"\n\
    _dmarc.example.org. TXT \"v=DMARC1; p=reject; sp=quarantine\"\n\
    mx.example.org. TXT \"v=spf1 a -all\"\nmx.example.org. A 192.0.2.7\n\
    xn--bcher-kva.example. TXT \"v=spf1 ip4:192.0.2.0/24 ?all\"\n\
    _dmarc.xn--bcher-kva.example. TXT \"v=DMARC1; p=quarantine; t=y\"\n\
    7.2.0.192.in-addr.arpa. PTR mx.example.org.\n";

struct Dns {
    _dir: tempfile::TempDir,
    zone: PathBuf,
}

impl Dns {
    fn new() -> Dns {
        let dir = tempfile::tempdir().unwrap();
        let zone = dir.path().join("zone");
        std::fs::write(&zone, ZONE).unwrap();
        Dns { _dir: dir, zone }
    }

    fn output(&self, args: &[&OsStr], input: &[u8]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postwright"));
        command.args(args).arg("--zone").arg(&self.zone);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    /// The JSON of a run that must succeed and say nothing on stderr.
    fn ask(&self, args: &[&OsStr], input: &[u8]) -> Value {
        let output = self.output(args, input);
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn spf(&self, ip: &str, helo: &OsStr, mail_from: &OsStr) -> Value {
        let [spf, check, ip_is, helo_is, from_is] =
            ["spf", "check", "--ip", "--helo", "--mail-from"].map(OsStr::new);
        self.ask(&[spf, check, ip_is, OsStr::new(ip), helo_is, helo, from_is, mail_from], b"")
    }

    fn dmarc(&self, args: &[&str]) -> Value {
        let args: Vec<&OsStr> = ["dmarc", "check"].iter().chain(args).map(OsStr::new).collect();
        self.ask(&args, b"")
    }
}

/// Reverse-paths as clients send them, and what becomes of them with `mx.example.org` at 192.0.2.7.
const REVERSE_PATHS: &[(&str, &str, &str, &str)] = &[
    ("", "pass", "helo", "mx.example.org"),
    ("<>", "pass", "helo", "mx.example.org"),
    ("joe@example.org", "pass", "mailfrom", "example.org"),
    ("<joe@example.org>", "pass", "mailfrom", "example.org"),
    ("@example.org", "pass", "mailfrom", "example.org"),
    ("example.org", "pass", "mailfrom", "example.org"),
    ("JOE@EXAMPLE.Org", "pass", "mailfrom", "example.org"),
    ("joe@example.org.", "pass", "mailfrom", "example.org"),
    ("joe smith@example.org", "pass", "mailfrom", "example.org"),
    ("\"joe \\\" @ x\"@example.org", "pass", "mailfrom", "example.org"),
    ("a@b@example.org", "pass", "mailfrom", "example.org"),
    ("-x@example.org", "pass", "mailfrom", "example.org"),
    ("j\u{f6}e@example.org", "pass", "mailfrom", "example.org"),
    ("joe@b\u{fc}cher.example", "pass", "mailfrom", "xn--bcher-kva.example"),
    ("joe@B\u{dc}CHER.example", "pass", "mailfrom", "xn--bcher-kva.example"),
    ("joe@xn--bcher-kva.example", "pass", "mailfrom", "xn--bcher-kva.example"),
    ("joe@nothing.example", "none", "mailfrom", "nothing.example"),
    ("joe@", "none", "mailfrom", ""),
    ("@", "none", "mailfrom", ""),
    ("joe", "none", "mailfrom", "joe"),
    ("-x", "none", "mailfrom", "-x"),
    ("--trace", "none", "mailfrom", "--trace"),
    ("--zone", "none", "mailfrom", "--zone"),
    ("-", "none", "mailfrom", "-"),
    ("--", "none", "mailfrom", "--"),
    ("joe@com", "none", "mailfrom", "com"),
    ("joe@exa..mple.org", "none", "mailfrom", "exa..mple.org"),
    ("joe@[192.0.2.7]", "none", "mailfrom", "[192.0.2.7]"),
    ("joe@example.org\r\nX: y", "none", "mailfrom", "example.org\r\nX: y"),
];

#[test]
fn every_reverse_path_has_a_verdict() {
    let dns = Dns::new();
    for (mail_from, result, identity, domain) in REVERSE_PATHS {
        for ip in ["192.0.2.7", "::ffff:192.0.2.7"] {
            let found = dns.spf(ip, OsStr::new("mx.example.org"), OsStr::new(mail_from));
            let found = ["result", "identity", "domain"].map(|key| found[key].as_str().unwrap().to_owned());
            assert_eq!(found, [*result, identity, domain], "{mail_from:?} from {ip}");
        }
    }
}

#[test]
fn the_answer_has_all_its_fields_whatever_the_verdict() {
    let dns = Dns::new();
    let keys = ["domain", "explanation", "identity", "lookups", "matched", "result", "trace", "void_lookups"];
    for mail_from in ["joe@example.org", "joe@nothing.example", "", "@"] {
        let found = dns.spf("198.51.100.1", OsStr::new(""), OsStr::new(mail_from));
        let found: Vec<&String> = found.as_object().unwrap().keys().collect();
        assert_eq!(found, keys, "{mail_from:?}");
    }
    // A verdict without a match says why, traced or not.
    let found = dns.spf("192.0.2.7", OsStr::new(""), OsStr::new("joe"));
    assert!(found["trace"][0]["reason"].as_str().unwrap().contains("joe"), "{found}");
}

#[cfg(unix)]
#[test]
fn octets_that_are_no_text_are_an_identity_as_well() {
    use std::os::unix::ffi::OsStringExt;
    let dns = Dns::new();
    let odd = |octets: &[u8]| OsString::from_vec(octets.to_vec());
    let found = dns.spf("192.0.2.7", OsStr::new("mx.example.org"), &odd(b"\xff@example.org"));
    assert_eq!(found["result"], "pass", "the domain is all there");
    for identity in [&b"joe@\xff.org"[..], b"\xc3", b"joe@ex\xe4mple.org"] {
        assert_eq!(dns.spf("192.0.2.7", &odd(identity), &odd(identity))["result"], "none", "{identity:?}");
    }
    let args = ["dmarc", "check", "--from-domain"].map(OsString::from);
    let args = [&args[..], &[odd(b"\xff.org")]].concat();
    let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
    assert_eq!(dns.ask(&args, b"")["result"], "permerror");
}

#[test]
fn every_domain_has_a_dmarc_verdict() {
    let dns = Dns::new();
    let expect = |args: &[&str], expected: [&str; 3], aligned: [bool; 2]| {
        let found = dns.dmarc(args);
        let verdict =
            ["result", "policy", "disposition"].map(|key| found[key].as_str().unwrap_or("null").to_owned());
        assert_eq!(verdict, expected, "{args:?}");
        assert_eq!([&found["spf_aligned"], &found["dkim_aligned"]], aligned, "{args:?}");
        let keys: Vec<&String> = found.as_object().unwrap().keys().collect();
        let all = [
            "disposition",
            "dkim_aligned",
            "organizational_domain",
            "policy",
            "reason",
            "record_domain",
            "result",
        ];
        assert_eq!(keys[..7], all);
    };
    let org = ["--from-domain", "example.org"];
    let with = |more: &[&'static str]| [&org[..], more].concat();
    expect(&org, ["fail", "reject", "reject"], [false, false]);
    expect(&["--from-domain", "Sub.EXAMPLE.org."], ["fail", "quarantine", "quarantine"], [false, false]);
    expect(&["--from-domain", "b\u{fc}cher.example"], ["fail", "quarantine", "none"], [false, false]);
    expect(&with(&["--dkim-domain", "EXAMPLE.ORG."]), ["pass", "reject", "none"], [false, true]);
    expect(&with(&["--dkim-domain", "-x"]), ["fail", "reject", "reject"], [false, false]);
    expect(
        &with(&["--dkim-domain", "-x", "--dkim-domain", "example.org"]),
        ["pass", "reject", "none"],
        [false, true],
    );
    expect(
        &with(&["--dkim-domain", "a.example", "mail.example.org"]),
        ["pass", "reject", "none"],
        [false, true],
    );
    expect(&with(&["--dkim-domain", "", "--spf-domain", ""]), ["fail", "reject", "reject"], [false, false]);
    expect(&with(&["--spf-domain", "-x"]), ["fail", "reject", "reject"], [false, false]);
    expect(
        &with(&["--spf-domain", "x y", "--dkim-domain", "\"q\""]),
        ["fail", "reject", "reject"],
        [false, false],
    );
    expect(&with(&["--spf-domain", "sub.example.org"]), ["pass", "reject", "none"], [true, false]);
    for author in ["", ".", "a..b", "example.org\n"] {
        expect(&["--from-domain", author], ["permerror", "null", "none"], [false, false]);
    }
    for author in ["-x", "--zone", "nothing", "\"q\"", "a b", "@example.org", "[192.0.2.1]"] {
        expect(&["--from-domain", author], ["none", "null", "none"], [false, false]);
    }
}

#[test]
fn a_whole_check_takes_every_identity_and_writes_one_field() {
    let dns = Dns::new();
    let message = b"From: Joe <joe@example.org>\r\nSubject: x\r\n\r\nx\r\n";
    for (mail_from, result, ..) in REVERSE_PATHS {
        let args =
            ["auth", "check", "--ip", "192.0.2.7", "--helo", "mx.example.org", "--mail-from", mail_from];
        let found = dns.ask(&args.map(OsStr::new), message);
        let keys: Vec<&String> = found.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["arc", "authentication_results", "dkim", "dmarc", "iprev", "spf"]);
        assert_eq!(found["spf"]["result"], *result, "{mail_from:?}");
        assert_eq!(
            (&found["iprev"]["result"], &found["iprev"]["name"]),
            (&"pass".into(), &"mx.example.org".into())
        );
        let field = found["authentication_results"].as_str().unwrap();
        assert!(field.starts_with("Authentication-Results: localhost;\r\n\tspf="), "{field}");
        let lines = field.split("\r\n").skip(1);
        assert!(
            lines.into_iter().all(|line| line.starts_with(['\t', ' ']) && !line.contains(['\r', '\n'])),
            "{field:?}"
        );
    }
    // The author may be anyone, too.
    for from in ["", "joe", "joe@", "joe@-x", "<joe@ex ample.org>", "\u{ff}@\u{ff}"] {
        let message = format!("From: {from}\r\n\r\nx\r\n");
        let args =
            ["auth", "check", "--ip", "2001:db8::1", "--helo", "-x", "--mail-from", "-x"].map(OsStr::new);
        let found = dns.ask(&args, message.as_bytes());
        assert!(
            ["permerror", "none", "fail"].contains(&found["dmarc"]["result"].as_str().unwrap()),
            "{from}: {found}"
        );
    }
}

/// What is no identity may be wrong: an address, a time, a mode.
#[test]
fn what_is_no_identity_is_checked() {
    let dns = Dns::new();
    for args in [
        &["spf", "check", "--ip", "192.0.2", "--mail-from", "a@example.org"][..],
        &["spf", "check", "--mail-from", "a@example.org"],
        &["dmarc", "check"],
        &["dmarc", "check", "stray"],
        &["dmarc", "check", "--from-domain", "example.org", "--mode", "rfc1"],
        &["auth", "check", "--ip", "192.0.2.1", "--time", "soon"],
    ] {
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        let output = dns.output(&args, b"");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1, "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}
