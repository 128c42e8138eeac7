//! Octet streams for two servers at once: the same from run to run, and in steps, so that neither sees more of the
//! stream than the other when it decides.
//!
//! Not here: what the servers make of them (`differential.rs`).

use postwright_core::{Entropy, SeededEntropy};

/// What both servers let a message be at most.
pub const MESSAGE_SIZE: usize = 20_000;

#[derive(Debug, Clone)]
pub enum Step {
    /// Sent at once; then so many replies are awaited.
    Send(Vec<u8>, usize),
    /// DATA; these octets follow if the server says 3xx, and one reply is awaited.
    Data(Vec<u8>),
    /// Sent, and nothing more; everything up to the end of the connection is read.
    Last(Vec<u8>),
}

#[derive(Debug, Clone)]
pub struct Stream {
    /// What is tried; differences are listed by it.
    pub label: String,
    pub steps: Vec<Step>,
}

/// Replaces `{n}` by the stream's number, so that messages can be told apart at the other end.
fn numbered(text: &str, n: usize) -> Vec<u8> {
    text.replace("{n}", &n.to_string()).into_bytes()
}

fn line(text: &str, n: usize) -> Step {
    Step::Send([numbered(text, n), b"\r\n".to_vec()].concat(), 1)
}

fn quit() -> Step {
    Step::Last(b"QUIT\r\n".to_vec())
}

const EHLO: &str = "EHLO client.test";
const MAIL: &str = "MAIL FROM:<s{n}@load.test>";
const RCPT: &str = "RCPT TO:<r{n}-a@receiver.test>";
const BODY: &str = "X-Mark: {n}\r\n\r\nline\r\n..dot\r\n.\r\n";

pub fn all() -> Vec<Stream> {
    let mut all = Vec::new();
    random_orders(&mut all);
    groups(&mut all);
    ends_of_data(&mut all);
    commands(&mut all);
    sizes(&mut all);
    paths(&mut all);
    parameters(&mut all);
    all
}

fn add(all: &mut Vec<Stream>, label: impl Into<String>, steps: impl FnOnce(usize) -> Vec<Step>) {
    let steps = steps(all.len());
    all.push(Stream { label: label.into(), steps });
}

/// Commands in any order, right and wrong, one at a time. What a server offers in its reply to EHLO is used only after
/// EHLO, and each recipient is named once.
fn random_orders(all: &mut Vec<Stream>) {
    const POOL: [&str; 22] = [
        "EHLO",
        MAIL,
        MAIL,
        MAIL,
        "MAIL FROM:<>",
        "mail from:<s{n}@load.test>",
        "MAIL TO:<x@y.test>",
        "RCPT TO:<r{n}-b{k}@receiver.test>",
        "RCPT TO:<r{n}-b{k}@receiver.test>",
        "rcpt to:<r{n}-c{k}@receiver.test>",
        "RCPT TO:<>",
        "RCPT FROM:<x@y.test>",
        "RCPT",
        "RSET",
        "NOOP",
        "NOOP with words",
        "VRFY",
        "XNOSUCH",
        "DATA",
        "HELLO",
        "MAIL FROM:<s{n}@load.test> SIZE=100",
        "MAIL FROM:<s{n}@load.test> BODY=8BITMIME",
    ];
    let entropy = SeededEntropy::new(5321);
    let below = |limit: usize| usize::try_from(entropy.below(limit as u64)).unwrap();
    for i in 0..360 {
        // A third by HELO and without parameters, a third with BDAT.
        let (hello, chunks) = if i % 3 == 0 { ("HELO client.test", false) } else { (EHLO, i % 3 == 2) };
        let pool = if hello == EHLO { &POOL[..] } else { &POOL[..20] };
        add(all, if chunks { "random order with BDAT" } else { "random order" }, |n| {
            // Most begin as a client does, so that the rest is not all refused.
            let mut steps =
                if i % 4 == 0 { Vec::new() } else { vec![line(hello, n), line(MAIL, n), line(RCPT, n)] };
            for k in 0..2 + below(8) {
                steps.push(match pool[below(pool.len())] {
                    "DATA" if chunks => chunk(n, below(2) == 0),
                    "DATA" => Step::Data(numbered(BODY, n)),
                    "HELLO" => line(hello, n),
                    command => line(&command.replace("{k}", &k.to_string()), n),
                });
            }
            steps.push(quit());
            steps
        });
    }
}

