//! Why PostgreSQL did not answer a question, and how long a handler waits for it.

use std::time::Duration;

use clicktally_database::{Database, DatabaseError};
use thiserror::Error;

/// A query that takes longer is cancelled: the client gets a problem instead of waiting.
pub const HISTORY_DEADLINE: Duration = Duration::from_secs(2);

/// It has no `next_move()`, because no handler decides on one. Every variant becomes the same problem, and that tells
/// the client to try again.
#[derive(Debug, Error)]
pub enum HistoryError {
    #[error("this node has no PostgreSQL configured")]
    NotConfigured,
    #[error("PostgreSQL did not answer within {} s", HISTORY_DEADLINE.as_secs())]
    Timeout,
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// # Errors
/// `NotConfigured` on a node without a database.
pub fn configured(database: Option<&Database>) -> Result<&Database, HistoryError> {
    database.ok_or(HistoryError::NotConfigured)
}

/// Runs a query under [`HISTORY_DEADLINE`].
///
/// # Errors
/// `Timeout` after the deadline, otherwise the error of the query.
pub async fn in_time<T, E: Into<HistoryError>>(query: impl Future<Output = Result<T, E>>) -> Result<T, HistoryError> {
    tokio::time::timeout(HISTORY_DEADLINE, query).await.map_err(|_| HistoryError::Timeout)?.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_query_that_fails_keeps_its_own_error() {
        let failed = std::future::ready(Err::<(), _>(DatabaseError::OutOfRange("day")));
        assert!(matches!(in_time(failed).await, Err(HistoryError::Database(DatabaseError::OutOfRange("day")))));
        assert!(matches!(configured(None), Err(HistoryError::NotConfigured)));
    }
}
