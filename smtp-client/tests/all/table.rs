//! The table: every kind of server under every policy, with DNSSEC from marks and again from signatures. For each
//! row what becomes of the message and what is reported to the recipients' domain.
//!
//! Expected fates are those of RFC 7435 (no policy), RFC 7672 2.2 and 3 (DANE), RFC 8461 4.2 and 5 (MTA-STS; 5.1 for what
//! is cached) and RFC 8689 4.2.1 (REQUIRETLS); status codes are 4.7.4 where there is no TLS and 4.7.5 where it is not
//! good enough (RFC 7672 2.2 and RFC 8461 4.2 want a delay); reports have the words of RFC 8460 4.2 and 4.3. "STARTTLS stripped"
//! and "no TLS" are one server: nobody can tell an EHLO without the keyword from one whose keyword was cut out.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright_core::{
    BoxFuture, DeliveryStatus, Domain, MemoryZone, Outcome, Resolver, SeededEntropy, Timestamp,
};
use postwright_smtp_client::policy::{Attempt, Level, Wishes, attempts};
use postwright_smtp_client::route::{Route, Rules, plan};
use postwright_smtp_client::sts::{
    Fetch, FetchError, Fetched, Found, Kept, MemoryStore, Policy, Store, find,
};
use postwright_smtp_client::tlsrpt::Seen;
use postwright_smtp_client::{ConnectError, Connection, Watch};
use rustls_pki_types::CertificateDer;

use crate::peer::{HELLO, Issued, ONE, QUIT, Scripts, client, issue, options, transaction};
use crate::policy::OFFER;
use crate::signed;

/// What DNS says of the host's TLSA record, besides secure MX and addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dns {
    Plain,
    EndEntity,
    EndEntityWrong,
    TrustAnchor,
    Unusable,
    Insecure,
    Bogus,
    Timeout,
    /// The same as `EndEntityWrong`, and nobody answers for the host's IPv6 addresses.
    HalfAnAddress,
    /// The same as `EndEntityWrong`, and the host is an alias into a zone that is not signed.
    AliasOut,
}

impl Dns {
    /// The data of the TLSA record, if there is one.
    pub(crate) fn tlsa(self, issued: &Issued) -> Option<String> {
        let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        match self {
            Dns::EndEntity | Dns::Insecure => Some(format!("TLSA 3 0 0 {}", hex(&issued.leaf))),
            Dns::EndEntityWrong | Dns::HalfAnAddress | Dns::AliasOut => {
                Some(format!("TLSA 3 0 1 {}", hex(&[7; 32])))
            }
            Dns::TrustAnchor => Some(format!("TLSA 2 0 0 {}", hex(&issued.root))),
            Dns::Unusable => Some(format!("TLSA 1 0 1 {}", hex(&[7; 32]))),
            Dns::Plain | Dns::Bogus | Dns::Timeout => None,
        }
    }
}

/// What MTA-STS says: by TXT record, web server and cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sts {
    Absent,
    Enforce,
    EnforceOther,
    Testing,
    TestingOther,
    ModeNone,
    /// A policy is kept in mode enforce; DNS announces another one, and the web server is down.
    CachedAndUnreachable,
    /// Nothing is kept, DNS announces one, and the web server is down.
    Unreachable,
}

/// The server's side of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    NoTls,
    Refuses,
    BreaksHandshake,
    Expired,
    WrongName,
    SelfSigned,
    Valid,
}

/// One cell of the table.
#[derive(Debug, Clone, Copy)]
struct Cell {
    server: Server,
    dns: Dns,
    sts: Sts,
    level: Level,
    require_tls: bool,
}

const BASE: Cell = Cell {
    server: Server::Valid,
    dns: Dns::Plain,
    sts: Sts::Absent,
    level: Level::Opportunistic,
    require_tls: false,
};

