//! The reply to EHLO: what a server offers.
//!
//! Invariant: an unknown or malformed keyword costs nothing but itself; what is not understood is kept as text.
//!
//! Standards: RFC 5321 4.1.1.1 (form); RFC 1870 (SIZE), 2034, 2852 (DELIVERBY), 2920, 3030, 3207, 3461 (DSN),
//! 4865 (FUTURERELEASE), 4954 (AUTH), 6152, 6531, 6710 (MT-PRIORITY), 8689 (REQUIRETLS), 9422 (LIMITS).
//!
//! Not here: offering (server), deciding what to use (client).

use postwright_core::Reply;

/// What a server said that it can do, read from its reply to EHLO or LHLO.
///
/// ```
/// use postwright_core::{Reply, ReplyCode};
/// use postwright_smtp_proto::ehlo::Capabilities;
/// let reply = Reply::new(ReplyCode::new(250).unwrap(), "mx.example.org hello\nPIPELINING\nSIZE 1000\nAUTH PLAIN LOGIN");
/// let offer = Capabilities::from_reply(&reply);
/// assert!(offer.pipelining);
/// assert_eq!(offer.size, Some(1000));
/// assert!(offer.offers_auth("login"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Capabilities {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870): `Some(0)` if no limit is stated, else the limit in octets.
    pub size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// BINARYMIME (RFC 3030); counts only together with CHUNKING.
    pub binary_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtp_utf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// DELIVERBY (RFC 2852): the least time in seconds, 0 if none is stated.
    pub deliver_by: Option<u64>,
    /// MT-PRIORITY (RFC 6710).
    pub mt_priority: bool,
    /// FUTURERELEASE (RFC 4865): the longest delay in seconds, 0 if it cannot be read.
    pub future_release: Option<u64>,
    /// The mechanisms of AUTH (RFC 4954), in upper case and in the server's order.
    pub auth: Vec<Box<str>>,
    /// LIMITS (RFC 9422).
    pub limits: PeerLimits,
    /// Keywords that have no field here, with their parameters.
    pub other: Vec<(Box<str>, Box<str>)>,
}

/// The numbers of LIMITS (RFC 9422 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PeerLimits {
    /// RCPTMAX: most recipients a transaction.
    pub recipients: Option<u32>,
    /// MAILMAX: most transactions a session.
    pub transactions: Option<u32>,
    /// RCPTDOMAINMAX: most recipient domains a session.
    pub domains: Option<u32>,
}

/// Longer keywords are not known here, so nobody needs them in capitals.
const LONGEST_KEYWORD: usize = 32;

impl Capabilities {
    /// Reads the lines behind the first one, which names the server.
    pub fn from_reply(reply: &Reply) -> Capabilities {
        let mut offer = Capabilities::default();
        for line in reply.lines().skip(1) {
            offer.take(line);
        }
        offer
    }

    /// Whether a mechanism of AUTH is offered; letter case does not matter.
    pub fn offers_auth(&self, mechanism: &str) -> bool {
        self.auth.iter().any(|offered| offered.eq_ignore_ascii_case(mechanism))
    }

    fn take(&mut self, line: &str) {
        let line = line.trim_ascii();
        // `AUTH=PLAIN LOGIN` is how servers spoke to clients older than RFC 2554; some still do.
        let (keyword, parameters) = match line.bytes().position(|b| matches!(b, b' ' | b'\t' | b'=')) {
            Some(at) => (line.get(..at).unwrap_or(line), line.get(at + 1..).unwrap_or_default().trim_ascii()),
            None => (line, ""),
        };
        let mut upper = [0; LONGEST_KEYWORD];
        let upper = match upper.get_mut(..keyword.len()) {
            Some(upper) => {
                upper.copy_from_slice(keyword.as_bytes());
                upper.make_ascii_uppercase();
                upper
            }
            None => keyword.as_bytes(),
        };
        match upper {
            b"" => {}
            b"PIPELINING" => self.pipelining = true,
            b"SIZE" => self.size = Some(first_number(parameters)),
            b"8BITMIME" => self.eight_bit_mime = true,
            b"CHUNKING" => self.chunking = true,
            b"BINARYMIME" => self.binary_mime = true,
            b"SMTPUTF8" => self.smtp_utf8 = true,
            b"DSN" => self.dsn = true,
            b"ENHANCEDSTATUSCODES" => self.enhanced_status_codes = true,
            b"STARTTLS" => self.starttls = true,
            b"REQUIRETLS" => self.require_tls = true,
            b"DELIVERBY" => self.deliver_by = Some(first_number(parameters)),
            b"MT-PRIORITY" => self.mt_priority = true,
            b"FUTURERELEASE" => self.future_release = Some(first_number(parameters)),
            b"AUTH" => self.add_mechanisms(parameters),
            b"LIMITS" => self.limits.take(parameters),
            _ => self.other.push((keyword.into(), parameters.into())),
        }
    }

