//! The network: pipes to servers, one of which may be bad, and what they saw.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright::core::BoxFuture;
use postwright::smtp_client::{BoxIo, Connector, Target};
use tokio::time::sleep;

use crate::HOUR;
use crate::remote::{self, Fault};

/// What the servers saw.
#[derive(Default)]
pub(crate) struct Seen {
    /// How often each message's body came whole, by its id and the site.
    pub(crate) bodies: Mutex<BTreeMap<String, usize>>,
    pub(crate) open: AtomicUsize,
    pub(crate) bad_open: AtomicUsize,
    pub(crate) bad_most: AtomicUsize,
}

/// Takes 20 ms to connect, and its servers 5 ms to think; one of them is bad for the first hour.
pub(crate) struct Network {
    fault: Fault,
    start: tokio::time::Instant,
    seen: Arc<Seen>,
}

impl Network {
    pub(crate) fn new(fault: Fault, seen: Arc<Seen>) -> Network {
        Network { fault, start: tokio::time::Instant::now(), seen }
    }
}

/// Gives its place back when the server's task ends, however it ends.
struct Place(Arc<Seen>, bool);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        if self.1 {
            self.0.bad_open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Connector for Network {
    fn connect<'a>(&'a self, target: &'a Target, _: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>> {
        let is_bad = target.host.to_string() == "mx.bad.test";
        let fault = if is_bad && self.start.elapsed() < HOUR { self.fault } else { Fault::None };
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        self.seen.open.fetch_add(1, Ordering::SeqCst);
        if is_bad {
            let now = self.seen.bad_open.fetch_add(1, Ordering::SeqCst) + 1;
            self.seen.bad_most.fetch_max(now, Ordering::SeqCst);
        }
        let place = Place(self.seen.clone(), is_bad);
        tokio::spawn(async move {
            // An error is the client's going away.
            let took = |id| *place.0.bodies.lock().unwrap().entry(id).or_default() += 1;
            let _ = remote::serve(theirs, fault, Duration::from_millis(5), took).await;
        });
        Box::pin(async move {
            sleep(Duration::from_millis(20)).await;
            Ok(Box::new(ours) as BoxIo)
        })
    }
}
