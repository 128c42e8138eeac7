//! Public dialogues of two other servers: chasquid's scripts and James's, as far as they are about the protocol.
//!
//! Wording is a server's own; classes of replies, states and what is carried out are what matters. Where our code
//! differs in class or the script needs something that this crate has not, the script is named with the reason.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use postwright_core::{EnhancedStatus, Refusal};
use postwright_smtp_proto::TlsInfo;
use postwright_smtp_proto::server::{Answer, Config, Question};
use support::{Driver, config, no, peer};

/// What the scripts take for granted: 1 MiB at most, three strikes, AUTH over TLS.
fn settings() -> Config {
    let mut settings = config();
    settings.limits.message_size = 1024 * 1024;
    settings.limits.errors = 3;
    settings.auth = vec!["PLAIN".into()];
    settings
}

fn clerk(question: &Question<'_>) -> Answer {
    match question {
        Question::Auth { response: None, .. } => Answer::Challenge(Vec::new()),
        Question::Auth { response: Some(b"user@testserver\0user@testserver\0secretpassword"), .. } => {
            Answer::accepted()
        }
        Question::Auth { response: Some(b"user@testserver\0yalala"), .. } => {
            Answer::refused(Refusal::known(501, EnhancedStatus::known(5, 5, 2), "Not PLAIN"))
        }
        Question::Auth { .. } => no(535),
        Question::Command { .. } => no(500),
        _ => Answer::accepted(),
    }
}

/// A driver and how much of its output the script has seen.
struct Stage {
    driver: Driver,
    seen: usize,
}

impl Stage {
    fn connect(tls: bool) -> Stage {
        let mut peer = peer();
        peer.tls = tls.then(TlsInfo::default);
        Stage { driver: Driver::with_peer(settings(), peer, Box::new(clerk)), seen: 0 }
    }

    /// The next reply, continuation lines included.
    fn reply(&mut self) -> Option<String> {
        let rest = &self.driver.record.output[self.seen..];
        let mut len = 0;
        for line in rest.split_inclusive("\r\n") {
            len += line.len();
            if line.as_bytes().get(3) == Some(&b' ') {
                let reply = rest[..len].to_owned();
                self.seen += len;
                return Some(reply);
            }
        }
        None
    }
}

/// The octets of a Python expression as the scripts use them: literals, `+`, `*` and brackets.
fn evaluate(expression: &str) -> Vec<u8> {
    let expression = expression.trim();
    if let Some((inner, times)) = expression.strip_prefix('(').and_then(|rest| rest.rsplit_once(") * ")) {
        return evaluate(inner).repeat(times.trim().parse().unwrap());
    }
    let mut all = Vec::new();
    for term in expression.split(" + ") {
        let (literal, times) = term.trim().rsplit_once(" * ").unwrap_or((term.trim(), "1"));
        let text = literal.trim().strip_prefix('\'').unwrap().strip_suffix('\'').unwrap();
        let text = text.replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0");
        all.extend(text.as_bytes().repeat(times.trim().parse().unwrap()));
    }
    all
}

/// Runs one chasquid script; an error names the line.
fn play(script: &str) -> Result<(), String> {
    let mut stage = Stage::connect(false);
    for (number, line) in script.lines().enumerate() {
        let fail = |what: String| Err(format!("line {}: {line:.80}: {what}", number + 1));
        let Some(action) = line.trim_end_matches(['\r', '\n']).strip_prefix("c ") else { continue };
        let (verb, rest) = action.split_once(' ').unwrap_or((action, ""));
        match verb {
            "tcp_connect" => stage = Stage::connect(false),
            "tls_connect" => stage = Stage::connect(true),
            "close" => {
                stage.driver.eof();
            }
            "->" => {
                // Some scripts leave out the angle brackets that RFC 5321 4.1.1.3 asks for; that is not their point.
                let line = rest.replace("RCPT TO: user@testserver", "RCPT TO:<user@testserver>");
                stage.driver.send(format!("{line}\r\n").as_bytes());
            }
            "~>" => {
                stage.driver.send(&evaluate(rest));
            }
            "<-" | "<~" | "<..." => {
                let Some(reply) = stage.reply() else { return fail("no reply".into()) };
                // The class decides; 421 for too many errors is told with the next reply by us.
                if reply.get(..1) != rest.get(..1) {
                    return fail(format!("got {}", reply.trim_end()));
                }
            }
            other => return fail(format!("unknown action {other}")),
        }
    }
    Ok(())
}

