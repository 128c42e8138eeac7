//! The clauses of the contract, one function each. Each uses messages of its own (its range of numbers), so that
//! they can run on one spool one after the other.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use postwright_core::{DeliveryStatus, EnhancedStatus, HeaderField, Message, Phase, Reply, Timestamp};

use super::{Subject, all, sample, sized};
use crate::spool::PIECE_MAX;
use crate::{Change, Claim, Entry, Item, Scan, Spool, SpoolError, SpoolId, Want};

/// A verb that the contract expects to succeed.
async fn commit(spool: &dyn Spool, changes: Vec<Change>) -> Vec<Claim> {
    spool.commit(changes).await.expect("a valid commit succeeds")
}

async fn put(spool: &dyn Spool, number: u64) -> (Claim, Entry, Message) {
    let (mut entry, body) = sample(number);
    entry.size = body.len() as u64;
    let claims = commit(spool, vec![Change::Put { entry: entry.clone(), body: body.clone() }]).await;
    let [claim] = claims[..] else { panic!("a Put brings exactly one claim, not {}", claims.len()) };
    assert_eq!(claim.id, entry.id, "the claim names the message");
    (claim, entry, body)
}

async fn is_missing(spool: &dyn Spool, id: SpoolId) -> bool {
    matches!(spool.load(id).await, Err(SpoolError::NotFound(missing)) if missing == id)
}

/// Claims everything there is to claim, as at a start.
async fn claim_all(spool: &dyn Spool) -> Vec<crate::Claimed> {
    let mut all = Vec::new();
    let want = Want { limit: 7, horizon: Duration::from_secs(400 * 86_400) };
    loop {
        let now = Timestamp::from_secs(1_800_000_000);
        let mut claimed = spool.claim(want, now).await.expect("claiming succeeds");
        assert!(claimed.len() <= want.limit, "a claim keeps to its limit");
        if claimed.is_empty() {
            return all;
        }
        all.append(&mut claimed);
    }
}

async fn remove(spool: &dyn Spool, claims: impl IntoIterator<Item = Claim>) {
    commit(spool, claims.into_iter().map(|claim| Change::Remove { claim }).collect()).await;
}

pub(super) async fn bodies_come_back(subject: &mut dyn Subject) {
    let spool = subject.spool();
    let field = HeaderField::new("X-Stamp", "on top").expect("a field");
    for (number, len) in (100..).zip([0, 1, 70_000, PIECE_MAX, PIECE_MAX + 1, 2 * PIECE_MAX + 99]) {
        let octets: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let mut body = Message::from_bytes(octets);
        if number % 2 == 0 {
            body = body.prepend(field.clone());
        }
        let (entry, body) = sized(number, Timestamp::from_secs(1_800_000_000), body);
        let claims = commit(spool, vec![Change::Put { entry: entry.clone(), body: body.clone() }]).await;
        let loaded = spool.load(entry.id).await.expect("a stored message loads");
        assert_eq!(loaded.entry, entry, "the entry comes back");
        assert_eq!(loaded.body, body, "the body comes back, octet by octet");
        let mut pieces = Vec::new();
        while let Some(piece) =
            spool.piece(entry.id, pieces.len() as u32).await.expect("a stored piece loads")
        {
            assert!(!piece.is_empty() && piece.len() <= PIECE_MAX, "pieces are bounded");
            pieces.push(piece);
        }
        assert_eq!(Message::from_chunks(pieces), body, "the pieces are the body");
        remove(spool, claims).await;
    }
}

pub(super) async fn a_put_is_stored_once(subject: &mut dyn Subject) {
    let spool = subject.spool();
    let (claim, entry, body) = put(spool, 200).await;
    let (_, other) = sample(201);
    let again = commit(spool, vec![Change::Put { entry: entry.clone(), body: other }]).await;
    assert_eq!(again, [claim], "putting a message twice brings the same claim");
    let loaded = spool.load(entry.id).await.expect("it is there");
    assert_eq!(loaded.body, body, "the first one stays");
    remove(spool, [claim]).await;
    assert!(is_missing(spool, entry.id).await, "it was stored once, so one removal removes it");
}

pub(super) async fn commits_are_atomic(subject: &mut dyn Subject) {
    let (claim, entry, _) = put(subject.spool(), 300).await;
    let (new, body) = sample(301);
    let nobody = Claim { id: sample(302).0.id, epoch: claim.epoch };
    let changes = vec![
        Change::Put { entry: new.clone(), body },
        Change::Control { key: "contract/atomic".into(), value: Some(Bytes::from_static(b"1")) },
        Change::Remove { claim },
        Change::Remove { claim: nobody },
    ];
    let result = subject.spool().commit(changes).await;
    assert!(result.is_err(), "a commit with one impossible change fails as a whole");
    for restarted in [false, true] {
        if restarted {
            subject.crash().await;
        }
        let spool = subject.spool();
        assert!(is_missing(spool, new.id).await, "no part of a failed commit is done: the Put");
        assert!(spool.load(entry.id).await.is_ok(), "no part of a failed commit is done: the Remove");
        assert_eq!(control(spool, "contract/atomic").await, None, "nor the control");
    }
    let claimed = claim_all(subject.spool()).await;
    remove(subject.spool(), claimed.into_iter().map(|claimed| claimed.claim)).await;
}

