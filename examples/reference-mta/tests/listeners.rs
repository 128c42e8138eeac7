//! The roles of listeners, as strangers, users and operators meet them: submission, certificates and their exchange,
//! proxies, limits, and no open relay with all of it switched on.
//!
//! Standards: RFC 6409, RFC 8314, RFC 4954, RFC 3207, RFC 6066 3; FAULTS D, E, G.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use postwright_testkit::skip;
use support::mta::Mta;
use support::receiver::Receiver;
use support::secure::{Authority, Talk, account, begin, plain, socket_from};
use support::wait_until;

const INSIDE: &str = "127.0.0.1";
const STRANGER: &str = "127.0.0.2";
const HOST: &str = "mta.test";
const OTHER: &str = "mail.local.test";

/// A site with everything: MX, submission by STARTTLS and by implicit TLS, and a relay for the certified.
struct Site {
    folder: tempfile::TempDir,
    authority: Authority,
    receiver: Receiver,
    mta: Mta,
    mx: SocketAddr,
    submission: SocketAddr,
    implicit: SocketAddr,
    certified: SocketAddr,
}

fn config(folder: &Path, receiver: SocketAddr, more: &str) -> String {
    let at = |name: &str| folder.join(name).display().to_string();
    let tls = format!(
        "certificate = {:?}, key = {:?}, more = [{{ certificate = {:?}, key = {:?}, names = [{OTHER:?}] }}]",
        at("mta.test.pem"),
        at("mta.test.key"),
        at("mail.local.test.pem"),
        at("mail.local.test.key")
    );
    let (spool, accounts, root) = (at("spool"), at("accounts"), at("root.pem"));
    format!(
        "hostname = {HOST:?}\n[spool]\npath = {spool:?}\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\nrole = \"mx\"\ntls = {{ {tls} }}\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\nrole = \"submission\"\ntls = {{ {tls} }}\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\nrole = \"submission\"\ntls = {{ {tls}, mode = \"implicit\" }}\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\nrole = \"relay\"\n\
         tls = {{ {tls}, required = true, clients = \"ask\", client_ca = {root:?} }}\n\
         [accounts]\nfile = {accounts:?}\n\
         [relay]\nfrom = [\"127.0.0.1/32\"]\ndomains = [\"local.test\"]\n\
         [delivery]\nsmart_host = \"{receiver}\"\n[authentication]\ncheck = false\n{more}"
    )
}

fn accounts() -> String {
    let joe = account("joe@local.test", "secret", "scram");
    format!("{joe}{}joe@local.test:sends-as sales@local.test\n", account("ann@local.test", "word", "argon2"))
}

impl Site {
    fn start() -> Site {
        let (folder, authority, receiver) =
            (tempfile::tempdir().unwrap(), Authority::new(), Receiver::start());
        authority.issue(folder.path(), HOST);
        authority.issue(folder.path(), OTHER);
        authority.write_root(folder.path());
        std::fs::write(folder.path().join("accounts"), accounts()).unwrap();
        let file = folder.path().join("config");
        std::fs::write(&file, config(folder.path(), receiver.address, "")).unwrap();
        let mta = Mta::with_config(&file);
        let (mx, submission, implicit) = (mta.address, mta.next_address(), mta.next_address());
        let certified = mta.next_address();
        Site { folder, authority, receiver, mta, mx, submission, implicit, certified }
    }
}

fn only_one_loopback(to: SocketAddr) -> bool {
    socket_from(STRANGER, to).is_none()
}

