//! The tests of the crate's public face, in one program so that it links once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod broken_tls;
mod dane;
mod delivery;
#[cfg(feature = "sasl")]
mod oauth;
mod peer;
mod policy;
mod pool;
mod race;
mod route;
#[cfg(feature = "tls-reports")]
mod signed;
mod sink;
mod sts;
#[cfg(feature = "tls-reports")]
mod table;
mod timed;
#[cfg(feature = "tls-reports")]
mod tlsrpt;
mod trust;
