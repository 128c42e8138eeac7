//! What goes on beside delivery: MTA-STS policies are fetched again, TLS reports are sent and kept.
//!
//! Invariant: nothing here is waited for by delivery, and it may be cut off at any moment.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::Mta;

/// How often it is looked what there is to do.
const TURN: Duration = Duration::from_secs(60);
/// Policies are looked at every so many turns: hourly.
const POLICIES: u64 = 60;

/// Goes on until it is cut off.
pub(crate) async fn run(mta: &Mta) {
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0_u64.. {
        turns.tick().await;
        if turn % POLICIES == 0 {
            mta.system().delivery.refresh_policies().await;
        }
        #[cfg(feature = "tls-reports")]
        if let Some(reports) = mta.reports() {
            reports.tend(mta).await;
        }
    }
}

/// Keeps what must not be lost, at the end.
pub(crate) async fn close(mta: &Mta) {
    #[cfg(feature = "tls-reports")]
    if let Some(reports) = mta.reports() {
        reports.save().await;
    }
    #[cfg(not(feature = "tls-reports"))]
    let _ = mta;
}
