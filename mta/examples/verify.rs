//! Verifies a message from stdin as a receiving server does, and prints the field that it would add.
//!
//! ```text
//! cargo run --example verify --features authentication -- 192.0.2.1 mx.example.org joe@example.org < message
//! ```
//!
//! More words are DNS servers to ask in place of the system's: `198.51.100.53:53`.

use std::error::Error;
use std::io::Read;

use postwright::authentication::{Findings, Inspection};
use postwright::core::dns::{HickoryConfig, HickoryResolver};
use postwright::core::{Clock, Message, SystemClock};

#[expect(clippy::print_stdout, reason = "it is what this program is for")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut message = Vec::new();
    std::io::stdin().read_to_end(&mut message)?;
    println!("{}", verify(&words, message).await?);
    Ok(())
}

/// The field, and what DMARC asks for.
pub(crate) async fn verify(words: &[String], message: Vec<u8>) -> Result<String, Box<dyn Error>> {
    let [ip, hello, mail_from, servers @ ..] = words else {
        return Err("usage: verify CLIENT-ADDRESS EHLO-NAME REVERSE-PATH [DNS-SERVER]... < message".into());
    };
    let mut dns = HickoryConfig::default();
    dns.servers = servers.iter().map(|server| server.parse()).collect::<Result<_, _>>()?;
    let resolver = HickoryResolver::new(&dns)?;
    let inspection = Inspection {
        ip: ip.parse()?,
        hello,
        mail_from,
        authserv_id: "mx.example.net",
        now: SystemClock::new().now(),
        sha1: false,
        memory: None,
    };
    let message = Message::from_bytes(message);
    let findings = Findings::of(inspection, &resolver, &message, |dmarc| dmarc).await;
    let (field, dmarc) = (findings.field(inspection.authserv_id), findings.dmarc);
    Ok(format!(
        "{}: {}\n; DMARC asks for {}: {}",
        field.name(),
        field.value(),
        dmarc.disposition,
        dmarc.reason
    ))
}
