//! What can go wrong between us and PostgreSQL, sorted by the caller's next move.

use clicktally_proto::next_move::NextMove;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum DatabaseError {
    /// A refusal by the server, or a broken connection. The next move depends on the SQLSTATE.
    #[error("PostgreSQL: {0}")]
    Sql(#[from] sqlx::Error),

    // Retry.
    #[error("PostgreSQL at {address} cannot be reached: {detail}; start it, or correct the database URL")]
    Unreachable { address: String, detail: String },

    // Reject.
    #[error("the database URL cannot be used: {0}")]
    Url(String),
    #[error(
        "PostgreSQL at {address} refuses the connection: {detail}; correct the database URL, or the server's access rules"
    )]
    AccessRefused { address: String, detail: String },

    // Halt.
    #[error(
        "the schema could not be brought up to date: {0}; restore the migration table, or run the build that wrote it"
    )]
    Migration(String),
    #[error("the manifest did not take {file}: {detail}; two archivers wrote at once, or rows were removed")]
    ManifestRefused { file: String, detail: String },
    #[error(
        "a value is out of range between clicktally and PostgreSQL: {0}; if a table was changed by hand, undo the change"
    )]
    OutOfRange(&'static str),
    #[error(
        "{table} holds what clicktally never writes: {detail}; undo the change made by hand, or restore the table from a backup"
    )]
    Damaged { table: &'static str, detail: String },
    #[error(
        "PostgreSQL reports {found} {what} instead of {expected}, so nothing was committed; check the server and any pooler \
         in front of it, then run the command again"
    )]
    Miscounted { what: &'static str, expected: u64, found: u64 },
    #[error("the catalogue holds a currency that is not one: {0}")]
    Currency(String),
    #[error(
        "PostgreSQL holds revision {found} of campaign {campaign_id}, and this cluster's is {revision} with other terms: the          database is that of another cluster, whose terms would win over new ones. Give this cluster an empty database in          [postgres] url, or restore the cluster's own data"
    )]
    ForeignTerms { campaign_id: u64, revision: u64, found: i64 },
}

impl DatabaseError {
    pub fn next_move(&self) -> NextMove {
        match self {
            DatabaseError::Sql(error) => next_move_of(error),
            DatabaseError::Unreachable { .. } => NextMove::Retry,
            DatabaseError::Url(_) | DatabaseError::AccessRefused { .. } => NextMove::Reject,
            DatabaseError::Migration(_)
            | DatabaseError::ManifestRefused { .. }
            | DatabaseError::OutOfRange(_)
            | DatabaseError::Damaged { .. }
            | DatabaseError::Miscounted { .. }
            | DatabaseError::Currency(_)
            | DatabaseError::ForeignTerms { .. } => NextMove::Halt,
        }
    }
}

impl DatabaseError {
    /// The server refuses a value (a data exception or a violated constraint). Without the row that has it, the same
    /// statement may succeed.
    pub(crate) fn refuses_a_row(&self) -> bool {
        let DatabaseError::Sql(sqlx::Error::Database(refusal)) = self else { return false };
        refusal.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
    }
}

/// Compares what the server says it took or holds with what we sent.
///
/// # Errors
/// `Miscounted`.
pub fn require_count(what: &'static str, expected: u64, found: u64) -> Result<(), DatabaseError> {
    if found == expected { Ok(()) } else { Err(DatabaseError::Miscounted { what, expected, found }) }
}

pub(crate) fn next_move_of(error: &sqlx::Error) -> NextMove {
    match error {
        sqlx::Error::Database(refusal) => refusal.code().map_or(NextMove::Retry, |code| next_move_of_state(&code)),
        // These mean that this build and the schema disagree about a column.
        sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::RowNotFound => NextMove::Halt,
        // A lost connection, an exhausted pool, a closed socket.
        _ => NextMove::Retry,
    }
}

/// By the class of the SQLSTATE (PostgreSQL manual, appendix A). A class that is not listed may pass: retrying is
/// harmless, because every write is idempotent or fenced.
fn next_move_of_state(code: &str) -> NextMove {
    match code.get(..2) {
        // A data exception, a violated constraint, or a trigger that guards a promise.
        Some("22" | "23") => NextMove::Halt,
        // The password or the database's name is wrong.
        Some("28" | "3D") => NextMove::Reject,
        // A table, a column or a right is missing: the schema is not the one this build knows.
        Some("3F" | "42") => NextMove::Halt,
        _ => NextMove::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_of_the_sqlstate_says_what_to_do() {
        for (code, next_move) in [
            ("08006", NextMove::Retry),  // The connection failed.
            ("40P01", NextMove::Retry),  // Deadlock.
            ("53300", NextMove::Retry),  // Too many connections.
            ("57P03", NextMove::Retry),  // The server is starting.
            ("25006", NextMove::Retry),  // A standby, which may be promoted.
            ("23505", NextMove::Halt),   // A unique key.
            ("23001", NextMove::Halt),   // An append-only table.
            ("22003", NextMove::Halt),   // A number is out of range.
            ("42P01", NextMove::Halt),   // No such table.
            ("28P01", NextMove::Reject), // A wrong password.
            ("3D000", NextMove::Reject), // No such database.
            ("", NextMove::Retry),
        ] {
            assert_eq!(next_move_of_state(code), next_move, "{code}");
        }
    }

    #[test]
    fn a_lost_connection_is_retried_and_a_foreign_schema_is_not() {
        assert_eq!(DatabaseError::from(sqlx::Error::PoolTimedOut).next_move(), NextMove::Retry);
        assert_eq!(DatabaseError::from(sqlx::Error::RowNotFound).next_move(), NextMove::Halt);
        assert_eq!(DatabaseError::OutOfRange("clicks").next_move(), NextMove::Halt);
    }

    #[test]
    fn a_count_that_differs_is_an_error_and_never_a_panic() {
        assert!(require_count("rows", 3, 3).is_ok());
        let error = require_count("rows", 3, 2).unwrap_err();
        assert_eq!(error.next_move(), NextMove::Halt);
        assert!(error.to_string().contains("2 rows instead of 3"), "{error}");
    }
}
