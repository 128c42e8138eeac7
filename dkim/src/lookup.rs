//! Key look-ups: each name once, all at the same time.
//!
//! Invariant: at most one look-up for each distinct key name, and only for signatures that could still pass.
//!
//! Standards: RFC 6376 3.6.2, 6.1.2.

use std::pin::Pin;
use std::task::Poll;

use postwright_core::{Answer, BoxFuture, DnsError, Name, Record, RecordKind, Resolver};

use crate::key::KeyRecord;
use crate::limits::Limits;
use crate::result::Reason;

/// The keys at one name: those that can be used, in the order of DNS, or why there is none.
pub(crate) type Keys = Result<Vec<KeyRecord>, Reason>;

/// Looks up all `names`, in parallel. The answers are in the same order.
pub(crate) async fn keys(resolver: &dyn Resolver, names: &[Name], limits: &Limits) -> Vec<Keys> {
    // Nearly every message.
    if let [name] = names {
        return vec![read(resolver.lookup(name, RecordKind::Txt).await, limits)];
    }
    let lookups = names.iter().map(|name| resolver.lookup(name, RecordKind::Txt)).collect();
    join(lookups).await.into_iter().map(|answer| read(answer, limits)).collect()
}

fn read(answer: Result<Answer, DnsError>, limits: &Limits) -> Keys {
    let answer = answer.map_err(Reason::Dns)?;
    let mut first_reason = Reason::KeyMissing;
    let mut keys = Vec::new();
    for (nth, record) in answer.records().iter().take(limits.key_records).enumerate() {
        match key(record, limits) {
            Ok(key) => keys.push(key),
            Err(reason) if nth == 0 => first_reason = reason,
            Err(_) => {}
        }
    }
    if keys.is_empty() { Err(first_reason) } else { Ok(keys) }
}

fn key(record: &Record, limits: &Limits) -> Result<KeyRecord, Reason> {
    match record {
        Record::Txt(strings) => match &strings[..] {
            [whole] => KeyRecord::parse(whole, limits),
            // Joined only if it is short enough to be read.
            parts if parts.iter().map(|part| part.len()).sum::<usize>() > limits.key_record_octets => {
                Err(Reason::KeyRecordTooLong)
            }
            parts => KeyRecord::parse(&parts.concat(), limits),
        },
        _ => Err(Reason::KeySyntax),
    }
}

/// Polls all futures until each is done. There are few: their number is capped by [`Limits::signatures`].
async fn join<T>(mut futures: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(move |cx| {
        let mut pending = false;
        for (future, slot) in futures.iter_mut().zip(&mut done) {
            if slot.is_none() {
                match Pin::as_mut(future).poll(cx) {
                    Poll::Ready(value) => *slot = Some(value),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(done.drain(..).flatten().collect()) }
    })
    .await
}
