//! The master.cf of a Postfix that takes and relays mail and does nothing else: for `bench`, and for the tests.
//!
//! Not here: its main.cf, which is the caller's.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// The services, with one smtpd listener.
pub(super) fn services(address: SocketAddr) -> String {
    let mut services = format!("{address} inet n - n - - smtpd\n");
    for (name, most) in [("pickup", 1), ("cleanup", 0), ("qmgr", 1), ("showq", 1)] {
        let _ = writeln!(services, "{name} unix n - n - {most} {name}");
    }
    let around = [
        ("rewrite", "trivial-rewrite"),
        ("bounce", "bounce"),
        ("defer", "bounce"),
        ("trace", "bounce"),
        ("flush", "flush"),
        ("proxymap", "proxymap"),
        ("smtp", "smtp"),
        ("relay", "smtp"),
        ("error", "error"),
        ("retry", "error"),
    ];
    for (name, program) in around {
        let _ = writeln!(services, "{name} unix - - n - - {program}");
    }
    // Postfix insists on one process for these, and starts none otherwise.
    for name in ["anvil", "scache", "tlsmgr"] {
        let _ = writeln!(services, "{name} unix - - n - 1 {name}");
    }
    services + "postlog unix-dgram n - n - 1 postlogd\n"
}