#[test]
fn submission_wants_tls_and_a_login_binds_senders_and_completes_messages() {
    let site = Site::start();
    let tls = site.authority.client();
    // From one of our own networks, which counts for nothing here.
    let mut talk = Talk::greeted(INSIDE, site.submission);
    let offer = talk.say("EHLO client.test").unwrap().1;
    assert!(!offer.contains("AUTH") && offer.contains("STARTTLS"), "{offer}");
    assert_eq!(talk.code(&plain("joe@local.test", "secret")), 530, "AUTH before TLS");
    assert_eq!(talk.code("MAIL FROM:<joe@local.test>"), 530, "MAIL before TLS");
    let mut talk = talk.starttls(&tls, HOST);
    let offer = talk.say("EHLO client.test").unwrap().1;
    assert!(offer.contains("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN\r\n"), "{offer}");
    assert_eq!(talk.code("MAIL FROM:<joe@local.test>"), 530, "MAIL before AUTH");
    assert_eq!(talk.code(&plain("joe@local.test", "wrong")), 535);
    assert_eq!(talk.code(&plain("joe@local.test", "secret")), 235);
    assert_eq!(talk.code("MAIL FROM:<ann@local.test>"), 553, "another's address");
    assert_eq!(talk.code("MAIL FROM:<sales@local.test>"), 250, "granted");
    assert_eq!(talk.code("RSET"), 250);
    assert_eq!(talk.code("MAIL FROM:<joe@local.test>"), 250);
    assert_eq!(talk.code("RCPT TO:<v@elsewhere.test>"), 250, "anywhere");
    let (code, text) = talk.data("Subject: no author\r\n\r\nx");
    assert_eq!(code, 554, "{text}");
    assert_eq!(talk.code("MAIL FROM:<joe@local.test>"), 250);
    assert_eq!(talk.code("RCPT TO:<v@elsewhere.test>"), 250);
    let (code, text) = talk.data("From: joe@local.test\r\nSubject: bare\r\n\r\nx");
    assert_eq!(code, 250, "{text}");
    wait_until("the message arrives", Duration::from_secs(20), || site.receiver.count() == 1);
    let mail = &site.receiver.mails()[0];
    assert!(mail.field("Date").is_some() && mail.field("Message-ID").unwrap().ends_with("@mta.test>"));
    let body = String::from_utf8_lossy(&mail.body).into_owned();
    assert!(body.contains("with ESMTPSA"), "{body}");

    // TLS from the first octet, and the other kind of credential.
    let mut talk = begin(socket_from(INSIDE, site.implicit).unwrap(), &tls, HOST);
    assert_eq!(talk.reply().unwrap().0, 220);
    assert_eq!(talk.code("EHLO client.test"), 250);
    assert_eq!(talk.code(&plain("ann@local.test", "word")), 235);
    assert_eq!(talk.code("MAIL FROM:<ann@local.test>"), 250);
    assert_eq!(talk.code("RCPT TO:<v@elsewhere.test>"), 250);
    assert_eq!(talk.data("From: ann@local.test\r\n\r\nx").0, 250);
    wait_until("the message arrives", Duration::from_secs(20), || site.receiver.count() == 2);
    assert!(
        Talk::greeted(INSIDE, site.mx).say("AUTH PLAIN AGEAYg==").unwrap().0 >= 500,
        "no logins on the MX"
    );
}

#[test]
fn certificates_go_by_name_and_hangup_reads_them_and_the_accounts_again() {
    let site = Site::start();
    let tls = site.authority.client();
    // The client checks the name itself.
    for name in [HOST, OTHER] {
        Talk::greeted(INSIDE, site.mx).starttls(&tls, name);
    }
    let mut standing = begin(socket_from(INSIDE, site.implicit).unwrap(), &tls, OTHER);
    assert_eq!(standing.reply().unwrap().0, 220);
    assert_eq!(standing.code("EHLO client.test"), 250);
    assert_eq!(standing.code(&plain("joe@local.test", "secret")), 235);

    // Another authority and other accounts: joe's password is revoked, and ann has one more.
    let renewed = Authority::new();
    renewed.issue(site.folder.path(), HOST);
    renewed.issue(site.folder.path(), OTHER);
    let ann = account("ann@local.test", "word", "argon2") + &account("ann@local.test", "phone", "scram");
    std::fs::write(site.folder.path().join("accounts"), ann).unwrap();
    site.mta.signal("-HUP");
    let new = renewed.client();
    let answers = |config, name| {
        let mut talk = begin(socket_from(INSIDE, site.implicit).unwrap(), config, name);
        talk.reply().is_ok()
    };
    wait_until("the new certificate is shown", Duration::from_secs(20), || answers(&new, HOST));
    assert!(answers(&new, OTHER) && !answers(&tls, HOST));
    assert_eq!(standing.code("MAIL FROM:<joe@local.test>"), 250, "who is in stays in");
    assert_eq!(standing.code("RCPT TO:<v@elsewhere.test>"), 250);
    assert_eq!(standing.data("From: joe@local.test\r\n\r\nx").0, 250);
    let login = |user: &str, password: &str| {
        let mut talk = Talk::greeted(INSIDE, site.submission).starttls(&new, HOST);
        talk.code(&plain(user, password))
    };
    // The accounts are read behind the certificates.
    wait_until("the password is revoked", Duration::from_secs(20), || {
        login("joe@local.test", "secret") == 535
    });
    assert_eq!((login("ann@local.test", "word"), login("ann@local.test", "phone")), (235, 235));

    // Files that are no good change nothing.
    std::fs::write(site.folder.path().join("mta.test.pem"), "no certificate").unwrap();
    std::fs::write(site.folder.path().join("accounts"), "no account").unwrap();
    site.mta.signal("-HUP");
    support::pause(Duration::from_millis(300));
    assert!(answers(&new, HOST));
    assert_eq!(login("ann@local.test", "word"), 235);
}

