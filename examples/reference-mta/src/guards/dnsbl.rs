//! Lists of addresses in DNS: [`Blocklist`].
//!
//! Invariant: no answer is no listing. A look-up takes no longer than its time, no more of them run than allowed,
//! and a list that failed several times in a row is not asked until its pause is over.
//!
//! Standards: RFC 5782 2.1 (IPv4), 2.4 (IPv6), 2.1 and 5 (what answers mean).
//!
//! Not here: lists of domains, scores.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use postwright::core::{Clock, Found, Name, Record, RecordKind, Resolver};
use tokio::sync::Semaphore;

use super::breaker::{Breaker, Change, Leave};
use crate::config::Dnsbl;

/// One list.
pub(crate) struct Blocklist {
    zone: Name,
    timeout: Duration,
    breaker: Breaker,
    look_ups: Semaphore,
    resolver: Arc<dyn Resolver>,
    clock: Arc<dyn Clock>,
}

impl Blocklist {
    pub(crate) fn new(config: &Dnsbl, resolver: Arc<dyn Resolver>, clock: Arc<dyn Clock>) -> Blocklist {
        Blocklist {
            zone: config.zone.clone(),
            timeout: config.timeout.time(),
            breaker: Breaker::new(config.failures.0, config.pause.time()),
            look_ups: Semaphore::new(config.look_ups.size().min(Semaphore::MAX_PERMITS)),
            resolver,
            clock,
        }
    }

    pub(crate) fn zone(&self) -> &Name {
        &self.zone
    }

    /// Whether the list names this address.
    pub(crate) async fn lists(&self, ip: IpAddr) -> bool {
        let Some(name) = self.name(ip.to_canonical()) else { return false };
        // Nobody stands in line for a list: when it is slow, the others go without.
        let Ok(_permit) = self.look_ups.try_acquire() else { return false };
        if self.breaker.ask(self.clock.mono()) == Leave::Skip {
            return false;
        }
        let asking = self.resolver.lookup(&name, RecordKind::A);
        let answer = tokio::time::timeout(self.timeout, asking).await;
        let Ok(Ok(answer)) = answer else {
            if self.breaker.failed(self.clock.mono()) == Change::Opened {
                tracing::warn!(zone = %self.zone, "the list does not answer; it is not asked for a while");
            }
            return false;
        };
        if self.breaker.succeeded() == Change::Closed {
            tracing::info!(zone = %self.zone, "the list answers again");
        }
        match answer.found {
            Found::Records(records) => {
                records.iter().any(|record| matches!(record, Record::A(address) if is_listing(*address)))
            }
            _ => false,
        }
    }

    /// The address backwards, below the zone.
    fn name(&self, ip: IpAddr) -> Option<Name> {
        let backwards = Name::reverse(ip);
        // Without `in-addr.arpa` or `ip6.arpa`.
        let count = if ip.is_ipv4() { 4 } else { 32 };
        let labels: Vec<&str> = backwards.labels().take(count).collect();
        labels.iter().rev().try_fold(self.zone.clone(), |name, label| name.prepend(label).ok())
    }
}

/// RFC 5782 2.1: listings are in 127.0.0.0/8. The end of that block is how lists say that they do not answer us.
fn is_listing(address: Ipv4Addr) -> bool {
    let octets = address.octets();
    octets[0] == 127 && octets[1] != 255
}

#[cfg(test)]
mod tests {
    use super::*;
    use postwright::core::{Answer, BoxFuture, DnsError, MemoryZone};
    use postwright_testkit::PausedClock;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    /// A zone that can fall silent.
    struct Patchy {
        zone: MemoryZone,
        silent: AtomicBool,
        asked: AtomicUsize,
    }

    impl Resolver for Patchy {
        fn lookup<'a>(&'a self, name: &'a Name, kind: RecordKind) -> BoxFuture<'a, Result<Answer, DnsError>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                if self.silent.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                self.zone.lookup(name, kind).await
            })
        }
    }

    fn list(text: &str) -> (Arc<Patchy>, Arc<Blocklist>) {
        let zone = MemoryZone::parse(text).unwrap();
        let dns = Arc::new(Patchy { zone, silent: AtomicBool::new(false), asked: AtomicUsize::new(0) });
        let config: Dnsbl = toml::from_str("zone = \"bl.example\"\nlook_ups = 4").unwrap();
        let clock = PausedClock::start();
        (dns.clone(), Arc::new(Blocklist::new(&config, dns, clock)))
    }

    const ZONE: &str = "2.0.0.127.bl.example. IN A 127.0.0.2\n9.2.0.192.bl.example. IN A 127.255.255.254\n\
        8.2.0.192.bl.example. IN A 192.0.2.1\n\
        2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.example. IN A 127.0.0.2\n";

    #[tokio::test(start_paused = true)]
    async fn listings_are_those_of_rfc_5782() {
        let (_, list) = list(ZONE);
        for (ip, listed) in [
            ("127.0.0.2", true),
            ("::ffff:127.0.0.2", true),
            ("127.0.0.1", false),
            ("2001:db8::2", true),
            ("2001:db8::1", false),
            // "You may not ask", and an answer that is none.
            ("192.0.2.9", false),
            ("192.0.2.8", false),
        ] {
            assert_eq!(list.lists(ip.parse().unwrap()).await, listed, "{ip}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_costs_a_few_time_outs_and_then_nothing_until_it_is_over() {
        let (dns, list) = list(ZONE);
        let (listed, start) = ("127.0.0.2".parse().unwrap(), tokio::time::Instant::now());
        assert!(list.lists(listed).await);
        dns.silent.store(true, Ordering::Relaxed);
        // Five sessions find out, three seconds each; then a thousand come within no time at all.
        for _ in 0..5 {
            assert!(!list.lists(listed).await);
        }
        assert_eq!(start.elapsed().as_secs(), 15);
        let asked = dns.asked.load(Ordering::Relaxed);
        for _ in 0..1000 {
            assert!(!list.lists(listed).await, "mail flows");
        }
        assert_eq!(
            (start.elapsed().as_secs(), dns.asked.load(Ordering::Relaxed)),
            (15, asked),
            "nobody waited"
        );
        // Half open: one of many tries, in vain.
        tokio::time::sleep(Duration::from_secs(30)).await;
        let (one, other) = tokio::join!(list.lists(listed), list.lists(listed));
        assert!(!one && !other);
        assert_eq!(dns.asked.load(Ordering::Relaxed), asked + 1);
        // It is back: the next probe closes the breaker.
        dns.silent.store(false, Ordering::Relaxed);
        assert!(!list.lists(listed).await, "still in its pause");
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(list.lists(listed).await && list.lists(listed).await);
        assert_eq!(dns.asked.load(Ordering::Relaxed), asked + 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_does_not_pile_up_before_the_breaker_opens() {
        let (dns, list) = list(ZONE);
        dns.silent.store(true, Ordering::Relaxed);
        let start = tokio::time::Instant::now();
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..500 {
            let list = list.clone();
            all.spawn(async move { list.lists("127.0.0.2".parse().unwrap()).await });
        }
        while let Some(listed) = all.join_next().await {
            assert!(!listed.unwrap());
        }
        assert_eq!(
            (start.elapsed().as_secs(), dns.asked.load(Ordering::Relaxed)),
            (3, 4),
            "four asked, the others went on"
        );
    }
}