fn memory(cell: Cell, issued: &Issued) -> MemoryZone {
    let mut text = "x.example. MX 10 mx0.x.example.\n".to_owned();
    text.push_str(match cell.dns {
        Dns::HalfAnAddress => "mx0.x.example. A 192.0.2.1\nmx0.x.example. AAAA TIMEOUT\n",
        Dns::AliasOut => "mx0.x.example. CNAME host.plain.\nhost.plain. A 192.0.2.1\n",
        _ => "mx0.x.example. A 192.0.2.1\n",
    });
    let tlsa = match cell.dns {
        Dns::Bogus => Some("BOGUS".to_owned()),
        Dns::Timeout => Some("TIMEOUT".to_owned()),
        // An alias into a zone that is not signed.
        Dns::Insecure => {
            text.push_str(&format!("tlsa.plain. {}\n", cell.dns.tlsa(issued).unwrap()));
            Some("CNAME tlsa.plain.".to_owned())
        }
        _ => cell.dns.tlsa(issued),
    };
    if let Some(tlsa) = tlsa {
        text.push_str(&format!("_25._tcp.mx0.x.example. {tlsa}\n"));
    }
    if cell.sts != Sts::Absent {
        text.push_str("_mta-sts.x.example. TXT \"v=STSv1; id=2\"\n");
    }
    text.push_str("$SECURE x.example.\n");
    MemoryZone::parse(&text).unwrap()
}

/// The domain's web server.
struct Web(Option<String>);

impl Fetch for Web {
    fn get<'a>(&'a self, _: &'a str, _: usize, _: Duration) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        let answer = self.0.clone().ok_or_else(|| FetchError::Failed("connection refused".into()));
        let answer =
            answer.map(|text| Fetched { status: 200, content_type: "text/plain".into(), body: text.into() });
        Box::pin(async { answer })
    }
}

fn policy(mode: &str, mx: &str) -> String {
    format!("version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 86400\n")
}

async fn found(sts: Sts, resolver: &dyn Resolver, reports: &Mutex<Vec<Seen>>) -> Found {
    let domain: Domain = "x.example".parse().unwrap();
    let (store, now) = (MemoryStore::default(), Timestamp::from_secs(1_800_000_000));
    if sts == Sts::CachedAndUnreachable {
        let policy = Policy::parse(policy("enforce", "*.x.example").as_bytes()).unwrap();
        store.save(&domain, &Kept { policy, id: "1".into(), at: now }).await.unwrap();
    }
    let text = match sts {
        Sts::Enforce => Some(policy("enforce", "*.x.example")),
        Sts::EnforceOther => Some(policy("enforce", "other.example")),
        Sts::Testing => Some(policy("testing", "*.x.example")),
        Sts::TestingOther => Some(policy("testing", "other.example")),
        Sts::ModeNone => Some(policy("none", "*.x.example")),
        Sts::Absent | Sts::CachedAndUnreachable | Sts::Unreachable => None,
    };
    let finding = find(&domain, resolver, &Web(text), &store, now).await;
    reports.lock().unwrap().extend(finding.trouble.map(|trouble| Seen::of_trouble(&domain, &trouble)));
    finding.found
}

fn scripts(cell: Cell, issued: &Issued) -> Arc<Scripts> {
    let clear = format!("{HELLO}{ONE}{QUIT}");
    let keyword = if cell.require_tls { "S: 250-REQUIRETLS\n" } else { "" };
    let one = match cell.require_tls {
        true => ONE.replace("MAIL FROM:<a@client.example>", "MAIL FROM:<a@client.example> REQUIRETLS"),
        false => ONE.to_owned(),
    };
    let ehlo = format!("C: EHLO client.example\nS: 250-mx\n{keyword}S: 250 PIPELINING\n");
    let first = match cell.server {
        Server::NoTls => clear.clone(),
        Server::Refuses => format!("{OFFER}S: 454 4.7.0 not now\n{ONE}{QUIT}"),
        Server::BreaksHandshake => format!("{OFFER}S: 220 go\nCLOSE"),
        _ => format!("{OFFER}S: 220 go\nTLS\n{ehlo}{one}{QUIT}"),
    };
    // A second connection, if it comes to that, is the fallback: the same server, asked without STARTTLS.
    let fallback = clear.replace("S: 250 PIPELINING\n", "S: 250-PIPELINING\nS: 250 STARTTLS\n");
    Scripts::new(&[Some(&first), Some(&fallback)], Some(issued.acceptor.clone()))
}

