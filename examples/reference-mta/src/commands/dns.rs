//! Where a command's DNS answers come from (`--zone`, `--resolver`, or else the system's servers), and
//! `postwright lookup`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use postwright_core::{
    Found, HickoryConfig, HickoryResolver, MemoryZone, Name, Record, RecordKind, Resolver,
};
use serde_json::json;

use super::{Failure, block_on, output};

/// The source of DNS answers; the same options for every command that looks things up.
#[derive(Args)]
pub(crate) struct DnsArgs {
    /// Answer from this zone file (RFC 1035 section 5) instead of the network.
    #[arg(long, value_name = "FILE")]
    zone: Option<PathBuf>,
    /// Ask this DNS server instead of the system's: IP, IP:PORT or [IPv6]:PORT. May be repeated.
    #[arg(long, value_name = "IP:PORT", conflicts_with = "zone", value_parser = server)]
    resolver: Vec<SocketAddr>,
    /// Validate the answers by DNSSEC (RFC 4035), from the root's trust anchors down.
    #[arg(long, conflicts_with = "zone")]
    dnssec: bool,
}

fn server(text: &str) -> Result<SocketAddr, String> {
    HickoryConfig::parse_server(text).ok_or_else(|| "not IP, IP:PORT or [IPv6]:PORT".to_owned())
}

impl DnsArgs {
    /// The resolver that the options ask for.
    pub(crate) fn resolver(&self) -> Result<Arc<dyn Resolver>, Failure> {
        let Some(path) = &self.zone else {
            let mut config = HickoryConfig::default();
            config.servers = self.resolver.clone();
            config.validate = self.dnssec;
            let resolver = HickoryResolver::new(&config);
            return Ok(Arc::new(
                resolver.map_err(|error| Failure::new(format!("{error} (--resolver IP:PORT)")))?,
            ));
        };
        zone(path)
    }
}

/// A resolver that answers from a zone file.
pub(super) fn zone(path: &Path) -> Result<Arc<dyn Resolver>, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| Failure::new(format!("{shown}: {error}")))?;
    let zone = MemoryZone::parse(&text).map_err(|error| Failure::new(format!("{shown}: {error}")))?;
    Ok(Arc::new(zone))
}

/// `postwright lookup NAME TYPE`.
#[derive(Args)]
pub(crate) struct Lookup {
    /// The name; without a final dot it is complete all the same.
    name: String,
    /// A, AAAA, CNAME, MX, NS, PTR, TXT or TLSA.
    kind: String,
    #[command(flatten)]
    dns: DnsArgs,
}

impl Lookup {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let name: Name =
            self.name.parse().map_err(|error| Failure::new(format!("{:?}: {error}", self.name)))?;
        let kind = RecordKind::ALL
            .into_iter()
            .find(|kind| kind.to_string().eq_ignore_ascii_case(&self.kind))
            .ok_or_else(|| Failure::new(format!("{:?} is not a known record type", self.kind)))?;
        let resolver = self.dns.resolver()?;
        let result = match block_on(resolver.lookup(&name, kind))? {
            Err(error) => json!({"error": error.to_string()}),
            Ok(answer) => json!({
                "found": match answer.found {
                    Found::Records(_) => "records",
                    Found::NoData => "no-data",
                    Found::NoName => "no-name",
                },
                "records": answer.records().iter().map(show).collect::<Vec<_>>(),
                "canonical": answer.canonical.to_string(),
                "secure": answer.secure,
                "ttl": answer.ttl,
            }),
        };
        output::json(&result)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn show(record: &Record) -> String {
    match record {
        Record::A(ip) => ip.to_string(),
        Record::Aaaa(ip) => ip.to_string(),
        Record::Cname(name) | Record::Ns(name) | Record::Ptr(name) => name.to_string(),
        Record::Mx { preference, exchange } => format!("{preference} {exchange}"),
        Record::Tlsa { usage, selector, matching, data } => {
            let hex: String = data.iter().map(|octet| format!("{octet:02x}")).collect();
            format!("{usage} {selector} {matching} {hex}")
        }
        other => String::from_utf8_lossy(&other.text().unwrap_or_default()).into_owned(),
    }
}
