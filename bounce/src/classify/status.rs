//! What an enhanced status code says by itself.
//!
//! Invariant: every code of the IANA registry has an entry; a *strong* one is precise and is believed before the text,
//! a *weak* one is used for many things and only decides when the text does not.
//!
//! Standards: RFC 3463 3; RFC 5248 (registry), and the codes of RFC 3886, 4468, 4954, 5321 (RFC 7505), 6531, 6710, 7293,
//! 7372, 8616, 8689; Exchange Online's range 5.7.5xx to 5.7.7xx as Microsoft publishes it.
//!
//! Not here: text.

use postwright_core::EnhancedStatus;

use super::Category;

/// How far a status is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strength {
    Strong,
    Weak,
    /// `x.y.0`: the subject only.
    Vague,
}

/// The meaning of a status; `None` for one that says nothing (`x.0.0` and unknown subjects).
pub(super) fn meaning(status: EnhancedStatus) -> Option<(Category, Strength)> {
    use Category::*;
    use Strength::*;
    Some(match (status.subject(), status.detail()) {
        (1, 1 | 3) => (UserUnknown, Strong),
        (1, 2) => (HostUnknown, Strong),
        (1, 6) => (Moved, Strong),
        (1, 10) => (NoMail, Strong),
        (1, 7 | 8) => (SenderRejected, Weak),
        (1, 4) => (UserUnknown, Weak),
        (1, 5 | 9) => (Undefined, Weak),
        (1, 0) => (UserUnknown, Vague),
        (2, 0) => (SystemError, Vague),
        (3, 0) => (SystemError, Vague),
        (4, 0) => (Network, Vague),
        (5, 0) => (Protocol, Vague),
        (6, 0) => (Content, Vague),
        (7, 0) => (Policy, Vague),
        (1, _) => (Undefined, Weak),
        (2, 1) => (MailboxDisabled, Weak),
        (2, 2) => (MailboxFull, Strong),
        (2, 3) => (TooLarge, Strong),
        (2, 4) => (MailerError, Weak),
        (2, _) => (SystemError, Weak),
        (3, 1) => (SystemFull, Weak),
        (3, 4) => (TooLarge, Strong),
        (3, 3) => (Protocol, Weak),
        (3, _) => (SystemError, Weak),
        (4, 3) => (Dns, Weak),
        (4, 4) => (Dns, Weak),
        (4, 5) => (RateLimited, Weak),
        (4, 6) => (RoutingLoop, Weak),
        (4, 7) => (Expired, Weak),
        (4, _) => (Network, Weak),
        (5, 3) => (TooManyRecipients, Strong),
        (5, _) => (Protocol, Weak),
        (6, 7..=10) => (Protocol, Weak),
        (6, _) => (Content, Weak),
        (7, 13) => (MailboxDisabled, Weak),
        (7, 17 | 18) => (Moved, Strong),
        (7, 8 | 9 | 12 | 14) => (Credentials, Weak),
        (7, 4 | 6 | 10 | 11 | 30) => (Tls, Weak),
        (7, 5 | 3 | 7) => (Policy, Weak),
        (7, 20..=24 | 26 | 29) => (AuthFailure, Strong),
        (7, 25) => (RequirePtr, Strong),
        (7, 27) => (SenderRejected, Strong),
        (7, 28) => (RateLimited, Strong),
        (7, 509 | 515) => (AuthFailure, Weak),
        (7, 511..=513 | 606..=649) => (Blocked, Weak),
        (7, 501..=508 | 703 | 708 | 750) => (Policy, Weak),
        (7, 705 | 725) => (RateLimited, Weak),
        (7, _) => (Policy, Weak),
        _ => return None,
    })
}