/// Collects what would be reported.
struct Reports<'a> {
    domain: Domain,
    sts: &'a Found,
    seen: &'a Mutex<Vec<Seen>>,
}

impl Watch for Reports<'_> {
    fn tried(&self, attempt: &Attempt, outcome: Result<&Connection, &ConnectError>) {
        let seen = Seen::of_session(&self.domain, attempt, self.sts, outcome);
        self.seen.lock().unwrap().extend(seen);
    }
}

/// Routes, decides and delivers; `FATE | REPORT`, where a report is policy type, policy domain and result.
async fn play(cell: Cell, issued: &Issued, dns: &dyn Resolver) -> String {
    let domain: Domain = "x.example".parse().unwrap();
    let reports = Mutex::default();
    let found = found(cell.sts, dns, &reports).await;
    let route = plan(&domain.clone().into(), dns, &SeededEntropy::new(1), &Rules::default()).await;
    let Route::Hosts(hosts) = route else { panic!("{route:?}") };
    let wishes = Wishes { level: cell.level, require_tls: cell.require_tls, ..Wishes::default() };
    let (attempts, left_out) = attempts(&domain, &hosts, 25, wishes, &options(), &found, dns).await;
    let status = if let Some((host, obstacle)) = left_out.first() {
        reports.lock().unwrap().extend(Seen::of_obstacle(&domain, host, obstacle, &found));
        obstacle.status(Timestamp::from_secs(1))
    } else {
        let roots: Vec<CertificateDer<'static>> =
            if cell.server == Server::SelfSigned { Vec::new() } else { vec![issued.root.clone()] };
        let mut transaction = transaction();
        transaction.envelope.options.require_tls = cell.require_tls;
        let watch = Reports { domain, sts: &found, seen: &reports };
        let client = client(&scripts(cell, issued), roots);
        client.deliver_timed(&attempts, transaction, Some(&watch)).await.report.statuses.remove(0)
    };
    let reports: Vec<String> = reports.into_inner().unwrap().iter().map(line).collect();
    format!("{} | {}", fate(&status), reports.join(", "))
}

fn fate(status: &DeliveryStatus) -> String {
    let tls = status.remote.as_ref().and_then(|remote| remote.tls.as_ref());
    match (status.outcome, tls) {
        (Outcome::Delivered, None) => "deliver clear".to_owned(),
        (Outcome::Delivered, Some(tls)) if tls.verified => "deliver verified".to_owned(),
        (Outcome::Delivered, Some(_)) => "deliver encrypted".to_owned(),
        (Outcome::Failed, _) => format!("bounce {}", status.status),
        _ => format!("defer {}", status.status),
    }
}

fn line(seen: &Seen) -> String {
    assert_eq!(seen.domain.as_str(), "x.example");
    let word = |value: serde_json::Value| value.as_str().unwrap().to_owned();
    let kind = word(serde_json::to_value(&seen.policy.policy_type).unwrap());
    let result = seen.failure.as_ref().map(|failure| word(serde_json::to_value(failure).unwrap()));
    format!("{kind} {} {}", seen.policy.policy_domain, result.unwrap_or_else(|| "ok".to_owned()))
}

fn certificate(server: Server) -> Issued {
    let names: &[&str] = if server == Server::WrongName { &["wrong.example"] } else { &["mx0.x.example"] };
    issue(names, server == Server::Expired)
}

async fn in_memory(cell: Cell) -> String {
    let issued = certificate(cell.server);
    play(cell, &issued, &memory(cell, &issued)).await
}

