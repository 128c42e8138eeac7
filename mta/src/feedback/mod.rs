//! What comes back about mail that was sent: [`Feedback`] keeps dead addresses from being tried again, gives each message a
//! return path of its own, and understands what comes to it.
//!
//! ```text
//! delivery --> on the list? settled as failed, Cause::Suppressed     outcome --> hard? on the list; rates
//!         \--> departs: return path b-ID-DAY-TAG@bounces, journal    later: DSN, complaint --> matched --> list, rates, event
//! ```
//!
//! Invariants: an address is suppressed only for the tenant and stream whose mail it refused; only what bears our signature, or
//! names a message that we sent, changes the list; and only recipients of that very message. What comes to the bounce domain
//! is never queued, so it never causes a notification.
//!
//! Standards: RFC 3464, RFC 5965, RFC 3834 2 (answers to answers), RFC 5321 4.5.5 (null reverse-path).
//!
//! Not here: what a refusal means (bounce), storage (`store`), the way of a message (pipeline.rs).

mod gate;
mod incoming;
mod journal;
#[cfg(feature = "embedded")]
mod store;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postwright_bounce::classify::{Classification, Classifier};
use postwright_bounce::rates::{Happening, Key, Level, Levels, Rates, Sums};
use postwright_bounce::suppress::{Entry as Suppressed, Reason, Scope, Suppressions, Thresholds, consider};
use postwright_bounce::verp::Signer;
use postwright_core::{
    Cause, DeliveryStatus, Domain, EnhancedStatus, Mailbox, Outcome, Phase, ReversePath, Timestamp,
};
use postwright_queue::{Entry, SpoolId};

pub(crate) use gate::{Gate, return_path};
pub(crate) use incoming::Hearers;
pub use incoming::{Ignored, Incoming};
pub use journal::{Departed, Journal, MemoryJournal, Trail};
#[cfg(feature = "embedded")]
pub use store::{FeedbackStore, StoreError};

use crate::event::Observers;
use crate::{Event, Observer};

/// Marks an entry that we originate: only its return path is ours to choose.
const ORIGINATED: &str = "originated";
/// Addresses whose soft bounces are remembered; more are forgotten, the earliest in the alphabet first.
const SOFT_MAX: usize = 100_000;
/// How often the list is looked through for entries whose time is over.
const EXPIRY_PAUSE: Duration = Duration::from_secs(3600);
/// Keys that rates are kept for.
const RATES_MAX: usize = 10_000;

/// How feedback is handled.
#[non_exhaustive]
pub struct FeedbackOptions {
    /// Reads refusals.
    pub classifier: Arc<Classifier>,
    /// When bounces put an address on the list.
    pub thresholds: Thresholds,
    /// The rates that matter.
    pub levels: Levels,
    /// Rates are over this span: 24 hours.
    pub window: Duration,
    /// How long a return path is good and a departure is remembered: 30 days.
    pub hold: Duration,
    /// The domain whose mail is read as bounces and complaints.
    pub domain: Option<Domain>,
    /// Signs return paths at that domain.
    pub signer: Option<Signer>,
    /// Local parts of that domain that take complaints and other bounces: `fbl`, `abuse`, `postmaster`.
    pub complaints: Vec<Box<str>>,
}

impl Default for FeedbackOptions {
    fn default() -> Self {
        let day = Duration::from_secs(86_400);
        FeedbackOptions {
            classifier: Arc::new(Classifier::built_in()),
            thresholds: Thresholds::default(),
            levels: Levels::default(),
            window: day,
            hold: day * 30,
            domain: None,
            signer: None,
            complaints: ["fbl", "abuse", "postmaster"].map(Into::into).to_vec(),
        }
    }
}

/// What feedback brought. Told as [`Event::Feedback`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeedbackEvent {
    /// A message that was handed over came back, or its recipient complained.
    Returned {
        /// The message; its id in the spool it has left.
        about: SpoolId,
        /// For whom it was sent.
        tenant: Box<str>,
        /// The kind of mail.
        stream: Box<str>,
        /// Its recipient.
        recipient: Mailbox,
        /// What it means.
        verdict: Box<Classification>,
        /// The reason with which the address went on the list, if it did.
        suppressed: Option<Reason>,
    },
    /// A refusal at delivery put an address on the list.
    Suppressed {
        /// The message that was refused.
        about: SpoolId,
        /// The address.
        recipient: Mailbox,
        /// Why.
        reason: Reason,
    },
    /// Something came to the bounce domain that changes nothing.
    Ignored(Ignored),
    /// A rate has risen above a level.
    Alert {
        /// Whose rate.
        key: Key,
        /// The counts in the window.
        sums: Sums,
        /// The level that it is at now.
        level: Level,
    },
}

