//! The book of sessions: a day's counts, and the reports that wait to be sent.
//!
//! Invariant: a session belongs to the UTC day in which it was counted; a day's report is made once, after the day
//! ended, and stays in the book until it was sent or is too old. A book that was written out and read back goes on
//! where it stood.
//!
//! Standards: RFC 8460 4.1 (whole UTC days, a pause of up to four hours), 5.5 (tried for 24 hours).
//!
//! Not here: looking up where reports go, and sending them (mta); the file (mta).

use std::time::Duration;

use postwright_core::{Domain, Entropy, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Day, Limits, Report, Seen, Tally, TallyError};

/// Reports go out at a random moment of this time after midnight, so that not all senders come at once: 4 hours.
const SPREAD: Duration = Duration::from_secs(4 * 3600);
/// How long to wait after a report could not be sent: an hour.
const PAUSE: Duration = Duration::from_secs(3600);
/// How long a report is tried, from the end of its day: a day, and the spread.
const PATIENCE: Duration = Duration::from_secs(28 * 3600);

/// A report that waits to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    /// The domain that it is about.
    pub domain: Domain,
    /// The day that it is about.
    pub day: Day,
    /// The report.
    pub report: Report,
    next: Timestamp,
}

/// Counts sessions day by day, and holds the reports until they are sent.
#[derive(Debug)]
pub struct Book {
    limits: Limits,
    organization: String,
    contact: String,
    day: Day,
    tally: Tally,
    unsent: Vec<Unsent>,
    edition: u64,
}

#[derive(Serialize, Deserialize)]
struct Written {
    day: u64,
    counts: serde_json::Value,
    unsent: Vec<WrittenReport>,
}

#[derive(Serialize, Deserialize)]
struct WrittenReport {
    domain: String,
    day: u64,
    next: u64,
    report: Report,
}

impl Book {
    /// An empty book of this organization, opened at `now`.
    pub fn new(organization: &str, contact: &str, limits: Limits, now: Timestamp) -> Book {
        Book {
            limits,
            organization: organization.to_owned(),
            contact: contact.to_owned(),
            day: Day::of(now),
            tally: Tally::new(limits),
            unsent: Vec::new(),
            edition: 0,
        }
    }

    /// Counts one session.
    pub fn count(&mut self, seen: Seen, now: Timestamp, entropy: &dyn Entropy) {
        self.turn_page(now, entropy);
        self.tally.count(seen);
        self.edition += 1;
    }

    /// The reports that are to be sent now. Say of each what came of it: [`Book::sent`] or [`Book::put_off`].
    pub fn due(&mut self, now: Timestamp, entropy: &dyn Entropy) -> Vec<Unsent> {
        self.turn_page(now, entropy);
        let before = self.unsent.len();
        self.unsent.retain(|unsent| now.since(unsent.day.end) < PATIENCE);
        self.edition += u64::from(self.unsent.len() != before);
        self.unsent.iter().filter(|unsent| unsent.next <= now).cloned().collect()
    }

    /// A report was sent, or nobody wants it.
    pub fn sent(&mut self, which: &Unsent) {
        self.unsent.retain(|unsent| unsent.report.report_id != which.report.report_id);
        self.edition += 1;
    }

    /// A report could not be sent; it is due again in an hour.
    pub fn put_off(&mut self, which: &Unsent, now: Timestamp) {
        let of = |unsent: &&mut Unsent| unsent.report.report_id == which.report.report_id;
        if let Some(unsent) = self.unsent.iter_mut().find(of) {
            unsent.next = now + PAUSE;
        }
        self.edition += 1;
    }

    /// How often the book has changed: what was written at one edition is up to date while this is the same.
    pub fn edition(&self) -> u64 {
        self.edition
    }

    /// What is in the book, for [`Book::restore`].
    pub fn to_json(&self) -> Vec<u8> {
        let unsent = self.unsent.iter().map(|unsent| WrittenReport {
            domain: unsent.domain.to_string(),
            day: unsent.day.start.secs(),
            next: unsent.next.secs(),
            report: unsent.report.clone(),
        });
        let counts = serde_json::from_slice(&self.tally.to_json()).unwrap_or_default();
        let written = Written { day: self.day.start.secs(), counts, unsent: unsent.collect() };
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// Goes on with a book that was written out.
    ///
    /// # Errors
    /// The octets were not written by [`Book::to_json`].
    pub fn restore(&mut self, octets: &[u8]) -> Result<(), TallyError> {
        let written: Written = serde_json::from_slice(octets).map_err(TallyError::new)?;
        let counts = serde_json::to_vec(&written.counts).map_err(TallyError::new)?;
        self.tally = Tally::from_json(&counts, self.limits)?;
        self.day = Day::of(Timestamp::from_secs(written.day));
        let unsent = |written: WrittenReport| {
            let (day, next) =
                (Day::of(Timestamp::from_secs(written.day)), Timestamp::from_secs(written.next));
            Some(Unsent { domain: written.domain.parse().ok()?, day, report: written.report, next })
        };
        self.unsent = written.unsent.into_iter().filter_map(unsent).collect();
        Ok(())
    }

    /// If the day is over, makes its reports and begins the next one.
    fn turn_page(&mut self, now: Timestamp, entropy: &dyn Entropy) {
        let today = Day::of(now);
        if today.start <= self.day.start {
            return;
        }
        let day = std::mem::replace(&mut self.day, today);
        let spread = u64::try_from(SPREAD.as_millis()).unwrap_or(0);
        for (domain, report) in self.tally.take(&self.organization, &self.contact, day) {
            let next = day.end + Duration::from_millis(1000 + entropy.below(spread));
            self.unsent.push(Unsent { domain, day, report, next });
        }
        self.edition += 1;
    }
}
