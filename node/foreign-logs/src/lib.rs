//! Reads logs that other programs wrote: CSV, JSON lines, and the Combined access log of Apache and nginx.
//!
//! Reads: bytes, in pieces of any size. Writes: nothing. Promises: each row comes back once and in order, as a click or
//! as a skipped row with its line number and its reason. No input makes it panic, wait, or hold more than one row of
//! [`rows::ROW_BYTES_MAX`]. The same bytes always give the same clicks with the same identities. On restart: it starts
//! again at the first byte; a click whose log names no `event_id` has the identity of its line and its bytes.
//!
//! It cannot do I/O and knows no time, so that playback and a watcher of growing logs can share it. The modules follow
//! a row's path: cut out of the bytes, taken apart into fields, filtered, checked.

pub mod skip;

pub mod rows;

pub mod fields;

pub mod combined_row;

pub mod csv_row;

pub mod json_row;

pub mod columns;

pub mod conditions;

pub mod time_format;

pub mod click_row;

pub mod log_reader;