/// Scripts that ask for something else than the protocol.
const OTHERWISE: &[(&str, &str)] = &[
    ("bad_data.cmy", "refuses a message for its header, which is the embedder's to judge"),
    ("auth_too_many_failures.cmy", "replaces the last refusal by 421; we say both, see trust.rs"),
];

#[test]
fn chasquid_dialogues() {
    let Some(folder) = postwright_testkit::suites::dir("smtp/dialogues") else {
        postwright_testkit::skip!("smtp/dialogues", "the folder is not there")
    };
    let mut played = 0;
    let mut faults = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".cmy") || OTHERWISE.iter().any(|(known, _)| *known == name) {
            continue;
        }
        played += 1;
        if let Err(fault) = play(&std::fs::read_to_string(&path).unwrap()) {
            faults.push(format!("{name}: {fault}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(played, 16 - OTHERWISE.len());
    let why = "a broken header is not refused; both refusals of AUTH are said (docs/suites.md)";
    postwright_testkit::cases("smtp/dialogues", played + OTHERWISE.len(), OTHERWISE.len(), why);
}

/// Runs one James script: lines of `C:` in one group are sent together, codes of `S:` are compared.
fn play_james(script: &str) -> Result<Vec<u16>, String> {
    let mut settings = config();
    settings.starttls = true;
    settings.auth = vec!["LOGIN".into()];
    settings.auth_in_clear = true;
    let clerk: support::Policy = Box::new(|question| match question {
        Question::Auth { response: None, .. } => Answer::Challenge(b"Username:".to_vec()),
        Question::Auth { response: Some(b"bob@mydomain.tld"), .. } => {
            Answer::Challenge(b"Password:".to_vec())
        }
        _ => Answer::accepted(),
    });
    let mut driver = Driver::new(settings, clerk);
    let mut expected = Vec::new();
    for line in script.lines() {
        if let Some(sent) = line.strip_prefix("C:") {
            let sent = sent.strip_prefix(' ').unwrap_or(sent);
            driver
                .send(format!("{}\r\n", sent.replace("\\r\\n", "\r\n").trim_end_matches("\r\n")).as_bytes());
        } else if let Some(reply) =
            line.strip_prefix("S: ").filter(|reply| reply.as_bytes().get(3) != Some(&b'-'))
        {
            expected.push(reply[..3].parse().unwrap());
        }
    }
    // `S: 250.*` stands for the first line of a multi-line reply.
    let codes = driver.record.codes();
    let mut multi = expected.clone();
    multi.dedup_by(|a, b| *a == 250 && *b == 250);
    let mut ours = codes.clone();
    ours.dedup_by(|a, b| *a == 250 && *b == 250);
    let class = |codes: &[u16]| codes.iter().map(|code| code / 100).collect::<Vec<_>>();
    if class(&ours) == class(&multi) {
        Ok(codes)
    } else {
        Err(format!("{expected:?} wanted, {codes:?} given"))
    }
}

#[test]
fn james_scripts() {
    let Some(folder) = postwright_testkit::suites::dir("smtp/james") else {
        postwright_testkit::skip!("smtp/james", "the folder is not there")
    };
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    for name in [
        "data_starts_with_starttls.test",
        "data_with_starttls.test",
        "helo.test",
        "rcpt_with_starttls.test",
        "starttls.test",
        "starttls_session_fixation.test",
    ] {
        play_james(&read(name)).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
    // AUTH before EHLO: RFC 4954 4 gives us the right to 503, since nothing was offered.
    assert!(play_james(&read("authplain.test")).is_err());
    // The injection: James says 451, we say 554 and close; both refuse and neither carries the MAIL out.
    let fault = play_james(&read("starttls_with_injection.test")).unwrap_err();
    assert!(fault.ends_with("[220, 250, 554] given"), "{fault}");
    let why = "AUTH before EHLO is 503; an injection gets 554 (docs/suites.md)";
    postwright_testkit::cases("smtp/james", 8, 2, why);
}
