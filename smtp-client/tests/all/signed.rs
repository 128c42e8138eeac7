//! Signed zones on loopback: hickory's authoritative server with a root of our own, and our resolver, which
//! validates from that root's key down.
//!
//! The root zone holds `x.example` and delegates `plain.`, which is not signed, and `broken.`, which is signed with
//! another key than its DS record says.

use std::sync::Arc;
use std::time::Duration;

use hickory_server::Server;
use hickory_server::dnssec::NxProofKind;
use hickory_server::net::runtime::{Time, TokioRuntimeProvider};
use hickory_server::proto::dnssec::crypto::Ed25519SigningKey;
use hickory_server::proto::dnssec::rdata::DNSKEY;
use hickory_server::proto::dnssec::{DigestType, DnssecSigner, SigningKey};
use hickory_server::proto::rr::{Name, RecordType};
use hickory_server::proto::serialize::txt::Parser;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use postwright_core::dns::{HickoryConfig, HickoryResolver};
use postwright_testkit::sockets::tcp_and_udp;

use crate::peer::Issued;
use crate::table::Dns;

/// A running server and a resolver that asks it.
pub(crate) struct Zones {
    pub(crate) resolver: HickoryResolver,
    _server: Server<Switch>,
    _anchor: tempfile::NamedTempFile,
}

const SOA: &str = "SOA ns.invalid. x.invalid. 1 3600 600 86400 60";

fn key() -> (Ed25519SigningKey, DNSKEY) {
    let key = Ed25519SigningKey::from_pkcs8(&Ed25519SigningKey::generate_pkcs8().unwrap()).unwrap();
    let public = DNSKEY::from_key(&key.to_public_key().unwrap());
    (key, public)
}

fn zone(origin: &str, text: &str, key: Option<(Ed25519SigningKey, DNSKEY)>) -> Catalog {
    let origin: Name = origin.parse().unwrap();
    let (_, records) = Parser::new(text, None, Some(origin.clone())).parse().unwrap();
    let proof = key.is_some().then_some(NxProofKind::Nsec);
    let mut zone = InMemoryZoneHandler::<TokioRuntimeProvider>::new(
        origin.clone(),
        records,
        ZoneType::Primary,
        AxfrPolicy::Deny,
        proof,
    )
    .unwrap();
    if let Some((key, public)) = key {
        let week = Duration::from_secs(7 * 86_400);
        let signer = DnssecSigner::new(public, Box::new(key), origin.clone(), week);
        zone.add_zone_signing_key_mut(signer).unwrap();
        zone.secure_zone_mut().unwrap();
    }
    let mut catalog = Catalog::new();
    catalog.upsert(origin.into(), vec![Arc::new(zone)]);
    catalog
}

/// Answers from the zone that knows: DS records are the parent's (RFC 4035 3.1.4.1).
struct Switch {
    root: Catalog,
    plain: Catalog,
    broken: Catalog,
    /// Questions for this are left without an answer.
    mute: Option<RecordType>,
}

#[async_trait::async_trait]
impl RequestHandler for Switch {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        response: R,
    ) -> ResponseInfo {
        let info = request.request_info().unwrap();
        let (name, kind) = (info.query.name().to_string(), info.query.query_type());
        if self.mute == Some(kind) {
            std::future::pending::<()>().await;
        }
        let catalog = match kind {
            RecordType::DS => &self.root,
            _ if name.ends_with("plain.") => &self.plain,
            _ if name.ends_with("broken.") => &self.broken,
            _ => &self.root,
        };
        catalog.handle_request::<R, T>(request, response).await
    }
}

/// Serves the zones for one row of the table.
pub(crate) async fn serve(dns: Dns, issued: &Issued) -> Zones {
    let (root_key, root_public) = key();
    let (_, named) = key();
    let digest = named.to_digest(&"broken.".parse().unwrap(), DigestType::SHA256).unwrap();
    let ds: String = digest.as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
    let tlsa = match dns {
        Dns::Insecure => Some("CNAME tlsa.plain.".to_owned()),
        Dns::Bogus => Some("CNAME tlsa.broken.".to_owned()),
        _ => dns.tlsa(issued),
    };
    let tlsa = tlsa.map(|data| format!("_25._tcp.mx0.x.example. 60 IN {data}\n")).unwrap_or_default();
    let host = if dns == Dns::AliasOut { "CNAME host.plain." } else { "A 192.0.2.1" };
    let root = format!(
        ". 60 IN {SOA}\n. 60 IN NS ns.invalid.\nx.example. 60 IN MX 10 mx0.x.example.\n\
         mx0.x.example. 60 IN {host}\n{tlsa}plain. 60 IN NS ns.invalid.\nbroken. 60 IN NS ns.invalid.\n\
         broken. 60 IN DS {} 15 2 {ds}\n",
        named.calculate_key_tag().unwrap()
    );
    let hidden = Dns::EndEntity.tlsa(issued).unwrap();
    let below = |name: &str| {
        format!(
            "{name} 60 IN {SOA}\n{name} 60 IN NS ns.invalid.\ntlsa.{name} 60 IN {hidden}\n\
             host.{name} 60 IN A 192.0.2.1\n"
        )
    };
    let switch = Switch {
        root: zone(".", &root, Some((root_key, root_public.clone()))),
        plain: zone("plain.", &below("plain."), None),
        broken: zone("broken.", &below("broken."), Some(key())),
        mute: match dns {
            Dns::Timeout => Some(RecordType::TLSA),
            Dns::HalfAnAddress => Some(RecordType::AAAA),
            _ => None,
        },
    };
    let is_mute = switch.mute.is_some();
    let (tcp, udp) = tcp_and_udp().await;
    let address = tcp.local_addr().unwrap();
    let mut server = Server::new(switch);
    server.register_socket(udp);
    server.register_listener(tcp, Duration::from_secs(5), 4096);
    let anchor = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(anchor.path(), format!(". 3600 IN DNSKEY {root_public}\n")).unwrap();
    let mut config = HickoryConfig::default();
    config.servers = vec![address];
    config.trust_anchors = Some(anchor.path().to_owned());
    config.timeout = Duration::from_millis(if is_mute { 500 } else { 5000 });
    config.attempts = 1;
    Zones { resolver: HickoryResolver::new(&config).unwrap(), _server: server, _anchor: anchor }
}
