//! The codec against generated entries, damaged octets and hostile ones.

use postwright_core::{
    Cause, DeliveryStatus, Diagnostic, DnsError, EnhancedStatus, Outcome, Phase, Remote, Reply, ReplyCode,
    Timestamp, TlsSummary,
};
use proptest::prelude::*;

use super::*;

fn option<S: Strategy>(inner: S) -> impl Strategy<Value = Option<S::Value>>
where
    S::Value: Clone,
{
    proptest::option::of(inner)
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0u64..u64::MAX).prop_map(Timestamp::from_millis)
}

fn text() -> impl Strategy<Value = Box<str>> {
    ".{0,20}".prop_map(Into::into)
}

fn mailbox() -> impl Strategy<Value = postwright_core::Mailbox> {
    let local = prop_oneof!["[a-zA-Z0-9]{1,20}", "\"[ a-z@>,]{1,20}\"", "[é-ü]{1,9}"];
    let host = prop_oneof![
        "[a-z]{1,10}\\.(org|xn--p1ai)",
        Just("[192.0.2.1]".to_owned()),
        Just("[IPv6:2001:db8::1]".to_owned())
    ];
    (local, host).prop_filter_map("a mailbox", |(local, host)| format!("{local}@{host}").parse().ok())
}

fn phase() -> impl Strategy<Value = Phase> {
    proptest::sample::select(vec![
        Phase::Resolve,
        Phase::Connect,
        Phase::Rcpt,
        Phase::EndOfData,
        Phase::Closing,
    ])
}

fn cause() -> impl Strategy<Value = Cause> {
    prop_oneof![
        Just(Cause::NoRoute),
        Just(Cause::NullMx),
        proptest::sample::select(vec![DnsError::Timeout, DnsError::ServFail, DnsError::Bogus])
            .prop_map(Cause::Dns),
        Just(Cause::Unreachable),
        phase().prop_map(Cause::Timeout),
        phase().prop_map(Cause::ConnectionLost),
        (phase(), text()).prop_map(|(phase, what)| Cause::Protocol(phase, what)),
        text().prop_map(Cause::Tls),
        text().prop_map(Cause::MissingExtension),
        Just(Cause::Loop),
        text().prop_map(Cause::Policy),
        Just(Cause::Expired),
        text().prop_map(Cause::Cancelled),
        text().prop_map(Cause::Internal),
        text().prop_map(Cause::Suppressed),
    ]
}

fn enhanced() -> impl Strategy<Value = EnhancedStatus> {
    (proptest::sample::select(vec![2u8, 4, 5]), 0u16..1000, 0u16..1000)
        .prop_map(|(class, subject, detail)| EnhancedStatus::known(class, subject, detail))
}

fn reply() -> impl Strategy<Value = Reply> {
    let code = (2u16..6, 0u16..6, 0u16..10).prop_map(|(a, b, c)| a * 100 + b * 10 + c);
    (code, option(enhanced()), proptest::collection::vec(".{0,20}", 1..4)).prop_map(
        |(code, status, lines)| {
            let reply = Reply::new(ReplyCode::new(code).unwrap(), &lines.join("\n"));
            status.map_or(reply.clone(), |status| reply.with_status(status))
        },
    )
}