/// How often what came back was what; see [`Feedback::counts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FeedbackCounts {
    /// Recipients that were not tried because they are on the list.
    pub stopped: u64,
    /// Addresses that went on the list.
    pub suppressed: u64,
    /// Bounces that came by mail and were matched.
    pub bounces: u64,
    /// Complaints that were matched.
    pub complaints: u64,
    /// Automatic replies.
    pub auto_replies: u64,
    /// Addresses of our form without our signature, or too old.
    pub forged: u64,
    /// What could not be matched to a message of ours, or says nothing.
    pub unmatched: u64,
    /// Entries whose time was over and that were taken off the list.
    pub expired: u64,
}

#[derive(Default)]
struct Counters {
    stopped: AtomicU64,
    suppressed: AtomicU64,
    bounces: AtomicU64,
    complaints: AtomicU64,
    auto_replies: AtomicU64,
    forged: AtomicU64,
    unmatched: AtomicU64,
    expired: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

type SoftBounces = BTreeMap<(Box<str>, Scope), Vec<Timestamp>>;

/// The list, the journal of what departed, and the rates: give it to [`Builder::feedback`](crate::Builder::feedback).
pub struct Feedback {
    options: FeedbackOptions,
    list: Arc<dyn Suppressions>,
    journal: Arc<dyn Journal>,
    /// Times of soft bounces by address and scope.
    soft: Mutex<SoftBounces>,
    rates: Mutex<(Rates, BTreeMap<Key, Level>)>,
    /// When the list is looked through again.
    next_expiry: Mutex<Timestamp>,
    counters: Counters,
}

impl Feedback {
    /// Keeps the list and the journal where they are told to.
    pub fn new(options: FeedbackOptions, list: Arc<dyn Suppressions>, journal: Arc<dyn Journal>) -> Feedback {
        let rates = Mutex::new((Rates::new(options.window, RATES_MAX), BTreeMap::new()));
        let (soft, next_expiry) = (Mutex::default(), Mutex::default());
        Feedback { options, list, journal, soft, rates, next_expiry, counters: Counters::default() }
    }

    /// The list.
    pub fn suppressions(&self) -> &Arc<dyn Suppressions> {
        &self.list
    }

    /// The counts since start.
    pub fn counts(&self) -> FeedbackCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let all = &self.counters;
        FeedbackCounts {
            stopped: read(&all.stopped),
            suppressed: read(&all.suppressed),
            bounces: read(&all.bounces),
            complaints: read(&all.complaints),
            auto_replies: read(&all.auto_replies),
            forged: read(&all.forged),
            unmatched: read(&all.unmatched),
            expired: read(&all.expired),
        }
    }

    /// The counts in the window and their level, of one tenant, stream and provider: what shaping and warm-up ask for.
    pub fn rate(&self, key: &Key, now: Timestamp) -> (Sums, Level) {
        let rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = rates.0.sums(key, now);
        (sums, sums.level(&self.options.levels))
    }

    /// Notes in a new entry that we originate it.
    pub(crate) fn mark(&self, entry: &mut Entry) {
        if self.options.signer.is_some() {
            entry.metadata.insert(ORIGINATED.into(), Box::new([1]));
        }
    }

    /// Why a recipient is not tried, if the list says so.
    pub(crate) fn stops(&self, entry: &Entry, to: &Mailbox, now: Timestamp) -> Option<DeliveryStatus> {
        let stream = Some(&*entry.stream).filter(|stream| !stream.is_empty());
        let found = self.list.check(tenant(&entry.tenant), stream, to, now)?;
        add(&self.counters.stopped);
        let cause = Cause::Suppressed(found.reason.as_str().into());
        Some(DeliveryStatus::local(EnhancedStatus::known(5, 7, 1), cause, Phase::Resolve, now))
    }

    /// The reverse-path that a message leaves with; what is journalled about it is found by that path again.
    pub(crate) fn depart(
        &self,
        entry: &Entry,
        message_id: impl FnOnce() -> Option<String>,
        now: Timestamp,
    ) -> ReversePath {
        let own = &entry.envelope.reverse_path;
        let (ReversePath::Mailbox(sender), Some(signer)) = (own, &self.options.signer) else {
            return own.clone();
        };
        if !entry.metadata.contains_key(ORIGINATED) {
            return own.clone();
        }
        let Some(path) = signer.address(&entry.id.to_string(), entry.created + self.options.hold) else {
            return own.clone();
        };
        self.journal.note(
            entry.id,
            &Departed {
                tenant: entry.tenant.clone(),
                stream: entry.stream.clone(),
                sender: sender.to_string().into(),
                recipients: entry
                    .envelope
                    .recipients
                    .iter()
                    .map(|to| to.mailbox.to_string().into())
                    .collect(),
                message_id: message_id().map(Into::into),
            },
            now,
        );
        ReversePath::Mailbox(path)
    }

    /// The way that a message took to a domain, for what comes back about it.
    pub(crate) fn took(&self, entry: &Entry, domain: &Domain, trail: &Trail) {
        if self.options.signer.is_some() && entry.metadata.contains_key(ORIGINATED) {
            self.journal.took(entry.id, domain, trail);
        }
    }

