//! The writer of PostgreSQL, and sometimes a second one that has not noticed the first.

use clicktally_node::sink::window_writer::OutProgress;

use super::event::Event;
use super::world::World;
use crate::simulation::sim_sink::{SimSink, TransactionFate, read_rows};

const WRITE_EVERY_MS: u64 = 300;
const RETRY_PAUSE_MS: u64 = 500;
const BACK_UP_EVERY_MS: u64 = 15_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WriterId(pub(super) usize);

/// A session with the database. It continues from what it has read, not from what the tables hold.
#[derive(Debug, Default)]
struct Writer {
    /// `None`: must be looked up.
    positions: Option<OutProgress>,
}

#[derive(Debug, Default)]
pub(super) struct Sink {
    pub(super) database: SimSink,
    writers: [Writer; 2],
    pub(super) is_down: bool,
    pub(super) has_second_writer: bool,
}

impl Sink {
    /// The database was restarted: every session is gone.
    pub(super) fn lose_sessions(&mut self) {
        self.writers = Default::default();
    }
}

impl World {
    pub(super) fn begin_sink(&mut self) {
        self.agenda.after(WRITE_EVERY_MS, Event::Sink(WriterId(0)));
        self.agenda.after(WRITE_EVERY_MS, Event::Sink(WriterId(1)));
        self.agenda.after(BACK_UP_EVERY_MS, Event::BackUp);
    }

    pub(super) fn back_up(&mut self) {
        self.agenda.after(BACK_UP_EVERY_MS, Event::BackUp);
        self.sink.database.back_up();
    }

    pub(super) fn work_sink(&mut self, writer: WriterId) {
        let is_idle = writer.0 > 0 && !self.sink.has_second_writer;
        let is_done = is_idle || self.write_batch(writer);
        let pause_ms = if is_done { WRITE_EVERY_MS } else { RETRY_PAUSE_MS };
        self.agenda.after(pause_ms, Event::Sink(writer));
    }

    /// Returns false if the session is lost.
    fn write_batch(&mut self, id: WriterId) -> bool {
        let fate = match (self.sink.is_down, self.is_lost()) {
            (true, _) => TransactionFate::RolledBack,
            (false, false) => TransactionFate::Committed,
            (false, true) if self.network.permille(500) => TransactionFate::CommittedUnknown,
            (false, true) => TransactionFate::RolledBack,
        };
        let Sink { database, writers, .. } = &mut self.sink;
        let writer = &mut writers[id.0];
        let positions = writer.positions.get_or_insert_with(|| database.tables().progress.clone());
        let batch = read_rows(&self.log, positions);
        if batch.is_empty() {
            return true;
        }
        if fate != TransactionFate::Committed {
            self.report.fault("transaction without an answer");
        }
        let before = self.sink.database.tables().progress.clone();
        let written = self.sink.database.write(&batch, fate);
        let has_moved = self.sink.database.tables().progress != before;
        if has_moved {
            let tables = self.sink.database.tables();
            self.watch.rows_written(batch.windows.keys().filter_map(|key| tables.rows.get(key)));
        }
        self.trace_line(format_args!("writer {} wrote {} rows: {written:?}", id.0, batch.windows.len()));
        if written.is_err() {
            self.sink.writers[id.0] = Writer::default();
        }
        written.is_ok()
    }
}
