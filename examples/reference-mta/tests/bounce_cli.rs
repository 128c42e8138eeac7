//! The commands about bounces, as a script sees them: `bounce classify`, `report parse` and `suppress` of the real program. The
//! shapes of the JSON are a contract.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeSet;

use serde_json::Value;
use support::cli::{lines, run};

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn classify_gives_a_line_for_a_line() {
    let here = tempfile::tempdir().unwrap();
    let input = b"550 5.1.1 <ann@example.org>: User unknown\n421 4.4.2 timeout\r\n\n552 5.2.2 mailbox full\n\xff\xfe\n550 5.7.1 spam";
    let values = lines(here.path(), &["bounce", "classify"], input);
    let contract = BTreeSet::from(["input", "category", "permanence", "hard", "scope", "action", "rule"]);
    for value in &values {
        assert_eq!(keys(value), contract, "{value}");
        assert!(
            ["permanent", "transient", "unknown"].contains(&value["permanence"].as_str().unwrap()),
            "{value}"
        );
        assert!(value["hard"].is_boolean());
        let scope = value["scope"].as_str().unwrap();
        assert!(
            ["recipient", "mailbox", "domain", "sender", "source-ip", "content", "tenant", "us"]
                .contains(&scope),
            "{value}"
        );
        let action = value["action"].as_str().unwrap();
        let actions =
            ["suppress", "retry", "back-off", "fix-auth", "fix-content", "fix-dns", "slow-down", "none"];
        assert!(actions.contains(&action), "{value}");
    }
    let first = &values[0];
    assert_eq!(first["input"], "550 5.1.1 <ann@example.org>: User unknown");
    assert_eq!(
        (&first["permanence"], &first["hard"], &first["action"]),
        (&"permanent".into(), &true.into(), &"suppress".into())
    );
    assert_eq!(
        (&values[1]["input"], &values[1]["permanence"]),
        (&"421 4.4.2 timeout".into(), &"transient".into())
    );
    let full = values.iter().find(|value| value["input"] == "552 5.2.2 mailbox full").unwrap();
    assert_eq!((&full["category"], &full["hard"]), (&"mailbox-full".into(), &false.into()));
    assert_eq!(values.last().unwrap()["input"], "550 5.7.1 spam", "the last line needs no end");
    assert!(lines(here.path(), &["bounce", "classify"], b"").is_empty());
}

#[test]
fn own_rules_go_first_and_broken_ones_are_named() {
    let here = tempfile::tempdir().unwrap();
    let rules = "[[rule]]\nname = \"mine\"\ncategory = \"greylisted\"\nany = [\"come back tomorrow\"]\npermanence = \"transient\"\n";
    std::fs::write(here.path().join("rules.toml"), rules).unwrap();
    let args = ["bounce", "classify", "--rules", "rules.toml", "--group"];
    let values = lines(here.path(), &args, b"550 5.1.1 Come back, tomorrow! (id 4QxT3B5z)\n");
    assert_eq!((&values[0]["rule"], &values[0]["permanence"]), (&"mine".into(), &"transient".into()));
    assert!(values[0]["group"].as_str().unwrap().contains("{id}"));
    std::fs::write(here.path().join("rules.toml"), "[[rule]]\nname = \"x\"\ncategory = \"nonsense\"\n")
        .unwrap();
    let output = run(here.path(), &args, b"550 x\n");
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(2), true));
    assert!(
        complaint.contains("line 3") && complaint.contains("nonsense") && complaint.lines().count() == 1,
        "{complaint}"
    );
}

const DSN: &str = "From: MAILER-DAEMON@mx.example.net\nTo: bounce@example.com\nSubject: Undelivered\nMIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\nSorry.\n--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example.net\n\nFinal-Recipient: rfc822; ann@example.org\nOriginal-Recipient: rfc822; anna@example.org\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 User unknown\n\n--b\nContent-Type: text/rfc822-headers\n\nMessage-ID: <1@example.com>\n\n--b--\n";
const PROSE: &str = "From: Mail Delivery System <mailer-daemon@mx.example.net>\nSubject: failure notice\n\nSorry.\n\n<ann@example.org>:\n192.0.2.1 does not like recipient.\nRemote host said: 452 4.2.2 mailbox full\n";
const ARF: &str = "From: fbl@example.net\nSubject: complaint\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n\nx\n--b\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: x\nVersion: 1\nOriginal-Rcpt-To: <ann@example.org>\n\n--b\nContent-Type: message/rfc822\n\nMessage-ID: <2@example.com>\n\nx\n--b--\n";
const AWAY: &str = "From: ann@example.org\nSubject: Re: hello\nAuto-Submitted: auto-replied\n\nI am away.\n";
const PLAIN: &str = "From: ann@example.org\nTo: bob@example.com\nSubject: hello\n\nHow are you?\n";

