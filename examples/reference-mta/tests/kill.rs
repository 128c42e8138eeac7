//! I1 under `kill -9`: a message whose 250 was read is delivered, however often the MTA dies; and what arrives
//! twice was in flight when it died (FAULTS R1, R9, R15 in spirit; RFC 5321 4.2.5, 6.1).
//!
//! `POSTWRIGHT_KILLS=100` for a longer run.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright_core::{Entropy, SeededEntropy};
use support::load::Client;
use support::mta::Mta;
use support::receiver::Receiver;
use support::{pause, wait_until};

const CONNECTIONS: u64 = 20;
/// How many connections the MTA opens to one site by default: what can be in flight at a kill.
const OUTBOUND: usize = 10;

struct Load {
    target: Mutex<SocketAddr>,
    stop: AtomicBool,
    sent: AtomicU64,
    acknowledged: Mutex<BTreeSet<u64>>,
}

#[test]
fn nothing_acknowledged_is_lost_and_duplicates_were_in_flight() {
    let kills: usize = std::env::var("POSTWRIGHT_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let entropy = SeededEntropy::new(kills as u64);
    let spool = tempfile::tempdir().unwrap();
    let receiver = Receiver::start();
    receiver.answer_after(Duration::from_millis(3));
    let mut mta = Mta::start(spool.path(), receiver.address, &[]);
    let load = Arc::new(Load {
        target: Mutex::new(mta.address),
        stop: AtomicBool::new(false),
        sent: AtomicU64::new(0),
        acknowledged: Mutex::new(BTreeSet::new()),
    });
    let senders: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let load = load.clone();
            std::thread::spawn(move || load.run())
        })
        .collect();
    for _ in 0..kills {
        pause(Duration::from_millis(200 + entropy.below(1000)));
        mta.kill();
        mta = Mta::start(spool.path(), receiver.address, &[]);
        *load.target.lock().unwrap() = mta.address;
    }
    pause(Duration::from_millis(300));
    load.stop.store(true, Ordering::SeqCst);
    senders.into_iter().for_each(|sender| sender.join().unwrap());

    let acknowledged = load.acknowledged.lock().unwrap().clone();
    assert!(acknowledged.len() > 50 * kills, "too little load to mean anything: {}", acknowledged.len());
    let arrived = || -> BTreeMap<u64, usize> {
        receiver
            .tally("X-Number")
            .into_iter()
            .map(|(number, count)| (number.parse::<u64>().unwrap(), count))
            .collect()
    };
    // As long as mail arrives, the queue drains; when none has for this long, it is stuck.
    let patience = Duration::from_secs(60);
    loop {
        let missing =
            |arrived: &BTreeMap<u64, usize>| acknowledged.iter().filter(|n| !arrived.contains_key(n)).count();
        let before = arrived();
        if missing(&before) == 0 {
            break;
        }
        let count = receiver.count();
        wait_until(&format!("one more of {} missing messages arrives", missing(&before)), patience, || {
            receiver.count() > count || missing(&arrived()) == 0
        });
        pause(Duration::from_millis(200));
    }
    let duplicates: usize = arrived().values().map(|count| count - 1).sum();
    eprintln!(
        "kills {kills}, acknowledged {}, arrived {}, duplicates {duplicates}",
        acknowledged.len(),
        arrived().len()
    );
    assert!(duplicates <= kills * OUTBOUND, "{duplicates} duplicates from {kills} kills");
}

impl Load {
    fn run(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let target = *self.target.lock().unwrap();
            // The connection ends with the process: connect again to whatever lives.
            if self.converse(target).is_err() {
                pause(Duration::from_millis(10));
            }
        }
    }

    fn converse(&self, target: SocketAddr) -> std::io::Result<()> {
        let mut client = Client::connect(target)?;
        while !self.stop.load(Ordering::SeqCst) {
            let number = self.sent.fetch_add(1, Ordering::SeqCst);
            let filler = "x".repeat(60) + "\r\n";
            let body = format!("X-Number: {number}\r\n\r\n{}", filler.repeat(16));
            client.send("load@load.test", &["sink@receiver.test"], body.as_bytes())?;
            self.acknowledged.lock().unwrap().insert(number);
        }
        client.command("QUIT", 2)?;
        Ok(())
    }
}
