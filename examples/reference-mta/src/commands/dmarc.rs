//! `postwright dmarc check`: one DMARC verdict, the policy and the disposition, as JSON.
//!
//! SPF and DKIM are not checked here: their passing domains are arguments.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use postwright_core::{Domain, Name};
use postwright_spf_dmarc::dmarc::{self, Authors, DmarcQuery, DmarcResult};
use serde_json::{Value, json};

use super::dns::DnsArgs;
use super::spf::raw;
use super::{Failure, block_on, output};

/// `postwright dmarc ...`.
#[derive(Args)]
pub(crate) struct Dmarc {
    #[command(subcommand)]
    command: DmarcCommand,
}

#[derive(Subcommand)]
enum DmarcCommand {
    /// Evaluates DMARC for an author domain and the domains that passed SPF and DKIM.
    Check(Check),
}

#[derive(Args)]
struct Check {
    /// The domain of the From field.
    #[arg(long, allow_hyphen_values = true, value_parser = raw())]
    from_domain: String,
    /// The domain that passed SPF.
    #[arg(long, allow_hyphen_values = true, value_parser = raw())]
    spf_domain: Option<String>,
    /// The domains of DKIM signatures that passed, one behind the other or each with the option.
    #[arg(long, value_name = "DKIM_DOMAIN...", allow_hyphen_values = true, value_parser = raw())]
    dkim_domain: Vec<String>,
    // An option of many values cannot have one with a hyphen and end at the next option, so the others stand here.
    #[arg(hide = true, requires = "dkim_domain", value_parser = raw())]
    more_dkim_domains: Vec<String>,
    #[command(flatten)]
    options: DmarcArgs,
    #[command(flatten)]
    dns: DnsArgs,
}

/// How DMARC is evaluated; the same options for every command that does.
#[derive(Args)]
pub(crate) struct DmarcArgs {
    /// Which standard decides.
    #[arg(long, value_enum, default_value_t = Mode::Rfc9989)]
    mode: Mode,
    /// The message's place in the sample of pct, 0 to 99 (RFC 7489 only).
    #[arg(long, default_value_t = 0)]
    sample: u8,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Rfc9989,
    Rfc7489,
}

impl DmarcArgs {
    /// The query with these options.
    pub(crate) fn apply(&self, query: DmarcQuery) -> DmarcQuery {
        let mode = match self.mode {
            Mode::Rfc9989 => dmarc::Mode::Rfc9989,
            Mode::Rfc7489 => dmarc::Mode::Rfc7489,
        };
        query.mode(mode).sample(self.sample).with_organization()
    }
}

impl Dmarc {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let DmarcCommand::Check(check) = self.command;
        let resolver = check.dns.resolver()?;
        let author = name(&check.from_domain);
        let authors = Authors { malformed: author.is_none(), domains: author.into_iter().collect() };
        let query = check.options.apply(DmarcQuery::new(authors));
        let query = query.spf(check.spf_domain.as_deref().and_then(name));
        let query = query
            .dkim(check.dkim_domain.iter().chain(&check.more_dkim_domains).filter_map(|domain| name(domain)));
        let result = block_on(dmarc::evaluate(&query, &*resolver))?;
        output::json(&show(&result))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Any string; one that is no domain name vouches for nothing.
pub(crate) fn name(text: &str) -> Option<Name> {
    let name = if text.is_ascii() { text.parse().ok()? } else { Name::from(&text.parse::<Domain>().ok()?) };
    (!name.is_root()).then_some(name)
}

/// The verdict as JSON.
pub(crate) fn show(result: &DmarcResult) -> Value {
    let text = |name: &Option<Name>| name.as_ref().map(Name::to_string);
    json!({
        "result": result.verdict.to_string(),
        "policy": result.policy.map(dmarc::Policy::as_str),
        "disposition": result.disposition.as_str(),
        "record_domain": text(&result.record_domain),
        "organizational_domain": text(&result.organizational_domain),
        "spf_aligned": result.spf_aligned,
        "dkim_aligned": result.dkim_aligned,
        "reason": result.reason.to_string(),
    })
}