fn chunk(n: usize, last: bool) -> Step {
    let text = String::from_utf8(numbered("X-Mark: {n}\r\n\r\nchunk\r\n", n)).unwrap();
    let last = if last { " LAST" } else { "" };
    Step::Send(format!("BDAT {}{last}\r\n{text}", text.len()).into_bytes(), 1)
}

/// Commands in groups (RFC 2920), allowed and not.
fn groups(all: &mut Vec<Stream>) {
    const GROUPS: [(&str, &str, usize); 9] = [
        ("group", "MAIL FROM:<s{n}@load.test>\r\nRCPT TO:<r{n}-a@receiver.test>\r\n", 2),
        (
            "group",
            "MAIL FROM:<s{n}@load.test>\r\nRCPT TO:<r{n}-a@receiver.test>\r\nRCPT TO:<r{n}-b@receiver.test>\r\n",
            3,
        ),
        (
            "group",
            "RSET\r\nMAIL FROM:<s{n}@load.test>\r\nRCPT TO:<>\r\nRCPT TO:<r{n}-b@receiver.test>\r\n",
            4,
        ),
        ("group", "MAIL FROM:<>\r\nNOSUCH\r\nRCPT TO:<r{n}-a@receiver.test>\r\n", 3),
        (
            "group",
            "MAIL FROM:<s{n}@load.test>\r\nMAIL FROM:<s{n}@load.test>\r\nRCPT TO:<r{n}-a@receiver.test>\r\n",
            3,
        ),
        (
            "group",
            "RCPT TO:<r{n}-a@receiver.test>\r\nMAIL FROM:<s{n}@load.test>\r\nRCPT TO:<r{n}-b@receiver.test>\r\n",
            3,
        ),
        ("group", "MAIL FROM:<s{n}@load.test>\r\nRCPT TO:<r{n}-a@receiver.test>\r\nRSET\r\n", 3),
        (
            "NOOP within a group",
            "NOOP\r\nNOOP\r\nRSET\r\nMAIL FROM:<s{n}@load.test>\r\nRCPT TO:<r{n}-a@receiver.test>\r\n",
            5,
        ),
        ("double at", "MAIL FROM:<s{n}@load.test>\r\nRCPT TO:<nobody@@receiver.test>\r\n", 2),
    ];
    for (label, group, replies) in GROUPS {
        add(all, label, |n| {
            let group = Step::Send(numbered(group, n), replies);
            vec![line(EHLO, n), group, Step::Data(numbered(BODY, n)), line("NOOP", n), quit()]
        });
        // The message and the next envelope at once.
        add(all, label, |n| {
            let next = [numbered(BODY, n), numbered(&format!("{MAIL}\r\n{RCPT}\r\n"), n)].concat();
            vec![line(EHLO, n), Step::Send(numbered(group, n), replies), Step::Data(next), quit()]
        });
    }
    for (label, first) in [
        ("talk behind EHLO", "EHLO client.test\r\nNOOP\r\nQUIT\r\n"),
        ("talk behind HELO", "HELO client.test\r\nNOOP\r\nQUIT\r\n"),
    ] {
        add(all, label, |n| vec![Step::Last(numbered(first, n))]);
    }
    add(all, "talk behind DATA", |n| {
        let early = format!("{MAIL}\r\n{RCPT}\r\nDATA\r\n{BODY}QUIT\r\n");
        vec![line(EHLO, n), Step::Last(numbered(&early, n))]
    });
    add(all, "recipient twice", |n| {
        vec![
            line(EHLO, n),
            line(MAIL, n),
            line(RCPT, n),
            line(RCPT, n),
            Step::Data(numbered(BODY, n)),
            quit(),
        ]
    });
    add(all, "chunks in one write", |n| {
        let early = format!("{MAIL}\r\n{RCPT}\r\nBDAT 2\r\nX:BDAT 6 LAST\r\n 1\r\n\r\nQUIT\r\n");
        vec![line(EHLO, n), Step::Last(numbered(&early, n))]
    });
}

