//! The outbound half of `postwright serve` from its configuration: routes, MTA-STS, TLS reports.
//!
//! Not here: what the parts do (the library), the configuration's shape (config/schema.rs).

use std::sync::Arc;

use postwright::core::World;
use postwright::smtp_client::Trust;
use postwright::smtp_client::policy::Level;
use postwright::{Builder, FileStore, HttpsClient, MtaSts, Routes, TlsReporting, TlsReports, Via};

use crate::commands::Failure;
use crate::config::{Config, Lmtp, SmartHost};

/// Where mail goes.
pub(crate) fn routes(config: &Config) -> Routes {
    let mut routes = match &config.delivery.smart_host {
        Some(SmartHost { host, port }) => Routes::smart_host(host.clone(), *port),
        None => Routes::mx(),
    };
    routes.mx_port = config.delivery.port;
    routes.rules.prohibit_private = !config.delivery.private_addresses;
    routes.rules.own_names = vec![config.hostname.clone()];
    routes.rules.own_addresses = config.listen.iter().map(|listener| listener.address.ip()).collect();
    let tls = Level::Opportunistic;
    for route in &config.route {
        let via = match (route.host.clone(), route.lmtp.clone()) {
            (_, Some(Lmtp::Socket(path))) => Via::LmtpSocket(path),
            (_, Some(Lmtp::Host(SmartHost { host, port }))) => Via::Lmtp { host, port, tls },
            (Some(SmartHost { host, port }), None) => Via::SmartHost { host, port, tls },
            // The check of the configuration has refused it.
            (None, None) => continue,
        };
        routes = routes.with_domain(route.domain.clone(), via);
    }
    routes
}

/// Adds what keeps to the policies of other domains and reports to them, as far as it is configured.
pub(crate) fn with_policies_of_others(
    mut builder: Builder,
    config: &Config,
    world: &World,
) -> Result<Builder, Failure> {
    let https = || -> Result<HttpsClient, Failure> {
        let client = HttpsClient::new(&Trust::Web, world.clock.clone(), world.resolver.clone());
        let client = client.map_err(Failure::new)?;
        Ok(client.with_private_addresses(config.delivery.private_addresses))
    };
    if let Some(folder) = &config.delivery.mta_sts {
        let store = FileStore::open(folder)
            .map_err(|error| Failure::new(format!("delivery.mta_sts: {}: {error}", folder.display())))?;
        builder = builder.mta_sts(MtaSts { fetch: Arc::new(https()?), store: Arc::new(store) });
    }
    if let Some(reports) = &config.tls_reports {
        let settings = TlsReporting {
            organization: reports.organization.clone(),
            contact: reports.contact.clone(),
            from: reports.from.clone(),
            file: reports.file.clone(),
            https: Some(https()?),
        };
        let reports = TlsReports::open(settings, config.hostname.clone(), world.clone());
        builder = builder.tls_reports(Arc::new(reports.map_err(Failure::new)?));
    }
    Ok(builder)
}
