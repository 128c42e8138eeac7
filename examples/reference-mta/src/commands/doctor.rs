//! `postwright doctor DOMAIN`: the sender's checklist, with what to publish.
//!
//! Each finding names a check, how it stands, what that means in plain words, and the record to publish if one is
//! missing. Nothing is fetched but DNS.

use std::borrow::Cow;
use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use postwright_core::{Answer, DnsError, Found, Name, Record, RecordKind, Resolver};
use postwright_dkim::{KeyRecord, Limits as DkimLimits};
use postwright_spf_dmarc::bimi;
use postwright_spf_dmarc::dmarc::{self, DmarcQuery, DmarcRecord, Mode, Policy, PolicyOf};
use postwright_spf_dmarc::spf::{self, Problem, SpfQuery, SpfResult, Verdict};
use postwright_spf_dmarc::{Limits, iprev};
use serde_json::{Value, json};

use super::dns::DnsArgs;
use super::{Failure, block_on, output};

/// `postwright doctor DOMAIN`.
#[derive(Args)]
pub(crate) struct Doctor {
    /// The domain that sends mail.
    domain: String,
    /// An address that sends its mail; may be repeated.
    #[arg(long, num_args = 1..)]
    ip: Vec<IpAddr>,
    /// The name that the servers say in EHLO.
    #[arg(long)]
    ehlo: Option<String>,
    /// DKIM selectors to look at; without any, common ones.
    #[arg(long, num_args = 1..)]
    selector: Vec<String>,
    /// Blocklists to ask about the addresses; without any, three well-known ones.
    #[arg(long, num_args = 1..)]
    blocklist: Vec<String>,
    /// Asks no blocklist.
    #[arg(long, conflicts_with = "blocklist")]
    no_blocklists: bool,
    /// Plain words instead of JSON.
    #[arg(long)]
    text: bool,
    #[command(flatten)]
    dns: DnsArgs,
}

const SELECTORS: [&str; 9] =
    ["default", "selector1", "selector2", "s1", "s2", "google", "dkim", "mail", "k1"];
const BLOCKLISTS: [&str; 3] = ["zen.spamhaus.org", "bl.spamcop.net", "b.barracudacentral.org"];

/// How a check stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    Ok,
    Info,
    Warn,
    Fail,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Info => "info",
            Status::Warn => "warn",
            Status::Fail => "fail",
        }
    }
}

struct Finding {
    check: &'static str,
    status: Status,
    text: String,
    publish: Option<String>,
}

/// What is examined, and what was found so far.
struct Examination<'e> {
    resolver: &'e dyn Resolver,
    domain: Name,
    findings: Vec<Finding>,
}

impl Doctor {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let domain = super::dmarc::name(&self.domain)
            .ok_or_else(|| Failure::new(format!("{:?} is not a domain name", self.domain)))?;
        let resolver = self.dns.resolver()?;
        let mut examination = Examination { resolver: &*resolver, domain, findings: Vec::new() };
        block_on(examination.all(&self))?;
        let findings = &examination.findings;
        let worst = findings.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok);
        if self.text {
            output::text(&findings.iter().map(in_words).collect::<String>())?;
        } else {
            let findings: Vec<Value> = findings.iter().map(show).collect();
            let domain = examination.domain.to_string();
            output::json(&json!({"domain": domain, "status": worst.as_str(), "findings": findings}))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn selectors(&self) -> Vec<&str> {
        if self.selector.is_empty() {
            return SELECTORS.to_vec();
        }
        self.selector.iter().map(String::as_str).collect()
    }

    fn blocklists(&self) -> Vec<&str> {
        match (self.no_blocklists, self.blocklist.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => BLOCKLISTS.to_vec(),
            (false, false) => self.blocklist.iter().map(String::as_str).collect(),
        }
    }
}

fn show(finding: &Finding) -> Value {
    json!({
        "check": finding.check,
        "status": finding.status.as_str(),
        "text": finding.text,
        "publish": finding.publish,
    })
}

fn in_words(finding: &Finding) -> String {
    let publish =
        finding.publish.as_ref().map(|record| format!("\n      publish: {record}")).unwrap_or_default();
    format!("{:4}  {}: {}{publish}\n", finding.status.as_str(), finding.check, finding.text)
}

