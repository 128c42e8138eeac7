//! Daily aggregate reports to the domains that ask for them: [`Reports`] collects what
//! [`Authenticate`](crate::authentication::Authenticate) finds out, and mails it when the day is over.
//!
//! Invariant: a row leaves the store only when its report is in the spool, when nobody may be sent it, or when it is
//! older than [`ReportSettings::give_up`]. A report that is made a second time (a crash between the spool and the
//! store) has the same Report-ID and file name, so that its reader can tell (RFC 9990 3.5.4).
//!
//! Standards: RFC 9990 2 to 4; RFC 9989 4.7 (`rua`), 5.3.
//!
//! Not here: the XML and the mail (spf-dmarc's `report`), rows on disk (journal.rs), sending (the queue).

mod codec;
mod journal;
mod post;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postwright_core::{Domain, Envelope, Mailbox, Message, Name, ReversePath, Timestamp, World};
use postwright_dkim::DkimResult;
use postwright_spf_dmarc::dmarc::{DmarcResult, Mode, Policy, Verdict};
use postwright_spf_dmarc::header;
use postwright_spf_dmarc::report::{Day, DkimAuth, PolicyReason, ReportLimits, RowStore, Sighting};

pub use journal::JournalRows;

use crate::Mta;
use crate::authentication::Findings;
use crate::section::header_section;

/// Signatures that a row holds at most (RFC 9990 3.1.3).
const SIGNATURES_MAX: usize = 100;
/// No wait is shorter, and none longer, so that a clock that was slewed is noticed.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// Who reports, and when.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReportSettings {
    /// Our name in the reports.
    pub organization: String,
    /// The domain that reports: part of file names and subjects.
    pub submitter: Domain,
    /// The author of the mails; domain owners answer to it. Sign for its domain: reports must pass DMARC themselves
    /// (RFC 9990 3.5.2).
    pub from: Mailbox,
    /// Where failures to deliver reports go: `<>` for nowhere, the default.
    pub reverse_path: ReversePath,
    /// More on how to reach us.
    pub contact: Option<String>,
    /// No report leaves earlier after midnight UTC than this: 10 minutes.
    pub earliest: Duration,
    /// Over which time after that reports begin, at random for each system, so that not all reporters of the world
    /// send at midnight: 2 hours.
    pub spread: Duration,
    /// After which time what could not be sent is tried again: 30 minutes.
    pub retry: Duration,
    /// After which time what could not be sent is dropped: 3 days.
    pub give_up: Duration,
    /// Limits on what is composed.
    pub limits: ReportLimits,
}

impl ReportSettings {
    /// The defaults for a host that reports in its own name.
    pub fn new(submitter: Domain, from: Mailbox) -> ReportSettings {
        ReportSettings {
            organization: submitter.to_string(),
            submitter,
            from,
            reverse_path: ReversePath::Null,
            contact: None,
            earliest: Duration::from_secs(600),
            spread: Duration::from_secs(2 * 3600),
            retry: Duration::from_secs(1800),
            give_up: Duration::from_secs(3 * 86_400),
            limits: ReportLimits::default(),
        }
    }
}

/// What became of the batches that were due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Round {
    /// Reports that are in the spool now.
    pub sent: usize,
    /// Batches that nobody may be sent, or that were too old.
    pub dropped: usize,
    /// Batches to try again.
    pub kept: usize,
}

/// Collects and sends reports. Give it to [`Authenticate::with_reports`](crate::authentication::Authenticate::with_reports),
/// and let [`Reports::run`] run.
pub struct Reports {
    settings: ReportSettings,
    store: Arc<dyn RowStore>,
    world: World,
    /// This system's own moment of the day.
    offset: Duration,
    missed: AtomicU64,
}

impl Reports {
    /// Reports from this store.
    pub fn new(settings: ReportSettings, store: Arc<dyn RowStore>, world: World) -> Reports {
        let spread = u64::try_from(settings.spread.as_millis()).unwrap_or(u64::MAX);
        let jitter = Duration::from_millis(world.entropy.below(spread.max(1)));
        // Beyond the day, a report would be a day late.
        let offset = (settings.earliest.saturating_add(jitter)).min(Duration::from_secs(86_400 - 1));
        Reports { settings, store, world, offset, missed: AtomicU64::new(0) }
    }

    /// Messages that are missing in reports because the store refused them.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Notes a message that was evaluated, and what was done with it.
    pub(crate) async fn sight(
        &self,
        findings: &Findings,
        ip: std::net::IpAddr,
        applied: Policy,
        envelope: &Envelope,
        message: &Message,
    ) {
        if self.is_about_reports(&findings.dmarc, envelope, message) {
            return;
        }
        let dmarc = &findings.dmarc;
        let mut reasons = Vec::new();
        if dmarc.verdict == Verdict::Fail && applied != dmarc.disposition {
            reasons.push(PolicyReason { kind: "local_policy".to_owned(), comment: None });
        }
        let sender = envelope.reverse_path.mailbox().and_then(|mailbox| mailbox.domain());
        let sighting = Sighting {
            ip,
            spf: &findings.spf,
            dkim: signatures(&findings.dkim, dmarc.author.as_ref()),
            dmarc,
            mode: Mode::Rfc9989,
            applied,
            reasons,
            envelope_from: sender.map(Name::from),
        };
        let Some((policy, row)) = sighting.row() else { return };
        let day = Day::of(self.world.clock.now());
        if let Err(error) = self.store.add(day, &policy, row).await
            && self.missed.fetch_add(1, Ordering::Relaxed).is_power_of_two()
        {
            tracing::warn!(%error, domain = policy.domain, "a message will be missing in reports");
        }
    }