#[tokio::test(start_paused = true)]
async fn every_server_meets_every_policy() {
    use Level::{Encrypted, Opportunistic, Verified};
    use Server::*;
    const STRIPPED: &str = "starttls-not-supported";
    // The server; what is demanded of it goes wrong so; without a demand, the mail goes so.
    for (server, deferred, fault, lenient) in [
        (NoTls, "defer 4.7.4", STRIPPED, "deliver clear"),
        (Refuses, "defer 4.7.4", STRIPPED, "deliver clear"),
        (BreaksHandshake, "defer 4.7.5", "validation-failure", "deliver clear"),
        (Expired, "defer 4.7.5", "certificate-expired", "deliver encrypted"),
        (WrongName, "defer 4.7.5", "certificate-host-mismatch", "deliver encrypted"),
        (SelfSigned, "defer 4.7.5", "certificate-not-trusted", "deliver encrypted"),
        (Valid, "deliver verified", "ok", "deliver verified"),
    ] {
        let cell = Cell { server, ..BASE };
        let has_tls = lenient != "deliver clear";
        // Without a policy nobody minds the certificate; that there is no TLS is told all the same.
        let nobodys = if has_tls { "ok" } else { fault };
        let encrypted = if has_tls { lenient } else { deferred };
        for (cell, expected) in [
            (cell, format!("{lenient} | no-policy-found x.example {nobodys}")),
            (Cell { level: Encrypted, ..cell }, format!("{encrypted} | no-policy-found x.example {nobodys}")),
            (Cell { level: Verified, ..cell }, format!("{deferred} | no-policy-found x.example {fault}")),
            (Cell { sts: Sts::Enforce, ..cell }, format!("{deferred} | sts x.example {fault}")),
            (Cell { sts: Sts::Testing, ..cell }, format!("{lenient} | sts x.example {fault}")),
            (Cell { sts: Sts::ModeNone, ..cell }, format!("{lenient} | no-policy-found x.example {nobodys}")),
            (Cell { require_tls: true, ..cell }, format!("{deferred} | no-policy-found x.example {fault}")),
            (
                Cell { sts: Sts::CachedAndUnreachable, ..cell },
                format!("{deferred} | sts x.example sts-policy-fetch-error, sts x.example {fault}"),
            ),
            (
                Cell { sts: Sts::Unreachable, ..cell },
                format!(
                    "{lenient} | sts x.example sts-policy-fetch-error, no-policy-found x.example {nobodys}"
                ),
            ),
        ] {
            assert_eq!(in_memory(cell).await, expected, "{cell:?}");
        }
        let cell = Cell { level: Opportunistic, sts: Sts::EnforceOther, ..cell };
        assert_eq!(in_memory(cell).await, "defer 4.7.5 | sts x.example validation-failure", "{cell:?}");
        // What would have been refused is told although it was delivered.
        let cell = Cell { sts: Sts::TestingOther, ..cell };
        let mismatch = if has_tls { "validation-failure" } else { fault };
        assert_eq!(in_memory(cell).await, format!("{lenient} | sts x.example {mismatch}"), "{cell:?}");
    }
}

