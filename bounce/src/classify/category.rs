//! What a refusal can mean: [`Category`] and the verdict's other halves, with the tables to other people's vocabularies.
//!
//! Invariant: every category has exactly one row in [`TABLE`]; only a dead address is `hard`.
//!
//! Standards: RFC 3463, RFC 5248 (what the categories distinguish).
//!
//! Not here: how a category is found (`status`, `rules`, `matcher`).

use std::fmt;
use std::str::FromStr;

/// Would a retry of this very message ever succeed?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Permanence {
    /// No.
    Permanent,
    /// It may.
    Transient,
    /// The refusal does not say.
    Unknown,
}

/// What the refusal is about: everything within the scope meets the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Scope {
    /// This recipient's address.
    Recipient,
    /// The mailbox behind it, which exists.
    Mailbox,
    /// The whole recipient domain or its servers.
    Domain,
    /// The sender's address or domain.
    Sender,
    /// The address that we send from.
    SourceIp,
    /// What the message says.
    Content,
    /// The customer on whose behalf we send.
    Tenant,
    /// Our own server.
    Us,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Action {
    /// Do not send to this address again.
    Suppress,
    /// Try again as usual.
    Retry,
    /// Stop sending to this destination for a while.
    BackOff,
    /// Mend SPF, DKIM, DMARC, TLS or credentials.
    FixAuth,
    /// Change the message.
    FixContent,
    /// Mend DNS: of the sender or of the sending host.
    FixDns,
    /// Send more slowly.
    SlowDown,
    /// Nothing is to be done.
    None,
}

macro_rules! names {
    ($type:ty, $($variant:ident = $name:literal),* $(,)?) => {
        impl $type {
            /// The name used in rules and in JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $type {
            type Err = UnknownName;
            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text { $($name => Ok(Self::$variant),)* _ => Err(UnknownName) }
            }
        }
    };
}

/// A name that stands for nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name is not one of the table's")]
pub struct UnknownName;

names!(Permanence, Permanent = "permanent", Transient = "transient", Unknown = "unknown");
names!(
    Scope,
    Recipient = "recipient",
    Mailbox = "mailbox",
    Domain = "domain",
    Sender = "sender",
    SourceIp = "source-ip",
    Content = "content",
    Tenant = "tenant",
    Us = "us",
);
names!(
    Action,
    Suppress = "suppress",
    Retry = "retry",
    BackOff = "back-off",
    FixAuth = "fix-auth",
    FixContent = "fix-content",
    FixDns = "fix-dns",
    SlowDown = "slow-down",
    None = "none",
);

/// One row: a category and what follows from it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Row {
    /// The category.
    pub category: Category,
    /// Its name in rules and in JSON.
    pub name: &'static str,
    /// Whether the address itself is dead.
    pub hard: bool,
    /// What it is about.
    pub scope: Scope,
    /// What to do about it when it is permanent; a transient one is retried, unless this says to slow down or back off.
    pub action: Action,
    /// The nearest status of RFC 3463, as subject.detail.
    pub iana: &'static str,
    /// PowerMTA's category.
    pub powermta: &'static str,
    /// KumoMTA's class.
    pub kumomta: &'static str,
    /// Sisimai's reason.
    pub sisimai: &'static str,
}

macro_rules! categories {
    ($($(#[$doc:meta])* $variant:ident $name:literal $hard:literal $scope:ident $action:ident
        $iana:literal $pmta:literal $kumo:literal $sisimai:literal;)*) => {
        /// What a refusal means.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Category { $($(#[$doc])* $variant,)* }

        /// All categories, with their names elsewhere.
        pub const TABLE: &[Row] = &[$(Row {
            category: Category::$variant, name: $name, hard: $hard, scope: Scope::$scope, action: Action::$action,
            iana: $iana, powermta: $pmta, kumomta: $kumo, sisimai: $sisimai,
        },)*];

        impl Category {
            /// The name used in rules and in JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Category::$variant => $name),* }
            }

            /// The row of [`TABLE`].
            pub fn row(self) -> &'static Row {
                // Rows stand in the order of the variants; a test walks the table.
                TABLE.get(self as usize).unwrap_or(&TABLE[0])
            }
        }
    };
}

