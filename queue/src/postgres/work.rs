//! The verbs as SQL.
//!
//! Invariant: whatever changes a message names its epoch; a row that does not agree stops the whole commit.
//!
//! Not here: connections, deadlines, counters (mod, pool).

use bytes::Bytes;
use postwright_core::Timestamp;
use tokio_postgres::{Client, Row, Transaction};

use super::{PostgresOptions, unavailable};
use crate::error::{Damage, DamageReason, SpoolError};
use crate::spool::{Change, Claim, Claimed, Item, Loaded, Page, Scan, Want};
use crate::{Entry, SpoolId, body, check, codec};

type Sql<T> = Result<T, tokio_postgres::Error>;

/// Milliseconds as the database keeps them.
fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.millis()).unwrap_or(i64::MAX)
}

/// When somebody has to look at an entry: at its next attempt, or when its lifetime ends.
fn wake_at(entry: &Entry) -> i64 {
    millis(entry.next_due().unwrap_or(entry.expires).min(entry.expires))
}

fn epoch(claim: Claim) -> i64 {
    i64::try_from(claim.epoch).unwrap_or(-1)
}

fn lease_seconds(options: &PostgresOptions) -> f64 {
    options.lease.as_secs_f64()
}

pub(super) async fn commit(
    client: &mut Client,
    options: &PostgresOptions,
    changes: Vec<Change>,
    relaxed: bool,
) -> Result<Vec<Claim>, SpoolError> {
    let transaction = client.transaction().await.map_err(|error| unavailable(&error))?;
    if relaxed {
        let relax = transaction.batch_execute("SET LOCAL synchronous_commit = off").await;
        relax.map_err(|error| unavailable(&error))?;
    }
    let mut claims = Vec::new();
    for change in changes {
        match apply(&transaction, options, change).await {
            Ok(claim) => claims.extend(claim),
            Err(error) => {
                // The connection is clean again afterwards, or it is found closed.
                let _ = transaction.rollback().await;
                return Err(error);
            }
        }
    }
    transaction.commit().await.map_err(|error| unavailable(&error))?;
    Ok(claims)
}

async fn apply(
    transaction: &Transaction<'_>,
    options: &PostgresOptions,
    change: Change,
) -> Result<Option<Claim>, SpoolError> {
    match change {
        Change::Put { mut entry, body } => {
            entry.size = body.len() as u64;
            let claim = put(transaction, options, &entry, &body::pack(&body)).await;
            return claim.map(Some).map_err(|error| unavailable(&error));
        }
        Change::Update { claim, entry } => {
            let sql = "UPDATE postwright_message SET entry = $3, due = $4 WHERE id = $1 AND epoch = $2 AND owner = $5";
            let (code, due) = (codec::encode(&entry), wake_at(&entry));
            let id = &claim.id.as_bytes()[..];
            let rows = transaction.execute(sql, &[&id, &epoch(claim), &code, &due, &&*options.node]).await;
            owned(transaction, claim, rows).await?;
        }
        Change::Remove { claim } => {
            let sql = "DELETE FROM postwright_message WHERE id = $1 AND epoch = $2 AND owner = $3";
            let id = &claim.id.as_bytes()[..];
            let rows = transaction.execute(sql, &[&id, &epoch(claim), &&*options.node]).await;
            owned(transaction, claim, rows).await?;
        }
        Change::Release { claim } => {
            let sql =
                "UPDATE postwright_message SET owner = NULL WHERE id = $1 AND epoch = $2 AND owner = $3";
            let id = &claim.id.as_bytes()[..];
            let rows = transaction.execute(sql, &[&id, &epoch(claim), &&*options.node]).await;
            owned(transaction, claim, rows).await?;
            let told = transaction.execute("SELECT pg_notify('postwright_spool', '')", &[]).await;
            told.map_err(|error| unavailable(&error))?;
        }
        Change::Control { key, value: Some(value) } => {
            let sql = "INSERT INTO postwright_control VALUES ($1, $2)
                       ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            let stored = transaction.execute(sql, &[&&*key, &&value[..]]).await;
            stored.map_err(|error| unavailable(&error))?;
        }
        Change::Control { key, value: None } => {
            let removed =
                transaction.execute("DELETE FROM postwright_control WHERE key = $1", &[&&*key]).await;
            removed.map_err(|error| unavailable(&error))?;
        }
    }
    Ok(None)
}

