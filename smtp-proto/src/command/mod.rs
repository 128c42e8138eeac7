//! Command lines: the parsed [`Command`] and its parts.
//!
//! Not here: framing of lines, what a command does (server), writing commands (client).

/// One `KEYWORD[=value]` of MAIL or RCPT that the parser does not know itself (RFC 5321 4.1.1.11).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Parameter {
    /// The keyword in upper case.
    pub keyword: Box<str>,
    /// The value as sent, if there was an `=`.
    pub value: Option<Box<str>>,
}
