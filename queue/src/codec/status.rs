//! Delivery statuses and past attempts as octets.
//!
//! Invariant: tags are never reused; a new variant of core's vocabulary gets a new tag here, and until then is
//! kept as text.
//!
//! Not here: the frame with version and checksum.

use std::net::SocketAddr;

use postwright_core::{
    Cause, DeliveryStatus, Diagnostic, DnsError, EnhancedStatus, Outcome, Phase, Remote, Reply, ReplyCode,
    TlsSummary,
};

use super::DecodeError;
use super::wire::{Reader, Writer};
use crate::entry::PastAttempt;

type Read<T> = Result<T, DecodeError>;

const OUTCOMES: [Outcome; 5] =
    [Outcome::Delivered, Outcome::Relayed, Outcome::Failed, Outcome::Delayed, Outcome::Unknown];

/// In the order of their tags; new ones go to the end.
const PHASES: [Phase; 12] = [
    Phase::Resolve,
    Phase::Connect,
    Phase::Greeting,
    Phase::Hello,
    Phase::StartTls,
    Phase::Auth,
    Phase::Mail,
    Phase::Rcpt,
    Phase::Data,
    Phase::Body,
    Phase::EndOfData,
    Phase::Closing,
];

const DNS_ERRORS: [DnsError; 3] = [DnsError::Timeout, DnsError::ServFail, DnsError::Bogus];

/// The tag of a value is its place in the list; a value that is not in it takes the first place.
fn write_tag<T: PartialEq>(w: &mut Writer, list: &[T], value: &T) {
    let place = list.iter().position(|item| item == value).unwrap_or(0);
    w.byte(u8::try_from(place).unwrap_or(0));
}

fn read_tag<T: Copy>(r: &mut Reader<'_>, list: &[T], what: &'static str) -> Read<T> {
    list.get(usize::from(r.byte()?)).copied().ok_or(DecodeError::Malformed(what))
}

pub(super) fn write_enhanced(w: &mut Writer, status: EnhancedStatus) {
    w.byte(status.class());
    w.number(status.subject().into());
    w.number(status.detail().into());
}

pub(super) fn read_enhanced(r: &mut Reader<'_>) -> Read<EnhancedStatus> {
    let (class, subject, detail) = (r.byte()?, r.small()?, r.small()?);
    EnhancedStatus::new(class, subject, detail).ok_or(DecodeError::Malformed("an enhanced status"))
}

fn read_code(r: &mut Reader<'_>) -> Read<ReplyCode> {
    ReplyCode::new(r.small()?).ok_or(DecodeError::Malformed("a reply code"))
}

pub(super) fn write_past(w: &mut Writer, past: &PastAttempt) {
    w.time(past.at);
    write_tag(w, &OUTCOMES, &past.outcome);
    write_enhanced(w, past.status);
    w.option(past.code, |w, code| w.number(code.get().into()));
}

pub(super) fn read_past(r: &mut Reader<'_>) -> Read<PastAttempt> {
    Ok(PastAttempt {
        at: r.time()?,
        outcome: read_tag(r, &OUTCOMES, "an outcome")?,
        status: read_enhanced(r)?,
        code: r.option(read_code)?,
    })
}

pub(super) fn write_status(w: &mut Writer, status: &DeliveryStatus) {
    write_tag(w, &OUTCOMES, &status.outcome);
    write_enhanced(w, status.status);
    match &status.diagnostic {
        Diagnostic::Smtp(reply) => {
            w.byte(0);
            write_reply(w, reply);
        }
        Diagnostic::Local(cause) => {
            w.byte(1);
            write_cause(w, cause);
        }
    }
    write_tag(w, &PHASES, &status.phase);
    w.option(status.remote.as_ref(), write_remote);
    w.time(status.at);
}

pub(super) fn read_status(r: &mut Reader<'_>) -> Read<DeliveryStatus> {
    Ok(DeliveryStatus {
        outcome: read_tag(r, &OUTCOMES, "an outcome")?,
        status: read_enhanced(r)?,
        diagnostic: match r.byte()? {
            0 => Diagnostic::Smtp(read_reply(r)?),
            1 => Diagnostic::Local(read_cause(r)?),
            _ => return Err(DecodeError::Malformed("a diagnostic")),
        },
        phase: read_tag(r, &PHASES, "a phase")?,
        remote: r.option(read_remote)?,
        at: r.time()?,
    })
}