#[test]
fn a_certificate_of_ours_relays_from_anywhere_and_nothing_else_does() {
    let site = Site::start();
    if only_one_loopback(site.certified) {
        skip!("listeners-certified", "only one loopback address")
    }
    let (certified, plain) =
        (site.authority.client_of(&site.authority, "branch.test"), site.authority.client());
    for (client, expected) in [(&certified, 250), (&plain, 550)] {
        let mut talk = Talk::greeted(STRANGER, site.certified).starttls(client, HOST);
        assert_eq!(talk.code("MAIL FROM:<a@x.test>"), 250);
        assert_eq!(talk.code("RCPT TO:<v@elsewhere.test>"), expected);
    }
    assert_eq!(Talk::greeted(STRANGER, site.certified).code("MAIL FROM:<a@x.test>"), 530, "not in clear");
    // One that another authority signed does not even get through the handshake.
    let forged = site.authority.client_of(&Authority::new(), "branch.test");
    let mut talk = Talk::greeted(STRANGER, site.certified);
    assert_eq!(talk.code("STARTTLS"), 220);
    let mut talk = begin(talk.0.into_inner(), &forged, HOST);
    assert!(talk.say("EHLO client.test").is_err());
}

/// Forms of a foreign recipient; the whole matrix is `open_relay.rs`.
const FOREIGN: &[&str] = &[
    "<u@victim.test>",
    "<u%victim.test@[127.0.0.1]>",
    "<\"u@victim.test\">",
    "<\"u@victim.test\"@[127.0.0.1]>",
    "<@local.test:u@victim.test>",
    "<victim.test!u@[127.0.0.1]>",
    "<u@[192.0.2.1]>",
    "<u@local.test.victim.test>",
];
const SENDERS: &[&str] = &["<>", "<u@victim.test>", "<joe@local.test>", "<u@[127.0.0.1]>", "<u@mta.test>"];

#[test]
fn no_role_is_an_open_relay() {
    let site = Site::start();
    if only_one_loopback(site.mx) {
        skip!("listeners-open-relay", "only one loopback address")
    }
    let tls = site.authority.client();
    let mut probes = 0;
    for from in SENDERS {
        for to in FOREIGN {
            let mut ask = |talk: &mut dyn FnMut(&str) -> u16, what: &str| {
                talk(&format!("MAIL FROM:{from}"));
                let code = talk(&format!("RCPT TO:{to}"));
                assert!((500..=599).contains(&code), "{what} from {from} to {to}: {code}");
                assert!(talk("DATA") >= 500, "{what} from {from} to {to}");
                probes += 1;
            };
            for address in [site.mx, site.submission, site.certified] {
                let mut talk = Talk::greeted(STRANGER, address);
                ask(&mut |line| talk.code(line), "in clear");
                let mut talk = Talk::greeted(STRANGER, address).starttls(&tls, HOST);
                ask(&mut |line| talk.code(line), "in TLS");
            }
            let mut talk = begin(socket_from(STRANGER, site.implicit).unwrap(), &tls, HOST);
            assert_eq!(talk.reply().unwrap().0, 220);
            assert_eq!(talk.code("EHLO client.test"), 250);
            ask(&mut |line| talk.code(line), "in implicit TLS");
        }
    }
    assert!(probes >= 250, "{probes}");
    assert_eq!(site.receiver.count(), 0);
}

