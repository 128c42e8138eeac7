//! Delivers a message to its MX under DANE and MTA-STS; prints what was decided for each host, why, and what came of it.
//!
//! `cargo run -p postwright --features https --example deliver -- HELO FROM TO < message`

use std::sync::Arc;

use postwright::HttpsClient;
use postwright::core::dns::{HickoryConfig, HickoryResolver};
use postwright::core::{DeliveryStatus, Envelope, Host, Mailbox, Message, SystemClock, SystemEntropy, World};
use postwright::smtp_client::policy::{Wishes, attempts};
use postwright::smtp_client::route::{Route, Rules, plan};
use postwright::smtp_client::sts::{Finder, MemoryStore};
use postwright::smtp_client::{Client, Options, Trust};
use postwright::smtp_proto::client::{Config, Transaction};

#[expect(clippy::print_stdout, reason = "it is what this program is for")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [hello, from, to] = &words[..] else { return Err("usage: deliver HELO FROM TO < message".into()) };
    let text = std::io::read_to_string(std::io::stdin())?;
    let (clock, mut dns) = (Arc::new(SystemClock::new()), HickoryConfig::default());
    dns.validate = true;
    let resolver = Arc::new(HickoryResolver::new(&dns)?);
    let https = HttpsClient::new(&Trust::Web, clock.clone(), resolver.clone())?;
    let finder = Finder::new(Arc::new(https), Arc::new(MemoryStore::default()));
    let client = Client::new(&Trust::Web, clock.clone())?;
    let world = World { clock, entropy: Arc::new(SystemEntropy), resolver };
    let envelope = Envelope::new(from.parse::<Mailbox>()?, [to.parse()?]);
    let mail = Transaction { envelope, message: Message::from_bytes(text) };
    let options = Options::new(Config::new(hello.parse::<Host>()?));
    deliver(&world, &finder, &client, &options, mail).await.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// To the hosts of the first recipient's domain; says in lines what was decided and what came of it.
pub(crate) async fn deliver(
    world: &World,
    sts: &Finder,
    by: &Client,
    with: &Options,
    mail: Transaction,
) -> Vec<String> {
    let fate = |is: &DeliveryStatus| format!("{:?} {}: {}", is.outcome, is.status, is.diagnostic);
    let (dns, now) = (&*world.resolver, world.clock.now());
    let to = mail.envelope.recipients.first().and_then(|to| to.mailbox.domain().cloned());
    let Some(domain) = to else { return vec!["there is no recipient at a domain".to_owned()] };
    let hosts = match plan(&domain.clone().into(), dns, &*world.entropy, &Rules::default()).await {
        Route::Hosts(hosts) => hosts,
        nowhere => return nowhere.failure(now).iter().map(fate).collect(),
    };
    let policy = sts.find(&domain, dns, now).await.found;
    let (tries, out) = attempts(&domain, &hosts, 25, Wishes::default(), with, &policy, dns).await;
    let left_out = out.iter().map(|(host, why)| format!("{host} is left out: {}", fate(&why.status(now))));
    let tried = tries.iter().map(|one| (&one.target, &one.decision));
    let tried = tried.map(|(to, is)| format!("{} {}: {}: {}", to.host, to.address, is.source, is.reason));
    let report = if tries.is_empty() { None } else { Some(by.deliver_each(&tries, mail).await.0) };
    left_out.chain(tried).chain(report.iter().flat_map(|is| is.statuses.iter().map(fate))).collect()
}
