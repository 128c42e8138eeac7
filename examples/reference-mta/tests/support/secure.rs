//! Certificates of a test, and a client that speaks TLS: rustls and plain sockets, nothing of ours.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// An authority of the test's own.
pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub root: CertificateDer<'static>,
    root_pem: String,
}

impl Authority {
    pub fn new() -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        Authority { root: root.der().clone(), root_pem: root.pem(), issuer: rcgen::Issuer::new(params, key) }
    }

    /// Writes `NAME.pem` and `NAME.key` for a host into a folder, over what is there.
    pub fn issue(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (chain, key) = self.make(name);
        let (certificate, private) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&certificate, chain.pem()).unwrap();
        std::fs::write(&private, key.serialize_pem()).unwrap();
        (certificate, private)
    }

    fn make(&self, name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Writes the authority's own certificate.
    pub fn write_root(&self, folder: &Path) -> PathBuf {
        let path = folder.join("root.pem");
        std::fs::write(&path, &self.root_pem).unwrap();
        path
    }

    /// A client that believes this authority and has no certificate.
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::new(self.believers().with_no_client_auth())
    }

    /// A client that believes this authority and has a certificate by `by`.
    pub fn client_of(&self, by: &Authority, name: &str) -> Arc<ClientConfig> {
        let (chain, key) = by.make(name);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(self.believers().with_client_auth_cert(vec![chain.der().clone()], key).unwrap())
    }

    fn believers(&self) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots)
    }
}

/// A socket from an address of this machine; `None` where the system has only one loopback address.
pub fn socket_from(source: &str, to: SocketAddr) -> Option<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).ok()?;
    socket.bind(&format!("{source}:0").parse::<SocketAddr>().ok()?.into()).ok()?;
    socket.connect(&to.into()).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    Some(socket.into())
}

/// A connection in clear or in TLS: one command, one reply.
pub struct Talk<S: Read + Write>(pub BufReader<S>);

pub type Secure = Talk<StreamOwned<ClientConnection, TcpStream>>;

impl Talk<TcpStream> {
    pub fn clear(source: &str, to: SocketAddr) -> Talk<TcpStream> {
        Talk(BufReader::new(socket_from(source, to).unwrap()))
    }

    /// A greeted session past EHLO.
    pub fn greeted(source: &str, to: SocketAddr) -> Talk<TcpStream> {
        let mut talk = Talk::clear(source, to);
        assert_eq!(talk.reply().unwrap().0, 220);
        assert_eq!(talk.code("EHLO client.test"), 250);
        talk
    }

    /// STARTTLS, and EHLO again.
    pub fn starttls(mut self, tls: &Arc<ClientConfig>, name: &str) -> Secure {
        assert_eq!(self.code("STARTTLS"), 220);
        let mut secure = begin(self.0.into_inner(), tls, name);
        assert_eq!(secure.code("EHLO client.test"), 250);
        secure
    }
}

/// TLS from the first octet; nothing is said yet.
pub fn begin(socket: TcpStream, tls: &Arc<ClientConfig>, name: &str) -> Secure {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(tls.clone(), name).unwrap();
    Talk(BufReader::new(StreamOwned::new(connection, socket)))
}

impl<S: Read + Write> Talk<S> {
    pub fn reply(&mut self) -> io::Result<(u16, String)> {
        let mut text = String::new();
        loop {
            let start = text.len();
            if self.0.read_line(&mut text)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if text.as_bytes().get(start + 3) == Some(&b' ') {
                return Ok((text[start..start + 3].parse().unwrap(), text));
            }
        }
    }

    pub fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(octets)?;
        self.0.get_mut().flush()
    }

    pub fn say(&mut self, line: &str) -> io::Result<(u16, String)> {
        self.write(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    pub fn code(&mut self, line: &str) -> u16 {
        self.say(line).unwrap().0
    }

    /// One message after the envelope was begun; the reply to its end.
    pub fn data(&mut self, body: &str) -> (u16, String) {
        assert_eq!(self.code("DATA"), 354);
        self.say(&format!("{body}\r\n.")).unwrap()
    }
}

/// `AUTH PLAIN` with an initial response.
pub fn plain(user: &str, password: &str) -> String {
    let mut out = String::from("AUTH PLAIN ");
    let octets = format!("\0{user}\0{password}").into_bytes();
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for three in octets.chunks(3) {
        let bits =
            three.iter().fold(0u32, |bits, octet| bits << 8 | u32::from(*octet)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS[usize::try_from(bits >> (18 - 6 * place) & 63).unwrap()];
            out.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// A line for the file of accounts, made by the program itself.
pub fn account(user: &str, password: &str, scheme: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_postwright"))
        .args(["accounts", "hash", user, "--scheme", scheme])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}
