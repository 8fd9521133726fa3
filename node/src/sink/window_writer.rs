//! Carries the outbound topics into tables: one node at a time, batch by batch, from the tables' progress.
//!
//! Reads: an [`OutTopics`]. Writes: a [`WindowTables`]. Promises: every row is committed together with the offsets it
//! came from. After any error the writer begins again from those offsets, so no row is missed. The tables recognise
//! rows that come twice.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use clicktally_proto::click_log::LogError;
use clicktally_proto::next_move::NextMove;
use clicktally_raft_store::metrics_registry::{FIXED, registered};
use prometheus::IntCounter;
use thiserror::Error;
use tokio::sync::watch;

use super::window_rows::WindowRows;
use crate::halts::{Halts, Part};
use crate::retry::{self, Backoff};

/// A correction counts again if its write is repeated because the outcome of the first commit is unknown.
static CORRECTIONS: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "rows written to PostgreSQL that correct a window which had fired";
    registered(IntCounter::new("clicktally_corrections_total", help).expect(FIXED))
});

/// The pause after an error. Also the time without a row after which the session is checked.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// (topic, partition) → the next offset to read.
pub type OutProgress = BTreeMap<(&'static str, i32), i64>;

#[derive(Debug, Error)]
pub enum SinkError {
    #[error("{source}")]
    Tables { next_move: NextMove, source: Box<dyn Error + Send + Sync> },
    #[error("Kafka: {0}")]
    Topics(#[source] LogError),
    #[error("another writer moved {topic}/{partition} to {found}, this one read from {expected}")]
    Overtaken { topic: &'static str, partition: i32, expected: i64, found: i64 },
}

impl SinkError {
    pub fn next_move(&self) -> NextMove {
        match self {
            SinkError::Topics(error) => error.next_move(),
            SinkError::Tables { next_move, .. } => *next_move,
            // A write that may have been committed is safe to repeat, and the writer continues from the tables'
            // progress.
            SinkError::Overtaken { .. } => NextMove::Retry,
        }
    }
}

/// The destination of the rows.
#[async_trait]
pub trait WindowTables: Send + Sync {
    /// Waits until this node may write; returns `None` if stopped meanwhile. Two nodes may write at once for a short
    /// time, which the tables tolerate.
    async fn obtain(&self, stop: &mut watch::Receiver<bool>) -> Option<Box<dyn WriterSession>>;
}

/// The right to write, which lasts as long as the session.
#[async_trait]
pub trait WriterSession: Send {
    /// Reads the tables' progress.
    async fn progress(&mut self) -> Result<OutProgress, SinkError>;

    /// Writes rows and offsets in one transaction. They are committed when this returns, and may be committed after an
    /// error.
    async fn write(&mut self, rows: &WindowRows) -> Result<(), SinkError>;

    /// Returns false once the session is gone.
    async fn is_held(&mut self) -> bool;
}

/// The source of the rows.
#[async_trait]
pub trait OutTopics: Send + Sync {
    async fn read_from(&self, progress: OutProgress) -> Result<Box<dyn OutReader>, SinkError>;
}

#[async_trait]
pub trait OutReader: Send {
    /// Waits for the next batch, which is never empty. The future may be dropped at any time: the next call returns the
    /// records that it did not return.
    async fn next(&mut self) -> Result<WindowRows, SinkError>;
}

/// Runs on every node that serves. One of them writes.
pub async fn run(
    tables: Arc<dyn WindowTables>,
    topics: Arc<dyn OutTopics>,
    halts: Arc<Halts>,
    mut stop: watch::Receiver<bool>,
) {
    while let Some(mut session) = tables.obtain(&mut stop).await {
        let written = tokio::select! {
            written = write_until_error(session.as_mut(), topics.as_ref(), &halts) => written,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let pause = match written {
            Err(error) => {
                if error.next_move() == NextMove::Retry {
                    tracing::warn!(%error, "window writer interrupted; continuing from the committed offsets");
                } else {
                    halts.halted(Part::WindowWriter, &error);
                }
                Backoff::steady(RETRY_PAUSE).after(error.next_move())
            }
            Ok(()) => RETRY_PAUSE,
        };
        drop(session);
        if retry::pause(pause, &mut stop).await.is_none() {
            return;
        }
    }
}

async fn write_until_error(
    session: &mut dyn WriterSession,
    topics: &dyn OutTopics,
    halts: &Halts,
) -> Result<(), SinkError> {
    let mut reader = topics.read_from(session.progress().await?).await?;
    loop {
        match tokio::time::timeout(RETRY_PAUSE, reader.next()).await {
            Ok(rows) => {
                let rows = rows?;
                session.write(&rows).await?;
                halts.works(Part::WindowWriter);
                CORRECTIONS.inc_by(rows.corrections());
            }
            Err(_idle) => {
                if !session.is_held().await {
                    return Ok(());
                }
            }
        }
    }
}