    fn add_mechanisms(&mut self, words: &str) {
        for word in words.split_ascii_whitespace() {
            let word = word.to_ascii_uppercase();
            if !self.offers_auth(&word) {
                self.auth.push(word.into());
            }
        }
    }
}

impl PeerLimits {
    /// `name=number` words; RFC 9422 3 has clients ignore what they do not know or cannot read.
    fn take(&mut self, words: &str) {
        for word in words.split_ascii_whitespace() {
            let Some((name, value)) = word.split_once('=') else { continue };
            let Some(value) = value.parse::<u32>().ok().filter(|value| *value > 0) else { continue };
            match name.to_ascii_uppercase().as_str() {
                "RCPTMAX" => self.recipients = Some(value),
                "MAILMAX" => self.transactions = Some(value),
                "RCPTDOMAINMAX" => self.domains = Some(value),
                _ => {}
            }
        }
    }
}

/// The first word as a number; a number too large for `u64` is as good as no limit, as is a word that is none.
fn first_number(parameters: &str) -> u64 {
    parameters.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use postwright_core::ReplyCode;

    fn offer(lines: &str) -> Capabilities {
        let text = format!("mx.example.org at your service\n{lines}");
        Capabilities::from_reply(&Reply::new(ReplyCode::new(250).unwrap(), &text))
    }

    #[test]
    fn a_long_mechanism_behind_an_old_auth_is_read_in_any_case() {
        let long = "X-A-MECHANISM-WITH-A-NAME-OF-FORTY-LETTERS";
        for line in [format!("AUTH={long} LOGIN"), format!("auth={} login", long.to_lowercase())] {
            let offer = offer(&line);
            assert!(offer.offers_auth(long) && offer.offers_auth("LOGIN"), "{line}");
        }
    }

    #[test]
    fn keywords_are_read_in_any_case() {
        let all = offer(
            "pipelining\nSize 10240000\n8BitMIME\nCHUNKING\nBINARYMIME\nSMTPUTF8\nDSN\nENHANCEDSTATUSCODES\n\
             STARTTLS\nREQUIRETLS\nDELIVERBY 240\nMT-PRIORITY MIXER\nFUTURERELEASE 86400 2026-12-01T00:00:00Z\n\
             LIMITS RCPTMAX=100 MAILMAX=0 XRATE=7\nX-Custom  some text",
        );
        assert!(all.pipelining && all.eight_bit_mime && all.chunking && all.binary_mime && all.smtp_utf8);
        assert!(all.dsn && all.enhanced_status_codes && all.starttls && all.require_tls && all.mt_priority);
        assert_eq!(
            (all.size, all.deliver_by, all.future_release),
            (Some(10_240_000), Some(240), Some(86_400))
        );
        assert_eq!(all.limits, PeerLimits { recipients: Some(100), transactions: None, domains: None });
        assert_eq!(all.other, [("X-Custom".into(), "some text".into())]);
    }

    #[test]
    fn the_server_name_is_no_keyword_and_odd_sizes_are_no_limit() {
        let name_only = Capabilities::from_reply(&Reply::new(ReplyCode::new(250).unwrap(), "PIPELINING"));
        assert_eq!(name_only, Capabilities::default());
        for line in ["SIZE", "SIZE x", "SIZE 99999999999999999999999", "SIZE -1"] {
            assert_eq!(offer(line).size, Some(0), "{line}");
        }
    }

    #[test]
    fn both_forms_of_auth_are_read_once() {
        let both = offer("AUTH PLAIN login\nAUTH=PLAIN LOGIN\nAUTH=CRAM-MD5");
        let expected: [Box<str>; 3] = ["PLAIN".into(), "LOGIN".into(), "CRAM-MD5".into()];
        assert_eq!(both.auth, expected);
    }
}
