//! A model of PostgreSQL as the window writer sees it: rows by revision and the offsets they came from, in one
//! transaction.
//!
//! The writer's own [`WindowRows`] puts the rows of a transaction together. The model covers the SQL behind it
//! (`billing/database/src/reports/window_batch.rs`), and a server that is down, slow, silent about a commit, or
//! restored to an older state.

use std::collections::BTreeMap;

use clicktally_node::sink::window_rows::WindowRows;
use clicktally_node::sink::window_writer::OutProgress;
use clicktally_proto::counts::window_count::{LateClick, WindowCount};
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_state::group_state::GroupState;

use super::sim_log::SimLog;
use crate::checks::ct4_published_is_held::{RowKey, keyed};

/// Records of one partition read at a time.
const RECORDS_PER_READ: usize = 200;

/// The next records of the outbound topics. Advances `positions`.
pub fn read_rows(log: &SimLog, positions: &mut OutProgress) -> WindowRows {
    let mut rows = WindowRows::default();
    for ((topic, partition), _) in log.outbound_ends() {
        let position = positions.entry((topic, partition)).or_default();
        for record in log.read_out(topic, partition, *position, RECORDS_PER_READ) {
            rows.take(topic, partition, *position, &record.value);
            *position += 1;
        }
    }
    rows
}

/// The rows of a replica, as they would be in the tables.
pub fn rows_held(state: &GroupState) -> BTreeMap<RowKey, WindowCount> {
    keyed(state.windows().iter().flat_map(|(minute, window)| window.rows_after(*minute, 0)))
}

/// The content of the tables.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SinkTables {
    pub rows: BTreeMap<RowKey, WindowCount>,
    pub late: BTreeMap<u64, LateClick>,
    /// (topic, partition) → the next offset to read.
    pub progress: OutProgress,
}

/// The outcome of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionFate {
    Committed,
    /// Committed, but the answer is lost.
    CommittedUnknown,
    RolledBack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteError {
    /// Another writer has read past this position.
    Overtaken,
    /// Down, rolled back, or silent.
    Unavailable,
}

#[derive(Debug, Clone, Default)]
pub struct SimSink {
    tables: SinkTables,
    /// Backups, oldest first.
    backups: Vec<SinkTables>,
}

/// Backups kept: enough to go back some minutes.
const BACKUPS_MAX: usize = 4;

impl SimSink {
    pub fn tables(&self) -> &SinkTables {
        &self.tables
    }

    /// Writes a batch as one transaction. Returns the keys of the rows that changed.
    pub fn write(&mut self, batch: &WindowRows, fate: TransactionFate) -> Result<Vec<RowKey>, WriteError> {
        let found = |at: &(&'static str, i32)| self.tables.progress.get(at).copied().unwrap_or(0);
        if batch.progress.iter().any(|(at, (first, _))| found(at) > *first) {
            return Err(WriteError::Overtaken);
        }
        if is_broken(Mutant::SinkOffsetsFirst) {
            self.move_on(batch);
        }
        if fate == TransactionFate::RolledBack {
            return Err(WriteError::Unavailable);
        }
        let mut changed = Vec::new();
        for (key, row) in &batch.windows {
            let before = self.tables.rows.get(key);
            let is_newer = before.is_none_or(|before| row.revision > before.revision);
            let mut row = row.clone();
            if is_broken(Mutant::Sink) {
                row.clicks += before.map_or(0, |before| before.clicks);
            } else if !is_newer && !is_broken(Mutant::UpsertUnversioned) {
                continue;
            }
            self.tables.rows.insert(*key, row);
            changed.push(*key);
        }
        for (id, click) in &batch.late {
            self.tables.late.entry(*id).or_insert(*click);
        }
        self.move_on(batch);
        match fate {
            TransactionFate::Committed => Ok(changed),
            TransactionFate::CommittedUnknown | TransactionFate::RolledBack => Err(WriteError::Unavailable),
        }
    }

    fn move_on(&mut self, batch: &WindowRows) {
        self.tables.progress.extend(batch.progress.iter().map(|(at, (_, next))| (*at, *next)));
    }

    pub fn back_up(&mut self) {
        if self.backups.len() == BACKUPS_MAX {
            self.backups.remove(0);
        }
        self.backups.push(self.tables.clone());
    }

    /// Restores one of the backups, `age` 0 being the newest. Returns false if there is none so old.
    pub fn restore(&mut self, age: usize) -> bool {
        let Some(index) = self.backups.len().checked_sub(age + 1) else { return false };
        self.backups.truncate(index + 1);
        self.tables = self.backups[index].clone();
        true
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::click_log::WINDOW_COUNTS;
    use prost::Message;

    use super::*;

    fn batch(offset: i64, revision: u64) -> WindowRows {
        let mut rows = WindowRows::default();
        let row = WindowCount { ad_id: 1, campaign_id: 1, minute: 5, clicks: revision, revision, ..Default::default() };
        rows.take(WINDOW_COUNTS, 0, offset, &row.encode_to_vec());
        rows
    }

    #[test]
    fn rows_and_offsets_commit_together_or_not_at_all() {
        let mut sink = SimSink::default();
        assert_eq!(sink.write(&batch(0, 3), TransactionFate::RolledBack), Err(WriteError::Unavailable));
        assert_eq!(*sink.tables(), SinkTables::default());
        assert_eq!(sink.write(&batch(0, 3), TransactionFate::CommittedUnknown), Err(WriteError::Unavailable));
        assert_eq!(sink.write(&batch(0, 3), TransactionFate::Committed), Err(WriteError::Overtaken));
        assert_eq!(sink.write(&batch(1, 2), TransactionFate::Committed), Ok(Vec::new()), "an older revision");
        assert_eq!(sink.tables().rows[&(5, 1, 1)].revision, 3);
    }

    #[test]
    fn a_restored_database_is_read_into_again_from_its_own_offsets() {
        let mut sink = SimSink::default();
        sink.back_up();
        sink.write(&batch(0, 3), TransactionFate::Committed).unwrap();
        assert!(sink.restore(0) && sink.tables().progress.is_empty());
        assert!(!sink.restore(1));
        assert_eq!(sink.write(&batch(0, 3), TransactionFate::Committed), Ok(vec![(5, 1, 1)]));
    }
}