pub(super) async fn updates_replace_and_removals_remove(subject: &mut dyn Subject) {
    let spool = subject.spool();
    let (claim, mut entry, body) = put(spool, 400).await;
    note_deferral(&mut entry);
    commit(spool, vec![Change::Update { claim, entry: entry.clone() }]).await;
    let loaded = spool.load(entry.id).await.expect("it is there");
    assert_eq!((loaded.entry, loaded.body), (entry.clone(), body), "the entry is replaced, the body stays");
    remove(spool, [claim]).await;
    assert!(is_missing(spool, entry.id).await, "a removed message is gone");
    assert!(matches!(spool.piece(entry.id, 0).await, Err(SpoolError::NotFound(_))), "with its body");
    for change in [Change::Remove { claim }, Change::Update { claim, entry }, Change::Release { claim }] {
        let result = spool.commit(vec![change]).await;
        assert!(
            matches!(result, Err(SpoolError::NotFound(_) | SpoolError::Fenced(_))),
            "nothing can be done to a message that is gone: {result:?}"
        );
    }
    assert_eq!(
        spool.renew(&[claim]).await.as_deref(),
        Ok(&[claim][..]),
        "to renew a claim on what is gone loses it"
    );
}

fn note_deferral(entry: &mut Entry) {
    let reply = Reply::known(451, EnhancedStatus::known(4, 7, 1), "greylisted, come back later");
    let at = entry.created + Duration::from_secs(3);
    if let Some(progress) = entry.progress.first_mut() {
        progress.note(DeliveryStatus::from_reply(reply, Phase::Rcpt, None, at));
        progress.due = at + Duration::from_secs(300);
        progress.steps = 1;
    }
    entry.metadata.insert("job".into(), b"42"[..].into());
}

pub(super) async fn nonsense_is_refused(subject: &mut dyn Subject) {
    let spool = subject.spool();
    let (claim, entry, body) = put(spool, 500).await;
    let (other, _) = sample(501);
    let mut lopsided = sample(502).0;
    lopsided.progress.clear();
    let control =
        |key: String, len: usize| Change::Control { key: key.into(), value: Some(Bytes::from(vec![0; len])) };
    for (what, changes) in [
        (
            "two changes of one message",
            vec![Change::Remove { claim }, Change::Update { claim, entry: entry.clone() }],
        ),
        ("an update that names two messages", vec![Change::Update { claim, entry: other }]),
        ("a recipient without its progress", vec![Change::Put { entry: lopsided, body }]),
        ("a control without a key", vec![control(String::new(), 1)]),
        ("too long a key", vec![control("k".repeat(crate::spool::CONTROL_KEY_MAX + 1), 1)]),
        ("too large a value", vec![control("k".to_owned(), crate::spool::CONTROL_VALUE_MAX + 1)]),
    ] {
        let result = spool.commit(changes).await;
        assert!(
            matches!(result, Err(SpoolError::Invalid(_))),
            "{what} in a commit is Invalid, which `check::changes` would have said: {result:?}"
        );
    }
    assert_eq!(spool.commit(Vec::new()).await, Ok(Vec::new()), "no changes are no nonsense");
    assert!(spool.load(entry.id).await.is_ok(), "and nothing was changed");
    remove(spool, [claim]).await;
}

pub(super) async fn what_was_acknowledged_survives(subject: &mut dyn Subject) {
    let spool = subject.spool();
    let mut stored = Vec::new();
    for number in 600..620 {
        let (claim, mut entry, body) = put(spool, number).await;
        match number % 3 {
            0 => remove(spool, [claim]).await,
            1 => {
                note_deferral(&mut entry);
                commit(spool, vec![Change::Update { claim, entry: entry.clone() }]).await;
                stored.push((entry, body));
            }
            _ => stored.push((entry, body)),
        }
    }
    for _ in 0..2 {
        subject.crash().await;
        let spool = subject.spool();
        let claimed = claim_all(spool).await;
        let found: BTreeSet<SpoolId> = claimed.iter().map(|claimed| claimed.entry.id).collect();
        assert_eq!(found.len(), claimed.len(), "each message is claimed once");
        let expected: BTreeSet<SpoolId> = stored.iter().map(|(entry, _)| entry.id).collect();
        assert_eq!(found, expected, "what was acknowledged is there, what was removed is not");
        for (entry, body) in &stored {
            let loaded = spool.load(entry.id).await.expect("it loads");
            assert_eq!((&loaded.entry, &loaded.body), (entry, body), "with its retry state and its body");
        }
    }
    // A crash takes the claims away; the last claims were taken before nothing crashed.
    subject.crash().await;
    let claimed = claim_all(subject.spool()).await;
    remove(subject.spool(), claimed.into_iter().map(|claimed| claimed.claim)).await;
    assert!(claim_all(subject.spool()).await.is_empty(), "nothing is left");
}

