//! A name server on loopback, UDP and TCP on one port, that answers from a table as a recursive server would.
//!
//! The table is read from zone text by hickory's own parser, and can be signed as a whole (RFC 4034, one key for
//! everything from the root down). First labels ask for trouble: `servfail`, `refused`, `silent`, and `big`, whose
//! answers are truncated over UDP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::proto::dnssec::crypto::Ed25519SigningKey;
use hickory_resolver::proto::dnssec::rdata::{DNSKEY, DNSSECRData, NSEC, RRSIG};
use hickory_resolver::proto::dnssec::{DnssecSigner, SigningKey};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::SOA;
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordSet, RecordType};
use hickory_resolver::proto::serialize::txt::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) udp: Arc<AtomicUsize>,
    pub(crate) tcp: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) async fn start(table: Table) -> Server {
        let table = Arc::new(table);
        let (tcp, udp) = postwright_testkit::sockets::tcp_and_udp().await;
        let server = Server { address: tcp.local_addr().unwrap(), udp: Arc::default(), tcp: Arc::default() };
        tokio::spawn(serve_udp(udp, Arc::clone(&table), Arc::clone(&server.udp)));
        tokio::spawn(serve_tcp(tcp, table, Arc::clone(&server.tcp)));
        server
    }
}

async fn serve_udp(socket: UdpSocket, table: Arc<Table>, count: Arc<AtomicUsize>) {
    let mut packet = vec![0; 4096];
    while let Ok((len, from)) = socket.recv_from(&mut packet).await {
        count.fetch_add(1, Ordering::SeqCst);
        if let Some(answer) = table.answer(&packet[..len], true) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, table: Arc<Table>, count: Arc<AtomicUsize>) {
    while let Ok((stream, _)) = listener.accept().await {
        count.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(serve_stream(stream, Arc::clone(&table)));
    }
}

async fn serve_stream(mut stream: TcpStream, table: Arc<Table>) {
    while let Ok(len) = stream.read_u16().await {
        let mut packet = vec![0; usize::from(len)];
        if stream.read_exact(&mut packet).await.is_err() {
            return;
        }
        let Some(answer) = table.answer(&packet, false) else { return };
        let mut framed = u16::try_from(answer.len()).unwrap().to_be_bytes().to_vec();
        framed.extend(answer);
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

pub(crate) struct Table {
    sets: BTreeMap<Name, BTreeMap<RecordType, RecordSet>>,
    signer: Option<DnssecSigner>,
    /// Signatures below this name are spoilt.
    spoilt: Option<Name>,
}

impl Table {
    pub(crate) fn parse(zone: &str) -> Table {
        let (_, records) = Parser::new(zone, None, Some(Name::root())).parse().unwrap();
        let mut table = Table { sets: BTreeMap::new(), signer: None, spoilt: None };
        for (_, set) in records {
            let name = set.name().clone();
            table.sets.entry(name).or_default().insert(set.record_type(), set);
        }
        table
    }

    /// Signs everything with a new key; the trust anchor file for it is returned.
    pub(crate) fn sign(&mut self, spoilt: &str) -> String {
        let pkcs8 = Ed25519SigningKey::generate_pkcs8().unwrap();
        let key = Ed25519SigningKey::from_pkcs8(&pkcs8).unwrap();
        let dnskey = DNSKEY::from_key(&key.to_public_key().unwrap());
        let anchor = format!(". 3600 IN DNSKEY {dnskey}\n");
        let mut keys = RecordSet::with_ttl(Name::root(), RecordType::DNSKEY, 3600);
        keys.add_rdata(RData::DNSSEC(DNSSECRData::DNSKEY(dnskey.clone())));
        self.sets.entry(Name::root()).or_default().insert(RecordType::DNSKEY, keys);
        let soa = self.soa_set();
        self.sets.entry(Name::root()).or_default().insert(RecordType::SOA, soa);
        let week = std::time::Duration::from_secs(7 * 86_400);
        self.signer = Some(DnssecSigner::new(dnskey, Box::new(key), Name::root(), week));
        self.spoilt = Some(spoilt.parse().unwrap());
        anchor
    }

    fn soa_set(&self) -> RecordSet {
        let mut set = RecordSet::with_ttl(Name::root(), RecordType::SOA, 77);
        set.add_rdata(RData::SOA(SOA::new(Name::root(), Name::root(), 1, 3600, 600, 86_400, 77)));
        set
    }

    /// `None`: no answer at all.
    fn answer(&self, packet: &[u8], over_udp: bool) -> Option<Vec<u8>> {
        let request = Message::from_vec(packet).ok()?;
        let query = request.queries.first()?.clone();
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        response.add_query(query.clone());
        response.metadata.recursion_desired = true;
        response.metadata.recursion_available = true;
        match query.name().iter().next() {
            Some(b"silent") => return None,
            Some(b"servfail") => response.metadata.response_code = ResponseCode::ServFail,
            Some(b"refused") => response.metadata.response_code = ResponseCode::Refused,
            Some(b"big") if over_udp => response.metadata.truncation = true,
            _ => self.fill(&mut response, query.name().to_lowercase(), query.query_type()),
        }
        response.to_vec().ok()
    }

    /// Follows aliases as far as the table goes, at most once round a loop.
    fn fill(&self, response: &mut Message, asked: Name, kind: RecordType) {
        let mut name = asked;
        for _ in 0..8 {
            let Some(sets) = self.sets.get(&name) else {
                let below = self.sets.keys().any(|other| name.zone_of(other));
                let code = if below { ResponseCode::NoError } else { ResponseCode::NXDomain };
                response.metadata.response_code = code;
                return self.deny(response, &name);
            };
            if let Some(set) = sets.get(&kind) {
                response.add_answers(self.signed(set));
                return;
            }
            let Some(alias) = sets.get(&RecordType::CNAME) else { return self.deny(response, &name) };
            response.add_answers(self.signed(alias));
            match alias.record().map(|record| &record.data) {
                Some(RData::CNAME(target)) => name = target.0.clone(),
                _ => return,
            }
        }
    }

    fn deny(&self, response: &mut Message, name: &Name) {
        response.add_authorities(self.signed(&self.soa_set()));
        if self.signer.is_some() {
            // One proof for the name and one for the wildcard that could stand in its place (RFC 4035 3.1.3.2).
            let mut encloser = name.base_name();
            while !self.sets.keys().any(|known| encloser.zone_of(known)) {
                encloser = encloser.base_name();
            }
            for denied in [name.clone(), encloser.prepend_label("*").unwrap()] {
                let proof = self.signed(&self.nsec(&denied));
                let known = response.authorities.contains(&proof[0]);
                response.add_authorities(if known { Vec::new() } else { proof });
            }
        }
    }

    /// The NSEC record at the name, or the one that spans it.
    fn nsec(&self, name: &Name) -> RecordSet {
        let before = self.sets.range(..=name.clone()).next_back().map_or_else(Name::root, |(n, _)| n.clone());
        let after = self.sets.keys().find(|other| **other > *name).cloned().unwrap_or_else(Name::root);
        let types = self.sets.get(&before).into_iter().flat_map(|sets| sets.keys().copied());
        let nsec = NSEC::new_cover_self(after, types);
        let mut set = RecordSet::with_ttl(before, RecordType::NSEC, 77);
        set.add_rdata(RData::DNSSEC(DNSSECRData::NSEC(nsec)));
        set
    }

    fn signed(&self, set: &RecordSet) -> Vec<Record> {
        let mut records: Vec<Record> = set.records_without_rrsigs().cloned().collect();
        if let Some(signer) = &self.signer {
            let mut set = set.clone();
            if self.spoilt.as_ref().is_some_and(|spoilt| spoilt.zone_of(set.name())) {
                // The signature is one of other data.
                set.add_rdata(RData::A(std::net::Ipv4Addr::BROADCAST.into()));
            }
            let inception = time::OffsetDateTime::now_utc() - std::time::Duration::from_secs(3600);
            let rrsig = RRSIG::from_rrset(&set, DNSClass::IN, inception, signer).unwrap();
            let data = RData::DNSSEC(DNSSECRData::RRSIG(rrsig));
            records.push(Record::from_rdata(set.name().clone(), set.ttl(), data));
        }
        records
    }
}
