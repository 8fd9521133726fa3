//! PostgreSQL's advisory locks: every number we use, and the session that holds one.
//!
//! A lock is convenience, not safety. A worker that lost its lock unnoticed is stopped by the guards of the tables
//! themselves: revisions, contiguous offsets, append-only rows.
//!
//! No session waits inside PostgreSQL for a lock: a statement that waits holds its snapshot. Meanwhile PostgreSQL
//! removes no dead row of the database, and `CREATE INDEX CONCURRENTLY` waits, too. So we try, and wait outside.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use crate::connection::Database;
use crate::error::DatabaseError;

/// Advisory locks share one namespace per database. The numbers are arbitrary, but never change: builds of before and
/// after must exclude each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub enum AdvisoryLock {
    /// Carries the outbound topics into `reports`.
    WindowWriter = 7_001,
    /// Carries campaign terms into `catalog`.
    CatalogWriter = 7_002,
    /// Writes the archive: "arch" in ASCII.
    Archiver = 0x6172_6368,
    /// Serialises everything that changes documents, because budgets are compared over all days: "bill" in ASCII.
    Billing = 0x6269_6c6c,
    /// Brings the schema up to date: "migr" in ASCII.
    Migrations = 0x6d69_6772,
}

/// A session that holds a lock. The lock ends with the session, and dropping it ends the session.
#[derive(Debug)]
pub struct LockSession {
    lock: AdvisoryLock,
    connection: PgConnection,
}

impl LockSession {
    pub fn lock(&self) -> AdvisoryLock {
        self.lock
    }

    /// False once the session is gone, and with it the lock.
    pub async fn is_held(&mut self) -> bool {
        self.connection.ping().await.is_ok()
    }

    /// Fails once the session is gone, and with it the lock.
    ///
    /// # Errors
    /// `Sql`, which the caller retries with a new session.
    pub async fn require_held(&mut self) -> Result<(), DatabaseError> {
        Ok(self.connection.ping().await?)
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Database {
    /// Takes the lock if it is free; `None` if another session holds it.
    ///
    /// # Errors
    /// `Sql` when PostgreSQL does not answer.
    pub async fn try_lock(&self, lock: AdvisoryLock) -> Result<Option<LockSession>, DatabaseError> {
        let mut connection = self.detached().await?;
        if is_obtained("SELECT pg_try_advisory_lock($1)", &mut connection, lock).await? {
            return Ok(Some(LockSession { lock, connection }));
        }
        connection.close().await?;
        Ok(None)
    }
}

/// How often a command tries again. The holder bills or finalises a day, or creates tables, which takes seconds.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

impl Database {
    /// Waits for a lock that is held for seconds. A standby for a duty calls [`Database::try_lock`] instead.
    ///
    /// # Errors
    /// `Sql` when PostgreSQL does not answer.
    pub(crate) async fn lock(&self, lock: AdvisoryLock) -> Result<LockSession, DatabaseError> {
        let mut connection = self.detached().await?;
        while !is_obtained("SELECT pg_try_advisory_lock($1)", &mut connection, lock).await? {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        Ok(LockSession { lock, connection })
    }
}

/// Waits for the lock and holds it until the transaction ends. The transaction is READ COMMITTED and has not changed
/// anything yet: between two tries it has neither a snapshot nor a transaction id, so it keeps nothing alive.
pub(crate) async fn lock_in_transaction(t: &mut PgConnection, lock: AdvisoryLock) -> Result<(), DatabaseError> {
    while !is_obtained("SELECT pg_try_advisory_xact_lock($1)", t, lock).await? {
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    Ok(())
}

async fn is_obtained(
    attempt: &'static str,
    connection: &mut PgConnection,
    lock: AdvisoryLock,
) -> Result<bool, DatabaseError> {
    Ok(sqlx::query_scalar(attempt).bind(lock as i64).fetch_one(connection).await?)
}
