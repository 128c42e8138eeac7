//! Parameters of MAIL and RCPT.
//!
//! Invariant: a parameter comes at most once; a known one has a value of its type; an unknown one keeps its text.
//! Whether a parameter was offered is the session's to judge.
//!
//! Standards: RFC 5321 4.1.1.11; RFC 1870; RFC 6152; RFC 3030; RFC 3461 4; RFC 6533 3; RFC 6531 3.4; RFC 8689;
//! RFC 4954 5; RFC 2852 4; RFC 4865 4; RFC 6710 4.
//!
//! Not here: turning spans into moments (the session knows the time).

use postwright_core::{Body, Mailbox, Notify, OriginalRecipient, Ret, ReversePath, Timestamp};

use super::date::parse_rfc3339;
use super::words;
use super::xtext::{decode_utf8_address, decode_xtext};

/// One `KEYWORD[=value]` of MAIL or RCPT that the parser does not know itself (RFC 5321 4.1.1.11).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Parameter {
    /// The keyword in upper case.
    pub keyword: Box<str>,
    /// The value as sent, if there was an `=`.
    pub value: Option<Box<str>>,
}

/// Why parameters are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// Not `KEYWORD` or `KEYWORD=value`.
    #[error("Malformed parameter")]
    Malformed,
    /// Given twice.
    #[error("Parameter {0} given twice")]
    Twice(Box<str>),
    /// The value is missing, not allowed, or not of the parameter's type.
    #[error("Bad value for parameter {0}")]
    Value(&'static str),
}

/// BY= as given: seconds from now (RFC 2852 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliverBy {
    /// Seconds; zero or negative only in mode N.
    pub seconds: i32,
    /// Mode `N` (notify) rather than `R` (return).
    pub notify: bool,
    /// `T`: trace.
    pub trace: bool,
}

/// HOLDFOR= or HOLDUNTIL= as given (RFC 4865 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hold {
    /// Seconds from now.
    For(u32),
    /// A moment.
    Until(Timestamp),
}

/// The parameters of MAIL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MailParameters {
    /// SIZE= (RFC 1870); a number of 20 digits that does not fit counts as `u64::MAX`.
    pub size: Option<u64>,
    /// BODY= (RFC 6152, RFC 3030).
    pub body: Option<Body>,
    /// SMTPUTF8 (RFC 6531).
    pub smtp_utf8: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// RET= (RFC 3461 4.3).
    pub ret: Option<Ret>,
    /// ENVID=, decoded (RFC 3461 4.4).
    pub envelope_id: Option<Box<str>>,
    /// AUTH= (RFC 4954 5).
    pub auth: Option<ReversePath>,
    /// BY= (RFC 2852).
    pub deliver_by: Option<DeliverBy>,
    /// HOLDFOR= or HOLDUNTIL= (RFC 4865).
    pub hold: Option<Hold>,
    /// MT-PRIORITY= (RFC 6710).
    pub priority: Option<i8>,
    /// The others.
    pub other: Vec<Parameter>,
}

/// The parameters of RCPT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RcptParameters {
    /// NOTIFY= (RFC 3461 4.1).
    pub notify: Option<Notify>,
    /// ORCPT= (RFC 3461 4.2).
    pub original: Option<OriginalRecipient>,
    /// The others.
    pub other: Vec<Parameter>,
}

/// Longest ENVID in octets before decoding (RFC 3461 4.4).
const ENVID_MAX: usize = 100;
/// Longest ORCPT in octets before decoding (RFC 3461 4.2).
const ORCPT_MAX: usize = 500;

impl MailParameters {
    /// Parses what stands behind the reverse-path.
    pub fn parse(text: &str) -> Result<MailParameters, ParameterError> {
        let mut all = MailParameters::default();
        let mut rest = text;
        while let Some((keyword, value)) = next(&mut rest)? {
            all.take(keyword, value)?;
        }
        Ok(all)
    }

