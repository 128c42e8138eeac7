//! The commands. Each is a struct of arguments with a `run` of its own.
//!
//! The rules that all share: results go to stdout (JSON where the command says so), one line about bad input
//! goes to stderr with exit code 2, and a verdict is never an error.

mod accounts;
mod arc;
mod auth;
mod bounce;
mod config;
mod dkim;
mod dmarc;
mod dns;
mod doctor;
mod feedback;
pub(crate) mod output;
mod queue;
mod report;
mod rotation;
mod send;
mod serve;
mod shaping;
mod sink;
mod spf;
mod spool;
mod suppress;
mod tlsrpt;
mod warmup;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::{fmt, io};

use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Runs the MTA.
    Serve(Box<serve::Serve>),
    /// Shows the main job from end to end on loopback.
    Demo(crate::demo::Demo),
    /// Measures what a durable message costs, beside another MTA if wished.
    Bench(crate::bench::Bench),
    /// Sends one message to one server.
    Send(send::Send),
    /// Receives mail and throws it away.
    Sink(sink::Sink),
    /// Checks a configuration file, or prints the default one.
    Config(config::ConfigCommand),
    /// Makes and checks entries of the file of accounts.
    Accounts(accounts::AccountsCommand),
    /// Validates and seals ARC chains.
    Arc(arc::Arc),
    /// Verifies and makes DKIM signatures, and makes keys.
    Dkim(dkim::Dkim),
    /// Keeps a list of addresses that get no more mail.
    Suppress(suppress::Suppress),
    /// Says what refusals mean.
    Bounce(bounce::Bounce),
    /// Looks up DNS records as the crates see them, from a zone file or a real server.
    Lookup(dns::Lookup),
    /// Explains the limits on what is sent.
    Shaping(shaping::Shaping),
    /// Plans the first weeks of a new source.
    Warmup(warmup::Warmup),
    /// Checks everything about a message, as a receiving server does.
    Auth(auth::Auth),
    /// Tells a sender what its domain lacks, and what to publish.
    Doctor(doctor::Doctor),
    /// Evaluates DMARC, as a receiving server does.
    Dmarc(dmarc::Dmarc),
    /// Reads reports that others send.
    Report(report::Report),
    /// Looks into the queue of a running MTA and gives it orders.
    Queue(queue::Queue),
    /// Checks SPF, as a receiving server does.
    Spf(spf::Spf),
    /// Looks after a spool: check, export, import.
    Spool(spool::Spool),
}

impl Command {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Command::Serve(command) => command.run(),
            Command::Demo(command) => command.run(),
            Command::Bench(command) => command.run(),
            Command::Send(command) => command.run(),
            Command::Sink(command) => command.run(),
            Command::Config(command) => command.run(),
            Command::Accounts(command) => command.run(),
            Command::Arc(command) => command.run(),
            Command::Dkim(command) => command.run(),
            Command::Suppress(command) => command.run(),
            Command::Bounce(command) => command.run(),
            Command::Lookup(command) => command.run(),
            Command::Shaping(command) => command.run(),
            Command::Warmup(command) => command.run(),
            Command::Auth(command) => command.run(),
            Command::Doctor(command) => command.run(),
            Command::Dmarc(command) => command.run(),
            Command::Report(command) => command.run(),
            Command::Queue(command) => command.run(),
            Command::Spf(command) => command.run(),
            Command::Spool(command) => command.run(),
        }
    }
}

/// The shaping rules in a file.
pub(crate) fn load_rules(file: &Path) -> Result<postwright_shaping::Rules, Failure> {
    shaping::load(Some(file))
}

/// Answers from a zone file.
pub(crate) fn load_zone(file: &Path) -> Result<std::sync::Arc<dyn postwright_core::Resolver>, Failure> {
    dns::zone(file)
}

/// Bad input or a failed environment: one line that says where and what to do.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(what: impl fmt::Display) -> Failure {
        // One line, whatever an error's text holds.
        Failure(what.to_string().replace(['\r', '\n'], " "))
    }

    /// A file that a key of the configuration names and that cannot be read.
    pub(crate) fn file(key: &str, path: &Path, error: &io::Error) -> Failure {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "; correct the path, or make the file",
            io::ErrorKind::PermissionDenied => "; let the account that runs this read it",
            _ => "",
        };
        Failure::new(format!("{key} {}: {error}{advice}", path.display()))
    }

    /// An address that cannot be listened on.
    pub(crate) fn listening(address: SocketAddr, error: &io::Error) -> Failure {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "; another program or another [[listen]] section has it, and `ss -ltnp` says which"
            }
            io::ErrorKind::AddrNotAvailable => "; no interface of this machine has this address",
            io::ErrorKind::PermissionDenied if address.port() < 1024 => {
                "; ports below 1024 take the capability CAP_NET_BIND_SERVICE (AmbientCapabilities= of a systemd unit)"
            }
            _ => "",
        };
        Failure::new(format!("cannot listen on {address}: {error}{advice}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A runtime for a command that serves: all cores, timers and sockets.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(format!("cannot start the runtime: {error}")))
}

/// Runs a command's look-ups to their end.
pub(crate) fn block_on<F: Future>(work: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| Failure::new(format!("cannot start the runtime: {error}")))?.block_on(work))
}
