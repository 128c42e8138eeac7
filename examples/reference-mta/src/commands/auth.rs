//! `postwright auth check`: everything that a receiving server finds out about a message, as JSON, with the
//! `Authentication-Results` field it would add.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use postwright_core::{Domain, Message, Name, Resolver, Timestamp};
use postwright_dkim::arc::{ArcResult, ArcVerifier};
use postwright_dkim::{
    DkimResult, Limits as DkimLimits, Provider, Selector, Verdict, Verifier, VerifyPolicy,
};
use postwright_spf_dmarc::auth_results::{AuthResults, MethodResult};
use postwright_spf_dmarc::dmarc::{self, Authors, DmarcQuery, DmarcResult};
use postwright_spf_dmarc::iprev::{self, IprevResult};
use postwright_spf_dmarc::spf::{self, SpfQuery, SpfResult};
use postwright_spf_dmarc::{Limits, header};
use serde_json::json;

use super::dmarc::DmarcArgs;
use super::dns::DnsArgs;
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
    /// The client's address.
    #[arg(long)]
    ip: IpAddr,
    /// The argument of HELO or EHLO, as the client sent it.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    helo: String,
    /// The reverse-path, as the client sent it.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    mail_from: String,
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

/// What was found out about a message.
struct Findings {
    spf: SpfResult,
    dkim: Vec<DkimResult>,
    arc: ArcResult,
    dmarc: DmarcResult,
    iprev: IprevResult,
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
        let now: Timestamp = dkim::time(self.time);
        let query = SpfQuery::mail_from(self.ip, &self.helo, &self.mail_from).at(now);
        let spf = spf::check(resolver, &query.receiver(&self.authserv_id)).await;
        let mut policy = VerifyPolicy::default();
        policy.sha1 = self.legacy;
        let verifier = Verifier::new(Provider::ring(), policy, DkimLimits::default());
        let dkim = verifier.verify(message, resolver, now).await;
        let arc = ArcVerifier::default().verify(message, resolver, now).await;
        let octets = message.to_vec();
        let from: Vec<String> =
            header::fields(&octets).filter(|field| field.is("From")).map(|field| field.text()).collect();
        let authors = Authors::parse_all(from.iter().map(String::as_str));
        let dmarc = self.options.apply(dmarc_query(authors, &spf, &dkim));
        let dmarc = dmarc::evaluate(resolver, &dmarc).await;
        let iprev = iprev::check(resolver, self.ip, &Limits::default()).await;
        Findings { spf, dkim, arc, dmarc, iprev }
    }
}

/// What DMARC needs of the other verdicts: the domains that passed, and those that might have.
fn dmarc_query(authors: Authors, spf: &SpfResult, dkim: &[DkimResult]) -> DmarcQuery {
    let of = |wanted: fn(&DkimResult) -> bool| {
        let chosen = dkim.iter().filter(move |result| wanted(result));
        chosen.filter_map(|result| result.domain.as_ref().map(Name::from))
    };
    let undecided = of(|result| result.verdict == Verdict::Temperror);
    let spf_undecided = (spf.verdict == spf::Verdict::TempError).then(|| spf.name()).flatten();
    DmarcQuery::new(authors)
        .spf(spf.authenticated())
        .dkim(of(DkimResult::is_pass))
        .undecided(undecided.chain(spf_undecided))
}

impl Findings {
    fn field(&self, authserv_id: &str) -> postwright_core::HeaderField {
        let mut results = AuthResults::new(authserv_id).with(&self.spf);
        if self.dkim.is_empty() {
            results = results.with(MethodResult::new("dkim", "none"));
        }
        for signature in &self.dkim {
            results = results.with(dkim_result(signature));
        }
        let arc = MethodResult::new("arc", self.arc.cv.as_str());
        results.with(arc).with(&self.dmarc).with(&self.iprev).field()
    }
}

/// One signature as a result (RFC 8601 2.7.1, RFC 6008).
fn dkim_result(signature: &DkimResult) -> MethodResult {
    let mut result = MethodResult::new("dkim", signature.verdict.as_str());
    result.reason = signature.reason.map(|reason| reason.as_str().to_owned());
    let properties = [
        ("d", signature.domain.as_ref().map(Domain::to_string)),
        ("s", signature.selector.as_ref().map(Selector::to_string)),
        ("a", signature.algorithm.map(|algorithm| algorithm.as_str().to_owned())),
        ("b", signature.tag.clone()),
    ];
    for (name, value) in properties {
        if let Some(value) = value {
            result = result.property("header", name, value);
        }
    }
    result
}
