//! `postwright serve` with `[feedback]`: what comes back later by mail, from the real server, over real sockets; unknown
//! recipients at RCPT; the storm limit on notifications (FAULTS H1, H3, H4, H6, H7).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::cli::{json, lines, queued};
use support::load::Client;
use support::mta::Mta;
use support::receiver::Receiver;
use support::{complaint, pause, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);
const BODY: &[u8] = b"Message-ID: <first@load.test>\r\nSubject: x\r\n\r\nx\r\n";

struct Place {
    dir: tempfile::TempDir,
    receiver: Receiver,
}

impl Place {
    fn new() -> Place {
        Place { dir: tempfile::tempdir().unwrap(), receiver: Receiver::start() }
    }

    /// A server whose mail all goes to the receiver.
    fn start(&self, feedback: &str, relay: &str) -> Mta {
        let dir = self.dir.path();
        std::fs::write(dir.join("keys"), "0123456789abcdef0123456789abcdef\n").unwrap();
        let config = format!(
            "hostname = \"mta.test\"\n[control]\nsocket = {:?}\n[spool]\npath = {:?}\n[[listen]]\naddress = \"127.0.0.1:0\"\n[relay]\n{relay}\n\
             [delivery]\nsmart_host = \"{}\"\n[authentication]\ncheck = false\n[feedback]\nstore = {:?}\n\
             domain = \"bounces.test\"\nkeys = {:?}\n{feedback}\n",
            dir.join("control"),
            dir.join("spool"),
            self.receiver.address,
            self.store(),
            dir.join("keys"),
        );
        std::fs::write(self.config(), config).unwrap();
        Mta::with_config(&self.config())
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("feedback")
    }

    /// What the running server counts.
    fn counts(&self) -> Value {
        let config = self.config();
        let args = ["queue".as_ref(), "--config".as_ref(), config.as_os_str(), "status".as_ref()];
        json(self.dir.path(), &args, b"")["feedback"].take()
    }

    /// One address is on the list, for this reason.
    fn assert_listed(&self, address: &str, reason: &str) {
        let entries = self.suppress(&["list"]);
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!((&entries[0]["address"], &entries[0]["reason"]), (&address.into(), &reason.into()));
    }

    fn suppress(&self, args: &[&str]) -> Vec<Value> {
        suppress(&self.config(), args)
    }
}

/// The lines of JSON that `postwright suppress` prints about a server's list.
fn suppress(config: &Path, args: &[&str]) -> Vec<Value> {
    let config = config.to_str().unwrap();
    lines(Path::new("."), &[&["suppress", "--config", config], args].concat(), b"")
}

/// What a remote MTA sends when it finds out later that a recipient does not exist (RFC 3464).
fn notification(recipient: &str) -> String {
    format!(
        "From: MAILER-DAEMON@receiver.test\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"b\"\r\n\r\n--b\r\n\r\nSorry.\r\n--b\r\n\
         Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; receiver.test\r\n\r\n\
         Final-Recipient: rfc822; {recipient}\r\nAction: failed\r\nStatus: 5.1.1\r\n\
         Diagnostic-Code: smtp; 550 5.1.1 No such user\r\n\r\n--b--\r\n"
    )
}

#[test]
fn a_refusal_that_comes_later_by_mail_suppresses_its_recipient() {
    let place = Place::new();
    let mta = place.start("", "");
    let mut client = Client::connect(mta.address).unwrap();
    client.send("author@load.test", &["dead@receiver.test", "alive@receiver.test"], BODY).unwrap();
    wait_until("it arrives", PATIENCE, || place.receiver.count() == 1);
    let path = place.receiver.mails()[0].from.clone();
    assert!(path.starts_with("b-") && path.ends_with("@bounces.test"), "{path}");

    // It comes back, with the null sender; once more is no harm, and an automatic reply changes nothing.
    client.send("", &[&path], notification("dead@receiver.test").as_bytes()).unwrap();
    client.send("", &[&path], notification("dead@receiver.test").as_bytes()).unwrap();
    let away =
        b"From: alive@receiver.test\r\nAuto-Submitted: auto-replied\r\nSubject: Re: x\r\n\r\nI am away.\r\n";
    client.send("", &[&path], away).unwrap();
    // A notification that names somebody else to whom the message never went.
    client.send("", &[&path], notification("boss@receiver.test").as_bytes()).unwrap();

    // The dead address gets no more mail, its author is told so, and the other one does.
    client.send("author@load.test", &["dead@receiver.test", "alive@receiver.test"], BODY).unwrap();
    wait_until("the author is told", PATIENCE, || {
        place.receiver.mails().iter().any(|mail| mail.to == ["author@load.test"])
    });
    wait_until("the other gets it", PATIENCE, || place.receiver.count() == 3);
    let mails = place.receiver.mails();
    let told = mails.iter().find(|mail| mail.to == ["author@load.test"]).unwrap();
    let text = String::from_utf8_lossy(&told.body);
    assert!(text.contains("Status: 5.7.1") && text.contains("suppression list: hard-bounce"), "{text}");
    assert_eq!(told.from, "", "a notification has no return path to bounce to");
    let to_dead = mails.iter().filter(|mail| mail.to.iter().any(|to| to == "dead@receiver.test")).count();
    assert_eq!(to_dead, 1, "only the first was sent to it");
    drop(client);
    assert!(mta.terminate(PATIENCE).success());

    place.assert_listed("dead@receiver.test", "hard-bounce");
    // It outlives a restart.
    let mta = place.start("", "");
    Client::connect(mta.address).unwrap().send("author@load.test", &["dead@receiver.test"], BODY).unwrap();
    wait_until("the author is told again", PATIENCE, || place.receiver.count() == 4);
    assert_eq!(place.receiver.mails()[3].to, ["author@load.test"]);
}