/// What looks like the end of a message, with a second transaction behind it, then the real end.
fn ends_of_data(all: &mut Vec<Stream>) {
    const ENDS: [(&str, &[u8]); 32] = [
        ("bare LF", b"\n.\n"),
        ("bare LF", b"\n.\r\n"),
        ("bare LF", b"\r\n.\n"),
        ("bare LF", b"\n\n.\r\n"),
        ("bare LF", b"\n"),
        ("bare LF", b"\n..\r\n"),
        ("bare LF", b"\n.\r"),
        ("bare CR", b"\r.\n"),
        ("bare CR", b"\r.\r"),
        ("bare CR", b"\r.\r\n"),
        ("bare CR", b"\r\n.\r"),
        ("bare CR", b"\r\n.\r\r\n"),
        ("bare CR", b"\r\r\n.\r\r\n"),
        ("bare CR", b"\r"),
        ("bare CR", b"\r\n.\rX"),
        ("NUL", b"\r\n\0.\r\n"),
        ("NUL", b"\r\n.\0\r\n"),
        ("NUL", b"\r\0\n.\r\n"),
        ("NUL", b"\r\n.\r\0\n"),
        ("NUL", b"\0"),
        ("NUL", b"\0\r\n.\r\n"),
        ("real end", b"\r\n.\r\n"),
        ("text", b"\r\n..\r\n"),
        ("text", b"\r\n...\r\n"),
        ("text", b"\r\n .\r\n"),
        ("text", b"\r\n. \r\n"),
        ("text", b"\r\n.\x0c\r\n"),
        ("text", b"\r\n\x0b.\r\n"),
        ("text", b"\r\n \x08.\r\n"),
        ("text", b"\r\n.\xe2\x80\xa8\r\n"),
        ("text", b"\x1a"),
        ("text", b"\r\n.x\r\n"),
    ];
    let attack = "MAIL FROM:<evil@load.test>\r\nRCPT TO:<r{n}-evil@receiver.test>\r\nDATA\r\nX-Mark: evil\r\n\r\nsmuggled";
    for (kind, end) in ENDS {
        for (place, before) in
            [("odd text", "X-Mark: {n}\r\n\r\nbody"), ("odd header", "X-Mark: {n}\r\nX-Next: body")]
        {
            add(all, if kind == "text" { place } else { kind }, |n| {
                let stream = [&numbered(before, n)[..], end, &numbered(attack, n), b"\r\n.\r\n"].concat();
                vec![
                    line(EHLO, n),
                    line(MAIL, n),
                    line(RCPT, n),
                    line("DATA", n),
                    Step::Last([stream, b"QUIT\r\n".to_vec()].concat()),
                ]
            });
        }
    }
    for (label, octets) in [
        ("no end of data", &b"X-Mark: 1\r\n\r\ntext\r\n"[..]),
        ("no end of data", b"X-Mark: 1\r\n\r\ntext\r\n."),
        ("no end of data", b"X-Mark: 1\r\n\r\ntext\r\n.\r"),
        ("no end of data", b""),
    ] {
        add(all, label, |n| {
            vec![line(EHLO, n), line(MAIL, n), line(RCPT, n), line("DATA", n), Step::Last(octets.to_vec())]
        });
    }
}

