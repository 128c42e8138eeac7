//! `postwright auth check`: everything that a receiving server finds out about a message, as JSON, with the
//! `Authentication-Results` field it would add.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use postwright::authentication::{Findings, Inspection};
use postwright_core::{Message, Name, Resolver};
use serde_json::json;

use super::dmarc::DmarcArgs;
use super::dns::DnsArgs;
use super::spf::ClientArgs;
use super::{Failure, block_on, dkim, output};

/// `postwright auth ...`.
#[derive(Args)]
pub(crate) struct Auth {
    #[command(subcommand)]
    command: AuthCommand,
}

#[derive(Subcommand)]
enum AuthCommand {
    /// Checks SPF, DKIM, ARC, DMARC and iprev of a message on stdin.
    Check(Check),
}

#[derive(Args)]
struct Check {
    #[command(flatten)]
    client: ClientArgs,
    /// The name that the Authentication-Results field is signed with.
    #[arg(long, default_value = "localhost", allow_hyphen_values = true)]
    authserv_id: String,
    /// The time to check at, in seconds since 1970; now, if left out.
    #[arg(long, value_name = "SECONDS")]
    time: Option<u64>,
    /// Accept SHA-1 in DKIM, against RFC 8301.
    #[arg(long)]
    legacy: bool,
    #[command(flatten)]
    options: DmarcArgs,
    #[command(flatten)]
    dns: DnsArgs,
}

impl Auth {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let AuthCommand::Check(check) = self.command;
        let resolver = check.dns.resolver()?;
        let message = dkim::read_message()?;
        let findings = block_on(check.find_out(&*resolver, &message))?;
        let field = findings.field(&check.authserv_id);
        output::json(&json!({
            "spf": super::spf::show(&findings.spf),
            "dkim": findings.dkim.iter().map(dkim::show).collect::<Vec<_>>(),
            "arc": super::arc::show(&findings.arc),
            "dmarc": super::dmarc::show(&findings.dmarc),
            "iprev": {
                "result": findings.iprev.verdict.to_string(),
                "name": findings.iprev.name.as_ref().map(Name::to_string),
            },
            "authentication_results": format!("{}: {}", field.name(), field.value()),
        }))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Check {
    async fn find_out(&self, resolver: &dyn Resolver, message: &Message) -> Findings {
        let inspection = Inspection {
            ip: self.client.ip,
            hello: &self.client.helo,
            mail_from: &self.client.mail_from,
            authserv_id: &self.authserv_id,
            now: dkim::time(self.time),
            sha1: self.legacy,
            memory: None,
        };
        Findings::of(inspection, resolver, message, |query| self.options.apply(query)).await
    }
}
