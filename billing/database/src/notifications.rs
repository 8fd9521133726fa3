//! Notifications between processes, by PostgreSQL's LISTEN and NOTIFY. They only save waiting: one that is lost costs
//! time, never a promise.

use sqlx::PgConnection;
use sqlx::postgres::PgListener;

use crate::connection::Database;
use crate::error::DatabaseError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// A file was committed to the archive.
    Archived,
    /// Asks the archiver to write out what it holds, now.
    FlushArchive,
    /// The terms of all groups are complete up to a newer time.
    TermsExported,
}

impl Channel {
    fn as_str(self) -> &'static str {
        match self {
            Channel::Archived => "clicktally_archived",
            Channel::FlushArchive => "clicktally_archive_flush",
            Channel::TermsExported => "clicktally_terms_exported",
        }
    }
}

/// Hears every notification sent after it was made.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Listener {
    /// Waits for the next notification. Safe to drop while waiting.
    ///
    /// # Errors
    /// `Sql` when the connection is lost and cannot be made again.
    pub async fn next(&mut self) -> Result<(), DatabaseError> {
        self.0.recv().await?;
        Ok(())
    }
}

impl Database {
    /// # Errors
    /// `Sql` when PostgreSQL does not answer.
    pub async fn listen(&self, channel: Channel) -> Result<Listener, DatabaseError> {
        let mut listener = PgListener::connect_with(self.pool()).await?;
        listener.listen(channel.as_str()).await?;
        Ok(Listener(listener))
    }

    /// # Errors
    /// `Sql` when PostgreSQL does not answer.
    pub async fn notify(&self, channel: Channel) -> Result<(), DatabaseError> {
        let mut connection = self.pool().acquire().await?;
        notify(&mut connection, channel).await
    }
}

/// Inside a transaction, the notification is sent when it commits.
pub(crate) async fn notify(connection: &mut PgConnection, channel: Channel) -> Result<(), DatabaseError> {
    sqlx::query("SELECT pg_notify($1, '')").bind(channel.as_str()).execute(connection).await?;
    Ok(())
}
