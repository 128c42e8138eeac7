//! The shared spool on a real PostgreSQL that the test starts for itself: the contract, two nodes, a node that dies,
//! a database that goes away.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use postwright_core::{BoxFuture, Timestamp};
use postwright_queue::contract::{self, sample};
use postwright_queue::{
    Change, Claimed, Damage, Fault, PostgresOptions, PostgresSpool, Spool, SpoolError, SpoolId, Want,
};
use postwright_testkit::postgres::{DATABASE, USER};
use tokio_postgres::{Config, NoTls};

/// The server, and how to reach it.
struct Server(postwright_testkit::postgres::Server);

impl Server {
    fn start() -> Option<Server> {
        let started = postwright_testkit::postgres::Server::start().map(Server);
        if started.is_none() {
            postwright_testkit::announce("postgres", "PostgreSQL is not installed");
        }
        started
    }

    fn config(&self) -> Config {
        let mut config = Config::new();
        config.host_path(self.0.socket_folder()).port(self.0.address().port());
        config.user(USER).dbname(DATABASE);
        config
    }

    async fn connect(&self, node: &str, lease: Duration) -> Result<PostgresSpool, SpoolError> {
        let mut options = PostgresOptions::new(node);
        options.lease = lease;
        options.connections = 4;
        PostgresSpool::connect(self.config(), NoTls, options).await
    }

    /// Connects once the server answers.
    async fn node(&self, node: &str, lease: Duration) -> PostgresSpool {
        let mut last = None;
        for _ in 0..200 {
            match self.connect(node, lease).await {
                Ok(spool) => return spool,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the server does not answer: {last:?}");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(300);

struct Subject<'a> {
    server: &'a Server,
    spool: Option<PostgresSpool>,
}

impl contract::Subject for Subject<'_> {
    fn spool(&self) -> &dyn Spool {
        self.spool.as_ref().unwrap()
    }

    fn crash(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.spool = None;
            self.spool = Some(self.server.node("one", LONG).await);
        })
    }
}

async fn put(spool: &PostgresSpool, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let (entry, body) = sample(number);
        spool.commit(vec![Change::Put { entry, body }]).await.unwrap();
    }
}

fn now() -> Timestamp {
    sample(0).0.created
}

const WANT: Want = Want { limit: 25, horizon: Duration::from_secs(86_400) };

#[test]
fn the_contract_holds() {
    let Some(server) = Server::start() else { return };
    runtime().block_on(async {
        let spool = Some(server.node("one", LONG).await);
        contract::check(&mut Subject { server: &server, spool }).await;
    });
}

#[test]
fn leases_are_fenced_and_taken_over() {
    let Some(server) = Server::start() else { return };
    runtime().block_on(async {
        let one = server.node("one", SHORT).await;
        let two = server.node("two", LONG).await;
        let taken = server.connect("two", LONG).await;
        assert!(matches!(taken, Err(SpoolError::Locked(_))), "two processes with one name: {taken:?}");
        let (entry, body) = sample(1);
        let claims = one.commit(vec![Change::Put { entry: entry.clone(), body }]).await.unwrap();
        assert!(two.claim(WANT, now()).await.unwrap().is_empty(), "it is leased");
        // Renewed, it stays leased; left alone, it is taken over.
        tokio::time::sleep(SHORT / 2).await;
        assert!(one.renew(&claims).await.unwrap().is_empty());
        let mut taken = Vec::new();
        for _ in 0..100 {
            taken = two.claim(WANT, now()).await.unwrap();
            if !taken.is_empty() {
                break;
            }
            tokio::time::sleep(SHORT / 5).await;
        }
        assert_eq!(taken.len(), 1);
        assert!(taken[0].claim.epoch > claims[0].epoch);
        assert_eq!(one.renew(&claims).await.unwrap(), claims, "the first node learns that it lost it");
        for change in [
            Change::Remove { claim: claims[0] },
            Change::Update { claim: claims[0], entry: entry.clone() },
            Change::Release { claim: claims[0] },
        ] {
            let (notice, body) = sample(2);
            let changes = vec![Change::Put { entry: notice, body }, change];
            assert_eq!(
                one.commit(changes).await,
                Err(SpoolError::Fenced(entry.id)),
                "however late its words are"
            );
        }
        assert!(matches!(one.load(sample(2).0.id).await, Err(SpoolError::NotFound(_))));
        // What is released can be claimed by the other at once, who is told.
        let changed = one.changed();
        two.commit(vec![Change::Release { claim: taken[0].claim }]).await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), changed).await.expect("news of the release");
        assert_eq!(one.claim(WANT, now()).await.unwrap().len(), 1);
    });
}

#[test]
fn only_what_is_due_soon_is_claimed() {
    let Some(server) = Server::start() else { return };
    runtime().block_on(async {
        let spool = server.node("one", LONG).await;
        let (mut later, body) = sample(1);
        let in_an_hour = now() + Duration::from_secs(3600);
        later.progress.iter_mut().for_each(|progress| progress.due = in_an_hour);
        let claims = spool.commit(vec![Change::Put { entry: later, body }]).await.unwrap();
        spool.commit(vec![Change::Release { claim: claims[0] }]).await.unwrap();
        let soon = Want { limit: 10, horizon: Duration::from_secs(60) };
        assert!(spool.claim(soon, now()).await.unwrap().is_empty());
        assert_eq!(spool.claim(soon, in_an_hour).await.unwrap().len(), 1);
    });
}

