//! The example `verify`, run against a name server on loopback: a message that is all right, and a forged one.
//!
//! The name server is a few lines of RFC 1035 by hand, so that the resolver meets something that is not hickory.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[allow(dead_code, reason = "its main reads the process's arguments")]
#[path = "../examples/verify.rs"]
mod example;

use std::net::UdpSocket;

use postwright::core::{Clock, Message, SystemClock};
use postwright::dkim::{Provider, Signer, SigningKey};

const A: u16 = 1;
const PTR: u16 = 12;
const TXT: u16 = 16;

/// A server for these records; its address. It ends with the process.
fn serve(records: Vec<(&'static str, u16, Vec<u8>)>) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut packet) {
            let _ = socket.send_to(&answer(&packet[..len], &records), from);
        }
    });
    address.to_string()
}

/// RFC 1035 4.1: the question repeated, and its records or NXDOMAIN.
fn answer(query: &[u8], records: &[(&str, u16, Vec<u8>)]) -> Vec<u8> {
    let mut end = 12;
    let mut labels = Vec::new();
    while query[end] > 0 {
        let label = &query[end + 1..end + 1 + usize::from(query[end])];
        labels.push(String::from_utf8(label.to_ascii_lowercase()).unwrap());
        end += 1 + label.len();
    }
    let (name, question) = (labels.join("."), &query[12..end + 5]);
    let kind = u16::from_be_bytes([query[end + 1], query[end + 2]]);
    let found: Vec<&Vec<u8>> = records
        .iter()
        .filter(|(owner, of, _)| *owner == name && *of == kind)
        .map(|(_, _, data)| data)
        .collect();
    let exists = records.iter().any(|(owner, ..)| owner.ends_with(&name));
    let flags: [u8; 2] = [0x81, if exists { 0x80 } else { 0x83 }];
    let mut out =
        [&query[..2], &flags, &[0, 1, 0, u8::try_from(found.len()).unwrap(), 0, 0, 0, 0], question].concat();
    for data in found {
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 1, 0x2c]);
        out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        out.extend(data);
    }
    out
}

fn text(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

#[tokio::test]
async fn the_example_prints_the_field_of_a_message() {
    // The key of RFC 8463 A.2.
    let key = SigningKey::read(Provider::ring(), b"nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=").unwrap();
    let server = serve(vec![
        ("example.org", TXT, text("v=spf1 ip4:192.0.2.0/24 -all")),
        ("_dmarc.example.org", TXT, text("v=DMARC1; p=reject")),
        ("s._domainkey.example.org", TXT, text(&key.record())),
        ("1.2.0.192.in-addr.arpa", PTR, b"\x02mx\x07example\x03org\x00".to_vec()),
        ("mx.example.org", A, vec![192, 0, 2, 1]),
    ]);
    let plain =
        b"From: Joe <joe@example.org>\r\nTo: ann@example.com\r\nSubject: x\r\n\r\nA line.\r\n".to_vec();
    let signer = Signer::new(key, "example.org".parse().unwrap(), "s".parse().unwrap()).unwrap();
    let message = Message::from_bytes(plain.clone());
    let signed = message.prepend(signer.sign(&message, SystemClock::new().now()).unwrap()).to_vec();

    let words = |ip: &str, from: &str| [ip, "mx.example.org", from, &server].map(str::to_owned);
    let printed = example::verify(&words("192.0.2.1", "joe@example.org"), signed.clone()).await.unwrap();
    assert!(printed.starts_with("Authentication-Results: mx.example.net;\r\n\tspf=pass"), "{printed}");
    for result in
        ["dkim=pass header.d=example.org", "arc=none", "dmarc=pass header.from=example.org", "iprev=pass"]
    {
        assert!(printed.contains(result), "{result}: {printed}");
    }
    assert!(printed.contains("; DMARC asks for none: "), "{printed}");

    let forged = [&signed[..], b"More.\r\n"].concat();
    let printed = example::verify(&words("198.51.100.1", "joe@example.org"), forged).await.unwrap();
    for result in ["spf=fail", "dkim=fail", "dmarc=fail", "iprev=permerror", "; DMARC asks for reject: "] {
        assert!(printed.contains(result), "{result}: {printed}");
    }
    let unknown =
        example::verify(&words("192.0.2.1", "<>"), b"From: a@nowhere.example\r\n\r\n".to_vec()).await;
    let unknown = unknown.unwrap();
    assert!(unknown.contains("spf=none") && unknown.contains("dmarc=none"), "{unknown}");

    let usage = example::verify(&["192.0.2.1".to_owned()], plain).await.unwrap_err();
    assert!(usage.to_string().starts_with("usage: "), "{usage}");
}