/// How qmail tells of a failure (its author's description of QSBMF): prose, and the message behind a line.
fn from_qmail(recipient: &str, said: &str) -> String {
    format!(
        "From: MAILER-DAEMON@receiver.test\r\nTo: author@load.test\r\nSubject: failure notice\r\n\r\n\
         Hi. This is the qmail-send program at receiver.test.\r\n\
         I'm afraid I wasn't able to deliver your message to the following addresses.\r\n\
         This is a permanent error; I've given up. Sorry it didn't work out.\r\n\r\n\
         <{recipient}>:\r\n{said}\r\n\r\n--- Below this line is a copy of the message.\r\n\r\n\
         Message-ID: <first@load.test>\r\nSubject: x\r\n\r\nx\r\n"
    )
}

#[test]
fn a_bounce_in_prose_is_matched_and_suppresses_where_the_address_is_dead() {
    let place = Place::new();
    let mta = place.start("", "");
    let mut client = Client::connect(mta.address).unwrap();
    let to = ["dead@receiver.test", "full@receiver.test"];
    client.send("author@load.test", &to, BODY).unwrap();
    wait_until("it arrives", PATIENCE, || place.receiver.count() == 1);
    let path = place.receiver.mails()[0].from.clone();
    let dead = from_qmail(
        to[0],
        "192.0.2.1 does not like recipient.\r\nRemote host said: 550 5.1.1 No such user here\r\nGiving up on 192.0.2.1.",
    );
    client.send("", &[&path], dead.as_bytes()).unwrap();
    // What qmail's own delivery says about a mailbox that is full: the address lives.
    let full = from_qmail(to[1], "Remote host said: 552 5.2.2 Mailbox full");
    client.send("", &[&path], full.as_bytes()).unwrap();
    let counts = place.counts();
    assert_eq!((&counts["bounces"], &counts["suppressed"]), (&2.into(), &1.into()), "{counts}");
    drop(client);
    assert!(mta.terminate(PATIENCE).success());
    let list = place.suppress(&["check", to[0], to[1]]);
    assert_eq!((&list[0]["suppressed"], &list[1]["suppressed"]), (&true.into(), &false.into()));
    assert_eq!(place.receiver.count(), 1, "nobody was answered");
}

