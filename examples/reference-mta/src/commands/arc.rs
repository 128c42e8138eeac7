//! `postwright arc`: validate a chain, and add a set to it (RFC 8617).
//!
//! Line ends on stdin are read as in `postwright dkim`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use postwright_dkim::SignedFields;
use postwright_dkim::arc::{
    ArcReason, ArcResult, ArcVerifier, ChainValidation, Sealer, authentication_results,
};
use serde_json::{Value, json};

use super::dkim::{SignerArgs, VerifyArgs, read_key, read_message, time};
use super::dns::DnsArgs;
use super::{Failure, block_on, output};

/// `postwright arc ...`.
#[derive(Args)]
pub(crate) struct Arc {
    #[command(subcommand)]
    command: ArcCommand,
}

#[derive(Subcommand)]
enum ArcCommand {
    /// Validates the ARC chain of a message on stdin.
    Verify(VerifyArgs),
    /// Validates the chain of a message on stdin, adds a set, and writes the message to stdout.
    Seal(Seal),
}

impl Arc {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self.command {
            ArcCommand::Verify(args) => verify(args),
            ArcCommand::Seal(seal) => seal.run(),
        }
    }
}

fn verify(args: VerifyArgs) -> Result<ExitCode, Failure> {
    let resolver = args.dns.resolver()?;
    let message = read_message()?;
    let result = block_on(ArcVerifier::default().verify(&message, &*resolver, time(args.time)))?;
    output::json(&show(&result))?;
    let refused = args.strict && result.cv == ChainValidation::Fail;
    Ok(if refused { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// The state of a chain as JSON.
pub(crate) fn show(result: &ArcResult) -> Value {
    json!({
        "cv": result.cv.as_str(),
        "instances": result.instances,
        "oldest_pass": result.oldest_pass,
        "reason": result.reason.map(ArcReason::as_str),
    })
}

#[derive(Args)]
#[command(
    after_help = "The results are those of the message's Authentication-Results fields that carry our authserv-id."
)]
struct Seal {
    #[command(flatten)]
    signer: SignerArgs,
    /// The name in our Authentication-Results fields; the signing domain, if left out.
    #[arg(long, value_name = "NAME")]
    authserv_id: Option<String>,
    #[command(flatten)]
    dns: DnsArgs,
}

impl Seal {
    fn run(self) -> Result<ExitCode, Failure> {
        let ([selector], [key]) = (&*self.signer.selector, &*self.signer.key) else {
            return Err(Failure::new("a seal takes one --selector and one --key"));
        };
        let authserv_id = self.authserv_id.as_deref().unwrap_or(self.signer.domain.as_str());
        let domain = self.signer.domain.clone();
        let sealer = Sealer::new(read_key(key)?, domain, selector.clone(), authserv_id);
        let mut sealer = sealer.map_err(Failure::new)?;
        if let fields @ SignedFields::Exactly(_) = self.signer.fields() {
            sealer = sealer.with_fields(fields).map_err(Failure::new)?;
        }
        let resolver = self.dns.resolver()?;
        let message = read_message()?;
        let now = self.signer.time();
        let chain = block_on(ArcVerifier::default().verify(&message, &*resolver, now))?;
        let results = authentication_results(&message, authserv_id);
        let set = sealer.seal(&message, &chain, &results, now).map_err(Failure::new)?;
        // Nothing is added to a chain that is closed (RFC 8617 5.1.2): the message goes on as it is.
        let sealed = set.into_iter().flatten().fold(message, |message, field| message.prepend(field));
        output::bytes(&sealed.to_vec())?;
        Ok(ExitCode::SUCCESS)
    }
}
