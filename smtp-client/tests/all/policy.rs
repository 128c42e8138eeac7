//! The TLS decision: the table of what is known, and whole deliveries over real handshakes.

use postwright_core::{DnsError, Domain, MemoryZone, Outcome, SeededEntropy, Timestamp};
use postwright_smtp_client::dane::{Lookup, Matching, Selector, Tlsa, Usage};
use postwright_smtp_client::policy::{Facts, Level, Obstacle, Wishes, attempts, decide};
use postwright_smtp_client::route::{MailHost, Route, Rules, plan};
use postwright_smtp_client::sts::{Found, Policy};
use postwright_smtp_client::{Demand, Target, TlsFault};
use postwright_smtp_proto::client::StartTls;
use rustls_pki_types::CertificateDer;

use crate::peer::{HELLO, Issued, ONE, QUIT, Scripts, client, hosts, issue, options, transaction};

fn host(mx_secure: bool) -> MailHost {
    MailHost {
        name: "mx0.x.example".parse().unwrap(),
        canonical: None,
        addresses: vec!["192.0.2.1".parse().unwrap()],
        mx_secure,
        address_secure: mx_secure,
    }
}

fn usable() -> Lookup {
    let data = vec![0; 32].into();
    let record =
        Tlsa { usage: Usage::EndEntity, selector: Selector::PublicKey, matching: Matching::Sha256, data };
    Lookup::Usable { records: vec![record], base: "mx0.x.example".parse().unwrap() }
}

fn sts(mode: &str, mx: &str) -> Found {
    let text = format!("version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 86400\n");
    Found::Policy(Policy::parse(text.as_bytes()).unwrap())
}

/// One line for a decision: how much TLS, what of the certificate, who decided.
fn decided(
    level: Level,
    dane: &Lookup,
    sts: &Found,
    mx_secure: bool,
    require_tls: bool,
    tls_optional: bool,
) -> String {
    let domain: Domain = "x.example".parse().unwrap();
    let host = host(mx_secure);
    match decide(&Facts { domain: &domain, host: &host, level, dane, sts, require_tls, tls_optional }) {
        Err(obstacle) => format!("no: {obstacle:?}"),
        Ok(decision) => {
            let demand = match &decision.demand {
                Demand::Nothing => "any".to_owned(),
                Demand::Valid { .. } => "valid".to_owned(),
                Demand::Dane { names, .. } => format!("dane({})", names.join(",")),
                other => format!("{other:?}"),
            };
            assert_eq!(decision.may_fall_back(), decision.starttls == StartTls::Opportunistic);
            format!("{:?} {demand} {}", decision.starttls, decision.source)
        }
    }
}

#[test]
fn policies_come_in_their_order() {
    use Level::{Encrypted, Never, Opportunistic, Verified};
    let (enforce, testing) = (sts("enforce", "*.x.example"), sts("testing", "other.example"));
    let elsewhere = sts("enforce", "other.example");
    let unknown = Found::Unknown("store".into());
    let slow = Lookup::Deferred(DnsError::Timeout);
    let dane = "Required dane(mx0.x.example,x.example) dane";
    for (level, lookup, found, expected) in [
        (Opportunistic, &Lookup::None, &Found::None, "Opportunistic any opportunistic"),
        (Encrypted, &Lookup::None, &Found::None, "Required any configured"),
        (Verified, &Lookup::None, &Found::None, "Required valid configured"),
        (Never, &Lookup::None, &Found::None, "None any configured"),
        (Never, &usable(), &enforce, "None any configured"),
        (Opportunistic, &usable(), &Found::None, dane),
        (Opportunistic, &usable(), &enforce, dane),
        (Verified, &usable(), &elsewhere, dane),
        (Opportunistic, &slow, &enforce, "no: Dane(Timeout)"),
        (Opportunistic, &Lookup::Unusable, &Found::None, "Required any dane-unusable"),
        (Verified, &Lookup::Unusable, &Found::None, "Required valid configured"),
        (Opportunistic, &Lookup::Unusable, &enforce, "Required valid mta-sts"),
        (Opportunistic, &Lookup::None, &enforce, "Required valid mta-sts"),
        (Encrypted, &Lookup::None, &enforce, "Required valid mta-sts"),
        (Opportunistic, &Lookup::None, &elsewhere, "no: NotInPolicy"),
        (Opportunistic, &Lookup::None, &unknown, "no: Sts(\"store\")"),
        (Opportunistic, &Lookup::None, &testing, "Opportunistic any mta-sts-testing"),
        (Encrypted, &Lookup::None, &testing, "Required any configured"),
        (Verified, &Lookup::None, &testing, "Required valid configured"),
    ] {
        assert_eq!(
            decided(level, lookup, found, true, false, false),
            expected,
            "{level:?} {lookup:?} {found:?}"
        );
    }
}