#[test]
fn entries_whose_time_is_over_leave_the_list() {
    let place = Place::new();
    let mta = place.start("", "");
    assert!(mta.terminate(PATIENCE).success());
    let file = place.dir.path().join("list.csv");
    let header = "address,tenant,stream,reason,since,until,note";
    let ended = "ended@receiver.test,default,,soft-bounces,1000,2000,";
    let going_on = "forever@receiver.test,default,,manual,1000,,";
    std::fs::write(&file, format!("{header}\n{ended}\n{going_on}\n")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_postwright"))
        .args(["suppress", "--config"])
        .args([&place.config(), Path::new("import"), &file])
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let export = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postwright"));
        let output = command.args(["suppress", "--config"]).arg(place.config()).arg("export").output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert!(export().contains("ended@receiver.test"), "{}", export());
    let mta = place.start("", "");
    wait_until("the list is looked through", PATIENCE, || place.counts()["expired"] == 1);
    assert!(mta.terminate(PATIENCE).success());
    assert!(!export().contains("ended@") && export().contains("forever@"), "{}", export());
}

#[test]
fn complaints_suppress_and_what_is_forged_does_not() {
    let place = Place::new();
    let mta = place.start("", "");
    let mut client = Client::connect(mta.address).unwrap();
    client.send("author@load.test", &["cross@receiver.test"], BODY).unwrap();
    wait_until("it arrives", PATIENCE, || place.receiver.count() == 1);
    let path = place.receiver.mails()[0].from.clone();

    // A changed tag, and an address of another form: refused at RCPT, so that nobody is told of it.
    let forged = path.replace("@bounces.test", "x@bounces.test");
    for address in [forged.as_str(), "b-0000-20000-aaaaaaaaaaaaaaa@bounces.test", "ann@bounces.test"] {
        client.command("MAIL FROM:<>", 2).unwrap();
        let (reply, _) = (client.command(&format!("RCPT TO:<{address}>"), 5).unwrap(), ());
        assert!(reply.starts_with("550 5.1.1"), "{reply}");
        client.command("RSET", 2).unwrap();
    }
    // A complaint about a message that is not ours is taken and changes nothing.
    let foreign = complaint("b-0000-20000-aaaaaaaaaaaaaaa@bounces.test", "other@load.test");
    client.send("fbl@provider.test", &["fbl@bounces.test"], foreign.as_bytes()).unwrap();
    // A true one quotes the signed path.
    client
        .send("fbl@provider.test", &["fbl@bounces.test"], complaint(&path, "first@load.test").as_bytes())
        .unwrap();
    drop(client);
    assert!(mta.terminate(PATIENCE).success());
    place.assert_listed("cross@receiver.test", "complaint");
    assert_eq!(place.receiver.count(), 1, "nothing was sent in answer to any of it");
}

#[test]
fn a_refusal_at_delivery_suppresses_and_a_full_mailbox_does_not() {
    let place = Place::new();
    place.receiver.refuse("nobody@receiver.test");
    let mta = place.start("", "");
    let mut client = Client::connect(mta.address).unwrap();
    client.send("author@load.test", &["nobody@receiver.test"], BODY).unwrap();
    wait_until("its author is told", PATIENCE, || place.receiver.count() == 1);
    client.send("author@load.test", &["nobody@receiver.test"], BODY).unwrap();
    wait_until("its author is told again", PATIENCE, || place.receiver.count() == 2);
    assert_eq!(place.receiver.refusals(), 1, "the second was not tried");
    assert!(mta.terminate(PATIENCE).success());
    let list = place.suppress(&["check", "nobody@receiver.test", "author@load.test"]);
    assert_eq!((&list[0]["suppressed"], &list[1]["suppressed"]), (&true.into(), &false.into()));
}

/// H3: who does not exist is refused in the session, also to those who may send anywhere.
#[test]
fn unknown_recipients_are_refused_at_rcpt() {
    let place = Place::new();
    let file = place.dir.path().join("recipients");
    std::fs::write(&file, "ann@ours.test\n@all.test\n").unwrap();
    let mta = place.start("", &format!("domains = [\"ours.test\", \"all.test\"]\nrecipients = {file:?}"));
    let mut client = Client::connect(mta.address).unwrap();
    client.command("MAIL FROM:<bob@load.test>", 2).unwrap();
    for (address, class) in [
        ("ann@ours.test", 2),
        ("ANN@ours.test", 2),
        ("bob@ours.test", 5),
        ("anyone@all.test", 2),
        ("postmaster@ours.test", 2),
        ("joe@elsewhere.test", 2),
    ] {
        let reply = client.command(&format!("RCPT TO:<{address}>"), class).unwrap();
        assert!(class == 2 || reply.starts_with("550 5.1.1"), "{address}: {reply}");
    }
}

/// H6: one sender's failures make a burst of notifications at once; the others wait in the queue.
#[test]
fn a_storm_of_notifications_is_slowed_down() {
    let place = Place::new();
    for i in 0..12 {
        place.receiver.refuse(&format!("gone{i}@receiver.test"));
    }
    let mta = place.start("notifications_per_hour = 5", "");
    let mut client = Client::connect(mta.address).unwrap();
    for i in 0..12 {
        client.send("author@load.test", &[&format!("gone{i}@receiver.test")], BODY).unwrap();
    }
    wait_until("all are refused", PATIENCE, || place.receiver.refusals() == 12);
    wait_until("the burst is told", PATIENCE, || place.receiver.count() == 5);
    pause(Duration::from_millis(500));
    assert_eq!(place.receiver.count(), 5, "no more than the burst");
    drop(client);
    assert!(mta.terminate(PATIENCE).success());
    assert_eq!(queued(&place.dir.path().join("spool")), 7, "the rest is queued, none is lost");
}
