//! The same octets through `postwright serve` and through a private Postfix: the messages that come out, their bodies,
//! and the classes of the replies. Every difference is in [`DIFFERENCES`], with the page that says which RFC decides;
//! one that is not there fails the test, and so does a line there that nothing shows any more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use postwright_testkit::skip;
use support::load::Client;
use support::mta::Mta;
use support::postfix::Postfix;
use support::receiver::Receiver;
use support::streams::{self, MESSAGE_SIZE, Step, Stream};
use support::wait_until;

/// What may differ for a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum May {
    /// The replies; the messages are the same.
    Replies,
    /// We take none of the messages that Postfix takes.
    WeTakeNone,
    /// Postfix takes none of the messages that we take.
    TheyTakeNone,
    /// The body: Postfix changes octets.
    TheyChangeBodies,
    /// A recipient that is named twice gets two copies from us and one from Postfix.
    WeRepeat,
}

/// By label and by Postfix's `smtpd_forbid_bare_newline`; the reasons are in docs/postfix.md, by label.
const DIFFERENCES: &[(&str, &[&str], May)] = &[
    ("AUTH without AUTH", BOTH, May::Replies),
    ("BDAT with another word", BOTH, May::Replies),
    ("random order with BDAT", BOTH, May::Replies),
    ("BINARYMIME", BOTH, May::Replies),
    ("ETRN", BOTH, May::Replies),
    ("HELP", BOTH, May::Replies),
    ("NUL", &["normalize"], May::WeTakeNone),
    ("NUL", &["reject"], May::WeTakeNone),
    ("NUL", &["reject"], May::Replies),
    ("bare CR", BOTH, May::WeTakeNone),
    ("bare CR", &["reject"], May::Replies),
    ("bare LF", &["normalize"], May::WeTakeNone),
    ("bare LF", &["reject"], May::Replies),
    ("UTF-8 without SMTPUTF8", BOTH, May::Replies),
    ("another protocol", BOTH, May::Replies),
    ("bad domain", BOTH, May::Replies),
    ("bad literal", BOTH, May::Replies),
    ("blank in a path", BOTH, May::Replies),
    ("broken path", BOTH, May::Replies),
    ("broken route", BOTH, May::Replies),
    ("colon in the local part", BOTH, May::Replies),
    ("command beyond 2,048 octets", BOTH, May::Replies),
    ("command with NUL", BOTH, May::Replies),
    ("command with bare CR", BOTH, May::Replies),
    ("command with bare LF", &["normalize"], May::Replies),
    ("command with blank in front", BOTH, May::Replies),
    ("command with control", BOTH, May::Replies),
    ("comment in a path", BOTH, May::Replies),
    ("domain with a final dot", BOTH, May::Replies),
    ("dots in the local part", BOTH, May::Replies),
    ("double at", BOTH, May::Replies),
    ("NOOP within a group", BOTH, May::TheyTakeNone),
    ("leading hyphen", BOTH, May::Replies),
    ("long path", BOTH, May::Replies),
    ("no domain", BOTH, May::Replies),
    ("no local part", BOTH, May::Replies),
    ("number as domain", BOTH, May::Replies),
    ("odd header", BOTH, May::TheyChangeBodies),
    ("our address literal", BOTH, May::Replies),
    ("parameter after HELO", BOTH, May::Replies),
    ("parameter twice", BOTH, May::Replies),
    ("path without brackets", BOTH, May::Replies),
    ("recipient twice", BOTH, May::WeRepeat),
];

const BOTH: &[&str] = &["normalize", "reject"];

/// What one server made of one stream.
#[derive(Clone, PartialEq, Eq, Default)]
struct Outcome {
    /// The first digit of each reply, in order.
    classes: String,
    /// Each recipient with the text that it got, trace fields taken off.
    messages: Vec<(String, Vec<u8>)>,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.classes)?;
        self.messages
            .iter()
            .try_for_each(|(to, body)| write!(f, " {to}: {:.300}", body.escape_ascii().to_string()))
    }
}