    fn take(&mut self, keyword: &str, value: Option<&str>) -> Result<(), ParameterError> {
        let is = |name: &str| words::is(keyword, name);
        if is("SIZE") {
            set(&mut self.size, "SIZE", value.and_then(parse_size))
        } else if is("BODY") {
            set(&mut self.body, "BODY", value.and_then(parse_body))
        } else if is("SMTPUTF8") {
            flag(&mut self.smtp_utf8, "SMTPUTF8", value)
        } else if is("REQUIRETLS") {
            flag(&mut self.require_tls, "REQUIRETLS", value)
        } else if is("RET") {
            set(&mut self.ret, "RET", value.and_then(parse_ret))
        } else if is("ENVID") {
            let id = value.filter(|value| value.len() <= ENVID_MAX).and_then(decode_xtext);
            set(&mut self.envelope_id, "ENVID", id.filter(|id| !id.is_empty()).map(Into::into))
        } else if is("AUTH") {
            set(&mut self.auth, "AUTH", value.and_then(parse_auth))
        } else if is("BY") {
            set(&mut self.deliver_by, "BY", value.and_then(parse_by))
        } else if is("HOLDFOR") {
            set(&mut self.hold, "HOLDFOR", value.and_then(|v| digits(v, 9)?.parse().ok()).map(Hold::For))
        } else if is("HOLDUNTIL") {
            set(&mut self.hold, "HOLDUNTIL", value.and_then(parse_rfc3339).map(Hold::Until))
        } else if is("MT-PRIORITY") {
            set(&mut self.priority, "MT-PRIORITY", value.and_then(parse_priority))
        } else {
            keep(&mut self.other, keyword, value)
        }
    }
}

impl RcptParameters {
    /// Parses what stands behind the forward-path.
    pub fn parse(text: &str) -> Result<RcptParameters, ParameterError> {
        let mut all = RcptParameters::default();
        let mut rest = text;
        while let Some((keyword, value)) = next(&mut rest)? {
            if words::is(keyword, "NOTIFY") {
                set(&mut all.notify, "NOTIFY", value.and_then(parse_notify))?;
            } else if words::is(keyword, "ORCPT") {
                set(&mut all.original, "ORCPT", value.and_then(parse_original))?;
            } else {
                keep(&mut all.other, keyword, value)?;
            }
        }
        Ok(all)
    }
}

/// Takes the next `KEYWORD[=value]` off the text. What a known keyword may be is said by its name, and its value by its
/// type; [`keep`] looks at the others.
fn next<'a>(rest: &mut &'a str) -> Result<Option<(&'a str, Option<&'a str>)>, ParameterError> {
    let text = words::trim_start(rest);
    if text.is_empty() {
        return Ok(None);
    }
    let (word, behind) = words::cut(text, b' ').unwrap_or((text, ""));
    *rest = behind;
    match words::cut(word, b'=') {
        None => Ok(Some((word, None))),
        Some((_, "")) => Err(ParameterError::Malformed),
        Some((keyword, value)) => Ok(Some((keyword, Some(value)))),
    }
}

fn set<T>(slot: &mut Option<T>, keyword: &'static str, value: Option<T>) -> Result<(), ParameterError> {
    if slot.is_some() {
        return Err(ParameterError::Twice(keyword.into()));
    }
    *slot = Some(value.ok_or(ParameterError::Value(keyword))?);
    Ok(())
}

fn flag(slot: &mut bool, keyword: &'static str, value: Option<&str>) -> Result<(), ParameterError> {
    if *slot {
        return Err(ParameterError::Twice(keyword.into()));
    }
    *slot = value.is_none();
    if *slot { Ok(()) } else { Err(ParameterError::Value(keyword)) }
}