/// A listener of its own settings; `[relay]` and the rest as usual.
fn simple(folder: &Path, receiver: SocketAddr, listen: &str, more: &str) -> Mta {
    let spool = folder.join("spool");
    let text = format!(
        "hostname = {HOST:?}\n[spool]\npath = {spool:?}\n[[listen]]\naddress = \"127.0.0.1:0\"\n{listen}\n\
         [relay]\nfrom = [\"127.0.0.1/32\"]\ndomains = [\"local.test\"]\n[delivery]\nsmart_host = \"{receiver}\"\n\
         [authentication]\ncheck = false\n{more}"
    );
    std::fs::write(folder.join("config"), text).unwrap();
    Mta::with_config(&folder.join("config"))
}

#[test]
fn only_named_proxies_speak_for_others() {
    let (folder, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let mta = simple(folder.path(), receiver.address, "proxy_from = [\"127.0.0.1\"]", "");
    if only_one_loopback(mta.address) {
        skip!("listeners-proxies", "only one loopback address")
    }
    let rcpt = |header: &[u8]| {
        let mut talk = Talk::clear(INSIDE, mta.address);
        talk.write(header).unwrap();
        assert_eq!(talk.reply().unwrap().0, 220);
        assert_eq!(talk.code("EHLO client.test"), 250);
        assert_eq!(talk.code("MAIL FROM:<a@x.test>"), 250);
        talk.code("RCPT TO:<v@elsewhere.test>")
    };
    // The stated address decides, not the proxy's own, which may relay.
    assert_eq!(rcpt(b"PROXY TCP4 192.0.2.77 192.0.2.1 40000 25\r\n"), 550);
    assert_eq!(rcpt(b"PROXY TCP4 127.0.0.1 192.0.2.1 40000 25\r\n"), 250);
    let v2 =
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &[192, 0, 2, 77, 192, 0, 2, 1, 0x9c, 0x40, 0, 25]];
    assert_eq!(rcpt(&v2.concat()), 550, "version 2");
    let mut talk = Talk::clear(STRANGER, mta.address);
    let _ = talk.write(b"PROXY TCP4 127.0.0.1 192.0.2.1 40000 25\r\n");
    assert!(talk.reply().is_err(), "a stranger is no proxy");
    drop(mta);

    let (folder, listen) =
        (tempfile::tempdir().unwrap(), "xclient_from = [\"127.0.0.1\"]\nxforward_from = [\"127.0.0.1\"]");
    let mta = simple(folder.path(), receiver.address, listen, "");
    let mut talk = Talk::greeted(INSIDE, mta.address);
    assert!(talk.say("EHLO proxy.test").unwrap().1.contains("XCLIENT"));
    assert_eq!(talk.code("XCLIENT ADDR=192.0.2.77 NAME=x.test"), 220);
    assert_eq!(talk.code("EHLO x.test"), 250);
    assert_eq!(talk.code("MAIL FROM:<a@x.test>"), 250);
    assert_eq!(talk.code("RCPT TO:<v@elsewhere.test>"), 550, "the client's address decides now");
    let mut talk = Talk::greeted(STRANGER, mta.address);
    assert!(!talk.say("EHLO x.test").unwrap().1.contains("XCLIENT"));
    assert!(talk.code("XCLIENT ADDR=127.0.0.1") >= 500 && talk.code("XFORWARD ADDR=127.0.0.1") >= 500);
    assert_eq!(talk.code("MAIL FROM:<a@x.test>"), 250);
    assert_eq!(talk.code("RCPT TO:<v@elsewhere.test>"), 550);
}

