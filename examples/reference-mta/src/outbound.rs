//! The outbound half of `postwright serve` from its configuration: routes and their accounts, classes of mail, MTA-STS, TLS reports.
//!
//! Not here: what the parts do (the library), the configuration's shape (config/schema.rs).

use std::path::Path;
use std::sync::Arc;

use postwright::core::{Envelope, World};
use postwright::smtp_client::{Client, Trust};
use postwright::{Builder, Class, FileStore, HttpsClient, MtaSts, TlsReporting, TlsReports, Visit};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::commands::Failure;
use crate::config::Config;
use crate::config::route::{self, ClassOf};
use crate::relay_accounts::RelayAccounts;

/// Where mail goes, with which accounts, and whose mail it is.
pub(crate) fn with_routes(
    builder: Builder,
    config: &Config,
    world: &World,
    accounts: &RelayAccounts,
) -> Result<Builder, Failure> {
    let mut routes = route::routes(config, accounts.all()).map_err(Failure::new)?;
    routes.mx_port = config.delivery.port;
    routes.rules.prohibit_private = !config.delivery.private_addresses;
    routes.rules.own_names = vec![config.hostname.clone()];
    routes.rules.own_addresses = config.listen.iter().map(|listener| listener.address.ip()).collect();
    let mut builder = builder.routes(routes);
    if let Some(path) = &config.delivery.roots {
        let trust = Trust::WebAnd(roots(path)?);
        let client = Client::new(&trust, world.clock.clone());
        builder = builder.relay_client(client.map_err(|error| wrong_roots(path, &error))?);
    }
    if !config.class.is_empty() {
        let classes = config.class.clone();
        builder = builder.classes(move |visit, envelope| class_of(&classes, visit, envelope));
    }
    Ok(builder)
}

/// The certificates of a PEM file.
pub(crate) fn roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(roots) if roots.is_empty() => Err(wrong_roots(path, &"holds no certificate")),
        Ok(roots) => Ok(roots),
        Err(error) => Err(wrong_roots(path, &error)),
    }
}

fn wrong_roots(path: &Path, what: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("delivery.roots: {}: {what}", path.display()))
}

/// The first class that fits mail of ours; what strangers send is of none.
fn class_of(classes: &[ClassOf], visit: &Visit<'_>, envelope: &Envelope) -> Class {
    let fits = |class: &&ClassOf| {
        let from = class.from.is_empty() || class.from.iter().any(|net| net.contains(visit.peer.ip()));
        let senders = &class.sender.0;
        from && (senders.is_empty() || senders.iter().any(|sender| sender.fits(&envelope.reverse_path)))
    };
    let found = classes.iter().filter(|_| visit.trusted).find(fits);
    let name = |name: &String| name.as_str().into();
    found.map_or_else(Class::default, |class| Class {
        tenant: name(&class.tenant),
        stream: name(&class.stream),
    })
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