/// Plays a stream; all replies, as they came.
fn play(stream: &Stream, address: SocketAddr) -> String {
    let Ok(mut client) = Client::raw(address) else { return String::new() };
    let mut replies = String::new();
    // An end of the connection in the middle is an outcome like any other.
    let _ = steps(stream, &mut client, &mut replies);
    let _ = client.half_close();
    replies + &client.rest()
}

fn steps(stream: &Stream, client: &mut Client, replies: &mut String) -> std::io::Result<()> {
    let mut next = |client: &mut Client| {
        let (code, text) = client.reply()?;
        replies.push_str(&text);
        Ok::<u16, std::io::Error>(code)
    };
    next(client)?;
    for step in &stream.steps {
        match step {
            Step::Send(octets, count) => {
                client.write(octets)?;
                for _ in 0..*count {
                    next(client)?;
                }
            }
            Step::Data(body) => {
                client.write(b"DATA\r\n")?;
                if next(client)? / 100 == 3 {
                    client.write(body)?;
                    next(client)?;
                }
            }
            Step::Last(octets) => client.write(octets)?,
        }
    }
    Ok(())
}

/// The first digits of the replies' last lines.
fn classes(replies: &str) -> String {
    let last = |line: &&str| line.len() >= 3 && line.as_bytes().get(3) != Some(&b'-');
    replies.lines().filter(last).filter_map(|line| line.chars().next()).collect()
}

/// The ids in `queued as ID`.
fn ids(replies: &str) -> Vec<String> {
    let ids = replies.split("queued as ").skip(1);
    ids.map(|rest| rest.chars().take_while(char::is_ascii_alphanumeric).collect()).collect()
}

/// A message without the fields that relays put on top of it.
fn without_trace(body: &[u8]) -> Vec<u8> {
    let mut rest = body;
    let is_trace = |text: &[u8]| {
        let names = ["received:", "return-path:", "authentication-results:", "delivered-to:"];
        names
            .iter()
            .any(|name| text.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name.as_bytes())))
    };
    while is_trace(rest) {
        loop {
            let end = rest.windows(2).position(|pair| pair == b"\r\n").map_or(rest.len(), |at| at + 2);
            rest = &rest[end..];
            if !matches!(rest.first(), Some(b' ' | b'\t')) {
                break;
            }
        }
    }
    rest.to_vec()
}

/// Plays all streams and waits for what came of them.
fn outcomes(streams: &[Stream], address: SocketAddr, receiver: &Receiver) -> Vec<Outcome> {
    let replies: Vec<String> = streams.iter().map(|stream| play(stream, address)).collect();
    let accepted: Vec<String> = replies.iter().flat_map(|replies| ids(replies)).collect();
    wait_until("what was accepted has arrived", Duration::from_secs(60), || {
        let mails = receiver.mails();
        let tops: String =
            mails.iter().map(|mail| String::from_utf8_lossy(&mail.body).into_owned()).collect();
        accepted.iter().all(|id| tops.contains(id.as_str()))
    });
    let mut outcomes: Vec<Outcome> =
        replies.iter().map(|replies| Outcome { classes: classes(replies), messages: Vec::new() }).collect();
    for mail in receiver.mails() {
        for to in &mail.to {
            let number = to.strip_prefix('r').and_then(|to| to.split('-').next()?.parse::<usize>().ok());
            if let Some(outcome) = number.and_then(|n| outcomes.get_mut(n)) {
                outcome.messages.push((to.clone(), without_trace(&mail.body)));
            }
        }
    }
    outcomes.iter_mut().for_each(|outcome| outcome.messages.sort());
    outcomes
}

/// What a stream sends, for whoever reads a failure.
fn shown(stream: &Stream) -> String {
    let text = |octets: &[u8]| octets.escape_ascii().to_string().chars().take(200).collect::<String>();
    let steps = stream.steps.iter().map(|step| match step {
        Step::Send(octets, _) | Step::Last(octets) => text(octets),
        Step::Data(body) => format!("DATA {}", text(body)),
    });
    steps.collect::<Vec<_>>().join(" | ")
}