    /// Reports about reports would go back and forth for ever. What is sent to our reporting address is left out, and so is
    /// what says that it is a report, if its author's domain vouches for it: a forger must not hide behind a subject.
    fn is_about_reports(&self, dmarc: &DmarcResult, envelope: &Envelope, message: &Message) -> bool {
        if envelope.recipients.iter().any(|recipient| recipient.mailbox == self.settings.from) {
            return true;
        }
        let section = header_section(message);
        let is_report = |subject: &str| {
            let mut words = subject.split_ascii_whitespace();
            words.next() == Some("Report")
                && words.next().is_some_and(|word| word.eq_ignore_ascii_case("Domain:"))
                && words.any(|word| word.eq_ignore_ascii_case("Submitter:"))
        };
        let mut subjects = header::fields(&section).filter(|field| field.is("Subject"));
        dmarc.verdict == Verdict::Pass && subjects.any(|field| is_report(&field.text()))
    }

    /// Sends what is due each day until `stop` resolves.
    pub async fn run(&self, mta: &Mta, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let round = self.send_due(mta).await;
            let wait = self.wait(round, self.world.clock.now());
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// The first day whose reports are not due.
    fn open_day(&self, now: Timestamp) -> Day {
        let today = Day::of(now);
        // Before this system's moment, yesterday's reports are not due either.
        if now.since(today.begin()) >= self.offset { today } else { Day(today.0.saturating_sub(1)) }
    }

    fn wait(&self, round: Round, now: Timestamp) -> Duration {
        let today = Day::of(now);
        let since = now.since(today.begin());
        let until = match self.offset.checked_sub(since).filter(|left| !left.is_zero()) {
            Some(left) => left,
            None => Duration::from_secs(86_400).saturating_sub(since) + self.offset,
        };
        let until = if round.kept > 0 { until.min(self.settings.retry) } else { until };
        until.clamp(WAITS.0, WAITS.1)
    }

    /// Sends every report that is due now.
    pub async fn send_due(&self, mta: &Mta) -> Round {
        let now = self.world.clock.now();
        let mut round = Round::default();
        let batches = match self.store.due(self.open_day(now)).await {
            Ok(batches) => batches,
            Err(error) => {
                tracing::error!(%error, "the rows of reports cannot be read");
                round.kept = 1;
                return round;
            }
        };
        for batch in batches {
            let domain = &batch.policy.domain;
            let old = now.since(batch.day.end()) > self.settings.give_up;
            match post::send(self, mta, &batch).await {
                Ok(reports) => {
                    round.sent += reports;
                    round.dropped += usize::from(reports == 0);
                    tracing::info!(%domain, reports, rows = batch.rows.len(), "aggregate report");
                }
                Err(why) if old => {
                    round.dropped += 1;
                    tracing::warn!(%domain, %why, "an aggregate report is given up");
                }
                Err(why) => {
                    round.kept += 1;
                    tracing::warn!(%domain, %why, "an aggregate report has to wait");
                    continue;
                }
            }
            if let Err(error) = self.store.settle(&batch).await {
                tracing::error!(%error, %domain, "the rows of a report cannot be settled");
            }
        }
        round
    }
}

/// The signatures in the order that RFC 9990 3.1.3 prefers: passing and strictly aligned, passing below the same name,
/// passing, all others.
fn signatures(results: &[DkimResult], author: Option<&Name>) -> Vec<DkimAuth> {
    let rank = |result: &DkimResult| {
        let domain = result.domain.as_ref().map(Name::from);
        match (result.is_pass(), domain, author) {
            (true, Some(domain), Some(author)) if domain == *author => 0,
            (true, Some(domain), Some(author)) if domain.is_within(author) || author.is_within(&domain) => 1,
            (true, ..) => 2,
            (false, ..) => 3,
        }
    };
    let mut ranked: Vec<&DkimResult> = results.iter().collect();
    ranked.sort_by_key(|result| rank(result));
    let shown = ranked.into_iter().take(SIGNATURES_MAX);
    shown
        .filter_map(|result| {
            Some(DkimAuth {
                // A signature without these was not attempted.
                domain: result.domain.as_ref()?.to_string(),
                selector: Some(result.selector.as_ref()?.to_string()),
                result: result.verdict.as_str().to_owned(),
                human_result: result.reason.map(|reason| reason.as_str().to_owned()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use postwright_core::{ManualClock, MemoryZone, SeededEntropy};
    use postwright_spf_dmarc::report::MemoryRows;

    use super::*;

    fn reports(seed: u64) -> Reports {
        let world = World {
            clock: Arc::new(ManualClock::default()),
            entropy: Arc::new(SeededEntropy::new(seed)),
            resolver: Arc::new(MemoryZone::new()),
        };
        let settings =
            ReportSettings::new("mx.example.net".parse().unwrap(), "reports@mx.example.net".parse().unwrap());
        Reports::new(settings, Arc::new(MemoryRows::new(10)), world)
    }

    #[test]
    fn yesterday_is_due_at_this_systems_own_moment() {
        let midnight = Timestamp::from_secs(20_000 * 86_400);
        let mut offsets = Vec::new();
        for seed in 0..20 {
            let reports = reports(seed);
            let offset = reports.offset;
            assert!((600..600 + 7200).contains(&offset.as_secs()), "{offset:?}");
            let second = Duration::from_secs(1);
            assert_eq!(reports.open_day(midnight + (offset - second)), Day(19_999));
            assert_eq!(reports.open_day(midnight + offset), Day(20_000));
            let left = reports.wait(Round::default(), midnight + (offset - second));
            assert_eq!(left, second);
            offsets.push(offset);
        }
        offsets.sort();
        offsets.dedup();
        assert!(offsets.len() > 15, "all at once: {offsets:?}");
    }
}
