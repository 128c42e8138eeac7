//! Daily aggregate reports in `serve`: the store on disk, and who we are in them.
//!
//! Not here: what a report is and when it leaves (the library's `reports`).

use std::sync::Arc;

use postwright::core::{Mailbox, ReversePath, World};
use postwright::reports::{JournalRows, ReportSettings, Reports};

use crate::commands::Failure;
use crate::config::Config;

/// What collects and sends, if the configuration asks for it.
pub(crate) fn open(config: &Config, world: &World) -> Result<Option<Arc<Reports>>, Failure> {
    let wanted = &config.reports;
    if !wanted.send {
        return Ok(None);
    }
    let own = Mailbox::quote("dmarc-reports", config.hostname.clone());
    let from = match (&wanted.from, own) {
        (Some(from), _) => from.clone(),
        (None, Ok(own)) => own,
        (None, Err(error)) => return Err(Failure::new(format!("reports.from: {error}"))),
    };
    let mut settings = ReportSettings::new(config.hostname.clone(), from);
    if let Some(organization) = &wanted.organization {
        settings.organization.clone_from(organization);
    }
    if let Some(sender) = &wanted.sender {
        settings.reverse_path = ReversePath::Mailbox(sender.clone());
    }
    settings.contact.clone_from(&wanted.contact);
    settings.earliest = wanted.earliest;
    settings.spread = wanted.spread;
    let path = wanted.path.join("rows");
    let rows = JournalRows::open(&path, wanted.rows)
        .map_err(|error| Failure::new(format!("reports.path: {}: {error}", path.display())))?;
    Ok(Some(Arc::new(Reports::new(settings, Arc::new(rows), world.clone()))))
}
