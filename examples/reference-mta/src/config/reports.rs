//! `[reports]`: daily aggregate reports to domains that ask for them.

use std::path::PathBuf;
use std::time::Duration;

use postwright_core::Mailbox;
use serde::{Deserialize, Deserializer, de};

use super::schema::from_span;

/// Whether, as whom and when reports are sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Reports {
    pub(crate) send: bool,
    pub(crate) path: PathBuf,
    pub(crate) organization: Option<String>,
    #[serde(deserialize_with = "from_mailbox")]
    pub(crate) from: Option<Mailbox>,
    #[serde(deserialize_with = "from_mailbox")]
    pub(crate) sender: Option<Mailbox>,
    pub(crate) contact: Option<String>,
    #[serde(deserialize_with = "from_span")]
    pub(crate) earliest: Duration,
    #[serde(deserialize_with = "from_span")]
    pub(crate) spread: Duration,
    pub(crate) rows: usize,
}

impl Default for Reports {
    fn default() -> Self {
        Reports {
            send: false,
            path: PathBuf::from("/var/spool/postwright-reports"),
            organization: None,
            from: None,
            sender: None,
            contact: None,
            earliest: Duration::from_secs(600),
            spread: Duration::from_secs(2 * 3600),
            rows: 100_000,
        }
    }
}

impl Reports {
    pub(super) fn check(&self, evaluates: bool) -> Result<(), String> {
        if self.send && !evaluates {
            return Err(
                "reports.send needs authentication.check = true: there is nothing to report".to_owned()
            );
        }
        if self.rows == 0 {
            return Err("reports.rows is 0: nothing would be collected; the least is 1".to_owned());
        }
        Ok(())
    }
}

fn from_mailbox<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Mailbox>, D::Error> {
    let text = String::deserialize(input)?;
    text.parse().map(Some).map_err(|error| de::Error::custom(format!("{text:?}: {error}")))
}