#[test]
fn parse_takes_any_readable_mail() {
    let here = tempfile::tempdir().unwrap();
    let contract = BTreeSet::from(["kind", "reports", "feedback_type", "original_message_id"]);
    let report = BTreeSet::from([
        "recipient",
        "original_recipient",
        "action",
        "status",
        "code",
        "diagnostic",
        "category",
        "permanence",
        "hard",
    ]);
    for (mail, kind, reports, feedback, id) in [
        (DSN, "dsn", 1, Value::Null, Value::from("<1@example.com>")),
        (PROSE, "bounce", 1, Value::Null, Value::Null),
        (ARF, "arf", 1, Value::from("abuse"), Value::from("<2@example.com>")),
        (AWAY, "auto-reply", 1, Value::Null, Value::Null),
        (PLAIN, "none", 0, Value::Null, Value::Null),
    ] {
        for mail in [mail.to_owned(), mail.replace('\n', "\r\n")] {
            std::fs::write(here.path().join("mail"), &mail).unwrap();
            for (args, input) in
                [(["report", "parse", "mail"], &b""[..]), (["report", "parse", "-"], mail.as_bytes())]
            {
                let values = lines(here.path(), &args, input);
                let [value] = &values[..] else { panic!("one value, {kind}: {values:?}") };
                assert_eq!(keys(value), contract, "{kind}");
                assert_eq!(
                    (&value["kind"], &value["feedback_type"], &value["original_message_id"]),
                    (&kind.into(), &feedback, &id)
                );
                let all = value["reports"].as_array().unwrap();
                assert_eq!(all.len(), reports, "{value}");
                for one in all {
                    assert_eq!(keys(one), report, "{kind}");
                    assert!(
                        ["permanent", "transient", "unknown"].contains(&one["permanence"].as_str().unwrap())
                    );
                    assert!(one["hard"].is_boolean());
                }
            }
        }
    }
    std::fs::write(here.path().join("mail"), DSN).unwrap();
    let value = &lines(here.path(), &["report", "parse", "mail"], b"")[0]["reports"][0];
    for (key, expected) in [
        ("recipient", Value::from("ann@example.org")),
        ("original_recipient", "anna@example.org".into()),
        ("action", "failed".into()),
        ("status", "5.1.1".into()),
        ("code", 550.into()),
        ("diagnostic", "550 5.1.1 User unknown".into()),
        ("category", "user-unknown".into()),
        ("permanence", "permanent".into()),
        ("hard", true.into()),
    ] {
        assert_eq!(value[key], expected, "{key}");
    }
    let nothing = run(here.path(), &["report", "parse", "no-such-file"], b"");
    assert_eq!((nothing.status.code(), nothing.stdout.is_empty()), (Some(2), true));
}

#[test]
fn suppress_keeps_a_list_by_tenant_and_stream() {
    let here = tempfile::tempdir().unwrap();
    let here = here.path();
    let marketing = ["--tenant", "shop", "--stream", "marketing"];
    let with = |args: &[&str]| -> Vec<Value> {
        let args: Vec<&str> = ["suppress"].iter().chain(args).copied().collect();
        lines(here, &args, b"")
    };
    let scoped = |args: &[&str]| with(&[&marketing[..], args].concat());
    assert_eq!(
        scoped(&["add", "Ann@Example.org", "bob@example.org", "--reason", "complaint", "--note", "a, \"b\""])
            [0]["added"],
        2
    );
    let check = |args: &[&str]| with(args)[0]["suppressed"].as_bool().unwrap();
    assert!(check(&[&marketing[..], &["check", "ann@example.org"]].concat()));
    assert!(
        !check(&["--tenant", "shop", "--stream", "receipts", "check", "ann@example.org"]),
        "another stream"
    );
    assert!(!check(&["--stream", "marketing", "check", "ann@example.org"]), "another tenant");
    let list = with(&["--tenant", "shop", "list"]);
    assert_eq!(
        (list.len(), &list[0]["address"], &list[0]["reason"]),
        (2, &"ann@example.org".into(), &"complaint".into())
    );
    assert!(with(&["list"]).is_empty());

    let csv = run(here, &["suppress", "export"], b"").stdout;
    let text = String::from_utf8(csv.clone()).unwrap();
    assert!(
        text.starts_with(
            "address,tenant,stream,reason,since,until,note\nann@example.org,shop,marketing,complaint,"
        ),
        "{text}"
    );
    assert!(text.contains("\"a, \"\"b\"\"\""), "{text}");
    assert_eq!(scoped(&["remove", "ANN@example.org", "nobody@example.org"])[0]["removed"], 1);
    assert!(!check(&[&marketing[..], &["check", "ann@example.org"]].concat()));
    // What was exported comes back, into another list too, and twice is once.
    let import = ["suppress", "--store", "other", "import", "-"];
    assert_eq!(lines(here, &import, &csv)[0]["added"], 2);
    assert_eq!(lines(here, &import, &csv)[0]["added"], 0);
    assert_eq!(run(here, &["suppress", "--store", "other", "export"], b"").stdout, csv);

    // A past expiry stops nothing.
    assert!(!check(&["check", "x@example.org"]));
    with(&["add", "x@example.org", "--days", "0"]);
    assert!(!check(&["check", "x@example.org"]));
    with(&["add", "x@example.org", "--days", "1"]);
    assert!(check(&["check", "x@example.org"]));
    for bad in [
        &["suppress", "add", "not an address"][..],
        &["suppress", "add", "a@b.example", "--reason", "because"],
        &["suppress", "import", "no-such-file"],
    ] {
        let output = run(here, bad, b"");
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), complaint.lines().count()), (Some(2), 1), "{bad:?}: {complaint}");
    }
    // A file that is wrong in one line changes nothing.
    let wrong = b"a@b.example,t,,manual,1,,\na@c.example,t,,because,1,,\n";
    let output = run(here, &["suppress", "import", "-"], wrong);
    assert!(output.status.code() == Some(2) && String::from_utf8_lossy(&output.stderr).contains("line 2"));
    assert!(!check(&["--tenant", "t", "check", "a@b.example"]));
}