/// Stores a message once. One that is there already and is ours, or nobody's, brings its claim; one that another node
/// has brings a claim that is worth nothing.
async fn put(
    transaction: &Transaction<'_>,
    options: &PostgresOptions,
    entry: &Entry,
    records: &[Bytes],
) -> Sql<Claim> {
    let sql = "INSERT INTO postwright_message AS m (id, entry, due, owner, lease_until, epoch)
               VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5), 1)
               ON CONFLICT (id) DO UPDATE
                   SET owner = excluded.owner, lease_until = excluded.lease_until,
                       epoch = m.epoch + CASE WHEN m.owner = excluded.owner THEN 0 ELSE 1 END
                   WHERE m.owner IS NULL OR m.owner = excluded.owner OR m.lease_until < now()
               RETURNING epoch, xmax = 0";
    let (id, code, due) = (&entry.id.as_bytes()[..], codec::encode(entry), wake_at(entry));
    let row =
        transaction.query_opt(sql, &[&id, &code, &due, &&*options.node, &lease_seconds(options)]).await?;
    let Some(row) = row else { return Ok(Claim { id: entry.id, epoch: 0 }) };
    let is_new: bool = row.get(1);
    if is_new {
        for (record, piece) in records.iter().zip(0i32..) {
            let sql = "INSERT INTO postwright_body VALUES ($1, $2, $3)";
            transaction.execute(sql, &[&id, &piece, &&record[..]]).await?;
        }
    }
    Ok(Claim { id: entry.id, epoch: u64::try_from(row.get::<_, i64>(0)).unwrap_or(0) })
}

/// One row changed, or the reason why not.
async fn owned(transaction: &Transaction<'_>, claim: Claim, rows: Sql<u64>) -> Result<(), SpoolError> {
    if rows.map_err(|error| unavailable(&error))? == 1 {
        return Ok(());
    }
    let sql = "SELECT 1 FROM postwright_message WHERE id = $1";
    let there = transaction.query_opt(sql, &[&&claim.id.as_bytes()[..]]).await;
    match there.map_err(|error| unavailable(&error))? {
        Some(_) => Err(SpoolError::Fenced(claim.id)),
        None => Err(SpoolError::NotFound(claim.id)),
    }
}

fn id_of(row: &Row) -> SpoolId {
    let bytes: &[u8] = row.get(0);
    // A key of another length is not ours; it sorts first and names nothing.
    SpoolId::from_bytes(bytes.try_into().unwrap_or([0; 16]))
}

/// Leases what is due and nobody's. The epoch grows when a message changes hands: a node whose own lease ran out without
/// anybody taking it over gets it back under the epoch that it knows, so that what it settles meanwhile still counts.
pub(super) async fn claim(
    client: &Client,
    options: &PostgresOptions,
    want: Want,
    now: Timestamp,
) -> Result<(Vec<Claimed>, Vec<Damage>), SpoolError> {
    let sql = "WITH free AS (
                   SELECT id FROM postwright_message
                   WHERE quarantine IS NULL AND due <= $1 AND (owner IS NULL OR lease_until < now())
                   ORDER BY due LIMIT $2 FOR UPDATE SKIP LOCKED)
               UPDATE postwright_message m
                   SET owner = $3, lease_until = now() + make_interval(secs => $4),
                       epoch = m.epoch + CASE WHEN m.owner = $3 THEN 0 ELSE 1 END
               FROM free WHERE m.id = free.id
               RETURNING m.id, m.entry, m.epoch";
    let horizon = millis(now + want.horizon);
    let limit = i64::try_from(want.limit).unwrap_or(i64::MAX);
    let rows = client.query(sql, &[&horizon, &limit, &&*options.node, &lease_seconds(options)]).await;
    let (mut claimed, mut damaged) = (Vec::new(), Vec::new());
    for row in rows.map_err(|error| unavailable(&error))? {
        let id = id_of(&row);
        match check::entry(id, row.get(1)) {
            Ok(entry) => {
                let epoch = u64::try_from(row.get::<_, i64>(2)).unwrap_or(0);
                claimed.push(Claimed { claim: Claim { id, epoch }, entry });
            }
            Err(reason) => damaged.push(Damage { id, reason, quarantined: false }),
        }
    }
    claimed.sort_by_key(|claimed| wake_at(&claimed.entry));
    Ok((claimed, damaged))
}

