//! Brings the schema of PostgreSQL up to date: the files of `billing/database/migrations`, in order, each once.

use clicktally_proto::next_move::NextMove;
use sqlx::migrate::MigrateError;

use crate::connection::Database;
use crate::error::{DatabaseError, next_move_of};
use crate::locks::AdvisoryLock;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

impl Database {
    /// Connects and applies what is missing of the schema. Nodes that start together wait for one another. Does not
    /// wait for a server that is down: the caller retries.
    ///
    /// # Errors
    /// `Unreachable` while the server is down; `Url` for a URL that is not one; `AccessRefused` for a wrong password or
    /// database; `Migration` if another program or a newer build wrote the schema.
    pub async fn connect_and_migrate(url: &str) -> Result<Database, DatabaseError> {
        let database = Database::connect(url).await?;
        // sqlx has a lock of its own and waits for it inside PostgreSQL. Under our lock it is free, unless an earlier
        // build migrates right now.
        let session = database.lock(AdvisoryLock::Migrations).await?;
        let migrated = MIGRATIONS.run(database.pool()).await;
        drop(session);
        match migrated {
            Ok(()) => Ok(database),
            Err(MigrateError::Execute(error)) if next_move_of(&error) == NextMove::Retry => {
                Err(DatabaseError::Unreachable { address: database.address(), detail: error.to_string() })
            }
            Err(e) => Err(DatabaseError::Migration(e.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// sqlx stores the SHA-384 of each migration and refuses a database whose migrations were edited later.
    #[test]
    fn a_released_migration_never_changes() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let found: Vec<(i64, String)> =
            MIGRATIONS.iter().map(|m| (m.version, hex(&m.checksum)[..16].to_owned())).collect();
        let released = [
            (1, "37dc27bdb6f8682a"),
            (2, "5bc3a982d493ffbb"),
            (3, "53a24be6118c6b55"),
            (4, "d36be4c71fe09748"),
            (5, "faae094d926672bf"),
            (6, "e5cf1d51eaa364d2"),
            (7, "ad38fb8fb7e1eab0"),
        ];
        assert_eq!(found, released.map(|(version, checksum)| (version, checksum.to_owned())));
    }
}
