//! PostgreSQL's advisory locks: every number we use, and the session that holds one.
//!
//! A lock is convenience, not safety. A worker that lost its lock unnoticed is stopped by the guards of the tables
//! themselves: revisions, contiguous offsets, append-only rows.

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
    /// Waits until no other session holds the lock. Cancelled by dropping.
    ///
    /// # Errors
    /// `Sql` when the connection is lost meanwhile.
    pub async fn lock(&self, lock: AdvisoryLock) -> Result<LockSession, DatabaseError> {
        let mut connection = self.detached().await?;
        sqlx::query("SELECT pg_advisory_lock($1)").bind(lock as i64).execute(&mut connection).await?;
        Ok(LockSession { lock, connection })
    }

    /// Takes the lock if it is free; `None` if another session holds it.
    ///
    /// # Errors
    /// `Sql` when PostgreSQL does not answer.
    pub async fn try_lock(&self, lock: AdvisoryLock) -> Result<Option<LockSession>, DatabaseError> {
        let mut connection = self.detached().await?;
        let is_free: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(lock as i64).fetch_one(&mut connection).await?;
        if is_free {
            return Ok(Some(LockSession { lock, connection }));
        }
        connection.close().await?;
        Ok(None)
    }
}

/// Waits for the lock and holds it until the transaction ends.
pub(crate) async fn lock_in_transaction(t: &mut PgConnection, lock: AdvisoryLock) -> Result<(), DatabaseError> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(lock as i64).execute(t).await?;
    Ok(())
}
