//! The rules file: layers, unsetting, validation; and what `explain` says about the result.
#![cfg(feature = "rules")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;

use postwright_core::Domain;
use postwright_shaping::{MemoryTokenStore, Path, Rules, Shaper};

const FILE: &str = r#"
[defaults]
messages = ["600/min", "20_000/h"]
bytes = "50MB/min burst 50MB"
concurrency = 10

[defaults.by."source"]
messages = "100_000/h"

[provider.gmail]
concurrency = 3
messages = "unset"

[domain."Example.ORG"]
messages = "500/calendar-day +01:00"

[source."192.0.2.7".provider.gmail]
messages = "20/min"

[tenant.acme]
messages = "5000/h burst 100"

[providers]
campus = ["mx.campus.example"]
"#;

fn shown(rules: &Rules, path: &Path) -> Vec<String> {
    let applied = rules.policy.resolve(path);
    applied.iter().map(|a| format!("{} {} by {} ({})", a.kind, a.bound, a.scope, a.origin)).collect()
}

fn path(domain: &str, source: &str) -> Path {
    Path::to(domain.parse().unwrap()).from_source(source)
}

#[test]
fn layers_replace_unset_and_add() {
    let rules = Rules::parse(FILE).unwrap();
    assert_eq!(
        shown(&rules, &path("example.net", "192.0.2.1")),
        [
            "messages 600/min by source+site (defaults)",
            "messages 20000/h by source+site (defaults)",
            "messages 100000/h by source (defaults)",
            "bytes 50000000/min burst 50000000 by source+site (defaults)",
            "concurrency 10 by source+site (defaults)",
        ]
    );
    assert_eq!(
        shown(&rules, &path("example.com", "192.0.2.1").at_provider("gmail")),
        [
            "messages 100000/h by source (defaults)",
            "bytes 50000000/min burst 50000000 by source+site (defaults)",
            "concurrency 3 by source+provider (provider gmail)",
            "messages-per-connection 50 by source+provider (provider gmail (built in))",
            "recipients-per-message 100 by source+provider (provider gmail (built in))",
        ]
    );
    let own = path("example.org", "192.0.2.7").at_provider("gmail").for_tenant("acme");
    assert_eq!(
        shown(&rules, &own)[..3],
        [
            "messages 20/min by source+provider (source 192.0.2.7 provider gmail)",
            "messages 100000/h by source (defaults)",
            "messages 5000/h burst 100 by tenant (tenant acme)",
        ]
    );
    assert_eq!(
        shown(&rules, &path("example.org", "192.0.2.1"))[0],
        "messages 500 a calendar day (+01:00) by source+domain (domain example.org)"
    );
}

#[test]
fn providers_of_the_file_come_before_the_built_in_ones() {
    let rules = Rules::parse(FILE).unwrap();
    let hosts = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<Domain>>();
    assert_eq!(rules.provider_of(&hosts(&["a.mx.campus.example", "mx.campus.example"])), Some("campus"));
    assert_eq!(rules.provider_of(&hosts(&["mta7.am0.yahoodns.net"])), Some("yahoo"));
    assert_eq!(rules.provider_of(&hosts(&["mta7.am0.yahoodns.net", "mx.campus.example"])), None);
    assert_eq!(rules.provider_of(&[]), None);
}

#[test]
fn every_error_has_its_line_its_key_and_the_nearest_valid_one() {
    let file = r#"
[defalts]
messages = "1/s"
[defaults]
concurency = 3
concurrency = "many"
messages = "10 per minute"
bytes = 7
[defaults.by."source+sitte"]
messages = "1/s"
[provider.gmial]
concurrency = 1
[domain."exa mple.org"]
concurrency = 1
[site.x]
messages = ["1/s", "5/calendar-day +25:00"]
"#;
    let errors = Rules::parse(file).unwrap_err();
    let found: Vec<(usize, &str, Option<&str>)> =
        errors.iter().map(|error| (error.line, error.key.as_str(), error.nearest.as_deref())).collect();
    assert_eq!(
        found,
        [
            (2, "defalts", Some("defaults")),
            (5, "defaults.concurency", Some("concurrency")),
            (6, "defaults.concurrency", None),
            (7, "defaults.messages", None),
            (8, "defaults.bytes", None),
            (9, "defaults.by.source+sitte", Some("site")),
            (11, "provider.gmial", Some("gmail")),
            (13, "domain.exa mple.org", None),
            (16, "site.x.messages", None),
        ]
    );
    assert_eq!(
        errors[1].to_string(),
        "line 5: defaults.concurency: no such setting; did you mean \"concurrency\"?"
    );
    let broken = Rules::parse("[defaults]\nmessages = \n").unwrap_err();
    assert_eq!(broken[0].line, 2);
}

