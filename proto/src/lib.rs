//! What every part of clicktally agrees on: identities, the partitioner, the click schema, the merge law, replicated
//! commands, money and time.
//!
//! This crate does no I/O and has no runtime: it has rules, data types, and the seams Clock and Log. The modules are in
//! data-path order.

pub mod clock;
pub mod event_time;

pub mod click;
pub mod identity;

pub mod checkpoint;
pub mod counts;

pub mod command;
pub mod limits;

pub mod codec;
pub mod money;
pub mod varint;

pub mod click_log;
pub mod log_time;
pub mod next_move;

pub mod fault;