#[test]
fn a_message_can_ask_for_more_or_less() {
    use Level::{Never, Opportunistic, Verified};
    let (enforce, testing) = (sts("enforce", "*.x.example"), sts("testing", "*.x.example"));
    // RFC 8689 4.2.1: REQUIRETLS.
    for (level, lookup, found, mx_secure, expected) in [
        (Opportunistic, &Lookup::None, &Found::None, true, "Required valid requiretls"),
        (Opportunistic, &Lookup::None, &Found::None, false, "no: RequireTls"),
        (Verified, &Lookup::None, &Found::None, false, "no: RequireTls"),
        (Opportunistic, &Lookup::None, &enforce, false, "Required valid mta-sts"),
        (Opportunistic, &Lookup::None, &testing, false, "no: RequireTls"),
        (Opportunistic, &usable(), &Found::None, true, "Required dane(mx0.x.example,x.example) dane"),
        (Opportunistic, &Lookup::Unusable, &Found::None, true, "Required valid requiretls"),
        (Never, &usable(), &Found::None, true, "no: TlsForbidden"),
    ] {
        assert_eq!(
            decided(level, lookup, found, mx_secure, true, false),
            expected,
            "{level:?} {lookup:?} {found:?}"
        );
    }
    // RFC 8689 5: TLS-Required: No.
    assert_eq!(decided(Verified, &usable(), &enforce, true, false, true), "Opportunistic any tls-optional");
    assert_eq!(
        decided(Verified, &usable(), &enforce, true, true, true),
        "Required dane(mx0.x.example,x.example) dane"
    );
    assert_eq!(Obstacle::RequireTls.status(Timestamp::from_secs(1)).outcome, Outcome::Failed);
    for later in [Obstacle::Dane(DnsError::Bogus), Obstacle::Sts("x".into()), Obstacle::NotInPolicy] {
        assert_eq!(later.status(Timestamp::from_secs(1)).outcome, Outcome::Delayed);
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// What DNS says besides MX and address: TLSA data that fits or does not, secure or not, or a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dns {
    Plain,
    EndEntity,
    EndEntityWrong,
    TrustAnchor,
    Insecure,
    Bogus,
    Timeout,
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

fn zone(dns: Dns, issued: &Issued) -> MemoryZone {
    let tlsa = match dns {
        Dns::Plain => String::new(),
        Dns::EndEntity | Dns::Insecure => format!("TLSA 3 0 0 {}", hex(&issued.leaf)),
        Dns::EndEntityWrong => format!("TLSA 3 0 1 {}", hex(&[7; 32])),
        Dns::TrustAnchor => format!("TLSA 2 0 0 {}", hex(&issued.root)),
        Dns::Bogus => "BOGUS".to_owned(),
        Dns::Timeout => "TIMEOUT".to_owned(),
    };
    let mut text = "x.example. MX 10 mx0.x.example.\nmx0.x.example. A 192.0.2.1\n".to_owned();
    if !tlsa.is_empty() {
        text.push_str(&format!("_25._tcp.mx0.x.example. {tlsa}\n"));
    }
    if dns != Dns::Insecure {
        text.push_str("$SECURE x.example.\n");
    }
    MemoryZone::parse(&text).unwrap()
}

const OFFER: &str =
    "S: 220 mx\nC: EHLO client.example\nS: 250-mx\nS: 250-PIPELINING\nS: 250 STARTTLS\nC: STARTTLS\n";

fn scripts(server: Server, issued: &Issued) -> std::sync::Arc<Scripts> {
    let clear = format!("{HELLO}{ONE}{QUIT}");
    let secure =
        format!("{OFFER}S: 220 go\nTLS\nC: EHLO client.example\nS: 250-mx\nS: 250 PIPELINING\n{ONE}{QUIT}");
    let first = match server {
        Server::NoTls => clear.clone(),
        Server::Refuses => format!("{OFFER}S: 454 4.7.0 not now\n{ONE}{QUIT}"),
        Server::BreaksHandshake => format!("{OFFER}S: 220 go\nCLOSE"),
        _ => secure,
    };
    // A second connection, if it comes to that, is the fallback: the same server, asked without STARTTLS.
    let fallback = clear.replace("S: 250 PIPELINING\n", "S: 250-PIPELINING\nS: 250 STARTTLS\n");
    Scripts::new(&[Some(&first), Some(&fallback)], Some(issued.acceptor.clone()))
}

/// Routes, decides and delivers; tells the outcome, whether TLS was used and verified, and what decided.
async fn deliver(server: Server, dns: Dns, level: Level, found: &Found) -> String {
    let names: &[&str] = if server == Server::WrongName { &["wrong.example"] } else { &["mx0.x.example"] };
    let issued = issue(names, server == Server::Expired);
    let zone = zone(dns, &issued);
    let domain: Domain = "x.example".parse().unwrap();
    let route = plan(&domain.clone().into(), &zone, &SeededEntropy::new(1), &Rules::default()).await;
    let Route::Hosts(mail_hosts) = route else { panic!("{route:?}") };
    let wishes = Wishes { level, ..Wishes::default() };
    let (attempts, left_out) = attempts(&domain, &mail_hosts, 25, wishes, &options(), found, &zone).await;
    if let Some((_, obstacle)) = left_out.first() {
        return format!("later: {obstacle:?}");
    }
    let roots: Vec<CertificateDer<'static>> =
        if server == Server::SelfSigned { Vec::new() } else { vec![issued.root.clone()] };
    let scripts = scripts(server, &issued);
    let (report, _) = client(&scripts, roots).deliver_each(&attempts, transaction()).await;
    let status = &report.statuses[0];
    let tls = status.remote.as_ref().and_then(|remote| remote.tls.as_ref());
    let tls = match (status.outcome, tls) {
        (Outcome::Delivered, None) => "clear",
        (Outcome::Delivered, Some(tls)) if tls.verified => "verified",
        (Outcome::Delivered, Some(_)) => "unverified",
        _ => return format!("later: {}", status.status),
    };
    tls.to_owned()
}

#[tokio::test(start_paused = true)]
async fn every_server_meets_every_policy() {
    use Level::{Encrypted, Opportunistic, Verified};
    use Server::*;
    let none = Found::None;
    let enforce = sts("enforce", "*.x.example");
    let other = sts("enforce", "other.example");
    let testing = sts("testing", "other.example");
    // Columns: opportunistic, encrypted, verified, MTA-STS enforce, MTA-STS testing.
    for (server, expected) in [
        (NoTls, ["clear", "later: 4.7.4", "later: 4.7.4", "later: 4.7.4", "clear"]),
        (Refuses, ["clear", "later: 4.7.4", "later: 4.7.4", "later: 4.7.4", "clear"]),
        (BreaksHandshake, ["clear", "later: 4.7.5", "later: 4.7.5", "later: 4.7.5", "clear"]),
        (Expired, ["unverified", "unverified", "later: 4.7.5", "later: 4.7.5", "unverified"]),
        (WrongName, ["unverified", "unverified", "later: 4.7.5", "later: 4.7.5", "unverified"]),
        (SelfSigned, ["unverified", "unverified", "later: 4.7.5", "later: 4.7.5", "unverified"]),
        (Valid, ["verified", "verified", "verified", "verified", "verified"]),
    ] {
        let columns = [
            (Opportunistic, &none),
            (Encrypted, &none),
            (Verified, &none),
            (Opportunistic, &enforce),
            (Opportunistic, &testing),
        ];
        for ((level, found), expected) in columns.into_iter().zip(expected) {
            let seen = deliver(server, Dns::Plain, level, found).await;
            assert_eq!(seen, expected, "{server:?} {level:?} {found:?}");
        }
    }
    assert_eq!(deliver(Valid, Dns::Plain, Opportunistic, &other).await, "later: NotInPolicy");
    // DANE: names and dates do not matter to DANE-EE; DANE-TA checks both (RFC 7672 3.1, 3.2).
    for (server, dns, expected) in [
        (Valid, Dns::EndEntity, "verified"),
        (SelfSigned, Dns::EndEntity, "verified"),
        (Expired, Dns::EndEntity, "verified"),
        (WrongName, Dns::EndEntity, "verified"),
        (Valid, Dns::EndEntityWrong, "later: 4.7.5"),
        (NoTls, Dns::EndEntity, "later: 4.7.4"),
        (Refuses, Dns::EndEntity, "later: 4.7.4"),
        (BreaksHandshake, Dns::EndEntity, "later: 4.7.5"),
        (SelfSigned, Dns::TrustAnchor, "verified"),
        (WrongName, Dns::TrustAnchor, "later: 4.7.5"),
        (Expired, Dns::TrustAnchor, "later: 4.7.5"),
        (SelfSigned, Dns::Insecure, "unverified"),
        (NoTls, Dns::Insecure, "clear"),
        (Valid, Dns::Bogus, "later: Dane(Bogus)"),
        (Valid, Dns::Timeout, "later: Dane(Timeout)"),
    ] {
        assert_eq!(deliver(server, dns, Opportunistic, &none).await, expected, "{server:?} {dns:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_fault_of_a_handshake_is_told_apart() {
    for (names, expired, known, demand, fault) in [
        (["mx0.x.example"], true, true, Demand::Valid { names: Vec::new() }, TlsFault::Expired),
        (["wrong.example"], false, true, Demand::Valid { names: Vec::new() }, TlsFault::WrongName),
        (["mx0.x.example"], false, false, Demand::Valid { names: Vec::new() }, TlsFault::NotTrusted),
        (
            ["mx0.x.example"],
            false,
            true,
            Demand::Dane { records: Vec::new(), names: vec!["mx0.x.example".into()] },
            TlsFault::Dane,
        ),
    ] {
        let issued = issue(&names, expired);
        let scripts = Scripts::new(&[Some(&format!("{OFFER}S: 220 go\nTLS"))], Some(issued.acceptor));
        let roots = if known { vec![issued.root] } else { Vec::new() };
        let mut options = options();
        options.demand = demand;
        let target: &Target = &hosts(1)[0];
        let error = client(&scripts, roots).connect(target, &options).await.unwrap_err();
        assert_eq!(error.tls, Some(fault), "{error}");
    }
}