fn write_reply(w: &mut Writer, reply: &Reply) {
    w.number(reply.code().get().into());
    w.option(reply.status(), write_enhanced);
    w.len(reply.lines().len());
    for line in reply.lines() {
        w.str(line);
    }
}

fn read_reply(r: &mut Reader<'_>) -> Read<Reply> {
    let code = read_code(r)?;
    let status = r.option(read_enhanced)?;
    let mut text = String::new();
    for _ in 0..r.count()? {
        text.push_str(r.str()?);
        // `Reply::new` drops one line feed at the end.
        text.push('\n');
    }
    let reply = Reply::new(code, &text);
    Ok(match status {
        Some(status) => reply.with_status(status),
        None => reply,
    })
}

fn write_cause(w: &mut Writer, cause: &Cause) {
    match cause {
        Cause::NoRoute => w.byte(0),
        Cause::NullMx => w.byte(1),
        Cause::Dns(error) => {
            w.byte(2);
            write_tag(w, &DNS_ERRORS, error);
        }
        Cause::Unreachable => w.byte(3),
        Cause::Timeout(phase) => {
            w.byte(4);
            write_tag(w, &PHASES, phase);
        }
        Cause::ConnectionLost(phase) => {
            w.byte(5);
            write_tag(w, &PHASES, phase);
        }
        Cause::Protocol(phase, what) => {
            w.byte(6);
            write_tag(w, &PHASES, phase);
            w.str(what);
        }
        Cause::Tls(why) => write_text(w, 7, why),
        Cause::MissingExtension(keyword) => write_text(w, 8, keyword),
        Cause::Loop => w.byte(9),
        Cause::Policy(what) => write_text(w, 10, what),
        Cause::Expired => w.byte(11),
        Cause::Cancelled(why) => write_text(w, 12, why),
        Cause::Internal(what) => write_text(w, 13, what),
        Cause::Suppressed(why) => write_text(w, 14, why),
        other => write_text(w, 13, &other.to_string()),
    }
}

fn write_text(w: &mut Writer, tag: u8, text: &str) {
    w.byte(tag);
    w.str(text);
}

fn read_cause(r: &mut Reader<'_>) -> Read<Cause> {
    let phase = |r: &mut Reader<'_>| read_tag(r, &PHASES, "a phase");
    Ok(match r.byte()? {
        0 => Cause::NoRoute,
        1 => Cause::NullMx,
        2 => Cause::Dns(read_tag(r, &DNS_ERRORS, "a DNS error")?),
        3 => Cause::Unreachable,
        4 => Cause::Timeout(phase(r)?),
        5 => Cause::ConnectionLost(phase(r)?),
        6 => Cause::Protocol(phase(r)?, r.str()?.into()),
        7 => Cause::Tls(r.str()?.into()),
        8 => Cause::MissingExtension(r.str()?.into()),
        9 => Cause::Loop,
        10 => Cause::Policy(r.str()?.into()),
        11 => Cause::Expired,
        12 => Cause::Cancelled(r.str()?.into()),
        13 => Cause::Internal(r.str()?.into()),
        14 => Cause::Suppressed(r.str()?.into()),
        _ => return Err(DecodeError::Malformed("a cause")),
    })
}

fn write_remote(w: &mut Writer, remote: &Remote) {
    w.str(&remote.host.to_string());
    w.option(remote.address, |w, address| w.str(&address.to_string()));
    w.option(remote.tls.as_ref(), |w, tls| {
        w.str(&tls.version);
        w.str(&tls.cipher);
        w.bool(tls.verified);
    });
}

fn read_remote(r: &mut Reader<'_>) -> Read<Remote> {
    Ok(Remote {
        host: r.parse("a host")?,
        address: r.option(|r| r.parse::<SocketAddr>("a socket address"))?,
        tls: r.option(|r| {
            Ok(TlsSummary { version: r.str()?.into(), cipher: r.str()?.into(), verified: r.bool()? })
        })?,
    })
}
