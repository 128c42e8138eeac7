//! When to stop: SIGTERM or SIGINT, and a second one to stop at once. When to read again: SIGHUP.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Resolves at the first SIGTERM or SIGINT. A second one, at any later time, ends the process at once.
pub(crate) async fn stop() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("cannot listen for signals; kill -9 is the only way to stop");
        return std::future::pending().await;
    };
    either(&mut terminate, &mut interrupt).await;
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        std::process::exit(130);
    });
}

/// SIGHUPs from now on; without this call, one would end the process.
pub(crate) struct Hangups(Option<Signal>);

impl Hangups {
    pub(crate) fn listen() -> Hangups {
        let signals = signal(SignalKind::hangup());
        if let Err(error) = &signals {
            tracing::warn!(%error, "cannot listen for SIGHUP; nothing is read again");
        }
        Hangups(signals.ok())
    }

    /// Does something at each, for as long as it is polled.
    pub(crate) async fn each(self, mut work: impl FnMut()) {
        let Some(mut signals) = self.0 else { return std::future::pending().await };
        while signals.recv().await.is_some() {
            work();
        }
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
