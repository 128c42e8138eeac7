//! Where the time of a delivery went: [`Timings`].
//!
//! Invariant: each moment of a session counts once, under the phase in which the event before it left the session.
//! Time is an argument here as everywhere: nothing reads a clock, so that it costs an addition an event.
//!
//! Not here: looking up and connecting, which the machine does not do; its caller adds them.

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

use postwright_core::Phase;

/// How long each phase of a delivery took; zero for what did not happen, such as TLS on a connection used again.
///
/// ```
/// use std::time::Duration;
/// use postwright_core::Phase;
/// use postwright_smtp_proto::client::Timings;
///
/// let mut timings = Timings::default();
/// timings.add(Phase::Mail, Duration::from_millis(20));
/// timings.add(Phase::Rcpt, Duration::from_millis(5));
/// assert_eq!(timings.envelope, Duration::from_millis(25));
/// assert_eq!(timings.to_string(), "envelope=25ms total=0ms");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Timings {
    /// Finding the hosts and their TLS policy.
    pub resolve: Duration,
    /// Opening connections, those that failed included.
    pub connect: Duration,
    /// Waiting for the greeting, and EHLO.
    pub greeting: Duration,
    /// STARTTLS and the handshake.
    pub tls: Duration,
    /// AUTH.
    pub auth: Duration,
    /// MAIL, RCPT and DATA up to its 354.
    pub envelope: Duration,
    /// The message and the reply to its end.
    pub data: Duration,
    /// From the first look-up to the verdict, pauses between the phases included.
    pub total: Duration,
}

impl Timings {
    /// Counts time under the phase in which it was spent. What is between transactions counts nowhere.
    pub fn add(&mut self, phase: Phase, span: Duration) {
        let part = match phase {
            Phase::Resolve => &mut self.resolve,
            Phase::Connect => &mut self.connect,
            Phase::Greeting | Phase::Hello => &mut self.greeting,
            Phase::StartTls => &mut self.tls,
            Phase::Auth => &mut self.auth,
            Phase::Mail | Phase::Rcpt | Phase::Data => &mut self.envelope,
            Phase::Body | Phase::EndOfData => &mut self.data,
            _ => return,
        };
        *part = part.saturating_add(span);
    }

    fn parts(&self) -> [(&'static str, Duration); 7] {
        let Timings { resolve, connect, greeting, tls, auth, envelope, data, .. } = *self;
        [
            ("resolve", resolve),
            ("connect", connect),
            ("greeting", greeting),
            ("tls", tls),
            ("auth", auth),
            ("envelope", envelope),
            ("data", data),
        ]
    }
}

/// What several servers took of one delivery.
impl AddAssign for Timings {
    fn add_assign(&mut self, other: Timings) {
        self.resolve = self.resolve.saturating_add(other.resolve);
        self.connect = self.connect.saturating_add(other.connect);
        self.greeting = self.greeting.saturating_add(other.greeting);
        self.tls = self.tls.saturating_add(other.tls);
        self.auth = self.auth.saturating_add(other.auth);
        self.envelope = self.envelope.saturating_add(other.envelope);
        self.data = self.data.saturating_add(other.data);
        self.total = self.total.saturating_add(other.total);
    }
}

/// For a log: the phases that took any time, and the total, in milliseconds.
impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, span) in self.parts().into_iter().filter(|(_, span)| !span.is_zero()) {
            write!(f, "{name}={}ms ", span.as_millis())?;
        }
        write!(f, "total={}ms", self.total.as_millis())
    }
}