fn remote() -> impl Strategy<Value = Remote> {
    let host = prop_oneof![Just("mx.example.org"), Just("[IPv6:2001:db8::2]")];
    let tls = (text(), text(), any::<bool>()).prop_map(|(version, cipher, verified)| TlsSummary {
        version,
        cipher,
        verified,
    });
    (host, option(any::<std::net::SocketAddrV4>()), option(tls)).prop_map(|(host, address, tls)| Remote {
        host: host.parse().unwrap(),
        address: address.map(Into::into),
        tls,
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    proptest::sample::select(vec![
        Outcome::Delivered,
        Outcome::Relayed,
        Outcome::Failed,
        Outcome::Delayed,
        Outcome::Unknown,
    ])
}

fn status() -> impl Strategy<Value = DeliveryStatus> {
    let diagnostic = prop_oneof![reply().prop_map(Diagnostic::Smtp), cause().prop_map(Diagnostic::Local)];
    (outcome(), enhanced(), diagnostic, phase(), option(remote()), time()).prop_map(
        |(outcome, status, diagnostic, phase, remote, at)| DeliveryStatus {
            outcome,
            status,
            diagnostic,
            phase,
            remote,
            at,
        },
    )
}

fn progress() -> impl Strategy<Value = Progress> {
    let statuses = proptest::collection::vec(status(), 0..HISTORY_MAX + 3);
    (statuses, any::<u32>(), time(), any::<bool>(), proptest::sample::select(FATES.to_vec())).prop_map(
        |(statuses, steps, due, warned, fate)| {
            let mut progress = Progress { steps, due, warned, ..Progress::default() };
            statuses.into_iter().for_each(|status| progress.note(status));
            progress.fate = fate;
            progress
        },
    )
}

fn notify() -> impl Strategy<Value = Notify> {
    prop_oneof![
        Just(Notify::Never),
        any::<(bool, bool, bool)>().prop_map(|(success, failure, delay)| Notify::When {
            success,
            failure,
            delay
        }),
    ]
}

fn recipient() -> impl Strategy<Value = (Recipient, Progress)> {
    let original = (text(), text()).prop_map(|(kind, address)| OriginalRecipient { kind, address });
    (mailbox(), option(notify()), option(original), progress())
        .prop_map(|(mailbox, notify, original, progress)| (Recipient { mailbox, notify, original }, progress))
}

fn options() -> impl Strategy<Value = MailOptions> {
    let by = (time(), any::<bool>(), any::<bool>()).prop_map(|(deadline, notify, trace)| DeliverBy {
        deadline,
        notify,
        trace,
    });
    let path = option(mailbox()).prop_map(|path| path.map_or(ReversePath::Null, ReversePath::Mailbox));
    let body = proptest::sample::select(vec![Body::SevenBit, Body::EightBitMime, Body::BinaryMime]);
    let ret = proptest::sample::select(vec![None, Some(Ret::Full), Some(Ret::Headers)]);
    let first = (option(any::<u64>()), body, any::<bool>(), any::<bool>(), ret);
    let second = (option(text()), option(path), option(by), option(time()), option(any::<i8>()));
    (first, second).prop_map(|((size, body, utf8, tls, ret), (id, auth, by, hold, priority))| {
        let mut options = MailOptions::default();
        (options.size, options.body, options.smtp_utf8, options.require_tls, options.ret) =
            (size, body, utf8, tls, ret);
        (options.envelope_id, options.auth, options.deliver_by, options.hold_until, options.priority) =
            (id, auth, by, hold, priority);
        options
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let metadata = proptest::collection::btree_map(
        text(),
        proptest::collection::vec(any::<u8>(), 0..9).prop_map(Into::into),
        0..3,
    );
    let head = (any::<[u8; 16]>(), time(), time(), any::<u64>(), text(), text(), metadata);
    let envelope = (option(mailbox()), options(), proptest::collection::vec(recipient(), 0..4));
    (head, envelope).prop_map(
        |((id, created, expires, size, tenant, stream, metadata), (path, options, to))| {
            let (recipients, progress) = to.into_iter().unzip();
            Entry {
                id: SpoolId::from_bytes(id),
                envelope: Envelope {
                    reverse_path: path.map_or(ReversePath::Null, ReversePath::Mailbox),
                    recipients,
                    options,
                },
                progress,
                created,
                expires,
                tenant,
                stream,
                size,
                metadata,
            }
        },
    )
}

/// Puts a right checksum behind octets, so that what lies behind it is tested too.
fn seal(framed: &[u8]) -> Vec<u8> {
    let mut out = framed.to_vec();
    out.extend_from_slice(&crc32fast::hash(framed).to_le_bytes());
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn entries_come_back(entry in entry()) {
        prop_assert_eq!(decode(&encode(&entry)), Ok(entry));
    }

    #[test]
    fn a_flipped_bit_or_a_lost_tail_is_found(entry in entry(), at: proptest::sample::Index, bit in 0u8..8) {
        let octets = encode(&entry);
        let mut flipped = octets.clone();
        flipped[at.index(octets.len())] ^= 1 << bit;
        prop_assert!(decode(&flipped).is_err());
        prop_assert!(decode(&octets[..at.index(octets.len())]).is_err());
    }

    #[test]
    fn octets_with_a_right_checksum_never_panic(
        entry in entry(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut octets = encode(&entry);
        octets.truncate(octets.len() - 4);
        for (at, value) in edits {
            // Behind magic and version, or nothing would be read.
            let at = 4 + at.index(octets.len() - 4);
            octets[at] = value;
        }
        // Whatever it is taken for has the same meaning when it is written again.
        if let Ok(entry) = decode(&seal(&octets)) {
            prop_assert_eq!(decode(&encode(&entry)), Ok(entry));
        }
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&noise);
        let mut framed = b"PWE\x01".to_vec();
        framed.extend_from_slice(&noise);
        let _ = decode(&seal(&framed));
    }
}

#[test]
fn errors_say_what_is_wrong() {
    assert_eq!(decode(b""), Err(DecodeError::Truncated));
    assert_eq!(decode(&seal(b"XWE\x01")), Err(DecodeError::Magic));
    assert_eq!(decode(&seal(b"PWE\x63rest")), Err(DecodeError::Version(0x63)));
    assert_eq!(decode(b"PWE\x01restrest"), Err(DecodeError::Checksum));
    assert_eq!(decode(&seal(b"PWE\x01")), Err(DecodeError::Truncated));
}