categories! {
    /// Nothing tells what it is.
    Undefined "undefined" false Recipient None "0.0" "other" "Uncategorized" "undefined";
    /// No such mailbox.
    UserUnknown "user-unknown" true Recipient Suppress "1.1" "bad-mailbox" "InvalidRecipient" "userunknown";
    /// No such domain, or it has no mail host.
    HostUnknown "host-unknown" true Domain Suppress "1.2" "bad-domain" "BadDomain" "hostunknown";
    /// The mailbox has moved and nothing is passed on.
    Moved "moved" true Recipient Suppress "1.6" "bad-mailbox" "InvalidRecipient" "hasmoved";
    /// The domain or host accepts no mail at all.
    NoMail "no-mail" true Domain Suppress "1.10" "bad-domain" "BadDomain" "notaccept";
    /// The mailbox exists and is switched off.
    MailboxDisabled "mailbox-disabled" false Mailbox None "2.1" "inactive-mailbox" "InactiveMailbox" "suspend";
    /// The mailbox is full.
    MailboxFull "mailbox-full" false Mailbox Retry "2.2" "quota-issues" "QuotaIssues" "mailboxfull";
    /// The recipient or its server does not take mail from this sender.
    RecipientFilter "recipient-filter" false Mailbox None "7.1" "policy-related" "PolicyRelated" "filtered";
    /// The sender's address or domain is refused.
    SenderRejected "sender-rejected" false Sender FixAuth "1.8" "policy-related" "BadConfiguration" "rejected";
    /// The content looks like spam.
    Spam "spam" false Content FixContent "7.1" "spam-related" "SpamContent" "spamdetected";
    /// The content holds a virus.
    Virus "virus" false Content FixContent "7.1" "virus-related" "VirusDetected" "virusdetected";
    /// The content or its form is refused.
    Content "content" false Content FixContent "6.0" "content-related" "ContentRelated" "contenterror";
    /// The message is too large.
    TooLarge "too-large" false Content FixContent "3.4" "content-related" "ContentRelated" "mesgtoobig";
    /// A header field or address of the message breaks the standards.
    NotCompliant "not-compliant" false Content FixContent "6.0" "content-related" "ContentRelated" "notcompliantrfc";
    /// The sending address is on a block list or is blocked.
    Blocked "blocked" false SourceIp BackOff "7.1" "spam-related" "SpamBlock" "blocked";
    /// The sender's or the address's reputation is too low.
    BadReputation "bad-reputation" false SourceIp BackOff "7.1" "spam-related" "SpamBlock" "badreputation";
    /// The sending host has no proper reverse name.
    RequirePtr "require-ptr" false SourceIp FixDns "7.25" "bad-configuration" "BadConfiguration" "requireptr";
    /// SPF, DKIM or DMARC failed.
    AuthFailure "auth-failure" false Sender FixAuth "7.26" "policy-related" "AuthenticationFailed" "authfailure";
    /// A policy of the receiver.
    Policy "policy" false Content None "7.1" "policy-related" "PolicyRelated" "policyviolation";
    /// The server does not relay for us.
    RelayDenied "relay-denied" false Us None "7.1" "relaying-issues" "RelayDenied" "norelaying";
    /// Log-in is needed or failed.
    Credentials "credentials" false Us FixAuth "7.8" "bad-configuration" "BadConfiguration" "securityerror";
    /// TLS is needed or failed.
    Tls "tls" false Us FixAuth "7.10" "bad-configuration" "BadConfiguration" "failedstarttls";
    /// Too fast: messages in a time.
    RateLimited "rate-limited" false SourceIp SlowDown "7.28" "policy-related" "RateLimited" "speeding";
    /// Too many connections at once.
    TooManyConnections "too-many-connections" false SourceIp SlowDown "4.5" "bad-connection" "BadConnection" "toomanyconn";
    /// Too many recipients, or too many messages for this one.
    TooManyRecipients "too-many-recipients" false Tenant SlowDown "5.3" "other" "TooManyRecipients" "exceedlimit";
    /// Come back a little later, as a test.
    Greylisted "greylisted" false Domain Retry "7.1" "policy-related" "Greylisted" "undefined";
    /// No connection to the host, or it broke.
    Network "network" false Domain Retry "4.2" "no-answer-from-host" "NoAnswerFromHost" "networkerror";
    /// DNS has no answer at present.
    Dns "dns" false Domain Retry "4.3" "routing-errors" "DNSFailure" "networkerror";
    /// The message went in circles.
    RoutingLoop "loop" false Domain None "4.6" "routing-errors" "RoutingErrors" "networkerror";
    /// Given up after too many tries.
    Expired "expired" false Domain None "4.7" "message-expired" "MessageExpired" "expired";
    /// The remote system has a fault or pauses.
    SystemError "system-error" false Domain Retry "3.0" "other" "TransientFailure" "systemerror";
    /// The remote system's storage is full.
    SystemFull "system-full" false Domain Retry "3.1" "other" "TransientFailure" "systemfull";
    /// The remote delivery program failed.
    MailerError "mailer-error" false Mailbox Retry "3.0" "other" "TransientFailure" "mailererror";
    /// A command or parameter was not understood.
    Protocol "protocol" false Us None "5.0" "protocol-errors" "ProtocolErrors" "syntaxerror";
    /// Not a refusal: somebody's programme answered the mail (RFC 3834).
    AutoReply "auto-reply" false Recipient None "0.0" "other" "Uncategorized" "vacation";
    /// Not a refusal: the recipient complained (RFC 5965).
    Complaint "complaint" false Recipient Suppress "7.1" "spam-related" "SpamContent" "feedback";
    /// The message was delivered.
    Delivered "delivered" false Recipient None "0.0" "success" "Uncategorized" "delivered";
}

impl Category {
    /// Whether the address itself is dead: what suppresses at once.
    pub fn is_hard(self) -> bool {
        self.row().hard
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Category {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        TABLE.iter().find(|row| row.name == text).map(|row| row.category).ok_or(UnknownName)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_order_and_names_lead_back() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.category as usize, i);
            assert_eq!(row.name.parse(), Ok(row.category));
            assert_eq!(row.category.row().name, row.name);
            // Only what the mapping of Sisimai calls hard is hard here.
            assert_eq!(
                row.hard,
                ["userunknown", "hostunknown", "hasmoved", "notaccept"].contains(&row.sisimai)
            );
        }
        assert_eq!("no such".parse::<Category>(), Err(UnknownName));
    }
}