/// Claims and delivers until the queue is empty, giving up now and then as a node that dies does.
async fn work(
    server: &Server,
    name: &str,
    delivered: &tokio::sync::Mutex<BTreeMap<SpoolId, u32>>,
    dies: bool,
) -> u32 {
    let (mut in_flight_at_death, mut lives, mut idle) = (0, 0, 0);
    'lives: loop {
        lives += 1;
        let spool = server.node(name, SHORT).await;
        for batch in 0.. {
            let claimed: Vec<Claimed> = spool.claim(WANT, now()).await.unwrap();
            idle = if claimed.is_empty() { idle + 1 } else { 0 };
            if idle > 20 {
                return in_flight_at_death;
            }
            if claimed.is_empty() {
                tokio::time::sleep(SHORT / 5).await;
            }
            for (done, item) in claimed.iter().enumerate() {
                // The delivery happens here; what follows may not.
                *delivered.lock().await.entry(item.entry.id).or_default() += 1;
                if dies && lives < 6 && batch == lives && done == 7 {
                    in_flight_at_death += 1;
                    continue 'lives;
                }
                let result = spool.commit(vec![Change::Remove { claim: item.claim }]).await;
                if matches!(result, Err(SpoolError::Fenced(_) | SpoolError::NotFound(_))) {
                    // A lease that ended while others were delivered: the other node may deliver it too.
                    in_flight_at_death += 1;
                } else {
                    result.unwrap();
                }
            }
        }
    }
}

#[test]
fn two_nodes_deliver_everything_once_but_for_what_was_in_flight() {
    let Some(server) = Server::start() else { return };
    let messages = if std::env::var_os("POSTWRIGHT_LONG").is_some() { 5000 } else { 600 };
    runtime().block_on(async {
        let server = Arc::new(server);
        let acceptor = server.node("acceptor", LONG).await;
        put(&acceptor, 0..messages).await;
        // Its successor frees what it held.
        drop(acceptor);
        drop(server.node("acceptor", LONG).await);
        let delivered = Arc::new(tokio::sync::Mutex::new(BTreeMap::new()));
        let nodes: Vec<_> = [("one", true), ("two", false)]
            .into_iter()
            .map(|(name, dies)| {
                let (server, delivered) = (server.clone(), delivered.clone());
                tokio::spawn(async move { work(&server, name, &delivered, dies).await })
            })
            .collect();
        let mut in_flight = 0;
        for node in nodes {
            in_flight += node.await.unwrap();
        }
        let delivered = delivered.lock().await;
        let expected: BTreeSet<SpoolId> = (0..messages).map(|number| sample(number).0.id).collect();
        assert_eq!(delivered.keys().copied().collect::<BTreeSet<_>>(), expected, "everything is delivered");
        let twice: u32 = delivered.values().map(|times| times - 1).sum();
        assert!(twice <= in_flight, "{twice} duplicates, {in_flight} in flight at a death");
    });
}

#[test]
fn a_database_that_goes_away_is_a_refusal_and_comes_back_without_a_restart() {
    let Some(mut server) = Server::start() else { return };
    runtime().block_on(async {
        let spool = server.node("one", LONG).await;
        put(&spool, 0..20).await;
        server.0.kill();
        let (entry, body) = sample(99);
        let change = || vec![Change::Put { entry: entry.clone(), body: body.clone() }];
        let error = spool.commit(change()).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Environment);
        assert!(error.refusal().reply().to_string().starts_with("451 4.3.0"));
        server.0.run();
        let mut result = Err(SpoolError::Closed);
        for _ in 0..100 {
            result = spool.commit(change()).await;
            if result.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        result.unwrap();
        for number in 0..20 {
            let (entry, body) = sample(number);
            assert_eq!(spool.load(entry.id).await.unwrap().body, body, "acknowledged before the cut");
        }
    });
}

#[test]
fn damage_is_put_aside() {
    let Some(server) = Server::start() else { return };
    runtime().block_on(async {
        let spool = server.node("one", LONG).await;
        put(&spool, 0..3).await;
        let (client, connection) = server.config().connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        let id = sample(1).0.id;
        let sql = "UPDATE postwright_message SET entry = set_byte(entry, 30, 255 - get_byte(entry, 30)) WHERE id = $1";
        assert_eq!(client.execute(sql, &[&&id.as_bytes()[..]]).await.unwrap(), 1);
        let error = spool.load(id).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Damage);
        let again = spool.load(id).await.unwrap_err();
        assert!(matches!(again, SpoolError::Damaged(Damage { quarantined: true, .. })), "{again}");
        assert_eq!(spool.health().quarantined, 1);
        drop(spool);
        let spool = server.node("one", LONG).await;
        assert_eq!(spool.claim(WANT, now()).await.unwrap().len(), 2, "the others are fine");
    });
}
