//! What every part of clicktally agrees on: identities, the partitioner, the click schema, the merge law, replicated
//! commands, money and time. No I/O, no runtime; everything here is a rule or a shape.
//!
//! In data-path order.

pub mod clock;
pub mod event_time;

pub mod click;
mod click_columns;
pub mod click_view;
mod found_columns;
pub mod ids;
pub mod invalid_traffic;
pub mod shard_key;

pub mod cell_block;
pub mod checkpoint;
pub mod counts;
pub mod seen_ids;
pub mod user_estimate;
pub mod user_mark;
pub mod user_sketch;
pub mod varint;
pub mod window_cells;

pub mod command;
pub mod window_count;

pub mod codec;
pub mod money;

pub mod click_log;
pub mod fault;
