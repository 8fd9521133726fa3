//! Plays a log that another program wrote: CSV with a column mapping, JSON lines, or a Combined access log.
//!
//! Reads: the file, through `clicktally_foreign_logs`, and the wall clock. Writes: `POST /v1/clicks` or `raw_clicks`.
//! Promises: every row is played, or named with its line and its reason; the totals add up to the rows read. Nothing is
//! sent before the options fit the file. On restart: a row has the same `event_id` in every play, so the product drops
//! what it has counted already, for as long as it remembers ids (`allowed_lateness_ms`).
//!
//! Batches go one after the other, so that the first row of an `event_id` is the one that counts, here and there.

pub mod options;

pub mod totals;

mod pace;
mod player;
mod row_door;

pub(super) use player::play;

#[cfg(test)]
mod play_tests;
