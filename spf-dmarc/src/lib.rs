//! SPF, DMARC and what belongs to them: verdicts as values, one DNS seam, exact look-up budgets.
//!
//! It is: [`spf::check`] (RFC 7208 in full, with a trace), [`dmarc::evaluate`] (RFC 9989 with its tree walk; RFC 7489
//! behind a feature), [`auth_results`] to compose, parse and weed out `Authentication-Results`, [`iprev`], [`bimi`],
//! and behind features reports and sender rewriting. It is not: a resolver, a DKIM verifier (DMARC takes the domains
//! that passed as values), or a policy engine. Nothing here waits for anything but the [`Resolver`] that you plug in,
//! and no verdict is ever an `Err`.
//!
//! ```
//! use postwright_core::MemoryZone;
//! use postwright_spf_dmarc::auth_results::AuthResults;
//! use postwright_spf_dmarc::dmarc::{self, Authors, DmarcQuery};
//! use postwright_spf_dmarc::spf::{self, SpfQuery};
//! # fn block_on<F: Future>(f: F) -> F::Output {
//! #     let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
//! #     match std::pin::pin!(f).poll(&mut cx) { std::task::Poll::Ready(v) => v, _ => unreachable!() }
//! # }
//! let dns = MemoryZone::parse(r#"
//! example.org.         TXT "v=spf1 ip4:192.0.2.0/24 -all"
//! _dmarc.example.org.  TXT "v=DMARC1; p=reject"
//! "#)?;
//! let query = SpfQuery::mail_from("192.0.2.7".parse()?, "mx.example.org", "joe@example.org");
//! let spf = block_on(spf::check(&query, &dns));
//! let query = DmarcQuery::new(Authors::parse("Joe <joe@example.org>")).spf(spf.authenticated());
//! let dmarc = block_on(dmarc::evaluate(&query, &dns));
//! let field = AuthResults::new("mx.example.net").with(&spf).with(&dmarc).field();
//! assert_eq!(
//!     field.value(),
//!     "mx.example.net;\r\n\tspf=pass smtp.mailfrom=example.org;\r\n\t\
//!      dmarc=pass header.from=example.org policy.dmarc=reject"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Limits
//!
//! | what | number | where |
//! |---|---|---|
//! | SPF terms with look-ups | 10 | [`Limits::spf_terms`], RFC 7208 4.6.4 |
//! | SPF look-ups without answer | 2 | [`Limits::spf_void_lookups`], RFC 7208 4.6.4 |
//! | exchanges of one `mx` | 10, then permerror | [`Limits::spf_mx_hosts`], RFC 7208 4.6.4 |
//! | names of a client (`ptr`, `%{p}`, iprev) | 10, the rest ignored | [`Limits::spf_ptr_names`], RFC 7208 4.6.4 |
//! | octets of an explanation | 1024 | [`Limits::spf_explanation`] |
//! | SPF records that are remembered | as [`spf::Memory`] was made for, of 4096 octets and 256 directives each | none by default |
//! | queries of one tree walk | 8 | RFC 9989 4.10 |
//! | author domains of one message | 4, then permerror | [`Limits::dmarc_authors`], RFC 9989 11.5 |
//! | results and properties of an `Authentication-Results` field | 100 each | `auth_results` |
//! | octets, rows, parts of a report | 64 MiB, 500,000, 64 | `report::ReportLimits` |
//!
//! Time is the resolver's business: give it a deadline of 20 s or less for a whole check (RFC 7208 4.6.4).
//!
//! # Standards and their tests
//!
//! | standard | test |
//! |---|---|
//! | RFC 7208 as a whole | `tests/openspf.rs`: the OpenSPF suite, 203 of 203; `tests/differential.rs`: pyspf over 3,000 zones |
//! | RFC 7208 4.6.4 (budgets) | `tests/hostile.rs` |
//! | RFC 7208 7.4 (macros) | `src/spf/macros.rs` |
//! | RFC 7208 9.1 (`Received-SPF`) | `tests/auth_results.rs` |
//! | RFC 9989 4.7, 4.8 (records) | `src/dmarc/record.rs` |
//! | RFC 9989 4.10 (tree walk, policy, alignment) | `tests/dmarc.rs`; `tests/dmarc_differential.rs`: checkdmarc and a naive twin |
//! | RFC 7489 (`pct`, public suffix list) | `tests/dmarc.rs`, with the list's own tests; `tests/dmarc_differential.rs`: authheaders |
//! | RFC 8601 (appendix B) | `tests/auth_results.rs`, with Python's authres |
//! | RFC 9990, RFC 7489 C, RFC 6591 (reports) | `tests/reports.rs`: 24 + 5 real reports, with parsedmarc |
//!
//! # Features
//!
//! `idna` takes U-labels, `psl` adds RFC 7489 with the public suffix list compiled in, `reports` reads and writes
//! reports, `srs` rewrites senders. None is on by default.
//!
//! [`Resolver`]: postwright_core::Resolver

pub mod auth_results;
pub mod bimi;
pub mod dmarc;
pub mod header;
pub mod iprev;
mod limits;
#[cfg(feature = "reports")]
pub mod report;
pub mod spf;
#[cfg(feature = "srs")]
pub mod srs;

pub use limits::Limits;

/// The program in README.md, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
