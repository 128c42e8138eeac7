//! Smart hosts with accounts, from end to end: a whole system, real TLS and SCRAM, and our own server as the far end.
//!
//! Standards: RFC 4954 (530, 535), RFC 5802.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright::core::{
    Domain, Envelope, MemoryZone, Message, Recipient, Refusal, ReversePath, SeededEntropy, SystemClock,
    Timestamp, World,
};
use postwright::queue::MemorySpool;
use postwright::queue::scheduler::{Order, OrderKind, Selector};
use postwright::smtp_client::policy::Level;
use postwright::smtp_client::{Client, Trust};
use postwright::smtp_proto::sasl::{Mechanism, Secret};
use postwright::smtp_server::auth::{Accounts, Authenticator, Lockout, Login};
use postwright::smtp_server::tls::{Certificates, Identity, Tickets, server_config};
use postwright::smtp_server::{Accepted, Answer, Handler, Server, ServerConfig, Session};
use postwright::{Class, Credential, Event, Mta, Observer, RelayAccount, RouteRule, Routes, Via};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

const NAME: &str = "relay.test";
const PATIENCE: Duration = Duration::from_secs(30);

/// What the far end saw.
#[derive(Default)]
struct Seen {
    sessions: AtomicUsize,
    /// Mechanism and outcome of each exchange.
    logins: Mutex<Vec<String>>,
    /// Session, user and sender of each message.
    mails: Mutex<Vec<(usize, String, String)>>,
}

struct Desk {
    number: usize,
    login: Login,
    seen: Arc<Seen>,
}

impl Handler for Desk {
    async fn auth(
        &mut self,
        session: &Session,
        mechanism: &str,
        response: Option<&[u8]>,
        first: bool,
    ) -> Answer {
        let answer = self.login.step(session, mechanism, response, first).await;
        let outcome = match &answer {
            Answer::Accepted { .. } => Some("235".to_owned()),
            Answer::Refused { reply, .. } => Some(reply.reply().code().to_string()),
            _ => None,
        };
        self.seen.logins.lock().unwrap().extend(outcome.map(|outcome| format!("{mechanism} {outcome}")));
        answer
    }

    async fn rcpt(&mut self, _: &Session, _: &Recipient, _: &Envelope) -> Result<(), Refusal> {
        Ok(())
    }

    async fn message(&mut self, _: &Session, envelope: &Envelope, _: Message) -> Result<Accepted, Refusal> {
        let user = self.login.identity().map(|identity| identity.user.to_string()).unwrap_or_default();
        self.seen.mails.lock().unwrap().push((self.number, user, envelope.reverse_path.to_string()));
        Ok(Accepted::default())
    }
}

/// A submission server for `joe` and `ann`, whose passwords are their names twice.
struct Site {
    address: SocketAddr,
    root: CertificateDer<'static>,
    seen: Arc<Seen>,
    _stop: oneshot::Sender<()>,
}