    /// A recipient's end, as the delivery saw it: for the rates, and for the list if the address is dead.
    pub(crate) fn ended(
        &self,
        entry: &Entry,
        recipient: &Mailbox,
        status: &DeliveryStatus,
        now: Timestamp,
        observers: &Observers,
    ) {
        use postwright_core::Diagnostic::Local;
        // Notifications of our own bounce without anybody's fault.
        if matches!(entry.envelope.reverse_path, ReversePath::Null)
            || matches!(status.diagnostic, Local(Cause::Suppressed(_) | Cause::Cancelled(_)))
        {
            return;
        }
        let key = rate_key(&entry.tenant, &entry.stream, recipient);
        self.count(&key, Happening::Sent, now, observers);
        if status.outcome != Outcome::Failed {
            return;
        }
        self.count(&key, Happening::Bounced, now, observers);
        let verdict = self.options.classifier.classify(status);
        let note = status.diagnostic.to_string();
        if let Some(reason) = self.judge(&verdict, &entry.tenant, &entry.stream, recipient, &note, now) {
            let recipient = recipient.clone();
            observers.tell(Event::Feedback(&FeedbackEvent::Suppressed {
                about: entry.id,
                recipient,
                reason,
            }));
        }
    }

    /// Puts an address on the list if the verdict says so.
    fn judge(
        &self,
        verdict: &Classification,
        of: &str,
        stream: &str,
        recipient: &Mailbox,
        note: &str,
        now: Timestamp,
    ) -> Option<Reason> {
        let address: Box<str> = recipient.to_string().to_lowercase().into();
        let scope = Scope {
            tenant: tenant(of).into(),
            stream: Some(stream).filter(|stream| !stream.is_empty()).map(Into::into),
        };
        let decided = {
            let mut soft = self.soft.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (address.clone(), scope.clone());
            let mut times = soft.remove(&key).unwrap_or_default();
            let decided = consider(verdict, &mut times, &self.options.thresholds, now);
            if !times.is_empty() {
                if soft.len() >= SOFT_MAX {
                    soft.pop_first();
                }
                soft.insert(key, times);
            }
            decided
        };
        let (reason, until) = decided?;
        let note = note.get(..note.floor_char_boundary(200)).unwrap_or("").into();
        self.list.add(Suppressed { address, scope, reason, since: now, until, note });
        add(&self.counters.suppressed);
        Some(reason)
    }

    /// Counts, and tells when a level is passed upwards.
    fn count(&self, key: &Key, what: Happening, now: Timestamp, observers: &Observers) {
        let alert = {
            let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
            if !rates.0.record(key, what, now) {
                return;
            }
            let sums = rates.0.sums(key, now);
            let level = sums.level(&self.options.levels);
            let before = match level {
                Level::Fine => rates.1.remove(key),
                _ => {
                    // Bounded by the keys that are counted.
                    if rates.1.len() > RATES_MAX {
                        rates.1.clear();
                    }
                    rates.1.insert(key.clone(), level)
                }
            };
            (level > before.unwrap_or(Level::Fine)).then_some((sums, level))
        };
        if let Some((sums, level)) = alert {
            observers.tell(Event::Feedback(&FeedbackEvent::Alert { key: key.clone(), sums, level }));
        }
    }

    /// Forgets what is past its time; called now and then, where waiting for a disk is allowed.
    pub(crate) fn tidy(&self, now: Timestamp) {
        self.journal.forget(Timestamp::from_millis(
            now.millis().saturating_sub(u64::try_from(self.options.hold.as_millis()).unwrap_or(u64::MAX)),
        ));
        if self.is_expiry_due(now) {
            let gone = u64::try_from(self.list.expire(now)).unwrap_or(u64::MAX);
            self.counters.expired.fetch_add(gone, Ordering::Relaxed);
        }
        if let Err(error) = self.list.sync() {
            tracing::error!(%error, "the suppression list");
        }
    }
}

impl Feedback {
    fn is_expiry_due(&self, now: Timestamp) -> bool {
        let mut next = self.next_expiry.lock().unwrap_or_else(PoisonError::into_inner);
        let due = *next <= now;
        if due {
            *next = now + EXPIRY_PAUSE;
        }
        due
    }
}

impl std::fmt::Debug for Feedback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feedback for {:?}", self.options.domain)
    }
}

/// A system with one customer calls it `default`, as the command line does.
fn tenant(tenant: &str) -> &str {
    if tenant.is_empty() { "default" } else { tenant }
}

/// Rates are kept by the recipients' domain: which provider stands behind it is not known here.
fn rate_key(of: &str, stream: &str, recipient: &Mailbox) -> Key {
    let provider = recipient.host().to_string();
    Key { tenant: tenant(of).into(), stream: stream.into(), source: "".into(), provider: provider.into() }
}

/// Tells observers of feedback only.
#[doc(hidden)]
pub fn on_feedback(tell: impl Fn(&FeedbackEvent) + Send + Sync) -> impl Observer {
    move |event: &Event<'_>| {
        if let Event::Feedback(event) = event {
            tell(event);
        }
    }
}
