//! The envelope of a message: who sends it, to whom, and with which service extensions.
//!
//! Invariant: an envelope is what MAIL and RCPT agreed on, not what the header says.
//!
//! Standards: RFC 5321 2.3.1; RFC 3461 (NOTIFY, RET, ENVID, ORCPT); RFC 1870; RFC 6152; RFC 3030; RFC 6531;
//! RFC 8689; RFC 4954 5 (AUTH=); RFC 2852; RFC 4865; RFC 6710.
//!
//! Not here: parsing of parameters (smtp-proto).

use crate::{Mailbox, ReversePath, Timestamp};

/// How the body is encoded (RFC 6152, RFC 3030).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Body {
    /// Lines of ASCII.
    #[default]
    SevenBit,
    /// Lines of octets: `BODY=8BITMIME`.
    EightBitMime,
    /// Any octets, no line structure: `BODY=BINARYMIME`, only with CHUNKING.
    BinaryMime,
}

/// How much of the message a failure notification returns (RFC 3461 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ret {
    /// The whole message.
    Full,
    /// The header section only.
    Headers,
}

/// When the sender wants to hear of a recipient (RFC 3461 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Notify {
    /// `NEVER`.
    Never,
    /// Any of SUCCESS, FAILURE and DELAY; at least one is set.
    When {
        /// On delivery.
        success: bool,
        /// On failure.
        failure: bool,
        /// On delay.
        delay: bool,
    },
}

impl Notify {
    /// Whether a failure is to be reported.
    pub fn on_failure(self) -> bool {
        matches!(self, Notify::When { failure: true, .. })
    }

    /// Whether a delay is to be reported.
    pub fn on_delay(self) -> bool {
        matches!(self, Notify::When { delay: true, .. })
    }

    /// Whether a delivery is to be reported.
    pub fn on_success(self) -> bool {
        matches!(self, Notify::When { success: true, .. })
    }
}

/// Failures and delays: what a sender who says nothing gets (RFC 3461 4.1).
impl Default for Notify {
    fn default() -> Self {
        Notify::When { success: false, failure: true, delay: true }
    }
}

/// The original recipient of ORCPT: an address type and the decoded address (RFC 3461 4.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginalRecipient {
    /// The address type, such as `rfc822` or `utf-8`; kept as given.
    pub kind: Box<str>,
    /// The address with its xtext encoding removed.
    pub address: Box<str>,
}

/// One recipient of a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Recipient {
    /// The forward-path.
    pub mailbox: Mailbox,
    /// NOTIFY, if it was given. `None` is not the default written out: it is passed on as silence.
    pub notify: Option<Notify>,
    /// ORCPT, if it was given.
    pub original: Option<OriginalRecipient>,
}

impl From<Mailbox> for Recipient {
    fn from(mailbox: Mailbox) -> Self {
        Recipient { mailbox, notify: None, original: None }
    }
}

/// `BY=` of RFC 2852.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliverBy {
    /// The moment counted from.
    pub deadline: Timestamp,
    /// `N`: notify and go on; otherwise (`R`) return the message.
    pub notify: bool,
    /// `T`: tell about relaying too.
    pub trace: bool,
}

/// The parameters of MAIL that travel with the message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct MailOptions {
    /// SIZE as declared, in octets (RFC 1870).
    pub size: Option<u64>,
    /// BODY.
    pub body: Body,
    /// SMTPUTF8: the message or an address needs it (RFC 6531).
    pub smtp_utf8: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// RET (RFC 3461).
    pub ret: Option<Ret>,
    /// ENVID with its xtext encoding removed (RFC 3461).
    pub envelope_id: Option<Box<str>>,
    /// AUTH=: who is said to have submitted the message; `Some(Null)` is `AUTH=<>` (RFC 4954 5).
    pub auth: Option<ReversePath>,
    /// BY= (RFC 2852).
    pub deliver_by: Option<DeliverBy>,
    /// HOLDFOR= or HOLDUNTIL=: not before this moment (RFC 4865).
    pub hold_until: Option<Timestamp>,
    /// MT-PRIORITY=, -9 to 9 (RFC 6710).
    pub priority: Option<i8>,
}

/// Sender, recipients and options of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// MAIL FROM.
    pub reverse_path: ReversePath,
    /// RCPT TO, in the order of acceptance.
    pub recipients: Vec<Recipient>,
    /// The parameters of MAIL.
    pub options: MailOptions,
}

impl Envelope {
    /// An envelope without options.
    pub fn new(
        reverse_path: impl Into<ReversePath>,
        recipients: impl IntoIterator<Item = Mailbox>,
    ) -> Envelope {
        Envelope {
            reverse_path: reverse_path.into(),
            recipients: recipients.into_iter().map(Recipient::from).collect(),
            options: MailOptions::default(),
        }
    }
}
