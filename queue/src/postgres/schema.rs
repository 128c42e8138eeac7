//! The tables of the shared spool, and how they are brought to the version that this code wants.
//!
//! Invariant: migrations are applied in order, each in a transaction, by one node at a time; tables of a later
//! version are refused and left alone.
//!
//! Not here: what is written into them (mod).

use tokio_postgres::Client;

use super::unavailable;
use crate::error::SpoolError;

/// One step each; what was shipped is never changed, only added to.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE postwright_message (
        id          bytea  PRIMARY KEY,
        entry       bytea  NOT NULL,
        -- Milliseconds since 1970: the next attempt or the end of the lifetime, whichever comes first.
        due         bigint NOT NULL,
        -- Who works on it, until when, and for the how-manieth time it changed hands.
        owner       text,
        lease_until timestamptz,
        epoch       bigint NOT NULL,
        quarantine  text
    );
    CREATE INDEX postwright_message_due ON postwright_message (due) WHERE quarantine IS NULL;
    CREATE INDEX postwright_message_owner ON postwright_message (owner) WHERE owner IS NOT NULL;
    CREATE TABLE postwright_body (
        id    bytea NOT NULL REFERENCES postwright_message ON DELETE CASCADE,
        piece integer NOT NULL,
        data  bytea NOT NULL,
        PRIMARY KEY (id, piece)
    );
    -- Message bodies do not compress well enough to be worth the time.
    ALTER TABLE postwright_body ALTER COLUMN data SET STORAGE EXTERNAL;
    CREATE TABLE postwright_control (
        key   text  PRIMARY KEY,
        value bytea NOT NULL
    );
"];

/// The version that this code writes.
const VERSION: u32 = MIGRATIONS.len() as u32;
/// The advisory lock that one migrating node holds: \"postwrig\" in ASCII.
const LOCK: i64 = 0x706f_7374_7772_6967;

/// Brings the tables to this code's version.
pub(super) async fn migrate(client: &mut Client) -> Result<(), SpoolError> {
    let transaction = client.transaction().await.map_err(|error| unavailable(&error))?;
    let run = async {
        transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
        transaction
            .batch_execute("CREATE TABLE IF NOT EXISTS postwright_schema (version integer NOT NULL)")
            .await?;
        let row = transaction.query_opt("SELECT max(version) FROM postwright_schema", &[]).await?;
        let found = row.and_then(|row| row.get::<_, Option<i32>>(0)).unwrap_or(0);
        Ok(u32::try_from(found).unwrap_or(u32::MAX))
    };
    let found = run.await.map_err(|error: tokio_postgres::Error| unavailable(&error))?;
    if found > VERSION {
        return Err(SpoolError::Format { found, known: VERSION });
    }
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    for (migration, version) in MIGRATIONS.iter().zip(1i32..).skip(done) {
        let step = async {
            transaction.batch_execute(migration).await?;
            transaction.execute("INSERT INTO postwright_schema VALUES ($1)", &[&version]).await
        };
        step.await.map_err(|error| unavailable(&error))?;
    }
    transaction.commit().await.map_err(|error| unavailable(&error))
}