impl Examination<'_> {
    async fn all(&mut self, doctor: &Doctor) {
        self.spf(&doctor.ip).await;
        self.dkim(&doctor.selectors(), !doctor.selector.is_empty()).await;
        self.dmarc().await;
        for ip in &doctor.ip {
            self.reverse(*ip, doctor.ehlo.as_deref()).await;
            for list in doctor.blocklists() {
                self.blocklist(*ip, list).await;
            }
        }
        self.transport().await;
        self.bimi().await;
    }

    fn say(&mut self, check: &'static str, status: Status, text: impl Into<String>) {
        self.findings.push(Finding { check, status, text: text.into(), publish: None });
    }

    fn advise(&mut self, check: &'static str, status: Status, text: impl Into<String>, publish: String) {
        self.findings.push(Finding { check, status, text: text.into(), publish: Some(publish) });
    }

    async fn check_spf(&self, ip: IpAddr, limits: Limits) -> SpfResult {
        let sender = format!("postmaster@{}", self.domain);
        let query = SpfQuery::mail_from(ip, self.domain.as_str(), &sender).limits(limits);
        spf::check(&query, self.resolver).await
    }

    async fn spf(&mut self, ips: &[IpAddr]) {
        // An address that nobody sends from walks through the whole record; with wide limits, it counts all terms.
        let mut wide = Limits::default();
        (wide.spf_terms, wide.spf_void_lookups) = (100, 100);
        let nobody = IpAddr::from([255, 255, 255, 255]);
        let whole = self.check_spf(nobody, wide).await;
        match (&whole.verdict, &whole.problem) {
            (Verdict::None, _) => {
                let words: Vec<String> = ips.iter().map(|ip| network(*ip)).collect();
                let record = format!("{} TXT \"v=spf1 {} -all\"", self.domain, words.join(" "));
                self.advise("spf", Status::Fail, "There is no SPF record.", record.replace("  ", " "));
                return;
            }
            (Verdict::TempError | Verdict::PermError, Some(problem)) => {
                self.say("spf", Status::Fail, format!("The SPF record cannot be used: {problem}."));
                return;
            }
            _ => {}
        }
        self.budget(&whole);
        match whole.verdict {
            Verdict::Pass => {
                self.say("spf", Status::Fail, "The record lets every address pass: end it with -all.")
            }
            Verdict::Neutral => {
                self.say(
                    "spf",
                    Status::Warn,
                    "The record has no verdict on strangers: end it with -all or ~all.",
                );
            }
            _ => self.say("spf", Status::Ok, "The record refuses strangers."),
        }
        for ip in ips {
            let result = self.check_spf(*ip, Limits::default()).await;
            let text = format!("{ip}: {}", result.verdict);
            match (result.verdict, result.problem) {
                (Verdict::Pass, _) => self.say("spf", Status::Ok, text),
                (_, Some(problem @ Problem::TooManyLookups { .. })) => {
                    self.say("spf", Status::Fail, format!("{text}: {problem}."));
                }
                _ => self.advise("spf", Status::Fail, format!("{text}. Add the address."), network(*ip)),
            }
        }
    }

    fn budget(&mut self, whole: &SpfResult) {
        let (lookups, void) = (whole.lookups, whole.void_lookups);
        let text = format!("The record needs {lookups} look-ups of 10, {void} of them without answer, of 2.");
        let status = match (lookups, void) {
            (11.., _) | (_, 3..) => Status::Fail,
            (9..=10, _) | (_, 1..=2) => Status::Warn,
            _ => Status::Ok,
        };
        self.say("spf-lookups", status, text);
    }

    async fn dkim(&mut self, selectors: &[&str], asked: bool) {
        let mut found = false;
        for selector in selectors {
            let Ok(name) = self.domain.prepend(&format!("{selector}._domainkey")) else { continue };
            let texts = self.texts(&name).await;
            let Some(text) = texts.first() else {
                if asked {
                    self.say("dkim", Status::Fail, format!("Selector {selector}: no key is published."));
                }
                continue;
            };
            found = true;
            match KeyRecord::parse(text, &DkimLimits::default()) {
                Err(reason) => self.say("dkim", Status::Fail, format!("Selector {selector}: {reason}.")),
                Ok(key) if key.bits() > 256 && key.bits() < 2048 => {
                    let bits = key.bits();
                    let text = format!(
                        "Selector {selector}: an RSA key of {bits} bits is weak; use 2048 (RFC 8301)."
                    );
                    self.say("dkim", Status::Warn, text);
                }
                Ok(key) if key.is_testing() => {
                    let text = format!("Selector {selector}: t=y says that you are testing; take it off.");
                    self.say("dkim", Status::Warn, text);
                }
                Ok(key) => {
                    self.say(
                        "dkim",
                        Status::Ok,
                        format!("Selector {selector}: a key of {} bits.", key.bits()),
                    );
                }
            }
        }
        if !found && !asked {
            let tried = selectors.join(", ");
            let text = format!("No key under the common selectors ({tried}). Name yours with --selector.");
            self.say("dkim", Status::Warn, text);
        }
    }

    async fn dmarc(&mut self) {
        let query = DmarcQuery::of(self.domain.clone()).mode(Mode::Rfc9989).with_organization();
        let result = dmarc::evaluate(&query, self.resolver).await;
        let (Some(record), Some(policy)) = (&result.record, result.policy) else {
            let text = format!("No DMARC policy applies: {}.", result.reason);
            let record = format!("_dmarc.{0} TXT \"v=DMARC1; p=none; rua=mailto:dmarc@{0}\"", self.domain);
            return self.advise("dmarc", Status::Fail, text, record);
        };
        let owner = result.record_domain.as_ref().unwrap_or(&self.domain).clone();
        self.phase(record, policy, &owner);
        if record.rua.is_empty() {
            let text = "No aggregate reports are asked for, so nobody tells you what fails.";
            self.advise("dmarc", Status::Warn, text, format!("rua=mailto:dmarc@{owner}"));
        }
        if record.policy(PolicyOf::Subdomain) < record.policy(PolicyOf::Itself) {
            self.say("dmarc", Status::Warn, "sp is weaker than p: subdomains are open to forgers.");
        }
        for tag in &record.ignored {
            let text = format!("The tag {tag:?} is unknown, wrong or removed in RFC 9989, and is ignored.");
            self.say("dmarc", Status::Info, text);
        }
    }

    /// Which step of the way to enforcement the domain has reached (RFC 9989 5.1).
    fn phase(&mut self, record: &DmarcRecord, policy: Policy, owner: &Name) {
        let with = |tags: &str| format!("_dmarc.{owner} TXT \"v=DMARC1; {tags}\"");
        match (policy, record.testing) {
            (Policy::None, _) => {
                let text = "p=none only watches. When the reports show that your own mail passes, go on to \
                            quarantine, first in test mode.";
                self.advise("dmarc", Status::Warn, text, with("p=quarantine; t=y; rua=..."));
            }
            (Policy::Quarantine | Policy::Reject, true) => {
                let text = format!("p={policy} in test mode (t=y). If nothing of yours fails, take t=y off.");
                self.advise("dmarc", Status::Info, text, with(&format!("p={policy}; rua=...")));
            }
            (Policy::Quarantine, false) => {
                let text = "p=quarantine is enforced. p=reject is the last step for domains without users on \
                            mailing lists (RFC 9989 7.4).";
                self.say("dmarc", Status::Ok, text);
            }
            (Policy::Reject, false) => self.say("dmarc", Status::Ok, "p=reject is enforced."),
        }
    }

    async fn reverse(&mut self, ip: IpAddr, ehlo: Option<&str>) {
        let result = iprev::check(ip, self.resolver, &Limits::default()).await;
        let Some(name) = result.name else {
            return self.say(
                "ptr",
                Status::Fail,
                format!("{ip} has no name: ask its provider for a PTR record."),
            );
        };
        if result.verdict != iprev::Verdict::Pass {
            let kind = if ip.is_ipv4() { "A" } else { "AAAA" };
            let text = format!("{ip} is called {name}, which does not lead back to it.");
            return self.advise("ptr", Status::Fail, text, format!("{name} {kind} {ip}"));
        }
        match ehlo {
            Some(ehlo) if !self.is_called(ip, ehlo).await => {
                let text = format!("{ip} is called {name}, but says {ehlo} in EHLO. Make them equal.");
                self.say("ptr", Status::Warn, text);
            }
            _ => {
                let name = ehlo.map_or_else(|| name.to_string(), str::to_ascii_lowercase);
                self.say("ptr", Status::Ok, format!("{ip} is called {name}, and {name} is {ip}."));
            }
        }
    }

    /// Whether this is a name of the address, if not the only one, and leads back to it.
    async fn is_called(&self, ip: IpAddr, name: &str) -> bool {
        let Some(name) = super::dmarc::name(name) else { return false };
        let reverse = self.resolver.lookup(&Name::reverse(ip), RecordKind::Ptr).await;
        let kind = if ip.is_ipv4() { RecordKind::A } else { RecordKind::Aaaa };
        let addresses = self.resolver.lookup(&name, kind).await;
        let records = |answer: &Result<Answer, DnsError>| -> Vec<Record> {
            answer.iter().flat_map(|answer| answer.records()).cloned().collect()
        };
        records(&reverse).contains(&Record::Ptr(name))
            && records(&addresses).iter().any(|record| record.address() == Some(ip))
    }

    async fn blocklist(&mut self, ip: IpAddr, list: &str) {
        let Some(name) = list_name(ip, list) else {
            return self.say("blocklist", Status::Info, format!("{list} is not a domain name."));
        };
        let answer = self.resolver.lookup(&name, RecordKind::A).await;
        let codes: Vec<IpAddr> =
            answer.iter().flat_map(|answer| answer.records()).filter_map(Record::address).collect();
        // 127.255.255.0/24 are error codes: the list refuses to answer this resolver.
        let refused =
            |code: &IpAddr| matches!(code, IpAddr::V4(v4) if v4.octets().starts_with(&[127, 255, 255]));
        match answer {
            Err(error) => self.say("blocklist", Status::Info, format!("{ip} on {list}: {error}.")),
            Ok(_) if codes.iter().any(refused) => {
                self.say("blocklist", Status::Info, format!("{list} does not answer this resolver."));
            }
            Ok(answer) if matches!(answer.found, Found::Records(_)) => {
                let codes: Vec<String> = codes.iter().map(IpAddr::to_string).collect();
                let text = format!("{ip} is listed on {list} ({}).", codes.join(", "));
                self.say("blocklist", Status::Fail, text);
            }
            Ok(_) => self.say("blocklist", Status::Ok, format!("{ip} is not on {list}.")),
        }
    }

    /// MX, MTA-STS (RFC 8461) and TLSRPT (RFC 8460).
    async fn transport(&mut self) {
        let mx = self.resolver.lookup(&self.domain.clone(), RecordKind::Mx).await;
        match mx.map(|answer| answer.records().len()) {
            Ok(0) => {
                self.say("mx", Status::Warn, "There is no MX record: bounces and replies cannot come back.")
            }
            Ok(count) => self.say("mx", Status::Ok, format!("{count} mail exchange(s).")),
            Err(error) => self.say("mx", Status::Fail, format!("MX: {error}.")),
        }
        let starts =
            |texts: &[Vec<u8>], version: &str| texts.iter().any(|text| text.starts_with(version.as_bytes()));
        let domain = self.domain.clone();
        let sts = self.texts_at("_mta-sts").await;
        if starts(&sts, "v=STSv1") {
            let text = "MTA-STS is announced; its policy file is not fetched here.";
            self.say("mta-sts", Status::Ok, text);
        } else {
            let text =
                "No MTA-STS: mail to you may be sent in clear text to an impostor. Serve a policy first.";
            let record = format!("_mta-sts.{domain} TXT \"v=STSv1; id=1\"");
            self.advise("mta-sts", Status::Warn, text, record);
        }
        let reports = self.texts_at("_smtp._tls").await;
        if starts(&reports, "v=TLSRPTv1") {
            self.say("tlsrpt", Status::Ok, "TLS reports are asked for.");
        } else {
            let record = format!("_smtp._tls.{domain} TXT \"v=TLSRPTv1; rua=mailto:tlsrpt@{domain}\"");
            self.advise("tlsrpt", Status::Warn, "No TLS reports: you do not hear of failing TLS.", record);
        }
    }

    async fn bimi(&mut self) {
        match bimi::lookup(&self.domain, "default", self.resolver).await {
            Ok(Some(record)) if record.is_declined() => {
                self.say("bimi", Status::Info, "You decline to show a logo.")
            }
            Ok(Some(_)) => {
                self.say("bimi", Status::Ok, "A logo is offered. It shows only under an enforced policy.")
            }
            _ => self.say("bimi", Status::Info, "No logo is offered (BIMI); that is optional."),
        }
    }

    async fn texts_at(&self, label: &str) -> Vec<Vec<u8>> {
        match self.domain.prepend(label) {
            Ok(name) => self.texts(&name).await,
            Err(_) => Vec::new(),
        }
    }

    async fn texts(&self, name: &Name) -> Vec<Vec<u8>> {
        let answer = self.resolver.lookup(name, RecordKind::Txt).await;
        let texts = answer.iter().flat_map(|answer| answer.records()).filter_map(Record::text);
        texts.map(Cow::into_owned).collect()
    }
}

/// The mechanism for an address.
fn network(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("ip4:{ip}"),
        IpAddr::V6(ip) => format!("ip6:{ip}"),
    }
}

/// The name to ask a list for: the octets or nibbles in reverse (RFC 5782).
fn list_name(ip: IpAddr, list: &str) -> Option<Name> {
    let reverse = Name::reverse(ip).to_string();
    let digits = reverse.strip_suffix(".in-addr.arpa").or_else(|| reverse.strip_suffix(".ip6.arpa"))?;
    super::dmarc::name(list)?.prepend(digits).ok()
}
