//! Verifies the message on stdin and prints the `Authentication-Results` field for it.
//!
//! ```text
//! cargo run --example verify -- 192.0.2.1 mx.example.org joe@example.org < message.eml
//! ```

#![allow(clippy::print_stdout, reason = "an example prints what it finds")]

use std::io::Read;

use postwright_core::{Clock, HickoryConfig, HickoryResolver, Message, Name, SystemClock};
use postwright_dkim::{DkimResult, Verifier};
use postwright_spf_dmarc::auth_results::{AuthResults, MethodResult};
use postwright_spf_dmarc::dmarc::{self, Authors, DmarcQuery};
use postwright_spf_dmarc::header;
use postwright_spf_dmarc::spf::{self, SpfQuery};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [ip, helo, mail_from] = args.as_slice() else {
        return Err("usage: verify IP HELO MAIL-FROM < message".into());
    };
    let mut octets = Vec::new();
    std::io::stdin().read_to_end(&mut octets)?;
    let message = Message::from_bytes(octets.clone());
    let resolver = HickoryResolver::new(&HickoryConfig::default())?;

    let spf = spf::check(&SpfQuery::mail_from(ip.parse()?, helo, mail_from), &resolver).await;
    let dkim = Verifier::default().verify(&message, &resolver, SystemClock::new().now()).await;
    let signers = dkim.iter().filter(|result| result.is_pass()).filter_map(|result| result.domain.as_ref());
    let from: Vec<String> = header::fields(&octets).filter(|f| f.is("From")).map(|f| f.text()).collect();
    let authors = Authors::parse_all(from.iter().map(String::as_str));
    let query = DmarcQuery::new(authors).spf(spf.authenticated()).dkim(signers.map(Name::from));
    let dmarc = dmarc::evaluate(&query, &resolver).await;

    let mut results = AuthResults::new("mx.example.org").with(&spf);
    for signature in &dkim {
        results = results.with(describe(signature));
    }
    println!("{}", results.with(&dmarc).field());
    Ok(())
}

fn describe(signature: &DkimResult) -> MethodResult {
    let domain = signature.domain.as_ref().map_or_else(String::new, ToString::to_string);
    MethodResult::new("dkim", signature.verdict.as_str()).property("header", "d", domain)
}
