//! Everything worth telling: the closed [`Event`] enum, the one source of logs, metrics and feedback.
//!
//! Invariant: each accepted recipient gives exactly one of `Delivered`, `Bounced`, `Expired` or `Cancelled` in
//! the end (I2). An event is told after what it tells of is durable.
//!
//! Not here: formatting for a log (the embedder's), counting (metrics.rs).

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use postwright_core::{DeliveryStatus, Diagnostic, Mailbox, Phase, Reply, ReversePath, Timestamp};
use postwright_queue::SpoolId;
use postwright_smtp_proto::client::{Timings, queue_id};

use crate::feedback::FeedbackEvent;

/// What happened. Closed on purpose: an observer that ignores a case does so in so many words.
#[derive(Debug)]
pub enum Event<'a> {
    /// A peer was given a 4xx or 5xx.
    Refused {
        /// Who.
        peer: SocketAddr,
        /// What it was told.
        reply: &'a Reply,
    },
    /// A message is ours: durable, and its 250 is on the way.
    Accepted {
        /// Its id.
        id: SpoolId,
        /// Who gave it to us; `None` for a notification of our own.
        peer: Option<SocketAddr>,
        /// Its sender.
        reverse_path: &'a ReversePath,
        /// How many recipients.
        recipients: usize,
        /// Its size in octets.
        octets: usize,
    },
    /// A recipient was handed over.
    Delivered {
        /// The message.
        id: SpoolId,
        /// To whom.
        recipient: &'a Mailbox,
        /// The remote's word.
        status: &'a DeliveryStatus,
        /// Time since acceptance.
        after: Duration,
        /// How many attempts it took.
        attempts: u32,
        /// Where the time of the last attempt went; `None` if there was none, or a restart came between.
        timings: Option<&'a Timings>,
    },
    /// A recipient waits for another attempt.
    Deferred {
        /// The message.
        id: SpoolId,
        /// For whom.
        recipient: &'a Mailbox,
        /// Why.
        status: &'a DeliveryStatus,
        /// When it is tried again.
        next: Timestamp,
        /// Where the time of the attempt went, if there was one.
        timings: Option<&'a Timings>,
    },
    /// A recipient was refused for good.
    Bounced {
        /// The message.
        id: SpoolId,
        /// For whom.
        recipient: &'a Mailbox,
        /// Why.
        status: &'a DeliveryStatus,
        /// Where the time of the attempt went, if there was one.
        timings: Option<&'a Timings>,
    },
    /// A recipient's lifetime ended.
    Expired {
        /// The message.
        id: SpoolId,
        /// For whom.
        recipient: &'a Mailbox,
        /// The last that was heard.
        status: &'a DeliveryStatus,
    },
    /// An operator removed a message.
    Cancelled {
        /// The message.
        id: SpoolId,
        /// For whom.
        recipient: &'a Mailbox,
    },
    /// A notification about another message is durable and queued.
    Notified {
        /// The notification's id.
        id: SpoolId,
        /// The message it is about.
        about: SpoolId,
        /// Who is told.
        to: &'a Mailbox,
    },
    /// A notification could not be told to anybody (null reverse-path).
    Unnotified {
        /// The message it would have been about.
        about: SpoolId,
    },
    /// The spool failed; what was being done will be tried again.
    SpoolFailed {
        /// What was being done.
        doing: &'static str,
        /// The error's text.
        error: &'a str,
    },
    /// A record of the spool cannot be read; it is set aside and counted.
    Damaged {
        /// What is known of it.
        what: &'a str,
    },
    /// A smart host refused an account, or has no mechanism for it: our configuration is at fault. Mail by that account
    /// waits, and costs no message a try, until the account is tried again.
    LoginRefused {
        /// The account's name in the configuration.
        account: &'a str,
        /// The user name that was refused.
        user: &'a str,
        /// By whom, and with which words.
        status: &'a DeliveryStatus,
        /// When it is tried again, unless it is exchanged before.
        until: Timestamp,
    },
    /// What came back about mail that was sent, and what was done about it.
    Feedback(&'a FeedbackEvent),
    /// The queue was read at start.
    Loaded {
        /// Messages found.
        messages: usize,
        /// Records that cannot be read.
        damaged: usize,
    },
}

impl Event<'_> {
    /// What the remote calls the message in its own queue, if it took it and its reply says so in a form that is
    /// known: found out when asked.
    pub fn remote_id(&self) -> Option<Box<str>> {
        let Event::Delivered { status, .. } = self else { return None };
        match &status.diagnostic {
            Diagnostic::Smtp(reply) if status.phase == Phase::EndOfData => queue_id(reply),
            _ => None,
        }
    }
}

/// Who is told of events: called from many tasks, so quick and without waiting.
pub trait Observer: Send + Sync {
    /// Takes one event.
    fn event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync> Observer for F {
    fn event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// All who are told.
#[derive(Clone, Default)]
pub(crate) struct Observers(Vec<Arc<dyn Observer>>);

impl Observers {
    pub(crate) fn add(&mut self, observer: Arc<dyn Observer>) {
        self.0.push(observer);
    }

    pub(crate) fn tell(&self, event: Event<'_>) {
        for observer in &self.0 {
            // What an observer cannot bear must not stop a message on its way.
            if catch_unwind(AssertUnwindSafe(|| observer.event(&event))).is_err() {
                tracing::error!(?event, "an observer panicked");
            }
        }
    }
}
