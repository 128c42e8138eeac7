//! How fast each receiver is sent to: the seam [`Pace`], and (feature `shaping`) [`Shaped`].
//!
//! Invariant: nothing is sent without a pass; a pass that is not granted costs the message no try.
//!
//! Not here: the limits (shaping), what a refusal means (bounce). This is where the two, which do not know each
//! other, meet.

use postwright_core::{DeliveryStatus, Domain, Timestamp};

/// What is about to be sent.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Departure<'a> {
    /// The recipients' domain.
    pub domain: &'a Domain,
    /// For whom.
    pub tenant: &'a str,
    /// Which kind of mail.
    pub stream: &'a str,
    /// Octets of the message.
    pub octets: u64,
}

/// Not now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotNow {
    /// When to ask again.
    pub until: Timestamp,
    /// What stands in the way.
    pub because: Box<str>,
}

/// Gives back what a departure took when it is dropped.
pub type Pass = Box<dyn Send>;

/// Decides when something may be sent, and hears what came of it.
pub trait Pace: Send + Sync {
    /// A pass, to be held for as long as the attempt runs; or when to ask again.
    fn admit(&self, departure: Departure<'_>, now: Timestamp) -> Result<Pass, NotNow>;

    /// What became of one recipient.
    fn observe(&self, departure: Departure<'_>, status: &DeliveryStatus, now: Timestamp);
}

#[cfg(feature = "shaping")]
pub use shaped::Shaped;

#[cfg(feature = "shaping")]
mod shaped {
    use std::sync::Arc;

    use postwright_bounce::classify::{Action, Category, Classifier};
    use postwright_core::{Outcome, Phase};
    use postwright_shaping::{Admission, Ask, Path, Shaper, Signal};

    use super::{DeliveryStatus, Departure, NotNow, Pace, Pass, Timestamp};

    /// Limits by a [`Shaper`], which learns from what the [`Classifier`] makes of each status.
    pub struct Shaped {
        shaper: Arc<Shaper>,
        classifier: Arc<Classifier>,
    }

    impl Shaped {
        /// Keeps to the shaper's limits.
        pub fn new(shaper: Arc<Shaper>, classifier: Arc<Classifier>) -> Shaped {
            Shaped { shaper, classifier }
        }

        fn signal(&self, status: &DeliveryStatus) -> Option<Signal> {
            Some(match status.outcome {
                Outcome::Delivered | Outcome::Relayed => Signal::Delivered,
                Outcome::Unknown => return None,
                Outcome::Delayed | Outcome::Failed if status.phase <= Phase::Connect => {
                    if status.phase == Phase::Resolve {
                        return None;
                    }
                    Signal::Unreachable
                }
                Outcome::Delayed if status.phase <= Phase::Hello => Signal::ConnectionThrottled,
                Outcome::Delayed | Outcome::Failed => {
                    let verdict = self.classifier.classify(status);
                    let failed = status.outcome == Outcome::Failed;
                    match (verdict.category, verdict.action) {
                        (Category::Blocked | Category::BadReputation, _) => Signal::Blocked,
                        (Category::Greylisted, _) => Signal::Greylisted,
                        (_, Action::SlowDown) => Signal::Throttled,
                        _ if failed => Signal::Bounced,
                        _ => Signal::Deferred,
                    }
                }
            })
        }
    }

    fn path(departure: Departure<'_>) -> Path {
        let path = Path::to(departure.domain.clone());
        let path = if departure.tenant.is_empty() { path } else { path.for_tenant(departure.tenant) };
        if departure.stream.is_empty() { path } else { path.in_stream(departure.stream) }
    }

    impl Pace for Shaped {
        fn admit(&self, departure: Departure<'_>, now: Timestamp) -> Result<Pass, NotNow> {
            let ask = Ask { connection: true, ..Ask::message(departure.octets) };
            match self.shaper.admit(&path(departure), ask, now) {
                Admission::Granted(permit) => Ok(Box::new(permit)),
                Admission::Later(later) => {
                    Err(NotNow { until: later.until, because: later.because.to_string().into() })
                }
            }
        }

        fn observe(&self, departure: Departure<'_>, status: &DeliveryStatus, now: Timestamp) {
            let (path, text) = (path(departure), status.diagnostic.to_string());
            if status.phase > Phase::Hello {
                // The server took the connection: the number that it takes may grow.
                self.shaper.observe(&path, Signal::Connected, "", now);
            }
            if let Some(signal) = self.signal(status) {
                self.shaper.observe(&path, signal, &text, now);
            }
        }
    }
}
