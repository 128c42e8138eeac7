//! `postwright send`: hands one message from stdin to one server and tells what became of each recipient.

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use postwright::core::{Clock, Domain, Envelope, Host, Mailbox, Message, ReversePath, SystemClock};
use postwright::smtp_client::{Client, Options, Target, Trust};
use postwright::smtp_proto::client::{Config as ClientConfig, StartTls, Transaction};
use serde_json::json;

use super::{Failure, output};
use crate::config::SmartHost;

/// Largest message that is read from stdin, in octets.
const MESSAGE_MAX: u64 = 1 << 30;

/// `postwright send --server HOST:PORT --from MAILBOX --to MAILBOX < message`.
#[derive(Args)]
pub(crate) struct Send {
    /// The server; port 25 if none is given.
    #[arg(long, value_name = "HOST:PORT")]
    server: SmartHost,
    /// The reverse-path; `<>` for none.
    #[arg(long, value_name = "MAILBOX")]
    from: ReversePath,
    /// A recipient; may be given several times.
    #[arg(long, value_name = "MAILBOX", required = true)]
    to: Vec<Mailbox>,
    /// Whether to use STARTTLS.
    #[arg(long, value_enum, default_value_t = Tls::May)]
    tls: Tls,
    /// Our name in EHLO.
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    helo: Domain,
}

#[derive(Clone, Copy, ValueEnum)]
enum Tls {
    /// Clear text.
    None,
    /// If it is offered.
    May,
    /// Or nothing is sent.
    Require,
}

impl Send {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let message = read_message()?;
        super::block_on(self.send(message))?
    }

    async fn send(self, message: Message) -> Result<ExitCode, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let client = Client::new(&Trust::Web, clock).map_err(Failure::new)?;
        let mut config = ClientConfig::new(self.helo.clone());
        config.starttls = match self.tls {
            Tls::None => StartTls::None,
            Tls::May => StartTls::Opportunistic,
            Tls::Require => StartTls::Required,
        };
        let targets = self.targets().await?;
        let envelope = Envelope::new(self.from, self.to.clone());
        let transaction = Transaction { envelope, message };
        let report = client.deliver(&targets, &Options::new(config), transaction).await;
        let recipients = self.to.iter().zip(&report.statuses).map(|(to, status)| {
            json!({
                "recipient": to.to_string(),
                "outcome": format!("{:?}", status.outcome).to_lowercase(),
                "status": status.status.to_string(),
                "diagnostic": status.diagnostic.to_string(),
            })
        });
        output::json(&json!({"recipients": recipients.collect::<Vec<_>>()}))?;
        Ok(if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// The server's addresses, by the system's resolver if it is named.
    async fn targets(&self) -> Result<Vec<Target>, Failure> {
        let SmartHost { host, port } = &self.server;
        let name = match host {
            Host::Domain(domain) => domain.to_string(),
            Host::Literal(ip) => ip.to_string(),
        };
        let addresses = tokio::net::lookup_host((name.as_str(), *port)).await;
        let addresses = addresses.map_err(|error| Failure::new(format!("{name}: {error}")))?;
        Ok(addresses.map(|address| Target { host: host.clone(), address }).collect())
    }
}

/// The message from stdin; a bare LF becomes CRLF, as for every mail tool, and a missing Message-ID and Date stay
/// missing: this command changes nothing else.
fn read_message() -> Result<Message, Failure> {
    let mut text = Vec::new();
    let read = std::io::stdin().lock().take(MESSAGE_MAX + 1).read_to_end(&mut text);
    read.map_err(|error| Failure::new(format!("stdin: {error}")))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MESSAGE_MAX {
        return Err(Failure::new(format!("the message on stdin has more than {MESSAGE_MAX} octets")));
    }
    if text.is_empty() {
        return Err(Failure::new("there is no message on stdin; write it as: postwright send ... < message"));
    }
    let mut octets = Vec::with_capacity(text.len() + text.len() / 32);
    let mut last = 0;
    for octet in text {
        if octet == b'\n' && last != b'\r' {
            octets.push(b'\r');
        }
        octets.push(octet);
        last = octet;
    }
    Ok(Message::from_bytes(octets))
}
