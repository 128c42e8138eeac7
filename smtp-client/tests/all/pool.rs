//! The pool: reuse, age, wear, and connections that died while idle.

use std::time::Duration;

use postwright_testkit::PausedClock;

use crate::peer::{HELLO, ONE, QUIT, Scripts, client, hosts, options, shown, transaction};
use postwright_smtp_client::{Pool, PoolLimits};

fn pool(transactions: u32) -> Pool<&'static str> {
    let mut limits = PoolLimits::default();
    limits.transactions = transactions;
    Pool::new(limits, PausedClock::start())
}

#[tokio::test(start_paused = true)]
async fn connections_are_used_again_until_they_are_worn_or_old() {
    let both = format!("{HELLO}{ONE}{ONE}");
    let scripts = Scripts::new(&[Some(&both), Some(&both), Some(&both)], None);
    let (client, pool) = (client(&scripts, Vec::new()), pool(2));
    let send = async || {
        let report = pool.deliver(&"a", &client, &hosts(1), &options(), transaction()).await;
        assert!(report.is_success(), "{report:?} {:?}", scripts.log());
        scripts.left()
    };
    assert_eq!(send().await, 2);
    assert_eq!(send().await, 2, "the same connection");
    assert_eq!(send().await, 1, "two transactions are all it takes");
    tokio::time::advance(Duration::from_secs(16)).await;
    assert_eq!(send().await, 0, "too old");
    assert_eq!(pool.len(), 1);
    assert_eq!(pool.retire(false).len(), 0);
    tokio::time::advance(Duration::from_secs(16)).await;
    assert_eq!(pool.retire(false).len(), 1);
    assert!(pool.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_died_is_never_a_failed_message() {
    let good = format!("{HELLO}{ONE}{QUIT}");
    for death in [
        "CLOSE",
        "S: 421 4.4.2 idle too long\nCLOSE",
        "C: MAIL FROM:<a@client.example>\nCLOSE",
        "C: MAIL FROM:<a@client.example>\nS: 421 4.7.0 enough\nCLOSE",
        "C: MAIL FROM:<a@client.example>\nS: 250 ok\nS: 250 ok\nCLOSE",
        "C: MAIL FROM:<a@client.example>\nHANG",
    ] {
        let dying = format!("{HELLO}{ONE}{death}");
        let scripts = Scripts::new(&[Some(&dying), Some(&good)], None);
        let (client, pool) = (client(&scripts, Vec::new()), pool(9));
        for _ in 0..2 {
            let report = pool.deliver(&"a", &client, &hosts(1), &options(), transaction()).await;
            assert_eq!(shown(&report), ["Delivered 2.0.0 end-of-data"], "{death} {:?}", scripts.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(scripts.left(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_kept_apart_and_numbers_kept_to() {
    let one = format!("{HELLO}{ONE}");
    let scripts = Scripts::new(&[Some(&one), Some(&one), Some(&one)], None);
    let client = client(&scripts, Vec::new());
    let mut limits = PoolLimits::default();
    (limits.per_key, limits.total) = (1, 2);
    let pool = Pool::new(limits, PausedClock::start());
    for key in ["a", "b", "c"] {
        pool.deliver(&key, &client, &hosts(1), &options(), transaction()).await;
    }
    assert_eq!((pool.len(), scripts.left()), (2, 0));
    assert!(pool.take(&"c").await.is_none() && pool.take(&"a").await.is_some());
    assert_eq!(pool.retire(true).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_one_that_is_idle_for_longest_makes_room() {
    let scripts = Scripts::new(&[Some(HELLO), Some(HELLO), Some(HELLO)], None);
    let (client, pool) = (client(&scripts, Vec::new()), pool(9));
    for key in ["b", "a", "b"] {
        let target = hosts(1).remove(0);
        let connection = client.connect(&target, &options()).await.unwrap();
        pool.put(&key, connection);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    // The first of b, then a, then the other b; and of a key only its own.
    assert!(pool.take_oldest(|_| true).is_some());
    assert!(pool.take_oldest(|key| *key == "c").is_none());
    assert!(pool.take_oldest(|_| true).is_some());
    assert!(pool.take_oldest(|key| *key == "a").is_none(), "a was older than the second b");
    assert!(pool.take_oldest(|key| *key == "b").is_some());
    assert!(pool.is_empty());
}
