//! Postfix's `smtp-sink` as the server, over loopback: every way it can misbehave, and bodies octet by octet.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use postwright_core::{Domain, Envelope, Mailbox, Message, SystemClock};
use postwright_smtp_client::{Client, Options, Target, Trust};
use postwright_smtp_proto::client::{Config, Protocol, Report, Transaction};

use crate::peer::shown;

/// A running sink, ended when dropped.
struct Sink {
    child: Child,
    address: SocketAddr,
}

impl Sink {
    fn start(arguments: &[&str], dir: &Path) -> Option<Sink> {
        let Some(mut command) = postwright_testkit::peers::command("smtp-sink") else {
            postwright_testkit::announce("smtp-sink", "Postfix's smtp-sink was not found");
            return None;
        };
        // A port that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // It insists on being told whom to run as, if it is started by root, and must not be told otherwise.
        if postwright_testkit::peers::is_root() {
            command.args(["-u", "root"]);
        }
        command.args(arguments).args(["-h", "sink.example", &address.to_string(), "10"]).current_dir(dir);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let sink = Sink { child, address };
        for _ in 0..500 {
            if TcpStream::connect(address).is_ok() {
                return Some(sink);
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        panic!("smtp-sink {arguments:?} does not listen");
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn body() -> Vec<u8> {
    let mut body = b"Subject: everything\r\n\r\n.\r\n..\r\n.dot\r\nend.\r\n".to_vec();
    body.extend(std::iter::repeat_n(b'x', 998));
    body.extend_from_slice(b"\r\n\xff\xfe 8-bit \xc3\xa9\r\n");
    body.extend(b".line that starts with a dot\r\n".repeat(3000));
    body
}

async fn send(sink: &Sink, protocol: Protocol, recipients: usize, body: Vec<u8>) -> Report {
    let client = Client::new(&Trust::Roots(Vec::new()), Arc::new(SystemClock::new())).unwrap();
    let mut config = Config::new("client.example".parse::<Domain>().unwrap());
    config.protocol = protocol;
    config.timeouts.greeting = Duration::from_secs(20);
    let to = (0..recipients).map(|i| format!("user{i}@x.example").parse::<Mailbox>().unwrap());
    let envelope = Envelope::new("a@client.example".parse::<Mailbox>().unwrap(), to);
    let target = Target { host: "sink.example".parse().unwrap(), address: sink.address };
    let transaction = Transaction { envelope, message: Message::from_bytes(body) };
    client.deliver(&[target], &Options::new(config), transaction).await
}

#[tokio::test]
async fn bodies_arrive_octet_by_octet() {
    for flags in [&[][..], &["-p"], &["-L"], &["-p", "-L"]] {
        let dir = tempfile::tempdir().unwrap();
        let Some(sink) = Sink::start(&[flags, &["-D", "dump"]].concat(), dir.path()) else { return };
        let protocol = if flags.contains(&"-L") { Protocol::Lmtp } else { Protocol::Smtp };
        let report = send(&sink, protocol, 100, body()).await;
        assert!(report.is_success(), "{flags:?} {:?}", shown(&report));
        drop(sink);
        let dump = std::fs::read(dir.path().join("dump")).unwrap();
        // The dump has a header of its own, and LF for CRLF.
        let plain: Vec<u8> = body().into_iter().filter(|octet| *octet != b'\r').collect();
        let at = dump.windows(plain.len()).position(|window| window == plain);
        assert!(
            at.is_some(),
            "{flags:?}: the body changed: {:?}",
            String::from_utf8_lossy(&dump[..dump.len().min(900)])
        );
        let head = String::from_utf8_lossy(&dump[..at.unwrap()]).into_owned();
        assert_eq!(head.matches("X-Rcpt-Args: <user").count(), 100, "{head}");
    }
}

#[tokio::test]
async fn every_misbehaviour_of_the_sink_has_its_status() {
    let plain = b"Subject: x\r\n\r\nhello\r\n".to_vec();
    for (flags, expected) in [
        (&[][..], "Delivered 2.0.0 end-of-data"),
        (&["-e"], "Delivered 2.0.0 end-of-data"),
        (&["-E"], "Delivered 2.0.0 end-of-data"),
        (&["-f", "CONNECT"], "Failed 5.3.0 greeting"),
        (&["-r", "CONNECT"], "Delayed 4.3.0 greeting"),
        (&["-q", "CONNECT"], "Delayed 4.4.2 greeting"),
        (&["-r", "EHLO"], "Delayed 4.3.0 hello"),
        (&["-f", "EHLO"], "Delivered 2.0.0 end-of-data"),
        (&["-q", "EHLO"], "Delayed 4.4.2 hello"),
        (&["-f", "MAIL"], "Failed 5.3.0 mail"),
        (&["-r", "MAIL"], "Delayed 4.3.0 mail"),
        (&["-q", "MAIL"], "Delayed 4.4.2 mail"),
        (&["-f", "RCPT"], "Failed 5.3.0 rcpt"),
        (&["-r", "RCPT"], "Delayed 4.3.0 rcpt"),
        (&["-q", "RCPT"], "Delayed 4.4.2 rcpt"),
        (&["-f", "DATA"], "Failed 5.3.0 data"),
        (&["-r", "DATA"], "Delayed 4.3.0 data"),
        (&["-q", "DATA"], "Delayed 4.4.2 data"),
        (&["-f", "."], "Failed 5.3.0 end-of-data"),
        (&["-r", "."], "Delayed 4.3.0 end-of-data"),
        (&["-q", "."], "Unknown 4.4.2 end-of-data"),
        (&["-Q", "RCPT"], "Delayed 4.0.0 rcpt"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let Some(sink) = Sink::start(flags, dir.path()) else { return };
        let report = send(&sink, Protocol::Smtp, 1, plain.clone()).await;
        assert_eq!(shown(&report), [expected], "{flags:?} {}", report.statuses[0].diagnostic);
    }
    // Without 8BITMIME an 8-bit message fails before it is sent.
    let dir = tempfile::tempdir().unwrap();
    let Some(sink) = Sink::start(&["-8"], dir.path()) else { return };
    let report = send(&sink, Protocol::Smtp, 1, body()).await;
    assert_eq!(shown(&report), ["Failed 5.6.3 mail"]);
}
