//! Happy eyeballs: a dead address of a host costs a quarter of a second, and no mail goes twice.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright_core::BoxFuture;
use postwright_smtp_client::connect::{BoxIo, Connector};
use postwright_smtp_client::{Client, Target, Trust};

use postwright_testkit::PausedClock;

use crate::peer::{HELLO, ONE, QUIT, Scripts, options, shown, transaction};

/// How an address takes a connection.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// After so many milliseconds.
    Opens(u64),
    Refuses,
    Silent,
}

/// Answers by the last octet of the address, and remembers when it was asked.
struct Network {
    answers: Vec<Answer>,
    scripts: Arc<Scripts>,
    start: tokio::time::Instant,
    asked: Mutex<Vec<(u8, u128)>>,
}

impl Connector for Network {
    fn connect<'a>(&'a self, target: &'a Target, source: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>> {
        let IpAddr::V4(ip) = target.address.ip() else { unreachable!() };
        let number = ip.octets()[3];
        self.asked.lock().unwrap().push((number, self.start.elapsed().as_millis()));
        Box::pin(async move {
            match self.answers[usize::from(number)] {
                Answer::Opens(after) => tokio::time::sleep(Duration::from_millis(after)).await,
                Answer::Refuses => return Err(io::ErrorKind::ConnectionRefused.into()),
                Answer::Silent => std::future::pending().await,
            }
            self.scripts.connect(target, source).await
        })
    }
}

/// Delivers to the addresses of one host; what came of it, when each was asked, and how long it took.
async fn deliver(answers: &[Answer], scripts: &[Option<&str>]) -> (Vec<String>, Vec<(u8, u128)>, u128) {
    let start = tokio::time::Instant::now();
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let network = Arc::new(Network {
        answers: answers.to_vec(),
        scripts: Scripts::new(scripts, None),
        start,
        asked: Mutex::default(),
    });
    let client = Client::new(&Trust::Roots(Vec::new()), PausedClock::start()).unwrap();
    let client = client.with_connector(network.clone());
    let target = |number: usize| Target {
        host: "mx.x.example".parse().unwrap(),
        address: std::net::SocketAddr::from(([192, 0, 2, u8::try_from(number).unwrap()], 25)),
    };
    let targets: Vec<Target> = (0..answers.len()).map(target).collect();
    let report = client.deliver(&targets, &options(), transaction()).await;
    let took = start.elapsed().as_millis();
    assert_eq!(network.scripts.left(), 0, "every script was played: {:?}", network.scripts.log());
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let left = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(left, tasks, "tasks are left");
    let asked = network.asked.lock().unwrap().clone();
    (shown(&report), asked, took)
}

#[tokio::test(start_paused = true)]
async fn addresses_of_a_host_race() {
    use Answer::{Opens, Refuses, Silent};
    let good = format!("{HELLO}{ONE}{QUIT}");
    const DELIVERED: &str = "Delivered 2.0.0 end-of-data";
    for (answers, asked, took) in [
        // The first one is quick enough: nobody else is asked.
        (&[Opens(200), Opens(0)][..], &[(0, 0)][..], 200),
        // RFC 8305 5: the next after 250 ms, or at once when one failed.
        (&[Silent, Opens(10)], &[(0, 0), (1, 250)], 260),
        (&[Refuses, Opens(10)], &[(0, 0), (1, 0)], 10),
        (&[Silent, Refuses, Silent, Opens(5)], &[(0, 0), (1, 250), (2, 250), (3, 500)], 505),
        // The slower of two may still win.
        (&[Opens(300), Opens(1000)], &[(0, 0), (1, 250)], 300),
    ] {
        let (report, seen, time) = deliver(answers, &[Some(&good)]).await;
        assert_eq!((report, seen.as_slice(), time), (vec![DELIVERED.to_owned()], asked, took), "{answers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_loser_of_the_race_is_tried_when_the_winner_is_of_no_use() {
    use Answer::{Opens, Refuses, Silent};
    let good = format!("{HELLO}{ONE}{QUIT}");
    // The winner greets with a refusal; the one that was not asked takes the mail.
    let (report, asked, _) =
        deliver(&[Opens(0), Opens(0)], &[Some("S: 421 4.3.2 busy\nCLOSE"), Some(&good)]).await;
    assert_eq!(report, ["Delivered 2.0.0 end-of-data"]);
    assert_eq!(asked.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1]);
    // With no address left the mail waits, after the connect time-out and not after several of them.
    let (report, _, took) = deliver(&[Silent, Refuses, Silent], &[]).await;
    assert_eq!(report, ["Delayed 4.4.1 connect"]);
    assert!((30_000..31_000).contains(&took), "{took} ms");
}
