//! What `[feedback]` of the configuration means to the library.

use std::sync::Arc;

use postwright::bounce::verp::Signer;
use postwright::feedback::{Feedback, FeedbackOptions, FeedbackStore};

use super::Failure;
use crate::config::{FeedbackConfig, feedback::keys};

/// The feedback that the configuration describes; `None` without a store.
pub(crate) fn assemble(config: &FeedbackConfig) -> Result<Option<Arc<Feedback>>, Failure> {
    let Some(path) = &config.store else { return Ok(None) };
    let store = Arc::new(FeedbackStore::open(path).map_err(Failure::new)?);
    let mut options = FeedbackOptions::default();
    options.hold = config.hold;
    options.complaints = config.complaints.iter().map(|local| local.as_str().into()).collect();
    if let (Some(domain), Some(file)) = (&config.domain, &config.keys) {
        let keys = keys(file)?;
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        options.signer = Signer::new(&keys, domain.clone());
        options.domain = Some(domain.clone());
    }
    Ok(Some(Arc::new(Feedback::new(options, store.clone(), store))))
}
