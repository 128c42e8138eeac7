//! Delivery status notifications: what composing and reading share.
//!
//! Standards: RFC 3461, RFC 3464, RFC 6522, RFC 6533.
//!
//! Not here: bounces that follow no standard (`legacy`), what a status means (`classify`).

mod compose;
mod fields;
mod parse;
mod returned;

pub use compose::{ComposeError, Composer, Dsn, DsnId, Fate, Original, delay_is_due};
pub(crate) use parse::clean_address;
pub use parse::{Notification, RecipientStatus, parse};

use std::fmt;
use std::str::FromStr;

use postwright_core::{DeliveryStatus, Notify, Outcome};

/// What a reporting server did with a recipient (RFC 3464 2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Given up.
    Failed,
    /// Not yet delivered; tries go on.
    Delayed,
    /// In the mailbox.
    Delivered,
    /// Handed to a system that reports nothing itself.
    Relayed,
    /// Handed to several addresses.
    Expanded,
}

impl Action {
    /// All actions.
    pub const ALL: [Action; 5] =
        [Action::Failed, Action::Delayed, Action::Delivered, Action::Relayed, Action::Expanded];

    /// The action that reports an outcome: an unknown one is reported as a failure, because silence would lose mail.
    pub fn of(status: &DeliveryStatus) -> Action {
        match status.outcome {
            Outcome::Delivered => Action::Delivered,
            Outcome::Relayed => Action::Relayed,
            Outcome::Delayed => Action::Delayed,
            Outcome::Failed | Outcome::Unknown => Action::Failed,
        }
    }

    /// Whether a sender who asked for `notify` hears of this action (RFC 3461 4.1; silence asks for failures and
    /// delays only).
    pub fn is_wanted(self, notify: Option<Notify>) -> bool {
        let notify = notify.unwrap_or_default();
        match self {
            Action::Failed => notify.on_failure(),
            Action::Delayed => notify.on_delay(),
            Action::Delivered | Action::Relayed | Action::Expanded => notify.on_success(),
        }
    }
}

impl Action {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Failed => "failed",
            Action::Delayed => "delayed",
            Action::Delivered => "delivered",
            Action::Relayed => "relayed",
            Action::Expanded => "expanded",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not one of the five actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an action of RFC 3464 2.3.3: failed, delayed, delivered, relayed or expanded")]
pub struct ActionError;

impl FromStr for Action {
    type Err = ActionError;

    /// Takes any case.
    fn from_str(text: &str) -> Result<Action, ActionError> {
        Action::ALL
            .into_iter()
            .find(|action| action.to_string().eq_ignore_ascii_case(text))
            .ok_or(ActionError)
    }
}
