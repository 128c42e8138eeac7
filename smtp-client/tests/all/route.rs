//! Routing: each case is a zone, a domain and what RFC 5321 5.1 or RFC 7505 makes of them.

use std::collections::BTreeSet;

use postwright_core::{DnsError, Host, MemoryZone, Outcome, SeededEntropy, Timestamp};
use postwright_smtp_client::route::{Family, Route, Rules, is_private, plan, plan_host};

const ZONE: &str = "
$ORIGIN example.
plain      MX 20 b.plain
plain      MX 10 a.plain
a.plain    A 192.0.2.1
b.plain    A 192.0.2.2
implicit   A 192.0.2.3
v6         MX 10 h.v6
h.v6       AAAA 2001:db8::1
null       MX 0 .
mixed      MX 0 .
mixed      MX 10 a.plain
bare       TXT nothing
nohost     MX 10 gone.nohost
nohost     MX 20 h2.nohost
h2.nohost  TXT nothing
slowmx     MX TIMEOUT
slowmx     A 192.0.2.4
fail       SERVFAIL
bogus      BOGUS
halfslow   MX 10 h.halfslow
halfslow   MX 20 b.plain
h.halfslow SERVFAIL
allslow    MX 10 gone.nohost
allslow    MX 20 h.halfslow
noimplicit A SERVFAIL
alias      CNAME plain
cnamed     MX 10 www.cnamed
www.cnamed CNAME a.plain
odd        MX 10 _mx.odd
_mx.odd    A 192.0.2.9
self       MX 10 a.plain
self       MX 20 us
self       MX 20 b.plain
self       MX 30 h.v6
us         A 192.0.2.99
onlyus     MX 10 us
private    MX 10 h.private
h.private  A 10.1.2.3
h.private  A 127.0.0.1
half6      MX 10 h.half6
h.half6    A 192.0.2.5
h.half6    AAAA TIMEOUT
many       MX 10 m
m          A 192.0.2.10
m          A 192.0.2.11
m          A 192.0.2.12
m          AAAA 2001:db8::10
m          AAAA 2001:db8::11
$SECURE signed.example.
signed     MX 10 mx.signed
mx.signed  A 192.0.2.20
equal      MX 10 a.plain
equal      MX 10 b.plain
equal      MX 10 mx.signed
";

fn rules() -> Rules {
    let mut rules = Rules::default();
    rules.own_names = vec!["us.example".parse().unwrap()];
    rules
}

async fn route(domain: &str, rules: &Rules, seed: u64) -> Route {
    let zone = MemoryZone::parse(ZONE).unwrap();
    let host: Host = domain.parse().unwrap();
    plan(&host, &zone, &SeededEntropy::new(seed), rules).await
}