pub(super) async fn settling_is_one_commit(subject: &mut dyn Subject) {
    let (claim, original, _) = put(subject.spool(), 700).await;
    let (notice, body) = sample(701);
    let changes = vec![Change::Put { entry: notice.clone(), body }, Change::Remove { claim }];
    commit(subject.spool(), changes).await;
    subject.crash().await;
    let spool = subject.spool();
    assert!(is_missing(spool, original.id).await, "the original is gone");
    assert!(spool.load(notice.id).await.is_ok(), "and its notification is there");
    let claimed = claim_all(spool).await;
    assert_eq!(claimed.len(), 1, "only the notification is left");
    remove(spool, claimed.into_iter().map(|claimed| claimed.claim)).await;
}

async fn control(spool: &dyn Spool, wanted: &str) -> Option<Bytes> {
    let page = spool.scan(Scan::Controls).await.expect("a scan succeeds");
    page.items.into_iter().find_map(|item| match item {
        Item::Control { key, value } if &*key == wanted => Some(value),
        _ => None,
    })
}

pub(super) async fn controls_are_kept(subject: &mut dyn Subject) {
    let set = |value: Option<&'static [u8]>| {
        vec![Change::Control { key: "contract/hold".into(), value: value.map(Bytes::from_static) }]
    };
    commit(subject.spool(), set(Some(b"one"))).await;
    commit(subject.spool(), set(Some(b"two"))).await;
    assert_eq!(control(subject.spool(), "contract/hold").await.as_deref(), Some(&b"two"[..]));
    subject.crash().await;
    assert_eq!(
        control(subject.spool(), "contract/hold").await.as_deref(),
        Some(&b"two"[..]),
        "controls survive"
    );
    commit(subject.spool(), set(None)).await;
    commit(subject.spool(), set(None)).await;
    subject.crash().await;
    assert_eq!(control(subject.spool(), "contract/hold").await, None, "a removed control stays removed");
}

pub(super) async fn a_scan_sees_everything_once(subject: &mut dyn Subject) {
    let spool = subject.spool();
    let (mut expected, mut claims) = (Vec::new(), Vec::new());
    for number in 800..825 {
        let (claim, entry, _) = put(spool, number).await;
        expected.push(entry);
        claims.push(claim);
    }
    expected.sort_by_key(|entry| entry.id);
    for limit in [1, 4, 25, 1000] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = spool.scan(Scan::Messages { after, limit }).await.expect("a scan succeeds");
            assert!(page.items.len() <= limit, "a page keeps to its limit");
            seen.extend(page.items.into_iter().filter_map(|item| match item {
                Item::Entry(entry) => Some(*entry),
                _ => None,
            }));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected, "every message once, by id");
    }
    remove(spool, claims).await;
}

pub(super) async fn released_messages_can_be_claimed_again(subject: &mut dyn Subject) {
    let spool = subject.spool();
    let (first, mut entry, _) = put(spool, 900).await;
    let (second, _, _) = put(spool, 901).await;
    assert!(claim_all(spool).await.is_empty(), "what was put is in the hands of whoever put it");
    note_deferral(&mut entry);
    commit(spool, vec![Change::Update { claim: first, entry: entry.clone() }]).await;
    commit(spool, vec![Change::Release { claim: first }]).await;
    let late = spool.commit(vec![Change::Remove { claim: first }]).await;
    assert!(matches!(late, Err(SpoolError::Fenced(_))), "a released claim is worth nothing: {late:?}");
    let claimed = claim_all(spool).await;
    assert_eq!(claimed.len(), 1, "only the released message is free");
    assert_eq!(claimed[0].entry, entry, "with its last state");
    remove(spool, [claimed[0].claim, second]).await;
}

pub(super) async fn concurrent_commits_are_all_kept(subject: &mut dyn Subject) {
    let before = subject.spool().health();
    let samples: Vec<_> = (1000..1064).map(sample).collect();
    let spool = subject.spool();
    let commits = samples
        .iter()
        .map(|(entry, body)| spool.commit(vec![Change::Put { entry: entry.clone(), body: body.clone() }]));
    let results = all(commits.collect()).await;
    assert!(results.iter().all(Result::is_ok), "concurrent commits succeed: {results:?}");
    let after = spool.health();
    assert_eq!(after.commits - before.commits, 64, "each is counted");
    assert!(after.syncs > before.syncs, "none is acknowledged without a sync");
    subject.crash().await;
    let claimed = claim_all(subject.spool()).await;
    let found: BTreeSet<SpoolId> = claimed.iter().map(|claimed| claimed.claim.id).collect();
    let expected: BTreeSet<SpoolId> = samples.iter().map(|(entry, _)| entry.id).collect();
    assert_eq!(found, expected, "and kept");
    remove(subject.spool(), claimed.into_iter().map(|claimed| claimed.claim)).await;
}