async fn site(mechanisms: &[&str]) -> Site {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let root = made.cert.der().clone();
    let identity = Identity { names: vec![NAME.parse().unwrap()], chain: vec![root.clone()], key };
    let tls = server_config(&Certificates::new(vec![identity]).unwrap(), None, Tickets::Off).unwrap();
    let offered = mechanisms.iter().map(|name| (*name).into()).collect();
    let config =
        ServerConfig::new(NAME.parse::<Domain>().unwrap()).with_starttls(tls).with_session(|session| {
            session.auth = offered;
            session.require_auth = true;
        });
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SeededEntropy::new(9)));
    let line = |user: &str| Accounts::line(user, &Secret::new(user.repeat(2)), &SeededEntropy::new(1));
    let accounts = Arc::new(Accounts::parse(&format!("{}\n{}\n", line("joe"), line("ann"))).unwrap());
    let lockout = Lockout::new(1000, 1000, Duration::from_secs(60));
    let shared = Authenticator::new(accounts, clock.clone(), entropy, NAME, [4; 32]).with_lockout(lockout);
    let (shared, seen) = (Arc::new(shared), Arc::new(Seen::default()));
    let told = seen.clone();
    let server = Server::new(config, clock, move |_: &_| {
        let number = told.sessions.fetch_add(1, Ordering::SeqCst);
        let desk = Desk { number, login: shared.login(), seen: told.clone() };
        async move { Ok(desk) }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(async move { server.serve(listener, async { drop(stopped.await) }).await });
    Site { address, root, seen, _stop: stop }
}

impl Site {
    fn via(&self) -> Via {
        Via::SmartHost { host: NAME.parse().unwrap(), port: self.address.port(), tls: Level::Verified }
    }
}

fn account(name: &str, user: &str, password: &str) -> Arc<RelayAccount> {
    let credential = Credential::password(user, Secret::new(password));
    Arc::new(RelayAccount::new(name, credential, Arc::new(SeededEntropy::new(5))))
}

/// `delivered`, `deferred 4.7.8`, `bounced 5.0.0`, or `refused ACCOUNT USER`.
struct Told(mpsc::UnboundedSender<String>);

impl Observer for Told {
    fn event(&self, event: &Event<'_>) {
        let text = match event {
            Event::Delivered { .. } => "delivered".to_owned(),
            Event::Deferred { status, .. } => format!("deferred {}", status.status),
            Event::Bounced { status, .. } => format!("bounced {}", status.status),
            Event::LoginRefused { account, user, status, .. } => {
                assert!(status.diagnostic.to_string().contains("535"), "{}", status.diagnostic);
                format!("refused {account} {user}")
            }
            _ => return,
        };
        let _ = self.0.send(text);
    }
}

/// A running system.
struct Running {
    mta: Mta,
    told: mpsc::UnboundedReceiver<String>,
    stop: oneshot::Sender<()>,
    running: tokio::task::JoinHandle<()>,
}

fn run(routes: Routes, roots: Vec<CertificateDer<'static>>) -> Running {
    let clock = Arc::new(SystemClock::new());
    let world = World {
        clock: clock.clone(),
        entropy: Arc::new(SeededEntropy::new(1)),
        resolver: Arc::new(MemoryZone::parse("relay.test. A 127.0.0.1\n").unwrap()),
    };
    // MX hosts are not believed by those roots: a private authority says nothing about them.
    let nobody = Client::new(&Trust::Roots(Vec::new()), clock.clone()).unwrap();
    let relays = Client::new(&Trust::Roots(roots), clock).unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    routes.check().unwrap();
    let mta = Mta::builder("mta.test".parse().unwrap(), world, Arc::new(MemorySpool::default()), nobody)
        .relay_client(relays)
        .routes(routes)
        .classes(|_, envelope| {
            let sender = envelope.reverse_path.mailbox().map_or("", |mailbox| mailbox.local());
            let (tenant, stream) = sender.split_once('+').unwrap_or_default();
            Class { tenant: tenant.into(), stream: stream.into() }
        })
        .observer(Arc::new(Told(tell)))
        .build();
    let (stop, stopped) = oneshot::channel::<()>();
    let runner = mta.clone();
    let running = tokio::spawn(async move { runner.run(async { drop(stopped.await) }).await });
    Running { mta, told, stop, running }
}

impl Running {
    async fn send(&self, from: &str, to: &str) {
        let sender: ReversePath = from.parse().unwrap();
        let envelope = Envelope::new(sender, [to.parse().unwrap()]);
        self.mta.submit(&envelope, Message::from_bytes(&b"Subject: x\r\n\r\nx\r\n"[..])).await.unwrap();
    }

    async fn next(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.told.recv()).await.unwrap().unwrap()
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_accounts_at_one_host_never_share_a_connection() {
    let site = site(&["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"]).await;
    let sender = |text: &str| [text.parse().unwrap()];
    // Neither has a name: they are one site, and only the account tells their connections apart.
    let routes = Routes::mx()
        .with(
            RouteRule::new(site.via())
                .for_senders(sender("a.test"))
                .with_account(account("a", "ann", "annann")),
        )
        .or_else(RouteRule::new(site.via()).with_account(account("b", "joe", "joejoe")));
    let mut system = run(routes, vec![site.root.clone()]);
    for round in 0..10 {
        for number in 0..6 {
            let from = ["x@a.test", "x@b.test"][number % 2];
            system.send(from, &format!("u{number}@to{}.test", round % 3)).await;
        }
        for _ in 0..6 {
            assert_eq!(system.next().await, "delivered");
        }
    }
    let mails = site.seen.mails.lock().unwrap().clone();
    assert_eq!(mails.len(), 60);
    for (session, user, from) in &mails {
        let owner = if from == "<x@a.test>" { "ann" } else { "joe" };
        assert_eq!(user, owner, "session {session} carried mail of {from}");
    }
    // Connections were used again, also for another domain: a smart host does not care.
    let sessions = site.seen.sessions.load(Ordering::SeqCst);
    assert!(sessions <= 20, "{sessions} sessions for 60 messages");
    let logins = site.seen.logins.lock().unwrap().clone();
    assert_eq!(logins, vec!["SCRAM-SHA-256-PLUS 235"; sessions]);
    system.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_delays_one_message_and_the_right_one_ends_it() {
    let site = site(&["SCRAM-SHA-256-PLUS", "PLAIN"]).await;
    let shop = account("shop", "joe", "wrong");
    let only = Credential::password("joe", Secret::new("wrong")).by([Mechanism::Plain]);
    shop.replace(only);
    let mut system = run(
        Routes::mx().or_else(RouteRule::new(site.via()).with_account(shop.clone())),
        vec![site.root.clone()],
    );
    system.send("x@a.test", "u@to.test").await;
    assert_eq!(system.next().await, "refused shop joe");
    assert_eq!(system.next().await, "deferred 4.7.8");
    // The others wait and ask nobody: an account with too many failures would be locked.
    for number in 0..20 {
        system.send("x@a.test", &format!("u@to{number}.test")).await;
    }
    let lanes = || system.mta.operator().lanes(0);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while lanes().iter().filter(|lane| lane.blocked_until.is_some()).count() < 20 {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", lanes());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(*site.seen.logins.lock().unwrap(), ["PLAIN 535"]);
    shop.replace(Credential::password("joe", Secret::new("joejoe")));
    system.mta.operator().ask_pace_again();
    system.mta.operator().flush(&Selector::default());
    for _ in 0..21 {
        assert_eq!(system.next().await, "delivered");
    }
    let logins = site.seen.logins.lock().unwrap().clone();
    assert!(logins[1..].iter().all(|login| login == "SCRAM-SHA-256-PLUS 235"), "{logins:?}");
    system.end().await;
}

/// RFC 5802 6: only a server that offers -PLUS may take "I could bind, you cannot" for a lie.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_offers_no_binding_lets_clients_in_that_could_bind() {
    let site = site(&["SCRAM-SHA-256"]).await;
    let rule = RouteRule::new(site.via()).with_account(account("b", "joe", "joejoe"));
    let mut system = run(Routes::mx().or_else(rule), vec![site.root.clone()]);
    system.send("x@a.test", "u@to.test").await;
    assert_eq!(system.next().await, "delivered");
    assert_eq!(*site.seen.logins.lock().unwrap(), ["SCRAM-SHA-256 235"]);
    system.end().await;
}

/// 530 at MAIL means that an account is missing here (RFC 4954 6): the mail waits for whoever mends that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smart_host_that_wants_a_login_bounces_nothing() {
    let site = site(&["PLAIN"]).await;
    let mut system = run(Routes::mx().or_else(RouteRule::new(site.via())), vec![site.root.clone()]);
    system.send("x@a.test", "u@to.test").await;
    assert_eq!(system.next().await, "deferred 4.7.0");
    system.end().await;
}

/// I6: no certificate, no credentials. What the relay's roots say is not what others' roots say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_stay_here_if_nobody_vouches_for_the_host() {
    let site = site(&["PLAIN"]).await;
    let rule = |tls| {
        let via = Via::SmartHost { host: NAME.parse().unwrap(), port: site.address.port(), tls };
        RouteRule::new(via).with_account(account("shop", "joe", "joejoe"))
    };
    let mut system = run(Routes::mx().or_else(rule(Level::Verified)), Vec::new());
    system.send("x@a.test", "u@to.test").await;
    assert_eq!(system.next().await, "deferred 4.7.5");
    // A message must not talk us out of it (RFC 8689 5 is about its own protection).
    let envelope =
        Envelope::new("<x@a.test>".parse::<ReversePath>().unwrap(), ["v@to.test".parse().unwrap()]);
    let text = &b"TLS-Required: No\r\nSubject: x\r\n\r\nx\r\n"[..];
    system.mta.submit(&envelope, Message::from_bytes(text)).await.unwrap();
    assert_eq!(system.next().await, "deferred 4.7.5");
    assert_eq!(*site.seen.logins.lock().unwrap(), Vec::<String>::new());
    system.end().await;
    for tls in [Level::Never, Level::Opportunistic, Level::Encrypted] {
        let fault = Routes::mx().or_else(rule(tls)).check().unwrap_err();
        assert!(fault.why.contains("verified TLS"), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sender_domain_tenant_and_stream_choose_the_route() {
    let site = site(&["SCRAM-SHA-256-PLUS"]).await;
    let (ann, joe) = (account("a", "ann", "annann"), account("b", "joe", "joejoe"));
    let to_ann = || RouteRule::new(site.via()).with_account(ann.clone());
    let routes = Routes::mx()
        .with(to_ann().for_senders(["news@a.test".parse().unwrap()]).named("news"))
        .with(to_ann().for_domains([".vip.test".parse().unwrap()]).for_stream("bulk"))
        .with(to_ann().for_tenant("shop").for_stream("mail"))
        .or_else(RouteRule::new(site.via()).with_account(joe));
    let mut system = run(routes, vec![site.root.clone()]);
    let mut expected = Vec::new();
    // The sender's local part is tenant and stream here.
    for (from, to, user) in [
        ("<news@a.test>", "x@one.test", "ann"),
        ("<other@a.test>", "x@one.test", "joe"),
        ("<me+bulk@b.test>", "x@a.vip.test", "ann"),
        ("<me+bulk@c.test>", "x@vip.test", "joe"),
        ("<me+mail@d.test>", "x@a.vip.test", "joe"),
        ("<shop+mail@e.test>", "x@one.test", "ann"),
        ("<shop+bulk@f.test>", "x@one.test", "joe"),
    ] {
        system.send(from, to).await;
        assert_eq!(system.next().await, "delivered");
        expected.push((user.to_owned(), from.to_owned()));
    }
    // Bound to a route by its name, mail goes with that route's account, whatever it would take otherwise.
    let kind = OrderKind::Bind(system.mta.operator().read_route("news").unwrap().into());
    let (given, selector) = (Timestamp::default(), Selector::default());
    let until = Timestamp::from_secs(u64::from(u32::MAX));
    let order = Order { selector, kind, given, until, reason: "a test".into() };
    system.mta.operator().give(order).await.unwrap();
    assert!(system.mta.operator().read_route("nobody's name").is_err());
    system.send("<other@g.test>", "x@two.test").await;
    assert_eq!(system.next().await, "delivered");
    expected.push(("ann".to_owned(), "<other@g.test>".to_owned()));
    let mails = site.seen.mails.lock().unwrap().clone();
    assert_eq!(mails.into_iter().map(|(_, user, from)| (user, from)).collect::<Vec<_>>(), expected);
    system.end().await;
}