fn shown(route: &Route) -> String {
    match route {
        Route::Hosts(hosts) => {
            let host = |host: &postwright_smtp_client::MailHost| {
                let addresses: Vec<String> = host.addresses.iter().map(ToString::to_string).collect();
                format!("{}={}", host.name, addresses.join("/"))
            };
            hosts.iter().map(host).collect::<Vec<_>>().join(" ")
        }
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn domains_are_routed_as_the_rfcs_say() {
    for (domain, expected) in [
        ("plain.example", "a.plain.example=192.0.2.1 b.plain.example=192.0.2.2"),
        ("implicit.example", "implicit.example=192.0.2.3"),
        ("v6.example", "h.v6.example=2001:db8::1"),
        ("null.example", "NullMx"),
        ("mixed.example", "a.plain.example=192.0.2.1"),
        ("bare.example", "NoDomain"),
        ("missing.example", "NoDomain"),
        ("nohost.example", "NoHost"),
        ("slowmx.example", "Deferred(Timeout)"),
        ("fail.example", "Deferred(ServFail)"),
        ("bogus.example", "Deferred(Bogus)"),
        ("halfslow.example", "b.plain.example=192.0.2.2"),
        ("allslow.example", "Deferred(ServFail)"),
        ("noimplicit.example", "Deferred(ServFail)"),
        ("alias.example", "a.plain.example=192.0.2.1 b.plain.example=192.0.2.2"),
        ("cnamed.example", "www.cnamed.example=192.0.2.1"),
        ("odd.example", "NoHost"),
        ("self.example", "a.plain.example=192.0.2.1"),
        ("onlyus.example", "Loop"),
        ("half6.example", "h.half6.example=192.0.2.5"),
        ("[192.0.2.7]", "[192.0.2.7]=192.0.2.7"),
        ("[IPv6:2001:db8::7]", "[IPv6:2001:db8::7]=2001:db8::7"),
    ] {
        assert_eq!(shown(&route(domain, &rules(), 1).await), expected, "{domain}");
    }
}

#[tokio::test]
async fn only_answers_fail_mail_for_good() {
    let at = Timestamp::from_secs(1);
    for (route, outcome, status) in [
        (Route::NullMx, Outcome::Failed, "5.1.10"),
        (Route::NoDomain, Outcome::Failed, "5.1.2"),
        (Route::NoHost, Outcome::Failed, "5.4.4"),
        (Route::Loop, Outcome::Failed, "5.4.6"),
        (Route::Prohibited, Outcome::Failed, "5.4.4"),
        (Route::Deferred(DnsError::ServFail), Outcome::Delayed, "4.4.3"),
        (Route::Deferred(DnsError::Timeout), Outcome::Delayed, "4.4.3"),
        (Route::Deferred(DnsError::Bogus), Outcome::Delayed, "4.4.3"),
    ] {
        let failure = route.failure(at).unwrap();
        assert_eq!((failure.outcome, failure.status.to_string().as_str()), (outcome, status), "{route:?}");
    }
    assert_eq!(Route::Hosts(Vec::new()).failure(at), None);
}

#[tokio::test]
async fn our_own_addresses_and_private_ones_are_kept_out() {
    let mut rules = rules();
    rules.own_addresses = vec!["192.0.2.1".parse().unwrap(), "192.0.2.7".parse().unwrap()];
    assert_eq!(route("plain.example", &rules, 1).await, Route::Loop);
    assert_eq!(route("[192.0.2.7]", &rules, 1).await, Route::Loop);
    assert!(matches!(route("private.example", &rules, 1).await, Route::Hosts(_)));
    rules.prohibit_private = true;
    assert_eq!(route("private.example", &rules, 1).await, Route::Prohibited);
    assert_eq!(route("[127.0.0.1]", &rules, 1).await, Route::Prohibited);
    for private in [
        "0.1.2.3",
        "100.64.0.1",
        "169.254.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:10.0.0.1",
    ] {
        assert!(is_private(private.parse().unwrap()), "{private}");
    }
    for public in ["192.0.2.1", "100.128.0.1", "2001:db8::1"] {
        assert!(!is_private(public.parse().unwrap()), "{public}");
    }
}

#[tokio::test]
async fn equal_preferences_are_shuffled_and_a_seed_repeats_itself() {
    let mut orders = BTreeSet::new();
    for seed in 0..40 {
        let order = shown(&route("equal.example", &rules(), seed).await);
        assert_eq!(order, shown(&route("equal.example", &rules(), seed).await));
        orders.insert(order);
    }
    assert_eq!(orders.len(), 6, "three hosts have six orders");
    // Preference comes before chance.
    for seed in 0..20 {
        assert!(shown(&route("plain.example", &rules(), seed).await).starts_with("a.plain"));
    }
}

#[tokio::test]
async fn families_take_turns_and_numbers_are_kept_to() {
    let families = |route: &Route| match route {
        Route::Hosts(hosts) => {
            hosts[0].addresses.iter().map(|ip| if ip.is_ipv6() { '6' } else { '4' }).collect::<String>()
        }
        other => panic!("{other:?}"),
    };
    let mut rules = rules();
    assert_eq!(families(&route("many.example", &rules, 3).await), "6464");
    rules.addresses = 9;
    assert_eq!(families(&route("many.example", &rules, 3).await), "64644");
    rules.family = Family::V4;
    assert_eq!(families(&route("many.example", &rules, 3).await), "444");
    assert_eq!(route("v6.example", &rules, 3).await, Route::NoHost);
    rules.hosts = 1;
    assert_eq!(shown(&route("plain.example", &rules, 3).await), "a.plain.example=192.0.2.1");
}

#[tokio::test]
async fn what_dnssec_vouches_for_is_told() {
    let Route::Hosts(hosts) = route("signed.example", &rules(), 1).await else { panic!() };
    assert!(hosts[0].mx_secure && hosts[0].address_secure);
    assert_eq!(hosts[0].canonical.as_ref().unwrap().as_str(), "mx.signed.example");
    let Route::Hosts(hosts) = route("cnamed.example", &rules(), 1).await else { panic!() };
    assert!(!hosts[0].mx_secure && !hosts[0].address_secure);
    assert_eq!(hosts[0].canonical.as_ref().unwrap().as_str(), "a.plain.example");
}

#[tokio::test]
async fn a_smart_host_is_not_asked_for_mx() {
    let zone = MemoryZone::parse(ZONE).unwrap();
    let entropy = SeededEntropy::new(1);
    let host = |text: &str| text.parse::<Host>().unwrap();
    let route = plan_host(&host("a.plain.example"), &zone, &entropy, &rules()).await;
    assert_eq!(shown(&route), "a.plain.example=192.0.2.1");
    assert_eq!(plan_host(&host("plain.example"), &zone, &entropy, &rules()).await, Route::NoDomain);
}
