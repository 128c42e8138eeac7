//! The demo's receiving domains: real servers on loopback ports, each with its own behaviour.
//!
//! They are built from the same server crate as the MTA and see nothing of it but its connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright::core::{Clock, EnhancedStatus, Envelope, Instant, Message, Recipient, Refusal};
use postwright::smtp_server::{Accepted, Handler, Server, ServerConfig, Session};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use super::ledger::Ledger;
use super::scenario::{Behaviour, DESTINATIONS, Destination, SENDER};
use crate::commands::Failure;

/// How long a greylisting receiver says 451 to a recipient.
const GREYLIST: Duration = Duration::from_secs(1);
/// How long the receiver that is down stays down.
const DOWN: Duration = Duration::from_secs(3);

/// The running receivers; dropping it ends them.
pub(super) struct Receivers {
    /// For each destination's address in the zone, the loopback address that stands for it.
    pub(super) ports: BTreeMap<std::net::IpAddr, SocketAddr>,
    _tasks: JoinSet<()>,
}

impl Receivers {
    /// Starts all of them.
    pub(super) fn start(clock: Arc<dyn Clock>, ledger: Arc<Ledger>) -> Result<Receivers, Failure> {
        let mut tasks = JoinSet::new();
        let mut ports = BTreeMap::new();
        for destination in DESTINATIONS {
            let Destination { domain, address, behaviour, .. } = destination;
            let failed = |error| Failure::new(format!("demo receiver {domain}: {error}"));
            // A socket that is bound and not listening refuses connections, and keeps its port.
            let socket = TcpSocket::new_v4().map_err(failed)?;
            socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).map_err(failed)?;
            let local = socket.local_addr().map_err(failed)?;
            let zone_address =
                address.parse().map_err(|_| Failure::new(format!("{address} is not an address")))?;
            ports.insert(zone_address, local);
            let name: postwright::core::Domain = domain.parse().map_err(Failure::new)?;
            let desk = Arc::new(Desk {
                behaviour,
                clock: clock.clone(),
                ledger: ledger.clone(),
                greylist: Mutex::default(),
            });
            let acceptor = move |_: &_| {
                let desk = desk.clone();
                async move { Ok(Receiver(desk)) }
            };
            let server = Server::new(ServerConfig::new(name), clock.clone(), acceptor);
            tasks.spawn(async move {
                if behaviour == Behaviour::Down {
                    tokio::time::sleep(DOWN).await;
                }
                match socket.listen(1024) {
                    Ok(listener) => drop(server.serve(listener, std::future::pending()).await),
                    Err(error) => tracing::error!(%error, domain, "a demo receiver cannot listen"),
                }
            });
        }
        Ok(Receivers { ports, _tasks: tasks })
    }
}

/// What the connections of one receiver share.
struct Desk {
    behaviour: Behaviour,
    clock: Arc<dyn Clock>,
    ledger: Arc<Ledger>,
    /// When each recipient was first asked for.
    greylist: Mutex<BTreeMap<String, Instant>>,
}

struct Receiver(Arc<Desk>);

impl Handler for Receiver {
    async fn rcpt(&mut self, _: &Session, recipient: &Recipient, _: &Envelope) -> Result<(), Refusal> {
        let desk = &self.0;
        match desk.behaviour {
            Behaviour::Healthy | Behaviour::Down => Ok(()),
            Behaviour::Refuses => {
                Err(Refusal::known(550, EnhancedStatus::known(5, 1, 1), "No such user here"))
            }
            Behaviour::Greylists => {
                let now = desk.clock.mono();
                let mut greylist = desk.greylist.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let first = *greylist.entry(recipient.mailbox.to_string()).or_insert(now);
                if now.since(first) >= GREYLIST {
                    return Ok(());
                }
                Err(Refusal::known(451, EnhancedStatus::known(4, 7, 1), "Greylisted, try again in a second"))
            }
        }
    }

    async fn message(
        &mut self,
        _: &Session,
        envelope: &Envelope,
        message: Message,
    ) -> Result<Accepted, Refusal> {
        let octets = message.to_vec();
        let is_notification = envelope.reverse_path.is_null()
            && envelope.recipients.iter().any(|recipient| recipient.mailbox.to_string() == SENDER);
        if is_notification {
            self.0.ledger.notified(&octets);
        } else {
            self.0.ledger.arrived(&octets, self.0.clock.mono());
        }
        Ok(Accepted::default())
    }
}