#[test]
fn the_documented_example_is_valid() {
    let source = include_str!("../src/rules/mod.rs");
    let inside = source.split("//! ```toml\n").nth(1).unwrap().split("//! ```").next().unwrap();
    let file: String =
        inside.lines().map(|line| line.strip_prefix("//!").unwrap().trim_start().to_owned() + "\n").collect();
    Rules::parse(&file).unwrap();
}

#[test]
fn explaining_marks_what_can_never_bind() {
    let file = r#"
[defaults]
messages = ["100/min", "5000/h", "4000/calendar-day"]
concurrency = 10
[defaults.by."source"]
concurrency = 4
messages = "1/min"
"#;
    let shaper = Shaper::new(Rules::parse(file).unwrap().policy, Arc::new(MemoryTokenStore::new()));
    let explanation = shaper
        .explain(&path("example.org", "192.0.2.1"), postwright_core::Timestamp::from_secs(1_800_000_000));
    assert_eq!(
        explanation.to_string(),
        "1. messages 100/min by source+site (defaults): never binds because of 2\n\
         2. messages 5000/h by source+site (defaults): never binds because of 4\n\
         3. messages 4000 a calendar day (UTC) by source+site (defaults): never binds because of 4\n\
         4. messages 1/min by source (defaults)\n\
         5. concurrency 10 by source+site (defaults): never binds because of 6\n\
         6. concurrency 4 by source (defaults)\n"
    );
}

#[test]
fn the_four_pools_of_the_example_are_read_as_they_are_written() {
    use postwright_shaping::{Action, Mode, Overflow, Schedule, Signal};
    let rules = Rules::parse(include_str!("../examples/four-pools.toml")).unwrap();
    let pool = |stream| rules.pool_of(Some("acme"), stream);
    assert_eq!(
        [Some("transactional"), Some("lifecycle"), Some("batch"), Some("warm-up"), Some("else"), None]
            .map(pool),
        [
            Some("transactional"),
            Some("lifecycle"),
            Some("batch"),
            Some("cold"),
            Some("transactional"),
            Some("transactional")
        ]
    );
    let transactional = rules.egress.pool("transactional").unwrap();
    assert_eq!((transactional.mode, &transactional.members[0].1), (Mode::Weighted, &2));
    assert_eq!(rules.egress.pool("cold").unwrap().mode, Mode::Failover);
    let proxied = rules.egress.source("b2").unwrap();
    assert_eq!(proxied.proxy, Some("198.51.100.9:2525".parse().unwrap()));
    assert_eq!(proxied.ehlo, Some("b2.mta.example.org".parse().unwrap()));
    let plan = &rules.warmups[0];
    assert_eq!((&*plan.source, plan.overflow), ("new", Overflow::NextSource));
    assert_eq!(Some(&plan.schedule), Schedule::preset("56-days").as_ref());
    let rule = &rules.automation[0];
    assert_eq!((rule.signal, rule.threshold.count), (Some(Signal::Throttled), 3));
    assert_eq!(rule.action, Action::Pace(10.0));
}

#[test]
fn names_of_the_layout_must_exist_and_belong_to_one_pool() {
    let errors = |text: &str| -> Vec<String> {
        Rules::parse(text).unwrap_err().iter().map(ToString::to_string).collect()
    };
    let sources = "[egress.sources.alpha]\n[egress.sources.beta]\n";
    let told = |rest: &str, words: &[&str]| {
        let errors = errors(&format!("{sources}{rest}"));
        assert!(errors.iter().any(|error| words.iter().all(|word| error.contains(word))), "{errors:?}");
    };
    told("[egress.pools.p]\nsources = [\"alhpa\"]\n", &["line 4", "egress.pools.p.sources", "\"alpha\""]);
    told("[egress.pools.p]\nsources = []\n", &["line 3", "egress.pools.p", "at least one source"]);
    told(
        "[egress.pools.p]\nsources = [\"alpha\"]\nstreams = [\"x\"]\n[egress.pools.q]\nsources = [\"beta\"]\nstreams = [\"x\"]\n",
        &["egress.pools.q", "another pool has stream \"x\""],
    );
    told("[egress.sources.gamma]\nproxy = \"127.0.0.1:1\"\n", &["line 4", "gamma.proxy", "needs \"ip\""]);
    told(
        "[warm-up.w]\nsource = \"bta\"\nschedule = \"56-days\"\nstart = \"2026-12-01\"\n",
        &["line 4", "\"beta\""],
    );
    told("[warm-up.w]\nsource = \"beta\"\n", &["line 3", "warm-up.w", "needs \"schedule\""]);
    told("[source.gama]\nmessages = \"1/s\"\n", &["line 3", "no such source"]);
    told(
        "[automation.a]\nthreshold = \"3/h\"\naction = \"pace fast\"\nfor = \"2h\"\n",
        &["line 5", "automation.a.action"],
    );
}
