//! TLS reports to other domains (RFC 8460): counting sessions, and sending a day's reports.
//!
//! Invariant: each session is counted once, for the day in which it was; each report is sent until somebody takes
//! it or it is too old. Counts and unsent reports are kept in a file that is replaced as a whole: a crash loses at
//! most the last minute's counts, and may send a report a second time under the same name. A report about mail is
//! mail: it goes through the queue, is signed as everything that we originate, and is not reported about in turn.
//!
//! Standards: RFC 8460 3 (where reports go), 4.1 (when), 5.3 (by mail), 5.4 (by HTTPS).
//!
//! Not here: what a session counts as, the report's form (smtp-client's `tlsrpt`), HTTPS (https.rs).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postwright_core::{Domain, Envelope, Host, Mailbox, Name, RecordKind, World};
use postwright_smtp_client::policy::{Attempt, Obstacle};
use postwright_smtp_client::sts::{Found, Trouble};
use postwright_smtp_client::tlsrpt::{Book, Limits, Seen, Unsent, destinations};
use postwright_smtp_client::{ConnectError, Connection};
use tokio::task::spawn_blocking;

use crate::{HttpsClient, Mta, TlsWatch, sts_store};

/// How long a web server may take to accept a report.
const POST_TIMEOUT: Duration = Duration::from_secs(60);
/// Most destinations of a domain that are sent to.
const DESTINATIONS_MAX: usize = 4;

/// Who reports, and where the book is kept.
#[derive(Debug, Clone)]
pub struct TlsReporting {
    /// The reports' `organization-name`.
    pub organization: String,
    /// The reports' `contact-info`.
    pub contact: String,
    /// The sender of reports by mail. A key of its domain must sign what we originate, or receivers may not believe
    /// them (RFC 8460 5.3).
    pub from: Mailbox,
    /// The file of counts and unsent reports; its folder must exist.
    pub file: PathBuf,
    /// For reports by HTTPS; without it only mail is sent.
    pub https: Option<HttpsClient>,
}

/// Counts sessions and sends reports: give it to [`Builder::tls_reports`](crate::Builder::tls_reports).
pub struct TlsReports {
    settings: TlsReporting,
    world: World,
    submitter: Domain,
    book: Mutex<Book>,
    /// The edition of the book that is in the file.
    kept: Arc<Mutex<u64>>,
}

/// Why there are no reports.
#[derive(Debug, thiserror::Error)]
#[error("the file of TLS reports {file}: {why}")]
pub struct TlsReportsError {
    file: String,
    why: String,
}

