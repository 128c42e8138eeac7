//! Verifies a message from stdin as a receiving server does, and prints the field that it would add.
//!
//! ```text
//! cargo run --example verify --features authentication -- 192.0.2.1 mx.example.org joe@example.org < message
//! ```

use std::io::Read;

use postwright::authentication::{Findings, Inspection};
use postwright::core::dns::{HickoryConfig, HickoryResolver};
use postwright::core::{Clock, Message, SystemClock};

#[expect(clippy::print_stdout, reason = "it is what this program is for")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [ip, hello, mail_from] = &words[..] else {
        return Err("usage: verify CLIENT-ADDRESS EHLO-NAME REVERSE-PATH < message".into());
    };
    let mut octets = Vec::new();
    std::io::stdin().read_to_end(&mut octets)?;
    let message = Message::from_bytes(octets);
    let resolver = HickoryResolver::new(&HickoryConfig::default())?;
    let inspection = Inspection {
        ip: ip.parse()?,
        hello,
        mail_from,
        authserv_id: "mx.example.net",
        now: SystemClock::new().now(),
        sha1: false,
        memory: None,
    };
    let findings = Findings::of(inspection, &resolver, &message, |dmarc| dmarc).await;
    let field = findings.field(inspection.authserv_id);
    println!("{}: {}", field.name(), field.value());
    println!("; DMARC asks for {}: {}", findings.dmarc.disposition, findings.dmarc.reason);
    Ok(())
}
