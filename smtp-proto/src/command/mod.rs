//! Command lines: the parsed [`Command`], its parameters and what can be wrong with it.
//!
//! Invariant: parsing loses nothing (quoting, case, unknown verbs and parameters keep their text), borrows what it
//! can, and never panics. A parsed command says nothing about whether it is allowed now.
//!
//! Standards: RFC 5321 4.1; RFC 3030 (BDAT); RFC 4954 4 (AUTH); RFC 2033 (LHLO); Postfix XCLIENT_README and
//! XFORWARD_README.
//!
//! Not here: framing of lines ([`line`](crate::line)), what a command does ([`server`](crate::server)), writing
//! commands (client).

mod date;
mod parameters;
mod path;
mod words;
mod xtext;

use postwright_core::{AddressError, EnhancedStatus, Refusal, ReversePath};

pub use parameters::{DeliverBy, Hold, MailParameters, Parameter, ParameterError, RcptParameters};
pub use path::{ForwardPath, PathError};
pub(crate) use words::has_control;
pub use xtext::{decode_utf8_address, decode_xtext, encode_xtext};

/// A command line of a client, without its CRLF.
///
/// ```
/// use postwright_smtp_proto::command::Command;
/// let Command::Mail { path, parameters, .. } = Command::parse(b"mail from:<\"a>b\"@Example.org> SIZE=7 XTRA=y")? else { panic!() };
/// assert_eq!(path.to_string(), "<\"a>b\"@example.org>");
/// assert_eq!(parameters.size, Some(7));
/// assert_eq!(&*parameters.other[0].keyword, "XTRA");
/// # Ok::<(), postwright_smtp_proto::command::CommandError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command<'a> {
    /// EHLO and its argument.
    Ehlo(&'a str),
    /// HELO and its argument.
    Helo(&'a str),
    /// LHLO and its argument (RFC 2033).
    Lhlo(&'a str),
    /// MAIL FROM.
    Mail {
        /// The reverse-path; a source route is dropped.
        path: ReversePath,
        /// The parameters.
        parameters: MailParameters,
        /// Nothing but ASCII was sent. What is not ASCII needs SMTPUTF8 (RFC 6531 3.5), although a domain is kept in
        /// A-labels whatever it came in.
        ascii: bool,
    },
    /// RCPT TO.
    Rcpt {
        /// The forward-path; a source route is dropped.
        path: ForwardPath,
        /// The parameters.
        parameters: RcptParameters,
        /// As in `Mail`.
        ascii: bool,
    },
    /// DATA.
    Data,
    /// BDAT (RFC 3030): so many octets follow at once.
    Bdat {
        /// Octets of the chunk.
        size: u64,
        /// Whether it is the last of the message.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY and its argument.
    Vrfy(&'a str),
    /// EXPN and its argument.
    Expn(&'a str),
    /// HELP and its argument, perhaps empty.
    Help(&'a str),
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH (RFC 4954).
    Auth {
        /// The mechanism as sent.
        mechanism: &'a str,
        /// The initial response, still in base64; `=` stands for an empty one.
        initial: Option<&'a str>,
    },
    /// XCLIENT and its attributes, undecoded (Postfix).
    Xclient(&'a str),
    /// XFORWARD and its attributes, undecoded (Postfix).
    Xforward(&'a str),
    /// A verb that is not known here.
    Unknown {
        /// The verb as sent: a letter, then no blank.
        verb: &'a str,
        /// What stands behind it.
        text: &'a str,
    },
}

/// What is wrong with a command line. The fault is the client's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Control characters or octets that are not UTF-8.
    #[error("the line is not text")]
    NotText,
    /// Another protocol, such as HTTP, or a line that does not begin with a letter.
    #[error("this is not SMTP")]
    OtherProtocol,
    /// The arguments are missing or too many; how it should look.
    #[error("Syntax: {0}")]
    Usage(&'static str),
    /// The reverse-path of MAIL is not one.
    #[error("Bad sender: {0}")]
    ReversePath(PathError),
    /// The forward-path of RCPT is not one.
    #[error("Bad recipient: {0}")]
    ForwardPath(PathError),
    /// A parameter of MAIL or RCPT has a value that it cannot have.
    #[error("{0}")]
    Parameter(#[from] ParameterError),
    /// BDAT with a bad argument. `skip` is the number of octets that follow, if it could be read: they must be
    /// read and dropped before the next command.
    #[error("Syntax: BDAT size [LAST]")]
    Bdat {
        /// Octets that follow.
        skip: Option<u64>,
    },
}

impl CommandError {
    /// What the client is told.
    pub fn refusal(&self) -> Refusal {
        let (code, status) = match self {
            CommandError::NotText => (500, EnhancedStatus::known(5, 5, 2)),
            CommandError::OtherProtocol => (502, EnhancedStatus::known(5, 7, 0)),
            // A U-label in a build that cannot read it: RFC 6531 3.5, as if SMTPUTF8 were not there.
            CommandError::ReversePath(PathError::Address(AddressError::NotAscii))
            | CommandError::ForwardPath(PathError::Address(AddressError::NotAscii)) => {
                (553, EnhancedStatus::known(5, 6, 7))
            }
            CommandError::ReversePath(_) => (501, EnhancedStatus::known(5, 1, 7)),
            CommandError::ForwardPath(_) => (501, EnhancedStatus::known(5, 1, 3)),
            CommandError::Usage(_) | CommandError::Parameter(_) | CommandError::Bdat { .. } => {
                (501, EnhancedStatus::known(5, 5, 4))
            }
        };
        Refusal::known(code, status, &self.to_string())
    }
}

/// Verbs that no SMTP client sends but a browser or a confused proxy does (RFC 3207 6 has no defence of its own).
const OTHER_PROTOCOLS: [&str; 8] = ["GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS", "PRI", "TRACE"];

impl<'a> Command<'a> {
    /// Parses one line, CRLF removed.
    pub fn parse(line: &'a [u8]) -> Result<Command<'a>, CommandError> {
        if !line.first().is_some_and(u8::is_ascii_alphabetic) {
            return Err(if line.is_empty() {
                CommandError::Usage("a command")
            } else {
                CommandError::OtherProtocol
            });
        }
        if words::has_control(line) {
            return Err(CommandError::NotText);
        }
        let text = std::str::from_utf8(line).map_err(|_| CommandError::NotText)?;
        match text.split_at_checked(4).filter(|(_, rest)| rest.is_empty() || rest.starts_with(' ')) {
            Some((verb, rest)) => parse_four(text, verb, trim(rest)),
            None => parse_other(text),
        }
    }
}

fn trim(text: &str) -> &str {
    words::trim_end(words::trim_start(text))
}

/// The commands whose verbs have four letters.
fn parse_four<'a>(text: &'a str, verb: &str, rest: &'a str) -> Result<Command<'a>, CommandError> {
    // Without bit 5 a letter in either case becomes a capital letter, and nothing else does.
    match &verb.as_bytes().first_chunk::<4>().map_or([0; 4], |verb| verb.map(|b| b & !0x20)) {
        b"MAIL" => parse_mail(rest),
        b"RCPT" => parse_rcpt(rest),
        b"DATA" => alone(rest, Command::Data, "DATA"),
        b"BDAT" => parse_bdat(rest),
        b"EHLO" => one_word(rest, "EHLO hostname").map(Command::Ehlo),
        b"HELO" => one_word(rest, "HELO hostname").map(Command::Helo),
        b"LHLO" => one_word(rest, "LHLO hostname").map(Command::Lhlo),
        b"RSET" => alone(rest, Command::Rset, "RSET"),
        b"NOOP" => Ok(Command::Noop),
        b"QUIT" => alone(rest, Command::Quit, "QUIT"),
        b"VRFY" if rest.is_empty() => Err(CommandError::Usage("VRFY address")),
        b"VRFY" => Ok(Command::Vrfy(rest)),
        b"EXPN" if rest.is_empty() => Err(CommandError::Usage("EXPN list")),
        b"EXPN" => Ok(Command::Expn(rest)),
        b"HELP" => Ok(Command::Help(rest)),
        b"AUTH" => parse_auth(rest),
        _ => parse_other(text),
    }
}

/// The other verbs, known or not.
fn parse_other(text: &str) -> Result<Command<'_>, CommandError> {
    let (verb, rest) = words::cut(text, b' ').unwrap_or((text, ""));
    let rest = trim(rest);
    if verb.eq_ignore_ascii_case("STARTTLS") {
        return alone(rest, Command::StartTls, "STARTTLS");
    }
    if verb.eq_ignore_ascii_case("XCLIENT") {
        return Ok(Command::Xclient(rest));
    }
    if verb.eq_ignore_ascii_case("XFORWARD") {
        return Ok(Command::Xforward(rest));
    }
    if OTHER_PROTOCOLS.iter().any(|other| verb.eq_ignore_ascii_case(other)) {
        return Err(CommandError::OtherProtocol);
    }
    Ok(Command::Unknown { verb, text: rest })
}

fn alone<'a>(rest: &str, command: Command<'a>, usage: &'static str) -> Result<Command<'a>, CommandError> {
    if rest.is_empty() { Ok(command) } else { Err(CommandError::Usage(usage)) }
}

fn one_word<'a>(rest: &'a str, usage: &'static str) -> Result<&'a str, CommandError> {
    let fine = (1..=255).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_graphic());
    if fine { Ok(rest) } else { Err(CommandError::Usage(usage)) }
}

/// Removes `FROM:` or `TO:` and the blanks behind it that many clients send (RFC 5321 3.3 forbids sending them).
fn strip_keyword<'a>(rest: &'a str, keyword: &str) -> Option<&'a str> {
    let head = rest.get(..keyword.len())?;
    if head.eq_ignore_ascii_case(keyword) {
        Some(words::trim_start(rest.get(keyword.len()..)?))
    } else {
        None
    }
}

fn parse_mail(rest: &str) -> Result<Command<'_>, CommandError> {
    const USAGE: CommandError = CommandError::Usage("MAIL FROM:<address> [parameters]");
    let rest = strip_keyword(rest, "FROM:").filter(|rest| !rest.is_empty()).ok_or(USAGE)?;
    let (path, parameters) = path::split(rest).map_err(CommandError::ReversePath)?;
    let path = path::reverse(path).map_err(CommandError::ReversePath)?;
    Ok(Command::Mail { path, parameters: MailParameters::parse(parameters)?, ascii: rest.is_ascii() })
}

fn parse_rcpt(rest: &str) -> Result<Command<'_>, CommandError> {
    const USAGE: CommandError = CommandError::Usage("RCPT TO:<address> [parameters]");
    let rest = strip_keyword(rest, "TO:").filter(|rest| !rest.is_empty()).ok_or(USAGE)?;
    let (path, parameters) = path::split(rest).map_err(CommandError::ForwardPath)?;
    let path = path::forward(path).map_err(CommandError::ForwardPath)?;
    Ok(Command::Rcpt { path, parameters: RcptParameters::parse(parameters)?, ascii: rest.is_ascii() })
}

fn parse_bdat(rest: &str) -> Result<Command<'_>, CommandError> {
    let mut words = rest.split(' ').filter(|word| !word.is_empty());
    let size = words.next().filter(|word| word.len() <= 20 && word.bytes().all(|b| b.is_ascii_digit()));
    let size: u64 = size.and_then(|word| word.parse().ok()).ok_or(CommandError::Bdat { skip: None })?;
    match (words.next(), words.next()) {
        (None, _) => Ok(Command::Bdat { size, last: false }),
        (Some(word), None) if word.eq_ignore_ascii_case("LAST") => Ok(Command::Bdat { size, last: true }),
        _ => Err(CommandError::Bdat { skip: Some(size) }),
    }
}

fn parse_auth(rest: &str) -> Result<Command<'_>, CommandError> {
    const USAGE: CommandError = CommandError::Usage("AUTH mechanism [initial-response]");
    let mut words = rest.split(' ');
    let mechanism = words.next().filter(|word| !word.is_empty() && word.len() <= 20).ok_or(USAGE)?;
    let initial = words.next();
    if words.next().is_some() {
        return Err(USAGE);
    }
    Ok(Command::Auth { mechanism, initial })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command<'_>, CommandError> {
        Command::parse(line.as_bytes())
    }

    #[test]
    fn verbs_are_found_in_any_case_and_unknown_ones_keep_their_text() {
        assert_eq!(parse("eHlO  mx.example  "), Ok(Command::Ehlo("mx.example")));
        assert_eq!(parse("NOOP anything goes"), Ok(Command::Noop));
        assert_eq!(parse("xMood cheer ful"), Ok(Command::Unknown { verb: "xMood", text: "cheer ful" }));
        assert_eq!(parse("starttls"), Ok(Command::StartTls));
        assert_eq!(parse("AUTH PLAIN ="), Ok(Command::Auth { mechanism: "PLAIN", initial: Some("=") }));
        assert_eq!(parse("BDAT 0 last"), Ok(Command::Bdat { size: 0, last: true }));
        assert_eq!(parse("BDAT 18446744073709551615"), Ok(Command::Bdat { size: u64::MAX, last: false }));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, code) in [
            ("", 501),
            ("EHLO", 501),
            ("EHLO two words", 501),
            ("HELO h\u{e9}llo", 501),
            ("MAIL LALA:<>", 501),
            ("MAIL FROM:", 501),
            ("MAIL FROM:a@b.example", 501),
            ("MAIL FROM:<pepe>", 501),
            ("RCPT TO:<>", 501),
            ("RCPT TO:<a@b.example>X", 501),
            ("DATA now", 501),
            ("AUTH", 501),
            ("AUTH PLAIN a b", 501),
            ("GET / HTTP/1.1", 502),
            ("connect x:25 HTTP/1.1", 502),
            ("\u{16}\u{3}\u{1}", 502),
            ("NOOP \u{1}", 500),
        ] {
            assert_eq!(parse(line).unwrap_err().refusal().reply().code().get(), code, "{line:?}");
        }
        assert_eq!(Command::parse(b"NOOP \xff"), Err(CommandError::NotText));
    }

    #[test]
    fn u_labels_that_cannot_be_read_are_refused_as_utf8() {
        let path = PathError::Address(AddressError::NotAscii);
        for error in [CommandError::ReversePath(path), CommandError::ForwardPath(path)] {
            let refusal = error.refusal();
            assert_eq!(refusal.reply().code().get(), 553);
            assert_eq!(refusal.reply().status(), Some(EnhancedStatus::known(5, 6, 7)));
        }
    }

    #[test]
    fn a_bad_bdat_says_how_much_follows_if_it_can() {
        assert_eq!(parse("BDAT 5 FIRST"), Err(CommandError::Bdat { skip: Some(5) }));
        assert_eq!(parse("BDAT 5 LAST LAST"), Err(CommandError::Bdat { skip: Some(5) }));
        for line in [
            "BDAT",
            "BDAT -1",
            "BDAT +1",
            "BDAT 1e30",
            "BDAT 18446744073709551616",
            "BDAT x LAST",
            "BDAT 0x5",
        ] {
            assert_eq!(parse(line), Err(CommandError::Bdat { skip: None }), "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_octets_parse_to_something(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = Command::parse(&line);
        }

        #[test]
        fn any_parameters_parse_to_something(text in "(MAIL FROM|RCPT TO):<(@[a-z,@:.]{0,8})?[\"a-z@\\\\.>]{0,12}>( [A-Z-]{1,8}=?[!-~]{0,12}){0,3}") {
            if let Err(error) = Command::parse(text.as_bytes()) {
                proptest::prop_assert!(error.refusal().reply().code().is_permanent());
            }
        }
    }
}
