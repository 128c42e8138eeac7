//! Notifications that must not be: about mail without a sender, about a notification, to hosts that go round in a
//! circle (FAULTS H1, H2; RFC 5321 4.5.5, 6.1, 6.3).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use support::cli::queued;
use support::load::Client;
use support::mta::Mta;
use support::postfix::free_address;
use support::receiver::Receiver;
use support::{pause, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);
const BODY: &[u8] = b"Subject: x\r\n\r\nx\r\n";

#[test]
fn nobody_is_told_about_mail_without_a_sender_or_about_a_notification() {
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    receiver.refuse("nobody@receiver.test");
    receiver.refuse("gone@load.test");
    let mta = Mta::start(spool.path(), receiver.address, &[]);
    let mut client = Client::connect(mta.address).unwrap();
    client.send("", &["nobody@receiver.test"], BODY).unwrap();
    // Its notification is refused as well, and that is the end of it.
    client.send("gone@load.test", &["nobody@receiver.test"], BODY).unwrap();
    wait_until("all three are refused", PATIENCE, || receiver.refusals() == 3);
    client.send("a@load.test", &["b@receiver.test"], BODY).unwrap();
    wait_until("ordinary mail still arrives", PATIENCE, || receiver.count() == 1);
    pause(Duration::from_millis(300));
    assert_eq!((receiver.count(), receiver.refusals()), (1, 3), "{:?}", receiver.mails());
    assert!(mta.terminate(PATIENCE).success());
    assert_eq!(queued(spool.path()), 0, "nothing is left to be tried again");
}

/// Two hosts, each the other's smart host: the message goes round until it has too many hops, its notification
/// does the same, and then there is silence.
#[test]
fn two_hosts_in_a_circle_come_to_an_end() {
    let (dir, address) = (tempfile::tempdir().unwrap(), [free_address(), free_address()]);
    let start = |here: usize| {
        let there = address[1 - here];
        let config = format!(
            "hostname = \"mta{here}.test\"\n[spool]\npath = {:?}\n[[listen]]\naddress = \"{}\"\n[delivery]\n\
             smart_host = \"{there}\"\n[authentication]\ncheck = false\n[retry]\nfirst = \"1s\"\nlongest = \"1s\"\n",
            dir.path().join(format!("spool{here}")),
            address[here],
        );
        let file = dir.path().join(format!("config{here}"));
        std::fs::write(&file, config).unwrap();
        Mta::with_config(&file)
    };
    let stop = |both: [Mta; 2]| both.into_iter().for_each(|mta| assert!(mta.terminate(PATIENCE).success()));
    let mut both = [start(0), start(1)];
    Client::connect(address[0]).unwrap().send("a@load.test", &["b@receiver.test"], BODY).unwrap();
    let mut rounds = 0;
    loop {
        pause(Duration::from_secs(1));
        stop(both);
        let left = queued(&dir.path().join("spool0")) + queued(&dir.path().join("spool1"));
        if left == 0 {
            break;
        }
        assert_eq!(left, 1, "one message went in: never more than it or its notification");
        rounds += 1;
        assert!(rounds < 20, "it still goes round");
        both = [start(0), start(1)];
    }
}
