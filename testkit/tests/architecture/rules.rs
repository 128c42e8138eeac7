//! The plan of the house as data: which crate sits in which ring and what it may lean on.
//!
//! ARCHITECTURE.md says the same in prose; where the two differ, this file decides and the prose is wrong.

/// One crate of the workspace.
pub(crate) struct Rule {
    pub(crate) package: &'static str,
    pub(crate) ring: Ring,
    /// Which of our crates it may import.
    pub(crate) ours: &'static [&'static str],
    /// External crates that its ring forbids, and that it may have all the same behind a feature.
    pub(crate) behind_a_feature: &'static [&'static str],
    /// The most packages that it may bring without its default features, itself included.
    pub(crate) budget: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ring {
    /// Nouns and seams.
    Vocabulary,
    /// No runtime, no clock, no log.
    Engine,
    /// tokio and rustls around the engines.
    Driver,
    /// The only place where siblings meet.
    Composition,
    /// Tests, programs and chores: imported by nothing that ships.
    Beside,
}

const CORE: &str = "postwright-core";
const PROTO: &str = "postwright-smtp-proto";
const DKIM: &str = "postwright-dkim";
const SPF_DMARC: &str = "postwright-spf-dmarc";
const QUEUE: &str = "postwright-queue";
const SHAPING: &str = "postwright-shaping";
const BOUNCE: &str = "postwright-bounce";
const SERVER: &str = "postwright-smtp-server";
const CLIENT: &str = "postwright-smtp-client";
const MTA: &str = "postwright";
pub(crate) const TESTKIT: &str = "postwright-testkit";

const EVERY_LIBRARY: &[&str] = &[CORE, PROTO, DKIM, SPF_DMARC, QUEUE, SHAPING, BOUNCE, SERVER, CLIENT, MTA];

/// A runtime, TLS, a log: what vocabulary and engines do without.
pub(crate) const WORLDLY: &[&str] = &[
    "tokio",
    "tokio-util",
    "tokio-rustls",
    "rustls",
    "tracing",
    "tracing-subscriber",
    "log",
    "hickory-resolver",
    "hickory-proto",
    "hyper",
    "reqwest",
    "socket2",
    "async-std",
    "smol",
    "redis",
    "tokio-postgres",
];

/// What nothing of ours may bring, at any depth: second providers of TLS and cryptography, and C libraries for them.
pub(crate) const BANNED: &[&str] =
    &["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls", "async-std", "rustls-native-certs"];

/// Who may bring a banned package all the same, behind a feature that is off by default.
pub(crate) const BANNED_BUT: &[(&str, &[&str])] = &[
    // The feature `aws-lc-rs`: ring cannot generate RSA keys.
    ("postwright-dkim", &["aws-lc-rs"]),
    ("aws-lc-rs", &["aws-lc-sys"]),
];

/// Features of dependencies that only tests need.
pub(crate) const TEST_FEATURES: &[(&str, &str)] = &[("tokio", "test-util"), ("tokio", "full")];

const fn engine(package: &'static str, behind_a_feature: &'static [&'static str], budget: usize) -> Rule {
    Rule { package, ring: Ring::Engine, ours: &[CORE], behind_a_feature, budget: Some(budget) }
}

const fn beside(package: &'static str, ours: &'static [&'static str]) -> Rule {
    Rule { package, ring: Ring::Beside, ours, behind_a_feature: &[], budget: None }
}

pub(crate) const RULES: &[Rule] = &[
    Rule {
        package: CORE,
        ring: Ring::Vocabulary,
        ours: &[],
        // The feature `hickory`: the resolver runs on tokio, and its turns and deadline are tokio's.
        behind_a_feature: &["hickory-resolver", "tokio"],
        budget: Some(10),
    },
    engine(PROTO, &[], 16),
    engine(DKIM, &[], 20),
    engine(SPF_DMARC, &[], 18),
    // The feature `runner` is a task, the feature `postgres` a client on tokio.
    engine(QUEUE, &["tokio", "tokio-postgres", "tokio-rustls", "rustls", "tracing"], 14),
    engine(SHAPING, &["redis", "tokio"], 12),
    engine(BOUNCE, &[], 20),
    Rule { package: SERVER, ring: Ring::Driver, ours: &[CORE, PROTO], behind_a_feature: &[], budget: None },
    Rule { package: CLIENT, ring: Ring::Driver, ours: &[CORE, PROTO], behind_a_feature: &[], budget: None },
    Rule {
        package: MTA,
        ring: Ring::Composition,
        ours: &[CORE, PROTO, DKIM, SPF_DMARC, QUEUE, SHAPING, BOUNCE, SERVER, CLIENT],
        behind_a_feature: &[],
        budget: None,
    },
    beside("postwright-reference-mta", EVERY_LIBRARY),
    beside(TESTKIT, &[CORE]),
    beside("postwright-benches", EVERY_LIBRARY),
    beside("postwright-fuzz", EVERY_LIBRARY),
    beside("xtask", &[]),
    beside("xtask-api", &[]),
];

/// The most lines a source file may have.
pub(crate) const LINES_MAX: usize = 600;

/// Files that may be longer: path, lines, why. A line that is not needed any more is an error.
pub(crate) const LONGER: &[(&str, usize, &str)] = &[];