/// The rows about DNSSEC: names and dates do not matter to DANE-EE; DANE-TA checks both (RFC 7672 3.1, 3.2).
const DANE: [(Server, Dns, &str); 22] = {
    use Server::*;
    [
        (Valid, Dns::EndEntity, "deliver verified | tlsa mx0.x.example ok"),
        (SelfSigned, Dns::EndEntity, "deliver verified | tlsa mx0.x.example ok"),
        (Expired, Dns::EndEntity, "deliver verified | tlsa mx0.x.example ok"),
        (WrongName, Dns::EndEntity, "deliver verified | tlsa mx0.x.example ok"),
        (Valid, Dns::EndEntityWrong, "defer 4.7.5 | tlsa mx0.x.example validation-failure"),
        (NoTls, Dns::EndEntity, "defer 4.7.4 | tlsa mx0.x.example starttls-not-supported"),
        (Refuses, Dns::EndEntity, "defer 4.7.4 | tlsa mx0.x.example starttls-not-supported"),
        (BreaksHandshake, Dns::EndEntity, "defer 4.7.5 | tlsa mx0.x.example validation-failure"),
        (SelfSigned, Dns::TrustAnchor, "deliver verified | tlsa mx0.x.example ok"),
        // RFC 8460 4.3.1 has words for these two, whichever policy asks for them.
        (WrongName, Dns::TrustAnchor, "defer 4.7.5 | tlsa mx0.x.example certificate-host-mismatch"),
        (Expired, Dns::TrustAnchor, "defer 4.7.5 | tlsa mx0.x.example certificate-expired"),
        (SelfSigned, Dns::Unusable, "deliver encrypted | tlsa mx0.x.example tlsa-invalid"),
        (NoTls, Dns::Unusable, "defer 4.7.4 | tlsa mx0.x.example starttls-not-supported"),
        (SelfSigned, Dns::Insecure, "deliver encrypted | no-policy-found x.example ok"),
        (NoTls, Dns::Insecure, "deliver clear | no-policy-found x.example starttls-not-supported"),
        (Valid, Dns::Bogus, "defer 4.7.5 | tlsa mx0.x.example dnssec-invalid"),
        (NoTls, Dns::Bogus, "defer 4.7.5 | tlsa mx0.x.example dnssec-invalid"),
        (Valid, Dns::Timeout, "defer 4.7.5 | tlsa mx0.x.example dnssec-invalid"),
        // RFC 7672 2.1.2: what is kept from us takes no protection away.
        (Valid, Dns::HalfAnAddress, "defer 4.7.5 | tlsa mx0.x.example validation-failure"),
        (NoTls, Dns::HalfAnAddress, "defer 4.7.4 | tlsa mx0.x.example starttls-not-supported"),
        // RFC 7672 2.2.2: the alias itself is signed, and so are the records at its name.
        (Valid, Dns::AliasOut, "defer 4.7.5 | tlsa mx0.x.example validation-failure"),
        (NoTls, Dns::AliasOut, "defer 4.7.4 | tlsa mx0.x.example starttls-not-supported"),
    ]
};

#[tokio::test(start_paused = true)]
async fn dane_from_marked_answers() {
    for (server, dns, expected) in DANE {
        let cell = Cell { server, dns, ..BASE };
        assert_eq!(in_memory(cell).await, expected, "{cell:?}");
        if matches!(dns, Dns::Unusable | Dns::Insecure) {
            continue;
        }
        // RFC 8461 2: where DANE binds the host, or may bind it, MTA-STS changes nothing, whatever it says; nor does what
        // an operator asks for, nor REQUIRETLS (RFC 8689 4.2.1 takes DANE for an answer).
        for cell in [
            Cell { sts: Sts::Enforce, ..cell },
            Cell { sts: Sts::EnforceOther, ..cell },
            Cell { sts: Sts::TestingOther, ..cell },
            Cell { sts: Sts::ModeNone, ..cell },
            Cell { level: Level::Encrypted, ..cell },
            Cell { level: Level::Verified, ..cell },
            Cell { require_tls: true, ..cell },
        ] {
            assert_eq!(in_memory(cell).await, expected, "{cell:?}");
        }
    }
}

