//! A small HTTPS client: what MTA-STS and TLS reports need, and no more.
//!
//! Invariant: one request, one answer, over a connection of its own whose certificate is verified for the URL's
//! host; no redirect is followed, no more is read than asked for, and everything ends within the given time. With
//! the default setting nothing on this machine or its private networks can be asked, whatever DNS says: who names
//! the host is a stranger.
//!
//! Standards: RFC 8461 3.3 (fetching a policy), RFC 8460 5.4 (reports by POST), RFC 9110, RFC 9112.
//!
//! Not here: what is asked for (smtp-client's `sts`, tls_reports.rs), proxies, cookies, HTTP/2.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use postwright_core::{BoxFuture, Clock, Host, Name, RecordKind, Resolver};
use postwright_smtp_client::sts::{Fetch, FetchError, Fetched};
use postwright_smtp_client::tls::{TlsClient, TlsSetupError};
use postwright_smtp_client::{Trust, route};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Most addresses of a host that are tried.
const ADDRESSES_MAX: usize = 4;
/// How long one address may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks web servers, each request over a connection of its own.
#[derive(Clone)]
pub struct HttpsClient {
    tls: TlsClient,
    resolver: Arc<dyn Resolver>,
    port: u16,
    private: bool,
}

impl HttpsClient {
    /// A client that believes `trust` and finds hosts by `resolver`.
    ///
    /// # Errors
    /// A given root certificate cannot be read.
    pub fn new(
        trust: &Trust,
        clock: Arc<dyn Clock>,
        resolver: Arc<dyn Resolver>,
    ) -> Result<HttpsClient, TlsSetupError> {
        Ok(HttpsClient { tls: TlsClient::new(trust, clock)?, resolver, port: 443, private: false })
    }

    /// The same with another port for URLs that name none.
    #[must_use]
    pub fn with_port(self, port: u16) -> HttpsClient {
        HttpsClient { port, ..self }
    }

    /// The same with leave to ask hosts at loopback and private addresses.
    #[must_use]
    pub fn with_private_addresses(self, private: bool) -> HttpsClient {
        HttpsClient { private, ..self }
    }

    /// Sends `body` to `url` and says with which status the server answered; its words are not read.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn post(
        &self,
        url: &str,
        content_type: &'static str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<u16, FetchError> {
        let request = Request::builder().method(Method::POST).header(CONTENT_TYPE, content_type);
        let fetched = self.within(url, request, body, 0, limit).await?;
        Ok(fetched.status)
    }

    async fn within(
        &self,
        url: &str,
        request: hyper::http::request::Builder,
        body: Vec<u8>,
        octets: usize,
        limit: Duration,
    ) -> Result<Fetched, FetchError> {
        let exchange = Box::pin(self.exchange(url, request, body, octets));
        timeout(limit, exchange)
            .await
            .unwrap_or_else(|_| Err(failed(&format!("no answer within {} s", limit.as_secs()))))
    }

    async fn exchange(
        &self,
        url: &str,
        request: hyper::http::request::Builder,
        body: Vec<u8>,
        octets: usize,
    ) -> Result<Fetched, FetchError> {
        let uri: Uri = url.parse().map_err(|error| failed(&format!("{url:?} is no URL: {error}")))?;
        let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(failed(&format!("{url:?} is not an https URL")));
        };
        let stream = self.connect(host, uri.port_u16().unwrap_or(self.port)).await?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = request
            .uri(path)
            .header(HOST, uri.authority().map_or(host, |authority| authority.as_str()))
            .header(USER_AGENT, "postwright")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| failed(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
            read(response, octets).await
        };
        // The connection is driven here and not by a task, so that nothing is left when this is given up. Its end
        // does not end the answer: what was read may not have been taken yet.
        let driven = async {
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = driven => Err(failed(&"the connection ended")),
        }
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TlsStream<TcpStream>, FetchError> {
        let config = self.tls.strict().ok_or_else(|| failed(&"no root certificate is trusted"))?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
        let mut last = failed(&format!("{host} has no address that may be asked"));
        for ip in self.addresses(host).await?.into_iter().take(ADDRESSES_MAX) {
            let address = SocketAddr::new(ip, port);
            let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    last = failed(&format!("{address}: {error}"));
                    continue;
                }
                Err(_) => {
                    last = failed(&format!("{address} does not answer"));
                    continue;
                }
            };
            return TlsConnector::from(config).connect(name, stream).await.map_err(|error| bad_tls(&error));
        }
        Err(last)
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, FetchError> {
        // Only names: a URL with an address has no certificate that RFC 8461 could mean.
        let Ok(Host::Domain(domain)) = host.parse::<Host>() else {
            return Err(failed(&format!("{host:?} is no host name")));
        };
        let name = Name::from(&domain);
        let (v6, v4) = tokio::join!(
            self.resolver.lookup(&name, RecordKind::Aaaa),
            self.resolver.lookup(&name, RecordKind::A)
        );
        if let (Err(error), Err(_)) = (&v6, &v4) {
            return Err(failed(&format!("{host}: {error}")));
        }
        let answers: Vec<_> = [v4, v6].into_iter().filter_map(Result::ok).collect();
        let addresses =
            answers.iter().flat_map(|answer| answer.records()).filter_map(|record| record.address());
        Ok(addresses.filter(|ip| self.private || !route::is_private(*ip)).collect())
    }
}

impl Fetch for HttpsClient {
    fn get<'a>(
        &'a self,
        url: &'a str,
        limit: usize,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        let request = Request::builder().method(Method::GET);
        Box::pin(self.within(url, request, Vec::new(), limit, timeout))
    }
}

impl std::fmt::Debug for HttpsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpsClient").field("port", &self.port).finish_non_exhaustive()
    }
}

/// Reads an answer of at most `octets` octets; with 0, only its head.
async fn read(response: Response<Incoming>, octets: usize) -> Result<Fetched, FetchError> {
    let status = response.status().as_u16();
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let mut fetched =
        Fetched { status, content_type: content_type.unwrap_or_default().into(), body: Vec::new() };
    if octets == 0 {
        return Ok(fetched);
    }
    let mut incoming = response.into_body();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| failed(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        if data.len() > octets.saturating_sub(fetched.body.len()) {
            return Err(failed(&format!("the answer is longer than {octets} octets")));
        }
        fetched.body.extend_from_slice(data);
    }
    Ok(fetched)
}

fn failed(why: &dyn std::fmt::Display) -> FetchError {
    FetchError::Failed(why.to_string())
}

fn bad_tls(error: &std::io::Error) -> FetchError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(_)) => FetchError::Certificate(error.to_string()),
        _ => FetchError::Failed(format!("TLS: {error}")),
    }
}