impl TlsReports {
    /// Opens the book, or begins one.
    ///
    /// # Errors
    /// The file cannot be read; the operator's to mend.
    pub fn open(
        settings: TlsReporting,
        submitter: Domain,
        world: World,
    ) -> Result<TlsReports, TlsReportsError> {
        let TlsReporting { organization, contact, file, .. } = &settings;
        let mut book = Book::new(organization, contact, Limits::default(), world.clock.now());
        let wrong = |why: &dyn std::fmt::Display| TlsReportsError {
            file: file.display().to_string(),
            why: why.to_string(),
        };
        match std::fs::read(file) {
            Ok(octets) => book.restore(&octets).map_err(|error| wrong(&error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(wrong(&error)),
        }
        Ok(TlsReports { settings, world, submitter, book: Mutex::new(book), kept: Arc::default() })
    }

    /// Sends what is due, and keeps what changed.
    pub(crate) async fn tend(&self, mta: &Mta) {
        let due = self.book().due(self.world.clock.now(), &*self.world.entropy);
        for unsent in due {
            let done = self.send(mta, &unsent).await;
            let now = self.world.clock.now();
            match done {
                Ok(()) => self.book().sent(&unsent),
                Err(why) => {
                    tracing::info!(domain = %unsent.domain, %why, "a TLS report was not sent");
                    self.book().put_off(&unsent, now);
                }
            }
        }
        self.save().await;
    }

    /// Keeps what changed since the last time.
    pub(crate) async fn save(&self) {
        let (edition, octets) = {
            let book = self.book();
            if *self.kept.lock().unwrap_or_else(PoisonError::into_inner) == book.edition() {
                return;
            }
            (book.edition(), book.to_json())
        };
        let (place, kept) = (self.settings.file.clone(), self.kept.clone());
        let written = spawn_blocking(move || {
            // One writer at a time, and never an older edition over a newer one: who asked may have been cut off.
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if *kept < edition {
                sts_store::write(&place.with_extension("new"), &place, &octets)?;
                *kept = edition;
            }
            Ok::<(), std::io::Error>(())
        });
        let why = match written.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(file = %self.settings.file.display(), %why, "the counts for TLS reports were not kept");
    }

    /// To all who are named; it is enough if one takes it. Nobody named is enough, too.
    async fn send(&self, mta: &Mta, unsent: &Unsent) -> Result<(), String> {
        let name = Name::from(&unsent.domain).prepend("_smtp._tls").map_err(|error| error.to_string())?;
        let answer = self.world.resolver.lookup(&name, RecordKind::Txt).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let mut result = Ok(());
        for to in destinations(answer.records()).iter().take(DESTINATIONS_MAX) {
            match to.strip_prefix("mailto:") {
                Some(address) => result = self.mail(mta, unsent, address).await,
                None => result = self.post(unsent, to).await,
            }
            if result.is_ok() {
                return Ok(());
            }
        }
        result
    }

    async fn mail(&self, mta: &Mta, unsent: &Unsent, address: &str) -> Result<(), String> {
        let address = decoded(address.split('?').next().unwrap_or_default());
        let to: Mailbox = address.parse().map_err(|error| format!("{address:?}: {error}"))?;
        let from = &self.settings.from;
        let message = unsent.report.to_mail(
            &unsent.domain,
            &self.submitter,
            &from.to_string(),
            &to.to_string(),
            unsent.day,
        );
        let envelope = Envelope::new(from.clone(), [to]);
        mta.submit(&envelope, message).await.map(drop).map_err(|refusal| refusal.reply().to_string())
    }

    async fn post(&self, unsent: &Unsent, url: &str) -> Result<(), String> {
        let Some(https) = &self.settings.https else {
            return Err("reports are not sent by HTTPS here".to_owned());
        };
        let report = unsent.report.to_gzip();
        match https.post(url, "application/tlsrpt+gzip", report, POST_TIMEOUT).await {
            Ok(200..=299) => Ok(()),
            Ok(status) => Err(format!("{url} answers {status}")),
            Err(error) => Err(format!("{url}: {error}")),
        }
    }

    fn count(&self, seen: Option<Seen>) {
        if let Some(seen) = seen {
            let now = self.world.clock.now();
            self.book().count(seen, now, &*self.world.entropy);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Counts are worth going on with after a panic elsewhere.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address of a `mailto:` URI: RFC 8460 3 has commas, semicolons and exclamation marks of it written as `%2C` and so on
/// (RFC 6068 2). What is no such code stays as it is.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut octets = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part.get(..2).filter(|code| code.bytes().all(|octet| octet.is_ascii_hexdigit()));
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(octet) => {
                octets.push(octet);
                octets.extend(part.bytes().skip(2));
            }
            None => {
                octets.push(b'%');
                octets.extend(part.bytes());
            }
        }
    }
    String::from_utf8_lossy(&octets).into_owned()
}

impl TlsWatch for TlsReports {
    fn session(
        &self,
        domain: &Domain,
        attempt: &Attempt,
        sts: &Found,
        outcome: Result<&Connection, &ConnectError>,
    ) {
        self.count(Seen::of_session(domain, attempt, sts, outcome));
    }

    fn obstacle(&self, domain: &Domain, host: &Host, obstacle: &Obstacle, sts: &Found) {
        self.count(Seen::of_obstacle(domain, host, obstacle, sts));
    }

    fn trouble(&self, domain: &Domain, trouble: &Trouble) {
        self.count(Some(Seen::of_trouble(domain, trouble)));
    }
}

impl std::fmt::Debug for TlsReports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsReports").field("file", &self.settings.file).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_mailto_are_decoded() {
        for (written, meant) in [
            ("tls@x.test", "tls@x.test"),
            // RFC 8460 3: these three are always written so.
            ("a%21b%2Cc%3bd@x.test", "a!b,c;d@x.test"),
            ("100%25@x.test", "100%@x.test"),
            ("no%zzcode%4", "no%zzcode%4"),
            ("%", "%"),
            ("%\u{e9}\u{e9}", "%\u{e9}\u{e9}"),
        ] {
            assert_eq!(decoded(written), meant, "{written}");
        }
    }
}
