//! `postwright queue`: looks into the queue of a running MTA and gives it orders, over its control socket.
//!
//! Not here: what the MTA answers (control/).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Failure, block_on, output};
use crate::config::{Config, span};
use crate::control::{self, Request, Select};

/// `postwright queue [--control PATH | --config FILE] ...`.
#[derive(Args)]
pub(crate) struct Queue {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    what: What,
}

/// Which running MTA.
#[derive(Args)]
pub(super) struct Server {
    /// The control socket of the running MTA.
    #[arg(long, value_name = "PATH", global = true, conflicts_with = "config")]
    control: Option<PathBuf>,
    /// The MTA's configuration file, which names the socket.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// Counts: the queue, the spool, and events since the start.
    Status,
    /// Lanes (tenant, stream, destination) that hold messages, a line each; at most 1,000.
    Lanes {
        /// Leave out so many.
        #[arg(long, default_value_t = 0)]
        from: usize,
    },
    /// Sites that mail goes to or waits for.
    Sites,
    /// Messages by age, a line each.
    List {
        /// Begin behind this message.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// At most so many, up to 1,000.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// One message: its recipients, the trace of its attempts, why it waits and until when.
    Show { id: String },
    /// The orders in force, each with the key that takes it back.
    Orders,
    /// Attempts nothing that matches, for a while. What is in flight is finished, lifetimes run on.
    Suspend {
        #[command(flatten)]
        selection: Selection,
        /// How long: 90s, 5m, 4h, 7d.
        #[arg(long = "for", value_name = "SPAN", default_value = "1d")]
        span: String,
        /// Why, for whoever asks what mail waits for.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Removes what matches and is queued now.
    Cancel {
        #[command(flatten)]
        selection: Selection,
        /// Tell the senders.
        #[arg(long)]
        bounce: bool,
        /// Why, for whoever asks.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Sends what matches another way for a while, what comes later included.
    Bind {
        #[command(flatten)]
        selection: Selection,
        /// The way: HOST:PORT, mx, lmtp:HOST:PORT or lmtp:/SOCKET.
        #[arg(long, value_name = "ROUTE")]
        to: String,
        /// How long: 90s, 5m, 4h, 7d.
        #[arg(long = "for", value_name = "SPAN", default_value = "1d")]
        span: String,
        /// Why, for whoever asks.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Takes an order back: what it held goes on.
    Resume { key: String },
    /// Makes what matches and waits for its retry due now.
    Flush {
        #[command(flatten)]
        selection: Selection,
    },
}

/// Which messages. At least one, or `--all`: nobody cancels everything by leaving out a word.
#[derive(Args)]
#[group(required = true, multiple = true)]
struct Selection {
    /// One message.
    #[arg(long, value_name = "ID", conflicts_with = "all")]
    message: Option<String>,
    /// All of a job.
    #[arg(long, conflicts_with = "all")]
    job: Option<String>,
    /// All of a tenant.
    #[arg(long, conflicts_with = "all")]
    tenant: Option<String>,
    /// All of a stream.
    #[arg(long, conflicts_with = "all")]
    stream: Option<String>,
    /// All to a domain, those below it left out.
    #[arg(long, conflicts_with = "all")]
    domain: Option<String>,
    /// Everything.
    #[arg(long)]
    all: bool,
}

impl Selection {
    fn select(self) -> Select {
        let Selection { message, job, tenant, stream, domain, all: _ } = self;
        Select { message, job, tenant, stream, domain }
    }
}

impl Queue {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let request = self.what.request()?;
        self.server.ask(&request)
    }
}

impl Server {
    /// Asks it, and prints each line of its answer.
    pub(super) fn ask(self, request: &Request) -> Result<ExitCode, Failure> {
        let path = match (self.control, self.config) {
            (Some(path), _) => path,
            (None, Some(file)) => Config::load(&file)?.control.socket.ok_or_else(|| {
                Failure::new(format!("{}: there is no [control] socket = \"PATH\"", file.display()))
            })?,
            (None, None) => return Err(Failure::new("give --control PATH or --config FILE")),
        };
        for line in block_on(control::ask(&path, request))?? {
            output::json(&line)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl What {
    fn request(self) -> Result<Request, Failure> {
        Ok(match self {
            What::Status => Request::Status,
            What::Lanes { from } => Request::Lanes { from },
            What::Sites => Request::Sites,
            What::List { after, limit } => Request::List { after, limit },
            What::Show { id } => Request::Show { id },
            What::Orders => Request::Orders,
            What::Suspend { selection, span: text, reason } => {
                let seconds = span(&text).map_err(Failure::new)?.as_secs();
                Request::Suspend { select: selection.select(), seconds, reason }
            }
            What::Cancel { selection, bounce, reason } => {
                Request::Cancel { select: selection.select(), bounce, reason }
            }
            What::Bind { selection, to, span: text, reason } => {
                let seconds = span(&text).map_err(Failure::new)?.as_secs();
                Request::Bind { select: selection.select(), to, seconds, reason }
            }
            What::Resume { key } => Request::Resume { key },
            What::Flush { selection } => Request::Flush { select: selection.select() },
        })
    }
}