/// An `esmtp-keyword` that is not known here; the value may hold UTF-8 where RFC 6531 allows it, but no `=`.
fn keep(other: &mut Vec<Parameter>, keyword: &str, value: Option<&str>) -> Result<(), ParameterError> {
    let fits = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
        && keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !value.is_some_and(|value| value.contains('='));
    if !fits {
        return Err(ParameterError::Malformed);
    }
    let keyword: Box<str> = keyword.to_ascii_uppercase().into();
    if other.iter().any(|known| known.keyword == keyword) {
        return Err(ParameterError::Twice(keyword));
    }
    other.push(Parameter { keyword, value: value.map(Into::into) });
    Ok(())
}

fn digits(text: &str, max: usize) -> Option<&str> {
    let fine = (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if fine { Some(text) } else { None }
}

fn parse_size(value: &str) -> Option<u64> {
    digits(value, 20).map(|digits| digits.parse().unwrap_or(u64::MAX))
}

fn parse_body(value: &str) -> Option<Body> {
    if words::is(value, "7BIT") {
        Some(Body::SevenBit)
    } else if words::is(value, "8BITMIME") {
        Some(Body::EightBitMime)
    } else if words::is(value, "BINARYMIME") {
        Some(Body::BinaryMime)
    } else {
        None
    }
}

fn parse_ret(value: &str) -> Option<Ret> {
    if words::is(value, "FULL") {
        Some(Ret::Full)
    } else if words::is(value, "HDRS") {
        Some(Ret::Headers)
    } else {
        None
    }
}

fn parse_auth(value: &str) -> Option<ReversePath> {
    if value == "<>" {
        return Some(ReversePath::Null);
    }
    decode_xtext(value)?.parse::<Mailbox>().ok().map(ReversePath::Mailbox)
}

fn parse_by(value: &str) -> Option<DeliverBy> {
    let (time, mode) = value.split_once(';')?;
    let seconds: i32 = match time.strip_prefix('-') {
        Some(time) => -digits(time, 9)?.parse::<i32>().ok()?,
        None => digits(time.strip_prefix('+').unwrap_or(time), 9)?.parse().ok()?,
    };
    let (notify, trace) = match mode.to_ascii_uppercase().as_str() {
        "N" => (true, false),
        "NT" => (true, true),
        "R" => (false, false),
        "RT" => (false, true),
        _ => return None,
    };
    // RFC 2852 4: in mode R the time is greater than zero.
    if !notify && seconds <= 0 { None } else { Some(DeliverBy { seconds, notify, trace }) }
}

fn parse_priority(value: &str) -> Option<i8> {
    let magnitude: i8 = digits(value.strip_prefix('-').unwrap_or(value), 1)?.parse().ok()?;
    Some(if value.starts_with('-') { -magnitude } else { magnitude })
}

fn parse_notify(value: &str) -> Option<Notify> {
    if words::is(value, "NEVER") {
        return Some(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    let mut rest = Some(value);
    while let Some(list) = rest {
        let (word, behind) =
            words::cut(list, b',').map_or((list, None), |(word, behind)| (word, Some(behind)));
        rest = behind;
        let slot = if words::is(word, "SUCCESS") {
            &mut success
        } else if words::is(word, "FAILURE") {
            &mut failure
        } else if words::is(word, "DELAY") {
            &mut delay
        } else {
            return None;
        };
        *slot = true;
    }
    Some(Notify::When { success, failure, delay })
}

fn parse_original(value: &str) -> Option<OriginalRecipient> {
    let (kind, address) = words::cut(value, b';').filter(|_| value.len() <= ORCPT_MAX)?;
    let atom = |b: u8| {
        b.is_ascii_graphic()
            && !matches!(b, b'"' | b'(' | b')' | b',' | b':'..=b'=' | b'>' | b'@' | b'['..=b']')
    };
    if kind.is_empty() || !kind.bytes().all(atom) {
        return None;
    }
    let address =
        if words::is(kind, "UTF-8") { decode_utf8_address(address)? } else { decode_xtext(address)? };
    if address.is_empty() {
        None
    } else {
        Some(OriginalRecipient { kind: kind.into(), address: address.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_parameter_of_mail() {
        let all = MailParameters::parse(
            " SIZE=1000  body=8bitmime SMTPUTF8 REQUIRETLS RET=HDRS ENVID=QQ+2B314 AUTH=e+3Dmc2@example.com BY=120;rt \
             HOLDFOR=60 MT-PRIORITY=-3 XMOOD=good XFLAG",
        )
        .unwrap();
        assert_eq!((all.size, all.body, all.ret), (Some(1000), Some(Body::EightBitMime), Some(Ret::Headers)));
        assert!(all.smtp_utf8 && all.require_tls);
        assert_eq!(all.envelope_id.as_deref(), Some("QQ+314"));
        // RFC 4954 section 5's own example.
        assert_eq!(all.auth.unwrap().to_string(), "<e=mc2@example.com>");
        assert_eq!(all.deliver_by, Some(DeliverBy { seconds: 120, notify: false, trace: true }));
        assert_eq!((all.hold, all.priority), (Some(Hold::For(60)), Some(-3)));
        assert_eq!(all.other.len(), 2);
        assert_eq!(all.other[0], Parameter { keyword: "XMOOD".into(), value: Some("good".into()) });
    }

    #[test]
    fn bad_parameters_of_mail() {
        for bad in [
            "SIZE",
            "SIZE=",
            "SIZE=-1",
            "SIZE=1x",
            "SIZE=123456789012345678901",
            "SIZE=1 SIZE=2",
            "BODY=9BIT",
            "BODY",
            "SMTPUTF8=1",
            "SMTPUTF8 SMTPUTF8",
            "RET=ALL",
            "ENVID=a+00b",
            "ENVID=+",
            "AUTH=a",
            "BY=0;R",
            "BY=1",
            "BY=1;X",
            "BY=1234567890;N",
            "HOLDFOR=1 HOLDUNTIL=2026-01-01T00:00:00Z",
            "HOLDUNTIL=tomorrow",
            "MT-PRIORITY=10",
            "MT-PRIORITY=+1",
            "=x",
            "-X=1",
            "X=a=b",
            "X_Y=1",
            "X= ",
            "XA=1 xa=2",
            "SIZE=${run{x}}",
        ] {
            assert!(MailParameters::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(MailParameters::parse("SIZE=99999999999999999999").unwrap().size, Some(u64::MAX));
        assert_eq!(MailParameters::parse("AUTH=<>").unwrap().auth, Some(ReversePath::Null));
        assert_eq!(MailParameters::parse("BY=-5;n").unwrap().deliver_by.unwrap().seconds, -5);
    }

    #[test]
    fn parameters_of_rcpt() {
        let all = RcptParameters::parse("NOTIFY=success,DELAY ORCPT=rfc822;Joe+2Bx@Example.org").unwrap();
        assert_eq!(all.notify, Some(Notify::When { success: true, failure: false, delay: true }));
        assert_eq!(&*all.original.unwrap().address, "Joe+x@Example.org");
        assert_eq!(RcptParameters::parse("NOTIFY=never").unwrap().notify, Some(Notify::Never));
        let utf8 = RcptParameters::parse("ORCPT=utf-8;\\x{E9}@example.org").unwrap();
        assert_eq!(&*utf8.original.unwrap().address, "\u{e9}@example.org");
        for bad in [
            "NOTIFY=",
            "NOTIFY=NEVER,FAILURE",
            "NOTIFY=success,",
            "ORCPT=rfc822",
            "ORCPT=;a",
            "ORCPT=rfc822;",
            "ORCPT=rfc822;a+0Ab",
            "ORCPT=rfc822;\u{e9}",
            "NOTIFY=NEVER NOTIFY=NEVER",
        ] {
            assert!(RcptParameters::parse(bad).is_err(), "{bad}");
        }
    }
}
