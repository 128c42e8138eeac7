//! Two nodes, one PostgreSQL: nodes are killed and started again at random, the network to the database is cut, and each
//! message that was acknowledged arrives; what arrives twice was in flight at a death or a cut (I1, I2, I4; FAULTS R1,
//! R2, R9 on a shared spool).
//!
//! `POSTWRIGHT_LONG=1`: 100,000 messages, 100 kills, a cut of 30 s.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright_core::{Entropy, SeededEntropy};
use postwright_testkit::{postgres, skip};
use support::load::Client;
use support::mta::Mta;
use support::pause;
use support::proxy::Proxy;
use support::receiver::Receiver;

const CLIENTS: usize = 20;
/// Attempts that a node makes at a time to one site.
const PER_SITE: usize = 10;

/// How much of everything.
struct Size {
    messages: u64,
    kills: usize,
    cut: Duration,
    lease: u64,
}

impl Size {
    fn chosen() -> Size {
        if std::env::var_os("POSTWRIGHT_LONG").is_some() {
            Size { messages: 100_000, kills: 100, cut: Duration::from_secs(30), lease: 15 }
        } else {
            // The cut outlasts the lease, so that what was in flight is given up.
            Size { messages: 5000, kills: 10, cut: Duration::from_secs(5), lease: 3 }
        }
    }
}

/// Messages on their way to the nodes: each has a number, and is handed in until it is acknowledged.
struct Load {
    nodes: [Mutex<SocketAddr>; 2],
    last: u64,
    next: AtomicU64,
    /// Those that were given out again, since their 250 was never read: they may be stored twice.
    resent: Mutex<BTreeSet<u64>>,
    acknowledged: Mutex<BTreeSet<u64>>,
    /// Nothing is handed in while it is set.
    paused: AtomicBool,
}

impl Load {
    /// One client, which goes from node to node.
    fn run(&self, client: usize) {
        let mut turn = client;
        let mut number = self.next.fetch_add(1, Ordering::SeqCst);
        while number < self.last {
            let target = *self.nodes[turn % 2].lock().unwrap();
            turn += 1;
            let Ok(mut client) = Client::connect(target) else {
                pause(Duration::from_millis(20));
                continue;
            };
            while number < self.last {
                while self.paused.load(Ordering::SeqCst) {
                    pause(Duration::from_millis(20));
                }
                let body =
                    format!("X-Number: {number}\r\n\r\n{}", "x".repeat(70).as_str().to_owned() + "\r\n");
                if client.send("load@load.test", &["sink@receiver.test"], body.as_bytes()).is_err() {
                    self.resent.lock().unwrap().insert(number);
                    pause(Duration::from_millis(50));
                    break;
                }
                self.acknowledged.lock().unwrap().insert(number);
                number = self.next.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }
}

fn config(
    folder: &std::path::Path,
    node: &str,
    database: SocketAddr,
    sink: SocketAddr,
    lease: u64,
) -> PathBuf {
    let path = folder.join(format!("{node}.toml"));
    let text = format!(
        "hostname = \"{node}.test\"\n\
         [spool]\npostgres = \"host={} port={} user={} dbname={} connect_timeout=2\"\nnode = \"{node}\"\nlease = \"{lease}s\"\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\nrole = \"relay\"\n\
         [delivery]\nsmart_host = \"{sink}\"\nconnections_per_site = {PER_SITE}\n\
         [retry]\nfirst = \"1s\"\nlongest = \"2s\"\n",
        database.ip(),
        database.port(),
        postgres::USER,
        postgres::DATABASE,
    );
    std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    path
}

#[test]
fn every_message_arrives_though_nodes_die_and_the_database_is_out_of_reach() {
    let Some(database) = postgres::Server::start() else {
        skip!("two-nodes", "PostgreSQL is not installed");
    };
    support::wait_until("the database answers", Duration::from_secs(30), || database.ask("SELECT 1") == "1");
    let size = Size::chosen();
    let (folder, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    receiver.answer_after(Duration::from_millis(3));
    let proxy = Proxy::start(database.address());
    let files =
        ["one", "two"].map(|node| config(folder.path(), node, proxy.address, receiver.address, size.lease));
    let mut nodes = [Mta::with_config(&files[0]), Mta::with_config(&files[1])];
    let load = Arc::new(Load {
        nodes: [Mutex::new(nodes[0].address), Mutex::new(nodes[1].address)],
        last: size.messages,
        next: AtomicU64::new(0),
        resent: Mutex::default(),
        acknowledged: Mutex::default(),
        paused: AtomicBool::new(false),
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let load = load.clone();
            std::thread::spawn(move || load.run(client))
        })
        .collect();
    let entropy = SeededEntropy::new(size.messages);
    let enough = |kill: usize| usize::try_from(size.messages).unwrap() * (kill + 1) / (size.kills + 2);
    for kill in 0..size.kills {
        // Spread over the load, whatever the speed of this machine.
        support::wait_until("the load goes on", Duration::from_secs(120), || {
            load.acknowledged() >= enough(kill)
        });
        if kill == size.kills / 2 {
            proxy.cut(true);
            pause(size.cut);
            proxy.cut(false);
        }
        pause(Duration::from_millis(entropy.below(200)));
        let victim = usize::try_from(entropy.below(2)).unwrap();
        nodes[victim].kill_now();
        nodes[victim] = Mta::with_config(&files[victim]);
        *load.nodes[victim].lock().unwrap() = nodes[victim].address;
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    let acknowledged = load.acknowledged.lock().unwrap().clone();
    assert_eq!(acknowledged.len() as u64, size.messages);
    drain(&receiver, &database, size.messages);

    let arrived = numbers(&receiver);
    assert_eq!(
        acknowledged.iter().filter(|number| !arrived.contains_key(number)).count(),
        0,
        "nothing is lost"
    );
    let resent = load.resent.lock().unwrap().clone();
    let extra = |all: bool| -> usize {
        let counted = arrived.iter().filter(|(number, _)| all || !resent.contains(number));
        counted.map(|(_, count)| count - 1).sum()
    };
    let (twice, after_resending) = (extra(false), extra(true) - extra(false));
    eprintln!(
        "two nodes: {} messages, {} kills, one cut of {:?}: arrived {}, {twice} twice, {after_resending} more of the {} \
         that were handed in again; at most {} connections at a time",
        size.messages,
        size.kills,
        size.cut,
        arrived.len(),
        resent.len(),
        receiver.most_open()
    );
    assert!(twice <= (size.kills + 2) * PER_SITE, "{twice} duplicates: more than can have been in flight");
    assert!(receiver.most_open() <= 2 * PER_SITE, "limits: {} connections at a time", receiver.most_open());
    for node in nodes {
        assert!(node.terminate(Duration::from_secs(30)).success());
    }
}

fn numbers(receiver: &Receiver) -> BTreeMap<u64, usize> {
    let tally = receiver.tally("X-Number");
    tally.into_iter().map(|(number, count)| (number.parse().unwrap(), count)).collect()
}

/// Waits until the shared queue is empty. As long as it becomes shorter, that is fine.
fn drain(receiver: &Receiver, database: &postgres::Server, messages: u64) {
    let rows = || database.ask("SELECT count(*) FROM postwright_message");
    let (mut left, mut arrived) = (rows(), receiver.count());
    while left != "0" {
        let mut now = (left.clone(), arrived);
        support::wait_until(
            &format!("one of {left} of {messages} messages goes"),
            Duration::from_secs(90),
            || {
                now = (rows(), receiver.count());
                now != (left.clone(), arrived)
            },
        );
        (left, arrived) = now;
    }
}
