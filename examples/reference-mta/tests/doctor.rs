//! `postwright doctor`: each check on a zone that is right, and on zones that are wrong in one thing, through the real
//! binary; as JSON and in plain words.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fmt::Write;
use std::process::{Command, Output};

use serde_json::Value;

/// A sender that lacks nothing; the key is the one of RFC 8463 A.2.
const GOOD: &str = "good.test. TXT \"v=spf1 ip4:192.0.2.0/25 ip6:2001:db8::/64 include:_spf.good.test -all\"\n\
    _spf.good.test. TXT \"v=spf1 ip4:198.51.100.7 -all\"\n\
    s1._domainkey.good.test. TXT \"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\"\n\
    _dmarc.good.test. TXT \"v=DMARC1; p=reject; rua=mailto:d@good.test\"\n\
    good.test. MX 10 mx.good.test.\n\
    7.2.0.192.in-addr.arpa. PTR mx.good.test.\nmx.good.test. A 192.0.2.7\n\
    _mta-sts.good.test. TXT \"v=STSv1; id=1\"\n_smtp._tls.good.test. TXT \"v=TLSRPTv1; rua=mailto:t@good.test\"\n\
    default._bimi.good.test. TXT \"v=BIMI1; l=https://good.test/logo.svg; a=https://good.test/vmc.pem\"\n\
    2.0.0.127.list.test. A 127.0.0.2\n";

fn run(zone: &str, args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("zone");
    std::fs::write(&path, zone).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_postwright"));
    command.arg("doctor").args(args).arg("--zone").arg(&path).output().unwrap()
}

/// What `doctor` finds.
struct Findings(Value);

