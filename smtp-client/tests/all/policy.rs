//! The TLS decision as a pure function, and how the faults of a handshake are told apart. Whole deliveries are in
//! table.rs.

use postwright_core::{DnsError, Domain, MemoryZone, Outcome, SeededEntropy, Timestamp};
use postwright_smtp_client::dane::{Lookup, Matching, Selector, Tlsa, Usage};
use postwright_smtp_client::policy::{Facts, Level, Obstacle, Wishes, attempts, decide};
use postwright_smtp_client::route::{MailHost, Route, Rules, plan};
use postwright_smtp_client::sts::{Found, Policy};
use postwright_smtp_client::{Demand, Target, TlsFault};
use postwright_smtp_proto::client::{Config, StartTls};

use crate::peer::{ONE, QUIT, Scripts, client, hosts, issue, options, shown, transaction};

fn host(mx_secure: bool) -> MailHost {
    MailHost {
        name: "mx0.x.example".parse().unwrap(),
        canonical: None,
        expanded: None,
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

pub(crate) const OFFER: &str =
    "S: 220 mx\nC: EHLO client.example\nS: 250-mx\nS: 250-PIPELINING\nS: 250 STARTTLS\nC: STARTTLS\n";

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

#[tokio::test(start_paused = true)]
async fn another_host_is_asked_for_an_extension_that_the_first_one_lacks() {
    let issued = issue(&["mx0.x.example", "mx1.x.example"], false);
    let session = |keyword: &str| {
        format!("{OFFER}S: 220 go\nTLS\nC: EHLO client.example\nS: 250-mx\n{keyword}S: 250 PIPELINING\n")
    };
    let (without, with) = (session(""), session("S: 250-REQUIRETLS\n"));
    let one = ONE.replace("<a@client.example>", "<a@client.example> REQUIRETLS");
    let mut options = options();
    options.demand = Demand::Valid { names: Vec::new() };
    let mut session = Config::clone(&options.session);
    session.starttls = StartTls::Required;
    options.session = session.into();
    // RFC 8689 4.2.1: QUIT, and the next host; only if no one has it does the message fail.
    for (second, expected, bodies) in [
        (format!("{with}{one}{QUIT}"), "Delivered 2.0.0 end-of-data", 1),
        (format!("{without}{QUIT}"), "Failed 5.7.30 mail", 0),
        ("S: 421 4.3.2 busy".to_owned(), "Delayed 4.3.2 greeting", 0),
    ] {
        let first = format!("{without}{QUIT}");
        let scripts = Scripts::new(&[Some(&first), Some(&second)], Some(issued.acceptor.clone()));
        let mut message = transaction();
        message.envelope.options.require_tls = true;
        let client = client(&scripts, vec![issued.root.clone()]);
        let report = client.deliver(&hosts(2), &options, message).await;
        assert_eq!((shown(&report), scripts.left()), (vec![expected.to_owned()], 0));
        assert_eq!(scripts.log().len(), bodies, "{:?}", scripts.log());
    }
}

#[tokio::test]
async fn under_dane_a_certificate_may_be_for_any_name_on_the_way() {
    // RFC 7672 3.2.2: the TLSA base domain, the host's own name, and the domain before and behind its aliases.
    let zone = "$SECURE example.\nx.example. CNAME y.example.\ny.example. MX 10 mx.example.\n\
                mx.example. CNAME host.example.\nhost.example. A 192.0.2.1\n\
                _25._tcp.host.example. TLSA 2 0 1 0000000000000000000000000000000000000000000000000000000000000000\n";
    let zone = MemoryZone::parse(zone).unwrap();
    let domain: Domain = "x.example".parse().unwrap();
    let route = plan(&domain.clone().into(), &zone, &SeededEntropy::new(1), &Rules::default()).await;
    let Route::Hosts(hosts) = route else { panic!("{route:?}") };
    let (attempts, _) =
        attempts(&domain, &hosts, 25, Wishes::default(), &options(), &Found::None, &zone).await;
    let Demand::Dane { names, .. } = &attempts[0].decision.demand else { panic!("{attempts:?}") };
    let names: Vec<&str> = names.iter().map(|name| name.trim_end_matches('.')).collect();
    assert_eq!(names, ["host.example", "mx.example", "x.example", "y.example"]);
}