/// Command lines that end in odd ways, or are none.
fn commands(all: &mut Vec<Stream>) {
    for (label, octets) in [
        ("command with bare LF", &b"NOOP\nNOOP\r\n"[..]),
        ("command with bare LF", b"MAIL FROM:<a@load.test>\nRCPT TO:<b@receiver.test>\r\n"),
        ("command with bare LF", b"RSET\n"),
        ("command with bare CR", b"NOOP\rNOOP\r\n"),
        ("command with bare CR", b"NOOP\r\r\n"),
        ("command with NUL", b"NOOP\0\r\n"),
        ("command with NUL", b"NO\0OP\r\n"),
        ("command with control", b"NOOP \x01\r\n"),
        ("command not UTF-8", b"NOOP \xff\r\n"),
        ("unknown command", b"FROBNICATE\r\n"),
        ("unknown command", b"XPRIVATE a b c\r\n"),
        ("empty command", b"\r\n"),
        ("command with blank in front", b" NOOP\r\n"),
        ("another protocol", b"GET / HTTP/1.1\r\n"),
        ("another protocol", b"POST / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("another protocol", b"CONNECT x:25 HTTP/1.1\r\n"),
        ("arguments", b"RSET now\r\n"),
        ("arguments", b"DATA now\r\n"),
        ("arguments", b"HELO\r\n"),
        ("arguments", b"VRFY\r\n"),
        ("EXPN", b"EXPN list\r\n"),
        ("HELP", b"HELP\r\n"),
        ("VRFY", b"VRFY someone@receiver.test\r\n"),
        ("AUTH not offered", b"AUTH PLAIN AGEAYg==\r\n"),
        ("STARTTLS not offered", b"STARTTLS\r\n"),
        ("ETRN", b"ETRN example.test\r\n"),
        ("LHLO", b"LHLO client.test\r\n"),
        ("BDAT without size", b"BDAT\r\n"),
        ("BDAT without size", b"BDAT x\r\n"),
        ("BDAT without size", b"BDAT -1\r\n"),
        ("BDAT without size", b"BDAT 18446744073709551616\r\n"),
        ("BDAT with another word", b"BDAT 0 FIRST\r\n"),
        ("BDAT without MAIL", b"BDAT 0 LAST\r\n"),
    ] {
        let command = Step::Send(octets.to_vec(), 1);
        add(all, label, |n| vec![line(EHLO, n), command.clone(), quit()]);
        add(all, label, |n| vec![line(EHLO, n), line(MAIL, n), line(RCPT, n), command, quit()]);
    }
    for len in [510, 1000, 2046] {
        add(all, "long command", |n| {
            vec![line(EHLO, n), line(&format!("NOOP {}", "x".repeat(len - 5)), n), quit()]
        });
    }
    for len in [2100, 70_000] {
        add(all, "command beyond 2,048 octets", |n| {
            vec![line(EHLO, n), line(&format!("NOOP {}", "x".repeat(len)), n), quit()]
        });
    }
    for name in
        ["client", "[127.0.0.1]", "[IPv6:::1]", "client.test.", "-", "under_score.test", "a..b", "127.0.0.1"]
    {
        for verb in ["EHLO", "HELO"] {
            add(all, "name of the client", |n| {
                vec![line(&format!("{verb} {name}"), n), line(MAIL, n), quit()]
            });
        }
    }
}

fn sizes(all: &mut Vec<Stream>) {
    let text = |n: usize, len: usize| {
        let mut text = numbered("X-Mark: {n}\r\n\r\n", n);
        while text.len() < len {
            text.extend_from_slice(b"0123456789abcdef0123456789abcdef0123456789abcdef\r\n");
        }
        text
    };
    for len in [MESSAGE_SIZE / 2, MESSAGE_SIZE * 2, MESSAGE_SIZE * 50] {
        let label = if len > MESSAGE_SIZE { "too large" } else { "not too large" };
        add(all, label, |n| {
            let body = [text(n, len), b".\r\n".to_vec()].concat();
            vec![line(EHLO, n), line(MAIL, n), line(RCPT, n), Step::Data(body), line("NOOP", n), quit()]
        });
        add(all, format!("{label} by BDAT"), |n| {
            let body = text(n, len);
            let chunk = [format!("BDAT {} LAST\r\n", body.len()).into_bytes(), body].concat();
            vec![line(EHLO, n), line(MAIL, n), line(RCPT, n), Step::Send(chunk, 1), line("NOOP", n), quit()]
        });
        add(all, format!("{label} by SIZE"), |n| {
            let mail = format!("{MAIL} SIZE={len}");
            vec![line(EHLO, n), line(&mail, n), line(RCPT, n), Step::Data(numbered(BODY, n)), quit()]
        });
    }
}

fn paths(all: &mut Vec<Stream>) {
    let long_local = format!("<{}@load.test>", "l".repeat(65));
    let long_domain = format!("<a@{}test>", "d234567890.".repeat(24));
    let long_label = format!("<a@{}.test>", "d".repeat(64));
    for (label, path) in [
        ("path", "<a@load.test>"),
        ("path", "<A.B@LOAD.test>"),
        ("path", "<a+b=c@load.test>"),
        ("path", "<!#$%&'*/=?^_`{|}~@load.test>"),
        ("quoted local part", "<\"a b\"@load.test>"),
        ("quoted local part", "<\"a\\\"b\"@load.test>"),
        ("quoted local part", "<\"a@b\"@load.test>"),
        ("quoted local part", "<\"a>b\"@load.test>"),
        ("our address literal", "<a@[127.0.0.1]>"),
        ("address literal", "<a@[IPv6:::1]>"),
        ("blank behind the colon", " <a@load.test>"),
        ("path", "<a@load.test> "),
        ("path without brackets", "a@load.test"),
        ("broken path", "<a@load.test"),
        ("broken path", "a@load.test>"),
        ("broken path", "<a@load.test>x"),
        ("broken path", "<<a@load.test>>"),
        ("no domain", "<a>"),
        ("no local part", "<@load.test>"),
        ("no domain", "<a@>"),
        ("double at", "<a@@load.test>"),
        ("double at", "<a@b@load.test>"),
        ("dots in the local part", "<.a@load.test>"),
        ("dots in the local part", "<a.@load.test>"),
        ("dots in the local part", "<a..b@load.test>"),
        ("bad domain", "<a@.load.test>"),
        ("bad domain", "<a@load..test>"),
        ("bad domain", "<a@-load.test>"),
        ("bad domain", "<a@load_x.test>"),
        ("domain with a final dot", "<a@load.test.>"),
        ("bad literal", "<a@[127.0.0.1>"),
        ("bad literal", "<a@[300.0.0.1]>"),
        ("number as domain", "<a@127.0.0.1>"),
        ("blank in a path", "<a b@load.test>"),
        ("blank in a path", "<a@load.test >"),
        ("blank in a path", "< a@load.test>"),
        ("comment in a path", "<a(c)@load.test>"),
        ("source route", "<@one.test:a@load.test>"),
        ("source route", "<@one.test,@two.test:a@load.test>"),
        ("broken route", "<@one.test,two.test:a@load.test>"),
        ("other separators", "<a%b@load.test>"),
        ("other separators", "<one.test!a@load.test>"),
        ("colon in the local part", "<a:b@load.test>"),
        ("other separators", "<a;b@load.test>"),
        ("UTF-8 without SMTPUTF8", "<\u{e9}@load.test>"),
        ("UTF-8 domain", "<a@\u{e9}.test>"),
        ("long path", long_local.as_str()),
        ("long path", long_domain.as_str()),
        ("long path", long_label.as_str()),
        ("shell characters", "<|/bin/sh@load.test>"),
        ("shell characters", "</etc/passwd@load.test>"),
        ("shell characters", "<${run{x}}@load.test>"),
        ("leading hyphen", "<-a@load.test>"),
        ("phrase before the path", "Name <a@load.test>"),
        ("upper-case postmaster", "<POSTMASTER@load.test>"),
    ] {
        add(all, label, |n| {
            vec![line(EHLO, n), line(&format!("MAIL FROM:{path}"), n), line(RCPT, n), line("RSET", n), quit()]
        });
        add(all, label, |n| {
            vec![line(EHLO, n), line(MAIL, n), line(&format!("RCPT TO:{path}"), n), line("RSET", n), quit()]
        });
    }
    for path in ["<postmaster>", "<POSTMASTER>", "<>"] {
        add(all, "special recipient", |n| {
            vec![line(EHLO, n), line(MAIL, n), line(&format!("RCPT TO:{path}"), n), quit()]
        });
    }
}

fn parameters(all: &mut Vec<Stream>) {
    for (label, parameters) in [
        ("SIZE", "SIZE=1"),
        ("SIZE", "size=1"),
        ("bad SIZE", "SIZE=x"),
        ("bad SIZE", "SIZE=-1"),
        ("bad SIZE", "SIZE="),
        ("bad SIZE", "SIZE"),
        ("huge SIZE", "SIZE=99999999999999999999"),
        ("parameter twice", "SIZE=1 SIZE=2"),
        ("BODY", "BODY=7BIT"),
        ("BODY", "BODY=8bitmime"),
        ("bad BODY", "BODY=9BIT"),
        ("bad BODY", "BODY="),
        ("BINARYMIME", "BODY=BINARYMIME"),
        ("RET", "RET=FULL"),
        ("RET", "RET=hdrs"),
        ("bad RET", "RET=ALL"),
        ("bad RET", "RET="),
        ("ENVID", "ENVID=QQ314159"),
        ("ENVID", "ENVID=a+2Bb"),
        ("bad ENVID", "ENVID=a+zz"),
        ("bad ENVID", "ENVID="),
        ("parameter twice", "RET=FULL RET=HDRS"),
        ("parameter twice", "ENVID=a ENVID=b"),
        ("SMTPUTF8", "SMTPUTF8"),
        ("unknown parameter", "XFOO=bar"),
        ("unknown parameter", "XFOO"),
        ("unknown parameter", "REQUIRETLS"),
        ("unknown parameter", "BY=120;R"),
        ("unknown parameter", "HOLDFOR=60"),
        ("unknown parameter", "MT-PRIORITY=3"),
        ("AUTH without AUTH", "AUTH=<>"),
        ("malformed parameter", "=x"),
        ("malformed parameter", "A=B=C"),
    ] {
        add(all, label, |n| {
            vec![
                line(EHLO, n),
                line(&format!("{MAIL} {parameters}"), n),
                line(RCPT, n),
                line("RSET", n),
                quit(),
            ]
        });
        add(all, "parameter after HELO", |n| {
            vec![
                line("HELO client.test", n),
                line(&format!("{MAIL} {parameters}"), n),
                line("RSET", n),
                quit(),
            ]
        });
    }
    for (label, parameters) in [
        ("NOTIFY", "NOTIFY=NEVER"),
        ("NOTIFY", "NOTIFY=SUCCESS,FAILURE,DELAY"),
        ("NOTIFY", "notify=delay"),
        ("bad NOTIFY", "NOTIFY=NEVER,DELAY"),
        ("bad NOTIFY", "NOTIFY=MAYBE"),
        ("bad NOTIFY", "NOTIFY="),
        ("ORCPT", "ORCPT=rfc822;a@b.test"),
        ("ORCPT", "ORCPT=rfc822;a+2Bb@b.test"),
        ("bad ORCPT", "ORCPT=rfc822;a+zz"),
        ("bad ORCPT", "ORCPT=rfc822"),
        ("bad ORCPT", "ORCPT="),
        ("ORCPT of another type", "ORCPT=x-fax;5551234"),
        ("parameter twice", "NOTIFY=NEVER NOTIFY=DELAY"),
        ("parameter twice", "ORCPT=rfc822;a@b.test ORCPT=rfc822;a@b.test"),
        ("unknown parameter", "XFOO=bar"),
        ("malformed parameter", "=x"),
    ] {
        add(all, label, |n| {
            vec![
                line(EHLO, n),
                line(MAIL, n),
                line(&format!("{RCPT} {parameters}"), n),
                line("RSET", n),
                quit(),
            ]
        });
    }
}
