//! `postwright spf check`: one SPF verdict, and how it came about, as JSON.
//!
//! Identities are raw strings: whatever a client may send gets a verdict.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Subcommand};
use postwright_core::{Clock, SystemClock};
use postwright_spf_dmarc::spf::{self, Event, SpfQuery, SpfResult, Step};
use serde_json::{Value, json};

use super::dns::DnsArgs;
use super::{Failure, block_on, output};

/// `postwright spf ...`.
#[derive(Args)]
pub(crate) struct Spf {
    #[command(subcommand)]
    command: SpfCommand,
}

#[derive(Subcommand)]
enum SpfCommand {
    /// Checks whether a client may use a domain (RFC 7208).
    Check(Check),
}

/// Who sends, as the server saw it.
#[derive(Args)]
pub(crate) struct ClientArgs {
    /// The client's address.
    #[arg(long)]
    pub(crate) ip: IpAddr,
    /// The argument of HELO or EHLO, as the client sent it.
    #[arg(long, default_value = "", allow_hyphen_values = true, value_parser = raw())]
    pub(crate) helo: String,
    /// The reverse-path, as the client sent it; empty or left out, the HELO identity is checked.
    #[arg(long, default_value = "", allow_hyphen_values = true, value_parser = raw())]
    pub(crate) mail_from: String,
}

#[derive(Args)]
struct Check {
    #[command(flatten)]
    client: ClientArgs,
    /// The name of the checking host, for the macro %{r}.
    #[arg(long, allow_hyphen_values = true)]
    receiver: Option<String>,
    /// Shows every step.
    #[arg(long)]
    trace: bool,
    #[command(flatten)]
    dns: DnsArgs,
}

impl Spf {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let SpfCommand::Check(check) = self.command;
        let resolver = check.dns.resolver()?;
        let ClientArgs { ip, helo, mail_from } = &check.client;
        let mut query = SpfQuery::mail_from(*ip, helo, mail_from).at(SystemClock::new().now());
        if let Some(receiver) = &check.receiver {
            query = query.receiver(receiver);
        }
        if check.trace {
            query = query.traced();
        }
        let result = block_on(spf::check(&query, &*resolver))?;
        output::json(&show(&result))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// An identity: any octets, those that are no UTF-8 replaced.
pub(crate) fn raw() -> impl TypedValueParser<Value = String> {
    OsStringValueParser::new().map(|text| text.to_string_lossy().into_owned())
}

/// The verdict as JSON. A verdict without a match always says why, traced or not.
pub(crate) fn show(result: &SpfResult) -> Value {
    let mut trace: Vec<Value> = result.trace.iter().map(step).collect();
    if let (true, Some(problem)) = (trace.is_empty(), &result.problem) {
        trace.push(json!({"event": "stopped", "reason": problem.to_string()}));
    }
    json!({
        "result": result.verdict.to_string(),
        "explanation": result.explanation,
        "identity": result.identity.to_string(),
        "domain": result.domain,
        "matched": result.matched,
        "lookups": result.lookups,
        "void_lookups": result.void_lookups,
        "trace": trace,
    })
}

fn step(step: &Step) -> Value {
    let mut value = match &step.event {
        Event::Record(record) => json!({"event": "record", "record": record}),
        Event::Enter { term, target } => json!({"event": "enter", "term": term, "target": target}),
        Event::Term { term, target, matched } => {
            json!({"event": "term", "term": term, "target": target, "matched": matched})
        }
        Event::Stopped(reason) => json!({"event": "stopped", "reason": reason}),
    };
    if let Value::Object(fields) = &mut value {
        fields.insert("depth".into(), step.depth.into());
        fields.insert("domain".into(), step.domain.clone().into());
        fields.insert("lookups".into(), step.lookups.into());
        fields.insert("void_lookups".into(), step.void_lookups.into());
    }
    value
}
