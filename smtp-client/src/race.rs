//! Happy eyeballs: the addresses of one host race for the first open connection.
//!
//! Invariant: the next address is tried when one failed, or when a quarter of a second brought nothing; the first
//! open connection wins, and every other attempt is cut off before this returns its value to be used. No task
//! outlives the race.
//!
//! Standards: RFC 8305 5 (staggered attempts, 250 ms); the order of addresses, families in turns, is route's.
//!
//! Not here: what is said on the connection (connection), other hosts (client).

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::connect::{BoxIo, Connector, Target};
use crate::connection::{ConnectFailure, Options};

/// How long an attempt is alone: the Connection Attempt Delay of RFC 8305 5.
const DELAY: Duration = Duration::from_millis(250);

/// How a race ended.
pub(crate) struct Race {
    /// Which address won, and its connection.
    pub(crate) opened: Option<(usize, BoxIo)>,
    /// Those that failed, in the order in which they did.
    pub(crate) failed: Vec<(usize, ConnectFailure)>,
}

/// Opens a connection within the time that `options` give it.
pub(crate) async fn dial(
    connector: &dyn Connector,
    target: &Target,
    options: &Options,
) -> Result<BoxIo, ConnectFailure> {
    match timeout(options.connect_timeout, connector.connect(target, options.source)).await {
        Ok(Ok(io)) => Ok(io),
        Ok(Err(error)) => Err(ConnectFailure::Io(error)),
        Err(_) => Err(ConnectFailure::Timeout),
    }
}

/// Lets the addresses race, in their order.
pub(crate) async fn race<'a>(
    connector: &Arc<dyn Connector>,
    runners: impl Iterator<Item = (&'a Target, &'a Options)>,
) -> Race {
    let mut waiting = runners.enumerate();
    let mut running: JoinSet<(usize, Result<BoxIo, ConnectFailure>)> = JoinSet::new();
    let (mut failed, mut all_started) = (Vec::new(), false);
    loop {
        match waiting.next() {
            Some((index, (target, options))) => {
                let (connector, target, options) = (connector.clone(), target.clone(), options.clone());
                running.spawn(async move { (index, dial(&*connector, &target, &options).await) });
            }
            None => all_started = true,
        }
        // Either something came of one, or it is the next one's turn.
        let ended = tokio::select! {
            biased;
            ended = running.join_next() => ended,
            () = sleep(DELAY), if !all_started => continue,
        };
        match ended {
            Some(Ok((index, Ok(io)))) => {
                running.shutdown().await;
                return Race { opened: Some((index, io)), failed };
            }
            Some(Ok((index, Err(failure)))) => failed.push((index, failure)),
            // A connector that panicked has told of it; its address counts as not tried.
            Some(Err(_)) => {}
            None if all_started => return Race { opened: None, failed },
            None => {}
        }
    }
}
