//! `postwright shaping explain`: which limits apply to a path, who set them, and which can never bind; `events` and `undo`: what a
//! running MTA did by itself.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use postwright::smtp_client::MailHost;
use postwright::smtp_client::site::SiteName;
use postwright_core::{Clock, Domain, Host, SystemClock};
use postwright_shaping::{Dimension, Explanation, MemoryTokenStore, Path, Rules, Shaper, Site};
use serde_json::{Value, json};

use super::queue::Server;
use super::{Failure, output};
use crate::config::SmartHost;
use crate::control::Request;

/// `postwright shaping ...`.
#[derive(Args)]
pub(crate) struct Shaping {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Lists the limits on a path.
    Explain(Explain),
    /// The automatic actions of a running MTA with their causes, oldest first; the latest 1,024.
    Events {
        #[command(flatten)]
        server: Server,
    },
    /// Undoes an automatic action of a running MTA.
    Undo {
        /// Its number.
        event: u64,
        #[command(flatten)]
        server: Server,
    },
    /// Reads a rules file and lists its errors.
    Check {
        /// The file.
        rules: PathBuf,
    },
}

/// The path, as far as it matters.
#[derive(Args)]
struct Explain {
    /// The recipients' domain.
    #[arg(long)]
    domain: Domain,
    /// The egress source.
    #[arg(long)]
    source: Option<String>,
    /// The rules file; without it the built-in table alone.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// A mail host of the domain; repeat it for each. The site and the provider follow from the hosts.
    #[arg(long, value_name = "HOST")]
    mx: Vec<Domain>,
    /// The smart host that the mail takes instead, as HOST:PORT: it is the site then, for all domains.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "mx")]
    via: Option<SmartHost>,
    /// The provider, if it is not to be found by the mail hosts.
    #[arg(long)]
    provider: Option<String>,
    /// The pool.
    #[arg(long)]
    pool: Option<String>,
    /// The tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// The stream.
    #[arg(long)]
    stream: Option<String>,
}

impl Shaping {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self.what {
            What::Explain(explain) => explain.run(),
            What::Events { server } => server.ask(&Request::ShapingEvents),
            What::Undo { event, server } => server.ask(&Request::ShapingUndo { event }),
            What::Check { rules } => {
                let text = std::fs::read_to_string(&rules)
                    .map_err(|error| Failure::new(format!("{}: {error}", rules.display())))?;
                let errors = Rules::parse(&text).err().unwrap_or_default();
                let shown: Vec<Value> = errors
                    .iter()
                    .map(|error| {
                        json!({
                            "line": error.line,
                            "key": error.key,
                            "problem": error.problem,
                            "nearest": error.nearest,
                        })
                    })
                    .collect();
                output::json(&json!({"valid": shown.is_empty(), "errors": shown}))?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// The rules in a file, or the built-in ones.
pub(super) fn load(file: Option<&std::path::Path>) -> Result<Rules, Failure> {
    let text = match file {
        None => String::new(),
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| Failure::new(format!("{}: {error}", file.display())))?,
    };
    let named = |errors: Vec<postwright_shaping::RulesError>| {
        let file = file.map(|file| file.display().to_string()).unwrap_or_default();
        let list: Vec<String> = errors.iter().map(|error| format!("{file}: {error}")).collect();
        Failure::new(list.join("; "))
    };
    Rules::parse(&text).map_err(named)
}

impl Explain {
    fn run(self) -> Result<ExitCode, Failure> {
        let rules = load(self.rules.as_deref())?;
        let hop = self.via.as_ref().and_then(|via| via.host.domain().cloned());
        let hosts = if self.via.is_some() { Vec::from_iter(hop) } else { self.mx };
        let found = rules.provider_of(&hosts).map(str::to_owned);
        let site = match &self.via {
            Some(SmartHost { host, port }) => Site::named(&format!("{host}:{port}")),
            None => site(&self.domain, &hosts),
        };
        if let Some(provider) = &self.provider
            && !rules.knows_provider(provider)
        {
            let near = rules.nearest_provider(provider);
            let near = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            return Err(Failure::new(format!("--provider {provider}: no such provider{near}")));
        }
        let path = Path {
            source: self.source.as_deref().map(Into::into),
            pool: self.pool.as_deref().map(Into::into),
            tenant: self.tenant.as_deref().map(Into::into),
            stream: self.stream.as_deref().map(Into::into),
            domain: self.domain,
            site,
            provider: self.provider.or(found).map(Into::into),
        };
        let shaper = Shaper::new(rules.policy, Arc::new(MemoryTokenStore::new()));
        output::json(&show(&shaper.explain(&path, SystemClock::new().now())))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The site as delivery names it.
fn site(domain: &Domain, hosts: &[Domain]) -> Site {
    let host = |name: &Domain| MailHost {
        name: Host::Domain(name.clone()),
        canonical: None,
        expanded: None,
        addresses: Vec::new(),
        mx_secure: false,
        address_secure: false,
    };
    if hosts.is_empty() {
        return Site::named(domain.as_str());
    }
    Site::named(SiteName::of(&hosts.iter().map(host).collect::<Vec<_>>(), &[]).as_str())
}

fn show(explanation: &Explanation) -> Value {
    let limits: Vec<Value> = explanation
        .limits
        .iter()
        .map(|explained| {
            let limit = &explained.limit;
            json!({
                "kind": limit.kind.as_str(),
                "limit": limit.bound.to_string(),
                "by": limit.scope.to_string(),
                "set_by": &*limit.origin,
                "key": limit.key.as_str(),
                "can_bind": explained.idle_because_of.is_none(),
                "never_binds_because_of": explained.idle_because_of,
            })
        })
        .collect();
    let path: serde_json::Map<String, Value> = Dimension::ALL
        .into_iter()
        .map(|dimension| (dimension.as_str().to_owned(), json!(explanation.path.value(dimension))))
        .collect();
    json!({
        "path": path,
        "limits": limits,
        "messages_per_connection": explanation.messages_per_connection,
        "recipients_per_message": explanation.recipients_per_message,
    })
}