pub(super) async fn renew(
    client: &Client,
    options: &PostgresOptions,
    claims: &[Claim],
) -> Result<Vec<Claim>, SpoolError> {
    let sql = "UPDATE postwright_message m SET lease_until = now() + make_interval(secs => $4)
               FROM unnest($1::bytea[], $2::bigint[]) AS held (id, epoch)
               WHERE m.id = held.id AND m.epoch = held.epoch AND m.owner = $3
               RETURNING m.id";
    let ids: Vec<&[u8]> = claims.iter().map(|claim| &claim.id.as_bytes()[..]).collect();
    let epochs: Vec<i64> = claims.iter().map(|claim| epoch(*claim)).collect();
    let rows = client.query(sql, &[&ids, &epochs, &&*options.node, &lease_seconds(options)]).await;
    let kept: std::collections::BTreeSet<SpoolId> =
        rows.map_err(|error| unavailable(&error))?.iter().map(id_of).collect();
    Ok(claims.iter().copied().filter(|claim| !kept.contains(&claim.id)).collect())
}

async fn entry(client: &Client, id: SpoolId) -> Result<Entry, SpoolError> {
    let sql = "SELECT entry, quarantine FROM postwright_message WHERE id = $1";
    let row = client.query_opt(sql, &[&&id.as_bytes()[..]]).await.map_err(|error| unavailable(&error))?;
    let row = row.ok_or(SpoolError::NotFound(id))?;
    if let Some(reason) = row.get::<_, Option<&str>>(1) {
        let reason = DamageReason::Store(reason.into());
        return Err(SpoolError::Damaged(Damage { id, reason, quarantined: true }));
    }
    check::entry(id, row.get(0)).map_err(|reason| damaged(id, reason))
}

fn damaged(id: SpoolId, reason: DamageReason) -> SpoolError {
    SpoolError::Damaged(Damage { id, reason, quarantined: false })
}

pub(super) async fn load(client: &Client, id: SpoolId) -> Result<Loaded, SpoolError> {
    let entry = entry(client, id).await?;
    let sql = "SELECT data FROM postwright_body WHERE id = $1 ORDER BY piece";
    let rows = client.query(sql, &[&&id.as_bytes()[..]]).await.map_err(|error| unavailable(&error))?;
    let records = rows.iter().map(|row| Bytes::copy_from_slice(row.get(0)));
    let body = body::unpack(records, entry.size).map_err(|reason| damaged(id, reason))?;
    Ok(Loaded { entry, body })
}

pub(super) async fn piece(client: &Client, id: SpoolId, index: u32) -> Result<Option<Bytes>, SpoolError> {
    let entry = entry(client, id).await?;
    if usize::try_from(index).is_ok_and(|index| index >= body::pieces(entry.size)) {
        return Ok(None);
    }
    let sql = "SELECT data FROM postwright_body WHERE id = $1 AND piece = $2";
    let piece = i32::try_from(index).unwrap_or(i32::MAX);
    let row =
        client.query_opt(sql, &[&&id.as_bytes()[..], &piece]).await.map_err(|error| unavailable(&error))?;
    let row = row.ok_or_else(|| damaged(id, DamageReason::BodyChecksum(index)))?;
    let record = Bytes::copy_from_slice(row.get(0));
    body::open(&record, index).map(Some).map_err(|reason| damaged(id, reason))
}

pub(super) async fn scan(client: &Client, scan: Scan) -> Result<Page, SpoolError> {
    let (after, limit) = match scan {
        Scan::Controls => {
            let rows = client.query("SELECT key, value FROM postwright_control ORDER BY key", &[]).await;
            let rows = rows.map_err(|error| unavailable(&error))?;
            let control = |row: &Row| Item::Control {
                key: row.get::<_, &str>(0).into(),
                value: Bytes::copy_from_slice(row.get(1)),
            };
            return Ok(Page { items: rows.iter().map(control).collect(), next: None });
        }
        Scan::Messages { after, limit } => (after, limit.max(1)),
    };
    let sql = "SELECT id, entry, quarantine FROM postwright_message WHERE id > $1 ORDER BY id LIMIT $2";
    let from: &[u8] = after.as_ref().map_or(&[], |id| &id.as_bytes()[..]);
    let count = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = client.query(sql, &[&from, &count]).await.map_err(|error| unavailable(&error))?;
    let item = |row: &Row| {
        let id = id_of(row);
        let aside = row.get::<_, Option<&str>>(2).map(|reason| DamageReason::Store(reason.into()));
        let quarantined = aside.is_some();
        match aside.map_or_else(|| check::entry(id, row.get(1)), Err) {
            Ok(entry) => Item::Entry(Box::new(entry)),
            Err(reason) => Item::Damaged(Damage { id, reason, quarantined }),
        }
    };
    let next = rows.last().map(id_of).filter(|_| rows.len() >= limit);
    Ok(Page { items: rows.iter().map(item).collect(), next })
}
