//! Plays a written dialogue against the client machine.
//!
//! Lines are `C:` what the client writes, `S:` what the server says, `!` an event: `TLS` (handshake), `EOF`,
//! `TIMEOUT`.

use std::sync::Arc;
use std::time::Duration;

use postwright_core::{EnhancedStatus, Instant, Outcome, Phase, Remote, Timestamp};
use postwright_smtp_proto::TlsInfo;
use postwright_smtp_proto::client::{CloseReason, Config, Report, Session, Step, Transaction};

/// How a dialogue ended.
#[derive(Debug, PartialEq)]
pub(crate) struct End {
    pub(crate) report: Option<Report>,
    pub(crate) close: Option<CloseReason>,
}

impl End {
    pub(crate) fn outcomes(&self) -> Vec<(Outcome, EnhancedStatus, Phase)> {
        let report = self.report.as_ref().expect("a report");
        report.statuses.iter().map(|status| (status.outcome, status.status, status.phase)).collect()
    }

    pub(crate) fn shown(&self) -> Vec<String> {
        self.outcomes()
            .iter()
            .map(|(outcome, status, phase)| format!("{outcome:?} {status} {phase}"))
            .collect()
    }
}

struct Player<'d> {
    session: Session,
    now: Instant,
    lines: Vec<&'d str>,
    at: usize,
    heard: Vec<u8>,
    end: End,
    /// Lengths of the pieces in which the server's octets come.
    cuts: Box<dyn Iterator<Item = usize>>,
    pending: Vec<u8>,
}

impl Player<'_> {
    fn run(mut self) -> End {
        for _ in 0..100_000 {
            self.now = self.now + Duration::from_millis(1);
            match self.session.poll() {
                Step::Write { bytes, .. } => {
                    // Take less than is offered, so that partial writes are part of every run.
                    let len = bytes.len().div_ceil(2);
                    let taken = bytes[..len].to_vec();
                    self.heard.extend_from_slice(&taken);
                    self.session.handle_written(len, self.now);
                }
                Step::Read { deadline } => self.serve(deadline),
                Step::StartTls => {
                    self.expect_event("TLS");
                    let tls = TlsInfo { version: "TLSv1.3".into(), verified: true, ..TlsInfo::default() };
                    self.session.handle_tls(tls, self.now);
                }
                Step::Done(report) => {
                    assert_eq!(self.end.report.replace(report), None, "two reports");
                }
                Step::Ready if self.at < self.lines.len() => self.session.quit(self.now),
                Step::Ready => {
                    self.hear();
                    return self.end;
                }
                Step::Close(reason) => {
                    self.hear();
                    assert_eq!(self.at, self.lines.len(), "closed early: {reason}");
                    self.end.close = Some(reason);
                    return self.end;
                }
            }
        }
        panic!("livelock");
    }

    fn next(&mut self) -> &str {
        let line = self.lines.get(self.at).copied().expect("the dialogue goes on");
        self.at += 1;
        line
    }

    fn expect_event(&mut self, event: &str) {
        self.hear();
        assert_eq!(self.next(), format!("! {event}"));
    }

    /// Compares what the client wrote with the `C:` lines that are due.
    fn hear(&mut self) {
        let mut expected = String::new();
        while let Some(line) = self.lines.get(self.at).and_then(|line| line.strip_prefix("C: ")) {
            expected.push_str(line);
            expected.push_str("\r\n");
            self.at += 1;
        }
        let expected = expected.replace("\\n\r\n", "\n");
        assert_eq!(String::from_utf8_lossy(&self.heard), expected);
        self.heard.clear();
    }

    fn serve(&mut self, deadline: Instant) {
        if self.pending.is_empty() {
            self.hear();
            while let Some(line) = self.lines.get(self.at).and_then(|line| line.strip_prefix("S: ")) {
                self.pending.extend_from_slice(line.as_bytes());
                self.pending.extend_from_slice(b"\r\n");
                self.at += 1;
            }
        }
        if self.pending.is_empty() {
            match self.next() {
                "! EOF" => self.session.handle_eof(self.now),
                "! TIMEOUT" => {
                    self.session.handle_timeout(self.now);
                    assert!(self.session.closed().is_none(), "timed out too early");
                    self.now = deadline;
                    self.session.handle_timeout(deadline);
                }
                other => panic!("the client waits, but the dialogue says {other}"),
            }
            return;
        }
        let len = self.cuts.next().unwrap_or(usize::MAX).min(self.pending.len());
        let piece: Vec<u8> = self.pending.drain(..len).collect();
        self.session.handle_input(&piece, self.now);
    }
}

/// Plays a dialogue once, the server's octets cut into pieces of the lengths `cuts`.
pub(crate) fn play(
    config: &Config,
    transaction: Option<&Transaction>,
    dialogue: &str,
    cuts: Box<dyn Iterator<Item = usize>>,
) -> End {
    let remote = Remote { host: "mx.example.org".parse().unwrap(), address: None, tls: None };
    let start = Timestamp::from_secs(1_800_000_000);
    let mut session = Session::new(Arc::new(config.clone()), remote, start, Instant::ZERO);
    if let Some(transaction) = transaction {
        session.send(transaction.clone(), Instant::ZERO).unwrap();
    }
    let lines = dialogue.lines().map(str::trim_start).filter(|line| !line.is_empty()).collect();
    let end = End { report: None, close: None };
    Player { session, now: Instant::ZERO, lines, at: 0, heard: Vec::new(), end, cuts, pending: Vec::new() }
        .run()
}

/// Runs a dialogue in every fragmentation; the times in the reports are the only thing that may differ.
pub(crate) fn check(config: &Config, transaction: &Transaction, dialogue: &str) -> End {
    let calm = |mut end: End| {
        for status in end.report.iter_mut().flat_map(|report| &mut report.statuses) {
            status.at = Timestamp::from_millis(0);
        }
        end
    };
    let run = |cuts| calm(play(config, Some(transaction), dialogue, cuts));
    let whole = run(Box::new(std::iter::empty()));
    assert_eq!(run(Box::new(std::iter::repeat(1))), whole, "octet by octet");
    for first in 1..60 {
        assert_eq!(run(Box::new([first].into_iter())), whole, "cut after {first}");
    }
    whole
}
