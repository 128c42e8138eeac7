//! An operator at work: why a message waits and until when, a suspension that survives a restart, a cancellation by job, a
//! route that is none.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;
use std::time::Duration;

use postwright::Mta;
use postwright::core::{Clock, Envelope, Mailbox, MemoryZone, Message, SeededEntropy, SystemClock, World};
use postwright::queue::scheduler::{Order, OrderKind, Reason, Selector};
use postwright::queue::{Change, Entry, MemorySpool, Spool, SpoolId};
use postwright::smtp_client::{Client, Trust};

fn system(spool: Arc<MemorySpool>) -> (Mta, Arc<dyn Clock>) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let world = World {
        clock: clock.clone(),
        entropy: Arc::new(SeededEntropy::new(7)),
        resolver: Arc::new(MemoryZone::parse("").unwrap()),
    };
    let client = Client::new(&Trust::Roots(Vec::new()), clock.clone()).unwrap();
    (Mta::builder("mta.test".parse().unwrap(), world, spool, client).build(), clock)
}

fn envelope() -> Envelope {
    let from: Mailbox = "a@mta.test".parse().unwrap();
    Envelope::new(from, ["joe@example.test".parse().unwrap()])
}

fn suspension(clock: &dyn Clock, selector: Selector) -> Order {
    let given = clock.now();
    let until = given + Duration::from_secs(3600);
    Order { selector, kind: OrderKind::Suspend, until, given, reason: "moving house".into() }
}

/// Runs until `ready`, for at most ten seconds.
async fn run_until(mta: &Mta, ready: impl Fn() -> bool) {
    let wait = async {
        while !ready() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let limited = async { tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it happens") };
    mta.run(limited).await;
}

#[tokio::test]
async fn a_suspension_says_why_and_until_when_and_survives_a_restart() {
    let spool = Arc::new(MemorySpool::default());
    let (mta, clock) = system(spool.clone());
    let everything = || suspension(&*clock, Selector::default());
    let order = everything();
    mta.operator().give(order.clone()).await.unwrap();
    let body = Message::from_bytes(b"Subject: hello\r\n\r\n".to_vec());
    let id = mta.submit(&envelope(), body).await.unwrap();
    let because = Reason::Suspended("moving house".into());
    let held = |mta: &Mta| {
        let waits = mta.operator().why(id);
        assert_eq!(waits.len(), 1);
        assert_eq!((&waits[0].reason, waits[0].until), (&because, Some(order.until)));
    };
    held(&mta);
    drop(mta);
    // The spool's claims are those of the process; a crash makes them free.
    spool.crash();
    let (mta, _) = system(spool);
    run_until(&mta, || mta.operator().totals().messages == 1).await;
    held(&mta);
    assert_eq!(mta.operator().orders(), std::slice::from_ref(&order));
    mta.operator().take_back(&order.key()).await.unwrap();
    assert!(mta.operator().orders().is_empty());
    // There is no such domain: it is attempted at once and ends.
    run_until(&mta, || mta.operator().why(id).is_empty()).await;
}

#[tokio::test]
async fn a_job_is_cancelled() {
    let spool = Arc::new(MemorySpool::default());
    let (mta, clock) = system(spool.clone());
    let now = clock.now();
    let id = SpoolId::new(now, &SeededEntropy::new(1));
    let mut entry = Entry::new(id, envelope(), 0, Duration::from_secs(86_400), now);
    entry.metadata.insert("job".into(), b"june"[..].into());
    entry.progress[0].due = now + Duration::from_secs(3600);
    let body = Message::from_bytes(b"Subject: news\r\n\r\n".to_vec());
    spool.commit(vec![Change::Put { entry, body }]).await.unwrap();
    spool.crash();
    let selector = Selector { job: Some("june".into()), ..Selector::default() };
    let kind = OrderKind::Cancel { bounce: false };
    let given = now + Duration::from_secs(1);
    mta.operator().give(Order { kind, given, ..suspension(&*clock, selector) }).await.unwrap();
    run_until(&mta, || spool.is_empty()).await;
    assert_eq!(mta.operator().totals().messages, 0);
}

/// It does not go the usual way, where it would end at once (there is no such domain), until the order is taken back.
#[tokio::test]
async fn what_is_bound_to_no_route_at_all_waits() {
    let (mta, clock) = system(Arc::new(MemorySpool::default()));
    let kind = OrderKind::Bind("the other one".into());
    let order = Order { kind, ..suspension(&*clock, Selector::default()) };
    mta.operator().give(order.clone()).await.unwrap();
    let body = Message::from_bytes(b"Subject: hello\r\n\r\n".to_vec());
    let id = mta.submit(&envelope(), body).await.unwrap();
    let waits_here = || {
        let waits = mta.operator().why(id);
        let site = mta.operator().sites().into_iter().find(|site| &*site.site.pool == "the other one");
        site.is_some() && waits.first().is_some_and(|waits| waits.reason == Reason::LanePostponed)
    };
    run_until(&mta, waits_here).await;
    mta.operator().take_back(&order.key()).await.unwrap();
    // Else it would look again within a minute.
    mta.operator().flush(&Selector::default());
    run_until(&mta, || mta.operator().why(id).is_empty()).await;
}