#[test]
fn lists_and_the_greylist_keep_strangers_at_a_distance() {
    let (folder, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let zone = folder.path().join("zone");
    std::fs::write(&zone, "2.0.0.127.bl.test. 60 IN A 127.0.0.2\n").unwrap();
    let memory = folder.path().join("greylist");
    let more = format!(
        "[dns]\nzone = {zone:?}\n[[dnsbl]]\nzone = \"bl.test\"\n\
         [greylist]\nenabled = true\ndelay = \"1s\"\nfile = {memory:?}\n"
    );
    let mta = simple(folder.path(), receiver.address, "", &more);
    if only_one_loopback(mta.address) {
        skip!("listeners-guards", "only one loopback address")
    }
    let rcpt = |mta: &Mta, source: &str, to: &str| {
        let mut talk = Talk::greeted(source, mta.address);
        assert_eq!(talk.code("MAIL FROM:<a@x.test>"), 250);
        talk.say(&format!("RCPT TO:<{to}>")).unwrap()
    };
    // RFC 5782 5: 127.0.0.2 is on every list.
    let (code, text) = rcpt(&mta, STRANGER, "u@local.test");
    assert!(code == 550 && text.contains("5.7.1") && text.contains("bl.test"), "{text}");
    assert_eq!(rcpt(&mta, STRANGER, "postmaster@local.test").0, 250, "RFC 5321 4.5.1");
    assert_eq!(rcpt(&mta, INSIDE, "v@elsewhere.test").0, 250, "our own are not asked");
    let (code, text) = rcpt(&mta, "127.0.1.3", "u@local.test");
    assert!(code == 451 && text.contains("4.7.1"), "{text}");
    assert!(mta.terminate(Duration::from_secs(20)).success());
    let mta = simple(folder.path(), receiver.address, "", &more);
    support::pause(Duration::from_millis(1100));
    assert_eq!(rcpt(&mta, "127.0.1.3", "u@local.test").0, 250, "it came again, over a restart");
    assert_eq!(rcpt(&mta, "127.0.1.4", "w@local.test").0, 250, "its network is known");
}

#[test]
fn limits_reach_the_sessions_and_one_socket_takes_both_families() {
    let (folder, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let listen = "limits = { errors = 2, transactions = 2, message_size = \"64 KiB\" }";
    let more = "[limits]\nerrors = 9\nrecipients = 100\ncommand_line = \"600 B\"\n";
    let mta = simple(folder.path(), receiver.address, listen, more);
    let mut talk = Talk::greeted(INSIDE, mta.address);
    let offer = talk.say("EHLO client.test").unwrap().1;
    assert!(offer.contains("SIZE 65536\r\n") && offer.contains("RCPTMAX=100"), "{offer}");
    assert_eq!(talk.code("NONSENSE"), 500);
    assert_eq!(talk.code("NONSENSE"), 500, "the listener's own number: two");
    assert_eq!(talk.reply().unwrap().0, 421);
    let mut talk = Talk::greeted(INSIDE, mta.address);
    assert_eq!(talk.code(&format!("NOOP {}", "x".repeat(500))), 250);
    assert_eq!(talk.code(&format!("NOOP {}", "x".repeat(600))), 500);
    drop(mta);

    let text = std::fs::read_to_string(folder.path().join("config")).unwrap();
    let text = text.replace("127.0.0.1:0", "[::]:0");
    std::fs::write(folder.path().join("config"), text).unwrap();
    let Ok(mta) = Mta::try_with_config(&folder.path().join("config")) else {
        skip!("listeners-dual-stack", "no IPv6 here")
    };
    Talk::greeted(INSIDE, format!("127.0.0.1:{}", mta.address.port()).parse().unwrap());
    let socket = std::net::TcpStream::connect(format!("[::1]:{}", mta.address.port())).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(Talk(std::io::BufReader::new(socket)).reply().unwrap().0, 220);
}

#[test]
fn files_that_are_missing_or_do_not_fit_are_named() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let at = |name: &str| folder.path().join(name);
    let receiver = "127.0.0.1:1".parse().unwrap();
    let complaint = || {
        std::fs::write(at("config"), config(folder.path(), receiver, "")).unwrap();
        match Mta::try_with_config(&at("config")) {
            Ok(_) => panic!("it started"),
            Err((status, text)) => {
                assert_eq!((status.code(), text.lines().count()), (Some(2), 1), "{text}");
                text
            }
        }
    };
    let names = |text: String, file: &str| assert!(text.contains(file), "{text} does not name {file}");
    names(complaint(), "accounts");
    std::fs::write(at("accounts"), "# nobody\nbad line\n").unwrap();
    names(complaint(), "line 2");
    std::fs::write(at("accounts"), accounts()).unwrap();
    names(complaint(), "mta.test.pem");
    authority.issue(folder.path(), HOST);
    names(complaint(), "mail.local.test.pem");
    authority.issue(folder.path(), OTHER);
    names(complaint(), "root.pem");
    authority.write_root(folder.path());
    // A key of another certificate, and a file that holds none.
    std::fs::copy(at("mail.local.test.key"), at("mta.test.key")).unwrap();
    names(complaint(), "mta.test.pem");
    authority.issue(folder.path(), HOST);
    std::fs::write(at("mta.test.pem"), "").unwrap();
    names(complaint(), "mta.test.pem");
}