impl Findings {
    fn of(zone: &str, args: &[&str]) -> Findings {
        let output = run(zone, args);
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
        Findings(serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Status and text of every finding of a check.
    fn of_check(&self, check: &str) -> Vec<(&str, &str)> {
        let all = self.0["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == check);
        all.map(|finding| (finding["status"].as_str().unwrap(), finding["text"].as_str().unwrap())).collect()
    }

    /// That a check has a finding of this status, whose text holds the words.
    #[track_caller]
    fn has(&self, check: &str, status: &str, words: &str) {
        let found = self.of_check(check);
        assert!(found.iter().any(|(is, text)| *is == status && text.contains(words)), "{words:?}: {found:?}");
    }

    /// What a check says to publish.
    fn to_publish(&self, check: &str) -> Vec<&str> {
        let all = self.0["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == check);
        all.filter_map(|finding| finding["publish"].as_str()).collect()
    }
}

/// The good zone with some lines changed, and the checks of it.
fn changed(from: &str, to: &str, args: &[&str]) -> Findings {
    assert!(GOOD.contains(from), "{from}");
    Findings::of(&GOOD.replace(from, to), &[&["good.test", "--no-blocklists"], args].concat())
}

#[test]
fn a_sender_that_lacks_nothing_is_told_so() {
    let args = [
        "good.test",
        "--ip",
        "192.0.2.7",
        "--ehlo",
        "MX.good.test.",
        "--selector",
        "s1",
        "--blocklist",
        "list.test",
    ];
    let found = Findings::of(GOOD, &args);
    assert_eq!((&found.0["status"], &found.0["domain"]), (&"ok".into(), &"good.test".into()), "{}", found.0);
    for check in
        ["spf", "spf-lookups", "dkim", "dmarc", "ptr", "blocklist", "mx", "mta-sts", "tlsrpt", "bimi"]
    {
        let statuses: Vec<&str> = found.of_check(check).into_iter().map(|(status, _)| status).collect();
        assert!(
            !statuses.is_empty() && statuses.iter().all(|status| *status == "ok"),
            "{check}: {statuses:?}"
        );
    }
    for finding in found.0["findings"].as_array().unwrap() {
        let keys: Vec<&String> = finding.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["check", "publish", "status", "text"]);
        assert!(finding["publish"].is_null());
    }
}

#[test]
fn a_domain_without_anything_is_told_what_to_publish() {
    let found = Findings::of(
        "x.test. A 192.0.2.1\n",
        &["none.test", "--ip", "192.0.2.7", "2001:db8::1", "--no-blocklists"],
    );
    assert_eq!(found.0["status"], "fail");
    assert_eq!(found.to_publish("spf"), ["none.test TXT \"v=spf1 ip4:192.0.2.7 ip6:2001:db8::1 -all\""]);
    assert_eq!(
        found.to_publish("dmarc"),
        ["_dmarc.none.test TXT \"v=DMARC1; p=none; rua=mailto:dmarc@none.test\""]
    );
    assert_eq!(found.to_publish("mta-sts"), ["_mta-sts.none.test TXT \"v=STSv1; id=1\""]);
    assert_eq!(
        found.to_publish("tlsrpt"),
        ["_smtp._tls.none.test TXT \"v=TLSRPTv1; rua=mailto:tlsrpt@none.test\""]
    );
    found.has("dkim", "warn", "selector1");
    found.has("mx", "warn", "no MX");
    found.has("bimi", "info", "No logo");
    found.has("ptr", "fail", "192.0.2.7 has no name");
    found.has("ptr", "fail", "2001:db8::1 has no name");
    assert_eq!(found.of_check("blocklist"), []);
}

#[test]
fn spf_must_cover_every_address() {
    let ips = ["--ip", "192.0.2.7", "--ip", "192.0.2.200", "2001:db8::1", "198.51.100.7"];
    let found = Findings::of(GOOD, &[&["good.test", "--no-blocklists"], &ips[..]].concat());
    found.has("spf", "ok", "192.0.2.7: pass");
    found.has("spf", "ok", "2001:db8::1: pass");
    found.has("spf", "ok", "198.51.100.7: pass");
    found.has("spf", "fail", "192.0.2.200: fail");
    assert_eq!(found.to_publish("spf"), ["ip4:192.0.2.200"]);
}

#[test]
fn spf_must_refuse_strangers_and_be_readable() {
    let with = |end: &str| changed("include:_spf.good.test -all", end, &[]);
    with("include:_spf.good.test +all").has("spf", "fail", "lets every address pass");
    with("include:_spf.good.test ?all").has("spf", "warn", "no verdict on strangers");
    with("include:_spf.good.test").has("spf", "warn", "no verdict on strangers");
    with("include:_spf.good.test ~all").has("spf", "ok", "refuses strangers");
    with("ipv4:192.0.2.1 -all").has("spf", "fail", "cannot be used");
    with("include:nothing.test -all").has("spf", "fail", "include:nothing.test");
    let twice = format!("{GOOD}good.test. TXT \"v=spf1 -all\"\n");
    Findings::of(&twice, &["good.test", "--no-blocklists"]).has("spf", "fail", "2 SPF records");
}

/// RFC 7208 4.6.4: 10 terms, 2 look-ups without answer.
#[test]
fn spf_must_stay_within_its_budget() {
    let with = |terms: usize, void: usize| {
        let (mut spf, mut more) = (String::from("v=spf1"), String::new());
        for i in 0..terms {
            write!(spf, " a:h{i}.test").unwrap();
            if i >= void {
                writeln!(more, "h{i}.test. A 203.0.113.1").unwrap();
            }
        }
        let spf = pieces(&format!("{spf} ip4:192.0.2.7 -all"));
        let zone = format!("many.test. TXT \"{spf}\"\n{more}");
        Findings::of(&zone, &["many.test", "--no-blocklists", "--ip", "192.0.2.7"])
    };
    with(8, 0).has("spf-lookups", "ok", "8 look-ups of 10, 0 of them");
    with(9, 0).has("spf-lookups", "warn", "9 look-ups of 10");
    with(10, 0).has("spf-lookups", "warn", "10 look-ups of 10");
    with(10, 0).has("spf", "ok", "192.0.2.7: pass");
    with(11, 0).has("spf-lookups", "fail", "11 look-ups of 10");
    with(11, 0).has("spf", "fail", "192.0.2.7: permerror: more than 10 terms need DNS look-ups");
    with(60, 0).has("spf-lookups", "fail", "60 look-ups of 10");
    with(3, 1).has("spf-lookups", "warn", "1 of them without answer");
    with(3, 3).has("spf-lookups", "fail", "3 of them without answer");
}

#[test]
fn dkim_keys_must_be_there_and_strong() {
    let key = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let with = |record: &str, args: &[&str]| changed(key, record, args);
    with(key, &[]).has("dkim", "ok", "Selector s1: a key of 256 bits");
    with(key, &["--selector", "other"]).has("dkim", "fail", "Selector other: no key is published");
    let both = with(key, &["--selector", "other", "s1"]);
    both.has("dkim", "ok", "Selector s1");
    both.has("dkim", "fail", "Selector other");
    with("v=DKIM1; p=", &[]).has("dkim", "fail", "Selector s1");
    with("v=DKIM1; p=AAAA", &[]).has("dkim", "fail", "Selector s1");
    with(&key.replace("k=", "t=y; k="), &[]).has("dkim", "warn", "testing");
    with(&published(1024), &[]).has("dkim", "warn", "1024 bits is weak");
    with(&published(2048), &[]).has("dkim", "ok", "2048 bits");
}

/// The record of an RSA key of this size: a modulus that is a number of so many bits, in DER (RFC 8017 A.1.1).
fn published(bits: usize) -> String {
    let modulus = [&[0x00, 0xc0][..], &vec![0x01; bits / 8 - 1]].concat();
    let length = |len: usize| match u8::try_from(len) {
        Ok(short) if short < 0x80 => vec![short],
        Ok(short) => vec![0x81, short],
        Err(_) => [&[0x82][..], &u16::try_from(len).unwrap().to_be_bytes()].concat(),
    };
    let number = [&[0x02][..], &length(modulus.len()), &modulus, &[0x02, 0x03, 0x01, 0x00, 0x01]].concat();
    let der = [&[0x30][..], &length(number.len()), &number].concat();
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut base64 = String::new();
    for chunk in der.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, octet| bits << 8 | u32::from(*octet)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = digits[(bits >> (18 - 6 * i) & 63) as usize];
            base64.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    format!("v=DKIM1; k=rsa; p=\" \"{}", pieces(&base64))
}

/// A text as a zone file has it: a character-string holds 255 octets at most.
fn pieces(text: &str) -> String {
    let pieces: Vec<&str> = text.as_bytes().chunks(200).map(|piece| str::from_utf8(piece).unwrap()).collect();
    pieces.join("\" \"")
}

/// RFC 9989 5.1: from watching over testing to enforcement.
#[test]
fn dmarc_advice_follows_the_phase() {
    let with = |record: &str| changed("v=DMARC1; p=reject; rua=mailto:d@good.test", record, &[]);
    let watching = with("v=DMARC1; p=none; rua=mailto:d@good.test");
    watching.has("dmarc", "warn", "p=none only watches");
    assert_eq!(
        watching.to_publish("dmarc"),
        ["_dmarc.good.test TXT \"v=DMARC1; p=quarantine; t=y; rua=...\""]
    );
    let testing = with("v=DMARC1; p=quarantine; t=y; rua=mailto:d@good.test");
    testing.has("dmarc", "info", "test mode");
    assert_eq!(testing.to_publish("dmarc"), ["_dmarc.good.test TXT \"v=DMARC1; p=quarantine; rua=...\""]);
    with("v=DMARC1; p=quarantine; rua=mailto:d@good.test").has("dmarc", "ok", "p=quarantine is enforced");
    with("v=DMARC1; p=reject; rua=mailto:d@good.test").has("dmarc", "ok", "p=reject is enforced");
    let silent = with("v=DMARC1; p=reject");
    silent.has("dmarc", "warn", "No aggregate reports");
    assert_eq!(silent.to_publish("dmarc"), ["rua=mailto:dmarc@good.test"]);
    with("v=DMARC1; p=reject; sp=none; rua=mailto:d@good.test").has("dmarc", "warn", "sp is weaker than p");
    with("v=DMARC1; p=reject; pct=50; rf=afrf; rua=mailto:d@good.test").has("dmarc", "info", "\"pct\"");
    with("v=DMARC2; p=reject").has("dmarc", "fail", "No DMARC policy applies");
    let below = Findings::of(GOOD, &["news.good.test", "--no-blocklists"]);
    below.has("dmarc", "ok", "p=reject is enforced");
}

#[test]
fn names_of_addresses_must_lead_back_and_match_ehlo() {
    let ip = ["--ip", "192.0.2.7"];
    changed("A 192.0.2.7", "A 192.0.2.8", &ip).has("ptr", "fail", "does not lead back");
    assert_eq!(changed("A 192.0.2.7", "A 192.0.2.8", &ip).to_publish("ptr"), ["mx.good.test A 192.0.2.7"]);
    let with = |ehlo: &str| changed("good", "good", &[&ip[..], &["--ehlo", ehlo]].concat());
    with("mx.good.test").has("ptr", "ok", "192.0.2.7 is called mx.good.test");
    with("mail.good.test").has("ptr", "warn", "but says mail.good.test in EHLO");
    // Of several names any may be the one that is said.
    let zone = format!("{GOOD}7.2.0.192.in-addr.arpa. PTR mail.good.test.\nmail.good.test. A 192.0.2.7\n");
    for ehlo in ["mx.good.test", "mail.good.test"] {
        let found =
            Findings::of(&zone, &["good.test", "--no-blocklists", "--ip", "192.0.2.7", "--ehlo", ehlo]);
        found.has("ptr", "ok", ehlo);
    }
}

#[test]
fn the_lists_that_are_named_are_asked() {
    let list = |zone: &str, ip: &str, lists: &[&str]| {
        Findings::of(&format!("{GOOD}{zone}"), &[&["good.test", "--ip", ip, "--blocklist"], lists].concat())
    };
    let found = list("7.2.0.192.one.test. A 127.0.0.4\n", "192.0.2.7", &["one.test", "two.test"]);
    found.has("blocklist", "fail", "192.0.2.7 is listed on one.test (127.0.0.4)");
    found.has("blocklist", "ok", "192.0.2.7 is not on two.test");
    let nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2";
    let found = list(&format!("{nibbles}.one.test. A 127.0.0.2\n"), "2001:db8::1", &["one.test"]);
    found.has("blocklist", "fail", "2001:db8::1 is listed on one.test");
    let found = list("7.2.0.192.one.test. A 127.255.255.254\n", "192.0.2.7", &["one.test", "a..b"]);
    found.has("blocklist", "info", "one.test does not answer this resolver");
    found.has("blocklist", "info", "a..b is not a domain name");
    list("7.2.0.192.one.test. TIMEOUT\n", "192.0.2.7", &["one.test"]).has("blocklist", "info", "timed out");
    let usual = Findings::of(GOOD, &["good.test", "--ip", "192.0.2.7"]);
    assert_eq!(usual.of_check("blocklist").len(), 3);
}

#[test]
fn mail_back_to_the_sender_is_looked_at() {
    changed("good.test. MX 10 mx.good.test.\n", "", &[]).has("mx", "warn", "no MX record");
    changed("good.test. MX 10 mx.good.test.\n", "good.test. MX TIMEOUT\n", &[]).has(
        "mx",
        "fail",
        "timed out",
    );
    changed("v=STSv1", "v=STSv9", &[]).has("mta-sts", "warn", "No MTA-STS");
    changed("v=TLSRPTv1", "v=TLSRPTv9", &[]).has("tlsrpt", "warn", "No TLS reports");
    changed("l=https://good.test/logo.svg; a=https://good.test/vmc.pem", "l=; a=", &[])
        .has("bimi", "info", "decline");
    changed("v=BIMI1", "v=BIMI9", &[]).has("bimi", "info", "optional");
}

#[test]
fn plain_words_say_the_same() {
    let output = run(GOOD, &["good.test", "--ip", "192.0.2.200", "--no-blocklists", "--text"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("fail  spf: 192.0.2.200: fail. Add the address.\n      publish: ip4:192.0.2.200\n"),
        "{text}"
    );
    assert!(text.contains("ok    dmarc: p=reject is enforced.\n"), "{text}");
    let json = Findings::of(GOOD, &["good.test", "--ip", "192.0.2.200", "--no-blocklists"]);
    let lines = text.lines().filter(|line| !line.starts_with(' ')).count();
    assert_eq!(lines, json.0["findings"].as_array().unwrap().len());
}

#[test]
fn what_is_no_domain_is_bad_input() {
    for domain in ["", ".", "a..b", "two words\n"] {
        let output = run(GOOD, &[domain, "--no-blocklists"]);
        assert_eq!(output.status.code(), Some(2), "{domain:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1, "{domain:?}");
    }
}