/// How two outcomes differ; `None` if they do not.
fn difference(ours: &Outcome, theirs: &Outcome) -> Option<May> {
    let once = |outcome: &Outcome| outcome.messages.iter().cloned().collect::<BTreeSet<_>>();
    let whom = |outcome: &Outcome| outcome.messages.iter().map(|(to, _)| to.clone()).collect::<Vec<_>>();
    if ours.messages == theirs.messages {
        (ours.classes != theirs.classes).then_some(May::Replies)
    } else if ours.messages.is_empty() {
        Some(May::WeTakeNone)
    } else if theirs.messages.is_empty() {
        Some(May::TheyTakeNone)
    } else if whom(ours) == whom(theirs) {
        Some(May::TheyChangeBodies)
    } else if ours.classes == theirs.classes && once(ours) == once(theirs) {
        Some(May::WeRepeat)
    } else {
        panic!("other recipients: {ours:?}\n{theirs:?}")
    }
}

#[test]
fn the_same_streams_through_us_and_through_postfix() {
    let streams = streams::all();
    assert!(streams.len() >= 500, "{}", streams.len());
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let mta = Mta::start(spool.path(), receiver.address, &["--message-size", &MESSAGE_SIZE.to_string()]);
    let ours = outcomes(&streams, mta.address, &receiver);
    let (mut seen, mut differing) = (BTreeSet::new(), BTreeSet::new());
    let mut unlisted = BTreeMap::new();
    for mode in ["normalize", "reject"] {
        let receiver = Receiver::start();
        let settings = format!(
            "message_size_limit = {MESSAGE_SIZE}\nsmtpd_forbid_bare_newline = {mode}\n\
             smtpd_forbid_bare_newline_exclusions =\nsmtpd_forbid_unauth_pipelining = yes\n\
             smtpd_helo_required = yes\nsmtpd_error_sleep_time = 0\nsmtpd_client_connection_count_limit = 0\n"
        );
        let postfix = match Postfix::with(receiver.address, &settings) {
            Ok(postfix) => postfix,
            Err(why) => skip!("differential", "{why}"),
        };
        let theirs = outcomes(&streams, postfix.address, &receiver);
        for (number, (stream, (ours, theirs))) in streams.iter().zip(ours.iter().zip(&theirs)).enumerate() {
            let Some(may) = difference(ours, theirs) else { continue };
            differing.insert(number);
            let listed = |line: &&(&str, &[&str], May)| {
                line.0 == stream.label && line.1.contains(&mode) && line.2 == may
            };
            match DIFFERENCES.iter().find(listed) {
                Some(line) => drop(seen.insert((line.0, line.2 as u8, mode))),
                None => {
                    let text = format!("{}\n  ours   {ours:?}\n  theirs {theirs:?}", shown(stream));
                    unlisted
                        .entry((stream.label.clone(), mode, format!("{may:?}")))
                        .or_insert_with(Vec::new)
                        .push(text);
                }
            }
        }
    }
    eprintln!("{} streams, {} the same in both modes", streams.len(), streams.len() - differing.len());
    for (key, texts) in &unlisted {
        eprintln!("{key:?} x{}", texts.len());
        texts.iter().for_each(|text| eprintln!("  {text}"));
    }
    assert!(unlisted.is_empty(), "{} kinds of differences are not listed", unlisted.len());
    let why = "each listed with its reason in docs/postfix.md";
    postwright_testkit::cases("postfix-streams", streams.len(), differing.len(), why);
    let page = std::fs::read_to_string(postwright_testkit::workspace_root().join("docs/postfix.md")).unwrap();
    for (label, modes, may) in DIFFERENCES {
        let shown = modes.iter().all(|mode| seen.contains(&(*label, *may as u8, *mode)));
        assert!(shown, "nothing shows {label:?} {may:?} with each of {modes:?}");
        assert!(
            page.contains(&format!("\n| {label} |")),
            "docs/postfix.md does not say why {label:?} differs"
        );
    }
}