/// Where records do not bind the host, what else there is decides (RFC 7672 2.2, RFC 8461 2).
#[tokio::test(start_paused = true)]
async fn records_that_bind_nobody_leave_it_to_the_next_policy() {
    use Level::{Encrypted, Verified};
    use Server::{NoTls, SelfSigned, Valid};
    const UNTRUSTED: &str = "certificate-not-trusted";
    let base = |server, dns| Cell { server, dns, ..BASE };
    for (cell, expected) in [
        // Unusable records ask for TLS, and that is all.
        (
            Cell { level: Encrypted, ..base(SelfSigned, Dns::Unusable) },
            "deliver encrypted | tlsa mx0.x.example tlsa-invalid".to_owned(),
        ),
        (
            Cell { level: Verified, ..base(SelfSigned, Dns::Unusable) },
            format!("defer 4.7.5 | no-policy-found x.example {UNTRUSTED}"),
        ),
        (
            Cell { level: Verified, ..base(Valid, Dns::Unusable) },
            "deliver verified | no-policy-found x.example ok".to_owned(),
        ),
        (
            Cell { sts: Sts::Enforce, ..base(SelfSigned, Dns::Unusable) },
            format!("defer 4.7.5 | sts x.example {UNTRUSTED}"),
        ),
        (
            Cell { sts: Sts::Enforce, ..base(Valid, Dns::Unusable) },
            "deliver verified | sts x.example ok".to_owned(),
        ),
        (
            Cell { sts: Sts::EnforceOther, ..base(Valid, Dns::Unusable) },
            "defer 4.7.5 | sts x.example validation-failure".to_owned(),
        ),
        (
            Cell { sts: Sts::Testing, ..base(NoTls, Dns::Unusable) },
            "defer 4.7.4 | tlsa mx0.x.example starttls-not-supported".to_owned(),
        ),
        (
            Cell { require_tls: true, ..base(Valid, Dns::Unusable) },
            "deliver verified | no-policy-found x.example ok".to_owned(),
        ),
        // Insecure ones ask for nothing.
        (
            Cell { level: Encrypted, ..base(SelfSigned, Dns::Insecure) },
            "deliver encrypted | no-policy-found x.example ok".to_owned(),
        ),
        (
            Cell { level: Verified, ..base(SelfSigned, Dns::Insecure) },
            format!("defer 4.7.5 | no-policy-found x.example {UNTRUSTED}"),
        ),
        (
            Cell { sts: Sts::Enforce, ..base(SelfSigned, Dns::Insecure) },
            format!("defer 4.7.5 | sts x.example {UNTRUSTED}"),
        ),
        (
            Cell { sts: Sts::Enforce, ..base(Valid, Dns::Insecure) },
            "deliver verified | sts x.example ok".to_owned(),
        ),
        (
            Cell { sts: Sts::Testing, ..base(NoTls, Dns::Insecure) },
            "deliver clear | sts x.example starttls-not-supported".to_owned(),
        ),
        (
            Cell { require_tls: true, ..base(Valid, Dns::Insecure) },
            "deliver verified | no-policy-found x.example ok".to_owned(),
        ),
    ] {
        assert_eq!(in_memory(cell).await, expected, "{cell:?}");
    }
}

#[tokio::test]
async fn dane_from_signed_zones() {
    for (server, dns, expected) in DANE {
        let issued = certificate(server);
        let zones = signed::serve(dns, &issued).await;
        let seen = play(Cell { server, dns, ..BASE }, &issued, &zones.resolver).await;
        assert_eq!(seen, expected, "{server:?} {dns:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_requires_tls_bounces_where_nobody_can_keep_it_safe() {
    // The host's own server says nothing of REQUIRETLS (RFC 8689 4.2.1).
    let issued = certificate(Server::Valid);
    let cell = Cell { require_tls: true, ..BASE };
    let zone = memory(cell, &issued);
    let domain: Domain = "x.example".parse().unwrap();
    let Route::Hosts(hosts) =
        plan(&domain.clone().into(), &zone, &SeededEntropy::new(1), &Rules::default()).await
    else {
        panic!("no hosts")
    };
    let wishes = Wishes { require_tls: true, ..Wishes::default() };
    let (attempts, _) = attempts(&domain, &hosts, 25, wishes, &options(), &Found::None, &zone).await;
    let scripts = scripts(BASE, &issued);
    let mut transaction = transaction();
    transaction.envelope.options.require_tls = true;
    let (report, _) = client(&scripts, vec![issued.root.clone()]).deliver_each(&attempts, transaction).await;
    assert_eq!(fate(&report.statuses[0]), "bounce 5.7.30");
    assert!(!scripts.log().iter().any(|heard| heard.contains("Subject")), "it was sent: {:?}", scripts.log());
}
