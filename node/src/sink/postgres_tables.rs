//! The window writer's tables in PostgreSQL: `reports.ad_minute`, `reports.late_click`, `reports.sink_progress`.
//!
//! `clicktally_database::reports` has the transaction and its promises. This adapter gives it the writer's session
//! and rows.

use std::sync::Arc;

use async_trait::async_trait;
use clicktally_database::reports::{self, BatchOutcome, TopicRange, WindowBatch};
use clicktally_database::{AdvisoryLock, Database, DatabaseError, LockSession};
use clicktally_proto::click_log::{LATE_CLICKS, WINDOW_COUNTS};
use tokio::sync::watch;

use super::singleton;
use super::window_rows::WindowRows;
use super::window_writer::{OutProgress, SinkError, WindowTables, WriterSession};
use crate::halts::{Halts, Part};

pub struct PostgresTables {
    database: Database,
    halts: Arc<Halts>,
}

impl PostgresTables {
    pub fn new(database: Database, halts: Arc<Halts>) -> PostgresTables {
        PostgresTables { database, halts }
    }
}

impl From<DatabaseError> for SinkError {
    fn from(error: DatabaseError) -> SinkError {
        SinkError::Tables { next_move: error.next_move(), source: error.into() }
    }
}

#[async_trait]
impl WindowTables for PostgresTables {
    async fn obtain(&self, stop: &mut watch::Receiver<bool>) -> Option<Box<dyn WriterSession>> {
        let session =
            singleton::obtain(&self.database, AdvisoryLock::WindowWriter, Part::WindowWriter, &self.halts, stop)
                .await?;
        Some(Box::new(PostgresSession { session }))
    }
}

/// Holds the lock, and carries every row: a writer that lost its lock cannot write.
struct PostgresSession {
    session: LockSession,
}

#[async_trait]
impl WriterSession for PostgresSession {
    async fn progress(&mut self) -> Result<OutProgress, SinkError> {
        let known = |name: &str| [WINDOW_COUNTS, LATE_CLICKS].into_iter().find(|topic| *topic == name);
        let rows = reports::topic_progress(&mut self.session).await?;
        let rows = rows.into_iter().filter_map(|(topic, partition, next)| Some(((known(&topic)?, partition), next)));
        Ok(rows.collect())
    }

    async fn write(&mut self, rows: &WindowRows) -> Result<(), SinkError> {
        let progress = rows
            .progress
            .iter()
            .map(|(&(topic, partition), &(first, next))| TopicRange { topic, partition, first, next })
            .collect();
        let batch =
            WindowBatch { windows: rows.windows.values().collect(), late: rows.late.values().collect(), progress };
        match reports::write_batch(&mut self.session, &batch).await? {
            BatchOutcome::Committed => Ok(()),
            BatchOutcome::Overtaken { range: TopicRange { topic, partition, first, .. }, found } => {
                Err(SinkError::Overtaken { topic, partition, expected: first, found })
            }
        }
    }

    async fn is_held(&mut self) -> bool {
        self.session.is_held().await
    }
}
